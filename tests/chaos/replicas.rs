//! Two replicas of the service on one store that begin at once, killed and stopped at random, and cut off from the store,
//! while schedules go on and models change. Every tick that was taken is the cause of exactly one run, intervals keep
//! their phase, every run comes to its end, none sends after a later one of its sync has begun to, and in the end the
//! destinations hold what the models return.
//!
//! A minute in `./test`; `LEVIN_LONG_MINUTES=10 ./test --test chaos replicas::` for as long as that.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tests::postgres::{self, PostgresServer};
use tests::process::{Running, levin_binary};
use tests::project::{Engine, Project};
use tests::receiver::{Receiver, Reply};
use tests::seeds;

/// How long it goes on in every `./test`.
const SHORT: Duration = Duration::from_secs(45);
/// How long all may take to come to rest.
const REST: Duration = Duration::from_secs(120);

/// A sync's schedule; `m` is a member of a sequence only.
const SYNCS: [(&str, &str); 5] = [
    ("a", "schedule: {every: 1s}\n"),
    ("b", "schedule: {cron: '*/2 * * * * *', jitter: 400ms}\n"),
    ("c", "schedule: {every: 3s}\n"),
    ("f", "schedule: {after: [a, b]}\n"),
    ("m", ""),
];

struct World {
    project: Project,
    store: String,
    receivers: BTreeMap<&'static str, Receiver>,
    replicas: Vec<Option<Running>>,
    /// Ticks that the store was seen to have taken, by schedule.
    taken: BTreeMap<String, BTreeSet<i64>>,
    told: Vec<String>,
}

impl World {
    fn new(random: &mut fastrand::Rng) -> Self {
        let server = PostgresServer::start();
        let store = server.fresh_database();
        let mut project = Project::new(Engine::Postgres).with_variable("STORE", &store);
        project.write("levin.yml", "name: soak\nlease: 6s\nstore: ${STORE}\nserve: {runs_at_once: 3}\n");
        project.write("sequences/nightly.yml", "syncs: [m, c]\nschedule: {cron: '*/5 * * * * *'}\n");
        let mut receivers = BTreeMap::new();
        for (sync, schedule) in SYNCS {
            let receiver = Receiver::start();
            let mut own = fastrand::Rng::with_seed(random.u64(..));
            receiver.behave(move |_| {
                std::thread::sleep(Duration::from_millis(own.u64(..30)));
                if own.u8(..20) == 0 { Reply::applied_but_cut() } else { Reply::accept() }
            });
            project.set_variable(&format!("TO_{}", sync.to_uppercase()), &receiver.url());
            project.sql(&format!("create table {sync} (id bigint primary key, score bigint)"));
            project.write(
                &format!("models/{sync}.yml"),
                &format!("source: wh\nprimary_key: id\nsql: select * from {sync}\n"),
            );
            project.write(
                &format!("destinations/to-{sync}.yml"),
                &format!(
                    "type: http_request\nbase_url: ${{TO_{}}}\nallow_private_networks: true\nretries: 1\ntimeout: 2s\n",
                    sync.to_uppercase()
                ),
            );
            project.write(&format!("syncs/{sync}.yml"), &Self::sync(sync, schedule));
            receivers.insert(sync, receiver);
        }
        assert_eq!(project.levin(&["check", "--offline"]).code, 0);
        let mut world = Self {
            project,
            store,
            receivers,
            replicas: vec![None, None],
            taken: BTreeMap::new(),
            told: Vec::new(),
        };
        let mut begun = [world.start(), world.start()];
        begun.iter_mut().for_each(|process| process.hears("listening on"));
        world.replicas = begun.into_iter().map(Some).collect();
        world
    }

    fn sync(name: &str, schedule: &str) -> String {
        format!(
            "model: {name}\ndestination: to-{name}\nmode: mirror\neach: {{path: /rows, batch_size: 4}}\nguards: {{allow_empty: true}}\n{schedule}"
        )
    }

    fn start(&self) -> Running {
        Running::start(self.project.command_of(levin_binary(), &[], &["serve", "--listen", "127.0.0.1:0"]))
    }

    fn begin(&mut self, replica: usize) {
        let mut process = self.start();
        process.hears("listening on");
        self.replicas[replica] = Some(process);
    }

    /// Every connection to the store ends, whatever is under way on it.
    fn cut_store(&self) {
        postgres::query(
            &self.store,
            "select pg_terminate_backend(pid) from pg_stat_activity
             where datname = current_database() and pid <> pg_backend_pid()",
        );
    }

    /// One replica ends in some way, and comes back after a while; or the store goes away for a moment.
    fn trouble(&mut self, random: &mut fastrand::Rng) {
        if random.u8(..4) == 0 {
            self.told.push("the store's connections are cut".to_owned());
            for _ in 0..random.u8(1..5) {
                self.cut_store();
                self.live(Duration::from_millis(random.u64(..300)), random);
            }
            return;
        }
        let replica = random.usize(..self.replicas.len());
        let Some(process) = self.replicas[replica].take() else { return };
        match random.u8(..10) {
            0..=5 => {
                self.told.push(format!("replica {replica} is killed"));
                process.kill();
            }
            6..=7 => {
                self.told.push(format!("replica {replica} is asked to end"));
                process.terminate();
                process.ended();
            }
            _ => {
                let pause =
                    Duration::from_millis(random.u64(500..if seeds::is_long() { 20_000 } else { 4_000 }));
                self.told.push(format!("replica {replica} sleeps for {pause:?}"));
                process.signal(Signal::STOP);
                self.live(pause, random);
                process.signal(Signal::CONT);
                self.replicas[replica] = Some(process);
                return;
            }
        }
        let pause = Duration::from_millis(random.u64(..1_500));
        self.live(pause, random);
        self.begin(replica);
    }

    /// Models change, and what the store takes is watched.
    fn live(&mut self, so_long: Duration, random: &mut fastrand::Rng) {
        let until = Instant::now() + so_long;
        while Instant::now() < until {
            let (sync, _) = SYNCS[random.usize(..SYNCS.len())];
            let (id, score) = (random.u8(..40), random.u16(..));
            self.project.sql(&if random.u8(..4) == 0 {
                format!("delete from {sync} where id = {id}")
            } else {
                format!(
                    "insert into {sync} values ({id}, {score}) on conflict (id) do update set score = excluded.score"
                )
            });
            self.watch();
            std::thread::sleep(Duration::from_millis(60));
        }
    }

    fn watch(&mut self) {
        for row in postgres::query(&self.store, "select object, last from levin_ticks where schedule <> ''") {
            let [Some(object), Some(last)] = row.as_slice() else { panic!("a tick has both: {row:?}") };
            self.taken.entry(object.clone()).or_default().insert(last.parse().expect("a number"));
        }
    }

    /// No schedule any more, both replicas there: everything comes to its end.
    fn rest(&mut self) {
        for (sync, _) in SYNCS {
            self.receivers[sync].accept();
            self.project.write(&format!("syncs/{sync}.yml"), &Self::sync(sync, ""));
        }
        self.project.write("sequences/nightly.yml", "syncs: [m, c]\n");
        for replica in self.replicas.iter().flatten() {
            replica.signal(Signal::HUP);
        }
        let deadline = Instant::now() + REST;
        let (mut quiet, mut last) = (0, Vec::new());
        while quiet < 8 {
            let open = self.open();
            assert!(Instant::now() < deadline, "it does not come to rest: {open:?}; before: {last:?}");
            std::thread::sleep(Duration::from_millis(250));
            self.watch();
            quiet = if open.is_empty() { quiet + 1 } else { 0 };
            if !open.is_empty() {
                last = open;
            }
        }
    }

    fn open(&self) -> Vec<Vec<Option<String>>> {
        postgres::query(
            &self.store,
            "select 'run', run::text, replica, stage from levin_queue
             union all select 'sequence', id, status, null from levin_sequence_runs where finished_at is null",
        )
    }

    /// The last changes, and whatever a cut answer left in doubt, go out.
    fn settle(&self) {
        for _ in 0..3 {
            for (sync, _) in SYNCS {
                self.project.run(sync);
            }
        }
    }

    fn check(&self) -> String {
        let runs = postgres::query(
            &self.store,
            "select id, sync_id, sync, status, finished_at, causes from levin_runs order by id",
        );
        let mut causes: BTreeMap<(String, i64), Vec<String>> = BTreeMap::new();
        let mut count = 0;
        let mut note = |object: String, run: &str, text: &str| {
            let list: Vec<Value> = serde_json::from_str(text).expect("causes are JSON");
            for cause in list.iter().filter(|cause| cause["kind"] == "schedule") {
                let tick = cause["tick"].as_i64().expect("a tick is a number");
                causes.entry((object.clone(), tick)).or_default().push(run.to_owned());
                count += 1;
            }
        };
        let mut ends: BTreeMap<String, u32> = BTreeMap::new();
        for run in &runs {
            let cell = |index: usize| run[index].clone().unwrap_or_default();
            assert!(run[4].is_some(), "lost: run {} of {} still says {}", cell(0), cell(2), cell(3));
            *ends.entry(cell(3)).or_default() += 1;
            if let Some(text) = &run[5] {
                note(format!("sync:{}", cell(1)), &cell(0), text);
            }
        }
        for run in postgres::query(&self.store, "select id, sequence_id, causes from levin_sequence_runs") {
            let cell = |index: usize| run[index].clone().unwrap_or_default();
            note(format!("sequence:{}", cell(1)), &cell(0), &cell(2));
        }
        let doubled: Vec<_> = causes.iter().filter(|(_, runs)| runs.len() > 1).collect();
        let lost: Vec<_> = self
            .taken
            .iter()
            .flat_map(|(object, ticks)| ticks.iter().map(move |tick| (object.clone(), *tick)))
            .filter(|tick| !causes.contains_key(tick))
            // The moment from which a schedule counts is no tick of it.
            .filter(|(object, tick)| self.taken[object].first() != Some(tick))
            .collect();
        assert!(doubled.is_empty(), "doubled: {doubled:?}");
        assert!(lost.is_empty(), "lost: {lost:?}");
        for (object, interval) in [("sync:1", 1_000), ("sync:3", 3_000)] {
            let phases: BTreeSet<i64> = self.taken[object].iter().map(|tick| tick % interval).collect();
            assert_eq!(phases.len(), 1, "{object} ticks in several phases: {phases:?}");
        }
        for (sync, receiver) in &self.receivers {
            let generations: Vec<i64> =
                receiver.requests().iter().map(tests::receiver::Request::generation).collect();
            assert!(
                generations.is_sorted(),
                "an earlier run of {sync} sent after a later one: {generations:?}"
            );
            let model: BTreeMap<String, Value> =
                postgres::query(self.project.warehouse(), &format!("select id, score from {sync}"))
                    .into_iter()
                    .map(|row| {
                        let cell = |index: usize| row[index].clone().unwrap_or_default();
                        (cell(0), cell(1).parse::<i64>().expect("a score").into())
                    })
                    .collect();
            let there: BTreeMap<String, Value> =
                receiver.rows().into_iter().map(|(key, row)| (key, row["score"].clone())).collect();
            assert_eq!(there, model, "{sync} does not hold what its model returns");
        }
        assert!(count > 20, "too little happened: {count} ticks");
        format!("{} runs of {count} ticks: 0 lost, 0 doubled; they ended as {ends:?}", runs.len())
    }
}

#[test]
fn two_replicas_are_killed_and_no_tick_is_lost_or_doubled() {
    let seed = seeds::given().unwrap_or(7);
    println!("LEVIN_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut world = World::new(&mut random);
    let until = Instant::now() + seeds::minutes().unwrap_or(SHORT);
    let lived = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        while Instant::now() < until {
            let pause = Duration::from_millis(random.u64(500..4_000));
            world.live(pause, &mut random);
            world.trouble(&mut random);
        }
        world.rest();
        world.settle();
        world.check()
    }));
    match lived {
        Ok(told) => println!("{} troubles; {told}", world.told.len()),
        Err(panic) => {
            println!("{:#?}", world.told);
            std::panic::resume_unwind(panic);
        }
    }
}
