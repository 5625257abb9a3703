//! What is told of runs: to whom, how often, and what becomes of it when nobody listens.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tests::postgres::PostgresServer;
use tests::project::Project;
use tests::receiver::{Hold, Receiver, Reply, Request};
use tests::service::{Served, until};

use crate::{SYNC, Scene, project};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Who hears: each channel posts to a path of its own name.
fn ears(mut project: Project, channels: &[(&str, &str)]) -> (Project, Receiver) {
    let ears = Receiver::start();
    project.set_variable("EARS", &ears.url());
    project.set_variable("WHSEC", SECRET);
    for (name, more) in channels {
        project.write(
            &format!("channels/{name}.yml"),
            &format!(
                "type: webhook\nurl: ${{EARS}}/{name}\nsigning_secret: ${{WHSEC}}\nallow_private_networks: true\n{more}\n"
            ),
        );
    }
    (project, ears)
}

/// What a channel heard: event, and what was said.
fn heard(ears: &Receiver, channel: &str) -> Vec<(String, Value)> {
    let path = format!("/{channel}");
    let requests = ears.requests().into_iter().filter(|request| request.path == path);
    requests
        .map(|r| (r.body["type"].as_str().unwrap_or_default().to_owned(), r.body["data"].clone()))
        .collect()
}

/// Rule, state before and state now of every alert that a channel heard of.
fn alerts(ears: &Receiver, channel: &str) -> Vec<[String; 3]> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = heard(ears, channel).into_iter().filter(|(event, _)| event.starts_with("alert."));
    all.map(|(_, data)| [text(&data["rule"]), text(&data["previousState"]), text(&data["state"])]).collect()
}

fn wait_for(ears: &Receiver, channel: &str, count: usize) {
    until("a message", || (heard(ears, channel).len() >= count).then_some(()));
}

fn states(all: &[[&str; 3]]) -> Vec<[String; 3]> {
    all.iter().map(|alert| alert.map(str::to_owned)).collect()
}

fn break_model(project: &Project, broken: bool) {
    let column = if broken { "no_such_column" } else { "email" };
    project.write(
        "models/customers.yml",
        &format!("source: wh\nprimary_key: id\nsql: select id, name, {column} from customers\n"),
    );
}

#[test]
fn every_failure_is_told_or_its_end_is_not() {
    let (project, receiver) = project(3, "");
    let (project, ears) = ears(project, &[("team", "")]);
    project.write("levin.yml", "name: shop\nalerts: {channels: [team]}\n");
    let scene = Scene::of(project, receiver);
    assert_eq!(scene.run(&json!({}))["status"], "success");
    break_model(&scene.project, true);
    scene.served.reload();
    let first = scene.run(&json!({}));
    assert_eq!(first["status"], "failed", "{first}");
    wait_for(&ears, "team", 1);
    let shown = scene.get("/syncs/1/alerts").json;
    let shown =
        shown["data"].as_array().and_then(|all| all.iter().find(|alert| alert["rule"] == "run_failed"));
    assert_eq!(
        shown.map(|alert| (&alert["state"], &alert["runId"])),
        Some((&json!("critical"), &first["id"]))
    );
    assert_eq!(scene.run(&json!({}))["status"], "failed");
    // A command's run counts too.
    assert_eq!(scene.project.levin(&["run", SYNC]).code, 2);
    break_model(&scene.project, false);
    scene.served.reload();
    assert_eq!(scene.run(&json!({}))["status"], "success");
    wait_for(&ears, "team", 2);
    let expected = [["run_failed", "ok", "critical"], ["run_failed", "critical", "ok"]];
    assert_eq!(alerts(&ears, "team"), states(&expected));
    let all = heard(&ears, "team");
    let (event, data) = &all[0];
    assert_eq!(event, "alert.raised");
    assert_eq!((&data["project"], &data["sync"]), (&json!("shop"), &json!({"id": 1, "slug": SYNC})));
    assert_eq!(data["runId"], first["id"]);
    assert!(data["message"].as_str().is_some_and(|message| message.contains("failed with")), "{data}");
    let steps = data["nextSteps"].to_string();
    assert!(steps.contains("levin runs customers-to-crm"), "{steps}");
    assert_eq!(all[1].0, "alert.resolved");
    assert_eq!(all[1].1["since"], data["since"], "since when it was so");
    let requests = ears.requests();
    assert!(requests[0].headers["webhook-id"].starts_with("msg_"));
    assert!(requests[0].headers["webhook-signature"].starts_with("v1,"));
    assert_ne!(requests[0].headers["webhook-id"], requests[1].headers["webhook-id"]);
    scene.served.stop();
}

#[test]
fn rejected_rows_are_told_to_everybody_or_show_a_row() {
    let (project, receiver) = project(20, "alerts: {channels: [team, {channel: pager, only: critical}]}");
    let (project, ears) = ears(project, &[("team", ""), ("pager", ""), ("nobody", "")]);
    project.write("levin.yml", "name: shop\nalerts: {channels: [nobody]}\n");
    let refuse = |keys: &'static [&'static str]| {
        move |request: &Request| {
            let mine: Vec<&str> = keys.iter().copied().filter(|key| request.has(key)).collect();
            Reply::reject(&mine, "name 7 is taken")
        }
    };
    receiver.behave(refuse(&["7"]));
    let scene = Scene::of(project, receiver);
    assert_eq!(scene.run(&json!({}))["status"], "warning");
    wait_for(&ears, "team", 1);
    scene.receiver.behave(refuse(&["7", "8", "9"]));
    scene.project.sql("update customers set name = 'other' where id < 10");
    assert_eq!(scene.run(&json!({}))["status"], "warning");
    wait_for(&ears, "pager", 1);
    wait_for(&ears, "team", 2);
    scene.receiver.behave(refuse(&["7"]));
    assert_eq!(scene.run(&json!({}))["status"], "warning");
    wait_for(&ears, "pager", 2);
    wait_for(&ears, "team", 3);
    scene.receiver.accept();
    assert_eq!(scene.run(&json!({}))["status"], "success");
    wait_for(&ears, "team", 4);
    let rule = "rejected_rows";
    assert_eq!(
        alerts(&ears, "team"),
        states(&[
            [rule, "ok", "warning"],
            [rule, "warning", "critical"],
            [rule, "critical", "warning"],
            [rule, "warning", "ok"],
        ])
    );
    assert_eq!(alerts(&ears, "pager"), states(&[[rule, "ok", "critical"], [rule, "critical", "ok"]]));
    assert!(heard(&ears, "nobody").is_empty(), "the sync's own list stands in place of the project's");
    for request in ears.requests() {
        assert!(
            !request.text.contains("@example.com") && !request.text.contains("taken"),
            "{}",
            request.text
        );
    }
    let raised = &heard(&ears, "team")[0].1;
    assert!(raised["nextSteps"].to_string().contains("levin rejected customers-to-crm"), "{raised}");
    scene.served.stop();
}

#[test]
fn silence_is_noticed_too_late_or_a_run_does_not_end_it() {
    let (project, receiver) = project(3, "alerts: {not_run_for: {critical: 3s}}");
    let (project, ears) = ears(project, &[("team", "")]);
    project.write(
        "destinations/crm.yml",
        "type: http_request\nbase_url: ${CRM_URL}\nallow_private_networks: true\nalerts: {channels: [team]}\n",
    );
    let scene = Scene::of(project, receiver);
    // It never ran: it counts since it is watched.
    wait_for(&ears, "team", 1);
    scene.run(&json!({}));
    wait_for(&ears, "team", 2);
    // And silence again.
    wait_for(&ears, "team", 3);
    let rule = "not_run_for";
    let expected = [[rule, "ok", "critical"], [rule, "critical", "ok"], [rule, "ok", "critical"]];
    assert_eq!(alerts(&ears, "team"), states(&expected));
    // A sync that rests is not expected to run.
    let rests = |rests: bool| {
        scene.project.write(
            &format!("syncs/{SYNC}.yml"),
            &format!(
                "model: customers\ndestination: crm\neach: {{method: POST, path: /rows}}\ndisabled: {rests}\n\
                 alerts: {{not_run_for: {{critical: 3s}}}}\n"
            ),
        );
    };
    rests(true);
    scene.served.reload();
    wait_for(&ears, "team", 4);
    assert_eq!(alerts(&ears, "team")[3], [rule, "critical", "ok"].map(str::to_owned));
    // Nor is it told how long it rested, by this process or the next one.
    let Scene { project, receiver, served, key } = scene;
    assert_eq!(served.stop(), 0);
    let sync = format!("syncs/{SYNC}.yml");
    let text = std::fs::read_to_string(project.path().join(&sync)).expect("a sync");
    project.write(&sync, &text.replace("disabled: true", "disabled: false"));
    let enabled = chrono::Utc::now();
    let scene = Scene { served: Served::start(&project), project, receiver, key };
    wait_for(&ears, "team", 5);
    let raised = &heard(&ears, "team")[4].1;
    let since: chrono::DateTime<chrono::Utc> =
        raised["since"].as_str().and_then(|since| since.parse().ok()).unwrap_or_else(|| panic!("{raised}"));
    assert!(since.timestamp() >= enabled.timestamp(), "{raised}, enabled at {enabled}");
    scene.served.stop();
}

#[test]
fn who_was_told_of_an_alert_never_hears_of_its_end() {
    let (project, receiver) = project(3, "");
    let (mut project, ears) = ears(project, &[("team", "")]);
    project.set_variable("PAGER", "a-routing-key");
    project.write(
        "channels/pager.yml",
        "type: pagerduty\nrouting_key: ${PAGER}\nendpoint: ${EARS}/pager\nallow_private_networks: true\n",
    );
    let both = "name: shop\nalerts: {channels: [team, pager]}\n";
    project.write("levin.yml", both);
    break_model(&project, true);
    let scene = Scene::of(project, receiver);
    // What was said of the incident, and of which.
    let paged = || {
        let requests = ears.requests().into_iter().filter(|request| request.path == "/pager");
        requests.map(|r| (r.body["event_action"].clone(), r.body["dedup_key"].clone())).collect::<Vec<_>>()
    };
    let pages = |count: usize| until("a page", || (paged().len() == count).then_some(paged()));
    assert_eq!(scene.run(&json!({}))["status"], "failed");
    wait_for(&ears, "team", 1);
    let incident = pages(1).remove(0).1;
    assert!(incident.as_str().is_some_and(|key| key.ends_with("/1/run_failed")), "{incident}");
    // One of them is named no more when it ends.
    scene.project.write("levin.yml", "name: shop\nalerts: {channels: [team]}\n");
    break_model(&scene.project, false);
    scene.served.reload();
    assert_eq!(scene.run(&json!({}))["status"], "success");
    wait_for(&ears, "team", 2);
    assert_eq!(pages(2)[1], (json!("resolve"), incident.clone()));
    // And then the sync itself is there no more.
    scene.project.write("levin.yml", both);
    break_model(&scene.project, true);
    scene.served.reload();
    assert_eq!(scene.run(&json!({}))["status"], "failed");
    wait_for(&ears, "team", 3);
    pages(3);
    scene.project.remove(&format!("syncs/{SYNC}.yml"));
    scene.served.reload();
    wait_for(&ears, "team", 4);
    assert_eq!(pages(4)[3], (json!("resolve"), incident));
    let rule = "run_failed";
    let (raised, resolved) = ([rule, "ok", "critical"], [rule, "critical", "ok"]);
    assert_eq!(alerts(&ears, "team"), states(&[raised, resolved, raised, resolved]));
    let (event, data) = &heard(&ears, "team")[3];
    assert_eq!(event, "alert.resolved");
    assert_eq!(data["sync"], json!({"id": 1, "slug": SYNC}));
    assert_eq!(data["destination"], json!({"id": 1, "slug": "crm"}));
    assert_eq!(data["message"], "the sync was taken out of the project");
    scene.served.stop();
}

#[test]
fn the_run_of_a_sync_that_is_not_known_yet_is_never_told() {
    let (project, _receiver) = project(3, "");
    let (project, ears) = ears(project, &[("team", "")]);
    project.write("levin.yml", "name: shop\nalerts: {channels: [team]}\n");
    let served = Served::start(&project);
    // Somebody runs it from elsewhere, before the service has its file.
    let elsewhere = project.checkout();
    let sync = |path: &str| format!("model: customers\ndestination: crm\neach: {{path: /{path}}}\n");
    let store = project.path().join(".levin/store.db");
    elsewhere.write("levin.yml", &format!("name: shop\nstore: \"sqlite://{}\"\n", store.display()));
    elsewhere.write("syncs/new.yml", &sync("new"));
    break_model(&elsewhere, true);
    assert_eq!(elsewhere.levin(&["run", "new"]).code, 2);
    std::thread::sleep(Duration::from_secs(2));
    assert!(alerts(&ears, "team").is_empty());
    for file in ["levin.lock.yml", "syncs/new.yml"] {
        let text = std::fs::read_to_string(elsewhere.path().join(file)).expect("a file");
        project.write(file, &text);
    }
    served.signal(Signal::HUP);
    wait_for(&ears, "team", 1);
    assert_eq!(alerts(&ears, "team"), states(&[["run_failed", "ok", "critical"]]));
    assert_eq!(heard(&ears, "team")[0].1["sync"]["slug"], "new");
    assert_eq!(served.stop(), 0);
}

#[test]
fn a_slow_run_is_told_only_when_it_is_over() {
    let (project, receiver) = project(3, "alerts: {channels: [team], too_slow: {warning: 1s, critical: 2s}}");
    let (project, ears) = ears(project, &[("team", "")]);
    let hold = Hold::default();
    let held = hold.clone();
    receiver.behave(move |_| Reply::accept().held(&held));
    let scene = Scene::of(project, receiver);
    scene.post("/syncs/1/trigger", &json!({}));
    wait_for(&ears, "team", 2);
    assert_eq!(scene.get("/syncs/1/runs").json["data"][0]["finishedAt"], Value::Null);
    hold.release();
    scene.run(&json!({}));
    wait_for(&ears, "team", 3);
    let rule = "too_slow";
    let expected = [[rule, "ok", "warning"], [rule, "warning", "critical"], [rule, "critical", "ok"]];
    assert_eq!(alerts(&ears, "team"), states(&expected));
    scene.served.stop();
}

#[test]
fn a_message_is_lost_when_the_process_dies_or_the_channel_is_down() {
    let (project, receiver) = project(3, "");
    let (project, ears) = ears(project, &[("team", "")]);
    project.write("levin.yml", "name: shop\nalerts: {channels: [team]}\n");
    break_model(&project, true);
    let hold = Hold::default();
    let held = hold.clone();
    ears.behave(move |request| match request.number {
        0 => Reply::accept().held(&held),
        1 => Reply::status(503),
        _ => Reply::accept(),
    });
    let Scene { project, served, .. } = {
        let scene = Scene::of(project, receiver);
        scene.run(&json!({}));
        scene
    };
    // It is on its way, and nobody answers; then nobody is there to wait for an answer.
    hold.wait_for(1);
    served.kill();
    let served = Served::start(&project);
    wait_for(&ears, "team", 3);
    hold.release();
    std::thread::sleep(Duration::from_secs(2));
    let requests = ears.requests();
    assert_eq!(requests.len(), 3, "it was sent again although it had arrived");
    let ids: Vec<&String> = requests.iter().map(|request| &request.headers["webhook-id"]).collect();
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "{ids:?}");
    assert_eq!(served.stop(), 0);
}

#[test]
fn what_happened_while_nobody_served_is_never_told() {
    let (project, _receiver) = project(3, "");
    let (project, ears) = ears(project, &[("team", "")]);
    project.write("levin.yml", "name: shop\nalerts: {channels: [team]}\n");
    break_model(&project, true);
    assert_eq!(project.levin(&["run", SYNC]).code, 2);
    let served = Served::start(&project);
    wait_for(&ears, "team", 1);
    assert_eq!(served.stop(), 0);
    // Nor is it told twice.
    let served = Served::start(&project);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(alerts(&ears, "team"), states(&[["run_failed", "ok", "critical"]]));
    assert_eq!(served.stop(), 0);
}

#[test]
fn two_replicas_tell_a_change_twice_or_not_at_all() {
    let (mut project, _receiver) = project(3, "");
    project.set_variable("STORE", &PostgresServer::start().fresh_database());
    let (project, ears) = ears(project, &[("team", "events: [run.failed]")]);
    project.write("levin.yml", "name: shop\nstore: ${STORE}\nalerts: {channels: [team]}\n");
    break_model(&project, true);
    for number in 2..=6 {
        project.write(
            &format!("syncs/s{number}.yml"),
            &format!(
                "model: customers\ndestination: crm\neach: {{path: /s{number}}}\nschedule: {{every: 1h}}\n"
            ),
        );
    }
    let replicas = [Served::start(&project), Served::start(&project)];
    wait_for(&ears, "team", 10);
    std::thread::sleep(Duration::from_secs(2));
    let mut told: Vec<String> = heard(&ears, "team")
        .iter()
        .map(|(event, data)| {
            let slug = data["sync"]["slug"].as_str().or(data["syncSlug"].as_str());
            format!("{event} {}", slug.unwrap_or_default())
        })
        .collect();
    told.sort();
    let events = ["alert.raised", "run.failed"];
    let expected: Vec<String> =
        events.iter().flat_map(|event| (2..=6).map(move |number| format!("{event} s{number}"))).collect();
    assert_eq!(told, expected);
    for served in replicas {
        assert_eq!(served.stop(), 0);
    }
}

#[test]
fn runs_begin_and_end_without_a_word() {
    let (project, receiver) = project(3, "");
    let events = "events: [run.started, run.succeeded, run.warning, run.failed, run.cancelled, alert.raised]";
    let (project, ears) = ears(project, &[("bus", events)]);
    let scene = Scene::of(project, receiver);
    let run = scene.run(&json!({}));
    wait_for(&ears, "bus", 2);
    break_model(&scene.project, true);
    scene.served.reload();
    let failed = scene.run(&json!({}));
    wait_for(&ears, "bus", 5);
    let all = heard(&ears, "bus");
    let mut words: Vec<&str> = all.iter().map(|(event, _)| event.as_str()).collect();
    words[2..].sort_unstable();
    assert_eq!(words, ["run.started", "run.succeeded", "alert.raised", "run.failed", "run.started"]);
    let (started, ended) = (&all[0].1, &all[1].1);
    assert_eq!((&started["id"], &started["status"]), (&run["id"], &json!("running")));
    assert_eq!(
        (&ended["id"], &ended["status"], &ended["querySize"]),
        (&started["id"], &json!("success"), &json!(3))
    );
    assert_eq!(ended["successfulRows"], json!({"addedCount": 3, "changedCount": 0, "removedCount": 0}));
    assert_eq!((&ended["syncSlug"], &ended["project"]), (&json!(SYNC), &json!("scenario")));
    let broken = all.iter().find(|(event, _)| event == "run.failed").map(|(_, data)| data);
    let broken = broken.unwrap_or_else(|| panic!("{all:?}"));
    assert_eq!(broken["id"], failed["id"]);
    assert!(broken["error"]["code"].is_string() && broken["error"]["message"].is_null(), "{broken}");
    scene.served.stop();
}
