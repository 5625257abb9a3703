//! `levin plan`: what a run would send, without sending it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap_complete::engine::ArgValueCompleter;

use serde::{Deserialize, Serialize};

use super::{Context, completion};
use crate::error::{Error, ErrorCode, Exit};
use crate::report::{Table, counted, size, thousands};
use crate::run::{OperationCounts, PlanId, PlanReport, Request, Start, rehearse, save_plan};
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
  levin plan customers-to-crm --save p.json    keep it for a day: `levin apply p.json` sends these rows
  levin plan customers-to-crm --json           for scripts

Exit codes: 0 the run may go, 3 a guard would stop it, 2 the plan failed.")]
pub struct Args {
    /// The syncs to plan
    #[arg(value_name = "SYNC", required = true, add = ArgValueCompleter::new(completion::syncs))]
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
    /// Keep the plan, so that `levin apply FILE` sends exactly its rows; of one sync
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
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
    if args.save.is_some() && args.syncs.len() > 1 {
        return Err(Error::new(ErrorCode::Usage, "a file holds one plan: `--save` takes one sync")
            .hint("save each sync's plan in a file of its own"));
    }
    let request = Request { start, ..Request::default() };
    let mut exit = Exit::Done;
    for slug in &args.syncs {
        let sync = project.sync(slug)?;
        let plan = match &args.save {
            None => rehearse(&project, sync, &store, request).await?,
            Some(path) => {
                // A plan that nobody can name is of no use, so the file comes first.
                let file = create(path)?;
                let plan = save_plan(&project, sync, &store, request).await?;
                SavedPlan::of(&project.uuid.to_string(), &plan).write(file, path)?;
                plan
            }
        };
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

/// What the file of a saved plan holds: its name and counts, and no row.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SavedPlan {
    /// The plan's name, by which the warehouse finds its rows.
    pub plan_id: PlanId,
    /// The project's uuid.
    pub project: String,
    /// The sync's slug.
    pub sync_slug: String,
    /// Why rows are sent.
    pub reason: String,
    /// Rows that will be sent.
    pub planned_rows: OperationCounts,
    /// Rows as the destination last accepted them.
    pub unchanged_count: u64,
    /// Until when it can be applied, RFC 3339.
    pub expires_at: Option<String>,
}

impl SavedPlan {
    fn of(project: &str, plan: &PlanReport) -> Self {
        Self {
            plan_id: plan.plan_id,
            project: project.to_owned(),
            sync_slug: plan.sync_slug.clone(),
            reason: plan.reason.clone(),
            planned_rows: plan.planned_rows,
            unchanged_count: plan.unchanged_count,
            expires_at: plan.expires_at.clone(),
        }
    }

    fn write(&self, mut file: std::fs::File, path: &Path) -> Result<(), Error> {
        let mut text = serde_json::to_string_pretty(self)
            .map_err(|e| Error::new(ErrorCode::Internal, format!("cannot write the plan: {e}")))?;
        text.push('\n');
        std::io::Write::write_all(&mut file, text.as_bytes()).map_err(|e| {
            Error::new(ErrorCode::Usage, format!("`{}` cannot be written: {e}", path.display()))
                .hint(format!("the plan is kept: `levin apply {}`", self.plan_id))
        })
    }
}

fn create(path: &Path) -> Result<std::fs::File, Error> {
    std::fs::File::create(path).map_err(|e| {
        Error::new(ErrorCode::Usage, format!("`{}` cannot be written: {e}", path.display()))
            .hint("choose a file in a folder that you may write")
    })
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
    if let Some(bytes) = plan.estimated_bytes.or(plan.cost.cost.bytes_scanned) {
        report.data(&format!("reading the model scans about {}\n", size(bytes)));
    }
    if plan.superseded_count > 0 {
        report.data(&format!(
            "{} to be removed give way to rows with the same matching value\n",
            counted(plan.superseded_count, "row")
        ));
    }
    if plan.parked_count > 0 {
        report.data(&format!(
            "{} parked, to be seen with `levin rejected {}`\n",
            counted(plan.parked_count, "row"),
            plan.sync_slug
        ));
    }
    for (code, rows) in &plan.refused_rows {
        report.data(&format!("{} will be rejected: {code}\n", counted(*rows, "row")));
    }
    if !plan.kept_columns.is_empty() {
        let rows = plan.kept_count.map_or_else(String::new, |rows| format!(", in {}", counted(rows, "row")));
        report.data(&format!(
            "new columns whose values of today count as accepted{rows}: {}\n",
            plan.kept_columns.join(", ")
        ));
    }
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
    if let Some(until) = &plan.expires_at {
        report.note(&format!(
            "the plan is kept: `levin apply {}` sends exactly these rows, until {until}",
            plan.plan_id
        ));
    }
}
