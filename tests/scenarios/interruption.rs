//! Runs that end in the middle, and stores that are lost.

use std::collections::BTreeSet;

use serde_json::json;
use tests::project::Engine;
use tests::receiver::{Hold, Reply};

use super::{Crm, SYNC, on_both_warehouses};

on_both_warehouses!(
    a_lost_store_makes_everything_go_again,
    a_store_lost_in_mid_run_loses_rows,
    a_store_lost_in_mid_run_leaves_old_values,
    a_store_from_a_backup_is_trusted,
    another_mode_settles_by_its_own_rules,
    a_crash_makes_keys_set_aside_look_new,
    versions_are_minted_again_when_the_state_is_lost,
    a_crash_repeats_more_than_was_under_way,
    a_crash_in_the_first_run_forgets_what_was_accepted,
    a_cancelled_run_loses_or_repeats_rows,
    a_second_run_of_the_same_sync_interferes,
    another_machine_loses_or_repeats_rows,
    a_table_that_came_too_late_stays_for_ever,
);
tests::on_mariadb_too!(
    a_store_from_a_backup_is_trusted,
    another_mode_settles_by_its_own_rules,
    a_crash_makes_keys_set_aside_look_new,
    a_crash_in_the_first_run_forgets_what_was_accepted,
);

/// Lets a run get so far that `answered` requests were answered and the next was applied, then
/// kills it.
fn kill_after(crm: &Crm, answered: usize, arguments: &[&str]) {
    let hold = Hold::default();
    let held = hold.clone();
    let last = crm.receiver.count() + answered;
    crm.receiver.behave(
        move |r| {
            if r.number >= last { Reply::accept().held(&held) } else { Reply::accept() }
        },
    );
    let running = crm.project.spawn(SYNC, arguments);
    crm.receiver.wait_for(last + 1);
    running.kill();
    hold.release();
    crm.receiver.accept();
}

/// Writes the table of the diff anew, its rows in another order. A statement that waits for levin's own fails.
fn reorder_the_diff(crm: &Crm) {
    let rows = crm.project.managed("%\\_diff\\_%");
    let diff = rows[0].split(' ').next().expect("its name");
    crm.sql(&format!(
        "set lock_timeout = '5s'; create index by_key on {diff} (id); cluster {diff} using by_key"
    ));
}

/// The engine's own numbers of rows are their places; what rewrites a table gives other rows those numbers.
#[test]
fn a_table_that_is_written_anew_hides_rows_that_nobody_sent() {
    for first_run in [true, false] {
        let crm = Crm::new(Engine::Postgres, 0, "mode: mirror");
        if !first_run {
            crm.sql("insert into customers values (99, 'name 99', '')");
            crm.run_sends([1, 0, 0]);
        }
        crm.sql("insert into customers select n, 'name ' || n, '' from generate_series(40, 1, -1) as n");
        kill_after(&crm, 2, &[]);
        reorder_the_diff(&crm);
        let run = crm.run();
        assert_eq!((run.code, run.status()), (0, "success"), "{run:#?}");
        assert_eq!(run.report["settled"]["notesLost"], json!(true), "{run:#?}");
        assert_eq!(run.successful(), [40, 0, 0], "nobody knows which of them were accepted: {run:#?}");
        crm.assert_same();
        crm.assert_quiet();
    }
}

#[test]
fn a_table_that_is_written_anew_in_mid_run_hides_rows_that_nobody_sent() {
    let crm = Crm::new(Engine::Postgres, 0, "mode: mirror");
    crm.sql("insert into customers select n, 'name ' || n, '' from generate_series(40, 1, -1) as n");
    let hold = Hold::default();
    let held = hold.clone();
    crm.receiver.behave(move |r| match r.number {
        0 => Reply::reject(&["40", "39", "38"], "not these"),
        2 => Reply::accept().held(&held),
        _ => Reply::accept(),
    });
    let running = crm.project.spawn(SYNC, &[]);
    crm.receiver.wait_for(3);
    reorder_the_diff(&crm);
    hold.release();
    let run = running.finish();
    assert_eq!((run.code, run.error()), (2, "SOURCE_FAILED"), "{run:#?}");
    assert!(run.message().contains("was written anew while its rows were on their way"), "{run:#?}");
    crm.receiver.accept();
    crm.run_sends([40, 0, 0]);
    crm.assert_same();
    crm.assert_quiet();
}

fn keys_since(crm: &Crm, number: usize) -> Vec<String> {
    crm.receiver.since(number).iter().flat_map(|r| r.keys()).collect()
}

fn a_lost_store_makes_everything_go_again(engine: Engine) {
    let crm = Crm::new(engine, 12, "mode: mirror");
    crm.run_sends([12, 0, 0]);
    crm.project.lose_store();
    assert!(crm.project.history().is_empty());
    crm.assert_quiet();
    crm.sql("update customers set name = 'x' where id = 3; delete from customers where id = 4");
    crm.project.lose_store();
    crm.run_sends([0, 1, 1]);
    crm.assert_same();
    assert_eq!(crm.project.history().len(), 1);
    crm.assert_quiet();
}

fn a_store_lost_in_mid_run_loses_rows(engine: Engine) {
    for first_run in [true, false] {
        let crm = Crm::new(engine, if first_run { 40 } else { 5 }, "mode: mirror");
        if !first_run {
            crm.run_sends([5, 0, 0]);
            crm.insert(6..=40);
            crm.sql("delete from customers where id = 1; update customers set name = 'x' where id = 2");
        }
        kill_after(&crm, 2, &[]);
        crm.project.lose_store();
        // A row that left after it was sent must be removed there.
        let gone = crm.receiver.requests().last().unwrap().keys()[0].clone();
        crm.sql(&format!("delete from customers where id = {gone}"));
        let run = crm.run();
        assert_eq!((run.code, run.status()), (0, "success"), "{run:#?}");
        assert_eq!(run.report["settled"]["notesLost"], json!(true), "{run:#?}");
        crm.assert_same();
        crm.assert_quiet();
        crm.assert_quiet();
    }
}

fn a_store_lost_in_mid_run_leaves_old_values(engine: Engine) {
    let crm = Crm::new(engine, 20, "mode: upsert");
    crm.run_sends([20, 0, 0]);
    crm.sql("update customers set name = 'B'");
    kill_after(&crm, 1, &[]);
    crm.project.lose_store();
    // Everything goes back to what the snapshot holds; some of it was applied.
    crm.sql("update customers set name = 'name ' || cast(id as text)");
    assert_eq!(crm.receiver.rows().values().filter(|f| f["name"] == "B").count(), 20);
    let run = crm.run_sends([0, 20, 0]);
    assert_eq!(run.number("unchangedCount"), 0, "every row that may have been sent is in doubt");
    crm.assert_same();
    crm.assert_quiet();
}

fn a_crash_repeats_more_than_was_under_way(engine: Engine) {
    let crm = Crm::new(engine, 20, "mode: mirror");
    crm.run_sends([20, 0, 0]);
    crm.sql("update customers set name = 'x' where id > 2; delete from customers where id <= 2");
    crm.insert(21..=60);
    let base = crm.receiver.count();
    kill_after(&crm, 3, &[]);
    let requests = crm.receiver.since(base);
    let answered: BTreeSet<String> = requests[..3].iter().flat_map(|r| r.keys()).collect();
    let before = crm.receiver.count();
    let run = crm.run();
    assert_eq!((run.code, run.status()), (0, "success"), "{run:#?}");
    let settled = &run.report["settled"];
    assert_eq!((&settled["endedBatches"], &settled["openBatches"]), (&json!(3), &json!(1)), "{run:#?}");
    assert_eq!(settled["notesLost"], json!(false));
    let sent_again = keys_since(&crm, before);
    assert!(sent_again.iter().all(|key| !answered.contains(key)), "what was answered is not repeated");
    let under_way = requests[3].keys();
    assert!(under_way.iter().all(|key| sent_again.contains(key)), "what was under way is");
    assert_eq!(sent_again.len() + answered.len(), 60);
    // A repeat with the same values is recognisable.
    let version = |rows: &[serde_json::Value], key: &str| {
        rows.iter().find(|r| r["key"] == key).map(|r| r["version"].clone())
    };
    let repeats: Vec<serde_json::Value> =
        crm.receiver.since(before).iter().flat_map(|r| r.rows().to_vec()).collect();
    for key in &under_way {
        assert_eq!(version(requests[3].rows(), key), version(&repeats, key), "key {key}");
    }
    crm.assert_same();
    crm.assert_quiet();
    let history = crm.project.history();
    let statuses: Vec<&str> = history.iter().rev().filter_map(|r| r["status"].as_str()).collect();
    assert_eq!(statuses, ["success", "interrupted", "success", "success"]);
}

fn a_crash_in_the_first_run_forgets_what_was_accepted(engine: Engine) {
    let crm = Crm::new(engine, 40, "mode: mirror");
    kill_after(&crm, 2, &[]);
    let accepted: Vec<String> = crm.receiver.requests()[..2].iter().flat_map(|r| r.keys()).collect();
    // One accepted row leaves, one accepted row changes, and so does one under way.
    let doubtful = crm.receiver.requests()[2].keys();
    crm.sql(&format!(
        "delete from customers where id = {}; update customers set name = 'x' where id in ({}, {})",
        accepted[0], accepted[1], doubtful[0]
    ));
    let run = crm.run();
    assert_eq!((run.code, run.successful()[2]), (0, 1), "{run:#?}");
    assert_eq!(run.number("unchangedCount"), 18, "{run:#?}");
    crm.assert_same();
    crm.assert_quiet();
}

fn a_cancelled_run_loses_or_repeats_rows(engine: Engine) {
    let crm = Crm::new(engine, 50, "mode: upsert");
    let hold = Hold::default();
    let held = hold.clone();
    crm.receiver.behave(move |r| if r.number == 2 { Reply::accept().held(&held) } else { Reply::accept() });
    let mut running = crm.project.spawn(SYNC, &[]);
    crm.receiver.wait_for(3);
    running.terminate();
    running.hears("stopping");
    hold.release();
    let run = running.finish();
    assert_eq!((run.code, run.status()), (2, "cancelled"), "{run:#?}");
    assert_eq!(
        (run.successful(), run.aborted(), run.failed()),
        ([30, 0, 0], [20, 0, 0], [0, 0, 0]),
        "{run:#?}"
    );
    assert_eq!(crm.receiver.count(), 3, "no request begins after the signal");
    let audited = crm.project.texts("select status from levin_audit.sync_runs");
    assert_eq!(audited, [Some("cancelled".to_owned())]);
    let sent: BTreeSet<String> = keys_since(&crm, 0).into_iter().collect();
    let run = crm.run_sends([20, 0, 0]);
    assert_eq!(run.number("unchangedCount"), 30);
    assert!(run.report.get("settled").is_none_or(serde_json::Value::is_null), "nothing was left unsettled");
    assert!(keys_since(&crm, 3).iter().all(|key| !sent.contains(key)), "exactly the rest is sent");
    crm.assert_same();
    crm.assert_quiet();
}

fn a_second_run_of_the_same_sync_interferes(engine: Engine) {
    let crm = Crm::new(engine, 20, "mode: upsert");
    let hold = Hold::default();
    let held = hold.clone();
    crm.receiver.behave(move |r| if r.number == 0 { Reply::accept().held(&held) } else { Reply::accept() });
    let first = crm.project.spawn(SYNC, &[]);
    crm.receiver.wait_for(1);
    let second = crm.project.run(SYNC);
    assert_eq!((second.code, second.error()), (2, "SYNC_BUSY"), "{second:#?}");
    assert_eq!(crm.receiver.count(), 1);
    let waiting = crm.project.spawn(SYNC, &["--wait", "1m"]);
    hold.release();
    let first = first.finish();
    assert_eq!((first.code, first.successful()), (0, [20, 0, 0]), "{first:#?}");
    let waited = waiting.finish();
    assert_eq!((waited.code, waited.planned()), (0, [0, 0, 0]), "{waited:#?}");
    assert_eq!(crm.receiver.count(), 2);
    crm.assert_same();
    crm.assert_quiet();
}

fn another_machine_loses_or_repeats_rows(engine: Engine) {
    let crm = Crm::new(engine, 30, "mode: mirror");
    crm.run_sends([30, 0, 0]);
    // The same project, checked out elsewhere, with a store of its own.
    let elsewhere = crm.project.checkout();
    elsewhere.assert_quiet(SYNC, &crm.receiver);
    crm.sql("update customers set name = 'x' where id > 5; delete from customers where id <= 5");
    crm.insert(31..=32);
    kill_after(&crm, 2, &[]);
    crm.sql("update customers set name = 'name ' || cast(id as text) where id > 10");
    let run = elsewhere.run(SYNC);
    assert_eq!((run.code, run.status()), (0, "success"), "{run:#?}");
    assert_eq!(run.report["settled"]["notesLost"], json!(true), "the notes are on the other machine");
    crm.assert_same();
    // Back on the first machine, its old notes count for nothing.
    crm.assert_quiet();
    crm.sql("update customers set name = 'y' where id = 20");
    crm.run_sends([0, 1, 0]);
    elsewhere.assert_quiet(SYNC, &crm.receiver);
    crm.assert_same();
}

/// Copies the files of a folder into another, which is emptied first.
fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()) {
        std::fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
    }
}

fn a_store_from_a_backup_is_trusted(engine: Engine) {
    let crm = Crm::new(engine, 5, "mode: mirror");
    crm.run_sends([5, 0, 0]);
    let (store, backup) = (crm.project.path().join(".levin"), crm.project.path().join("backup"));
    copy_folder(&store, &backup);
    crm.insert(6..=45);
    kill_after(&crm, 3, &[]);
    assert_eq!(crm.receiver.keys().len(), 45);
    // The store knows nothing of the run that was killed, and gives its number to the next one.
    copy_folder(&backup, &store);
    crm.sql("delete from customers where id > 5");
    let run = crm.run();
    assert_eq!((run.code, run.status()), (0, "success"), "{run:#?}");
    assert_eq!(run.report["settled"]["notesLost"], json!(true), "{run:#?}");
    assert_eq!((run.number("id"), run.successful()), (2, [0, 0, 40]), "{run:#?}");
    crm.assert_same();
    crm.assert_quiet();
}

fn another_mode_settles_by_its_own_rules(engine: Engine) {
    let crm = Crm::new(engine, 30, "mode: mirror");
    crm.run_sends([30, 0, 0]);
    crm.sql("delete from customers where id <= 10");
    kill_after(&crm, 0, &[]);
    assert_eq!(crm.receiver.keys().len(), 20, "the removal was applied, and never answered");
    // The notes are lost, and the mode of today sends no removals.
    crm.project.lose_store();
    crm.sync("mode: upsert");
    crm.insert(1..=10);
    let run = crm.run();
    assert_eq!((run.code, run.successful()), (0, [10, 0, 0]), "{run:#?}");
    crm.assert_same();
    crm.assert_quiet();
}

fn a_crash_makes_keys_set_aside_look_new(engine: Engine) {
    let crm = Crm::new(engine, 30, "mode: mirror\nguards: {max_set_aside: {percent: 90}}");
    crm.sql("insert into customers values (5, 'other', 'x')");
    assert_eq!(crm.run().code, 1);
    let first = crm.project.rejected(SYNC);
    crm.sql("update customers set name = 'x' where id > 10");
    kill_after(&crm, 1, &[]);
    let run = crm.run();
    assert!(run.code == 1 && run.report["settled"].is_object(), "{run:#?}");
    let again = crm.project.rejected(SYNC);
    assert_eq!((again.len(), &again[0]["code"]), (1, &json!("DUPLICATE_PRIMARY_KEY")), "{again:#?}");
    assert_eq!(again[0]["firstAt"], first[0]["firstAt"]);
    assert_ne!(again[0]["lastAt"], first[0]["lastAt"]);
    crm.sql("delete from customers where name = 'other'");
    crm.run_sends([1, 0, 0]);
    assert!(crm.project.rejected(SYNC).is_empty());
    crm.assert_same();
}

fn versions_are_minted_again_when_the_state_is_lost(engine: Engine) {
    let crm = Crm::new(engine, 3, "mode: upsert");
    crm.run_sends([3, 0, 0]);
    let sent = |number: usize| {
        let request = crm.receiver.requests().remove(number);
        let versions: BTreeSet<String> = request.rows().iter().map(|r| r["version"].to_string()).collect();
        (request.generation(), versions)
    };
    crm.sql("drop schema levin_planner cascade; update customers set name = 'another'");
    crm.run_sends([3, 0, 0]);
    let ((before, old), (after, new)) = (sent(0), sent(1));
    assert!(after > before, "generations only grow: {before}, {after}");
    assert!(old.is_disjoint(&new), "two deliveries never share a version");
    crm.assert_quiet();
}

/// A statement whose run has given up may still reach its end on the server, after that run has looked for what it
/// leaves.
fn a_table_that_came_too_late_stays_for_ever(engine: Engine) {
    let crm = Crm::new(engine, 2, "");
    crm.run_sends([2, 0, 0]);
    let snapshot = crm.project.texts(
        "select table_name from information_schema.tables where table_name like '%\\_snapshot' escape '\\'",
    );
    let late = snapshot[0].clone().expect("a name").replace("_snapshot", "_diff_1");
    crm.project.sql(&format!("create table levin_planner.{late} as select 1 as id"));
    crm.assert_quiet();
    assert!(crm.project.managed(&late).is_empty(), "{late} is still there");
}
