//! `/health`: which service answers.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::auth::Reader;
use super::fault::Fault;

/// The service that answers.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Health {
    /// `ok`, or `stopping`.
    status: &'static str,
    /// The version of levin.
    version: &'static str,
    /// The project's name.
    project: String,
    /// This process, among those that share the store.
    replica: String,
    /// How many syncs the project has.
    #[schema(minimum = 0)]
    syncs: usize,
    /// Runs that go on in this process.
    #[schema(minimum = 0)]
    running: usize,
    /// Runs that wait, of all replicas.
    #[schema(minimum = 0)]
    queued: usize,
}

/// Show how the service is
#[utoipa::path(get, path = "/health", operation_id = "GetHealth", tag = "service",
    responses((status = 200, description = "The service that answers", body = Health)))]
pub(super) async fn get(_: Reader, State(api): State<Api>) -> Result<Json<Health>, Fault> {
    let service = &api.service;
    let project = service.project();
    let queued = service.store().underway().await?.iter().filter(|run| run.replica.is_none()).count();
    Ok(Json(Health {
        status: if service.is_stopping() { "stopping" } else { "ok" },
        version: env!("CARGO_PKG_VERSION"),
        project: project.name.clone(),
        replica: service.replica().to_owned(),
        syncs: project.syncs.len(),
        running: service.running(),
        queued,
    }))
}
