//! Amazon Redshift as a warehouse: PostgreSQL's protocol, and little else of PostgreSQL.

mod decode;
mod load;
mod trouble;

use std::fmt::{self, Debug, Formatter};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use sql_templates::{Atomicity, Column, Dialect, Expect, Script, Sql, Step, TableRef};
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryStream, Statement};

use self::decode::{Decoder, VARBYTE, WireColumn};
use self::trouble::{is_conflict, trouble};
use super::{
    BatchStream, Canceller, Effect, ErrorKind, Session, StepEffect, Tag, Warehouse, WarehouseError, duration,
};
use crate::catalogue::{BuildContext, ConfigError, SourceConnector};
use crate::postgres_client::{Link, Opener, PostgresConnection, PostgresUrl};

/// The catalogue's entry.
pub static REDSHIFT: SourceConnector = SourceConnector {
    name: "redshift",
    title: "Amazon Redshift",
    summary: "An Amazon Redshift database, provisioned or serverless. Diffs are computed inside it and rows leave \
              it through a cursor.",
    dialect: Dialect::Redshift,
    config_schema: || schemars::schema_for!(RedshiftConfig),
    build: |config, context| {
        Ok(Arc::new(RedshiftWarehouse::new(config, &context.project, context)?) as Arc<dyn Warehouse>)
    },
};

/// Where Redshift listens unless told otherwise.
const DEFAULT_PORT: &str = "5439";
/// The most rows that a cluster of a single node hands out of a cursor at once.
const FETCH_ROWS: u64 = 1_000;
/// How often a script is run when others keep writing what it reads. None of the attempts before the last had any effect.
const MOST_CONFLICTS: u32 = 6;
/// What a statement hears whose transaction was ended by an error that we did not see: a question of the client library's.
const ABORTED: &str = "25P02";
/// How long a terminated session may take to be gone.
const TERMINATION_TIMEOUT: Duration = Duration::from_secs(30);

/// A Redshift database as a source.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RedshiftConfig {
    /// The address: `redshift://user:password@host:5439/database` (or `postgres://…`), with libpq's parameters, among
    /// them `sslmode` (`disable`, `allow`, `prefer`, `require`, `verify-ca`, `verify-full`) and `sslrootcert`
    /// (a PEM file, relative to the project, or `system`).
    #[schemars(extend("x-secret" = true))]
    url: String,
    /// The longest that one statement may run: `30s`, `10m`, `2h`. Without it the server's own limit holds.
    #[serde(default)]
    statement_timeout: Option<String>,
    /// How long connecting may take: `10s` unless said otherwise here or in the address.
    #[serde(default)]
    connect_timeout: Option<String>,
}

/// One Redshift database.
#[derive(Debug)]
struct RedshiftWarehouse {
    server: Arc<Server>,
}

/// What every session needs to know to open a connection.
#[derive(Debug)]
struct Server {
    url: PostgresUrl,
    statement_timeout: Option<Duration>,
    /// Some result has bytes, whose type the client library asks the catalogue for, once per connection. Its first
    /// question is for a table that is not there, which ends a transaction: so it is made to ask before one begins.
    has_bytes: AtomicBool,
}

/// The same address in PostgreSQL's words, with the port that it leaves out.
fn as_postgres(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let scheme = if scheme == "redshift" { "postgres" } else { scheme };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    // An address of IPv6 stands in brackets.
    let names_port = host.rsplit_once(']').map_or(host, |(_, behind)| behind).contains(':');
    if names_port || host.is_empty() || path.contains("port=") {
        return format!("{scheme}://{rest}");
    }
    format!("{scheme}://{authority}:{DEFAULT_PORT}{path}")
}

impl RedshiftWarehouse {
    fn new(config: Value, project: &Path, context: &BuildContext) -> Result<Self, ConfigError> {
        let at = |path: &str, message: String| ConfigError { path: path.to_owned(), message };
        let config: RedshiftConfig =
            serde_json::from_value(config).map_err(|e| at(&context.slug, e.to_string()))?;
        let mut url = PostgresUrl::parse(&as_postgres(&config.url), project)
            .map_err(|e| at("url", e.replace("postgres://", "redshift://").replace("5432", "5439")))?;
        if let Some(text) = &config.connect_timeout {
            url = url.with_connect_timeout(duration::parse(text).map_err(|e| at("connect_timeout", e))?);
        }
        let statement_timeout = config
            .statement_timeout
            .as_deref()
            .map(duration::parse)
            .transpose()
            .map_err(|e| at("statement_timeout", e))?;
        let server = Server { url, statement_timeout, has_bytes: AtomicBool::new(false) };
        Ok(Self { server: Arc::new(server) })
    }
}

#[async_trait]
impl Warehouse for RedshiftWarehouse {
    fn dialect(&self) -> Dialect {
        Dialect::Redshift
    }

    fn identity(&self) -> String {
        self.server.url.identity().replacen("postgres://", "redshift://", 1)
    }

    fn role(&self) -> Option<String> {
        self.server.url.role().map(str::to_owned)
    }

    fn database(&self) -> Option<String> {
        self.server.url.database().map(str::to_owned)
    }

    async fn session(&self, tag: &Tag) -> Result<Box<dyn Session>, WarehouseError> {
        let name = format!("levin/{}/{}", tag.sync, tag.stage);
        let group = match tag.run {
            Some(run) => format!("{name}/{run}"),
            None => name.clone(),
        };
        let link = Link::open(Named { server: self.server.clone(), name, group }).await?;
        Ok(Box::new(RedshiftSession { server: self.server.clone(), link }))
    }

    async fn terminate(&self, session_id: &str) -> Result<(), WarehouseError> {
        let not_ours = || {
            WarehouseError::new(ErrorKind::Invalid, format!("{session_id:?} is no session of this warehouse"))
        };
        let (pid, started) = session_id.split_once('@').ok_or_else(not_ours)?;
        let pid: i32 = pid.parse().map_err(|_| not_ours())?;
        if !started.chars().all(|c| c.is_ascii_digit() || " -:.".contains(c)) {
            return Err(not_ours());
        }
        let (connection, _) = self.server.open("levin/terminate", "levin/terminate").await?;
        // A pid comes again; together with its beginning it does not.
        let there =
            format!("select process from stv_sessions where process = {pid} and starttime = '{started}'");
        let deadline = Instant::now() + TERMINATION_TIMEOUT;
        loop {
            let client = &connection.client;
            if first_row(client.simple_query(&there).await.map_err(trouble)?).is_none() {
                return Ok(());
            }
            client.simple_query(&format!("select pg_terminate_backend({pid})")).await.map_err(trouble)?;
            if Instant::now() > deadline {
                let message = format!("the session {pid} of a dead run does not end; terminate it by hand");
                return Err(WarehouseError::new(ErrorKind::Busy, message));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Server {
    /// A connection with the session's settings, and its id where sessions can be looked up: a serverless workgroup has no
    /// such table.
    async fn open(
        &self,
        name: &str,
        group: &str,
    ) -> Result<(PostgresConnection, Option<String>), WarehouseError> {
        let connection = self.url.connect(name).await?;
        // Two digits more than usual: then a double comes back from its text as it was.
        let mut setup = format!(
            "set timezone to 'UTC'; set datestyle to 'ISO'; set extra_float_digits to 2; set query_group to {}",
            load::quoted(group)
        );
        if let Some(timeout) = self.statement_timeout {
            setup.push_str(&format!("; set statement_timeout to {}", timeout.as_millis()));
        }
        connection.client.batch_execute(&setup).await.map_err(trouble)?;
        let own = "select process, starttime from stv_sessions where process = pg_backend_pid()";
        let id = match connection.client.simple_query(own).await {
            Ok(answers) => first_row(answers).map(|cells| cells.join("@")),
            Err(error) if error.as_db_error().is_some() => None,
            Err(error) => return Err(trouble(error)),
        };
        Ok((connection, id))
    }

    /// Tells the client library what bytes are, outside of a transaction.
    async fn teach(&self, client: &Client) -> Result<(), WarehouseError> {
        if self.has_bytes.load(Ordering::Relaxed) {
            client.prepare("select cast(null as varbyte)").await.map_err(trouble)?;
        }
        Ok(())
    }

    fn prepared(&self, statement: Statement) -> Vec<WireColumn> {
        let columns = WireColumn::all(&statement);
        if columns.iter().any(|column| column.oid == VARBYTE) {
            self.has_bytes.store(true, Ordering::Relaxed);
        }
        columns
    }
}

/// Opens connections under a session's names.
#[derive(Debug)]
struct Named {
    server: Arc<Server>,
    name: String,
    group: String,
}

#[async_trait]
impl Opener for Named {
    async fn open(&self) -> Result<(PostgresConnection, Option<String>), WarehouseError> {
        self.server.open(&self.name, &self.group).await
    }
}

struct RedshiftSession {
    server: Arc<Server>,
    link: Link<Named>,
}

impl Debug for RedshiftSession {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedshiftSession").field("id", &self.link.id()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Session for RedshiftSession {
    fn id(&self) -> Option<String> {
        self.link.id()
    }

    async fn describe(&mut self, select: &Sql) -> Result<Vec<Column>, WarehouseError> {
        let described = match self.link.begin().await?.prepare(select.text()).await {
            Ok(statement) => decode::described(&self.server.prepared(statement)),
            Err(error) => Err(trouble(error)),
        };
        self.link.end(described)
    }

    async fn execute(&mut self, script: &Script) -> Result<Effect, WarehouseError> {
        let client = self.link.begin().await?;
        let closing = match script.atomicity {
            // Whatever one asks for, a transaction reads one state of the database.
            Atomicity::Snapshot | Atomicity::Transaction => Some("commit"),
            Atomicity::Rehearsal => Some("rollback"),
            Atomicity::Separate => None,
        };
        let mut attempt = 0;
        loop {
            attempt += 1;
            let result = execute(&self.server, client, script, closing).await;
            let lost = matches!(&result, Err(error) if error.kind == ErrorKind::ConnectionLost);
            if result.is_err() && !lost && client.batch_execute("rollback").await.is_err() {
                // Not even undone: the next call gives this connection up, which undoes it.
                return result;
            }
            let again = closing.is_some() && attempt < MOST_CONFLICTS;
            let unasked = matches!(&result, Err(error) if error.code.as_deref() == Some(ABORTED));
            if again && unasked && !self.server.has_bytes.swap(true, Ordering::Relaxed) {
                continue;
            }
            if !again || !matches!(&result, Err(error) if is_conflict(error)) {
                return self.link.end(result);
            }
            // Two that wait for equally long meet again.
            let most = 50 << attempt;
            tokio::time::sleep(Duration::from_millis(fastrand::u64(most / 2..=most))).await;
        }
    }

    async fn query(&mut self, select: &Sql) -> Result<BatchStream<'_>, WarehouseError> {
        let client = self.link.begin().await?;
        match Rows::open(&self.server, client, select).await {
            Ok(rows) => Ok(SessionRows { session: self, rows }.into_stream()),
            Err(error) if error.kind == ErrorKind::ConnectionLost => self.link.end(Err(error)),
            Err(error) => match client.batch_execute("rollback").await {
                Ok(()) => self.link.end(Err(error)),
                // Left unfinished: the next call gives this connection up.
                Err(_) => Err(error),
            },
        }
    }

    async fn load(&mut self, table: &TableRef, batches: Vec<RecordBatch>) -> Result<u64, WarehouseError> {
        if batches.iter().all(|b| b.num_rows() == 0) {
            return Ok(0);
        }
        let client = self.link.begin().await?;
        let loaded = load::load(client, table, &batches).await;
        let lost = matches!(&loaded, Err(error) if error.kind == ErrorKind::ConnectionLost);
        if loaded.is_err() && !lost && client.batch_execute("rollback").await.is_err() {
            return loaded;
        }
        self.link.end(loaded)
    }

    fn canceller(&self) -> Arc<dyn Canceller> {
        self.link.canceller()
    }
}

async fn execute(
    server: &Server,
    client: &Client,
    script: &Script,
    closing: Option<&str>,
) -> Result<Effect, WarehouseError> {
    if script.steps.iter().any(|step| step.expect == Expect::Rows) {
        server.teach(client).await?;
    }
    if closing.is_some() {
        client.batch_execute("begin").await.map_err(trouble)?;
    }
    let mut effect = Effect::default();
    for step in &script.steps {
        effect.steps.push(run_step(server, client, step).await.map_err(|e| e.in_step(&step.name))?);
    }
    if let Some(closing) = closing {
        client.batch_execute(closing).await.map_err(trouble)?;
    }
    Ok(effect)
}

/// Runs a step; one that returns rows returns few, and needs no cursor.
async fn run_step(server: &Server, client: &Client, step: &Step) -> Result<StepEffect, WarehouseError> {
    let started = Instant::now();
    let mut decoder = match step.expect {
        Expect::Rows => {
            let statement = client.prepare(step.sql.text()).await.map_err(trouble)?;
            Some(Decoder::new(&server.prepared(statement))?)
        }
        _ => None,
    };
    let mut batches = Vec::new();
    let mut rows = 0;
    let mut messages = std::pin::pin!(client.simple_query_raw(step.sql.text()).await.map_err(trouble)?);
    while let Some(message) = messages.try_next().await.map_err(trouble)? {
        match (message, &mut decoder) {
            (SimpleQueryMessage::Row(row), Some(decoder)) => {
                rows += 1;
                batches.extend(decoder.push(&row)?);
            }
            (SimpleQueryMessage::CommandComplete(written), None) => rows += written,
            _ => {}
        }
    }
    if let Some(mut decoder) = decoder {
        batches.extend(decoder.finish()?);
    }
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

/// The cells of the first row, if there is one.
fn first_row(answers: Vec<SimpleQueryMessage>) -> Option<Vec<String>> {
    answers.iter().find_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|i| row.get(i).unwrap_or_default().trim().to_owned()).collect())
        }
        _ => None,
    })
}

/// A result on its way out of a cursor. The next rows are asked for while the last ones arrive.
struct Rows {
    decoder: Decoder,
    arriving: Pin<Box<SimpleQueryStream>>,
    /// How many rows of this FETCH have arrived.
    arrived: u64,
    following: Option<Pin<Box<SimpleQueryStream>>>,
    finished: bool,
}

impl Rows {
    async fn open(server: &Server, client: &Client, select: &Sql) -> Result<Self, WarehouseError> {
        server.teach(client).await?;
        let statement = client.prepare(select.text()).await.map_err(trouble)?;
        let decoder = Decoder::new(&server.prepared(statement))?;
        // The line break ends a comment with which the statement may close.
        let declare = format!("begin; declare levin_rows cursor for {}\n", select.text());
        client.batch_execute(&declare).await.map_err(trouble)?;
        let arriving = fetch(client).await?;
        let following = Some(fetch(client).await?);
        Ok(Self { decoder, arriving, arrived: 0, following, finished: false })
    }

    async fn next(&mut self, client: &Client) -> Result<Option<RecordBatch>, WarehouseError> {
        if self.finished {
            return Ok(None);
        }
        loop {
            match self.arriving.try_next().await.map_err(trouble)? {
                Some(SimpleQueryMessage::Row(row)) => {
                    self.arrived += 1;
                    if let Some(batch) = self.decoder.push(&row)? {
                        return Ok(Some(batch));
                    }
                }
                Some(_) => {}
                // A FETCH that comes back short has found the end, and so has the one behind it.
                None => match self.following.take() {
                    Some(following) => {
                        let short = self.arrived < FETCH_ROWS;
                        self.arriving = following;
                        self.arrived = 0;
                        if !short {
                            self.following = Some(fetch(client).await?);
                        }
                    }
                    None => {
                        self.finished = true;
                        client.batch_execute("commit").await.map_err(trouble)?;
                        return self.decoder.finish();
                    }
                },
            }
        }
    }
}

async fn fetch(client: &Client) -> Result<Pin<Box<SimpleQueryStream>>, WarehouseError> {
    let statement = format!("fetch forward {FETCH_ROWS} from levin_rows");
    Ok(Box::pin(client.simple_query_raw(&statement).await.map_err(trouble)?))
}

/// A result that holds its session until it is read to its end; dropped earlier it stops the query.
struct SessionRows<'a> {
    session: &'a mut RedshiftSession,
    rows: Rows,
}

impl<'a> SessionRows<'a> {
    fn into_stream(self) -> BatchStream<'a> {
        futures::stream::try_unfold(self, |mut stream| async move {
            let next = match stream.session.link.current() {
                Some(client) if !stream.rows.finished => stream.rows.next(client).await,
                _ => return Ok(None),
            };
            match next {
                Ok(batch) => {
                    if stream.rows.finished {
                        stream.session.link.end(Ok(()))?;
                    }
                    Ok(batch.map(|batch| (batch, stream)))
                }
                Err(error) if error.kind == ErrorKind::ConnectionLost => stream.session.link.end(Err(error)),
                // Its transaction stands open: dropping the stream gives the connection up.
                Err(error) => Err(error),
            }
        })
        .boxed()
    }
}

impl Drop for SessionRows<'_> {
    fn drop(&mut self) {
        self.session.link.abandon_unfinished();
    }
}
