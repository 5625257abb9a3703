//! Too many columns, too long keys, cells as large as a book, and disks that are full.

use tests::on_both_warehouses;
use tests::postgres::{PostgresServer, run as sql, texts};
use tests::project::{Ended, Engine, Project, Running, levin_binary};

use super::{Case, SYNC, as_role, explained, says};

on_both_warehouses!(
    fifteen_hundred_columns_work_and_a_changed_one_is_found,
    a_cell_of_fifty_megabytes_travels_whole
);

/// `c0 integer, c1 integer, …`
fn columns(count: usize, of: impl Fn(usize) -> String) -> String {
    (0..count).map(of).collect::<Vec<_>>().join(", ")
}

fn fifteen_hundred_columns_work_and_a_changed_one_is_found(engine: Engine) {
    let count = if engine == Engine::Postgres { 1_499 } else { 2_000 };
    let case = Case::new(
        engine,
        &format!(
            "create table t (id integer, {}); insert into t values (1, {}), (2, {})",
            columns(count, |i| format!("c{i} integer")),
            columns(count, |i| i.to_string()),
            columns(count, |i| i.to_string()),
        ),
    );
    case.check_passes();
    case.sends([2, 0, 0]);
    case.quiet();
    case.project.sql("update t set c777 = -1 where id = 2");
    let (code, plan) = case.project.plan(SYNC, &[]);
    assert_eq!((code, &plan["changedColumns"]), (0, &serde_json::json!({"c777": 1})));
    let before = case.receiver.count();
    case.sends([0, 1, 0]);
    assert_eq!(case.receiver.since(before)[0].body["rows"][0]["changed"], serde_json::json!(["c777"]));
    case.project.sql("delete from t where id = 1");
    case.sends([0, 0, 1]);
    case.quiet();
}

#[test]
fn more_columns_than_a_table_holds_are_refused_before_anything_is_sent() {
    let case = Case::new(
        Engine::Postgres,
        &format!("create table t (id integer, {})", columns(1_599, |i| format!("c{i} integer"))),
    );
    case.fails("TOO_MANY_COLUMNS", &["1600", "select fewer columns"]);
    case.check_finds("TOO_MANY_COLUMNS", 2, &["sync rows-to-crm:"]);
    case.model("id", "select id, c1, c2 from t");
    case.sends([0, 0, 0]);

    // Few enough, and yet too wide for a page.
    let case = Case::new(
        Engine::Postgres,
        &format!(
            "create table t (id integer); insert into t values (1); \
             create view v as select id, {} from t",
            columns(1_400, |i| format!("repeat('x', 20)::text as c{i}"))
        ),
    );
    case.model("id", "select * from v");
    case.fails("TOO_MANY_COLUMNS", &["row is too big"]);
    case.model("id", "select id, c1 from v");
    case.sends([1, 0, 0]);
    case.quiet();
}

#[test]
fn a_key_that_no_index_holds_is_refused_before_anything_is_sent() {
    // Text that does not compress: md5 sums, one after another.
    let long = |hashes: usize| {
        format!("(select string_agg(md5(i::text), '') from generate_series(1, {hashes}) as i)")
    };
    let case = Case::new(
        Engine::Postgres,
        &format!(
            "create table t (id text, name text); insert into t values ('short', 'a'), ({}, 'b')",
            long(94)
        ),
    );
    case.fails("KEY_TOO_LONG", &["model `rows`", "postgres"]);
    case.project.sql("delete from t where name = 'b'");
    case.sends([1, 0, 0]);
    case.quiet();

    // The same for a key that comes later: nothing of the run is sent, nor repeated for ever.
    case.project.sql(&format!("insert into t values ({}, 'b'), ('other', 'c')", long(94)));
    case.fails("KEY_TOO_LONG", &["3008 bytes", "2696"]);
    let plan = case.project.levin(&["plan", SYNC]);
    super::failed(&case.project, &plan, 2, "KEY_TOO_LONG", &["3008 bytes"]);
    let left =
        "select cast(table_name as text) from information_schema.tables where table_name like '%diff%'";
    assert!(case.project.texts(left).is_empty(), "the diff's table is still there");
    case.project.sql("delete from t where name = 'b'");
    case.sends([1, 0, 0]);
    case.quiet();

    // What fits, or compresses, is no trouble.
    case.project.sql(&format!("insert into t values ({}, 'd'), (repeat('x', 100000), 'e')", long(80)));
    case.sends([2, 0, 0]);
    case.quiet();
    case.project.sql("update t set name = 'f' where name in ('d', 'e')");
    case.sends([0, 2, 0]);

    // DuckDB has no such limit.
    let case = Case::new(
        Engine::DuckDb,
        "create table t as select repeat('k', 3000000) || i as id, 'a' as name from range(2) as r(i)",
    );
    case.sends([2, 0, 0]);
    case.quiet();
    case.project.sql("update t set name = 'b' where id like '%1'");
    case.sends([0, 1, 0]);
}

const BOOK: usize = 50 << 20;

fn a_cell_of_fifty_megabytes_travels_whole(engine: Engine) {
    let case = Case::new(
        engine,
        &format!(
            "create table t (id integer, body text); \
                 insert into t values (1, 'small'), (2, repeat('x', {BOOK})), (3, 'small too')"
        ),
    );
    case.sends([3, 0, 0]);
    let body = case.receiver.field("2", "body");
    assert_eq!(body.as_str().map(str::len), Some(BOOK));
    assert_eq!(case.receiver.field("3", "body"), "small too");
    case.quiet();
    case.project.sql("update t set body = body || 'y' where id = 2");
    case.sends([0, 1, 0]);
    assert_eq!(case.receiver.field("2", "body").as_str().map(str::len), Some(BOOK + 1));

    case.project.write("destinations/crm.yml", "type: files\npath: out\n");
    case.project.write(
        &format!("syncs/{SYNC}.yml"),
        "model: rows\ndestination: crm\nmode: snapshot\nobject: all.jsonl\n",
    );
    let run = case.project.run_with(SYNC, &["--full-resync"]);
    assert_eq!((run.code, run.successful()), (0, [3, 0, 0]), "{run:#?}");
    let file = std::fs::read_to_string(case.project.path().join("out/all.jsonl")).expect("the file");
    assert_eq!(file.lines().count(), 3);
    assert!(file.len() > BOOK && file.contains("xxy\""));
}

/// Runs `levin` so that no file that it writes may have more than so many kilobytes: as a full disk.
fn levin_with_little_room(project: &Project, kilobytes: u32, arguments: &[&str]) -> Ended {
    // The signal that comes with it is ignored, so that writing fails as it does on a full disk.
    let script = format!("trap '' XFSZ; ulimit -f {kilobytes}; exec \"$@\"");
    let levin = levin_binary();
    let before = ["-c", &script, "bash", levin.to_str().expect("a path of text")];
    Running::start(project.command_of("bash", &before, arguments)).ended()
}

#[test]
fn a_full_disk_at_the_destination_leaves_no_file_and_loses_nothing() {
    let case = Case::new(
        Engine::Postgres,
        "create table t as select i as id, repeat(md5(i::text), 10) as body from generate_series(1, 20000) as i",
    );
    case.project.write("destinations/crm.yml", "type: files\npath: out\n");
    case.project.write(
        &format!("syncs/{SYNC}.yml"),
        "model: rows\ndestination: crm\nmode: diff\nobject: \"rows-{{ run_id }}.jsonl\"\n",
    );
    let ended = levin_with_little_room(&case.project, 3_000, &["run", SYNC, "--json"]);
    assert_eq!(ended.code, 2, "{ended:#?}");
    let report: serde_json::Value = serde_json::from_str(ended.stdout.trim()).expect("a report");
    let code = report["error"]["code"].as_str().unwrap_or_default();
    assert!(["DESTINATION_UNUSABLE", "DESTINATION_UNAVAILABLE"].contains(&code), "{report:#}");
    explained(&case.project, code);
    assert_eq!(report["successfulRows"]["addedCount"], 0, "{report:#}");
    let files = || -> Vec<String> {
        std::fs::read_dir(case.project.path().join("out"))
            .map(|entries| entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect())
            .unwrap_or_default()
    };
    assert!(!files().iter().any(|name| name.ends_with(".jsonl") && !name.starts_with('.')), "{:?}", files());
    let run = case.run();
    assert_eq!((run.code, run.successful()), (0, [20_000, 0, 0]), "{run:#?}");
    assert_eq!(files(), ["rows-2.jsonl"]);
}

#[test]
fn a_full_disk_under_the_warehouse_file_loses_nothing() {
    let case = Case::new(
        Engine::DuckDb,
        "create table t as select i as id, md5(cast(i as text)) as name from range(100) as r(i)",
    );
    case.sends([100, 0, 0]);
    // Rows that take room only once they are written, and that do not compress.
    let name: Vec<String> = (0..20).map(|n| format!("md5(cast({n}00000 + i as text))")).collect();
    case.project.sql(&format!(
        "alter table t rename to u; create view t as select * from u \
         union all select i, {} from range(100, 10000) as r(i)",
        name.join(" || ")
    ));
    let size = std::fs::metadata(case.project.warehouse()).expect("the warehouse").len();
    let room = u32::try_from(size / 1024 + 64).expect("a small file");
    let ended = levin_with_little_room(&case.project, room, &["run", SYNC, "--json"]);
    assert_eq!(ended.code, 2, "{ended:#?}");
    let report: serde_json::Value = serde_json::from_str(ended.stdout.trim()).expect("a report");
    assert_eq!(report["error"]["code"], "SOURCE_OUT_OF_SPACE", "{report:#}");
    explained(&case.project, "SOURCE_OUT_OF_SPACE");
    case.sends([9_900, 0, 0]);
    case.quiet();
}

#[test]
fn a_warehouse_without_room_for_the_diff_says_so() {
    let mut case = Case::new(
        Engine::Postgres,
        "create table t as select i as id, md5(i::text) as name from generate_series(1, 20000) as i",
    );
    let url = case.project.warehouse().to_owned();
    let database = url.rsplit('/').next().and_then(|d| d.split('?').next()).expect("a database").to_owned();
    let role = format!("{database}_small");
    PostgresServer::start().run(
        "postgres",
        &format!(
            "create role {role} login; alter role {role} set temp_file_limit = '64kB'; \
             alter role {role} set work_mem = '64kB'; grant create on database {database} to {role}"
        ),
    );
    sql(&url, &format!("grant select on t to {role}"));
    case.project.set_variable("WAREHOUSE_URL", &as_role(&url, &role, None));
    case.model("id", "select distinct id, name from t");
    let run = case.fails("SOURCE_OUT_OF_SPACE", &["temp_file_limit"]);
    says(&run.report["error"]["hint"].to_string(), &["make room"]);
    PostgresServer::start().run("postgres", &format!("alter role {role} reset temp_file_limit"));
    case.sends([20_000, 0, 0]);
    assert_eq!(texts(&url, "select count(*)::text from t"), [Some("20000".to_owned())]);
}
