//! Two troubles at once: what one leaves behind is what the other finds.

use std::collections::BTreeSet;

use serde_json::json;
use tests::project::Engine;
use tests::receiver::{Hold, Reply};

use super::{Crm, SYNC, on_both_warehouses, request, sent};

on_both_warehouses!(
    an_error_of_the_server_is_taken_for_a_definite_no,
    a_retry_that_is_refused_hides_that_the_first_try_was_applied,
    a_doubtful_row_that_is_set_aside_is_forgotten,
    a_doubtful_row_that_leaves_is_counted_for_ever,
    a_rejection_ends_a_full_resync_too_early,
    a_killed_full_resync_forgets_what_left_since,
    a_crash_before_a_change_of_shape_loses_rows,
    a_crash_before_a_change_of_key_type_loses_rows,
    a_crash_before_another_target_loses_rows,
    a_crash_before_starting_over_loses_rows,
    a_plan_after_a_crash_says_something_else_than_the_run,
    a_slow_destination_is_sent_the_same_row_for_ever,
    several_requests_at_once_mix_up_their_rows,
    one_sync_disturbs_another,
);
tests::on_mariadb_too!(
    a_crash_before_a_change_of_shape_loses_rows,
    a_crash_before_a_change_of_key_type_loses_rows,
    a_crash_before_another_target_loses_rows,
    a_crash_before_starting_over_loses_rows,
    a_plan_after_a_crash_says_something_else_than_the_run,
);

/// Lets `answered` requests through and kills the run while the next one, applied, waits.
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

fn an_error_of_the_server_is_taken_for_a_definite_no(engine: Engine) {
    let crm = Crm::new(engine, 6, "mode: mirror\neach: {method: POST, path: /rows, batch_size: 1}");
    crm.run_sends([6, 0, 0]);
    crm.sql("update customers set name = 'x' where id in (2, 3)");
    crm.insert(7..=8);
    // The server applies the row, and then fails: 2 and 7 only.
    crm.receiver.behave(|request| {
        if request.has("2") || request.has("7") { Reply::accept_but_answer(500) } else { Reply::accept() }
    });
    let run = crm.run();
    assert_eq!((run.code, run.failed(), run.number("inDoubtCount")), (1, [1, 1, 0], 2), "{run:#?}");
    // 2 goes back to what was accepted, 7 leaves: both must be told.
    crm.sql("update customers set name = 'name 2' where id = 2; delete from customers where id = 7");
    crm.receiver.accept();
    let before = crm.receiver.count();
    let run = crm.run_sends([0, 1, 1]);
    assert_eq!(run.number("unchangedCount"), 6);
    let mut told = sent(&crm.receiver.since(before));
    told.sort();
    assert_eq!(told, [request("changed", &["2"]), request("removed", &["7"])]);
    assert!(crm.project.rejected(SYNC).is_empty());
    crm.assert_same();
    crm.assert_quiet();
}

fn a_retry_that_is_refused_hides_that_the_first_try_was_applied(engine: Engine) {
    let crm = Crm::new(engine, 3, "mode: mirror");
    crm.destination("retries: 1\n");
    crm.run_sends([3, 0, 0]);
    crm.sql("update customers set name = 'x' where id = 2");
    crm.receiver.behave(|r| if r.number == 1 { Reply::applied_but_cut() } else { Reply::status(422) });
    let run = crm.run();
    assert_eq!((run.failed(), run.number("inDoubtCount")), ([0, 1, 0], 1), "{run:#?}");
    crm.sql("update customers set name = 'name 2' where id = 2");
    crm.receiver.accept();
    crm.run_sends([0, 1, 0]);
    assert!(crm.project.rejected(SYNC).is_empty());
    crm.assert_same();
    crm.assert_quiet();
}

fn a_doubtful_row_that_is_set_aside_is_forgotten(engine: Engine) {
    let crm = Crm::new(engine, 4, "mode: mirror\nguards: {max_set_aside: {percent: 90}}");
    crm.run_sends([4, 0, 0]);
    crm.sql("update customers set name = 'x' where id = 2");
    crm.insert(5..=5);
    crm.receiver.behave(|_| Reply::applied_but_cut());
    crm.run();
    // Whatever was in flight, the rest goes once more.
    crm.run();
    crm.sql("insert into customers values (5, 'second', 'y'), (2, 'second', 'y')");
    crm.receiver.accept();
    let run = crm.run();
    assert_eq!((run.code, run.planned(), run.number("duplicateKeyCount")), (1, [0, 0, 0], 4), "{run:#?}");
    // One is repaired to what was accepted, the other leaves.
    crm.sql("delete from customers where id in (2, 5)");
    crm.insert(2..=2);
    let there = crm.receiver.keys().len() as u64;
    let run = crm.run();
    assert_eq!((run.code, run.status()), (0, "success"), "{run:#?}");
    assert_eq!(run.successful()[1], 1, "{run:#?}");
    assert_eq!(run.successful()[2], there - 4, "{run:#?}");
    crm.assert_same();
    crm.assert_quiet();
}

fn a_doubtful_row_that_leaves_is_counted_for_ever(engine: Engine) {
    for mode in ["upsert", "insert"] {
        let crm = Crm::new(engine, 3, &format!("mode: {mode}"));
        crm.run_sends([3, 0, 0]);
        crm.insert(4..=4);
        crm.receiver.behave(|_| Reply::applied_but_cut());
        crm.run();
        crm.sql("delete from customers where id = 4");
        crm.receiver.accept();
        let before = crm.receiver.count();
        let run = crm.run_sends([0, 0, 0]);
        assert_eq!(run.not_sent(), [0, 0, 1], "{mode}");
        assert_eq!(crm.run_sends([0, 0, 0]).not_sent(), [0, 0, 0], "{mode}: counted once");
        assert_eq!(crm.receiver.count(), before);
        crm.assert_quiet();
        crm.insert(4..=4);
        crm.run_sends([1, 0, 0]);
        crm.assert_quiet();
    }
}

fn a_rejection_ends_a_full_resync_too_early(engine: Engine) {
    let crm = Crm::new(engine, 12, "mode: mirror");
    crm.run_sends([12, 0, 0]);
    crm.sql("delete from customers where id = 12");
    crm.receiver.behave(|_| Reply::reject(&["3"], "not now"));
    let run = crm.run_with(&["--full-resync"]);
    assert_eq!((run.code, run.successful(), run.failed()), (1, [10, 0, 0], [1, 0, 0]), "{run:#?}");
    // 3 is still due, although it is as it was; 12 left.
    let before = crm.receiver.count();
    crm.receiver.accept();
    let run = crm.run();
    assert_eq!((run.code, run.successful().iter().sum::<u64>()), (0, 2), "{run:#?}");
    let keys: BTreeSet<String> = crm.receiver.since(before).iter().flat_map(|r| r.keys()).collect();
    assert_eq!(keys, BTreeSet::from(["12".to_owned(), "3".to_owned()]));
    assert!(crm.project.rejected(SYNC).is_empty());
    crm.assert_same();
    crm.assert_quiet();
    crm.assert_quiet();
}

fn a_killed_full_resync_forgets_what_left_since(engine: Engine) {
    for arguments in [&["--full-resync"][..], &["--full-resync", "--keep-removals"]] {
        let crm = Crm::new(engine, 40, "mode: mirror");
        crm.run_sends([40, 0, 0]);
        crm.sql("delete from customers where id > 38");
        kill_after(&crm, 2, arguments);
        // Of those sent and of those not sent one leaves, one changes.
        let done = crm.receiver.requests()[5].keys();
        let left: Vec<String> = (1..=38)
            .map(|id| id.to_string())
            .filter(|id| !crm.receiver.since(4).iter().any(|r| r.has(id)))
            .collect();
        crm.sql(&format!(
            "delete from customers where id in ({}, {}); update customers set name = 'x' where id in ({}, {})",
            done[0], left[0], done[1], left[1]
        ));
        crm.insert(41..=41);
        // A second crash on the way.
        kill_after(&crm, 1, &[]);
        let run = crm.run();
        assert_eq!(run.code, 0, "{run:#?}");
        crm.assert_same();
        crm.assert_quiet();
    }
}

fn a_crash_before_a_change_of_shape_loses_rows(engine: Engine) {
    let crm = Crm::new(engine, 30, "mode: mirror");
    crm.run_sends([30, 0, 0]);
    crm.sql("update customers set name = 'x' where id > 2; delete from customers where id <= 2");
    kill_after(&crm, 2, &[]);
    // The model loses a column and gains another one before the next run.
    crm.model("id", "select id, name, case when id = 30 then 'new' end as extra from customers");
    let run = crm.run();
    assert_eq!((run.code, run.status()), (0, "success"), "{run:#?}");
    let names: BTreeSet<String> = crm.receiver.rows().values().map(|f| f["name"].to_string()).collect();
    assert_eq!(names, BTreeSet::from(["\"x\"".to_owned()]));
    assert_eq!((crm.receiver.keys().len(), crm.receiver.field("30", "extra")), (28, json!("new")));
    crm.assert_quiet();
}

fn a_crash_before_a_change_of_key_type_loses_rows(engine: Engine) {
    let crm = Crm::new(engine, 30, "mode: mirror");
    crm.run_sends([30, 0, 0]);
    crm.sql("update customers set name = 'B' where id > 2; delete from customers where id <= 2");
    crm.insert(31..=31);
    kill_after(&crm, 2, &[]);
    crm.sql("update customers set name = 'name ' || cast(id as text)");
    crm.model("id", "select cast(id as text) as id, name, email from customers");
    let run = crm.run();
    assert_eq!((run.code, run.status()), (0, "success"), "{run:#?}");
    crm.assert_same();
    crm.assert_quiet();
}

fn a_crash_before_another_target_loses_rows(engine: Engine) {
    let crm = Crm::new(engine, 30, "mode: mirror");
    crm.run_sends([30, 0, 0]);
    crm.sql("update customers set name = 'B'");
    kill_after(&crm, 1, &[]);
    crm.sync("mode: mirror\neach: {method: POST, path: /elsewhere, batch_size: 10}");
    let run = crm.run();
    assert_eq!((run.code, run.error()), (2, "TARGET_CHANGED"), "{run:#?}");
    // Back, and back to the old values: what was in flight is known to be in doubt.
    crm.sync("mode: mirror");
    crm.sql("update customers set name = 'name ' || cast(id as text)");
    let run = crm.run();
    assert_eq!((run.code, run.status()), (0, "success"), "{run:#?}");
    crm.assert_same();
    crm.assert_quiet();
}

fn a_crash_before_starting_over_loses_rows(engine: Engine) {
    let crm = Crm::new(engine, 30, "mode: mirror");
    crm.run_sends([30, 0, 0]);
    crm.sql("update customers set name = 'B' where id > 5; delete from customers where id <= 5");
    crm.insert(31..=33);
    kill_after(&crm, 1, &[]);
    crm.sql("delete from customers where id in (31, 6)");
    let run = crm.run_with(&["--full-resync"]);
    assert_eq!((run.code, run.planned()), (0, [26, 0, 0]), "{run:#?}");
    let run = crm.run();
    assert_eq!((run.code, run.planned()[0], run.planned()[1]), (0, 0, 0), "{run:#?}");
    crm.assert_same();
    crm.assert_quiet();
    // And a reset declares everything accepted, whatever was in flight.
    crm.sql("update customers set name = 'C'");
    kill_after(&crm, 1, &[]);
    let before = crm.receiver.count();
    let run = crm.run_with(&["--reset-cdc"]);
    assert_eq!((run.code, crm.receiver.count()), (0, before), "{run:#?}");
    crm.assert_quiet();
}

fn a_plan_after_a_crash_says_something_else_than_the_run(engine: Engine) {
    let crm = Crm::new(engine, 30, "mode: mirror");
    crm.run_sends([30, 0, 0]);
    crm.sql("update customers set name = 'B' where id > 5; delete from customers where id <= 5");
    crm.insert(31..=45);
    kill_after(&crm, 2, &[]);
    crm.sql("update customers set name = 'name ' || cast(id as text) where id > 10");
    let snapshots = crm.project.snapshots();
    let (code, plan) = crm.project.plan(SYNC, &[]);
    assert_eq!((code, crm.project.snapshots()), (0, snapshots), "a plan settles nothing: {plan:#}");
    let run = crm.run();
    assert_eq!(run.report["plannedRows"], plan["plannedRows"], "{plan:#} {run:#?}");
    assert_eq!(run.report["unchangedCount"], plan["unchangedCount"]);
    assert_eq!((run.code, run.report["notSent"].clone()), (0, plan["notSent"].clone()));
    crm.assert_same();
    let (_, plan) = crm.project.plan(SYNC, &[]);
    assert_eq!(plan["plannedRows"], json!({"addedCount": 0, "changedCount": 0, "removedCount": 0}));
    crm.assert_quiet();
}

fn a_slow_destination_is_sent_the_same_row_for_ever(engine: Engine) {
    let crm = Crm::new(engine, 3, "mode: upsert");
    crm.destination("retries: 1\ntimeout: 300ms\n");
    let never = Hold::default();
    let held = never.clone();
    crm.receiver.behave(move |_| Reply::accept().held(&held));
    let run = crm.project.run(SYNC);
    assert_eq!((run.code, run.status()), (2, "failed"), "{run:#?}");
    assert_eq!((run.failed(), run.number("inDoubtCount")), ([3, 0, 0], 3), "{run:#?}");
    assert_eq!(crm.receiver.count(), 2);
    never.release();
    crm.receiver.accept();
    crm.destination("");
    let before = crm.receiver.count();
    let run = crm.run();
    assert_eq!((run.code, run.successful().iter().sum::<u64>()), (0, 3), "{run:#?}");
    assert_eq!(crm.receiver.count(), before + 1);
    crm.assert_same();
    crm.assert_quiet();
}

fn several_requests_at_once_mix_up_their_rows(engine: Engine) {
    let crm = Crm::new(engine, 200, "mode: mirror\neach: {method: POST, path: /rows, batch_size: 7}");
    crm.project.write(
        "destinations/crm.yml",
        "type: http_request\nbase_url: ${CRM_URL}\nallow_private_networks: true\nconcurrency: 8\nretries: 2\n",
    );
    // Every third request is cut after being applied, every fifth throttled, and some rows refused.
    crm.receiver.behave(|request| match request.number {
        n if n % 5 == 4 => Reply::status(429).header("retry-after", "0"),
        n if n % 7 == 3 => Reply::applied_but_cut(),
        _ => {
            let bad: Vec<String> = request
                .keys()
                .into_iter()
                .filter(|k| k.parse::<u32>().is_ok_and(|id| id % 11 == 0))
                .collect();
            Reply::reject(&bad.iter().map(String::as_str).collect::<Vec<_>>(), "eleven")
        }
    });
    let run = crm.project.run(SYNC);
    assert!(run.code >= 1, "{run:#?}");
    crm.sql("update customers set name = 'x' where id % 2 = 0; delete from customers where id % 3 = 0");
    crm.project.run(SYNC);
    crm.receiver.accept();
    let run = crm.run();
    assert_eq!((run.code, run.status()), (0, "success"), "{run:#?}");
    assert!(crm.project.rejected(SYNC).is_empty());
    crm.assert_same();
    crm.assert_quiet();
}

fn one_sync_disturbs_another(engine: Engine) {
    let crm = Crm::new(engine, 10, "mode: mirror");
    crm.project.write(
        "syncs/guarded.yml",
        "model: customers\ndestination: crm\nmode: mirror\neach: {method: POST, path: /guarded}\nguards: {max_removed: {rows: 1}}\n",
    );
    crm.project.write(
        "syncs/rejecting.yml",
        "model: customers\ndestination: crm\nmode: upsert\neach: {method: POST, path: /rejecting}\n",
    );
    crm.receiver
        .behave(|r| if r.path == "/rejecting" { Reply::reject(&["4"], "no") } else { Reply::accept() });
    let all = |code: i32| {
        let ended = crm.project.levin(&["run", "--all", "--json"]);
        assert_eq!(ended.code, code, "{ended:#?}");
        assert_eq!(ended.stdout.lines().count(), 3, "{ended:#?}");
    };
    all(1);
    assert_eq!(crm.project.snapshots().len(), 29);
    crm.sql("delete from customers where id <= 2");
    // A guard is worse than rejected rows, a failure worse than both.
    all(3);
    crm.receiver.behave(|r| match r.path.as_str() {
        "/rejecting" => Reply::reject(&["4"], "no"),
        "/rows" => Reply::status(403),
        _ => Reply::accept(),
    });
    crm.insert(11..=11);
    all(2);
    assert!(crm.project.rejected(SYNC).is_empty());
    assert_eq!(crm.project.rejected("rejecting").len(), 1);
    // Each goes on from where it was.
    crm.receiver.accept();
    assert_eq!(crm.project.run("rejecting").successful(), [1, 0, 0]);
    assert_eq!(crm.project.run(SYNC).successful(), [1, 0, 0]);
    let guarded = crm.project.run("guarded");
    assert_eq!((guarded.code, guarded.error(), guarded.planned()), (3, "GUARD_TRIPPED", [1, 0, 2]));
    crm.assert_quiet();
}
