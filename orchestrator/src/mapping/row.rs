//! One row on its way through the mappings that compute something.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, StringArray};
use arrow::datatypes::DataType;
use connectors::change::Operation;
use connectors::json::BoundRows;
use connectors::outcome::Rejection;
use minijinja::value::{Enumerator, Object, Value};
use sql_templates::LogicalType;

use super::source::Source;
use super::template::{Compiled, is_finite, template_message};
use super::{Mapper, failed};
use crate::project::{MappingValue, Variable};

/// A row, and all that a mapping may ask about it.
pub(super) struct RowContext<'a> {
    pub(super) mapper: &'a Mapper,
    pub(super) operation: Operation,
    pub(super) source: &'a Source,
    pub(super) bound: &'a BoundRows<'a>,
    pub(super) versions: &'a StringArray,
    pub(super) changed: &'a dyn Fn(usize) -> Vec<String>,
    pub(super) templates: &'a HashMap<&'a str, Compiled<'a>>,
    pub(super) row: usize,
}

impl RowContext<'_> {
    pub(super) fn write_json(&self, value: &MappingValue, out: &mut Vec<u8>) -> Result<(), Rejection> {
        match value {
            MappingValue::Column(name) => {
                let at = self.source.row.get(name).copied().ok_or_else(|| failed("a column is missing"))?;
                self.source.encoder.encode_value(self.bound, at, self.row, out)
            }
            MappingValue::Template(text) => {
                let value = self.evaluate(text)?;
                if !is_finite(&value) {
                    return Err(Rejection::new(
                        Rejection::UNREPRESENTABLE_VALUE,
                        "a template computes NaN or an infinity, which JSON cannot hold",
                    ));
                }
                serde_json::to_writer(out, &value).map_err(|e| failed(&format!("its result is no JSON: {e}")))
            }
            MappingValue::Constant(value) => {
                serde_json::to_writer(out, value).map_err(|e| failed(&format!("a constant is no JSON: {e}")))
            }
            MappingValue::Variable(variable) => {
                let value = match variable {
                    Variable::RunId => Value::from(self.mapper.run.run_id),
                    Variable::SyncId => Value::from(self.mapper.sync_id),
                    Variable::Generation => Value::from(self.mapper.run.generation),
                    _ => Value::from(self.variable_text(*variable)),
                };
                serde_json::to_writer(out, &value).map_err(|e| failed(&e.to_string()))
            }
            MappingValue::Object(fields) => {
                out.push(b'{');
                for (at, field) in fields.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    serde_json::to_writer(&mut *out, &field.to).map_err(|e| failed(&e.to_string()))?;
                    out.push(b':');
                    self.write_json(&field.value, out)?;
                }
                out.push(b'}');
                Ok(())
            }
            MappingValue::Array(values) => {
                out.push(b'[');
                for (at, value) in values.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    self.write_json(value, out)?;
                }
                out.push(b']');
                Ok(())
            }
        }
    }

    /// The bare text of a value that is always text; `false` for null.
    pub(super) fn write_text(&self, value: &MappingValue, out: &mut Vec<u8>) -> Result<bool, Rejection> {
        match value {
            MappingValue::Template(text) => {
                let value = self.evaluate(text)?;
                if value.is_none() || value.is_undefined() {
                    return Ok(false);
                }
                out.extend_from_slice(value.to_string().as_bytes());
                Ok(true)
            }
            MappingValue::Constant(serde_json::Value::String(text)) => {
                out.extend_from_slice(text.as_bytes());
                Ok(true)
            }
            MappingValue::Constant(serde_json::Value::Null) => Ok(false),
            MappingValue::Constant(other) => {
                out.extend_from_slice(other.to_string().as_bytes());
                Ok(true)
            }
            MappingValue::Variable(variable) => {
                out.extend_from_slice(self.variable_text(*variable).as_bytes());
                Ok(true)
            }
            MappingValue::Column(_) | MappingValue::Object(_) | MappingValue::Array(_) => {
                self.write_json(value, out).map(|()| true)
            }
        }
    }

    fn variable_text(&self, variable: Variable) -> String {
        let mapper = self.mapper;
        match variable {
            Variable::RunId => mapper.run.run_id.to_string(),
            Variable::SyncId => mapper.sync_id.to_string(),
            Variable::SyncSlug => mapper.sync_slug.clone(),
            Variable::ModelSlug => mapper.model_slug.clone(),
            Variable::Operation => mapper.mode.word(self.operation).to_owned(),
            Variable::RowVersion => self.versions.value(self.row).to_owned(),
            Variable::Generation => mapper.run.generation.to_string(),
            Variable::RunStartedAt => mapper.run.run_started_at.clone(),
        }
    }

    fn evaluate(&self, text: &str) -> Result<Value, Rejection> {
        let mapper = self.mapper;
        let context = minijinja::context! {
            row => Value::from_object(self.values(&self.source.row)?),
            previous => Value::from_object(self.values(&self.source.previous)?),
            changed => (self.changed)(self.row),
            run_id => mapper.run.run_id,
            sync_id => mapper.sync_id,
            sync_slug => mapper.sync_slug.as_str(),
            model_slug => mapper.model_slug.as_str(),
            operation => mapper.mode.word(self.operation),
            row_version => self.versions.value(self.row),
            generation => mapper.run.generation,
            run_started_at => mapper.run.run_started_at.as_str(),
        };
        let result = match self.templates.get(text) {
            Some(Compiled::Expression(expression)) => expression.eval(context),
            Some(Compiled::Text(template)) => {
                connectors::template::render(template, &context).map(Value::from)
            }
            None => return Err(failed("it was not prepared")),
        };
        result.map_err(|e| failed(&template_message(&e)))
    }

    fn values(&self, names: &HashMap<String, usize>) -> Result<RowValues, Rejection> {
        let mut values = HashMap::with_capacity(names.len());
        let mut out = Vec::new();
        for (name, at) in names {
            out.clear();
            let column = self.source.column(*at);
            let value = if column.is_null(self.row) {
                Value::from(())
            } else {
                match (self.source.logical(*at), column.data_type()) {
                    (LogicalType::Boolean, DataType::Boolean) => {
                        Value::from(column.as_boolean().value(self.row))
                    }
                    (LogicalType::Json, _) => {
                        self.source.encoder.encode_value(self.bound, *at, self.row, &mut out)?;
                        serde_json::from_slice::<Value>(&out).map_err(|e| failed(&e.to_string()))?
                    }
                    (logical, _) => {
                        self.source.encoder.encode_text(self.bound, *at, self.row, &mut out)?;
                        let text = String::from_utf8_lossy(&out);
                        match logical {
                            LogicalType::Integer => {
                                text.parse::<i128>().map_or_else(|_| Value::from(text.as_ref()), Value::from)
                            }
                            LogicalType::Float => {
                                text.parse::<f64>().map_or_else(|_| Value::from(text.as_ref()), Value::from)
                            }
                            _ => Value::from(text.as_ref()),
                        }
                    }
                }
            };
            values.insert(name.clone(), value);
        }
        Ok(RowValues { values })
    }
}

/// A row as templates see it: unknown names are errors, nulls are none.
#[derive(Debug)]
struct RowValues {
    values: HashMap<String, Value>,
}

impl Object for RowValues {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.values.get(key.as_str()?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let mut names: Vec<&String> = self.values.keys().collect();
        names.sort();
        Enumerator::Values(names.into_iter().map(|n| Value::from(n.as_str())).collect())
    }
}
