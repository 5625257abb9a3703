//! A real PostgreSQL server for tests.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio_postgres::{SimpleQueryMessage, SimpleQueryRow};

/// How many databases stay in long forms: more than all threads can have in use.
const KEPT_DATABASES: usize = 60;

/// The role that must give a password; every other one is trusted.
pub const PASSWORD_ROLE: &str = "levin_with_password";

/// Starts the server, waits until the test process has closed its end of the pipe (by ending, in
/// whatever way), then stops the server and removes its folder.
const WATCHDOG: &str = r#"trap '' INT TERM HUP
dir=$1; shift
"$@" >"$dir/log" 2>&1 &
server=$!
cat >/dev/null
kill -QUIT $server 2>/dev/null
wait $server
[ -e "$dir/stopped" ] || rm -rf "$dir""#;

/// What outlives a crash of the machine is nobody's concern here, and a vacuum that wakes for each of hundreds of
/// databases nobody's help.
const SETTINGS: &[&str] = &[
    "listen_addresses=127.0.0.1",
    "max_connections=200",
    "fsync=off",
    "full_page_writes=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "max_wal_size=8GB",
    "checkpoint_timeout=1h",
    "autovacuum=off",
    "jit=off",
];

/// A PostgreSQL server on a free port of 127.0.0.1. Dropping it, or the end of the test process,
/// stops it and removes its data.
#[derive(Debug)]
pub struct PostgresServer {
    /// `postgres://…` without a database's name; where that name goes stands `{}`.
    address: String,
    /// Ends once its standard input is closed, and the server with it.
    watchdog: Option<Child>,
    /// Where its data lie, and the words that start it.
    folder: PathBuf,
    words: Vec<OsString>,
    /// Databases that were made, of those that long forms have not dropped yet.
    made: Mutex<VecDeque<String>>,
}

/// Certificates for a server that is called `localhost`, and an authority that signed them.
#[derive(Debug)]
pub struct Certificates {
    folder: tempfile::TempDir,
}

impl PostgresServer {
    /// The server of this test process: the one at `LEVIN_TEST_POSTGRES_URL` (a superuser's address)
    /// when that is set, else one that is started from the newest installed binaries.
    ///
    /// # Panics
    /// When no server can be started, saying what is missing.
    pub fn start() -> &'static Self {
        static SERVER: OnceLock<PostgresServer> = OnceLock::new();
        SERVER.get_or_init(|| match std::env::var("LEVIN_TEST_POSTGRES_URL") {
            Ok(url) => Self {
                address: with_database_open(&url),
                watchdog: None,
                folder: PathBuf::new(),
                words: Vec::new(),
                made: Mutex::default(),
            },
            Err(_) => Self::launch(None),
        })
    }

    /// A server of the caller's own, with TLS when it is given certificates.
    ///
    /// # Panics
    /// As [`PostgresServer::start`].
    pub fn launch(certificates: Option<&Certificates>) -> Self {
        Self::launch_with(SETTINGS, certificates)
    }

    /// A server as it is installed, but that it does not wait for its disk: what benchmarks measure against.
    ///
    /// # Panics
    /// As [`PostgresServer::start`].
    pub fn launch_as_installed() -> Self {
        Self::launch_with(&["listen_addresses=127.0.0.1", "fsync=off"], None)
    }

    fn launch_with(settings: &[&str], certificates: Option<&Certificates>) -> Self {
        let binaries = binaries();
        let owner = owner();
        let folder =
            tempfile::Builder::new().prefix("levin-pg-").tempdir().expect("a temporary folder").keep();
        if let Some((uid, gid)) = owner {
            chown(&folder, Some(uid), Some(gid)).expect("give the folder to the user postgres");
        }
        let data = folder.join("data");
        let as_owner = |program: &str| {
            let program = binaries.join(program);
            match owner {
                None => Command::new(program),
                Some(_) => {
                    let mut command = Command::new("setpriv");
                    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(program);
                    command
                }
            }
        };
        let initialised = as_owner("initdb")
            .arg("-D")
            .arg(&data)
            .args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync"])
            .output()
            .expect("run initdb");
        assert!(initialised.status.success(), "initdb: {}", String::from_utf8_lossy(&initialised.stderr));
        let rules = format!(
            "local all all trust\nhost all {PASSWORD_ROLE} all scram-sha-256\nhost all all 127.0.0.1/32 trust\n"
        );
        fs::write(data.join("pg_hba.conf"), rules).expect("write pg_hba.conf");
        if let Some(certificates) = certificates {
            for name in ["server.crt", "server.key"] {
                let to = data.join(name);
                fs::copy(certificates.folder.path().join(name), &to).expect("copy a certificate");
                if let Some((uid, gid)) = owner {
                    chown(&to, Some(uid), Some(gid)).expect("give the certificate to the user postgres");
                }
            }
        }
        // Another process may take the port between our asking and the server's.
        for _ in 0..5 {
            let port = free_port();
            let mut server = as_owner("postgres");
            server.arg("-D").arg(&data).arg("-k").arg(&folder).args(["-p", &port.to_string()]);
            for setting in settings {
                server.args(["-c", setting]);
            }
            if certificates.is_some() {
                server.args(["-c", "ssl=on"]);
            }
            let words: Vec<OsString> =
                std::iter::once(server.get_program()).chain(server.get_args()).map(OsString::from).collect();
            let mut watchdog = watched(&folder, &words);
            if answers(&binaries, port) {
                let address = format!("postgres://postgres@127.0.0.1:{port}/{{}}");
                return Self { address, watchdog: Some(watchdog), folder, words, made: Mutex::default() };
            }
            let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
            assert!(log.contains("Address already in use"), "the server does not start:\n{log}");
            let _ = watchdog.kill();
            let _ = watchdog.wait();
        }
        panic!("no free port was found for a PostgreSQL server");
    }

    /// Stops a server of the caller's own without a word to its clients, and starts it again after so long.
    ///
    /// # Panics
    /// When it does not come back, or is not the caller's own.
    pub fn restart(&mut self, after: Duration) {
        let mark = self.folder.join("stopped");
        fs::write(&mark, "").expect("leave a mark");
        let mut watchdog = self.watchdog.take().expect("a server that was launched");
        drop(watchdog.stdin.take());
        watchdog.wait().expect("the server stops");
        std::thread::sleep(after);
        fs::remove_file(&mark).expect("take the mark away");
        self.watchdog = Some(watched(&self.folder, &self.words));
        assert!(answers(&binaries(), self.port()), "the server does not come back");
    }

    /// Where a server of the caller's own listens on 127.0.0.1.
    ///
    /// # Panics
    /// When its address has no port.
    pub fn port(&self) -> u16 {
        let (_, rest) = self.address.rsplit_once(':').expect("a port");
        rest.split('/').next().and_then(|port| port.parse().ok()).expect("a port")
    }

    /// The address of a database of this server, for a superuser.
    pub fn url(&self, database: &str) -> String {
        self.address.replace("{}", database)
    }

    /// The address of a new, empty database.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn fresh_database(&self) -> String {
        self.database_with("")
    }

    /// The address of a new, empty database that takes its text as it comes, valid UTF-8 or not.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn database_of_bytes(&self) -> String {
        self.database_with("encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C' template template0")
    }

    fn database_with(&self, options: &str) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_micros());
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("levin_{}_{number}_{now}", std::process::id());
        self.run("postgres", &format!("create database {name} {options}"));
        // An hour of tests makes thousands, and they may lie in memory.
        if crate::seeds::is_long() {
            let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            made.push_back(name.clone());
            let old = if made.len() > KEPT_DATABASES { made.pop_front() } else { None };
            drop(made);
            if let Some(old) = old {
                self.run("postgres", &format!("drop database if exists {old} with (force)"));
            }
        }
        self.url(&name)
    }

    /// Runs statements in one of the server's databases as superuser.
    ///
    /// # Panics
    /// When one of them fails.
    pub fn run(&self, database: &str, statements: &str) {
        run(&self.url(database), statements);
    }
}

/// Runs statements at an address, without TLS.
///
/// # Panics
/// When one of them fails.
pub fn run(url: &str, statements: &str) {
    connected(url, statements, async |client| client.batch_execute(statements).await);
}

/// The first column of a SELECT, which must be text.
///
/// # Panics
/// When the statement fails.
pub fn texts(url: &str, select: &str) -> Vec<Option<String>> {
    let rows = connected(url, select, async |client| client.query(select, &[]).await);
    rows.iter().map(|row| row.get(0)).collect()
}

/// A connection that stays open, with the locks that its statements took, until it is dropped.
#[derive(Debug)]
pub struct OpenConnection {
    client: tokio_postgres::Client,
    runtime: tokio::runtime::Runtime,
}

impl OpenConnection {
    /// Connects without TLS and runs statements.
    ///
    /// # Panics
    /// When one of them fails.
    pub fn after(url: &str, statements: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let client = runtime.block_on(async {
            let (client, connection) =
                tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("a connection");
            tokio::spawn(connection);
            client.batch_execute(statements).await.unwrap_or_else(|e| panic!("{statements}: {e}"));
            client
        });
        Self { client, runtime }
    }

    /// Runs statements.
    ///
    /// # Panics
    /// When one of them fails.
    pub fn run(&self, statements: &str) {
        let done = self.runtime.block_on(self.client.batch_execute(statements));
        done.unwrap_or_else(|e| panic!("{statements}: {e}"));
    }
}

/// Rows of a SELECT, each column as text.
///
/// # Panics
/// When the statement fails.
pub fn query(url: &str, select: &str) -> Vec<Vec<Option<String>>> {
    queries(url, &[select]).remove(0)
}

/// The same of several statements, one after another on one connection.
///
/// # Panics
/// When one of them fails.
pub fn queries(url: &str, statements: &[&str]) -> Vec<Vec<Vec<Option<String>>>> {
    connected(url, "statements", async |client| {
        let mut answers = Vec::new();
        for statement in statements {
            let messages = client.simple_query(statement).await;
            let messages = messages.unwrap_or_else(|e| panic!("{statement}: {e:?}"));
            let cells =
                |row: &SimpleQueryRow| (0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect();
            let rows = messages.iter().filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(cells(row)),
                _ => None,
            });
            answers.push(rows.collect());
        }
        Ok(answers)
    })
}

/// Does something with a connection of its own.
fn connected<T: Send>(
    url: &str,
    what: &str,
    act: impl AsyncFnOnce(&tokio_postgres::Client) -> Result<T, tokio_postgres::Error> + Send,
) -> T {
    // A thread of its own, so that it works inside and outside of an asynchronous test.
    std::thread::scope(|scope| {
        let ran = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
                let connection = tokio::spawn(connection);
                let done = act(&client).await?;
                drop(client);
                let _ = connection.await;
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(done)
            })
        });
        ran.join().expect("no panic").unwrap_or_else(|e| panic!("{what}: {e:?}"))
    })
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if let Some(mut watchdog) = self.watchdog.take() {
            drop(watchdog.stdin.take());
            let _ = watchdog.wait();
        }
    }
}

impl Certificates {
    /// Makes new ones with the command `openssl`.
    ///
    /// # Panics
    /// When there is no such command.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let openssl = |arguments: &[&str]| {
            let ran = Command::new("openssl")
                .args(arguments)
                .current_dir(&folder)
                .output()
                .expect("the command openssl is needed for tests of TLS");
            assert!(ran.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
        };
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        for authority in ["ca", "other"] {
            let subject = format!("/CN=levin test authority {authority}");
            let (key_file, out) = (format!("{authority}.key"), format!("{authority}.pem"));
            let rest = ["-subj", &subject, "-days", "2", "-keyout", &key_file, "-out", &out];
            openssl(&[&["req", "-x509"], &key[..], &rest[..]].concat());
        }
        let request = ["-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr"];
        openssl(&[&["req", "-new"], &key[..], &request[..]].concat());
        fs::write(
            folder.path().join("extensions"),
            "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n",
        )
        .expect("write the extensions");
        let sign = "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
                    -extfile extensions -out server.crt";
        openssl(&sign.split_whitespace().collect::<Vec<_>>());
        Self { folder }
    }

    /// The authority that signed the server's certificate.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The server's certificate itself.
    pub fn server(&self) -> PathBuf {
        self.folder.path().join("server.crt")
    }

    /// An authority that did not.
    pub fn other_authority(&self) -> PathBuf {
        self.folder.path().join("other.pem")
    }
}

impl Default for Certificates {
    fn default() -> Self {
        Self::new()
    }
}

/// Starts a server that ends with this process.
pub(crate) fn watched(folder: &Path, words: &[OsString]) -> Child {
    Command::new("sh")
        .args(["-c", WATCHDOG, "sh"])
        .arg(folder)
        .args(words)
        .stdin(Stdio::piped())
        .spawn()
        .expect("start a shell")
}

/// The folder with the newest server's programs.
fn binaries() -> PathBuf {
    let has_server = |folder: &Path| folder.join("postgres").is_file() && folder.join("initdb").is_file();
    let mut installed: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, folder)| has_server(folder))
        .collect();
    installed.sort();
    if let Some((_, newest)) = installed.pop() {
        return newest;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).find(|folder| has_server(folder)).unwrap_or_else(|| {
        panic!(
            "these tests need a PostgreSQL server: install one (initdb and postgres are looked for in \
             /usr/lib/postgresql/*/bin and in PATH), or set LEVIN_TEST_POSTGRES_URL to a superuser's address"
        )
    })
}

/// The user and group that the server runs as, when we are root: it refuses to be.
fn owner() -> Option<(u32, u32)> {
    user("postgres")
}

/// The numbers of a user and its group, as whom a server runs that does not run as root.
pub(crate) fn user(name: &str) -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let id = |flag: &str| {
        let answer = Command::new("id").args([flag, name]).output().ok()?;
        String::from_utf8(answer.stdout).ok()?.trim().parse().ok()
    };
    let ids = id("-u").zip(id("-g"));
    assert!(ids.is_some(), "the server does not run as root, and there is no user {name} to run it as");
    ids
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

fn answers(binaries: &Path, port: u16) -> bool {
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        let asked = Command::new(binaries.join("pg_isready"))
            .args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()])
            .status()
            .expect("run pg_isready");
        match asked.code() {
            Some(0) => return true,
            _ => std::thread::sleep(Duration::from_millis(30)),
        }
    }
    false
}

/// The address with `{}` where it names its database.
fn with_database_open(url: &str) -> String {
    let (address, query) = url.split_once('?').map_or((url, String::new()), |(a, q)| (a, format!("?{q}")));
    let (scheme, rest) = address.split_once("://").expect("LEVIN_TEST_POSTGRES_URL is an address");
    let authority = rest.split('/').next().unwrap_or(rest);
    format!("{scheme}://{authority}/{{}}{query}")
}
