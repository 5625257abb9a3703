//! Requests to Snowflake's service and what comes back; what may be repeated is, for a while.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use chrono::{DateTime, Utc};
use reqwest::header::{DATE, HeaderMap};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::super::{ErrorKind, WarehouseError};
use crate::http::{HttpClient, chain, retry_after};

/// The most bytes of an answer: a result's first rows and the addresses of its chunks, or one chunk.
const MOST_BYTES: usize = 256 << 20;
/// The first wait before a request is repeated, doubled with every other one.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// The longest wait that nobody asked for.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// How often it is tried to connect before there is a session.
const CONNECTING_TRIES: u32 = 3;
/// How much of an answer that is not the service's stands in a message, in bytes.
const QUOTED: usize = 200;

/// A request, whole, so that it can be repeated.
pub(super) struct Request {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// An answer of any status.
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// What the service says in an answer.
#[derive(Deserialize)]
pub(super) struct Reply<T> {
    #[serde(default)]
    success: bool,
    #[serde(default)]
    code: Value,
    #[serde(default)]
    pub message: Option<String>,
    #[serde(default = "none")]
    pub data: Option<T>,
}

fn none<T>() -> Option<T> {
    None
}

impl<T> Reply<T> {
    /// The code; empty for a plain success.
    pub(super) fn code(&self) -> String {
        match &self.code {
            Value::String(code) => code.clone(),
            Value::Number(code) => format!("{:06}", code.as_u64().unwrap_or_default()),
            _ => String::new(),
        }
    }

    pub(super) fn success(&self) -> bool {
        self.success
    }
}

/// A request that came to nothing.
#[derive(Debug)]
pub(super) enum Silence {
    /// No connection came about: nothing left.
    NotConnected(String),
    /// It left, and no whole answer came.
    Broken(String),
}

impl Silence {
    pub(super) fn said(self) -> String {
        match self {
            Self::NotConnected(said) | Self::Broken(said) => said,
        }
    }
}

/// How long a request is repeated.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    /// In all.
    pub total: Duration,
    /// One attempt.
    pub attempt: Duration,
    /// Give up at once where nothing listens.
    pub only_listening: bool,
}

/// One attempt.
async fn once(http: &HttpClient, request: &Request, deadline: Instant) -> Result<Answer, Silence> {
    if let Err(refused) = http.admits(&request.url) {
        return Err(Silence::NotConnected(refused.to_string()));
    }
    let place = request.url.host_str().unwrap_or_default();
    let sent = http
        .raw()
        .request(request.method.clone(), request.url.clone())
        .headers(request.headers.clone())
        .body(request.body.clone())
        .send();
    let late = || Silence::Broken(format!("{place}: no answer in time"));
    let mut response = match timeout_at(deadline, sent).await {
        Err(_) => return Err(late()),
        Ok(Ok(response)) => response,
        Ok(Err(error)) => {
            let connected = !error.is_connect();
            // Nothing of the address but its host: the others of a chunk's parts are a signature.
            let said = http.redactor().redact(&format!("{place}: {}", chain(&error.without_url())));
            return Err(if connected { Silence::Broken(said) } else { Silence::NotConnected(said) });
        }
    };
    let (status, headers) = (response.status(), response.headers().clone());
    let mut body = BytesMut::new();
    loop {
        match timeout_at(deadline, response.chunk()).await {
            Err(_) => return Err(late()),
            Ok(Err(error)) => {
                let said = format!("{place}: the answer broke off: {}", chain(&error.without_url()));
                return Err(Silence::Broken(said));
            }
            Ok(Ok(None)) => return Ok(Answer { status, headers, body: body.freeze() }),
            Ok(Ok(Some(piece))) if body.len() + piece.len() > MOST_BYTES => {
                let said = format!("{place}: an answer of more than {MOST_BYTES} bytes");
                return Err(Silence::Broken(said));
            }
            Ok(Ok(Some(piece))) => body.extend_from_slice(&piece),
        }
    }
}

/// Asks until there is an answer that is not only trouble on the way (429, 408, 5xx, a connection that breaks), or
/// patience ends. `make` gets the number of tries that came to nothing and the last one's status, 0 for none.
pub(super) async fn ask(
    http: &HttpClient,
    patience: Patience,
    make: impl Fn(u32, u16) -> Request,
) -> Result<Answer, Silence> {
    let end = Instant::now() + patience.total;
    let (mut tries, mut reason) = (0, 0);
    loop {
        let request = make(tries, reason);
        let got = once(http, &request, end.min(Instant::now() + patience.attempt)).await;
        let (said, after) = match got {
            Ok(answer) if !is_passing(answer.status) => return Ok(answer),
            Ok(answer) => {
                reason = answer.status.as_u16();
                let after = retry_after(&answer.headers, Utc::now());
                (Silence::Broken(shown(http, &request.url, &answer)), after)
            }
            Err(silence) => {
                reason = 0;
                (silence, None)
            }
        };
        tries += 1;
        let hopeless =
            matches!(said, Silence::NotConnected(_)) && patience.only_listening && tries >= CONNECTING_TRIES;
        let most = FIRST_WAIT.saturating_mul(1 << tries.min(10)).min(LONGEST_WAIT);
        let wait = after.unwrap_or_else(|| most.mul_f64(fastrand::f64()));
        if hopeless || Instant::now() + wait >= end {
            return Err(said);
        }
        tracing::debug!(tries, reason, wait_ms = wait.as_millis(), "Snowflake is asked again");
        tokio::time::sleep(wait).await;
    }
}

fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status.as_u16(), 408 | 429)
}

/// An answer that is not the service's, for a message.
pub(super) fn shown(http: &HttpClient, url: &Url, answer: &Answer) -> String {
    let start = String::from_utf8_lossy(&answer.body[..answer.body.len().min(16 << 10)]).into_owned();
    let said = start.split_whitespace().collect::<Vec<_>>().join(" ");
    let said = http.redactor().excerpt(&said, QUOTED);
    let host = url.host_str().unwrap_or_default();
    if said.is_empty() {
        format!("{host}: HTTP {}", answer.status)
    } else {
        format!("{host}: HTTP {}: {said}", answer.status)
    }
}

/// The service's words in an answer.
pub(super) fn reply<T: DeserializeOwned>(
    http: &HttpClient,
    url: &Url,
    answer: &Answer,
) -> Result<Reply<T>, WarehouseError> {
    serde_json::from_slice(&answer.body).map_err(|e| {
        let shown = if answer.status.is_success() {
            format!("{}: {e}", url.host_str().unwrap_or_default())
        } else {
            shown(http, url, answer)
        };
        let message = format!("this is not how Snowflake answers ({shown}); check `account` and `host`");
        WarehouseError::new(ErrorKind::Unreachable, message)
    })
}

/// By how many seconds the service's clock is ahead of this machine's, where the answer tells.
pub(super) fn ahead(answer: &Answer) -> Option<i64> {
    let date = DateTime::parse_from_rfc2822(answer.headers.get(DATE)?.to_str().ok()?).ok()?;
    Some(date.timestamp() - Utc::now().timestamp())
}
