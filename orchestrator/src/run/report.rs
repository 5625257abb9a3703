//! What a run came to, as `run --json` prints it and the store keeps it.

use std::collections::BTreeMap;

use chrono::Utc;
use connectors::change::Operation;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::meter::Usage;
use super::plans::PlanId;
use super::text_of;
use crate::error::{Error, Exit};
use crate::project::SyncSpec;

/// Rows by operation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OperationCounts {
    /// Added rows.
    pub added_count: u64,
    /// Changed rows.
    pub changed_count: u64,
    /// Removed rows.
    pub removed_count: u64,
}

impl OperationCounts {
    /// The count of one operation.
    pub fn of(&self, operation: Operation) -> u64 {
        match operation {
            Operation::Added => self.added_count,
            Operation::Changed => self.changed_count,
            Operation::Removed => self.removed_count,
        }
    }

    /// The count of one operation, to be changed.
    pub fn of_mut(&mut self, operation: Operation) -> &mut u64 {
        match operation {
            Operation::Added => &mut self.added_count,
            Operation::Changed => &mut self.changed_count,
            Operation::Removed => &mut self.removed_count,
        }
    }

    /// All operations together.
    pub fn total(&self) -> u64 {
        self.added_count + self.changed_count + self.removed_count
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Every row that had to be sent was accepted.
    Success,
    /// Some rows were rejected or set aside.
    Warning,
    /// The run could not go on; what was accepted is committed.
    Failed,
    /// Someone asked the run to stop.
    Cancelled,
}

impl Status {
    /// Every way to end.
    pub const ALL: [Self; 4] = [Self::Success, Self::Warning, Self::Failed, Self::Cancelled];

    /// The word in reports and in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// An error as reports carry it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportedError {
    /// The code that `levin explain` knows.
    pub code: String,
    /// What happened.
    pub message: String,
    /// What to do next.
    pub hint: String,
}

impl From<&Error> for ReportedError {
    fn from(error: &Error) -> Self {
        Self {
            code: error.code.name().to_owned(),
            message: error.message.clone(),
            hint: error.advice().to_owned(),
        }
    }
}

/// What a run came to. Counts that are not known are absent, never 0.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RunReport {
    /// The sync's number.
    pub sync_id: i64,
    /// The sync's slug.
    pub sync_slug: String,
    /// The run's number.
    pub id: i64,
    /// How it ended.
    pub status: Status,
    /// Rows that the model returned.
    pub query_size: Option<u64>,
    /// Rows that the mode sends.
    pub planned_rows: OperationCounts,
    /// Rows that the destination accepted.
    pub successful_rows: OperationCounts,
    /// Rows that were rejected or are in doubt.
    pub failed_rows: OperationCounts,
    /// Rows that were planned and never sent.
    pub aborted_rows: OperationCounts,
    /// Rows that are as the destination last accepted them.
    pub unchanged_count: Option<u64>,
    /// Rows whose key occurs more than once.
    pub duplicate_key_count: Option<u64>,
    /// Rows whose key holds a null.
    pub null_key_count: Option<u64>,
    /// Removals that gave way to another row with the same matching value.
    pub superseded_count: u64,
    /// Rows that differ and are parked as dead letters, beside those planned.
    pub parked_count: u64,
    /// The same, by operation.
    pub parked_rows: OperationCounts,
    /// Rows among the failed ones that may have been applied.
    pub in_doubt_count: u64,
    /// Differences that the mode does not send.
    pub not_sent: OperationCounts,
    /// When the run began, RFC 3339.
    pub started_at: String,
    /// When its first statement left for the warehouse.
    pub first_statement_at: Option<String>,
    /// When it ended.
    pub finished_at: String,
    /// Seconds spent in each stage.
    pub stages: BTreeMap<String, f64>,
    /// What it took of the warehouse.
    pub cost: Spending,
    /// Requests (or transactions) that left for the destination.
    pub destination_calls: u64,
    /// Attempts that repeated another.
    pub retries: u64,
    /// Why the run could not go on.
    pub error: Option<ReportedError>,
    /// The run before was interrupted and this one settled it: rows found accepted, and in doubt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settled: Option<Settled>,
    /// The plan that this run applied; for a run that a guard stopped, the plan that would apply what it found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan_id: Option<PlanId>,
    /// The exit code of a command that ran only this.
    #[serde(skip)]
    pub exit: Exit,
}

impl RunReport {
    /// The report of a run that an error ended before it could begin.
    pub fn never_began(sync: &SyncSpec, id: i64, error: &Error) -> Self {
        let now = text_of(Utc::now());
        Self {
            sync_id: sync.id,
            sync_slug: sync.slug.clone(),
            id,
            status: Status::Failed,
            query_size: None,
            planned_rows: OperationCounts::default(),
            successful_rows: OperationCounts::default(),
            failed_rows: OperationCounts::default(),
            aborted_rows: OperationCounts::default(),
            unchanged_count: None,
            duplicate_key_count: None,
            null_key_count: None,
            superseded_count: 0,
            parked_count: 0,
            parked_rows: OperationCounts::default(),
            in_doubt_count: 0,
            not_sent: OperationCounts::default(),
            started_at: now.clone(),
            first_statement_at: None,
            finished_at: now,
            stages: BTreeMap::new(),
            cost: Spending::default(),
            destination_calls: 0,
            retries: 0,
            error: Some(ReportedError::from(error)),
            settled: None,
            plan_id: None,
            exit: error.code.exit(),
        }
    }
}

impl RunReport {
    /// Counts in what the run came to before it was stopped and handed on. Rows that were rejected or not sent then
    /// are among those of now.
    pub fn go_on_from(&mut self, earlier: &Value) {
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        let accepted = serde_json::from_value::<OperationCounts>(earlier["successfulRows"].clone());
        let accepted = accepted.unwrap_or_default();
        for operation in Operation::ALL {
            *self.successful_rows.of_mut(operation) += accepted.of(operation);
            *self.planned_rows.of_mut(operation) += accepted.of(operation);
        }
        self.superseded_count += number(&earlier["supersededCount"]);
        self.destination_calls += number(&earlier["destinationCalls"]);
        self.retries += number(&earlier["retries"]);
        for (stage, seconds) in earlier["stages"].as_object().into_iter().flatten() {
            *self.stages.entry(stage.clone()).or_default() += seconds.as_f64().unwrap_or_default();
        }
        let text = |key: &str| earlier[key].as_str().map(str::to_owned);
        if let Some(started_at) = text("startedAt") {
            self.started_at = started_at;
        }
        self.first_statement_at = text("firstStatementAt").or(self.first_statement_at.take());
    }
}

/// What a run took of its warehouse: in all, and in each stage.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Spending {
    /// All stages together.
    #[serde(flatten)]
    pub total: Usage,
    /// By stage.
    pub stages: BTreeMap<String, Usage>,
}

impl Spending {
    pub(super) fn of(stages: BTreeMap<String, Usage>) -> Self {
        let total = stages.values().fold(Usage::default(), Usage::and);
        Self { total, stages }
    }
}

/// What settling an interrupted run found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settled {
    /// The interrupted run.
    pub run: i64,
    /// Batches that the notes prove to have ended.
    pub ended_batches: u64,
    /// Batches that were under way.
    pub open_batches: u64,
    /// The notes were not there: everything not committed is in doubt.
    pub notes_lost: bool,
}
