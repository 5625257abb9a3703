//! `/sync-sequences`: syncs that run one after another.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::Api;
use super::auth::{Reader, Runner};
use super::fault::Fault;
use super::objects::{List, ObjectQuery, WORKSPACE, Wanted, found};
use super::request::{AnyBody, Path, Query};
use super::runs::RunStatus;
use super::schedules;
use crate::config::Kind;
use crate::project::{OnFailure, Project, SequenceSpec};
use crate::store::{Cause, SequenceRun};

/// Syncs that run one after another.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SyncSequence {
    /// Its number.
    #[schema(minimum = 1)]
    id: i64,
    /// Its name, which is its slug.
    name: String,
    /// Its slug.
    slug: String,
    /// The number of the workspace: a project is one.
    workspace_id: i64,
    /// When it was first read.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it was first read as it is.
    #[schema(format = DateTime)]
    updated_at: String,
    /// When it runs by itself; null: when it is asked to.
    #[schema(required)]
    schedule: Option<schedules::Schedule>,
    /// Its members, in the order in which they run.
    syncs: Vec<Member>,
}

/// A sync in a sequence.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Member {
    /// The number of the sync.
    sync_id: i64,
    /// Its slug.
    sync_slug: String,
    /// What a failed run means for the members after it.
    on_failure: MemberRule,
}

/// What a failed run means for the members after it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum MemberRule {
    Stop,
    Continue,
}

impl SyncSequence {
    fn of(api: &Api, project: &Project, sequence: &SequenceSpec) -> Self {
        let times = api.times(Kind::Sequence, sequence.id);
        Self {
            id: sequence.id,
            name: sequence.slug.clone(),
            slug: sequence.slug.clone(),
            workspace_id: WORKSPACE,
            created_at: times.created_at,
            updated_at: times.updated_at,
            schedule: sequence.schedule.as_ref().map(|schedule| {
                let written = api.written(Kind::Sequence, sequence.id, &[]);
                schedules::Schedule::of(schedule, written.get("schedule").unwrap_or(&Value::Null))
            }),
            syncs: sequence
                .members
                .iter()
                .map(|member| Member {
                    sync_id: project.sync(&member.sync).map_or(0, |sync| sync.id),
                    sync_slug: member.sync.clone(),
                    on_failure: match member.on_failure {
                        OnFailure::Stop => MemberRule::Stop,
                        OnFailure::Continue => MemberRule::Continue,
                    },
                })
                .collect(),
        }
    }
}

/// The run of a sequence that was asked for.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SequenceTriggerOutput {
    /// Its number.
    #[schema(format = "uuid")]
    id: String,
}

/// Where the run of a sequence is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum SequenceStatus {
    Pending,
    Running,
    Done,
    Failed,
    Cancelled,
}

/// A run of a sequence.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SyncSequenceRun {
    /// Its number.
    #[schema(format = "uuid")]
    id: String,
    /// The number of the sequence.
    sequence_id: i64,
    /// Where it is.
    status: SequenceStatus,
    /// When it was asked for.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it ended.
    #[schema(required, format = DateTime)]
    finished_at: Option<String>,
    /// The runs of its members so far, in their order.
    sync_runs: Vec<SequenceMemberRun>,
}

/// The run of a member of a sequence.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SequenceMemberRun {
    /// The number of the sync.
    sync_id: i64,
    /// The number of its run.
    sync_run_id: i64,
    /// Where it is, or how it ended.
    status: RunStatus,
    /// When it ended.
    #[schema(required, format = DateTime)]
    finished_at: Option<String>,
}

impl From<SequenceRun> for SyncSequenceRun {
    fn from(run: SequenceRun) -> Self {
        let begun = run.runs.iter().any(|member| member.status != "queued");
        let runs = run.runs.into_iter().map(|member| SequenceMemberRun {
            sync_id: member.sync_id,
            sync_run_id: member.run,
            status: match member.status.as_str() {
                "queued" => RunStatus::Queued,
                status => RunStatus::of(status, None, None),
            },
            finished_at: member.finished_at,
        });
        Self {
            sync_runs: runs.collect(),
            id: run.id,
            sequence_id: run.sequence_id,
            status: match run.status.as_str() {
                "done" => SequenceStatus::Done,
                "failed" => SequenceStatus::Failed,
                "cancelled" => SequenceStatus::Cancelled,
                _ if begun => SequenceStatus::Running,
                _ => SequenceStatus::Pending,
            },
            created_at: run.created_at,
            finished_at: run.finished_at,
        }
    }
}

/// List sequences
#[utoipa::path(get, path = "/sync-sequences", operation_id = "ListSyncSequence", tag = "sequences",
    params(ObjectQuery),
    responses((status = 200, description = "A page of sequences", body = List<SyncSequence>)))]
pub(super) async fn list(
    _: Reader,
    State(api): State<Api>,
    mut query: Query,
) -> Result<Json<List<SyncSequence>>, Fault> {
    let wanted = Wanted::read(&mut query);
    query.checked()?;
    let project = api.service.project();
    let (page, has_more) =
        wanted.of(&api, Kind::Sequence, project.sequences.iter(), |one| (one.id, one.slug.as_str()));
    Ok(Json(List {
        data: page.into_iter().map(|one| SyncSequence::of(&api, &project, one)).collect(),
        has_more,
    }))
}

/// Run a sequence
///
/// While a run of the sequence goes on, the answer is that one.
#[utoipa::path(post, path = "/sync-sequences/{syncSequenceId}/trigger", operation_id = "TriggerSequenceRun",
    tag = "sequences",
    params(("syncSequenceId" = i64, Path, minimum = 1, description = "The number of the sequence")),
    responses((status = 200, description = "The run of the sequence", body = SequenceTriggerOutput),
        (status = 409, description = "A run of the first sync waits that starts another way", body = Fault)))]
pub(super) async fn trigger(
    Runner(caller): Runner,
    State(api): State<Api>,
    path: Path,
    _: AnyBody,
) -> Result<Json<SequenceTriggerOutput>, Fault> {
    let id = path.id("syncSequenceId")?;
    let project = api.service.project();
    let sequence = found("sequence", id, project.sequences.iter(), |sequence| sequence.id)?;
    let id = api.service.trigger_sequence(sequence, Cause::Api { key: caller.name }).await?;
    Ok(Json(SequenceTriggerOutput { id }))
}

/// Show a run of a sequence
#[utoipa::path(get, path = "/sync-sequences/runs/{syncSequenceRunId}", operation_id = "GetSyncSequenceRun",
    tag = "sequences",
    params(("syncSequenceRunId" = String, Path, format = "uuid", description = "The number of the run")),
    responses((status = 200, description = "The run of the sequence", body = SyncSequenceRun)))]
pub(super) async fn run(
    _: Reader,
    State(api): State<Api>,
    path: Path,
) -> Result<Json<SyncSequenceRun>, Fault> {
    let id = path.text("syncSequenceRunId");
    let id = uuid::Uuid::try_parse(id).map_err(|_| Fault::field("syncSequenceRunId", "must be a UUID"))?;
    let run = api.service.store().sequence_run(&id.to_string()).await?;
    Ok(Json(run.ok_or_else(|| Fault::not_found("run of a sequence", &id.to_string()))?.into()))
}
