//! The DuckDB driver.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Float64Type, Int32Type, Int64Type, TimeUnit};
use connectors::warehouse::{ErrorKind, Tag, Warehouse};
use futures::TryStreamExt;
use serde_json::json;
use sql_templates::{Atomicity, Expect, LogicalType, TableRef};

use super::{
    error, number, open, results_stream, rows, run, script, scripts_keep_their_atomicity, source, sql,
};

/// A warehouse on a file, and the folder that holds it.
fn warehouse(folder: &Path, busy_timeout: &str) -> Arc<dyn Warehouse> {
    source("duckdb", json!({"path": "wh.duckdb", "busy_timeout": busy_timeout}), folder).unwrap()
}

/// A folder with an empty database in it.
fn project() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    duckdb::Connection::open(folder.path().join("wh.duckdb")).unwrap().close().unwrap();
    folder
}

fn memory() -> Arc<dyn Warehouse> {
    source("duckdb", json!({"path": ":memory:", "memory_limit": "256MB", "threads": 2}), Path::new("/"))
        .unwrap()
}

/// This very program, as another process that works in a file.
fn other_process(folder: &Path, job: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["duckdb::the_other_process", "--exact", "--ignored", "--nocapture"])
        .env("LEVIN_TEST_FOLDER", folder)
        .env("LEVIN_TEST_JOB", job)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Another process that has the file open when this returns, until its input is closed.
fn holder(folder: &Path) -> Child {
    let mut child = other_process(folder, "hold");
    let stdout = child.stdout.as_mut().unwrap();
    let held = BufReader::new(stdout).lines().map_while(Result::ok).any(|line| line.contains("HELD"));
    assert!(held, "the other process could not open the file");
    child
}

#[tokio::test]
#[ignore = "the body of a process that other tests start"]
async fn the_other_process() {
    let folder = std::env::var("LEVIN_TEST_FOLDER").expect("started by another test");
    // The others keep the file a moment longer than they need it.
    let warehouse = warehouse(Path::new(&folder), "500ms");
    let mut session = open(&*warehouse).await;
    if std::env::var("LEVIN_TEST_JOB").as_deref() == Ok("write") {
        run(&mut *session, &["insert into seen values (1)"]).await;
        return;
    }
    let mut stream = session.query(&sql("select * from range(100000000)")).await.unwrap();
    stream.try_next().await.unwrap();
    println!("HELD");
    std::io::stdout().flush().unwrap();
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

#[tokio::test]
async fn a_missing_file_is_unreachable_and_never_created() {
    let folder = tempfile::tempdir().unwrap();
    let tag = Tag { sync: "s".into(), run: None, stage: "check" };
    let error = warehouse(folder.path(), "1s").session(&tag).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert!(error.message.contains("wh.duckdb") && error.message.contains("no such file"), "{error}");
    assert!(!folder.path().join("wh.duckdb").exists());

    std::fs::write(folder.path().join("wh.duckdb"), "x".repeat(20_000)).unwrap();
    let error = warehouse(folder.path(), "1s").session(&tag).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
    assert_eq!(std::fs::read(folder.path().join("wh.duckdb")).unwrap().len(), 20_000);
}

#[tokio::test]
async fn the_identity_is_the_canonical_path() {
    let folder = project();
    let real = folder.path().canonicalize().unwrap().join("wh.duckdb");
    std::os::unix::fs::symlink(&real, folder.path().join("link")).unwrap();
    let link = source("duckdb", json!({"path": "./link"}), folder.path()).unwrap();
    assert_eq!(link.identity(), real.to_str().unwrap());
    assert_eq!(warehouse(folder.path(), "1s").identity(), link.identity());
    assert_eq!(link.session(&Tag { sync: "s".into(), run: None, stage: "check" }).await.unwrap().id(), None);
    link.terminate("anything").await.unwrap();
}

#[tokio::test]
async fn describe_maps_every_type() {
    let warehouse = memory();
    let mut session = open(&*warehouse).await;
    run(&mut *session, &["create type mood as enum ('sad', 'it''s (ok)')"]).await;
    let cases = [
        ("true", "BOOLEAN", LogicalType::Boolean),
        ("1::tinyint", "TINYINT", LogicalType::Integer),
        ("1::ubigint", "UBIGINT", LogicalType::Integer),
        ("1::hugeint", "HUGEINT", LogicalType::Integer),
        ("1::uhugeint", "UHUGEINT", LogicalType::Integer),
        ("1.5::decimal(18,3)", "DECIMAL(18,3)", LogicalType::Decimal),
        ("1.5::float", "FLOAT", LogicalType::Float),
        ("1.5::double", "DOUBLE", LogicalType::Float),
        ("'a'::varchar", "VARCHAR", LogicalType::Text),
        ("'sad'::mood", "ENUM('sad', 'it''s (ok)')", LogicalType::Text),
        ("date '2026-11-20'", "DATE", LogicalType::Date),
        ("timestamp '2026-11-20 10:00:00'", "TIMESTAMP", LogicalType::Timestamp),
        ("'2026-11-20 10:00:00'::timestamp_ns", "TIMESTAMP_NS", LogicalType::Timestamp),
        ("'2026-11-20 10:00:00+01'::timestamptz", "TIMESTAMP WITH TIME ZONE", LogicalType::TimestampTz),
        ("time '10:00:00'", "TIME", LogicalType::Time),
        ("interval 1 day", "INTERVAL", LogicalType::Interval),
        ("uuid()", "UUID", LogicalType::Uuid),
        ("'ab'::blob", "BLOB", LogicalType::Binary),
        ("'101'::bit", "BIT", LogicalType::Text),
        ("'{}'::json", "JSON", LogicalType::Json),
        ("[1, 2]", "INTEGER[]", LogicalType::Json),
        ("array_value(1, 2, 3)", "INTEGER[3]", LogicalType::Json),
        ("{'a': 1, 'b': 'x'}", "STRUCT(a INTEGER, b VARCHAR)", LogicalType::Json),
        ("map {'k': 1.5::decimal(4,1)}", "MAP(VARCHAR, DECIMAL(4,1))", LogicalType::Json),
        ("union_value(n := 1)", "UNION(n INTEGER)", LogicalType::Json),
    ];
    let list: Vec<String> = cases.iter().enumerate().map(|(i, c)| format!("{} as \"C {i}\"", c.0)).collect();
    let columns = session.describe(&sql(&format!("select {}", list.join(", ")))).await.unwrap();
    assert_eq!(columns.len(), cases.len());
    for (i, (column, case)) in columns.iter().zip(&cases).enumerate() {
        assert_eq!(column.name, format!("C {i}"));
        assert_eq!((column.engine_type.as_str(), column.logical), (case.1, case.2), "{}", case.0);
    }
    let columns = session.describe(&sql("with x as (select 1 as a) select a, a from x")).await.unwrap();
    assert_eq!(columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["a", "a"]);
    let missing = session.describe(&sql("select * from nowhere")).await.unwrap_err();
    assert_eq!(missing.kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn scripts() {
    let folder = project();
    let warehouse = warehouse(folder.path(), "5s");
    scripts_keep_their_atomicity(&mut *open(&*warehouse).await).await;
}

#[tokio::test]
async fn streams() {
    let folder = project();
    let warehouse = warehouse(folder.path(), "5s");
    let mut session = open(&*warehouse).await;
    results_stream(&mut *session, "select i as n from range(1, 1000001) as r(i)").await;
    assert_eq!(warehouse.page_rows(), Some(50_000));
}

#[tokio::test]
async fn values_arrive_as_they_are() {
    let warehouse = memory();
    let mut session = open(&*warehouse).await;
    let select = "select true as b, (-7)::tinyint as i8, 65535::usmallint as u16, 4294967295::uinteger as u32, \
                  18446744073709551615::ubigint as u64, 170141183460469231731687303715884105727::hugeint as huge, \
                  1.500::decimal(18,3) as d, 0.1::double as f, 'nan'::double as nan, 'ä' || chr(0) || 'b' as t, \
                  '\\x00\\xFF'::blob as bin, date '1969-12-31' as day, \
                  timestamp '1969-12-31 23:59:59.999999' as ts, '2026-11-20 10:00:00+01'::timestamptz as tstz, \
                  'a'::enum('a', 'b') as e, null as nothing, '{\"a\": 1}'::json as j
                  union all
                  select null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, \
                  null, null";
    let batches = rows(&mut *session, select).await.unwrap();
    let batch = arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap();
    assert_eq!(batch.num_rows(), 2);
    for (i, field) in batch.schema().fields().iter().enumerate() {
        assert!(batch.column(i).is_null(1), "{}", field.name());
    }
    let column = |name: &str| batch.column_by_name(name).unwrap().clone();
    assert!(column("b").as_boolean().value(0));
    assert_eq!(column("i8").as_primitive::<arrow::datatypes::Int16Type>().value(0), -7);
    assert_eq!(column("u16").as_primitive::<Int32Type>().value(0), 65_535);
    assert_eq!(column("u32").as_primitive::<Int64Type>().value(0), 4_294_967_295);
    assert_eq!(column("u64").as_primitive::<arrow::datatypes::UInt64Type>().value(0), u64::MAX);
    assert_eq!(column("huge").as_string::<i32>().value(0), i128::MAX.to_string());
    assert_eq!(column("d").as_string::<i32>().value(0), "1.500");
    assert_eq!(column("f").as_primitive::<Float64Type>().value(0), 0.1);
    assert!(column("nan").as_primitive::<Float64Type>().value(0).is_nan());
    assert_eq!(column("t").as_string::<i32>().value(0), "ä\0b");
    assert_eq!(column("bin").as_binary::<i32>().value(0), [0, 255]);
    assert_eq!(column("day").as_primitive::<arrow::datatypes::Date32Type>().value(0), -1);
    assert_eq!(column("ts").as_primitive::<arrow::datatypes::TimestampMicrosecondType>().value(0), -1);
    assert_eq!(column("tstz").data_type(), &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())));
    assert_eq!(
        column("tstz").as_primitive::<arrow::datatypes::TimestampMicrosecondType>().value(0),
        1_795_165_200_000_000
    );
    assert_eq!(column("e").as_string::<i32>().value(0), "a");
    assert_eq!(column("j").as_string::<i32>().value(0), "{\"a\": 1}");

    let failed = rows(&mut *session, "select 1 as ok, [1, 2] as list").await.unwrap_err();
    assert_eq!(failed.kind, ErrorKind::Unsupported);
    assert!(failed.message.contains("list"), "{failed}");
}

#[tokio::test]
async fn text_of_fifty_megabytes_passes() {
    let warehouse = memory();
    let mut session = open(&*warehouse).await;
    let batches = rows(&mut *session, "select repeat('x', 50000000) as t").await.unwrap();
    assert_eq!(batches[0].column(0).as_string::<i32>().value(0).len(), 50_000_000);
}

#[tokio::test]
async fn an_error_in_mid_stream_ends_the_stream() {
    let warehouse = memory();
    let mut session = open(&*warehouse).await;
    let select = "select case when i = 900000 then error('boom') else i end as n from range(1000000) as r(i)";
    // More than once: DuckDB tells some readers of a stream only that they were interrupted.
    for _ in 0..100 {
        let failed = rows(&mut *session, select).await.unwrap_err();
        assert!(failed.message.contains("boom"), "{failed}");
        let failed =
            session.execute(&script(Atomicity::Separate, &[(select, Expect::Rows)])).await.unwrap_err();
        assert!(failed.message.contains("boom"), "{failed}");
    }
    assert_eq!(number(&mut *session, "select 1").await, 1);
}

#[tokio::test]
async fn a_running_statement_can_be_cancelled() {
    let folder = project();
    let warehouse = warehouse(folder.path(), "5s");
    let mut session = open(&*warehouse).await;
    let canceller = session.canceller();
    let endless = script(
        Atomicity::Transaction,
        &[
            ("create table made as select 1 as x", Expect::Any),
            ("select count(*) from range(100000000000) a, range(1000) b", Expect::Any),
        ],
    );
    // Asked for once, before, while and after DuckDB begins.
    for after in (0..4000).step_by(40) {
        let script = endless.clone();
        let work = tokio::spawn(async move {
            let result = session.execute(&script).await;
            (session, result)
        });
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_micros(after)).await;
        canceller.cancel().await.unwrap();
        let result;
        (session, result) = work.await.unwrap();
        assert_eq!(result.unwrap_err().kind, ErrorKind::Cancelled);
        // Nor does anything of it reach what comes next.
        assert_eq!(error(&mut *session, "select * from made").await.kind, ErrorKind::NotFound);
        assert_eq!(number(&mut *session, "select 1").await, 1);
    }
}

#[tokio::test]
async fn loading_matches_columns_by_name_all_or_none() {
    let folder = project();
    let warehouse = warehouse(folder.path(), "5s");
    let mut session = open(&*warehouse).await;
    run(
        &mut *session,
        &[
            "create schema s",
            "create table s.\"T t\" (id integer primary key, name varchar, ok boolean, \"at\" timestamptz, extra varchar default 'd')",
        ],
    )
    .await;
    let table = TableRef::new("s", "T t").unwrap();
    let batch = |ids: Vec<i64>| {
        let n = ids.len();
        RecordBatch::try_from_iter_with_nullable([
            (
                "name",
                Arc::new(StringArray::from_iter((0..n).map(|i| (i > 0).then_some("x")))) as ArrayRef,
                true,
            ),
            (
                "at",
                Arc::new(TimestampMicrosecondArray::from(vec![1_500_000; n]).with_timezone("UTC")) as _,
                true,
            ),
            ("ok", Arc::new(BooleanArray::from(vec![true; n])) as _, true),
            ("id", Arc::new(Int64Array::from(ids)) as _, true),
        ])
        .unwrap()
    };
    let many: Vec<i64> = (0..5_000).collect();
    assert_eq!(session.load(&table, vec![batch(many), batch(vec![9_000])]).await.unwrap(), 5_001);
    assert_eq!(number(&mut *session, "select count(*) from s.\"T t\" where ok and extra = 'd'").await, 5_001);
    assert_eq!(number(&mut *session, "select count(*) from s.\"T t\" where name is null").await, 2);
    let at = "select epoch_ms(max(\"at\")) from s.\"T t\" where id = 9000";
    assert_eq!(number(&mut *session, at).await, 1_500);

    for ids in [vec![10_000, 0], vec![10_000, i64::MAX]] {
        let failed = session.load(&table, vec![batch(ids)]).await.unwrap_err();
        assert!(matches!(failed.kind, ErrorKind::UniqueViolation | ErrorKind::Data), "{failed}");
        assert_eq!(number(&mut *session, "select count(*) from s.\"T t\"").await, 5_001);
    }
    let missing = TableRef::new("s", "nowhere").unwrap();
    let failed = session.load(&missing, vec![batch(vec![1])]).await.unwrap_err();
    assert_eq!(failed.kind, ErrorKind::NotFound, "{failed}");
    assert_eq!(session.load(&table, vec![]).await.unwrap(), 0);
}

#[tokio::test]
async fn errors_have_kinds() {
    let warehouse = memory();
    let mut session = open(&*warehouse).await;
    run(
        &mut *session,
        &["create table t (id integer primary key, v integer not null)", "insert into t values (1, 1)"],
    )
    .await;
    for (statement, kind) in [
        ("select * from nowhere", ErrorKind::NotFound),
        ("create table nowhere.t (id integer)", ErrorKind::NotFound),
        ("create table t (id integer)", ErrorKind::AlreadyExists),
        ("selec 1", ErrorKind::Invalid),
        ("select nothing from t", ErrorKind::Invalid),
        ("select cast('x' as integer)", ErrorKind::Data),
        ("insert into t values (2, null)", ErrorKind::Data),
        ("insert into t values (1, 2)", ErrorKind::UniqueViolation),
    ] {
        let failed = error(&mut *session, statement).await;
        assert_eq!(failed.kind, kind, "{statement}: {failed}");
        assert_eq!(failed.step.as_deref(), Some("step 1"));
    }
    let tight =
        source("duckdb", json!({"path": ":memory:", "memory_limit": "20MB"}), Path::new("/")).unwrap();
    let mut session = open(&*tight).await;
    run(&mut *session, &["set max_temp_directory_size = '0KB'"]).await;
    let sort = "create table big as select md5(i::varchar) as h from range(5000000) r(i) order by h";
    assert_eq!(error(&mut *session, sort).await.kind, ErrorKind::OutOfSpace);
}

#[tokio::test]
async fn a_file_held_by_another_process_is_awaited_then_busy() {
    let folder = project();
    let mut child = holder(folder.path());
    let tag = Tag { sync: "s".into(), run: None, stage: "check" };
    let error = warehouse(folder.path(), "50ms").session(&tag).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Busy);
    assert!(error.message.contains(&child.id().to_string()), "names the holder: {error}");

    let patient = warehouse(folder.path(), "60s");
    let waiting = tokio::spawn(async move { patient.session(&tag).await.map(|_| ()) });
    drop(child.stdin.take());
    waiting.await.unwrap().unwrap();
    assert!(child.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_is_closed_between_statements_and_when_a_stream_ends() {
    let folder = project();
    let warehouse = warehouse(folder.path(), "30s");
    let mut session = open(&*warehouse).await;
    run(&mut *session, &["create table seen (n integer)"]).await;
    let elsewhere = |expected: bool| {
        let ended = other_process(folder.path(), "write").wait_with_output().unwrap();
        assert_eq!(ended.status.success(), expected, "{}", String::from_utf8_lossy(&ended.stderr));
    };
    elsewhere(true);
    assert_eq!(number(&mut *session, "select count(*) from seen").await, 1);

    // Two readers of this process at once: the file stays shut to others until both are done.
    let many = "select * from range(10000000)";
    let mut second = open(&*warehouse).await;
    let mut one = session.query(&sql(many)).await.unwrap();
    let mut two = second.query(&sql("select * from range(20000)")).await.unwrap();
    one.try_next().await.unwrap();
    while two.try_next().await.unwrap().is_some() {}
    elsewhere(false);
    drop(two);
    drop(one);
    // The statement also shows that the reader that was left alone has gone.
    run(&mut *session, &["insert into seen values (2)"]).await;
    let mut tries = 0;
    while !other_process(folder.path(), "write").wait_with_output().unwrap().status.success() {
        tries += 1;
        assert!(tries < 50, "the file is never closed");
    }
    assert_eq!(number(&mut *second, "select count(*) from seen").await, 3);
}

#[tokio::test]
async fn sessions_of_one_process_work_side_by_side() {
    let folder = project();
    let (one, two) = (warehouse(folder.path(), "5s"), warehouse(folder.path(), "5s"));
    run(&mut *open(&*one).await, &["create table t (n bigint)"]).await;
    let work = |warehouse: Arc<dyn Warehouse>| async move {
        let mut session = open(&*warehouse).await;
        for _ in 0..20 {
            run(&mut *session, &["insert into t values (1)"]).await;
        }
    };
    tokio::join!(work(one.clone()), work(two));
    assert_eq!(number(&mut *open(&*one).await, "select count(*) from t").await, 40);
}
