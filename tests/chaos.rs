//! A destination that misbehaves in every way that HTTP knows, and whole runs of the real `levin` into it, with
//! edits, kills and new starts between and among them. Once it behaves again it holds what the model returns.
//!
//! A walk prints its seed, which decides all but the moment of a kill; `LEVIN_SEED=N ./test --test chaos` replays it.
//! `LEVIN_LONG=1` makes many walks, `LEVIN_LONG_MINUTES=N` makes them for so long.

#[path = "chaos/destination.rs"]
mod destination;
#[path = "chaos/link.rs"]
mod link;
#[path = "chaos/lives.rs"]
mod lives;
#[path = "chaos/replicas.rs"]
mod replicas;
#[path = "chaos/walk.rs"]
mod walk;

use tests::project::Run;

/// A run when all is well. A machine that is too busy to answer in time is no fault of levin's: then another one
/// comes, a few times at most.
fn at_peace(run: impl Fn() -> Run) -> Run {
    let mut last = run();
    for _ in 0..4 {
        if last.report["error"]["code"] != "DESTINATION_UNAVAILABLE" {
            break;
        }
        last = run();
    }
    last
}
