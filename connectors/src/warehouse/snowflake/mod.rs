//! Snowflake as a warehouse, over the protocol of its own drivers.

mod auth;
mod decode;
mod key;
mod link;
mod load;
mod rows;
mod service;
mod session;
mod trouble;
mod wire;

use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use sql_templates::Dialect;

use self::auth::{AuthConfig, Credentials};
use self::service::{Service, base, may_be_asked, query_tag};
use self::session::SnowflakeSession;
use super::{ErrorKind, Session, Tag, Warehouse, WarehouseError, duration};
use crate::catalogue::{BuildContext, ConfigError, SourceConnector};
use crate::http::{HttpClient, HttpSettings, Redactor};

/// The catalogue's entry.
pub static SNOWFLAKE: SourceConnector = SourceConnector {
    name: "snowflake",
    title: "Snowflake",
    summary: "A database in a Snowflake account. Diffs are computed by one of its warehouses; rows leave it as Arrow, \
              one chunk at a time.",
    dialect: Dialect::Snowflake,
    config_schema: || schemars::schema_for!(SnowflakeConfig),
    build: |config, context| Ok(Arc::new(SnowflakeWarehouse::new(config, context)?) as Arc<dyn Warehouse>),
};

/// How long logging in may take when nobody says otherwise.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// For how long a request is repeated when nobody says otherwise.
const DEFAULT_NETWORK_TIMEOUT: Duration = Duration::from_secs(300);

/// A Snowflake database as a source.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SnowflakeConfig {
    /// The account: `xy12345.eu-central-1`, or `organization-account`.
    account: String,
    /// Where the account answers, if not at its usual address: a private link, an emulator. `http://` only on this
    /// machine.
    #[serde(default)]
    host: Option<String>,
    /// The user to log in as; only an OAuth token may do without.
    #[serde(default)]
    user: Option<String>,
    /// How levin proves who it is.
    auth: AuthConfig,
    /// The role of sessions; without it the user's default role.
    #[serde(default)]
    role: Option<String>,
    /// The warehouse that computes; without it the user's default warehouse.
    #[serde(default)]
    warehouse: Option<String>,
    /// The database of the models and of levin's schemas.
    database: String,
    /// The schema of tables that models name without one.
    #[serde(default)]
    schema: Option<String>,
    /// The longest that one statement may run: `30s`, `10m`, `2h`. Without it Snowflake's own limit holds.
    #[serde(default)]
    statement_timeout: Option<String>,
    /// How long logging in may take: `60s` unless said otherwise.
    #[serde(default)]
    connect_timeout: Option<String>,
    /// For how long a request is repeated while Snowflake does not answer: `5m` unless said otherwise.
    #[serde(default)]
    network_timeout: Option<String>,
}

/// One database of one account.
struct SnowflakeWarehouse {
    service: Arc<Service>,
}

impl Debug for SnowflakeWarehouse {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnowflakeWarehouse").field("identity", &self.identity()).finish_non_exhaustive()
    }
}

impl SnowflakeWarehouse {
    fn new(config: Value, context: &BuildContext) -> Result<Self, ConfigError> {
        let at = |path: &str, message: String| ConfigError { path: path.to_owned(), message };
        let config: SnowflakeConfig =
            serde_json::from_value(config).map_err(|e| at(&context.slug, e.to_string()))?;
        let account = config.account.trim().to_owned();
        let is_account = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if account.is_empty()
            || !account.chars().all(is_account)
            || account.ends_with(".snowflakecomputing.com")
        {
            let message =
                "must be an account and nothing else: xy12345.eu-central-1, or organization-account";
            return Err(at("account", message.to_owned()));
        }
        let base = base(&account, config.host.as_deref().map(str::trim)).map_err(|e| at("host", e))?;
        let credentials = Credentials::new(config.auth)?;
        let oauth = matches!(credentials, Credentials::Oauth(_) | Credentials::Client(_));
        if config.user.as_deref().unwrap_or_default().is_empty() && !oauth {
            return Err(at("user", "is missing; name the user to log in as".to_owned()));
        }
        if config.database.is_empty() {
            return Err(at("database", "is empty; name the database of the models".to_owned()));
        }
        let span = |key: &str, text: &Option<String>| {
            text.as_deref().map(duration::parse).transpose().map_err(|e| at(key, e))
        };
        let connect_timeout =
            span("connect_timeout", &config.connect_timeout)?.unwrap_or(DEFAULT_CONNECT_TIMEOUT);
        let secrets: Vec<String> = context.secrets.iter().cloned().chain(credentials.secrets()).collect();
        let http = HttpClient::new(HttpSettings {
            timeout: connect_timeout,
            // A private link, an emulator: where a warehouse is, is its owner's business.
            allow_private_networks: true,
            redactor: Redactor::new(&secrets),
        })
        .map_err(|e| at("host", e))?;
        Ok(Self {
            service: Arc::new(Service {
                http,
                base,
                account,
                user: config.user.filter(|user| !user.is_empty()),
                credentials,
                role: config.role,
                warehouse: config.warehouse,
                database: config.database,
                schema: config.schema,
                statement_timeout: span("statement_timeout", &config.statement_timeout)?,
                connect_timeout,
                network_timeout: span("network_timeout", &config.network_timeout)?
                    .unwrap_or(DEFAULT_NETWORK_TIMEOUT),
            }),
        })
    }
}

/// A name as the server has it: folded, unless it is in quotes.
fn folded(name: &str) -> String {
    let inside = name.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inside.map_or_else(|| name.to_uppercase(), |inside| inside.replace("\"\"", "\""))
}

#[async_trait]
impl Warehouse for SnowflakeWarehouse {
    fn dialect(&self) -> Dialect {
        Dialect::Snowflake
    }

    fn identity(&self) -> String {
        format!("snowflake://{}/{}", self.service.account.to_lowercase(), folded(&self.service.database))
    }

    fn role(&self) -> Option<String> {
        self.service.role.as_deref().map(folded)
    }

    fn database(&self) -> Option<String> {
        Some(folded(&self.service.database))
    }

    async fn session(&self, tag: &Tag) -> Result<Box<dyn Session>, WarehouseError> {
        Ok(Box::new(SnowflakeSession::open(self.service.clone(), query_tag(tag)).await?))
    }

    async fn terminate(&self, session_id: &str) -> Result<(), WarehouseError> {
        if session_id.is_empty() || !session_id.bytes().all(|b| b.is_ascii_digit()) {
            let message = format!("{session_id:?} is not the number of a session");
            return Err(WarehouseError::new(ErrorKind::Invalid, message));
        }
        let tag = Tag { sync: String::new(), run: None, stage: "terminate" };
        let mut session = SnowflakeSession::open(self.service.clone(), query_tag(&tag)).await?;
        session.terminate(session_id).await
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
