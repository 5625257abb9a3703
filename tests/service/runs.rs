//! Runs that go wrong, wait, are stopped, planned, approved and watched; rows that are refused.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};
use tests::postgres::{self, OpenConnection};
use tests::receiver::{Hold, Reply};
use tests::service::until;

use crate::{Scene, project};

#[test]
fn a_run_that_did_not_go_through_looks_like_one_that_did() {
    let scene = Scene::new(12, "");
    scene.receiver.behave(|_| Reply::reject(&["3"], "no such thing"));
    let warning = scene.run(&json!({}));
    assert_eq!((&warning["status"], &warning["error"]), (&json!("warning"), &json!(null)), "{warning}");
    assert_eq!(
        (&warning["plannedRows"]["addedCount"], &warning["failedRows"]["addedCount"]),
        (&json!(12), &json!(1))
    );
    assert_eq!(warning["completionRatio"], json!(1.0));

    scene.project.sql("update customers set name = 'x'");
    scene.receiver.behave(|_| Reply::status(401));
    let failed = scene.run(&json!({}));
    assert_eq!(failed["status"], "failed", "{failed}");
    assert!(failed["error"].as_str().unwrap().starts_with("DESTINATION_UNUSABLE: "), "{failed}");
    assert!(failed["completionRatio"].as_f64().unwrap() < 1.0);
    assert_eq!(scene.get("/syncs/1").json["status"], "failed");

    scene.project.sql("alter table customers rename to gone");
    let broken = scene.run(&json!({}));
    assert_eq!((&broken["status"], &broken["querySize"]), (&json!("failed"), &json!(null)), "{broken}");
    assert!(!broken["error"].is_null());
}

#[test]
fn a_run_cannot_be_stopped() {
    let scene = Scene::new(40, "");
    let hold = Hold::default();
    let held = hold.clone();
    scene.receiver.behave(move |_| Reply::accept().held(&held));
    let first = scene.post("/syncs/1/trigger", &json!({})).json["id"].as_str().unwrap().to_owned();
    scene.receiver.wait_for(1);
    until("it is told to be sending", || {
        (scene.get("/syncs/1").json["status"] == "processing").then_some(())
    });

    let second = scene.post("/syncs/1/trigger", &json!({})).json["id"].as_str().unwrap().to_owned();
    assert_ne!(first, second, "one more run waits");
    assert_eq!(scene.post("/syncs/1/trigger", &json!({})).json["id"], json!(second), "and not two");
    let other = scene.post("/syncs/1/trigger", &json!({"fullResync": true}));
    assert_eq!(other.status, 200, "what waits can do more: {other:?}");
    let contrary = scene.post("/syncs/1/trigger", &json!({"resetCDC": true}));
    assert_eq!(
        (contrary.status, &contrary.json["details"]["code"]),
        (409, &json!("SYNC_BUSY")),
        "{contrary:?}"
    );
    let waiting = scene.post(&format!("/syncs/1/runs/{second}/cancel"), &json!({}));
    assert_eq!((waiting.status, &waiting.json["status"]), (200, &json!("cancelled")), "{waiting:?}");
    assert!(waiting.json["finishedAt"].is_string());

    assert_eq!(scene.post(&format!("/syncs/1/runs/{first}/cancel"), &json!({})).status, 200);
    hold.release();
    let cancelled = scene.ended(&first);
    assert_eq!(cancelled["status"], "cancelled", "{cancelled}");
    assert_eq!(scene.post(&format!("/syncs/1/runs/{first}/cancel"), &json!({})).status, 409);
    assert_eq!(scene.post("/syncs/1/runs/99/cancel", &json!({})).status, 404);
    scene.receiver.behave(|_| Reply::accept());
    assert_eq!(scene.run(&json!({}))["status"], "success", "the next run goes on");
    assert_eq!(scene.receiver.rows().len(), 40);
}

#[test]
fn a_plan_cannot_be_seen_or_approved() {
    let scene = Scene::new(10, "mode: mirror\nguards: {max_removed: {rows: 2}}");
    let plan = scene.post("/syncs/1/plan", &json!({}));
    assert_eq!((plan.status, &plan.json["plannedRows"]["addedCount"]), (200, &json!(10)), "{plan:?}");
    assert_eq!((&plan.json["reason"], scene.receiver.count()), (&json!("first_run"), 0));
    assert_eq!(scene.run(&json!({}))["status"], "success");

    scene.project.sql("delete from customers where id > 5");
    let stopped = scene.run(&json!({}));
    assert!(stopped["error"].as_str().unwrap().starts_with("GUARD_TRIPPED: "), "{stopped}");
    let detail = scene.get(&format!("/syncs/1/runs/{}", stopped["id"])).json;
    let plan = detail["report"]["planId"].as_str().expect("a plan").to_owned();
    for (body, status) in [
        (json!({"planId": "nonsense"}), 422),
        (json!({}), 422),
        (json!({"planId": plan.replace("plan_1_", "plan_2_")}), 404),
    ] {
        let answer = scene.post("/syncs/1/approve", &body);
        assert_eq!(answer.status, status, "{body}: {answer:?}");
    }
    let approved = scene.post("/syncs/1/approve", &json!({"planId": plan}));
    assert_eq!(approved.status, 200, "{approved:?}");
    let run = scene.ended(approved.json["id"].as_str().unwrap());
    assert_eq!(
        (&run["status"], &run["successfulRows"]["removedCount"]),
        (&json!("success"), &json!(5)),
        "{run}"
    );
    let again = scene.post("/syncs/1/approve", &json!({"planId": plan}));
    let stale = scene.ended(again.json["id"].as_str().unwrap());
    assert!(stale["error"].as_str().unwrap().starts_with("PLAN_STALE: "), "{stale}");
    scene.project.sql("drop table customers");
    let broken = scene.post("/syncs/1/plan", &json!({}));
    assert!([409, 502].contains(&broken.status), "{broken:?}");
}

#[test]
fn nobody_knows_which_rows_were_refused() {
    let scene = Scene::new(12, "");
    scene.receiver.behave(|_| Reply::reject(&["3", "7"], "it says \"no\", twice"));
    let run = scene.run(&json!({}));
    let keys = |answer: &tests::service::Answer| -> Vec<String> {
        assert_eq!(answer.status, 200, "{answer:?}");
        let rows = answer.json["data"].as_array().expect("rows");
        let mut keys: Vec<String> = rows.iter().map(|row| row["key"].as_str().unwrap().to_owned()).collect();
        keys.sort();
        keys
    };
    assert_eq!(keys(&scene.get("/syncs/1/rejected")), ["3", "7"]);
    let page = scene.get("/syncs/1/rejected?limit=1");
    assert_eq!((keys(&page).len(), &page.json["hasMore"]), (1, &json!(true)));
    assert_eq!(keys(&scene.get(&format!("/syncs/1/runs/{}/rows", run["id"]))), ["3", "7"]);
    let one = scene.get("/syncs/1/rejected?key=3").json["data"][0].clone();
    assert_eq!(one["reason"], "it says \"no\", twice", "{one}");
    assert!(one["request"].as_str().is_some_and(|request| request.contains("/rows")), "{one}");
    let csv = scene
        .served
        .ask("GET", "/api/v1/syncs/1/rejected")
        .key(&scene.key)
        .header("accept", "text/csv")
        .send();
    assert!(csv.header("content-type").starts_with("text/csv"), "{csv:?}");
    assert_eq!(csv.text.lines().count(), 3);
    assert!(csv.text.contains("\"it says \"\"no\"\", twice\""), "{csv:?}");

    let parked = scene.post("/syncs/1/rejected/park", &json!({"key": "3"}));
    assert_eq!((parked.status, &parked.json["count"]), (200, &json!(1)), "{parked:?}");
    assert_eq!(scene.post("/syncs/1/rejected/park", &json!({"key": "\u{1}"})).status, 422);
    let sent = scene.receiver.count();
    scene.run(&json!({}));
    assert!(scene.receiver.since(sent).iter().all(|request| !request.has("3")), "a parked row was sent");
    let freed = scene.post("/syncs/1/rejected/retry", &json!({}));
    assert_eq!((freed.status, &freed.json["count"]), (200, &json!(1)), "{freed:?}");
    scene.receiver.behave(|_| Reply::accept());
    assert_eq!(scene.run(&json!({}))["successfulRows"]["addedCount"], 2);
    assert_eq!(keys(&scene.get("/syncs/1/rejected")), [] as [String; 0]);
    assert_eq!(scene.get(&format!("/syncs/1/runs/{}/rows", 99)).status, 404);
}

#[test]
fn a_run_is_watched_and_nothing_is_seen() {
    let (project, receiver) = project(40, "");
    let scene = Scene::of(project, receiver);
    let hold = Hold::default();
    let held = hold.clone();
    scene.receiver.behave(move |_| Reply::accept().held(&held));
    let id = scene.post("/syncs/1/trigger", &json!({})).json["id"].as_str().unwrap().to_owned();
    let address = scene.served.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "GET /api/v1/syncs/1/runs/{id}/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\nconnection: close\r\n\r\n",
        scene.key
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut heard = String::new();
    let mut bytes = [0; 4096];
    while !heard.contains("\"processing\"") {
        let read = stream.read(&mut bytes).unwrap();
        assert!(read > 0, "it ended too soon: {heard}");
        heard.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    hold.release();
    stream.read_to_string(&mut heard).unwrap();
    assert!(heard.starts_with("HTTP/1.1 200") && heard.contains("text/event-stream"), "{heard}");
    let events: Vec<Value> = heard
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    let last = events.last().expect("events");
    assert_eq!(
        (&last["status"], &last["successfulRows"]["addedCount"]),
        (&json!("success"), &json!(40)),
        "{last}"
    );
    assert!(events.iter().any(|event| event["stage"] == "deliver"), "{events:?}");
    assert_eq!(events.iter().filter(|event| event["status"] == "success").count(), 1, "{events:?}");
}

#[test]
fn a_key_that_may_only_look_reads_rows() {
    let scene = Scene::new(12, "");
    let marker = "no such name: quoted-of-a-row";
    scene.receiver.behave(move |_| Reply::status(422).saying(marker));
    let (looker, runner) = (scene.project.key("looker", "read"), scene.project.key("runner", "run"));
    let run = scene.run(&json!({}));
    assert!(run["error"].as_str().is_some_and(|error| error.contains(marker)), "{run}");
    let one = format!("/syncs/1/runs/{}", run["id"]);
    let told = ["/syncs/1/runs".to_owned(), one.clone(), format!("{one}/events")];
    for path in told.iter().map(String::as_str).chain(["/syncs", "/syncs/1", "/models", "/syncs/1/alerts"]) {
        let answer = scene.served.get(&looker, &format!("/api/v1{path}"));
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert!(!answer.text.contains("quoted-of-a-row"), "{path}: {answer:?}");
    }
    for path in &told {
        let answer = scene.served.get(&runner, &format!("/api/v1{path}"));
        assert!(answer.text.contains(marker), "{path}: {answer:?}");
        let answer = scene.served.get(&looker, &format!("/api/v1{path}"));
        assert!(answer.text.contains("DESTINATION_REFUSED: "), "{path}: {answer:?}");
    }
    let detail = scene.served.get(&looker, &format!("/api/v1{one}")).json;
    assert_eq!(detail["report"]["error"]["code"], "DESTINATION_REFUSED", "{detail}");
    assert_eq!(detail["report"]["error"]["message"], detail["report"]["error"]["hint"]);
    for path in ["/syncs/1/rejected", &format!("{one}/rows")] {
        assert_eq!(scene.served.get(&looker, &format!("/api/v1{path}")).status, 403, "{path}");
    }
}

#[test]
fn rows_that_were_refused_long_ago_are_not_found() {
    let scene = Scene::new(2, "");
    scene.receiver.behave(|_| Reply::reject(&["1"], "no"));
    let run = scene.run(&json!({}))["id"].as_i64().expect("a number");
    // Twelve thousand more, each refused a second before the one above it; the last thousand by another run.
    let like = "'p%\\_s1\\_rejections'";
    let url = scene.project.warehouse();
    let found =
        format!("select table_name::text from information_schema.tables where table_name like {like}");
    let table = format!("levin_planner.{}", postgres::texts(url, &found)[0].as_deref().expect("a table"));
    scene.project.sql(&format!(
        "create temporary table more as select r.*, i from {table} r, generate_series(1, 12000) i;
         update more set id = 1000000 + i, _levin_last_at = _levin_last_at - i * interval '1 second',
                         _levin_run = case when i > 11000 then _levin_run + 1000 else _levin_run end;
         alter table more drop column i;
         insert into {table} select * from more"
    ));
    let page = |path: &str| {
        let answer = scene.get(path);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        let keys = answer.json["data"].as_array().expect("rows").iter();
        let keys: Vec<String> = keys.map(|row| row["key"].as_str().unwrap().to_owned()).collect();
        (keys, answer.json["hasMore"] == true)
    };
    for (list, all) in [("/syncs/1/rejected", 12_001), (&format!("/syncs/1/runs/{run}/rows"), 11_001)] {
        let mut keys = Vec::new();
        loop {
            let (more, has_more) = page(&format!("{list}?limit=1000&offset={}", keys.len()));
            keys.extend(more);
            if !has_more {
                break;
            }
        }
        assert_eq!(keys.len(), all, "{list}");
        assert_eq!((keys[0].as_str(), keys[all - 1].clone()), ("1", (1_000_000 + all - 1).to_string()));
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), all, "{list}: a row twice");
        assert_eq!(page(&format!("{list}?offset={all}")), (Vec::new(), false));
    }
    let oldest = || vec!["1012000".to_owned()];
    assert_eq!(page("/syncs/1/rejected?key=1012000"), (oldest(), false));
    assert_eq!(page(&format!("/syncs/1/runs/{run}/rows?key=1012000")), (Vec::new(), false), "another run's");
    assert_eq!(page("/syncs/1/rejected?key=nobody"), (Vec::new(), false));
    assert_eq!(page("/syncs/1/rejected?key=null"), (Vec::new(), false));
    let line = scene.project.levin(&["rejected", crate::SYNC, "--key", "1012000", "--json"]);
    assert_eq!((line.code, line.stdout.lines().count()), (0, 1), "{line:?}");
}

#[test]
fn whoever_asks_for_plans_makes_the_warehouse_work_without_end() {
    let (project, receiver) = project(3, "");
    for number in 2..=12 {
        project.write(
            &format!("syncs/s{number}.yml"),
            &format!("model: customers\ndestination: crm\neach: {{method: POST, path: /s{number}}}\n"),
        );
    }
    let scene = Scene::of(project, receiver);
    let url = scene.project.warehouse();
    let begun = || {
        let select = "select pid::text from pg_stat_activity where datname = current_database()
             and wait_event_type = 'Lock' and application_name like 'levin%'";
        postgres::texts(url, select).len()
    };
    let lock = OpenConnection::after(url, "begin; lock table customers in access exclusive mode");
    std::thread::scope(|scope| {
        let ask = |sync: usize| {
            let scene = &scene;
            scope.spawn(move || scene.post(&format!("/syncs/{sync}/plan"), &json!({})))
        };
        let same: Vec<_> = (0..6).map(|_| ask(1)).collect();
        until("the plan is being made", || (begun() == 1).then_some(()));
        let others: Vec<_> = (2..=12).map(ask).collect();
        until("all places are taken", || (begun() == 4).then_some(()));
        let refused = scene.get("/syncs/1/rejected");
        assert_eq!((refused.status, refused.header("retry-after")), (429, "2"), "{refused:?}");
        until("the rest is refused", || {
            (others.iter().filter(|asked| asked.is_finished()).count() == 8).then_some(())
        });
        assert_eq!(begun(), 4, "six who ask for one plan, and three others");
        drop(lock);
        let same: Vec<_> = same.into_iter().map(|asked| asked.join().unwrap()).collect();
        assert!(same.iter().all(|plan| plan.status == 200), "{same:?}");
        let others: Vec<_> = others.into_iter().map(|asked| asked.join().unwrap().status).collect();
        assert_eq!(others.iter().filter(|status| **status == 200).count(), 3, "{others:?}");
        assert_eq!(others.iter().filter(|status| **status == 429).count(), 8, "{others:?}");
    });
    assert_eq!(scene.get("/syncs/1/rejected").status, 200, "places are given back");
}
