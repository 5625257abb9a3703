//! What each mode leaves behind at its destination: a receiver, a table, a folder of files.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};
use tests::postgres::{self, PostgresServer};
use tests::project::{Engine, Project, Run};
use tests::receiver::Reply;

use super::{Crm, on_both_warehouses, request, sent};

on_both_warehouses!(
    insert_sends_changes_or_misses_what_returns,
    all_sends_only_some,
    a_run_that_failed_counts_as_the_one_before,
    a_table_drifts_from_the_model,
    one_bad_row_destroys_a_table,
    rows_that_a_table_does_not_have_are_never_tried_again,
    a_replaced_table_is_seen_half_full,
    another_table_is_taken_for_the_same,
    a_new_mapping_sends_everything_again,
    a_file_of_changes_misses_an_operation,
    a_file_of_everything_is_incomplete,
    a_file_of_new_rows_repeats_old_ones,
    a_lost_store_overwrites_a_file,
);

fn insert_sends_changes_or_misses_what_returns(engine: Engine) {
    let crm = Crm::new(engine, 10, "mode: insert");
    crm.run_sends([10, 0, 0]);
    crm.sql("update customers set name = 'x' where id = 1; delete from customers where id = 2");
    crm.insert(11..=11);
    let before = crm.receiver.count();
    crm.run_sends([1, 0, 0]);
    crm.assert_quiet();
    crm.insert(2..=2);
    crm.run_sends([1, 0, 0]);
    assert_eq!(sent(&crm.receiver.since(before)), [request("added", &["11"]), request("added", &["2"])]);
    assert_eq!(crm.receiver.field("1", "name"), json!("name 1"));
    crm.assert_quiet();
    // A lost answer: the key is in doubt and goes again, with today's values.
    crm.insert(12..=12);
    crm.receiver.behave(|_| Reply::applied_but_cut());
    crm.run();
    crm.receiver.accept();
    crm.sql("update customers set name = 'later' where id = 12");
    let run = crm.run();
    assert_eq!((run.code, run.successful().iter().sum::<u64>()), (0, 1), "{run:#?}");
    assert_eq!(crm.receiver.field("12", "name"), json!("later"));
    crm.assert_quiet();
}

fn all_sends_only_some(engine: Engine) {
    let crm = Crm::new(engine, 15, "mode: all\nguards: {max_added: {percent: 100}}");
    crm.run_sends([15, 0, 0]);
    crm.sql("delete from customers where id = 3; update customers set name = 'x' where id = 4");
    crm.receiver.behave(|_| Reply::reject(&["5"], "no"));
    let before = crm.receiver.count();
    let run = crm.run();
    assert_eq!((run.code, run.successful(), run.failed()), (1, [13, 0, 0], [1, 0, 0]), "{run:#?}");
    let keys: BTreeSet<String> = crm.receiver.since(before).iter().flat_map(|r| r.keys()).collect();
    assert_eq!(keys.len(), 14);
    crm.receiver.accept();
    crm.run_sends([14, 0, 0]);
    assert_eq!(crm.receiver.field("4", "name"), json!("x"));
    // An empty result where there was one before is an accident.
    crm.sql("delete from customers where id > 0");
    let before = crm.receiver.count();
    let run = crm.run();
    assert_eq!((run.code, run.error(), crm.receiver.count()), (3, "GUARD_TRIPPED", before), "{run:#?}");
}

/// A project whose sync `people` writes to the table `people (id, name, email)` of a database.
pub(super) struct Table {
    pub(super) project: Project,
    pub(super) database: String,
}

impl Table {
    pub(super) fn new(engine: Engine, rows: u32, sync: &str) -> Self {
        let database = PostgresServer::start().fresh_database();
        postgres::run(
            &database,
            "create table people (id integer primary key, name text not null, email text)",
        );
        let project = Project::new(engine).with_variable("CRM_DB", &database);
        project.sql("create table customers (id integer, name text, email text)");
        project.write("destinations/crm.yml", "type: postgres\nurl: ${CRM_DB}\n");
        project.write(
            "models/customers.yml",
            "source: wh\nprimary_key: id\nsql: select id, name, email from customers\n",
        );
        let table = Self { project, database };
        table.sync(sync);
        table.insert(1..=rows);
        table
    }

    pub(super) fn sync(&self, more: &str) {
        let object = if more.contains("object:") { "" } else { "object: public.people\n" };
        self.project
            .write("syncs/people.yml", &format!("model: customers\ndestination: crm\n{object}{more}\n"));
    }

    pub(super) fn insert(&self, ids: std::ops::RangeInclusive<u32>) {
        for id in ids {
            self.project
                .sql(&format!("insert into customers values ({id}, 'name {id}', '{id}@example.com')"));
        }
    }

    fn run(&self) -> Run {
        self.project.run("people")
    }

    pub(super) fn run_sends(&self, counts: [u64; 3]) {
        let run = self.run();
        assert_eq!((run.code, run.status()), (0, "success"), "{run:#?}");
        assert_eq!((run.planned(), run.successful()), (counts, counts), "{run:#?}");
    }

    fn rows(&self) -> Vec<String> {
        let rows = "select id || ' ' || name || ' ' || coalesce(email, '-') from people order by id";
        postgres::texts(&self.database, rows).into_iter().flatten().collect()
    }

    fn assert_same(&self) {
        let model = "select cast(id as text) || ' ' || name || ' ' || coalesce(email, '-') from customers order by id";
        let model: Vec<String> = self.project.texts(model).into_iter().flatten().collect();
        assert_eq!(self.rows(), model);
    }
}

fn a_table_drifts_from_the_model(engine: Engine) {
    let table = Table::new(engine, 8, "mode: mirror");
    postgres::run(&table.database, "insert into people values (3, 'older', null), (99, 'foreign', null)");
    table.run_sends([8, 0, 0]);
    assert_eq!(table.rows().len(), 9, "what levin never sent it never removes");
    postgres::run(&table.database, "delete from people where id = 99");
    table.assert_same();
    table.project.sql(
        "update customers set email = null where id = 1; update customers set name = 'x''y \"z\" \\ é' where id = 2; \
         delete from customers where id in (3, 4)",
    );
    table.insert(9..=9);
    table.run_sends([1, 2, 2]);
    table.assert_same();
    table.run_sends([0, 0, 0]);
    assert_eq!(table.project.history()[0]["destinationCalls"], json!(0));
}

fn one_bad_row_destroys_a_table(engine: Engine) {
    let table = Table::new(engine, 20, "mode: mirror");
    table.run_sends([20, 0, 0]);
    // A null where the table allows none; removals and changes beside it.
    table.project.sql(
        "update customers set name = null where id = 7; update customers set email = 'x' where id in (6, 8); \
         delete from customers where id = 20",
    );
    table.insert(21..=23);
    let run = table.run();
    assert_eq!((run.code, run.status()), (1, "warning"), "{run:#?}");
    assert_eq!((run.successful(), run.failed()), ([3, 2, 1], [0, 1, 0]), "{run:#?}");
    assert_eq!(table.rows().len(), 22);
    assert!(table.rows().contains(&"7 name 7 7@example.com".to_owned()), "the good earlier copy stays");
    let rejected = table.project.rejected("people");
    assert_eq!((rejected.len(), &rejected[0]["key"]), (1, &json!("7")));
    assert!(rejected[0]["reason"].as_str().unwrap().contains("name"), "{rejected:#?}");
    table.project.sql("update customers set name = 'seven' where id = 7");
    table.run_sends([0, 1, 0]);
    table.assert_same();
}

fn rows_that_a_table_does_not_have_are_never_tried_again(engine: Engine) {
    let table = Table::new(engine, 4, "mode: update");
    postgres::run(&table.database, "insert into people values (1, 'old', null), (2, 'old', null)");
    let run = table.run();
    assert_eq!((run.code, run.successful(), run.failed()), (1, [2, 0, 0], [2, 0, 0]), "{run:#?}");
    assert_eq!(table.rows(), ["1 name 1 1@example.com", "2 name 2 2@example.com"]);
    let rejected = table.project.rejected("people");
    assert!(rejected.len() == 2 && rejected.iter().all(|r| r["code"] == "NOT_FOUND"), "{rejected:#?}");
    // Without a warning it still comes again.
    table.sync("mode: update\nnot_found: skip");
    let run = table.run();
    assert_eq!((run.code, run.status(), run.failed()), (0, "success", [2, 0, 0]), "{run:#?}");
    postgres::run(&table.database, "insert into people values (3, 'old', null)");
    let run = table.run();
    assert_eq!((run.code, run.successful(), run.failed()), (0, [1, 0, 0], [1, 0, 0]), "{run:#?}");
    assert_eq!(table.rows()[2], "3 name 3 3@example.com");
    table.project.sql("update customers set name = 'x' where id = 1; delete from customers where id = 4");
    table.run_sends([0, 1, 0]);
    table.run_sends([0, 0, 0]);
    assert_eq!(table.rows().len(), 3);
}

fn a_replaced_table_is_seen_half_full(engine: Engine) {
    let table = Table::new(engine, 30, "mode: all\nreplace: true\nbatch_size: 10");
    postgres::run(&table.database, "insert into people values (99, 'before', null)");
    table.run_sends([30, 0, 0]);
    table.assert_same();
    // A row that the table refuses: the content stays what it was, or becomes everything else.
    table.project.sql("update customers set name = null where id = 15; delete from customers where id = 1");
    let run = table.run();
    assert_ne!(run.code, 0, "{run:#?}");
    let rows = table.rows();
    let untouched = rows.len() == 30 && rows[0].starts_with("1 ");
    let all_but_the_bad_one = rows.len() == 28 && rows[0].starts_with("2 ");
    assert!(untouched || all_but_the_bad_one, "{rows:?}");
    let accepted = run.successful()[0];
    assert_eq!(accepted, if untouched { 0 } else { 28 }, "{run:#?}");
    table.project.sql("update customers set name = 'x' where id = 15");
    table.run_sends([29, 0, 0]);
    table.assert_same();
    // A result without rows replaces it too.
    table.sync("mode: all\nreplace: true\nguards: {allow_empty: true}");
    table.project.sql("delete from customers where id > 0");
    table.run_sends([0, 0, 0]);
    table.assert_same();
}

fn another_table_is_taken_for_the_same(engine: Engine) {
    let table = Table::new(engine, 5, "mode: mirror");
    table.run_sends([5, 0, 0]);
    postgres::run(&table.database, "create table others (like people including all)");
    table.sync("mode: mirror\nobject: public.others");
    let run = table.run();
    assert_eq!((run.code, run.error()), (2, "TARGET_CHANGED"), "{run:#?}");
    assert_eq!(postgres::texts(&table.database, "select name from others"), Vec::<Option<String>>::new());
    // The same table by another name of it is the same.
    table.sync("mode: mirror\nobject: '\"public\".\"people\"'");
    table.run_sends([0, 0, 0]);
    table.sync("mode: mirror\nobject: public.others");
    table.project.sql("delete from customers where id = 5");
    let run = table.project.run_with("people", &["--full-resync"]);
    assert_eq!((run.code, run.successful()), (0, [4, 0, 0]), "{run:#?}");
    assert_eq!(postgres::texts(&table.database, "select name from others").len(), 4);
    assert_eq!(table.rows().len(), 5, "the old target keeps its rows");
    table.run_sends([0, 0, 0]);
}

fn a_new_mapping_sends_everything_again(engine: Engine) {
    let table =
        Table::new(engine, 6, "mode: mirror\nmappings:\n  - {from: id, to: id}\n  - {from: name, to: name}");
    table.run_sends([6, 0, 0]);
    // Nobody maps it, so its change is none.
    table.project.sql("update customers set email = null where id <= 2");
    table.run_sends([0, 0, 0]);
    table.sync(
        "mode: mirror\nmappings:\n  - {from: id, to: id}\n  - {from: name, to: name}\n  - {from: email, to: email}",
    );
    table.run_sends([0, 4, 0]);
    table.assert_same();
    table.sync("mode: mirror\nmappings:\n  - {from: id, to: id}\n  - {from: name, to: name}");
    table.project.sql("update customers set email = 'nobody maps it' where id = 1");
    table.run_sends([0, 0, 0]);
    assert_eq!(table.rows()[0], "1 name 1 -");
}

/// A project whose sync `export` writes files into the folder `out`.
pub(super) struct Export(pub(super) Project);

impl Export {
    pub(super) fn new(engine: Engine, rows: u32, sync: &str) -> Self {
        let project = Project::new(engine);
        project.sql("create table customers (id integer, name text)");
        project.write("destinations/out.yml", "type: files\npath: out\n");
        project.write(
            "models/customers.yml",
            "source: wh\nprimary_key: id\nsql: select id, name from customers\n",
        );
        project.write("syncs/export.yml", &format!("model: customers\ndestination: out\n{sync}\n"));
        for id in 1..=rows {
            project.sql(&format!("insert into customers values ({id}, 'name {id}')"));
        }
        Self(project)
    }

    /// Runs the sync, and returns what lies in the folder afterwards that did not before.
    pub(super) fn run(&self) -> (Run, Vec<String>) {
        let before = self.files();
        let run = self.0.run("export");
        let new = self.files().into_iter().filter(|name| !before.contains(name)).collect();
        (run, new)
    }

    pub(super) fn files(&self) -> Vec<String> {
        let Ok(folder) = fs::read_dir(self.0.path().join("out")) else { return Vec::new() };
        let mut names: Vec<String> =
            folder.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn lines(&self, name: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.0.path().join("out").join(name)).unwrap();
        let mut lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        lines.sort_by_key(|l| l["id"].as_i64());
        lines
    }
}

fn a_file_of_changes_misses_an_operation(engine: Engine) {
    let export = Export::new(engine, 4, "mode: diff\nobject: 'changes-{{ run_id }}.jsonl'");
    let (run, files) = export.run();
    assert_eq!((run.code, run.successful()), (0, [4, 0, 0]), "{run:#?}");
    assert_eq!(files, [format!("changes-{}.jsonl", run.report["id"])]);
    assert_eq!(export.lines(&files[0])[0], json!({"_operation": "added", "id": 1, "name": "name 1"}));
    assert_eq!(export.lines(&files[0]).len(), 4);

    let (run, files) = export.run();
    assert_eq!((run.code, run.planned(), files), (0, [0, 0, 0], vec![]), "no changes, no file");
    export.0.sql("update customers set name = 'x' where id = 1; delete from customers where id = 2");
    export.0.sql("insert into customers values (5, null)");
    let (run, files) = export.run();
    assert_eq!((run.code, run.successful()), (0, [1, 1, 1]), "{run:#?}");
    assert_eq!(
        export.lines(&files[0]),
        [
            json!({"_operation": "changed", "id": 1, "name": "x"}),
            json!({"_operation": "removed", "id": 2, "name": "name 2"}),
            json!({"_operation": "added", "id": 5, "name": null}),
        ]
    );
    // A file that cannot be written loses nothing.
    fs::rename(export.0.path().join("out"), export.0.path().join("away")).unwrap();
    fs::write(export.0.path().join("out"), "in the way").unwrap();
    export.0.sql("update customers set name = 'y' where id = 1");
    let run = export.0.run("export");
    assert_eq!((run.code, run.successful()), (2, [0, 0, 0]), "{run:#?}");
    fs::remove_file(export.0.path().join("out")).unwrap();
    fs::rename(export.0.path().join("away"), export.0.path().join("out")).unwrap();
    let (run, files) = export.run();
    assert_eq!((run.code, run.successful()), (0, [0, 1, 0]), "{run:#?}");
    assert_eq!(export.lines(&files[0]), [json!({"_operation": "changed", "id": 1, "name": "y"})]);
}

fn a_file_of_everything_is_incomplete(engine: Engine) {
    let export = Export::new(engine, 5, "mode: snapshot\nobject: everything.jsonl");
    let (run, files) = export.run();
    assert_eq!((run.code, run.successful(), files), (0, [5, 0, 0], vec!["everything.jsonl".to_owned()]));
    export.0.sql("delete from customers where id = 1; update customers set name = 'x' where id = 2");
    let (run, files) = export.run();
    assert_eq!((run.code, run.successful(), files), (0, [4, 0, 0], vec![]), "the same file anew");
    let lines = export.lines("everything.jsonl");
    assert_eq!((lines.len(), &lines[0]), (4, &json!({"id": 2, "name": "x"})));
    // A guard leaves the last file as it is.
    export.0.sql("delete from customers where id > 0");
    let (run, _) = export.run();
    assert_eq!((run.code, run.error()), (3, "GUARD_TRIPPED"), "{run:#?}");
    assert_eq!(export.lines("everything.jsonl").len(), 4);
    assert_eq!(export.files(), ["everything.jsonl"], "nothing hidden is left");
    // A result without rows, when it is meant, is a file without rows.
    export.0.write(
        "syncs/export.yml",
        "model: customers\ndestination: out\nmode: snapshot\nobject: everything.jsonl\nguards: {allow_empty: true}\n",
    );
    let (run, _) = export.run();
    assert_eq!((run.code, run.planned()), (0, [0, 0, 0]), "{run:#?}");
    assert!(export.lines("everything.jsonl").is_empty());
}

fn a_file_of_new_rows_repeats_old_ones(engine: Engine) {
    let export = Export::new(engine, 3, "mode: insert\nobject: 'new-{{ run_id }}.csv'");
    let (run, files) = export.run();
    assert_eq!((run.code, files.len()), (0, 1), "{run:#?}");
    export.0.sql("update customers set name = 'x' where id = 1; delete from customers where id = 2");
    export.0.sql("insert into customers values (4, 'a \"b\", c')");
    let (run, files) = export.run();
    assert_eq!((run.code, run.successful()), (0, [1, 0, 0]), "{run:#?}");
    let text = fs::read_to_string(export.0.path().join("out").join(&files[0])).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines, ["id,name", "4,\"a \"\"b\"\", c\""]);
    let (run, files) = export.run();
    assert_eq!((run.code, files), (0, vec![]), "{run:#?}");
}

fn a_lost_store_overwrites_a_file(engine: Engine) {
    let export = Export::new(engine, 3, "mode: diff\nobject: 'changes-{{ run_id }}.jsonl'");
    let (run, files) = export.run();
    assert_eq!((run.code, files.len()), (0, 1), "{run:#?}");
    let first = export.lines(&files[0]);
    // Runs are counted from the beginning again, and the name is taken.
    export.0.lose_store();
    export.0.sql("update customers set name = 'x' where id = 1");
    let mut delivered = Vec::new();
    for _ in 0..3 {
        let (_, new) = export.run();
        delivered.extend(new);
    }
    assert_eq!(export.lines(&files[0]), first, "a file that is there stays as it is");
    assert_eq!(delivered.len(), 1, "{delivered:?}");
    assert_eq!(export.lines(&delivered[0]), [json!({"_operation": "changed", "id": 1, "name": "x"})]);
}

fn a_run_that_failed_counts_as_the_one_before(engine: Engine) {
    let crm = Crm::new(engine, 15, "mode: all");
    crm.receiver.behave(|_| Reply::status(422));
    assert_eq!(crm.run().status(), "failed");
    // Guards compare with the last run that was committed, and there was none.
    crm.sql("delete from customers");
    crm.run_sends([0, 0, 0]);
    crm.receiver.accept();
    crm.insert(1..=15);
    crm.run_sends([15, 0, 0]);
    crm.sql("delete from customers");
    let run = crm.run();
    assert_eq!((run.code, run.error()), (3, "GUARD_TRIPPED"), "{run:#?}");
}
