//! Asking for runs.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::Api;
use super::auth::{Caller, Runner};
use super::fault::{Fault, Wrong};
use super::request::{AnyBody, Body, Path};
use super::runs::sync_of;
use crate::error::ErrorCode;
use crate::project::SyncSpec;
use crate::run::{PlanId, Start};
use crate::store::{Asked, Cause};

/// The header by which a request that is sent again is known.
const KEY: &str = "idempotency-key";

/// From where a run starts. At most one of them is true.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "describes what `start` reads")]
pub(super) struct TriggerInput {
    /// Send every row again as added.
    #[schema(default = false, nullable)]
    full_resync: Option<bool>,
    /// Take the model's rows as accepted, and send nothing.
    #[schema(rename = "resetCDC", default = false, nullable)]
    #[serde(rename = "resetCDC")]
    reset_cdc: Option<bool>,
    /// Empty the destination, and send every row.
    #[schema(default = false, nullable)]
    clear_and_fill: Option<bool>,
}

/// Which sync runs, by its number or its slug, and from where it starts.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "describes what `start` reads")]
pub(super) struct TriggerCustomInput {
    /// The number of the sync, or its digits.
    #[schema(value_type = Option<serde_json::Value>)]
    sync_id: Option<i64>,
    /// The slug of the sync.
    #[schema(min_length = 1)]
    sync_slug: Option<String>,
    /// Send every row again as added.
    #[schema(default = false, nullable)]
    full_resync: Option<bool>,
    /// Take the model's rows as accepted, and send nothing.
    #[schema(rename = "resetCDC", default = false, nullable)]
    #[serde(rename = "resetCDC")]
    reset_cdc: Option<bool>,
    /// Empty the destination, and send every row.
    #[schema(default = false, nullable)]
    clear_and_fill: Option<bool>,
}

/// The run that was asked for.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TriggerOutput {
    /// Its number, as text; `runId` of the list of runs takes it.
    #[schema(pattern = "^[0-9]+$")]
    id: String,
}

/// Run a sync
///
/// The run is in the list of runs before this answers. While the sync runs, one more run waits; asked again
/// meanwhile, the answer is that one.
#[utoipa::path(post, path = "/syncs/{syncId}/trigger", operation_id = "TriggerRun", tag = "syncs",
    params(("syncId" = i64, Path, minimum = 1, description = "The number of the sync"),
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, description = "Asked again with the same key, the answer is the same run")),
    request_body(content(
        (Option<TriggerInput> = "application/json"),
        (Option<TriggerInput> = "application/x-www-form-urlencoded"))),
    responses((status = 200, description = "The run that was queued", body = TriggerOutput),
        (status = 409, description = "The sync is disabled, a run waits that starts another way, or the Idempotency-Key was used for another request", body = Fault)))]
pub(super) async fn one(
    Runner(caller): Runner,
    State(api): State<Api>,
    path: Path,
    headers: HeaderMap,
    AnyBody(mut body): AnyBody,
) -> Result<Json<TriggerOutput>, Fault> {
    let sync = sync_of(&api, &path)?;
    let start = start(&mut body);
    body.checked()?;
    ask(&api, &caller, &sync, start, None, &headers).await
}

/// Run a sync, named by its number or its slug
#[utoipa::path(post, path = "/syncs/trigger", operation_id = "TriggerRunCustom", tag = "syncs",
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, description = "Asked again with the same key, the answer is the same run")),
    request_body(content(
        (TriggerCustomInput = "application/json"),
        (TriggerCustomInput = "application/x-www-form-urlencoded"))),
    responses((status = 200, description = "The run that was queued", body = TriggerOutput),
        (status = 409, description = "The sync is disabled, a run waits that starts another way, or the Idempotency-Key was used for another request", body = Fault)))]
pub(super) async fn any(
    Runner(caller): Runner,
    State(api): State<Api>,
    headers: HeaderMap,
    AnyBody(mut body): AnyBody,
) -> Result<Json<TriggerOutput>, Fault> {
    let start = start(&mut body);
    let (id, slug) = (body.id("syncId"), body.text("syncSlug"));
    if !body.has("syncId") && !body.has("syncSlug") {
        body.say("syncId", "either `syncId` or `syncSlug` is required");
    }
    body.checked()?;
    let project = api.service.project();
    let sync = project.syncs.iter().find(|sync| {
        id.is_none_or(|id| sync.id == id) && slug.as_ref().is_none_or(|slug| sync.slug == *slug)
    });
    let named = slug.or_else(|| id.map(|id| id.to_string())).unwrap_or_default();
    let sync = sync.ok_or_else(|| Fault::not_found("sync", &named))?;
    ask(&api, &caller, sync, start, None, &headers).await
}

/// From where a run is to start.
pub(super) fn start(body: &mut Body) -> Start {
    let (full, reset, clear) = (body.flag("fullResync"), body.flag("resetCDC"), body.flag("clearAndFill"));
    match (full, reset, clear) {
        (false, false, false) => Start::Incremental,
        (true, false, false) => Start::FullResync { keep_removals: false },
        (false, true, false) => Start::ResetCdc,
        (false, false, true) => Start::ClearAndFill,
        _ => {
            let given = [("fullResync", full), ("resetCDC", reset), ("clearAndFill", clear)];
            for (name, _) in given.into_iter().filter(|(_, given)| *given) {
                body.say(name, "only one of `fullResync`, `resetCDC` and `clearAndFill` can be true");
            }
            Start::Incremental
        }
    }
}

/// Queues a run.
pub(super) async fn ask(
    api: &Api,
    caller: &Caller,
    sync: &Arc<SyncSpec>,
    start: Start,
    approve: Option<PlanId>,
    headers: &HeaderMap,
) -> Result<Json<TriggerOutput>, Fault> {
    // W3C's, of whoever asks: the run belongs to that trace.
    let trace = headers.get("traceparent").and_then(|header| Some(header.to_str().ok()?.to_owned()));
    let causes = vec![Cause::Api { key: caller.name.clone() }];
    let asked = Asked { start, approve, causes, trace: trace.filter(|header| header.len() <= 256) };
    let once =
        once(caller, headers, &json!({"sync": sync.id, "start": start, "approve": approve}).to_string())?;
    let once = once.as_ref().map(|(name, digest)| (name.as_str(), digest.as_str()));
    let placed = api.service.trigger(sync, asked, once).await.map_err(|error| {
        if error.code == ErrorCode::Usage && once.is_some() {
            return Fault::new(StatusCode::CONFLICT, error.message.clone(), error.advice());
        }
        error.into()
    })?;
    Ok(Json(TriggerOutput { id: placed.run.to_string() }))
}

/// The caller's own name for this question, and a digest of what is asked.
fn once(caller: &Caller, headers: &HeaderMap, asked: &str) -> Result<Option<(String, String)>, Fault> {
    let Some(key) = headers.get(KEY) else { return Ok(None) };
    let key = key.to_str().ok().map(str::trim).filter(|key| (1..=255).contains(&key.len()));
    let key = key.ok_or_else(|| {
        let mut wrong = Wrong::default();
        wrong.say("Idempotency-Key", "must be a text of 1 to 255 characters");
        wrong.fault()
    })?;
    let name = format!("trigger\n{}\n{key}", caller.name);
    Ok(Some((name, blake3::hash(asked.as_bytes()).to_hex().to_string())))
}
