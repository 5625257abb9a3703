//! Everything in levin that talks to the outside: warehouses, destinations, channels and hooks.

#![warn(missing_docs, unreachable_pub)]

pub mod catalogue;
pub mod change;
pub mod channel;
pub mod destination;
pub mod duration;
pub mod hook;
pub mod http;
pub mod json;
pub mod outcome;
mod postgres_client;
pub mod retry;
mod signature;
pub mod template;
pub mod warehouse;
