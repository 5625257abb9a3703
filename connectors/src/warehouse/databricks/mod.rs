//! Databricks as a warehouse, over its Statement Execution API.
//!
//! * Every statement begins with a comment that says whose it is, and carries the query tags `levin_sync`, `levin_run`
//!   and `levin_stage`. The interface has no sessions: a session here is a word in those comments, by which a later
//!   process finds and stops what a dead one left running.
//! * A script is one block, `begin atomic … end`: all of it or nothing.
//! * A statement is begun without waiting for its end, so that its name is known as soon as it runs, and it can be
//!   stopped. What is dropped is stopped.

mod api;
mod auth;
mod config;
mod decode;
mod load;
mod rows;
mod script;
mod trouble;
mod work;

use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use futures::StreamExt;
use serde_json::{Value, json};
use sql_templates::{Atomicity, Column, Dialect, Expect, Script, Sql, Step, TableRef};

use self::api::{Api, Ended, Safety};
use self::config::DatabricksConfig;
use self::rows::Rows;
use self::work::{Current, Work};
use super::{BatchStream, Canceller, Effect, ErrorKind, Session, StepEffect, Tag, Warehouse, WarehouseError};
use crate::catalogue::SourceConnector;

/// The catalogue's entry.
pub static DATABRICKS: SourceConnector = SourceConnector {
    name: "databricks",
    title: "Databricks",
    summary: "A catalog in a Databricks workspace with Unity Catalog. Diffs are computed by one of its SQL warehouses; \
              rows leave it as Arrow, one chunk at a time.",
    dialect: Dialect::Databricks,
    config_schema: || schemars::schema_for!(DatabricksConfig),
    build: |config, context| Ok(Arc::new(DatabricksWarehouse::new(config, context)?) as Arc<dyn Warehouse>),
};

/// How often a statement is run again that another one's write undid.
const MOST_ATTEMPTS: u32 = 6;
/// How long statements of a dead run may take to stop.
const TERMINATION_TIMEOUT: Duration = Duration::from_secs(30);
/// When statements are looked for that may have come although nobody said so.
const SETTLING: [Duration; 2] = [Duration::ZERO, Duration::from_secs(1)];
/// The wait before the first question about a statement, and the longest.
const FIRST_POLL: Duration = Duration::from_millis(10);
const LONGEST_POLL: Duration = Duration::from_secs(1);

/// One catalog, and the SQL warehouse that computes.
#[derive(Debug)]
struct DatabricksWarehouse {
    api: Arc<Api>,
}

#[async_trait]
impl Warehouse for DatabricksWarehouse {
    fn dialect(&self) -> Dialect {
        Dialect::Databricks
    }

    fn identity(&self) -> String {
        let base = &self.api.base;
        let port = base.port().map(|port| format!(":{port}")).unwrap_or_default();
        format!("databricks://{}{port}/{}", base.host_str().unwrap_or_default(), self.api.catalog)
    }

    fn role(&self) -> Option<String> {
        self.api.auth.principal()
    }

    fn database(&self) -> Option<String> {
        Some(self.api.catalog.clone())
    }

    async fn session(&self, tag: &Tag) -> Result<Box<dyn Session>, WarehouseError> {
        let id = format!("levin_{}", uuid::Uuid::new_v4().simple());
        Ok(Box::new(DatabricksSession {
            comment: comment(tag, &id),
            tags: tags(tag),
            current: Arc::new(Current::new(self.api.clone())),
            api: self.api.clone(),
            id,
        }))
    }

    async fn terminate(&self, session_id: &str) -> Result<(), WarehouseError> {
        let digits = session_id.strip_prefix("levin_").unwrap_or_default();
        if digits.len() != 32 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            let message = format!("{session_id:?} is no session of this warehouse");
            return Err(WarehouseError::new(ErrorKind::Invalid, message));
        }
        stop_all(&self.api, session_id).await
    }
}

/// Returns once no statement of a session runs.
async fn stop_all(api: &Api, session_id: &str) -> Result<(), WarehouseError> {
    let deadline = Instant::now() + TERMINATION_TIMEOUT;
    let mut wait = Duration::from_millis(100);
    loop {
        let unfinished = api.unfinished(&format!(" session={session_id} ")).await?;
        let Some(first) = unfinished.first() else { return Ok(()) };
        if Instant::now() > deadline {
            let message = format!("the statement {first} of a dead run does not end; cancel it by hand");
            return Err(WarehouseError::new(ErrorKind::Busy, message));
        }
        for statement in &unfinished {
            api.cancel(statement).await?;
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_POLL);
    }
}

/// Text in which nothing ends a comment.
fn harmless(text: &str) -> String {
    let letters = text.chars().map(|c| if c.is_alphanumeric() || "_-.".contains(c) { c } else { '-' });
    letters.take(120).collect()
}

/// Whose a statement is, as its text says it.
fn comment(tag: &Tag, session: &str) -> String {
    let run = tag.run.map(|run| format!(" run={run}")).unwrap_or_default();
    format!("/* levin sync={}{run} stage={} session={session} */", harmless(&tag.sync), tag.stage)
}

/// The same as the history of queries keeps it.
fn tags(tag: &Tag) -> Value {
    let one = |key: &str, value: String| json!({"key": key, "value": value});
    let mut tags = vec![one("levin_sync", harmless(&tag.sync)), one("levin_stage", tag.stage.to_owned())];
    tags.extend(tag.run.map(|run| one("levin_run", run.to_string())));
    Value::from(tags)
}

/// A word in comments, and what runs now.
struct DatabricksSession {
    api: Arc<Api>,
    id: String,
    comment: String,
    tags: Value,
    current: Arc<Current>,
}

impl Debug for DatabricksSession {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabricksSession").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What is asked of a statement beside its text.
struct Asked<'a> {
    /// Rows as Arrow, behind links; without, the few of them come with the answer.
    rows: bool,
    safety: Safety,
    parameters: Option<&'a Value>,
}

impl Asked<'_> {
    /// A few rows, and nothing changes.
    const LOOK: Self = Self { rows: false, safety: Safety::Repeatable, parameters: None };
    /// Many rows, and nothing changes.
    const ROWS: Self = Self { rows: true, ..Self::LOOK };
    /// Something changes.
    const WRITE: Self = Self { safety: Safety::Once, ..Self::LOOK };
}

impl DatabricksSession {
    fn request(&self, text: &str, asked: &Asked<'_>) -> Value {
        let Api { warehouse_id, catalog, schema, .. } = &*self.api;
        let (disposition, format) =
            if asked.rows { ("EXTERNAL_LINKS", "ARROW_STREAM") } else { ("INLINE", "JSON_ARRAY") };
        let mut request = json!({
            "statement": format!("{}\n{text}", self.comment), "warehouse_id": warehouse_id, "catalog": catalog,
            "disposition": disposition, "format": format, "wait_timeout": "0s", "query_tags": self.tags,
        });
        if let Some(schema) = schema {
            request["schema"] = Value::from(schema.as_str());
        }
        if let Some(parameters) = asked.parameters {
            request["parameters"] = parameters.clone();
        }
        request
    }

    /// Runs a statement to its end, again where that is safe and may help: one that failed had no effect.
    async fn run(&self, text: &str, asked: &Asked<'_>, work: &Arc<Work>) -> Result<Ended, WarehouseError> {
        let request = self.request(text, asked);
        let mut attempts = 0;
        loop {
            work.check()?;
            let failed = match work::run(&self.api, work, &request, asked.safety).await {
                Ok(Ok(ended)) => return Ok(ended),
                Ok(Err(failed)) => failed,
                Err(error) => {
                    if error.kind == ErrorKind::ConnectionLost && asked.safety == Safety::Once {
                        self.settle().await;
                    }
                    return Err(error);
                }
            };
            attempts += 1;
            if !failed.passes() || attempts == MOST_ATTEMPTS {
                return Err(failed.error(self.api.http.redactor()));
            }
            tracing::debug!(failed = failed.message, attempts, "a statement is run again");
            let ceiling = Duration::from_millis(250) * 2_u32.pow(attempts.min(6) - 1);
            tokio::time::sleep(ceiling.mul_f64(fastrand::f64())).await;
        }
    }

    /// Where the answer to a statement that writes was lost: sees to it that none of the session runs any more, so that
    /// whoever looks next finds how it ended. The history lists a statement a moment after it came.
    async fn settle(&self) {
        for wait in SETTLING {
            tokio::time::sleep(wait).await;
            if let Err(error) = stop_all(&self.api, &self.id).await {
                tracing::debug!(%error, "nobody knows whether a statement goes on");
                return;
            }
        }
    }

    /// A step on its own.
    async fn step(&self, step: &Step, work: &Arc<Work>) -> Result<StepEffect, WarehouseError> {
        let started = Instant::now();
        let named = |error: WarehouseError| error.in_step(&step.name);
        let mut batches = Vec::new();
        let rows = match step.expect {
            Expect::OneRow => {
                let alone = Script { steps: vec![step.clone()], atomicity: Atomicity::Transaction };
                let effect = self.block(&alone, work).await?;
                return effect
                    .steps
                    .into_iter()
                    .next()
                    .ok_or_else(|| named(WarehouseError::new(ErrorKind::Other, "no step ran")));
            }
            Expect::Rows => {
                let ended = self.run(step.sql.text(), &Asked::ROWS, work).await.map_err(named)?;
                let mut rows = Rows::new(&self.api, ended, work.clone()).map_err(named)?;
                while let Some(batch) = rows.next().await.map_err(named)? {
                    batches.push(batch);
                }
                Some(batches.iter().map(|b| b.num_rows() as u64).sum())
            }
            Expect::Any => {
                let ended = self.run(step.sql.text(), &Asked::WRITE, work).await.map_err(named)?;
                ended.affected()
            }
        };
        Ok(StepEffect { name: step.name.clone(), rows, batches, seconds: started.elapsed().as_secs_f64() })
    }

    /// Steps that write, as one block.
    async fn block(&self, script: &Script, work: &Arc<Work>) -> Result<Effect, WarehouseError> {
        let started = Instant::now();
        let written = script::write(script)?;
        let ended = match self.run(&written.text, &Asked::WRITE, work).await {
            Ok(ended) => ended,
            Err(error) => return Err(written.blame(script, error)),
        };
        script::effect(script, &ended, started.elapsed().as_secs_f64())
    }

    /// The columns of a select, which is not run.
    async fn columns(&self, select: &str, work: &Arc<Work>) -> Result<Vec<(String, String)>, WarehouseError> {
        let ended = self.run(&format!("describe query {select}"), &Asked::LOOK, work).await?;
        let column = |row: &Vec<Option<String>>| match row.as_slice() {
            [Some(name), Some(kind), ..] => Ok((name.clone(), kind.clone())),
            _ => Err(WarehouseError::new(
                ErrorKind::Other,
                "Databricks describes a column without name or type",
            )),
        };
        ended.inline_rows()?.iter().map(column).collect()
    }
}

#[async_trait]
impl Session for DatabricksSession {
    fn id(&self) -> Option<String> {
        Some(self.id.clone())
    }

    async fn describe(&mut self, select: &Sql) -> Result<Vec<Column>, WarehouseError> {
        let work = self.current.start();
        let columns = self.columns(select.text(), &work).await?;
        columns.into_iter().map(|(name, kind)| decode::column(name, kind)).collect()
    }

    async fn execute(&mut self, script: &Script) -> Result<Effect, WarehouseError> {
        let work = self.current.start();
        let only_reads = script.steps.iter().all(|step| step.expect == Expect::Rows);
        let alone = match script.atomicity {
            Atomicity::Separate => true,
            Atomicity::Snapshot | Atomicity::Transaction => script.steps.len() <= 1 || only_reads,
            Atomicity::Rehearsal => only_reads,
        };
        if !alone {
            return self.block(script, &work).await;
        }
        let mut effect = Effect::default();
        for step in &script.steps {
            effect.steps.push(self.step(step, &work).await?);
        }
        Ok(effect)
    }

    async fn query(&mut self, select: &Sql) -> Result<BatchStream<'_>, WarehouseError> {
        let work = self.current.start();
        let ended = self.run(select.text(), &Asked::ROWS, &work).await?;
        let rows = Rows::new(&self.api, ended, work)?;
        Ok(futures::stream::try_unfold(rows, |mut rows| async move {
            Ok(rows.next().await?.map(|batch| (batch, rows)))
        })
        .boxed())
    }

    async fn load(&mut self, table: &TableRef, batches: Vec<RecordBatch>) -> Result<u64, WarehouseError> {
        let work = self.current.start();
        load::load(self, table, &batches, &work).await
    }

    fn canceller(&self) -> Arc<dyn Canceller> {
        self.current.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_tag_ends_the_comment() {
        let tag = Tag { sync: "a */ drop table t; /* ü".into(), run: Some(7), stage: "diff" };
        assert_eq!(
            comment(&tag, "levin_0"),
            "/* levin sync=a----drop-table-t-----ü run=7 stage=diff session=levin_0 */"
        );
        assert_eq!(tags(&tag)[2], json!({"key": "levin_run", "value": "7"}));
        let command = Tag { sync: "check".into(), run: None, stage: "check" };
        assert!(!comment(&command, "x").contains("run="));
        assert_eq!(tags(&command).as_array().unwrap().len(), 2);
    }
}
