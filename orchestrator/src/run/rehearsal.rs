//! `levin plan`: everything up to the plan, in one transaction that is undone.
//!
//! A rehearsal takes no lease and settles nothing; it reads the snapshot and the notes of an
//! interrupted run together.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use connectors::change::Operation;
use connectors::json::{JsonOptions, RowEncoder};
use connectors::warehouse::{Effect, Session};
use serde::Serialize;
use serde_json::{Map, Value};
use sql_templates::{Atomicity, Column, CommitFacts, DeliverFacts, DiffShape, Statement, SyncScope};

use super::batches::BEFORE_THE_FIRST;
use super::definition::{Change, Meaning};
use super::diff::{DiffQuestion, alike, diff_script, failed, longest_key};
use super::differences::{Counts, read_counts};
use super::lease::Cancel;
use super::model::{Described, describe};
use super::plan::Verdict;
use super::report::OperationCounts;
use super::rows::only_row;
use super::settle::Unfinished;
use super::stages::Stage;
use super::state::{State, read_state};
use super::{Request, Run, Silent, Start, delivery_spec, due_before, plan, prune, result_rows, run_values};
use super::{clearing, prepare, reshape};
use crate::error::{Error, ErrorCode};
use crate::mapping::{Mapped, Mapper};
use crate::project::{Project, SyncSpec};
use crate::store::Store;

/// What a run would do, as `plan --json` prints it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanReport {
    /// Names this plan: the same differences of the same sync give the same name.
    pub plan_id: String,
    /// The sync's number.
    pub sync_id: i64,
    /// The sync's slug.
    pub sync_slug: String,
    /// Why rows are sent: `first_run`, `incremental`, `full_resync`, `new_column:<name>` …
    pub reason: String,
    /// Rows that the model returns.
    pub query_size: u64,
    /// Rows that would be sent.
    pub planned_rows: OperationCounts,
    /// Differences that the mode does not send.
    pub not_sent: OperationCounts,
    /// Rows as the destination last accepted them.
    pub unchanged_count: u64,
    /// Rows whose key occurs more than once.
    pub duplicate_key_count: u64,
    /// Rows whose key holds a null.
    pub null_key_count: u64,
    /// In how many changed rows each column differs.
    pub changed_columns: BTreeMap<String, u64>,
    /// Every guard, and whether it would stop the run.
    pub guards: Vec<Verdict>,
    /// A few rows of each operation.
    pub samples: Vec<Sample>,
    /// A run of the sync is under way: what it has not committed yet is planned too.
    pub run_under_way: bool,
    /// What the warehouse says that this costs; `null` when it cannot say.
    pub estimated_cost: Option<f64>,
}

/// One row of a plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// `added`, `changed`, `removed`, or why the row would be set aside.
    pub operation: String,
    /// The row's key.
    pub key: String,
    /// What would be sent.
    pub fields: Value,
    /// For a changed row, what the destination last accepted in the columns that differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<Value>,
}

/// How many rows of each operation a plan shows.
const SAMPLES: u64 = 3;
/// Beyond so many columns samples show no previous values: engines bound a select's width.
const WIDEST_SAMPLE: usize = 500;

/// What a run would do now. Sends nothing and leaves nothing behind.
pub async fn rehearse(
    project: &Project,
    sync: &Arc<SyncSpec>,
    store: &Store,
    request: Request,
) -> Result<PlanReport, Error> {
    let silent = Silent;
    let run = Run::new(project, sync, store, request, &silent, Cancel::default())?;
    let mut session = run.session(Stage::Plan.name()).await?;
    let mut state = read_state(session.as_mut(), &run).await?;
    if let Some(state) = &mut state {
        prepare::start_over_without_tables(session.as_mut(), &run, state).await?;
    }
    if let Some(state) = &state {
        run.go_on_clearing(state);
    }
    let under_way = state.as_ref().is_some_and(State::is_under_way);
    let described = describe(session.as_mut(), &run).await?;
    let generation = state.as_ref().map_or(0, |s| s.generation) + 1;
    let shape = described.definition.shape();
    let previous: &[Column] = if shape.columns.len() <= WIDEST_SAMPLE { &shape.columns } else { &[] };
    let mapper = Mapper::new(sync, &shape, previous, run_values(&run, generation))?;
    let spec = delivery_spec(sync, &mapper);
    sync.destination.destination.validate(&spec)?;
    if run.start() == Start::ClearAndFill {
        clearing::possible(sync, &spec)?;
    }
    let target = sync.destination.destination.target(&spec);
    let change = match &state {
        Some(state) => prepare::change_of_snapshot(&run, state, &described, &target)?,
        None => Change::Fresh,
    };
    let scope = SyncScope { tables: &run.tables, shape: &shape, model: &described.model };
    let was = state.as_ref().and_then(|state| state.definition.as_ref());
    let change = reshape::possible(session.as_mut(), &run, scope, was, change).await?;
    let alike = change == Change::None
        && state.is_some()
        && alike(session.as_mut(), &run, &described.definition).await?;
    let rehearsal = Rehearsal {
        run: &run,
        alike,
        described: &described,
        state: state.as_ref(),
        change: &change,
        target: &target,
        generation,
        under_way,
    };
    rehearsal.report(session.as_mut(), mapper, previous).await
}

struct Rehearsal<'a> {
    run: &'a Run<'a>,
    alike: bool,
    described: &'a Described,
    state: Option<&'a State>,
    change: &'a Change,
    target: &'a str,
    generation: i64,
    under_way: bool,
}

impl Rehearsal<'_> {
    async fn report(
        &self,
        session: &mut dyn Session,
        mapper: Mapper,
        previous: &[Column],
    ) -> Result<PlanReport, Error> {
        let run = self.run;
        let shape = self.described.definition.shape();
        let scope = SyncScope { tables: &run.tables, shape: &shape, model: &self.described.model };
        // A word of its own, so that no run's tables are touched, not even in a transaction that is undone.
        let of = format!("plan_{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
        let question = self.question(&of);
        let unfinished = Unfinished::find(run, session, self.state, &of).await?;
        let mut before = prepare::create_schemas(session, run).await?;
        let settling = unfinished.as_ref().zip(self.state).map(|(unfinished, state)| {
            let facts =
                unfinished.facts(state, state.generation, state.checkpoint, unfinished.ranges(), true);
            CommitFacts { rehearsed: true, ..facts }
        });
        if let (Some(unfinished), Some(facts)) = (&unfinished, &settling) {
            before.push(Statement::Commit { scope: unfinished.scope(run), facts });
        }
        if let Change::Reshape(reshape) = self.change {
            before.extend(reshape::statements(scope, reshape));
        }
        let full = !question.first;
        let diff_table = run.tables.diff(&of);
        let operations: Vec<Operation> = if full { Operation::ALL.to_vec() } else { vec![Operation::Added] };
        let samples: Vec<DeliverFacts<'_>> = operations
            .iter()
            .map(|operation| DeliverFacts {
                diff: diff_table.clone(),
                diff_shape: if full { DiffShape::Full } else { DiffShape::First },
                operation: operation.name(),
                previous: if *operation == Operation::Changed { previous } else { &[] },
                after: Some(BEFORE_THE_FIRST),
                through: None,
                limit: Some(SAMPLES),
                waits: None,
            })
            .collect();
        let mut careful = false;
        let (effect, counts) = loop {
            let mut script = diff_script(run, scope, &question, careful, Atomicity::Rehearsal, &before)?;
            let mut look = Vec::new();
            if full && !shape.columns.is_empty() {
                look.push(Statement::ChangedColumns { shape: &shape, diff: diff_table.clone() });
            }
            look.extend(samples.iter().map(|facts| Statement::Samples { shape: &shape, facts }));
            if careful {
                look.push(Statement::SetAsideSamples {
                    shape: &shape,
                    set_aside: run.tables.set_aside(&of),
                    limit: SAMPLES,
                });
            }
            script.steps.extend(sql_templates::script(run.dialect(), Atomicity::Rehearsal, &look)?.steps);
            match session.execute(&script).await {
                Ok(effect) => match longest_key(run, &effect).and_then(|()| read_counts(&effect))? {
                    Some(counts) => break (effect, counts),
                    None if !careful => careful = true,
                    None => {
                        return Err(Error::new(
                            ErrorCode::Internal,
                            "keys that were set aside are in the diff",
                        ));
                    }
                },
                Err(e) if e.kind == connectors::warehouse::ErrorKind::UniqueViolation && !careful => {
                    careful = true;
                }
                Err(e) => return Err(failed(run, &shape, e)),
            }
        };
        if let Some(unfinished) = &unfinished {
            let [outcomes, _] = unfinished.tables();
            prune::prune(session, run, &[outcomes]).await?;
        }
        self.read(&effect, counts, mapper, full, previous)
    }

    fn question<'b>(&self, of: &'b str) -> DiffQuestion<'b> {
        let run = self.run;
        let keeps_snapshot = Meaning::of(run.sync.mode).keeps_snapshot();
        let fresh = *self.change == Change::Fresh;
        let doubtful = self.state.is_some_and(|s| s.doubts > 0 || s.delivering.is_some());
        let due = self.state.and_then(|state| due_before(run, state, self.generation));
        let reshaped_due = matches!(self.change, Change::Reshape(r) if !r.due.is_empty());
        DiffQuestion {
            of,
            generation: self.generation,
            first: fresh || !keeps_snapshot || run.start() == Start::ResetCdc,
            plain: self.described.plain,
            compared: self.described.definition.meaning == Meaning::Values,
            in_doubt: doubtful && !fresh && run.start() != Start::ClearAndFill,
            due_before: due.or(reshaped_due.then_some(1)),
            resync: matches!(run.start(), Start::FullResync { .. } | Start::ClearAndFill)
                || self.state.is_some_and(|s| s.due_before > 1),
            alike: self.alike,
        }
    }

    fn read(
        &self,
        effect: &Effect,
        counts: Counts,
        mut mapper: Mapper,
        full: bool,
        previous: &[Column],
    ) -> Result<PlanReport, Error> {
        let run = self.run;
        let shape = self.described.definition.shape();
        let sent = plan::sent_operations(run.sync.mode, run.sync.on_removed, run.start());
        let reset = run.start() == Start::ResetCdc;
        let (planned_rows, not_sent) = if reset { Default::default() } else { plan::split(&counts, &sent) };
        let mut changed_columns = BTreeMap::new();
        if full && !shape.columns.is_empty() {
            let row = only_row(effect.result("count the changed columns"), "the count of changed columns")?;
            for (at, column) in shape.columns.iter().enumerate() {
                let count = row.count(&format!("n{at}"))?;
                if count > 0 {
                    changed_columns.insert(column.name.clone(), count.unsigned_abs());
                }
            }
        }
        let mut samples = Vec::new();
        let shown = [Operation::Added, Operation::Changed, Operation::Removed].into_iter().filter(|_| !reset);
        for operation in shown {
            for batch in effect.result(&format!("sample {}", operation.name())) {
                let previous = if operation == Operation::Changed { previous } else { &[] };
                samples.extend(read_samples(&mut mapper, operation, full, batch, previous)?);
            }
        }
        for row in result_rows(effect.result("sample the keys set aside")) {
            samples.push(Sample {
                operation: row.text("_levin_code")?.unwrap_or_default(),
                key: row.displayed_key(shape.keys.len()),
                fields: serde_json::json!({ "rows": row.integer("_levin_rows")? }),
                previous: None,
            });
        }
        let guards = if reset {
            Vec::new()
        } else {
            plan::verdicts(run, &counts, &sent, self.state.and_then(|s| s.queried))
        };
        let plan_id = self.plan_id(&counts, &changed_columns);
        Ok(PlanReport {
            plan_id,
            sync_id: run.sync.id,
            sync_slug: run.sync.slug.clone(),
            reason: self.reason(),
            query_size: counts.queried,
            planned_rows,
            not_sent,
            unchanged_count: counts.unchanged,
            duplicate_key_count: counts.duplicate_keys,
            null_key_count: counts.null_keys,
            changed_columns,
            guards,
            samples,
            run_under_way: self.under_way,
            estimated_cost: None,
        })
    }

    fn reason(&self) -> String {
        match (self.run.start(), self.change) {
            (Start::FullResync { .. }, _) => "full_resync".to_owned(),
            (Start::ClearAndFill, _) => "clear_and_fill".to_owned(),
            (Start::ResetCdc, _) => "reset_cdc".to_owned(),
            (Start::Incremental, Change::Fresh) => "first_run".to_owned(),
            (Start::Incremental, Change::Reshape(reshape)) => reshape.reasons.join(","),
            (Start::Incremental, Change::None) => "incremental".to_owned(),
        }
    }

    /// A digest of what the plan would send: sync, generation, definition, target and counts.
    fn plan_id(&self, counts: &Counts, changed_columns: &BTreeMap<String, u64>) -> String {
        let mut digest = blake3::Hasher::new();
        digest.update(self.run.project.uuid.as_bytes());
        digest.update(&self.run.sync.id.to_le_bytes());
        digest.update(&self.generation.to_le_bytes());
        digest.update(self.described.definition.text().as_bytes());
        digest.update(self.target.as_bytes());
        digest.update(format!("{counts:?}{changed_columns:?}{:?}", self.run.start()).as_bytes());
        format!("plan_{}", &digest.finalize().to_hex()[..16])
    }
}

fn read_samples(
    mapper: &mut Mapper,
    operation: Operation,
    full: bool,
    batch: &RecordBatch,
    previous: &[Column],
) -> Result<Vec<Sample>, Error> {
    let before = previous_values(batch, previous)?;
    let Mapped { batch: mapped, rejected, superseded } = mapper.map(operation, full, batch)?;
    let unsupported = |e: connectors::json::UnsupportedColumn| {
        Error::new(ErrorCode::ColumnTypeUnsupported, format!("the field `{}` arrives as {}", e.name, e.arrow))
    };
    let encoder = RowEncoder::new(&mapped.fields.schema(), JsonOptions::for_people()).map_err(unsupported)?;
    let bound = encoder.bind(&mapped.fields).map_err(unsupported)?;
    let mut samples = Vec::new();
    let (mut sendable, mut refused) = (0..mapped.len(), rejected.into_iter());
    for (row, result) in result_rows(std::slice::from_ref(batch)).enumerate() {
        let sequence = result.count("_levin_sequence")?;
        if superseded.contains(&sequence) {
            continue;
        }
        // Both are in the order of the batch, and each other row of it is in one of them.
        let (key, fields) = if refused.as_slice().first().is_some_and(|(of, ..)| *of == sequence) {
            let Some((_, key, why)) = refused.next() else { break };
            (key, serde_json::json!({ "error": why.reason }))
        } else {
            let Some(at) = sendable.next() else { break };
            let mut out = Vec::new();
            let fields = match encoder.encode_row(&bound, at, &mut out) {
                Ok(()) => serde_json::from_slice(&out).unwrap_or(Value::Null),
                Err(why) => serde_json::json!({ "error": why.reason }),
            };
            (mapped.keys.value(at).to_owned(), fields)
        };
        let marks = result.text("_levin_changed").ok().flatten();
        let previous = (operation == Operation::Changed).then(|| {
            let marks = marks.unwrap_or_default();
            let values: Map<String, Value> = before
                .get(row)
                .into_iter()
                .flatten()
                .zip(marks.bytes())
                .filter(|(_, mark)| *mark == b'1')
                .map(|((name, value), _)| (name.clone(), value.clone()))
                .collect();
            Value::Object(values)
        });
        samples.push(Sample { operation: operation.name().to_owned(), key, fields, previous });
    }
    Ok(samples)
}

/// The previous values that stand at the end of a sample's columns.
fn previous_values(batch: &RecordBatch, previous: &[Column]) -> Result<Vec<Vec<(String, Value)>>, Error> {
    let offset = batch.num_columns() - previous.len();
    let fields: Vec<arrow::datatypes::Field> = previous
        .iter()
        .enumerate()
        .map(|(at, c)| {
            let array = batch.column(offset + at);
            connectors::change::with_logical_type(
                arrow::datatypes::Field::new(&c.name, array.data_type().clone(), true),
                c.logical,
            )
        })
        .collect();
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let values = RecordBatch::try_new_with_options(
        Arc::new(arrow::datatypes::Schema::new(fields)),
        batch.columns()[offset..].to_vec(),
        &options,
    )
    .map_err(|e| Error::new(ErrorCode::Internal, format!("a sample cannot be read: {e}")))?;
    let unsupported = |e: connectors::json::UnsupportedColumn| {
        Error::new(
            ErrorCode::ColumnTypeUnsupported,
            format!("the column `{}` arrives as {}", e.name, e.arrow),
        )
    };
    let encoder = RowEncoder::new(&values.schema(), JsonOptions::for_people()).map_err(unsupported)?;
    let bound = encoder.bind(&values).map_err(unsupported)?;
    Ok((0..values.num_rows())
        .map(|row| {
            previous
                .iter()
                .enumerate()
                .map(|(at, c)| {
                    let mut out = Vec::new();
                    let value = match encoder.encode_value(&bound, at, row, &mut out) {
                        Ok(()) => serde_json::from_slice(&out).unwrap_or(Value::Null),
                        Err(why) => serde_json::json!({ "error": why.reason }),
                    };
                    (c.name.clone(), value)
                })
                .collect()
        })
        .collect())
}
