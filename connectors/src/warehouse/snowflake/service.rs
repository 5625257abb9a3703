//! The service of one account, and logging in to it.

use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use url::{Host, form_urlencoded};
use uuid::Uuid;

use super::super::{ErrorKind, Tag, WarehouseError};
use super::auth::Credentials;
use super::link::{Tokens, headers};
use super::trouble::{one_line, refused_login};
use super::wire::{self, Answer, Patience, Reply, Request};
use crate::http::HttpClient;

/// What the service takes us for. It sends Arrow only to clients that it knows, and of those one.
const CLIENT: (&str, &str) = ("Go", "1.19.0");
/// A clock that is off by more than this explains a refused token.
const CLOCKS_DIFFER: i64 = 30;
/// The most characters of a query tag.
const TAG_LENGTH: usize = 2_000;

/// One account, and how levin logs in to it.
pub(super) struct Service {
    pub http: HttpClient,
    pub base: Url,
    pub account: String,
    pub user: Option<String>,
    pub credentials: Credentials,
    pub role: Option<String>,
    pub warehouse: Option<String>,
    pub database: String,
    pub schema: Option<String>,
    pub statement_timeout: Option<Duration>,
    pub connect_timeout: Duration,
    pub network_timeout: Duration,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LoggedIn {
    token: Option<String>,
    master_token: Option<String>,
    session_id: Value,
    session_info: Option<SessionInfo>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(clippy::struct_field_names, reason = "the protocol's own words")]
struct SessionInfo {
    database_name: Option<String>,
    schema_name: Option<String>,
    warehouse_name: Option<String>,
}

/// How statements say whose they are, for `query_history`.
pub(super) fn query_tag(tag: &Tag) -> String {
    let text = json!({"app": "levin", "sync": tag.sync, "run": tag.run, "stage": tag.stage}).to_string();
    text.chars().take(TAG_LENGTH).collect()
}

impl Service {
    /// An address of the service.
    pub(super) fn at(&self, path_and_query: &str) -> Url {
        let mut url = self.base.clone();
        let (path, query) = path_and_query
            .split_once('?')
            .map_or((path_and_query, None), |(path, query)| (path, Some(query)));
        url.set_path(path);
        url.set_query(query);
        url
    }

    /// What every session says and compares alike, whatever account and user have set.
    fn parameters(&self, tag: &str) -> Value {
        let mut parameters = json!({
            "QUERY_TAG": tag,
            "GO_QUERY_RESULT_FORMAT": "ARROW",
            // Megabytes; the least that can be asked for.
            "CLIENT_RESULT_CHUNK_SIZE": 48,
            "AUTOCOMMIT": true,
            "TIMEZONE": "UTC",
            "DATE_OUTPUT_FORMAT": "YYYY-MM-DD",
            "TIME_OUTPUT_FORMAT": "HH24:MI:SS.FF9",
            "TIMESTAMP_OUTPUT_FORMAT": "YYYY-MM-DD HH24:MI:SS.FF9 TZHTZM",
            "TIMESTAMP_NTZ_OUTPUT_FORMAT": "YYYY-MM-DD HH24:MI:SS.FF9",
            "TIMESTAMP_LTZ_OUTPUT_FORMAT": "YYYY-MM-DD HH24:MI:SS.FF9 TZHTZM",
            "TIMESTAMP_TZ_OUTPUT_FORMAT": "YYYY-MM-DD HH24:MI:SS.FF9 TZHTZM",
            "BINARY_OUTPUT_FORMAT": "HEX",
            "GEOGRAPHY_OUTPUT_FORMAT": "GeoJSON",
            "GEOMETRY_OUTPUT_FORMAT": "GeoJSON",
            "DATE_INPUT_FORMAT": "AUTO",
            "TIME_INPUT_FORMAT": "AUTO",
            "TIMESTAMP_INPUT_FORMAT": "AUTO",
            // As many as there are.
            "ROWS_PER_RESULTSET": 0,
            "QUOTED_IDENTIFIERS_IGNORE_CASE": false,
            // What a killed process left running writes nothing any more after five minutes.
            "ABORT_DETACHED_QUERY": true,
        });
        if let Some(timeout) = self.statement_timeout {
            parameters["STATEMENT_TIMEOUT_IN_SECONDS"] = json!(timeout.as_secs().max(1));
        }
        parameters
    }

    /// A session. What it was to have and has not is an error here, not in its first statement.
    pub(super) async fn log_in(&self, tag: &str) -> Result<Tokens, WarehouseError> {
        let mut ahead = 0;
        let mut renewed = false;
        loop {
            let (answer, reply) = self.ask_for_session(tag, ahead).await?;
            let code = reply.code();
            let said = reply.message.clone().unwrap_or_default();
            let data = reply.data.unwrap_or_default();
            if let (Some(session), Some(master)) = (data.token, data.master_token) {
                self.http.redactor().learn(&session);
                self.http.redactor().learn(&master);
                let info = data.session_info.unwrap_or_default();
                self.complete(&info)?;
                let id = match data.session_id {
                    Value::String(id) => id,
                    other => other.to_string(),
                };
                return Ok(Tokens { session, master, id, schema: info.schema_name });
            }
            let clock = wire::ahead(&answer).unwrap_or(0);
            let error = refused_login(&code, &self.http.redactor().redact(&said));
            if !renewed && self.credentials.may_be_renewed(&code).await {
                renewed = true;
                let by_clock = matches!(self.credentials, Credentials::KeyPair(_));
                if !by_clock || clock.abs() > CLOCKS_DIFFER {
                    ahead = clock;
                    tracing::warn!(
                        seconds = clock,
                        "Snowflake refuses the login; it is tried again, by Snowflake's clock"
                    );
                    continue;
                }
            }
            return Err(error);
        }
    }

    async fn ask_for_session(
        &self,
        tag: &str,
        ahead: i64,
    ) -> Result<(Answer, Reply<LoggedIn>), WarehouseError> {
        let mut data = Map::new();
        data.insert("CLIENT_APP_ID".to_owned(), json!(CLIENT.0));
        data.insert("CLIENT_APP_VERSION".to_owned(), json!(CLIENT.1));
        data.insert("ACCOUNT_NAME".to_owned(), json!(self.account_name()));
        if let Some(user) = &self.user {
            data.insert("LOGIN_NAME".to_owned(), json!(user));
        }
        let environment =
            json!({"APPLICATION": concat!("levin_", env!("CARGO_PKG_VERSION")), "OS": std::env::consts::OS});
        data.insert("CLIENT_ENVIRONMENT".to_owned(), environment);
        data.insert("SESSION_PARAMETERS".to_owned(), self.parameters(tag));
        let user = self.user.as_deref().unwrap_or_default();
        let now = Utc::now().timestamp() + ahead;
        self.credentials.put_into(&mut data, &self.account, user, now, &self.http).await?;
        let body = Bytes::from(json!({"data": data}).to_string());

        let query = self.session_query();
        let headers = headers("")?;
        let url = || self.at(&format!("/session/v1/login-request?requestId={}&{query}", Uuid::new_v4()));
        let patience =
            Patience { total: self.connect_timeout, attempt: self.connect_timeout, only_listening: true };
        let answer = wire::ask(&self.http, patience, |_, _| Request {
            method: Method::POST,
            url: url(),
            headers: headers.clone(),
            body: body.clone(),
        })
        .await
        .map_err(|silence| {
            let message = format!("Snowflake does not answer at {}: {}", self.base, silence.said());
            WarehouseError::new(ErrorKind::Unreachable, message)
        })?;
        if matches!(answer.status, StatusCode::FORBIDDEN | StatusCode::NOT_FOUND) {
            let shown = wire::shown(&self.http, &self.base, &answer);
            let message = format!(
                "there is no account `{}` here ({shown}); check `account` with its region, and `host`",
                self.account
            );
            return Err(WarehouseError::new(ErrorKind::Unreachable, message));
        }
        let reply = wire::reply(&self.http, &self.base, &answer)?;
        Ok((answer, reply))
    }

    /// What a session is to have, in the address that asks for it.
    fn session_query(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("databaseName", &self.database);
        for (name, value) in
            [("roleName", &self.role), ("warehouse", &self.warehouse), ("schemaName", &self.schema)]
        {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        query.finish()
    }

    /// The account without its region, as login requests name it.
    fn account_name(&self) -> &str {
        self.account.split('.').next().unwrap_or(&self.account)
    }

    /// The service opens a session although a warehouse or database does not exist, or may not be used.
    fn complete(&self, info: &SessionInfo) -> Result<(), WarehouseError> {
        let missing = |kind, what: &str, name: &str, grant: &str| {
            let message = format!(
                "{what} `{name}` does not exist, or the role may not use it; check `{what}`, or let an owner run: \
                 grant usage on {what} {grant} to role {}",
                self.role.as_deref().unwrap_or("…")
            );
            Err(WarehouseError::new(kind, one_line(&message)))
        };
        if let Some(warehouse) = self.warehouse.as_ref().filter(|_| info.warehouse_name.is_none()) {
            return missing(ErrorKind::Permission, "warehouse", warehouse, warehouse);
        }
        if info.database_name.is_none() {
            return missing(ErrorKind::Permission, "database", &self.database, &self.database);
        }
        if let Some(schema) = self.schema.as_ref().filter(|_| info.schema_name.is_none()) {
            return missing(ErrorKind::Permission, "schema", schema, &format!("{}.{schema}", self.database));
        }
        Ok(())
    }
}

/// Where an account's service is.
pub(super) fn base(account: &str, host: Option<&str>) -> Result<Url, String> {
    let text = match host {
        Some(host) if host.contains("://") => host.to_owned(),
        Some(host) => format!("https://{host}"),
        // A host's name has no underscores.
        None => {
            let top = if account.contains(".cn-") { "cn" } else { "com" };
            format!("https://{}.snowflakecomputing.{top}", account.to_lowercase().replace('_', "-"))
        }
    };
    let url: Url = text.parse().map_err(|e| format!("{text:?} is no address ({e})"))?;
    if !may_be_asked(&url) {
        return Err("must begin with https:// (http:// is for this machine only)".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.path() != "/" {
        return Err("must be a host and nothing else: https://xy12345.snowflakecomputing.com".to_owned());
    }
    Ok(url)
}

/// Whether secrets may go there: over TLS, or to this machine.
pub(super) fn may_be_asked(url: &Url) -> bool {
    let here = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    };
    url.scheme() == "https" || (url.scheme() == "http" && here)
}
