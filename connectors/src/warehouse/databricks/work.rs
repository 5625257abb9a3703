//! What a session runs now: whom to tell when it is to stop, and what to stop when nobody waits any more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::Instrument;

use super::api::{Answer, Api, Ended, Safety, State};
use super::trouble::Said;
use super::{FIRST_POLL, LONGEST_POLL};
use crate::warehouse::{Canceller, ErrorKind, WarehouseError};

/// One call of a session: a statement, or several one after the other, and the reading of what they return.
#[derive(Debug)]
pub(super) struct Work {
    asked: watch::Sender<bool>,
    /// The statement that runs, once its name is known.
    running: Mutex<Option<String>>,
}

impl Work {
    fn running(&self) -> MutexGuard<'_, Option<String>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails once somebody asked to stop.
    pub(super) fn check(&self) -> Result<(), WarehouseError> {
        if *self.asked.borrow() { Err(cancelled()) } else { Ok(()) }
    }

    /// Returns once somebody asks to stop.
    pub(super) async fn until_asked(&self) {
        let mut asked = self.asked.subscribe();
        // It fails when nobody can ask any more, and this holds the one who can.
        let _ = asked.wait_for(|asked| *asked).await;
    }
}

pub(super) fn cancelled() -> WarehouseError {
    WarehouseError::new(ErrorKind::Cancelled, "the statement was cancelled")
}

/// The session's latest work; cancelling stops that.
#[derive(Debug)]
pub(super) struct Current {
    api: Arc<Api>,
    work: Mutex<Arc<Work>>,
}

impl Current {
    pub(super) fn new(api: Arc<Api>) -> Self {
        Self { api, work: Mutex::new(new_work()) }
    }

    /// Work that is known to the canceller from now on.
    pub(super) fn start(&self) -> Arc<Work> {
        let work = new_work();
        *self.work.lock().unwrap_or_else(PoisonError::into_inner) = work.clone();
        work
    }
}

fn new_work() -> Arc<Work> {
    Arc::new(Work { asked: watch::Sender::new(false), running: Mutex::default() })
}

#[async_trait]
impl Canceller for Current {
    async fn cancel(&self) -> Result<(), WarehouseError> {
        let work = self.work.lock().unwrap_or_else(PoisonError::into_inner).clone();
        work.asked.send_replace(true);
        let running = work.running().clone();
        match running {
            Some(id) => self.api.cancel(&id).await,
            None => Ok(()),
        }
    }
}

/// A statement of which the end was not seen yet.
#[derive(Default)]
struct Begun {
    id: Option<String>,
    /// Nobody waits for it any more.
    gone: bool,
}

/// Stops the statement when it is dropped before its end was seen, whether or not its name is known by then.
struct Unfinished {
    api: Arc<Api>,
    work: Arc<Work>,
    begun: Arc<Mutex<Begun>>,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        *self.work.running() = None;
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        begun.gone = true;
        if let Some(id) = begun.id.take() {
            stop(&self.api, id);
        }
    }
}

impl Unfinished {
    fn ended(&self) {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).id = None;
    }
}

fn stop(api: &Arc<Api>, id: String) {
    let api = api.clone();
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        let stopped = async move {
            if let Err(error) = api.cancel(&id).await {
                tracing::debug!(statement = id, %error, "a statement that nobody waits for could not be stopped");
            }
        };
        runtime.spawn(stopped.in_current_span());
    }
}

/// Runs a statement to its end. The inner error is the statement's own: it had no effect.
pub(super) async fn run(
    api: &Arc<Api>,
    work: &Arc<Work>,
    request: &Value,
    safety: Safety,
) -> Result<Result<Ended, Said>, WarehouseError> {
    let begun = Arc::new(Mutex::new(Begun::default()));
    let unfinished = Unfinished { api: api.clone(), work: work.clone(), begun: begun.clone() };
    // On its own, so that it is known which statement is to be stopped even if nobody waits for the answer.
    let asking = tokio::spawn({
        let (api, request) = (api.clone(), request.clone());
        async move {
            let answer = api.begin(&request, safety).await;
            if let Ok(answer) = &answer {
                let mut begun = begun.lock().unwrap_or_else(PoisonError::into_inner);
                if begun.gone {
                    stop(&api, answer.id.clone());
                } else {
                    begun.id = Some(answer.id.clone());
                }
            }
            answer
        }
        .in_current_span()
    });
    let mut answer: Answer = asking
        .await
        .map_err(|e| WarehouseError::new(ErrorKind::Other, format!("the Databricks driver failed: {e}")))??;
    let id = answer.id.clone();
    *work.running() = Some(id.clone());
    if work.check().is_err() {
        // Somebody asked before the statement had a name.
        api.cancel(&id).await?;
    }
    let deadline = api.statement_timeout.map(|timeout| Instant::now() + timeout);
    let mut wait = FIRST_POLL;
    loop {
        match answer.status.state {
            State::Pending | State::Running => {}
            State::Succeeded => {
                unfinished.ended();
                return Ok(Ok(Ended { id, answer }));
            }
            State::Failed => {
                unfinished.ended();
                return Ok(Err(answer.status.said()));
            }
            State::Canceled => {
                unfinished.ended();
                return Err(cancelled());
            }
            State::Closed => {
                unfinished.ended();
                let message = "the statement has ended well, and Databricks no longer says what it did";
                return Err(WarehouseError::new(ErrorKind::ConnectionLost, message));
            }
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            api.cancel(&id).await?;
            unfinished.ended();
            let limit = api.statement_timeout.unwrap_or_default();
            let message =
                format!("the statement took longer than {limit:?}, which `statement_timeout` allows");
            return Err(WarehouseError::new(ErrorKind::TookTooLong, message));
        }
        sleep(wait).await;
        wait = wait.mul_f64(1.6).min(LONGEST_POLL);
        answer = api.state(&id).await?;
    }
}
