//! One run's delivery: connections, transactions and what their ends mean.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::datatypes::Schema;
use async_trait::async_trait;
use bytes::Bytes;
use futures::SinkExt;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::{Client, Error, SimpleQueryMessage};

use super::Server;
use super::apply::{Plan, Planning, Statements};
use super::copy::encode;
use super::table::{Table, TableName, create_statement};
use super::trouble::{commit_certainly_failed, cut, unavailable};
use crate::change::ChangeBatch;
use crate::destination::{Delivery, DeliverySpec};
use crate::outcome::{Delivered, DeliveryError, Exchange, Rejection, RowOutcome};
use crate::postgres_client::PostgresConnection;

/// How much of COPY's data is handed over at once.
const CHUNK: usize = 256 << 10;

/// The most characters of a statement that are kept for an operator.
const MAX_STATEMENT: usize = 4_000;

/// How long undoing a failed transaction may take before its connection is given up.
const ROLLBACK: Duration = Duration::from_secs(2);

pub(super) struct PostgresDelivery {
    server: Arc<Server>,
    sync: DeliverySpec,
    table: TableName,
    application_name: String,
    plan: OnceCell<Plan>,
    idle: Mutex<Vec<Link>>,
}

/// A connection with its staging table, if that was made.
struct Link {
    connection: PostgresConnection,
    staged: bool,
}

/// A connection in use. Dropped in the middle of its work, it is given up: nobody knows in which
/// state it is.
struct Held<'a> {
    link: Option<Link>,
    idle: &'a Mutex<Vec<Link>>,
}

/// How an attempt failed.
struct Failure {
    error: DeliveryError,
    outcome: RowOutcome,
}

impl PostgresDelivery {
    pub(super) fn new(server: Arc<Server>, sync: DeliverySpec, table: TableName) -> Self {
        let application_name = format!("levin/{}/deliver", sync.sync);
        Self { server, sync, table, application_name, plan: OnceCell::new(), idle: Mutex::default() }
    }

    pub(super) fn application_name(&self) -> &str {
        &self.application_name
    }

    /// Keeps a connection for the first batch.
    pub(super) fn keep(&self, connection: PostgresConnection) {
        lock(&self.idle).push(Link { connection, staged: false });
    }

    /// Decides how rows get into this table.
    pub(super) async fn plan_for(
        &self,
        connection: &PostgresConnection,
        table: &Table,
    ) -> Result<&Plan, DeliveryError> {
        let identity: Vec<String> = self.sync.identity.fields().iter().map(|f| f.name().clone()).collect();
        self.plan
            .get_or_try_init(|| async {
                let unique = table
                    .is_unique(&connection.client, &identity)
                    .await
                    .map_err(|e| self.server.troubles.of(&e, Some(&self.table)))?;
                Plan::new(Planning { sync: &self.sync, table, unique })
            })
            .await
    }

    /// The plan; makes the table when that is still to be done.
    async fn plan(&self, connection: &PostgresConnection) -> Result<&Plan, DeliveryError> {
        if let Some(plan) = self.plan.get() {
            return Ok(plan);
        }
        let troubles = &self.server.troubles;
        let client = &connection.client;
        let created = client.batch_execute(&create_statement(&self.table, &self.sync)).await;
        let table = Table::load(client, &self.table).await.map_err(|e| troubles.of(&e, Some(&self.table)))?;
        match (table, created) {
            // Another session may have made it meanwhile.
            (Some(table), _) => self.plan_for(connection, &table).await,
            (None, Err(error)) => Err(match troubles.of(&error, Some(&self.table)) {
                DeliveryError::Refused { message } => DeliveryError::Unauthorized {
                    message,
                    hint: format!("create {} by hand", self.table.quoted()),
                },
                error => error,
            }),
            (None, Ok(())) => Err(DeliveryError::Unauthorized {
                message: format!("{} was created and is gone", self.table.quoted()),
                hint: "find out what drops it".into(),
            }),
        }
    }

    async fn link(&self) -> Result<Held<'_>, DeliveryError> {
        let link = loop {
            // Taken in a statement of its own: the lock must not be held while connecting.
            let idle = lock(&self.idle).pop();
            match idle {
                Some(link) if link.connection.client.is_closed() => {}
                Some(link) => break link,
                None => {
                    let connection = self.server.connect(&self.application_name).await?;
                    break Link { connection, staged: false };
                }
            }
        };
        Ok(Held { link: Some(link), idle: &self.idle })
    }

    /// Stages and applies; nothing is committed. Gives the rows that the table does not hold.
    async fn apply(
        &self,
        link: &mut Link,
        plan: &Plan,
        statements: &Statements,
        rows: Bytes,
    ) -> Result<HashSet<usize>, DeliveryError> {
        let client = &link.connection.client;
        let work = async {
            if !link.staged {
                client.batch_execute(&plan.create_stage).await?;
                link.staged = true;
            }
            client.batch_execute("begin isolation level read committed read write").await?;
            copy_rows(client, &statements.copy, rows).await?;
            // Planned anew each time: a plan that was made for a small table would stay.
            client.simple_query(&statements.apply).await
        };
        let messages = work.await.map_err(|e| self.server.troubles.of(&e, Some(&self.table)))?;
        if !statements.names_missing {
            return Ok(HashSet::new());
        }
        let number = |message: &SimpleQueryMessage| match message {
            SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
            _ => None,
        };
        Ok(messages.iter().filter_map(number).collect())
    }

    /// One transaction. On failure nothing is applied, unless the outcome says `InDoubt`.
    async fn transact(
        &self,
        held: &mut Held<'_>,
        statements: &Statements,
        plan: &Plan,
        rows: Bytes,
        deadline: Instant,
    ) -> Result<HashSet<usize>, Failure> {
        let not_sent = |error| Failure { error, outcome: RowOutcome::NotSent };
        let Some(link) = held.link.as_mut() else {
            return Err(not_sent(unavailable("the connection is gone".into())));
        };
        let applied = match timeout_at(deadline, self.apply(link, plan, statements, rows)).await {
            Ok(Ok(missing)) => missing,
            Ok(Err(error)) => {
                let undone = tokio::time::timeout(ROLLBACK, link.connection.client.batch_execute("rollback"));
                if undone.await.is_ok_and(|r| r.is_ok()) {
                    held.put_back();
                }
                return Err(not_sent(error));
            }
            Err(_) => {
                let message = format!("the batch took longer than {:?}", self.server.statement_timeout);
                return Err(not_sent(DeliveryError::Unavailable { answered: true, after: None, message }));
            }
        };
        match timeout_at(deadline, link.connection.client.batch_execute("commit")).await {
            Ok(Ok(())) => {
                held.put_back();
                Ok(applied)
            }
            Ok(Err(error)) => {
                let certain = commit_certainly_failed(&error);
                let outcome = if certain { RowOutcome::NotSent } else { RowOutcome::InDoubt };
                let error = match self.server.troubles.of(&error, Some(&self.table)) {
                    error if certain => error,
                    error => unavailable(format!("no definite answer to the commit: {error}")),
                };
                Err(Failure { error, outcome })
            }
            Err(_) => Err(Failure {
                error: unavailable("no answer to the commit in time".into()),
                outcome: RowOutcome::InDoubt,
            }),
        }
    }
}

#[async_trait]
impl Delivery for PostgresDelivery {
    async fn deliver(&self, batch: &ChangeBatch) -> Delivered {
        let rows = batch.len();
        let failed = |error| Delivered::failed(error, RowOutcome::NotSent, rows);
        if rows == 0 {
            return Delivered { calls: 0, ..Delivered::all(RowOutcome::Accepted, 0) };
        }
        let deadline = Instant::now() + self.server.connect_timeout + self.server.statement_timeout;
        let late = |_| unavailable("no connection in time".into());
        let prepared = timeout_at(deadline, async {
            let held = self.link().await?;
            let plan = match &held.link {
                Some(link) => self.plan(&link.connection).await?,
                None => return Err(unavailable("the connection is gone".into())),
            };
            Ok((held, plan))
        });
        let (mut held, plan) = match prepared.await.map_err(late).flatten() {
            Ok(prepared) => prepared,
            Err(error) => return failed(error),
        };
        let Some(statements) = plan.statements(batch.operation) else {
            held.put_back();
            return Delivered { calls: 0, ..Delivered::all(RowOutcome::Accepted, rows) };
        };
        if !same_names(&batch.fields.schema(), &self.sync.fields)
            || !same_names(&batch.identity.schema(), &self.sync.identity)
        {
            held.put_back();
            let message = "the rows have other fields than the sync".into();
            let hint = "report this as a fault of levin".into();
            return Delivered { calls: 0, ..failed(DeliveryError::Unauthorized { message, hint }) };
        }
        let (bytes, rejections) = match encode(&statements.columns, &batch.identity, &batch.fields) {
            Ok(encoded) => encoded,
            Err(error) => {
                held.put_back();
                let hint = "map the column to text in the model".into();
                let error = DeliveryError::Unauthorized { message: error.to_string(), hint };
                return Delivered { calls: 0, ..failed(error) };
            }
        };
        let with_rejections = |outcome: &dyn Fn(usize) -> RowOutcome| -> Vec<RowOutcome> {
            let each = rejections.iter().cloned().enumerate();
            each.map(|(row, no)| no.map_or_else(|| outcome(row), RowOutcome::Rejected)).collect()
        };
        if rejections.iter().all(Option::is_some) {
            held.put_back();
            let outcomes = with_rejections(&|_| RowOutcome::NotSent);
            return Delivered { outcomes, error: None, calls: 0, exchange: None };
        }
        let exchange = |response: String| {
            Some(Exchange { request: cut(statements.apply.clone(), MAX_STATEMENT), response })
        };
        match self.transact(&mut held, statements, plan, bytes.into(), deadline).await {
            Ok(missing) => {
                let outcome = |row: usize| {
                    if missing.contains(&row) {
                        let reason = format!("{} has no such row", self.table.quoted());
                        return RowOutcome::Rejected(Rejection::new(Rejection::NOT_FOUND, reason));
                    }
                    RowOutcome::Accepted
                };
                let exchange = (!missing.is_empty())
                    .then(|| exchange(format!("{} rows matched nothing", missing.len())))
                    .flatten();
                Delivered { outcomes: with_rejections(&outcome), error: None, calls: 1, exchange }
            }
            Err(Failure { error, outcome }) => Delivered {
                outcomes: with_rejections(&|_| outcome.clone()),
                exchange: exchange(error.to_string()),
                error: Some(error),
                calls: 1,
            },
        }
    }

    async fn close(self: Box<Self>, _complete: bool) -> Result<Option<RowOutcome>, DeliveryError> {
        Ok(None)
    }
}

impl Held<'_> {
    /// The connection is as it was before.
    fn put_back(&mut self) {
        if let Some(link) = self.link.take() {
            lock(self.idle).push(link);
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(link) = self.link.take() {
            link.connection.abandon();
        }
    }
}

/// Hands rows over to a COPY.
pub(super) async fn copy_rows(client: &Client, copy: &str, rows: Bytes) -> Result<u64, Error> {
    let mut sink = Box::pin(client.copy_in::<_, Bytes>(copy).await?);
    let mut rest = rows;
    while !rest.is_empty() {
        let chunk = rest.split_to(rest.len().min(CHUNK));
        sink.feed(chunk).await?;
    }
    sink.as_mut().finish().await
}

/// Columns are found by their place, so the places must be those of the plan.
pub(super) fn same_names(one: &Schema, other: &Schema) -> bool {
    one.fields().iter().map(|f| f.name()).eq(other.fields().iter().map(|f| f.name()))
}

/// Nothing panics while it holds this lock.
fn lock(idle: &Mutex<Vec<Link>>) -> std::sync::MutexGuard<'_, Vec<Link>> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}
