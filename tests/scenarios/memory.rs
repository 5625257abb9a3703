//! What `levin` needs does not grow with the rows that it carries.

use std::time::Duration;

use tests::project::{Engine, Project};

/// Rows of four kilobytes: a hundred and forty megabytes that must pass through and not stay.
const MANY: u32 = 35_000;
const FEW: u32 = 7_000;
/// What a run may need beyond one of few rows, in kilobytes.
const MARGIN: u64 = 56 * 1024;

/// The most memory that a run into a file held, in kilobytes.
fn peak(project: &Project, rows: u32, format: &str) -> u64 {
    project.sql(&format!(
        "drop table if exists wide; create table wide as select i as id, md5(i::text) || repeat(md5((i + 1)::text), 127) as note \
         from generate_series(1, {rows}) as t(i)"
    ));
    let slug = format!("{format}-{rows}");
    project.write(
        &format!("syncs/{slug}.yml"),
        &format!("model: wide\ndestination: out\nmode: diff\nobject: '{slug}-{{{{ run_id }}}}.{format}'\n"),
    );
    let mut running = project.spawn(&slug, &[]);
    let status = format!("/proc/{}/status", running.pid().as_raw_pid());
    let mut peak = 0;
    while running.is_running() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let held = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).map(str::trim);
        peak = held.and_then(|held| held.trim_end_matches(" kB").parse().ok()).unwrap_or(peak);
        std::thread::sleep(Duration::from_millis(5));
    }
    let run = running.finish();
    assert_eq!((run.code, run.successful()), (0, [u64::from(rows), 0, 0]), "{run:#?}");
    assert!(peak > 0, "nobody knows what it held");
    peak
}

// DuckDB lies in the process itself, and has a memory limit of its own.
#[test]
fn a_run_holds_what_it_carries() {
    let project = Project::new(Engine::Postgres);
    project.write("models/wide.yml", "source: wh\nprimary_key: id\nsql: select id, note from wide\n");
    project.write("destinations/out.yml", "type: files\npath: out\n");
    for format in ["jsonl", "parquet"] {
        let (few, many) = (peak(&project, FEW, format), peak(&project, MANY, format));
        println!("{format}: {few} kB for {FEW} rows, {many} kB for {MANY}");
        assert!(many < few + MARGIN, "{format}: {few} kB for {FEW} rows, {many} kB for {MANY}");
    }
}
