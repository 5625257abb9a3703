//! What an interrupted run left behind: a delivery that began and was not committed to its end.

use chrono::Utc;
use connectors::warehouse::Session;
use sql_templates::{
    CommitFacts, EndedRange, ModelSql, PlainTable, ReshapedColumn, Shape, SyncScope, SyncTables, TableRef,
};

use super::checkpoints::{Commits, answers};
use super::commit;
use super::ledger::Ledger;
use super::report::Settled;
use super::state::{self, Delivering, State};
use super::{Run, lease, plans, prepare, prune, reshape, text_of};
use crate::error::{Error, ErrorCode};
use crate::store::DeliveryId;

/// A delivery that began and was not committed to its end, with what its notes prove.
pub struct Unfinished {
    delivering: Delivering,
    shape: Shape,
    keeps_snapshot: bool,
    /// The commit reads no model; the snapshot stands where one is asked for.
    model: ModelSql,
    diff: TableRef,
    outcomes: TableRef,
    ranges: Vec<EndedRange>,
    sent: Vec<&'static str>,
    answers: Vec<&'static str>,
    settled: Settled,
}

impl Unfinished {
    /// Finds it, and writes what did not end as accepted into a table of outcomes, named by `of`.
    pub async fn find(
        run: &Run<'_>,
        session: &mut dyn Session,
        state: Option<&State>,
        of: &str,
    ) -> Result<Option<Self>, Error> {
        let Some(state) = state else { return Ok(None) };
        let (Some(delivering), Some(definition)) = (state.delivering.clone(), &state.definition) else {
            return Ok(None);
        };
        let of_notes = DeliveryId { run: delivering.run, generation: delivering.generation };
        let notes_lost = delivering.renumbered
            || delivering.store != run.store.id()
            || !run.store.holds_notes(of_notes, &delivering.table).await?;
        let notes = if notes_lost { Vec::new() } else { run.store.notes(of_notes).await? };
        let (mut ended, mut open) = (Ledger::default(), Ledger::default());
        let (mut ended_batches, mut open_batches) = (0, 0);
        for note in notes {
            if let Some(exceptions) = note.end {
                ended_batches += 1;
                ended.end(note.batch, note.rows, exceptions);
            } else {
                open_batches += 1;
                open.end(note.batch, note.rows, Vec::new());
            }
        }
        let diff = run
            .tables
            .recorded(&delivering.table)
            .map_err(|e| Error::new(ErrorCode::Internal, e.to_string()))?;
        let unfinished = Self {
            shape: definition.shape(),
            keeps_snapshot: definition.meaning.keeps_snapshot(),
            model: ModelSql::managed(&run.tables.snapshot()),
            diff,
            outcomes: run.tables.outcomes(of),
            ranges: ended.ranges(),
            sent: delivering.sent.iter().map(|o| o.name()).collect(),
            answers: answers(run),
            settled: Settled { run: delivering.run, ended_batches, open_batches, notes_lost },
            delivering,
        };
        commit::write_outcomes(session, run, &unfinished.outcomes, ended.exceptions()).await?;
        let doubtful = open.ranges();
        if notes_lost || !doubtful.is_empty() {
            let facts = unfinished.facts(state, state.generation, 0, &[], true);
            let among = (!notes_lost).then_some(doubtful.as_slice());
            commit::doubt(session, run, unfinished.scope(&run.tables), &facts, among).await?;
        }
        Ok(Some(unfinished))
    }

    /// The statements' view of it: its own columns, which may no longer be the sync's.
    pub fn scope<'a>(&'a self, tables: &'a SyncTables) -> SyncScope<'a> {
        SyncScope { tables, shape: &self.shape, model: &self.model }
    }

    /// Its columns, to be copied.
    pub fn columns(&self) -> Vec<ReshapedColumn> {
        reshape::unchanged(&self.shape)
    }

    /// The commit of some of its ended rows, fenced by this generation.
    pub fn facts<'a>(
        &'a self,
        state: &State,
        generation: i64,
        checkpoint: i64,
        ranges: &'a [EndedRange],
        last: bool,
    ) -> CommitFacts<'a> {
        CommitFacts {
            generation,
            checkpoint,
            last,
            ranges,
            outcomes: Some(self.outcomes.clone()),
            sent: &self.sent,
            keep_removals: self.delivering.waits,
            answers: &self.answers,
            had_rejections: state.rejections > 0,
            had_doubts: state.doubts > 0,
            keeps_snapshot: self.keeps_snapshot,
            renumbered: self.delivering.renumbered,
            ..CommitFacts::new(
                self.diff.clone(),
                self.delivering.shape,
                self.delivering.generation,
                self.delivering.run,
            )
        }
    }

    /// Every row that ended.
    pub fn ranges(&self) -> &[EndedRange] {
        &self.ranges
    }

    /// The delivery that it was; its notes are worth nothing once it is settled.
    pub fn notes(&self) -> DeliveryId {
        DeliveryId { run: self.delivering.run, generation: self.delivering.generation }
    }

    /// What was found.
    pub fn settled(&self) -> Settled {
        self.settled
    }

    /// The table of outcomes, and that of the diff.
    pub fn tables(&self) -> [TableRef; 2] {
        [self.outcomes.clone(), self.diff.clone()]
    }
}

/// Makes good what runs before this one left: what they began is settled, and tables that nobody needs go.
/// Every holder of a lease begins with it. Tells too whether what the model reads is one plain table (`relation`).
pub(super) async fn clear_away(
    run: &Run<'_>,
    session: &mut Box<dyn Session>,
    state: &mut State,
    commits: &mut Commits<'_>,
    relation: Option<&PlainTable>,
) -> Result<(Option<Settled>, bool), Error> {
    run.store.mark_interrupted(run.sync.id, run.id, &text_of(Utc::now())).await?;
    let (mut there, plain) = prepare::catalogue(session.as_mut(), run, relation).await?;
    if reshape::go_on(run, session.as_mut(), state, commits.generation(), &there).await? {
        there = prepare::tables_there(session.as_mut(), run).await?;
    }
    prepare::start_over_without_tables(run, state, &there)?;
    let settled = match &state.delivering {
        Some(_) => settle(run, session, state, commits).await?,
        None => None,
    };
    run.store.forget_before(run.sync.id, run.delivery_id(commits.generation())).await?;
    // A statement may have reached its end on the server after the run that sent it had given up, its lease too.
    let kept: Vec<String> = plans::tables_of_plans(state).collect();
    let left = prepare::leftovers(run, &there, None, &kept)?;
    prune::prune(session.as_mut(), run, &left).await?;
    Ok((settled, plain))
}

/// Brings what an interrupted run left to its end: what its notes prove is committed, the rest of
/// what it had begun is in doubt.
async fn settle(
    run: &Run<'_>,
    session: &mut Box<dyn Session>,
    state: &mut State,
    commits: &mut Commits<'_>,
) -> Result<Option<Settled>, Error> {
    let of = format!("{}_settling", commits.generation());
    let Some(unfinished) = Unfinished::find(run, session.as_mut(), Some(state), &of).await? else {
        return Ok(None);
    };
    let mut left = unfinished.ranges();
    loop {
        let (piece, rest) = left.split_at(left.len().min(commit::MOST_RANGES));
        left = rest;
        let facts = CommitFacts {
            lease_seconds: Some(lease::seconds(run.lease_length())),
            ..unfinished.facts(state, commits.generation(), commits.checkpoint, piece, left.is_empty())
        };
        let script = commit::commit_script(run, unfinished.scope(&run.tables), &facts)?;
        commit::commit(session, run, &script, *commits).await?;
        commits.checkpoint += 1;
        if left.is_empty() {
            break;
        }
    }
    run.store.forget(unfinished.notes(), None).await?;
    prune::prune(session.as_mut(), run, &unfinished.tables()).await?;
    if let Some(settled) = state::read_state(session.as_mut(), run).await? {
        *state = State { holder: state.holder.clone(), ..settled };
    }
    Ok(Some(unfinished.settled()))
}
