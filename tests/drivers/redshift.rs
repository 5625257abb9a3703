//! The Redshift driver, on a double: PostgreSQL behind a wire that refuses what Redshift refuses.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Float64Array, Int64Array, RecordBatch,
    StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Float32Type, Float64Type, Int16Type, Int64Type, TimeUnit, TimestampMicrosecondType,
};
use connectors::warehouse::{ErrorKind, Tag, Warehouse};
use futures::TryStreamExt;
use serde_json::json;
use sql_templates::{Atomicity, Expect, LogicalType, TableRef};
use tests::postgres::{OpenConnection, PASSWORD_ROLE, PostgresServer, query, texts};
use tests::redshift::{RedshiftDatabase, RedshiftDouble};

use super::{error, number, open, rows, run, script, source, sql};

fn at(url: &str) -> Arc<dyn Warehouse> {
    source("redshift", json!({"url": url}), Path::new("/")).unwrap()
}

/// A new database and its warehouse.
fn warehouse() -> (RedshiftDatabase, Arc<dyn Warehouse>) {
    let database = RedshiftDouble::start().fresh_database();
    let warehouse = at(&database.url);
    (database, warehouse)
}

fn check() -> Tag {
    Tag { sync: "s".into(), run: None, stage: "check" }
}

#[test]
fn addresses() {
    assert_eq!(at("redshift://u:p@Cluster.example/db").identity(), "redshift://cluster.example:5439/db");
    assert_eq!(at("postgres://u@h:5555/db").identity(), "redshift://h:5555/db");
    assert_eq!(at("redshift://u@[::1]/db?sslmode=disable").identity(), "redshift://[::1]:5439/db");
    assert_eq!(at("redshift://u@h/db").role().as_deref(), Some("u"));
    let wrong = source("redshift", json!({"url": "mysql://u:hunter2@h/db"}), Path::new("/")).err().unwrap();
    assert!(wrong.message.contains("redshift://user:password@host:5439/database"), "{wrong}");
    assert!(!wrong.message.contains("hunter2"), "{wrong}");
}

/// The double is worth as much as it refuses: what PostgreSQL takes and Redshift does not.
#[tokio::test]
async fn the_double_refuses_what_redshift_refuses() {
    let (_, warehouse) = warehouse();
    let mut session = open(&*warehouse).await;
    run(&mut *session, &["create table t (id bigint, v varchar(40))"]).await;
    for statement in [
        "select 1 from t as a join t as b on a.v is not distinct from b.v",
        "insert into t values (1, 'a') on conflict do nothing",
        "insert into t values (1, 'a') returning id",
        "create table if not exists u as select 1 as x",
        "create unlogged table u as select 1 as x",
        "create unique index on t (id)",
        "create index i on t (id)",
        "select ctid from t",
        "select cast('{}' as jsonb)",
        "select array[1, 2]",
        "select distinct on (id) id from t",
        "select * from t, lateral (select 1) as l",
        "select generate_series(1, 3)",
        "select count(*) filter (where id > 1) from t",
        "select pg_advisory_lock(1)",
        "select row(1, 2)",
        "delete from t where (id, v) in (select id, v from t)",
        "delete from t as x where x.id = 1",
        "select * from (values (1), (2)) as v(x)",
        "select clock_timestamp()",
        "select current_timestamp from t",
        "select encode(sha256('a'), 'hex')",
        "create table u (id uuid, v varchar(20))",
        "truncate t",
        "set local enable_hashjoin = off",
        "select * from pg_catalog.pg_range",
        "fetch forward 5000 from c",
        "lock table t in access share mode",
        "alter table t alter column v drop default",
        "select cast(1 = 1 as varchar(5))",
        "select v collate \"C\" from t",
    ] {
        let failed = error(&mut *session, statement).await;
        assert!(failed.code.is_some(), "{statement}: {failed}");
    }
    // And takes what it takes, in texts and names too.
    run(
        &mut *session,
        &[
            "insert into t values (1, 'on conflict (a, b) in ('), (2, 'it\\'s ''quoted''')",
            "create table \"returning\" as select \"ID\" as \"ctid x\" from T",
            "delete from t where exists (select 1 from \"returning\" as r where r.\"Ctid X\" = t.id and t.id = 1)",
            "update t as x set v = 'a' from \"returning\" as r where x.id = r.\"ctid x\"",
        ],
    )
    .await;
    assert_eq!(number(&mut *session, "select count(*) from t where v = 'a'").await, 1);
}

#[tokio::test]
async fn the_connection_is_named_and_set_up() {
    let (database, warehouse) = warehouse();
    let tag = Tag { sync: "it's".into(), run: Some(7), stage: "diff" };
    let mut session = warehouse.session(&tag).await.unwrap();
    let settings = "select current_setting('timezone') || ' ' || current_setting('extra_float_digits') || ' ' || \
                    current_setting('levin.query_group') as s";
    let batch = rows(&mut *session, settings).await.unwrap().remove(0);
    assert_eq!(batch.column(0).as_string::<i32>().value(0), "UTC 2 levin/it's/diff/7");
    let names = texts(
        &database.behind,
        "select application_name::text from pg_stat_activity where application_name like 'levin/%' and datname = current_database()",
    );
    assert_eq!(names, [Some("levin/it's/diff".to_owned())]);
    let limited =
        source("redshift", json!({"url": database.url, "statement_timeout": "50ms"}), Path::new("/"))
            .unwrap();
    database.run("create function wait() returns int language sql volatile as 'select 1 from pg_sleep(60)'");
    let failed = error(&mut *open(&*limited).await, "select wait()").await;
    assert_eq!(failed.kind, ErrorKind::TookTooLong, "{failed}");
}

#[tokio::test]
async fn describe_maps_every_type_without_running_anything() {
    let (database, warehouse) = warehouse();
    database.run("create sequence counter; create function tick() returns bigint language sql as 'select nextval(''counter'')'");
    let mut session = open(&*warehouse).await;
    let cases = [
        ("true", "boolean", LogicalType::Boolean),
        ("cast(1 as smallint)", "smallint", LogicalType::Integer),
        ("1", "integer", LogicalType::Integer),
        ("tick()", "bigint", LogicalType::Integer),
        ("cast(1.5 as numeric(10,2))", "numeric(10,2)", LogicalType::Decimal),
        ("cast(1.5 as real)", "real", LogicalType::Float),
        ("cast(1.5 as double precision)", "double precision", LogicalType::Float),
        ("cast('a' as varchar(20))", "character varying(20)", LogicalType::Text),
        ("cast('a' as text)", "character varying(256)", LogicalType::Text),
        ("'a'", "character varying(65535)", LogicalType::Text),
        ("cast('a' as char(3))", "character(3)", LogicalType::Text),
        ("cast('2026-11-20' as date)", "date", LogicalType::Date),
        ("getdate()", "timestamp without time zone", LogicalType::Timestamp),
        ("cast(getdate() as timestamp with time zone)", "timestamp with time zone", LogicalType::TimestampTz),
        ("cast('10:00' as time)", "time without time zone", LogicalType::Time),
        ("json_parse('{}')", "super", LogicalType::Json),
        ("to_varbyte('00', 'hex')", "varbyte", LogicalType::Binary),
        ("st_geomfromtext('POINT(1 2)')", "geometry", LogicalType::Text),
    ];
    let list: Vec<String> = cases.iter().enumerate().map(|(i, c)| format!("{} as \"C {i}\"", c.0)).collect();
    let columns = session.describe(&sql(&format!("select {}", list.join(", ")))).await.unwrap();
    assert_eq!(columns.len(), cases.len());
    for (i, (column, case)) in columns.iter().zip(&cases).enumerate() {
        assert_eq!(column.name, format!("c {i}"), "names in quotes are folded too");
        assert_eq!((column.engine_type.as_str(), column.logical), (case.1, case.2), "{}", case.0);
    }
    assert_eq!(number(&mut *session, "select tick()").await, 1, "describing must run nothing");
    let columns = session.describe(&sql("select 1 as a, 2 as a")).await.unwrap();
    assert_eq!(columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["a", "a"]);
    assert_eq!(session.describe(&sql("select * from nowhere")).await.unwrap_err().kind, ErrorKind::NotFound);
    let failed = session.describe(&sql("select 1 as ok, interval '1 day' as span")).await.unwrap_err();
    assert_eq!(failed.kind, ErrorKind::Unsupported);
    assert!(failed.message.contains("span") && failed.message.contains("interval"), "{failed}");
}

#[tokio::test]
async fn scripts_keep_their_atomicity() {
    let (_, warehouse) = warehouse();
    let mut session = open(&*warehouse).await;
    run(&mut *session, &["create table t (id bigint, v varchar(20))"]).await;
    for atomicity in [Atomicity::Snapshot, Atomicity::Transaction] {
        run(&mut *session, &["delete from t"]).await;
        let effect = session
            .execute(&script(
                atomicity,
                &[
                    ("insert into t values (1, 'a'), (2, 'b'), (3, null)", Expect::Any),
                    ("update t set v = 'c' where id = 1", Expect::OneRow),
                    ("delete from t where id > 1", Expect::Any),
                    ("select id, v, to_varbyte('00ff', 'hex') as bytes from t order by id", Expect::Rows),
                    ("create table copied as select * from t", Expect::Any),
                    ("drop table copied", Expect::Any),
                ],
            ))
            .await
            .unwrap();
        let counts: Vec<_> = effect.steps.iter().take(4).map(|s| s.rows).collect();
        assert_eq!(counts, [Some(3), Some(1), Some(2), Some(1)]);
        let returned = effect.result("step 4");
        assert_eq!(returned[0].column(1).as_string::<i32>().value(0), "c");
        assert_eq!(returned[0].column(2).as_binary::<i32>().value(0), [0, 255]);
        assert_eq!(number(&mut *session, "select count(*) from t").await, 1);

        for (second, kind) in [
            ("insert into t values (8, cast('x' as bigint))", ErrorKind::Data),
            ("insert into nowhere values (8)", ErrorKind::NotFound),
        ] {
            let steps = [("insert into t values (7, 'x')", Expect::Any), (second, Expect::Any)];
            let failed = session.execute(&script(atomicity, &steps)).await.unwrap_err();
            assert_eq!(failed.kind, kind, "{failed}");
            assert_eq!(failed.step.as_deref(), Some("step 2"));
        }
        for fenced in ["update t set v = 'z' where id = 999", "insert into t values (21, 'x'), (22, 'y')"] {
            let steps = [("insert into t values (8, 'x')", Expect::Any), (fenced, Expect::OneRow)];
            let failed = session.execute(&script(atomicity, &steps)).await.unwrap_err();
            assert_eq!(failed.kind, ErrorKind::Fenced, "{failed}");
            assert_eq!(failed.step.as_deref(), Some("step 2"));
        }
        assert_eq!(number(&mut *session, "select count(*) from t").await, 1);
    }
    let steps = [
        ("create table rehearsed as select * from t", Expect::Any),
        ("insert into rehearsed values (9, 'z')", Expect::OneRow),
        ("select cast(count(*) as bigint) as n from rehearsed", Expect::Rows),
    ];
    let effect = session.execute(&script(Atomicity::Rehearsal, &steps)).await.unwrap();
    assert_eq!(effect.result("step 3")[0].column(0).as_primitive::<Int64Type>().value(0), 2);
    assert_eq!(error(&mut *session, "select * from rehearsed").await.kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn results_stream_through_a_cursor() {
    let (database, warehouse) = warehouse();
    database.run("create table numbers as select n from generate_series(1::bigint, 100000) as g(n)");
    let mut session = open(&*warehouse).await;
    let mut stream = session.query(&sql("select n from numbers order by n -- all")).await.unwrap();
    let (mut seen, mut largest) = (0_i64, 0);
    while let Some(batch) = stream.try_next().await.unwrap() {
        largest = largest.max(batch.num_rows());
        for n in batch.column(0).as_primitive::<Int64Type>().values() {
            seen += 1;
            assert_eq!(*n, seen, "rows come in their order");
        }
    }
    drop(stream);
    assert_eq!(seen, 100_000);
    assert!(largest <= 8_192, "a batch held {largest} rows");
    let before = session.id();
    // Ends on, before and behind the end of a FETCH, and a cursor after a cursor.
    for n in [0, 1, 999, 1_000, 1_001, 2_000, 3_500] {
        let batches = rows(&mut *session, &format!("select n from numbers where n <= {n}")).await.unwrap();
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), n, "{n}");
    }
    assert_eq!(session.id(), before);
    let failed = rows(&mut *session, "select 1 / (90000 - n) as x from numbers").await.unwrap_err();
    assert_eq!((failed.kind, failed.code.as_deref()), (ErrorKind::Data, Some("22012")));
    assert_eq!(rows(&mut *session, "select * from nowhere").await.unwrap_err().kind, ErrorKind::NotFound);

    // Left half read, it stops on the server, and its connection is not used again.
    let before = session.id().unwrap();
    let endless = "select a.n from numbers as a cross join numbers as b cross join numbers as c";
    let mut stream = session.query(&sql(endless)).await.unwrap();
    stream.try_next().await.unwrap().unwrap();
    drop(stream);
    assert_eq!(number(&mut *session, "select 7").await, 7);
    let pid = before.split_once('@').unwrap().0.to_owned();
    let still_there = format!("select 1 from pg_stat_activity where pid = {pid}");
    while !query(&database.behind, &still_there).is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn values_arrive_as_they_are() {
    let (_, warehouse) = warehouse();
    let mut session = open(&*warehouse).await;
    let select = "select true as b, cast(-7 as smallint) as i2, cast(9223372036854775807 as bigint) as i8, \
                  cast(0.5 as real) as f4, cast(0.1 as double precision) + cast(0.2 as double precision) as f8, \
                  cast('nan' as double precision) as nan, cast('-infinity' as double precision) as inf, \
                  'ä\\\\' || '''' || '\\n' as t, cast('v' as varchar(9)) as v, cast('c' as char(3)) as c, \
                  cast(12345678901234567890.5 as numeric(38,2)) as d, to_varbyte('00ff', 'hex') as bin, \
                  cast('1969-12-31' as date) as day, cast('1969-12-31 23:59:59.999999' as timestamp) as ts, \
                  cast('2026-11-20 10:00:00+01' as timestamp with time zone) as tstz, cast('10:00:00.5' as time) as clock, \
                  cast('294276-12-31 00:00:00' as timestamp) as far, '' as empty \
                  union all select null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null";
    let batch = rows(&mut *session, select).await.unwrap().remove(0);
    assert_eq!(batch.num_rows(), 2);
    for (i, field) in batch.schema().fields().iter().enumerate() {
        assert!(batch.column(i).is_null(1) && batch.column(i).is_valid(0), "{}", field.name());
    }
    let column = |name: &str| batch.column_by_name(name).unwrap().clone();
    assert!(column("b").as_boolean().value(0));
    assert_eq!(column("i2").as_primitive::<Int16Type>().value(0), -7);
    assert_eq!(column("i8").as_primitive::<Int64Type>().value(0), i64::MAX);
    assert_eq!(column("f4").as_primitive::<Float32Type>().value(0), 0.5);
    assert_eq!(column("f8").as_primitive::<Float64Type>().value(0), 0.1 + 0.2);
    assert!(column("nan").as_primitive::<Float64Type>().value(0).is_nan());
    assert_eq!(column("inf").as_primitive::<Float64Type>().value(0), f64::NEG_INFINITY);
    for (name, expected) in [
        ("t", "ä\\'\n"),
        ("v", "v"),
        ("c", "c  "),
        ("d", "12345678901234567890.50"),
        ("clock", "10:00:00.5"),
        ("empty", ""),
    ] {
        assert_eq!(column(name).as_string::<i32>().value(0), expected, "{name}");
    }
    assert_eq!(column("bin").as_binary::<i32>().value(0), [0, 255]);
    assert_eq!(column("day").as_primitive::<Date32Type>().value(0), -1);
    let microseconds = |name: &str| column(name).as_primitive::<TimestampMicrosecondType>().value(0);
    assert_eq!((microseconds("ts"), microseconds("tstz")), (-1, 1_795_165_200_000_000));
    assert_eq!(microseconds("far"), i64::MAX, "beyond what the column can hold");
    assert_eq!(column("tstz").data_type(), &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())));
    let failed = rows(&mut *session, "select 1 as ok, json_parse('1') as doc").await.unwrap_err();
    assert_eq!(failed.kind, ErrorKind::Unsupported, "{failed}");
}

#[tokio::test]
async fn a_running_statement_can_be_cancelled() {
    let (database, warehouse) = warehouse();
    database.run("create table numbers as select n from generate_series(1, 100000) as g(n)");
    let mut session = open(&*warehouse).await;
    let canceller = session.canceller();
    let endless = "select count(*) from numbers as a cross join numbers as b cross join numbers as c";
    let endless = script(
        Atomicity::Transaction,
        &[("create table made as select 1 as x", Expect::Any), (endless, Expect::Rows)],
    );
    let work = tokio::spawn(async move { session.execute(&endless).await });
    // A request that comes before the statement does nothing, so it is repeated.
    while !work.is_finished() {
        canceller.cancel().await.unwrap();
        tokio::task::yield_now().await;
    }
    let failed = work.await.unwrap().unwrap_err();
    assert_eq!((failed.kind, failed.code.as_deref()), (ErrorKind::Cancelled, Some("57014")), "{failed}");
    assert_eq!(error(&mut *open(&*warehouse).await, "select * from made").await.kind, ErrorKind::NotFound);
}

/// Waits until a statement of the database waits for a lock.
async fn somebody_waits(database: &RedshiftDatabase) {
    let waiting =
        "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    while query(&database.behind, waiting).is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_conflict_with_another_transaction_is_tried_again() {
    let (database, warehouse) = warehouse();
    database.run("create table t (n bigint); insert into t values (1)");
    let behind = database.behind.clone();
    let other =
        tokio::task::spawn_blocking(move || OpenConnection::after(&behind, "begin; update t set n = n + 10"))
            .await
            .unwrap();
    let mut session = open(&*warehouse).await;
    let steps = [("update t set n = n + 1", Expect::OneRow), ("select n from t", Expect::Rows)];
    let work = tokio::spawn(async move { session.execute(&script(Atomicity::Transaction, &steps)).await });
    somebody_waits(&database).await;
    tokio::task::spawn_blocking(move || other.run("commit")).await.unwrap();
    let effect = work.await.unwrap().unwrap();
    assert_eq!(effect.result("step 2")[0].column(0).as_primitive::<Int64Type>().value(0), 12);

    // One that never ends is told, after as many attempts as there are to be.
    database.run(
        "create sequence attempts; create function conflict() returns trigger language plpgsql as $$ begin \
         perform nextval('attempts'); raise exception 'could not serialize access' using errcode = '40001'; end $$; \
         create trigger conflicting before update on t execute function conflict()",
    );
    let mut session = open(&*warehouse).await;
    let failed = error(&mut *session, "update t set n = 0").await;
    assert_eq!((failed.kind, failed.code.as_deref()), (ErrorKind::Busy, Some("XX000")), "{failed}");
    assert!(failed.message.contains("1023") && failed.message.contains("isolation"), "{failed}");
    assert_eq!(query(&database.behind, "select last_value from attempts"), [[Some("6".to_owned())]]);
    assert_eq!(number(&mut *session, "select n from t").await, 12);
}

#[tokio::test]
async fn loading_is_all_or_none() {
    let (_, warehouse) = warehouse();
    let mut session = open(&*warehouse).await;
    run(
        &mut *session,
        &[
            "create schema \"s \"\"s\"",
            "create table \"s \"\"s\".t (id integer, name varchar(20), ok boolean, at timestamp with time zone, \
             day date, f double precision, bin varbyte, extra varchar(20) default 'd')",
        ],
    )
    .await;
    let table = TableRef::new("s \"s", "t").unwrap();
    let hostile = "it's \\ \"x\"\n');--";
    let batch = |ids: Vec<i64>| {
        let n = ids.len();
        let at = TimestampMicrosecondArray::from(vec![1_500_000; n]).with_timezone("UTC");
        let names = StringArray::from_iter((0..n).map(|i| (i > 0).then_some(hostile)));
        RecordBatch::try_from_iter_with_nullable([
            ("name", Arc::new(names) as ArrayRef, true),
            ("at", Arc::new(at) as _, true),
            ("day", Arc::new(Date32Array::from(vec![-1; n])) as _, true),
            ("f", Arc::new(Float64Array::from(vec![0.1; n])) as _, true),
            ("bin", Arc::new(BinaryArray::from_vec(vec![b"\x00\xff"; n])) as _, true),
            ("ok", Arc::new(BooleanArray::from(vec![true; n])) as _, true),
            ("id", Arc::new(Int64Array::from(ids)) as _, true),
        ])
        .unwrap()
    };
    let batches = vec![batch((0..2_500).collect()), batch(vec![9_000])];
    assert_eq!(session.load(&table, batches).await.unwrap(), 2_501);
    let expected = format!(
        "select count(*) from \"s \"\"s\".t where ok and extra = 'd' and day = '1969-12-31' and f = 0.1 \
         and at = cast('1970-01-01 00:00:01.5+00' as timestamp with time zone) and bin = to_varbyte('00ff', 'hex') \
         and coalesce(name, 'n') in ('n', '{}')",
        hostile.replace('\\', "\\\\").replace('\'', "''")
    );
    assert_eq!(number(&mut *session, &expected).await, 2_501);
    assert_eq!(number(&mut *session, "select count(*) from \"s \"\"s\".t where name is null").await, 2);
    let mut ids: Vec<i64> = (0..1_500).collect();
    ids.push(i64::MAX);
    assert_eq!(session.load(&table, vec![batch(ids)]).await.unwrap_err().kind, ErrorKind::Data);
    assert_eq!(number(&mut *session, "select count(*) from \"s \"\"s\".t").await, 2_501, "none of them");
    let missing = TableRef::new("public", "nowhere").unwrap();
    assert_eq!(session.load(&missing, vec![batch(vec![1])]).await.unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(session.load(&table, vec![]).await.unwrap(), 0);
}

#[tokio::test]
async fn errors_have_kinds() {
    let (database, warehouse) = warehouse();
    database.run(
        "create table t (id bigint); do $$ begin create role reads_only login; exception when duplicate_object then null; end $$; \
         grant select on t to reads_only",
    );
    let mut session = open(&*warehouse).await;
    for (statement, kind) in [
        ("select * from nowhere", ErrorKind::NotFound),
        ("select nothing from t", ErrorKind::NotFound),
        ("create table t (id integer)", ErrorKind::AlreadyExists),
        ("create schema public", ErrorKind::AlreadyExists),
        ("selec 1", ErrorKind::Invalid),
        ("select cast('x' as integer)", ErrorKind::Data),
    ] {
        let failed = error(&mut *session, statement).await;
        assert_eq!((failed.kind, failed.step.as_deref()), (kind, Some("step 1")), "{statement}: {failed}");
    }
    // Whoever may read and not create hears so.
    let reader = at(&database.url.replace("postgres@", "reads_only@"));
    let mut session = open(&*reader).await;
    assert_eq!(number(&mut *session, "select count(*) from t").await, 0);
    for statement in ["create schema levin_planner", "insert into t values (1)"] {
        assert_eq!(error(&mut *session, statement).await.kind, ErrorKind::Permission, "{statement}");
    }

    let double = RedshiftDouble::start();
    let kind = async |url: String| at(&url).session(&check()).await.err().unwrap();
    assert_eq!(kind(double.url("postgres", "no_such_database")).await.kind, ErrorKind::NotFound);
    let nobody = kind("redshift://u:hunter2@127.0.0.1:1/d".to_owned()).await;
    assert_eq!(nobody.kind, ErrorKind::Unreachable);
    assert!(nobody.message.contains("127.0.0.1:1") && !nobody.message.contains("hunter2"), "{nobody}");
    let unknown = kind("redshift://u:hunter2@no-such-host.invalid/d".to_owned()).await;
    assert_eq!(unknown.kind, ErrorKind::Unreachable, "{unknown}");

    let role = format!(
        "do $$ begin create role {PASSWORD_ROLE} login password 'right'; exception when duplicate_object then null; end $$"
    );
    PostgresServer::start().run("postgres", &role);
    let with = |password: &str| double.url(&format!("{PASSWORD_ROLE}{password}"), "postgres");
    at(&with(":right")).session(&check()).await.unwrap();
    for password in [":wr0ng", ""] {
        let failed = kind(with(password)).await;
        assert_eq!(failed.kind, ErrorKind::Authentication, "{failed}");
        assert!(!failed.message.contains("wr0ng"), "{failed}");
    }
}

#[tokio::test]
async fn a_session_that_is_gone_stays_gone() {
    let (database, warehouse) = warehouse();
    database.run("create table t (n bigint); insert into t values (1)");
    let mut victim = open(&*warehouse).await;
    let id = victim.id().unwrap();
    let (pid, _) = id.split_once('@').unwrap();
    // The same pid with another beginning is another session.
    warehouse.terminate(&format!("{pid}@2000-01-01 00:00:00")).await.unwrap();
    assert_eq!(number(&mut *victim, "select 1").await, 1);
    for nonsense in ["nonsense", "1@'; drop table t", "x@2000-01-01"] {
        assert_eq!(warehouse.terminate(nonsense).await.unwrap_err().kind, ErrorKind::Invalid);
    }
    let behind = database.behind.clone();
    let held =
        tokio::task::spawn_blocking(move || OpenConnection::after(&behind, "begin; update t set n = 2"));
    let held = held.await.unwrap();
    let steps = [("insert into t values (3)", Expect::Any), ("update t set n = 4", Expect::Any)];
    let waiting =
        tokio::spawn(async move { (victim.execute(&script(Atomicity::Transaction, &steps)).await, victim) });
    somebody_waits(&database).await;
    warehouse.terminate(&id).await.unwrap();
    let (result, mut victim) = waiting.await.unwrap();
    assert_eq!(result.unwrap_err().kind, ErrorKind::ConnectionLost);
    assert_eq!(rows(&mut *victim, "select 1").await.unwrap_err().kind, ErrorKind::ConnectionLost);
    warehouse.terminate(&id).await.unwrap();
    tokio::task::spawn_blocking(move || drop(held)).await.unwrap();
    assert_eq!(number(&mut *open(&*warehouse).await, "select count(*) from t").await, 1);
}
