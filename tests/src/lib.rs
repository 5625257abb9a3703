//! What several of the tests here start or read.

pub mod bigquery;
pub mod databricks;
pub mod front;
pub mod mariadb;
pub mod outcomes;
pub mod postgres;
pub mod process;
pub mod project;
pub mod receiver;
pub mod redshift;
pub mod seeds;
pub mod service;
pub mod snowflake;
pub mod stores;
pub mod terminal;

/// Runs each of these functions of an [`project::Engine`] once per warehouse, each as a test of its own.
#[macro_export]
macro_rules! on_both_warehouses {
    ($($test:ident),* $(,)?) => {
        $(mod $test {
            #[test]
            fn duckdb() {
                super::$test($crate::project::Engine::DuckDb);
            }

            #[test]
            fn postgres() {
                super::$test($crate::project::Engine::Postgres);
            }
        })*
    };
}

/// Runs each of these functions of an [`project::Engine`] on a warehouse that undoes no change of its tables.
#[macro_export]
macro_rules! on_mariadb_too {
    ($($test:ident),* $(,)?) => {
        mod on_mariadb {
            $(#[test]
            fn $test() {
                super::$test($crate::project::Engine::MariaDb);
            })*
        }
    };
}
