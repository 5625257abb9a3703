//! Runs that somebody asks for.

use serde_json::json;

use crate::{SYNC, Scene};

#[test]
fn a_run_is_not_there_when_its_number_is() {
    let scene = Scene::new(25, "");
    let never = scene.get("/syncs/1");
    assert_eq!((never.status, &never.json["status"]), (200, &json!("pending")), "{never:?}");
    assert_eq!(never.json["lastRunAt"], json!(null));

    let asked = scene.post("/syncs/1/trigger", &json!({}));
    assert_eq!(asked.status, 200, "{asked:?}");
    let id = asked.json["id"].as_str().expect("text").to_owned();
    let listed = scene.get(&format!("/syncs/1/runs?runId={id}"));
    assert_eq!(listed.json["data"].as_array().map(Vec::len), Some(1), "{listed:?}");
    let run = &listed.json["data"][0];
    assert_eq!(run["id"].to_string(), id, "the same digits, as a number");
    for counts in ["plannedRows", "successfulRows", "failedRows"] {
        for count in ["addedCount", "changedCount", "removedCount"] {
            assert!(run[counts][count].is_u64(), "{counts}.{count}: {run}");
        }
    }
    assert!(run["completionRatio"].is_number() && run["createdAt"].is_string(), "{run}");
    assert_eq!(run["error"], json!(null));
    assert!(scene.get("/syncs/1").json["lastRunAt"].is_string());

    let ended = scene.ended(&id);
    assert_eq!(ended["status"], "success", "{ended}");
    assert_eq!(ended["successfulRows"], json!({"addedCount": 25, "changedCount": 0, "removedCount": 0}));
    assert_eq!((&ended["querySize"], &ended["completionRatio"]), (&json!(25), &json!(1.0)));
    assert_eq!(scene.receiver.rows().len(), 25);
    let sync = scene.get("/syncs/1").json;
    assert_eq!((&sync["status"], &sync["disabled"]), (&json!("success"), &json!(false)));

    let again = scene.run(&json!({}));
    assert_eq!(
        (&again["status"], &again["plannedRows"]["addedCount"]),
        (&json!("success"), &json!(0)),
        "{again}"
    );
    let detail = scene.get(&format!("/syncs/1/runs/{id}"));
    assert_eq!(detail.json["report"]["syncSlug"], SYNC, "{detail:?}");
    assert_eq!(detail.json["causes"], json!([{"kind": "api", "key": "boss"}]));
}

#[test]
fn a_trigger_is_refused_because_of_the_form_of_its_body() {
    let scene = Scene::new(1, "");
    let key = &scene.key;
    let ask = |path: &str, kind: &str, body: &str| {
        let question = scene.served.ask("POST", &format!("/api/v1{path}")).key(key);
        let question = if kind.is_empty() { question } else { question.body(kind, body) };
        question.send()
    };
    let (json, form) = ("application/json", "application/x-www-form-urlencoded");
    for (path, kind, body) in [
        ("/syncs/1/trigger", "", ""),
        ("/syncs/1/trigger", json, ""),
        ("/syncs/1/trigger", json, "{}"),
        ("/syncs/1/trigger", "application/json; charset=utf-8", r#"{"fullResync": false}"#),
        ("/syncs/1/trigger", json, r#"{"fullResync": null, "somethingElse": 1}"#),
        ("/syncs/1/trigger", form, "fullResync=False"),
        ("/syncs/1/trigger?trailing=1", form, ""),
        ("/syncs/trigger", form, "syncId=1"),
        ("/syncs/trigger", form, "syncSlug=customers-to-crm&fullResync=false"),
        ("/syncs/trigger", json, r#"{"syncId": "1"}"#),
        ("/syncs/trigger", json, r#"{"syncId": 1, "syncSlug": null}"#),
        ("/syncs/trigger", json, r#"{"syncSlug": "customers-to-crm"}"#),
    ] {
        let answer = ask(path, kind, body);
        assert_eq!(answer.status, 200, "{path} {kind} {body}: {answer:?}");
        assert!(answer.json["id"].as_str().is_some_and(|id| id.parse::<u64>().is_ok()), "{answer:?}");
    }
    for (path, kind, body, status, field) in [
        ("/syncs/1/trigger", json, "{", 422, "body"),
        ("/syncs/1/trigger", json, "[]", 422, "body"),
        ("/syncs/1/trigger", json, r#"{"fullResync": "yes"}"#, 422, "fullResync"),
        ("/syncs/1/trigger", json, r#"{"fullResync": true, "resetCDC": true}"#, 422, "resetCDC"),
        ("/syncs/1/trigger", form, "fullResync=maybe", 422, "fullResync"),
        ("/syncs/1/trigger", "text/plain", "x", 415, ""),
        ("/syncs/trigger", json, "{}", 422, "syncId"),
        ("/syncs/trigger", "", "", 422, "syncId"),
        ("/syncs/trigger", json, r#"{"syncId": "one"}"#, 422, "syncId"),
        ("/syncs/trigger", json, r#"{"syncId": 99}"#, 404, ""),
        ("/syncs/trigger", json, r#"{"syncSlug": "other"}"#, 404, ""),
        ("/syncs/99/trigger", json, "{}", 404, ""),
        ("/syncs/one/trigger", json, "{}", 422, "syncId"),
    ] {
        let answer = ask(path, kind, body);
        assert_eq!(answer.status, status, "{path} {kind} {body}: {answer:?}");
        assert!(answer.json["message"].is_string(), "{answer:?}");
        if !field.is_empty() {
            assert!(answer.json["details"][field].is_string(), "{path} {body}: {answer:?}");
        }
    }
    let large = format!("{{\"fullResync\": false, \"more\": \"{}\"}}", "x".repeat(1024 * 1024));
    assert_eq!(ask("/syncs/1/trigger", json, &large).status, 413);
    let wrong_method = scene.served.ask("PUT", "/api/v1/syncs/1/trigger").key(key).send();
    assert_eq!((wrong_method.status, wrong_method.header("allow")), (405, "POST"), "{wrong_method:?}");
    assert_eq!(wrong_method.json["message"], "Method not allowed");
}

#[test]
fn a_question_that_is_sent_again_runs_twice() {
    let scene = Scene::new(1, "");
    let ask = |key: &str, body: &serde_json::Value| {
        let question = scene.served.ask("POST", "/api/v1/syncs/1/trigger").key(&scene.key);
        question.header("idempotency-key", key).json(body).send()
    };
    let first = ask("a", &json!({}));
    assert_eq!(first.status, 200, "{first:?}");
    scene.ended(first.json["id"].as_str().unwrap());
    assert_eq!(ask("a", &json!({})).json, first.json, "also after its end");
    assert_ne!(ask("b", &json!({})).json, first.json);
    let other = ask("a", &json!({"fullResync": true}));
    assert_eq!(other.status, 409, "{other:?}");
    assert!(other.json["details"]["reason"].as_str().unwrap().contains("Idempotency-Key"), "{other:?}");
    assert_eq!(ask(&"x".repeat(256), &json!({})).status, 422);
    assert_eq!(scene.patch("/syncs/1", &json!({"disabled": true})).status, 200);
    assert_eq!(ask("a", &json!({})).json, first.json, "also when nobody may ask any more");
    assert_eq!(ask("c", &json!({})).status, 409);
}
