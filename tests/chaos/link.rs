//! Walks over a bad link: runs of the real `levin` from and to PostgreSQL while connections stall and break in mid-word
//! or around a commit, and while the server itself is in trouble. Once there is peace the next run makes everything good.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::postgres::{self, OpenConnection, PostgresServer};
use tests::project::{Engine, Project, Running, levin_binary};
use tests::receiver::Receiver;

use self::way::{Trouble, Way};
use crate::at_peace;

#[path = "link/way.rs"]
mod way;

const SYNC: &str = "people";
const STEPS: usize = 6;
/// So many walks of each kind are part of every ./test.
const FEW: u64 = 1;
const ROLE: &str = "walker";
const PASSWORD: &str = "pa55word-of-the-link";
/// Names that the destination's table refuses.
const BAD: &str = "bad";

/// What a run may end with when its warehouse, destination or store is in trouble.
const KNOWN_ERRORS: &[&str] = &[
    "SOURCE_CONNECTION_LOST",
    "SOURCE_UNREACHABLE",
    "SOURCE_FAILED",
    "SOURCE_BUSY",
    "MODEL_FAILED",
    "LEASE_LOST",
    "DESTINATION_UNAVAILABLE",
    "DESTINATION_UNUSABLE",
    "DESTINATION_REFUSED",
    "STORE_FAILED",
];

/// Which ends of a sync are at the other end of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    Source,
    Destination,
    Both,
    /// Both, and the store.
    All,
}

/// What happens to the server while a run is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Mischief {
    Nothing,
    Restart,
    Cancel,
    Terminate,
    LockManaged,
    LockDestination,
    StatementTimeout,
    OutOfConnections,
}

const MISCHIEF: &[Mischief] = &[
    Mischief::Nothing,
    Mischief::Nothing,
    Mischief::Restart,
    Mischief::Cancel,
    Mischief::Terminate,
    Mischief::LockManaged,
    Mischief::LockDestination,
    Mischief::StatementTimeout,
    Mischief::OutOfConnections,
];

struct World<'a> {
    server: &'a mut PostgresServer,
    project: Project,
    receiver: Receiver,
    ends: Ends,
    /// The ways to the source, the destination and the store.
    ways: [Way; 3],
    /// Databases of the source and of the destination.
    databases: [String; 2],
    model: BTreeMap<i64, (String, i64)>,
    told: Vec<String>,
    met: BTreeMap<String, u32>,
}

impl<'a> World<'a> {
    fn new(server: &'a mut PostgresServer, ends: Ends, random: &mut fastrand::Rng) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let port = server.port();
        let ways = [Way::to(port), Way::to(port), Way::to(port)];
        let name = |what: &str| format!("{what}_{number}");
        for what in ["source", "target", "store"] {
            server.run("postgres", &format!("create database {} owner {ROLE}", name(what)));
        }
        let url =
            |port: u16, what: &str| format!("postgres://{ROLE}:{PASSWORD}@127.0.0.1:{port}/{}", name(what));
        let receiver = Receiver::start();
        let mut project = if ends == Ends::Destination {
            Project::new(Engine::DuckDb)
        } else {
            Project::on_postgres(url(port, "source"))
        };
        project.set_variable("WAREHOUSE_URL", &url(ways[0].address.port(), "source"));
        project.set_variable("TARGET_URL", &url(ways[1].address.port(), "target"));
        project.set_variable("STORE_URL", &url(ways[2].address.port(), "store"));
        project.set_variable("TO", &receiver.url());
        project.sql("create table people (id bigint, name text, score bigint)");
        postgres::run(
            &url(port, "target"),
            &format!(
                "create table people (id bigint primary key, name text check (name not like '{BAD}%'), score bigint)"
            ),
        );
        let store = if ends == Ends::All { "${STORE_URL}" } else { "sqlite://.levin/store.db" };
        project.write("levin.yml", &format!("name: link\nstore: {store}\nlease: 60s\n"));
        project.write(
            "models/people.yml",
            "source: wh\nprimary_key: id\nsql: select id, name, score from people\n",
        );
        let (retries, concurrency, batch) = (random.u8(..2), random.u8(1..=3), random.u8(2..12));
        let (to, sync) = if ends == Ends::Source {
            (
                format!(
                    "type: http_request\nbase_url: ${{TO}}\nallow_private_networks: true\nretries: {retries}\nconcurrency: {concurrency}\n"
                ),
                format!("each: {{path: /rows, batch_size: {batch}}}\nclear: {{path: /clear}}\n"),
            )
        } else {
            (
                format!(
                    "type: postgres\nurl: ${{TARGET_URL}}\nretries: {retries}\nconcurrency: {concurrency}\nstatement_timeout: 3s\n"
                ),
                format!("object: public.people\nbatch_size: {batch}\n"),
            )
        };
        let mode = ["mode: mirror", "mode: upsert\non_removed: delete"][random.usize(..2)];
        project.write("destinations/to.yml", &to);
        project.write(
            "syncs/people.yml",
            &format!("model: people\ndestination: to\n{mode}\n{sync}guards: {{allow_empty: true}}\n"),
        );
        let told = vec![format!("{ends:?}, {mode}, {to}, {sync}")];
        Self {
            server,
            project,
            receiver,
            ends,
            ways,
            databases: [name("source"), name("target")],
            model: BTreeMap::new(),
            told,
            met: BTreeMap::new(),
        }
    }

    fn edit(&mut self, random: &mut fastrand::Rng, step: usize) {
        for _ in 0..random.usize(1..25) {
            let id = random.i64(1..=60);
            match random.u8(..12) {
                0..4 => drop(self.model.remove(&id)),
                4 if self.ends != Ends::Source => {
                    drop(self.model.insert(id, (format!("{BAD} {id} {step}"), 0)))
                }
                5..8 => drop(self.model.insert(id, (format!("name {id}"), 0))),
                _ => drop(self.model.insert(id, (format!("name {id}, {step}"), random.i64(..)))),
            }
        }
        self.write();
    }

    fn write(&self) {
        let mut statements = "begin; delete from people;".to_owned();
        for (id, (name, score)) in &self.model {
            statements.push_str(&format!("insert into people values ({id}, '{name}', {score});"));
        }
        self.project.sql(&(statements + "commit"));
    }

    /// Troubles for each way that is used.
    fn arm(&mut self, random: &mut fastrand::Rng) {
        let used: &[usize] = match self.ends {
            Ends::Source => &[0],
            Ends::Destination => &[1],
            Ends::Both => &[0, 1],
            Ends::All => &[0, 1, 2],
        };
        for &way in used {
            let count = [0, 1, 1, 2][random.usize(..4)];
            let troubles: Vec<Trouble> = (0..count)
                .map(|_| {
                    let most = [300, 3_000, 30_000][random.usize(..3)];
                    let bytes = random.usize(..most);
                    match random.u8(..6) {
                        0 => Trouble::CutWithin(bytes),
                        1 => Trouble::CutBehind(bytes),
                        2 => Trouble::CutBeforeCommit(random.usize(..8)),
                        3 => Trouble::CutAfterCommit(random.usize(..8)),
                        4 => Trouble::Stall(bytes, Duration::from_millis(random.u64(50..1500))),
                        _ => Trouble::Refuse(random.usize(..3)),
                    }
                })
                .collect();
            self.told.push(format!("way {way}: {troubles:?}"));
            self.ways[way].meets(troubles);
        }
    }

    /// Does something to the server that a run must get over; `before` it begins, or while it is `running`.
    fn mischief(&mut self, mischief: Mischief, random: &mut fastrand::Rng, before: bool) {
        let wait = Duration::from_millis(random.u64(100..900));
        let alter = |set: &str| {
            for database in &self.databases {
                self.server.run("postgres", &format!("alter database {database} {set}"));
            }
        };
        match mischief {
            Mischief::StatementTimeout if before => {
                alter(&format!("set statement_timeout = '{}ms'", random.u16(1..60)));
            }
            Mischief::OutOfConnections if before => {
                self.server
                    .run("postgres", &format!("alter role {ROLE} connection limit {}", random.u8(..4)));
            }
            Mischief::StatementTimeout | Mischief::OutOfConnections | Mischief::Nothing => {}
            _ if before => {}
            Mischief::Restart => {
                std::thread::sleep(wait);
                self.server.restart(Duration::from_millis(random.u64(..800)));
            }
            Mischief::Cancel | Mischief::Terminate => {
                let act =
                    if mischief == Mischief::Cancel { "pg_cancel_backend" } else { "pg_terminate_backend" };
                for _ in 0..random.u8(1..5) {
                    std::thread::sleep(wait / 3);
                    let select =
                        format!("select {act}(pid)::text from pg_stat_activity where usename = '{ROLE}'");
                    postgres::query(&self.server.url("postgres"), &select);
                }
            }
            Mischief::LockManaged | Mischief::LockDestination => {
                std::thread::sleep(wait / 3);
                let database = &self.databases[usize::from(mischief == Mischief::LockDestination)];
                let url = self.server.url(database);
                let tables = "select schemaname || '.' || tablename from pg_tables
                    where schemaname in ('levin_planner', 'public') order by 1";
                let tables: Vec<String> = postgres::texts(&url, tables).into_iter().flatten().collect();
                let Some(table) = random.choice(&tables) else { return };
                // The table may be gone by now, or its lock may end in a deadlock: then there is no trouble.
                drop(catch_unwind(|| {
                    let locked = OpenConnection::after(
                        &url,
                        &format!("begin; lock table {table} in access exclusive mode"),
                    );
                    std::thread::sleep(wait * 2);
                    drop(locked);
                }));
            }
        }
    }

    /// A run over the bad link.
    fn run(&mut self, random: &mut fastrand::Rng, step: usize) {
        let more: &[&str] = match random.u8(..100) {
            0..8 => &["--full-resync", "--keep-removals"],
            8..16 => &["--clear-and-fill"],
            _ => &[],
        };
        let mischief = MISCHIEF[random.usize(..MISCHIEF.len())];
        self.arm(random);
        self.mischief(mischief, random, true);
        let before: usize = self.ways.iter().map(Way::met).sum();
        let arguments = [&["run", SYNC, "--json"], more].concat();
        let running = Running::start(self.project.command_of(levin_binary(), &[], &arguments));
        self.mischief(mischief, random, false);
        let ended = running.ended();
        let code = said(&ended.stdout, &ended.stderr);
        let met = self.ways.iter().map(Way::met).sum::<usize>() - before;
        self.told.push(format!("step {step}: {mischief:?} {more:?}, {met} troubles: {} {code}", ended.code));
        *self.met.entry(format!("{mischief:?}")).or_default() += 1;
        *self.met.entry(format!("ended {} {code}", ended.code)).or_default() += 1;
        *self.met.entry("troubles of the link".to_owned()).or_default() +=
            u32::try_from(met).unwrap_or(u32::MAX);
        assert!([0, 1, 2].contains(&ended.code), "{ended:#?}");
        // Somebody who cancels a statement asks its run to stop; a clock does not, but when it strikes in the moment
        // in which its statement ends, the server says of the next one that a user did.
        let asked = code == "CANCELLED" && matches!(mischief, Mischief::Cancel | Mischief::StatementTimeout);
        assert!(code.is_empty() || asked || KNOWN_ERRORS.contains(&code.as_str()), "{ended:#?}");
        assert_eq!(code.is_empty(), ended.code < 2, "{ended:#?}");
        assert!(!format!("{}{}", ended.stdout, ended.stderr).contains(PASSWORD), "{ended:#?}");
        self.peace();
    }

    /// The link is good and the server well.
    fn peace(&mut self) {
        self.ways.iter().for_each(|way| way.meets(Vec::new()));
        self.server.run("postgres", &format!("alter role {ROLE} connection limit -1"));
        for database in &self.databases {
            self.server.run("postgres", &format!("alter database {database} reset statement_timeout"));
        }
    }

    fn there(&self) -> BTreeMap<i64, (String, i64)> {
        if self.ends == Ends::Source {
            let rows = self.receiver.rows().into_iter();
            let row = |fields: &Value| {
                (
                    fields["name"].as_str().expect("a name").to_owned(),
                    fields["score"].as_i64().expect("a score"),
                )
            };
            return rows.map(|(key, fields)| (key.parse().expect("an id"), row(&fields))).collect();
        }
        let rows =
            postgres::query(&self.server.url(&self.databases[1]), "select id, name, score from people");
        let text = |cell: &Option<String>| cell.clone().expect("no null");
        rows.iter()
            .map(|row| {
                let number = |cell| text(cell).parse::<i64>().expect("a number");
                (number(&row[0]), (text(&row[1]), number(&row[2])))
            })
            .collect()
    }

    fn assert_honest(&self) {
        let (mut newest, mut sent) = (0, BTreeSet::new());
        for request in self.receiver.requests() {
            assert!(
                request.generation() >= newest,
                "a request of an older generation came later: {request:?}"
            );
            newest = request.generation();
            match request.operation() {
                "removed" => assert!(request.keys().iter().all(|key| sent.contains(key)), "{request:?}"),
                _ => sent.extend(request.keys()),
            }
        }
    }

    fn assert_nothing_is_left(&self) {
        let select = "select cast(table_name as text) from information_schema.tables where table_schema = 'levin_planner'";
        let left: Vec<String> = self
            .project
            .texts(select)
            .into_iter()
            .flatten()
            .filter(|name| {
                !["_state", "_snapshot", "_doubts", "_rejections"].iter().any(|end| name.ends_with(end))
            })
            .collect();
        assert!(left.is_empty(), "left in the warehouse: {left:?}");
        let sessions = "select pid::text, application_name, state, query from pg_stat_activity where application_name like 'levin%'";
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let sessions = postgres::query(&self.server.url("postgres"), sessions);
            if sessions.is_empty() {
                break;
            }
            assert!(Instant::now() < deadline, "sessions are left: {sessions:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for World<'_> {
    fn drop(&mut self) {
        self.ways.iter().for_each(Way::close);
    }
}

/// The code of the error that ended a run, in its report or instead of one; empty when none did.
fn said(stdout: &str, stderr: &str) -> String {
    let report: Option<Value> =
        stdout.lines().last().map(|line| serde_json::from_str(line).expect("a report"));
    match report {
        Some(report) => report["error"]["code"].as_str().unwrap_or_default().to_owned(),
        None => {
            let (_, rest) = stderr.split_once("error[").unwrap_or_default();
            rest.split(']').next().unwrap_or_default().to_owned()
        }
    }
}

/// One walk; returns what it met.
fn walk(server: &mut PostgresServer, ends: Ends, seed: u64) -> BTreeMap<String, u32> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut world = World::new(server, ends, &mut random);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        for step in 1..=STEPS {
            world.edit(&mut random, step);
            world.run(&mut random, step);
        }
        for (id, (name, _)) in &mut world.model {
            if name.starts_with(BAD) {
                *name = format!("mended {id}");
            }
        }
        world.write();
        let last = at_peace(|| world.project.run_with(SYNC, &["--wait", "90s"]));
        assert_eq!((last.code, last.status()), (0, "success"), "{last:#?}");
        assert_eq!(world.there(), world.model, "destination and model differ: {last:#?}");
        let before = world.project.snapshots();
        let quiet = world.project.run(SYNC);
        assert_eq!(
            (quiet.code, quiet.planned(), quiet.number("destinationCalls")),
            (0, [0, 0, 0], 0),
            "{quiet:#?}"
        );
        assert_eq!(world.project.snapshots(), before, "a run with nothing to do wrote to the snapshot");
        assert!(world.project.rejected(SYNC).is_empty());
        world.assert_honest();
        world.assert_nothing_is_left();
    }));
    if let Err(panic) = outcome {
        println!("{:#?}", world.told);
        std::panic::resume_unwind(panic);
    }
    std::mem::take(&mut world.met)
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .filter(|v| !v.is_empty())
        .map(|v| v.parse().unwrap_or_else(|e| panic!("{variable}: {e}")))
}

/// The walks of one kind: a few, or for some minutes.
fn walks(ends: &[Ends], first: u64) {
    let started = Instant::now();
    let mut server = PostgresServer::launch(None);
    server.run("postgres", &format!("create role {ROLE} login password '{PASSWORD}'"));
    let minutes = number("LEVIN_LONG_MINUTES").map(|minutes| Duration::from_secs(60 * minutes));
    let seeds: Box<dyn Iterator<Item = u64>> = match (number("LEVIN_SEED"), minutes) {
        (Some(seed), _) => Box::new(std::iter::once(seed)),
        (None, Some(minutes)) => Box::new((first..).take_while(move |_| started.elapsed() < minutes)),
        (None, None) => Box::new(first..first + FEW),
    };
    let (mut met, mut failed): (BTreeMap<String, u32>, Vec<u64>) = (BTreeMap::new(), Vec::new());
    let mut walked = 0;
    for seed in seeds {
        let ends = ends[usize::try_from(seed).expect("a small number") % ends.len()];
        println!("{ends:?}: LEVIN_SEED={seed}");
        match catch_unwind(AssertUnwindSafe(|| walk(&mut server, ends, seed))) {
            Ok(these) => these.into_iter().for_each(|(what, count)| *met.entry(what).or_default() += count),
            Err(_) => failed.push(seed),
        }
        walked += 1;
    }
    println!("{walked} walks in {:.1} s met {met:#?}", started.elapsed().as_secs_f64());
    assert!(failed.is_empty(), "these walks failed; replay one with LEVIN_SEED: {failed:?}");
}

#[test]
fn a_bad_link_from_postgres_loses_nothing() {
    walks(&[Ends::Source, Ends::All], 1);
}

#[test]
fn a_bad_link_to_postgres_loses_nothing() {
    walks(&[Ends::Both, Ends::Destination], 2);
}
