//! What a run would do, and plans that somebody approves.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Api;
use super::auth::Runner;
use super::fault::Fault;
use super::request::{AnyBody, JsonBody, Path};
use super::runs::{Counts, sync_of};
use super::trigger::{TriggerInput, TriggerOutput, ask, start};
use crate::error::{Error, ErrorCode};
use crate::run::{PlanId, Request, Start, rehearse};

/// What a run would do now, as `levin plan --json` prints it.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, clippy::struct_field_names, reason = "describes what a plan prints")]
pub(super) struct Plan {
    /// Names the plan; `approve` takes it when a run was stopped by a guard and found the same.
    #[schema(pattern = "^plan_[0-9]+_[0-9a-f]{16}$")]
    plan_id: String,
    /// The number of the sync.
    sync_id: i64,
    /// Its slug.
    sync_slug: String,
    /// Why rows are sent: `first_run`, `incremental`, `full_resync` …
    reason: String,
    /// Rows that the model returns.
    #[schema(minimum = 0)]
    query_size: u64,
    /// Rows that would be sent.
    planned_rows: Counts,
    /// Differences that the mode does not send.
    not_sent: Counts,
    /// Rows as the destination last accepted them.
    #[schema(minimum = 0)]
    unchanged_count: u64,
    /// Rows whose key occurs more than once.
    #[schema(minimum = 0)]
    duplicate_key_count: u64,
    /// Rows whose key holds a null.
    #[schema(minimum = 0)]
    null_key_count: u64,
    /// In how many changed rows each column differs.
    #[schema(value_type = Object)]
    changed_columns: Map<String, Value>,
    /// Every guard, and whether it would stop the run.
    #[schema(value_type = Vec<Object>)]
    guards: Vec<Value>,
    /// A few rows of each operation.
    #[schema(value_type = Vec<Object>)]
    samples: Vec<Value>,
}

/// Plan a run
///
/// Computes in the warehouse what a run would send now: exact counts, changed columns, guards and samples. Sends nothing
/// and leaves nothing behind. It takes as long as a run's diff. Whoever asks for a plan that is being made gets that one.
#[utoipa::path(post, path = "/syncs/{syncId}/plan", operation_id = "PlanSync", tag = "plans",
    params(("syncId" = i64, Path, minimum = 1, description = "The number of the sync")),
    request_body(content(
        (Option<TriggerInput> = "application/json"),
        (Option<TriggerInput> = "application/x-www-form-urlencoded"))),
    responses((status = 200, description = "The plan", body = Plan),
        (status = 409, description = "No plan can be made: the error says why", body = Fault),
        (status = 502, description = "The warehouse does not answer, or refuses", body = Fault)))]
pub(super) async fn plan(
    _: Runner,
    State(api): State<Api>,
    path: Path,
    AnyBody(mut body): AnyBody,
) -> Result<Json<Value>, Fault> {
    let sync = sync_of(&api, &path)?;
    let start = start(&mut body);
    body.checked()?;
    let (service, of) = (api.service.clone(), sync.clone());
    let plan = api.questions.plan(sync.model.source.id, &sync, start, || async move {
        let request = Request { start, ..Request::default() };
        let plan = rehearse(&service.project(), &of, service.store(), request).await?;
        serde_json::to_value(&plan).map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))
    });
    let plan = plan.await??;
    Ok(Json(api.redacted(plan)))
}

/// Which plan is approved.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "describes what `approve` reads")]
pub(super) struct ApproveInput {
    /// The name of the plan: `planId` of the report of a run that a guard stopped.
    #[schema(pattern = "^plan_[0-9]{1,18}_[0-9a-f]{16}$")]
    plan_id: String,
}

/// Approve a plan
///
/// Queues a run that sends exactly the rows of a plan that was kept, whatever the guards said of them. It fails with
/// `PLAN_STALE` when something has changed since.
#[utoipa::path(post, path = "/syncs/{syncId}/approve", operation_id = "ApprovePlan", tag = "plans",
    params(("syncId" = i64, Path, minimum = 1, description = "The number of the sync"),
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255,
            description = "Asked again with the same key, the answer is the same run")),
    request_body = ApproveInput,
    responses((status = 200, description = "The run that was queued", body = TriggerOutput),
        (status = 409, description = "The sync is disabled, or a run waits that starts another way", body = Fault)))]
pub(super) async fn approve(
    Runner(caller): Runner,
    State(api): State<Api>,
    path: Path,
    headers: HeaderMap,
    JsonBody(mut body): JsonBody,
) -> Result<Json<TriggerOutput>, Fault> {
    let sync = sync_of(&api, &path)?;
    body.required(&["planId"]);
    let name = body.text("planId").unwrap_or_default();
    let plan = name.parse::<PlanId>().ok();
    if plan.is_none() {
        body.say("planId", "must be the name of a plan, such as plan_1_0123456789abcdef");
    }
    body.checked()?;
    if plan.is_none_or(|plan| plan.sync() != sync.id) {
        return Err(Fault::not_found("plan of this sync", &name));
    }
    ask(&api, &caller, &sync, Start::Incremental, plan, &headers).await
}
