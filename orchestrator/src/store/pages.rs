//! What the API shows of runs: page by page, and of many syncs the last run of each.

use std::collections::HashMap;

use serde_json::Value;
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row};

use super::{Store, failed};
use crate::error::Error;
use crate::run::{Holder, Stage};
use crate::store::Cause;

/// A run, and where it is if it has not ended.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRow {
    /// Its number.
    pub id: i64,
    /// The sync's number.
    pub sync_id: i64,
    /// The store's word.
    pub status: String,
    /// When it was asked for, RFC 3339.
    pub created_at: String,
    /// When it began; while it waits, when it was asked for.
    pub started_at: String,
    /// When it ended.
    pub finished_at: Option<String>,
    /// The report, once it has ended.
    pub report: Option<Value>,
    /// Who asked for it.
    pub causes: Vec<Cause>,
    /// The process that runs it.
    pub holder: Option<Holder>,
    /// Its place in the queue of the service.
    pub place: Option<Place>,
}

/// Where a run of the service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// A replica has taken it.
    pub taken: bool,
    /// The stage it is in.
    pub stage: Option<Stage>,
    /// Rows that have ended.
    pub done: i64,
    /// Rows that will be sent; 0 before that is known.
    pub total: i64,
}

/// By what runs are ordered, the newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RunOrder {
    /// Their number.
    #[default]
    Id,
    /// When they were asked for.
    CreatedAt,
    /// When they began.
    StartedAt,
    /// When they ended; those that have not come first.
    FinishedAt,
}

/// Which runs are shown.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    /// Only this one.
    pub run: Option<i64>,
    /// Asked for after this moment.
    pub after: Option<String>,
    /// Asked for before this moment.
    pub before: Option<String>,
    /// The order.
    pub order: RunOrder,
    /// How many are passed over.
    pub offset: i64,
    /// The most that are shown.
    pub limit: i64,
}

const COLUMNS: &str =
    "r.id, r.sync_id, r.status, coalesce(r.created_at, r.started_at), r.started_at, r.finished_at,
    r.report, r.causes, h.holder, q.run, q.replica, q.stage, q.done, q.total";
const JOINS: &str = "left join levin_holders h on h.run = r.id left join levin_queue q on q.run = r.id";

impl Store {
    /// Runs of a sync, the newest first.
    pub async fn page_of_runs(&self, sync_id: i64, filter: &RunFilter) -> Result<Vec<RunRow>, Error> {
        let order = match filter.order {
            RunOrder::Id => "r.id desc",
            RunOrder::CreatedAt => "coalesce(r.created_at, r.started_at) desc, r.id desc",
            RunOrder::StartedAt => "r.started_at desc, r.id desc",
            RunOrder::FinishedAt => "coalesce(r.finished_at, '9999') desc, r.id desc",
        };
        let statement = format!(
            "select {COLUMNS} from levin_runs r {JOINS}
             where r.sync_id = $1 and ($2 < 0 or r.id = $2) and ($3 = '' or coalesce(r.created_at, r.started_at) > $3)
               and ($4 = '' or coalesce(r.created_at, r.started_at) < $4)
             order by {order} limit $5 offset $6"
        );
        let rows = sqlx::query(AssertSqlSafe(statement))
            .bind(sync_id)
            .bind(filter.run.unwrap_or(-1))
            .bind(filter.after.as_deref().unwrap_or_default())
            .bind(filter.before.as_deref().unwrap_or_default())
            .bind(filter.limit)
            .bind(filter.offset)
            .fetch_all(&self.pool)
            .await
            .map_err(failed)?;
        Ok(rows.iter().map(read).collect())
    }

    /// The last run of each of these syncs that has one. Costs one look at an index per sync, however many
    /// runs there were.
    pub async fn last_runs(&self, syncs: &[i64]) -> Result<HashMap<i64, RunRow>, Error> {
        let mut found = HashMap::with_capacity(syncs.len());
        for some in syncs.chunks(500) {
            // Numbers, so they may stand in the statement itself.
            let values: Vec<String> = some.iter().map(|id| format!("({id})")).collect();
            let statement = format!(
                "with wanted (id) as (values {})
                 select {COLUMNS} from wanted w
                 join levin_runs r on r.id = (select max(newest.id) from levin_runs newest where newest.sync_id = w.id)
                 {JOINS}",
                values.join(", ")
            );
            let rows = sqlx::query(AssertSqlSafe(statement))
                .persistent(false)
                .fetch_all(&self.pool)
                .await
                .map_err(failed)?;
            found.extend(rows.iter().map(|row| {
                let run = read(row);
                (run.sync_id, run)
            }));
        }
        Ok(found)
    }
}

fn read(row: &AnyRow) -> RunRow {
    let parsed = |at: usize| row.get::<Option<String>, _>(at);
    RunRow {
        id: row.get(0),
        sync_id: row.get(1),
        status: row.get(2),
        created_at: row.get(3),
        started_at: row.get(4),
        finished_at: row.get(5),
        report: parsed(6).and_then(|text| serde_json::from_str(&text).ok()),
        causes: parsed(7).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default(),
        holder: parsed(8).and_then(|text| serde_json::from_str(&text).ok()),
        place: row.get::<Option<i64>, _>(9).map(|_| Place {
            taken: parsed(10).is_some(),
            stage: parsed(11).and_then(|name| Stage::of_name(&name)),
            done: row.get(12),
            total: row.get(13),
        }),
    }
}
