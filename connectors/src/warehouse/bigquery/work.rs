//! What a session runs now: whom to tell when it is to stop, and what to stop when nobody waits any more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tracing::Instrument;

use super::Shared;
use super::api::{Failure, Job};
use crate::warehouse::{Canceller, ErrorKind, WarehouseError};

/// One call of a session: a job, or several one after the other.
#[derive(Debug, Default)]
pub(super) struct Work(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    job: Option<Job>,
    /// Somebody asked it to stop.
    asked: bool,
    /// BigQuery was told so, of the current job.
    told: bool,
}

impl Work {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses to begin another job once somebody asked to stop.
    pub(super) fn check(&self) -> Result<(), WarehouseError> {
        if self.state().asked {
            return Err(WarehouseError::new(ErrorKind::Cancelled, "the statement was cancelled"));
        }
        Ok(())
    }
}

/// The session's latest work; cancelling stops that.
#[derive(Debug)]
pub(super) struct CurrentWork {
    shared: Arc<Shared>,
    work: Mutex<Arc<Work>>,
}

impl CurrentWork {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, work: Mutex::default() }
    }

    /// Work that is known to the canceller from now on.
    pub(super) fn start(&self) -> Arc<Work> {
        let work = Arc::new(Work::default());
        *self.work.lock().unwrap_or_else(PoisonError::into_inner) = work.clone();
        work
    }
}

#[async_trait]
impl Canceller for CurrentWork {
    async fn cancel(&self) -> Result<(), WarehouseError> {
        let work = self.work.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let job = {
            let mut state = work.state();
            // What has not begun, or is over, is not stopped.
            state.asked |= state.job.is_some();
            state.job.clone()
        };
        match job {
            Some(job) => self.shared.api.cancel(&job).await,
            None => Ok(()),
        }
    }
}

/// A job of which the end was not seen yet; dropped before, it is asked to stop.
pub(super) struct Unfinished {
    shared: Arc<Shared>,
    work: Arc<Work>,
}

impl Unfinished {
    /// From before the request leaves: nobody knows when it arrives.
    pub(super) fn begin(shared: &Arc<Shared>, work: &Arc<Work>, job: Job) -> Self {
        let mut state = work.state();
        state.job = Some(job);
        state.told = false;
        drop(state);
        Self { shared: shared.clone(), work: work.clone() }
    }

    /// The job, with the place that is known of it.
    pub(super) fn job(&self) -> Job {
        self.work.state().job.clone().unwrap_or_else(|| Job { id: String::new(), location: None })
    }

    /// The job is there, under this name and in this place; a request to stop may have come before it.
    pub(super) async fn is_at(&self, job: &Job) -> Result<(), WarehouseError> {
        self.work.state().job = Some(job.clone());
        self.tell().await
    }

    /// Passes on that the job is to stop, once.
    pub(super) async fn tell(&self) -> Result<(), WarehouseError> {
        let job = {
            let mut state = self.work.state();
            let due = state.asked && !state.told;
            state.told |= due;
            state.job.clone().filter(|_| due)
        };
        match job {
            Some(job) => self.shared.api.cancel(&job).await,
            None => Ok(()),
        }
    }

    /// Its end was seen.
    pub(super) fn end(&self) {
        self.work.state().job = None;
    }

    /// The same result; the job's own error is its end.
    pub(super) fn settled<T>(&self, result: Result<T, Failure>) -> Result<T, Failure> {
        if matches!(&result, Err(failure) if failure.of_job.is_some()) {
            self.end();
        }
        result
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let Some(job) = self.work.state().job.take() else { return };
        let shared = self.shared.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let stopped = async move {
                if let Err(error) = shared.api.cancel(&job).await {
                    tracing::debug!(job = job.id, %error, "a job that nobody waits for could not be stopped");
                }
            };
            runtime.spawn(stopped.in_current_span());
        }
    }
}
