//! A project on a real warehouse, and the real `levin` that runs it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::bigquery::{BigqueryDouble, spoken};
use crate::databricks::{DatabricksDouble, DatabricksWorkspace};
use crate::mariadb::{self, MariadbServer};
use crate::postgres::{self, PostgresServer};
pub use crate::process::{Ended, Running, levin_binary, levin_with_failpoints};
use crate::receiver::Receiver;
use crate::redshift::RedshiftDouble;
use crate::terminal;

/// The kinds of warehouse that scenarios run on: all of them on the first two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// A DuckDB file.
    DuckDb,
    /// A database of a PostgreSQL server.
    Postgres,
    /// A database of a MariaDB server, which undoes nothing that makes or drops tables. Statements and models are
    /// written as for PostgreSQL and spelled anew.
    MariaDb,
    /// A project of BigQuery's double, with the dataset `d`. Statements and models are spelled anew here too.
    BigQuery,
    /// A database of Redshift's double. The tests' own statements go behind its wire, to PostgreSQL.
    Redshift,
    /// A workspace of Databricks' double. Statements and models are spelled anew as for BigQuery.
    Databricks,
}

/// A project in a folder of its own, with a warehouse of its own.
#[derive(Debug)]
pub struct Project {
    folder: tempfile::TempDir,
    engine: Engine,
    /// The address of the warehouse's database, or the path of its file.
    warehouse: String,
    /// The workspace of Databricks' double, where the warehouse is one.
    workspace: Option<DatabricksWorkspace>,
    /// The managed schemas.
    schemas: [String; 2],
    environment: Vec<(String, String)>,
}

/// How a run ended, as `run --json` tells it.
#[derive(Debug)]
pub struct Run {
    /// The exit code.
    pub code: i32,
    /// The report.
    pub report: Value,
    /// Standard error.
    pub stderr: String,
}

/// Counts of added, changed and removed rows.
pub type Counts = [u64; 3];

impl Project {
    /// A project with an empty warehouse, which its files call `wh`.
    ///
    /// # Panics
    /// When the warehouse cannot be made.
    pub fn new(engine: Engine) -> Self {
        match engine {
            Engine::DuckDb => Self::with_warehouse(engine, None),
            Engine::BigQuery => Self::on_bigquery(),
            Engine::Databricks => Self::on_databricks(),
            Engine::MariaDb => Self::on_mariadb(),
            Engine::Redshift => Self::on_redshift(),
            Engine::Postgres => Self::on_postgres(PostgresServer::start().fresh_database()),
        }
    }

    fn on_bigquery() -> Self {
        let double = BigqueryDouble::start();
        let warehouse = double.fresh_project();
        double.make_dataset(&warehouse, "d");
        let project = Self::with_warehouse(Engine::BigQuery, Some(warehouse));
        let name = project.warehouse.clone();
        project.with_variable("WAREHOUSE_PROJECT", &name).with_variable("WAREHOUSE_URL", &double.url())
    }

    fn on_redshift() -> Self {
        let database = RedshiftDouble::start().fresh_database();
        let project = Self::with_warehouse(Engine::Redshift, Some(database.behind));
        project.with_variable("WAREHOUSE_URL", &database.url)
    }

    fn on_databricks() -> Self {
        let workspace = DatabricksDouble::start().fresh_workspace();
        let mut project = Self::with_warehouse(Engine::Databricks, Some(workspace.warehouse.clone()));
        let mut source = workspace.source();
        source["auth"] = json!({"token": "${DATABRICKS_TOKEN}"});
        project.write("sources/wh.yml", &source.to_string());
        let token = workspace.token.clone();
        project.workspace = Some(workspace);
        project.with_variable("DATABRICKS_TOKEN", &token)
    }

    /// The workspace of Databricks' double.
    ///
    /// # Panics
    /// When the warehouse is none.
    pub fn workspace(&self) -> &DatabricksWorkspace {
        self.workspace.as_ref().expect("a workspace of Databricks' double")
    }

    fn on_mariadb() -> Self {
        let server = MariadbServer::start();
        let database = server.fresh_database();
        let mut project = Self::with_warehouse(Engine::MariaDb, Some(server.url(&database)));
        // Schemas are databases of the whole server.
        project.schemas = [format!("{database}_planner"), format!("{database}_audit")];
        let [planner, audit] = &project.schemas;
        project.write(
            "sources/wh.yml",
            &format!(
                "type: mariadb\nurl: ${{WAREHOUSE_URL}}\nplanner_schema: {planner}\naudit_schema: {audit}\n"
            ),
        );
        project
    }

    /// A statement as the warehouse spells it.
    pub fn spelled(&self, statement: &str) -> String {
        match self.engine {
            Engine::DuckDb | Engine::Postgres | Engine::Redshift => return statement.to_owned(),
            Engine::BigQuery | Engine::Databricks => return spoken(statement),
            Engine::MariaDb => {}
        }
        let [planner, audit] = &self.schemas;
        mariadb::spelled(statement).replace("levin_planner", planner).replace("levin_audit", audit)
    }

    /// A project whose warehouse is the database at this address.
    ///
    /// # Panics
    /// When its files cannot be written.
    pub fn on_postgres(url: String) -> Self {
        Self::with_warehouse(Engine::Postgres, Some(url))
    }

    fn with_warehouse(engine: Engine, url: Option<String>) -> Self {
        let folder = tempfile::Builder::new().prefix("levin-scenario-").tempdir().expect("a folder");
        let file = folder.path().join("warehouse.duckdb");
        let warehouse = url.unwrap_or_else(|| file.to_string_lossy().into_owned());
        let schemas = ["levin_planner", "levin_audit"].map(str::to_owned);
        let project = Self { folder, engine, warehouse, workspace: None, schemas, environment: Vec::new() };
        project.write("levin.yml", "name: scenario\n");
        project.write(
            "sources/wh.yml",
            match engine {
                Engine::DuckDb => "type: duckdb\npath: warehouse.duckdb\n",
                Engine::Postgres => "type: postgres\nurl: ${WAREHOUSE_URL}\n",
                Engine::MariaDb => "type: mariadb\nurl: ${WAREHOUSE_URL}\n",
                Engine::Redshift => "type: redshift\nurl: ${WAREHOUSE_URL}\n",
                Engine::BigQuery => {
                    "type: bigquery\nproject: ${WAREHOUSE_PROJECT}\nendpoint: ${WAREHOUSE_URL}\nauth: none\ndataset: d\nlocation: US\n"
                }
                Engine::Databricks => "type: databricks\n",
            },
        );
        match engine {
            Engine::DuckDb | Engine::BigQuery | Engine::Databricks | Engine::Redshift => project,
            Engine::Postgres | Engine::MariaDb => {
                let url = project.warehouse.clone();
                project.with_variable("WAREHOUSE_URL", &url)
            }
        }
    }

    /// The same project on another machine: the same files and warehouse, and no store yet.
    ///
    /// # Panics
    /// When the files cannot be copied.
    pub fn checkout(&self) -> Self {
        let folder = tempfile::Builder::new().prefix("levin-scenario-").tempdir().expect("a folder");
        let copy = Self {
            folder,
            engine: self.engine,
            warehouse: self.warehouse.clone(),
            workspace: self.workspace.clone(),
            schemas: self.schemas.clone(),
            environment: self.environment.clone(),
        };
        let kinds = ["", "sources", "models", "destinations", "syncs"];
        for kind in kinds {
            let Ok(files) = fs::read_dir(self.path().join(kind)) else { continue };
            for file in files.map(|entry| entry.expect("a file").path()) {
                let name = file.file_name().expect("a name").to_string_lossy().into_owned();
                if file.extension().is_some_and(|extension| extension == "yml") {
                    copy.write(&format!("{kind}/{name}"), &fs::read_to_string(&file).expect("a text"));
                }
            }
        }
        if self.engine == Engine::DuckDb {
            copy.write("sources/wh.yml", &format!("type: duckdb\npath: {}\n", self.warehouse));
        }
        copy
    }

    /// The DuckDB file lies elsewhere from now on.
    ///
    /// # Panics
    /// When the source's file cannot be written.
    pub fn move_warehouse(&mut self, path: &Path) {
        assert_eq!(self.engine, Engine::DuckDb);
        self.warehouse = path.to_string_lossy().into_owned();
        self.write("sources/wh.yml", &format!("type: duckdb\npath: {}\n", self.warehouse));
    }

    /// The kind of its warehouse.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// The address of the warehouse's database, or the path of its file.
    pub fn warehouse(&self) -> &str {
        &self.warehouse
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// With an environment variable for `levin`; an older one of that name gives way.
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.set_variable(name, value);
        self
    }

    /// Sets an environment variable for `levin`.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Writes a file of the project.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().expect("a folder above")).expect("make the folder");
        fs::write(path, text).expect("write a project file");
    }

    /// Removes a file of the project.
    ///
    /// # Panics
    /// When there is none.
    pub fn remove(&self, path: &str) {
        fs::remove_file(self.path().join(path)).expect("remove a project file");
    }

    /// Forgets the store: run history, and the notes on what is under way.
    ///
    /// # Panics
    /// When there is none.
    pub fn lose_store(&self) {
        fs::remove_dir_all(self.path().join(".levin")).expect("remove the store");
    }

    /// Runs statements in the warehouse.
    ///
    /// # Panics
    /// When one of them fails.
    pub fn sql(&self, statements: &str) {
        match self.engine {
            Engine::DuckDb => {
                self.open().execute_batch(statements).unwrap_or_else(|e| panic!("{statements}: {e}"))
            }
            Engine::BigQuery => {
                for statement in statements.split(';').filter(|s| !s.trim().is_empty()) {
                    BigqueryDouble::start().texts(&self.warehouse, &spoken(statement));
                }
            }
            Engine::Databricks => {
                for statement in statements.split(';').filter(|s| !s.trim().is_empty()) {
                    self.workspace().texts(&spoken(statement));
                }
            }
            Engine::MariaDb => mariadb::run(&self.warehouse, &self.spelled(statements)),
            Engine::Postgres | Engine::Redshift => postgres::run(&self.warehouse, statements),
        }
    }

    /// The first column of a SELECT, which must be text.
    ///
    /// # Panics
    /// When the statement fails.
    pub fn texts(&self, select: &str) -> Vec<Option<String>> {
        match self.engine {
            Engine::DuckDb => {
                let connection = self.open();
                let mut statement = connection.prepare(select).unwrap_or_else(|e| panic!("{select}: {e}"));
                let rows = statement.query_map([], |row| row.get(0)).expect("rows");
                rows.collect::<Result<_, _>>().unwrap_or_else(|e| panic!("{select}: {e}"))
            }
            Engine::BigQuery => BigqueryDouble::start().texts(&self.warehouse, &spoken(select)),
            Engine::Databricks => self.workspace().texts(&spoken(select)),
            Engine::MariaDb => mariadb::texts(&self.warehouse, &self.spelled(select)),
            Engine::Postgres | Engine::Redshift => postgres::texts(&self.warehouse, select),
        }
    }

    /// Whether DuckDB left its file so that nobody can open it any more, as it does when a kill falls into its
    /// checkpoint, about once in 1,300 (connectors/README).
    pub fn is_corrupt(&self) -> bool {
        self.engine == Engine::DuckDb
            && duckdb::Connection::open(&self.warehouse)
                .is_err_and(|error| error.to_string().contains("Corrupt database file"))
    }

    fn open(&self) -> duckdb::Connection {
        duckdb::Connection::open(&self.warehouse).expect("open the warehouse")
    }

    /// Every row of every snapshot, with levin's own columns.
    pub fn snapshots(&self) -> Vec<String> {
        self.managed("%\\_snapshot")
    }

    /// Every row of the managed tables whose names are like this.
    ///
    /// # Panics
    /// When they cannot be read.
    pub fn managed(&self, like: &str) -> Vec<String> {
        let mut rows = Vec::new();
        for table in self.managed_tables(like) {
            let of_table =
                self.texts(&format!("select {} from {table} t order by 1", self.whole_row(&table)));
            rows.extend(of_table.into_iter().flatten().map(|row| format!("{table} {row}")));
        }
        rows
    }

    /// All of a row of the table `t` as one text.
    fn whole_row(&self, table: &str) -> String {
        match self.engine {
            Engine::DuckDb | Engine::Postgres | Engine::Databricks | Engine::Redshift => {
                return "cast(t as text)".to_owned();
            }
            Engine::BigQuery => return "to_json_string(t)".to_owned(),
            Engine::MariaDb => {}
        }
        let (schema, name) = table.split_once('.').expect("a schema");
        let columns = self.texts(&format!(
            "select concat('coalesce(t.`', column_name, '`, ''-'')') from information_schema.columns \
             where table_schema = '{schema}' and table_name = '{name}' order by ordinal_position"
        ));
        format!("concat_ws(',', {})", columns.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }

    fn managed_tables(&self, like: &str) -> Vec<String> {
        let [planner, audit] = &self.schemas;
        if self.engine == Engine::BigQuery {
            let ends = like.trim_start_matches('%').replace("\\_", "_");
            let tables = [audit, planner].map(|schema| {
                let names = format!("concat('{schema}.', table_name)");
                let list = format!("select {names} from {schema}.INFORMATION_SCHEMA.TABLES order by 1");
                BigqueryDouble::start().texts(&self.warehouse, &list)
            });
            return tables.into_iter().flatten().flatten().filter(|name| name.ends_with(&ends)).collect();
        }
        let tables = self.texts(&format!(
            "select cast(concat(table_schema, '.', table_name) as text) from information_schema.tables \
             where table_schema in ('{planner}', '{audit}') and table_name like '{like}' escape '\\' order by 1"
        ));
        tables.into_iter().flatten().collect()
    }

    /// Where a state says how many rows its snapshot has, it has so many.
    ///
    /// # Panics
    /// When it has not.
    pub fn assert_counted(&self) {
        for state in self.managed_tables("%\\_state") {
            let counted = "select cast(case when counted_basis = basis then counted end as text) from";
            let counted = self.texts(&format!("{counted} {state}")).into_iter().flatten().next();
            let snapshot = state.replace("_state", "_snapshot");
            if let Some(counted) = counted {
                let rows = self.texts(&format!("select cast(count(*) as text) from {snapshot}"));
                assert_eq!(rows, [Some(counted)], "what {state} says of its snapshot");
            }
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        self.command_of(levin_binary(), &[], arguments)
    }

    /// A command that is not yet started: a program, what it takes before the words for `levin`, and those.
    pub fn command_of(&self, program: impl AsRef<OsStr>, before: &[&str], arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(before).arg("--project").arg(self.path()).args(arguments);
        for name in ["RUST_BACKTRACE", "LEVIN_LOG", "LEVIN_KILL_AT", "FAILPOINTS"] {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    /// When there is no `levin`.
    pub fn levin(&self, arguments: &[&str]) -> Ended {
        Running::start(self.command(arguments)).ended()
    }

    /// Runs a command on a terminal of that kind (`TERM`), to its end. What the terminal was sent, from
    /// standard output and standard error alike, stands in `stdout`.
    ///
    /// # Panics
    /// When there is no `levin`, or no terminal.
    pub fn levin_on_terminal(&self, kind: &str, arguments: &[&str]) -> Ended {
        let mut command = self.command(arguments);
        // Whoever tests may have said of their own terminal what does not hold of this one.
        for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLUMNS", "LINES"] {
            if !self.environment.iter().any(|(known, _)| known == name) {
                command.env_remove(name);
            }
        }
        command.env("TERM", kind);
        let (code, stdout) = terminal::run(command);
        Ended { code, stdout, stderr: String::new() }
    }

    /// Starts a run of a sync, with more arguments.
    ///
    /// # Panics
    /// When there is no `levin`.
    pub fn spawn(&self, sync: &str, arguments: &[&str]) -> Running {
        Running::start(self.command(&[&["run", sync, "--json"], arguments].concat()))
    }

    /// Runs a sync; whatever its end, its counts must add up.
    pub fn run(&self, sync: &str) -> Run {
        self.run_with(sync, &[])
    }

    /// Runs a sync with more arguments; whatever its end, its counts must add up.
    pub fn run_with(&self, sync: &str, arguments: &[&str]) -> Run {
        self.spawn(sync, arguments).finish()
    }

    /// Runs every sync of the project in one process, and tells how each ended.
    ///
    /// # Panics
    /// When one has no report, or its counts do not add up.
    pub fn run_all(&self) -> BTreeMap<String, Run> {
        let Ended { code, stdout, stderr } = self.levin(&["run", "--all", "--json"]);
        let runs: Vec<Run> = lines(&stdout)
            .into_iter()
            .map(|report| Run { code, report, stderr: stderr.clone() })
            .inspect(Run::assert_adds_up)
            .collect();
        let slug = |run: &Run| run.report["syncSlug"].as_str().expect("a sync").to_owned();
        runs.into_iter().map(|run| (slug(&run), run)).collect()
    }

    /// Runs a sync that has nothing to do: no rows, no calls, no snapshot rows written (I3).
    ///
    /// # Panics
    /// When it does something.
    pub fn assert_quiet(&self, sync: &str, receiver: &Receiver) {
        self.assert_counted();
        let (calls, before) = (receiver.count(), self.snapshots());
        let run = self.run(sync);
        assert_eq!((run.code, run.status()), (0, "success"), "{run:#?}");
        assert_eq!(run.planned(), [0, 0, 0], "{run:#?}");
        assert_eq!(run.number("destinationCalls"), 0, "{run:#?}");
        assert_eq!(receiver.count(), calls, "a run with nothing to do called the destination");
        assert_eq!(self.snapshots(), before, "a run with nothing to do wrote to the snapshot");
        self.assert_counted();
    }

    /// The open rejections of a sync, as `rejected --json` tells them, in the order of their keys.
    ///
    /// # Panics
    /// When the command fails.
    pub fn rejected(&self, sync: &str) -> Vec<Value> {
        let ended = self.levin(&["rejected", sync, "--json", "--limit", "100000"]);
        assert_eq!(ended.code, 0, "{ended:?}");
        let mut rows = lines(&ended.stdout);
        rows.sort_by_key(|r| r["key"].as_str().unwrap_or_default().to_owned());
        rows
    }

    /// The history of runs, the newest first, as `runs --json` tells it.
    ///
    /// # Panics
    /// When the command fails.
    pub fn history(&self) -> Vec<Value> {
        let ended = self.levin(&["runs", "--json"]);
        assert_eq!(ended.code, 0, "{ended:?}");
        lines(&ended.stdout)
    }

    /// The plan of a sync, as `plan --json` tells it, and the exit code.
    ///
    /// # Panics
    /// When the plan fails.
    pub fn plan(&self, sync: &str, arguments: &[&str]) -> (i32, Value) {
        let ended = self.levin(&[&["plan", sync, "--json"], arguments].concat());
        let plan = lines(&ended.stdout).pop().unwrap_or_else(|| panic!("{ended:?}"));
        (ended.code, plan)
    }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

impl Running {
    /// Waits for its end; its counts must add up.
    ///
    /// # Panics
    /// When it printed no report.
    pub fn finish(self) -> Run {
        let ended = self.ended();
        let Some(report) = lines(&ended.stdout).pop() else { panic!("no report: {ended:#?}") };
        let run = Run { code: ended.code, report, stderr: ended.stderr };
        run.assert_adds_up();
        run
    }
}

impl Run {
    /// The word for how it ended.
    pub fn status(&self) -> &str {
        self.report["status"].as_str().unwrap_or_default()
    }

    /// The code of the error that ended it; empty when none did.
    pub fn error(&self) -> &str {
        self.report["error"]["code"].as_str().unwrap_or_default()
    }

    /// The error's message.
    pub fn message(&self) -> &str {
        self.report["error"]["message"].as_str().unwrap_or_default()
    }

    /// A number of the report.
    ///
    /// # Panics
    /// When it is absent or null.
    pub fn number(&self, name: &str) -> u64 {
        self.report[name].as_u64().unwrap_or_else(|| panic!("{name} of {:#}", self.report))
    }

    /// Rows to be sent.
    pub fn planned(&self) -> Counts {
        self.counts("plannedRows")
    }

    /// Rows that were accepted.
    pub fn successful(&self) -> Counts {
        self.counts("successfulRows")
    }

    /// Rows that were rejected or are in doubt.
    pub fn failed(&self) -> Counts {
        self.counts("failedRows")
    }

    /// Rows that were planned and not sent.
    pub fn aborted(&self) -> Counts {
        self.counts("abortedRows")
    }

    /// Differences that the mode does not send.
    pub fn not_sent(&self) -> Counts {
        self.counts("notSent")
    }

    fn counts(&self, name: &str) -> Counts {
        ["addedCount", "changedCount", "removedCount"].map(|operation| {
            self.report[name][operation].as_u64().unwrap_or_else(|| panic!("{name} of {:#}", self.report))
        })
    }

    /// I8.
    fn assert_adds_up(&self) {
        let ends: Counts =
            std::array::from_fn(|i| self.successful()[i] + self.failed()[i] + self.aborted()[i]);
        let planned: u64 = self.planned().iter().sum();
        let superseded = self.number("supersededCount");
        assert_eq!(planned, ends.iter().sum::<u64>() + superseded, "per operation: {:#}", self.report);
        if superseded == 0 {
            assert_eq!(self.planned(), ends, "per operation: {:#}", self.report);
        }
        let in_doubt = self.number("inDoubtCount");
        assert!(in_doubt <= self.failed().iter().sum(), "in doubt: {:#}", self.report);
        if let Some(queried) = self.report["querySize"].as_u64() {
            let parked = self.counts("parkedRows");
            assert_eq!(parked.iter().sum::<u64>(), self.number("parkedCount"), "parked: {:#}", self.report);
            let differences: u64 = (0..2).map(|i| self.planned()[i] + self.not_sent()[i] + parked[i]).sum();
            let set_aside = self.number("duplicateKeyCount") + self.number("nullKeyCount");
            let tripped = matches!(self.error(), "GUARD_TRIPPED" | "DUPLICATE_PRIMARY_KEY");
            // A run that declares everything accepted plans nothing.
            if planned > 0 || tripped || differences > 0 {
                assert_eq!(
                    queried,
                    self.number("unchangedCount") + differences + set_aside,
                    "queried: {:#}",
                    self.report
                );
            }
        }
    }
}
