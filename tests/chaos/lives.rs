//! Lives of one sync with everything that can happen to it: edits, refusals, lost answers, kills, a lost store, columns and
//! modes that come and go, guards, plans, dead letters, and every way to start over. In the end the destination holds
//! what the model returns, but for what the rules say it need not: [`Excuses`](excuses::Excuses).

#[path = "lives/excuses.rs"]
mod excuses;
#[path = "lives/said.rs"]
mod said;
#[path = "lives/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use tests::project::Engine;
use tests::seeds;

use self::world::World;

const STEPS: usize = 12;
/// Peace comes every so many steps.
const PEACE: usize = 4;

/// Lives in every `./test`, and in the long form.
const FEW: u64 = 1;
const MANY: u64 = 60;

/// One life; returns what happened in it.
fn live(engine: Engine, seed: u64) -> BTreeMap<String, u32> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut world = World::new(engine, &mut random);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        for step in 1..=STEPS {
            world.step(step, &mut random);
            if step % PEACE == 0 {
                world.peace();
            }
        }
    }));
    if let Err(panic) = outcome {
        world.tell();
        if world.is_corrupt() {
            // The life is over, and levin had no part in it.
            return BTreeMap::from([("ended by a corrupt file of DuckDB's".to_owned(), 1)]);
        }
        std::panic::resume_unwind(panic);
    }
    world.met
}

fn lives(engine: Engine, first: u64) {
    let started = Instant::now();
    let (mut failed, mut lived) = (Vec::new(), 0);
    let mut met: BTreeMap<String, u32> = BTreeMap::new();
    for seed in seeds::seeds(first, FEW, MANY) {
        println!("{engine:?}: LEVIN_SEED={seed}");
        lived += 1;
        match catch_unwind(AssertUnwindSafe(|| live(engine, seed))) {
            Ok(life) => life.into_iter().for_each(|(what, count)| *met.entry(what).or_default() += count),
            Err(_) => failed.push(seed),
        }
    }
    println!("{engine:?}: {lived} lives in {:.1} s, with {met:?}", started.elapsed().as_secs_f64());
    assert!(failed.is_empty(), "these lives failed; LEVIN_SEED lives one again: {failed:?}");
}

#[test]
fn everything_happens_to_a_sync_from_duckdb() {
    lives(Engine::DuckDb, 0);
}

#[test]
fn everything_happens_to_a_sync_from_postgres() {
    lives(Engine::Postgres, 1_000);
}
