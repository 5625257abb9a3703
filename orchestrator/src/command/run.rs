//! `levin run`: runs syncs now.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap_complete::engine::ArgValueCompleter;

use futures::StreamExt;
use tokio::signal::unix::{SignalKind, signal};

use super::{Context, completion};
use crate::error::{Error, ErrorCode, Exit};
use crate::project::{Project, SyncSpec};
use crate::report::{Report, RunProgress, counted, thousands};
use crate::run::{Cancel, Goal, PlanId, Request, RunReport, Start, Status, run};
use crate::store::Store;
use crate::telemetry::traces;

/// Run syncs now
///
/// Finds in the warehouse what changed since each destination last accepted a row, and sends that.
/// Rows that are rejected, or that a crash left unsent, come again in the next run.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  levin run customers-to-crm                   what changed
  levin run --all                              every sync, up to four at once
  levin run customers-to-crm --full-resync     every row again, as added
  levin run customers-to-crm --clear-and-fill  empty the table or list, then every row
  levin run customers-to-crm --reset-cdc       take today's rows as accepted, send nothing
  levin run customers-to-crm --approve PLAN    exactly the rows of a plan, whatever the guards say
  levin run customers-to-crm --json            one line of JSON per run, for scripts

Exit codes: 0 done, 1 some rows rejected, 2 a run failed, 3 a guard tripped.")]
pub struct Args {
    /// The syncs to run
    #[arg(value_name = "SYNC", required_unless_present = "all", add = ArgValueCompleter::new(completion::syncs))]
    syncs: Vec<String>,
    /// Run every sync of the project, up to four at once
    #[arg(long, conflicts_with = "syncs")]
    all: bool,
    /// Send every current row again as added
    #[arg(long, conflicts_with_all = ["clear_and_fill", "reset_cdc"])]
    full_resync: bool,
    /// With `--full-resync`: first remove the rows that left since the last run
    #[arg(long, requires = "full_resync")]
    keep_removals: bool,
    /// Empty the destination's table or list, then send every row
    #[arg(long, conflicts_with = "reset_cdc")]
    clear_and_fill: bool,
    /// Declare the model's current rows accepted and send nothing
    #[arg(long)]
    reset_cdc: bool,
    /// Send exactly the rows of this plan: one that was saved, or that a guard stopped (as `levin apply`)
    #[arg(long, value_name = "PLAN", conflicts_with_all = ["all", "full_resync", "reset_cdc"])]
    approve: Option<PlanId>,
    /// How long to wait for another run of the same sync: `30s`, `5m`
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    wait: Option<Duration>,
    /// Print one line of JSON per run
    #[arg(long)]
    json: bool,
}

/// How many syncs `--all` runs at once.
const AT_ONCE: usize = 4;

/// Reads `30s`, `5m`, `1h` or `500ms`.
pub fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<connectors::duration::Span>().map(|span| span.0).map_err(|e| e.to_string())
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<ExitCode, Error> {
    let project = context.project()?;
    let syncs: Vec<Arc<SyncSpec>> = if args.all {
        project.syncs.clone()
    } else {
        args.syncs.iter().map(|slug| project.sync(slug).cloned()).collect::<Result<_, _>>()?
    };
    if syncs.is_empty() {
        return Err(Error::new(ErrorCode::Usage, "the project has no sync").hint("write one in `syncs/`"));
    }
    let store = Store::of(&project).await?;
    let start = match (args.full_resync, args.clear_and_fill, args.reset_cdc) {
        (true, _, _) => Start::FullResync { keep_removals: args.keep_removals },
        (_, true, _) => Start::ClearAndFill,
        (_, _, true) => Start::ResetCdc,
        _ => Start::Incremental,
    };
    let goal = match args.approve {
        None => Goal::Deliver,
        Some(plan) => match syncs.as_slice() {
            [sync] if sync.id == plan.sync() => Goal::Apply(plan),
            _ => {
                let message = format!("{plan} is no plan of {}", args.syncs.join(", "));
                return Err(Error::new(ErrorCode::Usage, message)
                    .hint(format!("`levin apply {plan}` finds the sync by itself")));
            }
        },
    };
    let request = Request { start, goal, wait: args.wait };
    let at_once = if args.all { AT_ONCE } else { 1 };
    execute_all(context, &project, &store, syncs, at_once, request, args.json).await
}

/// Runs these syncs, and prints how each ended.
pub async fn execute_all(
    context: &Context,
    project: &Project,
    store: &Store,
    syncs: Vec<Arc<SyncSpec>>,
    at_once: usize,
    request: Request,
    json: bool,
) -> Result<ExitCode, Error> {
    let cancel = Cancel::default();
    tokio::spawn(cancel_on_signal(cancel.clone(), context.report.clone()));
    let progress = RunProgress::new(&context.report, syncs.len() > 1, json);
    let mut reports = futures::stream::iter(syncs)
        .map(|sync| {
            let (cancel, progress) = (cancel.clone(), &progress);
            let parent = traces::parent_of_process();
            traces::below(parent, async move { run(project, &sync, store, request, progress, cancel).await })
        })
        .buffer_unordered(at_once);
    let mut worst = Exit::Done;
    while let Some(report) = reports.next().await {
        let report = report?;
        worst = worst.worse(report.exit);
        progress.finish(&report.sync_slug);
        if json {
            let line = serde_json::to_value(&report)
                .map_err(|e| Error::new(ErrorCode::Internal, format!("cannot print the report: {e}")))?;
            context.report.json_line(&line);
        } else {
            progress.print(|| print(&report, request.start, context));
        }
    }
    Ok(worst.into())
}

/// The first signal asks for a graceful end, the second ends at once.
async fn cancel_on_signal(cancel: Cancel, report: Report) {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
    let Ok(mut interrupt) = signal(SignalKind::interrupt()) else { return };
    for asked in 1.. {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if asked > 1 {
            report.note("stopped at once; the next run settles what was under way");
            #[expect(clippy::disallowed_methods, reason = "someone asked twice to end now")]
            std::process::exit(Exit::Failed as i32);
        }
        report.note("stopping: requests under way are finished and committed (again to stop at once)");
        cancel.cancel();
    }
}

fn print(report: &RunReport, start: Start, context: &Context) {
    let kept_back = match start {
        Start::FullResync { .. } => "removed, left to the next run",
        Start::ClearAndFill => "removed with what was cleared",
        Start::Incremental | Start::ResetCdc => "removed and not sent by this mode",
    };
    let mut text = format!("{}: run {}, ", report.sync_slug, report.id);
    text.push_str(match report.status {
        Status::Success => "success",
        Status::Warning => "warning",
        Status::Failed => "failed",
        Status::Cancelled => "cancelled",
    });
    let sent = report.successful_rows.total();
    text.push_str(&format!(" · {} accepted", counted(sent, "row")));
    for (count, what) in [
        (report.failed_rows.total() - report.in_doubt_count.min(report.failed_rows.total()), "rejected"),
        (report.in_doubt_count, "in doubt"),
        (report.aborted_rows.total(), "not sent"),
        (report.parked_count, "parked"),
        (report.duplicate_key_count.unwrap_or(0), "with a duplicate key"),
        (report.null_key_count.unwrap_or(0), "without a key"),
        (report.not_sent.removed_count, kept_back),
    ] {
        if count > 0 {
            text.push_str(&format!(" · {} {what}", thousands(count)));
        }
    }
    // The sum of nothing is -0.0.
    let total = report.stages.values().sum::<f64>().abs();
    text.push_str(&format!(" · {total:.2} s"));
    match report.status {
        Status::Success => context.report.done(&text),
        Status::Warning => {
            context.report.warning(&text);
            context.report.note(&format!(
                "see `levin rejected {}`; these rows come again in the next run",
                report.sync_slug
            ));
        }
        Status::Failed | Status::Cancelled => context.report.warning(&text),
    }
    if let Some(error) = &report.error {
        context.report.reported(error);
    }
}
