//! What a run asks of its warehouse: every statement, by stage, in a golden file for each engine.

use std::path::PathBuf;

use serde_json::Value;
use tests::project::{Engine, Project};

use super::{Crm, SYNC, on_both_warehouses};

/// The most statements of a run over a model that did not change.
pub const QUIET_STATEMENTS: usize = 8;

on_both_warehouses!(a_run_asks_more_than_it_needs);
tests::on_mariadb_too!(a_run_asks_more_than_it_needs);

#[test]
fn a_run_on_bigquery_asks_more_than_it_needs() {
    a_run_asks_more_than_it_needs(Engine::BigQuery);
}

#[test]
fn a_run_on_databricks_asks_more_than_it_needs() {
    a_run_asks_more_than_it_needs(Engine::Databricks);
}

#[test]
fn a_run_on_redshift_asks_more_than_it_needs() {
    a_run_asks_more_than_it_needs(Engine::Redshift);
}

fn a_run_asks_more_than_it_needs(engine: Engine) {
    let crm = Crm::new(engine, 12, "mode: mirror");
    let first = statements(&crm.project, SYNC);
    let quiet = statements(&crm.project, SYNC);
    crm.sql("update customers set name = 'x' where id = 1");
    let changed = statements(&crm.project, SYNC);
    assert_golden(
        &format!("{engine:?}").to_lowercase(),
        &[("the first run", &first), ("nothing changed", &quiet), ("a row changed", &changed)],
    );
    assert!(quiet.len() <= QUIET_STATEMENTS, "{}: {quiet:#?}", quiet.len());
    let run = crm.project.history().remove(0);
    let cost = &run["cost"];
    assert_eq!(cost["statements"].as_u64(), Some(changed.len() as u64), "{run:#}");
    assert_eq!(cost["stages"]["deliver"]["rowsRead"], 1, "rows read are rows changed: {run:#}");
    assert!(cost["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{run:#}");
    assert!(cost["credits"].is_null(), "no engine here tells credits: {run:#}");
}

/// Runs the sync; the statements of each stage, in their order.
pub fn statements(project: &Project, sync: &str) -> Vec<String> {
    let ended = project.levin(&["--log-format", "json", "-vv", "run", sync, "--json"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let (mut asked, mut of_stage) = (Vec::new(), Vec::new());
    let lines = ended.stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    for line in lines {
        let message = line["message"].as_str().unwrap_or_default();
        if let Some(step) = message.strip_prefix("statement: ") {
            of_stage.push(step.to_owned());
        } else if message == "stage ended" {
            let stage = line["stage"].as_str().expect("a stage");
            asked.extend(of_stage.drain(..).map(|step| format!("{stage:<8} {step}")));
        }
    }
    assert!(of_stage.is_empty(), "after the last stage: {of_stage:?}");
    asked
}

/// Compares with the engine's golden file; `UPDATE_GOLDEN=1` writes it anew.
pub fn assert_golden(engine: &str, runs: &[(&str, &[String])]) {
    let path: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "scenarios", "statements", &format!("{engine}.txt")].iter().collect();
    let text: String = runs
        .iter()
        .map(|(what, asked)| format!("{what}: {}\n  {}\n", asked.len(), asked.join("\n  ")))
        .collect();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("make it");
        std::fs::write(&path, &text).expect("write the golden file");
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(golden, text, "UPDATE_GOLDEN=1 rewrites {} where that is wanted", path.display());
}
