//! What a run sends: what changed since the destination last accepted it, and nothing else.

use serde_json::json;
use tests::project::Engine;

use super::{Crm, on_both_warehouses, request, row, sent};

on_both_warehouses!(
    unchanged_rows_are_sent_again,
    an_edit_sends_more_than_its_row,
    a_removal_is_not_sent_or_sent_twice,
    a_removal_that_is_not_wanted_is_sent_or_counted_for_ever,
    nulls_and_empty_texts_are_taken_for_the_same,
    a_row_that_comes_back_is_taken_for_known,
);
tests::on_mariadb_too!(
    unchanged_rows_are_sent_again,
    an_edit_sends_more_than_its_row,
    a_removal_is_not_sent_or_sent_twice,
    a_removal_that_is_not_wanted_is_sent_or_counted_for_ever,
    nulls_and_empty_texts_are_taken_for_the_same,
    a_row_that_comes_back_is_taken_for_known,
);

fn unchanged_rows_are_sent_again(engine: Engine) {
    let crm = Crm::new(engine, 25, "mode: upsert");
    let run = crm.run_sends([25, 0, 0]);
    assert_eq!(run.number("querySize"), 25);
    assert_eq!(run.number("destinationCalls"), 3);
    assert_eq!(run.number("unchangedCount"), 0);
    let sizes: Vec<usize> = crm.receiver.requests().iter().map(|r| r.rows().len()).collect();
    assert_eq!(sizes, [10, 10, 5]);
    let first = &crm.receiver.requests()[0];
    assert_eq!((first.method.as_str(), first.path.as_str(), first.operation()), ("POST", "/rows", "added"));
    assert_eq!(first.body["sync"], "customers-to-crm");
    assert_eq!(first.body["run"], run.report["id"]);
    let one = row(first, "1");
    assert_eq!(one["fields"], json!({"id": 1, "name": "name 1", "email": "1@example.com"}));
    assert_eq!(one.get("changed"), None, "added rows list no changed columns");
    crm.assert_same();
    crm.assert_quiet();
    crm.assert_quiet();
    crm.assert_same();
}

fn an_edit_sends_more_than_its_row(engine: Engine) {
    let crm = Crm::new(engine, 25, "mode: upsert");
    crm.run_sends([25, 0, 0]);
    crm.sql("update customers set email = 'new@example.com' where id = 7");
    let run = crm.run_sends([0, 1, 0]);
    assert_eq!(run.number("unchangedCount"), 24);
    assert_eq!(run.number("destinationCalls"), 1);
    let requests = crm.receiver.since(3);
    assert_eq!(sent(&requests), [request("changed", &["7"])]);
    let seven = row(&requests[0], "7");
    assert_eq!(seven["changed"], json!(["email"]));
    assert_eq!(seven["fields"], json!({"id": 7, "name": "name 7", "email": "new@example.com"}));
    crm.assert_quiet();

    crm.insert(26..=26);
    crm.sql("update customers set name = 'x', email = 'y' where id = 8");
    crm.run_sends([1, 1, 0]);
    let requests = crm.receiver.since(4);
    let mut told = sent(&requests);
    told.sort();
    assert_eq!(told, [request("added", &["26"]), request("changed", &["8"])]);
    let changed = requests.iter().find(|r| r.operation() == "changed").unwrap();
    assert_eq!(row(changed, "8")["changed"], json!(["name", "email"]));
    crm.assert_same();
    crm.assert_quiet();
}

fn a_removal_is_not_sent_or_sent_twice(engine: Engine) {
    for sync in ["mode: mirror", "mode: upsert\non_removed: delete"] {
        let crm = Crm::new(engine, 12, sync);
        crm.run_sends([12, 0, 0]);
        crm.sql("update customers set name = 'last' where id = 5");
        crm.run_sends([0, 1, 0]);
        crm.sql("delete from customers where id in (5, 6)");
        let before = crm.receiver.count();
        crm.run_sends([0, 0, 2]);
        let requests = crm.receiver.since(before);
        assert_eq!(sent(&requests), [request("removed", &["5", "6"])]);
        assert_eq!(row(&requests[0], "5")["fields"]["name"], "last", "the last accepted values travel");
        assert_eq!(crm.receiver.keys().len(), 10);
        crm.assert_same();
        crm.assert_quiet();
    }
}

fn a_removal_that_is_not_wanted_is_sent_or_counted_for_ever(engine: Engine) {
    let crm = Crm::new(engine, 12, "mode: upsert\non_removed: nothing");
    crm.run_sends([12, 0, 0]);
    crm.sql("delete from customers where id in (5, 6)");
    let before = crm.receiver.count();
    let run = crm.run_sends([0, 0, 0]);
    assert_eq!(run.not_sent(), [0, 0, 2]);
    assert_eq!(crm.receiver.count(), before);
    assert_eq!(crm.project.snapshots().len(), 10);
    let run = crm.run_sends([0, 0, 0]);
    assert_eq!(run.not_sent(), [0, 0, 0], "a removal is counted once");
    assert_eq!(crm.receiver.keys().len(), 12, "the destination keeps what nobody removed");
    crm.assert_quiet();
    // It left the snapshot, so the key is new when it returns.
    crm.insert(5..=5);
    crm.run_sends([1, 0, 0]);
    assert_eq!(sent(&crm.receiver.since(before)), [request("added", &["5"])]);
    crm.assert_quiet();
}

fn nulls_and_empty_texts_are_taken_for_the_same(engine: Engine) {
    let crm = Crm::new(engine, 3, "mode: upsert");
    crm.sql("update customers set email = null where id = 2");
    crm.run_sends([3, 0, 0]);
    assert_eq!(crm.receiver.field("2", "email"), json!(null));
    assert!(crm.receiver.rows()["2"].as_object().unwrap().contains_key("email"), "null is not absent");
    crm.sql("update customers set email = '' where id = 2");
    crm.run_sends([0, 1, 0]);
    assert_eq!(crm.receiver.field("2", "email"), json!(""));
    crm.sql("update customers set email = null where id = 2");
    crm.run_sends([0, 1, 0]);
    assert_eq!(crm.receiver.field("2", "email"), json!(null));
    assert_eq!(row(&crm.receiver.requests()[2], "2")["changed"], json!(["email"]));
    crm.assert_quiet();
}

fn a_row_that_comes_back_is_taken_for_known(engine: Engine) {
    let crm = Crm::new(engine, 3, "mode: mirror");
    crm.run_sends([3, 0, 0]);
    crm.sql("delete from customers where id = 2");
    crm.run_sends([0, 0, 1]);
    assert_eq!(crm.receiver.keys(), ["1", "3"]);
    crm.insert(2..=2);
    crm.run_sends([1, 0, 0]);
    assert_eq!(crm.receiver.keys(), ["1", "2", "3"]);
    crm.assert_same();
    crm.assert_quiet();
}
