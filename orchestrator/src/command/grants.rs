//! `levin grants`: what an owner of the warehouse has to allow.

use std::process::ExitCode;

use clap_complete::engine::ArgValueCompleter;

use super::{Context, completion};
use crate::error::{Error, Exit};
use crate::grants::{self, Grantee};

/// Print the script that lets levin read the models and write its own schemas
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  levin grants warehouse
  levin grants warehouse --role levin --database analytics
  levin grants warehouse --create-schemas

The script makes levin's two schemas and lets the role write them, and nothing else; with
`--create-schemas` the role may make them itself.")]
pub struct Args {
    /// The source
    #[arg(add = ArgValueCompleter::new(completion::sources))]
    source: String,
    /// The role that levin connects as; default: the one in the source's address
    #[arg(long)]
    role: Option<String>,
    /// The database that holds the models; default: the one in the source's address
    #[arg(long)]
    database: Option<String>,
    /// Let the role make levin's two schemas itself, instead of making them in the script
    #[arg(long)]
    create_schemas: bool,
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<ExitCode, Error> {
    let project = context.project()?;
    let source = project.source(&args.source)?;
    let named = Grantee::of(source);
    let grantee =
        Grantee { role: args.role.unwrap_or(named.role), database: args.database.unwrap_or(named.database) };
    let steps = grants::whole(&project, source, &grantee, args.create_schemas)?;
    if steps.is_empty() {
        context.report.note(&format!("a warehouse of type `{}` needs no grants", source.connector.name));
    }
    for step in steps {
        context.report.data(&format!("-- {}\n{};\n", step.name, step.sql));
    }
    Ok(Exit::Done.into())
}
