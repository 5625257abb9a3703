//! Every statement that the engine runs, typed: a variant for each macro of the stage files.

use minijinja::value::Value;

use crate::column::Column;
use crate::dialect::Dialect;
use crate::dispatch::{Printable, map, parse_expect, render};
use crate::facts::{
    AUDIT_COUNTS, AuditFacts, CommitFacts, DeliverFacts, DiffFacts, DiffShape, EndedRange, RejectionFacts,
    ReshapedColumn, Shape, SnapshotPart, SyncScope, TestRowFacts,
};
use crate::model::{ModelSql, PlainTable};
use crate::names::SyncTables;
use crate::sql::{Atomicity, Ident, InvalidText, STEP_MARK, Script, Sql, Step, TableRef};
use crate::values::{
    all_columns, column_value, columns_value, commit_values, diff_values, escaped, ident, model_value, null,
    placed_columns, principal, ranges_value, scope_values, shape_values, table, test_row_values, text,
};

/// One statement, or a few that belong together.
#[allow(missing_docs, reason = "a variant says what it is; its fields are what its template asks for")]
#[derive(Debug, Clone)]
pub enum Statement<'a> {
    /// The model as it is, to be described.
    Model { model: &'a ModelSql },
    /// Names of the managed schemas that are there.
    FindSchemas { tables: &'a SyncTables },
    /// Both managed schemas, if missing.
    CreateSchemas { tables: &'a SyncTables },
    /// The state's table and its one row, if missing; `generation` is the last one that was ever taken.
    CreateState { tables: &'a SyncTables, project: &'a str, sync_id: i64, slug: &'a str, generation: i64 },
    /// The state's row.
    ReadState { tables: &'a SyncTables },
    /// The snapshot as it is, to be described.
    Snapshot { tables: &'a SyncTables },
    /// A new generation, if nobody holds the lease (or the holder is known to be gone).
    TakeLease {
        tables: &'a SyncTables,
        slug: &'a str,
        generation: i64,
        holder: &'a str,
        lease_seconds: i64,
        replace_holder: bool,
    },
    /// The lease, longer.
    RenewLease { tables: &'a SyncTables, generation: i64, lease_seconds: i64 },
    /// The lease, given up; `ran` says that the model was compared with the snapshot.
    ReleaseLease {
        tables: &'a SyncTables,
        generation: i64,
        queried: Option<i64>,
        counted: Option<i64>,
        ran: bool,
    },
    /// What kind of relation a name stands for.
    RelationKind { schema: Option<&'a str>, name: &'a str },
    /// Empty snapshot, doubts and rejections in the model's shape, in place of any older ones.
    CreateTables { scope: SyncScope<'a> },
    /// The snapshot, the doubts or the rejections in another shape, in a table that stands aside under this word.
    Reshape {
        scope: SyncScope<'a>,
        of: &'a str,
        part: SnapshotPart,
        columns: &'a [ReshapedColumn],
        due: &'a [Column],
    },
    /// The table that stands aside under this word, in place of the one that it was made of.
    PutInPlace { tables: &'a SyncTables, of: &'a str, part: SnapshotPart },
    /// What the snapshot now stands for; `None` when nobody knows.
    Define {
        tables: &'a SyncTables,
        generation: i64,
        definition: Option<&'a str>,
        target: Option<&'a str>,
        due_before: i64,
    },
    /// No delivery is to be settled.
    ForgetDelivery { tables: &'a SyncTables, generation: i64 },
    /// What is in doubt leaves under other versions from now on, none of which was ever sent.
    RenewVersions { tables: &'a SyncTables, generation: i64 },
    /// Every row of the model as added.
    DiffFirst { scope: SyncScope<'a>, facts: &'a DiffFacts<'a> },
    /// Model against snapshot.
    Diff { scope: SyncScope<'a>, facts: &'a DiffFacts<'a> },
    /// How often each column changed.
    ChangedColumns { shape: &'a Shape, diff: TableRef },
    /// What became of the claims on matching values.
    Claims { diff: TableRef, diff_shape: DiffShape },
    /// The plans that are kept, as one text; `None` when there are none.
    KeepPlans { tables: &'a SyncTables, generation: i64, plans: Option<&'a str> },
    /// A few rows of one operation.
    Samples { shape: &'a Shape, facts: &'a DeliverFacts<'a> },
    /// A few keys that were set aside.
    SetAsideSamples { shape: &'a Shape, set_aside: TableRef, limit: u64 },
    /// Some rows of the model.
    Preview { shape: &'a Shape, model: &'a ModelSql, limit: u64 },
    /// The durable word before the first request.
    BeginDelivery {
        tables: &'a SyncTables,
        generation: i64,
        diff: &'a TableRef,
        diff_shape: DiffShape,
        sent: &'a [&'a str],
        store: &'a str,
        run: i64,
        due_before: i64,
    },
    /// The destination was emptied: snapshot and doubts are.
    ForgetAccepted { tables: &'a SyncTables, generation: i64 },
    /// The rows of one operation.
    Deliver { shape: &'a Shape, facts: &'a DeliverFacts<'a> },
    /// One row for a person to look at, as `Deliver` gives it.
    TestRow { scope: SyncScope<'a>, facts: &'a TestRowFacts<'a> },
    /// An empty table for outcomes.
    CreateOutcomes { outcomes: TableRef },
    /// Doubts about rows that were sent and not answered for, written into the commit's outcomes;
    /// about all that may have been sent and was not committed, when nobody knows which those are.
    Doubt { scope: SyncScope<'a>, facts: &'a CommitFacts<'a>, among: Option<&'a [EndedRange]> },
    /// The one atomic step.
    Commit { scope: SyncScope<'a>, facts: &'a CommitFacts<'a> },
    /// Rejections that are parked, or tried again: that of one key, given as the canonical texts of its
    /// columns, or all of them.
    MarkParked { tables: &'a SyncTables, keys: &'a [Column], generation: i64, park: bool, key: &'a [String] },
    /// Open rejections, newest first.
    Rejections { tables: &'a SyncTables, keys: &'a [Column], facts: &'a RejectionFacts<'a> },
    /// Tables that are no longer needed.
    Prune { drop: &'a [TableRef] },
    /// Names of managed tables that begin like this.
    /// With `relation`, what goes by that name too: `kind` tells managed tables, tables and other relations apart.
    ManagedTables { schema: &'a Ident, prefix: &'a str, relation: Option<&'a PlainTable> },
    /// The audit table of runs, if missing.
    CreateAudit { tables: &'a SyncTables },
    /// One run's row.
    AuditRun { tables: &'a SyncTables, facts: &'a AuditFacts<'a> },
    /// The grant script for a role that reads the models in these schemas.
    Grants {
        planner: &'a Ident,
        audit: &'a Ident,
        role: &'a Ident,
        database: &'a Ident,
        schemas: &'a [Ident],
        /// Some models name relations without a schema.
        default_schema: bool,
        /// The role may make the managed schemas itself; else they are made here, and it may write them.
        creates: bool,
    },
    /// What a role lacks when it cannot read these relations.
    GrantRead { role: &'a Ident, relations: &'a [PlainTable] },
}

/// A statement that cannot be rendered: a fault of levin's templates, or a text that cannot stand in SQL.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot render the statement {statement}: {message}")]
pub struct RenderError {
    /// The statement.
    pub statement: &'static str,
    /// What the template engine said.
    pub message: String,
}

impl Statement<'_> {
    /// The macro that renders it, in the file of its stage.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Model { .. } => "model_rows",
            Self::FindSchemas { .. } => "find_schemas",
            Self::CreateSchemas { .. } => "create_schemas",
            Self::CreateState { .. } => "create_state",
            Self::ReadState { .. } => "read_state",
            Self::Snapshot { .. } => "snapshot_rows",
            Self::TakeLease { .. } => "take_lease",
            Self::RenewLease { .. } => "renew_lease",
            Self::ReleaseLease { .. } => "release_lease",
            Self::RelationKind { .. } => "relation_kind",
            Self::CreateTables { .. } => "create_tables",
            Self::Reshape { .. } => "reshape",
            Self::PutInPlace { .. } => "put_in_place",
            Self::Define { .. } => "define",
            Self::ForgetDelivery { .. } => "forget_delivery",
            Self::RenewVersions { .. } => "renew_versions",
            Self::DiffFirst { .. } => "diff_first",
            Self::Diff { .. } => "diff_full",
            Self::ChangedColumns { .. } => "changed_columns",
            Self::Claims { .. } => "claims",
            Self::KeepPlans { .. } => "keep_plans",
            Self::Samples { .. } => "samples",
            Self::SetAsideSamples { .. } => "set_aside_samples",
            Self::Preview { .. } => "preview",
            Self::BeginDelivery { .. } => "begin_delivery",
            Self::ForgetAccepted { .. } => "forget_accepted",
            Self::Deliver { .. } => "deliver",
            Self::TestRow { .. } => "test_row",
            Self::CreateOutcomes { .. } => "create_outcomes",
            Self::Doubt { .. } => "doubt",
            Self::Commit { .. } => "commit",
            Self::MarkParked { .. } => "mark_parked",
            Self::Rejections { .. } => "open_rejections",
            Self::Prune { .. } => "prune",
            Self::ManagedTables { .. } => "managed_tables",
            Self::CreateAudit { .. } => "create_audit",
            Self::AuditRun { .. } => "audit_run",
            Self::Grants { .. } => "grants",
            Self::GrantRead { .. } => "grant_read",
        }
    }

    /// Whether it makes, changes or drops tables.
    fn makes_tables(&self) -> bool {
        matches!(
            self,
            Self::CreateSchemas { .. }
                | Self::CreateState { .. }
                | Self::CreateAudit { .. }
                | Self::CreateTables { .. }
                | Self::CreateOutcomes { .. }
                | Self::Reshape { .. }
                | Self::PutInPlace { .. }
                | Self::DiffFirst { .. }
                | Self::Diff { .. }
                | Self::Prune { .. }
        )
    }

    /// The statement's steps in a dialect.
    pub fn steps(&self, dialect: Dialect) -> Result<Vec<Step>, RenderError> {
        let fail = |message: String| RenderError { statement: self.name(), message };
        let text = render(dialect, self.name(), self.values(dialect).map_err(|e| fail(e.to_string()))?)
            .map_err(|e| fail(explain(&e)))?;
        split(&text).map_err(fail)
    }

    /// The one statement of a variant that has only one.
    pub fn sql(&self, dialect: Dialect) -> Result<Sql, RenderError> {
        let mut steps = self.steps(dialect)?;
        match (steps.pop(), steps.is_empty()) {
            (Some(step), true) => Ok(step.sql),
            _ => Err(RenderError {
                statement: self.name(),
                message: "it is more than one statement".to_owned(),
            }),
        }
    }

    /// Everything that the macro may print.
    fn values(&self, dialect: Dialect) -> Result<Vec<(&'static str, Value)>, InvalidText> {
        Ok(match self {
            Self::Model { model } => vec![("model", model_value(model))],
            Self::FindSchemas { tables } => vec![
                ("planner_schema", ident(tables.planner_schema())),
                ("audit_schema", ident(tables.audit_schema())),
                ("planner_literal", text(tables.planner_schema().name())?),
                ("audit_literal", text(tables.audit_schema().name())?),
            ],
            Self::CreateSchemas { tables } => vec![
                ("planner_schema", ident(tables.planner_schema())),
                ("audit_schema", ident(tables.audit_schema())),
            ],
            Self::CreateState { tables, project, sync_id, slug, generation } => vec![
                ("generation", Value::from(*generation)),
                ("state", table(&tables.state())),
                ("project", text(project)?),
                ("sync_id", Value::from(*sync_id)),
                ("sync_slug", text(slug)?),
            ],
            Self::ReadState { tables } => vec![
                ("state", table(&tables.state())),
                ("planner_literal", text(tables.planner_schema().name())?),
            ],
            Self::Snapshot { tables } => vec![("snapshot", table(&tables.snapshot()))],
            Self::TakeLease { tables, slug, generation, holder, lease_seconds, replace_holder } => vec![
                ("state", table(&tables.state())),
                ("sync_slug", text(slug)?),
                ("generation", Value::from(*generation)),
                ("holder", text(holder)?),
                ("lease_seconds", Value::from(*lease_seconds)),
                ("replace_holder", Value::from(*replace_holder)),
            ],
            Self::RenewLease { tables, generation, lease_seconds } => vec![
                ("state", table(&tables.state())),
                ("generation", Value::from(*generation)),
                ("lease_seconds", Value::from(*lease_seconds)),
            ],
            Self::ReleaseLease { tables, generation, queried, counted, ran } => vec![
                ("counted", Value::from(*counted)),
                ("ran", Value::from(*ran)),
                ("state", table(&tables.state())),
                ("generation", Value::from(*generation)),
                ("queried", Value::from(*queried)),
            ],
            Self::RelationKind { schema, name } => vec![
                ("table_name", text(name)?),
                ("table_schema", optional(*schema)?),
                ("schema", optional_ident(*schema)?),
            ],
            Self::CreateTables { scope } => {
                let mut values = scope_values(scope, dialect);
                values.push(("model", model_value(scope.model)));
                values
            }
            Self::Reshape { scope, of, part, columns, due } => {
                let (what, extras) = match part {
                    SnapshotPart::Snapshot => ("the snapshot", &["_levin_generation"] as &[&str]),
                    SnapshotPart::Doubts => {
                        ("the doubts", &["_levin_generation", "_levin_operation", "_levin_version"] as _)
                    }
                    SnapshotPart::Rejections => ("the rejections", REJECTION_COLUMNS),
                };
                let all: Vec<Value> = columns
                    .iter()
                    .map(|c| {
                        map(column_value(&c.column, dialect).into_iter().chain([
                            ("kept", Value::from(c.kept)),
                            ("cast", c.cast.clone().map_or(Value::from(()), |t| Printable::Type(t).value())),
                        ]))
                    })
                    .collect();
                vec![
                    ("what", Value::from(what)),
                    ("table", table(&scope.tables.part(*part))),
                    ("reshaped", table(&scope.tables.aside(of).part(*part))),
                    ("model", model_value(scope.model)),
                    ("all", Value::from(all)),
                    ("keys", columns_value(&scope.shape.keys, dialect)),
                    ("due", columns_value(due, dialect)),
                    ("extras", extras.iter().copied().map(Value::from).collect()),
                    (
                        "key_cast",
                        Value::from(columns.iter().take(scope.shape.keys.len()).any(|c| c.cast.is_some())),
                    ),
                    ("index", Value::from(*part == SnapshotPart::Snapshot)),
                ]
            }
            Self::PutInPlace { tables, of, part } => vec![
                ("table", table(&tables.part(*part))),
                ("reshaped", table(&tables.aside(of).part(*part))),
            ],
            Self::Define { tables, generation, definition, target, due_before } => vec![
                ("state", table(&tables.state())),
                ("generation", Value::from(*generation)),
                ("definition", definition.map(text).transpose()?.unwrap_or_else(null)),
                ("target", target.map(text).transpose()?.unwrap_or_else(null)),
                ("due_before", Value::from(*due_before)),
            ],
            Self::ForgetDelivery { tables, generation } => {
                vec![("state", table(&tables.state())), ("generation", Value::from(*generation))]
            }
            Self::RenewVersions { tables, generation } => {
                vec![("doubts", table(&tables.doubts())), ("generation", Value::from(*generation))]
            }
            Self::DiffFirst { scope, facts } | Self::Diff { scope, facts } => {
                diff_values(scope, facts, dialect)?
            }
            Self::ChangedColumns { shape, diff } => {
                vec![("columns", columns_value(&shape.columns, dialect)), ("diff", table(diff))]
            }
            Self::Claims { diff, diff_shape } => {
                vec![("diff", table(diff)), ("shape", Value::from(diff_shape.name()))]
            }
            Self::KeepPlans { tables, generation, plans } => vec![
                ("state", table(&tables.state())),
                ("generation", Value::from(*generation)),
                ("plans", plans.map(text).transpose()?.unwrap_or_else(null)),
            ],
            Self::Samples { shape, facts } | Self::Deliver { shape, facts } => [
                ("waits", Value::from(facts.waits.is_some())),
                ("snapshot", facts.waits.map_or(Value::from(()), |tables| table(&tables.snapshot()))),
                ("doubts", facts.waits.map_or(Value::from(()), |tables| table(&tables.doubts()))),
                ("previous", placed_columns(facts.previous, shape, dialect)),
                ("operation", Value::from(facts.operation)),
                ("operation_literal", text(facts.operation)?),
                ("shape", Value::from(facts.diff_shape.name())),
                ("diff", table(&facts.diff)),
                ("after", Value::from(facts.after)),
                ("through", Value::from(facts.through)),
                ("limit", Value::from(facts.limit)),
            ]
            .into_iter()
            .chain(shape_values(shape, dialect))
            .collect(),
            Self::SetAsideSamples { shape, set_aside, limit } => vec![
                ("keys", columns_value(&shape.keys, dialect)),
                ("set_aside", table(set_aside)),
                ("limit", Value::from(*limit)),
            ],
            Self::Preview { shape, model, limit } => vec![
                ("all", all_columns(shape, dialect)),
                ("model", model_value(model)),
                ("limit", Value::from(*limit)),
            ],
            Self::BeginDelivery { tables, generation, diff, diff_shape, sent, store, run, due_before } => {
                vec![
                    ("delivering_sent", text(&sent.join(","))?),
                    ("state", table(&tables.state())),
                    ("generation", Value::from(*generation)),
                    ("diff_name", text(diff.name.name())?),
                    ("planner_literal", text(tables.planner_schema().name())?),
                    ("delivering_shape", text(diff_shape.name())?),
                    ("store", text(store)?),
                    ("run", Value::from(*run)),
                    ("due_before", Value::from(*due_before)),
                ]
            }
            Self::TestRow { scope, facts } => test_row_values(scope, facts, dialect)?,
            Self::ForgetAccepted { tables, generation } => vec![
                ("state", table(&tables.state())),
                ("snapshot", table(&tables.snapshot())),
                ("doubts", table(&tables.doubts())),
                ("generation", Value::from(*generation)),
            ],
            Self::CreateOutcomes { outcomes } => vec![("outcomes", table(outcomes))],
            Self::Doubt { scope, facts, among } => {
                let mut values = commit_values(scope, facts, dialect)?;
                values
                    .push(("among", among.map(ranges_value).transpose()?.unwrap_or_else(|| Value::from(()))));
                values
            }
            Self::Commit { scope, facts } => commit_values(scope, facts, dialect)?,
            Self::MarkParked { tables, keys, generation, park, key } => vec![
                ("state", table(&tables.state())),
                ("rejections", table(&tables.rejections())),
                ("generation", Value::from(*generation)),
                ("park", Value::from(*park)),
                ("keys", columns_value(keys, dialect)),
                ("key", key.iter().map(|value| text(value)).collect::<Result<Value, _>>()?),
            ],
            Self::Rejections { tables, keys, facts } => vec![
                ("rejections", table(&tables.rejections())),
                ("keys", columns_value(keys, dialect)),
                ("run", facts.run.map_or(Value::from(()), Value::from)),
                ("key", facts.key.iter().map(|part| optional(*part)).collect::<Result<Value, _>>()?),
                ("offset", Value::from(facts.offset)),
                ("limit", Value::from(facts.limit)),
            ],
            Self::Prune { drop } => vec![("tables", drop.iter().map(table).collect())],
            Self::ManagedTables { schema, prefix, relation } => vec![
                ("relation", Value::from(relation.is_some())),
                ("table_name", optional(relation.map(|r| r.name.as_str()))?),
                ("table_schema", optional(relation.and_then(|r| r.schema.as_deref()))?),
                ("relation_schema", optional_ident(relation.and_then(|r| r.schema.as_deref()))?),
                ("schema", ident(schema)),
                ("prefix", text(&format!("{prefix}_"))?),
                ("schema_literal", text(schema.name())?),
                ("pattern", text(&format!("{}\\_%", escaped(prefix)))?),
                ("escape", text("\\")?),
            ],
            Self::CreateAudit { tables } => vec![
                ("sync_runs", table(&tables.sync_runs())),
                ("counts", AUDIT_COUNTS.iter().copied().map(Value::from).collect()),
            ],
            Self::AuditRun { tables, facts } => vec![
                ("sync_runs", table(&tables.sync_runs())),
                ("sync_id", Value::from(facts.sync_id)),
                ("run", Value::from(facts.run)),
                ("primary_key", text(facts.primary_key)?),
                ("destination", text(facts.destination)?),
                ("model_name", text(facts.model_name)?),
                ("error", facts.error.map(text).transpose()?.unwrap_or_else(null)),
                ("status", text(facts.status)?),
                ("started_at", text(facts.started_at)?),
                ("finished_at", text(facts.finished_at)?),
                ("numbers", facts.numbers.iter().map(|n| Value::from(*n)).collect()),
            ],
            Self::Grants { planner, audit, role, database, schemas, default_schema, creates } => vec![
                ("planner_schema", ident(planner)),
                ("audit_schema", ident(audit)),
                ("role", ident(role)),
                ("principal", text(&principal(role))?),
                ("database", ident(database)),
                ("schemas", schemas.iter().map(ident).collect()),
                ("default_schema", Value::from(*default_schema)),
                ("creates", Value::from(*creates)),
            ],
            Self::GrantRead { role, relations } => {
                let mut schemas: Vec<&String> = relations.iter().filter_map(|r| r.schema.as_ref()).collect();
                schemas.sort();
                schemas.dedup();
                let schemas = schemas.into_iter().map(|s| Ok(ident(&Ident::new(s.as_str())?)));
                let relations = relations.iter().map(|r| {
                    let name = ident(&Ident::new(r.name.as_str())?);
                    let schema = r.schema.as_deref().map(Ident::new).transpose()?;
                    Ok(map([("schema", schema.map_or(Value::from(()), |s| ident(&s))), ("name", name)]))
                });
                vec![
                    ("role", ident(role)),
                    ("principal", text(&principal(role))?),
                    ("schemas", schemas.collect::<Result<Value, InvalidText>>()?),
                    ("relations", relations.collect::<Result<Value, InvalidText>>()?),
                ]
            }
        })
    }
}

/// The columns of the rejections beside the key, in order.
const REJECTION_COLUMNS: &[&str] = &[
    "_levin_generation",
    "_levin_checkpoint",
    "_levin_operation",
    "_levin_code",
    "_levin_reason",
    "_levin_attempts",
    "_levin_rows",
    "_levin_run",
    "_levin_sequence",
    "_levin_fingerprint",
    "_levin_parked",
    "_levin_first_at",
    "_levin_last_at",
];

/// Several statements in one script. Where the dialect would not undo what makes tables, such a script's steps stand
/// apart, whatever was asked: whoever puts it together makes sure that each of them may be the last.
pub fn script(
    dialect: Dialect,
    atomicity: Atomicity,
    statements: &[Statement<'_>],
) -> Result<Script, RenderError> {
    let mut steps = Vec::new();
    for statement in statements {
        steps.extend(statement.steps(dialect)?);
    }
    let apart = !dialect.facts().undoes_ddl && statements.iter().any(Statement::makes_tables);
    Ok(Script { steps, atomicity: if apart { Atomicity::Separate } else { atomicity } })
}

fn optional(value: Option<&str>) -> Result<Value, InvalidText> {
    value.map(text).transpose().map(|value| value.unwrap_or_else(|| Value::from(())))
}

fn optional_ident(name: Option<&str>) -> Result<Value, InvalidText> {
    let name = name.map(Ident::new).transpose()?;
    Ok(name.map_or(Value::from(()), |name| ident(&name)))
}

/// The template engine's message with its causes, which hold the line.
fn explain(error: &minijinja::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

/// Cuts rendered text at its step marks.
fn split(text: &str) -> Result<Vec<Step>, String> {
    let mut parts = text.split(STEP_MARK);
    if parts.next().is_some_and(|before| !before.trim().is_empty()) {
        return Err("text before the first step".to_owned());
    }
    let mut steps = Vec::new();
    while let (Some(heading), Some(body)) = (parts.next(), parts.next()) {
        let (name, expect) = heading.split_once('|').ok_or("a step without an expectation")?;
        let expect = parse_expect(expect).ok_or("a step with an unknown expectation")?;
        let body = body.trim();
        if body.is_empty() {
            return Err(format!("the step {name:?} is empty"));
        }
        steps.push(Step { name: name.to_owned(), sql: Sql(body.to_owned()), expect });
    }
    Ok(steps)
}
