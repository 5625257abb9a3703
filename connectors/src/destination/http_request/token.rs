//! OAuth 2 client credentials (RFC 6749, 4.4): a token for all syncs of a destination.
//!
//! * One token is held and shared; one request fetches it, whoever else needs it waits for that one.
//! * It is renewed before it expires, and once when the destination answers 401 to it: then the same
//!   request goes again within the same attempt. A 401 to the token that came after is the last word.
//! * The address of the token is asked by the same client as the destination, with the same checks of
//!   addresses; its redirects are not followed, because the client's secret would go with them.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};
use url::form_urlencoded;

use super::config::error;
use crate::catalogue::ConfigError;
use crate::http::{Answer, Failure, HttpClient, HttpRequest, classify};
use crate::outcome::{DeliveryError, RowOutcome};

/// What stands under `auth: {oauth2_client_credentials: …}`. Not `Debug`: it holds a secret.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Oauth2 {
    /// Where tokens are given out: `https://auth.example.com/oauth/token`.
    pub token_url: String,
    /// Who asks.
    pub client_id: String,
    /// The secret that goes with it.
    #[schemars(extend("x-secret" = true))]
    pub client_secret: String,
    /// What is asked for; several are separated by blanks.
    #[serde(default)]
    pub scope: Option<String>,
    /// For whom the token is meant, where the server asks for that.
    #[serde(default)]
    pub audience: Option<String>,
    /// How the client proves who it is.
    #[serde(default)]
    pub client_authentication: ClientAuthentication,
    /// Further fields of the request for a token.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
}

/// How a client proves who it is (RFC 6749, 2.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ClientAuthentication {
    /// `Authorization: Basic …`.
    #[default]
    Basic,
    /// As fields of the body.
    Body,
}

const AT: &str = "auth.oauth2_client_credentials";

/// A token is renewed so long before it expires, but no earlier than after four fifths of its life.
const MARGIN: Duration = Duration::from_secs(60);
/// The longest life that is believed.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);
/// How much of what the server says about a refusal is kept, in bytes.
const SAID: usize = 300;

impl Oauth2 {
    /// Who asks, as `Authorization: Basic` carries it.
    pub(super) fn basic(&self) -> (String, String) {
        let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect();
        (encoded(&self.client_id), encoded(&self.client_secret))
    }

    fn request(&self) -> Result<HttpRequest, ConfigError> {
        let wrong = |key: &str, message: &str| error(format!("{AT}.{key}"), message);
        let url: Url = self.token_url.parse().map_err(|e| {
            wrong("token_url", &format!("is no address ({e}); write it as https://auth.example.com/token"))
        })?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("token_url", "must begin with https:// or http://"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("token_url", "holds a user or password; use `client_id` and `client_secret`"));
        }
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        match self.client_authentication {
            ClientAuthentication::Body => {
                form.append_pair("client_id", &self.client_id);
                form.append_pair("client_secret", &self.client_secret);
            }
            ClientAuthentication::Basic => {
                let (id, secret) = self.basic();
                let mut value =
                    HeaderValue::from_str(&format!("Basic {}", BASE64.encode(format!("{id}:{secret}"))))
                        .map_err(|_| wrong("client_id", "has no form in a header"))?;
                value.set_sensitive(true);
                headers.insert(AUTHORIZATION, value);
            }
        }
        for (name, value) in [("scope", &self.scope), ("audience", &self.audience)] {
            if let Some(value) = value {
                form.append_pair(name, value);
            }
        }
        for (name, value) in &self.parameters {
            form.append_pair(name, value);
        }
        Ok(HttpRequest { method: Method::POST, url, headers, body: Bytes::from(form.finish()) })
    }
}

/// The token of a destination.
pub(super) struct Tokens {
    client: HttpClient,
    request: HttpRequest,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    token: Option<Token>,
    fetched: u64,
    /// The last token was refused, and nothing has yet shown that this one is not.
    suspect: bool,
}

#[derive(Clone)]
struct Token {
    header: HeaderValue,
    number: u64,
    renew_at: Option<Instant>,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    token_type: Option<String>,
    expires_in: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
    error_description: Option<String>,
}

impl Tokens {
    pub(super) fn new(settings: &Oauth2, client: HttpClient) -> Result<Self, ConfigError> {
        Ok(Self { client, request: settings.request()?, held: Mutex::default() })
    }

    /// The request with a token, and its answer. A 401 to a token that is not known to be useless renews
    /// it, and the request goes once more.
    pub(super) async fn send(&self, request: &HttpRequest, deadline: Instant) -> Result<Answer, Failure> {
        let mut calls = 0;
        let mut last = None;
        loop {
            let token = self.token(last, deadline, &mut calls).await.map_err(|error| Failure {
                error,
                outcome: RowOutcome::NotSent,
                calls,
            })?;
            let mut request = request.clone();
            request.headers.insert(AUTHORIZATION, token.header.clone());
            let until = deadline.min(Instant::now() + self.client.timeout());
            let sent = self.client.send_until(&request, until).await;
            let mut answer = sent.map_err(|failure| Failure { calls: failure.calls + calls, ..failure })?;
            calls += answer.calls;
            answer.calls = calls;
            if answer.status != StatusCode::UNAUTHORIZED {
                self.held.lock().await.suspect = false;
                return Ok(answer);
            }
            if last.is_some() || !self.may_renew(token.number).await {
                return Ok(answer);
            }
            last = Some(token.number);
        }
    }

    /// Whether another token may help where this one was refused.
    async fn may_renew(&self, number: u64) -> bool {
        let mut held = self.held.lock().await;
        if held.token.as_ref().is_some_and(|token| token.number != number) {
            // Somebody else has renewed it meanwhile.
            return true;
        }
        let first = !held.suspect;
        held.suspect = true;
        held.token = None;
        first
    }

    /// The token that is held, or a new one; never the one with the number `refused`.
    async fn token(
        &self,
        refused: Option<u64>,
        deadline: Instant,
        calls: &mut u64,
    ) -> Result<Token, DeliveryError> {
        let late = |_| DeliveryError::Unavailable {
            answered: false,
            after: None,
            message: "no token came in time".to_owned(),
        };
        let mut held = timeout_at(deadline, self.held.lock()).await.map_err(late)?;
        let fresh = |token: &&Token| {
            Some(token.number) != refused && token.renew_at.is_none_or(|at| Instant::now() < at)
        };
        if let Some(token) = held.token.as_ref().filter(fresh) {
            return Ok(token.clone());
        }
        held.token = None;
        let until = deadline.min(Instant::now() + self.client.timeout());
        let asked_at = Instant::now();
        *calls += 1;
        let answer =
            self.client.send_without_redirects(&self.request, until).await.map_err(|f| about(f.error))?;
        let (header, life) = self.granted(&answer)?;
        held.fetched += 1;
        let renew_at = life.map(|life| asked_at + life.saturating_sub(MARGIN.min(life / 5)));
        let token = Token { header, number: held.fetched, renew_at };
        held.token = Some(token.clone());
        Ok(token)
    }

    /// The token in an answer, and for how long it lives.
    fn granted(&self, answer: &Answer) -> Result<(HeaderValue, Option<Duration>), DeliveryError> {
        let redactor = self.client.redactor();
        if let Some((error, _)) = classify(answer, redactor) {
            // 400 is how a server refuses a client or a scope (RFC 6749, 5.2).
            let refused = matches!(error, DeliveryError::Refused { .. } | DeliveryError::Unauthorized { .. });
            if !refused {
                return Err(about(error));
            }
            let said = serde_json::from_slice::<Refusal>(&answer.body).ok().map(|refusal| {
                let more = refusal.error_description.map_or_else(String::new, |text| format!(" ({text})"));
                redactor.excerpt(&format!("{}{more}", refusal.error), SAID)
            });
            let said = said.map_or_else(String::new, |said| format!(": {said}"));
            return Err(refusal(format!("the token server answers HTTP {}{said}", answer.status)));
        }
        let unreadable = |what: &str| refusal(format!("the token server's answer {what}"));
        let granted: Granted = serde_json::from_slice(&answer.body)
            .map_err(|_| unreadable("holds no `access_token` in JSON"))?;
        if granted.token_type.as_ref().is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
            return Err(unreadable("gives a token of another type than Bearer"));
        }
        if granted.access_token.trim().is_empty() {
            return Err(unreadable("holds an empty `access_token`"));
        }
        redactor.learn(&granted.access_token);
        let mut header = HeaderValue::from_str(&format!("Bearer {}", granted.access_token))
            .map_err(|_| unreadable("holds a token that no header can carry"))?;
        header.set_sensitive(true);
        let seconds = granted.expires_in.and_then(|life| match life {
            serde_json::Value::String(text) => text.parse().ok(),
            other => other.as_f64(),
        });
        let life = seconds.filter(|s| s.is_finite() && *s >= 0.0);
        Ok((header, life.map(|s| Duration::from_secs_f64(s.min(LONGEST.as_secs_f64())))))
    }
}

fn refusal(message: String) -> DeliveryError {
    let hint = format!("Check `token_url`, `client_id`, `client_secret` and `scope` in `{AT}`.");
    DeliveryError::Unauthorized { message, hint }
}

/// The trouble, with a word on where it was met.
fn about(error: DeliveryError) -> DeliveryError {
    let say = |message: String| format!("the token server: {message}");
    match error {
        DeliveryError::Throttled { after, message } => {
            DeliveryError::Throttled { after, message: say(message) }
        }
        // No row is to blame for it, so none is looked for by halving.
        DeliveryError::Unavailable { after, message, .. } => {
            DeliveryError::Unavailable { answered: false, after, message: say(message) }
        }
        DeliveryError::Refused { message } => refusal(say(message)),
        DeliveryError::Unauthorized { message, hint } => {
            DeliveryError::Unauthorized { message: say(message), hint }
        }
    }
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
