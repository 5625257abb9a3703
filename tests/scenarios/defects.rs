//! What went wrong in other engines, as whole runs. Those lines of the list that other files prove stand in
//! CHECKLIST.md under "What goes wrong in other engines".

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use tests::postgres::{self, PostgresServer};
use tests::project::{Engine, Project, Run, Running};
use tests::receiver::{Hold, Reply};

use super::{Crm, SYNC, on_both_warehouses};

on_both_warehouses!(
    a_mirror_that_is_stopped_deletes_what_it_did_not_load,
    a_replacement_that_is_stopped_shows_half_a_table,
    a_replacement_that_is_killed_blocks_every_later_run,
    a_failure_leaves_part_of_a_replaced_table,
    a_batch_that_failed_is_passed_by,
    failures_inside_a_multi_status_count_as_delivered,
    rows_without_a_date_are_never_picked_up,
    rows_are_lost_between_two_pages,
    long_names_of_syncs_collide,
    every_row_costs_a_statement_and_every_batch_a_connection,
    a_removed_column_or_mapping_deletes_everything,
    a_run_cannot_be_seen_right_after_its_start,
);

/// A sync `people` into the table `people` of a database, whose statements take their time when told.
struct Slow {
    project: Project,
    database: String,
}

impl Slow {
    fn new(engine: Engine, rows: u32, sync: &str) -> Self {
        let database = PostgresServer::start().fresh_database();
        postgres::run(
            &database,
            "create table people (id integer primary key, name text not null check (name <> 'bad')); \
             create table pace (seconds double precision); insert into pace values (0); \
             create table work (pid integer); \
             create function wait() returns trigger language plpgsql security definer set search_path = public as \
               'begin insert into work values (pg_backend_pid()); perform pg_sleep((select max(seconds) from pace)); return null; end'; \
             create trigger slowly after insert or update or delete on people for each statement execute function wait()",
        );
        let project = Project::new(engine).with_variable("CRM_DB", &database);
        project.sql("create table customers (id integer, name text)");
        project.sql(&format!("insert into customers select i, 'name ' || cast(i as text) from generate_series(1, {rows}) as t(i)"));
        project.write("destinations/crm.yml", "type: postgres\nurl: ${CRM_DB}\nconcurrency: 1\n");
        project.write(
            "models/customers.yml",
            "source: wh\nprimary_key: id\nsql: select id, name from customers\n",
        );
        project.write(
            "syncs/people.yml",
            &format!("model: customers\ndestination: crm\nobject: public.people\n{sync}\n"),
        );
        Self { project, database }
    }

    fn pace(&self, seconds: &str) {
        postgres::run(&self.database, &format!("update pace set seconds = {seconds}; delete from work"));
    }

    fn one(&self, select: &str) -> String {
        postgres::texts(&self.database, select)[0].clone().unwrap_or_default()
    }

    fn count(&self, condition: &str) -> u64 {
        self.one(&format!("select count(*)::text from people where {condition}")).parse().unwrap()
    }

    fn run(&self) -> Run {
        self.project.run("people")
    }

    fn run_sends(&self, counts: [u64; 3]) -> Run {
        let run = self.run();
        assert_eq!((run.code, run.status(), run.successful()), (0, "success", counts), "{run:#?}");
        run
    }

    /// Starts a run and waits until the destination has begun to work.
    fn begun(&self, arguments: &[&str]) -> Running {
        self.pace("0.2");
        let running = self.project.spawn("people", arguments);
        self.wait_for("select count(*)::text from work where pid > 0", |rows| rows != "0");
        running
    }

    fn wait_for(&self, select: &str, is: impl Fn(&str) -> bool) {
        for _ in 0..3_000 {
            if is(&self.one(select)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{select} never came to what was waited for");
    }
}

fn a_mirror_that_is_stopped_deletes_what_it_did_not_load(engine: Engine) {
    let slow =
        Slow::new(engine, 3_000, "mode: mirror\nbatch_size: 100\nguards: {max_removed: {percent: 90}}");
    slow.run_sends([3_000, 0, 0]);
    slow.project
        .sql("update customers set name = 'new ' || cast(id as text); delete from customers where id <= 10");
    let mut running = slow.begun(&[]);
    running.terminate();
    running.hears("stopping");
    let run = running.finish();
    assert_eq!((run.code, run.status()), (2, "cancelled"), "a stopped run is no success: {run:#?}");
    assert!(run.aborted()[1] > 0, "{run:#?}");
    // Exactly what was reported happened; what was not loaded stands there as it was.
    assert_eq!(slow.count("true"), 3_000 - run.successful()[2]);
    assert_eq!(slow.count("name like 'new %'"), run.successful()[1]);
    slow.pace("0");
    let run = slow.run();
    assert_eq!((run.code, run.failed()), (0, [0, 0, 0]), "{run:#?}");
    assert_eq!((slow.count("true"), slow.count("name like 'new %'")), (2_990, 2_990));
    slow.run_sends([0, 0, 0]);
}

fn a_replacement_that_is_stopped_shows_half_a_table(engine: Engine) {
    let slow = Slow::new(engine, 2_000, "mode: all\nreplace: true\nbatch_size: 50");
    slow.run_sends([2_000, 0, 0]);
    slow.project
        .sql("update customers set name = 'new ' || cast(id as text); delete from customers where id > 1900");
    // The work of a replacement cannot be seen from outside before its end, so the stop comes at several moments.
    for rows in [1, 200, 900] {
        let mut running = slow.project.spawn("people", &[]);
        std::thread::sleep(Duration::from_millis(rows));
        if running.is_running() {
            running.terminate();
        }
        let run = running.ended();
        let new = slow.count("name like 'new %'");
        let whole =
            if new == 0 { slow.count("true") == 2_000 } else { new == 1_900 && slow.count("true") == 1_900 };
        assert!(whole, "{new} of {} rows are new: {run:#?}", slow.count("true"));
        if run.code == 0 {
            break;
        }
    }
    slow.run_sends([1_900, 0, 0]);
    assert_eq!(slow.count("name like 'new %'"), 1_900);
}

fn a_replacement_that_is_killed_blocks_every_later_run(engine: Engine) {
    let slow = Slow::new(engine, 500, "mode: all\nreplace: true\nbatch_size: 50");
    slow.run_sends([500, 0, 0]);
    slow.project.sql("update customers set name = 'new ' || cast(id as text)");
    // The last moment of a replacement, when the new content takes the old one's place, is held up.
    postgres::run(&slow.database, "delete from work");
    let holder = postgres::OpenConnection::after(&slow.database, "begin; lock table people in share mode");
    let running = slow.project.spawn("people", &[]);
    std::thread::sleep(Duration::from_millis(1_500));
    running.kill();
    drop(holder);
    slow.run_sends([500, 0, 0]);
    assert_eq!((slow.count("true"), slow.count("name like 'new %'")), (500, 500));
    let tables = "select string_agg(relname, ' ' order by relname) from pg_class \
                  where relkind = 'r' and relnamespace = 'public'::regnamespace";
    assert_eq!(slow.one(tables), "pace people work", "nothing is left over");
}

fn a_failure_leaves_part_of_a_replaced_table(engine: Engine) {
    let slow = Slow::new(engine, 1_000, "mode: all\nreplace: true\nbatch_size: 100");
    slow.run_sends([1_000, 0, 0]);
    slow.project.sql("update customers set name = 'bad' where id = 200");
    let run = slow.run();
    assert_ne!(run.code, 0, "{run:#?}");
    let left = slow.count("true");
    assert!(left == 1_000 || left == 999, "{left} rows are left: {run:#?}");
}

fn a_batch_that_failed_is_passed_by(engine: Engine) {
    let crm = Crm::new(engine, 50, "mode: upsert");
    let failing = BTreeSet::from([2_usize, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    crm.receiver
        .behave(move |r| if failing.contains(&r.number) { Reply::status(503) } else { Reply::accept() });
    let run = crm.run();
    assert_ne!(
        (run.code, run.failed().iter().sum::<u64>() + run.aborted().iter().sum::<u64>()),
        (0, 0),
        "{run:#?}"
    );
    let there = crm.receiver.keys().len() as u64;
    crm.receiver.accept();
    // Whatever was not taken comes again, from the middle as from the end; and what changed with it.
    crm.sql("update customers set name = 'x' where id = 1");
    let run = crm.run();
    assert_eq!((run.code, run.status()), (0, "success"), "{run:#?}");
    assert!(run.successful().iter().sum::<u64>() >= 50 - there, "{run:#?}");
    crm.assert_same();
    crm.assert_quiet();
}

fn failures_inside_a_multi_status_count_as_delivered(engine: Engine) {
    let paths = "rejected: {list: result.errors, key: id, reason: error.text}\n\
                 each: {method: POST, path: /rows, batch_size: 10}";
    let crm = Crm::new(engine, 10, &format!("mode: mirror\n{paths}"));
    let some =
        json!({"result": {"ok": 8, "errors": [{"id": 3, "error": {"text": "no such list"}}, {"id": "7"}]}});
    let answer = some.to_string();
    crm.receiver.behave(move |_| {
        Reply::accept_but_answer(207)
            .but(&["3", "7"])
            .header("content-type", "application/json")
            .saying(&answer)
    });
    let run = crm.project.run(SYNC);
    assert_eq!((run.code, run.successful(), run.failed()), (1, [8, 0, 0], [2, 0, 0]), "{run:#?}");
    assert_eq!(crm.project.rejected(SYNC)[0]["reason"], "no such list");
    // One that does not say where failures stand: nobody knows, so nothing counts as delivered.
    crm.receiver.behave(|_| {
        Reply::accept_but_answer(207)
            .header("content-type", "application/json")
            .saying(r#"{"items": [{"id": 3, "status": 400}, {"id": 7, "status": 200}]}"#)
    });
    let run = crm.project.run(SYNC);
    assert_eq!((run.code, run.successful(), run.failed()), (1, [0, 0, 0], [2, 0, 0]), "{run:#?}");
    assert_eq!(run.number("inDoubtCount"), 2, "{run:#?}");
    let reason = crm.project.rejected(SYNC)[0]["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("207") && reason.contains("rejected: {list, key, reason}"), "{reason}");
    crm.receiver.accept();
    crm.run_sends([2, 0, 0]);
    crm.assert_same();
    crm.assert_quiet();
}

fn rows_without_a_date_are_never_picked_up(engine: Engine) {
    let crm = Crm::new(engine, 5, "mode: mirror");
    crm.sql("alter table customers add column updated_at timestamp; update customers set updated_at = timestamp '2026-01-01 00:00:00' where id <= 3");
    crm.model("id", "select id, name, email, updated_at from customers");
    crm.run_sends([5, 0, 0]);
    // The date stands still, is null, or goes back: the values differ all the same.
    crm.sql(
        "update customers set name = 'same date' where id = 1; update customers set name = 'no date' where id = 4; \
         update customers set name = 'older', updated_at = timestamp '2020-01-01 00:00:00' where id = 2; \
         insert into customers values (6, 'late', 'late', timestamp '2019-01-01 00:00:00'), (7, 'dateless', 'd', null)",
    );
    crm.run_sends([2, 3, 0]);
    crm.assert_same();
    crm.assert_quiet();
}

fn rows_are_lost_between_two_pages(engine: Engine) {
    let rows = 104_000;
    let crm = Crm::new(engine, 0, "mode: upsert\neach: {method: POST, path: /rows, batch_size: 4000}");
    let one = |condition: &str, name: &str| {
        crm.sql(&format!(
            "insert into customers select i, '{name}', 'e' from generate_series(1, {rows}) as t(i) where {condition}"
        ));
    };
    // In an order that is not the keys', so that the pages are no ranges of them.
    one("i % 2 = 0", "even");
    one("i % 2 = 1", "odd");
    crm.receiver.behave(|_| Reply::accept());
    let run = crm.run();
    assert_eq!((run.code, run.successful()), (0, [rows, 0, 0]), "{run:#?}");
    let keys: Vec<String> = crm.receiver.requests().iter().flat_map(|r| r.keys()).collect();
    let distinct: BTreeSet<&String> = keys.iter().collect();
    assert_eq!((keys.len(), distinct.len()), (rows as usize, rows as usize));
}

fn long_names_of_syncs_collide(engine: Engine) {
    let crm = Crm::new(engine, 4, "mode: mirror");
    let stem = "customers-of-the-european-shop-to-the-marketing-platform".to_owned();
    let names = [format!("{stem}-one"), format!("{stem}-two"), stem];
    assert!(names.iter().all(|name| name.len() > 54));
    for (at, name) in names.iter().enumerate() {
        crm.project.write(
            &format!("syncs/{name}.yml"),
            &format!(
                "model: customers\ndestination: crm\nmode: mirror\neach: {{method: POST, path: /{at}}}\n"
            ),
        );
    }
    for name in &names {
        let run = crm.project.run(name);
        assert_eq!((run.code, run.successful()), (0, [4, 0, 0]), "{run:#?}");
    }
    crm.sql("delete from customers where id = 1");
    for name in &names {
        let run = crm.project.run(name);
        assert_eq!(
            (run.code, run.successful()),
            (0, [0, 0, 1]),
            "each sync has a snapshot of its own: {run:#?}"
        );
        crm.project.assert_quiet(name, &crm.receiver);
    }
}

fn every_row_costs_a_statement_and_every_batch_a_connection(engine: Engine) {
    let slow = Slow::new(engine, 2_000, "mode: mirror\nbatch_size: 200");
    slow.pace("0");
    let run = slow.run_sends([2_000, 0, 0]);
    assert_eq!(run.number("destinationCalls"), 10, "{run:#?}");
    // `insert … on conflict do update` is one statement, and counts as an insert and an update.
    let work = "select count(*)::text || ' ' || count(distinct pid) from work";
    assert_eq!(slow.one(work), "20 1", "a statement per batch, one connection for all of them");
    slow.project
        .sql("update customers set name = 'x' where id <= 500; delete from customers where id > 1600");
    slow.pace("0");
    slow.run_sends([0, 500, 400]);
    assert_eq!(slow.one(work), "8 1", "three batches of changes, two of removals");
}

fn a_removed_column_or_mapping_deletes_everything(engine: Engine) {
    let crm =
        Crm::new(engine, 10, "mode: mirror\nmappings: [{from: name, to: name}, {from: email, to: email}]");
    crm.run_sends([10, 0, 0]);
    for mappings in [
        "[{from: name, to: name}]",
        "[{from: name, to: full_name}]",
        "[{template: '{{ row.name }}', to: name}, {value: levin, to: by}]",
        "[{from: name, to: name}, {from: email, to: email}]",
    ] {
        crm.sync(&format!("mode: mirror\nmappings: {mappings}"));
        let (_, plan) = crm.project.plan(SYNC, &[]);
        assert_eq!(plan["plannedRows"]["removedCount"], 0, "{plan:#}");
        assert_eq!(crm.run().successful()[2], 0);
        assert_eq!(crm.receiver.keys().len(), 10);
        assert!(crm.receiver.requests().iter().all(|r| r.operation() != "removed"));
    }
}

fn a_run_cannot_be_seen_right_after_its_start(engine: Engine) {
    let crm = Crm::new(engine, 5, "mode: upsert");
    let hold = Hold::default();
    let held = hold.clone();
    crm.receiver.behave(move |_| Reply::accept().held(&held));
    let running = crm.project.spawn(SYNC, &[]);
    crm.receiver.wait_for(1);
    let seen = crm.project.history();
    assert_eq!((seen.len(), &seen[0]["status"]), (1, &json!("running")), "{seen:#?}");
    hold.release();
    let run = running.finish();
    let after = crm.project.history();
    assert_eq!((&after[0]["id"], &after[0]["status"]), (&seen[0]["id"], &json!("success")), "{after:#?}");
    assert_eq!(after[0]["id"], run.report["id"]);
    // Every way to end is a word that says so.
    crm.receiver.behave(|_| Reply::status(401));
    crm.insert(6..=6);
    assert_eq!(crm.run().status(), "failed");
    crm.receiver.behave(|_| Reply::reject(&["6"], "no"));
    assert_eq!(crm.run().status(), "warning");
    let words: Vec<String> =
        crm.project.history().iter().map(|run| run["status"].as_str().unwrap().to_owned()).collect();
    assert_eq!(words, ["warning", "failed", "success"]);
}

/// The memory of `levin plan` itself; on DuckDB the engine lives in the same process.
#[test]
fn a_plan_holds_all_rows_in_memory() {
    let peak = |rows: u32| {
        let project = Project::new(Engine::Postgres).with_variable("OUT", "https://example.invalid");
        project.sql("create table customers (id integer, name text)");
        project.sql(&format!(
            "insert into customers select i, repeat('x', 100) || i from generate_series(1, {rows}) i"
        ));
        project.write(
            "models/customers.yml",
            "source: wh\nprimary_key: id\nsql: select id, name from customers\n",
        );
        project.write("destinations/out.yml", "type: http_request\nbase_url: ${OUT}\n");
        project.write(
            "syncs/out.yml",
            "model: customers\ndestination: out\nmode: upsert\neach: {method: POST, path: /x}\n",
        );
        let arguments = ["plan", "out", "--json"];
        let mut running = Running::start(project.command_of(tests::project::levin_binary(), &[], &arguments));
        let status = format!("/proc/{}/status", running.pid().as_raw_nonzero());
        let mut peak = 0_u64;
        while running.is_running() {
            let text = std::fs::read_to_string(&status).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
            peak = peak.max(kilobytes.unwrap_or_default());
            std::thread::sleep(Duration::from_millis(2));
        }
        let ended = running.ended();
        assert_eq!(ended.code, 0, "{ended:?}");
        assert!(ended.stdout.contains(&format!("\"addedCount\":{rows}")), "{ended:?}");
        assert!(peak > 0);
        peak
    };
    let (few, many) = (peak(100), peak(500_000));
    assert!(many < few + 32 * 1024, "{few} kB for a hundred rows, {many} kB for half a million");
}
