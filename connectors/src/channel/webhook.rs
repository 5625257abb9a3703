//! Any service that takes webhooks, signed as Standard Webhooks describes.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::Utc;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use schemars::{JsonSchema, schema_for};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Channel, Event, Notice, Post, Unsent};
use crate::catalogue::{BuildContext, ChannelConnector, ConfigError};
use crate::signature;

/// The catalogue's line.
pub static WEBHOOK: ChannelConnector = ChannelConnector {
    name: "webhook",
    title: "Webhook",
    summary: "Posts JSON, signed as Standard Webhooks describes: `{type, timestamp, data}`. With `events` it also hears of \
              runs that begin and end. `webhook-id` is the same in every attempt.",
    config_schema: || schema_for!(Config),
    build,
};

/// The channel's file. Not `Debug`: it holds secrets.
#[derive(Clone, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Config {
    /// Where messages are posted to.
    url: String,
    /// Signs every message: `whsec_` and a key of 24 to 64 bytes in base64.
    #[schemars(extend("x-secret" = true))]
    signing_secret: String,
    /// While the secret is being replaced: the other one, with which every message is signed as well.
    #[serde(default)]
    #[schemars(extend("x-secret" = true))]
    other_signing_secret: Option<String>,
    /// Events to hear of, beside the alerts that name this channel.
    #[serde(default)]
    events: Vec<Event>,
    /// Headers of every message.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Allows loopback, private and link-local addresses, which are refused otherwise.
    #[serde(default)]
    allow_private_networks: bool,
}

/// The channel. Not `Debug` by derivation: it holds secrets.
struct Webhook {
    post: Post,
    keys: Vec<Vec<u8>>,
    headers: HeaderMap,
    events: Vec<Event>,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("events", &self.events).finish_non_exhaustive()
    }
}

fn build(config: Value, context: &BuildContext) -> Result<Arc<dyn Channel>, ConfigError> {
    let wrong =
        |path: &str, message: &str| ConfigError { path: path.to_owned(), message: message.to_owned() };
    let config: Config = serde_json::from_value(config).map_err(|error| wrong("", &error.to_string()))?;
    let mut keys = Vec::new();
    let secrets = [
        ("signing_secret", Some(&config.signing_secret)),
        ("other_signing_secret", config.other_signing_secret.as_ref()),
    ];
    for (path, secret) in secrets {
        if let Some(secret) = secret {
            keys.push(signature::key_of(secret).map_err(|message| wrong(path, message))?);
        }
    }
    let mut headers = HeaderMap::new();
    for (name, value) in &config.headers {
        let path = format!("headers.{name}");
        let parsed: HeaderName = name.parse().map_err(|_| wrong(&path, "is no name of a header"))?;
        let own = ["host", "content-length", "content-type", "transfer-encoding", "connection", "te"];
        if own.contains(&parsed.as_str()) || parsed.as_str().starts_with("webhook-") {
            return Err(wrong(&path, "is set by levin for each message and cannot be given"));
        }
        let value = HeaderValue::from_str(value)
            .map_err(|_| wrong(&path, "holds characters that no header can carry"))?;
        headers.insert(parsed, value);
    }
    let own: Vec<&str> = secrets.iter().filter_map(|(_, secret)| Some(secret.as_ref()?.as_str())).collect();
    let post = Post::new("url", &config.url, config.allow_private_networks, &own, context)?;
    Ok(Arc::new(Webhook { post, keys, headers, events: config.events }))
}

#[async_trait]
impl Channel for Webhook {
    async fn send(&self, notice: &Notice) -> Result<(), Unsent> {
        let body = json!({"type": notice.event, "timestamp": notice.at, "data": notice.data});
        let body = serde_json::to_vec(&body).map_err(|error| Unsent::new(error.to_string()))?;
        let timestamp = Utc::now().timestamp().to_string();
        let signatures: Vec<String> =
            self.keys.iter().map(|key| signature::sign(key, &notice.id, &timestamp, &body)).collect();
        let mut headers = self.headers.clone();
        for (name, text) in [
            ("webhook-id", &notice.id),
            ("webhook-timestamp", &timestamp),
            ("webhook-signature", &signatures.join(" ")),
        ] {
            let value = HeaderValue::from_str(text).map_err(|error| Unsent::new(error.to_string()))?;
            headers.insert(HeaderName::from_static(name), value);
        }
        self.post.json(headers, body).await.map(drop)
    }

    fn takes(&self, event: Event) -> bool {
        self.events.contains(&event)
    }
}
