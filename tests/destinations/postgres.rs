//! The destination `postgres`, against a real server.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::*;
use arrow::datatypes::{Field, Schema};
use async_trait::async_trait;
use connectors::catalogue::{BuildContext, DESTINATIONS};
use connectors::change::{ChangeBatch, Mode, OnRemoved, Operation, with_logical_type};
use connectors::destination::{Delivery, DeliverySpec, Destination, RunFacts};
use connectors::outcome::{DeliveryError, Rejection, RowOutcome};
use connectors::retry::{Gate, RetryPolicy, Settled, Stopped, deliver_batch};
use serde_json::{Value, json};
use sql_templates::LogicalType;
use tests::postgres::{PostgresServer, run as execute};

use crate::cut::{Cut, Way};

fn destination_with(config: Value) -> Arc<dyn Destination> {
    let connector = DESTINATIONS.iter().find(|d| d.name == "postgres").unwrap();
    let context =
        BuildContext { slug: "crm".into(), project: Path::new("/nowhere").into(), secrets: Vec::new() };
    (connector.build)(config, &context).unwrap()
}

fn destination(url: &str) -> Arc<dyn Destination> {
    destination_with(json!({"url": url}))
}

/// A column with its logical type.
fn column(name: &str, array: impl Array + 'static, logical: LogicalType) -> (Field, ArrayRef) {
    let array: ArrayRef = Arc::new(array);
    (with_logical_type(Field::new(name, array.data_type().clone(), true), logical), array)
}

fn ids(values: &[i64]) -> (Field, ArrayRef) {
    column("id", Int64Array::from(values.to_vec()), LogicalType::Integer)
}

fn texts(name: &str, values: &[Option<&str>]) -> (Field, ArrayRef) {
    column(name, StringArray::from(values.to_vec()), LogicalType::Text)
}

fn records(columns: &[(Field, ArrayRef)]) -> RecordBatch {
    let schema = Arc::new(Schema::new(columns.iter().map(|c| c.0.clone()).collect::<Vec<_>>()));
    RecordBatch::try_new(schema, columns.iter().map(|c| c.1.clone()).collect()).unwrap()
}

/// Rows whose identity is the first column; all of them are mapped.
fn batch(operation: Operation, columns: &[(Field, ArrayRef)]) -> ChangeBatch {
    let fields = records(columns);
    let rows = fields.num_rows();
    ChangeBatch {
        operation,
        sequences: Int64Array::from_iter_values(0..rows as i64),
        keys: StringArray::from_iter_values((0..rows).map(|r| r.to_string())),
        versions: StringArray::from_iter_values((0..rows).map(|r| format!("v{r}"))),
        changed: vec![Arc::from([]); rows],
        identity: records(&columns[..1]),
        fields,
    }
}

fn spec(mode: Mode, object: &str, rows: &ChangeBatch) -> DeliverySpec {
    DeliverySpec {
        sync: "customers-to-crm".into(),
        sync_id: 1,
        model: "customers".into(),
        object: Some(object.into()),
        mode,
        on_removed: OnRemoved::Nothing,
        options: json!({}),
        identity: rows.identity.schema(),
        fields: rows.schema(),
    }
}

fn facts() -> RunFacts {
    RunFacts { run_id: 1, generation: 1, started_at: chrono::Utc::now(), planned: BTreeMap::new() }
}

struct Open;

#[async_trait]
impl Gate for Open {
    async fn admit(&self, _: Duration) -> Result<(), Stopped> {
        Ok(())
    }
    async fn stopped(&self) {
        std::future::pending().await
    }
}

/// Delivers as a run does: repeats and halves.
async fn settle(destination: &dyn Destination, delivery: &dyn Delivery, rows: &ChangeBatch) -> Settled {
    let policy = RetryPolicy { retries: 3, base: Duration::from_millis(1), cap: Duration::from_millis(5) };
    deliver_batch(delivery, rows, &policy, destination.timeout(), &Open).await
}

async fn deliver(destination: &dyn Destination, sync: &DeliverySpec, rows: &ChangeBatch) -> Settled {
    let delivery = destination.open(sync, &facts()).await.unwrap();
    let settled = settle(destination, delivery.as_ref(), rows).await;
    assert_eq!(delivery.close(true).await.unwrap(), None);
    settled
}

/// The rows of a query, as text, one string each.
async fn rows_of(url: &str, query: &str) -> Vec<String> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let mut found = Vec::new();
    for message in client.simple_query(query).await.unwrap() {
        if let tokio_postgres::SimpleQueryMessage::Row(row) = message {
            let cells: Vec<&str> = (0..row.len()).map(|i| row.get(i).unwrap_or("∅")).collect();
            found.push(cells.join("|"));
        }
    }
    found
}

/// A code or word per row.
fn words(outcomes: &[RowOutcome]) -> Vec<&str> {
    let word = |outcome| match outcome {
        &RowOutcome::Accepted => "accepted",
        RowOutcome::Rejected(rejection) => rejection.code,
        RowOutcome::NotSent => "not sent",
        RowOutcome::InDoubt => "in doubt",
        RowOutcome::Deferred => "deferred",
    };
    outcomes.iter().map(word).collect()
}

fn reason(outcome: &RowOutcome) -> &str {
    match outcome {
        RowOutcome::Rejected(rejection) => &rejection.reason,
        other => panic!("{other:?} is no rejection"),
    }
}

const CUSTOMERS: &str =
    "create table customers (id int primary key, name varchar(8), note text default 'kept')";

fn customers(operation: Operation, rows: &[(i64, Option<&str>)]) -> ChangeBatch {
    let keys: Vec<i64> = rows.iter().map(|r| r.0).collect();
    let names: Vec<Option<&str>> = rows.iter().map(|r| r.1).collect();
    batch(operation, &[ids(&keys), texts("name", &names)])
}

#[tokio::test]
async fn upsert_writes_what_is_new_and_what_changed_with_and_without_a_unique_index() {
    for index in ["", "alter table customers drop constraint customers_pkey"] {
        let url = PostgresServer::start().fresh_database();
        execute(&url, &format!("{CUSTOMERS}; insert into customers values (1, 'old', 'mine'); {index}"));
        let destination = destination(&url);
        let rows = customers(Operation::Added, &[(1, Some("new")), (2, None), (3, Some("c"))]);
        for mode in [Mode::Upsert, Mode::Mirror, Mode::All] {
            let sync = spec(mode, "customers", &rows);
            destination.validate(&sync).unwrap();
            destination.check(Some(&sync)).await.unwrap();
            let settled = deliver(destination.as_ref(), &sync, &rows).await;
            assert_eq!(words(&settled.outcomes), ["accepted"; 3]);
            assert_eq!((settled.calls, settled.retries), (1, 0), "one transaction");
        }
        let found = rows_of(&url, "select * from customers order by id").await;
        assert_eq!(found, ["1|new|mine", "2|∅|kept", "3|c|kept"]);
    }
}

#[tokio::test]
async fn insert_refuses_what_is_there_and_passes_the_rest() {
    let url = PostgresServer::start().fresh_database();
    execute(&url, &format!("{CUSTOMERS}; insert into customers values (5, 'there')"));
    let destination = destination(&url);
    let all: Vec<(i64, Option<&str>)> =
        (0..100).map(|i| (i, Some(if i == 70 { "far too long" } else { "x" }))).collect();
    let rows = customers(Operation::Added, &all);
    let sync = spec(Mode::Insert, "public.customers", &rows);
    let settled = deliver(destination.as_ref(), &sync, &rows).await;
    for (id, outcome) in settled.outcomes.iter().enumerate() {
        match id {
            5 => {
                let reason = reason(outcome);
                assert!(
                    reason.contains("customers_pkey") && reason.contains("Key (id) already exists"),
                    "{reason}"
                );
                assert!(!reason.contains("(5)"), "no values: {reason}");
            }
            70 => {
                assert!(reason(outcome).contains("too long for type character varying(8)"));
            }
            _ => assert_eq!(outcome, &RowOutcome::Accepted, "{id}"),
        }
    }
    assert_eq!(
        rows_of(&url, "select count(*), max(name) filter (where id = 5) from customers").await,
        ["99|there"]
    );
    let exchange = &settled.exchanges[0];
    assert_eq!(exchange.0, 5..6);
    assert!(exchange.1.request.starts_with("insert into \"public\".\"customers\" (\"id\", \"name\")"));
}

#[tokio::test]
async fn update_names_the_rows_that_matched_nothing() {
    let url = PostgresServer::start().fresh_database();
    execute(&url, &format!("{CUSTOMERS}; insert into customers values (1, 'a'), (3, 'c')"));
    let destination = destination(&url);
    let rows = customers(Operation::Changed, &[(1, Some("A")), (2, Some("B")), (3, None), (4, None)]);
    let sync = spec(Mode::Update, "customers", &rows);
    let settled = deliver(destination.as_ref(), &sync, &rows).await;
    assert_eq!(
        words(&settled.outcomes),
        ["accepted", Rejection::NOT_FOUND, "accepted", Rejection::NOT_FOUND]
    );
    assert_eq!(settled.calls, 1);
    assert_eq!(rows_of(&url, "select id, name from customers order by id").await, ["1|A", "3|∅"]);

    // Nothing but the identity is mapped: rows are only looked for.
    let rows = batch(Operation::Added, &[ids(&[3, 9])]);
    let settled = deliver(destination.as_ref(), &spec(Mode::Update, "customers", &rows), &rows).await;
    assert_eq!(words(&settled.outcomes), ["accepted", Rejection::NOT_FOUND]);
    let settled = deliver(destination.as_ref(), &spec(Mode::Upsert, "customers", &rows), &rows).await;
    assert_eq!(words(&settled.outcomes), ["accepted", "accepted"]);
    assert_eq!(rows_of(&url, "select id, name from customers order by id").await, ["1|A", "3|∅", "9|∅"]);
}

#[tokio::test]
async fn removed_rows_are_deleted_cleared_or_left() {
    for (mode, on_removed, left) in [
        (Mode::Mirror, OnRemoved::Nothing, vec!["2|b|kept"]),
        (Mode::Upsert, OnRemoved::Delete, vec!["2|b|kept"]),
        (Mode::Upsert, OnRemoved::Clear, vec!["1|∅|kept", "2|b|kept"]),
        (Mode::Upsert, OnRemoved::Nothing, vec!["1|a|kept", "2|b|kept"]),
    ] {
        let url = PostgresServer::start().fresh_database();
        execute(&url, &format!("{CUSTOMERS}; insert into customers values (1, 'a'), (2, 'b')"));
        let destination = destination(&url);
        let rows = customers(Operation::Removed, &[(1, Some("a")), (7, Some("gone already"))]);
        let sync = DeliverySpec { on_removed, ..spec(mode, "customers", &rows) };
        destination.check(Some(&sync)).await.unwrap();
        let settled = deliver(destination.as_ref(), &sync, &rows).await;
        assert_eq!(words(&settled.outcomes), ["accepted"; 2]);
        assert_eq!(
            rows_of(&url, "select * from customers order by id").await,
            left,
            "{mode:?} {on_removed:?}"
        );
    }
}

/// One row of every logical type.
fn every_type() -> Vec<(Field, ArrayRef)> {
    use LogicalType as L;
    let micros = 1_763_631_000_123_456_i64;
    vec![
        ids(&[1]),
        column("a_boolean", BooleanArray::from(vec![true]), L::Boolean),
        column("an_integer", Int32Array::from(vec![-7]), L::Integer),
        column("a_huge", StringArray::from(vec!["340282366920938463463374607431768211455"]), L::Integer),
        column("a_decimal", StringArray::from(vec!["-12345.678900"]), L::Decimal),
        column("a_float", Float64Array::from(vec![0.1]), L::Float),
        column("a_text", StringArray::from(vec!["ünï 'q' \\ \t"]), L::Text),
        column("a_date", Date32Array::from(vec![-1]), L::Date),
        column("a_time", StringArray::from(vec!["09:30:00.5"]), L::Time),
        column("a_timestamp", TimestampMicrosecondArray::from(vec![micros]), L::Timestamp),
        column(
            "an_instant",
            TimestampNanosecondArray::from(vec![micros * 1000 + 500]).with_timezone("UTC"),
            L::TimestampTz,
        ),
        column("an_interval", StringArray::from(vec!["P1DT2H"]), L::Interval),
        column("a_uuid", StringArray::from(vec!["0f0e0d0c-0b0a-0908-0706-050403020100"]), L::Uuid),
        column("a_binary", BinaryArray::from(vec![&b"\x00\xff"[..]]), L::Binary),
        column("a_json", StringArray::from(vec!["{\"b\": [1, null], \"a\": \"x\"}"]), L::Json),
    ]
}

const AS_TEXT: &str = "select a_boolean::text, an_integer::text, a_huge::text, a_decimal::text, a_float::text, a_text::text, \
    a_date::text, a_time::text, a_timestamp::text, an_instant::text, an_interval::text, a_uuid::text, a_binary::text, \
    a_json::text from t";

#[tokio::test]
async fn a_table_is_created_and_holds_every_type_exactly() {
    let url = PostgresServer::start().fresh_database();
    let destination = destination(&url);
    let columns = every_type();
    let rows = batch(Operation::Added, &columns);
    let mut sync = spec(Mode::Upsert, "t", &rows);
    assert!(
        matches!(destination.open(&sync, &facts()).await, Err(DeliveryError::Unauthorized { hint, .. }) if hint.contains("create: true"))
    );
    sync.options = json!({"create": true});
    destination.check(Some(&sync)).await.unwrap();
    let delivery = destination.open(&sync, &facts()).await.unwrap();
    assert!(
        rows_of(&url, "select from pg_class where relname = 't'").await.is_empty(),
        "nothing before the first row"
    );
    // Two at once: only one of them creates.
    let (one, two) = tokio::join!(delivery.deliver(&rows), delivery.deliver(&rows));
    assert_eq!((words(&one.outcomes), words(&two.outcomes)), (vec!["accepted"], vec!["accepted"]));
    let found = rows_of(&format!("{url}?options=-c%20TimeZone%3DUTC"), AS_TEXT).await;
    assert_eq!(
        found,
        [
            "true|-7|340282366920938463463374607431768211455|-12345.678900|0.1|ünï 'q' \\ \t|1969-12-31|09:30:00.5|\
          2025-11-20 09:30:00.123456|2025-11-20 09:30:00.123457+00|1 day 02:00:00|0f0e0d0c-0b0a-0908-0706-050403020100|\
          \\x00ff|{\"a\": \"x\", \"b\": [1, null]}"
        ]
    );
    let types = rows_of(&url, "select format_type(atttypid, atttypmod) from pg_attribute where attrelid = 't'::regclass and attnum > 0 order by attnum").await;
    assert_eq!(
        types,
        [
            "bigint",
            "boolean",
            "bigint",
            "numeric",
            "numeric",
            "double precision",
            "text",
            "date",
            "time without time zone",
            "timestamp without time zone",
            "timestamp with time zone",
            "interval",
            "uuid",
            "bytea",
            "jsonb"
        ]
    );
    assert_eq!(
        rows_of(&url, "select pg_get_constraintdef(oid) from pg_constraint where conrelid = 't'::regclass")
            .await,
        ["PRIMARY KEY (id)"]
    );

    // Every type goes into text, and nulls stay nulls.
    let text_columns: Vec<String> = columns[1..].iter().map(|c| format!("{} text", c.0.name())).collect();
    execute(&url, &format!("drop table t; create table t (id int primary key, {})", text_columns.join(",")));
    deliver(destination.as_ref(), &sync, &rows).await;
    assert_eq!(
        rows_of(&url, AS_TEXT).await,
        [
            "true|-7|340282366920938463463374607431768211455|-12345.678900|0.1|ünï 'q' \\ \t|1969-12-31|09:30:00.5|\
          2025-11-20T09:30:00.123456|2025-11-20T09:30:00.123456500Z|P1DT2H|0f0e0d0c-0b0a-0908-0706-050403020100|\
          AP8=|{\"b\": [1, null], \"a\": \"x\"}"
        ]
    );
    let nulls: Vec<(Field, ArrayRef)> =
        columns[1..].iter().map(|c| (c.0.clone(), new_null_array(c.0.data_type(), 1))).collect();
    let nulls = batch(Operation::Changed, &[&[ids(&[1])], &nulls[..]].concat());
    for drop_first in [false, true] {
        if drop_first {
            execute(&url, "drop table t");
        }
        assert_eq!(words(&deliver(destination.as_ref(), &sync, &nulls).await.outcomes), ["accepted"]);
        assert_eq!(rows_of(&url, AS_TEXT).await, [["∅"; 14].join("|")]);
    }
}

#[tokio::test]
async fn values_fit_into_columns_of_other_types_or_their_row_is_refused() {
    let url = PostgresServer::start().fresh_database();
    execute(
        &url,
        "create type mood as enum ('sad', 'happy'); create domain short as varchar(3);
         create table t (id int primary key, small smallint, m mood, tags int[], fixed char(3), n numeric(4,1),
                         d short, bits bit(3), u uuid, js json, jb jsonb, r real, ip inet, at timestamptz, day date)",
    );
    let destination = destination(&url);
    use LogicalType as L;
    let good: Vec<(Field, ArrayRef)> = vec![
        column("small", StringArray::from(vec!["12"]), L::Text),
        texts("m", &[Some("happy")]),
        column("tags", StringArray::from(vec!["[3, 1, null]"]), L::Json),
        texts("fixed", &[Some("ab")]),
        column("n", StringArray::from(vec!["1.25"]), L::Decimal),
        texts("d", &[Some("abc")]),
        texts("bits", &[Some("101")]),
        texts("u", &[Some("{0F0E0D0C-0B0A-0908-0706-050403020100}")]),
        texts("js", &[Some("{\"b\":1, \"a\":2}")]),
        texts("jb", &[Some("[1]")]),
        column("r", Float64Array::from(vec![1.5]), L::Float),
        texts("ip", &[Some("10.0.0.1")]),
        column("at", TimestampMillisecondArray::from(vec![0]), L::Timestamp),
        column("day", TimestampSecondArray::from(vec![86_400]), L::Timestamp),
    ];
    let rows = batch(Operation::Added, &[&[ids(&[1])], &good[..]].concat());
    let settled = deliver(destination.as_ref(), &spec(Mode::Upsert, "t", &rows), &rows).await;
    assert_eq!(words(&settled.outcomes), ["accepted"]);
    assert_eq!(
        rows_of(&url, "set timezone to 'UTC'; select *, length(fixed) from t").await,
        [
            "1|12|happy|{3,1,NULL}|ab |1.3|abc|101|0f0e0d0c-0b0a-0908-0706-050403020100|{\"b\":1, \"a\":2}|[1]|1.5|10.0.0.1|1970-01-01 00:00:00+00|1970-01-02|2"
        ]
    );

    let bad: Vec<(Field, ArrayRef)> = vec![
        column("small", Int64Array::from(vec![40_000]), L::Integer),
        texts("small", &[Some("hidden words")]),
        texts("m", &[Some("angry")]),
        column("tags", StringArray::from(vec!["{\"no\": 1}"]), L::Json),
        texts("fixed", &[Some("abcd")]),
        column("n", StringArray::from(vec!["12345"]), L::Decimal),
        texts("d", &[Some("abcd")]),
        texts("bits", &[Some("1010")]),
        texts("u", &[Some("no uuid")]),
        texts("js", &[Some("{")]),
        texts("jb", &[Some("\"\\u0000\"")]),
        column("r", Float64Array::from(vec![1e300]), L::Float),
        texts("ip", &[Some("no address")]),
        column("at", TimestampSecondArray::from(vec![i64::MAX / 2]), L::Timestamp),
        texts("day", &[Some("2026-02-30")]),
    ];
    for value in bad {
        let name = value.0.name().clone();
        // A good row beside it, which must pass.
        let null = new_null_array(value.0.data_type(), 1);
        let both = arrow::compute::concat(&[&null, &value.1]).unwrap();
        let rows = batch(Operation::Added, &[ids(&[10, 11]), (value.0, both)]);
        let settled = deliver(destination.as_ref(), &spec(Mode::Upsert, "t", &rows), &rows).await;
        assert_eq!(words(&settled.outcomes), ["accepted", Rejection::REFUSED], "{name}");
        let reason = reason(&settled.outcomes[1]);
        assert!(!reason.contains("hidden") && !reason.contains("angry"), "{reason}");
    }
    assert_eq!(rows_of(&url, "select id from t order by id").await, ["1", "10"]);
}

#[tokio::test]
async fn what_the_server_cannot_store_is_rejected_alone_and_not_sent() {
    let url = PostgresServer::start().fresh_database();
    execute(&url, CUSTOMERS);
    let destination = destination(&url);
    let rows = customers(
        Operation::Added,
        &[(1, Some("a")), (2, Some("b\0")), (3_000_000_000, None), (4, Some("d"))],
    );
    let settled = deliver(destination.as_ref(), &spec(Mode::Upsert, "customers", &rows), &rows).await;
    assert_eq!(
        words(&settled.outcomes),
        ["accepted", Rejection::UNREPRESENTABLE_VALUE, Rejection::REFUSED, "accepted"]
    );
    assert!(reason(&settled.outcomes[1]).contains("\"name\""));
    assert_eq!(settled.calls, 1, "nothing is halved for them");
    let rows = customers(Operation::Added, &[(2, Some("\0"))]);
    let settled = deliver(destination.as_ref(), &spec(Mode::Upsert, "customers", &rows), &rows).await;
    assert_eq!((words(&settled.outcomes), settled.calls), (vec![Rejection::UNREPRESENTABLE_VALUE], 0));
    assert_eq!(rows_of(&url, "select id from customers order by id").await, ["1", "4"]);
}

#[tokio::test]
async fn every_kind_of_constraint_isolates_its_row() {
    let url = PostgresServer::start().fresh_database();
    execute(
        &url,
        "create table kinds (kind text primary key); insert into kinds values ('ok');
         create table t (id int primary key, kind text not null references kinds deferrable initially deferred,
                         size int check (size > 0), code text unique);
         create function no() returns trigger language plpgsql as
             $$begin if new.id = 66 then raise exception 'not this one'; end if; return new; end$$;
         create trigger no before insert on t for each row execute function no()",
    );
    let destination = destination(&url);
    let rows = batch(
        Operation::Added,
        &[
            ids(&[1, 2, 3, 4, 66, 6]),
            texts("kind", &[Some("ok"), None, Some("other"), Some("ok"), Some("ok"), Some("ok")]),
            column("size", Int64Array::from(vec![1, 1, 1, -1, 1, 1]), LogicalType::Integer),
            texts("code", &[Some("x"), None, None, None, None, Some("x")]),
        ],
    );
    let settled = deliver(destination.as_ref(), &spec(Mode::Upsert, "t", &rows), &rows).await;
    let refused = Rejection::REFUSED;
    assert_eq!(words(&settled.outcomes), ["accepted", refused, refused, refused, refused, refused]);
    for (row, text) in [
        (1, "null value in column \"kind\""),
        (2, "t_kind_fkey"),
        (3, "t_size_check"),
        (4, "not this one"),
        (5, "t_code_key"),
    ] {
        assert!(reason(&settled.outcomes[row]).contains(text), "{}", reason(&settled.outcomes[row]));
    }
    assert_eq!(rows_of(&url, "select id from t").await, ["1"]);
}

#[tokio::test]
async fn rows_that_are_one_record_at_the_table_all_pass() {
    let url = PostgresServer::start().fresh_database();
    execute(&url, "create table t (id text primary key, name text)");
    let destination = destination(&url);
    let rows = batch(
        Operation::Added,
        &[texts("id", &[Some("a"), Some("b"), Some("a")]), texts("name", &[Some("1"), Some("2"), Some("3")])],
    );
    let settled = deliver(destination.as_ref(), &spec(Mode::Upsert, "t", &rows), &rows).await;
    assert_eq!(words(&settled.outcomes), ["accepted"; 3]);
    assert_eq!(rows_of(&url, "select * from t order by id").await, ["a|3", "b|2"]);
}

#[tokio::test]
async fn odd_names_and_composite_identities_work() {
    let url = PostgresServer::start().fresh_database();
    execute(
        &url,
        "create schema \"My \"\"Schema\"; create table \"My \"\"Schema\".\"T.1\" (\"a;b\" int, \"B\" text, \"sel'ect\" text, primary key (\"B\", \"a;b\"))",
    );
    let destination = destination(&url);
    let mut rows = batch(
        Operation::Added,
        &[
            column("a;b", Int64Array::from(vec![1, 1]), LogicalType::Integer),
            texts("B", &[Some("x"), Some("y")]),
            texts("sel'ect", &[Some("1"), Some("2")]),
        ],
    );
    rows.identity = rows.fields.project(&[0, 1]).unwrap();
    // The identity need not be mapped.
    rows.fields = rows.fields.project(&[2]).unwrap();
    let sync = spec(Mode::Mirror, "\"My \"\"Schema\".\"T.1\"", &rows);
    destination.check(Some(&sync)).await.unwrap();
    for _ in 0..2 {
        assert_eq!(words(&deliver(destination.as_ref(), &sync, &rows).await.outcomes), ["accepted"; 2]);
    }
    let removed = ChangeBatch { operation: Operation::Removed, ..rows.slice(1, 1) };
    assert_eq!(words(&deliver(destination.as_ref(), &sync, &removed).await.outcomes), ["accepted"]);
    assert_eq!(rows_of(&url, "select * from \"My \"\"Schema\".\"T.1\"").await, ["1|x|1"]);
    assert!(
        destination.target(&sync).ends_with(" \"My \"\"Schema\".\"T.1\" (\"B\", \"a;b\")"),
        "{}",
        destination.target(&sync)
    );
}

fn through(url: &str, way: SocketAddr) -> String {
    let (head, tail) = url.split_once('@').unwrap();
    let (_, database) = tail.split_once('/').unwrap();
    format!("{head}@{way}/{database}")
}

fn server_address(url: &str) -> SocketAddr {
    url.split_once('@').unwrap().1.split_once('/').unwrap().0.parse().unwrap()
}

#[tokio::test]
async fn a_connection_lost_before_the_commit_was_sent_is_certain_and_repeated() {
    let url = PostgresServer::start().fresh_database();
    execute(&url, CUSTOMERS);
    let way = Way::to(server_address(&url), Cut::BeforeApplying).await;
    let destination = destination(&through(&url, way.address));
    let rows = customers(Operation::Added, &[(1, Some("a")), (2, Some("b"))]);
    let sync = spec(Mode::Insert, "customers", &rows);
    let delivery = destination.open(&sync, &facts()).await.unwrap();
    way.arm();
    let delivered = delivery.deliver(&rows).await;
    assert_eq!(words(&delivered.outcomes), ["not sent"; 2]);
    assert!(
        matches!(delivered.error, Some(DeliveryError::Unavailable { answered: false, .. })),
        "{delivered:?}"
    );
    assert!(rows_of(&url, "select * from customers").await.is_empty());
    way.arm();
    let settled = settle(destination.as_ref(), delivery.as_ref(), &rows).await;
    assert_eq!((words(&settled.outcomes), settled.retries), (vec!["accepted"; 2], 1));
    assert_eq!(rows_of(&url, "select id from customers order by id").await, ["1", "2"]);
}

#[tokio::test]
async fn a_connection_lost_while_the_commit_is_awaited_leaves_rows_in_doubt() {
    let url = PostgresServer::start().fresh_database();
    execute(&url, CUSTOMERS);
    let way = Way::to(server_address(&url), Cut::AfterCommit).await;
    let destination = destination(&through(&url, way.address));
    let rows = customers(Operation::Added, &[(1, Some("a")), (2, Some("b"))]);
    let sync = spec(Mode::Insert, "customers", &rows);
    let delivery = destination.open(&sync, &facts()).await.unwrap();
    way.arm();
    let delivered = delivery.deliver(&rows).await;
    assert_eq!(words(&delivered.outcomes), ["in doubt"; 2]);
    assert!(
        matches!(delivered.error, Some(DeliveryError::Unavailable { answered: false, .. })),
        "{delivered:?}"
    );
    assert_eq!(rows_of(&url, "select id from customers order by id").await, ["1", "2"], "it was committed");

    // An upsert repeats it and comes to the same; a plain insert says so.
    way.arm();
    let upsert = spec(Mode::Upsert, "customers", &rows);
    let settled = deliver(destination.as_ref(), &upsert, &rows).await;
    assert_eq!(words(&settled.outcomes), ["accepted"; 2]);
    execute(&url, "truncate customers");
    way.arm();
    let settled = settle(destination.as_ref(), delivery.as_ref(), &rows).await;
    assert!(
        settled.outcomes.iter().all(|o| matches!(o, RowOutcome::Rejected(r) if r.in_doubt)),
        "{settled:?}"
    );
}

#[tokio::test]
async fn an_attempt_that_nobody_waits_for_applies_nothing_and_frees_the_table() {
    let url = PostgresServer::start().fresh_database();
    execute(&url, CUSTOMERS);
    let destination = destination(&url);
    let rows = customers(Operation::Added, &[(1, Some("a"))]);
    let delivery = destination.open(&spec(Mode::Upsert, "customers", &rows), &facts()).await.unwrap();
    let (mut blocker, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let lock = blocker.transaction().await.unwrap();
    lock.batch_execute("lock table customers in exclusive mode").await.unwrap();
    tokio::select! {
        delivered = delivery.deliver(&rows) => panic!("the table is locked: {delivered:?}"),
        () = async {
            while lock.query("select from pg_locks where not granted", &[]).await.unwrap().is_empty() {}
        } => {}
    }
    // The waiting statement is cancelled, so it does not go on once the lock is free.
    while !lock.query("select from pg_locks where not granted", &[]).await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    lock.rollback().await.unwrap();
    assert!(rows_of(&url, "select * from customers").await.is_empty());
    assert_eq!(words(&delivery.deliver(&rows).await.outcomes), ["accepted"]);
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_given_up_in_time() {
    let url = PostgresServer::start().fresh_database();
    execute(&url, CUSTOMERS);
    let destination =
        destination_with(json!({"url": url, "statement_timeout": "200ms", "connect_timeout": "5s"}));
    assert_eq!(destination.timeout(), Duration::from_millis(10_200));
    let rows = customers(Operation::Added, &[(1, Some("a"))]);
    let delivery = destination.open(&spec(Mode::Upsert, "customers", &rows), &facts()).await.unwrap();
    let (mut blocker, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let lock = blocker.transaction().await.unwrap();
    lock.batch_execute("lock table customers in exclusive mode").await.unwrap();
    let delivered = delivery.deliver(&rows).await;
    assert_eq!(words(&delivered.outcomes), ["not sent"]);
    assert!(
        matches!(delivered.error, Some(DeliveryError::Unavailable { answered: true, .. })),
        "{delivered:?}"
    );
    lock.rollback().await.unwrap();
    assert_eq!(words(&delivery.deliver(&rows).await.outcomes), ["accepted"]);
}

fn unauthorized<T>(result: Result<T, DeliveryError>) -> String {
    match result {
        Err(DeliveryError::Unauthorized { message, hint }) => format!("{message}; {hint}"),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it passed"),
    }
}

#[tokio::test]
async fn what_is_missing_is_named_before_anything_is_sent() {
    let server = PostgresServer::start();
    let url = server.fresh_database();
    execute(
        &url,
        "create table \"Mixed\" (id int primary key); create table t (id int primary key, name text, must int not null,
         twice int generated always as (id * 2) stored);
         create table auto (id int generated always as identity primary key, name text)",
    );
    let destination = destination(&url);
    let rows = customers(Operation::Added, &[(1, Some("a"))]);
    let said = unauthorized(destination.open(&spec(Mode::Upsert, "mixed", &rows), &facts()).await);
    assert!(said.contains("\"public\".\"Mixed\""), "{said}");
    let wrong = batch(Operation::Added, &[ids(&[1]), texts("nmae", &[None])]);
    let said = unauthorized(destination.open(&spec(Mode::Upsert, "t", &wrong), &facts()).await);
    assert!(said.contains("no column \"nmae\"") && said.contains("\"id\", \"name\", \"must\""), "{said}");
    let said = unauthorized(destination.check(Some(&spec(Mode::Upsert, "t", &rows))).await);
    assert!(said.contains("\"must\""), "{said}");
    destination.check(Some(&spec(Mode::Update, "t", &rows))).await.unwrap();
    let computed = batch(
        Operation::Added,
        &[ids(&[1]), column("twice", Int64Array::from(vec![1]), LogicalType::Integer)],
    );
    let said = unauthorized(destination.open(&spec(Mode::Update, "t", &computed), &facts()).await);
    assert!(said.contains("computed by the server"), "{said}");
    let said = unauthorized(destination.open(&spec(Mode::Upsert, "auto", &rows), &facts()).await);
    assert!(said.contains("generated by default"), "{said}");
    destination.open(&spec(Mode::Update, "auto", &rows), &facts()).await.unwrap();

    let fields = destination.fields("t").await.unwrap().unwrap();
    let shown: Vec<(&str, &str, bool)> =
        fields.iter().map(|f| (f.name.as_str(), f.type_name.as_str(), f.required)).collect();
    assert_eq!(shown, [("id", "integer", true), ("name", "text", false), ("must", "integer", true)]);
    assert_eq!(destination.fields("nothing").await.unwrap(), None);
}

#[tokio::test]
async fn missing_grants_are_printed_as_they_must_be_given() {
    let server = PostgresServer::start();
    let url = server.fresh_database();
    let role = url.rsplit('/').next().unwrap().replace("levin_", "writer_");
    execute(
        &url,
        &format!(
            "{CUSTOMERS}; create role {role} login; grant select, insert (id) on customers to {role}; revoke usage on schema public from public"
        ),
    );
    let destination = destination(&url.replace("postgres@", &format!("{role}@")));
    destination.check(None).await.unwrap();
    let rows = customers(Operation::Added, &[(1, Some("a"))]);
    let sync = spec(Mode::Mirror, "customers", &rows);
    let said = unauthorized(destination.check(Some(&sync)).await);
    let (_, statements) = said.split_once("as the owner: ").unwrap();
    assert!(statements.contains("GRANT DELETE, INSERT, UPDATE ON \"public\".\"customers\""), "{statements}");
    let delivery = destination.open(&sync, &facts()).await.unwrap();
    let delivered = delivery.deliver(&rows).await;
    assert!(matches!(delivered.error, Some(DeliveryError::Unauthorized { .. })), "{delivered:?}");
    execute(&url, statements);
    destination.check(Some(&sync)).await.unwrap();
    assert_eq!(words(&delivery.deliver(&rows).await.outcomes), ["accepted"]);

    let missing = spec(Mode::Upsert, "other", &rows);
    let creating = DeliverySpec { options: json!({"create": true}), ..missing };
    let said = unauthorized(destination.check(Some(&creating)).await);
    assert!(said.contains("GRANT CREATE"), "{said}");
}

#[tokio::test]
async fn troubles_of_the_connection_are_told_apart() {
    let server = PostgresServer::start();
    let url = server.fresh_database();
    let rows = customers(Operation::Added, &[(1, None)]);
    let sync = spec(Mode::Upsert, "customers", &rows);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let down = destination(&through(&url, free)).open(&sync, &facts()).await;
    assert!(matches!(down, Err(DeliveryError::Unavailable { answered: false, .. })));
    let said = unauthorized(destination(&server.url("no_such_database")).check(None).await);
    assert!(said.contains("no_such_database"), "{said}");
    let connector = DESTINATIONS.iter().find(|d| d.name == "postgres").unwrap();
    let context = BuildContext { slug: "crm".into(), project: "/nowhere".into(), secrets: Vec::new() };
    for config in [
        json!({"url": "mysql://u:hunter2@h/d"}),
        json!({"url": "postgres://u:hunter2@h/d", "statement_timeout": "5"}),
        json!({"url": url, "concurrency": 0}),
    ] {
        let error = (connector.build)(config, &context).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
    let destination = destination(&url);
    for object in ["a.b.c", "", "\"x"] {
        assert_eq!(destination.validate(&spec(Mode::Upsert, object, &rows)).unwrap_err().path, "object");
    }
    assert_eq!(destination.validate(&spec(Mode::Diff, "t", &rows)).unwrap_err().path, "mode");
}

#[tokio::test]
async fn connections_are_named_reused_and_replaced() {
    let url = PostgresServer::start().fresh_database();
    execute(&url, CUSTOMERS);
    let destination = destination(&url);
    let sample = customers(Operation::Added, &[(1, None)]);
    let sync = spec(Mode::Upsert, "customers", &sample);
    let delivery = destination.open(&sync, &facts()).await.unwrap();
    let sessions = "select application_name from pg_stat_activity where application_name like 'levin/%' and datname = current_database()";
    for id in 0..4 {
        let rows = customers(Operation::Added, &[(id, Some("x"))]);
        assert_eq!(words(&delivery.deliver(&rows).await.outcomes), ["accepted"]);
        assert_eq!(rows_of(&url, sessions).await, ["levin/customers-to-crm/deliver"]);
    }
    execute(
        &url,
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'levin/%' and datname = current_database()",
    );
    let settled = settle(destination.as_ref(), delivery.as_ref(), &sample).await;
    assert_eq!(words(&settled.outcomes), ["accepted"]);
    assert_eq!(rows_of(&url, "select count(*) from customers").await, ["4"]);
}

#[tokio::test]
async fn a_bad_value_at_the_start_of_a_large_batch_is_found_and_the_rest_passes() {
    let url = PostgresServer::start().fresh_database();
    execute(&url, "create table t (id bigint primary key, body jsonb)");
    let destination = destination(&url);
    let body = json!({"filler": "x".repeat(1_000)}).to_string();
    let keys: Vec<i64> = (0..5_000).collect();
    let bodies: Vec<Option<&str>> =
        keys.iter().map(|id| Some(if *id == 0 { "{broken" } else { body.as_str() })).collect();
    let rows = batch(Operation::Added, &[ids(&keys), texts("body", &bodies)]);
    let settled = deliver(destination.as_ref(), &spec(Mode::Upsert, "t", &rows), &rows).await;
    assert!(reason(&settled.outcomes[0]).contains("invalid input syntax for type json"));
    assert!(settled.outcomes[1..].iter().all(|o| o == &RowOutcome::Accepted));
    assert_eq!(settled.retries, 0, "a refusal is no trouble of the connection");
    assert_eq!(rows_of(&url, "select count(*), min(id) from t").await, ["4999|1"]);
}

#[tokio::test]
async fn batches_of_one_run_are_applied_together_on_connections_of_their_own() {
    let url = PostgresServer::start().fresh_database();
    execute(&url, "create table t (id bigint primary key, name text)");
    let destination = destination(&url);
    assert_eq!(destination.concurrency(), 2);
    let part = |from: i64| {
        let keys: Vec<i64> = (from..from + 10_000).collect();
        let names = vec![Some("a name of some length"); keys.len()];
        batch(Operation::Added, &[ids(&keys), texts("name", &names)])
    };
    let (one, two) = (part(0), part(10_000));
    let mut sync = spec(Mode::Upsert, "t", &one);
    assert_eq!(destination.batch_limits(&sync, Operation::Added).rows, 10_000);
    let delivery = destination.open(&sync, &facts()).await.unwrap();
    for _ in 0..3 {
        let (one, two) = tokio::join!(delivery.deliver(&one), delivery.deliver(&two));
        assert!(one.outcomes.iter().chain(&two.outcomes).all(|o| o == &RowOutcome::Accepted));
    }
    assert_eq!(
        rows_of(&url, "select count(*), count(distinct id), max(id) from t").await,
        ["20000|20000|19999"]
    );
    sync.options = json!({"batch_size": 7});
    assert_eq!(destination.batch_limits(&sync, Operation::Removed).rows, 7);
}
