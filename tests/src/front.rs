//! A server before another one: it answers by itself as a test tells it to, passes requests on, or loses them and
//! their answers.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

/// An HTTP server on a free port of 127.0.0.1, which lives as long as the test process.
#[derive(Debug, Clone)]
pub struct Front {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Its place among all requests, from 0.
    pub number: usize,
    /// `GET`, `POST` …
    pub method: String,
    /// The path without its query.
    pub path: String,
    /// The query, as it was written.
    pub query: String,
    /// Headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body as it was written.
    pub body: Vec<u8>,
}

impl Asked {
    /// The body as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The token that it carries.
    pub fn token(&self) -> &str {
        self.headers.get("authorization").and_then(|v| v.strip_prefix("Bearer ")).unwrap_or_default()
    }
}

/// What becomes of a request.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The front's own words.
    Say(u16, String),
    /// The same, with one more header.
    SayWith(u16, (&'static str, String), String),
    /// The other server's.
    Pass,
    /// The other server's, altered.
    Alter(fn(&str) -> String),
    /// The other server gets it, and its answer is lost.
    LoseAnswer,
    /// Nobody gets it.
    Lose,
}

impl Answer {
    /// A JSON body with a status.
    pub fn json(status: u16, body: &Value) -> Self {
        Self::Say(status, body.to_string())
    }
}

impl Front {
    /// Listens before another server.
    ///
    /// # Panics
    /// When there is no free port.
    pub fn before(
        behind: Option<SocketAddr>,
        answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let front = Self { address, asked };
        let (seen, answer) = (front.asked.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, answer) = (seen.clone(), answer.clone());
                std::thread::spawn(move || {
                    // A client that goes away in the middle is a client's right.
                    let _ = serve(&stream, behind, &seen, answer.as_ref());
                });
            }
        });
        front
    }

    /// `http://127.0.0.1:…`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every request so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many requests had such a method and a path that ends so.
    pub fn count(&self, method: &str, end: &str) -> usize {
        self.asked().iter().filter(|a| a.method == method && a.path.ends_with(end)).count()
    }
}

fn serve(
    stream: &TcpStream,
    behind: Option<SocketAddr>,
    seen: &Mutex<Vec<Asked>>,
    answer: &(dyn Fn(&Asked) -> Answer + Send + Sync),
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split_whitespace();
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut headers = BTreeMap::new();
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let Some((name, value)) = header.trim_end().split_once(':') else { break };
            headers.insert(name.to_lowercase(), value.trim().to_owned());
        }
        let length = headers.get("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let asked = {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            let asked = Asked {
                number: seen.len(),
                method: method.to_owned(),
                path: path.to_owned(),
                query: query.to_owned(),
                headers,
                body,
            };
            seen.push(asked.clone());
            asked
        };
        let (status, header, body) = match answer(&asked) {
            Answer::Say(status, body) => (status, None, body.into_bytes()),
            Answer::SayWith(status, header, body) => (status, Some(header), body.into_bytes()),
            Answer::Lose => return Ok(()),
            Answer::LoseAnswer => {
                pass(behind, &asked, target)?;
                return Ok(());
            }
            Answer::Pass => {
                let (status, body) = pass(behind, &asked, target)?;
                (status, None, body)
            }
            Answer::Alter(alter) => {
                let (status, body) = pass(behind, &asked, target)?;
                (status, None, alter(&String::from_utf8_lossy(&body)).into_bytes())
            }
        };
        let more = header.map(|(name, value)| format!("{name}: {value}\r\n")).unwrap_or_default();
        let head = format!(
            "HTTP/1.1 {status} said\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{more}\r\n",
            body.len()
        );
        let mut stream = stream;
        stream.write_all(head.as_bytes())?;
        stream.write_all(&body)?;
    }
}

/// The other server's status and body.
fn pass(behind: Option<SocketAddr>, asked: &Asked, target: &str) -> std::io::Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(behind.expect("a server to pass requests on to"))?;
    let content_type = asked.headers.get("content-type").map_or("application/json", String::as_str);
    let who =
        asked.headers.get("authorization").map(|who| format!("authorization: {who}\r\n")).unwrap_or_default();
    let head = format!(
        "{} {target} HTTP/1.1\r\nhost: front\r\ncontent-type: {content_type}\r\n{who}content-length: {}\r\nconnection: close\r\n\r\n",
        asked.method,
        asked.body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(&asked.body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(answer.len());
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split_whitespace().nth(1).and_then(|s| s.parse().ok()).unwrap_or(502);
    let body = answer.get(end + 4..).unwrap_or_default();
    // Without a length a server says in pieces how much there is.
    let body = if head.to_lowercase().contains("transfer-encoding: chunked") {
        unchunked(body)
    } else {
        body.to_vec()
    };
    Ok((status, body))
}

fn unchunked(mut text: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = text.windows(2).position(|w| w == b"\r\n") {
        let length = std::str::from_utf8(&text[..end]).ok().and_then(|l| usize::from_str_radix(l, 16).ok());
        let Some(length) = length.filter(|l| *l > 0 && text.len() >= end + 2 + l) else { break };
        whole.extend_from_slice(&text[end + 2..end + 2 + length]);
        text = text.get(end + 4 + length..).unwrap_or_default();
    }
    whole
}
