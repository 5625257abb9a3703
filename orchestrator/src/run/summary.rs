//! What each stage came to, in a line.

use super::definition::Change;
use super::deliver::Delivered;
use super::differences::Counts;
use super::meter::Usage;
use super::report::{OperationCounts, Settled};
use crate::report::{counted, size, thousands};

/// `known` says that there was a snapshot.
pub(super) fn prepared(change: &Change, known: bool, settled: Option<Settled>) -> String {
    let mut parts = Vec::new();
    if let Some(settled) = settled {
        parts.push(format!("run {} was interrupted and is settled", settled.run));
    }
    match change {
        Change::None => parts.push("ready".to_owned()),
        Change::Fresh if known => parts.push("begins with an empty snapshot".to_owned()),
        Change::Fresh => parts.push("first run".to_owned()),
        Change::Reshape(reshape) => parts.push(reshape.reasons.join(", ")),
    }
    parts.join(" · ")
}

pub(super) fn differing(counts: &Counts) -> String {
    let mut text = format!(
        "{} added · {} changed · {} removed of {}",
        thousands(counts.added),
        thousands(counts.changed),
        thousands(counts.removed),
        thousands(counts.queried)
    );
    if counts.duplicate_keys + counts.null_keys > 0 {
        text.push_str(&format!(" · {} set aside", thousands(counts.duplicate_keys + counts.null_keys)));
    }
    text
}

pub(super) fn planned(counts: &OperationCounts) -> String {
    match counts.total() {
        0 => "nothing to send".to_owned(),
        rows => format!("{} to send", counted(rows, "row")),
    }
}

pub(super) fn sent_summary(delivered: &Delivered) -> String {
    format!(
        "{} accepted · {} rejected in {}",
        thousands(delivered.successful.total()),
        thousands(delivered.failed.total()),
        counted(delivered.calls, "call")
    )
}

pub(super) fn committed(delivered: &Delivered) -> String {
    format!(
        "{} accepted · {} rejected",
        thousands(delivered.successful.total()),
        thousands(delivered.failed.total())
    )
}

/// The same line, with what the stage scanned where the warehouse tells.
pub(super) fn with_scanned(summary: &str, usage: &Usage) -> String {
    match usage.cost.bytes_scanned.filter(|bytes| *bytes > 0) {
        Some(bytes) if summary.is_empty() => format!("{} scanned", size(bytes)),
        Some(bytes) => format!("{summary} · {} scanned", size(bytes)),
        None => summary.to_owned(),
    }
}
