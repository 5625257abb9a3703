//! What answers over HTTP: the REST API, health, and the page.

#![allow(unused_qualifications, reason = "what utoipa's macros write is full of them")]

mod alerts;
mod auth;
mod connections;
mod destinations;
mod fault;
mod files;
mod health;
mod hooks;
mod limits;
mod metrics;
mod models;
mod objects;
mod openapi;
mod plans;
mod progress;
mod questions;
mod rejected;
mod request;
mod runs;
mod schedules;
mod sequences;
mod sources;
mod syncs;
mod trigger;

use std::any::Any;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{StatusCode, Uri};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::Value;
use tokio::net::TcpListener;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use auth::new_key;

use crate::serve::Service;
use connections::Bounds;
use fault::{Fault, JSON};

/// How long answers that are under way may take once the service is asked to end: whoever reads slowly keeps nobody up.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// For how long it is believed that the store answers, or does not.
const FRESH: Duration = Duration::from_secs(1);

/// What every handler may use. Clones share it.
#[derive(Debug, Clone)]
struct Api(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    service: Arc<Service>,
    keys: auth::Keys,
    limits: limits::Limits,
    questions: questions::Questions,
    /// Whether the store answers, as it was found a moment ago; held by whoever looks.
    ready: tokio::sync::Mutex<Option<(Instant, bool)>>,
    /// Held by whoever changes the project.
    changing: tokio::sync::Mutex<()>,
}

impl Deref for Api {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Api {
    /// JSON without what is secret.
    fn redacted(&self, mut value: Value) -> Value {
        fault::redact(&mut value, &self.service.context().redactor);
        value
    }
}

/// Answers until the service stops; requests under way are answered first.
pub async fn answer(listener: TcpListener, service: Arc<Service>) {
    let stopped = service.clone();
    let here = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
    let routes = router(service.clone(), here);
    let answering =
        connections::serve(listener, routes, Bounds::default(), async move { stopped.stopped().await });
    tokio::select! {
        () = answering => {}
        () = async {
            service.stopped().await;
            tokio::time::sleep(LAST_ANSWERS).await;
        } => {}
    }
}

/// `here`: only this machine can ask.
fn router(service: Arc<Service>, here: bool) -> Router {
    let metrics = metrics::routes(service.clone());
    let api = Api(Arc::new(Shared {
        service,
        keys: auth::Keys::default(),
        limits: limits::Limits::default(),
        questions: questions::Questions::default(),
        ready: tokio::sync::Mutex::default(),
        changing: tokio::sync::Mutex::default(),
    }));
    let (routes, document) = documented();
    // Shaped once: it is the same for everybody.
    let document: Arc<str> = openapi::document(document, &api.service.context().catalogue).to_string().into();
    // What the nested routes do not know is refused like what they know: without a key nothing is told.
    let unknown = Router::new().fallback(nothing_there);
    // Whoever can ask from elsewhere shows a key, of whatever scope, also for figures.
    let (open, closed) = if here { (metrics, Router::new()) } else { (Router::new(), metrics) };
    let guarded = Router::new()
        .merge(routes)
        .nest("/api", unknown)
        .merge(closed)
        .layer(from_fn_with_state(api.clone(), auth::admit));
    let all = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/openapi.json", get(|| async move { ([(CONTENT_TYPE, JSON)], document.to_string()) }))
        .fallback(nothing_there)
        .merge(guarded)
        .merge(hooks::routes().layer(from_fn(arrive)))
        .merge(open)
        .layer(from_fn_with_state(api.clone(), finish))
        .layer(CatchPanicLayer::custom(|_: Box<dyn Any + Send>| fault::broken()))
        .with_state(api);
    metrics::measured(all)
}

/// The routes of the API, and what they say of themselves.
fn documented() -> (Router<Api>, utoipa::openapi::OpenApi) {
    OpenApiRouter::new().nest("/api/v1", routes()).split_for_parts()
}

fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(health::get))
        .routes(routes!(sources::list, sources::create))
        .routes(routes!(sources::get, sources::update))
        .routes(routes!(models::list, models::create))
        .routes(routes!(models::get, models::update))
        .routes(routes!(destinations::list, destinations::create))
        .routes(routes!(destinations::get, destinations::update))
        .routes(routes!(syncs::list, syncs::create))
        .routes(routes!(syncs::get, syncs::update))
        .routes(routes!(trigger::any))
        .routes(routes!(trigger::one))
        .routes(routes!(runs::list))
        .routes(routes!(runs::get))
        .routes(routes!(runs::cancel))
        .routes(routes!(progress::watch))
        .routes(routes!(plans::plan))
        .routes(routes!(plans::approve))
        .routes(routes!(alerts::list))
        .routes(routes!(rejected::list))
        .routes(routes!(rejected::of_run))
        .routes(routes!(rejected::retry))
        .routes(routes!(rejected::park))
        .routes(routes!(sequences::list))
        .routes(routes!(sequences::trigger))
        .routes(routes!(sequences::run))
}

/// Whoever asks, also without a key: the store is asked once for all of them.
async fn ready(State(api): State<Api>) -> (StatusCode, &'static str) {
    let answers = {
        let mut found = api.ready.lock().await;
        match *found {
            Some((at, answers)) if at.elapsed() < FRESH => answers,
            _ => {
                let answers = api.service.store().answers().await.is_ok();
                *found = Some((Instant::now(), answers));
                answers
            }
        }
    };
    match answers {
        true if !api.service.is_stopping() => (StatusCode::OK, "ready"),
        true => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "the store does not answer"),
    }
}

/// Lets in what has arrived as a whole, where no key is asked for before.
async fn arrive(request: Request, next: Next) -> Response {
    match connections::with_whole_body(request).await {
        Ok(request) => next.run(request).await,
        Err(fault) => fault.into_response(),
    }
}

async fn nothing_there(uri: Uri) -> Fault {
    Fault::not_found("resource", uri.path())
}

/// What every answer goes through.
async fn finish(State(api): State<Api>, request: Request, next: Next) -> Response {
    fault::finished(next.run(request).await, &api.service.context().redactor)
}
