//! Schedules, in the words that clients know.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::project;

/// When something runs by itself.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Schedule {
    /// Which kind of schedule.
    r#type: ScheduleType,
    /// What it says: of an `interval` its `interval: {unit, quantity}`, of a `cron` its `expression`, of a `visual` its
    /// `expressions`, of `dbt_cloud` its `account` and `job`, of `after` its `syncs`.
    schedule: Map<String, Value>,
}

/// A kind of schedule.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum ScheduleType {
    Interval,
    Cron,
    Visual,
    DbtCloud,
    Fivetran,
    After,
}

const DAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

/// Units of intervals and their seconds, the longest first.
const UNITS: [(&str, u64); 5] =
    [("week", 604_800), ("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1)];

impl Schedule {
    pub(super) fn of(schedule: &project::Schedule) -> Self {
        let (kind, value) = match schedule {
            project::Schedule::Every(every) => {
                let seconds = every.as_secs().max(1);
                let (unit, length) = UNITS
                    .into_iter()
                    .find(|(_, length)| seconds.is_multiple_of(*length))
                    .unwrap_or(("second", 1));
                let interval = json!({"interval": {"unit": unit, "quantity": seconds / length}});
                (ScheduleType::Interval, interval)
            }
            project::Schedule::Cron { expression, timezone } => {
                (ScheduleType::Cron, json!({"expression": expression, "timezone": timezone.name()}))
            }
            project::Schedule::At { times, timezone } => {
                let expressions: Vec<Value> = times
                    .iter()
                    .map(|at| {
                        let days = at.days.iter().filter_map(|day| DAYS.get(usize::from(*day)));
                        let days: Map<String, Value> =
                            days.map(|day| ((*day).to_owned(), true.into())).collect();
                        json!({"days": days, "time": format!("{:02}:{:02}", at.hour, at.minute)})
                    })
                    .collect();
                (ScheduleType::Visual, json!({"expressions": expressions, "timezone": timezone.name()}))
            }
            project::Schedule::After(syncs) => (ScheduleType::After, json!({"syncs": syncs})),
            project::Schedule::DbtCloud { job, account, .. } => {
                (ScheduleType::DbtCloud, json!({"account": {"id": account}, "job": {"id": job}}))
            }
            project::Schedule::Fivetran { connector, .. } => {
                (ScheduleType::Fivetran, json!({"connector": {"id": connector}}))
            }
        };
        let schedule = match value {
            Value::Object(schedule) => schedule,
            _ => Map::new(),
        };
        Self { r#type: kind, schedule }
    }
}

/// When something is to run by itself: its schema says more than a struct can.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct ScheduleInput {}

/// The most of a unit that an interval may have here.
const MOST: f64 = 10_000.0;

/// A schedule as a file writes it; null stays null.
pub(super) fn written(given: &Value) -> Result<Value, String> {
    let Some(kind) = given.get("type").filter(|kind| !kind.is_null()) else {
        return match given {
            Value::Null => Ok(Value::Null),
            Value::Object(keys) => Ok(keys
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect::<Map<_, _>>()
                .into()),
            _ => Err("must be an object or null".to_owned()),
        };
    };
    let unknown = given
        .as_object()
        .into_iter()
        .flat_map(Map::keys)
        .find(|key| !matches!(key.as_str(), "type" | "schedule"));
    if let Some(unknown) = unknown {
        return Err(format!("`{unknown}` is not known beside `type` and `schedule`"));
    }
    let schedule = &given["schedule"];
    let zoned = |mut keys: Value| {
        if let Some(zone) = schedule["timezone"].as_str() {
            keys["timezone"] = zone.into();
        }
        keys
    };
    match kind.as_str().unwrap_or_default() {
        "manual" => Ok(Value::Null),
        "interval" => {
            let (unit, quantity) = (&schedule["interval"]["unit"], &schedule["interval"]["quantity"]);
            let letter = match unit.as_str().unwrap_or_default() {
                "second" => "s",
                "minute" => "m",
                "hour" => "h",
                "day" => "d",
                "week" => "w",
                _ => return Err("`interval.unit` must be minute, hour, day or week".to_owned()),
            };
            // `1.0` is a whole number too.
            let quantity = quantity.as_f64().filter(|one| (1.0..=MOST).contains(one) && one.fract() == 0.0);
            let quantity = quantity.ok_or("`interval.quantity` must be a whole number from 1 to 10000")?;
            Ok(json!({"every": format!("{quantity}{letter}")}))
        }
        "cron" => {
            let expression = schedule["expression"].as_str().ok_or("`expression` must be a text")?;
            Ok(zoned(json!({"cron": expression})))
        }
        "visual" => {
            let expressions = schedule["expressions"].as_array().ok_or("`expressions` must be a list")?;
            let at: Vec<Value> = expressions
                .iter()
                .map(|at| {
                    let days = DAYS.iter().filter(|day| at["days"][**day] == true).map(|day| &day[..3]);
                    let time = at["time"].as_str().unwrap_or_default();
                    json!({"days": days.collect::<Vec<_>>(), "time": time})
                })
                .collect();
            Ok(zoned(json!({"at": at})))
        }
        "after" => Ok(json!({"after": schedule["syncs"]})),
        other => Err(format!("a schedule of type `{other}` is written in the file of the sync")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_written() {
        for file in [
            json!({"every": "90m"}),
            json!({"every": "1w"}),
            json!({"cron": "0 9 * * *", "timezone": "Europe/Berlin"}),
            json!({"at": [{"days": ["mon", "sun"], "time": "09:05"}], "timezone": "UTC"}),
            json!({"after": ["other"]}),
        ] {
            assert_eq!(written(&file), Ok(file.clone()), "levin's own words");
        }
        let visual = json!({"type": "visual", "schedule": {"expressions": [{"days": {"monday": true, "friday": false}, "time": "9:00"}]}});
        assert_eq!(written(&visual), Ok(json!({"at": [{"days": ["mon"], "time": "9:00"}]})));
        let interval = |unit: &str, quantity: i64| json!({"type": "interval", "schedule": {"interval": {"unit": unit, "quantity": quantity}}});
        assert_eq!(written(&interval("hour", 2)), Ok(json!({"every": "2h"})));
        let hourly = json!({"type": "interval", "schedule": {"interval": {"unit": "hour", "quantity": 1.0}}});
        assert_eq!(written(&hourly), Ok(json!({"every": "1h"})), "clients that know only one kind of number");
        let beside = json!({"type": "after", "schedule": {"syncs": ["other"]}, "jitter": "1m"});
        assert!(written(&beside).is_err() && written(&interval("hour", 10_001)).is_err());
        assert!(written(&interval("year", 2)).is_err() && written(&interval("hour", 0)).is_err());
        assert!(written(&json!({"type": "moon"})).is_err() && written(&json!(7)).is_err());
        assert_eq!(written(&Value::Null), Ok(Value::Null));
    }
}
