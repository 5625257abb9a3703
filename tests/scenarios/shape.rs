//! Models, mappings and keys that change between two runs: what is sent again, and what is not.

use serde_json::json;
use tests::project::Engine;
use tests::receiver::Reply;

use super::{Crm, SYNC, on_both_warehouses, row};

on_both_warehouses!(
    another_key_is_compared_with_the_old_one,
    the_type_of_a_key_sends_everything_again,
    keys_that_fall_together_overwrite_each_other,
    keys_in_another_order_stop_the_sync,
    a_wider_column_sends_everything_again,
    a_value_with_another_form_on_the_wire_is_not_sent,
    a_value_that_no_mode_sends_is_owed_for_ever,
    a_new_column_sends_everything_again,
    a_new_column_that_is_only_kept_is_sent_or_forgotten,
    a_dropped_column_sends_everything_again,
    another_template_sends_everything_again,
    a_missing_column_empties_the_field,
    a_failing_model_costs_what_was_known,
    a_renamed_sync_sends_everything_again,
    another_mode_is_taken_for_the_same_snapshot,
);
tests::on_mariadb_too!(
    another_key_is_compared_with_the_old_one,
    the_type_of_a_key_sends_everything_again,
    keys_that_fall_together_overwrite_each_other,
    a_wider_column_sends_everything_again,
    a_value_with_another_form_on_the_wire_is_not_sent,
    a_new_column_sends_everything_again,
    a_dropped_column_sends_everything_again,
    a_failing_model_costs_what_was_known,
    another_mode_is_taken_for_the_same_snapshot,
);

fn another_key_is_compared_with_the_old_one(engine: Engine) {
    let crm = Crm::new(engine, 12, "mode: mirror");
    crm.run_sends([12, 0, 0]);
    crm.model("email", "select id, name, email from customers");
    let run = crm.run();
    assert_eq!((run.code, run.error()), (2, "KEY_CHANGED"), "{run:#?}");
    assert!(run.message().contains("id") && run.message().contains("email"), "{run:#?}");
    assert_eq!(crm.receiver.count(), 2);
    // The old key works as before.
    crm.model("id", "select id, name, email from customers");
    crm.assert_quiet();
    crm.model("email", "select id, name, email from customers");
    let run = crm.run_with(&["--full-resync"]);
    assert_eq!((run.code, run.successful()), (0, [12, 0, 0]), "{run:#?}");
    assert!(crm.receiver.requests()[2].has("1@example.com"));
    crm.assert_quiet();
}

fn the_type_of_a_key_sends_everything_again(engine: Engine) {
    let crm = Crm::new(engine, 12, "mode: mirror\nguards: {max_set_aside: {percent: 90}}");
    crm.run_sends([12, 0, 0]);
    for cast in ["cast(id as text)", "cast(id as bigint)", "cast(id as varchar)", "id"] {
        crm.model("id", &format!("select {cast} as id, name, email from customers"));
        let (code, plan) = crm.project.plan(SYNC, &[]);
        assert_eq!((code, &plan["plannedRows"]["changedCount"]), (0, &json!(0)), "{cast}: {plan:#}");
        let before = crm.receiver.count();
        let run = crm.run_sends([0, 0, 0]);
        assert_eq!((run.number("unchangedCount"), crm.receiver.count()), (12, before), "{cast}");
        crm.assert_quiet();
    }
    // What is in doubt, rejected or gone is still known by its key.
    crm.model("id", "select cast(id as text) as id, name, email from customers");
    crm.sql("delete from customers where id = 1; update customers set name = 'x' where id = 2");
    crm.run_sends([0, 1, 1]);
    assert_eq!(crm.receiver.keys().len(), 11);
    crm.assert_quiet();
}

fn keys_that_fall_together_overwrite_each_other(engine: Engine) {
    let crm = Crm::new(engine, 0, "mode: mirror\nguards: {max_set_aside: {percent: 90}}");
    crm.sql(
        "create table codes (code text, v integer); insert into codes values ('01', 1), ('1', 2), ('2', 3)",
    );
    crm.model("code", "select code, v from codes");
    crm.run_sends([3, 0, 0]);
    let snapshots = crm.project.snapshots();
    crm.model("code", "select cast(code as integer) as code, v from codes");
    let run = crm.run();
    assert_eq!((run.code, run.error()), (2, "KEY_TYPE_NOT_ONE_TO_ONE"), "{run:#?}");
    assert_eq!((crm.receiver.count(), crm.project.snapshots()), (1, snapshots.clone()));
    // Keys that are no numbers at all are no better.
    crm.sql("update codes set code = 'x' where code = '01'");
    crm.model("code", "select code, v from codes");
    crm.run_sends([1, 0, 1]);
    crm.model("code", "select v as code, v from codes");
    let run = crm.run();
    assert_eq!((run.code, run.error()), (2, "KEY_TYPE_NOT_ONE_TO_ONE"), "{run:#?}");
    crm.model("code", "select code, v from codes");
    crm.assert_quiet();
    assert_eq!(crm.receiver.keys(), ["1", "2", "x"]);
    // Who starts over may have them.
    crm.model("code", "select v as code, v from codes");
    let (code, plan) = crm.project.plan(SYNC, &["--full-resync"]);
    assert_eq!(code, 0, "{plan:#}");
    let run = crm.run_with(&["--full-resync"]);
    assert_eq!((run.code, run.successful()), (0, [3, 0, 0]), "{run:#?}");
    crm.assert_quiet();
}

fn a_wider_column_sends_everything_again(engine: Engine) {
    let crm = Crm::new(engine, 12, "mode: upsert");
    crm.model("id", "select id, name, id * 10 as v from customers");
    crm.run_sends([12, 0, 0]);
    crm.model("id", "select id, cast(name as varchar) as name, cast(id * 10 as bigint) as v from customers");
    crm.run_sends([0, 0, 0]);
    crm.assert_quiet();
    crm.model(
        "id",
        "select id, name, cast(id * 10 as bigint) + case when id = 3 then 1 else 0 end as v from customers",
    );
    crm.run_sends([0, 1, 0]);
    assert_eq!(crm.receiver.field("3", "v"), json!(31));
    crm.assert_quiet();
}

fn a_value_with_another_form_on_the_wire_is_not_sent(engine: Engine) {
    let crm = Crm::new(engine, 5, "mode: upsert");
    crm.model("id", "select id, case when id = 5 then null else cast(id as text) end as v from customers");
    crm.run_sends([5, 0, 0]);
    assert_eq!(crm.receiver.field("3", "v"), json!("3"));
    crm.model("id", "select id, case when id = 5 then null else id end as v from customers");
    let (_, plan) = crm.project.plan(SYNC, &[]);
    assert!(plan["reason"].as_str().unwrap().contains("column_type:v"), "{plan:#}");
    let run = crm.run();
    assert_eq!((run.code, run.status()), (0, "success"), "{run:#?}");
    assert_eq!(run.successful()[1], 4, "a null has one form only: {run:#?}");
    assert_eq!(crm.receiver.field("3", "v"), json!(3));
    assert_eq!(crm.receiver.field("5", "v"), json!(null));
    crm.assert_quiet();
}

/// Where only keys are compared, another form of a value is nothing to wait for.
fn a_value_that_no_mode_sends_is_owed_for_ever(engine: Engine) {
    let crm = Crm::new(engine, 3, "mode: insert");
    crm.model("id", "select id, name, id as v from customers");
    crm.run_sends([3, 0, 0]);
    crm.model("id", "select id, name, cast(id as text) as v from customers");
    let run = crm.run_sends([0, 0, 0]);
    assert_eq!((run.not_sent(), run.number("unchangedCount")), ([0, 0, 0], 3), "{run:#?}");
    crm.assert_quiet();
}

pub fn a_new_column_sends_everything_again(engine: Engine) {
    let crm = Crm::new(engine, 12, "mode: upsert");
    crm.run_sends([12, 0, 0]);
    crm.model(
        "id",
        "select id, name, email, case when id <= 3 then 'Berlin' when id = 4 then '' end as city from customers",
    );
    let (_, plan) = crm.project.plan(SYNC, &[]);
    assert!(plan["reason"].as_str().unwrap().contains("new_column:city"), "{plan:#}");
    assert_eq!(plan["changedColumns"], json!({"city": 4}), "{plan:#}");
    let before = crm.receiver.count();
    let run = crm.run_sends([0, 4, 0]);
    assert_eq!(run.number("unchangedCount"), 8);
    let first = &crm.receiver.requests()[before];
    assert_eq!(row(first, "1")["changed"], json!(["city"]));
    assert_eq!(crm.receiver.field("1", "city"), json!("Berlin"));
    assert_eq!(crm.receiver.field("4", "city"), json!(""));
    crm.assert_quiet();
}

fn a_new_column_that_is_only_kept_is_sent_or_forgotten(engine: Engine) {
    let keep = "mode: mirror\non_new_column: keep\nguards: {max_set_aside: {percent: 90}}";
    let crm = Crm::new(engine, 20, keep);
    crm.model("id", "select id, name from customers");
    crm.run_sends([20, 0, 0]);
    crm.sql(
        "update customers set email = null where id = 1; update customers set name = 'x' where id = 2; \
         delete from customers where id = 20; insert into customers values (21, 'new', 'new'), (5, 'twice', 'twice')",
    );
    crm.model("id", "select id, name, email from customers");
    let snapshots = crm.project.snapshots();
    let (code, plan) = crm.project.plan(SYNC, &[]);
    assert_eq!((code, &plan["reason"]), (0, &json!("new_column:email")), "{plan:#}");
    assert_eq!(plan["keptColumns"], json!(["email"]), "{plan:#}");
    // Nineteen are there, one of them without a value and one with two.
    assert_eq!(plan["keptCount"], json!(17), "{plan:#}");
    assert_eq!(plan["plannedRows"], json!({"addedCount": 1, "changedCount": 1, "removedCount": 1}));
    assert_eq!(crm.project.snapshots(), snapshots, "a plan changes nothing");
    let before = crm.receiver.count();
    let run = crm.run();
    assert_eq!((run.code, run.successful(), run.number("duplicateKeyCount")), (1, [1, 1, 1], 2), "{run:#?}");
    // What goes for another reason has the new field with it.
    let changed = crm.receiver.since(before).into_iter().find(|r| r.operation() == "changed").unwrap();
    assert_eq!(row(&changed, "2")["fields"]["email"], "2@example.com");
    assert_eq!(row(&changed, "2")["changed"], json!(["name"]));
    // From here on it is a column like any other; null is a value.
    crm.sql(
        "update customers set email = 'y' where id in (1, 3); update customers set email = null where id = 4",
    );
    let run = crm.run();
    assert_eq!((run.planned(), run.successful()), ([0, 3, 0], [0, 3, 0]), "{run:#?}");
    // A key that was set aside: nobody knows which value was meant, so the one that stays is sent.
    crm.sql("delete from customers where name = 'twice'");
    assert_eq!(crm.run_sends([0, 1, 0]).number("duplicateKeyCount"), 0);
    crm.assert_quiet();
    // A model that gives other rows each time is read once.
    crm.model("id", "select id, name, email, cast(random() as text) as dice from customers");
    let (_, plan) = crm.project.plan(SYNC, &[]);
    assert_eq!(
        plan["plannedRows"],
        json!({"addedCount": 0, "changedCount": 0, "removedCount": 0}),
        "{plan:#}"
    );
    crm.run_sends([0, 0, 0]);
    crm.run_sends([0, 20, 0]);
}

fn a_dropped_column_sends_everything_again(engine: Engine) {
    let crm = Crm::new(engine, 12, "mode: mirror");
    crm.run_sends([12, 0, 0]);
    crm.model("id", "select id, name from customers");
    crm.run_sends([0, 0, 0]);
    crm.assert_quiet();
    crm.sql("update customers set email = 'nobody sees' where id = 1; update customers set name = 'x' where id = 2");
    crm.run_sends([0, 1, 0]);
    assert_eq!(crm.receiver.rows()["2"], json!({"id": 2, "name": "x"}));
    // Back again, it is new: what is not null is filled in.
    crm.model("id", "select id, name, email from customers");
    crm.sql("update customers set email = null where id > 6");
    crm.run_sends([0, 6, 0]);
    assert_eq!(crm.receiver.field("1", "email"), json!("nobody sees"));
    // Columns in another order are the same columns.
    crm.model("id", "select email, name, id from customers");
    crm.run_sends([0, 0, 0]);
    crm.assert_quiet();
}

fn another_template_sends_everything_again(engine: Engine) {
    let mappings = |name: &str| {
        format!("mode: upsert\nmappings:\n  - {{from: email, to: email}}\n  - {{{name}, to: name}}\n")
    };
    let crm = Crm::new(engine, 5, &mappings("template: '{{ row.name | upper }}'"));
    crm.run_sends([5, 0, 0]);
    assert_eq!(crm.receiver.field("1", "name"), json!("NAME 1"));
    for other in ["template: 'Dear {{ row.name }}'", "from: name", "value: fixed"] {
        crm.sync(&mappings(other));
        crm.run_sends([0, 0, 0]);
        crm.assert_quiet();
    }
    crm.sync(&mappings("template: 'Dear {{ row.name }}'"));
    crm.sql("update customers set email = 'x' where id = 1");
    crm.run_sends([0, 1, 0]);
    assert_eq!(crm.receiver.rows()["1"], json!({"email": "x", "name": "Dear name 1"}));
    crm.assert_quiet();
}

fn a_failing_model_costs_what_was_known(engine: Engine) {
    let crm = Crm::new(engine, 12, "mode: mirror");
    crm.run_sends([12, 0, 0]);
    let snapshots = crm.project.snapshots();
    // Another shape, whose model fails on a row: email goes, and comes back as a number.
    crm.model("id", "select id, name, cast(email as integer) as address from customers");
    let run = crm.run();
    assert_eq!((run.code, run.error()), (2, "MODEL_FAILED"), "{run:#?}");
    assert!(run.message().contains("example.com"), "{run:#?}");
    assert_eq!(crm.project.snapshots(), snapshots);
    // Nothing was forgotten: the model as it was has nothing to send.
    crm.model("id", "select id, name, email from customers");
    crm.assert_quiet();
    crm.sql("update customers set email = 'new@example.com' where id = 3");
    crm.run_sends([0, 1, 0]);
}

fn a_missing_column_empties_the_field(engine: Engine) {
    let crm = Crm::new(
        engine,
        5,
        "mode: upsert\nmappings:\n  - {from: email, to: email}\n  - {from: name, to: name}",
    );
    crm.run_sends([5, 0, 0]);
    crm.model("id", "select id, name as nmae, email from customers");
    let before = crm.receiver.count();
    let run = crm.run();
    assert_eq!((run.code, run.error()), (2, "QUERY_COLUMN_MISSING"), "{run:#?}");
    assert!(run.message().contains("name"), "{run:#?}");
    assert_eq!(crm.receiver.count(), before);
    crm.model("id", "select id, name, email from customers");
    crm.assert_quiet();
    crm.sync("mode: upsert\nmappings:\n  - {template: '{{ row.nam }}', to: name}");
    let run = crm.run();
    assert_eq!((run.code, run.error()), (2, "QUERY_COLUMN_MISSING"), "{run:#?}");
    assert_eq!(crm.receiver.count(), before);
}

fn a_renamed_sync_sends_everything_again(engine: Engine) {
    let crm = Crm::new(engine, 5, "mode: mirror");
    crm.run_sends([5, 0, 0]);
    let file = std::fs::read_to_string(crm.project.path().join("syncs/customers-to-crm.yml")).unwrap();
    crm.project.remove("syncs/customers-to-crm.yml");
    // As long as names come.
    let long = "customers-of-the-northern-and-southern-regions-to-the-crm-of-marketing";
    assert!(long.len() > 55);
    crm.project.write(&format!("syncs/{long}.yml"), &format!("renamed_from: customers-to-crm\n{file}"));
    crm.project.assert_quiet(long, &crm.receiver);
    crm.sql("update customers set name = 'x' where id = 1; delete from customers where id = 2");
    let run = crm.project.run(long);
    assert_eq!((run.code, run.successful()), (0, [0, 1, 1]), "{run:#?}");
    assert_eq!(crm.receiver.requests().last().unwrap().body["sync"], long);
    crm.project.assert_quiet(long, &crm.receiver);
    crm.assert_same();
    // The line may stay or go.
    crm.project.write(&format!("syncs/{long}.yml"), &file);
    crm.project.assert_quiet(long, &crm.receiver);
}

fn another_mode_is_taken_for_the_same_snapshot(engine: Engine) {
    let crm = Crm::new(engine, 5, "mode: insert");
    crm.run_sends([5, 0, 0]);
    crm.sync("mode: upsert");
    let run = crm.run();
    assert_eq!((run.code, run.error(), crm.receiver.count()), (2, "MODE_CHANGED", 1), "{run:#?}");
    let run = crm.run_with(&["--reset-cdc"]);
    assert_eq!((run.code, crm.receiver.count()), (0, 1), "{run:#?}");
    crm.sql("update customers set name = 'x' where id = 1; delete from customers where id = 2");
    // Upsert and mirror mean the same by what they remember.
    crm.sync("mode: mirror");
    crm.run_sends([0, 1, 1]);
    crm.assert_same();
    crm.assert_quiet();
}

fn keys_in_another_order_stop_the_sync(engine: Engine) {
    for (first, then) in [("[name, id]", "[id, name]"), ("[name, email]", "[email, name]")] {
        let crm = Crm::new(engine, 12, "mode: mirror\nguards: {max_set_aside: {percent: 90}}");
        crm.sql("insert into customers values (5, 'name 5', '5@example.com')");
        crm.model(first, "select id, name, email from customers");
        crm.receiver.behave(|r| {
            let bad = r.rows().iter().filter(|row| row["fields"]["name"] == "name 3");
            let bad: Vec<&str> = bad.filter_map(|row| row["key"].as_str()).collect();
            Reply::reject(&bad, "no")
        });
        let run = crm.run();
        assert_eq!((run.code, run.successful(), run.failed()), (1, [10, 0, 0], [1, 0, 0]), "{run:#?}");
        assert_eq!(run.number("duplicateKeyCount"), 2);
        let keys = |rejected: &[serde_json::Value]| -> Vec<String> {
            rejected.iter().map(|r| r["key"].as_str().unwrap().to_owned()).collect()
        };
        let before = keys(&crm.project.rejected(SYNC));
        assert_eq!(before.len(), 2);

        crm.model(then, "select id, name, email from customers");
        for attempts in 2..=3 {
            let run = crm.run();
            assert_eq!((run.code, run.planned(), run.failed()), (1, [1, 0, 0], [1, 0, 0]), "{run:#?}");
            let rejected = crm.project.rejected(SYNC);
            assert_eq!(rejected.len(), 2, "{rejected:#?}");
            let refused = rejected.iter().find(|r| r["code"] == "REFUSED").unwrap();
            assert_eq!(refused["attempts"], attempts, "{rejected:#?}");
            let key = refused["key"].as_str().unwrap();
            let second = if then == "[id, name]" { "3" } else { "3@example.com" };
            assert!(key.find(second).unwrap() < key.find("name 3").unwrap(), "{key}");
            assert!(!before.contains(&key.to_owned()), "{key}");
        }
        crm.receiver.accept();
        crm.sql("delete from customers where id = 5; update customers set email = email where id = 3");
        let run = crm.run();
        assert_eq!((run.code, run.successful()), (0, [1, 0, 0]), "{run:#?}");
        assert!(crm.project.rejected(SYNC).is_empty());
        crm.assert_quiet();
    }
}
