//! A scripted server on loopback, and what the client does with it.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Mutex;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// What the server does with one connection; each carries one request.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Answer(u16, Vec<(&'static str, String)>, String),
    ResetAtOnce,
    ResetAfterReading,
    /// Announces more body than it sends, then closes.
    Truncated(u16, &'static str, String),
    /// Reads the request and never answers.
    Hang,
}

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        Self::Answer(status, vec![], String::new())
    }

    pub(crate) fn json(status: u16, body: impl Into<String>) -> Self {
        Self::Answer(status, vec![("content-type", "application/json".into())], body.into())
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub line: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Received {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

type Handler = Box<dyn Fn(&Received) -> Reply + Send + Sync>;

struct State {
    queue: Mutex<VecDeque<Reply>>,
    then: Handler,
    received: Mutex<Vec<Received>>,
    connections: Mutex<usize>,
}

pub(crate) struct Server {
    pub port: u16,
    state: Arc<State>,
}

impl Server {
    /// Gives the queued replies to the first connections, then answers as the function says.
    pub(crate) async fn start(
        queue: impl IntoIterator<Item = Reply>,
        then: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            queue: Mutex::new(queue.into_iter().collect()),
            then: Box::new(then),
            received: Mutex::default(),
            connections: Mutex::default(),
        });
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *shared.connections.lock().unwrap() += 1;
                let queued = shared.queue.lock().unwrap().pop_front();
                tokio::spawn(serve(stream, queued, shared.clone()));
            }
        });
        Self { port, state }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.state.received.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        *self.state.connections.lock().unwrap()
    }
}

async fn serve(mut stream: TcpStream, queued: Option<Reply>, state: Arc<State>) {
    if matches!(queued, Some(Reply::ResetAtOnce)) {
        stream.set_zero_linger().unwrap();
        return;
    }
    let Some(received) = receive(&mut stream).await else { return };
    state.received.lock().unwrap().push(received.clone());
    let reply = queued.unwrap_or_else(|| (state.then)(&received));
    let head = |status: u16, length: usize| {
        format!("HTTP/1.1 {status} Status\r\ncontent-length: {length}\r\nconnection: close\r\n")
    };
    match reply {
        Reply::Answer(status, headers, body) => {
            let mut text = head(status, body.len());
            for (name, value) in headers {
                text.push_str(&format!("{name}: {value}\r\n"));
            }
            let head_only = received.line.starts_with("HEAD ");
            text.push_str(&format!("\r\n{}", if head_only { "" } else { &body }));
            let _ = stream.write_all(text.as_bytes()).await;
        }
        Reply::Truncated(status, content_type, body) => {
            let text = format!("{}content-type: {content_type}\r\n\r\n{body}", head(status, body.len() + 10));
            let _ = stream.write_all(text.as_bytes()).await;
        }
        Reply::ResetAfterReading | Reply::ResetAtOnce => stream.set_zero_linger().unwrap(),
        Reply::Hang => {
            // Until the client gives up.
            let _ = stream.read(&mut [0]).await;
        }
    }
}

async fn receive(stream: &mut TcpStream) -> Option<Received> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let line = lines.next()?.to_owned();
    let headers: BTreeMap<String, String> = lines
        .filter_map(|l| l.split_once(": "))
        .map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned()))
        .collect();
    let length: usize = headers.get("content-length").map_or(0, |l| l.parse().unwrap());
    let mut body = bytes[head_end + 4..].to_vec();
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some(Received { line, headers, body })
}

/// Answers every name with the same addresses, another list at each question if there are more.
#[derive(Debug)]
pub(crate) struct Names(Mutex<VecDeque<Vec<IpAddr>>>);

impl Names {
    pub(crate) fn new(answers: &[&[&str]]) -> Arc<Self> {
        let parse = |list: &&[&str]| list.iter().map(|a| a.parse().unwrap()).collect();
        Arc::new(Self(Mutex::new(answers.iter().map(parse).collect())))
    }
}

impl Lookup for Names {
    fn lookup(&self, _: &str) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>> {
        let mut answers = self.0.lock().unwrap();
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        async move { answer.ok_or_else(|| std::io::Error::other("no such name")) }.boxed()
    }
}

fn settings(allow_private_networks: bool) -> HttpSettings {
    HttpSettings {
        timeout: Duration::from_secs(5),
        allow_private_networks,
        redactor: Redactor::new(&["tops3cret".to_owned()]).with_header("x-key"),
    }
}

fn post(url: &str) -> HttpRequest {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", "Bearer tops3cret".parse().unwrap());
    headers.insert("x-key", "another".parse().unwrap());
    headers.insert("x-team", "data".parse().unwrap());
    HttpRequest {
        method: Method::POST,
        url: url.parse().unwrap(),
        headers,
        body: Bytes::from_static(b"hello"),
    }
}

fn ok(_: &Received) -> Reply {
    Reply::json(200, "{}")
}

fn unauthorized(failure: &Failure) -> (&str, &str) {
    assert_eq!(failure.outcome, RowOutcome::NotSent);
    match &failure.error {
        DeliveryError::Unauthorized { message, hint } => (message, hint),
        other => panic!("{other:?}"),
    }
}

fn silent(failure: &Failure) -> &str {
    match &failure.error {
        DeliveryError::Unavailable { answered: false, after: None, message } => message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn private_addresses_are_refused_in_every_spelling() {
    let server = Server::start([], ok).await;
    let client = HttpClient::new(settings(false)).unwrap();
    let port = server.port;
    for host in [
        "127.0.0.1",
        "localhost",
        "LOCALHOST",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "017700000001",
        "0177.0.0.1",
        "127.1",
        "0",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "169.254.169.254",
        "%31%32%37.0.0.1",
        "①②⑦.0.0.1",
    ] {
        let url = format!("http://{host}:{port}/");
        let failure = client.send(&post(&url)).await.expect_err(host);
        let (message, hint) = unauthorized(&failure);
        assert!(message.contains(" is at "), "{host}: {message}");
        assert!(hint.contains("allow_private_networks"), "{hint}");
        assert_eq!(failure.calls, 0);
    }
    assert_eq!(server.connections(), 0, "not even a connection was opened");

    let client = HttpClient::new(settings(true)).unwrap();
    for host in ["127.0.0.1", "localhost", "2130706433"] {
        let answer = client.send(&post(&format!("http://{host}:{port}/x"))).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.calls), (200, 1));
    }
    assert_eq!(server.received()[0].line, "POST /x HTTP/1.1");
    assert_eq!(server.received()[0].body, b"hello");
}

#[tokio::test]
async fn a_name_is_judged_by_all_of_its_addresses_at_every_connection() {
    let server = Server::start([], ok).await;
    let url = format!("http://public.test:{}/", server.port);
    for answers in
        [&["127.0.0.1"][..], &["1.1.1.1", "127.0.0.1"], &["::ffff:127.0.0.1"], &["fd00::1", "8.8.8.8"]]
    {
        let client = HttpClient::with_lookup(settings(false), Names::new(&[answers])).unwrap();
        let failure = client.send(&post(&url)).await.unwrap_err();
        assert!(unauthorized(&failure).0.starts_with("public.test is at "), "{failure:?}");
    }
    assert_eq!(server.connections(), 0);

    // A name that changes its mind after the first question: a connection asks once, so what was
    // checked is what is connected to.
    let names = Names::new(&[&["127.0.0.1"], &["10.255.255.1"]]);
    let client = HttpClient::with_lookup(settings(true), names.clone()).unwrap();
    assert!(client.send(&post(&url)).await.is_ok());
    assert_eq!(server.connections(), 1);
    assert_eq!(names.0.lock().unwrap().len(), 1, "the name was asked for once");
    let unknown = HttpClient::with_lookup(settings(true), Names::new(&[])).unwrap();
    let failure = unknown.send(&post(&url)).await.unwrap_err();
    assert_eq!(failure.outcome, RowOutcome::NotSent);
    assert!(silent(&failure).contains("no such name"));
}

#[tokio::test]
async fn silence_is_ambiguous_only_once_the_request_may_have_left() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let client = HttpClient::new(settings(true)).unwrap();
    let failure = client.send(&post(&closed)).await.unwrap_err();
    assert_eq!(failure.outcome, RowOutcome::NotSent);
    silent(&failure);

    let server = Server::start([Reply::ResetAtOnce, Reply::ResetAfterReading], ok).await;
    for _ in 0..2 {
        let failure = client.send(&post(&server.url("/"))).await.unwrap_err();
        assert_eq!(failure.outcome, RowOutcome::InDoubt);
        assert!(!silent(&failure).contains("tops3cret"));
    }

    let brief = HttpSettings { timeout: Duration::from_millis(150), ..settings(true) };
    let hanging = Server::start([], |_| Reply::Hang).await;
    let failure = HttpClient::new(brief).unwrap().send(&post(&hanging.url("/"))).await.unwrap_err();
    assert_eq!(failure.outcome, RowOutcome::InDoubt);
    assert!(silent(&failure).contains("0.15 s"), "{failure:?}");
    assert_eq!(hanging.received().len(), 1);
}

#[tokio::test]
async fn bodies_are_read_within_bounds() {
    let long = "x".repeat(MAX_ANSWER + 1);
    let server = Server::start(
        [Reply::Truncated(200, "application/json", "{\"a\":".into()), Reply::Answer(200, vec![], long)],
        ok,
    )
    .await;
    let client = HttpClient::new(settings(true)).unwrap();
    let cut = client.send(&post(&server.url("/"))).await.unwrap();
    assert!(matches!(cut.end, BodyEnd::Broken(_)), "{:?}", cut.end);
    let long = client.send(&post(&server.url("/"))).await.unwrap();
    assert_eq!((long.end, long.body.len()), (BodyEnd::TooLong, MAX_ANSWER));
    let whole = client.send(&post(&server.url("/"))).await.unwrap();
    assert_eq!((whole.end, &whole.body[..]), (BodyEnd::Complete, &b"{}"[..]));
}

#[tokio::test]
async fn redirects_repeat_the_request_and_leave_secrets_behind() {
    let target = Server::start([], ok).await;
    let there = format!("http://localhost:{}/there", target.port);
    let server = Server::start([], move |r| match r.line.split(' ').nth(1).unwrap() {
        "/same" => Reply::Answer(308, vec![("location", "/end".into())], String::new()),
        "/away" => Reply::Answer(307, vec![("location", there.clone())], String::new()),
        "/loop" => Reply::Answer(307, vec![("location", "/loop".into())], String::new()),
        "/moved" => {
            Reply::Answer(301, vec![("location", "https://u:p@new.example/tops3cret".into())], String::new())
        }
        "/nowhere" => Reply::status(307),
        "/file" => Reply::Answer(307, vec![("location", "file:///etc/passwd".into())], String::new()),
        _ => Reply::json(200, "{}"),
    })
    .await;
    let client = HttpClient::new(settings(true)).unwrap();

    let answer = client.send(&post(&server.url("/same"))).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.calls), (200, 2));
    let same = &server.received()[1];
    assert_eq!((same.line.as_str(), &same.body[..]), ("POST /end HTTP/1.1", &b"hello"[..]));
    assert_eq!(same.headers["authorization"], "Bearer tops3cret");

    assert_eq!(client.send(&post(&server.url("/away"))).await.unwrap().calls, 2);
    let away = &target.received()[0];
    assert_eq!((away.line.as_str(), &away.body[..]), ("POST /there HTTP/1.1", &b"hello"[..]));
    assert!(!away.headers.contains_key("authorization") && !away.headers.contains_key("x-key"));
    assert_eq!(away.headers["x-team"], "data");

    let failure = client.send(&post(&server.url("/loop"))).await.unwrap_err();
    assert!(unauthorized(&failure).0.contains("more than 5 times"));
    let failure = client.send(&post(&server.url("/moved"))).await.unwrap_err();
    assert!(unauthorized(&failure).0.contains("moved to https://new.example/***"), "{failure:?}");
    let failure = client.send(&post(&server.url("/nowhere"))).await.unwrap_err();
    assert!(unauthorized(&failure).0.contains("without an address"));
    let failure = client.send(&post(&server.url("/file"))).await.unwrap_err();
    assert!(unauthorized(&failure).0.contains("no address of http"), "{failure:?}");
}

#[tokio::test]
async fn a_redirect_cannot_reach_a_private_address() {
    // The first hop is judged by a name that resolves to this test's server; only such a name can
    // stand for a public one here, so the guard is that of the second hop alone.
    #[derive(Debug)]
    struct Guard;
    impl Lookup for Guard {
        fn lookup(&self, _: &str) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>> {
            async { Ok(vec!["127.0.0.1".parse().unwrap()]) }.boxed()
        }
    }
    let secret = Server::start([], ok).await;
    for location in [
        format!("http://127.0.0.1:{}/", secret.port),
        format!("http://2130706433:{}/", secret.port),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        format!("http://[::ffff:127.0.0.1]:{}/", secret.port),
    ] {
        let server = Server::start([], move |_| {
            Reply::Answer(307, vec![("location", location.clone())], String::new())
        })
        .await;
        // The resolver lets the name pass; addresses in digits are checked by the client itself.
        let mut client = HttpClient::with_lookup(settings(true), Arc::new(Guard)).unwrap();
        client.settings.allow_private_networks = false;
        let failure = client.send(&post(&format!("http://public.test:{}/", server.port))).await.unwrap_err();
        assert!(unauthorized(&failure).0.contains(" is at "), "{failure:?}");
        assert_eq!(failure.calls, 1);
        assert_eq!(server.received().len(), 1);
    }
    assert_eq!(secret.connections(), 0);
}

#[test]
fn retry_after_in_both_forms() {
    let now = DateTime::parse_from_rfc3339("2026-11-20T10:00:00Z").unwrap().with_timezone(&Utc);
    let read = |text: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, text.parse().unwrap());
        retry_after(&headers, now).map(|d| d.as_secs())
    };
    assert_eq!(read("7"), Some(7));
    assert_eq!(read(" 0 "), Some(0));
    assert_eq!(read("3601"), Some(3600));
    assert_eq!(read("99999999999999999999999"), Some(3600));
    assert_eq!(read("Fri, 20 Nov 2026 10:01:30 GMT"), Some(90));
    assert_eq!(read("Friday, 20-Nov-26 10:01:30 GMT"), Some(90));
    assert_eq!(read("Fri Nov 20 10:01:30 2026"), Some(90));
    assert_eq!(read("Fri, 20 Nov 2026 09:00:00 GMT"), Some(0));
    assert_eq!(read("Sat, 20 Nov 2027 10:00:00 GMT"), Some(3600));
    for wrong in ["", "soon", "-5", "1.5"] {
        assert_eq!(read(wrong), None, "{wrong}");
    }
    assert_eq!(retry_after(&HeaderMap::new(), now), None);
}

#[test]
fn statuses_say_what_to_do_and_what_is_left() {
    let redactor = Redactor::new(&["tops3cret".to_owned()]);
    let verdict = |status: u16| {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, "9".parse().unwrap());
        let answer = Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers,
            body: Bytes::from_static(b"why:\n  tops3cret"),
            end: BodyEnd::Complete,
            calls: 1,
        };
        classify(&answer, &redactor)
    };
    for status in [200, 201, 202, 204, 207] {
        assert!(verdict(status).is_none());
    }
    let nine = Some(Duration::from_secs(9));
    for status in [400, 402, 406, 409, 410, 413, 418, 422] {
        let (error, outcome) = verdict(status).unwrap();
        let DeliveryError::Refused { message } = error else { panic!("{status}") };
        assert!(
            message.starts_with(&format!("HTTP {status}")) && message.ends_with(": why: ***"),
            "{message}"
        );
        assert_eq!(outcome, RowOutcome::NotSent);
    }
    for status in [401, 403, 404, 405] {
        let (error, outcome) = verdict(status).unwrap();
        assert!(matches!(error, DeliveryError::Unauthorized { hint, .. } if !hint.is_empty()));
        assert_eq!(outcome, RowOutcome::NotSent);
    }
    for (status, left) in [
        (408, RowOutcome::InDoubt),
        (425, RowOutcome::NotSent),
        (500, RowOutcome::InDoubt),
        (503, RowOutcome::InDoubt),
    ] {
        let (error, outcome) = verdict(status).unwrap();
        assert!(matches!(error, DeliveryError::Unavailable { answered: true, after, .. } if after == nine));
        assert_eq!(outcome, left, "{status}");
    }
    let (error, outcome) = verdict(429).unwrap();
    assert!(matches!(error, DeliveryError::Throttled { after, .. } if after == nine));
    assert_eq!(outcome, RowOutcome::NotSent);
}
