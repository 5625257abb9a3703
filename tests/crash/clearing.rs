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

struct Case {
    engine: Engine,
    target: Target,
    at: &'static str,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} to {:?}, killed at {}", self.engine, self.target, self.at)
    }
}

fn holds(case: &Case) {
    let mut scene = Scene::new(case.engine, case.target);
    scene.edit(|people| people.extend((1..=12).map(|id| (id, Person::new(format!("{id}@first"), id)))));
    oracle::succeeded(&scene.run());
    scene.put_foreign(99);
    scene.edit(|people| {
        people.remove(&1);
        people.insert(2, Person::new("2@second", 2));
        people.insert(13, Person::new("13@second", 13));
    });
    let trouble = Trouble { kill_at: Some(case.at), points: None };
    let killed = scene.run_with(&trouble, &["--clear-and-fill"]);
    assert!(killed.is_killed(), "the point was not passed: {killed:?}");
    let empty = matches!(case.at, "deliver.after_clear" | "deliver.after_clear_note");
    assert!(!empty || scene.content().is_empty(), "{:?}", scene.content());
    // What leaves in between is not missed either.
    scene.edit(|people| drop(people.remove(&12)));
    let begun = case.at != "deliver.before_clear_note";
    let plan = scene.levin(&["plan", "people", "--json"]).report();
    let next = oracle::succeeded(&scene.run());
    assert_eq!(next["plannedRows"], plan["plannedRows"], "the plan said {plan}, the run says {next}");
    let mut expected = oracle::expected(&scene, &BTreeMap::new(), &scene.model);
    if !begun {
        // Nothing was said yet: it is an ordinary run.
        expected.insert(99, scene.content()[&99].clone());
    }
    assert_eq!(scene.content(), expected);
    oracle::sends_nothing(&scene);
    oracle::nothing_is_left_over(&scene);
    if case.target == Target::Http {
        let clears = scene.receiver.clears();
        let again = matches!(case.at, "deliver.before_clear" | "deliver.after_clear");
        let first = usize::from(begun && case.at != "deliver.before_clear");
        assert_eq!(clears, first + usize::from(again));
    }
}

fn cases(engine: Engine) -> Vec<Case> {
    let http = POINTS.iter().chain(FILLING).map(|at| Case { engine, target: Target::Http, at });
    let table = POINTS.iter().map(|at| Case { engine, target: Target::Postgres, at });
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
