//! What statements are asked with: plain facts, no SQL.

use crate::column::Column;
use crate::model::ModelSql;
use crate::names::SyncTables;
use crate::sql::{EngineType, TableRef};

/// The columns of a sync's snapshot: the key, then what is tracked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// The primary key's columns, in the order of the model's `primary_key`.
    pub keys: Vec<Column>,
    /// Every other tracked column, in the model's order.
    pub columns: Vec<Column>,
    /// The columns among them by which the destination knows a record; empty when it is the key.
    pub matching: Vec<Column>,
}

/// What the statements of one sync share.
#[derive(Debug, Clone, Copy)]
pub struct SyncScope<'a> {
    /// Its managed tables.
    pub tables: &'a SyncTables,
    /// Its columns.
    pub shape: &'a Shape,
    /// Its model.
    pub model: &'a ModelSql,
}

/// A column on its way to another shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReshapedColumn {
    /// The column as the model now has it.
    pub column: Column,
    /// The snapshot holds a value for it that stays.
    pub kept: bool,
    /// The kept value must be cast, because the engine cannot unite the two types, or because it is a key.
    pub cast: Option<EngineType>,
}

/// The two forms of a diff's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiffShape {
    /// Every row is added; the columns are the snapshot's.
    First,
    /// Operation, current and previous values, changed columns.
    Full,
}

impl DiffShape {
    /// The word that the state records.
    pub fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Full => "full",
        }
    }

    /// The reverse of [`DiffShape::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::First, Self::Full].into_iter().find(|s| s.name() == name)
    }
}

/// How a diff is computed.
#[derive(Debug, Clone)]
pub struct DiffFacts<'a> {
    /// Names the run's tables: its generation, or a word for a rehearsal.
    pub of: &'a str,
    /// The run's generation.
    pub generation: i64,
    /// Copy the model first, because it may not be read twice.
    pub stage: bool,
    /// Find null and duplicate keys and leave them out.
    pub set_aside: bool,
    /// Values count; without, only keys do (mode `insert`).
    pub compared: bool,
    /// There are keys in doubt.
    pub in_doubt: bool,
    /// Snapshot rows of an older generation are due whatever their values.
    pub due_before: Option<i64>,
    /// Due rows are sent as added: a full resync.
    pub resync: bool,
    /// Model and snapshot both come sorted by key from an index.
    pub sorted: bool,
    /// There are so many rows that the lower and the upper half of the keys are worth a process each, where the
    /// engine compares them in one otherwise.
    pub halves: bool,
    /// Hashes of rows are compared first; both have the same types, nothing is in doubt, due or set aside.
    pub by_hash: bool,
    /// The snapshot's rows, when they were counted before; for keys in doubt or set aside it says nothing.
    pub counted: Option<i64>,
    /// New columns whose values of today count as accepted.
    pub taken: &'a [Column],
    /// There are rows that are not to be sent as they are; the digest of the sync's definition tells
    /// whether they still are what they were when they were refused.
    pub parked: Option<&'a str>,
}

/// Rows of one operation whose sequences lie between first and last, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedRange {
    /// `added`, `changed` or `removed`; the ranges of other operations may overlap with this one.
    pub operation: &'static str,
    /// The first sequence.
    pub first: i64,
    /// The last sequence.
    pub last: i64,
}

/// A commit: which rows of which diff ended, and how.
#[derive(Debug, Clone)]
pub struct CommitFacts<'a> {
    /// The table of the diff whose rows ended.
    pub diff: TableRef,
    /// Its form.
    pub diff_shape: DiffShape,
    /// The generation under which its rows were sent.
    pub diff_generation: i64,
    /// The run under which its rows were sent.
    pub run: i64,
    /// The lease's generation: the fence.
    pub generation: i64,
    /// How many commits this generation made before.
    pub checkpoint: i64,
    /// Nothing more will be committed of this diff.
    pub last: bool,
    /// The run sent all it had to: differences that are no longer there close what they opened.
    pub complete: bool,
    /// Rows that ended.
    pub ranges: &'a [EndedRange],
    /// Rows among them that were not accepted stand in this table.
    pub outcomes: Option<TableRef>,
    /// Keys that were set aside stand in this table.
    pub set_aside: Option<TableRef>,
    /// Operations that the mode sends.
    pub sent: &'a [&'a str],
    /// Removals that are not sent stay in the snapshot all the same (a full resync).
    pub keep_removals: bool,
    /// There were rejections before.
    pub had_rejections: bool,
    /// There were doubts before.
    pub had_doubts: bool,
    /// The mode keeps a snapshot.
    pub keeps_snapshot: bool,
    /// The diff's table becomes the snapshot.
    pub adopt: bool,
    /// With `adopt`: what was known of keys set aside stays.
    pub keep_set_aside: bool,
    /// With `adopt`: doubts and rejections are forgotten (`--reset-cdc`).
    pub reset: bool,
    /// The digest of the definition under which rows were sent; `None` when nobody knows any more.
    pub definition: Option<&'a str>,
    /// The codes of rejections that are answers, and count as attempts; empty: all of them.
    pub answers: &'a [&'a str],
    /// After so many attempts a row is parked.
    pub max_attempts: Option<u32>,
    /// The state's new `due_before`, when it changes.
    pub due_before: Option<i64>,
    /// For how long the lease is renewed with it, in seconds: a heartbeat waits while a commit goes on.
    pub lease_seconds: Option<i64>,
    /// Rows of the diff have other numbers than when they were sent: none of them says anything.
    pub renumbered: bool,
    /// It will be undone: the state is left alone, so that no heartbeat waits for it.
    pub rehearsed: bool,
}

impl CommitFacts<'_> {
    /// A commit of which nothing is known yet but its diff and its fence: no row ended, nothing else
    /// happens with it.
    pub fn new(diff: TableRef, diff_shape: DiffShape, generation: i64, run: i64) -> Self {
        Self {
            diff,
            diff_shape,
            diff_generation: generation,
            run,
            generation,
            checkpoint: 0,
            last: false,
            complete: false,
            ranges: &[],
            outcomes: None,
            set_aside: None,
            sent: &[],
            keep_removals: false,
            had_rejections: false,
            had_doubts: false,
            keeps_snapshot: false,
            adopt: false,
            keep_set_aside: false,
            reset: false,
            definition: None,
            answers: &[],
            max_attempts: None,
            due_before: None,
            lease_seconds: None,
            renumbered: false,
            rehearsed: false,
        }
    }
}

/// What an auditor may read of a run. Times are RFC 3339.
#[derive(Debug, Clone)]
pub struct AuditFacts<'a> {
    /// The sync's number.
    pub sync_id: i64,
    /// The run's number.
    pub run: i64,
    /// The key's column names.
    pub primary_key: &'a str,
    /// The destination's type.
    pub destination: &'a str,
    /// The model's slug.
    pub model_name: &'a str,
    /// The run's error.
    pub error: Option<&'a str>,
    /// `succeeded`, `failed` or `cancelled`.
    pub status: &'a str,
    /// When it began: ISO 8601 in UTC, with a `Z`.
    pub started_at: &'a str,
    /// When it ended, likewise.
    pub finished_at: &'a str,
    /// In the order of [`AUDIT_COUNTS`].
    pub numbers: [i64; 12],
}

/// The count columns of the audit table of runs.
pub const AUDIT_COUNTS: [&str; 12] = [
    "num_planned_add",
    "num_planned_change",
    "num_planned_remove",
    "num_attempted_add",
    "num_attempted_change",
    "num_attempted_remove",
    "num_succeeded_add",
    "num_succeeded_change",
    "num_succeeded_remove",
    "num_failed_add",
    "num_failed_change",
    "num_failed_remove",
];

/// Which rows of a diff leave for the destination.
#[derive(Debug, Clone)]
pub struct DeliverFacts<'a> {
    /// The table of the diff.
    pub diff: TableRef,
    /// Its form.
    pub diff_shape: DiffShape,
    /// `added`, `changed` or `removed`.
    pub operation: &'a str,
    /// Columns whose previous value is needed too.
    pub previous: &'a [Column],
    /// Only rows behind this sequence.
    pub after: Option<i64>,
    /// With `after`: only rows up to this sequence, a page of the diff.
    pub through: Option<i64>,
    /// At most so many rows.
    pub limit: Option<u64>,
    /// The sync's tables, when removals had to come first: what is known of those that were not accepted
    /// keeps rows of their key and of their matching value back.
    pub waits: Option<&'a SyncTables>,
}

/// Which row is to be looked at, and how.
#[derive(Debug, Clone)]
pub struct TestRowFacts<'a> {
    /// The canonical texts of its key's columns.
    pub key: &'a [String],
    /// Columns with other values than the row has, each as the canonical text of the value.
    pub sets: &'a [(String, String)],
    /// Columns whose previous value is needed too.
    pub previous: &'a [Column],
    /// What its row version id is made of.
    pub version: &'a str,
    /// There is a snapshot of this shape to compare with.
    pub known: bool,
    /// The row is the snapshot's, not the model's.
    pub from_snapshot: bool,
}

/// Which open rejections are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RejectionFacts<'a> {
    /// Only those that this run met last.
    pub run: Option<i64>,
    /// Only that of this key: the canonical texts of its columns, nothing for a null; empty: of every key.
    pub key: &'a [Option<&'a str>],
    /// How many are passed over.
    pub offset: u64,
    /// The most that are looked at.
    pub limit: u64,
}

impl RejectionFacts<'_> {
    /// The newest ones.
    pub fn newest(limit: u64) -> Self {
        Self { run: None, key: &[], offset: 0, limit }
    }
}

/// A table of a sync that has the model's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotPart {
    /// What was accepted.
    Snapshot,
    /// What is in doubt.
    Doubts,
    /// What was refused; keys only.
    Rejections,
}
