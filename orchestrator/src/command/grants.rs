//! `levin grants`: what an owner of the warehouse has to allow.

use std::process::ExitCode;

use sql_templates::{Ident, Statement};

use super::Context;
use crate::error::{Error, ErrorCode, Exit};

/// Print the script that lets levin read the models and write its own schemas
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  levin grants warehouse
  levin grants warehouse --role levin --database analytics")]
pub struct Args {
    /// The source
    source: String,
    /// The role that levin connects as
    #[arg(long, default_value = "levin")]
    role: String,
    /// The database that holds the models
    #[arg(long, default_value = "analytics")]
    database: String,
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<ExitCode, Error> {
    let project = context.project()?;
    let source = project.source(&args.source)?;
    let name = |text: &str| Ident::new(text).map_err(|e| Error::new(ErrorCode::Usage, e.to_string()));
    let statement = Statement::Grants {
        planner: &name(&source.planner_schema)?,
        audit: &name(&source.audit_schema)?,
        role: &name(&args.role)?,
        database: &name(&args.database)?,
    };
    let steps = statement.steps(source.warehouse.dialect())?;
    if steps.is_empty() {
        context.report.note(&format!("a warehouse of type `{}` needs no grants", source.connector.name));
    }
    for step in steps {
        context.report.data(&format!("-- {}\n{};\n", step.name, step.sql));
    }
    Ok(Exit::Done.into())
}
