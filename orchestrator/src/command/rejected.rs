//! `levin rejected`: rows that are refused at the moment, with reasons.

use std::process::ExitCode;

use serde_json::json;

use super::Context;
use crate::error::{Error, Exit};
use crate::report::Table;
use crate::run::{OpenRejection, open_rejections};
use crate::store::Store;

/// Show rows that are refused at the moment, with reasons
///
/// A row stays here until it is accepted or no longer differs; every run tries it again.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  levin rejected customers-to-crm
  levin rejected customers-to-crm --key 42    one row, with the last request and response
  levin rejected customers-to-crm --csv > rejected.csv")]
pub struct Args {
    /// The sync
    sync: String,
    /// Only the row with this key, with its last request and response
    #[arg(long)]
    key: Option<String>,
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

const HEADINGS: [&str; 8] = ["key", "operation", "code", "reason", "attempts", "rows", "first at", "last at"];

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<ExitCode, Error> {
    let project = context.project()?;
    let sync = project.sync(&args.sync)?;
    let store = Store::of(&project).await?;
    let mut rows = open_rejections(&project, sync, &store, args.limit).await?;
    if let Some(key) = &args.key {
        rows.retain(|row| &row.key == key);
    }
    let mut table = Table::new(&HEADINGS).numbers_in(&[4, 5]);
    for row in &rows {
        let exchange = store.exchange(sync.id, &row.key).await?;
        if args.json {
            let mut line = json!({
                "key": row.key, "operation": row.operation, "code": row.code, "reason": row.reason,
                "attempts": row.attempts, "rows": row.rows, "run": row.run,
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

fn cells(row: &OpenRejection) -> [String; 8] {
    [
        row.key.clone(),
        row.operation.clone(),
        row.code.clone(),
        row.reason.clone(),
        row.attempts.to_string(),
        row.rows.to_string(),
        row.first_at.clone(),
        row.last_at.clone(),
    ]
}

/// A line of RFC 4180: quotes around what holds a comma, a quote or a line break.
fn csv_line(cells: [String; 8]) -> String {
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
