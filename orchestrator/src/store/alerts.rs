//! The state of each alert, and which runs were looked at.

use chrono::{DateTime, SecondsFormat, Utc};
use connectors::channel::{Notice, Severity};
use serde_json::Value;
use sqlx::any::AnyRow;
use sqlx::{Any, Row, Transaction};

use super::{Store, failed, outbox};
use crate::alert::{Past, Rule};
use crate::error::Error;

/// An alert as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct AlertState {
    /// The sync's number.
    pub sync_id: i64,
    /// What is looked at.
    pub rule: Rule,
    /// How bad it is.
    pub state: Severity,
    /// Since when it is so, or not right.
    pub since: DateTime<Utc>,
    /// What was found when it last changed.
    pub message: String,
    /// The run that told.
    pub run: Option<i64>,
}

/// A run whose beginning or end nobody has told yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Untold {
    /// Its number.
    pub id: i64,
    /// The sync's number.
    pub sync_id: i64,
    /// The sync's slug when it ran.
    pub sync: String,
    /// The word of its status.
    pub status: String,
    /// When it began; when it was asked for, of one that never did.
    pub started_at: String,
    /// When it was asked for, of one that waited in the queue.
    pub created_at: Option<String>,
    /// When it ended.
    pub finished_at: Option<String>,
    /// Its report.
    pub report: Option<Value>,
    /// Its beginning was told.
    pub start_told: bool,
}

impl Untold {
    /// Whether it ever began. One that was cancelled while it waited did not.
    pub fn began(&self) -> bool {
        self.status != "cancelled" || self.report.is_some() || self.created_at.is_none()
    }
}

/// Changing alerts: nobody else does until this ends.
#[derive(Debug)]
pub struct Judging {
    transaction: Transaction<'static, Any>,
}

/// Which runs are to be told. The number says how much of a run was told: its beginning (1), its end (2).
const UNTOLD: &str = "told < 2 and (finished_at is not null or (status = 'running' and told = 0))";

impl Store {
    /// The state of every alert that was ever looked at: of one sync, or of all.
    pub async fn alerts(&self, sync_id: Option<i64>) -> Result<Vec<AlertState>, Error> {
        let rows = sqlx::query(
            "select sync_id, rule, state, since, message, run from levin_alerts
             where sync_id = $1 or $1 < 0 order by sync_id, rule",
        )
        .bind(sync_id.unwrap_or(-1))
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        Ok(rows.iter().filter_map(alert).collect())
    }

    /// The state of one alert; `None` when it was never looked at.
    pub async fn alert(&self, sync_id: i64, rule: Rule) -> Result<Option<AlertState>, Error> {
        let alerts = self.alerts(Some(sync_id)).await?;
        Ok(alerts.into_iter().find(|alert| alert.rule == rule))
    }

    /// Every alert that is not right.
    pub async fn raised(&self) -> Result<Vec<AlertState>, Error> {
        let rows = sqlx::query(
            "select sync_id, rule, state, since, message, run from levin_alerts where state <> 'ok'",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        Ok(rows.iter().filter_map(alert).collect())
    }

    /// Forgets the alerts of a sync that is no more.
    pub async fn forget_alerts(&self, sync_id: i64) -> Result<(), Error> {
        sqlx::query("delete from levin_alerts where sync_id = $1")
            .bind(sync_id)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(failed)
    }

    /// Whether there is a run to tell of.
    pub async fn anything_untold(&self) -> Result<bool, Error> {
        let look = format!("select 1 from levin_runs where {UNTOLD} limit 1");
        let row = sqlx::query(sqlx::AssertSqlSafe(look)).fetch_optional(&self.pool).await.map_err(failed)?;
        Ok(row.is_some())
    }

    /// The last run of a sync that began, and when.
    pub async fn last_begun(&self, sync_id: i64) -> Result<Option<(i64, DateTime<Utc>)>, Error> {
        let row = sqlx::query(
            "select id, started_at from levin_runs where sync_id = $1 and status <> 'queued'
             order by id desc limit 1",
        )
        .bind(sync_id)
        .fetch_optional(&self.pool)
        .await
        .map_err(failed)?;
        Ok(row.and_then(|row| Some((row.get(0), row.get::<String, _>(1).parse().ok()?))))
    }

    /// Runs that go on, in the service and as commands: number, sync, and when each began.
    pub async fn going(&self) -> Result<Vec<(i64, i64, DateTime<Utc>)>, Error> {
        let rows = sqlx::query(
            "select r.id, r.sync_id, r.started_at from levin_holders h
             join levin_runs r on r.id = h.run where r.status = 'running'",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        Ok(rows
            .iter()
            .filter_map(|row| Some((row.get(0), row.get(1), row.get::<String, _>(2).parse().ok()?)))
            .collect())
    }

    /// Begins to change alerts.
    pub async fn judge(&self) -> Result<Judging, Error> {
        Ok(Judging { transaction: self.deciding().await? })
    }
}

impl Judging {
    /// Runs that are to be told, the oldest first.
    pub async fn untold(&mut self, limit: i64) -> Result<Vec<Untold>, Error> {
        let look = format!(
            "select id, sync_id, sync, status, started_at, created_at, finished_at, report, told
             from levin_runs where {UNTOLD} order by id limit $1"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(look))
            .bind(limit)
            .fetch_all(&mut *self.transaction)
            .await
            .map_err(failed)?;
        Ok(rows
            .iter()
            .map(|row| Untold {
                id: row.get(0),
                sync_id: row.get(1),
                sync: row.get(2),
                status: row.get(3),
                started_at: row.get(4),
                created_at: row.get(5),
                finished_at: row.get(6),
                report: row.get::<Option<String>, _>(7).and_then(|text| serde_json::from_str(&text).ok()),
                start_told: row.get::<i64, _>(8) > 0,
            })
            .collect())
    }

    /// Says that a run is told: its beginning, or its end as well.
    pub async fn told(&mut self, run: i64, ended: bool) -> Result<(), Error> {
        sqlx::query("update levin_runs set told = $1 where id = $2 and ($1 = 1 or finished_at is not null)")
            .bind(if ended { 2_i64 } else { 1 })
            .bind(run)
            .execute(&mut *self.transaction)
            .await
            .map(drop)
            .map_err(failed)
    }

    /// Runs of a sync that came to an end of their own, this one first, then those before it.
    pub async fn history(&mut self, sync_id: i64, run: i64, limit: u32) -> Result<Vec<Past>, Error> {
        let rows = sqlx::query(
            "select id, status, started_at, finished_at, report from levin_runs
             where sync_id = $1 and id <= $2 and finished_at is not null
             and status in ('success', 'warning', 'failed') order by id desc limit $3",
        )
        .bind(sync_id)
        .bind(run)
        .bind(i64::from(limit))
        .fetch_all(&mut *self.transaction)
        .await
        .map_err(failed)?;
        Ok(rows
            .iter()
            .filter_map(|row| {
                let report: Option<String> = row.get(4);
                let report: Value = serde_json::from_str(&report.unwrap_or_default()).unwrap_or_default();
                let moment = |at: usize| row.get::<String, _>(at).parse().ok();
                Some(Past::of(row.get(0), row.get(1), moment(2)?, moment(3)?, &report))
            })
            .collect())
    }

    /// The state of an alert; `None` when it was never looked at.
    pub async fn state(&mut self, sync_id: i64, rule: Rule) -> Result<Option<AlertState>, Error> {
        let row = sqlx::query(
            "select sync_id, rule, state, since, message, run from levin_alerts where sync_id = $1 and rule = $2",
        )
        .bind(sync_id)
        .bind(rule.name())
        .fetch_optional(&mut *self.transaction)
        .await
        .map_err(failed)?;
        Ok(row.as_ref().and_then(alert))
    }

    /// Changes the state of an alert.
    pub async fn set_state(&mut self, state: &AlertState) -> Result<(), Error> {
        sqlx::query(
            "insert into levin_alerts (sync_id, rule, state, since, message, run) values ($1, $2, $3, $4, $5, $6)
             on conflict (sync_id, rule) do update set state = excluded.state, since = excluded.since,
             message = excluded.message, run = excluded.run",
        )
        .bind(state.sync_id)
        .bind(state.rule.name())
        .bind(state.state.name())
        .bind(state.since.to_rfc3339_opts(SecondsFormat::Millis, true))
        .bind(&state.message)
        .bind(state.run)
        .execute(&mut *self.transaction)
        .await
        .map(drop)
        .map_err(failed)
    }

    /// Queues a message for a channel. It leaves once this is committed.
    pub async fn queue(&mut self, recipient: &str, notice: Notice) -> Result<(), Error> {
        outbox::queue(&mut self.transaction, recipient, notice).await
    }

    /// Ends it: now all of it holds.
    pub async fn commit(self) -> Result<(), Error> {
        self.transaction.commit().await.map_err(failed)
    }
}

/// `None` for a rule or a state of another version.
fn alert(row: &AnyRow) -> Option<AlertState> {
    Some(AlertState {
        sync_id: row.get(0),
        rule: Rule::of_name(&row.get::<String, _>(1))?,
        state: serde_json::from_value(Value::String(row.get(2))).ok()?,
        since: row.get::<String, _>(3).parse().ok()?,
        message: row.get(4),
        run: row.get(5),
    })
}
