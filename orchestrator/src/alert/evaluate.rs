//! Looks at what the store knows of runs, decides what has changed, and queues what is to be told.
//!
//! Every run is looked at once: it says so in the store, in the same step in which states change and messages are
//! queued. So nothing is lost when a process ends between a run and this, and of several replicas one tells.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use connectors::channel::Event;

use super::message::{self, Change};
use super::{Finding, Past, Rule, Severity, after_run, event, while_running, without_run};
use crate::error::Error;
use crate::project::{Project, SyncSpec};
use crate::serve::Service;
use crate::store::{AlertState, Judging, Untold};

/// How often to look, when nothing wakes.
const LOOK: Duration = Duration::from_secs(1);
/// How long to trust that no run is due to have begun: a clock that is set is noticed by then.
const LONGEST: Duration = Duration::from_secs(300);
/// How many runs are looked at in one step.
const STEP: i64 = 50;
/// What ended longer ago is told no more.
const OLD: TimeDelta = TimeDelta::days(1);

/// Looks until the service ends.
pub(crate) async fn work(service: Arc<Service>) {
    let mut ended = service.ended();
    let mut watch = Watch { project: service.project(), due: HashMap::new() };
    while !service.is_stopping() {
        if let Err(error) = look(&service, &mut watch).await {
            tracing::warn!(error = %error, "alerts could not be looked at; they are again in a moment");
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            _ = ended.recv() => {}
            () = service.stopped() => {}
        }
    }
}

/// When each sync's last run is to be looked up again.
struct Watch {
    project: Arc<Project>,
    due: HashMap<i64, Instant>,
}

async fn look(service: &Service, watch: &mut Watch) -> Result<(), Error> {
    let project = service.project();
    if !Arc::ptr_eq(&project, &watch.project) {
        *watch = Watch { project: project.clone(), due: HashMap::new() };
    }
    while service.store().anything_untold().await? {
        let mut judging = service.store().judge().await?;
        for run in judging.untold(STEP).await? {
            tell(&mut judging, &project, &run).await?;
        }
        judging.commit().await?;
    }
    by_the_clock(service, &project, watch).await
}

/// What a run's beginning or end means.
async fn tell(judging: &mut Judging, project: &Project, run: &Untold) -> Result<(), Error> {
    let ended = run.finished_at.is_some();
    judging.told(run.id, ended).await?;
    let moment = run.finished_at.as_ref().unwrap_or(&run.started_at);
    let moment = moment.parse().unwrap_or_else(|_| Utc::now());
    if Utc::now() - moment > OLD {
        return Ok(());
    }
    let mut events = Vec::new();
    if !run.start_told && run.began() {
        events.push(Event::RunStarted);
    }
    if ended {
        events.extend(event::of_status(&run.status));
    }
    for event in events {
        for channel in project.channels.iter().filter(|channel| channel.channel.takes(event)) {
            judging.queue(&channel.slug, event::notice(project, run, event)).await?;
        }
    }
    let Some(sync) = project.syncs.iter().find(|sync| sync.id == run.sync_id) else { return Ok(()) };
    if !ended || !matches!(run.status.as_str(), "success" | "warning" | "failed") {
        return Ok(());
    }
    let history: Vec<Past> = judging.history(sync.id, run.id, sync.alerts.memory()).await?;
    for rule in Rule::ALL {
        if sync.alerts.watches(rule)
            && let Some(finding) = after_run(rule, &sync.alerts, &sync.slug, &history)
        {
            apply(judging, project, sync, rule, finding, false).await?;
        }
    }
    Ok(())
}

/// A rule has found something: its state changes, and who should know hears of it.
async fn apply(
    judging: &mut Judging,
    project: &Project,
    sync: &SyncSpec,
    rule: Rule,
    finding: Finding,
    only_worse: bool,
) -> Result<(), Error> {
    let known = judging.state(sync.id, rule).await?;
    let (before, since) =
        known.as_ref().map_or((Severity::Ok, None), |state| (state.state, Some(state.since)));
    let now = finding.severity;
    if (known.is_some() && before == now) || (only_worse && now < before) {
        return Ok(());
    }
    let began = finding.since.unwrap_or(finding.at);
    // What is not right stays so since when it began, however bad it becomes.
    let since = if before == Severity::Ok { began } else { since.unwrap_or(began) };
    let state = AlertState {
        sync_id: sync.id,
        rule,
        state: now,
        since: if now == Severity::Ok { finding.at } else { since },
        message: finding.what.clone(),
        run: finding.run,
    };
    judging.set_state(&state).await?;
    if before == now {
        return Ok(());
    }
    tracing::info!(
        sync = sync.slug,
        rule = rule.name(),
        before = before.name(),
        now = now.name(),
        "an alert changed"
    );
    let mut told: Vec<&str> = Vec::new();
    for recipient in &sync.alerts.recipients {
        if let Some((before, now)) = recipient.hears(before, now)
            && !told.contains(&recipient.channel.as_str())
        {
            let change = Change { rule, finding: &finding, before, now, since };
            judging.queue(&recipient.channel, message::alert(project, sync, &change)).await?;
            told.push(&recipient.channel);
        }
    }
    let change = Change { rule, finding: &finding, before, now, since };
    let notice = message::alert(project, sync, &change);
    for channel in project.channels.iter().filter(|channel| channel.channel.takes(notice.event)) {
        if !told.contains(&channel.slug.as_str()) {
            judging.queue(&channel.slug, notice.clone()).await?;
        }
    }
    Ok(())
}

/// What time alone changes: runs that go on, runs that do not begin, and alerts that nobody asks for any more.
async fn by_the_clock(service: &Service, project: &Project, watch: &mut Watch) -> Result<(), Error> {
    let store = service.store();
    let raised = store.raised().await?;
    let state = |sync: i64, rule: Rule| {
        raised
            .iter()
            .find(|state| state.sync_id == sync && state.rule == rule)
            .map_or(Severity::Ok, |state| state.state)
    };
    let now = Utc::now();
    let mut found: Vec<(&Arc<SyncSpec>, Rule, Finding, bool)> = Vec::new();
    for state in &raised {
        match project.syncs.iter().find(|sync| sync.id == state.sync_id) {
            None => store.forget_alerts(state.sync_id).await?,
            Some(sync) if !watches(service, sync, state.rule) => {
                found.push((sync, state.rule, unwatched(now), false));
            }
            Some(_) => {}
        }
    }
    if project.syncs.iter().any(|sync| sync.alerts.watches(Rule::TooSlow)) {
        for (run, sync_id, started_at) in store.going().await? {
            let Some(sync) = project.syncs.iter().find(|sync| sync.id == sync_id) else { continue };
            let finding = while_running(&sync.alerts, run, started_at, now);
            if finding.severity > state(sync_id, Rule::TooSlow) {
                found.push((sync, Rule::TooSlow, finding, true));
            }
        }
    }
    for sync in &project.syncs {
        if !watches(service, sync, Rule::NotRunFor) {
            watch.due.remove(&sync.id);
            continue;
        }
        if watch.due.get(&sync.id).is_some_and(|due| *due > Instant::now()) {
            continue;
        }
        let last = store.last_begun(sync.id).await?;
        // Of a sync that never ran counts since when it is watched: the alert's own row says so.
        let known = match last {
            Some(_) => Some(now),
            None => store.alert(sync.id, Rule::NotRunFor).await?.map(|state| state.since),
        };
        let finding = without_run(&sync.alerts, last, known.unwrap_or(now), now);
        let since = finding.since.unwrap_or(now);
        let wait = match finding.severity {
            Severity::Ok => sync.alerts.not_run_for.until_worse(now - since).unwrap_or(LONGEST),
            // A run may begin at any time.
            _ => LOOK,
        };
        watch.due.insert(sync.id, Instant::now() + wait.clamp(LOOK / 2, LONGEST));
        if known.is_none() || finding.severity != state(sync.id, Rule::NotRunFor) {
            found.push((sync, Rule::NotRunFor, finding, false));
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    let mut judging = store.judge().await?;
    for (sync, rule, finding, only_worse) in found {
        apply(&mut judging, project, sync, rule, finding, only_worse).await?;
    }
    judging.commit().await
}

/// Whether a rule says anything of a sync now. One that rests is not expected to run.
fn watches(service: &Service, sync: &SyncSpec, rule: Rule) -> bool {
    sync.alerts.watches(rule) && (rule != Rule::NotRunFor || !service.is_disabled(sync))
}

fn unwatched(now: DateTime<Utc>) -> Finding {
    let what = "this is watched no more".to_owned();
    Finding { severity: Severity::Ok, what, since: None, at: now, run: None, hint: None }
}
