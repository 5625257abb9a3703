//! Databricks' statements in Spark, which is what its engine comes of.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::databricks::{DatabricksDouble, python};

use super::Bench;
use super::trial::{Ending, Exception, Question, Trial};

/// Bounded by the patience of whoever waits for a test: a JVM starts, and runs some eighty statements.
const PATIENCE: Duration = Duration::from_secs(400);

/// What the double answers is worth as much as its translation: Spark is asked the same, over the same rows. Columns of every
/// type that both have, keys that are null and come twice, changes, removals, a refusal, and keys in doubt.
#[tokio::test]
async fn spark_says_the_same() {
    let workspace = DatabricksDouble::start().fresh_workspace();
    let mut config = workspace.source();
    config.as_object_mut().expect("keys").remove("type");
    let bench = Bench::of(super::source("databricks", config, std::path::Path::new("/")), None);
    bench
        .setup(&[
            "create table things (id bigint, name string, visits int, price decimal(18,3), ratio double, ok boolean, day date, instant timestamp, plain timestamp_ntz, bytes binary, list array<int>, doc struct<a: int, b: string>)",
            "insert into things select 1, 'it''s', 1, 1.500, cast('NaN' as double), true, date'2026-11-20', timestamp'2026-11-20 12:00:00.000001+01:00', timestamp_ntz'2026-11-20 12:00:00', x'00ff', array(1, null), named_struct('a', 1, 'b', null)",
            "insert into things select 2, null, null, null, cast('-0.0' as double), null, null, null, null, null, null, null",
            "insert into things select 3, 'b', 2, -0.125, 0.1, false, date'1969-12-31', timestamp'1969-12-31 23:59:59.5Z', timestamp_ntz'1969-12-31 23:59:59.5', x'', array(), named_struct('a', 2, 'b', 'x')",
            "insert into things select 4, 'c', 3, 0, 1, true, null, null, null, null, null, null",
            "insert into things select 7, 'twice', 1, 0, 1, true, null, null, null, null, null, null",
            "insert into things select 7, 'twice', 2, 0, 1, true, null, null, null, null, null, null",
            "insert into things select null, 'nobody', 1, 0, 1, true, null, null, null, null, null, null",
        ])
        .await;
    let mut trial = Trial::begin(bench, 1, "select * from things", &["id"]).await;
    trial.accept_all(Question::FIRST).await;
    trial
        .bench
        .setup(&[
            "insert into things select 5, 'new', 3, 0, 1, true, null, null, null, null, array(2), null",
            "update things set ratio = 0.0 where id = 2",
            "update things set list = array(1), instant = timestamp'2026-11-20 11:00:00Z' where id = 1",
            "update things set doc = named_struct('a', 2, 'b', 'y'), name = 'B' where id = 3",
            "delete from things where id = 4",
        ])
        .await;
    trial.take_lease().await;
    let found = trial.diff(Question::default()).await;
    assert_eq!((found.counts.added, found.counts.changed, found.counts.removed), (1, 2, 1), "{found:#?}");
    let exceptions = found.rows.iter().map(|row| {
        let how = if row.operation == "changed" { Exception::InDoubt } else { Exception::Rejected };
        (row.sequence, how)
    });
    trial.commit(&found, Ending { exceptions: exceptions.collect(), ..Ending::default() }).await.unwrap();
    trial.take_lease().await;
    let again = trial.accept_all(Question::default()).await;
    assert_eq!(again.rows.len(), 4, "{again:#?}");
    trial.take_lease().await;
    assert!(trial.diff(Question::default()).await.rows.is_empty());

    let told = workspace.told();
    let ran: Vec<Value> = told["statements"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|s| s["state"] == "SUCCEEDED")
        .map(|s| json!({"sql": s["sql"], "parameters": s["parameters"]}))
        .collect();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("statements.json");
    std::fs::write(&file, Value::from(ran).to_string()).expect("written");
    let said = asked(&file, folder.path()).await;
    let compared = said["compared"].as_u64().expect("a number");
    assert!(compared > 20, "{said}: Spark was hardly asked");
}

/// Runs the comparison, and returns what it says of itself.
async fn asked(file: &std::path::Path, folder: &std::path::Path) -> Value {
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("doubles/databricks_spark.py");
    let mut command = Command::new(python());
    command.arg(&script).arg(file).arg(folder).stdin(Stdio::null());
    let (out, err) = (folder.join("out"), folder.join("err"));
    command.stdout(std::fs::File::create(&out).expect("a file"));
    command.stderr(std::fs::File::create(&err).expect("a file"));
    let mut running = command.spawn().expect("Python runs");
    let end = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = running.try_wait().expect("it can be waited for") {
            break status;
        }
        if Instant::now() > end {
            let _ = running.kill();
            panic!("Spark takes longer than {PATIENCE:?}");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let said = std::fs::read_to_string(&out).expect("what it says");
    assert!(status.success(), "{said}\n{}", std::fs::read_to_string(&err).unwrap_or_default());
    serde_json::from_str(said.lines().last().unwrap_or_default()).expect("its last word in JSON")
}
