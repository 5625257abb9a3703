//! The columns of one batch of a diff.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{Field, Schema};
use connectors::change::Operation;
use connectors::json::{BoundRows, JsonOptions, RowEncoder, invalid_text};
use connectors::outcome::Rejection;
use sql_templates::{Column, LogicalType};

use super::{field, unexpected};
use crate::error::{Error, ErrorCode};

/// The columns of one batch of a diff.
pub(super) struct Source {
    pub(super) rows: usize,
    /// Keys and tracked columns, in order; then previous values.
    pub(super) columns: Vec<ArrayRef>,
    pub(super) logical: Vec<LogicalType>,
    /// Where each column stands, for templates.
    pub(super) row: HashMap<String, usize>,
    pub(super) previous: HashMap<String, usize>,
    pub(super) encoder: RowEncoder,
    pub(super) for_people: RowEncoder,
    pub(super) batch: RecordBatch,
}

impl Source {
    pub(super) fn new(
        rows: &RecordBatch,
        head: usize,
        keys: &[Column],
        columns: &[Column],
        previous: &[Column],
        operation: Operation,
    ) -> Result<Self, Error> {
        let current: Vec<&Column> = keys.iter().chain(columns).collect();
        let previous: &[Column] = if operation == Operation::Changed { previous } else { &[] };
        if rows.num_columns() != head + current.len() + previous.len() {
            return Err(unexpected("another number of columns"));
        }
        let logical: Vec<LogicalType> =
            current.iter().map(|c| c.logical).chain(previous.iter().map(|c| c.logical)).collect();
        let arrays: Vec<ArrayRef> = rows.columns()[head..].to_vec();
        let fields: Vec<Field> = arrays
            .iter()
            .zip(&logical)
            .enumerate()
            .map(|(at, (array, logical))| field(&at.to_string(), array.data_type().clone(), *logical))
            .collect();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays.clone()).map_err(|e| {
            Error::new(ErrorCode::Internal, format!("columns of the diff do not fit together: {e}"))
        })?;
        let encoder = |options| {
            RowEncoder::new(&batch.schema(), options).map_err(|e| {
                Error::new(
                    ErrorCode::ColumnTypeUnsupported,
                    format!("a column arrives as {}, which has no form on the wire", e.arrow),
                )
            })
        };
        let (encoder, for_people) = (encoder(JsonOptions::default())?, encoder(JsonOptions::for_people())?);
        let row = current.iter().enumerate().map(|(at, c)| (c.name.clone(), at)).collect();
        // For removed rows the last accepted values are the row; templates see them as `previous` too.
        let previous = match operation {
            Operation::Removed => current.iter().enumerate().map(|(at, c)| (c.name.clone(), at)).collect(),
            _ => previous.iter().enumerate().map(|(at, c)| (c.name.clone(), current.len() + at)).collect(),
        };
        Ok(Self {
            rows: rows.num_rows(),
            columns: arrays,
            logical,
            row,
            previous,
            encoder,
            for_people,
            batch,
        })
    }

    pub(super) fn column(&self, at: usize) -> &ArrayRef {
        &self.columns[at]
    }

    /// A column as destinations take it. Where it came as bytes because not all of its text is valid
    /// UTF-8, the rows that hold such text are refused.
    pub(super) fn sendable(
        &self,
        at: usize,
        to: &str,
        rejections: &mut HashMap<usize, Rejection>,
    ) -> ArrayRef {
        let column = &self.columns[at];
        let raw = column.as_binary_opt::<i32>().filter(|_| self.logical[at] != LogicalType::Binary);
        let Some(raw) = raw else { return column.clone() };
        let texts = raw.iter().enumerate().map(|(row, bytes)| match std::str::from_utf8(bytes?) {
            Ok(text) => Some(text),
            Err(_) => {
                rejections.entry(row).or_insert_with(|| invalid_text(to));
                None
            }
        });
        Arc::new(texts.collect::<StringArray>())
    }

    pub(super) fn logical(&self, at: usize) -> LogicalType {
        self.logical[at]
    }

    pub(super) fn bound(&self) -> Result<BoundRows<'_>, Error> {
        self.encoder
            .bind(&self.batch)
            .map_err(|e| Error::new(ErrorCode::Internal, format!("a column arrives as {}", e.arrow)))
    }

    pub(super) fn write_key(
        encoder: &RowEncoder,
        bound: &BoundRows<'_>,
        keys: usize,
        row: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Rejection> {
        if keys == 1 {
            encoder.encode_text(bound, 0, row, out)?;
            return Ok(());
        }
        for at in 0..keys {
            out.push(if at == 0 { b'[' } else { b',' });
            encoder.encode_value(bound, at, row, out)?;
        }
        out.push(b']');
        Ok(())
    }
}
