//! What a diff costs, against a bare copy of the same model, on each engine, in one run.
//!
//! `./bench` builds this and `levin` in release mode and runs it. Times on one machine say little;
//! the ratios within one run are what counts. Every figure is the median of three rounds.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use tests::postgres::PostgresServer;

/// Rows of the model.
fn rows() -> u64 {
    std::env::var("LEVIN_BENCH_ROWS").ok().and_then(|n| n.parse().ok()).unwrap_or(3_000_000)
}

/// Ten columns: a key, text, decimal, integer, date, boolean, digest, timestamp.
const COLUMNS: &str = "id, email, name, ltv, visits, born, active, digest, seen_at, country";

/// One engine under test.
trait Engine {
    fn name(&self) -> &'static str;
    /// Makes the model's table.
    fn prepare(&mut self, rows: u64);
    /// Runs statements and says how long they took.
    fn timed(&mut self, sql: &str) -> f64;
    /// The `sources/wh.yml` of the project.
    fn source(&self) -> String;
    /// Writes what a run or a copy left in memory to the disk, so that the next does not pay for it.
    fn settle(&mut self);
}

struct Duck {
    path: PathBuf,
}

impl Engine for Duck {
    fn name(&self) -> &'static str {
        "DuckDB"
    }

    fn prepare(&mut self, rows: u64) {
        self.timed(&format!(
            "create table model as select
               n::bigint as id, 'customer' || n || '@example.com' as email, 'Customer number ' || n as name,
               ((n * 7919) % 100000 / 100.0)::decimal(10, 2) as ltv, (n % 1000)::integer as visits,
               date '1950-01-01' + (n % 20000)::integer as born, n % 3 = 0 as active, md5(n::varchar) as digest,
               timestamp '2020-01-01' + to_seconds(n) as seen_at, ['DE', 'US', 'JP'][n % 3 + 1] as country
             from range(1, {rows} + 1) t(n)"
        ));
    }

    fn timed(&mut self, sql: &str) -> f64 {
        let connection = duckdb::Connection::open(&self.path).unwrap();
        let began = Instant::now();
        connection.execute_batch(sql).unwrap();
        began.elapsed().as_secs_f64()
    }

    fn source(&self) -> String {
        format!("type: duckdb\npath: {}\n", self.path.display())
    }

    fn settle(&mut self) {
        self.timed("checkpoint");
    }
}

struct Postgres {
    url: String,
    with_key: bool,
    runtime: tokio::runtime::Runtime,
}

impl Engine for Postgres {
    fn name(&self) -> &'static str {
        if self.with_key { "Postgres, model with a primary key" } else { "Postgres, model without one" }
    }

    fn prepare(&mut self, rows: u64) {
        self.timed(&format!(
            "create table model as select
               n as id, 'customer' || n || '@example.com' as email, 'Customer number ' || n as name,
               ((n * 7919) % 100000 / 100.0)::numeric(10, 2) as ltv, (n % 1000)::integer as visits,
               date '1950-01-01' + (n % 20000)::integer as born, n % 3 = 0 as active, md5(n::text) as digest,
               timestamp '2020-01-01' + n * interval '1 second' as seen_at, (array['DE', 'US', 'JP'])[n % 3 + 1] as country
             from generate_series(1, {rows}::bigint) n"
        ));
        if self.with_key {
            self.timed("alter table model add primary key (id)");
        }
        self.settle();
    }

    fn timed(&mut self, sql: &str) -> f64 {
        let url = self.url.clone();
        self.runtime.block_on(async move {
            let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
            let driver = tokio::spawn(connection);
            let began = Instant::now();
            client.batch_execute(sql).await.unwrap();
            let seconds = began.elapsed().as_secs_f64();
            drop(client);
            let _ = driver.await;
            seconds
        })
    }

    fn source(&self) -> String {
        format!("type: postgres\nurl: {}\n", self.url)
    }

    fn settle(&mut self) {
        self.timed("vacuum analyze");
        self.timed("checkpoint");
    }
}

/// What the stages of a run took, in seconds.
struct Stages {
    diff_and_commit: f64,
    sent: u64,
}

struct Project {
    folder: tempfile::TempDir,
    levin: PathBuf,
}

impl Project {
    fn new(source: &str, levin: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("levin.yml", "name: bench\n");
        write("sources/wh.yml", source);
        write(
            "models/model.yml",
            &format!("source: wh\nprimary_key: id\nsql: select {COLUMNS} from model\n"),
        );
        write("destinations/out.yml", "type: files\npath: out\n");
        write(
            "syncs/bench.yml",
            "model: model\ndestination: out\nmode: diff\nobject: run-{{ run_id }}.jsonl\nformat: jsonl\n",
        );
        Self { folder, levin: levin.to_owned() }
    }

    fn run(&self) -> Stages {
        let output = Command::new(&self.levin)
            .args([
                "--project".as_ref(),
                self.folder.path().as_os_str(),
                "run".as_ref(),
                "bench".as_ref(),
                "--json".as_ref(),
            ])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let stage = |name: &str| report["stages"][name].as_f64().unwrap_or(0.0);
        let sent = ["addedCount", "changedCount", "removedCount"]
            .iter()
            .filter_map(|c| report["successfulRows"][c].as_u64())
            .sum();
        let _ = std::fs::remove_dir_all(self.folder.path().join("out"));
        Stages {
            diff_and_commit: stage("prepare")
                + stage("diff")
                + stage("plan")
                + stage("commit")
                + stage("prune"),
            sent,
        }
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn measure(engine: &mut dyn Engine, levin: &Path) {
    let rows = rows();
    engine.prepare(rows);
    let project = Project::new(&engine.source(), levin);
    let (mut copies, mut unchanged, mut one_percent) = (Vec::new(), Vec::new(), Vec::new());
    engine.settle();
    let first = project.run();
    assert_eq!(first.sent, rows);
    engine.settle();
    for round in 0..3 {
        engine.timed("drop table if exists copy_of_model");
        engine.settle();
        copies.push(engine.timed("create table copy_of_model as select * from model"));
        engine.timed("drop table copy_of_model");
        engine.settle();
        let still = project.run();
        assert_eq!(still.sent, 0);
        unchanged.push(still.diff_and_commit);
        // 0.8 % changed, 0.1 % added, 0.1 % removed, as in every round before.
        engine.timed(&format!(
            "update model set ltv = ltv + 1, visits = visits + 1 where id % 125 = {round};
             delete from model where id % 1000 = {} and id <= {rows};
             insert into model select {rows} + {round} * 1000000 + id, email, name, ltv, visits, born, active, digest, seen_at, country
             from model where id % 1000 = {} and id <= {rows}",
            round + 200, round + 300,
        ));
        engine.settle();
        let some = project.run();
        assert!(some.sent > rows / 200, "{} rows differ", some.sent);
        one_percent.push(some.diff_and_commit);
        engine.settle();
    }
    let copy = median(copies);
    let line = |what: &str, seconds: f64| {
        println!("| {} | {what} | {seconds:.2} | {:.2} |", engine.name(), seconds / copy)
    };
    line("bare copy", copy);
    line("first run: diff + commit", first.diff_and_commit);
    line("nothing changed", median(unchanged));
    line("1 % changed: diff + commit", median(one_percent));
}

fn main() {
    // `cargo bench` passes its own flags; a `cargo test --benches` must not start this.
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    let levin = PathBuf::from(std::env::var("LEVIN_BIN").expect("LEVIN_BIN: run ./bench"));
    println!(
        "{} rows x 10 columns; seconds are medians of three, the last column is against the bare copy\n",
        rows()
    );
    println!("| engine | what | s | of a copy |\n|---|---|---|---|");
    let folder = tempfile::tempdir().unwrap();
    measure(&mut Duck { path: folder.path().join("bench.duckdb") }, &levin);
    for with_key in [true, false] {
        let server = PostgresServer::start();
        let url = server.fresh_database();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let mut engine = Postgres { url, with_key, runtime };
        engine.timed("do $$ begin execute format('alter database %I set work_mem = ''256MB''', current_database()); end $$");
        measure(&mut engine, &levin);
    }
}
