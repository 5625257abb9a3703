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

/// What is noted when a lease is given up.
#[derive(Debug, Clone, Copy, Default)]
pub struct Noted {
    /// How many rows the model had.
    pub queried: Option<i64>,
    /// How many rows the snapshot has.
    pub counted: Option<i64>,
    /// The model was compared.
    pub ran: bool,
}

/// Gives the lease up.
pub async fn release(
    session: &mut dyn Session,
    run: &Run<'_>,
    generation: i64,
    noted: Noted,
) -> Result<(), Error> {
    fail::fail_point!("prune.before_release");
    let Noted { queried, counted, ran } = noted;
    let release = Statement::ReleaseLease { tables: &run.tables, generation, queried, counted, ran };
    let release = script(run.dialect(), Atomicity::Transaction, &[release])?;
    session.execute(&release).await?;
    Ok(())
}
