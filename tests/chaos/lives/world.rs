//! A sync, its destination, and what the test knows of both.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use fastrand::Rng;
use orchestrator::failpoints::NAMES;
use serde_json::{Value, json};
use tests::project::{Engine, Project, Run, Running, levin_with_failpoints};
use tests::receiver::{Receiver, Reply};

use super::excuses::{Excuses, Row, last_applied};
use super::said::{MODES, Said};

const SYNC: &str = "people";

/// Rows whose name begins so are refused for ever.
const BAD: &str = "bad";

/// To start over.
const WAYS: &[&[&str]] =
    &[&["--full-resync"], &["--full-resync", "--keep-removals"], &["--clear-and-fill"], &["--reset-cdc"]];

/// Where a batch is under way.
const UNDER_WAY: &[&str] =
    &["deliver.after_start_note", "deliver.after_answer", "deliver.before_end_note", "store.end"];

/// Keys are from one to this.
const KEYS: i64 = 16;

/// What a run may end with when its destination misbehaves, a guard stops it, or its sync was edited.
const KNOWN_ERRORS: &[&str] = &[
    "DESTINATION_UNAVAILABLE",
    "DESTINATION_ERROR",
    "DESTINATION_REFUSED",
    "DESTINATION_UNUSABLE",
    "GUARD_TRIPPED",
    "MODE_CHANGED",
];

/// A plan that is kept: its name, what its sync said, and the keys of its model.
struct Plan {
    id: String,
    said: Said,
    keys: BTreeSet<i64>,
}

pub struct World {
    project: Project,
    receiver: Receiver,
    /// Rows with all columns, also those that the model does not select.
    rows: BTreeMap<i64, Row>,
    /// Keys that stand twice in the model's table.
    twice: BTreeSet<i64>,
    /// Rows and keys that stood twice before the last edit.
    before: (BTreeMap<i64, Row>, BTreeSet<i64>),
    said: Said,
    /// What was said when, by how many requests had come.
    epochs: Vec<(usize, Said)>,
    /// The columns of the last run that is known to have come to its diff.
    known_columns: BTreeSet<&'static str>,
    excuses: Excuses,
    plan: Option<Plan>,
    /// Of a hundred steps, so many start over, edit the project's files, and break a run off.
    starts_over: u8,
    changes: u8,
    breaks_off: u8,
    told: Vec<String>,
    /// What happened, and how often.
    pub met: BTreeMap<String, u32>,
}

impl World {
    pub fn new(engine: Engine, random: &mut Rng) -> Self {
        let receiver = Receiver::start();
        let project = Project::new(engine).with_variable("TO", &receiver.url());
        project.sql("create table people (id bigint, name text, score bigint, city text, age bigint)");
        project.write(
            "destinations/to.yml",
            &format!(
                "type: http_request\nbase_url: ${{TO}}\nallow_private_networks: true\nretries: 0\nconcurrency: {}\n",
                random.u8(1..4)
            ),
        );
        let said = Said {
            mode: MODES[random.usize(..MODES.len())],
            columns: vec![("name", false), ("score", false)],
            upper: false,
            keeps: false,
            max_attempts: None,
            max_removed: None,
        };
        let told = vec![format!("{engine:?}: {said:?}")];
        let mut world = Self {
            project,
            receiver,
            rows: BTreeMap::new(),
            twice: BTreeSet::new(),
            before: (BTreeMap::new(), BTreeSet::new()),
            said,
            epochs: Vec::new(),
            known_columns: BTreeSet::new(),
            excuses: Excuses::default(),
            plan: None,
            // What starts over makes good what went wrong before: most lives leave it out.
            starts_over: [0, 0, 30][random.usize(..3)],
            changes: [0, 30, 70][random.usize(..3)],
            breaks_off: [10, 45, 75][random.usize(..3)],
            told,
            met: BTreeMap::new(),
        };
        world.say();
        world
    }

    fn meet(&mut self, what: &str) {
        *self.met.entry(what.to_owned()).or_default() += 1;
    }

    fn say(&mut self) {
        self.said.write(&self.project);
        self.told.push(format!("said: {:?}", self.said));
    }

    fn write(&mut self) {
        let literal = |value: Option<&Value>| match value {
            Some(Value::String(text)) => format!("'{text}'"),
            Some(other) => other.to_string(),
            None => "null".to_owned(),
        };
        let mut statements = "begin; delete from people;".to_owned();
        for (id, row) in &self.rows {
            let values: Vec<String> =
                ["name", "score", "city", "age"].iter().map(|column| literal(row.get(*column))).collect();
            let insert = format!("insert into people values ({id}, {});", values.join(", "));
            statements.push_str(&insert);
            if self.twice.contains(id) {
                statements.push_str(&insert);
            }
        }
        self.project.sql(&(statements + "commit"));
        self.told.push(format!("rows: {:?}, twice {:?}", self.rows, self.twice));
    }

    /// Adds, changes, spoils, doubles and removes some rows.
    fn edit(&mut self, step: usize, random: &mut Rng) {
        let now = (self.rows.clone(), self.twice.clone());
        // What was under way, and is in doubt, may be wanted no more.
        if random.u8(..100) < 35 {
            (self.rows, self.twice) = std::mem::replace(&mut self.before, now);
            return self.write();
        }
        self.before = now;
        for _ in 0..random.usize(1..12) {
            let id = random.i64(1..=KEYS);
            let name = match random.u8(..12) {
                0..3 => {
                    self.rows.remove(&id);
                    self.twice.remove(&id);
                    continue;
                }
                3 if self.rows.contains_key(&id) => {
                    if !self.twice.remove(&id) {
                        self.twice.insert(id);
                    }
                    continue;
                }
                3 | 4 => format!("{BAD} {id} {step}"),
                // Back to what it was at first: A → B → A.
                5..8 => format!("name {id}"),
                _ => format!("name {id} {step}"),
            };
            let number = |random: &mut Rng| if random.bool() { Value::Null } else { json!(random.i64(0..3)) };
            let city = if random.bool() { Value::Null } else { json!(["", "x", "y"][random.usize(..3)]) };
            let row =
                [("name", json!(name)), ("score", number(random)), ("city", city), ("age", number(random))];
            self.rows.insert(id, row.into_iter().map(|(column, value)| (column.to_owned(), value)).collect());
        }
        self.write();
    }

    /// Says something else.
    fn change(&mut self, random: &mut Rng) {
        match random.u8(..9) {
            0 | 8 => self.said.mode = MODES[random.usize(..MODES.len())],
            1..4 => {
                let name = ["score", "city", "age"][random.usize(..3)];
                let before = self.said.columns.len();
                self.said.columns.retain(|(known, _)| *known != name);
                if self.said.columns.len() == before {
                    let place = random.usize(..=before);
                    self.said.columns.insert(place, (name, false));
                }
                self.said.keeps = random.bool();
            }
            4 => {
                if let Some(column) = self.said.columns.iter_mut().find(|(name, _)| *name == "score") {
                    column.1 = !column.1;
                }
            }
            5 => self.said.upper = !self.said.upper,
            6 => self.said.max_attempts = (random.u8(..3) > 0).then(|| random.u8(1..3)),
            _ => self.said.max_removed = (random.u8(..3) > 0).then(|| random.u8(0..4)),
        }
        self.say();
    }

    /// Some of a hundred requests meet trouble.
    fn misbehave(&self, seed: u64, percent: u32) {
        let mut random = Rng::with_seed(seed);
        self.receiver.behave(move |request| {
            let named = |row: &&Value| {
                row["fields"]["name"].as_str().is_some_and(|name| name.to_lowercase().starts_with(BAD))
            };
            let bad: Vec<&str> = match request.operation() {
                "removed" => Vec::new(),
                _ => request.rows().iter().filter(named).filter_map(|row| row["key"].as_str()).collect(),
            };
            if random.u32(..100) >= percent {
                return Reply::reject(&bad, "not this one");
            }
            match random.u8(..6) {
                0 => Reply::status(503),
                1 => Reply::accept_but_answer(500),
                2 => Reply::cut(),
                3 => Reply::applied_but_cut(),
                4 => Reply::status(422),
                _ => {
                    let some = request.rows().iter().filter_map(|row| row["key"].as_str());
                    Reply::reject(&some.filter(|_| random.bool()).chain(bad).collect::<Vec<_>>(), "not now")
                }
            }
        });
    }

    /// The rows of the model that have a key of their own, as it selects them.
    fn model(&self) -> BTreeMap<i64, Row> {
        let of = |row: &Row| {
            let columns = self.said.columns.iter();
            columns.map(|(name, _)| ((*name).to_owned(), row[*name].clone())).collect()
        };
        self.rows.iter().filter(|(id, _)| !self.twice.contains(id)).map(|(id, row)| (*id, of(row))).collect()
    }

    /// Notes what a run of these arguments may leave different for good.
    fn excuse(&mut self, arguments: &[&str]) {
        let now = self.receiver.count();
        if self.epochs.last().is_none_or(|(_, said)| *said != self.said) {
            self.epochs.push((now, self.said.clone()));
        }
        let resets = arguments.contains(&"--reset-cdc");
        let resyncs = arguments.contains(&"--full-resync");
        let gone: Vec<i64> = self.there().into_keys().filter(|key| !self.rows.contains_key(key)).collect();
        if resets || (!self.said.mode.removes && !resyncs) {
            gone.into_iter().for_each(|key| self.excuses.stray(key, now));
        }
        for (key, row) in self.model() {
            if resets {
                self.excuses.row(key, &row, now);
            }
            if self.said.keeps {
                for (column, value) in row.iter().filter(|(c, _)| !self.known_columns.contains(c.as_str())) {
                    *self.met.entry("value kept".to_owned()).or_default() += 1;
                    self.excuses.value(key, column, value, now);
                }
            }
        }
    }

    /// What the destination holds, by key.
    fn there(&self) -> BTreeMap<i64, Value> {
        let rows = self.receiver.rows().into_iter();
        rows.map(|(key, fields)| (key.parse().expect("a number"), fields)).collect()
    }

    /// Takes in what a run's report says, whatever its end.
    fn heard(&mut self, run: &Run, arguments: &[&str]) {
        let told = format!(
            "{arguments:?}: {} {} {} planned {:?} successful {:?} failed {:?} not sent {:?} parked {}",
            run.code,
            run.status(),
            run.error(),
            run.planned(),
            run.successful(),
            run.failed(),
            run.not_sent(),
            run.report["parkedCount"],
        );
        self.told.push(told);
        self.meet(if run.error().is_empty() { run.status() } else { run.error() });
        if run.number("parkedCount") > 0 {
            self.meet("parked");
        }
        if let Some(start) = arguments.last() {
            self.meet(start);
        }
        if run.report["querySize"].is_u64() && run.error() != "MODE_CHANGED" {
            self.known_columns = self.said.columns.iter().map(|(name, _)| *name).collect();
        }
        if run.error() == "GUARD_TRIPPED" {
            let id = run.report["planId"].as_str().unwrap_or_else(|| panic!("{run:#?}")).to_owned();
            self.keep(id);
        }
    }

    fn keep(&mut self, id: String) {
        self.plan = Some(Plan { id, said: self.said.clone(), keys: self.rows.keys().copied().collect() });
    }

    /// A run that goes to its end. A mode that changed is started over in one way or another.
    fn run(&mut self, arguments: &[&str], random: &mut Rng) -> Run {
        self.excuse(arguments);
        let planned = (random.u8(..100) < 35 && !arguments.contains(&"--reset-cdc"))
            .then(|| self.project.levin(&[&["plan", SYNC, "--json"], arguments].concat()));
        let run = self.project.run_with(SYNC, arguments);
        self.heard(&run, arguments);
        if let Some(plan) = planned.filter(|plan| matches!(plan.code, 0 | 3)) {
            let plan: Value =
                serde_json::from_str(plan.stdout.lines().last().unwrap_or_default()).expect("a plan");
            for count in [
                "plannedRows",
                "notSent",
                "parkedRows",
                "unchangedCount",
                "duplicateKeyCount",
                "nullKeyCount",
            ] {
                if !plan[count].is_null() {
                    assert_eq!(
                        plan[count], run.report[count],
                        "{count}: planned, and run: {plan:#} {run:#?}"
                    );
                }
            }
        }
        if run.error() != "MODE_CHANGED" {
            return run;
        }
        self.run(WAYS[random.usize(..WAYS.len())], random)
    }

    /// A run that is killed on its way, or whose exchange with somebody fails.
    fn break_off(&mut self, arguments: &[&str], random: &mut Rng) {
        self.excuse(arguments);
        let words = [&["run", SYNC, "--json"], arguments].concat();
        let mut command = self.project.command_of(levin_with_failpoints(), &[], &words);
        let how = if random.u8(..3) > 0 {
            let clears = arguments.contains(&"--clear-and-fill");
            let points: Vec<&str> =
                NAMES.iter().copied().filter(|name| clears || !name.contains("clear")).collect();
            let at = if random.bool() {
                format!("{}:{}", points[random.usize(..points.len())], random.u8(1..=2))
            } else {
                format!("{}:{}", UNDER_WAY[random.usize(..UNDER_WAY.len())], [1, 1, 2][random.usize(..3)])
            };
            command.env("LEVIN_KILL_AT", &at);
            if random.bool() {
                command.env("FAILPOINTS", "deliver.checkpoint_interval=return(0)");
            }
            at
        } else {
            let side = if random.bool() { "before" } else { "after" };
            let points = format!("exchange={}*off->1*return({side})->off", random.u8(..60));
            command.env("FAILPOINTS", &points);
            points
        };
        let ended = Running::start(command).ended();
        self.told.push(format!("{arguments:?} broken off at {how}: {}", ended.code));
        self.meet(if ended.code == -9 { "killed" } else { "an exchange failed, or nothing did" });
        if let Some(report) = ended.stdout.lines().last().filter(|_| ended.code >= 0) {
            let report = serde_json::from_str(report).expect("a report");
            let run = Run { code: ended.code, report, stderr: ended.stderr };
            if run.report["querySize"].is_u64() && run.error().is_empty() {
                self.heard(&run, arguments);
            }
        }
    }

    /// Sends a plan that was kept, unless something has changed since.
    fn approve(&mut self, plan: &Plan) {
        let now = self.receiver.count();
        if !plan.said.mode.removes {
            let gone: Vec<i64> = self.there().into_keys().filter(|key| !plan.keys.contains(key)).collect();
            gone.into_iter().for_each(|key| self.excuses.stray(key, now));
        }
        let ended = self.project.levin(&["apply", &plan.id, "--json"]);
        self.told.push(format!("apply {}: {} {}", plan.id, ended.code, ended.stdout));
        let report: Option<Value> =
            ended.stdout.lines().last().map(|line| serde_json::from_str(line).expect("a report"));
        self.meet(if ended.code < 2 { "plan applied" } else { "plan refused" });
        match report {
            Some(report) => {
                let error = report["error"]["code"].as_str().unwrap_or_default().to_owned();
                assert!(
                    error.is_empty() || error == "PLAN_STALE" || KNOWN_ERRORS.contains(&error.as_str()),
                    "{report:#}"
                );
            }
            None => assert!(ended.stderr.contains("PLAN_STALE"), "{ended:?}"),
        }
    }

    pub fn step(&mut self, step: usize, random: &mut Rng) {
        self.told.push(format!("step {step}"));
        if random.u8(..100) < 85 {
            self.edit(step, random);
        }
        if random.u8(..100) < self.changes {
            self.change(random);
        }
        self.misbehave(random.u64(..), [0, 0, 15, 40][random.usize(..4)]);
        if let Some(plan) = self.plan.take().filter(|_| random.bool()) {
            self.approve(&plan);
        }
        let starts_over = random.u8(..100) < self.starts_over;
        let arguments: &[&str] = if starts_over { WAYS[random.usize(..WAYS.len())] } else { &[] };
        match random.u8(..100) {
            n if n < self.breaks_off => self.break_off(arguments, random),
            n if n < self.breaks_off + 10 => {
                self.excuse(&[]);
                let saved = self.project.levin(&["plan", SYNC, "--json", "--save", &self.file("plan.json")]);
                self.told.push(format!("saved: {} {}", saved.code, saved.stdout));
                match saved.stdout.lines().last() {
                    Some(plan) => {
                        let plan: Value = serde_json::from_str(plan).expect("a plan");
                        self.known_columns = self.said.columns.iter().map(|(name, _)| *name).collect();
                        self.keep(plan["planId"].as_str().expect("its name").to_owned());
                    }
                    None => assert!(saved.stderr.contains("MODE_CHANGED"), "{saved:?}"),
                }
            }
            _ => {
                let run = self.run(arguments, random);
                assert!(run.error().is_empty() || KNOWN_ERRORS.contains(&run.error()), "{run:#?}");
            }
        }
        match random.u8(..100) {
            0..8 if self.project.path().join(".levin").exists() => {
                self.project.lose_store();
                self.told.push("the store is lost".to_owned());
                self.meet("store lost");
            }
            8..14 => self.mark("--park"),
            14..20 => self.mark("--retry"),
            _ => {}
        }
    }

    fn file(&self, name: &str) -> String {
        self.project.path().join(name).to_string_lossy().into_owned()
    }

    /// Dead letters by hand.
    fn mark(&mut self, what: &str) {
        let ended = self.project.levin(&["rejected", SYNC, what, "--json"]);
        self.told.push(format!("rejected {what}: {} {}", ended.code, ended.stdout.trim()));
    }

    /// Peace, for a while: what was bad is mended, nothing stops a run, and a few runs later all is well.
    pub fn peace(&mut self) {
        self.told.push("peace".to_owned());
        self.misbehave(0, 0);
        self.twice.clear();
        for (id, row) in &mut self.rows {
            if row["name"].as_str().is_some_and(|name| name.starts_with(BAD)) {
                row.insert("name".to_owned(), json!(format!("mended {id}")));
            }
        }
        self.write();
        (self.said.max_attempts, self.said.max_removed) = (None, None);
        self.say();
        let mut random = Rng::with_seed(0);
        let mut run = self.run(&[], &mut random);
        self.mark("--retry");
        for _ in 0..3 {
            assert_eq!((run.code, run.status()), (0, "success"), "{run:#?}");
            // A row that was parked as it now is comes with the run after the retry.
            if run.planned() == [0, 0, 0] && run.not_sent() == [0, 0, 0] && run.number("parkedCount") == 0 {
                break;
            }
            run = self.run(&[], &mut random);
        }
        assert_eq!((run.planned(), run.not_sent()), ([0, 0, 0], [0, 0, 0]), "{run:#?}");
        self.assert_converged();
        self.project.assert_quiet(SYNC, &self.receiver);
        assert!(self.project.rejected(SYNC).is_empty());
        self.assert_versions();
    }

    fn assert_converged(&self) {
        let (requests, there, model) = (self.receiver.requests(), self.there(), self.model());
        for key in there.keys().filter(|key| !model.contains_key(key)) {
            let last = last_applied(&requests, *key);
            assert!(self.excuses.may_stay(*key, last), "{key} left the model, and is still there");
        }
        for (key, row) in &model {
            let last = last_applied(&requests, *key);
            let Some(fields) = there.get(key) else {
                assert!(self.excuses.may_miss(*key, last), "{key} is missing");
                continue;
            };
            if !self.said.mode.values {
                continue;
            }
            let sent = last.and_then(|last| self.epochs.iter().rposition(|(at, _)| *at <= last));
            for (column, value) in row {
                let said = sent.map_or(&self.said, |epoch| &self.epochs[epoch].1);
                // What the row was when it was sent: its templates then, its types now.
                let field = Said { columns: self.said.columns.clone(), ..said.clone() }.field(column, value);
                let tracked = sent.is_some_and(|epoch| {
                    let mut since = self.epochs[epoch..].iter();
                    since.all(|(_, said)| said.column(column) == self.said.column(column))
                });
                assert!(
                    fields[column.as_str()] == field
                        || (!tracked && value.is_null())
                        || self.excuses.may_differ(*key, column, value, last),
                    "{column} of {key} is {} and should be {field}",
                    fields[column.as_str()]
                );
            }
        }
    }

    /// A row version stands for one delivery, for ever: one key, one operation, the same values.
    fn assert_versions(&self) {
        let mut deliveries: HashMap<String, (Value, String, Value)> = HashMap::new();
        for request in self.receiver.requests() {
            for row in request.rows() {
                let version = row["version"].as_str().expect("a version").to_owned();
                let this = (row["key"].clone(), request.operation().to_owned(), row["fields"].clone());
                let before = deliveries.entry(version).or_insert_with(|| this.clone());
                assert_eq!((&before.0, &before.1), (&this.0, &this.1), "one version, two deliveries");
                // Columns come and go, and templates change, in between. What a removal shows is for people.
                let same = |column: &str| {
                    let (a, b) = (&before.2[column], &this.2[column]);
                    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_uppercase);
                    a.is_null() || b.is_null() || text(a) == text(b)
                };
                let columns = ["name", "score", "city", "age"];
                assert!(this.1 == "removed" || columns.iter().all(|c| same(c)), "{before:?} and {this:?}");
            }
        }
    }

    /// Whether a kill left the warehouse so that nobody can open it.
    pub fn is_corrupt(&self) -> bool {
        self.project.is_corrupt()
    }

    /// What happened, for who has to find out why.
    pub fn tell(&self) {
        println!("{:#?}", self.told);
        for request in self.receiver.requests() {
            let applied: Vec<&str> = request.applied.iter().map(String::as_str).collect();
            println!("{} {} {} applied {}", request.number, request.path, request.text, applied.join(","));
        }
    }
}
