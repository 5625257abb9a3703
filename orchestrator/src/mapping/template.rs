//! Templates of mappings: what they may do, and what their results are.

use std::sync::Arc;

use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, ErrorKind, UndefinedBehavior};
use sql_templates::LogicalType;

use crate::project::{MappingValue, Variable};

/// A template, made ready: one expression, whose result keeps its type, or text.
pub(super) enum Compiled<'a> {
    Expression(minijinja::Expression<'a, 'a>),
    Text(minijinja::Template<'a, 'a>),
}

/// Filters of text that give null for null; the engine's own would print the word.
const NULL_PROPAGATING: &[&str] = &[
    "upper",
    "lower",
    "title",
    "capitalize",
    "trim",
    "replace",
    "length",
    "int",
    "float",
    "round",
    "abs",
    "string",
    "split",
];

/// The most steps that a template takes for one value of one row.
const STEPS: u64 = 1_000_000;

/// The environment of mapping templates.
pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(STEPS));
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_formatter(|out, state, value| {
        if value.is_none() { Ok(()) } else { minijinja::escape_formatter(out, state, value) }
    });
    let plain = Arc::new(Environment::new());
    for name in NULL_PROPAGATING {
        let plain = plain.clone();
        environment.add_filter(*name, move |value: Value, rest: minijinja::value::Rest<Value>| {
            if value.is_none() {
                return Ok(value);
            }
            let mut arguments = vec![value];
            arguments.extend(rest.iter().cloned());
            plain.empty_state().apply_filter(name, &arguments)
        });
    }
    environment
}

/// The inside of a template that is one expression and nothing else.
pub(super) fn single_expression(text: &str) -> Option<&str> {
    let inner = text.trim().strip_prefix("{{")?.strip_suffix("}}")?;
    (!inner.contains("{{") && !inner.contains("}}") && !inner.contains("{%")).then_some(inner.trim())
}

/// The column of a mapping that only names one.
pub(super) fn plain_column(value: &MappingValue) -> Option<String> {
    match value {
        MappingValue::Column(name) => Some(name.clone()),
        MappingValue::Template(text) => {
            let name = single_expression(text)?.strip_prefix("row.")?;
            name.chars().all(|c| c.is_alphanumeric() || c == '_').then(|| name.to_owned())
        }
        _ => None,
    }
}

/// The logical type of a computed field, the same for every row: text where the mapping can give
/// nothing else, a whole number for numbers of the run, JSON for whatever a value may turn out to be.
pub(super) fn computed_type(value: &MappingValue) -> LogicalType {
    const TEXT_FILTERS: &[&str] = &[
        "upper",
        "lower",
        "title",
        "capitalize",
        "trim",
        "replace",
        "string",
        "join",
        "format",
        "tojson",
        "urlencode",
    ];
    match value {
        MappingValue::Template(text) => match single_expression(text) {
            None => LogicalType::Text,
            Some(inner) => {
                let last = inner.rsplit('|').next().unwrap_or_default().trim();
                let filter = last.split('(').next().unwrap_or_default().trim();
                let text = inner.contains('|') && TEXT_FILTERS.contains(&filter);
                if text { LogicalType::Text } else { LogicalType::Json }
            }
        },
        MappingValue::Constant(serde_json::Value::String(_)) => LogicalType::Text,
        MappingValue::Variable(Variable::RunId | Variable::SyncId | Variable::Generation) => {
            LogicalType::Integer
        }
        MappingValue::Variable(Variable::RunStartedAt) => LogicalType::Text,
        MappingValue::Variable(_) => LogicalType::Text,
        MappingValue::Constant(_)
        | MappingValue::Column(_)
        | MappingValue::Object(_)
        | MappingValue::Array(_) => LogicalType::Json,
    }
}

/// Whether no number in it is NaN or an infinity, which JSON would turn into null unasked.
pub(super) fn is_finite(value: &Value) -> bool {
    match value.kind() {
        ValueKind::Number => f64::try_from(value.clone()).is_ok_and(f64::is_finite) || value.is_integer(),
        ValueKind::Map => value
            .try_iter()
            .is_ok_and(|mut keys| keys.all(|key| value.get_item(&key).is_ok_and(|item| is_finite(&item)))),
        ValueKind::String | ValueKind::Bytes => true,
        _ => value.try_iter().into_iter().flatten().all(|item| is_finite(&item)),
    }
}

pub(super) fn template_message(error: &minijinja::Error) -> String {
    match error.kind() {
        ErrorKind::UndefinedError => format!("it uses a name that is not there: {error}"),
        ErrorKind::OutOfFuel => "it takes too many steps; shorten its loops".to_owned(),
        _ => error.to_string(),
    }
}
