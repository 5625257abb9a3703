//! What answers over HTTP: the REST API, health, and the page.

mod hooks;

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::error::{Error, ErrorCode};
use crate::serve::Service;

/// Answers until the service stops; requests under way are answered first.
pub async fn answer(listener: TcpListener, service: Arc<Service>) -> Result<(), Error> {
    let stopped = service.clone();
    axum::serve(listener, router(service))
        .with_graceful_shutdown(async move { stopped.stopped().await })
        .await
        .map_err(|error| Error::new(ErrorCode::ListenFailed, error.to_string()))
}

fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route(
            "/readyz",
            get(async |axum::extract::State(service): axum::extract::State<Arc<Service>>| {
                match service.store().underway().await {
                    Ok(_) if !service.is_stopping() => (StatusCode::OK, "ready"),
                    Ok(_) => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
                    Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the store does not answer"),
                }
            }),
        )
        .merge(hooks::routes())
        .with_state(service)
}
