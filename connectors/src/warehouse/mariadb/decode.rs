//! From the text protocol's rows to Arrow.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, Date32Builder, Float64Builder, Int64Builder, RecordBatch, StringBuilder,
    TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use chrono::NaiveDate;
use mysql_async::consts::{ColumnFlags, ColumnType};
use mysql_async::{Column, Row, Value};

use crate::warehouse::{ErrorKind, WarehouseError};

/// Rows of one batch, the most.
const BATCH_ROWS: usize = 8_192;
/// Bytes of values after which a batch is full.
const BATCH_BYTES: usize = 4 << 20;
/// The number of the character set `binary`.
const BINARY: u16 = 63;

/// What a column of a result is called in `dialect.toml`, with its length where that is part of the type.
pub(super) fn engine_type(column: &Column) -> String {
    let unsigned = column.flags().contains(ColumnFlags::UNSIGNED_FLAG);
    match column.column_type() {
        ColumnType::MYSQL_TYPE_TINY
        | ColumnType::MYSQL_TYPE_SHORT
        | ColumnType::MYSQL_TYPE_INT24
        | ColumnType::MYSQL_TYPE_LONG
        | ColumnType::MYSQL_TYPE_LONGLONG => if unsigned { "unsigned" } else { "signed" }.to_owned(),
        ColumnType::MYSQL_TYPE_YEAR => "year".to_owned(),
        ColumnType::MYSQL_TYPE_DECIMAL | ColumnType::MYSQL_TYPE_NEWDECIMAL => {
            let scale = u32::from(column.decimals());
            let signs = u32::from(scale > 0) + u32::from(!unsigned);
            format!("decimal({},{scale})", column.column_length().saturating_sub(signs).max(1))
        }
        ColumnType::MYSQL_TYPE_FLOAT => "float".to_owned(),
        ColumnType::MYSQL_TYPE_DOUBLE => "double".to_owned(),
        ColumnType::MYSQL_TYPE_DATE | ColumnType::MYSQL_TYPE_NEWDATE => "date".to_owned(),
        ColumnType::MYSQL_TYPE_DATETIME | ColumnType::MYSQL_TYPE_DATETIME2 => "datetime(6)".to_owned(),
        ColumnType::MYSQL_TYPE_TIMESTAMP | ColumnType::MYSQL_TYPE_TIMESTAMP2 => "timestamp(6)".to_owned(),
        ColumnType::MYSQL_TYPE_TIME | ColumnType::MYSQL_TYPE_TIME2 => "time(6)".to_owned(),
        ColumnType::MYSQL_TYPE_BIT => "bit".to_owned(),
        ColumnType::MYSQL_TYPE_GEOMETRY => "geometry".to_owned(),
        _ if is_binary(column) => "binary".to_owned(),
        _ => "char".to_owned(),
    }
}

fn is_binary(column: &Column) -> bool {
    column.character_set() == BINARY && column.column_type() != ColumnType::MYSQL_TYPE_NULL
}

/// Collects rows into batches.
pub(super) struct Decoder {
    schema: SchemaRef,
    columns: Vec<Builder>,
    rows: usize,
    bytes: usize,
}

enum Builder {
    Integer(Int64Builder),
    Float(Float64Builder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
    Text(StringBuilder),
    Binary(BinaryBuilder),
}

impl Decoder {
    pub(super) fn new(columns: &[Column]) -> Self {
        let timestamp = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
        let mut fields = Vec::with_capacity(columns.len());
        let mut builders = Vec::with_capacity(columns.len());
        for column in columns {
            let kind = engine_type(column);
            let (data_type, builder) = match kind.split('(').next().unwrap_or_default() {
                "signed" | "year" => (DataType::Int64, Builder::Integer(Int64Builder::new())),
                // The largest do not fit; every digit travels.
                "unsigned" if column.column_type() != ColumnType::MYSQL_TYPE_LONGLONG => {
                    (DataType::Int64, Builder::Integer(Int64Builder::new()))
                }
                "double" | "float" => (DataType::Float64, Builder::Float(Float64Builder::new())),
                "date" => (DataType::Date32, Builder::Date(Date32Builder::new())),
                "datetime" => (timestamp(None), Builder::Timestamp(TimestampMicrosecondBuilder::new())),
                "timestamp" => (
                    timestamp(Some("UTC")),
                    Builder::Timestamp(TimestampMicrosecondBuilder::new().with_timezone("UTC")),
                ),
                "binary" | "bit" | "geometry" => (DataType::Binary, Builder::Binary(BinaryBuilder::new())),
                _ => (DataType::Utf8, Builder::Text(StringBuilder::new())),
            };
            fields.push(Field::new(column.name_str(), data_type, true));
            builders.push(builder);
        }
        Self { schema: Arc::new(Schema::new(fields)), columns: builders, rows: 0, bytes: 0 }
    }

    /// Takes a row; says whether the batch is full.
    pub(super) fn push(&mut self, row: Row) -> Result<bool, WarehouseError> {
        for ((value, builder), field) in
            row.unwrap().into_iter().zip(&mut self.columns).zip(self.schema.fields())
        {
            match value {
                Value::NULL => builder.null(),
                Value::Bytes(bytes) => {
                    self.bytes += bytes.len();
                    builder.push(bytes, field.name())?;
                }
                other => return Err(unreadable(field.name(), &format!("{other:?}"))),
            }
        }
        self.rows += 1;
        Ok(self.rows >= BATCH_ROWS || self.bytes >= BATCH_BYTES)
    }

    /// What was collected; `None` when that is nothing.
    pub(super) fn finish(&mut self) -> Result<Option<RecordBatch>, WarehouseError> {
        if self.rows == 0 {
            return Ok(None);
        }
        (self.rows, self.bytes) = (0, 0);
        let arrays = self.columns.iter_mut().map(Builder::finish).collect();
        RecordBatch::try_new(self.schema.clone(), arrays).map(Some).map_err(|e| {
            WarehouseError::new(ErrorKind::Other, format!("a result does not fit together: {e}"))
        })
    }
}

impl Builder {
    fn null(&mut self) {
        match self {
            Self::Integer(b) => b.append_null(),
            Self::Float(b) => b.append_null(),
            Self::Date(b) => b.append_null(),
            Self::Timestamp(b) => b.append_null(),
            Self::Text(b) => b.append_null(),
            Self::Binary(b) => b.append_null(),
        }
    }

    fn push(&mut self, bytes: Vec<u8>, name: &str) -> Result<(), WarehouseError> {
        if let Self::Binary(builder) = self {
            builder.append_value(&bytes);
            return Ok(());
        }
        // The server checks what it stores in a text column, and converts to UTF-8 what it sends.
        let text = String::from_utf8(bytes).map_err(|e| unreadable(name, &e.to_string()))?;
        let fail = || unreadable(name, &text);
        match self {
            Self::Integer(b) => b.append_value(text.parse().map_err(|_| fail())?),
            Self::Float(b) => b.append_value(text.parse().map_err(|_| fail())?),
            Self::Date(b) => b.append_value(days(&text).ok_or_else(fail)?),
            Self::Timestamp(b) => b.append_value(microseconds(&text).ok_or_else(fail)?),
            Self::Text(b) => b.append_value(&text),
            Self::Binary(_) => {}
        }
        Ok(())
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Integer(b) => Arc::new(b.finish()),
            Self::Float(b) => Arc::new(b.finish()),
            Self::Date(b) => Arc::new(b.finish()),
            Self::Timestamp(b) => Arc::new(b.finish()),
            Self::Text(b) => Arc::new(b.finish()),
            Self::Binary(b) => Arc::new(b.finish()),
        }
    }
}

/// Days since 1970; for a date that is none (`0000-00-00`), what no date is, so that its row alone is refused.
fn days(text: &str) -> Option<i32> {
    let mut parts = text.split('-').map(str::parse::<u32>);
    let (Some(Ok(year)), Some(Ok(month)), Some(Ok(day)), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let date = NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day);
    Some(date.map_or(i32::MAX, |date| date.to_epoch_days()))
}

/// Microseconds since 1970, with [`days`]' exception.
fn microseconds(text: &str) -> Option<i64> {
    let (date, time) = text.split_once(' ')?;
    let day = days(date)?;
    if day == i32::MAX {
        return Some(i64::MAX);
    }
    let (whole, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut parts = whole.split(':').map(str::parse::<i64>);
    let (Some(Ok(hours)), Some(Ok(minutes)), Some(Ok(seconds))) = (parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let micros: i64 = format!("{fraction:0<6}").parse().ok()?;
    let seconds = i64::from(day) * 86_400 + hours * 3_600 + minutes * 60 + seconds;
    Some(seconds * 1_000_000 + micros)
}

fn unreadable(name: &str, value: &str) -> WarehouseError {
    let shown: String = value.chars().take(40).collect();
    WarehouseError::new(
        ErrorKind::Data,
        format!("column `{name}`: the server sent {shown:?}, which cannot be read"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times_are_read_to_the_microsecond() {
        assert_eq!(days("1970-01-02"), Some(1));
        assert_eq!(days("1969-12-31"), Some(-1));
        assert_eq!(days("0000-00-00"), Some(i32::MAX));
        assert_eq!(days("2026-02-00"), Some(i32::MAX));
        assert_eq!(days("2026-02"), None);
        assert_eq!(microseconds("1970-01-01 00:00:01"), Some(1_000_000));
        assert_eq!(microseconds("1970-01-01 00:00:01.5"), Some(1_500_000));
        assert_eq!(microseconds("1969-12-31 23:59:59.999999"), Some(-1));
        assert_eq!(microseconds("0000-00-00 00:00:00.000000"), Some(i64::MAX));
    }
}
