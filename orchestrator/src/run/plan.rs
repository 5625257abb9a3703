//! Stage 3: what would be sent, and whether a guard forbids it.

use connectors::change::{Mode, OnRemoved, Operation};
use serde::Serialize;

use super::definition::Meaning;
use super::differences::Counts;
use super::plans::PlanId;
use super::report::OperationCounts;
use super::{Run, Start};
use crate::error::{Error, ErrorCode};
use crate::project::{Limit, OnDuplicateKey};

/// The operations of the diff that a mode sends; none of them when the model's rows are declared accepted.
pub fn sent_operations(mode: Mode, on_removed: OnRemoved, start: Start) -> Vec<Operation> {
    let sends_removed = on_removed != OnRemoved::Nothing || mode == Mode::Diff;
    let kept_back = matches!(start, Start::FullResync { keep_removals: false } | Start::ClearAndFill);
    Operation::ALL
        .into_iter()
        .filter(|_| start != Start::ResetCdc)
        .filter(|operation| match operation {
            Operation::Added => true,
            Operation::Changed => matches!(mode, Mode::Update | Mode::Upsert | Mode::Mirror | Mode::Diff),
            Operation::Removed => {
                let compares = !matches!(mode, Mode::Remove | Mode::All | Mode::Archive | Mode::Snapshot);
                !kept_back && sends_removed && compares
            }
        })
        .collect()
}

/// The verdict of one guard.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// The guard's key in the sync file.
    pub guard: &'static str,
    /// What it allows, for people.
    pub limit: String,
    /// What the run has.
    pub value: u64,
    /// Whether it forbids the run.
    pub tripped: bool,
}

/// Judges every guard that the sync sets, and those that are always on. Operations that the mode
/// does not send never trip.
pub fn verdicts(
    run: &Run<'_>,
    counts: &Counts,
    sent: &[Operation],
    last_queried: Option<i64>,
) -> Vec<Verdict> {
    let guards = &run.sync.guards;
    let mut verdicts = Vec::new();
    let keeps_snapshot = Meaning::of(run.sync.mode).keeps_snapshot();
    let before = if keeps_snapshot { counts.known } else { last_queried.unwrap_or(0).max(0).unsigned_abs() };
    let mut judge = |guard, limit: &Limit, value: u64, of: u64| {
        if limit.percent.is_none() && limit.rows.is_none() {
            return;
        }
        let over_rows = limit.rows.is_some_and(|rows| value > rows);
        #[expect(clippy::cast_precision_loss, reason = "a share in percent needs no more than 52 bits")]
        let over_percent =
            of > 0 && limit.percent.is_some_and(|percent| value as f64 * 100.0 > percent * of as f64);
        let limit = match (limit.percent, limit.rows) {
            (Some(percent), Some(rows)) => format!("{percent} % or {rows} rows"),
            (Some(percent), None) => format!("{percent} %"),
            (None, rows) => format!("{} rows", rows.unwrap_or_default()),
        };
        verdicts.push(Verdict { guard, limit, value, tripped: over_rows || over_percent });
    };
    let (planned, ..) = split(counts, sent);
    // In mode `remove` what is new in the model is what is removed: whichever word was written holds.
    if run.sync.mode == Mode::Remove {
        judge("max_removed", &guards.max_removed, planned.added_count, before);
    } else if sent.contains(&Operation::Removed) {
        judge("max_removed", &guards.max_removed, planned.removed_count, before);
    }
    if sent.contains(&Operation::Changed) {
        judge("max_changed", &guards.max_changed, planned.changed_count, before);
    }
    judge("max_added", &guards.max_added, planned.added_count, before);
    judge("max_set_aside", &guards.max_set_aside, counts.duplicate_keys + counts.null_keys, counts.queried);
    if let Some(least) = guards.min_rows {
        verdicts.push(Verdict {
            guard: "min_rows",
            limit: format!("{least} rows"),
            value: counts.queried,
            tripped: counts.queried < least,
        });
    }
    if !guards.allow_empty {
        // What is emptied may hold more than levin ever sent.
        let loses = before > 0 || run.start() == Start::ClearAndFill;
        verdicts.push(Verdict {
            guard: "allow_empty",
            limit: "at least 1 row".to_owned(),
            value: counts.queried,
            tripped: counts.queried == 0 && loses,
        });
    }
    verdicts
}

/// The error of a run that a guard forbids; what it would have sent is kept as a plan.
pub fn tripped(run: &Run<'_>, verdicts: &[Verdict], plan: PlanId) -> Error {
    let over: Vec<String> = verdicts
        .iter()
        .filter(|v| v.tripped)
        .map(|v| format!("`{}` allows {}, this run has {}", v.guard, v.limit, v.value))
        .collect();
    Error::new(
        ErrorCode::GuardTripped,
        format!("sync `{}` was stopped before anything was sent: {}", run.sync.slug, over.join("; ")),
    )
    .hint(format!(
        "look at `levin plan {}`; when it is meant, `levin apply {plan}` sends exactly these rows (for 24 hours); when it is always meant, raise the guard in {}",
        run.sync.slug,
        run.sync.file.display()
    ))
}

/// The error of a run whose model returns a key twice although the sync says that it must not.
pub fn duplicate_keys_forbidden(run: &Run<'_>, counts: &Counts) -> Option<Error> {
    (run.sync.on_duplicate_key == OnDuplicateKey::Fail && counts.duplicate_keys > 0).then(|| {
        Error::new(
            ErrorCode::DuplicatePrimaryKey,
            format!(
                "model `{}` returns {} rows whose primary key occurs more than once",
                run.sync.model.slug, counts.duplicate_keys
            ),
        )
    })
}

/// Counts of the diff split into what is planned, what is parked of it, and what the mode does not send.
pub fn split(counts: &Counts, sent: &[Operation]) -> (OperationCounts, OperationCounts, OperationCounts) {
    let mut planned = OperationCounts::default();
    let mut parked = OperationCounts::default();
    let mut not_sent = OperationCounts::default();
    for (operation, count) in [
        (Operation::Added, counts.added),
        (Operation::Changed, counts.changed),
        (Operation::Removed, counts.removed),
    ] {
        if sent.contains(&operation) {
            *parked.of_mut(operation) = counts.parked.of(operation);
            *planned.of_mut(operation) = count - counts.parked.of(operation);
        } else {
            *not_sent.of_mut(operation) = count;
        }
    }
    (planned, parked, not_sent)
}
