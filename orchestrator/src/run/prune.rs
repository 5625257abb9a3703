//! Stage 6: what is no longer needed is dropped.

use connectors::warehouse::Session;
use sql_templates::{Atomicity, Statement, TableRef, script};

use super::Run;
use crate::error::Error;

/// Drops managed tables, and tells whether they are gone. A failure here costs space, not rows: it is
/// logged and no error.
pub async fn prune(session: &mut dyn Session, run: &Run<'_>, tables: &[TableRef]) -> Result<bool, Error> {
    fail::fail_point!("prune.before");
    if tables.is_empty() {
        return Ok(true);
    }
    let drop = script(run.dialect(), Atomicity::Transaction, &[Statement::Prune { drop: tables }])?;
    if let Err(error) = session.execute(&drop).await {
        tracing::warn!(error = %error, "cannot drop tables that are no longer needed");
        return Ok(false);
    }
    Ok(true)
}

/// Gives the lease up, noting how many rows the model had, and whether it was compared at all.
pub async fn release(
    session: &mut dyn Session,
    run: &Run<'_>,
    generation: i64,
    queried: Option<i64>,
    ran: bool,
) -> Result<(), Error> {
    fail::fail_point!("prune.before_release");
    let release = script(
        run.dialect(),
        Atomicity::Transaction,
        &[Statement::ReleaseLease { tables: &run.tables, generation, queried, ran }],
    )?;
    session.execute(&release).await?;
    Ok(())
}
