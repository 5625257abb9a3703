//! What people and programs look at: samples, previews, pages, lists of tables, the audit.

use sql_templates::{
    AUDIT_COUNTS, AuditFacts, DeliverFacts, DiffShape, Ident, ModelSql, PlainTable, Sql, Statement, TableRef,
};

use super::trial::{Counts, DiffRow, EVERY, Ending, Exception, Found, Question, Trial, number, row, texts};
use super::{Bench, on_every_warehouse};

on_every_warehouse!(
    plans_count_columns_and_show_samples,
    rows_leave_in_pages,
    previews_show_the_models_own_rows,
    relations_are_told_apart,
    managed_tables_are_found_by_their_exact_prefix,
    audits_hold_one_row_per_run,
    names_of_any_kind_are_columns,
    a_column_hides_the_engines_row_numbers,
);

async fn plans_count_columns_and_show_samples(bench: Bench) {
    bench
        .setup(&[
            "create table people (id bigint, email text, n int, city text)",
            "insert into people values (1, 'a', 1, 'x'), (2, 'b', 2, 'x'), (3, 'c', 3, null), (4, 'd', 4, 'x')",
        ])
        .await;
    let mut trial = Trial::begin(bench, 1, "select * from people", &["id"]).await;
    trial.accept_all(Question::FIRST).await;
    trial
        .bench
        .setup(&[
            "update people set email = 'z' where id < 3",
            "update people set city = 'y' where id = 3",
            "delete from people where id = 4",
            "insert into people values (5, 'e', 5, 'x'), (6, 'e', 5, 'x'), (6, 'e', 5, 'x'), (7, 'f', 6, 'x'), (7, 'f', 6, 'x'), (7, 'f', 6, 'x')",
        ])
        .await;
    let found = trial.diff(Question::default()).await;
    let shape = trial.shape.clone();
    let effect =
        trial.run(&[Statement::ChangedColumns { shape: &shape, diff: found.table.clone() }]).await.unwrap();
    let counts = ["n0", "n1", "n2"].map(|n| number(&effect, "count the changed columns", n));
    assert_eq!(counts, [2, 0, 1]);

    for (operation, step, expected) in
        [("changed", "sample changed", 2), ("removed", "sample removed", 1), ("added", "sample added", 1)]
    {
        let facts = DeliverFacts {
            diff: found.table.clone(),
            diff_shape: DiffShape::Full,
            operation,
            previous: &shape.columns,
            after: None,
            through: None,
            limit: Some(2),
            waits: None,
        };
        let effect = trial.run(&[Statement::Samples { shape: &shape, facts: &facts }]).await.unwrap();
        let rows: usize = effect.result(step).iter().map(|b| b.num_rows()).sum();
        assert_eq!(rows, expected, "{operation}");
    }
    let set_aside = found.set_aside.clone().unwrap();
    let effect =
        trial.run(&[Statement::SetAsideSamples { shape: &shape, set_aside, limit: 5 }]).await.unwrap();
    let samples = effect.result("sample the keys set aside");
    assert_eq!(texts(samples, 0), row(&["7", "6"]));
    assert_eq!(texts(samples, 1), row(&["3", "2"]));
    assert_eq!(texts(samples, 2), row(&["DUPLICATE_PRIMARY_KEY", "DUPLICATE_PRIMARY_KEY"]));
}

async fn rows_leave_in_pages(bench: Bench) {
    bench.setup(&["create table people (id bigint, email text)"]).await;
    let many = match bench.engine() {
        "databricks" => "insert into people select n, 'e' || n from (select explode(sequence(1, 100)) as n)",
        "duckdb" => "insert into people select range, 'e' || range from range(1, 101)",
        "mariadb" => "insert into people select seq, concat('e', seq) from seq_1_to_100",
        "redshift" => {
            "insert into people select n, 'e' || n from (select 10 * t.d + o.d + 1 as n \
             from (select 0 as d union all select 1 union all select 2 union all select 3 union all select 4 \
             union all select 5 union all select 6 union all select 7 union all select 8 union all select 9) as t \
             cross join (select 0 as d union all select 1 union all select 2 union all select 3 union all select 4 \
             union all select 5 union all select 6 union all select 7 union all select 8 union all select 9) as o) as numbers"
        }
        "snowflake" => {
            "insert into people select seq4() + 1, 'e' || (seq4() + 1) from table(generator(rowcount => 100))"
        }
        _ => "insert into people select n, 'e' || n from generate_series(1, 100) as n",
    };
    bench.setup(&[many]).await;
    let mut trial = Trial::begin(bench, 1, "select * from people", &["id"]).await;
    let first = trial.diff(Question::FIRST).await;
    assert_eq!(pages_hold_every_row(&mut trial, &first, "added").await, 100);
    trial.commit(&first, Ending { adopt: true, ..Ending::default() }).await.unwrap();
    trial.take_lease().await;
    trial
        .bench
        .setup(&["update people set email = 'z' where id % 3 = 0", "delete from people where id % 7 = 0"])
        .await;
    let full = trial.diff(Question::default()).await;
    let mut counts = Vec::new();
    for operation in EVERY {
        counts.push(pages_hold_every_row(&mut trial, &full, operation).await);
    }
    assert_eq!(counts, [0, 29, 14]);
}

/// Reads one operation in pages of seven and compares them with the whole.
async fn pages_hold_every_row(trial: &mut Trial, found: &Found, operation: &'static str) -> usize {
    let mut all: Vec<_> = found.rows.iter().filter(|r| r.operation == operation).cloned().collect();
    all.sort_by_key(|r| r.sequence);
    let last = found.rows.iter().map(|r| r.sequence).max().unwrap_or_default();
    let mut paged: Vec<DiffRow> = Vec::new();
    let mut after = -1;
    while after < last {
        let page = trial.delivered(&found.table, found.shape, operation, Some(after), Some(after + 7)).await;
        assert!(page.len() <= 7, "{operation}");
        paged.extend(page);
        after += 7;
    }
    assert_eq!(paged, all, "{operation}");
    paged.len()
}

async fn previews_show_the_models_own_rows(bench: Bench) {
    bench
        .setup(&[
            "create table people (id bigint, email text)",
            "insert into people values (1, null), (1, 'b')",
        ])
        .await;
    let mut trial = Trial::begin(bench, 1, "select id, email from people order by email", &["id"]).await;
    let (shape, model) = (trial.shape.clone(), trial.model.clone());
    for (limit, expected) in [(1, 1), (20, 2)] {
        let effect = trial.run(&[Statement::Preview { shape: &shape, model: &model, limit }]).await.unwrap();
        let rows: usize = effect.result("preview").iter().map(|b| b.num_rows()).sum();
        assert_eq!(rows, expected);
    }
}

async fn relations_are_told_apart(bench: Bench) {
    bench
        .setup(&[
            "create schema sales",
            "create table sales.orders (id int)",
            "create table orders (id int)",
            "create view seen as select * from orders",
        ])
        .await;
    // BigQuery keeps a catalogue for each dataset: what is named without one is not looked for.
    let by_dataset = bench.engine() == "bigquery";
    let somewhere = |found| if by_dataset { (0, 0) } else { found };
    // In one schema, the session's own.
    let in_one = matches!(bench.engine(), "databricks" | "mariadb");
    let mut trial = Trial::begin(bench, 1, "select id from orders", &["id"]).await;
    for (schema, name, expected) in [
        (Some("sales"), "orders", (1, 1)),
        (None, "orders", if in_one { (1, 1) } else { somewhere((2, 2)) }),
        (None, "seen", somewhere((1, 0))),
        (Some("sales"), "seen", (0, 0)),
        (None, "no'such", (0, 0)),
    ] {
        let (schema, name) = (schema.map(|s| trial.bench.folded(s)), trial.bench.folded(name));
        let kind = Statement::RelationKind { schema: schema.as_deref(), name: &name };
        let effect = trial.run(&[kind]).await.unwrap();
        let count = |column| number(&effect, "look at the relation", column);
        assert_eq!((count("found"), count("tables")), expected, "{schema:?} {name}");
        // The same, asked for with the managed tables.
        let (relation, tables) = (PlainTable { schema, name }, trial.tables.clone());
        let planner = tables.planner_schema();
        let list = Statement::ManagedTables { schema: planner, prefix: "none", relation: Some(&relation) };
        let effect = trial.run(&[list]).await.unwrap();
        let kinds = texts(effect.result("list the managed tables"), 1);
        let tables = kinds.iter().filter(|kind| kind.as_deref() == Some("table")).count();
        assert_eq!((kinds.len() as i64, tables as i64), expected, "{relation:?}: {kinds:?}");
    }
}

async fn managed_tables_are_found_by_their_exact_prefix(bench: Bench) {
    bench.setup(&["create table people (id bigint)"]).await;
    let mut trial = Trial::begin(bench, 1, "select id from people", &["id"]).await;
    let found = trial.diff(Question::FIRST).await;
    let make = ["p_1%x_a", "p_1yx_a", "pa1%x_a", "p_1%xya", "p\\1_a", "P_1%X_a2"].map(|name| {
        format!("create table {}.{} (id int)", trial.bench.planner_schema, trial.bench.quoted(name))
    });
    trial.bench.setup(&make.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let tables = trial.tables.clone();
    for (prefix, expected) in [
        (
            "p6f0c2a9e_s1",
            vec![
                "p6f0c2a9e_s1_diff_1",
                "p6f0c2a9e_s1_doubts",
                "p6f0c2a9e_s1_rejections",
                "p6f0c2a9e_s1_snapshot",
                "p6f0c2a9e_s1_state",
            ],
        ),
        ("p6f0c2a9e_s", vec![]),
        ("p_1%x", vec!["p_1%x_a"]),
        ("p\\1", vec!["p\\1_a"]),
        ("%", vec![]),
    ] {
        let list = Statement::ManagedTables { schema: tables.planner_schema(), prefix, relation: None };
        let effect = trial.run(&[list]).await.unwrap();
        assert_eq!(texts(effect.result("list the managed tables"), 0), row(&expected), "{prefix}");
    }
    let leftover = tables.recorded(found.table.name.name()).unwrap();
    assert!(tables.word_of(leftover.name.name()).is_some());
    // Dropped once, and dropping what is not there is no trouble.
    let gone = TableRef::new(&trial.bench.planner_schema, "never \"there\"").unwrap();
    let drop = [leftover, gone];
    for _ in 0..2 {
        trial.run(&[Statement::Prune { drop: &drop }]).await.unwrap();
    }
}

async fn audits_hold_one_row_per_run(bench: Bench) {
    bench.setup(&["create table people (id bigint)"]).await;
    let mut trial = Trial::begin(bench, 1, "select id from people", &["id"]).await;
    let tables = trial.tables.clone();
    for (run, error) in [(1, None), (2, Some("it's \\ broken\n;"))] {
        let facts = AuditFacts {
            sync_id: 1,
            run,
            primary_key: "id, \"tenant\"",
            destination: "postgres",
            model_name: "people",
            error,
            status: if error.is_some() { "failed" } else { "succeeded" },
            started_at: "2026-11-21T09:00:00.25Z",
            finished_at: "2026-11-21T10:00:05Z",
            numbers: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
        };
        trial.run(&[Statement::AuditRun { tables: &tables, facts: &facts }]).await.unwrap();
    }
    let columns = ["sync_run_id", "error", "status", "primary_key", AUDIT_COUNTS[0], AUDIT_COUNTS[11]];
    assert_eq!(
        trial.table(&tables.sync_runs(), &columns).await,
        [
            row(&["1", "∅", "succeeded", "id, \"tenant\"", "1", "12"]),
            row(&["2", "it's \\ broken\n;", "failed", "id, \"tenant\"", "1", "12"]),
        ]
    );
    let took = format!(
        "select cast(extract(epoch from (finished_at - started_at)) as double precision) as s from {}",
        tables.sync_runs()
    );
    let took = match trial.bench.engine() {
        "databricks" => format!(
            "select cast(unix_micros(finished_at) - unix_micros(started_at) as double) / 1000000 as s from {}",
            tables.sync_runs()
        ),
        "mariadb" => format!(
            "select timestampdiff(microsecond, started_at, finished_at) / 1e6 as s from {}",
            tables.sync_runs()
        ),
        "redshift" => format!(
            "select cast(datediff(millisecond, started_at, finished_at) as double precision) / 1000 as s from {}",
            tables.sync_runs()
        ),
        "snowflake" => format!(
            "select datediff('millisecond', started_at, finished_at) / 1000.0 as s from {}",
            tables.sync_runs()
        ),
        _ => took,
    };
    let took = trial.rows(&Sql::for_tests(&took)).await;
    assert_eq!(texts(&took, 0), row(&["3604.75", "3604.75"]));
}

async fn a_column_hides_the_engines_row_numbers(bench: Bench) {
    bench
        .setup(&[
            "create table people (\"RowId\" bigint, email text)",
            "insert into people values (7, 'a'), (7000, 'b'), (null, 'c')",
        ])
        .await;
    let mut trial = Trial::begin(bench, 1, "select * from people", &["email"]).await;
    let found = trial.diff(Question::FIRST).await;
    let two = found.rows.iter().find(|r| r.key == [Some("b".to_owned())]).unwrap().sequence;
    let exceptions = vec![(two, Exception::Rejected)];
    trial.commit(&found, Ending { exceptions, adopt: true, ..Ending::default() }).await.unwrap();
    assert_eq!(trial.snapshot().await.len(), 2, "the refused row alone is left out");
    trial.bench.setup(&["update people set \"RowId\" = 1 where email <> 'b'"]).await;
    trial.take_lease().await;
    let found = trial.accept_all(Question::default()).await;
    assert_eq!(found.counts, Counts { queried: 3, added: 1, changed: 2, ..Counts::default() });
    let next = trial.diff(Question::default()).await;
    assert_eq!(next.counts, Counts { queried: 3, ..Counts::default() });
}

async fn names_of_any_kind_are_columns(bench: Bench) {
    let names = [
        "k",
        "m",
        "d",
        "f",
        "s",
        "t",
        "select",
        "O\"Brien's",
        "wïth spaçe",
        "a.b",
        "UPPER",
        "--",
        "k0",
        "sequence",
        "x;y",
    ];
    let quoted: Vec<String> = names.iter().map(|n| format!("\"{}\"", n.replace('"', "\"\""))).collect();
    let columns: Vec<String> = quoted.iter().map(|n| format!("{n} text")).collect();
    let nulls = vec!["null"; names.len() - 2].join(", ");
    bench
        .setup(&[
            "create schema \"my; schema\"",
            &format!("create table \"my; schema\".\"the \"\"table\"\"\" ({})", columns.join(", ")),
            &format!("insert into \"my; schema\".\"the \"\"table\"\"\" values ('1', 'a', {nulls}), ('2', 'b', {nulls})"),
        ])
        .await;
    let mut trial =
        Trial::begin(bench, 1, "select * from \"my; schema\".\"the \"\"table\"\"\"", &["k", "m"]).await;
    let table =
        ModelSql::table(Some(Ident::new("my; schema").unwrap()), Ident::new("the \"table\"").unwrap());
    assert_eq!(trial.model.plain_table(), table.plain_table());
    trial.model = table;
    trial.accept_all(Question { plain: true, ..Question::FIRST }).await;
    let set: Vec<String> = quoted[2..].iter().map(|n| format!("{n} = 'it''s'")).collect();
    trial
        .bench
        .setup(&[&format!(
            "update \"my; schema\".\"the \"\"table\"\"\" set {} where k = '1'",
            set.join(", ")
        )])
        .await;
    let found = trial.accept_all(Question { plain: true, ..Question::default() }).await;
    let [changed] = found.rows.as_slice() else { panic!("one change: {found:?}") };
    assert_eq!(changed.changed, Some("1".repeat(names.len() - 2)));
    assert!(changed.values.iter().all(|v| v.as_deref() == Some("it's")));
    assert!(changed.previous.iter().all(Option::is_none));
    assert!(trial.diff(Question::default()).await.rows.is_empty());
}
