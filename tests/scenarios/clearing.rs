//! `--clear-and-fill`: the destination is emptied and filled anew.

use serde_json::json;
use tests::postgres;
use tests::project::Engine;
use tests::receiver::{Hold, Reply};

use super::modes::Table;
use super::{Crm, SYNC, on_both_warehouses, sent};

on_both_warehouses!(
    a_clear_leaves_what_was_there_or_sends_too_little,
    a_guard_trips_after_the_clear,
    a_clear_that_is_refused_changes_what_is_known,
    a_refused_clear_forgets_what_is_to_be_removed,
    a_refused_clear_takes_another_place_for_the_known_one,
    a_sync_that_was_edited_after_a_clear_in_doubt_goes_on_as_if_it_were_not,
    a_list_is_emptied_before_it_is_known_that_it_can_be_filled,
    a_refused_clear_begins_anew_after_tables_were_dropped,
    a_refusal_makes_an_earlier_doubt_good,
    a_clear_in_doubt_is_forgotten,
    a_kill_after_the_clear_leaves_a_half_full_list,
    a_delivery_from_before_the_clear_is_taken_for_its_repeat,
    what_cannot_be_emptied_is_touched,
    a_table_keeps_foreign_rows,
);
tests::on_mariadb_too!(
    a_clear_in_doubt_is_forgotten,
    a_delivery_from_before_the_clear_is_taken_for_its_repeat,
    a_refused_clear_forgets_what_is_to_be_removed,
    a_refused_clear_takes_another_place_for_the_known_one,
    a_sync_that_was_edited_after_a_clear_in_doubt_goes_on_as_if_it_were_not,
);

const CLEARING: &str =
    "mode: mirror\neach: {path: /rows, batch_size: 10}\nclear: {method: POST, path: /clear}";
const CLEAR: &[&str] = &["--clear-and-fill"];
const SNAPSHOTS: &str = "select cast(table_name as text) from information_schema.tables where table_name like '%\\_snapshot' escape '\\'";

/// How often the list was emptied.
fn clears(crm: &Crm) -> usize {
    crm.receiver.requests().iter().filter(|r| r.path == "/clear").count()
}

fn a_clear_leaves_what_was_there_or_sends_too_little(engine: Engine) {
    let crm = Crm::new(engine, 12, CLEARING);
    crm.receiver.behave(|_| Reply::reject(&["12"], "no"));
    crm.run();
    crm.receiver.accept();
    crm.sql("delete from customers where id <= 2; update customers set name = 'x' where id = 3");
    crm.insert(13..=13);
    let before = crm.receiver.count();
    let (code, plan) = crm.project.plan(SYNC, CLEAR);
    assert_eq!((code, &plan["reason"]), (0, &json!("clear_and_fill")), "{plan:#}");
    assert_eq!(plan["plannedRows"], json!({"addedCount": 11, "changedCount": 0, "removedCount": 0}));
    assert_eq!(crm.receiver.count(), before, "a plan empties nothing");
    let run = crm.run_with(CLEAR);
    assert_eq!((run.code, run.planned(), run.successful()), (0, [11, 0, 0], [11, 0, 0]), "{run:#?}");
    assert_eq!((run.not_sent(), run.number("destinationCalls")), ([0, 0, 2], 3), "{run:#?}");
    let requests = sent(&crm.receiver.since(before));
    assert_eq!(requests[0].0, "cleared", "{requests:?}");
    assert!(requests[1..].iter().all(|(operation, _)| operation == "added"), "{requests:?}");
    crm.assert_same();
    crm.assert_quiet();
    crm.sql("delete from customers where id = 13");
    crm.run_sends([0, 0, 1]);
    // The first run of all may begin with an empty list too.
    let crm = Crm::new(engine, 3, CLEARING);
    let run = crm.run_with(CLEAR);
    assert_eq!((run.code, run.successful(), clears(&crm)), (0, [3, 0, 0], 1), "{run:#?}");
    crm.assert_quiet();
}

fn a_guard_trips_after_the_clear(engine: Engine) {
    let crm = Crm::new(engine, 12, &format!("{CLEARING}\nguards: {{min_rows: 10}}"));
    crm.run_sends([12, 0, 0]);
    crm.sql("delete from customers where id > 5");
    let run = crm.run_with(CLEAR);
    assert_eq!((run.code, run.error(), clears(&crm)), (3, "GUARD_TRIPPED", 0), "{run:#?}");
    // An empty model empties nothing, not even when levin never sent a row there.
    let crm = Crm::new(engine, 0, CLEARING);
    let run = crm.run_with(CLEAR);
    assert_eq!((run.code, run.error(), crm.receiver.count()), (3, "GUARD_TRIPPED", 0), "{run:#?}");
    crm.sync(&format!("{CLEARING}\nguards: {{allow_empty: true}}"));
    let run = crm.run_with(CLEAR);
    assert_eq!((run.code, clears(&crm)), (0, 1), "{run:#?}");
    crm.assert_quiet();
}

fn a_clear_that_is_refused_changes_what_is_known(engine: Engine) {
    let crm = Crm::new(engine, 12, CLEARING);
    crm.run_sends([12, 0, 0]);
    for (status, code) in [(403, "DESTINATION_UNUSABLE"), (422, "DESTINATION_REFUSED")] {
        crm.receiver.behave(move |_| Reply::status(status));
        let run = crm.run_with(CLEAR);
        assert_eq!((run.code, run.error(), run.aborted()), (2, code, [12, 0, 0]), "{run:#?}");
        assert!(run.message().contains("was not emptied"), "{run:#?}");
        crm.receiver.accept();
        crm.assert_quiet();
    }
    assert_eq!(crm.receiver.keys().len(), 12);
}

fn a_refused_clear_forgets_what_is_to_be_removed(engine: Engine) {
    let crm = Crm::new(engine, 12, CLEARING);
    crm.run_sends([12, 0, 0]);
    crm.sql("delete from customers where id = 1");
    let inserting = CLEARING.replace("mode: mirror", "mode: insert\non_removed: delete");
    for kept in [true, false] {
        // What is known stands for something else than the new mode compares.
        crm.sync(&inserting);
        crm.receiver.behave(|_| Reply::status(422));
        let run = crm.run_with(CLEAR);
        assert_eq!((run.code, run.error()), (2, "DESTINATION_REFUSED"), "{run:#?}");
        crm.receiver.accept();
        let before = crm.receiver.count();
        assert_eq!((crm.run().error(), crm.receiver.count()), ("MODE_CHANGED", before));
        if kept {
            // Who puts the file back goes on as if nothing had been asked.
            crm.sync(CLEARING);
            crm.run_sends([0, 0, 1]);
            crm.sql("delete from customers where id = 2");
        }
    }
    let run = crm.run_with(CLEAR);
    assert_eq!((run.code, run.successful()), (0, [10, 0, 0]), "{run:#?}");
    crm.assert_same();
    crm.assert_quiet();
    crm.sql("delete from customers where id = 3");
    crm.run_sends([0, 0, 1]);
    crm.assert_same();
}

fn a_refused_clear_takes_another_place_for_the_known_one(engine: Engine) {
    let crm = Crm::new(engine, 12, CLEARING);
    crm.run_sends([12, 0, 0]);
    let elsewhere = CLEARING.replace("/rows", "/elsewhere");
    for name in ["a", "b"] {
        crm.sync(&elsewhere);
        assert_eq!(crm.run().error(), "TARGET_CHANGED");
        crm.receiver.behave(|_| Reply::status(422));
        assert_eq!(crm.run_with(CLEAR).error(), "DESTINATION_REFUSED");
        crm.receiver.accept();
        // The place that is known is not the one that was to be emptied.
        crm.sync(CLEARING);
        let before = clears(&crm);
        crm.sql(&format!("update customers set name = '{name}' where id = 1"));
        crm.run_sends([0, 1, 0]);
        assert_eq!(clears(&crm), before);
        crm.assert_same();
    }
}

fn a_sync_that_was_edited_after_a_clear_in_doubt_goes_on_as_if_it_were_not(engine: Engine) {
    let inserting = CLEARING.replace("mode: mirror", "mode: insert\non_removed: delete");
    let elsewhere = CLEARING.replace("/rows", "/elsewhere");
    for (edited, code) in [(&elsewhere, "TARGET_CHANGED"), (&inserting, "MODE_CHANGED")] {
        for put_back in [true, false] {
            let crm = Crm::new(engine, 12, CLEARING);
            crm.run_sends([12, 0, 0]);
            let (first, then) =
                if put_back { (edited.as_str(), CLEARING) } else { (CLEARING, edited.as_str()) };
            // Two places may have one list, and this is emptied, whatever is known of it.
            crm.sync(first);
            crm.receiver.behave(|_| Reply::applied_but_cut());
            assert_eq!(crm.run_with(CLEAR).error(), "DESTINATION_UNAVAILABLE");
            crm.receiver.accept();
            crm.sync(then);
            let before = crm.receiver.count();
            let run = crm.run();
            assert_eq!((run.error(), crm.receiver.count()), (code, before), "{run:#?}");
            assert!(
                code == "MODE_CHANGED" || run.message().contains("broke off while it emptied"),
                "{run:#?}"
            );
            let plan = crm.project.levin(&["plan", SYNC]);
            assert!(plan.code == 2 && plan.stderr.contains(code), "{plan:?}");
            let run = crm.run_with(&["--full-resync"]);
            assert_eq!((run.code, run.successful(), clears(&crm)), (0, [12, 0, 0], 1), "{run:#?}");
            crm.assert_same();
            crm.assert_quiet();
        }
    }
    // Another mode that cannot empty what was to be emptied says so.
    let crm = Crm::new(engine, 3, CLEARING);
    crm.run_sends([3, 0, 0]);
    crm.receiver.behave(|_| Reply::cut());
    assert_eq!(crm.run_with(CLEAR).code, 2);
    crm.receiver.accept();
    crm.sync(&CLEARING.replace("mode: mirror", "mode: update"));
    let run = crm.run();
    assert_eq!((run.code, run.error()), (64, "CLEAR_UNSUPPORTED"), "{run:#?}");
    assert!(run.report["error"]["hint"].as_str().unwrap().contains("broke off"), "{run:#?}");
}

fn a_list_is_emptied_before_it_is_known_that_it_can_be_filled(engine: Engine) {
    let crm = Crm::new(engine, 3, CLEARING);
    crm.run_sends([3, 0, 0]);
    // What stands where a table was cannot be replaced.
    let snapshot = crm.project.texts(SNAPSHOTS)[0].clone().unwrap();
    crm.sql(&format!(
        "drop table levin_planner.{snapshot}; create view levin_planner.{snapshot} as select 1 as id"
    ));
    crm.sync(&CLEARING.replace("mode: mirror", "mode: insert"));
    let run = crm.run_with(CLEAR);
    assert_eq!((run.code, run.error(), clears(&crm)), (2, "SOURCE_FAILED", 0), "{run:#?}");
    assert_eq!(crm.run().error(), "MODE_CHANGED");
    crm.sql(&format!("drop view levin_planner.{snapshot}"));
    let run = crm.run_with(CLEAR);
    assert_eq!((run.code, run.successful(), clears(&crm)), (0, [3, 0, 0], 1), "{run:#?}");
    crm.assert_quiet();
}

fn a_refused_clear_begins_anew_after_tables_were_dropped(engine: Engine) {
    let crm = Crm::new(engine, 12, CLEARING);
    crm.run_sends([12, 0, 0]);
    let snapshot = crm.project.texts(SNAPSHOTS)[0].clone().unwrap();
    crm.sql(&format!("drop table levin_planner.{snapshot}; delete from customers where id = 1"));
    crm.receiver.behave(|_| Reply::status(422));
    assert_eq!(crm.run_with(CLEAR).error(), "DESTINATION_REFUSED");
    crm.receiver.accept();
    assert_eq!(crm.run().error(), "SNAPSHOT_MISSING");
    // What was begun is gone on with, with tables or without.
    crm.receiver.behave(|_| Reply::applied_but_cut());
    assert_eq!(crm.run_with(CLEAR).error(), "DESTINATION_UNAVAILABLE");
    crm.receiver.accept();
    crm.sync(&CLEARING.replace("/rows", "/elsewhere"));
    assert_eq!(crm.run().error(), "TARGET_CHANGED");
    crm.sync(CLEARING);
    let (_, plan) = crm.project.plan(SYNC, &[]);
    assert_eq!(plan["reason"], json!("clear_and_fill"), "{plan:#}");
    let run = crm.run();
    assert_eq!((run.code, run.successful()), (0, [11, 0, 0]), "{run:#?}");
    crm.assert_same();
    crm.assert_quiet();
}

fn a_refusal_makes_an_earlier_doubt_good(engine: Engine) {
    let crm = Crm::new(engine, 12, CLEARING);
    crm.run_sends([12, 0, 0]);
    crm.receiver.behave(|_| Reply::applied_but_cut());
    assert_eq!((crm.run_with(CLEAR).code, crm.receiver.keys().len()), (2, 0));
    crm.receiver.behave(|_| Reply::status(422));
    for arguments in [&[] as &[&str], CLEAR] {
        let run = crm.run_with(arguments);
        assert_eq!((run.code, run.error()), (2, "DESTINATION_REFUSED"), "{run:#?}");
        assert!(run.message().contains("is not known"), "{run:#?}");
        assert!(run.report["error"]["hint"].as_str().unwrap().contains("--full-resync"), "{run:#?}");
    }
    crm.receiver.accept();
    crm.run_sends([12, 0, 0]);
    crm.assert_same();
    crm.assert_quiet();
}

fn a_clear_in_doubt_is_forgotten(engine: Engine) {
    let crm = Crm::new(engine, 12, CLEARING);
    crm.run_sends([12, 0, 0]);
    for applied in [true, false] {
        crm.receiver.behave(move |_| if applied { Reply::applied_but_cut() } else { Reply::status(500) });
        let run = crm.run_with(CLEAR);
        assert_eq!((run.code, run.error()), (2, "DESTINATION_UNAVAILABLE"), "{run:#?}");
        assert!(run.report["error"]["hint"].as_str().unwrap().contains("empties it again"), "{run:#?}");
        assert_eq!(crm.receiver.keys().len(), if applied { 0 } else { 12 });
        // Whichever run comes next goes on, and its plan says so.
        crm.receiver.accept();
        let (_, plan) = crm.project.plan(SYNC, &[]);
        assert_eq!(plan["reason"], json!("clear_and_fill"), "{plan:#}");
        let before = clears(&crm);
        let run = crm.run();
        assert_eq!((run.code, run.successful()), (0, [12, 0, 0]), "{run:#?}");
        assert_eq!(clears(&crm), before + 1);
        crm.assert_same();
        crm.assert_quiet();
    }
    // What a plan declares accepted after it is accepted, but for keys that are set aside.
    crm.sql("insert into customers values (null, 'nobody', null)");
    crm.receiver.behave(|_| Reply::cut());
    assert_eq!(crm.run_with(CLEAR).code, 2);
    crm.receiver.accept();
    let file = crm.project.path().join("plan.json");
    let (code, _) = crm.project.plan(SYNC, &["--reset-cdc", "--save", file.to_str().unwrap()]);
    assert_eq!(code, 0);
    let before = crm.receiver.count();
    let applied = crm.project.levin(&["apply", file.to_str().unwrap()]);
    assert!(applied.code <= 1, "{applied:?}");
    assert_eq!((crm.run().planned(), crm.receiver.count()), ([0, 0, 0], before));
    crm.sql("delete from customers where id is null");
    crm.assert_quiet();
    // Who starts over in another way gets that.
    for other in ["--full-resync", "--reset-cdc"] {
        crm.receiver.behave(|_| Reply::cut());
        assert_eq!(crm.run_with(CLEAR).code, 2);
        crm.receiver.accept();
        let before = clears(&crm);
        assert_eq!(crm.run_with(&[other]).code, 0);
        crm.assert_quiet();
        assert_eq!(clears(&crm), before);
    }
    // What was meant for one place is not done to another.
    crm.receiver.behave(|_| Reply::cut());
    assert_eq!(crm.run_with(CLEAR).code, 2);
    crm.sync(&CLEARING.replace("/rows", "/elsewhere"));
    crm.receiver.accept();
    let before = crm.receiver.count();
    let run = crm.run();
    assert_eq!((run.error(), crm.receiver.count()), ("TARGET_CHANGED", before), "{run:#?}");
}

fn a_kill_after_the_clear_leaves_a_half_full_list(engine: Engine) {
    let crm = Crm::new(engine, 50, CLEARING);
    crm.run_sends([50, 0, 0]);
    crm.sql("delete from customers where id = 50");
    let hold = Hold::default();
    let (held, base) = (hold.clone(), crm.receiver.count());
    crm.receiver.behave(
        move |r| {
            if r.number == base + 3 { Reply::accept().held(&held) } else { Reply::accept() }
        },
    );
    let running = crm.project.spawn(SYNC, CLEAR);
    crm.receiver.wait_for(base + 4);
    running.kill();
    hold.release();
    crm.receiver.accept();
    let before = crm.receiver.count();
    let run = crm.run();
    assert_eq!((run.code, clears(&crm)), (0, 1), "{run:#?}");
    // Two requests were answered, one was applied and not: that one comes again with the rest.
    let again: usize = crm.receiver.since(before).iter().map(|r| r.rows().len()).sum();
    assert_eq!(again, 29, "{run:#?}");
    crm.assert_same();
    crm.assert_quiet();
}

fn a_delivery_from_before_the_clear_is_taken_for_its_repeat(engine: Engine) {
    let crm = Crm::new(engine, 4, CLEARING);
    crm.receiver.behave(|_| Reply::applied_but_cut());
    assert_eq!(crm.run().number("inDoubtCount"), 4);
    crm.receiver.accept();
    let run = crm.run_with(CLEAR);
    assert_eq!((run.code, run.successful()), (0, [4, 0, 0]), "{run:#?}");
    let versions: Vec<Vec<String>> = [0, 2]
        .map(|number| {
            let rows = crm.receiver.requests()[number].rows().to_vec();
            rows.iter().map(|r| r["version"].to_string()).collect()
        })
        .to_vec();
    assert_eq!(versions[1].len(), 4);
    assert!(versions[1].iter().all(|v| !versions[0].contains(v)), "{versions:?}");
    crm.assert_same();
    crm.assert_quiet();
    // Nor by who sends everything after a clear of which nobody knows whether it was done.
    crm.insert(5..=8);
    crm.receiver.behave(|_| Reply::applied_but_cut());
    assert_eq!(crm.run().number("inDoubtCount"), 4);
    assert_eq!(crm.run_with(CLEAR).error(), "DESTINATION_UNAVAILABLE");
    crm.receiver.accept();
    let run = crm.run_with(&["--full-resync"]);
    assert_eq!((run.code, run.successful()), (0, [8, 0, 0]), "{run:#?}");
    let all = crm.receiver.requests();
    let versions = |request: &tests::receiver::Request| -> Vec<String> {
        request.rows().iter().map(|r| r["version"].to_string()).collect()
    };
    let (doubtful, again) = (versions(&all[all.len() - 3]), versions(&all[all.len() - 1]));
    assert_eq!((doubtful.len(), again.len()), (4, 8));
    assert!(again.iter().all(|v| !doubtful.contains(v)), "{doubtful:?} {again:?}");
    crm.assert_same();
    crm.assert_quiet();
}

fn what_cannot_be_emptied_is_touched(engine: Engine) {
    let crm = Crm::new(engine, 4, "mode: mirror");
    for (sync, said) in [
        ("mode: mirror", "no request that empties its list"),
        ("mode: update\nclear: {path: /clear}", "mode `update`"),
        ("mode: remove\nclear: {path: /clear}", "mode `remove`"),
    ] {
        crm.sync(sync);
        let run = crm.run_with(CLEAR);
        assert_eq!((run.code, run.error(), crm.receiver.count()), (64, "CLEAR_UNSUPPORTED", 0), "{run:#?}");
        assert!(run.message().contains(said) && run.message().contains(SYNC), "{run:#?}");
    }
    crm.sync("mode: mirror\nclear: {path: '/{{ row.key }}'}");
    assert_eq!(crm.run().error(), "PROJECT_INVALID", "nobody has a row when a list is emptied");
    crm.project.write("destinations/out.yml", "type: files\npath: out\n");
    crm.project
        .write("syncs/export.yml", "model: customers\ndestination: out\nmode: all\nobject: all.jsonl\n");
    let run = crm.project.run_with("export", CLEAR);
    assert_eq!((run.code, run.error()), (64, "CLEAR_UNSUPPORTED"), "{run:#?}");
    assert!(!crm.project.path().join("out").exists());
    let both = crm.project.levin(&["run", SYNC, "--clear-and-fill", "--full-resync"]);
    assert_eq!(both.code, 64, "{both:?}");
}

fn a_table_keeps_foreign_rows(engine: Engine) {
    let table = Table::new(engine, 8, "mode: mirror");
    table.run_sends([8, 0, 0]);
    postgres::run(
        &table.database,
        "insert into people values (99, 'foreign', null); delete from people where id = 1",
    );
    table.project.sql("delete from customers where id = 2; update customers set name = null where id = 3");
    let run = table.project.run_with("people", CLEAR);
    assert_eq!((run.code, run.successful(), run.failed()), (1, [6, 0, 0], [1, 0, 0]), "{run:#?}");
    assert_eq!(postgres::texts(&table.database, "select id::text from people where id in (2, 3, 99)"), []);
    table.project.sql("update customers set name = 'three' where id = 3");
    table.run_sends([1, 0, 0]);
    // A table that something else leans on is not emptied, and stays as it was.
    postgres::run(
        &table.database,
        "create table orders (person integer references people); insert into orders values (4)",
    );
    let run = table.project.run_with("people", CLEAR);
    assert_eq!((run.code, run.error()), (2, "DESTINATION_REFUSED"), "{run:#?}");
    table.run_sends([0, 0, 0]);
    // Modes that send everything every time keep no snapshot, and are emptied all the same.
    postgres::run(&table.database, "drop table orders; insert into people values (99, 'foreign', null)");
    table.sync("mode: all");
    let run = table.project.run_with("people", CLEAR);
    assert_eq!((run.code, run.successful()), (0, [7, 0, 0]), "{run:#?}");
    assert_eq!(postgres::texts(&table.database, "select id::text from people where id = 99"), []);
}
