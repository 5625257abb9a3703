//! The PostgreSQL driver.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Float64Array, Int64Array, RecordBatch,
    StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType,
};
use connectors::warehouse::{ErrorKind, Tag, Warehouse};
use futures::TryStreamExt;
use serde_json::json;
use sql_templates::{Atomicity, Expect, LogicalType, TableRef};
use tests::postgres::{PASSWORD_ROLE, PostgresServer};

use super::{
    error, number, open, results_stream, rows, run, script, scripts_keep_their_atomicity, source, sql,
};

fn at(url: &str) -> Arc<dyn Warehouse> {
    source("postgres", json!({"url": url}), Path::new("/")).unwrap()
}

/// A warehouse on a new database.
fn warehouse() -> Arc<dyn Warehouse> {
    at(&PostgresServer::start().fresh_database())
}

fn check() -> Tag {
    Tag { sync: "s".into(), run: None, stage: "check" }
}

/// Starts a statement without an end, stops it, and sees that the session goes on.
pub async fn can_be_cancelled(warehouse: &dyn Warehouse) {
    let mut session = open(warehouse).await;
    let canceller = session.canceller();
    let endless = script(
        Atomicity::Transaction,
        &[
            ("create table made as select 1 as x", Expect::Any),
            (
                "select count(*) from generate_series(1, 1000000) a, generate_series(1, 1000000) b",
                Expect::Any,
            ),
        ],
    );
    let work = tokio::spawn(async move {
        let result = session.execute(&endless).await;
        (session, result)
    });
    // A request that comes before the statement does nothing, so it is repeated.
    while !work.is_finished() {
        canceller.cancel().await.unwrap();
        tokio::task::yield_now().await;
    }
    let (_, result) = work.await.unwrap();
    let failed = result.unwrap_err();
    assert_eq!((failed.kind, failed.code.as_deref()), (ErrorKind::Cancelled, Some("57014")));
    // Another session, as a request that came late could still hit this one.
    let mut session = open(warehouse).await;
    assert_eq!(error(&mut *session, "select * from made").await.kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn the_connection_is_named_and_set_up() {
    let warehouse = warehouse();
    let tag = Tag { sync: "x".repeat(80), run: Some(1), stage: "diff" };
    let mut session = warehouse.session(&tag).await.unwrap();
    let settings = "select current_setting('application_name'), current_setting('timezone'), \
                    current_setting('intervalstyle'), current_setting('datestyle'), \
                    current_setting('synchronize_seqscans'), current_setting('jit'), \
                    current_setting('statement_timeout'), interval '1 day 2 hours'::text";
    let batch = rows(&mut *session, settings).await.unwrap().remove(0);
    let text = |i: usize| batch.column(i).as_string::<i32>().value(0).to_owned();
    assert_eq!(text(0), format!("levin/{}", "x".repeat(57)));
    assert_eq!((text(1), text(2)), ("UTC".to_owned(), "iso_8601".to_owned()));
    assert!(text(3).starts_with("ISO"));
    assert_eq!((text(4), text(5), text(6)), ("off".to_owned(), "off".to_owned(), "0".to_owned()));
    assert_eq!(text(7), "P1DT2H");

    let url = PostgresServer::start().fresh_database();
    let limited =
        source("postgres", json!({"url": url, "statement_timeout": "50ms"}), Path::new("/")).unwrap();
    let failed = error(&mut *open(&*limited).await, "select pg_sleep(60)").await;
    assert_eq!(failed.kind, ErrorKind::TookTooLong, "nobody asked it to stop: {failed}");
    assert!(failed.message.contains("timeout"), "{failed}");
}

#[tokio::test]
async fn describe_maps_every_type_without_running_anything() {
    let warehouse = warehouse();
    let mut session = open(&*warehouse).await;
    run(
        &mut *session,
        &[
            "create type mood as enum ('sad', 'ok')",
            "create domain positive as integer check (value > 0)",
            "create type pair as (a integer, b text)",
            "create sequence counter",
        ],
    )
    .await;
    let cases = [
        ("true", "boolean", LogicalType::Boolean),
        ("1::smallint", "smallint", LogicalType::Integer),
        ("1", "integer", LogicalType::Integer),
        ("nextval('counter')", "bigint", LogicalType::Integer),
        ("1::positive", "integer", LogicalType::Integer),
        ("1::oid", "oid", LogicalType::Integer),
        ("1.5::numeric", "numeric", LogicalType::Decimal),
        ("1.5::numeric(10,2)", "numeric(10,2)", LogicalType::Decimal),
        ("1.5::real", "real", LogicalType::Float),
        ("1.5::float8", "double precision", LogicalType::Float),
        ("'a'", "text", LogicalType::Text),
        ("null", "text", LogicalType::Text),
        ("'a'::varchar(20)", "character varying(20)", LogicalType::Text),
        ("'a'::char(3)", "character(3)", LogicalType::Text),
        ("'sad'::mood", "mood", LogicalType::Text),
        ("row(1, 'x')::pair", "pair", LogicalType::Text),
        ("date '2026-11-20'", "date", LogicalType::Date),
        ("localtimestamp", "timestamp without time zone", LogicalType::Timestamp),
        ("localtimestamp::timestamp(3)", "timestamp(3) without time zone", LogicalType::Timestamp),
        ("now()", "timestamp with time zone", LogicalType::TimestampTz),
        ("now()::timestamptz(3)", "timestamp(3) with time zone", LogicalType::TimestampTz),
        ("time '10:00'", "time without time zone", LogicalType::Time),
        ("interval '1 day'", "interval", LogicalType::Interval),
        ("'1 day'::interval(2)", "interval(2)", LogicalType::Interval),
        ("gen_random_uuid()", "uuid", LogicalType::Uuid),
        ("'\\x00'::bytea", "bytea", LogicalType::Binary),
        ("'{}'::json", "json", LogicalType::Json),
        ("'{}'::jsonb", "jsonb", LogicalType::Json),
        ("array[1, 2]", "integer[]", LogicalType::Json),
        ("int4range(1, 2)", "int4range", LogicalType::Text),
    ];
    let list: Vec<String> = cases.iter().enumerate().map(|(i, c)| format!("{} as \"C {i}\"", c.0)).collect();
    let columns = session.describe(&sql(&format!("select {}", list.join(", ")))).await.unwrap();
    assert_eq!(columns.len(), cases.len());
    for (i, (column, case)) in columns.iter().zip(&cases).enumerate() {
        assert_eq!(column.name, format!("C {i}"));
        assert_eq!((column.engine_type.as_str(), column.logical), (case.1, case.2), "{}", case.0);
    }
    assert_eq!(number(&mut *session, "select nextval('counter')").await, 1, "describing must run nothing");
    let columns = session.describe(&sql("select 1 as a, 2 as a")).await.unwrap();
    assert_eq!(columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["a", "a"]);
    assert_eq!(session.describe(&sql("select * from nowhere")).await.unwrap_err().kind, ErrorKind::NotFound);
    let wide: Vec<String> = (0..1_700).map(|i| format!("1 as c{i}")).collect();
    let failed = session.describe(&sql(&format!("select {}", wide.join(", ")))).await.unwrap_err();
    assert_eq!(failed.kind, ErrorKind::Unsupported, "{failed}");
}

#[tokio::test]
async fn scripts() {
    let warehouse = warehouse();
    scripts_keep_their_atomicity(&mut *open(&*warehouse).await).await;
}

#[tokio::test]
async fn a_snapshot_reads_one_state_and_a_transaction_does_not() {
    for (atomicity, after) in
        [(Atomicity::Snapshot, 1), (Atomicity::Rehearsal, 1), (Atomicity::Transaction, 2)]
    {
        let warehouse = warehouse();
        let (mut reader, mut writer) = (open(&*warehouse).await, open(&*warehouse).await);
        let setup = ["create table t (n bigint)", "insert into t values (1)", "select pg_advisory_lock(5)"];
        run(&mut *writer, &setup).await;
        let steps = [
            ("select count(*) from t", Expect::Rows),
            ("select pg_advisory_lock(5)", Expect::Any),
            ("select count(*) from t", Expect::Rows),
        ];
        let reading = script(atomicity, &steps);
        let reading = tokio::spawn(async move { reader.execute(&reading).await });
        let waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted and database = \
                       (select oid from pg_database where datname = current_database())";
        while number(&mut *writer, waiting).await == 0 {
            tokio::task::yield_now().await;
        }
        run(&mut *writer, &["insert into t values (2)", "select pg_advisory_unlock(5)"]).await;
        let effect = reading.await.unwrap().unwrap();
        let count = |step| effect.result(step)[0].column(0).as_primitive::<Int64Type>().value(0);
        assert_eq!((count("step 1"), count("step 3")), (1, after), "{atomicity:?}");
    }
}

#[tokio::test]
async fn streams() {
    let warehouse = warehouse();
    let mut session = open(&*warehouse).await;
    results_stream(&mut *session, "select n from generate_series(1::bigint, 1000000) as g(n)").await;
    assert_eq!(warehouse.page_rows(), None);
}

#[tokio::test]
async fn values_arrive_as_they_are() {
    let warehouse = warehouse();
    let mut session = open(&*warehouse).await;
    let select = "select true as b, (-7)::int2 as i2, (-2147483648)::int4 as i4, 9223372036854775807::int8 as i8, \
                  0.1::float4 as f4, 'nan'::float8 as f8, 'ä' || E'\\n\\t' as t, 'v'::varchar(9) as v, 'c'::char(3) as c, \
                  'n'::name as nm, '\\x00ff'::bytea as bin, date '1969-12-31' as day, 'infinity'::date as day_inf, \
                  timestamp '1969-12-31 23:59:59.999999' as ts, '-infinity'::timestamp as ts_inf, \
                  '2026-11-20 10:00:00+01'::timestamptz as tstz, 'infinity'::timestamptz as tstz_inf, \
                  '{\"a\":1}'::json as j, timestamp '294276-12-31 00:00:00' as far, '5874897-12-31'::date as day_far, '' as empty
                  union all
                  select null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, \
                  null, null, null, null, null, null";
    let batch = rows(&mut *session, select).await.unwrap().remove(0);
    assert_eq!(batch.num_rows(), 2);
    for (i, field) in batch.schema().fields().iter().enumerate() {
        assert!(batch.column(i).is_null(1) && batch.column(i).is_valid(0), "{}", field.name());
    }
    let column = |name: &str| batch.column_by_name(name).unwrap().clone();
    assert!(column("b").as_boolean().value(0));
    assert_eq!(column("i2").as_primitive::<Int16Type>().value(0), -7);
    assert_eq!(column("i4").as_primitive::<Int32Type>().value(0), i32::MIN);
    assert_eq!(column("i8").as_primitive::<Int64Type>().value(0), i64::MAX);
    assert_eq!(column("f4").as_primitive::<Float32Type>().value(0), 0.1);
    assert!(column("f8").as_primitive::<Float64Type>().value(0).is_nan());
    for (name, expected) in
        [("t", "ä\n\t"), ("v", "v"), ("c", "c  "), ("nm", "n"), ("j", "{\"a\":1}"), ("empty", "")]
    {
        assert_eq!(column(name).as_string::<i32>().value(0), expected, "{name}");
    }
    assert_eq!(column("bin").as_binary::<i32>().value(0), [0, 255]);
    assert_eq!(column("day").as_primitive::<Date32Type>().value(0), -1);
    assert_eq!(column("day_inf").as_primitive::<Date32Type>().value(0), i32::MAX);
    assert!(column("day_far").as_primitive::<Date32Type>().value(0) > 2_000_000_000);
    let microseconds = |name: &str| column(name).as_primitive::<TimestampMicrosecondType>().value(0);
    assert_eq!(microseconds("ts"), -1);
    assert_eq!(microseconds("ts_inf"), i64::MIN);
    assert_eq!(microseconds("tstz"), 1_795_165_200_000_000);
    assert_eq!(microseconds("tstz_inf"), i64::MAX);
    assert_eq!(microseconds("far"), i64::MAX, "beyond what the column can hold");
    assert_eq!(column("ts").data_type(), &DataType::Timestamp(TimeUnit::Microsecond, None));
    assert_eq!(column("tstz").data_type(), &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())));

    let failed = rows(&mut *session, "select 1 as ok, 1.5::numeric as amount").await.unwrap_err();
    assert_eq!(failed.kind, ErrorKind::Unsupported);
    assert!(failed.message.contains("amount") && failed.message.contains("numeric"), "{failed}");
    assert_eq!(number(&mut *session, "select 1 -- with a comment\n").await, 1);
    let commented = rows(&mut *session, "select 1 as x -- ends with a comment").await.unwrap();
    assert_eq!(commented[0].num_rows(), 1);
}

#[tokio::test]
async fn text_of_fifty_megabytes_passes_both_ways() {
    let warehouse = warehouse();
    let mut session = open(&*warehouse).await;
    let select = "select n, repeat('x', 50000000) as t from generate_series(1, 3) as g(n)";
    let mut stream = session.query(&sql(select)).await.unwrap();
    let mut cells = Vec::new();
    while let Some(batch) = stream.try_next().await.unwrap() {
        assert_eq!(batch.num_rows(), 1, "batches are cut by bytes too");
        cells.push(batch.column(1).as_string::<i32>().value(0).len());
    }
    drop(stream);
    assert_eq!(cells, [50_000_000; 3]);
    run(&mut *session, &["create table t (v text)"]).await;
    let large: ArrayRef = Arc::new(StringArray::from(vec!["y".repeat(50_000_000)]));
    let batch = RecordBatch::try_from_iter([("v", large)]).unwrap();
    assert_eq!(session.load(&TableRef::new("public", "t").unwrap(), vec![batch]).await.unwrap(), 1);
    assert_eq!(number(&mut *session, "select length(v) from t").await, 50_000_000);
}

#[tokio::test]
async fn a_dropped_stream_stops_its_query() {
    let warehouse = warehouse();
    let mut session = open(&*warehouse).await;
    let before = session.id().unwrap();
    let mut stream = session
        .query(&sql("select a from generate_series(1, 100000) as a, generate_series(1, 1000000) as b"))
        .await
        .unwrap();
    stream.try_next().await.unwrap().unwrap();
    drop(stream);
    assert_eq!(number(&mut *session, "select 7").await, 7);
    assert_ne!(session.id().unwrap(), before, "a connection that was given up is not used again");
    // Bounded by the test's own end: the backend goes away, however long that takes.
    let pid = before.split_once('@').unwrap().0.to_owned();
    while number(&mut *session, &format!("select count(*) from pg_stat_activity where pid = {pid}")).await > 0
    {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_error_in_mid_stream_ends_the_stream_and_not_the_session() {
    let warehouse = warehouse();
    let mut session = open(&*warehouse).await;
    let before = session.id();
    let select = "select 1 / (900000 - n) as x from generate_series(1, 1000000) as g(n)";
    let failed = rows(&mut *session, select).await.unwrap_err();
    assert_eq!((failed.kind, failed.code.as_deref()), (ErrorKind::Data, Some("22012")));
    assert_eq!(number(&mut *session, "select 1").await, 1);
    assert_eq!(session.id(), before);
}

#[tokio::test]
async fn a_running_statement_can_be_cancelled() {
    can_be_cancelled(&*warehouse()).await;
}

#[tokio::test]
async fn a_script_whose_caller_went_away_is_undone() {
    let warehouse = warehouse();
    let mut session = open(&*warehouse).await;
    let mut watcher = open(&*warehouse).await;
    run(&mut *watcher, &["create table t (n bigint)"]).await;
    let pid = session.id().unwrap().split_once('@').unwrap().0.to_owned();
    let endless = script(
        Atomicity::Transaction,
        &[("insert into t values (1)", Expect::Any), ("select pg_sleep(3600)", Expect::Any)],
    );
    let sleeping =
        format!("select count(*) from pg_stat_activity where pid = {pid} and wait_event = 'PgSleep'");
    let reached = async {
        while number(&mut *watcher, &sleeping).await == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        result = session.execute(&endless) => panic!("ended: {result:?}"),
        () = reached => {}
    }
    // The session goes on with another connection, and the old one ends without a trace.
    assert_eq!(number(&mut *session, "select count(*) from t").await, 0);
    while number(&mut *watcher, &format!("select count(*) from pg_stat_activity where pid = {pid}")).await > 0
    {
        tokio::task::yield_now().await;
    }
    run(&mut *watcher, &["drop table t"]).await;
}

#[tokio::test]
async fn loading_matches_columns_by_name_all_or_none() {
    let warehouse = warehouse();
    let mut session = open(&*warehouse).await;
    run(
        &mut *session,
        &[
            "create schema \"S \"\"s\"",
            "create table \"S \"\"s\".t (id integer primary key, name text, ok boolean, at timestamptz, plain timestamp, \
             day date, f double precision, small smallint, bin bytea, extra text default 'd', u uuid)",
        ],
    )
    .await;
    let table = TableRef::new("S \"s", "t").unwrap();
    let batch = |ids: Vec<i64>| {
        let n = ids.len();
        RecordBatch::try_from_iter_with_nullable([
            (
                "name",
                Arc::new(StringArray::from_iter((0..n).map(|i| (i > 0).then_some("ä")))) as ArrayRef,
                true,
            ),
            (
                "at",
                Arc::new(TimestampMicrosecondArray::from(vec![1_500_000; n]).with_timezone("UTC")) as _,
                true,
            ),
            ("plain", Arc::new(TimestampMicrosecondArray::from(vec![i64::MAX; n])) as _, true),
            ("day", Arc::new(Date32Array::from(vec![-1; n])) as _, true),
            ("f", Arc::new(Float64Array::from(vec![0.1; n])) as _, true),
            ("small", Arc::new(Int64Array::from(vec![-5; n])) as _, true),
            ("bin", Arc::new(BinaryArray::from_vec(vec![b"\x00\xff"; n])) as _, true),
            ("ok", Arc::new(BooleanArray::from(vec![true; n])) as _, true),
            ("id", Arc::new(Int64Array::from(ids)) as _, true),
        ])
        .unwrap()
    };
    assert_eq!(
        session.load(&table, vec![batch((0..5_000).collect()), batch(vec![9_000])]).await.unwrap(),
        5_001
    );
    let expected = "select count(*) from \"S \"\"s\".t where ok and extra = 'd' and at = '1970-01-01 00:00:01.5Z' \
                    and plain = 'infinity' and day = '1969-12-31' and f = 0.1 and small = -5 and bin = '\\x00ff' \
                    and coalesce(name, 'ä') = 'ä'";
    assert_eq!(number(&mut *session, expected).await, 5_001);
    let nulls = "select count(*) from \"S \"\"s\".t where name is null";
    assert_eq!(number(&mut *session, nulls).await, 2);

    for (ids, kind) in
        [(vec![10_000, 0], ErrorKind::UniqueViolation), (vec![10_000, i64::MAX], ErrorKind::Data)]
    {
        assert_eq!(session.load(&table, vec![batch(ids)]).await.unwrap_err().kind, kind);
        assert_eq!(number(&mut *session, "select count(*) from \"S \"\"s\".t").await, 5_001);
    }
    let uuids: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
    let unsupported = RecordBatch::try_from_iter([("u", uuids)]).unwrap();
    let failed = session.load(&table, vec![unsupported]).await.unwrap_err();
    assert_eq!(failed.kind, ErrorKind::Unsupported);
    assert!(failed.message.contains("\"u\"") && failed.message.contains("uuid"), "{failed}");
    let missing = TableRef::new("public", "nowhere").unwrap();
    assert_eq!(session.load(&missing, vec![batch(vec![1])]).await.unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(session.load(&table, vec![]).await.unwrap(), 0);
}

#[tokio::test]
async fn errors_have_kinds() {
    let server = PostgresServer::start();
    let warehouse = warehouse();
    let mut session = open(&*warehouse).await;
    run(
        &mut *session,
        &["create table t (id integer primary key, v integer not null)", "insert into t values (1, 1)"],
    )
    .await;
    let wide: Vec<String> = (0..1_700).map(|i| format!("c{i} integer")).collect();
    let wide = format!("create table wide ({})", wide.join(", "));
    for (statement, kind) in [
        ("select * from nowhere", ErrorKind::NotFound),
        ("create table nowhere.t (id integer)", ErrorKind::NotFound),
        ("select nothing from t", ErrorKind::NotFound),
        ("create table t (id integer)", ErrorKind::AlreadyExists),
        ("create schema public", ErrorKind::AlreadyExists),
        ("selec 1", ErrorKind::Invalid),
        ("select cast('x' as integer)", ErrorKind::Data),
        ("insert into t values (2, null)", ErrorKind::Data),
        ("insert into t values (1, 2)", ErrorKind::UniqueViolation),
        ("set local role pg_read_all_stats; select * from t", ErrorKind::Permission),
        (wide.as_str(), ErrorKind::Unsupported),
    ] {
        let failed = error(&mut *session, statement).await;
        assert_eq!(failed.kind, kind, "{statement}: {failed}");
        assert_eq!(failed.step.as_deref(), Some("step 1"));
        assert!(failed.code.is_some());
    }
    let unique = error(&mut *session, "insert into t values (1, 31337)").await;
    assert!(unique.message.contains("t_pkey") && !unique.message.contains("31337"), "{unique}");

    assert_eq!(
        at(&server.url("no_such_database")).session(&check()).await.err().unwrap().kind,
        ErrorKind::NotFound
    );
    let nobody = at("postgres://u:hunter2@127.0.0.1:1/d").session(&check()).await.err().unwrap();
    assert_eq!(nobody.kind, ErrorKind::Unreachable);
    assert!(nobody.message.contains("127.0.0.1:1") && !nobody.message.contains("hunter2"), "{nobody}");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    // Connections wait in the queue of a socket that nobody reads.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://u@{}/d", silent.local_addr().unwrap());
    let source = source("postgres", json!({"url": url, "connect_timeout": "100ms"}), Path::new("/")).unwrap();
    let failed = source.session(&check()).await.err().unwrap();
    assert_eq!(failed.kind, ErrorKind::Unreachable);
    assert!(failed.message.contains("no answer"), "{failed}");
}

#[tokio::test]
async fn a_wrong_password_is_told_apart() {
    let server = PostgresServer::start();
    let role = format!(
        "do $$ begin create role {PASSWORD_ROLE} login password 'right'; exception when duplicate_object then null; end $$"
    );
    server.run("postgres", &role);
    let with =
        |password: &str| server.url("postgres").replace("postgres@", &format!("{PASSWORD_ROLE}{password}@"));
    at(&with(":right")).session(&check()).await.unwrap();
    for password in [":wr0ng", ""] {
        let failed = at(&with(password)).session(&check()).await.err().unwrap();
        assert_eq!(failed.kind, ErrorKind::Authentication, "{failed}");
        assert!(!failed.message.contains("wr0ng"), "{failed}");
    }
}

#[tokio::test]
async fn terminate_ends_exactly_the_session_it_is_given() {
    let warehouse = warehouse();
    let (mut victim, mut other) = (open(&*warehouse).await, open(&*warehouse).await);
    let id = victim.id().unwrap();
    let (pid, _) = id.split_once('@').unwrap();

    // The same pid with another beginning is another session.
    warehouse.terminate(&format!("{pid}@20000101000000000000")).await.unwrap();
    assert_eq!(number(&mut *victim, "select 1").await, 1);
    assert_eq!(warehouse.terminate("nonsense").await.unwrap_err().kind, ErrorKind::Invalid);

    let sleep = script(Atomicity::Transaction, &[("select pg_sleep(3600)", Expect::Any)]);
    let sleeping = tokio::spawn(async move { (victim.execute(&sleep).await, victim) });
    let busy = format!("select count(*) from pg_stat_activity where pid = {pid} and wait_event = 'PgSleep'");
    while number(&mut *other, &busy).await == 0 {
        tokio::task::yield_now().await;
    }
    warehouse.terminate(&id).await.unwrap();
    assert_eq!(
        number(&mut *other, &format!("select count(*) from pg_stat_activity where pid = {pid}")).await,
        0
    );
    let (result, mut victim) = sleeping.await.unwrap();
    assert_eq!(result.unwrap_err().kind, ErrorKind::ConnectionLost);
    // And so it stays: what the session stood for may have been taken over.
    assert_eq!(rows(&mut *victim, "select 1").await.unwrap_err().kind, ErrorKind::ConnectionLost);
    warehouse.terminate(&id).await.unwrap();
    assert_eq!(number(&mut *other, "select 1").await, 1);
}

/// A diff's rows are read without sorting them: as they were written, whatever the server may do in parallel.
#[tokio::test]
async fn rows_come_as_they_were_written() {
    let url = PostgresServer::start().fresh_database();
    tests::postgres::run(
        &url,
        "do $$ begin execute format('alter database %I set min_parallel_table_scan_size = 0', current_database()); \
           execute format('alter database %I set parallel_setup_cost = 0', current_database()); \
           execute format('alter database %I set parallel_tuple_cost = 0', current_database()); \
           execute format('alter database %I set max_parallel_workers_per_gather = 4', current_database()); end $$",
    );
    let warehouse = at(&url);
    let mut session = open(warehouse.as_ref()).await;
    let write = script(
        Atomicity::Transaction,
        &[
            (
                "create table made as select i as x, repeat('x', 100) as y from generate_series(1, 200000) i",
                Expect::Any,
            ),
            ("alter table made set (parallel_workers = 4)", Expect::Any),
        ],
    );
    session.execute(&write).await.unwrap();
    // The server would read it in parallel, if it was let.
    let plan = tests::postgres::texts(&url, "explain select x from made");
    assert!(plan.iter().flatten().any(|line| line.contains("Gather")), "{plan:?}");
    let batches: Vec<RecordBatch> =
        session.query(&sql("select x from made")).await.unwrap().try_collect().await.unwrap();
    let mut expected = 1;
    for batch in &batches {
        for x in batch.column(0).as_primitive::<Int32Type>().values() {
            assert_eq!(*x, expected, "rows came in another order");
            expected += 1;
        }
    }
    assert_eq!(expected, 200_001);
}
