//! The state of each alert, and which runs were looked at.

use chrono::{DateTime, SecondsFormat, Utc};
use connectors::channel::{Notice, Severity};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::any::AnyRow;
use sqlx::{Any, AnyConnection, Row, Transaction};

use super::{Store, failed, outbox};
use crate::alert::{Alerts, Past, Rule};
use crate::error::{Error, ErrorCode};

/// An alert as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct AlertState {
    /// What it is of.
    pub subject: Subject,
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
    /// The sync was at rest when it was last looked at: that time does not count.
    pub rests: bool,
    /// The slugs of the channels that were told of it and not of its end.
    pub told: Vec<String>,
}

/// What an alert is of, as messages name it: also when the project has it no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Subject {
    /// The sync's number.
    pub sync_id: i64,
    /// Its slug.
    pub sync: String,
    /// The number of its destination.
    pub destination_id: i64,
    /// The destination's slug.
    pub destination: String,
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

    /// When it ended; when it began, of one that goes on.
    pub fn moment(&self) -> DateTime<Utc> {
        let moment = self.finished_at.as_ref().unwrap_or(&self.started_at);
        moment.parse().unwrap_or_else(|_| Utc::now())
    }
}

/// Changing alerts: nobody else does until this ends.
#[derive(Debug)]
pub struct Judging {
    transaction: Transaction<'static, Any>,
}

/// Which runs are to be told. The number says how much of a run was told: its beginning (1), its end (2).
const UNTOLD: &str = "told < 2 and (finished_at is not null or (status = 'running' and told = 0))";
/// How an alert is read.
const ALERT: &str =
    "select sync_id, rule, state, since, message, run, rests, subject, told from levin_alerts";
/// So many runs between failures are looked at: those that a guard stopped break no row of failures.
const BETWEEN: u32 = 100;

impl Store {
    /// The state of every alert that was ever looked at: of one sync, or of all.
    pub async fn alerts(&self, sync_id: Option<i64>) -> Result<Vec<AlertState>, Error> {
        let look = format!("{ALERT} where sync_id = $1 or $1 < 0 order by sync_id, rule");
        let rows = sqlx::query(sqlx::AssertSqlSafe(look))
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
        let look = format!("{ALERT} where state <> 'ok'");
        let rows = sqlx::query(sqlx::AssertSqlSafe(look)).fetch_all(&self.pool).await.map_err(failed)?;
        Ok(rows.iter().filter_map(alert).collect())
    }

    /// Runs with higher numbers than this that are to be told, the oldest first. Who tells looks again in
    /// [`Judging::untold`]: by then somebody else may have.
    pub async fn untold(&self, after: i64, limit: i64) -> Result<Vec<Untold>, Error> {
        untold(&mut *self.pool.acquire().await.map_err(failed)?, after, limit).await
    }

    /// The last run of a sync that began, and when. One that was cancelled while it waited did not.
    pub async fn last_begun(&self, sync_id: i64) -> Result<Option<(i64, DateTime<Utc>)>, Error> {
        let row = sqlx::query(
            "select id, started_at from levin_runs where sync_id = $1 and status <> 'queued'
             and not (status = 'cancelled' and report is null and created_at is not null)
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
    /// Runs with higher numbers than this that are to be told, the oldest first.
    pub async fn untold(&mut self, after: i64, limit: i64) -> Result<Vec<Untold>, Error> {
        untold(&mut self.transaction, after, limit).await
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

    /// Runs of a sync that came to an end of their own, this one first, then those before it: all of them back to the
    /// newest that went through, as far as `alerts` could count them, and of those that went through as many more as make
    /// its mean.
    pub async fn history(&mut self, sync_id: i64, run: i64, alerts: &Alerts) -> Result<Vec<Past>, Error> {
        const ENDED: &str = "from levin_runs where sync_id = $1 and id <= $2 and finished_at is not null";
        let streak = format!(
            "select id, status, started_at, finished_at, report {ENDED} and status in ('success', 'warning', 'failed')
             and id >= coalesce(
               (select max(recent.id) from (
                  select id, status {ENDED} and status in ('success', 'warning', 'failed')
                  order by id desc limit $3) recent
                where recent.status <> 'failed'), 0)
             order by id desc limit $3"
        );
        let sizes = format!(
            "select id, status, started_at, finished_at, report {ENDED} and status in ('success', 'warning')
             order by id desc limit $3"
        );
        let mut history: Vec<Past> = Vec::new();
        for (look, limit) in
            [(streak, alerts.consecutive.saturating_add(BETWEEN)), (sizes, alerts.sizes_compared())]
        {
            if limit == 0 {
                continue;
            }
            let rows = sqlx::query(sqlx::AssertSqlSafe(look))
                .bind(sync_id)
                .bind(run)
                .bind(i64::from(limit))
                .fetch_all(&mut *self.transaction)
                .await
                .map_err(failed)?;
            history.extend(rows.iter().filter_map(past));
        }
        history.sort_by_key(|past| std::cmp::Reverse(past.run));
        history.dedup_by_key(|past| past.run);
        Ok(history)
    }

    /// The state of an alert; `None` when it was never looked at.
    pub async fn state(&mut self, sync_id: i64, rule: Rule) -> Result<Option<AlertState>, Error> {
        let look = format!("{ALERT} where sync_id = $1 and rule = $2");
        let row = sqlx::query(sqlx::AssertSqlSafe(look))
            .bind(sync_id)
            .bind(rule.name())
            .fetch_optional(&mut *self.transaction)
            .await
            .map_err(failed)?;
        Ok(row.as_ref().and_then(alert))
    }

    /// Changes the state of an alert.
    pub async fn set_state(&mut self, state: &AlertState) -> Result<(), Error> {
        let written = |error| Error::new(ErrorCode::Internal, format!("an alert cannot be written: {error}"));
        sqlx::query(
            "insert into levin_alerts (sync_id, rule, state, since, message, run, rests, subject, told)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             on conflict (sync_id, rule) do update set state = excluded.state, since = excluded.since,
             message = excluded.message, run = excluded.run, rests = excluded.rests, subject = excluded.subject,
             told = excluded.told",
        )
        .bind(state.subject.sync_id)
        .bind(state.rule.name())
        .bind(state.state.name())
        .bind(state.since.to_rfc3339_opts(SecondsFormat::Millis, true))
        .bind(&state.message)
        .bind(state.run)
        .bind(i64::from(state.rests))
        .bind(serde_json::to_string(&state.subject).map_err(written)?)
        .bind(serde_json::to_string(&state.told).map_err(written)?)
        .execute(&mut *self.transaction)
        .await
        .map(drop)
        .map_err(failed)
    }

    /// Says that a sync rests: time does not count for its alert of silence until that changes again.
    pub async fn rests(&mut self, subject: &Subject, now: DateTime<Utc>) -> Result<(), Error> {
        let known = self.state(subject.sync_id, Rule::NotRunFor).await?;
        let state = known.unwrap_or_else(|| AlertState {
            subject: subject.clone(),
            rule: Rule::NotRunFor,
            state: Severity::Ok,
            since: now,
            message: "the sync rests".to_owned(),
            run: None,
            rests: true,
            told: Vec::new(),
        });
        self.set_state(&AlertState { rests: true, ..state }).await
    }

    /// Forgets the alerts of a sync that is no more.
    pub async fn forget(&mut self, sync_id: i64) -> Result<(), Error> {
        sqlx::query("delete from levin_alerts where sync_id = $1")
            .bind(sync_id)
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

async fn untold(connection: &mut AnyConnection, after: i64, limit: i64) -> Result<Vec<Untold>, Error> {
    let look = format!(
        "select id, sync_id, sync, status, started_at, created_at, finished_at, report, told
         from levin_runs where {UNTOLD} and id > $1 order by id limit $2"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(look))
        .bind(after)
        .bind(limit)
        .fetch_all(connection)
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

/// `None` for a run whose moments cannot be read.
fn past(row: &AnyRow) -> Option<Past> {
    let report: Option<String> = row.get(4);
    let report: Value = serde_json::from_str(&report.unwrap_or_default()).unwrap_or_default();
    let moment = |at: usize| row.get::<String, _>(at).parse().ok();
    Some(Past::of(row.get(0), row.get(1), moment(2)?, moment(3)?, &report))
}

/// `None` for a rule or a state of another version.
fn alert(row: &AnyRow) -> Option<AlertState> {
    Some(AlertState {
        rule: Rule::of_name(&row.get::<String, _>(1))?,
        state: serde_json::from_value(Value::String(row.get(2))).ok()?,
        since: row.get::<String, _>(3).parse().ok()?,
        message: row.get(4),
        run: row.get(5),
        rests: row.get::<i64, _>(6) != 0,
        subject: serde_json::from_str(&row.get::<String, _>(7)).ok()?,
        told: serde_json::from_str(&row.get::<String, _>(8)).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::alert::{Drift, after_run};
    use crate::run::Holder;
    use crate::store::{Asked, Cause, Wish, text_of_now};

    async fn store() -> (Store, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        (Store::open("sqlite://store.db", folder.path()).await.unwrap(), folder)
    }

    /// A run that ended so; `guarded` is one that a guard stopped.
    async fn ran(store: &Store, how: &str) -> i64 {
        let run = store.begin_run(1, "orders", &text_of_now(), &Holder::this(None)).await.unwrap();
        let (status, report) = match how {
            "guarded" => ("failed", json!({"error": {"code": "GUARD_TRIPPED"}})),
            "failed" => ("failed", json!({"error": {"code": "SOURCE_FAILED"}})),
            _ => (how, json!({"querySize": 100})),
        };
        store.end_run(run, status, &text_of_now(), &report.to_string()).await.unwrap();
        run
    }

    async fn found(rule: Rule, alerts: &Alerts, hows: &[&str]) -> Option<Severity> {
        let (store, _folder) = store().await;
        let mut last = 0;
        for how in hows {
            last = ran(&store, how).await;
        }
        ran(&store, "failed").await;
        let mut judging = store.judge().await.unwrap();
        let history = judging.history(1, last, alerts).await.unwrap();
        assert_eq!(history[0].run, last);
        assert!(history.windows(2).all(|pair| pair[0].run > pair[1].run), "{history:?}");
        after_run(rule, alerts, "orders", &history).map(|finding| finding.severity)
    }

    #[tokio::test]
    async fn as_many_runs_are_remembered_as_each_rule_counts() {
        use Severity::{Critical, Ok};
        let drift = Drift { dropped: Some(30.0), jumped: None, runs: 3, critical: false };
        let sized = Alerts { drift: Some(drift), ..Alerts::default() };
        let (success, warning, failed, guarded) = ("success", "warning", "failed", "guarded");
        for (hows, expected) in [
            (&[success, success, success, failed, success][..], Some(Ok)),
            (&[success, warning, success, failed, failed, guarded, failed, failed, success], Some(Ok)),
            (&[success, success, failed, success], None),
        ] {
            assert_eq!(found(Rule::RowsQueried, &sized, hows).await, expected, "{hows:?}");
        }
        let in_a_row = |consecutive| Alerts { consecutive, ..Alerts::default() };
        let cancelled = "cancelled";
        for (consecutive, hows, expected) in [
            (2, &[success, failed, guarded, failed][..], Some(Critical)),
            (2, &[failed, guarded, guarded, guarded, cancelled, failed], Some(Critical)),
            (2, &[failed, success, guarded, failed], None),
            (3, &[failed, guarded, failed], None),
            (1, &[failed, failed, warning], Some(Ok)),
        ] {
            let alerts = in_a_row(consecutive);
            assert_eq!(found(Rule::RunFailed, &alerts, hows).await, expected, "{consecutive}: {hows:?}");
        }
    }

    #[tokio::test]
    async fn a_long_row_of_failures_is_not_read_to_its_end() {
        let (store, _folder) = store().await;
        let mut last = ran(&store, "success").await;
        for _ in 0..BETWEEN + 20 {
            last = ran(&store, "failed").await;
        }
        let mut judging = store.judge().await.unwrap();
        let history = judging.history(1, last, &Alerts::default()).await.unwrap();
        assert_eq!(history.len(), BETWEEN as usize + 1);
    }

    #[tokio::test]
    async fn a_run_that_was_cancelled_while_it_waited_never_began() {
        let (store, _folder) = store().await;
        let begun = ran(&store, "success").await;
        let wish = Wish {
            sync_id: 1,
            sync: "orders".to_owned(),
            source_id: 1,
            destination_id: 1,
            asked: Asked::because(Cause::Api { key: "me".to_owned() }),
            ready_at: 0,
        };
        let waited = store.ask(&wish).await.unwrap().run;
        assert!(store.cancel_run(waited, &text_of_now()).await.unwrap());
        assert_eq!(store.last_begun(1).await.unwrap().map(|(run, _)| run), Some(begun));
        // One that began, and was cancelled then, counts; so does a command's.
        let command = store.begin_run(1, "orders", &text_of_now(), &Holder::this(None)).await.unwrap();
        store.end_run(command, "cancelled", &text_of_now(), "{}").await.unwrap();
        assert_eq!(store.last_begun(1).await.unwrap().map(|(run, _)| run), Some(command));
    }
}
