//! Redshift's double: databases of the test process's PostgreSQL with what Redshift has beside it
//! (`doubles/redshift.sql`), behind a wire that refuses what Redshift refuses (`doubles/redshift.py`).

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::postgres::{self, PostgresServer};
use crate::stores::{PATIENCE, WATCHDOG};

/// A server that stands for Redshift.
#[derive(Debug)]
pub struct RedshiftDouble {
    wire: SocketAddr,
    template: String,
    // Ends once its standard input is closed, and the server with it.
    _watchdog: Child,
}

/// A database of the double: what one test does, no other sees.
#[derive(Debug, Clone)]
pub struct RedshiftDatabase {
    /// Its address as Redshift: `redshift://…`.
    pub url: String,
    /// Its address on the server behind the wire, which refuses nothing.
    pub behind: String,
}

impl RedshiftDouble {
    /// The process's own double.
    ///
    /// # Panics
    /// When there is no Python, or it does not start.
    pub fn start() -> &'static Self {
        static SERVER: OnceLock<RedshiftDouble> = OnceLock::new();
        SERVER.get_or_init(|| {
            let server = PostgresServer::start();
            let template = format!("levin_redshift_{}", std::process::id());
            server.run("postgres", &format!("drop database if exists {template}"));
            server.run("postgres", &format!("create database {template}"));
            let made =
                std::fs::read_to_string(doubles().join("redshift.sql")).expect("the double's functions");
            server.run(&template, &made);
            let free =
                TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its address");
            let mut watchdog = Command::new("sh");
            watchdog.args(["-c", WATCHDOG, "sh", "python3"]).arg(doubles().join("redshift.py"));
            watchdog.arg(free.port().to_string()).arg("127.0.0.1").arg(server.port().to_string());
            watchdog.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
            let watchdog = watchdog.spawn().expect("start the double");
            let deadline = Instant::now() + PATIENCE;
            while TcpStream::connect(free).is_err() {
                assert!(
                    Instant::now() < deadline,
                    "doubles/redshift.py does not answer; is python3 installed?"
                );
                std::thread::sleep(Duration::from_millis(20));
            }
            Self { wire: free, template, _watchdog: watchdog }
        })
    }

    /// The address of the wire, with a database's name.
    pub fn url(&self, user: &str, database: &str) -> String {
        format!("redshift://{user}@{}/{database}", self.wire)
    }

    /// A new, empty database.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn fresh_database(&self) -> RedshiftDatabase {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let server = PostgresServer::start();
        let name = format!("{}_{}", self.template, NUMBER.fetch_add(1, Ordering::Relaxed));
        server.run("postgres", &format!("create database {name} template {}", self.template));
        RedshiftDatabase { url: self.url("postgres", &name), behind: server.url(&name) }
    }
}

impl RedshiftDatabase {
    /// Runs statements behind the wire.
    ///
    /// # Panics
    /// When one of them fails.
    pub fn run(&self, statements: &str) {
        postgres::run(&self.behind, statements);
    }
}

fn doubles() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("doubles")
}
