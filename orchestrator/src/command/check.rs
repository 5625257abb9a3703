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
/// files are right, every source is asked for the columns of its models and whether the managed schemas
/// can be written, every destination whether it can take what its syncs send; nothing is changed.
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
        if !troubles.is_empty() {
            let exits = troubles.iter().map(|trouble| trouble.error.code.exit());
            return Ok(exits.fold(Exit::Done, Exit::worse).into());
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
