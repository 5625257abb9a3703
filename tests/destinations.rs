//! What destinations promise, on the real thing.

#[path = "destinations/cut.rs"]
mod cut;
#[path = "destinations/postgres.rs"]
mod postgres;
#[path = "destinations/stores.rs"]
mod stores;
