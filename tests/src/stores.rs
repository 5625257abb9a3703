//! Doubles of object stores: moto stands for S3, azurite for Azure Blob Storage. Each is started once for a test
//! process, and ends with it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use object_store::aws::{AmazonS3, AmazonS3Builder};

/// How long a double may take to start.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// Runs the server until the test process has closed its end of the pipe, by ending in whatever way.
pub(crate) const WATCHDOG: &str = r#"trap '' INT TERM HUP
"$@" >/dev/null 2>&1 &
server=$!
cat >/dev/null
kill -KILL $server 2>/dev/null
wait $server 2>/dev/null"#;

/// The key of azurite's only account, which everybody knows.
pub const AZURE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
/// The name of that account.
pub const AZURE_ACCOUNT: &str = "devstoreaccount1";

/// A server that stands for an object store.
#[derive(Debug)]
pub struct StoreDouble {
    address: SocketAddr,
    // Ends once its standard input is closed, and the server with it.
    _watchdog: Child,
}

impl StoreDouble {
    /// The double of S3: moto, which looks at no credentials.
    ///
    /// # Panics
    /// When it is not installed, or does not start.
    pub fn s3() -> &'static Self {
        static SERVER: OnceLock<StoreDouble> = OnceLock::new();
        SERVER.get_or_init(|| {
            let python = installed("LEVIN_MOTO", "moto-5.2.1").join("bin/python");
            Self::launch(|port| {
                let mut command = vec![python.to_string_lossy().into_owned()];
                command.extend(["-m", "moto.server", "-H", "127.0.0.1", "-p"].map(String::from));
                command.push(port.to_string());
                command
            })
        })
    }

    /// The double of Azure Blob Storage: azurite, which checks signatures.
    ///
    /// # Panics
    /// As [`StoreDouble::s3`].
    pub fn azure() -> &'static Self {
        static SERVER: OnceLock<StoreDouble> = OnceLock::new();
        SERVER.get_or_init(|| {
            let main = installed("LEVIN_AZURITE", "azurite-3.35.0")
                .join("node_modules/azurite/dist/src/blob/main.js");
            assert!(main.is_file(), "{} is missing; `./test` installs it", main.display());
            Self::launch(|port| {
                let main = main.to_string_lossy();
                let port = port.to_string();
                let options =
                    ["--skipApiVersionCheck", "--inMemoryPersistence", "--silent", "--disableTelemetry"];
                ["node", &main, "--blobHost", "127.0.0.1", "--blobPort", &port]
                    .into_iter()
                    .chain(options)
                    .map(str::to_owned)
                    .collect()
            })
        })
    }

    fn launch(command: impl Fn(u16) -> Vec<String>) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its address");
        let mut watchdog = Command::new("sh");
        watchdog.args(["-c", WATCHDOG, "sh"]).args(command(free.port()));
        watchdog.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let watchdog = watchdog.spawn().expect("start the double");
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(free).is_err() {
            assert!(Instant::now() < deadline, "{:?} does not answer", command(free.port()));
            std::thread::sleep(Duration::from_millis(50));
        }
        Self { address: free, _watchdog: watchdog }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:…`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A bucket of S3's double, for a test to look into.
    ///
    /// # Panics
    /// When the client cannot be built.
    pub fn bucket(&self, name: &str) -> AmazonS3 {
        AmazonS3Builder::new()
            .with_bucket_name(name)
            .with_region("eu-central-1")
            .with_endpoint(self.url())
            .with_access_key_id("key")
            .with_secret_access_key("secret")
            .with_allow_http(true)
            .build()
            .expect("a client")
    }

    /// Makes a bucket of S3's double.
    ///
    /// # Panics
    /// When it does not come about.
    pub fn make_bucket(&self, name: &str) {
        let mut stream = TcpStream::connect(self.address).expect("the double answers");
        let request = format!(
            "PUT /{name} HTTP/1.1\r\nhost: {}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            self.address
        );
        stream.write_all(request.as_bytes()).expect("send the request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("read the answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    /// Makes a container of Azure's double, with a request that is signed as its protocol asks.
    ///
    /// # Panics
    /// When it does not come about.
    pub fn make_container(&self, name: &str) {
        const SCRIPT: &str = r"
            const [port, account, key, name] = process.argv.slice(1);
            const date = new Date().toUTCString(), version = '2021-12-02';
            const canonical = `x-ms-date:${date}\nx-ms-version:${version}\n/${account}/${account}/${name}\nrestype:container`;
            const text = ['PUT', '', '', '', '', '', '', '', '', '', '', '', canonical].join('\n');
            const signature = require('crypto').createHmac('sha256', Buffer.from(key, 'base64')).update(text).digest('base64');
            require('http').request({ host: '127.0.0.1', port, method: 'PUT', path: `/${account}/${name}?restype=container`,
                headers: { 'x-ms-date': date, 'x-ms-version': version, 'content-length': 0,
                    authorization: `SharedKey ${account}:${signature}` } },
                answer => { console.log(answer.statusCode); process.exit(answer.statusCode === 201 ? 0 : 1); }).end();";
        let port = self.address.port().to_string();
        let made =
            Command::new("node").args(["-e", SCRIPT, "--", &port, AZURE_ACCOUNT, AZURE_KEY, name]).output();
        let made = made.expect("node runs");
        assert!(made.status.success(), "{made:?}");
    }
}

/// The folder that a variable names, else the one in the cache where `./test` installs it.
pub fn installed(variable: &str, folder: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home).expect("a cache");
    let path = cache.join("levin").join(folder);
    assert!(
        path.join("complete").exists(),
        "{variable} is not set and {folder} is not installed; `./test` installs it"
    );
    path
}
