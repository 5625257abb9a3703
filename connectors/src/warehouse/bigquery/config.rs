//! A BigQuery source as its file says.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use reqwest::Url;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::OnceCell;
use url::Host;

use super::api::Api;
use super::auth::{Auth, AuthConfig};
use super::{BigqueryWarehouse, Shared};
use crate::catalogue::{BuildContext, ConfigError};
use crate::http::{HttpClient, HttpSettings, Redactor};
use crate::warehouse::duration;

/// Where BigQuery is.
const ENDPOINT: &str = "https://bigquery.googleapis.com";
/// For how long a trouble that may pass is waited out when nobody says otherwise.
const RETRY_FOR: Duration = Duration::from_secs(60);
/// The longest that connecting may take is half of it.
const CONNECT: Duration = Duration::from_secs(20);

/// A project in Google BigQuery as a source.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BigqueryConfig {
    /// The project in which jobs run and are billed; models may read tables of others.
    project: String,
    /// Where the datasets are: `EU`, `US`, `europe-west3`. Without it BigQuery goes by the tables that a statement names, and
    /// levin makes no datasets.
    #[serde(default)]
    location: Option<String>,
    /// Another address of BigQuery: a private endpoint, an emulator. `http://` on this machine only, or without credentials.
    #[serde(default)]
    endpoint: Option<String>,
    /// Who asks: `adc` (unless said otherwise), `none`, or one of the files.
    #[serde(default)]
    auth: AuthConfig,
    /// A service account as which statements run. Who asks must be allowed to create tokens of it.
    #[serde(default)]
    impersonate: Option<String>,
    /// The dataset in which models find tables that they name without one.
    #[serde(default)]
    dataset: Option<String>,
    /// The most that one statement may be billed for: `100GB`, `1TB`, or a number of bytes. A statement that would read
    /// more is refused by BigQuery and costs nothing.
    #[serde(default)]
    maximum_bytes_billed: Option<BytesText>,
    /// The longest that one statement may run: `30s`, `10m`, `2h`.
    #[serde(default)]
    statement_timeout: Option<String>,
    /// For how long a trouble of the network or of Google's side is waited out: `60s` unless said otherwise.
    #[serde(default)]
    retry_for: Option<String>,
}

/// An amount of bytes, as a number or with a unit.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum BytesText {
    /// Bytes.
    Number(u64),
    /// A number and a unit.
    Text(String),
}

impl BytesText {
    fn bytes(&self) -> Option<u64> {
        let text = match self {
            Self::Number(bytes) => return Some(*bytes).filter(|b| *b > 0),
            Self::Text(text) => text.trim(),
        };
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let factor: u64 = match unit.trim().to_lowercase().as_str() {
            "" | "b" => 1,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            "kib" => 1 << 10,
            "mib" => 1 << 20,
            "gib" => 1 << 30,
            "tib" => 1 << 40,
            _ => return None,
        };
        number
            .parse::<u64>()
            .ok()?
            .checked_mul(factor)
            .filter(|bytes| *bytes > 0 && i64::try_from(*bytes).is_ok())
    }
}

fn refused(path: &str, message: impl Into<String>) -> ConfigError {
    ConfigError { path: path.to_owned(), message: message.into() }
}

/// Text that may stand in a path: what Google allows in such names.
fn checked(path: &str, text: &str, also: &str) -> Result<(), ConfigError> {
    let fits = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || also.contains(c));
    if fits { Ok(()) } else { Err(refused(path, format!("{text:?} is no such name in Google Cloud"))) }
}

impl BigqueryWarehouse {
    pub(super) fn new(config: Value, context: &BuildContext) -> Result<Self, ConfigError> {
        let config: BigqueryConfig =
            serde_json::from_value(config).map_err(|e| refused(&context.slug, e.to_string()))?;
        checked("project", &config.project, "-_.:")?;
        if let Some(location) = &config.location {
            checked("location", location, "-")?;
        }
        if let Some(dataset) = &config.dataset {
            checked("dataset", dataset, "_-")?;
        }
        if let Some(account) = &config.impersonate {
            checked("impersonate", account, "-_.@:")?;
        }
        let written = config.endpoint.as_deref().unwrap_or(ENDPOINT);
        let endpoint: Url =
            written.parse().map_err(|e| refused("endpoint", format!("is no address: {e}")))?;
        if !matches!(endpoint.scheme(), "http" | "https") || endpoint.host().is_none() {
            return Err(refused("endpoint", "must begin with https:// or http://"));
        }
        if !endpoint.username().is_empty() || endpoint.password().is_some() || endpoint.query().is_some() {
            return Err(refused("endpoint", "holds more than an address; use `auth` for credentials"));
        }
        if endpoint.scheme() == "http" && !is_loopback(&endpoint) && !matches!(config.auth, AuthConfig::None)
        {
            return Err(refused(
                "endpoint",
                "would carry tokens unencrypted to another machine; write https://, or `auth: none`",
            ));
        }
        let span = |path: &str, text: Option<&str>| {
            text.map(duration::parse).transpose().map_err(|e| refused(path, e))
        };
        let maximum_bytes_billed = match &config.maximum_bytes_billed {
            None => None,
            Some(text) => Some(text.bytes().ok_or_else(|| {
                refused(
                    "maximum_bytes_billed",
                    "is no amount; write it like 100GB, 1TB, or a number of bytes",
                )
            })?),
        };
        let redactor = Redactor::new(&context.secrets);
        let settings = HttpSettings {
            timeout: CONNECT,
            // Whoever names another address means it; Google's own is a public one.
            allow_private_networks: config.endpoint.is_some(),
            redactor: redactor.clone(),
        };
        let http = HttpClient::new(settings).map_err(|e| refused("endpoint", e))?;
        let auth = Auth::new(&config.auth, config.impersonate.clone(), redactor)?;
        let api = Api {
            http,
            endpoint,
            project: config.project,
            location: config.location,
            auth,
            retry_for: span("retry_for", config.retry_for.as_deref())?.unwrap_or(RETRY_FOR),
            answered: AtomicBool::new(false),
        };
        let shared = Shared {
            api,
            dataset: config.dataset,
            maximum_bytes_billed,
            statement_timeout: span("statement_timeout", config.statement_timeout.as_deref())?,
            proven: OnceCell::new(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

fn is_loopback(url: &Url) -> bool {
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

    use super::super::BIGQUERY;
    use super::*;
    use crate::warehouse::Warehouse;

    fn build(config: Value) -> Result<Arc<dyn Warehouse>, ConfigError> {
        let context =
            BuildContext { slug: "wh".into(), project: PathBuf::from("/project"), secrets: Vec::new() };
        (BIGQUERY.build)(config, &context)
    }

    const KEY: &str = r#"{"type":"service_account","client_email":"levin@p.iam.gserviceaccount.com","private_key":"k","private_key_id":"1"}"#;

    #[test]
    fn a_source_is_built_from_its_file() {
        let plain = build(json!({"project": "my-project"})).unwrap();
        assert_eq!(plain.identity(), "bigquery.googleapis.com/my-project");
        assert_eq!((plain.role(), plain.database()), (None, Some("my-project".to_owned())));
        assert_eq!(plain.page_rows(), Some(100_000));
        let full = build(json!({
            "project": "example.com:p", "location": "europe-west3", "endpoint": "http://127.0.0.1:9050",
            "auth": {"service_account": KEY}, "dataset": "shop", "maximum_bytes_billed": "100GB",
            "statement_timeout": "10m", "retry_for": "5s",
        }))
        .unwrap();
        assert_eq!(full.identity(), "127.0.0.1:9050/example.com:p");
        assert_eq!(full.role().as_deref(), Some("levin@p.iam.gserviceaccount.com"));
        let other =
            build(json!({"project": "p", "auth": "adc", "impersonate": "x@p.iam.gserviceaccount.com"}))
                .unwrap();
        assert_eq!(other.role().as_deref(), Some("x@p.iam.gserviceaccount.com"));
        assert!(!format!("{full:?}").contains("private_key"));
    }

    #[test]
    fn amounts_of_bytes_have_units() {
        for (text, bytes) in [
            (json!("100GB"), Some(100_000_000_000)),
            (json!("1 TiB"), Some(1 << 40)),
            (json!("1000"), Some(1_000)),
            (json!(5), Some(5)),
            (json!("0"), None),
            (json!("much"), None),
            (json!("-1GB"), None),
            (json!("99999999999TB"), None),
        ] {
            let read: BytesText = serde_json::from_value(text.clone()).unwrap();
            assert_eq!(read.bytes(), bytes, "{text}");
        }
    }

    #[test]
    fn mistakes_in_the_file_are_refused_where_they_stand() {
        for (config, path) in [
            (json!({}), "wh"),
            (json!({"project": "p", "projekt": "q"}), "wh"),
            (json!({"project": "p/../q"}), "project"),
            (json!({"project": ""}), "project"),
            (json!({"project": "p", "location": "EU?x=1"}), "location"),
            (json!({"project": "p", "dataset": "a.b"}), "dataset"),
            (json!({"project": "p", "endpoint": "ftp://x"}), "endpoint"),
            (json!({"project": "p", "endpoint": "https://u:p@x"}), "endpoint"),
            (json!({"project": "p", "endpoint": "http://bigquery.internal"}), "endpoint"),
            (json!({"project": "p", "maximum_bytes_billed": "much"}), "maximum_bytes_billed"),
            (json!({"project": "p", "statement_timeout": "soon"}), "statement_timeout"),
            (json!({"project": "p", "retry_for": "0s"}), "retry_for"),
            (json!({"project": "p", "auth": "password"}), "wh"),
            (json!({"project": "p", "auth": {"service_account": "key.json"}}), "auth.service_account"),
            (
                json!({"project": "p", "auth": {"service_account": "{\"type\":\"authorized_user\"}"}}),
                "auth.service_account",
            ),
            (json!({"project": "p", "auth": {"credentials": "{}"}}), "auth.credentials"),
            (json!({"project": "p", "auth": {"access_token": " "}}), "auth.access_token"),
            (json!({"project": "p", "auth": "none", "impersonate": "x@y"}), "impersonate"),
        ] {
            let error = build(config.clone()).unwrap_err();
            assert_eq!(error.path, path, "{config}: {error}");
            assert!(!error.message.is_empty());
        }
        build(json!({"project": "p", "endpoint": "http://bigquery.internal", "auth": "none"})).unwrap();
    }

    #[test]
    fn the_schema_describes_every_key() {
        let schema = (BIGQUERY.config_schema)().to_value();
        let keys = schema["properties"].as_object().unwrap();
        assert!(keys.len() > 8);
        for (key, described) in keys {
            assert!(described["description"].is_string(), "{key}");
        }
        assert_eq!(schema["additionalProperties"], json!(false));
        assert_eq!(schema["required"], json!(["project"]));
    }
}
