//! What a person sees of a diff: counts, changed columns, claims, guards and a few rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use connectors::change::Operation;
use connectors::json::{JsonOptions, RowEncoder};
use connectors::warehouse::{Effect, Session};
use serde::Serialize;
use serde_json::{Map, Value};
use sql_templates::{Atomicity, Column, DeliverFacts, DiffShape, Shape, Statement, TableRef, script};

use super::batches::BEFORE_THE_FIRST;
use super::definition::Change;
use super::differences::{Counts, Diff};
use super::meter::Usage;
use super::model::Described;
use super::plan::Verdict;
use super::plans::PlanId;
use super::report::OperationCounts;
use super::rows::only_row;
use super::{Run, Start, plan, reshape, result_rows, run_values};
use crate::error::{Error, ErrorCode};
use crate::mapping::{Mapped, Mapper};

/// What a run would do, as `plan --json` prints it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanReport {
    /// Names this plan. It can be applied when it was saved, or when the run that found the same was stopped.
    pub plan_id: PlanId,
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
    /// Removals among the planned rows that give way to another row with the same matching value.
    pub superseded_count: u64,
    /// Rows among the planned ones that will be rejected because of their matching value, by code.
    pub refused_rows: BTreeMap<String, u64>,
    /// Rows that differ and are parked as dead letters, beside those planned.
    pub parked_count: u64,
    /// New columns whose values of today count as accepted (`on_new_column: keep`).
    pub kept_columns: Vec<String>,
    /// In how many rows they hold a value; `null` when there is no such column, or nobody counted.
    pub kept_count: Option<u64>,
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
    /// Credits that the warehouse says a run costs; `null` when it cannot say.
    pub estimated_cost: Option<f64>,
    /// Bytes that reading the model once scans, as the warehouse estimates without reading it; `null` when it cannot say.
    pub estimated_bytes: Option<u64>,
    /// What making this plan took of the warehouse: a run's diff takes as much.
    pub cost: Usage,
    /// Until when the plan can be applied, RFC 3339; `null` when it was not saved.
    pub expires_at: Option<String>,
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

/// What is to be looked at.
pub(super) struct View<'a> {
    run: &'a Run<'a>,
    shape: &'a Shape,
    /// Columns whose previous values samples show.
    previous: &'a [Column],
    diff: TableRef,
    diff_shape: DiffShape,
    set_aside: Option<TableRef>,
    samples: Vec<DeliverFacts<'a>>,
}

/// What else is known of a plan than what stands in its diff.
pub(super) struct Known<'a> {
    pub(super) generation: i64,
    pub(super) change: &'a Change,
    /// In how many rows of the snapshot a new column was taken as accepted.
    pub(super) taken: Option<u64>,
    pub(super) definition: &'a str,
    pub(super) target: &'a str,
    /// Rows of the model in the last committed run.
    pub(super) queried: Option<i64>,
    pub(super) under_way: bool,
    pub(super) expires_at: Option<String>,
    pub(super) estimated_bytes: Option<u64>,
}

/// Columns whose previous values samples show.
pub(super) fn previous_of(shape: &Shape) -> &[Column] {
    if shape.columns.len() <= WIDEST_SAMPLE { &shape.columns } else { &[] }
}

impl<'a> View<'a> {
    pub(super) fn new(
        run: &'a Run<'a>,
        shape: &'a Shape,
        diff: TableRef,
        diff_shape: DiffShape,
        set_aside: Option<TableRef>,
    ) -> Self {
        let previous = previous_of(shape);
        let full = diff_shape == DiffShape::Full;
        let operations: Vec<Operation> = if full { Operation::ALL.to_vec() } else { vec![Operation::Added] };
        let samples = operations
            .iter()
            .map(|operation| DeliverFacts {
                diff: diff.clone(),
                diff_shape,
                operation: operation.name(),
                previous: if *operation == Operation::Changed { previous } else { &[] },
                after: Some(BEFORE_THE_FIRST),
                through: None,
                limit: Some(SAMPLES),
                waits: None,
            })
            .collect();
        Self { run, shape, previous, diff, diff_shape, set_aside, samples }
    }

    /// The statements that look at the diff.
    pub(super) fn statements(&self) -> Vec<Statement<'_>> {
        let mut look = Vec::new();
        if self.is_full() && !self.shape.columns.is_empty() {
            look.push(Statement::ChangedColumns { shape: self.shape, diff: self.diff.clone() });
        }
        if !self.shape.matching.is_empty() {
            look.push(Statement::Claims { diff: self.diff.clone(), diff_shape: self.diff_shape });
        }
        look.extend(self.samples.iter().map(|facts| Statement::Samples { shape: self.shape, facts }));
        if let Some(set_aside) = &self.set_aside {
            look.push(Statement::SetAsideSamples {
                shape: self.shape,
                set_aside: set_aside.clone(),
                limit: SAMPLES,
            });
        }
        look
    }

    fn is_full(&self) -> bool {
        self.diff_shape == DiffShape::Full
    }

    /// What they found.
    pub(super) fn report(
        &self,
        effect: &Effect,
        counts: &Counts,
        mut mapper: Mapper,
        known: Known<'_>,
    ) -> Result<PlanReport, Error> {
        let (run, shape) = (self.run, self.shape);
        let sent = plan::sent_operations(run.sync.mode, run.sync.on_removed, run.start());
        let reset = run.start() == Start::ResetCdc;
        let (planned_rows, parked_rows, not_sent) =
            if reset { Default::default() } else { plan::split(counts, &sent) };
        let mut changed_columns = BTreeMap::new();
        if self.is_full() && !shape.columns.is_empty() {
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
                let previous = if operation == Operation::Changed { self.previous } else { &[] };
                samples.extend(read_samples(&mut mapper, operation, self.is_full(), batch, previous)?);
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
        let (mut superseded_count, mut refused_rows) = (0, BTreeMap::new());
        for row in result_rows(effect.result("count the claims")).filter(|_| !reset) {
            let operation = row.text("_levin_operation")?.unwrap_or_default();
            let rows = row.count("claims")?.unsigned_abs();
            match row.text("_levin_claim")?.unwrap_or_default() {
                _ if !sent.iter().any(|sent| sent.name() == operation) => {}
                claim if claim == "SUPERSEDED" => superseded_count += rows,
                claim => *refused_rows.entry(claim).or_default() += rows,
            }
        }
        let guards = if reset { Vec::new() } else { plan::verdicts(run, counts, &sent, known.queried) };
        Ok(PlanReport {
            plan_id: PlanId::of(run, known.generation, known.definition, known.target, counts),
            sync_id: run.sync.id,
            sync_slug: run.sync.slug.clone(),
            reason: reason(run.start(), known.change),
            query_size: counts.queried,
            planned_rows,
            not_sent,
            superseded_count,
            refused_rows,
            parked_count: parked_rows.total(),
            kept_columns: reshape::taken(run, known.change).iter().map(|c| c.name.clone()).collect(),
            kept_count: known.taken,
            unchanged_count: counts.unchanged,
            duplicate_key_count: counts.duplicate_keys,
            null_key_count: counts.null_keys,
            changed_columns,
            guards,
            samples,
            run_under_way: known.under_way,
            estimated_cost: None,
            estimated_bytes: known.estimated_bytes,
            cost: run.meter.total(),
            expires_at: known.expires_at,
        })
    }
}

/// Looks at a diff that stands in its table.
pub(super) async fn look(
    session: &mut dyn Session,
    run: &Run<'_>,
    described: &Described,
    diff: &Diff,
    known: Known<'_>,
) -> Result<PlanReport, Error> {
    let shape = described.definition.shape();
    let mapper = Mapper::new(&run.sync, &shape, previous_of(&shape), run_values(run, known.generation))?;
    let view = View::new(run, &shape, diff.table.clone(), diff.shape, diff.set_aside.clone());
    let effect = session.execute(&script(run.dialect(), Atomicity::Transaction, &view.statements())?).await?;
    view.report(&effect, &diff.counts, mapper, known)
}

fn reason(start: Start, change: &Change) -> String {
    match (start, change) {
        (Start::FullResync { .. }, _) => "full_resync".to_owned(),
        (Start::ClearAndFill, _) => "clear_and_fill".to_owned(),
        (Start::ResetCdc, _) => "reset_cdc".to_owned(),
        (Start::Incremental, Change::Fresh) => "first_run".to_owned(),
        (Start::Incremental, Change::Reshape(reshape)) => reshape.reasons.join(","),
        (Start::Incremental, Change::None) => "incremental".to_owned(),
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
