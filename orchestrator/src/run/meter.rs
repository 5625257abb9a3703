//! What a run asks of its warehouse, counted: statements, waiting, rows in and out, and what the engine says it cost.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use connectors::warehouse::{BatchStream, Canceller, Cost, Effect, Session, WarehouseError};
use futures::StreamExt;
use serde::Serialize;
use sql_templates::{Column, Expect, Script, Sql, TableRef};

/// What a stage, or a whole run, took of the warehouse. What the engine does not tell is absent, never 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Statements that ran. What only asks for the columns of a result runs nothing.
    pub statements: u64,
    /// Seconds during which their answers were awaited; what streams later is not in it.
    pub seconds: f64,
    /// Rows that came out of the warehouse.
    pub rows_read: u64,
    /// Rows that were written in it, as far as the engine counts them.
    pub rows_written: Option<u64>,
    /// What the engine says that it cost.
    #[serde(flatten)]
    pub cost: Cost,
}

impl Usage {
    fn wrote(&mut self, rows: Option<u64>) {
        if let Some(rows) = rows {
            *self.rows_written.get_or_insert(0) += rows;
        }
    }

    /// This and another stage's together.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.statements += other.statements;
        self.seconds += other.seconds;
        self.rows_read += other.rows_read;
        self.wrote(other.rows_written);
        self.cost = self.cost.and(other.cost);
        self
    }
}

/// Gathers what all sessions of a run use.
#[derive(Debug, Clone, Default)]
pub struct Meter(Arc<Mutex<Readings>>);

#[derive(Debug, Default)]
struct Readings {
    taken: Usage,
    since: Usage,
    first: Option<DateTime<Utc>>,
}

impl Meter {
    fn readings(&self) -> MutexGuard<'_, Readings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, note: impl FnOnce(&mut Usage)) {
        note(&mut self.readings().since);
    }

    /// What was used since this was last asked.
    pub fn take(&self) -> Usage {
        let mut readings = self.readings();
        let since = std::mem::take(&mut readings.since);
        readings.taken = readings.taken.and(&since);
        since
    }

    /// What was used from the beginning.
    pub fn total(&self) -> Usage {
        let readings = self.readings();
        readings.taken.and(&readings.since)
    }

    /// When the first statement left.
    pub fn first(&self) -> Option<DateTime<Utc>> {
        self.readings().first
    }

    fn leaves(&self) -> Instant {
        self.readings().first.get_or_insert_with(Utc::now);
        Instant::now()
    }

    /// The same session, counted.
    pub fn on(&self, inner: Box<dyn Session>) -> Box<dyn Session> {
        Box::new(Metered { inner, meter: self.clone() })
    }
}

struct Metered {
    inner: Box<dyn Session>,
    meter: Meter,
}

impl Metered {
    fn answered(&mut self, statements: usize, since: Instant) {
        let cost = self.inner.cost();
        self.meter.note(|usage| {
            usage.statements += statements as u64;
            usage.seconds += since.elapsed().as_secs_f64();
            usage.cost = usage.cost.and(cost);
        });
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        let cost = self.inner.cost();
        self.meter.note(|usage| usage.cost = usage.cost.and(cost));
    }
}

#[async_trait]
impl Session for Metered {
    fn id(&self) -> Option<String> {
        self.inner.id()
    }

    async fn describe(&mut self, select: &Sql) -> Result<Vec<Column>, WarehouseError> {
        let since = Instant::now();
        let columns = self.inner.describe(select).await;
        self.answered(0, since);
        columns
    }

    async fn estimate(&mut self, select: &Sql) -> Result<Option<u64>, WarehouseError> {
        self.inner.estimate(select).await
    }

    async fn rest(&mut self) {
        self.inner.rest().await;
    }

    async fn execute(&mut self, script: &Script) -> Result<Effect, WarehouseError> {
        let since = self.meter.leaves();
        let effect = self.inner.execute(script).await;
        let done = effect.as_ref().map_or(0, |effect| effect.steps.len());
        self.answered(done, since);
        if let Ok(effect) = &effect {
            for (step, did) in script.steps.iter().zip(&effect.steps) {
                let (rows, seconds) = (did.rows, did.seconds);
                tracing::debug!(rows, seconds, "statement: {}", step.name);
                self.meter.note(|usage| match step.expect {
                    Expect::Rows => usage.rows_read += rows.unwrap_or(0),
                    Expect::Any | Expect::OneRow => usage.wrote(rows),
                });
            }
        }
        effect
    }

    async fn query(&mut self, select: &Sql) -> Result<BatchStream<'_>, WarehouseError> {
        let since = self.meter.leaves();
        let meter = self.meter.clone();
        let rows = self.inner.query(select).await;
        tracing::debug!(seconds = since.elapsed().as_secs_f64(), "statement: query");
        meter.note(|usage| {
            usage.statements += 1;
            usage.seconds += since.elapsed().as_secs_f64();
        });
        Ok(rows?
            .inspect(move |batch| {
                if let Ok(batch) = batch {
                    meter.note(|usage| usage.rows_read += batch.num_rows() as u64);
                }
            })
            .boxed())
    }

    async fn load(&mut self, table: &TableRef, batches: Vec<RecordBatch>) -> Result<u64, WarehouseError> {
        let since = Instant::now();
        let loaded = self.inner.load(table, batches).await;
        tracing::debug!(
            rows = loaded.as_ref().ok(),
            seconds = since.elapsed().as_secs_f64(),
            "statement: load"
        );
        self.answered(1, since);
        self.meter.note(|usage| usage.wrote(loaded.as_ref().ok().copied()));
        loaded
    }

    fn canceller(&self) -> Arc<dyn Canceller> {
        self.inner.canceller()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_told_stays_unknown() {
        let cost = Cost { bytes_scanned: Some(10), ..Cost::default() };
        let told = Usage { statements: 1, cost, ..Usage::default() };
        let silent = Usage { statements: 2, rows_read: 3, ..Usage::default() };
        let both = told.and(&silent);
        assert_eq!((both.statements, both.rows_read, both.cost.bytes_scanned), (3, 3, Some(10)));
        assert_eq!((both.rows_written, both.cost.slot_seconds, both.cost.credits), (None, None, None));
        let json = serde_json::to_value(silent).unwrap();
        assert!(json["bytesScanned"].is_null() && json["rowsWritten"].is_null(), "{json}");
    }
}
