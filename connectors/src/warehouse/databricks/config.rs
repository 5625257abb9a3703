//! A Databricks source as its file says.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use reqwest::Url;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use url::Host;

use super::DatabricksWarehouse;
use super::api::Api;
use super::auth::{Auth, AuthConfig};
use crate::catalogue::{BuildContext, ConfigError};
use crate::http::{HttpClient, HttpSettings, Redactor};
use crate::warehouse::duration;

/// For how long a trouble that may pass is waited out when nobody says otherwise.
const RETRY_FOR: Duration = Duration::from_secs(60);
/// The longest that connecting may take is half of it.
const CONNECT: Duration = Duration::from_secs(20);

/// A catalog in a Databricks workspace as a source.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DatabricksConfig {
    /// The workspace's address: `https://dbc-1234.cloud.databricks.com`. `http://` on this machine only.
    host: String,
    /// The id of the SQL warehouse that computes; it stands in the warehouse's connection details.
    warehouse_id: String,
    /// The catalog of the models and of levin's schemas, in Unity Catalog.
    catalog: String,
    /// The schema in which models find tables that they name without one.
    #[serde(default)]
    schema: Option<String>,
    /// How levin proves who it is.
    auth: AuthConfig,
    /// The longest that one statement may run: `30s`, `10m`, `2h`. The wait for a warehouse that wakes up counts.
    #[serde(default)]
    statement_timeout: Option<String>,
    /// For how long a trouble of the network or of Databricks' side is waited out: `60s` unless said otherwise.
    #[serde(default)]
    retry_for: Option<String>,
}

fn refused(path: &str, message: impl Into<String>) -> ConfigError {
    ConfigError { path: path.to_owned(), message: message.into() }
}

impl DatabricksWarehouse {
    pub(super) fn new(config: Value, context: &BuildContext) -> Result<Self, ConfigError> {
        let config: DatabricksConfig =
            serde_json::from_value(config).map_err(|e| refused(&context.slug, e.to_string()))?;
        let base = address(config.host.trim())?;
        let id = config.warehouse_id.trim().to_owned();
        if id.is_empty() || !id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            let message = "must be the id alone, as `1a2b3c4d5e6f7890`: the end of the warehouse's HTTP path";
            return Err(refused("warehouse_id", message));
        }
        for (path, name) in [("catalog", Some(&config.catalog)), ("schema", config.schema.as_ref())] {
            if name.is_some_and(|name| name.trim().is_empty()) {
                return Err(refused(path, "is empty"));
            }
        }
        let span = |path: &str, text: Option<&str>| {
            text.map(duration::parse).transpose().map_err(|e| refused(path, e))
        };
        let auth = Auth::new(config.auth, &base)?;
        let secrets: Vec<String> = context.secrets.iter().cloned().chain(auth.secrets()).collect();
        let http = HttpClient::new(HttpSettings {
            timeout: CONNECT,
            // A private link, a double: where a workspace is, is its owner's business.
            allow_private_networks: true,
            redactor: Redactor::new(&secrets),
        })
        .map_err(|e| refused("host", e))?;
        let api = Api {
            http,
            base,
            auth,
            warehouse_id: id,
            catalog: config.catalog,
            schema: config.schema,
            statement_timeout: span("statement_timeout", config.statement_timeout.as_deref())?,
            retry_for: span("retry_for", config.retry_for.as_deref())?.unwrap_or(RETRY_FOR),
            answered: AtomicBool::new(false),
        };
        Ok(Self { api: Arc::new(api) })
    }
}

/// A workspace's address; `https://` where nobody says otherwise.
fn address(written: &str) -> Result<Url, ConfigError> {
    let whole = if written.contains("://") { written.to_owned() } else { format!("https://{written}") };
    let url: Url = whole.parse().map_err(|e| refused("host", format!("is no address: {e}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(refused("host", "must begin with https://"));
    }
    let more = !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some();
    if more || !url.username().is_empty() || url.password().is_some() {
        let message = "holds more than the workspace's address; write https://dbc-1234.cloud.databricks.com";
        return Err(refused("host", message));
    }
    if url.scheme() == "http" && !is_loopback(&url) {
        return Err(refused("host", "would carry tokens unencrypted to another machine; write https://"));
    }
    Ok(url)
}

pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::json;

    use super::super::DATABRICKS;
    use super::*;
    use crate::warehouse::Warehouse;

    fn build(config: Value) -> Result<Arc<dyn Warehouse>, ConfigError> {
        let context =
            BuildContext { slug: "wh".into(), project: PathBuf::from("/project"), secrets: Vec::new() };
        (DATABRICKS.build)(config, &context)
    }

    fn with(changes: Value) -> Value {
        let mut config = json!({
            "host": "https://dbc-1234.cloud.databricks.com", "warehouse_id": "abc123", "catalog": "main",
            "auth": {"token": "dapi-secret"},
        });
        for (key, value) in changes.as_object().unwrap() {
            config[key] = value.clone();
        }
        config
    }

    #[test]
    fn a_source_is_built_from_its_file() {
        let plain = build(with(json!({}))).unwrap();
        assert_eq!(plain.identity(), "databricks://dbc-1234.cloud.databricks.com/main");
        assert_eq!((plain.role(), plain.database()), (None, Some("main".to_owned())));
        assert!(!format!("{plain:?}").contains("dapi-secret"));
        let full = build(with(json!({
            "host": "http://127.0.0.1:8443/", "schema": "shop", "statement_timeout": "10m", "retry_for": "5s",
            "auth": {"client_id": "1234-5678", "client_secret": "hush"},
        })))
        .unwrap();
        assert_eq!(full.identity(), "databricks://127.0.0.1:8443/main");
        assert_eq!(full.role().as_deref(), Some("1234-5678"));
        assert!(!format!("{full:?}").contains("hush"));
        let bare = build(with(json!({"host": "dbc-1234.cloud.databricks.com"}))).unwrap();
        assert_eq!(bare.identity(), plain.identity());
    }

    #[test]
    fn mistakes_in_the_file_are_refused_where_they_stand() {
        for (changes, path) in [
            (json!({"warehouse": "x"}), "wh"),
            (json!({"host": "http://dbc-1234.cloud.databricks.com"}), "host"),
            (json!({"host": "https://dbc-1234.cloud.databricks.com/sql/warehouses"}), "host"),
            (json!({"host": "https://u:p@dbc-1234.cloud.databricks.com"}), "host"),
            (json!({"host": "ftp://x"}), "host"),
            (json!({"host": ""}), "host"),
            (json!({"warehouse_id": "/sql/1.0/warehouses/abc"}), "warehouse_id"),
            (json!({"warehouse_id": ""}), "warehouse_id"),
            (json!({"catalog": ""}), "catalog"),
            (json!({"schema": " "}), "schema"),
            (json!({"auth": {}}), "auth"),
            (json!({"auth": {"token": " "}}), "auth.token"),
            (json!({"auth": {"token": "t", "client_id": "i"}}), "auth"),
            (json!({"auth": {"client_id": "i"}}), "auth.client_secret"),
            (json!({"auth": {"client_secret": "s"}}), "auth.client_id"),
            (json!({"auth": {"client_id": "", "client_secret": "s"}}), "auth.client_id"),
            (json!({"auth": {"password": "p"}}), "wh"),
            (json!({"statement_timeout": "soon"}), "statement_timeout"),
            (json!({"retry_for": "0s"}), "retry_for"),
        ] {
            let error = build(with(changes.clone())).unwrap_err();
            assert_eq!(error.path, path, "{changes}: {error}");
            assert!(!error.message.is_empty());
        }
    }

    #[test]
    fn the_schema_describes_every_key() {
        let schema = (DATABRICKS.config_schema)().to_value();
        let keys = schema["properties"].as_object().unwrap();
        assert!(keys.len() > 6);
        for (key, described) in keys {
            assert!(described["description"].is_string(), "{key}");
        }
        assert_eq!(schema["additionalProperties"], json!(false));
        assert_eq!(schema["required"], json!(["host", "warehouse_id", "catalog", "auth"]));
    }
}
