//! Schedules, in the words that clients know.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::files::same;
use crate::project;

/// When something runs by itself.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Schedule {
    /// Which kind of schedule.
    r#type: ScheduleType,
    /// What it says: of an `interval` its `interval: {unit, quantity}`, of a `cron` its `expression`, of a `visual` its
    /// `expressions`, of `dbt_cloud` its `account`, `job` and `hook`, of `fivetran` its `connector` and `hook`, of `after`
    /// its `syncs`; of any of them its `jitter`.
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
    /// A schedule, and what its file says of it: texts are shown as they are written there, for what was read into them
    /// may be secret.
    pub(super) fn of(schedule: &project::Schedule, written: &Value) -> Self {
        let said = |path: &str, read: &str| match written.pointer(path) {
            Some(Value::Number(number)) => number.to_string(),
            Some(Value::String(text)) => text.clone(),
            _ => read.to_owned(),
        };
        let hook = |value: &mut Value, path: &str, read: &Option<String>| {
            if let Some(read) = read {
                value["hook"] = said(path, read).into();
            }
        };
        let (kind, mut value) = match schedule {
            project::Schedule::Every(every) => {
                let seconds = every.as_secs().max(1);
                let (unit, length) = UNITS
                    .into_iter()
                    .find(|(_, length)| seconds.is_multiple_of(*length))
                    .unwrap_or(("second", 1));
                let interval = json!({"interval": {"unit": unit, "quantity": seconds / length}});
                (ScheduleType::Interval, interval)
            }
            project::Schedule::Cron { expression, timezone } => (
                ScheduleType::Cron,
                json!({"expression": said("/cron", expression), "timezone": timezone.name()}),
            ),
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
            project::Schedule::DbtCloud { job, account, hook: of } => {
                let account = account.as_ref().map(|account| said("/dbt_cloud/account", account));
                let mut value =
                    json!({"account": {"id": account}, "job": {"id": said("/dbt_cloud/job", job)}});
                hook(&mut value, "/dbt_cloud/hook", of);
                (ScheduleType::DbtCloud, value)
            }
            project::Schedule::Fivetran { connector, hook: of } => {
                let mut value = json!({"connector": {"id": said("/fivetran/connector", connector)}});
                hook(&mut value, "/fivetran/hook", of);
                (ScheduleType::Fivetran, value)
            }
        };
        if let Some(jitter) = written["jitter"].as_str() {
            value["jitter"] = jitter.into();
        }
        let schedule = match value {
            Value::Object(schedule) => schedule,
            _ => Map::new(),
        };
        Self { r#type: kind, schedule }
    }

    /// Whether somebody who gives this says what is shown.
    pub(super) fn says(&self, given: &Value) -> bool {
        serde_json::to_value(self).is_ok_and(|shown| same(&shown, given))
    }
}

/// When something is to run by itself: its schema says more than a struct can.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct ScheduleInput {}

/// The longest interval that is taken here, in seconds: ten thousand weeks.
pub(super) const LONGEST: u64 = 10_000 * UNITS[0].1;

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
    // Whether it is a text, the check of the file says.
    let beside = |key: &str, mut keys: Value| {
        if let Some(value) = schedule.get(key).filter(|value| !value.is_null()) {
            keys[key] = value.clone();
        }
        keys
    };
    let id = |of: &str| match &schedule[of]["id"] {
        Value::String(id) if !id.is_empty() => Ok(Some(id.clone())),
        // `7.0` is a whole number too.
        Value::Number(id) => match id.as_f64().filter(|id| *id >= 0.0 && id.fract() == 0.0) {
            Some(id) => Ok(Some(id.to_string())),
            None => Err(format!("`{of}.id` must be a text or a whole number")),
        },
        Value::Null => Ok(None),
        _ => Err(format!("`{of}.id` must be a text or a whole number")),
    };
    let missing = |of: &str| format!("`{of}.id` is required");
    let keys = match kind.as_str().unwrap_or_default() {
        "manual" => return Ok(Value::Null),
        "interval" => {
            let (unit, quantity) = (&schedule["interval"]["unit"], &schedule["interval"]["quantity"]);
            let unit = UNITS.into_iter().find(|(name, _)| unit == name);
            let (name, length) = unit.ok_or("`interval.unit` must be second, minute, hour, day or week")?;
            // `1.0` is a whole number too.
            let most = (LONGEST / length) as f64;
            let quantity = quantity.as_f64().filter(|one| (1.0..=most).contains(one) && one.fract() == 0.0);
            let quantity = quantity
                .ok_or_else(|| format!("`interval.quantity` must be a whole number from 1 to {most}"))?;
            json!({"every": format!("{quantity}{}", &name[..1])})
        }
        "cron" => {
            let expression = schedule["expression"].as_str().ok_or("`expression` must be a text")?;
            beside("timezone", json!({"cron": expression}))
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
            beside("timezone", json!({"at": at}))
        }
        "after" => json!({"after": schedule["syncs"]}),
        "dbt_cloud" => {
            let mut told = json!({"job": id("job")?.ok_or_else(|| missing("job"))?});
            if let Some(account) = id("account")? {
                told["account"] = account.into();
            }
            json!({"dbt_cloud": beside("hook", told)})
        }
        "fivetran" => {
            let connector = id("connector")?.ok_or_else(|| missing("connector"))?;
            json!({"fivetran": beside("hook", json!({"connector": connector}))})
        }
        other => return Err(format!("there is no type of schedule `{other}` here")),
    };
    Ok(beside("jitter", keys))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
        assert!(written(&beside).is_err() && written(&interval("week", 10_001)).is_err());
        assert!(written(&interval("year", 2)).is_err() && written(&interval("hour", 0)).is_err());
        assert!(written(&json!({"type": "moon"})).is_err() && written(&json!(7)).is_err());
        assert_eq!(written(&Value::Null), Ok(Value::Null));
    }

    #[test]
    fn every_schedule_is_written_as_it_was_shown() {
        use project::Schedule as S;
        let text = |text: &str| Some(text.to_owned());
        let berlin = chrono_tz::Tz::Europe__Berlin;
        let times = vec![project::TimeOfDay { days: vec![0, 6], hour: 9, minute: 5 }];
        for (schedule, file) in [
            (S::Every(Duration::from_secs(5_400)), json!({"every": "90m"})),
            (S::Every(Duration::from_secs(10_801)), json!({"every": "10801s", "jitter": "30s"})),
            (
                S::Cron { expression: "0 9 * * *".to_owned(), timezone: berlin },
                json!({"cron": "0 9 * * *", "timezone": "Europe/Berlin", "jitter": "5m"}),
            ),
            (
                S::At { times, timezone: berlin },
                json!({"at": [{"days": ["mon", "sun"], "time": "09:05"}], "timezone": "Europe/Berlin", "jitter": "1h"}),
            ),
            (S::After(vec!["one".to_owned(), "other".to_owned()]), json!({"after": ["one", "other"]})),
            (
                S::DbtCloud { job: "123".to_owned(), account: text("9"), hook: text("cloud") },
                json!({"dbt_cloud": {"job": "123", "account": "9", "hook": "cloud"}, "jitter": "1m"}),
            ),
            (
                S::DbtCloud { job: "123".to_owned(), account: None, hook: None },
                json!({"dbt_cloud": {"job": "123"}}),
            ),
            (
                S::Fivetran { connector: "lake".to_owned(), hook: text("tran") },
                json!({"fivetran": {"connector": "lake", "hook": "tran"}}),
            ),
            (
                S::Fivetran { connector: "lake".to_owned(), hook: None },
                json!({"fivetran": {"connector": "lake"}}),
            ),
            // What was read into it is not shown.
            (
                S::DbtCloud { job: "secret".to_owned(), account: text("secret"), hook: None },
                json!({"dbt_cloud": {"job": "${JOB}", "account": "${ACCOUNT}"}}),
            ),
            (
                S::Cron { expression: "0 9 * * *".to_owned(), timezone: berlin },
                json!({"cron": "${WHEN}", "timezone": "Europe/Berlin"}),
            ),
        ] {
            let shown = Schedule::of(&schedule, &file);
            let given = serde_json::to_value(&shown).unwrap();
            assert_eq!(written(&given), Ok(file), "{given}");
            assert!(shown.says(&given) && !given.to_string().contains("secret"), "{given}");
        }
        let dbt = |schedule: Value| written(&json!({"type": "dbt_cloud", "schedule": schedule}));
        assert_eq!(
            dbt(json!({"account": {"id": 9.0}, "job": {"id": 123}})),
            Ok(json!({"dbt_cloud": {"job": "123", "account": "9"}}))
        );
        let odd = json!({"type": "after", "schedule": {"syncs": ["one"], "jitter": {}}});
        assert_eq!(
            written(&odd),
            Ok(json!({"after": ["one"], "jitter": {}})),
            "what is wrong is not passed over"
        );
        assert!(dbt(json!({"account": {"id": 9}})).is_err() && dbt(json!({"job": {"id": [1]}})).is_err());
    }
}
