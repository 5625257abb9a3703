//! `levin test-row`: one row on its way, looked at from close by. No lease, no notes, no snapshot.

use std::sync::Arc;

use connectors::change::Operation;
use connectors::destination::{RunFacts, Trial};
use sql_templates::{Atomicity, Statement, SyncScope, TestRowFacts, script};

use super::lease::Cancel;
use super::model::describe;
use super::rejections::{key_parts, no_key};
use super::state::read_state;
use super::{Request, Run, Silent, Start, delivery_spec, plan, run_values};
use crate::error::{Error, ErrorCode};
use crate::mapping::Mapper;
use crate::project::{Project, SyncSpec};
use crate::store::Store;
use crate::suggestion;

/// Which row, and what is to be done with it.
#[derive(Debug, Clone)]
pub struct TestRow {
    /// Its key: one text per column, or one canonical text.
    pub key: Vec<String>,
    /// As what it is sent.
    pub operation: Operation,
    /// Columns with other values, as canonical texts.
    pub sets: Vec<(String, String)>,
    /// Whether it leaves.
    pub send: bool,
}

/// The exact request for one row, and with `send` what came back.
///
/// # Errors
/// `USAGE` when the sync does not send such rows, or neither model nor snapshot has the key.
pub async fn test_row(
    project: &Project,
    sync: &Arc<SyncSpec>,
    store: &Store,
    asked: &TestRow,
) -> Result<Trial, Error> {
    let run = Run::new(project, sync, store, Request::default(), &Silent, Cancel::default())?;
    let operation = asked.operation;
    if !plan::sent_operations(sync.mode, sync.on_removed, Start::Incremental).contains(&operation) {
        let message =
            format!("sync `{}` (mode `{}`) sends no {} rows", sync.slug, sync.mode.name(), operation.name());
        return Err(Error::new(ErrorCode::Usage, message).hint(format!(
            "`levin connectors {}` lists modes and `on_removed`",
            sync.destination.connector.name
        )));
    }
    let mut session = run.session("test-row").await?;
    let state = read_state(session.as_mut(), &run).await?;
    let described = describe(session.as_mut(), &run, None).await?;
    let definition = &described.definition;
    let shape = definition.shape();
    let key = match asked.key.as_slice() {
        [canonical] => key_parts(canonical, &definition.keys)?,
        parts if parts.len() == definition.keys.len() => parts.to_vec(),
        parts => {
            let names: Vec<&str> = definition.keys.iter().map(|key| key.name.as_str()).collect();
            let message = format!("{} values were given for the key {}", parts.len(), names.join(", "));
            return Err(
                Error::new(ErrorCode::Usage, message).hint("give `--key` once per column, in this order")
            );
        }
    };
    for (name, _) in &asked.sets {
        let columns: Vec<&str> =
            definition.keys.iter().chain(&definition.columns).map(|column| column.name.as_str()).collect();
        if !columns.contains(&name.as_str()) {
            let message = format!("sync `{}` sends nothing of a column `{name}`", sync.slug);
            return Err(
                Error::new(ErrorCode::Usage, message).hint(suggestion::hint(name, &columns, "columns"))
            );
        }
    }
    // What another shape of the model left cannot be compared with.
    let known = state.as_ref().is_some_and(|s| s.definition.as_ref().is_some_and(|d| d.shape() == shape));
    let generation = state.as_ref().map_or(0, |s| s.generation);
    let previous = if operation == Operation::Changed { described.needed.previous.as_slice() } else { &[] };
    // A version of its own: no receiver may take the row for a delivery of a run.
    let version = format!("test.{}", uuid::Uuid::new_v4().simple());
    let scope = SyncScope { tables: &run.tables, shape: &shape, model: &described.model };
    // What is removed is what the destination last accepted; what never was, is tried as the model has it.
    let places: &[bool] = if operation == Operation::Removed && known { &[true, false] } else { &[false] };
    let mut found = None;
    for from_snapshot in places {
        let facts = TestRowFacts {
            key: &key,
            sets: &asked.sets,
            previous,
            version: &version,
            known: known && !from_snapshot && operation == Operation::Changed,
            from_snapshot: *from_snapshot,
        };
        let look =
            script(run.dialect(), Atomicity::Rehearsal, &[Statement::TestRow { scope, facts: &facts }])?;
        let effect = session.execute(&look).await.map_err(|e| {
            no_key(&e, &definition.keys).unwrap_or_else(|| super::model_trouble(&sync.model, e))
        })?;
        let batches: Vec<_> =
            effect.result("look at the row").iter().filter(|b| b.num_rows() > 0).cloned().collect();
        if let Some(first) = batches.first() {
            if batches.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>() > 1 {
                let message =
                    format!("model `{}` returns the key {} more than once", sync.model.slug, shown(asked));
                return Err(Error::new(ErrorCode::DuplicatePrimaryKey, message));
            }
            found = Some(first.clone());
            break;
        }
    }
    drop(session);
    let Some(row) = found else {
        let message = format!("model `{}` returns no row with the key {}", sync.model.slug, shown(asked));
        return Err(Error::new(ErrorCode::Usage, message).hint(format!(
            "`levin preview {}` shows rows; a key is written as `levin plan` shows it",
            sync.model.slug
        )));
    };
    let mut mapper = Mapper::new(sync, &shape, &described.needed.previous, run_values(&run, generation))?;
    let spec = delivery_spec(sync, &mapper);
    let destination = &sync.destination.destination;
    destination.validate(&spec)?;
    let mapped = mapper.map(operation, true, &row)?;
    if let Some((_, _, why)) = mapped.rejected.into_iter().next() {
        let outcome = connectors::outcome::RowOutcome::Rejected(why);
        let delivered =
            connectors::outcome::Delivered { calls: 0, ..connectors::outcome::Delivered::all(outcome, 1) };
        return Ok(Trial { request: String::new(), delivered: Some(delivered) });
    }
    let facts = RunFacts {
        run_id: 0,
        generation,
        started_at: run.started_at,
        planned: [(operation, 1)].into_iter().collect(),
    };
    Ok(destination.try_row(&spec, &facts, &mapped.batch, asked.send).await?)
}

fn shown(asked: &TestRow) -> String {
    asked.key.iter().map(|part| format!("`{part}`")).collect::<Vec<_>>().join(", ")
}
