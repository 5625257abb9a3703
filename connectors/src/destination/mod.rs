//! Destinations: where rows go.
//!
//! [`Destination`] and [`Delivery`] are the contract that every connector keeps.

pub mod files;
pub mod http_request;
pub mod postgres;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::catalogue::ConfigError;
use crate::change::{ChangeBatch, Mode, OnRemoved, Operation};
use crate::outcome::{Delivered, DeliveryError, RowOutcome};

/// One live destination, shared by all its syncs: rate budgets are kept here.
#[async_trait]
pub trait Destination: Send + Sync + Debug {
    /// Which place this is, in a canonical text without secrets: endpoint, account and object.
    /// A sync whose target changes refuses to run, so equal places must give equal texts.
    fn target(&self, sync: &DeliverySpec) -> String;

    /// Refuses a sync that this destination cannot serve (mode, options, templates). Opens nothing.
    fn validate(&self, sync: &DeliverySpec) -> Result<(), ConfigError>;

    /// Connects and looks, changing nothing: reachable, credentials taken, object there and
    /// writable as far as can be told. An error names what is missing and what to do.
    async fn check(&self, sync: Option<&DeliverySpec>) -> Result<(), DeliveryError>;

    /// The fields of an object with the names that the destination uses; `None` when it cannot tell.
    async fn fields(&self, object: &str) -> Result<Option<Vec<DestinationField>>, DeliveryError>;

    /// Starts the delivery of one run. Nothing that a reader of the destination could see happens
    /// before the first [`Delivery::deliver`].
    async fn open(&self, sync: &DeliverySpec, run: &RunFacts) -> Result<Box<dyn Delivery>, DeliveryError>;

    /// What a batch of one row would be as a request, exactly as it would leave but for secrets; with `send`
    /// it also leaves, once, as a delivery of its own. A destination that takes rows only as part of a whole
    /// (a file, a table that is replaced) refuses to send. Without `send` nothing is changed anywhere.
    async fn try_row(
        &self,
        sync: &DeliverySpec,
        run: &RunFacts,
        row: &ChangeBatch,
        send: bool,
    ) -> Result<Trial, DeliveryError>;

    /// Refuses a sync whose table or list cannot be emptied here, saying why. Opens nothing.
    fn can_clear(&self, sync: &DeliverySpec) -> Result<(), ConfigError> {
        let message = format!("the destination of sync `{}` cannot be emptied by levin", sync.sync);
        Err(ConfigError { path: String::new(), message })
    }

    /// One attempt to take every record out of what the sync writes to, after [`Destination::can_clear`]
    /// agreed. It may be repeated, also by a later run, when nobody knows how it ended: emptying twice is
    /// the same as once. `Refused`, `Unauthorized` and `Throttled` say that nothing was taken out.
    async fn clear(&self, sync: &DeliverySpec, _run: &RunFacts) -> Result<(), DeliveryError> {
        let message = self.can_clear(sync).err().map_or_else(String::new, |e| e.message);
        Err(DeliveryError::Refused { message })
    }

    /// The longest that one attempt of [`Delivery::deliver`] or [`Destination::clear`] may take. The lease
    /// must outlive it.
    fn timeout(&self) -> Duration;

    /// How many attempts of one run may be under way at once.
    fn concurrency(&self) -> usize {
        1
    }

    /// How often one attempt is repeated after a trouble that may pass.
    fn retries(&self) -> u32 {
        5
    }

    /// The most rows and bytes (of Arrow memory, roughly) in one batch of this operation.
    fn batch_limits(&self, sync: &DeliverySpec, operation: Operation) -> BatchLimits;
}

/// The delivery of one run.
///
/// * **One attempt per call.** `deliver` sends a batch once and tells how it ended; repeating,
///   waiting and halving belong to the caller (`retry.rs`).
/// * **What "accepted" means.** A row is `Accepted` only when the destination answered for it:
///   never on sending, never on a closed connection, never because the rest of the batch passed.
/// * **Never silent.** Every row of the batch has exactly one outcome, in order. Unknown is
///   `InDoubt`; `NotSent` only when it is certain that nothing left.
/// * **Repeats are fine.** The same row may come again, in another batch, with the same version.
/// * **Order.** Batches of one operation may be under way together; a batch of another operation
///   comes only after they ended.
/// * **Cancellation.** Dropping the future of `deliver` leaves its rows in doubt.
#[async_trait]
pub trait Delivery: Send + Sync {
    /// One attempt to deliver one batch.
    async fn deliver(&self, batch: &ChangeBatch) -> Delivered;

    /// Ends the delivery: `Some` gives the one outcome of every row that was `Deferred`. With
    /// `complete` false the run did not come to its end, and deferred rows must not become visible.
    async fn close(self: Box<Self>, complete: bool) -> Result<Option<RowOutcome>, DeliveryError>;
}

/// One row on its way, for a person to look at.
#[derive(Debug, Clone)]
pub struct Trial {
    /// The request, whole and without secrets.
    pub request: String,
    /// How it ended and what came back, when it was sent; or why the row has no form on this wire.
    pub delivered: Option<Delivered>,
}

/// Why one row alone is not sent to a place that takes rows only as a whole.
fn only_whole(what: &str) -> DeliveryError {
    DeliveryError::Unauthorized {
        message: format!("{what} is taken as a whole: one row alone is not sent"),
        hint: "leave `--send` out; a run writes all of it".to_owned(),
    }
}

/// The most that one batch may hold; both apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Rows.
    pub rows: usize,
    /// Bytes of the mapped columns in memory; a single larger row still travels, alone.
    pub bytes: usize,
}

/// What a sync says to its destination.
#[derive(Debug, Clone)]
pub struct DeliverySpec {
    /// The sync's slug.
    pub sync: String,
    /// The sync's number.
    pub sync_id: i64,
    /// The model's slug.
    pub model: String,
    /// What the destination calls its table, list, topic or path.
    pub object: Option<String>,
    /// What the sync does.
    pub mode: Mode,
    /// What happens to removed rows.
    pub on_removed: OnRemoved,
    /// The connector's own keys of the sync file.
    pub options: Value,
    /// The destination fields that identify a record, with their logical types in the metadata.
    pub identity: SchemaRef,
    /// The mapped destination fields, with their logical types in the metadata.
    pub fields: SchemaRef,
}

/// What is known of the run in flight.
#[derive(Debug, Clone)]
pub struct RunFacts {
    /// The run's number.
    pub run_id: i64,
    /// The generation under which rows are sent; it only grows.
    pub generation: i64,
    /// When the run began.
    pub started_at: DateTime<Utc>,
    /// Rows that will be sent, by operation.
    pub planned: BTreeMap<Operation, u64>,
}

/// A field that a destination's object has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationField {
    /// Its name.
    pub name: String,
    /// The destination's word for its type.
    pub type_name: String,
    /// Whether a record cannot be without it.
    pub required: bool,
}
