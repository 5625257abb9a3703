//! Warehouses and destinations that cannot be reached, or let nobody in.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tests::on_both_warehouses;
use tests::postgres::{PASSWORD_ROLE, PostgresServer, run as sql};
use tests::project::{Engine, Project};

use super::{Case, SYNC, as_role, says};

on_both_warehouses!(nothing_answers_at_the_destinations_address);

/// A role with a password, once per server.
fn role_with_password() {
    static MADE: OnceLock<()> = OnceLock::new();
    MADE.get_or_init(|| {
        PostgresServer::start().run(
            "postgres",
            &format!(
                "do $$ begin create role {PASSWORD_ROLE} login; exception when duplicate_object then null; end $$; \
                 alter role {PASSWORD_ROLE} superuser password 'right'"
            ),
        );
    });
}

/// A case whose destination is a table of another database of the server.
fn into_postgres(case: &mut Case) -> String {
    let url = PostgresServer::start().fresh_database();
    sql(&url, "create table t (id integer primary key, name text)");
    case.project.write("destinations/crm.yml", "type: postgres\nurl: ${CRM_URL}\n");
    case.project.write(
        &format!("syncs/{SYNC}.yml"),
        "model: rows\ndestination: crm\nmode: mirror\nobject: public.t\n",
    );
    case.project.set_variable("CRM_URL", &url);
    url
}

#[test]
fn a_wrong_password_of_the_source_is_said_and_not_shown() {
    role_with_password();
    let mut case = Case::small(Engine::Postgres);
    let url = case.project.warehouse().to_owned();
    case.project.set_variable("WAREHOUSE_URL", &as_role(&url, PASSWORD_ROLE, Some("not-the-p4ssword")));
    let run = case.fails("SOURCE_AUTHENTICATION", &["source `wh`", PASSWORD_ROLE, "password"]);
    assert!(!format!("{run:?}").contains("not-the-p4ssword"), "{run:#?}");
    case.check_finds("SOURCE_AUTHENTICATION", 2, &["source wh:"]);

    case.project.set_variable("WAREHOUSE_URL", &as_role(&url, PASSWORD_ROLE, Some("right")));
    case.sends([3, 0, 0]);
    case.project.set_variable("WAREHOUSE_URL", &as_role(&url, PASSWORD_ROLE, Some("wrong-again")));
    case.fails("SOURCE_AUTHENTICATION", &[]);
    case.project.set_variable("WAREHOUSE_URL", &as_role(&url, PASSWORD_ROLE, Some("right")));
    case.quiet();
}

#[test]
fn a_wrong_password_of_the_destination_is_said_and_not_shown() {
    role_with_password();
    for engine in [Engine::DuckDb, Engine::Postgres] {
        let mut case = Case::small(engine);
        let url = into_postgres(&mut case);
        case.project.set_variable("CRM_URL", &as_role(&url, PASSWORD_ROLE, Some("not-the-p4ssword")));
        let run = case.fails("DESTINATION_UNUSABLE", &[PASSWORD_ROLE]);
        assert!(!format!("{run:?}").contains("not-the-p4ssword"), "{run:#?}");
        case.check_finds("DESTINATION_UNUSABLE", 2, &["destination crm:"]);
        case.project.set_variable("CRM_URL", &url);
        case.check_passes();
        case.sends([3, 0, 0]);
        case.quiet();
    }
}

#[test]
fn nothing_answers_at_the_sources_address() {
    let mut case = Case::small(Engine::Postgres);
    let url = case.project.warehouse().to_owned();
    case.sends([3, 0, 0]);
    case.project.set_variable("WAREHOUSE_URL", "postgres://levin:s3cret@127.0.0.1:1/analytics");
    let run = case.fails("SOURCE_UNREACHABLE", &["source `wh`", "127.0.0.1:1"]);
    assert!(!format!("{run:?}").contains("s3cret"), "{run:#?}");
    case.check_finds("SOURCE_UNREACHABLE", 2, &["source wh:"]);
    case.project.set_variable("WAREHOUSE_URL", "postgres://levin@no-such-host.invalid/analytics");
    case.fails("SOURCE_UNREACHABLE", &["no-such-host.invalid"]);
    case.project.set_variable("WAREHOUSE_URL", &url);
    case.quiet();
}

/// A server that lets nobody else in for now is busy, not full.
#[test]
fn too_many_connections_are_busy_and_no_full_disk() {
    PostgresServer::start().run(
        "postgres",
        "do $$ begin create role levin_limited login connection limit 0; exception when duplicate_object then null; end $$",
    );
    let mut case = Case::small(Engine::Postgres);
    let url = case.project.warehouse().to_owned();
    case.sends([3, 0, 0]);
    case.project.set_variable("WAREHOUSE_URL", &as_role(&url, "levin_limited", None));
    sql(&url, "insert into t values (4, 'd')");
    case.fails("SOURCE_BUSY", &["too many connections", "--wait"]);
    case.check_finds("SOURCE_BUSY", 2, &["source wh:"]);
    case.project.set_variable("WAREHOUSE_URL", &url);
    case.sends([1, 0, 0]);
    case.quiet();
}

#[test]
fn a_database_that_is_not_there_is_named() {
    let mut case = Case::small(Engine::Postgres);
    case.project.set_variable("WAREHOUSE_URL", &PostgresServer::start().url("no_such_database"));
    case.fails("SOURCE_UNREACHABLE", &["no_such_database", "does not exist", "sources/wh.yml"]);
    case.check_finds("SOURCE_UNREACHABLE", 2, &["no_such_database", "sources/wh.yml"]);
}

#[test]
fn a_store_that_does_not_answer_says_why_and_at_once() {
    let case = Case::small(Engine::DuckDb);
    case.project.write("levin.yml", "name: small\nstore: postgres://levin:s3cret@127.0.0.1:1/levin\n");
    let ended = case.project.levin(&["run", SYNC]);
    assert_eq!((ended.code, case.receiver.count()), (2, 0), "{ended:#?}");
    says(&ended.stderr, &["error[STORE_FAILED]", "refused", "store:"]);
    assert!(!ended.stderr.contains("s3cret") && !ended.stderr.contains("timed out"), "{ended:#?}");
}

fn nothing_answers_at_the_destinations_address(engine: Engine) {
    let mut case = Case::small(engine);
    let url = case.receiver.url();
    case.project.set_variable("CRM_URL", "http://127.0.0.1:1");
    let run = case.fails("DESTINATION_UNAVAILABLE", &["127.0.0.1:1"]);
    assert_eq!((run.planned(), run.aborted()), ([3, 0, 0], [3, 0, 0]), "{run:#?}");
    case.project.set_variable("CRM_URL", "http://no-such-host.invalid");
    let run = case.run();
    assert_eq!((run.code, run.error()), (2, "TARGET_CHANGED"), "{run:#?}");
    // Nothing was accepted under the other address, so starting afresh loses nothing.
    case.project.set_variable("CRM_URL", &url);
    let run = case.project.run_with(SYNC, &["--full-resync"]);
    assert_eq!((run.code, run.successful()), (0, [3, 0, 0]), "{run:#?}");
    case.quiet();

    let url = into_postgres(&mut case);
    let run = case.project.run_with(SYNC, &["--full-resync"]);
    assert_eq!((run.code, run.successful()), (0, [3, 0, 0]), "{run:#?}");
    case.project.sql("update t set name = 'new' where id = 2");
    sql(&url, "alter table t rename to gone");
    let run = case.run();
    assert_eq!((run.code, run.status()), (2, "failed"), "{run:#?}");
    says(run.message(), &["public", "t"]);
    sql(&url, "alter table gone rename to t");
    case.sends([0, 1, 0]);
}

#[test]
fn a_warehouse_file_that_is_missing_comes_back_as_it_was() {
    let case = Case::small(Engine::DuckDb);
    case.sends([3, 0, 0]);
    let file = case.project.warehouse().to_owned();
    let away = format!("{file}.away");
    std::fs::rename(&file, &away).expect("move the file away");
    case.fails("SOURCE_UNREACHABLE", &["warehouse.duckdb", "no such file", "path in `sources/`"]);
    case.check_finds("SOURCE_UNREACHABLE", 2, &["no such file"]);
    assert!(!std::path::Path::new(&file).exists(), "an empty warehouse was made in its place");
    std::fs::rename(&away, &file).expect("move it back");
    case.quiet();

    std::fs::copy(&file, &away).expect("keep a copy");
    std::fs::write(&file, "this is no database").expect("write over it");
    case.fails("SOURCE_UNREACHABLE", &["warehouse.duckdb"]);
    std::fs::rename(&away, &file).expect("put it back");
    case.quiet();
}

#[test]
fn a_file_that_another_process_holds_is_busy_and_may_be_awaited() {
    let case = Case::small(Engine::DuckDb);
    case.project.write("sources/wh.yml", "type: duckdb\npath: warehouse.duckdb\nbusy_timeout: 100ms\n");
    let holder = duckdb::Connection::open(case.project.warehouse()).expect("open the warehouse");
    let pid = std::process::id().to_string();
    case.fails("SOURCE_BUSY", &["warehouse.duckdb", &pid, "--wait"]);
    case.check_finds("SOURCE_BUSY", 2, &[&pid]);

    let waiting = case.project.spawn(SYNC, &["--wait", "100s"]);
    let deadline = Instant::now() + Duration::from_secs(60);
    // The run is in the store before it asks for the file.
    while case.project.history().len() < 2 {
        assert!(Instant::now() < deadline, "the run does not begin");
    }
    drop(holder);
    let run = waiting.finish();
    assert_eq!((run.code, run.successful()), (0, [3, 0, 0]), "{run:#?}");
    case.quiet();
}

#[test]
fn a_connection_cut_in_the_middle_of_the_diff_is_repeated_by_the_next_run() {
    let case = Case::small(Engine::Postgres);
    // The model ends its own connection, as an operator or a failing network would.
    case.model("id", "select id, name, pg_terminate_backend(pg_backend_pid()) as cut from t");
    let run = case.fails("SOURCE_CONNECTION_LOST", &[]);
    assert_eq!(run.successful(), [0, 0, 0]);
    case.model("id", "select id, name from t");
    case.sends([3, 0, 0]);
    case.quiet();
}

#[test]
fn an_unknown_sync_is_a_usage_error_that_suggests() {
    let project: Project = Case::small(Engine::DuckDb).project;
    let ended = project.levin(&["run", "rows-to-crn"]);
    super::failed(&project, &ended, 64, "USAGE", &["rows-to-crn", "did you mean `rows-to-crm`?"]);
}
