//! What every warehouse driver promises, on the real engines, and on a double where there is none to be had.

#[path = "drivers/bigquery.rs"]
mod bigquery;
#[path = "drivers/databricks.rs"]
mod databricks;
#[path = "drivers/duckdb.rs"]
mod duckdb;
#[path = "drivers/mariadb.rs"]
mod mariadb;
#[path = "drivers/postgres.rs"]
mod postgres;
#[path = "drivers/redshift.rs"]
mod redshift;
#[path = "drivers/snowflake.rs"]
mod snowflake;
#[path = "drivers/tls.rs"]
mod tls;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use connectors::catalogue::{BuildContext, ConfigError, SOURCES};
use connectors::warehouse::{Session, Tag, Warehouse, WarehouseError};
use futures::TryStreamExt;
use serde_json::Value;
use sql_templates::{Atomicity, Expect, Script, Sql, Step};

/// Builds a source as a project's file would.
fn source(kind: &str, config: Value, project: &Path) -> Result<Arc<dyn Warehouse>, ConfigError> {
    let connector = SOURCES.iter().find(|s| s.name == kind).expect("the catalogue knows this kind of source");
    let context = BuildContext { slug: "wh".into(), project: project.to_owned(), secrets: Vec::new() };
    (connector.build)(config, &context)
}

async fn open(warehouse: &dyn Warehouse) -> Box<dyn Session> {
    let tag = Tag { sync: "customers-to-crm".into(), run: Some(1), stage: "diff" };
    warehouse.session(&tag).await.expect("a session")
}

/// Waits for it; bounded by the patience of whoever waits for a test.
async fn until(what: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !what() {
        assert!(Instant::now() < end, "what a test waits for does not come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn sql(text: &str) -> Sql {
    Sql::for_tests(text)
}

fn script(atomicity: Atomicity, steps: &[(&str, Expect)]) -> Script {
    let steps = steps.iter().enumerate().map(|(i, (text, expect))| Step {
        name: format!("step {}", i + 1),
        sql: sql(text),
        expect: *expect,
    });
    Script { steps: steps.collect(), atomicity }
}

/// Runs statements, each on its own.
async fn run(session: &mut dyn Session, statements: &[&str]) {
    for statement in statements {
        let steps = [(*statement, Expect::Any)];
        session.execute(&script(Atomicity::Transaction, &steps)).await.expect("the statements run");
    }
}

async fn rows(session: &mut dyn Session, select: &str) -> Result<Vec<RecordBatch>, WarehouseError> {
    session.query(&sql(select)).await?.try_collect().await
}

/// The one integer that a statement returns.
async fn number(session: &mut dyn Session, select: &str) -> i64 {
    let batches = rows(session, &format!("select cast(({select}) as bigint) as n")).await.expect("a number");
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
    batches[0].column(0).as_primitive::<Int64Type>().value(0)
}

async fn error(session: &mut dyn Session, statement: &str) -> WarehouseError {
    let script = script(Atomicity::Transaction, &[(statement, Expect::Any)]);
    session.execute(&script).await.expect_err("the statement fails")
}

/// What a script does in each atomicity, the same on every engine that has transactions.
async fn scripts_keep_their_atomicity(session: &mut dyn Session) {
    run(session, &["create table t (id bigint primary key, v text)"]).await;

    for atomicity in [Atomicity::Snapshot, Atomicity::Transaction] {
        run(session, &["delete from t"]).await;
        let effect = session
            .execute(&script(
                atomicity,
                &[
                    ("insert into t values (1, 'a'), (2, 'b'), (3, null)", Expect::Any),
                    ("update t set v = 'c' where id = 1", Expect::OneRow),
                    ("delete from t where id > 1", Expect::Any),
                    ("select id, v from t order by id", Expect::Rows),
                    ("create table copied as select * from t", Expect::Any),
                    ("drop table copied", Expect::Any),
                ],
            ))
            .await
            .unwrap();
        let counts: Vec<_> = effect.steps.iter().take(5).map(|s| s.rows).collect();
        assert_eq!(counts, [Some(3), Some(1), Some(2), Some(1), Some(1)]);
        assert_eq!(effect.rows("step 1"), Some(3));
        let returned = effect.result("step 4");
        assert_eq!(returned[0].column(1).as_string::<i32>().value(0), "c");
        assert!(effect.result("step 5").is_empty() && effect.result("no such step").is_empty());
        assert!(effect.steps.iter().all(|s| s.seconds >= 0.0));
        assert_eq!(number(session, "select count(*) from t").await, 1);

        // A step that fails undoes those before it, and is named.
        let failed = session
            .execute(&script(
                atomicity,
                &[
                    ("insert into t values (7, 'x')", Expect::Any),
                    ("insert into t values (7, 'y')", Expect::Any),
                ],
            ))
            .await
            .unwrap_err();
        assert_eq!(failed.kind, connectors::warehouse::ErrorKind::UniqueViolation, "{failed}");
        assert_eq!(failed.step.as_deref(), Some("step 2"));
        assert_eq!(number(session, "select count(*) from t").await, 1);

        // One row was expected and none, or two, were written: the script is undone.
        for fenced in ["update t set v = 'z' where id = 999", "insert into t values (21, 'x'), (22, 'y')"] {
            let failed = session
                .execute(&script(
                    atomicity,
                    &[("insert into t values (8, 'x')", Expect::Any), (fenced, Expect::OneRow)],
                ))
                .await
                .unwrap_err();
            assert_eq!(failed.kind, connectors::warehouse::ErrorKind::Fenced, "{failed}");
            assert_eq!(failed.step.as_deref(), Some("step 2"));
            assert_eq!(number(session, "select count(*) from t").await, 1);
        }
    }

    // A rehearsal shows what would be and leaves everything as it was, tables included.
    let effect = session
        .execute(&script(
            Atomicity::Rehearsal,
            &[
                ("create table rehearsed as select * from t", Expect::Any),
                ("insert into rehearsed values (9, 'z')", Expect::OneRow),
                ("select cast(count(*) as bigint) as n from rehearsed", Expect::Rows),
            ],
        ))
        .await
        .unwrap();
    assert_eq!(effect.result("step 3")[0].column(0).as_primitive::<Int64Type>().value(0), 2);
    assert_eq!(
        error(session, "select * from rehearsed").await.kind,
        connectors::warehouse::ErrorKind::NotFound
    );
}

/// A million rows pass batch by batch, an empty result ends at once, and a stream may be left half read.
async fn results_stream(session: &mut dyn Session, million: &str) {
    let mut stream = session.query(&sql(million)).await.unwrap();
    let (mut seen, mut sum, mut largest) = (0_usize, 0_i64, 0);
    while let Some(batch) = stream.try_next().await.unwrap() {
        seen += batch.num_rows();
        largest = largest.max(batch.num_rows());
        sum += batch.column(0).as_primitive::<Int64Type>().values().iter().sum::<i64>();
    }
    drop(stream);
    assert_eq!((seen, sum), (1_000_000, 500_000_500_000));
    assert!(largest <= 8_192, "a batch held {largest} rows");

    assert!(rows(session, &format!("select * from ({million}) as m where n < 0")).await.unwrap().is_empty());

    let mut stream = session.query(&sql(million)).await.unwrap();
    assert!(stream.try_next().await.unwrap().is_some());
    drop(stream);
    assert_eq!(number(session, "select 42").await, 42);
}
