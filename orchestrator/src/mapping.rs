//! From rows of a diff to what the destination takes: plain columns pass untouched, the rest is
//! computed row by row.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, StringBuilder};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use connectors::change::{ChangeBatch, Mode, Operation, logical_type, with_digits, with_logical_type};
use connectors::json::{BoundRows, JsonOptions, RowEncoder, invalid_text};
use connectors::outcome::Rejection;
use minijinja::value::{Enumerator, Object, Value, ValueKind};
use minijinja::{Environment, ErrorKind, UndefinedBehavior};
use sql_templates::{Column, LogicalType, Shape};

use crate::error::{Error, ErrorCode};
use crate::project::{Mapping, MappingValue, Mappings, SyncSpec, Variable};

/// Which columns of a model a sync needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needed {
    /// Columns that take part in the diff beside the key, in the model's order.
    pub tracked: Vec<Column>,
    /// Those among them whose previous value a template reads.
    pub previous: Vec<Column>,
}

/// Finds the columns that a sync needs among those that its model returns.
///
/// # Errors
/// `QUERY_COLUMN_MISSING` for a mapped column that the model does not return.
pub fn needed(sync: &SyncSpec, keys: &[String], described: &[Column]) -> Result<Needed, Error> {
    let whole = sync.destination.connector.whole_rows;
    let mut names = References::default();
    if let Mappings::Fields(fields) = &sync.mappings {
        for field in fields {
            names.visit(&field.value)?;
        }
    } else {
        names.every_row_column = true;
    }
    names.row.extend(sync.matching.iter().map(|m| m.from.clone()));
    for name in names.row.iter().chain(&names.previous) {
        if !described.iter().any(|c| &c.name == name) {
            return Err(Error::new(
                ErrorCode::QueryColumnMissing,
                format!(
                    "sync `{}` maps the column `{name}`, which model `{}` does not return",
                    sync.slug, sync.model.slug
                ),
            )
            .hint(crate::suggestion::hint(
                name,
                &described.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(),
                "columns",
            )));
        }
    }
    let is_key = |c: &&Column| keys.contains(&c.name);
    let tracked: Vec<Column> = described
        .iter()
        .filter(|c| !is_key(c))
        .filter(|c| {
            whole || names.every_row_column || names.row.contains(&c.name) || names.previous.contains(&c.name)
        })
        .cloned()
        .collect();
    let previous = tracked
        .iter()
        .filter(|c| names.every_previous_column || names.previous.contains(&c.name))
        .cloned()
        .collect();
    Ok(Needed { tracked, previous })
}

/// The columns that mappings name.
#[derive(Debug, Default)]
struct References {
    row: BTreeSet<String>,
    previous: BTreeSet<String>,
    every_row_column: bool,
    every_previous_column: bool,
}

impl References {
    fn visit(&mut self, value: &MappingValue) -> Result<(), Error> {
        match value {
            MappingValue::Column(name) => {
                self.row.insert(name.clone());
            }
            MappingValue::Template(text) => {
                let environment = environment();
                let template = environment.template_from_str(text).map_err(|e| {
                    Error::new(
                        ErrorCode::ProjectInvalid,
                        format!("the template `{text}` cannot be read: {e:#}"),
                    )
                })?;
                for name in template.undeclared_variables(true) {
                    match name.split_once('.') {
                        Some(("row", column)) => {
                            self.row.insert(column.split('.').next().unwrap_or(column).to_owned());
                        }
                        Some(("previous", column)) => {
                            self.previous.insert(column.split('.').next().unwrap_or(column).to_owned());
                        }
                        None if name == "row" => self.every_row_column = true,
                        None if name == "previous" => self.every_previous_column = true,
                        _ => {}
                    }
                }
                // A bare `row` beside `row.x` is reported as `row.x` only: dynamic access is told by its bracket.
                self.every_row_column |= text.contains("row[");
                self.every_previous_column |= text.contains("previous[");
                self.every_row_column |= self.every_previous_column;
            }
            MappingValue::Constant(_) | MappingValue::Variable(_) => {}
            MappingValue::Object(fields) => {
                for field in fields {
                    self.visit(&field.value)?;
                }
            }
            MappingValue::Array(values) => {
                for value in values {
                    self.visit(value)?;
                }
            }
        }
        Ok(())
    }
}

/// What is the same for every row of a run.
#[derive(Debug, Clone)]
pub struct RunValues {
    /// The run's number.
    pub run_id: i64,
    /// The generation.
    pub generation: i64,
    /// When the run began, RFC 3339.
    pub run_started_at: String,
    /// The project's uuid, the salt of row version ids.
    pub project: String,
}

/// Maps the rows of one sync. Prepared once per run.
#[derive(Debug)]
pub struct Mapper {
    sync_id: i64,
    sync_slug: String,
    model_slug: String,
    mode: Mode,
    run: RunValues,
    keys: Vec<Column>,
    columns: Vec<Column>,
    previous: Vec<Column>,
    fields: Vec<FieldPlan>,
    identity: Vec<(usize, String)>,
    /// Rows come with what became of the claim on their matching value.
    claims: bool,
    environment: Environment<'static>,
    changed_cache: HashMap<String, Arc<[String]>>,
}

#[derive(Debug)]
struct FieldPlan {
    to: String,
    value: FieldValue,
    logical: LogicalType,
    /// Positions in the tracked columns on which the field depends.
    depends_on: Vec<usize>,
}

#[derive(Debug)]
enum FieldValue {
    /// A column as it is: its position among keys and tracked columns.
    Column(usize),
    /// Everything else is computed.
    Computed(MappingValue),
}

/// The mapped rows of one batch, and those that could not be mapped.
#[derive(Debug)]
pub struct Mapped {
    /// Rows that can be sent.
    pub batch: ChangeBatch,
    /// Rows that cannot, with their sequence and key.
    pub rejected: Vec<(i64, String, Rejection)>,
    /// Sequences of removals that give way to another row with the same matching value.
    pub superseded: Vec<i64>,
}

impl Mapper {
    /// Prepares the mapping of a sync whose diff has this shape.
    pub fn new(sync: &SyncSpec, shape: &Shape, previous: &[Column], run: RunValues) -> Result<Self, Error> {
        let all: Vec<&Column> = shape.keys.iter().chain(&shape.columns).collect();
        let position = |name: &str| all.iter().position(|c| c.name == name);
        let every_column;
        let mappings: &[Mapping] = match &sync.mappings {
            Mappings::Fields(fields) => fields,
            Mappings::AllColumns => {
                every_column = all
                    .iter()
                    .map(|c| Mapping { to: c.name.clone(), value: MappingValue::Column(c.name.clone()) })
                    .collect::<Vec<_>>();
                &every_column
            }
        };
        let fields = mappings
            .iter()
            .map(|mapping| {
                let mut names = References::default();
                names.visit(&mapping.value)?;
                let depends_on = shape
                    .columns
                    .iter()
                    .enumerate()
                    .filter(|(_, c)| names.every_row_column || names.row.contains(&c.name))
                    .map(|(i, _)| i)
                    .collect();
                let plain = plain_column(&mapping.value).and_then(|name| position(&name));
                let (value, logical) = match plain {
                    Some(at) => (FieldValue::Column(at), all[at].logical),
                    None => (FieldValue::Computed(mapping.value.clone()), computed_type(&mapping.value)),
                };
                Ok(FieldPlan { to: mapping.to.clone(), value, logical, depends_on })
            })
            .collect::<Result<Vec<_>, Error>>()?;
        let identity = if sync.matching.is_empty() {
            shape
                .keys
                .iter()
                .enumerate()
                .map(|(at, key)| {
                    let mapped = fields.iter().find(|f| matches!(f.value, FieldValue::Column(c) if c == at));
                    (at, mapped.map_or_else(|| key.name.clone(), |f| f.to.clone()))
                })
                .collect()
        } else {
            sync.matching
                .iter()
                .map(|m| {
                    position(&m.from).map(|at| (at, m.to.clone())).ok_or_else(|| {
                        Error::new(
                            ErrorCode::QueryColumnMissing,
                            format!(
                                "sync `{}` matches by `{}`, which its model does not return",
                                sync.slug, m.from
                            ),
                        )
                    })
                })
                .collect::<Result<Vec<_>, _>>()?
        };
        Ok(Self {
            sync_id: sync.id,
            sync_slug: sync.slug.clone(),
            model_slug: sync.model.slug.clone(),
            mode: sync.mode,
            run,
            keys: shape.keys.clone(),
            columns: shape.columns.clone(),
            previous: previous.to_vec(),
            fields,
            identity,
            claims: !shape.matching.is_empty(),
            environment: environment(),
            changed_cache: HashMap::new(),
        })
    }

    /// The destination fields that identify a record.
    pub fn identity_schema(&self) -> SchemaRef {
        let all: Vec<&Column> = self.keys.iter().chain(&self.columns).collect();
        let fields: Vec<Field> = self
            .identity
            .iter()
            .map(|(at, to)| field(to, arrow_type(all[*at].logical), all[*at].logical))
            .collect();
        Arc::new(Schema::new(fields))
    }

    /// The mapped destination fields.
    pub fn fields_schema(&self) -> SchemaRef {
        let all: Vec<&Column> = self.keys.iter().chain(&self.columns).collect();
        let fields: Vec<Field> = self
            .fields
            .iter()
            .map(|f| {
                let plain = field(&f.to, arrow_type(f.logical), f.logical);
                match f.value {
                    FieldValue::Column(at) if f.logical == LogicalType::Decimal => {
                        with_digits(plain, &all[at].engine_type)
                    }
                    _ => plain,
                }
            })
            .collect();
        Arc::new(Schema::new(fields))
    }

    /// Maps rows as `deliver.sql` returns them: sequence, for a full diff changed columns and
    /// version, for a sync with a matching field what became of its claim, then keys, columns and
    /// previous values.
    pub fn map(&mut self, operation: Operation, full: bool, rows: &RecordBatch) -> Result<Mapped, Error> {
        let sequences = rows
            .column(0)
            .as_primitive_opt::<Int64Type>()
            .cloned()
            .ok_or_else(|| unexpected("a sequence"))?;
        let own = if full { 3 } else { 1 };
        let head = own + usize::from(self.claims);
        let source = Source::new(rows, head, &self.keys, &self.columns, &self.previous, operation)?;
        let (changed_marks, versions) = if full {
            (rows.column(1).as_string_opt::<i32>(), rows.column(2).as_string_opt::<i32>())
        } else {
            (None, None)
        };
        let versions = self.versions(&sequences, versions);
        let mut rejections: HashMap<usize, Rejection> = HashMap::new();
        let mut superseded = Vec::new();
        if self.claims {
            let claims = rows.column(own).as_string_opt::<i32>().ok_or_else(|| unexpected("a claim"))?;
            for (row, claim) in claims.iter().enumerate().filter_map(|(row, claim)| Some((row, claim?))) {
                match refused_claim(claim) {
                    Some(why) => drop(rejections.insert(row, why)),
                    None => superseded.push(row),
                }
            }
        }
        let bound = source.bound()?;
        let keys = self.key_texts(&source, &bound, &mut rejections);
        let changed: Vec<Arc<[String]>> = (0..rows.num_rows())
            .map(|row| match changed_marks.filter(|m| operation == Operation::Changed && m.is_valid(row)) {
                Some(marks) => self.changed_fields(marks.value(row)),
                None => Arc::from([]),
            })
            .collect();
        let changed_columns = |row: usize| -> Vec<String> {
            changed_marks
                .filter(|m| operation == Operation::Changed && m.is_valid(row))
                .map(|m| {
                    self.columns
                        .iter()
                        .zip(m.value(row).chars())
                        .filter(|(_, c)| *c == '1')
                        .map(|(c, _)| c.name.clone())
                        .collect()
                })
                .unwrap_or_default()
        };
        let mut fields = Vec::with_capacity(self.fields.len());
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.fields.len());
        for plan in &self.fields {
            let column = match &plan.value {
                FieldValue::Column(at) => source.sendable(*at, &plan.to, &mut rejections),
                FieldValue::Computed(value) => self.compute(
                    value,
                    plan.logical,
                    operation,
                    &source,
                    &bound,
                    &versions,
                    &changed_columns,
                    &mut rejections,
                )?,
            };
            fields.push(field(&plan.to, column.data_type().clone(), plan.logical));
            columns.push(column);
        }
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let fields = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
            .map_err(|e| {
                Error::new(ErrorCode::Internal, format!("mapped columns do not fit together: {e}"))
            })?;
        let identity = self.identity_batch(&source, &mut rejections)?;
        let operation = self.mode.at_destination(operation);
        let batch = ChangeBatch { operation, sequences, keys, versions, changed, identity, fields };
        if rejections.is_empty() && superseded.is_empty() {
            return Ok(Mapped { batch, rejected: Vec::new(), superseded: Vec::new() });
        }
        let kept: Vec<usize> = (0..batch.len())
            .filter(|row| !rejections.contains_key(row) && superseded.binary_search(row).is_err())
            .collect();
        rejections.retain(|row, _| superseded.binary_search(row).is_err());
        let superseded = superseded.into_iter().map(|row| batch.sequences.value(row)).collect();
        let mut rejected: Vec<_> = rejections.into_iter().collect();
        rejected.sort_by_key(|(row, _)| *row);
        let rejected = rejected
            .into_iter()
            .map(|(row, why)| (batch.sequences.value(row), batch.keys.value(row).to_owned(), why))
            .collect();
        let batch = batch
            .take(&kept)
            .map_err(|e| Error::new(ErrorCode::Internal, format!("cannot take rows: {e}")))?;
        Ok(Mapped { batch, rejected, superseded })
    }

    /// The canonical text of every row's key: a single key as its bare text, a composite one as a
    /// JSON array. Injective within a sync, because a sync's keys have fixed types.
    fn key_texts(
        &self,
        source: &Source,
        bound: &BoundRows<'_>,
        rejections: &mut HashMap<usize, Rejection>,
    ) -> StringArray {
        let mut texts = StringBuilder::new();
        let mut out = Vec::new();
        for row in 0..source.rows {
            out.clear();
            if let Err(why) = Source::write_key(&source.encoder, bound, self.keys.len(), row, &mut out) {
                rejections.entry(row).or_insert(why);
                // The row is refused; its key is for people, as far as it can be shown.
                out.clear();
                let _ = Source::write_key(&source.for_people, bound, self.keys.len(), row, &mut out);
            }
            texts.append_value(String::from_utf8_lossy(&out));
        }
        texts.finish()
    }

    /// Row version ids: a digest of the delivery that the row's version names.
    fn versions(&self, sequences: &Int64Array, reused: Option<&StringArray>) -> StringArray {
        let mut versions = StringBuilder::with_capacity(sequences.len(), sequences.len() * 32);
        let mut delivery = String::new();
        for row in 0..sequences.len() {
            delivery.clear();
            match reused.filter(|r| r.is_valid(row)) {
                Some(reused) => delivery.push_str(reused.value(row)),
                None => {
                    let _ = write!(delivery, "{}.{}", self.run.generation, sequences.value(row));
                }
            }
            versions.append_value(row_version(&self.run.project, self.sync_id, &delivery));
        }
        versions.finish()
    }

    fn changed_fields(&mut self, marks: &str) -> Arc<[String]> {
        if let Some(known) = self.changed_cache.get(marks) {
            return known.clone();
        }
        let marks_set = marks.as_bytes();
        let names: Arc<[String]> = self
            .fields
            .iter()
            .filter(|f| f.depends_on.iter().any(|at| marks_set.get(*at) == Some(&b'1')))
            .map(|f| f.to.clone())
            .collect();
        if self.changed_cache.len() >= 10_000 {
            self.changed_cache.clear();
        }
        self.changed_cache.insert(marks.to_owned(), names.clone());
        names
    }

    fn identity_batch(
        &self,
        source: &Source,
        rejections: &mut HashMap<usize, Rejection>,
    ) -> Result<RecordBatch, Error> {
        // Where no claims are judged, nobody has looked at the matching fields yet.
        let unjudged = matches!(self.mode, Mode::Remove | Mode::Archive);
        let (fields, columns): (Vec<Field>, Vec<ArrayRef>) = self
            .identity
            .iter()
            .map(|(at, to)| {
                let column = source.sendable(*at, to, rejections);
                for row in (0..source.rows).filter(|row| unjudged && column.is_null(*row)) {
                    rejections.entry(row).or_insert_with(|| refused_null(to));
                }
                (field(to, column.data_type().clone(), source.logical(*at)), column)
            })
            .unzip();
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(source.rows));
        RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options).map_err(|e| {
            Error::new(ErrorCode::Internal, format!("the identity's columns do not fit together: {e}"))
        })
    }

    /// One computed column: text where the mapping always gives text, else JSON values.
    #[expect(clippy::too_many_arguments, reason = "all of it is one row's context")]
    fn compute(
        &self,
        value: &MappingValue,
        logical: LogicalType,
        operation: Operation,
        source: &Source,
        bound: &BoundRows<'_>,
        versions: &StringArray,
        changed: &dyn Fn(usize) -> Vec<String>,
        rejections: &mut HashMap<usize, Rejection>,
    ) -> Result<ArrayRef, Error> {
        if let MappingValue::Variable(
            variable @ (Variable::RunId | Variable::SyncId | Variable::Generation),
        ) = value
        {
            let number = match variable {
                Variable::RunId => self.run.run_id,
                Variable::SyncId => self.sync_id,
                _ => self.run.generation,
            };
            return Ok(Arc::new(Int64Array::from_value(number, source.rows)));
        }
        let templates = self.compile(value)?;
        let mut column = StringBuilder::new();
        let mut out = Vec::new();
        for row in 0..source.rows {
            let context = RowContext {
                mapper: self,
                operation,
                source,
                bound,
                versions,
                changed,
                templates: &templates,
                row,
            };
            out.clear();
            let result = if logical == LogicalType::Json {
                context.write_json(value, &mut out).map(|()| true)
            } else {
                context.write_text(value, &mut out)
            };
            match result {
                Ok(true) => column.append_value(String::from_utf8_lossy(&out)),
                Ok(false) => column.append_null(),
                Err(why) => {
                    rejections.entry(row).or_insert(why);
                    column.append_null();
                }
            }
        }
        Ok(Arc::new(column.finish()))
    }

    fn compile<'a>(&'a self, value: &'a MappingValue) -> Result<HashMap<&'a str, Compiled<'a>>, Error> {
        let mut templates = HashMap::new();
        let mut open = vec![value];
        while let Some(value) = open.pop() {
            match value {
                MappingValue::Template(text) => {
                    let unreadable = |e: minijinja::Error| {
                        Error::new(
                            ErrorCode::ProjectInvalid,
                            format!("the template `{text}` cannot be read: {e:#}"),
                        )
                    };
                    // `{{ x }}}` is an expression and a brace: what is no expression by itself is text.
                    let alone = single_expression(text)
                        .and_then(|inner| self.environment.compile_expression(inner).ok());
                    let compiled = match alone {
                        Some(expression) => Compiled::Expression(expression),
                        None => Compiled::Text(self.environment.template_from_str(text).map_err(unreadable)?),
                    };
                    templates.insert(text.as_str(), compiled);
                }
                MappingValue::Object(fields) => open.extend(fields.iter().map(|f| &f.value)),
                MappingValue::Array(values) => open.extend(values),
                MappingValue::Column(_) | MappingValue::Constant(_) | MappingValue::Variable(_) => {}
            }
        }
        Ok(templates)
    }
}

enum Compiled<'a> {
    Expression(minijinja::Expression<'a, 'a>),
    Text(minijinja::Template<'a, 'a>),
}

fn refused_null(field: &str) -> Rejection {
    Rejection::new(Rejection::NULL_MATCH_VALUE, format!("the matching field `{field}` is null"))
}

/// Why a row's claim on its matching value was refused; `None` for a removal that gives way to another
/// row's claim.
fn refused_claim(claim: &str) -> Option<Rejection> {
    let (code, reason) = match claim {
        "NULL_MATCH_VALUE" => (Rejection::NULL_MATCH_VALUE, "the matching field is null"),
        "DUPLICATE_MATCH_VALUE" => (
            Rejection::DUPLICATE_MATCH_VALUE,
            "another row of the model, or one that the destination has, holds the same matching value",
        ),
        "MATCH_VALUE_HELD" => (
            Rejection::MATCH_VALUE_HELD,
            "a removal that must come first, of its old record or of its matching value, was not accepted",
        ),
        _ => return None,
    };
    Some(Rejection::new(code, reason))
}

/// The digest behind a row version id: 32 hexadecimal digits, the same for a repeat of a delivery
/// and different for every other delivery of any sync.
pub fn row_version(project: &str, sync_id: i64, delivery: &str) -> String {
    let named = [project.as_bytes(), &sync_id.to_le_bytes(), delivery.as_bytes()].concat();
    blake3::hash(&named).to_hex()[..32].to_owned()
}

/// The columns of one batch of a diff.
struct Source {
    rows: usize,
    /// Keys and tracked columns, in order; then previous values.
    columns: Vec<ArrayRef>,
    logical: Vec<LogicalType>,
    /// Where each column stands, for templates.
    row: HashMap<String, usize>,
    previous: HashMap<String, usize>,
    encoder: RowEncoder,
    for_people: RowEncoder,
    batch: RecordBatch,
}

impl Source {
    fn new(
        rows: &RecordBatch,
        head: usize,
        keys: &[Column],
        columns: &[Column],
        previous: &[Column],
        operation: Operation,
    ) -> Result<Self, Error> {
        let current: Vec<&Column> = keys.iter().chain(columns).collect();
        let previous: &[Column] = if operation == Operation::Changed { previous } else { &[] };
        if rows.num_columns() != head + current.len() + previous.len() {
            return Err(unexpected("another number of columns"));
        }
        let logical: Vec<LogicalType> =
            current.iter().map(|c| c.logical).chain(previous.iter().map(|c| c.logical)).collect();
        let arrays: Vec<ArrayRef> = rows.columns()[head..].to_vec();
        let fields: Vec<Field> = arrays
            .iter()
            .zip(&logical)
            .enumerate()
            .map(|(at, (array, logical))| field(&at.to_string(), array.data_type().clone(), *logical))
            .collect();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays.clone()).map_err(|e| {
            Error::new(ErrorCode::Internal, format!("columns of the diff do not fit together: {e}"))
        })?;
        let encoder = |options| {
            RowEncoder::new(&batch.schema(), options).map_err(|e| {
                Error::new(
                    ErrorCode::ColumnTypeUnsupported,
                    format!("a column arrives as {}, which has no form on the wire", e.arrow),
                )
            })
        };
        let (encoder, for_people) = (encoder(JsonOptions::default())?, encoder(JsonOptions::for_people())?);
        let row = current.iter().enumerate().map(|(at, c)| (c.name.clone(), at)).collect();
        // For removed rows the last accepted values are the row; templates see them as `previous` too.
        let previous = match operation {
            Operation::Removed => current.iter().enumerate().map(|(at, c)| (c.name.clone(), at)).collect(),
            _ => previous.iter().enumerate().map(|(at, c)| (c.name.clone(), current.len() + at)).collect(),
        };
        Ok(Self {
            rows: rows.num_rows(),
            columns: arrays,
            logical,
            row,
            previous,
            encoder,
            for_people,
            batch,
        })
    }

    fn column(&self, at: usize) -> &ArrayRef {
        &self.columns[at]
    }

    /// A column as destinations take it. Where it came as bytes because not all of its text is valid
    /// UTF-8, the rows that hold such text are refused.
    fn sendable(&self, at: usize, to: &str, rejections: &mut HashMap<usize, Rejection>) -> ArrayRef {
        let column = &self.columns[at];
        let raw = column.as_binary_opt::<i32>().filter(|_| self.logical[at] != LogicalType::Binary);
        let Some(raw) = raw else { return column.clone() };
        let texts = raw.iter().enumerate().map(|(row, bytes)| match std::str::from_utf8(bytes?) {
            Ok(text) => Some(text),
            Err(_) => {
                rejections.entry(row).or_insert_with(|| invalid_text(to));
                None
            }
        });
        Arc::new(texts.collect::<StringArray>())
    }

    fn logical(&self, at: usize) -> LogicalType {
        self.logical[at]
    }

    fn bound(&self) -> Result<BoundRows<'_>, Error> {
        self.encoder
            .bind(&self.batch)
            .map_err(|e| Error::new(ErrorCode::Internal, format!("a column arrives as {}", e.arrow)))
    }

    fn write_key(
        encoder: &RowEncoder,
        bound: &BoundRows<'_>,
        keys: usize,
        row: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Rejection> {
        if keys == 1 {
            encoder.encode_text(bound, 0, row, out)?;
            return Ok(());
        }
        for at in 0..keys {
            out.push(if at == 0 { b'[' } else { b',' });
            encoder.encode_value(bound, at, row, out)?;
        }
        out.push(b']');
        Ok(())
    }
}

struct RowContext<'a> {
    mapper: &'a Mapper,
    operation: Operation,
    source: &'a Source,
    bound: &'a BoundRows<'a>,
    versions: &'a StringArray,
    changed: &'a dyn Fn(usize) -> Vec<String>,
    templates: &'a HashMap<&'a str, Compiled<'a>>,
    row: usize,
}

impl RowContext<'_> {
    fn write_json(&self, value: &MappingValue, out: &mut Vec<u8>) -> Result<(), Rejection> {
        match value {
            MappingValue::Column(name) => {
                let at = self.source.row.get(name).copied().ok_or_else(|| failed("a column is missing"))?;
                self.source.encoder.encode_value(self.bound, at, self.row, out)
            }
            MappingValue::Template(text) => {
                let value = self.evaluate(text)?;
                if !is_finite(&value) {
                    return Err(Rejection::new(
                        Rejection::UNREPRESENTABLE_VALUE,
                        "a template computes NaN or an infinity, which JSON cannot hold",
                    ));
                }
                serde_json::to_writer(out, &value).map_err(|e| failed(&format!("its result is no JSON: {e}")))
            }
            MappingValue::Constant(value) => {
                serde_json::to_writer(out, value).map_err(|e| failed(&format!("a constant is no JSON: {e}")))
            }
            MappingValue::Variable(variable) => {
                let value = match variable {
                    Variable::RunId => Value::from(self.mapper.run.run_id),
                    Variable::SyncId => Value::from(self.mapper.sync_id),
                    Variable::Generation => Value::from(self.mapper.run.generation),
                    _ => Value::from(self.variable_text(*variable)),
                };
                serde_json::to_writer(out, &value).map_err(|e| failed(&e.to_string()))
            }
            MappingValue::Object(fields) => {
                out.push(b'{');
                for (at, field) in fields.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    serde_json::to_writer(&mut *out, &field.to).map_err(|e| failed(&e.to_string()))?;
                    out.push(b':');
                    self.write_json(&field.value, out)?;
                }
                out.push(b'}');
                Ok(())
            }
            MappingValue::Array(values) => {
                out.push(b'[');
                for (at, value) in values.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    self.write_json(value, out)?;
                }
                out.push(b']');
                Ok(())
            }
        }
    }

    /// The bare text of a value that is always text; `false` for null.
    fn write_text(&self, value: &MappingValue, out: &mut Vec<u8>) -> Result<bool, Rejection> {
        match value {
            MappingValue::Template(text) => {
                let value = self.evaluate(text)?;
                if value.is_none() || value.is_undefined() {
                    return Ok(false);
                }
                out.extend_from_slice(value.to_string().as_bytes());
                Ok(true)
            }
            MappingValue::Constant(serde_json::Value::String(text)) => {
                out.extend_from_slice(text.as_bytes());
                Ok(true)
            }
            MappingValue::Constant(serde_json::Value::Null) => Ok(false),
            MappingValue::Constant(other) => {
                out.extend_from_slice(other.to_string().as_bytes());
                Ok(true)
            }
            MappingValue::Variable(variable) => {
                out.extend_from_slice(self.variable_text(*variable).as_bytes());
                Ok(true)
            }
            MappingValue::Column(_) | MappingValue::Object(_) | MappingValue::Array(_) => {
                self.write_json(value, out).map(|()| true)
            }
        }
    }

    fn variable_text(&self, variable: Variable) -> String {
        let mapper = self.mapper;
        match variable {
            Variable::RunId => mapper.run.run_id.to_string(),
            Variable::SyncId => mapper.sync_id.to_string(),
            Variable::SyncSlug => mapper.sync_slug.clone(),
            Variable::ModelSlug => mapper.model_slug.clone(),
            Variable::Operation => mapper.mode.word(self.operation).to_owned(),
            Variable::RowVersion => self.versions.value(self.row).to_owned(),
            Variable::Generation => mapper.run.generation.to_string(),
            Variable::RunStartedAt => mapper.run.run_started_at.clone(),
        }
    }

    fn evaluate(&self, text: &str) -> Result<Value, Rejection> {
        let mapper = self.mapper;
        let context = minijinja::context! {
            row => Value::from_object(self.values(&self.source.row)?),
            previous => Value::from_object(self.values(&self.source.previous)?),
            changed => (self.changed)(self.row),
            run_id => mapper.run.run_id,
            sync_id => mapper.sync_id,
            sync_slug => mapper.sync_slug.as_str(),
            model_slug => mapper.model_slug.as_str(),
            operation => mapper.mode.word(self.operation),
            row_version => self.versions.value(self.row),
            generation => mapper.run.generation,
            run_started_at => mapper.run.run_started_at.as_str(),
        };
        let result = match self.templates.get(text) {
            Some(Compiled::Expression(expression)) => expression.eval(context),
            Some(Compiled::Text(template)) => template.render(context).map(Value::from),
            None => return Err(failed("it was not prepared")),
        };
        result.map_err(|e| failed(&template_message(&e)))
    }

    fn values(&self, names: &HashMap<String, usize>) -> Result<RowValues, Rejection> {
        let mut values = HashMap::with_capacity(names.len());
        let mut out = Vec::new();
        for (name, at) in names {
            out.clear();
            let column = self.source.column(*at);
            let value = if column.is_null(self.row) {
                Value::from(())
            } else {
                match (self.source.logical(*at), column.data_type()) {
                    (LogicalType::Boolean, DataType::Boolean) => {
                        Value::from(column.as_boolean().value(self.row))
                    }
                    (LogicalType::Json, _) => {
                        self.source.encoder.encode_value(self.bound, *at, self.row, &mut out)?;
                        serde_json::from_slice::<Value>(&out).map_err(|e| failed(&e.to_string()))?
                    }
                    (logical, _) => {
                        self.source.encoder.encode_text(self.bound, *at, self.row, &mut out)?;
                        let text = String::from_utf8_lossy(&out);
                        match logical {
                            LogicalType::Integer => {
                                text.parse::<i128>().map_or_else(|_| Value::from(text.as_ref()), Value::from)
                            }
                            LogicalType::Float => {
                                text.parse::<f64>().map_or_else(|_| Value::from(text.as_ref()), Value::from)
                            }
                            _ => Value::from(text.as_ref()),
                        }
                    }
                }
            };
            values.insert(name.clone(), value);
        }
        Ok(RowValues { values })
    }
}

/// A row as templates see it: unknown names are errors, nulls are none.
#[derive(Debug)]
struct RowValues {
    values: HashMap<String, Value>,
}

impl Object for RowValues {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.values.get(key.as_str()?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let mut names: Vec<&String> = self.values.keys().collect();
        names.sort();
        Enumerator::Values(names.into_iter().map(|n| Value::from(n.as_str())).collect())
    }
}

/// Filters of text that give null for null; the engine's own would print the word.
const NULL_PROPAGATING: &[&str] = &[
    "upper",
    "lower",
    "title",
    "capitalize",
    "trim",
    "replace",
    "length",
    "int",
    "float",
    "round",
    "abs",
    "string",
    "split",
];

/// The most steps that a template takes for one value of one row.
const STEPS: u64 = 1_000_000;

/// The environment of mapping templates.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(STEPS));
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_formatter(|out, state, value| {
        if value.is_none() { Ok(()) } else { minijinja::escape_formatter(out, state, value) }
    });
    let plain = Arc::new(Environment::new());
    for name in NULL_PROPAGATING {
        let plain = plain.clone();
        environment.add_filter(*name, move |value: Value, rest: minijinja::value::Rest<Value>| {
            if value.is_none() {
                return Ok(value);
            }
            let mut arguments = vec![value];
            arguments.extend(rest.iter().cloned());
            plain.empty_state().apply_filter(name, &arguments)
        });
    }
    environment
}

/// The inside of a template that is one expression and nothing else.
fn single_expression(text: &str) -> Option<&str> {
    let inner = text.trim().strip_prefix("{{")?.strip_suffix("}}")?;
    (!inner.contains("{{") && !inner.contains("}}") && !inner.contains("{%")).then_some(inner.trim())
}

/// The column of a mapping that only names one.
fn plain_column(value: &MappingValue) -> Option<String> {
    match value {
        MappingValue::Column(name) => Some(name.clone()),
        MappingValue::Template(text) => {
            let name = single_expression(text)?.strip_prefix("row.")?;
            name.chars().all(|c| c.is_alphanumeric() || c == '_').then(|| name.to_owned())
        }
        _ => None,
    }
}

/// The logical type of a computed field, the same for every row: text where the mapping can give
/// nothing else, a whole number for numbers of the run, JSON for whatever a value may turn out to be.
fn computed_type(value: &MappingValue) -> LogicalType {
    const TEXT_FILTERS: &[&str] = &[
        "upper",
        "lower",
        "title",
        "capitalize",
        "trim",
        "replace",
        "string",
        "join",
        "format",
        "tojson",
        "urlencode",
    ];
    match value {
        MappingValue::Template(text) => match single_expression(text) {
            None => LogicalType::Text,
            Some(inner) => {
                let last = inner.rsplit('|').next().unwrap_or_default().trim();
                let filter = last.split('(').next().unwrap_or_default().trim();
                let text = inner.contains('|') && TEXT_FILTERS.contains(&filter);
                if text { LogicalType::Text } else { LogicalType::Json }
            }
        },
        MappingValue::Constant(serde_json::Value::String(_)) => LogicalType::Text,
        MappingValue::Variable(Variable::RunId | Variable::SyncId | Variable::Generation) => {
            LogicalType::Integer
        }
        MappingValue::Variable(Variable::RunStartedAt) => LogicalType::Text,
        MappingValue::Variable(_) => LogicalType::Text,
        MappingValue::Constant(_)
        | MappingValue::Column(_)
        | MappingValue::Object(_)
        | MappingValue::Array(_) => LogicalType::Json,
    }
}

/// The Arrow type in which a logical type usually travels; what really arrives may be narrower.
fn arrow_type(logical: LogicalType) -> DataType {
    use arrow::datatypes::TimeUnit::Microsecond;
    match logical {
        LogicalType::Boolean => DataType::Boolean,
        LogicalType::Integer => DataType::Int64,
        LogicalType::Float => DataType::Float64,
        LogicalType::Date => DataType::Date32,
        LogicalType::Timestamp => DataType::Timestamp(Microsecond, None),
        LogicalType::TimestampTz => DataType::Timestamp(Microsecond, Some("UTC".into())),
        LogicalType::Binary => DataType::Binary,
        _ => DataType::Utf8,
    }
}

fn field(name: &str, data_type: DataType, logical: LogicalType) -> Field {
    with_logical_type(Field::new(name, data_type, true), logical)
}

fn failed(why: &str) -> Rejection {
    Rejection::new(Rejection::TEMPLATE_FAILED, format!("a mapping failed: {why}"))
}

/// Whether no number in it is NaN or an infinity, which JSON would turn into null unasked.
fn is_finite(value: &Value) -> bool {
    match value.kind() {
        ValueKind::Number => f64::try_from(value.clone()).is_ok_and(f64::is_finite) || value.is_integer(),
        ValueKind::Map => value
            .try_iter()
            .is_ok_and(|mut keys| keys.all(|key| value.get_item(&key).is_ok_and(|item| is_finite(&item)))),
        ValueKind::String | ValueKind::Bytes => true,
        _ => value.try_iter().into_iter().flatten().all(|item| is_finite(&item)),
    }
}

fn template_message(error: &minijinja::Error) -> String {
    match error.kind() {
        ErrorKind::UndefinedError => format!("it uses a name that is not there: {error}"),
        ErrorKind::OutOfFuel => "it takes too many steps; shorten its loops".to_owned(),
        _ => error.to_string(),
    }
}

fn unexpected(what: &str) -> Error {
    Error::new(ErrorCode::Internal, format!("the diff returned {what} where the mapping expects another"))
}

/// The logical types that a schema carries, for messages.
pub fn describe(schema: &Schema) -> Vec<(String, &'static str)> {
    schema.fields().iter().map(|f| (f.name().clone(), logical_type(f).name())).collect()
}
