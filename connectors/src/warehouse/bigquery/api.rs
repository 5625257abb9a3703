//! BigQuery's REST interface, version 2: requests that are repeated until they are answered, and jobs.
//!
//! Every request here may be repeated: a job has an id of ours, so that the second request to insert it finds the
//! first one's job; the others change nothing, or only ask a job to stop.

use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::auth::{Auth, Token};
use super::schema::Fields;
use super::trouble::Said;
use crate::http::{HttpClient, chain};
use crate::warehouse::{Cost, ErrorKind, WarehouseError};

/// How long BigQuery may wait for a job's end before it says that there is none yet.
const POLL: Duration = Duration::from_secs(10);
/// The longest that one request may take, its answer included: a page of rows has some ten megabytes.
const REQUEST: Duration = Duration::from_secs(120);
/// The most bytes of one answer. BigQuery cuts pages at a fraction of it.
const MOST: usize = 256 << 20;
/// For how long an address is tried that never answered.
const NEVER_ANSWERED: Duration = Duration::from_secs(5);
/// The longest wait before the first repeat, and before any.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(16);

/// A project at an endpoint.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) http: HttpClient,
    pub(super) endpoint: Url,
    pub(super) project: String,
    pub(super) location: Option<String>,
    pub(super) auth: Auth,
    /// For how long a trouble that may pass is waited out.
    pub(super) retry_for: Duration,
    /// Whether anybody ever answered here.
    pub(super) answered: AtomicBool,
}

/// A job's name, and where it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Job {
    pub id: String,
    pub location: Option<String>,
}

/// What is known of a job.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct JobAnswer {
    #[serde(default)]
    job_reference: JobReference,
    #[serde(default)]
    status: JobStatus,
    #[serde(default)]
    pub statistics: Statistics,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct JobReference {
    #[serde(default)]
    job_id: String,
    #[serde(default)]
    location: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct JobStatus {
    #[serde(default)]
    state: String,
    #[serde(default)]
    error_result: Option<Said>,
}

/// What a job did.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Statistics {
    #[serde(default)]
    total_bytes_processed: Option<String>,
    #[serde(default)]
    total_slot_ms: Option<String>,
    #[serde(default)]
    pub query: QueryStatistics,
    #[serde(default)]
    pub load: LoadStatistics,
}

impl Statistics {
    /// What it cost.
    pub(super) fn cost(&self) -> Cost {
        fn number<T: FromStr>(text: Option<&String>) -> Option<T> {
            text.and_then(|text| text.parse().ok())
        }
        Cost {
            bytes_scanned: number(self.total_bytes_processed.as_ref()),
            slot_seconds: number::<f64>(self.total_slot_ms.as_ref()).map(|ms| ms / 1000.0),
            credits: None,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct QueryStatistics {
    #[serde(default)]
    pub num_dml_affected_rows: Option<String>,
    #[serde(default)]
    pub schema: Option<Fields>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LoadStatistics {
    #[serde(default)]
    pub output_rows: Option<String>,
}

/// A page of a result, or the word that there is none yet.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "the interface's own words")]
pub(super) struct Page<'a> {
    #[serde(default)]
    pub job_complete: bool,
    #[serde(default)]
    pub schema: Option<Fields>,
    #[serde(default)]
    pub page_token: Option<String>,
    #[serde(default, borrow)]
    pub rows: Option<&'a RawValue>,
    #[serde(default)]
    pub num_dml_affected_rows: Option<String>,
    /// Errors, but warnings of a job that ended well too.
    #[serde(default)]
    pub errors: Vec<Said>,
}

/// What became of a request to begin a job.
pub(super) struct Begun {
    /// The job, with its place.
    pub job: Job,
    /// What it did, when it has ended already.
    pub ended: Option<Statistics>,
}

/// An error of a request or of a job.
#[derive(Debug)]
pub(super) struct Failure {
    pub error: WarehouseError,
    /// The engine's words, when it was the job that failed: then it had no effect.
    pub of_job: Option<Box<Said>>,
}

impl From<WarehouseError> for Failure {
    fn from(error: WarehouseError) -> Self {
        Self { error, of_job: None }
    }
}

/// One request. Not `Debug`: it may hold rows.
struct Request<'a> {
    method: Method,
    path: &'a str,
    query: &'a [(&'a str, &'a str)],
    content_type: &'static str,
    body: Bytes,
}

/// What came back.
struct Answer {
    status: StatusCode,
    retry_after: Option<Duration>,
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

impl Api {
    /// Asks for a job under an id of ours. A job that has ended with an error is that error.
    pub(super) async fn begin(&self, job: &Job, configuration: &Value) -> Result<Begun, Failure> {
        let body = json!({"jobReference": self.reference(job), "configuration": configuration});
        let path = format!("projects/{}/jobs", self.project);
        let answer = self.call(&path, Method::POST, &[], body.to_string().into()).await;
        self.begun(job, answer)
    }

    /// The same for rows to be loaded, in the form that carries both at once.
    pub(super) async fn begin_load(
        &self,
        job: &Job,
        configuration: &Value,
        rows: &[u8],
    ) -> Result<Begun, Failure> {
        let reference =
            json!({"jobReference": self.reference(job), "configuration": configuration}).to_string();
        let mut body = Vec::with_capacity(rows.len() + reference.len() + 256);
        let head = |kind: &str| format!("--{BOUNDARY}\r\nContent-Type: {kind}\r\n\r\n");
        body.extend_from_slice(head("application/json; charset=UTF-8").as_bytes());
        body.extend_from_slice(reference.as_bytes());
        body.extend_from_slice(b"\r\n");
        body.extend_from_slice(head("application/octet-stream").as_bytes());
        body.extend_from_slice(rows);
        body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
        let path = format!("/upload/bigquery/v2/projects/{}/jobs", self.project);
        let request = Request {
            method: Method::POST,
            path: &path,
            query: &[("uploadType", "multipart")],
            content_type: MULTIPART,
            body: body.into(),
        };
        let answer = self.repeated(&request).await;
        self.begun(job, answer)
    }

    fn begun(
        &self,
        job: &Job,
        answer: Result<Bytes, (Option<Said>, WarehouseError)>,
    ) -> Result<Begun, Failure> {
        let body = match answer {
            Ok(body) => body,
            // The answer to an earlier request was lost: its job is ours.
            Err((Some(said), _)) if said.is_known_job() => {
                return Ok(Begun { job: job.clone(), ended: None });
            }
            Err((_, error)) => return Err(error.into()),
        };
        let answer: JobAnswer = read(&body)?;
        let id =
            if answer.job_reference.job_id.is_empty() { job.id.clone() } else { answer.job_reference.job_id };
        let job = Job { id, location: answer.job_reference.location.or_else(|| job.location.clone()) };
        if let Some(said) = answer.status.error_result {
            return Err(self.failed(said));
        }
        let ended = (answer.status.state == "DONE").then_some(answer.statistics);
        Ok(Begun { job, ended })
    }

    /// What a statement would do, without running it.
    pub(super) async fn dry_run(&self, configuration: &Value) -> Result<Statistics, Failure> {
        let mut configuration = configuration.clone();
        configuration["dryRun"] = Value::Bool(true);
        let reference = json!({"projectId": self.project, "location": self.location});
        let body = json!({"jobReference": reference, "configuration": configuration});
        let path = format!("projects/{}/jobs", self.project);
        let answer = self.call(&path, Method::POST, &[], body.to_string().into()).await;
        let answer: JobAnswer = read(&answer.map_err(|(_, error)| error)?)?;
        match answer.status.error_result {
            Some(said) => Err(self.failed(said)),
            None => Ok(answer.statistics),
        }
    }

    /// What is known of a job. One that has ended with an error is that error.
    pub(super) async fn state(&self, job: &Job) -> Result<Option<Statistics>, Failure> {
        let path = format!("projects/{}/jobs/{}", self.project, job.id);
        let body = self.call(&path, Method::GET, &place(job), Bytes::new()).await.map_err(|(_, e)| e)?;
        let answer: JobAnswer = read(&body)?;
        match answer.status.error_result {
            Some(said) => Err(self.failed(said)),
            None => Ok((answer.status.state == "DONE").then_some(answer.statistics)),
        }
    }

    /// A page of a job's result, once it has ended; before, the word that it has not, after a while.
    pub(super) async fn results(&self, job: &Job, rows: u32, page: Option<&str>) -> Result<Bytes, Failure> {
        let path = format!("projects/{}/queries/{}", self.project, job.id);
        let (rows, poll) = (rows.to_string(), POLL.as_millis().to_string());
        let mut query = place(job);
        query.push(("maxResults", &rows));
        query.push(("formatOptions.useInt64Timestamp", "true"));
        match page {
            Some(token) => query.push(("pageToken", token)),
            None => query.push(("timeoutMs", &poll)),
        }
        match self.call(&path, Method::GET, &query, Bytes::new()).await {
            Ok(body) => Ok(body),
            // The job's own error is told in the same way as trouble with asking for it: the job knows which it is.
            Err((Some(_), error)) => match self.state(job).await {
                Err(failure) if failure.of_job.is_some() => Err(failure),
                _ => Err(error.into()),
            },
            Err((None, error)) => Err(error.into()),
        }
    }

    /// Asks a job to stop; one that has ended, or that nobody knows, does not mind.
    pub(super) async fn cancel(&self, job: &Job) -> Result<(), WarehouseError> {
        let path = format!("projects/{}/jobs/{}/cancel", self.project, job.id);
        match self.call(&path, Method::POST, &place(job), Bytes::new()).await {
            Ok(_) => Ok(()),
            Err((_, error)) if error.kind == ErrorKind::NotFound => Ok(()),
            Err((_, error)) => Err(error),
        }
    }

    /// Jobs that have not ended and whose ids begin so.
    pub(super) async fn unfinished(&self, beginning: &str) -> Result<Vec<Job>, WarehouseError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct List {
            #[serde(default)]
            jobs: Vec<JobAnswer>,
            #[serde(default)]
            next_page_token: Option<String>,
        }
        let path = format!("projects/{}/jobs", self.project);
        let mut found = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let mut query =
                vec![("stateFilter", "pending"), ("stateFilter", "running"), ("maxResults", "1000")];
            if let Some(token) = &token {
                query.push(("pageToken", token));
            }
            let body = self.call(&path, Method::GET, &query, Bytes::new()).await.map_err(|(_, e)| e)?;
            let list: List = read(&body)?;
            found.extend(list.jobs.into_iter().filter_map(|job| {
                let JobReference { job_id, location } = job.job_reference;
                let ours = job_id.starts_with(beginning) && job.status.state != "DONE";
                ours.then_some(Job { id: job_id, location })
            }));
            token = list.next_page_token.filter(|t| !t.is_empty());
            if token.is_none() {
                return Ok(found);
            }
        }
    }

    /// The kind of a trouble about a table that may not be there, told by asking for the table.
    async fn missing_or_forbidden(&self, (project, dataset, table): (&str, &str, &str)) -> ErrorKind {
        let path = format!("projects/{project}/datasets/{dataset}/tables/{table}");
        match self.call(&path, Method::GET, &[], Bytes::new()).await {
            Err((_, error)) if error.kind == ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::Permission,
        }
    }

    /// The same error; about a table of which BigQuery does not say whether it is there, with the right kind.
    pub(super) async fn told_apart(&self, mut failure: Failure) -> Failure {
        if let Some(named) = failure.of_job.as_deref().and_then(Said::hides_existence) {
            failure.error.kind = self.missing_or_forbidden(named).await;
        }
        failure
    }

    fn failed(&self, said: Said) -> Failure {
        let error = said.error(None, self.shown(&said.message));
        Failure { error, of_job: Some(Box::new(said)) }
    }

    fn shown(&self, message: &str) -> String {
        let mut text = self.http.redactor().redact(message.trim());
        if text.contains("was not found in location") {
            match &self.location {
                Some(location) => text.push_str(&format!(" (the source's `location` is {location})")),
                None => text.push_str(" (set `location` in the source if it is elsewhere)"),
            }
        }
        text
    }

    fn reference(&self, job: &Job) -> Value {
        let mut reference = json!({"projectId": self.project, "jobId": job.id});
        if let Some(location) = &job.location {
            reference["location"] = Value::from(location.as_str());
        }
        reference
    }

    async fn call(
        &self,
        path: &str,
        method: Method,
        query: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Bytes, (Option<Said>, WarehouseError)> {
        let path = format!("/bigquery/v2/{path}");
        self.repeated(&Request { method, path: &path, query, content_type: "application/json", body }).await
    }

    /// Repeats a request until it is answered for good, or patience ends.
    async fn repeated(&self, request: &Request<'_>) -> Result<Bytes, (Option<Said>, WarehouseError)> {
        let begun = Instant::now();
        let (mut repeats, mut renewed, mut arrived) = (0, false, false);
        loop {
            let token = self.auth.token().await.map_err(|e| (None, e))?;
            let (trouble, asked) = match self.once(request, &token).await {
                Ok(Answer { status, body, .. }) if status.is_success() => {
                    self.answered.store(true, Ordering::Relaxed);
                    return Ok(body);
                }
                Ok(Answer { status, retry_after, body }) => {
                    self.answered.store(true, Ordering::Relaxed);
                    let said = Said::read(status.as_u16(), &body);
                    if status == StatusCode::UNAUTHORIZED && !renewed && self.auth.refused(&token).await {
                        renewed = true;
                        continue;
                    }
                    let passes =
                        said.passes() || matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504);
                    let mut error = said.error(Some(status.as_u16()), self.shown(&said.message));
                    if !passes {
                        return Err((Some(said), error));
                    }
                    // What a server in trouble did with a request nobody knows.
                    arrived |= status.is_server_error();
                    if arrived {
                        error.kind = ErrorKind::ConnectionLost;
                    }
                    ((Some(said), error), retry_after)
                }
                Err(Silence { message, sent, passes }) => {
                    arrived |= sent;
                    let kind = if arrived { ErrorKind::ConnectionLost } else { ErrorKind::Unreachable };
                    let message = format!("{}: {message}", self.endpoint.host_str().unwrap_or_default());
                    let trouble = (None, WarehouseError::new(kind, message));
                    if !passes {
                        return Err(trouble);
                    }
                    (trouble, None)
                }
            };
            let ceiling = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(repeats)).min(LONGEST_WAIT);
            let wait = asked.unwrap_or_default() + ceiling.mul_f64(fastrand::f64());
            let known = self.answered.load(Ordering::Relaxed);
            let patience = if known { self.retry_for } else { self.retry_for.min(NEVER_ANSWERED) };
            if begun.elapsed() + wait > patience {
                let (said, mut error) = trouble;
                error.message =
                    format!("{} ({} times within {:.0?})", error.message, repeats + 1, begun.elapsed());
                return Err((said, error));
            }
            tracing::debug!(path = request.path, error = %trouble.1, "BigQuery is asked again");
            tokio::time::sleep(wait).await;
            repeats += 1;
        }
    }

    async fn once(&self, request: &Request<'_>, token: &Token) -> Result<Answer, Silence> {
        let silence = |message: String, sent: bool| Silence { message, sent, passes: true };
        let mut url = self.endpoint.clone();
        url.set_path(&format!("{}{}", self.endpoint.path().trim_end_matches('/'), request.path));
        if !request.query.is_empty() {
            url.query_pairs_mut().extend_pairs(request.query);
        }
        self.http.admits(&url).map_err(|e| Silence { message: e.to_string(), sent: false, passes: false })?;
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(request.content_type));
        if let Some(text) = &token.text {
            let mut value = HeaderValue::from_str(&format!("Bearer {text}")).map_err(|_| Silence {
                message: "the token has no form in a header".to_owned(),
                sent: false,
                passes: false,
            })?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let deadline = Instant::now() + REQUEST;
        let sending =
            self.http.raw().request(request.method.clone(), url).headers(headers).body(request.body.clone());
        let mut response = match timeout_at(deadline, sending.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                let sent = !error.is_connect() && !error.is_builder();
                return Err(silence(chain(&error.without_url()), sent));
            }
            Err(_) => return Err(silence(format!("no answer within {} s", REQUEST.as_secs()), true)),
        };
        let status = response.status();
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|v| v.to_str().ok()?.trim().parse().ok())
            .map(|seconds: u64| Duration::from_secs(seconds.min(300)));
        let mut body = BytesMut::new();
        loop {
            match timeout_at(deadline, response.chunk()).await {
                Ok(Ok(None)) => return Ok(Answer { status, retry_after, body: body.freeze() }),
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
}

const BOUNDARY: &str = "levin-1d8a7c52e9f04b36";
const MULTIPART: &str = "multipart/related; boundary=levin-1d8a7c52e9f04b36";

fn place(job: &Job) -> Vec<(&str, &str)> {
    job.location.iter().map(|location| ("location", location.as_str())).collect()
}

/// Reads an answer's body.
pub(super) fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, WarehouseError> {
    serde_json::from_slice(body)
        .map_err(|e| WarehouseError::new(ErrorKind::Other, format!("BigQuery's answer cannot be read: {e}")))
}
