//! `levin plan`: everything up to the plan, in one transaction that is undone.
//!
//! A rehearsal takes no lease and settles nothing; it reads the snapshot and the notes of an
//! interrupted run together.

use std::sync::Arc;

use connectors::warehouse::Session;
use sql_templates::{Atomicity, CommitFacts, DiffShape, Shape, Statement, SyncScope, script};

use super::definition::{Change, Meaning};
use super::diff::{DiffQuestion, alike, diff_script, failed, longest_key, taken};
use super::differences::read_counts;
use super::lease::Cancel;
use super::model::{self, Described, describe};
use super::settle::Unfinished;
use super::stages::Stage;
use super::state::{State, read_state};
use super::view::{Known, PlanReport, View, previous_of};
use super::{
    Request, Run, Silent, Start, clearing, delivery_spec, diff, due_before, honours_parked, plans, prepare,
    prune, reshape, run_values,
};
use crate::error::{Error, ErrorCode};
use crate::mapping::Mapper;
use crate::project::{Project, SyncSpec};
use crate::store::Store;

/// What a run would do now. Sends nothing and leaves nothing behind.
pub async fn rehearse(
    project: &Project,
    sync: &Arc<SyncSpec>,
    store: &Store,
    request: Request,
) -> Result<PlanReport, Error> {
    let silent = Silent;
    let run = Run::new(project, sync, store, request, &silent, Cancel::default())?;
    let mut session = run.session(Stage::Plan.name()).await?;
    let mut state = read_state(session.as_mut(), &run).await?;
    if let Some(state) = &mut state {
        not_between_shapes(&run, state)?;
        let there = prepare::tables_there(session.as_mut(), &run).await?;
        prepare::start_over_without_tables(&run, state, &there)?;
    }
    let under_way = state.as_ref().is_some_and(State::is_under_way);
    let described = describe(session.as_mut(), &run, None).await?;
    let generation = state.as_ref().map_or(0, |s| s.generation) + 1;
    let shape = described.definition.shape();
    let mapper = Mapper::new(sync, &shape, previous_of(&shape), run_values(&run, generation))?;
    let spec = delivery_spec(sync, &mapper);
    sync.destination.destination.validate(&spec)?;
    let target = sync.destination.destination.target(&spec);
    if let Some(state) = &state {
        run.go_on_clearing(state, &described, &target);
    }
    if run.start() == Start::ClearAndFill {
        clearing::possible(&run, &spec)?;
    }
    let change = match &state {
        Some(state) => prepare::change_of_snapshot(&run, state, &described, &target)?,
        None => Change::Fresh,
    };
    let scope = SyncScope { tables: &run.tables, shape: &shape, model: &described.model };
    let was = state.as_ref().and_then(|state| state.definition.as_ref());
    let change = reshape::possible(session.as_mut(), &run, scope, was, change).await?;
    let alike = change == Change::None
        && state.is_some()
        && alike(session.as_mut(), &run, &described.definition).await?;
    let rehearsal = Rehearsal {
        run: &run,
        alike,
        estimated_bytes: model::estimate(session.as_mut(), &run, &described).await?,
        described: &described,
        shape: &shape,
        state: state.as_ref(),
        change: &change,
        target: &target,
        generation,
        under_way,
    };
    rehearsal.report(session.as_mut(), mapper).await
}

/// While tables stand aside that are to be put in place, a run has to come first.
fn not_between_shapes(run: &Run<'_>, state: &State) -> Result<(), Error> {
    match &state.definition {
        Some(definition) if definition.put.is_some() => Err(Error::new(
            ErrorCode::Interrupted,
            format!("a run of sync `{}` broke off while its snapshot took another shape", run.sync.slug),
        )
        .hint("`levin run` goes on with it")),
        _ => Ok(()),
    }
}

struct Rehearsal<'a> {
    run: &'a Run<'a>,
    alike: bool,
    estimated_bytes: Option<u64>,
    described: &'a Described,
    shape: &'a Shape,
    state: Option<&'a State>,
    change: &'a Change,
    target: &'a str,
    generation: i64,
    under_way: bool,
}

impl Rehearsal<'_> {
    async fn report(&self, session: &mut dyn Session, mapper: Mapper) -> Result<PlanReport, Error> {
        let run = self.run;
        // A word of its own, so that no run's tables are touched, not even in a transaction that is undone.
        let of = prepare::word_of_rehearsal();
        let report = self.look(session, mapper, &of).await;
        if !run.dialect().facts().undoes_ddl {
            let mut made = prepare::tables_there(session, run).await?;
            made.retain(|name| run.tables.word_of(name).is_some_and(|word| word.starts_with(&of)));
            let made: Result<Vec<_>, _> = made.iter().map(|name| run.tables.recorded(name)).collect();
            let made = made.map_err(|e| Error::new(ErrorCode::Internal, e.to_string()))?;
            prune::prune(session, run, &made).await?;
        }
        report
    }

    async fn look(&self, session: &mut dyn Session, mapper: Mapper, of: &str) -> Result<PlanReport, Error> {
        let run = self.run;
        let digest = plans::digest_of(&run.sync, &self.described.definition);
        let apart = !run.dialect().facts().undoes_ddl;
        let question = self.question(of, &digest);
        let unfinished = Unfinished::find(run, session, self.state, of).await?;
        let mut before = prepare::create_schemas(session, run).await?;
        // What is settled or gets another shape here does so aside; copies are made where nothing is undone.
        let of_shape = format!("{of}_shape");
        let (copied, reshaped) = (run.tables.aside(of), run.tables.aside(&of_shape));
        let columns = unfinished.as_ref().map(Unfinished::columns).unwrap_or_default();
        let mut tables = &run.tables;
        if let Some(unfinished) = unfinished.as_ref().filter(|_| apart) {
            before.extend(reshape::copies(unfinished.scope(tables), of, &columns));
            tables = &copied;
        }
        let settling = unfinished.as_ref().zip(self.state).map(|(unfinished, state)| {
            let facts =
                unfinished.facts(state, state.generation, state.checkpoint, unfinished.ranges(), true);
            CommitFacts { rehearsed: true, ..facts }
        });
        if let (Some(unfinished), Some(facts)) = (&unfinished, &settling) {
            before.push(Statement::Commit { scope: unfinished.scope(tables), facts });
        }
        let mut scope = SyncScope { tables, shape: self.shape, model: &self.described.model };
        if let Change::Reshape(reshape) = self.change {
            before.extend(reshape::statements(scope, &of_shape, reshape));
            scope.tables = &reshaped;
        }
        if apart {
            let made = script(run.dialect(), Atomicity::Separate, &before)?;
            session.execute(&made).await.map_err(|e| failed(run, self.shape, e))?;
            before.clear();
        }
        let diff_shape = if question.first { DiffShape::First } else { DiffShape::Full };
        let view = |careful: bool| {
            let set_aside = careful.then(|| run.tables.set_aside(of));
            View::new(run, self.shape, run.tables.diff(of), diff_shape, set_aside)
        };
        let mut careful = question.begins_careful();
        let (effect, counts) = loop {
            let mut script = diff_script(run, scope, &question, careful, Atomicity::Rehearsal, &before)?;
            let view = view(careful);
            let look = sql_templates::script(run.dialect(), Atomicity::Rehearsal, &view.statements())?;
            script.steps.extend(look.steps);
            match session.execute(&script).await {
                Ok(effect) => match longest_key(run, &effect).and_then(|()| read_counts(&effect))? {
                    Some(counts) => break (effect, counts),
                    None if !careful => careful = true,
                    None => {
                        return Err(Error::new(
                            ErrorCode::Internal,
                            "keys that were set aside are in the diff",
                        ));
                    }
                },
                Err(e) if e.kind == connectors::warehouse::ErrorKind::UniqueViolation && !careful => {
                    careful = true;
                }
                Err(e) => return Err(failed(run, self.shape, e)),
            }
            diff::forget(session, run, of).await?;
        };
        if let Some(unfinished) = &unfinished {
            let [outcomes, _] = unfinished.tables();
            prune::prune(session, run, &[outcomes]).await?;
        }
        let known = Known {
            generation: self.generation,
            change: self.change,
            taken: taken(&question, &effect),
            definition: &digest,
            target: self.target,
            queried: self.state.and_then(|s| s.queried),
            under_way: self.under_way,
            expires_at: None,
            estimated_bytes: self.estimated_bytes,
        };
        view(careful).report(&effect, &counts, mapper, known)
    }

    fn question<'b>(&'b self, of: &'b str, digest: &'b str) -> DiffQuestion<'b> {
        let run = self.run;
        let keeps_snapshot = Meaning::of(run.sync.mode).keeps_snapshot();
        let fresh = *self.change == Change::Fresh;
        let doubtful = self.state.is_some_and(|s| s.doubts > 0 || s.delivering.is_some());
        let due = self.state.and_then(|state| due_before(run, state, self.generation));
        let reshaped_due = matches!(self.change, Change::Reshape(r) if !r.due.is_empty());
        DiffQuestion {
            of,
            generation: self.generation,
            first: fresh || !keeps_snapshot || run.start() == Start::ResetCdc,
            plain: self.described.plain,
            compared: self.described.definition.meaning == Meaning::Values,
            in_doubt: doubtful && !fresh && run.start() != Start::ClearAndFill,
            due_before: due.or(reshaped_due.then_some(1)),
            resync: matches!(run.start(), Start::FullResync { .. } | Start::ClearAndFill)
                || self.state.is_some_and(|s| s.due_before > 1),
            counted: match self.change {
                Change::None => self.state.filter(|s| s.delivering.is_none()).and_then(|s| s.counted),
                _ => None,
            },
            taken: reshape::taken(run, self.change),
            parked: self.state.filter(|s| !fresh && honours_parked(run, s)).map(|_| digest),
            alike: self.alike,
        }
    }
}
