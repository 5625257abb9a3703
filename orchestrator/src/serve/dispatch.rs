//! Who executes what: runs that wait are claimed as far as there is room, and executed.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::task::{Id, JoinSet};

use super::{Service, execute};

/// How long a run that another replica queued, or that was put off, may lie unnoticed.
const LOOK: Duration = Duration::from_millis(500);

/// Executes runs until the service ends and the last of them has.
pub(super) async fn work(service: Arc<Service>) {
    let mut runs = JoinSet::new();
    let mut executing: HashMap<Id, i64> = HashMap::new();
    loop {
        // Asked before looking: what is queued meanwhile wakes at once.
        let wake = service.wake.notified();
        tokio::pin!(wake);
        wake.as_mut().enable();
        if service.is_stopping() {
            break;
        }
        let room = service.project().serve.runs_at_once.saturating_sub(runs.len());
        let gone: Vec<String> =
            service.gone.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
        let taken = executing.values().copied().collect();
        match service.store.claim(&service.replica, room, &service.limits(), &gone, &taken).await {
            Ok(claimed) => {
                for claimed in claimed {
                    let run = claimed.run;
                    executing.insert(runs.spawn(execute::execute(service.clone(), claimed)).id(), run);
                }
            }
            Err(error) => tracing::warn!(error = %error, "what waits could not be looked at"),
        }
        tokio::select! {
            () = &mut wake => {}
            () = tokio::time::sleep(LOOK) => {}
            Some(ended) = runs.join_next_with_id() => {
                executing.remove(&ended.map_or_else(|error| error.id(), |(id, ())| id));
            }
        }
    }
    while runs.join_next().await.is_some() {}
}
