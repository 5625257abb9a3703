//! When a schedule is due: pure calculation, on moments of UTC.
//!
//! Times of day and cron expressions live in a time zone. Where its clocks skip a time, that time is due when they go
//! on; where they show one twice, it is due once.

use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

use crate::project::{Schedule, TimeOfDay};

/// Tells the ticks of a schedule that goes by the clock.
#[derive(Debug, Clone)]
pub enum Ticker {
    /// So long after the last tick.
    Every(TimeDelta),
    /// Whenever one of these says so.
    Crons(Vec<Cron>, Tz),
}

impl Ticker {
    /// The ticker of a schedule; `None` for one that waits for something else than the clock.
    pub fn of(schedule: &Schedule) -> Option<Self> {
        match schedule {
            Schedule::Every(every) => TimeDelta::from_std(*every).ok().map(Self::Every),
            Schedule::Cron { expression, timezone } => {
                let crons: Vec<Cron> =
                    times_of_day(expression).iter().filter_map(|expression| cron(expression).ok()).collect();
                (!crons.is_empty()).then_some(Self::Crons(crons, *timezone))
            }
            Schedule::At { times, timezone } => {
                let crons = times.iter().filter_map(|time| cron(&expression_of(time)).ok()).collect();
                Some(Self::Crons(crons, *timezone))
            }
            Schedule::After(_) | Schedule::DbtCloud { .. } | Schedule::Fivetran { .. } => None,
        }
    }

    /// The first tick after a moment; `None` when there is none any more.
    pub fn after(&self, moment: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self {
            Self::Every(every) => moment.checked_add_signed(*every),
            Self::Crons(crons, zone) => {
                let local = moment.with_timezone(zone);
                let next = crons.iter().filter_map(|cron| cron.find_next_occurrence(&local, false).ok());
                next.map(|next| next.with_timezone(&Utc)).filter(|next| *next > moment).min()
            }
        }
    }

    /// The last tick after `since` and not after `now`: of several that were missed, the one that counts.
    pub fn latest(&self, since: DateTime<Utc>, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let first = self.after(since).filter(|first| *first <= now)?;
        Some(match self {
            Self::Every(every) => {
                let missed = (now - first).num_milliseconds() / every.num_milliseconds().max(1);
                first + TimeDelta::milliseconds(missed * every.num_milliseconds())
            }
            Self::Crons(crons, zone) => {
                let local = now.with_timezone(zone);
                let last = crons.iter().filter_map(|cron| cron.find_previous_occurrence(&local, true).ok());
                last.map(|last| last.with_timezone(&Utc))
                    .filter(|last| *last <= now)
                    .max()
                    .unwrap_or(first)
                    .max(first)
            }
        })
    }
}

/// By how much a tick is put off so that schedules of the same minute do not all begin at once: the same for the same
/// object and tick on every replica, below the limit.
pub fn jitter(limit: Duration, object: &str, tick: DateTime<Utc>) -> Duration {
    let millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return Duration::ZERO;
    }
    let digest = blake3::hash(format!("{object} {}", tick.timestamp_millis()).as_bytes());
    let number = digest.as_bytes().iter().take(8).fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    Duration::from_millis(number % millis)
}

/// Reads a cron expression of five fields, or of six with seconds first.
pub fn cron(text: &str) -> Result<Cron, String> {
    let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
    parser.parse(text).map_err(|error| format!("`{text}` is no cron expression: {error}"))
}

/// Reads the name of a time zone.
pub fn zone(text: &str) -> Result<Tz, String> {
    Tz::from_str(text).map_err(|_| format!("`{text}` is not a time zone such as `UTC` or `Europe/Berlin`"))
}

/// The times of day that an expression names, each as an expression of its own: the library knows a time of day, which
/// is due once on every day whatever the clocks do, only where one hour and one minute stand. One that says "every"
/// hour or minute goes by the clock as it is, and stays whole.
fn times_of_day(expression: &str) -> Vec<String> {
    const MOST: usize = 96;
    let whole = || vec![expression.to_owned()];
    let fields: Vec<&str> = expression.split_whitespace().collect();
    let (second, minutes, hours) = match fields.as_slice() {
        [minutes, hours, _, _, _] => ("0", minutes, hours),
        [second, minutes, hours, _, _, _] => (*second, minutes, hours),
        _ => return whole(),
    };
    let (Some(minutes), Some(hours)) = (numbers(minutes), numbers(hours)) else { return whole() };
    let count = minutes.len() * hours.len();
    if second.parse::<u32>().is_err() || count <= 1 || count > MOST {
        return whole();
    }
    let rest = fields[fields.len() - 3..].join(" ");
    let each = |hour: &u32| -> Vec<String> {
        minutes.iter().map(|minute| format!("{second} {minute} {hour} {rest}")).collect()
    };
    hours.iter().flat_map(each).collect()
}

/// The numbers of a list such as `2,14` or `9-17`; `None` for anything else.
fn numbers(field: &str) -> Option<Vec<u32>> {
    let mut all = Vec::new();
    for part in field.split(',') {
        match part.split_once('-') {
            None => all.push(part.parse().ok()?),
            Some((from, to)) => {
                let (from, to): (u32, u32) = (from.parse().ok()?, to.parse().ok().filter(|to| *to < 60)?);
                all.extend(from..=to);
            }
        }
    }
    all.sort_unstable();
    all.dedup();
    Some(all)
}

fn expression_of(time: &TimeOfDay) -> String {
    // Monday is 0 there and 1 here.
    let days: Vec<String> = time.days.iter().map(|day| ((day + 1) % 7).to_string()).collect();
    format!("{} {} * * {}", time.minute, time.hour, days.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn by_cron(expression: &str, zone: &str) -> Ticker {
        let timezone = self::zone(zone).unwrap();
        Ticker::of(&Schedule::Cron { expression: expression.to_owned(), timezone }).unwrap()
    }

    fn ticks(ticker: &Ticker, from: &str, count: usize) -> Vec<String> {
        let first = ticker.after(moment(from));
        std::iter::successors(first, |last| ticker.after(*last)).take(count).map(|t| t.to_rfc3339()).collect()
    }

    #[test]
    fn an_interval_counts_from_its_last_tick_and_missed_ones_are_one() {
        let ticker = Ticker::of(&Schedule::Every(Duration::from_secs(900))).unwrap();
        let last = moment("2026-01-01T00:00:00Z");
        assert_eq!(ticker.after(last), Some(moment("2026-01-01T00:15:00Z")));
        assert_eq!(ticker.latest(last, moment("2026-01-01T00:14:59Z")), None);
        assert_eq!(ticker.latest(last, moment("2026-01-01T01:07:00Z")), Some(moment("2026-01-01T01:00:00Z")));
    }

    #[test]
    fn a_time_that_the_clocks_skip_is_due_when_they_go_on() {
        let ticker = by_cron("30 2 * * *", "Europe/Berlin");
        let found = ticks(&ticker, "2026-03-28T00:00:00Z", 3);
        // 02:30 of winter, 03:00 of the day that has no 02:30, 02:30 of summer.
        assert_eq!(
            found,
            ["2026-03-28T01:30:00+00:00", "2026-03-29T01:00:00+00:00", "2026-03-30T00:30:00+00:00"]
        );
    }

    #[test]
    fn a_time_that_the_clocks_show_twice_is_due_once() {
        let ticker = by_cron("30 2 * * *", "Europe/Berlin");
        let found = ticks(&ticker, "2026-10-24T12:00:00Z", 2);
        assert_eq!(found, ["2026-10-25T00:30:00+00:00", "2026-10-26T01:30:00+00:00"]);
        let times = Schedule::At {
            times: vec![TimeOfDay { days: (0..7).collect(), hour: 2, minute: 30 }],
            timezone: zone("Europe/Berlin").unwrap(),
        };
        assert_eq!(ticks(&Ticker::of(&times).unwrap(), "2026-10-24T12:00:00Z", 2), found);
    }

    #[test]
    fn each_of_several_times_of_day_is_due_once_a_day() {
        for list in ["30 2,14 * * *", "0 30 2,14 * * *"] {
            let ticker = by_cron(list, "Europe/Berlin");
            assert_eq!(
                ticks(&ticker, "2026-03-28T20:00:00Z", 3),
                ["2026-03-29T01:00:00+00:00", "2026-03-29T12:30:00+00:00", "2026-03-30T00:30:00+00:00"]
            );
            assert_eq!(
                ticks(&ticker, "2026-10-24T20:00:00Z", 3),
                ["2026-10-25T00:30:00+00:00", "2026-10-25T13:30:00+00:00", "2026-10-26T01:30:00+00:00"]
            );
        }
        let working = by_cron("0 1-3 * * SUN", "Europe/Berlin");
        assert_eq!(ticks(&working, "2026-10-24T20:00:00Z", 4).len(), 4);
        assert_eq!(ticks(&working, "2026-10-24T20:00:00Z", 4)[3], "2026-11-01T00:00:00+00:00");
        assert_eq!(times_of_day("*/5 9-17 * * *").len(), 1);
        assert_eq!(times_of_day("0 * * * *").len(), 1);
        assert_eq!(times_of_day("0,30 9-17 * * 1-5").len(), 18);
    }

    #[test]
    fn an_hourly_expression_ticks_in_every_hour_that_there_is() {
        let found = ticks(&by_cron("0 * * * *", "Europe/Berlin"), "2026-10-24T23:30:00Z", 4);
        let hours: Vec<&str> = found.iter().map(|tick| &tick[11..13]).collect();
        assert!(hours.starts_with(&["00"]), "{found:?}");
        let unique: std::collections::BTreeSet<&String> = found.iter().collect();
        assert_eq!((unique.len(), found.len()), (4, 4), "{found:?}");
    }

    #[test]
    fn six_fields_count_seconds_and_zones_shift_days() {
        assert_eq!(
            ticks(&by_cron("*/20 * * * * *", "UTC"), "2026-01-01T00:00:05Z", 2),
            ["2026-01-01T00:00:20+00:00", "2026-01-01T00:00:40+00:00"]
        );
        // Monday in Auckland is still Sunday in UTC.
        assert_eq!(
            ticks(&by_cron("0 9 * * MON", "Pacific/Auckland"), "2026-01-01T00:00:00Z", 1),
            ["2026-01-04T20:00:00+00:00"]
        );
    }

    #[test]
    fn times_of_day_are_those_of_the_days_that_are_named() {
        let times = vec![
            TimeOfDay { days: vec![0, 4], hour: 9, minute: 5 },
            TimeOfDay { days: vec![6], hour: 18, minute: 0 },
        ];
        let ticker = Ticker::of(&Schedule::At { times, timezone: Tz::UTC }).unwrap();
        // The first of January 2026 is a Thursday.
        assert_eq!(
            ticks(&ticker, "2026-01-01T00:00:00Z", 3),
            ["2026-01-02T09:05:00+00:00", "2026-01-04T18:00:00+00:00", "2026-01-05T09:05:00+00:00"]
        );
        assert_eq!(
            ticker.latest(moment("2026-01-01T00:00:00Z"), moment("2026-01-05T00:00:00Z")),
            Some(moment("2026-01-04T18:00:00Z"))
        );
    }

    #[test]
    fn a_date_that_never_comes_has_no_tick() {
        assert_eq!(by_cron("0 0 30 2 *", "UTC").after(moment("2026-01-01T00:00:00Z")), None);
    }

    #[test]
    fn jitter_is_the_same_everywhere_and_below_its_limit() {
        let tick = moment("2026-01-01T00:00:00Z");
        let limit = Duration::from_secs(30);
        let all: std::collections::BTreeSet<Duration> =
            (0..100).map(|id| jitter(limit, &format!("sync:{id}"), tick)).collect();
        assert!(all.len() > 90 && all.iter().all(|jitter| *jitter < limit));
        assert_eq!(jitter(limit, "sync:1", tick), jitter(limit, "sync:1", tick));
        assert_eq!(jitter(Duration::ZERO, "sync:1", tick), Duration::ZERO);
    }
}
