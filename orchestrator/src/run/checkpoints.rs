//! When a run commits: in the middle of a long delivery, and at its end.

use std::time::{Duration, Instant};

use connectors::outcome::Rejection;
use connectors::warehouse::{Effect, Session};
use sql_templates::{CommitFacts, DiffShape, EndedRange, SyncScope, TableRef};

use super::deliver::Checkpoint;
use super::differences::Diff;
use super::lease::Lease;
use super::ledger::Ledger;
use super::state::State;
use super::{Run, Start, commit, lease, prune};
use crate::error::Error;
use crate::project::OnNotFound;
use crate::store::NotedException;

/// Which commit comes next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Commits<'a> {
    pub(super) lease: &'a Lease,
    pub(super) checkpoint: i64,
    /// Rows of the snapshot, as long as every change of it told how many it wrote.
    pub(super) counted: Option<i64>,
}

impl<'a> Commits<'a> {
    /// None was made yet, and nobody has counted the snapshot.
    pub(super) fn new(lease: &'a Lease) -> Self {
        Self { lease, checkpoint: 0, counted: None }
    }

    /// The generation that fences them.
    pub(super) fn generation(&self) -> i64 {
        self.lease.generation()
    }

    /// A commit was made, and wrote this; the whole diff became the snapshot if it is said how many rows it had.
    fn made(&mut self, effect: Option<Effect>, adopted: Option<u64>) {
        self.checkpoint += 1;
        self.counted = self.counted.zip(effect).and_then(|(counted, effect)| {
            let written = |step: &str| {
                let step = effect.steps.iter().find(|s| s.name == step);
                step.map_or(Some(0), |s| s.rows).and_then(|rows| i64::try_from(rows).ok())
            };
            match adopted {
                Some(rows) => Some(i64::try_from(rows).ok()? - written("leave out what was not accepted")?),
                None => Some(
                    counted - written("take accepted rows out of the snapshot")?
                        + written("put accepted rows into the snapshot")?
                        - written("take values from who had them")?,
                ),
            }
        });
    }

    /// The table of outcomes that this commit reads, made and filled; none when every row was accepted.
    async fn write_outcomes(
        self,
        session: &mut dyn Session,
        run: &Run<'_>,
        exceptions: &[NotedException],
    ) -> Result<Option<TableRef>, Error> {
        if exceptions.is_empty() {
            return Ok(None);
        }
        let table = run.tables.outcomes(&format!("{}_{}", self.generation(), self.checkpoint));
        commit::write_outcomes(session, run, &table, exceptions).await?;
        Ok(Some(table))
    }
}

/// What the commits of one diff have in common.
pub(super) struct FinalFacts<'a> {
    pub(super) diff: &'a Diff,
    pub(super) keeps_snapshot: bool,
    pub(super) fresh: bool,
    pub(super) sent: &'a [&'a str],
    pub(super) due: i64,
    /// The digest of the definition under which rows are sent.
    pub(super) definition: &'a str,
    /// Codes of rejections that count as attempts.
    pub(super) answers: &'a [&'a str],
}

impl<'a> FinalFacts<'a> {
    /// The commit of some ended rows.
    fn commit<'b>(
        &self,
        run: &Run<'_>,
        state: &State,
        commits: Commits<'_>,
        ranges: &'b [EndedRange],
    ) -> CommitFacts<'b>
    where
        'a: 'b,
    {
        CommitFacts {
            checkpoint: commits.checkpoint,
            ranges,
            sent: self.sent,
            had_rejections: state.rejections > 0,
            had_doubts: state.doubts > 0,
            keeps_snapshot: self.keeps_snapshot,
            lease_seconds: Some(lease::seconds(run.lease_length())),
            definition: Some(self.definition),
            answers: self.answers,
            max_attempts: run.sync.max_attempts,
            ..CommitFacts::new(self.diff.table.clone(), self.diff.shape, commits.generation(), run.id)
        }
    }
}

/// Codes of rejections that are a destination's answer to the row: what levin refused by itself was never
/// tried, and a record that may be missing counts for nothing.
pub(super) fn answers(run: &Run<'_>) -> Vec<&'static str> {
    let mut answers = vec![Rejection::REFUSED, Rejection::DESTINATION_ERROR];
    if run.sync.not_found == OnNotFound::Fail {
        answers.push(Rejection::NOT_FOUND);
    }
    answers
}

/// Whether the warehouse has anything to learn from this run.
pub(super) fn needs_commit(run: &Run<'_>, diff: &Diff, state: &State, ledger: &Ledger, began: bool) -> bool {
    began
        || !ledger.is_empty()
        || run.start() == Start::ResetCdc
        || diff.set_aside.is_some()
        || state.rejections > 0
        || diff.counts.removed > 0
}

/// The last commit of a run.
#[expect(clippy::too_many_arguments, reason = "everything that the run has learnt comes together here")]
pub(super) async fn finish(
    run: &Run<'_>,
    session: &mut Box<dyn Session>,
    scope: SyncScope<'_>,
    facts: &FinalFacts<'_>,
    state: &State,
    commits: &mut Commits<'_>,
    ledger: Ledger,
    complete: bool,
    drop_later: &mut Vec<TableRef>,
) -> Result<(), Error> {
    let reset = run.start() == Start::ResetCdc;
    let everything = i64::MAX;
    let ranges = if reset {
        vec![EndedRange { operation: "added", first: 0, last: everything }]
    } else {
        ledger.ranges()
    };
    let first = facts.diff.shape == DiffShape::First;
    // Only a table that holds nothing else becomes the snapshot: no checkpoint took part of it.
    let adopt =
        facts.keeps_snapshot && first && (reset || (facts.fresh && complete && commits.checkpoint == 0));
    let exceptions = ledger.exceptions().to_vec();
    let mut left = ranges.as_slice();
    loop {
        let (piece, rest) = left.split_at(left.len().min(commit::MOST_RANGES));
        left = rest;
        let last = left.is_empty();
        let outcomes = commits.write_outcomes(session.as_mut(), run, &exceptions).await?;
        drop_later.extend(outcomes.clone());
        let commit_facts = CommitFacts {
            last,
            complete,
            outcomes,
            set_aside: facts.diff.set_aside.clone().filter(|_| last),
            keep_removals: matches!(run.start(), Start::FullResync { .. }),
            adopt: adopt && last,
            keep_set_aside: reset && !facts.fresh,
            reset,
            due_before: still_due(facts, complete, &exceptions, reset),
            ..facts.commit(run, state, *commits, piece)
        };
        let script = commit::commit_script(run, scope, &commit_facts)?;
        let effect = commit::commit(session, run, &script, *commits).await?;
        commits.made(effect, (adopt && last).then_some(facts.diff.counts.added));
        if last {
            break;
        }
    }
    run.store.forget(run.delivery_id(commits.generation()), None).await
}

/// Once every due row was accepted, or declared so, nothing is due any more. Keys that are set aside are neither: where
/// they were due, they stay so.
pub(super) fn still_due(
    facts: &FinalFacts<'_>,
    complete: bool,
    exceptions: &[NotedException],
    reset: bool,
) -> Option<i64> {
    let parked = facts.diff.counts.parked.total();
    let all_accepted = reset || (complete && exceptions.is_empty() && parked == 0);
    // Removals that a resync left for the next run are older than the resync, and must not come back as added.
    (facts.due > 0 && all_accepted && facts.diff.set_aside.is_none()).then_some(0)
}

/// Commits in the middle of a long delivery.
pub(super) struct Checkpoints<'a, 'b> {
    pub(super) run: &'a Run<'b>,
    pub(super) scope: SyncScope<'a>,
    pub(super) facts: &'a FinalFacts<'a>,
    pub(super) state: &'a State,
    pub(super) commits: &'a mut Commits<'b>,
    pub(super) last: Instant,
}

/// How long a delivery goes on without a commit.
pub(super) const CHECKPOINT_EVERY: Duration = Duration::from_secs(180);
/// How many rows that were not accepted may gather in memory.
pub(super) const MOST_EXCEPTIONS: usize = 20_000;

#[async_trait::async_trait]
impl Checkpoint for Checkpoints<'_, '_> {
    fn is_due(&self, ledger: &Ledger) -> bool {
        ledger.exceptions().len() >= MOST_EXCEPTIONS
            || (!ledger.is_empty() && self.last.elapsed() >= checkpoint_interval())
    }

    async fn commit(&mut self, ledger: &Ledger) -> Result<(), Error> {
        let run = self.run;
        let mut session = run.session("commit").await?;
        let exceptions = ledger.exceptions();
        let ranges = ledger.ranges();
        for piece in ranges.chunks(commit::MOST_RANGES) {
            let outcomes = self.commits.write_outcomes(session.as_mut(), run, exceptions).await?;
            let facts = CommitFacts {
                outcomes: outcomes.clone(),
                ..self.facts.commit(run, self.state, *self.commits, piece)
            };
            let script = commit::commit_script(run, self.scope, &facts)?;
            let effect = commit::commit(&mut session, run, &script, *self.commits).await?;
            self.commits.made(effect, None);
            if let Some(table) = outcomes {
                prune::prune(session.as_mut(), run, &[table]).await?;
            }
        }
        run.store.forget(run.delivery_id(self.commits.generation()), Some(ledger.batches())).await?;
        self.last = Instant::now();
        Ok(())
    }
}

/// Tests cannot wait minutes for a checkpoint.
pub(super) fn checkpoint_interval() -> Duration {
    fail::fail_point!("deliver.checkpoint_interval", |millis| {
        Duration::from_millis(millis.and_then(|m| m.parse().ok()).unwrap_or_default())
    });
    CHECKPOINT_EVERY
}
