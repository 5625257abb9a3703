//! Killed while a destination is emptied and filled anew: the next run ends what was begun, and nothing that
//! lay there before is left.

use std::collections::BTreeMap;
use std::fmt;

use crate::cases::all_of;
use crate::oracle;
use crate::scene::{Engine, Person, Scene, Target, Trouble};

/// Points that only a run that empties its destination passes.
pub const POINTS: &[&str] =
    &["deliver.before_clear_note", "deliver.before_clear", "deliver.after_clear", "deliver.after_clear_note"];
/// Points at which it fills.
const FILLING: &[&str] = &["deliver.after_begin", "deliver.after_answer:3", "store.end:2", "commit.after"];

/// Points around the tables that a first run makes, with the word that the destination is to be emptied.
const FIRST: &[&str] = &["deliver.after_establish", "deliver.before_clear", "deliver.after_clear"];

/// Points around the tables that take the place of others, once the destination is empty.
pub const ANEW: &[&str] = &[
    "deliver.before_clear_note",
    "deliver.before_clear",
    "deliver.after_clear",
    "deliver.before_establish",
    "deliver.after_establish",
    "deliver.after_clear_note",
];

/// What is known when the run begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Nothing: it is the sync's first run, into a place that holds something already.
    Nothing,
    /// What the destination accepted.
    Rows,
    /// What it accepted in another mode, which the run cannot go on from.
    OtherMode,
}

struct Case {
    engine: Engine,
    target: Target,
    known: Known,
    at: &'static str,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} to {:?}, known: {:?}, killed at {}", self.engine, self.target, self.known, self.at)
    }
}

fn holds(case: &Case) {
    let mut scene = Scene::new(case.engine, case.target);
    scene.edit(|people| people.extend((1..=12).map(|id| (id, Person::new(format!("{id}@first"), id)))));
    if case.known != Known::Nothing {
        oracle::succeeded(&scene.run());
    }
    if case.known == Known::OtherMode {
        let path = scene.path("syncs/people.yml");
        let sync = std::fs::read_to_string(path).expect("the sync's file");
        let inserting = sync.replace("mode: mirror", "mode: insert\non_removed: delete");
        scene.write("syncs/people.yml", &inserting);
    }
    scene.put_foreign(99);
    scene.edit(|people| {
        people.remove(&1);
        people.insert(2, Person::new("2@second", 2));
        people.insert(13, Person::new("13@second", 13));
    });
    let trouble = Trouble { kill_at: Some(case.at), points: None };
    let killed = scene.run_with(&trouble, &["--clear-and-fill"]);
    assert!(killed.is_killed(), "the point was not passed: {killed:?}");
    let anew = case.known == Known::OtherMode;
    // Tables that nothing was known of are made before the destination is asked, others afterwards.
    let made_before = case.at == "deliver.after_establish" && !anew;
    let said = case.at != "deliver.before_clear_note";
    let asked = said && case.at != "deliver.before_clear" && !made_before;
    let noted = asked && !matches!(case.at, "deliver.after_clear" | "deliver.before_establish");
    let empty = asked && !FILLING.contains(&case.at);
    assert!(!empty || scene.content().is_empty(), "{:?}", scene.content());
    // What leaves in between is not missed either.
    scene.edit(|people| drop(people.remove(&12)));
    if anew && !said {
        // Nothing was said yet, and what is known is not what this mode compares.
        assert_eq!(scene.run().error_code().as_deref(), Some("MODE_CHANGED"));
        oracle::succeeded(&scene.run_with(&Trouble::default(), &["--clear-and-fill"]));
    }
    let plan = scene.levin(&["plan", "people", "--json"]).report();
    let next = oracle::succeeded(&scene.run());
    assert_eq!(next["plannedRows"], plan["plannedRows"], "the plan said {plan}, the run says {next}");
    let mut expected = oracle::expected(&scene, &BTreeMap::new(), &scene.model);
    if !said && !anew {
        // Nothing was said yet: it is an ordinary run.
        expected.insert(99, scene.content()[&99].clone());
    }
    assert_eq!(scene.content(), expected);
    oracle::sends_nothing(&scene);
    oracle::nothing_is_left_over(&scene);
    if case.target == Target::Http {
        let clears = match (said, asked, noted) {
            (false, ..) => usize::from(anew),
            (_, true, false) => 2,
            _ => 1,
        };
        assert_eq!(scene.receiver.clears(), clears);
    }
}

fn cases(engine: Engine) -> Vec<Case> {
    let case = |target, known| move |at: &&'static str| Case { engine, target, known, at };
    let http = POINTS.iter().chain(FILLING).map(case(Target::Http, Known::Rows));
    let http = http.chain(FIRST.iter().map(case(Target::Http, Known::Nothing)));
    let http = http.chain(ANEW.iter().chain(FILLING).map(case(Target::Http, Known::OtherMode)));
    let table = POINTS.iter().map(case(Target::Postgres, Known::Rows));
    // Each engine with every point, the table from one of them.
    let table = table.filter(|_| engine == Engine::Postgres);
    http.chain(table).collect()
}

#[test]
fn while_emptying_and_filling_from_duckdb() {
    all_of(&cases(Engine::DuckDb), holds);
}

#[test]
fn while_emptying_and_filling_from_postgres() {
    all_of(&cases(Engine::Postgres), holds);
}

/// What is known is of no worth once the destination may be empty, not even when a reset is asked for and dies.
fn a_reset_ends(engine: Engine) {
    for at in ["commit.before", "commit.after"] {
        let mut scene = Scene::new(engine, Target::Http);
        scene.edit(|people| people.extend((1..=12).map(|id| (id, Person::new(format!("{id}@first"), id)))));
        oracle::succeeded(&scene.run());
        let killed_at = |at, more: &[&str]| {
            let killed = scene.run_with(&Trouble { kill_at: Some(at), points: None }, more);
            assert!(killed.is_killed(), "the point was not passed: {killed:?}");
        };
        killed_at("deliver.after_clear", &["--clear-and-fill"]);
        killed_at(at, &["--reset-cdc"]);
        oracle::succeeded(&scene.run());
        let expected = oracle::expected(&scene, &BTreeMap::new(), &scene.model);
        let kept = if at == "commit.after" { BTreeMap::new() } else { expected };
        assert_eq!(scene.content(), kept, "killed at {at}");
    }
}

#[test]
fn while_a_reset_takes_the_place_of_a_clear_from_duckdb() {
    a_reset_ends(Engine::DuckDb);
}

#[test]
fn while_a_reset_takes_the_place_of_a_clear_from_postgres() {
    a_reset_ends(Engine::Postgres);
}

/// A delivery that broke off, into tables that somebody dropped since, is nobody's to settle.
fn a_broken_delivery_is_forgotten_with_its_tables(engine: Engine) {
    let mut scene = Scene::new(engine, Target::Http);
    scene.edit(|people| people.extend((1..=12).map(|id| (id, Person::new(format!("{id}@first"), id)))));
    let killed_at = |at, more: &[&str]| {
        let killed = scene.run_with(&Trouble { kill_at: Some(at), points: None }, more);
        assert!(killed.is_killed(), "the point was not passed: {killed:?}");
    };
    killed_at("deliver.after_answer:1", &[]);
    let tables = scene.managed_tables();
    let snapshot = tables.iter().find(|name| name.ends_with("_snapshot")).expect("a snapshot");
    scene.sql(&format!("drop table levin_planner.{snapshot}"));
    killed_at("deliver.after_clear_note", &["--clear-and-fill"]);
    oracle::succeeded(&scene.run());
    assert_eq!(scene.content(), oracle::expected(&scene, &BTreeMap::new(), &scene.model));
    oracle::sends_nothing(&scene);
    oracle::nothing_is_left_over(&scene);
}

#[test]
fn after_a_delivery_whose_tables_are_gone_from_duckdb() {
    a_broken_delivery_is_forgotten_with_its_tables(Engine::DuckDb);
}

#[test]
fn after_a_delivery_whose_tables_are_gone_from_postgres() {
    a_broken_delivery_is_forgotten_with_its_tables(Engine::Postgres);
}
