//! What every warehouse must do with the rendered statements, and every destination with rows: on real ones.

#[path = "conformance/destination/mod.rs"]
mod destination;
#[path = "conformance/warehouse/mod.rs"]
mod warehouse;
