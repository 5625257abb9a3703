//! What follows runs: a sync or sequence is due once all that it follows have run since it was last queued.

use sqlx::{AnyConnection, Row};

use super::queue::{Placed, What, place};
use super::{failed, sequences};
use crate::error::Error;

/// From here on its parents count anew.
pub(super) async fn count_anew(connection: &mut AnyConnection, object: &str) -> Result<(), Error> {
    sqlx::query("delete from levin_parents where object = $1")
        .bind(object)
        .execute(connection)
        .await
        .map(drop)
        .map_err(failed)
}

/// A parent has run. Returns the run that it made due; a sequence's first run goes without saying.
pub(super) async fn follow(
    connection: &mut AnyConnection,
    what: &What,
    parents: &[i64],
    run: i64,
) -> Result<Option<Placed>, Error> {
    let object = match what {
        What::Sync(wish) => format!("sync:{}", wish.sync_id),
        What::Sequence(wish) => format!("sequence:{}", wish.sequence_id),
        What::Nothing => return Ok(None),
    };
    sqlx::query(
        "insert into levin_parents (object, parent_id, run) select $1, sync_id, id from levin_runs where id = $2
         on conflict (object, parent_id) do update set run = excluded.run",
    )
    .bind(&object)
    .bind(run)
    .execute(&mut *connection)
    .await
    .map_err(failed)?;
    let rows = sqlx::query("select parent_id from levin_parents where object = $1")
        .bind(&object)
        .fetch_all(&mut *connection)
        .await
        .map_err(failed)?;
    let ran: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    if !parents.iter().all(|parent| ran.contains(parent)) {
        return Ok(None);
    }
    match what {
        What::Sync(wish) => place(connection, wish).await.map(Some),
        What::Sequence(wish) => sequences::begin(connection, wish).await.map(|_| None),
        What::Nothing => Ok(None),
    }
}
