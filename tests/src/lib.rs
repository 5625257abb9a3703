//! What several of the tests here start or read.

pub mod postgres;
pub mod project;
pub mod receiver;
pub mod terminal;
