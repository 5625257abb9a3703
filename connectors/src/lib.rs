//! Everything in levin that talks to the outside: warehouses and destinations.

#![warn(missing_docs, unreachable_pub)]

pub mod catalogue;
pub mod change;
pub mod destination;
pub mod duration;
pub mod http;
pub mod json;
pub mod outcome;
mod postgres_client;
pub mod retry;
pub mod template;
pub mod warehouse;
