//! The connection behind a session that speaks PostgreSQL's protocol: opened when it is needed, given up together
//! with a statement that nobody waits for, and never replaced once it was lost.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio_postgres::Client;

use super::{PostgresCanceller, PostgresConnection};
use crate::warehouse::{Canceller, ErrorKind, WarehouseError};

/// Opens a session's connections.
#[async_trait]
pub(crate) trait Opener: Send + Sync + Debug {
    /// A connection with the session's settings, and the server's name for it, where it tells one.
    async fn open(&self) -> Result<(PostgresConnection, Option<String>), WarehouseError>;
}

/// One connection. After a stream was dropped half read, or a statement's future was dropped, the
/// connection is given up (its statement cancelled on the server) and the next statement opens another,
/// under another [`Link::id`]: a late request to cancel must not hit the next statement.
pub(crate) struct Link<O> {
    opener: O,
    connection: Option<PostgresConnection>,
    id: Option<String>,
    canceller: Arc<CurrentCanceller>,
    /// A statement was begun and its end was not seen.
    unfinished: bool,
    /// The server, or the way to it, went away. So it stays: what ran is unknown to the session, and
    /// what it stood for may have been taken over.
    lost: bool,
}

/// Cancels on whatever connection the session has now.
struct CurrentCanceller(Mutex<PostgresCanceller>);

impl<O: Opener> Link<O> {
    /// Opens the first connection.
    pub(crate) async fn open(opener: O) -> Result<Self, WarehouseError> {
        let (connection, id) = opener.open().await?;
        let canceller = Arc::new(CurrentCanceller(Mutex::new(connection.canceller())));
        Ok(Self { opener, connection: Some(connection), id, canceller, unfinished: false, lost: false })
    }

    /// The connection, for a statement that now begins; [`Self::end`] tells that it ended.
    #[expect(clippy::expect_used, reason = "opened above when it was not")]
    pub(crate) async fn begin(&mut self) -> Result<&Client, WarehouseError> {
        if self.lost {
            let message = "the connection was lost; open another session";
            return Err(WarehouseError::new(ErrorKind::ConnectionLost, message));
        }
        if self.unfinished {
            self.abandon();
        }
        if self.connection.is_none() {
            let (connection, id) = self.opener.open().await?;
            *self.canceller.0.lock().unwrap_or_else(PoisonError::into_inner) = connection.canceller();
            self.id = id;
            self.connection = Some(connection);
        }
        self.unfinished = true;
        Ok(&self.connection.as_ref().expect("was opened above").client)
    }
}

impl<O> Link<O> {
    /// The server's name for the connection.
    pub(crate) fn id(&self) -> Option<String> {
        self.id.clone()
    }

    /// What stops a statement, whichever connection it runs on.
    pub(crate) fn canceller(&self) -> Arc<dyn Canceller> {
        self.canceller.clone()
    }

    /// The connection on which a statement was begun.
    pub(crate) fn current(&self) -> Option<&Client> {
        self.connection.as_ref().map(|connection| &connection.client)
    }

    /// The statement ended, well or not, and the connection can take the next if it still stands.
    pub(crate) fn end<T>(&mut self, result: Result<T, WarehouseError>) -> Result<T, WarehouseError> {
        self.unfinished = false;
        self.lost |= matches!(&result, Err(error) if error.kind == ErrorKind::ConnectionLost);
        result
    }

    /// Gives the connection up, together with what runs on it, when a statement has not ended.
    pub(crate) fn abandon_unfinished(&mut self) {
        if self.unfinished {
            self.abandon();
        }
    }

    fn abandon(&mut self) {
        self.unfinished = false;
        if let Some(connection) = self.connection.take() {
            connection.abandon();
        }
    }
}

impl<O> Drop for Link<O> {
    fn drop(&mut self) {
        self.abandon_unfinished();
    }
}

#[async_trait]
impl Canceller for CurrentCanceller {
    async fn cancel(&self) -> Result<(), WarehouseError> {
        let current = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        current.cancel().await
    }
}
