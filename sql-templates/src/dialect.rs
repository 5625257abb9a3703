//! The dialects and the facts in which they differ.

use std::sync::OnceLock;

use serde::Deserialize;

use crate::column::LogicalType;

/// One SQL dialect. Its folder holds `dialect.toml` (facts), `exprs.sql` (macros) and the blocks
/// that it replaces; what it does not hold comes from its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Google BigQuery.
    Bigquery,
    /// Databricks SQL, over Unity Catalog.
    Databricks,
    /// DuckDB 1.5.
    Duckdb,
    /// MariaDB 10.6 and later.
    Mariadb,
    /// PostgreSQL 14 and later.
    Postgres,
    /// Amazon Redshift.
    Redshift,
    /// Snowflake.
    Snowflake,
}

/// What `dialect.toml` says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// The folder from which everything comes that this dialect does not define.
    pub extends: String,
    /// The most columns a table can have; `None` when there is no such limit.
    pub max_columns: Option<usize>,
    /// The most bytes that a primary key can have, because the snapshot's index holds no more;
    /// `None` when there is no such limit.
    pub max_key_bytes: Option<u64>,
    /// The column by which the engine numbers the rows of every table, without storing it. A table
    /// whose rows have it is written once and read until it is dropped.
    pub row_ids: Option<String>,
    /// Comparing hashes of whole rows first is cheaper than carrying both sides' values through the join.
    #[serde(default)]
    pub hashes_first: bool,
    /// A table that a transaction makes, changes or drops is as it was when the transaction is undone. Where it
    /// is not, such statements end the transaction that they stand in, and stand apart.
    #[serde(default = "yes")]
    pub undoes_ddl: bool,
    /// Whoever wants to write a row that a transaction has written waits for the transaction's end. Where nobody does,
    /// the one that ends first undoes the other.
    #[serde(default = "yes")]
    pub holds_rows: bool,
    /// A whole row can be one value, which the macro `pack` makes.
    #[serde(default = "yes")]
    pub packs_rows: bool,
    /// Inside a subquery, a field of a column comes before a column of a row outside whose name is that of the column.
    #[serde(default)]
    pub fields_first: bool,
    /// Changing a row where it stands is cheaper than taking it out and putting it in again.
    #[serde(default)]
    pub updates_in_place: bool,
    /// The most bytes a name can have.
    pub max_identifier_bytes: usize,
    /// The character around a quoted name; doubled inside one.
    pub identifier_quote: char,
    /// Where the engine's quotes and comments begin and end.
    #[serde(default)]
    pub lexing: Lexing,
    /// How the engine writes unquoted names, for messages.
    pub folds_to: Folding,
    /// Engine types and what they are on the wire. The first entry whose pattern matches wins;
    /// a pattern is the type's name without what stands in parentheses, or one of the forms below.
    pub types: Vec<TypeFact>,
}

/// Where quotes and comments begin and end; without further words, as in PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(clippy::struct_excessive_bools, reason = "each is a rule of its own")]
pub struct Lexing {
    /// A backslash inside `'…'` and `"…"` takes the next character's meaning away.
    pub backslashes: bool,
    /// Names may stand between backticks.
    pub backticks: bool,
    /// `#` begins a comment.
    pub hash_comments: bool,
    /// `--` begins a comment only before white space.
    pub spaced_dashes: bool,
    /// What stands in `/*! … */` is no comment.
    pub versioned_comments: bool,
    /// `$tag$ … $tag$` is a text.
    pub dollar_quotes: bool,
    /// All of it, and escapes in names too, is as GoogleSQL has it (googlesql.rs).
    pub googlesql: bool,
    /// With `dollar_quotes`: a dollar before a name makes a variable, and only `$$` quotes.
    pub dollar_names: bool,
    /// `//` begins a comment, as `--` does.
    pub slash_comments: bool,
    /// A backslash at a line's end lets a `--` comment go on, and in `r'…'` it is a backslash.
    pub spark: bool,
}

impl Default for Lexing {
    fn default() -> Self {
        Self {
            backslashes: false,
            backticks: false,
            hash_comments: false,
            spaced_dashes: false,
            versioned_comments: false,
            dollar_quotes: true,
            googlesql: false,
            dollar_names: false,
            slash_comments: false,
            spark: false,
        }
    }
}

fn yes() -> bool {
    true
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
    /// The engine's names of the type, lower case; `*[]` matches every list, `x*` what begins with `x`,
    /// `x(*,0)` an `x` without digits after its point.
    pub engine: Vec<String>,
    /// What its values are on the wire.
    pub logical: LogicalType,
    /// The macro that turns a value into what Arrow carries; none when the driver carries it as it is.
    #[serde(default)]
    pub wire: Option<String>,
    /// The type in which keys of these types are compared with the one in their middle; none where a large diff is not
    /// computed in two halves.
    #[serde(default)]
    pub middle: Option<String>,
    /// The macro that turns a value into what the engine can compare; none when it compares it as it is.
    #[serde(default)]
    pub comparable: Option<String>,
    /// The macro that turns a value into a text that differs when the value does; none where a cast to text does that.
    #[serde(default)]
    pub as_text: Option<String>,
    /// The macro that gives keys one text when they are equal; none when equal values have only one. A
    /// decimal with modifiers, `numeric(18,2)`, has only one of itself.
    #[serde(default)]
    pub one_text: Option<String>,
    /// Whether it can be part of a primary key.
    #[serde(default)]
    pub key: bool,
}

impl Dialect {
    /// Every dialect.
    pub const ALL: [Self; 7] = [
        Self::Bigquery,
        Self::Databricks,
        Self::Duckdb,
        Self::Mariadb,
        Self::Postgres,
        Self::Redshift,
        Self::Snowflake,
    ];

    /// The folder's name, which is the word in `type:`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bigquery => "bigquery",
            Self::Databricks => "databricks",
            Self::Duckdb => "duckdb",
            Self::Mariadb => "mariadb",
            Self::Postgres => "postgres",
            Self::Redshift => "redshift",
            Self::Snowflake => "snowflake",
        }
    }

    /// The facts of the dialect's folder.
    pub fn facts(self) -> &'static Facts {
        static BIGQUERY: OnceLock<Facts> = OnceLock::new();
        static DATABRICKS: OnceLock<Facts> = OnceLock::new();
        static DUCKDB: OnceLock<Facts> = OnceLock::new();
        static MARIADB: OnceLock<Facts> = OnceLock::new();
        static POSTGRES: OnceLock<Facts> = OnceLock::new();
        static REDSHIFT: OnceLock<Facts> = OnceLock::new();
        static SNOWFLAKE: OnceLock<Facts> = OnceLock::new();
        let (cell, text) = match self {
            Self::Bigquery => (&BIGQUERY, include_str!("../bigquery/dialect.toml")),
            Self::Databricks => (&DATABRICKS, include_str!("../databricks/dialect.toml")),
            Self::Duckdb => (&DUCKDB, include_str!("../duckdb/dialect.toml")),
            Self::Mariadb => (&MARIADB, include_str!("../mariadb/dialect.toml")),
            Self::Postgres => (&POSTGRES, include_str!("../postgres/dialect.toml")),
            Self::Redshift => (&REDSHIFT, include_str!("../redshift/dialect.toml")),
            Self::Snowflake => (&SNOWFLAKE, include_str!("../snowflake/dialect.toml")),
        };
        cell.get_or_init(|| {
            toml::from_str(text).unwrap_or_else(|e| panic!("{}/dialect.toml: {e}", self.name()))
        })
    }

    /// What the engine's type is on the wire; `None` when the dialect does not know the type.
    pub fn type_fact(self, engine_type: &str) -> Option<&'static TypeFact> {
        let name = without_modifiers(engine_type);
        let is_whole = engine_type.trim_end().ends_with(",0)");
        self.facts().types.iter().find(|fact| {
            fact.engine.iter().any(|pattern| match (pattern.as_str(), pattern.strip_suffix('*')) {
                ("*[]", _) => name.ends_with(']'),
                (_, Some(beginning)) => name.starts_with(beginning),
                (exact, None) => match exact.strip_suffix("(*,0)") {
                    Some(numbers) => is_whole && numbers == name,
                    None => exact == name,
                },
            })
        })
    }
}

/// The type's name in lower case, without what stands in parentheses, at the end or in the middle:
/// `timestamp(3) with time zone` is a `timestamp with time zone`, `STRUCT(a INTEGER)[]` a `struct[]`.
fn without_modifiers(engine_type: &str) -> String {
    let mut name = String::new();
    let mut depth = 0_u32;
    let mut quote = None;
    for c in engine_type.chars() {
        match (quote, c) {
            // A doubled quote closes and opens again, which comes to the same.
            (Some(open), _) if open == c => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '(') => depth += 1,
            (None, ')') => {
                depth = depth.saturating_sub(1);
                continue;
            }
            (None, _) => {}
        }
        if depth == 0 {
            name.extend(c.to_lowercase());
        }
    }
    name.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_types_modifier_does_not_hide_the_type() {
        let logical = |dialect: Dialect, name: &str| dialect.type_fact(name).map(|f| f.logical);
        for (name, expected) in [
            ("timestamp(3) with time zone", LogicalType::TimestampTz),
            ("timestamp(0) without time zone", LogicalType::Timestamp),
            ("time(3) without time zone", LogicalType::Time),
            ("time(6) with time zone", LogicalType::Time),
            ("interval", LogicalType::Interval),
            ("interval(3)", LogicalType::Interval),
            ("interval day to second(3)", LogicalType::Interval),
            ("interval year to month", LogicalType::Interval),
            ("character varying(20)", LogicalType::Text),
            ("character(5)", LogicalType::Text),
            ("numeric(18,2)", LogicalType::Decimal),
            ("numeric(18,2)[]", LogicalType::Json),
            ("timestamp(3) with time zone[]", LogicalType::Json),
            ("interval[]", LogicalType::Json),
            ("\"my schema\".\"My Type\"", LogicalType::Text),
            ("\"integer(\"", LogicalType::Text),
            ("\"char\"", LogicalType::Text),
        ] {
            assert_eq!(logical(Dialect::Postgres, name), Some(expected), "{name}");
        }
        for (name, expected) in [
            ("STRUCT(a INTEGER)[]", LogicalType::Json),
            ("STRUCT(\"a)b\" INTEGER, c VARCHAR)", LogicalType::Json),
            ("MAP(VARCHAR, INTEGER)", LogicalType::Json),
            ("UNION(num INTEGER, str VARCHAR)", LogicalType::Json),
            ("INTEGER[3]", LogicalType::Json),
            ("ENUM('a', 'b')", LogicalType::Text),
            ("ENUM('a)', '[b]', 'it''s (')", LogicalType::Text),
            ("DECIMAL(18,3)", LogicalType::Decimal),
            ("DECIMAL(18,3)[]", LogicalType::Json),
            ("TIMESTAMP WITH TIME ZONE", LogicalType::TimestampTz),
            ("TIME", LogicalType::Time),
            ("BIT", LogicalType::Text),
        ] {
            assert_eq!(logical(Dialect::Duckdb, name), Some(expected), "{name}");
        }
        for (name, expected) in [
            ("NUMBER(38,0)", LogicalType::Integer),
            ("NUMBER(10,2)", LogicalType::Decimal),
            ("NUMBER(38,10)", LogicalType::Decimal),
            ("VARCHAR(16777216)", LogicalType::Text),
            ("VARCHAR(20) COLLATE 'en-ci'", LogicalType::Text),
            ("TIMESTAMP_NTZ(9)", LogicalType::Timestamp),
            ("TIMESTAMP_LTZ(3)", LogicalType::TimestampTz),
            ("TIME(9)", LogicalType::Time),
            ("VARIANT", LogicalType::Json),
            ("GEOGRAPHY", LogicalType::Json),
        ] {
            assert_eq!(logical(Dialect::Snowflake, name), Some(expected), "{name}");
        }
        assert!(!Dialect::Snowflake.type_fact("VARCHAR(20) COLLATE 'en-ci'").unwrap().key);
        assert_eq!(logical(Dialect::Duckdb, "GEOMETRY"), None);
        // Whether a value leaves as it is must not depend on the modifier either.
        let fact = Dialect::Postgres.type_fact("timestamp(3) with time zone").unwrap();
        assert_eq!((fact.wire.as_deref(), fact.comparable.as_deref(), fact.key), (None, None, true));
        assert_eq!(
            Dialect::Duckdb.type_fact("ENUM('x')").unwrap().wire.as_deref(),
            Some("text"),
            "an enum leaves as text"
        );
    }
}
