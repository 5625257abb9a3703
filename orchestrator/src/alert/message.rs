//! The words of an alert.

use chrono::{DateTime, SecondsFormat, Utc};
use connectors::channel::{Event, Notice};
use serde_json::json;

use super::{Finding, Rule, Severity};
use crate::project::Project;
use crate::store::Subject;

/// A change of an alert's state, as a recipient hears of it.
#[derive(Clone, Copy)]
pub(super) struct Change<'a> {
    pub(super) rule: Rule,
    pub(super) finding: &'a Finding,
    /// How bad it was.
    pub(super) before: Severity,
    /// How bad it is.
    pub(super) now: Severity,
    /// Since when it is not right, or was not.
    pub(super) since: DateTime<Utc>,
}

/// What belongs together: an alert with its end.
pub(super) fn thread(project: &Project, sync: i64, rule: Rule) -> String {
    format!("levin/{}/{sync}/{}", project.uuid, rule.name())
}

/// The message of a change.
pub(super) fn alert(project: &Project, subject: &Subject, change: &Change<'_>) -> Notice {
    let Subject { sync_id, sync, destination_id, destination } = subject;
    let Change { rule, finding, before, now, since } = change;
    let over = *now == Severity::Ok;
    let word = match (before, now) {
        (_, Severity::Ok) => "resolved: ",
        (Severity::Critical, Severity::Warning) => "less bad: ",
        _ => "",
    };
    let title = format!("{} · sync {sync}: {word}{}", project.name, finding.what);
    let mut facts = vec![
        ("Project".to_owned(), project.name.clone()),
        ("Sync".to_owned(), format!("{sync}, to {destination}")),
        ("Alert".to_owned(), format!("{}, {} (was {})", rule.name(), now.name(), before.name())),
    ];
    facts.extend(finding.run.map(|run| ("Run".to_owned(), run.to_string())));
    let name = if over { "Was so since" } else { "Since" };
    facts.push((name.to_owned(), text(*since)));
    if over {
        facts.push(("Over since".to_owned(), text(finding.at)));
    }
    let mut steps: Vec<String> = Vec::new();
    if !over {
        steps.extend(finding.hint.clone());
        steps.push(format!("`levin runs {sync}` shows its latest runs"));
    }
    let data = json!({
        "project": project.name,
        "projectId": project.uuid,
        "sync": {"id": sync_id, "slug": sync},
        "destination": {"id": destination_id, "slug": destination},
        "rule": rule.name(),
        "state": now,
        "previousState": before,
        "since": text(*since),
        "at": text(finding.at),
        "runId": finding.run,
        "message": finding.what,
        "nextSteps": steps,
    });
    Notice {
        id: String::new(),
        event: if over { Event::AlertResolved } else { Event::AlertRaised },
        at: finding.at,
        severity: *now,
        thread: thread(project, *sync_id, *rule),
        title,
        facts,
        steps,
        data,
    }
}

fn text(moment: DateTime<Utc>) -> String {
    moment.to_rfc3339_opts(SecondsFormat::Secs, true)
}
