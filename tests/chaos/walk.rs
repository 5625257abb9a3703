//! Walks: edits, runs into trouble, kills and new starts; then peace, and everything is where it belongs.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::project::{Engine, Project, Run, Running, levin_binary};

use crate::at_peace;
use crate::destination::{BAD, Chaos, TIMEOUT, Trouble};

const SYNC: &str = "people";
const STEPS: usize = 9;

/// So many walks are part of every ./test.
const FEW: u64 = 2;

/// What a run may end with when its destination misbehaves.
const KNOWN_ERRORS: &[&str] =
    &["DESTINATION_UNAVAILABLE", "DESTINATION_REFUSED", "DESTINATION_UNUSABLE", "GUARD_TRIPPED"];

/// What the destination holds once all is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    /// The model's values, by key.
    Values,
    /// The model's keys.
    Keys,
    /// The model's values, by name.
    Names,
}

/// What the sync does.
const MODES: &[(&str, Holds)] = &[
    ("mode: mirror", Holds::Values),
    ("mode: upsert\non_removed: delete", Holds::Values),
    ("mode: insert\non_removed: delete", Holds::Keys),
    ("mode: segment", Holds::Keys),
    ("mode: mirror\nmatch: {from: name, to: name}", Holds::Names),
    ("mode: mirror\nmatch: {from: name, to: name}", Holds::Names),
];

struct World {
    project: Project,
    chaos: Chaos,
    /// The rows of the model: name and score.
    model: BTreeMap<i64, (String, i64)>,
    holds: Holds,
    told: Vec<String>,
}

impl World {
    fn new(engine: Engine, random: &mut fastrand::Rng) -> Self {
        let chaos = Chaos::start();
        let project = Project::new(engine)
            .with_variable("TO", &chaos.receiver.url())
            .with_variable("CLIENT_SECRET", "the-client's-secret");
        project.sql("create table people (id bigint, name text, score bigint)");
        project.write("models/people.yml", "source: wh\nprimary_key: id\nsql: select * from people\n");
        project.write(
            "destinations/to.yml",
            &format!(
                "type: http_request\nbase_url: ${{TO}}\nallow_private_networks: true\nretries: {}\nconcurrency: {}\n\
                 timeout: {}ms\nauth:\n  oauth2_client_credentials:\n    token_url: ${{TO}}/token\n    client_id: levin\n    client_secret: ${{CLIENT_SECRET}}\n",
                random.u8(0..3),
                random.u8(1..4),
                TIMEOUT.as_millis()
            ),
        );
        let (mode, holds) = MODES[random.usize(..MODES.len())];
        project.write(
            "syncs/people.yml",
            &format!(
                "model: people\ndestination: to\n{mode}\neach: {{path: /rows, batch_size: {}}}\nclear: {{path: /clear}}\nguards: {{allow_empty: true}}\n",
                random.u8(2..9)
            ),
        );
        let told = vec![format!("{engine:?}, {mode}")];
        Self { project, chaos, model: BTreeMap::new(), holds, told }
    }

    /// Adds, changes, spoils and removes some rows.
    fn edit(&mut self, random: &mut fastrand::Rng, step: usize) {
        for _ in 0..random.usize(1..14) {
            let id = random.i64(1..=40);
            match random.u8(..12) {
                0..4 => drop(self.model.remove(&id)),
                4 => drop(self.model.insert(id, (format!("{BAD} {id} {step}"), 0))),
                // Names wander from row to row, and at times two have the same.
                _ if self.holds == Holds::Names => {
                    let name = format!("name {}", random.u8(1..=25));
                    drop(self.model.insert(id, (name, random.i64(0..3))));
                }
                // Back to what it was at first: A → B → A.
                5..8 => drop(self.model.insert(id, (format!("name {id}"), 0))),
                _ => drop(self.model.insert(id, (format!("name {id}, {step}"), random.i64(..)))),
            }
        }
        self.write();
    }

    fn write(&self) {
        let mut statements = "begin; delete from people;".to_owned();
        for (id, (name, score)) in &self.model {
            statements.push_str(&format!("insert into people values ({id}, '{name}', {score});"));
        }
        self.project.sql(&(statements + "commit"));
    }

    /// A run into trouble; at times it is killed on the way.
    fn run(&mut self, random: &mut fastrand::Rng, step: usize) {
        let more: &[&str] = match random.u8(..100) {
            0..7 => &["--full-resync"],
            7..13 => &["--full-resync", "--keep-removals"],
            13..21 => &["--clear-and-fill"],
            _ => &[],
        };
        let arguments = [&["run", SYNC, "--json"], more].concat();
        let mut running = Running::start(self.project.command_of(levin_binary(), &[], &arguments));
        if random.u8(..100) < 25 {
            std::thread::sleep(Duration::from_millis(random.u64(50..900)));
            if running.is_running() {
                running.kill();
                self.told.push(format!("step {step}: {more:?}, killed"));
                return;
            }
        }
        let run: Run = running.finish();
        self.told.push(format!("step {step}: {more:?} {} {} {}", run.code, run.status(), run.error()));
        assert!(run.error().is_empty() || KNOWN_ERRORS.contains(&run.error()), "{run:#?}");
        assert!(
            !run.stderr.contains("the-client's-secret") && !run.report.to_string().contains("token-"),
            "{run:#?}"
        );
    }

    /// What the destination should hold.
    fn expected(&self) -> BTreeMap<i64, Value> {
        let fields =
            |id: &i64, (name, score): &(String, i64)| json!({"id": id, "name": name, "score": score});
        self.model.iter().map(|(id, row)| (*id, fields(id, row))).collect()
    }

    fn assert_converged(&self) {
        let there: BTreeMap<i64, Value> = self
            .chaos
            .receiver
            .rows()
            .into_iter()
            .map(|(key, fields)| (key.parse().unwrap(), fields))
            .collect();
        let expected = self.expected();
        match self.holds {
            Holds::Values => assert_eq!(there, expected),
            Holds::Keys => {
                assert_eq!(there.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
            }
            Holds::Names => {
                let by_name =
                    expected.into_values().map(|row| (row["name"].as_str().unwrap().to_owned(), row));
                assert_eq!(self.chaos.records(), by_name.collect());
            }
        }
    }
}

/// One walk; returns which troubles it met.
fn walk(engine: Engine, seed: u64) -> BTreeMap<Trouble, u32> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut world = World::new(engine, &mut random);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        for step in 1..=STEPS {
            world.edit(&mut random, step);
            world.chaos.misbehave(random.u64(..), [0, 25, 50, 80][random.usize(..4)]);
            world.run(&mut random, step);
        }
        // Peace: what was bad is mended, and a few runs later all is well.
        world.chaos.misbehave(0, 0);
        let mut names = BTreeSet::new();
        for (id, (name, _)) in &mut world.model {
            if name.starts_with(BAD) || (world.holds == Holds::Names && !names.insert(name.clone())) {
                *name = format!("mended {id}");
            }
        }
        world.write();
        let last = at_peace(|| world.project.run(SYNC));
        // A name that somebody else still holds is free one run later.
        let waits = world.holds == Holds::Names && last.code == 1;
        assert!(waits || (last.code, last.status()) == (0, "success"), "{last:#?}");
        // Removals that a resync left for the next run come with it.
        let after = world.project.run(SYNC);
        assert_eq!(after.code, 0, "{after:#?}");
        assert!(waits || after.planned()[..2] == [0, 0], "{after:#?}");
        world.assert_converged();
        world.project.assert_quiet(SYNC, &world.chaos.receiver);
        assert!(world.project.rejected(SYNC).is_empty());
        let confused = world.chaos.confused();
        assert!(confused.is_empty(), "one version, two deliveries: {confused:#?}");
    }));
    if let Err(panic) = outcome {
        println!("{:#?}", world.told);
        for request in world.chaos.receiver.requests() {
            println!("{} {} {} {}", request.number, request.path, request.text, request.accepted.join(","));
        }
        std::panic::resume_unwind(panic);
    }
    world.chaos.met()
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .filter(|v| !v.is_empty())
        .map(|v| v.parse().unwrap_or_else(|e| panic!("{variable}: {e}")))
}

/// The walks of one warehouse: a few, many, or for some minutes.
fn walks(engine: Engine, first: u64) {
    let started = Instant::now();
    let minutes = number("LEVIN_LONG_MINUTES").map(|minutes| Duration::from_secs(60 * minutes));
    let many = std::env::var_os("LEVIN_LONG").is_some_and(|value| !value.is_empty() && value != "0");
    let seeds: Box<dyn Iterator<Item = u64>> = match (number("LEVIN_SEED"), minutes) {
        (Some(seed), _) => Box::new(std::iter::once(seed)),
        (None, Some(minutes)) => Box::new((first..).take_while(move |_| started.elapsed() < minutes)),
        (None, None) => Box::new(first..first + if many { 40 } else { FEW }),
    };
    let mut met: BTreeMap<Trouble, u32> = BTreeMap::new();
    let mut failed = Vec::new();
    for seed in seeds {
        println!("{engine:?}: LEVIN_SEED={seed}");
        match catch_unwind(AssertUnwindSafe(|| walk(engine, seed))) {
            Ok(troubles) => {
                troubles.into_iter().for_each(|(trouble, count)| *met.entry(trouble).or_default() += count)
            }
            Err(_) => failed.push(seed),
        }
    }
    println!("{engine:?}: met {met:?} in {:.1} s", started.elapsed().as_secs_f64());
    assert!(failed.is_empty(), "these walks failed; replay one with LEVIN_SEED: {failed:?}");
}

#[test]
fn everything_ends_where_it_belongs_from_duckdb() {
    walks(Engine::DuckDb, 0);
}

#[test]
fn everything_ends_where_it_belongs_from_postgres() {
    walks(Engine::Postgres, 1_000);
}
