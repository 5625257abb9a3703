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
use tests::outcomes::words;
use tests::postgres::{PostgresServer, run as execute};

#[path = "postgres_connections.rs"]
mod connections;
#[path = "postgres_replace.rs"]
mod replace;
#[path = "postgres_values.rs"]
mod values;

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
    let schema = (connector.config_schema)().to_value();
    assert_eq!(schema.pointer("/properties/url/x-secret"), Some(&json!(true)));
    assert_eq!(schema.pointer("/required"), Some(&json!(["url"])));
    let destination = destination(&url);
    for object in ["a.b.c", "", "\"x"] {
        assert_eq!(destination.validate(&spec(Mode::Upsert, object, &rows)).unwrap_err().path, "object");
    }
    assert_eq!(destination.validate(&spec(Mode::Diff, "t", &rows)).unwrap_err().path, "mode");
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
