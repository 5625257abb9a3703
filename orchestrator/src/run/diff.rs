//! Stage 2: what differs, found inside the warehouse.

use connectors::warehouse::{ErrorKind, Session};
use sql_templates::{Atomicity, DiffFacts, DiffShape, Script, Statement, SyncScope, script};

use super::Run;
use super::differences::{Diff, read_counts};
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
    }
}

/// Computes the diff. A model whose counts say that some key is null or comes twice is copied and
/// looked at again, more carefully.
pub async fn diff(
    session: &mut dyn Session,
    run: &Run<'_>,
    scope: SyncScope<'_>,
    question: &DiffQuestion<'_>,
) -> Result<Diff, Error> {
    fail::fail_point!("diff.before");
    let quick = diff_script(run, scope, question, false, Atomicity::Snapshot, &[])?;
    let table = run.tables.diff(question.of);
    match session.execute(&quick).await {
        Ok(effect) => {
            if let Some(counts) = read_counts(&effect)? {
                fail::fail_point!("diff.after");
                return Ok(Diff { table, shape: shape(question), set_aside: None, counts });
            }
            let drop = script(
                run.dialect(),
                Atomicity::Transaction,
                &[Statement::Prune { drop: std::slice::from_ref(&table) }],
            )?;
            session.execute(&drop).await?;
        }
        Err(e) if e.kind == ErrorKind::UniqueViolation => {}
        Err(e) => return Err(failed(run, e)),
    }
    let careful = diff_script(run, scope, question, true, Atomicity::Snapshot, &[])?;
    let effect = session.execute(&careful).await.map_err(|e| failed(run, e))?;
    let counts = read_counts(&effect)?
        .ok_or_else(|| Error::new(ErrorCode::Internal, "keys that were set aside are in the diff"))?;
    fail::fail_point!("diff.after");
    Ok(Diff { table, shape: shape(question), set_aside: Some(run.tables.set_aside(question.of)), counts })
}

fn shape(question: &DiffQuestion<'_>) -> DiffShape {
    if question.first { DiffShape::First } else { DiffShape::Full }
}

/// Troubles of the diff are mostly troubles of the model.
pub fn failed(run: &Run<'_>, error: connectors::warehouse::WarehouseError) -> Error {
    let model = &run.sync.model;
    match error.kind {
        ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::Data => {
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
        ErrorKind::Unsupported => Error::new(ErrorCode::TooManyColumns, error.message),
        _ => error.into(),
    }
}
