//! `/models`: what is read.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::auth::{Admin, Reader};
use super::fault::Fault;
use super::files::{Keys, merge, same, same_name, slug_of};
use super::objects::{List, ObjectQuery, WORKSPACE, Wanted, found};
use super::request::{Body, JsonBody, Path, Query};
use crate::config::Kind;
use crate::error::{Error, ErrorCode};
use crate::project::{ModelQuery, ModelSpec, Project};
use crate::store::RunRow;

/// A SELECT with a primary key.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Model {
    /// Its number.
    #[schema(minimum = 1)]
    id: i64,
    /// Its name, which is its slug.
    name: String,
    /// Its slug.
    slug: String,
    /// Nothing yet.
    #[schema(required)]
    description: Option<String>,
    /// The number of the workspace: a project is one.
    workspace_id: i64,
    /// When it was first read.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it was first read as it is.
    #[schema(format = DateTime)]
    updated_at: String,
    /// The number of its source.
    source_id: i64,
    /// The column that tells rows apart; several are separated by commas.
    primary_key: String,
    /// How it says what is read.
    query_type: QueryType,
    /// None.
    tags: BTreeMap<String, String>,
    /// Always false.
    is_schema: bool,
    /// The numbers of the syncs that send its rows.
    syncs: Vec<i64>,
    /// How many rows it returned when it was last read; null when it was not yet.
    #[schema(required, minimum = 0)]
    last_run_size: Option<u64>,
    /// The SELECT.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    raw: Option<Raw>,
    /// The table.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    table: Option<Table>,
    /// The model of dbt.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    dbt: Option<Dbt>,
    /// The keys of its file as they are written.
    configuration: Map<String, Value>,
}

/// How a model says what is read.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum QueryType {
    RawSql,
    Table,
    Dbt,
}

/// A SELECT.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct Raw {
    /// As it is written.
    sql: String,
}

/// A table or view.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct Table {
    /// As it is written.
    name: String,
}

/// A model of dbt.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Dbt {
    /// Its name.
    model_id: String,
    /// The manifest in which it stands.
    manifest: String,
}

impl Model {
    fn of(api: &Api, project: &Project, model: &ModelSpec, last: &[&RunRow]) -> Self {
        let times = api.times(Kind::Model, model.id);
        let configuration = api.written(Kind::Model, model.id, &["slug", "renamed_from", "source"]);
        let text = |of: &Value, key: &str| of[key].as_str().unwrap_or_default().to_owned();
        let dbt = configuration
            .get("dbt")
            .map(|dbt| Dbt { model_id: text(dbt, "model"), manifest: text(dbt, "manifest") });
        // As it is written: what was read into it may be secret. A file of SQL is text as it is.
        let written =
            |key: &str, read: &str| configuration.get(key).and_then(Value::as_str).unwrap_or(read).to_owned();
        let (raw, table) = match &model.query {
            _ if dbt.is_some() => (None, None),
            ModelQuery::Sql(sql) => (Some(Raw { sql: written("sql", sql) }), None),
            ModelQuery::Table(name) | ModelQuery::Relation(name) => {
                (None, Some(Table { name: written("table", name) }))
            }
        };
        let newest =
            last.iter().filter_map(|run| Some((run.id, run.report.as_ref()?["querySize"].as_u64()?))).max();
        Self {
            id: model.id,
            name: model.slug.clone(),
            slug: model.slug.clone(),
            description: None,
            workspace_id: WORKSPACE,
            created_at: times.created_at,
            updated_at: times.updated_at,
            source_id: model.source.id,
            primary_key: api.primary_key(model).join(","),
            query_type: match (&dbt, &table) {
                (Some(_), _) => QueryType::Dbt,
                (_, Some(_)) => QueryType::Table,
                _ => QueryType::RawSql,
            },
            tags: BTreeMap::new(),
            is_schema: false,
            syncs: syncs_of(project, model),
            last_run_size: newest.map(|(_, size)| size),
            raw,
            table,
            dbt,
            configuration,
        }
    }

    /// Models, with what the last runs of their syncs say of them.
    pub(super) async fn all_of(
        api: &Api,
        project: &Project,
        models: &[&ModelSpec],
    ) -> Result<Vec<Self>, Fault> {
        let syncs: Vec<i64> = models.iter().flat_map(|model| syncs_of(project, model)).collect();
        let last = api.service.store().last_runs(&syncs).await?;
        let models = models.iter().map(|model| {
            let runs: Vec<&RunRow> = syncs_of(project, model).iter().filter_map(|id| last.get(id)).collect();
            Self::of(api, project, model, &runs)
        });
        Ok(models.collect())
    }
}

fn syncs_of(project: &Project, model: &ModelSpec) -> Vec<i64> {
    let syncs = project.syncs.iter().filter(|sync| sync.model.id == model.id);
    let mut syncs: Vec<i64> = syncs.map(|sync| sync.id).collect();
    syncs.sort_unstable();
    syncs
}

/// Tags that models must have.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes what the handler reads")]
pub(super) struct TagQuery {
    /// Only models with this tag, `key:value`: there are none yet.
    tags: Option<Vec<String>>,
}

/// List models
#[utoipa::path(get, path = "/models", operation_id = "ListModel", tag = "models", params(ObjectQuery, TagQuery),
    responses((status = 200, description = "A page of models", body = List<Model>)))]
pub(super) async fn list(
    _: Reader,
    State(api): State<Api>,
    mut query: Query,
) -> Result<Json<List<Model>>, Fault> {
    let mut wanted = Wanted::read(&mut query);
    if query.text("tags").is_some() {
        wanted.nothing();
    }
    query.checked()?;
    let project = api.service.project();
    let (page, has_more) =
        wanted.of(&api, Kind::Model, project.models.iter(), |model| (model.id, model.slug.as_str()));
    let page: Vec<&ModelSpec> = page.into_iter().map(AsRef::as_ref).collect();
    Ok(Json(List { data: Model::all_of(&api, &project, &page).await?, has_more }))
}

/// Show a model
#[utoipa::path(get, path = "/models/{modelId}", operation_id = "GetModel", tag = "models",
    params(("modelId" = i64, Path, minimum = 1, description = "The number of the model")),
    responses((status = 200, description = "The model", body = Model)))]
pub(super) async fn get(_: Reader, State(api): State<Api>, path: Path) -> Result<Json<Model>, Fault> {
    let project = api.service.project();
    let model = found("model", path.id("modelId")?, project.models.iter(), |model| model.id)?;
    one(&api, &project, model).await
}

pub(super) async fn one(api: &Api, project: &Project, model: &ModelSpec) -> Result<Json<Model>, Fault> {
    let mut shown = Model::all_of(api, project, &[model]).await?;
    shown.pop().map(Json).ok_or_else(|| Fault::not_found("model", &model.slug))
}

/// A new model.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(dead_code, reason = "describes what `create` reads")]
pub(super) struct ModelCreateInput {
    /// Its name; its slug is made of it when it has none.
    #[schema(min_length = 1)]
    name: Option<String>,
    /// Its slug, which is also the name of its file.
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]
    slug: Option<String>,
    /// How it says what is read: `raw_sql`, `table` or `dbt`.
    #[schema(nullable = false)]
    query_type: Option<QueryType>,
    /// The number of its source.
    #[schema(minimum = 1)]
    source_id: i64,
    /// Only false.
    #[schema(nullable = false, default = false)]
    is_schema: Option<bool>,
    /// The column that tells rows apart; several are separated by commas, or a list.
    #[schema(value_type = Value)]
    primary_key: Value,
    /// The SELECT: `{sql}`.
    raw: Option<Raw>,
    /// The table: `{name}`.
    table: Option<Table>,
    /// The model of dbt: `{modelId, manifest}`.
    dbt: Option<Dbt>,
    /// Nothing of it is kept.
    description: Option<String>,
    /// Nothing of it is kept.
    #[schema(value_type = Option<Value>)]
    folder_id: Option<Value>,
}

/// Changes of a model.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(dead_code, reason = "describes what `update` reads")]
pub(super) struct ModelUpdateInput {
    /// Its name, which cannot change here.
    #[schema(min_length = 1)]
    name: Option<String>,
    /// How it says what is read: `raw_sql`, `table` or `dbt`.
    #[schema(nullable = false)]
    query_type: Option<QueryType>,
    /// The number of its source.
    #[schema(minimum = 1)]
    source_id: Option<i64>,
    /// Only false.
    #[schema(nullable = false, default = false)]
    is_schema: Option<bool>,
    /// The column that tells rows apart; several are separated by commas, or a list.
    #[schema(value_type = Option<Value>)]
    primary_key: Option<Value>,
    /// The SELECT: `{sql}`.
    raw: Option<Raw>,
    /// The table: `{name}`.
    table: Option<Table>,
    /// The model of dbt: `{modelId, manifest}`.
    dbt: Option<Dbt>,
}

/// Create a model
///
/// Writes a file of the project. The whole project is checked with it; when anything is wrong nothing changes.
#[utoipa::path(post, path = "/models", operation_id = "CreateModel", tag = "models",
    params(("skipColumnQuery" = Option<bool>, Query, description = "Columns are asked for when a run needs them")),
    request_body = ModelCreateInput,
    responses((status = 200, description = "The model", body = Model),
        (status = 409, description = "There is one of that slug, or the project is read-only here", body = Fault)))]
pub(super) async fn create(
    _: Admin,
    State(api): State<Api>,
    JsonBody(mut body): JsonBody,
) -> Result<Json<Model>, Fault> {
    body.only(&[
        "name",
        "slug",
        "queryType",
        "sourceId",
        "isSchema",
        "primaryKey",
        "raw",
        "table",
        "dbt",
        "description",
        "folderId",
    ]);
    body.required(&["sourceId", "primaryKey"]);
    let slug = slug_of(&mut body);
    let keys = keys(&api, &mut body, &Value::Null);
    if !["raw", "table", "dbt"].iter().any(|way| body.has(way)) {
        body.say("raw", "one of `raw`, `table` and `dbt` is required");
    }
    body.checked()?;
    let mut file = Keys::new();
    merge(&mut file, keys);
    api.create(Kind::Model, &slug, file).await?;
    let project = api.service.project();
    one(&api, &project, project.model(&slug)?).await
}

/// Change a model
#[utoipa::path(patch, path = "/models/{modelId}", operation_id = "UpdateModel", tag = "models",
    params(("modelId" = i64, Path, minimum = 1, description = "The number of the model")),
    request_body = ModelUpdateInput,
    responses((status = 200, description = "The model", body = Model),
        (status = 409, description = "The name cannot change, or the project is read-only here", body = Fault)))]
pub(super) async fn update(
    _: Admin,
    State(api): State<Api>,
    path: Path,
    JsonBody(mut body): JsonBody,
) -> Result<Json<Model>, Fault> {
    let id = path.id("modelId")?;
    let model = found("model", id, api.service.project().models.iter(), |model| model.id)?.clone();
    body.only(&["name", "queryType", "sourceId", "isSchema", "primaryKey", "raw", "table", "dbt"]);
    let shown = Model::of(&api, &api.service.project(), &model, &[]);
    let shown =
        serde_json::to_value(shown).map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))?;
    let keys = keys(&api, &mut body, &shown);
    same_name(&mut body, &model.slug)?;
    api.update(&model.file, |file| {
        if ["sql", "table", "dbt"].iter().any(|way| keys.contains_key(*way)) {
            file.retain(|key, _| !["sql", "sql_file", "table", "dbt"].contains(&key.as_str()));
        }
        merge(file, keys);
    })
    .await?;
    let project = api.service.project();
    one(&api, &project, project.model(&model.slug)?).await
}

/// What the body says, as keys of a model's file, without what says the same as is shown.
fn keys(api: &Api, body: &mut Body, shown: &Value) -> Keys {
    let mut keys = Keys::new();
    let known = |field: &str, given: &Value| !shown[field].is_null() && same(&shown[field], given);
    if let Some(id) = body.id("sourceId").filter(|id| !known("sourceId", &(*id).into())) {
        match api.service.project().sources.iter().find(|source| source.id == id) {
            Some(source) => _ = keys.insert("source".to_owned(), source.slug.clone().into()),
            None => body.say("sourceId", format!("there is no source {id}")),
        }
    }
    match body.value("primaryKey").cloned() {
        None | Some(Value::Null) => {}
        Some(key) if known("primaryKey", &key) => {}
        Some(Value::String(text)) if text.contains(',') => {
            let columns: Vec<&str> = text.split(',').map(str::trim).collect();
            keys.insert("primary_key".to_owned(), columns.into());
        }
        Some(key @ (Value::String(_) | Value::Array(_))) => _ = keys.insert("primary_key".to_owned(), key),
        Some(_) => body.say("primaryKey", "must be a column or a list of columns"),
    }
    if body.truth("isSchema") == Some(true) {
        body.say("isSchema", "there are no schemas here");
    }
    let kind = if body.has("queryType") { body.text("queryType") } else { None };
    if let Some(kind) = kind.filter(|kind| !["raw_sql", "table", "dbt"].contains(&kind.as_str())) {
        body.say("queryType", format!("models are `raw_sql`, `table` or `dbt` here, not `{kind}`"));
    }
    let mut ways = 0;
    for (field, key, inner) in [("raw", "sql", "sql"), ("table", "table", "name")] {
        match body.value(field).cloned() {
            None | Some(Value::Null) => {}
            Some(Value::Object(way)) if way.get(inner).is_some_and(Value::is_string) => {
                ways += 1;
                if !known(field, &way.clone().into()) {
                    keys.insert(key.to_owned(), way[inner].clone());
                }
            }
            Some(_) => body.say(field, format!("must be an object with the text `{inner}`")),
        }
    }
    match body.value("dbt").cloned() {
        None | Some(Value::Null) => {}
        Some(Value::Object(way)) => {
            ways += 1;
            let text = |key: &str| way.get(key).filter(|value| value.is_string()).cloned();
            match (text("modelId"), text("manifest")) {
                (Some(_), Some(_)) if known("dbt", &way.clone().into()) => {}
                (Some(model), Some(manifest)) => {
                    keys.insert("dbt".to_owned(), serde_json::json!({"manifest": manifest, "model": model}));
                }
                _ => body.say("dbt", "must be an object with the texts `modelId` and `manifest`"),
            }
        }
        Some(_) => body.say("dbt", "must be an object with the texts `modelId` and `manifest`"),
    }
    if ways > 1 {
        body.say("raw", "only one of `raw`, `table` and `dbt` says what is read");
    }
    keys
}
