//! Stopped at any point, the next run makes good: kills at every fail point, random walks, two
//! orchestrators on one sync, and connections, servers and disks that go away.
//!
//! `LEVIN_LONG=1` runs the whole product of cases and many seeds; `LEVIN_SEED=N` replays one walk.

#[path = "crash/apart.rs"]
mod apart;
#[path = "crash/cases.rs"]
mod cases;
#[path = "crash/clearing.rs"]
mod clearing;
#[path = "crash/commit.rs"]
mod commit;
#[path = "crash/cut.rs"]
mod cut;
#[path = "crash/exchange.rs"]
mod exchange;
#[path = "crash/kill.rs"]
mod kill;
#[path = "crash/matching.rs"]
mod matching;
#[path = "crash/oracle.rs"]
mod oracle;
#[path = "crash/receiver.rs"]
mod receiver;
#[path = "crash/scene.rs"]
mod scene;
#[path = "crash/two.rs"]
mod two;
#[path = "crash/walk.rs"]
mod walk;
