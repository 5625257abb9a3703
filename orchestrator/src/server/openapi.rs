//! The document that describes the API, made from the code that answers.

use serde_json::{Map, Value, json};
use utoipa::openapi::OpenApi;

use super::progress::RunProgress;
use super::request::LARGEST_NUMBER;
use super::schedules::LONGEST;
use crate::catalogue::Catalogue;

/// What can go wrong with every request.
const ALWAYS: [(&str, &str); 5] = [
    ("401", "The key is missing, unknown, expired or revoked"),
    ("403", "The key may not do this"),
    ("429", "The key has asked too often, or too many questions to one source go on"),
    ("500", "A fault of levin"),
    ("503", "The store does not answer"),
];

/// The words and schemas of the document that no handler knows.
pub(super) fn document(api: OpenApi, catalogue: &Catalogue) -> Value {
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
        let number = json!({"type": "integer", "minimum": 1, "maximum": LARGEST_NUMBER});
        let digits = json!({"type": "string", "pattern": "^[1-9][0-9]{0,14}$"});
        let custom = &mut schemas["TriggerCustomInput"];
        custom["properties"]["syncId"]["oneOf"] = json!([number, digits, {"type": "null"}]);
        custom["anyOf"] = json!([
            {"required": ["syncId"], "properties": {"syncId": {"type": ["integer", "string"]}}},
            {"required": ["syncSlug"], "properties": {"syncSlug": {"type": "string"}}},
        ]);
        for input in ["SyncCreateInput", "ModelCreateInput", "ModelUpdateInput"] {
            for name in ["sourceId", "modelId", "destinationId"] {
                if let Some(id) = schemas[input]["properties"].get_mut(name) {
                    id["maximum"] = LARGEST_NUMBER.into();
                }
            }
        }
        let progress = serde_json::to_value(<RunProgress as utoipa::PartialSchema>::schema());
        schemas.insert("RunProgress".to_owned(), progress.unwrap_or_default());
        schemas.insert(
            "RunEvent".to_owned(),
            json!({
                "type": "object",
                "required": ["event", "data"],
                "properties": {
                    "event": {"const": "run"},
                    "data": {"type": "string", "contentMediaType": "application/json",
                        "contentSchema": {"$ref": "#/components/schemas/RunProgress"}},
                },
            }),
        );
        schemas.insert("ScheduleInput".to_owned(), schedule_input());
        let types = |names: Vec<&str>| json!({"type": "string", "enum": names, "description": "See `levin connectors`"});
        let (sources, destinations) = (&catalogue.sources, &catalogue.destinations);
        schemas["SourceCreateInput"]["properties"]["type"] =
            types(sources.iter().map(|one| one.name).collect());
        schemas["DestinationCreateInput"]["properties"]["type"] =
            types(destinations.iter().map(|one| one.name).collect());
        let key = json!({"oneOf": [
            {"type": "string", "minLength": 1}, {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
        ], "description": "The column that tells rows apart; several are separated by commas, or a list"});
        schemas["ModelCreateInput"]["properties"]["primaryKey"] = key.clone();
        schemas["ModelUpdateInput"]["properties"]["primaryKey"] = key;
        for input in ["SourceCreateInput", "DestinationCreateInput", "ModelCreateInput"] {
            schemas[input]["anyOf"] = json!([
                {"required": ["slug"], "properties": {"slug": {"type": "string"}}},
                {"required": ["name"], "properties": {"name": {"type": "string", "pattern": "[A-Za-z0-9]", "maxLength": 100}}},
            ]);
        }
        for input in ["ModelCreateInput", "ModelUpdateInput"] {
            schemas[input]["properties"]["isSchema"] =
                json!({"const": false, "description": "There are no schemas here"});
        }
        schemas["ModelCreateInput"]["oneOf"] =
            json!([{"required": ["raw"]}, {"required": ["table"]}, {"required": ["dbt"]}]);
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
    let schemas = document["components"]["schemas"].clone();
    for (path, item) in document["paths"].as_object_mut().into_iter().flatten() {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            if operation.get("responses").is_some() {
                complete(path, method, operation, &schemas);
            }
        }
    }
    document
}

fn complete(path: &str, method: &str, operation: &mut Value, schemas: &Value) {
    let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
    for parameter in parameters.into_iter().flatten() {
        // What is not asked for is left out; nobody can write null there.
        plain(&mut parameter["schema"]);
    }
    let has_parameters = operation.get("parameters").is_some();
    let has_body = operation.get("requestBody").is_some();
    let contents = operation.get_mut("requestBody").and_then(|body| body["content"].as_object_mut());
    for (kind, content) in contents.into_iter().flatten() {
        // As JSON, null is as good as no body.
        if kind == "application/x-www-form-urlencoded" {
            plain(&mut content["schema"]);
            content["schema"] = as_form(&content["schema"], schemas);
        }
    }
    let Some(responses) = operation["responses"].as_object_mut() else { return };
    if let Some(content) = responses.get_mut("200").and_then(|ok| ok["content"].get_mut("text/event-stream"))
    {
        content["schema"] = json!({"$ref": "#/components/schemas/RunEvent"});
    }
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
        responses.entry("408").or_insert_with(|| fault("408", "The body did not arrive in time"));
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

/// Schedules, in the words of clients and in those of project files.
fn schedule_input() -> Value {
    // Null is as good as none, as clients write it for what they do not use.
    let maybe = json!({"type": ["string", "null"], "minLength": 1});
    let of = |kind: &str, mut schedule: Value, required: &[&str]| {
        schedule["jitter"] = maybe.clone();
        json!({
            "type": "object", "required": ["type", "schedule"], "additionalProperties": false,
            "properties": {
                "type": {"const": kind},
                "schedule": {"type": "object", "properties": schedule, "required": required},
            },
        })
    };
    let text = json!({"type": "string", "minLength": 1});
    let interval = json!({
        "type": "object", "required": ["unit", "quantity"],
        "properties": {
            "unit": {"enum": ["second", "minute", "hour", "day", "week"]},
            "quantity": {"type": "integer", "minimum": 1, "maximum": LONGEST},
        },
    });
    let at = json!({"type": "array", "minItems": 1, "items": {"type": "object"}});
    let id = json!({"oneOf": [text, {"type": "integer", "minimum": 1, "maximum": LARGEST_NUMBER}]});
    let named = json!({"type": "object", "properties": {"id": id}, "required": ["id"]});
    let of_any = json!({"type": "object", "properties": {"id": {"oneOf": [id, {"type": "null"}]}}});
    json!({
        "description": "When something is to run by itself, as it is shown or as a project file says it",
        "oneOf": [
            of("interval", json!({"interval": interval}), &["interval"]),
            of("cron", json!({"expression": text, "timezone": maybe}), &["expression"]),
            of("visual", json!({"expressions": at, "timezone": maybe}), &["expressions"]),
            of("dbt_cloud", json!({"job": named, "account": of_any, "hook": maybe}), &["job"]),
            of("fivetran", json!({"connector": named, "hook": maybe}), &["connector"]),
            of("after", json!({"syncs": {"type": "array", "items": text, "minItems": 1}}), &["syncs"]),
            {
                "type": "object", "required": ["type"], "additionalProperties": false,
                "properties": {"type": {"const": "manual"}, "schedule": {}},
            },
            {
                "type": "object", "minProperties": 1, "additionalProperties": false,
                "properties": {
                    "every": text, "cron": text, "at": at, "after": {"type": "array", "items": text, "minItems": 1},
                    "timezone": text, "jitter": text, "dbt_cloud": {"type": "object"}, "fivetran": {"type": "object"},
                },
            },
        ],
    })
}

fn fault(status: &str, words: &str) -> Value {
    let schema = if status == "500" { "Failure" } else { "Error" };
    json!({
        "description": words,
        "content": {"application/json": {"schema": {"$ref": format!("#/components/schemas/{schema}")}}},
    })
}

/// The same fields in a form, in which nobody can write null.
fn as_form(schema: &Value, schemas: &Value) -> Value {
    let name = schema["$ref"].as_str().and_then(|name| name.rsplit('/').next()).unwrap_or_default();
    let mut form = schemas[name].clone();
    for (_, property) in form["properties"].as_object_mut().into_iter().flatten() {
        plain(property);
    }
    form
}

/// What can be written in a parameter or a form: no null, and numbers that every client can hold.
fn plain(schema: &mut Value) {
    if let Some(branches) = schema.get_mut("oneOf").and_then(Value::as_array_mut) {
        branches.retain(|branch| branch["type"] != "null");
        if let [only] = branches.as_slice() {
            *schema = only.clone();
        }
    }
    // A default beside a list of words is written as a schema of its own.
    if let Some(branches) = schema.get("allOf").and_then(Value::as_array) {
        let words = branches.iter().find(|branch| branch.get("enum").is_some()).cloned();
        let default = branches.iter().find_map(|branch| branch.get("default")).cloned();
        if let Some(mut words) = words {
            if let Some(default) = default {
                words["default"] = default;
            }
            *schema = words;
        }
    }
    if let Some(types) = schema.get_mut("type").and_then(Value::as_array_mut) {
        types.retain(|kind| kind != "null");
        if let [only] = types.as_slice() {
            schema["type"] = only.clone();
        }
    }
    if schema["type"] == "integer" && schema.get("maximum").is_none() {
        schema["maximum"] = LARGEST_NUMBER.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown() -> Value {
        document(super::super::documented().1, &Catalogue::levin())
    }

    #[test]
    fn every_operation_says_what_can_go_wrong_and_names_what_is_there() {
        let document = shown();
        let mut names = std::collections::BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let name = operation["operationId"].as_str().unwrap();
                assert!(names.insert(name.to_owned()), "two operations are called {name}");
                for status in ["200", "401", "403", "429", "500", "503"] {
                    assert!(operation["responses"].get(status).is_some(), "{method} {path}: {status}");
                }
                if path.contains('{') {
                    assert!(operation["responses"].get("404").is_some(), "{method} {path}");
                }
            }
        }
        assert!(names.len() > 30, "{names:?}");
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#/").skip(1).map(|rest| rest.split('"').next().unwrap()) {
            assert!(document.pointer(&format!("/{reference}")).is_some(), "{reference} is not there");
        }
        assert!(!text.contains("\"parameters\":null") && !text.contains("\"oneOf\":null"));
    }

    #[test]
    fn what_clients_read_is_there_and_never_left_out() {
        let document = shown();
        let common = ["id", "slug", "workspaceId", "createdAt", "updatedAt"];
        let counts = ["plannedRows", "successfulRows", "failedRows"];
        for (schema, fields) in [
            ("Source", &["name", "type", "configuration"][..]),
            ("Destination", &["name", "type", "configuration", "syncs"]),
            (
                "Model",
                &[
                    "name",
                    "sourceId",
                    "primaryKey",
                    "queryType",
                    "isSchema",
                    "tags",
                    "description",
                    "syncs",
                    "lastRunSize",
                ],
            ),
            (
                "Sync",
                &[
                    "destinationId",
                    "modelId",
                    "configuration",
                    "schedule",
                    "status",
                    "disabled",
                    "lastRunAt",
                    "referencedColumns",
                    "primaryKey",
                    "externalSegment",
                    "tags",
                ],
            ),
        ] {
            let schema = &document["components"]["schemas"][schema];
            let required = schema["required"].as_array().unwrap();
            for field in common.iter().chain(fields) {
                assert!(schema["properties"].get(field).is_some(), "{field}");
                assert!(required.contains(&(*field).into()), "{field} may be left out");
            }
        }
        let run = &document["components"]["schemas"]["SyncRun"];
        let fields =
            ["id", "createdAt", "startedAt", "finishedAt", "querySize", "status", "completionRatio", "error"];
        for field in fields.iter().chain(&counts) {
            assert!(
                run["required"].as_array().unwrap().contains(&(*field).into()),
                "{field} may be left out"
            );
        }
        let words =
            |schema: &str| document["components"]["schemas"][schema]["enum"].as_array().unwrap().len();
        assert_eq!((words("SyncStatus"), words("RunStatus"), words("SequenceStatus")), (11, 9, 5));
    }
}
