//! Keys that occur twice, or not at all.

use serde_json::json;
use tests::project::Engine;
use tests::receiver::Reply;

use super::{Crm, SYNC, on_both_warehouses, request, sent};

on_both_warehouses!(
    a_duplicate_key_overwrites_or_removes_a_row,
    a_null_key_stops_the_others,
    a_duplicate_of_what_was_accepted_is_taken_for_unchanged,
    keys_of_several_columns_are_confused,
    a_duplicate_key_passes_although_it_must_not,
    a_broken_model_sets_nearly_everything_aside,
);
tests::on_mariadb_too!(a_duplicate_key_overwrites_or_removes_a_row, a_null_key_stops_the_others,);

const GENEROUS: &str = "mode: mirror\nguards: {max_set_aside: {percent: 90}}";

fn a_duplicate_key_overwrites_or_removes_a_row(engine: Engine) {
    let crm = Crm::new(engine, 6, GENEROUS);
    crm.run_sends([6, 0, 0]);
    crm.sql("insert into customers values (2, 'other', 'x'), (7, 'a', 'a'), (7, 'b', 'b')");
    crm.sql("update customers set name = 'x' where id = 3");
    let before = crm.receiver.count();
    let run = crm.run();
    assert_eq!((run.code, run.status()), (1, "warning"), "{run:#?}");
    assert_eq!((run.planned(), run.successful()), ([0, 1, 0], [0, 1, 0]));
    assert_eq!((run.number("duplicateKeyCount"), run.number("unchangedCount")), (4, 4));
    assert_eq!(sent(&crm.receiver.since(before)), [request("changed", &["3"])]);
    assert_eq!(crm.receiver.field("2", "name"), json!("name 2"));
    let rejected = crm.project.rejected(SYNC);
    let told: Vec<_> =
        rejected.iter().map(|r| (r["key"].clone(), r["code"].clone(), r["rows"].clone())).collect();
    let expected = ["2", "7"].map(|key| (json!(key), json!("DUPLICATE_PRIMARY_KEY"), json!(2)));
    assert_eq!(told, expected);

    // Again: still set aside, still not removed.
    let run = crm.run();
    assert_eq!((run.code, run.planned(), run.number("destinationCalls")), (1, [0, 0, 0], 0), "{run:#?}");
    assert_eq!(crm.project.snapshots().len(), 6);

    // Repaired: one differs from what was accepted, one is new.
    crm.sql("delete from customers where name in ('name 2', 'a')");
    let run = crm.run_sends([1, 1, 0]);
    assert_eq!(run.number("duplicateKeyCount"), 0);
    assert_eq!(crm.receiver.field("2", "name"), json!("other"));
    assert!(crm.project.rejected(SYNC).is_empty());
    crm.assert_same();
    crm.assert_quiet();
}

fn a_null_key_stops_the_others(engine: Engine) {
    let crm = Crm::new(engine, 9, GENEROUS);
    crm.sql("insert into customers values (null, 'nobody', 'x'), (null, 'nobody', 'x')");
    let run = crm.run();
    assert_eq!((run.code, run.successful()), (1, [9, 0, 0]), "{run:#?}");
    assert_eq!((run.number("nullKeyCount"), run.number("duplicateKeyCount")), (2, 0));
    let rejected = crm.project.rejected(SYNC);
    assert!(
        !rejected.is_empty() && rejected.iter().all(|r| r["code"] == "NULL_PRIMARY_KEY"),
        "{rejected:#?}"
    );
    let run = crm.run();
    assert_eq!((run.code, run.planned(), run.number("unchangedCount")), (1, [0, 0, 0], 9), "{run:#?}");
    crm.sql("update customers set id = 10 where id is null and email = 'x'");
    let run = crm.run();
    assert_eq!((run.number("nullKeyCount"), run.number("duplicateKeyCount")), (0, 2), "{run:#?}");
    crm.sql("delete from customers where id = 10");
    crm.assert_quiet();
    assert!(crm.project.rejected(SYNC).is_empty());
    crm.assert_same();
}

fn a_duplicate_of_what_was_accepted_is_taken_for_unchanged(engine: Engine) {
    let crm = Crm::new(engine, 6, GENEROUS);
    crm.run_sends([6, 0, 0]);
    // The very same row twice.
    crm.insert(4..=4);
    let run = crm.run();
    assert_eq!((run.code, run.planned()), (1, [0, 0, 0]), "{run:#?}");
    assert_eq!((run.number("duplicateKeyCount"), run.number("unchangedCount")), (2, 5));
    // A row less and a row twice: the number of rows alone would not tell.
    crm.sql("delete from customers where id = 6");
    let run = crm.run();
    assert_eq!((run.planned(), run.number("duplicateKeyCount")), ([0, 0, 1], 2), "{run:#?}");
    assert_eq!(crm.receiver.keys(), ["1", "2", "3", "4", "5"]);
    crm.sql("delete from customers where id = 4");
    crm.insert(4..=4);
    crm.assert_quiet();
    crm.assert_same();
}

fn keys_of_several_columns_are_confused(engine: Engine) {
    let crm = Crm::new(engine, 0, GENEROUS);
    crm.sql(
        "create table parts (a text, b text, v integer);
         insert into parts values ('x', 'y,z', 1), ('x,y', 'z', 2), ('x|y', 'z', 3), ('x', 'y|z', 4), ('', 'q', 5), \
         ('q', '', 6), ('d', 'd', 7), ('d', 'd', 8), (null, 'n', 9), ('n', null, 10), ('\"', '\\', 11)",
    );
    crm.model("[a, b]", "select a, b, v from parts");
    let run = crm.run();
    assert_eq!((run.code, run.successful()), (1, [7, 0, 0]), "{run:#?}");
    assert_eq!((run.number("duplicateKeyCount"), run.number("nullKeyCount")), (2, 2));
    assert!(crm.receiver.keys().contains(&"[\"x\",\"y,z\"]".to_owned()), "{:?}", crm.receiver.keys());
    assert_eq!(crm.receiver.keys().len(), 7, "no two keys have one text");
    // A receiver names a key as it was told it.
    crm.sql("update parts set v = 30 where v in (3, 4)");
    crm.receiver.behave(|_| Reply::reject(&["[\"x|y\",\"z\"]"], "no"));
    let run = crm.run();
    assert_eq!((run.successful(), run.failed()), ([0, 1, 0], [0, 1, 0]), "{run:#?}");
    let rejected = crm.project.rejected(SYNC);
    assert!(
        rejected.iter().any(|r| r["code"] == "REFUSED" && r["key"] == "[\"x|y\",\"z\"]"),
        "{rejected:#?}"
    );
    crm.receiver.accept();
    assert_eq!(crm.run().successful(), [0, 1, 0]);
    crm.sql("delete from parts where v in (1, 8, 9, 10); update parts set v = 20 where v = 2");
    let before = crm.receiver.count();
    let run = crm.run();
    assert_eq!((run.code, run.successful()), (0, [1, 1, 1]), "{run:#?}");
    let removed = crm.receiver.since(before).into_iter().find(|r| r.operation() == "removed").unwrap();
    assert_eq!(removed.keys(), ["[\"x\",\"y,z\"]"]);
    assert_eq!(crm.receiver.field("[\"x,y\",\"z\"]", "v"), json!(20));
    assert_eq!(crm.receiver.keys().len(), 7);
    crm.assert_quiet();
}

fn a_duplicate_key_passes_although_it_must_not(engine: Engine) {
    let crm = Crm::new(engine, 6, "mode: upsert\non_duplicate_key: fail");
    crm.run_sends([6, 0, 0]);
    crm.insert(7..=7);
    crm.insert(7..=8);
    let before = crm.receiver.count();
    let run = crm.run();
    assert_eq!((run.code, run.status(), run.error()), (2, "failed", "DUPLICATE_PRIMARY_KEY"), "{run:#?}");
    assert_eq!(crm.receiver.count(), before);
    crm.sql("delete from customers where id = 7");
    crm.run_sends([1, 0, 0]);
    crm.assert_same();
    crm.assert_quiet();
}

fn a_broken_model_sets_nearly_everything_aside(engine: Engine) {
    // Without a word of it in the sync's file: more than 10 % is too much.
    let crm = Crm::new(engine, 20, "mode: upsert");
    crm.sql("insert into customers values (null, 'a', 'b'), (null, 'a', 'b')");
    crm.run();
    assert_eq!(crm.receiver.keys().len(), 20, "2 of 22 pass");
    crm.sql("insert into customers values (null, 'c', 'd')");
    crm.insert(21..=21);
    let before = crm.receiver.count();
    let run = crm.run();
    assert_eq!((run.code, run.error()), (3, "GUARD_TRIPPED"), "{run:#?}");
    assert!(run.message().contains("max_set_aside"), "{run:#?}");
    assert_eq!(crm.receiver.count(), before);
    crm.sql("delete from customers where id is null");
    crm.run_sends([1, 0, 0]);
    crm.assert_same();
    crm.assert_quiet();
}
