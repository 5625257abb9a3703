//! What every warehouse must do with the rendered statements, on the real engines.

#[path = "conformance/warehouse/mod.rs"]
mod warehouse;
