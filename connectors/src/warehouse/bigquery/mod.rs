//! BigQuery as a warehouse, over its REST interface.
//!
//! * Every statement is a job with an id of ours, so that no statement runs twice because an answer was lost, and every
//!   job carries the labels `levin_sync`, `levin_run` and `levin_stage`.
//! * A script is one job too: a transaction that is undone as a whole when a step fails.
//! * A job that failed had no effect. Where Google's side was in trouble, or another statement changed the same table,
//!   it is run again under another id.

mod api;
mod auth;
mod config;
mod decode;
mod rows;
mod schema;
mod script;
mod trouble;
mod work;

use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};
use sql_templates::{Atomicity, Column, Dialect, Expect, Script, Sql, Step, TableRef};
use tokio::sync::OnceCell;

use self::api::{Api, Failure, Job, Page, Statistics, read};
use self::config::BigqueryConfig;
use self::rows::Pages;
use self::schema::Field;
use self::work::{CurrentWork, Unfinished, Work};
use super::{
    BatchStream, Canceller, Cost, Effect, ErrorKind, Session, StepEffect, Tag, Warehouse, WarehouseError,
};
use crate::catalogue::SourceConnector;
use crate::json::{JsonOptions, NonFinite, Nulls, RowEncoder};

/// The catalogue's entry.
pub static BIGQUERY: SourceConnector = SourceConnector {
    name: "bigquery",
    title: "Google BigQuery",
    summary: "A project in Google BigQuery. Diffs are computed inside it, by jobs that carry the labels levin_sync, \
              levin_run and levin_stage; rows leave it page by page.",
    dialect: Dialect::Bigquery,
    config_schema: || schemars::schema_for!(BigqueryConfig),
    build: |config, context| Ok(Arc::new(BigqueryWarehouse::new(config, context)?) as Arc<dyn Warehouse>),
};

/// Rows of one page. BigQuery makes pages shorter that would have more than some ten megabytes.
const PAGE_ROWS: u32 = 25_000;
/// Rows of a diff that one statement puts in order.
const ORDERED_ROWS: u64 = 100_000;
/// How often a job is run again that failed without being at fault.
const MOST_ATTEMPTS: u32 = 6;
/// How long jobs of a dead run may take to stop.
const TERMINATION_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest wait between two questions about a job that nobody waits for.
const LONGEST_POLL: Duration = Duration::from_secs(2);

/// One project.
#[derive(Debug)]
struct BigqueryWarehouse {
    shared: Arc<Shared>,
}

/// What every session needs to know.
#[derive(Debug)]
struct Shared {
    api: Api,
    /// Where names without a dataset are looked for.
    dataset: Option<String>,
    maximum_bytes_billed: Option<u64>,
    statement_timeout: Option<Duration>,
    /// Set once a statement was understood: credentials, project and the right to run jobs are as they should be.
    proven: OnceCell<()>,
}

#[async_trait]
impl Warehouse for BigqueryWarehouse {
    fn dialect(&self) -> Dialect {
        Dialect::Bigquery
    }

    fn identity(&self) -> String {
        let endpoint = &self.shared.api.endpoint;
        let port = endpoint.port().map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}{port}/{}", endpoint.host_str().unwrap_or_default(), self.shared.api.project)
    }

    fn role(&self) -> Option<String> {
        self.shared.api.auth.account()
    }

    fn database(&self) -> Option<String> {
        Some(self.shared.api.project.clone())
    }

    fn default_schema(&self) -> Option<String> {
        self.shared.dataset.clone()
    }

    /// An order over all rows of a large table is more than BigQuery sorts.
    fn page_rows(&self) -> Option<u64> {
        Some(ORDERED_ROWS)
    }

    async fn session(&self, tag: &Tag) -> Result<Box<dyn Session>, WarehouseError> {
        let session = BigquerySession {
            shared: self.shared.clone(),
            id: format!("levin_{}", uuid::Uuid::new_v4().simple()),
            jobs: 0,
            labels: labels(tag),
            current: Arc::new(CurrentWork::new(self.shared.clone())),
            cost: Cost::default(),
        };
        let proof = async {
            let look = session.configuration("select 1 as one");
            self.shared.api.dry_run(&look).await.map(drop).map_err(|failure| failure.error)
        };
        self.shared.proven.get_or_try_init(|| proof).await?;
        Ok(Box::new(session))
    }

    async fn terminate(&self, session_id: &str) -> Result<(), WarehouseError> {
        let digits = session_id.strip_prefix("levin_").unwrap_or_default();
        if digits.len() != 32 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            let message = format!("{session_id:?} is no session of this warehouse");
            return Err(WarehouseError::new(ErrorKind::Invalid, message));
        }
        let deadline = Instant::now() + TERMINATION_TIMEOUT;
        let mut wait = Duration::from_millis(100);
        loop {
            let jobs = self.shared.api.unfinished(&format!("{session_id}_")).await?;
            let Some(first) = jobs.first() else { return Ok(()) };
            if Instant::now() > deadline {
                let message = format!("the job {} of a dead run does not end; cancel it by hand", first.id);
                return Err(WarehouseError::new(ErrorKind::Busy, message));
            }
            for job in &jobs {
                self.shared.api.cancel(job).await?;
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_POLL);
        }
    }
}

/// Who a job belongs to, in the letters that labels may have.
fn labels(tag: &Tag) -> Value {
    let label = |text: &str| -> String {
        let letters = text.to_lowercase();
        letters.chars().map(|c| if c.is_alphanumeric() || c == '_' { c } else { '-' }).take(63).collect()
    };
    let mut labels = json!({"levin_sync": label(&tag.sync), "levin_stage": label(tag.stage)});
    if let Some(run) = tag.run {
        labels["levin_run"] = Value::from(run.to_string());
    }
    labels
}

/// Names of jobs, and what runs now. BigQuery itself knows no session.
struct BigquerySession {
    shared: Arc<Shared>,
    /// What the ids of its jobs begin with.
    id: String,
    jobs: u64,
    labels: Value,
    current: Arc<CurrentWork>,
    /// What its jobs have cost since somebody asked.
    cost: Cost,
}

impl Debug for BigquerySession {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("BigquerySession").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A job that ended well.
struct Ended {
    job: Job,
    /// The first page of its result, when rows were asked for.
    page: Option<Bytes>,
    /// Rows that it wrote, where BigQuery counts them.
    written: Option<u64>,
}

impl BigquerySession {
    /// What is asked of a job beside its text.
    fn configuration(&self, text: &str) -> Value {
        let Shared { api, dataset, maximum_bytes_billed, statement_timeout, .. } = &*self.shared;
        let mut query = json!({"query": text, "useLegacySql": false});
        if let Some(dataset) = dataset {
            query["defaultDataset"] = json!({"projectId": api.project, "datasetId": dataset});
        }
        if let Some(bytes) = maximum_bytes_billed {
            query["maximumBytesBilled"] = Value::from(bytes.to_string());
        }
        let mut configuration = json!({"query": query, "labels": self.labels});
        if let Some(timeout) = statement_timeout {
            configuration["jobTimeoutMs"] = Value::from(timeout.as_millis().to_string());
        }
        configuration
    }

    fn next_job(&mut self) -> Job {
        self.jobs += 1;
        Job { id: format!("{}_{}", self.id, self.jobs), location: self.shared.api.location.clone() }
    }

    /// Runs a statement or script as a job, again where that is safe and may help: not when it fails after the line at
    /// which it keeps what it wrote.
    async fn run(
        &mut self,
        text: &str,
        rows: u32,
        kept_at: Option<usize>,
        work: &Arc<Work>,
    ) -> Result<Ended, Failure> {
        let configuration = self.configuration(text);
        let mut attempts = 0;
        loop {
            work.check()?;
            let mut failure = match self.attempt(&configuration, rows, work).await {
                Ok(ended) => return Ok(ended),
                Err(failure) => failure,
            };
            attempts += 1;
            if kept_at.zip(failure.of_job.as_deref()).is_some_and(|(line, said)| said.comes_after(line)) {
                failure.error.kind = ErrorKind::ConnectionLost;
                return Err(failure);
            }
            let passes = failure.of_job.as_ref().is_some_and(|said| said.passes() || said.conflicts());
            if !passes || attempts == MOST_ATTEMPTS {
                return Err(self.shared.api.told_apart(failure).await);
            }
            tracing::debug!(error = %failure.error, attempts, "a job is run again");
            pause(attempts).await;
        }
    }

    async fn attempt(
        &mut self,
        configuration: &Value,
        rows: u32,
        work: &Arc<Work>,
    ) -> Result<Ended, Failure> {
        let job = self.next_job();
        let unfinished = Unfinished::begin(&self.shared, work, job);
        let api = &self.shared.api;
        let begun = unfinished.settled(api.begin(&unfinished.job(), configuration).await)?;
        unfinished.is_at(&begun.job).await?;
        let mut written = begun.ended.as_ref().and_then(|done| done.query.num_dml_affected_rows.clone());
        let mut page = None;
        let mut cost = begun.ended.as_ref().map(Statistics::cost);
        // A job that was over at once and has no rows to give has said all there is.
        while begun.ended.is_none() || rows > 0 {
            let body = unfinished.settled(api.results(&begun.job, rows, None).await)?;
            let answer: Page<'_> = read(&body)?;
            if !answer.job_complete {
                unfinished.tell().await?;
                continue;
            }
            if !answer.errors.is_empty() {
                // Warnings stand here as well; the job's own state says what they were.
                unfinished.settled(api.state(&begun.job).await)?;
            }
            written = written.or(answer.num_dml_affected_rows);
            page = (rows > 0).then_some(body);
            if cost.is_none() {
                // Only the job itself says it, and a job whose end was waited for was no small one.
                cost = api.state(&begun.job).await.ok().flatten().as_ref().map(Statistics::cost);
            }
            break;
        }
        unfinished.end();
        self.cost = self.cost.and(cost.unwrap_or_default());
        let written = written.and_then(|rows| rows.parse().ok());
        Ok(Ended { job: begun.job, page, written })
    }

    /// A step on its own: a job, or where exactly one row must be written a transaction.
    async fn step(&mut self, step: &Step, work: &Arc<Work>) -> Result<StepEffect, WarehouseError> {
        let started = Instant::now();
        let named = |error: WarehouseError| error.in_step(&step.name);
        if step.expect == Expect::OneRow {
            let alone = Script { steps: vec![step.clone()], atomicity: Atomicity::Transaction };
            let mut effect = self.transaction(&alone, work).await?;
            return effect
                .steps
                .pop()
                .ok_or_else(|| named(WarehouseError::new(ErrorKind::Other, "no step ran")));
        }
        let rows = if step.expect == Expect::Rows { PAGE_ROWS } else { 0 };
        let ended =
            self.run(step.sql.text(), rows, None, work).await.map_err(|failure| named(failure.error))?;
        let mut batches = Vec::new();
        let mut count = ended.written;
        if rows > 0 {
            let mut pages = Pages::new(self.shared.clone(), ended.job, ended.page);
            while let Some(batch) = pages.next().await.map_err(named)? {
                batches.push(batch);
            }
            count = Some(batches.iter().map(|b| b.num_rows() as u64).sum());
        }
        Ok(StepEffect {
            name: step.name.clone(),
            rows: count,
            batches,
            seconds: started.elapsed().as_secs_f64(),
        })
    }

    /// A script as one job: a transaction that is kept, or undone after a rehearsal.
    async fn transaction(&mut self, script: &Script, work: &Arc<Work>) -> Result<Effect, WarehouseError> {
        let started = Instant::now();
        let mut shapes: Vec<Option<Vec<Field>>> = Vec::with_capacity(script.steps.len());
        for step in &script.steps {
            work.check()?;
            shapes.push(match step.expect {
                Expect::Rows => {
                    Some(self.fields(step.sql.text()).await.map_err(|error| error.in_step(&step.name))?)
                }
                Expect::Any | Expect::OneRow => None,
            });
        }
        let written = script::write(script, &shapes, script.atomicity != Atomicity::Rehearsal);
        let ended = match self.run(&written.text, 1, written.kept_at, work).await {
            Ok(ended) => ended,
            Err(Failure { error, of_job }) => return Err(written.blame(script, of_job.as_deref(), error)),
        };
        let body = ended.page.unwrap_or_default();
        let page: Page<'_> = read(&body)?;
        script::effect(script, &shapes, page.rows, started.elapsed().as_secs_f64())
    }

    /// A dataset is made where its job runs, and a job that names no table runs in the US: beside models that are
    /// elsewhere it would be of no use, and datasets cannot be moved.
    fn knows_where(&self, script: &Script) -> Result<(), WarehouseError> {
        let makes = script.steps.iter().find(|step| step.sql.text().starts_with("create schema"));
        match makes.filter(|_| self.shared.api.location.is_none()) {
            Some(step) => {
                let message = "nobody says where levin's datasets are to be: set `location` in the source's file to \
                               where the models' datasets are (`EU`, `US`, `europe-west3`), or make the datasets yourself";
                Err(WarehouseError::new(ErrorKind::Invalid, message).in_step(&step.name))
            }
            None => Ok(()),
        }
    }

    /// The columns of a select, which is not run.
    async fn fields(&self, select: &str) -> Result<Vec<Field>, WarehouseError> {
        Ok(self.dry_run(select).await?.query.schema.unwrap_or_default().fields)
    }

    async fn dry_run(&self, select: &str) -> Result<Statistics, WarehouseError> {
        let mut failed = None;
        for attempt in 1..=MOST_ATTEMPTS {
            match self.shared.api.dry_run(&self.configuration(select)).await {
                Ok(statistics) => return Ok(statistics),
                Err(failure) if failure.of_job.as_deref().is_some_and(trouble::Said::passes) => {
                    failed = Some(failure);
                    pause(attempt).await;
                }
                Err(failure) => return Err(self.shared.api.told_apart(failure).await.error),
            }
        }
        Err(failed
            .map_or_else(|| WarehouseError::new(ErrorKind::Other, "no answer"), |failure| failure.error))
    }
}

/// Up to a quarter of a second before the first repeat, and up to twice as long before each further one.
async fn pause(attempts: u32) {
    let ceiling = Duration::from_millis(250) * 2_u32.pow(attempts.min(6) - 1);
    tokio::time::sleep(ceiling.mul_f64(fastrand::f64())).await;
}

#[async_trait]
impl Session for BigquerySession {
    fn id(&self) -> Option<String> {
        Some(self.id.clone())
    }

    async fn describe(&mut self, select: &Sql) -> Result<Vec<Column>, WarehouseError> {
        self.fields(select.text()).await?.iter().map(Field::column).collect()
    }

    async fn estimate(&mut self, select: &Sql) -> Result<Option<u64>, WarehouseError> {
        Ok(self.dry_run(select.text()).await?.cost().bytes_scanned)
    }

    fn cost(&mut self) -> Cost {
        std::mem::take(&mut self.cost)
    }

    async fn execute(&mut self, script: &Script) -> Result<Effect, WarehouseError> {
        self.knows_where(script)?;
        let work = self.current.start();
        let only_reads = script.steps.iter().all(|step| step.expect == Expect::Rows);
        let alone = match script.atomicity {
            Atomicity::Separate => true,
            // Statements that only read need no transaction, unless they must read the same.
            Atomicity::Transaction => script.steps.len() <= 1 || only_reads,
            Atomicity::Snapshot => script.steps.len() <= 1,
            Atomicity::Rehearsal => script.steps.is_empty() || script.steps.len() == 1 && only_reads,
        };
        if !alone {
            return self.transaction(script, &work).await;
        }
        let mut effect = Effect::default();
        for step in &script.steps {
            effect.steps.push(self.step(step, &work).await?);
        }
        Ok(effect)
    }

    async fn query(&mut self, select: &Sql) -> Result<BatchStream<'_>, WarehouseError> {
        let work = self.current.start();
        let ended = self.run(select.text(), PAGE_ROWS, None, &work).await.map_err(|failure| failure.error)?;
        Ok(Pages::new(self.shared.clone(), ended.job, ended.page).into_stream())
    }

    async fn load(&mut self, table: &TableRef, batches: Vec<RecordBatch>) -> Result<u64, WarehouseError> {
        let lines = lines(&batches)?;
        if lines.is_empty() {
            return Ok(0);
        }
        let work = self.current.start();
        let (dataset, name) = (table.schema.name(), table.name.name());
        let (project, dataset) = dataset.split_once('.').unwrap_or((&self.shared.api.project, dataset));
        let configuration = json!({"labels": self.labels, "load": {
            "destinationTable": {"projectId": project, "datasetId": dataset, "tableId": name},
            "sourceFormat": "NEWLINE_DELIMITED_JSON",
            "createDisposition": "CREATE_NEVER",
            "writeDisposition": "WRITE_APPEND",
        }});
        let mut attempts = 0;
        loop {
            work.check()?;
            let failure = match self.attempt_load(&configuration, &lines, &work).await {
                Ok(rows) => return Ok(rows),
                Err(failure) => failure,
            };
            attempts += 1;
            let passes = failure.of_job.as_ref().is_some_and(|said| said.passes() || said.conflicts());
            if !passes || attempts == MOST_ATTEMPTS {
                return Err(self.shared.api.told_apart(failure).await.error);
            }
            pause(attempts).await;
        }
    }

    fn canceller(&self) -> Arc<dyn Canceller> {
        self.current.clone()
    }
}

impl BigquerySession {
    async fn attempt_load(
        &mut self,
        configuration: &Value,
        lines: &[u8],
        work: &Arc<Work>,
    ) -> Result<u64, Failure> {
        let job = self.next_job();
        let unfinished = Unfinished::begin(&self.shared, work, job);
        let api = &self.shared.api;
        let begun = unfinished.settled(api.begin_load(&unfinished.job(), configuration, lines).await)?;
        unfinished.is_at(&begun.job).await?;
        let mut done = begun.ended;
        let mut wait = Duration::from_millis(50);
        while done.is_none() {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_POLL);
            done = unfinished.settled(api.state(&begun.job).await)?;
            unfinished.tell().await?;
        }
        unfinished.end();
        let rows = done.and_then(|done| done.load.output_rows).and_then(|rows| rows.parse().ok());
        rows.ok_or_else(|| {
            WarehouseError::new(ErrorKind::Other, "BigQuery does not say how many rows it took").into()
        })
    }
}

/// Rows as lines of JSON, in which a load job takes them.
fn lines(batches: &[RecordBatch]) -> Result<Vec<u8>, WarehouseError> {
    let unsupported = |e: crate::json::UnsupportedColumn| {
        WarehouseError::new(ErrorKind::Unsupported, format!("rows cannot be loaded: {e}"))
    };
    let options = JsonOptions { non_finite: NonFinite::String, nulls: Nulls::Omit, ..JsonOptions::default() };
    let mut lines = Vec::new();
    for batch in batches {
        if batch.schema().fields() != batches[0].schema().fields() {
            let message = "batches of one load must have the same columns";
            return Err(WarehouseError::new(ErrorKind::Invalid, message));
        }
        let encoder = RowEncoder::new(&batch.schema(), options).map_err(unsupported)?;
        let bound = encoder.bind(batch).map_err(unsupported)?;
        for row in 0..bound.len() {
            encoder
                .encode_row(&bound, row, &mut lines)
                .map_err(|rejected| WarehouseError::new(ErrorKind::Data, rejected.reason))?;
            lines.push(b'\n');
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_only_letters_that_labels_may_have() {
        let tag = Tag { sync: format!("Kunden → CRM/{}", "x".repeat(80)), run: Some(12), stage: "diff" };
        let labels = labels(&tag);
        assert_eq!(labels["levin_run"], "12");
        assert_eq!(labels["levin_stage"], "diff");
        let sync = labels["levin_sync"].as_str().unwrap();
        assert!(sync.starts_with("kunden---crm-xxx") && sync.chars().count() == 63, "{sync}");
        let command = Tag { sync: "check".into(), run: None, stage: "check" };
        assert!(super::labels(&command).get("levin_run").is_none());
    }
}
