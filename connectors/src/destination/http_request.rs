//! `http_request`: rows as HTTP requests to an address of the user's.
//!
//! * One request carries rows of one operation. A `2xx` accepts all of them but those that a JSON
//!   answer lists as rejected; an answer that claims to be JSON and cannot be read leaves the rows
//!   in doubt, because nobody knows which were taken; so does a 207 without such a list. Keys in that list that are not in the batch
//!   are ignored.
//! * A row that cannot be written is rejected alone; the rest of its batch goes on.
//! * Where the path belongs to one row (`/contacts/{{ row.key }}`), a 404 or 410 is about that row:
//!   `NOT_FOUND`. Elsewhere a 404 stops the run, as 401, 403 and 405 do.
//! * Waiting for the budget of `requests_per_second` happens inside an attempt, for a few seconds at
//!   most; then the attempt ends as throttled without a request, so that the lease is asked again.

mod answer;
mod config;
mod request;
mod template;
mod token;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::Utc;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use reqwest::StatusCode;
use schemars::{Schema, schema_for};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::catalogue::{BuildContext, ConfigError, DestinationConnector};
use crate::change::{ChangeBatch, Mode, OnRemoved, Operation};
use crate::destination::{
    BatchLimits, Delivery, DeliverySpec, Destination, DestinationField, RunFacts, Trial,
};
use crate::http::{Answer, Failure, HttpClient, HttpRequest, HttpSettings, Redactor, classify, describe};
use crate::json::RowEncoder;
use crate::outcome::{Delivered, DeliveryError, Rejection, RowOutcome};

use config::{Auth, Config, RejectedPaths, SyncOptions, error, header_map};
use request::{Base, Prepared, Rows};
use token::Tokens;

const MODES: &[Mode] = &[
    Mode::Insert,
    Mode::Update,
    Mode::Upsert,
    Mode::Mirror,
    Mode::Segment,
    Mode::Add,
    Mode::Remove,
    Mode::All,
    Mode::Archive,
];
/// The most bytes of mapped columns in one request.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// The longest that one attempt waits for the budget of requests.
const BUDGET_WAIT: Duration = Duration::from_secs(5);
/// What an attempt may take beyond the deadline of its request.
const GRACE: Duration = Duration::from_secs(1);
/// How much of a reason is kept, in bytes.
const REASON: usize = 300;

/// The line of the catalogue.
pub static HTTP_REQUEST: DestinationConnector = DestinationConnector {
    name: "http_request",
    title: "HTTP request",
    summary: "Sends rows as JSON, or in a form of your own, to any HTTP address. A 2xx answer accepts the rows \
              of its request, except those that the answer lists as rejected.",
    modes: MODES,
    on_removed: &[OnRemoved::Delete],
    needs_object: false,
    whole_rows: true,
    deferred: false,
    config_schema,
    options_schema,
    build,
};

fn config_schema() -> Schema {
    schema_for!(Config)
}

fn options_schema() -> Schema {
    schema_for!(SyncOptions)
}

fn build(config: Value, context: &BuildContext) -> Result<Arc<dyn Destination>, ConfigError> {
    Ok(Arc::new(HttpDestination::new(config, context)?))
}

/// One address with its credentials and its budget of requests.
struct HttpDestination {
    config: Config,
    base: Base,
    caller: Caller,
    budget: Option<Arc<DefaultDirectRateLimiter>>,
}

/// Who sends requests: with the headers that they have, or with a token beside them.
#[derive(Clone)]
struct Caller {
    client: HttpClient,
    tokens: Option<Arc<Tokens>>,
}

impl Caller {
    /// The longest that [`Caller::send`] takes: a token may have to be fetched before and after a 401.
    fn timeout(&self) -> Duration {
        self.client.timeout() * if self.tokens.is_some() { 2 } else { 1 }
    }

    async fn send(&self, request: &HttpRequest) -> Result<Answer, Failure> {
        match &self.tokens {
            None => self.client.send(request).await,
            Some(tokens) => tokens.send(request, Instant::now() + self.timeout()).await,
        }
    }

    fn redactor(&self) -> &Redactor {
        self.client.redactor()
    }
}

impl fmt::Debug for HttpDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base = self.caller.redactor().redact(self.base.url.as_str());
        f.debug_struct("HttpDestination").field("base_url", &base).finish_non_exhaustive()
    }
}

impl HttpDestination {
    fn new(config: Value, context: &BuildContext) -> Result<Self, ConfigError> {
        let config: Config = serde_json::from_value(config).map_err(|e| error("", e.to_string()))?;
        let base = Base {
            url: config.base()?,
            headers: header_map(&config.headers, "headers")?,
            auth: config.auth_headers()?,
            signing_key: config.signing_key()?,
        };
        let secrets: Vec<String> =
            context.secrets.iter().map(String::as_str).chain(config.secrets()).map(str::to_owned).collect();
        let mut redactor = Redactor::new(&secrets);
        match &config.auth {
            Some(Auth::ApiKey { header, .. }) => redactor = redactor.with_header(header),
            Some(Auth::Basic { username, password }) => redactor = redactor.with_basic(username, password),
            Some(Auth::Oauth2ClientCredentials(oauth2)) => {
                let (id, secret) = oauth2.basic();
                redactor = redactor.with_basic(&id, &secret);
            }
            Some(Auth::Bearer(_)) | None => {}
        }
        let settings = HttpSettings {
            timeout: config.timeout.0,
            allow_private_networks: config.allow_private_networks,
            redactor,
        };
        let client = HttpClient::new(settings).map_err(|e| error("base_url", e))?;
        let tokens = match &config.auth {
            Some(Auth::Oauth2ClientCredentials(oauth2)) => {
                Some(Arc::new(Tokens::new(oauth2, client.clone())?))
            }
            _ => None,
        };
        let budget = config.requests_per_second.map(budget).transpose()?;
        Ok(Self { config, base, caller: Caller { client, tokens }, budget })
    }

    /// The requests of a sync, by operation, checked as far as they can be without rows.
    fn prepare(
        &self,
        mode: Mode,
        options: &SyncOptions,
    ) -> Result<HashMap<Operation, Prepared>, ConfigError> {
        Operation::ALL
            .into_iter()
            .filter_map(|operation| {
                let (name, request) = options.request(mode, operation)?;
                Some(Prepared::new(name, request, &self.base).map(|prepared| (operation, prepared)))
            })
            .collect()
    }

    fn delivery(&self, sync: &DeliverySpec, run: &RunFacts) -> Result<HttpDelivery, DeliveryError> {
        let options = SyncOptions::read(&sync.options).map_err(misconfigured)?;
        Ok(HttpDelivery {
            requests: self.prepare(sync.mode, &options).map_err(misconfigured)?,
            encoder: self.encoder(sync, &options).map_err(misconfigured)?,
            rejected: options.rejected,
            base: self.base.clone(),
            caller: self.caller.clone(),
            budget: self.budget.clone(),
            sync: sync.clone(),
            run: run.clone(),
            keeps_exchange: false,
        })
    }

    fn encoder(&self, sync: &DeliverySpec, options: &SyncOptions) -> Result<RowEncoder, ConfigError> {
        RowEncoder::new(&sync.fields, options.json(&self.config))
            .map_err(|e| error("mappings", e.to_string()))
    }
}

fn budget(requests_per_second: f64) -> Result<Arc<DefaultDirectRateLimiter>, ConfigError> {
    let path = "requests_per_second";
    if !(0.001..=100_000.0).contains(&requests_per_second) {
        return Err(error(path, "must be between 0.001 and 100000"));
    }
    // A small burst evens out timers, which are coarser than the gaps between many requests.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 5,000")]
    let burst = ((requests_per_second / 20.0) as u32).max(1);
    let quota = Quota::with_period(Duration::from_secs_f64(1.0 / requests_per_second))
        .ok_or_else(|| error(path, "is too high"))?
        .allow_burst(burst.try_into().map_err(|_| error(path, "is too low"))?);
    Ok(Arc::new(RateLimiter::direct(quota)))
}

/// The operations that a sync asks of its destination.
fn sent(sync: &DeliverySpec) -> Vec<Operation> {
    let mut operations = match sync.mode {
        Mode::Remove => Vec::new(),
        Mode::Insert
        | Mode::Segment
        | Mode::Add
        | Mode::All
        | Mode::Archive
        | Mode::Diff
        | Mode::Snapshot => vec![Operation::Added],
        Mode::Update | Mode::Upsert | Mode::Mirror => vec![Operation::Added, Operation::Changed],
    };
    if sync.mode.fixed_removal().is_some() || sync.on_removed != OnRemoved::Nothing {
        operations.push(Operation::Removed);
    }
    operations
}

/// The operations whose requests say which place a sync writes to.
fn places(mode: Mode) -> &'static [Operation] {
    match mode {
        Mode::Remove => &[Operation::Removed],
        Mode::Archive => &[Operation::Added],
        _ => &[Operation::Added, Operation::Changed],
    }
}

#[async_trait]
impl Destination for HttpDestination {
    /// The base without its query, and where added and changed rows go. Where removed rows go is
    /// left out, but in mode `remove`: a sync that begins to send removals still writes to the same place. Where secrets
    /// are hidden (the whole base may come from the environment) a fingerprint tells targets apart.
    fn target(&self, sync: &DeliverySpec) -> String {
        let mut base = self.base.url.clone();
        base.set_query(None);
        let mut target = base.as_str().trim_end_matches('/').to_owned();
        if let Ok(options) = SyncOptions::read(&sync.options) {
            for &operation in places(sync.mode) {
                if let Some((_, request)) = options.request(sync.mode, operation) {
                    let method = reqwest::Method::from(request.method);
                    target.push_str(&format!(" {}={method} {}", sync.mode.word(operation), request.path));
                }
            }
        }
        let shown = self.caller.redactor().redact(&target);
        if shown == target { shown } else { format!("{shown} #{}", fingerprint(&target)) }
    }

    fn validate(&self, sync: &DeliverySpec) -> Result<(), ConfigError> {
        if !MODES.contains(&sync.mode) {
            return Err(error("mode", format!("http_request cannot do `{}`", sync.mode.name())));
        }
        if sync.on_removed == OnRemoved::Clear {
            return Err(error(
                "on_removed",
                "http_request sends removed rows with `delete`; it cannot `clear` fields",
            ));
        }
        let options = SyncOptions::read(&sync.options)?;
        let prepared = self.prepare(sync.mode, &options)?;
        self.encoder(sync, &options)?;
        if let Some(clear) = &options.clear {
            Prepared::clearing(clear, &self.base)?;
        }
        if sync.mode == Mode::Archive && !prepared.contains_key(&Operation::Added) {
            return Err(error(
                "archive",
                "mode `archive` needs a request of its own: add `archive: {method, path}`",
            ));
        }
        for operation in sent(sync) {
            if !prepared.contains_key(&operation) {
                let name = operation.name();
                return Err(error(
                    name,
                    format!(
                        "this sync sends {name} rows, but has no request for them: add `{name}: {{method, path}}`, \
                         or `each: {{method, path}}` for every operation"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// A HEAD request to `base_url`: what the address answers does not matter, unless it is an
    /// error of the server or a refusal of the credentials.
    async fn check(&self, sync: Option<&DeliverySpec>) -> Result<(), DeliveryError> {
        if let Some(sync) = sync {
            self.validate(sync).map_err(misconfigured)?;
        }
        let mut headers = self.base.headers.clone();
        headers.extend(self.base.auth.clone());
        let url = self.base.url.clone();
        let request = HttpRequest { method: reqwest::Method::HEAD, url, headers, body: bytes::Bytes::new() };
        let answer = self.caller.send(&request).await.map_err(|failure| failure.error)?;
        let refused = matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        match classify(&answer, self.caller.redactor()) {
            // Whoever takes only POST may say so with 501: it is there, and well.
            Some(_) if answer.status == StatusCode::NOT_IMPLEMENTED => Ok(()),
            Some((error, _)) if refused || answer.status.is_server_error() => Err(error),
            _ => Ok(()),
        }
    }

    async fn fields(&self, _: &str) -> Result<Option<Vec<DestinationField>>, DeliveryError> {
        Ok(None)
    }

    async fn open(&self, sync: &DeliverySpec, run: &RunFacts) -> Result<Box<dyn Delivery>, DeliveryError> {
        Ok(Box::new(self.delivery(sync, run)?))
    }

    async fn try_row(
        &self,
        sync: &DeliverySpec,
        run: &RunFacts,
        row: &ChangeBatch,
        send: bool,
    ) -> Result<Trial, DeliveryError> {
        let delivery = HttpDelivery { keeps_exchange: true, ..self.delivery(sync, run)? };
        let operation = row.operation.name();
        let prepared = delivery.requests.get(&row.operation).ok_or_else(|| {
            misconfigured(error(operation, format!("the sync has no request for {operation} rows")))
        })?;
        let rows =
            Rows::new(row, &delivery.encoder).map_err(|message| misconfigured(error("mappings", message)))?;
        let request = match rows.rejected.first() {
            Some((_, rejection)) => Err(rejection.clone()),
            None => rows.request(prepared, &delivery.base, sync, run, Utc::now()),
        };
        let request = match request {
            Ok(HttpRequest { method, url, headers, body }) => {
                self.caller.redactor().whole_request(&method, &url, &headers, &body)
            }
            Err(rejection) => {
                let outcome = RowOutcome::Rejected(rejection);
                let delivered = Some(Delivered { calls: 0, ..Delivered::all(outcome, 1) });
                return Ok(Trial { request: String::new(), delivered });
            }
        };
        let delivered = if send { Some(delivery.deliver(row).await) } else { None };
        Ok(Trial { request, delivered })
    }

    fn can_clear(&self, sync: &DeliverySpec) -> Result<(), ConfigError> {
        let options = SyncOptions::read(&sync.options)?;
        let Some(clear) = &options.clear else {
            return Err(error(
                "clear",
                "the sync has no request that empties its list: add `clear: {method, path}`",
            ));
        };
        Prepared::clearing(clear, &self.base).map(drop)
    }

    async fn clear(&self, sync: &DeliverySpec, run: &RunFacts) -> Result<(), DeliveryError> {
        self.can_clear(sync).map_err(misconfigured)?;
        let options = SyncOptions::read(&sync.options).map_err(misconfigured)?;
        let Some(clear) = &options.clear else { return Ok(()) };
        let prepared = Prepared::clearing(clear, &self.base).map_err(misconfigured)?;
        // One request at the head of a run: it waits its turn, and at worst it goes before.
        within(self.budget.as_deref()).await;
        let request = request::clearing(&prepared, &self.base, sync, run, Utc::now())
            .map_err(|message| misconfigured(error("clear", message)))?;
        let answer = self.caller.send(&request).await.map_err(|failure| failure.error)?;
        if prepared.accepts.contains(&answer.status.as_u16()) {
            return Ok(());
        }
        match classify(&answer, self.caller.redactor()) {
            Some((error, _)) => Err(error),
            None => Ok(()),
        }
    }

    fn timeout(&self) -> Duration {
        let waiting = if self.budget.is_some() { BUDGET_WAIT } else { Duration::ZERO };
        self.caller.timeout() + waiting + GRACE
    }

    fn concurrency(&self) -> usize {
        self.config.concurrency.get() as usize
    }

    fn retries(&self) -> u32 {
        self.config.retries
    }

    fn batch_limits(&self, sync: &DeliverySpec, operation: Operation) -> BatchLimits {
        let options = SyncOptions::read(&sync.options).unwrap_or_default();
        let request = options.request(sync.mode, operation);
        let rows = request.map_or(1, |(_, request)| request.batch_size);
        BatchLimits { rows, bytes: BATCH_BYTES }
    }
}

/// Half of a SHA-256 in hexadecimal.
fn fingerprint(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

fn misconfigured(error: ConfigError) -> DeliveryError {
    let hint = "Correct the sync's file; `levin check` shows every mistake.".to_owned();
    DeliveryError::Unauthorized { message: error.to_string(), hint }
}

/// The delivery of one run.
struct HttpDelivery {
    requests: HashMap<Operation, Prepared>,
    encoder: RowEncoder,
    rejected: RejectedPaths,
    base: Base,
    caller: Caller,
    budget: Option<Arc<DefaultDirectRateLimiter>>,
    sync: DeliverySpec,
    run: RunFacts,
    /// Every exchange is for a person to see, not only those about refused rows.
    keeps_exchange: bool,
}

#[async_trait]
impl Delivery for HttpDelivery {
    async fn deliver(&self, batch: &ChangeBatch) -> Delivered {
        let unsent = |error: DeliveryError| Delivered {
            calls: 0,
            ..Delivered::failed(error, RowOutcome::NotSent, batch.len())
        };
        let operation = batch.operation.name();
        let Some(prepared) = self.requests.get(&batch.operation) else {
            return unsent(misconfigured(error(
                operation,
                format!("the sync has no request for {operation} rows"),
            )));
        };
        if batch.len() > prepared.batch_size {
            let message =
                format!("{} rows are more than the batch_size of {}", batch.len(), prepared.batch_size);
            return unsent(DeliveryError::Refused { message });
        }
        let rows = match Rows::new(batch, &self.encoder) {
            Ok(rows) => rows,
            Err(message) => return unsent(misconfigured(error("mappings", message))),
        };
        let mut delivered = Delivered {
            outcomes: vec![RowOutcome::NotSent; batch.len()],
            error: None,
            calls: 0,
            exchange: None,
        };
        for (row, rejection) in &rows.rejected {
            delivered.outcomes[*row] = RowOutcome::Rejected(rejection.clone());
        }
        if rows.sent.is_empty() {
            return delivered;
        }
        if !within(self.budget.as_deref()).await {
            let message = "the budget of requests_per_second is used up".to_owned();
            delivered.error = Some(DeliveryError::Throttled { after: None, message });
            return delivered;
        }
        match rows.request(prepared, &self.base, &self.sync, &self.run, Utc::now()) {
            Ok(request) => self.send(prepared, &rows, &request, batch, &mut delivered).await,
            Err(rejection) => match rows.sent[..] {
                [row] => delivered.outcomes[row] = RowOutcome::Rejected(rejection),
                // One of the rows is to blame; alone it will be found.
                _ => delivered.error = Some(DeliveryError::Refused { message: rejection.reason }),
            },
        }
        delivered
    }

    async fn close(self: Box<Self>, _complete: bool) -> Result<Option<RowOutcome>, DeliveryError> {
        Ok(None)
    }
}

/// Waits until the budget of requests allows one more; `false` when that takes too long.
async fn within(budget: Option<&DefaultDirectRateLimiter>) -> bool {
    match budget {
        None => true,
        Some(budget) => tokio::time::timeout(BUDGET_WAIT, budget.until_ready()).await.is_ok(),
    }
}

impl HttpDelivery {
    async fn send(
        &self,
        prepared: &Prepared,
        rows: &Rows<'_>,
        request: &HttpRequest,
        batch: &ChangeBatch,
        delivered: &mut Delivered,
    ) {
        let came = self.caller.send(request).await;
        let redactor = self.caller.redactor();
        let mut all =
            |outcome: RowOutcome| rows.sent.iter().for_each(|&row| delivered.outcomes[row] = outcome.clone());
        let mut trouble = None;
        match &came {
            Err(Failure { error, outcome, .. }) => {
                all(outcome.clone());
                trouble = Some(error.clone());
            }
            Ok(answer) if prepared.accepts.contains(&answer.status.as_u16()) => all(RowOutcome::Accepted),
            Ok(answer) if prepared.per_row && is_gone(answer) => {
                all(RowOutcome::Rejected(Rejection::new(Rejection::NOT_FOUND, describe(answer, redactor))));
            }
            Ok(answer) => match classify(answer, redactor) {
                Some((error, outcome)) => {
                    all(outcome);
                    trouble = Some(error);
                }
                None => match answer::rejected(answer, &self.rejected) {
                    Ok(listed) => {
                        all(RowOutcome::Accepted);
                        let reasons: HashMap<_, _> = listed.into_iter().map(|l| (l.key, l.reason)).collect();
                        for &row in &rows.sent {
                            if let Some(reason) = reasons.get(batch.keys.value(row)) {
                                let reason = reason.as_deref().unwrap_or("the destination gave no reason");
                                let reason = redactor.excerpt(reason, REASON);
                                delivered.outcomes[row] =
                                    RowOutcome::Rejected(Rejection::new(Rejection::REFUSED, reason));
                            }
                        }
                    }
                    Err(message) => {
                        all(RowOutcome::InDoubt);
                        let message = redactor.redact(&message);
                        trouble = Some(DeliveryError::Unavailable { answered: true, after: None, message });
                    }
                },
            },
        }
        delivered.calls = match &came {
            Ok(answer) => answer.calls,
            Err(failure) => failure.calls,
        };
        let refused = delivered.outcomes.iter().any(|o| matches!(o, RowOutcome::Rejected(_)));
        if refused || trouble.is_some() || self.keeps_exchange {
            delivered.exchange = Some(self.caller.client.exchange(request, &came));
        }
        delivered.error = trouble;
    }
}

fn is_gone(answer: &Answer) -> bool {
    matches!(answer.status, StatusCode::NOT_FOUND | StatusCode::GONE)
}

#[cfg(test)]
#[path = "http_request/tests.rs"]
mod tests;
