//! The six stages of a run, in their order.

/// A stage: the same word names its file, its templates, its log fields and its line on the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// State, lease, settling, changes of shape.
    Prepare,
    /// What differs.
    Diff,
    /// What would be sent; guards.
    Plan,
    /// Rows leave.
    Deliver,
    /// What was accepted enters the snapshot.
    Commit,
    /// Leftovers go.
    Prune,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Self; 6] =
        [Self::Prepare, Self::Diff, Self::Plan, Self::Deliver, Self::Commit, Self::Prune];

    /// The stage of that word.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.name() == name)
    }

    /// The stage that comes after it.
    pub fn next(self) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| *stage > self)
    }

    /// The stage's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Diff => "diff",
            Self::Plan => "plan",
            Self::Deliver => "deliver",
            Self::Commit => "commit",
            Self::Prune => "prune",
        }
    }
}
