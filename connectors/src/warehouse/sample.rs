//! The sample warehouse of `levin init --example`: a DuckDB file with a table of customers.

use std::path::Path;

use duckdb::{Config, Connection};

use super::{ErrorKind, WarehouseError};

/// The file's name.
pub const FILE: &str = "warehouse.duckdb";

/// How many customers it holds.
pub const ROWS: u64 = 1_000;

/// The same rows on every machine: each value follows from the row's number.
const CUSTOMERS: &str = "
create table customers as
select
    id,
    lower(first_name) || '.' || lower(last_name) || id || '@example.com' as email,
    first_name,
    last_name,
    country,
    (((id * 7919) % 500000) / 100.0)::decimal(10, 2) as ltv,
    date '2023-01-01' + ((id * 37) % 1000)::integer as signed_up_on,
    id % 7 <> 0 as active
from (
    select
        n::integer as id,
        ['Ada', 'Ben', 'Chloé', 'Dmitri', 'Elif', 'Farid', 'Grace', 'Hiro', 'Inés', 'Jonas'][n % 10 + 1] as first_name,
        ['Okafor', 'Smith', 'Müller', 'Tanaka', 'Silva', 'Novak', 'Haddad'][n % 7 + 1] as last_name,
        case when n % 20 = 0 then null else ['DE', 'US', 'JP', 'BR', 'FR'][n % 5 + 1] end as country
    from range(1, 1001) numbers(n)
)
order by id";

/// Makes the file and returns how many rows its table `customers` holds. A file that is there
/// already is an error of kind [`ErrorKind::AlreadyExists`] and stays as it is.
pub fn create_sample(path: &Path) -> Result<u64, WarehouseError> {
    if path.symlink_metadata().is_ok() {
        let message = format!("`{}` is already there", path.display());
        return Err(WarehouseError::new(ErrorKind::AlreadyExists, message));
    }
    fill(path).map_err(|error| {
        // Half a sample would stand in the way of the next try.
        let _ = std::fs::remove_file(path);
        WarehouseError::new(ErrorKind::Other, format!("the sample data cannot be written: {error}"))
    })
}

fn fill(path: &Path) -> Result<u64, duckdb::Error> {
    // Without this the engine may look for extensions on the network.
    let config = Config::default().with("autoinstall_known_extensions", "false")?;
    let connection = Connection::open_with_flags(path, config)?;
    connection.execute_batch(CUSTOMERS)?;
    let rows = connection.query_row("select count(*) from customers", [], |row| row.get(0))?;
    connection.close().map_err(|(_, error)| error)?;
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_the_same_rows_every_time_and_overwrites_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let digest = |name: &str| -> (i64, i64, i64, String, String) {
            let path = folder.path().join(name);
            assert_eq!(create_sample(&path).unwrap(), ROWS);
            let connection = Connection::open(&path).unwrap();
            connection
                .query_row(
                    "select count(*), count(distinct id), count(country), sum(ltv)::varchar,
                            md5(string_agg(customers::varchar, ',' order by id)) from customers",
                    [],
                    |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)),
                )
                .unwrap()
        };
        let first = digest("a.duckdb");
        assert_eq!((first.0, first.1, first.2), (1_000, 1_000, 950));
        assert_eq!(first, digest("b.duckdb"));

        let before = std::fs::read(folder.path().join("a.duckdb")).unwrap();
        let error = create_sample(&folder.path().join("a.duckdb")).unwrap_err();
        assert_eq!(error.kind, ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(folder.path().join("a.duckdb")).unwrap(), before);
        assert!(create_sample(&folder.path().join("no/such/folder.duckdb")).is_err());
    }
}
