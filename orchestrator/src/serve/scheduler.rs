//! Ticks: the moments at which schedules are due become runs.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::{Service, sequence_wish, wish};
use crate::error::Error;
use crate::project::{Project, Schedule, SequenceSpec, SyncSpec};
use crate::schedule::{Ticker, jitter};
use crate::store::{Asked, CLOCKS_DIFFER, Cause, Due, Fired, What};

/// How long to leave a store alone that failed.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest sleep: a clock that is set is noticed by then.
const LONGEST: Duration = Duration::from_secs(30);

/// Brings ticks until the service ends.
pub(super) async fn work(service: Arc<Service>) {
    let mut projects = service.project.subscribe();
    let mut disabled = service.disabled.subscribe();
    while !service.is_stopping() {
        projects.mark_unchanged();
        disabled.mark_unchanged();
        let project = service.project();
        let mut table = match Timetable::of(&service, &project).await {
            Ok(table) => table,
            Err(error) => {
                tracing::warn!(error = %error, "the schedules could not be looked at; they are again in a moment");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        loop {
            let sleep = table.until_next().min(LONGEST);
            tokio::select! {
                () = tokio::time::sleep(sleep) => {}
                () = service.stopped() => return,
                _ = projects.changed() => break,
                _ = disabled.changed() => break,
            }
            if let Err(error) = table.bring(&service, &project).await {
                tracing::warn!(error = %error, "due runs could not be queued; they are again in a moment");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// What goes by the clock. Its ticker is made when it is asked: ten thousand of them would be most of the memory.
enum Scheduled {
    Sync(Arc<SyncSpec>),
    Sequence(Arc<SequenceSpec>),
}

impl Scheduled {
    fn object(&self) -> String {
        match self {
            Self::Sync(sync) => format!("sync:{}", sync.id),
            Self::Sequence(sequence) => format!("sequence:{}", sequence.id),
        }
    }

    fn schedule(&self) -> Option<&Schedule> {
        match self {
            Self::Sync(sync) => sync.schedule.as_ref(),
            Self::Sequence(sequence) => sequence.schedule.as_ref(),
        }
    }

    fn ticker(&self) -> Option<Ticker> {
        self.schedule().and_then(Ticker::of)
    }

    fn jitter(&self) -> Duration {
        match self {
            Self::Sync(sync) => sync.jitter,
            Self::Sequence(sequence) => sequence.jitter,
        }
    }

    fn due(&self, project: &Project, tick: DateTime<Utc>) -> Result<Due, Error> {
        let cause = Cause::Schedule { tick: tick.timestamp_millis() };
        let ready = tick + jitter(self.jitter(), &self.object(), tick);
        let what = match self {
            Self::Sync(sync) => What::Sync(wish(sync, Asked::because(cause), ready.timestamp_millis())),
            Self::Sequence(sequence) => {
                What::Sequence(sequence_wish(project, sequence, cause, ready.timestamp_millis())?)
            }
        };
        Ok(self.at(tick, what))
    }

    fn at(&self, tick: DateTime<Utc>, what: What) -> Due {
        let tick = tick.timestamp_millis();
        Due { object: self.object(), schedule: self.words(), tick, first: false, what }
    }

    /// The schedule, for telling whether it is still the same.
    fn words(&self) -> String {
        self.schedule().map(|schedule| format!("{schedule:?}")).unwrap_or_default()
    }
}

/// Everything that goes by the clock, and when each is due next.
struct Timetable {
    entries: Vec<Scheduled>,
    next: BinaryHeap<Reverse<(DateTime<Utc>, usize)>>,
    /// Entries of which no tick is known yet.
    unseen: HashSet<usize>,
}

impl Timetable {
    async fn of(service: &Service, project: &Project) -> Result<Self, Error> {
        let known = service.store.ticks().await?;
        let syncs = project.syncs.iter().filter(|sync| !service.is_disabled(sync)).cloned();
        let sequences = project.sequences.iter().cloned().map(Scheduled::Sequence);
        let entries = syncs.map(Scheduled::Sync).chain(sequences);
        let entries = entries.filter(|entry| entry.ticker().is_some()).collect();
        let mut table = Self { entries, next: BinaryHeap::new(), unseen: HashSet::new() };
        let (now, mut begun) = (Utc::now(), Vec::new());
        for (index, entry) in table.entries.iter().enumerate() {
            let Some(ticker) = entry.ticker() else { continue };
            let last = known.get(&entry.object()).and_then(|(schedule, last)| {
                let last = DateTime::from_timestamp_millis(*last)?;
                // What a clock said that was wrong is as good as now.
                let wrong = last > now + TimeDelta::milliseconds(CLOCKS_DIFFER);
                Some((*schedule == entry.words(), if wrong { now } else { last }))
            });
            let due = match (last, &ticker) {
                // Of what was missed, the last; else what comes. An interval goes on from its last run.
                (Some((true, last)), ticker) | (Some((false, last)), ticker @ Ticker::Every(_)) => {
                    ticker.latest(last, now).or_else(|| ticker.after(last))
                }
                (None, Ticker::Every(_)) => {
                    table.unseen.insert(index);
                    Some(now)
                }
                // Times of another schedule were not missed.
                (None | Some((false, _)), ticker) => {
                    begun.push(Due { first: last.is_none(), ..entry.at(now, What::Nothing) });
                    ticker.after(now)
                }
            };
            if let Some(due) = due {
                table.next.push(Reverse((due, index)));
            }
        }
        if !begun.is_empty() {
            service.store.fire(&begun).await?;
        }
        Ok(table)
    }

    fn until_next(&self) -> Duration {
        match self.next.peek() {
            Some(Reverse((due, _))) => (*due - Utc::now()).to_std().unwrap_or_default(),
            None => LONGEST,
        }
    }

    /// Queues whatever is due by now.
    async fn bring(&mut self, service: &Service, project: &Project) -> Result<(), Error> {
        let now = Utc::now();
        let (mut dues, mut again) = (Vec::new(), Vec::new());
        while let Some(Reverse((tick, index))) = self.next.peek().copied() {
            if tick > now {
                break;
            }
            self.next.pop();
            let entry = &self.entries[index];
            // The process may have slept through some: they are one.
            let tick = entry.ticker().and_then(|ticker| ticker.latest(tick, now)).unwrap_or(tick);
            dues.push(Due { first: self.unseen.contains(&index), ..entry.due(project, tick)? });
            again.push((tick, index));
        }
        if dues.is_empty() {
            return Ok(());
        }
        match service.store.fire(&dues).await {
            Ok(fired) => {
                for ((tick, index), fired) in again.into_iter().zip(&fired) {
                    self.unseen.remove(&index);
                    // An interval that another replica began counts from there.
                    let last = match fired {
                        Fired::Lost { last } => DateTime::from_timestamp_millis(*last).unwrap_or(tick),
                        Fired::Placed(_) | Fired::Noted => tick,
                    };
                    let ticker = self.entries[index].ticker();
                    if let Some(next) = ticker.and_then(|ticker| ticker.after(last)) {
                        self.next.push(Reverse((next, index)));
                    }
                }
                if fired.iter().any(|fired| !matches!(fired, Fired::Lost { .. })) {
                    service.wake.notify_waiters();
                }
                Ok(())
            }
            Err(error) => {
                self.next.extend(again.into_iter().map(Reverse));
                Err(error)
            }
        }
    }
}
