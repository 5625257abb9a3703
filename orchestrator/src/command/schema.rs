//! `levin schema`: the JSON Schema of project files.

use std::process::ExitCode;

use super::Context;
use crate::config::{Kind, published, published_together};
use crate::error::{Error, Exit};

/// Print the JSON Schema of project files, for editors and generators
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  levin schema sync > .levin/sync.schema.json

Then, at the top of a sync's file, for editors with the YAML language server:
  # yaml-language-server: $schema=../.levin/sync.schema.json")]
pub struct Args {
    /// Only the files of this kind; without it, all kinds in one document under `$defs`
    #[arg(value_name = "KIND")]
    kind: Option<KindName>,
}

/// A kind of project file, as the command line names it.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum KindName {
    /// `levin.yml`
    Project,
    /// `sources/*.yml`
    Source,
    /// `models/*.yml`
    Model,
    /// `destinations/*.yml`
    Destination,
    /// `syncs/*.yml`
    Sync,
    /// `sequences/*.yml`
    Sequence,
    /// `channels/*.yml`
    Channel,
    /// `hooks/*.yml`
    Hook,
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<ExitCode, Error> {
    let kind = args.kind.map(|kind| match kind {
        KindName::Project => Kind::Project,
        KindName::Source => Kind::Source,
        KindName::Model => Kind::Model,
        KindName::Destination => Kind::Destination,
        KindName::Sync => Kind::Sync,
        KindName::Sequence => Kind::Sequence,
        KindName::Channel => Kind::Channel,
        KindName::Hook => Kind::Hook,
    });
    context.report.json(&match kind {
        Some(kind) => published(&context.catalogue, kind),
        None => published_together(&context.catalogue),
    });
    Ok(Exit::Done.into())
}
