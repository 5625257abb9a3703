//! One execution of a sync, stage by stage. This file owns the order; no stage knows another.

mod batches;
mod checkpoints;
mod clearing;
mod commit;
mod course;
mod definition;
mod deliver;
mod diff;
mod differences;
mod exchange;
mod journey;
mod lease;
mod ledger;
mod meter;
mod model;
mod outset;
mod plan;
mod plans;
mod prepare;
mod prune;
mod rehearsal;
mod rejections;
mod report;
mod request;
mod reshape;
mod rows;
mod settle;
mod stages;
mod state;
mod statements;
mod summary;
mod trial;
mod view;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use chrono::{DateTime, SecondsFormat, Utc};
use connectors::change::{Mode, Operation};
use connectors::destination::{DeliverySpec, RunFacts};
use connectors::warehouse::{ErrorKind, Session, Tag, Warehouse};
use sql_templates::{Dialect, DiffShape, SyncScope, SyncTables};
use tracing::Instrument;

pub use definition::{Change, Definition, Meaning};
pub use lease::{Cancel, Holder};
pub use meter::Usage;
pub use model::{Returned, define, describe_model, look_at_model, model_sql, model_trouble, tables_of};
pub use plan::Verdict;
pub use plans::PlanId;
pub use rehearsal::rehearse;
pub use rejections::{OpenRejection, WhichRejections, key_parts, mark_parked, no_key, open_rejections};
pub use report::{OperationCounts, ReportedError, RunReport, Settled, Status};
pub use request::{Goal, Progress, Request, Silent, Start};
pub use rows::{ResultRow, only_row, result_rows};
pub use stages::Stage;
pub use statements::statements_of;
pub use trial::{TestRow, test_row};
pub use view::{PlanReport, Sample};

use crate::error::{Error, ErrorCode};
use crate::mapping::{Mapper, RunValues};
use crate::project::{Project, SyncSpec};
use crate::store::{DeliveryId, Store};
use crate::telemetry::of_run;
use crate::telemetry::traces::RunTrace;
use checkpoints::{Checkpoints, Commits, FinalFacts, finish, needs_commit};
use clearing::Clearing;
use course::Course;
use deliver::Shipment;
use diff::DiffQuestion;
use lease::Lease;
use meter::Meter;
use model::Described;
use outset::{begin, establish, redefine};
use prune::Noted;
use reshape::Reshaping;
use state::State;
use view::Known;

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
    /// What it takes of the warehouse.
    pub meter: Meter,
    /// An earlier run was to empty the destination and never knew that it did: this one goes on with it.
    goes_on_clearing: OnceLock<()>,
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
            meter: Meter::default(),
            goes_on_clearing: OnceLock::new(),
        })
    }

    /// From where the run starts: as was asked, or as an earlier run left it.
    pub fn start(&self) -> Start {
        let goes_on = self.goes_on_clearing.get().is_some();
        if goes_on { Start::ClearAndFill } else { self.request.start }
    }

    /// Takes up what an earlier run left. Who asks for another way of starting over gets that, and a sync that was edited
    /// since is not emptied unasked.
    fn go_on_clearing(&self, state: &State, described: &Described, target: &str) {
        let left = state.clearing().is_some_and(|left| *left == described.definition.identity(target));
        if left && self.request.start == Start::Incremental {
            let _ = self.goes_on_clearing.set(());
        }
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
                Ok(session) => return Ok(self.meter.on(exchange::session(session))),
                // Another process has the whole warehouse: waiting for a run of it is waiting for it.
                Err(e) if e.kind == ErrorKind::Busy && self.cancel.is_cancelled() => {
                    return Err(cancelled_while_waiting());
                }
                Err(e) if e.kind == ErrorKind::Busy && Instant::now() < patience => {
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
                Err(error) => {
                    let error = self.sync.model.source.unopened(error);
                    let message = format!("source `{}`: {}", self.sync.model.source.slug, error.message);
                    return Err(Error { message, ..error });
                }
            }
        }
    }

    /// A request may begin only while the lease outlives its time-out, so the lease is longer.
    fn lease_length(&self) -> Duration {
        lease_length(self.project, &self.sync)
    }

    /// What this run delivers while it holds the lease of that generation.
    fn delivery_id(&self, generation: i64) -> DeliveryId {
        DeliveryId { run: self.id, generation }
    }

    fn started_text(&self) -> String {
        text_of(self.started_at)
    }
}

/// For how long a run's lease is taken and renewed.
fn lease_length(project: &Project, sync: &SyncSpec) -> Duration {
    let timeout = sync.destination.destination.timeout();
    project.lease.max(timeout * 2 + Duration::from_secs(2))
}

/// For how long a run that is gone may hold its sync: it may have been in a commit, which prolongs the lease.
pub fn longest_lease(project: &Project, sync: &SyncSpec) -> Duration {
    lease_length(project, sync) * lease::COMMIT_LEASES
}

fn text_of(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Measures the stages of a run.
struct Clock<'a> {
    run: &'a Run<'a>,
    began: Instant,
    seconds: BTreeMap<String, f64>,
    usage: BTreeMap<String, Usage>,
    trace: Option<RunTrace>,
}

impl<'a> Clock<'a> {
    fn new(run: &'a Run<'a>) -> Self {
        // What only looks has no number.
        let trace = (run.id > 0).then(|| RunTrace::begin(&run.sync, run.id, run.started_at));
        Self { run, began: Instant::now(), seconds: BTreeMap::new(), usage: BTreeMap::new(), trace }
    }

    fn ended(&mut self, stage: Stage, summary: &str) {
        let seconds = self.began.elapsed().as_secs_f64();
        *self.seconds.entry(stage.name().to_owned()).or_default() += seconds;
        self.began = Instant::now();
        let usage = self.run.meter.take();
        let entry = self.usage.entry(stage.name().to_owned()).or_default();
        *entry = entry.and(&usage);
        if let Some(trace) = &mut self.trace {
            trace.stage(stage, &usage);
        }
        tracing::info!(stage = stage.name(), seconds, "stage ended");
        let summary = summary::with_scanned(summary, &usage);
        self.run.progress.stage(&self.run.sync.slug, stage, &summary, seconds);
    }
}

/// Runs a sync now. The report tells how it ended; it is an error only when no run could begin.
pub async fn run(
    project: &Project,
    sync: &Arc<SyncSpec>,
    store: &Store,
    request: Request,
    progress: &dyn Progress,
    cancel: Cancel,
) -> Result<RunReport, Error> {
    let mut run = Run::new(project, sync, store, request, progress, cancel)?;
    if let Goal::Apply(id) = request.goal {
        run.request.start = plans::start_of(&run, id).await?;
    }
    run.id = store.begin_run(sync.id, &sync.slug, &run.started_text(), &Holder::this(None)).await?;
    let mut report = carry_out(&run).instrument(of_run(&sync.slug, run.id)).await;
    let text = serde_json::to_string(&report).unwrap_or_default();
    if let Err(error) = store.end_run(run.id, report.status.name(), &report.finished_at, &text).await {
        report.status = Status::Failed;
        report.exit = error.code.exit();
        report.error.get_or_insert_with(|| ReportedError::from(&error));
    }
    Ok(report)
}

/// Runs a sync as the run of this number, which this replica claimed: it was queued, or another process began it and
/// left. How it ended is for the caller to record.
///
/// # Errors
/// Only when nothing could be asked of the sync's warehouse at all; everything else is in the report.
pub async fn run_queued(
    project: &Project,
    sync: &Arc<SyncSpec>,
    store: &Store,
    (id, replica): (i64, &str),
    request: Request,
    progress: &dyn Progress,
    cancel: Cancel,
) -> Result<RunReport, Error> {
    let mut run = Run::new(project, sync, store, request, progress, cancel)?;
    run.id = id;
    let begun = async {
        if let Goal::Apply(id) = request.goal {
            run.request.start = plans::start_of(&run, id).await?;
        }
        store.adopt_run(id, replica, &run.started_text(), &Holder::this(None)).await
    };
    match begun.await {
        Ok(()) => Ok(carry_out(&run).instrument(of_run(&sync.slug, id)).await),
        Err(error) => Ok(Course::default().report(&run, BTreeMap::new(), BTreeMap::new(), Some(error))),
    }
}

async fn carry_out(run: &Run<'_>) -> RunReport {
    let mut course = Course::default();
    let mut clock = Clock::new(run);
    let outcome = execute(run, &mut course, &mut clock).await;
    let report = course.report(run, clock.seconds, clock.usage, outcome.err());
    if let Some(trace) = clock.trace {
        trace.end(&report);
    }
    report
}

/// Computes what a run would send, as a run does, and keeps it as a plan that can be applied.
///
/// # Errors
/// As a run's, before anything is sent: `SYNC_BUSY` while another run holds the sync, among others.
pub async fn save_plan(
    project: &Project,
    sync: &Arc<SyncSpec>,
    store: &Store,
    request: Request,
) -> Result<PlanReport, Error> {
    let request = Request { goal: Goal::Save, ..request };
    let run = Run::new(project, sync, store, request, &Silent, Cancel::default())?;
    let mut course = Course::default();
    execute(&run, &mut course, &mut Clock::new(&run)).await?;
    course.saved.ok_or_else(|| Error::new(ErrorCode::Internal, "a plan was kept and is not there"))
}

/// The stages in their order.
async fn execute<'a>(run: &'a Run<'a>, course: &mut Course, clock: &mut Clock<'a>) -> Result<(), Error> {
    let mut session = run.session("prepare").await?;
    let (lease, mut state) = prepare::take_lease(session.as_mut(), run).await?;
    fail::fail_point!("prepare.after_lease");
    let outcome = execute_with_lease(run, course, clock, &mut session, &lease, &mut state).await;
    // The lease is given up whatever happened; if that fails it runs out by itself.
    let ran = outcome.is_ok() && run.request.goal != Goal::Save;
    let complete = ran && course.everything_ended();
    let queried = course.counts.filter(|_| complete).and_then(|c| i64::try_from(c.queried).ok());
    if (outcome.is_err() || lease.is_lost() || course.untidy)
        && let Err(error) = tidy(run, lease.generation()).await
    {
        tracing::warn!(error = %error, "what the run leaves could not be dropped; the next run tries again");
    }
    if !lease.is_lost() {
        lease.stop_renewing();
        let noted = Noted { queried, counted: course.counted, ran };
        let released = match prune::release(session.as_mut(), run, lease.generation(), noted).await {
            Ok(()) => Ok(()),
            // The session may be gone with what went wrong.
            Err(_) => match run.session("prune").await {
                Ok(mut fresh) => prune::release(fresh.as_mut(), run, lease.generation(), noted).await,
                Err(error) => Err(error),
            },
        };
        if let Err(error) = released {
            tracing::warn!(error = %error, "the lease was not given up; it runs out by itself");
        }
        clock.ended(Stage::Prune, "");
    }
    match outcome {
        Err(_) if lease.is_lost() => Err(lease_lost(run)),
        other => other,
    }
}

fn cancelled_while_waiting() -> Error {
    Error::new(ErrorCode::Cancelled, "the run was cancelled while it waited for another one")
}

fn lease_lost(run: &Run<'_>) -> Error {
    let message = format!("the lease of sync `{}` was lost before every row was sent", run.sync.slug);
    Error::new(ErrorCode::LeaseLost, message)
}

async fn execute_with_lease<'a>(
    run: &'a Run<'a>,
    course: &mut Course,
    clock: &mut Clock<'a>,
    session: &mut Box<dyn Session>,
    lease: &Lease,
    state: &mut State,
) -> Result<(), Error> {
    let mut commits = Commits::new(lease);
    let known = state.definition.is_some();
    let relation = model::plain_relation(run, &model_sql(&run.sync.model, run.dialect())?);
    let plain;
    (course.settled, plain) =
        settle::clear_away(run, session, state, &mut commits, relation.as_ref()).await?;
    fail::fail_point!("prepare.after_settling");
    let described = model::describe(session.as_mut(), run, Some(plain)).await?;
    let shape = described.definition.shape();
    let scope = SyncScope { tables: &run.tables, shape: &shape, model: &described.model };
    let mut mapper = new_mapper(run, &described, lease.generation())?;
    let spec = delivery_spec(&run.sync, &mapper);
    run.sync.destination.destination.validate(&spec)?;
    let target = run.sync.destination.destination.target(&spec);
    run.go_on_clearing(state, &described, &target);
    let clears = run.start() == Start::ClearAndFill;
    if clears {
        clearing::possible(run, &spec)?;
    }
    let digest = plans::digest_of(&run.sync, &described.definition);
    let approved = match run.request.goal {
        Goal::Apply(id) => Some(plans::approved(session.as_mut(), run, state, id, &digest, &target).await?),
        Goal::Deliver | Goal::Save => None,
    };
    plans::retire(session.as_mut(), run, lease.generation(), state).await?;
    let change = match &approved {
        // The shape changed when the plan was made.
        Some(plan) if plan.fresh => Change::Fresh,
        Some(_) => Change::None,
        None => {
            let change = prepare::change_of_snapshot(run, state, &described, &target)?;
            reshape::possible(session.as_mut(), run, scope, state.definition.as_ref(), change).await?
        }
    };
    let reshape = match &change {
        Change::Reshape(reshape) => Some(reshape),
        _ => None,
    };
    if reshape.is_some_and(|reshape| !reshape.due.is_empty()) {
        state.due_before = state.due_before.max(1);
    }
    // What the snapshot's rows mean changes only after the guards have passed.
    let was = state.definition.as_ref();
    let meaning = was.map_or(described.definition.meaning, |was| was.meaning);
    let clearing = state.clearing().cloned();
    let of = lease.generation().to_string();
    // Another way of starting over was asked for than the one that an earlier run did not finish.
    let otherwise = clearing.is_some() && !clears;
    if otherwise && state.doubts > 0 && change != Change::Fresh && approved.is_none() {
        outset::renew_versions(run, session.as_mut(), state, lease.generation()).await?;
    }
    let definition = Definition { meaning, clearing, ..described.definition.clone() };
    let reshaping = reshape.map(|change| Reshaping {
        change,
        of: &of,
        scope,
        definition,
        target: &target,
        due_before: state.due_before,
    });
    let fresh = change == Change::Fresh;
    clock.ended(Stage::Prepare, &summary::prepared(&change, known, course.settled));

    let resync = matches!(run.start(), Start::FullResync { .. });
    let keeps_snapshot = Meaning::of(run.sync.mode).keeps_snapshot();
    let first = fresh || !keeps_snapshot || run.start() == Start::ResetCdc;
    let question = DiffQuestion {
        of: &of,
        generation: lease.generation(),
        first,
        alike: !first
            && change == Change::None
            && diff::alike(session.as_mut(), run, &described.definition).await?,
        plain: described.plain,
        compared: described.definition.meaning == Meaning::Values,
        // What was in doubt is not there once the destination is empty, and no delivery to come repeats it.
        in_doubt: state.doubts > 0 && !fresh && !clears,
        due_before: due_before(run, state, lease.generation()),
        resync: resync || clears || state.due_before > 1,
        counted: state.counted.filter(|_| change == Change::None),
        taken: reshape::taken(run, &change),
        parked: honours_parked(run, state).then_some(digest.as_str()).filter(|_| !fresh),
    };
    let canceller = session.canceller();
    let diff = match &approved {
        Some(plan) => plan.diff(run)?,
        None => tokio::select! {
            diff = diff::diff(session.as_mut(), run, scope, &question, reshaping.as_ref()) => diff?,
            () = run.cancel.cancelled() => {
                let _ = canceller.cancel().await;
                return Err(Error::new(ErrorCode::Cancelled, "the run was cancelled before anything was sent"));
            }
        },
    };
    // Of a diff that left keys out, or that saw keys in doubt, the count is not the snapshot's alone.
    let whole = diff.shape == DiffShape::Full && !question.in_doubt && diff.set_aside.is_none();
    commits.counted = match i64::try_from(diff.counts.known) {
        _ if clears || approved.is_some() || !shape.matching.is_empty() => None,
        Ok(known) if whole => Some(known),
        _ => (fresh && keeps_snapshot).then_some(0),
    };
    let mut drop_later = vec![diff.table.clone()];
    drop_later.extend(diff.set_aside.clone());
    course.counts = Some(diff.counts);
    clock.ended(Stage::Diff, &summary::differing(&diff.counts));

    let outcome = async {
        let sent = plan::sent_operations(run.sync.mode, run.sync.on_removed, run.start());
        (course.planned, course.parked, course.not_sent) = plan::split(&diff.counts, &sent);
        if run.start() == Start::ResetCdc {
            course.parked = OperationCounts::default();
            course.not_sent = OperationCounts::default();
        } else {
            let verdicts = plan::verdicts(run, &diff.counts, &sent, state.queried);
            if let Some(error) = plan::duplicate_keys_forbidden(run, &diff.counts)
                && run.request.goal != Goal::Save
            {
                return Err(error);
            }
            let stopped = verdicts.iter().any(|verdict| verdict.tripped);
            if stopped && run.request.goal == Goal::Deliver {
                let generation = lease.generation();
                let plan =
                    plans::keep(session.as_mut(), run, generation, &diff, fresh, &digest, &target).await?;
                course.plan = Some(plan.id);
                return Err(plan::tripped(run, &verdicts, plan.id));
            }
        }
        if run.request.goal == Goal::Save {
            let generation = lease.generation();
            let plan = plans::keep(session.as_mut(), run, generation, &diff, fresh, &digest, &target).await?;
            drop_later.clear();
            let known = Known {
                generation,
                change: &change,
                taken: diff.taken,
                definition: &digest,
                target: &target,
                queried: state.queried,
                under_way: false,
                expires_at: Some(plan.expires_at()),
                estimated_bytes: None,
            };
            course.saved = Some(view::look(session.as_mut(), run, &described, &diff, known).await?);
            return Ok(());
        }
        course.plan = approved.as_ref().map(|plan| plan.id);
        clock.ended(Stage::Plan, &summary::planned(&course.planned));

        if clears {
            let facts = run_facts(run, lease.generation(), &course.planned);
            let (definition, target, spec) = (&described.definition, target.as_str(), &spec);
            let clearing = Clearing { scope, definition, target, spec, facts: &facts, fresh };
            clearing.clear(run, session.as_mut(), lease, &mut course.delivered).await?;
            (state.doubts, state.due_before) = (0, 0);
        } else if fresh {
            let definition = &described.definition;
            let unsettled = !state.missing.is_empty();
            establish(run, session.as_mut(), scope, definition, &target, lease.generation(), unsettled)
                .await?;
        }
        if fresh {
            state.doubts = 0;
            state.rejections = 0;
            state.refused = 0;
            state.parked = 0;
        }
        // What is known is of no worth while the destination may be empty, until all of it is known anew.
        let due = match &approved {
            _ if fresh => state.due_before,
            _ if resync => lease.generation(),
            // What a plan declares accepted is as old as the plan.
            Some(plan) if otherwise => plan.generation,
            None if otherwise => lease.generation(),
            _ => state.due_before,
        };
        if !fresh && (meaning != described.definition.meaning || otherwise) {
            redefine(run, session.as_mut(), &described.definition, &target, lease.generation(), due).await?;
        }
        let words: Vec<&str> = sent.iter().map(|o| o.name()).collect();
        let answers = checkpoints::answers(run);
        let facts = FinalFacts {
            diff: &diff,
            keeps_snapshot,
            fresh,
            sent: &words,
            due,
            definition: &digest,
            answers: &answers,
        };
        // A result without rows is a result: what stands for the latest one becomes empty too.
        let whole = matches!(run.sync.mode, Mode::All | Mode::Snapshot) && run.start() != Start::ResetCdc;
        let delivers = course.planned.total() > 0 || whole;
        let result = if delivers {
            begin(run, session.as_mut(), &diff, &words, lease.generation(), due).await?;
            // From here on no plan fits any more.
            drop_later.extend(plans::tables(run, &state.plans)?);
            session.rest().await;
            let shipment = Shipment {
                diff: &diff,
                described: &described,
                mapper: std::mem::replace(&mut mapper, new_mapper(run, &described, lease.generation())?),
                spec: &spec,
                facts: &run_facts(run, lease.generation(), &course.planned),
                sent: &sent,
                known_rejections: state.refused - i64::try_from(course.parked.total()).unwrap_or_default(),
            };
            let mut checkpoints =
                Checkpoints { run, scope, facts: &facts, state, commits: &mut commits, last: Instant::now() };
            let delivery =
                deliver::deliver(run, lease, shipment, &mut checkpoints, &mut course.delivered).await;
            clock.ended(Stage::Deliver, &summary::sent_summary(&course.delivered));
            delivery
        } else {
            Ok(())
        };
        let ledger = std::mem::take(&mut course.delivered.ledger);
        let complete = result.is_ok() && course.everything_ended();
        // What broke off is settled from its note, which a last commit would make superfluous.
        if !course.delivered.broken_off && needs_commit(run, &diff, state, &ledger, delivers) {
            finish(run, session, scope, &facts, state, &mut commits, ledger, complete, &mut drop_later)
                .await?;
            clock.ended(Stage::Commit, &summary::committed(&course.delivered));
        }
        course.counted = commits.counted;
        if lease.is_lost() && !complete {
            return result.and(Err(lease_lost(run)));
        }
        result
    }
    .await;
    if !lease.is_lost() && run.request.goal != Goal::Save {
        course::audit(run, session.as_mut(), course, outcome.as_ref().err()).await;
        // After an error the next run may have to settle from these tables: see `tidy`.
        if outcome.is_ok() {
            course.untidy =
                course.delivered.broken_off || !prune::prune(session.as_mut(), run, &drop_later).await?;
        }
    }
    outcome
}

/// Drops what is left of a run that could not go on, but for the table that the next one settles from.
/// Whoever took over may be at work by now, so only tables of the run's own generation are dropped.
async fn tidy(run: &Run<'_>, generation: i64) -> Result<(), Error> {
    // The run's own session may be gone with what went wrong.
    let mut session = run.session("prune").await?;
    let state = state::read_state(session.as_mut(), run).await?;
    let mut keep: Vec<String> = state.iter().flat_map(plans::tables_of_plans).collect();
    keep.extend(state.and_then(|s| s.delivering).map(|d| d.table));
    let there = prepare::tables_there(session.as_mut(), run).await?;
    let left = prepare::leftovers(run, &there, Some(generation), &keep)?;
    prune::prune(session.as_mut(), run, &left).await.map(drop)
}

/// Rows accepted before this generation are due: because a full resync says so now, or said so
/// before and did not come to its end, or because a column's values have another form.
fn due_before(run: &Run<'_>, state: &State, generation: i64) -> Option<i64> {
    match run.start() {
        Start::FullResync { .. } | Start::ClearAndFill => Some(generation),
        _ if state.due_before > 0 => Some(state.due_before),
        _ => None,
    }
}

/// Whether rows that are parked are left alone: who sends every row again sends those too.
fn honours_parked(run: &Run<'_>, state: &State) -> bool {
    state.parked > 0 && run.start() == Start::Incremental && Meaning::of(run.sync.mode).keeps_snapshot()
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
