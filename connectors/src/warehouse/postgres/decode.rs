//! From PostgreSQL's binary COPY to Arrow, without a stop in between.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Float32Builder, Float64Builder, Int16Builder,
    Int32Builder, Int64Builder, RecordBatch, RecordBatchOptions, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use bytes::{Buf, Bytes, BytesMut};
use tokio_postgres::Column;
use tokio_postgres::types::Type;

use crate::warehouse::{ErrorKind, WarehouseError};

/// A batch is handed on once it holds this many rows …
const BATCH_ROWS: usize = 8_192;
/// … or this many bytes of values.
const BATCH_BYTES: usize = 4 << 20;

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";

/// Days from 1970-01-01 to PostgreSQL's day zero, 2000-01-01.
pub(super) const EPOCH_DAYS: i32 = 10_957;
/// The same in microseconds.
pub(super) const EPOCH_MICROSECONDS: i64 = 946_684_800_000_000;

/// Turns the bytes of one `COPY … TO STDOUT (FORMAT binary)` into batches.
///
/// Rows may be cut anywhere between two pieces. An infinite date becomes `i32::MAX` or `i32::MIN`,
/// an infinite timestamp `i64::MAX` or `i64::MIN`; timestamps that Arrow's microseconds since 1970
/// cannot reach (after the year 294247) become `i64::MAX` too.
pub(super) struct Decoder {
    schema: SchemaRef,
    columns: Vec<Builder>,
    rows: usize,
    bytes: usize,
    /// The beginning of a row whose end has not come yet.
    rest: BytesMut,
    header_seen: bool,
    finished: bool,
    fields: Vec<Option<(usize, usize)>>,
}

enum Builder {
    Boolean(BooleanBuilder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Text(StringBuilder),
    Binary(BinaryBuilder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
}

impl Decoder {
    /// Prepares for rows of these columns; a type without an Arrow form is refused by name.
    pub(super) fn new(columns: &[Column]) -> Result<Self, WarehouseError> {
        let mut fields = Vec::with_capacity(columns.len());
        let mut builders = Vec::with_capacity(columns.len());
        for column in columns {
            let (data_type, builder) = Builder::of(column)?;
            fields.push(Field::new(column.name(), data_type, true));
            builders.push(builder);
        }
        Ok(Self {
            schema: Arc::new(Schema::new(fields)),
            fields: Vec::with_capacity(builders.len()),
            columns: builders,
            rows: 0,
            bytes: 0,
            rest: BytesMut::new(),
            header_seen: false,
            finished: false,
        })
    }

    /// Takes the next piece and hands back the batches that it filled.
    pub(super) fn push(&mut self, piece: Bytes) -> Result<Vec<RecordBatch>, WarehouseError> {
        let mut input = if self.rest.is_empty() {
            piece
        } else {
            self.rest.extend_from_slice(&piece);
            std::mem::take(&mut self.rest).freeze()
        };
        let mut full = Vec::new();
        if !self.header_seen {
            self.header_seen = read_header(&mut input)?;
        }
        if self.header_seen {
            while self.read_row(&mut input)? {
                if self.rows >= BATCH_ROWS || self.bytes >= BATCH_BYTES {
                    full.push(self.batch()?);
                }
            }
        }
        self.rest.extend_from_slice(&input);
        Ok(full)
    }

    /// Ends the result: the last rows, when there are any.
    pub(super) fn finish(&mut self) -> Result<Option<RecordBatch>, WarehouseError> {
        if !self.finished || !self.rest.is_empty() {
            return Err(malformed("it ends in the middle of a row"));
        }
        if self.rows == 0 { Ok(None) } else { self.batch().map(Some) }
    }

    /// Reads one row if all of it is there.
    fn read_row(&mut self, input: &mut Bytes) -> Result<bool, WarehouseError> {
        let Some(count) = input.first_chunk::<2>().map(|b| i16::from_be_bytes(*b)) else { return Ok(false) };
        if count == -1 {
            input.advance(2);
            self.finished = true;
            return Ok(false);
        }
        if usize::try_from(count).ok() != Some(self.columns.len()) {
            return Err(malformed("a row has another number of columns than the statement"));
        }
        self.fields.clear();
        let mut at = 2;
        for _ in 0..count {
            let Some(length) = input.get(at..at + 4).and_then(|b| b.first_chunk::<4>()) else {
                return Ok(false);
            };
            at += 4;
            match usize::try_from(i32::from_be_bytes(*length)) {
                Err(_) => self.fields.push(None),
                Ok(length) if input.len() < at + length => return Ok(false),
                Ok(length) => {
                    self.fields.push(Some((at, at + length)));
                    at += length;
                }
            }
        }
        for (i, (column, field)) in self.columns.iter_mut().zip(&self.fields).enumerate() {
            let value = field.map(|(from, to)| &input[from..to]);
            column.append(value).map_err(|e| {
                WarehouseError::new(
                    e.kind,
                    format!("column {:?}: {}", self.schema.field(i).name(), e.message),
                )
            })?;
        }
        input.advance(at);
        self.rows += 1;
        self.bytes += at;
        Ok(true)
    }

    fn batch(&mut self) -> Result<RecordBatch, WarehouseError> {
        let arrays = self.columns.iter_mut().map(Builder::finish).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        self.rows = 0;
        self.bytes = 0;
        RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)
            .map_err(|e| WarehouseError::new(ErrorKind::Other, e.to_string()))
    }
}

impl Builder {
    fn of(column: &Column) -> Result<(DataType, Self), WarehouseError> {
        let microseconds =
            |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
        Ok(match *column.type_() {
            Type::BOOL => (DataType::Boolean, Self::Boolean(BooleanBuilder::new())),
            Type::INT2 => (DataType::Int16, Self::Int16(Int16Builder::new())),
            Type::INT4 => (DataType::Int32, Self::Int32(Int32Builder::new())),
            Type::INT8 => (DataType::Int64, Self::Int64(Int64Builder::new())),
            Type::FLOAT4 => (DataType::Float32, Self::Float32(Float32Builder::new())),
            Type::FLOAT8 => (DataType::Float64, Self::Float64(Float64Builder::new())),
            Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN | Type::JSON => {
                (DataType::Utf8, Self::Text(StringBuilder::new()))
            }
            Type::BYTEA => (DataType::Binary, Self::Binary(BinaryBuilder::new())),
            Type::DATE => (DataType::Date32, Self::Date(Date32Builder::new())),
            Type::TIMESTAMP => (microseconds(None), Self::Timestamp(TimestampMicrosecondBuilder::new())),
            Type::TIMESTAMPTZ => (
                microseconds(Some("UTC")),
                Self::Timestamp(TimestampMicrosecondBuilder::new().with_timezone("UTC")),
            ),
            ref other => {
                return Err(WarehouseError::new(
                    ErrorKind::Unsupported,
                    format!(
                        "column {:?} is of type {}, which has no Arrow form; cast it to text",
                        column.name(),
                        other.name()
                    ),
                ));
            }
        })
    }

    fn append(&mut self, value: Option<&[u8]>) -> Result<(), WarehouseError> {
        match self {
            Self::Boolean(b) => b.append_option(value.map(|v| fixed::<1>(v).map(|[v]| v != 0)).transpose()?),
            Self::Int16(b) => b.append_option(value.map(|v| fixed(v).map(i16::from_be_bytes)).transpose()?),
            Self::Int32(b) => b.append_option(value.map(|v| fixed(v).map(i32::from_be_bytes)).transpose()?),
            Self::Int64(b) => b.append_option(value.map(|v| fixed(v).map(i64::from_be_bytes)).transpose()?),
            Self::Float32(b) => b.append_option(value.map(|v| fixed(v).map(f32::from_be_bytes)).transpose()?),
            Self::Float64(b) => b.append_option(value.map(|v| fixed(v).map(f64::from_be_bytes)).transpose()?),
            Self::Date(b) => {
                b.append_option(value.map(|v| fixed(v).map(|v| date(i32::from_be_bytes(v)))).transpose()?);
            }
            Self::Timestamp(b) => {
                b.append_option(
                    value.map(|v| fixed(v).map(|v| timestamp(i64::from_be_bytes(v)))).transpose()?,
                );
            }
            Self::Binary(b) => b.append_option(value),
            Self::Text(b) => b.append_option(
                value
                    .map(std::str::from_utf8)
                    .transpose()
                    .map_err(|_| WarehouseError::new(ErrorKind::Data, "a value is not valid UTF-8"))?,
            ),
        }
        Ok(())
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Boolean(b) => Arc::new(b.finish()),
            Self::Int16(b) => Arc::new(b.finish()),
            Self::Int32(b) => Arc::new(b.finish()),
            Self::Int64(b) => Arc::new(b.finish()),
            Self::Float32(b) => Arc::new(b.finish()),
            Self::Float64(b) => Arc::new(b.finish()),
            Self::Text(b) => Arc::new(b.finish()),
            Self::Binary(b) => Arc::new(b.finish()),
            Self::Date(b) => Arc::new(b.finish()),
            Self::Timestamp(b) => Arc::new(b.finish()),
        }
    }
}

/// Reads signature, flags and extension if all of it is there.
fn read_header(input: &mut Bytes) -> Result<bool, WarehouseError> {
    let Some(extension) = input.get(15..19).and_then(|b| b.first_chunk::<4>()) else { return Ok(false) };
    if !input.starts_with(SIGNATURE) {
        return Err(malformed("it does not begin with COPY's signature"));
    }
    let Ok(length) = usize::try_from(i32::from_be_bytes(*extension)) else {
        return Err(malformed("its header is wrong"));
    };
    if input.len() < 19 + length {
        return Ok(false);
    }
    input.advance(19 + length);
    Ok(true)
}

fn fixed<const N: usize>(value: &[u8]) -> Result<[u8; N], WarehouseError> {
    value.try_into().map_err(|_| malformed("a value is not as long as its type says"))
}

fn date(days: i32) -> i32 {
    match days {
        i32::MAX | i32::MIN => days,
        finite => finite.saturating_add(EPOCH_DAYS),
    }
}

fn timestamp(microseconds: i64) -> i64 {
    match microseconds {
        i64::MAX | i64::MIN => microseconds,
        finite => finite.saturating_add(EPOCH_MICROSECONDS),
    }
}

fn malformed(what: &str) -> WarehouseError {
    WarehouseError::new(ErrorKind::Other, format!("the server's binary COPY cannot be read: {what}"))
}
