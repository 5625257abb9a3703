//! From Arrow to PostgreSQL's binary COPY, for the small tables that levin loads.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType,
};
use bytes::{BufMut, BytesMut};
use tokio_postgres::Column;
use tokio_postgres::types::Type;

use super::decode::{EPOCH_DAYS, EPOCH_MICROSECONDS};
use crate::warehouse::{ErrorKind, WarehouseError};

/// What a COPY begins with: signature, no flags, no extension.
pub(super) const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What a COPY ends with.
pub(super) const TRAILER: &[u8] = &[0xff, 0xff];

/// Writes the rows of a batch, whose columns stand in the order of `columns`. Values are cast to
/// the columns' types first; one that does not fit is an error of kind [`ErrorKind::Data`].
pub(super) fn encode(
    batch: &RecordBatch,
    columns: &[Column],
    out: &mut BytesMut,
) -> Result<(), WarehouseError> {
    let arrays: Vec<Encoded> = batch
        .columns()
        .iter()
        .zip(columns)
        .map(|(array, column)| Encoded::new(array, column))
        .collect::<Result<_, _>>()?;
    let count = i16::try_from(arrays.len())
        .map_err(|_| WarehouseError::new(ErrorKind::Unsupported, "too many columns to load"))?;
    for row in 0..batch.num_rows() {
        out.put_i16(count);
        for array in &arrays {
            array.put(row, out);
        }
    }
    Ok(())
}

/// Refuses columns that [`encode`] has no form for, before anything is sent.
pub(super) fn check(columns: &[Column]) -> Result<(), WarehouseError> {
    columns.iter().try_for_each(|column| target(column).map(drop))
}

struct Encoded {
    array: ArrayRef,
    kind: DataType,
}

impl Encoded {
    fn new(array: &ArrayRef, column: &Column) -> Result<Self, WarehouseError> {
        let kind = target(column)?;
        let data = |e: String| {
            WarehouseError::new(
                ErrorKind::Data,
                format!("column {:?} cannot take the values given to it: {e}", column.name()),
            )
        };
        let array = cast(array, &kind)
            .map_err(|e| data(format!("{} to {kind}: {}", array.data_type(), short(&e))))
            .and_then(|cast| {
                // A cast turns what does not fit into null; a null that was none before is a lost value.
                if cast.null_count() == array.logical_null_count() {
                    Ok(cast)
                } else {
                    Err(data(format!("a value does not fit into {}", column.type_().name())))
                }
            })?;
        Ok(Self { array, kind })
    }

    fn put(&self, row: usize, out: &mut BytesMut) {
        if self.array.is_null(row) {
            out.put_i32(-1);
            return;
        }
        match &self.kind {
            DataType::Boolean => put(out, &[u8::from(self.array.as_boolean().value(row))]),
            DataType::Int16 => put(out, &self.array.as_primitive::<Int16Type>().value(row).to_be_bytes()),
            DataType::Int32 => put(out, &self.array.as_primitive::<Int32Type>().value(row).to_be_bytes()),
            DataType::Int64 => put(out, &self.array.as_primitive::<Int64Type>().value(row).to_be_bytes()),
            DataType::Float32 => put(out, &self.array.as_primitive::<Float32Type>().value(row).to_be_bytes()),
            DataType::Float64 => put(out, &self.array.as_primitive::<Float64Type>().value(row).to_be_bytes()),
            DataType::Date32 => {
                let days = match self.array.as_primitive::<Date32Type>().value(row) {
                    infinite @ (i32::MAX | i32::MIN) => infinite,
                    finite => finite.saturating_sub(EPOCH_DAYS),
                };
                put(out, &days.to_be_bytes());
            }
            DataType::Timestamp(..) => {
                let microseconds = match self.array.as_primitive::<TimestampMicrosecondType>().value(row) {
                    infinite @ (i64::MAX | i64::MIN) => infinite,
                    finite => finite.saturating_sub(EPOCH_MICROSECONDS),
                };
                put(out, &microseconds.to_be_bytes());
            }
            DataType::Binary => put(out, self.array.as_binary::<i32>().value(row)),
            // `target` gives no other.
            _ => put(out, self.array.as_string::<i32>().value(row).as_bytes()),
        }
    }
}

fn put(out: &mut BytesMut, value: &[u8]) {
    // Arrow's 32-bit offsets keep every value below 2 GiB.
    out.put_i32(i32::try_from(value.len()).unwrap_or(i32::MAX));
    out.put_slice(value);
}

/// The Arrow type whose bytes the column takes.
fn target(column: &Column) -> Result<DataType, WarehouseError> {
    Ok(match *column.type_() {
        Type::BOOL => DataType::Boolean,
        Type::INT2 => DataType::Int16,
        Type::INT4 => DataType::Int32,
        Type::INT8 => DataType::Int64,
        Type::FLOAT4 => DataType::Float32,
        Type::FLOAT8 => DataType::Float64,
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::JSON => DataType::Utf8,
        Type::BYTEA => DataType::Binary,
        Type::DATE => DataType::Date32,
        Type::TIMESTAMP => DataType::Timestamp(TimeUnit::Microsecond, None),
        Type::TIMESTAMPTZ => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        ref other => {
            return Err(WarehouseError::new(
                ErrorKind::Unsupported,
                format!("column {:?} is of type {}, which cannot be loaded", column.name(), other.name()),
            ));
        }
    })
}

/// What kind of cast failed; Arrow's own text may repeat the value.
fn short(error: &arrow::error::ArrowError) -> &'static str {
    match error {
        arrow::error::ArrowError::CastError(_) => "no such cast",
        _ => "the cast failed",
    }
}
