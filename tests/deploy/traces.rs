//! Traces, as a collector gets them from real runs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::{Span, status::StatusCode};
use prost::Message;

use super::people::people;
use serde_json::json;
use tests::service::{Served, until};

/// What takes spans over OTLP/HTTP.
struct Collector {
    url: String,
    requests: Receiver<(String, ExportTraceServiceRequest)>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let (send, requests) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let send = send.clone();
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().expect("the same connection"));
                    while let Some(request) = take(&mut reader, &stream) {
                        let _ = send.send(request);
                    }
                });
            }
        });
        Self { url, requests }
    }

    /// The spans of the next run that a service sends.
    fn waits(&self) -> (Vec<Span>, Vec<KeyValue>) {
        let mut spans = Vec::new();
        let resource = until("spans come", || {
            let (some, resource) = self.taken();
            spans.extend(some);
            spans.iter().any(|span| span.name == "run").then_some(resource)
        });
        (spans, resource)
    }

    /// The spans that came so far, with what is said of who sent them.
    fn taken(&self) -> (Vec<Span>, Vec<KeyValue>) {
        let (mut spans, mut resource) = (Vec::new(), Vec::new());
        for (head, request) in self.requests.try_iter() {
            assert!(head.starts_with("POST /v1/traces HTTP/1.1"), "{head}");
            assert!(head.to_lowercase().contains("content-type: application/x-protobuf"), "{head}");
            for of_resource in request.resource_spans {
                resource = of_resource.resource.expect("who sent them").attributes;
                spans.extend(of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
            }
        }
        (spans, resource)
    }
}

fn take(
    reader: &mut BufReader<TcpStream>,
    mut stream: &TcpStream,
) -> Option<(String, ExportTraceServiceRequest)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        (reader.read_line(&mut head).ok()? > 0).then_some(())?;
    }
    let length =
        head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.expect("a length")];
    reader.read_exact(&mut body).ok()?;
    let request = ExportTraceServiceRequest::decode(body.as_slice()).expect("protobuf");
    stream
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n")
        .ok()?;
    Some((head, request))
}

fn attribute(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key).and_then(|a| a.value.clone()?.value);
    match found {
        Some(Any::StringValue(text)) => text,
        Some(Any::IntValue(number)) => number.to_string(),
        Some(Any::DoubleValue(number)) => number.to_string(),
        other => panic!("{key}: {other:?} in {attributes:#?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn run_of(spans: &[Span]) -> &Span {
    let mut runs = spans.iter().filter(|span| span.name == "run");
    let run = runs.next().unwrap_or_else(|| panic!("no run: {spans:#?}"));
    assert!(runs.next().is_none(), "two runs");
    run
}

#[test]
fn a_run_is_a_span_with_its_stages_below_it() {
    let collector = Collector::start();
    let (project, _receiver) = people("");
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let project = project
        .with_variable("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url)
        .with_variable("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=tests")
        .with_variable("TRACEPARENT", &format!("00-{trace}-b7ad6b7169203331-01"));
    let ended = project.run("people-to-crm");
    assert_eq!(ended.status(), "warning", "{ended:#?}");
    // All have left when the process is gone.
    let (spans, resource) = collector.taken();
    assert_eq!(attribute(&resource, "service.name"), "levin");
    assert_eq!(attribute(&resource, "deployment.environment.name"), "tests");
    let run = run_of(&spans);
    assert_eq!(attribute(&run.attributes, "levin.sync"), "people-to-crm");
    assert_eq!(attribute(&run.attributes, "levin.run"), "1");
    assert_eq!(attribute(&run.attributes, "levin.status"), "warning");
    assert_eq!(attribute(&run.attributes, "levin.rows.accepted"), "3");
    assert_eq!(attribute(&run.attributes, "levin.rows.rejected"), "1");
    // It belongs to whoever called.
    assert_eq!((hex(&run.trace_id).as_str(), hex(&run.parent_span_id).as_str()), (trace, "b7ad6b7169203331"));

    let mut stages: Vec<&Span> = spans.iter().filter(|span| span.name != "run").collect();
    stages.sort_by_key(|span| span.start_time_unix_nano);
    let names: Vec<&str> = stages.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["prepare", "diff", "plan", "deliver", "commit", "prune"]);
    let mut before = run.start_time_unix_nano;
    for stage in stages {
        assert_eq!((&stage.parent_span_id, &stage.trace_id), (&run.span_id, &run.trace_id), "{}", stage.name);
        // One after the other, none outside the run.
        assert!(
            stage.start_time_unix_nano >= before && stage.end_time_unix_nano >= stage.start_time_unix_nano
        );
        before = stage.end_time_unix_nano;
        assert!(attribute(&stage.attributes, "levin.warehouse.statements").parse::<u64>().is_ok());
    }
    assert!(run.end_time_unix_nano >= before);
}

#[test]
fn a_service_sends_its_runs_and_what_failed_says_why() {
    let collector = Collector::start();
    let (project, _receiver) = people("schedule: {every: 1h}\n");
    project.sql("alter table people rename to elsewhere");
    let project = project
        .with_variable("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url)
        .with_variable("OTEL_SERVICE_NAME", "levin-of-tests")
        .with_variable("OTEL_BSP_SCHEDULE_DELAY", "200");
    let served = Served::start(&project);
    let (spans, resource) = collector.waits();
    assert_eq!(attribute(&resource, "service.name"), "levin-of-tests");
    let run = run_of(&spans);
    assert_eq!(attribute(&run.attributes, "levin.status"), "failed");
    assert_eq!(attribute(&run.attributes, "error.type"), "MODEL_FAILED");
    let status = run.status.as_ref().expect("a status");
    // The code, and nothing of what the warehouse said.
    assert_eq!((status.code(), status.message.as_str()), (StatusCode::Error, "MODEL_FAILED"));
    assert!(run.parent_span_id.is_empty(), "a schedule belongs to nothing greater");
    // A run that somebody asks for belongs to the trace of whoever did.
    project.sql("alter table elsewhere rename to people");
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let question = served.ask("POST", "/api/v1/syncs/1/trigger").key(&project.key("job", "run"));
    let question = question.header("traceparent", &format!("00-{trace}-00f067aa0ba902b7-01"));
    assert_eq!(question.json(&json!({})).send().status, 200);
    let (spans, _) = collector.waits();
    let run = run_of(&spans);
    assert_eq!((hex(&run.trace_id).as_str(), hex(&run.parent_span_id).as_str()), (trace, "00f067aa0ba902b7"));
    assert_eq!(attribute(&run.attributes, "levin.status"), "warning");
    assert_eq!(served.stop(), 0);
}

#[test]
fn a_collector_that_is_away_or_silent_stops_no_run() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let gone = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its address");
    for address in [gone, silent.local_addr().expect("its address")] {
        let (project, receiver) = people("");
        let project = project
            .with_variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &format!("http://{address}/v1/traces"));
        let run = project.run("people-to-crm");
        assert_eq!((run.status(), run.code), ("warning", 1), "{run:#?}");
        assert_eq!(receiver.rows().len(), 3);
        assert!(run.stderr.contains("spans"), "nobody hears that there are no traces: {}", run.stderr);
    }
    // Nothing is sent to nobody: without a collector no word is said of it.
    let (project, _receiver) = people("");
    assert!(!project.run("people-to-crm").stderr.contains("span"));
}

#[test]
fn what_the_collector_is_shown_is_shown_to_nobody_else() {
    let gone = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its address");
    let (project, _receiver) = people("");
    let project = project
        .with_variable("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://levin:pass%2Fphrase@{gone}"))
        .with_variable("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20toktoktok");
    let ended = project.levin(&["-vvv", "run", "people-to-crm"]);
    assert!(ended.stderr.contains(&gone.to_string()), "the exporter says nothing: {ended:#?}");
    for secret in ["pass%2Fphrase", "pass/phrase", "toktoktok"] {
        assert!(!ended.stderr.contains(secret), "{secret}: {ended:#?}");
    }
}
