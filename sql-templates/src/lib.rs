//! Every statement that levin runs in a warehouse. Pure: text in, text out.

mod column;
mod dialect;
mod sql;

pub use column::{Column, LogicalType};
pub use dialect::{Dialect, Facts, Folding, TypeFact};
pub use sql::{Atomicity, EngineType, Expect, Ident, InvalidText, Literal, Script, Sql, Step, TableRef};
