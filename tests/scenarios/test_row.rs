//! One row, looked at and tried out: it is shown as a run would send it, and leaves no trace in levin.

use serde_json::{Value, json};
use tests::postgres::{self, PostgresServer};
use tests::project::{Engine, Project};
use tests::receiver::Reply;

use super::{Crm, SYNC, on_both_warehouses};

on_both_warehouses!(
    a_row_is_shown_otherwise_than_it_is_sent,
    a_row_that_was_tried_is_taken_for_accepted,
    a_row_that_is_not_there_is_made_up,
    a_row_of_a_table_or_file_cannot_be_shown,
);

fn try_row(project: &Project, sync: &str, arguments: &[&str]) -> (i32, Value) {
    let ended = project.levin(&[&["test-row", sync, "--json"], arguments].concat());
    let line = ended.stdout.lines().last().unwrap_or_else(|| panic!("{ended:?}"));
    (ended.code, serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {ended:?}")))
}

/// The JSON body of a request that was shown.
fn body(shown: &Value) -> Value {
    let (_, body) = shown["request"].as_str().unwrap().split_once("\n\n").unwrap();
    serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {shown:#}"))
}

fn a_row_is_shown_otherwise_than_it_is_sent(engine: Engine) {
    let crm = Crm::new(engine, 5, "mode: mirror");
    crm.destination("auth: {bearer: \"${CRM_TOKEN}\"}\nheaders: {X-Team: data}\n");
    let crm = Crm { project: crm.project.with_variable("CRM_TOKEN", "tops3cret"), receiver: crm.receiver };
    crm.run_sends([5, 0, 0]);
    crm.sql("update customers set name = 'x' where id = 1; delete from customers where id = 2");
    crm.insert(6..=6);
    let calls = crm.receiver.count();
    let shown: Vec<Value> = [("6", "added"), ("1", "changed"), ("2", "removed")]
        .iter()
        .map(|(key, operation)| {
            let (code, shown) = try_row(&crm.project, SYNC, &["--key", key, "--as", operation]);
            assert_eq!(
                (code, &shown["sent"], &shown["outcome"]),
                (0, &json!(false), &Value::Null),
                "{shown:#}"
            );
            shown
        })
        .collect();
    assert_eq!(crm.receiver.count(), calls, "nothing is sent without being asked");
    let text = shown[0]["request"].as_str().unwrap();
    // The address comes from the environment, so it counts as a secret.
    assert!(text.starts_with("POST ***/rows\n"), "{text}");
    assert!(text.contains("x-team: data\n") && !text.contains("tops3cret"), "{text}");
    crm.run_sends([1, 1, 1]);
    for (shown, operation) in shown.iter().zip(["added", "changed", "removed"]) {
        let sent = crm.receiver.since(calls).into_iter().find(|r| r.operation() == operation).unwrap();
        let (mut shown, mut sent) = (body(shown), sent.body);
        // What differs is what names the run.
        for body in [&mut shown, &mut sent] {
            body["run"] = Value::Null;
            body["generation"] = Value::Null;
            body["rows"][0]["version"] = Value::Null;
        }
        assert_eq!(shown, sent, "{operation}");
    }
    // A person reads it too.
    let ended =
        crm.project.levin(&["test-row", SYNC, "--key", "1", "--as", "changed", "--set", "email=it's; --"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.stdout.contains("it's; --") && ended.stderr.contains("nothing was sent"), "{ended:?}");
    // A key of several columns, once per column or as it is written.
    crm.model("[id, name]", "select id, name, email from customers");
    for key in [&["--key", "1", "--key", "x"][..], &["--key", "[1,\"x\"]"]] {
        let (code, shown) = try_row(&crm.project, SYNC, &[key, &["--as", "added"]].concat());
        assert_eq!((code, &body(&shown)["rows"][0]["key"]), (0, &json!("[1,\"x\"]")), "{shown:#}");
    }
    let ended = crm.project.levin(&["test-row", SYNC, "--key", "1", "--as", "added"]);
    assert!(ended.code == 64 && ended.stderr.contains("id, name"), "{ended:?}");
}

fn a_row_that_was_tried_is_taken_for_accepted(engine: Engine) {
    let crm = Crm::new(engine, 3, "mode: mirror");
    // Before the first run there is nothing to compare with, and nothing is made.
    let (code, shown) = try_row(&crm.project, SYNC, &["--key", "1", "--as", "changed", "--send"]);
    assert_eq!((code, &shown["outcome"], &shown["sent"]), (0, &json!("accepted"), &json!(true)), "{shown:#}");
    assert!(shown["response"].as_str().unwrap().starts_with("200 OK"), "{shown:#}");
    assert!(crm.project.snapshots().is_empty() && crm.project.history().is_empty());
    let tried = crm.receiver.requests()[0].clone();
    assert_eq!(tried.rows()[0]["changed"], json!(["name", "email"]), "{tried:?}");
    crm.run_sends([3, 0, 0]);
    let sent = crm.receiver.requests();
    let versions: Vec<&Value> = sent.iter().flat_map(|r| r.rows()).map(|r| &r["version"]).collect();
    assert!(versions[1..].iter().all(|version| *version != versions[0]), "{versions:?}");
    let (snapshots, before) = (crm.project.snapshots(), crm.project.managed("%\\_state"));
    // Whatever it answers, levin goes on as before.
    crm.sql("update customers set name = 'x' where id = 1");
    crm.receiver.behave(|_| Reply::reject(&["1"], "no such luck"));
    let (code, shown) = try_row(&crm.project, SYNC, &["--key", "1", "--as", "changed", "--send"]);
    assert_eq!(
        (code, &shown["outcome"], &shown["code"]),
        (1, &json!("rejected"), &json!("REFUSED")),
        "{shown:#}"
    );
    assert_eq!(shown["reason"], "no such luck");
    crm.receiver.behave(|_| Reply::status(503));
    let (code, shown) = try_row(&crm.project, SYNC, &["--key", "1", "--as", "changed", "--send"]);
    assert_eq!(code, 2, "{shown:#}");
    assert!(shown["response"].as_str().unwrap().starts_with("503"), "{shown:#}");
    assert_eq!((crm.project.snapshots(), crm.project.managed("%\\_state")), (snapshots, before));
    assert!(crm.project.rejected(SYNC).is_empty());
    crm.receiver.accept();
    let (code, _) = try_row(&crm.project, SYNC, &["--key", "1", "--as", "removed", "--send"]);
    assert_eq!(code, 0);
    assert!(!crm.receiver.keys().contains(&"1".to_owned()));
    crm.run_sends([0, 1, 0]);
    crm.assert_same();
    crm.assert_quiet();
}

fn a_row_that_is_not_there_is_made_up(engine: Engine) {
    let crm = Crm::new(engine, 3, "mode: upsert");
    crm.sql("insert into customers values (3, 'twice', 'twice')");
    for (arguments, code, why) in [
        (&["--key", "9", "--as", "added"][..], 64, "returns no row with the key `9`"),
        (&["--key", "x", "--as", "added"], 64, ""),
        (&["--key", "1", "--as", "removed"], 64, "sends no removed rows"),
        (&["--key", "1", "--as", "added", "--set", "emial=x"], 64, "did you mean `email`?"),
        (&["--key", "1", "--as", "added", "--set", "email"], 64, "COLUMN=VALUE"),
        (&["--key", "3", "--as", "added"], 1, "more than once"),
        (&["--as", "added"], 64, "--key"),
    ] {
        let ended = crm.project.levin(&[&["test-row", SYNC], arguments].concat());
        assert_eq!(ended.code, code, "{ended:?}");
        assert!(ended.stderr.contains(why), "{why}: {ended:?}");
    }
    assert_eq!(crm.receiver.count(), 0);
    // A row that the mapping refuses is said to be refused, and is not sent.
    crm.sync("mode: upsert\nmappings: [{template: '{{ row.name.a.b }}', to: name}]");
    let (code, shown) = try_row(&crm.project, SYNC, &["--key", "1", "--as", "added", "--send"]);
    assert_eq!(
        (code, &shown["code"], &shown["sent"]),
        (1, &json!("TEMPLATE_FAILED"), &json!(false)),
        "{shown:#}"
    );
    assert_eq!(crm.receiver.count(), 0);
}

fn a_row_of_a_table_or_file_cannot_be_shown(engine: Engine) {
    let database = PostgresServer::start().fresh_database();
    postgres::run(
        &database,
        "create table contacts (id integer primary key, name text check (name <> 'bad'))",
    );
    let project = Project::new(engine).with_variable("CONTACTS_URL", &database);
    project.sql("create table people (id integer, name text)");
    project.sql("insert into people values (1, 'one'), (2, 'bad')");
    project.write("models/people.yml", "source: wh\nprimary_key: id\nsql: select id, name from people\n");
    project.write("destinations/db.yml", "type: postgres\nurl: ${CONTACTS_URL}\n");
    project.write("destinations/out.yml", "type: files\npath: out\n");
    project.write("syncs/table.yml", "model: people\ndestination: db\nmode: mirror\nobject: contacts\n");
    project.write(
        "syncs/whole.yml",
        "model: people\ndestination: db\nmode: all\nreplace: true\nobject: contacts\n",
    );
    project.write(
        "syncs/file.yml",
        "model: people\ndestination: out\nmode: diff\nobject: \"{{ run_id }}.jsonl\"\n",
    );
    let there = || postgres::texts(&database, "select id::text || ' ' || name from contacts order by 1");
    let (code, shown) = try_row(&project, "table", &["--key", "1", "--as", "added"]);
    let text = shown["request"].as_str().unwrap();
    assert_eq!(code, 0, "{shown:#}");
    assert!(
        text.contains("on conflict (\"id\") do update") && text.contains("--   \"name\" = \"one\"\n"),
        "{text}"
    );
    assert!(there().is_empty());
    let (code, shown) =
        try_row(&project, "table", &["--key", "1", "--as", "added", "--send", "--set", "name=uno"]);
    assert_eq!((code, &shown["outcome"]), (0, &json!("accepted")), "{shown:#}");
    assert_eq!(there(), [Some("1 uno".to_owned())]);
    let (code, shown) = try_row(&project, "table", &["--key", "2", "--as", "added", "--send"]);
    assert_eq!((code, &shown["code"]), (1, &json!("REFUSED")), "{shown:#}");
    assert!(shown["reason"].as_str().unwrap().contains("contacts_name_check"), "{shown:#}");
    let (_, shown) = try_row(&project, "table", &["--key", "1", "--as", "removed"]);
    assert!(shown["request"].as_str().unwrap().contains("delete from"), "{shown:#}");
    // What is taken as a whole shows its line, and sends no single one.
    let (code, shown) = try_row(&project, "file", &["--key", "1", "--as", "changed"]);
    let text = shown["request"].as_str().unwrap();
    assert_eq!(code, 0, "{shown:#}");
    assert!(text.ends_with("\n\n{\"_operation\":\"changed\",\"id\":1,\"name\":\"one\"}\n"), "{text}");
    for sync in ["file", "whole"] {
        let ended = project.levin(&["test-row", sync, "--key", "1", "--as", "added", "--send"]);
        assert!(ended.code == 2 && ended.stderr.contains("taken as a whole"), "{ended:?}");
    }
    assert_eq!(there(), [Some("1 uno".to_owned())]);
    assert!(!project.path().join("out").exists());
}
