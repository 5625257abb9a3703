//! What the orchestrator remembers between and during runs: the history of runs, the deliveries
//! started and ended in the run in flight, and the last exchange of each rejected row.
//!
//! The warehouse alone decides what was delivered. Losing the store loses history and repeats rows;
//! it never loses one. SQLite by default, Postgres for replicas; the statements here keep to what
//! both understand.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use serde::{Deserialize, Serialize};
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{AnyConnection, AnyPool, Connection, Row};
use tokio::sync::{mpsc, oneshot};

use crate::error::{Error, ErrorCode};
use crate::project::Project;
use crate::run::Holder;

/// The store, open. Clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    pool: AnyPool,
    id: String,
    notes: mpsc::Sender<Pending>,
}

/// One batch of a delivery, said to have started, and later how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The run.
    pub run: i64,
    /// The batch's number within the run.
    pub batch: i64,
    /// The rows.
    pub rows: NotedRows,
    /// How they ended; `None` while nobody knows.
    pub end: Option<Vec<NotedException>>,
}

/// Which rows of a diff a batch holds: neighbours in the order in which the diff is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotedRows {
    /// Their operation, as the position of [`connectors::change::Operation::ALL`].
    pub operation: u8,
    /// How many rows of this operation come before the batch.
    pub start: i64,
    /// How many rows of this operation come before the batch's end.
    pub end: i64,
    /// The first row's sequence.
    pub first: i64,
    /// The last row's sequence.
    pub last: i64,
}

/// A row of an ended batch that was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotedException {
    /// Its sequence.
    pub sequence: i64,
    /// How it ended.
    pub outcome: NotedOutcome,
    /// It may have been applied all the same.
    pub in_doubt: bool,
    /// The rejection's code.
    pub code: String,
    /// The rejection's reason.
    pub reason: String,
}

impl NotedException {
    /// A row that ended so, and nobody said why.
    pub fn new(sequence: i64, outcome: NotedOutcome) -> Self {
        let in_doubt = outcome == NotedOutcome::InDoubt;
        Self { sequence, outcome, in_doubt, code: String::new(), reason: String::new() }
    }
}

/// Ends other than acceptance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotedOutcome {
    /// Refused.
    Rejected,
    /// Sent, and never answered for.
    InDoubt,
    /// Never sent.
    NotSent,
}

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

/// The last request and response of a rejected row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedExchange {
    /// The row's key.
    pub key: String,
    /// The run.
    pub run: i64,
    /// What was sent, redacted.
    pub request: String,
    /// What came back, redacted.
    pub response: String,
}

enum Pending {
    Started { note: Note, done: oneshot::Sender<Result<(), Error>> },
    Ended { run: i64, batch: i64, end: String, done: oneshot::Sender<Result<(), Error>> },
}

const MIGRATIONS: &[&str] = &[
    "create table if not exists levin_store (name text primary key, value text not null)",
    "create table if not exists levin_runs (
       id bigint primary key, sync_id bigint not null, sync text not null, status text not null,
       started_at text not null, finished_at text, report text)",
    "create index if not exists levin_runs_by_sync on levin_runs (sync_id, id)",
    "create table if not exists levin_deliveries (
       run bigint not null, batch bigint not null, rows text not null, ended text, primary key (run, batch))",
    "create table if not exists levin_notes_of (
       run bigint not null primary key, generation bigint not null, diff text not null)",
    "create table if not exists levin_holders (run bigint not null primary key, holder text not null)",
    "create table if not exists levin_generations (
       sync_id bigint not null primary key, generation bigint not null)",
    "create table if not exists levin_exchanges (
       sync_id bigint not null, key text not null, run bigint not null, request text not null, response text not null,
       primary key (sync_id, key))",
];

/// What stands for itself in an address's path.
const PATH_IN_ADDRESS: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_').remove(b'~');

/// The most exchanges that are kept of one sync.
const EXCHANGES_KEPT: i64 = 1_000;

/// How long a store may take to let somebody in.
const PATIENCE: Duration = Duration::from_secs(30);
/// What every connection to SQLite begins with.
const PRAGMAS: &[&str] =
    &["pragma journal_mode = wal", "pragma synchronous = full", "pragma busy_timeout = 10000"];

impl Store {
    /// Opens the store of a project.
    ///
    /// # Errors
    /// `LOCK_FILE_INVALID` when the store remembers the runs of another project: with another uuid every
    /// sync would begin anew, and send every row.
    pub async fn of(project: &Project) -> Result<Self, Error> {
        let store = Self::open(&project.store_url, &project.root).await?;
        let uuid = project.uuid.to_string();
        sqlx::query(
            "insert into levin_store (name, value) values ('project', $1) on conflict (name) do nothing",
        )
        .bind(&uuid)
        .execute(&store.pool)
        .await
        .map_err(failed)?;
        let owner: String = sqlx::query("select value from levin_store where name = 'project'")
            .fetch_one(&store.pool)
            .await
            .map_err(failed)?
            .get(0);
        if owner == uuid {
            return Ok(store);
        }
        Err(Error::new(
            ErrorCode::LockFileInvalid,
            format!(
                "`levin.lock.yml` says that this is project {uuid}, and the store remembers the runs of project {owner}; as another project every sync would send every row again"
            ),
        )
        .hint("take `levin.lock.yml` back from version control; a project of its own needs a `store:` of its own in `levin.yml`"))
    }

    /// Opens the store, making and migrating it as needed. `sqlite://PATH` is relative to `root`.
    pub async fn open(url: &str, root: &Path) -> Result<Self, Error> {
        sqlx::any::install_default_drivers();
        let sqlite = url.strip_prefix("sqlite://");
        let url = match sqlite {
            Some(path) => {
                let path = root.join(path);
                if let Some(folder) = path.parent() {
                    std::fs::create_dir_all(folder).map_err(|e| {
                        Error::new(
                            ErrorCode::StoreFailed,
                            format!("cannot make the folder {}: {e}", folder.display()),
                        )
                    })?;
                }
                // It is read as an address, in which a folder's spaces, `%`, `?` and `#` mean other things.
                let bytes = path.as_os_str().as_encoded_bytes();
                format!("sqlite://{}?mode=rwc", percent_encode(bytes, PATH_IN_ADDRESS))
            }
            None => url.to_owned(),
        };
        let options = AnyConnectOptions::from_str(&url).map_err(failed)?;
        let durable = sqlite.is_some();
        // A pool goes on trying for as long as it may wait, and then does not say why.
        let first = tokio::time::timeout(PATIENCE, AnyConnection::connect_with(&options)).await;
        let silence = |_| Error::new(ErrorCode::StoreFailed, "the store does not answer");
        let mut first = first.map_err(silence)?.map_err(failed)?;
        if durable {
            for pragma in PRAGMAS {
                sqlx::query(*pragma).execute(&mut first).await.map_err(failed)?;
            }
        }
        // Through the one connection that is there: a pool opens a second one while the first is on its way back,
        // and where the server has no second one it waits for that until its patience ends, statement by statement.
        for statement in MIGRATIONS {
            // Of two who make the same table at once, Postgres refuses one; the second time it is there.
            if sqlx::query(*statement).execute(&mut first).await.is_err() {
                sqlx::query(*statement).execute(&mut first).await.map_err(failed)?;
            }
        }
        sqlx::query("insert into levin_store (name, value) values ('id', $1) on conflict (name) do nothing")
            .bind(uuid::Uuid::new_v4().to_string())
            .execute(&mut first)
            .await
            .map_err(failed)?;
        let id: String = sqlx::query("select value from levin_store where name = 'id'")
            .fetch_one(&mut first)
            .await
            .map_err(failed)?
            .get(0);
        first.close().await.map_err(failed)?;
        let pool = pool_options()
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    if durable {
                        for pragma in PRAGMAS {
                            sqlx::query(*pragma).execute(&mut *connection).await?;
                        }
                    }
                    Ok(())
                })
            })
            .connect_with(options)
            .await
            .map_err(failed)?;
        let (notes, pending) = mpsc::channel(1_024);
        tokio::spawn(write_notes(pool.clone(), pending));
        Ok(Self { pool, id, notes })
    }

    /// Names this store, so that a warehouse can tell whose notes belong to a delivery.
    pub fn id(&self) -> &str {
        &self.id
    }

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

    /// Runs of this sync that still say `running`, although another one now holds its lease.
    pub async fn mark_interrupted(&self, sync_id: i64, but: i64, finished_at: &str) -> Result<(), Error> {
        exchange()?;
        sqlx::query(
            "update levin_runs set status = 'interrupted', finished_at = $1
             where sync_id = $2 and status = 'running' and id < $3",
        )
        .bind(finished_at)
        .bind(sync_id)
        .bind(but)
        .execute(&self.pool)
        .await
        .map(drop)
        .map_err(failed)
    }

    /// Drops the notes of every other run of a sync, whose lease the run now holds: what they proved is
    /// committed, and a run that ended between its commit and forgetting left them behind.
    pub async fn forget_others(&self, sync_id: i64, but: i64) -> Result<(), Error> {
        exchange()?;
        for delete in [
            "delete from levin_deliveries where run <> $2
             and exists (select 1 from levin_runs r where r.id = run and r.sync_id = $1)",
            "delete from levin_notes_of where run <> $2
             and exists (select 1 from levin_runs r where r.id = run and r.sync_id = $1)",
            "delete from levin_holders where run < $2
             and exists (select 1 from levin_runs r where r.id = run and r.sync_id = $1)",
        ] {
            sqlx::query(delete).bind(sync_id).bind(but).execute(&self.pool).await.map_err(failed)?;
        }
        Ok(())
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

    /// Says durably that a batch is about to leave. Nothing may be sent before this returns.
    pub async fn start(&self, note: Note) -> Result<(), Error> {
        fail::fail_point!("store.start");
        let (done, answer) = oneshot::channel();
        self.write(Pending::Started { note, done }, answer).await?.await
    }

    /// Says durably how a batch ended.
    pub async fn end(&self, run: i64, batch: i64, exceptions: &[NotedException]) -> Result<(), Error> {
        self.ending(run, batch, exceptions).await?.await
    }

    /// The same in two parts: once this returns, whatever is noted later is durable later, and what it returns
    /// is done when this is durable too.
    pub async fn ending(
        &self,
        run: i64,
        batch: i64,
        exceptions: &[NotedException],
    ) -> Result<impl Future<Output = Result<(), Error>> + Send + use<>, Error> {
        fail::fail_point!("store.end");
        let end = serde_json::to_string(exceptions)
            .map_err(|e| Error::new(ErrorCode::Internal, format!("cannot write a note: {e}")))?;
        let (done, answer) = oneshot::channel();
        self.write(Pending::Ended { run, batch, end, done }, answer).await
    }

    async fn write(
        &self,
        pending: Pending,
        answer: oneshot::Receiver<Result<(), Error>>,
    ) -> Result<impl Future<Output = Result<(), Error>> + Send + use<>, Error> {
        let gone = || Error::new(ErrorCode::StoreFailed, "the store is closed");
        self.notes.send(pending).await.map_err(|_| gone())?;
        Ok(async move { answer.await.map_err(|_| gone())? })
    }

    /// Every note of a run, in the order of its batches.
    pub async fn notes(&self, run: i64) -> Result<Vec<Note>, Error> {
        exchange()?;
        let rows =
            sqlx::query("select batch, rows, ended from levin_deliveries where run = $1 order by batch")
                .bind(run)
                .fetch_all(&self.pool)
                .await
                .map_err(failed)?;
        rows.iter()
            .map(|row| {
                let broken =
                    |e| Error::new(ErrorCode::StoreFailed, format!("a note of run {run} is broken: {e}"));
                let end = row.get::<Option<String>, _>(2);
                Ok(Note {
                    run,
                    batch: row.get(0),
                    rows: serde_json::from_str(&row.get::<String, _>(1)).map_err(broken)?,
                    end: end.map(|text| serde_json::from_str(&text)).transpose().map_err(broken)?,
                })
            })
            .collect()
    }

    /// Remembers the newest generation of a sync, for the day that the warehouse forgets it.
    pub async fn took_generation(&self, sync_id: i64, generation: i64) -> Result<(), Error> {
        exchange()?;
        sqlx::query(
            "insert into levin_generations (sync_id, generation) values ($1, $2)
             on conflict (sync_id) do update set generation = excluded.generation",
        )
        .bind(sync_id)
        .bind(generation)
        .execute(&self.pool)
        .await
        .map(drop)
        .map_err(failed)
    }

    /// The newest generation of a sync that this store knows of; 0 when it knows of none.
    pub async fn last_generation(&self, sync_id: i64) -> Result<i64, Error> {
        exchange()?;
        sqlx::query("select generation from levin_generations where sync_id = $1")
            .bind(sync_id)
            .fetch_optional(&self.pool)
            .await
            .map(|row| row.map_or(0, |row| row.get(0)))
            .map_err(failed)
    }

    /// Says durably whose notes those of a run will be: of the delivery of this diff under this
    /// generation. A run's number alone does not tell: a store that comes from a backup gives it again.
    pub async fn begin_notes(&self, run: i64, generation: i64, diff: &str) -> Result<(), Error> {
        exchange()?;
        fail::fail_point!("store.begin_notes");
        sqlx::query(
            "insert into levin_notes_of (run, generation, diff) values ($1, $2, $3)
             on conflict (run) do update set generation = excluded.generation, diff = excluded.diff",
        )
        .bind(run)
        .bind(generation)
        .bind(diff)
        .execute(&self.pool)
        .await
        .map(drop)
        .map_err(failed)
    }

    /// Whether this store holds the notes of that delivery; without them nothing is known of it.
    pub async fn holds_notes(&self, run: i64, generation: i64, diff: &str) -> Result<bool, Error> {
        exchange()?;
        sqlx::query("select 1 from levin_notes_of where run = $1 and generation = $2 and diff = $3")
            .bind(run)
            .bind(generation)
            .bind(diff)
            .fetch_optional(&self.pool)
            .await
            .map(|row| row.is_some())
            .map_err(failed)
    }

    /// Forgets notes whose rows are committed: all of a run, or some batches of it.
    pub async fn forget(&self, run: i64, batches: Option<&[i64]>) -> Result<(), Error> {
        exchange()?;
        fail::fail_point!("store.forget");
        let mut transaction = self.pool.begin().await.map_err(failed)?;
        match batches {
            None => {
                for delete in [
                    "delete from levin_deliveries where run = $1",
                    "delete from levin_notes_of where run = $1",
                ] {
                    sqlx::query(delete).bind(run).execute(&mut *transaction).await.map_err(failed)?;
                }
            }
            Some(batches) => {
                for batch in batches {
                    sqlx::query("delete from levin_deliveries where run = $1 and batch = $2")
                        .bind(run)
                        .bind(*batch)
                        .execute(&mut *transaction)
                        .await
                        .map_err(failed)?;
                }
            }
        }
        transaction.commit().await.map_err(failed)
    }

    /// Keeps the last exchange of rejected rows; the oldest make room.
    pub async fn keep_exchanges(&self, sync_id: i64, exchanges: &[RejectedExchange]) -> Result<(), Error> {
        exchange()?;
        if exchanges.is_empty() {
            return Ok(());
        }
        let mut transaction = self.pool.begin().await.map_err(failed)?;
        for exchange in exchanges {
            sqlx::query(
                "insert into levin_exchanges (sync_id, key, run, request, response) values ($1, $2, $3, $4, $5)
                 on conflict (sync_id, key) do update
                 set run = excluded.run, request = excluded.request, response = excluded.response",
            )
            .bind(sync_id)
            .bind(&exchange.key)
            .bind(exchange.run)
            .bind(&exchange.request)
            .bind(&exchange.response)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        }
        sqlx::query(
            "delete from levin_exchanges where sync_id = $1 and key not in
             (select key from levin_exchanges where sync_id = $1 order by run desc, key limit $2)",
        )
        .bind(sync_id)
        .bind(EXCHANGES_KEPT)
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
        transaction.commit().await.map_err(failed)
    }

    /// The last exchange of a rejected row.
    pub async fn exchange(&self, sync_id: i64, key: &str) -> Result<Option<RejectedExchange>, Error> {
        let row =
            sqlx::query("select run, request, response from levin_exchanges where sync_id = $1 and key = $2")
                .bind(sync_id)
                .bind(key)
                .fetch_optional(&self.pool)
                .await
                .map_err(failed)?;
        Ok(row.map(|row| RejectedExchange {
            key: key.to_owned(),
            run: row.get(0),
            request: row.get(1),
            response: row.get(2),
        }))
    }
}

/// Writes notes in groups: what waits while one transaction commits goes into the next.
async fn write_notes(pool: AnyPool, mut pending: mpsc::Receiver<Pending>) {
    let mut group = Vec::new();
    while pending.recv_many(&mut group, 512).await > 0 {
        let result = write_group(&pool, &group).await;
        for item in group.drain(..) {
            let (Pending::Started { done, .. } | Pending::Ended { done, .. }) = item;
            // Whoever no longer waits has given up on the run.
            let _ = done.send(result.clone());
        }
    }
}

async fn write_group(pool: &AnyPool, group: &[Pending]) -> Result<(), Error> {
    exchange()?;
    let mut transaction = pool.begin().await.map_err(failed)?;
    for item in group {
        match item {
            Pending::Started { note, .. } => {
                let rows = serde_json::to_string(&note.rows)
                    .map_err(|e| Error::new(ErrorCode::Internal, format!("cannot write a note: {e}")))?;
                sqlx::query("insert into levin_deliveries (run, batch, rows) values ($1, $2, $3)")
                    .bind(note.run)
                    .bind(note.batch)
                    .bind(rows)
                    .execute(&mut *transaction)
                    .await
                    .map_err(failed)?;
            }
            Pending::Ended { run, batch, end, .. } => {
                sqlx::query("update levin_deliveries set ended = $1 where run = $2 and batch = $3")
                    .bind(end)
                    .bind(*run)
                    .bind(*batch)
                    .execute(&mut *transaction)
                    .await
                    .map_err(failed)?;
            }
        }
    }
    transaction.commit().await.map_err(failed)?;
    // Written, and its answer lost.
    exchange()
}

/// Where a test can make an exchange with the store fail; nothing in a build without the feature `failpoints`.
#[cfg_attr(not(feature = "failpoints"), expect(clippy::unnecessary_wraps, reason = "see above"))]
fn exchange() -> Result<(), Error> {
    #[cfg(feature = "failpoints")]
    if crate::failpoints::fails().is_some() {
        return Err(Error::new(ErrorCode::StoreFailed, "the store failed: a test wanted it to"));
    }
    Ok(())
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function in map_err")]
fn failed(error: sqlx::Error) -> Error {
    Error::new(ErrorCode::StoreFailed, format!("the store failed: {error}"))
}

/// How connections are kept: for as long as the store is open. The pool's task that closes old ones counts those that
/// are idle, and when that count and its own taking and giving back cross, it goes round in a circle for ever and no process ends
/// (sqlx issue 3645, mended after 0.9.0). Without a limit to their age there is no such task.
fn pool_options() -> AnyPoolOptions {
    AnyPoolOptions::new().max_connections(4).acquire_timeout(PATIENCE).idle_timeout(None).max_lifetime(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_has_no_task_that_could_go_round_for_ever() {
        let options = pool_options();
        let limits = (options.get_idle_timeout(), options.get_max_lifetime(), options.get_min_connections());
        assert_eq!(limits, (None, None, 0));
    }
}
