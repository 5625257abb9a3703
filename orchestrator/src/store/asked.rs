//! What a run is asked to do, and for whom: wishes that one run can serve are one run.

use serde::{Deserialize, Serialize};

use crate::run::{PlanId, Start};

/// What a run is asked to do, and who asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Asked {
    /// From where it starts.
    #[serde(default)]
    pub start: Start,
    /// The plan whose rows it sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approve: Option<PlanId>,
    /// Everything that is served by this one run.
    pub causes: Vec<Cause>,
    /// The trace of whoever asked first: the header `traceparent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

impl Asked {
    /// What differs, because of this.
    pub fn because(cause: Cause) -> Self {
        Self { start: Start::Incremental, approve: None, causes: vec![cause], trace: None }
    }

    /// Sends what differs, and nothing else is asked of it.
    pub(super) fn is_plain(&self) -> bool {
        self.start == Start::Incremental && self.approve.is_none()
    }

    /// Whether a run that does this does the other as well. Who starts over sends what differs too; who declares
    /// rows accepted, or sends a plan's rows, does not.
    fn does(&self, other: &Self) -> bool {
        let same = self.start == other.start && self.approve == other.approve;
        let sends_all = matches!(self.start, Start::FullResync { .. } | Start::ClearAndFill);
        same || (other.is_plain() && sends_all && self.approve.is_none())
    }

    /// Takes another wish in, when one run can do both; else gives this one back.
    pub(super) fn joined(mut self, other: &Self) -> Result<Self, Self> {
        if !self.does(other) {
            if !other.does(&self) {
                return Err(self);
            }
            (self.start, self.approve) = (other.start, other.approve);
        }
        self.causes.extend(other.causes.iter().cloned());
        self.trace = self.trace.or_else(|| other.trace.clone());
        Ok(self)
    }
}

/// Why a run is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Cause {
    /// Its schedule.
    Schedule {
        /// The moment that it stands for, in milliseconds since 1970.
        tick: i64,
    },
    /// A run of another sync, which it follows.
    After {
        /// The other sync.
        sync: String,
        /// Its run.
        run: i64,
    },
    /// A sequence that it is a member of.
    Sequence {
        /// The run of the sequence.
        run: String,
    },
    /// Somebody, through the API.
    Api {
        /// The name of the key.
        key: String,
    },
    /// A message from another service.
    Hook {
        /// The message.
        id: String,
    },
}
