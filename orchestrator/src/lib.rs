//! Decides what runs, never how it talks: the commands, project files and runs of levin.

#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)]

pub mod alert;
pub mod catalogue;
pub mod check;
pub mod cli;
pub mod command;
pub mod config;
pub mod error;
pub mod failpoints;
pub mod fields;
pub mod grants;
pub mod mapping;
pub mod project;
pub mod redact;
pub mod report;
pub mod run;
pub mod schedule;
pub mod serve;
pub mod server;
pub mod store;
mod suggestion;
pub mod telemetry;
