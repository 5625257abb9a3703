//! What is said durably once the guards have passed, and before the first request.

use connectors::change::Operation;
use connectors::warehouse::Session;
use sql_templates::{Atomicity, Statement, SyncScope, script};

use super::differences::Diff;
use super::state::{State, WAITS};
use super::{Definition, Run, Start};
use crate::error::Error;

/// From here on the rows of the snapshot stand for something else, and all that are older than `due` are due.
pub async fn redefine(
    run: &Run<'_>,
    session: &mut dyn Session,
    definition: &Definition,
    target: &str,
    generation: i64,
    due: i64,
) -> Result<(), Error> {
    let definition = definition.text();
    define(run, session, Some(&definition), Some(target), generation, due).await
}

/// What the state says of the snapshot; nothing, where nothing is known.
pub async fn define(
    run: &Run<'_>,
    session: &mut dyn Session,
    definition: Option<&str>,
    target: Option<&str>,
    generation: i64,
    due_before: i64,
) -> Result<(), Error> {
    let tables = &run.tables;
    let define = Statement::Define { tables, generation, definition, target, due_before };
    session.execute(&script(run.dialect(), Atomicity::Transaction, &[define])?).await?;
    Ok(())
}

/// What is in doubt leaves under other versions from now on. For a destination that may have been emptied since: it
/// would take what it once had for a repeat.
pub async fn renew_versions(
    run: &Run<'_>,
    session: &mut dyn Session,
    state: &State,
    generation: i64,
) -> Result<(), Error> {
    let tables = &run.tables;
    let definition = state.definition.as_ref().map(Definition::text);
    let fence = Statement::Define {
        tables,
        generation,
        definition: definition.as_deref(),
        target: state.target.as_deref(),
        due_before: state.due_before,
    };
    let statements = [fence, Statement::RenewVersions { tables, generation }];
    session.execute(&script(run.dialect(), Atomicity::Transaction, &statements)?).await?;
    Ok(())
}

/// Empty tables, and what they will stand for: the beginning of a snapshot. With `unsettled`, what a delivery left that
/// was to be settled from tables that are gone is forgotten.
pub async fn establish(
    run: &Run<'_>,
    session: &mut dyn Session,
    scope: SyncScope<'_>,
    definition: &Definition,
    target: &str,
    generation: i64,
    unsettled: bool,
) -> Result<(), Error> {
    let definition = definition.text();
    let define = |definition| Statement::Define {
        tables: &run.tables,
        generation,
        definition,
        target: Some(target),
        due_before: 0,
    };
    let defined = define(Some(definition.as_str()));
    let create = Statement::CreateTables { scope };
    let mut scripts = if run.dialect().facts().undoes_ddl {
        vec![vec![defined, create]]
    } else {
        // Until all of the new tables are there, nobody knows what the snapshot stands for.
        vec![vec![define(None)], vec![create], vec![defined]]
    };
    if unsettled {
        scripts[0].push(Statement::ForgetDelivery { tables: &run.tables, generation });
    }
    for statements in scripts {
        fail::fail_point!("deliver.before_establish");
        session.execute(&script(run.dialect(), Atomicity::Transaction, &statements)?).await?;
    }
    fail::fail_point!("deliver.after_establish");
    Ok(())
}

/// The durable word before the first request.
pub async fn begin(
    run: &Run<'_>,
    session: &mut dyn Session,
    diff: &Diff,
    sent: &[&str],
    generation: i64,
    due: i64,
) -> Result<(), Error> {
    fail::fail_point!("deliver.before_begin");
    run.store.begin_notes(run.delivery_id(generation), diff.table.name.name()).await?;
    let mut words = sent.to_vec();
    if run.sync.removes() && !sent.contains(&Operation::Removed.name()) {
        words.push(WAITS);
    }
    let begin = script(
        run.dialect(),
        Atomicity::Transaction,
        &[Statement::BeginDelivery {
            tables: &run.tables,
            generation,
            diff: &diff.table,
            diff_shape: diff.shape,
            sent: &words,
            store: run.store.id(),
            run: run.id,
            due_before: due,
        }],
    )?;
    session.execute(&begin).await?;
    fail::fail_point!("deliver.after_begin");
    if run.start() != Start::Incremental {
        run.store.begun(run.id).await?;
    }
    Ok(())
}
