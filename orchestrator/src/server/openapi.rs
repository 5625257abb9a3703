//! The document that describes the API, made from the code that answers.

use serde_json::{Map, Value, json};
use utoipa::openapi::OpenApi;

/// What can go wrong with every request.
const ALWAYS: [(&str, &str); 5] = [
    ("401", "The key is missing, unknown, expired or revoked"),
    ("403", "The key may not do this"),
    ("429", "The key has asked too often"),
    ("500", "A fault of levin"),
    ("503", "The store does not answer"),
];

/// The words and schemas of the document that no handler knows.
pub(super) fn document(api: OpenApi) -> Value {
    let mut document = serde_json::to_value(api).unwrap_or_default();
    document["openapi"] = "3.1.0".into();
    document["info"] = json!({
        "title": "levin",
        "version": env!("CARGO_PKG_VERSION"),
        "description": "Sources, models, destinations and syncs of a project, and their runs. Every request needs a key: \
            `levin keys create NAME --scope read|run|admin`.",
        "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
    });
    document["security"] = json!([{"key": []}]);
    document["components"]["securitySchemes"] = json!({
        "key": {"type": "http", "scheme": "bearer", "description": "A key of `levin keys create`"},
    });
    if let Some(schemas) = document["components"]["schemas"].as_object_mut() {
        let id =
            json!([{"type": "integer", "minimum": 1}, {"type": "string", "pattern": "^0*[1-9][0-9]{0,17}$"}]);
        schemas["TriggerCustomInput"]["properties"]["syncId"]["oneOf"] = id;
        schemas["TriggerCustomInput"]["anyOf"] =
            json!([{"required": ["syncId"]}, {"required": ["syncSlug"]}]);
        for input in ["TriggerInput", "TriggerCustomInput"] {
            let both = |a: &str, b: &str| json!({"properties": {a: {"const": true}, b: {"const": true}}, "required": [a, b]});
            schemas[input]["not"] = json!({"anyOf": [
                both("fullResync", "resetCDC"), both("fullResync", "clearAndFill"), both("resetCDC", "clearAndFill"),
            ]});
        }
        schemas.insert("Failure".to_owned(), json!({"type": "string", "const": "Internal Server Error"}));
    }
    document["components"]["headers"] = json!({
        "RateLimit-Limit": {"description": "Requests in ten seconds", "schema": {"type": "integer", "minimum": 1}},
        "RateLimit-Remaining": {"description": "How many of them are left", "schema": {"type": "integer", "minimum": 0}},
        "RateLimit-Reset": {"description": "Seconds until all of them are there again", "schema": {"type": "integer", "minimum": 0}},
        "Retry-After": {"description": "Seconds after which to ask again", "schema": {"type": "integer", "minimum": 1}},
    });
    for (path, item) in document["paths"].as_object_mut().into_iter().flatten() {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            if operation.get("responses").is_some() {
                complete(path, method, operation);
            }
        }
    }
    document
}

fn complete(path: &str, method: &str, operation: &mut Value) {
    for parameter in operation["parameters"].as_array_mut().into_iter().flatten() {
        // What is not asked for is left out; nobody can write null there.
        not_null(&mut parameter["schema"]);
    }
    let has_parameters = operation["parameters"].as_array().is_some_and(|all| !all.is_empty());
    let has_body = operation.get("requestBody").is_some();
    let Some(responses) = operation["responses"].as_object_mut() else { return };
    for (status, words) in ALWAYS {
        responses.entry(status).or_insert_with(|| fault(status, words));
    }
    if has_parameters || has_body || method == "post" {
        responses.entry("422").or_insert_with(|| fault("422", "Something in the request is wrong"));
    }
    if path.contains('{') || path.ends_with("/trigger") {
        responses.entry("404").or_insert_with(|| fault("404", "There is no such object"));
    }
    if has_body || (method == "post" && path.ends_with("/trigger")) {
        responses.entry("413").or_insert_with(|| fault("413", "The body is too large"));
        responses.entry("415").or_insert_with(|| fault("415", "The body is of a kind that is not read here"));
    }
    for (status, response) in responses.iter_mut() {
        if status == "401" {
            continue;
        }
        let mut headers = Map::new();
        for name in ["RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"] {
            headers.insert(name.to_owned(), json!({"$ref": format!("#/components/headers/{name}")}));
        }
        if status == "429" || status == "503" {
            headers.insert("Retry-After".to_owned(), json!({"$ref": "#/components/headers/Retry-After"}));
        }
        response["headers"] = headers.into();
    }
    responses.sort_keys();
}

fn fault(status: &str, words: &str) -> Value {
    let schema = if status == "500" { "Failure" } else { "Error" };
    json!({
        "description": words,
        "content": {"application/json": {"schema": {"$ref": format!("#/components/schemas/{schema}")}}},
    })
}

/// Takes null out of what a schema allows.
fn not_null(schema: &mut Value) {
    if let Some(types) = schema["type"].as_array_mut() {
        types.retain(|kind| kind != "null");
        if let [only] = types.as_slice() {
            schema["type"] = only.clone();
        }
    }
    if let Some(branches) = schema["oneOf"].as_array_mut() {
        branches.retain(|branch| branch["type"] != "null");
        if let [only] = branches.as_slice() {
            *schema = only.clone();
        }
    }
}
