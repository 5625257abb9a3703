//! DuckDB's Arrow in the forms that `change.rs` lists.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};

use crate::warehouse::{ErrorKind, WarehouseError};

/// The same rows, every column in a form that travels.
pub(super) fn travelling(batch: &RecordBatch) -> Result<RecordBatch, WarehouseError> {
    let schema = batch.schema();
    let mut fields = Vec::with_capacity(schema.fields().len());
    let mut columns = Vec::with_capacity(schema.fields().len());
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        let target = form(field)?;
        columns.push(
            cast(column, &target).map_err(|e| {
                WarehouseError::new(ErrorKind::Data, format!("column {:?}: {e}", field.name()))
            })?,
        );
        fields.push(Field::new(field.name(), target, true));
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
        .map_err(|e| WarehouseError::new(ErrorKind::Other, e.to_string()))
}

fn form(field: &Field) -> Result<DataType, WarehouseError> {
    use DataType as D;
    Ok(match field.data_type() {
        same @ (D::Boolean
        | D::Int16
        | D::Int32
        | D::Int64
        | D::UInt64
        | D::Float32
        | D::Float64
        | D::Utf8
        | D::Binary
        | D::Date32
        | D::Timestamp(_, None)) => same.clone(),
        D::Int8 | D::UInt8 => D::Int16,
        D::UInt16 => D::Int32,
        D::UInt32 => D::Int64,
        D::Timestamp(unit, Some(_)) => D::Timestamp(*unit, Some("UTC".into())),
        D::LargeBinary | D::BinaryView => D::Binary,
        // Exact digits, the 128-bit integers among them; enums; and the type of a bare null.
        D::Decimal128(..)
        | D::LargeUtf8
        | D::Utf8View
        | D::Dictionary(..)
        | D::Time32(_)
        | D::Time64(_)
        | D::Null => D::Utf8,
        other => {
            return Err(WarehouseError::new(
                ErrorKind::Unsupported,
                format!(
                    "column {:?} arrives as {other}, which does not travel; cast it to text",
                    field.name()
                ),
            ));
        }
    })
}
