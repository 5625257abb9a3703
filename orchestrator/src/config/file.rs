//! The project files as they are written: one struct per kind of file. The doc comments are the
//! descriptions in the JSON Schema, so they speak to whoever writes the files.

use connectors::change::{Mode, OnRemoved};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::alerts::{AlertsConfig, DbtCloudConfig, FivetranConfig, RecipientsConfig};
use crate::project::{Engine, NewColumns, OnDuplicateKey, OnFailure, OnNotFound, Variable};

/// `levin.yml`: what belongs to the project as a whole.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProjectConfig {
    /// The project's name, as reports show it.
    #[schemars(length(min = 1))]
    pub(crate) name: String,
    /// Where run history and notes on deliveries in flight are kept: `sqlite://` and a path
    /// relative to the project, or `postgres://…` for several replicas.
    #[schemars(regex(pattern = r"^(sqlite|postgres|postgresql)://.+"), extend("x-secret" = true))]
    #[serde(default = "default_store")]
    pub(crate) store: String,
    /// For how long a run holds its sync without a sign of life. Longer than any request's time-out.
    #[schemars(extend("format" = "duration"))]
    #[serde(default = "default_lease")]
    pub(crate) lease: String,
    /// How `levin serve` works.
    #[serde(default)]
    pub(crate) serve: ServeConfig,
    /// What is told of the runs of every sync, and to whom.
    #[serde(default)]
    #[expect(dead_code, reason = "read from the tree, sync by sync")]
    pub(crate) alerts: AlertsConfig,
}

/// How `levin serve` works.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ServeConfig {
    /// The address and port of the API. Other addresses than `127.0.0.1` let other machines in.
    #[schemars(regex(pattern = r"^.+:[0-9]{1,5}$"))]
    pub(crate) listen: String,
    /// The most runs that go on at once in this process.
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) runs_at_once: u32,
    /// The most requests to the API per second with one key, over ten seconds; more of them are told to wait.
    #[schemars(range(min = 1, max = 10_000))]
    pub(crate) requests_per_second: u32,
    /// For how long the history of runs is kept.
    #[schemars(extend("format" = "duration"))]
    pub(crate) history: String,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8484".to_owned(),
            runs_at_once: 8,
            requests_per_second: 20,
            history: "90d".to_owned(),
        }
    }
}

fn default_store() -> String {
    "sqlite://.levin/store.db".to_owned()
}

fn default_lease() -> String {
    "60s".to_owned()
}

/// `sources/*.yml`: a warehouse in which models are read and differences computed.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SourceConfig {
    /// Which kind of warehouse: `levin connectors` lists them.
    pub(crate) r#type: String,
    /// The name by which models refer to it. Default: the file's name.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"))]
    #[expect(dead_code, reason = "read from the tree, before the rest of the file is known to be right")]
    pub(crate) slug: Option<String>,
    /// The slug it had before: its id moves along.
    #[expect(dead_code, reason = "read from the tree, as `slug` is")]
    pub(crate) renamed_from: Option<String>,
    /// Where differences are computed: `lightning` in the warehouse itself, `basic` beside it.
    #[serde(default)]
    pub(crate) engine: Engine,
    /// The managed schema for snapshots and work tables.
    #[schemars(length(min = 1))]
    #[serde(default = "default_planner_schema")]
    pub(crate) planner_schema: String,
    /// The managed schema for what people may read: changelog, runs, rejections.
    #[schemars(length(min = 1))]
    #[serde(default = "default_audit_schema")]
    pub(crate) audit_schema: String,
    /// After how long without a run a snapshot counts as expired. Default: never.
    #[schemars(extend("format" = "duration"))]
    pub(crate) snapshot_retention: Option<String>,
    /// The most runs that read it at once, of all its syncs and on all replicas. Default: no limit of its own.
    #[schemars(range(min = 1))]
    pub(crate) runs_at_once: Option<u32>,
}

fn default_planner_schema() -> String {
    "levin_planner".to_owned()
}

fn default_audit_schema() -> String {
    "levin_audit".to_owned()
}

/// `models/*.yml`: one SELECT with a primary key.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModelConfig {
    /// The slug of the source in which the model is read.
    pub(crate) source: String,
    /// The column, or the list of columns, that tells rows apart. Only a `dbt` model may go without: then it is
    /// its `unique_key`, its primary-key constraint, or what its tests say is unique and not null.
    pub(crate) primary_key: Option<Words>,
    /// The SELECT. Exactly one of `sql`, `sql_file`, `table` and `dbt` is given.
    #[schemars(length(min = 1))]
    pub(crate) sql: Option<String>,
    /// A file that holds the SELECT, relative to the project.
    #[schemars(length(min = 1))]
    pub(crate) sql_file: Option<String>,
    /// A table or view, read as it is: `schema.table`.
    #[schemars(length(min = 1))]
    pub(crate) table: Option<String>,
    /// A model of dbt, read from the manifest that dbt writes.
    pub(crate) dbt: Option<DbtConfig>,
    /// The name by which syncs refer to it. Default: the file's name.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"))]
    #[expect(dead_code, reason = "read from the tree, before the rest of the file is known to be right")]
    pub(crate) slug: Option<String>,
    /// The slug it had before: its id moves along.
    #[expect(dead_code, reason = "read from the tree, as `slug` is")]
    pub(crate) renamed_from: Option<String>,
}

/// A model of dbt.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DbtConfig {
    /// The manifest, relative to the project: `target/manifest.json` of the dbt project.
    #[schemars(length(min = 1))]
    pub(crate) manifest: String,
    /// The model's name; `package.name` or `name.v2` where there are several.
    #[schemars(length(min = 1))]
    pub(crate) model: String,
}

/// One word or a list of words.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Words {
    /// One.
    One(#[schemars(length(min = 1))] String),
    /// Several.
    Several(#[schemars(length(min = 1), inner(length(min = 1)))] Vec<String>),
}

impl Words {
    pub(crate) fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(word) => vec![word],
            Self::Several(words) => words,
        }
    }
}

/// `destinations/*.yml`: a place that receives rows.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DestinationConfig {
    /// Which kind of destination: `levin connectors` lists them.
    pub(crate) r#type: String,
    /// The most runs that send to it at once, of all its syncs and on all replicas. Default: no limit of its own.
    #[schemars(range(min = 1))]
    pub(crate) runs_at_once: Option<u32>,
    /// The name by which syncs refer to it. Default: the file's name.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"))]
    #[expect(dead_code, reason = "read from the tree, before the rest of the file is known to be right")]
    pub(crate) slug: Option<String>,
    /// The slug it had before: its id moves along.
    #[expect(dead_code, reason = "read from the tree, as `slug` is")]
    pub(crate) renamed_from: Option<String>,
    /// Who hears of alerts about its syncs.
    #[serde(default)]
    #[expect(dead_code, reason = "read from the tree, sync by sync")]
    pub(crate) alerts: RecipientsConfig,
}

/// `syncs/*.yml`: a model, a destination, and what goes from one to the other.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SyncConfig {
    /// The name of the sync. Default: the file's name.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"))]
    #[expect(dead_code, reason = "read from the tree, before the rest of the file is known to be right")]
    pub(crate) slug: Option<String>,
    /// The slug it had before: its id and its snapshot move along, and nothing is sent again.
    #[expect(dead_code, reason = "read from the tree, as `slug` is")]
    pub(crate) renamed_from: Option<String>,
    /// The slug of the model whose rows are sent.
    pub(crate) model: String,
    /// The slug of the destination that receives them.
    pub(crate) destination: String,
    /// What the sync does at its destination. `levin connectors NAME` lists the modes it offers.
    #[serde(default = "default_mode")]
    pub(crate) mode: Mode,
    /// What happens at the destination to rows that left the model.
    pub(crate) on_removed: Option<OnRemoved>,
    /// What the destination calls its table, object, list, topic or path.
    #[schemars(length(min = 1))]
    pub(crate) object: Option<String>,
    /// Which field of the destination identifies a record. Default: the primary key.
    pub(crate) r#match: Option<Matches>,
    /// Which values go to which fields. Omitted: every column to the field of its name.
    #[schemars(length(min = 1))]
    pub(crate) mappings: Option<Vec<MappingConfig>>,
    /// Limits that a run must not cross; it stops before the first request when it would.
    #[serde(default)]
    pub(crate) guards: GuardsConfig,
    /// When the sync runs by itself, under `levin serve`.
    pub(crate) schedule: Option<ScheduleConfig>,
    /// Whether the sync rests: it does not run by itself, and no one can start it but by `levin run`.
    #[serde(default)]
    pub(crate) disabled: bool,
    /// What happens when a key occurs twice: its rows are set aside, or the run fails.
    #[serde(default)]
    pub(crate) on_duplicate_key: OnDuplicateKey,
    /// What a newly mapped column means for rows that were sent without it: `backfill` sends those in which it
    /// is not null, `keep` takes its values of today as accepted and sends only later changes.
    #[serde(default)]
    pub(crate) on_new_column: NewColumns,
    /// Mode `update`: what a row means that the destination does not have.
    #[serde(default)]
    pub(crate) not_found: OnNotFound,
    /// After so many refusals by the destination a row is parked: it is not sent again until it changes, the
    /// sync changes, or `levin rejected SYNC --retry`. Default: every run tries it again.
    #[schemars(range(min = 1))]
    pub(crate) max_attempts: Option<u32>,
    /// What is told of its runs, and to whom; each rule and the list of channels in place of the project's.
    pub(crate) alerts: Option<AlertsConfig>,
}

fn default_mode() -> Mode {
    Mode::Upsert
}

/// One matching field, or several that identify a record together.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Matches {
    /// One.
    One(MatchConfig),
    /// Several.
    Several(#[schemars(length(min = 1))] Vec<MatchConfig>),
}

/// A column of the model and the field of the destination that it is compared with.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MatchConfig {
    /// The model's column.
    #[schemars(length(min = 1))]
    pub(crate) from: String,
    /// The destination's field.
    #[schemars(length(min = 1))]
    pub(crate) to: String,
}

/// What goes to one field of the destination: exactly one of `from`, `template`, `value`,
/// `variable`, `object` and `array`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MappingConfig {
    /// The destination's field.
    #[schemars(length(min = 1))]
    pub(crate) to: Option<String>,
    /// A column of the model.
    #[schemars(length(min = 1))]
    pub(crate) from: Option<String>,
    /// A text with expressions over the row: `{{ row.first_name | upper }}`.
    pub(crate) template: Option<String>,
    /// A constant; any value.
    #[serde(default, deserialize_with = "present")]
    pub(crate) value: Option<Value>,
    /// Something levin knows about the run or the row.
    pub(crate) variable: Option<Variable>,
    /// A nested object: a list of mappings.
    #[schemars(length(min = 1))]
    pub(crate) object: Option<Vec<MappingConfig>>,
    /// A list of values: each as a mapping without `to`.
    #[schemars(length(min = 1))]
    pub(crate) array: Option<Vec<MappingConfig>>,
}

/// `value: null` is a constant too, which serde takes for absent unless told.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Limits that a run must not cross.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct GuardsConfig {
    /// The most removed rows, as a share of the snapshot or a number; either trips.
    pub(crate) max_removed: Option<LimitConfig>,
    /// The most changed rows.
    pub(crate) max_changed: Option<LimitConfig>,
    /// The most added rows.
    pub(crate) max_added: Option<LimitConfig>,
    /// The fewest rows that the model must return.
    pub(crate) min_rows: Option<u64>,
    /// The most rows set aside for a missing or duplicate key. Default: 10 percent.
    pub(crate) max_set_aside: Option<LimitConfig>,
    /// Whether the model may return no row at all while the snapshot holds some.
    pub(crate) allow_empty: bool,
}

/// A limit as a share, as a number, or as both: then either trips.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("minProperties" = 1))]
pub(crate) struct LimitConfig {
    /// Percent, 0 to 100.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub(crate) percent: Option<f64>,
    /// Rows.
    pub(crate) rows: Option<u64>,
}

/// When a sync runs by itself: exactly one of `every`, `cron`, `at`, `after`, `dbt_cloud` and `fivetran`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScheduleConfig {
    /// So long after the last start: `15m`, `1h`.
    #[schemars(extend("format" = "duration"))]
    pub(crate) every: Option<String>,
    /// A cron expression of five fields: `0 9 * * MON-FRI`; or of six, with seconds first.
    pub(crate) cron: Option<String>,
    /// At these times of day.
    #[schemars(length(min = 1))]
    pub(crate) at: Option<Vec<AtConfig>>,
    /// After successful runs of these syncs: once each of them has run since the last time.
    #[schemars(length(min = 1))]
    pub(crate) after: Option<Vec<String>>,
    /// After a job of dbt Cloud that succeeded, which a hook tells.
    pub(crate) dbt_cloud: Option<DbtCloudConfig>,
    /// After a connector of Fivetran that synced, which a hook tells.
    pub(crate) fivetran: Option<FivetranConfig>,
    /// The zone of `cron` and `at`: `Europe/Berlin`. Default: UTC.
    pub(crate) timezone: Option<String>,
    /// Up to so long after the moment itself, each time another while, so that not everything begins at once.
    #[schemars(extend("format" = "duration"))]
    pub(crate) jitter: Option<String>,
}

/// A time of day on some days.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AtConfig {
    /// The days: `mon` to `sun`. Default: every day.
    #[schemars(length(min = 1))]
    pub(crate) days: Option<Vec<DayConfig>>,
    /// Hours and minutes: `"09:00"`.
    #[schemars(regex(pattern = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub(crate) time: String,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub(crate) enum DayConfig {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

/// `sequences/*.yml`: syncs that run one after another.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SequenceConfig {
    /// The name of the sequence. Default: the file's name.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"))]
    #[expect(dead_code, reason = "read from the tree, before the rest of the file is known to be right")]
    pub(crate) slug: Option<String>,
    /// The slug it had before: its id moves along.
    #[expect(dead_code, reason = "read from the tree, as `slug` is")]
    pub(crate) renamed_from: Option<String>,
    /// The syncs, in the order in which they run: slugs, or slugs with rules.
    #[schemars(length(min = 1))]
    pub(crate) syncs: Vec<MemberConfig>,
    /// When the sequence runs by itself, under `levin serve`.
    pub(crate) schedule: Option<ScheduleConfig>,
}

/// A member of a sequence.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum MemberConfig {
    /// The slug of a sync; when it fails, the sequence ends.
    Slug(#[schemars(length(min = 1))] String),
    /// A sync, and what ends the sequence.
    Rules(MemberRules),
}

/// A sync, and what ends the sequence.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MemberRules {
    /// The slug of the sync.
    #[schemars(length(min = 1))]
    pub(crate) sync: String,
    /// What a failed run means for the members that come after it.
    #[serde(default)]
    pub(crate) on_failure: OnFailure,
    /// More rejected rows than this end the sequence too, as a share of the rows planned or a number.
    pub(crate) max_rejected: Option<LimitConfig>,
}
