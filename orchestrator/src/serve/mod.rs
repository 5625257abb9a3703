//! The service: turns schedules and questions into runs, executes them, and survives its own end.
//!
//! Everything that matters stands in the store. Of what is kept here nothing is missed by whoever takes over: the
//! project as it was read last, which runs go on in this process, and what wakes whom.

mod dispatch;
mod execute;
mod replicas;
mod scheduler;
mod watch;

pub use watch::files;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Notify, broadcast};
use tokio::task::JoinSet;

use crate::alert;
use crate::command::Context;
use crate::error::{Error, ErrorCode};
use crate::project::{Project, SequenceSpec, SyncSpec};
use crate::run::{Cancel, Holder, RunReport};
use crate::store::{
    Asked, Cause, Limits, MemberWish, Placed, SequenceWish, Store, Times, Wish, now, text_of_now,
};

/// How long runs may take to come to their end when the service ends.
const GRACE: Duration = Duration::from_secs(60);

/// A run that ended in this process.
#[derive(Debug, Clone)]
pub struct Ended {
    /// The sync as it was when it ran.
    pub sync: Arc<SyncSpec>,
    /// How it ended.
    pub report: Arc<RunReport>,
}

/// The service, shared by everything that runs in it.
#[derive(Debug)]
pub struct Service {
    store: Store,
    context: Context,
    /// This start of this process.
    replica: String,
    holder: Holder,
    project: tokio::sync::watch::Sender<Arc<Project>>,
    /// Since when its objects are there: by the word of their kind and their number.
    times: RwLock<Arc<HashMap<(String, i64), Times>>>,
    /// Syncs that somebody disabled, beside those whose file says so.
    disabled: tokio::sync::watch::Sender<Arc<HashSet<i64>>>,
    running: Mutex<HashMap<i64, Running>>,
    /// Replicas whose runs are to be taken over.
    gone: Mutex<HashSet<String>>,
    /// Another replica that lives goes by other files of the project.
    disagrees: AtomicBool,
    /// One of those has a name before this one's.
    listens: AtomicBool,
    wake: Notify,
    ended: broadcast::Sender<Ended>,
    stopping: Cancel,
    /// How the project's files looked before it was read first.
    files: blake3::Hash,
}

#[derive(Debug, Clone, Default)]
struct Running {
    cancel: Cancel,
    /// Somebody asked for its end, not the end of the process.
    asked: bool,
}

impl Service {
    /// The service of a project, not begun yet; `files` is how its [`files`] looked before it was read.
    pub async fn new(
        context: Context,
        project: Project,
        store: Store,
        files: blake3::Hash,
    ) -> Result<Arc<Self>, Error> {
        let disabled = store.disabled().await?.into_keys().collect();
        let times = watch::times(&store, &project).await?;
        let holder = Holder::this(None);
        let replica = format!("{}-{}-{}", holder.host, holder.pid, uuid::Uuid::new_v4().simple());
        Ok(Arc::new(Self {
            store,
            context,
            replica,
            holder,
            project: tokio::sync::watch::Sender::new(Arc::new(project)),
            times: RwLock::new(Arc::new(times)),
            disabled: tokio::sync::watch::Sender::new(Arc::new(disabled)),
            running: Mutex::default(),
            gone: Mutex::default(),
            disagrees: AtomicBool::new(false),
            listens: AtomicBool::new(false),
            wake: Notify::new(),
            ended: broadcast::Sender::new(1_024),
            stopping: Cancel::default(),
            files,
        }))
    }

    /// Works until [`Service::stop`] is called, and then until everything has come to its end.
    pub async fn work(self: &Arc<Self>) {
        let mut parts = JoinSet::new();
        parts.spawn(scheduler::work(self.clone()));
        parts.spawn(dispatch::work(self.clone()));
        parts.spawn(replicas::work(self.clone()));
        parts.spawn(watch::work(self.clone()));
        parts.spawn(alert::evaluate(self.clone()));
        parts.spawn(alert::send(self.clone()));
        self.stopping.cancelled().await;
        let under_way = {
            let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.values().for_each(|running| running.cancel.cancel());
            running.len()
        };
        tracing::info!(
            runs = under_way,
            "asked to end: runs finish what is under way and go back to the queue"
        );
        let ended = async { while parts.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, ended).await.is_err() {
            tracing::warn!("some runs did not end in time; whoever comes next takes them over");
        }
        if let Err(error) = self.store.forget_replicas(std::slice::from_ref(&self.replica)).await {
            tracing::warn!(error = %error, "the end of this replica was not noted");
        }
    }

    /// Asks the service to end: no run begins any more, those that go on finish what is under way, commit, and go
    /// back to the queue.
    pub fn stop(&self) {
        self.stopping.cancel();
        self.wake.notify_waiters();
    }

    /// Whether it was asked to end.
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Ends once the service was asked to.
    pub async fn stopped(&self) {
        self.stopping.cancelled().await;
    }

    /// The project as it was read last.
    pub fn project(&self) -> Arc<Project> {
        self.project.borrow().clone()
    }

    /// Since when the objects of the project are there, and as they are: by the word of their kind and their number.
    pub fn times(&self) -> Arc<HashMap<(String, i64), Times>> {
        self.times.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the project again. One with mistakes changes nothing, and the error says what they are.
    pub async fn reload(&self) -> Result<(), Error> {
        watch::reload(self).await
    }

    /// Goes on with a project that was read just now, and found right.
    ///
    /// # Errors
    /// `PROJECT_INVALID` for another project.
    pub async fn take(&self, project: Project) -> Result<(), Error> {
        watch::take(self, project).await
    }

    /// What the service remembers.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What commands have: where the project lies, what levin can talk to, what must not be shown.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The name of this replica.
    pub fn replica(&self) -> &str {
        &self.replica
    }

    /// Hears of every run that ends in this process.
    pub fn ended(&self) -> broadcast::Receiver<Ended> {
        self.ended.subscribe()
    }

    /// Whether every replica that lives goes by the same project, as far as this one has heard. While they do not, what
    /// another one knows better is left to it.
    pub fn is_of_one_mind(&self) -> bool {
        !self.disagrees.load(Ordering::Relaxed)
    }

    /// Whether this replica says what follows from the project and the clock alone: each does, and while they go by
    /// different projects one of them.
    pub fn speaks(&self) -> bool {
        !self.listens.load(Ordering::Relaxed)
    }

    /// How many runs go on in this process.
    pub fn running(&self) -> usize {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether a sync rests: its file says so, or somebody did.
    pub fn is_disabled(&self, sync: &SyncSpec) -> bool {
        sync.disabled || self.disabled.borrow().contains(&sync.id)
    }

    /// Disables a sync or enables it again.
    ///
    /// # Errors
    /// `USAGE` for one whose file disables it.
    pub async fn set_disabled(&self, sync: &SyncSpec, disabled: bool) -> Result<(), Error> {
        if sync.disabled && !disabled {
            let message = format!("{} says `disabled: true`", sync.file.display());
            return Err(Error::new(ErrorCode::Usage, message).hint("take that out of the file"));
        }
        self.store.set_disabled(sync.id, disabled.then(text_of_now).as_deref()).await?;
        self.look_at_disabled().await
    }

    async fn look_at_disabled(&self) -> Result<(), Error> {
        let disabled: HashSet<i64> = self.store.disabled().await?.into_keys().collect();
        self.disabled.send_if_modified(|known| {
            let changed = **known != disabled;
            *known = Arc::new(disabled);
            changed
        });
        Ok(())
    }

    /// Asks for a run of a sync. `once` is the caller's own key for this question: asked again with it, the answer
    /// is the same run.
    ///
    /// # Errors
    /// `SYNC_DISABLED`; `SYNC_BUSY` when a run waits that does something else; `USAGE` when the key was used for
    /// another question.
    pub async fn trigger(
        &self,
        sync: &SyncSpec,
        asked: Asked,
        once: Option<(&str, &str)>,
    ) -> Result<Placed, Error> {
        if self.is_disabled(sync) {
            // Who asks again hears what was answered, whatever has changed since.
            if let Some((key, digest)) = once
                && let Some(placed) = self.store.answered(key, digest).await?
            {
                return Ok(placed);
            }
            let message = format!("the sync `{}` is disabled", sync.slug);
            return Err(Error::new(ErrorCode::SyncDisabled, message));
        }
        let wish = wish(sync, asked, now());
        let placed = match once {
            Some((key, digest)) => self.store.ask_once(&wish, key, digest).await?,
            None => self.store.ask(&wish).await?,
        };
        self.wake.notify_waiters();
        Ok(placed)
    }

    /// Asks for a run of a sequence, and returns its number: that of the one that goes on, if there is one.
    pub async fn trigger_sequence(&self, sequence: &SequenceSpec, cause: Cause) -> Result<String, Error> {
        let id = self.store.ask_sequence(&sequence_wish(&self.project(), sequence, cause, now())?).await?;
        self.wake.notify_waiters();
        Ok(id)
    }

    /// Cancels a run, wherever it goes on: requests under way are finished and committed. `false` when it is over.
    pub async fn cancel_run(&self, run: i64) -> Result<bool, Error> {
        let cancelled = self.store.cancel_run(run, &text_of_now()).await?;
        self.cancel_here(run);
        self.wake.notify_waiters();
        Ok(cancelled)
    }

    fn cancel_here(&self, run: i64) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = running.get_mut(&run) {
            running.asked = true;
            running.cancel.cancel();
        }
    }

    fn limits(&self) -> Limits {
        let project = self.project();
        let sources = project.sources.iter().filter_map(|source| Some((source.id, source.runs_at_once?)));
        let destinations = project.destinations.iter().filter_map(|to| Some((to.id, to.runs_at_once?)));
        // Once all replicas have read the same, a sync that this one does not know is in no project any more.
        let known = || project.syncs.iter().map(|sync| sync.id).collect();
        let syncs = (!self.is_of_one_mind()).then(known);
        Limits { syncs, sources: sources.collect(), destinations: destinations.collect() }
    }
}

/// What a run of a sync is asked for with.
fn wish(sync: &SyncSpec, asked: Asked, ready_at: i64) -> Wish {
    Wish {
        sync_id: sync.id,
        sync: sync.slug.clone(),
        source_id: sync.model.source.id,
        destination_id: sync.destination.id,
        asked,
        ready_at,
    }
}

fn sequence_wish(
    project: &Project,
    sequence: &SequenceSpec,
    cause: Cause,
    ready_at: i64,
) -> Result<SequenceWish, Error> {
    let members = sequence.members.iter().map(|member| {
        let sync = project.sync(&member.sync)?;
        Ok(MemberWish {
            sync_id: sync.id,
            sync: sync.slug.clone(),
            source_id: sync.model.source.id,
            destination_id: sync.destination.id,
            on_failure: member.on_failure,
            max_rejected: member.max_rejected,
            rests: sync.disabled,
        })
    });
    Ok(SequenceWish {
        sequence_id: sequence.id,
        sequence: sequence.slug.clone(),
        members: members.collect::<Result<_, Error>>()?,
        cause,
        ready_at,
    })
}
