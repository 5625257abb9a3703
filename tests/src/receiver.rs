//! A real HTTP server that receives rows: it records every request, keeps what it applied, and does
//! what a test tells it to.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a test waits for a request before it gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// An HTTP server on a free port of 127.0.0.1, which lives as long as the test process.
#[derive(Clone)]
pub struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
}

type Behaviour = Box<dyn FnMut(&Request) -> Reply + Send>;

struct Shared {
    state: Mutex<State>,
    arrived: Condvar,
}

struct State {
    behaviour: Behaviour,
    requests: Vec<Request>,
    rows: BTreeMap<String, Value>,
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its place among all requests, from 0.
    pub number: usize,
    /// `POST`, `PUT` …
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// Headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body as it was written.
    pub text: String,
    /// The body as JSON; null when it is none.
    pub body: Value,
    /// Keys of the rows that an answer with 2xx took, once that answer was written.
    pub accepted: Vec<String>,
    /// Keys of the rows that were applied, whatever was answered.
    pub applied: BTreeSet<String>,
    /// Those of its keys whose rows were there when it came.
    pub held: BTreeSet<String>,
}

impl Request {
    /// The rows of the body.
    pub fn rows(&self) -> &[Value] {
        self.body["rows"].as_array().map_or(&[], Vec::as_slice)
    }

    /// The keys of the rows.
    pub fn keys(&self) -> Vec<String> {
        self.rows().iter().map(|r| r["key"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Whether a row with this key is among them.
    pub fn has(&self, key: &str) -> bool {
        self.rows().iter().any(|r| r["key"] == key)
    }

    /// `added`, `changed` or `removed`.
    pub fn operation(&self) -> &str {
        self.body["operation"].as_str().unwrap_or_default()
    }

    /// The generation of the run that sent it.
    pub fn generation(&self) -> i64 {
        self.body["generation"].as_i64().unwrap_or_default()
    }
}

/// What the receiver does with a request: which rows it applies, then whether it waits, then what it
/// answers.
#[derive(Debug, Clone)]
pub struct Reply {
    refused: BTreeSet<String>,
    applies: bool,
    hold: Option<Hold>,
    answer: Option<(u16, Vec<(String, String)>, String)>,
    /// Only the first half of the answer's body is written, then so long nothing, then the connection ends.
    breaks_off: Option<Duration>,
}

impl Reply {
    /// Applies every row and answers 200.
    pub fn accept() -> Self {
        Self {
            refused: BTreeSet::new(),
            applies: true,
            hold: None,
            answer: Some((200, Vec::new(), String::new())),
            breaks_off: None,
        }
    }

    /// Applies every row but these, and lists them as rejected in a JSON answer.
    pub fn reject(keys: &[&str], reason: &str) -> Self {
        let list: Vec<Value> =
            keys.iter().map(|key| serde_json::json!({"key": key, "reason": reason})).collect();
        let body = serde_json::json!({ "rejected": list }).to_string();
        Self::accept().but(keys).header("content-type", "application/json").saying(&body)
    }

    /// Applies nothing and answers with a status.
    pub fn status(status: u16) -> Self {
        Self {
            applies: false,
            answer: Some((status, Vec::new(), format!("status {status}"))),
            ..Self::accept()
        }
    }

    /// Applies every row, and answers with a status that says otherwise.
    pub fn accept_but_answer(status: u16) -> Self {
        Self { applies: true, ..Self::status(status) }
    }

    /// Applies every row, and cuts the connection instead of answering.
    pub fn applied_but_cut() -> Self {
        Self { answer: None, ..Self::accept() }
    }

    /// Reads the request, applies nothing and cuts the connection.
    pub fn cut() -> Self {
        Self { applies: false, answer: None, ..Self::accept() }
    }

    /// Without applying these rows.
    #[must_use]
    pub fn but(mut self, keys: &[&str]) -> Self {
        self.refused = keys.iter().map(|k| (*k).to_owned()).collect();
        self
    }

    /// With another header in the answer.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let Some((_, headers, _)) = &mut self.answer {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// With this text as the answer's body.
    #[must_use]
    pub fn saying(mut self, text: &str) -> Self {
        if let Some((_, _, body)) = &mut self.answer {
            text.clone_into(body);
        }
        self
    }

    /// Breaks off in the middle of the answer's body, after being silent for so long.
    #[must_use]
    pub fn breaking_off(mut self, after: Duration) -> Self {
        self.breaks_off = Some(after);
        self
    }

    /// Waits, after applying, until the hold is released.
    #[must_use]
    pub fn held(mut self, hold: &Hold) -> Self {
        self.hold = Some(hold.clone());
        self
    }
}

/// Keeps answers back until it is released.
#[derive(Debug, Clone, Default)]
pub struct Hold(Arc<(Mutex<Held>, Condvar)>);

#[derive(Debug, Default)]
struct Held {
    answers: usize,
    released: bool,
}

impl Hold {
    /// Lets every answer go that waits for it, now and later.
    pub fn release(&self) {
        self.held().released = true;
        self.0.1.notify_all();
    }

    /// Waits until so many answers were kept back.
    ///
    /// # Panics
    /// When they do not come.
    pub fn wait_for(&self, answers: usize) {
        let few = |held: &mut Held| held.answers < answers;
        let waited = self.0.1.wait_timeout_while(self.held(), PATIENCE, few);
        let (held, waited) = waited.expect("no panic while it is held");
        assert!(!waited.timed_out(), "{} answers were kept back, {answers} were awaited", held.answers);
    }

    fn wait(&self) {
        let mut held = self.held();
        held.answers += 1;
        self.0.1.notify_all();
        drop(self.0.1.wait_while(held, |held| !held.released).expect("no panic while it is held"));
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.0.lock().expect("no panic while it is held")
    }
}

impl Receiver {
    /// A receiver that accepts every row.
    ///
    /// # Panics
    /// When there is no free port.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let state =
            State { behaviour: Box::new(|_| Reply::accept()), requests: Vec::new(), rows: BTreeMap::new() };
        let shared = Arc::new(Shared { state: Mutex::new(state), arrived: Condvar::new() });
        let receiver = Self { address, shared };
        let server = receiver.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = server.clone();
                // A connection that ends in the middle is what some tests are about.
                std::thread::spawn(move || drop(server.serve(stream)));
            }
        });
        receiver
    }

    /// `http://127.0.0.1:…`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on, requests are dealt with like this.
    pub fn behave(&self, behaviour: impl FnMut(&Request) -> Reply + Send + 'static) {
        self.state().behaviour = Box::new(behaviour);
    }

    /// From now on, every row is accepted.
    pub fn accept(&self) {
        self.behave(|_| Reply::accept());
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        self.state().requests.clone()
    }

    /// The requests from this number on.
    pub fn since(&self, number: usize) -> Vec<Request> {
        self.state().requests.iter().skip(number).cloned().collect()
    }

    /// How many requests there were so far.
    pub fn count(&self) -> usize {
        self.state().requests.len()
    }

    /// What was applied and not removed: fields by key.
    pub fn rows(&self) -> BTreeMap<String, Value> {
        self.state().rows.clone()
    }

    /// The keys that were applied and not removed, in the order of text.
    pub fn keys(&self) -> Vec<String> {
        self.state().rows.keys().cloned().collect()
    }

    /// One field of one row; null when there is none.
    pub fn field(&self, key: &str, field: &str) -> Value {
        self.state().rows.get(key).map_or(Value::Null, |row| row[field].clone())
    }

    /// Puts a row there that nobody sent.
    pub fn put(&self, key: &str, fields: Value) {
        self.state().rows.insert(key.to_owned(), fields);
    }

    /// Waits until so many requests have arrived.
    ///
    /// # Panics
    /// When they do not come.
    pub fn wait_for(&self, requests: usize) {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.state();
        while state.requests.len() < requests {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{} requests came, {requests} were awaited", state.requests.len());
            state = self.shared.arrived.wait_timeout(state, left).expect("no panic while it is held").0;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("no panic while it is held")
    }

    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut stream = stream;
        while let Some(request) = read_request(&mut reader)? {
            let (number, reply) = {
                let mut state = self.state();
                let number = state.requests.len();
                let request = Request { number, ..request };
                let reply = (state.behaviour)(&request);
                let mut request = request;
                request.held = request.keys().into_iter().filter(|k| state.rows.contains_key(k)).collect();
                if reply.applies {
                    request.applied = apply(&mut state.rows, &request, &reply.refused);
                }
                state.requests.push(request);
                self.shared.arrived.notify_all();
                (number, reply)
            };
            if let Some(hold) = &reply.hold {
                hold.wait();
            }
            let Some((status, headers, body)) = reply.answer else {
                return stream.shutdown(Shutdown::Both);
            };
            let mut text = format!("HTTP/1.1 {status} Status\r\ncontent-length: {}\r\n", body.len());
            for (name, value) in headers {
                text.push_str(&format!("{name}: {value}\r\n"));
            }
            if (200..300).contains(&status) {
                let mut state = self.state();
                let accepted: Vec<String> = state.requests[number]
                    .keys()
                    .into_iter()
                    .filter(|key| !reply.refused.contains(key))
                    .collect();
                state.requests[number].accepted = accepted;
            }
            if let Some(silence) = reply.breaks_off {
                stream.write_all(format!("{text}\r\n{}", &body[..body.len() / 2]).as_bytes())?;
                std::thread::sleep(silence);
                return stream.shutdown(Shutdown::Both);
            }
            stream.write_all(format!("{text}\r\n{body}").as_bytes())?;
        }
        Ok(())
    }
}

/// Applies every row that is not refused, and tells their keys.
fn apply(
    rows: &mut BTreeMap<String, Value>,
    request: &Request,
    refused: &BTreeSet<String>,
) -> BTreeSet<String> {
    let taken = request.rows().iter().zip(request.keys()).filter(|(_, key)| !refused.contains(key));
    let mut applied = BTreeSet::new();
    if request.operation() == "cleared" {
        rows.clear();
    }
    for (row, key) in taken {
        if request.operation() == "removed" {
            rows.remove(&key);
        } else {
            rows.insert(key.clone(), row["fields"].clone());
        }
        applied.insert(key);
    }
    applied
}

/// The next request; `None` when the connection ends before it is whole.
fn read_request(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let method = words.next().unwrap_or_default().to_owned();
    let path = words.next().unwrap_or_default().to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let text = String::from_utf8_lossy(&body).into_owned();
    let body = serde_json::from_str(&text).unwrap_or(Value::Null);
    let (accepted, applied, held) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    Ok(Some(Request { number: 0, method, path, headers, text, body, accepted, applied, held }))
}
