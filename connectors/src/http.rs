//! The only HTTP client.
//!
//! * Without `allow_private_networks` a request reaches public unicast addresses only: names are
//!   resolved here, every address is checked, and the connection goes to exactly the checked ones;
//!   the same holds for each redirect. The system's proxy settings are not used.
//! * Redirects: 307 and 308 repeat the request at the new address, at most [`MAX_REDIRECTS`] times,
//!   never from https to http; headers that carry secrets do not follow to another origin. 301, 302
//!   and 303 would lose the body, so they are an error that names the new address.
//! * One deadline covers connecting, sending, redirects and reading the answer, of which at most
//!   [`MAX_ANSWER`] bytes are read.

mod address;
mod exchange;

use std::error::Error as StdError;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use chrono::{DateTime, NaiveDateTime, Utc};
use reqwest::header::{HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Method, StatusCode, Url};
use tokio::time::{Instant, timeout_at};
use url::Host;

pub use exchange::{REDACTED, Redactor};

use address::{Forbidden, GuardedResolver};
pub(crate) use address::{Lookup, SystemLookup};

use crate::outcome::{DeliveryError, Exchange, RowOutcome};

/// The most redirects that one request follows.
pub const MAX_REDIRECTS: usize = 5;
/// The most bytes of an answer's body that are read.
pub const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// The longest `Retry-After` that is believed.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);
/// The longest that connecting may take.
const MAX_CONNECT: Duration = Duration::from_secs(10);
/// How much of an answer's body stands in messages, in bytes.
const QUOTED: usize = 300;

/// How a client behaves.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// The deadline of one request with all its redirects.
    pub timeout: Duration,
    /// Loopback, private and link-local addresses may be reached.
    pub allow_private_networks: bool,
    /// Knows what must appear in no message or exchange.
    pub redactor: Redactor,
}

/// A client with a pool of connections; cheap to clone.
#[derive(Debug, Clone)]
pub struct HttpClient {
    client: reqwest::Client,
    settings: HttpSettings,
}

/// A request, whole: bodies are never streamed, so that they can be repeated. Not `Debug`: it holds
/// credentials and rows.
#[derive(Clone)]
pub struct HttpRequest {
    /// The method.
    pub method: Method,
    /// The address.
    pub url: Url,
    /// Every header but those that the connection itself needs.
    pub headers: HeaderMap,
    /// The body; empty for none.
    pub body: Bytes,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, as far as it was read.
    pub body: Bytes,
    /// How the body ended.
    pub end: BodyEnd,
    /// Requests that left, redirects included.
    pub calls: u64,
}

/// How far an answer's body was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodyEnd {
    /// To its end.
    Complete,
    /// It is longer than [`MAX_ANSWER`].
    TooLong,
    /// The connection broke or the deadline passed before its end.
    Broken(String),
}

/// A request that got no answer, or whose answer leads nowhere.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What happened, with the directive to the caller.
    pub error: DeliveryError,
    /// What it leaves of the rows: `NotSent` or `InDoubt`.
    pub outcome: RowOutcome,
    /// Requests that left.
    pub calls: u64,
}

impl Failure {
    fn cannot(message: String, hint: &str, calls: u64) -> Self {
        let error = DeliveryError::Unauthorized { message, hint: hint.to_owned() };
        Self { error, outcome: RowOutcome::NotSent, calls }
    }

    fn silence(message: String, outcome: RowOutcome, calls: u64) -> Self {
        Self { error: DeliveryError::Unavailable { answered: false, after: None, message }, outcome, calls }
    }
}

impl HttpClient {
    /// Opens nothing. The text of an error tells why TLS cannot be set up.
    pub fn new(settings: HttpSettings) -> Result<Self, String> {
        Self::with_lookup(settings, Arc::new(SystemLookup))
    }

    pub(crate) fn with_lookup(settings: HttpSettings, lookup: Arc<dyn Lookup>) -> Result<Self, String> {
        let resolver = GuardedResolver { lookup, allow_private_networks: settings.allow_private_networks };
        #[expect(clippy::disallowed_methods, reason = "this is the one client")]
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls()?)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .dns_resolver(Arc::new(resolver))
            .connect_timeout((settings.timeout / 2).min(MAX_CONNECT))
            .user_agent(concat!("levin/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| chain(&e))?;
        Ok(Self { client, settings })
    }

    /// Knows what must appear in no message or exchange.
    pub fn redactor(&self) -> &Redactor {
        &self.settings.redactor
    }

    /// The client below, for libraries that speak a protocol of their own over it: names are resolved and
    /// checked as ever, redirects are not followed. Addresses in digits must be asked for with
    /// [`HttpClient::admits`], deadlines are the caller's.
    pub(crate) fn raw(&self) -> &reqwest::Client {
        &self.client
    }

    /// Whether an address may be reached, as far as can be told without looking its name up.
    pub(crate) fn admits(&self, url: &Url) -> Result<(), AddressRefused> {
        self.check_address(url, 0).map_err(|failure| AddressRefused(failure.error))
    }

    /// The longest that [`HttpClient::send`] takes.
    pub(crate) fn timeout(&self) -> Duration {
        self.settings.timeout
    }

    /// One request and its answer, whatever its status; [`classify`] tells what a status means.
    pub async fn send(&self, request: &HttpRequest) -> Result<Answer, Failure> {
        self.send_until(request, Instant::now() + self.settings.timeout).await
    }

    /// The same with a deadline of the caller's.
    pub(crate) async fn send_until(
        &self,
        request: &HttpRequest,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        self.follow(request, deadline, MAX_REDIRECTS).await
    }

    /// The same for a request whose body nobody but its address may see.
    pub(crate) async fn send_without_redirects(
        &self,
        request: &HttpRequest,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        self.follow(request, deadline, 0).await
    }

    async fn follow(&self, request: &HttpRequest, deadline: Instant, most: usize) -> Result<Answer, Failure> {
        let mut url = request.url.clone();
        let mut headers = request.headers.clone();
        for redirects in 0..=most as u64 {
            self.check_address(&url, redirects)?;
            let calls = redirects + 1;
            let hop = self
                .client
                .request(request.method.clone(), url.clone())
                .headers(headers.clone())
                .body(request.body.clone())
                .send();
            let response = match timeout_at(deadline, hop).await {
                Ok(Ok(response)) => response,
                Ok(Err(error)) => return Err(self.failure(error, redirects)),
                Err(_) => {
                    let message = format!("no answer within {} s", self.settings.timeout.as_secs_f32());
                    return Err(Failure::silence(message, RowOutcome::InDoubt, calls));
                }
            };
            // A HEAD request only asks whether someone is there.
            let found = request.method == Method::HEAD || response.status() == StatusCode::NOT_MODIFIED;
            if found || !response.status().is_redirection() {
                return Ok(read(response, deadline, calls).await);
            }
            let next = self.redirected(&request.method, &url, &response, calls)?;
            if next.origin() != url.origin() {
                let redactor = &self.settings.redactor;
                headers = headers.iter().filter(|(n, _)| !redactor.hides(n.as_str())).map(own).collect();
            }
            url = next;
        }
        Err(Failure::cannot(
            if most == 0 {
                format!(
                    "{} redirects, which is not followed here",
                    self.settings.redactor.redact(url.as_str())
                )
            } else {
                format!("the address redirects more than {most} times")
            },
            "Set the address to where the redirects end.",
            most as u64 + 1,
        ))
    }

    /// Where a redirect leads; an error when it cannot be followed with the same request.
    fn redirected(
        &self,
        method: &Method,
        url: &Url,
        response: &reqwest::Response,
        calls: u64,
    ) -> Result<Url, Failure> {
        let status = response.status();
        let location = response.headers().get(LOCATION).and_then(|l| l.to_str().ok());
        let Some(next) = location.and_then(|l| url.join(l).ok()) else {
            return Err(Failure::cannot(
                format!("HTTP {status} without an address to go to"),
                "Set the address to the final one.",
                calls,
            ));
        };
        let shown = self.settings.redactor.redact(&without_userinfo(&next));
        if !matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT) {
            return Err(Failure::cannot(
                format!("HTTP {status}: the address moved to {shown}, and following would lose the {method}"),
                "Set the address to the new one.",
                calls,
            ));
        }
        if url.scheme() == "https" && next.scheme() != "https" {
            return Err(Failure::cannot(
                format!("HTTP {status} leads from https to {shown}, which is not encrypted"),
                "Set the address to one that stays on https.",
                calls,
            ));
        }
        Ok(next)
    }

    /// Addresses in digits never meet the resolver, so they are checked here. `calls` requests
    /// left before.
    fn check_address(&self, url: &Url, calls: u64) -> Result<(), Failure> {
        let literal = match (url.scheme(), url.host()) {
            ("http" | "https", Some(Host::Ipv4(ip))) => Some(ip.into()),
            ("http" | "https", Some(Host::Ipv6(ip))) => Some(ip.into()),
            ("http" | "https", Some(Host::Domain(_))) => None,
            _ => {
                return Err(Failure::cannot(
                    format!("{} is no address of http or https", self.settings.redactor.redact(url.as_str())),
                    "Set the address to one that begins with https:// or http://.",
                    calls,
                ));
            }
        };
        match literal {
            Some(ip) if !self.settings.allow_private_networks => {
                address::check(url.host_str().unwrap_or_default(), ip).map_err(|e| forbidden(&e, calls))
            }
            _ => Ok(()),
        }
    }

    fn failure(&self, error: reqwest::Error, calls_before: u64) -> Failure {
        // Host and port say where nothing answers; the rest of an address may hold secrets.
        let place = error.url().and_then(|url| {
            let port = url.port_or_known_default().map(|port| format!(":{port}")).unwrap_or_default();
            Some(format!("{}{port}: ", url.host_str()?))
        });
        let error = error.without_url();
        if let Some(found) = sources(&error).find_map(|e| e.downcast_ref::<Forbidden>()) {
            return forbidden(found, calls_before);
        }
        let message = self.settings.redactor.redact(&(place.unwrap_or_default() + &chain(&error)));
        if sources(&error).any(is_certificate_trouble) {
            let hint = "Check the address and the server's certificate; an authority of your own can be added \
                        with SSL_CERT_FILE.";
            return Failure::cannot(message, hint, calls_before);
        }
        if error.is_builder() {
            return Failure::cannot(message, "Correct the request's address and headers.", calls_before);
        }
        if error.is_connect() {
            return Failure::silence(message, RowOutcome::NotSent, calls_before + 1);
        }
        Failure::silence(message, RowOutcome::InDoubt, calls_before + 1)
    }

    /// The request and its answer, as an operator may see them.
    pub fn exchange(&self, request: &HttpRequest, came: &Result<Answer, Failure>) -> Exchange {
        let redactor = &self.settings.redactor;
        Exchange {
            request: redactor.request(&request.method, &request.url, &request.headers, &request.body),
            response: match came {
                Ok(answer) => redactor.response(answer.status, &answer.headers, &answer.body),
                Err(failure) => redactor.redact(&failure.error.to_string()),
            },
        }
    }
}

/// What an answer's status means for the rows of its request; `None` for success.
pub fn classify(answer: &Answer, redactor: &Redactor) -> Option<(DeliveryError, RowOutcome)> {
    let status = answer.status;
    if status.is_success() {
        return None;
    }
    let message = describe(answer, redactor);
    let after = retry_after(&answer.headers, Utc::now());
    let unauthorized = |hint: &str| {
        let error = DeliveryError::Unauthorized { message: message.clone(), hint: hint.to_owned() };
        (error, RowOutcome::NotSent)
    };
    Some(match status.as_u16() {
        429 => (DeliveryError::Throttled { after, message }, RowOutcome::NotSent),
        401 => unauthorized("Check the credentials in `auth` and `headers`."),
        403 => unauthorized(
            "The credentials are known but may not do this: grant them the right, or use others.",
        ),
        404 => unauthorized("Check `base_url` and the request's `path`: nothing is at this address."),
        405 => {
            unauthorized("Check the request's `method` and `path`: the address does not take this method.")
        }
        // Too early: the server says that it did not look at the request.
        425 => (DeliveryError::Unavailable { answered: true, after, message }, RowOutcome::NotSent),
        408 | 500..=599 => {
            (DeliveryError::Unavailable { answered: true, after, message }, RowOutcome::InDoubt)
        }
        _ => (DeliveryError::Refused { message }, RowOutcome::NotSent),
    })
}

/// The status and the beginning of the body on one line, without secrets.
pub(crate) fn describe(answer: &Answer, redactor: &Redactor) -> String {
    let start = String::from_utf8_lossy(&answer.body[..answer.body.len().min(16 * 1024)]).into_owned();
    let body = start.split_whitespace().collect::<Vec<_>>().join(" ");
    if body.is_empty() {
        return format!("HTTP {}", answer.status);
    }
    format!("HTTP {}: {}", answer.status, redactor.excerpt(&body, QUOTED))
}

/// How long the answer asks to wait, in seconds or until a date; at most [`MAX_RETRY_AFTER`].
pub(crate) fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than fit are more seconds than are believed.
        return Some(text.parse().map_or(MAX_RETRY_AFTER, Duration::from_secs).min(MAX_RETRY_AFTER));
    }
    // The three forms of RFC 9110; the latter two name no zone or one that chrono does not read.
    let date = DateTime::parse_from_rfc2822(text).map(|d| d.with_timezone(&Utc)).ok().or_else(|| {
        let forms = ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];
        forms.iter().find_map(|form| Some(NaiveDateTime::parse_from_str(text, form).ok()?.and_utc()))
    })?;
    Some((date - now).to_std().unwrap_or_default().min(MAX_RETRY_AFTER))
}

async fn read(mut response: reqwest::Response, deadline: Instant, calls: u64) -> Answer {
    let (status, headers) = (response.status(), response.headers().clone());
    let mut body = BytesMut::new();
    let end = loop {
        match timeout_at(deadline, response.chunk()).await {
            Ok(Ok(None)) => break BodyEnd::Complete,
            Ok(Ok(Some(chunk))) => {
                let room = MAX_ANSWER - body.len();
                body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                if chunk.len() > room {
                    break BodyEnd::TooLong;
                }
            }
            Ok(Err(error)) => break BodyEnd::Broken(chain(&error.without_url())),
            Err(_) => break BodyEnd::Broken("the answer did not end in time".to_owned()),
        }
    };
    Answer { status, headers, body: body.freeze(), end, calls }
}

/// An address that a request may not reach.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct AddressRefused(DeliveryError);

/// The refusal of an address among the causes of a library's error.
pub(crate) fn forbidden_in(error: &(dyn StdError + 'static)) -> Option<DeliveryError> {
    sources(error).find_map(|cause| {
        let refused = cause.downcast_ref::<AddressRefused>().map(|AddressRefused(error)| error.clone());
        refused.or_else(|| cause.downcast_ref::<Forbidden>().map(|found| forbidden(found, 0).error))
    })
}

fn forbidden(found: &Forbidden, calls: u64) -> Failure {
    let hint = "Levin reaches public addresses only. If this one is meant, set `allow_private_networks: true` \
                in the destination.";
    Failure::cannot(found.to_string(), hint, calls)
}

fn own(
    (name, value): (&reqwest::header::HeaderName, &reqwest::header::HeaderValue),
) -> (reqwest::header::HeaderName, reqwest::header::HeaderValue) {
    (name.clone(), value.clone())
}

fn without_userinfo(url: &Url) -> String {
    let mut shown = url.clone();
    // Both fail only for addresses that cannot have a user, and then there is none to hide.
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown.into()
}

fn sources<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&e| e.source())
}

fn is_certificate_trouble(error: &(dyn StdError + 'static)) -> bool {
    let inner = error.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref());
    let tls = inner.and_then(|e| e.downcast_ref()).or_else(|| error.downcast_ref());
    matches!(tls, Some(rustls::Error::InvalidCertificate(_)))
}

/// The error and what caused it, on one line, nothing twice.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = String::new();
    for part in sources(error).map(ToString::to_string) {
        if text.contains(&part) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&part);
    }
    text
}

/// TLS with ring and the authorities that the system trusts.
fn tls() -> Result<rustls::ClientConfig, String> {
    static CONFIG: OnceLock<Result<rustls::ClientConfig, String>> = OnceLock::new();
    CONFIG
        .get_or_init(|| {
            let mut roots = rustls::RootCertStore::empty();
            // A store with some broken certificates is as good as its others.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(
                rustls::crypto::ring::default_provider(),
            ))
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            Ok(config)
        })
        .clone()
}

#[cfg(test)]
#[path = "http/tests.rs"]
pub(crate) mod tests;
