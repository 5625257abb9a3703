//! Rows as columns of a Parquet file, typed as far as their types are known before the first row.
//!
//! | logical | Parquet |
//! |---|---|
//! | boolean, float, date, binary | as they are; NaN and the infinities have a form here |
//! | integer | 64 bits; what does not fit is rejected |
//! | decimal | decimal of its precision and scale; text where the source knows none (`numeric` without digits) |
//! | timestamp, timestamp_tz | microseconds (nanoseconds where the source has them), the latter adjusted to UTC |
//! | text, json, time, interval, uuid | text, written as in JSON Lines |
//!
//! A row group is written out as soon as it holds [`ROW_GROUP`] bytes, so memory stays flat.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, StringBuilder};
use arrow::compute::{CastOptions, cast_with_options, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use sql_templates::LogicalType;

use super::rows::{OPERATION, same_names};
use crate::change::{ChangeBatch, Digits, digits, logical_type};
use crate::json::{JsonOptions, NonFinite, RowEncoder};
use crate::outcome::{Rejection, RowOutcome};

/// The bytes after which a row group is written out.
const ROW_GROUP: usize = 16 << 20;
/// The most digits of Parquet's decimals.
const MOST_DIGITS: u8 = 76;

/// How rows become columns.
#[derive(Debug, Clone)]
pub(super) struct Columns {
    fields: SchemaRef,
    with_operation: bool,
    non_finite: NonFinite,
}

/// A file that is being written; its finished bytes are taken out piece by piece.
pub(super) struct ParquetFile {
    writer: ArrowWriter<Vec<u8>>,
    schema: SchemaRef,
}

impl Columns {
    pub(super) fn new(fields: &SchemaRef, with_operation: bool, non_finite: NonFinite) -> Self {
        Self { fields: fields.clone(), with_operation, non_finite }
    }

    /// Begins a file for rows that come like these.
    pub(super) fn begin(&self, first: Option<&RecordBatch>) -> Result<ParquetFile, String> {
        let operation = self.with_operation.then(|| Field::new(OPERATION, DataType::Utf8, false));
        let columns = self.fields.fields().iter().map(|field| {
            let comes = first.and_then(|rows| rows.schema().field_with_name(field.name()).ok().cloned());
            let comes = comes.map_or_else(|| field.data_type().clone(), |f| f.data_type().clone());
            Field::new(field.name(), column_type(field, &comes), true)
        });
        let schema = Arc::new(Schema::new(operation.into_iter().chain(columns).collect::<Vec<_>>()));
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_created_by(concat!("levin ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        let writer =
            ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties)).map_err(|e| e.to_string())?;
        Ok(ParquetFile { writer, schema })
    }

    /// Takes in every row that has a form; each has its outcome, in order.
    pub(super) fn write(
        &self,
        batch: &ChangeBatch,
        file: &mut ParquetFile,
    ) -> Result<Vec<RowOutcome>, String> {
        if !same_names(&batch.schema(), &self.fields) {
            return Err("the rows have other fields than the sync".into());
        }
        let mut outcomes = vec![RowOutcome::Deferred; batch.len()];
        let mut columns: Vec<ArrayRef> = Vec::new();
        if self.with_operation {
            let names = std::iter::repeat_n(batch.operation.name(), batch.len());
            columns.push(Arc::new(StringArray::from_iter_values(names)));
        }
        // Text is written as everywhere else.
        let encoder = RowEncoder::new(&batch.schema(), JsonOptions::default()).map_err(|e| e.to_string())?;
        let bound = encoder.bind(&batch.fields).map_err(|e| e.to_string())?;
        for (at, column) in batch.fields.columns().iter().enumerate() {
            let wanted = file.schema.field(columns.len());
            let logical = logical_type(&self.fields.fields()[at]);
            let refuse = |row: usize, why: String, outcomes: &mut Vec<RowOutcome>| {
                if outcomes[row] == RowOutcome::Deferred {
                    let why = format!("`{}`: {why}", wanted.name());
                    outcomes[row] =
                        RowOutcome::Rejected(Rejection::new(Rejection::UNREPRESENTABLE_VALUE, why));
                }
            };
            let written: ArrayRef = if is_text(logical, wanted.data_type()) {
                let mut texts = StringBuilder::new();
                let mut text = Vec::new();
                for (row, outcome) in outcomes.iter_mut().enumerate() {
                    text.clear();
                    match encoder.encode_text(&bound, at, row, &mut text) {
                        Ok(true) => texts.append_value(String::from_utf8_lossy(&text)),
                        Ok(false) => texts.append_null(),
                        Err(rejection) => {
                            texts.append_null();
                            if *outcome == RowOutcome::Deferred {
                                *outcome = RowOutcome::Rejected(rejection);
                            }
                        }
                    }
                }
                Arc::new(texts.finish())
            } else {
                let column = self.without_non_finite(column, logical);
                let safe = CastOptions { safe: true, ..CastOptions::default() };
                let cast =
                    cast_with_options(&column, wanted.data_type(), &safe).map_err(|e| e.to_string())?;
                for row in (0..batch.len()).filter(|&row| column.is_valid(row)) {
                    if cast.is_null(row) {
                        let why =
                            format!("the value is no {logical} of this column", logical = logical.name());
                        refuse(row, why, &mut outcomes);
                    } else if let Some(why) = loses_digits(&column, row, wanted.data_type()) {
                        refuse(row, why, &mut outcomes);
                    }
                }
                cast
            };
            columns.push(written);
        }
        let rows = RecordBatch::try_new(file.schema.clone(), columns).map_err(|e| e.to_string())?;
        let kept: BooleanArray = outcomes.iter().map(|o| Some(*o == RowOutcome::Deferred)).collect();
        let rows = filter_record_batch(&rows, &kept).map_err(|e| e.to_string())?;
        if rows.num_rows() > 0 {
            file.writer.write(&rows).map_err(|e| e.to_string())?;
        }
        if file.writer.in_progress_size() >= ROW_GROUP {
            file.writer.flush().map_err(|e| e.to_string())?;
        }
        Ok(outcomes)
    }

    /// NaN and the infinities have a form here, unless null is asked for.
    fn without_non_finite(&self, column: &ArrayRef, logical: LogicalType) -> ArrayRef {
        if self.non_finite != NonFinite::Null || logical != LogicalType::Float {
            return column.clone();
        }
        match column.data_type() {
            DataType::Float64 => Arc::new(
                column
                    .as_primitive::<arrow::datatypes::Float64Type>()
                    .iter()
                    .map(|v| v.filter(|v| v.is_finite()))
                    .collect::<arrow::array::Float64Array>(),
            ),
            DataType::Float32 => Arc::new(
                column
                    .as_primitive::<arrow::datatypes::Float32Type>()
                    .iter()
                    .map(|v| v.filter(|v| v.is_finite()))
                    .collect::<arrow::array::Float32Array>(),
            ),
            _ => column.clone(),
        }
    }
}

impl ParquetFile {
    /// The bytes that were finished since the last time.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(self.writer.inner_mut())
    }

    /// Ends the file; what is left of it can be taken then.
    pub(super) fn finish(&mut self) -> Result<(), String> {
        self.writer.finish().map(drop).map_err(|e| e.to_string())
    }
}

/// The type of a column whose values come as `comes`.
fn column_type(field: &Field, comes: &DataType) -> DataType {
    let precise = |zone: Option<Arc<str>>| match comes {
        DataType::Timestamp(TimeUnit::Nanosecond, _) => DataType::Timestamp(TimeUnit::Nanosecond, zone),
        _ => DataType::Timestamp(TimeUnit::Microsecond, zone),
    };
    match logical_type(field) {
        LogicalType::Boolean => DataType::Boolean,
        LogicalType::Integer => DataType::Int64,
        LogicalType::Float => match comes {
            DataType::Float32 => DataType::Float32,
            _ => DataType::Float64,
        },
        LogicalType::Decimal => match digits(field) {
            Some(Digits { precision, scale }) if precision <= 38 => DataType::Decimal128(precision, scale),
            Some(Digits { precision, scale }) if precision <= MOST_DIGITS => {
                DataType::Decimal256(precision, scale)
            }
            _ => DataType::Utf8,
        },
        LogicalType::Date => DataType::Date32,
        LogicalType::Timestamp => precise(None),
        LogicalType::TimestampTz => precise(Some("UTC".into())),
        LogicalType::Binary => DataType::Binary,
        _ => DataType::Utf8,
    }
}

fn is_text(logical: LogicalType, column: &DataType) -> bool {
    // A column of the destination that is called text and came as something else is text too.
    *column == DataType::Utf8 && logical != LogicalType::Boolean
}

/// A cast rounds what has more digits than the column; no value is to be changed on its way.
fn loses_digits(column: &ArrayRef, row: usize, wanted: &DataType) -> Option<String> {
    let (DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale)) = wanted else { return None };
    let text = column.as_string_opt::<i32>()?.value(row);
    let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction).trim_end_matches('0');
    let most = usize::try_from(*scale).unwrap_or(0);
    (fraction.len() > most).then(|| format!("{text} has more than {most} digits after the point"))
}
