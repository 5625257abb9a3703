//! A snapshot on its way into the model's new shape. The statements take effect together with the
//! diff that needs them: when that fails, the old shape and all that it knows is still there.

use connectors::warehouse::{Effect, ErrorKind, Session};
use sql_templates::{Atomicity, Column, SnapshotPart, Statement, SyncScope, script};

use super::Run;
use super::definition::{Change, Definition, Reshape};
use super::rows::only_row;
use crate::error::{Error, ErrorCode};
use crate::project::NewColumns;

/// The statements that bring snapshot, doubts and rejections into a new shape.
pub fn statements<'a>(scope: SyncScope<'a>, change: &'a Reshape) -> Vec<Statement<'a>> {
    let mut statements = vec![
        Statement::Reshape {
            scope,
            part: SnapshotPart::Snapshot,
            columns: &change.columns,
            due: &change.due,
        },
        Statement::Reshape { scope, part: SnapshotPart::Doubts, columns: &change.columns, due: &[] },
    ];
    if change.reasons.iter().any(|r| r.starts_with("key_type:")) {
        statements.push(Statement::Reshape {
            scope,
            part: SnapshotPart::Rejections,
            columns: &change.columns[..scope.shape.keys.len()],
            due: &[],
        });
    }
    statements
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
/// `KEY_TYPE_NOT_ONE_TO_ONE` when two keys would become one, or one of them none.
pub async fn possible(
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
        let rehearsal = script(run.dialect(), Atomicity::Rehearsal, &statements(scope, &tried))?;
        match session.execute(&rehearsal).await {
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
