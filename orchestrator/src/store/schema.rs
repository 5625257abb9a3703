//! The store's own tables, and how an older store gets the newer ones.

use sqlx::{AnyConnection, Connection, Row};

use super::failed;
use crate::error::{Error, ErrorCode};

/// What each version adds to the one before. A step that was released is never changed.
const STEPS: &[&[&str]] = &[
    // 1: runs and the notes of their deliveries. `if not exists`: stores from before versions were counted have them.
    &[
        "create table if not exists levin_runs (
           id bigint primary key, sync_id bigint not null, sync text not null, status text not null,
           started_at text not null, finished_at text, report text)",
        "create index if not exists levin_runs_by_sync on levin_runs (sync_id, id)",
        "create table if not exists levin_deliveries (
           run bigint not null, batch bigint not null, rows text not null, ended text, primary key (run, batch))",
        "create table if not exists levin_notes_of (
           run bigint not null primary key, generation bigint not null, diff text not null)",
        "create table if not exists levin_holders (run bigint not null primary key, holder text not null)",
        "create table if not exists levin_generations (
           sync_id bigint not null primary key, generation bigint not null)",
        "create table if not exists levin_exchanges (
           sync_id bigint not null, key text not null, run bigint not null, request text not null,
           response text not null, primary key (sync_id, key))",
    ],
    // 2: what `levin serve` remembers.
    &[
        // When the run was asked for, and by what: JSON.
        "alter table levin_runs add column created_at text",
        "alter table levin_runs add column causes text",
        // How much of it was told to alerts and channels. What ended before there were any is not.
        "alter table levin_runs add column told bigint not null default 0",
        "update levin_runs set told = 2",
        "create index levin_runs_untold on levin_runs (id) where told < 2",
        "create index levin_runs_by_end on levin_runs (finished_at)",
        // A run that is taken over delivers a second time, under another generation.
        "create table levin_deliveries_2 (
           run bigint not null, generation bigint not null, batch bigint not null, rows text not null, ended text,
           primary key (run, generation, batch))",
        "insert into levin_deliveries_2 select d.run, n.generation, d.batch, d.rows, d.ended
           from levin_deliveries d join levin_notes_of n on n.run = d.run",
        "drop table levin_deliveries",
        "alter table levin_deliveries_2 rename to levin_deliveries",
        "create table levin_notes_of_2 (
           run bigint not null, generation bigint not null, diff text not null, primary key (run, generation))",
        "insert into levin_notes_of_2 select run, generation, diff from levin_notes_of",
        "drop table levin_notes_of",
        "alter table levin_notes_of_2 rename to levin_notes_of",
        // Runs that wait, and runs that somebody executes: `replica` says who. `begun`: the run's start over is durable in
        // the warehouse, and whoever goes on does not start over again.
        "create table levin_queue (
           run bigint primary key, sync_id bigint not null, source_id bigint not null,
           destination_id bigint not null, asked text not null, ready_at bigint not null, replica text,
           stage text, done bigint not null default 0, total bigint not null default 0,
           cancel bigint not null default 0, begun bigint not null default 0)",
        // Of one sync one run goes on at a time.
        "create index levin_queue_waiting on levin_queue (sync_id) where replica is null",
        "create unique index levin_queue_running on levin_queue (sync_id) where replica is not null",
        // The last tick of each schedule that became a run.
        "create table levin_ticks (object text primary key, schedule text not null, last bigint not null)",
        // Which parents of a sync or sequence have run since it was last queued.
        "create table levin_parents (
           object text not null, parent_id bigint not null, run bigint not null,
           primary key (object, parent_id))",
        "create table levin_replicas (
           id text primary key, holder text not null, beat bigint not null, project text not null)",
        "create table levin_disabled (sync_id bigint primary key, since text not null)",
        // What an idempotency key was answered.
        "create table levin_answers (
           name text primary key, digest text not null, answer text not null, created_at bigint not null)",
        "create table levin_sequence_runs (
           id text primary key, sequence_id bigint not null, sequence text not null, status text not null,
           members text not null, position bigint not null, causes text not null, created_at text not null,
           finished_at text)",
        "create unique index levin_sequence_open on levin_sequence_runs (sequence_id) where finished_at is null",
        "create table levin_sequence_members (
           sequence_run text not null, position bigint not null, run bigint not null,
           primary key (sequence_run, position))",
        "create table levin_keys (
           name text primary key, id text not null unique, hash text not null, scope text not null,
           created_at text not null, expires_at text, revoked_at text, used_at text)",
        // Since when an object of the project is as it is.
        "create table levin_objects (
           kind text not null, id bigint not null, digest text not null, created_at text not null,
           updated_at text not null, primary key (kind, id))",
        // State of each alert, and messages on their way out. `subject` and `told` are JSON: what the alert is of, and
        // which channels heard of its beginning. While a sync rests no time counts for it.
        "create table levin_alerts (
           sync_id bigint not null, rule text not null, state text not null, since text not null,
           message text not null, run bigint, rests bigint not null default 0, subject text not null,
           told text not null, primary key (sync_id, rule))",
        // `rank`: alerts (0) leave before what is told of each run (1).
        "create table levin_outbox (
           id text primary key, position bigint not null, recipient text not null, thread text not null,
           rank bigint not null, message text not null, attempts bigint not null, created_at bigint not null,
           due_at bigint not null, replica text, claimed_until bigint not null)",
        "create index levin_outbox_positions on levin_outbox (position)",
        "create index levin_outbox_threads on levin_outbox (recipient, thread, position)",
        "create index levin_outbox_order on levin_outbox (recipient, rank, position)",
        "create index levin_outbox_claimed on levin_outbox (recipient, claimed_until)",
        // Messages of other services that were received.
        "create table levin_received (
           hook text not null, id text not null, received_at bigint not null, primary key (hook, id))",
    ],
];

/// Brings the tables up to this program's version. Several who open a store at once wait for each other.
pub(super) async fn migrate(connection: &mut AnyConnection) -> Result<(), Error> {
    let table = "create table if not exists levin_store (name text primary key, value text not null)";
    // Of two who make the same table at once, Postgres refuses one; the second time it is there.
    if sqlx::query(table).execute(&mut *connection).await.is_err() {
        sqlx::query(table).execute(&mut *connection).await.map_err(failed)?;
    }
    if version(connection).await? == Some(STEPS.len()) {
        return Ok(());
    }
    let mut transaction = connection.begin().await.map_err(failed)?;
    // A write, so that whoever else migrates waits here: until the first is done.
    sqlx::query(
        "insert into levin_store (name, value) values ('schema', '0') on conflict (name) do update set value = levin_store.value",
    )
    .execute(&mut *transaction)
    .await
    .map_err(failed)?;
    let has = version(&mut transaction).await?.unwrap_or_default();
    if has > STEPS.len() {
        return Err(Error::new(
            ErrorCode::StoreFailed,
            format!("the store is of version {has}, and this levin knows versions up to {}", STEPS.len()),
        )
        .hint("a newer levin has used this store; run that one, or take a backup from before"));
    }
    for statement in STEPS[has..].iter().flat_map(|step| step.iter()) {
        sqlx::query(*statement).execute(&mut *transaction).await.map_err(failed)?;
    }
    sqlx::query("update levin_store set value = $1 where name = 'schema'")
        .bind(STEPS.len().to_string())
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
    transaction.commit().await.map_err(failed)
}

async fn version(connection: &mut AnyConnection) -> Result<Option<usize>, Error> {
    let row = sqlx::query("select value from levin_store where name = 'schema'")
        .fetch_optional(connection)
        .await
        .map_err(failed)?;
    Ok(row.and_then(|row| row.get::<String, _>(0).parse().ok()))
}
