//! Databricks' double: a service of our own (`doubles/databricks_service.py`) that says what Databricks' Statement
//! Execution API says, over DuckDB. It is started once for a test process, and ends with it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::stores::{PATIENCE, WATCHDOG, installed};

/// A server that stands for Databricks.
#[derive(Debug)]
pub struct DatabricksDouble {
    address: SocketAddr,
    // Ends once its standard input is closed, and the server with it.
    _watchdog: Child,
}

/// A workspace of the double, with a catalog and a SQL warehouse of its own: what one test does, no other sees.
#[derive(Debug, Clone)]
pub struct DatabricksWorkspace {
    address: SocketAddr,
    name: String,
    /// The personal access token.
    pub token: String,
    /// The SQL warehouse's id.
    pub warehouse: String,
    /// The catalog, with an empty schema `default`.
    pub catalog: String,
}

impl DatabricksDouble {
    /// The process's own double.
    ///
    /// # Panics
    /// When it is not installed, or does not start.
    pub fn start() -> &'static Self {
        static SERVER: OnceLock<DatabricksDouble> = OnceLock::new();
        SERVER.get_or_init(|| {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("doubles/databricks_service.py");
            let free =
                TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its address");
            let mut watchdog = Command::new("sh");
            watchdog.args(["-c", WATCHDOG, "sh"]).arg(python()).arg(&script).arg(free.port().to_string());
            watchdog.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
            let watchdog = watchdog.spawn().expect("start the double");
            let deadline = Instant::now() + PATIENCE;
            while TcpStream::connect(free).is_err() {
                assert!(Instant::now() < deadline, "{} does not answer", script.display());
                std::thread::sleep(Duration::from_millis(50));
            }
            Self { address: free, _watchdog: watchdog }
        })
    }

    /// A workspace that no other test knows.
    ///
    /// # Panics
    /// When the double does not answer.
    pub fn fresh_workspace(&self) -> DatabricksWorkspace {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("w{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let told = post(self.address, &format!("/double/workspaces/{name}"), &json!({}));
        let text = |key: &str| told[key].as_str().expect("a text").to_owned();
        DatabricksWorkspace {
            address: self.address,
            name,
            token: text("token"),
            warehouse: text("warehouse"),
            catalog: text("catalog"),
        }
    }
}

/// The Python that the double runs on; it has Spark as well.
pub fn python() -> std::path::PathBuf {
    installed("LEVIN_DATABRICKS", "databricks-4.3.0").join("bin/python")
}

impl DatabricksWorkspace {
    /// A source's file for this workspace, with the personal access token.
    pub fn source(&self) -> Value {
        json!({
            "type": "databricks", "host": format!("http://{}", self.address), "warehouse_id": self.warehouse,
            "catalog": self.catalog, "auth": {"token": self.token}, "retry_for": "20s",
        })
    }

    /// Changes how the workspace is served; the names are those of the class `Workspace` in the double.
    ///
    /// # Panics
    /// When the double does not answer, or does not know a name.
    pub fn set(&self, settings: &Value) -> Value {
        post(self.address, &format!("/double/workspaces/{}", self.name), settings)
    }

    /// Runs a statement, and returns the first column of its rows.
    ///
    /// # Panics
    /// When it fails.
    pub fn texts(&self, statement: &str) -> Vec<Option<String>> {
        let told = self.set(&json!({"sql": statement}));
        let rows = told["texts"].as_array().into_iter().flatten();
        rows.map(|text| text.as_str().map(str::to_owned)).collect()
    }

    /// What the double knows of the workspace: statements, requests, how many tokens it gave out.
    ///
    /// # Panics
    /// When the double does not answer.
    pub fn told(&self) -> Value {
        self.set(&json!({}))
    }
}

fn post(address: SocketAddr, path: &str, body: &Value) -> Value {
    let body = body.to_string();
    let mut stream = TcpStream::connect(address).expect("the double answers");
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n",
        body.len()
    );
    stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(body.as_bytes()))
        .expect("send the request");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("read the answer");
    let answer = String::from_utf8(answer).expect("an answer in text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer of HTTP");
    assert!(head.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    serde_json::from_str(body).expect("an answer in JSON")
}
