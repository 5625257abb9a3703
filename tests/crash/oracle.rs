//! What must hold, whatever happened: judged from what the destination saw and what levin reported.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::receiver::Request;
use crate::scene::{Engine, People, Ran, Scene, Target, without_nulls};

/// What the destination should hold when it started from `accepted` and bad rows never pass.
pub fn expected(scene: &Scene, accepted: &BTreeMap<i64, Value>, model: &People) -> BTreeMap<i64, Value> {
    model
        .iter()
        .filter_map(|(&id, person)| {
            let fields = if person.is_bad() && scene.target != Target::Files {
                accepted.get(&id)?.clone()
            } else {
                let mut fields = scene.wire(id, person);
                without_nulls(&mut fields);
                fields
            };
            Some((id, fields))
        })
        .collect()
}

/// I8: counts add up, and what is said to be planned is what was planned.
pub fn counts_add_up(report: &Value) {
    let of = |group: &str, operation: &str| {
        report[group][format!("{operation}Count")].as_u64().unwrap_or_else(|| panic!("{group} in {report}"))
    };
    if report["querySize"].is_null() {
        assert!(
            !report["error"].is_null(),
            "only a run that failed early does not know its counts: {report}"
        );
        return;
    }
    let number = |name: &str| report[name].as_u64().unwrap_or_else(|| panic!("{name} in {report}"));
    let different =
        |operation| of("plannedRows", operation) + of("parkedRows", operation) + of("notSent", operation);
    assert_eq!(
        number("querySize"),
        number("unchangedCount")
            + different("added")
            + different("changed")
            + number("duplicateKeyCount")
            + number("nullKeyCount"),
        "queried: {report}"
    );
    let mut failed = 0;
    for operation in ["added", "changed", "removed"] {
        assert_eq!(
            of("plannedRows", operation),
            of("successfulRows", operation) + of("failedRows", operation) + of("abortedRows", operation),
            "{operation}: {report}"
        );
        failed += of("failedRows", operation);
    }
    assert!(number("inDoubtCount") <= failed, "{report}");
}

/// The run did what it had to, alone.
pub fn succeeded(ran: &Ran) -> Value {
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let report = ran.report();
    assert_eq!(report["status"], "success", "{report}");
    assert!(report["error"].is_null(), "{report}");
    counts_add_up(&report);
    report
}

/// I3: a run over unchanged data sends nothing.
pub fn sends_nothing(scene: &Scene) {
    let (before, content) = (scene.receiver.requests().len(), scene.content());
    let report = succeeded(&scene.run());
    assert_eq!(planned(&report), 0, "{report}");
    assert_eq!(report["destinationCalls"], 0, "{report}");
    assert_eq!(scene.receiver.requests().len(), before);
    assert_eq!(scene.content(), content);
}

pub fn planned(report: &Value) -> u64 {
    ["addedCount", "changedCount", "removedCount"]
        .iter()
        .map(|count| report["plannedRows"][count].as_u64().expect("a count"))
        .sum()
}

/// Nothing lies about in the managed schema.
pub fn no_table_is_left_over(scene: &Scene) {
    let left: Vec<String> = scene
        .managed_tables()
        .into_iter()
        .filter(|name| {
            !["_state", "_snapshot", "_doubts", "_rejections"].iter().any(|end| name.ends_with(end))
        })
        .collect();
    assert!(left.is_empty(), "left in the warehouse: {left:?}");
}

/// Neither tables nor notes nor sessions are kept of what is committed.
pub fn nothing_is_left_over(scene: &Scene) {
    no_table_is_left_over(scene);
    let noted = scene.runs_with_notes();
    assert!(noted.is_empty(), "notes of runs {noted:?} are left in the store");
    if scene.engine == Engine::Postgres {
        let sessions = || {
            crate::scene::query(
                scene.warehouse_url(),
                "select application_name, state from pg_stat_activity
                 where datname = current_database() and pid <> pg_backend_pid() and application_name like 'levin%'",
            )
        };
        // The server ends them when it hears that their process is gone, which on a busy machine takes a moment.
        let deadline = Instant::now() + Duration::from_secs(20);
        while !sessions().is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        let left = sessions();
        assert!(left.is_empty(), "sessions are left: {left:?}");
    }
}

/// What holds of every request that ever came, in their order. Returns how many rows repeated what
/// the receiver had already taken, and how many removals came for keys that it did not hold.
/// `repeats_are_known` tells whether what is sent in one generation, and was taken in an earlier one, can only
/// be the repeat of a delivery in doubt.
pub fn requests_are_honest(requests: &[Request], repeats_are_known: impl Fn(i64, i64) -> bool) -> Repeats {
    let mut deliveries: HashMap<&str, (i64, &str, &Value)> = HashMap::new();
    let mut latest: HashMap<i64, (&str, &Value, &str, i64, bool)> = HashMap::new();
    let mut newest = 0;
    let mut repeats = Repeats::default();
    for request in requests {
        assert!(
            request.generation >= newest,
            "a request of generation {} came after one of {newest}",
            request.generation
        );
        newest = request.generation;
        let keys: BTreeSet<i64> = request.rows.iter().map(|row| row.key).collect();
        assert_eq!(keys.len(), request.rows.len(), "a key came twice in one request: {request:?}");
        for row in &request.rows {
            let this = (row.key, request.operation.as_str(), &row.fields);
            let of_version = deliveries.entry(&row.version).or_insert(this);
            // The fields of a removal are for people: the values that were last accepted.
            if this.1 == "removed" {
                assert_eq!((of_version.0, of_version.1), (this.0, this.1), "one version, two deliveries");
            } else {
                assert_eq!(*of_version, this, "version {} stands for two deliveries", row.version);
            }
            if let Some(&(operation, fields, version, generation, applied)) = latest.get(&row.key)
                && applied
                && operation == request.operation
                && (fields == &row.fields || operation == "removed")
            {
                repeats.rows += 1;
                repeats.by_generation.entry(request.generation).and_modify(|n| *n += 1).or_insert(1);
                if generation != request.generation && repeats_are_known(generation, request.generation) {
                    assert_eq!(
                        version, row.version,
                        "key {} is sent again as {operation} with another version, although nothing came between",
                        row.key
                    );
                }
            }
            if request.operation == "removed" && !row.was_there {
                repeats.empty_removals += 1;
            }
            latest.insert(
                row.key,
                (&request.operation, &row.fields, &row.version, request.generation, row.applied),
            );
        }
    }
    repeats
}

/// What was sent although the receiver had it, or had it not.
#[derive(Debug, Default)]
pub struct Repeats {
    /// Rows that repeated the key's latest delivery, which had been applied.
    pub rows: usize,
    pub by_generation: BTreeMap<i64, usize>,
    /// Removals of keys that the receiver did not hold: repeats among them.
    pub empty_removals: usize,
}
