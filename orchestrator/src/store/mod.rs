//! What the orchestrator remembers between and during runs: the history of runs, the deliveries started and ended in
//! the run in flight, the last exchange of each rejected row; and for the service what waits, what was due, and who may
//! ask.
//!
//! The warehouse alone decides what was delivered. Losing the store loses history and repeats rows;
//! it never loses one. SQLite by default, Postgres for replicas; the statements here keep to what
//! both understand.

mod alerts;
mod asked;
mod figures;
mod follow;
mod history;
mod hooks;
mod keys;
mod notes;
mod objects;
mod outbox;
mod pages;
mod queue;
mod replicas;
mod schema;
mod sequences;

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{AnyConnection, AnyPool, Connection, Row};
use tokio::sync::mpsc;

use crate::error::{Error, ErrorCode};
use crate::project::Project;
use notes::{Pending, write_notes};

pub use alerts::{AlertState, Judging, Subject, Untold};
pub use asked::{Asked, Cause};
pub use figures::{QueueFigures, SyncFigures};
pub use history::RunRecord;
pub use keys::{Key, Scope};
pub use notes::{DeliveryId, Note, NotedException, NotedOutcome, NotedRows, RejectedExchange};
pub use objects::{Seen, Times};
pub use outbox::Posted;
pub use pages::{Place, RunFilter, RunOrder, RunRow};
pub use queue::{CLOCKS_DIFFER, Claimed, Due, Ending, Fired, Limits, Placed, Underway, What, Wish, now};
pub use replicas::Replica;
pub use sequences::{MemberRun, MemberWish, SequenceRun, SequenceWish};

/// The store, open. Clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    pool: AnyPool,
    /// For the signs of life alone, which must not wait until somebody gives a connection back.
    pulse: AnyPool,
    id: String,
    notes: mpsc::Sender<Pending>,
}

/// What stands for itself in an address's path.
const PATH_IN_ADDRESS: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_').remove(b'~');

/// How long a store may take to let somebody in.
const PATIENCE: Duration = Duration::from_secs(30);
/// What every connection to SQLite begins with.
const PRAGMAS: &[&str] =
    &["pragma journal_mode = wal", "pragma synchronous = full", "pragma busy_timeout = 10000"];

/// What every connection to Postgres begins with. A replica that loses its network in the middle of a decision, or is
/// put to sleep, would hold up all others for as long as the server does not notice.
const BOUNDS: &[&str] = &[
    "set idle_in_transaction_session_timeout = '10s'",
    "set lock_timeout = '20s'",
    "set statement_timeout = '60s'",
    "set tcp_keepalives_idle = 10",
    "set tcp_keepalives_interval = 5",
    "set tcp_keepalives_count = 2",
    "set tcp_user_timeout = 20000",
];

impl Store {
    /// Opens the store of a project.
    ///
    /// # Errors
    /// `LOCK_FILE_INVALID` when the store remembers the runs of another project: with another uuid every
    /// sync would begin anew, and send every row.
    pub async fn of(project: &Project) -> Result<Self, Error> {
        let store = Self::open(&project.store_url, &project.root).await?;
        let uuid = project.uuid.to_string();
        sqlx::query(
            "insert into levin_store (name, value) values ('project', $1) on conflict (name) do nothing",
        )
        .bind(&uuid)
        .execute(&store.pool)
        .await
        .map_err(failed)?;
        let owner: String = sqlx::query("select value from levin_store where name = 'project'")
            .fetch_one(&store.pool)
            .await
            .map_err(failed)?
            .get(0);
        if owner == uuid {
            return Ok(store);
        }
        Err(Error::new(
            ErrorCode::LockFileInvalid,
            format!(
                "`levin.lock.yml` says that this is project {uuid}, and the store remembers the runs of project {owner}; as another project every sync would send every row again"
            ),
        )
        .hint("take `levin.lock.yml` back from version control; a project of its own needs a `store:` of its own in `levin.yml`"))
    }

    /// Opens the store, making and migrating it as needed. `sqlite://PATH` is relative to `root`.
    pub async fn open(url: &str, root: &Path) -> Result<Self, Error> {
        sqlx::any::install_default_drivers();
        let sqlite = url.strip_prefix("sqlite://");
        let url = match sqlite {
            Some(path) => {
                let path = root.join(path);
                if let Some(folder) = path.parent() {
                    std::fs::create_dir_all(folder).map_err(|e| {
                        Error::new(
                            ErrorCode::StoreFailed,
                            format!("cannot make the folder {}: {e}", folder.display()),
                        )
                    })?;
                }
                // It is read as an address, in which a folder's spaces, `%`, `?` and `#` mean other things.
                let bytes = path.as_os_str().as_encoded_bytes();
                format!("sqlite://{}?mode=rwc", percent_encode(bytes, PATH_IN_ADDRESS))
            }
            None => url.to_owned(),
        };
        let options = AnyConnectOptions::from_str(&url).map_err(failed)?;
        let durable = sqlite.is_some();
        // A pool goes on trying for as long as it may wait, and then does not say why.
        let first = tokio::time::timeout(PATIENCE, AnyConnection::connect_with(&options)).await;
        let silence = |_| Error::new(ErrorCode::StoreFailed, "the store does not answer");
        let mut first = first.map_err(silence)?.map_err(failed)?;
        if durable {
            for pragma in PRAGMAS {
                sqlx::query(*pragma).execute(&mut first).await.map_err(failed)?;
            }
        }
        // Through the one connection that is there: a pool opens a second one while the first is on its way back,
        // and where the server has no second one it waits for that until its patience ends, statement by statement.
        schema::migrate(&mut first).await?;
        sqlx::query("insert into levin_store (name, value) values ('id', $1) on conflict (name) do nothing")
            .bind(uuid::Uuid::new_v4().to_string())
            .execute(&mut first)
            .await
            .map_err(failed)?;
        let id: String = sqlx::query("select value from levin_store where name = 'id'")
            .fetch_one(&mut first)
            .await
            .map_err(failed)?
            .get(0);
        first.close().await.map_err(failed)?;
        let settings = if durable { PRAGMAS } else { BOUNDS };
        let pool_options = || {
            pool_options().after_connect(move |connection, _| {
                Box::pin(async move {
                    for setting in settings {
                        sqlx::query(*setting).execute(&mut *connection).await?;
                    }
                    Ok(())
                })
            })
        };
        let pool = pool_options().connect_with(options.clone()).await.map_err(failed)?;
        let pulse = pool_options().max_connections(1).connect_lazy_with(options);
        let (notes, pending) = mpsc::channel(1_024);
        tokio::spawn(write_notes(pool.clone(), pending));
        Ok(Self { pool, pulse, id, notes })
    }

    /// Whether the store answers.
    pub async fn answers(&self) -> Result<(), Error> {
        sqlx::query("select 1").execute(&self.pool).await.map(drop).map_err(failed)
    }

    /// Names this store, so that a warehouse can tell whose notes belong to a delivery.
    pub fn id(&self) -> &str {
        &self.id
    }
}

/// Where a test can make an exchange with the store fail; nothing in a build without the feature `failpoints`.
#[cfg_attr(not(feature = "failpoints"), expect(clippy::unnecessary_wraps, reason = "see above"))]
fn exchange() -> Result<(), Error> {
    #[cfg(feature = "failpoints")]
    if crate::failpoints::fails().is_some() {
        return Err(Error::new(ErrorCode::StoreFailed, "the store failed: a test wanted it to"));
    }
    Ok(())
}

/// Now, as the store writes moments: RFC 3339 with milliseconds, UTC.
pub fn text_of_now() -> String {
    chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function in map_err")]
fn failed(error: sqlx::Error) -> Error {
    crate::telemetry::metrics::store_failed();
    Error::new(ErrorCode::StoreFailed, format!("the store failed: {error}"))
}

/// How connections are kept: for as long as the store is open. The pool's task that closes old ones counts those that
/// are idle, and when that count and its own taking and giving back cross, it goes round in a circle for ever and no process ends
/// (sqlx issue 3645, mended after 0.9.0). Without a limit to their age there is no such task.
fn pool_options() -> AnyPoolOptions {
    AnyPoolOptions::new().max_connections(4).acquire_timeout(PATIENCE).idle_timeout(None).max_lifetime(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_has_no_task_that_could_go_round_for_ever() {
        let options = pool_options();
        let limits = (options.get_idle_timeout(), options.get_max_lifetime(), options.get_min_connections());
        assert_eq!(limits, (None, None, 0));
    }
}
