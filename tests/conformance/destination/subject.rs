//! The destinations under proof: each with a place of its own to write to, a way there that can be cut, and
//! eyes of the test's own that see what arrived.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Field, Int64Type, Schema};
use connectors::catalogue::{BuildContext, ConfigError, DESTINATIONS, DestinationConnector};
use connectors::change::{ChangeBatch, Mode, OnRemoved, Operation, with_logical_type};
use connectors::destination::{DeliverySpec, Destination, RunFacts};
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::azure::MicrosoftAzureBuilder;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use sql_templates::LogicalType;
use tests::postgres::{PostgresServer, query, run as execute};
use tests::receiver::Receiver;
use tests::stores::{AZURE_ACCOUNT, AZURE_KEY, StoreDouble};

use super::way::Way;

/// Every destination that keeps the contract; a new one is another of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    HttpRequest,
    Postgres,
    Lines,
    Parquet,
    S3,
    Azure,
}

/// Where rows arrive, as the test sees it.
enum Place {
    Receiver(Receiver),
    Table(String),
    Folder(tempfile::TempDir),
    Store(Arc<dyn object_store::ObjectStore>),
}

/// A destination with a place of its own.
pub struct Subject {
    pub kind: Kind,
    pub destination: Arc<dyn Destination>,
    /// The way to it; none for a folder.
    pub way: Option<Way>,
    place: Place,
    config: Value,
}

/// A value of the column `odd`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Odd {
    Fine,
    /// It has no form on this wire.
    Unrepresentable,
}

impl Kind {
    pub fn connector(self) -> &'static DestinationConnector {
        let name = match self {
            Self::HttpRequest => "http_request",
            Self::Postgres => "postgres",
            Self::Lines | Self::Parquet | Self::S3 | Self::Azure => "files",
        };
        DESTINATIONS.iter().find(|d| d.name == name).unwrap()
    }

    pub fn build(self, config: Value) -> Result<Arc<dyn Destination>, ConfigError> {
        let context =
            BuildContext { slug: "to".into(), project: PathBuf::from("/nowhere"), secrets: Vec::new() };
        (self.connector().build)(config, &context)
    }

    /// A subject with an empty place.
    pub async fn subject(self) -> Subject {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let own = format!("place-{}", COUNT.fetch_add(1, Ordering::SeqCst));
        let (place, way, config) = match self {
            Self::HttpRequest => {
                let receiver = Receiver::start();
                let way = Way::to(receiver.url().trim_start_matches("http://").parse().unwrap()).await;
                let config =
                    json!({"base_url": format!("http://{}", way.address), "allow_private_networks": true});
                (Place::Receiver(receiver), Some(way), config)
            }
            Self::Postgres => {
                let url = aside(|| {
                    let url = PostgresServer::start().fresh_database();
                    execute(&url, "create table people (id bigint primary key, name text, odd text)");
                    url
                });
                let (before, rest) = url.split_once('@').unwrap();
                let (server, database) = rest.split_once('/').unwrap();
                let way =
                    Way::to(server.replace("localhost", "127.0.0.1").parse::<SocketAddr>().unwrap()).await;
                let config = json!({"url": format!("{before}@{}/{database}", way.address)});
                (Place::Table(url), Some(way), config)
            }
            Self::Lines | Self::Parquet => {
                let folder = tempfile::tempdir().unwrap();
                let config = json!({"path": folder.path()});
                (Place::Folder(folder), None, config)
            }
            Self::S3 => {
                let double = aside(StoreDouble::s3);
                let way = Way::to(double.address()).await;
                let bucket = own.clone();
                aside(move || double.make_bucket(&bucket));
                let store = double.bucket(&own);
                let config = json!({
                    "path": format!("s3://{own}/exports"), "region": "eu-central-1", "allow_private_networks": true,
                    "endpoint_url": format!("http://{}", way.address),
                    "aws_access_key_id": "key", "aws_secret_access_key": "secret",
                });
                (Place::Store(Arc::new(store)), Some(way), config)
            }
            Self::Azure => {
                let double = aside(StoreDouble::azure);
                let way = Way::to(double.address()).await;
                let container = own.clone();
                aside(move || double.make_container(&container));
                let store = MicrosoftAzureBuilder::new()
                    .with_container_name(&own)
                    .with_account(AZURE_ACCOUNT)
                    .with_access_key(AZURE_KEY)
                    .with_endpoint(format!("{}/{AZURE_ACCOUNT}", double.url()))
                    .with_allow_http(true)
                    .build()
                    .unwrap();
                let config = json!({
                    "path": format!("az://{own}/exports"), "allow_private_networks": true,
                    "endpoint_url": format!("http://{}/{AZURE_ACCOUNT}", way.address),
                    "account_name": AZURE_ACCOUNT, "account_key": AZURE_KEY,
                });
                (Place::Store(Arc::new(store)), Some(way), config)
            }
        };
        Subject { kind: self, destination: self.build(config.clone()).unwrap(), way, place, config }
    }

    /// What a sync to it says, in a mode that writes every row that it is given.
    pub fn spec(self) -> DeliverySpec {
        let deferred = self.connector().deferred;
        self.spec_in(if deferred { Mode::Diff } else { Mode::Upsert })
    }

    pub fn spec_in(self, mode: Mode) -> DeliverySpec {
        let (object, options) = match self {
            Self::HttpRequest => (
                None,
                json!({"each": {"path": "/rows"}, "archive": {"path": "/archive"}, "clear": {"path": "/clear"}}),
            ),
            Self::Postgres => (Some("public.people".to_owned()), Value::Null),
            Self::Parquet => (Some("sub/people-{{ generation }}.parquet".to_owned()), Value::Null),
            Self::Lines | Self::S3 | Self::Azure => {
                (Some("sub/people-{{ generation }}.jsonl".to_owned()), Value::Null)
            }
        };
        let rows = self.rows(Operation::Added, &[]);
        DeliverySpec {
            sync: "people".into(),
            sync_id: 1,
            model: "people".into(),
            object,
            mode,
            on_removed: mode.fixed_removal().unwrap_or(OnRemoved::Nothing),
            options,
            identity: rows.identity.schema(),
            fields: rows.fields.schema(),
        }
    }

    /// Rows with a column `odd`, some of whose values have no form on this wire.
    pub fn rows(self, operation: Operation, rows: &[(i64, &str, Odd)]) -> ChangeBatch {
        let bad = |odd: Odd| odd == Odd::Unrepresentable;
        let (logical, odd): (LogicalType, ArrayRef) = match self {
            Self::HttpRequest | Self::Lines | Self::S3 | Self::Azure => {
                let values = rows.iter().map(|r| if bad(r.2) { f64::NAN } else { 1.5 });
                (LogicalType::Float, Arc::new(Float64Array::from_iter_values(values)))
            }
            Self::Postgres => {
                let values = rows.iter().map(|r| if bad(r.2) { "a\0b" } else { "ab" });
                (LogicalType::Text, Arc::new(StringArray::from_iter_values(values)))
            }
            Self::Parquet => {
                let values = rows.iter().map(|r| if bad(r.2) { "99999999999999999999" } else { "9" });
                (LogicalType::Integer, Arc::new(StringArray::from_iter_values(values)))
            }
        };
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0)));
        let names: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.1)));
        let field = |name: &str, array: &ArrayRef, logical| {
            with_logical_type(Field::new(name, array.data_type().clone(), true), logical)
        };
        let id = field("id", &ids, LogicalType::Integer);
        let fields = vec![id.clone(), field("name", &names, LogicalType::Text), field("odd", &odd, logical)];
        ChangeBatch {
            operation,
            sequences: Int64Array::from_iter_values(1..=rows.len() as i64),
            keys: StringArray::from_iter_values(rows.iter().map(|r| r.0.to_string())),
            versions: StringArray::from_iter_values(rows.iter().map(|r| format!("v{}-{}", r.0, r.1))),
            changed: vec![Arc::from([]); rows.len()],
            identity: RecordBatch::try_new(Arc::new(Schema::new(vec![id])), vec![ids.clone()]).unwrap(),
            fields: RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![ids, names, odd]).unwrap(),
        }
    }
}

impl Subject {
    /// The same place, with other keys in the destination's file.
    pub fn configured(&self, key: &str, value: impl Into<Value>) -> Arc<dyn Destination> {
        let mut config = self.config.clone();
        config[key] = value.into();
        self.kind.build(config).unwrap()
    }

    /// A key of the destination's file.
    pub fn config(&self, key: &str) -> String {
        self.config[key].as_str().unwrap().to_owned()
    }

    pub fn receiver(&self) -> Option<&Receiver> {
        match &self.place {
            Place::Receiver(receiver) => Some(receiver),
            _ => None,
        }
    }

    /// What arrived, as any reader would see it: name by id.
    pub async fn content(&self) -> BTreeMap<i64, String> {
        match &self.place {
            Place::Receiver(receiver) => receiver
                .rows()
                .into_iter()
                .map(|(key, fields)| (key.parse().unwrap(), fields["name"].as_str().unwrap().to_owned()))
                .collect(),
            Place::Table(url) => {
                let url = url.clone();
                let rows = aside(move || query(&url, "select id, name from people"));
                let cell = |row: &Vec<Option<String>>, at: usize| row[at].clone().unwrap();
                rows.iter().map(|row| (cell(row, 0).parse().unwrap(), cell(row, 1))).collect()
            }
            Place::Folder(folder) => {
                let mut found = BTreeMap::new();
                let sub = folder.path().join("sub");
                for entry in std::fs::read_dir(sub).into_iter().flatten() {
                    let bytes = std::fs::read(entry.unwrap().path()).unwrap();
                    found.extend(if self.kind == Kind::Parquet { columns(bytes) } else { lines(&bytes) });
                }
                found
            }
            Place::Store(store) => {
                let mut found = BTreeMap::new();
                let objects: Vec<_> = store.list(None).try_collect().await.unwrap();
                for object in objects {
                    assert!(object.location.as_ref().starts_with("exports/sub/people-"), "{object:?}");
                    found.extend(lines(&store.get(&object.location).await.unwrap().bytes().await.unwrap()));
                }
                found
            }
        }
    }
}

pub fn facts(generation: i64) -> RunFacts {
    RunFacts { run_id: generation, generation, started_at: chrono::Utc::now(), planned: BTreeMap::new() }
}

fn lines(bytes: &[u8]) -> Vec<(i64, String)> {
    let lines = std::str::from_utf8(bytes).unwrap().lines();
    lines
        .map(|line| {
            let row: Value = serde_json::from_str(line).unwrap();
            (row["id"].as_i64().unwrap(), row["name"].as_str().unwrap().to_owned())
        })
        .collect()
}

fn columns(bytes: Vec<u8>) -> Vec<(i64, String)> {
    let reader =
        ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes)).unwrap().build().unwrap();
    reader
        .map(Result::unwrap)
        .flat_map(|rows| {
            let ids = rows.column_by_name("id").unwrap().as_primitive::<Int64Type>().clone();
            let names = rows.column_by_name("name").unwrap().as_string::<i32>().clone();
            (0..rows.num_rows())
                .map(move |row| (ids.value(row), names.value(row).to_owned()))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// What starts a runtime of its own, or waits, aside from the test's.
fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::spawn(work).join().unwrap()
}
