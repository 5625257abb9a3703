//! Traces over OTLP/HTTP: a span for each run, with its stages below it. They are on when the environment names a
//! collector, in the variables that OpenTelemetry lays down; without one nothing is kept and nothing is sent.

use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{
    FutureExt, Span as _, SpanKind, Status, TraceContextExt, Tracer, TracerProvider, WithContext,
};
use opentelemetry::{Context, KeyValue, global};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::runtime::Tokio;
use opentelemetry_sdk::trace::SdkTracerProvider;
use opentelemetry_sdk::trace::span_processor_with_async_runtime::BatchSpanProcessor;
use percent_encoding::percent_decode_str;

use crate::project::SyncSpec;
use crate::redact::{Redactor, url_password};
use crate::run::{RunReport, Stage, Usage};

/// Where spans go; without one of them there are no traces.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
/// Headers for the collector: `name=value,…`, values percent-encoded. What is secret stands here.
const HEADERS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"];
/// What the collector is told of who sends, unless the environment says it.
const SERVICE: &str = "levin";
/// How long the end of the process waits for spans to leave. A collector that is away costs this, and no run.
const PATIENCE: Duration = Duration::from_secs(5);

/// Spans on their way out.
#[derive(Debug)]
pub struct Exporting(SdkTracerProvider);

/// Begins to export, when the environment says where to. Must be called inside the runtime.
pub fn begin(redactor: &Redactor) -> Option<Exporting> {
    let said = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    let off = said("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || said("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
    if off || !ENDPOINTS.iter().any(|name| said(name).is_some()) {
        return None;
    }
    // The exporter's own lines quote addresses.
    for password in ENDPOINTS.iter().filter_map(|name| Some(url_password(&said(name)?)?.to_owned())) {
        redactor.add(&password);
        redactor.add(&percent_decode_str(&password).decode_utf8_lossy());
    }
    for headers in HEADERS.iter().filter_map(|name| said(name)) {
        for value in headers.split(',').filter_map(|header| Some(header.split_once('=')?.1)) {
            redactor.add(value);
            redactor.add(&percent_decode_str(value).decode_utf8_lossy());
        }
    }
    // Endpoint, headers, time-out and compression are read by the exporter itself.
    let exporter = match opentelemetry_otlp::SpanExporter::builder().with_http().build() {
        Ok(exporter) => exporter,
        Err(error) => {
            tracing::warn!(%error, "there are no traces: the exporter cannot be made");
            return None;
        }
    };
    let mut resource =
        Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    let named = said("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|value| value.contains("service.name="));
    if !named && said("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name(SERVICE);
    }
    let provider = SdkTracerProvider::builder()
        .with_resource(resource.build())
        .with_span_processor(BatchSpanProcessor::builder(exporter, Tokio).build())
        .build();
    global::set_tracer_provider(provider.clone());
    Some(Exporting(provider))
}

impl Exporting {
    /// Sends what has not left yet. Must be called outside the runtime, while that still works.
    pub fn end(self) {
        let (done, ended) = mpsc::channel();
        // What ends the exporter waits without a limit of its own.
        std::thread::spawn(move || done.send(self.0.shutdown()));
        match ended.recv_timeout(PATIENCE) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last spans were not taken"),
            Err(_) => tracing::warn!("the last spans were not taken within {} s", PATIENCE.as_secs()),
        }
    }
}

/// What a run belongs to, by the header `traceparent` of whoever asked for it.
pub fn parent(traceparent: Option<&str>) -> Context {
    struct Header<'a>(&'a str);
    impl opentelemetry::propagation::Extractor for Header<'_> {
        fn get(&self, key: &str) -> Option<&str> {
            (key == "traceparent").then_some(self.0)
        }

        fn keys(&self) -> Vec<&str> {
            vec!["traceparent"]
        }
    }
    traceparent.map_or_else(Context::new, |header| {
        TraceContextPropagator::new().extract_with_context(&Context::new(), &Header(header))
    })
}

/// The same, by the variable `TRACEPARENT`: whoever calls levin from a traced job sets it.
pub fn parent_of_process() -> Context {
    parent(std::env::var("TRACEPARENT").ok().as_deref())
}

/// Runs that begin in this future belong to that trace.
pub fn below<F: Future>(parent: Context, runs: F) -> WithContext<F> {
    runs.with_context(parent)
}

/// The trace of one run.
#[derive(Debug)]
pub struct RunTrace {
    /// The run's span is the active one in it.
    context: Context,
    /// When the stage began that goes on.
    since: DateTime<Utc>,
}

impl RunTrace {
    /// A run begins; whether it belongs to something greater says the context around it.
    pub fn begin(sync: &SyncSpec, run: i64, started_at: DateTime<Utc>) -> Self {
        let tracer = global::tracer_provider().tracer(SERVICE);
        let span = tracer
            .span_builder("run")
            .with_kind(SpanKind::Internal)
            .with_start_time(SystemTime::from(started_at))
            .with_attributes([
                KeyValue::new("levin.sync", sync.slug.clone()),
                KeyValue::new("levin.run", run),
                KeyValue::new("levin.model", sync.model.slug.clone()),
                KeyValue::new("levin.source", sync.model.source.slug.clone()),
                KeyValue::new("levin.destination", sync.destination.slug.clone()),
                KeyValue::new("levin.mode", sync.mode.name()),
            ])
            .start_with_context(&tracer, &Context::current());
        Self { context: Context::new().with_span(span), since: started_at }
    }

    /// A stage ended.
    pub fn stage(&mut self, stage: Stage, usage: &Usage) {
        let now = Utc::now();
        let tracer = global::tracer_provider().tracer(SERVICE);
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let mut attributes = vec![
            KeyValue::new("levin.warehouse.statements", number(usage.statements)),
            KeyValue::new("levin.warehouse.seconds", usage.seconds),
            KeyValue::new("levin.warehouse.rows_read", number(usage.rows_read)),
        ];
        let known = usage.rows_written.map(|rows| ("levin.warehouse.rows_written", rows));
        let scanned = usage.cost.bytes_scanned.map(|bytes| ("levin.warehouse.bytes_scanned", bytes));
        attributes
            .extend(known.into_iter().chain(scanned).map(|(key, value)| KeyValue::new(key, number(value))));
        let mut span = tracer
            .span_builder(stage.name())
            .with_start_time(SystemTime::from(self.since))
            .with_attributes(attributes)
            .start_with_context(&tracer, &self.context);
        span.end_with_timestamp(SystemTime::from(now));
        self.since = now;
    }

    /// The run ended so.
    pub fn end(self, report: &RunReport) {
        let span = self.context.span();
        span.set_attribute(KeyValue::new("levin.status", report.status.name()));
        for (key, rows) in [
            ("levin.rows.planned", report.planned_rows.total()),
            ("levin.rows.accepted", report.successful_rows.total()),
            ("levin.rows.rejected", report.failed_rows.total()),
            ("levin.rows.unsent", report.aborted_rows.total()),
            ("levin.destination.calls", report.destination_calls),
            ("levin.destination.retries", report.retries),
        ] {
            span.set_attribute(KeyValue::new(key, i64::try_from(rows).unwrap_or(i64::MAX)));
        }
        if let Some(error) = &report.error {
            // The code alone: a message may quote what a warehouse or a destination said.
            span.set_attribute(KeyValue::new("error.type", error.code.clone()));
            span.set_status(Status::error(error.code.clone()));
        }
        span.end();
    }
}
