//! `files`: one file per run, in a folder of this machine or in an object store.
//!
//! A file appears complete or not at all. In a folder rows are written to a hidden file, which takes its
//! name when the run has come to its end; until then every row is deferred, and a run that dies leaves
//! nothing but the hidden file, which the sync's next run removes. In a store the upload is completed then.

mod folder;
mod parquet;
mod rows;
mod store;
mod writing;

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

use self::folder::{Folder, Place};
use self::parquet::Columns;
use self::rows::RowWriter;
use self::store::Store;
use self::writing::{FilesDelivery, NewFile, Opened, blocking};
use super::{
    BatchLimits, Delivery, DeliverySpec, Destination, DestinationField, RunFacts, Trial, only_whole,
};
use crate::catalogue::{BuildContext, ConfigError, DestinationConnector};
use crate::change::{ChangeBatch, Mode, Operation};
use crate::json::{JsonOptions, NonFinite, Nulls, Numbers};
use crate::outcome::{Delivered, DeliveryError};
use crate::template;

/// The catalogue's entry.
pub static FILES: DestinationConnector = DestinationConnector {
    name: "files",
    title: "Files",
    summary: "Writes one file per run, JSON Lines, CSV or Parquet, into a folder or an object store (S3, Google Cloud \
              Storage, Azure Blob Storage). A file appears complete or not at all.",
    modes: &[Mode::Insert, Mode::Diff, Mode::Snapshot, Mode::All],
    on_removed: &[],
    needs_object: true,
    whole_rows: true,
    deferred: true,
    config_schema: || schemars::schema_for!(FilesConfig),
    options_schema: || schemars::schema_for!(FilesOptions),
    build: |config, context| Ok(Arc::new(Files::build(config, context)?)),
};

/// The keys of a destination file of type `files`. Not `Debug`: it holds secrets.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FilesConfig {
    /// The folder, absolute or relative to the project, made when a run needs it; or `s3://bucket/folder`,
    /// `gs://bucket/folder`, `az://container/folder`.
    path: String,
    /// S3: the region. Without it: `AWS_REGION`.
    #[serde(default)]
    region: Option<String>,
    /// Where the store is, when it is not at its maker's: `https://minio.example.com`. Without it:
    /// `AWS_ENDPOINT_URL` for S3.
    #[serde(default)]
    endpoint_url: Option<String>,
    /// S3: the key. Without it: `AWS_ACCESS_KEY_ID`, and what else the environment gives (web identity …).
    #[serde(default)]
    aws_access_key_id: Option<String>,
    /// S3: the secret that goes with the key. Without it: `AWS_SECRET_ACCESS_KEY`.
    #[serde(default)]
    #[schemars(extend("x-secret" = true))]
    aws_secret_access_key: Option<String>,
    /// S3: the token of a temporary key. Without it: `AWS_SESSION_TOKEN`.
    #[serde(default)]
    #[schemars(extend("x-secret" = true))]
    aws_session_token: Option<String>,
    /// Google Cloud Storage: the JSON of a service account's key, such as `${file:key.json}`. Without it:
    /// the file that `GOOGLE_SERVICE_ACCOUNT` or `GOOGLE_APPLICATION_CREDENTIALS` names.
    #[serde(default)]
    #[schemars(extend("x-secret" = true))]
    service_account: Option<String>,
    /// Azure: the storage account. Without it: `AZURE_STORAGE_ACCOUNT_NAME`.
    #[serde(default)]
    account_name: Option<String>,
    /// Azure: the account's key. Without it: `AZURE_STORAGE_ACCOUNT_KEY`.
    #[serde(default)]
    #[schemars(extend("x-secret" = true))]
    account_key: Option<String>,
    /// Azure: a shared access signature. Without it: `AZURE_STORAGE_SAS_KEY`.
    #[serde(default)]
    #[schemars(extend("x-secret" = true))]
    sas_token: Option<String>,
    /// Azure: the tenant of a service principal. Without it: `AZURE_TENANT_ID`.
    #[serde(default)]
    tenant_id: Option<String>,
    /// Azure: the id of a service principal. Without it: `AZURE_CLIENT_ID`.
    #[serde(default)]
    client_id: Option<String>,
    /// Azure: the secret of a service principal. Without it: `AZURE_CLIENT_SECRET`.
    #[serde(default)]
    #[schemars(extend("x-secret" = true))]
    client_secret: Option<String>,
    /// Stores: allows loopback, private and link-local addresses, which are refused otherwise; the
    /// credentials of a machine (its metadata address) need it too.
    #[serde(default)]
    allow_private_networks: bool,
}

impl FilesConfig {
    /// The keys that are there and belong to some store.
    fn given(&self) -> Vec<&'static str> {
        let keys = [
            ("region", &self.region),
            ("endpoint_url", &self.endpoint_url),
            ("aws_access_key_id", &self.aws_access_key_id),
            ("aws_secret_access_key", &self.aws_secret_access_key),
            ("aws_session_token", &self.aws_session_token),
            ("service_account", &self.service_account),
            ("account_name", &self.account_name),
            ("account_key", &self.account_key),
            ("sas_token", &self.sas_token),
            ("tenant_id", &self.tenant_id),
            ("client_id", &self.client_id),
            ("client_secret", &self.client_secret),
        ];
        keys.into_iter().filter_map(|(key, value)| value.as_ref().map(|_| key)).collect()
    }

    fn secrets(&self) -> impl Iterator<Item = String> {
        let secrets = [
            &self.aws_secret_access_key,
            &self.aws_session_token,
            &self.service_account,
            &self.account_key,
            &self.sas_token,
            &self.client_secret,
        ];
        secrets.into_iter().flatten().cloned()
    }
}

/// The keys that `files` adds to a sync. Its `object` is the template of the file's name below the
/// folder; it knows `run_id`, `sync_slug`, `sync_id`, `model_slug`, `generation`,
/// `run_started_at` (`20261120T093000Z`) and `date` (`2026-11-20`), both in UTC.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct FilesOptions {
    /// How rows are written. Without it: CSV for names that end in `.csv`, Parquet for `.parquet`, else JSON
    /// Lines.
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
    /// Apache Parquet: typed columns, compressed with Snappy.
    Parquet,
}

/// What changes from run to run; a name made of none of it is the same in every run.
const RUN_VARIABLES: [&str; 3] = ["run_id", "generation", "run_started_at"];

const VARIABLES: [&str; 7] =
    ["run_id", "generation", "run_started_at", "sync_slug", "sync_id", "model_slug", "date"];

#[derive(Debug)]
struct Files {
    root: Root,
}

/// Where files go.
#[derive(Debug)]
enum Root {
    Folder(PathBuf),
    Store(Arc<Store>),
}

/// What a sync says, checked.
struct Checked {
    template: String,
    /// A file of the same name gives way: the name stands for the latest content.
    replace: bool,
    rows: RowWriter,
    /// Rows become columns, not lines.
    columns: Option<Columns>,
}

impl Files {
    fn build(config: Value, context: &BuildContext) -> Result<Self, ConfigError> {
        let config: FilesConfig = serde_json::from_value(config)
            .map_err(|e| ConfigError { path: String::new(), message: e.to_string() })?;
        let refused = |message: &str| ConfigError { path: "path".into(), message: message.into() };
        if config.path.is_empty() || config.path.contains('\0') {
            return Err(refused("must name a folder"));
        }
        let root = match Store::build(&config, &context.secrets)? {
            Some(store) => Root::Store(Arc::new(store)),
            None => Root::Folder(context.project.join(config.path)),
        };
        Ok(Self { root })
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
        let parsed = template::read(&environment, &template).map_err(|e| refused("object", e.to_string()))?;
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
        let ending = |wanted: &str| {
            Path::new(&template).extension().is_some_and(|extension| extension.eq_ignore_ascii_case(wanted))
        };
        let format = options.format.unwrap_or(match () {
            () if ending("csv") => Format::Csv,
            () if ending("parquet") => Format::Parquet,
            () => Format::Jsonl,
        });
        if format == Format::Parquet {
            if options.nulls == Nulls::Omit {
                return Err(refused(
                    "nulls",
                    "Parquet cannot leave out a field; remove `nulls: omit`".into(),
                ));
            }
            if options.numbers == Numbers::String {
                return Err(refused("numbers", "Parquet types its numbers; remove `numbers: string`".into()));
            }
            if options.non_finite == NonFinite::String {
                let message = "Parquet has a form for NaN and the infinities; remove `non_finite: string`";
                return Err(refused("non_finite", message.into()));
            }
        }
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
        let columns = (format == Format::Parquet)
            .then(|| Columns::new(&sync.fields, sync.mode == Mode::Diff, options.non_finite));
        let checked = Checked { template, replace: !per_run, rows, columns };
        let example =
            RunFacts { run_id: 1, generation: 1, started_at: DateTime::UNIX_EPOCH, planned: BTreeMap::new() };
        checked.place(sync, &example).map_err(|message| refused("object", message))?;
        Ok(checked)
    }

    /// The same place, however the path leads there.
    fn identity(&self) -> String {
        match &self.root {
            Root::Folder(path) => folder::canonical(path).display().to_string(),
            Root::Store(store) => store.identity().to_owned(),
        }
    }

    fn unusable(path: &Path, error: &io::Error) -> DeliveryError {
        DeliveryError::Unauthorized {
            message: format!("the folder {} cannot be written: {error}", path.display()),
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
        let environment = environment();
        let template = template::read(&environment, &self.template);
        let name = template.and_then(|t| template::render(&t, &variables)).map_err(|e| e.to_string())?;
        Place::parse(&name)
    }
}

/// The most steps that making a file's name takes.
const STEPS: u64 = 1_000_000;

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(STEPS));
    environment
}

#[async_trait]
impl Destination for Files {
    fn target(&self, sync: &DeliverySpec) -> String {
        format!("{}/{}", self.identity(), sync.object.as_deref().unwrap_or_default())
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
        match &self.root {
            Root::Store(store) => store.check().await,
            Root::Folder(path) => {
                let canonical = folder::canonical(path);
                let writable = blocking(move || folder::writable(&canonical)).await;
                writable.map_err(|error| Self::unusable(path, &error))
            }
        }
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
        let sync_id = sync.sync_id;
        let (root, shown) = match &self.root {
            Root::Store(store) => (Opened::Store(store.clone()), store.identity().to_owned()),
            Root::Folder(path) => {
                let canonical = folder::canonical(path);
                let folder = blocking(move || {
                    let folder = Folder::open(&canonical)?;
                    folder.remove_leftovers(sync_id)?;
                    Ok::<_, io::Error>(folder)
                })
                .await
                .map_err(|error| Self::unusable(path, &error))?;
                (Opened::Folder(Arc::new(folder)), path.display().to_string())
            }
        };
        let file = NewFile {
            root,
            place,
            shown: format!("{shown}/{}", sync.object.as_deref().unwrap_or_default()),
            replace: checked.replace,
            // A run without changes has nothing to say; a result without rows is a result.
            even_when_empty: matches!(sync.mode, Mode::Snapshot | Mode::All),
            rows: checked.rows,
            columns: checked.columns,
            sync_id,
            run_id: run.run_id,
            generation: run.generation,
        };
        Ok(Box::new(FilesDelivery::new(file)))
    }

    fn can_clear(&self, _sync: &DeliverySpec) -> Result<(), ConfigError> {
        let message =
            "files are never taken away again: mode `snapshot` writes the whole result anew in every run";
        Err(ConfigError { path: "mode".into(), message: message.into() })
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
        // A row of columns is shown as a line.
        let lines = match &checked.columns {
            None => checked.rows,
            Some(_) => {
                let with_operation = sync.mode == Mode::Diff;
                RowWriter::new(Format::Jsonl, JsonOptions::for_people(), with_operation, &sync.fields)
                    .map_err(|message| wrong("mappings", message))?
            }
        };
        let mut bytes = Vec::new();
        lines.write_head(&mut bytes);
        let outcomes = lines.write(row, &mut bytes).map_err(|message| wrong("mappings", message))?;
        let refused = outcomes.iter().any(|outcome| outcome.rejection().is_some());
        let place = match &self.root {
            Root::Store(store) => store.identity().to_owned(),
            Root::Folder(path) => path.display().to_string(),
        };
        let object = sync.object.as_deref().unwrap_or_default();
        Ok(Trial {
            request: format!("{place}/{object}\n\n{}", String::from_utf8_lossy(&bytes)),
            delivered: refused.then_some(Delivered { outcomes, error: None, calls: 0, exchange: None }),
        })
    }

    fn timeout(&self) -> Duration {
        match &self.root {
            Root::Folder(_) => Duration::from_secs(60),
            Root::Store(_) => store::TIMEOUT,
        }
    }

    /// A store's requests are repeated where they are made; a file that broke off is not gone on with.
    fn retries(&self) -> u32 {
        if matches!(self.root, Root::Store(_)) { 0 } else { 5 }
    }

    fn batch_limits(&self, _sync: &DeliverySpec, _operation: Operation) -> BatchLimits {
        BatchLimits { rows: 20_000, bytes: 8 << 20 }
    }
}

fn misconfigured(error: ConfigError) -> DeliveryError {
    DeliveryError::Unauthorized { message: error.to_string(), hint: "correct the sync file".into() }
}
