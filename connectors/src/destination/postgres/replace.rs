//! `replace: true`: the content of the table gives way to the rows of the run, at once.
//!
//! One transaction holds the whole run. Rows are collected in a temporary table with the target's
//! own constraints, so that a bad row is found with its batch; on closing, the target is emptied
//! and filled and the transaction committed. Readers see the old content or the new, never a part.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::Error;

use super::apply::{Plan, Planning};
use super::copy::encode;
use super::delivery::{copy_rows, same_names};
use super::table::{Table, TableName, create_statement, quoted_list};
use super::trouble::{commit_certainly_failed, unavailable};
use super::{Server, written_fields};
use crate::change::{ChangeBatch, Mode, OnRemoved};
use crate::destination::{Delivery, DeliverySpec};
use crate::outcome::{Delivered, DeliveryError, RowOutcome};
use crate::postgres_client::PostgresConnection;

const CONTENT: &str = "pg_temp.levin_content";

/// How long undoing a refused batch may take before the run is given up.
const ROLLBACK: Duration = Duration::from_secs(2);

pub(super) struct ReplaceDelivery {
    server: Arc<Server>,
    sync: DeliverySpec,
    table: TableName,
    application_name: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Kept from opening until the transaction begins.
    idle: Option<PostgresConnection>,
    begun: Option<Begun>,
    /// Why nothing more can be delivered. Set while a batch is under way, so that an attempt that
    /// nobody waits for ends the run.
    broken: Option<DeliveryError>,
}

/// An open transaction with its temporary tables.
struct Begun {
    connection: PostgresConnection,
    plan: Plan,
}

impl ReplaceDelivery {
    pub(super) fn new(
        server: Arc<Server>,
        sync: &DeliverySpec,
        table: TableName,
        connection: PostgresConnection,
    ) -> Self {
        // The rows go into an empty table: all of them are inserted, none can be missing.
        let sync = DeliverySpec { mode: Mode::Insert, on_removed: OnRemoved::Nothing, ..sync.clone() };
        Self {
            server,
            application_name: format!("levin/{}/deliver", sync.sync),
            sync,
            table,
            state: Mutex::new(State { idle: Some(connection), ..State::default() }),
        }
    }

    fn trouble(&self, error: &Error) -> DeliveryError {
        self.server.troubles.of(error, Some(&self.table))
    }

    async fn begin<'a>(&self, state: &'a mut State) -> Result<&'a Begun, DeliveryError> {
        if state.begun.is_none() {
            let connection = match state.idle.take() {
                Some(connection) => connection,
                None => self.server.connect(&self.application_name).await?,
            };
            let client = &connection.client;
            client
                .batch_execute(
                    "begin isolation level read committed read write; \
                     set local idle_in_transaction_session_timeout = 0",
                )
                .await
                .map_err(|e| self.trouble(&e))?;
            let load = || async { Table::load(client, &self.table).await.map_err(|e| self.trouble(&e)) };
            let table = match load().await? {
                Some(table) => table,
                // Without `create`, opening has refused.
                None => {
                    let create = create_statement(&self.table, &self.sync);
                    client.batch_execute(&create).await.map_err(|e| self.trouble(&e))?;
                    load().await?.ok_or_else(|| unavailable("the created table is gone".into()))?
                }
            };
            Plan::new(Planning { sync: &self.sync, table: &table, unique: false })?;
            let content = Table {
                name: TableName { schema: "pg_temp".into(), table: "levin_content".into() },
                ..table
            };
            let plan = Plan::new(Planning { sync: &self.sync, table: &content, unique: false })?;
            let like = format!(
                "create temporary table levin_content (like {} including defaults including constraints \
                 including indexes including generated including identity) on commit drop; {}",
                self.table.quoted(),
                plan.create_stage
            );
            client.batch_execute(&like).await.map_err(|e| self.trouble(&e))?;
            state.begun = Some(Begun { connection, plan });
        }
        // Set above when it was not set before.
        state.begun.as_ref().ok_or_else(|| unavailable("the transaction has not begun".into()))
    }

    /// Adds a batch, or leaves everything as it was; an error comes with whether the transaction
    /// still stands.
    async fn add(&self, begun: &Begun, rows: bytes::Bytes) -> Result<(), (bool, DeliveryError)> {
        let client = &begun.connection.client;
        let work = async {
            client.batch_execute("savepoint batch").await?;
            copy_rows(client, &begun.plan.write.copy, rows).await?;
            let apply = &begun.plan.write.apply;
            client
                .batch_execute(&format!("{apply}; truncate pg_temp.levin_stage; release savepoint batch"))
                .await
        };
        let Err(error) = work.await else { return Ok(()) };
        let undone =
            tokio::time::timeout(ROLLBACK, client.batch_execute("rollback to savepoint batch")).await;
        Err((undone.is_ok_and(|r| r.is_ok()), self.trouble(&error)))
    }

    fn lost(&self, what: &str) -> DeliveryError {
        DeliveryError::Unauthorized {
            message: format!("the replacement of {} is given up: {what}", self.table.quoted()),
            hint: "its content is as before; run the sync again".into(),
        }
    }
}

#[async_trait]
impl Delivery for ReplaceDelivery {
    async fn deliver(&self, batch: &ChangeBatch) -> Delivered {
        let rows = batch.len();
        let failed = |error| Delivered::failed(error, RowOutcome::NotSent, rows);
        let mut state = self.state.lock().await;
        if let Some(error) = &state.broken {
            return Delivered { calls: 0, ..failed(error.clone()) };
        }
        if !same_names(&batch.fields.schema(), &self.sync.fields)
            || !same_names(&batch.identity.schema(), &self.sync.identity)
        {
            return Delivered { calls: 0, ..failed(self.lost("the rows have other fields than the sync")) };
        }
        let deadline = Instant::now() + self.server.connect_timeout + self.server.statement_timeout;
        match timeout_at(deadline, self.begin(&mut state)).await {
            Ok(Ok(_)) => {}
            // Nothing was collected yet, so beginning again loses nothing.
            Ok(Err(error)) => return failed(error),
            Err(_) => return failed(unavailable("the transaction did not begin in time".into())),
        }
        state.broken = Some(self.lost("a batch was given up"));
        let Some(begun) = &state.begun else { return failed(self.lost("there is no transaction")) };
        let (bytes, rejections) = match encode(&begun.plan.write.columns, &batch.identity, &batch.fields) {
            Ok(encoded) => encoded,
            Err(error) => return Delivered { calls: 0, ..failed(self.lost(&error.to_string())) },
        };
        let outcomes = |outcome: RowOutcome| -> Vec<RowOutcome> {
            rejections.iter().map(|no| no.clone().map_or(outcome.clone(), RowOutcome::Rejected)).collect()
        };
        match timeout_at(deadline, self.add(begun, bytes.into())).await {
            Ok(Ok(())) => {
                state.broken = None;
                Delivered { outcomes: outcomes(RowOutcome::Deferred), error: None, calls: 1, exchange: None }
            }
            Ok(Err((true, error))) => {
                state.broken = None;
                Delivered {
                    outcomes: outcomes(RowOutcome::NotSent),
                    error: Some(error),
                    calls: 1,
                    exchange: None,
                }
            }
            Ok(Err((false, error))) => {
                let error = self.lost(&error.to_string());
                state.broken = Some(error.clone());
                failed(error)
            }
            Err(_) => {
                if let Some(begun) = state.begun.take() {
                    begun.connection.abandon();
                }
                failed(self.lost(&format!("a batch took longer than {:?}", self.server.statement_timeout)))
            }
        }
    }

    /// An error says that the table is as it was before.
    async fn close(self: Box<Self>, complete: bool) -> Result<Option<RowOutcome>, DeliveryError> {
        let mut state = self.state.lock().await;
        if !complete {
            // The server undoes what a closed connection leaves open.
            return Ok(Some(RowOutcome::NotSent));
        }
        if let Some(error) = state.broken.take() {
            return Err(error);
        }
        let client = &self.begin(&mut state).await?.connection.client;
        let target = self.table.quoted();
        let columns = quoted_list(written_fields(&self.sync).map(|f| f.name().as_str()));
        let swap =
            format!("delete from {target}; insert into {target} ({columns}) select {columns} from {CONTENT}");
        client.batch_execute(&swap).await.map_err(|e| self.trouble(&e))?;
        match client.batch_execute("commit").await {
            Ok(()) => Ok(Some(RowOutcome::Accepted)),
            Err(error) if commit_certainly_failed(&error) => Err(self.trouble(&error)),
            Err(error) => {
                tracing::error!(table = target, error = %self.trouble(&error), "no definite answer to the commit");
                Ok(Some(RowOutcome::InDoubt))
            }
        }
    }
}
