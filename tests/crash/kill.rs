//! Killed at every fail point.

use orchestrator::failpoints::NAMES;

use crate::cases::{Case, Killed, all_hold};
use crate::scene::{Engine, Target, is_long};
use crate::{apart, clearing};

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

/// Points around the transaction that also brings the snapshot into a new shape.
const RESHAPE: &[&str] = &["diff.before", "diff.after"];

/// Which runs of the scenario pass a point.
fn who_pass(name: &str) -> &'static [Killed] {
    match name {
        name if RESHAPE.contains(&name) => &[Killed::Incremental, Killed::Reshape],
        name if FIRST.contains(&name) => &[Killed::First],
        _ => &[Killed::Incremental],
    }
}

/// Every name, each in the run that passes it; the model moves on after every other crash.
fn every_point(engine: Engine, target: Target) -> Vec<Case> {
    let mut cases = Vec::new();
    for (i, name) in NAMES
        .iter()
        .filter(|name| !clearing::POINTS.contains(name) && !apart::POINTS.contains(name))
        .enumerate()
    {
        // A file tells of its rows once, on closing, and refuses none.
        let never = ["deliver.before_end_note", "deliver.after_end_note"];
        if target == Target::Files && (never.contains(name) || REFUSED.contains(name)) {
            continue;
        }
        let mut counts = vec![1];
        if PER_BATCH.contains(name) && target == Target::Http && (is_long() || engine == Engine::Postgres) {
            counts.push(4);
        }
        let deaths =
            who_pass(name).iter().flat_map(|killed| counts.iter().map(move |count| (*killed, count)));
        for (j, (killed, count)) in deaths.enumerate() {
            let mut case = Case::new(engine, target, killed, format!("{name}:{count}"));
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

/// The other destinations, at the points where their requests and closings lie.
fn around_sending(engine: Engine, target: Target) -> Vec<Case> {
    let few = [
        "deliver.after_begin",
        "deliver.after_start_note",
        "deliver.after_answer",
        "store.end",
        "commit.before",
        "commit.after",
    ];
    let all = every_point(engine, target);
    let name = |case: &Case| case.at.split(':').next().unwrap_or_default().to_owned();
    all.into_iter().filter(|case| is_long() || few.contains(&name(case).as_str())).collect()
}

#[test]
fn around_sending_to_files() {
    all_hold(&around_sending(Engine::DuckDb, Target::Files));
    if is_long() {
        all_hold(&around_sending(Engine::Postgres, Target::Files));
    }
}

#[test]
fn around_sending_to_postgres() {
    all_hold(&around_sending(Engine::Postgres, Target::Postgres));
    if is_long() {
        all_hold(&around_sending(Engine::DuckDb, Target::Postgres));
    }
}

/// Every `n`th case of a list, another rest for each engine, so that both together walk through more.
fn some(cases: Vec<Case>, engine: Engine, n: usize) -> Vec<Case> {
    let rest = usize::from(engine == Engine::Postgres);
    cases.into_iter().enumerate().filter(|(i, _)| is_long() || i % n == rest).map(|(_, case)| case).collect()
}

/// Points between the first and the last word about a delivery.
const SENDING: &[&str] = &[
    "deliver.after_begin:1",
    "deliver.after_start_note:1",
    "deliver.after_start_note:5",
    "deliver.after_answer:2",
    "deliver.after_answer:6",
    "deliver.before_end_note:3",
    "deliver.after_end_note:4",
    "store.end:7",
    "commit.before:1",
    "commit.after:1",
    "store.forget:1",
    "prune.before_release:1",
];

fn sending(engine: Engine, killed: Killed, change: impl Fn(&mut Case)) -> Vec<Case> {
    let case = |(i, at): (usize, &&str)| {
        let mut case = Case::new(engine, Target::Http, killed, *at);
        case.moves = i % 2 == 1;
        change(&mut case);
        case
    };
    SENDING.iter().enumerate().map(case).collect()
}

fn first_runs(engine: Engine) -> Vec<Case> {
    some(sending(engine, Killed::First, |_| {}), engine, 3)
}

#[test]
fn in_a_first_run() {
    all_hold(&[first_runs(Engine::DuckDb), first_runs(Engine::Postgres)].concat());
}

fn resyncs(engine: Engine) -> Vec<Case> {
    let plain = sending(engine, Killed::Resync, |_| {});
    let removing = sending(engine, Killed::ResyncWithRemovals, |case| case.moves = !case.moves);
    [some(plain, engine, 4), some(removing, engine, 6)].concat()
}

#[test]
fn in_a_full_resync() {
    all_hold(&[resyncs(Engine::DuckDb), resyncs(Engine::Postgres)].concat());
}

fn between_checkpoints(engine: Engine) -> Vec<Case> {
    let mut cases = sending(engine, Killed::Incremental, |case| case.checkpoints = true);
    for at in [
        "commit.before:2",
        "commit.after:2",
        "commit.after:3",
        "store.forget:2",
        "commit.before_outcomes:1",
        "commit.after_outcomes:1",
    ] {
        let mut case = Case::new(engine, Target::Http, Killed::Incremental, at);
        case.checkpoints = true;
        case.moves = cases.len() % 2 == 0;
        cases.push(case);
    }
    cases.extend(sending(engine, Killed::First, |case| case.checkpoints = true));
    cases.extend(sending(engine, Killed::Resync, |case| case.checkpoints = true));
    some(cases, engine, 6)
}

#[test]
fn between_checkpoints_of_a_long_run() {
    all_hold(&[between_checkpoints(Engine::DuckDb), between_checkpoints(Engine::Postgres)].concat());
}

fn with_the_store(engine: Engine) -> Vec<Case> {
    let mut cases = sending(engine, Killed::Incremental, |case| case.store_lost = true);
    cases.extend(sending(engine, Killed::First, |case| case.store_lost = true));
    cases.extend(sending(engine, Killed::Resync, |case| case.store_lost = true));
    cases.extend(sending(engine, Killed::Incremental, |case| {
        case.store_lost = true;
        case.checkpoints = true;
    }));
    some(cases, engine, 6)
}

#[test]
fn with_the_store_lost_after_it() {
    all_hold(&[with_the_store(Engine::DuckDb), with_the_store(Engine::Postgres)].concat());
}

/// The run that would settle the first crash is killed while it does.
fn while_settling(engine: Engine) -> Vec<Case> {
    let points = [
        "prepare.after_lease",
        "commit.before_outcomes",
        "commit.after_outcomes",
        "commit.before",
        "commit.after",
        "store.forget",
        "prune.before",
        "prepare.after_settling",
        "diff.after",
        "deliver.after_begin",
        "deliver.after_answer:2",
    ];
    let mut cases = Vec::new();
    for (i, again) in points.into_iter().enumerate() {
        for at in ["deliver.after_answer:4", "deliver.after_end_note:3"] {
            let mut case = Case::new(engine, Target::Http, Killed::Incremental, at);
            case.again = Some(again.to_owned());
            case.moves = i % 2 == 0;
            cases.push(case);
        }
    }
    some(cases, engine, 5)
}

#[test]
fn twice_the_second_time_while_settling() {
    all_hold(&[while_settling(Engine::DuckDb), while_settling(Engine::Postgres)].concat());
}

fn with_a_server_store(engine: Engine) -> Vec<Case> {
    let change = |case: &mut Case| case.server_store = true;
    some(sending(engine, Killed::Incremental, change), engine, 4)
}

#[test]
fn with_the_store_on_a_server() {
    all_hold(&[with_a_server_store(Engine::DuckDb), with_a_server_store(Engine::Postgres)].concat());
}
