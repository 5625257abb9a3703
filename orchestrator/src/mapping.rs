//! From rows of a diff to what the destination takes: plain columns pass untouched, the rest is
//! computed row by row.

mod needed;
mod row;
mod source;
mod template;

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, StringBuilder};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use connectors::change::{ChangeBatch, Mode, Operation, logical_type, with_digits, with_logical_type};
use connectors::json::BoundRows;
use connectors::outcome::Rejection;
use minijinja::Environment;
use sql_templates::{Column, LogicalType, Shape};

use self::needed::References;
pub use self::needed::{Needed, needed, referenced};
use self::row::RowContext;
use self::source::Source;
use self::template::{Compiled, computed_type, environment, plain_column, single_expression};
use crate::error::{Error, ErrorCode};
use crate::project::{Mapping, MappingValue, Mappings, SyncSpec, Variable};

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
                        None => Compiled::Text(
                            connectors::template::read(&self.environment, text).map_err(unreadable)?,
                        ),
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

fn unexpected(what: &str) -> Error {
    Error::new(ErrorCode::Internal, format!("the diff returned {what} where the mapping expects another"))
}

/// The logical types that a schema carries, for messages.
pub fn describe(schema: &Schema) -> Vec<(String, &'static str)> {
    schema.fields().iter().map(|f| (f.name().clone(), logical_type(f).name())).collect()
}
