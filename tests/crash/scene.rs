//! A project on a real warehouse with a destination that the test can look into.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};
use tests::postgres::{self, PostgresServer};

use crate::receiver::{BAD, Receiver};

/// The engine of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    DuckDb,
    Postgres,
}

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
    folder: tempfile::TempDir,
    warehouse: String,
    copy: String,
    store: String,
}

/// How a process ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
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

/// The longest that one command may take; far beyond what any takes.
const PATIENCE: Duration = Duration::from_secs(180);

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
        let engine = if database.is_some() { Engine::Postgres } else { Engine::DuckDb };
        let folder = tempfile::Builder::new().prefix("levin-crash-").tempdir().expect("a folder");
        let receiver = Receiver::start();
        let warehouse = database.unwrap_or_else(|| {
            let path = folder.path().join("warehouse.duckdb");
            duckdb::Connection::open(&path).expect("a new DuckDB file");
            path.display().to_string()
        });
        let copy =
            if target == Target::Postgres { PostgresServer::start().fresh_database() } else { String::new() };
        let scene = Self {
            engine,
            target,
            receiver,
            model: People::new(),
            has_note: false,
            folder,
            warehouse,
            copy,
            store: "sqlite://.levin/store.db".to_owned(),
        };
        let source = match engine {
            Engine::DuckDb => "type: duckdb\npath: warehouse.duckdb\n".to_owned(),
            Engine::Postgres => format!("type: postgres\nurl: {}\n", scene.warehouse),
        };
        let (to, sync) = match target {
            Target::Http => (
                format!(
                    "type: http_request\nbase_url: {}\nallow_private_networks: true\nretries: 0\nconcurrency: {CONCURRENCY}\n{destination}",
                    scene.receiver.url()
                ),
                format!("mode: mirror\neach: {{method: POST, path: /rows, batch_size: {BATCH}}}\n"),
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
        scene.write("sources/wh.yml", &source);
        scene.write("models/people.yml", "source: wh\nprimary_key: id\nsql: select * from people\n");
        scene.write("destinations/to.yml", &to);
        scene.write("syncs/people.yml", &format!("model: people\ndestination: to\n{sync}"));
        scene.sql("create table people (id bigint, email text, score bigint)");
        scene
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    pub fn write(&self, relative: &str, content: &str) {
        let path = self.path(relative);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("make a folder");
        std::fs::write(path, content).expect("write a project file");
    }

    /// The address of the source's database, for a superuser.
    pub fn warehouse_url(&self) -> &str {
        assert_eq!(self.engine, Engine::Postgres);
        &self.warehouse
    }

    /// The store lies there from now on, for whoever runs the project.
    pub fn keep_store_at(&mut self, url: &str) {
        url.clone_into(&mut self.store);
        self.write("levin.yml", &format!("name: crash\nstore: {url}\nlease: 60s\n"));
    }

    /// The DuckDB file lies elsewhere from now on.
    pub fn move_warehouse(&mut self, path: &Path) {
        self.warehouse = path.display().to_string();
        self.write("sources/wh.yml", &format!("type: duckdb\npath: {}\n", self.warehouse));
    }

    pub fn sql(&self, statements: &str) {
        match self.engine {
            Engine::Postgres => postgres::run(&self.warehouse, statements),
            Engine::DuckDb => {
                let connection = duckdb::Connection::open(&self.warehouse).expect("the DuckDB file");
                connection.execute_batch(statements).unwrap_or_else(|e| panic!("{statements}: {e}"));
            }
        }
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
        let select = "select table_name from information_schema.tables where table_schema = 'levin_planner' order by 1";
        match self.engine {
            Engine::Postgres => {
                query(&self.warehouse, select).into_iter().filter_map(|mut row| row.remove(0)).collect()
            }
            Engine::DuckDb => {
                let connection = duckdb::Connection::open(&self.warehouse).expect("the DuckDB file");
                let mut statement = connection.prepare(select).expect("a statement");
                let names = statement.query_map([], |row| row.get(0)).expect("the tables");
                names.collect::<Result<_, _>>().expect("their names")
            }
        }
    }

    /// Runs the shipped binary.
    pub fn levin(&self, arguments: &[&str]) -> Ran {
        self.start(&shipped(), arguments, &Trouble::default(), &[]).wait()
    }

    pub fn run(&self) -> Ran {
        self.levin(&["run", "people", "--json"])
    }

    /// Runs the sync with the binary that has fail points.
    pub fn run_with(&self, trouble: &Trouble<'_>, more: &[&str]) -> Ran {
        self.start_run(trouble, more).wait()
    }

    pub fn start_run(&self, trouble: &Trouble<'_>, more: &[&str]) -> Started {
        self.start(&with_failpoints(), &["run", "people", "--json"], trouble, more)
    }

    pub fn start(&self, binary: &Path, arguments: &[&str], trouble: &Trouble<'_>, more: &[&str]) -> Started {
        Self::start_in(self.folder.path(), binary, arguments, trouble, more)
    }

    /// The same project in another folder, as on another machine: it has a store of its own.
    pub fn elsewhere(&self) -> tempfile::TempDir {
        let there = tempfile::Builder::new().prefix("levin-elsewhere-").tempdir().expect("a folder");
        for part in ["levin.yml", "levin.lock.yml", "sources", "models", "destinations", "syncs"] {
            let copied = Command::new("cp").arg("-r").arg(self.path(part)).arg(there.path()).status();
            assert!(copied.expect("run cp").success(), "{part}");
        }
        if self.engine == Engine::DuckDb {
            let source = format!("type: duckdb\npath: {}\n", self.warehouse);
            std::fs::write(there.path().join("sources/wh.yml"), source).expect("write the source");
        }
        there
    }

    /// Runs the shipped binary in another folder of the project.
    pub fn start_in(
        folder: &Path,
        binary: &Path,
        arguments: &[&str],
        trouble: &Trouble<'_>,
        more: &[&str],
    ) -> Started {
        let mut command = Command::new(binary);
        command.arg("--project").arg(folder).args(arguments).args(more);
        command.env_remove("LEVIN_KILL_AT").env_remove("FAILPOINTS");
        if let Some(point) = trouble.kill_at {
            command.env("LEVIN_KILL_AT", point);
        }
        if let Some(points) = trouble.points {
            command.env("FAILPOINTS", points);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}", binary.display()));
        Started { child: Some(child) }
    }

    /// The orchestrator's disk is gone, but not the project's files.
    pub fn lose_store(&self) {
        std::fs::remove_dir_all(self.path(".levin")).expect("remove the store");
    }

    pub fn runs(&self) -> Vec<Value> {
        let listed = self.levin(&["runs", "people", "--json"]);
        assert_eq!(listed.code, Some(0), "{listed:?}");
        listed.stdout.lines().map(|line| serde_json::from_str(line).expect("a run")).collect()
    }

    /// Runs whose notes are still in the store.
    pub fn runs_with_notes(&self) -> Vec<i64> {
        let runs: Vec<i64> = self.runs().iter().filter_map(|run| run["id"].as_i64()).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let store =
                orchestrator::store::Store::open(&self.store, self.folder.path()).await.expect("the store");
            let mut noted = Vec::new();
            for run in runs {
                if !store.notes(run).await.expect("its notes").is_empty() {
                    noted.push(run);
                }
            }
            noted
        })
    }
}

/// A process under way; killed when dropped.
pub struct Started {
    child: Option<Child>,
}

impl Started {
    pub fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(self.child.as_ref().expect("a process"))
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).expect("the process is there");
    }

    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().expect("its state").is_none())
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Ran {
        let mut child = self.child.take().expect("a process");
        let pid = rustix::process::Pid::from_child(&child);
        let reader = |mut from: Box<dyn Read + Send>| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                from.read_to_end(&mut bytes).expect("its output");
                String::from_utf8_lossy(&bytes).into_owned()
            })
        };
        let stdout = reader(Box::new(child.stdout.take().expect("stdout")));
        let stderr = reader(Box::new(child.stderr.take().expect("stderr")));
        let (ended, end) = mpsc::channel();
        std::thread::spawn(move || ended.send(child.wait()));
        let Ok(status) = end.recv_timeout(PATIENCE) else {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            panic!("levin did not end within {PATIENCE:?}: {:?}", stderr.join());
        };
        let status = status.expect("its status");
        Ran {
            code: status.code(),
            signal: status.signal(),
            stdout: stdout.join().expect("stdout"),
            stderr: stderr.join().expect("stderr"),
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Rows at an address, each column as text.
pub fn query(url: &str, select: &str) -> Vec<Vec<Option<String>>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls)
            .await
            .unwrap_or_else(|e| panic!("{url}: {e}"));
        let connection = tokio::spawn(connection);
        let messages = client.simple_query(select).await.unwrap_or_else(|e| panic!("{select}: {e}"));
        drop(client);
        let _ = connection.await;
        messages
            .into_iter()
            .filter_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => {
                    Some((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect())
                }
                _ => None,
            })
            .collect()
    })
}

fn number(text: &Option<String>) -> i64 {
    text.as_deref().and_then(|text| text.parse().ok()).expect("a number")
}

pub fn without_nulls(fields: &mut Value) {
    if let Some(fields) = fields.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
}

pub fn shipped() -> PathBuf {
    binary("LEVIN_BIN", "levin", "cargo build --workspace --bins")
}

pub fn with_failpoints() -> PathBuf {
    binary(
        "LEVIN_FAILPOINTS_BIN",
        "failpoints/debug/levin",
        "cargo build --workspace --bins --features orchestrator/failpoints --target-dir TARGET/failpoints",
    )
}

/// The binary that a variable names, else the one beside this test's own folder.
fn binary(variable: &str, fallback: &str, build: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let test = std::env::current_exe().expect("the test's own path");
    let found =
        test.ancestors().skip(1).take(4).map(|folder| folder.join(fallback)).find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!("{variable} is not set and there is no {fallback}; `./test` builds it, or: {build}")
    })
}

/// Whether the whole product of cases is asked for.
pub fn is_long() -> bool {
    std::env::var_os("LEVIN_LONG").is_some_and(|value| !value.is_empty() && value != "0")
}
