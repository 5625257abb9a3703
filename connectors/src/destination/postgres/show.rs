//! One row as the statements that bring it into its table, for a person to look at.

use super::apply::Plan;
use super::table::{TableName, create_statement, quoted};
use crate::change::ChangeBatch;
use crate::destination::DeliverySpec;
use crate::json::{JsonOptions, RowEncoder};

/// The transaction of a batch, and the values that COPY carries.
pub(super) fn transaction(plan: &Plan, row: &ChangeBatch) -> String {
    let Some(statements) = plan.statements(row.operation) else {
        return format!("-- nothing is done for {} rows\n", row.operation.name());
    };
    let mut out = format!("begin;\n{};\n{};\n", plan.create_stage, statements.copy);
    for origin in &statements.columns {
        let of = if origin.identity { &row.identity } else { &row.fields };
        value(of, origin.index, &mut out);
    }
    out.push_str(&statements.apply.replace("; ", ";\n"));
    out.push_str(";\ncommit;\n");
    out
}

/// What comes first where there is no table yet.
pub(super) fn creation(name: &TableName, sync: &DeliverySpec, row: &ChangeBatch) -> String {
    let mut out = format!("{};\n-- then the row is staged and applied:\n", create_statement(name, sync));
    for column in 0..row.identity.num_columns() {
        value(&row.identity, column, &mut out);
    }
    for (column, field) in row.fields.schema().fields().iter().enumerate() {
        if row.identity.column_by_name(field.name()).is_none() {
            value(&row.fields, column, &mut out);
        }
    }
    out
}

fn value(batch: &arrow::array::RecordBatch, column: usize, out: &mut String) {
    let schema = batch.schema();
    let name = schema.field(column).name();
    let mut text = Vec::new();
    let written = RowEncoder::new(&schema, JsonOptions::for_people())
        .and_then(|encoder| {
            let bound = encoder.bind(batch)?;
            Ok(encoder.encode_value(&bound, column, 0, &mut text).is_ok())
        })
        .unwrap_or(false);
    let shown = if written { String::from_utf8_lossy(&text).into_owned() } else { "?".to_owned() };
    out.push_str(&format!("--   {} = {shown}\n", quoted(name)));
}
