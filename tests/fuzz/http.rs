//! A socket that speaks just enough HTTP to be told what bytes to answer with, and an `http_request` destination
//! that is pointed at it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use connectors::catalogue::{BuildContext, ConfigError};
use connectors::change::{ChangeBatch, Mode, OnRemoved, Operation, with_logical_type};
use connectors::destination::http_request::HTTP_REQUEST;
use connectors::destination::{DeliverySpec, Destination, RunFacts};
use serde_json::{Value, json};
use sql_templates::LogicalType;

pub const SECRET: &str = "fuzz-s3cr3t-9f1c27ab";
/// The longest that a request may take.
pub const TIMEOUT: Duration = Duration::from_millis(400);

/// What is written back, byte for byte, and what then becomes of the connection.
#[derive(Debug, Clone, Default)]
pub struct Script {
    pub bytes: Vec<u8>,
    /// The same bytes again and again, until nobody reads them any more.
    pub endless: bool,
    /// The connection stays open, and silent.
    pub stays: bool,
}

/// A request that came: its first line and its body.
#[derive(Debug, Clone)]
pub struct Came {
    pub line: String,
    pub body: Vec<u8>,
}

/// What answers, and what came so far.
type Scene = (Box<dyn FnMut(&Came) -> Script + Send>, Vec<Came>);

/// Listens on loopback for as long as the process lives.
#[derive(Clone)]
pub struct Socket {
    address: SocketAddr,
    shared: Arc<Mutex<Scene>>,
}

impl Socket {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let shared: Arc<Mutex<Scene>> = Arc::new(Mutex::new((Box::new(|_| ok("")), Vec::new())));
        let socket = Self { address, shared };
        let server = socket.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = server.clone();
                // A connection that ends in the middle is what this is about.
                std::thread::spawn(move || drop(server.serve(stream)));
            }
        });
        socket
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on requests are answered like this, and none has come yet.
    pub fn answer(&self, with: impl FnMut(&Came) -> Script + Send + 'static) {
        *self.shared.lock().expect("no panic while it is held") = (Box::new(with), Vec::new());
    }

    pub fn came(&self) -> Vec<Came> {
        self.shared.lock().expect("no panic while it is held").1.clone()
    }

    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        stream.set_write_timeout(Some(Duration::from_secs(5)))?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut stream = stream;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let mut length = 0;
            loop {
                let mut header = String::new();
                if reader.read_line(&mut header)? <= 2 {
                    break;
                }
                if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap_or(0);
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            let came = Came { line: line.trim_end().to_owned(), body };
            let script = {
                let mut shared = self.shared.lock().expect("no panic while it is held");
                let script = (shared.0)(&came);
                shared.1.push(came);
                script
            };
            stream.write_all(&script.bytes)?;
            if script.endless {
                loop {
                    stream.write_all(&script.bytes)?;
                }
            }
            if script.stays {
                std::thread::sleep(TIMEOUT * 3);
            }
            stream.shutdown(Shutdown::Both)?;
        }
    }
}

/// A whole answer with status 200.
pub fn ok(body: &str) -> Script {
    let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    Script { bytes: text.into_bytes(), ..Script::default() }
}

/// The destination at an address, with more of its keys.
pub fn destination(url: &str, more: Value) -> Result<Arc<dyn Destination>, ConfigError> {
    let mut config = json!({
        "base_url": format!("{url}/v1"), "allow_private_networks": true, "timeout": format!("{}ms", TIMEOUT.as_millis()),
    });
    config.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
    let context =
        BuildContext { slug: "to".to_owned(), project: PathBuf::new(), secrets: vec![SECRET.to_owned()] };
    (HTTP_REQUEST.build)(config, &context)
}

fn schema() -> SchemaRef {
    let field = |name: &str, logical| with_logical_type(Field::new(name, DataType::Utf8, true), logical);
    Arc::new(Schema::new(vec![
        field("name", LogicalType::Text),
        field("ltv", LogicalType::Decimal),
        field("extra", LogicalType::Json),
    ]))
}

pub fn spec(options: Value) -> DeliverySpec {
    DeliverySpec {
        sync: "people".to_owned(),
        sync_id: 1,
        model: "people".to_owned(),
        object: None,
        mode: Mode::Upsert,
        on_removed: OnRemoved::Nothing,
        options,
        identity: Arc::new(Schema::empty()),
        fields: schema(),
    }
}

pub fn run() -> RunFacts {
    let started_at = std::time::SystemTime::now().into();
    RunFacts { run_id: 12, generation: 7, started_at, planned: BTreeMap::new() }
}

/// Added rows: key, name and a JSON value.
pub fn batch(rows: &[(String, String, String)]) -> ChangeBatch {
    let texts =
        |of: fn(&(String, String, String)) -> &String| StringArray::from_iter_values(rows.iter().map(of));
    let keys = texts(|row| &row.0);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(texts(|row| &row.1)),
        Arc::new(StringArray::from(vec!["12345678901234567890.10"; rows.len()])),
        Arc::new(texts(|row| &row.2)),
    ];
    ChangeBatch {
        operation: Operation::Added,
        sequences: Int64Array::from_iter_values(0..rows.len() as i64),
        versions: StringArray::from_iter_values((0..rows.len()).map(|n| format!("v{n}"))),
        changed: vec![Arc::from([]); rows.len()],
        identity: RecordBatch::try_from_iter([("id", Arc::new(keys.clone()) as ArrayRef)]).expect("a batch"),
        fields: RecordBatch::try_new(schema(), columns).expect("a batch"),
        keys,
    }
}

/// A runtime for one test.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}
