//! Snowflake's double: fakesnow behind a service of our own (`doubles/snowflake_service.py`), which says what
//! Snowflake's service says over the wire. It is started once for a test process, and ends with it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::stores::{PATIENCE, WATCHDOG, installed};

/// The account that users of the double belong to.
pub const ACCOUNT: &str = "tests.eu-central-1";
/// The password of a new user.
pub const PASSWORD: &str = "correct-horse";

/// A server that stands for Snowflake.
#[derive(Debug)]
pub struct SnowflakeDouble {
    address: SocketAddr,
    // Ends once its standard input is closed, and the server with it.
    _watchdog: Child,
}

/// A user of the double with a database of its own: what one test does, no other sees.
#[derive(Debug, Clone)]
pub struct SnowflakeUser {
    address: SocketAddr,
    /// What it logs in as.
    pub name: String,
    /// Its database.
    pub database: String,
}

impl SnowflakeDouble {
    /// The process's own double.
    ///
    /// # Panics
    /// When it is not installed, or does not start.
    pub fn start() -> &'static Self {
        static SERVER: OnceLock<SnowflakeDouble> = OnceLock::new();
        SERVER.get_or_init(|| {
            let python = installed("LEVIN_FAKESNOW", "fakesnow-0.12.1").join("bin/python");
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("doubles/snowflake_service.py");
            let free =
                TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its address");
            let mut watchdog = Command::new("sh");
            watchdog.args(["-c", WATCHDOG, "sh"]).arg(&python).arg(&script).arg(free.port().to_string());
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
                std::thread::sleep(Duration::from_millis(50));
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

    /// Runs a script of `doubles/` with the Python that the double runs on; what it wrote, and whether it went well.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn script(&self, name: &str, arguments: &[&str]) -> (bool, String) {
        let python = installed("LEVIN_FAKESNOW", "fakesnow-0.12.1").join("bin/python");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("doubles").join(name);
        let port = self.address.port().to_string();
        let ended = Command::new(python).arg(script).arg(port).args(arguments).output().expect("Python runs");
        let said = String::from_utf8_lossy(&ended.stdout) + String::from_utf8_lossy(&ended.stderr);
        (ended.status.success(), said.into_owned())
    }

    /// A user whom no other test knows, with an empty database and its schema PUBLIC.
    ///
    /// # Panics
    /// When the double does not answer.
    pub fn fresh_user(&self) -> SnowflakeUser {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let user = SnowflakeUser {
            address: self.address,
            name: format!("USER_{number}"),
            database: format!("DATABASE_{number}"),
        };
        user.set(&json!({"password": PASSWORD, "database": user.database}));
        user
    }

    /// A key pair in PEM, the private key encrypted with the given cipher of PKCS#8 when there is a passphrase.
    ///
    /// # Panics
    /// When the double does not answer.
    pub fn key_pair(&self, encrypted: Option<(&str, &str)>) -> (String, String) {
        let wanted =
            encrypted.map(|(cipher, passphrase)| json!({"cipher": cipher, "passphrase": passphrase}));
        let made = post(self.address, "/double/keys", &wanted.unwrap_or_else(|| json!({})));
        let part = |name: &str| made[name].as_str().expect("a PEM").to_owned();
        (part("private"), part("public"))
    }
}

impl SnowflakeUser {
    /// A source's file for this user, who logs in with the password.
    pub fn source(&self) -> Value {
        json!({
            "type": "snowflake", "account": ACCOUNT, "host": format!("http://{}", self.address), "user": self.name,
            "auth": {"password": PASSWORD}, "warehouse": "LEVIN_WH", "database": self.database, "schema": "PUBLIC",
        })
    }

    /// Changes how the user is served; the names are those of the class `User` in the double.
    ///
    /// # Panics
    /// When the double does not answer, or does not know a name.
    pub fn set(&self, settings: &Value) -> Value {
        post(self.address, &format!("/double/users/{}", self.name), settings)
    }

    /// What the double knows of the user: logins, statements, how often each path was asked, open sessions.
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
