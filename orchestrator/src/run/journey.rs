//! A batch on its way: noted, sent, and how its rows ended.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use connectors::change::ChangeBatch;
use connectors::destination::Delivery;
use connectors::outcome::{Exchange, Rejection, RowOutcome};
use connectors::retry::{Gate, RetryPolicy, Settled, deliver_batch};

use crate::error::Error;
use crate::mapping::Mapped;
use crate::store::{DeliveryId, Note, NotedException, NotedOutcome, NotedRows, RejectedExchange, Store};

/// A batch that came to its end.
pub(super) struct Ended {
    pub(super) batch: i64,
    pub(super) rows: NotedRows,
    pub(super) settled: Settled,
    pub(super) accepted: u64,
    pub(super) exceptions: Vec<NotedException>,
    /// Removals that gave way to another row.
    pub(super) superseded: u64,
    /// Whether it waits for the delivery to be closed.
    pub(super) deferred: bool,
    /// Whether requests that were refused are kept.
    pub(super) kept: Result<(), Error>,
}

/// A batch on its way: noted, then sent, beside others, whose notes are written with its own.
pub(super) struct Journey {
    pub(super) store: Store,
    pub(super) sync: i64,
    pub(super) of: DeliveryId,
    pub(super) batch: i64,
    pub(super) rows: NotedRows,
    pub(super) mapped: Mapped,
    pub(super) delivery: Arc<Box<dyn Delivery>>,
    pub(super) deferred: bool,
    pub(super) policy: RetryPolicy,
    pub(super) timeout: Duration,
    pub(super) gate: Arc<dyn Gate>,
}

impl Journey {
    /// An error means that nothing left.
    pub(super) async fn travel(self) -> Result<Ended, Error> {
        let Self { store, sync, of, batch, rows, mapped, .. } = self;
        if !self.deferred {
            fail::fail_point!("deliver.before_start_note");
            store.start(Note { of, batch, rows, end: None }).await?;
            fail::fail_point!("deliver.after_start_note");
        }
        let settled = if mapped.batch.is_empty() {
            Settled { outcomes: Vec::new(), stop: None, calls: 0, retries: 0, exchanges: Vec::new() }
        } else {
            let delivery = self.delivery.as_ref().as_ref();
            deliver_batch(delivery, &mapped.batch, &self.policy, self.timeout, self.gate.as_ref()).await
        };
        // Whoever closes the delivery must be the only one who has it.
        drop(self.delivery);
        fail::fail_point!("deliver.after_answer");
        let mut exceptions: Vec<NotedException> = Vec::new();
        let mut accepted = 0;
        for (sequence, outcome) in mapped.batch.sequences.values().iter().zip(&settled.outcomes) {
            match outcome {
                RowOutcome::Accepted | RowOutcome::Deferred => accepted += 1,
                RowOutcome::Rejected(why) => exceptions.push(rejected(*sequence, why)),
                RowOutcome::NotSent => exceptions.push(NotedException::new(*sequence, NotedOutcome::NotSent)),
                RowOutcome::InDoubt => exceptions.push(NotedException::new(*sequence, NotedOutcome::InDoubt)),
            }
        }
        exceptions.extend(mapped.rejected.iter().map(|(sequence, _, why)| rejected(*sequence, why)));
        exceptions.extend(mapped.superseded.iter().map(|s| NotedException::new(*s, NotedOutcome::NotSent)));
        let deferred = self.deferred || settled.outcomes.contains(&RowOutcome::Deferred);
        let kept = keep_exchanges(&store, sync, of.run, &mapped.batch, &settled).await;
        let superseded = mapped.superseded.len() as u64;
        Ok(Ended { batch, rows, settled, accepted, exceptions, superseded, deferred, kept })
    }
}

/// Keeps the last request and answer of every row that was refused.
async fn keep_exchanges(
    store: &Store,
    sync: i64,
    run: i64,
    batch: &ChangeBatch,
    settled: &Settled,
) -> Result<(), Error> {
    let mut kept: HashMap<&str, &Arc<Exchange>> = HashMap::new();
    for (range, exchange) in &settled.exchanges {
        for row in range.clone() {
            kept.insert(batch.keys.value(row), exchange);
        }
    }
    let exchanges: Vec<RejectedExchange> = kept
        .into_iter()
        .map(|(key, exchange)| RejectedExchange {
            key: key.to_owned(),
            run,
            request: exchange.request.clone(),
            response: exchange.response.clone(),
        })
        .collect();
    store.keep_exchanges(sync, &exchanges).await
}

fn rejected(sequence: i64, why: &Rejection) -> NotedException {
    NotedException {
        sequence,
        outcome: NotedOutcome::Rejected,
        in_doubt: why.in_doubt,
        code: why.code.to_owned(),
        reason: why.reason.clone(),
    }
}
