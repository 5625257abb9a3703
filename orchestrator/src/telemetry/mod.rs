//! What levin tells of itself to whoever runs it: lines of log, figures, and traces. Never a row value, never a secret.

pub mod logs;
pub mod metrics;
pub mod traces;

pub use logs::{LOG_VARIABLE, LogFormat, init, of_run};
