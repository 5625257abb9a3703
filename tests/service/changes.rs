//! The project, changed through the API.

use std::fs;

use serde_json::{Value, json};

use crate::{SYNC, Scene, project};

impl Scene {
    pub(super) fn patch(&self, path: &str, body: &Value) -> tests::service::Answer {
        self.served.ask("PATCH", &format!("/api/v1{path}")).key(&self.key).json(body).send()
    }

    /// Every project file with its text.
    fn files(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for folder in ["", "sources", "models", "destinations", "syncs"] {
            for entry in fs::read_dir(self.project.path().join(folder)).into_iter().flatten().flatten() {
                if entry.path().is_file() && !entry.file_name().to_string_lossy().contains(".db") {
                    let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
                    found.push((name, fs::read_to_string(entry.path()).expect("a text")));
                }
            }
        }
        found.sort();
        found
    }
}

#[test]
fn what_is_made_through_the_api_does_not_run() {
    let scene = Scene::new(3, "");
    let source = scene.post(
        "/sources",
        &json!({"name": "The Warehouse", "type": "postgres", "configuration": {"url": "${WAREHOUSE_URL}"}}),
    );
    assert_eq!(source.status, 200, "{source:?}");
    assert_eq!((&source.json["slug"], &source.json["id"]), (&json!("the-warehouse"), &json!(2)));
    let model = scene.post(
        "/models",
        &json!({"name": "people", "slug": "people", "queryType": "raw_sql", "sourceId": 2, "isSchema": false,
            "primaryKey": "id", "raw": {"sql": "select id, name\nfrom customers\nwhere id < 3"}}),
    );
    assert_eq!(model.status, 200, "{model:?}");
    assert_eq!(model.json["raw"]["sql"], "select id, name\nfrom customers\nwhere id < 3");
    let destination = scene.post(
        "/destinations",
        &json!({"name": "hook", "slug": "hook", "type": "http_request",
            "configuration": {"base_url": "${CRM_URL}", "allow_private_networks": true, "auth": {"bearer": "in-clear-secret"}}}),
    );
    assert_eq!(destination.status, 200, "{destination:?}");
    assert!(!destination.text.contains("in-clear-secret"), "a secret is told: {destination:?}");
    let sync = scene.post(
        "/syncs",
        &json!({"slug": "people-to-hook", "destinationId": destination.json["id"], "modelId": model.json["id"],
            "configuration": {"mode": "upsert", "object": "contacts", "each": {"method": "POST", "path": "/people"},
                "mappings": [{"to": "full_name", "from": "name", "type": "standard"}],
                "externalIdMapping": {"to": "external", "from": "id", "type": "standard"}, "associationMappings": []},
            "schedule": {"type": "interval", "schedule": {"interval": {"unit": "hour", "quantity": 6}}},
            "disabled": true}),
    );
    assert_eq!(sync.status, 200, "{sync:?}");
    assert_eq!((&sync.json["status"], &sync.json["disabled"]), (&json!("disabled"), &json!(true)));
    assert_eq!(sync.json["schedule"]["schedule"], json!({"interval": {"unit": "hour", "quantity": 6}}));
    assert_eq!(scene.project.levin(&["check", "--offline"]).code, 0);
    let id = sync.json["id"].as_u64().expect("a number");
    assert_eq!(scene.post(&format!("/syncs/{id}/trigger"), &json!({})).status, 409, "it is disabled");

    // What is shown can be sent back, and changes nothing.
    let before = scene.files();
    let same = scene.patch(
        &format!("/syncs/{id}"),
        &json!({"configuration": sync.json["configuration"], "schedule": sync.json["schedule"]}),
    );
    assert_eq!((same.status, &same.json["configuration"]), (200, &sync.json["configuration"]), "{same:?}");
    assert_eq!(scene.files(), before);

    let woken = scene.patch(
        &format!("/syncs/{id}"),
        &json!({"disabled": false, "schedule": null, "configuration": {"object": null, "max_attempts": 3}}),
    );
    assert_eq!(
        (woken.status, &woken.json["disabled"], &woken.json["schedule"]),
        (200, &json!(false), &json!(null))
    );
    assert_eq!(
        (&woken.json["configuration"]["object"], &woken.json["configuration"]["max_attempts"]),
        (&json!(null), &json!(3))
    );
    let asked = scene.post(&format!("/syncs/{id}/trigger"), &json!({}));
    let run = scene.served.ended_run(&scene.key, id, asked.json["id"].as_str().expect("a number as text"));
    assert_eq!(
        (&run["status"], &run["successfulRows"]["addedCount"]),
        (&json!("success"), &json!(2)),
        "{run}"
    );
    assert_eq!(scene.receiver.requests()[0].rows()[0]["fields"]["full_name"], "name 1");

    // A new meaning of a model is taken at once.
    let model = scene.patch("/models/2", &json!({"table": {"name": "customers"}, "primaryKey": ["id"]}));
    assert_eq!((model.status, &model.json["queryType"]), (200, &json!("table")), "{model:?}");
    let destination = scene.patch("/destinations/2", &json!({"configuration": {"retries": 2, "auth": null}}));
    assert_eq!(destination.json["configuration"]["retries"], 2, "{destination:?}");
    let source = scene.patch("/sources/2", &json!({"configuration": {"runs_at_once": 2}}));
    assert_eq!(source.json["configuration"]["runs_at_once"], 2, "{source:?}");
}

#[test]
fn a_mistake_spoils_the_project() {
    let scene = Scene::new(1, "");
    let before = scene.files();
    for (path, body, words) in [
        (
            "/syncs",
            json!({"slug": "new", "destinationId": 1, "modelId": 1, "configuration": {"mode": "sideways"}}),
            "sideways",
        ),
        (
            "/syncs",
            json!({"slug": "new", "destinationId": 1, "modelId": 1, "configuration": {"mod": "upsert"}}),
            "mod",
        ),
        (
            "/syncs",
            json!({"slug": "new", "destinationId": 9, "modelId": 1, "configuration": {}}),
            "destinationId",
        ),
        ("/syncs", json!({"slug": "../new", "destinationId": 1, "modelId": 1, "configuration": {}}), "slug"),
        (
            "/syncs",
            json!({"slug": "new", "destinationId": 1, "modelId": 1, "configuration": {"model": "x"}}),
            "configuration.model",
        ),
        ("/syncs", json!({"slug": "new"}), "modelId"),
        (
            "/syncs",
            json!({"slug": "new", "destinationId": 1, "modelId": 1, "configuration": {}, "scheduel": null}),
            "scheduel",
        ),
        ("/sources", json!({"name": "new", "type": "oracle9", "configuration": {}}), "oracle9"),
        (
            "/sources",
            json!({"name": "new", "type": "postgres", "configuration": {"url": "${NOBODY_SET_THIS}"}}),
            "NOBODY_SET_THIS",
        ),
        (
            "/models",
            json!({"name": "new", "sourceId": 1, "primaryKey": "id", "raw": {"sql": "drop table customers"}}),
            "new.yml",
        ),
        ("/models", json!({"name": "new", "sourceId": 1, "primaryKey": "id", "visual": {}}), "visual"),
        ("/models", json!({"name": "new", "sourceId": 1, "primaryKey": "id"}), "raw"),
    ] {
        let answer = scene.post(path, &body);
        assert_eq!(answer.status, 422, "{body}: {answer:?}");
        assert_eq!(answer.json["message"], "Validation failed");
        assert!(answer.json["details"].to_string().contains(words), "{body}: {answer:?}");
        assert_eq!(scene.files(), before, "{body}");
    }
    let renamed = scene.patch("/models/1", &json!({"name": "other"}));
    assert_eq!(renamed.status, 409, "{renamed:?}");
    assert_eq!(scene.patch("/models/1", &json!({"name": ""})).status, 422);
    let wrong = scene.patch("/syncs/1", &json!({"configuration": {"model_of": 1}}));
    assert_eq!(wrong.status, 422, "{wrong:?}");
    assert_eq!(wrong.json["details"]["findings"][0]["file"], format!("syncs/{SYNC}.yml"));
    assert_eq!(scene.files(), before);
    let taken = scene.post(
        "/destinations",
        &json!({"slug": "crm", "type": "http_request", "configuration": {"base_url": "https://x"}}),
    );
    assert_eq!(taken.status, 409, "{taken:?}");
    assert_eq!(scene.patch("/syncs/9", &json!({})).status, 404);
    assert_eq!(
        scene.served.ask("POST", "/api/v1/syncs").key(&scene.key).body("text/plain", "{}").send().status,
        415
    );
    assert_eq!(scene.run(&json!({}))["status"], "success", "the project runs as before");
}

#[test]
fn a_sync_that_rests_is_started_by_somebody() {
    let scene = Scene::new(1, "");
    let before = scene.files();
    let rests = scene.patch("/syncs/1", &json!({"disabled": true}));
    assert_eq!((rests.status, &rests.json["status"]), (200, &json!("disabled")), "{rests:?}");
    assert_eq!(scene.files(), before, "no file says so");
    let refused = scene.post("/syncs/1/trigger", &json!({}));
    assert_eq!(
        (refused.status, &refused.json["details"]["code"]),
        (409, &json!("SYNC_DISABLED")),
        "{refused:?}"
    );
    assert_eq!(scene.patch("/syncs/1", &json!({"disabled": false})).json["status"], "pending");
    assert_eq!(scene.run(&json!({}))["status"], "success");
}

#[test]
fn a_folder_that_nobody_may_write_is_written() {
    let scene = Scene::new(1, "");
    // Whoever is root may write anywhere, but not into a file as if it were a folder.
    fs::rename(scene.project.path().join("models"), scene.project.path().join("elsewhere")).unwrap();
    fs::write(scene.project.path().join("models"), "").unwrap();
    let answer = scene
        .post("/models", &json!({"name": "new", "sourceId": 1, "primaryKey": "id", "table": {"name": "t"}}));
    assert_eq!(answer.status, 409, "{answer:?}");
    assert!(answer.json["details"]["reason"].as_str().unwrap().contains("cannot be written"), "{answer:?}");
}

/// What a variable holds, and nobody may see.
const TOKEN: &str = "tok-5d41402abc4b2a76";

/// A project in which every object says more than is shown of it, or says it in other words.
fn rich() -> Scene {
    let (mut project, receiver) = project(3, "");
    project.set_variable("API_TOKEN", TOKEN);
    project.write("hooks/cloud.yml", "type: dbt_cloud\nsecret: ${API_TOKEN}\n");
    project.write("hooks/tran.yml", "type: fivetran\nsecret: ${API_TOKEN}\n");
    project.write(
        "destinations/safe.yml",
        "# its own words\ntype: http_request\nbase_url: ${CRM_URL}\nallow_private_networks: true\nauth: {bearer: in-clear-secret}\n",
    );
    project.write("queries/named.sql", "select id, name from customers\n");
    let models = [
        (
            "secretive",
            "primary_key: [id]\nsql: \"select id, name, email, '${API_TOKEN}' as t from customers where name <> '$${X}'\"",
        ),
        ("composite", "primary_key: [id, name]\ntable: customers"),
        ("filed", "primary_key: id\nsql_file: queries/named.sql"),
    ];
    for (slug, text) in models {
        project.write(&format!("models/{slug}.yml"), &format!("# {slug}\nsource: wh\n{text}\n"));
    }
    let mapped = "object: \"list-${API_TOKEN}\"\nmappings:\n  - {value: \"${API_TOKEN}\", to: token}\n  \
        - {template: \"{{ row.name }} ${API_TOKEN} $${KEEP}\", to: greeting}\n  - {from: email, to: mail}\n  \
        - {to: nested, object: [{value: \"${API_TOKEN}\", to: inner}, {to: deep, array: [{value: \"${API_TOKEN}\"}, {from: id}]}]}\n  \
        - {value: null, to: nothing}\n  - {variable: run_id, to: run}";
    let syncs = [
        ("mapped", "secretive", mapped),
        ("keyed", "composite", "schedule: {every: 3h1s, jitter: 5m}"),
        (
            "several",
            "composite",
            "match:\n  - {from: id, to: a}\n  - {from: name, to: b}\nschedule: {every: 1h30m}",
        ),
        ("one", "composite", "match: [{from: id, to: a}]\nschedule: {cron: 0 9 * * *, jitter: 30s}"),
        ("cloud", "filed", "schedule: {dbt_cloud: {job: 123, account: 1, hook: cloud}}"),
        ("tran", "filed", "schedule: {fivetran: {connector: \"${API_TOKEN}\"}}"),
        ("timed", "filed", "mode: upsert\nschedule: {at: [{time: \"09:05\"}], timezone: Europe/Berlin}"),
        ("later", "filed", "schedule: {after: [mapped]}\nmappings: [{from: name, to: n}]"),
    ];
    for (slug, model, text) in syncs {
        let text = format!(
            "# {slug}\nmodel: {model}\ndestination: safe\neach: {{method: POST, path: /rows}}\n{text}\n"
        );
        project.write(&format!("syncs/{slug}.yml"), &text);
    }
    project.write("sequences/night.yml", "syncs: [mapped]\nschedule: {cron: 0 3 * * *, jitter: 1m}\n");
    Scene::of(project, receiver)
}

#[test]
fn what_a_variable_holds_is_told() {
    let scene = rich();
    let looker = scene.project.key("looker", "read");
    for key in [&looker, &scene.key] {
        let mut paths = vec!["/health".to_owned(), "/sync-sequences".to_owned()];
        for list in ["/sources", "/models", "/destinations", "/syncs"] {
            let shown = scene.served.get(key, &format!("/api/v1{list}"));
            let objects = shown.json["data"].as_array().expect("a list");
            paths.extend(objects.iter().map(|object| format!("{list}/{}", object["id"])));
            paths.push(list.to_owned());
        }
        assert!(paths.len() > 18, "{paths:?}");
        for path in paths {
            let answer = scene.served.get(key, &format!("/api/v1{path}"));
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
            assert!(!answer.text.contains(TOKEN), "{path}: {answer:?}");
            assert!(!answer.text.contains("in-clear-secret"), "{path}: {answer:?}");
        }
    }
    let shown = scene.get("/syncs?slug=mapped").json["data"][0]["configuration"].clone();
    assert_eq!(shown["object"], "list-${API_TOKEN}");
    assert_eq!(
        shown["mappings"],
        json!([
            {"to": "token", "value": "${API_TOKEN}", "type": "static"},
            {"to": "greeting", "template": "{{ row.name }} ${API_TOKEN} $${KEEP}", "type": "template"},
            {"to": "mail", "from": "email", "type": "standard"},
            {"to": "nested", "type": "object", "object": [
                {"to": "inner", "value": "${API_TOKEN}", "type": "static"},
                {"to": "deep", "type": "array", "array": [
                    {"value": "${API_TOKEN}", "type": "static"}, {"from": "id", "type": "standard"},
                ]},
            ]},
            {"to": "nothing", "value": null, "type": "static"},
            {"to": "run", "variable": "run_id", "type": "variable"},
        ])
    );
    let model = scene.get("/models?slug=secretive").json["data"][0].clone();
    assert!(model["raw"]["sql"].as_str().unwrap().contains("'${API_TOKEN}' as t"), "{model}");
}

#[test]
fn what_is_shown_and_sent_back_changes_a_file() {
    let scene = rich();
    let before = scene.files();
    for (list, fields) in [
        ("/sources", &["name", "configuration"][..]),
        ("/destinations", &["name", "configuration"]),
        ("/models", &["name", "queryType", "sourceId", "isSchema", "primaryKey", "raw", "table"]),
        ("/syncs", &["configuration", "schedule"]),
    ] {
        for object in scene.get(list).json["data"].as_array().expect("a list") {
            let given =
                fields.iter().filter_map(|field| Some(((*field).to_owned(), object.get(*field)?.clone())));
            let given: Value = given.collect::<serde_json::Map<_, _>>().into();
            let same = scene.patch(&format!("{list}/{}", object["id"]), &given);
            assert_eq!(same.status, 200, "{list}: {given}: {same:?}");
            assert_eq!(scene.files(), before, "{list}: {given}");
        }
    }

    // What changes takes nothing else along.
    let sync = scene.get("/syncs?slug=mapped").json["data"][0].clone();
    let mut mappings = sync["configuration"]["mappings"].clone();
    mappings[2]["to"] = json!("e_mail");
    let changed =
        scene.patch(&format!("/syncs/{}", sync["id"]), &json!({"configuration": {"mappings": mappings}}));
    assert_eq!((changed.status, &changed.json["configuration"]["mappings"]), (200, &mappings), "{changed:?}");
    let file = scene.files().into_iter().find(|(name, _)| name == "syncs/mapped.yml").expect("the file").1;
    assert!(
        file.contains("${API_TOKEN} $${KEEP}") && file.contains("e_mail") && !file.contains(TOKEN),
        "{file}"
    );
    let keyed = scene.get("/syncs?slug=keyed").json["data"][0].clone();
    assert_eq!(keyed["schedule"]["schedule"]["interval"], json!({"unit": "second", "quantity": 10_801}));
    let mut schedule = keyed["schedule"].clone();
    schedule["schedule"]["jitter"] = json!("7m");
    let changed = scene.patch(&format!("/syncs/{}", keyed["id"]), &json!({"schedule": schedule}));
    assert_eq!((changed.status, &changed.json["schedule"]), (200, &schedule), "{changed:?}");
    let cloud = json!({"type": "dbt_cloud", "schedule": {"account": {"id": "1"}, "job": {"id": "7"}, "hook": "cloud"}});
    let changed = scene.patch(&format!("/syncs/{}", keyed["id"]), &json!({"schedule": cloud}));
    assert_eq!((changed.status, &changed.json["schedule"]), (200, &cloud), "{changed:?}");
    assert_eq!(scene.project.levin(&["check", "--offline"]).code, 0);
}

#[test]
fn a_name_that_is_null_is_refused() {
    let scene = Scene::new(1, "");
    let made = json!({"name": null, "slug": "new", "sourceId": 1, "primaryKey": "id", "table": {"name": "customers"}});
    let model = scene.post("/models", &made);
    assert_eq!((model.status, &model.json["slug"]), (200, &json!("new")), "{model:?}");
    let same = scene.patch(&format!("/models/{}", model.json["id"]), &json!({"name": null}));
    assert_eq!(same.status, 200, "{same:?}");
    let nameless =
        json!({"name": null, "slug": null, "sourceId": 1, "primaryKey": "id", "table": {"name": "t"}});
    assert_eq!(scene.post("/models", &nameless).status, 422);
}
