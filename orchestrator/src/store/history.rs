//! The history of runs.

use sqlx::Row;

use super::{DeliveryId, Store, exchange, failed};
use crate::error::{Error, ErrorCode};
use crate::run::Holder;

/// A run as the history shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRecord {
    /// Its number.
    pub id: i64,
    /// The sync's slug when it ran.
    pub sync: String,
    /// `running`, or how it ended.
    pub status: String,
    /// When it began, RFC 3339.
    pub started_at: String,
    /// When it ended.
    pub finished_at: Option<String>,
    /// The report, as `run --json` prints it.
    pub report: Option<serde_json::Value>,
    /// The process that runs it, while it says `running`.
    pub holder: Option<Holder>,
}

/// So many old runs go in one statement: nobody waits long for it.
const FORGOTTEN_AT_ONCE: i64 = 1_000;

impl Store {
    /// A new run's number. `holder` is the process that runs it.
    pub async fn begin_run(
        &self,
        sync_id: i64,
        sync: &str,
        started_at: &str,
        holder: &Holder,
    ) -> Result<i64, Error> {
        exchange()?;
        fail::fail_point!("store.begin_run");
        let run: i64 = loop {
            let begun = sqlx::query(
                "insert into levin_runs (id, sync_id, sync, status, started_at)
                 select coalesce(max(id), 0) + 1, $1, $2, 'running', $3 from levin_runs returning id",
            )
            .bind(sync_id)
            .bind(sync)
            .bind(started_at)
            .fetch_one(&self.pool)
            .await;
            match begun {
                // Another replica took the number; the next one is free.
                Err(sqlx::Error::Database(e)) if e.is_unique_violation() => {}
                begun => break begun.map(|row| row.get(0)).map_err(failed)?,
            }
        };
        let holder = serde_json::to_string(holder).unwrap_or_default();
        sqlx::query(
            "insert into levin_holders (run, holder) values ($1, $2)
             on conflict (run) do update set holder = excluded.holder",
        )
        .bind(run)
        .bind(holder)
        .execute(&self.pool)
        .await
        .map_err(failed)?;
        Ok(run)
    }

    /// Says that a run begins that this replica claimed. One that was taken over, or handed back, keeps the moment when
    /// it first began.
    ///
    /// # Errors
    /// `LEASE_LOST` when another replica has taken it over meanwhile.
    pub async fn adopt_run(
        &self,
        run: i64,
        replica: &str,
        started_at: &str,
        holder: &Holder,
    ) -> Result<(), Error> {
        exchange()?;
        let holder = serde_json::to_string(holder).unwrap_or_default();
        let mut transaction = self.pool.begin().await.map_err(failed)?;
        let adopted = sqlx::query(
            "update levin_runs set status = 'running', finished_at = null,
             started_at = case when status = 'queued' and report is null then $1 else started_at end,
             told = case when told > 1 then 1 else told end
             where id = $2 and exists (select 1 from levin_queue q where q.run = $2 and q.replica = $3)",
        )
        .bind(started_at)
        .bind(run)
        .bind(replica)
        .execute(&mut *transaction)
        .await
        .map_err(failed)?
        .rows_affected();
        if adopted == 0 {
            return Err(Error::new(ErrorCode::LeaseLost, "another replica has taken the run over"));
        }
        sqlx::query(
            "insert into levin_holders (run, holder) values ($1, $2)
             on conflict (run) do update set holder = excluded.holder",
        )
        .bind(run)
        .bind(holder)
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
        transaction.commit().await.map_err(failed)
    }

    /// How a run ended.
    pub async fn end_run(
        &self,
        run: i64,
        status: &str,
        finished_at: &str,
        report: &str,
    ) -> Result<(), Error> {
        exchange()?;
        fail::fail_point!("store.end_run");
        sqlx::query("delete from levin_holders where run = $1")
            .bind(run)
            .execute(&self.pool)
            .await
            .map_err(failed)?;
        sqlx::query("update levin_runs set status = $1, finished_at = $2, report = $3 where id = $4")
            .bind(status)
            .bind(finished_at)
            .bind(report)
            .bind(run)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(failed)
    }

    /// Runs of this sync that still say `running`, although another one now holds its lease. Not those of the queue:
    /// they wait for the lease, or for a replica that takes them over.
    pub async fn mark_interrupted(&self, sync_id: i64, but: i64, finished_at: &str) -> Result<(), Error> {
        exchange()?;
        sqlx::query(
            "update levin_runs set status = 'interrupted', finished_at = $1
             where sync_id = $2 and status = 'running' and id < $3
             and not exists (select 1 from levin_queue q where q.run = levin_runs.id)",
        )
        .bind(finished_at)
        .bind(sync_id)
        .bind(but)
        .execute(&self.pool)
        .await
        .map(drop)
        .map_err(failed)
    }

    /// Drops the notes of every delivery of a sync before this one, which holds its lease: what they proved is
    /// committed, and a run that ended between its commit and forgetting left them behind.
    pub async fn forget_before(&self, sync_id: i64, of: DeliveryId) -> Result<(), Error> {
        exchange()?;
        for (delete, before) in [
            (
                "delete from levin_deliveries where generation < $2
                 and exists (select 1 from levin_runs r where r.id = run and r.sync_id = $1)",
                of.generation,
            ),
            (
                "delete from levin_notes_of where generation < $2
                 and exists (select 1 from levin_runs r where r.id = run and r.sync_id = $1)",
                of.generation,
            ),
            (
                "delete from levin_holders where run < $2
                 and exists (select 1 from levin_runs r where r.id = run and r.sync_id = $1)
                 and not exists (select 1 from levin_queue q where q.run = levin_holders.run)",
                of.run,
            ),
        ] {
            sqlx::query(delete).bind(sync_id).bind(before).execute(&self.pool).await.map_err(failed)?;
        }
        Ok(())
    }

    /// Forgets runs that ended longer ago than this, but the last of each sync.
    pub async fn forget_history(&self, kept: std::time::Duration) -> Result<(), Error> {
        let kept = chrono::TimeDelta::from_std(kept).unwrap_or(chrono::TimeDelta::MAX);
        let Some(before) = chrono::Utc::now().checked_sub_signed(kept) else { return Ok(()) };
        let before = before.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        for delete in [
            "delete from levin_runs where id in
             (select id from levin_runs old where finished_at < $1
              and id < (select max(newer.id) from levin_runs newer where newer.sync_id = old.sync_id)
              order by finished_at limit $2)",
            "delete from levin_sequence_members where sequence_run in
             (select id from levin_sequence_runs where finished_at < $1) and $2 > 0",
            "delete from levin_sequence_runs where finished_at < $1 and $2 > 0",
        ] {
            loop {
                let query = sqlx::query(delete).bind(&before).bind(FORGOTTEN_AT_ONCE);
                let forgotten = query.execute(&self.pool).await.map_err(failed)?.rows_affected();
                if forgotten < FORGOTTEN_AT_ONCE.unsigned_abs() {
                    break;
                }
            }
        }
        let day_ago = super::now() - 86_400_000;
        self.forget_received(day_ago).await?;
        sqlx::query("delete from levin_answers where created_at < $1")
            .bind(day_ago)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(failed)
    }

    /// The newest runs, of one sync or of all.
    pub async fn runs(&self, sync_id: Option<i64>, limit: i64) -> Result<Vec<RunRecord>, Error> {
        let rows = sqlx::query(
            "select id, sync, status, started_at, finished_at, report, holder
             from levin_runs left join levin_holders on run = id
             where sync_id = $1 or $1 < 0 order by id desc limit $2",
        )
        .bind(sync_id.unwrap_or(-1))
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        Ok(rows
            .iter()
            .map(|row| RunRecord {
                id: row.get(0),
                sync: row.get(1),
                status: row.get(2),
                started_at: row.get(3),
                finished_at: row.get(4),
                report: row.get::<Option<String>, _>(5).and_then(|text| serde_json::from_str(&text).ok()),
                holder: row.get::<Option<String>, _>(6).and_then(|text| serde_json::from_str(&text).ok()),
            })
            .collect())
    }
}
