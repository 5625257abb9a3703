//! What a double cannot run, by name and with the reason. A test that stands here must fail: one that passes needs no
//! waiver any more.

use std::panic::AssertUnwindSafe;

use futures::FutureExt;

/// A test's name, and why its engine's double cannot run it.
pub type Waiver = (&'static str, &'static str);

/// sqlglot turns Databricks' SQL into DuckDB's.
pub const DATABRICKS: &[Waiver] = &[(
    "managed_tables_are_found_by_their_exact_prefix",
    "Unity Catalog keeps the names of tables in lower case, and has none with a percent sign or a backslash",
)];

/// fakesnow turns Snowflake's SQL into DuckDB's, and has DuckDB's types.
pub const SNOWFLAKE: &[Waiver] = &[];

/// PostgreSQL behind a wire that refuses what Redshift refuses, and folds names as Redshift does.
pub const REDSHIFT: &[Waiver] = &[(
    "managed_tables_are_found_by_their_exact_prefix",
    "Redshift has no two tables whose names differ in case alone: names in quotes are folded too",
)];

/// Runs a test as it is, or sees to it that one that is waived fails.
pub async fn held(waivers: &[Waiver], test: &str, run: impl Future<Output = ()>) {
    let Some((_, reason)) = waivers.iter().find(|(name, _)| *name == test) else {
        run.await;
        return;
    };
    assert!(reason.len() > 10, "{test}: a waiver has a reason");
    let failed = AssertUnwindSafe(run).catch_unwind().await.is_err();
    assert!(failed, "{test} passes: it needs no waiver");
}
