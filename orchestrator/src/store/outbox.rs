//! Messages on their way out: queued with what they tell of, claimed by one replica, gone once they are sent.

use connectors::channel::Notice;
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

/// Queues a message behind all others.
pub(super) async fn queue(
    connection: &mut AnyConnection,
    recipient: &str,
    mut notice: Notice,
) -> Result<(), Error> {
    notice.id = format!("msg_{}", uuid::Uuid::new_v4().simple());
    let text = serde_json::to_string(&notice)
        .map_err(|error| Error::new(ErrorCode::Internal, format!("a message cannot be written: {error}")))?;
    sqlx::query(
        "insert into levin_outbox (id, position, recipient, thread, message, attempts, due_at, claimed_until)
         select $1, coalesce(max(position), 0) + 1, $2, $3, $4, 0, $5, 0 from levin_outbox",
    )
    .bind(&notice.id)
    .bind(recipient)
    .bind(&notice.thread)
    .bind(text)
    .bind(now())
    .execute(connection)
    .await
    .map(drop)
    .map_err(failed)
}

/// Messages that may leave: due, sent by nobody who lives, and no older one of their thread is still there.
const READY: &str = "o.due_at <= $1
    and (o.claimed_until <= $1 or not exists (select 1 from levin_replicas r where r.id = o.replica))
    and not exists (select 1 from levin_outbox e where e.recipient = o.recipient and e.thread = o.thread
                    and e.position < o.position)";

impl Store {
    /// Takes up to so many messages that are due and that nobody sends. Those of one thread leave in their order: a
    /// message waits for the one before it.
    pub async fn claim_messages(&self, replica: &str, room: usize) -> Result<Vec<Posted>, Error> {
        let now = now();
        // Most of the time nothing waits: looking costs less than deciding.
        let look = format!("select 1 from levin_outbox o where {READY} limit 1");
        let look = sqlx::query(sqlx::AssertSqlSafe(look)).bind(now).fetch_optional(&self.pool);
        if room == 0 || look.await.map_err(failed)?.is_none() {
            return Ok(Vec::new());
        }
        let mut transaction = self.deciding().await?;
        // A replica that has not said yet that it lives would count as one that is gone.
        let known = sqlx::query("select 1 from levin_replicas where id = $1")
            .bind(replica)
            .fetch_optional(&mut *transaction)
            .await
            .map_err(failed)?;
        if known.is_none() {
            return Ok(Vec::new());
        }
        let recipients = sqlx::query(
            "select recipient, sum(case when claimed_until > $1 then 1 else 0 end) from levin_outbox
             group by recipient order by 2, 1",
        )
        .bind(now)
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed)?;
        let ready = format!(
            "select o.id, o.message, o.attempts from levin_outbox o
             where o.recipient = $2 and {READY} order by o.position limit $3"
        );
        let mut claimed = Vec::new();
        for row in recipients {
            let (recipient, busy): (String, i64) = (row.get(0), row.get(1));
            let busy = usize::try_from(busy).unwrap_or_default();
            let most = PER_CHANNEL.saturating_sub(busy).min(room - claimed.len());
            let rows = sqlx::query(sqlx::AssertSqlSafe(ready.clone()))
                .bind(now)
                .bind(&recipient)
                .bind(i64::try_from(most).unwrap_or_default())
                .fetch_all(&mut *transaction)
                .await
                .map_err(failed)?;
            for row in rows {
                let id: String = row.get(0);
                sqlx::query("update levin_outbox set replica = $1, claimed_until = $2 where id = $3")
                    .bind(replica)
                    .bind(now + CLAIM)
                    .bind(&id)
                    .execute(&mut *transaction)
                    .await
                    .map_err(failed)?;
                let notice = serde_json::from_str(&row.get::<String, _>(1)).map_err(|error| {
                    Error::new(ErrorCode::StoreFailed, format!("the message {id} cannot be read: {error}"))
                })?;
                let attempts = usize::try_from(row.get::<i64, _>(2)).unwrap_or_default();
                claimed.push(Posted { id, recipient: recipient.clone(), notice, attempts });
            }
        }
        transaction.commit().await.map_err(failed)?;
        Ok(claimed)
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
    use connectors::channel::{Event, Severity};

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
        let notice = Notice {
            id: String::new(),
            event: Event::AlertRaised,
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
}
