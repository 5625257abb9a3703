//! Who asks: Google's credentials of every kind, and the tokens that they give.
//!
//! The work is done by Google's own library, which signs, exchanges, renews before the end and asks the metadata
//! server; the rest of the driver sees one token at a time.

use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;
use std::time::Duration;

use google_cloud_auth::credentials::{
    AccessTokenCredentials, Builder as Adc, Credentials, external_account, impersonated, service_account,
    user_account,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;

use crate::catalogue::ConfigError;
use crate::http::{Redactor, chain};
use crate::warehouse::{ErrorKind, WarehouseError};

/// What a token may be used for.
const SCOPE: &str = "https://www.googleapis.com/auth/bigquery";
/// How long a token may take: a machine that is none of Google's has no metadata server that would answer.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(30);

/// One of the ways to prove who asks.
#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum AuthConfig {
    /// What the machine has (application default credentials): the file that `GOOGLE_APPLICATION_CREDENTIALS` names,
    /// what `gcloud auth application-default login` left, or the metadata server of Google Cloud.
    #[default]
    Adc,
    /// No credentials: for an emulator.
    None,
    /// The key file of a service account, as JSON text: `"${file:key.json}"`.
    ServiceAccount(#[schemars(extend("x-secret" = true))] String),
    /// Any other file of Google's credentials, as JSON text: workload identity federation (`external_account`),
    /// `impersonated_service_account`, `authorized_user`.
    Credentials(#[schemars(extend("x-secret" = true))] String),
    /// A token that somebody else renews.
    AccessToken(#[schemars(extend("x-secret" = true))] String),
}

/// Gives tokens.
pub(super) struct Auth {
    source: Source,
    /// The service account as which statements run, when it is another one than who asks.
    impersonate: Option<String>,
    redactor: Redactor,
    held: Mutex<Held>,
}

enum Source {
    None,
    Token(String),
    Adc,
    File(Box<Value>),
}

#[derive(Default)]
struct Held {
    credentials: Option<Arc<AccessTokenCredentials>>,
    /// How often a token was asked for anew, because the one before was refused.
    renewals: u64,
}

/// A token, and which one it is.
#[derive(Clone)]
pub(super) struct Token {
    /// Empty where there are no credentials.
    pub text: Option<String>,
    renewals: u64,
}

impl Debug for Auth {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").field("impersonate", &self.impersonate).finish_non_exhaustive()
    }
}

impl Auth {
    /// Reads the credentials, and asks nobody.
    pub(super) fn new(
        config: &AuthConfig,
        impersonate: Option<String>,
        redactor: Redactor,
    ) -> Result<Self, ConfigError> {
        let wrong = |path: &str, message: String| ConfigError { path: format!("auth.{path}"), message };
        let file = |key: &str, text: &str, types: &[&str]| {
            let value: Value = serde_json::from_str(text)
                .map_err(|_| wrong(key, "is no JSON; name the file: \"${file:key.json}\"".to_owned()))?;
            match value["type"].as_str() {
                Some(found) if types.contains(&found) => Ok(Source::File(Box::new(value))),
                found => Err(wrong(
                    key,
                    format!(
                        "holds credentials of type {}; expected {}",
                        found.unwrap_or("(none)"),
                        types.join(", ")
                    ),
                )),
            }
        };
        let source = match config {
            AuthConfig::Adc => Source::Adc,
            AuthConfig::None => Source::None,
            AuthConfig::ServiceAccount(text) => file("service_account", text, &["service_account"])?,
            AuthConfig::Credentials(text) => file(
                "credentials",
                text,
                &["external_account", "impersonated_service_account", "authorized_user", "service_account"],
            )?,
            AuthConfig::AccessToken(text) if text.trim().is_empty() => {
                return Err(wrong("access_token", "is empty".to_owned()));
            }
            AuthConfig::AccessToken(text) => Source::Token(text.trim().to_owned()),
        };
        if let Source::File(file) = &source {
            for secret in ["private_key", "client_secret", "refresh_token"] {
                if let Some(text) = file[secret].as_str() {
                    redactor.learn(text);
                }
            }
        }
        if impersonate.is_some() && matches!(source, Source::None | Source::Token(_)) {
            let message =
                "needs credentials that can ask for another's token: adc, service_account or credentials";
            return Err(ConfigError { path: "impersonate".to_owned(), message: message.to_owned() });
        }
        Ok(Self { source, impersonate, redactor, held: Mutex::default() })
    }

    /// Who asks, where that is known without asking.
    pub(super) fn account(&self) -> Option<String> {
        let named = match &self.source {
            Source::File(file) => file["client_email"].as_str().map(str::to_owned),
            _ => None,
        };
        self.impersonate.clone().or(named)
    }

    /// The token for the next request.
    pub(super) async fn token(&self) -> Result<Token, WarehouseError> {
        let mut held = self.held.lock().await;
        let text = match &self.source {
            Source::None => None,
            Source::Token(text) => Some(text.clone()),
            Source::Adc | Source::File(_) => {
                let credentials = match &held.credentials {
                    Some(credentials) => credentials.clone(),
                    None => {
                        let credentials = Arc::new(self.credentials()?);
                        held.credentials = Some(credentials.clone());
                        credentials
                    }
                };
                Some(self.ask(&credentials).await?)
            }
        };
        Ok(Token { text, renewals: held.renewals })
    }

    /// Forgets a token that BigQuery refused, so that another one is asked for. False when there is none.
    pub(super) async fn refused(&self, token: &Token) -> bool {
        if !matches!(self.source, Source::Adc | Source::File(_)) {
            return false;
        }
        let mut held = self.held.lock().await;
        if held.renewals == token.renewals {
            held.credentials = None;
            held.renewals += 1;
        }
        true
    }

    async fn ask(&self, credentials: &AccessTokenCredentials) -> Result<String, WarehouseError> {
        let failed = |kind: ErrorKind, why: &str| {
            let message = format!("no token for BigQuery: {}", self.redactor.redact(why));
            WarehouseError::new(kind, message)
        };
        match tokio::time::timeout(TOKEN_TIMEOUT, credentials.access_token()).await {
            Ok(Ok(token)) => {
                self.redactor.learn(&token.token);
                Ok(token.token)
            }
            Ok(Err(error)) => {
                let kind =
                    if error.is_transient() { ErrorKind::Unreachable } else { ErrorKind::Authentication };
                Err(failed(kind, &chain(&error)))
            }
            Err(_) => Err(failed(
                ErrorKind::Authentication,
                "nobody gave one; set `auth` in the source, or run `gcloud auth application-default login`",
            )),
        }
    }

    fn credentials(&self) -> Result<AccessTokenCredentials, WarehouseError> {
        // The library signs with the process's cryptography; the second to install one changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let built = match (&self.source, &self.impersonate) {
            (Source::File(file), None) => of_file(file),
            (Source::File(file), Some(target)) => of_file(file).and_then(|by| impersonating(by, target)),
            (_, None) => Adc::default().with_scopes([SCOPE]).build_access_token_credentials(),
            (_, Some(target)) => Adc::default().build().and_then(|by| impersonating(by, target)),
        };
        built.map_err(|error| {
            let message = format!("the credentials cannot be used: {}", self.redactor.redact(&chain(&error)));
            WarehouseError::new(ErrorKind::Authentication, message)
        })
    }
}

type Built<T> = Result<T, google_cloud_auth::build_errors::Error>;

fn of_file(file: &Value) -> Built<AccessTokenCredentials> {
    let file = file.clone();
    match file["type"].as_str() {
        Some("external_account") => {
            external_account::Builder::new(file).with_scopes([SCOPE]).build_access_token_credentials()
        }
        Some("impersonated_service_account") => {
            impersonated::Builder::new(file).with_scopes([SCOPE]).build_access_token_credentials()
        }
        Some("authorized_user") => user_account::Builder::new(file).build_access_token_credentials(),
        _ => service_account::Builder::new(file)
            .with_access_specifier(service_account::AccessSpecifier::from_scopes([SCOPE]))
            .build_access_token_credentials(),
    }
}

fn impersonating(by: impl Into<Credentials>, target: &str) -> Built<AccessTokenCredentials> {
    impersonated::Builder::from_source_credentials(by.into())
        .with_target_principal(target)
        .with_scopes([SCOPE])
        .build_access_token_credentials()
}
