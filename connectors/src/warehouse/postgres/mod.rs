//! PostgreSQL as a warehouse.

mod decode;
mod encode;

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use bytes::BytesMut;
use futures::{SinkExt, StreamExt, TryStreamExt};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use sql_templates::{Atomicity, Column, Dialect, Expect, Script, Sql, Step, TableRef};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, CopyOutStream, SimpleQueryMessage, Statement};

use self::decode::Decoder;
use super::{
    BatchStream, Canceller, Effect, ErrorKind, Session, StepEffect, Tag, Warehouse, WarehouseError, duration,
};
use crate::catalogue::{BuildContext, ConfigError, SourceConnector};
use crate::postgres_client::{Link, Opener, PostgresConnection, PostgresUrl};

/// The catalogue's entry.
pub static POSTGRES: SourceConnector = SourceConnector {
    name: "postgres",
    title: "PostgreSQL",
    summary: "A PostgreSQL database, version 14 or later. Diffs are computed inside it and rows leave it \
              as binary COPY.",
    dialect: Dialect::Postgres,
    config_schema: || schemars::schema_for!(PostgresConfig),
    build: |config, context| {
        Ok(Arc::new(PostgresWarehouse::new(config, &context.project, context)?) as Arc<dyn Warehouse>)
    },
};

/// Bytes of COPY data that travel as one message.
const COPY_CHUNK_BYTES: usize = 256 << 10;
/// How long a terminated backend may take to be gone.
const TERMINATION_TIMEOUT: Duration = Duration::from_secs(30);

/// A PostgreSQL database as a source.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PostgresConfig {
    /// The address: `postgres://user:password@host:5432/database`, with libpq's parameters, among
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

/// One PostgreSQL database.
#[derive(Debug)]
struct PostgresWarehouse {
    server: Arc<Server>,
}

/// What every session needs to know to open a connection.
#[derive(Debug)]
struct Server {
    url: PostgresUrl,
    statement_timeout: Option<Duration>,
}

impl PostgresWarehouse {
    fn new(config: Value, project: &Path, context: &BuildContext) -> Result<Self, ConfigError> {
        let at = |path: &str, message: String| ConfigError { path: path.to_owned(), message };
        let config: PostgresConfig =
            serde_json::from_value(config).map_err(|e| at(&context.slug, e.to_string()))?;
        let mut url = PostgresUrl::parse(&config.url, project).map_err(|e| at("url", e))?;
        if let Some(text) = &config.connect_timeout {
            url = url.with_connect_timeout(duration::parse(text).map_err(|e| at("connect_timeout", e))?);
        }
        let statement_timeout = config
            .statement_timeout
            .as_deref()
            .map(duration::parse)
            .transpose()
            .map_err(|e| at("statement_timeout", e))?;
        Ok(Self { server: Arc::new(Server { url, statement_timeout }) })
    }
}

#[async_trait]
impl Warehouse for PostgresWarehouse {
    fn dialect(&self) -> Dialect {
        Dialect::Postgres
    }

    fn identity(&self) -> String {
        self.server.url.identity()
    }

    fn role(&self) -> Option<String> {
        self.server.url.role().map(str::to_owned)
    }

    fn database(&self) -> Option<String> {
        self.server.url.database().map(str::to_owned)
    }

    async fn session(&self, tag: &Tag) -> Result<Box<dyn Session>, WarehouseError> {
        let name = format!("levin/{}/{}", tag.sync, tag.stage);
        let link = Link::open(Named { server: self.server.clone(), name }).await?;
        Ok(Box::new(PostgresSession { link }))
    }

    async fn terminate(&self, session_id: &str) -> Result<(), WarehouseError> {
        let not_ours = || {
            WarehouseError::new(ErrorKind::Invalid, format!("{session_id:?} is no session of this warehouse"))
        };
        let (pid, started) = session_id.split_once('@').ok_or_else(not_ours)?;
        let pid: i32 = pid.parse().map_err(|_| not_ours())?;
        let (connection, _) = self.server.open("levin/terminate").await?;
        // A pid comes again; together with its beginning it does not.
        let terminate = format!(
            "select pg_terminate_backend(pid) from pg_stat_activity where pid = $1 and {BACKEND_START} = $2"
        );
        let deadline = Instant::now() + TERMINATION_TIMEOUT;
        loop {
            if connection.client.query(&terminate, &[&pid, &started]).await?.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                let message = format!("the backend {pid} of a dead run does not end; terminate it by hand");
                return Err(WarehouseError::new(ErrorKind::Busy, message));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// How a script begins. A select on its own gives a table's rows as they were written, so sessions have
/// no parallel workers; scripts may have as many as the server grants.
const TRANSACTION: &str = "begin; set local max_parallel_workers_per_gather to default";
const SNAPSHOT: &str =
    "begin isolation level repeatable read; set local max_parallel_workers_per_gather to default";

/// The beginning of a backend, in digits.
const BACKEND_START: &str = "to_char(backend_start at time zone 'UTC', 'YYYYMMDDHH24MISSUS')";

impl Server {
    /// A connection with the session's settings, and its id.
    async fn open(&self, name: &str) -> Result<(PostgresConnection, String), WarehouseError> {
        let connection = self.url.connect(name).await?;
        // Where a database does not know what its bytes mean, the server would fail a whole result over a
        // text that is not UTF-8; asked for plain bytes it hands them out, and the decoder tells.
        // In one message with the question for the id: no more round trips than startup options,
        // which poolers refuse.
        let mut setup = String::from(
            "set intervalstyle = 'iso_8601'; set timezone = 'UTC'; set datestyle = 'ISO'; \
             set synchronize_seqscans = off; set max_parallel_workers_per_gather = 0; set jit = off; \
             set standard_conforming_strings = on; \
             select set_config('client_encoding', 'SQL_ASCII', false) \
             where current_setting('server_encoding') = 'SQL_ASCII'; ",
        );
        if let Some(timeout) = self.statement_timeout {
            setup.push_str(&format!("set statement_timeout = {}; ", timeout.as_millis()));
        }
        setup.push_str(&format!(
            "select pid || '@' || {BACKEND_START} from pg_stat_activity where pid = pg_backend_pid()"
        ));
        let answers = connection.client.simple_query(&setup).await?;
        let id = answers.iter().rev().find_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        let id =
            id.ok_or_else(|| WarehouseError::new(ErrorKind::Other, "the server does not know our session"))?;
        Ok((connection, id))
    }
}

/// Opens connections under a session's name.
#[derive(Debug)]
struct Named {
    server: Arc<Server>,
    name: String,
}

#[async_trait]
impl Opener for Named {
    async fn open(&self) -> Result<(PostgresConnection, Option<String>), WarehouseError> {
        let (connection, id) = self.server.open(&self.name).await?;
        Ok((connection, Some(id)))
    }
}

struct PostgresSession {
    link: Link<Named>,
}

#[async_trait]
impl Session for PostgresSession {
    fn id(&self) -> Option<String> {
        self.link.id()
    }

    async fn describe(&mut self, select: &Sql) -> Result<Vec<Column>, WarehouseError> {
        let described = describe(self.link.begin().await?, select).await;
        self.link.end(described)
    }

    async fn execute(&mut self, script: &Script) -> Result<Effect, WarehouseError> {
        let client = self.link.begin().await?;
        let around = match script.atomicity {
            Atomicity::Snapshot => Some((SNAPSHOT, "commit")),
            Atomicity::Transaction => Some((TRANSACTION, "commit")),
            Atomicity::Rehearsal => Some((SNAPSHOT, "rollback")),
            Atomicity::Separate => None,
        };
        let result = execute(client, script, around).await;
        let lost = matches!(&result, Err(error) if error.kind == ErrorKind::ConnectionLost);
        if result.is_err() && !lost && client.batch_execute("rollback").await.is_err() {
            // Not even undone: the next call gives this connection up, which undoes it.
            return result;
        }
        self.link.end(result)
    }

    async fn query(&mut self, select: &Sql) -> Result<BatchStream<'_>, WarehouseError> {
        let opened = Rows::open(self.link.begin().await?, select).await;
        match opened {
            Ok(rows) => Ok(SessionRows { session: self, rows }.into_stream()),
            Err(error) => self.link.end(Err(error)),
        }
    }

    async fn load(&mut self, table: &TableRef, batches: Vec<RecordBatch>) -> Result<u64, WarehouseError> {
        if batches.iter().all(|b| b.num_rows() == 0) {
            return Ok(0);
        }
        let loaded = load(self.link.begin().await?, table, &batches).await;
        self.link.end(loaded)
    }

    fn canceller(&self) -> Arc<dyn Canceller> {
        self.link.canceller()
    }
}

async fn describe(client: &Client, select: &Sql) -> Result<Vec<Column>, WarehouseError> {
    let statement = client.prepare(select.text()).await?;
    let oids: Vec<u32> = statement.columns().iter().map(|c| c.type_().oid()).collect();
    let modifiers: Vec<i32> = statement.columns().iter().map(tokio_postgres::Column::type_modifier).collect();
    // With the modifier it is what a cast needs; without, what the type map knows: the modifier can
    // stand in the middle of the name, as in `timestamp(3) with time zone`.
    let names = client
        .query(
            "select format_type(oid, modifier), format_type(oid, null) \
             from unnest($1::oid[], $2::int4[]) with ordinality as t(oid, modifier, position) order by position",
            &[&oids, &modifiers],
        )
        .await?;
    statement
        .columns()
        .iter()
        .zip(&names)
        .map(|(column, names)| {
            let (engine_type, plain): (String, String) = (names.try_get(0)?, names.try_get(1)?);
            let fact = Dialect::Postgres.type_fact(&plain).ok_or_else(|| {
                let message =
                    format!("column {:?} is of type {engine_type}, which levin cannot carry", column.name());
                WarehouseError::new(ErrorKind::Unsupported, message)
            })?;
            Ok(Column { name: column.name().to_owned(), engine_type, logical: fact.logical })
        })
        .collect()
}

async fn execute(
    client: &Client,
    script: &Script,
    around: Option<(&str, &str)>,
) -> Result<Effect, WarehouseError> {
    if let Some((opening, _)) = around {
        client.batch_execute(opening).await?;
    }
    let mut effect = Effect::default();
    for step in &script.steps {
        effect.steps.push(run_step(client, step).await.map_err(|e| e.in_step(&step.name))?);
    }
    if let Some((_, closing)) = around {
        client.batch_execute(closing).await?;
    }
    Ok(effect)
}

async fn run_step(client: &Client, step: &Step) -> Result<StepEffect, WarehouseError> {
    let started = Instant::now();
    let mut batches = Vec::new();
    let rows = if step.expect == Expect::Rows {
        let mut rows = Rows::open(client, &step.sql).await?;
        while let Some(batch) = rows.next().await? {
            batches.push(batch);
        }
        batches.iter().map(|b| b.num_rows() as u64).sum()
    } else {
        let mut messages = std::pin::pin!(client.simple_query_raw(step.sql.text()).await?);
        let mut written = 0;
        while let Some(message) = messages.try_next().await? {
            if let SimpleQueryMessage::CommandComplete(rows) = message {
                written += rows;
            }
        }
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

async fn load(client: &Client, table: &TableRef, batches: &[RecordBatch]) -> Result<u64, WarehouseError> {
    let schema = batches[0].schema();
    if batches.iter().any(|b| b.schema().fields() != schema.fields()) {
        return Err(WarehouseError::new(
            ErrorKind::Invalid,
            "batches of one load must have the same columns",
        ));
    }
    let target = format!("{}.{}", quoted(table.schema.name()), quoted(table.name.name()));
    let names: Vec<String> = schema.fields().iter().map(|f| quoted(f.name())).collect();
    let names = names.join(", ");
    let statement = client.prepare(&format!("select {names} from {target} limit 0")).await?;
    let columns = WireColumn::all(&statement);
    encode::check(&columns)?;
    let copy = format!("copy {target} ({names}) from stdin (format binary)");
    // Dropped before its end, the sink tells the server to fail the COPY: all rows or none.
    let mut sink = Box::pin(client.copy_in(copy.as_str()).await?);
    let mut buffer = BytesMut::from(encode::HEADER);
    for batch in batches {
        // A slice at a time, so that memory does not grow with the batch.
        for offset in (0..batch.num_rows()).step_by(1_024) {
            let rows = batch.slice(offset, (batch.num_rows() - offset).min(1_024));
            encode::encode(&rows, &columns, &mut buffer)?;
            if buffer.len() >= COPY_CHUNK_BYTES {
                sink.send(buffer.split().freeze()).await?;
            }
        }
    }
    buffer.extend_from_slice(encode::TRAILER);
    sink.send(buffer.freeze()).await?;
    Ok(sink.as_mut().finish().await?)
}

/// A column as the server sends or takes it.
struct WireColumn {
    name: String,
    wire_type: Type,
}

impl WireColumn {
    fn all(statement: &Statement) -> Vec<Self> {
        let columns = statement.columns().iter();
        columns.map(|c| Self { name: c.name().to_owned(), wire_type: c.type_().clone() }).collect()
    }
}

/// A result on its way.
struct Rows {
    copy: Pin<Box<CopyOutStream>>,
    decoder: Decoder,
    ready: std::vec::IntoIter<RecordBatch>,
    finished: bool,
}

impl Rows {
    async fn open(client: &Client, select: &Sql) -> Result<Self, WarehouseError> {
        let statement = client.prepare(select.text()).await?;
        let decoder = Decoder::new(&WireColumn::all(&statement))?;
        // The line break ends a comment with which the statement may close.
        let copy = client.copy_out(&format!("copy ({}\n) to stdout (format binary)", select.text())).await?;
        Ok(Self { copy: Box::pin(copy), decoder, ready: Vec::new().into_iter(), finished: false })
    }

    async fn next(&mut self) -> Result<Option<RecordBatch>, WarehouseError> {
        loop {
            if let Some(batch) = self.ready.next() {
                return Ok(Some(batch));
            }
            if self.finished {
                return Ok(None);
            }
            match self.copy.next().await.transpose()? {
                Some(piece) => self.ready = self.decoder.push(piece)?.into_iter(),
                None => {
                    self.finished = true;
                    return self.decoder.finish();
                }
            }
        }
    }
}

/// A result that holds its session until it is read to its end; dropped earlier it stops the query.
struct SessionRows<'a> {
    session: &'a mut PostgresSession,
    rows: Rows,
}

impl<'a> SessionRows<'a> {
    fn into_stream(self) -> BatchStream<'a> {
        futures::stream::try_unfold(self, |mut stream| async move {
            match stream.rows.next().await {
                Ok(Some(batch)) => Ok(Some((batch, stream))),
                Ok(None) => stream.session.link.end(Ok(None)),
                // The server's own error ended the statement. One of ours left it running: dropping
                // the stream stops it.
                Err(error) if error.code.is_some() || error.kind == ErrorKind::ConnectionLost => {
                    stream.session.link.end(Err(error))
                }
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

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
