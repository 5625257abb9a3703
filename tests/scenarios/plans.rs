//! Plans that are kept: what a guard stopped or somebody saved is sent as it was shown, or not at all.

use serde_json::{Value, json};
use tests::project::{Engine, Run};
use tests::receiver::{Hold, Receiver, Reply};

use super::{Crm, SYNC, on_both_warehouses, request, sent};

on_both_warehouses!(
    what_a_guard_stopped_cannot_be_sent,
    a_saved_plan_sends_other_rows_than_it_showed,
    a_stale_plan_is_sent,
    a_plan_is_sent_twice,
    a_plan_that_starts_over_is_sent_otherwise,
    a_plan_forgets_keys_that_it_set_aside,
    a_crash_while_a_plan_is_sent_loses_rows,
    kept_plans_pile_up_or_are_swept_away,
    a_plan_hides_what_claims_will_come_to,
);
tests::on_mariadb_too!(
    what_a_guard_stopped_cannot_be_sent,
    a_saved_plan_sends_other_rows_than_it_showed,
    a_plan_forgets_keys_that_it_set_aside,
    a_crash_while_a_plan_is_sent_loses_rows,
    kept_plans_pile_up_or_are_swept_away,
);

/// Saves the plan of the sync into `plan.json`.
fn save(crm: &Crm, arguments: &[&str]) -> Value {
    let file = crm.project.path().join("plan.json");
    let (_, plan) = crm.project.plan(SYNC, &[arguments, &["--save", file.to_str().unwrap()]].concat());
    plan
}

/// Applies a plan, or the one in `plan.json`.
fn apply(crm: &Crm, plan: Option<&str>) -> Run {
    let file = crm.project.path().join("plan.json");
    let plan = plan.map_or_else(|| file.to_str().unwrap().to_owned(), str::to_owned);
    let ended = crm.project.levin(&["apply", &plan, "--json"]);
    let report = ended.stdout.lines().last().unwrap_or_else(|| panic!("{ended:?}"));
    Run { code: ended.code, report: serde_json::from_str(report).unwrap(), stderr: ended.stderr }
}

/// The plan that a run, which a guard stopped, says can be applied.
fn stopped(run: &Run) -> String {
    assert_eq!((run.code, run.error()), (3, "GUARD_TRIPPED"), "{run:#?}");
    let plan = run.report["planId"].as_str().unwrap_or_else(|| panic!("{run:#?}")).to_owned();
    assert!(
        run.report["error"]["hint"].as_str().unwrap().contains(&format!("`levin apply {plan}`")),
        "{run:#?}"
    );
    plan
}

fn assert_stale(run: &Run, why: &str) {
    assert_eq!((run.code, run.status(), run.error()), (2, "failed", "PLAN_STALE"), "{run:#?}");
    assert!(run.message().contains(why), "{why}: {run:#?}");
    assert!(run.report["error"]["hint"].as_str().unwrap().contains(SYNC), "{run:#?}");
    assert_eq!(run.number("destinationCalls"), 0);
}

fn assert_done(run: &Run, counts: [u64; 3]) {
    assert_eq!((run.code, run.status()), (0, "success"), "{run:#?}");
    assert_eq!((run.planned(), run.successful()), (counts, counts), "{run:#?}");
}

fn tables_of_diffs(crm: &Crm) -> usize {
    let named = "select cast(table_name as text) from information_schema.tables where table_schema = 'levin_planner' \
                 and (table_name like '%\\_diff\\_%' escape '\\' or table_name like '%\\_set\\_aside\\_%' escape '\\')";
    crm.project.texts(named).len()
}

fn what_a_guard_stopped_cannot_be_sent(engine: Engine) {
    let crm = Crm::new(engine, 12, "mode: mirror\nguards: {max_removed: {rows: 2}}");
    crm.run_sends([12, 0, 0]);
    crm.sql("delete from customers where id <= 4; update customers set name = 'x' where id = 5");
    crm.insert(13..=13);
    let plan = stopped(&crm.run());
    // A schedule goes on, and is stopped again; what it found is another plan.
    let again = stopped(&crm.run());
    assert_ne!(plan, again);
    // The model moves on. What was stopped is sent as it was.
    crm.sql("delete from customers where id = 6; update customers set name = 'y' where id = 5");
    let before = crm.receiver.count();
    let run = crm.project.run_with(SYNC, &["--approve", &plan]);
    assert_done(&run, [1, 1, 4]);
    assert_eq!(run.report["planId"], json!(plan));
    assert_eq!(
        sent(&crm.receiver.since(before)),
        [request("removed", &["1", "2", "3", "4"]), request("changed", &["5"]), request("added", &["13"])]
    );
    assert_eq!(crm.receiver.field("5", "name"), "x");
    assert_stale(&apply_unknown(&crm, &again), "");
    assert_eq!(tables_of_diffs(&crm), 0, "plans that no longer fit take room");
    crm.run_sends([0, 1, 1]);
    crm.assert_same();
    crm.assert_quiet();
    // The history knows it as a run like any other.
    assert!(
        crm.project.history().iter().any(|run| run["planId"] == json!(plan)),
        "{:#?}",
        crm.project.history()
    );
}

/// Applies a plan that the sync may no longer know: then there is no run, and the error is on standard error.
fn apply_unknown(crm: &Crm, plan: &str) -> Run {
    let ended = crm.project.levin(&["apply", plan, "--json"]);
    match ended.stdout.lines().last() {
        Some(report) => {
            Run { code: ended.code, report: serde_json::from_str(report).unwrap(), stderr: ended.stderr }
        }
        None => {
            assert!(ended.stderr.contains("PLAN_STALE"), "{ended:?}");
            let error = json!({"code": "PLAN_STALE", "message": ended.stderr, "hint": ended.stderr});
            let report = json!({"status": "failed", "error": error, "destinationCalls": 0});
            Run { code: ended.code, report, stderr: String::new() }
        }
    }
}

fn a_saved_plan_sends_other_rows_than_it_showed(engine: Engine) {
    let crm = Crm::new(engine, 12, "mode: mirror");
    // A first run can be planned too.
    let plan = save(&crm, &[]);
    assert_eq!(plan["reason"], "first_run", "{plan:#}");
    assert_eq!((crm.receiver.count(), crm.project.snapshots().len()), (0, 0));
    let file = std::fs::read_to_string(crm.project.path().join("plan.json")).unwrap();
    let saved: Value = serde_json::from_str(&file).unwrap();
    assert_eq!((&saved["planId"], &saved["expiresAt"]), (&plan["planId"], &plan["expiresAt"]), "{saved:#}");
    assert_eq!(saved["plannedRows"], json!({"addedCount": 12, "changedCount": 0, "removedCount": 0}));
    assert!(plan["expiresAt"].is_string() && !file.contains("example.com"), "no row is in the file: {file}");
    crm.insert(13..=13);
    assert_done(&apply(&crm, None), [12, 0, 0]);
    assert_eq!(crm.receiver.keys().len(), 12);
    crm.run_sends([1, 0, 0]);
    crm.assert_quiet();
    // And a later one, with what differs then.
    crm.sql("update customers set name = 'x' where id in (1, 2); delete from customers where id = 3");
    crm.insert(14..=14);
    let plan = save(&crm, &[]);
    assert_eq!(plan["changedColumns"], json!({"name": 2}), "{plan:#}");
    assert_eq!(plan["samples"].as_array().unwrap().len(), 4, "{plan:#}");
    crm.sql("update customers set name = 'y' where id in (1, 4); delete from customers where id = 14");
    assert_done(&apply(&crm, Some(plan["planId"].as_str().unwrap())), [1, 2, 1]);
    let rows = crm.receiver.rows();
    assert_eq!(
        (&rows["1"]["name"], &rows["2"]["name"], &rows["4"]["name"]),
        (&json!("x"), &json!("x"), &json!("name 4"))
    );
    assert!(rows.contains_key("14") && !rows.contains_key("3"));
    crm.run_sends([0, 2, 1]);
    crm.assert_same();
    crm.assert_quiet();
}

fn a_stale_plan_is_sent(engine: Engine) {
    let crm = Crm::new(engine, 10, "mode: mirror");
    crm.run_sends([10, 0, 0]);
    let refuses = |crm: &Crm, why: &str, meanwhile: &dyn Fn(&Crm), back: &dyn Fn(&Crm)| {
        crm.sql("update customers set name = name || '!' where id = 1");
        save(crm, &[]);
        meanwhile(crm);
        let calls = crm.receiver.count();
        let plan = std::fs::read_to_string(crm.project.path().join("plan.json")).unwrap();
        let plan: Value = serde_json::from_str(&plan).unwrap();
        assert_stale(&apply_unknown(crm, plan["planId"].as_str().unwrap()), why);
        assert_eq!(crm.receiver.count(), calls, "{why}");
        back(crm);
        assert_eq!(crm.run().code, 0);
        crm.assert_same();
        crm.assert_quiet();
        assert_eq!(tables_of_diffs(crm), 0, "{why}");
    };
    let nothing: &dyn Fn(&Crm) = &|_| {};
    refuses(&crm, "another run has changed", &|crm| drop(crm.run_sends([0, 1, 0])), nothing);
    refuses(
        &crm,
        "was edited since",
        &|crm| crm.sync("mode: mirror\nmappings: [{from: name, to: name}, {from: email, to: mail}]"),
        &|crm| {
            crm.sync("mode: mirror");
        },
    );
    refuses(
        &crm,
        "was edited since",
        &|crm| crm.model("id", "select id, name, email from customers where id > 0"),
        nothing,
    );
    refuses(
        &crm,
        "could be applied until",
        &|crm| {
            let table = "levin_planner.".to_owned() + &state_table(crm);
            crm.sql(&format!("update {table} set plans = regexp_replace(plans, '\"expires_at\":\"20..', '\"expires_at\":\"2001')"));
        },
        nothing,
    );
    refuses(
        &crm,
        "another run has changed",
        &|crm| {
            let diffs = crm.project.texts("select cast(table_name as text) from information_schema.tables where table_name like '%\\_diff\\_%' escape '\\'");
            for table in diffs.iter().flatten() {
                crm.sql(&format!("drop table levin_planner.{table}"));
            }
        },
        nothing,
    );
    // The address now leads elsewhere.
    let mut crm = crm;
    crm.sql("update customers set name = 'z' where id = 2");
    save(&crm, &[]);
    let elsewhere = Receiver::start();
    crm.project.set_variable("CRM_URL", &elsewhere.url());
    assert_stale(&apply(&crm, None), "the sync now points to");
    assert_eq!(elsewhere.count(), 0);
    // What is no plan is said to be none.
    for (wrong, why) in [
        ("plan_1_00000000000000ff", "PLAN_STALE"),
        ("plan_99_00000000000000ff", "USAGE"),
        ("no.json", "USAGE"),
    ] {
        let ended = crm.project.levin(&["apply", wrong]);
        assert!(ended.code != 0 && ended.stderr.contains(why), "{ended:?}");
    }
}

fn state_table(crm: &Crm) -> String {
    let named = "select cast(table_name as text) from information_schema.tables where table_name like '%\\_state' escape '\\'";
    crm.project.texts(named)[0].clone().unwrap()
}

fn a_plan_is_sent_twice(engine: Engine) {
    let crm = Crm::new(engine, 10, "mode: upsert");
    save(&crm, &[]);
    assert_done(&apply(&crm, None), [10, 0, 0]);
    let calls = crm.receiver.count();
    let plan: Value =
        serde_json::from_str(&std::fs::read_to_string(crm.project.path().join("plan.json")).unwrap())
            .unwrap();
    assert_stale(&apply_unknown(&crm, plan["planId"].as_str().unwrap()), "");
    assert_eq!(crm.receiver.count(), calls);
    crm.assert_quiet();
}

fn a_plan_that_starts_over_is_sent_otherwise(engine: Engine) {
    let crm = Crm::new(engine, 12, "mode: mirror");
    crm.run_sends([12, 0, 0]);
    crm.sql("delete from customers where id = 1");
    let plan = save(&crm, &["--full-resync", "--keep-removals"]);
    assert_eq!(plan["reason"], "full_resync", "{plan:#}");
    assert_done(&apply(&crm, None), [11, 0, 1]);
    crm.assert_same();
    crm.assert_quiet();
    crm.sql("update customers set name = 'x' where id = 2");
    save(&crm, &["--reset-cdc"]);
    crm.sql("update customers set name = 'y' where id = 3");
    assert_done(&apply(&crm, None), [0, 0, 0]);
    assert_eq!(crm.receiver.field("2", "name"), "name 2");
    crm.run_sends([0, 1, 0]);
    assert_eq!(crm.receiver.field("3", "name"), "y");
    crm.assert_quiet();
    // An emptying that was planned comes with its rows, and only then.
    crm.sync("mode: mirror\neach: {path: /rows, batch_size: 10}\nclear: {method: POST, path: /clear}");
    let calls = crm.receiver.count();
    let plan = save(&crm, &["--clear-and-fill"]);
    assert_eq!((&plan["reason"], crm.receiver.count()), (&json!("clear_and_fill"), calls), "{plan:#}");
    crm.sql("update customers set name = 'after' where id = 4");
    let run = apply(&crm, None);
    assert_eq!((run.code, run.successful()), (0, [11, 0, 0]), "{run:#?}");
    assert_eq!(sent(&crm.receiver.since(calls))[0].0, "cleared");
    assert_eq!(crm.receiver.field("4", "name"), "name 4");
    crm.run_sends([0, 1, 0]);
    crm.assert_quiet();
    // Where the target changed, only a plan that starts over can be made.
    let mut crm = crm;
    let elsewhere = Receiver::start();
    crm.project.set_variable("CRM_URL", &elsewhere.url());
    save(&crm, &["--full-resync"]);
    assert_done(&apply(&crm, None), [11, 0, 0]);
    assert_eq!(elsewhere.rows().len(), 11);
    crm.project.assert_quiet(SYNC, &elsewhere);
}

fn a_plan_forgets_keys_that_it_set_aside(engine: Engine) {
    let crm = Crm::new(engine, 20, "mode: mirror\nguards: {max_set_aside: {percent: 5}}");
    crm.run_sends([20, 0, 0]);
    crm.sql("insert into customers values (1, 'twice', 'twice'), (null, 'nobody', 'nobody')");
    crm.insert(21..=21);
    let plan = stopped(&crm.run());
    let run = apply(&crm, Some(&plan));
    assert_eq!((run.code, run.status(), run.successful()), (1, "warning", [1, 0, 0]), "{run:#?}");
    assert_eq!((run.number("duplicateKeyCount"), run.number("nullKeyCount")), (2, 1), "{run:#?}");
    assert_eq!(crm.receiver.keys().len(), 21, "a key that is set aside is not removed");
    let codes: Vec<Value> = crm.project.rejected(SYNC).iter().map(|r| r["code"].clone()).collect();
    assert_eq!(codes.len(), 2, "{codes:?}");
    assert_eq!(tables_of_diffs(&crm), 0);
    crm.sql("delete from customers where id is null or name = 'twice'");
    crm.run_sends([0, 0, 0]);
    crm.assert_same();
    crm.assert_quiet();
}

fn a_crash_while_a_plan_is_sent_loses_rows(engine: Engine) {
    for fresh in [true, false] {
        let crm = Crm::new(engine, if fresh { 40 } else { 5 }, "mode: mirror");
        if !fresh {
            crm.run_sends([5, 0, 0]);
            crm.insert(6..=40);
            crm.sql("delete from customers where id = 1; update customers set name = 'x' where id = 2");
        }
        let plan = save(&crm, &[]);
        // The model is elsewhere when the plan is sent.
        crm.sql("delete from customers where id = 40; update customers set email = 'new' where id = 3");
        let hold = Hold::default();
        let held = hold.clone();
        let last = crm.receiver.count() + 2;
        crm.receiver
            .behave(move |r| if r.number >= last { Reply::accept().held(&held) } else { Reply::accept() });
        let running = crm.project.spawn(SYNC, &["--approve", plan["planId"].as_str().unwrap()]);
        crm.receiver.wait_for(last + 1);
        running.kill();
        hold.release();
        crm.receiver.accept();
        let answered: Vec<String> =
            crm.receiver.requests()[..last].iter().flat_map(super::Request::keys).collect();
        let before = crm.receiver.count();
        let run = crm.run();
        assert_eq!((run.code, run.status()), (0, "success"), "{run:#?}");
        assert!(run.report["settled"].is_object(), "{run:#?}");
        let repeated: Vec<String> =
            crm.receiver.since(before).iter().flat_map(super::Request::keys).collect();
        assert!(
            answered.iter().all(|key| key == "3" || key == "1" || !repeated.contains(key)),
            "{answered:?} {repeated:?}"
        );
        crm.assert_same();
        crm.assert_quiet();
        assert_eq!(tables_of_diffs(&crm), 0);
    }
}

fn kept_plans_pile_up_or_are_swept_away(engine: Engine) {
    let crm = Crm::new(engine, 10, "mode: mirror\nguards: {max_removed: {rows: 2}}");
    crm.run_sends([10, 0, 0]);
    crm.sql("delete from customers where id <= 3");
    let plans: Vec<String> = (0..10).map(|_| stopped(&crm.run())).collect();
    assert_eq!(tables_of_diffs(&crm), 8, "the newest are kept, and no more");
    let ended = crm.project.levin(&["gc", "--yes"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    // A run that was killed leaves tables that the next one drops, but no plan.
    crm.sql("insert into customers values (11, 'a', 'b')");
    crm.sync("mode: upsert");
    crm.sync("mode: mirror\nguards: {max_removed: {rows: 2}}");
    let gone = apply_unknown(&crm, &plans[0]);
    assert_stale(&gone, "");
    // A run that finds nothing to send leaves them as they are; one that sends makes them stale.
    assert_eq!(tables_of_diffs(&crm), 8);
    assert_done(&apply(&crm, Some(&plans[9])), [0, 0, 3]);
    assert_eq!(tables_of_diffs(&crm), 0);
    crm.run_sends([1, 0, 0]);
    crm.assert_quiet();
}

fn a_plan_hides_what_claims_will_come_to(engine: Engine) {
    let more = "mode: mirror\nmatch: {from: email, to: email}\nguards: {max_set_aside: {percent: 100}}\n\
                each: {method: POST, path: /rows, batch_size: 10}";
    let crm = Crm::new(engine, 6, more);
    crm.sql("insert into customers values (7, 'seven', null), (8, 'eight', '1@example.com')");
    let (_, plan) = crm.project.plan(SYNC, &[]);
    assert_eq!(plan["refusedRows"], json!({"DUPLICATE_MATCH_VALUE": 2, "NULL_MATCH_VALUE": 1}), "{plan:#}");
    assert_eq!(plan["supersededCount"], 0);
    let run = crm.run();
    assert_eq!(
        (run.planned(), run.successful(), run.failed()),
        ([8, 0, 0], [5, 0, 0], [3, 0, 0]),
        "{run:#?}"
    );
    // An address is handed on: the removal of its old holder gives way.
    crm.sql("delete from customers where id in (2, 7, 8)");
    crm.sql("insert into customers values (9, 'nine', '2@example.com')");
    let saved = save(&crm, &[]);
    assert_eq!((&saved["supersededCount"], &saved["refusedRows"]), (&json!(1), &json!({})), "{saved:#}");
    let run = apply(&crm, None);
    assert_eq!((run.code, run.number("supersededCount")), (0, 1), "{run:#?}");
    crm.assert_quiet();
}
