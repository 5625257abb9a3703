//! The same suite on real accounts: for whoever has one, and outside `./test` (tests/README.md says how).
//!
//! The account stands in the environment: `LEVIN_CLOUD_SNOWFLAKE` and its like name a file in JSON with what a source's file
//! says. Every test works in a schema of its own (on Redshift in a database of its own), which is dropped in the end.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::Path;

use connectors::warehouse::Tag;
use futures::FutureExt;
use serde_json::Value;
use sql_templates::{Atomicity, Expect, Script, Sql, Step};

use super::{Bench, source};

/// Runs a test on an account of this kind; says so and does nothing where there is none.
pub async fn on<T: Future<Output = ()>>(kind: &str, test: impl FnOnce(Bench) -> T) {
    let variable = format!("LEVIN_CLOUD_{}", kind.to_uppercase());
    let Ok(file) = std::env::var(&variable) else {
        println!("no account: {variable} names no file");
        return;
    };
    let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{file}: {e}"));
    let mut config: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{file}: {e}"));
    config.as_object_mut().expect("keys and values").remove("type");
    let account = Bench::of(source(kind, config.clone(), Path::new("/")), None);
    let name = format!("levin_test_{:016x}", fastrand::u64(..));
    let (what, key) = match kind {
        "bigquery" => ("schema", Some("dataset")),
        "redshift" => ("database", None),
        _ => ("schema", Some("schema")),
    };
    statements(&account, &[&format!("create {what} {name}")]).await;
    match key {
        Some(key) => config[key] = Value::from(account.folded(&name)),
        None => config["url"] = Value::from(in_database(config["url"].as_str().expect("an address"), &name)),
    }
    let of_its_own = Bench {
        planner_schema: format!("{name}_planner"),
        audit_schema: format!("{name}_audit"),
        ..Bench::of(source(kind, config, Path::new("/")), None)
    };
    let outcome = AssertUnwindSafe(test(of_its_own)).catch_unwind().await;
    let drops: Vec<String> = match key {
        Some(_) => ["", "_planner", "_audit"]
            .iter()
            .map(|of| format!("drop schema if exists {name}{of} cascade"))
            .collect(),
        None => vec![format!("drop database {name}")],
    };
    statements(&account, &drops.iter().map(String::as_str).collect::<Vec<_>>()).await;
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}

/// The same address in another database.
fn in_database(url: &str, name: &str) -> String {
    let (address, parameters) = url.split_once('?').map_or((url, ""), |(address, rest)| (address, rest));
    let server = address.rsplit_once('/').expect("an address with a database").0;
    let parameters = if parameters.is_empty() { String::new() } else { format!("?{parameters}") };
    format!("{server}/{name}{parameters}")
}

/// Statements in the engine's own words, one after the other.
async fn statements(bench: &Bench, texts: &[&str]) {
    let tag = Tag { sync: "conformance".into(), run: None, stage: "setup" };
    let mut session = bench.warehouse.session(&tag).await.expect("a session");
    let step = |text: &&str| Step { name: "setup".into(), sql: Sql::for_tests(text), expect: Expect::Any };
    for text in texts {
        let script = Script { steps: vec![step(text)], atomicity: Atomicity::Separate };
        session.execute(&script).await.unwrap_or_else(|e| panic!("{text}: {e}"));
    }
}
