//! `levin serve` as its users meet it.

#[path = "service/unattended.rs"]
mod unattended;
