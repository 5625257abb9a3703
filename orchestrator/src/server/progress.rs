//! How a run goes on, as it happens. Everything is read from the store, so that any replica can tell.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::stream::{self, Stream};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::auth::{Caller, Reader};
use super::fault::Fault;
use super::request::Path;
use super::runs::{SyncRun, run_of};
use crate::store::{RunFilter, RunRow};

/// How often the store is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// A run at a moment: `data` of each event.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RunProgress {
    #[serde(flatten)]
    run: SyncRun,
    /// The stage it is in: `prepare`, `diff`, `plan`, `deliver`, `commit`, `prune`; null when nobody says.
    #[schema(required)]
    stage: Option<&'static str>,
    /// Rows that have ended.
    #[schema(minimum = 0)]
    done_rows: i64,
    /// Rows that will be sent; 0 before that is known.
    #[schema(minimum = 0)]
    total_rows: i64,
}

impl RunProgress {
    fn of(api: &Api, run: &RunRow, caller: &Caller) -> Self {
        let place = run.place;
        Self {
            run: SyncRun::of(api, run, caller),
            stage: place.and_then(|place| place.stage).map(crate::run::Stage::name),
            done_rows: place.map_or(0, |place| place.done),
            total_rows: place.map_or(0, |place| place.total),
        }
    }
}

/// Watch a run
///
/// Server-sent events: one `run` with every change of status, stage or rows. The stream ends after the one that tells
/// how the run ended.
#[utoipa::path(get, path = "/syncs/{syncId}/runs/{runId}/events", operation_id = "WatchSyncRun", tag = "runs",
    params(("syncId" = i64, Path, minimum = 1, description = "The number of the sync"),
        ("runId" = i64, Path, minimum = 1, description = "The number of the run")),
    responses((status = 200, description = "Events; `data` of each is a `RunProgress`", body = String,
        content_type = "text/event-stream")))]
pub(super) async fn watch(
    Reader(caller): Reader,
    State(api): State<Api>,
    path: Path,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Fault> {
    let (_, run) = run_of(&api, &path).await?;
    let begun = Watch { sync: run.sync_id, id: run.id, told: None, first: Some(run), caller };
    let events = stream::unfold(Some(begun), move |watch| {
        let api = api.clone();
        async move {
            let mut watch = watch?;
            let now = watch.next(&api).await?;
            let event = Event::default().event("run").json_data(&now).unwrap_or_default();
            let ended = now.run.status.is_final();
            watch.told = Some(now);
            Some((Ok(event), (!ended).then_some(watch)))
        }
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

/// Who watches, and what they were told last.
struct Watch {
    sync: i64,
    id: i64,
    told: Option<RunProgress>,
    first: Option<RunRow>,
    caller: Caller,
}

impl Watch {
    /// The next thing to tell; `None` when the service ends or the run is forgotten.
    async fn next(&mut self, api: &Api) -> Option<RunProgress> {
        if let Some(run) = self.first.take() {
            return Some(RunProgress::of(api, &run, &self.caller));
        }
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = api.service.stopped() => return None,
            }
            let filter = RunFilter { run: Some(self.id), limit: 1, ..RunFilter::default() };
            match api.service.store().page_of_runs(self.sync, &filter).await {
                Ok(mut runs) => {
                    let now = RunProgress::of(api, &runs.pop()?, &self.caller);
                    if self.told.as_ref() != Some(&now) {
                        return Some(now);
                    }
                }
                Err(error) => tracing::warn!(error = %error, "a run that is watched could not be looked at"),
            }
        }
    }
}
