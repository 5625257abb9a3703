//! Hooks: messages of other services that start runs. Each proves by its signature who it comes from.
//!
//! [`Hook`] is the contract that every connector keeps.

pub mod dbt_cloud;
pub mod fivetran;
pub mod signed;

use std::fmt::{Debug, Write as _};

use chrono::{DateTime, TimeDelta, Utc};
pub use reqwest::header::HeaderMap;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::catalogue::ConfigError;
use crate::signature;

/// One live hook.
pub trait Hook: Send + Sync + Debug {
    /// Reads a message: the signature over the bytes as they came first, and only then what they say. Takes as long
    /// for a wrong signature as for a right one.
    fn receive(&self, headers: &HeaderMap, body: &[u8], now: DateTime<Utc>) -> Result<Received, NotReceived>;
}

/// A message that came from whom it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Names the message, the same whenever it is sent again.
    pub id: String,
    /// What it says.
    pub said: Said,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// A job of dbt Cloud succeeded.
    DbtCloudJob {
        /// Its number.
        job: String,
        /// Whose account it is.
        account: String,
    },
    /// A connector of Fivetran has synced.
    FivetranConnector {
        /// Its id.
        connector: String,
    },
    /// This sync is to run.
    Sync(String),
    /// This sequence is to run.
    Sequence(String),
    /// Nothing that starts a run, and why.
    Nothing(String),
}

/// Why a message is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotReceived {
    /// Nobody knows who it comes from. Not told to the sender: why.
    #[error("the signature is not right")]
    Unsigned,
    /// It is signed, and says nothing that can be read.
    #[error("{0}")]
    Unreadable(String),
}

/// The text of a header; empty when there is none.
fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn json(body: &[u8]) -> Result<Value, NotReceived> {
    serde_json::from_slice(body)
        .map_err(|error| NotReceived::Unreadable(format!("the body is no JSON: {error}")))
}

/// A name for a message that has none.
fn digest(body: &[u8]) -> String {
    Sha256::digest(body).iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// How old a message may be whose signature covers no time of its own. With [`AHEAD`] it makes the day for which messages
/// are remembered: one that is forgotten is too old. Fivetran tries for a day, with its last attempt but one after 21 h.
const OLDEST: TimeDelta = TimeDelta::hours(23);
/// How far the sender's clock may be ahead of ours.
const AHEAD: TimeDelta = TimeDelta::hours(1);

/// What a message says, if the moment in its body is near enough. An old one is taken and starts nothing: refused, it would
/// be sent again, and Fivetran ends a webhook that was refused for a day.
fn fresh(message: &Value, key: &str, now: DateTime<Utc>, said: Said) -> Result<Said, NotReceived> {
    let sent = message[key].as_str().and_then(|text| DateTime::parse_from_rfc3339(text).ok());
    let Some(sent) = sent else {
        return Err(NotReceived::Unreadable(format!("there is no `{key}` that says when")));
    };
    let age = now - sent.with_timezone(&Utc);
    if age > OLDEST || age < -AHEAD {
        return Ok(Said::Nothing(format!("its `{key}` is too far from now")));
    }
    Ok(said)
}

/// A number or a text, as text.
fn word(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| if value.is_null() { String::new() } else { value.to_string() }, str::to_owned)
}

fn wrong(path: &str, message: impl Into<String>) -> ConfigError {
    ConfigError { path: path.to_owned(), message: message.into() }
}

/// The secrets of a service that signs the body alone, in hexadecimal; each may have signed. Not `Debug` by derivation.
struct Secrets(Vec<Vec<u8>>);

impl Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets").finish_non_exhaustive()
    }
}

impl Secrets {
    /// Those of a hook's file. At least so long, because nobody limits guesses.
    fn of(secret: &str, other_secret: Option<&str>) -> Result<Self, ConfigError> {
        const SHORTEST: usize = 16;
        let given = [("secret", Some(secret)), ("other_secret", other_secret)];
        let given = given.into_iter().filter_map(|(path, secret)| Some((path, secret?)));
        let keys = given.map(|(path, secret)| match secret.len() {
            SHORTEST.. => Ok(secret.as_bytes().to_vec()),
            _ => Err(wrong(path, format!("must have at least {SHORTEST} characters"))),
        });
        keys.collect::<Result<_, _>>().map(Self)
    }

    /// Whether one of them made the signature in that header. All are tried: how long it takes tells nothing.
    fn admit(&self, headers: &HeaderMap, name: &str, body: &[u8]) -> Result<(), NotReceived> {
        let signature = header(headers, name);
        let signed = self.0.iter().filter(|key| signature::is_signed_in_hex(key, body, signature)).count();
        if signed == 0 { Err(NotReceived::Unsigned) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
