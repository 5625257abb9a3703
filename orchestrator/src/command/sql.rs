//! `levin sql`: the statements of a run, ready to paste.

use std::process::ExitCode;

use clap_complete::engine::ArgValueCompleter;

use clap::builder::PossibleValuesParser;
use sql_templates::Expect;

use super::{Context, completion};
use crate::error::{Error, Exit};
use crate::run::{Stage, statements_of};
use crate::store::Store;

/// Show the SQL that a run would execute now, ready to paste
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  levin sql customers-to-crm           every stage
  levin sql customers-to-crm diff      how changes are found")]
pub struct Args {
    /// The sync
    #[arg(add = ArgValueCompleter::new(completion::syncs))]
    sync: String,
    /// Only this stage
    #[arg(value_parser = PossibleValuesParser::new(Stage::ALL.map(Stage::name)))]
    stage: Option<String>,
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<ExitCode, Error> {
    let project = context.project()?;
    let sync = project.sync(&args.sync)?;
    let store = Store::of(&project).await?;
    let only = args.stage.and_then(|name| Stage::ALL.into_iter().find(|s| s.name() == name));
    for (stage, script) in statements_of(&project, sync, &store, only).await? {
        context.report.data(&format!("-- {}\n\n", stage.name()));
        for step in &script.steps {
            let expect = match step.expect {
                Expect::Any => "",
                Expect::Rows => " (returns rows)",
                Expect::OneRow => " (must write exactly one row)",
            };
            context.report.data(&format!("-- {}{expect}\n{};\n\n", step.name, step.sql));
        }
    }
    Ok(Exit::Done.into())
}
