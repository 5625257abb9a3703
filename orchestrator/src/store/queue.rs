//! Runs that wait and runs that go on, of every replica: who asked for them, and who executes them.
//!
//! Every change takes one row of the store first, so that of several replicas one decides at a time. A run is
//! in the history before whoever asked for it hears its number.

use std::collections::{HashMap, HashSet};

use serde::Serialize;
use serde_json::Value;
use sqlx::{Any, AnyConnection, Row, Transaction};

use super::asked::{Asked, Cause};
use super::{Store, exchange, failed};
use crate::error::{Error, ErrorCode};
use crate::run::{Stage, Start};

/// A sync that is to run.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The sync's number.
    pub sync_id: i64,
    /// Its slug.
    pub sync: String,
    /// The number of its source, by which runs are limited.
    pub source_id: i64,
    /// The number of its destination, likewise.
    pub destination_id: i64,
    /// What is asked.
    pub asked: Asked,
    /// Not before this moment, in milliseconds since 1970.
    pub ready_at: i64,
}

/// A tick of a schedule.
#[derive(Debug, Clone)]
pub struct Due {
    /// Whose: `sync:7`, `sequence:2`.
    pub object: String,
    /// The schedule as it is written: another one counts anew.
    pub schedule: String,
    /// The moment, in milliseconds since 1970.
    pub tick: i64,
    /// Nobody has seen a tick of it so far. Of several replicas that begin at once one says from when it counts.
    pub first: bool,
    /// What is to run.
    pub what: What,
}

/// What a tick, or the end of a run, starts.
#[derive(Debug, Clone)]
pub enum What {
    /// A sync.
    Sync(Wish),
    /// A sequence.
    Sequence(super::SequenceWish),
    /// Nothing: from here on ticks count.
    Nothing,
}

/// What became of a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fired {
    /// This run serves it.
    Placed(Placed),
    /// It counts; what it starts is no run of a sync.
    Noted,
    /// Somebody else brought it, or a later one: the last one that counts, in milliseconds since 1970.
    Lost {
        /// The moment.
        last: i64,
    },
}

/// Where a wish came to stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// The run that serves it.
    pub run: i64,
    /// The run was there before, waiting.
    pub joined: bool,
}

/// A run that this replica is to execute.
#[derive(Debug, Clone, PartialEq)]
pub struct Claimed {
    /// Its number.
    pub run: i64,
    /// The sync's number.
    pub sync_id: i64,
    /// What was asked, and is still to be done.
    pub asked: Asked,
    /// Another replica began it and is gone.
    pub taken_over: bool,
    /// What the run came to before it was handed back.
    pub earlier: Option<Value>,
}

/// By how many milliseconds the clocks of replicas may differ.
pub const CLOCKS_DIFFER: i64 = 60_000;

/// How many runs may go on at once, and of which syncs.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// Only these: a replica that has not read a sync yet leaves its runs to others. `None`: of all.
    pub syncs: Option<HashSet<i64>>,
    /// Per source that has a limit, on all replicas together.
    pub sources: HashMap<i64, usize>,
    /// Per destination.
    pub destinations: HashMap<i64, usize>,
}

/// A run that waits or goes on.
#[derive(Debug, Clone, PartialEq)]
pub struct Underway {
    /// Its number.
    pub run: i64,
    /// The sync's number.
    pub sync_id: i64,
    /// What was asked.
    pub asked: Asked,
    /// Who executes it; `None`: it waits.
    pub replica: Option<String>,
    /// The stage it is in.
    pub stage: Option<Stage>,
    /// Rows that have ended, of those that will be sent.
    pub done: i64,
    /// Rows that will be sent; 0 before that is known.
    pub total: i64,
}

/// How a run ended, for the store.
#[derive(Debug, Clone)]
pub struct Ending<'a> {
    /// The run.
    pub run: i64,
    /// Who executed it.
    pub replica: &'a str,
    /// The word of its status.
    pub status: &'a str,
    /// When, RFC 3339.
    pub finished_at: &'a str,
    /// Its report, as JSON.
    pub report: &'a str,
    /// It went through, so whatever follows it is due: each with all the syncs that it follows.
    pub followers: &'a [(What, Vec<i64>)],
}

/// Now, in milliseconds since 1970.
pub fn now() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

impl Store {
    /// Begins to change the queue: nobody else does until this ends.
    pub(super) async fn deciding(&self) -> Result<Transaction<'static, Any>, Error> {
        exchange()?;
        let mut transaction = self.pool.begin().await.map_err(failed)?;
        sqlx::query("update levin_store set value = value where name = 'id'")
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        Ok(transaction)
    }

    /// Asks for a run. Where one waits that does the same, or that and more, it serves both.
    ///
    /// # Errors
    /// `SYNC_BUSY` when a run waits that starts over, and this is to start another way. To send what differs is always
    /// possible.
    pub async fn ask(&self, wish: &Wish) -> Result<Placed, Error> {
        let mut transaction = self.deciding().await?;
        let placed = place(&mut transaction, wish).await?;
        transaction.commit().await.map_err(failed)?;
        Ok(placed)
    }

    /// The same, once for each key of the caller's: who asks again with the same key hears the same number.
    ///
    /// # Errors
    /// `USAGE` when the key was used for another question.
    pub async fn ask_once(&self, wish: &Wish, key: &str, digest: &str) -> Result<Placed, Error> {
        let mut transaction = self.deciding().await?;
        if let Some(placed) = answered(&mut transaction, key, digest).await? {
            return Ok(placed);
        }
        let placed = place(&mut transaction, wish).await?;
        sqlx::query("insert into levin_answers (name, digest, answer, created_at) values ($1, $2, $3, $4)")
            .bind(key)
            .bind(digest)
            .bind(placed.run.to_string())
            .bind(now())
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(placed)
    }

    /// What a caller's key was answered before; `None` for a new one.
    ///
    /// # Errors
    /// `USAGE` when the key was used for another question.
    pub async fn answered(&self, key: &str, digest: &str) -> Result<Option<Placed>, Error> {
        answered(&mut *self.pool.acquire().await.map_err(failed)?, key, digest).await
    }

    /// Turns ticks into runs. Of several replicas that bring the same tick the first one does it. A tick that lies in the
    /// future, of a clock that was wrong, stands in nobody's way.
    pub async fn fire(&self, dues: &[Due]) -> Result<Vec<Fired>, Error> {
        let mut transaction = self.deciding().await?;
        let mut fired = Vec::with_capacity(dues.len());
        for due in dues {
            let tick = if due.first {
                "insert into levin_ticks (object, schedule, last) values ($1, $2, $3)
                 on conflict (object) do update set schedule = excluded.schedule, last = excluded.last
                 where levin_ticks.last > $4"
            } else {
                "insert into levin_ticks (object, schedule, last) values ($1, $2, $3)
                 on conflict (object) do update set schedule = excluded.schedule, last = excluded.last
                 where levin_ticks.last < excluded.last or levin_ticks.last > $4"
            };
            let won = sqlx::query(tick)
                .bind(&due.object)
                .bind(&due.schedule)
                .bind(due.tick)
                .bind(now() + CLOCKS_DIFFER)
                .execute(&mut *transaction)
                .await
                .map_err(failed)?
                .rows_affected();
            fired.push(match &due.what {
                _ if won == 0 => {
                    let last = sqlx::query("select last from levin_ticks where object = $1")
                        .bind(&due.object)
                        .fetch_one(&mut *transaction)
                        .await
                        .map_err(failed)?;
                    Fired::Lost { last: last.get(0) }
                }
                What::Nothing => Fired::Noted,
                What::Sync(wish) => Fired::Placed(place(&mut transaction, wish).await?),
                What::Sequence(wish) => {
                    super::sequences::begin(&mut transaction, wish).await?;
                    Fired::Noted
                }
            });
        }
        transaction.commit().await.map_err(failed)?;
        Ok(fired)
    }

    /// The last tick of every schedule that became a run: object → schedule as it was, and the moment.
    pub async fn ticks(&self) -> Result<HashMap<String, (String, i64)>, Error> {
        let rows = sqlx::query("select object, schedule, last from levin_ticks")
            .fetch_all(&self.pool)
            .await
            .map_err(failed)?;
        Ok(rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect())
    }

    /// Takes up to so many runs to execute: those whose replica is gone first, then the oldest that wait, as far
    /// as one run per sync and the limits allow. `executing` are those that this replica has taken: one that is its
    /// own and not among them was taken by a claim whose answer was lost.
    pub async fn claim(
        &self,
        replica: &str,
        room: usize,
        limits: &Limits,
        gone: &[String],
        executing: &HashSet<i64>,
    ) -> Result<Vec<Claimed>, Error> {
        // Most of the time nothing waits: looking costs less than deciding.
        if room == 0 || (gone.is_empty() && !self.anything_waits(replica, executing).await?) {
            return Ok(Vec::new());
        }
        let mut transaction = self.deciding().await?;
        let rows = sqlx::query(
            "select run, sync_id, source_id, destination_id, asked, replica, ready_at, begun
             from levin_queue order by run",
        )
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed)?;
        let (mut sources, mut destinations) = (HashMap::<i64, usize>::new(), HashMap::<i64, usize>::new());
        let mut running = HashSet::new();
        let (mut left, mut waiting) = (Vec::new(), Vec::new());
        let knows = |sync: i64| limits.syncs.as_ref().is_none_or(|syncs| syncs.contains(&sync));
        for row in &rows {
            let holder: Option<String> = row.get(5);
            match holder {
                Some(holder) => {
                    *sources.entry(row.get(2)).or_default() += 1;
                    *destinations.entry(row.get(3)).or_default() += 1;
                    running.insert(row.get::<i64, _>(1));
                    let lost = holder == replica && !executing.contains(&row.get(0));
                    if lost || gone.contains(&holder) {
                        left.push(row);
                    }
                }
                None => waiting.push(row),
            }
        }
        let (mut claimed, now) = (Vec::new(), now());
        for (row, taken_over) in
            left.iter().map(|row| (row, true)).chain(waiting.iter().map(|row| (row, false)))
        {
            if claimed.len() >= room {
                break;
            }
            let (run, sync_id): (i64, i64) = (row.get(0), row.get(1));
            let (source, destination): (i64, i64) = (row.get(2), row.get(3));
            if !knows(sync_id) {
                continue;
            }
            if !taken_over {
                let full = |limits: &HashMap<i64, usize>, taken: &HashMap<i64, usize>, id: i64| {
                    limits.get(&id).is_some_and(|limit| taken.get(&id).is_some_and(|taken| taken >= limit))
                };
                let waits = row.get::<i64, _>(6) > now
                    || running.contains(&sync_id)
                    || full(&limits.sources, &sources, source)
                    || full(&limits.destinations, &destinations, destination);
                if waits {
                    continue;
                }
                *sources.entry(source).or_default() += 1;
                *destinations.entry(destination).or_default() += 1;
                running.insert(sync_id);
            }
            sqlx::query("update levin_queue set replica = $1, stage = null where run = $2")
                .bind(replica)
                .bind(run)
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
            let earlier = sqlx::query("select report from levin_runs where id = $1 and report is not null")
                .bind(run)
                .fetch_optional(&mut *transaction)
                .await
                .map_err(failed)?;
            let earlier = earlier.and_then(|row| serde_json::from_str(&row.get::<String, _>(0)).ok());
            let asked = still_to_do(row.get(4), row.get(7))?;
            claimed.push(Claimed { run, sync_id, asked, taken_over, earlier });
        }
        transaction.commit().await.map_err(failed)?;
        Ok(claimed)
    }

    async fn anything_waits(&self, replica: &str, executing: &HashSet<i64>) -> Result<bool, Error> {
        let waits = sqlx::query("select 1 from levin_queue where replica is null and ready_at <= $1 limit 1")
            .bind(now())
            .fetch_optional(&self.pool)
            .await
            .map_err(failed)?;
        let taken = sqlx::query("select run from levin_queue where replica = $1")
            .bind(replica)
            .fetch_all(&self.pool)
            .await
            .map_err(failed)?;
        Ok(waits.is_some() || taken.iter().any(|row| !executing.contains(&row.get(0))))
    }

    /// Says durably that a run has started over in the warehouse: whoever goes on with it does not do so again.
    pub async fn begun(&self, run: i64) -> Result<(), Error> {
        exchange()?;
        sqlx::query("update levin_queue set begun = 1 where run = $1")
            .bind(run)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(failed)
    }

    /// How far a run is.
    pub async fn progress(&self, run: i64, stage: Stage, done: u64, total: u64) -> Result<(), Error> {
        sqlx::query("update levin_queue set stage = $1, done = $2, total = $3 where run = $4")
            .bind(stage.name())
            .bind(i64::try_from(done).unwrap_or(i64::MAX))
            .bind(i64::try_from(total).unwrap_or(i64::MAX))
            .bind(run)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(failed)
    }

    /// Ends a run, and in the same step queues what follows it. `None` when another replica has taken it over;
    /// else the runs that follow.
    pub async fn finish(&self, ending: &Ending<'_>) -> Result<Option<Vec<Placed>>, Error> {
        fail::fail_point!("store.finish");
        let mut transaction = self.deciding().await?;
        let mine = sqlx::query("delete from levin_queue where run = $1 and replica = $2")
            .bind(ending.run)
            .bind(ending.replica)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?
            .rows_affected();
        if mine == 0 {
            return Ok(None);
        }
        end(&mut transaction, ending.run, ending.status, ending.finished_at, Some(ending.report)).await?;
        let mut placed = Vec::new();
        for (what, parents) in ending.followers {
            if let Some(run) = super::follow::follow(&mut transaction, what, parents, ending.run).await? {
                placed.push(run);
            }
        }
        transaction.commit().await.map_err(failed)?;
        Ok(Some(placed))
    }

    /// Gives a run that was stopped in the middle back to the queue, for whichever replica comes next: before any
    /// other run of the sync that waits. `report` is what it came to so far, as JSON.
    pub async fn hand_back(&self, run: i64, replica: &str, report: &str) -> Result<(), Error> {
        let mut transaction = self.deciding().await?;
        let mine = "update levin_queue set replica = null, stage = null where run = $1 and replica = $2";
        let mine = sqlx::query(mine)
            .bind(run)
            .bind(replica)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?
            .rows_affected();
        if mine == 1 {
            sqlx::query("update levin_runs set status = 'queued', report = $1 where id = $2")
                .bind(report)
                .bind(run)
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)
    }

    /// Cancels a run: at once when it waits, else by asking its replica. `false` when it is over.
    pub async fn cancel_run(&self, run: i64, finished_at: &str) -> Result<bool, Error> {
        let mut transaction = self.deciding().await?;
        let waiting = sqlx::query("delete from levin_queue where run = $1 and replica is null")
            .bind(run)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?
            .rows_affected();
        if waiting == 1 {
            end(&mut transaction, run, "cancelled", finished_at, None).await?;
            transaction.commit().await.map_err(failed)?;
            return Ok(true);
        }
        let asked = sqlx::query("update levin_queue set cancel = 1 where run = $1")
            .bind(run)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?
            .rows_affected();
        transaction.commit().await.map_err(failed)?;
        Ok(asked == 1)
    }

    /// Runs of this replica that somebody wants to end.
    pub async fn asked_to_cancel(&self, replica: &str) -> Result<Vec<i64>, Error> {
        let rows = sqlx::query("select run from levin_queue where replica = $1 and cancel = 1")
            .bind(replica)
            .fetch_all(&self.pool)
            .await
            .map_err(failed)?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Every run that waits or goes on.
    pub async fn underway(&self) -> Result<Vec<Underway>, Error> {
        let rows = sqlx::query(
            "select run, sync_id, asked, replica, stage, done, total from levin_queue order by run",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        rows.iter()
            .map(|row| {
                Ok(Underway {
                    run: row.get(0),
                    sync_id: row.get(1),
                    asked: read_asked(row.get(2))?,
                    replica: row.get(3),
                    stage: row.get::<Option<String>, _>(4).and_then(|name| Stage::of_name(&name)),
                    done: row.get(5),
                    total: row.get(6),
                })
            })
            .collect()
    }
}

fn read_asked(text: String) -> Result<Asked, Error> {
    serde_json::from_str(&text)
        .map_err(|e| Error::new(ErrorCode::StoreFailed, format!("what a run was asked cannot be read: {e}")))
}

/// What is left of what a run was asked: one that has started over already goes on with what differs.
fn still_to_do(asked: String, begun: i64) -> Result<Asked, Error> {
    let asked = read_asked(asked)?;
    let start = if begun != 0 && asked.approve.is_none() { Start::Incremental } else { asked.start };
    Ok(Asked { start, ..asked })
}

fn written<T: Serialize>(value: &T) -> Result<String, Error> {
    serde_json::to_string(value)
        .map_err(|e| Error::new(ErrorCode::Internal, format!("what a run is asked cannot be written: {e}")))
}

async fn answered(connection: &mut AnyConnection, key: &str, digest: &str) -> Result<Option<Placed>, Error> {
    let known = sqlx::query("select digest, answer from levin_answers where name = $1")
        .bind(key)
        .fetch_optional(connection)
        .await
        .map_err(failed)?;
    let Some(row) = known else { return Ok(None) };
    if row.get::<String, _>(0) != digest {
        let message = "this Idempotency-Key was used for another request";
        return Err(Error::new(ErrorCode::Usage, message).hint("use a new key for each request"));
    }
    Ok(Some(Placed { run: row.get::<String, _>(1).parse().unwrap_or_default(), joined: true }))
}

/// Queues a run, or joins one that waits. At most one waits that starts over or sends a plan, and one that does neither.
pub(super) async fn place(connection: &mut AnyConnection, wish: &Wish) -> Result<Placed, Error> {
    super::follow::count_anew(connection, &format!("sync:{}", wish.sync_id)).await?;
    let waiting = sqlx::query(
        "select run, asked, begun from levin_queue where sync_id = $1 and replica is null order by run",
    )
    .bind(wish.sync_id)
    .fetch_all(&mut *connection)
    .await
    .map_err(failed)?;
    let mut other = None;
    for row in &waiting {
        let run: i64 = row.get(0);
        let joined = match still_to_do(row.get(1), row.get(2))?.joined(&wish.asked) {
            Ok(joined) => joined,
            Err(asked) => {
                other = other.or((!asked.is_plain()).then_some(run));
                continue;
            }
        };
        sqlx::query(
            "update levin_queue set asked = $1, begun = 0,
             ready_at = case when ready_at < $2 then ready_at else $2 end where run = $3",
        )
        .bind(written(&joined)?)
        .bind(wish.ready_at)
        .bind(run)
        .execute(&mut *connection)
        .await
        .map_err(failed)?;
        note_causes(connection, run, &joined.causes).await?;
        return Ok(Placed { run, joined: true });
    }
    if let Some(run) = other.filter(|_| !wish.asked.is_plain()) {
        let message = format!("run {run} of sync `{}` waits, and starts another way", wish.sync);
        return Err(Error::new(ErrorCode::SyncBusy, message)
            .hint("wait until it has begun, or cancel it, and ask again"));
    }
    let created = super::text_of_now();
    let run: i64 = loop {
        // A command may take a number at the same moment: it does not decide about the queue. Nothing is
        // inserted then, where an error would end the transaction.
        let row = sqlx::query(
            "insert into levin_runs (id, sync_id, sync, status, started_at, created_at, causes)
             select coalesce(max(id), 0) + 1, $1, $2, 'queued', $3, $3, $4 from levin_runs where true
             on conflict (id) do nothing returning id",
        )
        .bind(wish.sync_id)
        .bind(&wish.sync)
        .bind(&created)
        .bind(written(&wish.asked.causes)?)
        .fetch_optional(&mut *connection)
        .await
        .map_err(failed)?;
        if let Some(row) = row {
            break row.get(0);
        }
    };
    sqlx::query(
        "insert into levin_queue (run, sync_id, source_id, destination_id, asked, ready_at)
         values ($1, $2, $3, $4, $5, $6)",
    )
    .bind(run)
    .bind(wish.sync_id)
    .bind(wish.source_id)
    .bind(wish.destination_id)
    .bind(written(&wish.asked)?)
    .bind(wish.ready_at)
    .execute(&mut *connection)
    .await
    .map_err(failed)?;
    Ok(Placed { run, joined: false })
}

async fn note_causes(connection: &mut AnyConnection, run: i64, causes: &[Cause]) -> Result<(), Error> {
    sqlx::query("update levin_runs set causes = $1 where id = $2")
        .bind(written(&causes)?)
        .bind(run)
        .execute(connection)
        .await
        .map(drop)
        .map_err(failed)
}

async fn end(
    connection: &mut AnyConnection,
    run: i64,
    status: &str,
    finished_at: &str,
    report: Option<&str>,
) -> Result<(), Error> {
    sqlx::query("delete from levin_holders where run = $1")
        .bind(run)
        .execute(&mut *connection)
        .await
        .map_err(failed)?;
    sqlx::query(
        "update levin_runs set status = $1, finished_at = $2, report = coalesce($3, report) where id = $4",
    )
    .bind(status)
    .bind(finished_at)
    .bind(report)
    .bind(run)
    .execute(connection)
    .await
    .map(drop)
    .map_err(failed)
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
