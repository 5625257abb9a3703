//! The checklist names a test for every line of the contract, and the tests that it names exist.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The sections of the checklist that come from the issue, not from a contract page.
const OF_THE_ISSUE: [&str; 6] = [
    "Alerts and hooks",
    "Bad input",
    "Clients",
    "Deployed",
    "Events that break naive designs",
    "What goes wrong in other engines",
];

/// The contract pages.
const PAGES: [&str; 2] = ["semantics.md", "cli-and-config.md"];

/// A line of the checklist.
#[derive(Debug)]
struct Line {
    section: String,
    id: String,
    rule: String,
    /// `file::function`, each.
    tests: Vec<String>,
    /// Something of it still has no test.
    open: bool,
    /// The issue that brings it.
    later: Option<u32>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_owned()
}

/// Reads the checklist; a line that cannot be understood is a failure.
fn checklist() -> Vec<Line> {
    let text = fs::read_to_string(root().join("tests/CHECKLIST.md")).expect("the checklist is there");
    let mut section = String::new();
    let mut lines = Vec::new();
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            heading.clone_into(&mut section);
        }
        let Some(row) = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |")) else { continue };
        let cells: Vec<&str> = row.split(" | ").collect();
        let [id, rule, proof] = cells[..] else { panic!("three cells: {line}") };
        if id == "id" {
            continue;
        }
        let (mut tests, mut open, mut later) = (Vec::new(), false, None);
        for part in proof.split(", ") {
            if let Some(test) = part.strip_prefix('`').and_then(|part| part.strip_suffix('`')) {
                tests.push(test.to_owned());
            } else if let Some(issue) = part.strip_prefix("later #") {
                later = Some(issue.parse().unwrap_or_else(|_| panic!("an issue's number: {line}")));
            } else {
                assert_eq!(part, "open", "a test, `later #N` or `open`: {line}");
                open = true;
            }
        }
        assert!(!(open && later.is_some()), "open, or later: {line}");
        lines.push(Line { section: section.clone(), id: id.into(), rule: rule.into(), tests, open, later });
    }
    lines
}

/// The names of the test functions in a Rust file, and of those that a macro runs on each warehouse.
fn tests_of(text: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    for macro_call in ["\non_both_warehouses!(", "\non_every_warehouse!(", "\non_every_destination!("] {
        let listed = text.split(macro_call).nth(1).and_then(|rest| rest.split(");").next());
        // `duckdb_in_memory: a, b`: the word before the colon is no test.
        let names = listed.into_iter().flat_map(|listed| listed.split(','));
        found.extend(
            names.filter_map(|name| name.rsplit(':').next()).map(str::trim).filter(|n| !n.is_empty()),
        );
    }
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some((_, after)) = line
            .split_once("fn ")
            .filter(|(before, _)| before.split_whitespace().all(|word| ["pub", "async"].contains(&word)))
        {
            if is_test {
                found.extend(after.split(|c: char| !c.is_alphanumeric() && c != '_').next());
            }
            is_test = false;
        }
    }
    found
}

#[test]
fn every_test_that_the_checklist_names_exists() {
    assert_eq!(
        tests_of("#[test]\nfn a() {\n}\nfn b() {}\n#[tokio::test(x)]\n#[ignore]\nasync fn c<T>() {}"),
        BTreeSet::from(["a", "c"])
    );
    assert_eq!(tests_of("\non_both_warehouses!(\n    a,\n    b,\n);\nfn c() {}"), BTreeSet::from(["a", "b"]));
    assert_eq!(
        tests_of("\non_every_warehouse!(\n    x:\n    a,\n    b,\n);\nfn c() {}"),
        BTreeSet::from(["a", "b"])
    );
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    let mut missing = Vec::new();
    for line in checklist() {
        for test in &line.tests {
            let (file, function) = test.split_once("::").unwrap_or_else(|| panic!("file::function: {test}"));
            let text = files
                .entry(file.to_owned())
                .or_insert_with(|| fs::read_to_string(root().join(file)).unwrap_or_default());
            if !tests_of(text).contains(function) {
                missing.push(format!("{}: {test}", line.id));
            }
        }
    }
    assert!(missing.is_empty(), "no such test:\n  {}", missing.join("\n  "));
}

#[test]
fn every_line_has_a_proof_or_a_date() {
    let lines = checklist();
    let ids: BTreeSet<&str> = lines.iter().map(|line| line.id.as_str()).collect();
    assert_eq!(ids.len(), lines.len(), "an id stands once");
    for number in 1..=12 {
        assert!(ids.contains(format!("I{number}").as_str()), "I{number} is missing");
    }
    for line in &lines {
        assert!(
            !line.rule.is_empty() && (line.open || line.later.is_some() || !line.tests.is_empty()),
            "{line:?}"
        );
        assert!(line.later.is_none_or(|issue| issue > 2), "{line:?}");
    }
    let open: Vec<String> =
        lines.iter().filter(|line| line.open).map(|line| format!("{} {}", line.id, line.rule)).collect();
    println!("{} of {} lines are open", open.len(), lines.len());
    if std::env::var("LEVIN_CHECKLIST").as_deref() == Ok("strict") {
        assert!(open.is_empty(), "without a test:\n  {}", open.join("\n  "));
    }
}

/// Only where the contract pages lie beside the project.
#[test]
fn every_heading_of_the_contract_has_its_section() {
    let lines = checklist();
    let sections: BTreeSet<&str> = lines.iter().map(|line| line.section.as_str()).collect();
    let pages = root().join("../shared/design");
    let mut headings = BTreeSet::new();
    for page in PAGES {
        let Ok(text) = fs::read_to_string(pages.join(page)) else {
            println!("{} is not here: sections are not compared", pages.join(page).display());
            return;
        };
        for line in text.lines() {
            // `### \`http_request\``, `## Commands (binary \`levin\`)`, `### \`postgres\` (destination)`
            let Some(heading) = line.strip_prefix("## ").or_else(|| line.strip_prefix("### ")) else {
                continue;
            };
            let heading = heading.split(" (").next().unwrap_or(heading);
            headings.insert(heading.replace('`', ""));
        }
    }
    let headings: BTreeSet<&str> = headings.iter().map(String::as_str).chain(OF_THE_ISSUE).collect();
    assert_eq!(sections, headings, "a section for every heading, and no other");
}
