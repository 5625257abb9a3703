//! Rows on their way into a table: as one text of JSON, the parameter of an insert.

use std::sync::Arc;

use arrow::array::RecordBatch;
use serde_json::json;
use sql_templates::TableRef;

use super::work::Work;
use super::{Asked, DatabricksSession};
use crate::json::{JsonOptions, NonFinite, Nulls, RowEncoder};
use crate::warehouse::{ErrorKind, WarehouseError};

/// The most bytes of rows in one insert. A request may have sixteen megabytes.
const BYTES: usize = 4 << 20;

/// Appends rows; all or none. They are few: rows that were not accepted.
pub(super) async fn load(
    session: &DatabricksSession,
    table: &TableRef,
    batches: &[RecordBatch],
    work: &Arc<Work>,
) -> Result<u64, WarehouseError> {
    let texts = texts(batches)?;
    let Some(first) = batches.first().filter(|_| !texts.is_empty()) else { return Ok(0) };
    let target = format!("{}.{}", quoted(table.schema.name()), quoted(table.name.name()));
    let described = session.columns(&format!("select * from {target}"), work).await?;
    let (mut names, mut kinds) = (Vec::new(), Vec::new());
    for field in first.schema().fields() {
        let Some((name, kind)) = described.iter().find(|(name, _)| name.eq_ignore_ascii_case(field.name()))
        else {
            let message = format!("table {target} has no column {:?}", field.name());
            return Err(WarehouseError::new(ErrorKind::NotFound, message));
        };
        if !kind.chars().all(|c| c.is_ascii_alphanumeric() || "_(), ".contains(c))
            || field.name().contains('\'')
        {
            let message = format!("rows cannot be loaded into column {name:?} of type {kind}");
            return Err(WarehouseError::new(ErrorKind::Unsupported, message));
        }
        names.push(quoted(name));
        kinds.push(format!("{}: {kind}", quoted(field.name())));
    }
    let values: Vec<String> =
        first.schema().fields().iter().map(|f| format!("r.{}", quoted(f.name()))).collect();
    let names = names.join(", ");
    let insert = |into: &str| {
        format!(
            "insert into {into} ({names}) select {} from (select explode(from_json(:rows, 'array<struct<{}>>')) as r)",
            values.join(", "),
            kinds.join(", ")
        )
    };
    if let [text] = texts.as_slice() {
        return put(session, &insert(&target), text, work).await;
    }
    // Several inserts, and then all of their rows at once.
    let aside =
        format!("{}.{}", quoted(table.schema.name()), quoted(&format!("{}_aside", table.name.name())));
    let run = async |text: &str| session.run(text, &Asked::WRITE, work).await;
    run(&format!("create or replace table {aside} as select {names} from {target} where 1 = 0")).await?;
    let filled = async {
        for text in &texts {
            put(session, &insert(&aside), text, work).await?;
        }
        run(&format!("insert into {target} ({names}) select {names} from {aside}")).await
    };
    let filled = filled.await;
    let dropped = run(&format!("drop table if exists {aside}")).await;
    let rows = filled?.affected();
    if let Err(error) = dropped {
        tracing::debug!(%error, "a table of rows on their way was left behind");
    }
    rows.ok_or_else(unsaid)
}

async fn put(
    session: &DatabricksSession,
    insert: &str,
    text: &str,
    work: &Arc<Work>,
) -> Result<u64, WarehouseError> {
    let parameters = json!([{"name": "rows", "value": text, "type": "STRING"}]);
    let asked = Asked { parameters: Some(&parameters), ..Asked::WRITE };
    session.run(insert, &asked, work).await?.affected().ok_or_else(unsaid)
}

fn unsaid() -> WarehouseError {
    WarehouseError::new(ErrorKind::Other, "Databricks does not say how many rows it took")
}

fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// The rows as lists of objects, each of which fits into a request.
fn texts(batches: &[RecordBatch]) -> Result<Vec<String>, WarehouseError> {
    let unsupported = |e: crate::json::UnsupportedColumn| {
        WarehouseError::new(ErrorKind::Unsupported, format!("rows cannot be loaded: {e}"))
    };
    let options = JsonOptions { non_finite: NonFinite::String, nulls: Nulls::Omit, ..JsonOptions::default() };
    let mut texts = Vec::new();
    let mut text = Vec::new();
    for batch in batches {
        if batch.schema().fields() != batches[0].schema().fields() {
            let message = "batches of one load must have the same columns";
            return Err(WarehouseError::new(ErrorKind::Invalid, message));
        }
        let encoder = RowEncoder::new(&batch.schema(), options).map_err(unsupported)?;
        let bound = encoder.bind(batch).map_err(unsupported)?;
        for row in 0..bound.len() {
            text.push(if text.is_empty() { b'[' } else { b',' });
            encoder
                .encode_row(&bound, row, &mut text)
                .map_err(|rejected| WarehouseError::new(ErrorKind::Data, rejected.reason))?;
            if text.len() >= BYTES {
                close(&mut text, &mut texts);
            }
        }
    }
    if !text.is_empty() {
        close(&mut text, &mut texts);
    }
    Ok(texts)
}

fn close(text: &mut Vec<u8>, texts: &mut Vec<String>) {
    text.push(b']');
    // JSON is text.
    texts.push(String::from_utf8_lossy(&std::mem::take(text)).into_owned());
}
