//! A session at the service: its tokens, the statement that it runs, and what stops it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::Utc;
use reqwest::Method;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Notify;
use uuid::Uuid;

use super::super::{Canceller, ErrorKind, WarehouseError};
use super::service::Service;
use super::trouble::{failed_statement, one_line};
use super::wire::{self, Patience, Reply, Request};

/// The service answers within 45 seconds, if only that it is not done yet.
const ATTEMPT: Duration = Duration::from_secs(120);
/// How long a statement that was told to stop may take to say so.
const STOPPING: Duration = Duration::from_secs(15);
/// How often a statement is told to stop that the service does not know yet.
const STOPPING_TRIES: u32 = 20;
/// How long leaving may take: nobody waits for it.
const LEAVING: Duration = Duration::from_secs(10);

const IN_PROGRESS: [&str; 2] = ["333333", "333334"];
const SESSION_EXPIRED: &str = "390112";
const MASTER_EXPIRED: &str = "390114";
const NOT_EXECUTING: &str = "000605";

/// What belongs to a session and may change while it lives.
#[derive(Clone)]
pub(super) struct Tokens {
    pub session: String,
    pub master: String,
    /// The service's number of the session.
    pub id: String,
    /// The schema in which names without one are looked up, when there is one.
    pub schema: Option<String>,
}

/// A session at the service.
pub(super) struct Link {
    service: Arc<Service>,
    tag: String,
    tokens: Mutex<Tokens>,
    /// Held while tokens are renewed, so that it happens once.
    renewing: tokio::sync::Mutex<()>,
    running: Mutex<Option<Arc<Running>>>,
    /// What is not committed would be lost with the session.
    in_transaction: AtomicBool,
    sequence: AtomicU64,
}

/// A statement under way.
#[derive(Default)]
pub(super) struct Running {
    request: Uuid,
    cancelled: AtomicBool,
    finished: AtomicBool,
    /// Its rows are being read.
    read: AtomicBool,
    told: Notify,
}

impl Running {
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Waits until somebody cancels it.
    pub(super) async fn until_cancelled(&self) {
        loop {
            let told = self.told.notified();
            if self.is_cancelled() {
                return;
            }
            told.await;
        }
    }

    pub(super) fn set_read(&self, is: bool) {
        self.read.store(is, Ordering::Release);
    }

    pub(super) fn finish(&self) {
        self.finished.store(true, Ordering::Release);
    }
}

/// A column as the service describes it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct RowType {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub precision: Option<i64>,
    #[serde(default)]
    pub scale: Option<i64>,
    #[serde(default)]
    pub length: Option<i64>,
    #[serde(default)]
    pub collation: Option<String>,
}

/// A part of a result that lies in an object store.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct ChunkAddress {
    pub url: String,
    #[serde(rename = "rowCount")]
    pub rows: u64,
}

/// What the service says of a statement.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct QueryData {
    pub query_id: Option<String>,
    pub sql_state: Option<String>,
    get_result_url: Option<String>,
    pub rowtype: Vec<RowType>,
    pub rowset: Option<Vec<Vec<Option<String>>>>,
    #[serde(rename = "rowsetBase64")]
    pub rowset_base64: Option<String>,
    pub query_result_format: Option<String>,
    pub chunks: Vec<ChunkAddress>,
    pub chunk_headers: Option<HashMap<String, String>>,
    pub qrmk: Option<String>,
    pub total: Option<u64>,
    final_schema_name: Option<String>,
}

/// How a statement is asked for.
#[derive(Default)]
pub(super) struct Asked {
    /// Only what it would return.
    pub describe: bool,
    /// Values for its placeholders, as the service takes them.
    pub bindings: Option<Value>,
}

impl Link {
    pub(super) fn new(service: Arc<Service>, tag: String, tokens: Tokens) -> Self {
        Self {
            service,
            tag,
            tokens: Mutex::new(tokens),
            renewing: tokio::sync::Mutex::default(),
            running: Mutex::default(),
            in_transaction: AtomicBool::new(false),
            sequence: AtomicU64::new(0),
        }
    }

    pub(super) fn service(&self) -> &Service {
        &self.service
    }

    pub(super) fn id(&self) -> String {
        locked(&self.tokens).id.clone()
    }

    pub(super) fn set_in_transaction(&self, is: bool) {
        self.in_transaction.store(is, Ordering::Release);
    }

    pub(super) fn is_in_transaction(&self) -> bool {
        self.in_transaction.load(Ordering::Acquire)
    }

    /// The statement that runs now, or ran last.
    pub(super) fn running(&self) -> Option<Arc<Running>> {
        locked(&self.running).clone()
    }

    /// Runs a statement and waits for what the service says of it. It is sent under one request id, however often
    /// the connection breaks, and so runs once.
    pub(super) async fn statement(&self, text: &str, asked: Asked) -> Result<QueryData, WarehouseError> {
        let running = Arc::new(Running { request: Uuid::new_v4(), ..Running::default() });
        *locked(&self.running) = Some(running.clone());
        let stopped = async {
            running.until_cancelled().await;
            tokio::time::sleep(STOPPING).await;
        };
        let result = tokio::select! {
            result = self.submit_at_home(text, asked, &running) => result,
            () = stopped => Err(WarehouseError::new(ErrorKind::Cancelled, "the statement was cancelled")),
        };
        running.finish();
        match result {
            // Cancelled between two answers, it may have ended in another way just before.
            Err(error) if running.is_cancelled() && error.kind != ErrorKind::Cancelled => {
                Err(WarehouseError { kind: ErrorKind::Cancelled, ..error })
            }
            other => other,
        }
    }

    /// Whoever creates a schema finds himself in it, and models would be looked up there: the session goes back.
    async fn submit_at_home(
        &self,
        text: &str,
        asked: Asked,
        running: &Running,
    ) -> Result<QueryData, WarehouseError> {
        let data = self.submit(text, asked, running).await?;
        let home = locked(&self.tokens).schema.clone();
        if let (Some(schema), Some(now)) = (home, &data.final_schema_name)
            && schema != *now
        {
            let back = format!("use schema {}", quoted(&schema));
            let again = Running { request: Uuid::new_v4(), ..Running::default() };
            self.submit(&back, Asked::default(), &again).await?;
        }
        Ok(data)
    }

    async fn submit(&self, text: &str, asked: Asked, running: &Running) -> Result<QueryData, WarehouseError> {
        let started = Utc::now().timestamp_millis();
        let mut body = json!({
            "sqlText": text,
            "asyncExec": false,
            "sequenceId": self.sequence.fetch_add(1, Ordering::Relaxed) + 1,
            "querySubmissionTime": started,
        });
        if asked.describe {
            body["describeOnly"] = json!(true);
        }
        if let Some(bindings) = asked.bindings {
            body["bindings"] = bindings;
        }
        let body = Bytes::from(body.to_string());
        let address = |tries: u32, reason: u16| {
            let mut path = format!(
                "/queries/v1/query-request?requestId={}&request_guid={}",
                running.request,
                Uuid::new_v4()
            );
            if tries > 0 {
                path.push_str(&format!("&clientStartTime={started}&retryCount={tries}&retryReason={reason}"));
            }
            path
        };
        let mut reply: Reply<QueryData> = self.call(Method::POST, address, &body).await?;
        loop {
            let code = reply.code();
            let mut data = reply.data.take().unwrap_or_default();
            let query = data.query_id.clone();
            if IN_PROGRESS.contains(&code.as_str()) {
                let later =
                    data.get_result_url.take().or_else(|| Some(format!("/queries/{}/result", query?)));
                let Some(later) = later.filter(|path| path.starts_with('/')) else {
                    let message = "Snowflake does not say where the result will be";
                    return Err(WarehouseError::new(ErrorKind::Other, message));
                };
                reply = self.call(Method::GET, |_, _| later.clone(), &Bytes::new()).await?;
                continue;
            }
            if reply.success() {
                tracing::debug!(
                    query = query.as_deref().unwrap_or_default(),
                    tag = self.tag,
                    "statement done"
                );
                return Ok(data);
            }
            let (state, said) = (data.sql_state.unwrap_or_default(), reply.message.unwrap_or_default());
            let said = self.service.http.redactor().redact(&said);
            return Err(failed_statement(&code, &state, &said, query.as_deref()));
        }
    }

    /// What the service says of a statement that is done, once more: the addresses of its chunks hold for some hours.
    pub(super) async fn result_again(&self, query: &str) -> Result<QueryData, WarehouseError> {
        let path = format!("/queries/{query}/result");
        let reply: Reply<QueryData> = self.call(Method::GET, |_, _| path.clone(), &Bytes::new()).await?;
        let code = reply.code();
        match reply.data {
            Some(data) if code.is_empty() => Ok(data),
            _ => Err(failed_statement(&code, "", &reply.message.unwrap_or_default(), Some(query))),
        }
    }

    /// One request with the session's token, renewed when it has expired.
    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: impl Fn(u32, u16) -> String,
        body: &Bytes,
    ) -> Result<Reply<T>, WarehouseError> {
        loop {
            let token = locked(&self.tokens).session.clone();
            let patience =
                Patience { total: self.service.network_timeout, attempt: ATTEMPT, only_listening: false };
            let reply: Reply<T> = self.call_with(&token, patience, &method, &path, body).await?;
            match reply.code().as_str() {
                SESSION_EXPIRED => self.renew(&token).await?,
                "390111" | "390113" | "390114" | "390115" | "390104" | "390110" => {
                    let said = one_line(&reply.message.unwrap_or_default());
                    return Err(WarehouseError::new(ErrorKind::ConnectionLost, said));
                }
                _ => return Ok(reply),
            }
        }
    }

    async fn call_with<T: DeserializeOwned>(
        &self,
        token: &str,
        patience: Patience,
        method: &Method,
        path: &impl Fn(u32, u16) -> String,
        body: &Bytes,
    ) -> Result<Reply<T>, WarehouseError> {
        let http = &self.service.http;
        let headers = headers(token)?;
        let url = |tries, reason| self.service.at(&path(tries, reason));
        let answer = wire::ask(http, patience, |tries, reason| Request {
            method: method.clone(),
            url: url(tries, reason),
            headers: headers.clone(),
            body: body.clone(),
        })
        .await
        .map_err(|silence| {
            let message = format!("Snowflake does not answer any more: {}", silence.said());
            WarehouseError::new(ErrorKind::ConnectionLost, message)
        })?;
        wire::reply(http, &url(0, 0), &answer)
    }

    /// Another token for the same session. Where the session itself has run out and nothing is lost with it, another
    /// session takes its place.
    async fn renew(&self, expired: &str) -> Result<(), WarehouseError> {
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Renewed {
            session_token: Option<String>,
            master_token: Option<String>,
        }
        let _alone = self.renewing.lock().await;
        let tokens = locked(&self.tokens).clone();
        if tokens.session != expired {
            return Ok(());
        }
        let body =
            Bytes::from(json!({"oldSessionToken": tokens.session, "requestType": "RENEW"}).to_string());
        let path = |_, _| format!("/session/token-request?requestId={}", Uuid::new_v4());
        let patience =
            Patience { total: self.service.network_timeout, attempt: ATTEMPT, only_listening: false };
        let reply: Reply<Renewed> =
            self.call_with(&tokens.master, patience, &Method::POST, &path, &body).await?;
        let code = reply.code();
        if let Some(Renewed { session_token: Some(session), master_token }) = reply.data {
            let redactor = self.service.http.redactor();
            redactor.learn(&session);
            let master = master_token.unwrap_or_else(|| tokens.master.clone());
            redactor.learn(&master);
            *locked(&self.tokens) = Tokens { session, master, ..tokens };
            tracing::debug!("the session's token was renewed");
            return Ok(());
        }
        let said = one_line(&reply.message.unwrap_or_default());
        if code == MASTER_EXPIRED && !self.is_in_transaction() {
            let tokens = self.service.log_in(&self.tag).await?;
            *locked(&self.tokens) = tokens;
            tracing::debug!("the session had expired; another one took its place");
            return Ok(());
        }
        let message = format!("the session cannot be renewed: {said}");
        Err(WarehouseError { code: Some(code), ..WarehouseError::new(ErrorKind::ConnectionLost, message) })
    }

    /// Tells the service to stop a statement. One that it does not run yet is told again, as long as nobody knows
    /// that it is over.
    async fn abort(&self, running: &Running) -> Result<(), WarehouseError> {
        let body = Bytes::from(json!({"requestId": running.request.to_string()}).to_string());
        for _ in 0..STOPPING_TRIES {
            let path = |_, _| format!("/queries/v1/abort-request?requestId={}", Uuid::new_v4());
            let reply: Reply<Value> = self.call(Method::POST, path, &body).await?;
            let code = reply.code();
            if reply.success() || running.finished.load(Ordering::Acquire) {
                return Ok(());
            }
            if code != NOT_EXECUTING {
                return Err(failed_statement(&code, "", &reply.message.unwrap_or_default(), None));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Ends the session: what runs is stopped, what is not committed is undone.
    pub(super) async fn leave(&self, stop: bool) {
        let leaving = async {
            if let Some(running) = self.running().filter(|_| stop) {
                // Once: it may be over, and nobody will know.
                running.finish();
                let _ = self.abort(&running).await;
            }
            let token = locked(&self.tokens).session.clone();
            let patience = Patience { total: LEAVING, attempt: LEAVING, only_listening: true };
            let path = |_, _| format!("/session?delete=true&requestId={}", Uuid::new_v4());
            let body = Bytes::from_static(b"{}");
            self.call_with::<Value>(&token, patience, &Method::POST, &path, &body).await.map(|_| ())
        };
        if !matches!(tokio::time::timeout(LEAVING, leaving).await, Ok(Ok(()))) {
            tracing::debug!("the session was not closed; it ends by itself");
        }
    }
}

#[async_trait]
impl Canceller for Link {
    async fn cancel(&self) -> Result<(), WarehouseError> {
        let Some(running) = self.running() else { return Ok(()) };
        let finished = running.finished.load(Ordering::Acquire);
        if finished && !running.read.load(Ordering::Acquire) {
            return Ok(());
        }
        running.cancelled.store(true, Ordering::Release);
        running.told.notify_waiters();
        // Rows that are still to be read are done at the service.
        if finished { Ok(()) } else { self.abort(&running).await }
    }
}

pub(super) fn headers(token: &str) -> Result<HeaderMap, WarehouseError> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // With any other type results would come as JSON.
    headers.insert(ACCEPT, HeaderValue::from_static("application/snowflake"));
    if !token.is_empty() {
        let value = HeaderValue::from_str(&format!("Snowflake Token=\"{token}\""));
        let mut value = value.map_err(|_| {
            WarehouseError::new(ErrorKind::Other, "Snowflake gave a token that no header can carry")
        })?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Ok(headers)
}

/// A name in quotes, unless it is already.
pub(super) fn quoted(name: &str) -> String {
    if name.starts_with('"') { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
