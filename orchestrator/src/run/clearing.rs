//! `--clear-and-fill`: the destination is emptied, and everything is sent to it again.
//!
//! That it is to be emptied is said durably before the request, beside what the snapshot stands for, and withdrawn
//! when the destination says no: then what is known is what was known before. As long as it is said, nobody knows
//! whether the destination is empty: whichever run comes next empties it again. Once it is empty, the snapshot is too,
//! in the same transaction that takes the word back; from then on every row that was not accepted since is a
//! difference like any other.

use connectors::change::Mode;
use connectors::destination::{DeliverySpec, RunFacts};
use connectors::outcome::DeliveryError;
use connectors::retry::{self, ClearTrouble, RetryPolicy};
use connectors::warehouse::Session;
use sql_templates::{Atomicity, Statement, SyncScope, script};

use super::deliver::Delivered;
use super::lease::Lease;
use super::outset::{define, establish};
use super::state::read_state;
use super::{Definition, Run};
use crate::error::{Error, ErrorCode};

const OTHER_WAYS: &str = "`--full-resync` or `--reset-cdc` would leave that out";

/// Refuses a sync whose destination is not filled by its model's rows, or cannot be emptied.
pub fn possible(run: &Run<'_>, spec: &DeliverySpec) -> Result<(), Error> {
    let sync = &run.sync;
    let refused = |why: String| {
        let refused = Error::new(ErrorCode::ClearUnsupported, why).at(sync.file.clone(), 1);
        let goes_on = run.start() != run.request.start;
        if goes_on {
            refused.hint(format!("an earlier run broke off while it emptied; {OTHER_WAYS}"))
        } else {
            refused
        }
    };
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
    pub scope: SyncScope<'a>,
    /// What the snapshot will stand for.
    pub definition: &'a Definition,
    pub target: &'a str,
    pub spec: &'a DeliverySpec,
    pub facts: &'a RunFacts,
    /// Nothing of the snapshot, if there is one, can be kept.
    pub fresh: bool,
}

impl Clearing<'_> {
    /// Empties the destination. Afterwards the snapshot and the doubts are empty, and stand for what was asked.
    /// After a refusal everything that was known is still known, of whichever destination and in whichever shape, and
    /// what an earlier run left in doubt still is; plans that were kept are stale.
    pub async fn clear(
        &self,
        run: &Run<'_>,
        session: &mut dyn Session,
        lease: &Lease,
        delivered: &mut Delivered,
    ) -> Result<(), Error> {
        let generation = lease.generation();
        fail::fail_point!("deliver.before_clear_note");
        // As it is written, which is not as the run began: the snapshot may have taken another shape since.
        let Some(before) = read_state(session, run).await? else {
            return Err(Error::new(ErrorCode::Internal, "the sync's state is gone"));
        };
        if self.fresh && before.definition.is_some() && run.dialect().facts().undoes_ddl {
            // Tables that cannot be made are found out while the destination still has its rows. Where nothing undoes
            // them, that is found out too late.
            let create = Statement::CreateTables { scope: self.scope };
            session.execute(&script(run.dialect(), Atomicity::Rehearsal, &[create])?).await?;
        }
        let unsettled = before.delivering.is_some();
        let word = self.definition.identity(self.target);
        let doubted = before.clearing() == Some(&word);
        let said =
            |definition: &Definition| Definition { clearing: Some(word.clone()), ..definition.clone() };
        let define = async |session: &mut dyn Session, definition: Option<Definition>| {
            let text = definition.map(|definition| definition.text());
            define(run, session, text.as_deref(), before.target.as_deref(), generation, before.due_before)
                .await
        };
        match &before.definition {
            Some(definition) => define(session, Some(said(definition))).await?,
            None => {
                let definition = said(self.definition);
                establish(run, session, self.scope, &definition, self.target, generation, unsettled).await?;
            }
        }
        // Whoever waits for a file of the warehouse need not wait for the destination too.
        session.rest().await;
        fail::fail_point!("deliver.before_clear");
        let destination = run.sync.destination.destination.as_ref();
        let policy = RetryPolicy::new(destination.retries());
        let gate = lease.gate();
        let cleared = retry::clear(destination, self.spec, self.facts, &policy, gate.as_ref()).await;
        fail::fail_point!("deliver.after_clear");
        delivered.calls += cleared.calls;
        delivered.retries += cleared.retries;
        match cleared.trouble {
            None if self.fresh && before.definition.is_some() => {
                establish(run, session, self.scope, self.definition, self.target, generation, unsettled)
                    .await?;
            }
            None => self.forget(run, session, generation).await?,
            // What the destination refuses now, it may have done when an earlier run asked for it.
            Some(trouble) if trouble.in_doubt || doubted => return Err(in_doubt(run, trouble)),
            Some(trouble) => {
                define(session, before.definition.clone()).await?;
                return Err(trouble
                    .error
                    .map_or_else(|| stopped(run, "before anything was sent"), |error| refused(run, error)));
            }
        }
        fail::fail_point!("deliver.after_clear_note");
        tracing::info!("the destination was emptied");
        Ok(())
    }

    /// Writes that the destination is empty, and with it the snapshot.
    async fn forget(&self, run: &Run<'_>, session: &mut dyn Session, generation: i64) -> Result<(), Error> {
        let definition = self.definition.text();
        let tables = &run.tables;
        let statements = [
            Statement::Define {
                tables,
                generation,
                definition: Some(&definition),
                target: Some(self.target),
                due_before: 0,
            },
            Statement::ForgetAccepted { tables, generation },
        ];
        session.execute(&script(run.dialect(), Atomicity::Transaction, &statements)?).await?;
        Ok(())
    }
}

fn stopped(run: &Run<'_>, when: &str) -> Error {
    if run.cancel.is_cancelled() {
        Error::new(ErrorCode::Cancelled, format!("the run was cancelled {when}"))
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
    let error = trouble.error.map_or_else(|| stopped(run, "before it answered"), Error::from);
    let message = format!(
        "whether the destination of sync `{}` was emptied is not known: {}",
        run.sync.slug, error.message
    );
    Error { message, ..error }
        .hint(format!("the next `levin run` empties it again and fills it; {OTHER_WAYS}"))
}
