//! Rows that are refused, and destinations that are in trouble.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::project::Engine;
use tests::receiver::{Reply, Request};

use super::{Crm, SYNC, on_both_warehouses, request, sent};

on_both_warehouses!(
    a_rejected_row_is_never_tried_again,
    a_rejected_change_is_taken_for_accepted,
    a_rejected_row_that_leaves_stays_rejected,
    a_rejected_removal_is_forgotten,
    rows_that_break_the_server_take_the_others_with_them,
    a_batch_that_is_refused_takes_good_rows_with_it,
    many_rejected_rows_starve_new_ones,
    retry_after_is_ignored,
    wrong_credentials_lose_rows,
    a_dead_destination_keeps_the_run_alive,
    a_misconfigured_destination_gets_every_row,
    a_key_set_aside_disarms_the_stop_rules,
);

fn texts<'a>(rows: &'a [Value], field: &str) -> Vec<&'a str> {
    rows.iter().map(|r| r[field].as_str().unwrap_or_default()).collect()
}

pub fn a_rejected_row_is_never_tried_again(engine: Engine) {
    let crm = Crm::new(engine, 25, "mode: upsert");
    crm.receiver.behave(|_| Reply::reject(&["7", "23"], "bad \"e-mail\""));
    let run = crm.run();
    assert_eq!((run.code, run.status()), (1, "warning"), "{run:#?}");
    assert_eq!((run.successful(), run.failed()), ([23, 0, 0], [2, 0, 0]));
    assert_eq!(run.number("inDoubtCount"), 0);
    let rejected = crm.project.rejected(SYNC);
    assert_eq!(texts(&rejected, "key"), ["23", "7"]);
    assert_eq!(texts(&rejected, "operation"), ["added", "added"]);
    assert_eq!(texts(&rejected, "code"), ["REFUSED", "REFUSED"]);
    assert_eq!(texts(&rejected, "reason"), ["bad \"e-mail\""; 2]);
    assert_eq!(rejected[0]["attempts"], 1);
    assert!(texts(&rejected, "request")[0].contains("/rows"), "{rejected:#?}");
    assert!(texts(&rejected, "response")[0].contains("bad"), "{rejected:#?}");

    let before = crm.receiver.count();
    let run = crm.run();
    assert_eq!((run.code, run.planned(), run.failed()), (1, [2, 0, 0], [2, 0, 0]), "{run:#?}");
    assert_eq!(sent(&crm.receiver.since(before)), [request("added", &["23", "7"])]);
    let again = crm.project.rejected(SYNC);
    assert_eq!(again[0]["attempts"], 2);
    assert_eq!(again[0]["firstAt"], rejected[0]["firstAt"]);
    assert_ne!(again[0]["lastAt"], rejected[0]["lastAt"]);

    // One is repaired at the destination, the other comes with new values.
    crm.sql("update customers set email = 'better' where id = 23");
    crm.receiver.accept();
    crm.run_sends([2, 0, 0]);
    assert!(crm.project.rejected(SYNC).is_empty());
    assert_eq!(crm.receiver.field("23", "email"), json!("better"));
    crm.assert_same();
    crm.assert_quiet();
}

fn a_rejected_change_is_taken_for_accepted(engine: Engine) {
    let crm = Crm::new(engine, 5, "mode: mirror");
    crm.run_sends([5, 0, 0]);
    crm.sql("update customers set name = 'x' where id = 2");
    crm.receiver.behave(|_| Reply::reject(&["2"], "no"));
    let run = crm.run();
    assert_eq!((run.code, run.failed()), (1, [0, 1, 0]), "{run:#?}");
    // It goes back to what was accepted: nothing differs any more, nothing is rejected.
    crm.sql("update customers set name = 'name 2' where id = 2");
    let before = crm.receiver.count();
    let run = crm.run_sends([0, 0, 0]);
    assert_eq!(run.number("unchangedCount"), 5);
    assert_eq!(crm.receiver.count(), before);
    assert!(crm.project.rejected(SYNC).is_empty(), "what no longer differs is not rejected");
    // And a rejected change that then leaves is removed.
    crm.sql("update customers set name = 'x' where id = 2");
    crm.run();
    crm.sql("delete from customers where id = 2");
    crm.receiver.accept();
    crm.run_sends([0, 0, 1]);
    assert_eq!(crm.receiver.keys(), ["1", "3", "4", "5"]);
    assert!(crm.project.rejected(SYNC).is_empty());
    crm.assert_quiet();
}

fn a_rejected_row_that_leaves_stays_rejected(engine: Engine) {
    let crm = Crm::new(engine, 5, "mode: mirror");
    crm.receiver.behave(|_| Reply::reject(&["2"], "no"));
    crm.run();
    assert_eq!(crm.project.rejected(SYNC).len(), 1);
    crm.sql("delete from customers where id = 2");
    let before = crm.receiver.count();
    let run = crm.run_sends([0, 0, 0]);
    assert_eq!(run.not_sent(), [0, 0, 0], "what was never accepted is not removed");
    assert_eq!(crm.receiver.count(), before);
    assert!(crm.project.rejected(SYNC).is_empty());
    crm.assert_same();
    crm.assert_quiet();
}

fn a_rejected_removal_is_forgotten(engine: Engine) {
    let crm = Crm::new(engine, 5, "mode: mirror");
    crm.run_sends([5, 0, 0]);
    crm.sql("delete from customers where id in (2, 3)");
    crm.receiver.behave(|_| Reply::reject(&["2"], "still referenced"));
    let run = crm.run();
    assert_eq!((run.successful(), run.failed()), ([0, 0, 1], [0, 0, 1]), "{run:#?}");
    let rejected = crm.project.rejected(SYNC);
    assert_eq!((texts(&rejected, "key"), texts(&rejected, "operation")), (vec!["2"], vec!["removed"]));
    crm.receiver.accept();
    let before = crm.receiver.count();
    crm.run_sends([0, 0, 1]);
    assert_eq!(sent(&crm.receiver.since(before)), [request("removed", &["2"])]);
    crm.assert_same();
    crm.assert_quiet();
}

/// Answers 500 whenever one of these keys is in the request, having applied nothing.
fn breaks_on(request: &Request, broken: impl Fn(u32) -> bool) -> Reply {
    let hit = request.keys().iter().any(|k| k.parse().is_ok_and(&broken));
    if hit { Reply::status(500) } else { Reply::accept() }
}

fn rows_that_break_the_server_take_the_others_with_them(engine: Engine) {
    let crm = Crm::new(engine, 30, "mode: upsert");
    crm.receiver.behave(|r| breaks_on(r, |id| id % 3 == 0));
    let run = crm.run();
    assert_eq!((run.code, run.status()), (1, "warning"), "{run:#?}");
    assert_eq!((run.successful(), run.failed(), run.aborted()), ([20, 0, 0], [10, 0, 0], [0, 0, 0]));
    assert_eq!(run.number("inDoubtCount"), 10, "an answered 5xx may have been applied");
    let rejected = crm.project.rejected(SYNC);
    assert_eq!(rejected.len(), 10);
    let codes: BTreeSet<&str> = texts(&rejected, "code").into_iter().collect();
    assert_eq!(codes, BTreeSet::from(["DESTINATION_ERROR"]));
    assert!(texts(&rejected, "response")[0].contains("500"), "{rejected:#?}");

    crm.receiver.accept();
    crm.run_sends([10, 0, 0]);
    crm.assert_same();
    crm.assert_quiet();
}

fn a_batch_that_is_refused_takes_good_rows_with_it(engine: Engine) {
    let crm = Crm::new(engine, 20, "mode: upsert");
    crm.receiver.behave(|request| {
        if request.has("13") { Reply::status(422).saying("row 13 is bad") } else { Reply::accept() }
    });
    for attempt in 1..=2 {
        let run = crm.run();
        assert_eq!((run.code, run.failed(), run.number("inDoubtCount")), (1, [1, 0, 0], 0), "{run:#?}");
        let rejected = crm.project.rejected(SYNC);
        assert_eq!((texts(&rejected, "key"), texts(&rejected, "code")), (vec!["13"], vec!["REFUSED"]));
        assert_eq!(rejected[0]["attempts"], attempt);
        assert!(texts(&rejected, "reason")[0].contains("row 13 is bad"), "{rejected:#?}");
        assert_eq!(crm.receiver.keys().len(), 19);
    }
    // It does not stop the others, now or later.
    crm.sql("update customers set name = 'x' where id = 14");
    crm.insert(21..=22);
    let run = crm.run();
    assert_eq!((run.code, run.successful(), run.failed()), (1, [2, 1, 0], [1, 0, 0]), "{run:#?}");
    assert_eq!(crm.receiver.field("14", "name"), json!("x"));
    assert_eq!(crm.receiver.keys().len(), 21);
}

fn many_rejected_rows_starve_new_ones(engine: Engine) {
    let crm = Crm::new(engine, 130, "mode: upsert\neach: {method: POST, path: /rows, batch_size: 5}");
    let refuses = |request: &Request| {
        let bad: Vec<String> =
            request.keys().into_iter().filter(|k| k.parse::<u32>().is_ok_and(|id| id <= 120)).collect();
        Reply::reject(&bad.iter().map(String::as_str).collect::<Vec<_>>(), "no")
    };
    // The first request shows that the destination is alive.
    crm.sql("delete from customers where id > 0");
    crm.insert(121..=130);
    crm.run_sends([10, 0, 0]);
    crm.insert(1..=120);
    crm.receiver.behave(refuses);
    let mut rounds = 0;
    // Run after run, until every row was refused once.
    while crm.project.rejected(SYNC).len() < 120 {
        let run = crm.run();
        assert_eq!(run.successful(), [0, 0, 0], "{run:#?}");
        rounds += 1;
        assert!(rounds <= 6, "{run:#?}");
    }
    crm.insert(131..=140);
    crm.sql("update customers set name = 'x' where id = 125");
    let run = crm.run();
    assert_eq!(run.successful(), [10, 1, 0], "{run:#?}");
    assert_eq!((run.code, run.failed()), (1, [120, 0, 0]), "{run:#?}");
    assert_eq!(crm.receiver.keys().len(), 20);
    assert_eq!(crm.receiver.field("125", "name"), json!("x"));
}

fn retry_after_is_ignored(engine: Engine) {
    let crm = Crm::new(engine, 3, "mode: upsert");
    crm.destination("retries: 2\n");
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    crm.receiver.behave(move |_| match counter.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::status(429).header("retry-after", "1"),
        _ => Reply::accept(),
    });
    let began = Instant::now();
    let run = crm.run_sends([3, 0, 0]);
    assert!(began.elapsed() >= Duration::from_secs(1), "the destination asked to wait for a second");
    assert_eq!((run.number("retries"), run.number("destinationCalls")), (1, 2), "{run:#?}");
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    assert!(crm.project.rejected(SYNC).is_empty());
    crm.assert_same();
    crm.assert_quiet();
}

fn wrong_credentials_lose_rows(engine: Engine) {
    let crm = Crm::new(engine, 40, "mode: upsert");
    crm.receiver.behave(|r| if r.number == 0 { Reply::accept() } else { Reply::status(401) });
    let run = crm.run();
    assert_eq!((run.code, run.status()), (2, "failed"), "{run:#?}");
    assert_eq!(run.error(), "DESTINATION_UNUSABLE");
    assert_eq!((run.successful(), run.failed(), run.aborted()), ([10, 0, 0], [0, 0, 0], [30, 0, 0]));
    assert_eq!(crm.receiver.count(), 2, "401 is not repeated");
    assert!(!run.report["error"]["hint"].as_str().unwrap().is_empty());
    assert!(crm.project.rejected(SYNC).is_empty());
    crm.receiver.accept();
    crm.run_sends([30, 0, 0]);
    crm.assert_same();
    crm.assert_quiet();
}

fn a_dead_destination_keeps_the_run_alive(engine: Engine) {
    let mut crm = Crm::new(engine, 500, "mode: upsert");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let alive = crm.receiver.url();
    crm.project.set_variable("CRM_URL", &format!("http://{free}"));
    let run = crm.run();
    assert_eq!((run.code, run.status()), (2, "failed"), "{run:#?}");
    assert_eq!(run.error(), "DESTINATION_UNAVAILABLE");
    assert_eq!((run.aborted(), run.number("inDoubtCount")), ([500, 0, 0], 0), "nothing was ever sent");
    assert!(run.number("destinationCalls") <= 3, "{run:#?}");
    // Nothing was accepted there, but the target is another one all the same.
    crm.project.set_variable("CRM_URL", &alive);
    let run = crm.run_with(&["--full-resync"]);
    assert_eq!((run.code, run.successful()), (0, [500, 0, 0]), "{run:#?}");
    crm.assert_same();
    crm.assert_quiet();
}

fn a_misconfigured_destination_gets_every_row(engine: Engine) {
    let crm = Crm::new(engine, 200, "mode: upsert");
    crm.receiver.behave(|_| Reply::status(400).saying("unknown field `name`"));
    let run = crm.run();
    assert_eq!((run.code, run.status()), (2, "failed"), "{run:#?}");
    assert_eq!((run.failed(), run.aborted()), ([10, 0, 0], [190, 0, 0]));
    assert!(run.number("destinationCalls") <= 20, "{run:#?}");
    assert_eq!(run.error(), "DESTINATION_REFUSED", "it is well, and says no: {run:#?}");
    assert!(run.message().contains("unknown field"), "{run:#?}");
    assert!(texts(&crm.project.rejected(SYNC), "reason")[0].contains("unknown field"));
    crm.receiver.accept();
    crm.run_sends([200, 0, 0]);
    assert!(crm.project.rejected(SYNC).is_empty());
    crm.assert_same();
    crm.assert_quiet();
}

fn a_key_set_aside_disarms_the_stop_rules(engine: Engine) {
    let crm = Crm::new(engine, 10, "mode: upsert\nguards: {max_set_aside: {percent: 100}}");
    crm.sql("insert into customers values (null, 'nobody', 'x')");
    let run = crm.run();
    assert_eq!((run.code, run.number("nullKeyCount")), (1, 1), "{run:#?}");
    assert_eq!(crm.project.rejected(SYNC).len(), 1);
    crm.insert(11..=210);
    crm.receiver.behave(|_| Reply::status(422).saying("unknown field `name`"));
    let before = crm.receiver.count();
    let run = crm.run();
    assert_eq!((run.code, run.status()), (2, "failed"), "{run:#?}");
    assert_eq!((run.failed(), run.aborted()), ([10, 0, 0], [190, 0, 0]), "the first batch says it all");
    assert!(crm.receiver.count() - before <= 20, "{run:#?}");
    assert_eq!(run.error(), "DESTINATION_REFUSED", "{run:#?}");
    crm.receiver.accept();
    let run = crm.run();
    assert_eq!((run.code, run.successful()), (1, [200, 0, 0]), "{run:#?}");
}
