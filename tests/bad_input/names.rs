//! Names that need quoting, everywhere that names stand.

use tests::on_both_warehouses;
use tests::postgres::{PostgresServer, run as sql, texts};
use tests::project::Engine;

use super::{Case, SYNC};

on_both_warehouses!(
    columns_and_keys_may_have_any_name,
    a_destinations_table_and_fields_may_have_any_name,
    managed_schemas_slugs_and_folders_may_have_any_name
);

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Names that a careless program breaks on.
fn names(engine: Engine) -> Vec<String> {
    let mut names: Vec<String> = [
        "select",
        "group",
        "user",
        "table",
        "m",
        "k",
        "s",
        "d",
        "a b",
        "a\"b",
        "a'b",
        "a;b",
        "a--b",
        "a.b",
        "a{{b}}",
        "a\\b",
        "%s",
        "$1",
        "naïve ☃",
        "日本語",
        "x\ty",
        "Ünïcödé",
        "\u{1f600}",
        "row",
        "previous",
        "key",
        "operation",
        " lead and trail ",
    ]
    .map(str::to_owned)
    .to_vec();
    names.push("n".repeat(63));
    names.push("ü".repeat(31));
    match engine {
        // These two differ in nothing but case.
        Engine::DuckDb => names.push("l".repeat(400)),
        _ => names.extend(["Case".to_owned(), "case".to_owned()]),
    }
    names
}

fn columns_and_keys_may_have_any_name(engine: Engine) {
    let names = names(engine);
    let key = "the \"key\"";
    let columns: Vec<String> = names.iter().map(|n| format!("{} text", quoted(n))).collect();
    let values: Vec<String> = (0..names.len()).map(|i| format!("'v{i}'")).collect();
    let (columns, values) = (columns.join(", "), values.join(", "));
    let case = Case::new(
        engine,
        &format!(
            "create schema \"we ird\"\"s\"; create table \"we ird\"\"s\".\"sélect;\"\"\" ({} integer, {columns}); \
                 insert into \"we ird\"\"s\".\"sélect;\"\"\" values (1, {values}), (2, {values}), (3, {values})",
            quoted(key)
        ),
    );
    let table = "\"we ird\"\"s\".\"sélect;\"\"\"";
    case.model(key, &format!("select * from {table}"));
    case.check_passes();
    case.sends([3, 0, 0]);
    for (i, name) in names.iter().enumerate() {
        assert_eq!(case.receiver.field("2", name), format!("v{i}"), "{name}");
    }
    case.quiet();
    case.project.sql(&format!("update {table} set {} = null where {} = 2", quoted(&names[3]), quoted(key)));
    let before = case.receiver.count();
    case.sends([0, 1, 0]);
    let request = &case.receiver.since(before)[0];
    assert_eq!(request.body["rows"][0]["changed"], serde_json::json!([names[3]]));
    // The same as a table, which levin quotes itself.
    let model = serde_json::json!({ "source": "wh", "primary_key": key, "table": table });
    case.project.write("models/rows.yml", &model.to_string());
    case.quiet();
    case.project.sql(&format!("delete from {table} where {} = 3", quoted(key)));
    case.sends([0, 0, 1]);
    case.quiet();
}

fn a_destinations_table_and_fields_may_have_any_name(engine: Engine) {
    let case = Case::small(engine);
    let names: Vec<String> = names(Engine::Postgres);
    let columns: Vec<String> = names.iter().map(|n| format!("{} text", quoted(n))).collect();
    let url = PostgresServer::start().fresh_database();
    let table = "\"Sch\"\"ema\".\"tà ble\"";
    sql(
        &url,
        &format!(
            "create schema \"Sch\"\"ema\"; create table {table} (\"i\"\"d\" integer primary key, {})",
            columns.join(", ")
        ),
    );
    let mut mappings = vec![serde_json::json!({ "from": "id", "to": "i\"d" })];
    mappings.extend(names.iter().map(|n| serde_json::json!({ "from": "name", "to": n })));
    let sync = serde_json::json!({
        "model": "rows", "destination": "crm", "mode": "mirror", "object": table,
        "match": { "from": "id", "to": "i\"d" }, "mappings": mappings,
    });
    case.project.write("destinations/crm.yml", &format!("type: postgres\nurl: {url}\n"));
    case.project.write(&format!("syncs/{SYNC}.yml"), &sync.to_string());
    case.sends([3, 0, 0]);
    case.quiet();
    case.project.sql("update t set name = 'it''s \"new\"' where id = 1; delete from t where id = 3");
    case.sends([0, 1, 1]);
    let last = quoted(&names[names.len() - 1]);
    let there = texts(&url, &format!("select \"i\"\"d\" || {last} from {table} order by 1"));
    assert_eq!(there, [Some("1it's \"new\"".to_owned()), Some("2b".to_owned())]);
}

fn managed_schemas_slugs_and_folders_may_have_any_name(engine: Engine) {
    let case = Case::small(engine);
    let source = match engine {
        Engine::DuckDb => "type: duckdb\npath: warehouse.duckdb\n",
        _ => "type: postgres\nurl: ${WAREHOUSE_URL}\n",
    };
    case.project.write(
        "sources/wh.yml",
        &format!("{source}planner_schema: 'levin \"plan\" äöü'\naudit_schema: select\n"),
    );
    let slug = "a-very-long-slug-".repeat(8);
    case.project.remove(&format!("syncs/{SYNC}.yml"));
    case.project.write(
        "syncs/long.yml",
        &format!(
            "slug: {slug}\nmodel: rows\ndestination: crm\nmode: mirror\neach: {{method: POST, path: /rows}}\n"
        ),
    );
    case.check_passes();
    let run = case.project.run(&slug);
    assert_eq!((run.code, run.successful()), (0, [3, 0, 0]), "{run:#?}");
    let run = case.project.run(&slug);
    assert_eq!((run.code, run.planned()), (0, [0, 0, 0]), "{run:#?}");
    let audit = case.project.texts("select cast(count(*) as text) from \"select\".sync_runs");
    assert_eq!(audit, [Some("1".to_owned())]);
    let gc = case.project.levin(&["gc"]);
    assert_eq!(gc.code, 0, "{gc:#?}");
}

#[test]
fn names_that_an_engine_would_cut_or_confuse_are_told_apart_or_refused() {
    // PostgreSQL cuts names after 63 bytes: two that agree so far are one.
    let case = Case::small(Engine::Postgres);
    let long = "c".repeat(63);
    case.model("id", &format!("select id, name as {long}x, name as {long}y from t"));
    case.fails("MODEL_DUPLICATE_COLUMN", &[&format!("`{long}` more than once")]);
    case.model("id", &format!("select id, name as {long}x from t"));
    case.sends([3, 0, 0]);
    assert_eq!(case.receiver.field("1", &long), "a");
    case.quiet();

    // DuckDB holds names that differ in case for one.
    let case = Case::small(Engine::DuckDb);
    case.model("id", "select id, name, name as \"NAME\" from t");
    let run = case.run();
    assert_eq!((run.code, run.status(), run.error()), (2, "failed", "MODEL_DUPLICATE_COLUMN"), "{run:#?}");
    case.model("ID", "select id, name from t");
    let run = case.run();
    assert_eq!((run.code, run.error()), (2, "MODEL_KEY_MISSING"), "{run:#?}");
    assert!(
        run.report["error"]["hint"].as_str().unwrap_or_default().contains("did you mean `id`?"),
        "{run:#?}"
    );
}
