//! Lines of log as programs read them, from real runs.

use serde_json::Value;

use super::people::people;
use tests::process::Running;
use tests::service::{Served, until};

fn lines(stderr: &str) -> Vec<Value> {
    let lines = stderr.lines().filter(|line| line.starts_with('{'));
    lines.map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

#[test]
fn every_line_of_a_run_says_which_sync_and_run_and_no_value() {
    let (project, _receiver) = people("");
    project.sql("update people set name = 'Sphinx of black quartz' where id = 1");
    let ended = project.levin(&["--log-format", "json", "-vvv", "run", "people-to-crm", "--json"]);
    assert_eq!(ended.code, 1, "{ended:#?}");
    let lines = lines(&ended.stderr);
    let of_run: Vec<&Value> = lines.iter().filter(|line| line["run"].is_u64()).collect();
    assert!(of_run.iter().all(|line| line["run"] == 1 && line["sync"] == "people-to-crm"), "{of_run:#?}");
    for stage in ["prepare", "diff", "plan", "deliver", "commit", "prune"] {
        let found = of_run.iter().find(|line| line["stage"] == stage && line["message"] == "stage ended");
        assert!(
            found.is_some_and(|line| line["seconds"].is_f64() && line["level"] == "INFO"),
            "{stage}: {of_run:#?}"
        );
    }
    // From the first line of the run to its last, whatever levin itself says has both.
    let of_levin = |line: &&Value| {
        line["target"]
            .as_str()
            .is_some_and(|t| t.starts_with("orchestrator::run") || t.starts_with("connectors"))
    };
    let nameless: Vec<&Value> = lines
        .iter()
        .filter(of_levin)
        .filter(|line| line["sync"].is_null() || line["run"].is_null())
        .collect();
    assert!(nameless.is_empty(), "{nameless:#?}");
    assert!(lines.iter().filter(of_levin).count() > 10, "{lines:#?}");
    for line in &lines {
        let at = line["timestamp"].as_str().expect("a moment");
        assert!(at.len() == 24 && at.ends_with('Z'), "{at}");
        assert!(line["target"].is_string() && line["level"].is_string(), "{line}");
        assert!(line["message"].is_string() || !of_levin(&line), "{line}");
    }
    assert!(!ended.stderr.contains("Sphinx"), "a row's value was logged");
}

#[test]
fn a_service_tells_runs_apart() {
    let (project, _receiver) = people("schedule: {every: 1s}\n");
    let served = Served::start_with(&project, &["--log-format", "json"]);
    let both = |lines: &[Value]| {
        [1, 2].iter().all(|run| lines.iter().any(|l| l["run"] == *run && l["stage"] == "prune"))
    };
    let lines = until("two runs", || Some(lines(&served.said())).filter(|lines| both(lines)));
    for run in [1, 2] {
        let stages = lines
            .iter()
            .filter(|l| l["run"] == run && l["sync"] == "people-to-crm" && l["message"] == "stage ended");
        assert!(stages.count() >= 4, "run {run}: {lines:#?}");
    }
}

#[test]
fn for_people_the_run_stands_before_the_line() {
    let (project, _receiver) = people("");
    let ended = project.levin(&["-v", "run", "people-to-crm", "--json"]);
    assert!(
        ended
            .stderr
            .contains("run{sync=\"people-to-crm\" run=1}: orchestrator::run: stage ended stage=\"diff\""),
        "{}",
        ended.stderr
    );
    // A filter that shows only warnings takes nothing away from them.
    let command = project.command_of(
        tests::process::levin_binary(),
        &[],
        &["--log-format", "json", "run", "people-to-crm"],
    );
    assert!(lines(&Running::start(command).ended().stderr).iter().all(|line| line["level"] != "INFO"));
}
