//! Other replicas: each says that it lives, and takes over from those that no longer do.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::Service;
use crate::error::{Error, ErrorCode};
use crate::run::Holder;
use crate::store::Replica;

/// How often a replica says that it lives.
const BEAT: Duration = Duration::from_secs(1);
/// After how long without a sign another one counts as gone. Measured on this replica's own clock, so that clocks of
/// machines need not agree. The lease in the warehouse is what keeps two from sending: this only decides who tries.
const SILENCE: Duration = Duration::from_secs(15);
/// How often what is old is forgotten.
const FORGET: Duration = Duration::from_secs(3_600);

/// Works until the service has ended: also while it ends, so that nobody takes over what is being finished. Nothing
/// else keeps the signs of life waiting.
pub(super) async fn work(service: Arc<Service>) {
    tokio::join!(beat(&service), hear(&service), forget(&service));
}

fn has_ended(service: &Service) -> bool {
    service.is_stopping() && service.running() == 0
}

async fn beat(service: &Service) {
    let mut others = Others::default();
    while !has_ended(service) {
        if let Err(error) = look(service, &mut others).await {
            tracing::warn!(error = %error, "the store does not answer");
        }
        tokio::time::sleep(BEAT).await;
    }
}

/// What somebody told another replica holds here too.
async fn hear(service: &Service) {
    while !has_ended(service) {
        if let Err(error) = obey(service).await {
            tracing::warn!(error = %error, "what other replicas were told was not heard; it is in a moment");
        }
        tokio::time::sleep(BEAT).await;
    }
}

async fn obey(service: &Service) -> Result<(), Error> {
    for run in service.store.asked_to_cancel(&service.replica).await? {
        service.cancel_here(run);
    }
    if service.store.advance_sequences().await? {
        service.wake.notify_waiters();
    }
    service.look_at_disabled().await
}

async fn forget(service: &Service) {
    loop {
        let history = service.project().serve.history;
        if let Err(error) = service.store.forget_history(history).await {
            tracing::warn!(error = %error, "old runs could not be forgotten");
        }
        tokio::select! {
            () = tokio::time::sleep(FORGET) => {}
            () = service.stopped() => return,
        }
    }
}

/// The last sign of life of each other replica, and when it came.
#[derive(Debug, Default)]
struct Others {
    seen: HashMap<String, (i64, Instant)>,
    looked: Option<Instant>,
}

impl Others {
    /// Takes a look in, and tells who has been silent for too long. Time in which nobody looked counts for nobody: when
    /// the store was away, nobody could have given a sign.
    fn look(&mut self, replicas: &[Replica], this: &str, now: Instant) -> Vec<String> {
        if self.looked.replace(now).is_none_or(|last| now.duration_since(last) > SILENCE / 3) {
            self.seen.clear();
        }
        self.seen.retain(|id, _| replicas.iter().any(|replica| replica.id == *id));
        let mut silent = Vec::new();
        for replica in replicas.iter().filter(|replica| replica.id != this) {
            let seen = self.seen.entry(replica.id.clone()).or_insert((replica.beat, now));
            if seen.0 != replica.beat {
                *seen = (replica.beat, now);
            }
            if now.duration_since(seen.1) > SILENCE {
                silent.push(replica.id.clone());
            }
        }
        silent
    }
}

async fn look(service: &Service, others: &mut Others) -> Result<(), Error> {
    let digest = service.project().digest.to_hex();
    let answered =
        tokio::time::timeout(SILENCE / 3, service.store.beat(&service.replica, &service.holder, &digest));
    let late = |_| Error::new(ErrorCode::StoreFailed, "a sign of life took too long");
    let replicas = answered.await.map_err(late)??;
    let mut gone = others.look(&replicas, &service.replica, Instant::now());
    let ended = |replica: &&Replica| {
        replica.id != service.replica && replica.holder.as_ref().is_some_and(Holder::is_gone)
    };
    gone.extend(replicas.iter().filter(ended).map(|replica| replica.id.clone()));
    let living = replicas.iter().filter(|replica| !gone.contains(&replica.id));
    let other = living.filter(|replica| *replica.project != *digest);
    let first = other.map(|replica| &replica.id).min();
    service.disagrees.store(first.is_some(), Ordering::Relaxed);
    service.listens.store(first.is_some_and(|first| *first < service.replica), Ordering::Relaxed);
    gone.extend(service.store.orphans().await?);
    let takes_over = !gone.is_empty();
    *service.gone.lock().unwrap_or_else(PoisonError::into_inner) = gone.iter().cloned().collect();
    if takes_over {
        service.wake.notify_waiters();
        service.store.forget_replicas(&gone).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_in_which_nobody_could_look_counts_for_nobody() {
        let replica = |beat| Replica { id: "b".to_owned(), holder: None, beat, project: String::new() };
        let (begin, mut others) = (Instant::now(), Others::default());
        let mut look = |second: u64, beat| {
            !others.look(&[replica(beat)], "a", begin + Duration::from_secs(second)).is_empty()
        };
        assert!(!look(0, 1) && !look(1, 2));
        // The store was away for a minute.
        assert!(!look(61, 2), "the other one could not say anything either");
        assert!((62..=76).all(|second| !look(second, 2)));
        assert!(look(77, 2), "it has been silent while somebody looked");
        assert!(!look(78, 3));
    }
}
