//! Columns as BigQuery describes them, and the names of their types.

use serde::Deserialize;
use sql_templates::{Column, Dialect};

use crate::warehouse::{ErrorKind, WarehouseError};

/// The columns of a result.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Fields {
    #[serde(default)]
    pub fields: Vec<Field>,
}

/// A column, or a part of one.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Field {
    pub name: String,
    /// In the names of the interface, which for some types are those of the old SQL.
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    mode: Option<String>,
    #[serde(default)]
    fields: Vec<Field>,
    #[serde(default)]
    precision: Option<String>,
    #[serde(default)]
    scale: Option<String>,
    #[serde(default)]
    max_length: Option<String>,
    #[serde(default)]
    range_element_type: Option<RangeElement>,
}

#[derive(Debug, Clone, Deserialize)]
struct RangeElement {
    #[serde(rename = "type")]
    kind: String,
}

impl Field {
    /// A column of one of the simple types.
    #[cfg(test)]
    pub(super) fn simple(name: &str, kind: &str) -> Self {
        serde_json::from_value(serde_json::json!({"name": name, "type": kind})).unwrap()
    }

    /// A column of lists.
    pub(super) fn is_list(&self) -> bool {
        self.mode.as_deref() == Some("REPEATED")
    }

    /// The type as GoogleSQL writes it, in lower case: `numeric(10, 2)`, `array<struct<a int64>>`.
    pub(super) fn engine_type(&self) -> String {
        let one = match self.kind.as_str() {
            "INTEGER" => "int64".to_owned(),
            "FLOAT" => "float64".to_owned(),
            "BOOLEAN" => "bool".to_owned(),
            "RECORD" | "STRUCT" => {
                let parts: Vec<String> =
                    self.fields.iter().map(|f| format!("{} {}", quoted(&f.name), f.engine_type())).collect();
                format!("struct<{}>", parts.join(", "))
            }
            "RANGE" => {
                let element = self.range_element_type.as_ref().map_or("date", |e| e.kind.as_str());
                format!("range<{}>", element.to_lowercase())
            }
            simple => {
                let name = simple.to_lowercase();
                match (&self.precision, &self.scale, &self.max_length) {
                    (Some(precision), Some(scale), _) => format!("{name}({precision}, {scale})"),
                    (Some(length), None, _) | (None, None, Some(length)) => format!("{name}({length})"),
                    _ => name,
                }
            }
        };
        if self.is_list() { format!("array<{one}>") } else { one }
    }

    /// As the rest of levin knows columns.
    pub(super) fn column(&self) -> Result<Column, WarehouseError> {
        let engine_type = self.engine_type();
        let Some(fact) = Dialect::Bigquery.type_fact(&engine_type) else {
            let message =
                format!("column {:?} is of type {engine_type}, which levin cannot carry", self.name);
            return Err(WarehouseError::new(ErrorKind::Unsupported, message));
        };
        Ok(Column { name: self.name.clone(), engine_type, logical: fact.logical })
    }
}

/// A name as GoogleSQL takes any.
pub(super) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn types_have_the_names_of_googlesql() {
        for (field, expected) in [
            (json!({"name": "a", "type": "INTEGER", "mode": "NULLABLE"}), "int64"),
            (json!({"name": "a", "type": "FLOAT"}), "float64"),
            (json!({"name": "a", "type": "BOOLEAN", "mode": "REQUIRED"}), "bool"),
            (json!({"name": "a", "type": "NUMERIC", "precision": "10", "scale": "2"}), "numeric(10, 2)"),
            (json!({"name": "a", "type": "NUMERIC", "precision": "10"}), "numeric(10)"),
            (json!({"name": "a", "type": "STRING", "maxLength": "20"}), "string(20)"),
            (json!({"name": "a", "type": "DATETIME"}), "datetime"),
            (
                json!({"name": "a", "type": "RANGE", "rangeElementType": {"type": "DATETIME"}}),
                "range<datetime>",
            ),
            (json!({"name": "a", "type": "STRING", "mode": "REPEATED"}), "array<string>"),
            (
                json!({"name": "a", "type": "RECORD", "mode": "REPEATED", "fields": [
                    {"name": "x", "type": "INTEGER"}, {"name": "y z", "type": "BYTES", "mode": "REPEATED"}]}),
                "array<struct<`x` int64, `y z` array<bytes>>>",
            ),
        ] {
            let read: Field = serde_json::from_value(field).unwrap();
            assert_eq!(read.engine_type(), expected);
        }
    }

    #[test]
    fn a_type_that_nobody_knows_is_refused_by_name() {
        let refused = Field::simple("x", "HOLOGRAM").column().unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Unsupported);
        assert!(refused.message.contains("\"x\"") && refused.message.contains("hologram"), "{refused}");
    }
}
