//! `--clear-and-fill`: the destination is emptied, and everything is sent to it again.
//!
//! That it is to be emptied is said durably before the request, and withdrawn when the destination says no.
//! As long as it is said, nobody knows whether the destination is empty: whichever run comes next empties it
//! again. Once it is empty, the snapshot is too, in the same transaction that takes the word back; from then
//! on every row that was not accepted since is a difference like any other.

use connectors::change::Mode;
use connectors::destination::{DeliverySpec, RunFacts};
use connectors::outcome::DeliveryError;
use connectors::retry::{self, ClearTrouble, RetryPolicy};
use connectors::warehouse::Session;
use sql_templates::{Atomicity, Statement, script};

use super::deliver::Delivered;
use super::lease::Lease;
use super::model::Described;
use super::state::State;
use super::{Definition, Run};
use crate::error::{Error, ErrorCode};
use crate::project::SyncSpec;

/// Refuses a sync whose destination is not filled by its model's rows, or cannot be emptied.
pub fn possible(sync: &SyncSpec, spec: &DeliverySpec) -> Result<(), Error> {
    let refused = |why: String| Error::new(ErrorCode::ClearUnsupported, why).at(sync.file.clone(), 1);
    match sync.mode {
        Mode::Insert | Mode::Upsert | Mode::Mirror | Mode::Segment | Mode::Add | Mode::All => {}
        Mode::Update | Mode::Remove | Mode::Archive | Mode::Diff | Mode::Snapshot => {
            let mode = sync.mode.name();
            return Err(refused(format!(
                "mode `{mode}` of sync `{}` fills nothing that could be emptied",
                sync.slug
            )));
        }
    }
    sync.destination.destination.can_clear(spec).map_err(|error| {
        let at = if error.path.is_empty() { String::new() } else { format!("`{}`: ", error.path) };
        refused(format!("sync `{}` cannot be cleared: {at}{}", sync.slug, error.message))
    })
}

/// What is needed to empty a destination.
pub struct Clearing<'a> {
    pub described: &'a Described,
    pub target: &'a str,
    pub spec: &'a DeliverySpec,
    pub facts: &'a RunFacts,
    /// The tables of the snapshot were made in this run, with the word that the destination is to be emptied.
    pub fresh: bool,
}

impl Clearing<'_> {
    /// Empties the destination. Afterwards the snapshot and the doubts are empty, here and in the warehouse.
    pub async fn clear(
        &self,
        run: &Run<'_>,
        session: &mut dyn Session,
        lease: &Lease,
        state: &mut State,
        delivered: &mut Delivered,
    ) -> Result<(), Error> {
        let generation = lease.generation();
        fail::fail_point!("deliver.before_clear_note");
        if !self.fresh {
            self.define(run, session, generation, true, generation, false).await?;
        }
        fail::fail_point!("deliver.before_clear");
        let destination = run.sync.destination.destination.as_ref();
        let policy = RetryPolicy::new(destination.retries());
        let gate = lease.gate();
        let cleared = retry::clear(destination, self.spec, self.facts, &policy, gate.as_ref()).await;
        fail::fail_point!("deliver.after_clear");
        delivered.calls += cleared.calls;
        delivered.retries += cleared.retries;
        match cleared.trouble {
            None => {
                self.define(run, session, generation, false, 0, true).await?;
                (state.doubts, state.due_before) = (0, 0);
                fail::fail_point!("deliver.after_clear_note");
                tracing::info!("the destination was emptied");
                Ok(())
            }
            Some(trouble) if trouble.in_doubt => Err(in_doubt(run, trouble)),
            Some(trouble) => {
                let due = if self.fresh { 0 } else { state.due_before };
                self.define(run, session, generation, false, due, false).await?;
                Err(trouble.error.map_or_else(|| stopped(run), |error| refused(run, error)))
            }
        }
    }

    /// Writes whether the destination is to be emptied, and with it, that it was.
    async fn define(
        &self,
        run: &Run<'_>,
        session: &mut dyn Session,
        generation: i64,
        clearing: bool,
        due_before: i64,
        forget: bool,
    ) -> Result<(), Error> {
        let definition = Definition { clearing, ..self.described.definition.clone() }.text();
        let mut statements = vec![Statement::Define {
            tables: &run.tables,
            generation,
            definition: Some(&definition),
            target: Some(self.target),
            due_before,
        }];
        if forget {
            statements.push(Statement::ForgetAccepted { tables: &run.tables, generation });
        }
        session.execute(&script(run.dialect(), Atomicity::Transaction, &statements)?).await?;
        Ok(())
    }
}

fn stopped(run: &Run<'_>) -> Error {
    if run.cancel.is_cancelled() {
        Error::new(ErrorCode::Cancelled, "the run was cancelled before anything was sent")
    } else {
        super::lease_lost(run)
    }
}

fn refused(run: &Run<'_>, error: DeliveryError) -> Error {
    let error = Error::from(error);
    let message = format!("the destination of sync `{}` was not emptied: {}", run.sync.slug, error.message);
    Error { message, ..error }
}

fn in_doubt(run: &Run<'_>, trouble: ClearTrouble) -> Error {
    let Some(error) = trouble.error else { return stopped(run) };
    let error = Error::from(error);
    let message = format!(
        "whether the destination of sync `{}` was emptied is not known: {}",
        run.sync.slug, error.message
    );
    Error { message, ..error }.hint(
        "the next `levin run` empties it again and fills it; `--full-resync` or `--reset-cdc` would leave that out",
    )
}
