//! The rows that travel: batches of one operation, columns in Arrow.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Field, SchemaRef};
use serde::{Deserialize, Serialize};
use sql_templates::LogicalType;

/// What happened to a row since its destination last accepted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// In the model, not in the snapshot.
    Added,
    /// In both, with other values.
    Changed,
    /// In the snapshot, no longer in the model.
    Removed,
}

impl Operation {
    /// Every operation, in the order in which a run sends them: what leaves makes room first.
    pub const ALL: [Self; 3] = [Self::Removed, Self::Changed, Self::Added];

    /// The word that stands in SQL, payloads and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Removed => "removed",
        }
    }
}

/// What a sync does at its destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Sends added rows; compares keys only.
    Insert,
    /// Sends added and changed rows to a destination that updates only what exists.
    Update,
    /// Sends added and changed rows.
    Upsert,
    /// `upsert` with `on_removed: delete` fixed.
    Mirror,
    /// Keys only: added rows join the destination's list, removed rows leave it.
    Segment,
    /// Keys only: added rows join the destination's list, and none leaves it.
    Add,
    /// The model's rows are taken off the destination's list; a row that leaves the model sends nothing.
    Remove,
    /// Sends every row in every run.
    All,
    /// Sends every row in every run to the destination's archive operation.
    Archive,
    /// Writes one file or table per run with the changed rows and their operation.
    Diff,
    /// Writes one file or table per run with the whole result.
    Snapshot,
}

impl Mode {
    /// The word that stands in project files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Upsert => "upsert",
            Self::Mirror => "mirror",
            Self::Segment => "segment",
            Self::Add => "add",
            Self::Remove => "remove",
            Self::All => "all",
            Self::Archive => "archive",
            Self::Diff => "diff",
            Self::Snapshot => "snapshot",
        }
    }

    /// What the destination does with rows that the diff calls by this operation. The two differ in mode
    /// `remove` only: a row that is new in its model is one to be taken off the list.
    pub fn at_destination(self, operation: Operation) -> Operation {
        match (self, operation) {
            (Self::Remove, Operation::Added) => Operation::Removed,
            _ => operation,
        }
    }

    /// The word that payloads and templates give for what the destination does with such rows.
    pub fn word(self, operation: Operation) -> &'static str {
        match self {
            Self::Archive => "archived",
            _ => self.at_destination(operation).name(),
        }
    }

    /// What becomes of a record that is to be removed, where the mode itself says so.
    pub fn fixed_removal(self) -> Option<OnRemoved> {
        matches!(self, Self::Mirror | Self::Segment | Self::Remove).then_some(OnRemoved::Delete)
    }
}

/// What a destination does with a removed row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnRemoved {
    /// The destination keeps the record as it is.
    #[default]
    Nothing,
    /// The mapped fields are set to null.
    Clear,
    /// The record is deleted.
    Delete,
}

/// The key under which a field's [`LogicalType`] stands in its Arrow metadata.
pub const LOGICAL_TYPE: &str = "levin.type";

/// The logical type of a field: from its metadata, else from its Arrow type.
pub fn logical_type(field: &Field) -> LogicalType {
    use arrow::datatypes::DataType as D;
    if let Some(named) = field.metadata().get(LOGICAL_TYPE).and_then(|n| LogicalType::from_name(n)) {
        return named;
    }
    match field.data_type() {
        D::Boolean => LogicalType::Boolean,
        D::Int8 | D::Int16 | D::Int32 | D::Int64 | D::UInt8 | D::UInt16 | D::UInt32 | D::UInt64 => {
            LogicalType::Integer
        }
        D::Decimal128(..) | D::Decimal256(..) => LogicalType::Decimal,
        D::Float16 | D::Float32 | D::Float64 => LogicalType::Float,
        D::Date32 | D::Date64 => LogicalType::Date,
        D::Time32(_) | D::Time64(_) => LogicalType::Time,
        D::Timestamp(_, Some(_)) => LogicalType::TimestampTz,
        D::Timestamp(_, None) => LogicalType::Timestamp,
        D::Binary | D::LargeBinary | D::BinaryView | D::FixedSizeBinary(_) => LogicalType::Binary,
        _ => LogicalType::Text,
    }
}

/// The same field, with its logical type written into the metadata.
pub fn with_logical_type(field: Field, logical: LogicalType) -> Field {
    let mut metadata = field.metadata().clone();
    metadata.insert(LOGICAL_TYPE.to_owned(), logical.name().to_owned());
    field.with_metadata(metadata)
}

/// The key under which a decimal field's [`Digits`] stand in its Arrow metadata.
const DIGITS: &str = "levin.digits";

/// How many digits a decimal type has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digits {
    /// In all.
    pub precision: u8,
    /// After the point.
    pub scale: i8,
}

impl Digits {
    /// What an engine's type says in its parentheses: `DECIMAL(18,2)`, `numeric(10)`. Nothing for a type of
    /// any number of digits.
    pub fn of_type(engine_type: &str) -> Option<Self> {
        let (_, inside) = engine_type.trim_end().strip_suffix(')')?.rsplit_once('(')?;
        let (precision, scale) = inside.split_once(',').unwrap_or((inside, "0"));
        let digits = Self { precision: precision.trim().parse().ok()?, scale: scale.trim().parse().ok()? };
        let whole =
            digits.precision > 0 && digits.scale >= 0 && digits.scale.unsigned_abs() <= digits.precision;
        whole.then_some(digits)
    }
}

/// The digits of a decimal field, where its source knows them.
pub fn digits(field: &Field) -> Option<Digits> {
    Digits::of_type(field.metadata().get(DIGITS)?)
}

/// The same field, with the digits that the engine's type names.
pub fn with_digits(field: Field, engine_type: &str) -> Field {
    let Some(Digits { precision, scale }) = Digits::of_type(engine_type) else { return field };
    let mut metadata = field.metadata().clone();
    metadata.insert(DIGITS.to_owned(), format!("({precision},{scale})"));
    field.with_metadata(metadata)
}

/// The form of Arrow that carries each logical type between warehouse, mapping and destination:
///
/// | logical | Arrow |
/// |---|---|
/// | boolean | `Boolean` |
/// | integer | `Int16`, `Int32`, `Int64`, `UInt64`; `Utf8` digits beyond 64 bits |
/// | decimal, time, interval, uuid, text | `Utf8` |
/// | float | `Float32`, `Float64` |
/// | date | `Date32` |
/// | timestamp, timestamp_tz | `Timestamp` of any unit, the latter with zone `UTC` |
/// | binary | `Binary` |
/// | json | `Utf8` holding one JSON value |
///
/// A warehouse that can hold text which is not valid UTF-8 returns a column of text or JSON as `Binary`
/// in the batches where it meets such a value, and one whose texts are too short for its documents always
/// does; the mapping makes text of it and rejects the rows that are none, so that no destination ever sees one.
///
/// A batch of rows of one operation, mapped to the destination's fields. All columns and vectors
/// have the same length; slicing is cheap.
#[derive(Debug, Clone)]
pub struct ChangeBatch {
    /// What the destination does with every row of this batch: see [`Mode::at_destination`].
    pub operation: Operation,
    /// The position of each row in its diff; names the row inside levin.
    pub sequences: Int64Array,
    /// The canonical text of each row's primary key.
    pub keys: StringArray,
    /// The row version id of each row: equal for a repeat of one delivery, different otherwise.
    pub versions: StringArray,
    /// For `changed` rows the destination fields whose value differs from what was last accepted.
    pub changed: Vec<Arc<[String]>>,
    /// What identifies the record at the destination, under the destination's field names.
    pub identity: RecordBatch,
    /// The mapped fields, under the destination's names. For `removed` rows the last accepted values; in
    /// mode `remove` the model's own.
    pub fields: RecordBatch,
}

impl ChangeBatch {
    /// How many rows the batch holds.
    pub fn len(&self) -> usize {
        self.sequences.len()
    }

    /// Whether the batch holds no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `length` rows from `offset`, sharing the columns' memory.
    ///
    /// # Panics
    /// When the range lies outside the batch.
    #[must_use]
    pub fn slice(&self, offset: usize, length: usize) -> Self {
        Self {
            operation: self.operation,
            sequences: self.sequences.slice(offset, length),
            keys: self.keys.slice(offset, length),
            versions: self.versions.slice(offset, length),
            changed: self.changed[offset..offset + length].to_vec(),
            identity: self.identity.slice(offset, length),
            fields: self.fields.slice(offset, length),
        }
    }

    /// The rows at the given positions, in that order.
    pub fn take(&self, rows: &[usize]) -> Result<Self, arrow::error::ArrowError> {
        let indices: arrow::array::UInt64Array = rows.iter().map(|&r| r as u64).collect();
        let pick = |batch: &RecordBatch| arrow::compute::take_record_batch(batch, &indices);
        let sequences = arrow::compute::take(&self.sequences, &indices, None)?;
        let keys = arrow::compute::take(&self.keys, &indices, None)?;
        let versions = arrow::compute::take(&self.versions, &indices, None)?;
        Ok(Self {
            operation: self.operation,
            sequences: arrow::array::AsArray::as_primitive(&sequences).clone(),
            keys: arrow::array::AsArray::as_string(&keys).clone(),
            versions: arrow::array::AsArray::as_string(&versions).clone(),
            changed: rows.iter().map(|&r| self.changed[r].clone()).collect(),
            identity: pick(&self.identity)?,
            fields: pick(&self.fields)?,
        })
    }

    /// The schema of the mapped fields.
    pub fn schema(&self) -> SchemaRef {
        self.fields.schema()
    }
}
