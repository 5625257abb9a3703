//! Stage 2: what differs, found inside the warehouse.

use connectors::warehouse::{Effect, ErrorKind, Session};
use sql_templates::{
    Atomicity, Column, DiffFacts, DiffShape, Script, Shape, Statement, SyncScope, TableRef, script,
};

use super::Run;
use super::definition::Definition;
use super::differences::{Diff, read_counts};
use super::reshape::Reshaping;
use super::rows::only_row;
use crate::error::{Error, ErrorCode};
use crate::grants::{missing_for_reading, missing_for_writing};

/// How a diff is asked for.
#[derive(Debug, Clone)]
pub struct DiffQuestion<'a> {
    /// Names the run's tables.
    pub of: &'a str,
    /// The run's generation.
    pub generation: i64,
    /// Every row counts as added, the snapshot is not read.
    pub first: bool,
    /// The model may be read twice within a transaction.
    pub plain: bool,
    /// The mode compares values, not only keys.
    pub compared: bool,
    /// There are keys in doubt.
    pub in_doubt: bool,
    /// Snapshot rows of an older generation are due.
    pub due_before: Option<i64>,
    /// Due rows are sent as added.
    pub resync: bool,
    /// The snapshot's rows, when they were counted since it changed last.
    pub counted: Option<i64>,
    /// New columns whose values of today count as accepted.
    pub taken: &'a [Column],
    /// The digest of the sync's definition, when there are rows that are parked under it.
    pub parked: Option<&'a str>,
    /// Every column has the same type in model and snapshot: see [`alike`].
    pub alike: bool,
}

impl DiffQuestion<'_> {
    /// Of a key that comes twice nobody knows which value is to be taken as accepted, so such keys are found first.
    pub fn begins_careful(&self) -> bool {
        !self.taken.is_empty()
    }
}

/// Whether every column of the snapshot has the type that it has in the model. A snapshot keeps a wider
/// type that a column once had, so only the warehouse knows. Not asked where nothing depends on it.
pub async fn alike(session: &mut dyn Session, run: &Run<'_>, definition: &Definition) -> Result<bool, Error> {
    if !run.dialect().facts().hashes_first {
        return Ok(false);
    }
    let snapshot = Statement::Snapshot { tables: &run.tables }.sql(run.dialect())?;
    // A snapshot that cannot be described is the diff's to complain of.
    let Ok(stored) = session.describe(&snapshot).await else { return Ok(false) };
    Ok(definition
        .keys
        .iter()
        .chain(&definition.columns)
        .all(|column| stored.iter().any(|s| s.name == column.name && s.engine_type == column.engine_type)))
}

/// The script of a diff; `careful` copies the model first and sets null and duplicate keys aside.
pub fn diff_script(
    run: &Run<'_>,
    scope: SyncScope<'_>,
    question: &DiffQuestion<'_>,
    careful: bool,
    atomicity: Atomicity,
    before: &[Statement<'_>],
) -> Result<Script, Error> {
    let facts = facts(question, careful);
    let diff = if question.first {
        Statement::DiffFirst { scope, facts: &facts }
    } else {
        Statement::Diff { scope, facts: &facts }
    };
    let mut statements = before.to_vec();
    statements.push(diff);
    Ok(script(run.dialect(), atomicity, &statements)?)
}

/// So many rows of a snapshot are worth a second process: below it, comparing them takes some milliseconds.
const WORTH_HALVES: i64 = 100_000;

fn facts<'a>(question: &DiffQuestion<'a>, careful: bool) -> DiffFacts<'a> {
    DiffFacts {
        of: question.of,
        generation: question.generation,
        stage: careful || !question.plain,
        set_aside: careful,
        compared: question.compared,
        in_doubt: question.in_doubt,
        due_before: question.due_before.filter(|due| *due > 0),
        resync: question.resync,
        sorted: question.plain && !careful,
        halves: question.plain && !careful && question.counted.is_some_and(|rows| rows >= WORTH_HALVES),
        counted: question.counted,
        taken: question.taken,
        parked: question.parked,
        by_hash: question.alike
            && !careful
            && !question.in_doubt
            && question.due_before.is_none_or(|due| due <= 0),
    }
}

/// Computes the diff, and with it what has to happen `before`. A model whose counts say that some key
/// is null or comes twice is copied and looked at again, more carefully.
pub async fn diff(
    session: &mut dyn Session,
    run: &Run<'_>,
    scope: SyncScope<'_>,
    question: &DiffQuestion<'_>,
    reshaping: Option<&Reshaping<'_>>,
) -> Result<Diff, Error> {
    fail::fail_point!("diff.before");
    let Some(reshaping) = reshaping else { return differences(session, run, scope, question, &[]).await };
    if run.dialect().facts().undoes_ddl {
        let definition = reshaping.definition.text();
        let mut before = reshaping.write();
        before.extend(reshaping.put());
        before.push(reshaping.define(question.generation, &definition));
        return differences(session, run, scope, question, &before).await;
    }
    let write = script(run.dialect(), Atomicity::Separate, &reshaping.write())?;
    session.execute(&write).await.map_err(|e| failed(run, scope.shape, e))?;
    let aside = run.tables.aside(reshaping.of);
    let scope = SyncScope { tables: &aside, ..scope };
    let diff = differences(session, run, scope, question, &[]).await?;
    reshaping.put_apart(session, run, question.generation).await?;
    Ok(diff)
}

async fn differences(
    session: &mut dyn Session,
    run: &Run<'_>,
    scope: SyncScope<'_>,
    question: &DiffQuestion<'_>,
    before: &[Statement<'_>],
) -> Result<Diff, Error> {
    let mut before = before;
    let table = run.tables.diff(question.of);
    if !question.begins_careful() {
        let quick = diff_script(run, scope, question, false, Atomicity::Snapshot, before)?;
        match session.execute(&quick).await {
            Ok(effect) => {
                check_keys(run, session, &effect, std::slice::from_ref(&table)).await?;
                if let Some(counts) = read_counts(&effect)? {
                    fail::fail_point!("diff.after");
                    return Ok(Diff { table, shape: shape(question), set_aside: None, counts, taken: None });
                }
                let drop = script(
                    run.dialect(),
                    Atomicity::Transaction,
                    &[Statement::Prune { drop: std::slice::from_ref(&table) }],
                )?;
                session.execute(&drop).await?;
                before = &[];
            }
            Err(e) if e.kind == ErrorKind::UniqueViolation => forget(session, run, question.of).await?,
            Err(e) => return Err(failed(run, scope.shape, e)),
        }
    }
    let careful = diff_script(run, scope, question, true, Atomicity::Snapshot, before)?;
    let effect = session.execute(&careful).await.map_err(|e| failed(run, scope.shape, e))?;
    check_keys(run, session, &effect, &[table.clone(), run.tables.set_aside(question.of)]).await?;
    let counts = read_counts(&effect)?
        .ok_or_else(|| Error::new(ErrorCode::Internal, "keys that were set aside are in the diff"))?;
    fail::fail_point!("diff.after");
    let mut set_aside = Some(run.tables.set_aside(question.of));
    if counts.duplicate_keys + counts.null_keys == 0 {
        let drop = Statement::Prune { drop: set_aside.as_slice() };
        session.execute(&script(run.dialect(), Atomicity::Transaction, &[drop])?).await?;
        set_aside = None;
    }
    Ok(Diff { table, shape: shape(question), set_aside, counts, taken: taken(question, &effect) })
}

/// Drops what a script left that broke off, where its steps stand apart.
pub async fn forget(session: &mut dyn Session, run: &Run<'_>, of: &str) -> Result<(), Error> {
    if run.dialect().facts().undoes_ddl {
        return Ok(());
    }
    let made = [run.tables.diff(of), run.tables.stage(of), run.tables.set_aside(of)];
    let drop = script(run.dialect(), Atomicity::Separate, &[Statement::Prune { drop: &made }])?;
    session.execute(&drop).await?;
    Ok(())
}

/// In how many rows of the snapshot a new column was taken as accepted, if there is one.
pub fn taken(question: &DiffQuestion<'_>, effect: &Effect) -> Option<u64> {
    (!question.taken.is_empty()).then(|| effect.rows("take new columns as accepted")).flatten()
}

/// Refuses keys that the snapshot could not hold, before anything is sent; the diff's tables go.
async fn check_keys(
    run: &Run<'_>,
    session: &mut dyn Session,
    effect: &Effect,
    tables: &[TableRef],
) -> Result<(), Error> {
    let refused = longest_key(run, effect);
    if refused.is_err() {
        let drop = script(run.dialect(), Atomicity::Transaction, &[Statement::Prune { drop: tables }])?;
        session.execute(&drop).await?;
    }
    refused
}

/// Refuses keys that the snapshot could not hold.
pub fn longest_key(run: &Run<'_>, effect: &Effect) -> Result<(), Error> {
    let longest = only_row(effect.result("count"), "the count")?.count("longest_key")?.unsigned_abs();
    match run.dialect().facts().max_key_bytes {
        Some(most) if longest > most => {
            Err(key_too_long(run, &format!("a new key has {longest} bytes, the most are {most}")))
        }
        _ => Ok(()),
    }
}

fn key_too_long(run: &Run<'_>, said: &str) -> Error {
    let model = &run.sync.model;
    Error::new(
        ErrorCode::KeyTooLong,
        format!(
            "a primary key of model `{}` is too long for an index of {}: {said}",
            model.slug,
            run.dialect().name()
        ),
    )
    .at(model.file.clone(), 1)
}

fn shape(question: &DiffQuestion<'_>) -> DiffShape {
    if question.first { DiffShape::First } else { DiffShape::Full }
}

/// From so many columns on, what an engine cannot do is to hold them all.
const MANY_COLUMNS: usize = 250;

/// Troubles of the diff are mostly troubles of the model.
pub fn failed(run: &Run<'_>, shape: &Shape, error: connectors::warehouse::WarehouseError) -> Error {
    let model = &run.sync.model;
    match error.kind {
        ErrorKind::Unsupported if error.step.as_deref() == Some("index the keys") => {
            key_too_long(run, &error.message)
        }
        // A limit on a row's columns or on their bytes.
        ErrorKind::Unsupported if shape.keys.len() + shape.columns.len() >= MANY_COLUMNS => {
            Error::new(ErrorCode::TooManyColumns, format!("model `{}`: {}", model.slug, error.message))
                .at(model.file.clone(), 1)
        }
        ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::Data | ErrorKind::Unsupported => {
            let step = error.step.as_deref().unwrap_or("diff");
            Error::new(
                ErrorCode::ModelFailed,
                format!("model `{}` failed in step `{step}`: {}", model.slug, error.message),
            )
            .at(model.file.clone(), 1)
        }
        ErrorKind::Permission
            if error.message.contains(&model.source.planner_schema)
                || error.step.as_ref().is_some_and(|step| step.ends_with(" schema")) =>
        {
            missing_for_writing(&model.source, &error.message)
        }
        ErrorKind::Permission => missing_for_reading(model, &error.message),
        _ => error.into(),
    }
}
