//! A project after checking: everything resolved, referenced by pointer, ready to run.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono_tz::Tz;
use connectors::catalogue::{ChannelConnector, DestinationConnector, HookConnector, SourceConnector};
use connectors::change::{Mode, OnRemoved};
use connectors::channel::Channel;
use connectors::destination::Destination;
use connectors::hook::Hook;
use connectors::warehouse::{ErrorKind, Session, Tag, Warehouse, WarehouseError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::alert::Alerts;
use crate::config::Kind;
use crate::error::{Error, ErrorCode};
use crate::suggestion;

/// A checked project.
#[derive(Debug, Clone)]
pub struct Project {
    /// The folder that holds `levin.yml`.
    pub root: PathBuf,
    /// The name in `levin.yml`.
    pub name: String,
    /// Whose managed tables are whose: from `levin.lock.yml`.
    pub uuid: Uuid,
    /// Where the store is, as written: a `sqlite://` path is relative to [`Project::root`].
    pub store_url: String,
    /// For how long a run holds its sync without a sign of life.
    pub lease: Duration,
    /// How the service works.
    pub serve: ServeSpec,
    /// Every source, by slug.
    pub sources: Vec<Arc<SourceSpec>>,
    /// Every model, by slug.
    pub models: Vec<Arc<ModelSpec>>,
    /// Every destination, by slug.
    pub destinations: Vec<Arc<DestinationSpec>>,
    /// Every sync, by slug.
    pub syncs: Vec<Arc<SyncSpec>>,
    /// Every sequence, by slug.
    pub sequences: Vec<Arc<SequenceSpec>>,
    /// Every channel, by slug.
    pub channels: Vec<Arc<ChannelSpec>>,
    /// Every hook, by slug.
    pub hooks: Vec<Arc<HookSpec>>,
    /// Every object's file as it is written.
    pub written: Arc<HashMap<(Kind, i64), Written>>,
    /// Says whether anything in it has changed.
    pub digest: blake3::Hash,
}

/// An object's file as it is written.
#[derive(Debug, Clone)]
pub struct Written {
    /// Says whether the file has changed.
    pub digest: blake3::Hash,
    /// Its keys, `${…}` as they stand there, without what is secret and stands there in clear: a JSON object as text,
    /// which of ten thousand files takes a tenth of the memory.
    pub text: Box<str>,
}

impl Written {
    /// Its keys.
    pub fn keys(&self) -> serde_json::Map<String, Value> {
        serde_json::from_str(&self.text).unwrap_or_default()
    }
}

impl Project {
    /// The source of that slug; else an error that suggests one.
    pub fn source(&self, slug: &str) -> Result<&Arc<SourceSpec>, Error> {
        find("source", slug, &self.sources, |source| &source.slug)
    }

    /// The model of that slug; else an error that suggests one.
    pub fn model(&self, slug: &str) -> Result<&Arc<ModelSpec>, Error> {
        find("model", slug, &self.models, |model| &model.slug)
    }

    /// The destination of that slug; else an error that suggests one.
    pub fn destination(&self, slug: &str) -> Result<&Arc<DestinationSpec>, Error> {
        find("destination", slug, &self.destinations, |destination| &destination.slug)
    }

    /// The file of an object as it is written.
    pub fn written(&self, kind: Kind, id: i64) -> Option<&Written> {
        self.written.get(&(kind, id))
    }

    /// The sync of that slug; else an error that suggests one.
    pub fn sync(&self, slug: &str) -> Result<&Arc<SyncSpec>, Error> {
        find("sync", slug, &self.syncs, |sync| &sync.slug)
    }
}

fn find<'a, T>(
    kind: &str,
    wanted: &str,
    all: &'a [Arc<T>],
    slug: fn(&T) -> &String,
) -> Result<&'a Arc<T>, Error> {
    all.iter().find(|spec| slug(spec) == wanted).ok_or_else(|| {
        let slugs: Vec<&str> = all.iter().map(|spec| slug(spec).as_str()).collect();
        Error::new(ErrorCode::Usage, format!("the project has no {kind} `{wanted}`")).hint(suggestion::hint(
            wanted,
            &slugs,
            &format!("{kind}s"),
        ))
    })
}

/// How the service works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServeSpec {
    /// Where the API listens.
    pub listen: String,
    /// The most runs that go on at once in one process.
    pub runs_at_once: usize,
    /// The most requests per second with one key.
    pub requests_per_second: u32,
    /// For how long runs are remembered.
    pub history: Duration,
}

/// A source, live: its [`Warehouse`] opens nothing until it is asked for a session.
#[derive(Debug, Clone)]
pub struct SourceSpec {
    /// Its number, from `levin.lock.yml`.
    pub id: i64,
    /// Its name.
    pub slug: String,
    /// Its file, relative to the project.
    pub file: PathBuf,
    /// What kind of warehouse it is.
    pub connector: &'static SourceConnector,
    /// Where differences are computed.
    pub engine: Engine,
    /// The managed schema for snapshots and work tables.
    pub planner_schema: String,
    /// The managed schema for what people may read.
    pub audit_schema: String,
    /// After how long without a run a snapshot counts as expired; `None`: never.
    pub snapshot_retention: Option<Duration>,
    /// The most runs that read it at once.
    pub runs_at_once: Option<usize>,
    /// The warehouse itself.
    pub warehouse: Arc<dyn Warehouse>,
}

impl SourceSpec {
    /// A session, or what a person should know when there is none.
    pub async fn session(&self, tag: &Tag) -> Result<Box<dyn Session>, Error> {
        self.warehouse.session(tag).await.map_err(|error| self.unopened(error))
    }

    /// Why no session could be opened. What is not found then is the database: no statement was run.
    pub fn unopened(&self, error: WarehouseError) -> Error {
        let unknown = error.kind == ErrorKind::NotFound;
        let error = Error::from(error);
        if !unknown {
            return error;
        }
        let hint = format!("create the database, or correct its name in {}", self.file.display());
        Error { code: ErrorCode::SourceUnreachable, ..error }.hint(hint)
    }
}

/// Where differences are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// In the warehouse itself.
    #[default]
    Lightning,
    /// Beside it, for warehouses that grant no writing.
    Basic,
}

/// A model.
#[derive(Debug, Clone)]
pub struct ModelSpec {
    /// Its number, from `levin.lock.yml`.
    pub id: i64,
    /// Its name.
    pub slug: String,
    /// Its file, relative to the project.
    pub file: PathBuf,
    /// Where it is read.
    pub source: Arc<SourceSpec>,
    /// The columns that tell rows apart; at least one, each once.
    pub primary_key: Vec<String>,
    /// What is read.
    pub query: ModelQuery,
}

/// What a model reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelQuery {
    /// A SELECT, as written, from `sql`, from the content of `sql_file`, or as dbt compiled it.
    Sql(String),
    /// A table or view, as dbt names it: quoted, with its database.
    Relation(String),
    /// A table or view, as written: `table`, `schema.table` …
    Table(String),
}

/// A destination, live: shared by all its syncs, so that its rate budgets are.
#[derive(Debug, Clone)]
pub struct DestinationSpec {
    /// Its number, from `levin.lock.yml`.
    pub id: i64,
    /// Its name.
    pub slug: String,
    /// Its file, relative to the project.
    pub file: PathBuf,
    /// What kind of destination it is.
    pub connector: &'static DestinationConnector,
    /// The most runs that send to it at once.
    pub runs_at_once: Option<usize>,
    /// The destination itself.
    pub destination: Arc<dyn Destination>,
}

/// Where messages go.
#[derive(Debug, Clone)]
pub struct ChannelSpec {
    /// Its name.
    pub slug: String,
    /// Its file, relative to the project.
    pub file: PathBuf,
    /// What kind of channel it is.
    pub connector: &'static ChannelConnector,
    /// The channel itself.
    pub channel: Arc<dyn Channel>,
}

/// Messages of another service that start runs.
#[derive(Debug, Clone)]
pub struct HookSpec {
    /// Its name, also in its address.
    pub slug: String,
    /// Its file, relative to the project.
    pub file: PathBuf,
    /// What kind of service it is.
    pub connector: &'static HookConnector,
    /// The hook itself.
    pub hook: Arc<dyn Hook>,
}

/// A sync.
#[derive(Debug, Clone)]
pub struct SyncSpec {
    /// Its number, from `levin.lock.yml`.
    pub id: i64,
    /// Its name.
    pub slug: String,
    /// Its file, relative to the project.
    pub file: PathBuf,
    /// Whose rows it sends.
    pub model: Arc<ModelSpec>,
    /// Where it sends them.
    pub destination: Arc<DestinationSpec>,
    /// What it does there.
    pub mode: Mode,
    /// What happens there to removed rows, whether the mode or the sync says so.
    pub on_removed: OnRemoved,
    /// What the destination calls its table, object, list, topic or path; may be a template.
    pub object: Option<String>,
    /// Which fields identify a record; empty: the primary key's columns, under their own names.
    pub matching: Vec<MatchField>,
    /// Which values go to which fields.
    pub mappings: Mappings,
    /// Limits that a run must not cross.
    pub guards: Guards,
    /// What happens when a key occurs twice.
    pub on_duplicate_key: OnDuplicateKey,
    /// What a newly mapped column means for rows that were sent without it.
    pub on_new_column: NewColumns,
    /// What a row means that the destination does not have.
    pub not_found: OnNotFound,
    /// After so many refusals a row is parked; `None`: it is tried in every run.
    pub max_attempts: Option<u32>,
    /// When it runs by itself.
    pub schedule: Option<Schedule>,
    /// By how much that may be put off.
    pub jitter: Duration,
    /// It rests, as its file says.
    pub disabled: bool,
    /// What is told of its runs, and to whom.
    pub alerts: Alerts,
    /// The connector's own keys of the sync file.
    pub options: Value,
}

impl SyncSpec {
    /// Whether rows that left the model are removed at the destination.
    pub fn removes(&self) -> bool {
        let compares = !matches!(self.mode, Mode::Remove | Mode::All | Mode::Archive | Mode::Snapshot);
        compares && self.on_removed != OnRemoved::Nothing
    }
}

/// A column of the model and the field of the destination that it is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatchField {
    /// The model's column.
    pub from: String,
    /// The destination's field.
    pub to: String,
}

/// Which values go to which fields.
#[derive(Debug, Clone, PartialEq)]
pub enum Mappings {
    /// Every column of the model to the field of its name.
    AllColumns,
    /// These, and nothing else; at least one, each field once.
    Fields(Vec<Mapping>),
}

/// A field and what goes into it.
#[derive(Debug, Clone, PartialEq)]
pub struct Mapping {
    /// The destination's field, or the key in a nested object.
    pub to: String,
    /// What goes into it.
    pub value: MappingValue,
}

/// A value of a mapping.
#[derive(Debug, Clone, PartialEq)]
pub enum MappingValue {
    /// A column of the model.
    Column(String),
    /// A template over the row; its syntax is checked, its names are not.
    Template(String),
    /// Always the same value.
    Constant(Value),
    /// Something levin knows about the run or the row.
    Variable(Variable),
    /// A nested object.
    Object(Vec<Mapping>),
    /// A list.
    Array(Vec<MappingValue>),
}

/// What levin knows about the run or the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Variable {
    /// The run's number.
    RunId,
    /// The sync's number.
    SyncId,
    /// The sync's slug.
    SyncSlug,
    /// The model's slug.
    ModelSlug,
    /// `added`, `changed` or `removed`.
    Operation,
    /// The row version id.
    RowVersion,
    /// The generation, which only grows.
    Generation,
    /// When the run began.
    RunStartedAt,
}

/// Limits that a run must not cross.
#[derive(Debug, Clone, PartialEq)]
pub struct Guards {
    /// The most removed rows, of the snapshot.
    pub max_removed: Limit,
    /// The most changed rows.
    pub max_changed: Limit,
    /// The most added rows.
    pub max_added: Limit,
    /// The fewest rows that the model must return.
    pub min_rows: Option<u64>,
    /// The most rows set aside for a missing or duplicate key.
    pub max_set_aside: Limit,
    /// Whether the model may return no row at all while the snapshot holds some.
    pub allow_empty: bool,
}

impl Guards {
    /// The share of rows set aside at which a run stops, unless the sync says otherwise.
    pub const DEFAULT_SET_ASIDE_PERCENT: f64 = 10.0;
}

impl Default for Guards {
    fn default() -> Self {
        Self {
            max_removed: Limit::default(),
            max_changed: Limit::default(),
            max_added: Limit::default(),
            min_rows: None,
            max_set_aside: Limit { percent: Some(Self::DEFAULT_SET_ASIDE_PERCENT), rows: None },
            allow_empty: false,
        }
    }
}

/// A limit; either of the two trips, none of them is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Limit {
    /// Percent, 0 to 100.
    pub percent: Option<f64>,
    /// Rows.
    pub rows: Option<u64>,
}

/// What happens when a key occurs twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnDuplicateKey {
    /// All its rows are set aside and the run goes on.
    #[default]
    SetAside,
    /// The run fails before anything is sent.
    Fail,
}

/// What a newly mapped column means for rows that were sent without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NewColumns {
    /// Every row whose new column is not null is changed.
    #[default]
    Backfill,
    /// Today's values count as accepted; only later changes are sent.
    Keep,
}

/// What a row means that the destination does not have, in mode `update`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnNotFound {
    /// It is rejected; the run ends as a warning.
    #[default]
    Fail,
    /// It is counted without a warning; it still comes again.
    Skip,
}

/// When a sync or sequence runs by itself.
#[derive(Debug, Clone, PartialEq)]
pub enum Schedule {
    /// So long after the last start.
    Every(Duration),
    /// By a cron expression of five fields, or of six with seconds first.
    Cron {
        /// The expression.
        expression: String,
        /// Where its times are read off the clock.
        timezone: Tz,
    },
    /// At times of day.
    At {
        /// The times.
        times: Vec<TimeOfDay>,
        /// Where its times are read off the clock.
        timezone: Tz,
    },
    /// After successful runs of these syncs, once each of them has run since the last time.
    After(Vec<String>),
    /// After a job of dbt Cloud that succeeded.
    DbtCloud {
        /// Its number.
        job: String,
        /// The number of its account; `None`: any.
        account: Option<String>,
        /// The hook that hears of it; `None`: any of its type.
        hook: Option<String>,
    },
    /// After a connector of Fivetran that synced.
    Fivetran {
        /// Its id.
        connector: String,
        /// The hook that hears of it; `None`: any of its type.
        hook: Option<String>,
    },
}

/// A time of day on some days.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeOfDay {
    /// Days of the week, Monday = 0; never empty.
    pub days: Vec<u8>,
    /// Hour, 0 to 23.
    pub hour: u8,
    /// Minute, 0 to 59.
    pub minute: u8,
}

/// Syncs that run one after another.
#[derive(Debug, Clone, PartialEq)]
pub struct SequenceSpec {
    /// Its number, from `levin.lock.yml`.
    pub id: i64,
    /// Its name.
    pub slug: String,
    /// Its file, relative to the project.
    pub file: PathBuf,
    /// Its syncs, in the order in which they run.
    pub members: Vec<MemberSpec>,
    /// When it runs by itself.
    pub schedule: Option<Schedule>,
    /// By how much that may be put off.
    pub jitter: Duration,
}

/// A sync in a sequence, and what ends the sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct MemberSpec {
    /// The slug of the sync.
    pub sync: String,
    /// What a failed run means for the members that come after it.
    pub on_failure: OnFailure,
    /// More rejected rows than this end the sequence too.
    pub max_rejected: Limit,
}

/// What a failed run means for the members of a sequence that come after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// They do not run.
    #[default]
    Stop,
    /// They run all the same.
    Continue,
}
