//! Project files with mistakes, folders with odd names, and places that nobody can write.

use tests::on_both_warehouses;
use tests::project::{Engine, Project, levin_binary};

use super::{Case, SYNC, failed, says};

on_both_warehouses!(
    a_store_that_cannot_be_written_is_said_before_anything_is_sent,
    a_destination_folder_that_cannot_be_written_is_said,
    a_destination_table_without_the_column_is_named_at_once
);

#[test]
fn broken_files_are_shown_with_lines_all_at_once() {
    let case = Case::small(Engine::DuckDb);
    case.sends([3, 0, 0]);
    case.project.write("models/broken.yml", "source: wh\n\tprimary_key: id\n");
    case.project.write("models/unclosed.yml", "source: wh\nprimary_key: [id\nsql: select 1\n");
    case.project.write("models/twice.yml", "source: wh\nsource: wh\nprimary_key: id\ntable: t\n");
    case.project.write(
        "syncs/bad.yml",
        "model: row\ndestination: crm\nmod: mirror\neach: {method: POST, pathh: /x}\n",
    );
    std::fs::write(
        case.project.path().join("models/latin.yml"),
        b"source: wh\nprimary_key: id\nsql: select '\xe9'\n",
    )
    .expect("write");
    for arguments in [&["check", "--offline"][..], &["check"], &["run", SYNC], &["plan", SYNC]] {
        let ended = case.project.levin(arguments);
        failed(
            &case.project,
            &ended,
            64,
            "PROJECT_INVALID",
            &[
                "models/broken.yml:2: not valid YAML",
                "models/unclosed.yml:",
                "models/twice.yml:2:",
                "models/latin.yml:",
                "UTF-8",
                "syncs/bad.yml:1: there is no model `row`",
                "did you mean `rows`?",
                "syncs/bad.yml:3: unknown key `mod`",
                "did you mean `mode`?",
                "pathh",
                "did you mean `path`?",
            ],
        );
    }
    for file in
        ["models/broken.yml", "models/unclosed.yml", "models/twice.yml", "models/latin.yml", "syncs/bad.yml"]
    {
        case.project.remove(file);
    }
    case.quiet();
}

#[test]
fn a_missing_variable_or_secret_file_is_named_with_its_line() {
    let case = Case::small(Engine::DuckDb);
    case.project.write(
        "destinations/crm.yml",
        "type: http_request\nbase_url: ${CRM_URL}\nallow_private_networks: true\nauth: {bearer: \"${NO_SUCH_TOKEN}\"}\nsigning_secret: ${file:secrets/none}\n",
    );
    let ended = case.project.levin(&["run", SYNC]);
    failed(
        &case.project,
        &ended,
        64,
        "SECRET_MISSING",
        &[
            "destinations/crm.yml:4:",
            "`NO_SUCH_TOKEN`",
            "destinations/crm.yml:5:",
            "`secrets/none`",
            "export NO_SUCH_TOKEN=",
        ],
    );
    let offline = case.project.levin(&["check", "--offline"]);
    assert_eq!(offline.code, 0, "{offline:#?}");
    says(&offline.stderr, &["warning:", "NO_SUCH_TOKEN"]);
}

#[test]
fn a_folder_with_spaces_and_unicode_is_a_folder() {
    let case = Case::small(Engine::DuckDb);
    let parent = tempfile::tempdir().expect("a folder");
    let folder = parent.path().join("mein Projekt äöü ☃ 'quoted' \"double\" %20 #1");
    copy(case.project.path(), &folder);
    for (arguments, exit) in
        [(vec!["check"], 0), (vec!["plan", SYNC], 0), (vec!["run", SYNC], 0), (vec!["runs"], 0)]
    {
        let output = std::process::Command::new(levin_binary())
            .arg("--project")
            .arg(&folder)
            .args(&arguments)
            .env("CRM_URL", case.receiver.url())
            .output()
            .expect("run levin");
        assert_eq!(
            output.status.code(),
            Some(exit),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    assert_eq!(case.receiver.keys(), ["1", "2", "3"]);
    assert!(folder.join(".levin/store.db").is_file());
    // From inside, and through a path that is not there.
    let inside = std::process::Command::new(levin_binary())
        .current_dir(&folder)
        .args(["run", SYNC])
        .env("CRM_URL", case.receiver.url())
        .output()
        .expect("run levin");
    assert_eq!(inside.status.code(), Some(0), "{}", String::from_utf8_lossy(&inside.stderr));
    let nowhere = case.project.levin(&["--project", "/no/such folder", "check"]);
    assert_eq!(nowhere.code, 64, "{nowhere:#?}");
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).expect("make the folder");
    for entry in std::fs::read_dir(from).expect("the folder").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copy");
        }
    }
}

fn a_store_that_cannot_be_written_is_said_before_anything_is_sent(engine: Engine) {
    let case = Case::small(engine);
    // Root may write every folder but those that are none.
    for (place, word) in
        [("sqlite:///proc/levin/store.db", "/proc/levin"), ("sqlite://levin.yml/store.db", "levin.yml")]
    {
        case.project.write("levin.yml", &format!("name: scenario\nstore: {place}\n"));
        for command in ["run", "plan"] {
            let ended = case.project.levin(&[command, SYNC]);
            failed(&case.project, &ended, 2, "STORE_FAILED", &[word]);
        }
    }
    std::fs::write(case.project.path().join("garbage.db"), "this is no database, and long enough to be none")
        .expect("write");
    case.project.write("levin.yml", "name: scenario\nstore: sqlite://garbage.db\n");
    let ended = case.project.levin(&["run", SYNC]);
    failed(&case.project, &ended, 2, "STORE_FAILED", &[]);
    case.project.write("levin.yml", "name: scenario\nstore: mysql://localhost/x\n");
    let ended = case.project.levin(&["run", SYNC]);
    assert!([2, 64].contains(&ended.code), "{ended:#?}");
    says(&ended.stderr, &["sqlite://", "postgres://"]);
    assert_eq!(case.receiver.count(), 0);
    case.project.write("levin.yml", "name: scenario\n");
    case.sends([3, 0, 0]);
    case.quiet();
}

fn a_destination_folder_that_cannot_be_written_is_said(engine: Engine) {
    let case = Case::small(engine);
    case.project.write("destinations/crm.yml", "type: files\npath: /proc/levin-out\n");
    case.project.write(
        &format!("syncs/{SYNC}.yml"),
        "model: rows\ndestination: crm\nmode: insert\nobject: \"rows-{{ run_id }}.jsonl\"\n",
    );
    case.fails("DESTINATION_UNUSABLE", &["/proc/levin-out"]);
    case.project.write("destinations/crm.yml", "type: files\npath: levin.yml/out\n");
    case.check_finds("DESTINATION_UNUSABLE", 2, &["destination crm:", "levin.yml/out"]);
    let run = case.project.run_with(SYNC, &["--full-resync"]);
    assert_eq!((run.code, run.error()), (2, "DESTINATION_UNUSABLE"), "{run:#?}");
    case.project.write("destinations/crm.yml", "type: files\npath: out\n");
    case.check_passes();
    let run = case.project.run_with(SYNC, &["--full-resync"]);
    assert_eq!((run.code, run.successful()), (0, [3, 0, 0]), "{run:#?}");
}

fn a_destination_table_without_the_column_is_named_at_once(engine: Engine) {
    let case = Case::small(engine);
    let url = tests::postgres::PostgresServer::start().fresh_database();
    case.project.write("destinations/crm.yml", &format!("type: postgres\nurl: {url}\n"));
    case.project.write(
        &format!("syncs/{SYNC}.yml"),
        "model: rows\ndestination: crm\nmode: mirror\nobject: public.people\n",
    );
    let none = case.run();
    assert_eq!((none.code, none.successful()), (2, [0, 0, 0]), "{none:#?}");
    says(none.message(), &["public", "people"]);
    tests::postgres::run(&url, "create table people (id integer primary key, nam text)");
    let run = case.run();
    assert_eq!((run.code, run.error()), (2, "DESTINATION_FIELD_MISSING"), "{run:#?}");
    says(run.message(), &["name", "people"]);
    super::explained(&case.project, "DESTINATION_FIELD_MISSING");
    case.check_finds("DESTINATION_FIELD_MISSING", 2, &["sync rows-to-crm:", "name"]);
    tests::postgres::run(&url, "alter table people rename nam to name");
    case.check_passes();
    case.sends([3, 0, 0]);
    let again = case.run();
    assert_eq!((again.code, again.planned()), (0, [0, 0, 0]), "{again:#?}");
}

#[test]
fn what_levin_init_writes_runs_at_once_and_check_passes() {
    let folder = tempfile::tempdir().expect("a folder");
    let levin = |arguments: &[&str]| {
        std::process::Command::new(levin_binary())
            .current_dir(&folder)
            .args(arguments)
            .output()
            .expect("run levin")
    };
    for arguments in [
        &["init", "demo", "--example"][..],
        &["--project", "demo", "check"],
        &["--project", "demo", "check", "--offline"],
        &["--project", "demo", "plan", "customers-to-files"],
        &["--project", "demo", "run", "customers-to-files"],
        &["--project", "demo", "check"],
        &["--project", "demo", "run", "--all"],
    ] {
        let output = levin(arguments);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// The harness's own promise, which the cases above lean on.
#[test]
fn a_project_of_the_harness_is_valid() {
    let project: Project = Case::small(Engine::Postgres).project;
    assert_eq!(project.levin(&["check"]).code, 0);
}
