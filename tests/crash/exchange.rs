//! The n-th exchange of a run with warehouse, destination or store fails, for n = 1, 2, 3 … until a run passes
//! untouched; after each, the next run makes good.

use crate::oracle;
use crate::receiver::BAD;
use crate::scene::{Engine, Person, Scene, Target, Trouble, is_long};

/// No run has so many exchanges: the walk must come to its end before.
const MOST: usize = 400;

/// What the n-th edit makes of the model: rows come, change, go, and one of them is refused.
fn edit(scene: &mut Scene, n: usize) {
    let n = i64::try_from(n).expect("a small number");
    scene.edit(|people| {
        people.remove(&(n % 20 + 1));
        for id in [n % 20 + 2, n % 20 + 5, n % 20 + 9, n % 20 + 30] {
            people.insert(id, Person::new(format!("{id}@edit{n}"), n));
        }
        let bad = n % 20 + 12;
        people.insert(bad, Person::new(format!("{BAD}{bad}@{n}"), n));
    });
}

/// Walks through the exchanges of one run after another; `step` leaves some out.
fn every_exchange(engine: Engine, target: Target, how: &str, start: usize, step: usize) {
    let mut scene = Scene::new(engine, target);
    scene.edit(|people| people.extend((1..=20).map(|id| (id, Person::new(format!("{id}@first"), id)))));
    let every = (start..MOST).step_by(if is_long() { 1 } else { step });
    for (walked, n) in every.enumerate() {
        if walked > 0 {
            edit(&mut scene, n);
        }
        let accepted = scene.content();
        let points = format!("exchange={n}*off->1*return({how})->off");
        let points = if n == 0 { points.replace("0*off->", "") } else { points };
        let troubled = scene.run_with(&Trouble { kill_at: None, points: Some(&points) }, &[]);
        let context = format!("{engine:?} to {target:?}, exchange {n} failed ({how}): {troubled:?}");
        assert!(troubled.signal.is_none(), "{context}");
        if !troubled.stdout.trim().is_empty() {
            oracle::counts_add_up(&troubled.report());
        }
        let passed_untouched = !troubled.stderr.contains("a test makes this exchange fail");
        // A lease that could not be given up runs out by itself, or its dead holder is replaced.
        let next = scene.levin(&["run", "people", "--json", "--wait", "90s"]);
        let report = next.report();
        oracle::counts_add_up(&report);
        assert!(report["error"].is_null(), "{context}\nthe next run says {report}");
        assert_eq!(scene.content(), oracle::expected(&scene, &accepted, &scene.model), "{context}");
        if passed_untouched {
            // The refused rows are mended; then there is nothing left to say.
            scene.edit(|people| {
                people.iter_mut().for_each(|(id, person)| {
                    if person.is_bad() {
                        *person = Person::new(format!("{id}@mended"), *id);
                    }
                });
            });
            oracle::succeeded(&scene.run());
            oracle::sends_nothing(&scene);
            oracle::nothing_is_left_over(&scene);
            return;
        }
    }
    panic!("{MOST} exchanges failed, and a run has more");
}

#[test]
fn fails_before_it_took_place_from_duckdb() {
    every_exchange(Engine::DuckDb, Target::Http, "before", 0, 5);
}

#[test]
fn fails_before_it_took_place_from_postgres() {
    every_exchange(Engine::Postgres, Target::Http, "before", 2, 5);
}

#[test]
fn fails_with_its_answer_lost_from_duckdb() {
    every_exchange(Engine::DuckDb, Target::Http, "after", 1, 5);
}

#[test]
fn fails_with_its_answer_lost_from_postgres() {
    every_exchange(Engine::Postgres, Target::Http, "after", 3, 5);
}

#[test]
fn fails_on_the_way_to_postgres() {
    every_exchange(Engine::Postgres, Target::Postgres, "after", 0, 9);
    if is_long() {
        every_exchange(Engine::DuckDb, Target::Postgres, "before", 0, 1);
    }
}

#[test]
fn fails_on_the_way_to_a_file() {
    every_exchange(Engine::DuckDb, Target::Files, "after", 2, 9);
    if is_long() {
        every_exchange(Engine::Postgres, Target::Files, "before", 0, 1);
    }
}
