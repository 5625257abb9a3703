//! The Databricks driver, against the double.

#[path = "databricks/trouble.rs"]
mod trouble;

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Date32Type, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use connectors::warehouse::{ErrorKind, Session, Warehouse, WarehouseError};
use futures::TryStreamExt;
use serde_json::{Value, json};
use sql_templates::{Atomicity, Expect, LogicalType, TableRef};
use tests::databricks::{DatabricksDouble, DatabricksWorkspace};

use super::{number, open, rows, run, script, source, sql, until};

const HUNDRED_THOUSAND: &str =
    "select cast(n as bigint) as n from (select explode(sequence(1, 100000)) as n)";
/// What a table must be for a block to write it.
const MANAGED: &str = "tblproperties ('delta.feature.catalogManaged' = 'supported')";

fn workspace() -> DatabricksWorkspace {
    DatabricksDouble::start().fresh_workspace()
}

fn with(workspace: &DatabricksWorkspace, change: &Value) -> Arc<dyn Warehouse> {
    let mut config = workspace.source();
    for (key, value) in change.as_object().expect("keys") {
        config[key] = value.clone();
    }
    config.as_object_mut().expect("keys").remove("type");
    source("databricks", config, Path::new("/")).expect("a source")
}

fn at(workspace: &DatabricksWorkspace) -> Arc<dyn Warehouse> {
    with(workspace, &json!({}))
}

async fn failed(session: &mut dyn Session, select: &str) -> WarehouseError {
    rows(session, select).await.expect_err("the statement fails")
}

/// How often a path was asked for whose name holds this.
fn asked(workspace: &DatabricksWorkspace, path: &str) -> usize {
    let told = workspace.told();
    let requests = told["requests"].as_array().expect("a list").iter().filter_map(Value::as_str);
    requests.filter(|request| request.contains(path)).count()
}

/// The states of statements whose text holds this.
fn states(workspace: &DatabricksWorkspace, holds: &str) -> Vec<String> {
    let told = workspace.told();
    let all = told["statements"].as_array().expect("a list").iter();
    let like = all.filter(|s| s["sql"].as_str().is_some_and(|sql| sql.contains(holds)));
    like.map(|s| s["state"].as_str().expect("a state").to_owned()).collect()
}

async fn table(session: &mut dyn Session) {
    run(
        session,
        &[&format!("create table t {MANAGED} as select cast(0 as bigint) as id, '' as v where 1 = 0")],
    )
    .await;
}

#[tokio::test]
async fn scripts_are_all_or_nothing() {
    let workspace = workspace();
    let warehouse = at(&workspace);
    let mut session = open(&*warehouse).await;
    table(&mut *session).await;
    for atomicity in [Atomicity::Snapshot, Atomicity::Transaction] {
        run(&mut *session, &["delete from t"]).await;
        let steps = [
            ("insert into t values (1, 'a'), (2, 'b'), (3, null) -- three", Expect::Any),
            ("update t set v = 'it\\'s; end' where id = 1", Expect::OneRow),
            ("delete from t where id > 1", Expect::Any),
        ];
        let effect = session.execute(&script(atomicity, &steps)).await.unwrap();
        let counts: Vec<_> = effect.steps.iter().map(|s| s.rows).collect();
        assert_eq!(counts, [Some(3), Some(1), Some(2)]);
        let left = rows(&mut *session, "select v from t").await.unwrap();
        assert_eq!(left[0].column(0).as_string::<i32>().value(0), "it's; end");

        for (fails, kind) in [
            ("insert into t select cast('x' as int), 'y'", ErrorKind::Data),
            ("insert into t select id, v from nowhere", ErrorKind::NotFound),
            ("create table made as select 1 as one", ErrorKind::Unsupported),
        ] {
            let steps = [("insert into t values (7, 'x')", Expect::Any), (fails, Expect::Any)];
            let failed = session.execute(&script(atomicity, &steps)).await.unwrap_err();
            assert_eq!((failed.kind, failed.step.as_deref()), (kind, Some("step 2")), "{failed}");
            assert_eq!(number(&mut *session, "select count(*) from t").await, 1);
        }
        for fenced in ["update t set v = 'z' where id = 999", "insert into t values (21, 'x'), (22, 'y')"] {
            let steps = [("insert into t values (8, 'x')", Expect::Any), (fenced, Expect::OneRow)];
            let failed = session.execute(&script(atomicity, &steps)).await.unwrap_err();
            assert_eq!(
                (failed.kind, failed.step.as_deref()),
                (ErrorKind::Fenced, Some("step 2")),
                "{failed}"
            );
            let alone = session.execute(&script(atomicity, &steps[1..])).await.unwrap_err();
            assert_eq!((alone.kind, alone.step.as_deref()), (ErrorKind::Fenced, Some("step 1")), "{alone}");
            assert_eq!(number(&mut *session, "select count(*) from t").await, 1);
        }
    }
    // What has no place in a block is refused before it is sent.
    let mixed = [("insert into t values (9, 'z')", Expect::Any), ("select id from t", Expect::Rows)];
    for atomicity in [Atomicity::Transaction, Atomicity::Rehearsal] {
        let refused = session.execute(&script(atomicity, &mixed)).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Unsupported, "{refused}");
    }
    assert_eq!(number(&mut *session, "select count(*) from t").await, 1);

    // Separate steps stand alone: what was done before one that fails stays.
    let steps = [
        ("insert into t values (2, 'b')", Expect::OneRow),
        ("select id from t order by id", Expect::Rows),
        ("selec 1", Expect::Any),
        ("insert into t values (3, 'c')", Expect::Any),
    ];
    let failed = session.execute(&script(Atomicity::Separate, &steps)).await.unwrap_err();
    assert_eq!((failed.kind, failed.step.as_deref()), (ErrorKind::Invalid, Some("step 3")), "{failed}");
    assert_eq!(number(&mut *session, "select count(*) from t").await, 2);
}

#[tokio::test]
async fn results_come_in_chunks_and_no_more_is_held_than_is_read() {
    let workspace = workspace();
    let warehouse = at(&workspace);
    let mut session = open(&*warehouse).await;
    let mut stream = session.query(&sql(&format!("{HUNDRED_THOUSAND} order by n"))).await.unwrap();
    let (mut read, mut next) = (0, 1);
    while let Some(batch) = stream.try_next().await.unwrap() {
        assert!(batch.num_rows() <= 8_192);
        let numbers = batch.column(0).as_primitive::<Int64Type>().clone();
        for number in numbers.values() {
            assert_eq!(*number, next);
            next += 1;
        }
        read += batch.num_rows();
        let chunks = asked(&workspace, "GET /links");
        assert!(chunks <= read.div_ceil(10_000), "{chunks} chunks for {read} rows");
    }
    drop(stream);
    assert_eq!(read, 100_000);
    let empty = rows(&mut *session, "select 1 as one where 1 = 0").await.unwrap();
    assert_eq!(empty.iter().map(RecordBatch::num_rows).sum::<usize>(), 0);
}

#[tokio::test]
async fn columns_are_described_without_running() {
    let workspace = workspace();
    let warehouse = at(&workspace);
    let mut session = open(&*warehouse).await;
    run(
        &mut *session,
        &["create table d (id bigint, price decimal(12,2), name string, ok boolean, ratio double, day date, \
           plain timestamp_ntz, instant timestamp, bin binary, list array<int>, doc variant, `Mixed x` int)"],
    )
    .await;
    let columns = session.describe(&sql("select * from d")).await.unwrap();
    let read: Vec<_> = columns.iter().map(|c| (c.name.as_str(), c.engine_type.as_str(), c.logical)).collect();
    assert_eq!(
        read,
        [
            ("id", "bigint", LogicalType::Integer),
            ("price", "decimal(12,2)", LogicalType::Decimal),
            ("name", "string", LogicalType::Text),
            ("ok", "boolean", LogicalType::Boolean),
            ("ratio", "double", LogicalType::Float),
            ("day", "date", LogicalType::Date),
            ("plain", "timestamp_ntz", LogicalType::Timestamp),
            ("instant", "timestamp", LogicalType::TimestampTz),
            ("bin", "binary", LogicalType::Binary),
            ("list", "array<int>", LogicalType::Json),
            ("doc", "variant", LogicalType::Json),
            ("Mixed x", "int", LogicalType::Integer),
        ]
    );
    let failed = session.describe(&sql("select * from nowhere")).await.unwrap_err();
    assert_eq!(failed.kind, ErrorKind::NotFound);
    let failed = session.describe(&sql("select interval '1' day as span")).await.unwrap_err();
    assert_eq!(failed.kind, ErrorKind::Unsupported);
    assert!(failed.message.contains("span") && failed.message.contains("cast it"), "{failed}");
}

#[tokio::test]
async fn values_keep_what_they_are() {
    let workspace = workspace();
    let warehouse = at(&workspace);
    let mut session = open(&*warehouse).await;
    let batches = rows(
        &mut *session,
        "select 9223372036854775807 as big, cast(-1.5 as decimal(12,2)) as price, 'ä' as txt, true as yes, \
         cast(0.1 as double) as f, date'1969-12-31' as day, timestamp_ntz'1969-12-31 23:59:59.999999' as plain, \
         timestamp'2026-11-20 10:00:00+01:00' as instant, x'00ff' as bin, cast(null as int) as nothing",
    )
    .await
    .unwrap();
    let column = |name: &str| batches[0].column_by_name(name).unwrap_or_else(|| panic!("{name}"));
    let text = |name: &str| column(name).as_string::<i32>().value(0).to_owned();
    assert_eq!(column("big").as_primitive::<Int64Type>().value(0), i64::MAX);
    assert_eq!((text("price").as_str(), text("txt").as_str()), ("-1.50", "ä"));
    assert!(column("yes").as_boolean().value(0));
    assert_eq!(column("f").as_primitive::<Float64Type>().value(0).to_bits(), 0.1_f64.to_bits());
    assert_eq!(column("day").as_primitive::<Date32Type>().value(0), -1);
    assert_eq!(column("plain").as_primitive::<TimestampMicrosecondType>().value(0), -1);
    assert_eq!(column("plain").data_type(), &DataType::Timestamp(TimeUnit::Microsecond, None));
    let instant = column("instant");
    assert_eq!(
        instant.as_primitive::<TimestampMicrosecondType>().value(0),
        1_763_629_200_000_000 + 31_536_000_000_000
    );
    assert_eq!(instant.data_type(), &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())));
    assert_eq!(column("bin").as_binary::<i32>().value(0), [0, 255]);
    assert!(column("nothing").is_null(0));
}

#[tokio::test]
async fn loading_matches_columns_by_name_all_or_none() {
    let workspace = workspace();
    let warehouse = at(&workspace);
    let mut session = open(&*warehouse).await;
    run(
        &mut *session,
        &["create schema s", "create table s.t (id bigint, name string, ok boolean, extra int)"],
    )
    .await;
    let target = TableRef::new("s", "t").unwrap();
    let batch = |from: i64, to: i64, text: &str| {
        let numbers: Vec<i64> = (from..to).collect();
        let columns: [(&str, ArrayRef); 3] = [
            ("ok", Arc::new(BooleanArray::from(vec![true; numbers.len()]))),
            ("name", Arc::new(StringArray::from(vec![Some(text); numbers.len()]))),
            ("id", Arc::new(Int64Array::from(numbers))),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(n, a)| (n, a, true))).unwrap()
    };
    let hard = "it's \\ \"quoted\" :rows\n; 👩‍👩‍👧";
    assert_eq!(session.load(&target, vec![batch(0, 2, hard), batch(2, 3, hard)]).await.unwrap(), 3);
    let read = rows(&mut *session, "select name, ok, extra from s.t where id = 2").await.unwrap();
    assert_eq!(read[0].column(0).as_string::<i32>().value(0), hard);
    assert!(read[0].column(1).as_boolean().value(0) && read[0].column(2).is_null(0));
    assert_eq!(session.load(&target, vec![batch(0, 0, "")]).await.unwrap(), 0);
    assert_eq!(session.load(&target, Vec::new()).await.unwrap(), 0);

    // More than one request holds: they come into the table together.
    let long = "x".repeat(20_000);
    assert_eq!(session.load(&target, vec![batch(10, 310, &long)]).await.unwrap(), 300);
    assert_eq!(number(&mut *session, "select count(*) from s.t").await, 303);
    let aside = "select count(*) from information_schema.tables where table_schema = 's'";
    assert_eq!(number(&mut *session, aside).await, 1, "nothing is left aside");

    let unknown = RecordBatch::try_from_iter([("nope", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]);
    let refused = session.load(&target, vec![unknown.unwrap()]).await.unwrap_err();
    assert!(refused.kind == ErrorKind::NotFound && refused.message.contains("nope"), "{refused}");
    assert_eq!(number(&mut *session, "select count(*) from s.t").await, 303);
}

#[tokio::test]
async fn every_statement_says_whose_it_is() {
    let workspace = workspace();
    let warehouse = at(&workspace);
    let mut session = open(&*warehouse).await;
    table(&mut *session).await;
    session.describe(&sql("select * from t")).await.unwrap();
    rows(&mut *session, "select * from t").await.unwrap();
    let steps = [("insert into t values (1, 'a')", Expect::OneRow)];
    session.execute(&script(Atomicity::Transaction, &steps)).await.unwrap();
    let id = session.id().unwrap();
    let told = workspace.told();
    let all = told["statements"].as_array().unwrap();
    assert_eq!(all.len(), 4);
    for statement in all {
        let said = format!("/* levin sync=customers-to-crm run=1 stage=diff session={id} */\n");
        assert!(statement["sql"].as_str().unwrap().starts_with(&said), "{statement}");
        assert_eq!(statement["tags"][0], json!({"key": "levin_sync", "value": "customers-to-crm"}));
    }
}
