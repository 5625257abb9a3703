//! A project on a real warehouse with a destination that the test can look into.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use orchestrator::store::{DeliveryId, RunRecord, Store};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
pub use tests::postgres::query;
use tests::postgres::{self, PostgresServer};
pub use tests::project::Engine;
use tests::project::{Ended, Project, Running, levin_binary, levin_with_failpoints};

use crate::receiver::{BAD, Receiver};

/// The connector of the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Http,
    Files,
    Postgres,
}

/// Rows of one request, and requests at once: what a crash may have left under way.
pub const BATCH: usize = 3;
pub const CONCURRENCY: usize = 2;

/// One row of the model, as the test knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Person {
    pub email: String,
    pub score: i64,
    /// `None` stands for null, and for the time before the column came.
    pub note: Option<String>,
}

impl Person {
    pub fn new(email: impl Into<String>, score: i64) -> Self {
        Self { email: email.into(), score, note: None }
    }

    pub fn is_bad(&self) -> bool {
        self.email.starts_with(BAD)
    }
}

/// The rows that the destination should hold; the test's own truth.
pub type People = BTreeMap<i64, Person>;

pub struct Scene {
    pub engine: Engine,
    pub target: Target,
    pub receiver: Receiver,
    /// What the model returns now.
    pub model: People,
    has_note: bool,
    project: Project,
    copy: String,
    store: String,
}

const RUN: &[&str] = &["run", "people", "--json"];

/// How a process ended: with a code or by a signal.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Ended> for Ran {
    fn from(ended: Ended) -> Self {
        let Ended { code, stdout, stderr } = ended;
        Self { code: (code >= 0).then_some(code), signal: (code < 0).then_some(-code), stdout, stderr }
    }
}

impl Ran {
    pub fn is_killed(&self) -> bool {
        self.signal == Some(9)
    }

    /// The one line of JSON that `run --json` and `plan --json` print.
    pub fn report(&self) -> Value {
        serde_json::from_str(self.stdout.trim()).unwrap_or_else(|e| panic!("no report: {e}: {self:?}"))
    }

    pub fn error_code(&self) -> Option<String> {
        self.report()["error"]["code"].as_str().map(str::to_owned)
    }
}

/// The variables by which a run with fail points is told where to stop.
#[derive(Debug, Clone, Default)]
pub struct Trouble<'a> {
    pub kill_at: Option<&'a str>,
    pub points: Option<&'a str>,
}

impl Scene {
    pub fn new(engine: Engine, target: Target) -> Self {
        Self::with(engine, target, "60s", "")
    }

    /// `lease` for `levin.yml`, and further lines for the destination.
    pub fn with(engine: Engine, target: Target, lease: &str, destination: &str) -> Self {
        let warehouse = (engine == Engine::Postgres).then(|| PostgresServer::start().fresh_database());
        Self::on(warehouse, target, lease, destination)
    }

    /// On a database of the caller's, or else on a DuckDB file.
    pub fn on(database: Option<String>, target: Target, lease: &str, destination: &str) -> Self {
        let project = database.map_or_else(|| Project::new(Engine::DuckDb), Project::on_postgres);
        let copy =
            if target == Target::Postgres { PostgresServer::start().fresh_database() } else { String::new() };
        let scene = Self {
            engine: project.engine(),
            target,
            receiver: Receiver::start(),
            model: People::new(),
            has_note: false,
            project,
            copy,
            store: "sqlite://.levin/store.db".to_owned(),
        };
        let (to, sync) = match target {
            Target::Http => (
                format!(
                    "type: http_request\nbase_url: {}\nallow_private_networks: true\nretries: 0\nconcurrency: {CONCURRENCY}\n{destination}",
                    scene.receiver.url()
                ),
                format!(
                    "mode: mirror\neach: {{method: POST, path: /rows, batch_size: {BATCH}}}\nclear: {{path: /clear}}\n"
                ),
            ),
            Target::Files => (
                format!("type: files\npath: out\n{destination}"),
                "mode: diff\nobject: \"changes-{{ generation }}.jsonl\"\n".to_owned(),
            ),
            Target::Postgres => {
                postgres::run(
                    &scene.copy,
                    &format!(
                        "create table people (id bigint primary key, email text check (email not like '{BAD}%'), score bigint, note text)"
                    ),
                );
                (
                    format!(
                        "type: postgres\nurl: {}\nretries: 0\nconcurrency: {CONCURRENCY}\n{destination}",
                        scene.copy
                    ),
                    format!("mode: mirror\nobject: public.people\nbatch_size: {BATCH}\n"),
                )
            }
        };
        scene.write("levin.yml", &format!("name: crash\nstore: {}\nlease: {lease}\n", scene.store));
        scene.write("models/people.yml", "source: wh\nprimary_key: id\nsql: select * from people\n");
        scene.write("destinations/to.yml", &to);
        scene.write("syncs/people.yml", &format!("model: people\ndestination: to\n{sync}"));
        scene.sql("create table people (id bigint, email text, score bigint)");
        scene
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.project.path().join(relative)
    }

    pub fn write(&self, relative: &str, content: &str) {
        self.project.write(relative, content);
    }

    /// The address of the source's database, for a superuser.
    pub fn warehouse_url(&self) -> &str {
        assert_eq!(self.engine, Engine::Postgres);
        self.project.warehouse()
    }

    /// The store lies there from now on, for whoever runs the project.
    pub fn keep_store_at(&mut self, url: &str) {
        url.clone_into(&mut self.store);
        self.write("levin.yml", &format!("name: crash\nstore: {url}\nlease: 60s\n"));
    }

    /// The DuckDB file lies elsewhere from now on.
    pub fn move_warehouse(&mut self, path: &Path) {
        self.project.move_warehouse(path);
    }

    pub fn sql(&self, statements: &str) {
        self.project.sql(statements);
    }

    /// Changes the model, here and in the warehouse.
    pub fn edit(&mut self, change: impl FnOnce(&mut People)) {
        change(&mut self.model);
        let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let mut statements = "begin; delete from people;".to_owned();
        for (id, person) in &self.model {
            let note = if self.has_note {
                format!(", {}", person.note.as_deref().map_or("null".to_owned(), quoted))
            } else {
                assert_eq!(person.note, None, "the column is not there yet");
                String::new()
            };
            statements.push_str(&format!(
                "insert into people values ({id}, {}, {}{note});",
                quoted(&person.email),
                person.score
            ));
        }
        statements.push_str("commit");
        self.sql(&statements);
    }

    /// From now on the model has another column.
    pub fn add_note(&mut self) {
        self.sql("alter table people add column note text");
        self.has_note = true;
    }

    /// What the destination should hold of a person.
    pub fn wire(&self, id: i64, person: &Person) -> Value {
        let mut fields = json!({"id": id, "email": person.email, "score": person.score});
        if self.has_note || person.note.is_some() {
            fields["note"] = person.note.clone().into();
        }
        fields
    }

    /// What the destination holds, with nulls left out: an absent note is a null one.
    pub fn content(&self) -> BTreeMap<i64, Value> {
        let mut content = match self.target {
            Target::Http => self.receiver.content(),
            Target::Files => self.replayed_files(),
            Target::Postgres => query(&self.copy, "select id, email, score, note from people order by id")
                .into_iter()
                .map(|row| {
                    let id: i64 = number(&row[0]);
                    (id, json!({"id": id, "email": row[1], "score": number(&row[2]), "note": row[3]}))
                })
                .collect(),
        };
        content.values_mut().for_each(without_nulls);
        content
    }

    /// Puts a row into the destination that levin never sent.
    pub fn put_foreign(&self, id: i64) {
        match self.target {
            Target::Http => self.receiver.put(id, self.wire(id, &Person::new("foreign", id))),
            Target::Postgres => {
                postgres::run(&self.copy, &format!("insert into people values ({id}, 'foreign', {id}, null)"))
            }
            Target::Files => panic!("nobody but levin writes files"),
        }
    }

    /// Applies every file, in the order of the generations.
    fn replayed_files(&self) -> BTreeMap<i64, Value> {
        let mut files: Vec<(i64, PathBuf)> = std::fs::read_dir(self.path("out"))
            .into_iter()
            .flatten()
            .map(|entry| entry.expect("an entry").path())
            .filter_map(|path| {
                let name = path.file_name()?.to_str()?.to_owned();
                Some((name.strip_prefix("changes-")?.strip_suffix(".jsonl")?.parse().ok()?, path))
            })
            .collect();
        files.sort();
        let mut content = BTreeMap::new();
        for (_, path) in files {
            for line in std::fs::read_to_string(&path).expect("a file").lines() {
                let mut row: Value = serde_json::from_str(line).expect("a whole line of JSON");
                let operation = row.as_object_mut().and_then(|r| r.remove("_operation")).expect("_operation");
                let id = row["id"].as_i64().expect("an id");
                match operation.as_str() {
                    Some("removed") => drop(content.remove(&id)),
                    _ => drop(content.insert(id, row)),
                }
            }
        }
        content
    }

    /// The managed tables that are there.
    pub fn managed_tables(&self) -> Vec<String> {
        let select = "select cast(table_name as text) from information_schema.tables
            where table_schema = 'levin_planner' order by 1";
        self.project.texts(select).into_iter().flatten().collect()
    }

    /// Runs the shipped binary.
    pub fn levin(&self, arguments: &[&str]) -> Ran {
        self.project.levin(arguments).into()
    }

    pub fn run(&self) -> Ran {
        self.levin(RUN)
    }

    /// Runs the sync with the binary that has fail points.
    pub fn run_with(&self, trouble: &Trouble<'_>, more: &[&str]) -> Ran {
        self.start_run(trouble, more).wait()
    }

    /// Starts the sync with the binary that has fail points.
    pub fn start_run(&self, trouble: &Trouble<'_>, more: &[&str]) -> Started {
        let mut command = self.project.command_of(levin_with_failpoints(), &[], &[RUN, more].concat());
        command.envs(trouble.kill_at.map(|point| ("LEVIN_KILL_AT", point)));
        command.envs(trouble.points.map(|points| ("FAILPOINTS", points)));
        Started(Running::start(command))
    }

    /// The same project on another machine: it has a store of its own.
    pub fn elsewhere(&self) -> Project {
        self.project.checkout()
    }

    /// The orchestrator's disk is gone, but not the project's files.
    pub fn lose_store(&self) {
        self.project.lose_store();
    }

    pub fn runs(&self) -> Vec<Value> {
        self.project.history()
    }

    /// Runs whose notes are still in the store.
    pub fn runs_with_notes(&self) -> Vec<i64> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let store = Store::open(&self.store, self.project.path()).await.expect("the store");
            let generations = store.last_generation(1).await.expect("the sync's generations");
            let mut noted = Vec::new();
            for RunRecord { id: run, .. } in store.runs(None, 10_000).await.expect("its runs") {
                for generation in 0..=generations {
                    let notes = store.notes(DeliveryId { run, generation }).await.expect("its notes");
                    noted.extend((!notes.is_empty()).then_some(run));
                }
            }
            noted
        })
    }
}

/// Starts the sync with the shipped binary, wherever the project lies.
pub fn start_in(project: &Project, more: &[&str]) -> Started {
    Started(Running::start(project.command_of(levin_binary(), &[], &[RUN, more].concat())))
}

/// A process under way; killed when dropped.
pub struct Started(Running);

impl Started {
    pub fn pid(&self) -> Pid {
        self.0.pid()
    }

    pub fn signal(&self, signal: Signal) {
        self.0.signal(signal);
    }

    pub fn is_running(&mut self) -> bool {
        self.0.is_running()
    }

    /// Waits for its end.
    pub fn wait(self) -> Ran {
        self.0.ended().into()
    }
}

fn number(text: &Option<String>) -> i64 {
    text.as_deref().and_then(|text| text.parse().ok()).expect("a number")
}

pub fn without_nulls(fields: &mut Value) {
    if let Some(fields) = fields.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
}

/// Whether the whole product of cases is asked for.
pub fn is_long() -> bool {
    std::env::var_os("LEVIN_LONG").is_some_and(|value| !value.is_empty() && value != "0")
}
