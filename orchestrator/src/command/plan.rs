//! `levin plan`: what a run would send, without sending it.

use std::process::ExitCode;

use super::Context;
use crate::error::{Error, ErrorCode, Exit};
use crate::report::{Table, counted, thousands};
use crate::run::{PlanReport, Request, Start, rehearse};
use crate::store::Store;

/// Show what a run would send, and send nothing
///
/// Exact counts, changed columns, sample rows and every guard's verdict. The same statements as a
/// run's are executed in one transaction that is undone.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  levin plan customers-to-crm
  levin plan customers-to-crm --full-resync    what `run --full-resync` would send
  levin plan customers-to-crm --clear-and-fill the same after emptying the destination
  levin plan customers-to-crm --json           for scripts

Exit codes: 0 the run may go, 3 a guard would stop it, 2 the plan failed.")]
pub struct Args {
    /// The syncs to plan
    #[arg(value_name = "SYNC", required = true)]
    syncs: Vec<String>,
    /// Plan a run that sends every row again
    #[arg(long, conflicts_with_all = ["clear_and_fill", "reset_cdc"])]
    full_resync: bool,
    /// With `--full-resync`: removing first the rows that left
    #[arg(long, requires = "full_resync")]
    keep_removals: bool,
    /// Plan a run that first empties the destination's table or list
    #[arg(long, conflicts_with = "reset_cdc")]
    clear_and_fill: bool,
    /// Plan a run that takes today's rows as accepted
    #[arg(long)]
    reset_cdc: bool,
    /// Print one line of JSON per plan
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<ExitCode, Error> {
    let project = context.project()?;
    let store = Store::of(&project).await?;
    let start = match (args.full_resync, args.clear_and_fill, args.reset_cdc) {
        (true, _, _) => Start::FullResync { keep_removals: args.keep_removals },
        (_, true, _) => Start::ClearAndFill,
        (_, _, true) => Start::ResetCdc,
        _ => Start::Incremental,
    };
    let mut exit = Exit::Done;
    for slug in &args.syncs {
        let sync = project.sync(slug)?;
        let plan = rehearse(&project, sync, &store, Request { start, wait: None }).await?;
        if plan.guards.iter().any(|g| g.tripped) {
            exit = exit.worse(Exit::Guard);
        }
        if args.json {
            let line = serde_json::to_value(&plan)
                .map_err(|e| Error::new(ErrorCode::Internal, format!("cannot print the plan: {e}")))?;
            context.report.json_line(&line);
        } else {
            print(&plan, context);
        }
    }
    Ok(exit.into())
}

fn print(plan: &PlanReport, context: &Context) {
    let report = &context.report;
    if plan.run_under_way {
        let what = "a run of this sync is under way: what it has not committed yet is planned too";
        report.warning(what);
    }
    let kept_back = match plan.reason.as_str() {
        "full_resync" => "left to the next run",
        "clear_and_fill" => "cleared",
        _ => "not sent by this mode",
    };
    report.data(&format!("{} ({}), {}\n", plan.sync_slug, plan.plan_id, plan.reason));
    let mut table = Table::new(&["operation", "to send", kept_back]).numbers_in(&[1, 2]);
    for (name, send, keep) in [
        ("added", plan.planned_rows.added_count, plan.not_sent.added_count),
        ("changed", plan.planned_rows.changed_count, plan.not_sent.changed_count),
        ("removed", plan.planned_rows.removed_count, plan.not_sent.removed_count),
    ] {
        table.row([name.to_owned(), thousands(send), thousands(keep)]);
    }
    report.table(&table);
    report.data(&format!(
        "{} in the model, {} unchanged, {} with a duplicate key, {} without a key\n",
        counted(plan.query_size, "row"),
        thousands(plan.unchanged_count),
        thousands(plan.duplicate_key_count),
        thousands(plan.null_key_count),
    ));
    if !plan.changed_columns.is_empty() {
        let columns: Vec<String> = plan
            .changed_columns
            .iter()
            .map(|(name, count)| format!("{name} ({})", thousands(*count)))
            .collect();
        report.data(&format!("changed columns: {}\n", columns.join(", ")));
    }
    for sample in &plan.samples {
        let previous = match &sample.previous {
            Some(previous) => format!("  was {previous}"),
            None => String::new(),
        };
        report.data(&format!("  {} {}  {}{previous}\n", sample.operation, sample.key, sample.fields));
    }
    for guard in &plan.guards {
        let verdict = if guard.tripped { "STOPS THE RUN" } else { "passes" };
        report.data(&format!(
            "guard {}: allows {}, this run has {}: {verdict}\n",
            guard.guard,
            guard.limit,
            thousands(guard.value)
        ));
    }
}
