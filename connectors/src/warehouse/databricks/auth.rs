//! How levin proves who it is: a personal access token, or a service principal's credentials that are exchanged for
//! tokens of an hour (OAuth, machine to machine).

use std::fmt::{self, Debug, Formatter};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::trouble::Said;
use crate::catalogue::ConfigError;
use crate::http::{BodyEnd, HttpClient, HttpRequest};
use crate::warehouse::{ErrorKind, WarehouseError};

/// What stands under `auth`: `token`, or `client_id` and `client_secret`. Not `Debug`: it holds secrets.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AuthConfig {
    /// A personal access token.
    #[serde(default)]
    #[schemars(extend("x-secret" = true))]
    token: Option<String>,
    /// A service principal's application id.
    #[serde(default)]
    client_id: Option<String>,
    /// A secret of that service principal.
    #[serde(default)]
    #[schemars(extend("x-secret" = true))]
    client_secret: Option<String>,
}

/// Who asks.
pub(super) enum Auth {
    Token(String),
    Client(Box<Client>),
}

/// A service principal, and the token that its secret was exchanged for.
pub(super) struct Client {
    url: Url,
    id: String,
    secret: String,
    held: Mutex<Option<(String, Instant)>>,
}

/// A token is asked for anew so long before it expires, or at the latest when half of its life is over.
const MARGIN: Duration = Duration::from_secs(300);
/// For how long a token is believed that says nothing about it.
const UNSAID_LIFE: u64 = 600;
/// How often the token server is asked while it is in trouble, and the first wait between.
const TRIES: u32 = 4;
const FIRST_WAIT: Duration = Duration::from_millis(250);

impl Debug for Auth {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token(_) => "Token",
            Self::Client(_) => "Client",
        })
    }
}

impl Auth {
    pub(super) fn new(config: AuthConfig, base: &Url) -> Result<Self, ConfigError> {
        let wrong = |path: &str, message: &str| {
            Err(ConfigError { path: format!("auth{path}"), message: message.to_owned() })
        };
        let given = |text: Option<String>| text.map(|text| text.trim().to_owned());
        match (given(config.token), given(config.client_id), given(config.client_secret)) {
            (Some(token), None, None) if token.is_empty() => wrong(".token", "is empty"),
            (Some(token), None, None) => Ok(Self::Token(token)),
            (None, Some(id), Some(secret)) => {
                if id.is_empty() {
                    return wrong(".client_id", "is empty");
                }
                if secret.is_empty() {
                    return wrong(".client_secret", "is empty");
                }
                let Ok(url) = base.join("/oidc/v1/token") else { return wrong("", "has no token server") };
                Ok(Self::Client(Box::new(Client { url, id, secret, held: Mutex::default() })))
            }
            (None, Some(_), None) => wrong(".client_secret", "is missing; it belongs to `client_id`"),
            (None, None, Some(_)) => wrong(".client_id", "is missing; it belongs to `client_secret`"),
            _ => wrong("", "takes `token`, or `client_id` and `client_secret`"),
        }
    }

    /// What must appear nowhere.
    pub(super) fn secrets(&self) -> [String; 1] {
        match self {
            Self::Token(token) => [token.clone()],
            Self::Client(client) => [client.secret.clone()],
        }
    }

    /// Who asks, where that is known without asking.
    pub(super) fn principal(&self) -> Option<String> {
        match self {
            Self::Token(_) => None,
            Self::Client(client) => Some(client.id.clone()),
        }
    }

    /// The token for the next request.
    pub(super) async fn token(&self, http: &HttpClient) -> Result<String, WarehouseError> {
        let client = match self {
            Self::Token(token) => return Ok(token.clone()),
            Self::Client(client) => client,
        };
        let mut held = client.held.lock().await;
        if let Some((token, until)) = &*held
            && Instant::now() < *until
        {
            return Ok(token.clone());
        }
        let (token, life) = client.ask(http).await?;
        http.redactor().learn(&token);
        *held = Some((token.clone(), Instant::now() + (life / 2).max(life.saturating_sub(MARGIN))));
        Ok(token)
    }

    /// Forgets a token that was refused, so that another one is asked for. False when there is none.
    pub(super) async fn refused(&self, token: &str) -> bool {
        let Self::Client(client) = self else { return false };
        let mut held = client.held.lock().await;
        held.take_if(|(known, _)| known == token);
        true
    }
}

impl Client {
    async fn ask(&self, http: &HttpClient) -> Result<(String, Duration), WarehouseError> {
        #[derive(Deserialize)]
        struct Granted {
            access_token: String,
            #[serde(default)]
            expires_in: Option<u64>,
        }
        let failed = |kind: ErrorKind, why: &str| {
            let message = format!("no token for Databricks: {}", http.redactor().redact(why));
            WarehouseError::new(kind, message)
        };
        let basic = BASE64.encode(format!("{}:{}", self.id, self.secret));
        let mut basic = HeaderValue::try_from(format!("Basic {basic}"))
            .map_err(|_| failed(ErrorKind::Authentication, "the credentials have no form in a header"))?;
        basic.set_sensitive(true);
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(AUTHORIZATION, basic);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        let body = Bytes::from_static(b"grant_type=client_credentials&scope=all-apis");
        let request = HttpRequest { method: Method::POST, url: self.url.clone(), headers, body };
        let mut tries = 0;
        loop {
            tries += 1;
            let deadline = Instant::now() + http.timeout();
            let error = match http.send_without_redirects(&request, deadline).await {
                Ok(answer) if answer.status.is_success() && answer.end == BodyEnd::Complete => {
                    let granted: Granted = serde_json::from_slice(&answer.body).map_err(|e| {
                        let why = format!("its answer cannot be read ({e}); check `host`");
                        failed(ErrorKind::Unreachable, &why)
                    })?;
                    let life = Duration::from_secs(granted.expires_in.unwrap_or(UNSAID_LIFE));
                    return Ok((granted.access_token, life));
                }
                Ok(answer) if answer.status.is_server_error() || answer.status == 429 => {
                    failed(ErrorKind::Unreachable, &format!("HTTP {}", answer.status))
                }
                Ok(answer) if answer.status.is_success() => {
                    failed(ErrorKind::Unreachable, "the answer broke off")
                }
                Ok(answer) => {
                    let said = Said::read(answer.status.as_u16(), &answer.body).message;
                    let why = format!("{said} (check `client_id` and `client_secret`)");
                    return Err(failed(ErrorKind::Authentication, &why));
                }
                Err(failure) => failed(ErrorKind::Unreachable, &failure.error.to_string()),
            };
            if tries == TRIES {
                return Err(error);
            }
            tokio::time::sleep(FIRST_WAIT * 2_u32.pow(tries)).await;
        }
    }
}
