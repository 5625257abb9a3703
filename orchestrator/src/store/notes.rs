//! The deliveries of the runs in flight, started and ended; and the last exchange of each rejected row.

use serde::{Deserialize, Serialize};
use sqlx::{AnyPool, Row};
use tokio::sync::{mpsc, oneshot};

use super::{Store, exchange, failed};
use crate::error::{Error, ErrorCode};

/// Names a delivery. A run that was taken over delivers again under a generation of its own: what the one before it
/// still writes must not touch the notes of the one that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryId {
    /// The run.
    pub run: i64,
    /// The generation of the lease under which it delivers.
    pub generation: i64,
}

/// One batch of a delivery, said to have started, and later how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The delivery.
    pub of: DeliveryId,
    /// The batch's number within the delivery.
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

pub(super) enum Pending {
    Started { note: Note, done: oneshot::Sender<Result<(), Error>> },
    Ended { of: DeliveryId, batch: i64, end: String, done: oneshot::Sender<Result<(), Error>> },
}

/// The most exchanges that are kept of one sync.
const EXCHANGES_KEPT: i64 = 1_000;

impl Store {
    /// Says durably that a batch is about to leave. Nothing may be sent before this returns.
    pub async fn start(&self, note: Note) -> Result<(), Error> {
        fail::fail_point!("store.start");
        let (done, answer) = oneshot::channel();
        self.write(Pending::Started { note, done }, answer).await?.await
    }

    /// Says durably how a batch ended.
    pub async fn end(&self, of: DeliveryId, batch: i64, exceptions: &[NotedException]) -> Result<(), Error> {
        self.ending(of, batch, exceptions).await?.await
    }

    /// The same in two parts: once this returns, whatever is noted later is durable later, and what it returns
    /// is done when this is durable too.
    pub async fn ending(
        &self,
        of: DeliveryId,
        batch: i64,
        exceptions: &[NotedException],
    ) -> Result<impl Future<Output = Result<(), Error>> + Send + use<>, Error> {
        fail::fail_point!("store.end");
        let end = serde_json::to_string(exceptions)
            .map_err(|e| Error::new(ErrorCode::Internal, format!("cannot write a note: {e}")))?;
        let (done, answer) = oneshot::channel();
        self.write(Pending::Ended { of, batch, end, done }, answer).await
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

    /// Every note of a delivery, in the order of its batches.
    pub async fn notes(&self, of: DeliveryId) -> Result<Vec<Note>, Error> {
        exchange()?;
        let rows = sqlx::query(
            "select batch, rows, ended from levin_deliveries where run = $1 and generation = $2 order by batch",
        )
        .bind(of.run)
        .bind(of.generation)
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        rows.iter()
            .map(|row| {
                let broken = |e| {
                    Error::new(ErrorCode::StoreFailed, format!("a note of run {} is broken: {e}", of.run))
                };
                let end = row.get::<Option<String>, _>(2);
                Ok(Note {
                    of,
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

    /// Says durably that there will be notes of this delivery, of this diff. Its number alone does not tell: a store
    /// that comes from a backup gives it again.
    pub async fn begin_notes(&self, of: DeliveryId, diff: &str) -> Result<(), Error> {
        exchange()?;
        fail::fail_point!("store.begin_notes");
        sqlx::query(
            "insert into levin_notes_of (run, generation, diff) values ($1, $2, $3)
             on conflict (run, generation) do update set diff = excluded.diff",
        )
        .bind(of.run)
        .bind(of.generation)
        .bind(diff)
        .execute(&self.pool)
        .await
        .map(drop)
        .map_err(failed)
    }

    /// Whether this store holds the notes of that delivery; without them nothing is known of it.
    pub async fn holds_notes(&self, of: DeliveryId, diff: &str) -> Result<bool, Error> {
        exchange()?;
        sqlx::query("select 1 from levin_notes_of where run = $1 and generation = $2 and diff = $3")
            .bind(of.run)
            .bind(of.generation)
            .bind(diff)
            .fetch_optional(&self.pool)
            .await
            .map(|row| row.is_some())
            .map_err(failed)
    }

    /// Forgets notes whose rows are committed: all of a delivery, or some batches of it.
    pub async fn forget(&self, of: DeliveryId, batches: Option<&[i64]>) -> Result<(), Error> {
        exchange()?;
        fail::fail_point!("store.forget");
        let mut transaction = self.pool.begin().await.map_err(failed)?;
        match batches {
            None => {
                for delete in [
                    "delete from levin_deliveries where run = $1 and generation = $2",
                    "delete from levin_notes_of where run = $1 and generation = $2",
                ] {
                    sqlx::query(delete)
                        .bind(of.run)
                        .bind(of.generation)
                        .execute(&mut *transaction)
                        .await
                        .map_err(failed)?;
                }
            }
            Some(batches) => {
                for batch in batches {
                    sqlx::query(
                        "delete from levin_deliveries where run = $1 and generation = $2 and batch = $3",
                    )
                    .bind(of.run)
                    .bind(of.generation)
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
pub(super) async fn write_notes(pool: AnyPool, mut pending: mpsc::Receiver<Pending>) {
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
                sqlx::query(
                    "insert into levin_deliveries (run, generation, batch, rows) values ($1, $2, $3, $4)",
                )
                .bind(note.of.run)
                .bind(note.of.generation)
                .bind(note.batch)
                .bind(rows)
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
            }
            Pending::Ended { of, batch, end, .. } => {
                sqlx::query(
                    "update levin_deliveries set ended = $1 where run = $2 and generation = $3 and batch = $4",
                )
                .bind(end)
                .bind(of.run)
                .bind(of.generation)
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
