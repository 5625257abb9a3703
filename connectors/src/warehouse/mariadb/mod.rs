//! MariaDB as a warehouse.

mod decode;

use std::fmt::{self, Debug, Formatter};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::DataType;
use async_trait::async_trait;
use futures::StreamExt;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, Params, QueryResult, SslOpts, TextProtocol, Value};
use schemars::JsonSchema;
use serde::Deserialize;
use sql_templates::{Atomicity, Column, Dialect, Expect, Script, Sql, Step, TableRef};
use url::Url;

use self::decode::{Decoder, engine_type};
use super::{
    BatchStream, Canceller, Effect, ErrorKind, Session, StepEffect, Tag, Warehouse, WarehouseError, duration,
};
use crate::catalogue::{BuildContext, ConfigError, SourceConnector};

/// The catalogue's entry.
pub static MARIADB: SourceConnector = SourceConnector {
    name: "mariadb",
    title: "MariaDB",
    summary: "A MariaDB database, version 10.6 or later. Diffs are computed inside it; its managed schemas \
              are databases of the same server.",
    dialect: Dialect::Mariadb,
    config_schema: || schemars::schema_for!(MariadbConfig),
    build: |config, context| Ok(Arc::new(MariadbWarehouse::new(config, context)?) as Arc<dyn Warehouse>),
};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a terminated connection may take to be gone.
const TERMINATION_TIMEOUT: Duration = Duration::from_secs(30);
/// Values of one insert, the most: the protocol counts them in 16 bits.
const INSERT_VALUES: usize = 60_000;

/// A MariaDB database as a source.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct MariadbConfig {
    /// The address: `mysql://user:password@host:3306/database`. With `?ssl-mode=required` the connection is
    /// encrypted, with `verify-identity` the server's certificate is checked too.
    #[schemars(extend("x-secret" = true))]
    url: String,
    /// The longest that one statement may run: `30s`, `10m`, `2h`. Without it the server's own limit holds.
    #[serde(default)]
    statement_timeout: Option<String>,
}

/// One MariaDB database.
#[derive(Debug)]
struct MariadbWarehouse {
    server: Arc<Server>,
}

/// What every session needs to know to open a connection.
struct Server {
    opts: Opts,
    statement_timeout: Option<Duration>,
}

impl Debug for Server {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("host", &self.opts.ip_or_hostname()).finish_non_exhaustive()
    }
}

impl MariadbWarehouse {
    fn new(config: serde_json::Value, context: &BuildContext) -> Result<Self, ConfigError> {
        let at = |path: &str, message: String| ConfigError { path: path.to_owned(), message };
        let config: MariadbConfig =
            serde_json::from_value(config).map_err(|e| at(&context.slug, e.to_string()))?;
        let opts = options(&config.url).map_err(|e| at("url", e))?;
        let statement_timeout = config
            .statement_timeout
            .as_deref()
            .map(duration::parse)
            .transpose()
            .map_err(|e| at("statement_timeout", e))?;
        Ok(Self { server: Arc::new(Server { opts, statement_timeout }) })
    }
}

/// What an address says. Messages never hold the address, which may hold a password.
fn options(address: &str) -> Result<Opts, String> {
    let mut url = Url::parse(address).map_err(|e| format!("no address: {e}"))?;
    if !matches!(url.scheme(), "mysql" | "mariadb") {
        return Err("an address begins with `mysql://` or `mariadb://`".to_owned());
    }
    if url.path().trim_matches('/').is_empty() {
        return Err("the address names no database: `mysql://user@host/database`".to_owned());
    }
    let mut encryption = None;
    for (name, value) in url.query_pairs() {
        encryption = match (name.as_ref(), value.as_ref()) {
            ("ssl-mode", "disabled") => None,
            ("ssl-mode", "required") => Some(
                SslOpts::default()
                    .with_danger_accept_invalid_certs(true)
                    .with_danger_skip_domain_validation(true),
            ),
            ("ssl-mode", "verify-identity") => Some(SslOpts::default()),
            ("ssl-mode", other) => {
                return Err(format!("ssl-mode={other}: use disabled, required or verify-identity"));
            }
            (other, _) => return Err(format!("the parameter `{other}` is not known; only ssl-mode is")),
        };
    }
    url.set_query(None);
    let address = url.as_str().replacen("mariadb://", "mysql://", 1);
    let opts = Opts::from_url(&address).map_err(|_| "no address of a MariaDB server".to_owned())?;
    Ok(OptsBuilder::from_opts(opts)
        .client_found_rows(true)
        .prefer_socket(false)
        .stmt_cache_size(0)
        .ssl_opts(encryption)
        .into())
}

#[async_trait]
impl Warehouse for MariadbWarehouse {
    fn dialect(&self) -> Dialect {
        Dialect::Mariadb
    }

    fn identity(&self) -> String {
        let opts = &self.server.opts;
        format!(
            "mysql://{}:{}/{}",
            opts.ip_or_hostname(),
            opts.tcp_port(),
            opts.db_name().unwrap_or_default()
        )
    }

    fn role(&self) -> Option<String> {
        self.server.opts.user().map(str::to_owned)
    }

    fn database(&self) -> Option<String> {
        self.server.opts.db_name().map(str::to_owned)
    }

    async fn session(&self, tag: &Tag) -> Result<Box<dyn Session>, WarehouseError> {
        let word =
            |text: &str| text.replace(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_', "_");
        let comment = format!("/* levin/{}/{} */ ", word(&tag.sync), word(tag.stage));
        let (connection, id) = self.server.open().await?;
        let number = Arc::new(Mutex::new(connection.id()));
        Ok(Box::new(MariadbSession {
            canceller: Arc::new(MariadbCanceller { server: self.server.clone(), number }),
            server: self.server.clone(),
            comment,
            connection: Some(connection),
            id,
            unfinished: false,
            lost: false,
        }))
    }

    async fn terminate(&self, session_id: &str) -> Result<(), WarehouseError> {
        let (mut connection, _) = self.server.open().await?;
        let deadline = Instant::now() + TERMINATION_TIMEOUT;
        loop {
            let holder: Option<Option<u32>> =
                connection.exec_first("select is_used_lock(?)", (session_id,)).await.map_err(trouble)?;
            let Some(Some(number)) = holder else { return Ok(()) };
            kill(&mut connection, number, "connection").await?;
            if Instant::now() > deadline {
                let message = format!("the connection {number} of a dead run does not end; kill it by hand");
                return Err(WarehouseError::new(ErrorKind::Busy, message));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Server {
    /// A connection with the session's settings, and its id: the name of a lock that it holds for as long as it
    /// lives. Its number comes again after a restart of the server.
    async fn open(&self) -> Result<(Conn, String), WarehouseError> {
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, Conn::new(self.opts.clone()));
        let mut connection = match connecting.await {
            Ok(connected) => connected.map_err(|e| match trouble(e) {
                e if e.kind == ErrorKind::ConnectionLost => {
                    WarehouseError { kind: ErrorKind::Unreachable, ..e }
                }
                e => e,
            })?,
            Err(_) => {
                let message = format!("the server did not answer within {} s", CONNECT_TIMEOUT.as_secs());
                return Err(WarehouseError::new(ErrorKind::Unreachable, message));
            }
        };
        let id = format!("levin-{}", uuid::Uuid::new_v4().simple());
        // The modes of a server as it is installed, whatever this one has: other modes give a model's text and
        // levin's own another meaning. Hash joins, because what a model returns has no index. A year, the most there is,
        // for whoever reads: a result waits for its destination.
        let mut setup = String::from(
            "set names utf8mb4, session sql_mode = 'STRICT_TRANS_TABLES,STRICT_ALL_TABLES,\
             ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION', time_zone = '+00:00', \
             tx_isolation = 'READ-COMMITTED', join_cache_level = 8, join_buffer_size = 67108864, \
             join_buffer_space_limit = 268435456, net_write_timeout = 31536000",
        );
        if let Some(timeout) = self.statement_timeout {
            setup.push_str(&format!(", max_statement_time = {}", timeout.as_secs_f64()));
        }
        connection.query_drop(setup).await.map_err(trouble)?;
        connection.query_drop(format!("do get_lock('{id}', 0)")).await.map_err(trouble)?;
        Ok((connection, id))
    }
}

/// Ends a connection, or only what it runs.
async fn kill(connection: &mut Conn, number: u32, what: &str) -> Result<(), WarehouseError> {
    match connection.query_drop(format!("kill {what} {number}")).await.map_err(trouble) {
        // It ended before.
        Err(error) if error.code.as_deref() == Some("1094") => Ok(()),
        other => other,
    }
}

/// One connection. After a stream was dropped half read, or a statement's future was dropped, the
/// connection is given up and the next call opens another, under another [`Session::id`].
struct MariadbSession {
    server: Arc<Server>,
    /// Stands before every statement: whose it is.
    comment: String,
    connection: Option<Conn>,
    id: String,
    canceller: Arc<MariadbCanceller>,
    /// A statement was begun and its end was not seen.
    unfinished: bool,
    /// The server, or the way to it, went away. So it stays: what ran is unknown to the session.
    lost: bool,
}

/// Cancels on whatever connection the session has now.
struct MariadbCanceller {
    server: Arc<Server>,
    number: Arc<Mutex<u32>>,
}

impl Debug for MariadbSession {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("MariadbSession").field("id", &self.id).finish_non_exhaustive()
    }
}

impl MariadbSession {
    /// The connection, for a statement that now begins; [`Self::end`] tells that it ended.
    #[expect(clippy::expect_used, reason = "opened above when it was not")]
    async fn begin(&mut self) -> Result<(&mut Conn, &str), WarehouseError> {
        if self.lost {
            let message = "the connection was lost; open another session";
            return Err(WarehouseError::new(ErrorKind::ConnectionLost, message));
        }
        if self.unfinished {
            self.abandon();
        }
        if self.connection.is_none() {
            let (connection, id) = self.server.open().await?;
            *self.canceller.number.lock().unwrap_or_else(PoisonError::into_inner) = connection.id();
            self.id = id;
            self.connection = Some(connection);
        }
        self.unfinished = true;
        Ok((self.connection.as_mut().expect("was opened above"), &self.comment))
    }

    /// The statement ended, well or not, and the connection can take the next if it still stands.
    fn end<T>(&mut self, result: Result<T, WarehouseError>) -> Result<T, WarehouseError> {
        self.unfinished = false;
        self.lost |= matches!(&result, Err(error) if error.kind == ErrorKind::ConnectionLost);
        result
    }

    /// Gives the connection up together with what runs on it, which the server would bring to its end.
    fn abandon(&mut self) {
        self.unfinished = false;
        let Some(connection) = self.connection.take() else { return };
        let (number, server) = (connection.id(), self.server.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                drop(connection);
                if let Ok((mut other, _)) = server.open().await {
                    let _ = kill(&mut other, number, "connection").await;
                    let _ = other.disconnect().await;
                }
            });
        }
    }
}

impl Drop for MariadbSession {
    fn drop(&mut self) {
        if self.unfinished {
            self.abandon();
        }
    }
}

#[async_trait]
impl Session for MariadbSession {
    fn id(&self) -> Option<String> {
        Some(self.id.clone())
    }

    async fn describe(&mut self, select: &Sql) -> Result<Vec<Column>, WarehouseError> {
        let (connection, _) = self.begin().await?;
        let described = describe(connection, select).await;
        self.end(described)
    }

    async fn execute(&mut self, script: &Script) -> Result<Effect, WarehouseError> {
        let (connection, comment) = self.begin().await?;
        let around = match script.atomicity {
            Atomicity::Snapshot => Some((SNAPSHOT, "commit")),
            Atomicity::Transaction => Some(("start transaction", "commit")),
            Atomicity::Rehearsal => Some((SNAPSHOT, "rollback")),
            Atomicity::Separate => None,
        };
        let result = execute(connection, comment, script, around).await;
        let lost = matches!(&result, Err(error) if error.kind == ErrorKind::ConnectionLost);
        if result.is_err() && !lost && connection.query_drop("rollback").await.is_err() {
            // Not even undone: the next call gives this connection up, which undoes it.
            return result;
        }
        self.end(result)
    }

    async fn query(&mut self, select: &Sql) -> Result<BatchStream<'_>, WarehouseError> {
        let (connection, comment) = self.begin().await?;
        let sent = format!("{comment}{}", select.text());
        let decoder = match connection.query_iter(sent).await.map_err(trouble) {
            Ok(rows) => Decoder::new(rows.columns_ref()),
            Err(error) => return self.end(Err(error)),
        };
        let rows = SessionRows { session: self, decoder };
        Ok(futures::stream::try_unfold(rows, |mut rows| async move {
            let read = rows.next().await;
            match read {
                Ok(Some(batch)) => Ok(Some((batch, rows))),
                Ok(None) => rows.session.end(Ok(None)),
                Err(error) => rows.session.end(Err(error)),
            }
        })
        .boxed())
    }

    async fn load(&mut self, table: &TableRef, batches: Vec<RecordBatch>) -> Result<u64, WarehouseError> {
        if batches.iter().all(|b| b.num_rows() == 0) {
            return Ok(0);
        }
        let (connection, comment) = self.begin().await?;
        let loaded = load(connection, comment, table, &batches).await;
        if loaded.is_err() && connection.query_drop("rollback").await.is_err() {
            return loaded;
        }
        self.end(loaded)
    }

    fn canceller(&self) -> Arc<dyn Canceller> {
        self.canceller.clone()
    }
}

#[async_trait]
impl Canceller for MariadbCanceller {
    async fn cancel(&self) -> Result<(), WarehouseError> {
        let number = *self.number.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut connection, _) = self.server.open().await?;
        kill(&mut connection, number, "query").await
    }
}

/// Every select of the transaction reads one state.
const SNAPSHOT: &str =
    "set transaction isolation level repeatable read; start transaction with consistent snapshot";

/// The rows of a result that is under way on the session's connection.
struct SessionRows<'a> {
    session: &'a mut MariadbSession,
    decoder: Decoder,
}

impl SessionRows<'_> {
    async fn next(&mut self) -> Result<Option<RecordBatch>, WarehouseError> {
        let Some(connection) = self.session.connection.as_mut() else { return Ok(None) };
        let mut rows: QueryResult<'_, 'static, TextProtocol> = QueryResult::new(connection);
        while let Some(row) = rows.next().await.map_err(trouble)? {
            if self.decoder.push(row)? {
                break;
            }
        }
        self.decoder.finish()
    }
}

async fn describe(connection: &mut Conn, select: &Sql) -> Result<Vec<Column>, WarehouseError> {
    let statement = connection.prep(select.text()).await.map_err(trouble)?;
    let columns: Result<Vec<Column>, WarehouseError> = statement
        .columns()
        .iter()
        .map(|column| {
            let name = column.name_str().into_owned();
            let engine_type = engine_type(column);
            let plain = engine_type.split('(').next().unwrap_or_default();
            let fact = Dialect::Mariadb.type_fact(plain).ok_or_else(|| {
                let message = format!("column `{name}` is of type {engine_type}, which levin does not know");
                WarehouseError::new(ErrorKind::Unsupported, message)
            })?;
            Ok(Column { logical: fact.logical, name, engine_type })
        })
        .collect();
    connection.close(statement).await.map_err(trouble)?;
    columns
}

async fn execute(
    connection: &mut Conn,
    comment: &str,
    script: &Script,
    around: Option<(&str, &str)>,
) -> Result<Effect, WarehouseError> {
    for opening in around.iter().flat_map(|(opening, _)| opening.split("; ")) {
        connection.query_drop(opening).await.map_err(trouble)?;
    }
    let mut effect = Effect::default();
    for step in &script.steps {
        let done = run_step(connection, comment, step).await.map_err(|e| e.in_step(&step.name))?;
        effect.steps.push(done);
    }
    if let Some((_, closing)) = around {
        connection.query_drop(closing).await.map_err(trouble)?;
    }
    Ok(effect)
}

async fn run_step(connection: &mut Conn, comment: &str, step: &Step) -> Result<StepEffect, WarehouseError> {
    let started = Instant::now();
    let mut batches = Vec::new();
    let mut result = connection.query_iter(format!("{comment}{}", step.sql.text())).await.map_err(trouble)?;
    let rows = if step.expect == Expect::Rows {
        let mut decoder = Decoder::new(result.columns_ref());
        while let Some(row) = result.next().await.map_err(trouble)? {
            if decoder.push(row)? {
                batches.extend(decoder.finish()?);
            }
        }
        batches.extend(decoder.finish()?);
        batches.iter().map(|b| b.num_rows() as u64).sum()
    } else {
        let written = result.affected_rows();
        result.drop_result().await.map_err(trouble)?;
        written
    };
    if step.expect == Expect::OneRow && rows != 1 {
        return Err(WarehouseError::new(
            ErrorKind::Fenced,
            format!("wrote {rows} rows where exactly one was expected: another run has taken over"),
        ));
    }
    Ok(StepEffect {
        name: step.name.clone(),
        rows: Some(rows),
        batches,
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// Appends rows in inserts of many rows each, in one transaction.
async fn load(
    connection: &mut Conn,
    comment: &str,
    table: &TableRef,
    batches: &[RecordBatch],
) -> Result<u64, WarehouseError> {
    let schema = batches[0].schema();
    if batches.iter().any(|b| b.schema().fields() != schema.fields()) {
        return Err(WarehouseError::new(
            ErrorKind::Invalid,
            "batches of one load must have the same columns",
        ));
    }
    let quoted = |name: &str| format!("`{}`", name.replace('`', "``"));
    let names: Vec<String> = schema.fields().iter().map(|f| quoted(f.name())).collect();
    let into = format!(
        "{comment}insert into {}.{} ({}) values ",
        quoted(table.schema.name()),
        quoted(table.name.name()),
        names.join(", ")
    );
    let one = format!("({})", vec!["?"; names.len()].join(", "));
    connection.query_drop("start transaction").await.map_err(trouble)?;
    let mut written = 0;
    for batch in batches {
        let most = (INSERT_VALUES / names.len().max(1)).max(1);
        let mut from = 0;
        while from < batch.num_rows() {
            let rows = most.min(batch.num_rows() - from);
            let mut values = Vec::with_capacity(rows * names.len());
            for row in from..from + rows {
                for column in batch.columns() {
                    values.push(value(column, row)?);
                }
            }
            let insert = format!("{into}{}", vec![one.as_str(); rows].join(", "));
            connection.exec_drop(insert, Params::Positional(values)).await.map_err(trouble)?;
            from += rows;
            written += rows as u64;
        }
    }
    connection.query_drop("commit").await.map_err(trouble)?;
    Ok(written)
}

/// A value in a form that the server turns into the column's type.
fn value(column: &ArrayRef, row: usize) -> Result<Value, WarehouseError> {
    use arrow::array::AsArray;
    use arrow::datatypes::{Float64Type, Int64Type};
    if column.is_null(row) {
        return Ok(Value::NULL);
    }
    Ok(match column.data_type() {
        DataType::Boolean => Value::Int(column.as_boolean().value(row).into()),
        DataType::Int64 => Value::Int(column.as_primitive::<Int64Type>().value(row)),
        DataType::Float64 => Value::Double(column.as_primitive::<Float64Type>().value(row)),
        DataType::Binary => Value::Bytes(column.as_binary::<i32>().value(row).to_vec()),
        _ => {
            let text = arrow::util::display::array_value_to_string(column, row)
                .map_err(|e| WarehouseError::new(ErrorKind::Data, e.to_string()))?;
            Value::Bytes(text.into_bytes())
        }
    })
}

/// The server's words, with a kind to act upon. Codes are those of MariaDB's list of errors.
fn trouble(error: mysql_async::Error) -> WarehouseError {
    use mysql_async::Error;
    match error {
        Error::Server(server) => {
            let kind = server_kind(server.code);
            WarehouseError { kind, message: server.message, code: Some(server.code.to_string()), step: None }
        }
        Error::Io(error) => WarehouseError::new(ErrorKind::ConnectionLost, error.to_string()),
        other => WarehouseError::new(ErrorKind::ConnectionLost, other.to_string()),
    }
}

fn server_kind(code: u16) -> ErrorKind {
    match code {
        1045 | 1698 | 1251 | 1524 => ErrorKind::Authentication,
        1044 | 1142 | 1143 | 1227 | 1370 | 1410 | 1356 => ErrorKind::Permission,
        1040 | 1203 | 1205 | 1213 | 1226 | 1020 => ErrorKind::Busy,
        1049 | 1051 | 1054 | 1146 => ErrorKind::NotFound,
        1007 | 1050 | 1061 => ErrorKind::AlreadyExists,
        1062 => ErrorKind::UniqueViolation,
        1317 => ErrorKind::Cancelled,
        1969 | 3024 => ErrorKind::TookTooLong,
        1053 | 1080 | 1152..=1161 | 1184 | 1927 | 2006 | 2013 => ErrorKind::ConnectionLost,
        1021 | 1037 | 1038 | 1041 | 1114 | 1206 => ErrorKind::OutOfSpace,
        1264 | 1265 | 1292 | 1365 | 1366 | 1367 | 1406 | 1411 | 1441 | 1525 | 1690 | 1916 | 1977 => {
            ErrorKind::Data
        }
        1070 | 1071 | 1117 | 1118 | 1235 => ErrorKind::Unsupported,
        _ => ErrorKind::Invalid,
    }
}
