//! `/destinations`: the places that receive rows.

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
use crate::project::{DestinationSpec, Project};

/// A place that receives rows.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Destination {
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
    /// Which kind of destination.
    r#type: String,
    /// The keys of its file as they are written, without secrets.
    configuration: Map<String, Value>,
    /// The numbers of the syncs that send to it.
    syncs: Vec<i64>,
}

impl Destination {
    pub(super) fn of(api: &Api, project: &Project, destination: &DestinationSpec) -> Self {
        let times = api.times(Kind::Destination, destination.id);
        let syncs = project.syncs.iter().filter(|sync| sync.destination.id == destination.id);
        let mut syncs: Vec<i64> = syncs.map(|sync| sync.id).collect();
        syncs.sort_unstable();
        Self {
            id: destination.id,
            name: destination.slug.clone(),
            slug: destination.slug.clone(),
            workspace_id: WORKSPACE,
            created_at: times.created_at,
            updated_at: times.updated_at,
            r#type: destination.connector.name.to_owned(),
            configuration: api.written(Kind::Destination, destination.id, &OF_CONNECTED),
            syncs,
        }
    }
}

/// List destinations
#[utoipa::path(get, path = "/destinations", operation_id = "ListDestination", tag = "destinations",
    params(ObjectQuery),
    responses((status = 200, description = "A page of destinations", body = List<Destination>)))]
pub(super) async fn list(
    _: Reader,
    State(api): State<Api>,
    mut query: Query,
) -> Result<Json<List<Destination>>, Fault> {
    let wanted = Wanted::read(&mut query);
    query.checked()?;
    let project = api.service.project();
    let (page, has_more) =
        wanted.of(&api, Kind::Destination, project.destinations.iter(), |to| (to.id, to.slug.as_str()));
    Ok(Json(List {
        data: page.into_iter().map(|to| Destination::of(&api, &project, to)).collect(),
        has_more,
    }))
}

/// Show a destination
#[utoipa::path(get, path = "/destinations/{destinationId}", operation_id = "GetDestination", tag = "destinations",
    params(("destinationId" = i64, Path, minimum = 1, description = "The number of the destination")),
    responses((status = 200, description = "The destination", body = Destination)))]
pub(super) async fn get(_: Reader, State(api): State<Api>, path: Path) -> Result<Json<Destination>, Fault> {
    let project = api.service.project();
    let id = path.id("destinationId")?;
    let destination = found("destination", id, project.destinations.iter(), |to| to.id)?;
    Ok(Json(Destination::of(&api, &project, destination)))
}

/// A new destination.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes what `create` reads")]
pub(super) struct DestinationCreateInput {
    /// Its name; its slug is made of it when it has none.
    #[schema(min_length = 1)]
    name: Option<String>,
    /// Its slug, which is also the name of its file.
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]
    slug: Option<String>,
    /// Which kind of destination: `levin connectors` lists them.
    #[schema(min_length = 1)]
    r#type: String,
    /// The keys of its file. Secrets are best written as `${NAME}`.
    configuration: Map<String, Value>,
}

/// Changes of a destination.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes what `update` reads")]
pub(super) struct DestinationUpdateInput {
    /// Its name, which cannot change here.
    #[schema(min_length = 1)]
    name: Option<String>,
    /// Keys of its file that change; null takes a key out.
    #[schema(nullable = false)]
    configuration: Option<Map<String, Value>>,
}

/// Create a destination
///
/// Writes a file of the project. The whole project is checked with it; when anything is wrong nothing changes.
#[utoipa::path(post, path = "/destinations", operation_id = "CreateDestination", tag = "destinations", request_body = DestinationCreateInput,
    responses((status = 200, description = "The destination", body = Destination),
        (status = 409, description = "There is one of that slug, or the project is read-only here", body = Fault)))]
pub(super) async fn create(
    _: Admin,
    State(api): State<Api>,
    JsonBody(mut body): JsonBody,
) -> Result<Json<Destination>, Fault> {
    let slug = api.create_connected(Kind::Destination, &mut body).await?;
    let project = api.service.project();
    let destination = project.destination(&slug)?;
    Ok(Json(Destination::of(&api, &project, destination)))
}

/// Change a destination
#[utoipa::path(patch, path = "/destinations/{destinationId}", operation_id = "UpdateDestination", tag = "destinations",
    params(("destinationId" = i64, Path, minimum = 1, description = "The number of the destination")),
    request_body = DestinationUpdateInput,
    responses((status = 200, description = "The destination", body = Destination),
        (status = 409, description = "The name cannot change, or the project is read-only here", body = Fault)))]
pub(super) async fn update(
    _: Admin,
    State(api): State<Api>,
    path: Path,
    JsonBody(mut body): JsonBody,
) -> Result<Json<Destination>, Fault> {
    let id = path.id("destinationId")?;
    let destination =
        found("destination", id, api.service.project().destinations.iter(), |one| one.id)?.clone();
    let object = (Kind::Destination, id);
    api.update_connected(object, &destination.file, &destination.slug, &mut body).await?;
    let project = api.service.project();
    let destination = project.destination(&destination.slug)?;
    Ok(Json(Destination::of(&api, &project, destination)))
}
