//! Messages on their way out: queued with what they tell of, claimed by one replica, gone once they are sent or too old.
//!
//! Claiming takes no lock: a backlog is looked through while others decide about the queue of runs.

use std::collections::BTreeMap;

use connectors::channel::{Event, Notice};
use futures::TryStreamExt;
use sqlx::{AnyConnection, Row};

use super::{Store, failed, now};
use crate::error::{Error, ErrorCode};

/// A message that this replica is to send.
#[derive(Debug, Clone, PartialEq)]
pub struct Posted {
    /// Its name.
    pub id: String,
    /// The slug of the channel.
    pub recipient: String,
    /// The message.
    pub notice: Notice,
    /// How many attempts there were.
    pub attempts: usize,
}

/// How long a claim holds, in milliseconds: longer than any attempt.
const CLAIM: i64 = 120_000;
/// How many messages to one channel are on their way at once, so that one that hangs keeps no other from its own.
const PER_CHANNEL: usize = 4;

/// Queues a message behind all others of its rank.
pub(super) async fn queue(
    connection: &mut AnyConnection,
    recipient: &str,
    mut notice: Notice,
) -> Result<(), Error> {
    notice.id = format!("msg_{}", uuid::Uuid::new_v4().simple());
    let text = serde_json::to_string(&notice)
        .map_err(|error| Error::new(ErrorCode::Internal, format!("a message cannot be written: {error}")))?;
    sqlx::query(
        "insert into levin_outbox (id, position, recipient, thread, rank, message, attempts, created_at, due_at,
                                   claimed_until)
         select $1, coalesce(max(position), 0) + 1, $2, $3, $4, $5, 0, $6, $6, 0 from levin_outbox",
    )
    .bind(&notice.id)
    .bind(recipient)
    .bind(&notice.thread)
    .bind(rank(notice.event))
    .bind(text)
    .bind(now())
    .execute(connection)
    .await
    .map(drop)
    .map_err(failed)
}

/// Alerts leave before what is told of each run, of which there may be many.
fn rank(event: Event) -> i64 {
    match event {
        Event::AlertRaised | Event::AlertResolved => 0,
        Event::RunStarted
        | Event::RunSucceeded
        | Event::RunWarning
        | Event::RunFailed
        | Event::RunCancelled
        | Event::RunInterrupted => 1,
    }
}

/// Messages that may leave: due, sent by nobody who lives, and no older one of their thread is still there.
const READY: &str = "o.due_at <= $1
    and (o.claimed_until <= $1 or not exists (select 1 from levin_replicas r where r.id = o.replica))
    and not exists (select 1 from levin_outbox e where e.recipient = o.recipient and e.thread = o.thread
                    and e.position < o.position)";

impl Store {
    /// Takes up to so many messages that are due and that nobody sends: of each channel its alerts first. Those of one
    /// thread leave in their order: a message waits for the one before it.
    pub async fn claim_messages(&self, replica: &str, room: usize) -> Result<Vec<Posted>, Error> {
        let mut channels = Vec::new();
        if room > 0 {
            for recipient in self.recipients().await? {
                channels.push((self.under_way(&recipient).await?, recipient));
            }
        }
        if channels.is_empty() || !self.is_known(replica).await? {
            return Ok(Vec::new());
        }
        channels.sort();
        let mut claimed = Vec::new();
        for (busy, recipient) in channels {
            let most = PER_CHANNEL.saturating_sub(busy).min(room - claimed.len());
            match self.claim_of(replica, &recipient, most, &mut claimed).await {
                Ok(()) => {}
                // What is claimed by now is sent all the same.
                Err(error) if claimed.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        Ok(claimed)
    }

    async fn claim_of(
        &self,
        replica: &str,
        recipient: &str,
        most: usize,
        claimed: &mut Vec<Posted>,
    ) -> Result<(), Error> {
        if most == 0 {
            return Ok(());
        }
        let now = now();
        let ready = format!(
            "select o.id, o.message, o.attempts, o.claimed_until from levin_outbox o
             where o.recipient = $2 and {READY} order by o.rank, o.position limit $3"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(ready))
            .bind(now)
            .bind(recipient)
            .bind(i64::try_from(most).unwrap_or_default())
            .fetch_all(&self.pool)
            .await
            .map_err(failed)?;
        for row in rows {
            let (id, attempts): (String, i64) = (row.get(0), row.get(2));
            // As it was seen: of several replicas that saw the same the first one has it.
            let mine = sqlx::query(
                "update levin_outbox set replica = $1, claimed_until = $2
                 where id = $3 and attempts = $4 and claimed_until = $5",
            )
            .bind(replica)
            .bind(now + CLAIM)
            .bind(&id)
            .bind(attempts)
            .bind(row.get::<i64, _>(3))
            .execute(&self.pool)
            .await
            .map_err(failed)?
            .rows_affected();
            if mine == 0 {
                continue;
            }
            match serde_json::from_str(&row.get::<String, _>(1)) {
                Ok(notice) => {
                    let attempts = usize::try_from(attempts).unwrap_or_default();
                    claimed.push(Posted { id, recipient: recipient.to_owned(), notice, attempts });
                }
                // It keeps no other from its way, and is given up with its age.
                Err(error) => tracing::warn!(id, error = %error, "a message cannot be read"),
            }
        }
        Ok(())
    }

    /// Channels that messages wait for. Each is found by itself: there are few, and their messages may be many.
    async fn recipients(&self) -> Result<Vec<String>, Error> {
        let mut recipients: Vec<String> = Vec::new();
        loop {
            let next: Option<String> =
                sqlx::query("select min(recipient) from levin_outbox where recipient > $1")
                    .bind(recipients.last().map_or("", String::as_str))
                    .fetch_one(&self.pool)
                    .await
                    .map_err(failed)?
                    .get(0);
            match next {
                Some(next) => recipients.push(next),
                None => return Ok(recipients),
            }
        }
    }

    /// How many messages to a channel are on their way.
    async fn under_way(&self, recipient: &str) -> Result<usize, Error> {
        let row =
            sqlx::query("select count(*) from levin_outbox where recipient = $1 and claimed_until > $2")
                .bind(recipient)
                .bind(now())
                .fetch_one(&self.pool)
                .await
                .map_err(failed)?;
        Ok(usize::try_from(row.get::<i64, _>(0)).unwrap_or_default())
    }

    /// Whether a replica has said that it lives. One that has not would count as one that is gone.
    async fn is_known(&self, replica: &str) -> Result<bool, Error> {
        let known = sqlx::query("select 1 from levin_replicas where id = $1").bind(replica);
        Ok(known.fetch_optional(&self.pool).await.map_err(failed)?.is_some())
    }

    /// Forgets messages that were queued before a moment, in milliseconds since 1970, and that nobody is sending. Returns
    /// how many of each channel.
    pub async fn forget_messages(&self, before: i64) -> Result<BTreeMap<String, u64>, Error> {
        let mut forgotten: BTreeMap<String, u64> = BTreeMap::new();
        let mut rows = sqlx::query(
            "delete from levin_outbox where created_at < $1 and claimed_until <= $2 returning recipient",
        )
        .bind(before)
        .bind(now())
        .fetch(&self.pool);
        while let Some(row) = rows.try_next().await.map_err(failed)? {
            *forgotten.entry(row.get(0)).or_default() += 1;
        }
        Ok(forgotten)
    }

    /// A message is there, or is given up: it is forgotten.
    pub async fn message_sent(&self, id: &str, replica: &str) -> Result<(), Error> {
        sqlx::query("delete from levin_outbox where id = $1 and replica = $2")
            .bind(id)
            .bind(replica)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(failed)
    }

    /// A message did not get there: it is tried again at a moment, in milliseconds since 1970.
    pub async fn message_put_off(&self, id: &str, replica: &str, due_at: i64) -> Result<(), Error> {
        sqlx::query(
            "update levin_outbox set attempts = attempts + 1, due_at = $1, replica = null, claimed_until = 0
             where id = $2 and replica = $3",
        )
        .bind(due_at)
        .bind(id)
        .bind(replica)
        .execute(&self.pool)
        .await
        .map(drop)
        .map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use connectors::channel::Severity;

    use super::*;
    use crate::run::Holder;

    async fn store(replicas: &[&str]) -> (Store, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open("sqlite://store.db", folder.path()).await.unwrap();
        for replica in replicas {
            store.beat(replica, &Holder::this(None), "").await.unwrap();
        }
        (store, folder)
    }

    async fn post(store: &Store, recipient: &str, thread: &str, title: &str) {
        post_of(store, recipient, thread, title, Event::AlertRaised).await;
    }

    async fn post_of(store: &Store, recipient: &str, thread: &str, title: &str, event: Event) {
        let notice = Notice {
            id: String::new(),
            event,
            at: chrono::Utc::now(),
            severity: Severity::Critical,
            thread: thread.to_owned(),
            title: title.to_owned(),
            facts: Vec::new(),
            steps: Vec::new(),
            data: serde_json::Value::Null,
        };
        let mut judging = store.judge().await.unwrap();
        judging.queue(recipient, notice).await.unwrap();
        judging.commit().await.unwrap();
    }

    async fn claim(store: &Store, replica: &str, room: usize) -> Vec<(String, String)> {
        let claimed = store.claim_messages(replica, room).await.unwrap();
        claimed.into_iter().map(|posted| (posted.notice.title.clone(), posted.id)).collect()
    }

    fn titles(claimed: &[(String, String)]) -> Vec<&str> {
        claimed.iter().map(|(title, _)| title.as_str()).collect()
    }

    #[tokio::test]
    async fn messages_of_a_thread_leave_one_after_the_other() {
        let (store, _folder) = store(&["a"]).await;
        for (thread, title) in [("x", "raised"), ("y", "other"), ("x", "resolved")] {
            post(&store, "ops", thread, title).await;
        }
        let first = claim(&store, "a", 9).await;
        assert_eq!(titles(&first), ["raised", "other"]);
        assert!(claim(&store, "a", 9).await.is_empty(), "it is on its way");
        // Put off, it still comes before the end of the alert.
        store.message_put_off(&first[0].1, "a", now() + 60_000).await.unwrap();
        assert!(claim(&store, "a", 9).await.is_empty());
        store.message_sent(&first[1].1, "a").await.unwrap();
        sqlx::query("update levin_outbox set due_at = 0").execute(&store.pool).await.unwrap();
        let again = store.claim_messages("a", 9).await.unwrap();
        assert_eq!((again.len(), again[0].attempts, &again[0].id), (1, 1, &first[0].1));
        assert_eq!(again[0].id, again[0].notice.id, "its name is the same in every attempt");
        store.message_sent(&again[0].id, "a").await.unwrap();
        assert_eq!(titles(&claim(&store, "a", 9).await), ["resolved"]);
    }

    #[tokio::test]
    async fn a_message_has_one_sender_until_that_is_gone() {
        let (store, _folder) = store(&["a", "b"]).await;
        post(&store, "ops", "x", "raised").await;
        assert!(claim(&store, "unheard", 9).await.is_empty(), "who is not known to live claims nothing");
        let claimed = claim(&store, "a", 9).await;
        assert_eq!(titles(&claimed), ["raised"]);
        assert!(claim(&store, "b", 9).await.is_empty());
        store.forget_replicas(&["a".to_owned()]).await.unwrap();
        assert_eq!(titles(&claim(&store, "b", 9).await), ["raised"]);
        // The first one was only slow: what it says of the message counts no more.
        store.message_sent(&claimed[0].1, "a").await.unwrap();
        store.message_put_off(&claimed[0].1, "a", 0).await.unwrap();
        assert!(claim(&store, "b", 9).await.is_empty());
        store.message_sent(&claimed[0].1, "b").await.unwrap();
        let left = sqlx::query("select 1 from levin_outbox").fetch_all(&store.pool).await.unwrap();
        assert!(left.is_empty());
    }

    #[tokio::test]
    async fn a_channel_that_hangs_keeps_no_other_from_its_own() {
        let (store, _folder) = store(&["a"]).await;
        for number in 0..20 {
            post(&store, "slow", &format!("slow-{number}"), "slow").await;
        }
        post(&store, "quick", "quick", "quick").await;
        let claimed = claim(&store, "a", 16).await;
        assert_eq!(claimed.len(), PER_CHANNEL + 1);
        assert!(titles(&claimed).contains(&"quick"));
        assert!(claim(&store, "a", 11).await.is_empty());
    }

    #[tokio::test]
    async fn alerts_leave_before_what_is_told_of_each_run() {
        let (store, _folder) = store(&["a"]).await;
        for number in 0..20 {
            post_of(&store, "bus", &format!("run-{number}"), &format!("run {number}"), Event::RunFailed)
                .await;
        }
        post(&store, "bus", "x", "raised").await;
        post_of(&store, "bus", "y", "resolved", Event::AlertResolved).await;
        assert_eq!(titles(&claim(&store, "a", 16).await), ["raised", "resolved", "run 0", "run 1"]);
    }

    #[tokio::test]
    async fn what_is_too_old_is_forgotten_channel_by_channel() {
        let (store, _folder) = store(&["a"]).await;
        for number in 0..20 {
            post_of(&store, "bus", &format!("run-{number}"), "run", Event::RunStarted).await;
        }
        post(&store, "ops", "x", "raised").await;
        let (hours, left) = (3_600_000, || async {
            let row = sqlx::query("select count(*) from levin_outbox").fetch_one(&store.pool).await.unwrap();
            row.get::<i64, _>(0)
        });
        assert!(store.forget_messages(now() - 2 * hours).await.unwrap().is_empty());
        assert_eq!((left().await, claim(&store, "a", 3).await.len()), (21, 3));
        // Two hours later; what is on its way may still get there.
        let forgotten = store.forget_messages(now() + 1).await.unwrap();
        assert_eq!((forgotten.values().sum::<u64>(), left().await), (18, 3));
        sqlx::query("update levin_outbox set claimed_until = 0").execute(&store.pool).await.unwrap();
        let rest = store.forget_messages(now() + 1).await.unwrap();
        assert_eq!((rest.values().sum::<u64>(), left().await), (3, 0));
        let total = |channel: &str| {
            forgotten.get(channel).copied().unwrap_or_default()
                + rest.get(channel).copied().unwrap_or_default()
        };
        assert_eq!((total("bus"), total("ops")), (20, 1));
    }

    #[tokio::test]
    async fn a_backlog_that_waits_for_its_channel_is_looked_through_without_deciding() {
        let (store, _folder) = store(&["a"]).await;
        for number in 0..20 {
            post(&store, "slow", &format!("slow-{number}"), "slow").await;
        }
        assert_eq!(claim(&store, "a", 16).await.len(), PER_CHANNEL);
        // Somebody decides meanwhile: who wanted to decide too would wait, and be refused.
        let deciding = store.judge().await.unwrap();
        assert!(claim(&store, "a", 12).await.is_empty());
        deciding.commit().await.unwrap();
    }

    #[tokio::test]
    async fn two_replicas_that_see_the_same_messages_send_each_once() {
        let (store, _folder) = store(&["a", "b"]).await;
        for channel in ["one", "two", "three"] {
            for number in 0..PER_CHANNEL {
                post(&store, channel, &format!("{number}"), channel).await;
            }
        }
        let (first, second) = tokio::join!(claim(&store, "a", 16), claim(&store, "b", 16));
        let ids: Vec<String> = first.into_iter().chain(second).map(|(_, id)| id).collect();
        let each: std::collections::HashSet<&String> = ids.iter().collect();
        assert_eq!((ids.len(), each.len()), (3 * PER_CHANNEL, 3 * PER_CHANNEL));
    }
}
