//! Messages on their way out: queued with what they tell of, claimed by one replica, gone once they are sent.

use std::collections::HashMap;

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

impl Store {
    /// Takes up to so many messages that are due and that nobody sends. Those of one thread leave in their order: a
    /// message waits for the one before it.
    pub async fn claim_messages(&self, replica: &str, room: usize) -> Result<Vec<Posted>, Error> {
        let due = "select 1 from levin_outbox where due_at <= $1 limit 1";
        if room == 0
            || sqlx::query(due).bind(now()).fetch_optional(&self.pool).await.map_err(failed)?.is_none()
        {
            return Ok(Vec::new());
        }
        let mut transaction = self.deciding().await?;
        let rows = sqlx::query(
            "select o.id, o.recipient, o.message, o.attempts, o.due_at, o.claimed_until, r.id, o.thread
             from levin_outbox o left join levin_replicas r on r.id = o.replica order by o.position",
        )
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed)?;
        let now = now();
        // A replica that has not said yet that it lives would count as one that is gone.
        let known = sqlx::query("select 1 from levin_replicas where id = $1")
            .bind(replica)
            .fetch_optional(&mut *transaction)
            .await
            .map_err(failed)?
            .is_some();
        let (mut taken, mut threads) = (HashMap::<String, usize>::new(), std::collections::HashSet::new());
        let mut claimed = Vec::new();
        for row in &rows {
            let (id, recipient): (String, String) = (row.get(0), row.get(1));
            let first = threads.insert((recipient.clone(), row.get::<String, _>(7)));
            let busy = row.get::<i64, _>(5) > now && row.get::<Option<String>, _>(6).is_some();
            let count = taken.entry(recipient.clone()).or_default();
            if busy {
                *count += 1;
                continue;
            }
            if !first
                || !known
                || *count >= PER_CHANNEL
                || claimed.len() >= room
                || row.get::<i64, _>(4) > now
            {
                continue;
            }
            *count += 1;
            sqlx::query("update levin_outbox set replica = $1, claimed_until = $2 where id = $3")
                .bind(replica)
                .bind(now + CLAIM)
                .bind(&id)
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
            let notice = serde_json::from_str(&row.get::<String, _>(2));
            let notice = notice.map_err(|error| {
                Error::new(ErrorCode::StoreFailed, format!("a message of the outbox cannot be read: {error}"))
            })?;
            let attempts = usize::try_from(row.get::<i64, _>(3)).unwrap_or_default();
            claimed.push(Posted { id, recipient, notice, attempts });
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
