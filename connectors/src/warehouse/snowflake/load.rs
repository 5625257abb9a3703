//! Rows on their way into a table: as values bound to the placeholders of an insert, many rows at once.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Float64Type, Int64Type, TimeUnit, TimestampNanosecondType};
use serde_json::{Map, Value, json};
use sql_templates::TableRef;

use super::super::{ErrorKind, WarehouseError};
use super::link::{Asked, Link};
use super::session::written;

/// The most values that one insert binds; Snowflake wants a stage for more.
const VALUES: usize = 60_000;
/// The most bytes of text in one of them.
const BYTES: usize = 8 << 20;

/// Appends rows; all or none. On an error a transaction may be open.
pub(super) async fn load(
    link: &Arc<Link>,
    table: &TableRef,
    batches: &[RecordBatch],
) -> Result<u64, WarehouseError> {
    let schema = batches[0].schema();
    if batches.iter().any(|b| b.schema().fields() != schema.fields()) {
        let message = "batches of one load must have the same columns";
        return Err(WarehouseError::new(ErrorKind::Invalid, message));
    }
    let target = format!("{}.{}", quoted(table.schema.name()), quoted(table.name.name()));
    let describe = Asked { describe: true, ..Asked::default() };
    let described = link.statement(&format!("select * from {target}"), describe).await?;
    let mut names = Vec::new();
    for field in schema.fields() {
        let exact = described.rowtype.iter().find(|c| &c.name == field.name());
        // Templates name columns unquoted, in lower case.
        let folded = || described.rowtype.iter().find(|c| c.name == field.name().to_uppercase());
        let Some(column) = exact.or_else(folded) else {
            let message = format!("table {target} has no column {:?}", field.name());
            return Err(WarehouseError::new(ErrorKind::NotFound, message));
        };
        names.push(quoted(&column.name));
    }
    let marks = vec!["?"; names.len()].join(", ");
    let insert = format!("insert into {target} ({}) values ({marks})", names.join(", "));

    let parts = parts(batches, names.len());
    if parts.len() > 1 {
        link.set_in_transaction(true);
        link.statement("begin transaction", Asked::default()).await?;
    }
    let mut rows = 0;
    for part in &parts {
        let bindings = Some(bindings(part)?);
        let done = link.statement(&insert, Asked { bindings, ..Asked::default() }).await?;
        if written(&done) != Some(part.num_rows() as u64) {
            let message = format!("Snowflake says that other than {} rows were inserted", part.num_rows());
            return Err(WarehouseError::new(ErrorKind::Other, message));
        }
        rows += part.num_rows() as u64;
    }
    if parts.len() > 1 {
        link.statement("commit", Asked::default()).await?;
        link.set_in_transaction(false);
    }
    Ok(rows)
}

/// The rows in pieces of which each can be bound.
fn parts(batches: &[RecordBatch], columns: usize) -> Vec<RecordBatch> {
    let mut parts = Vec::new();
    for batch in batches.iter().filter(|b| b.num_rows() > 0) {
        let per_row = batch.get_array_memory_size() / batch.num_rows() + 1;
        let rows = (VALUES / columns.max(1)).min(BYTES / per_row).max(1);
        for offset in (0..batch.num_rows()).step_by(rows) {
            parts.push(batch.slice(offset, rows.min(batch.num_rows() - offset)));
        }
    }
    parts
}

fn bindings(batch: &RecordBatch) -> Result<Value, WarehouseError> {
    let mut bindings = Map::new();
    for (at, (field, array)) in batch.schema().fields().iter().zip(batch.columns()).enumerate() {
        let (kind, values) = bound(array).ok_or_else(|| {
            let message = format!("column {:?} of type {} cannot be loaded", field.name(), field.data_type());
            WarehouseError::new(ErrorKind::Unsupported, message)
        })?;
        bindings.insert((at + 1).to_string(), json!({"type": kind, "value": values}));
    }
    Ok(Value::Object(bindings))
}

/// A column as values of a type that Snowflake binds, each as text.
fn bound(array: &ArrayRef) -> Option<(&'static str, Vec<Option<String>>)> {
    use DataType as D;
    let to = |data_type: &D| cast(array, data_type).ok();
    let at = |write: &dyn Fn(usize) -> String| -> Vec<Option<String>> {
        (0..array.len()).map(|i| array.is_valid(i).then(|| write(i))).collect()
    };
    Some(match array.data_type() {
        D::Int8 | D::Int16 | D::Int32 | D::Int64 | D::UInt8 | D::UInt16 | D::UInt32 => {
            let values = to(&D::Int64)?;
            let values = values.as_primitive::<Int64Type>();
            ("FIXED", at(&|i| values.value(i).to_string()))
        }
        D::Float32 | D::Float64 => {
            let values = to(&D::Float64)?;
            let values = values.as_primitive::<Float64Type>();
            ("REAL", at(&|i| values.value(i).to_string()))
        }
        D::Utf8 | D::LargeUtf8 | D::Utf8View => {
            let values = to(&D::Utf8)?;
            let values = values.as_string::<i32>();
            ("TEXT", at(&|i| values.value(i).to_owned()))
        }
        D::Boolean => {
            let values = array.as_boolean();
            ("BOOLEAN", at(&|i| values.value(i).to_string()))
        }
        D::Binary | D::LargeBinary => {
            let values = to(&D::Binary)?;
            let values = values.as_binary::<i32>();
            ("BINARY", at(&|i| values.value(i).iter().map(|b| format!("{b:02x}")).collect()))
        }
        // Milliseconds.
        D::Date32 => {
            let values = array.as_primitive::<Date32Type>();
            ("DATE", at(&|i| (i64::from(values.value(i)) * 86_400_000).to_string()))
        }
        D::Timestamp(_, zone) => {
            let values = to(&D::Timestamp(TimeUnit::Nanosecond, zone.clone()))?;
            let values = values.as_primitive::<TimestampNanosecondType>();
            let nanos = at(&|i| values.value(i).to_string());
            match zone {
                // An offset of none, in minutes.
                Some(_) => {
                    ("TIMESTAMP_TZ", nanos.into_iter().map(|v| v.map(|v| format!("{v} 1440"))).collect())
                }
                None => ("TIMESTAMP_NTZ", nanos),
            }
        }
        _ => return None,
    })
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
