//! From PostgreSQL's binary COPY to Arrow, without a stop in between.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Float32Builder, Float64Builder, Int16Builder,
    Int32Builder, Int64Builder, RecordBatch, RecordBatchOptions, StringArray, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use bytes::{Buf, Bytes, BytesMut};
use tokio_postgres::types::Type;

use super::WireColumn;
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
/// cannot reach (after the year 294247) become `i64::MAX` too. A column of text arrives as `Utf8`, in
/// a batch where one of its values is not valid UTF-8 as `Binary`.
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
    Place(Int64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    /// Bytes until the whole column is known to be valid UTF-8.
    Text(BinaryBuilder),
    Binary(BinaryBuilder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
}

impl Decoder {
    /// Prepares for rows of these columns; a type without an Arrow form is refused by name.
    pub(super) fn new(columns: &[WireColumn]) -> Result<Self, WarehouseError> {
        let mut fields = Vec::with_capacity(columns.len());
        let mut builders = Vec::with_capacity(columns.len());
        for column in columns {
            let (data_type, builder) = Builder::of(column)?;
            fields.push(Field::new(&column.name, data_type, true));
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
        let arrays: Vec<ArrayRef> = self.columns.iter_mut().map(Builder::finish).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        self.rows = 0;
        self.bytes = 0;
        let fields = self.schema.fields();
        let as_described =
            fields.iter().zip(&arrays).all(|(field, array)| field.data_type() == array.data_type());
        let schema = if as_described {
            self.schema.clone()
        } else {
            let of_batch = fields.iter().zip(&arrays);
            Arc::new(Schema::new(
                of_batch
                    .map(|(field, array)| field.as_ref().clone().with_data_type(array.data_type().clone()))
                    .collect::<Vec<_>>(),
            ))
        };
        RecordBatch::try_new_with_options(schema, arrays, &options)
            .map_err(|e| WarehouseError::new(ErrorKind::Other, e.to_string()))
    }
}

impl Builder {
    fn of(column: &WireColumn) -> Result<(DataType, Self), WarehouseError> {
        let microseconds =
            |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
        Ok(match column.wire_type {
            Type::BOOL => (DataType::Boolean, Self::Boolean(BooleanBuilder::new())),
            Type::INT2 => (DataType::Int16, Self::Int16(Int16Builder::new())),
            Type::INT4 => (DataType::Int32, Self::Int32(Int32Builder::new())),
            Type::INT8 => (DataType::Int64, Self::Int64(Int64Builder::new())),
            Type::TID => (DataType::Int64, Self::Place(Int64Builder::new())),
            Type::FLOAT4 => (DataType::Float32, Self::Float32(Float32Builder::new())),
            Type::FLOAT8 => (DataType::Float64, Self::Float64(Float64Builder::new())),
            Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN | Type::JSON => {
                (DataType::Utf8, Self::Text(BinaryBuilder::new()))
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
                        column.name,
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
            Self::Place(b) => b.append_option(value.map(place).transpose()?),
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
            Self::Binary(b) | Self::Text(b) => b.append_option(value),
        }
        Ok(())
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Boolean(b) => Arc::new(b.finish()),
            Self::Int16(b) => Arc::new(b.finish()),
            Self::Int32(b) => Arc::new(b.finish()),
            Self::Int64(b) | Self::Place(b) => Arc::new(b.finish()),
            Self::Float32(b) => Arc::new(b.finish()),
            Self::Float64(b) => Arc::new(b.finish()),
            Self::Text(b) => {
                let bytes = b.finish();
                match StringArray::try_from_binary(bytes.clone()) {
                    Ok(text) => Arc::new(text),
                    Err(_) => Arc::new(bytes),
                }
            }
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

/// A row's place in its table as the dialect numbers it: 32 bits of page and 16 bits of item.
fn place(value: &[u8]) -> Result<i64, WarehouseError> {
    let mut number = [0; 8];
    number[2..].copy_from_slice(&fixed::<6>(value)?);
    Ok(i64::from_be_bytes(number))
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

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{Int32Type, TimestampMicrosecondType};

    use super::super::encode;
    use super::*;

    fn columns() -> Vec<WireColumn> {
        [("n", Type::INT4), ("t", Type::TEXT), ("at", Type::TIMESTAMPTZ)]
            .map(|(name, wire_type)| WireColumn { name: name.into(), wire_type })
            .into()
    }

    /// Three rows as the server would send them, through our own encoder.
    fn copy() -> (RecordBatch, Vec<u8>) {
        let batch = RecordBatch::try_from_iter_with_nullable([
            (
                "n",
                Arc::new(arrow::array::Int32Array::from(vec![Some(i32::MIN), None, Some(7)])) as ArrayRef,
                true,
            ),
            ("t", Arc::new(StringArray::from(vec![None, Some(""), Some("ä")])) as _, true),
            (
                "at",
                Arc::new(
                    arrow::array::TimestampMicrosecondArray::from(vec![
                        Some(-1),
                        Some(i64::MAX),
                        Some(i64::MIN),
                    ])
                    .with_timezone("UTC"),
                ) as _,
                true,
            ),
        ])
        .unwrap();
        let mut bytes = BytesMut::from(encode::HEADER);
        encode::encode(&batch, &columns(), &mut bytes).unwrap();
        bytes.extend_from_slice(encode::TRAILER);
        (batch, bytes.to_vec())
    }

    #[test]
    fn rows_may_be_cut_anywhere() {
        let (sent, bytes) = copy();
        for size in 1..=bytes.len() {
            let mut decoder = Decoder::new(&columns()).unwrap();
            for piece in bytes.chunks(size) {
                assert!(decoder.push(Bytes::copy_from_slice(piece)).unwrap().is_empty());
            }
            let read = decoder.finish().unwrap().expect("three rows");
            assert_eq!(read, sent, "in pieces of {size}");
        }
    }

    #[test]
    fn a_result_that_ends_early_is_an_error() {
        let (_, bytes) = copy();
        for length in 0..bytes.len() {
            let mut decoder = Decoder::new(&columns()).unwrap();
            decoder.push(Bytes::copy_from_slice(&bytes[..length])).unwrap();
            assert!(decoder.finish().is_err(), "after {length} bytes");
        }
    }

    #[test]
    fn what_is_no_copy_is_an_error_and_no_panic() {
        let (_, bytes) = copy();
        for (position, wrong) in [(0, b'X'), (15, 0xff), (20, 9), (24, 3)] {
            let mut bytes = bytes.clone();
            bytes[position] = wrong;
            let mut decoder = Decoder::new(&columns()).unwrap();
            let failed = decoder.push(bytes.into()).and_then(|_| decoder.finish());
            assert!(failed.is_err(), "at {position}");
        }
    }

    #[test]
    fn text_that_is_not_utf8_arrives_as_bytes() {
        let text = ["a", "b"].map(|name| WireColumn { name: name.into(), wire_type: Type::TEXT });
        let read = |rows: &[[Option<&[u8]>; 2]]| {
            let mut bytes = encode::HEADER.to_vec();
            for row in rows {
                bytes.extend_from_slice(&[0, 2]);
                for value in row {
                    let length = value.map_or(-1, |v| i32::try_from(v.len()).unwrap());
                    bytes.extend_from_slice(&length.to_be_bytes());
                    bytes.extend_from_slice(value.unwrap_or_default());
                }
            }
            bytes.extend_from_slice(encode::TRAILER);
            let mut decoder = Decoder::new(&text).unwrap();
            assert!(decoder.push(bytes.into()).unwrap().is_empty());
            decoder.finish().unwrap().expect("rows")
        };
        // Valid only as a whole: a letter is cut between two values.
        let batch = read(&[[Some(b"x"), Some(b"\xc3")], [None, Some(b"\xa4")], [Some(b""), None]]);
        assert_eq!(
            batch.column(0).as_string::<i32>().iter().collect::<Vec<_>>(),
            [Some("x"), None, Some("")]
        );
        assert_eq!(batch.schema().field(1).data_type(), &DataType::Binary);
        let bytes: Vec<_> = batch.column(1).as_binary::<i32>().iter().collect();
        assert_eq!(bytes, [Some(b"\xc3".as_slice()), Some(b"\xa4"), None]);
        let batch = read(&[[Some(b"x"), Some("ä".as_bytes())]]);
        assert_eq!(batch.schema().field(1).data_type(), &DataType::Utf8);
    }

    #[test]
    fn batches_are_cut_by_rows_and_by_bytes() {
        let one = [WireColumn { name: "n".into(), wire_type: Type::INT4 }];
        let mut bytes = encode::HEADER.to_vec();
        for n in 0..20_000_i32 {
            bytes.extend_from_slice(&[0, 1, 0, 0, 0, 4]);
            bytes.extend_from_slice(&n.to_be_bytes());
        }
        bytes.extend_from_slice(encode::TRAILER);
        let mut decoder = Decoder::new(&one).unwrap();
        let mut batches = decoder.push(bytes.into()).unwrap();
        batches.extend(decoder.finish().unwrap());
        assert_eq!(batches.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [8_192, 8_192, 3_616]);
        assert_eq!(batches[2].column(0).as_primitive::<Int32Type>().value(3_615), 19_999);

        let text = [WireColumn { name: "t".into(), wire_type: Type::TEXT }];
        let mut bytes = encode::HEADER.to_vec();
        for _ in 0..5 {
            bytes.extend_from_slice(&[0, 1]);
            bytes.extend_from_slice(&3_000_000_i32.to_be_bytes());
            bytes.extend_from_slice(&vec![b'x'; 3_000_000]);
        }
        bytes.extend_from_slice(encode::TRAILER);
        let mut decoder = Decoder::new(&text).unwrap();
        let mut batches = decoder.push(bytes.into()).unwrap();
        batches.extend(decoder.finish().unwrap());
        assert_eq!(batches.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [2, 2, 1]);
    }

    #[test]
    fn infinities_and_what_lies_too_far_stay_recognisable() {
        assert_eq!((date(0), date(i32::MAX), date(i32::MIN)), (EPOCH_DAYS, i32::MAX, i32::MIN));
        assert_eq!(timestamp(-EPOCH_MICROSECONDS), 0);
        assert_eq!((timestamp(i64::MAX), timestamp(i64::MIN)), (i64::MAX, i64::MIN));
        assert_eq!(timestamp(i64::MAX - 1), i64::MAX);
        let (batch, _) = copy();
        assert_eq!(batch.column(2).as_primitive::<TimestampMicrosecondType>().value(1), i64::MAX);
        assert!(batch.column(0).is_null(1));
    }
}
