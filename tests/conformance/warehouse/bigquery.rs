//! BigQuery through the same suite: how it says what the tests write, and what its double cannot run.

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

/// What tests write in standard SQL, in BigQuery's words: names in backticks, backslashes that begin escapes, `string`
/// for `text`, and a `where` behind every `delete` and `update`.
pub fn spoken(text: &str) -> String {
    let mut words = String::new();
    let mut word = String::new();
    let flush = |word: &mut String, words: &mut String| {
        words.push_str(match word.as_str() {
            "text" | "varchar" => "string",
            other => other,
        });
        word.clear();
    };
    let mut quote = None;
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match (quote, c) {
            // Twice, it stands inside.
            (Some('\''), '\'') if characters.next_if_eq(&'\'').is_some() => words.push_str("\\'"),
            (Some('"'), '"') if characters.next_if_eq(&'"').is_some() => words.push('"'),
            (Some(open), c) if c == open => {
                words.push(if c == '"' { '`' } else { c });
                quote = None;
            }
            (Some('\''), '\\') => words.push_str("\\\\"),
            (Some('\''), '\n') => words.push_str("\\n"),
            (Some(_), c) => words.push(c),
            (None, c) if c.is_alphanumeric() || c == '_' => word.push(c),
            (None, c) => {
                flush(&mut word, &mut words);
                if matches!(c, '\'' | '`' | '"') {
                    quote = Some(c);
                }
                words.push(if c == '"' { '`' } else { c });
            }
        }
    }
    flush(&mut word, &mut words);
    let beginning = words.trim_start().split(' ').next().unwrap_or_default().to_owned();
    if matches!(beginning.as_str(), "delete" | "update") && !words.contains(" where ") {
        words.push_str(" where true");
    }
    words
}
