//! Alerts: what is worth telling about a sync's runs. Each rule has a state, and whoever should know hears of every
//! change of it once: not of every run.
//!
//! Here stand the rules, which only calculate. `evaluate` looks at what the store knows and decides, `message` finds the
//! words, `outbox` sends them.

mod evaluate;
mod event;
mod message;
mod outbox;
#[cfg(test)]
mod tests;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
pub use connectors::channel::Severity;
use serde_json::Value;

use crate::error::ErrorCode;
use crate::project::Limit;
use crate::report::{counted, thousands};

pub(crate) use evaluate::work as evaluate;
pub(crate) use outbox::work as send;

/// What can be wrong with the runs of a sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// Runs fail.
    RunFailed,
    /// Rows are rejected.
    RejectedRows,
    /// Runs take long.
    TooSlow,
    /// No run has begun for long.
    NotRunFor,
    /// The model returns many fewer or more rows than before.
    RowsQueried,
    /// A guard stopped the run.
    GuardTripped,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 6] = [
        Self::RunFailed,
        Self::RejectedRows,
        Self::TooSlow,
        Self::NotRunFor,
        Self::RowsQueried,
        Self::GuardTripped,
    ];

    /// The word in project files, messages and the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::RunFailed => "run_failed",
            Self::RejectedRows => "rejected_rows",
            Self::TooSlow => "too_slow",
            Self::NotRunFor => "not_run_for",
            Self::RowsQueried => "rows_queried",
            Self::GuardTripped => "guard_tripped",
        }
    }

    /// The rule of that name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.name() == name)
    }
}

/// What is told of a sync's runs, and to whom.
#[derive(Debug, Clone, PartialEq)]
pub struct Alerts {
    /// Who hears of it.
    pub recipients: Vec<Recipient>,
    /// So many failed runs in a row.
    pub consecutive: u32,
    /// From so many rejected rows on it is a warning; a share is one of the rows that the model returned.
    pub rejected_warning: Limit,
    /// From so many on it is critical.
    pub rejected_critical: Limit,
    /// How long a run takes.
    pub too_slow: Times,
    /// How long ago the last one began.
    pub not_run_for: Times,
    /// How many rows the model returns.
    pub drift: Option<Drift>,
}

impl Default for Alerts {
    fn default() -> Self {
        Self {
            recipients: Vec::new(),
            consecutive: 1,
            rejected_warning: Limit { percent: None, rows: Some(1) },
            rejected_critical: Limit { percent: Some(10.0), rows: None },
            too_slow: Times::default(),
            not_run_for: Times::default(),
            drift: None,
        }
    }
}

impl Alerts {
    /// Whether a rule can say anything at all.
    pub fn watches(&self, rule: Rule) -> bool {
        match rule {
            Rule::RunFailed | Rule::GuardTripped => true,
            Rule::RejectedRows => {
                self.rejected_warning != Limit::default() || self.rejected_critical != Limit::default()
            }
            Rule::TooSlow => self.too_slow != Times::default(),
            Rule::NotRunFor => self.not_run_for != Times::default(),
            Rule::RowsQueried => {
                self.drift.as_ref().is_some_and(|d| d.dropped.is_some() || d.jumped.is_some())
            }
        }
    }

    /// How many runs that went through must be known to judge one: it, and those that make the mean.
    pub fn sizes_compared(&self) -> u32 {
        self.drift.as_ref().map_or(0, |drift| drift.runs + 1)
    }
}

/// A channel that hears of alerts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// Its slug.
    pub channel: String,
    /// It hears only of what is critical, and of its end.
    pub only_critical: bool,
}

impl Recipient {
    /// A change of state as this recipient hears of it; `None` when it is none to it.
    pub fn hears(&self, before: Severity, now: Severity) -> Option<(Severity, Severity)> {
        let floored = |severity| match severity {
            Severity::Warning if self.only_critical => Severity::Ok,
            severity => severity,
        };
        let heard = (floored(before), floored(now));
        (heard.0 != heard.1).then_some(heard)
    }
}

/// From how long on something is a warning, and critical.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// From then on it is a warning.
    pub warning: Option<Duration>,
    /// From then on it is critical.
    pub critical: Option<Duration>,
}

impl Times {
    /// How bad so long is.
    pub fn severity(&self, elapsed: TimeDelta) -> Severity {
        let reached = |limit: Option<Duration>| {
            limit.and_then(|limit| TimeDelta::from_std(limit).ok()).is_some_and(|limit| elapsed >= limit)
        };
        if reached(self.critical) {
            Severity::Critical
        } else if reached(self.warning) {
            Severity::Warning
        } else {
            Severity::Ok
        }
    }

    /// How long from here until it gets worse.
    pub fn until_worse(&self, elapsed: TimeDelta) -> Option<Duration> {
        let elapsed = elapsed.to_std().unwrap_or_default();
        [self.warning, self.critical]
            .into_iter()
            .flatten()
            .filter_map(|limit| limit.checked_sub(elapsed))
            .min()
    }
}

/// How far from its mean the number of rows may be.
#[derive(Debug, Clone, PartialEq)]
pub struct Drift {
    /// At least so many percent fewer are told.
    pub dropped: Option<f64>,
    /// At least so many percent more.
    pub jumped: Option<f64>,
    /// The mean is one of so many runs.
    pub runs: u32,
    /// It is critical, not a warning.
    pub critical: bool,
}

/// Of how few runs there is no mean.
const FEWEST_FOR_MEAN: usize = 3;

/// A run that ended, as far as rules look at it.
#[derive(Debug, Clone, PartialEq)]
pub struct Past {
    /// Its number.
    pub run: i64,
    /// The word of its status: `success`, `warning` or `failed`.
    pub status: String,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: DateTime<Utc>,
    /// Rows that the model returned.
    pub queried: Option<u64>,
    /// Rows that were rejected or are in doubt.
    pub rejected: u64,
    /// The code of its error.
    pub error: Option<String>,
    /// What its error says to do next.
    pub hint: Option<String>,
}

impl Past {
    /// A run by its report, as the store keeps it.
    pub fn of(
        run: i64,
        status: String,
        started_at: DateTime<Utc>,
        finished_at: DateTime<Utc>,
        report: &Value,
    ) -> Self {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let counts = &report["failedRows"];
        let rejected =
            ["addedCount", "changedCount", "removedCount"].iter().filter_map(|key| counts[key].as_u64());
        Self {
            run,
            status,
            started_at,
            finished_at,
            queried: report["querySize"].as_u64(),
            rejected: rejected.sum(),
            error: text(&report["error"]["code"]),
            hint: text(&report["error"]["hint"]),
        }
    }

    fn failed(&self) -> bool {
        self.status == "failed" && !self.guarded()
    }

    fn guarded(&self) -> bool {
        self.error.as_deref() == Some(ErrorCode::GuardTripped.name())
    }

    fn went_through(&self) -> bool {
        matches!(self.status.as_str(), "success" | "warning")
    }
}

/// What a rule finds.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What is so, in a few words that follow the sync's name.
    pub what: String,
    /// Since when, when that is not when it was found.
    pub since: Option<DateTime<Utc>>,
    /// When it was found.
    pub at: DateTime<Utc>,
    /// The run that tells.
    pub run: Option<i64>,
    /// What to do next.
    pub hint: Option<String>,
}

/// What a rule says once a run has ended: by that run, which is the first, and those before it. `None`: nothing, and all
/// stays as it was.
pub fn after_run(rule: Rule, alerts: &Alerts, sync: &str, history: &[Past]) -> Option<Finding> {
    let last = history.first()?;
    let said = |severity, what: String| Finding {
        severity,
        what,
        since: None,
        at: last.finished_at,
        run: Some(last.run),
        hint: None,
    };
    match rule {
        Rule::RunFailed => {
            let streak = history.iter().take_while(|past| !past.went_through()).filter(|past| past.failed());
            let streak: Vec<&Past> = streak.collect();
            let code = last.error.as_deref().unwrap_or("an error");
            if last.went_through() {
                return Some(said(Severity::Ok, "runs go through again".to_owned()));
            }
            if !last.failed() || streak.len() < alerts.consecutive as usize {
                return None;
            }
            let what = match streak.len() {
                1 => format!("run {} failed with {code}", last.run),
                _ if alerts.consecutive == 1 => format!("run {} failed with {code}", last.run),
                _ => format!("{} runs in a row failed, the last one with {code}", alerts.consecutive),
            };
            let first = streak.last().map(|past| past.finished_at);
            Some(Finding { since: first, hint: last.hint.clone(), ..said(Severity::Critical, what) })
        }
        Rule::GuardTripped if last.guarded() => {
            let what = format!("a guard stopped run {} before anything was sent", last.run);
            Some(Finding { hint: last.hint.clone(), ..said(Severity::Critical, what) })
        }
        Rule::GuardTripped => {
            last.went_through().then(|| said(Severity::Ok, "no guard stops its runs any more".to_owned()))
        }
        Rule::RejectedRows => {
            let of = last.queried.unwrap_or_default().max(last.rejected).max(1);
            let reached = |limit: Limit| {
                #[expect(clippy::cast_precision_loss, reason = "a share need not be exact")]
                let share = last.rejected as f64 * 100.0 / of as f64;
                let rows = limit.rows.is_some_and(|rows| last.rejected >= rows.max(1));
                last.rejected > 0 && (rows || limit.percent.is_some_and(|percent| share >= percent))
            };
            let severity = if reached(alerts.rejected_critical) {
                Severity::Critical
            } else if reached(alerts.rejected_warning) {
                Severity::Warning
            } else {
                // A run that broke off has not tried every row.
                return last.went_through().then(|| {
                    let what = match last.rejected {
                        0 => "no row is rejected any more".to_owned(),
                        some => format!("only {} rejected", verb(some)),
                    };
                    said(Severity::Ok, what)
                });
            };
            let hint = Some(format!("`levin rejected {sync}` shows them, with reasons"));
            let what = format!("{} rejected in run {}", verb(last.rejected), last.run);
            Some(Finding { hint, ..said(severity, what) })
        }
        Rule::TooSlow => {
            let took = last.finished_at - last.started_at;
            match alerts.too_slow.severity(took) {
                Severity::Ok => last
                    .went_through()
                    .then(|| said(Severity::Ok, format!("run {} took {}", last.run, span(took)))),
                severity => Some(said(severity, format!("run {} took {}", last.run, span(took)))),
            }
        }
        Rule::RowsQueried => drift(alerts.drift.as_ref()?, history, &said),
        Rule::NotRunFor => None,
    }
}

fn drift(drift: &Drift, history: &[Past], said: &dyn Fn(Severity, String) -> Finding) -> Option<Finding> {
    let (last, before) = history.split_first()?;
    let queried = last.queried.filter(|_| last.went_through() || last.guarded())?;
    let sizes: Vec<u64> = before
        .iter()
        .filter(|past| past.went_through())
        .filter_map(|past| past.queried)
        .take(drift.runs as usize)
        .collect();
    if sizes.len() < FEWEST_FOR_MEAN {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "a share need not be exact")]
    let (queried, mean) = (queried as f64, sizes.iter().sum::<u64>() as f64 / sizes.len() as f64);
    let change = if mean > 0.0 {
        (queried - mean) * 100.0 / mean
    } else if queried > 0.0 {
        f64::INFINITY
    } else {
        0.0
    };
    let dropped = drift.dropped.is_some_and(|percent| -change >= percent);
    let jumped = drift.jumped.is_some_and(|percent| change >= percent);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sizes of tables, above 0")]
    let (rows, usual) = (thousands(queried as u64), thousands(mean.round() as u64));
    if !dropped && !jumped {
        return Some(said(Severity::Ok, format!("the model returned {rows} rows, about as many as usual")));
    }
    let severity = if drift.critical { Severity::Critical } else { Severity::Warning };
    let word = if dropped { "fewer" } else { "more" };
    let share = if change.is_finite() { format!("{:.0} percent ", change.abs()) } else { String::new() };
    let what =
        format!("the model returned {rows} rows in run {}, {share}{word} than the usual {usual}", last.run);
    Some(Finding { hint: Some("look at the model and what it reads".to_owned()), ..said(severity, what) })
}

/// What is so when a run goes on for so long.
pub fn while_running(alerts: &Alerts, run: i64, started_at: DateTime<Utc>, now: DateTime<Utc>) -> Finding {
    let so_far = now - started_at;
    Finding {
        severity: alerts.too_slow.severity(so_far),
        what: format!("run {run} has gone on for {}", span(so_far)),
        since: Some(started_at),
        at: now,
        run: Some(run),
        hint: None,
    }
}

/// What is so when the last run began at a moment, and the sync is watched since another. Time before either does not
/// count.
pub fn without_run(
    alerts: &Alerts,
    last: Option<(i64, DateTime<Utc>)>,
    watched: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Finding {
    let since = last.map(|(_, began)| began).max(watched).unwrap_or(now);
    let severity = alerts.not_run_for.severity(now - since);
    let what = match (severity, last) {
        (Severity::Ok, Some((run, began))) if began == since => format!("run {run} has begun"),
        (Severity::Ok, _) => "it is watched from now on".to_owned(),
        (_, Some(_)) => format!("no run has begun for {}", span(now - since)),
        (_, None) => format!("no run has begun for {}, nor ever before", span(now - since)),
    };
    let hint = (severity != Severity::Ok).then(|| {
        "see whether `levin serve` is running, and whether its schedule is what you mean".to_owned()
    });
    let run = last.map(|(run, _)| run);
    Finding { severity, what, since: Some(since), at: now, run, hint }
}

fn verb(rows: u64) -> String {
    format!("{} {}", counted(rows, "row"), if rows == 1 { "was" } else { "were" })
}

/// A span of time as people say it: its two largest units.
fn span(time: TimeDelta) -> String {
    let seconds = time.num_seconds().max(0);
    let parts = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let mut left = seconds;
    let mut said = Vec::new();
    for (unit, name) in parts {
        if left >= unit && said.len() < 2 {
            said.push(format!("{} {name}", left / unit));
        }
        left %= unit;
    }
    if said.is_empty() { format!("{} ms", time.num_milliseconds().max(0)) } else { said.join(" ") }
}
