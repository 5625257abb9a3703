//! DuckDB as a warehouse: a file that is open only while levin works in it.

mod arrow;
mod file;

use std::fmt::{self, Debug, Formatter};
use std::path::absolute;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ::arrow::array::{Array, AsArray, RecordBatch};
use ::arrow::datatypes::Int64Type;
use async_trait::async_trait;
use duckdb::{Connection, Statement};
use futures::StreamExt;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use sql_templates::{Atomicity, Column, Dialect, Expect, Script, Sql, Step, TableRef};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use self::arrow::travelling;
use self::file::{Database, Lease, Location, Running, locked};
use super::{
    BatchStream, Canceller, Effect, ErrorKind, Session, StepEffect, Tag, Warehouse, WarehouseError, duration,
};
use crate::catalogue::{BuildContext, ConfigError, SourceConnector};

/// The catalogue's entry.
pub static DUCKDB: SourceConnector = SourceConnector {
    name: "duckdb",
    title: "DuckDB",
    summary: "A DuckDB file. Diffs are computed inside it; the file is open only while a statement runs, \
              so that other programs can use it in between.",
    dialect: Dialect::Duckdb,
    config_schema: || schemars::schema_for!(DuckdbConfig),
    build: |config, context| Ok(Arc::new(DuckdbWarehouse::new(config, context)?) as Arc<dyn Warehouse>),
};

/// Rows of one bounded read: short enough that the file is soon free again.
const PAGE_ROWS: u64 = 50_000;
/// Batches (of some 2,000 rows) that may wait between engine and reader.
const BATCHES_IN_FLIGHT: usize = 4;
/// How long a session keeps the file open for its next statement. Opening and closing take longer than
/// most statements, and those of a stage follow each other at once.
const NEXT_STATEMENT_WITHIN: Duration = Duration::from_millis(50);
/// How long a file that another process holds is waited for when nobody says otherwise.
const DEFAULT_BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// A DuckDB file as a source.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DuckdbConfig {
    /// The database file, relative to the project. It must exist. `:memory:` is a database that is
    /// empty at the start and gone at the end.
    path: String,
    /// The most memory that DuckDB may take: `512MB`, `4GB`, `60%`. Its own default is 80 % of the machine's.
    #[serde(default)]
    memory_limit: Option<String>,
    /// How many threads DuckDB may use. Its own default is one per core.
    #[serde(default)]
    #[schemars(range(min = 1))]
    threads: Option<u16>,
    /// How long to wait while another process holds the file: `10s` unless said otherwise.
    #[serde(default)]
    busy_timeout: Option<String>,
}

/// One DuckDB database.
#[derive(Debug)]
struct DuckdbWarehouse {
    database: Arc<Database>,
}

impl DuckdbWarehouse {
    fn new(config: Value, context: &BuildContext) -> Result<Self, ConfigError> {
        let at = |path: &str, message: String| ConfigError { path: path.to_owned(), message };
        let config: DuckdbConfig =
            serde_json::from_value(config).map_err(|e| at(&context.slug, e.to_string()))?;
        let location = match config.path.as_str() {
            "" => return Err(at("path", "is empty; name a DuckDB file, or :memory:".into())),
            ":memory:" => Location::Memory(Arc::default()),
            path => {
                let path = context.project.join(path);
                Location::File(absolute(&path).unwrap_or(path))
            }
        };
        if let Some(limit) = config.memory_limit.as_deref().filter(|limit| !is_memory(limit)) {
            return Err(at(
                "memory_limit",
                format!("{limit:?} is no amount of memory; write it like 512MB, 4GB or 60%"),
            ));
        }
        if config.threads == Some(0) {
            return Err(at("threads", "must be at least 1".into()));
        }
        let busy_timeout = match config.busy_timeout.as_deref().map(duration::parse) {
            None => DEFAULT_BUSY_TIMEOUT,
            Some(parsed) => parsed.map_err(|e| at("busy_timeout", e))?,
        };
        let (memory_limit, threads) = (config.memory_limit, config.threads);
        Ok(Self { database: Arc::new(Database { location, memory_limit, threads, busy_timeout }) })
    }
}

#[async_trait]
impl Warehouse for DuckdbWarehouse {
    fn dialect(&self) -> Dialect {
        Dialect::Duckdb
    }

    fn identity(&self) -> String {
        self.database.identity()
    }

    fn page_rows(&self) -> Option<u64> {
        Some(PAGE_ROWS)
    }

    async fn session(&self, _tag: &Tag) -> Result<Box<dyn Session>, WarehouseError> {
        let session = DuckdbSession {
            database: self.database.clone(),
            canceller: Arc::default(),
            kept: Arc::default(),
        };
        // A file that is missing, held or broken shows itself here.
        session.run(|_, _| Ok(())).await?;
        Ok(Box::new(session))
    }

    async fn terminate(&self, _session_id: &str) -> Result<(), WarehouseError> {
        Ok(())
    }
}

/// Holds the file open while it works, and a moment longer.
struct DuckdbSession {
    database: Arc<Database>,
    canceller: Arc<CurrentWork>,
    kept: Arc<Kept>,
}

/// The file as the last statement left it, still open for one that follows at once.
#[derive(Default)]
struct Kept(Mutex<(u64, Option<Lease>)>);

impl Kept {
    fn take(&self) -> Option<Lease> {
        locked(&self.0).1.take()
    }

    /// Keeps it for a moment, on a thread that may block: closing a file does.
    fn keep(self: &Arc<Self>, lease: Lease, runtime: &Handle) {
        let mut kept = locked(&self.0);
        *kept = (kept.0 + 1, Some(lease));
        let (of, weak) = (kept.0, Arc::downgrade(self));
        runtime.spawn(async move {
            tokio::time::sleep(NEXT_STATEMENT_WITHIN).await;
            let late = weak.upgrade().and_then(|kept| {
                let mut kept = locked(&kept.0);
                if kept.0 == of { kept.1.take() } else { None }
            });
            close(late);
        });
    }
}

/// Closes the file, if it was its last user's lease, on a thread that may block.
fn close(lease: Option<Lease>) {
    if let Some(lease) = lease {
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || drop(lease))),
            Err(_) => drop(lease),
        }
    }
}

impl Drop for DuckdbSession {
    fn drop(&mut self) {
        close(self.kept.take());
    }
}

/// What a session does now, if anything.
#[derive(Default)]
struct CurrentWork(Mutex<Arc<Running>>);

/// Stops the work when whoever waits for it goes away.
struct StopOnDrop(Arc<Running>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Debug for DuckdbSession {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("DuckdbSession").field("database", &self.database).finish_non_exhaustive()
    }
}

impl DuckdbSession {
    /// Work that is known to the canceller from now on.
    fn start(&self) -> Arc<Running> {
        let running = Arc::new(Running::default());
        *locked(&self.canceller.0) = running.clone();
        running
    }

    /// Runs work on a connection, on a thread that may block.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection, &Running) -> Result<T, WarehouseError> + Send + 'static,
    ) -> Result<T, WarehouseError> {
        let running = self.start();
        let _stop = StopOnDrop(running.clone());
        let (database, kept, runtime) = (self.database.clone(), self.kept.clone(), Handle::current());
        tokio::task::spawn_blocking(move || {
            let (done, lease) = running.until_its_end(|| {
                let lease = database.lease(kept.take(), &running)?;
                work(lease.connection(), &running).map(|done| (done, lease))
            })?;
            kept.keep(lease, &runtime);
            Ok(done)
        })
        .await
        .map_err(|e| panicked(&e))?
    }
}

#[async_trait]
impl Session for DuckdbSession {
    fn id(&self) -> Option<String> {
        None
    }

    async fn describe(&mut self, select: &Sql) -> Result<Vec<Column>, WarehouseError> {
        let describe = format!("describe {}", select.text());
        self.run(move |connection, _| {
            let mut statement = connection.prepare(&describe).map_err(trouble)?;
            let mut rows = statement.query([]).map_err(trouble)?;
            let mut columns = Vec::new();
            while let Some(row) = rows.next().map_err(trouble)? {
                let name: String = row.get("column_name").map_err(trouble)?;
                let engine_type: String = row.get("column_type").map_err(trouble)?;
                let Some(fact) = Dialect::Duckdb.type_fact(&engine_type) else {
                    let message =
                        format!("column {name:?} is of type {engine_type}, which levin cannot carry");
                    return Err(WarehouseError::new(ErrorKind::Unsupported, message));
                };
                columns.push(Column { name, engine_type, logical: fact.logical });
            }
            Ok(columns)
        })
        .await
    }

    async fn execute(&mut self, script: &Script) -> Result<Effect, WarehouseError> {
        let script = script.clone();
        self.run(move |connection, running| execute(connection, running, &script)).await
    }

    async fn query(&mut self, select: &Sql) -> Result<BatchStream<'_>, WarehouseError> {
        let running = self.start();
        let stop = StopOnDrop(running.clone());
        let (database, select) = (self.database.clone(), select.text().to_owned());
        let kept = self.kept.take();
        let (sender, receiver) = mpsc::channel(BATCHES_IN_FLIGHT);
        let reader = tokio::task::spawn_blocking(move || {
            let read = || -> Result<(), WarehouseError> {
                let lease = database.lease(kept, &running)?;
                stream(lease.connection(), &running, &select, &sender)
                    .map_err(|error| cause(error, lease.connection(), &running, &select))
            };
            // `sender` outlives the lease: when the stream ends, the file is closed.
            let result = running.until_its_end(read);
            drop(sender);
            result
        });
        let mut rows = Rows { receiver, reader: Some(reader), _stop: stop };
        // The first batch now, so that a statement that cannot run fails here.
        let first = rows.next().await?;
        let first = futures::stream::iter(first.map(Ok));
        let rest = futures::stream::try_unfold(rows, |mut rows| async move {
            Ok(rows.next().await?.map(|batch| (batch, rows)))
        });
        Ok(first.chain(rest).boxed())
    }

    async fn load(&mut self, table: &TableRef, batches: Vec<RecordBatch>) -> Result<u64, WarehouseError> {
        let table = table.clone();
        self.run(move |connection, running| {
            transaction(connection, running, true, || load(connection, running, &table, batches))
        })
        .await
    }

    async fn rest(&mut self) {
        let kept = self.kept.take();
        let _ = tokio::task::spawn_blocking(move || drop(kept)).await;
    }

    fn canceller(&self) -> Arc<dyn Canceller> {
        self.canceller.clone()
    }
}

#[async_trait]
impl Canceller for CurrentWork {
    async fn cancel(&self) -> Result<(), WarehouseError> {
        locked(&self.0).cancel();
        Ok(())
    }
}

/// A read under way on another thread.
struct Rows {
    receiver: mpsc::Receiver<RecordBatch>,
    reader: Option<JoinHandle<Result<(), WarehouseError>>>,
    _stop: StopOnDrop,
}

impl Rows {
    async fn next(&mut self) -> Result<Option<RecordBatch>, WarehouseError> {
        if let Some(batch) = self.receiver.recv().await {
            return Ok(Some(batch));
        }
        // No more batches: the reader tells whether that is the end or a failure.
        match self.reader.take() {
            Some(reader) => reader.await.map_err(|e| panicked(&e))?.map(|()| None),
            None => Ok(None),
        }
    }
}

/// Sends what a select returns, until the end or until nobody listens any more.
fn stream(
    connection: &Connection,
    running: &Running,
    select: &str,
    sender: &mpsc::Sender<RecordBatch>,
) -> Result<(), WarehouseError> {
    let mut statement = connection.prepare(select).map_err(trouble)?;
    for batch in statement.stream_arrow([]).map_err(trouble)? {
        running.check()?;
        let batch = travelling(&batch.map_err(trouble)?)?;
        if batch.num_rows() > 0 && sender.blocking_send(batch).is_err() {
            break;
        }
    }
    Ok(())
}

/// Why a read ended. A reader of DuckDB 1.5's streams is at times told only that it was interrupted when the
/// statement failed on another of its threads (duckdb/duckdb, pull request 25902); without a stream, DuckDB
/// tells the failure itself. So a select that nobody cancelled is asked once more, for its error only.
fn cause(error: WarehouseError, connection: &Connection, running: &Running, select: &str) -> WarehouseError {
    if error.kind != ErrorKind::Cancelled || running.check().is_err() {
        return error;
    }
    match connection.prepare(select).and_then(|mut statement| statement.execute([])) {
        Err(told) => trouble(told),
        Ok(_) => WarehouseError::new(
            ErrorKind::Other,
            "DuckDB ended the statement early and did not say why; run it again",
        ),
    }
}

fn execute(connection: &Connection, running: &Running, script: &Script) -> Result<Effect, WarehouseError> {
    let run = || {
        let mut effect = Effect::default();
        for step in &script.steps {
            running.check().and_then(|()| run_step(connection, step)).map_or_else(
                |error| Err(error.in_step(&step.name)),
                |done| {
                    effect.steps.push(done);
                    Ok(())
                },
            )?;
        }
        Ok(effect)
    };
    match script.atomicity {
        // Every transaction of DuckDB reads one state.
        Atomicity::Snapshot | Atomicity::Transaction => transaction(connection, running, true, run),
        Atomicity::Rehearsal => transaction(connection, running, false, run),
        Atomicity::Separate => run(),
    }
}

/// Runs work in a transaction, which is undone when the work fails or `keep` is false.
fn transaction<T>(
    connection: &Connection,
    running: &Running,
    keep: bool,
    work: impl FnOnce() -> Result<T, WarehouseError>,
) -> Result<T, WarehouseError> {
    connection.execute_batch("begin transaction").map_err(trouble)?;
    let result = work().and_then(|done| running.check().map(|()| done));
    if result.is_ok() && keep {
        connection.execute_batch("commit").map_err(trouble)?;
    } else if let Err(error) = connection.execute_batch("rollback") {
        // The connection is closed next, which undoes it all the same.
        tracing::debug!(%error, "rollback");
    }
    result
}

fn run_step(connection: &Connection, step: &Step) -> Result<StepEffect, WarehouseError> {
    let started = Instant::now();
    let mut statement = connection.prepare(step.sql.text()).map_err(trouble)?;
    let mut batches = Vec::new();
    let rows = if step.expect == Expect::Rows {
        // Not as a stream: a failure would at times be told as an interrupt (see `cause`).
        statement.execute([]).map_err(trouble)?;
        while let Some(batch) = statement.step().map_err(trouble)? {
            batches.push(travelling(&RecordBatch::from(&batch))?);
        }
        batches.retain(|b| b.num_rows() > 0);
        batches.iter().map(RecordBatch::num_rows).sum()
    } else {
        let changed = statement.execute([]).map_err(trouble)?;
        created(&statement)?.unwrap_or(changed)
    } as u64;
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

/// The rows of a table that the statement created: DuckDB does not count them among the changed
/// ones but returns their number, as the one value of a column of this name.
fn created(statement: &Statement<'_>) -> Result<Option<usize>, WarehouseError> {
    let schema = statement.schema();
    if schema.fields().len() != 1 || schema.field(0).name() != "Count" {
        return Ok(None);
    }
    let Some(result) = statement.step().map_err(trouble)? else { return Ok(None) };
    let count = result.column(0).as_primitive_opt::<Int64Type>().filter(|c| c.len() == 1);
    Ok(count.and_then(|c| usize::try_from(c.value(0)).ok()))
}

fn load(
    connection: &Connection,
    running: &Running,
    table: &TableRef,
    batches: Vec<RecordBatch>,
) -> Result<u64, WarehouseError> {
    let Some(first) = batches.first() else { return Ok(0) };
    let schema = first.schema();
    let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    let mut appender = connection
        .appender_with_columns_to_db(table.name.name(), table.schema.name(), &names)
        .map_err(trouble)?;
    let mut rows = 0;
    for batch in batches {
        running.check()?;
        if batch.schema().fields() != schema.fields() {
            return Err(WarehouseError::new(
                ErrorKind::Invalid,
                "batches of one load must have the same columns",
            ));
        }
        rows += batch.num_rows() as u64;
        appender.append_record_batch(batch).map_err(refused)?;
    }
    appender.flush().map_err(refused)?;
    Ok(rows)
}

/// The appender's error: what it does not call by a name is about a value.
fn refused(error: duckdb::Error) -> WarehouseError {
    let error = trouble(error);
    let kind = if error.kind == ErrorKind::Other { ErrorKind::Data } else { error.kind };
    WarehouseError { kind, ..error }
}

/// DuckDB's error with its kind, which DuckDB writes in front of the message.
fn trouble(error: duckdb::Error) -> WarehouseError {
    let message = match error {
        duckdb::Error::DuckDBFailure(_, Some(message)) => message,
        other => other.to_string(),
    };
    WarehouseError::new(kind(&message), message)
}

fn kind(message: &str) -> ErrorKind {
    let has = |part: &str| message.contains(part);
    if has("Could not set lock on file") {
        return ErrorKind::Busy;
    }
    if has("No space left on device") || has("Disk quota exceeded") || has("File too large") {
        return ErrorKind::OutOfSpace;
    }
    // The appender's messages begin in another way than those of statements.
    if has("uplicate key") && has("constraint") {
        return ErrorKind::UniqueViolation;
    }
    if has("could not be found") {
        return ErrorKind::NotFound;
    }
    match message.split(" Error:").next().unwrap_or_default() {
        "Catalog" if has("write-write conflict") => ErrorKind::Busy,
        "Catalog" if has("already exists") => ErrorKind::AlreadyExists,
        "Catalog" if has("does not exist") => ErrorKind::NotFound,
        "Catalog" | "Binder" | "Parser" | "Syntax" => ErrorKind::Invalid,
        "Conversion" | "Constraint" | "Out of Range" | "Invalid Input" | "Mismatch Type" | "Decimal"
        | "Divide by Zero" | "Invalid type" => ErrorKind::Data,
        "Out of Memory" => ErrorKind::OutOfSpace,
        "INTERRUPT" => ErrorKind::Cancelled,
        "Permission" => ErrorKind::Permission,
        "IO" if has("Permission denied") => ErrorKind::Permission,
        "IO" => ErrorKind::Unreachable,
        // Two transactions wrote the same rows or tables; one of them may try again.
        "TransactionContext" | "Transaction" if has("onflict") => ErrorKind::Busy,
        "Not implemented" => ErrorKind::Unsupported,
        _ => ErrorKind::Other,
    }
}

fn panicked(error: &tokio::task::JoinError) -> WarehouseError {
    WarehouseError::new(ErrorKind::Other, format!("the DuckDB driver failed: {error}"))
}

/// Whether DuckDB reads the text as an amount of memory.
fn is_memory(text: &str) -> bool {
    let text = text.trim().to_lowercase();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().unwrap_or(0.0);
    let unit = text[digits..].trim();
    number > 0.0 && ["b", "kb", "mb", "gb", "tb", "kib", "mib", "gib", "tib", "%"].contains(&unit)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::json;

    use super::*;

    fn build(config: Value) -> Result<Arc<dyn Warehouse>, ConfigError> {
        let context =
            BuildContext { slug: "wh".into(), project: PathBuf::from("/project"), secrets: Vec::new() };
        (DUCKDB.build)(config, &context)
    }

    #[test]
    fn a_source_is_built_from_its_file() {
        let file = build(json!({"path": "data/wh.duckdb", "memory_limit": "1.5 GiB", "threads": 2})).unwrap();
        assert_eq!(file.identity(), "/project/data/wh.duckdb");
        assert_eq!(file.page_rows(), Some(PAGE_ROWS));
        assert_eq!(build(json!({"path": ":memory:"})).unwrap().identity(), ":memory:");
    }

    #[test]
    fn mistakes_in_the_file_are_refused_where_they_stand() {
        for (config, path) in [
            (json!({"path": ""}), "path"),
            (json!({"path": "x", "memory_limit": "much"}), "memory_limit"),
            (json!({"path": "x", "memory_limit": "0GB"}), "memory_limit"),
            (json!({"path": "x", "threads": 0}), "threads"),
            (json!({"path": "x", "busy_timeout": "soon"}), "busy_timeout"),
            (json!({"path": "x", "pathh": "y"}), "wh"),
        ] {
            let error = build(config.clone()).unwrap_err();
            assert_eq!(error.path, path, "{config}");
            assert!(!error.message.is_empty());
        }
    }

    #[test]
    fn the_schema_describes_every_key() {
        let schema = (DUCKDB.config_schema)().to_value();
        for key in ["path", "memory_limit", "threads", "busy_timeout"] {
            assert!(schema["properties"][key]["description"].is_string(), "{key}");
        }
        assert_eq!(schema["additionalProperties"], json!(false));
        assert_eq!(schema["required"], json!(["path"]));
    }

    #[test]
    fn messages_become_kinds() {
        for (message, expected) in [
            ("Catalog Error: Table with name x does not exist!", ErrorKind::NotFound),
            ("Catalog Error: Table with name \"x\" already exists!", ErrorKind::AlreadyExists),
            ("Parser Error: syntax error at or near \"selec\"", ErrorKind::Invalid),
            ("Conversion Error: Could not convert string 'a' to INT32", ErrorKind::Data),
            (
                "Failed to append: Duplicate key \"id: 0\" violates primary key constraint.",
                ErrorKind::UniqueViolation,
            ),
            ("INTERRUPT Error: Interrupted!", ErrorKind::Cancelled),
            ("IO Error: Could not set lock on file \"x\": Conflicting lock is held (PID 7)", ErrorKind::Busy),
            ("IO Error: Could not write file \"x\": No space left on device", ErrorKind::OutOfSpace),
            ("TransactionContext Error: Conflict on update!", ErrorKind::Busy),
            ("Out of Memory Error: could not allocate block", ErrorKind::OutOfSpace),
        ] {
            assert_eq!(kind(message), expected, "{message}");
        }
    }
}
