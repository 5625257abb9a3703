//! The receiver as the crash tests see it: rows with numbers for keys, bad ones among them, and a few
//! ways to misbehave.

use std::collections::BTreeMap;

use serde_json::Value;
use tests::receiver::{self, Hold, Reply};

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
    /// The key was there when the request came.
    pub was_there: bool,
}

/// One request, in the order in which they came.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub generation: i64,
    pub operation: String,
    pub rows: Vec<Row>,
}

/// A receiver that refuses bad rows.
#[derive(Clone)]
pub struct Receiver {
    server: receiver::Receiver,
    hold: Hold,
}

/// The operation of a request that empties the receiver.
pub const CLEARED: &str = "cleared";
static NO_ROWS: Vec<Value> = Vec::new();

/// Rows whose `email` begins so are refused.
pub const BAD: &str = "bad";

impl Receiver {
    pub fn start() -> Self {
        let started = Self { server: receiver::Receiver::start(), hold: Hold::default() };
        started.behave(|_| Answer::Accept);
        started
    }

    pub fn url(&self) -> String {
        self.server.url()
    }

    /// From now on requests are answered so.
    pub fn behave(&self, mut behaviour: impl FnMut(&Request) -> Answer + Send + 'static) {
        let hold = self.hold.clone();
        self.server.behave(move |request| {
            let bad: Vec<&str> = request
                .rows()
                .iter()
                .filter(|row| request.operation() != "removed" && is_bad(&row["fields"]))
                .filter_map(|row| row["key"].as_str())
                .collect();
            match behaviour(&read(request)) {
                Answer::Accept => Reply::reject(&bad, "a bad address"),
                Answer::Fail => Reply::status(500),
                Answer::ApplyAndFail => Reply::accept_but_answer(500).but(&bad),
                Answer::ApplyAndHangUp => Reply::applied_but_cut().but(&bad),
                Answer::HangUp => Reply::cut(),
                Answer::Hold => Reply::reject(&bad, "a bad address").held(&hold),
            }
        });
    }

    pub fn content(&self) -> BTreeMap<i64, Value> {
        self.server.rows().into_iter().map(|(key, fields)| (number(&key), fields)).collect()
    }

    pub fn requests(&self) -> Vec<Request> {
        self.server.requests().iter().map(read).collect()
    }

    /// Puts a row there that levin never sent.
    pub fn put(&self, key: i64, fields: Value) {
        self.server.put(&key.to_string(), fields);
    }

    /// How often it was asked to empty itself.
    pub fn clears(&self) -> usize {
        self.requests().iter().filter(|request| request.operation == CLEARED).count()
    }

    /// Waits until so many requests are held back.
    pub fn wait_for_held(&self, count: usize) {
        self.hold.wait_for(count);
    }

    /// Lets all held requests have their answers, now and in future.
    pub fn release(&self) {
        self.hold.release();
    }
}

fn is_bad(fields: &Value) -> bool {
    fields["email"].as_str().is_some_and(|email| email.starts_with(BAD))
}

fn number(key: &str) -> i64 {
    key.parse().unwrap_or_else(|e| panic!("the key {key}: {e}"))
}

fn read(request: &receiver::Request) -> Request {
    let clears = request.operation() == CLEARED;
    let rows = request.body["rows"].as_array().or(clears.then_some(&NO_ROWS));
    let rows = rows.unwrap_or_else(|| panic!("no rows: {request:?}"));
    Request {
        generation: request.body["generation"].as_i64().expect("a generation"),
        operation: request.body["operation"].as_str().expect("an operation").to_owned(),
        rows: rows
            .iter()
            .map(|row| {
                let key = row["key"].as_str().expect("a key");
                Row {
                    key: number(key),
                    version: row["version"].as_str().expect("a version").to_owned(),
                    fields: row["fields"].clone(),
                    applied: request.applied.contains(key),
                    was_there: request.held.contains(key),
                }
            })
            .collect(),
    }
}
