//! `levin explain`: the page of an error code.

use std::process::ExitCode;

use super::Context;
use crate::error::{Error, ErrorCode, Exit};
use crate::report::Meaning;
use crate::suggestion;

/// Show an error code's page: what happened, what to do, what is safe
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  levin explain GUARD_TRIPPED")]
pub struct Args {
    /// The code as errors and `levin rejected` show it
    #[arg(value_name = "CODE")]
    code: String,
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<ExitCode, Error> {
    let Some(code) = ErrorCode::from_name(&args.code) else {
        let names: Vec<&str> = ErrorCode::ALL.iter().map(|code| code.name()).collect();
        let hint = match suggestion::nearest(&args.code.replace('-', "_"), names.iter().copied()) {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("codes: {}", names.join(", ")),
        };
        return Err(
            Error::new(ErrorCode::Usage, format!("there is no error code `{}`", args.code)).hint(hint)
        );
    };
    let page: Vec<String> = code
        .page()
        .lines()
        .map(|line| {
            if line.starts_with('#') { context.report.paint(Meaning::Heading, line) } else { line.to_owned() }
        })
        .collect();
    context.report.data(&page.join("\n"));
    Ok(Exit::Done.into())
}
