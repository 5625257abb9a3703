//! Rows as lines of a file.

use arrow::datatypes::{Schema, SchemaRef};

use super::Format;
use crate::change::ChangeBatch;
use crate::json::{JsonOptions, RowEncoder};
use crate::outcome::{Rejection, RowOutcome};

/// The field that carries the operation in mode `diff`.
pub(super) const OPERATION: &str = "_operation";

/// Writes batches in one format.
#[derive(Debug, Clone)]
pub(super) struct RowWriter {
    format: Format,
    options: JsonOptions,
    with_operation: bool,
    fields: SchemaRef,
}

impl RowWriter {
    pub(super) fn new(
        format: Format,
        options: JsonOptions,
        with_operation: bool,
        fields: &SchemaRef,
    ) -> Result<Self, String> {
        if with_operation && fields.field_with_name(OPERATION).is_ok() {
            return Err(format!(
                "the field {OPERATION} is levin's own in mode diff; map that column to another name"
            ));
        }
        Ok(Self { format, options, with_operation, fields: fields.clone() })
    }

    /// Refuses fields whose rows would have no form at all.
    pub(super) fn can_write_all(&self) -> Result<(), String> {
        if self.fields.fields().is_empty() {
            return Err("a file needs at least one field".into());
        }
        RowEncoder::new(&self.fields, self.options).map(|_| ()).map_err(|e| e.to_string())
    }

    /// What stands before the first row.
    pub(super) fn write_head(&self, out: &mut Vec<u8>) {
        if self.format != Format::Csv {
            return;
        }
        let operation = self.with_operation.then_some(OPERATION);
        let names = operation.into_iter().chain(self.fields.fields().iter().map(|f| f.name().as_str()));
        for (i, name) in names.enumerate() {
            if i > 0 {
                out.push(b',');
            }
            let start = out.len();
            out.extend_from_slice(name.as_bytes());
            quote(start, out);
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Appends every row that has a form; each has its outcome, in order.
    pub(super) fn write(&self, batch: &ChangeBatch, out: &mut Vec<u8>) -> Result<Vec<RowOutcome>, String> {
        let schema: SchemaRef = batch.schema();
        if !same_names(&schema, &self.fields) {
            return Err("the rows have other fields than the sync".into());
        }
        let encoder = RowEncoder::new(&schema, self.options).map_err(|e| e.to_string())?;
        let bound = encoder.bind(&batch.fields).map_err(|e| e.to_string())?;
        let operation = self.with_operation.then(|| batch.operation.name());
        Ok((0..batch.len())
            .map(|row| {
                let start = out.len();
                let written = match self.format {
                    Format::Jsonl => {
                        let written = encoder.encode_row(&bound, row, out);
                        if let (Ok(()), Some(operation)) = (&written, operation) {
                            prepend_operation(start, operation, out);
                        }
                        out.push(b'\n');
                        written
                    }
                    Format::Csv => self.write_csv(&encoder, &bound, row, operation, out),
                    Format::Parquet => Err(Rejection::new(
                        Rejection::UNREPRESENTABLE_VALUE,
                        "Parquet holds columns, and this writes lines",
                    )),
                };
                match written {
                    Ok(()) => RowOutcome::Deferred,
                    Err(rejection) => {
                        out.truncate(start);
                        RowOutcome::Rejected(rejection)
                    }
                }
            })
            .collect())
    }

    fn write_csv(
        &self,
        encoder: &RowEncoder,
        bound: &crate::json::BoundRows<'_>,
        row: usize,
        operation: Option<&str>,
        out: &mut Vec<u8>,
    ) -> Result<(), Rejection> {
        let start = out.len();
        out.extend_from_slice(operation.unwrap_or_default().as_bytes());
        for column in 0..self.fields.fields().len() {
            if column > 0 || operation.is_some() {
                out.push(b',');
            }
            let value = out.len();
            if encoder.encode_text(bound, column, row, out)? {
                quote(value, out);
            }
        }
        if out.len() == start {
            return Err(Rejection::new(
                Rejection::UNREPRESENTABLE_VALUE,
                "a null that is alone on its line would be an empty line, which readers of CSV skip",
            ));
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    }
}

/// Makes the field that begins at `start` a quoted one where its text could be read otherwise:
/// an empty one would be a null.
fn quote(start: usize, out: &mut Vec<u8>) {
    let value = &out[start..];
    if !value.is_empty() && !value.iter().any(|b| matches!(b, b',' | b'"' | b'\r' | b'\n')) {
        return;
    }
    let mut quoted = Vec::with_capacity(value.len() + 8);
    quoted.push(b'"');
    for &byte in value {
        if byte == b'"' {
            quoted.push(b'"');
        }
        quoted.push(byte);
    }
    quoted.push(b'"');
    out.truncate(start);
    out.extend_from_slice(&quoted);
}

/// Makes the operation the first member of the object that begins at `start`.
fn prepend_operation(start: usize, operation: &str, out: &mut Vec<u8>) {
    let separator = if out[start..] == *b"{}" { "" } else { "," };
    let member = format!("{{\"{OPERATION}\":\"{operation}\"{separator}");
    out.splice(start..=start, member.into_bytes());
}

pub(super) fn same_names(one: &Schema, other: &Schema) -> bool {
    one.fields().iter().map(|f| f.name()).eq(other.fields().iter().map(|f| f.name()))
}
