//! Project files and manifests of dbt, valid and spoiled.

use std::fs;
use std::path::Path;

use orchestrator::catalogue::Catalogue;
use orchestrator::config::{LoadOptions, Loaded, load, verdict};
use orchestrator::redact::Redactor;
use tests::project::{Engine, Project};
use tests::receiver::Receiver;

use crate::mutation::{nicked, spoiled};
use crate::rounds::rounds;

const SECRET: &str = "fuzz-s3cr3t-9f1c27ab";

/// A project that has everything.
const FILES: &[(&str, &str)] = &[
    ("levin.yml", "name: demo\nstore: sqlite://.levin/store.db\nlease: 90s\n"),
    (
        "sources/wh.yml",
        "type: duckdb\npath: warehouse.duckdb\nplanner_schema: levin_planner\naudit_schema: levin_audit\nsnapshot_retention: 30d\n",
    ),
    ("sources/pg.yml", "type: postgres\nurl: postgres://levin:${SECRET}@127.0.0.1:1/wh\n"),
    (
        "models/people.yml",
        "source: wh\nprimary_key: id\nsql: |\n  select id, name, score\n  from people -- all of them\n",
    ),
    ("models/table.yml", "source: wh\nprimary_key: [id, name]\ntable: main.people\n"),
    ("models/file.yml", "source: pg\nprimary_key: id\nsql_file: people.sql\nslug: from-file\n"),
    ("models/dbt.yml", "source: wh\nprimary_key: id\ndbt: {manifest: manifest.json, model: people}\n"),
    ("people.sql", "select id, name from people where name <> ';'\n"),
    (
        "destinations/out.yml",
        "type: http_request\nbase_url: https://api.example.com/v1\nheaders: {X-Team: data, X-Key: \"${SECRET}\"}\nauth:\n  oauth2_client_credentials: {token_url: \"https://api.example.com/token\", client_id: levin, client_secret: \"${SECRET}\", scope: rows}\ntimeout: 30s\nretries: 5\nrequests_per_second: 50\nconcurrency: 4\nallow_private_networks: false\nsigning_secret: ${SIGNING}\n",
    ),
    ("destinations/db.yml", "type: postgres\nurl: ${file:secret}\n"),
    ("destinations/disk.yml", "type: files\npath: out\n"),
    ("secret", "postgres://u:another-s3cret@127.0.0.1:1/db\n"),
    (
        "syncs/people-out.yml",
        "model: people\ndestination: out\nmode: upsert\non_removed: delete\neach: {method: POST, path: \"/rows\", batch_size: 100, headers: {X-A: b}}\nremoved: {method: DELETE, path: \"/rows/{{ row.key }}\", batch_size: 1}\nadded: {path: /rows, body: \"{\\\"rows\\\": {{ rows }}}\"}\nrejected: {list: errors, key: id, reason: why}\nguards: &g {max_removed: {percent: 10, rows: 1000}, max_set_aside: {percent: 5.5}, min_rows: 1}\nmax_attempts: 3\nnulls: omit\nnumbers: string\n",
    ),
    (
        "syncs/people-db.yml",
        "model: table\ndestination: db\nmode: mirror\nobject: public.people\nmatch: {from: name, to: name}\nmappings:\n  - {from: name, to: name}\n  - {template: \"{{ row.name | upper }} {{ previous.score }}\", to: upper}\n  - {value: {a: [1, 2.5, null, x]}, to: constant}\n  - {variable: run_id, to: last_run}\n  - to: nested\n    object:\n      - {from: score, to: score}\n      - {to: list, array: [{from: name}, {value: 1e3}]}\nschedule: {cron: \"0 9 * * MON-FRI\", timezone: Europe/Berlin}\non_new_column: keep\n",
    ),
    (
        "syncs/people-disk.yml",
        "model: dbt\ndestination: disk\nmode: diff\nobject: \"changes-{{ run_id }}.jsonl\"\nformat: jsonl\nschedule: {at: [{days: [mon, fri], time: \"09:00\"}]}\non_duplicate_key: fail\n",
    ),
    ("sequences/nightly.yml", "syncs: [people-out, people-db]\nschedule: {every: 15m}\n"),
    (
        "levin.lock.yml",
        "project: 6f0c2a9e-0000-4000-8000-000000000000\nnext: {models: 9, syncs: 4}\nmodels: {people: 1}\nsyncs: {people-out: 1}\n",
    ),
    (
        "manifest.json",
        r#"{"metadata": {"dbt_schema_version": "https://schemas.getdbt.com/dbt/manifest/v12.json", "adapter_type": "duckdb"},
"nodes": {"model.shop.people": {"resource_type": "model", "name": "people", "package_name": "shop", "unique_id": "model.shop.people",
"database": "warehouse", "schema": "main", "alias": "people", "relation_name": "\"main\".\"people\"", "compiled_code": "select id, name from people",
"config": {"materialized": "table", "unique_key": ["id"], "enabled": true}, "columns": {"id": {"name": "id", "constraints": [{"type": "primary_key"}]}},
"constraints": [], "version": null, "depends_on": {"nodes": []}},
"test.shop.unique": {"resource_type": "test", "name": "unique", "package_name": "shop", "test_metadata": {"name": "unique", "kwargs": {"column_name": "id"}},
"attached_node": "model.shop.people", "config": {"enabled": true}}}, "sources": {}}
"#,
    ),
];

const WORDS: &[&str] = &[
    "${SECRET}",
    "x${SECRET}y",
    "${NOPE}",
    "${file:secret}",
    "${file:/dev/zero}",
    "${file:../../../../etc/hostname}",
    "${",
    "$${SECRET}",
    "&a",
    "*a",
    "*g",
    "<<: *g",
    "<<: [*g, *g]",
    "? ",
    "- ",
    "{",
    "}",
    "[",
    "]",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    "!!binary abcd",
    "!!int x",
    "!!str 1",
    "!x y",
    "|",
    ">-",
    "|9\n",
    "---",
    "...",
    "%YAML 9.9\n---\n",
    "# ",
    "\t",
    "\u{0}",
    "\u{feff}",
    "\u{85}",
    "\u{2028}",
    "\"",
    "'",
    "\\",
    "\"\\ud800\"",
    "\"\\x00\"",
    "1e999",
    "-1e999",
    ".nan",
    ".inf",
    "-.inf",
    "99999999999999999999999999",
    "-9223372036854775808",
    "9223372036854775807",
    "18446744073709551616",
    "0x7fffffffffffffff",
    "0o777",
    "-1",
    "0",
    "1e-400",
    "null",
    "~",
    "true",
    "[]",
    "{}",
    "''",
    "{a: {a: {a: {a: {a: {a: 1}}}}}}",
    "999999999999d",
    "1ns",
    "0s",
    "-5s",
    "18446744073709551615s",
    "1e5s",
    "/dev/zero",
    "/",
    ".",
    "..",
    "models",
    "people.yml",
    "http://[::1",
    "http://a b",
    "postgres://",
    "postgres://%",
    "postgres://u:${SECRET}@h:99999/x",
    "sqlite://",
    "sqlite:///dev/full",
    "{{",
    "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
    "{{ row",
    "{{ row.nothing }}",
    "{{ 7 * 7 }}",
    "{% include 'x' %}",
    "{{ \"x\" * 100000000 }}",
    "select 1;",
    "select (",
    "') --",
    "$$",
    "mode: all",
    "mode: remove",
    "replace: true",
    "create: true",
    "60 * * * *",
    "* * * * * *",
    "Mars/Olympus",
    "25:99",
    "slug: \"\"",
    "slug: a/b",
    "renamed_from: people",
];

/// Writes the project with some of its files spoiled; tells what they became.
fn written(random: &mut fastrand::Rng, root: &Path) -> Vec<(String, Vec<u8>)> {
    let others: Vec<&[u8]> = FILES.iter().map(|(_, text)| text.as_bytes()).collect();
    let spoil: Vec<usize> = (0..random.usize(1..=3)).map(|_| random.usize(..FILES.len())).collect();
    let mut told = Vec::new();
    for (at, (path, text)) in FILES.iter().enumerate() {
        let bytes = if spoil.contains(&at) {
            let bytes = match random.u8(..20) {
                // Nothing of what was there.
                0 => (0..random.usize(..200)).map(|_| random.u8(..)).collect(),
                1 => ["- ", "? ", "[", "{a: ", "- [", "a: &a *a\n"][random.usize(..6)]
                    .repeat(random.usize(1..20_000))
                    .into_bytes(),
                _ => spoiled(random, text.as_bytes(), WORDS, &others),
            };
            told.push(((*path).to_owned(), bytes.clone()));
            bytes
        } else {
            text.as_bytes().to_vec()
        };
        fs::create_dir_all(root.join(path).parent().expect("a folder")).expect("make the folder");
        fs::write(root.join(path), bytes).expect("write a file");
    }
    told
}

fn loaded(root: &Path, redactor: &Redactor) -> Result<Loaded, orchestrator::error::Error> {
    let environment = |name: &str| match name {
        "SECRET" => Some(SECRET.to_owned()),
        "SIGNING" => Some("whsec_ZnV6ei1zM2NyM3QtOWYxYzI3YWI=".to_owned()),
        _ => None,
    };
    load(root, &Catalogue::levin(), redactor, LoadOptions { offline: false, environment: &environment })
}

/// Not even a part of the secret stands in a text.
fn assert_hidden(text: &str) {
    for part in ["fuzz-s3cr", "s3cr3t-9f", "9f1c27ab"] {
        assert!(!text.contains(part), "{part} is told: {text}");
    }
}

#[test]
fn a_spoiled_project_is_right_or_says_what_is_wrong() {
    let folder = tempfile::tempdir().expect("a folder");
    for (path, text) in FILES {
        fs::create_dir_all(folder.path().join(path).parent().expect("a folder")).expect("make the folder");
        fs::write(folder.path().join(path), text).expect("write a file");
    }
    let right = loaded(folder.path(), &Redactor::default()).expect("the project is right");
    assert!(right.project.is_some(), "{:#?}", right.findings);

    let mut accepted = 0;
    rounds("files", 60, |random| {
        let _ = fs::remove_file(folder.path().join("levin.lock.yml"));
        let told = written(random, folder.path());
        let said = || {
            told.iter()
                .map(|(path, b)| format!("{path}: {:?}\n", String::from_utf8_lossy(b)))
                .collect::<String>()
        };
        let redactor = Redactor::default();
        let outcome =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| loaded(folder.path(), &redactor)));
        let Ok(outcome) = outcome else {
            println!("{}", said());
            panic!("it panicked");
        };
        match outcome {
            Ok(loaded) => {
                for finding in &loaded.findings {
                    let shown =
                        format!("{} {}", finding.message, finding.hint.as_deref().unwrap_or_default());
                    assert_hidden(&redactor.redact(&shown));
                    assert!(!finding.message.is_empty() && finding.place.line > 0, "{finding:?}");
                    assert!(shown.len() < 20_000, "{} bytes are said of {}", shown.len(), said());
                }
                assert_eq!(
                    loaded.project.is_none(),
                    verdict(&loaded.findings).is_some(),
                    "{:#?}",
                    loaded.findings
                );
                accepted += u32::from(loaded.project.is_some());
            }
            Err(error) => assert_hidden(&redactor.redact(&format!("{error:?}"))),
        }
    });
    println!("files: {accepted} were accepted");
}

const SYNCS: &[(&str, &str)] = &[
    (
        "http",
        "model: people\ndestination: http\nmode: upsert\non_removed: delete\neach: {path: \"/rows\", batch_size: 10, body: \"{\\\"a\\\": {{ rows }}}\"}\n",
    ),
    (
        "http",
        "model: people\ndestination: http\nmappings:\n  - {template: \"{{ row.name | upper }}-{{ row.score + 1 }}\", to: upper}\n  - {value: [1, {a: b}], to: constant}\n  - to: nested\n    object: [{from: score, to: score}, {to: list, array: [{from: name}, {value: 1e3}]}]\neach: {path: \"/rows/{{ row.key }}\", method: PUT, batch_size: 1}\n",
    ),
    (
        "disk",
        "model: people\ndestination: disk\nmode: diff\nobject: \"changes-{{ run_id }}-{{ date }}.csv\"\nformat: csv\nguards: {max_added: {percent: 100}}\n",
    ),
    (
        "disk",
        "model: people\ndestination: disk\nmode: snapshot\nobject: \"all-{{ run_id }}.parquet\"\nformat: parquet\nmax_attempts: 2\n",
    ),
];
const MODELS: &[&str] = &[
    "source: wh\nprimary_key: id\nsql: select id, name, score from people\n",
    "source: wh\nprimary_key: [id, name]\ntable: main.people\n",
];

/// What `check` says of a project with its destinations at hand, `plan` confirms: it makes a plan.
#[test]
fn what_check_accepts_plan_can_use() {
    let receiver = Receiver::start();
    let project =
        Project::new(Engine::DuckDb).with_variable("TO", &receiver.url()).with_variable("SECRET", SECRET);
    project.sql(
        "create table people as select i as id, 'name ' || i as name, i * 1.5 as score from range(5) t(i)",
    );
    project.write(
        "destinations/http.yml",
        "type: http_request\nbase_url: ${TO}\nallow_private_networks: true\n",
    );
    project.write("destinations/disk.yml", "type: files\npath: out\n");
    let mut planned = 0;
    rounds("check-plan", 12, |random| {
        let (sync, model) = (SYNCS[random.usize(..SYNCS.len())].1, MODELS[random.usize(..MODELS.len())]);
        let others: Vec<&[u8]> =
            SYNCS.iter().map(|(_, s)| s.as_bytes()).chain(MODELS.iter().map(|m| m.as_bytes())).collect();
        let (mut sync, mut model) = (sync.as_bytes().to_vec(), model.as_bytes().to_vec());
        let spoils = if random.u8(..4) == 0 { &mut model } else { &mut sync };
        *spoils = nicked(random, spoils, WORDS, &others);
        let _ = fs::remove_file(project.path().join("levin.lock.yml"));
        let _ = fs::remove_dir_all(project.path().join(".levin"));
        fs::create_dir_all(project.path().join("syncs")).expect("make the folder");
        fs::create_dir_all(project.path().join("models")).expect("make the folder");
        fs::write(project.path().join("syncs/s.yml"), &sync).expect("write a file");
        fs::write(project.path().join("models/people.yml"), &model).expect("write a file");
        let said = || format!("{}\n{}", String::from_utf8_lossy(&sync), String::from_utf8_lossy(&model));
        let check = project.levin(&["check"]);
        assert!([0, 2, 64].contains(&check.code), "{check:#?}\n{}", said());
        assert!(!check.stderr.contains("INTERNAL"), "{check:#?}\n{}", said());
        assert_hidden(&(check.stdout.clone() + &check.stderr));
        if check.code == 0 {
            let slug = said()
                .lines()
                .find_map(|line| Some(line.strip_prefix("slug: ")?.trim_matches(['"', '\'']).to_owned()));
            let plan = project.levin(&["plan", slug.as_deref().unwrap_or("s"), "--json"]);
            assert!([0, 3].contains(&plan.code), "check accepts and plan does not: {plan:#?}\n{}", said());
            assert_hidden(&(plan.stdout + &plan.stderr));
            planned += 1;
        }
    });
    println!("check-plan: {planned} were planned");
}
