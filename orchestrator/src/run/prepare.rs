//! Stage 1: the managed schemas, the lease, and changes of shape.

use std::time::{Duration, Instant};

use chrono::Utc;
use connectors::warehouse::{ErrorKind, Session};
use sql_templates::{Atomicity, PlainTable, Statement, project_prefix, script};

use super::definition::{Change, compare};
use super::lease::{Holder, Lease, seconds};
use super::model::Described;
use super::rows::result_rows;
use super::state::{State, read_state};
use super::{Run, Start, cancelled_while_waiting};
use crate::error::{Error, ErrorCode};
use crate::grants::missing_for_writing;

/// The statements that make the managed schemas, where they are missing.
pub async fn create_schemas<'a>(
    session: &mut dyn Session,
    run: &'a Run<'_>,
) -> Result<Vec<Statement<'a>>, Error> {
    let find =
        script(run.dialect(), Atomicity::Transaction, &[Statement::FindSchemas { tables: &run.tables }])?;
    let found = session.execute(&find).await?;
    let there = result_rows(found.result("find the managed schemas")).count();
    let wanted = if run.tables.planner_schema() == run.tables.audit_schema() { 1 } else { 2 };
    Ok(if there < wanted { vec![Statement::CreateSchemas { tables: &run.tables }] } else { Vec::new() })
}

/// Makes the managed schemas and the sync's state; `false` when another run did so at the same
/// moment and this attempt was undone.
async fn create_state(session: &mut dyn Session, run: &Run<'_>) -> Result<bool, Error> {
    let project = run.project.uuid.to_string();
    // A state that was dropped begins where it ended: row versions are never minted twice.
    let generation = run.store.last_generation(run.sync.id).await?;
    let mut statements = create_schemas(session, run).await?;
    statements.extend([
        Statement::CreateState {
            tables: &run.tables,
            project: &project,
            sync_id: run.sync.id,
            slug: &run.sync.slug,
            generation,
        },
        Statement::CreateAudit { tables: &run.tables },
    ]);
    let create = script(run.dialect(), Atomicity::Transaction, &statements)?;
    match session.execute(&create).await {
        Ok(_) => Ok(true),
        Err(e) if e.kind == ErrorKind::Permission => {
            Err(missing_for_writing(&run.sync.model.source, &e.message))
        }
        Err(e)
            if matches!(e.kind, ErrorKind::AlreadyExists | ErrorKind::UniqueViolation | ErrorKind::Busy) =>
        {
            Ok(false)
        }
        Err(e) => Err(e.into()),
    }
}

/// How often making the state is tried when other runs keep coming first. Each time one of them
/// is done, and no more than a few begin at once.
const MOST_COLLISIONS: u32 = 20;

/// Reads the state, and makes it where there is none.
async fn read_or_create_state(session: &mut dyn Session, run: &Run<'_>) -> Result<State, Error> {
    for _ in 0..MOST_COLLISIONS {
        if let Some(state) = read_state(session, run).await? {
            return Ok(state);
        }
        if !create_state(session, run).await? {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Err(Error::new(
        ErrorCode::SourceBusy,
        format!(
            "the managed tables of sync `{}` could not be made beside those of other runs",
            run.sync.slug
        ),
    ))
}

/// Takes the lease, waiting for another holder as long as was asked.
pub async fn take_lease(session: &mut dyn Session, run: &Run<'_>) -> Result<(Lease, State), Error> {
    let patience = Instant::now() + run.request.wait.unwrap_or_default();
    loop {
        let state = read_or_create_state(session, run).await?;
        let held = state.lease_seconds.is_some_and(|s| s > 0.0);
        let gone = held && state.holder.as_ref().is_some_and(Holder::is_gone);
        if gone && let Some(orphan) = state.holder.as_ref().and_then(|h| h.session.as_deref()) {
            run.warehouse().terminate(orphan).await?;
        }
        if !held || gone {
            let generation = state.generation + 1;
            let holder = serde_json::to_string(&Holder::this(session.id())).unwrap_or_default();
            let length = run.lease_length();
            let asked_at = Lease::clock();
            let take = script(
                run.dialect(),
                Atomicity::Transaction,
                &[Statement::TakeLease {
                    tables: &run.tables,
                    slug: &run.sync.slug,
                    generation,
                    holder: &holder,
                    lease_seconds: seconds(length),
                    replace_holder: gone,
                }],
            )?;
            run.store.took_generation(run.sync.id, generation).await?;
            match session.execute(&take).await {
                Ok(_) => {
                    let lease = Lease::hold(
                        run.warehouse().clone(),
                        run.tables.clone(),
                        run.sync.slug.clone(),
                        generation,
                        length,
                        asked_at,
                        run.cancel.clone(),
                    );
                    return Ok((lease, state));
                }
                // Someone was faster; look again.
                Err(e) if matches!(e.kind, ErrorKind::Fenced | ErrorKind::Busy) => {}
                Err(e) if e.kind == ErrorKind::Permission => {
                    return Err(missing_for_writing(&run.sync.model.source, &e.message));
                }
                Err(e) => return Err(e.into()),
            }
        }
        if run.cancel.is_cancelled() {
            return Err(cancelled_while_waiting());
        }
        if Instant::now() >= patience {
            let who =
                state.holder.map_or_else(String::new, |h| format!(" by process {} on {}", h.pid, h.host));
            let left = state.lease_seconds.unwrap_or_default().max(0.0);
            return Err(Error::new(
                ErrorCode::SyncBusy,
                format!("sync `{}` is being run{who}; its lease runs for another {left:.0} s", run.sync.slug),
            ));
        }
        let pause = state.lease_seconds.unwrap_or(0.2).clamp(0.2, 2.0);
        tokio::time::sleep(Duration::from_secs_f64(pause)).await;
    }
}

/// What has to happen with the snapshot before the model is compared with it.
pub fn change_of_snapshot(
    run: &Run<'_>,
    state: &State,
    described: &Described,
    target: &str,
) -> Result<Change, Error> {
    let Some(old_target) = &state.target else { return Ok(Change::Fresh) };
    let starts_over = run.start() != Start::Incremental;
    let refuse =
        |code, message: String| if starts_over { Ok(Change::Fresh) } else { Err(Error::new(code, message)) };
    let moved = |from: &str, what: &str| {
        let message = format!("sync `{}` now points to {target}; {what} {from}", run.sync.slug);
        refuse(ErrorCode::TargetChanged, message)
    };
    let Some(was) = &state.definition else {
        // A run broke off where the warehouse undoes nothing that makes tables.
        return if old_target == target {
            Ok(Change::Fresh)
        } else {
            moved(old_target, "its snapshot was made for")
        };
    };
    let is = described.definition.identity(target);
    let known = was.identity(old_target);
    // Until what was begun has come to its end, a sync that was edited since does not go on as if it had not been.
    let left = was.clearing.as_ref().filter(|_| !starts_over);
    let stands = left.unwrap_or(&known);
    if stands.target != target {
        let what = if left.is_some() {
            "an earlier run broke off while it emptied"
        } else {
            "its snapshot is that of"
        };
        return moved(&stands.target, what);
    }
    if !state.missing.is_empty() {
        return if starts_over { Ok(Change::Fresh) } else { Err(snapshot_missing(run, &state.missing)) };
    }
    if stands.keys != is.keys {
        return refuse(
            ErrorCode::KeyChanged,
            format!(
                "the primary key of model `{}` was {} and is now {}",
                run.sync.model.slug,
                stands.keys.join(", "),
                is.keys.join(", ")
            ),
        );
    }
    let retention = run.sync.model.source.snapshot_retention;
    if let (Some(kept), Some(idle), false) = (retention, state.idle_seconds, starts_over)
        && was.meaning.keeps_snapshot()
        && idle > kept.as_secs_f64()
    {
        return Err(Error::new(
            ErrorCode::SnapshotExpired,
            format!(
                "sync `{}` last ran {} ago, and source `{}` keeps snapshots for {} (`snapshot_retention`)",
                run.sync.slug,
                span(idle),
                run.sync.model.source.slug,
                span(kept.as_secs_f64()),
            ),
        ));
    }
    // Keys are keys in both, so a full resync can go on from those that are known: it sends every row
    // whatever was accepted, and what is still to be removed stays known.
    let resync = matches!(run.start(), Start::FullResync { .. });
    let both_hold = stands.meaning.holds_records() && is.meaning.holds_records();
    if stands.meaning != is.meaning && !(resync && both_hold) {
        return refuse(
            ErrorCode::ModeChanged,
            format!(
                "sync `{}` changed to mode `{}`, whose snapshot stands for something else",
                run.sync.slug,
                run.sync.mode.name()
            ),
        );
    }
    compare(was, &described.definition)
}

/// A span of time in the largest unit of which it has at least two.
fn span(seconds: f64) -> String {
    let units = [(86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes")];
    let (length, unit) = units.into_iter().find(|(l, _)| seconds >= 2.0 * l).unwrap_or((1.0, "seconds"));
    format!("{:.0} {unit}", (seconds / length).floor())
}

/// The names of the sync's tables that are there.
pub async fn tables_there(session: &mut dyn Session, run: &Run<'_>) -> Result<Vec<String>, Error> {
    Ok(catalogue(session, run, None).await?.0)
}

/// The names of the sync's tables that are there, and whether this relation is a table and nothing else goes by its name.
pub async fn catalogue(
    session: &mut dyn Session,
    run: &Run<'_>,
    relation: Option<&PlainTable>,
) -> Result<(Vec<String>, bool), Error> {
    let prefix = format!("{}_s{}", project_prefix(&run.project.uuid.to_string()), run.sync.id);
    let list = script(
        run.dialect(),
        Atomicity::Transaction,
        &[Statement::ManagedTables { schema: run.tables.planner_schema(), prefix: &prefix, relation }],
    )?;
    let effect = session.execute(&list).await?;
    let (mut managed, mut others) = (Vec::new(), Vec::new());
    for row in result_rows(effect.result("list the managed tables")) {
        match row.text("kind")?.as_deref() {
            Some("managed") => managed.extend(row.text("table_name")?),
            kind => others.push(kind == Some("table")),
        }
    }
    Ok((managed, others == [true]))
}

/// Looks whether all that the state speaks of is there. What somebody dropped is an error; a run that
/// starts over, or may have to go on with a clear, begins with an empty snapshot instead.
pub fn start_over_without_tables(run: &Run<'_>, state: &mut State, there: &[String]) -> Result<(), Error> {
    if state.definition.is_none() {
        return Ok(());
    }
    let of_the_sync = [run.tables.snapshot(), run.tables.doubts(), run.tables.rejections()];
    let mut wanted: Vec<&str> = of_the_sync.iter().map(|table| table.name.name()).collect();
    // A run that is under way may drop the table of its diff at any moment.
    let unfinished = state.delivering.as_ref().filter(|_| !state.is_under_way());
    wanted.extend(unfinished.map(|delivering| delivering.table.as_str()));
    wanted.retain(|name| !there.iter().any(|t| t == name));
    let missing: Vec<String> = wanted.into_iter().map(str::to_owned).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if run.request.start == Start::Incremental && state.clearing().is_none() {
        return Err(snapshot_missing(run, &missing));
    }
    *state = State {
        delivering: None,
        due_before: 0,
        doubts: 0,
        rejections: 0,
        refused: 0,
        parked: 0,
        counted: None,
        missing,
        ..state.clone()
    };
    Ok(())
}

/// What somebody dropped, and what to do.
pub fn snapshot_missing(run: &Run<'_>, missing: &[String]) -> Error {
    Error::new(
        ErrorCode::SnapshotMissing,
        format!(
            "what sync `{}` knows of its destination was dropped from the schema `{}`: {}",
            run.sync.slug,
            run.tables.planner_schema().name(),
            missing.join(", ")
        ),
    )
}

/// How long a rehearsal's tables are left alone: nobody knows whether it still goes on.
const REHEARSAL_LIFE: u64 = 24 * 3600;

/// Names the tables of a rehearsal, which holds no lease.
pub fn word_of_rehearsal() -> String {
    let seconds = Utc::now().timestamp();
    format!("plan_{seconds}_{}", &uuid::Uuid::new_v4().simple().to_string()[..8])
}

fn is_young_rehearsal(word: &str) -> bool {
    let began = word.strip_prefix("plan_").and_then(|rest| rest.split('_').next()?.parse::<i64>().ok());
    began.is_some_and(|began| Utc::now().timestamp().abs_diff(began) < REHEARSAL_LIFE)
}

/// Tables that runs of this sync left behind, of one generation or of all, but some to keep.
pub fn leftovers(
    run: &Run<'_>,
    there: &[String],
    generation: Option<i64>,
    keep: &[String],
) -> Result<Vec<sql_templates::TableRef>, Error> {
    let left = there.iter().filter(|name| {
        let Some(word) = run.tables.word_of(name) else { return false };
        let made_by = word.split('_').next().and_then(|word| word.parse().ok());
        let asked = generation.is_none_or(|generation| made_by == Some(generation));
        asked && !is_young_rehearsal(word) && !keep.contains(name)
    });
    left.map(|name| run.tables.recorded(name).map_err(|e| Error::new(ErrorCode::Internal, e.to_string())))
        .collect()
}
