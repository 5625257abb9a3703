//! `levin rejected`: rows that are refused at the moment, with reasons.

use std::process::ExitCode;
use std::time::Duration;

use clap_complete::engine::ArgValueCompleter;

use serde_json::json;

use super::run::duration;
use super::{Context, completion};
use crate::error::{Error, Exit};
use crate::report::{Table, counted};
use crate::run::{OpenRejection, Request, WhichRejections, mark_parked, open_rejections};
use crate::store::Store;

/// Show rows that are refused at the moment, with reasons
///
/// A row stays here until it is accepted or no longer differs. Every run tries it again, unless it is
/// parked: by hand with `--park`, or after the sync's `max_attempts`. A parked row is not sent until it, its
/// operation or the sync changes, or `--retry`: then the next run sends it as it is at that time.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  levin rejected customers-to-crm
  levin rejected customers-to-crm --key 42    one row, with the last request and response
  levin rejected customers-to-crm --park --key 42     never mind this one, as it is
  levin rejected customers-to-crm --retry     the next run sends parked rows again
  levin rejected customers-to-crm --csv > rejected.csv")]
pub struct Args {
    /// The sync
    #[arg(add = ArgValueCompleter::new(completion::syncs))]
    sync: String,
    /// Only the row with this key, with its last request and response
    #[arg(long)]
    key: Option<String>,
    /// Let the next run send parked rows again, as they then are; with `--key` only that one
    #[arg(long, conflicts_with_all = ["park", "csv"])]
    retry: bool,
    /// Do not send rows that are refused at the moment again as they are; with `--key` only that one
    #[arg(long, conflicts_with = "csv")]
    park: bool,
    /// How long to wait for a run of the sync that is under way: `30s`, `5m`
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    wait: Option<Duration>,
    /// At most so many rows
    #[arg(long, default_value_t = 100)]
    limit: u64,
    /// Print one line of JSON per row
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print CSV
    #[arg(long)]
    csv: bool,
}

/// What the columns are called.
pub(crate) const HEADINGS: [&str; 9] =
    ["key", "operation", "code", "reason", "attempts", "rows", "parked", "first at", "last at"];

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<ExitCode, Error> {
    let project = context.project()?;
    let sync = project.sync(&args.sync)?;
    let store = Store::of(&project).await?;
    if args.park || args.retry {
        let request = Request { wait: args.wait, ..Request::default() };
        let marked = mark_parked(&project, sync, &store, request, args.park, args.key.as_deref()).await?;
        if args.json {
            let what = if args.park { "parkedCount" } else { "retriedCount" };
            context.report.json_line(&json!({ "syncId": sync.id, "syncSlug": sync.slug, what: marked }));
        } else if args.park {
            let what = "parked; they are not sent again until they, or the sync, change";
            context.report.done(&format!("{} {what}", counted(marked, "row")));
        } else {
            let next = format!("to be tried again: `levin run {}` sends them as they then are", sync.slug);
            context.report.done(&format!("{} {next}", counted(marked, "row")));
        }
        return Ok(Exit::Done.into());
    }
    let which = WhichRejections { key: args.key.clone(), limit: args.limit, ..WhichRejections::default() };
    let rows = open_rejections(&project, sync, &store, &which).await?;
    let mut table = Table::new(&HEADINGS).numbers_in(&[4, 5]);
    for row in &rows {
        let exchange = store.exchange(sync.id, &row.key).await?;
        if args.json {
            let mut line = json!({
                "key": row.key, "operation": row.operation, "code": row.code, "reason": row.reason,
                "attempts": row.attempts, "rows": row.rows, "run": row.run, "parked": row.parked,
                "firstAt": row.first_at, "lastAt": row.last_at, "request": null, "response": null,
            });
            if let Some(exchange) = exchange {
                line["request"] = exchange.request.into();
                line["response"] = exchange.response.into();
            }
            context.report.json_line(&line);
            continue;
        }
        table.row(cells(row));
        if let (Some(_), Some(exchange)) = (&args.key, exchange) {
            context.report.data(&format!(
                "last request\n{}\n\nlast response\n{}\n",
                exchange.request, exchange.response
            ));
        }
    }
    if args.csv {
        context.report.data(&csv_line(HEADINGS.map(str::to_owned)));
        for row in &rows {
            context.report.data(&csv_line(cells(row)));
        }
    } else if !args.json {
        if rows.is_empty() {
            context.report.done("no row is refused at the moment");
        } else {
            context.report.table(&table);
        }
    }
    Ok(Exit::Done.into())
}

/// A row as it is printed.
pub(crate) fn cells(row: &OpenRejection) -> [String; 9] {
    [
        row.key.clone(),
        row.operation.clone(),
        row.code.clone(),
        row.reason.clone(),
        row.attempts.to_string(),
        row.rows.to_string(),
        if row.parked { "yes" } else { "" }.to_owned(),
        row.first_at.clone(),
        row.last_at.clone(),
    ]
}

/// A line of RFC 4180: quotes around what holds a comma, a quote or a line break.
pub(crate) fn csv_line(cells: [String; 9]) -> String {
    cells
        .map(|cell| {
            if cell.contains([',', '"', '\n', '\r']) {
                format!("\"{}\"", cell.replace('"', "\"\""))
            } else {
                cell
            }
        })
        .join(",")
}
