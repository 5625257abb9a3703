//! BigQuery through the same suite: what its double cannot run.

use std::panic::AssertUnwindSafe;

use futures::FutureExt;

/// Tests that the double cannot run, and why. Each is run all the same, and must fail: one that passes needs no line here.
const WAIVED: &[(&str, &str)] = &[
    (
        "names_of_any_kind_are_columns",
        "BigQuery has no datasets, tables and columns of such names: those of datasets have letters, digits and underscores, and no name has a quote or a dot",
    ),
    (
        "managed_tables_are_found_by_their_exact_prefix",
        "BigQuery has no tables with a percent sign or a backslash in their names",
    ),
];

/// Types that the double has not. What levin makes of their values is known from the driver's decoder alone.
const NO_VALUES: &[(&str, &str)] = &[
    ("geography", "it needs DuckDB's spatial extension, which comes from the network"),
    ("range<date>", "it is a struct of its two ends there, and no type of its own"),
];

/// Whether the double has values of a type.
pub fn has_values(engine_type: &str) -> bool {
    NO_VALUES.iter().all(|(name, _)| *name != engine_type)
}

/// Runs a test; one that is waived must fail.
pub async fn waived_or(test: &str, run: impl Future<Output = ()>) {
    let Some((_, reason)) = WAIVED.iter().find(|(name, _)| *name == test) else { return run.await };
    let ended = AssertUnwindSafe(run).catch_unwind().await;
    assert!(ended.is_err(), "{test} passes: it is waived no longer ({reason})");
}
