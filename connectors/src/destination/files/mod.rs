//! `files`: one file per run, in a folder of this machine.
//!
//! A file appears complete or not at all. Rows are written to a hidden file, which takes its name
//! when the run has come to its end; until then every row is deferred, and a run that dies leaves
//! nothing but the hidden file, which the sync's next run removes.

mod folder;
mod rows;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use minijinja::{Environment, UndefinedBehavior, context};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;

use self::folder::{Folder, Partial, Place, PublishError};
use self::rows::RowWriter;
use super::{
    BatchLimits, Delivery, DeliverySpec, Destination, DestinationField, RunFacts, Trial, only_whole,
};
use crate::catalogue::{BuildContext, ConfigError, DestinationConnector};
use crate::change::{ChangeBatch, Mode, Operation};
use crate::json::{JsonOptions, NonFinite, Nulls, Numbers};
use crate::outcome::{Delivered, DeliveryError, RowOutcome};

/// The catalogue's entry.
pub static FILES: DestinationConnector = DestinationConnector {
    name: "files",
    title: "Files",
    summary: "Writes one file per run, JSON Lines or CSV, into a folder. A file appears complete or not at all.",
    modes: &[Mode::Insert, Mode::Diff, Mode::Snapshot, Mode::All],
    on_removed: &[],
    needs_object: true,
    whole_rows: true,
    deferred: true,
    config_schema: || schemars::schema_for!(FilesConfig),
    options_schema: || schemars::schema_for!(FilesOptions),
    build: |config, context| Ok(Arc::new(Files::build(config, context)?)),
};

/// The keys of a destination file of type `files`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FilesConfig {
    /// The folder, absolute or relative to the project. Made when a run needs it.
    path: String,
}

/// The keys that `files` adds to a sync. Its `object` is the template of the file's name below the
/// folder; it knows `run_id`, `sync_slug`, `sync_id`, `model_slug`, `generation`,
/// `run_started_at` (`20261120T093000Z`) and `date` (`2026-11-20`), both in UTC.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct FilesOptions {
    /// How rows are written. Without it: CSV for names that end in `.csv`, else JSON Lines.
    format: Option<Format>,
    /// How integers and decimals are written in JSON Lines.
    numbers: Numbers,
    /// What happens to NaN and the infinities.
    non_finite: NonFinite,
    /// What happens to null columns in JSON Lines.
    nulls: Nulls,
}

/// The form of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Format {
    /// JSON Lines: one object per line.
    Jsonl,
    /// RFC 4180 with a header; null is an empty field, empty text is `""`.
    Csv,
}

/// What changes from run to run; a name made of none of it is the same in every run.
const RUN_VARIABLES: [&str; 3] = ["run_id", "generation", "run_started_at"];

const VARIABLES: [&str; 7] =
    ["run_id", "generation", "run_started_at", "sync_slug", "sync_id", "model_slug", "date"];

#[derive(Debug)]
struct Files {
    path: PathBuf,
}

/// What a sync says, checked.
struct Checked {
    template: String,
    /// A file of the same name gives way: the name stands for the latest content.
    replace: bool,
    rows: RowWriter,
}

impl Files {
    fn build(config: Value, context: &BuildContext) -> Result<Self, ConfigError> {
        let config: FilesConfig = serde_json::from_value(config)
            .map_err(|e| ConfigError { path: String::new(), message: e.to_string() })?;
        let refused = |message: &str| ConfigError { path: "path".into(), message: message.into() };
        if config.path.is_empty() || config.path.contains('\0') {
            return Err(refused("must name a folder"));
        }
        if config.path.contains("://") {
            return Err(refused("must be a folder of this machine; this version writes to no object store"));
        }
        Ok(Self { path: context.project.join(config.path) })
    }

    fn checked(sync: &DeliverySpec) -> Result<Checked, ConfigError> {
        let refused = |path: &str, message: String| ConfigError { path: path.into(), message };
        let options = match &sync.options {
            Value::Null => FilesOptions::default(),
            options => FilesOptions::deserialize(options).map_err(|e| refused("", e.to_string()))?,
        };
        if !FILES.modes.contains(&sync.mode) {
            return Err(refused("mode", format!("files know no mode {}", sync.mode.name())));
        }
        let template = sync.object.clone().filter(|o| !o.is_empty()).ok_or_else(|| {
            refused("object", "must name the file, such as `changes-{{ run_id }}.jsonl`".into())
        })?;
        let environment = environment();
        let parsed =
            environment.template_from_str(&template).map_err(|e| refused("object", e.to_string()))?;
        let used = parsed.undeclared_variables(false);
        if let Some(unknown) = used.iter().filter(|v| !VARIABLES.contains(&v.as_str())).min() {
            let known = VARIABLES.join(", ");
            return Err(refused("object", format!("there is no variable {unknown}; there are {known}")));
        }
        let per_run = RUN_VARIABLES.iter().any(|v| used.contains(*v));
        if !per_run && matches!(sync.mode, Mode::Insert | Mode::Diff) {
            let message = format!(
                "must contain run_id, generation or run_started_at: in mode {} each run writes a file of its own, and the next would take the place of the last",
                sync.mode.name()
            );
            return Err(refused("object", message));
        }
        let csv =
            Path::new(&template).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
        let format = options.format.unwrap_or(if csv { Format::Csv } else { Format::Jsonl });
        if format == Format::Csv && options.nulls == Nulls::Omit {
            return Err(refused("nulls", "CSV cannot leave out a field; remove `nulls: omit`".into()));
        }
        if format == Format::Csv && options.numbers == Numbers::String {
            return Err(refused("numbers", "CSV knows no numbers; remove `numbers: string`".into()));
        }
        let json = JsonOptions {
            numbers: options.numbers,
            non_finite: options.non_finite,
            nulls: options.nulls,
            ..JsonOptions::default()
        };
        let rows = RowWriter::new(format, json, sync.mode == Mode::Diff, &sync.fields)
            .map_err(|message| refused("mappings", message))?;
        let checked = Checked { template, replace: !per_run, rows };
        let example =
            RunFacts { run_id: 1, generation: 1, started_at: DateTime::UNIX_EPOCH, planned: BTreeMap::new() };
        checked.place(sync, &example).map_err(|message| refused("object", message))?;
        Ok(checked)
    }

    /// The same folder, however the path leads there.
    fn canonical(&self) -> PathBuf {
        folder::canonical(&self.path)
    }

    fn unusable(&self, error: &io::Error) -> DeliveryError {
        DeliveryError::Unauthorized {
            message: format!("the folder {} cannot be written: {error}", self.path.display()),
            hint: match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    "let the user that runs levin write there, or set another `path`".into()
                }
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free some space there".into(),
                io::ErrorKind::ReadOnlyFilesystem => {
                    "mount the file system for writing, or set another `path`".into()
                }
                _ => "make it a folder that can be written, or set another `path`".into(),
            },
        }
    }
}

impl Checked {
    fn place(&self, sync: &DeliverySpec, run: &RunFacts) -> Result<Place, String> {
        let at = |format: &str, time: DateTime<Utc>| time.format(format).to_string();
        let variables = context! {
            run_id => run.run_id,
            generation => run.generation,
            run_started_at => at("%Y%m%dT%H%M%SZ", run.started_at),
            date => at("%Y-%m-%d", run.started_at),
            sync_slug => &sync.sync,
            sync_id => sync.sync_id,
            model_slug => &sync.model,
        };
        let name = environment().render_str(&self.template, variables).map_err(|e| e.to_string())?;
        Place::parse(&name)
    }
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment
}

#[async_trait]
impl Destination for Files {
    fn target(&self, sync: &DeliverySpec) -> String {
        format!("{}/{}", self.canonical().display(), sync.object.as_deref().unwrap_or_default())
    }

    fn validate(&self, sync: &DeliverySpec) -> Result<(), ConfigError> {
        Self::checked(sync).map(|_| ())
    }

    async fn check(&self, sync: Option<&DeliverySpec>) -> Result<(), DeliveryError> {
        if let Some(sync) = sync {
            let checked = Self::checked(sync).map_err(misconfigured)?;
            checked
                .rows
                .can_write_all()
                .map_err(|message| misconfigured(ConfigError { path: "mappings".into(), message }))?;
        }
        let path = self.canonical();
        blocking(move || folder::writable(&path)).await.map_err(|error| self.unusable(&error))
    }

    async fn fields(&self, _object: &str) -> Result<Option<Vec<DestinationField>>, DeliveryError> {
        Ok(None)
    }

    async fn open(&self, sync: &DeliverySpec, run: &RunFacts) -> Result<Box<dyn Delivery>, DeliveryError> {
        let checked = Self::checked(sync).map_err(misconfigured)?;
        checked
            .rows
            .can_write_all()
            .map_err(|message| misconfigured(ConfigError { path: "mappings".into(), message }))?;
        let place = checked
            .place(sync, run)
            .map_err(|message| misconfigured(ConfigError { path: "object".into(), message }))?;
        let (path, sync_id) = (self.canonical(), sync.sync_id);
        let folder = blocking(move || {
            let folder = Folder::open(&path)?;
            folder.remove_leftovers(sync_id)?;
            Ok::<_, io::Error>(folder)
        })
        .await
        .map_err(|error| self.unusable(&error))?;
        let file = NewFile {
            folder: Arc::new(folder),
            place,
            shown: format!("{}/{}", self.path.display(), sync.object.as_deref().unwrap_or_default()),
            replace: checked.replace,
            // A run without changes has nothing to say; a result without rows is a result.
            even_when_empty: matches!(sync.mode, Mode::Snapshot | Mode::All),
            rows: checked.rows,
            sync_id,
            run_id: run.run_id,
            generation: run.generation,
        };
        Ok(Box::new(FilesDelivery { file: Arc::new(file), state: Arc::default() }))
    }

    async fn try_row(
        &self,
        sync: &DeliverySpec,
        run: &RunFacts,
        row: &ChangeBatch,
        send: bool,
    ) -> Result<Trial, DeliveryError> {
        if send {
            return Err(only_whole("a file"));
        }
        let checked = Self::checked(sync).map_err(misconfigured)?;
        let wrong = |path: &str, message| misconfigured(ConfigError { path: path.into(), message });
        checked.place(sync, run).map_err(|message| wrong("object", message))?;
        let mut bytes = Vec::new();
        checked.rows.write_head(&mut bytes);
        let outcomes = checked.rows.write(row, &mut bytes).map_err(|message| wrong("mappings", message))?;
        let refused = outcomes.iter().any(|outcome| outcome.rejection().is_some());
        let shown = format!("{}/{}", self.path.display(), sync.object.as_deref().unwrap_or_default());
        Ok(Trial {
            request: format!("{shown}\n\n{}", String::from_utf8_lossy(&bytes)),
            delivered: refused
                .then(|| not_called(Delivered { outcomes, ..Delivered::all(RowOutcome::NotSent, 0) })),
        })
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn batch_limits(&self, _sync: &DeliverySpec, _operation: Operation) -> BatchLimits {
        BatchLimits { rows: 20_000, bytes: 8 << 20 }
    }
}

/// The file of one run, as it will be.
struct NewFile {
    folder: Arc<Folder>,
    place: Place,
    /// Its path with the template, for messages.
    shown: String,
    replace: bool,
    even_when_empty: bool,
    rows: RowWriter,
    sync_id: i64,
    run_id: i64,
    generation: i64,
}

/// How far the writing has come.
#[derive(Default)]
struct State {
    partial: Option<Partial>,
    /// Bytes that count. What stands behind them was written by an attempt that nobody waited for,
    /// and the next attempt writes over it.
    length: u64,
    /// Why nothing more can be written.
    broken: Option<DeliveryError>,
}

struct FilesDelivery {
    file: Arc<NewFile>,
    state: Arc<Mutex<State>>,
}

impl NewFile {
    /// The file and how much of it counts; begins it if it has not begun.
    fn begun<'a>(&self, state: &'a mut State) -> io::Result<(&'a Partial, u64)> {
        if state.partial.is_none() {
            let partial = self.folder.begin(&self.place, self.sync_id, self.run_id, self.generation)?;
            let mut head = Vec::new();
            self.rows.write_head(&mut head);
            partial.write(&head, 0)?;
            state.length = head.len() as u64;
            state.partial = Some(partial);
        }
        // Set above when it was not set before.
        let partial = state.partial.as_ref().ok_or(io::ErrorKind::NotFound)?;
        Ok((partial, state.length))
    }

    fn unwritable(&self, error: &io::Error) -> DeliveryError {
        let hint = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "free some space there; the file did not appear, and the next run writes it whole"
            }
            io::ErrorKind::CrossesDevices => {
                "its sub-folder lies on another file system: make that file system the destination's `path`"
            }
            _ => "the file did not appear; mend the folder, and the next run writes it whole",
        };
        DeliveryError::Unauthorized {
            message: format!("{} cannot be written: {error}", self.shown),
            hint: hint.into(),
        }
    }

    fn publish(&self, state: &mut State) -> Result<Option<RowOutcome>, DeliveryError> {
        if let Some(error) = state.broken.take() {
            return Err(error);
        }
        if state.partial.is_none() && !self.even_when_empty {
            return Ok(None);
        }
        self.begun(state).map_err(|error| self.unwritable(&error))?;
        let Some(partial) = state.partial.take() else { return Ok(None) };
        match partial.publish(&self.place, state.length, self.replace) {
            Ok(()) => Ok(Some(RowOutcome::Accepted)),
            Err(PublishError::NotDurable(error)) => {
                tracing::error!(file = self.shown, %error, "the file appeared, and may not outlast a power cut");
                Ok(Some(RowOutcome::InDoubt))
            }
            Err(PublishError::Exists) => Err(DeliveryError::Unauthorized {
                message: format!(
                    "{} of run {} exists already and is not overwritten",
                    self.shown, self.run_id
                ),
                hint: "move that file away, or put {{ generation }} into the sync's `object`".into(),
            }),
            Err(PublishError::Failed(error)) => Err(self.unwritable(&error)),
        }
    }
}

#[async_trait]
impl Delivery for FilesDelivery {
    async fn deliver(&self, batch: &ChangeBatch) -> Delivered {
        // The lock goes into the blocking task: an attempt that nobody waits for any more still
        // ends before the next one begins.
        let state = self.state.clone().lock_owned().await;
        if let Some(error) = &state.broken {
            return not_called(Delivered::failed(error.clone(), RowOutcome::NotSent, batch.len()));
        }
        let (file, rows) = (self.file.clone(), batch.clone());
        let (mut state, written) = blocking(move || {
            let mut state = state;
            let mut bytes = Vec::new();
            let outcomes = match file.rows.write(&rows, &mut bytes) {
                Ok(outcomes) => outcomes,
                Err(message) => return (state, Err(io::Error::new(io::ErrorKind::InvalidData, message))),
            };
            if bytes.is_empty() {
                return (state, Ok((outcomes, 0)));
            }
            let written = file.begun(&mut state).and_then(|(partial, length)| partial.write(&bytes, length));
            (state, written.map(|()| (outcomes, bytes.len() as u64)))
        })
        .await;
        match written {
            Ok((outcomes, bytes)) => {
                state.length += bytes;
                Delivered { outcomes, error: None, calls: 1, exchange: None }
            }
            Err(error) => {
                let error = self.file.unwritable(&error);
                state.broken = Some(error.clone());
                state.partial = None;
                Delivered::failed(error, RowOutcome::NotSent, batch.len())
            }
        }
    }

    /// An error says that no file appeared.
    async fn close(self: Box<Self>, complete: bool) -> Result<Option<RowOutcome>, DeliveryError> {
        let mut state = self.state.clone().lock_owned().await;
        let file = self.file.clone();
        blocking(move || {
            if complete {
                return file.publish(&mut state);
            }
            state.partial = None;
            Ok(Some(RowOutcome::NotSent))
        })
        .await
    }
}

/// File systems have no asynchronous calls.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        // Blocking tasks are not cancelled; a panic goes on where it would have gone.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn not_called(delivered: Delivered) -> Delivered {
    Delivered { calls: 0, ..delivered }
}

fn misconfigured(error: ConfigError) -> DeliveryError {
    DeliveryError::Unauthorized { message: error.to_string(), hint: "correct the sync file".into() }
}
