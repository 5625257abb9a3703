//! A snapshot on its way into the model's new shape. The statements take effect together with the
//! diff that needs them: when that fails, the old shape and all that it knows is still there.

use connectors::warehouse::{Effect, ErrorKind, Session};
use sql_templates::{Atomicity, Column, ReshapedColumn, Shape, SnapshotPart, Statement, SyncScope, script};

use super::definition::{Change, Definition, Reshape};
use super::prepare::word_of_rehearsal;
use super::prune::prune;
use super::rows::only_row;
use super::state::State;
use super::{Run, Start};
use crate::error::{Error, ErrorCode};
use crate::project::NewColumns;

/// Every table that has the model's columns, or its keys. They change together: a diff that reads one of them aside
/// reads all of them there.
const PARTS: [SnapshotPart; 3] = [SnapshotPart::Snapshot, SnapshotPart::Doubts, SnapshotPart::Rejections];

/// The statements that write snapshot, doubts and rejections in a new shape, aside under this word.
pub fn statements<'a>(scope: SyncScope<'a>, of: &'a str, change: &'a Reshape) -> Vec<Statement<'a>> {
    aside(scope, of, &change.columns, &change.due)
}

/// The statements that copy snapshot, doubts and rejections as they are, aside under this word.
pub fn copies<'a>(scope: SyncScope<'a>, of: &'a str, columns: &'a [ReshapedColumn]) -> Vec<Statement<'a>> {
    aside(scope, of, columns, &[])
}

/// The columns of a shape that stays as it is.
pub fn unchanged(shape: &Shape) -> Vec<ReshapedColumn> {
    let all = shape.keys.iter().chain(&shape.columns);
    all.map(|column| ReshapedColumn { column: column.clone(), kept: true, cast: None }).collect()
}

fn aside<'a>(
    scope: SyncScope<'a>,
    of: &'a str,
    columns: &'a [ReshapedColumn],
    due: &'a [Column],
) -> Vec<Statement<'a>> {
    let statement = |part| {
        let (columns, due) = match part {
            SnapshotPart::Snapshot => (columns, due),
            SnapshotPart::Doubts => (columns, &[] as _),
            SnapshotPart::Rejections => (&columns[..scope.shape.keys.len()], &[] as _),
        };
        Statement::Reshape { scope, of, part, columns, due }
    };
    PARTS.into_iter().map(statement).collect()
}

/// A change of shape on its way.
pub struct Reshaping<'a> {
    /// What changes.
    pub change: &'a Reshape,
    /// The word under which the new tables stand aside.
    pub of: &'a str,
    /// The sync as it will be, with the tables as they are.
    pub scope: SyncScope<'a>,
    /// What the snapshot will stand for.
    pub definition: Definition,
    /// For which destination.
    pub target: &'a str,
    /// Rows of an older generation are due.
    pub due_before: i64,
}

impl Reshaping<'_> {
    /// The statements that write the new tables.
    pub fn write(&self) -> Vec<Statement<'_>> {
        statements(self.scope, self.of, self.change)
    }

    /// The statements that put them in place of the old ones.
    pub fn put(&self) -> Vec<Statement<'_>> {
        let tables = self.scope.tables;
        PARTS.into_iter().map(|part| Statement::PutInPlace { tables, of: self.of, part }).collect()
    }

    /// The statement that says what they stand for.
    pub fn define<'b>(&'b self, generation: i64, definition: &'b str) -> Statement<'b> {
        Statement::Define {
            tables: self.scope.tables,
            generation,
            definition: Some(definition),
            target: Some(self.target),
            due_before: self.due_before,
        }
    }

    /// Puts the new tables in place where no transaction could: what is durable first is that it is to be
    /// done, and whoever finds that word goes on with it.
    pub async fn put_apart(
        &self,
        session: &mut dyn Session,
        run: &Run<'_>,
        generation: i64,
    ) -> Result<(), Error> {
        let begun = Definition { put: Some(self.of.to_owned()), ..self.definition.clone() }.text();
        let done = self.definition.text();
        for statements in
            [vec![self.define(generation, &begun)], self.put(), vec![self.define(generation, &done)]]
        {
            fail::fail_point!("diff.before_put");
            session.execute(&script(run.dialect(), Atomicity::Transaction, &statements)?).await?;
        }
        Ok(())
    }
}

/// Goes on with a change of shape that broke off after it was said durably: what still stands aside is put in
/// place. Says whether there was one.
pub async fn go_on(
    run: &Run<'_>,
    session: &mut dyn Session,
    state: &mut State,
    generation: i64,
    there: &[String],
) -> Result<bool, Error> {
    let (Some(definition), Some(target)) = (&mut state.definition, &state.target) else { return Ok(false) };
    let Some(of) = definition.put.take() else { return Ok(false) };
    let aside = run.tables.aside(&of);
    let left =
        PARTS.into_iter().filter(|&part| there.iter().any(|name| name == aside.part(part).name.name()));
    let statements: Vec<_> =
        left.map(|part| Statement::PutInPlace { tables: &run.tables, of: &of, part }).collect();
    session.execute(&script(run.dialect(), Atomicity::Separate, &statements)?).await?;
    let text = definition.text();
    let define = Statement::Define {
        tables: &run.tables,
        generation,
        definition: Some(&text),
        target: Some(target),
        due_before: state.due_before,
    };
    session.execute(&script(run.dialect(), Atomicity::Transaction, &[define])?).await?;
    Ok(true)
}

/// New columns whose values of today count as accepted.
pub fn taken<'a>(run: &Run<'_>, change: &'a Change) -> &'a [Column] {
    match change {
        Change::Reshape(reshape) if run.sync.on_new_column == NewColumns::Keep => &reshape.new,
        _ => &[],
    }
}

/// What of a change the known rows can go through. Casts are tried in a transaction that is undone:
/// values that the new type cannot hold are forgotten, so that their rows fall due.
///
/// # Errors
/// `KEY_TYPE_NOT_ONE_TO_ONE` when two keys would become one, or one of them none; a run that starts over begins with an
/// empty snapshot instead.
pub async fn possible(
    session: &mut dyn Session,
    run: &Run<'_>,
    scope: SyncScope<'_>,
    was: Option<&Definition>,
    change: Change,
) -> Result<Change, Error> {
    match tried(session, run, scope, was, change).await {
        Err(error) if error.code == ErrorCode::KeyTypeNotOneToOne && run.start() != Start::Incremental => {
            Ok(Change::Fresh)
        }
        tried => tried,
    }
}

async fn tried(
    session: &mut dyn Session,
    run: &Run<'_>,
    scope: SyncScope<'_>,
    was: Option<&Definition>,
    change: Change,
) -> Result<Change, Error> {
    let (Change::Reshape(mut tried), Some(was)) = (change.clone(), was) else { return Ok(change) };
    let keys = scope.shape.keys.len();
    loop {
        if tried.columns.iter().all(|c| c.cast.is_none()) {
            return Ok(Change::Reshape(tried));
        }
        let of = word_of_rehearsal();
        let rehearsal = script(run.dialect(), Atomicity::Rehearsal, &statements(scope, &of, &tried))?;
        let outcome = session.execute(&rehearsal).await;
        if !run.dialect().facts().undoes_ddl {
            let aside = run.tables.aside(&of);
            let tables = PARTS.map(|part| aside.part(part));
            prune(session, run, &tables).await?;
        }
        match outcome {
            Ok(effect) => {
                keys_stayed_one_to_one(run, &effect)?;
                return Ok(Change::Reshape(tried));
            }
            Err(e) if e.kind == ErrorKind::UniqueViolation => return Err(not_one_to_one(run)),
            Err(e) if matches!(e.kind, ErrorKind::Data | ErrorKind::Invalid) => {
                let forgetful = tried.without_casts(was, keys);
                if forgetful == tried {
                    return Err(not_one_to_one(run));
                }
                tried = forgetful;
            }
            Err(e) => return Err(e.into()),
        }
    }
}

/// Whether the keys of a reshaped table are still as many as before.
fn keys_stayed_one_to_one(run: &Run<'_>, effect: &Effect) -> Result<(), Error> {
    for step in effect.steps.iter().filter(|s| s.name == "keys stay one to one") {
        let row = only_row(&step.batches, "the count of keys")?;
        if row.count("found")? != row.count("kept")? {
            return Err(not_one_to_one(run));
        }
    }
    Ok(())
}

fn not_one_to_one(run: &Run<'_>) -> Error {
    Error::new(
        ErrorCode::KeyTypeNotOneToOne,
        format!(
            "the primary key of model `{}` has another type, and not every key that sync `{}` knows is a different key of that type",
            run.sync.model.slug, run.sync.slug
        ),
    )
}
