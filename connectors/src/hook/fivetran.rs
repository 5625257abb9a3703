//! Fivetran: webhooks of connectors.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use schemars::{JsonSchema, schema_for};
use serde::Deserialize;
use serde_json::Value;

use super::{HeaderMap, Hook, NotReceived, Received, Said, Secrets, digest, fresh, json, word, wrong};
use crate::catalogue::{BuildContext, ConfigError, HookConnector};

/// The catalogue's line.
pub static FIVETRAN: HookConnector = HookConnector {
    name: "fivetran",
    title: "Fivetran",
    summary: "Takes `sync_end` of Fivetran. A connector that synced successfully starts what has \
              `schedule: {fivetran: {connector: …}}`; other ends start nothing.",
    config_schema: || schema_for!(Config),
    build,
};

/// The hook's file. Not `Debug`: it holds secrets.
#[derive(Clone, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Config {
    /// The secret that the webhook was made with.
    #[schemars(extend("x-secret" = true))]
    secret: String,
    /// Another one that is taken as well, while it is being replaced.
    #[serde(default)]
    #[schemars(extend("x-secret" = true))]
    other_secret: Option<String>,
}

/// The hook.
#[derive(Debug)]
struct Fivetran(Secrets);

fn build(config: Value, _: &BuildContext) -> Result<Arc<dyn Hook>, ConfigError> {
    let config: Config = serde_json::from_value(config).map_err(|error| wrong("", error.to_string()))?;
    Ok(Arc::new(Fivetran(Secrets::of(&config.secret, config.other_secret.as_deref())?)))
}

impl Hook for Fivetran {
    fn receive(&self, headers: &HeaderMap, body: &[u8], now: DateTime<Utc>) -> Result<Received, NotReceived> {
        self.0.admit(headers, "x-fivetran-signature-256", body)?;
        let message = json(body)?;
        let (event, status) = (word(&message["event"]), word(&message["data"]["status"]));
        let said = match event.as_str() {
            "sync_end" if status != "SUCCESSFUL" => {
                Said::Nothing(format!("the connector's sync ended as `{status}`"))
            }
            "sync_end" => match word(&message["connector_id"]) {
                id if id.is_empty() => {
                    return Err(NotReceived::Unreadable("there is no `connector_id`".to_owned()));
                }
                connector => fresh(&message, "created", now, Said::FivetranConnector { connector })?,
            },
            other => Said::Nothing(format!("`{other}` starts nothing; `sync_end` does")),
        };
        // Fivetran names no message, but `created` is in each.
        Ok(Received { id: digest(body), said })
    }
}
