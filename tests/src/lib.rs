//! What several of the tests here start or read.

pub mod postgres;
