//! `/syncs`: what goes where, and how it is going.

use std::collections::{BTreeMap, HashMap};

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::auth::{Admin, Reader};
use super::fault::Fault;
use super::files::{self, Keys, merge, slug_of};
use super::objects::{List, ObjectQuery, WORKSPACE, Wanted};
use super::request::{Body, JsonBody, LARGEST_NUMBER, Path, Query};
use super::runs::{RunStatus, sync_of};
use super::schedules;
use crate::config::Kind;
use crate::mapping::referenced;
use crate::project::SyncSpec;
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
        let (columns, redactor) = (referenced(sync), &api.service.context().redactor);
        Self {
            id: sync.id,
            slug: sync.slug.clone(),
            workspace_id: WORKSPACE,
            created_at: times.created_at,
            updated_at: times.updated_at,
            destination_id: sync.destination.id,
            model_id: sync.model.id,
            configuration: configuration(api, sync),
            schedule: schedule(api, sync),
            status: SyncStatus::of(disabled, last),
            disabled,
            last_run_at: last.map(|run| run.started_at.clone()),
            referenced_columns: columns.iter().map(|column| redactor.redact(column)).collect(),
            primary_key: api.primary_key(&sync.model).join(","),
            external_segment: BTreeMap::new(),
            tags: BTreeMap::new(),
        }
    }
}

/// When a sync runs by itself, as it is shown.
fn schedule(api: &Api, sync: &SyncSpec) -> Option<schedules::Schedule> {
    let written = api.written(Kind::Sync, sync.id, &[]);
    let written = written.get("schedule").unwrap_or(&Value::Null);
    sync.schedule.as_ref().map(|schedule| schedules::Schedule::of(schedule, written))
}

/// What a sync's file says of where its rows go, as it is written, in the words that clients know.
fn configuration(api: &Api, sync: &SyncSpec) -> Map<String, Value> {
    let elsewhere = ["slug", "renamed_from", "model", "destination", "schedule", "disabled"];
    let written = api.written(Kind::Sync, sync.id, &elsewhere);
    let mut shown = Map::new();
    shown.insert("mode".to_owned(), sync.mode.name().into());
    shown.insert("object".to_owned(), written.get("object").cloned().unwrap_or_default());
    let mappings = written.get("mappings").and_then(Value::as_array);
    shown.insert("mappings".to_owned(), mappings.into_iter().flatten().map(typed).collect());
    let (external, several) = match written.get("match") {
        Some(Value::Array(fields)) => (fields.first(), fields.len() > 1),
        external => (external, false),
    };
    let external = match external {
        Some(field) => json!({"to": field["to"], "from": field["from"], "type": KINDS[0].1}),
        None => {
            let key = api.primary_key(&sync.model).into_iter().next().unwrap_or_default();
            json!({"to": key, "from": key, "type": KINDS[0].1})
        }
    };
    shown.insert("externalIdMapping".to_owned(), external);
    for (key, value) in written {
        // One field says `externalIdMapping` as well.
        if key != "match" || several {
            shown.entry(key).or_insert(value);
        }
    }
    shown
}

/// The key by which a mapping says what goes into its field, and the word that clients have for it.
const KINDS: [(&str, &str); 6] = [
    ("from", "standard"),
    ("template", "template"),
    ("value", "static"),
    ("variable", "variable"),
    ("object", "object"),
    ("array", "array"),
];

/// A mapping as a file writes it, with the word for its kind.
fn typed(mapping: &Value) -> Value {
    let Value::Object(fields) = mapping else { return mapping.clone() };
    let mut shown = fields.clone();
    if let Some((_, word)) = KINDS.iter().find(|(key, _)| fields.contains_key(*key)) {
        shown.insert("type".to_owned(), (*word).into());
    }
    for nested in ["object", "array"] {
        if let Some(Value::Array(inner)) = shown.get_mut(nested) {
            *inner = inner.iter().map(typed).collect();
        }
    }
    shown.into()
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
    let model = query.number("modelId", 1, LARGEST_NUMBER);
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

/// A new sync.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(dead_code, reason = "describes what `create` reads")]
pub(super) struct SyncCreateInput {
    /// Its slug, which is also the name of its file.
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]
    slug: String,
    /// The number of its destination.
    #[schema(minimum = 1)]
    destination_id: i64,
    /// The number of its model.
    #[schema(minimum = 1)]
    model_id: i64,
    /// What goes where: `mode`, `object`, `mappings`, `externalIdMapping`, and the other keys of a sync's file.
    configuration: Map<String, Value>,
    /// When it runs by itself; null: when it is asked to.
    #[schema(value_type = Option<schedules::ScheduleInput>)]
    schedule: Option<Value>,
    /// Whether it rests.
    #[schema(default = false, nullable = false)]
    disabled: Option<bool>,
}

/// Changes of a sync.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(dead_code, reason = "describes what `update` reads")]
pub(super) struct SyncUpdateInput {
    /// Keys that change; null takes a key out.
    #[schema(nullable = false)]
    configuration: Option<Map<String, Value>>,
    /// When it runs by itself; null: when it is asked to.
    #[schema(value_type = Option<schedules::ScheduleInput>)]
    schedule: Option<Value>,
    /// Whether it rests.
    #[schema(nullable = false)]
    disabled: Option<bool>,
}

/// Create a sync
///
/// Writes a file of the project. The whole project is checked with it; when anything is wrong nothing changes.
#[utoipa::path(post, path = "/syncs", operation_id = "CreateSync", tag = "syncs", request_body = SyncCreateInput,
    responses((status = 200, description = "The sync", body = Sync),
        (status = 409, description = "There is one of that slug, or the project is read-only here", body = Fault)))]
pub(super) async fn create(
    _: Admin,
    State(api): State<Api>,
    JsonBody(mut body): JsonBody,
) -> Result<Json<Sync>, Fault> {
    body.only(&["slug", "destinationId", "modelId", "configuration", "schedule", "disabled"]);
    body.required(&["slug", "destinationId", "modelId", "configuration"]);
    let slug = slug_of(&mut body);
    let project = api.service.project();
    let mut file = Keys::new();
    if let Some(id) = body.id("modelId") {
        match project.models.iter().find(|model| model.id == id) {
            Some(model) => _ = file.insert("model".to_owned(), model.slug.clone().into()),
            None => body.say("modelId", format!("there is no model {id}")),
        }
    }
    if let Some(id) = body.id("destinationId") {
        match project.destinations.iter().find(|to| to.id == id) {
            Some(to) => _ = file.insert("destination".to_owned(), to.slug.clone().into()),
            None => body.say("destinationId", format!("there is no destination {id}")),
        }
    }
    let keys = keys(&mut body, &Keys::new(), None);
    if body.truth("disabled") == Some(true) {
        file.insert("disabled".to_owned(), true.into());
    }
    body.checked()?;
    merge(&mut file, keys);
    api.create(Kind::Sync, &slug, file).await?;
    let project = api.service.project();
    one(&api, project.sync(&slug)?).await
}

/// Change a sync
///
/// `disabled` alone changes no file, unless the file itself says `disabled: true`.
#[utoipa::path(patch, path = "/syncs/{syncId}", operation_id = "UpdateSync", tag = "syncs",
    params(("syncId" = i64, Path, minimum = 1, description = "The number of the sync")),
    request_body = SyncUpdateInput,
    responses((status = 200, description = "The sync", body = Sync),
        (status = 409, description = "The project is read-only here", body = Fault)))]
pub(super) async fn update(
    _: Admin,
    State(api): State<Api>,
    path: Path,
    JsonBody(mut body): JsonBody,
) -> Result<Json<Sync>, Fault> {
    let sync = sync_of(&api, &path)?;
    body.only(&["configuration", "schedule", "disabled"]);
    let shown = (configuration(&api, &sync), schedule(&api, &sync));
    let (keys, disabled) = (keys(&mut body, &shown.0, shown.1.as_ref()), body.truth("disabled"));
    body.checked()?;
    let wakes = disabled == Some(false) && sync.disabled;
    if !keys.is_empty() || wakes {
        api.update(&sync.file, |file| {
            merge(file, keys);
            if wakes {
                file.remove("disabled");
            }
        })
        .await?;
    }
    let project = api.service.project();
    let sync = project.sync(&sync.slug)?;
    if let Some(disabled) = disabled {
        api.service.set_disabled(sync, disabled).await?;
    }
    one(&api, sync).await
}

/// What the body says, as keys of a sync's file, without what says the same as is shown; null stands for a key that is to
/// be taken out.
fn keys(body: &mut Body, shown: &Keys, shown_schedule: Option<&schedules::Schedule>) -> Keys {
    let elsewhere = ["slug", "renamed_from", "model", "destination", "schedule", "disabled"];
    let matches = body.value("configuration").is_some_and(|given| given.get("match").is_some());
    let mut keys = files::configuration(body, &elsewhere, shown);
    // Clients write lists without anything in them for what they do not use.
    keys.retain(|key, value| !(key.ends_with("Mappings") && value.as_array().is_some_and(Vec::is_empty)));
    if let Some(mappings) = keys.get_mut("mappings") {
        match mappings {
            Value::Array(fields) if fields.is_empty() => *mappings = Value::Null,
            Value::Array(fields) => fields.iter_mut().for_each(plain),
            _ => {}
        }
    }
    if let Some(external) = keys.shift_remove("externalIdMapping") {
        let before = shown.get("externalIdMapping");
        let known =
            before.is_some_and(|before| ["from", "to"].iter().all(|end| before[*end] == external[*end]));
        match (matches || known, &external["from"], &external["to"]) {
            (true, _, _) => {}
            (_, Value::String(from), Value::String(to)) => {
                keys.insert("match".to_owned(), json!({"from": from, "to": to}));
            }
            _ if external.is_null() => {}
            _ => body
                .say("configuration.externalIdMapping", "must be an object with the texts `from` and `to`"),
        }
    }
    let known = |given: &Value| shown_schedule.is_some_and(|shown| shown.says(given));
    if let Some(schedule) = body.value("schedule").filter(|given| !known(given)).cloned() {
        match schedules::written(&schedule) {
            Ok(schedule) => _ = keys.insert("schedule".to_owned(), schedule),
            Err(why) => body.say("schedule", why),
        }
    }
    keys
}

/// A mapping as a file writes it: what kind it is, its keys say.
fn plain(mapping: &mut Value) {
    let Value::Object(fields) = mapping else { return };
    let kind = fields.get("type").and_then(Value::as_str);
    if kind.is_some_and(|kind| KINDS.iter().any(|(_, word)| *word == kind)) {
        fields.shift_remove("type");
    }
    for nested in ["object", "array"] {
        fields.get_mut(nested).and_then(Value::as_array_mut).into_iter().flatten().for_each(plain);
    }
}
