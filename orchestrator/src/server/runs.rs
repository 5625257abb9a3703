//! `/syncs/{syncId}/runs`: what happened.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use chrono::{TimeDelta, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::auth::{Caller, Reader, Runner};
use super::fault::Fault;
use super::objects::{List, found};
use super::request::{LARGEST_NUMBER, Path, Query, written};
use crate::error::ErrorCode;
use crate::project::SyncSpec;
use crate::run::{Holder, Stage};
use crate::store::{Place, RunFilter, RunOrder, RunRow};

/// Where a run is, or how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RunStatus {
    Cancelled,
    Failed,
    Queued,
    Success,
    Warning,
    Querying,
    Processing,
    Reporting,
    Interrupted,
}

impl RunStatus {
    pub(super) fn of(status: &str, place: Option<Place>, holder: Option<&Holder>) -> Self {
        match status {
            "success" => Self::Success,
            "warning" => Self::Warning,
            "failed" => Self::Failed,
            "cancelled" => Self::Cancelled,
            "queued" | "running" => match place {
                Some(Place { taken: false, .. }) => Self::Queued,
                Some(Place { stage: Some(Stage::Deliver), .. }) => Self::Processing,
                Some(Place { stage: Some(Stage::Commit | Stage::Prune), .. }) => Self::Reporting,
                Some(_) => Self::Querying,
                // A run of the command line: nobody says how far it is.
                None if holder.is_some_and(Holder::is_gone) => Self::Interrupted,
                None => Self::Processing,
            },
            _ => Self::Interrupted,
        }
    }

    pub(super) fn of_run(run: &RunRow) -> Self {
        Self::of(&run.status, run.place, run.holder.as_ref())
    }

    /// Whether nothing comes after it.
    pub(super) fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Querying | Self::Processing | Self::Reporting)
    }
}

/// Rows by operation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "what clients call them")]
pub(super) struct Counts {
    /// Added rows.
    #[schema(minimum = 0)]
    added_count: u64,
    /// Changed rows.
    #[schema(minimum = 0)]
    changed_count: u64,
    /// Removed rows.
    #[schema(minimum = 0)]
    removed_count: u64,
}

impl Counts {
    fn of(report: Option<&Value>, name: &str) -> Self {
        let count = |which: &str| report.and_then(|report| report[name][which].as_u64()).unwrap_or_default();
        Self {
            added_count: count("addedCount"),
            changed_count: count("changedCount"),
            removed_count: count("removedCount"),
        }
    }

    fn total(self) -> u64 {
        self.added_count + self.changed_count + self.removed_count
    }
}

/// A run of a sync.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SyncRun {
    /// Its number.
    #[schema(minimum = 1)]
    pub(super) id: i64,
    /// When it was asked for.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it began; null while it waits.
    #[schema(required, format = DateTime)]
    started_at: Option<String>,
    /// When it ended.
    #[schema(required, format = DateTime)]
    finished_at: Option<String>,
    /// Rows that the model returned; null when that is not known.
    #[schema(required, minimum = 0)]
    query_size: Option<u64>,
    /// Where it is, or how it ended.
    pub(super) status: RunStatus,
    /// How much of it is done, from 0 to 1.
    #[schema(minimum = 0, maximum = 1)]
    completion_ratio: f64,
    /// Rows that it sends; 0 as long as that is not known.
    planned_rows: Counts,
    /// Rows that the destination accepted.
    successful_rows: Counts,
    /// Rows that were rejected, or of which nobody knows.
    failed_rows: Counts,
    /// Why it could not go on, after a code that `levin explain` knows; null when nothing was wrong. It may quote rows:
    /// a key of scope `read` sees what to do about such an error instead.
    #[schema(required)]
    error: Option<String>,
}

impl SyncRun {
    pub(super) fn of(api: &Api, run: &RunRow, caller: &Caller) -> Self {
        let status = RunStatus::of_run(run);
        let report = run.report.as_ref();
        let (planned, successful, failed) = (
            Counts::of(report, "plannedRows"),
            Counts::of(report, "successfulRows"),
            Counts::of(report, "failedRows"),
        );
        let share = |done: u64, all: u64| if all == 0 { 0.0 } else { (done as f64 / all as f64).min(1.0) };
        let ratio = match (status, run.place) {
            (RunStatus::Success | RunStatus::Warning, _) => 1.0,
            (_, Some(place)) => share(place.done.unsigned_abs(), place.total.unsigned_abs()),
            _ => share(successful.total() + failed.total(), planned.total()),
        };
        // A run that was handed back waits again: what ended it the first time is no error of it.
        let error = report.filter(|_| status.is_final()).and_then(|report| {
            let error = &report["error"];
            let code = error["code"].as_str()?;
            let text = if caller.sees_rows() { error["message"].as_str()? } else { hint_of(code) };
            Some(format!("{code}: {text}"))
        });
        let error = error.or_else(|| match (status, report) {
            (RunStatus::Cancelled, None) => {
                Some(format!("{}: the run was cancelled before it began", ErrorCode::Cancelled))
            }
            (RunStatus::Interrupted, None) => Some(format!(
                "{}: the run ended without a report; the next one settles it",
                ErrorCode::Interrupted
            )),
            _ => None,
        });
        Self {
            id: run.id,
            created_at: run.created_at.clone(),
            started_at: (status != RunStatus::Queued && run.status != "queued")
                .then(|| run.started_at.clone()),
            finished_at: run.finished_at.clone(),
            query_size: report.and_then(|report| report["querySize"].as_u64()),
            status,
            completion_ratio: ratio,
            planned_rows: planned,
            successful_rows: successful,
            failed_rows: failed,
            error: error.map(|text| api.service.context().redactor.redact(&text)),
        }
    }
}

/// What to do about an error of that code, whatever else was said of it.
fn hint_of(code: &str) -> &'static str {
    ErrorCode::from_name(code).map_or("a key of scope `run` sees what was said of it", ErrorCode::hint)
}

/// A report without texts that may quote rows.
fn without_rows(report: &mut Value) {
    if let Some(error) = report.get_mut("error").filter(|error| error.is_object()) {
        let hint = hint_of(error["code"].as_str().unwrap_or_default());
        error["message"] = hint.into();
        error["hint"] = hint.into();
    }
}

/// A run, with everything that is known of it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SyncRunDetail {
    #[serde(flatten)]
    run: SyncRun,
    /// The number of its sync.
    #[schema(minimum = 1)]
    sync_id: i64,
    /// Who asked for it.
    #[schema(value_type = Vec<Object>)]
    causes: Value,
    /// The report as `levin run --json` prints it, once it has ended; for a key of scope `read` without the texts of its
    /// error, which may quote rows.
    #[schema(required, value_type = Option<Object>)]
    report: Option<Value>,
}

/// Which runs are shown.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes what the handler reads")]
pub(super) struct RunQuery {
    /// Only this run.
    #[param(rename = "runId", minimum = 1)]
    run_id: Option<i64>,
    /// Only runs that were asked for after this moment.
    #[param(value_type = Option<String>, format = DateTime)]
    after: Option<String>,
    /// Only runs that were asked for before this moment.
    #[param(value_type = Option<String>, format = DateTime)]
    before: Option<String>,
    /// Only runs that were asked for in the last so many minutes.
    #[param(minimum = 0, maximum = 5_256_000)]
    within: Option<i64>,
    /// How many runs are passed over.
    #[param(minimum = 0, default = 0)]
    offset: Option<u64>,
    /// The most runs that are shown.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u64>,
    /// The order: the newest first.
    #[param(inline, default = "id", rename = "orderBy")]
    order_by: Option<RunOrdering>,
}

/// An order of runs.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "describes what the handler reads")]
enum RunOrdering {
    Id,
    CreatedAt,
    StartedAt,
    FinishedAt,
}

/// The sync that a path names.
pub(super) fn sync_of(api: &Api, path: &Path) -> Result<Arc<SyncSpec>, Fault> {
    let id = path.id("syncId")?;
    found("sync", id, api.service.project().syncs.iter(), |sync| sync.id).cloned()
}

/// The run of a sync that a path names.
pub(super) async fn run_of(api: &Api, path: &Path) -> Result<(Arc<SyncSpec>, RunRow), Fault> {
    let (sync, id) = (sync_of(api, path)?, path.id("runId")?);
    let filter = RunFilter { run: Some(id), limit: 1, ..RunFilter::default() };
    let run = api.service.store().page_of_runs(sync.id, &filter).await?.pop();
    Ok((sync, run.ok_or_else(|| Fault::not_found("run", &id.to_string()))?))
}

/// List runs of a sync
#[utoipa::path(get, path = "/syncs/{syncId}/runs", operation_id = "ListSyncRuns", tag = "runs",
    params(("syncId" = i64, Path, minimum = 1, description = "The number of the sync"), RunQuery),
    responses((status = 200, description = "A page of runs, the newest first", body = List<SyncRun>)))]
pub(super) async fn list(
    Reader(caller): Reader,
    State(api): State<Api>,
    path: Path,
    mut query: Query,
) -> Result<Json<List<SyncRun>>, Fault> {
    let sync = sync_of(&api, &path)?;
    let order = query.word("orderBy", &["id", "createdAt", "startedAt", "finishedAt"]);
    let (run, page) = (query.number("runId", 1, LARGEST_NUMBER), query.page());
    let (after, before) = (query.moment("after"), query.moment("before"));
    let within = query.number("within", 0, 5_256_000_i64);
    query.checked()?;
    let since = within.and_then(|minutes| Utc::now().checked_sub_signed(TimeDelta::minutes(minutes)));
    let filter = RunFilter {
        run,
        after: after.max(since.map(written)),
        before,
        order: match order {
            Some("createdAt") => RunOrder::CreatedAt,
            Some("startedAt") => RunOrder::StartedAt,
            Some("finishedAt") => RunOrder::FinishedAt,
            _ => RunOrder::Id,
        },
        offset: i64::try_from(page.offset).unwrap_or(i64::MAX),
        limit: page.limit as i64 + 1,
    };
    let mut runs = api.service.store().page_of_runs(sync.id, &filter).await?;
    let has_more = runs.len() > page.limit;
    runs.truncate(page.limit);
    Ok(Json(List { data: runs.iter().map(|run| SyncRun::of(&api, run, &caller)).collect(), has_more }))
}

/// Show a run
#[utoipa::path(get, path = "/syncs/{syncId}/runs/{runId}", operation_id = "GetSyncRun", tag = "runs",
    params(("syncId" = i64, Path, minimum = 1, description = "The number of the sync"),
        ("runId" = i64, Path, minimum = 1, description = "The number of the run")),
    responses((status = 200, description = "The run, with its report", body = SyncRunDetail)))]
pub(super) async fn get(
    Reader(caller): Reader,
    State(api): State<Api>,
    path: Path,
) -> Result<Json<SyncRunDetail>, Fault> {
    let (sync, run) = run_of(&api, &path).await?;
    let mut report = run.report.clone().map(|report| api.redacted(report));
    if let Some(report) = report.as_mut().filter(|_| !caller.sees_rows()) {
        without_rows(report);
    }
    let causes = serde_json::to_value(&run.causes).unwrap_or_default();
    Ok(Json(SyncRunDetail { run: SyncRun::of(&api, &run, &caller), sync_id: sync.id, causes, report }))
}

/// Cancel a run
///
/// A run that waits ends at once; one that goes on finishes the requests under way and commits what was accepted.
#[utoipa::path(post, path = "/syncs/{syncId}/runs/{runId}/cancel", operation_id = "CancelSyncRun", tag = "runs",
    params(("syncId" = i64, Path, minimum = 1, description = "The number of the sync"),
        ("runId" = i64, Path, minimum = 1, description = "The number of the run")),
    responses((status = 200, description = "The run, which ends now or in a moment", body = SyncRun),
        (status = 409, description = "The run is over, or a command executes it", body = Fault)))]
pub(super) async fn cancel(
    Runner(caller): Runner,
    State(api): State<Api>,
    path: Path,
) -> Result<Json<SyncRun>, Fault> {
    let (_, run) = run_of(&api, &path).await?;
    if !api.service.cancel_run(run.id).await? {
        let message = format!("the run {} is over, or `levin run` executes it", run.id);
        return Err(Fault::new(axum::http::StatusCode::CONFLICT, message, "there is nothing to cancel"));
    }
    let (_, run) = run_of(&api, &path).await?;
    Ok(Json(SyncRun::of(&api, &run, &caller)))
}
