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
#[path = "chaos/walk.rs"]
mod walk;
