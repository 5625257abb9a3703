//! The rules, by truth tables.

use serde_json::json;

use super::*;

fn at(minutes: i64) -> DateTime<Utc> {
    "2026-11-22T00:00:00Z".parse::<DateTime<Utc>>().unwrap() + TimeDelta::minutes(minutes)
}

/// A run of so many minutes that ended so.
fn past(run: i64, status: &str, report: Value) -> Past {
    Past::of(run, status.to_owned(), at(run * 60), at(run * 60 + 5), &report)
}

fn sized(run: i64, queried: u64) -> Past {
    past(run, "success", json!({"querySize": queried}))
}

fn failed(run: i64) -> Past {
    let error = json!({"code": "SOURCE_FAILED", "message": "the row holds 'secret'", "hint": "read it"});
    past(run, "failed", json!({"error": error}))
}

fn guarded(run: i64) -> Past {
    past(run, "failed", json!({"querySize": 0, "error": {"code": "GUARD_TRIPPED", "hint": "look"}}))
}

fn severity(rule: Rule, alerts: &Alerts, history: &[Past]) -> Option<Severity> {
    after_run(rule, alerts, "orders", history).map(|finding| finding.severity)
}

#[test]
fn failures_count_in_a_row_and_a_guard_is_no_failure() {
    use Severity::{Critical, Ok};
    let alerts = |consecutive| Alerts { consecutive, ..Alerts::default() };
    for (consecutive, history, expected) in [
        (1, vec![failed(1)], Some(Critical)),
        (2, vec![failed(1)], None),
        (2, vec![failed(2), failed(1)], Some(Critical)),
        (2, vec![failed(3), sized(2, 1), failed(1)], None),
        // What a guard stops is told by its own rule, and breaks no row of failures.
        (2, vec![guarded(2), failed(1)], None),
        (2, vec![failed(3), guarded(2), failed(1)], Some(Critical)),
        (1, vec![guarded(1)], None),
        (1, vec![sized(2, 1), failed(1)], Some(Ok)),
        (1, vec![past(2, "warning", json!({})), failed(1)], Some(Ok)),
    ] {
        assert_eq!(
            severity(Rule::RunFailed, &alerts(consecutive), &history),
            expected,
            "{consecutive}: {history:?}"
        );
    }
    let found = after_run(Rule::RunFailed, &alerts(2), "orders", &[failed(3), failed(2), failed(1)]).unwrap();
    assert_eq!(found.what, "2 runs in a row failed, the last one with SOURCE_FAILED");
    assert_eq!((found.run, found.since, found.hint.as_deref()), (Some(3), Some(at(65)), Some("read it")));
    assert!(!format!("{found:?}").contains("secret"), "the text of an error may quote a row");
}

#[test]
fn a_guard_is_told_until_a_run_goes_through() {
    let alerts = Alerts::default();
    assert_eq!(severity(Rule::GuardTripped, &alerts, &[guarded(1)]), Some(Severity::Critical));
    assert_eq!(severity(Rule::GuardTripped, &alerts, &[failed(2), guarded(1)]), None);
    assert_eq!(severity(Rule::GuardTripped, &alerts, &[sized(2, 1), guarded(1)]), Some(Severity::Ok));
}

#[test]
fn rejected_rows_are_judged_by_number_and_by_share() {
    use Severity::{Critical, Ok, Warning};
    let run = |status: &str, queried: Option<u64>, rejected: u64| {
        past(
            1,
            status,
            json!({"querySize": queried, "failedRows": {"addedCount": rejected, "changedCount": 0}}),
        )
    };
    let alerts = Alerts::default();
    for (status, queried, rejected, expected) in [
        ("success", Some(100), 0, Some(Ok)),
        ("warning", Some(100), 1, Some(Warning)),
        ("warning", Some(100), 9, Some(Warning)),
        ("warning", Some(100), 10, Some(Critical)),
        // Rejected removals are of no row that the model returned.
        ("warning", Some(0), 3, Some(Critical)),
        ("success", None, 0, Some(Ok)),
        // A run that broke off may make it worse, and never better.
        ("failed", Some(100), 0, None),
        ("failed", Some(100), 50, Some(Critical)),
    ] {
        let found = severity(Rule::RejectedRows, &alerts, &[run(status, queried, rejected)]);
        assert_eq!(found, expected, "{status} {queried:?} {rejected}");
    }
    let own = Alerts {
        rejected_warning: Limit { percent: None, rows: Some(100) },
        rejected_critical: Limit::default(),
        ..Alerts::default()
    };
    assert_eq!(severity(Rule::RejectedRows, &own, &[run("warning", Some(100), 99)]), Some(Ok));
    assert_eq!(severity(Rule::RejectedRows, &own, &[run("warning", Some(100), 100)]), Some(Warning));
    let found = after_run(Rule::RejectedRows, &alerts, "orders", &[run("warning", Some(9), 1)]).unwrap();
    assert_eq!(found.what, "1 row was rejected in run 1");
    assert_eq!(found.hint.as_deref(), Some("`levin rejected orders` shows them, with reasons"));
}

#[test]
fn slowness_is_told_of_runs_that_ended_and_that_go_on() {
    use Severity::{Critical, Ok, Warning};
    let minutes = |minutes: u64| Some(Duration::from_secs(minutes * 60));
    let times = Times { warning: minutes(5), critical: minutes(30) };
    let alerts = Alerts { too_slow: times, ..Alerts::default() };
    assert_eq!(severity(Rule::TooSlow, &alerts, &[sized(1, 1)]), Some(Warning));
    let quick = Alerts { too_slow: Times { warning: minutes(6), critical: None }, ..Alerts::default() };
    assert_eq!(severity(Rule::TooSlow, &quick, &[sized(1, 1)]), Some(Ok));
    assert_eq!(severity(Rule::TooSlow, &quick, &[failed(1)]), None, "a run that broke off was not quick");
    for (elapsed, expected) in [(0, Ok), (4, Ok), (5, Warning), (29, Warning), (30, Critical)] {
        let found = while_running(&alerts, 7, at(0), at(elapsed));
        assert_eq!(found.severity, expected, "{elapsed}");
        assert_eq!((found.run, found.since), (Some(7), Some(at(0))));
    }
    assert_eq!(times.until_worse(TimeDelta::minutes(4)), minutes(1));
    assert_eq!(times.until_worse(TimeDelta::minutes(10)), minutes(20));
    assert_eq!(times.until_worse(TimeDelta::minutes(31)), None);
}

#[test]
fn silence_is_told_since_the_last_run_or_since_it_is_watched() {
    let times = Times { warning: None, critical: Some(Duration::from_secs(25 * 3_600)) };
    let alerts = Alerts { not_run_for: times, ..Alerts::default() };
    let hours = |hours: i64| at(hours * 60);
    let found = without_run(&alerts, Some((3, hours(0))), None, hours(25));
    assert_eq!((found.severity, found.since, found.run), (Severity::Critical, Some(hours(0)), Some(3)));
    assert_eq!(found.what, "no run has begun for 1 d 1 h");
    let never = without_run(&alerts, None, Some(hours(0)), hours(25));
    assert_eq!((never.severity, never.since), (Severity::Critical, Some(hours(0))));
    for (last, watched, expected) in [
        (Some(0), Some(0), Severity::Critical),
        (Some(1), Some(0), Severity::Ok),
        // It rested, and is watched again: what went before does not count.
        (Some(0), Some(24), Severity::Ok),
        (Some(0), Some(1), Severity::Ok),
        (Some(-90), Some(0), Severity::Critical),
        (None, Some(1), Severity::Ok),
        (None, None, Severity::Ok),
    ] {
        let last = last.map(|began| (3, hours(began)));
        let found = without_run(&alerts, last, watched.map(hours), hours(25));
        assert_eq!(found.severity, expected, "{last:?} {watched:?}");
    }
}

#[test]
fn sizes_are_measured_by_their_mean() {
    use Severity::{Critical, Ok, Warning};
    let drift = Drift { dropped: Some(30.0), jumped: Some(100.0), runs: 3, critical: false };
    let alerts = Alerts { drift: Some(drift.clone()), ..Alerts::default() };
    let history = |last: u64, before: &[u64]| -> Vec<Past> {
        let before = before.iter().zip(1..).map(|(size, run)| sized(100 - run, *size));
        std::iter::once(sized(100, last)).chain(before).collect()
    };
    for (last, before, expected) in [
        (100, &[100, 100][..], None),
        (100, &[100, 100, 100], Some(Ok)),
        (71, &[100, 100, 100], Some(Ok)),
        (70, &[100, 100, 100], Some(Warning)),
        (0, &[100, 100, 100], Some(Warning)),
        (199, &[100, 100, 100], Some(Ok)),
        (200, &[100, 100, 100], Some(Warning)),
        // What lies further back does not count.
        (100, &[100, 100, 100, 900], Some(Ok)),
        (0, &[0, 0, 0], Some(Ok)),
        (1, &[0, 0, 0], Some(Warning)),
    ] {
        let found = severity(Rule::RowsQueried, &alerts, &history(last, before));
        assert_eq!(found, expected, "{last} after {before:?}");
    }
    // An empty model trips a guard, and is told as well.
    let stopped = [guarded(9), sized(8, 100), sized(7, 100), sized(6, 100)];
    let worse = Alerts { drift: Some(Drift { critical: true, ..drift }), ..Alerts::default() };
    assert_eq!(severity(Rule::RowsQueried, &worse, &stopped), Some(Critical));
    assert_eq!(
        severity(Rule::RowsQueried, &worse, &[failed(9), sized(8, 1), sized(7, 1), sized(6, 1)]),
        None
    );
    let found = after_run(Rule::RowsQueried, &alerts, "orders", &history(2_000, &[1_000; 3])).unwrap();
    assert_eq!(found.what, "the model returned 2,000 rows in run 100, 100 percent more than the usual 1,000");
}

#[test]
fn a_recipient_of_critical_ones_hears_where_they_begin_and_end() {
    use Severity::{Critical, Ok, Warning};
    let recipient = |only_critical| Recipient { channel: "ops".to_owned(), only_critical };
    for (before, now, all, only) in [
        (Ok, Warning, Some((Ok, Warning)), None),
        (Ok, Critical, Some((Ok, Critical)), Some((Ok, Critical))),
        (Warning, Critical, Some((Warning, Critical)), Some((Ok, Critical))),
        (Critical, Warning, Some((Critical, Warning)), Some((Critical, Ok))),
        (Warning, Ok, Some((Warning, Ok)), None),
        (Critical, Ok, Some((Critical, Ok)), Some((Critical, Ok))),
        (Critical, Critical, None, None),
    ] {
        assert_eq!(recipient(false).hears(before, now), all, "{before:?} {now:?}");
        assert_eq!(recipient(true).hears(before, now), only, "{before:?} {now:?}");
    }
}

#[test]
fn rules_that_have_nothing_to_say_are_not_watched() {
    let alerts = Alerts::default();
    let watched: Vec<&str> =
        Rule::ALL.into_iter().filter(|rule| alerts.watches(*rule)).map(Rule::name).collect();
    assert_eq!(watched, ["run_failed", "rejected_rows", "guard_tripped"]);
    for rule in Rule::ALL {
        assert_eq!(Rule::of_name(rule.name()), Some(rule));
    }
    assert_eq!(span(TimeDelta::seconds(3_661)), "1 h 1 min");
    assert_eq!(span(TimeDelta::milliseconds(20)), "20 ms");
}
