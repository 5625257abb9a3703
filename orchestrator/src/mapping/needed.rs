//! Which columns of its model a sync needs.

use std::collections::BTreeSet;

use sql_templates::Column;

use super::template::environment;
use crate::error::{Error, ErrorCode};
use crate::project::{MappingValue, Mappings, SyncSpec};

/// Which columns of a model a sync needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needed {
    /// Columns that take part in the diff beside the key, in the model's order.
    pub tracked: Vec<Column>,
    /// Those among them whose previous value a template reads.
    pub previous: Vec<Column>,
}

/// Finds the columns that a sync needs among those that its model returns.
///
/// # Errors
/// `QUERY_COLUMN_MISSING` for a mapped column that the model does not return.
pub fn needed(sync: &SyncSpec, keys: &[String], described: &[Column]) -> Result<Needed, Error> {
    let whole = sync.destination.connector.whole_rows;
    let mut names = References::default();
    if let Mappings::Fields(fields) = &sync.mappings {
        for field in fields {
            names.visit(&field.value)?;
        }
    } else {
        names.every_row_column = true;
    }
    names.row.extend(sync.matching.iter().map(|m| m.from.clone()));
    for name in names.row.iter().chain(&names.previous) {
        if !described.iter().any(|c| &c.name == name) {
            return Err(Error::new(
                ErrorCode::QueryColumnMissing,
                format!(
                    "sync `{}` maps the column `{name}`, which model `{}` does not return",
                    sync.slug, sync.model.slug
                ),
            )
            .hint(crate::suggestion::hint(
                name,
                &described.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(),
                "columns",
            )));
        }
    }
    let is_key = |c: &&Column| keys.contains(&c.name);
    let tracked: Vec<Column> = described
        .iter()
        .filter(|c| !is_key(c))
        .filter(|c| {
            whole || names.every_row_column || names.row.contains(&c.name) || names.previous.contains(&c.name)
        })
        .cloned()
        .collect();
    let previous = tracked
        .iter()
        .filter(|c| names.every_previous_column || names.previous.contains(&c.name))
        .cloned()
        .collect();
    Ok(Needed { tracked, previous })
}

/// The columns of its model that a sync names: its key, what it matches by, and what its mappings and templates read.
pub fn referenced(sync: &SyncSpec) -> Vec<String> {
    let mut names = References::default();
    names.row.extend(sync.model.primary_key.iter().cloned());
    names.row.extend(sync.matching.iter().map(|field| field.from.clone()));
    if let Mappings::Fields(fields) = &sync.mappings {
        for field in fields {
            // A template that cannot be read was refused when the project was.
            let _ = names.visit(&field.value);
        }
    }
    names.row.union(&names.previous).cloned().collect()
}

/// The columns that mappings name.
#[derive(Debug, Default)]
pub(super) struct References {
    pub(super) row: BTreeSet<String>,
    pub(super) previous: BTreeSet<String>,
    pub(super) every_row_column: bool,
    pub(super) every_previous_column: bool,
}

impl References {
    pub(super) fn visit(&mut self, value: &MappingValue) -> Result<(), Error> {
        match value {
            MappingValue::Column(name) => {
                self.row.insert(name.clone());
            }
            MappingValue::Template(text) => {
                let environment = environment();
                let template = connectors::template::read(&environment, text).map_err(|e| {
                    Error::new(
                        ErrorCode::ProjectInvalid,
                        format!("the template `{text}` cannot be read: {e:#}"),
                    )
                })?;
                for name in template.undeclared_variables(true) {
                    match name.split_once('.') {
                        Some(("row", column)) => {
                            self.row.insert(column.split('.').next().unwrap_or(column).to_owned());
                        }
                        Some(("previous", column)) => {
                            self.previous.insert(column.split('.').next().unwrap_or(column).to_owned());
                        }
                        None if name == "row" => self.every_row_column = true,
                        None if name == "previous" => self.every_previous_column = true,
                        _ => {}
                    }
                }
                // A bare `row` beside `row.x` is reported as `row.x` only: dynamic access is told by its bracket.
                self.every_row_column |= text.contains("row[");
                self.every_previous_column |= text.contains("previous[");
                self.every_row_column |= self.every_previous_column;
            }
            MappingValue::Constant(_) | MappingValue::Variable(_) => {}
            MappingValue::Object(fields) => {
                for field in fields {
                    self.visit(&field.value)?;
                }
            }
            MappingValue::Array(values) => {
                for value in values {
                    self.visit(value)?;
                }
            }
        }
        Ok(())
    }
}
