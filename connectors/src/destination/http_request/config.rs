//! What stands in the destination's file and in its syncs.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::token::Oauth2;
use crate::catalogue::ConfigError;
use crate::change::{Mode, Operation};
use crate::duration::Span;
use crate::json::{JsonOptions, NonFinite, Nulls, Numbers};

/// The destination's file. Not `Debug`: it holds secrets.
#[derive(Clone, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Config {
    /// Where every request begins: `https://api.example.com/v1`. Paths of syncs are appended to it.
    pub base_url: String,
    /// Headers of every request.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// How requests prove who they come from.
    #[serde(default)]
    pub auth: Option<Auth>,
    /// The longest that one request may take, from connecting to the end of the answer.
    #[serde(default = "default_timeout")]
    pub timeout: Span,
    /// Repeats of one request, on top of the first try, after a trouble that may pass.
    #[serde(default = "default_retries")]
    pub retries: u32,
    /// One budget for all syncs of this destination.
    #[serde(default)]
    #[schemars(range(min = 0.001, max = 100_000.0))]
    pub requests_per_second: Option<f64>,
    /// How many requests of one run may be under way at once.
    #[serde(default = "default_concurrency")]
    pub concurrency: NonZeroU32,
    /// Allows loopback, private and link-local addresses, which are refused otherwise.
    #[serde(default)]
    pub allow_private_networks: bool,
    /// Signs every request as Standard Webhooks describes: `whsec_` and the key in base64.
    #[serde(default)]
    #[schemars(extend("x-secret" = true))]
    pub signing_secret: Option<String>,
    /// How integers and decimals are written; a sync may say otherwise.
    #[serde(default)]
    pub numbers: Option<Numbers>,
    /// What happens to NaN and the infinities; a sync may say otherwise.
    #[serde(default)]
    pub non_finite: Option<NonFinite>,
    /// What happens to null columns; a sync may say otherwise.
    #[serde(default)]
    pub nulls: Option<Nulls>,
}

/// One of the ways to prove who a request comes from.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Auth {
    /// `Authorization: Bearer …`.
    Bearer(#[schemars(extend("x-secret" = true))] String),
    /// `Authorization: Basic …`.
    Basic {
        /// The user.
        username: String,
        /// The password.
        #[schemars(extend("x-secret" = true))]
        password: String,
    },
    /// A token that the credentials of a client are exchanged for (OAuth 2).
    Oauth2ClientCredentials(Oauth2),
    /// A key in a header of its own.
    ApiKey {
        /// The header's name.
        header: String,
        /// The key.
        #[schemars(extend("x-secret" = true))]
        value: String,
    },
}

/// What a sync adds.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct SyncOptions {
    /// The request for every operation that has none of its own.
    #[serde(default)]
    pub each: Option<RequestOptions>,
    /// The request for added rows.
    #[serde(default)]
    pub added: Option<RequestOptions>,
    /// The request for changed rows.
    #[serde(default)]
    pub changed: Option<RequestOptions>,
    /// The request for removed rows; in mode `remove` for the model's rows.
    #[serde(default)]
    pub removed: Option<RequestOptions>,
    /// Mode `archive`: the request for every row of a run.
    #[serde(default)]
    pub archive: Option<RequestOptions>,
    /// The request that empties the list, for `levin run --clear-and-fill`. Sent again when nobody knows
    /// how it ended.
    #[serde(default)]
    pub clear: Option<ClearOptions>,
    /// Where a JSON answer lists the rows that it does not take.
    #[serde(default)]
    pub rejected: RejectedPaths,
    /// How integers and decimals are written.
    #[serde(default)]
    pub numbers: Option<Numbers>,
    /// What happens to NaN and the infinities.
    #[serde(default)]
    pub non_finite: Option<NonFinite>,
    /// What happens to null columns.
    #[serde(default)]
    pub nulls: Option<Nulls>,
}

/// One kind of request.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RequestOptions {
    /// The method.
    #[serde(default)]
    pub method: Method,
    /// What is appended to `base_url`: a template over `sync`, `run`, `generation` and `operation`,
    /// and with a `batch_size` of 1 over `row`: `/contacts/{{ row.key }}`. Values are percent-encoded.
    #[serde(default)]
    pub path: String,
    /// The most rows in one request.
    #[serde(default = "default_batch_size")]
    #[schemars(range(min = 1, max = 100_000))]
    pub batch_size: usize,
    /// Headers of this request; they win over those of the destination.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body, a template over `sync`, `run`, `generation`, `operation` and `rows` (each with
    /// `key`, `version`, `fields` and `changed`), with a `batch_size` of 1 also over `row`. In a JSON
    /// body a value is written as JSON with all its digits, inside quotes as the content of a string.
    #[serde(default)]
    pub body: Option<String>,
    /// Statuses beside 2xx that accept the rows, such as 404 for a removal of what is gone already.
    #[serde(default)]
    pub accepts: Vec<u16>,
}

/// The request that empties a list.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ClearOptions {
    /// The method.
    #[serde(default)]
    pub method: Method,
    /// What is appended to `base_url`: a template over `sync`, `run` and `generation`.
    #[serde(default)]
    pub path: String,
    /// Headers of this request; they win over those of the destination.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body, a template over `sync`, `run` and `generation`.
    #[serde(default)]
    pub body: Option<String>,
    /// Statuses beside 2xx that say that the list is empty now.
    #[serde(default)]
    pub accepts: Vec<u16>,
}

/// The methods that carry rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Method {
    #[default]
    Post,
    Put,
    Patch,
    Delete,
}

impl From<Method> for reqwest::Method {
    fn from(method: Method) -> Self {
        match method {
            Method::Post => Self::POST,
            Method::Put => Self::PUT,
            Method::Patch => Self::PATCH,
            Method::Delete => Self::DELETE,
        }
    }
}

/// Dotted paths into a JSON answer.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RejectedPaths {
    /// Where in the answer the list stands.
    pub list: String,
    /// Where in an entry of the list the row's key stands.
    pub key: String,
    /// Where in an entry of the list the reason stands.
    pub reason: String,
}

impl Default for RejectedPaths {
    fn default() -> Self {
        Self { list: "rejected".to_owned(), key: "key".to_owned(), reason: "reason".to_owned() }
    }
}

fn default_timeout() -> Span {
    Span(Duration::from_secs(30))
}

fn default_retries() -> u32 {
    5
}

fn default_concurrency() -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(3)
}

fn default_batch_size() -> usize {
    100
}

pub(super) fn error(path: impl Into<String>, message: impl Into<String>) -> ConfigError {
    ConfigError { path: path.into(), message: message.into() }
}

impl Config {
    /// The base of every request: http or https, without user, password or fragment.
    pub(super) fn base(&self) -> Result<Url, ConfigError> {
        let wrong = |message: &str| error("base_url", message);
        let url: Url = self
            .base_url
            .parse()
            .map_err(|e| wrong(&format!("is no address ({e}); write it as https://api.example.com/v1")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("must begin with https:// or http://"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong(
                "holds a user or password; put them into `auth: {basic: {username, password}}`",
            ));
        }
        if url.fragment().is_some() {
            return Err(wrong("holds a `#`, which no request carries"));
        }
        Ok(url)
    }

    /// The headers that prove who a request comes from.
    pub(super) fn auth_headers(&self) -> Result<HeaderMap, ConfigError> {
        let mut headers = HeaderMap::new();
        let mut put = |name: HeaderName, value: String, path: &str| {
            let mut value = HeaderValue::from_str(&value)
                .map_err(|_| error(path, "holds characters that no header can carry"))?;
            value.set_sensitive(true);
            headers.insert(name, value);
            Ok(())
        };
        match &self.auth {
            None | Some(Auth::Oauth2ClientCredentials(_)) => {}
            Some(Auth::Bearer(token)) => put(AUTHORIZATION, format!("Bearer {token}"), "auth.bearer")?,
            Some(Auth::Basic { username, password }) => {
                let pair = BASE64.encode(format!("{username}:{password}"));
                put(AUTHORIZATION, format!("Basic {pair}"), "auth.basic")?;
            }
            Some(Auth::ApiKey { header, value }) => {
                put(header_name(header, "auth.api_key.header")?, value.clone(), "auth.api_key.value")?;
            }
        }
        Ok(headers)
    }

    /// The secrets that stand in the file itself.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &str> {
        let auth = self.auth.as_ref().map(|auth| match auth {
            Auth::Bearer(secret)
            | Auth::Basic { password: secret, .. }
            | Auth::ApiKey { value: secret, .. } => secret,
            Auth::Oauth2ClientCredentials(oauth2) => &oauth2.client_secret,
        });
        auth.into_iter().chain(&self.signing_secret).map(String::as_str)
    }

    /// The key with which requests are signed.
    pub(super) fn signing_key(&self) -> Result<Option<Vec<u8>>, ConfigError> {
        let Some(secret) = &self.signing_secret else { return Ok(None) };
        let key = secret.strip_prefix("whsec_").and_then(|key| BASE64.decode(key).ok());
        match key {
            Some(key) if !key.is_empty() => Ok(Some(key)),
            _ => Err(error("signing_secret", "must be `whsec_` followed by the key in base64")),
        }
    }
}

impl SyncOptions {
    pub(super) fn read(options: &Value) -> Result<Self, ConfigError> {
        let options = if options.is_null() { Value::Object(serde_json::Map::new()) } else { options.clone() };
        let options: Self = serde_json::from_value(options).map_err(|e| error("each", e.to_string()))?;
        for (name, request) in options.named() {
            if request.batch_size == 0 {
                return Err(error(format!("{name}.batch_size"), "must be at least 1"));
            }
        }
        Ok(options)
    }

    /// The request for an operation, and the key under which it stands. What archives is never what
    /// `each` says: nobody should find that out from the receiver.
    pub(super) fn request(
        &self,
        mode: Mode,
        operation: Operation,
    ) -> Option<(&'static str, &RequestOptions)> {
        if mode == Mode::Archive {
            return self.archive.as_ref().map(|r| ("archive", r));
        }
        let own = match operation {
            Operation::Added => &self.added,
            Operation::Changed => &self.changed,
            Operation::Removed => &self.removed,
        };
        own.as_ref().map(|r| (operation.name(), r)).or_else(|| self.each.as_ref().map(|r| ("each", r)))
    }

    fn named(&self) -> impl Iterator<Item = (&'static str, &RequestOptions)> {
        let all = [
            ("each", &self.each),
            ("added", &self.added),
            ("changed", &self.changed),
            ("removed", &self.removed),
            ("archive", &self.archive),
        ];
        all.into_iter().filter_map(|(name, request)| Some((name, request.as_ref()?)))
    }

    pub(super) fn json(&self, config: &Config) -> JsonOptions {
        JsonOptions {
            numbers: self.numbers.or(config.numbers).unwrap_or_default(),
            non_finite: self.non_finite.or(config.non_finite).unwrap_or_default(),
            nulls: self.nulls.or(config.nulls).unwrap_or_default(),
            ..JsonOptions::default()
        }
    }
}

/// Headers as written in a file. Those that the connection itself sets are refused.
pub(super) fn header_map(headers: &BTreeMap<String, String>, path: &str) -> Result<HeaderMap, ConfigError> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let path = format!("{path}.{name}");
        let value = HeaderValue::from_str(value)
            .map_err(|_| error(&path, "holds characters that no header can carry"))?;
        map.insert(header_name(name, &path)?, value);
    }
    Ok(map)
}

fn header_name(name: &str, path: &str) -> Result<HeaderName, ConfigError> {
    const RESERVED: [&str; 6] =
        ["host", "content-length", "transfer-encoding", "connection", "te", "idempotency-key"];
    let parsed: HeaderName = name.parse().map_err(|_| error(path, "is no name of a header"))?;
    if RESERVED.contains(&parsed.as_str()) {
        return Err(error(path, "is set by levin for each request and cannot be given"));
    }
    Ok(parsed)
}
