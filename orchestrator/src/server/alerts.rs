//! What is not right with a sync, as its alerts see it.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::auth::Reader;
use super::fault::Fault;
use super::objects::List;
use super::request::{Path, Query};
use super::runs::sync_of;
use crate::store::AlertState;

/// The state of an alert.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Alert {
    /// What is looked at: `run_failed`, `guard_tripped`, `rejected_rows`, `too_slow`, `not_run_for` or `rows_queried`.
    rule: &'static str,
    /// `ok`, `warning` or `critical`.
    state: &'static str,
    /// Since when it is so, or not right.
    since: String,
    /// What was found when it last changed.
    message: String,
    /// The run that told; null when none did.
    #[schema(required)]
    run_id: Option<i64>,
}

impl From<AlertState> for Alert {
    fn from(alert: AlertState) -> Self {
        Self {
            rule: alert.rule.name(),
            state: alert.state.name(),
            since: alert.since.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
            message: alert.message,
            run_id: alert.run,
        }
    }
}

/// List alerts of a sync
///
/// Those that were ever looked at, with their states.
#[utoipa::path(get, path = "/syncs/{syncId}/alerts", operation_id = "ListSyncAlerts", tag = "alerts",
    params(("syncId" = i64, Path, minimum = 1, description = "The number of the sync")),
    responses((status = 200, description = "All of them", body = List<Alert>)))]
pub(super) async fn list(
    _: Reader,
    State(api): State<Api>,
    path: Path,
    query: Query,
) -> Result<Json<List<Alert>>, Fault> {
    let sync = sync_of(&api, &path)?;
    query.checked()?;
    let alerts = api.service.store().alerts(Some(sync.id)).await?;
    Ok(Json(List { data: alerts.into_iter().map(Alert::from).collect(), has_more: false }))
}
