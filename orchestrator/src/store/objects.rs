//! Since when the objects of the project are there, and since when they are as they are.

use std::collections::HashMap;

use sqlx::{AssertSqlSafe, Row};

use super::{Store, failed, text_of_now};
use crate::error::Error;

/// An object as its file is now.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The word of its kind.
    pub kind: &'static str,
    /// Its number.
    pub id: i64,
    /// Says whether it changed.
    pub digest: String,
}

/// Two moments of an object, RFC 3339.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Times {
    /// When it was first read.
    pub created_at: String,
    /// When it was first read as it is.
    pub updated_at: String,
}

/// How many objects one statement notes: engines bound how many values a statement has.
const AT_ONCE: usize = 100;

impl Store {
    /// Notes which objects there are, and tells since when: by kind and number.
    pub async fn note_objects(&self, seen: &[Seen]) -> Result<HashMap<(String, i64), Times>, Error> {
        let rows = sqlx::query("select kind, id, digest, created_at, updated_at from levin_objects")
            .fetch_all(&self.pool)
            .await
            .map_err(failed)?;
        let mut digests = HashMap::with_capacity(rows.len());
        let mut times = HashMap::with_capacity(rows.len());
        for row in &rows {
            let object: (String, i64) = (row.get(0), row.get(1));
            digests.insert(object.clone(), row.get::<String, _>(2));
            times.insert(object, Times { created_at: row.get(3), updated_at: row.get(4) });
        }
        let now = text_of_now();
        let mut changed = Vec::new();
        for object in seen {
            let key = (object.kind.to_owned(), object.id);
            if digests.get(&key) == Some(&object.digest) {
                continue;
            }
            times
                .entry(key)
                .and_modify(|times| times.updated_at.clone_from(&now))
                .or_insert_with(|| Times { created_at: now.clone(), updated_at: now.clone() });
            changed.push(object);
        }
        if changed.is_empty() {
            return Ok(times);
        }
        let mut transaction = self.deciding().await?;
        for some in changed.chunks(AT_ONCE) {
            let values: Vec<String> = (0..some.len())
                .map(|at| format!("(${}, ${}, ${}, $1, $1)", at * 3 + 2, at * 3 + 3, at * 3 + 4))
                .collect();
            let statement = format!(
                "insert into levin_objects (kind, id, digest, created_at, updated_at) values {}
                 on conflict (kind, id) do update set digest = excluded.digest, updated_at = excluded.updated_at",
                values.join(", ")
            );
            let mut query = sqlx::query(AssertSqlSafe(statement)).bind(&now);
            for object in some {
                query = query.bind(object.kind).bind(object.id).bind(&object.digest);
            }
            query.execute(&mut *transaction).await.map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)?;
        Ok(times)
    }
}
