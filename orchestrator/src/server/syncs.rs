//! `/syncs`: what goes where, and how it is going.

use std::collections::{BTreeMap, HashMap};

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::auth::Reader;
use super::fault::Fault;
use super::objects::{List, ObjectQuery, WORKSPACE, Wanted};
use super::request::{Path, Query};
use super::runs::{RunStatus, sync_of};
use super::schedules;
use crate::config::Kind;
use crate::mapping::referenced;
use crate::project::{Mapping, MappingValue, Mappings, SyncSpec};
use crate::store::RunRow;

/// How a sync is doing: where its run is, or how the last one ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum SyncStatus {
    Disabled,
    Pending,
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

impl SyncStatus {
    fn of(disabled: bool, last: Option<&RunRow>) -> Self {
        let last = last.map(RunStatus::of_run);
        match last {
            Some(RunStatus::Queued) => Self::Queued,
            Some(RunStatus::Querying) => Self::Querying,
            Some(RunStatus::Processing) => Self::Processing,
            Some(RunStatus::Reporting) => Self::Reporting,
            _ if disabled => Self::Disabled,
            Some(RunStatus::Success) => Self::Success,
            Some(RunStatus::Warning) => Self::Warning,
            Some(RunStatus::Failed) => Self::Failed,
            Some(RunStatus::Cancelled) => Self::Cancelled,
            Some(RunStatus::Interrupted) => Self::Interrupted,
            None => Self::Pending,
        }
    }
}

/// A model, a destination, and what goes from one to the other.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sync {
    /// Its number.
    #[schema(minimum = 1)]
    id: i64,
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
    /// The number of its destination.
    destination_id: i64,
    /// The number of its model.
    model_id: i64,
    /// What goes where: `mode`, `object`, `mappings`, `externalIdMapping`, and the other keys of its file.
    configuration: Map<String, Value>,
    /// When it runs by itself; null: when it is asked to.
    #[schema(required)]
    schedule: Option<schedules::Schedule>,
    /// How it is doing.
    status: SyncStatus,
    /// Whether it rests.
    disabled: bool,
    /// When its last run began, or was asked for; null before the first one.
    #[schema(required, format = DateTime)]
    last_run_at: Option<String>,
    /// The columns of the model that it names.
    referenced_columns: Vec<String>,
    /// The column that tells rows apart; several are separated by commas.
    primary_key: String,
    /// Nothing.
    external_segment: BTreeMap<String, String>,
    /// None.
    tags: BTreeMap<String, String>,
}

impl Sync {
    fn of(api: &Api, sync: &SyncSpec, last: Option<&RunRow>) -> Self {
        let times = api.times(Kind::Sync, sync.id);
        let disabled = api.service.is_disabled(sync);
        Self {
            id: sync.id,
            slug: sync.slug.clone(),
            workspace_id: WORKSPACE,
            created_at: times.created_at,
            updated_at: times.updated_at,
            destination_id: sync.destination.id,
            model_id: sync.model.id,
            configuration: configuration(api, sync),
            schedule: sync.schedule.as_ref().map(schedules::Schedule::of),
            status: SyncStatus::of(disabled, last),
            disabled,
            last_run_at: last.map(|run| run.started_at.clone()),
            referenced_columns: referenced(sync),
            primary_key: sync.model.primary_key.join(","),
            external_segment: BTreeMap::new(),
            tags: BTreeMap::new(),
        }
    }
}

/// What a sync's file says of where its rows go, in the words that clients know.
fn configuration(api: &Api, sync: &SyncSpec) -> Map<String, Value> {
    let elsewhere = ["slug", "renamed_from", "model", "destination", "schedule", "disabled", "mappings"];
    let written = api.written(Kind::Sync, sync.id, &elsewhere);
    let mut shown = Map::new();
    shown.insert("mode".to_owned(), sync.mode.name().into());
    shown.insert("object".to_owned(), sync.object.clone().into());
    let mappings = match &sync.mappings {
        Mappings::AllColumns => Vec::new(),
        Mappings::Fields(fields) => fields.iter().map(mapping).collect(),
    };
    shown.insert("mappings".to_owned(), mappings.into());
    let (from, to) = match (sync.matching.first(), sync.model.primary_key.first()) {
        (Some(field), _) => (field.from.clone(), field.to.clone()),
        (None, key) => (key.cloned().unwrap_or_default(), key.cloned().unwrap_or_default()),
    };
    shown.insert("externalIdMapping".to_owned(), json!({"to": to, "from": from, "type": "standard"}));
    for (key, value) in written {
        shown.entry(key).or_insert(value);
    }
    shown
}

fn mapping(mapping: &Mapping) -> Value {
    let mut shown = json!({"to": mapping.to});
    if let (Value::Object(shown), Value::Object(value)) = (&mut shown, value_of(&mapping.value)) {
        shown.extend(value);
    }
    shown
}

fn value_of(value: &MappingValue) -> Value {
    match value {
        MappingValue::Column(from) => json!({"from": from, "type": "standard"}),
        MappingValue::Template(template) => json!({"template": template, "type": "template"}),
        MappingValue::Constant(value) => json!({"value": value, "type": "static"}),
        MappingValue::Variable(variable) => json!({"variable": variable, "type": "variable"}),
        MappingValue::Object(fields) => {
            json!({"object": fields.iter().map(mapping).collect::<Vec<_>>(), "type": "object"})
        }
        MappingValue::Array(items) => {
            json!({"array": items.iter().map(value_of).collect::<Vec<_>>(), "type": "array"})
        }
    }
}

/// Which syncs are shown, beside what holds for all objects.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes what the handler reads")]
pub(super) struct SyncQuery {
    /// Only syncs of this model.
    #[param(rename = "modelId", minimum = 1)]
    model_id: Option<i64>,
    /// Only syncs whose last run began after this moment.
    #[param(value_type = Option<String>, format = DateTime)]
    after: Option<String>,
    /// Only syncs whose last run began before this moment.
    #[param(value_type = Option<String>, format = DateTime)]
    before: Option<String>,
}

/// List syncs
#[utoipa::path(get, path = "/syncs", operation_id = "ListSync", tag = "syncs", params(ObjectQuery, SyncQuery),
    responses((status = 200, description = "A page of syncs", body = List<Sync>)))]
pub(super) async fn list(
    _: Reader,
    State(api): State<Api>,
    mut query: Query,
) -> Result<Json<List<Sync>>, Fault> {
    let wanted = Wanted::read(&mut query);
    let model = query.number("modelId", 1, i64::MAX);
    let (after, before) = (query.moment("after"), query.moment("before"));
    query.checked()?;
    let project = api.service.project();
    let store = api.service.store();
    let mut last: HashMap<i64, RunRow> = HashMap::new();
    let by_run = after.is_some() || before.is_some();
    if by_run {
        let all: Vec<i64> = project.syncs.iter().map(|sync| sync.id).collect();
        last = store.last_runs(&all).await?;
    }
    let fits = |sync: &SyncSpec| {
        let at = last.get(&sync.id).map(|run| &run.started_at);
        model.is_none_or(|model| sync.model.id == model)
            && (!by_run
                || at.is_some_and(|at| {
                    after.as_ref().is_none_or(|after| at > after)
                        && before.as_ref().is_none_or(|before| at < before)
                }))
    };
    let syncs = project.syncs.iter().filter(|sync| fits(sync));
    let (page, has_more) = wanted.of(&api, Kind::Sync, syncs, |sync| (sync.id, sync.slug.as_str()));
    if !by_run {
        let page: Vec<i64> = page.iter().map(|sync| sync.id).collect();
        last = store.last_runs(&page).await?;
    }
    let data = page.into_iter().map(|sync| Sync::of(&api, sync, last.get(&sync.id))).collect();
    Ok(Json(List { data, has_more }))
}

/// Show a sync
#[utoipa::path(get, path = "/syncs/{syncId}", operation_id = "GetSync", tag = "syncs",
    params(("syncId" = i64, Path, minimum = 1, description = "The number of the sync")),
    responses((status = 200, description = "The sync", body = Sync)))]
pub(super) async fn get(_: Reader, State(api): State<Api>, path: Path) -> Result<Json<Sync>, Fault> {
    one(&api, sync_of(&api, &path)?.as_ref()).await
}

pub(super) async fn one(api: &Api, sync: &SyncSpec) -> Result<Json<Sync>, Fault> {
    let last = api.service.store().last_runs(&[sync.id]).await?;
    Ok(Json(Sync::of(api, sync, last.get(&sync.id))))
}
