//! The commands: one file each, with its arguments and what it does.

use std::path::PathBuf;

use crate::catalogue::Catalogue;
use crate::config::{self, LoadOptions, Loaded};
use crate::error::Error;
use crate::project::Project;
use crate::redact::Redactor;
use crate::report::Report;

pub mod apply;
pub mod check;
pub mod completion;
pub mod connectors;
pub mod explain;
pub mod gc;
pub mod grants;
pub mod health;
pub mod init;
pub mod keys;
pub mod plan;
pub mod preview;
pub mod rejected;
pub mod run;
pub mod runs;
pub mod schema;
pub mod serve;
pub mod sql;
pub mod test_row;

/// What every command may use.
#[derive(Debug, Clone)]
pub struct Context {
    /// The project's folder (`--project`).
    pub root: PathBuf,
    /// What levin can talk to.
    pub catalogue: Catalogue,
    /// The secrets known so far; loading a project adds its own.
    pub redactor: Redactor,
    /// Where everything is printed.
    pub report: Report,
}

impl Context {
    /// Reads the project's files as they lie there now.
    pub fn read(&self, offline: bool) -> Result<Loaded, Error> {
        let environment = |name: &str| std::env::var(name).ok();
        let options = LoadOptions { offline, environment: &environment };
        config::load(&self.root, &self.catalogue, &self.redactor, options)
    }

    /// Loads the project and prints what was found.
    pub fn load(&self, offline: bool) -> Result<Loaded, Error> {
        let loaded = self.read(offline)?;
        for finding in &loaded.findings {
            self.report.finding(finding);
        }
        Ok(loaded)
    }

    /// The project, ready to run. Mistakes and warnings are printed; a mistake is an error.
    pub fn project(&self) -> Result<Project, Error> {
        let loaded = self.load(false)?;
        match config::verdict(&loaded.findings) {
            Some(error) => Err(error),
            None => loaded.project.ok_or_else(|| {
                Error::new(crate::error::ErrorCode::Internal, "the project was found right and yet not made")
            }),
        }
    }
}
