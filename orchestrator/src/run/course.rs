//! What is known of a run while it goes on, and what it comes to.

use std::collections::BTreeMap;

use chrono::Utc;
use connectors::change::Operation;
use connectors::warehouse::Session;
use sql_templates::{Atomicity, AuditFacts, Statement, script};

use super::deliver::Delivered;
use super::differences::Counts;
use super::meter::Usage;
use super::plans::PlanId;
use super::report::{OperationCounts, ReportedError, RunReport, Settled, Spending, Status};
use super::view::PlanReport;
use super::{Run, text_of};
use crate::error::{Error, ErrorCode, Exit};
use crate::project::OnNotFound;

/// What is known of a run while it goes on.
#[derive(Default)]
pub(super) struct Course {
    pub(super) counts: Option<Counts>,
    pub(super) planned: OperationCounts,
    pub(super) parked: OperationCounts,
    pub(super) not_sent: OperationCounts,
    pub(super) delivered: Delivered,
    pub(super) settled: Option<Settled>,
    /// The plan that was kept because a guard stopped the run, or that the run applies.
    pub(super) plan: Option<PlanId>,
    /// What was kept as a plan because that was all that was asked.
    pub(super) saved: Option<PlanReport>,
    /// Rows of the snapshot, when they are known.
    pub(super) counted: Option<i64>,
    /// Tables that are no longer needed are still there.
    pub(super) untidy: bool,
}

impl Course {
    /// Rows that were planned and did not come to an end of their own.
    fn aborted(&self) -> OperationCounts {
        let delivered = &self.delivered;
        let mut aborted = OperationCounts::default();
        for operation in Operation::ALL {
            *aborted.of_mut(operation) = self
                .planned
                .of(operation)
                .saturating_sub(delivered.successful.of(operation) + delivered.failed.of(operation));
        }
        // Only removals give way to other rows.
        aborted.removed_count = aborted.removed_count.saturating_sub(delivered.superseded);
        aborted
    }

    /// Every planned row came to an end of its own: counted, not inferred from the absence of trouble.
    pub(super) fn everything_ended(&self) -> bool {
        self.delivered.ended() == self.planned.total()
    }

    /// How the run ended, or would if it ended now.
    fn status(&self, run: &Run<'_>, error: Option<&Error>) -> Status {
        let delivered = &self.delivered;
        let aborted = self.aborted().total();
        let skipped = if run.sync.not_found == OnNotFound::Skip { delivered.not_found } else { 0 };
        let set_aside = self.counts.map_or(0, |c| c.duplicate_keys + c.null_keys);
        match error {
            Some(e) if e.code == ErrorCode::Cancelled => Status::Cancelled,
            Some(_) => Status::Failed,
            None if run.cancel.is_cancelled() && aborted > 0 => Status::Cancelled,
            None if aborted > 0 => Status::Failed,
            None if delivered.failed.total() > skipped || set_aside > 0 => Status::Warning,
            None => Status::Success,
        }
    }

    pub(super) fn report(
        &self,
        run: &Run<'_>,
        stages: BTreeMap<String, f64>,
        usage: BTreeMap<String, Usage>,
        error: Option<Error>,
    ) -> RunReport {
        let delivered = &self.delivered;
        let error = error.or_else(|| delivered.stop.clone());
        let aborted = self.aborted();
        let status = self.status(run, error.as_ref());
        let exit = match (&error, status) {
            // A code of single rows, such as a duplicate key, may end a whole run too.
            (Some(e), _) if e.code.exit() == Exit::Rejected => Exit::Failed,
            (Some(e), _) => e.code.exit(),
            (None, Status::Cancelled | Status::Failed) => Exit::Failed,
            (None, Status::Warning) => Exit::Rejected,
            (None, Status::Success) => Exit::Done,
        };
        RunReport {
            sync_id: run.sync.id,
            sync_slug: run.sync.slug.clone(),
            id: run.id,
            status,
            query_size: self.counts.map(|c| c.queried),
            planned_rows: self.planned,
            successful_rows: delivered.successful,
            failed_rows: delivered.failed,
            aborted_rows: aborted,
            unchanged_count: self.counts.map(|c| c.unchanged),
            duplicate_key_count: self.counts.map(|c| c.duplicate_keys),
            null_key_count: self.counts.map(|c| c.null_keys),
            superseded_count: delivered.superseded,
            parked_count: self.parked.total(),
            parked_rows: self.parked,
            in_doubt_count: delivered.in_doubt,
            not_sent: self.not_sent,
            started_at: run.started_text(),
            first_statement_at: run.meter.first().map(text_of),
            finished_at: text_of(Utc::now()),
            stages,
            cost: Spending::of(usage),
            destination_calls: delivered.calls,
            retries: delivered.retries,
            error: error.as_ref().map(ReportedError::from),
            settled: self.settled,
            plan_id: self.plan,
            exit,
        }
    }
}

/// The run's row in the audit schema. Nobody's rows depend on it, so a failure is only logged.
pub(super) async fn audit(run: &Run<'_>, session: &mut dyn Session, course: &Course, error: Option<&Error>) {
    let delivered = &course.delivered;
    let of = |counts: &OperationCounts| {
        [Operation::Added, Operation::Changed, Operation::Removed]
            .map(|o| i64::try_from(counts.of(o)).unwrap_or(i64::MAX))
    };
    let (planned, succeeded, failed) =
        (of(&course.planned), of(&delivered.successful), of(&delivered.failed));
    let mut numbers = [0; 12];
    for i in 0..3 {
        numbers[i] = planned[i];
        numbers[3 + i] = succeeded[i] + failed[i];
        numbers[6 + i] = succeeded[i];
        numbers[9 + i] = failed[i];
    }
    if course.planned.total() == 0 && error.is_none() {
        return;
    }
    let error = error.or(delivered.stop.as_ref());
    let status = match course.status(run, error) {
        Status::Success | Status::Warning => "succeeded",
        Status::Cancelled => "cancelled",
        Status::Failed => "failed",
    };
    let error_text = error.map(|e| format!("{}: {}", e.code, e.message));
    let (started, finished) = (run.started_text(), text_of(Utc::now()));
    let key = run.sync.model.primary_key.join(",");
    let facts = AuditFacts {
        sync_id: run.sync.id,
        run: run.id,
        primary_key: &key,
        destination: run.sync.destination.connector.name,
        model_name: &run.sync.model.slug,
        error: error_text.as_deref(),
        status,
        started_at: &started,
        finished_at: &finished,
        numbers,
    };
    let written = match script(
        run.dialect(),
        Atomicity::Transaction,
        &[Statement::AuditRun { tables: &run.tables, facts: &facts }],
    ) {
        Ok(script) => session.execute(&script).await.map(drop).map_err(Error::from),
        Err(e) => Err(e.into()),
    };
    if let Err(error) = written {
        tracing::warn!(error = %error, "the audit of the run was not written");
    }
}
