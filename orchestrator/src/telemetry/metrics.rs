//! Figures for Prometheus. What happens is counted where it happens; what is (a queue, the last success) is looked up
//! when somebody asks, so that it is true after a new start and for every replica. `deploy/README.md` has the same table,
//! and a test compares it with what a service tells.

use std::fmt::Write as _;
use std::sync::OnceLock;
use std::time::Duration;

use chrono::DateTime;
use connectors::change::Operation;
use metrics::{Label, counter, describe_counter, describe_histogram, histogram};
use metrics_exporter_prometheus::formatting::sanitize_label_value;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::project::{Project, SyncSpec};
use crate::run::{OperationCounts, RunReport, Stage, Status};
use crate::store::{QueueFigures, SyncFigures};

/// What grows: name, and what it counts.
const COUNTERS: &[(&str, &str)] = &[
    (RUNS, "Runs that ended here, by how"),
    (ROWS, "Rows of runs, by what the diff made of them and how they ended"),
    (ROWS_IN_DOUBT, "Rows among the rejected that may have been applied; they come again"),
    (ROWS_QUERIED, "Rows that models returned"),
    (CALLS, "Requests or transactions that left for destinations"),
    (RETRIES, "Calls that repeated another"),
    (STATEMENTS, "Statements that ran in warehouses"),
    (BYTES_SCANNED, "Bytes that warehouses scanned, where they tell"),
    (REQUESTS, "Requests to this service, by the route that took them"),
    (STORE_ERRORS, "Statements that the store refused or did not answer"),
];

/// What is spread: name, what it measures, and the upper ends of its buckets.
const HISTOGRAMS: &[(&str, &str, &[f64])] = &[
    (
        RUN_SECONDS,
        "How long runs took",
        &[0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0],
    ),
    (STAGE_SECONDS, "How long each stage of them took", &[1.0, 10.0, 60.0, 600.0]),
    (
        LAG,
        "From the moment that a schedule named to the run's first statement",
        &[0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0],
    ),
    (REQUEST_SECONDS, "How long answers took", &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0]),
];

const RUNS: &str = "levin_runs_total";
const RUN_SECONDS: &str = "levin_run_seconds";
const STAGE_SECONDS: &str = "levin_stage_seconds";
const ROWS: &str = "levin_rows_total";
const ROWS_IN_DOUBT: &str = "levin_rows_in_doubt_total";
const ROWS_QUERIED: &str = "levin_rows_queried_total";
const CALLS: &str = "levin_destination_calls_total";
const RETRIES: &str = "levin_destination_retries_total";
const STATEMENTS: &str = "levin_warehouse_statements_total";
const BYTES_SCANNED: &str = "levin_warehouse_bytes_scanned_total";
const LAG: &str = "levin_schedule_lag_seconds";
const REQUESTS: &str = "levin_api_requests_total";
const REQUEST_SECONDS: &str = "levin_api_request_seconds";
const STORE_ERRORS: &str = "levin_store_errors_total";

const ACCEPTED: &str = "accepted";
const REJECTED: &str = "rejected";

static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Begins to count, once in a process; before, and in commands, counting does nothing. `None` when somebody else counts.
fn recorder() -> Option<&'static PrometheusHandle> {
    let made = RECORDER.get_or_init(|| {
        let mut builder = PrometheusBuilder::new();
        for (name, _, buckets) in HISTOGRAMS {
            builder = builder.set_buckets_for_metric(Matcher::Full((*name).to_owned()), buckets).ok()?;
        }
        let handle = builder.install_recorder().ok()?;
        for (name, what) in COUNTERS {
            describe_counter!(*name, *what);
        }
        for (name, what, _) in HISTOGRAMS {
            describe_histogram!(*name, *what);
        }
        counter!(STORE_ERRORS).absolute(0);
        Some(handle)
    });
    made.as_ref()
}

/// Begins to count, with the syncs of a project at 0.
pub fn begin(project: &Project) {
    recorder();
    at_zero(project);
}

/// Shows what of each sync is watched for growth before anything has grown: `rate` and `increase` see a figure only from
/// its first value on, and would miss the first run after every start, which of a daily sync may be every run. Only how
/// runs ended: of ten thousand syncs every series costs megabytes.
pub fn at_zero(project: &Project) {
    for sync in &project.syncs {
        let labels = labels_of(sync);
        for status in [Status::Success, Status::Failed] {
            counter!(RUNS, and(&labels, &[("status", status.name())])).increment(0);
        }
    }
}

/// Gives back what samples take that nobody fetched.
pub fn tidy() {
    if let Some(recorder) = recorder() {
        recorder.run_upkeep();
    }
}

fn and(labels: &[Label], more: &[(&'static str, &'static str)]) -> Vec<Label> {
    let more = more.iter().map(|(name, value)| Label::from_static_parts(name, value));
    labels.iter().cloned().chain(more).collect()
}

fn labels_of(sync: &SyncSpec) -> Vec<Label> {
    [("sync", &sync.slug), ("source", &sync.model.source.slug), ("destination", &sync.destination.slug)]
        .map(|(name, value)| Label::new(name, value.clone()))
        .to_vec()
}

/// A run ended. `tick` is the moment that its schedule named, in milliseconds since 1970, when a schedule wanted it.
pub fn run_ended(sync: &SyncSpec, report: &RunReport, tick: Option<i64>) {
    let labels = labels_of(sync);
    let first = report.first_statement_at.as_deref().and_then(|at| DateTime::parse_from_rfc3339(at).ok());
    if let (Some(tick), Some(first)) = (tick, first) {
        let lag = u64::try_from(first.timestamp_millis() - tick).unwrap_or_default();
        histogram!(LAG, labels.clone()).record(Duration::from_millis(lag));
    }
    let with = |more: &[(&'static str, &'static str)]| and(&labels, more);
    for status in Status::ALL {
        counter!(RUNS, with(&[("status", status.name())])).increment(u64::from(status == report.status));
    }
    histogram!(RUN_SECONDS, labels.clone()).record(report.stages.values().sum::<f64>().abs());
    for stage in Stage::ALL {
        if let Some(seconds) = report.stages.get(stage.name()) {
            histogram!(STAGE_SECONDS, with(&[("stage", stage.name())])).record(*seconds);
        }
    }
    let outcomes: [(&str, &OperationCounts); 4] = [
        (ACCEPTED, &report.successful_rows),
        (REJECTED, &report.failed_rows),
        ("unsent", &report.aborted_rows),
        ("parked", &report.parked_rows),
    ];
    for (outcome, counts) in outcomes {
        for operation in Operation::ALL {
            let labels = with(&[("operation", operation.name()), ("outcome", outcome)]);
            counter!(ROWS, labels).increment(counts.of(operation));
        }
    }
    counter!(ROWS_IN_DOUBT, labels.clone()).increment(report.in_doubt_count);
    counter!(ROWS_QUERIED, labels.clone()).increment(report.query_size.unwrap_or_default());
    counter!(CALLS, labels.clone()).increment(report.destination_calls);
    counter!(RETRIES, labels.clone()).increment(report.retries);
    let usage = &report.cost.total;
    counter!(STATEMENTS, labels.clone()).increment(usage.statements);
    if let Some(bytes) = usage.cost.bytes_scanned {
        counter!(BYTES_SCANNED, labels).increment(bytes);
    }
}

/// A request was answered. A route is the pattern that took it, never the address that was asked for.
pub fn answered(route: &str, method: &'static str, status: u16, took: Duration) {
    let labels = vec![
        Label::new("route", route.to_owned()),
        Label::from_static_parts("method", method),
        Label::new("status", status.to_string()),
    ];
    histogram!(REQUEST_SECONDS, "route" => route.to_owned()).record(took);
    counter!(REQUESTS, labels).increment(1);
}

/// The store refused a statement, or did not answer.
pub(crate) fn store_failed() {
    counter!(STORE_ERRORS).increment(1);
}

/// What is at the moment when somebody asks.
#[derive(Debug)]
pub struct Moment<'a> {
    /// Runs that go on in this process.
    pub running_here: usize,
    /// The queue; `None` when the store does not answer.
    pub queue: Option<QueueFigures>,
    /// The syncs, and how their last runs ended.
    pub syncs: Vec<(&'a SyncSpec, SyncFigures)>,
}

/// Everything that is counted, and what is at this moment, as Prometheus reads it.
pub fn page(moment: &Moment<'_>) -> String {
    let mut page = recorder().map(PrometheusHandle::render).unwrap_or_default();
    gauge(
        &mut page,
        "levin_build_info",
        "Which levin this is",
        [("version", env!("CARGO_PKG_VERSION"), 1.0)],
    );
    gauge(
        &mut page,
        "levin_runs_running_here",
        "Runs that go on in this process",
        alone(moment.running_here as f64),
    );
    if let Some(queue) = &moment.queue {
        let age = queue.oldest.map_or(0, |since| (crate::store::now() - since).max(0));
        for (name, what, value) in [
            ("levin_runs_running", "Runs that go on, on all replicas together", queue.running as f64),
            ("levin_runs_waiting", "Runs that wait, for all replicas together", queue.waiting as f64),
            (
                "levin_runs_waiting_oldest_seconds",
                "For how long the oldest of them might have begun",
                age as f64 / 1e3,
            ),
        ] {
            gauge(&mut page, name, what, alone(value));
        }
    }
    let of_syncs = |value: fn(&SyncFigures) -> Option<f64>| {
        moment.syncs.iter().filter_map(move |(sync, last)| Some((labels_of(sync), value(last)?)))
    };
    let succeeded = of_syncs(|last| {
        let at = DateTime::parse_from_rfc3339(last.succeeded_at.as_deref()?).ok()?;
        Some(at.timestamp_millis() as f64 / 1e3)
    });
    let what = "When a run last ended as success or warning, in seconds since 1970";
    labelled(&mut page, "levin_sync_last_success_timestamp_seconds", what, succeeded);
    let failing =
        of_syncs(|last| Some(f64::from(u8::from(last.status.as_deref()? == Status::Failed.name()))));
    labelled(&mut page, "levin_sync_failing", "1 when the last run that ended failed, else 0", failing);
    process::write(&mut page);
    page
}

fn alone(value: f64) -> [(&'static str, &'static str, f64); 1] {
    [("", "", value)]
}

/// Figures of one name, each with at most one label.
fn gauge<'a>(
    page: &mut String,
    name: &str,
    what: &str,
    values: impl IntoIterator<Item = (&'a str, &'a str, f64)>,
) {
    let values = values.into_iter().map(|(label, of, value)| {
        let labels =
            if label.is_empty() { Vec::new() } else { vec![Label::new(label.to_owned(), of.to_owned())] };
        (labels, value)
    });
    labelled(page, name, what, values);
}

fn labelled(page: &mut String, name: &str, what: &str, values: impl IntoIterator<Item = (Vec<Label>, f64)>) {
    write_figures(page, name, "gauge", what, values);
}

fn write_figures(
    page: &mut String,
    name: &str,
    kind: &str,
    what: &str,
    values: impl IntoIterator<Item = (Vec<Label>, f64)>,
) {
    let mut values = values.into_iter().peekable();
    if values.peek().is_none() {
        return;
    }
    // Writing into a String cannot fail.
    let _ = writeln!(page, "# HELP {name} {what}\n# TYPE {name} {kind}");
    for (labels, value) in values {
        let labels =
            labels.iter().map(|label| format!("{}=\"{}\"", label.key(), sanitize_label_value(label.value())));
        let labels = labels.collect::<Vec<_>>().join(",");
        let _ = match labels.as_str() {
            "" => writeln!(page, "{name} {value}"),
            labels => writeln!(page, "{name}{{{labels}}} {value}"),
        };
    }
    page.push('\n');
}

/// What the process itself takes, under the names that every client of Prometheus gives it. Where there is no `/proc`
/// nothing is told.
mod process {
    use std::fs;

    use super::write_figures;

    pub(super) fn write(page: &mut String) {
        let Some(figures) = read() else { return };
        for (name, kind, what, value) in figures {
            write_figures(page, name, kind, what, [(Vec::new(), value)]);
        }
    }

    fn read() -> Option<[(&'static str, &'static str, &'static str, f64); 4]> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The name may hold spaces and brackets; the numbers begin behind its last bracket.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<f64>().ok();
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let boot = fs::read_to_string("/proc/stat").ok()?;
        let boot: f64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
        let open = fs::read_dir("/proc/self/fd").ok()?.count() as f64;
        Some([
            (
                "process_cpu_seconds_total",
                "counter",
                "Processor time that the process has taken, in seconds",
                (number(11)? + number(12)?) / ticks,
            ),
            (
                "process_resident_memory_bytes",
                "gauge",
                "Memory that the process holds, in bytes",
                number(21)? * rustix::param::page_size() as f64,
            ),
            ("process_open_fds", "gauge", "Files and sockets that the process has open", open),
            (
                "process_start_time_seconds",
                "gauge",
                "When the process began, in seconds since 1970",
                boot + number(19)? / ticks,
            ),
        ])
    }
}
