//! The one open copy of a DuckDB file that this process may have.
//!
//! DuckDB guards a file with a lock of the operating system that belongs to the *process*: a second
//! opening in one process succeeds, and closing either of the two drops the lock of both. So each
//! file is opened once, by its canonical path, everyone works on a connection of that one opening,
//! and the last to go closes it, before anyone may open it again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use duckdb::{Config, Connection, InterruptHandle};

use super::trouble;
use crate::warehouse::{ErrorKind, WarehouseError};

/// How often a file held by another process is tried again: from the first wait, doubling, to the last.
const FIRST_WAIT: Duration = Duration::from_millis(10);
const LAST_WAIT: Duration = Duration::from_millis(250);
/// How often work that was cancelled is interrupted until it ends.
const INTERRUPT_AGAIN: Duration = Duration::from_millis(20);

/// Every file that this process ever opened.
static FILES: LazyLock<Mutex<HashMap<PathBuf, Arc<Opening>>>> = LazyLock::new(Mutex::default);

/// A database and how to open it.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) location: Location,
    pub(super) memory_limit: Option<String>,
    pub(super) threads: Option<u16>,
    /// How long a lock of another process is waited for.
    pub(super) busy_timeout: Duration,
}

#[derive(Debug)]
pub(super) enum Location {
    /// Lives as long as the [`Database`].
    Memory(Arc<Opening>),
    /// An absolute path.
    File(PathBuf),
}

/// A database that may be open.
#[derive(Debug, Default)]
pub(super) struct Opening(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    connection: Option<Connection>,
    users: usize,
}

/// A connection to a database that stays open as long as anyone has one.
pub(super) struct Lease {
    /// Always there until the lease is dropped.
    connection: Option<Connection>,
    opening: Arc<Opening>,
    /// Whether the database is closed with its last user.
    closes: bool,
}

/// One statement, script or read that is under way, as those see it who may stop it.
#[derive(Default)]
pub(super) struct Running {
    cancelled: AtomicBool,
    handle: Mutex<Option<Arc<InterruptHandle>>>,
}

impl Database {
    /// The canonical path, `:memory:` for a database without a file.
    pub(super) fn identity(&self) -> String {
        match &self.location {
            Location::Memory(_) => ":memory:".into(),
            Location::File(path) => {
                path.canonicalize().as_deref().unwrap_or(path).to_string_lossy().into_owned()
            }
        }
    }

    /// A connection of this caller's own: the one that it still has, or a new one. Blocks while another
    /// process holds the file, for at most the busy timeout, then fails with [`ErrorKind::Busy`] naming the holder.
    #[expect(clippy::disallowed_methods, reason = "runs on a thread of its own: the engine's calls block")]
    pub(super) fn lease(&self, kept: Option<Lease>, running: &Running) -> Result<Lease, WarehouseError> {
        if let Some(lease) = kept {
            running.attach(lease.connection().interrupt_handle());
            running.check()?;
            return Ok(lease);
        }
        let deadline = Instant::now() + self.busy_timeout;
        let mut wait = FIRST_WAIT;
        loop {
            running.check()?;
            match self.try_lease() {
                Err(error) if error.kind == ErrorKind::Busy && Instant::now() < deadline => {
                    std::thread::sleep(wait.min(deadline.saturating_duration_since(Instant::now())));
                    wait = (wait * 2).min(LAST_WAIT);
                }
                Ok(lease) => {
                    running.attach(lease.connection().interrupt_handle());
                    running.check()?;
                    return Ok(lease);
                }
                result => return result,
            }
        }
    }

    fn try_lease(&self) -> Result<Lease, WarehouseError> {
        let (opening, path) = match &self.location {
            Location::Memory(opening) => (opening.clone(), None),
            Location::File(path) => {
                let canonical = existing(path)?;
                (locked(&FILES).entry(canonical.clone()).or_default().clone(), Some(canonical))
            }
        };
        let mut state = opening.state();
        let connection = match &state.connection {
            Some(open) => open.try_clone().map_err(trouble)?,
            None => {
                let opened = self.open(path.as_deref())?;
                let connection = opened.try_clone().map_err(trouble)?;
                state.connection = Some(opened);
                connection
            }
        };
        state.users += 1;
        drop(state);
        Ok(Lease { connection: Some(connection), opening, closes: path.is_some() })
    }

    fn open(&self, path: Option<&Path>) -> Result<Connection, WarehouseError> {
        // Without this, naming an unknown function or format reaches out to the network.
        let mut config = Config::default().with("autoinstall_known_extensions", "false").map_err(trouble)?;
        if let Some(limit) = &self.memory_limit {
            config = config.max_memory(limit).map_err(trouble)?;
        }
        if let Some(threads) = self.threads {
            config = config.threads(threads.into()).map_err(trouble)?;
        }
        let opened = match path {
            Some(path) => Connection::open_with_flags(path, config),
            None => Connection::open_in_memory_with_flags(config),
        };
        let connection = opened.map_err(|error| {
            let mut error = trouble(error);
            if !matches!(error.kind, ErrorKind::Busy | ErrorKind::Permission | ErrorKind::OutOfSpace) {
                error.kind = ErrorKind::Unreachable;
            }
            error
        })?;
        // Only a build with the extension icu knows time zones; without it everything is UTC anyway.
        if let Err(error) = connection.execute_batch("set global TimeZone = 'UTC'") {
            tracing::debug!(%error, "this DuckDB knows no time zones");
        }
        Ok(connection)
    }
}

/// The canonical path of a file that is there.
fn existing(path: &Path) -> Result<PathBuf, WarehouseError> {
    let unreachable = |what: &str| {
        WarehouseError::new(
            ErrorKind::Unreachable,
            format!("{}: {what}; create the database, or correct `path`", path.display()),
        )
    };
    let canonical = path.canonicalize().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => unreachable("no such file"),
        std::io::ErrorKind::PermissionDenied => {
            WarehouseError::new(ErrorKind::Permission, format!("{}: {error}", path.display()))
        }
        _ => unreachable(&error.to_string()),
    })?;
    if canonical.is_dir() { Err(unreachable("is a folder")) } else { Ok(canonical) }
}

impl Opening {
    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.0)
    }
}

impl Lease {
    #[expect(clippy::expect_used, reason = "only `drop` takes the connection")]
    pub(super) fn connection(&self) -> &Connection {
        self.connection.as_ref().expect("is there until the lease is dropped")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = self.opening.state();
        self.connection = None;
        state.users -= 1;
        if state.users == 0 && self.closes {
            // Under the lock: nobody opens the file before it is closed.
            state.connection = None;
        }
    }
}

impl Running {
    /// Stops what runs now, and whatever of the same work would come after it; does nothing to work that is over.
    #[expect(clippy::disallowed_methods, reason = "waits on a thread of its own")]
    pub(super) fn cancel(self: &Arc<Self>) {
        if !self.cancelled.swap(true, Ordering::SeqCst) && self.interrupt() {
            // DuckDB forgets an interrupt that comes between preparing a statement and beginning it.
            let running = self.clone();
            std::thread::spawn(move || {
                while running.interrupt() {
                    std::thread::sleep(INTERRUPT_AGAIN);
                }
            });
        }
    }

    /// Whether there was something to interrupt.
    fn interrupt(&self) -> bool {
        locked(&self.handle).as_ref().map(|handle| handle.interrupt()).is_some()
    }

    /// Does work until its end, behind which nobody interrupts the connection any more.
    pub(super) fn until_its_end<T>(&self, work: impl FnOnce() -> T) -> T {
        struct End<'a>(&'a Running);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                *locked(&self.0.handle) = None;
            }
        }
        let _end = End(self);
        work()
    }

    /// Fails once the work was cancelled.
    pub(super) fn check(&self) -> Result<(), WarehouseError> {
        if self.cancelled.load(Ordering::SeqCst) {
            return Err(WarehouseError::new(ErrorKind::Cancelled, "the statement was cancelled"));
        }
        Ok(())
    }

    fn attach(&self, handle: Arc<InterruptHandle>) {
        *locked(&self.handle) = Some(handle);
    }
}

/// A poisoned lock guards state that every step leaves whole.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
