//! A receiver that misbehaves as a seed says, and knows a row version when it sees it again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tests::receiver::{Receiver, Reply, Request};

/// The longest that `levin` waits for an answer.
pub const TIMEOUT: Duration = Duration::from_millis(800);

/// Rows whose `name` begins so are refused for ever.
pub const BAD: &str = "bad";

/// Requests with more rows are too large, at times.
const SMALL: usize = 3;

/// How a request may be answered, and how often among a hundred that meet trouble.
const TROUBLES: &[(u32, Trouble)] = &[
    (9, Trouble::TooManySeconds),
    (8, Trouble::TooManyUntil),
    (10, Trouble::Unavailable),
    (10, Trouble::AppliedAndError),
    (10, Trouble::CutBefore),
    (12, Trouble::CutAfter),
    (8, Trouble::Truncated),
    (3, Trouble::Silent),
    (10, Trouble::RejectedPartly),
    (8, Trouble::TooLarge),
    (6, Trouble::Moved),
    (4, Trouble::TokenExpired),
    (2, Trouble::LeadsInside),
];

/// One way to misbehave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Trouble {
    /// 429, `Retry-After` in seconds.
    TooManySeconds,
    /// 429, `Retry-After` as a date.
    TooManyUntil,
    /// 503, nothing applied.
    Unavailable,
    /// 500, all applied.
    AppliedAndError,
    /// The connection ends; nothing was applied.
    CutBefore,
    /// The connection ends; all was applied.
    CutAfter,
    /// All applied; the answer breaks off.
    Truncated,
    /// All applied; the answer begins, and does not go on within the time-out.
    Silent,
    /// Some rows are not taken, and listed in the answer.
    RejectedPartly,
    /// 413 for more than a few rows.
    TooLarge,
    /// 307 to another path of the same receiver.
    Moved,
    /// 401: the token is good no more.
    TokenExpired,
    /// 302 to an address inside of somebody's network.
    LeadsInside,
}

/// What the receiver remembers beside its rows.
#[derive(Default)]
struct Memory {
    /// Row versions that it applied.
    seen: BTreeSet<String>,
    /// Records by name, for a sync whose destination knows them by that and not by their keys.
    records: BTreeMap<String, Value>,
    /// How often a request came, by its idempotency key.
    attempts: HashMap<String, u32>,
    /// The token that is good now.
    token: u32,
    /// What a version stands for: key, operation, fields.
    deliveries: HashMap<String, String>,
    /// Versions that stood for two deliveries.
    confused: Vec<String>,
    met: BTreeMap<Trouble, u32>,
}

/// The receiver, and what it does.
#[derive(Clone)]
pub struct Chaos {
    pub receiver: Receiver,
    memory: Arc<Mutex<Memory>>,
}

impl Chaos {
    pub fn start() -> Self {
        let chaos = Self { receiver: Receiver::start(), memory: Arc::default() };
        chaos.misbehave(0, 0);
        chaos
    }

    /// From now on so many of a hundred requests meet trouble; the seed and the request decide which.
    pub fn misbehave(&self, seed: u64, percent: u32) {
        let memory = self.memory.clone();
        self.receiver.behave(move |request| memory.lock().unwrap().reply(request, seed, percent));
    }

    /// What it holds, by name.
    pub fn records(&self) -> BTreeMap<String, Value> {
        self.memory.lock().unwrap().records.clone()
    }

    /// The troubles that were met so far, and how often.
    pub fn met(&self) -> BTreeMap<Trouble, u32> {
        self.memory.lock().unwrap().met.clone()
    }

    /// Versions that stood for two deliveries: there must be none.
    pub fn confused(&self) -> Vec<String> {
        self.memory.lock().unwrap().confused.clone()
    }
}

impl Memory {
    fn reply(&mut self, request: &Request, seed: u64, percent: u32) -> Reply {
        if request.path == "/token" {
            let token = json!({"access_token": format!("token-{}", self.token), "expires_in": 3600});
            return Reply::accept().header("content-type", "application/json").saying(&token.to_string());
        }
        if request.headers.get("authorization") != Some(&format!("Bearer token-{}", self.token)) {
            return Reply::status(401);
        }
        self.compare(request);
        let id = request.headers.get("idempotency-key").cloned().unwrap_or_default();
        let attempt = self.attempts.entry(id.clone()).or_default();
        *attempt += 1;
        let mut hasher = DefaultHasher::new();
        // What is moved is the same request at another path.
        (seed, &id, *attempt).hash(&mut hasher);
        let mut random = fastrand::Rng::with_seed(hasher.finish());
        let trouble = (random.u32(..100) < percent).then(|| pick(&mut random));
        let trouble = trouble.filter(|trouble| self.fits(*trouble, request));
        if let Some(trouble) = trouble {
            *self.met.entry(trouble).or_default() += 1;
        }
        let rows = request.rows();
        let bad: Vec<&str> = rows
            .iter()
            .filter(|row| {
                let name = row["fields"]["name"].as_str().unwrap_or_default();
                request.operation() != "removed" && name.starts_with(BAD)
            })
            .filter_map(|row| row["key"].as_str())
            .collect();
        let mut refused: BTreeSet<&str> = bad.into_iter().collect();
        let body = "{\"taken\": true}";
        let answered = |reply: Reply| reply.header("content-type", "application/json").saying(body);
        let (reply, applies) = match trouble {
            None => (None, true),
            Some(Trouble::TooManySeconds) => {
                (Some(Reply::status(429).header("retry-after", &random.u8(..2).to_string())), false)
            }
            Some(Trouble::TooManyUntil) => {
                let until = chrono::Utc::now() + chrono::Duration::seconds(1);
                let date = until.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
                (Some(Reply::status(429).header("retry-after", &date)), false)
            }
            Some(Trouble::Unavailable) => (Some(Reply::status(503)), false),
            Some(Trouble::AppliedAndError) => (Some(Reply::accept_but_answer(500)), true),
            Some(Trouble::CutBefore) => (Some(Reply::cut()), false),
            Some(Trouble::CutAfter) => (Some(Reply::applied_but_cut()), true),
            Some(Trouble::Truncated) => (Some(answered(Reply::accept()).breaking_off(Duration::ZERO)), true),
            Some(Trouble::Silent) => {
                (Some(answered(Reply::accept()).breaking_off(TIMEOUT + Duration::from_millis(300))), true)
            }
            Some(Trouble::RejectedPartly) => {
                refused.extend(rows.iter().filter_map(|row| row["key"].as_str()).filter(|_| random.bool()));
                (None, true)
            }
            Some(Trouble::TooLarge) => (Some(Reply::status(413)), false),
            Some(Trouble::Moved) => {
                (Some(Reply::status(307).header("location", &format!("/moved{}", request.path))), false)
            }
            Some(Trouble::TokenExpired) => {
                self.token += 1;
                (Some(Reply::status(401)), false)
            }
            Some(Trouble::LeadsInside) => {
                (Some(Reply::status(302).header("location", "http://169.254.169.254/latest")), false)
            }
        };
        let refused: Vec<&str> = refused.into_iter().collect();
        let reply = reply.unwrap_or_else(|| Reply::reject(&refused, "not this one"));
        if !applies {
            return reply;
        }
        // A version that was applied is not applied again, whatever is answered.
        let known: Vec<&str> = rows
            .iter()
            .filter(|row| self.seen.contains(row["version"].as_str().unwrap_or_default()))
            .filter_map(|row| row["key"].as_str())
            .collect();
        if request.operation() == "cleared" {
            self.records.clear();
        }
        for row in rows.iter().filter(|row| !refused.iter().any(|key| row["key"] == **key)) {
            if !self.seen.insert(row["version"].as_str().unwrap_or_default().to_owned()) {
                continue;
            }
            let name = row["fields"]["name"].as_str().unwrap_or_default().to_owned();
            if request.operation() == "removed" {
                self.records.remove(&name);
            } else {
                self.records.insert(name, row["fields"].clone());
            }
        }
        let left: Vec<&str> = refused.into_iter().chain(known).collect();
        reply.but(&left)
    }

    /// Whether this can happen to the request.
    fn fits(&self, trouble: Trouble, request: &Request) -> bool {
        match trouble {
            Trouble::TooLarge => request.rows().len() > SMALL,
            Trouble::Moved => !request.path.starts_with("/moved"),
            Trouble::RejectedPartly => !request.rows().is_empty(),
            _ => true,
        }
    }

    /// A version stands for one delivery, for ever.
    fn compare(&mut self, request: &Request) {
        for row in request.rows() {
            let version = row["version"].as_str().unwrap_or_default();
            // The fields of a removal are for people: the values that were last accepted.
            let fields = if request.operation() == "removed" { "" } else { &row["fields"].to_string() };
            let this = format!("{} {} {fields}", row["key"], request.operation());
            let before = self.deliveries.entry(version.to_owned()).or_insert_with(|| this.clone());
            if *before != this {
                self.confused.push(format!("{version}: {before} and {this}"));
            }
        }
    }
}

fn pick(random: &mut fastrand::Rng) -> Trouble {
    let all: u32 = TROUBLES.iter().map(|(share, _)| share).sum();
    let mut left = random.u32(..all);
    for (share, trouble) in TROUBLES {
        if left < *share {
            return *trouble;
        }
        left -= share;
    }
    Trouble::Unavailable
}
