//! Another target, a full resync, a reset.

use serde_json::json;
use tests::project::Engine;
use tests::receiver::{Hold, Receiver, Reply};

use super::{Crm, SYNC, on_both_warehouses, request, sent};

on_both_warehouses!(
    another_address_is_taken_for_the_same_destination,
    another_path_is_taken_for_the_same_destination,
    a_full_resync_misses_rows_or_forgets_removals,
    a_full_resync_with_removals_keeps_what_left,
    another_mode_forgets_what_is_still_to_be_removed,
    a_killed_full_resync_is_forgotten,
    a_reset_sends_or_forgets,
    a_reset_takes_away_what_is_set_aside,
    a_reset_declares_what_is_set_aside_accepted,
    a_snapshot_that_is_too_old_is_compared_with,
    dropped_tables_stop_the_sync_for_ever,
    a_lost_lock_file_sends_everything_again,
);
tests::on_mariadb_too!(
    another_mode_forgets_what_is_still_to_be_removed,
    a_killed_full_resync_is_forgotten,
    a_reset_takes_away_what_is_set_aside,
);

fn another_address_is_taken_for_the_same_destination(engine: Engine) {
    let mut crm = Crm::new(engine, 12, "mode: mirror");
    crm.run_sends([12, 0, 0]);
    let first = crm.receiver.clone();
    let second = Receiver::start();
    crm.project.set_variable("CRM_URL", &second.url());
    crm.sql("delete from customers where id = 12; update customers set name = 'x' where id = 1");
    let run = crm.run();
    assert_eq!((run.code, run.error()), (2, "TARGET_CHANGED"), "{run:#?}");
    assert_eq!((first.count(), second.count()), (2, 0), "neither gets anything");
    assert!(run.report["error"]["hint"].as_str().unwrap().contains("--full-resync"), "{run:#?}");

    crm.receiver = second.clone();
    let run = crm.run_with(&["--full-resync"]);
    assert_eq!((run.code, run.successful()), (0, [11, 0, 0]), "{run:#?}");
    assert!(second.requests().iter().all(|r| r.operation() == "added"), "rows of the old target are not its");
    crm.assert_same();
    crm.assert_quiet();
    assert_eq!(first.count(), 2);
    crm.sql("delete from customers where id = 11");
    crm.run_sends([0, 0, 1]);
    crm.assert_same();

    // Back to the first, this time declaring that it has everything.
    crm.project.set_variable("CRM_URL", &first.url());
    crm.receiver = first.clone();
    assert_eq!(crm.run().error(), "TARGET_CHANGED");
    let run = crm.run_with(&["--reset-cdc"]);
    assert_eq!((run.code, run.number("destinationCalls")), (0, 0), "{run:#?}");
    crm.assert_quiet();
    crm.sql("update customers set name = 'y' where id = 2");
    crm.run_sends([0, 1, 0]);
    assert_eq!(first.count(), 3);
}

fn another_path_is_taken_for_the_same_destination(engine: Engine) {
    let crm = Crm::new(engine, 5, "mode: upsert\neach: {method: POST, path: /contacts}");
    crm.run_sends([5, 0, 0]);
    crm.sync("mode: upsert\neach: {method: POST, path: /people}");
    let run = crm.run();
    assert_eq!((run.code, run.error(), crm.receiver.count()), (2, "TARGET_CHANGED", 1), "{run:#?}");
    // Another batch size, other headers and another token are no other target.
    crm.sync("mode: upsert\neach: {method: POST, path: /contacts, batch_size: 2, headers: {X-Team: data}}");
    crm.destination("timeout: 10s\nauth: {bearer: \"${TOKEN_OF_CRM}\"}\n");
    let mut crm = crm;
    crm.project.set_variable("TOKEN_OF_CRM", "a-token-of-the-crm");
    crm.assert_quiet();
}

fn a_full_resync_misses_rows_or_forgets_removals(engine: Engine) {
    let crm = Crm::new(engine, 12, "mode: mirror");
    crm.run_sends([12, 0, 0]);
    crm.sql("delete from customers where id <= 2; update customers set name = 'x' where id = 3");
    crm.insert(13..=13);
    let before = crm.receiver.count();
    let run = crm.run_with(&["--full-resync"]);
    assert_eq!((run.code, run.planned(), run.successful()), (0, [11, 0, 0], [11, 0, 0]), "{run:#?}");
    assert_eq!(run.not_sent(), [0, 0, 2], "what left is reported, and not removed");
    assert!(crm.receiver.since(before).iter().all(|r| r.operation() == "added"));
    assert_eq!(crm.receiver.keys().len(), 13);
    // The next run removes what left; nothing is added again.
    let before = crm.receiver.count();
    crm.run_sends([0, 0, 2]);
    assert_eq!(sent(&crm.receiver.since(before)), [request("removed", &["1", "2"])]);
    crm.assert_same();
    crm.assert_quiet();
    crm.assert_quiet();
}

fn a_full_resync_with_removals_keeps_what_left(engine: Engine) {
    let crm = Crm::new(engine, 12, "mode: mirror");
    crm.run_sends([12, 0, 0]);
    crm.sql("delete from customers where id <= 2");
    let before = crm.receiver.count();
    let run = crm.run_with(&["--full-resync", "--keep-removals"]);
    assert_eq!((run.code, run.successful()), (0, [10, 0, 2]), "{run:#?}");
    let requests = sent(&crm.receiver.since(before));
    assert_eq!(requests[0], request("removed", &["1", "2"]), "removals come first");
    assert!(requests[1..].iter().all(|(operation, _)| operation == "added"), "{requests:?}");
    crm.assert_same();
    crm.assert_quiet();
}

fn a_killed_full_resync_is_forgotten(engine: Engine) {
    let crm = Crm::new(engine, 50, "mode: mirror");
    crm.run_sends([50, 0, 0]);
    crm.sql("delete from customers where id = 50");
    // Three requests answered, the fourth applied and never answered.
    let hold = Hold::default();
    let held = hold.clone();
    let base = crm.receiver.count();
    crm.receiver.behave(
        move |r| {
            if r.number == base + 3 { Reply::accept().held(&held) } else { Reply::accept() }
        },
    );
    let running = crm.project.spawn(SYNC, &["--full-resync"]);
    crm.receiver.wait_for(base + 4);
    running.kill();
    hold.release();
    crm.receiver.accept();

    let before = crm.receiver.count();
    let run = crm.run();
    assert_eq!(run.code, 0, "{run:#?}");
    let again: Vec<String> = crm.receiver.since(before).iter().flat_map(|r| r.keys()).collect();
    let resent: std::collections::BTreeSet<&String> = again.iter().collect();
    // What was answered is not repeated; what was not is sent, and what left is removed.
    let answered: Vec<String> =
        crm.receiver.requests()[base..base + 3].iter().flat_map(|r| r.keys()).collect();
    assert_eq!(answered.len(), 30);
    assert!(answered.iter().all(|key| !resent.contains(key)), "{again:?}");
    assert_eq!(again.len(), 20, "{again:?}");
    assert!(resent.contains(&"50".to_owned()), "what left is removed");
    crm.assert_same();
    crm.assert_quiet();
    let history = crm.project.history();
    assert!(history.iter().any(|r| r["status"] == "interrupted"), "{history:#?}");
}

fn a_reset_sends_or_forgets(engine: Engine) {
    let crm = Crm::new(engine, 12, "mode: mirror");
    crm.receiver.behave(|_| Reply::reject(&["3"], "no"));
    crm.run();
    crm.receiver.behave(|_| Reply::applied_but_cut());
    crm.sql("update customers set name = 'in doubt' where id = 4");
    crm.run();
    crm.sql("update customers set name = 'x' where id = 1; delete from customers where id = 2");
    crm.insert(13..=13);
    let before = crm.receiver.count();
    let run = crm.run_with(&["--reset-cdc"]);
    assert_eq!((run.code, run.status(), run.planned()), (0, "success", [0, 0, 0]), "{run:#?}");
    assert_eq!(crm.receiver.count(), before, "a reset sends nothing");
    assert!(crm.project.rejected(SYNC).is_empty(), "a reset clears rejections");
    crm.receiver.accept();
    crm.assert_quiet();
    crm.sql("update customers set name = 'y' where id = 1; delete from customers where id = 3");
    crm.insert(14..=14);
    crm.run_sends([1, 1, 1]);
    assert_eq!(crm.receiver.field("1", "name"), json!("y"));
    crm.assert_quiet();
    // A reset may be the first run of all.
    let crm = Crm::new(engine, 5, "mode: mirror");
    let run = crm.run_with(&["--reset-cdc"]);
    assert_eq!((run.code, crm.receiver.count()), (0, 0), "{run:#?}");
    crm.assert_quiet();
    crm.insert(6..=6);
    crm.run_sends([1, 0, 0]);
}

fn a_reset_declares_what_is_set_aside_accepted(engine: Engine) {
    let said =
        "mode: mirror\nguards: {max_set_aside: {percent: 90}}\neach: {path: /rows}\nclear: {path: /clear}";
    let crm = Crm::new(engine, 4, said);
    crm.run_sends([4, 0, 0]);
    crm.sql("insert into customers select * from customers where id = 4");
    crm.receiver.behave(|r| if r.path == "/clear" { Reply::accept() } else { Reply::status(401) });
    let run = crm.run_with(&["--clear-and-fill"]);
    assert_eq!((run.code, run.successful()), (2, [0, 0, 0]), "{run:#?}");
    assert_eq!(crm.receiver.rows().len(), 0, "the list was emptied");
    crm.receiver.accept();
    let run = crm.run_with(&["--reset-cdc"]);
    assert_eq!((run.code, run.number("duplicateKeyCount")), (1, 2), "{run:#?}");
    // Nobody declared anything about the key that stood twice: it was taken away, and is owed.
    crm.sql(
        "create table one as select distinct * from customers where id = 4; \
         delete from customers where id = 4; insert into customers select * from one",
    );
    crm.run_sends([1, 0, 0]);
    crm.assert_quiet();
}

fn a_reset_takes_away_what_is_set_aside(engine: Engine) {
    let crm = Crm::new(engine, 12, "mode: mirror\nguards: {max_set_aside: {percent: 90}}");
    crm.run_sends([12, 0, 0]);
    crm.sql("insert into customers values (5, 'other', 'x'); update customers set name = 'x' where id = 1");
    let before = crm.receiver.count();
    let run = crm.run_with(&["--reset-cdc"]);
    assert!(run.code <= 1, "{run:#?}");
    assert_eq!((run.number("duplicateKeyCount"), crm.receiver.count()), (2, before), "{run:#?}");
    assert_eq!(crm.project.snapshots().len(), 12, "the key set aside keeps what it had");
    // Repaired to what was accepted before: nothing differs.
    crm.sql("delete from customers where name = 'other'");
    crm.assert_quiet();
    // Repaired to something else: it is a change.
    crm.sql("update customers set name = 'other' where id = 5");
    crm.run_sends([0, 1, 0]);
    crm.assert_quiet();
}

fn another_mode_forgets_what_is_still_to_be_removed(engine: Engine) {
    let crm = Crm::new(engine, 30, "mode: insert");
    crm.run_sends([30, 0, 0]);
    crm.sql("delete from customers where id <= 5; update customers set name = 'x' where id = 6");
    let resync = ["--full-resync", "--keep-removals"];
    // A guard that stops it changes nothing: the snapshot still stands for keys.
    crm.sync("mode: mirror\nguards: {max_removed: {rows: 1}}");
    assert_eq!(crm.run_with(&resync).error(), "GUARD_TRIPPED");
    assert_eq!((crm.run().error(), crm.receiver.count()), ("MODE_CHANGED", 3));
    crm.sync("mode: mirror");
    let (code, plan) = crm.project.plan(SYNC, &resync);
    assert_eq!(code, 0, "{plan:#}");
    assert_eq!(plan["plannedRows"], json!({"addedCount": 25, "changedCount": 0, "removedCount": 5}));

    // Killed after the removals and ten rows: the rest stays due.
    let hold = Hold::default();
    let held = hold.clone();
    let base = crm.receiver.count();
    crm.receiver.behave(
        move |r| {
            if r.number >= base + 2 { Reply::accept().held(&held) } else { Reply::accept() }
        },
    );
    let running = crm.project.spawn(SYNC, &resync);
    crm.receiver.wait_for(base + 3);
    running.kill();
    hold.release();
    crm.receiver.accept();
    let requests = sent(&crm.receiver.since(base));
    assert_eq!(requests[0], request("removed", &["1", "2", "3", "4", "5"]));
    let run = crm.run();
    assert_eq!((run.code, run.planned()), (0, [15, 0, 0]), "{run:#?}");
    crm.assert_same();
    crm.assert_quiet();

    // Back again, in one go; nothing calls itself a first run.
    crm.sync("mode: insert\non_removed: delete");
    crm.sql("delete from customers where id = 6");
    let ended = crm.project.levin(&["run", SYNC, "--full-resync", "--keep-removals"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(!ended.stderr.contains("first run"), "{}", ended.stderr);
    crm.assert_same();
    crm.assert_quiet();
}

fn a_snapshot_that_is_too_old_is_compared_with(engine: Engine) {
    let crm = Crm::new(engine, 12, "mode: mirror");
    crm.run_sends([12, 0, 0]);
    let state = crm.project.texts(
        "select cast(table_name as text) from information_schema.tables where table_name like '%\\_state' escape '\\'",
    );
    let state = state[0].clone().unwrap();
    let days_pass = |days: u32| {
        crm.sql(&format!("update levin_planner.{state} set ran_at = ran_at - interval '{days} days'"));
    };
    let source = std::fs::read_to_string(crm.project.path().join("sources/wh.yml")).unwrap();
    // Without a word of it, snapshots are kept for ever.
    days_pass(4_000);
    crm.assert_quiet();
    crm.project.write("sources/wh.yml", &format!("{source}snapshot_retention: 30d\n"));
    // A run with nothing to send is a run.
    days_pass(29);
    crm.assert_quiet();
    days_pass(29);
    crm.assert_quiet();
    days_pass(31);
    crm.sql("delete from customers where id = 1");
    let before = crm.receiver.count();
    for _ in 0..2 {
        let run = crm.run();
        assert_eq!((run.code, run.error()), (2, "SNAPSHOT_EXPIRED"), "{run:#?}");
        assert!(run.message().contains("31 days") && run.message().contains("30 days"), "{run:#?}");
        let hint = run.report["error"]["hint"].as_str().unwrap();
        assert!(hint.contains("--full-resync") && hint.contains("--reset-cdc"), "{hint}");
    }
    let plan = crm.project.levin(&["plan", SYNC]);
    assert!(plan.code == 2 && plan.stderr.contains("SNAPSHOT_EXPIRED"), "{plan:?}");
    assert_eq!(crm.receiver.count(), before);
    // Both ways on.
    let run = crm.run_with(&["--full-resync", "--keep-removals"]);
    assert_eq!((run.code, run.successful()), (0, [11, 0, 1]), "{run:#?}");
    crm.assert_same();
    crm.assert_quiet();
    days_pass(31);
    assert_eq!(crm.run().error(), "SNAPSHOT_EXPIRED");
    let run = crm.run_with(&["--reset-cdc"]);
    assert_eq!((run.code, run.number("destinationCalls")), (0, 0), "{run:#?}");
    crm.assert_quiet();
}

fn dropped_tables_stop_the_sync_for_ever(engine: Engine) {
    for (what, way_on) in
        [("snapshot", "--full-resync"), ("rejections", "--full-resync"), ("doubts", "--reset-cdc")]
    {
        let crm = Crm::new(engine, 12, "mode: mirror");
        crm.run_sends([12, 0, 0]);
        let table = crm.project.texts(&format!(
            "select cast(table_name as text) from information_schema.tables where table_name like '%\\_{what}' escape '\\'"
        ));
        let table = table[0].clone().unwrap();
        crm.sql(&format!("drop table levin_planner.{table}; update customers set name = 'x' where id = 1"));
        let before = crm.receiver.count();
        let run = crm.run();
        assert_eq!((run.code, run.error()), (2, "SNAPSHOT_MISSING"), "{run:#?}");
        assert!(run.message().contains(&table) && run.message().contains("levin_planner"), "{run:#?}");
        assert!(run.report["error"]["hint"].as_str().unwrap().contains(way_on), "{run:#?}");
        let plan = crm.project.levin(&["plan", SYNC]);
        assert!(plan.code == 2 && plan.stderr.contains("SNAPSHOT_MISSING"), "{plan:?}");
        assert_eq!(crm.receiver.count(), before);
        let (code, plan) = crm.project.plan(SYNC, &[way_on]);
        assert_eq!(code, 0, "{plan:#}");
        let run = crm.run_with(&[way_on]);
        let sent = if way_on == "--full-resync" { [12, 0, 0] } else { [0, 0, 0] };
        assert_eq!((run.code, run.successful()), (0, sent), "{run:#?}");
        assert_eq!(run.report["plannedRows"], plan["plannedRows"], "{plan:#}");
        crm.assert_quiet();
        crm.sql("delete from customers where id = 1; update customers set name = 'y' where id = 2");
        crm.run_sends([0, 1, 1]);
        crm.assert_same();
        crm.assert_quiet();
    }
}

fn a_lost_lock_file_sends_everything_again(engine: Engine) {
    let crm = Crm::new(engine, 5, "mode: mirror");
    crm.run_sends([5, 0, 0]);
    let lock = std::fs::read_to_string(crm.project.path().join("levin.lock.yml")).unwrap();
    crm.project.remove("levin.lock.yml");
    for command in [&["run", SYNC] as &[&str], &["plan", SYNC], &["gc"]] {
        let ended = crm.project.levin(command);
        assert_eq!((ended.code, crm.receiver.count()), (64, 1), "{ended:?}");
        assert!(ended.stderr.contains("LOCK_FILE_INVALID"), "{ended:?}");
        assert!(ended.stderr.contains("version control") && ended.stderr.contains("store:"), "{ended:?}");
    }
    crm.project.write("levin.lock.yml", &lock);
    crm.assert_quiet();
    // A store of its own says that it is meant.
    crm.project.remove("levin.lock.yml");
    crm.project.write("levin.yml", "name: scenario\nstore: sqlite://.levin/another.db\n");
    crm.run_sends([5, 0, 0]);
    crm.assert_quiet();
}
