//! The Snowflake driver, against the double.

#[path = "snowflake/auth.rs"]
mod auth;
#[path = "snowflake/trouble.rs"]
mod trouble;

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Float64Array, Int32Array, Int64Array,
    RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Date32Type, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use connectors::warehouse::{ErrorKind, Session, Warehouse, WarehouseError};
use futures::TryStreamExt;
use serde_json::{Value, json};
use sql_templates::{Atomicity, Expect, LogicalType, TableRef};
use tests::snowflake::{SnowflakeDouble, SnowflakeUser};

use super::{error, number, open, results_stream, rows, run, script, source, sql, until};

const MILLION: &str = "select seq4() + 1 as n from table(generator(rowcount => 1000000))";

/// A statement that takes longer than any test, and one that DuckDB works at for as long.
const WAIT: &str = "select system$wait(3600)";
const ENDLESS: &str = "select count(*) as n from table(generator(rowcount => 1000000000000))";

fn user() -> SnowflakeUser {
    SnowflakeDouble::start().fresh_user()
}

fn with(user: &SnowflakeUser, change: &Value) -> Arc<dyn Warehouse> {
    let mut config = user.source();
    for (key, value) in change.as_object().expect("keys") {
        match value {
            Value::Null => drop(config.as_object_mut().expect("keys").remove(key)),
            value => config[key] = value.clone(),
        }
    }
    config.as_object_mut().expect("keys").remove("type");
    source("snowflake", config, Path::new("/")).expect("a source")
}

fn at(user: &SnowflakeUser) -> Arc<dyn Warehouse> {
    with(user, &json!({}))
}

/// How many of the user's statements begin like this, and how they ended.
fn ran(user: &SnowflakeUser, beginning: &str) -> Vec<String> {
    let told = user.told();
    let statements = told["statements"].as_array().expect("a list");
    let like = statements.iter().filter(|s| s["sql"].as_str().is_some_and(|sql| sql.starts_with(beginning)));
    like.map(|s| s["state"].as_str().expect("a state").to_owned()).collect()
}

async fn failed(session: &mut dyn Session, select: &str) -> WarehouseError {
    rows(session, select).await.expect_err("the statement fails")
}

/// What the tests below prove is worth as much as the double: Snowflake's own connector must be content with it.
#[test]
fn the_double_is_what_snowflakes_own_connector_expects() {
    let user = user();
    user.set(&json!({"inline_rows": 100, "chunk_rows": 1000, "patience": 0.2}));
    let (agrees, said) = SnowflakeDouble::start()
        .script("snowflake_agrees.py", &[&user.name, tests::snowflake::PASSWORD, &user.database]);
    assert!(agrees, "{said}");
}

#[tokio::test]
async fn scripts_are_all_or_nothing() {
    let user = user();
    let warehouse = at(&user);
    let mut session = open(&*warehouse).await;
    run(&mut *session, &["create table t (id bigint, v text)"]).await;
    for atomicity in [Atomicity::Snapshot, Atomicity::Transaction] {
        run(&mut *session, &["delete from t"]).await;
        let steps = [
            ("insert into t values (1, 'a'), (2, 'b'), (3, null)", Expect::Any),
            ("update t set v = 'c' where id = 1", Expect::OneRow),
            ("delete from t where id > 1", Expect::Any),
            ("select id, v from t order by id", Expect::Rows),
        ];
        let effect = session.execute(&script(atomicity, &steps)).await.unwrap();
        let counts: Vec<_> = effect.steps.iter().map(|s| s.rows).collect();
        assert_eq!(counts, [Some(3), Some(1), Some(2), Some(1)]);
        assert_eq!(effect.result("step 4")[0].column(1).as_string::<i32>().value(0), "c");
        assert_eq!(number(&mut *session, "select count(*) from t").await, 1);

        for (fails, kind) in [
            ("insert into t values (cast('x' as integer), 'y')", ErrorKind::Data),
            ("insert into nowhere values (1)", ErrorKind::NotFound),
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
            assert_eq!(number(&mut *session, "select count(*) from t").await, 1);
        }
    }
    let steps = [
        ("insert into t values (9, 'z')", Expect::OneRow),
        ("select cast(count(*) as bigint) as n from t", Expect::Rows),
    ];
    let effect = session.execute(&script(Atomicity::Rehearsal, &steps)).await.unwrap();
    assert_eq!(effect.result("step 2")[0].column(0).as_primitive::<Int64Type>().value(0), 2);
    assert_eq!(number(&mut *session, "select count(*) from t").await, 1);

    // Separate steps stand alone: what was done before one that fails stays.
    let steps = [
        ("create table separate as select * from t", Expect::Any),
        ("insert into separate values (2, 'b')", Expect::OneRow),
        ("selec 1", Expect::Any),
        ("insert into separate values (3, 'c')", Expect::Any),
    ];
    let failed = session.execute(&script(Atomicity::Separate, &steps)).await.unwrap_err();
    assert_eq!((failed.kind, failed.step.as_deref()), (ErrorKind::Invalid, Some("step 3")), "{failed}");
    assert_eq!(number(&mut *session, "select count(*) from separate").await, 2);
}

#[tokio::test]
async fn results_come_in_chunks() {
    let user = user();
    user.set(&json!({"inline_rows": 1000, "chunk_rows": 100_000}));
    let warehouse = at(&user);
    let mut session = open(&*warehouse).await;
    results_stream(&mut *session, MILLION).await;
    // Nothing compressed, headers of another cloud, and no rows with the answer itself.
    user.set(&json!({"compress": false, "inline_rows": 0, "chunk_headers": {"x-other-cloud": "key"}}));
    let all =
        rows(&mut *session, "select seq4() as n from table(generator(rowcount => 30000))").await.unwrap();
    assert_eq!(all.iter().map(RecordBatch::num_rows).sum::<usize>(), 30_000);
    assert!(all.iter().all(|b| b.num_rows() <= 8_192));
}

#[tokio::test]
async fn no_more_is_held_than_is_read() {
    let user = user();
    user.set(&json!({"chunk_rows": 10_000}));
    let warehouse = at(&user);
    let mut session = open(&*warehouse).await;
    let chunks = || user.told()["requests"]["chunk"].as_u64().unwrap_or(0);
    let mut stream = session.query(&sql(MILLION)).await.unwrap();
    let mut read = 0;
    while read < 50_000 {
        read += stream.try_next().await.unwrap().expect("a batch").num_rows() as u64;
        // The rows that came with the answer, the chunk in hand and the one that follows it.
        let most = read.div_ceil(10_000) + 1;
        assert!(chunks() <= most, "{} chunks for {read} rows", chunks());
    }
    drop(stream);
    let asked = chunks();
    assert_eq!(number(&mut *session, "select 42").await, 42);
    assert!(chunks() <= asked + 1, "a stream that was dropped goes on");
}

#[tokio::test]
async fn answers_that_come_later_are_waited_for() {
    let user = user();
    let warehouse = at(&user);
    let mut session = open(&*warehouse).await;
    for code in ["333333", "333334"] {
        user.set(&json!({"patience": 0.05, "later_code": code}));
        let before = user.told()["requests"]["result"].as_u64().unwrap_or(0);
        run(&mut *session, &["select system$wait(1)"]).await;
        assert!(user.told()["requests"]["result"].as_u64().unwrap() > before + 3, "{code}");
        let failed = failed(&mut *session, "select * from nowhere").await;
        assert_eq!(failed.kind, ErrorKind::NotFound);
    }
    assert_eq!(ran(&user, "select system$wait"), ["done", "done"]);
}

#[tokio::test]
async fn columns_are_described_without_running() {
    let user = user();
    let warehouse = at(&user);
    let mut session = open(&*warehouse).await;
    run(
        &mut *session,
        &["create table d (id number(38,0), price number(12,2), name varchar, ok boolean, f float, day date, \
           at_time time, plain timestamp_ntz, instant timestamp_tz, bin binary, doc variant, \"Mixed\" integer)"],
    )
    .await;
    let columns = session.describe(&sql("select * from d")).await.unwrap();
    let read: Vec<_> = columns.iter().map(|c| (c.name.as_str(), c.engine_type.as_str(), c.logical)).collect();
    assert_eq!(
        read,
        [
            ("ID", "NUMBER(38,0)", LogicalType::Integer),
            ("PRICE", "NUMBER(12,2)", LogicalType::Decimal),
            ("NAME", "VARCHAR(16777216)", LogicalType::Text),
            ("OK", "BOOLEAN", LogicalType::Boolean),
            ("F", "FLOAT", LogicalType::Float),
            ("DAY", "DATE", LogicalType::Date),
            ("AT_TIME", "TIME(9)", LogicalType::Time),
            ("PLAIN", "TIMESTAMP_NTZ(9)", LogicalType::Timestamp),
            ("INSTANT", "TIMESTAMP_TZ(9)", LogicalType::TimestampTz),
            ("BIN", "BINARY(8388608)", LogicalType::Binary),
            ("DOC", "VARIANT", LogicalType::Json),
            ("Mixed", "NUMBER(38,0)", LogicalType::Integer),
        ]
    );
    let failed = session.describe(&sql("select * from nowhere")).await.unwrap_err();
    assert_eq!(failed.kind, ErrorKind::NotFound);
    let before = user.told();
    session.describe(&sql("select 1 as one")).await.unwrap();
    let after = user.told();
    let last = after["statements"].as_array().unwrap().last().unwrap();
    assert_eq!(last["describe"], true);
    assert_eq!(
        after["statements"].as_array().unwrap().len(),
        before["statements"].as_array().unwrap().len() + 1
    );
}

const VALUES: &str = "select 7 as small, 9223372036854775807 as big, \
     cast(-1.5 as number(12,2)) as price, \
     'ä' as txt, true as yes, cast(0.1 as float) as f, cast('1969-12-31' as date) as day, \
     cast('12:34:56.5' as time) as clock, cast('1969-12-31 23:59:59.999999' as timestamp_ntz) as plain, \
     cast('2026-11-20 10:00:00+01:00' as timestamp_tz) as instant, to_binary('00ff', 'HEX') as bin, \
     to_json(parse_json('{\"a\":[1,null]}')) as doc, cast(null as integer) as nothing";

#[tokio::test]
async fn values_keep_what_they_are() {
    let user = user();
    let warehouse = at(&user);
    let mut session = open(&*warehouse).await;
    for json in [false, true] {
        user.set(&json!({"json_results": json}));
        let batches = rows(&mut *session, VALUES).await.unwrap();
        let column = |name: &str| batches[0].column_by_name(name).unwrap_or_else(|| panic!("{name}"));
        let text = |name: &str| column(name).as_string::<i32>().value(0).to_owned();
        assert_eq!(column("small").as_primitive::<Int64Type>().value(0), 7);
        assert_eq!(column("big").as_primitive::<Int64Type>().value(0), i64::MAX);
        assert_eq!(text("price"), "-1.50");
        assert_eq!(text("txt"), "ä");
        assert!(column("yes").as_boolean().value(0));
        assert_eq!(column("f").as_primitive::<Float64Type>().value(0).to_bits(), 0.1_f64.to_bits());
        assert_eq!(column("day").as_primitive::<Date32Type>().value(0), -1);
        assert_eq!(text("clock"), "12:34:56.5");
        assert_eq!(column("plain").as_primitive::<TimestampMicrosecondType>().value(0), -1);
        assert_eq!(column("plain").data_type(), &DataType::Timestamp(TimeUnit::Microsecond, None));
        assert_eq!(
            column("instant").as_primitive::<TimestampMicrosecondType>().value(0),
            1_763_629_200_000_000 + 31_536_000_000_000
        );
        assert_eq!(
            column("instant").data_type(),
            &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
        );
        assert_eq!(column("bin").as_binary::<i32>().value(0), [0, 255]);
        assert_eq!(text("doc"), r#"{"a":[1,null]}"#);
        assert!(column("nothing").is_null(0));
    }
}

#[tokio::test]
async fn loading_matches_columns_by_name_all_or_none() {
    let user = user();
    let warehouse = at(&user);
    let mut session = open(&*warehouse).await;
    run(
        &mut *session,
        &[
            "create schema \"S s\"",
            "create table \"S s\".\"t\" (id integer not null, name text, ok boolean, \"Ident\" text, instant timestamp_tz, \
             plain timestamp_ntz, day date, f float, bin binary, extra text)",
        ],
    )
    .await;
    let table = TableRef::new("S s", "t").unwrap();
    let batch = |ids: Vec<Option<i64>>| {
        let n = ids.len();
        RecordBatch::try_from_iter_with_nullable([
            (
                "name",
                Arc::new(StringArray::from_iter((0..n).map(|i| (i > 0).then_some("ä'\\")))) as ArrayRef,
                true,
            ),
            ("Ident", Arc::new(StringArray::from(vec!["?"; n])) as _, true),
            (
                "instant",
                Arc::new(TimestampMicrosecondArray::from(vec![1_500_000; n]).with_timezone("UTC")) as _,
                true,
            ),
            ("plain", Arc::new(TimestampMicrosecondArray::from(vec![86_400_000_000; n])) as _, true),
            ("day", Arc::new(Date32Array::from(vec![-1; n])) as _, true),
            ("f", Arc::new(Float64Array::from(vec![0.1; n])) as _, true),
            ("bin", Arc::new(BinaryArray::from_vec(vec![b"\x00\xff"; n])) as _, true),
            ("ok", Arc::new(BooleanArray::from(vec![true; n])) as _, true),
            ("id", Arc::new(Int64Array::from(ids)) as _, true),
        ])
        .unwrap()
    };
    let ids = |range: std::ops::Range<i64>| range.map(Some).collect::<Vec<_>>();
    assert_eq!(session.load(&table, vec![batch(ids(0..50)), batch(vec![Some(9_000)])]).await.unwrap(), 51);
    let expected = "select count(*) from \"S s\".\"t\" where ok and extra is null and \"Ident\" = '?' \
                    and instant = '1970-01-01 00:00:01.5+00:00' and plain = '1970-01-02 00:00:00' \
                    and day = '1969-12-31' and f = 0.1 and coalesce(name, 'ä''\\\\') = 'ä''\\\\'";
    assert_eq!(number(&mut *session, expected).await, 51);
    assert_eq!(number(&mut *session, "select count(*) from \"S s\".\"t\" where name is null").await, 2);

    // The second of several inserts fails, and the first is undone.
    let refused = session.load(&table, vec![batch(ids(100..110)), batch(vec![None])]).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Data, "{refused}");
    assert_eq!(number(&mut *session, "select count(*) from \"S s\".\"t\"").await, 51);

    let unknown =
        RecordBatch::try_from_iter([("nope", Arc::new(Int32Array::from(vec![1])) as ArrayRef)]).unwrap();
    let refused = session.load(&table, vec![unknown]).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::NotFound);
    assert!(refused.message.contains("nope"), "{refused}");
    let missing = TableRef::new("S s", "nowhere").unwrap();
    assert_eq!(
        session.load(&missing, vec![batch(vec![Some(1)])]).await.unwrap_err().kind,
        ErrorKind::NotFound
    );
    assert_eq!(session.load(&table, vec![]).await.unwrap(), 0);
}

#[tokio::test]
async fn whoever_makes_a_schema_does_not_stay_in_it() {
    let user = user();
    let mut session = open(&*at(&user)).await;
    run(
        &mut *session,
        &["create table t (n bigint)", "insert into t values (1)", "create schema \"of levin\""],
    )
    .await;
    assert_eq!(number(&mut *session, "select count(*) from t").await, 1);
}

#[tokio::test]
async fn errors_have_kinds() {
    let user = user();
    let warehouse = at(&user);
    let mut session = open(&*warehouse).await;
    run(&mut *session, &["create table t (id integer not null)"]).await;
    for (statement, kind) in [
        ("select * from nowhere", ErrorKind::NotFound),
        ("select nothing from t", ErrorKind::NotFound),
        ("create table t (id integer)", ErrorKind::AlreadyExists),
        ("selec 1", ErrorKind::Invalid),
        ("select cast('x' as integer)", ErrorKind::Data),
        ("insert into t values (null)", ErrorKind::Data),
    ] {
        let failed = error(&mut *session, statement).await;
        assert_eq!(failed.kind, kind, "{statement}: {failed}");
        assert_eq!(failed.step.as_deref(), Some("step 1"));
        assert!(failed.code.is_some() && failed.message.contains("[query "), "{failed}");
    }
}

#[tokio::test]
async fn statements_say_whose_they_are() {
    let user = user();
    let mut session = open(&*with(&user, &json!({"statement_timeout": "90s", "role": "LEVIN"}))).await;
    run(&mut *session, &["select 1"]).await;
    let told = user.told();
    let tag: Value =
        serde_json::from_str(told["statements"][0]["tag"].as_str().expect("a query tag")).expect("in JSON");
    assert_eq!(tag, json!({"app": "levin", "sync": "customers-to-crm", "run": 1, "stage": "diff"}));
    let login = &told["logins"][0];
    assert_eq!((&login["roleName"], &login["warehouse"]), (&json!("LEVIN"), &json!("LEVIN_WH")));
    assert!(login["application"].as_str().unwrap().starts_with("levin_"), "{login}");
    let parameters = &login["parameters"];
    assert_eq!(parameters["STATEMENT_TIMEOUT_IN_SECONDS"], 90);
    assert_eq!(
        (&parameters["TIMEZONE"], &parameters["QUOTED_IDENTIFIERS_IGNORE_CASE"]),
        (&json!("UTC"), &json!(false))
    );
    // What account and user may have set otherwise, and levin's statements depend on.
    for format in ["DATE_INPUT_FORMAT", "TIME_INPUT_FORMAT", "TIMESTAMP_INPUT_FORMAT"] {
        assert_eq!(parameters[format], "AUTO", "{format}");
    }
    assert_eq!(parameters["ROWS_PER_RESULTSET"], 0);
}
