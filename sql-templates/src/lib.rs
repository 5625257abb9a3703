//! Every statement that levin runs in a warehouse. Pure: no I/O, no async.
//!
//! A [`Statement`] names what is wanted; rendering it in a [`Dialect`] gives [`Step`]s whose [`Sql`]
//! was printed from a template by a printer that quotes identifiers and values and refuses every
//! plain string. See the folder's README for how a dialect says things in its own way.

#![warn(missing_docs, unreachable_pub)]

mod column;
mod dialect;
mod dispatch;
mod facts;
mod googlesql;
mod lexer;
mod model;
mod names;
mod sql;
mod statement;
mod values;

pub use column::{Column, LogicalType};
pub use dialect::{Dialect, Facts, Folding, TypeFact};
pub use facts::{
    AUDIT_COUNTS, AuditFacts, CommitFacts, DeliverFacts, DiffFacts, DiffShape, EndedRange, RejectionFacts,
    ReshapedColumn, Shape, SnapshotPart, SyncScope, TestRowFacts,
};
pub use model::{ModelSql, NotOneSelect, PlainTable};
pub use names::{SyncTables, project_prefix};
pub use sql::{Atomicity, EngineType, Expect, Ident, InvalidText, Literal, Script, Sql, Step, TableRef};
pub use statement::{RenderError, Statement, script};
