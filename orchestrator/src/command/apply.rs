//! `levin apply`: sends exactly the rows of a plan that was kept.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde::Deserialize;

use super::Context;
use super::plan::SavedPlan;
use super::run::{duration, execute_all};
use crate::error::{Error, ErrorCode};
use crate::run::{Goal, PlanId, Request};
use crate::store::Store;

/// Send exactly the rows of a plan, whatever the guards said of them
///
/// A plan is kept when `levin plan --save` made it, and when a guard stopped its run. It is applied as it
/// is: the model is not read again. It fits as long as no other run has sent anything, the sync and its
/// model are as they were, and a day is not over; else it is refused as `PLAN_STALE`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  levin plan customers-to-crm --save monday.json
  levin apply monday.json
  levin apply plan_1_0123456789abcdef    the plan that a guard stopped, as its run named it

Exit codes: as `levin run`; 2 for a plan that is stale.")]
pub struct Args {
    /// The file that `plan --save` wrote, or the plan's name
    #[arg(value_name = "FILE|PLAN")]
    plan: String,
    /// How long to wait for another run of the same sync: `30s`, `5m`
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    wait: Option<Duration>,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<ExitCode, Error> {
    let project = context.project()?;
    let id = match args.plan.parse::<PlanId>() {
        Ok(id) => id,
        Err(_) => {
            let saved = read(Path::new(&args.plan))?;
            if saved.project != project.uuid.to_string() {
                return Err(Error::new(
                    ErrorCode::Usage,
                    format!("`{}` is a plan of another project", args.plan),
                )
                .hint("name the project's folder with `--project DIR`"));
            }
            saved.plan_id
        }
    };
    let sync = project.syncs.iter().find(|sync| sync.id == id.sync()).cloned().ok_or_else(|| {
        Error::new(ErrorCode::Usage, format!("{id} is a plan of a sync that the project does not have"))
    })?;
    let store = Store::of(&project).await?;
    let request = Request { goal: Goal::Apply(id), wait: args.wait, ..Request::default() };
    execute_all(context, &project, &store, vec![sync], 1, request, args.json).await
}

fn read(path: &Path) -> Result<SavedPlan, Error> {
    let wrong = |why: String| {
        Error::new(ErrorCode::Usage, format!("`{}` is no saved plan: {why}", path.display())).hint(
            "name a file that `levin plan SYNC --save FILE` wrote, or a plan like `plan_1_0123456789abcdef`",
        )
    };
    let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
    let mut json = serde_json::Deserializer::from_str(&text);
    SavedPlan::deserialize(&mut json).map_err(|e| wrong(e.to_string()))
}
