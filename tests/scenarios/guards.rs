//! Guards stop a run before its first request, and after it the sync goes on as if nothing had been.

use tests::project::Engine;

use super::{Crm, SYNC, on_both_warehouses};

on_both_warehouses!(
    an_empty_model_removes_everything,
    too_much_is_sent_although_a_guard_forbids_it,
    operations_that_are_not_sent_trip_a_guard,
    a_guard_spoils_the_runs_after_it,
);

/// A run that a guard stops changes nothing anywhere.
fn assert_trips(crm: &Crm, guard: &str) {
    let (calls, snapshots) = (crm.receiver.count(), crm.project.snapshots());
    let (code, plan) = crm.project.plan(SYNC, &[]);
    assert_eq!(code, 3, "{guard}: {plan:#}");
    let verdicts = plan["guards"].as_array().unwrap();
    let tripped: Vec<_> = verdicts.iter().filter(|g| g["tripped"] == true).map(|g| &g["guard"]).collect();
    assert_eq!(tripped, [guard], "{plan:#}");
    let run = crm.run();
    assert_eq!((run.code, run.status(), run.error()), (3, "failed", "GUARD_TRIPPED"), "{run:#?}");
    assert!(run.message().contains(guard), "{run:#?}");
    assert_eq!(run.aborted(), run.planned(), "{run:#?}");
    assert_eq!(run.number("destinationCalls"), 0);
    assert_eq!(crm.receiver.count(), calls, "a guard trips before the first request");
    assert_eq!(crm.project.snapshots(), snapshots);
}

fn an_empty_model_removes_everything(engine: Engine) {
    for mode in ["mirror", "upsert"] {
        let crm = Crm::new(engine, 0, &format!("mode: {mode}"));
        // An empty first run is no accident.
        crm.run_sends([0, 0, 0]);
        crm.insert(1..=5);
        crm.run_sends([5, 0, 0]);
        crm.sql("delete from customers where id > 0");
        assert_trips(&crm, "allow_empty");
        assert_eq!(crm.receiver.keys().len(), 5);
        crm.sync(&format!("mode: {mode}\nguards: {{allow_empty: true}}"));
        if mode == "mirror" {
            crm.run_sends([0, 0, 5]);
            crm.assert_same();
        } else {
            assert_eq!(crm.run_sends([0, 0, 0]).not_sent(), [0, 0, 5]);
        }
        crm.assert_quiet();
    }
}

fn too_much_is_sent_although_a_guard_forbids_it(engine: Engine) {
    let crm = Crm::new(engine, 20, "mode: mirror");
    crm.run_sends([20, 0, 0]);
    crm.sql(
        "delete from customers where id <= 3; update customers set name = 'x' where id between 10 and 13",
    );
    crm.insert(21..=25);
    for (guards, guard) in [
        ("max_removed: {percent: 14.9}", "max_removed"),
        ("max_removed: {percent: 90, rows: 2}", "max_removed"),
        ("max_removed: {percent: 1, rows: 1000}", "max_removed"),
        ("max_changed: {rows: 3}", "max_changed"),
        ("max_added: {percent: 20}", "max_added"),
        ("min_rows: 23", "min_rows"),
    ] {
        crm.sync(&format!("mode: mirror\nguards: {{{guards}}}"));
        assert_trips(&crm, guard);
    }
    crm.sync(
        "mode: mirror\nguards: {max_removed: {percent: 15, rows: 3}, max_changed: {rows: 4, percent: 20}, \
         max_added: {rows: 5, percent: 25}, min_rows: 22}",
    );
    crm.run_sends([5, 4, 3]);
    crm.assert_same();
    crm.assert_quiet();
}

fn operations_that_are_not_sent_trip_a_guard(engine: Engine) {
    let crm = Crm::new(engine, 10, "mode: upsert\nguards: {max_removed: {rows: 0}}");
    crm.run_sends([10, 0, 0]);
    crm.sql("delete from customers where id <= 5");
    assert_eq!(crm.run_sends([0, 0, 0]).not_sent(), [0, 0, 5]);
    crm.assert_quiet();
    let crm = Crm::new(engine, 10, "mode: insert\nguards: {max_changed: {rows: 0}, max_removed: {rows: 0}}");
    crm.run_sends([10, 0, 0]);
    crm.sql("update customers set name = 'x'; delete from customers where id <= 5");
    crm.insert(11..=11);
    let run = crm.run_sends([1, 0, 0]);
    assert_eq!(run.number("unchangedCount") + run.not_sent()[1], 5, "{run:#?}");
    crm.assert_quiet();
}

fn a_guard_spoils_the_runs_after_it(engine: Engine) {
    let crm = Crm::new(engine, 10, "mode: mirror\nguards: {max_removed: {rows: 2}}");
    crm.run_sends([10, 0, 0]);
    crm.sql("create table kept as select * from customers; delete from customers where id <= 5");
    assert_trips(&crm, "max_removed");
    assert_trips(&crm, "max_removed");
    // The accident is undone, and what else happened since is sent.
    crm.sql("delete from customers where id > 0; insert into customers select * from kept");
    crm.assert_quiet();
    crm.sql("delete from customers where id = 1; update customers set name = 'x' where id = 2");
    crm.insert(11..=11);
    crm.run_sends([1, 1, 1]);
    crm.assert_same();
    crm.assert_quiet();
    // A guard may stop the first run of all.
    let crm = Crm::new(engine, 10, "mode: mirror\nguards: {max_added: {rows: 5}}");
    let run = crm.run();
    assert_eq!((run.code, run.error(), crm.receiver.count()), (3, "GUARD_TRIPPED", 0), "{run:#?}");
    crm.sync("mode: mirror");
    crm.run_sends([10, 0, 0]);
    crm.assert_quiet();
}
