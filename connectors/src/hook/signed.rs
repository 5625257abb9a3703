//! Any service that signs as Standard Webhooks describes, and names what is to run.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use schemars::{JsonSchema, schema_for};
use serde::Deserialize;
use serde_json::Value;

use super::{HeaderMap, Hook, NotReceived, Received, Said, header, json, wrong};
use crate::catalogue::{BuildContext, ConfigError, HookConnector};
use crate::signature;

/// The catalogue's line.
pub static SIGNED: HookConnector = HookConnector {
    name: "signed",
    title: "Signed webhook",
    summary: "Takes `{\"sync\": SLUG}` or `{\"sequence\": SLUG}`, signed as Standard Webhooks describes, and starts it.",
    config_schema: || schema_for!(Config),
    build,
};

/// How far a message's clock may be from ours.
const TOLERANCE: TimeDelta = TimeDelta::minutes(5);
/// The longest name of a message.
const LONGEST_ID: usize = 256;

/// The hook's file. Not `Debug`: it holds secrets.
#[derive(Clone, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Config {
    /// With which messages are signed: `whsec_` and a key of 24 to 64 bytes in base64.
    #[schemars(extend("x-secret" = true))]
    secret: String,
    /// Another one that is taken as well, while it is being replaced.
    #[serde(default)]
    #[schemars(extend("x-secret" = true))]
    other_secret: Option<String>,
}

/// The hook. Not `Debug` by derivation: it holds secrets.
struct Signed {
    keys: Vec<Vec<u8>>,
}

impl std::fmt::Debug for Signed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signed").finish_non_exhaustive()
    }
}

fn build(config: Value, _: &BuildContext) -> Result<Arc<dyn Hook>, ConfigError> {
    let config: Config = serde_json::from_value(config).map_err(|error| wrong("", error.to_string()))?;
    let secrets = [("secret", Some(&config.secret)), ("other_secret", config.other_secret.as_ref())];
    let given = secrets.into_iter().filter_map(|(path, secret)| Some((path, secret?)));
    let keys = given
        .map(|(path, secret)| signature::key_of(secret).map_err(|message| wrong(path, message)))
        .collect::<Result<_, _>>()?;
    Ok(Arc::new(Signed { keys }))
}

impl Hook for Signed {
    fn receive(&self, headers: &HeaderMap, body: &[u8], now: DateTime<Utc>) -> Result<Received, NotReceived> {
        let (id, timestamp) = (header(headers, "webhook-id"), header(headers, "webhook-timestamp"));
        // What costs nothing first: a stranger's message is not read when it is refused anyway.
        let sent = timestamp.parse().ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0));
        let fresh = sent.is_some_and(|sent: DateTime<Utc>| (now - sent).abs() <= TOLERANCE);
        if !fresh || !(1..=LONGEST_ID).contains(&id.len()) {
            return Err(NotReceived::Unsigned);
        }
        let signatures = header(headers, "webhook-signature");
        // All are tried: how long it takes tells nothing.
        let signed =
            self.keys.iter().filter(|key| signature::is_signed(key, id, timestamp, body, signatures));
        if signed.count() == 0 {
            return Err(NotReceived::Unsigned);
        }
        let message = json(body)?;
        let said = match (message["sync"].as_str(), message["sequence"].as_str()) {
            (Some(sync), None) => Said::Sync(sync.to_owned()),
            (None, Some(sequence)) => Said::Sequence(sequence.to_owned()),
            _ => {
                let message = "the body must be {\"sync\": SLUG} or {\"sequence\": SLUG}";
                return Err(NotReceived::Unreadable(message.to_owned()));
            }
        };
        Ok(Received { id: id.to_owned(), said })
    }
}
