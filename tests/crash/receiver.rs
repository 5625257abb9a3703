//! An HTTP receiver that applies what it is sent, remembers every request, and misbehaves as told.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use serde_json::{Value, json};

/// What the receiver does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Applies its rows, refuses those that are bad, and answers.
    Accept,
    /// Answers 500 and applies nothing.
    Fail,
    /// Applies the rows and answers 500.
    ApplyAndFail,
    /// Applies the rows and closes the connection.
    ApplyAndHangUp,
    /// Closes the connection and applies nothing.
    HangUp,
    /// Applies the rows and answers once [`Receiver::release`] is called.
    Hold,
}

/// One row of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub key: i64,
    pub version: String,
    pub fields: Value,
    /// The receiver took it.
    pub applied: bool,
    /// The key was there when a removal of it came.
    pub was_there: bool,
}

/// One request, in the order in which they came.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub run: i64,
    pub generation: i64,
    pub operation: String,
    pub answer: Answer,
    pub rows: Vec<Row>,
}

type Behaviour = Box<dyn FnMut(&Request) -> Answer + Send>;

struct Inner {
    content: BTreeMap<i64, Value>,
    requests: Vec<Request>,
    behaviour: Behaviour,
    held: usize,
    released: bool,
}

struct Shared {
    inner: Mutex<Inner>,
    changed: Condvar,
}

/// A receiver on a free port of 127.0.0.1. Its threads end with the test process.
#[derive(Clone)]
pub struct Receiver {
    shared: Arc<Shared>,
    port: u16,
}

/// Rows whose `email` begins so are refused.
pub const BAD: &str = "bad";

impl Receiver {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let inner = Inner {
            content: BTreeMap::new(),
            requests: Vec::new(),
            behaviour: Box::new(|_| Answer::Accept),
            held: 0,
            released: false,
        };
        let shared = Arc::new(Shared { inner: Mutex::new(inner), changed: Condvar::new() });
        let receiver = Self { shared, port };
        let accepting = receiver.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = accepting.clone();
                // Whoever kills the client breaks its connections: that is no trouble of the receiver.
                std::thread::spawn(move || drop(serving.serve(stream)));
            }
        });
        receiver
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on requests are answered so.
    pub fn behave(&self, behaviour: impl FnMut(&Request) -> Answer + Send + 'static) {
        self.inner().behaviour = Box::new(behaviour);
    }

    pub fn content(&self) -> BTreeMap<i64, Value> {
        self.inner().content.clone()
    }

    pub fn requests(&self) -> Vec<Request> {
        self.inner().requests.clone()
    }

    /// Waits until so many requests are held back.
    pub fn wait_for_held(&self, count: usize) {
        let mut inner = self.inner();
        while inner.held < count {
            inner = self.shared.changed.wait(inner).expect("the receiver's lock");
        }
    }

    /// Lets all held requests have their answers, now and in future.
    pub fn release(&self) {
        self.inner().released = true;
        self.shared.changed.notify_all();
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.shared.inner.lock().expect("the receiver's lock")
    }

    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut stream = stream;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let mut length = 0;
            loop {
                let mut header = String::new();
                if reader.read_line(&mut header)? == 0 {
                    return Ok(());
                }
                let header = header.trim().to_ascii_lowercase();
                if header.is_empty() {
                    break;
                }
                if let Some(value) = header.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap_or(0);
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            let body: Value = serde_json::from_slice(&body).expect("levin sends JSON");
            let Some((status, answer)) = self.take(&body) else { return Ok(()) };
            let answer = answer.to_string();
            write!(
                stream,
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{answer}",
                answer.len()
            )?;
            stream.flush()?;
        }
    }

    /// Takes a request; `None` closes the connection.
    fn take(&self, body: &Value) -> Option<(&'static str, Value)> {
        let mut request = read(body);
        let mut inner = self.inner();
        request.answer = (inner.behaviour)(&request);
        let mut rejected = Vec::new();
        let applies = !matches!(request.answer, Answer::Fail | Answer::HangUp);
        for row in &mut request.rows {
            let removal = request.operation == "removed";
            row.was_there = inner.content.contains_key(&row.key);
            if !removal && is_bad(&row.fields) {
                rejected.push(json!({"key": row.key.to_string(), "reason": "a bad address"}));
            } else if applies {
                row.applied = true;
                if removal {
                    inner.content.remove(&row.key);
                } else {
                    inner.content.insert(row.key, row.fields.clone());
                }
            }
        }
        let answer = request.answer;
        inner.requests.push(request);
        match answer {
            Answer::Fail | Answer::ApplyAndFail => Some(("500 Internal Server Error", json!({}))),
            Answer::HangUp | Answer::ApplyAndHangUp => None,
            Answer::Accept => Some(("200 OK", json!({"rejected": rejected}))),
            Answer::Hold => {
                inner.held += 1;
                self.shared.changed.notify_all();
                while !inner.released {
                    inner = self.shared.changed.wait(inner).expect("the receiver's lock");
                }
                Some(("200 OK", json!({"rejected": rejected})))
            }
        }
    }
}

pub fn is_bad(fields: &Value) -> bool {
    fields["email"].as_str().is_some_and(|email| email.starts_with(BAD))
}

fn read(body: &Value) -> Request {
    let rows = body["rows"].as_array().expect("rows");
    Request {
        run: body["run"].as_i64().expect("a run"),
        generation: body["generation"].as_i64().expect("a generation"),
        operation: body["operation"].as_str().expect("an operation").to_owned(),
        answer: Answer::Accept,
        rows: rows
            .iter()
            .map(|row| Row {
                key: row["key"].as_str().and_then(|key| key.parse().ok()).expect("a key"),
                version: row["version"].as_str().expect("a version").to_owned(),
                fields: row["fields"].clone(),
                applied: false,
                was_there: false,
            })
            .collect(),
    }
}
