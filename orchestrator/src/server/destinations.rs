//! `/destinations`: the places that receive rows.

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
            configuration: api.written(Kind::Destination, destination.id, &["type", "slug", "renamed_from"]),
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
