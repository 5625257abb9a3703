//! Rows into a table, written as values of an INSERT: Redshift takes none from its clients in another way.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use sql_templates::TableRef;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::trouble::trouble;
use crate::warehouse::{ErrorKind, WarehouseError};

/// One statement has no more rows than this …
const STATEMENT_ROWS: usize = 1_000;
/// … and ends once it has so many bytes; the server takes 16 MB.
const STATEMENT_BYTES: usize = 1 << 20;

/// Loads rows in one transaction; memory is bounded by a statement.
pub(super) async fn load(
    client: &Client,
    table: &TableRef,
    batches: &[RecordBatch],
) -> Result<u64, WarehouseError> {
    let schema = batches[0].schema();
    if batches.iter().any(|b| b.schema().fields() != schema.fields()) {
        let message = "batches of one load must have the same columns";
        return Err(WarehouseError::new(ErrorKind::Invalid, message));
    }
    let name = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let columns: Vec<String> = schema.fields().iter().map(|f| name(f.name())).collect();
    let target = format!("{}.{}", name(table.schema.name()), name(table.name.name()));
    let head = format!("insert into {target} ({}) values ", columns.join(", "));
    client.batch_execute("begin").await.map_err(trouble)?;
    let mut loaded = 0;
    for batch in batches {
        let mut row = 0;
        while row < batch.num_rows() {
            let (statement, next) = statement(&head, batch, row)?;
            for answer in client.simple_query(&statement).await.map_err(trouble)? {
                if let SimpleQueryMessage::CommandComplete(rows) = answer {
                    loaded += rows;
                }
            }
            row = next;
        }
    }
    client.batch_execute("commit").await.map_err(trouble)?;
    Ok(loaded)
}

/// As many rows as one statement takes, from this one on, and which row comes next.
fn statement(head: &str, batch: &RecordBatch, first: usize) -> Result<(String, usize), WarehouseError> {
    let arrays: Vec<ArrayRef> = batch.columns().iter().map(in_utc).collect();
    let columns: Vec<Cells<'_>> = arrays.iter().map(Cells::of).collect::<Result<_, _>>()?;
    let mut statement = head.to_owned();
    let mut row = first;
    while row < batch.num_rows() && row - first < STATEMENT_ROWS && statement.len() < STATEMENT_BYTES {
        statement.push_str(if row == first { "(" } else { ", (" });
        for (i, column) in columns.iter().enumerate() {
            if i > 0 {
                statement.push_str(", ");
            }
            column.write(row, &mut statement)?;
        }
        statement.push(')');
        row += 1;
    }
    Ok((statement, row))
}

/// Instants without their zone: sessions are in UTC.
fn in_utc(array: &ArrayRef) -> ArrayRef {
    match array.as_primitive_opt::<TimestampMicrosecondType>() {
        Some(instants) => Arc::new(instants.clone().with_timezone_opt(None::<Arc<str>>)),
        None => array.clone(),
    }
}

/// A column's values as they stand in a statement.
struct Cells<'a> {
    array: &'a dyn Array,
    text: ArrayFormatter<'a>,
    form: Form,
}

const OPTIONS: FormatOptions<'_> = FormatOptions::new();

#[derive(Clone, Copy)]
enum Form {
    Bare,
    Quoted,
    Bytes,
}

impl<'a> Cells<'a> {
    fn of(array: &'a ArrayRef) -> Result<Self, WarehouseError> {
        let form = match array.data_type() {
            kind if kind.is_integer() || *kind == DataType::Boolean => Form::Bare,
            DataType::Utf8
            | DataType::Float32
            | DataType::Float64
            | DataType::Date32
            | DataType::Timestamp(..) => Form::Quoted,
            DataType::Binary => Form::Bytes,
            other => {
                let message = format!("values of type {other} cannot be loaded");
                return Err(WarehouseError::new(ErrorKind::Unsupported, message));
            }
        };
        let text = ArrayFormatter::try_new(array, &OPTIONS)
            .map_err(|e| WarehouseError::new(ErrorKind::Unsupported, e.to_string()))?;
        Ok(Self { array, text, form })
    }

    fn write(&self, row: usize, out: &mut String) -> Result<(), WarehouseError> {
        if self.array.is_null(row) {
            out.push_str("null");
            return Ok(());
        }
        match self.form {
            Form::Bytes => {
                out.push_str("to_varbyte('");
                for byte in self.array.as_binary::<i32>().value(row) {
                    out.push_str(&format!("{byte:02x}"));
                }
                out.push_str("', 'hex')");
            }
            form => {
                let text = self.text.value(row).try_to_string();
                let text = text.map_err(|_| {
                    WarehouseError::new(ErrorKind::Data, "a value that is to be loaded has no text")
                })?;
                match form {
                    Form::Bare => out.push_str(&text),
                    _ if text.contains('\0') => {
                        let message = "a text that is to be loaded holds a NUL";
                        return Err(WarehouseError::new(ErrorKind::Data, message));
                    }
                    _ => out.push_str(&quoted(&text)),
                }
            }
        }
        Ok(())
    }
}

/// A text between quotes, in which a backslash takes the next character's meaning away.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}
