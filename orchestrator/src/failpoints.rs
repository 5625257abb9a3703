//! Named points at which a test can kill the process; they do so in builds with the feature
//! `failpoints` only.
//!
//! `LEVIN_KILL_AT=NAME` or `NAME:N` kills the process with SIGKILL when the point is passed for the
//! first or N-th time; `FAILPOINTS` takes what the crate `fail` documents (pauses, returns).

#[cfg(feature = "failpoints")]
use std::sync::atomic::{AtomicU64, Ordering};

/// Every point, so that a test can walk through them all.
pub const NAMES: &[&str] = &[
    "store.begin_run",
    "prepare.after_lease",
    "prepare.after_settling",
    "diff.before",
    "diff.before_put",
    "diff.after",
    "deliver.before_establish",
    "deliver.after_establish",
    "deliver.before_clear_note",
    "deliver.before_clear",
    "deliver.after_clear",
    "deliver.after_clear_note",
    "deliver.before_begin",
    "store.begin_notes",
    "deliver.after_begin",
    "deliver.before_start_note",
    "store.start",
    "deliver.after_start_note",
    "deliver.after_answer",
    "deliver.before_end_note",
    "store.end",
    "deliver.after_end_note",
    "commit.before_outcomes",
    "commit.after_outcomes",
    "commit.before",
    "commit.after",
    "store.forget",
    "prune.before",
    "prune.before_release",
    "store.end_run",
];

/// Points that only the service passes.
pub const OF_THE_SERVICE: &[&str] = &["store.finish"];

/// How an exchange with the outside fails.
#[cfg(feature = "failpoints")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It did not take place.
    Before,
    /// It took place, and its answer is lost.
    After,
}

/// Whether the exchange that is about to begin is the one that `FAILPOINTS=exchange=N*off->1*return(before)->off` (or
/// `after`) wants to fail. Every exchange with the warehouse, the destination and the store asks.
#[cfg(feature = "failpoints")]
pub fn fails() -> Option<Failure> {
    fail::fail_point!("exchange", |how| {
        tracing::warn!("a test makes this exchange fail");
        Some(if how.as_deref() == Some("after") { Failure::After } else { Failure::Before })
    });
    None
}

/// Arms what the environment asks for. The scenario lasts as long as the returned guard.
#[cfg(feature = "failpoints")]
pub fn arm() -> fail::FailScenario<'static> {
    let scenario = fail::FailScenario::setup();
    if let Ok(at) = std::env::var("LEVIN_KILL_AT") {
        let (name, count) = match at.split_once(':') {
            Some((name, count)) => (name.to_owned(), count.parse().unwrap_or(1)),
            None => (at, 1),
        };
        let passed = AtomicU64::new(0);
        let armed = fail::cfg_callback(&name, move || {
            if passed.fetch_add(1, Ordering::SeqCst) + 1 == count {
                let _ =
                    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
                // The signal is on its way; nothing may happen before it arrives.
                loop {
                    std::thread::park();
                }
            }
        });
        if let Err(error) = armed {
            tracing::error!(error, "LEVIN_KILL_AT cannot be armed");
        }
    }
    scenario
}

#[cfg(test)]
mod tests {
    use super::{NAMES, OF_THE_SERVICE};

    #[test]
    fn every_point_in_the_code_is_listed_and_every_listed_point_is_in_the_code() {
        let mut found = std::collections::BTreeSet::new();
        let mut folders = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let text = std::fs::read_to_string(&path).unwrap();
                    found.extend(
                        text.split("fail_point!(\"")
                            .skip(1)
                            .filter_map(|rest| rest.split('"').next())
                            .map(str::to_owned),
                    );
                }
            }
        }
        // Set by tests that cannot wait for a checkpoint, and by those that make the n-th exchange fail: no points
        // at which to die.
        found.remove("deliver.checkpoint_interval");
        found.remove("exchange");
        let listed = NAMES.iter().chain(OF_THE_SERVICE).map(|name| (*name).to_owned());
        let listed: std::collections::BTreeSet<String> = listed.collect();
        assert_eq!(found, listed);
    }
}
