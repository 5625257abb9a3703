//! API keys: of their secrets only a digest is kept.

use std::str::FromStr;

use sqlx::Row;
use sqlx::any::AnyRow;

use super::{Store, failed};
use crate::error::{Error, ErrorCode};

/// What a key may do; each may also do what comes before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Scope {
    /// Look at everything but rows.
    Read,
    /// Start and cancel runs, and see the rows that are rejected
    Run,
    /// Change the project
    Admin,
}

impl Scope {
    /// The word of the command line and the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Run => "run",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for Scope {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        [Self::Read, Self::Run, Self::Admin].into_iter().find(|scope| scope.name() == text).ok_or_else(|| {
            Error::new(
                ErrorCode::StoreFailed,
                format!("the store knows a scope `{text}`, and this levin does not"),
            )
        })
    }
}

/// A key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// What people call it.
    pub name: String,
    /// The part of the key that is no secret, by which it is found.
    pub id: String,
    /// SHA-256 of the whole key, in hexadecimal digits.
    pub hash: String,
    /// What it may do.
    pub scope: Scope,
    /// When it was made, RFC 3339.
    pub created_at: String,
    /// From when on it is worth nothing.
    pub expires_at: Option<String>,
    /// Since when it is worth nothing.
    pub revoked_at: Option<String>,
    /// When it was last used, give or take a minute.
    pub used_at: Option<String>,
}

const COLUMNS: &str = "name, id, hash, scope, created_at, expires_at, revoked_at, used_at";

impl Store {
    /// Keeps a new key. `false` when there is one of that name that still works.
    pub async fn create_key(&self, key: &Key) -> Result<bool, Error> {
        let made = sqlx::query(
            "insert into levin_keys (name, id, hash, scope, created_at, expires_at)
             values ($1, $2, $3, $4, $5, $6)
             on conflict (name) do update set id = excluded.id, hash = excluded.hash, scope = excluded.scope,
               created_at = excluded.created_at, expires_at = excluded.expires_at, revoked_at = null,
               used_at = null
             where levin_keys.revoked_at is not null or levin_keys.expires_at <= excluded.created_at",
        )
        .bind(&key.name)
        .bind(&key.id)
        .bind(&key.hash)
        .bind(key.scope.name())
        .bind(&key.created_at)
        .bind(&key.expires_at)
        .execute(&self.pool)
        .await
        .map_err(failed)?;
        Ok(made.rows_affected() == 1)
    }

    /// Every key, by name; revoked ones too.
    pub async fn keys(&self) -> Result<Vec<Key>, Error> {
        let rows =
            sqlx::query(sqlx::AssertSqlSafe(format!("select {COLUMNS} from levin_keys order by name")))
                .fetch_all(&self.pool)
                .await
                .map_err(failed)?;
        rows.iter().map(read).collect()
    }

    /// Ends a key. `false` when there is none of that name that still works.
    pub async fn revoke_key(&self, name: &str, at: &str) -> Result<bool, Error> {
        let revoked =
            sqlx::query("update levin_keys set revoked_at = $1 where name = $2 and revoked_at is null")
                .bind(at)
                .bind(name)
                .execute(&self.pool)
                .await
                .map_err(failed)?;
        Ok(revoked.rows_affected() == 1)
    }

    /// Notes that a key was used.
    pub async fn key_was_used(&self, id: &str, at: &str) -> Result<(), Error> {
        sqlx::query("update levin_keys set used_at = $1 where id = $2")
            .bind(at)
            .bind(id)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(failed)
    }
}

fn read(row: &AnyRow) -> Result<Key, Error> {
    Ok(Key {
        name: row.get(0),
        id: row.get(1),
        hash: row.get(2),
        scope: row.get::<String, _>(3).parse()?,
        created_at: row.get(4),
        expires_at: row.get(5),
        revoked_at: row.get(6),
        used_at: row.get(7),
    })
}
