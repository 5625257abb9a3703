//! Reading the few rows that a statement returns: counts, the state, samples.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int16Type, Int32Type, Int64Type};

use crate::error::{Error, ErrorCode};

/// One row of a result, read by column name.
#[derive(Debug, Clone, Copy)]
pub struct ResultRow<'a> {
    batch: &'a RecordBatch,
    row: usize,
}

/// Every row of a result.
pub fn result_rows(batches: &[RecordBatch]) -> impl Iterator<Item = ResultRow<'_>> {
    batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| ResultRow { batch, row }))
}

/// The only row of a result.
pub fn only_row<'a>(batches: &'a [RecordBatch], what: &str) -> Result<ResultRow<'a>, Error> {
    result_rows(batches).next().ok_or_else(|| internal(&format!("{what} returned no row")))
}

impl ResultRow<'_> {
    /// A whole number; `None` for null.
    pub fn integer(&self, name: &str) -> Result<Option<i64>, Error> {
        let column = self.column(name)?;
        if column.is_null(self.row) {
            return Ok(None);
        }
        Ok(Some(match column.data_type() {
            DataType::Int64 => column.as_primitive::<Int64Type>().value(self.row),
            DataType::Int32 => column.as_primitive::<Int32Type>().value(self.row).into(),
            DataType::Int16 => column.as_primitive::<Int16Type>().value(self.row).into(),
            other => return Err(internal(&format!("{name} arrived as {other}, not as a whole number"))),
        }))
    }

    /// A whole number that the statement never leaves null.
    pub fn count(&self, name: &str) -> Result<i64, Error> {
        self.integer(name)?.ok_or_else(|| internal(&format!("{name} is null")))
    }

    /// A text; `None` for null.
    pub fn text(&self, name: &str) -> Result<Option<String>, Error> {
        let column = self.column(name)?;
        if column.is_null(self.row) {
            return Ok(None);
        }
        match column.as_string_opt::<i32>() {
            Some(texts) => Ok(Some(texts.value(self.row).to_owned())),
            None => Err(internal(&format!("{name} arrived as {}, not as text", column.data_type()))),
        }
    }

    /// A floating-point number; `None` for null.
    pub fn float(&self, name: &str) -> Result<Option<f64>, Error> {
        let column = self.column(name)?;
        if column.is_null(self.row) {
            return Ok(None);
        }
        match column.as_primitive_opt::<Float64Type>() {
            Some(numbers) => Ok(Some(numbers.value(self.row))),
            None => Err(internal(&format!("{name} arrived as {}, not as a number", column.data_type()))),
        }
    }

    /// Whether the statement returned such a column.
    pub fn has(&self, name: &str) -> bool {
        self.batch.column_by_name(name).is_some()
    }

    /// Whether something is so; the statement never leaves it null.
    pub fn truth(&self, name: &str) -> Result<bool, Error> {
        let column = self.column(name)?;
        if column.is_null(self.row) {
            return Err(internal(&format!("{name} is null")));
        }
        match (column.as_boolean_opt(), column.as_primitive_opt::<Int64Type>()) {
            (Some(truths), _) => Ok(truths.value(self.row)),
            // Some engines have no truth values, but the numbers 1 and 0.
            (_, Some(numbers)) => Ok(numbers.value(self.row) != 0),
            _ => Err(internal(&format!("{name} arrived as {}, not as a truth value", column.data_type()))),
        }
    }

    /// The columns `k0` … as a person may read them.
    pub fn displayed_key(&self, keys: usize) -> String {
        let parts: Vec<String> = (0..keys)
            .filter_map(|at| self.batch.column_by_name(&format!("k{at}")))
            .map(|column| {
                if column.is_null(self.row) {
                    return "null".to_owned();
                }
                arrow::util::display::array_value_to_string(column, self.row).unwrap_or_default()
            })
            .collect();
        if keys == 1 { parts.concat() } else { format!("[{}]", parts.join(",")) }
    }

    fn column(&self, name: &str) -> Result<&dyn Array, Error> {
        self.batch
            .column_by_name(name)
            .map(AsRef::as_ref)
            .ok_or_else(|| internal(&format!("the result has no column {name}")))
    }
}

fn internal(message: &str) -> Error {
    Error::new(ErrorCode::Internal, message.to_owned())
}
