//! What levin can talk to: one line per source, destination, channel and hook, read by configuration,
//! validation, documentation and conformance alike.

use std::path::PathBuf;
use std::sync::Arc;

use schemars::Schema;
use serde_json::Value;
use sql_templates::Dialect;

use crate::change::{Mode, OnRemoved};
use crate::channel::{Channel, email, pagerduty, slack, webhook};
use crate::destination::{self, Destination};
use crate::hook::{Hook, dbt_cloud, fivetran, signed};
use crate::warehouse::{Warehouse, bigquery, databricks, duckdb, mariadb, postgres, redshift, snowflake};

/// Every kind of source.
pub static SOURCES: &[&SourceConnector] = &[
    &bigquery::BIGQUERY,
    &databricks::DATABRICKS,
    &duckdb::DUCKDB,
    &mariadb::MARIADB,
    &postgres::POSTGRES,
    &redshift::REDSHIFT,
    &snowflake::SNOWFLAKE,
];

/// Every kind of destination.
pub static DESTINATIONS: &[&DestinationConnector] =
    &[&destination::files::FILES, &destination::http_request::HTTP_REQUEST, &destination::postgres::POSTGRES];

/// Every kind of channel.
pub static CHANNELS: &[&ChannelConnector] =
    &[&email::EMAIL, &pagerduty::PAGERDUTY, &slack::SLACK, &webhook::WEBHOOK];

/// Every kind of hook.
pub static HOOKS: &[&HookConnector] = &[&dbt_cloud::DBT_CLOUD, &fivetran::FIVETRAN, &signed::SIGNED];

/// Everything the house knows about a kind of source.
#[derive(Debug)]
pub struct SourceConnector {
    /// The word in `type:`.
    pub name: &'static str,
    /// What a person calls it.
    pub title: &'static str,
    /// One or two sentences.
    pub summary: &'static str,
    /// The dialect in which its statements are rendered.
    pub dialect: Dialect,
    /// JSON Schema of the source file's own keys; `"x-secret": true` marks a key that holds a secret.
    pub config_schema: fn() -> Schema,
    /// Makes the live warehouse from a checked file. Opens no connection.
    pub build: fn(Value, &BuildContext) -> Result<Arc<dyn Warehouse>, ConfigError>,
}

/// Everything the house knows about a kind of destination: the one entry of the catalogue that
/// configuration, validation, documentation and conformance read.
#[derive(Debug)]
pub struct DestinationConnector {
    /// The word in `type:`.
    pub name: &'static str,
    /// What a person calls it.
    pub title: &'static str,
    /// One or two sentences: what it does with rows, and what it promises.
    pub summary: &'static str,
    /// Modes it can do.
    pub modes: &'static [Mode],
    /// What it can do with removed rows, beside nothing.
    pub on_removed: &'static [OnRemoved],
    /// Whether its syncs must name an `object`.
    pub needs_object: bool,
    /// Whether rows travel whole: then every column of the model counts in the diff, mapped or not.
    pub whole_rows: bool,
    /// Whether outcomes come only when a delivery is closed and nothing of it is visible before.
    pub deferred: bool,
    /// JSON Schema of the destination file's own keys; `"x-secret": true` marks a key that holds a secret.
    pub config_schema: fn() -> Schema,
    /// JSON Schema of the keys that it adds to a sync file.
    pub options_schema: fn() -> Schema,
    /// Makes the live destination from a checked file. Opens no connection.
    pub build: fn(Value, &BuildContext) -> Result<Arc<dyn Destination>, ConfigError>,
}

/// Everything the house knows about a kind of channel.
#[derive(Debug)]
pub struct ChannelConnector {
    /// The word in `type:`.
    pub name: &'static str,
    /// What a person calls it.
    pub title: &'static str,
    /// One or two sentences.
    pub summary: &'static str,
    /// JSON Schema of the channel file's own keys; `"x-secret": true` marks a key that holds a secret.
    pub config_schema: fn() -> Schema,
    /// Makes the live channel from a checked file. Opens no connection.
    pub build: fn(Value, &BuildContext) -> Result<Arc<dyn Channel>, ConfigError>,
}

/// Everything the house knows about a kind of hook.
#[derive(Debug)]
pub struct HookConnector {
    /// The word in `type:`; schedules that wait for such messages have it as their key.
    pub name: &'static str,
    /// What a person calls it.
    pub title: &'static str,
    /// One or two sentences.
    pub summary: &'static str,
    /// JSON Schema of the hook file's own keys; `"x-secret": true` marks a key that holds a secret.
    pub config_schema: fn() -> Schema,
    /// Makes the live hook from a checked file.
    pub build: fn(Value, &BuildContext) -> Result<Arc<dyn Hook>, ConfigError>,
}

/// What a connector may know of the project it is built for.
#[derive(Debug, Clone)]
pub struct BuildContext {
    /// The slug of the object, for messages.
    pub slug: String,
    /// The project's folder; relative paths start here.
    pub project: PathBuf,
    /// Texts that must appear in no message, log or exchange.
    pub secrets: Vec<String>,
}

/// A value in an object's file, or in a sync's options, that the schema could not refuse but
/// the connector does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct ConfigError {
    /// Where in the file: `auth.bearer`, `each.path`.
    pub path: String,
    /// What is wrong, and what would be right.
    pub message: String,
}
