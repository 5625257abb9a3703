//! One suite for every warehouse. A further warehouse is one more entry in [`on_every_warehouse`]
//! and one more constructor of [`Bench`].

mod bigquery;
mod cloud;
mod databricks;
mod laws;
mod lease;
mod life;
mod looking;
mod oracle;
mod random;
mod redshift;
mod rejections;
mod reshape;
mod trial;
mod values;
mod waivers;

use std::path::Path;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use connectors::catalogue::{BuildContext, SOURCES};
use connectors::warehouse::{Session, Tag, Warehouse};
use futures::TryStreamExt;
use serde_json::{Value, json};
use sql_templates::{Atomicity, Expect, Folding, Script, Sql, Step};
use tests::bigquery::BigqueryDouble;
use tests::databricks::DatabricksDouble;
use tests::mariadb::{self, MariadbServer};
use tests::postgres::PostgresServer;
use tests::redshift::RedshiftDouble;
use tests::snowflake::SnowflakeDouble;

/// A live warehouse with an empty database, and a way to prepare what models read.
#[derive(Clone)]
pub struct Bench {
    /// The driver under test.
    pub warehouse: Arc<dyn Warehouse>,
    /// The managed schemas.
    pub planner_schema: String,
    pub audit_schema: String,
    /// Holds the database's file, where there is one.
    folder: Option<Arc<tempfile::TempDir>>,
}

impl Bench {
    /// A project of the double, with a dataset for what models read.
    fn bigquery() -> Self {
        let double = BigqueryDouble::start();
        let project = double.fresh_project();
        double.make_dataset(&project, "d");
        let config = json!({"project": project, "endpoint": double.url(), "auth": "none", "dataset": "d", "location": "US"});
        Self::of(source("bigquery", config, Path::new("/")), None)
    }

    fn databricks() -> Self {
        let mut config = DatabricksDouble::start().fresh_workspace().source();
        config.as_object_mut().expect("keys").remove("type");
        Self::of(source("databricks", config, Path::new("/")), None)
    }

    fn duckdb() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("wh.duckdb");
        duckdb::Connection::open(file).expect("a new database").close().expect("closed again");
        let warehouse = source("duckdb", json!({"path": "wh.duckdb"}), folder.path());
        Self::of(warehouse, Some(Arc::new(folder)))
    }

    /// For tests of very many statements: a file would be opened for each of them.
    fn duckdb_in_memory() -> Self {
        Self::of(source("duckdb", json!({"path": ":memory:"}), Path::new("/")), None)
    }

    fn postgres() -> Self {
        let url = PostgresServer::start().fresh_database();
        Self::of(source("postgres", json!({"url": url}), Path::new("/")), None)
    }

    /// A database of the double.
    fn redshift() -> Self {
        let url = RedshiftDouble::start().fresh_database().url;
        Self::of(source("redshift", json!({"url": url}), Path::new("/")), None)
    }

    fn mariadb() -> Self {
        let server = MariadbServer::start();
        let database = server.fresh_database();
        let warehouse = source("mariadb", json!({"url": server.url(&database)}), Path::new("/"));
        // Schemas are databases of the whole server.
        let (planner_schema, audit_schema) = (format!("{database}_planner"), format!("{database}_audit"));
        Self { planner_schema, audit_schema, ..Self::of(warehouse, None) }
    }

    fn of(warehouse: Arc<dyn Warehouse>, folder: Option<Arc<tempfile::TempDir>>) -> Self {
        let (planner_schema, audit_schema) = ("levin_planner".to_owned(), "levin_audit".to_owned());
        Self { warehouse, planner_schema, audit_schema, folder }
    }

    fn snowflake() -> Self {
        let mut config = SnowflakeDouble::start().fresh_user().source();
        config.as_object_mut().expect("keys").remove("type");
        Self::of(source("snowflake", config, Path::new("/")), None)
    }

    /// A DuckDB file as it would be found after a crash now, with its log, holds what the engine holds.
    ///
    /// DuckDB 1.5 reads some logs otherwise than they were written: what was deleted from a table, or updated in it, that the
    /// same transaction renamed afterwards is there again.
    async fn assert_survives_a_crash(&self, session: &mut dyn Session) {
        let Some(folder) = &self.folder else { return };
        let copy = tempfile::tempdir().expect("a temporary folder");
        for file in ["wh.duckdb", "wh.duckdb.wal"] {
            let from = folder.path().join(file);
            if from.exists() {
                std::fs::copy(&from, copy.path().join(file)).expect("a copy");
            }
        }
        let found = duckdb::Connection::open(copy.path().join("wh.duckdb")).expect("the log can be read");
        let tables = "select table_schema || '.' || table_name from information_schema.tables \
                      where table_schema like 'levin%' order by 1";
        let mut names = Vec::new();
        for batch in rows(session, tables).await {
            names.extend(batch.column(0).as_string::<i32>().iter().flatten().map(str::to_owned));
        }
        for name in names {
            let (schema, table) = name.split_once('.').expect("two names");
            let content = format!(
                "select cast(count(*) as text) || ' ' || coalesce(cast(sum(hash(t)) as text), '') \
                 from \"{schema}\".\"{}\" as t",
                table.replace('"', "\"\"")
            );
            let here = rows(session, &content).await[0].column(0).as_string::<i32>().value(0).to_owned();
            let there: String = found
                .query_row(&content, [], |row| row.get(0))
                .unwrap_or_else(|e| panic!("{name} after a crash: {e}"));
            assert_eq!(here, there, "{name}: rows and their hashes, here and after a crash");
        }
    }

    /// How the engine has a name that was written in lower case and without quotes; Redshift folds those in quotes too.
    pub fn folded(&self, name: &str) -> String {
        if self.engine() == "redshift" {
            return name.to_lowercase();
        }
        match self.warehouse.dialect().facts().folds_to {
            Folding::Upper => name.to_uppercase(),
            _ => name.to_owned(),
        }
    }

    /// The dialect's name, for what the engines spell differently.
    pub fn engine(&self) -> &'static str {
        self.warehouse.dialect().name()
    }

    /// A name in the engine's quotes.
    pub fn quoted(&self, name: &str) -> String {
        let quote = self.warehouse.dialect().facts().identifier_quote;
        format!("{quote}{name}{quote}")
    }

    /// Statements of the suite in the engine's spelling: they quote names and cast as most engines do.
    pub fn spelled(&self, statement: &str) -> String {
        match self.engine() {
            "bigquery" | "databricks" => tests::bigquery::spoken(statement),
            "mariadb" => mariadb::spelled(statement),
            _ => statement.to_owned(),
        }
    }

    /// A value of one of the engine's types.
    pub fn of_type(&self, value: &str, engine_type: &str) -> String {
        match self.engine() {
            // Only some types can be cast to; columns take a value as their own.
            "mariadb" => value.to_owned(),
            _ => format!("cast({value} as {engine_type})"),
        }
    }

    /// A session of its own.
    pub async fn session(&self) -> Box<dyn Session> {
        let tag = Tag { sync: "conformance".into(), run: Some(1), stage: "diff" };
        self.warehouse.session(&tag).await.expect("a session")
    }

    /// Runs statements that prepare what a model reads, all or none.
    pub async fn setup(&self, statements: &[&str]) {
        let step = |text: &&str| Step {
            name: "setup".into(),
            sql: Sql::for_tests(&self.spelled(text)),
            expect: Expect::Any,
        };
        let atomicity = match self.warehouse.dialect().facts().undoes_ddl {
            true => Atomicity::Transaction,
            false => Atomicity::Separate,
        };
        let script = Script { steps: statements.iter().map(step).collect(), atomicity };
        self.session().await.execute(&script).await.unwrap_or_else(|e| panic!("{e}\n{statements:#?}"));
    }
}

async fn rows(session: &mut dyn Session, select: &str) -> Vec<RecordBatch> {
    let stream = session.query(&Sql::for_tests(select)).await.unwrap_or_else(|e| panic!("{e}: {select}"));
    stream.try_collect().await.unwrap_or_else(|e| panic!("{e}: {select}"))
}

fn source(kind: &str, config: Value, project: &Path) -> Arc<dyn Warehouse> {
    let connector = SOURCES.iter().find(|s| s.name == kind).expect("the catalogue knows this kind of source");
    let context = BuildContext { slug: "wh".into(), project: project.to_owned(), secrets: Vec::new() };
    (connector.build)(config, &context).expect("a warehouse")
}

/// Makes a test of each named function for every warehouse.
macro_rules! on_every_warehouse {
    ($($test:ident),* $(,)?) => {
        $crate::warehouse::on_every_warehouse!(duckdb: $($test),*);
    };
    ($duckdb:ident: $($test:ident),* $(,)?) => {
        mod bigquery {
            $(#[tokio::test]
            async fn $test() {
                let bench = crate::warehouse::Bench::bigquery();
                crate::warehouse::bigquery::waived_or(stringify!($test), super::$test(bench)).await;
            })*
        }
        mod cloud {
            $(mod $test {
                #[tokio::test]
                #[ignore = "needs an account"]
                async fn bigquery() {
                    crate::warehouse::cloud::on("bigquery", super::super::$test).await;
                }

                #[tokio::test]
                #[ignore = "needs an account"]
                async fn databricks() {
                    crate::warehouse::cloud::on("databricks", super::super::$test).await;
                }

                #[tokio::test]
                #[ignore = "needs an account"]
                async fn redshift() {
                    crate::warehouse::cloud::on("redshift", super::super::$test).await;
                }

                #[tokio::test]
                #[ignore = "needs an account"]
                async fn snowflake() {
                    crate::warehouse::cloud::on("snowflake", super::super::$test).await;
                }
            })*
        }
        mod databricks {
            $(#[tokio::test]
            async fn $test() {
                let trial = super::$test(crate::warehouse::Bench::databricks());
                crate::warehouse::waivers::held(crate::warehouse::waivers::DATABRICKS, stringify!($test), trial).await;
            })*
        }
        mod duckdb {
            $(#[tokio::test]
            async fn $test() {
                super::$test(crate::warehouse::Bench::$duckdb()).await;
            })*
        }
        mod mariadb {
            $(#[tokio::test]
            async fn $test() {
                super::$test(crate::warehouse::Bench::mariadb()).await;
            })*
        }
        mod postgres {
            $(#[tokio::test]
            async fn $test() {
                super::$test(crate::warehouse::Bench::postgres()).await;
            })*
        }
        mod redshift {
            $(#[tokio::test]
            async fn $test() {
                let trial = super::$test(crate::warehouse::Bench::redshift());
                crate::warehouse::waivers::held(crate::warehouse::waivers::REDSHIFT, stringify!($test), trial).await;
            })*
        }
        mod snowflake {
            $(#[tokio::test]
            async fn $test() {
                let trial = super::$test(crate::warehouse::Bench::snowflake());
                crate::warehouse::waivers::held(crate::warehouse::waivers::SNOWFLAKE, stringify!($test), trial).await;
            })*
        }
    };
}
pub(crate) use on_every_warehouse;
