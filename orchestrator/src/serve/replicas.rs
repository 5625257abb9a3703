//! Other replicas: each says that it lives, and takes over from those that no longer do.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::Service;
use crate::error::Error;
use crate::run::Holder;

/// How often a replica says that it lives.
const BEAT: Duration = Duration::from_secs(1);
/// After how long without a sign another one counts as gone. Measured on this replica's own clock, so that clocks of
/// machines need not agree. The lease in the warehouse is what keeps two from sending: this only decides who tries.
const SILENCE: Duration = Duration::from_secs(15);
/// How often what is old is forgotten.
const FORGET: Duration = Duration::from_secs(3_600);

/// Beats until the service has ended: also while it ends, so that nobody takes over what is being finished.
pub(super) async fn work(service: Arc<Service>) {
    let mut others: HashMap<String, (i64, Instant)> = HashMap::new();
    let mut forgotten = None;
    loop {
        if let Err(error) = look(&service, &mut others).await {
            tracing::warn!(error = %error, "the store does not answer");
        }
        if forgotten.is_none_or(|at: Instant| at.elapsed() > FORGET) {
            forgotten = Some(Instant::now());
            let history = service.project().serve.history;
            if let Err(error) = service.store.forget_history(history).await {
                tracing::warn!(error = %error, "old runs could not be forgotten");
            }
        }
        if service.is_stopping() && service.running() == 0 {
            return;
        }
        tokio::time::sleep(BEAT).await;
    }
}

async fn look(service: &Service, others: &mut HashMap<String, (i64, Instant)>) -> Result<(), Error> {
    let replicas = service.store.beat(&service.replica, &service.holder).await?;
    let now = Instant::now();
    let mut gone: Vec<String> = Vec::new();
    others.retain(|id, _| replicas.iter().any(|replica| replica.id == *id));
    for replica in &replicas {
        if replica.id == service.replica {
            continue;
        }
        let seen = others.entry(replica.id.clone()).or_insert((replica.beat, now));
        if seen.0 != replica.beat {
            *seen = (replica.beat, now);
        }
        let silent = now.duration_since(seen.1) > SILENCE;
        if silent || replica.holder.as_ref().is_some_and(Holder::is_gone) {
            gone.push(replica.id.clone());
        }
    }
    gone.extend(service.store.orphans().await?);
    let takes_over = !gone.is_empty();
    *service.gone.lock().unwrap_or_else(PoisonError::into_inner) = gone.iter().cloned().collect();
    if takes_over {
        service.wake.notify_waiters();
        service.store.forget_replicas(&gone).await?;
    }
    for run in service.store.asked_to_cancel(&service.replica).await? {
        service.cancel_here(run);
    }
    if service.store.advance_sequences().await? {
        service.wake.notify_waiters();
    }
    service.look_at_disabled().await
}
