//! Which rows of a diff have ended, and how: what deliveries write and commits read.

use std::collections::BTreeMap;

use connectors::change::Operation;
use sql_templates::EndedRange;

use crate::store::{NotedException, NotedOutcome, NotedRows};

/// Rows whose delivery has ended and is not committed yet.
///
/// A batch is a run of neighbours among the rows of its operation, so batches that follow each
/// other melt into one range, however the sequences of other operations lie between them.
#[derive(Debug, Default)]
pub struct Ledger {
    pieces: BTreeMap<(Operation, i64), Piece>,
    exceptions: Vec<NotedException>,
    batches: Vec<i64>,
}

#[derive(Debug, Clone, Copy)]
struct Piece {
    /// How many rows of the operation come before the piece's end.
    end: i64,
    first: i64,
    last: i64,
}

impl Ledger {
    /// A batch ended; all its rows but the exceptions were accepted.
    pub fn end(&mut self, batch: i64, rows: NotedRows, exceptions: Vec<NotedException>) {
        self.batches.push(batch);
        let Some(operation) = operation(rows.operation) else { return };
        if exceptions.len() as i64 == rows.end - rows.start
            && exceptions.iter().all(|e| e.outcome == NotedOutcome::NotSent && !e.in_doubt)
        {
            return;
        }
        self.exceptions.extend(exceptions);
        let mut piece = Piece { end: rows.end, first: rows.first, last: rows.last };
        let mut start = rows.start;
        if let Some((&(_, before), &left)) =
            self.pieces.range((operation, i64::MIN)..(operation, start)).next_back()
            && left.end == start
        {
            start = before;
            piece.first = left.first;
        }
        if let Some(right) = self.pieces.remove(&(operation, piece.end)) {
            piece.end = right.end;
            piece.last = right.last;
        }
        self.pieces.insert((operation, start), piece);
    }

    /// The ended rows as ranges of sequences.
    pub fn ranges(&self) -> Vec<EndedRange> {
        self.pieces
            .iter()
            .map(|((operation, _), piece)| EndedRange {
                operation: operation.name(),
                first: piece.first,
                last: piece.last,
            })
            .collect()
    }

    /// Rows among them that were not accepted.
    pub fn exceptions(&self) -> &[NotedException] {
        &self.exceptions
    }

    /// The batches that ended, whose notes a commit makes superfluous.
    pub fn batches(&self) -> &[i64] {
        &self.batches
    }

    /// Whether nothing ended.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.exceptions.is_empty()
    }
}

/// The operation that a note names.
pub fn operation(position: u8) -> Option<Operation> {
    Operation::ALL.get(usize::from(position)).copied()
}

/// The position by which notes name an operation.
pub fn position(operation: Operation) -> u8 {
    match operation {
        Operation::Removed => 0,
        Operation::Changed => 1,
        Operation::Added => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(operation: Operation, start: i64, end: i64, first: i64, last: i64) -> NotedRows {
        NotedRows { operation: position(operation), start, end, first, last }
    }

    #[test]
    fn neighbours_melt_in_whatever_order_they_end() {
        let mut ledger = Ledger::default();
        ledger.end(3, rows(Operation::Added, 20, 30, 41, 60), vec![]);
        ledger.end(1, rows(Operation::Added, 0, 10, 1, 19), vec![]);
        ledger.end(4, rows(Operation::Removed, 0, 10, 2, 20), vec![]);
        assert_eq!(ledger.ranges().len(), 3);
        ledger.end(
            2,
            rows(Operation::Added, 10, 20, 21, 39),
            vec![NotedException::new(25, NotedOutcome::Rejected)],
        );
        assert_eq!(
            ledger.ranges(),
            [
                EndedRange { operation: "added", first: 1, last: 60 },
                EndedRange { operation: "removed", first: 2, last: 20 },
            ]
        );
        assert_eq!(ledger.exceptions().len(), 1);
        assert_eq!(ledger.batches(), [3, 1, 4, 2]);
    }

    #[test]
    fn a_batch_that_never_left_is_no_range() {
        let mut ledger = Ledger::default();
        let not_sent = (1..=2).map(|s| NotedException::new(s, NotedOutcome::NotSent)).collect();
        ledger.end(1, rows(Operation::Added, 0, 2, 1, 2), not_sent);
        assert!(ledger.is_empty());
        assert!(ledger.ranges().is_empty());
    }

    #[test]
    fn every_operation_has_its_position() {
        for o in Operation::ALL {
            assert_eq!(operation(position(o)), Some(o));
        }
        assert_eq!(operation(9), None);
    }
}
