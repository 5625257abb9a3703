//! Runs that begin and end, for channels that want to hear of each.

use connectors::channel::{Event, Notice, Severity};
use serde_json::{Value, json};

use crate::project::Project;
use crate::store::Untold;

/// What became of a run; `None` for a status that nobody waits for.
pub(super) fn of_status(status: &str) -> Option<Event> {
    Some(match status {
        "success" => Event::RunSucceeded,
        "warning" => Event::RunWarning,
        "failed" => Event::RunFailed,
        "cancelled" => Event::RunCancelled,
        "interrupted" => Event::RunInterrupted,
        _ => return None,
    })
}

/// A run as webhooks tell it: as `run --json` prints it, without the text of its error, which may quote a row.
pub(super) fn notice(project: &Project, run: &Untold, event: Event) -> Notice {
    let mut data = match &run.report {
        Some(Value::Object(report)) if event != Event::RunStarted => Value::Object(report.clone()),
        _ => json!({
            "syncId": run.sync_id, "syncSlug": run.sync, "id": run.id,
            "startedAt": run.started_at, "finishedAt": run.finished_at, "error": null,
        }),
    };
    data["status"] = if event == Event::RunStarted { json!("running") } else { json!(run.status) };
    data["project"] = json!(project.name);
    data["projectId"] = json!(project.uuid);
    if let Some(error) = data["error"].as_object_mut() {
        error.remove("message");
    }
    let severity = match event {
        Event::RunWarning => Severity::Warning,
        Event::RunFailed => Severity::Critical,
        _ => Severity::Ok,
    };
    let moment = if event == Event::RunStarted { Some(&run.started_at) } else { run.finished_at.as_ref() };
    let at = moment.and_then(|text| text.parse().ok()).unwrap_or_else(chrono::Utc::now);
    Notice {
        id: String::new(),
        event,
        at,
        severity,
        thread: format!("levin/{}/run/{}", project.uuid, run.id),
        title: format!("{} · sync {}: {}", project.name, run.sync, event.name()),
        facts: vec![("Run".to_owned(), run.id.to_string())],
        steps: Vec::new(),
        data,
    }
}
