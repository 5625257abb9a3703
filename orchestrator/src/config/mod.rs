//! Project files: read, checked as a whole, and turned into a [`Project`].
//!
//! The way of a file: text → tree with lines (`yaml`) → `${…}` read (`secrets`) → shape checked
//! against the schema of its kind and connector (`shape`) → written form (`file`) → checked
//! against the other files and made into specs (`resolve`). Every step reports all that it finds.

mod alerts;
mod bounds;
mod dbt;
mod file;
mod finding;
mod load;
mod lock;
mod mapping;
mod resolve;
mod schedule;
mod schema;
mod secrets;
mod shape;
#[cfg(test)]
mod tests;
mod written;
mod yaml;

use crate::project::Project;

/// The folders of a project's files.
pub const PROJECT_FOLDERS: [&str; 7] =
    ["sources", "models", "destinations", "syncs", "sequences", "channels", "hooks"];

pub use finding::{Finding, Severity, verdict};
pub use load::{PROJECT_FILE, load};
pub use lock::FILE as LOCK_FILE;
pub use schedule::duration;
pub(crate) use schema::dereferenced;

pub use schema::{Kind, published, published_together};
pub use secrets::Environment;
pub use written::{as_yaml, read_as_written};

/// How a project is loaded.
#[derive(Clone, Copy)]
pub struct LoadOptions<'a> {
    /// Whether secrets that cannot be read are worth only a warning. Then there is no project to
    /// run when one is missing, but everything else is checked.
    pub offline: bool,
    /// Where `${NAME}` are read from.
    pub environment: Environment<'a>,
}

/// What loading came to.
#[derive(Debug)]
pub struct Loaded {
    /// Everything that is wrong or looks wrong, by file and line.
    pub findings: Vec<Finding>,
    /// The project; `None` when there are mistakes, or when a secret was not there (`offline`).
    pub project: Option<Project>,
}
