//! Stage 4: rows leave for the destination, batch by batch, each noted before and after.

use std::sync::Arc;

use arrow::array::RecordBatch;
use connectors::change::{ChangeBatch, Operation};
use connectors::destination::{Delivery, DeliverySpec, RunFacts};
use connectors::outcome::{DeliveryError, Rejection, RowOutcome};
use connectors::retry::{RetryPolicy, StopReason, StopRules};
use connectors::warehouse::ErrorKind;
use futures::TryStreamExt;
use futures::future::{join_all, try_join_all};
use sql_templates::{DeliverFacts, DiffShape, Shape, Statement, SyncTables};
use tokio::task::{JoinError, JoinSet};
use tracing::Instrument;

use super::Run;
use super::batches::{BEFORE_THE_FIRST, Cutter, Place, last_sequence};
use super::differences::Diff;
use super::exchange;
use super::journey::{Ended, Journey};
use super::lease::Lease;
use super::ledger::Ledger;
use super::model::Described;
use super::report::OperationCounts;
use crate::error::{Error, ErrorCode};
use crate::fields;
use crate::mapping::Mapper;
use crate::store::{DeliveryId, Note, NotedException, NotedOutcome, NotedRows};

/// What has been delivered so far, and what of it is not committed yet.
#[derive(Debug, Default)]
pub struct Delivered {
    /// Ended rows that no commit has taken yet.
    pub ledger: Ledger,
    /// Rows that the destination accepted.
    pub successful: OperationCounts,
    /// Rows that were rejected or are in doubt.
    pub failed: OperationCounts,
    /// Removals that gave way to another row with the same matching value.
    pub superseded: u64,
    /// Failed rows that may have been applied.
    pub in_doubt: u64,
    /// Rows that were rejected as `NOT_FOUND`.
    pub not_found: u64,
    /// Requests that left.
    pub calls: u64,
    /// Attempts that repeated another.
    pub retries: u64,
    /// Why the delivery did not come to its end.
    pub stop: Option<Error>,
    /// How a batch ended is not known to this process; its note is still open.
    pub broken_off: bool,
}

impl Delivered {
    /// Rows that came to an end of their own: the destination, or the mapping, said yes or no, or the
    /// answer is lost.
    pub fn ended(&self) -> u64 {
        self.successful.total() + self.failed.total() + self.superseded
    }
}

/// What the run commits in the middle of a long delivery.
#[async_trait::async_trait]
pub trait Checkpoint: Send {
    /// Commits what the ledger holds; called with every batch that is in it ended.
    async fn commit(&mut self, ledger: &Ledger) -> Result<(), Error>;

    /// Whether enough has gathered, or enough time has passed.
    fn is_due(&self, ledger: &Ledger) -> bool;
}

/// Gives up after ten batches in a row without one success. Rows that were refused before and come
/// again must not make a run give up on the rest, so each of them may cost a batch.
fn stop_rules(known_rejections: i64) -> StopRules {
    StopRules::new(u32::try_from(known_rejections).unwrap_or(u32::MAX).saturating_add(10))
}

/// Everything that a delivery needs.
pub struct Shipment<'a> {
    /// The diff whose rows leave.
    pub diff: &'a Diff,
    /// The model and its columns.
    pub described: &'a Described,
    /// Maps the rows.
    pub mapper: Mapper,
    /// What the sync says to its destination.
    pub spec: &'a DeliverySpec,
    /// What is known of the run.
    pub facts: &'a RunFacts,
    /// Operations to send, in order.
    pub sent: &'a [Operation],
    /// Rows that were refused before this run, and come again.
    pub known_rejections: i64,
}

impl Shipment<'_> {
    /// Rows are kept apart by another field than the key.
    fn claims(&self) -> bool {
        !self.described.definition.matching.is_empty()
    }
}

/// Sends every row of the diff that the mode sends. Trouble of the destination ends up in
/// [`Delivered::stop`]; an error is trouble of the warehouse, the store or the lease, and whatever
/// had ended before stands in `delivered` all the same.
pub async fn deliver(
    run: &Run<'_>,
    lease: &Lease,
    shipment: Shipment<'_>,
    checkpoint: &mut dyn Checkpoint,
    delivered: &mut Delivered,
) -> Result<(), Error> {
    let destination = &run.sync.destination.destination;
    let delivery = match destination.open(shipment.spec, shipment.facts).await {
        Ok(delivery) => Arc::new(exchange::delivery(delivery)),
        Err(error) => {
            let unusable = matches!(error, DeliveryError::Unauthorized { .. });
            let missing =
                if unusable { fields::missing(destination.as_ref(), shipment.spec).await } else { None };
            delivered.stop = Some(missing.unwrap_or_else(|| error.into()));
            return Ok(());
        }
    };
    let deferred = run.sync.destination.connector.deferred;
    let mut dispatch = Dispatch {
        run,
        lease,
        delivery,
        policy: RetryPolicy::new(destination.retries()),
        deferred,
        rules: stop_rules(shipment.known_rejections),
        judges_first_batch: shipment.known_rejections == 0,
        tasks: JoinSet::new(),
        noting: JoinSet::new(),
        batches: 0,
        waiting: Vec::new(),
        delivered,
        done: 0,
        total: shipment.facts.planned.values().sum(),
    };
    if dispatch.total > 0 {
        run.progress.delivered(&run.sync.slug, 0, dispatch.total);
    }
    let outcome = dispatch.send_everything(shipment, checkpoint).await;
    // Whatever happened, requests under way are waited for: their answers are worth having.
    let drained = dispatch.drain().await;
    let complete = outcome.is_ok() && drained.is_ok() && dispatch.delivered.stop.is_none();
    let closing = dispatch.close(complete).await;
    outcome.and(drained).and(closing)
}

/// The tables in which rows of an operation look for removals that had to come first, if any had to. A resync
/// that leaves removals to the next run makes them no less owed: whoever needs one of them waits for it too.
pub fn waits<'a>(
    run: &'a Run<'_>,
    shape: &Shape,
    diff_shape: DiffShape,
    operation: Operation,
) -> Option<&'a SyncTables> {
    let waits = !shape.matching.is_empty()
        && diff_shape == DiffShape::Full
        && operation != Operation::Removed
        && run.sync.removes();
    waits.then_some(&run.tables)
}

struct Dispatch<'a, 'b> {
    run: &'a Run<'b>,
    lease: &'a Lease,
    delivery: Arc<Box<dyn Delivery>>,
    policy: RetryPolicy,
    deferred: bool,
    rules: StopRules,
    /// No row is known to be refused, so a first batch without a success says something.
    judges_first_batch: bool,
    tasks: JoinSet<Result<Ended, Error>>,
    /// Ends that are being written down, while other batches are on their way.
    noting: JoinSet<Result<(), Error>>,
    batches: i64,
    /// What was written and counts only once the delivery is closed.
    waiting: Vec<Waiting>,
    delivered: &'a mut Delivered,
    done: u64,
    total: u64,
}

/// A batch whose outcomes come when the delivery is closed.
struct Waiting {
    batch: i64,
    rows: NotedRows,
    exceptions: Vec<NotedException>,
}

/// Rows of one operation on their way out of the warehouse.
struct Leaving {
    operation: Operation,
    /// The diff tells operations apart.
    full: bool,
    cutter: Cutter,
    place: Place,
}

/// Some rows of a diff behind this number. The engine is closed again before they leave: it must not stay open
/// while requests are under way.
async fn read_page(
    run: &Run<'_>,
    shape: &Shape,
    facts: &DeliverFacts<'_>,
    after: i64,
    rows: u64,
) -> Result<Vec<RecordBatch>, Error> {
    let facts = DeliverFacts {
        after: Some(after),
        through: Some(after.saturating_add_unsigned(rows)),
        ..facts.clone()
    };
    let select = Statement::Deliver { shape, facts: &facts }.sql(run.dialect())?;
    let mut session = run.session("deliver").await?;
    Ok(session.query(&select).await?.try_collect().await?)
}

impl Dispatch<'_, '_> {
    async fn send_everything(
        &mut self,
        mut shipment: Shipment<'_>,
        checkpoint: &mut dyn Checkpoint,
    ) -> Result<(), Error> {
        for &operation in shipment.sent {
            let count = shipment.facts.planned.get(&operation).copied().unwrap_or_default();
            if count == 0 {
                continue;
            }
            self.send_operation(operation, &mut shipment, checkpoint).await?;
            self.drain().await?;
            if self.is_stopped() {
                break;
            }
            // Whoever claims a value that was given up, or moved to another one, goes only once the removal
            // is known to have been accepted: the snapshot says so.
            if operation == Operation::Removed && shipment.claims() && !self.delivered.ledger.is_empty() {
                checkpoint.commit(&self.delivered.ledger).await?;
                self.delivered.ledger = Ledger::default();
            }
        }
        Ok(())
    }

    fn is_stopped(&self) -> bool {
        self.delivered.stop.is_some() || self.run.cancel.is_cancelled() || self.lease.is_lost()
    }

    async fn send_operation(
        &mut self,
        operation: Operation,
        shipment: &mut Shipment<'_>,
        checkpoint: &mut dyn Checkpoint,
    ) -> Result<(), Error> {
        let run = self.run;
        let wire = run.sync.mode.at_destination(operation);
        let limits = run.sync.destination.destination.batch_limits(shipment.spec, wire);
        let shape = shipment.described.definition.shape();
        let facts = DeliverFacts {
            diff: shipment.diff.table.clone(),
            diff_shape: shipment.diff.shape,
            operation: operation.name(),
            previous: if operation == Operation::Changed { &shipment.described.needed.previous } else { &[] },
            after: None,
            through: None,
            limit: None,
            waits: waits(run, &shape, shipment.diff.shape, operation),
        };
        let full = shipment.diff.shape == DiffShape::Full;
        let mut leaving = Leaving { operation, full, cutter: Cutter::new(limits), place: Place::default() };
        if let Some(rows) = run.warehouse().page_rows() {
            let last = i64::try_from(shipment.diff.counts.differing()).unwrap_or(i64::MAX);
            let mut after = BEFORE_THE_FIRST;
            let mut page = read_page(run, &shape, &facts, after, rows).await?;
            loop {
                after = after.saturating_add_unsigned(rows);
                let more = after < last;
                // The next page is read while this one leaves.
                let next = async {
                    if more { read_page(run, &shape, &facts, after, rows).await.map(Some) } else { Ok(None) }
                };
                let sent = async {
                    for rows in page {
                        self.send_rows(rows, &mut leaving, shipment, checkpoint).await?;
                    }
                    Ok::<_, Error>(())
                };
                let (sent, next) = tokio::join!(sent, next);
                sent?;
                match next? {
                    Some(next) if !self.is_stopped() => page = next,
                    _ => break,
                }
            }
        } else {
            let mut after = None;
            loop {
                let begun = after;
                let facts = DeliverFacts { after, ..facts.clone() };
                let select = Statement::Deliver { shape: &shape, facts: &facts }.sql(run.dialect())?;
                let mut session = run.session("deliver").await?;
                let mut rows = session.query(&select).await?;
                let gone = loop {
                    if self.is_stopped() {
                        break false;
                    }
                    match rows.try_next().await {
                        Ok(Some(batch)) => {
                            after = last_sequence(&batch)?.or(after);
                            self.send_rows(batch, &mut leaving, shipment, checkpoint).await?;
                        }
                        Ok(None) => break false,
                        // The rest is asked for, as long as there is less of it every time.
                        Err(error) if error.kind == ErrorKind::ResultGone && after > begun => break true,
                        Err(error) => return Err(error.into()),
                    }
                };
                if !gone {
                    break;
                }
            }
        }
        if !self.is_stopped()
            && let Some(piece) = leaving.cutter.rest()?
        {
            self.send(&piece, &mut leaving, shipment, checkpoint).await?;
        }
        let planned = shipment.facts.planned.get(&operation).copied().unwrap_or_default();
        if !self.is_stopped() && leaving.place.rows.unsigned_abs() != planned {
            let message =
                format!("{} {} rows were read, {planned} were counted", leaving.place.rows, operation.name());
            return Err(Error::new(ErrorCode::Internal, message));
        }
        Ok(())
    }

    /// Sends rows in batches of the destination's size, until the delivery is stopped.
    async fn send_rows(
        &mut self,
        rows: RecordBatch,
        leaving: &mut Leaving,
        shipment: &mut Shipment<'_>,
        checkpoint: &mut dyn Checkpoint,
    ) -> Result<(), Error> {
        if self.is_stopped() {
            return Ok(());
        }
        for piece in leaving.cutter.push(rows)? {
            self.send(&piece, leaving, shipment, checkpoint).await?;
            if self.is_stopped() {
                break;
            }
        }
        Ok(())
    }

    /// Maps one batch and sends it on its way.
    async fn send(
        &mut self,
        piece: &RecordBatch,
        leaving: &mut Leaving,
        shipment: &mut Shipment<'_>,
        checkpoint: &mut dyn Checkpoint,
    ) -> Result<(), Error> {
        let Leaving { operation, full, .. } = *leaving;
        let Some(rows) = leaving.place.advance(operation, piece)? else { return Ok(()) };
        let mapped = shipment.mapper.map(operation, full, piece)?;
        let most = self.run.sync.destination.destination.concurrency().max(1);
        while self.tasks.len() >= most {
            self.collect_one().await?;
        }
        if self.is_stopped() {
            return Ok(());
        }
        if !self.deferred && checkpoint.is_due(&self.delivered.ledger) {
            self.drain().await?;
            checkpoint.commit(&self.delivered.ledger).await?;
            self.delivered.ledger = Ledger::default();
        }
        self.batches += 1;
        let journey = Journey {
            store: self.run.store.clone(),
            sync: self.run.sync.id,
            of: self.notes(),
            batch: self.batches,
            rows,
            mapped,
            delivery: self.delivery.clone(),
            deferred: self.deferred,
            policy: self.policy,
            timeout: self.run.sync.destination.destination.timeout(),
            gate: self.lease.gate(),
        };
        self.tasks.spawn(journey.travel().in_current_span());
        Ok(())
    }

    /// Waits for every batch under way, and every note, whatever became of the notes about some of them.
    async fn drain(&mut self) -> Result<(), Error> {
        let mut outcome = Ok(());
        while !self.tasks.is_empty() {
            let collected = self.collect_one().await;
            outcome = outcome.and(collected);
        }
        while let Some(joined) = self.noting.join_next().await {
            outcome = outcome.and(noted(joined));
        }
        outcome
    }

    /// Takes the next batch that ends. What the ledger holds is committed even when the store takes no more
    /// notes: else rows that were accepted would come again as if they had never been sent.
    ///
    /// The end is noted while the next batch is on its way, whose own note comes behind it: once that batch
    /// leaves, this end is durable.
    async fn collect_one(&mut self) -> Result<(), Error> {
        let Some(joined) = self.tasks.join_next().await else { return Ok(()) };
        let ended = joined.map_err(|e| {
            self.delivered.broken_off = true;
            Error::new(ErrorCode::Internal, format!("a delivery broke off: {e}"))
        })??;
        let Some(operation) = super::ledger::operation(ended.rows.operation) else { return Ok(()) };
        self.delivered.superseded += ended.superseded;
        self.count(operation, ended.accepted, &ended.exceptions);
        self.delivered.calls += ended.settled.calls;
        self.delivered.retries += ended.settled.retries;
        self.done += ended.accepted + ended.exceptions.len() as u64;
        self.run.progress.delivered(&self.run.sync.slug, self.done, self.total);
        self.observe(&ended);
        let Ended { batch, rows, exceptions, deferred, mut kept, .. } = ended;
        if deferred {
            self.waiting.push(Waiting { batch, rows, exceptions });
        } else {
            fail::fail_point!("deliver.before_end_note");
            match self.run.store.ending(self.notes(), batch, &exceptions).await {
                Ok(ending) => drop(self.noting.spawn(async move {
                    let noted = ending.await;
                    fail::fail_point!("deliver.after_end_note");
                    noted
                })),
                Err(error) => kept = kept.and(Err(error)),
            }
            self.delivered.ledger.end(batch, rows, exceptions);
        }
        while let Some(joined) = self.noting.try_join_next() {
            kept = kept.and(noted(joined));
        }
        kept
    }

    fn notes(&self) -> DeliveryId {
        self.run.delivery_id(self.lease.generation())
    }

    fn count(&mut self, operation: Operation, accepted: u64, exceptions: &[NotedException]) {
        *self.delivered.successful.of_mut(operation) += accepted;
        for exception in exceptions {
            if exception.outcome == NotedOutcome::NotSent && !exception.in_doubt {
                continue;
            }
            *self.delivered.failed.of_mut(operation) += 1;
            self.delivered.in_doubt += u64::from(exception.in_doubt);
            self.delivered.not_found += u64::from(exception.code == Rejection::NOT_FOUND);
        }
    }

    /// Decides whether the run goes on after this batch.
    fn observe(&mut self, ended: &Ended) {
        let stop = match &ended.settled.stop {
            Some(StopReason::Unavailable { .. } | StopReason::Unauthorized { .. }) => {
                ended.settled.stop.clone()
            }
            Some(StopReason::Refused { .. } | StopReason::Stopped) | None => None,
        }
        .or_else(|| {
            // What comes last can stop nothing any more.
            let number = ended.batch.unsigned_abs() - u64::from(self.judges_first_batch);
            self.rules.observe(number, &ended.settled.outcomes).filter(|_| self.done < self.total)
        });
        let Some(stop) = stop else { return };
        if self.delivered.stop.is_none() {
            self.delivered.stop = match stop {
                StopReason::Unauthorized { message, hint } => {
                    Some(Error::new(ErrorCode::DestinationUnusable, message).hint(hint))
                }
                StopReason::Unavailable { message } => {
                    Some(Error::new(ErrorCode::DestinationUnavailable, message))
                }
                StopReason::Refused { message } => Some(Error::new(ErrorCode::DestinationRefused, message)),
                StopReason::Stopped => None,
            };
            self.lease.close_gate();
        }
    }

    /// Ends the delivery; for a deferred destination this is the moment that counts.
    async fn close(mut self, complete: bool) -> Result<(), Error> {
        // Every task has been waited for, so nobody else holds the delivery.
        let Some(delivery) = Arc::into_inner(std::mem::replace(&mut self.delivery, closed())) else {
            return Err(Error::new(ErrorCode::Internal, "a delivery is still under way at its end"));
        };
        let complete = complete && !self.is_stopped();
        let waiting = std::mem::take(&mut self.waiting);
        // Without rows too the end may be seen: an empty file, an empty table.
        if complete && (self.deferred || self.total == 0 || !waiting.is_empty()) {
            if self.deferred
                && let Err(error) = self.start_waiting(&waiting).await
            {
                self.undo(&waiting, NotedOutcome::NotSent);
                let _ = delivery.close(false).await;
                return Err(error);
            }
            if self.lease.gate().admit(self.run.sync.destination.destination.timeout()).await.is_err() {
                self.undo(&waiting, NotedOutcome::NotSent);
                let _ = delivery.close(false).await;
                return Ok(());
            }
        }
        match delivery.close(complete).await {
            Ok(outcome) => {
                fail::fail_point!("deliver.after_answer");
                match (complete, outcome) {
                    (true, None | Some(RowOutcome::Accepted)) => {}
                    (true, Some(RowOutcome::InDoubt)) => {
                        self.undo(&waiting, NotedOutcome::InDoubt);
                        self.delivered.broken_off = true;
                        return Ok(());
                    }
                    (true, Some(_)) => {
                        self.undo(&waiting, NotedOutcome::NotSent);
                        let message = "the destination took nothing of what was written to it";
                        self.delivered.stop = Some(Error::new(ErrorCode::DestinationUnavailable, message));
                        return Ok(());
                    }
                    (false, _) => {
                        self.undo(&waiting, NotedOutcome::NotSent);
                        return Ok(());
                    }
                }
                let (store, of) = (self.run.store, self.notes());
                let noted = waiting.iter().map(|w| store.end(of, w.batch, &w.exceptions));
                let noted = join_all(noted).await.into_iter().collect();
                for Waiting { batch, rows, exceptions } in waiting {
                    self.delivered.ledger.end(batch, rows, exceptions);
                }
                noted
            }
            Err(error) => {
                self.undo(&waiting, NotedOutcome::NotSent);
                if self.delivered.stop.is_none() {
                    self.delivered.stop = Some(error.into());
                }
                Ok(())
            }
        }
    }

    /// Nothing of a deferred delivery could be seen until now, so until now nothing of it could be in doubt.
    async fn start_waiting(&self, waiting: &[Waiting]) -> Result<(), Error> {
        fail::fail_point!("deliver.before_start_note");
        let (store, of) = (self.run.store, self.notes());
        let notes = waiting.iter().map(|w| store.start(Note { of, batch: w.batch, rows: w.rows, end: None }));
        try_join_all(notes).await?;
        fail::fail_point!("deliver.after_start_note");
        Ok(())
    }

    /// Rows that were written and do not count, because the delivery did not come to its end.
    fn undo(&mut self, waiting: &[Waiting], what: NotedOutcome) {
        for Waiting { batch, rows, exceptions } in waiting {
            let Some(operation) = super::ledger::operation(rows.operation) else { continue };
            let written = u64::try_from(rows.end - rows.start).unwrap_or_default() - exceptions.len() as u64;
            let successful = self.delivered.successful.of_mut(operation);
            *successful = successful.saturating_sub(written);
            if what == NotedOutcome::InDoubt {
                *self.delivered.failed.of_mut(operation) += written;
                self.delivered.in_doubt += written;
            }
            tracing::debug!(batch, rows = written, "written rows do not count");
        }
    }
}

fn noted(joined: Result<Result<(), Error>, JoinError>) -> Result<(), Error> {
    joined.unwrap_or_else(|e| Err(Error::new(ErrorCode::Internal, format!("a note broke off: {e}"))))
}

fn closed() -> Arc<Box<dyn Delivery>> {
    Arc::new(Box::new(Closed))
}

/// Stands where a delivery was that is being closed.
struct Closed;

#[async_trait::async_trait]
impl Delivery for Closed {
    async fn deliver(&self, batch: &ChangeBatch) -> connectors::outcome::Delivered {
        connectors::outcome::Delivered::all(RowOutcome::NotSent, batch.len())
    }

    async fn close(self: Box<Self>, _: bool) -> Result<Option<RowOutcome>, DeliveryError> {
        Ok(None)
    }
}
