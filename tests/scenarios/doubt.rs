//! Sent, and no answer: the destination may have applied the row or not, and levin must end right
//! either way.

use std::collections::BTreeSet;

use serde_json::json;
use tests::project::Engine;
use tests::receiver::Reply;

use super::{Crm, on_both_warehouses, request, row, sent};

on_both_warehouses!(
    a_lost_answer_leaves_the_old_value_behind,
    a_lost_answer_leaves_a_row_that_the_model_no_longer_has,
    a_lost_removal_leaves_the_row_behind,
    a_lost_removal_of_a_row_that_returns_is_forgotten_by_insert,
    a_request_that_never_was_applied_is_forgotten,
    a_repeat_cannot_be_recognised,
    a_retry_within_a_run_looks_like_another_request,
);

pub fn a_lost_answer_leaves_the_old_value_behind(engine: Engine) {
    let crm = Crm::new(engine, 5, "mode: upsert");
    crm.sql("update customers set name = 'A' where id = 3");
    crm.run_sends([5, 0, 0]);
    crm.sql("update customers set name = 'B' where id = 3");
    crm.receiver.behave(|_| Reply::applied_but_cut());
    let run = crm.run();
    assert_eq!((run.code, run.status()), (2, "failed"), "{run:#?}");
    assert_eq!((run.failed(), run.number("inDoubtCount")), ([0, 1, 0], 1));
    assert_eq!(crm.receiver.field("3", "name"), json!("B"));

    // The model is what the snapshot says; the destination is not.
    crm.sql("update customers set name = 'A' where id = 3");
    crm.receiver.accept();
    let before = crm.receiver.count();
    let run = crm.run_sends([0, 1, 0]);
    assert_eq!(run.number("unchangedCount"), 4);
    let requests = crm.receiver.since(before);
    assert_eq!(sent(&requests), [request("changed", &["3"])]);
    assert_eq!(row(&requests[0], "3")["fields"]["name"], "A");
    assert_eq!(crm.receiver.field("3", "name"), json!("A"));
    crm.assert_same();
    crm.assert_quiet();
}

fn a_lost_answer_leaves_a_row_that_the_model_no_longer_has(engine: Engine) {
    let crm = Crm::new(engine, 3, "mode: mirror");
    crm.run_sends([3, 0, 0]);
    crm.insert(4..=4);
    crm.receiver.behave(|_| Reply::applied_but_cut());
    let run = crm.run();
    assert_eq!((run.failed(), run.number("inDoubtCount")), ([1, 0, 0], 1), "{run:#?}");
    assert_eq!(crm.receiver.keys(), ["1", "2", "3", "4"]);

    crm.sql("delete from customers where id = 4");
    crm.receiver.accept();
    let before = crm.receiver.count();
    crm.run_sends([0, 0, 1]);
    assert_eq!(sent(&crm.receiver.since(before)), [request("removed", &["4"])]);
    assert_eq!(crm.receiver.keys(), ["1", "2", "3"]);
    crm.assert_same();
    crm.assert_quiet();
}

fn a_lost_removal_leaves_the_row_behind(engine: Engine) {
    let crm = Crm::new(engine, 4, "mode: mirror");
    crm.run_sends([4, 0, 0]);
    crm.sql("delete from customers where id in (2, 3)");
    crm.receiver.behave(|_| Reply::applied_but_cut());
    let run = crm.run();
    assert_eq!((run.failed(), run.number("inDoubtCount")), ([0, 0, 2], 2), "{run:#?}");
    assert_eq!(crm.receiver.keys(), ["1", "4"]);

    // One comes back with the values that were accepted before, the other stays away.
    crm.insert(2..=2);
    crm.receiver.accept();
    let run = crm.run();
    assert_eq!((run.code, run.status()), (0, "success"), "{run:#?}");
    let sum: u64 = run.successful().iter().sum();
    assert_eq!((sum, run.successful()[2]), (2, 1), "{run:#?}");
    assert_eq!(crm.receiver.keys(), ["1", "2", "4"]);
    crm.assert_same();
    crm.assert_quiet();
}

fn a_request_that_never_was_applied_is_forgotten(engine: Engine) {
    let crm = Crm::new(engine, 3, "mode: mirror");
    crm.run_sends([3, 0, 0]);
    crm.insert(4..=5);
    crm.sql("update customers set name = 'x' where id = 1; delete from customers where id = 2");
    crm.receiver.behave(|_| Reply::cut());
    let run = crm.run();
    assert_eq!(run.code, 2, "{run:#?}");
    assert_eq!(run.planned(), [2, 1, 1]);
    assert_eq!(run.successful(), [0, 0, 0]);
    assert!(run.number("inDoubtCount") >= 1);
    crm.receiver.accept();
    crm.run_sends([2, 1, 1]);
    crm.assert_same();
    crm.assert_quiet();
}

fn a_repeat_cannot_be_recognised(engine: Engine) {
    let crm = Crm::new(engine, 2, "mode: upsert");
    crm.sql("update customers set name = 'A' where id = 1");
    crm.run_sends([2, 0, 0]);
    let version = |number: usize| row(&crm.receiver.requests()[number], "1")["version"].clone();

    // Applied, answer lost: the repeat of the same delivery is recognisable.
    crm.sql("update customers set name = 'B' where id = 1");
    crm.receiver.behave(|_| Reply::applied_but_cut());
    crm.run();
    crm.run();
    crm.receiver.accept();
    crm.run_sends([0, 1, 0]);
    assert_eq!(crm.receiver.count(), 4);
    assert_eq!(version(1), version(2), "a repeat carries the same version");
    assert_eq!(version(1), version(3));
    assert_ne!(version(0), version(1));

    // A → B → A: three deliveries, three versions.
    crm.sql("update customers set name = 'A' where id = 1");
    crm.run_sends([0, 1, 0]);
    crm.sql("update customers set name = 'B' where id = 1");
    crm.run_sends([0, 1, 0]);
    let versions: BTreeSet<String> = [0, 1, 4, 5].map(|n| version(n).to_string()).into();
    assert_eq!(versions.len(), 4, "{versions:?}");

    // In doubt with other values is another delivery.
    crm.sql("update customers set name = 'C' where id = 1");
    crm.receiver.behave(|_| Reply::applied_but_cut());
    crm.run();
    crm.sql("update customers set name = 'D' where id = 1");
    crm.run();
    assert_ne!(version(6), version(7));
    crm.receiver.accept();
    crm.run_sends([0, 1, 0]);
    assert_eq!(version(7), version(8));

    let generations: Vec<i64> = crm.receiver.requests().iter().map(|r| r.generation()).collect();
    assert!(generations.is_sorted_by(|a, b| a < b), "{generations:?}");
    assert_eq!(crm.receiver.field("1", "name"), json!("D"));
    crm.assert_quiet();
}

fn a_retry_within_a_run_looks_like_another_request(engine: Engine) {
    let crm = Crm::new(engine, 3, "mode: upsert");
    crm.destination("retries: 3\n");
    crm.receiver.behave(|request| match request.number {
        0 => Reply::applied_but_cut(),
        1 => Reply::status(503).header("retry-after", "0"),
        _ => Reply::accept(),
    });
    let run = crm.run_sends([3, 0, 0]);
    assert_eq!((run.number("retries"), run.number("destinationCalls")), (2, 3));
    let requests = crm.receiver.requests();
    let keys: BTreeSet<&String> = requests.iter().map(|r| &r.headers["idempotency-key"]).collect();
    assert_eq!(keys.len(), 1, "{keys:?}");
    let bodies: BTreeSet<&String> = requests.iter().map(|r| &r.text).collect();
    assert_eq!(bodies.len(), 1, "a retry is the same request");
    crm.sql("update customers set name = 'x' where id = 1");
    crm.run_sends([0, 1, 0]);
    let requests = crm.receiver.requests();
    assert_ne!(requests[3].headers["idempotency-key"], requests[2].headers["idempotency-key"]);
    crm.assert_same();
    crm.assert_quiet();
}

fn a_lost_removal_of_a_row_that_returns_is_forgotten_by_insert(engine: Engine) {
    let crm = Crm::new(engine, 4, "mode: insert\non_removed: delete");
    crm.run_sends([4, 0, 0]);
    crm.sql("delete from customers where id in (2, 3)");
    crm.receiver.behave(|_| Reply::applied_but_cut());
    let run = crm.run();
    assert_eq!((run.failed(), run.number("inDoubtCount")), ([0, 0, 2], 2), "{run:#?}");
    assert_eq!(crm.receiver.keys(), ["1", "4"]);
    // Both come back; the destination may have lost either, and this mode sends nothing but additions.
    crm.insert(2..=3);
    let (code, plan) = crm.project.plan(super::SYNC, &[]);
    assert_eq!((code, &plan["plannedRows"]["addedCount"]), (0, &json!(2)), "{plan:#}");
    // The first answer is lost again: the second doubt is about an addition.
    let run = crm.run();
    assert_eq!((run.failed(), run.number("inDoubtCount")), ([2, 0, 0], 2), "{run:#?}");
    let versions: Vec<_> = crm.receiver.requests().iter().map(|r| row(r, "2")["version"].clone()).collect();
    assert_ne!(versions[1], versions[2], "another operation is another delivery");
    crm.receiver.accept();
    let before = crm.receiver.count();
    crm.run_sends([2, 0, 0]);
    let requests = crm.receiver.since(before);
    assert_eq!(sent(&requests), [request("added", &["2", "3"])]);
    assert_eq!(row(&requests[0], "2")["version"], versions[2], "the repeat of a delivery is recognisable");
    crm.assert_same();
    crm.assert_quiet();
}
