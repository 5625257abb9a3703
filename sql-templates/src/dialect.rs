//! The dialects and the facts in which they differ.

use std::sync::OnceLock;

use serde::Deserialize;

use crate::column::LogicalType;

/// One SQL dialect. Its folder holds `dialect.toml` (facts), `exprs.sql` (macros) and the blocks
/// that it replaces; what it does not hold comes from its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// DuckDB 1.5.
    Duckdb,
    /// PostgreSQL 14 and later.
    Postgres,
}

/// What `dialect.toml` says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// The folder from which everything comes that this dialect does not define.
    pub extends: String,
    /// The most columns a table can have; `None` when there is no such limit.
    pub max_columns: Option<usize>,
    /// The most bytes a name can have.
    pub max_identifier_bytes: usize,
    /// The character around a quoted name; doubled inside one.
    pub identifier_quote: char,
    /// How the engine writes unquoted names, for messages.
    pub folds_to: Folding,
    /// Engine types and what they are on the wire. The first entry whose pattern matches wins;
    /// a pattern is the type's name before any `(`, or a trailing part such as `[]`.
    pub types: Vec<TypeFact>,
}

/// What an engine does to unquoted names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Folding {
    /// To lower case.
    Lower,
    /// To upper case.
    Upper,
    /// Names keep their case and are compared without it.
    Insensitive,
}

/// One line of a dialect's type map.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TypeFact {
    /// The engine's names of the type, lower case; `*[]` matches every list, `*` everything.
    pub engine: Vec<String>,
    /// What its values are on the wire.
    pub logical: LogicalType,
    /// The macro that turns a value into what Arrow carries; none when the driver carries it as it is.
    #[serde(default)]
    pub wire: Option<String>,
    /// The macro that turns a value into what the engine can compare; none when it compares it as it is.
    #[serde(default)]
    pub comparable: Option<String>,
    /// Whether it can be part of a primary key.
    #[serde(default)]
    pub key: bool,
}

impl Dialect {
    /// Every dialect.
    pub const ALL: [Self; 2] = [Self::Duckdb, Self::Postgres];

    /// The folder's name, which is the word in `type:`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Duckdb => "duckdb",
            Self::Postgres => "postgres",
        }
    }

    /// The facts of the dialect's folder.
    pub fn facts(self) -> &'static Facts {
        static DUCKDB: OnceLock<Facts> = OnceLock::new();
        static POSTGRES: OnceLock<Facts> = OnceLock::new();
        let (cell, text) = match self {
            Self::Duckdb => (&DUCKDB, include_str!("../duckdb/dialect.toml")),
            Self::Postgres => (&POSTGRES, include_str!("../postgres/dialect.toml")),
        };
        cell.get_or_init(|| {
            toml::from_str(text).unwrap_or_else(|e| panic!("{}/dialect.toml: {e}", self.name()))
        })
    }

    /// What the engine's type is on the wire; `None` when the dialect does not know the type.
    pub fn type_fact(self, engine_type: &str) -> Option<&'static TypeFact> {
        let lower = engine_type.to_lowercase();
        let list = lower.ends_with(']');
        let base = lower.split('(').next().unwrap_or(&lower).trim();
        self.facts().types.iter().find(|fact| {
            fact.engine.iter().any(|pattern| match pattern.as_str() {
                "*" => true,
                "*[]" => list,
                exact => !list && (exact == base || exact == lower),
            })
        })
    }
}
