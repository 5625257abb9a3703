//! Schedules, in the words that clients know.

use serde::Serialize;
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
