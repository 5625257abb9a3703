//! What the commands around a run say, and what they leave alone.

use serde_json::{Value, json};
use tests::postgres::{self, PostgresServer};
use tests::project::{Engine, Project};
use tests::receiver::{Hold, Reply};

use super::{Crm, SYNC, on_both_warehouses};

on_both_warehouses!(
    a_plan_is_not_what_the_run_does,
    a_plan_changes_something,
    a_run_under_way_or_gone_looks_like_none,
    a_preview_or_the_history_is_wrong,
    the_sql_that_is_shown_does_not_run,
    gc_drops_what_is_in_use,
    the_second_signal_is_not_heard,
    what_is_not_known_is_said_to_be_nothing,
    a_person_is_told_nothing,
    removals_that_wait_are_said_to_be_lost,
    cleared_fields_keep_their_values,
    the_line_of_a_run_lacks_what_scripts_read,
    logs_stand_between_the_data,
    the_owners_tables_are_touched,
);

fn the_line_of_a_run_lacks_what_scripts_read(engine: Engine) {
    let crm = Crm::new(engine, 3, "mode: mirror");
    let run = crm.run_sends([3, 0, 0]);
    let mut keys: Vec<&str> = run.report.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        [
            "abortedRows",
            "cost",
            "destinationCalls",
            "duplicateKeyCount",
            "error",
            "failedRows",
            "finishedAt",
            "firstStatementAt",
            "id",
            "inDoubtCount",
            "notSent",
            "nullKeyCount",
            "parkedCount",
            "parkedRows",
            "plannedRows",
            "querySize",
            "retries",
            "stages",
            "startedAt",
            "status",
            "successfulRows",
            "supersededCount",
            "syncId",
            "syncSlug",
            "unchangedCount",
        ]
    );
    for counts in ["plannedRows", "successfulRows", "failedRows", "abortedRows", "notSent"] {
        let mut of: Vec<&str> = run.report[counts].as_object().unwrap().keys().map(String::as_str).collect();
        of.sort_unstable();
        assert_eq!(of, ["addedCount", "changedCount", "removedCount"], "{counts}");
    }
    for stage in ["prepare", "diff", "deliver", "commit"] {
        assert!(run.report["stages"][stage].as_f64().is_some_and(|s| s >= 0.0), "{stage}: {:#}", run.report);
    }
    assert_eq!((&run.report["error"], &run.report["parkedCount"]), (&Value::Null, &json!(0)));
}

fn logs_stand_between_the_data(engine: Engine) {
    let crm = Crm::new(engine, 3, "mode: mirror");
    let ended = crm.project.levin(&["--log-format", "json", "-vv", "run", SYNC, "--json"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let data: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(data.len(), 1, "{data:?}");
    assert_eq!(serde_json::from_str::<Value>(data[0]).unwrap()["syncSlug"], SYNC);
    let logs: Vec<Value> = ended
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    assert!(!logs.is_empty(), "nothing is logged at -vv");
    assert!(logs.iter().all(|l| l["level"].is_string() && l["timestamp"].is_string()), "{logs:#?}");
    assert!(!ended.stderr.contains("@example.com"), "a row value is in the logs");
}

fn the_owners_tables_are_touched(engine: Engine) {
    let crm = Crm::new(engine, 5, "mode: mirror");
    let everything_else = || {
        crm.project.texts(
            "select table_schema || '.' || table_name from information_schema.tables
             where table_schema not in ('levin_planner', 'levin_audit', 'information_schema', 'pg_catalog') order by 1",
        )
    };
    let rows = || crm.project.texts("select id || name || email from customers order by id");
    let (tables, before) = (everything_else(), rows());
    crm.project.plan(SYNC, &[]);
    crm.run_sends([5, 0, 0]);
    for arguments in [&["--full-resync"] as &[&str], &["--reset-cdc"], &[]] {
        crm.project.run_with(SYNC, arguments);
    }
    assert_eq!(crm.project.levin(&["gc", "--yes"]).code, 0);
    assert_eq!((everything_else(), rows()), (tables, before));
}

fn a_plan_is_not_what_the_run_does(engine: Engine) {
    let crm = Crm::new(engine, 12, "mode: mirror");
    let (code, plan) = crm.project.plan(SYNC, &[]);
    assert_eq!((code, &plan["reason"]), (0, &json!("first_run")), "{plan:#}");
    assert_eq!(plan["plannedRows"], json!({"addedCount": 12, "changedCount": 0, "removedCount": 0}));
    crm.run_sends([12, 0, 0]);
    crm.sql(
        "update customers set name = 'x' where id in (1, 2); update customers set email = 'y' where id in (2, 3, 4); \
         delete from customers where id = 12",
    );
    crm.insert(13..=13);
    let (code, plan) = crm.project.plan(SYNC, &[]);
    assert_eq!((code, &plan["reason"]), (0, &json!("incremental")), "{plan:#}");
    assert_eq!(plan["plannedRows"], json!({"addedCount": 1, "changedCount": 4, "removedCount": 1}));
    assert_eq!(plan["changedColumns"], json!({"email": 3, "name": 2}));
    assert_eq!(plan["unchangedCount"], json!(7));
    let samples = plan["samples"].as_array().unwrap();
    let of =
        |key: &str| samples.iter().find(|s| s["key"] == key).unwrap_or_else(|| panic!("{key}: {plan:#}"));
    assert_eq!((&of("13")["operation"], &of("13")["fields"]["name"]), (&json!("added"), &json!("name 13")));
    assert_eq!((&of("1")["operation"], &of("1")["fields"]["name"]), (&json!("changed"), &json!("x")));
    assert_eq!(of("1")["previous"]["name"], "name 1", "{plan:#}");
    assert_eq!(of("12")["operation"], "removed");
    // The same plan has the same name, another one another.
    let (_, again) = crm.project.plan(SYNC, &[]);
    assert_eq!(plan["planId"], again["planId"]);
    crm.insert(14..=14);
    assert_ne!(plan["planId"], crm.project.plan(SYNC, &[]).1["planId"]);
    crm.sql("delete from customers where id = 14");
    let (_, resync) = crm.project.plan(SYNC, &["--full-resync"]);
    assert_eq!(resync["reason"], json!("full_resync"));
    assert_eq!(resync["plannedRows"], json!({"addedCount": 12, "changedCount": 0, "removedCount": 0}));
    let run = crm.run();
    assert_eq!(run.report["plannedRows"], plan["plannedRows"]);
    crm.assert_same();
    crm.assert_quiet();
}

pub fn a_plan_changes_something(engine: Engine) {
    let crm = Crm::new(engine, 5, "mode: mirror");
    let (_, plan) = crm.project.plan(SYNC, &[]);
    assert_eq!(plan["plannedRows"]["addedCount"], 5);
    assert!(crm.project.managed("%").is_empty(), "a plan before the first run leaves no rows behind");
    crm.run_sends([5, 0, 0]);
    crm.sql("delete from customers where id = 1; update customers set name = null");
    let before = crm.project.managed("%");
    for arguments in [&[][..], &["--full-resync"], &["--full-resync", "--keep-removals"], &["--reset-cdc"]] {
        let (code, plan) = crm.project.plan(SYNC, arguments);
        assert_eq!(code, 0, "{plan:#}");
    }
    assert_eq!(crm.project.managed("%"), before);
    assert_eq!((crm.receiver.count(), crm.project.history().len()), (1, 1));
    // A new column is planned, and the snapshot keeps its shape.
    crm.model("id", "select id, name, email, 'x' as extra from customers");
    let (_, plan) = crm.project.plan(SYNC, &[]);
    assert_eq!(plan["changedColumns"]["extra"], json!(4), "{plan:#}");
    assert_eq!(crm.project.managed("%"), before);
}

fn a_preview_or_the_history_is_wrong(engine: Engine) {
    let crm = Crm::new(engine, 30, "mode: upsert");
    let preview = crm.project.levin(&["preview", "customers", "--limit", "3"]);
    assert_eq!(preview.code, 0, "{preview:?}");
    assert!(
        preview.stdout.contains("1@example.com") && !preview.stdout.contains("4@example.com"),
        "{preview:?}"
    );
    assert!(preview.stdout.to_lowercase().contains("int"), "types are shown: {preview:?}");
    crm.receiver.behave(|_| Reply::reject(&["7"], "it has, a \"comma\""));
    crm.run();
    crm.receiver.accept();
    crm.run();
    let history = crm.project.history();
    let told: Vec<(&Value, &Value)> = history.iter().map(|r| (&r["id"], &r["status"])).collect();
    assert_eq!(told, [(&json!(2), &json!("success")), (&json!(1), &json!("warning"))]);
    assert_eq!(history[1]["failedRows"]["addedCount"], 1);
    for arguments in [&["runs"][..], &["runs", SYNC, "--limit", "1"]] {
        let runs = crm.project.levin(arguments);
        assert!(runs.code == 0 && runs.stdout.contains("success"), "{runs:?}");
    }
    crm.receiver.behave(|_| Reply::reject(&["8"], "it has, a \"comma\""));
    crm.sql("update customers set name = 'x' where id = 8");
    crm.run();
    let csv = crm.project.levin(&["rejected", SYNC, "--csv"]).stdout;
    assert!(csv.lines().count() == 2 && csv.contains("\"it has, a \"\"comma\"\"\""), "{csv}");
    let one = crm.project.levin(&["rejected", SYNC, "--key", "8"]).stdout;
    assert!(one.contains("8@example.com") && one.contains("200 OK"), "request and response are shown: {one}");
    let unknown = crm.project.levin(&["runs", "customers-to-cmr"]);
    assert!(unknown.code == 64 && unknown.stderr.contains(SYNC), "{unknown:?}");
}

fn the_sql_that_is_shown_does_not_run(engine: Engine) {
    let crm = Crm::new(engine, 6, "mode: mirror");
    crm.run_sends([6, 0, 0]);
    crm.sql("update customers set name = 'x' where id = 1");
    let shown = crm.project.levin(&["sql", SYNC]);
    assert_eq!(shown.code, 0, "{shown:?}");
    for stage in ["prepare", "diff", "plan", "deliver", "commit", "prune"] {
        let one = crm.project.levin(&["sql", SYNC, stage]);
        assert_eq!(one.code, 0, "{stage}: {one:?}");
    }
    let diff = crm.project.levin(&["sql", SYNC, "diff"]).stdout;
    assert!(diff.contains("customers"), "{diff}");
    let before = crm.project.managed("%");
    crm.sql(&format!("begin;\n{}\n;rollback;", without_transactions(&diff)));
    assert_eq!(crm.project.managed("%"), before);
    crm.run_sends([0, 1, 0]);
    crm.assert_quiet();
}

/// The statements without those that begin and end transactions.
fn without_transactions(sql: &str) -> String {
    let frame = |line: &str| {
        let line = line.trim().to_lowercase();
        line.starts_with("begin") || line.starts_with("commit;") || line.starts_with("start transaction")
    };
    sql.lines().filter(|line| !frame(line)).collect::<Vec<_>>().join("\n")
}

fn gc_drops_what_is_in_use(engine: Engine) {
    let crm = Crm::new(engine, 6, "mode: mirror");
    crm.project.write(
        "syncs/second.yml",
        "model: customers\ndestination: crm\nmode: mirror\neach: {method: POST, path: /second}\n",
    );
    crm.run_sends([6, 0, 0]);
    crm.project.run("second");
    assert_eq!(crm.project.snapshots().len(), 12);
    // A foreign project in the same warehouse.
    crm.sql("create table levin_planner.p00000000_s1_snapshot as select 1 as x");
    crm.project.remove("syncs/second.yml");
    let before = crm.project.managed("%");
    let listed = crm.project.levin(&["gc"]);
    assert_eq!((listed.code, crm.project.managed("%")), (0, before), "{listed:?}");
    assert!(listed.stdout.contains("_s2_snapshot") && !listed.stdout.contains("_s1_snapshot"), "{listed:?}");
    let dropped = crm.project.levin(&["gc", "--yes"]);
    assert_eq!((dropped.code, crm.project.snapshots().len()), (0, 7), "{dropped:?}");
    crm.sql("drop table levin_planner.p00000000_s1_snapshot");
    crm.assert_quiet();
    let again = crm.project.levin(&["gc"]);
    assert!(!again.stdout.contains("_s2_"), "{again:?}");
}

fn the_second_signal_is_not_heard(engine: Engine) {
    let crm = Crm::new(engine, 30, "mode: mirror");
    let hold = Hold::default();
    let held = hold.clone();
    crm.receiver.behave(move |_| Reply::accept().held(&held));
    let mut running = crm.project.spawn(SYNC, &[]);
    crm.receiver.wait_for(1);
    running.terminate();
    running.hears("stopping");
    running.terminate();
    let ended = running.ended();
    assert_eq!(ended.code, 2, "{ended:?}");
    hold.release();
    crm.receiver.accept();
    let run = crm.run();
    assert_eq!((run.code, run.successful()), (0, [30, 0, 0]), "{run:#?}");
    assert_eq!(run.report["settled"]["openBatches"], json!(1));
    crm.assert_same();
    crm.assert_quiet();
}

fn what_is_not_known_is_said_to_be_nothing(engine: Engine) {
    let crm = Crm::new(engine, 3, "mode: mirror");
    crm.run_sends([3, 0, 0]);
    crm.model("id", "select id, name, email from customers_that_are_not_there");
    let run = crm.run();
    assert_eq!((run.code, run.error()), (2, "MODEL_FAILED"), "{run:#?}");
    for unknown in ["querySize", "unchangedCount", "duplicateKeyCount", "nullKeyCount"] {
        assert_eq!(run.report[unknown], Value::Null, "{unknown}");
    }
    assert!(run.message().contains("customers_that_are_not_there"), "{run:#?}");
    crm.model("id", "select id, name, 1 / (id - 2 - cast(email is null as integer)) as x from customers");
    crm.sql("update customers set email = null where id = 3");
    let run = crm.run();
    if engine == Engine::Postgres {
        assert_eq!((run.code, run.error()), (2, "MODEL_FAILED"), "{run:#?}");
    }
    crm.model("id", "select id, name, email from customers");
    crm.sql("update customers set email = '3@example.com' where id = 3");
    let run = crm.run();
    assert_eq!(run.code, 0, "{run:#?}");
}

fn a_person_is_told_nothing(engine: Engine) {
    let crm = Crm::new(engine, 12, "mode: upsert");
    crm.receiver.behave(|_| Reply::reject(&["5"], "no"));
    let ended = crm.project.levin(&["run", SYNC]);
    assert_eq!((ended.code, ended.stdout.as_str()), (1, ""), "{ended:?}");
    for stage in ["prepare", "diff", "plan", "deliver", "commit"] {
        let lines = ended.stderr.lines().filter(|l| l.trim_start().starts_with(stage)).count();
        assert_eq!(lines, 1, "one line for {stage}: {}", ended.stderr);
    }
    assert!(ended.stderr.contains("12 added") && ended.stderr.contains("1 rejected"), "{}", ended.stderr);
    assert!(ended.stderr.contains(&format!("levin rejected {SYNC}")), "{}", ended.stderr);
    assert!(!ended.stderr.contains('\u{1b}'), "no colours where nobody sees them");
    let plan = crm.project.levin(&["plan", SYNC]);
    assert!(plan.code == 0 && plan.stdout.contains("added"), "{plan:?}");
    let rejected = crm.project.levin(&["rejected", SYNC]);
    assert!(rejected.stdout.contains("REFUSED"), "{rejected:?}");
}

fn cleared_fields_keep_their_values(engine: Engine) {
    let database = PostgresServer::start().fresh_database();
    postgres::run(&database, "create table people (id integer primary key, name text, email text, own text)");
    let project = Project::new(engine).with_variable("CRM_DB", &database);
    project.sql(
        "create table customers (id integer, name text, email text);
         insert into customers values (1, 'a', 'a@x'), (2, 'b', 'b@x'), (3, 'c', 'c@x')",
    );
    project.write("destinations/crm.yml", "type: postgres\nurl: ${CRM_DB}\n");
    project.write(
        "models/customers.yml",
        "source: wh\nprimary_key: id\nsql: select id, name, email from customers\n",
    );
    project.write(
        "syncs/people.yml",
        "model: customers\ndestination: crm\nobject: people\nmode: upsert\non_removed: clear\n",
    );
    assert_eq!(project.run("people").successful(), [3, 0, 0]);
    postgres::run(&database, "update people set own = 'theirs'");
    project.sql("delete from customers where id = 2");
    let run = project.run("people");
    assert_eq!((run.code, run.successful()), (0, [0, 0, 1]), "{run:#?}");
    let rows = "select id || ' ' || coalesce(name, '-') || ' ' || coalesce(email, '-') || ' ' || own from people order by id";
    let rows: Vec<String> = postgres::texts(&database, rows).into_iter().flatten().collect();
    assert_eq!(rows, ["1 a a@x theirs", "2 - - theirs", "3 c c@x theirs"]);
    let run = project.run("people");
    assert_eq!((run.code, run.planned(), run.number("destinationCalls")), (0, [0, 0, 0], 0), "{run:#?}");
    project.sql("insert into customers values (2, 'back', null)");
    assert_eq!(project.run("people").successful(), [1, 0, 0]);
    assert_eq!(postgres::texts(&database, "select name from people where id = 2"), [Some("back".to_owned())]);
}

fn a_run_under_way_or_gone_looks_like_none(engine: Engine) {
    let crm = Crm::new(engine, 20, "mode: mirror");
    let hold = Hold::default();
    let held = hold.clone();
    crm.receiver.behave(move |_| Reply::accept().held(&held));
    let running = crm.project.spawn(SYNC, &[]);
    crm.receiver.wait_for(1);
    assert_eq!(crm.project.plan(SYNC, &[]).1["runUnderWay"], json!(true));
    let plan = crm.project.levin(&["plan", SYNC]);
    assert!(plan.code == 0 && plan.stderr.contains("under way"), "{plan:?}");
    let runs = crm.project.levin(&["runs"]);
    assert!(runs.stdout.contains("running") && !runs.stdout.contains("gone"), "{runs:?}");
    assert!(crm.project.history()[0].get("processIsGone").is_none());

    running.kill();
    hold.release();
    crm.receiver.accept();
    let runs = crm.project.levin(&["runs"]);
    assert!(runs.stdout.contains("its process is gone; the next run settles it"), "{runs:?}");
    let run = crm.project.history().remove(0);
    assert_eq!((&run["status"], &run["processIsGone"]), (&json!("running"), &json!(true)));
    assert_eq!(crm.project.plan(SYNC, &[]).1["runUnderWay"], json!(false));
    crm.run();
    let runs = crm.project.levin(&["runs"]);
    assert!(runs.stdout.contains("interrupted") && !runs.stdout.contains("gone"), "{runs:?}");
    crm.assert_same();
    crm.assert_quiet();
}

fn removals_that_wait_are_said_to_be_lost(engine: Engine) {
    let crm = Crm::new(engine, 5, "mode: mirror");
    crm.run_sends([5, 0, 0]);
    crm.sql("delete from customers where id <= 2");
    let plan = crm.project.levin(&["plan", SYNC, "--full-resync"]);
    assert!(
        plan.stdout.contains("left to the next run") && !plan.stdout.contains("by this mode"),
        "{plan:?}"
    );
    let run = crm.project.levin(&["run", SYNC, "--full-resync"]);
    assert!(run.stderr.contains("2 removed, left to the next run"), "{run:?}");
    let run = crm.project.levin(&["run", SYNC]);
    assert!(run.code == 0 && !run.stderr.contains("left to"), "{run:?}");
    crm.assert_same();
    // A mode that never removes says so.
    crm.sync("mode: upsert");
    crm.sql("delete from customers where id = 3");
    let run = crm.project.levin(&["run", SYNC]);
    assert!(run.stderr.contains("1 removed and not sent by this mode"), "{run:?}");
}
