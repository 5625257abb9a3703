//! One run, from the moment it is claimed until its end is written.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;

use super::{Ended, Running, Service, sequence_wish, wish};
use crate::error::{Error, ErrorCode};
use crate::project::{Project, Schedule, SyncSpec};
use crate::run::{Cancel, Goal, Progress, Request, RunReport, Stage, Status, longest_lease, run_queued};
use crate::store::{Asked, Cause, Claimed, Ending, What, now, text_of_now};
use crate::telemetry::{metrics, traces};

/// How often the store hears how far a run is.
const FLUSH: Duration = Duration::from_millis(500);
/// How long to leave a store alone that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Executes a run and writes how it ended.
pub(super) async fn execute(service: Arc<Service>, claimed: Claimed) {
    let project = service.project();
    let Some(sync) = project.syncs.iter().find(|sync| sync.id == claimed.sync_id).cloned() else {
        let why = "the sync was taken out of the project before the run began";
        never_begin(&service, &claimed, &Error::new(ErrorCode::Cancelled, why)).await;
        return;
    };
    if service.is_disabled(&sync) {
        let why = format!("the sync `{}` was disabled before the run began", sync.slug);
        never_begin(&service, &claimed, &Error::new(ErrorCode::SyncDisabled, why)).await;
        return;
    }
    let cancel = Cancel::default();
    let running = Running { cancel: cancel.clone(), asked: false };
    service.running.lock().unwrap_or_else(PoisonError::into_inner).insert(claimed.run, running);
    // Whoever asked before the run was known here is heard here.
    if service.is_stopping() {
        cancel.cancel();
    }
    let mut report = carry_out(&service, &project, &sync, &claimed, cancel).await;
    if let Some(earlier) = &claimed.earlier {
        report.go_on_from(earlier);
    }
    let text = serde_json::to_string(&report).unwrap_or_default();
    let running = service.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&claimed.run);
    let asked = running.is_some_and(|running| running.asked);
    if service.is_stopping() && !asked && report.status == Status::Cancelled {
        let handed = service.store.hand_back(claimed.run, &service.replica, &text).await;
        if let Err(error) = handed {
            tracing::warn!(run = claimed.run, error = %error, "the run was not handed back; it is taken over");
        }
        return;
    }
    let followers = if matches!(report.status, Status::Success | Status::Warning) {
        followers(&service, &project, &sync, claimed.run)
    } else {
        Vec::new()
    };
    let ending = Ending {
        run: claimed.run,
        replica: &service.replica,
        status: report.status.name(),
        finished_at: &report.finished_at,
        report: &text,
        followers: &followers,
    };
    if record(&service, &ending).await {
        // Of several ticks the oldest is the one that waited longest.
        let ticks = claimed.asked.causes.iter().filter_map(|cause| match cause {
            Cause::Schedule { tick } => Some(*tick),
            _ => None,
        });
        metrics::run_ended(&sync, &report, ticks.min());
        let _ = service.ended.send(Ended { sync, report: Arc::new(report) });
    }
}

async fn carry_out(
    service: &Service,
    project: &Project,
    sync: &Arc<SyncSpec>,
    claimed: &Claimed,
    cancel: Cancel,
) -> RunReport {
    let live = Live::default();
    let request = Request {
        start: claimed.asked.start,
        goal: claimed.asked.approve.map_or(Goal::Deliver, Goal::Apply),
        // A command may run the sync, and a replica that is gone may hold its lease until that ends.
        wait: Some(longest_lease(project, sync) + Duration::from_secs(30)),
    };
    let executed =
        run_queued(project, sync, &service.store, (claimed.run, &service.replica), request, &live, cancel);
    let executed = traces::below(traces::parent(claimed.asked.trace.as_deref()), executed);
    // A fault of levin's own must not leave a run behind that nobody executes and nobody may take over.
    let executed = AssertUnwindSafe(executed).catch_unwind().map(|executed| {
        executed.unwrap_or_else(|_| Err(Error::new(ErrorCode::Internal, "the run broke off: see the log")))
    });
    // Beside the run, not in turn with it: what tells of it may wait for a lock of the store that the run holds.
    let report = tokio::select! {
        report = executed => report,
        never = tell(service, claimed.run, &live) => match never {},
    };
    report.unwrap_or_else(|error| RunReport::never_began(sync, claimed.run, &error))
}

/// Tells the store how far a run is, as long as it goes on.
async fn tell(service: &Service, run: i64, live: &Live) -> Infallible {
    let mut told = None;
    loop {
        let now = live.now();
        let (stage, done, total) = now;
        if told != Some(now) && service.store.progress(run, stage, done, total).await.is_ok() {
            told = Some(now);
        }
        tokio::time::sleep(FLUSH).await;
    }
}

/// Writes how a run ended, however long the store takes: until then nobody else can run the sync.
async fn record(service: &Service, ending: &Ending<'_>) -> bool {
    loop {
        match service.store.finish(ending).await {
            Ok(ended) => {
                if ended.is_none() {
                    tracing::warn!(run = ending.run, "another replica has taken the run over");
                }
                match service.store.advance_sequences().await {
                    Ok(_) => {}
                    Err(error) => tracing::warn!(error = %error, "sequences go on in a moment"),
                }
                service.wake.notify_waiters();
                return ended.is_some();
            }
            Err(error) => {
                tracing::warn!(run = ending.run, error = %error, "how the run ended could not be written");
                if service.is_stopping() {
                    return false;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Ends a run that there is nothing to be done for any more.
async fn never_begin(service: &Service, claimed: &Claimed, error: &Error) {
    let report = serde_json::json!({
        "syncId": claimed.sync_id, "id": claimed.run, "status": "cancelled",
        "error": {"code": error.code.name(), "message": error.message, "hint": error.advice()},
    });
    let ending = Ending {
        run: claimed.run,
        replica: &service.replica,
        status: Status::Cancelled.name(),
        finished_at: &text_of_now(),
        report: &report.to_string(),
        followers: &[],
    };
    record(service, &ending).await;
}

/// What follows a sync, each with everything that it follows.
fn followers(service: &Service, project: &Project, parent: &SyncSpec, run: i64) -> Vec<(What, Vec<i64>)> {
    let cause = || Cause::After { sync: parent.slug.clone(), run };
    // The parents' numbers, of a schedule that has this sync among them.
    let parents = |schedule: Option<&Schedule>| match schedule {
        Some(Schedule::After(parents)) if parents.contains(&parent.slug) => {
            Some(parents.iter().filter_map(|slug| Some(project.sync(slug).ok()?.id)).collect::<Vec<i64>>())
        }
        _ => None,
    };
    let syncs = project.syncs.iter().filter(|sync| !service.is_disabled(sync)).filter_map(|sync| {
        let parents = parents(sync.schedule.as_ref())?;
        Some((What::Sync(wish(sync, Asked::because(cause()), now())), parents))
    });
    let sequences = project.sequences.iter().filter_map(|sequence| {
        let parents = parents(sequence.schedule.as_ref())?;
        Some((What::Sequence(sequence_wish(project, sequence, cause(), now()).ok()?), parents))
    });
    syncs.chain(sequences).collect()
}

/// How far a run is.
struct Live {
    stage: Mutex<Stage>,
    done: AtomicU64,
    total: AtomicU64,
}

impl Default for Live {
    fn default() -> Self {
        Self { stage: Mutex::new(Stage::Prepare), done: AtomicU64::new(0), total: AtomicU64::new(0) }
    }
}

impl Live {
    fn now(&self) -> (Stage, u64, u64) {
        let stage = *self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        (stage, self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }
}

impl Progress for Live {
    fn stage(&self, _: &str, stage: Stage, _: &str, _: f64) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage.next().unwrap_or(stage);
    }

    fn delivered(&self, _: &str, done: u64, total: u64) {
        self.done.store(done, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }
}
