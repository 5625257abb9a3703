//! Messages of other services: who may start what, and how often.

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use tests::service::{Answer, Served, until};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::{SYNC, Scene, project};

const SECRET: &str = "the-secret-of-the-other-service";
const WHSEC: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn mac(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any key will do");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

fn hex(secret: &str, body: &str) -> String {
    mac(secret.as_bytes(), &[body.as_bytes()]).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn dbt(served: &Served, body: &Value, secret: &str) -> Answer {
    let body = body.to_string();
    let question = served.ask("POST", "/hooks/dbt").header("authorization", &hex(secret, &body));
    question.body("application/json", &body).send()
}

fn job(event: &str, id: &str, job: &str, code: i64) -> Value {
    json!({
        "accountId": 1, "eventId": event, "eventType": "job.run.completed", "timestamp": chrono::Utc::now().to_rfc3339(),
        "data": {"jobId": job, "runId": id, "runStatus": if code == 10 { "Success" } else { "Errored" }, "runStatusCode": code},
    })
}

fn signed(served: &Served, id: &str, seconds_ago: i64, body: &str) -> Answer {
    let key = BASE64.decode(WHSEC.trim_start_matches("whsec_")).expect("base64");
    let time = (chrono::Utc::now().timestamp() - seconds_ago).to_string();
    let signature = mac(&key, &[id.as_bytes(), b".", time.as_bytes(), b".", body.as_bytes()]);
    let question = served
        .ask("POST", "/hooks/ci")
        .header("webhook-id", id)
        .header("webhook-timestamp", &time)
        .header("webhook-signature", &format!("v1,AAAA v1,{}", BASE64.encode(signature)));
    question.body("application/json", body).send()
}

fn runs(scene: &Scene) -> usize {
    scene.get("/syncs/1/runs").json["data"].as_array().map_or(0, Vec::len)
}

#[test]
fn a_stranger_or_a_failed_job_starts_a_run() {
    let (mut project, receiver) = project(3, "schedule: {dbt_cloud: {job: 123, account: 1}}");
    project.set_variable("DBT_SECRET", SECRET);
    project.write("hooks/dbt.yml", "type: dbt_cloud\nsecret: ${DBT_SECRET}\n");
    let scene = Scene::of(project, receiver);
    let served = &scene.served;
    let wrong = dbt(served, &job("wev_1", "1", "123", 10), "another-secret-altogether");
    assert_eq!((wrong.status, wrong.json), (401, json!({"error": "unauthorized"})));
    let unsigned = served.ask("POST", "/hooks/dbt").json(&job("wev_1", "1", "123", 10)).send();
    assert_eq!(unsigned.status, 401);
    assert_eq!(served.ask("POST", "/hooks/none").json(&json!({})).send().status, 404);
    let failed = dbt(served, &job("wev_2", "2", "123", 20), SECRET);
    assert_eq!((failed.status, &failed.json["runs"]), (200, &json!([])));
    assert!(failed.json["reason"].as_str().is_some_and(|reason| reason.contains("Errored")), "{failed:?}");
    for (event, other) in [
        ("wev_3", job("wev_3", "3", "124", 10)),
        ("wev_4", {
            let mut other = job("wev_4", "4", "123", 10);
            other["accountId"] = json!(2);
            other
        }),
    ] {
        let answer = dbt(served, &other, SECRET);
        assert_eq!((answer.status, &answer.json["runs"]), (200, &json!([])), "{event}");
    }
    assert_eq!(runs(&scene), 0);
    let right = dbt(served, &job("wev_5", "5", "123", 10), SECRET);
    assert_eq!((right.status, &right.json["runs"][0]["syncSlug"]), (200, &json!(SYNC)), "{right:?}");
    let run = scene.ended(&right.json["runs"][0]["id"].to_string());
    assert_eq!(run["status"], "success");
    assert_eq!(scene.receiver.keys(), ["1", "2", "3"]);
    // The same message again: nothing happens, and it is not asked for once more.
    let again = dbt(served, &job("wev_5", "5", "123", 10), SECRET);
    assert_eq!((again.status, &again.json["runs"]), (200, &json!([])), "{again:?}");
    // One that somebody kept: it would be forgotten by now. It is not asked for again either.
    let mut kept = job("wev_6", "6", "123", 10);
    kept["timestamp"] = json!((chrono::Utc::now() - chrono::TimeDelta::hours(24)).to_rfc3339());
    let kept = dbt(served, &kept, SECRET);
    assert_eq!((kept.status, &kept.json["runs"]), (200, &json!([])), "{kept:?}");
    assert_eq!(runs(&scene), 1);
    scene.served.stop();
}

#[test]
fn a_connector_that_synced_does_not_start_what_waits_for_it() {
    let (mut project, receiver) = project(3, "");
    project.set_variable("FIVETRAN_SECRET", SECRET);
    project.write("hooks/lake.yml", "type: fivetran\nsecret: ${FIVETRAN_SECRET}\n");
    project.write("hooks/other.yml", "type: fivetran\nsecret: ${FIVETRAN_SECRET}\n");
    project.write(
        "sequences/after.yml",
        &format!(
            "syncs: [{SYNC}]\nschedule: {{fivetran: {{connector: mystified_presenting, hook: lake}}}}\n"
        ),
    );
    let scene = Scene::of(project, receiver);
    let created = chrono::Utc::now().to_rfc3339();
    let post = |hook: &str, status: &str| {
        let body = json!({
            "event": "sync_end", "created": created, "connector_id": "mystified_presenting",
            "data": {"status": status},
        });
        let body = body.to_string();
        let signature = hex(SECRET, &body).to_uppercase();
        let question = scene.served.ask("POST", &format!("/hooks/{hook}"));
        question.header("x-fivetran-signature-256", &signature).body("application/json", &body).send()
    };
    for (hook, status) in [("lake", "FAILURE_WITH_TASK"), ("other", "SUCCESSFUL")] {
        let answer = post(hook, status);
        assert_eq!((answer.status, &answer.json["sequenceRuns"]), (200, &json!([])), "{hook} {status}");
    }
    let answer = post("lake", "SUCCESSFUL");
    assert_eq!(answer.json["sequenceRuns"][0]["sequenceSlug"], "after", "{answer:?}");
    until("its member has run", || (scene.receiver.keys().len() == 3).then_some(()));
    assert_eq!(post("lake", "SUCCESSFUL").json["sequenceRuns"], json!([]));
    scene.served.stop();
}

#[test]
fn an_old_message_or_one_that_comes_again_starts_a_run() {
    let (mut project, receiver) = project(3, "");
    project.set_variable("WHSEC", WHSEC);
    project.write("hooks/ci.yml", "type: signed\nsecret: ${WHSEC}\n");
    project.write("sequences/night.yml", &format!("syncs: [{SYNC}]\n"));
    let scene = Scene::of(project, receiver);
    let body = json!({"sync": SYNC}).to_string();
    for (id, seconds_ago) in [("msg_old", 400), ("msg_early", -400), ("", 0)] {
        assert_eq!(signed(&scene.served, id, seconds_ago, &body).status, 401, "{id}");
    }
    for body in [r#"{"sync": "nobody"}"#, r#"{"sequence": "nobody"}"#, "{}", "not json"] {
        let answer = signed(&scene.served, "msg_odd", 0, body);
        assert_eq!(answer.status, 400, "{answer:?}");
    }
    let long = format!("{{\"sync\": \"{}\"}}", "x".repeat(1_100_000));
    assert_eq!(signed(&scene.served, "msg_long", 0, &long).status, 413);
    assert_eq!(runs(&scene), 0);
    let first = signed(&scene.served, "msg_1", 0, &body);
    assert_eq!(first.status, 200, "{first:?}");
    assert_eq!(scene.ended(&first.json["runs"][0]["id"].to_string())["status"], "success");
    // Neither to the same process nor to the one after it.
    assert_eq!(signed(&scene.served, "msg_1", 0, &body).json["runs"], json!([]));
    let Scene { project, receiver, served, key } = scene;
    served.kill();
    let served = Served::start(&project);
    let scene = Scene { project, receiver, served, key };
    assert_eq!(signed(&scene.served, "msg_1", 0, &body).json["runs"], json!([]));
    assert_eq!(runs(&scene), 1);
    let sequence = signed(&scene.served, "msg_2", 0, r#"{"sequence": "night"}"#);
    assert_eq!(sequence.json["sequenceRuns"][0]["sequenceSlug"], "night", "{sequence:?}");
    until("its member has run", || (runs(&scene) == 2).then_some(()));
    scene.served.stop();
}
