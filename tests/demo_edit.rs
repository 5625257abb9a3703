//! `demo-edit FILE STATEMENT`: changes the demo's DuckDB warehouse, where no DuckDB shell is at hand.

use std::path::Path;
use std::process::ExitCode;

use duckdb::{AccessMode, Config, Connection};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(file), Some(statement), None) = (arguments.next(), arguments.next(), arguments.next()) else {
        eprintln!("usage: demo-edit FILE STATEMENT");
        return ExitCode::from(64);
    };
    match edit(Path::new(&file), &statement) {
        Ok(rows) => {
            println!("{rows} row(s)");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {file}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Executes one statement; how many rows it changed.
fn edit(file: &Path, statement: &str) -> Result<usize, Box<dyn std::error::Error>> {
    if !file.is_file() {
        return Err("there is no such file".into());
    }
    let config = Config::default()
        .access_mode(AccessMode::ReadWrite)?
        .with("autoinstall_known_extensions", "false")?;
    let connection = Connection::open_with_flags(file, config)?;
    let rows = connection.execute(statement, [])?;
    connection.close().map_err(|(_, error)| error)?;
    Ok(rows)
}
