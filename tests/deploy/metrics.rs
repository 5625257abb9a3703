//! The figures: what a service tells after real runs, and what the table in `deploy/README.md` says of them.

use std::collections::{BTreeMap, BTreeSet};

use super::checked::read;
use super::people::people;
use rustix::process::Signal;
use tests::postgres::PostgresServer;
use tests::project::Project;
use tests::service::{Served, until};

/// A figure as the page or the table has it.
#[derive(Debug, PartialEq, Eq)]
struct Family {
    kind: String,
    meaning: String,
    labels: BTreeSet<String>,
}

/// A page of Prometheus' text form.
#[derive(Debug, Default)]
struct Page {
    families: BTreeMap<String, Family>,
    /// Values by the text before them.
    values: BTreeMap<String, f64>,
}

impl Page {
    fn of(text: &str) -> Self {
        let mut page = Self::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, meaning) = rest.split_once(' ').expect("a meaning");
                let family =
                    Family { kind: String::new(), meaning: meaning.to_owned(), labels: BTreeSet::new() };
                assert!(page.families.insert(name.to_owned(), family).is_none(), "{name} is told twice");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type");
                page.families.get_mut(name).unwrap_or_else(|| panic!("{name} has no meaning")).kind =
                    kind.to_owned();
            } else {
                let (before, value) = line.rsplit_once(' ').expect("a value");
                let (name, labels) =
                    before.split_once('{').map_or((before, ""), |(n, l)| (n, l.trim_end_matches('}')));
                let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| {
                    let name = name.strip_suffix(end)?;
                    page.families.get(name).is_some_and(|family| family.kind == "histogram").then_some(name)
                });
                let family =
                    page.families.get_mut(of_histogram.unwrap_or(name)).unwrap_or_else(|| panic!("{name}"));
                let labels = labels
                    .split("\",")
                    .filter_map(|label| label.split_once("=\""))
                    .map(|(name, _)| name.to_owned());
                family.labels.extend(labels.filter(|name| name != "le"));
                let value = value.parse().unwrap_or_else(|e| panic!("{line}: {e}"));
                assert!(page.values.insert(before.to_owned(), value).is_none(), "{before} is told twice");
            }
        }
        page
    }

    /// The sum of all values whose text has each of these parts.
    fn sum(&self, name: &str, parts: &[&str]) -> f64 {
        let named = self.values.iter().filter(|(text, _)| text.split('{').next() == Some(name));
        named.filter(|(text, _)| parts.iter().all(|part| text.contains(part))).map(|(_, value)| value).sum()
    }
}

/// What a service on this machine alone tells whoever asks.
fn told(served: &Served) -> Page {
    let answer = served.ask("GET", "/metrics").send();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.headers["content-type"].starts_with("text/plain; version=0.0.4"), "{answer:?}");
    Page::of(&answer.text)
}

/// Waits until so many runs have ended.
fn ran(served: &Served, runs: f64) -> Page {
    until("runs end", || Some(told(served)).filter(|page| page.sum("levin_runs_total", &[]) >= runs))
}

/// The table of the README.
pub fn table() -> BTreeMap<String, (String, BTreeSet<String>, String)> {
    let text = read("deploy/README.md");
    let rows = text.lines().filter(|line| line.starts_with("| `levin_") || line.starts_with("| `process_"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, meaning] = cells[..] else { panic!("{row}") };
        let labels = labels.split(", ").filter(|label| !label.is_empty()).map(str::to_owned).collect();
        (name.trim_matches('`').to_owned(), (kind.to_owned(), labels, meaning.to_owned()))
    })
    .collect()
}

#[test]
fn the_table_and_a_service_tell_the_same() {
    let (project, receiver) = people("schedule: {every: 1s}\n");
    let served = Served::start(&project);
    ran(&served, 2.0);
    // What was asked just now is counted by now.
    let page = told(&served);
    let told: BTreeMap<String, (String, BTreeSet<String>, String)> =
        page.families.into_iter().map(|(name, f)| (name, (f.kind, f.labels, f.meaning))).collect();
    let mut table = table();
    // DuckDB does not tell what it scans.
    assert!(
        table
            .remove("levin_warehouse_bytes_scanned_total")
            .is_some_and(|(_, _, meaning)| meaning.ends_with("where they tell"))
    );
    assert_eq!(told, table);
    assert_eq!(served.stop(), 0);
    drop(receiver);
}

#[test]
fn figures_say_what_happened() {
    say_what_happened("name: scenario\n");
}

#[test]
fn figures_say_what_happened_whichever_store_remembers() {
    let store = PostgresServer::start().fresh_database();
    say_what_happened(&format!("name: scenario\nstore: {store}\n"));
}

fn say_what_happened(file: &str) {
    let (project, receiver) = people("");
    project.write("levin.yml", file);
    project.run("people-to-crm");
    project.sql("insert into people values (5, 'Barbara')");
    // What ran before the service did is history: the last success is known, nothing is counted.
    let served = Served::start(&project);
    let page = told(&served);
    let crm = "sync=\"people-to-crm\",source=\"wh\",destination=\"crm\"";
    let of_sync = format!("{{{crm}}}");
    assert_eq!(page.values[&format!("levin_sync_failing{of_sync}")], 0.0);
    let succeeded = page.values[&format!("levin_sync_last_success_timestamp_seconds{of_sync}")];
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs_f64();
    assert!((0.0..600.0).contains(&(now - succeeded)), "{succeeded} and {now}");
    assert_eq!(page.sum("levin_runs_total", &[]), 0.0);
    // What the first run makes of them is a step and not a beginning.
    for series in ["levin_runs_total{CRM,status=\"failed\"}", "levin_runs_total{CRM,status=\"success\"}"] {
        assert_eq!(page.values.get(&series.replace("CRM", crm)), Some(&0.0), "{series}");
    }
    assert_eq!(page.values["levin_runs_waiting"], 0.0);

    // The schedule comes with the next reading of the project, and so does another sync.
    let sync = std::fs::read_to_string(project.path().join("syncs/people-to-crm.yml")).expect("a sync");
    project.write("syncs/people-to-crm.yml", &format!("{sync}schedule: {{every: 1h}}\n"));
    project.write("syncs/second.yml", &sync);
    served.signal(Signal::HUP);
    let second = crm.replace("people-to-crm", "second");
    until("the second is there", || {
        let values = told(&served).values;
        values.get(&format!("levin_runs_total{{{second},status=\"failed\"}}")).copied()
    });
    let page = ran(&served, 1.0);
    let one = |name: &str, parts: &[&str]| page.sum(name, &[&[crm], parts].concat());
    assert_eq!(one("levin_runs_total", &["status=\"warning\""]), 1.0);
    assert_eq!(one("levin_runs_total", &[]), 1.0, "the other ways to end are there, and 0");
    assert_eq!(one("levin_rows_total", &["operation=\"added\"", "outcome=\"accepted\""]), 1.0);
    assert_eq!(one("levin_rows_total", &["operation=\"added\"", "outcome=\"rejected\""]), 1.0);
    assert_eq!(one("levin_rows_total", &[]), 2.0);
    assert_eq!(one("levin_rows_queried_total", &[]), 5.0);
    assert_eq!(one("levin_run_seconds_count", &[]), 1.0);
    assert_eq!(one("levin_schedule_lag_seconds_count", &[]), 1.0);
    for stage in ["prepare", "diff", "plan", "deliver", "commit", "prune"] {
        assert_eq!(one("levin_stage_seconds_count", &[&format!("stage=\"{stage}\"")]), 1.0, "{stage}");
    }
    let calls = project.history()[0]["destinationCalls"].as_u64().expect("a number");
    assert_eq!(one("levin_destination_calls_total", &[]), calls as f64);
    let statements = project.history()[0]["cost"]["statements"].as_u64().expect("a number");
    assert_eq!(one("levin_warehouse_statements_total", &[]), statements as f64);

    // Requests are counted by route: what somebody makes up is no label.
    for path in ["/made-up/by/somebody", "/api/v1/made-up", "/api/made-up"] {
        served.ask("GET", path).send();
    }
    served.ask("FROB", "/healthz").send();
    served.get(&project.key("reader", "read"), "/api/v1/syncs/1");
    let page = told(&served);
    let of_sync_page = ["route=\"/api/v1/syncs/{syncId}\"", "method=\"GET\"", "status=\"200\""];
    assert_eq!(page.sum("levin_api_requests_total", &of_sync_page), 1.0, "{:#?}", page.values);
    assert_eq!(
        page.sum("levin_api_requests_total", &["route=\"none\"", "method=\"GET\"", "status=\"404\""]),
        1.0
    );
    assert_eq!(page.sum("levin_api_requests_total", &["route=\"/healthz\"", "method=\"other\""]), 1.0);
    assert!(page.sum("levin_api_requests_total", &["route=\"/metrics\"", "status=\"200\""]) >= 2.0);
    assert!(!page.values.keys().any(|text| text.contains("made-up") || text.contains("FROB")));
    assert!(
        page.values["process_resident_memory_bytes"] > 1e6 && page.values["process_cpu_seconds_total"] > 0.0
    );
    let age = now - page.values["process_start_time_seconds"];
    assert!((-60.0..600.0).contains(&age), "the process is {age} s old");

    // A run that fails makes the sync failing, at once and after a new start.
    project.sql("drop table people");
    project.levin(&["run", "people-to-crm"]);
    assert_eq!(told(&served).values[&format!("levin_sync_failing{of_sync}")], 1.0);
    assert_eq!(served.stop(), 0);
    drop(receiver);
}

#[test]
fn whoever_asks_from_elsewhere_needs_a_key() {
    let (project, _receiver) = people("");
    let listens_everywhere = |project: &Project| {
        project.write("levin.yml", "name: scenario\nserve: {listen: \"0.0.0.0:0\"}\n");
        Served::start_as_configured(project)
    };
    let served = listens_everywhere(&project);
    let refused = served.ask("GET", "/metrics").send();
    assert_eq!(refused.status, 401, "{refused:?}");
    assert!(!refused.text.contains("levin_build_info"));
    assert_eq!(served.get("levin_0123456789abcdef_x", "/metrics").status, 401);
    let page = served.get(&project.key("prometheus", "read"), "/metrics");
    assert_eq!(page.status, 200, "{page:?}");
    assert_eq!(Page::of(&page.text).values["levin_runs_waiting"], 0.0);
    // Whether it lives is nobody's secret.
    assert_eq!(served.ask("GET", "/healthz").send().status, 200);
}
