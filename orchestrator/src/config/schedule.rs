//! Durations, and when something runs by itself, as project files write them.

use std::time::Duration;

use chrono_tz::Tz;

use super::file::ScheduleConfig;
use crate::project::{Schedule, TimeOfDay};
use crate::{schedule, suggestion};

/// `500ms`, `30s`, `15m`, `2h`, `1d`, `1w`, or several of them in a row: `1h30m`. More than zero.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration such as `30s`, `15m`, `2h` or `1h30m`");
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let milliseconds: u64 = match &rest[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return Err(wrong()),
        };
        rest = &rest[letters..];
        let part = number.checked_mul(milliseconds).map(Duration::from_millis);
        total = part.and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
    }
    if total.is_zero() { Err(format!("`{text}` is no time at all")) } else { Ok(total) }
}

/// Checks a schedule. An error names the key that is to blame; `None` means the schedule as a whole.
pub(super) fn checked(config: &ScheduleConfig) -> Result<Schedule, (Option<&'static str>, String)> {
    let given: Vec<&'static str> = [
        ("every", config.every.is_some()),
        ("cron", config.cron.is_some()),
        ("at", config.at.is_some()),
        ("after", config.after.is_some()),
        ("dbt_cloud", config.dbt_cloud.is_some()),
        ("fivetran", config.fivetran.is_some()),
    ]
    .into_iter()
    .filter_map(|(key, given)| given.then_some(key))
    .collect();
    let ways = ["every", "cron", "at", "after", "dbt_cloud", "fivetran"];
    let key = match given.as_slice() {
        [key] => *key,
        [] => return Err((None, format!("`schedule` has none of {}", suggestion::listed(&ways)))),
        [_, second, ..] => {
            return Err((
                Some(*second),
                format!("`schedule` has more than one of {}", suggestion::listed(&given)),
            ));
        }
    };
    if config.timezone.is_some() && !["cron", "at"].contains(&key) {
        return Err((Some("timezone"), format!("`timezone` has no meaning beside `{key}`")));
    }
    let timezone = match &config.timezone {
        Some(zone) => schedule::zone(zone).map_err(|message| (Some("timezone"), message))?,
        None => Tz::UTC,
    };
    let blame = |message| (Some(key), message);
    if let Some(every) = &config.every {
        return duration(every).map(Schedule::Every).map_err(blame);
    }
    if let Some(cron) = &config.cron {
        schedule::cron(cron).map_err(blame)?;
        return Ok(Schedule::Cron { expression: cron.clone(), timezone });
    }
    if let Some(times) = &config.at {
        let times = times
            .iter()
            .map(|at| {
                let (hour, minute) = at.time.split_once(':').unwrap_or_default();
                let number =
                    |text: &str| text.parse().map_err(|_| blame(format!("`{}` is no time of day", at.time)));
                let days = match &at.days {
                    Some(days) => days.iter().map(|day| *day as u8).collect(),
                    None => (0..7).collect(),
                };
                Ok(TimeOfDay { days, hour: number(hour)?, minute: number(minute)? })
            })
            .collect::<Result<_, _>>()?;
        return Ok(Schedule::At { times, timezone });
    }
    if let Some(after) = &config.after {
        return Ok(Schedule::After(after.clone()));
    }
    super::alerts::waiting(config.dbt_cloud.as_ref(), config.fivetran.as_ref())
        .ok_or_else(|| (None, format!("`schedule` has none of {}", suggestion::listed(&ways))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn durations() {
        let seconds = |text| duration(text).map(|d| d.as_secs_f64());
        assert_eq!(seconds("500ms"), Ok(0.5));
        assert_eq!(seconds("30s"), Ok(30.0));
        assert_eq!(seconds("1h30m"), Ok(5_400.0));
        assert_eq!(seconds("1d"), Ok(86_400.0));
        assert_eq!(seconds("2w"), Ok(1_209_600.0));
        for wrong in [
            "",
            "15",
            "m",
            "15 minutes",
            "-1s",
            "1.5h",
            "1x",
            "99999999999999999999s",
            "0s",
            "9999999999999999w",
        ] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn cron_expressions() {
        let look = |text: &str| checked(&serde_json::from_value(json!({"cron": text})).unwrap());
        for right in
            ["* * * * *", "0 9 * * MON-FRI", "*/15 0-6/2 1,15 jan-mar 0", "5 4 * * 7", "30 0 9 * * *"]
        {
            assert!(look(right).is_ok(), "{right}: {:?}", look(right));
        }
        for wrong in [
            "* * * *",
            "* * * * * * 2026",
            "60 * * * *",
            "* 25 * * *",
            "* * 0 * *",
            "* * * * FUNDAY",
            "*/0 * * * *",
            "30-10 * * * *",
            "",
        ] {
            let (key, message) = look(wrong).unwrap_err();
            assert!(key == Some("cron") && message.contains("no cron expression"), "{wrong}: {message}");
        }
    }

    #[test]
    fn schedules_have_one_way_and_know_which_key_is_wrong() {
        let look = |value| checked(&serde_json::from_value(value).unwrap());
        assert_eq!(look(json!({"every": "15m"})), Ok(Schedule::Every(Duration::from_secs(900))));
        assert_eq!(
            look(json!({"cron": "0 9 * * *", "timezone": "Europe/Berlin"})),
            Ok(Schedule::Cron { expression: "0 9 * * *".to_owned(), timezone: Tz::Europe__Berlin })
        );
        assert_eq!(
            look(json!({"at": [{"days": ["mon", "sun"], "time": "09:05"}]})),
            Ok(Schedule::At {
                times: vec![TimeOfDay { days: vec![0, 6], hour: 9, minute: 5 }],
                timezone: Tz::UTC
            })
        );
        assert_eq!(look(json!({"after": ["a"]})), Ok(Schedule::After(vec!["a".to_owned()])));
        assert_eq!(look(json!({})).unwrap_err().0, None);
        assert_eq!(look(json!({"every": "1h", "cron": "* * * * *"})).unwrap_err().0, Some("cron"));
        assert_eq!(look(json!({"every": "soon"})).unwrap_err().0, Some("every"));
        assert_eq!(look(json!({"every": "1h", "timezone": "UTC"})).unwrap_err().0, Some("timezone"));
        assert_eq!(look(json!({"cron": "* * * * *", "timezone": "GMT +1"})).unwrap_err().0, Some("timezone"));
    }
}
