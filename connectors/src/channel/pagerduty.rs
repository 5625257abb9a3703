//! PagerDuty, through version 2 of its Events API.

use std::sync::Arc;

use async_trait::async_trait;
use reqwest::header::HeaderMap;
use schemars::{JsonSchema, schema_for};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Channel, Notice, Post, Severity, Unsent, cut};
use crate::catalogue::{BuildContext, ChannelConnector, ConfigError};

/// The catalogue's line.
pub static PAGERDUTY: ChannelConnector = ChannelConnector {
    name: "pagerduty",
    title: "PagerDuty",
    summary: "Opens an incident when an alert is raised and resolves it when the alert is over. One alert is one incident, \
              whatever its severity.",
    config_schema: || schema_for!(Config),
    build,
};

/// The most characters of a summary.
const MOST: usize = 1_024;

fn default_endpoint() -> String {
    "https://events.pagerduty.com/v2/enqueue".to_owned()
}

/// The channel's file. Not `Debug`: it holds secrets.
#[derive(Clone, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Config {
    /// The integration key of a service (Events API v2).
    #[schemars(extend("x-secret" = true))]
    routing_key: String,
    /// Where events are sent to; `https://events.eu.pagerduty.com/v2/enqueue` for accounts in the EU.
    #[serde(default = "default_endpoint")]
    endpoint: String,
    /// Allows loopback, private and link-local addresses, which are refused otherwise.
    #[serde(default)]
    allow_private_networks: bool,
}

/// The channel. Not `Debug` by derivation: it holds a secret.
struct Pagerduty {
    post: Post,
    routing_key: String,
}

impl std::fmt::Debug for Pagerduty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pagerduty").finish_non_exhaustive()
    }
}

fn build(config: Value, context: &BuildContext) -> Result<Arc<dyn Channel>, ConfigError> {
    let wrong = |path: &str, message: String| ConfigError { path: path.to_owned(), message };
    let config: Config = serde_json::from_value(config).map_err(|error| wrong("", error.to_string()))?;
    if config.routing_key.trim().is_empty() {
        return Err(wrong("routing_key", "is empty".to_owned()));
    }
    let own = [config.routing_key.as_str()];
    let post = Post::new("endpoint", &config.endpoint, config.allow_private_networks, &own, context)?;
    Ok(Arc::new(Pagerduty { post, routing_key: config.routing_key }))
}

#[async_trait]
impl Channel for Pagerduty {
    async fn send(&self, notice: &Notice) -> Result<(), Unsent> {
        let details: Map<String, Value> =
            notice.facts.iter().map(|(name, text)| (name.clone(), json!(text))).collect();
        let mut body = json!({
            "routing_key": self.routing_key,
            "event_action": if notice.severity == Severity::Ok { "resolve" } else { "trigger" },
            "dedup_key": notice.thread,
        });
        if notice.severity != Severity::Ok {
            body["payload"] = json!({
                "summary": cut(&notice.title, MOST),
                "source": "levin",
                "severity": notice.severity,
                "timestamp": notice.at,
                "component": notice.data["sync"]["slug"],
                "group": notice.data["project"],
                "class": notice.data["rule"],
                "custom_details": {"facts": details, "next": notice.steps},
            });
        }
        let body = serde_json::to_vec(&body).map_err(|error| Unsent::new(error.to_string()))?;
        self.post.json(HeaderMap::new(), body).await.map(drop)
    }
}
