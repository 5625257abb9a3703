//! The command line: global flags, the list of commands, and how the process ends.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgAction, Parser, Subcommand};

use crate::catalogue::Catalogue;
use crate::command::{self, Context};
use crate::error::{Error, ErrorCode, Exit};
use crate::redact::Redactor;
use crate::report::{ColourChoice, Report};
use crate::telemetry::{self, LogFormat};

/// Keep destinations in step with your warehouse
///
/// levin computes in the warehouse what changed since each destination last accepted a row, and
/// sends only that.
#[derive(Debug, Parser)]
#[command(
    name = "levin",
    version,
    max_term_width = 100,
    after_help = "\
Start here:
  levin init demo --example    a project that runs at once
  levin --project demo check

Exit codes: 0 done, 1 done with rows rejected, 2 a run failed, 3 a guard tripped,
64 wrong usage or an invalid project. `levin explain CODE` explains every error."
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// The folder that holds `levin.yml`
    #[arg(long, global = true, value_name = "DIR", default_value = ".")]
    project: PathBuf,
    /// The form of log lines on standard error
    #[arg(long, global = true, value_enum, default_value_t)]
    log_format: LogFormat,
    /// Log more: -v, -vv, -vvv (`LEVIN_LOG` takes directives instead)
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
    /// When to use colours (`NO_COLOR` is honoured)
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    color: ColourChoice,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(command::init::Args),
    Check(command::check::Args),
    Grants(command::grants::Args),
    Preview(command::preview::Args),
    Plan(command::plan::Args),
    Run(command::run::Args),
    Apply(command::apply::Args),
    Serve(command::serve::Args),
    Health(command::health::Args),
    Keys(command::keys::Args),
    Runs(command::runs::Args),
    Rejected(command::rejected::Args),
    TestRow(command::test_row::Args),
    Sql(command::sql::Args),
    Gc(command::gc::Args),
    Connectors(command::connectors::Args),
    Explain(command::explain::Args),
    Schema(command::schema::Args),
    Completion(command::completion::Args),
}

impl Command {
    async fn execute(self, context: &Context) -> Result<ExitCode, Error> {
        match self {
            Self::Init(args) => command::init::execute(args, context).await,
            Self::Check(args) => command::check::execute(args, context).await,
            Self::Grants(args) => command::grants::execute(args, context).await,
            Self::Preview(args) => command::preview::execute(args, context).await,
            Self::Plan(args) => command::plan::execute(args, context).await,
            Self::Run(args) => command::run::execute(args, context).await,
            Self::Apply(args) => command::apply::execute(args, context).await,
            Self::Serve(args) => command::serve::execute(args, context).await,
            Self::Health(args) => command::health::execute(args, context).await,
            Self::Keys(args) => command::keys::execute(args, context).await,
            Self::Runs(args) => command::runs::execute(args, context).await,
            Self::Rejected(args) => command::rejected::execute(args, context).await,
            Self::TestRow(args) => command::test_row::execute(args, context).await,
            Self::Sql(args) => command::sql::execute(args, context).await,
            Self::Gc(args) => command::gc::execute(args, context).await,
            Self::Connectors(args) => command::connectors::execute(args, context).await,
            Self::Explain(args) => command::explain::execute(args, context).await,
            Self::Schema(args) => command::schema::execute(args, context).await,
            Self::Completion(args) => command::completion::execute(args, context).await,
        }
    }
}

/// Reads the command line, runs the command and says how the process ends.
pub fn main() -> ExitCode {
    // A shell that asks what may come next gets its answer here, and nothing else happens.
    clap_complete::CompleteEnv::with_factory(<Cli as clap::CommandFactory>::command)
        .var(command::completion::VARIABLE)
        .complete();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output, everything else to standard error.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Done }.into();
        }
    };
    let redactor = Redactor::default();
    let report = Report::new(cli.global.color, redactor.clone());
    telemetry::init(cli.global.log_format, cli.global.verbose, report.colours_stderr(), redactor.clone());
    #[cfg(feature = "failpoints")]
    let _armed = crate::failpoints::arm();
    // Two providers are linked; one must be chosen. A second choice (a test's) stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let exporters_secrets = redactor.clone();
    let context =
        Context { root: cli.global.project, catalogue: Catalogue::levin(), redactor, report: report.clone() };

    let panics = report.clone();
    std::panic::set_hook(Box::new(move |panic| {
        panics.error(&Error::new(ErrorCode::Internal, panic.to_string()));
    }));
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| {
            Error::new(ErrorCode::Internal, format!("the process cannot start its threads: {error}"))
        })?;
        // On one of the runtime's own threads: what wakes another thread costs more than most of what is done then.
        let command = async move { cli.command.execute(&context).await };
        let exporting = {
            let _inside = runtime.enter();
            telemetry::traces::begin(&exporters_secrets)
        };
        let ended = runtime.block_on(runtime.spawn(command));
        if let Some(exporting) = exporting {
            exporting.end();
        }
        ended.unwrap_or_else(|broke| resume_unwind(broke.into_panic()))
    }));
    match outcome {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => {
            report.error(&error);
            error.code.exit().into()
        }
        // The hook has said what happened.
        Err(_) => ErrorCode::Internal.exit().into(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_every_command_teaches_by_example() {
        let mut command = Cli::command();
        command.clone().debug_assert();
        command.build();
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            assert!(sub.get_about().is_some(), "`{}` says not what it does", sub.get_name());
            let after = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(after.contains("levin "), "`{}` has no example", sub.get_name());
        }
    }
}
