//! Dead letters: rows that were refused too often, or that somebody does not want to see again.

use serde_json::{Value, json};
use tests::postgres::{self, PostgresServer};
use tests::project::{Engine, Project};
use tests::receiver::{Hold, Reply};

use super::{Crm, SYNC, on_both_warehouses};

on_both_warehouses!(
    a_bad_row_is_tried_for_ever,
    a_parked_row_is_lost_when_it_changes,
    a_replay_overwrites_newer_values_with_older_ones,
    rows_are_parked_for_what_nobody_answered,
    parking_by_hand_stops_other_rows,
    a_parked_removal_is_forgotten,
    a_parked_row_trips_guards_or_ends_a_resync_too_early,
    a_crash_counts_an_attempt_twice,
    wide_and_odd_rows_cannot_be_parked,
    a_parked_row_takes_an_address_from_another,
    a_doubt_ends_because_its_row_is_parked,
    a_new_column_stops_a_sync_with_parked_rows,
);
tests::on_mariadb_too!(
    a_bad_row_is_tried_for_ever,
    a_crash_counts_an_attempt_twice,
    a_new_column_stops_a_sync_with_parked_rows,
);

const BAD: &str = "mode: mirror\nmax_attempts: 3\nguards: {allow_empty: true}";

/// The receiver refuses rows with these keys.
fn refuse(crm: &Crm, keys: &'static [&'static str]) {
    crm.receiver.behave(move |_| Reply::reject(keys, "not this one"));
}

/// Refused rows: key, attempts, whether it is parked.
fn rejected(crm: &Crm) -> Vec<(String, i64, bool)> {
    let rows = crm.project.rejected(SYNC);
    let told = |row: &Value| {
        (
            row["key"].as_str().unwrap().to_owned(),
            row["attempts"].as_i64().unwrap(),
            row["parked"].as_bool().unwrap(),
        )
    };
    rows.iter().map(told).collect()
}

fn entry(key: &str, attempts: i64, parked: bool) -> (String, i64, bool) {
    (key.to_owned(), attempts, parked)
}

fn mark(crm: &Crm, arguments: &[&str]) -> u64 {
    let ended = crm.project.levin(&[&["rejected", SYNC, "--json"], arguments].concat());
    assert_eq!(ended.code, 0, "{ended:?}");
    let line: Value = serde_json::from_str(ended.stdout.trim()).unwrap();
    line["parkedCount"].as_u64().or(line["retriedCount"].as_u64()).unwrap_or_else(|| panic!("{line}"))
}

/// Runs until the refused rows are parked.
fn park(crm: &Crm) {
    for _ in 0..3 {
        assert_eq!(crm.run().code, 1);
    }
}

/// A run with nothing but dead letters: it sends nothing and does not warn.
fn assert_parked(crm: &Crm, parked: [u64; 3]) {
    let calls = crm.receiver.count();
    let (code, plan) = crm.project.plan(SYNC, &[]);
    assert_eq!((code, &plan["parkedCount"]), (0, &json!(parked.iter().sum::<u64>())), "{plan:#}");
    let run = crm.run();
    assert_eq!((run.code, run.status(), run.planned()), (0, "success", [0, 0, 0]), "{run:#?}");
    assert_eq!(run.number("parkedCount"), parked.iter().sum::<u64>(), "{run:#?}");
    let of = |name: &str| run.report["parkedRows"][name].as_u64().unwrap();
    assert_eq!([of("addedCount"), of("changedCount"), of("removedCount")], parked, "{run:#?}");
    // Counts add up with what is parked beside what is planned.
    let known = run.number("unchangedCount") + parked[0] + parked[1];
    assert_eq!(run.number("querySize"), known, "{run:#?}");
    assert_eq!(crm.receiver.count(), calls);
}

fn a_bad_row_is_tried_for_ever(engine: Engine) {
    let crm = Crm::new(engine, 12, BAD);
    refuse(&crm, &["3"]);
    for attempt in 1..=3 {
        let run = crm.run();
        assert_eq!((run.code, run.failed()), (1, [1, 0, 0]), "{run:#?}");
        assert_eq!(rejected(&crm), [entry("3", attempt, attempt == 3)]);
    }
    assert_parked(&crm, [1, 0, 0]);
    // Others go on, and the destination's mind is not asked again.
    crm.receiver.accept();
    crm.insert(13..=13);
    crm.sql("update customers set name = 'x' where id = 1");
    let run = crm.run();
    assert_eq!((run.successful(), run.number("parkedCount")), ([1, 1, 0], 1), "{run:#?}");
    assert_parked(&crm, [1, 0, 0]);
    assert_eq!(rejected(&crm), [entry("3", 3, true)]);
    // A person may want it once more.
    assert_eq!(mark(&crm, &["--retry", "--key", "4"]), 0);
    assert_eq!(mark(&crm, &["--retry", "--key", "3"]), 1);
    crm.run_sends([1, 0, 0]);
    assert!(rejected(&crm).is_empty());
    crm.assert_same();
    crm.assert_quiet();
}

fn a_parked_row_is_lost_when_it_changes(engine: Engine) {
    let crm = Crm::new(engine, 5, BAD);
    crm.run_sends([5, 0, 0]);
    refuse(&crm, &["2"]);
    crm.sql("update customers set name = 'bad' where id = 2");
    park(&crm);
    assert_parked(&crm, [0, 1, 0]);
    // Another value: it goes again, and has all its attempts again.
    crm.sql("update customers set name = 'worse' where id = 2");
    let run = crm.run();
    assert_eq!((run.planned(), run.failed()), ([0, 1, 0], [0, 1, 0]), "{run:#?}");
    assert_eq!(rejected(&crm), [entry("2", 1, false)]);
    crm.run();
    crm.run();
    assert_eq!(rejected(&crm), [entry("2", 3, true)]);
    assert_parked(&crm, [0, 1, 0]);
    // Null and empty are values too.
    crm.sql("update customers set name = null where id = 2");
    assert_eq!(crm.run().planned(), [0, 1, 0]);
    crm.sql("update customers set name = '' where id = 2");
    assert_eq!(crm.run().planned(), [0, 1, 0]);
    // Back to what the destination has: it is no difference and no dead letter any more.
    crm.sql("update customers set name = 'name 2' where id = 2");
    crm.run_sends([0, 0, 0]);
    assert!(rejected(&crm).is_empty());
    crm.assert_quiet();
    // Another operation.
    crm.sql("update customers set name = 'bad' where id = 2");
    park(&crm);
    crm.sql("delete from customers where id = 2");
    crm.receiver.accept();
    crm.run_sends([0, 0, 1]);
    crm.assert_same();
    crm.assert_quiet();
    // Another definition of the sync.
    refuse(&crm, &["3"]);
    crm.sql("update customers set name = 'bad' where id = 3");
    park(&crm);
    assert_parked(&crm, [0, 1, 0]);
    crm.sync(&format!(
        "{BAD}\nmappings: [{{from: email, to: email}}, {{template: '{{{{ row.name | upper }}}}', to: name}}]"
    ));
    crm.receiver.accept();
    crm.run_sends([0, 1, 0]);
    assert_eq!(crm.receiver.field("3", "name"), "BAD");
    crm.assert_quiet();
}

fn a_replay_overwrites_newer_values_with_older_ones(engine: Engine) {
    let crm = Crm::new(engine, 5, BAD);
    crm.run_sends([5, 0, 0]);
    refuse(&crm, &["2"]);
    crm.sql("update customers set name = 'old' where id = 2");
    park(&crm);
    crm.receiver.accept();
    crm.sql("update customers set name = 'new' where id = 2");
    crm.run_sends([0, 1, 0]);
    assert_eq!(mark(&crm, &["--retry"]), 0, "what was accepted since is no dead letter");
    crm.assert_quiet();
    assert_eq!(crm.receiver.field("2", "name"), "new");
    // And what changed while it was parked is sent as it now is.
    refuse(&crm, &["3"]);
    crm.sql("update customers set name = 'old' where id = 3");
    park(&crm);
    assert_eq!(mark(&crm, &["--retry"]), 1);
    crm.sql("update customers set name = 'new' where id = 3");
    crm.receiver.accept();
    crm.run_sends([0, 1, 0]);
    assert_eq!(crm.receiver.field("3", "name"), "new");
    crm.assert_quiet();
}

fn rows_are_parked_for_what_nobody_answered(engine: Engine) {
    let crm = Crm::new(engine, 5, "mode: mirror\nmax_attempts: 1");
    // Silence, errors of the server on all rows, and a busy one are no answers to a row.
    crm.receiver.behave(|_| Reply::cut());
    for _ in 0..2 {
        assert_eq!(crm.run().code, 2);
    }
    crm.receiver.behave(|_| Reply::status(429));
    assert_eq!(crm.run().code, 2);
    assert!(rejected(&crm).iter().all(|(.., parked)| !parked), "{:?}", rejected(&crm));
    crm.receiver.accept();
    assert_eq!(crm.run().successful(), [5, 0, 0]);
    // What levin refuses by itself was never tried either.
    crm.sync("mode: mirror\nmax_attempts: 1\nmappings: [{from: email, to: email}, {template: '{{ row.name.x.y }}', to: name}]");
    crm.sql("update customers set email = 'z' where id = 1");
    for _ in 0..2 {
        let run = crm.run();
        assert_eq!((run.code, run.failed()), (1, [0, 1, 0]), "{run:#?}");
        assert_eq!(rejected(&crm), [entry("1", 0, false)]);
    }
    crm.sync("mode: mirror\nmax_attempts: 1");
    assert_eq!(crm.run().successful(), [0, 1, 0]);
    crm.assert_quiet();
}

/// What is parked is looked up while the columns change, too.
fn a_new_column_stops_a_sync_with_parked_rows(engine: Engine) {
    let crm = Crm::new(engine, 4, "mode: mirror\nmax_attempts: 1");
    refuse(&crm, &["2"]);
    crm.run();
    assert_parked(&crm, [1, 0, 0]);
    crm.model("id", "select id, name, email, id as v from customers");
    let (code, plan) = crm.project.plan(SYNC, &[]);
    assert_eq!((code, &plan["plannedRows"]["changedCount"]), (0, &json!(3)), "{plan:#}");
    let run = crm.run();
    assert_eq!(
        (run.code, run.planned()[1]),
        (1, 3),
        "the row has another form, and is tried again: {run:#?}"
    );
    assert_parked(&crm, [1, 0, 0]);
}

fn parking_by_hand_stops_other_rows(engine: Engine) {
    let crm = Crm::new(engine, 6, "mode: mirror");
    refuse(&crm, &["2", "4"]);
    crm.run();
    assert_eq!(mark(&crm, &["--park", "--key", "2"]), 1);
    assert_eq!(mark(&crm, &["--park", "--key", "2"]), 0, "it is already");
    assert_eq!(rejected(&crm), [entry("2", 1, true), entry("4", 1, false)]);
    let run = crm.run();
    assert_eq!((run.planned(), run.number("parkedCount")), ([1, 0, 0], 1), "{run:#?}");
    assert_eq!(mark(&crm, &["--park"]), 1);
    assert_parked(&crm, [2, 0, 0]);
    // A key that cannot be one is said to be none, or found nowhere: DuckDB may not look at it at all.
    let ended = crm.project.levin(&["rejected", SYNC, "--park", "--key", "x"]);
    let said = if engine == Engine::Postgres { "USAGE" } else { "0 rows parked" };
    assert!(ended.stderr.contains(said), "{ended:?}");
    // Not while a run is under way.
    crm.insert(7..=7);
    let hold = Hold::default();
    let held = hold.clone();
    crm.receiver.behave(move |_| Reply::accept().held(&held));
    let before = crm.receiver.count();
    let running = crm.project.spawn(SYNC, &[]);
    crm.receiver.wait_for(before + 1);
    let ended = crm.project.levin(&["rejected", SYNC, "--retry"]);
    assert!(ended.code == 2 && ended.stderr.contains("SYNC_BUSY"), "{ended:?}");
    hold.release();
    assert_eq!(running.finish().code, 0);
    crm.receiver.accept();
    assert_eq!(mark(&crm, &["--retry"]), 2);
    crm.run_sends([2, 0, 0]);
    crm.assert_same();
    crm.assert_quiet();
}

fn a_parked_removal_is_forgotten(engine: Engine) {
    let crm = Crm::new(engine, 5, BAD);
    crm.run_sends([5, 0, 0]);
    refuse(&crm, &["1"]);
    crm.sql("delete from customers where id = 1");
    park(&crm);
    assert_parked(&crm, [0, 0, 1]);
    assert!(crm.receiver.keys().contains(&"1".to_owned()));
    // It returns as it was: nothing differs. It leaves again: it is a new removal.
    crm.insert(1..=1);
    crm.run_sends([0, 0, 0]);
    assert!(rejected(&crm).is_empty());
    crm.sql("delete from customers where id = 1");
    crm.receiver.accept();
    crm.run_sends([0, 0, 1]);
    crm.assert_same();
    crm.assert_quiet();
}

fn a_parked_row_trips_guards_or_ends_a_resync_too_early(engine: Engine) {
    let crm = Crm::new(engine, 6, "mode: mirror\nmax_attempts: 1");
    refuse(&crm, &["1", "2"]);
    crm.run();
    // Six rows with two of them parked: a guard on what is sent does not count those.
    crm.sync("mode: mirror\nmax_attempts: 1\nguards: {max_added: {rows: 1}}");
    assert_parked_after_edit(&crm);
    // A full resync sends every row, those as well; while one is parked it has not come to its end.
    crm.sync("mode: mirror\nmax_attempts: 1");
    let run = crm.run_with(&["--full-resync"]);
    assert_eq!(
        (run.planned(), run.failed(), run.number("parkedCount")),
        ([6, 0, 0], [2, 0, 0], 0),
        "{run:#?}"
    );
    assert_parked(&crm, [2, 0, 0]);
    crm.receiver.accept();
    assert_eq!(mark(&crm, &["--retry"]), 2);
    crm.run_sends([2, 0, 0]);
    crm.assert_same();
    crm.assert_quiet();
    // A row that was accepted before the resync and refused in it is still due.
    refuse(&crm, &["3"]);
    let run = crm.run_with(&["--full-resync"]);
    assert_eq!((run.planned(), run.failed()), ([6, 0, 0], [1, 0, 0]), "{run:#?}");
    assert_parked(&crm, [1, 0, 0]);
    assert_parked(&crm, [1, 0, 0]);
    crm.receiver.accept();
    assert_eq!(mark(&crm, &["--retry"]), 1);
    crm.run_sends([1, 0, 0]);
    crm.assert_quiet();
    // Taking today's rows as accepted forgets dead letters.
    refuse(&crm, &["3"]);
    crm.sql("update customers set name = 'x' where id = 3");
    crm.run();
    assert_eq!(crm.run_with(&["--reset-cdc"]).code, 0);
    assert!(rejected(&crm).is_empty());
    crm.assert_quiet();
}

/// A guard is no part of what a row was refused under: it stays parked, and is not judged.
fn assert_parked_after_edit(crm: &Crm) {
    assert_parked(crm, [2, 0, 0]);
    crm.insert(7..=7);
    assert_eq!(crm.run().successful(), [1, 0, 0]);
    crm.sql("delete from customers where id = 7");
    assert_eq!(crm.run().successful(), [0, 0, 1]);
}

fn a_crash_counts_an_attempt_twice(engine: Engine) {
    let crm = Crm::new(engine, 25, "mode: mirror\nmax_attempts: 2");
    let hold = Hold::default();
    let held = hold.clone();
    crm.receiver.behave(move |r| match r.number {
        0 => Reply::reject(&["1", "2", "3", "4", "5", "6", "7", "8", "9"], "no"),
        _ => Reply::accept().held(&held),
    });
    let running = crm.project.spawn(SYNC, &[]);
    crm.receiver.wait_for(2);
    running.kill();
    hold.release();
    crm.receiver.accept();
    // Nobody touches rows that were refused before the crash: they come again, and are counted once.
    let first = crm.receiver.requests()[0].keys();
    let refused: Vec<String> = first.iter().filter(|key| key.len() == 1).cloned().collect();
    let before = rejected(&crm);
    assert!(before.is_empty(), "{before:?}");
    let names: Vec<String> = refused.clone();
    crm.receiver.behave(move |_| {
        let keys: Vec<&str> = names.iter().map(String::as_str).collect();
        Reply::reject(&keys, "no")
    });
    let run = crm.run();
    assert_eq!(run.code, 1, "{run:#?}");
    let told = rejected(&crm);
    assert_eq!(told.len(), refused.len(), "{told:?}");
    assert!(told.iter().all(|(_, attempts, parked)| (*attempts, *parked) == (2, true)), "{told:?}");
    assert_parked(&crm, [refused.len() as u64, 0, 0]);
}

fn wide_and_odd_rows_cannot_be_parked(engine: Engine) {
    let crm = Crm::new(engine, 3, "mode: mirror\nmax_attempts: 1");
    // More columns than an expression may be nested deep, and values that look like separators.
    let wide: Vec<String> = (0..1_200).map(|at| format!("id + {at} as c{at}")).collect();
    crm.model(
        "[id, name]",
        &format!(
            "select id, name, email, cast(null as text) as nothing, 1.50 as d, {} from customers",
            wide.join(", ")
        ),
    );
    crm.sql("update customers set name = 'it''s \"1\", [2]', email = '1:-|' where id = 1");
    let key = r#"["1","it's \"1\", [2]"]"#;
    let canonical = r#"[1,"it's \"1\", [2]"]"#;
    crm.receiver.behave(|r| {
        let keys = r.keys();
        let bad: Vec<&str> = keys.iter().map(String::as_str).filter(|key| key.contains("it's")).collect();
        Reply::reject(&bad, "no")
    });
    assert_eq!(crm.run().failed(), [1, 0, 0]);
    assert_eq!(rejected(&crm), [entry(canonical, 1, true)]);
    assert_parked(&crm, [1, 0, 0]);
    // What was in one column is now in the next.
    crm.sql("update customers set email = '-' where id = 1");
    assert_eq!(crm.run().failed(), [1, 0, 0]);
    assert_parked(&crm, [1, 0, 0]);
    assert_eq!(mark(&crm, &["--retry", "--key", canonical]), 1);
    assert_eq!(mark(&crm, &["--park", "--key", key]), 1, "a number may be written as a text");
    assert_parked(&crm, [1, 0, 0]);
    crm.receiver.accept();
    assert_eq!(mark(&crm, &["--retry", "--key", canonical]), 1);
    crm.run_sends([1, 0, 0]);
    crm.assert_quiet();
}

/// People and a table that knows them by address; two ids may claim one address.
fn a_parked_row_takes_an_address_from_another(engine: Engine) {
    let database = PostgresServer::start().fresh_database();
    postgres::run(
        &database,
        "create table contacts (email text primary key, name text, check (name <> 'refused'))",
    );
    let project = Project::new(engine).with_variable("CONTACTS_URL", &database);
    project.sql("create table people (id integer, name text, email text)");
    project.sql("insert into people values (1, 'one', 'a'), (2, 'two', 'b')");
    project.write("destinations/crm.yml", "type: postgres\nurl: ${CONTACTS_URL}\n");
    project
        .write("models/people.yml", "source: wh\nprimary_key: id\nsql: select id, name, email from people\n");
    project.write(
        "syncs/people.yml",
        "model: people\ndestination: crm\nmode: mirror\nobject: contacts\nmatch: {from: email, to: email}\nmax_attempts: 1\n\
         guards: {allow_empty: true, max_removed: {rows: 1000}}\n\
         mappings: [{from: email, to: email}, {from: name, to: name}]\n",
    );
    let run = |counts: [u64; 3], failed: [u64; 3], parked: u64| {
        let run = project.run("people");
        assert_eq!(
            (run.successful(), run.failed(), run.number("parkedCount")),
            (counts, failed, parked),
            "{run:#?}"
        );
        run
    };
    let there = || postgres::texts(&database, "select email || ' ' || name from contacts order by 1");
    let some = |rows: &[&str]| rows.iter().map(|row| Some((*row).to_owned())).collect::<Vec<_>>();
    run([2, 0, 0], [0, 0, 0], 0);
    // A new row that the table refuses wants the address of one that leaves. Before it is parked the
    // removal gives way to it; once it is, the removal goes.
    project.sql("delete from people where id = 1; insert into people values (3, 'refused', 'a')");
    let first = run([0, 0, 0], [1, 0, 0], 0);
    assert_eq!(first.number("supersededCount"), 1, "{first:#?}");
    run([0, 0, 1], [0, 0, 0], 1);
    assert_eq!(there(), some(&["b two"]));
    // Somebody else may take the address that the dead letter claims.
    project.sql("insert into people values (4, 'four', 'a')");
    run([1, 0, 0], [0, 0, 0], 1);
    assert_eq!(there(), some(&["a four", "b two"]));
    // When it changes it has to wait for the holder.
    project.sql("update people set name = 'three' where id = 3");
    run([0, 0, 0], [1, 0, 0], 0);
    project.sql("delete from people where id = 4");
    run([1, 0, 0], [0, 0, 0], 0);
    assert_eq!(there(), some(&["a three", "b two"]));
    let last = run([0, 0, 0], [0, 0, 0], 0);
    assert_eq!(last.status(), "success", "{last:#?}");
}

fn a_doubt_ends_because_its_row_is_parked(engine: Engine) {
    let crm = Crm::new(
        engine,
        3,
        "mode: mirror\nmax_attempts: 1\neach: {method: POST, path: /rows, batch_size: 1}",
    );
    crm.run_sends([3, 0, 0]);
    // Applied, and then an error: an answer about this row alone, and a doubt.
    crm.receiver.behave(|r| if r.has("2") { Reply::accept_but_answer(500) } else { Reply::accept() });
    crm.sql("update customers set name = 'x' where id in (1, 2)");
    let run = crm.run();
    assert_eq!(
        (run.successful(), run.failed(), run.number("inDoubtCount")),
        ([0, 1, 0], [0, 1, 0], 1),
        "{run:#?}"
    );
    assert_eq!(rejected(&crm), [entry("2", 1, true)]);
    // The doubt stands in the diff, with its row.
    assert_parked(&crm, [0, 1, 0]);
    // Back to the value that was accepted: that is another value, and it must be said to a destination
    // that may hold the one in doubt.
    crm.receiver.accept();
    crm.sql("update customers set name = 'name 2' where id = 2");
    crm.run_sends([0, 1, 0]);
    crm.assert_same();
    crm.assert_quiet();
}
