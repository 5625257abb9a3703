//! Which messages of other services were received: one that comes again starts nothing.

use super::{Store, failed, now};
use crate::error::Error;

impl Store {
    /// Whether a hook's message was received before, within the last day.
    pub async fn was_received(&self, hook: &str, id: &str) -> Result<bool, Error> {
        sqlx::query("select 1 from levin_received where hook = $1 and id = $2")
            .bind(hook)
            .bind(id)
            .fetch_optional(&self.pool)
            .await
            .map(|row| row.is_some())
            .map_err(failed)
    }

    /// Remembers a hook's message.
    pub async fn received(&self, hook: &str, id: &str) -> Result<(), Error> {
        sqlx::query(
            "insert into levin_received (hook, id, received_at) values ($1, $2, $3) on conflict (hook, id) do nothing",
        )
        .bind(hook)
        .bind(id)
        .bind(now())
        .execute(&self.pool)
        .await
        .map(drop)
        .map_err(failed)
    }

    /// Forgets messages that were received before a moment, in milliseconds since 1970.
    pub(super) async fn forget_received(&self, before: i64) -> Result<(), Error> {
        sqlx::query("delete from levin_received where received_at < $1")
            .bind(before)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(failed)
    }
}
