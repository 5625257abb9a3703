//! The BigQuery driver: on the double, and before a front that plays what the double never does.

#[path = "bigquery/auth.rs"]
mod auth;
#[path = "bigquery/jobs.rs"]
mod jobs;

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Float64Array, Int64Array, RecordBatch,
    StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Date32Type, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use connectors::warehouse::{ErrorKind, Session, Warehouse};
use futures::TryStreamExt;
use serde_json::{Value, json};
use sql_templates::{Atomicity, Expect, LogicalType, TableRef};
use tests::bigquery::BigqueryDouble;
use tests::front::{Answer, Front};

use super::{error, number, open, results_stream, rows, run, script, source, sql};

/// A warehouse on an empty project of the double, or of a front before it, with a dataset `d` that names without one
/// are looked for in.
async fn at(url: &str, more: Value) -> Arc<dyn Warehouse> {
    let double = BigqueryDouble::start();
    let project = double.fresh_project();
    let direct = configured(&double.url(), &project, json!({}));
    run(&mut *open(&*direct).await, &["create schema d"]).await;
    configured(url, &project, more)
}

fn configured(url: &str, project: &str, more: Value) -> Arc<dyn Warehouse> {
    let mut config =
        json!({"project": project, "endpoint": url, "auth": "none", "dataset": "d", "location": "US"});
    for (key, value) in more.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    source("bigquery", config, Path::new("/")).unwrap()
}

async fn warehouse() -> Arc<dyn Warehouse> {
    at(&BigqueryDouble::start().url(), json!({})).await
}

async fn table(session: &mut dyn Session) {
    run(
        session,
        &["create table d.t (id int64, v string)", "insert into d.t values (1, 'a'), (2, 'b'), (3, null)"],
    )
    .await;
}

#[tokio::test]
async fn describe_maps_every_type_without_running_anything() {
    let warehouse = warehouse().await;
    let mut session = open(&*warehouse).await;
    let cases = [
        ("true", "bool", LogicalType::Boolean),
        ("1", "int64", LogicalType::Integer),
        ("cast(1.5 as numeric)", "numeric", LogicalType::Decimal),
        ("1.5e0", "float64", LogicalType::Float),
        ("'a'", "string", LogicalType::Text),
        ("b'a'", "bytes", LogicalType::Binary),
        ("date '2026-11-20'", "date", LogicalType::Date),
        ("datetime '2026-11-20 12:00:00'", "datetime", LogicalType::Timestamp),
        ("timestamp '2026-11-20 12:00:00+00'", "timestamp", LogicalType::TimestampTz),
        ("time '10:00:00'", "time", LogicalType::Time),
        ("interval 1 day", "interval", LogicalType::Interval),
        ("json '{}'", "json", LogicalType::Json),
        ("[1, 2]", "array<int64>", LogicalType::Json),
        ("struct(1 as a, 'x' as b)", "struct<`a` int64, `b` string>", LogicalType::Json),
    ];
    let list: Vec<String> = cases.iter().enumerate().map(|(i, c)| format!("{} as C_{i}", c.0)).collect();
    let columns = session.describe(&sql(&format!("select {}", list.join(", ")))).await.unwrap();
    assert_eq!(columns.len(), cases.len());
    for (i, (column, case)) in columns.iter().zip(&cases).enumerate() {
        assert_eq!(column.name, format!("C_{i}"));
        assert_eq!((column.engine_type.as_str(), column.logical), (case.1, case.2), "{}", case.0);
    }
    table(&mut *session).await;
    session.describe(&sql("select * from d.t")).await.unwrap();
    let missing = session.describe(&sql("select * from d.nowhere")).await.unwrap_err();
    assert_eq!(missing.kind, ErrorKind::NotFound, "{missing}");
}

#[tokio::test]
async fn scripts_are_one_transaction() {
    let warehouse = warehouse().await;
    let mut session = open(&*warehouse).await;
    table(&mut *session).await;
    for atomicity in [Atomicity::Snapshot, Atomicity::Transaction] {
        run(&mut *session, &["delete from t where true"]).await;
        let effect = session
            .execute(&script(
                atomicity,
                &[
                    ("insert into t values (1, 'a'), (2, 'b'), (3, null) -- three", Expect::Any),
                    ("update t set v = 'c' where id = 1", Expect::OneRow),
                    ("delete from t where id > 1", Expect::Any),
                    ("select id, v from t order by id", Expect::Rows),
                    ("select id, v from t where id > 100", Expect::Rows),
                ],
            ))
            .await
            .unwrap();
        let counts: Vec<_> = effect.steps.iter().map(|s| s.rows).collect();
        assert_eq!(counts, [Some(3), Some(1), Some(2), Some(1), Some(0)]);
        let returned = effect.result("step 4");
        assert_eq!(returned[0].column(1).as_string::<i32>().value(0), "c");
        assert!(effect.result("step 5").is_empty() && effect.result("no such step").is_empty());
        assert_eq!(number(&mut *session, "select count(*) from d.t").await, 1);

        // A step that fails undoes those before it, and is named.
        let failed = session
            .execute(&script(
                atomicity,
                &[
                    ("insert into d.t values (7, 'x')", Expect::Any),
                    ("insert into d.nowhere values (7, 'y')", Expect::Any),
                    ("insert into d.t values (8, 'x')", Expect::Any),
                ],
            ))
            .await
            .unwrap_err();
        assert_eq!((failed.kind, failed.step.as_deref()), (ErrorKind::NotFound, Some("step 2")), "{failed}");
        assert_eq!(number(&mut *session, "select count(*) from d.t").await, 1);

        // One row was expected and none, or two, were written: the script is undone.
        for (fenced, rows) in
            [("update t set v = 'z' where id = 999", 0), ("insert into t values (21, 'x'), (22, 'y')", 2)]
        {
            let steps = [("insert into t values (8, 'x')", Expect::Any), (fenced, Expect::OneRow)];
            let failed = session.execute(&script(atomicity, &steps)).await.unwrap_err();
            assert_eq!(
                (failed.kind, failed.step.as_deref()),
                (ErrorKind::Fenced, Some("step 2")),
                "{failed}"
            );
            assert!(failed.message.contains(&format!("wrote {rows} rows")), "{failed}");
            assert_eq!(number(&mut *session, "select count(*) from d.t").await, 1);
        }
    }

    // A rehearsal shows what would be, and leaves everything as it was.
    let effect = session
        .execute(&script(
            Atomicity::Rehearsal,
            &[
                ("insert into t values (9, 'z')", Expect::OneRow),
                ("select cast(count(*) as int64) as n from t", Expect::Rows),
            ],
        ))
        .await
        .unwrap();
    assert_eq!(effect.result("step 2")[0].column(0).as_primitive::<Int64Type>().value(0), 2);
    assert_eq!(number(&mut *session, "select count(*) from d.t").await, 1);

    // What cannot be undone cannot be in a transaction.
    let steps =
        [("insert into d.t values (9, 'z')", Expect::Any), ("create table d.u (id int64)", Expect::Any)];
    let failed = session.execute(&script(Atomicity::Transaction, &steps)).await.unwrap_err();
    assert_eq!((failed.kind, failed.step.as_deref()), (ErrorKind::Invalid, Some("step 2")), "{failed}");
    assert_eq!(number(&mut *session, "select count(*) from d.t").await, 1);
}

#[tokio::test]
async fn separate_steps_stand_apart_and_a_fence_still_holds() {
    let warehouse = warehouse().await;
    let mut session = open(&*warehouse).await;
    let effect = session
        .execute(&script(
            Atomicity::Separate,
            &[
                ("create table d.t as select 1 as id, 'a' as v", Expect::Any),
                ("update t set v = 'b' where id = 1", Expect::OneRow),
                ("select id, v from t", Expect::Rows),
                ("alter table d.t rename to u", Expect::Any),
            ],
        ))
        .await
        .unwrap();
    assert_eq!(effect.steps.iter().map(|s| s.rows).collect::<Vec<_>>(), [None, Some(1), Some(1), None]);
    assert_eq!(effect.result("step 3")[0].column(1).as_string::<i32>().value(0), "b");
    let failed = session
        .execute(&script(
            Atomicity::Separate,
            &[
                ("insert into u values (2, 'c')", Expect::Any),
                ("update u set v = 'x' where id > 0", Expect::OneRow),
                ("insert into u values (3, 'd')", Expect::Any),
            ],
        ))
        .await
        .unwrap_err();
    assert_eq!((failed.kind, failed.step.as_deref()), (ErrorKind::Fenced, Some("step 2")), "{failed}");
    assert_eq!(number(&mut *session, "select count(*) from d.u").await, 2);
    assert_eq!(number(&mut *session, "select count(*) from d.u where v = 'x'").await, 0);
}

#[tokio::test]
async fn results_stream_page_by_page() {
    let front = Front::before(Some(BigqueryDouble::start().address()), |_| Answer::Pass);
    let warehouse = at(&front.url(), json!({})).await;
    let mut session = open(&*warehouse).await;
    let million = "select n from unnest(generate_array(1, 1000000)) as n";
    results_stream(&mut *session, million).await;

    // Nobody asks for a page before the one before it was taken.
    let before = front.asked().len();
    let mut stream = session.query(&sql(million)).await.unwrap();
    stream.try_next().await.unwrap().unwrap();
    let pages = front.asked()[before..].iter().filter(|a| a.method == "GET").count();
    assert_eq!(pages, 1);
    drop(stream);

    // An order is kept across pages.
    let ordered = "select n from unnest(generate_array(1, 60000)) as n order by n desc";
    let batches = rows(&mut *session, ordered).await.unwrap();
    let mut expected = 60_000;
    for batch in &batches {
        for n in batch.column(0).as_primitive::<Int64Type>().values() {
            assert_eq!(*n, expected);
            expected -= 1;
        }
    }
    assert_eq!(expected, 0);
}

#[tokio::test]
async fn values_arrive_in_the_forms_that_travel() {
    let warehouse = warehouse().await;
    let mut session = open(&*warehouse).await;
    let select = "select true as b, -9223372036854775807 as i, cast('nan' as float64) as f, 'it\\'s \"ä\"\\n' as s, \
                  numeric '123456789012.5' as n, from_base64('AP8=') as y, date '0001-01-01' as d, \
                  datetime '9999-12-31 23:59:59.999999' as dt, timestamp '1969-12-31 23:59:59.5+00' as ts, \
                  time '12:00:00.5' as t, interval 1 month as iv, json '{\"a\":[1,null]}' as j, cast(null as date) as z";
    let batch = rows(&mut *session, select).await.unwrap().remove(0);
    let text = |i: usize| batch.column(i).as_string::<i32>().value(0).to_owned();
    assert!(batch.column(0).as_boolean().value(0));
    assert_eq!(batch.column(1).as_primitive::<Int64Type>().value(0), -i64::MAX);
    assert!(batch.column(2).as_primitive::<Float64Type>().value(0).is_nan());
    assert_eq!((text(3), text(4)), ("it's \"ä\"\n".to_owned(), "123456789012.5".to_owned()));
    assert_eq!(batch.column(5).as_binary::<i32>().value(0), b"\x00\xff");
    assert_eq!(batch.column(6).as_primitive::<Date32Type>().value(0), -719_162);
    assert_eq!(batch.column(7).data_type(), &DataType::Timestamp(TimeUnit::Microsecond, None));
    assert_eq!(batch.column(7).as_primitive::<TimestampMicrosecondType>().value(0), 253_402_300_799_999_999);
    assert_eq!(batch.column(8).data_type(), &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())));
    assert_eq!(batch.column(8).as_primitive::<TimestampMicrosecondType>().value(0), -500_000);
    assert_eq!((text(9), text(10)), ("12:00:00.5".to_owned(), "P1M".to_owned()));
    assert_eq!(text(11), "{\"a\":[1,null]}");
    assert!(batch.column(12).is_null(0));
    let list = rows(&mut *session, "select [1, 2] as l").await.unwrap_err();
    assert_eq!(list.kind, ErrorKind::Unsupported);
    assert!(list.message.contains("\"l\"") && list.message.contains("array<int64>"), "{list}");
}

#[tokio::test]
async fn loading_matches_columns_by_name_all_or_none() {
    let warehouse = warehouse().await;
    let mut session = open(&*warehouse).await;
    run(
        &mut *session,
        &["create table d.l (id int64, name string, ok bool, at timestamp, plain datetime, day date, f float64, bin bytes, extra string)"],
    )
    .await;
    let target = TableRef::new("d", "l").unwrap();
    let batch = |ids: Vec<i64>| {
        let n = ids.len();
        RecordBatch::try_from_iter_with_nullable([
            (
                "name",
                Arc::new(StringArray::from_iter((0..n).map(|i| (i > 0).then_some("ä\"\n")))) as ArrayRef,
                true,
            ),
            (
                "at",
                Arc::new(TimestampMicrosecondArray::from(vec![1_500_000; n]).with_timezone("UTC")) as _,
                true,
            ),
            ("plain", Arc::new(TimestampMicrosecondArray::from(vec![1_500_000; n])) as _, true),
            ("day", Arc::new(Date32Array::from(vec![-1; n])) as _, true),
            ("f", Arc::new(Float64Array::from(vec![0.1; n])) as _, true),
            ("bin", Arc::new(BinaryArray::from_vec(vec![b"ab"; n])) as _, true),
            ("ok", Arc::new(BooleanArray::from(vec![true; n])) as _, true),
            ("id", Arc::new(Int64Array::from(ids)) as _, true),
        ])
        .unwrap()
    };
    assert_eq!(
        session.load(&target, vec![batch((0..3_000).collect()), batch(vec![9_000])]).await.unwrap(),
        3_001
    );
    let expected = "select count(*) from d.l where ok and extra is null and at = timestamp '1970-01-01 00:00:01.5+00' \
                    and plain = datetime '1970-01-01 00:00:01.5' and day = date '1969-12-31' and f = 0.1 \
                    and coalesce(name, 'ä\"\\n') = 'ä\"\\n'";
    assert_eq!(number(&mut *session, expected).await, 3_001);
    assert_eq!(number(&mut *session, "select count(*) from d.l where name is null").await, 2);
    let missing = TableRef::new("d", "nowhere").unwrap();
    assert!(session.load(&missing, vec![batch(vec![1])]).await.is_err());
    assert_eq!(session.load(&target, vec![]).await.unwrap(), 0);
    let other =
        RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
    let failed = session.load(&target, vec![batch(vec![1]), other]).await.unwrap_err();
    assert_eq!(failed.kind, ErrorKind::Invalid);
    assert_eq!(number(&mut *session, "select count(*) from d.l").await, 3_001);
}

#[tokio::test]
async fn errors_have_kinds() {
    let warehouse = warehouse().await;
    let mut session = open(&*warehouse).await;
    table(&mut *session).await;
    for (statement, kind) in [
        ("select * from d.nowhere", ErrorKind::NotFound),
        ("select * from no_such_dataset.t", ErrorKind::NotFound),
        ("select nothing from d.t", ErrorKind::Invalid),
        ("create table d.t (id int64)", ErrorKind::AlreadyExists),
        ("create schema d", ErrorKind::AlreadyExists),
        ("selec 1", ErrorKind::Invalid),
        ("select 1 / 0 as x", ErrorKind::Data),
    ] {
        let failed = error(&mut *session, statement).await;
        assert_eq!(failed.kind, kind, "{statement}: {failed}");
        assert_eq!(failed.step.as_deref(), Some("step 1"));
        assert!(failed.code.is_some(), "{statement}: {failed}");
    }
    let unknown = warehouse.terminate("nonsense").await.unwrap_err();
    assert_eq!(unknown.kind, ErrorKind::Invalid);
    warehouse.terminate(&session.id().unwrap()).await.unwrap();
    assert_eq!(number(&mut *session, "select 1").await, 1);
}
