//! What a person sees while a run goes on: bars on a terminal, one line per stage everywhere.

use tests::project::{Ended, Engine};

use super::{Crm, SYNC, on_both_warehouses};

on_both_warehouses!(
    a_person_sees_no_progress,
    several_syncs_draw_over_each_other,
    control_characters_reach_what_is_no_terminal,
);

const STAGES: [&str; 5] = ["prepare", "diff", "plan", "deliver", "commit"];

/// A project of 60 rows that leave in requests of five.
fn crm(engine: Engine) -> Crm {
    let crm = Crm::new(engine, 60, "mode: upsert");
    with_small_requests(&crm, SYNC);
    crm
}

fn with_small_requests(crm: &Crm, sync: &str) {
    crm.project.write(
        &format!("syncs/{sync}.yml"),
        "model: customers\ndestination: crm\nmode: upsert\neach: {method: POST, path: /rows, batch_size: 5}\n",
    );
}

/// The lines as they stay on the screen: what was drawn again or erased is gone.
fn lines_left(ended: &Ended) -> Vec<String> {
    let mut lines = Vec::new();
    for line in ended.stdout.split("\r\n") {
        let line = line.rsplit(['\r']).next().unwrap_or(line);
        let line = line.rsplit("\u{1b}[2K").next().unwrap_or(line);
        lines.push(without_colours(line));
    }
    lines.retain(|line| !line.trim().is_empty());
    lines
}

/// Without `ESC [ … m`.
fn without_colours(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_digit() && c != ';');
        match end {
            Some(end) if part[end..].starts_with('m') => plain.push_str(&part[end + 1..]),
            _ => plain.push_str(&format!("\u{1b}[{part}")),
        }
    }
    plain
}

fn has_colours(text: &str) -> bool {
    without_colours(text) != text
}

/// One line for each stage, in the order of the stages, each beginning so.
fn tells_every_stage_once(lines: &[String], prefix: &str) {
    let told: Vec<&str> = lines
        .iter()
        .filter_map(|line| line.strip_prefix(prefix))
        .filter_map(|line| STAGES.into_iter().find(|stage| line.starts_with(&format!("{stage:8} "))))
        .collect();
    assert_eq!(told, STAGES, "{lines:#?}");
}

/// What stands before and after the words in each drawing of the bar.
fn drawings(ended: &Ended) -> Vec<String> {
    let drawn = ended.stdout.split(['\r', '\n', '\u{1b}']);
    drawn.filter(|text| text.contains("rows/s")).map(str::to_owned).collect()
}

fn a_person_sees_no_progress(engine: Engine) {
    let mut crm = crm(engine);
    let ended = crm.project.levin_on_terminal("xterm-256color", &["run", SYNC]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let bars = drawings(&ended);
    assert!(bars.iter().any(|bar| bar.contains(" 0/60 rows")), "it begins with nothing: {bars:#?}");
    assert!(bars.iter().any(|bar| bar.contains(" 5/60 rows")), "and grows: {bars:#?}");
    for bar in &bars {
        let (_, figures) = bar.split_once("/60 rows · ").unwrap_or_else(|| panic!("{bar}"));
        let (rate, left) = figures.split_once(" rows/s · ").unwrap_or_else(|| panic!("{bar}"));
        assert!(rate.replace(',', "").parse::<u64>().is_ok(), "a rate: {bar}");
        assert!(left.trim_end().ends_with("s left"), "a time: {bar}");
    }
    assert!(bars.iter().any(|bar| !bar.contains(" · 0 rows/s")), "it never had a rate: {bars:#?}");
    let lines = lines_left(&ended);
    tells_every_stage_once(&lines, "");
    assert!(lines.iter().all(|line| !line.contains("left")), "the bar stays: {lines:#?}");
    assert!(lines.last().is_some_and(|line| line.starts_with("ok: ")), "{lines:#?}");
    assert!(has_colours(&ended.stdout), "{ended:?}");

    // Nobody wants colours: the bar needs none.
    crm.project.sql("update customers set name = 'x'");
    crm.project.set_variable("NO_COLOR", "1");
    let ended = crm.project.levin_on_terminal("xterm-256color", &["run", SYNC]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(!drawings(&ended).is_empty() && !has_colours(&ended.stdout), "{ended:?}");
    tells_every_stage_once(&lines_left(&ended), "");
    crm.project.set_variable("NO_COLOR", "");
    crm.project.sql("update customers set name = 'y'");
    let ended = crm.project.levin_on_terminal("xterm-256color", &["--color", "never", "run", SYNC]);
    assert!(!drawings(&ended).is_empty() && !has_colours(&ended.stdout), "{ended:?}");

    // Nothing to do, nothing to draw.
    let ended = crm.project.levin_on_terminal("xterm-256color", &["run", SYNC]);
    assert_eq!((ended.code, drawings(&ended).len()), (0, 0), "{ended:?}");
}

fn several_syncs_draw_over_each_other(engine: Engine) {
    let crm = crm(engine);
    let other = "customers-again";
    with_small_requests(&crm, other);
    for arguments in [&["run", SYNC, other][..], &["run", "--all", "--full-resync"]] {
        let ended = crm.project.levin_on_terminal("xterm-256color", arguments);
        assert_eq!(ended.code, 0, "{ended:?}");
        let lines = lines_left(&ended);
        for sync in [SYNC, other] {
            let bars = drawings(&ended);
            assert!(bars.iter().any(|bar| bar.contains(&format!("{sync}: deliver "))), "{bars:#?}");
            tells_every_stage_once(&lines, &format!("{sync}: "));
        }
        assert!(lines.iter().all(|line| !line.contains("left")), "a bar stays: {lines:#?}");
    }
}

fn control_characters_reach_what_is_no_terminal(engine: Engine) {
    let crm = crm(engine);
    let no_control = |text: &str| assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    let ended = crm.project.levin(&["run", SYNC]);
    assert_eq!((ended.code, ended.stdout.as_str()), (0, ""), "{ended:?}");
    no_control(&ended.stderr);
    let lines: Vec<String> = ended.stderr.lines().map(str::to_owned).collect();
    tells_every_stage_once(&lines, "");
    assert_eq!(lines.len(), STAGES.len() + 1, "and the end: {lines:#?}");

    // A terminal that cannot draw is no better than a file.
    crm.project.sql("update customers set name = 'x'");
    let ended = crm.project.levin_on_terminal("dumb", &["run", SYNC]);
    assert_eq!((ended.code, drawings(&ended).len()), (0, 0), "{ended:?}");
    let text = ended.stdout.replace("\r\n", "\n");
    no_control(&text);
    tells_every_stage_once(&text.lines().map(str::to_owned).collect::<Vec<_>>(), "");

    // A program reads: no bar, no lines, nothing but the report.
    crm.project.sql("update customers set name = 'y'");
    let ended = crm.project.levin_on_terminal("xterm-256color", &["run", SYNC, "--json"]);
    let text = ended.stdout.replace("\r\n", "\n");
    no_control(&text);
    assert_eq!((ended.code, text.lines().count()), (0, 1), "{ended:?}");
}
