//! `levin gc`: managed tables that belong to no sync of the project.

use std::process::ExitCode;

use connectors::warehouse::Tag;
use sql_templates::{Atomicity, Statement, SyncTables, project_prefix, script};

use super::Context;
use crate::error::{Error, ErrorCode, Exit};
use crate::report::counted;
use crate::run::result_rows;
use crate::store::Store;

/// List managed tables that belong to no sync of the project
///
/// Only tables of this project are looked at. They are listed; with `--yes` they are dropped.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  levin gc          list them
  levin gc --yes    drop them")]
pub struct Args {
    /// Drop them
    #[arg(long)]
    yes: bool,
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<ExitCode, Error> {
    let project = context.project()?;
    // Whose tables are whose is told by the project's uuid, and the store knows if it is the right one.
    drop(Store::of(&project).await?);
    let uuid = project.uuid.to_string();
    let prefix = project_prefix(&uuid);
    let mut found = 0;
    for source in &project.sources {
        let tag = Tag { sync: format!("gc {}", source.slug), run: None, stage: "gc" };
        let mut session = source.session(&tag).await?;
        let dialect = source.warehouse.dialect();
        let tables = SyncTables::new(&source.planner_schema, &source.audit_schema, &uuid, 0)
            .map_err(|e| Error::new(ErrorCode::ProjectInvalid, e.to_string()))?;
        let list = script(
            dialect,
            Atomicity::Transaction,
            &[Statement::ManagedTables { schema: tables.planner_schema(), prefix: &prefix, relation: None }],
        )?;
        let effect = session.execute(&list).await?;
        let mut orphans = Vec::new();
        for row in result_rows(effect.result("list the managed tables")) {
            let Some(name) = row.text("table_name")? else { continue };
            let sync = name
                .strip_prefix(&prefix)
                .and_then(|rest| rest.strip_prefix("_s"))
                .and_then(|rest| rest.split('_').next())
                .and_then(|id| id.parse::<i64>().ok());
            let Some(sync) = sync else { continue };
            let reads_here =
                |id: i64| project.syncs.iter().any(|s| s.id == id && s.model.source.id == source.id);
            if !reads_here(sync) {
                context.report.data(&format!("{}.{name}\n", source.planner_schema));
                orphans.push(
                    tables.recorded(&name).map_err(|e| Error::new(ErrorCode::Internal, e.to_string()))?,
                );
            }
        }
        found += orphans.len() as u64;
        if args.yes && !orphans.is_empty() {
            let drop = script(dialect, Atomicity::Transaction, &[Statement::Prune { drop: &orphans }])?;
            session.execute(&drop).await?;
        }
    }
    match (found, args.yes) {
        (0, _) => context.report.done("every managed table belongs to a sync"),
        (n, true) => context.report.done(&format!("dropped {}", counted(n, "table"))),
        (n, false) => context
            .report
            .note(&format!("{} belong to no sync; `levin gc --yes` drops them", counted(n, "table"))),
    }
    Ok(Exit::Done.into())
}
