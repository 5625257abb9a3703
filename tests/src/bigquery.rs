//! BigQuery's double: bqemulator, which keeps BigQuery's REST interface over a DuckDB in memory. It is started once for
//! a test process, and ends with it. What it is taught beside stands in `doubles/bigquery.py`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use serde_json::{Value, json};

use crate::stores::{PATIENCE, WATCHDOG, installed};

/// A server that stands for BigQuery.
#[derive(Debug)]
pub struct BigqueryDouble {
    address: SocketAddr,
    // Ends once its standard input is closed, and the server with it.
    _watchdog: Child,
}

impl BigqueryDouble {
    /// The process's own double.
    ///
    /// # Panics
    /// When it is not installed, or does not start.
    pub fn start() -> &'static Self {
        static SERVER: OnceLock<BigqueryDouble> = OnceLock::new();
        SERVER.get_or_init(|| {
            let python = installed("LEVIN_BQEMULATOR", "bqemulator-1.4.0").join("bin/python");
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("doubles/bigquery.py");
            let free =
                TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its address");
            let port = free.port().to_string();
            let mut watchdog = Command::new("sh");
            watchdog.args(["-c", WATCHDOG, "sh"]).arg(&python).arg(&script);
            watchdog.args(["start", "--project", "levin", "--log-level", "error", "--grpc-port", "0"]);
            watchdog.args(["--rest-port", &port]);
            watchdog.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
            let watchdog = watchdog.spawn().expect("start the double");
            let deadline = Instant::now() + PATIENCE;
            while TcpStream::connect(free).is_err() {
                assert!(
                    Instant::now() < deadline,
                    "{} {} does not answer",
                    python.display(),
                    script.display()
                );
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            Self { address: free, _watchdog: watchdog }
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:…`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Makes a dataset.
    ///
    /// # Panics
    /// When it does not come about.
    pub fn make_dataset(&self, project: &str, name: &str) {
        let dataset = json!({"datasetReference": {"projectId": project, "datasetId": name}});
        self.ask("POST", &format!("{project}/datasets"), &dataset);
    }

    /// Runs a statement, and returns the first column of its rows.
    ///
    /// # Panics
    /// When it fails.
    pub fn texts(&self, project: &str, statement: &str) -> Vec<Option<String>> {
        let configuration = json!({"query": {"query": statement, "useLegacySql": false,
            "defaultDataset": {"projectId": project, "datasetId": "d"}}});
        let job = self.ask("POST", &format!("{project}/jobs"), &json!({"configuration": configuration}));
        assert_eq!(job["status"].get("errorResult"), None, "{statement}: {job}");
        let id = job["jobReference"]["jobId"].as_str().expect("a job");
        let found = self.ask("GET", &format!("{project}/queries/{id}?maxResults=100000"), &Value::Null);
        let rows = found["rows"].as_array().into_iter().flatten();
        rows.map(|row| row["f"][0]["v"].as_str().map(str::to_owned)).collect()
    }

    /// Asks for something below the path of all projects.
    ///
    /// # Panics
    /// When the answer is not 200 and JSON.
    pub fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = format!(
            "{method} /bigquery/v2/projects/{path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{body}",
            self.address,
            body.len()
        );
        let mut stream = TcpStream::connect(self.address).expect("the double answers");
        stream.write_all(request.as_bytes()).expect("send the request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("read the answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let (_, said) = answer.split_once("\r\n\r\n").expect("a body");
        serde_json::from_str(said).unwrap_or_else(|e| panic!("{e}: {said}"))
    }

    /// A project that no other test knows, without any dataset.
    pub fn fresh_project(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        format!("project-{}", NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// What tests write in standard SQL, in BigQuery's words: names in backticks, backslashes that begin escapes, `string`
/// for `text`, and a `where` behind every `delete` and `update`.
pub fn spoken(text: &str) -> String {
    let mut words = String::new();
    let mut word = String::new();
    let flush = |word: &mut String, words: &mut String| {
        words.push_str(match word.as_str() {
            "text" | "varchar" => "string",
            other => other,
        });
        word.clear();
    };
    let mut quote = None;
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match (quote, c) {
            // Twice, it stands inside.
            (Some('\''), '\'') if characters.next_if_eq(&'\'').is_some() => words.push_str("\\'"),
            (Some('"'), '"') if characters.next_if_eq(&'"').is_some() => words.push('"'),
            (Some(open), c) if c == open => {
                words.push(if c == '"' { '`' } else { c });
                quote = None;
            }
            (Some('\''), '\\') => words.push_str("\\\\"),
            (Some('\''), '\n') => words.push_str("\\n"),
            (Some(_), c) => words.push(c),
            (None, c) if c.is_alphanumeric() || c == '_' => word.push(c),
            (None, c) => {
                flush(&mut word, &mut words);
                if matches!(c, '\'' | '`' | '"') {
                    quote = Some(c);
                }
                words.push(if c == '"' { '`' } else { c });
            }
        }
    }
    flush(&mut word, &mut words);
    let beginning = words.trim_start().split(' ').next().unwrap_or_default().to_owned();
    if matches!(beginning.as_str(), "delete" | "update") && !words.contains(" where ") {
        words.push_str(" where true");
    }
    words
}
