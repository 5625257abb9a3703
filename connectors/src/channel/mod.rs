//! Channels: where messages about runs go, to people and to other systems.
//!
//! [`Channel`] is the contract that every connector keeps.

pub mod email;
pub mod pagerduty;
pub mod slack;
pub mod webhook;

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::catalogue::{BuildContext, ConfigError};
use crate::http::{Answer, HttpClient, HttpRequest, HttpSettings, Redactor, describe, retry_after};
use crate::outcome::DeliveryError;

/// The longest that one attempt may take.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// One live channel.
#[async_trait]
pub trait Channel: Send + Sync + Debug {
    /// One attempt to send a message; repeating belongs to the caller. It comes again, under the same
    /// [`Notice::id`], when nobody knows how an attempt ended. No longer than [`TIMEOUT`].
    async fn send(&self, notice: &Notice) -> Result<(), Unsent>;

    /// Whether this channel wants to hear of every such event, alert or not.
    fn takes(&self, _event: Event) -> bool {
        false
    }
}

/// A message on its way. It holds no value of any row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Notice {
    /// Names this message, the same in every attempt.
    pub id: String,
    /// What it is about.
    pub event: Event,
    /// When that happened.
    pub at: DateTime<Utc>,
    /// How bad it is now.
    pub severity: Severity,
    /// Messages of one thread belong together and arrive in their order: an alert and its end.
    pub thread: String,
    /// One line.
    pub title: String,
    /// What a person should know: a name and a text, line by line.
    pub facts: Vec<(String, String)>,
    /// What to do next, line by line.
    pub steps: Vec<String>,
    /// The same for programs.
    pub data: Value,
}

impl Notice {
    /// The facts and what to do next, as plain text.
    pub fn text(&self) -> String {
        let facts = self.facts.iter().map(|(name, text)| format!("{name}: {text}"));
        let mut text = facts.collect::<Vec<_>>().join("\n");
        if !self.steps.is_empty() {
            text.push_str("\n\nWhat to do next:");
            self.steps.iter().for_each(|step| text.push_str(&format!("\n- {step}")));
        }
        text
    }
}

/// What a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Event {
    /// A run began.
    #[serde(rename = "run.started")]
    RunStarted,
    /// A run sent everything that differed.
    #[serde(rename = "run.succeeded")]
    RunSucceeded,
    /// A run ended with rejected rows, or rows set aside.
    #[serde(rename = "run.warning")]
    RunWarning,
    /// A run could not go on.
    #[serde(rename = "run.failed")]
    RunFailed,
    /// Somebody ended a run.
    #[serde(rename = "run.cancelled")]
    RunCancelled,
    /// The process of a run was gone before its end; the next run settles it.
    #[serde(rename = "run.interrupted")]
    RunInterrupted,
    /// The state of an alert changed.
    #[serde(rename = "alert.raised")]
    AlertRaised,
    /// An alert is over.
    #[serde(rename = "alert.resolved")]
    AlertResolved,
}

impl Event {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::RunStarted => "run.started",
            Self::RunSucceeded => "run.succeeded",
            Self::RunWarning => "run.warning",
            Self::RunFailed => "run.failed",
            Self::RunCancelled => "run.cancelled",
            Self::RunInterrupted => "run.interrupted",
            Self::AlertRaised => "alert.raised",
            Self::AlertResolved => "alert.resolved",
        }
    }
}

/// How bad something is.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Nothing is wrong.
    #[default]
    Ok,
    /// Somebody should look at it.
    Warning,
    /// Somebody should look at it now.
    Critical,
}

impl Severity {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// Why an attempt did not bring the message there, without secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Unsent {
    /// What happened.
    pub message: String,
    /// How long the other side asks to wait.
    pub after: Option<Duration>,
}

impl Unsent {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), after: None }
    }
}

/// What the channels that speak HTTP share.
#[derive(Debug)]
struct Post {
    client: HttpClient,
    url: Url,
}

impl Post {
    fn new(
        key: &str,
        url: &str,
        allow_private_networks: bool,
        own: &[&str],
        context: &BuildContext,
    ) -> Result<Self, ConfigError> {
        let wrong = |message: String| ConfigError { path: key.to_owned(), message };
        let url = Url::parse(url).map_err(|error| wrong(format!("is no address: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("must begin with https:// or http://".to_owned()));
        }
        let secrets: Vec<String> =
            context.secrets.iter().cloned().chain(own.iter().map(|secret| (*secret).to_owned())).collect();
        let redactor = Redactor::new(&secrets);
        let client = HttpClient::new(HttpSettings { timeout: TIMEOUT, allow_private_networks, redactor })
            .map_err(wrong)?;
        client.admits(&url).map_err(|_| {
            let message = "is a private address, and those are refused: if it is meant, set `allow_private_networks: true`";
            wrong(message.to_owned())
        })?;
        Ok(Self { client, url })
    }

    /// Posts JSON. Nobody but this address may see it, so redirects are not followed.
    async fn json(&self, mut headers: HeaderMap, body: Vec<u8>) -> Result<Answer, Unsent> {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let (method, url, body) = (Method::POST, self.url.clone(), Bytes::from(body));
        let request = HttpRequest { method, url, headers, body };
        let deadline = tokio::time::Instant::now() + TIMEOUT;
        let answer = self.client.send_without_redirects(&request, deadline).await.map_err(|failure| {
            Unsent::new(match failure.error {
                DeliveryError::Unauthorized { message, hint } => format!("{message}. {hint}"),
                DeliveryError::Throttled { message, .. }
                | DeliveryError::Unavailable { message, .. }
                | DeliveryError::Refused { message } => message,
            })
        })?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        let after = retry_after(&answer.headers, Utc::now());
        Err(Unsent { message: self.said(&answer), after })
    }

    fn said(&self, answer: &Answer) -> String {
        describe(answer, self.client.redactor())
    }
}

/// The beginning of a text, at most so many characters.
fn cut(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((at, _)) => format!("{}…", &text[..text[..at].char_indices().last().map_or(0, |(at, _)| at)]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
