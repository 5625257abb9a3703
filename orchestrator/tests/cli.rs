//! The binary as a person or a script meets it: exit code, standard output, standard error.

#![allow(clippy::unwrap_used, reason = "a transcript that cannot be made has failed")]

use std::fs;
use std::path::Path;
use std::process::Command;

use orchestrator::catalogue::Catalogue;
use orchestrator::error::ErrorCode;

/// Exit code, standard output, standard error.
type Transcript = (i32, String, String);

/// Runs `levin` in a folder with an environment of its own.
fn levin_with(folder: &Path, environment: &[(&str, &str)], arguments: &[&str]) -> Transcript {
    let mut command = Command::new(env!("CARGO_BIN_EXE_levin"));
    command.current_dir(folder).args(arguments);
    for inherited in ["NO_COLOR", "LEVIN_LOG", "CLICOLOR_FORCE", "RUST_BACKTRACE"] {
        command.env_remove(inherited);
    }
    let output = command.envs(environment.iter().copied()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn levin(folder: &Path, arguments: &[&str]) -> Transcript {
    levin_with(folder, &[], arguments)
}

fn write(folder: &Path, path: &str, text: &str) {
    let path = folder.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[test]
fn many_mistakes_are_shown_at_once_with_lines_and_suggestions() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write(root, "levin.yml", "nmae: demo\nlease: 5\n");
    write(root, "models/customers.yml", "source: wh\nprimarykey: id\ntable: customers\nsql: select 1\n");
    write(root, "models/orders.yml", "source: [wh]\nprimary_key: id\ntable: orders\nslug: 123\n");
    write(
        root,
        "syncs/a.yml",
        "model: customer\ndestination: crm\nmode: upserts\nmappings:\n  - {from: a}\n",
    );
    write(root, "sources/broken.yml", "type: x\n\turl: y\n");
    let (code, stdout, stderr) = levin(root, &["check", "--offline"]);
    assert_eq!(code, 64);
    assert_eq!(stdout, "");
    assert_eq!(
        stderr,
        "\
levin.yml:1: the key `name` is missing
levin.yml:1: unknown key `nmae`
  hint: did you mean `name`?
levin.yml:2: `lease` must be a text, not the number 5
  hint: write a unit, such as `5s` or `5m`
models/customers.yml:1: the key `primary_key` is missing
models/customers.yml:1: there is no source `wh`
  hint: there are no sources yet
models/customers.yml:2: unknown key `primarykey`
  hint: did you mean `primary_key`?
models/customers.yml:4: the model has more than one of `table`, `sql`
  hint: keep one of them
models/orders.yml:1: `source` must be a text, not a list
models/orders.yml:4: `slug` must be a text, not the number 123
  hint: write it in quotes: \"123\"
sources/broken.yml:2: not valid YAML: a line is indented with a tab
  hint: indent with spaces
syncs/a.yml:1: there is no model `customer`
  hint: did you mean `customers`?
syncs/a.yml:2: there is no destination `crm`
  hint: there are no destinations yet
syncs/a.yml:3: `mode` must be one of `insert`, `update`, `upsert`, `mirror`, `segment`, `add`, `remove`, `all`, `archive`, `diff`, `snapshot`, not the text `upserts`
  hint: did you mean `upsert`?
syncs/a.yml:5: the mapping has no `to`
  hint: `to` names the destination's field
error[PROJECT_INVALID]: 14 mistakes in 5 files

hint: correct the lines named above, then run `levin check`
"
    );
}

#[test]
fn secrets_are_never_printed() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let secret = "s3cr3t-pa55word";
    write(
        root,
        "levin.yml",
        "name: demo\nstore: postgres://levin:s3cr3t-pa55word@db/levin\nlease: ${PASS}\n",
    );
    write(
        root,
        "models/m.yml",
        "source: ${PASS}\nprimary_key: id\nsql_file: ${PASS}\nslug: s3cr3t-pa55word\n",
    );
    for extra in [&["check", "--offline"][..], &["check"], &["-vvv", "--log-format", "json", "check"]] {
        let (code, stdout, stderr) = levin_with(root, &[("PASS", secret)], extra);
        assert_eq!(code, 64, "{stderr}");
        assert!(!stdout.contains(secret) && !stderr.contains(secret), "{stdout}{stderr}");
        assert!(stderr.contains("warning: the secret `store` stands here in clear"), "{stderr}");
        assert!(stderr.contains("`lease`: `•••` is not a duration"), "{stderr}");
    }
    let (_, _, stderr) = levin(root, &["check"]);
    assert!(stderr.contains("models/m.yml:1: the environment has no variable `PASS`"), "{stderr}");
}

#[test]
fn missing_secrets_have_a_code_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "levin.yml", "name: ${LEVIN_TEST_NAME}\n");
    let (code, _, stderr) = levin(folder.path(), &["check"]);
    assert_eq!(code, 64);
    assert!(stderr.contains("levin.yml:1: the environment has no variable `LEVIN_TEST_NAME`"), "{stderr}");
    assert!(stderr.contains("error[SECRET_MISSING]: 1 mistake in 1 file"), "{stderr}");

    let (code, _, stderr) = levin(folder.path(), &["check", "--offline"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("levin.yml:1: warning: the environment has no variable"), "{stderr}");

    let (code, _, stderr) = levin_with(folder.path(), &[("LEVIN_TEST_NAME", "demo")], &["check"]);
    assert_eq!((code, stderr.as_str()), (0, "ok: 0 sources, 0 models, 0 destinations, 0 syncs\n"));
    assert!(folder.path().join("levin.lock.yml").exists());
}

#[test]
fn colours_come_when_asked_for_and_say_nothing_alone() {
    let folder = tempfile::tempdir().unwrap();
    let plain = levin(folder.path(), &["check"]).2;
    assert!(!plain.contains('\u{1b}'));
    let coloured = levin(folder.path(), &["--color", "always", "check"]).2;
    assert!(coloured.contains("\u{1b}[31;1merror[PROJECT_NOT_FOUND]:\u{1b}[0m"), "{coloured:?}");
    let mut stripped = coloured;
    for code in ["31;1", "36", "0"] {
        stripped = stripped.replace(&format!("\u{1b}[{code}m"), "");
    }
    assert_eq!(stripped, plain);
    for quiet in [&["--color", "never", "check"][..], &["--color", "auto", "check"]] {
        assert_eq!(levin_with(folder.path(), &[("NO_COLOR", "1")], quiet).2, plain);
    }
}

#[test]
fn init_writes_a_project_once_and_overwrites_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let (code, stdout, stderr) = levin(root, &["init", "demo", "--example"]);
    assert_eq!((code, stdout.as_str()), (0, ""), "{stderr}");
    assert!(
        stderr.starts_with("1,000 sample rows in `warehouse.duckdb`\nok: 6 files in `demo`\n"),
        "{stderr}"
    );
    assert!(stderr.contains("levin --project demo run customers-to-files"), "{stderr}");
    let warehouse = fs::read(root.join("demo/warehouse.duckdb")).unwrap();
    assert!(!root.join("demo/warehouse.duckdb.wal").exists());

    write(root, "demo/levin.yml", "name: mine\n");
    let (code, _, stderr) = levin(root, &["init", "demo", "--example"]);
    assert_eq!(code, 64);
    for file in [
        "levin.yml",
        "sources/warehouse.yml",
        "syncs/customers-to-files.yml",
        ".gitignore",
        "warehouse.duckdb",
    ] {
        assert!(stderr.contains(&format!("\n  demo/{file}")), "{file}: {stderr}");
    }
    assert!(stderr.contains("hint: nothing was written"), "{stderr}");
    assert_eq!(fs::read_to_string(root.join("demo/levin.yml")).unwrap(), "name: mine\n");
    assert_eq!(fs::read(root.join("demo/warehouse.duckdb")).unwrap(), warehouse);

    // One file in the way is enough to write none.
    write(root, "other/models/customers.yml", "mine");
    let (code, _, _) = levin(root, &["--project", "other", "init"]);
    assert_eq!(code, 64);
    assert!(!root.join("other/levin.yml").exists());
}

#[test]
fn what_init_writes_passes_the_check() {
    let catalogue = Catalogue::levin();
    for (arguments, source, destination) in
        [(&["init", "--example"][..], "duckdb", "files"), (&["init"], "postgres", "http_request")]
    {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(levin(folder.path(), arguments).0, 0);
        let (code, _, stderr) = levin(folder.path(), &["check", "--offline"]);
        // A build without one of the connectors says so, and nothing else.
        let missing: Vec<String> = [
            (catalogue.source(source).is_none(), format!("there is no source of type `{source}`")),
            (
                catalogue.destination(destination).is_none(),
                format!("there is no destination of type `{destination}`"),
            ),
        ]
        .into_iter()
        .filter_map(|(missing, message)| missing.then_some(message))
        .collect();
        assert_eq!(code, if missing.is_empty() { 0 } else { 64 }, "{stderr}");
        for message in &missing {
            assert!(stderr.contains(message), "{stderr}");
        }
        if missing.is_empty() {
            assert!(stderr.contains("ok: "), "{stderr}");
        }
    }
}

#[test]
fn explain_shows_the_page_of_a_code_or_suggests_one() {
    let folder = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) = levin(folder.path(), &["explain", "guard_tripped"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(stdout, ErrorCode::GuardTripped.page());

    let (code, stdout, stderr) = levin(folder.path(), &["explain", "GUARD_TRIPED"]);
    assert_eq!((code, stdout.as_str()), (64, ""));
    assert_eq!(
        stderr,
        "error[USAGE]: there is no error code `GUARD_TRIPED`\n\nhint: did you mean `GUARD_TRIPPED`?\n"
    );
}

#[test]
fn wrong_usage_ends_with_64_and_help_with_0() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in
        [&[][..], &["frobnicate"], &["check", "--ofline"], &["explain"], &["--color", "pink", "check"]]
    {
        let (code, stdout, stderr) = levin(folder.path(), arguments);
        assert_eq!((code, stdout.as_str()), (64, ""), "{arguments:?}: {stderr}");
        assert!(stderr.contains("--help") && stderr.lines().count() > 2, "{arguments:?}: {stderr}");
    }
    for arguments in [&["--help"][..], &["--version"], &["check", "--help"], &["help", "init"]] {
        let (code, stdout, stderr) = levin(folder.path(), arguments);
        assert_eq!((code, stderr.as_str()), (0, ""), "{arguments:?}");
        assert!(stdout.contains("levin"), "{arguments:?}: {stdout}");
    }
    let (code, _, stderr) = levin(folder.path(), &["check"]);
    assert_eq!(code, 64);
    assert!(
        stderr.starts_with("error[PROJECT_NOT_FOUND]: there is no `levin.yml` in `.`\n\nhint: "),
        "{stderr}"
    );
}

#[test]
fn a_broken_lock_file_is_named_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "levin.yml", "name: demo\n");
    let uuid = "project: 6f2d7b9e-3f43-4f0e-9a3a-0d3d0c1b2a11";
    write(folder.path(), "levin.lock.yml", &format!("{uuid}\nnext:\n  syncs: 3\nsyncs:\n  a: 2\n  b: 2\n"));
    let (code, _, stderr) = levin(folder.path(), &["check"]);
    assert_eq!(code, 64);
    assert!(stderr.starts_with("levin.lock.yml:6: the syncs `a` and `b` both have the id 2\n"), "{stderr}");
    assert!(stderr.contains("error[LOCK_FILE_INVALID]:"), "{stderr}");
}

#[test]
fn connectors_and_schema_print_data_that_programs_can_read() {
    let folder = tempfile::tempdir().unwrap();
    let (code, stdout, _) = levin(folder.path(), &["connectors"]);
    assert_eq!(code, 0);
    assert!(stdout.starts_with("NAME"), "{stdout}");
    let (code, stdout, _) = levin(folder.path(), &["connectors", "--json"]);
    assert_eq!(code, 0);
    let list: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let catalogue = Catalogue::levin();
    let known = [
        catalogue.sources.len(),
        catalogue.destinations.len(),
        catalogue.channels.len(),
        catalogue.hooks.len(),
    ];
    assert_eq!(list.as_array().unwrap().len(), known.iter().sum::<usize>());
    for connector in catalogue.destinations {
        let (code, stdout, _) = levin(folder.path(), &["connectors", connector.name]);
        assert_eq!(code, 0);
        assert!(
            stdout.contains(connector.summary) && stdout.contains("Keys it adds to files in syncs/"),
            "{stdout}"
        );
    }
    let (code, _, stderr) = levin(folder.path(), &["connectors", "no-such-thing-at-all"]);
    assert_eq!(code, 64);
    assert!(stderr.contains("there is no connector `no-such-thing-at-all`"), "{stderr}");

    for kind in ["project", "source", "model", "destination", "sync", "sequence", "channel", "hook"] {
        let (code, stdout, _) = levin(folder.path(), &["schema", kind]);
        let schema: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!((code, &schema["type"]), (0, &serde_json::json!("object")), "{kind}");
    }
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/schema/project.schema.json");
    assert_eq!(levin(folder.path(), &["schema"]).1, fs::read_to_string(golden).unwrap());
    assert_eq!(levin(folder.path(), &["schema", "sink"]).0, 64);
}

/// What a shell is told may come next.
fn completions(folder: &Path, words: &[&str]) -> Vec<String> {
    let last = (words.len() - 1).to_string();
    let asked =
        [("LEVIN_COMPLETE", "bash"), ("_CLAP_COMPLETE_INDEX", &last), ("_CLAP_IFS", "\n"), ("IFS", "\n")];
    let (code, stdout, stderr) = levin_with(folder, &asked, &[&["--"], words].concat());
    assert_eq!((code, stderr.as_str()), (0, ""));
    stdout.lines().map(str::to_owned).collect()
}

#[test]
fn a_shell_completes_commands_options_and_slugs() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, stdout, stderr) = levin(root, &["completion", shell]);
        assert_eq!((code, stderr.as_str()), (0, ""), "{shell}");
        assert!(stdout.contains("LEVIN_COMPLETE") && stdout.contains("levin"), "{shell}: {stdout}");
    }
    write(root, "shop/syncs/customers-to-crm.yml", "model: customers\n");
    write(root, "shop/syncs/b.yaml", "slug: \"orders-to-crm\" # a better name\n");
    write(root, "shop/syncs/notes.txt", "");
    write(root, "shop/models/customers.yml", "not: [valid");
    assert_eq!(completions(root, &["levin", "test-"]), ["test-row"]);
    assert!(completions(root, &["levin", "run", "--full"]).contains(&"--full-resync".to_owned()));
    for command in ["plan", "run", "rejected", "sql", "test-row", "runs"] {
        let words = ["levin", "--project", "shop", command, ""];
        let slugs = completions(root, &words);
        assert!(slugs.contains(&"customers-to-crm".to_owned()), "{command}: {slugs:?}");
        assert!(
            slugs.contains(&"orders-to-crm".to_owned()) && !slugs.contains(&"notes".to_owned()),
            "{slugs:?}"
        );
    }
    assert_eq!(completions(&root.join("shop"), &["levin", "run", "cust"]), ["customers-to-crm"]);
    assert_eq!(completions(root, &["levin", "--project=shop", "preview", "c"]), ["customers"]);
    assert_eq!(completions(root, &["levin", "run", "zzz"]), [] as [&str; 0], "a folder without a project");
}
