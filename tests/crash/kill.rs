//! Killed at every fail point.

use orchestrator::failpoints::NAMES;

use crate::cases::{Case, Killed, all_hold};
use crate::scene::{Engine, Target, is_long};

/// Points that only a first run passes.
const FIRST: &[&str] = &["deliver.before_establish", "deliver.after_establish"];
/// Points that lie around what was refused or is in doubt.
const REFUSED: &[&str] = &["commit.before_outcomes", "commit.after_outcomes"];
/// Points that are passed once per batch.
const PER_BATCH: &[&str] = &[
    "deliver.before_start_note",
    "store.start",
    "deliver.after_start_note",
    "deliver.after_answer",
    "deliver.before_end_note",
    "store.end",
    "deliver.after_end_note",
];

/// Which run of the scenario passes a point.
fn who_passes(name: &str) -> Killed {
    match name {
        "prepare.after_reshape" => Killed::Reshape,
        name if FIRST.contains(&name) => Killed::First,
        _ => Killed::Incremental,
    }
}

/// Every name, each in the run that passes it; the model moves on after every other crash.
fn every_point(engine: Engine, target: Target) -> Vec<Case> {
    let mut cases = Vec::new();
    for (i, name) in NAMES.iter().enumerate() {
        // A file tells of its rows once, on closing, and refuses none.
        let never = ["deliver.before_end_note", "deliver.after_end_note"];
        if target == Target::Files && (never.contains(name) || REFUSED.contains(name)) {
            continue;
        }
        let mut counts = vec![1];
        if PER_BATCH.contains(name) && target == Target::Http {
            counts.push(4);
        }
        for (j, count) in counts.into_iter().enumerate() {
            let mut case = Case::new(engine, target, who_passes(name), format!("{name}:{count}"));
            case.moves = (i + j) % 2 == 0;
            if is_long() {
                cases.push(Case { moves: !case.moves, ..case.clone() });
            }
            cases.push(case);
        }
    }
    cases
}

#[test]
fn at_every_point_from_duckdb() {
    all_hold(&every_point(Engine::DuckDb, Target::Http));
}

#[test]
fn at_every_point_from_postgres() {
    all_hold(&every_point(Engine::Postgres, Target::Http));
}
