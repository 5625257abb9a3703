//! Delivering one batch to its end: repeats, waits, halving, and when a run gives up.
//!
//! [`deliver_batch`] drives [`Delivery::deliver`], which makes one attempt, until every row of the
//! batch has its outcome. How many requests that can take is bounded:
//!
//! * `retries` failures in a row (throttled, silent or answered with an error) are repeated; a
//!   definite answer to any part of the batch starts that count anew.
//! * Halving a batch of n rows makes at most 2n − 1 parts. A part that was cut off because of an
//!   answered error is not repeated for another one: a destination that is down costs
//!   `retries` + 2n − 1 requests and no more.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::change::ChangeBatch;
use crate::destination::{Delivery, DeliverySpec, Destination, RunFacts};
use crate::outcome::{Delivered, DeliveryError, Exchange, Rejection, RowOutcome};

/// How troubles that may pass are repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Repeats on top of the first attempt.
    pub retries: u32,
    /// The longest wait before the first repeat; it doubles with each further one.
    pub base: Duration,
    /// No wait is longer, except when the destination asks for it.
    pub cap: Duration,
}

impl RetryPolicy {
    /// Half a second to half a minute.
    pub fn new(retries: u32) -> Self {
        Self { retries, base: Duration::from_millis(500), cap: Duration::from_secs(30) }
    }

    /// How long to wait before the repeat with this number (from 0): anything between nothing and
    /// the doubled base ("full jitter"), after what the destination asked for.
    fn wait(&self, repeat: u32, asked: Option<Duration>) -> Duration {
        let ceiling = self.base.saturating_mul(2_u32.saturating_pow(repeat.min(31))).min(self.cap);
        asked.unwrap_or_default() + ceiling.mul_f64(fastrand::f64())
    }
}

/// Asked before every single attempt; the lease and cancellation live behind it.
#[async_trait]
pub trait Gate: Send + Sync {
    /// Whether an attempt that may take this long may begin now.
    async fn admit(&self, timeout: Duration) -> Result<(), Stopped>;

    /// Ends when no further attempt will be admitted; waits are cut short by it.
    async fn stopped(&self);
}

/// No further attempt may begin: the run was cancelled, or its lease is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the run was stopped")]
pub struct Stopped;

/// Why rows of a batch were left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    /// No row of any batch can pass until a person changes something.
    Unauthorized {
        /// What the destination said.
        message: String,
        /// What to do about it.
        hint: String,
    },
    /// The destination did not answer, or kept throttling, until retries were spent. Whether the
    /// run goes on with other batches is for [`StopRules`] to say.
    Unavailable {
        /// What happened last.
        message: String,
    },
    /// The destination answers, and takes none of the rows. Only [`StopRules`] say so.
    Refused {
        /// How many rows or batches, and the last refusal.
        message: String,
    },
    /// The gate did not admit a further attempt.
    Stopped,
}

/// How one batch ended.
#[derive(Debug)]
pub struct Settled {
    /// One outcome per row of the batch, in its order.
    pub outcomes: Vec<RowOutcome>,
    /// Why not every row came to a definite end, if so.
    pub stop: Option<StopReason>,
    /// Requests that left.
    pub calls: u64,
    /// Attempts that repeated another after a trouble.
    pub retries: u64,
    /// The request and response behind each rejected row. Ranges do not overlap; rejected rows
    /// that met no request are in none of them.
    pub exchanges: Vec<(Range<usize>, Arc<Exchange>)>,
}

/// Delivers one batch: repeats, waits and halves until every row has an outcome or the gate, the
/// destination's silence or a trouble that no repeat can cure ends it.
///
/// * A row whose earlier attempt may have been applied stays ambiguous: a later `NotSent` is
///   `InDoubt`, a later `Rejected` is marked `in_doubt`.
/// * `timeout` is the destination's own; an attempt that outlives it is dropped, its rows in doubt.
pub async fn deliver_batch(
    delivery: &dyn Delivery,
    batch: &ChangeBatch,
    policy: &RetryPolicy,
    timeout: Duration,
    gate: &dyn Gate,
) -> Settled {
    let mut driver = Driver {
        delivery,
        batch,
        policy,
        timeout,
        gate,
        rows: vec![Row { ambiguous: false, end: None }; batch.len()],
        failures: 0,
        settled: Settled { outcomes: Vec::new(), stop: None, calls: 0, retries: 0, exchanges: Vec::new() },
    };
    // Parts still to deliver, the next one last.
    let mut parts = vec![Part { rows: (0..batch.len()).collect(), after_error: false }];
    while let Some(part) = parts.pop() {
        match driver.settle(part).await {
            Ok(None) => {}
            Ok(Some(part)) => {
                let (first, second) = part.halves();
                parts.push(second);
                parts.push(first);
            }
            Err(reason) => {
                driver.settled.stop = Some(reason);
                break;
            }
        }
    }
    driver.finish()
}

/// How the emptying of a destination ended.
#[derive(Debug)]
pub struct Cleared {
    /// Requests that left.
    pub calls: u64,
    /// Attempts that repeated another after a trouble.
    pub retries: u64,
    /// Why the destination is not known to be empty, if so.
    pub trouble: Option<ClearTrouble>,
}

/// Why a destination is not known to be empty.
#[derive(Debug)]
pub struct ClearTrouble {
    /// What happened last; `None` when the gate admitted no further attempt.
    pub error: Option<DeliveryError>,
    /// Some attempt may have emptied it, or a part of it.
    pub in_doubt: bool,
}

/// Empties what a sync writes to: repeats and waits as [`deliver_batch`] does.
pub async fn clear(
    destination: &dyn Destination,
    sync: &DeliverySpec,
    run: &RunFacts,
    policy: &RetryPolicy,
    gate: &dyn Gate,
) -> Cleared {
    let timeout = destination.timeout();
    let mut cleared = Cleared { calls: 0, retries: 0, trouble: None };
    let mut in_doubt = false;
    loop {
        let stopped = ClearTrouble { error: None, in_doubt };
        if gate.admit(timeout).await.is_err() {
            return Cleared { trouble: Some(stopped), ..cleared };
        }
        cleared.retries += u64::from(cleared.calls > 0);
        cleared.calls += 1;
        let silence = || {
            let message = format!("no answer within {} s", timeout.as_secs_f32());
            Err(DeliveryError::Unavailable { answered: false, after: None, message })
        };
        let attempt = tokio::time::timeout(timeout, destination.clear(sync, run)).await;
        let Err(error) = attempt.unwrap_or_else(|_| silence()) else { return cleared };
        in_doubt |= matches!(error, DeliveryError::Unavailable { .. });
        let asked = match &error {
            DeliveryError::Throttled { after, .. } | DeliveryError::Unavailable { after, .. } => Some(*after),
            DeliveryError::Refused { .. } | DeliveryError::Unauthorized { .. } => None,
        };
        let Some(asked) = asked.filter(|_| cleared.retries < u64::from(policy.retries)) else {
            return Cleared { trouble: Some(ClearTrouble { error: Some(error), in_doubt }), ..cleared };
        };
        let repeat = u32::try_from(cleared.retries).unwrap_or(u32::MAX);
        tokio::select! {
            biased;
            () = gate.stopped() => {
                return Cleared { trouble: Some(ClearTrouble { error: None, in_doubt }), ..cleared };
            }
            () = tokio::time::sleep(policy.wait(repeat, asked)) => {}
        }
    }
}

#[derive(Debug, Clone)]
struct Row {
    /// Some attempt may have been applied.
    ambiguous: bool,
    end: Option<RowOutcome>,
}

/// Rows that travel in one request, by their positions in the batch.
struct Part {
    rows: Vec<usize>,
    /// It was cut off because the destination answered a larger one with an error.
    after_error: bool,
}

impl Part {
    fn halves(mut self) -> (Self, Self) {
        let second = self.rows.split_off(self.rows.len() / 2);
        let after_error = self.after_error;
        (self, Self { rows: second, after_error })
    }
}

struct Driver<'a> {
    delivery: &'a dyn Delivery,
    batch: &'a ChangeBatch,
    policy: &'a RetryPolicy,
    timeout: Duration,
    gate: &'a dyn Gate,
    rows: Vec<Row>,
    /// Failures since the last definite answer.
    failures: u32,
    settled: Settled,
}

impl Driver<'_> {
    /// Delivers one part until each of its rows has an end. `Some` is a part to be halved.
    async fn settle(&mut self, mut part: Part) -> Result<Option<Part>, StopReason> {
        let mut repeat = false;
        while !part.rows.is_empty() {
            self.gate.admit(self.timeout).await.map_err(|Stopped| StopReason::Stopped)?;
            self.settled.retries += u64::from(repeat);
            let delivered = self.attempt(&part.rows).await;
            // An attempt that made no call waited for the budget of requests: no trouble was met.
            let called = delivered.calls > 0;
            let (rejected, accepted) = self.note(&part.rows, &delivered);
            part.rows.retain(|&row| self.rows[row].end.is_none());
            if rejected > 0 || accepted > 0 {
                self.failures = 0;
            }
            let Some(error) = delivered.error else {
                // Without an error the attempt is the last word on every row.
                for &row in &part.rows {
                    self.rows[row].end = Some(self.left(row));
                }
                self.failures = 0;
                return Ok(None);
            };
            if part.rows.is_empty() {
                return match error {
                    DeliveryError::Unauthorized { message, hint } => {
                        Err(StopReason::Unauthorized { message, hint })
                    }
                    _ => Ok(None),
                };
            }
            let (asked, answered, message) = match error {
                DeliveryError::Unauthorized { message, hint } => {
                    return Err(StopReason::Unauthorized { message, hint });
                }
                DeliveryError::Refused { message } => {
                    self.failures = 0;
                    if part.rows.len() > 1 {
                        return Ok(Some(part));
                    }
                    self.reject(part.rows[0], Rejection::REFUSED, message, delivered.exchange);
                    return Ok(None);
                }
                DeliveryError::Throttled { after, message } => (after, false, message),
                DeliveryError::Unavailable { answered, after, message } => (after, answered, message),
            };
            let spent = self.failures >= self.policy.retries || (answered && part.after_error);
            if called && spent {
                if !answered {
                    return Err(StopReason::Unavailable { message });
                }
                if part.rows.len() > 1 {
                    part.after_error = true;
                    return Ok(Some(part));
                }
                self.reject(part.rows[0], Rejection::DESTINATION_ERROR, message, delivered.exchange);
                return Ok(None);
            }
            let wait = self.policy.wait(if called { self.failures } else { 0 }, asked);
            self.failures += u32::from(called);
            repeat = called;
            tokio::select! {
                biased;
                () = self.gate.stopped() => return Err(StopReason::Stopped),
                () = tokio::time::sleep(wait) => {}
            }
        }
        Ok(None)
    }

    async fn attempt(&mut self, rows: &[usize]) -> Delivered {
        let contiguous = rows.last().is_some_and(|last| last - rows[0] + 1 == rows.len());
        let part = if contiguous { Ok(self.batch.slice(rows[0], rows.len())) } else { self.batch.take(rows) };
        let part = match part {
            Ok(part) => part,
            // Arrow refuses to pick rows only when a column outgrows its offsets; halves are smaller.
            Err(error) => {
                let refused = DeliveryError::Refused { message: format!("the batch cannot be cut: {error}") };
                return Delivered { calls: 0, ..Delivered::failed(refused, RowOutcome::NotSent, rows.len()) };
            }
        };
        let mut delivered =
            tokio::time::timeout(self.timeout, self.delivery.deliver(&part)).await.unwrap_or_else(|_| {
                let message = format!("no answer within {} s", self.timeout.as_secs_f32());
                let silence = DeliveryError::Unavailable { answered: false, after: None, message };
                Delivered::failed(silence, RowOutcome::InDoubt, rows.len())
            });
        // A row without an outcome is a fault of the connector; what is not known is in doubt.
        delivered.outcomes.resize(rows.len(), RowOutcome::InDoubt);
        self.settled.calls += delivered.calls;
        delivered
    }

    /// Takes over what an attempt said of each row. Returns how many rows the destination rejected,
    /// and how many it accepted.
    fn note(&mut self, rows: &[usize], delivered: &Delivered) -> (usize, usize) {
        let (mut rejected, mut accepted) = (Vec::new(), 0);
        for (&row, outcome) in rows.iter().zip(&delivered.outcomes) {
            let state = &mut self.rows[row];
            match outcome {
                RowOutcome::Accepted | RowOutcome::Deferred => {
                    accepted += 1;
                    state.end = Some(outcome.clone());
                }
                RowOutcome::Rejected(rejection) => {
                    let in_doubt = rejection.in_doubt || state.ambiguous;
                    state.end = Some(RowOutcome::Rejected(Rejection { in_doubt, ..rejection.clone() }));
                    // What levin rejected before sending met no request.
                    if met_destination(outcome) {
                        rejected.push(row);
                    }
                }
                RowOutcome::InDoubt => state.ambiguous = true,
                RowOutcome::NotSent => {}
            }
        }
        self.keep(&rejected, delivered.exchange.clone());
        (rejected.len(), accepted)
    }

    fn reject(&mut self, row: usize, code: &'static str, reason: String, exchange: Option<Exchange>) {
        let in_doubt = self.rows[row].ambiguous;
        self.rows[row].end = Some(RowOutcome::Rejected(Rejection { code, reason, in_doubt }));
        self.keep(&[row], exchange);
    }

    /// Keeps an exchange for the rows that it rejected; neighbours share a range.
    fn keep(&mut self, rejected: &[usize], exchange: Option<Exchange>) {
        let Some(exchange) = exchange.map(Arc::new) else { return };
        for run in rejected.chunk_by(|a, b| a + 1 == *b) {
            self.settled.exchanges.push((run[0]..run[0] + run.len(), exchange.clone()));
        }
    }

    /// What a row is when nothing more is done for it.
    fn left(&self, row: usize) -> RowOutcome {
        if self.rows[row].ambiguous { RowOutcome::InDoubt } else { RowOutcome::NotSent }
    }

    fn finish(mut self) -> Settled {
        self.settled.outcomes = (0..self.rows.len())
            .map(|row| self.rows[row].end.clone().unwrap_or_else(|| self.left(row)))
            .collect();
        self.settled.exchanges.sort_by_key(|(rows, _)| rows.start);
        self.settled
    }
}

/// When a run gives up on its destination, so that one which is dead or misconfigured is not
/// halved into millions of requests. Fed with every batch as it ends.
///
/// Only what the destination said counts: rows that levin itself rejected before sending say
/// nothing about it. Ask while rows are left to send: a run that has sent its last batch has
/// nothing to give up, and ends with a warning about its rejected rows.
#[derive(Debug, Clone)]
pub struct StopRules {
    limit: u32,
    fruitless: u32,
    /// Of the fruitless batches in a row, so many were refused row by row.
    refused: u32,
    accepted: bool,
}

impl StopRules {
    /// Gives up after so many consecutive batches without one success.
    pub fn new(consecutive_batches: u32) -> Self {
        Self { limit: consecutive_batches.max(1), fruitless: 0, refused: 0, accepted: false }
    }

    /// Takes note of a batch that ended. `batch_number` counts a run's batches from 0 in the order
    /// in which they were begun. `Some` tells why the run must end.
    pub fn observe(&mut self, batch_number: u64, outcomes: &[RowOutcome]) -> Option<StopReason> {
        let accepted = outcomes.iter().any(|o| matches!(o, RowOutcome::Accepted | RowOutcome::Deferred));
        if accepted {
            self.accepted = true;
            self.fruitless = 0;
            self.refused = 0;
            return None;
        }
        let met: Vec<&RowOutcome> = outcomes.iter().filter(|o| met_destination(o)).collect();
        if met.is_empty() {
            return None;
        }
        self.fruitless += 1;
        let rejections: Vec<&Rejection> = met.iter().filter_map(|o| o.rejection()).collect();
        let all_rejected = rejections.len() == met.len();
        // An error of the destination's own is no refusal, although it ends a row like one.
        let all_refused = all_rejected && rejections.iter().all(|r| r.code != Rejection::DESTINATION_ERROR);
        self.refused += u32::from(all_refused);
        let said = rejections.first().map_or_else(String::new, |r| format!(": {}", r.reason));
        // A single row may be to blame itself; several of them hardly all are.
        let message = if batch_number == 0 && !self.accepted && all_rejected && rejections.len() > 1 {
            format!("the destination took none of the {} rows of the first batch{said}", rejections.len())
        } else if self.fruitless >= self.limit {
            format!("{} batches in a row passed without one accepted row{said}", self.fruitless)
        } else {
            return None;
        };
        Some(if self.refused == self.fruitless {
            StopReason::Refused { message }
        } else {
            StopReason::Unavailable { message }
        })
    }
}

/// Whether the outcome tells something about the destination.
fn met_destination(outcome: &RowOutcome) -> bool {
    match outcome {
        RowOutcome::Rejected(r) => {
            r.code != Rejection::UNREPRESENTABLE_VALUE && r.code != Rejection::TEMPLATE_FAILED
        }
        RowOutcome::Accepted | RowOutcome::Deferred | RowOutcome::NotSent | RowOutcome::InDoubt => true,
    }
}

#[cfg(test)]
#[path = "retry_tests.rs"]
mod tests;
