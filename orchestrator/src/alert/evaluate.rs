//! Looks at what the store knows of runs, decides what has changed, and queues what is to be told.
//!
//! Every run is looked at once: it says so in the store, in the same step in which states change and messages are
//! queued. So nothing is lost when a process ends between a run and this, and of several replicas one tells.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use connectors::channel::Event;

use super::message::{self, Change};
use super::{Finding, Past, Recipient, Rule, Severity, after_run, event, while_running, without_run};
use crate::config::Kind;
use crate::error::Error;
use crate::project::{Project, SyncSpec};
use crate::serve::Service;
use crate::store::{AlertState, Judging, Subject, Times, Untold};

/// How often to look, when nothing wakes.
const LOOK: Duration = Duration::from_secs(1);
/// How long to trust that no run is due to have begun: a clock that is set is noticed by then.
const LONGEST: Duration = Duration::from_secs(300);
/// How many runs are looked at in one step.
const STEP: i64 = 50;
/// What ended longer ago is told no more.
const OLD: TimeDelta = TimeDelta::days(1);
/// For how long a run of a sync that nobody here knows is left to replicas that may: by then all have read the files.
const STRANGE: TimeDelta = TimeDelta::minutes(5);

/// Looks until the service ends.
pub(crate) async fn work(service: Arc<Service>) {
    let mut ended = service.ended();
    let mut watch = Watch::of(service.project());
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

/// What need not be looked up again.
struct Watch {
    project: Arc<Project>,
    /// When to look for the last run of a sync again.
    due: HashMap<i64, Instant>,
    /// Syncs of which the store knows that they rest.
    resting: HashSet<i64>,
}

impl Watch {
    fn of(project: Arc<Project>) -> Self {
        Self { project, due: HashMap::new(), resting: HashSet::new() }
    }
}

/// The project as this replica read it last, and every object that any replica had read before.
struct Known {
    project: Arc<Project>,
    noted: Arc<HashMap<(String, i64), Times>>,
}

impl Known {
    /// Noted objects come first: what is among them and not in the project was taken out of it.
    fn of(service: &Service) -> Self {
        let noted = service.times();
        Self { project: service.project(), noted }
    }

    fn sync(&self, id: i64) -> Option<&Arc<SyncSpec>> {
        self.project.syncs.iter().find(|sync| sync.id == id)
    }

    /// Whether a sync is in the project no more. One that is newer than the files that were read here is not gone.
    fn is_gone(&self, id: i64) -> bool {
        self.sync(id).is_none() && self.noted.contains_key(&(Kind::Sync.name().to_owned(), id))
    }

    /// Whether a run is left to replicas that may know its sync.
    fn leaves(&self, run: &Untold, now: DateTime<Utc>) -> bool {
        now - run.moment() < STRANGE && self.sync(run.sync_id).is_none() && !self.is_gone(run.sync_id)
    }
}

async fn look(service: &Service, watch: &mut Watch) -> Result<(), Error> {
    let known = Known::of(service);
    if !Arc::ptr_eq(&known.project, &watch.project) {
        *watch = Watch::of(known.project.clone());
    }
    let (mut after, now) = (0, Utc::now());
    loop {
        let seen = service.store().untold(after, STEP).await?;
        let Some(last) = seen.last() else { break };
        if seen.iter().any(|run| !known.leaves(run, now)) {
            let mut judging = service.store().judge().await?;
            let untold = judging.untold(after, STEP).await?;
            for run in untold.iter().filter(|run| !known.leaves(run, now)) {
                tell(&mut judging, &known, run).await?;
            }
            judging.commit().await?;
        }
        after = last.id;
    }
    // Two that see different rules in the files would raise and end the same alert in turn.
    if service.speaks() { by_the_clock(service, &known, watch).await } else { Ok(()) }
}

/// What a run's beginning or end means.
async fn tell(judging: &mut Judging, known: &Known, run: &Untold) -> Result<(), Error> {
    let project = &*known.project;
    let ended = run.finished_at.is_some();
    judging.told(run.id, ended).await?;
    if Utc::now() - run.moment() > OLD {
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
    let Some(sync) = known.sync(run.sync_id) else { return Ok(()) };
    if !ended || !matches!(run.status.as_str(), "success" | "warning" | "failed") {
        return Ok(());
    }
    let history: Vec<Past> = judging.history(sync.id, run.id, &sync.alerts).await?;
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
    let same = before == now && known.as_ref().is_some_and(|state| !state.rests);
    if same || (only_worse && now < before) {
        return Ok(());
    }
    let began = finding.since.unwrap_or(finding.at);
    // What is not right stays so since when it began, however bad it becomes.
    let since = if before == Severity::Ok { began } else { since.unwrap_or(began) };
    let mut state = AlertState {
        subject: subject(sync),
        rule,
        state: now,
        since: if now == Severity::Ok { began } else { since },
        message: finding.what.clone(),
        run: finding.run,
        rests: false,
        told: known.map(|state| state.told).unwrap_or_default(),
    };
    if before != now {
        let change = Change { rule, finding: &finding, before, now, since };
        spread(judging, project, &sync.alerts.recipients, &mut state, &change).await?;
    }
    judging.set_state(&state).await
}

/// A change is told to whom the files name, and the end of an alert also to everybody who was told of it before: they may
/// be named no more.
async fn spread(
    judging: &mut Judging,
    project: &Project,
    recipients: &[Recipient],
    state: &mut AlertState,
    change: &Change<'_>,
) -> Result<(), Error> {
    let Change { rule, before, now, .. } = *change;
    tracing::info!(
        sync = state.subject.sync,
        rule = rule.name(),
        before = before.name(),
        now = now.name(),
        "an alert changed"
    );
    let mut heard: Vec<(&str, Severity)> = Vec::new();
    for recipient in recipients {
        let channel = recipient.channel.as_str();
        if let Some((before, now)) = recipient.hears(before, now)
            && !heard.iter().any(|(known, _)| *known == channel)
        {
            let change = Change { before, now, ..*change };
            judging.queue(channel, message::alert(project, &state.subject, &change)).await?;
            heard.push((channel, now));
        }
    }
    let notice = message::alert(project, &state.subject, change);
    for channel in &project.channels {
        let told = now == Severity::Ok && state.told.contains(&channel.slug);
        if (told || channel.channel.takes(notice.event))
            && !heard.iter().any(|(known, _)| *known == channel.slug)
        {
            judging.queue(&channel.slug, notice.clone()).await?;
        }
    }
    for (channel, heard) in heard {
        state.told.retain(|told| told != channel);
        if heard != Severity::Ok {
            state.told.push(channel.to_owned());
        }
    }
    if now == Severity::Ok {
        state.told.clear();
    }
    Ok(())
}

/// A sync is in the project no more: whoever was told of its alerts is told of their end, and they are forgotten.
async fn end(judging: &mut Judging, project: &Project, sync: i64) -> Result<(), Error> {
    for rule in Rule::ALL {
        // Looked up here: somebody else may have ended it.
        if let Some(mut state) = judging.state(sync, rule).await?
            && state.state != Severity::Ok
        {
            let finding = over("the sync was taken out of the project", Utc::now());
            let (before, since) = (state.state, state.since);
            let change = Change { rule, finding: &finding, before, now: Severity::Ok, since };
            spread(judging, project, &[], &mut state, &change).await?;
        }
    }
    judging.forget(sync).await
}

fn subject(sync: &SyncSpec) -> Subject {
    Subject {
        sync_id: sync.id,
        sync: sync.slug.clone(),
        destination_id: sync.destination.id,
        destination: sync.destination.slug.clone(),
    }
}

/// What time alone changes: runs that go on, runs that do not begin, and alerts that nobody asks for any more.
async fn by_the_clock(service: &Service, known: &Known, watch: &mut Watch) -> Result<(), Error> {
    let (store, project) = (service.store(), &*known.project);
    let raised = store.raised().await?;
    let state = |sync: i64, rule: Rule| {
        raised
            .iter()
            .find(|state| state.subject.sync_id == sync && state.rule == rule)
            .map_or(Severity::Ok, |state| state.state)
    };
    let now = Utc::now();
    let mut found: Vec<(&Arc<SyncSpec>, Rule, Finding, bool)> = Vec::new();
    let mut gone: HashSet<i64> = HashSet::new();
    let mut resting: Vec<&Arc<SyncSpec>> = Vec::new();
    for state in &raised {
        let sync_id = state.subject.sync_id;
        match known.sync(sync_id) {
            Some(sync) if !watches(service, sync, state.rule) => {
                found.push((sync, state.rule, over("this is watched no more", now), false));
                // Its row is written anew: what it says of resting, too.
                watch.resting.remove(&sync.id);
            }
            None if known.is_gone(sync_id) => {
                gone.insert(sync_id);
            }
            _ => {}
        }
    }
    if project.syncs.iter().any(|sync| sync.alerts.watches(Rule::TooSlow)) {
        for (run, sync_id, started_at) in store.going().await? {
            let Some(sync) = known.sync(sync_id) else { continue };
            let finding = while_running(&sync.alerts, run, started_at, now);
            if finding.severity > state(sync_id, Rule::TooSlow) {
                found.push((sync, Rule::TooSlow, finding, true));
            }
        }
    }
    for sync in project.syncs.iter().filter(|sync| sync.alerts.watches(Rule::NotRunFor)) {
        if service.is_disabled(sync) {
            watch.due.remove(&sync.id);
            if !watch.resting.contains(&sync.id) {
                match store.alert(sync.id, Rule::NotRunFor).await? {
                    Some(state) if state.rests => {
                        watch.resting.insert(sync.id);
                    }
                    _ => resting.push(sync),
                }
            }
            continue;
        }
        watch.resting.remove(&sync.id);
        if watch.due.get(&sync.id).is_some_and(|due| *due > Instant::now()) {
            continue;
        }
        let last = store.last_begun(sync.id).await?;
        let before = store.alert(sync.id, Rule::NotRunFor).await?;
        let rested = before.as_ref().is_some_and(|state| state.rests);
        // A sync that rested, or never ran, counts since it is watched: the alert's own row says when that was.
        let watched = if rested { Some(now) } else { before.as_ref().map(|state| state.since) };
        let finding = without_run(&sync.alerts, last, watched, now);
        let since = finding.since.unwrap_or(now);
        let wait = match finding.severity {
            Severity::Ok => sync.alerts.not_run_for.until_worse(now - since).unwrap_or(LONGEST),
            // A run may begin at any time.
            _ => LOOK,
        };
        watch.due.insert(sync.id, Instant::now() + wait.clamp(LOOK / 2, LONGEST));
        let unknown = before.is_none() && last.is_none();
        if unknown || rested || finding.severity != before.map_or(Severity::Ok, |state| state.state) {
            found.push((sync, Rule::NotRunFor, finding, false));
        }
    }
    if found.is_empty() && gone.is_empty() && resting.is_empty() {
        return Ok(());
    }
    let mut judging = store.judge().await?;
    for (sync, rule, finding, only_worse) in found {
        apply(&mut judging, project, sync, rule, finding, only_worse).await?;
    }
    for sync in gone {
        end(&mut judging, project, sync).await?;
    }
    for sync in &resting {
        judging.rests(&subject(sync), now).await?;
    }
    judging.commit().await?;
    watch.resting.extend(resting.iter().map(|sync| sync.id));
    Ok(())
}

/// Whether a rule says anything of a sync now. One that rests is not expected to run.
fn watches(service: &Service, sync: &SyncSpec, rule: Rule) -> bool {
    sync.alerts.watches(rule) && (rule != Rule::NotRunFor || !service.is_disabled(sync))
}

fn over(what: &str, now: DateTime<Utc>) -> Finding {
    Finding { severity: Severity::Ok, what: what.to_owned(), since: None, at: now, run: None, hint: None }
}
