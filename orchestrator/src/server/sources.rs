//! `/sources`: the warehouses.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Api;
use super::auth::Reader;
use super::fault::Fault;
use super::objects::{List, ObjectQuery, WORKSPACE, Wanted, found};
use super::request::{Path, Query};
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
            configuration: api.written(Kind::Source, source.id, &["type", "slug", "renamed_from"]),
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
