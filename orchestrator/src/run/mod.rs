//! One execution of a sync, stage by stage. This file owns the order; no stage knows another.

mod commit;
mod definition;
mod deliver;
mod diff;
mod lease;
mod ledger;
mod plan;
mod prepare;
mod prune;
mod rehearsal;
mod rejections;
mod report;
mod rows;
mod settle;
mod stages;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, SecondsFormat, Utc};
use connectors::change::Operation;
use connectors::destination::{DeliverySpec, RunFacts};
use connectors::warehouse::{ErrorKind, Session, Tag, Warehouse};
use sql_templates::{
    Atomicity, AuditFacts, CommitFacts, Dialect, DiffShape, Statement, SyncScope, SyncTables, TableRef,
    script,
};

pub use definition::{Change, Definition, Meaning};
pub use lease::Cancel;
pub use plan::Verdict;
pub use prepare::{Returned, define, describe_model, look_at_model, model_sql, model_trouble, tables_of};
pub use rehearsal::{PlanReport, Sample, rehearse, statements_of};
pub use rejections::{OpenRejection, open_rejections};
pub use report::{OperationCounts, ReportedError, RunReport, Settled, Status};
pub use rows::{ResultRow, only_row, result_rows};
pub use stages::Stage;

use crate::error::{Error, ErrorCode, Exit};
use crate::mapping::{Mapper, RunValues};
use crate::project::{OnNotFound, Project, SyncSpec};
use crate::store::Store;
use deliver::{Checkpoint, Delivered, Shipment};
use diff::{Counts, Diff, DiffQuestion};
use lease::Lease;
use ledger::Ledger;
use prepare::{Described, State};
use settle::Unfinished;

/// From where a run starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// From what the destination last accepted.
    #[default]
    Incremental,
    /// From nothing: every row is sent again as added.
    FullResync {
        /// Rows that left are removed too.
        keep_removals: bool,
    },
    /// The model's rows are declared accepted; nothing is sent.
    ResetCdc,
}

/// What is asked of a run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Request {
    /// From where it starts.
    pub start: Start,
    /// How long it waits for another run of the same sync.
    pub wait: Option<Duration>,
}

/// Hears how a run goes on.
pub trait Progress: Send + Sync {
    /// A stage ended, with what it came to.
    fn stage(&self, sync: &str, stage: Stage, summary: &str, seconds: f64);

    /// Rows that have ended so far, of those that will be sent.
    fn delivered(&self, done: u64, total: u64);
}

/// Hears nothing.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Progress for Silent {
    fn stage(&self, _: &str, _: Stage, _: &str, _: f64) {}
    fn delivered(&self, _: u64, _: u64) {}
}

/// How long to leave a busy warehouse alone before asking again.
const BUSY_PAUSE: Duration = Duration::from_millis(200);

/// What every stage of a run may use.
pub struct Run<'a> {
    /// The project.
    pub project: &'a Project,
    /// The sync.
    pub sync: Arc<SyncSpec>,
    /// What the orchestrator remembers.
    pub store: &'a Store,
    /// What was asked.
    pub request: Request,
    /// The run's number; 0 for a rehearsal.
    pub id: i64,
    /// The sync's managed tables.
    pub tables: SyncTables,
    /// Who hears how it goes.
    pub progress: &'a dyn Progress,
    /// Asks the run to stop.
    pub cancel: Cancel,
    /// When it began.
    pub started_at: DateTime<Utc>,
}

impl<'a> Run<'a> {
    fn new(
        project: &'a Project,
        sync: &Arc<SyncSpec>,
        store: &'a Store,
        request: Request,
        progress: &'a dyn Progress,
        cancel: Cancel,
    ) -> Result<Self, Error> {
        let source = &sync.model.source;
        Ok(Self {
            project,
            sync: sync.clone(),
            store,
            request,
            id: 0,
            tables: tables_of(source, &project.uuid.to_string(), sync.id)?,
            progress,
            cancel,
            started_at: Utc::now(),
        })
    }

    fn warehouse(&self) -> &Arc<dyn Warehouse> {
        &self.sync.model.source.warehouse
    }

    fn dialect(&self) -> Dialect {
        self.warehouse().dialect()
    }

    async fn session(&self, stage: &'static str) -> Result<Box<dyn Session>, Error> {
        let tag = Tag { sync: self.sync.slug.clone(), run: (self.id > 0).then_some(self.id), stage };
        let patience = Instant::now() + self.request.wait.unwrap_or_default();
        loop {
            match self.warehouse().session(&tag).await {
                Ok(session) => return Ok(session),
                // Another process has the whole warehouse: waiting for a run of it is waiting for it.
                Err(e)
                    if e.kind == ErrorKind::Busy
                        && Instant::now() < patience
                        && !self.cancel.is_cancelled() =>
                {
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
                Err(error) => {
                    let error = Error::from(error);
                    let message = format!("source `{}`: {}", self.sync.model.source.slug, error.message);
                    return Err(Error { message, ..error });
                }
            }
        }
    }

    /// A request may begin only while the lease outlives its time-out, so the lease is longer.
    fn lease_length(&self) -> Duration {
        let timeout = self.sync.destination.destination.timeout();
        self.project.lease.max(timeout * 2 + Duration::from_secs(2))
    }

    fn started_text(&self) -> String {
        text_of(self.started_at)
    }
}

fn text_of(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Measures the stages of a run.
struct Clock<'a> {
    run: &'a Run<'a>,
    began: Instant,
    seconds: BTreeMap<String, f64>,
}

impl<'a> Clock<'a> {
    fn new(run: &'a Run<'a>) -> Self {
        Self { run, began: Instant::now(), seconds: BTreeMap::new() }
    }

    fn ended(&mut self, stage: Stage, summary: &str) {
        let seconds = self.began.elapsed().as_secs_f64();
        *self.seconds.entry(stage.name().to_owned()).or_default() += seconds;
        self.began = Instant::now();
        self.run.progress.stage(&self.run.sync.slug, stage, summary, seconds);
    }
}

/// Runs a sync now. The report tells how it ended; only trouble with the store itself is an error.
pub async fn run(
    project: &Project,
    sync: &Arc<SyncSpec>,
    store: &Store,
    request: Request,
    progress: &dyn Progress,
    cancel: Cancel,
) -> Result<RunReport, Error> {
    let mut run = Run::new(project, sync, store, request, progress, cancel)?;
    run.id = store.begin_run(sync.id, &sync.slug, &run.started_text()).await?;
    let mut course = Course::default();
    let mut clock = Clock::new(&run);
    let outcome = execute(&run, &mut course, &mut clock).await;
    let stages = std::mem::take(&mut clock.seconds);
    let report = course.report(&run, stages, outcome.err());
    let text = serde_json::to_string(&report).unwrap_or_default();
    store.end_run(run.id, report.status.name(), &report.finished_at, &text).await?;
    Ok(report)
}

/// What is known of a run while it goes on.
#[derive(Default)]
struct Course {
    counts: Option<Counts>,
    planned: OperationCounts,
    not_sent: OperationCounts,
    delivered: Delivered,
    settled: Option<Settled>,
}

impl Course {
    fn report(&self, run: &Run<'_>, stages: BTreeMap<String, f64>, error: Option<Error>) -> RunReport {
        let delivered = &self.delivered;
        let error = error.or_else(|| delivered.stop.clone());
        let cancelled = run.cancel.is_cancelled();
        let mut aborted = OperationCounts::default();
        for operation in Operation::ALL {
            *aborted.of_mut(operation) = self
                .planned
                .of(operation)
                .saturating_sub(delivered.successful.of(operation) + delivered.failed.of(operation));
        }
        let skipped = if run.sync.not_found == OnNotFound::Skip { delivered.not_found } else { 0 };
        let set_aside = self.counts.map_or(0, |c| c.duplicate_keys + c.null_keys);
        let status = match &error {
            Some(e) if e.code == ErrorCode::Cancelled => Status::Cancelled,
            Some(_) => Status::Failed,
            None if cancelled && aborted.total() > 0 => Status::Cancelled,
            None if delivered.failed.total() > skipped || set_aside > 0 => Status::Warning,
            None => Status::Success,
        };
        let exit = match (&error, status) {
            // A code of single rows, such as a duplicate key, may end a whole run too.
            (Some(e), _) if e.code.exit() == Exit::Rejected => Exit::Failed,
            (Some(e), _) => e.code.exit(),
            (None, Status::Cancelled | Status::Failed) => Exit::Failed,
            (None, Status::Warning) => Exit::Rejected,
            (None, Status::Success) => Exit::Done,
        };
        RunReport {
            sync_id: run.sync.id,
            sync_slug: run.sync.slug.clone(),
            id: run.id,
            status,
            query_size: self.counts.map(|c| c.queried),
            planned_rows: self.planned,
            successful_rows: delivered.successful,
            failed_rows: delivered.failed,
            aborted_rows: aborted,
            unchanged_count: self.counts.map(|c| c.unchanged),
            duplicate_key_count: self.counts.map(|c| c.duplicate_keys),
            null_key_count: self.counts.map(|c| c.null_keys),
            superseded_count: 0,
            parked_count: 0,
            in_doubt_count: delivered.in_doubt,
            not_sent: self.not_sent,
            started_at: run.started_text(),
            finished_at: text_of(Utc::now()),
            stages,
            destination_calls: delivered.calls,
            retries: delivered.retries,
            error: error.as_ref().map(ReportedError::from),
            settled: self.settled,
            exit,
        }
    }
}

/// The stages in their order.
async fn execute<'a>(run: &'a Run<'a>, course: &mut Course, clock: &mut Clock<'a>) -> Result<(), Error> {
    let mut session = run.session("prepare").await?;
    let (lease, mut state) = prepare::take_lease(session.as_mut(), run).await?;
    fail::fail_point!("prepare.after_lease");
    let outcome = execute_with_lease(run, course, clock, &mut session, &lease, &mut state).await;
    // The lease is given up whatever happened; if that fails it runs out by itself.
    let queried = course.counts.filter(|_| outcome.is_ok()).and_then(|c| i64::try_from(c.queried).ok());
    if !lease.is_lost() {
        let released = match prune::release(session.as_mut(), run, lease.generation(), queried).await {
            Ok(()) => Ok(()),
            // The session may be gone with what went wrong.
            Err(_) => match run.session("prune").await {
                Ok(mut fresh) => prune::release(fresh.as_mut(), run, lease.generation(), queried).await,
                Err(error) => Err(error),
            },
        };
        if let Err(error) = released {
            tracing::warn!(error = %error, "the lease was not given up; it runs out by itself");
        }
        clock.ended(Stage::Prune, "");
    }
    match outcome {
        Err(_) if lease.is_lost() => Err(Error::new(
            ErrorCode::LeaseLost,
            format!("another run of sync `{}` took over", run.sync.slug),
        )),
        other => other,
    }
}

async fn execute_with_lease<'a>(
    run: &'a Run<'a>,
    course: &mut Course,
    clock: &mut Clock<'a>,
    session: &mut Box<dyn Session>,
    lease: &Lease,
    state: &mut State,
) -> Result<(), Error> {
    run.store.mark_interrupted(run.sync.id, run.id, &text_of(Utc::now())).await?;
    let mut commits = Commits { generation: lease.generation(), checkpoint: 0 };
    let unclean = state.holder.is_some();
    if state.delivering.is_some() {
        course.settled = settle(run, session, state, &mut commits).await?;
    }
    if unclean {
        let left = prepare::leftovers(session.as_mut(), run, &[]).await?;
        prune::prune(session.as_mut(), run, &left).await?;
    }
    fail::fail_point!("prepare.after_settling");
    let described = prepare::describe(session.as_mut(), run).await?;
    let shape = described.definition.shape();
    let scope = SyncScope { tables: &run.tables, shape: &shape, model: &described.model };
    let mut mapper = new_mapper(run, &described, lease.generation())?;
    let spec = delivery_spec(&run.sync, &mapper);
    run.sync.destination.destination.validate(&spec)?;
    let target = run.sync.destination.destination.target(&spec);
    let change = prepare::change_of_snapshot(run, state, &described, &target)?;
    if let Change::Reshape(reshape) = &change {
        this_reshape(run, session.as_mut(), scope, reshape, state, &target, &described, lease).await?;
    }
    let fresh = change == Change::Fresh;
    clock.ended(Stage::Prepare, &prepared(&change, course.settled));

    let resync = matches!(run.request.start, Start::FullResync { .. });
    let of = lease.generation().to_string();
    let keeps_snapshot = prepare::keeps_snapshot(run.sync.mode);
    let question = DiffQuestion {
        of: &of,
        generation: lease.generation(),
        first: fresh || !keeps_snapshot || run.request.start == Start::ResetCdc,
        plain: described.plain,
        compared: described.definition.meaning == Meaning::Values,
        in_doubt: state.doubts > 0 && !fresh,
        due_before: due_before(run, state, lease.generation()),
        resync: resync || state.due_before > 1,
    };
    let canceller = session.canceller();
    let diff = tokio::select! {
        diff = diff::diff(session.as_mut(), run, scope, &question) => diff?,
        () = run.cancel.cancelled() => {
            let _ = canceller.cancel().await;
            return Err(Error::new(ErrorCode::Cancelled, "the run was cancelled before anything was sent"));
        }
    };
    let mut drop_later = vec![diff.table.clone()];
    drop_later.extend(diff.set_aside.clone());
    course.counts = Some(diff.counts);
    clock.ended(Stage::Diff, &differing(&diff.counts));

    let outcome = async {
        let sent = if run.request.start == Start::ResetCdc {
            Vec::new()
        } else {
            plan::sent_operations(run.sync.mode, run.sync.on_removed, run.request.start)
        };
        (course.planned, course.not_sent) = plan::split(&diff.counts, &sent);
        if run.request.start == Start::ResetCdc {
            course.not_sent = OperationCounts::default();
        } else {
            let verdicts = plan::verdicts(run, &diff.counts, &sent, state.queried);
            if let Some(error) =
                plan::duplicate_keys_forbidden(run, &diff.counts).or_else(|| plan::tripped(run, &verdicts))
            {
                return Err(error);
            }
        }
        clock.ended(Stage::Plan, &planned(&course.planned));

        if fresh {
            establish(run, session.as_mut(), scope, &described, &target, lease.generation()).await?;
            state.doubts = 0;
            state.rejections = 0;
        }
        let due = if resync && !fresh { lease.generation() } else { state.due_before };
        let words: Vec<&str> = sent.iter().map(|o| o.name()).collect();
        let facts = FinalFacts { diff: &diff, keeps_snapshot, fresh, sent: &words, due };
        let result = if course.planned.total() > 0 {
            begin(run, session.as_mut(), &diff, lease.generation(), due).await?;
            let shipment = Shipment {
                diff: &diff,
                described: &described,
                mapper: std::mem::replace(&mut mapper, new_mapper(run, &described, lease.generation())?),
                spec: &spec,
                facts: &run_facts(run, lease.generation(), &course.planned),
                sent: &sent,
                known_rejections: state.rejections,
            };
            let mut checkpoints =
                Checkpoints { run, scope, facts: &facts, state, commits: &mut commits, last: Instant::now() };
            let delivery =
                deliver::deliver(run, lease, shipment, &mut checkpoints, &mut course.delivered).await;
            clock.ended(Stage::Deliver, &sent_summary(&course.delivered));
            delivery
        } else {
            Ok(())
        };
        let ledger = std::mem::take(&mut course.delivered.ledger);
        let complete = result.is_ok() && course.delivered.stop.is_none() && !run.cancel.is_cancelled();
        if needs_commit(run, &diff, state, &ledger, course.planned.total() > 0) {
            finish(run, session, scope, &facts, state, &mut commits, ledger, complete, &mut drop_later)
                .await?;
            clock.ended(Stage::Commit, &committed(&course.delivered));
        }
        result
    }
    .await;
    if !lease.is_lost() {
        audit(run, session.as_mut(), course, outcome.as_ref().err()).await;
        prune::prune(session.as_mut(), run, &drop_later).await?;
    }
    outcome
}

/// Which commit comes next.
#[derive(Debug, Clone, Copy)]
struct Commits {
    generation: i64,
    checkpoint: i64,
}

/// What the commits of one diff have in common.
struct FinalFacts<'a> {
    diff: &'a Diff,
    keeps_snapshot: bool,
    fresh: bool,
    sent: &'a [&'a str],
    due: i64,
}

/// Rows accepted before this generation are due: because a full resync says so now, or said so
/// before and did not come to its end, or because a column's values have another form.
fn due_before(run: &Run<'_>, state: &State, generation: i64) -> Option<i64> {
    match run.request.start {
        Start::FullResync { .. } => Some(generation),
        _ if state.due_before > 0 => Some(state.due_before),
        _ => None,
    }
}

fn run_values(run: &Run<'_>, generation: i64) -> RunValues {
    RunValues {
        run_id: run.id,
        generation,
        run_started_at: run.started_text(),
        project: run.project.uuid.to_string(),
    }
}

fn new_mapper(run: &Run<'_>, described: &Described, generation: i64) -> Result<Mapper, Error> {
    Mapper::new(
        &run.sync,
        &described.definition.shape(),
        &described.needed.previous,
        run_values(run, generation),
    )
}

/// What a sync says to its destination.
pub fn delivery_spec(sync: &SyncSpec, mapper: &Mapper) -> DeliverySpec {
    DeliverySpec {
        sync: sync.slug.clone(),
        sync_id: sync.id,
        model: sync.model.slug.clone(),
        object: sync.object.clone(),
        mode: sync.mode,
        on_removed: sync.on_removed,
        options: sync.options.clone(),
        identity: mapper.identity_schema(),
        fields: mapper.fields_schema(),
    }
}

fn run_facts(run: &Run<'_>, generation: i64, planned: &OperationCounts) -> RunFacts {
    RunFacts {
        run_id: run.id,
        generation,
        started_at: run.started_at,
        planned: Operation::ALL.into_iter().map(|o| (o, planned.of(o))).collect(),
    }
}

/// Brings what an interrupted run left to its end: what its notes prove is committed, the rest of
/// what it had begun is in doubt.
async fn settle(
    run: &Run<'_>,
    session: &mut Box<dyn Session>,
    state: &mut State,
    commits: &mut Commits,
) -> Result<Option<Settled>, Error> {
    let of = format!("{}_settling", commits.generation);
    let Some(unfinished) = Unfinished::find(run, session.as_mut(), Some(state), &of).await? else {
        return Ok(None);
    };
    let mut left = unfinished.ranges();
    loop {
        let (piece, rest) = left.split_at(left.len().min(commit::MOST_RANGES));
        left = rest;
        let facts = unfinished.facts(state, commits.generation, commits.checkpoint, piece, left.is_empty());
        let script = commit::commit_script(run, unfinished.scope(run), &facts, &[], Atomicity::Transaction)?;
        commit::commit(session, run, &script, commits.generation, commits.checkpoint).await?;
        commits.checkpoint += 1;
        if left.is_empty() {
            break;
        }
    }
    run.store.forget(unfinished.run(), None).await?;
    prune::prune(session.as_mut(), run, &unfinished.tables()).await?;
    if let Some(settled) = prepare::read_state(session.as_mut(), run).await? {
        *state = State { holder: state.holder.clone(), ..settled };
    }
    Ok(Some(unfinished.settled()))
}

#[expect(
    clippy::too_many_arguments,
    reason = "one call site; a struct for it would only rename the arguments"
)]
async fn this_reshape(
    run: &Run<'_>,
    session: &mut dyn Session,
    scope: SyncScope<'_>,
    reshape: &definition::Reshape,
    state: &mut State,
    target: &str,
    described: &Described,
    lease: &Lease,
) -> Result<(), Error> {
    let due = if reshape.due.is_empty() { state.due_before } else { state.due_before.max(1) };
    let definition = described.definition.text();
    let mut statements = prepare::reshape_statements(scope, reshape, described.definition.keys.len());
    statements.push(Statement::Define {
        tables: &run.tables,
        generation: lease.generation(),
        definition: &definition,
        target,
        due_before: due,
    });
    // Whether keys stay one to one is known only afterwards, so it is looked at in a rehearsal first.
    if reshape.columns.iter().any(|c| c.cast.is_some()) {
        let rehearsal = script(run.dialect(), Atomicity::Rehearsal, &statements)?;
        match session.execute(&rehearsal).await {
            Ok(effect) => prepare::keys_stayed_one_to_one(run, &effect)?,
            Err(e) if matches!(e.kind, ErrorKind::Data | ErrorKind::UniqueViolation) => {
                return Err(prepare::not_one_to_one(run));
            }
            Err(e) => return Err(e.into()),
        }
    }
    let change = script(run.dialect(), Atomicity::Transaction, &statements)?;
    session.execute(&change).await?;
    fail::fail_point!("prepare.after_reshape");
    state.due_before = due;
    Ok(())
}

/// Empty tables, and what they will stand for: the beginning of a snapshot.
async fn establish(
    run: &Run<'_>,
    session: &mut dyn Session,
    scope: SyncScope<'_>,
    described: &Described,
    target: &str,
    generation: i64,
) -> Result<(), Error> {
    fail::fail_point!("deliver.before_establish");
    let definition = described.definition.text();
    let create = script(
        run.dialect(),
        Atomicity::Transaction,
        &[
            Statement::Define {
                tables: &run.tables,
                generation,
                definition: &definition,
                target,
                due_before: 0,
            },
            Statement::CreateTables { scope },
        ],
    )?;
    session.execute(&create).await?;
    fail::fail_point!("deliver.after_establish");
    Ok(())
}

/// The durable word before the first request.
async fn begin(
    run: &Run<'_>,
    session: &mut dyn Session,
    diff: &Diff,
    generation: i64,
    due: i64,
) -> Result<(), Error> {
    fail::fail_point!("deliver.before_begin");
    let begin = script(
        run.dialect(),
        Atomicity::Transaction,
        &[Statement::BeginDelivery {
            tables: &run.tables,
            generation,
            diff: &diff.table,
            diff_shape: diff.shape,
            store: run.store.id(),
            run: run.id,
            due_before: due,
        }],
    )?;
    session.execute(&begin).await?;
    fail::fail_point!("deliver.after_begin");
    Ok(())
}

/// Whether the warehouse has anything to learn from this run.
fn needs_commit(run: &Run<'_>, diff: &Diff, state: &State, ledger: &Ledger, began: bool) -> bool {
    began
        || !ledger.is_empty()
        || run.request.start == Start::ResetCdc
        || diff.set_aside.is_some()
        || state.rejections > 0
        || diff.counts.removed > 0
}

/// The last commit of a run.
#[expect(clippy::too_many_arguments, reason = "everything that the run has learnt comes together here")]
async fn finish(
    run: &Run<'_>,
    session: &mut Box<dyn Session>,
    scope: SyncScope<'_>,
    facts: &FinalFacts<'_>,
    state: &State,
    commits: &mut Commits,
    ledger: Ledger,
    complete: bool,
    drop_later: &mut Vec<TableRef>,
) -> Result<(), Error> {
    let reset = run.request.start == Start::ResetCdc;
    let everything = i64::MAX;
    let ranges = if reset {
        vec![sql_templates::EndedRange { operation: "added", first: 0, last: everything }]
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
        let outcomes = run.tables.outcomes(&format!("{}_{}", commits.generation, commits.checkpoint));
        let outcomes = (!exceptions.is_empty()).then_some(outcomes);
        if let Some(table) = &outcomes {
            drop_later.push(table.clone());
            commit::write_outcomes(session.as_mut(), run, table, &exceptions).await?;
        }
        let commit_facts = CommitFacts {
            diff: facts.diff.table.clone(),
            diff_shape: facts.diff.shape,
            diff_generation: commits.generation,
            run: run.id,
            generation: commits.generation,
            checkpoint: commits.checkpoint,
            last,
            complete,
            ranges: piece,
            outcomes,
            set_aside: facts.diff.set_aside.clone().filter(|_| last),
            sent: facts.sent,
            keep_removals: matches!(run.request.start, Start::FullResync { .. }),
            had_rejections: state.rejections > 0,
            had_doubts: state.doubts > 0,
            keeps_snapshot: facts.keeps_snapshot,
            adopt: adopt && last,
            keep_set_aside: reset && !facts.fresh,
            reset,
            due_before: still_due(facts, complete, &exceptions, reset),
        };
        let script = commit::commit_script(run, scope, &commit_facts, &[], Atomicity::Transaction)?;
        commit::commit(session, run, &script, commits.generation, commits.checkpoint).await?;
        commits.checkpoint += 1;
        if last {
            break;
        }
    }
    run.store.forget(run.id, None).await
}

/// Once every due row was accepted nothing is due any more.
fn still_due(
    facts: &FinalFacts<'_>,
    complete: bool,
    exceptions: &[crate::store::NotedException],
    reset: bool,
) -> Option<i64> {
    let all_accepted = complete && exceptions.is_empty() && facts.diff.set_aside.is_none();
    // Removals that a resync left for the next run are older than the resync, and must not come back as added.
    (reset || (facts.due > 0 && all_accepted)).then_some(0)
}

/// Commits in the middle of a long delivery.
struct Checkpoints<'a, 'b> {
    run: &'a Run<'b>,
    scope: SyncScope<'a>,
    facts: &'a FinalFacts<'a>,
    state: &'a State,
    commits: &'a mut Commits,
    last: Instant,
}

/// How long a delivery goes on without a commit.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(180);
/// How many rows that were not accepted may gather in memory.
const MOST_EXCEPTIONS: usize = 20_000;

#[async_trait::async_trait]
impl Checkpoint for Checkpoints<'_, '_> {
    fn is_due(&self, ledger: &Ledger) -> bool {
        ledger.exceptions().len() >= MOST_EXCEPTIONS
            || (!ledger.is_empty() && self.last.elapsed() >= checkpoint_interval())
    }

    async fn commit(&mut self, ledger: Ledger) -> Result<(), Error> {
        let run = self.run;
        let mut session = run.session("commit").await?;
        let exceptions = ledger.exceptions();
        let ranges = ledger.ranges();
        for piece in ranges.chunks(commit::MOST_RANGES) {
            let outcomes =
                run.tables.outcomes(&format!("{}_{}", self.commits.generation, self.commits.checkpoint));
            let outcomes = (!exceptions.is_empty()).then_some(outcomes);
            if let Some(table) = &outcomes {
                commit::write_outcomes(session.as_mut(), run, table, exceptions).await?;
            }
            let facts = CommitFacts {
                diff: self.facts.diff.table.clone(),
                diff_shape: self.facts.diff.shape,
                diff_generation: self.commits.generation,
                run: run.id,
                generation: self.commits.generation,
                checkpoint: self.commits.checkpoint,
                last: false,
                complete: false,
                ranges: piece,
                outcomes: outcomes.clone(),
                set_aside: None,
                sent: self.facts.sent,
                keep_removals: false,
                had_rejections: self.state.rejections > 0,
                had_doubts: self.state.doubts > 0,
                keeps_snapshot: self.facts.keeps_snapshot,
                adopt: false,
                keep_set_aside: false,
                reset: false,
                due_before: None,
            };
            let script = commit::commit_script(run, self.scope, &facts, &[], Atomicity::Transaction)?;
            commit::commit(&mut session, run, &script, self.commits.generation, self.commits.checkpoint)
                .await?;
            self.commits.checkpoint += 1;
            if let Some(table) = outcomes {
                prune::prune(session.as_mut(), run, &[table]).await?;
            }
        }
        run.store.forget(run.id, Some(ledger.batches())).await?;
        self.last = Instant::now();
        Ok(())
    }
}

/// Tests cannot wait minutes for a checkpoint.
fn checkpoint_interval() -> Duration {
    fail::fail_point!("deliver.checkpoint_interval", |millis| {
        Duration::from_millis(millis.and_then(|m| m.parse().ok()).unwrap_or_default())
    });
    CHECKPOINT_EVERY
}

/// The run's row in the audit schema. Nobody's rows depend on it, so a failure is only logged.
async fn audit(run: &Run<'_>, session: &mut dyn Session, course: &Course, error: Option<&Error>) {
    let delivered = &course.delivered;
    let of = |counts: &OperationCounts| {
        [Operation::Added, Operation::Changed, Operation::Removed]
            .map(|o| i64::try_from(counts.of(o)).unwrap_or(i64::MAX))
    };
    let (planned, succeeded, failed) =
        (of(&course.planned), of(&delivered.successful), of(&delivered.failed));
    let mut numbers = [0; 12];
    for i in 0..3 {
        numbers[i] = planned[i];
        numbers[3 + i] = succeeded[i] + failed[i];
        numbers[6 + i] = succeeded[i];
        numbers[9 + i] = failed[i];
    }
    if course.planned.total() == 0 && error.is_none() {
        return;
    }
    let error_text = error.or(delivered.stop.as_ref()).map(|e| format!("{}: {}", e.code, e.message));
    let (started, finished) = (run.started_text(), text_of(Utc::now()));
    let key = run.sync.model.primary_key.join(",");
    let facts = AuditFacts {
        sync_id: run.sync.id,
        run: run.id,
        primary_key: &key,
        destination: run.sync.destination.connector.name,
        model_name: &run.sync.model.slug,
        error: error_text.as_deref(),
        status: if error_text.is_some() { "failed" } else { "succeeded" },
        started_at: &started,
        finished_at: &finished,
        numbers,
    };
    let written = match script(
        run.dialect(),
        Atomicity::Transaction,
        &[Statement::AuditRun { tables: &run.tables, facts: &facts }],
    ) {
        Ok(script) => session.execute(&script).await.map(drop).map_err(Error::from),
        Err(e) => Err(e.into()),
    };
    if let Err(error) = written {
        tracing::warn!(error = %error, "the audit of the run was not written");
    }
}

fn prepared(change: &Change, settled: Option<Settled>) -> String {
    let mut parts = Vec::new();
    if let Some(settled) = settled {
        parts.push(format!("run {} was interrupted and is settled", settled.run));
    }
    match change {
        Change::None => parts.push("ready".to_owned()),
        Change::Fresh => parts.push("first run".to_owned()),
        Change::Reshape(reshape) => parts.push(reshape.reasons.join(", ")),
    }
    parts.join(" · ")
}

fn differing(counts: &Counts) -> String {
    use crate::report::thousands;
    let mut text = format!(
        "{} added · {} changed · {} removed of {}",
        thousands(counts.added),
        thousands(counts.changed),
        thousands(counts.removed),
        thousands(counts.queried)
    );
    if counts.duplicate_keys + counts.null_keys > 0 {
        text.push_str(&format!(" · {} set aside", thousands(counts.duplicate_keys + counts.null_keys)));
    }
    text
}

fn planned(counts: &OperationCounts) -> String {
    match counts.total() {
        0 => "nothing to send".to_owned(),
        rows => format!("{} to send", crate::report::counted(rows, "row")),
    }
}

fn sent_summary(delivered: &Delivered) -> String {
    use crate::report::{counted, thousands};
    format!(
        "{} accepted · {} rejected in {}",
        thousands(delivered.successful.total()),
        thousands(delivered.failed.total()),
        counted(delivered.calls, "call")
    )
}

fn committed(delivered: &Delivered) -> String {
    use crate::report::thousands;
    format!(
        "{} accepted · {} rejected",
        thousands(delivered.successful.total()),
        thousands(delivered.failed.total())
    )
}
