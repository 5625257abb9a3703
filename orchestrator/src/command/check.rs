//! `levin check`: validates every project file, then asks sources and destinations.

use std::process::ExitCode;

use super::Context;
use crate::check;
use crate::config;
use crate::error::{Error, Exit};
use crate::report::counted;

/// Validate every project file (all mistakes at once), then connect
///
/// Each mistake is shown as `file:line: message`, with a suggestion where one is likely. When the
/// files are right, every source and destination is asked whether it can be used; nothing is changed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  levin check             files, secrets, sources and destinations
  levin check --offline   files only: for an editor, or CI without secrets")]
pub struct Args {
    /// Do not connect, and take missing secrets for warnings
    #[arg(long)]
    offline: bool,
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<ExitCode, Error> {
    let loaded = context.load(args.offline)?;
    if let Some(error) = config::verdict(&loaded.findings) {
        return Err(error);
    }
    let Some(project) = loaded.project else {
        context.report.done("the project files are right; some secrets are not there to connect with");
        return Ok(Exit::Done.into());
    };
    if !args.offline {
        let troubles = check::online(&project).await;
        for trouble in &troubles {
            context.report.note(&format!("{}:", trouble.subject));
            context.report.error(&trouble.error);
        }
        if let Some(first) = troubles.first() {
            return Ok(first.error.code.exit().into());
        }
    }
    let count = |number: usize, one: &str| counted(number as u64, one);
    context.report.done(&format!(
        "{}, {}, {}, {}",
        count(project.sources.len(), "source"),
        count(project.models.len(), "model"),
        count(project.destinations.len(), "destination"),
        count(project.syncs.len(), "sync"),
    ));
    Ok(Exit::Done.into())
}
