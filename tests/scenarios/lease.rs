//! Leases that cannot be renewed, and what then counts as delivered.

use std::time::{Duration, Instant};

use tests::postgres::{OpenConnection, texts};
use tests::project::Engine;
use tests::receiver::Reply;

use super::{Crm, SYNC, on_both_warehouses};

on_both_warehouses!(a_warehouse_held_up_for_longer_than_the_lease_loses_rows);

/// Of so many requests, each of which takes so long, the last ones need another lease than the first.
const REQUESTS: usize = 24;
const EACH: Duration = Duration::from_millis(400);

/// A lease is at least twice the destination's time-out and two seconds: four.
fn crm_with_a_short_lease(engine: Engine) -> Crm {
    let crm = Crm::new(engine, 0, "mode: mirror\neach: {method: POST, path: /rows, batch_size: 2}\n");
    crm.project.write("levin.yml", "name: scenario\nlease: 3s\n");
    crm.destination("timeout: 1s");
    if engine == Engine::DuckDb {
        crm.project.write("sources/wh.yml", "type: duckdb\npath: warehouse.duckdb\nbusy_timeout: 1s\n");
    }
    crm.insert(1..=4);
    crm.run_sends([4, 0, 0]);
    crm.insert(5..=4 + 2 * u32::try_from(REQUESTS).expect("few"));
    crm.receiver.behave(|_| {
        std::thread::sleep(EACH);
        Reply::accept()
    });
    crm
}

/// Keeps everybody else from the state of the only sync until dropped.
enum HeldUp {
    File(#[expect(dead_code, reason = "held until dropped")] duckdb::Connection),
    Row(#[expect(dead_code, reason = "held until dropped")] OpenConnection),
}

fn hold_up(crm: &Crm) -> HeldUp {
    let state = crm.project.texts(
        "select cast(table_schema || '.' || table_name as text) from information_schema.tables \
         where table_name like '%\\_state' escape '\\'",
    );
    let state = state.into_iter().flatten().next().expect("a state");
    let warehouse = crm.project.warehouse();
    match crm.project.engine() {
        Engine::DuckDb => {
            // The run opens the file for moments only; one of our attempts falls between them.
            let deadline = Instant::now() + Duration::from_secs(60);
            loop {
                match duckdb::Connection::open(warehouse) {
                    Ok(file) => return HeldUp::File(file),
                    Err(e) => assert!(Instant::now() < deadline, "{e}"),
                }
            }
        }
        _ => {
            let lock = format!("begin; select 1 from {state} for update");
            HeldUp::Row(OpenConnection::after(warehouse, &lock))
        }
    }
}

fn a_warehouse_held_up_for_longer_than_the_lease_loses_rows(engine: Engine) {
    let crm = crm_with_a_short_lease(engine);
    let before = crm.receiver.count();
    let running = crm.project.spawn(SYNC, &[]);
    crm.receiver.wait_for(before + 1);
    let held_up = hold_up(&crm);
    if engine == Engine::DuckDb {
        // Nobody can know whether somebody else has the lease by now, so the run ends.
        let run = running.finish();
        drop(held_up);
        assert_eq!((run.code, run.error()), (2, "LEASE_LOST"), "{run:#?}");
        let aborted = run.aborted()[0];
        assert!(aborted > 0 && run.successful()[0] > 0, "{run:#?}");
        crm.receiver.accept();
        let next = crm.run();
        assert_eq!((next.code, next.successful()), (0, [aborted, 0, 0]), "{next:#?}");
    } else {
        // The row is only locked: nobody took over, which the renewal that waited for it proves.
        std::thread::sleep(EACH * u32::try_from(REQUESTS).expect("few"));
        assert!(crm.receiver.count() < before + REQUESTS, "requests wait for the lease");
        drop(held_up);
        let run = running.finish();
        assert_eq!((run.code, run.successful()[0]), (0, 2 * REQUESTS as u64), "{run:#?}");
    }
    crm.assert_same();
    crm.assert_quiet();
}

/// A person asks for a plan while the sync runs: no lock of it may keep the run from its lease.
#[test]
fn a_plan_keeps_a_run_from_its_lease() {
    let crm = crm_with_a_short_lease(Engine::Postgres);
    let before = crm.receiver.count();
    let running = crm.project.spawn(SYNC, &[]);
    crm.receiver.wait_for(before + 1);
    // The plan reads its model until it is told to go on.
    let lock = OpenConnection::after(crm.project.warehouse(), "select pg_advisory_lock(7)");
    let elsewhere = crm.project.checkout();
    elsewhere.write(
        "models/customers.yml",
        "source: wh\nprimary_key: id\nsql: |\n  select id, name, email from customers, (select pg_advisory_xact_lock(7)) as lock\n",
    );
    std::thread::scope(|scope| {
        let plan = scope.spawn(|| elsewhere.plan(SYNC, &[]));
        // In the middle of the plan's transaction the run renews its lease and sends. Only its commit may wait.
        crm.receiver.wait_for(before + REQUESTS);
        let waits = "select mode from pg_locks where locktype = 'advisory' and not granted";
        assert!(!texts(crm.project.warehouse(), waits).is_empty(), "the plan is in the middle of it");
        lock.run("select pg_advisory_unlock(7)");
        let run = running.finish();
        assert_eq!((run.code, run.successful()[0]), (0, 2 * REQUESTS as u64), "{run:#?}");
        let (code, plan) = plan.join().expect("the plan");
        assert_eq!((code, &plan["querySize"]), (0, &serde_json::json!(4 + 2 * REQUESTS)), "{plan:#}");
    });
    crm.assert_same();
    crm.assert_quiet();
}
