//! Answers of destinations and of token servers, sensible and not, through real sockets.

use std::time::Duration;

use connectors::outcome::{Delivered, DeliveryError, RowOutcome};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::http::{Came, SECRET, Script, Socket, batch, destination, ok, run, runtime, spec};
use crate::mutation::{awkward, spoiled};
use crate::rounds::rounds;

/// Far beyond what any attempt may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// What may be kept of an exchange, with all its rows.
const TOLD: usize = 200_000;

const WORDS: &[&str] = &[
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.1 103 Early Hints\r\n\r\n",
    "HTTP/1.0 200\r\n\r\n",
    "HTTP/9.9 200 OK\r\n",
    "HTTP/1.1 999 X\r\n",
    "HTTP/1.1 20 X\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n",
    "\r\n",
    "\r\n\r\n",
    "\n",
    "\0",
    "content-length: 5\r\n",
    "content-length: -1\r\n",
    "content-length: 99999999999999999999\r\n",
    "content-length: 3\r\ncontent-length: 4\r\n",
    "transfer-encoding: chunked\r\n",
    "transfer-encoding: gzip, chunked\r\n",
    "content-encoding: gzip\r\n",
    "content-type: application/json\r\n",
    "ffffffffffffffff\r\n",
    "0\r\n\r\n",
    "5;x=y\r\n",
    "retry-after: 99999999999999999999999\r\n",
    "retry-after: -1\r\n",
    "retry-after: Fri, 31 Dec 9999 23:59:60 GMT\r\n",
    "retry-after: \u{1}\r\n",
    "location: /elsewhere\r\n",
    "location: http://[::\r\n",
    "location: file:///etc/passwd\r\n",
    "location: //127.0.0.1:1/\r\n",
    "set-cookie: a=b\r\n",
    "connection: close\r\n",
    "{\"rejected\":",
    "[[[[[[[[[[",
    "\"\\ud800\"",
    "1e999",
];

/// An answer of which it is known whether rows may count as accepted.
struct Known {
    script: Script,
    /// Whether the row with this key may be accepted.
    may: Box<dyn Fn(&str) -> bool + Send>,
    /// Whether every row must be.
    must: bool,
}

fn keys() -> Vec<String> {
    (0..4).map(|n| format!("k{n}")).collect()
}

/// A body that lists some rows as rejected, and which.
fn listing(random: &mut fastrand::Rng) -> (Value, Vec<String>) {
    let refused: Vec<String> = keys().into_iter().filter(|_| random.bool()).collect();
    let list: Vec<Value> = refused
        .iter()
        .map(|key| match random.u8(..4) {
            0 => json!(key),
            1 => json!({"key": key}),
            2 => json!({"reason": {"a": [SECRET, 1.5]}, "key": key}),
            _ => json!({"key": key, "reason": format!("{} {SECRET}", awkward(random)), "more": [[[]]]}),
        })
        .collect();
    (json!({"rejected": list, "ok": true}), refused)
}

fn known(random: &mut fastrand::Rng) -> Known {
    let statuses = [
        200, 200, 200, 201, 202, 204, 206, 207, 226, 299, 300, 301, 304, 307, 400, 401, 403, 404, 405, 408,
        409, 410, 413, 418, 422, 425, 429, 500, 501, 503, 599,
    ];
    let status = statuses[random.usize(..statuses.len())];
    let json_type = random.u8(..3) > 0;
    let (body, refused, readable) = match random.u8(..8) {
        0 | 1 => (Vec::new(), Vec::new(), false),
        2 => (b"{}".to_vec(), Vec::new(), true),
        3 => (awkward(random).into_bytes(), Vec::new(), false),
        4 => ("[".repeat(random.usize(1..200_000)).into_bytes(), Vec::new(), false),
        5 => ((0..random.usize(1..300)).map(|_| random.u8(..)).collect(), Vec::new(), false),
        _ => {
            let (listing, refused) = listing(random);
            (listing.to_string().into_bytes(), refused, true)
        }
    };
    let readable = readable || serde_json::from_slice::<&RawValue>(&body).is_ok();
    let bodiless = matches!(status, 204 | 304);
    let (body, refused) = if bodiless { (Vec::new(), Vec::new()) } else { (body, refused) };
    let mut text = format!("HTTP/1.1 {status} {SECRET}\r\n").into_bytes();
    if json_type {
        let types =
            ["application/json", "application/problem+json; charset=utf-8", "text/json", "APPLICATION/JSON"];
        text.extend(format!("Content-Type: {}\r\n", types[random.usize(..types.len())]).bytes());
    }
    for _ in 0..random.usize(..3) {
        let values = [
            "retry-after: 1",
            "retry-after: 1e9",
            "retry-after: Thu, 01 Jan 1970 00:00:00 GMT",
            "x-echo: fuzz-s3cr3t-9f1c27ab",
            "location: /v1/other",
            "x: y",
        ];
        text.extend(format!("{}\r\n", values[random.usize(..values.len())]).bytes());
    }
    let how = random.u8(..4);
    match how {
        0 => {
            text.extend(b"transfer-encoding: chunked\r\n\r\n");
            for piece in body.chunks(random.usize(1..4000)) {
                text.extend(format!("{:x}\r\n", piece.len()).bytes());
                text.extend(piece);
                text.extend(b"\r\n");
            }
            text.extend(b"0\r\n\r\n");
        }
        // To the end of the connection; nobody can tell whether it is whole.
        1 => {
            text.extend(b"connection: close\r\n\r\n");
            text.extend(&body);
        }
        _ => {
            text.extend(format!("content-length: {}\r\n\r\n", body.len()).bytes());
            text.extend(&body);
        }
    }
    let head = text.windows(4).position(|w| w == b"\r\n\r\n").map_or(0, |at| at + 4);
    let whole = random.u8(..4) > 0;
    if !whole {
        text.truncate(random.usize(..text.len()));
    }
    let complete = whole || (bodiless && text.len() >= head) || (how == 1 && text.len() >= head);
    let cut_body = !whole && how == 1;
    let success = (200..300).contains(&status) && complete;
    let claims = success && json_type && !body.is_empty() && !readable && !cut_body;
    let unsaid = status == 207
        && (!readable || refused.is_empty())
        && !body.starts_with(b"{\"ok\"")
        && !body.starts_with(b"{\"rejected\"");
    let possible = success && !claims && !unsaid;
    let must =
        possible && !cut_body && refused.is_empty() && (body.is_empty() || body == b"{}") && status != 207;
    Known {
        script: Script { bytes: text, stays: random.u8(..12) == 0, endless: false },
        // Of a body that ends with its connection any part may be missing, and then so is the list.
        may: Box::new(move |key| possible && (cut_body || !refused.iter().any(|r| r == key))),
        must,
    }
}

/// What holds whatever was answered.
fn assert_sound(delivered: &Delivered, rows: usize, context: &str) {
    assert_eq!(delivered.outcomes.len(), rows, "{context}");
    assert!(delivered.outcomes.iter().all(|o| *o != RowOutcome::Deferred), "{context}");
    if let Some(
        DeliveryError::Throttled { after: Some(after), .. }
        | DeliveryError::Unavailable { after: Some(after), .. },
    ) = &delivered.error
    {
        assert!(*after <= Duration::from_secs(3600), "{context}");
    }
    let told = format!("{delivered:?}");
    assert!(told.len() < TOLD, "{} bytes are kept: {context}", told.len());
    // A part of it may stand where an answer breaks off, or was spoiled.
    assert!(!told.contains(SECRET), "the secret is told: {told} of {context}");
}

#[test]
fn no_answer_makes_a_row_accepted_that_is_not() {
    let (socket, runtime) = (Socket::start(), runtime());
    let to = destination(&socket.url(), json!({"headers": {"X-Key": SECRET}})).expect("it is right");
    let spec = spec(json!({"each": {"path": "/rows"}}));
    to.validate(&spec).expect("it is right");
    let rows: Vec<_> = keys().into_iter().map(|key| (key, "name".to_owned(), "null".to_owned())).collect();
    let batch = batch(&rows);
    let send = || {
        runtime.block_on(async {
            let delivery = to.open(&spec, &run()).await.expect("it opens");
            tokio::time::timeout(PATIENCE, delivery.deliver(&batch)).await.expect("an attempt ends")
        })
    };
    rounds("answers", 120, |random| {
        if random.bool() {
            let known = known(random);
            let (script, shown) =
                (known.script.clone(), String::from_utf8_lossy(&known.script.bytes).into_owned());
            let shown: String = shown.chars().take(2000).collect();
            socket.answer(move |_| script.clone());
            let delivered = send();
            assert_sound(&delivered, rows.len(), &shown);
            // On a busy machine an answer may come too late.
            let silent = matches!(delivered.error, Some(DeliveryError::Unavailable { .. }));
            for (key, outcome) in keys().iter().zip(&delivered.outcomes) {
                let accepted = *outcome == RowOutcome::Accepted;
                assert!(!accepted || (known.may)(key), "{key} is accepted: {shown}");
                assert!(accepted || silent || !known.must, "{key} is {outcome:?}: {shown}");
            }
            return;
        }
        // Bytes of which nothing is known but how they begin.
        let valid = known(random).script.bytes;
        let endless = random.u8(..30) == 0;
        let bytes = match random.u8(..4) {
            0 => (0..random.usize(..400)).map(|_| random.u8(..)).collect(),
            1 if endless => {
                format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{}", "[1,".repeat(20_000))
                    .into_bytes()
            }
            2 if endless => format!("x-{}: y\r\n", "h".repeat(1000)).into_bytes(),
            _ => spoiled(random, &valid, WORDS, &[&valid]),
        };
        let shown: String = String::from_utf8_lossy(&bytes).chars().take(2000).collect();
        let succeeds = shown.contains("HTTP/1.1 2") || shown.contains("HTTP/1.0 2");
        let script = Script { bytes, endless, stays: random.u8(..12) == 0 };
        socket.answer(move |_| script.clone());
        let delivered = send();
        assert_sound(&delivered, rows.len(), &shown);
        let accepted = delivered.outcomes.contains(&RowOutcome::Accepted);
        assert!(!accepted || succeeds, "accepted by {shown}");
    });
}

/// Without a token no row leaves, whatever the token server says.
#[test]
fn no_answer_of_a_token_server_lets_rows_out_without_a_token() {
    let (socket, runtime) = (Socket::start(), runtime());
    let rows: Vec<_> = keys().into_iter().map(|key| (key, "name".to_owned(), "null".to_owned())).collect();
    let (batch, mut round) = (batch(&rows), 0);
    rounds("tokens", 60, |random| {
        // What comes late from another round is known by its path.
        round += 1;
        let path = format!("/rows-{round}");
        let spec = spec(json!({"each": {"path": path}}));
        let auth = json!({"oauth2_client_credentials": {
            "token_url": format!("{}/token", socket.url()), "client_id": "levin", "client_secret": SECRET,
        }});
        let to = destination(&socket.url(), json!({"auth": auth})).expect("it is right");
        let good =
            json!({"access_token": "abc.def-123", "token_type": "Bearer", "expires_in": 3600}).to_string();
        let bodies = [
            json!({"access_token": awkward(random), "token_type": "bearer", "expires_in": "soon"})
                .to_string(),
            json!({"access_token": "a\r\nX-Injected: 1", "token_type": "Bearer"}).to_string(),
            json!({"access_token": "", "token_type": "Bearer"}).to_string(),
            json!({"access_token": [1], "token_type": "Bearer"}).to_string(),
            json!({"access_token": "x".repeat(random.usize(1..300_000)), "token_type": "Bearer"}).to_string(),
            json!({"access_token": "abc", "token_type": "mac", "expires_in": -1e300}).to_string(),
            json!({"access_token": "abc", "token_type": "Bearer", "expires_in": u64::MAX}).to_string(),
            json!({"error": "invalid_client", "error_description": format!("{SECRET} {}", awkward(random))})
                .to_string(),
            String::from_utf8_lossy(&spoiled(random, good.as_bytes(), WORDS, &[good.as_bytes()]))
                .into_owned(),
            good,
        ];
        let body = bodies[random.usize(..bodies.len())].clone();
        let granted = random.u8(..3) > 0;
        let answer = if granted { ok(&body) } else { known(random).script };
        let shown: String = String::from_utf8_lossy(&answer.bytes).chars().take(1000).collect();
        socket
            .answer(move |came: &Came| if came.line.contains(" /token ") { answer.clone() } else { ok("") });
        let delivered = runtime.block_on(async {
            let delivery = to.open(&spec, &run()).await.expect("it opens");
            tokio::time::timeout(PATIENCE, delivery.deliver(&batch)).await.expect("an attempt ends")
        });
        assert_sound(&delivered, rows.len(), &shown);
        let sent = socket.came().iter().filter(|came| came.line.contains(&format!("{path} "))).count();
        let accepted = delivered.outcomes.contains(&RowOutcome::Accepted);
        assert!(!accepted || sent > 0, "{shown}");
        let told = serde_json::from_str::<Value>(&body).ok().filter(|_| granted);
        let token = told.as_ref().and_then(|t| t["access_token"].as_str());
        let usable = token.is_some_and(|t| !t.trim().is_empty() && !t.contains(['\r', '\n', '\0']));
        assert!(sent == 0 || usable, "{shown}");
    });
}
