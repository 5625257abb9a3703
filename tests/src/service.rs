//! The real `levin serve`, and whoever asks it over HTTP.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::process::levin_binary;
use crate::project::Project;

/// The longest that a test waits for something to come true.
const PATIENCE: Duration = Duration::from_secs(120);

/// A `levin serve` on a port of its own; killed when dropped.
#[derive(Debug)]
pub struct Served {
    child: Child,
    /// `http://127.0.0.1:…`
    pub url: String,
    said: Arc<Mutex<String>>,
    runtime: tokio::runtime::Runtime,
    client: reqwest::Client,
}

/// What was answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub text: String,
    /// The body as JSON; null when it is none.
    pub json: Value,
}

/// A question that is not asked yet.
#[derive(Debug)]
pub struct Question<'a> {
    served: &'a Served,
    request: reqwest::RequestBuilder,
}

impl Served {
    /// Starts the service of a project on a free port, and waits until it listens. It logs what it does (`-v`).
    ///
    /// # Panics
    /// When it does not.
    pub fn start(project: &Project) -> Self {
        Self::start_with(project, &[])
    }

    /// The same, with more arguments.
    ///
    /// # Panics
    /// When it does not listen.
    pub fn start_with(project: &Project, arguments: &[&str]) -> Self {
        Self::begin(project, &[&["serve", "-v", "--listen", "127.0.0.1:0"], arguments].concat())
    }

    /// The same, where the project says that it listens.
    ///
    /// # Panics
    /// When it does not listen.
    pub fn start_as_configured(project: &Project) -> Self {
        Self::begin(project, &["serve"])
    }

    fn begin(project: &Project, arguments: &[&str]) -> Self {
        let mut command = project.command_of(levin_binary(), &[], arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("start levin");
        let stderr = BufReader::new(child.stderr.take().expect("standard error is piped"));
        let said = Arc::new(Mutex::new(String::new()));
        let (tell, address) = mpsc::channel();
        let all = said.clone();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if let Some(rest) = line.split("listening on ").nth(1) {
                    let _ = tell.send(rest.split_whitespace().next().unwrap_or_default().to_owned());
                }
                let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                all.push_str(&line);
                all.push('\n');
            }
        });
        let Ok(url) = address.recv_timeout(PATIENCE) else {
            let _ = child.kill();
            panic!("levin does not listen: {}", said.lock().unwrap_or_else(PoisonError::into_inner));
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { child, url, said, runtime, client: reqwest::Client::new() }
    }

    /// What it has said on standard error so far.
    pub fn said(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it has said this.
    ///
    /// # Panics
    /// When it does not.
    pub fn hears(&self, words: &str) {
        until(words, || self.said().contains(words).then_some(()));
    }

    /// Has it read the project again, and waits until it did or told why not.
    ///
    /// # Panics
    /// When it does neither.
    pub fn reload(&self) {
        let reads = || {
            let said = self.said();
            said.matches("the project was read again").count()
                + said.matches("the project is wrong now").count()
        };
        let before = reads();
        self.signal(Signal::HUP);
        until("the project is read again", || (reads() > before).then_some(()));
    }

    /// Begins a question: a method and a path, such as `GET` and `/api/v1/syncs`.
    ///
    /// # Panics
    /// For what is no method.
    pub fn ask(&self, method: &str, path: &str) -> Question<'_> {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        Question { served: self, request: self.client.request(method, format!("{}{path}", self.url)) }
    }

    /// Asks with GET and a key.
    pub fn get(&self, key: &str, path: &str) -> Answer {
        self.ask("GET", path).key(key).send()
    }

    /// Asks with POST, a key and JSON.
    pub fn post(&self, key: &str, path: &str, body: &Value) -> Answer {
        self.ask("POST", path).key(key).json(body).send()
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it has ended.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it still runs");
    }

    /// Asks it to end and waits until it has; returns the exit code.
    ///
    /// # Panics
    /// When it does not end.
    pub fn stop(self) -> i32 {
        self.signal(Signal::TERM);
        self.ended()
    }

    /// Waits for its end, which was asked for; returns the exit code.
    ///
    /// # Panics
    /// When it does not end.
    pub fn ended(mut self) -> i32 {
        let ended = until("levin ends", || self.child.try_wait().expect("its state"));
        ended.code().unwrap_or(-1)
    }

    /// Ends it as a crash would.
    pub fn kill(self) {}

    /// Waits until the last run of a sync has ended, and returns it as the API shows it.
    ///
    /// # Panics
    /// When it does not end.
    pub fn ended_run(&self, key: &str, sync: u64, run: &str) -> Value {
        until("the run ends", || {
            let runs = self.get(key, &format!("/api/v1/syncs/{sync}/runs?runId={run}"));
            assert_eq!(runs.status, 200, "{runs:?}");
            let run = runs.json["data"][0].clone();
            let words = ["queued", "querying", "processing", "reporting"];
            let status = run["status"].as_str().unwrap_or_default();
            (!status.is_empty() && !words.contains(&status)).then_some(run)
        })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Question<'_> {
    /// With a key.
    #[must_use]
    pub fn key(self, key: &str) -> Self {
        self.header("authorization", &format!("Bearer {key}"))
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    /// With JSON.
    #[must_use]
    pub fn json(self, body: &Value) -> Self {
        self.body("application/json", &body.to_string())
    }

    /// With a body of that media type.
    #[must_use]
    pub fn body(mut self, media_type: &str, body: &str) -> Self {
        self.request = self.request.header("content-type", media_type).body(body.to_owned());
        self
    }

    /// Asks.
    ///
    /// # Panics
    /// When nothing is answered.
    pub fn send(self) -> Answer {
        let served = self.served;
        served.runtime.block_on(async {
            let response = self.request.send().await.unwrap_or_else(|e| panic!("{e:?}: {}", served.said()));
            let status = response.status().as_u16();
            let headers = response.headers().iter();
            let headers = headers.map(|(name, value)| {
                (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
            });
            let headers = headers.collect();
            let text = response.text().await.expect("a body");
            let json = serde_json::from_str(&text).unwrap_or_default();
            Answer { status, headers, text, json }
        })
    }
}

impl Answer {
    /// A header; empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

impl Project {
    /// Makes a key of the API.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn key(&self, name: &str, scope: &str) -> String {
        let made = self.levin(&["keys", "create", name, "--scope", scope, "--json"]);
        assert_eq!(made.code, 0, "{made:?}");
        let line: Value = serde_json::from_str(&made.stdout).expect("a line of JSON");
        line["key"].as_str().expect("a key").to_owned()
    }
}

/// Asks again and again until there is an answer.
///
/// # Panics
/// When there is none for two minutes.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "waited for nothing: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
