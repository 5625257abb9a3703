//! What is asked of a run, and who hears how it goes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{PlanId, Stage};

/// From where a run starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// From what the destination last accepted.
    #[default]
    Incremental,
    /// From nothing: every row is sent again as added.
    FullResync {
        /// Rows that left are removed too.
        keep_removals: bool,
    },
    /// From an empty destination, which is emptied first.
    ClearAndFill,
    /// The model's rows are declared accepted; nothing is sent.
    ResetCdc,
}

/// How far a run goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Goal {
    /// It sends what differs, unless a guard forbids it.
    #[default]
    Deliver,
    /// It keeps what differs as a plan, and sends nothing.
    Save,
    /// It sends exactly the rows of a plan that was kept, whatever the guards said of them.
    Apply(PlanId),
}

/// What is asked of a run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Request {
    /// From where it starts; a plan that is applied starts from where it was made.
    pub start: Start,
    /// How far it goes.
    pub goal: Goal,
    /// How long it waits for another run of the same sync.
    pub wait: Option<Duration>,
}

/// Hears how a run goes on.
pub trait Progress: Send + Sync {
    /// A stage ended, with what it came to.
    fn stage(&self, sync: &str, stage: Stage, summary: &str, seconds: f64);

    /// Rows that have ended so far, of those that will be sent.
    fn delivered(&self, sync: &str, done: u64, total: u64);
}

/// Hears nothing.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Progress for Silent {
    fn stage(&self, _: &str, _: Stage, _: &str, _: f64) {}
    fn delivered(&self, _: &str, _: u64, _: u64) {}
}
