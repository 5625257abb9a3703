//! Rows that are refused at the moment.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::auth::Runner;
use super::fault::Fault;
use super::objects::List;
use super::request::{AnyBody, Path, Query};
use super::runs::{run_of, sync_of};
use crate::command::rejected::{HEADINGS, cells, csv_line};
use crate::error::{Error, ErrorCode};
use crate::project::SyncSpec;
use crate::run::{OpenRejection, Request, WhichRejections, mark_parked, open_rejections};

/// A row that is refused at the moment.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RejectedRow {
    /// Its key.
    key: String,
    /// What was to be done with it.
    operation: String,
    /// Why not, as a code that `levin explain` knows.
    code: String,
    /// Why not, in the destination's words.
    reason: String,
    /// How often a destination refused it.
    #[schema(minimum = 0)]
    attempts: i64,
    /// How many rows have the key.
    #[schema(minimum = 0)]
    rows: i64,
    /// The last run that met it.
    run: i64,
    /// It is not sent again as long as it and the sync are as they were.
    parked: bool,
    /// When it was first refused.
    first_at: String,
    /// When it was last refused.
    last_at: String,
    /// The last request; null when it was not kept, or no key was asked for.
    #[schema(required)]
    request: Option<String>,
    /// The last response.
    #[schema(required)]
    response: Option<String>,
}

impl From<OpenRejection> for RejectedRow {
    fn from(row: OpenRejection) -> Self {
        Self {
            key: row.key,
            operation: row.operation,
            code: row.code,
            reason: row.reason,
            attempts: row.attempts,
            rows: row.rows,
            run: row.run,
            parked: row.parked,
            first_at: row.first_at,
            last_at: row.last_at,
            request: None,
            response: None,
        }
    }
}

/// Which rows are shown.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes what the handlers read")]
pub(super) struct RowQuery {
    /// Only the row with this key, with its last request and response.
    key: Option<String>,
    /// How many rows are passed over.
    #[param(minimum = 0, default = 0)]
    offset: Option<u64>,
    /// The most rows that are shown.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u64>,
}

/// List rejected rows
///
/// Rows that are refused at the moment, the newest first. With `Accept: text/csv` as CSV.
#[utoipa::path(get, path = "/syncs/{syncId}/rejected", operation_id = "ListRejectedRows", tag = "rejected",
    params(("syncId" = i64, Path, minimum = 1, description = "The number of the sync"), RowQuery),
    responses((status = 200, description = "A page of rows", content(
            (List<RejectedRow> = "application/json"), (String = "text/csv"))),
        (status = 409, description = "The rows cannot be read: the error says why", body = Fault),
        (status = 502, description = "The warehouse does not answer, or refuses", body = Fault)))]
pub(super) async fn list(
    _: Runner,
    State(api): State<Api>,
    path: Path,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let sync = sync_of(&api, &path)?;
    show(&api, &sync, query, &headers, None).await
}

/// List rejected rows of a run
///
/// Of the rows that are refused at the moment, those that this run met last: not every row that it refused, for a later
/// run may have met it again, or sent it. With `Accept: text/csv` as CSV.
#[utoipa::path(get, path = "/syncs/{syncId}/runs/{runId}/rows", operation_id = "ListRunRows", tag = "rejected",
    params(("syncId" = i64, Path, minimum = 1, description = "The number of the sync"),
        ("runId" = i64, Path, minimum = 1, description = "The number of the run"), RowQuery),
    responses((status = 200, description = "A page of rows", content(
            (List<RejectedRow> = "application/json"), (String = "text/csv"))),
        (status = 409, description = "The rows cannot be read: the error says why", body = Fault),
        (status = 502, description = "The warehouse does not answer, or refuses", body = Fault)))]
pub(super) async fn of_run(
    _: Runner,
    State(api): State<Api>,
    path: Path,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let (sync, run) = run_of(&api, &path).await?;
    show(&api, &sync, query, &headers, Some(run.id)).await
}

async fn show(
    api: &Api,
    sync: &Arc<SyncSpec>,
    mut query: Query,
    headers: &HeaderMap,
    run: Option<i64>,
) -> Result<Response, Fault> {
    let key = query.text("key").map(str::to_owned);
    let page = query.page();
    query.checked()?;
    let (service, of) = (api.service.clone(), sync.clone());
    let limit = page.limit as u64 + 1;
    let which = WhichRejections { run, key: key.clone(), offset: page.offset as u64, limit };
    let read = api.questions.ask(sync.model.source.id, async move {
        open_rejections(&service.project(), &of, service.store(), &which).await
    });
    let mut rows = read.await??;
    let has_more = rows.len() > page.limit;
    rows.truncate(page.limit);
    let redactor = &api.service.context().redactor;
    let csv = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').map(|kind| kind.split(';').next().unwrap_or_default().trim()).next()
            == Some("text/csv")
    });
    if csv {
        let mut text = csv_line(HEADINGS.map(str::to_owned)) + "\r\n";
        for row in &rows {
            text.push_str(&csv_line(cells(row)));
            text.push_str("\r\n");
        }
        return Ok(([(CONTENT_TYPE, "text/csv; charset=utf-8")], redactor.redact(&text)).into_response());
    }
    let mut data: Vec<RejectedRow> = rows.into_iter().map(RejectedRow::from).collect();
    if key.is_some() {
        for row in &mut data {
            if let Some(exchange) = api.service.store().exchange(sync.id, &row.key).await? {
                (row.request, row.response) = (Some(exchange.request), Some(exchange.response));
            }
        }
    }
    let list = serde_json::to_value(&List { data, has_more })
        .map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))?;
    Ok(Json(api.redacted(list)).into_response())
}

/// Which rows are marked.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes what `mark` reads")]
pub(super) struct MarkInput {
    /// Only the row with this key; all of them when it is not there.
    #[schema(min_length = 1, pattern = r"^[^\x00\x01]+$")]
    key: Option<String>,
}

/// How many rows were marked.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Marked {
    /// The number of the sync.
    sync_id: i64,
    /// Its slug.
    sync_slug: String,
    /// How many rows were marked.
    #[schema(minimum = 0)]
    count: u64,
}

/// Try rejected rows again
///
/// Lets the next run send parked rows again, as they then are. Sends nothing by itself.
#[utoipa::path(post, path = "/syncs/{syncId}/rejected/retry", operation_id = "RetryRejectedRows", tag = "rejected",
    params(("syncId" = i64, Path, minimum = 1, description = "The number of the sync")),
    request_body(content(
        (Option<MarkInput> = "application/json"),
        (Option<MarkInput> = "application/x-www-form-urlencoded"))),
    responses((status = 200, description = "How many rows will be tried again", body = Marked),
        (status = 409, description = "A run holds the sync", body = Fault),
        (status = 502, description = "The warehouse does not answer, or refuses", body = Fault)))]
pub(super) async fn retry(
    _: Runner,
    api: State<Api>,
    path: Path,
    body: AnyBody,
) -> Result<Json<Marked>, Fault> {
    mark(&api, &path, body, false).await
}

/// Park rejected rows
///
/// Rows that are refused at the moment are not sent again as long as they, and the sync, are as they are.
#[utoipa::path(post, path = "/syncs/{syncId}/rejected/park", operation_id = "ParkRejectedRows", tag = "rejected",
    params(("syncId" = i64, Path, minimum = 1, description = "The number of the sync")),
    request_body(content(
        (Option<MarkInput> = "application/json"),
        (Option<MarkInput> = "application/x-www-form-urlencoded"))),
    responses((status = 200, description = "How many rows were parked", body = Marked),
        (status = 409, description = "A run holds the sync", body = Fault),
        (status = 502, description = "The warehouse does not answer, or refuses", body = Fault)))]
pub(super) async fn park(
    _: Runner,
    api: State<Api>,
    path: Path,
    body: AnyBody,
) -> Result<Json<Marked>, Fault> {
    mark(&api, &path, body, true).await
}

async fn mark(api: &Api, path: &Path, AnyBody(mut body): AnyBody, park: bool) -> Result<Json<Marked>, Fault> {
    let sync = sync_of(api, path)?;
    let key = body.text("key");
    if key.as_ref().is_some_and(|key| key.contains(['\0', '\u{1}'])) {
        body.say("key", "cannot stand in a statement: it holds a NUL, or U+0001");
    }
    body.checked()?;
    let (service, of) = (api.service.clone(), sync.clone());
    let marked = api.questions.ask(sync.model.source.id, async move {
        let request = Request::default();
        mark_parked(&service.project(), &of, service.store(), request, park, key.as_deref()).await
    });
    let marked = marked.await?;
    let count = marked.map_err(|error| match error.code {
        ErrorCode::Usage => Fault::field("key", error.message),
        _ => error.into(),
    })?;
    Ok(Json(Marked { sync_id: sync.id, sync_slug: sync.slug.clone(), count }))
}
