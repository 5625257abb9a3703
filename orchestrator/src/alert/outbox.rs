//! Sends what is queued: every message until its channel takes it, or until it is given up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::serve::Service;
use crate::store::{Posted, now};

/// How often to look.
const LOOK: Duration = Duration::from_millis(500);
/// How many messages are on their way at once.
const AT_ONCE: usize = 16;
/// How long to wait after each attempt: an hour in all. After the last one a message is given up.
const WAITS: [u64; 7] = [5, 25, 90, 300, 600, 1_080, 1_500];
/// After how long a message is given up however few attempts there were, in milliseconds: a channel that hangs may never
/// come to most of them, and nobody waits for yesterday's messages.
const TOO_OLD: i64 = 2 * 3_600_000;
/// How often messages are looked at for their age.
const FORGET: Duration = Duration::from_secs(60);

/// Sends until the service ends.
pub(crate) async fn work(service: Arc<Service>) {
    let mut under_way = JoinSet::new();
    let mut forgotten: Option<Instant> = None;
    while !service.is_stopping() {
        if forgotten.is_none_or(|at| at.elapsed() > FORGET) {
            forgotten = Some(Instant::now());
            forget(&service).await;
        }
        match service.store().claim_messages(service.replica(), AT_ONCE - under_way.len().min(AT_ONCE)).await
        {
            Ok(claimed) => {
                for posted in claimed {
                    under_way.spawn(attempt(service.clone(), posted));
                }
            }
            Err(error) => {
                tracing::warn!(error = %error, "messages could not be looked at; they are again in a moment");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            Some(_) = under_way.join_next() => {}
            () = service.stopped() => {}
        }
    }
    // Each is bounded by its channel.
    while under_way.join_next().await.is_some() {}
}

/// Gives up what is too old: one line for each channel, however many messages there were.
async fn forget(service: &Service) {
    match service.store().forget_messages(now() - TOO_OLD).await {
        Ok(forgotten) => {
            for (channel, messages) in forgotten {
                let hours = TOO_OLD / 3_600_000;
                tracing::error!(
                    channel,
                    messages,
                    "messages are given up: they were not sent for {hours} h; correct the channel's file"
                );
            }
        }
        Err(error) => tracing::warn!(error = %error, "old messages could not be given up"),
    }
}

async fn attempt(service: Arc<Service>, posted: Posted) {
    let project = service.project();
    let channel = project.channels.iter().find(|channel| channel.slug == posted.recipient);
    let (message, after) = match channel {
        Some(channel) => match channel.channel.send(&posted.notice).await {
            Ok(()) => {
                note(service.store().message_sent(&posted.id, service.replica()).await);
                return;
            }
            Err(unsent) => (unsent.message, unsent.after.unwrap_or_default()),
        },
        None => ("the project has no such channel".to_owned(), Duration::ZERO),
    };
    let (channel, title) = (posted.recipient.as_str(), posted.notice.title.as_str());
    match WAITS.get(posted.attempts) {
        Some(wait) => {
            let wait = Duration::from_secs(*wait).max(after);
            tracing::warn!(
                channel,
                title,
                error = message,
                "a message was not sent; it is tried again in {} s",
                wait.as_secs()
            );
            let due_at = now() + i64::try_from(wait.as_millis()).unwrap_or_default();
            note(service.store().message_put_off(&posted.id, service.replica(), due_at).await);
        }
        None => {
            tracing::error!(
                channel,
                title,
                id = posted.id,
                error = message,
                "a message is given up after {} attempts; correct the channel's file",
                WAITS.len() + 1,
            );
            note(service.store().message_sent(&posted.id, service.replica()).await);
        }
    }
}

fn note(noted: Result<(), crate::error::Error>) {
    if let Err(error) = noted {
        tracing::warn!(error = %error, "how a message went could not be written; it may be sent again");
    }
}
