//! From the rows of a diff, as the warehouse streams them, to batches that a destination takes.

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;
use connectors::change::Operation;
use connectors::destination::BatchLimits;

use super::ledger::position;
use crate::error::{Error, ErrorCode};
use crate::store::NotedRows;

/// The sequence behind which every row of a diff lies.
pub const BEFORE_THE_FIRST: i64 = -1;

fn sequences(rows: &RecordBatch) -> Result<&[i64], Error> {
    let column = rows.column(0).as_primitive_opt::<Int64Type>();
    let unnamed = || Error::new(ErrorCode::Internal, "a diff's rows came without their sequence");
    column.map(|column| &column.values()[..]).ok_or_else(unnamed)
}

/// The sequence of the last of these rows, if there are any.
pub fn last_sequence(rows: &RecordBatch) -> Result<Option<i64>, Error> {
    Ok(sequences(rows)?.last().copied())
}

/// How far the rows of one operation have been read.
#[derive(Debug)]
pub struct Place {
    /// So many rows.
    pub rows: i64,
    /// Up to this sequence.
    last: i64,
}

impl Default for Place {
    fn default() -> Self {
        Self { rows: 0, last: BEFORE_THE_FIRST }
    }
}

impl Place {
    /// Names the next batch. The sequences of an operation must grow from its first row to its last:
    /// a range of them stands for every row of the operation that lies between.
    pub fn advance(&mut self, operation: Operation, batch: &RecordBatch) -> Result<Option<NotedRows>, Error> {
        let sequences = sequences(batch)?;
        let (Some(&first), Some(&last)) = (sequences.first(), sequences.last()) else { return Ok(None) };
        if first <= self.last || !sequences.is_sorted_by(|a, b| a < b) {
            let message = "a diff's rows came in another order than they were written";
            return Err(Error::new(ErrorCode::Internal, message));
        }
        let start = self.rows;
        *self = Self { rows: start + sequences.len() as i64, last };
        Ok(Some(NotedRows { operation: position(operation), start, end: self.rows, first, last }))
    }
}

/// Cuts a stream of Arrow batches into batches that a destination takes.
pub struct Cutter {
    limits: BatchLimits,
    pending: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
}

impl Cutter {
    /// Batches of at most so many rows and bytes; a row that is larger goes alone.
    pub fn new(limits: BatchLimits) -> Self {
        Self {
            limits: BatchLimits { rows: limits.rows.max(1), bytes: limits.bytes.max(1) },
            pending: Vec::new(),
            rows: 0,
            bytes: 0,
        }
    }

    /// Takes a batch and gives those that are full.
    pub fn push(&mut self, batch: RecordBatch) -> Result<Vec<RecordBatch>, Error> {
        let mut full = Vec::new();
        if batch.num_rows() == 0 {
            return Ok(full);
        }
        // Text that is not valid UTF-8 changes a column's form: such a batch travels by itself.
        if self.pending.first().is_some_and(|pending| pending.schema() != batch.schema()) {
            full.extend(self.rest()?);
        }
        let width = (batch.get_array_memory_size() / batch.num_rows()).max(1);
        let mut offset = 0;
        while offset < batch.num_rows() {
            let by_bytes =
                (self.limits.bytes.saturating_sub(self.bytes) / width).max(usize::from(self.rows == 0));
            let room = by_bytes.min(self.limits.rows - self.rows);
            if room == 0 {
                full.extend(self.rest()?);
                continue;
            }
            let take = room.min(batch.num_rows() - offset);
            self.pending.push(batch.slice(offset, take));
            self.rows += take;
            self.bytes += take * width;
            offset += take;
            if self.rows >= self.limits.rows || self.bytes >= self.limits.bytes {
                full.extend(self.rest()?);
            }
        }
        Ok(full)
    }

    /// What is left.
    pub fn rest(&mut self) -> Result<Option<RecordBatch>, Error> {
        let pending = std::mem::take(&mut self.pending);
        self.rows = 0;
        self.bytes = 0;
        match pending.len() {
            0 => Ok(None),
            1 => Ok(pending.into_iter().next()),
            _ => concat_batches(&pending[0].schema(), &pending)
                .map(Some)
                .map_err(|e| Error::new(ErrorCode::Internal, format!("batches do not fit together: {e}"))),
        }
    }
}
