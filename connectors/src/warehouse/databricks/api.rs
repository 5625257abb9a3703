//! The Statement Execution API, version 2.0: requests that are repeated where that is safe, and statements.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use chrono::Utc;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::auth::Auth;
use super::config::is_loopback;
use super::trouble::Said;
use crate::http::{HttpClient, chain, retry_after};
use crate::warehouse::{ErrorKind, WarehouseError};

/// The longest that one request may take, its answer included.
const REQUEST: Duration = Duration::from_secs(120);
/// The same for a chunk of rows.
const CHUNK: Duration = Duration::from_secs(300);
/// The most bytes of one answer. Databricks cuts results into chunks of some twenty megabytes.
const MOST: usize = 256 << 20;
/// For how long an address is tried that never answered.
const NEVER_ANSWERED: Duration = Duration::from_secs(5);
/// The longest wait before the first repeat, and before any.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(16);

/// A workspace, and what statements are asked with.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) http: HttpClient,
    pub(super) base: Url,
    pub(super) auth: Auth,
    pub(super) warehouse_id: String,
    pub(super) catalog: String,
    /// Where names without a schema are looked for.
    pub(super) schema: Option<String>,
    pub(super) statement_timeout: Option<Duration>,
    /// For how long a trouble that may pass is waited out.
    pub(super) retry_for: Duration,
    /// Whether anybody ever answered here.
    pub(super) answered: AtomicBool,
}

/// What a second request would do where the first one's answer was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Safety {
    /// Nothing that anybody minds.
    Repeatable,
    /// Perhaps the same once more: it is repeated only where the first one certainly came to nothing.
    Once,
}

/// What is known of a statement.
#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    #[serde(rename = "statement_id")]
    pub id: String,
    pub status: Status,
    #[serde(default)]
    pub manifest: Manifest,
    #[serde(default)]
    pub result: Part,
}

#[derive(Debug, Deserialize)]
pub(super) struct Status {
    pub state: State,
    #[serde(default)]
    error: StatementError,
    #[serde(default)]
    sql_state: Option<String>,
}

impl Status {
    /// The words of a statement that failed.
    pub(super) fn said(self) -> Said {
        let StatementError { error_code, message } = self.error;
        Said { code: error_code, message, sql_state: self.sql_state }
    }
}

#[derive(Debug, Default, Deserialize)]
struct StatementError {
    #[serde(default)]
    error_code: String,
    #[serde(default)]
    message: String,
}

/// How far a statement is. It stays pending while its warehouse wakes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum State {
    Pending,
    Running,
    Succeeded,
    Failed,
    Canceled,
    Closed,
}

/// What a result is.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Manifest {
    #[serde(default)]
    pub schema: Schema,
    #[serde(default, rename = "total_row_count")]
    pub rows: Option<u64>,
    #[serde(default)]
    pub truncated: bool,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Schema {
    #[serde(default)]
    pub columns: Vec<ColumnInfo>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ColumnInfo {
    #[serde(default)]
    pub name: String,
}

/// Some rows of a result, or where they lie.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Part {
    #[serde(default)]
    pub external_links: Vec<Link>,
    #[serde(default)]
    pub data_array: Vec<Vec<Option<String>>>,
    #[serde(default)]
    pub next_chunk_internal_link: Option<String>,
}

/// Where a chunk lies, for a few minutes. Whoever has the address may read it: it stands in no message.
#[derive(Deserialize)]
#[expect(clippy::struct_field_names, reason = "the interface's own words")]
pub(super) struct Link {
    #[serde(default)]
    pub chunk_index: u64,
    #[serde(default)]
    pub row_count: Option<u64>,
    pub external_link: String,
    #[serde(default)]
    pub next_chunk_internal_link: Option<String>,
    #[serde(default)]
    http_headers: std::collections::BTreeMap<String, String>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("chunk_index", &self.chunk_index).finish_non_exhaustive()
    }
}

/// A statement that ended well.
#[derive(Debug)]
pub(super) struct Ended {
    pub id: String,
    pub answer: Answer,
}

impl Ended {
    /// The rows that came with the answer, all of them.
    pub(super) fn inline_rows(&self) -> Result<&[Vec<Option<String>>], WarehouseError> {
        let Answer { manifest, result, .. } = &self.answer;
        if manifest.truncated || result.next_chunk_internal_link.is_some() {
            let message = "more rows came back than a statement of this kind has";
            return Err(WarehouseError::new(ErrorKind::Other, message));
        }
        Ok(&result.data_array)
    }

    /// Rows that a statement on its own wrote, where it says so.
    pub(super) fn affected(&self) -> Option<u64> {
        let at = self.answer.manifest.schema.columns.iter().position(|c| c.name == "num_affected_rows")?;
        self.answer.result.data_array.first()?.get(at)?.as_deref()?.parse().ok()
    }
}

/// What came of a request for a chunk.
pub(super) enum Fetched {
    Bytes(Bytes),
    /// Its address holds no longer.
    Expired,
}

/// An answer of any status.
struct Raw {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// No answer, or not all of it.
struct Silence {
    message: String,
    /// Whether the request may have arrived.
    sent: bool,
    /// Whether asking again may help.
    passes: bool,
}

const STATEMENTS: &str = "/api/2.0/sql/statements";

impl Api {
    /// Begins a statement.
    pub(super) async fn begin(&self, request: &Value, safety: Safety) -> Result<Answer, WarehouseError> {
        let body = self.call(Method::POST, STATEMENTS, Some(request), safety).await?;
        read(&body)
    }

    /// What is known of a statement, with its first rows when it has ended.
    pub(super) async fn state(&self, id: &str) -> Result<Answer, WarehouseError> {
        let path = format!("{STATEMENTS}/{id}");
        read(&self.call(Method::GET, &path, None, Safety::Repeatable).await?)
    }

    /// Asks a statement to stop; one that has ended, or that nobody knows, does not mind.
    pub(super) async fn cancel(&self, id: &str) -> Result<(), WarehouseError> {
        let path = format!("{STATEMENTS}/{id}/cancel");
        match self.call(Method::POST, &path, None, Safety::Repeatable).await {
            Err(error) if error.kind != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Where a chunk lies now.
    pub(super) async fn chunk(&self, id: &str, index: u64) -> Result<Part, WarehouseError> {
        let path = format!("{STATEMENTS}/{id}/result/chunks/{index}");
        read(&self.call(Method::GET, &path, None, Safety::Repeatable).await?)
    }

    /// The same by the path that an answer named.
    pub(super) async fn part(&self, path: &str) -> Result<Part, WarehouseError> {
        if !path.starts_with(STATEMENTS) {
            let message = "Databricks names the next rows by a path that is none of a statement";
            return Err(WarehouseError::new(ErrorKind::Other, message));
        }
        read(&self.call(Method::GET, path, None, Safety::Repeatable).await?)
    }

    /// The names of statements that have not ended and whose text holds this.
    pub(super) async fn unfinished(&self, holds: &str) -> Result<Vec<String>, WarehouseError> {
        #[derive(Deserialize)]
        struct List {
            #[serde(default)]
            res: Vec<Query>,
            #[serde(default)]
            has_next_page: bool,
            #[serde(default)]
            next_page_token: Option<String>,
        }
        #[derive(Deserialize)]
        struct Query {
            query_id: String,
            #[serde(default)]
            query_text: String,
        }
        let asked = "/api/2.0/sql/history/queries?filter_by.statuses=QUEUED&filter_by.statuses=RUNNING&max_results=1000";
        let mut found = Vec::new();
        let mut path = asked.to_owned();
        loop {
            let list: List = read(&self.call(Method::GET, &path, None, Safety::Repeatable).await?)?;
            // Long texts are cut behind their beginning, where the comment stands.
            found.extend(list.res.into_iter().filter(|q| q.query_text.contains(holds)).map(|q| q.query_id));
            match list.next_page_token.filter(|token| list.has_next_page && !token.is_empty()) {
                Some(token) => {
                    let token =
                        percent_encoding::utf8_percent_encode(&token, percent_encoding::NON_ALPHANUMERIC);
                    path = format!("{asked}&page_token={token}");
                }
                None => return Ok(found),
            }
        }
    }

    /// Repeats a request until it is answered for good, or patience ends.
    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        safety: Safety,
    ) -> Result<Bytes, WarehouseError> {
        let begun = Instant::now();
        let redactor = self.http.redactor();
        let host = self.base.host_str().unwrap_or_default();
        let body: Bytes = body.map(|body| body.to_string().into()).unwrap_or_default();
        let (mut repeats, mut renewed) = (0, false);
        loop {
            let token = self.auth.token(&self.http).await?;
            let (error, asked) = match self.once(&method, path, &body, &token).await {
                Ok(Raw { status, body, .. }) if status.is_success() => {
                    self.answered.store(true, Ordering::Relaxed);
                    return Ok(body);
                }
                Ok(Raw { status, headers, body }) => {
                    self.answered.store(true, Ordering::Relaxed);
                    let said = Said::read(status.as_u16(), &body);
                    if said.is_unknown(status.as_u16()) && !renewed && self.auth.refused(&token).await {
                        renewed = true;
                        continue;
                    }
                    let asked = retry_after(&headers, Utc::now());
                    let mut error = said.refusal(status.as_u16(), redactor);
                    // Who is told to come back later was not served.
                    let unserved = status == StatusCode::TOO_MANY_REQUESTS
                        || status == StatusCode::SERVICE_UNAVAILABLE
                            && (headers.contains_key(RETRY_AFTER) || said.is_down());
                    if !unserved && !status.is_server_error() && status != StatusCode::REQUEST_TIMEOUT {
                        return Err(error);
                    }
                    if !unserved {
                        // What a server in trouble did with a request nobody knows.
                        error.kind = ErrorKind::ConnectionLost;
                        if safety == Safety::Once {
                            return Err(error);
                        }
                    }
                    (error, asked)
                }
                Err(Silence { message, sent, passes }) => {
                    let kind = if sent { ErrorKind::ConnectionLost } else { ErrorKind::Unreachable };
                    let error = WarehouseError::new(kind, redactor.redact(&format!("{host}: {message}")));
                    if !passes || sent && safety == Safety::Once {
                        return Err(error);
                    }
                    (error, None)
                }
            };
            let known = self.answered.load(Ordering::Relaxed);
            let patience = if known { self.retry_for } else { self.retry_for.min(NEVER_ANSWERED) };
            let wait = pause(repeats, asked);
            if begun.elapsed() + wait > patience {
                let message =
                    format!("{} ({} times within {:.0?})", error.message, repeats + 1, begun.elapsed());
                return Err(WarehouseError { message, ..error });
            }
            tracing::debug!(path, %error, "Databricks is asked again");
            tokio::time::sleep(wait).await;
            repeats += 1;
        }
    }

    async fn once(&self, method: &Method, path: &str, body: &Bytes, token: &str) -> Result<Raw, Silence> {
        let refused = |message: &str| Silence { message: message.to_owned(), sent: false, passes: false };
        let url = self.base.join(path).map_err(|_| refused("an address cannot be made"))?;
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let bearer = HeaderValue::from_str(&format!("Bearer {token}"));
        let mut bearer = bearer.map_err(|_| refused("the token has no form in a header"))?;
        bearer.set_sensitive(true);
        headers.insert(AUTHORIZATION, bearer);
        exchange(&self.http, method.clone(), url, headers, body.clone(), REQUEST).await
    }

    /// A chunk from where it lies. No token goes there: the address itself is the right to read it.
    pub(super) async fn fetch(&self, link: &Link) -> Result<Fetched, WarehouseError> {
        let lost = |message: &str| {
            let message = format!("a part of the result does not come: {message}");
            WarehouseError::new(ErrorKind::ConnectionLost, self.http.redactor().redact(&message))
        };
        let url: Url = link.external_link.parse().map_err(|_| lost("its address cannot be read"))?;
        if url.scheme() != "https" && !(url.scheme() == "http" && is_loopback(&url)) {
            return Err(lost("its address is not encrypted"));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &link.http_headers {
            let name = HeaderName::try_from(name).map_err(|_| lost("a header of its address"))?;
            let mut value = HeaderValue::try_from(value).map_err(|_| lost("a header of its address"))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let begun = Instant::now();
        let mut repeats = 0;
        loop {
            let got =
                exchange(&self.http, Method::GET, url.clone(), headers.clone(), Bytes::new(), CHUNK).await;
            let (said, asked) = match got {
                Ok(Raw { status, body, .. }) if status.is_success() => return Ok(Fetched::Bytes(body)),
                Ok(Raw { status, headers, .. }) => match status.as_u16() {
                    400 | 401 | 403 | 404 | 410 => return Ok(Fetched::Expired),
                    408 | 429 | 500..=599 => (format!("HTTP {status}"), retry_after(&headers, Utc::now())),
                    _ => return Err(lost(&format!("HTTP {status}"))),
                },
                Err(Silence { message, passes: false, .. }) => return Err(lost(&message)),
                Err(Silence { message, .. }) => (message, None),
            };
            let wait = pause(repeats, asked);
            if begun.elapsed() + wait > self.retry_for {
                return Err(lost(&said));
            }
            tokio::time::sleep(wait).await;
            repeats += 1;
        }
    }
}

/// How long to wait before a repeat: what the answer asks for, and a little that others do not wait.
fn pause(repeats: u32, asked: Option<Duration>) -> Duration {
    let ceiling = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(repeats)).min(LONGEST_WAIT);
    asked.unwrap_or_default() + ceiling.mul_f64(fastrand::f64())
}

async fn exchange(
    http: &HttpClient,
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Bytes,
    limit: Duration,
) -> Result<Raw, Silence> {
    let silence = |message: String, sent: bool| Silence { message, sent, passes: true };
    http.admits(&url).map_err(|e| Silence { message: e.to_string(), sent: false, passes: false })?;
    let deadline = Instant::now() + limit;
    let sending = http.raw().request(method, url).headers(headers).body(body);
    let mut response = match timeout_at(deadline, sending.send()).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => {
            let sent = !error.is_connect() && !error.is_builder();
            return Err(silence(chain(&error.without_url()), sent));
        }
        Err(_) => return Err(silence(format!("no answer within {} s", limit.as_secs()), true)),
    };
    let (status, headers) = (response.status(), response.headers().clone());
    let mut body = BytesMut::new();
    loop {
        match timeout_at(deadline, response.chunk()).await {
            Ok(Ok(None)) => return Ok(Raw { status, headers, body: body.freeze() }),
            Ok(Ok(Some(chunk))) if body.len() + chunk.len() <= MOST => body.extend_from_slice(&chunk),
            Ok(Ok(Some(_))) => {
                let message = format!("an answer has more than {} MB", MOST >> 20);
                return Err(Silence { message, sent: true, passes: false });
            }
            Ok(Err(error)) => return Err(silence(chain(&error.without_url()), true)),
            Err(_) => return Err(silence("the answer did not end in time".to_owned(), true)),
        }
    }
}

/// Reads an answer's body.
fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, WarehouseError> {
    serde_json::from_slice(body).map_err(|e| {
        let message = format!("this is not how Databricks answers ({e}); check `host`");
        WarehouseError::new(ErrorKind::Unreachable, message)
    })
}
