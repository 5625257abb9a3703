//! Modes for lists: rows join, leave, are taken off, are archived.

use serde_json::json;
use tests::postgres;
use tests::project::Engine;
use tests::receiver::Reply;

use super::modes::Table;
use super::{Crm, SYNC, on_both_warehouses, request, sent};

on_both_warehouses!(
    a_segment_sends_values_or_keeps_who_left,
    a_lost_answer_leaves_somebody_in_a_segment,
    add_takes_somebody_off_the_list,
    remove_leaves_somebody_on_the_list_or_puts_somebody_there,
    remove_repeats_what_it_never_has_to,
    a_list_of_leavers_is_taken_for_a_list_of_members,
    archive_sends_only_some_or_elsewhere,
    a_table_of_members_drifts,
);

fn a_segment_sends_values_or_keeps_who_left(engine: Engine) {
    let crm = Crm::new(
        engine,
        12,
        "mode: segment\nadded: {method: POST, path: /members, batch_size: 20}\nremoved: {method: DELETE, path: /members, batch_size: 20}",
    );
    crm.run_sends([12, 0, 0]);
    // Who is in the list counts, not what is known of them.
    crm.sql("update customers set name = 'x' where id <= 3");
    crm.assert_quiet();
    crm.sql("delete from customers where id <= 2");
    crm.insert(13..=13);
    let before = crm.receiver.count();
    crm.run_sends([1, 0, 2]);
    let requests = crm.receiver.since(before);
    assert_eq!(sent(&requests), [request("removed", &["1", "2"]), request("added", &["13"])]);
    let lines: Vec<String> = requests.iter().map(|r| format!("{} {}", r.method, r.path)).collect();
    assert_eq!(lines, ["DELETE /members", "POST /members"]);
    crm.assert_quiet();
    // Whoever returns joins again, and a refused leaver is asked to leave again.
    crm.insert(1..=1);
    crm.sql("delete from customers where id = 5");
    crm.receiver.behave(|_| Reply::reject(&["5"], "not now"));
    let run = crm.run();
    assert_eq!((run.code, run.successful(), run.failed()), (1, [1, 0, 0], [0, 0, 1]), "{run:#?}");
    crm.receiver.accept();
    crm.run_sends([0, 0, 1]);
    assert_eq!(crm.receiver.keys(), ["1", "10", "11", "12", "13", "3", "4", "6", "7", "8", "9"]);
    crm.assert_quiet();
}

fn a_lost_answer_leaves_somebody_in_a_segment(engine: Engine) {
    let crm = Crm::new(engine, 3, "mode: segment");
    crm.run_sends([3, 0, 0]);
    crm.insert(4..=5);
    crm.receiver.behave(|_| Reply::applied_but_cut());
    let run = crm.run();
    assert_eq!((run.code, run.number("inDoubtCount")), (2, 2), "{run:#?}");
    crm.receiver.accept();
    // One of them has left by now: it may be on the list.
    crm.sql("delete from customers where id = 4");
    crm.run_sends([1, 0, 1]);
    crm.assert_same();
    crm.assert_quiet();
}

fn add_takes_somebody_off_the_list(engine: Engine) {
    let crm = Crm::new(engine, 10, "mode: add");
    crm.run_sends([10, 0, 0]);
    crm.sql("update customers set name = 'x' where id = 3; delete from customers where id = 1");
    crm.insert(11..=11);
    let before = crm.receiver.count();
    let run = crm.run_sends([1, 0, 0]);
    assert_eq!(run.not_sent(), [0, 0, 1], "{run:#?}");
    assert_eq!(sent(&crm.receiver.since(before)), [request("added", &["11"])]);
    assert_eq!(crm.receiver.keys().len(), 11, "nobody leaves");
    crm.assert_quiet();
    crm.insert(1..=1);
    crm.run_sends([1, 0, 0]);
    crm.assert_quiet();
}

fn remove_leaves_somebody_on_the_list_or_puts_somebody_there(engine: Engine) {
    // The list is filled by somebody else.
    let crm = Crm::new(engine, 20, "mode: upsert");
    crm.run_sends([20, 0, 0]);
    crm.project
        .write("models/leavers.yml", "source: wh\nprimary_key: id\nsql: select id, name from leavers\n");
    crm.project.write(
        "syncs/leavers.yml",
        "model: leavers\ndestination: crm\nmode: remove\neach: {path: /rows, batch_size: 2}\n\
         mappings: [{from: name, to: name}, {variable: operation, to: does}, {template: \"{{ operation }}!\", to: says}]\n\
         guards: {max_removed: {rows: 3}}\n",
    );
    crm.sql("create table leavers (id integer, name text); insert into leavers values (3, 'c'), (4, 'd'), (99, 'never there')");
    let before = crm.receiver.count();
    let run = crm.project.run("leavers");
    // Counts say what happened in the model; the wire says what the destination does.
    assert_eq!((run.code, run.planned(), run.successful()), (0, [3, 0, 0], [3, 0, 0]), "{run:#?}");
    let requests = crm.receiver.since(before);
    assert!(requests.iter().all(|r| r.operation() == "removed"), "{requests:#?}");
    let fields = &requests[0].rows()[0]["fields"];
    assert_eq!((&fields["does"], &fields["says"]), (&json!("removed"), &json!("removed!")));
    assert_eq!(crm.receiver.keys().len(), 18);
    crm.project.assert_quiet("leavers", &crm.receiver);
    // Values are nobody's business; who leaves the leavers is forgotten, and may come again.
    crm.sql("update leavers set name = 'x' where id = 4; delete from leavers where id = 3");
    let run = crm.project.run("leavers");
    assert_eq!((run.code, run.planned(), run.not_sent()), (0, [0, 0, 0], [0, 0, 1]), "{run:#?}");
    assert_eq!(run.number("destinationCalls"), 0);
    crm.project.assert_quiet("leavers", &crm.receiver);
    crm.sql("insert into leavers values (3, 'back'), (5, 'e')");
    let run = crm.project.run("leavers");
    assert_eq!((run.code, run.successful()), (0, [2, 0, 0]), "{run:#?}");
    assert_eq!(crm.receiver.keys().len(), 17);
    // The guard on removals is about what the destination loses.
    crm.sql("insert into leavers values (6, ''), (7, ''), (8, ''), (9, '')");
    let before = crm.receiver.count();
    let run = crm.project.run("leavers");
    assert_eq!((run.code, run.error(), crm.receiver.count()), (3, "GUARD_TRIPPED", before), "{run:#?}");
    assert!(run.message().contains("max_removed"), "{run:#?}");
}

fn remove_repeats_what_it_never_has_to(engine: Engine) {
    let crm = Crm::new(engine, 4, "mode: remove");
    crm.receiver.behave(|_| Reply::applied_but_cut());
    let run = crm.run();
    assert_eq!((run.code, run.successful(), run.number("inDoubtCount")), (2, [0, 0, 0], 4), "{run:#?}");
    let versions = |requests: &[tests::receiver::Request], key: &str| {
        let rows = requests.iter().flat_map(tests::receiver::Request::rows).filter(|r| r["key"] == key);
        rows.map(|r| r["version"].clone()).collect::<Vec<_>>()
    };
    // Of the four in doubt one is no leaver any more: nothing is sent for it, and nothing is open.
    crm.receiver.accept();
    crm.sql("delete from customers where id = 1");
    let run = crm.run();
    assert_eq!((run.code, run.planned(), run.not_sent()), (0, [3, 0, 0], [0, 0, 1]), "{run:#?}");
    let all = crm.receiver.requests();
    assert_eq!(versions(&all, "1").len(), 1, "{all:#?}");
    let twice = versions(&all, "2");
    assert_eq!((twice.len(), &twice[0]), (2, &twice[1]), "the repeat of one delivery is recognisable");
    crm.assert_quiet();
}

fn a_list_of_leavers_is_taken_for_a_list_of_members(engine: Engine) {
    let crm = Crm::new(engine, 10, "mode: segment");
    crm.run_sends([10, 0, 0]);
    crm.sync("mode: remove");
    crm.sql("delete from customers where id <= 4");
    let run = crm.run();
    assert_eq!((run.code, run.error(), crm.receiver.count()), (2, "TARGET_CHANGED", 1), "{run:#?}");
    let run = crm.run_with(&["--full-resync"]);
    assert_eq!((run.code, run.successful()), (0, [6, 0, 0]), "{run:#?}");
    assert_eq!(crm.receiver.keys(), ["1", "2", "3", "4"], "only leavers were taken off");
    crm.assert_quiet();
    // And back: what was taken off is not what is there.
    crm.sync("mode: segment");
    crm.sql("delete from customers where id = 5");
    assert_eq!(crm.run().code, 2);
    let run = crm.run_with(&["--full-resync", "--keep-removals"]);
    assert_eq!((run.code, run.successful()), (0, [5, 0, 0]), "{run:#?}");
    crm.assert_quiet();
    // Keys stand for the same in both of these.
    crm.sync("mode: add");
    crm.assert_quiet();
}

fn archive_sends_only_some_or_elsewhere(engine: Engine) {
    let crm = Crm::new(engine, 5, "mode: archive");
    let ended = crm.project.levin(&["check", "--offline"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    // Nothing but a request of its own archives.
    let run = crm.run();
    assert_eq!((run.code, run.error(), crm.receiver.count()), (64, "PROJECT_INVALID", 0), "{run:#?}");
    assert!(run.message().contains("archive: {method, path}"), "{run:#?}");
    let archive = "archive: {method: PUT, path: /archive, batch_size: 3}";
    crm.sync(&format!("mode: archive\n{archive}"));
    crm.run_sends([5, 0, 0]);
    crm.sql("delete from customers where id = 5");
    let before = crm.receiver.count();
    crm.receiver.behave(|_| Reply::reject(&["2"], "no"));
    let run = crm.run();
    assert_eq!((run.code, run.successful(), run.failed()), (1, [3, 0, 0], [1, 0, 0]), "{run:#?}");
    let requests = crm.receiver.since(before);
    assert!(requests.iter().all(|r| (r.method.as_str(), r.path.as_str()) == ("PUT", "/archive")));
    assert!(requests.iter().all(|r| r.operation() == "archived"), "{requests:#?}");
    crm.receiver.accept();
    crm.run_sends([4, 0, 0]);
    // Another place is another target, an empty result is an accident.
    crm.sync("mode: archive\narchive: {method: PUT, path: /elsewhere}");
    assert_eq!(crm.run().error(), "TARGET_CHANGED");
    crm.sync(&format!("mode: archive\n{archive}"));
    crm.sql("delete from customers where id > 0");
    assert_eq!(crm.run().error(), "GUARD_TRIPPED");
    crm.sync(&format!("mode: archive\non_removed: delete\n{archive}"));
    let ended = crm.project.levin(&["run", SYNC]);
    assert_eq!(ended.code, 64, "{ended:?}");
    assert!(ended.stderr.contains("`on_removed` has no meaning"), "{}", ended.stderr);
}

fn a_table_of_members_drifts(engine: Engine) {
    let table = Table::new(engine, 6, "mode: segment");
    postgres::run(
        &table.database,
        "insert into people values (2, 'there already', null), (99, 'foreign', null)",
    );
    table.run_sends([6, 0, 0]);
    table.project.sql("delete from customers where id = 1; update customers set name = 'x' where id = 3");
    table.insert(7..=7);
    table.run_sends([1, 0, 1]);
    let ids = |table: &Table| postgres::texts(&table.database, "select id::text from people order by id");
    let expected = ["2", "3", "4", "5", "6", "7", "99"].map(|id| Some(id.to_owned()));
    assert_eq!(ids(&table), expected);
    table.run_sends([0, 0, 0]);
    // The same table as a list that somebody else fills: its rows need no more than the key.
    table.sync("mode: remove\nmatch: {from: id, to: id}\nmappings: [{from: name, to: no_such_column}]");
    let run = table.project.run_with("people", &["--full-resync"]);
    assert_eq!((run.code, run.successful()), (0, [6, 0, 0]), "{run:#?}");
    assert_eq!(ids(&table), [Some("99".to_owned())]);
    table.run_sends([0, 0, 0]);
}
