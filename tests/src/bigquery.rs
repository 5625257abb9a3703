//! BigQuery's double: bqemulator, which keeps BigQuery's REST interface over a DuckDB in memory. It is started once for
//! a test process, and ends with it. What it is taught beside stands in `doubles/bigquery.py`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

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
        let body = format!(r#"{{"datasetReference":{{"projectId":"{project}","datasetId":"{name}"}}}}"#);
        let request = format!(
            "POST /bigquery/v2/projects/{project}/datasets HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{body}",
            self.address,
            body.len()
        );
        let mut stream = TcpStream::connect(self.address).expect("the double answers");
        stream.write_all(request.as_bytes()).expect("send the request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("read the answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    /// A project that no other test knows, without any dataset.
    pub fn fresh_project(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        format!("project-{}", NEXT.fetch_add(1, Ordering::Relaxed))
    }
}
