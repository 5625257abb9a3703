//! What a diff costs, against a bare copy of the same model, on each engine. Every figure is the median of three
//! rounds.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Instant;

use tests::postgres::PostgresServer;

use super::project::{FORGET, Project};
use super::{Line, median};

/// Rows of the model.
fn rows() -> u64 {
    std::env::var("LEVIN_BENCH_ROWS").ok().and_then(|n| n.parse().ok()).unwrap_or(3_000_000)
}

/// Ten columns: a key, text, decimal, integer, date, boolean, digest, timestamp.
pub const COLUMNS: &str = "id, email, name, ltv, visits, born, active, digest, seen_at, country";

/// What must be reached, and what would be good: of a copy.
pub struct Marks {
    first: (f64, f64),
    unchanged: Option<(f64, f64)>,
    one_percent: (f64, f64),
}

/// One engine under test.
pub trait Engine {
    fn name(&self) -> &'static str;
    fn marks(&self) -> Marks;
    /// Makes the model's table.
    fn prepare(&mut self, rows: u64);
    /// Runs statements and says how long they took.
    fn timed(&mut self, sql: &str) -> f64;
    /// The `sources/wh.yml` of the project.
    fn source(&self) -> String;
    /// Writes what a run or a copy left in memory to the disk, so that the next does not pay for it.
    fn settle(&mut self);
}

pub struct Duck {
    path: PathBuf,
}

impl Duck {
    /// A database in this folder.
    pub fn new(folder: &Path) -> Self {
        Self { path: folder.join("warehouse.duckdb") }
    }
}

impl Engine for Duck {
    fn name(&self) -> &'static str {
        "DuckDB"
    }

    fn marks(&self) -> Marks {
        Marks { first: (1.5, 1.2), unchanged: Some((0.45, 0.25)), one_percent: (0.65, 0.4) }
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

pub struct Postgres {
    pub url: String,
    with_key: bool,
    runtime: tokio::runtime::Runtime,
}

/// As much memory for sorting as a warehouse would have.
const WORK_MEM: &str = "do $$ begin
    execute format('alter database %I set work_mem = ''256MB''', current_database());
end $$";

impl Postgres {
    /// A database of its own on the server of the benchmarks.
    pub fn new(with_key: bool) -> Self {
        static SERVER: OnceLock<PostgresServer> = OnceLock::new();
        let url = SERVER.get_or_init(PostgresServer::launch_as_installed).fresh_database();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let mut engine = Self { url, with_key, runtime };
        engine.timed(WORK_MEM);
        engine
    }
}

impl Engine for Postgres {
    fn name(&self) -> &'static str {
        if self.with_key { "Postgres, model with a primary key" } else { "Postgres, model without one" }
    }

    fn marks(&self) -> Marks {
        // Without an index the model is sorted first, whether something changed or not.
        let (unchanged, one_percent) =
            if self.with_key { (Some((1.4, 0.9)), (1.5, 1.0)) } else { (None, (2.2, 1.6)) };
        Marks { first: (1.9, 1.5), unchanged, one_percent }
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

/// What the rounds came to, in seconds; the copies are made beside what is held against them.
struct Figures {
    copy_beside_first: f64,
    first: f64,
    copy: f64,
    unchanged: f64,
    one_percent: f64,
}

/// What anything that stages pays at least.
fn copy(engine: &mut dyn Engine) -> f64 {
    engine.settle();
    let seconds = engine.timed("create table copy_of_model as select * from model");
    engine.timed("drop table copy_of_model");
    engine.settle();
    seconds
}

fn figures(engine: &mut dyn Engine, levin: &Path, rows: u64) -> Figures {
    engine.prepare(rows);
    let model = format!("source: wh\nprimary_key: id\nsql: select {COLUMNS} from model\n");
    let project = Project::new(levin, &engine.source(), &model);
    project.to_files();
    let (mut copies, mut unchanged, mut one_percent) = (Vec::new(), Vec::new(), Vec::new());
    let (mut copies_beside_first, mut first) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        copies_beside_first.push(copy(engine));
        project.forget();
        engine.timed(FORGET);
        engine.settle();
        let run = project.run();
        assert_eq!(run.sent(), rows);
        first.push(run.without_delivery());
        engine.settle();
    }
    for round in 0..3 {
        copies.push(copy(engine));
        let still = project.run();
        assert_eq!(still.sent(), 0);
        unchanged.push(still.without_delivery());
        // 0.8 % changed, 0.1 % added, 0.1 % removed, as in every round before.
        engine.timed(&format!(
            "update model set ltv = ltv + 1, visits = visits + 1 where id % 125 = {round};
             delete from model where id % 1000 = {} and id <= {rows};
             insert into model select {rows} + ({round} + 1) * 10000000 + id, email, name, ltv, visits, born, active, digest, seen_at, country
             from model where id % 1000 = {} and id <= {rows}",
            round + 200, round + 300,
        ));
        engine.settle();
        let some = project.run();
        assert!(some.sent() > rows / 200, "{} rows differ", some.sent());
        one_percent.push(some.without_delivery());
        engine.settle();
    }
    Figures {
        copy_beside_first: median(copies_beside_first),
        first: median(first),
        copy: median(copies),
        unchanged: median(unchanged),
        one_percent: median(one_percent),
    }
}

pub fn measure(levin: &Path, print: &mut dyn FnMut(Line)) {
    let folder = tempfile::tempdir().unwrap();
    let mut engines: Vec<Box<dyn Engine>> = vec![
        Box::new(Duck::new(folder.path())),
        Box::new(Postgres::new(true)),
        Box::new(Postgres::new(false)),
    ];
    for engine in &mut engines {
        let (figures, marks) = (figures(engine.as_mut(), levin, rows()), engine.marks());
        let name = engine.name();
        for (what, seconds, bare, marks) in [
            ("first run", figures.first, figures.copy_beside_first, Some(marks.first)),
            ("nothing changed", figures.unchanged, figures.copy, marks.unchanged),
            ("1 % changed", figures.one_percent, figures.copy, Some(marks.one_percent)),
        ] {
            print(Line {
                what: format!("{name}: {what}, against a copy"),
                levin: seconds,
                bare: Some(bare),
                unit: "s",
                must: marks.map(|(must, _)| must),
                aim: marks.map(|(_, aim)| aim),
            });
        }
    }
}

/// Whether a row costs the same in a table ten times as large.
pub fn measure_thirty_million(levin: &Path, print: &mut dyn FnMut(Line)) {
    let small = figures(&mut Postgres::new(true), levin, 3_000_000);
    let large = figures(&mut Postgres::new(true), levin, 30_000_000);
    print(Line {
        what: "Postgres, a row of 30 million against a row of 3 million, 1 % changed".to_owned(),
        levin: large.one_percent / 30.0,
        bare: Some(small.one_percent / 3.0),
        unit: "s per million",
        must: Some(1.3),
        aim: Some(1.1),
    });
}
