//! Every statement in every dialect, as files that a reviewer can read and paste.
//! `UPDATE_GOLDEN=1 cargo test` writes them anew.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cases;
mod joinable;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use cases::cases;
use sql_templates::{Dialect, Expect, Ident, Statement, Step};
use sqlparser::dialect::{
    BigQueryDialect, DatabricksDialect, DuckDbDialect, MySqlDialect, PostgreSqlDialect, RedshiftSqlDialect,
    SnowflakeDialect,
};
use sqlparser::parser::Parser;

fn print(steps: &[Step]) -> String {
    let mut text = String::new();
    for step in steps {
        let expect = match step.expect {
            Expect::Any => "",
            Expect::Rows => " (returns rows)",
            Expect::OneRow => " (exactly one row)",
        };
        let _ = writeln!(text, "-- {}{expect}\n{};\n", step.name, step.sql);
    }
    text
}

fn folder(dialect: Dialect) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(dialect.name())
}

#[test]
fn every_statement_is_rendered_as_its_golden_file_says() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut stale = Vec::new();
    for dialect in Dialect::ALL {
        let folder = folder(dialect);
        std::fs::create_dir_all(&folder).unwrap();
        let mut expected = BTreeSet::new();
        for (name, steps) in cases(dialect) {
            let text = print(&steps);
            // Unquoted they are made and unquoted they are found, whatever an engine folds names to.
            assert!(!text.contains("\"_levin_"), "{name}: a name of levin's own is quoted");
            let file = folder.join(format!("{name}.sql"));
            expected.insert(file.clone());
            if update {
                std::fs::write(&file, &text).unwrap();
            } else if std::fs::read_to_string(&file).unwrap_or_default() != text {
                stale.push(file);
            }
        }
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if !expected.contains(&path) {
                if update {
                    std::fs::remove_file(&path).unwrap();
                } else {
                    stale.push(path);
                }
            }
        }
    }
    assert!(stale.is_empty(), "UPDATE_GOLDEN=1 rewrites what changed on purpose; stale: {stale:#?}");
}

/// The scripts of `deploy/grants`: for the role `levin`, which reads the schema `models` of the database `analytics`.
#[test]
fn the_grant_scripts_that_are_handed_out_are_these() {
    let [planner, audit, role, database, models] =
        ["levin_planner", "levin_audit", "levin", "analytics", "models"]
            .map(|name| Ident::new(name).unwrap());
    let mut stale = Vec::new();
    for dialect in Dialect::ALL {
        let role = match dialect.name() {
            "bigquery" => &Ident::new("levin@my-project.iam.gserviceaccount.com").unwrap(),
            _ => &role,
        };
        for (file, creates) in [("schemas-made-here.sql", false), ("schemas-made-by-levin.sql", true)] {
            let grants = Statement::Grants {
                planner: &planner,
                audit: &audit,
                role,
                database: &database,
                schemas: std::slice::from_ref(&models),
                default_schema: false,
                creates,
            };
            let text = print(&grants.steps(dialect).unwrap());
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/grants").join(dialect.name());
            if text.is_empty() {
                assert!(!path.exists(), "{} needs no grants", dialect.name());
                continue;
            }
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                std::fs::create_dir_all(&path).unwrap();
                std::fs::write(path.join(file), &text).unwrap();
            } else if std::fs::read_to_string(path.join(file)).unwrap_or_default() != text {
                stale.push(path.join(file));
            }
        }
    }
    assert!(stale.is_empty(), "UPDATE_GOLDEN=1 rewrites what changed on purpose; stale: {stale:#?}");
}

/// What `sqlparser` cannot parse although the engines do: a part of the statement, and why.
const UNPARSABLE: &[(&str, &str)] = &[
    ("alter default privileges", "Postgres: sqlparser knows no default privileges"),
    ("grant `roles/", "BigQuery: sqlparser knows no roles of Google Cloud"),
    ("grant create schema on catalog", "Databricks: sqlparser knows no catalogs"),
    ("grant use ", "Databricks: sqlparser knows no right to use a catalog or schema"),
    ("grant usage, create table on", "Snowflake: sqlparser knows the right to create, and not what"),
];

fn grammar(dialect: Dialect) -> Box<dyn sqlparser::dialect::Dialect> {
    match dialect {
        Dialect::Bigquery => Box::new(BigQueryDialect {}),
        Dialect::Databricks => Box::new(DatabricksDialect {}),
        Dialect::Duckdb => Box::new(DuckDbDialect {}),
        Dialect::Mariadb => Box::new(MySqlDialect {}),
        Dialect::Postgres => Box::new(PostgreSqlDialect {}),
        Dialect::Redshift => Box::new(RedshiftSqlDialect {}),
        Dialect::Snowflake => Box::new(SnowflakeDialect {}),
    }
}

/// BigQuery refuses such a statement, and such a join, when it plans it ("LEFT ANTISEMI JOIN cannot be used without a condition that is an
/// equality of fields from both sides of the join"), Snowflake does not know it, Redshift compares each row with each.
#[test]
fn rows_of_two_queries_are_found_by_an_equality() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for dialect in [Dialect::Bigquery, Dialect::Redshift, Dialect::Snowflake] {
        for (name, steps) in cases(dialect) {
            for step in steps {
                let Ok(parsed) = Parser::parse_sql(grammar(dialect).as_ref(), step.sql.text()) else {
                    continue;
                };
                let found = joinable::look(&parsed, dialect == Dialect::Bigquery);
                seen += found.seen;
                wrong.extend(found.wrong.iter().map(|what| format!("{} {name}: {what}", dialect.name())));
            }
        }
    }
    assert!(seen > 200, "only {seen} conditions were found");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_condition_without_an_equality_is_seen() {
    for (sql, wrong) in [
        ("select 1 from a where not exists (select 1 from b where b.x = a.x or b.y = a.y)", 1),
        ("select 1 from a where not exists (select 1 from b where (b.x = a.x or b.y = a.y))", 1),
        ("select 1 from a where exists (select 1 from b where b.x = 1 and a.x > b.x)", 1),
        ("select 1 from a where exists (select 1 from b where b.x = a.x and (b.y = 1 or a.y = 1))", 0),
        ("select 1 from a where exists (select 1 from b where b.x = 1 or b.y = 1)", 0),
        ("select 1 from a left join b on a.x = b.x or a.y = b.y", 1),
        ("select 1 from a full join b on a.x = b.x and a.y > b.y", 0),
        ("select 1 from a join b on a.x > b.x", 0),
    ] {
        let parsed = Parser::parse_sql(&BigQueryDialect {}, sql).unwrap();
        assert_eq!(joinable::look(&parsed, true).wrong.len(), wrong, "{sql}");
    }
}

#[test]
fn every_statement_parses_in_its_dialect() {
    let mut wrong = Vec::new();
    let mut allowed = BTreeSet::new();
    for dialect in Dialect::ALL {
        let grammar = grammar(dialect);
        for (name, steps) in cases(dialect) {
            for step in steps {
                match Parser::parse_sql(grammar.as_ref(), step.sql.text()) {
                    Ok(parsed) if parsed.len() == 1 => {}
                    Ok(parsed) => {
                        wrong.push(format!("{name}: {} are {} statements", step.name, parsed.len()));
                    }
                    Err(e) => match UNPARSABLE.iter().position(|(part, _)| step.sql.text().contains(part)) {
                        Some(reason) => {
                            allowed.insert(reason);
                        }
                        None => {
                            wrong.push(format!(
                                "{} {name}, {}: {e}\n{}",
                                dialect.name(),
                                step.name,
                                step.sql
                            ));
                        }
                    },
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(allowed.len(), UNPARSABLE.len(), "a reason that no statement needs any more");
}
