//! `/sources`: the warehouses.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Api;
use super::auth::{Admin, Reader};
use super::fault::Fault;
use super::files::OF_CONNECTED;
use super::objects::{List, ObjectQuery, WORKSPACE, Wanted, found};
use super::request::{JsonBody, Path, Query};
use crate::config::Kind;
use crate::project::SourceSpec;

/// A warehouse in which models are read.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Source {
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
    /// Which kind of warehouse.
    r#type: String,
    /// The keys of its file as they are written, without secrets.
    configuration: Map<String, Value>,
}

impl Source {
    pub(super) fn of(api: &Api, source: &SourceSpec) -> Self {
        let times = api.times(Kind::Source, source.id);
        Self {
            id: source.id,
            name: source.slug.clone(),
            slug: source.slug.clone(),
            workspace_id: WORKSPACE,
            created_at: times.created_at,
            updated_at: times.updated_at,
            r#type: source.connector.name.to_owned(),
            configuration: api.written(Kind::Source, source.id, &OF_CONNECTED),
        }
    }
}

/// List sources
#[utoipa::path(get, path = "/sources", operation_id = "ListSource", tag = "sources", params(ObjectQuery),
    responses((status = 200, description = "A page of sources", body = List<Source>)))]
pub(super) async fn list(
    _: Reader,
    State(api): State<Api>,
    mut query: Query,
) -> Result<Json<List<Source>>, Fault> {
    let wanted = Wanted::read(&mut query);
    query.checked()?;
    let project = api.service.project();
    let (page, has_more) =
        wanted.of(&api, Kind::Source, project.sources.iter(), |source| (source.id, source.slug.as_str()));
    Ok(Json(List { data: page.into_iter().map(|source| Source::of(&api, source)).collect(), has_more }))
}

/// Show a source
#[utoipa::path(get, path = "/sources/{sourceId}", operation_id = "GetSource", tag = "sources",
    params(("sourceId" = i64, Path, minimum = 1, description = "The number of the source")),
    responses((status = 200, description = "The source", body = Source)))]
pub(super) async fn get(_: Reader, State(api): State<Api>, path: Path) -> Result<Json<Source>, Fault> {
    let project = api.service.project();
    let source = found("source", path.id("sourceId")?, project.sources.iter(), |source| source.id)?;
    Ok(Json(Source::of(&api, source)))
}

/// A new source.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes what `create` reads")]
pub(super) struct SourceCreateInput {
    /// Its name; its slug is made of it when it has none.
    #[schema(min_length = 1)]
    name: Option<String>,
    /// Its slug, which is also the name of its file.
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]
    slug: Option<String>,
    /// Which kind of source: `levin connectors` lists them.
    #[schema(min_length = 1)]
    r#type: String,
    /// The keys of its file. Secrets are best written as `${NAME}`.
    configuration: Map<String, Value>,
}

/// Changes of a source.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes what `update` reads")]
pub(super) struct SourceUpdateInput {
    /// Its name, which cannot change here.
    #[schema(min_length = 1)]
    name: Option<String>,
    /// Keys of its file that change; null takes a key out.
    #[schema(nullable = false)]
    configuration: Option<Map<String, Value>>,
}

/// Create a source
///
/// Writes a file of the project. The whole project is checked with it; when anything is wrong nothing changes.
#[utoipa::path(post, path = "/sources", operation_id = "CreateSource", tag = "sources", request_body = SourceCreateInput,
    responses((status = 200, description = "The source", body = Source),
        (status = 409, description = "There is one of that slug, or the project is read-only here", body = Fault)))]
pub(super) async fn create(
    _: Admin,
    State(api): State<Api>,
    JsonBody(mut body): JsonBody,
) -> Result<Json<Source>, Fault> {
    let slug = api.create_connected(Kind::Source, &mut body).await?;
    let project = api.service.project();
    let source = project.source(&slug)?;
    Ok(Json(Source::of(&api, source)))
}

/// Change a source
#[utoipa::path(patch, path = "/sources/{sourceId}", operation_id = "UpdateSource", tag = "sources",
    params(("sourceId" = i64, Path, minimum = 1, description = "The number of the source")),
    request_body = SourceUpdateInput,
    responses((status = 200, description = "The source", body = Source),
        (status = 409, description = "The name cannot change, or the project is read-only here", body = Fault)))]
pub(super) async fn update(
    _: Admin,
    State(api): State<Api>,
    path: Path,
    JsonBody(mut body): JsonBody,
) -> Result<Json<Source>, Fault> {
    let id = path.id("sourceId")?;
    let source = found("source", id, api.service.project().sources.iter(), |one| one.id)?.clone();
    api.update_connected((Kind::Source, id), &source.file, &source.slug, &mut body).await?;
    let project = api.service.project();
    let source = project.source(&source.slug)?;
    Ok(Json(Source::of(&api, source)))
}
