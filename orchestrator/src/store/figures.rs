//! What is counted when somebody asks how the service does.

use sqlx::Row;

use super::{Store, failed};
use crate::error::Error;

/// How many syncs are asked about in one statement; SQLite takes 500 terms.
const AT_ONCE: usize = 100;

/// Runs that wait and that go on, on all replicas together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueFigures {
    /// Runs that wait.
    pub waiting: i64,
    /// Since when the oldest of them may begin, in milliseconds since 1970.
    pub oldest: Option<i64>,
    /// Runs that go on.
    pub running: i64,
}

/// How the last runs of a sync ended, as far as the history goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SyncFigures {
    /// The sync's number.
    pub sync_id: i64,
    /// How the latest ended.
    pub status: Option<String>,
    /// When the latest ended that was a success, or one with a warning; RFC 3339.
    pub succeeded_at: Option<String>,
}

impl Store {
    /// How much waits, and how much goes on.
    pub async fn queue_figures(&self) -> Result<QueueFigures, Error> {
        let row = sqlx::query(
            "select count(case when replica is null then 1 end), min(case when replica is null then ready_at end),
                    count(replica)
             from levin_queue",
        )
        .fetch_one(&self.pool)
        .await
        .map_err(failed)?;
        Ok(QueueFigures { waiting: row.get(0), oldest: row.get(1), running: row.get(2) })
    }

    /// How the last runs of these syncs ended. Each is looked up by itself, so a long history costs no more.
    pub async fn sync_figures(&self, syncs: &[i64]) -> Result<Vec<SyncFigures>, Error> {
        let mut found = Vec::with_capacity(syncs.len());
        for some in syncs.chunks(AT_ONCE) {
            let one = |sync: &i64| {
                format!(
                    "select cast({sync} as bigint),
                       (select r.status from levin_runs r where r.sync_id = {sync} and r.finished_at is not null
                        order by r.id desc limit 1),
                       (select r.finished_at from levin_runs r where r.sync_id = {sync}
                        and r.finished_at is not null and r.status in ('success', 'warning')
                        order by r.id desc limit 1)"
                )
            };
            let statement = some.iter().map(one).collect::<Vec<_>>().join(" union all ");
            // Only numbers are put in.
            let rows =
                sqlx::query(sqlx::AssertSqlSafe(statement)).fetch_all(&self.pool).await.map_err(failed)?;
            found.extend(rows.iter().map(|row| SyncFigures {
                sync_id: row.get(0),
                status: row.get(1),
                succeeded_at: row.get(2),
            }));
        }
        Ok(found)
    }
}
