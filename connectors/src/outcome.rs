//! How a delivery ended, row by row.

use std::time::Duration;

/// How the delivery of one row ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowOutcome {
    /// The destination said yes to this row.
    Accepted,
    /// The destination, or the connector before sending, said no to this row.
    Rejected(Rejection),
    /// The row certainly did not reach the destination.
    NotSent,
    /// The row was sent and no definite answer came.
    InDoubt,
    /// The destination will say later, when the delivery is closed.
    Deferred,
}

impl RowOutcome {
    /// Why the row was refused, if it was.
    pub fn rejection(&self) -> Option<&Rejection> {
        match self {
            Self::Rejected(rejection) => Some(rejection),
            _ => None,
        }
    }
}

/// Why a row was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// A stable word: `REFUSED`, `NOT_FOUND`, `UNREPRESENTABLE_VALUE` …
    pub code: &'static str,
    /// What the destination said, redacted, at most some hundred characters.
    pub reason: String,
    /// An earlier attempt may have been applied although this answer is a no.
    pub in_doubt: bool,
}

impl Rejection {
    /// The destination answered that it does not take the row.
    pub const REFUSED: &str = "REFUSED";
    /// Mode `update`: the destination has no such record.
    pub const NOT_FOUND: &str = "NOT_FOUND";
    /// The value has no form on this wire (NaN in JSON, text with a NUL in Postgres …).
    pub const UNREPRESENTABLE_VALUE: &str = "UNREPRESENTABLE_VALUE";
    /// The destination answered with an error of its own, again and again, to this row alone.
    pub const DESTINATION_ERROR: &str = "DESTINATION_ERROR";
    /// The field by which the destination knows the record is null.
    pub const NULL_MATCH_VALUE: &str = "NULL_MATCH_VALUE";
    /// Another row has the matching value that this one claims.
    pub const DUPLICATE_MATCH_VALUE: &str = "DUPLICATE_MATCH_VALUE";
    /// A removal that must come first was not accepted.
    pub const MATCH_VALUE_HELD: &str = "MATCH_VALUE_HELD";
    /// A mapping's template failed for this row.
    pub const TEMPLATE_FAILED: &str = "TEMPLATE_FAILED";

    /// A definite no.
    pub fn new(code: &'static str, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), in_doubt: false }
    }
}

/// What one attempt to deliver a batch came to.
#[derive(Debug, Clone)]
pub struct Delivered {
    /// One outcome per row of the batch, in its order, whatever else happened.
    pub outcomes: Vec<RowOutcome>,
    /// Set when the whole batch met one trouble; tells the caller what to do next.
    pub error: Option<DeliveryError>,
    /// Requests (or transactions) that left for the destination.
    pub calls: u64,
    /// The last request and response, redacted and cut, kept for rejected rows.
    pub exchange: Option<Exchange>,
}

impl Delivered {
    /// Every row of the batch ended alike.
    pub fn all(outcome: RowOutcome, rows: usize) -> Self {
        Self { outcomes: vec![outcome; rows], error: None, calls: 1, exchange: None }
    }

    /// The batch met one trouble; every row has the outcome that the trouble leaves.
    pub fn failed(error: DeliveryError, outcome: RowOutcome, rows: usize) -> Self {
        Self { outcomes: vec![outcome; rows], error: Some(error), calls: 1, exchange: None }
    }
}

/// A request and what came back, as an operator may see them: no secrets, bounded length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// Method, address, headers and the beginning of the body.
    pub request: String,
    /// Status, headers and the beginning of the body; or what went wrong instead.
    pub response: String,
}

/// A trouble that a whole batch met, and with it the directive to the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// Too fast. Wait (as long as asked, if asked), then send the same batch again.
    #[error("the destination asks to slow down: {message}")]
    Throttled {
        /// What the destination asked for.
        after: Option<Duration>,
        /// What it said.
        message: String,
    },
    /// Not there, or in trouble of its own. Back off, then send the same batch again. `answered`
    /// tells an error answer from silence: an answered one is split once retries are spent.
    #[error("the destination is unavailable: {message}")]
    Unavailable {
        /// The destination did answer (5xx), so a smaller batch may pass.
        answered: bool,
        /// How long the destination asked to wait, when it did.
        after: Option<Duration>,
        /// What happened.
        message: String,
    },
    /// The batch as such was refused. Halve it until the bad rows stand alone.
    #[error("the destination refuses the batch: {message}")]
    Refused {
        /// What the destination said.
        message: String,
    },
    /// No row can pass until a person changes something (credentials, address, table). Stop the run.
    #[error("the destination cannot be used: {message}")]
    Unauthorized {
        /// What the destination said.
        message: String,
        /// What to do about it.
        hint: String,
    },
}
