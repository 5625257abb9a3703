//! How fast results become Arrow, and in how much memory: five million rows from each driver that reads over the wire.
//!
//! Where the warehouse is a double, one result that it made is handed out again and again: what is measured is the driver
//! and not the double. Each driver reads in a process of its own, whose processor time is counted on all threads.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use connectors::catalogue::{BuildContext, SOURCES};
use connectors::warehouse::Tag;
use futures::TryStreamExt;
use serde_json::{Value, json};
use sql_templates::Sql;
use tests::bigquery::BigqueryDouble;
use tests::databricks::DatabricksDouble;
use tests::front::{Answer, Front};
use tests::mariadb::MariadbServer;
use tests::postgres::PostgresServer;
use tests::redshift::RedshiftDouble;
use tests::snowflake::SnowflakeDouble;

use super::Line;

/// Says to a process of this program what it is to read.
const READ: &str = "LEVIN_BENCH_READ";
const ROWS: usize = 5_000_000;
/// Rows of a result that is handed out again and again.
const ONCE: usize = 100_000;

/// A number from 0 to 99,999 in each row, in words that every engine knows; `{i}` stands for it in the columns.
fn select(columns: &str, digits: &str) -> String {
    let i = "(a.i + 10 * b.i + 100 * c.i + 1000 * d.i + 10000 * e.i)";
    let columns = columns.replace("{i}", i);
    let from: Vec<String> =
        ["a", "b", "c", "d", "e"].iter().map(|name| format!("{digits} as {name}")).collect();
    format!("select {columns} from {}", from.join(" cross join "))
}

/// Reads what the environment says, in this process: prints rows, seconds of processor time and megabytes.
pub fn read() -> bool {
    let Ok(asked) = std::env::var(READ) else { return false };
    let asked: Value = serde_json::from_str(&asked).expect("what to read");
    let kind = SOURCES.iter().find(|s| asked["type"] == s.name).expect("the catalogue knows it");
    let context = BuildContext { slug: "wh".into(), project: "/".into(), secrets: Vec::new() };
    let warehouse = (kind.build)(asked["source"].clone(), &context).expect("a source");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let rows = runtime.block_on(async {
        let tag = Tag { sync: "bench".into(), run: None, stage: "deliver" };
        let mut session = warehouse.session(&tag).await.expect("a session");
        let select = Sql::for_tests(asked["select"].as_str().expect("a select"));
        let stream = session.query(&select).await.expect("a result");
        stream.try_fold(0, |rows, batch| async move { Ok(rows + batch.num_rows()) }).await.expect("all of it")
    });
    let of = |name: &str| {
        let status = std::fs::read_to_string("/proc/self/status").expect("the process");
        let line = status.lines().find(|line| line.starts_with(name)).expect("a line").to_owned();
        line.split_whitespace().nth(1).and_then(|n| n.parse::<f64>().ok()).expect("a number")
    };
    let stat = std::fs::read_to_string("/proc/self/stat").expect("the process");
    let after = stat.rsplit_once(')').expect("a name").1;
    let ticks: f64 =
        after.split_whitespace().skip(11).take(2).map(|n| n.parse::<f64>().expect("ticks")).sum();
    let seconds = ticks / rustix::param::clock_ticks_per_second() as f64;
    println!("{}", json!({"rows": rows, "seconds": seconds, "megabytes": of("VmHWM") / 1024.0}));
    true
}

fn measured(name: &str, kind: &str, mut source: Value, select: &str, print: &mut dyn FnMut(Line)) {
    source.as_object_mut().expect("keys").remove("type");
    let asked = json!({"type": kind, "source": source, "select": select});
    let program = std::env::current_exe().expect("this program");
    let mut command = Command::new(program);
    command.arg("--bench").env(READ, asked.to_string()).stderr(Stdio::inherit());
    let ended = command.output().expect("another process of it");
    let said: Value = serde_json::from_slice(&ended.stdout).expect("what it read");
    // Chunks of one size need not add up to it.
    let rows = said["rows"].as_u64().expect("a count");
    assert!(rows <= ROWS as u64 && rows * 100 >= ROWS as u64 * 99, "{name}: {said}");
    let millions = rows as f64 / 1e6;
    let line = |what: &str, levin: f64, unit: &'static str, must: f64, aim: f64| Line {
        what: format!("{name}: {what}"),
        levin,
        bare: None,
        unit,
        must: Some(must),
        aim: Some(aim),
    };
    let seconds = said["seconds"].as_f64().expect("seconds") / millions;
    // 300,000 rows a second on one core.
    print(line("processor time of reading 1 million rows", seconds, "s", 3.33, 1.5));
    print(line(
        "peak memory of reading 5 million",
        said["megabytes"].as_f64().expect("memory"),
        "MB",
        200.0,
        100.0,
    ));
}

pub fn measure(print: &mut dyn FnMut(Line)) {
    const DIGITS: &str = "(select 0 as i union all select 1 union all select 2 union all select 3 union all select 4 union all \
                          select 5 union all select 6 union all select 7 union all select 8 union all select 9)";
    let many = "{i} as id, concat('Customer ', {i}) as name, concat('customer', {i}, '@example.com') as email, \
                cast({i} / 100 as decimal(12, 2)) as amount, {i} as visits, cast('2026-01-02 03:04:05.678' as datetime) as seen";
    let fifty = format!(
        "{DIGITS} as f cross join (select 0 as j union all select 1 union all select 2 union all select 3 union all select 4) as g"
    );

    let postgres = PostgresServer::start().fresh_database();
    // A decimal without its digits in the type leaves PostgreSQL as text.
    let text = many
        .replace("cast({i} / 100 as decimal(12, 2))", "cast(cast({i} / 100.0 as decimal(12, 2)) as text)");
    let live = format!("{} cross join {fifty}", select(&text.replace("datetime", "timestamp"), DIGITS));
    measured("postgres", "postgres", json!({"url": postgres}), &live, print);
    let server = MariadbServer::start();
    let mariadb = server.url(&server.fresh_database());
    let live =
        format!("{} cross join {fifty}", select(&many.replace("as datetime", "as datetime(3)"), DIGITS));
    measured("mariadb", "mariadb", json!({"url": mariadb}), &live, print);

    bigquery(&select(&many.replace("decimal(12, 2)", "numeric"), DIGITS), print);
    let snow = "{i} as id, 'Customer ' || {i} as name, 'customer' || {i} || '@example.com' as email, \
                cast({i} / 100 as decimal(12, 2)) as amount, {i} as visits, cast('2026-01-02 03:04:05.678' as timestamp) as seen";
    let redshift = RedshiftDouble::start().fresh_database().url;
    let live = format!("{} cross join {fifty}", select(snow, DIGITS));
    measured("redshift", "redshift", json!({"url": redshift}), &live, print);
    snowflake(&select(snow, DIGITS), print);
    // A process of its own makes all of it: its time is not counted.
    let workspace = DatabricksDouble::start().fresh_workspace();
    workspace.set(&json!({"chunk_rows": ONCE}));
    measured("databricks", "databricks", workspace.source(), &live, print);
}

/// BigQuery hands out pages, each of which names the next one.
fn bigquery(select: &str, print: &mut dyn FnMut(Line)) {
    const PAGE: usize = 25_000;
    let double = BigqueryDouble::start();
    let project = double.fresh_project();
    let job = json!({"configuration": {"query": {"query": select, "useLegacySql": false}}});
    let job = double.ask("POST", &format!("{project}/jobs"), &job);
    let id = job["jobReference"]["jobId"].as_str().expect("a job").to_owned();
    let path = format!("{project}/queries/{id}?maxResults={PAGE}&formatOptions.useInt64Timestamp=true");
    let mut page = double.ask("GET", &path, &Value::Null);
    assert_eq!(page["rows"].as_array().map(Vec::len), Some(PAGE));
    page["pageToken"] = json!("more");
    let more = page.to_string();
    page.as_object_mut().expect("a page").remove("pageToken");
    let last = page.to_string();
    let handed_out = AtomicUsize::new(0);
    let front = Front::before(Some(double.address()), move |asked| {
        if asked.method == "GET" && asked.path.contains("/queries/") {
            let page = handed_out.fetch_add(1, Ordering::SeqCst) + 1;
            return Answer::Say(200, if page == ROWS / PAGE { last.clone() } else { more.clone() });
        }
        let configuration = &asked.json()["configuration"];
        if asked.method == "POST" && asked.path.ends_with("/jobs") && configuration["dryRun"] != true {
            let reference = asked.json()["jobReference"].clone();
            return Answer::json(200, &json!({"jobReference": reference, "status": {"state": "DONE"}}));
        }
        Answer::Pass
    });
    let source = json!({"project": project, "endpoint": front.url(), "auth": "none"});
    measured("bigquery", "bigquery", source, select, print);
}

/// Snowflake hands out chunks, whose addresses all come with the answer.
fn snowflake(select: &str, print: &mut dyn FnMut(Line)) {
    fn again_and_again(answer: &str) -> String {
        let mut answer: Value = serde_json::from_str(answer).expect("an answer");
        let data = &mut answer["data"];
        let chunks = data["chunks"].as_array().cloned().unwrap_or_default();
        if chunks.is_empty() {
            return answer.to_string();
        }
        let of = |chunk: &Value| chunk["rowCount"].as_u64().expect("its rows");
        let at_once = data["total"].as_u64().expect("a count") - chunks.iter().map(of).sum::<u64>();
        let rest = chunks.iter().cycle().scan(at_once, |rows, chunk| {
            *rows += of(chunk);
            (*rows <= ROWS as u64).then(|| chunk.clone())
        });
        let chosen: Vec<Value> = rest.collect();
        data["total"] = json!(at_once + chosen.iter().map(of).sum::<u64>());
        data["chunks"] = Value::from(chosen);
        answer.to_string()
    }
    let double = SnowflakeDouble::start();
    let user = double.fresh_user();
    // Of five parts the first comes with the answer; all are of one size, so that they add up.
    user.set(&json!({"chunk_rows": ONCE / 5}));
    let mut source = user.source();
    let front = Front::before(Some(double.address()), |asked| {
        if asked.path.contains("query-request") { Answer::Alter(again_and_again) } else { Answer::Pass }
    });
    source["host"] = json!(front.url());
    measured("snowflake", "snowflake", source, select, print);
}
