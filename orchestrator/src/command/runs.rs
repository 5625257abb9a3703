//! `levin runs`: the history of runs.

use std::process::ExitCode;

use clap_complete::engine::ArgValueCompleter;

use super::{Context, completion};
use crate::error::{Error, Exit};
use crate::report::{Table, size, thousands};
use crate::run::Holder;
use crate::store::Store;

/// Show the latest runs
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  levin runs
  levin runs customers-to-crm --limit 5
  levin runs --json")]
pub struct Args {
    /// Only runs of this sync
    #[arg(add = ArgValueCompleter::new(completion::syncs))]
    sync: Option<String>,
    /// At most so many runs
    #[arg(long, default_value_t = 20)]
    limit: u32,
    /// Print one line of JSON per run
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<ExitCode, Error> {
    let project = context.project()?;
    let sync = args.sync.as_deref().map(|slug| project.sync(slug)).transpose()?;
    let store = Store::of(&project).await?;
    let runs = store.runs(sync.map(|s| s.id), args.limit.into()).await?;
    let mut table = Table::new(&[
        "run", "sync", "status", "started", "accepted", "rejected", "not sent", "scanned", "error",
    ])
    .numbers_in(&[0, 4, 5, 6, 7]);
    for run in &runs {
        let report = run.report.clone().unwrap_or_default();
        let gone = run.status == "running" && run.holder.as_ref().is_some_and(Holder::is_gone);
        if args.json {
            let mut line = report;
            if !line.is_object() {
                line = serde_json::json!({
                    "id": run.id, "syncSlug": run.sync, "startedAt": run.started_at, "finishedAt": run.finished_at,
                });
            }
            line["status"] = run.status.clone().into();
            // A run that goes on elsewhere has a report of its first part.
            line["finishedAt"] = run.finished_at.clone().into();
            if gone {
                line["processIsGone"] = true.into();
            }
            context.report.json_line(&line);
            continue;
        }
        let total = |of: &str| -> String {
            ["addedCount", "changedCount", "removedCount"]
                .iter()
                .map(|c| report[of][c].as_u64())
                .sum::<Option<u64>>()
                .map_or_else(String::new, thousands)
        };
        table.row([
            run.id.to_string(),
            run.sync.clone(),
            if gone {
                "running (its process is gone; the next run settles it)".to_owned()
            } else {
                run.status.clone()
            },
            run.started_at.clone(),
            total("successfulRows"),
            total("failedRows"),
            total("abortedRows"),
            report["cost"]["bytesScanned"].as_u64().map_or_else(String::new, size),
            report["error"]["code"].as_str().unwrap_or_default().to_owned(),
        ]);
    }
    if !args.json {
        if table.is_empty() {
            context.report.note("no run yet");
        } else {
            context.report.table(&table);
        }
    }
    Ok(Exit::Done.into())
}
