//! Warehouses: where models are read and diffs are computed.
//!
//! The two traits below are the contract that every driver keeps and that
//! `tests/conformance/warehouse` checks on each of them.

pub mod bigquery;
pub mod databricks;
pub mod duckdb;
mod duration;
pub mod mariadb;
pub mod postgres;
pub mod redshift;
pub mod sample;
pub mod snowflake;

use std::fmt::Debug;
use std::ops::Add;
use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use futures::stream::BoxStream;
use serde::Serialize;
use sql_templates::{Column, Dialect, Script, Sql, TableRef};

/// Who a statement belongs to; drivers show it to the warehouse (application name, query tag,
/// comment), so that an operator finds levin's work there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// The sync's slug, or the command when no sync is involved.
    pub sync: String,
    /// The run's number, when there is one.
    pub run: Option<i64>,
    /// The stage: `prepare`, `diff`, `plan`, `deliver`, `commit`, `prune`, or a command's name.
    pub stage: &'static str,
}

/// A stream of Arrow batches in the order in which the engine returns them. An error ends it.
pub type BatchStream<'a> = BoxStream<'a, Result<RecordBatch, WarehouseError>>;

/// A connection to one warehouse.
///
/// Cheap to keep: holds configuration and, where the engine wants it, a pool; it opens nothing
/// until [`Warehouse::session`] is called.
#[async_trait]
pub trait Warehouse: Send + Sync + Debug {
    /// The dialect whose templates the engine understands.
    fn dialect(&self) -> Dialect;

    /// Which warehouse this is (host and database, or the file), without any secret.
    fn identity(&self) -> String;

    /// The role that sessions log in as; `None` where there are no roles. For grants.
    fn role(&self) -> Option<String> {
        None
    }

    /// The database that the models are in; `None` where there is only one. For grants.
    fn database(&self) -> Option<String> {
        None
    }

    /// The one schema in which names without a schema are looked up; `None` where the engine itself knows it, or
    /// there are several.
    fn default_schema(&self) -> Option<String> {
        None
    }

    /// `Some(n)` when a result must be read in pages of `n` rows, each in a statement of its own,
    /// because the engine cannot hold a result open while other work goes on; `None` when
    /// [`Session::query`] streams for as long as it takes.
    fn page_rows(&self) -> Option<u64> {
        None
    }

    /// A session of its own: no statement of another session waits for it.
    async fn session(&self, tag: &Tag) -> Result<Box<dyn Session>, WarehouseError>;

    /// Ends the server session whose [`Session::id`] a dead process left behind, so that it can
    /// write nothing any more. Does nothing where sessions die with their process.
    async fn terminate(&self, session_id: &str) -> Result<(), WarehouseError>;
}

/// One connection or server session. Statements run one after another.
///
/// * Every statement carries the session's [`Tag`].
/// * Dropping a session gives up what it was doing: an open transaction is rolled back.
/// * Errors carry the engine's own words, never a secret, and a [`ErrorKind`] on which callers act.
#[async_trait]
pub trait Session: Send {
    /// The server's name for this session, for [`Warehouse::terminate`]; `None` where there is none.
    fn id(&self) -> Option<String>;

    /// The columns that a select would return, in order, without running it. Duplicate names are
    /// reported as they are; a column whose type the dialect cannot map is an error of kind
    /// [`ErrorKind::Unsupported`] naming column and type.
    async fn describe(&mut self, select: &Sql) -> Result<Vec<Column>, WarehouseError>;

    /// The bytes that a select would scan, without running it; `None` where the engine cannot tell.
    async fn estimate(&mut self, select: &Sql) -> Result<Option<u64>, WarehouseError> {
        let _ = select;
        Ok(None)
    }

    /// What the session's work has cost since it was last asked, as far as the engine has told.
    fn cost(&mut self) -> Cost {
        Cost::default()
    }

    /// Nothing will be asked for a while: what is held open for a next statement is let go.
    async fn rest(&mut self) {}

    /// Runs a script as its atomicity says. Either every step took effect, or (except with
    /// `Separate`) none did. A step that expects one row and wrote another number undoes the script
    /// with [`ErrorKind::Fenced`]. When the connection is lost before the answer to a commit the
    /// error is [`ErrorKind::ConnectionLost`] and the caller does not know which of the two happened.
    async fn execute(&mut self, script: &Script) -> Result<Effect, WarehouseError>;

    /// Streams a result in Arrow, in the forms that `change.rs` lists, with memory bounded by a
    /// few batches. Dropping the stream stops the query. Where the engine keeps a result for a limited time, a reader that
    /// takes longer finds [`ErrorKind::ResultGone`]. Rows of one table that are asked for without
    /// an order come as they were written wherever the dialect relies on that (`in_sequence`).
    async fn query(&mut self, select: &Sql) -> Result<BatchStream<'_>, WarehouseError>;

    /// Appends rows to an existing table; columns are matched by name, values by the table's
    /// types. All rows or none.
    async fn load(&mut self, table: &TableRef, batches: Vec<RecordBatch>) -> Result<u64, WarehouseError>;

    /// Stops whatever the session runs, on the server too; callable from elsewhere while a
    /// statement is running. The statement then ends with [`ErrorKind::Cancelled`].
    fn canceller(&self) -> Arc<dyn Canceller>;
}

/// Stops the statement that a session runs.
#[async_trait]
pub trait Canceller: Send + Sync {
    /// Asks the engine to stop; returns once it has been told, not once it has stopped.
    async fn cancel(&self) -> Result<(), WarehouseError>;
}

/// What a script did.
#[derive(Debug, Clone, Default)]
pub struct Effect {
    /// One entry per step, in order.
    pub steps: Vec<StepEffect>,
}

/// What one step did.
#[derive(Debug, Clone)]
pub struct StepEffect {
    /// The step's name.
    pub name: String,
    /// Rows written, or returned for a step that returns rows; `None` where the engine does not tell.
    pub rows: Option<u64>,
    /// The rows of a step that returns rows. Such steps return few: counts and samples.
    pub batches: Vec<RecordBatch>,
    /// Wall time of the step.
    pub seconds: f64,
}

impl Effect {
    /// The batches that the named step returned; empty when there is no such step.
    pub fn result(&self, step: &str) -> &[RecordBatch] {
        self.steps.iter().find(|s| s.name == step).map_or(&[], |s| s.batches.as_slice())
    }

    /// Rows written by the named step.
    pub fn rows(&self, step: &str) -> Option<u64> {
        self.steps.iter().find(|s| s.name == step).and_then(|s| s.rows)
    }
}

/// What the engine says that work has cost. What it does not tell is `None`, never 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cost {
    /// Bytes that were scanned, as the engine counts or bills them.
    pub bytes_scanned: Option<u64>,
    /// Seconds of work of the engine's processing slots, all of them together.
    pub slot_seconds: Option<f64>,
    /// Credits, in the engine's own unit.
    pub credits: Option<f64>,
}

impl Cost {
    /// This and another work's cost together: what is known of either.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        fn sum<T: Add<Output = T>>(left: Option<T>, right: Option<T>) -> Option<T> {
            match (left, right) {
                (Some(left), Some(right)) => Some(left + right),
                (known, None) | (None, known) => known,
            }
        }
        Self {
            bytes_scanned: sum(self.bytes_scanned, other.bytes_scanned),
            slot_seconds: sum(self.slot_seconds, other.slot_seconds),
            credits: sum(self.credits, other.credits),
        }
    }
}

/// What kind of trouble a warehouse is in: each kind has one directive for the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Nothing answers at that address, or the file cannot be opened.
    Unreachable,
    /// Wrong user, password, key or token.
    Authentication,
    /// The role lacks a grant; the message names the object.
    Permission,
    /// Someone else holds the file or the lock; may pass by waiting.
    Busy,
    /// A table, column or schema does not exist.
    NotFound,
    /// The table or schema exists already.
    AlreadyExists,
    /// The statement is not valid for this engine.
    Invalid,
    /// A value cannot be what the statement wants it to be (a cast, a division, an overflow).
    Data,
    /// A uniqueness rule was broken.
    UniqueViolation,
    /// A step that had to write one row did not: another holder took over.
    Fenced,
    /// The statement was cancelled.
    Cancelled,
    /// The statement took longer than the warehouse allows.
    TookTooLong,
    /// The connection went away in the middle.
    ConnectionLost,
    /// The engine no longer keeps the result that is being read. What was asked may be asked again.
    ResultGone,
    /// The engine has no room left (disk, quota, memory).
    OutOfSpace,
    /// The engine or the driver cannot do this (type, number of columns).
    Unsupported,
    /// Anything else.
    Other,
}

/// A warehouse's trouble in its own words, with a kind to act upon.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct WarehouseError {
    /// What kind of trouble.
    pub kind: ErrorKind,
    /// What the engine said, without secrets.
    pub message: String,
    /// The engine's own code (SQLSTATE …), if it gave one.
    pub code: Option<String>,
    /// The name of the step that failed, when it was part of a script.
    pub step: Option<String>,
}

impl WarehouseError {
    /// An error without an engine code.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), code: None, step: None }
    }

    /// The same error, naming the step of a script in which it happened.
    #[must_use]
    pub fn in_step(mut self, step: &str) -> Self {
        self.step = Some(step.to_owned());
        self
    }
}
