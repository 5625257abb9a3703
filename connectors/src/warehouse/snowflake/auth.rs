//! How levin proves who it is.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::form_urlencoded;

use super::super::{ErrorKind, WarehouseError};
use super::key::Key;
use crate::catalogue::ConfigError;
use crate::http::{BodyEnd, HttpClient, HttpRequest};

/// What stands under `auth`: exactly one of the four ways. Not `Debug`: it holds secrets.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AuthConfig {
    /// A key pair's private key: the text of a PEM in PKCS#8, as `${file:/run/secrets/key.p8}` reads it.
    #[serde(default)]
    #[schemars(extend("x-secret" = true))]
    private_key: Option<String>,
    /// The passphrase of an encrypted private key.
    #[serde(default)]
    #[schemars(extend("x-secret" = true))]
    private_key_passphrase: Option<String>,
    /// A programmatic access token.
    #[serde(default)]
    #[schemars(extend("x-secret" = true))]
    token: Option<String>,
    /// An OAuth access token, or a client's credentials that are exchanged for one.
    #[serde(default)]
    oauth: Option<OauthConfig>,
    /// The user's password. Snowflake refuses it to users of type SERVICE; a key pair is better.
    #[serde(default)]
    #[schemars(extend("x-secret" = true))]
    password: Option<String>,
}

/// OAuth: `token`, or `token_url`, `client_id` and `client_secret`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OauthConfig {
    /// An access token that somebody else keeps fresh.
    #[serde(default)]
    #[schemars(extend("x-secret" = true))]
    token: Option<String>,
    /// Where tokens are given out for client credentials.
    #[serde(default)]
    token_url: Option<String>,
    /// Who asks.
    #[serde(default)]
    client_id: Option<String>,
    /// The secret that goes with it.
    #[serde(default)]
    #[schemars(extend("x-secret" = true))]
    client_secret: Option<String>,
    /// What is asked for, as `session:role:LEVIN_ROLE`.
    #[serde(default)]
    scope: Option<String>,
}

/// One way to log in.
pub(super) enum Credentials {
    KeyPair(Box<Key>),
    AccessToken(String),
    Oauth(String),
    Client(Box<Client>),
    Password(String),
}

/// The credentials of an OAuth client, and the token that they were exchanged for.
pub(super) struct Client {
    url: Url,
    id: String,
    secret: String,
    scope: Option<String>,
    held: Mutex<Option<(String, Instant)>>,
}

/// A token is asked for anew so long before it expires.
const MARGIN: Duration = Duration::from_secs(60);
/// For how long a token is believed that says nothing about it.
const UNSAID_LIFE: Duration = Duration::from_secs(600);

impl Credentials {
    pub(super) fn new(config: AuthConfig) -> Result<Self, ConfigError> {
        let wrong = |path: &str, message: &str| {
            Err(ConfigError { path: format!("auth{path}"), message: message.to_owned() })
        };
        let AuthConfig { private_key, private_key_passphrase: passphrase, token, oauth, password } = config;
        if passphrase.is_some() && private_key.is_none() {
            return wrong(".private_key_passphrase", "belongs to a `private_key`, and there is none");
        }
        match (private_key, token, oauth, password) {
            (Some(pem), None, None, None) => match Key::from_pem(&pem, passphrase.as_deref()) {
                Ok(key) => Ok(Self::KeyPair(Box::new(key))),
                Err(message) => wrong(".private_key", &message),
            },
            (None, Some(token), None, None) if token.trim().is_empty() => wrong(".token", "is empty"),
            (None, Some(token), None, None) => Ok(Self::AccessToken(token.trim().to_owned())),
            (None, None, Some(oauth), None) => Self::oauth(oauth),
            (None, None, None, Some(password)) if password.is_empty() => wrong(".password", "is empty"),
            (None, None, None, Some(password)) => Ok(Self::Password(password)),
            _ => wrong("", "must have exactly one of `private_key`, `token`, `oauth` and `password`"),
        }
    }

    fn oauth(config: OauthConfig) -> Result<Self, ConfigError> {
        let wrong =
            |path: &str, message: String| Err(ConfigError { path: format!("auth.oauth{path}"), message });
        let OauthConfig { token, token_url, client_id, client_secret, scope } = config;
        match (token, token_url, client_id, client_secret) {
            (Some(token), None, None, None) => Ok(Self::Oauth(token.trim().to_owned())),
            (None, Some(url), Some(id), Some(secret)) => match url.parse::<Url>() {
                Ok(url) if super::may_be_asked(&url) => {
                    Ok(Self::Client(Box::new(Client { url, id, secret, scope, held: Mutex::default() })))
                }
                Ok(_) => wrong(".token_url", "must begin with https://".to_owned()),
                Err(e) => wrong(".token_url", format!("is no address ({e})")),
            },
            _ => wrong("", "must have `token`, or `token_url`, `client_id` and `client_secret`".to_owned()),
        }
    }

    /// Every text that must appear in no message.
    pub(super) fn secrets(&self) -> Vec<String> {
        match self {
            Self::KeyPair(_) => Vec::new(),
            Self::AccessToken(secret) | Self::Oauth(secret) | Self::Password(secret) => vec![secret.clone()],
            Self::Client(client) => vec![client.secret.clone()],
        }
    }

    /// Whether another login with the same credentials may do better: a token's time was wrong by the clock of
    /// this machine, or a token that was held has expired.
    pub(super) async fn may_be_renewed(&self, code: &str) -> bool {
        match self {
            Self::KeyPair(_) => matches!(code, "390144" | "394301" | "394302"),
            Self::Client(client) => {
                matches!(code, "390303" | "390318") && client.held.lock().await.take().is_some()
            }
            _ => false,
        }
    }

    /// What a login request says of it. `now` is in seconds since 1970.
    pub(super) async fn put_into(
        &self,
        data: &mut Map<String, Value>,
        account: &str,
        user: &str,
        now: i64,
        http: &HttpClient,
    ) -> Result<(), WarehouseError> {
        let (how, token) = match self {
            Self::Password(password) => {
                data.insert("PASSWORD".to_owned(), json!(password));
                return Ok(());
            }
            Self::KeyPair(key) => {
                let token = key.token(account, user, now);
                ("SNOWFLAKE_JWT", token.map_err(|e| WarehouseError::new(ErrorKind::Authentication, e))?)
            }
            Self::AccessToken(token) => ("PROGRAMMATIC_ACCESS_TOKEN", token.clone()),
            Self::Oauth(token) => ("OAUTH", token.clone()),
            Self::Client(client) => ("OAUTH", client.token(http).await?),
        };
        http.redactor().learn(&token);
        data.insert("AUTHENTICATOR".to_owned(), json!(how));
        data.insert("TOKEN".to_owned(), json!(token));
        Ok(())
    }
}

impl Client {
    async fn token(&self, http: &HttpClient) -> Result<String, WarehouseError> {
        #[derive(Deserialize)]
        struct Granted {
            access_token: String,
            expires_in: Option<Value>,
        }
        let failed = |kind, what: String| Err(WarehouseError::new(kind, format!("the token server {what}")));
        let mut held = self.held.lock().await;
        if let Some((token, _)) = held.as_ref().filter(|(_, until)| Instant::now() < *until) {
            return Ok(token.clone());
        }
        let asked_at = Instant::now();
        let answer = match http.send_without_redirects(&self.request()?, asked_at + http.timeout()).await {
            Ok(answer) => answer,
            Err(failure) => {
                return failed(ErrorKind::Unreachable, format!("does not answer: {}", failure.error));
            }
        };
        if !answer.status.is_success() {
            let said = crate::http::describe(&answer, http.redactor());
            let kind = if answer.status.is_client_error() {
                ErrorKind::Authentication
            } else {
                ErrorKind::Unreachable
            };
            return failed(kind, format!("gives no token ({said}); check `auth.oauth`"));
        }
        let granted = match serde_json::from_slice::<Granted>(&answer.body) {
            Ok(granted) if answer.end == BodyEnd::Complete => granted,
            _ => return failed(ErrorKind::Authentication, "answers without an `access_token`".to_owned()),
        };
        let life = granted.expires_in.and_then(|life| match life {
            Value::String(text) => text.parse().ok(),
            other => other.as_u64(),
        });
        let life = life.map_or(UNSAID_LIFE, Duration::from_secs);
        *held = Some((granted.access_token.clone(), asked_at + life.saturating_sub(MARGIN.min(life / 5))));
        Ok(granted.access_token)
    }

    fn request(&self) -> Result<HttpRequest, WarehouseError> {
        let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let basic = BASE64.encode(format!("{}:{}", encoded(&self.id), encoded(&self.secret)));
        let mut authorization = HeaderValue::from_str(&format!("Basic {basic}")).map_err(|_| {
            WarehouseError::new(ErrorKind::Authentication, "`auth.oauth.client_id` has no form in a header")
        })?;
        authorization.set_sensitive(true);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(AUTHORIZATION, authorization);
        let mut fields = BTreeMap::from([("grant_type", "client_credentials")]);
        fields.extend(self.scope.as_deref().map(|scope| ("scope", scope)));
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        Ok(HttpRequest { method: Method::POST, url: self.url.clone(), headers, body: Bytes::from(body) })
    }
}
