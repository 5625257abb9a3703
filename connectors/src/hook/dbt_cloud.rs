//! dbt Cloud: webhooks of jobs.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use schemars::{JsonSchema, schema_for};
use serde::Deserialize;
use serde_json::Value;

use super::{HeaderMap, Hook, NotReceived, Received, Said, Secrets, digest, fresh, json, word, wrong};
use crate::catalogue::{BuildContext, ConfigError, HookConnector};

/// The catalogue's line.
pub static DBT_CLOUD: HookConnector = HookConnector {
    name: "dbt_cloud",
    title: "dbt Cloud",
    summary: "Takes `job.run.completed` of dbt Cloud. A job that succeeded starts what has `schedule: {dbt_cloud: {job: …}}`; \
              other ends of jobs start nothing.",
    config_schema: || schema_for!(Config),
    build,
};

/// The status code of a run that succeeded.
const SUCCESS: i64 = 10;

/// The hook's file. Not `Debug`: it holds secrets.
#[derive(Clone, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Config {
    /// The secret that dbt Cloud shows once, when the webhook is made there.
    #[schemars(extend("x-secret" = true))]
    secret: String,
    /// Another one that is taken as well, while it is being replaced.
    #[serde(default)]
    #[schemars(extend("x-secret" = true))]
    other_secret: Option<String>,
}

/// The hook.
#[derive(Debug)]
struct DbtCloud(Secrets);

fn build(config: Value, _: &BuildContext) -> Result<Arc<dyn Hook>, ConfigError> {
    let config: Config = serde_json::from_value(config).map_err(|error| wrong("", error.to_string()))?;
    Ok(Arc::new(DbtCloud(Secrets::of(&config.secret, config.other_secret.as_deref())?)))
}

impl Hook for DbtCloud {
    fn receive(&self, headers: &HeaderMap, body: &[u8], now: DateTime<Utc>) -> Result<Received, NotReceived> {
        self.0.admit(headers, "authorization", body)?;
        let message = json(body)?;
        let id = Some(word(&message["eventId"])).filter(|id| !id.is_empty()).unwrap_or_else(|| digest(body));
        let (event, data) = (word(&message["eventType"]), &message["data"]);
        // `completed` says only that it is over.
        let status = word(&data["runStatus"]);
        let succeeded = match data["runStatusCode"].as_i64() {
            Some(code) => code == SUCCESS,
            None => status.eq_ignore_ascii_case("success"),
        };
        let said = match event.as_str() {
            "job.run.completed" if !succeeded => Said::Nothing(format!("the job's run ended as `{status}`")),
            "job.run.completed" => match word(&data["jobId"]) {
                job if job.is_empty() => {
                    return Err(NotReceived::Unreadable("there is no `data.jobId`".to_owned()));
                }
                job => fresh(
                    &message,
                    "timestamp",
                    now,
                    Said::DbtCloudJob { job, account: word(&message["accountId"]) },
                )?,
            },
            other => Said::Nothing(format!("`{other}` starts nothing; `job.run.completed` does")),
        };
        Ok(Received { id, said })
    }
}
