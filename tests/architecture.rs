//! The rules of the house that a compiler cannot know. Each waiver stands here with its reason, and one
//! that is no longer needed fails too.

#[path = "architecture/licences.rs"]
mod licences;
#[path = "architecture/source.rs"]
mod source;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use sql_templates::Dialect;

use source::{Source, files, is_test_file, read, root};

/// Each crate imports only what stands to its left.
const CRATES: [&str; 4] = ["sql-templates", "connectors", "orchestrator", "tests"];

/// The stages of a run, in order.
const STAGES: [&str; 6] = ["prepare", "diff", "plan", "deliver", "commit", "prune"];

/// What lies at the top of the tree beside the crates.
const TOP: [&str; 13] = [
    ".ci",
    ".gitignore",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "clippy.toml",
    "demo",
    "deploy",
    "bench",
    "rustfmt.toml",
    "test",
];

/// The longest file that needs no reason.
const LONG: usize = 700;

/// A place that a rule does not hold for, and why.
type Waiver = (&'static str, &'static str);

const LONG_FILES: &[Waiver] = &[];

/// Stages that import another stage: (importer → imported, why it still does).
const STAGE_IMPORTS: &[Waiver] = &[];

const VENDORS_NAMED: &[Waiver] = &[
    ("orchestrator/src/command/connectors.rs", "an example of the command, for people"),
    ("orchestrator/src/config/file.rs", "the store's address: PostgreSQL is one of the two stores"),
    ("orchestrator/src/config/shape.rs", "what to write for the store's address"),
];

const ENVIRONMENT_READERS: &[Waiver] = &[
    ("orchestrator/src/command/mod.rs", "`${NAME}` of project files is looked up here, and handed on"),
    ("orchestrator/src/failpoints.rs", "which point is to fail; not in the shipped binary"),
    ("orchestrator/src/report.rs", "NO_COLOR"),
    ("orchestrator/src/telemetry/logs.rs", "LEVIN_LOG"),
    ("orchestrator/src/telemetry/traces.rs", "the variables of OpenTelemetry, and TRACEPARENT"),
];

/// The rule holds everywhere but where a waiver says so, and each waiver is needed.
fn hold(rule: &str, broken: impl IntoIterator<Item = String>, waivers: &[Waiver]) {
    let broken: BTreeSet<String> = broken.into_iter().collect();
    let waived: BTreeSet<String> = waivers.iter().map(|(place, _)| (*place).to_owned()).collect();
    let place = |found: &str| found.split_once(':').map_or(found.to_owned(), |(place, _)| place.to_owned());
    let open: Vec<&String> = broken.iter().filter(|found| !waived.contains(&place(found))).collect();
    assert!(
        open.is_empty(),
        "{rule}:\n  {}",
        open.iter().map(|s| s.as_str()).collect::<Vec<_>>().join("\n  ")
    );
    let needed: BTreeSet<String> = broken.iter().map(|found| place(found)).collect();
    let idle: Vec<&String> = waived.difference(&needed).collect();
    assert!(idle.is_empty(), "{rule}: these waivers are no longer needed: {idle:?}");
    assert!(waivers.iter().all(|(_, reason)| reason.len() > 5), "{rule}: a waiver has a reason");
}

/// The Rust files that ship, below a folder.
fn shipped(folder: &str) -> impl Iterator<Item = (String, Source)> + use<> {
    files(folder, ".rs").into_iter().filter(|path| !is_test_file(path)).map(|path| {
        let source = Source::of(&path, true);
        (path, source)
    })
}

/// Every Rust file of the workspace.
fn rust_files() -> Vec<String> {
    CRATES.iter().flat_map(|name| files(name, ".rs")).collect()
}

/// What cargo knows of the packages that are built on this machine.
fn metadata() -> Value {
    let version = Command::new("rustc").arg("-vV").output().expect("rustc runs");
    let version = String::from_utf8(version.stdout).expect("it writes text");
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc says its host");
    let arguments = ["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", host];
    let output =
        Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo writes JSON")
}

/// Whether a word stands in a line, not as a part of another.
fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(part) && !line[at + word.len()..].starts_with(part))
}

#[test]
fn four_crates_stand_in_a_line() {
    let metadata = metadata();
    let members: Vec<&Value> = metadata["packages"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|package| package["source"].is_null())
        .collect();
    let names: BTreeSet<&str> = members.iter().filter_map(|package| package["name"].as_str()).collect();
    assert_eq!(names, BTreeSet::from(CRATES), "the crates of the workspace");
    for package in members {
        let name = package["name"].as_str().expect("a name");
        let folder =
            Path::new(package["manifest_path"].as_str().expect("a path")).parent().expect("a folder");
        assert_eq!(folder, root().join(name), "the directory is the crate");
        let place = CRATES.iter().position(|c| *c == name).expect("was looked at above");
        for dependency in package["dependencies"].as_array().expect("a list") {
            let on = dependency["name"].as_str().expect("a name");
            assert!(!CRATES[place..].contains(&on), "`{name}` depends on `{on}`, which is not to its left");
        }
        let manifest = read(&format!("{name}/Cargo.toml"));
        let lints = if name == "tests" { "[lints.rust]" } else { "[lints]\nworkspace = true" };
        assert!(manifest.contains(lints), "`{name}` has no lints");
    }
    for library in ["sql-templates", "connectors"] {
        let attribute = "#![warn(missing_docs, unreachable_pub)]";
        assert!(
            read(&format!("{library}/src/lib.rs")).contains(attribute),
            "`{library}` documents what is public"
        );
    }
    for entry in std::fs::read_dir(root()).expect("the root can be read") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        let tools = ["target", ".git", ".levin"].contains(&name.as_str());
        assert!(
            tools || TOP.contains(&name.as_str()) || CRATES.contains(&name.as_str()),
            "`{name}` does not belong at the top of the tree"
        );
    }
}

#[test]
fn the_pure_crate_does_no_io_and_waits_for_nothing() {
    let reached = shipped("sql-templates/src").flat_map(|(path, source)| {
        ["std::fs", "std::net", "std::process", "std::env", "async fn", ".await"]
            .into_iter()
            .filter(move |word| source.code.contains(word))
            .map(move |word| format!("{path}: {word}"))
    });
    hold("sql-templates is pure", reached, &[]);
}

#[test]
fn the_orchestrator_holds_no_sql() {
    /// How a statement begins, each word after the other; the text between is not looked at.
    const STATEMENTS: [&[&str]; 15] = [
        &["select ", " from "],
        &["with ", " as (", "select "],
        &["insert into "],
        &["update ", " set "],
        &["delete from "],
        &["merge into "],
        &["truncate "],
        &["create table "],
        &["create or replace "],
        &["create temp"],
        &["create schema "],
        &["create view "],
        &["create index "],
        &["alter table "],
        &["drop "],
    ];
    let statement = |text: &str| {
        let text = text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ") + " ";
        STATEMENTS.iter().any(|words| {
            let mut rest = text.as_str();
            text.starts_with(words[0])
                && words.iter().all(|word| match rest.split_once(word) {
                    Some((_, after)) => {
                        rest = after;
                        true
                    }
                    None => false,
                })
        })
    };
    assert!(
        statement("\n  SELECT a\n  FROM t") && statement("drop table x") && statement("update t set a = 1")
    );
    assert!(!statement("select fewer columns in the model") && !statement("update your project files"));
    let own = |path: &str| path.starts_with("orchestrator/src/store/");
    let found = shipped("orchestrator/src").filter(|(path, _)| !own(path)).flat_map(|(path, source)| {
        source
            .strings
            .into_iter()
            .filter(|(_, text)| statement(text))
            .map(move |(line, _)| format!("{path}:{line}"))
    });
    hold("SQL for warehouses lives in sql-templates", found, &[]);
}

#[test]
fn only_those_who_must_know_a_dialect_name_one() {
    let variants: Vec<String> = Dialect::ALL.iter().map(|dialect| format!("Dialect::{dialect:?}")).collect();
    let found = CRATES[..3].iter().flat_map(|name| shipped(name)).flat_map(|(path, source)| {
        let at_home = ["sql-templates/src/dialect.rs", "sql-templates/src/model.rs"].contains(&path.as_str())
            || path.starts_with("connectors/src/warehouse/");
        let lines = source.lines_where(|line| !at_home && variants.iter().any(|name| has_word(line, name)));
        lines.into_iter().map(move |line| format!("{path}:{line}"))
    });
    hold("a dialect differs in its folder and its driver, nowhere else", found.collect::<Vec<_>>(), &[]);
}

#[test]
fn the_orchestrator_names_no_vendor() {
    const VENDORS: [&str; 14] = [
        "duckdb",
        "postgres",
        "snowflake",
        "bigquery",
        "databricks",
        "redshift",
        "salesforce",
        "hubspot",
        "braze",
        "iterable",
        "klaviyo",
        "google_ads",
        "facebook",
        "marketo",
    ];
    let named = |text: &str| VENDORS.iter().any(|vendor| text.to_lowercase().contains(vendor));
    let found = shipped("orchestrator/src").flat_map(|(path, source)| {
        let in_code = source.lines_where(named);
        let in_text = source.strings.iter().filter(|(_, text)| named(text)).map(|(line, _)| *line);
        in_code.into_iter().chain(in_text).map(move |line| format!("{path}:{line}")).collect::<Vec<_>>()
    });
    hold("the orchestrator decides what runs, never how it talks", found, VENDORS_NAMED);
}

#[test]
fn a_stage_has_one_file_of_each_kind_and_imports_no_other_stage() {
    let mut imports = Vec::new();
    for stage in STAGES {
        let template = format!("sql-templates/base/{stage}.sql");
        assert!(root().join(&template).is_file(), "{template} is missing");
        let path = format!("orchestrator/src/run/{stage}.rs");
        let source = Source::of(&path, true);
        for other in STAGES.into_iter().filter(|other| *other != stage) {
            // `super::diff::…`, `crate::run::diff::…`, or `diff` in the braces of such a path.
            let direct = ["super::", "run::"].iter().any(|from| {
                source.code.match_indices(&format!("{from}{other}")).any(|(at, found)| {
                    !source.code[at + found.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_')
                })
            });
            let braced = ["super::{", "run::{"].iter().any(|from| {
                source.code.split(from).skip(1).any(|rest| {
                    rest.split(';').next().is_some_and(|list| {
                        list.split([',', '{', '}']).any(|item| {
                            let item = item.trim();
                            item == other || item.starts_with(&format!("{other}::"))
                        })
                    })
                })
            });
            if direct || braced {
                imports.push(format!("{stage} → {other}"));
            }
        }
    }
    hold("a stage never imports another stage", imports, STAGE_IMPORTS);
    // What no stage is called is a part of one, or of the statements that all share.
    let templates: Vec<String> = files("sql-templates/base", ".sql")
        .iter()
        .filter_map(|path| path.strip_prefix("sql-templates/base/")?.strip_suffix(".sql").map(str::to_owned))
        .filter(|name| !STAGES.contains(&name.as_str()))
        .collect();
    assert_eq!(templates, ["audit", "exprs", "matching"], "a template belongs to a stage, or to several");
}

#[test]
fn the_environment_is_read_in_few_places() {
    let readers =
        CRATES[..3].iter().flat_map(|name| shipped(&format!("{name}/src"))).flat_map(|(path, source)| {
            let lines = source.lines_where(|line| line.contains("env::var"));
            lines.into_iter().map(move |line| format!("{path}:{line}"))
        });
    hold("settings come from flags and project files", readers.collect::<Vec<_>>(), ENVIRONMENT_READERS);
}

#[test]
fn files_are_short_or_say_why_and_begin_with_what_they_are() {
    let long = rust_files().into_iter().filter(|path| read(path).lines().count() > LONG);
    hold("a long file is asking to be two", long, LONG_FILES);
    let silent = rust_files().into_iter().filter(|path| !read(path).starts_with("//! "));
    hold("a file says in its first line what it is", silent, &[]);
}

#[test]
fn nothing_is_left_for_later() {
    // Put together here, so that this file does not hold what it looks for.
    let marks = ["TO", "FIX", "XX"].map(|half| {
        format!(
            "{half}{}",
            if half == "TO" {
                "DO"
            } else if half == "FIX" {
                "ME"
            } else {
                "X"
            }
        )
    });
    let unwritten = ["todo!", "unimplemented!"];
    let found = rust_files().into_iter().chain(files("sql-templates", ".sql")).flat_map(|path| {
        let text = read(&path);
        let code = if path.ends_with(".rs") { Source::of(&path, false).code } else { String::new() };
        let marked =
            text.lines().enumerate().filter(|(_, line)| marks.iter().any(|mark| has_word(line, mark)));
        let lines: BTreeSet<usize> = marked.map(|(n, _)| n + 1).collect();
        let macros =
            code.lines().enumerate().filter(|(_, line)| unwritten.iter().any(|word| line.contains(word)));
        let lines: BTreeSet<usize> = lines.into_iter().chain(macros.map(|(n, _)| n + 1)).collect();
        lines.into_iter().map(move |line| format!("{path}:{line}")).collect::<Vec<_>>()
    });
    hold("what is there is finished", found, &[]);
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut dead = Vec::new();
    let mut looked_at = 0;
    for page in files("", ".md") {
        let folder = root().join(&page).parent().expect("a folder").to_owned();
        for rest in read(&page).split("](").skip(1) {
            let Some((link, _)) = rest.split_once(')') else { continue };
            let path = link.split(['#', ' ']).next().unwrap_or_default();
            if path.is_empty() || path.contains("://") || path.starts_with("mailto:") {
                continue;
            }
            looked_at += 1;
            if !folder.join(path).exists() {
                dead.push(format!("{page}: {link}"));
            }
        }
    }
    hold("a link leads to a file of this tree", dead, &[]);
    assert!(looked_at > 0 || !root().join("README.md").exists(), "the README leads nowhere");
}

#[test]
fn the_shipped_binary_has_no_fail_points() {
    let marker = |path: &str| -> bool {
        let binary = std::fs::read(path).unwrap_or_else(|e| panic!("{path}: {e}"));
        ["commit.before_outcomes", "deliver.after_start_note"]
            .iter()
            .any(|name| binary.windows(name.len()).any(|window| window == name.as_bytes()))
    };
    let points = read("orchestrator/src/run/commit.rs");
    assert!(
        points.contains("fail_point!(\"commit.before_outcomes\")"),
        "the marker is the name of a fail point"
    );
    match (std::env::var("LEVIN_BIN"), std::env::var("LEVIN_FAILPOINTS_BIN")) {
        (Ok(shipped), Ok(with)) => {
            assert!(!marker(&shipped), "{shipped} can be told to fail");
            assert!(marker(&with), "{with} has no fail points: what is tested with it proves nothing");
        }
        _ => {
            assert!(std::env::var("CI").is_err(), "run ./test, which sets LEVIN_BIN and LEVIN_FAILPOINTS_BIN")
        }
    }
}
