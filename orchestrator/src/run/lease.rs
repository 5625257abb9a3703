//! Who runs a sync: one holder at a time, fenced by a generation that only grows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use connectors::retry::{Gate, Stopped};
use connectors::warehouse::{Effect, ErrorKind, Session, Tag, Warehouse, WarehouseError};
use serde::{Deserialize, Serialize};
use sql_templates::{Atomicity, Script, Statement, SyncTables, script};
use tokio::sync::{Mutex, Notify};
use tokio::task::JoinHandle;
use tracing::Instrument;

use crate::error::Error;

/// Who holds a lease, as the state's row says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The host's name, for people.
    pub host: String,
    /// The boot of that host.
    pub boot: String,
    /// The process-id namespace.
    pub namespace: String,
    /// The process.
    pub pid: u32,
    /// When the process began, in ticks since the boot: a pid that is used again is another process.
    pub started: u64,
    /// The server session with which it writes.
    pub session: Option<String>,
}

impl Holder {
    /// This process.
    pub fn this(session: Option<String>) -> Self {
        let pid = std::process::id();
        Self {
            host: read("/proc/sys/kernel/hostname"),
            boot: read("/proc/sys/kernel/random/boot_id"),
            namespace: std::fs::read_link("/proc/self/ns/pid")
                .map(|p| p.display().to_string())
                .unwrap_or_default(),
            pid,
            started: process_start(pid).unwrap_or_default(),
            session,
        }
    }

    /// Whether the holder is certainly gone: it ran on this host, in this boot and this process-id
    /// namespace, and its process is not there any more.
    pub fn is_gone(&self) -> bool {
        let here = Self::this(None);
        let comparable = !here.boot.is_empty() && here.boot == self.boot && here.namespace == self.namespace;
        comparable && process_start(self.pid) != Some(self.started)
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// Field 22 of `/proc/PID/stat` (proc(5)): the second field may hold spaces, so fields count from
/// the last `)`. A zombie counts as gone: it sends nothing.
fn process_start(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    if matches!(fields.first(), Some(&("Z" | "X"))) {
        return None;
    }
    fields.get(19)?.parse().ok()
}

/// Milliseconds on a clock that goes on while the machine is suspended.
fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(time.tv_sec).unwrap_or_default() * 1_000
        + u64::try_from(time.tv_nsec).unwrap_or_default() / 1_000_000
}

/// Asks a run to stop: requests in flight are finished and committed.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<CancelState>);

#[derive(Debug, Default)]
struct CancelState {
    asked: AtomicBool,
    changed: Notify,
}

impl Cancel {
    /// Asks.
    pub fn cancel(&self) {
        self.0.asked.store(true, Ordering::SeqCst);
        self.0.changed.notify_waiters();
    }

    /// Whether someone asked.
    pub fn is_cancelled(&self) -> bool {
        self.0.asked.load(Ordering::SeqCst)
    }

    /// Ends once someone asks.
    pub async fn cancelled(&self) {
        loop {
            let changed = self.0.changed.notified();
            if self.is_cancelled() {
                return;
            }
            changed.await;
        }
    }
}

/// How many times longer a lease lasts during a commit that locks nobody out.
pub const COMMIT_LEASES: u32 = 5;

/// The lease of one run: renewed in the background until dropped.
#[derive(Debug)]
pub struct Lease {
    state: Arc<LeaseState>,
    heartbeat: JoinHandle<()>,
    /// Makes the lease last through a commit, where whoever takes over would undo it.
    prolonging: Option<Script>,
}

#[derive(Debug)]
struct LeaseState {
    generation: i64,
    /// Until when this process may believe that it holds the lease.
    deadline: AtomicU64,
    lost: AtomicBool,
    /// No batch may begin any more, although the lease holds: the stop rules said so.
    closed: AtomicBool,
    changed: Notify,
    cancel: Cancel,
    /// Held by whoever in this process writes the state's row. A renewal beside a commit would wait for its lock, or
    /// undo it.
    row: Mutex<()>,
}

impl Lease {
    /// Begins to renew a lease that was just taken; `asked_at` is [`Lease::clock`] from before it was.
    pub fn hold(
        warehouse: Arc<dyn Warehouse>,
        tables: SyncTables,
        sync: String,
        generation: i64,
        length: Duration,
        asked_at: u64,
        cancel: Cancel,
    ) -> Self {
        let state = Arc::new(LeaseState {
            generation,
            deadline: AtomicU64::new(asked_at + millis(length)),
            lost: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            changed: Notify::new(),
            cancel,
            row: Mutex::default(),
        });
        let prolonging = (!warehouse.dialect().facts().holds_rows)
            .then(|| renewal(warehouse.as_ref(), &tables, generation, length * COMMIT_LEASES))
            .flatten();
        let heartbeat = tokio::spawn(renew(state.clone(), warehouse, tables, sync, length).in_current_span());
        Self { state, heartbeat, prolonging }
    }

    /// Runs a commit of this lease's holder, and no renewal beside it.
    ///
    /// The fence of the commit, not the lease's end, keeps it apart from another holder's. Where its transaction holds
    /// the state's row, whoever wants to take over waits until it has set the lease anew; elsewhere it begins with a
    /// lease of several lengths, which it makes an ordinary one again.
    pub async fn commit(&self, session: &mut dyn Session, commit: &Script) -> Result<Effect, WarehouseError> {
        let _row = self.state.row.lock().await;
        if let Some(prolonging) = &self.prolonging {
            session.execute(prolonging).await?;
        }
        session.execute(commit).await
    }

    /// The clock on which leases are measured.
    pub fn clock() -> u64 {
        now()
    }

    /// The generation that the lease stands for.
    pub fn generation(&self) -> i64 {
        self.state.generation
    }

    /// Whether another holder took over, or may have.
    pub fn is_lost(&self) -> bool {
        self.state.lost.load(Ordering::SeqCst)
    }

    /// The gate before every request of this run.
    pub fn gate(&self) -> Arc<dyn Gate> {
        Arc::new(LeaseGate(self.state.clone()))
    }

    /// Renews no more: the lease is about to be given up.
    pub fn stop_renewing(&self) {
        self.heartbeat.abort();
    }

    /// Admits no further request.
    pub fn close_gate(&self) {
        self.state.closed.store(true, Ordering::SeqCst);
        self.state.changed.notify_waiters();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.heartbeat.abort();
    }
}

/// Admits a request only while the lease outlives the request's time-out.
struct LeaseGate(Arc<LeaseState>);

impl LeaseGate {
    fn is_stopped(&self) -> bool {
        self.0.lost.load(Ordering::SeqCst)
            || self.0.closed.load(Ordering::SeqCst)
            || self.0.cancel.is_cancelled()
    }
}

#[async_trait]
impl Gate for LeaseGate {
    async fn admit(&self, timeout: Duration) -> Result<(), Stopped> {
        loop {
            let changed = self.0.changed.notified();
            if self.is_stopped() {
                return Err(Stopped);
            }
            if now() + millis(timeout) < self.0.deadline.load(Ordering::SeqCst) {
                return Ok(());
            }
            tokio::select! {
                () = changed => {}
                () = self.0.cancel.cancelled() => {}
            }
        }
    }

    async fn stopped(&self) {
        loop {
            let changed = self.0.changed.notified();
            if self.is_stopped() {
                return;
            }
            tokio::select! {
                () = changed => {}
                () = self.0.cancel.cancelled() => {}
            }
        }
    }
}

fn renewal(
    warehouse: &dyn Warehouse,
    tables: &SyncTables,
    generation: i64,
    length: Duration,
) -> Option<Script> {
    let renewal = Statement::RenewLease { tables, generation, lease_seconds: seconds(length) };
    script(warehouse.dialect(), Atomicity::Transaction, &[renewal]).ok()
}

/// Renews a lease three times within its length, but not during a commit, until it is lost: until someone else has
/// it, or until the warehouse could not be asked for a whole length, beyond its end.
async fn renew(
    state: Arc<LeaseState>,
    warehouse: Arc<dyn Warehouse>,
    tables: SyncTables,
    sync: String,
    length: Duration,
) {
    let tag = Tag { sync, run: None, stage: "prepare" };
    let Some(renewal) = renewal(warehouse.as_ref(), &tables, state.generation, length) else { return };
    let mut session = None;
    let mut pause = length / 3;
    let mut failing_since = None;
    loop {
        tokio::time::sleep(pause).await;
        let row = state.row.lock().await;
        let asked_at = now();
        let outcome: Result<(), Error> = async {
            let mut open = match session.take() {
                Some(open) => open,
                None => warehouse.session(&tag).await?,
            };
            open.execute(&renewal).await.map_err(|e| {
                if e.kind == ErrorKind::Fenced {
                    state.lost.store(true, Ordering::SeqCst);
                }
                Error::from(e)
            })?;
            session = Some(open);
            Ok(())
        }
        .await;
        drop(row);
        pause = length / 3;
        match outcome {
            Ok(()) => {
                failing_since = None;
                state.deadline.store(asked_at + millis(length), Ordering::SeqCst);
                // The row was locked for longer than the lease: the generation says that nobody took
                // over meanwhile, but from when the lease now counts is too long ago to send on.
                if now() >= asked_at + millis(length) {
                    pause = Duration::ZERO;
                }
            }
            Err(error) => {
                tracing::warn!(error = %error, "cannot renew the lease");
                // Nothing is sent meanwhile: the gate waits for a deadline that lies ahead. A commit may have lasted
                // beyond it, and says nothing of whether the warehouse can be asked.
                let end = state.deadline.load(Ordering::SeqCst).max(*failing_since.get_or_insert(asked_at));
                if now() >= end + millis(length) {
                    state.lost.store(true, Ordering::SeqCst);
                }
            }
        }
        state.changed.notify_waiters();
        if state.lost.load(Ordering::SeqCst) {
            return;
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 4)
}

/// Whole seconds, at least one and never fewer than asked: the warehouse must not give a lease to
/// another holder while this one believes in it.
pub fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis().div_ceil(1_000)).unwrap_or(i64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_gone_only_when_that_is_certain() {
        let this = Holder::this(None);
        assert!(!this.is_gone(), "this process is there");
        assert!(
            Holder { started: this.started + 1, ..this.clone() }.is_gone(),
            "the pid is used by another process"
        );
        assert!(
            !Holder { boot: "another".to_owned(), pid: 1, ..this.clone() }.is_gone(),
            "another boot cannot be judged"
        );
        assert!(!Holder { namespace: "pid:[1]".to_owned(), started: 0, ..this }.is_gone());
    }

    #[test]
    fn the_warehouse_never_ends_a_lease_before_its_holder_does() {
        for (millis, whole) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (59_500, 60), (60_000, 60)] {
            assert_eq!(seconds(Duration::from_millis(millis)), whole, "{millis} ms");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_request_begins_that_the_lease_does_not_outlive() {
        let state = Arc::new(LeaseState {
            generation: 1,
            deadline: AtomicU64::new(now() + 1_000),
            lost: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            changed: Notify::new(),
            cancel: Cancel::default(),
            row: Mutex::default(),
        });
        let gate = LeaseGate(state.clone());
        let long = Duration::from_secs(60);
        assert!(gate.admit(Duration::from_millis(1)).await.is_ok(), "a short request fits");
        let waiting = tokio::time::timeout(Duration::from_secs(5), gate.admit(long)).await;
        assert!(waiting.is_err(), "a request that could outlive the lease waits");
        // A renewal lets it go, a loss turns it away.
        let renewal = async {
            tokio::task::yield_now().await;
            state.deadline.store(now() + 120_000, Ordering::SeqCst);
            state.changed.notify_waiters();
        };
        let (admitted, ()) = tokio::join!(gate.admit(long), renewal);
        assert!(admitted.is_ok());
        state.lost.store(true, Ordering::SeqCst);
        assert!(gate.admit(Duration::ZERO).await.is_err());
    }
}
