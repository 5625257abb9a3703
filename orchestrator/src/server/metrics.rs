//! `/metrics`: what Prometheus fetches; and the measuring of every answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::serve::Service;
use crate::store::SyncFigures;
use crate::telemetry::metrics::{Moment, answered, begin, page, tidy};

/// The form of the page, as Prometheus asks for it.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// How often samples are put together that nobody fetched.
const TIDY: Duration = Duration::from_secs(60);

/// The page. Whoever joins it to the other routes decides who may read it.
pub(super) fn routes<S: Clone + Send + Sync + 'static>(service: Arc<Service>) -> Router<S> {
    begin(&service.project());
    let tidied = service.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = tidied.stopped() => return,
                () = tokio::time::sleep(TIDY) => tidy(),
            }
        }
    });
    Router::new().route("/metrics", get(metrics)).with_state(service)
}

/// Counts what these routes answer, and how long that takes.
pub(super) fn measured(routes: Router) -> Router {
    routes.layer(from_fn(measure))
}

async fn metrics(State(service): State<Arc<Service>>) -> Response {
    let project = service.project();
    let syncs: Vec<i64> = project.syncs.iter().map(|sync| sync.id).collect();
    // Without the store the rest is told all the same: that it fails is counted.
    let queue = service.store().queue_figures().await.ok();
    let last: Vec<SyncFigures> = match queue {
        Some(_) => service.store().sync_figures(&syncs).await.unwrap_or_default(),
        None => Vec::new(),
    };
    let mut last: HashMap<i64, SyncFigures> = last.into_iter().map(|last| (last.sync_id, last)).collect();
    let syncs = project.syncs.iter().filter_map(|sync| Some((&**sync, last.remove(&sync.id)?))).collect();
    let text = page(&Moment { running_here: service.running(), queue, syncs });
    ([(header::CONTENT_TYPE, TEXT)], text).into_response()
}

async fn measure(request: Request, next: Next) -> Response {
    let since = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let method = known(request.method());
    let response = next.run(request).await;
    answered(route.as_deref().unwrap_or("none"), method, response.status().as_u16(), since.elapsed());
    response
}

/// Methods are words of whoever asks: those that nobody knows are one.
fn known(method: &Method) -> &'static str {
    let words = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    words.into_iter().find(|word| *word == method.as_str()).unwrap_or("other")
}
