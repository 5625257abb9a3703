//! A real MariaDB server for tests.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;

use crate::postgres::{free_port, user, watched};

/// What outlives a crash of the machine is nobody's concern here.
const SETTINGS: &[&str] = &[
    "--bind-address=127.0.0.1",
    "--max-connections=300",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-doublewrite=0",
    "--innodb-buffer-pool-size=256M",
    "--innodb-log-file-size=64M",
    "--skip-log-bin",
    "--skip-name-resolve",
];

/// A MariaDB server on a free port of 127.0.0.1, whose user `root` needs no password. The end of the test process
/// stops it and removes its data.
#[derive(Debug)]
pub struct MariadbServer {
    port: u16,
    /// Ends once its standard input is closed, and the server with it.
    _watchdog: Child,
}

impl MariadbServer {
    /// The server of this test process, started from the installed binaries.
    ///
    /// # Panics
    /// When no server can be started, saying what is missing.
    pub fn start() -> &'static Self {
        static SERVER: OnceLock<MariadbServer> = OnceLock::new();
        SERVER.get_or_init(Self::launch)
    }

    fn launch() -> Self {
        let folder =
            tempfile::Builder::new().prefix("levin-maria-").tempdir().expect("a temporary folder").keep();
        let owner = user("mysql");
        if let Some((uid, gid)) = owner {
            chown(&folder, Some(uid), Some(gid)).expect("give the folder to the user mysql");
        }
        let data = folder.join("data");
        let user: &[&str] = if owner.is_some() { &["--user=mysql"] } else { &[] };
        let initialised = Command::new(program("mariadb-install-db"))
            .arg("--no-defaults")
            .args(user)
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--tmpdir={}", folder.display()))
            .args([
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--innodb-log-file-size=10M",
            ])
            .output()
            .expect("run mariadb-install-db");
        assert!(
            initialised.status.success(),
            "mariadb-install-db: {}",
            String::from_utf8_lossy(&initialised.stderr)
        );
        // Another process may take the port between our asking and the server's.
        for _ in 0..5 {
            let port = free_port();
            let mut words: Vec<OsString> = vec![program("mariadbd").into(), "--no-defaults".into()];
            words.extend(user.iter().chain(SETTINGS).map(OsString::from));
            words.push(format!("--datadir={}", data.display()).into());
            words.push(format!("--tmpdir={}", folder.display()).into());
            words.push(format!("--socket={}", folder.join("socket").display()).into());
            words.push(format!("--port={port}").into());
            let mut watchdog = watched(&folder, &words);
            if answers(port) {
                return Self { port, _watchdog: watchdog };
            }
            let _ = watchdog.kill();
            let _ = watchdog.wait();
        }
        let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
        panic!("the server does not start:\n{log}");
    }

    /// The address of one of the server's databases.
    pub fn url(&self, database: &str) -> String {
        format!("mysql://root@127.0.0.1:{}/{database}", self.port)
    }

    /// The name of a new, empty database. Managed schemas are databases too: a test's own begin with this name.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn fresh_database(&self) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("levin_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        run(&self.url("mysql"), &format!("create database {name} character set utf8mb4"));
        name
    }
}

fn answers(port: u16) -> bool {
    let deadline = Instant::now() + Duration::from_secs(30);
    while Instant::now() < deadline {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    false
}

/// A statement that quotes names and casts as most engines do, in MariaDB's spelling.
pub fn spelled(statement: &str) -> String {
    let casts = [
        (" as text)", " as char)"),
        (" as varchar)", " as char)"),
        (" as bigint)", " as signed)"),
        (" as int)", " as signed)"),
        (" as integer)", " as signed)"),
        (" as varchar(", " as char("),
    ];
    let mut text = casts.iter().fold(backticked(statement), |text, (from, to)| text.replace(from, to));
    // Numbers in a row stand in tables that are there for the asking.
    while let Some((before, rest)) = text.clone().split_once("generate_series(1, ") {
        let Some((to, after)) = rest.split_once(") as t(i)") else { break };
        text = format!("{before}(select seq as i from seq_1_to_{to}) as t{after}");
    }
    text
}

/// The same statement with its names between backticks.
fn backticked(statement: &str) -> String {
    let mut text = String::new();
    let mut chars = statement.chars().peekable();
    let mut quote = None;
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, '"') => {
                quote = Some('"');
                text.push('`');
            }
            (Some('"'), '"') if chars.next_if_eq(&'"').is_some() => text.push('"'),
            (Some('"'), '"') => {
                quote = None;
                text.push('`');
            }
            (None, '\'') => {
                quote = Some('\'');
                text.push(c);
            }
            (Some('\''), '\'') => {
                quote = None;
                text.push(c);
            }
            _ => text.push(c),
        }
    }
    text
}

/// The first column of a SELECT, as text.
///
/// # Panics
/// When the statement fails.
pub fn texts(url: &str, select: &str) -> Vec<Option<String>> {
    connected(url, select, async |connection| {
        connection
            .query_map(select, |value: mysql_async::Row| value.get::<Option<String>, _>(0).flatten())
            .await
    })
}

/// Runs statements at an address; several may stand in one text.
///
/// # Panics
/// When one of them fails.
pub fn run(url: &str, statements: &str) {
    connected(url, statements, async |connection| {
        connection.query_iter(statements).await?.drop_result().await
    });
}

/// Does something with a connection of its own.
fn connected<T: Send>(
    url: &str,
    what: &str,
    act: impl AsyncFnOnce(&mut mysql_async::Conn) -> Result<T, mysql_async::Error> + Send,
) -> T {
    // A thread of its own, so that it works inside and outside of an asynchronous test.
    std::thread::scope(|scope| {
        let ran = scope.spawn(|| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let opts = mysql_async::Opts::from_url(url)?;
                let mut connection = mysql_async::Conn::new(opts).await?;
                connection
                    .query_drop("set sql_mode = 'STRICT_ALL_TABLES,PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES'")
                    .await?;
                let done = act(&mut connection).await?;
                let _ = connection.disconnect().await;
                Ok::<_, mysql_async::Error>(done)
            })
        });
        ran.join().expect("no panic").unwrap_or_else(|e| panic!("{what}: {e}"))
    })
}

/// Where a program of the server is installed.
fn program(name: &str) -> PathBuf {
    let folders = ["/usr/sbin", "/usr/bin", "/usr/local/bin", "/usr/libexec"];
    let found = folders.iter().map(|folder| PathBuf::from(folder).join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is not installed (apt-get install mariadb-server)"))
}
