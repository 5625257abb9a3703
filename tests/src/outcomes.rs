//! How rows ended, in a form that a test can compare.

use connectors::outcome::RowOutcome;

/// A code or word per row.
pub fn words(outcomes: &[RowOutcome]) -> Vec<&str> {
    let word = |outcome| match outcome {
        &RowOutcome::Accepted => "accepted",
        RowOutcome::Rejected(rejection) => rejection.code,
        RowOutcome::NotSent => "not sent",
        RowOutcome::InDoubt => "in doubt",
        RowOutcome::Deferred => "deferred",
    };
    outcomes.iter().map(word).collect()
}
