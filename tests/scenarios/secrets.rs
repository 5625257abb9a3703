//! Secrets appear nowhere: not in output, not in the store, not in the warehouse.

use std::fs;

use tests::postgres::{PASSWORD_ROLE, PostgresServer};
use tests::project::Engine;
use tests::receiver::Reply;

use super::{Crm, SYNC, on_both_warehouses};

on_both_warehouses!(a_token_leaks, a_password_leaks);

const TOKEN: &str = "t0ken-Of-The-Crm-4711";
const PASSWORD: &str = "pa55word-of-the-database";

/// Looks into everything that levin wrote: what its commands print, its store, its tables.
fn assert_nowhere(crm: &Crm, secrets: &[&str], printed: &[String]) {
    let mut texts: Vec<(String, String)> =
        printed.iter().map(|text| ("output of a run".to_owned(), text.clone())).collect();
    for arguments in [
        &["check", "-vvv"][..],
        &["run", SYNC, "-vvv"],
        &["run", SYNC, "--json", "--log-format", "json", "-vvv"],
        &["plan", SYNC, "--json", "-v"],
        &["runs", "--json"],
        &["rejected", SYNC, "--json"],
        &["rejected", SYNC, "--key", "1"],
        &["rejected", SYNC, "--csv"],
        &["sql", SYNC],
        &["grants", "wh"],
        &["gc"],
    ] {
        let ended = crm.project.levin(arguments);
        assert!(ended.code != 101, "{arguments:?}: {}", ended.stderr);
        texts.push((format!("levin {arguments:?}"), ended.stdout + &ended.stderr));
    }
    for file in fs::read_dir(crm.project.path().join(".levin")).unwrap() {
        let path = file.unwrap().path();
        texts.push((
            path.display().to_string(),
            String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned(),
        ));
    }
    let managed = crm.project.managed("%");
    assert!(!managed.is_empty());
    texts.push(("the managed tables".to_owned(), managed.join("\n")));
    if crm.project.engine() == Engine::DuckDb {
        let bytes = fs::read(crm.project.warehouse()).unwrap();
        texts.push(("the warehouse's file".to_owned(), String::from_utf8_lossy(&bytes).into_owned()));
    }
    texts.push((
        "levin.lock.yml".to_owned(),
        fs::read_to_string(crm.project.path().join("levin.lock.yml")).unwrap(),
    ));
    for (place, text) in texts {
        for secret in secrets {
            assert!(!text.contains(secret), "{secret} is in {place}: {text}");
        }
    }
}

fn a_token_leaks(engine: Engine) {
    let mut crm = Crm::new(engine, 4, "mode: upsert\neach: {method: POST, path: /rows, batch_size: 2}");
    crm.project.set_variable("TOKEN", TOKEN);
    crm.project.set_variable("CRM_KEY", "another-s3cret-of-the-crm");
    crm.destination("auth: {bearer: \"${TOKEN}\"}\nheaders: {X-Crm-Key: \"${CRM_KEY}\"}\n");
    // A destination that repeats what it was told.
    crm.receiver.behave(|request| {
        let echo = format!("{:?}", request.headers);
        match request.number {
            0 => Reply::reject(&["1"], &echo),
            1 => Reply::status(422).saying(&echo),
            _ if request.has("3") => Reply::status(500).saying(&echo).header("x-echo", TOKEN),
            _ => Reply::reject(&["1"], &echo),
        }
    });
    let mut printed = Vec::new();
    for _ in 0..2 {
        let run = crm.run();
        assert_eq!(run.code, 1, "{run:#?}");
        printed.push(format!("{} {}", run.report, run.stderr));
    }
    assert_eq!(crm.receiver.requests()[0].headers["authorization"], format!("Bearer {TOKEN}"));
    assert_eq!(crm.receiver.requests()[0].headers["x-crm-key"], "another-s3cret-of-the-crm");
    let rejected = crm.project.rejected(SYNC);
    assert!(rejected.iter().any(|r| r["reason"].as_str().unwrap().contains("***")), "{rejected:#?}");
    assert_nowhere(&crm, &[TOKEN, "another-s3cret"], &printed);
    crm.receiver.behave(|request| Reply::status(401).saying(&format!("{:?}", request.headers)));
    crm.insert(5..=5);
    let run = crm.run();
    assert_eq!(run.code, 2, "{run:#?}");
    assert_nowhere(&crm, &[TOKEN, "another-s3cret"], &[format!("{} {}", run.report, run.stderr)]);
}

fn a_password_leaks(engine: Engine) {
    let server = PostgresServer::start();
    let url = server.fresh_database();
    let (_, rest) = url.split_once('@').expect("an address with a user");
    let mut crm = Crm::new(engine, 3, "mode: upsert");
    crm.project.set_variable("CRM_DB", &format!("postgres://postgres:{PASSWORD}@{rest}"));
    crm.project.write("destinations/crm.yml", "type: postgres\nurl: ${CRM_DB}\n");
    crm.project.write(
        "syncs/customers-to-crm.yml",
        "model: customers\ndestination: crm\nobject: public.people\ncreate: true\nmode: upsert\n",
    );
    let run = crm.project.run(SYNC);
    assert_eq!((run.code, run.successful()), (0, [3, 0, 0]), "{run:#?}");
    // A wrong password, and a server that is not there.
    crm.insert(4..=4);
    for address in [
        format!("postgres://{PASSWORD_ROLE}:{PASSWORD}@{rest}"),
        format!("postgres://postgres:{PASSWORD}@127.0.0.1:1/nowhere"),
        format!("postgres://postgres:{PASSWORD}@{rest}_that_is_not_there"),
    ] {
        crm.project.set_variable("CRM_DB", &address);
        let run = crm.project.run_with(SYNC, &["--full-resync"]);
        assert_eq!(run.code, 2, "{run:#?}");
        assert_nowhere(&crm, &[PASSWORD], &[format!("{} {}", run.report, run.stderr)]);
    }
}
