//! A session as the engine sees it.

use std::fmt::{self, Debug, Formatter};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use futures::StreamExt;
use sql_templates::{Atomicity, Column, Dialect, Expect, Script, Sql, Step, TableRef};
use tokio::runtime::Handle;
use tracing::Instrument;

use super::super::{BatchStream, Canceller, Effect, ErrorKind, Session, StepEffect, WarehouseError};
use super::link::{Asked, Link, QueryData, RowType, locked};
use super::load;
use super::rows::Rows;
use super::service::Service;

/// One session at the service. After a statement's future was dropped, the session is given up (its statement
/// stopped, its transaction undone) and the next call opens another, under another [`Session::id`].
pub(super) struct SnowflakeSession {
    service: Arc<Service>,
    tag: String,
    link: Option<Arc<Link>>,
    id: String,
    canceller: Arc<CurrentCanceller>,
    /// A statement was begun and its end was not seen.
    unfinished: bool,
    /// The session, or the way to it, went away. So it stays: what ran is unknown, and what the session stood for
    /// may have been taken over.
    lost: bool,
}

/// Cancels whatever the session's present link runs.
struct CurrentCanceller(Mutex<Arc<Link>>);

impl Debug for SnowflakeSession {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnowflakeSession")
            .field("tag", &self.tag)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl SnowflakeSession {
    pub(super) async fn open(service: Arc<Service>, tag: String) -> Result<Self, WarehouseError> {
        let link = Arc::new(Link::new(service.clone(), tag.clone(), service.log_in(&tag).await?));
        Ok(Self {
            id: link.id(),
            canceller: Arc::new(CurrentCanceller(Mutex::new(link.clone()))),
            link: Some(link),
            service,
            tag,
            unfinished: false,
            lost: false,
        })
    }

    /// The link, for a statement that now begins; [`Self::end`] tells that it ended.
    async fn begin(&mut self) -> Result<Arc<Link>, WarehouseError> {
        if self.lost {
            let message = "the session was lost; open another one";
            return Err(WarehouseError::new(ErrorKind::ConnectionLost, message));
        }
        if self.unfinished {
            self.leave();
        }
        let link = match &self.link {
            Some(link) => link.clone(),
            None => {
                let tokens = self.service.log_in(&self.tag).await?;
                let link = Arc::new(Link::new(self.service.clone(), self.tag.clone(), tokens));
                *locked(&self.canceller.0) = link.clone();
                self.link = Some(link.clone());
                link
            }
        };
        self.unfinished = true;
        Ok(link)
    }

    fn end<T>(&mut self, result: Result<T, WarehouseError>) -> Result<T, WarehouseError> {
        self.unfinished = false;
        self.lost |= matches!(&result, Err(error) if error.kind == ErrorKind::ConnectionLost);
        // An expired session may have been replaced meanwhile.
        if let Some(link) = &self.link {
            self.id = link.id();
        }
        result
    }

    /// Undoes what a transaction did. Where not even that is possible, the next call gives the session up, which
    /// undoes it; one that somebody ended stays lost.
    async fn undo(&mut self, link: &Link) -> bool {
        match link.statement("rollback", Asked::default()).await {
            Ok(_) => {
                link.set_in_transaction(false);
                true
            }
            Err(error) => {
                self.lost |= error.kind == ErrorKind::ConnectionLost;
                false
            }
        }
    }

    /// Ends another session of the same user. One that is gone already is as good as ended.
    pub(super) async fn terminate(&mut self, id: &str) -> Result<(), WarehouseError> {
        let link = self.begin().await?;
        let ask = async |function: &str| {
            link.statement(&format!("select system${function}({id})"), Asked::default()).await.map(|_| ())
        };
        let mut ended = ask("abort_session").await;
        if matches!(&ended, Err(error) if error.kind == ErrorKind::Permission) {
            // Whoever may not end a session may still stop what it runs; what it left open ends by itself.
            ended = ask("cancel_all_queries").await;
        }
        let gone =
            |said: &str| ["does not exist", "not found", "terminated"].iter().any(|w| said.contains(w));
        match self.end(ended) {
            Err(error) if gone(&error.message) => Ok(()),
            other => other,
        }
    }

    /// Gives the session up, and stops what runs in it.
    fn leave(&mut self) {
        let stop = std::mem::take(&mut self.unfinished);
        if let (Some(link), Ok(runtime)) = (self.link.take(), Handle::try_current()) {
            let left = async move { link.leave(stop || link.is_in_transaction()).await };
            runtime.spawn(left.in_current_span());
        }
    }
}

impl Drop for SnowflakeSession {
    fn drop(&mut self) {
        self.leave();
    }
}

#[async_trait]
impl Session for SnowflakeSession {
    fn id(&self) -> Option<String> {
        Some(self.link.as_ref().map_or_else(|| self.id.clone(), |link| link.id()))
    }

    async fn describe(&mut self, select: &Sql) -> Result<Vec<Column>, WarehouseError> {
        let link = self.begin().await?;
        let described = link.statement(select.text(), Asked { describe: true, ..Asked::default() }).await;
        let columns = described.and_then(|data| data.rowtype.iter().map(column).collect());
        self.end(columns)
    }

    async fn execute(&mut self, script: &Script) -> Result<Effect, WarehouseError> {
        let link = self.begin().await?;
        let closing = match script.atomicity {
            Atomicity::Separate => {
                let done = steps(&link, script).await;
                return self.end(done);
            }
            // A transaction reads what is committed when each of its statements begins, whichever of the two.
            Atomicity::Snapshot | Atomicity::Transaction => "commit",
            Atomicity::Rehearsal => "rollback",
        };
        let result = transaction(&link, script, closing).await;
        let lost = matches!(&result, Err(error) if error.kind == ErrorKind::ConnectionLost);
        if result.is_err() && !lost && !self.undo(&link).await {
            return result;
        }
        self.end(result)
    }

    async fn query(&mut self, select: &Sql) -> Result<BatchStream<'_>, WarehouseError> {
        let link = self.begin().await?;
        // What is left to come is done at the service: a stream that is dropped costs it nothing.
        let opened = Rows::open(&link, select.text()).await;
        let rows = self.end(opened)?;
        Ok(futures::stream::try_unfold((self, rows), |(session, mut rows)| async move {
            match rows.next().await {
                Ok(batch) => Ok(batch.map(|batch| (batch, (session, rows)))),
                Err(error) => session.end(Err(error)),
            }
        })
        .boxed())
    }

    async fn load(&mut self, table: &TableRef, batches: Vec<RecordBatch>) -> Result<u64, WarehouseError> {
        if batches.iter().all(|b| b.num_rows() == 0) {
            return Ok(0);
        }
        let link = self.begin().await?;
        let loaded = load::load(&link, table, &batches).await;
        let lost = matches!(&loaded, Err(error) if error.kind == ErrorKind::ConnectionLost);
        if loaded.is_err() && link.is_in_transaction() && !lost && !self.undo(&link).await {
            return loaded;
        }
        self.end(loaded)
    }

    fn canceller(&self) -> Arc<dyn Canceller> {
        self.canceller.clone()
    }
}

#[async_trait]
impl Canceller for CurrentCanceller {
    async fn cancel(&self) -> Result<(), WarehouseError> {
        let current = locked(&self.0).clone();
        current.cancel().await
    }
}

async fn transaction(link: &Arc<Link>, script: &Script, closing: &str) -> Result<Effect, WarehouseError> {
    link.set_in_transaction(true);
    link.statement("begin transaction", Asked::default()).await?;
    let effect = steps(link, script).await?;
    link.statement(closing, Asked::default()).await?;
    link.set_in_transaction(false);
    Ok(effect)
}

async fn steps(link: &Arc<Link>, script: &Script) -> Result<Effect, WarehouseError> {
    let mut effect = Effect::default();
    for step in &script.steps {
        effect.steps.push(run_step(link, step).await.map_err(|e| e.in_step(&step.name))?);
    }
    Ok(effect)
}

// What a statement cost is told by `information_schema.query_history` under its id, some time after it ended, and not
// by its answer.
async fn run_step(link: &Arc<Link>, step: &Step) -> Result<StepEffect, WarehouseError> {
    let started = Instant::now();
    let data = link.statement(step.sql.text(), Asked::default()).await?;
    let mut batches = Vec::new();
    let rows = if step.expect == Expect::Rows {
        let mut rows = Rows::of(link, data)?;
        while let Some(batch) = rows.next().await? {
            batches.push(batch);
        }
        Some(batches.iter().map(|b| b.num_rows() as u64).sum())
    } else {
        written(&data)
    };
    if step.expect == Expect::OneRow && rows != Some(1) {
        let rows = rows.unwrap_or(0);
        let message = format!("wrote {rows} rows where exactly one was expected: another run has taken over");
        return Err(WarehouseError::new(ErrorKind::Fenced, message));
    }
    Ok(StepEffect { name: step.name.clone(), rows, batches, seconds: started.elapsed().as_secs_f64() })
}

/// The rows that a statement wrote, which its one row of results says; nothing where it says none.
pub(super) fn written(data: &QueryData) -> Option<u64> {
    let row = data.rowset.as_ref()?.first()?;
    let counts = data.rowtype.iter().zip(row).filter_map(|(column, count)| {
        let name = column.name.to_lowercase();
        let counts = name.starts_with("number of rows ")
            && ["inserted", "updated", "deleted"].iter().any(|done| name.contains(done));
        counts.then(|| count.as_deref().and_then(|c| c.parse::<u64>().ok())).flatten()
    });
    counts.reduce(|all, more| all + more)
}

/// A column as Snowflake would declare it.
fn column(described: &RowType) -> Result<Column, WarehouseError> {
    let (precision, scale) = (described.precision.unwrap_or(38), described.scale.unwrap_or(0));
    let engine_type = match described.kind.to_lowercase().as_str() {
        "fixed" => format!("NUMBER({precision},{scale})"),
        "real" => "FLOAT".to_owned(),
        "text" => {
            let length = described.length.map(|length| format!("({length})")).unwrap_or_default();
            let collated = described.collation.as_ref().filter(|c| !c.is_empty());
            let collated =
                collated.map(|c| format!(" COLLATE '{}'", c.replace('\'', "''"))).unwrap_or_default();
            format!("VARCHAR{length}{collated}")
        }
        "binary" => {
            format!("BINARY{}", described.length.map(|length| format!("({length})")).unwrap_or_default())
        }
        kind @ ("time" | "timestamp_ntz" | "timestamp_ltz" | "timestamp_tz") => {
            format!("{}({})", kind.to_uppercase(), described.scale.unwrap_or(9))
        }
        kind => kind.to_uppercase(),
    };
    let Some(fact) = Dialect::Snowflake.type_fact(&engine_type) else {
        let message =
            format!("column {:?} is of type {engine_type}, which levin cannot carry", described.name);
        return Err(WarehouseError::new(ErrorKind::Unsupported, message));
    };
    Ok(Column { name: described.name.clone(), engine_type, logical: fact.logical })
}
