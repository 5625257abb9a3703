//! Lists, pages, filters, and what is shown of each object.

use serde_json::{Value, json};
use tests::service::until;

use crate::{Scene, project};

fn ids(answer: &tests::service::Answer) -> Vec<i64> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let data = answer.json["data"].as_array().expect("a list");
    data.iter().map(|object| object["id"].as_i64().expect("a number")).collect()
}

fn many() -> Scene {
    let (project, receiver) = project(3, "");
    for number in 2..=7 {
        project.write(
            &format!("syncs/s{number}.yml"),
            &format!("model: customers\ndestination: crm\neach: {{method: POST, path: /s{number}}}\n"),
        );
    }
    project.write("models/other.yml", "source: wh\nprimary_key: [id, name]\ntable: customers\n");
    project.write(
        "syncs/rich.yml",
        "model: other\ndestination: crm\nmode: upsert\nobject: contacts\nmatch: {from: id, to: external_id}\n\
         each: {method: POST, path: /rich, headers: {X-Team: data}}\nschedule: {every: 90m}\ndisabled: true\n\
         mappings:\n  - {from: email, to: mail}\n  - {template: \"{{ row.name | upper }}\", to: name}\n  - {value: levin, to: by}\n",
    );
    project.write("sequences/night.yml", "syncs: [customers-to-crm, {sync: s2, on_failure: continue}]\n");
    Scene::of(project, receiver)
}

#[test]
fn a_page_is_not_what_was_asked_for() {
    let scene = many();
    let first = scene.get("/syncs?limit=3");
    assert_eq!((ids(&first), &first.json["hasMore"]), (vec![1, 2, 3], &json!(true)));
    let last = scene.get("/syncs?limit=3&offset=6&unknown=1");
    assert_eq!((ids(&last), &last.json["hasMore"]), (vec![7, 8], &json!(false)));
    assert_eq!(ids(&scene.get("/syncs?slug=s7")).len(), 1);
    assert_eq!(ids(&scene.get("/syncs?slug=nobody")), Vec::<i64>::new());
    assert_eq!(ids(&scene.get("/syncs?modelId=2")).len(), 1);
    assert_eq!(ids(&scene.get("/models?name=other&slug=other")), [2]);
    assert_eq!(ids(&scene.get("/models?name=other&slug=customers")), Vec::<i64>::new());
    for order in ["id", "name", "slug", "createdAt", "updatedAt"] {
        assert_eq!(ids(&scene.get(&format!("/syncs?orderBy={order}"))).len(), 8);
    }
    for (path, field) in [
        ("/syncs?limit=0", "limit"),
        ("/syncs?limit=-1", "limit"),
        ("/syncs?limit=1001", "limit"),
        ("/syncs?offset=x", "offset"),
        ("/syncs?orderBy=size", "orderBy"),
        ("/syncs?after=yesterday", "after"),
        ("/syncs?modelId=", "modelId"),
        ("/syncs/1/runs?runId=x", "runId"),
        ("/syncs/1/runs?within=x", "within"),
        ("/syncs/x", "syncId"),
        ("/sync-sequences/runs/x", "syncSequenceRunId"),
    ] {
        let answer = scene.get(path);
        assert_eq!(answer.status, 422, "{path}: {answer:?}");
        assert_eq!(answer.json["message"], "Validation failed");
        assert!(answer.json["details"][field].is_string(), "{path}: {answer:?}");
    }
    for path in [
        "/sources/9",
        "/models/9",
        "/destinations/9",
        "/syncs/9",
        "/syncs/9/runs",
        "/syncs/1/runs/9",
        "/nothing",
    ] {
        assert_eq!(scene.get(path).status, 404, "{path}");
    }
}

#[test]
fn an_object_is_shown_otherwise_than_clients_expect() {
    let scene = many();
    let sync = scene.get("/syncs?slug=rich").json["data"][0].clone();
    let configuration = &sync["configuration"];
    assert_eq!(configuration["mode"], "upsert", "{sync}");
    assert_eq!(configuration["object"], "contacts");
    assert_eq!(
        configuration["externalIdMapping"],
        json!({"to": "external_id", "from": "id", "type": "standard"})
    );
    assert_eq!(
        configuration["mappings"],
        json!([
            {"to": "mail", "from": "email", "type": "standard"},
            {"to": "name", "template": "{{ row.name | upper }}", "type": "template"},
            {"to": "by", "value": "levin", "type": "static"},
        ])
    );
    assert_eq!(configuration["each"]["path"], "/rich");
    assert_eq!(
        sync["schedule"],
        json!({"type": "interval", "schedule": {"interval": {"unit": "minute", "quantity": 90}}})
    );
    assert_eq!((&sync["status"], &sync["disabled"]), (&json!("disabled"), &json!(true)));
    assert_eq!(sync["referencedColumns"], json!(["email", "id", "name"]));
    assert_eq!(sync["primaryKey"], "id,name");
    assert_eq!((&sync["tags"], &sync["externalSegment"]), (&json!({}), &json!({})));

    let model = scene.get("/models/1").json;
    assert_eq!((&model["queryType"], &model["lastRunSize"]), (&json!("raw_sql"), &json!(null)), "{model}");
    assert_eq!(model["raw"]["sql"], "select id, name, email from customers");
    let table = scene.get("/models/2").json;
    assert_eq!(
        (&table["queryType"], &table["table"]["name"]),
        (&json!("table"), &json!("customers")),
        "{table}"
    );

    let source = scene.get("/sources/1").json;
    assert_eq!(source["configuration"], json!({"url": "${WAREHOUSE_URL}"}), "{source}");
    let destination = scene.get("/destinations/1").json;
    assert_eq!((&destination["type"], &destination["slug"]), (&json!("http_request"), &json!("crm")));
    assert_eq!(destination["syncs"].as_array().map(Vec::len), Some(8));
    for object in [&sync, &model, &source, &destination] {
        assert_eq!(object["workspaceId"], 1);
        for moment in ["createdAt", "updatedAt"] {
            let text = object[moment].as_str().expect("a moment");
            assert!(text.ends_with('Z') && text.contains('T'), "{text}");
        }
    }

    // What changes is known to have changed, and nothing else.
    std::thread::sleep(std::time::Duration::from_millis(5));
    scene.project.write("models/other.yml", "source: wh\nprimary_key: id\ntable: customers\n");
    let changed = until("the file is read again", || {
        let shown = scene.get("/models/2").json;
        (shown["primaryKey"] == "id").then_some(shown)
    });
    assert_eq!(changed["createdAt"], table["createdAt"]);
    assert!(changed["updatedAt"].as_str() > table["updatedAt"].as_str(), "{changed}");
    assert_eq!(scene.get("/models/1").json["updatedAt"], model["updatedAt"]);
}

#[test]
fn the_history_cannot_be_searched() {
    let scene = many();
    for _ in 0..3 {
        scene.run(&json!({}));
    }
    let runs = scene.get("/syncs/1/runs");
    let all = ids(&runs);
    assert!(all.is_sorted_by(|a, b| a > b) && all.len() == 3, "the newest first: {all:?}");
    let page = scene.get("/syncs/1/runs?limit=2");
    assert_eq!((ids(&page), &page.json["hasMore"]), (all[..2].to_vec(), &json!(true)));
    assert_eq!(ids(&scene.get("/syncs/1/runs?offset=2")), all[2..]);
    assert_eq!(ids(&scene.get(&format!("/syncs/1/runs?runId={}", all[1]))), [all[1]]);
    assert_eq!(ids(&scene.get(&format!("/syncs/2/runs?runId={}", all[1]))), Vec::<i64>::new());
    let middle = runs.json["data"][1]["createdAt"].as_str().unwrap();
    assert_eq!(ids(&scene.get(&format!("/syncs/1/runs?after={middle}"))), all[..1]);
    assert_eq!(ids(&scene.get(&format!("/syncs/1/runs?before={middle}"))), all[2..]);
    assert_eq!(ids(&scene.get("/syncs/1/runs?within=5")), all);
    for order in ["id", "createdAt", "startedAt", "finishedAt"] {
        assert_eq!(ids(&scene.get(&format!("/syncs/1/runs?orderBy={order}"))), all);
    }
    assert_eq!(ids(&scene.get("/syncs?after=2020-01-01T00:00:00Z")), [1]);
    assert_eq!(ids(&scene.get("/syncs?before=2020-01-01T00:00:00Z")), Vec::<i64>::new());
    assert_eq!(scene.get("/models/1").json["lastRunSize"], 3);
}

#[test]
fn nobody_knows_where_a_sequence_is() {
    let scene = many();
    let list = scene.get("/sync-sequences");
    assert_eq!(ids(&list), [1]);
    assert_eq!(list.json["data"][0]["syncs"][1]["onFailure"], "continue");
    let asked = scene.post("/sync-sequences/1/trigger", &json!({}));
    assert_eq!(asked.status, 200, "{asked:?}");
    let id = asked.json["id"].as_str().expect("a UUID").to_owned();
    let mut seen: Vec<Value> = Vec::new();
    let ended = until("the sequence ends", || {
        let run = scene.get(&format!("/sync-sequences/runs/{id}")).json;
        seen.push(run["status"].clone());
        (!run["finishedAt"].is_null()).then_some(run)
    });
    assert_eq!((&ended["status"], &ended["id"]), (&json!("done"), &json!(id)), "{ended}");
    let members = ended["syncRuns"].as_array().expect("runs");
    assert_eq!(members.len(), 2);
    for (member, sync) in members.iter().zip([1, 3]) {
        assert_eq!((&member["syncId"], &member["status"]), (&json!(sync), &json!("success")), "{ended}");
        let run = scene.get(&format!("/syncs/{sync}/runs?runId={}", member["syncRunId"]));
        assert_eq!(run.json["data"][0]["finishedAt"], member["finishedAt"]);
    }
    assert!(
        seen.iter().all(|status| ["pending", "running", "done"].contains(&status.as_str().unwrap())),
        "{seen:?}"
    );
    let nobody = scene.get("/sync-sequences/runs/6f2d7b9e-3f43-4f0e-9a3a-0d3d0c1b2a11");
    assert_eq!(nobody.status, 404);
}

#[test]
fn the_document_is_kept_from_those_who_have_no_key() {
    let scene = Scene::new(1, "");
    let answer = scene.served.ask("GET", "/openapi.json").send();
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    assert_eq!(answer.json["openapi"], "3.1.0");
    assert!(answer.json["paths"]["/api/v1/syncs/{syncId}/trigger"]["post"].is_object());
    let health = scene.get("/health");
    assert_eq!((&health.json["status"], &health.json["syncs"]), (&json!("ok"), &json!(1)), "{health:?}");
}

#[test]
fn a_store_on_postgres_answers_otherwise_than_one_in_a_file() {
    let (project, receiver) = project(3, "");
    let store = tests::postgres::PostgresServer::start().fresh_database();
    let project = project.with_variable("STORE_URL", &store);
    project.write("levin.yml", "name: scenario\nstore: ${STORE_URL}\n");
    project.write("sequences/night.yml", "syncs: [customers-to-crm]\n");
    for number in 2..=120 {
        project.write(
            &format!("syncs/s{number}.yml"),
            &format!("model: customers\ndestination: crm\neach: {{method: POST, path: /s{number}}}\n"),
        );
    }
    let brief = project.levin(&["keys", "create", "brief", "--scope", "read", "--expires", "90d", "--json"]);
    assert_eq!(brief.code, 0, "{brief:?}");
    let scene = Scene::of(project, receiver);
    let page = scene.get("/syncs");
    assert_eq!((ids(&page).len(), &page.json["hasMore"]), (100, &json!(true)));
    assert_eq!(scene.run(&json!({}))["status"], "success");
    let run = scene.run(&json!({}));
    let runs = scene.get("/syncs/1/runs?within=5&orderBy=finishedAt&limit=1&before=2999-01-01T00:00:00Z");
    assert_eq!((ids(&runs), &runs.json["hasMore"]), (vec![run["id"].as_i64().unwrap()], &json!(true)));
    assert_eq!(ids(&scene.get("/syncs?after=2020-01-01T00:00:00Z")), [1]);
    assert_eq!(scene.get("/models/1").json["lastRunSize"], 3);
    let again = || {
        let question = scene.served.ask("POST", "/api/v1/syncs/1/trigger").key(&scene.key);
        question.header("idempotency-key", "once").json(&json!({})).send()
    };
    let first = again();
    assert_eq!((first.status, &again().json), (200, &first.json), "{first:?}");
    let sequence =
        scene.post("/sync-sequences/1/trigger", &json!({})).json["id"].as_str().unwrap().to_owned();
    until("the sequence ends", || {
        let run = scene.get(&format!("/sync-sequences/runs/{sequence}")).json;
        (run["status"] == "done").then_some(())
    });
    assert_eq!(scene.project.levin(&["keys", "revoke", "boss"]).code, 0);
    until("the key is refused", || (scene.get("/syncs").status == 401).then_some(()));
    let list = scene.project.levin(&["keys", "list"]);
    assert!(list.stdout.contains("revoked") && list.stdout.contains("brief"), "{list:?}");
}
