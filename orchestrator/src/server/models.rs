//! `/models`: what is read.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::auth::Reader;
use super::fault::Fault;
use super::objects::{List, ObjectQuery, WORKSPACE, Wanted, found};
use super::request::{Path, Query};
use crate::config::Kind;
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
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum QueryType {
    RawSql,
    Table,
    Dbt,
}

/// A SELECT.
#[derive(Debug, Serialize, ToSchema)]
struct Raw {
    /// As it is written.
    sql: String,
}

/// A table or view.
#[derive(Debug, Serialize, ToSchema)]
struct Table {
    /// As it is written.
    name: String,
}

/// A model of dbt.
#[derive(Debug, Serialize, ToSchema)]
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
        let (raw, table) = match &model.query {
            _ if dbt.is_some() => (None, None),
            ModelQuery::Sql(sql) => (Some(Raw { sql: sql.clone() }), None),
            ModelQuery::Table(name) | ModelQuery::Relation(name) => {
                (None, Some(Table { name: name.clone() }))
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
            primary_key: model.primary_key.join(","),
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
