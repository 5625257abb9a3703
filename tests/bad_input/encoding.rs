//! Text that is not UTF-8: rejected, never replaced, and never in the way of other rows.

use serde_json::{Value, json};
use tests::postgres::{self, PostgresServer};
use tests::project::{Engine, Project};

use super::{Case, SYNC, says};

/// A database whose text may be any bytes, with a function that makes such text.
fn case_of_bytes(setup: &str) -> Case {
    let project = Project::on_postgres(PostgresServer::start().database_of_bytes());
    project.sql(
        "create function raw(hex text) returns text language sql immutable
         as $$ select convert_from(decode(hex, 'hex'), 'SQL_ASCII') $$",
    );
    Case::of(project, setup)
}

/// Key, code and reason of what is rejected, in the order of the keys.
fn rejected(case: &Case) -> Vec<(String, String, String)> {
    let word = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let rows = case.project.rejected(SYNC);
    rows.iter().map(|row| (word(row, "key"), word(row, "code"), word(row, "reason"))).collect()
}

fn keys_with(case: &Case, code: &str) -> Vec<String> {
    rejected(case).into_iter().filter(|(_, of, _)| of == code).map(|(key, ..)| key).collect()
}

const INVALID: &str = "UNREPRESENTABLE_VALUE";

#[test]
fn text_that_is_not_utf8_rejects_its_row_alone() {
    // More rows than one batch of the source holds: some batches have such text, some do not.
    let case = case_of_bytes(
        "create table t (id integer, name text, more json);
         insert into t select n, 'ä' || n, '{\"a\": 1}' from generate_series(1, 9000) as n;
         update t set name = raw('61ff') where id = 5;
         update t set more = cast('\"' || raw('fe') || '\"' as json) where id = 7",
    );
    case.project.write(
        &format!("syncs/{SYNC}.yml"),
        "model: rows\ndestination: crm\nmode: mirror\neach: {method: POST, path: /rows, batch_size: 5000}\n\
         mappings:\n  - {from: name, to: name}\n  - {from: more, to: more}\n",
    );
    case.check_passes();
    let run = case.run();
    assert_eq!((run.code, run.status(), run.planned()), (1, "warning", [9000, 0, 0]), "{run:#?}");
    assert_eq!((run.successful(), run.failed()), ([8998, 0, 0], [2, 0, 0]), "{run:#?}");
    assert_eq!(run.number("inDoubtCount"), 0, "{run:#?}");
    let found = rejected(&case);
    assert_eq!(keys_with(&case, INVALID), ["5", "7"], "{found:?}");
    says(&found[0].2, &["\"name\"", "not valid UTF-8"]);
    says(&found[1].2, &["\"more\"", "not valid UTF-8"]);
    assert_eq!(case.receiver.keys().len(), 8998);
    assert_eq!(case.receiver.field("4", "name"), json!("ä4"));
    for request in case.receiver.requests() {
        assert!(!request.text.contains('\u{fffd}') && !request.text.contains("\\ufffd"), "{}", request.text);
    }

    // They come again, and cost no request. What was accepted stays accepted.
    let before = case.receiver.count();
    let run = case.run();
    assert_eq!((run.planned(), run.failed()), ([2, 0, 0], [2, 0, 0]), "{run:#?}");
    case.project.sql("update t set name = raw('c3') where id = 8");
    let run = case.run();
    assert_eq!((run.planned(), run.failed()), ([2, 1, 0], [2, 1, 0]), "{run:#?}");
    assert_eq!(case.receiver.count(), before, "nothing of it can be sent");
    assert_eq!(keys_with(&case, INVALID), ["5", "7", "8"]);
    assert_eq!(case.receiver.field("8", "name"), json!("ä8"));

    // A person may look.
    let (code, plan) = case.project.plan(SYNC, &[]);
    assert_eq!((code, &plan["plannedRows"]["addedCount"]), (0, &json!(2)), "{plan:#}");
    let samples = plan["samples"].as_array().expect("samples");
    let of =
        |key: &str| samples.iter().find(|s| s["key"] == key).unwrap_or_else(|| panic!("{key}: {plan:#}"));
    for key in ["5", "7", "8"] {
        says(of(key)["fields"]["error"].as_str().unwrap_or_default(), &["not valid UTF-8"]);
    }
    assert_eq!(of("8")["previous"]["name"], json!("ä8"), "{plan:#}");
    let seen = case.project.levin(&["plan", SYNC]);
    assert_eq!(seen.code, 0, "{seen:?}");
    let seen = case.project.levin(&["preview", "rows", "--limit", "9000"]);
    assert_eq!(seen.code, 0, "{seen:?}");
    says(&seen.stdout, &["a\\xff", "\"\\xfe\"", "ä4"]);

    case.project
        .sql("update t set name = 'mended' where id in (5, 8); update t set more = '[]' where id = 7");
    case.sends([2, 1, 0]);
    assert_eq!(rejected(&case), []);
    assert_eq!(case.receiver.field("5", "name"), json!("mended"));
    case.quiet();
}

#[test]
fn a_key_that_is_not_utf8_is_rejected_and_told_apart() {
    for composite in [false, true] {
        let case = case_of_bytes(
            "create table t (k text, part integer, name text);
             insert into t values ('ok', 1, 'a'), (raw('61ff'), 1, 'b'), (raw('61fe'), 1, 'c'),
               (raw('64ff'), 1, 'd'), (raw('64ff'), 1, 'e')",
        );
        let key = if composite { json!(["k", "part"]) } else { json!("k") };
        let model = json!({ "source": "wh", "primary_key": key, "sql": "select * from t" });
        case.project.write("models/rows.yml", &model.to_string());
        case.sync("mode: mirror\nguards: {max_set_aside: {percent: 100}}");
        let named = |text: &str| if composite { format!("[{},1]", json!(text)) } else { text.to_owned() };
        for _ in 0..2 {
            let run = case.run();
            assert_eq!((run.code, run.failed()), (1, [2, 0, 0]), "{run:#?}");
            assert_eq!(run.number("duplicateKeyCount"), 2, "{run:#?}");
            assert_eq!(case.receiver.keys(), [named("ok")]);
            assert_eq!(keys_with(&case, INVALID), [named("a\\xfe"), named("a\\xff")]);
            assert_eq!(keys_with(&case, "DUPLICATE_PRIMARY_KEY"), [named("d\\xff")]);
        }
        let (code, plan) = case.project.plan(SYNC, &[]);
        assert_eq!((code, plan["samples"].as_array().map(Vec::len)), (0, Some(3)), "{plan:#}");

        // With another key it is another row; the old one was never accepted, so none is removed.
        case.project.sql("update t set k = name where k <> 'ok'");
        case.sends([4, 0, 0]);
        assert_eq!(rejected(&case), []);
        case.quiet();
    }
}

#[test]
fn every_destination_is_spared_text_that_is_not_utf8() {
    let mut case = case_of_bytes(
        "create table t (id integer, name text, other text);
         insert into t values (1, 'a', 'x'), (2, raw('ff'), 'y'), (3, 'c', 'z')",
    );
    let url = PostgresServer::start().fresh_database();
    postgres::run(&url, "create table t (id integer primary key, name text, other text)");
    case.project.set_variable("CRM_DB", &url);
    case.project.write("destinations/db.yml", "type: postgres\nurl: ${CRM_DB}\n");
    case.project.write("destinations/out.yml", "type: files\npath: out\n");
    case.project.write("syncs/to-db.yml", "model: rows\ndestination: db\nmode: mirror\nobject: public.t\n");
    case.project
        .write("syncs/to-file.yml", "model: rows\ndestination: out\nmode: snapshot\nobject: rows.csv\n");
    case.project.write(
        "syncs/templates.yml",
        "model: rows\ndestination: out\nmode: snapshot\nobject: names.jsonl\nmappings:\n  \
         - {template: \"{{ row.name | upper }}\", to: name}\n  - {from: id, to: id}\n",
    );
    // Where the value is not sent it does no harm.
    case.project.write(
        "syncs/others.yml",
        "model: rows\ndestination: out\nmode: snapshot\nobject: others.jsonl\nmappings:\n  \
         - {from: other, to: other}\n",
    );
    for (sync, code, counts) in
        [("to-db", 1, [2, 1]), ("to-file", 1, [2, 1]), ("templates", 1, [2, 1]), ("others", 0, [3, 0])]
    {
        let run = case.project.run(sync);
        assert_eq!((run.code, [run.successful()[0], run.failed()[0]]), (code, counts), "{sync}: {run:#?}");
    }
    let read =
        |name: &str| std::fs::read_to_string(case.project.path().join("out").join(name)).expect("a file");
    assert_eq!(
        postgres::texts(&url, "select name from t order by id"),
        ["a", "c"].map(|n| Some(n.to_owned()))
    );
    assert_eq!(read("rows.csv"), "id,name,other\r\n1,a,x\r\n3,c,z\r\n");
    assert_eq!(read("names.jsonl"), "{\"name\":\"A\",\"id\":1}\n{\"name\":\"C\",\"id\":3}\n");
    assert_eq!(read("others.jsonl").lines().count(), 3);
    case.project.sql("update t set name = 'b' where id = 2");
    let run = case.project.run("to-db");
    assert_eq!((run.code, run.successful()), (0, [1, 0, 0]), "{run:#?}");
}

/// DuckDB holds no such text: it is refused where it would come in, be it while the model runs.
#[test]
fn duckdb_lets_no_text_in_that_is_not_utf8() {
    let case = Case::small(Engine::DuckDb);
    let file = case.project.path().join("bytes.parquet");
    case.project.sql(&format!(
        "copy (select 1 as id, '\\xFF'::blob as name) to '{}' (format parquet)",
        file.display()
    ));
    case.sends([3, 0, 0]);
    for from in [
        "select 1 as id, decode('\\xFF'::blob) as name".to_owned(),
        format!("select id, name from read_parquet('{}', binary_as_string = true)", file.display()),
    ] {
        case.model("id", &from);
        let run = case.fails("MODEL_FAILED", &[]);
        says(&run.message().to_lowercase(), &["utf"]);
        case.model("id", "select * from t");
        case.quiet();
    }
    // A cast is no way in either: it writes the byte out.
    case.project.sql("insert into t values (4, '\\xFF'::blob::text)");
    case.sends([1, 0, 0]);
    assert_eq!(case.receiver.field("4", "name"), json!("\\xFF"));
}
