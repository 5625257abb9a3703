//! `POST /hooks/{name}`: messages of other services, which start runs. No key is asked for: the signature proves who
//! it is.

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use chrono::Utc;
use connectors::hook::{NotReceived, Said};
use serde_json::{Value, json};

use super::Api;
use crate::error::{Error, ErrorCode};
use crate::project::{HookSpec, Project, Schedule};
use crate::serve::Service;
use crate::store::{Asked, Cause};

/// The longest body.
const LONGEST: usize = 1024 * 1024;

/// Where hooks are received.
pub(super) fn routes() -> Router<Api> {
    Router::new().route("/hooks/{name}", post(receive)).layer(DefaultBodyLimit::max(LONGEST))
}

/// Answers 200 to whatever is signed and understood, also when it starts nothing: it need not be sent again.
async fn receive(
    State(api): State<Api>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, Json<Value>) {
    let service = &api.service;
    let project = service.project();
    let Some(hook) = project.hooks.iter().find(|hook| hook.slug == name) else {
        return (StatusCode::NOT_FOUND, Json(json!({"error": "there is no such hook"})));
    };
    let received = match hook.hook.receive(&headers, &body, Utc::now()) {
        Ok(received) => received,
        Err(NotReceived::Unsigned) => {
            tracing::warn!(hook = name, "a message whose signature is not right was refused");
            return (StatusCode::UNAUTHORIZED, Json(json!({"error": "unauthorized"})));
        }
        Err(NotReceived::Unreadable(message)) => {
            return (StatusCode::BAD_REQUEST, Json(json!({"error": message})));
        }
    };
    match start(service, &project, hook, &received.id, received.said).await {
        Ok(answer) => (StatusCode::OK, Json(answer)),
        Err(error) if error.code == ErrorCode::Usage => {
            (StatusCode::BAD_REQUEST, Json(json!({"error": error.message})))
        }
        Err(error) => {
            tracing::warn!(hook = name, error = %error, "a message could not be dealt with");
            let answer = json!({"error": "this cannot be dealt with now; send it again"});
            (StatusCode::SERVICE_UNAVAILABLE, Json(answer))
        }
    }
}

/// What a message starts.
#[derive(Default)]
struct Started {
    runs: Vec<Value>,
    sequences: Vec<Value>,
    skipped: Vec<Value>,
}

async fn start(
    service: &Service,
    project: &Project,
    hook: &HookSpec,
    id: &str,
    said: Said,
) -> Result<Value, Error> {
    let (syncs, sequences) = match &said {
        Said::Nothing(reason) => {
            tracing::info!(hook = hook.slug, reason, "a message starts nothing");
            return Ok(json!({"runs": [], "sequenceRuns": [], "reason": reason}));
        }
        Said::Sync(slug) => (vec![project.sync(slug)?.clone()], Vec::new()),
        Said::Sequence(slug) => {
            let sequence = project.sequences.iter().find(|sequence| sequence.slug == *slug);
            let unknown = || Error::new(ErrorCode::Usage, format!("the project has no sequence `{slug}`"));
            (Vec::new(), vec![sequence.ok_or_else(unknown)?.clone()])
        }
        said => {
            let waits =
                |schedule: &Option<Schedule>| schedule.as_ref().is_some_and(|s| waits_for(s, hook, said));
            (
                project.syncs.iter().filter(|sync| waits(&sync.schedule)).cloned().collect(),
                project.sequences.iter().filter(|sequence| waits(&sequence.schedule)).cloned().collect(),
            )
        }
    };
    if service.store().was_received(&hook.slug, id).await? {
        return Ok(json!({"runs": [], "sequenceRuns": [], "reason": "this message was received before"}));
    }
    let mut started = Started::default();
    let cause = Cause::Hook { id: id.to_owned() };
    for sync in &syncs {
        // Asked for once, also when the process ends before the message is remembered.
        let once = format!("hook {} {id} {}", hook.slug, sync.id);
        match service.trigger(sync, Asked::because(cause.clone()), Some((&once, id))).await {
            Ok(placed) => started.runs.push(json!({"id": placed.run, "syncSlug": sync.slug})),
            Err(error) if error.code == ErrorCode::SyncDisabled => {
                started.skipped.push(json!({"syncSlug": sync.slug, "reason": error.message}));
            }
            Err(error) => return Err(error),
        }
    }
    for sequence in &sequences {
        let run = service.trigger_sequence(sequence, cause.clone()).await?;
        started.sequences.push(json!({"id": run, "sequenceSlug": sequence.slug}));
    }
    service.store().received(&hook.slug, id).await?;
    tracing::info!(
        hook = hook.slug,
        runs = started.runs.len(),
        sequences = started.sequences.len(),
        "a message was received"
    );
    let mut answer = json!({"runs": started.runs, "sequenceRuns": started.sequences});
    if !started.skipped.is_empty() {
        answer["skipped"] = json!(started.skipped);
    } else if syncs.is_empty() && sequences.is_empty() {
        answer["reason"] = json!("no schedule waits for this");
    }
    Ok(answer)
}

/// Whether a schedule waits for what a hook says.
fn waits_for(schedule: &Schedule, hook: &HookSpec, said: &Said) -> bool {
    let here = |name: &Option<String>| name.as_ref().is_none_or(|name| *name == hook.slug);
    match (schedule, said) {
        (Schedule::DbtCloud { job, account, hook }, Said::DbtCloudJob { job: ended, account: of }) => {
            here(hook) && job == ended && account.as_ref().is_none_or(|account| account == of)
        }
        (Schedule::Fivetran { connector, hook }, Said::FivetranConnector { connector: synced }) => {
            here(hook) && connector == synced
        }
        _ => false,
    }
}
