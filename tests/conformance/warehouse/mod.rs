//! One suite for every warehouse. A further warehouse is one more entry in [`on_every_warehouse`]
//! and one more constructor of [`Bench`].

mod laws;
mod lease;
mod life;
mod looking;
mod oracle;
mod random;
mod reshape;
mod trial;
mod values;
mod waivers;

use std::path::Path;
use std::sync::Arc;

use connectors::catalogue::{BuildContext, SOURCES};
use connectors::warehouse::{Session, Tag, Warehouse};
use serde_json::{Value, json};
use sql_templates::{Atomicity, Expect, Folding, Script, Sql, Step};
use tests::postgres::PostgresServer;
use tests::snowflake::SnowflakeDouble;

/// A live warehouse with an empty database, and a way to prepare what models read.
#[derive(Clone)]
pub struct Bench {
    /// The driver under test.
    pub warehouse: Arc<dyn Warehouse>,
    /// Holds the database's file, where there is one.
    _folder: Option<Arc<tempfile::TempDir>>,
}

impl Bench {
    fn duckdb() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("wh.duckdb");
        duckdb::Connection::open(file).expect("a new database").close().expect("closed again");
        let warehouse = source("duckdb", json!({"path": "wh.duckdb"}), folder.path());
        Self { warehouse, _folder: Some(Arc::new(folder)) }
    }

    /// For tests of very many statements: a file would be opened for each of them.
    fn duckdb_in_memory() -> Self {
        Self { warehouse: source("duckdb", json!({"path": ":memory:"}), Path::new("/")), _folder: None }
    }

    fn postgres() -> Self {
        let url = PostgresServer::start().fresh_database();
        Self { warehouse: source("postgres", json!({"url": url}), Path::new("/")), _folder: None }
    }

    fn snowflake() -> Self {
        let mut config = SnowflakeDouble::start().fresh_user().source();
        config.as_object_mut().expect("keys").remove("type");
        Self { warehouse: source("snowflake", config, Path::new("/")), _folder: None }
    }

    /// How the engine has a name that was written in lower case and without quotes.
    pub fn folded(&self, name: &str) -> String {
        match self.warehouse.dialect().facts().folds_to {
            Folding::Upper => name.to_uppercase(),
            _ => name.to_owned(),
        }
    }

    /// The dialect's name, for what the engines spell differently.
    pub fn engine(&self) -> &'static str {
        self.warehouse.dialect().name()
    }

    /// A session of its own.
    pub async fn session(&self) -> Box<dyn Session> {
        let tag = Tag { sync: "conformance".into(), run: Some(1), stage: "diff" };
        self.warehouse.session(&tag).await.expect("a session")
    }

    /// Runs statements that prepare what a model reads, all or none.
    pub async fn setup(&self, statements: &[&str]) {
        let step =
            |text: &&str| Step { name: "setup".into(), sql: Sql::for_tests(text), expect: Expect::Any };
        let script =
            Script { steps: statements.iter().map(step).collect(), atomicity: Atomicity::Transaction };
        self.session().await.execute(&script).await.unwrap_or_else(|e| panic!("{e}\n{statements:#?}"));
    }
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
        mod duckdb {
            $(#[tokio::test]
            async fn $test() {
                super::$test(crate::warehouse::Bench::$duckdb()).await;
            })*
        }
        mod postgres {
            $(#[tokio::test]
            async fn $test() {
                super::$test(crate::warehouse::Bench::postgres()).await;
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
