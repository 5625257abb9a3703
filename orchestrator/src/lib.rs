//! The orchestrator: decides what runs, never how it talks.

pub mod error;
pub mod mapping;
pub mod project;
pub mod redact;
pub mod store;
pub mod suggestion;
