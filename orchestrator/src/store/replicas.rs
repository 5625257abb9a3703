//! What replicas tell each other: that they live, and which syncs somebody disabled.

use std::collections::HashMap;

use sqlx::Row;

use super::{Store, failed};
use crate::error::Error;
use crate::run::Holder;

/// A replica, as it says that it lives.
#[derive(Debug, Clone)]
pub struct Replica {
    /// Its name, another one for each start.
    pub id: String,
    /// Its process.
    pub holder: Option<Holder>,
    /// A number that grows as long as it lives.
    pub beat: i64,
    /// What the project is that it goes by: a digest.
    pub project: String,
}

impl Store {
    /// Says that this replica lives and goes by this project, and returns all of them. It waits for nothing that other
    /// work with the store does.
    pub async fn beat(&self, replica: &str, holder: &Holder, project: &str) -> Result<Vec<Replica>, Error> {
        let holder = serde_json::to_string(holder).unwrap_or_default();
        sqlx::query(
            "insert into levin_replicas (id, holder, beat, project) values ($1, $2, 1, $3)
             on conflict (id) do update set beat = levin_replicas.beat + 1, project = excluded.project",
        )
        .bind(replica)
        .bind(holder)
        .bind(project)
        .execute(&self.pulse)
        .await
        .map_err(failed)?;
        let rows = sqlx::query("select id, holder, beat, project from levin_replicas order by id")
            .fetch_all(&self.pulse)
            .await
            .map_err(failed)?;
        Ok(rows
            .iter()
            .map(|row| Replica {
                id: row.get(0),
                holder: serde_json::from_str(&row.get::<String, _>(1)).ok(),
                beat: row.get(2),
                project: row.get(3),
            })
            .collect())
    }

    /// Forgets replicas that are gone and hold no run, or this one as it ends.
    pub async fn forget_replicas(&self, gone: &[String]) -> Result<(), Error> {
        for id in gone {
            sqlx::query(
                "delete from levin_replicas where id = $1
                 and not exists (select 1 from levin_queue where replica = $1)",
            )
            .bind(id)
            .execute(&self.pool)
            .await
            .map_err(failed)?;
        }
        Ok(())
    }

    /// Runs that executing replicas hold although no such replica is known.
    pub async fn orphans(&self) -> Result<Vec<String>, Error> {
        let rows = sqlx::query(
            "select distinct replica from levin_queue
             where replica is not null and replica not in (select id from levin_replicas)",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Syncs that somebody disabled, with the moment when.
    pub async fn disabled(&self) -> Result<HashMap<i64, String>, Error> {
        let rows = sqlx::query("select sync_id, since from levin_disabled")
            .fetch_all(&self.pool)
            .await
            .map_err(failed)?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// Disables a sync, or enables it again: its schedule starts no run, and nothing that it follows does.
    pub async fn set_disabled(&self, sync_id: i64, since: Option<&str>) -> Result<(), Error> {
        let query = match since {
            Some(since) => sqlx::query(
                "insert into levin_disabled (sync_id, since) values ($1, $2) on conflict (sync_id) do nothing",
            )
            .bind(sync_id)
            .bind(since),
            None => sqlx::query("delete from levin_disabled where sync_id = $1").bind(sync_id),
        };
        query.execute(&self.pool).await.map(drop).map_err(failed)
    }
}
