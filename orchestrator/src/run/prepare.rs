//! Stage 1: the state of the sync, the lease, and what the model now looks like.

use std::sync::Arc;
use std::time::{Duration, Instant};

use connectors::change::Mode;
use connectors::warehouse::{ErrorKind, Session, WarehouseError};
use sql_templates::{
    Atomicity, Column, Dialect, DiffShape, ModelSql, NotOneSelect, SnapshotPart, Statement, SyncScope,
    SyncTables, project_prefix, script,
};

use super::definition::{Change, Definition, Meaning, compare};
use super::lease::{Holder, Lease, seconds};
use super::rows::{only_row, result_rows};
use super::{Run, Start};
use crate::error::{Error, ErrorCode};
use crate::grants::{missing_for_reading, missing_for_writing};
use crate::mapping::{Needed, needed};
use crate::project::{ModelQuery, ModelSpec, SyncSpec};

/// The state's row of one sync.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// The generation last taken.
    pub generation: i64,
    /// How many commits it made.
    pub checkpoint: i64,
    /// Who holds the lease, or held it last.
    pub holder: Option<Holder>,
    /// For how many seconds the lease still runs; negative when it ran out.
    pub lease_seconds: Option<f64>,
    /// A delivery that began and was not committed to its end.
    pub delivering: Option<Delivering>,
    /// Rows accepted under an older generation are due.
    pub due_before: i64,
    /// What the snapshot's destination is.
    pub target: Option<String>,
    /// What the snapshot's rows stand for.
    pub definition: Option<Definition>,
    /// Rows of the model in the last committed run.
    pub queried: Option<i64>,
    /// Keys in doubt.
    pub doubts: i64,
    /// Open rejections.
    pub rejections: i64,
}

/// A delivery that began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivering {
    /// Its generation.
    pub generation: i64,
    /// Its diff's table.
    pub table: String,
    /// That table's form.
    pub shape: DiffShape,
    /// The store that holds its notes.
    pub store: String,
    /// Its run.
    pub run: i64,
}

/// Reads the state; `None` for a sync that has none yet.
pub async fn read_state(session: &mut dyn Session, run: &Run<'_>) -> Result<Option<State>, Error> {
    let read =
        script(run.dialect(), Atomicity::Transaction, &[Statement::ReadState { tables: &run.tables }])?;
    let effect = match session.execute(&read).await {
        Ok(effect) => effect,
        Err(e) if e.kind == ErrorKind::NotFound => return Ok(None),
        Err(e) if e.kind == ErrorKind::Permission => {
            return Err(missing_for_writing(&run.sync.model.source, &e.message));
        }
        Err(e) => return Err(e.into()),
    };
    let Some(row) = result_rows(effect.result("read the state")).next() else { return Ok(None) };
    let project = row.text("project")?.unwrap_or_default();
    if project != run.project.uuid.to_string() {
        return Err(Error::new(
            ErrorCode::SourceFailed,
            format!(
                "the managed tables of sync `{}` belong to another project ({project}) whose name begins alike",
                run.sync.slug
            ),
        )
        .hint("give one of the two projects another `planner_schema`"));
    }
    let delivering = match row.integer("delivering")? {
        None => None,
        Some(generation) => Some(Delivering {
            generation,
            table: row.text("delivering_table")?.unwrap_or_default(),
            shape: row.text("delivering_shape")?.and_then(|s| DiffShape::from_name(&s)).ok_or_else(|| {
                Error::new(ErrorCode::Internal, "the state names a delivery of an unknown form")
            })?,
            store: row.text("delivering_store")?.unwrap_or_default(),
            run: row.integer("delivering_run")?.unwrap_or_default(),
        }),
    };
    Ok(Some(State {
        generation: row.count("generation")?,
        checkpoint: row.count("checkpoint")?,
        holder: row.text("holder")?.and_then(|text| serde_json::from_str(&text).ok()),
        lease_seconds: row.float("lease_seconds")?,
        delivering,
        due_before: row.count("due_before")?,
        target: row.text("target")?,
        definition: row.text("definition")?.map(|text| Definition::parse(&text)).transpose()?,
        queried: row.integer("queried")?,
        doubts: row.count("doubts")?,
        rejections: row.count("rejections")?,
    }))
}

/// The statements that make the managed schemas, where they are missing.
pub async fn create_schemas<'a>(
    session: &mut dyn Session,
    run: &'a Run<'_>,
) -> Result<Vec<Statement<'a>>, Error> {
    let find =
        script(run.dialect(), Atomicity::Transaction, &[Statement::FindSchemas { tables: &run.tables }])?;
    let found = session.execute(&find).await?;
    let there = result_rows(found.result("find the managed schemas")).count();
    let wanted = if run.tables.planner_schema() == run.tables.audit_schema() { 1 } else { 2 };
    Ok(if there < wanted { vec![Statement::CreateSchemas { tables: &run.tables }] } else { Vec::new() })
}

/// Makes the managed schemas and the sync's state.
pub async fn create_state(session: &mut dyn Session, run: &Run<'_>) -> Result<(), Error> {
    let project = run.project.uuid.to_string();
    let mut statements = create_schemas(session, run).await?;
    statements.extend([
        Statement::CreateState {
            tables: &run.tables,
            project: &project,
            sync_id: run.sync.id,
            slug: &run.sync.slug,
        },
        Statement::CreateAudit { tables: &run.tables },
    ]);
    let create = script(run.dialect(), Atomicity::Transaction, &statements)?;
    match session.execute(&create).await {
        Ok(_) => Ok(()),
        Err(e) if e.kind == ErrorKind::Permission => {
            Err(missing_for_writing(&run.sync.model.source, &e.message))
        }
        // Two orchestrators made it at once: what is wanted is there.
        Err(e) if matches!(e.kind, ErrorKind::AlreadyExists | ErrorKind::UniqueViolation) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Takes the lease, waiting for another holder as long as was asked.
pub async fn take_lease(session: &mut dyn Session, run: &Run<'_>) -> Result<(Lease, State), Error> {
    let patience = Instant::now() + run.request.wait.unwrap_or_default();
    loop {
        let state = match read_state(session, run).await? {
            Some(state) => state,
            None => {
                create_state(session, run).await?;
                read_state(session, run)
                    .await?
                    .ok_or_else(|| Error::new(ErrorCode::Internal, "the state was made and is not there"))?
            }
        };
        let held = state.lease_seconds.is_some_and(|s| s > 0.0);
        let gone = held && state.holder.as_ref().is_some_and(Holder::is_gone);
        if gone && let Some(orphan) = state.holder.as_ref().and_then(|h| h.session.as_deref()) {
            run.warehouse().terminate(orphan).await?;
        }
        if !held || gone {
            let generation = state.generation + 1;
            let holder = serde_json::to_string(&Holder::this(session.id())).unwrap_or_default();
            let length = run.lease_length();
            let asked_at = Lease::clock();
            let take = script(
                run.dialect(),
                Atomicity::Transaction,
                &[Statement::TakeLease {
                    tables: &run.tables,
                    slug: &run.sync.slug,
                    generation,
                    holder: &holder,
                    lease_seconds: seconds(length),
                    replace_holder: gone,
                }],
            )?;
            match session.execute(&take).await {
                Ok(_) => {
                    let lease = Lease::hold(
                        run.warehouse().clone(),
                        run.tables.clone(),
                        run.sync.slug.clone(),
                        generation,
                        length,
                        asked_at,
                        run.cancel.clone(),
                    );
                    return Ok((lease, state));
                }
                // Someone was faster; look again.
                Err(e) if matches!(e.kind, ErrorKind::Fenced | ErrorKind::Busy) => {}
                Err(e) if e.kind == ErrorKind::Permission => {
                    return Err(missing_for_writing(&run.sync.model.source, &e.message));
                }
                Err(e) => return Err(e.into()),
            }
        }
        if Instant::now() >= patience || run.cancel.is_cancelled() {
            let who =
                state.holder.map_or_else(String::new, |h| format!(" by process {} on {}", h.pid, h.host));
            let left = state.lease_seconds.unwrap_or_default().max(0.0);
            return Err(Error::new(
                ErrorCode::SyncBusy,
                format!("sync `{}` is being run{who}; its lease runs for another {left:.0} s", run.sync.slug),
            ));
        }
        let pause = state.lease_seconds.unwrap_or(0.2).clamp(0.2, 2.0);
        tokio::time::sleep(Duration::from_secs_f64(pause)).await;
    }
}

/// The model as the warehouse sees it now.
#[derive(Debug, Clone)]
pub struct Described {
    /// The model, embedded.
    pub model: Arc<ModelSql>,
    /// What the sync's snapshot has to stand for.
    pub definition: Definition,
    /// Which columns the mapping needs.
    pub needed: Needed,
    /// The model may be read twice within one transaction.
    pub plain: bool,
}

/// Makes a model's SELECT from what its file says.
pub fn model_sql(model: &ModelSpec, dialect: Dialect) -> Result<ModelSql, Error> {
    let invalid = |message: String| {
        Error::new(ErrorCode::ModelNotOneSelect, format!("model `{}`: {message}", model.slug))
            .at(model.file.clone(), 1)
    };
    match &model.query {
        ModelQuery::Sql(text) => {
            ModelSql::query(text, dialect).map_err(|e: NotOneSelect| invalid(e.to_string()))
        }
        ModelQuery::Table(text) => {
            let parts =
                split_name(text).ok_or_else(|| invalid(format!("`table: {text}` is no table's name")))?;
            let mut idents = parts
                .iter()
                .map(|p| sql_templates::Ident::new(p.as_str()).map_err(|e| invalid(e.to_string())))
                .collect::<Result<Vec<_>, _>>()?;
            let name = idents.pop();
            match (idents.pop(), name, idents.is_empty()) {
                (schema, Some(name), true) => Ok(ModelSql::table(schema, name)),
                _ => Err(invalid(format!("`table: {text}` must be `table` or `schema.table`"))),
            }
        }
    }
}

/// Splits `schema.table`, where either may stand in double quotes.
fn split_name(text: &str) -> Option<Vec<String>> {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    let mut chars = text.trim().chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                parts.last_mut()?.push('"');
            }
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(String::new()),
            c => parts.last_mut()?.push(c),
        }
    }
    (!quoted && parts.iter().all(|p| !p.is_empty())).then_some(parts)
}

/// What a model returns: every column has a name of its own, and the keys can be compared.
#[derive(Debug, Clone)]
pub struct Returned {
    /// The model, embedded.
    pub model: Arc<ModelSql>,
    /// Its columns, in order.
    pub columns: Vec<Column>,
    /// The columns of its primary key, in the order of `primary_key`.
    pub keys: Vec<Column>,
}

/// Asks the warehouse what the model returns, and checks what levin needs of it.
pub async fn look_at_model(
    session: &mut dyn Session,
    spec: &ModelSpec,
    dialect: Dialect,
) -> Result<Returned, Error> {
    let model = Arc::new(model_sql(spec, dialect)?);
    let columns = describe_model(session, spec, &model, dialect).await?;
    check_columns(&columns, spec, dialect)?;
    let keys = key_columns(&columns, spec, dialect)?;
    Ok(Returned { model, columns, keys })
}

/// What a sync needs of what its model returns, and what its snapshot has to stand for.
pub fn define(sync: &SyncSpec, dialect: Dialect, returned: &Returned) -> Result<(Definition, Needed), Error> {
    let model = &sync.model;
    let needed = needed(sync, &model.primary_key, &returned.columns)?;
    let tracked = returned.keys.len() + needed.tracked.len();
    if let Some(most) = dialect.facts().max_columns
        && tracked + MANAGED_COLUMNS > most
    {
        return Err(Error::new(
            ErrorCode::TooManyColumns,
            format!(
                "model `{}` returns {tracked} columns to be tracked; a table of {} holds {most}, of which levin needs {MANAGED_COLUMNS}",
                model.slug,
                dialect.name(),
            ),
        ));
    }
    let definition = Definition {
        meaning: Meaning::of(sync.mode),
        keys: returned.keys.clone(),
        columns: needed.tracked.clone(),
    };
    Ok((definition, needed))
}

/// Looks at the model of a run.
pub async fn describe(session: &mut dyn Session, run: &Run<'_>) -> Result<Described, Error> {
    let dialect = run.dialect();
    let returned = look_at_model(session, &run.sync.model, dialect).await?;
    let (definition, needed) = define(&run.sync, dialect, &returned)?;
    let plain = match returned.model.plain_table() {
        None => false,
        Some(table) => {
            let look = script(
                dialect,
                Atomicity::Transaction,
                &[Statement::RelationKind { schema: table.schema.as_deref(), name: &table.name }],
            )?;
            let effect = session.execute(&look).await?;
            let row = only_row(effect.result("look at the relation"), "the look at the relation")?;
            row.count("found")? == 1 && row.count("tables")? == 1
        }
    };
    Ok(Described { model: returned.model, definition, needed, plain })
}

/// Columns of a full diff's table beside key and tracked ones, the most of any managed table.
const MANAGED_COLUMNS: usize = 5;

/// The columns that a model returns.
pub async fn describe_model(
    session: &mut dyn Session,
    spec: &ModelSpec,
    model: &ModelSql,
    dialect: Dialect,
) -> Result<Vec<Column>, Error> {
    let select = Statement::Model { model }.sql(dialect)?;
    session.describe(&select).await.map_err(|e| model_trouble(spec, e))
}

/// What the warehouse said when it was asked for a model's columns or rows.
pub fn model_trouble(spec: &ModelSpec, error: WarehouseError) -> Error {
    let named = |code| {
        Error::new(code, format!("model `{}` failed: {}", spec.slug, error.message)).at(spec.file.clone(), 1)
    };
    match error.kind {
        ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::Data => named(ErrorCode::ModelFailed),
        ErrorKind::Permission => missing_for_reading(spec, &error.message),
        ErrorKind::Unsupported => named(ErrorCode::ColumnTypeUnsupported),
        _ => error.into(),
    }
}

fn check_columns(columns: &[Column], model: &ModelSpec, dialect: Dialect) -> Result<(), Error> {
    let fold = |name: &str| match dialect.facts().folds_to {
        sql_templates::Folding::Insensitive => name.to_lowercase(),
        _ => name.to_owned(),
    };
    let mut seen = std::collections::BTreeSet::new();
    for column in columns {
        if column.name.is_empty() || column.name == "?column?" {
            return Err(Error::new(
                ErrorCode::ModelDuplicateColumn,
                format!("model `{}` returns a column without a name", model.slug),
            )
            .at(model.file.clone(), 1));
        }
        if !seen.insert(fold(&column.name)) {
            return Err(Error::new(
                ErrorCode::ModelDuplicateColumn,
                format!("model `{}` returns the column `{}` more than once", model.slug, column.name),
            )
            .at(model.file.clone(), 1));
        }
        if fold(&column.name).starts_with("_levin_") {
            return Err(Error::new(
                ErrorCode::ModelReservedColumn,
                format!(
                    "model `{}` returns the column `{}`; names that begin with `_levin_` are levin's own",
                    model.slug, column.name
                ),
            )
            .at(model.file.clone(), 1));
        }
    }
    Ok(())
}

fn key_columns(columns: &[Column], model: &ModelSpec, dialect: Dialect) -> Result<Vec<Column>, Error> {
    model
        .primary_key
        .iter()
        .map(|name| {
            let column = columns.iter().find(|c| &c.name == name).ok_or_else(|| {
                Error::new(
                    ErrorCode::ModelKeyMissing,
                    format!("model `{}` does not return its primary key `{name}`", model.slug),
                )
                .at(model.file.clone(), 1)
                .hint(crate::suggestion::hint(
                    name,
                    &columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(),
                    "columns",
                ))
            })?;
            if !dialect.type_fact(&column.engine_type).is_some_and(|fact| fact.key) {
                return Err(Error::new(
                    ErrorCode::KeyTypeUnsupported,
                    format!(
                        "the primary key `{name}` of model `{}` is of type {}, which {} cannot compare reliably",
                        model.slug,
                        column.engine_type,
                        dialect.name()
                    ),
                )
                .at(model.file.clone(), 1));
            }
            Ok(column.clone())
        })
        .collect()
}

/// What has to happen with the snapshot before the model is compared with it.
pub fn change_of_snapshot(
    run: &Run<'_>,
    state: &State,
    described: &Described,
    target: &str,
) -> Result<Change, Error> {
    let (Some(was), Some(old_target)) = (&state.definition, &state.target) else { return Ok(Change::Fresh) };
    let is = &described.definition;
    let starts_over = run.request.start != Start::Incremental;
    let refuse =
        |code, message: String| if starts_over { Ok(Change::Fresh) } else { Err(Error::new(code, message)) };
    if old_target != target {
        return refuse(
            ErrorCode::TargetChanged,
            format!(
                "sync `{}` now points to {target}; its snapshot tells what {old_target} accepted",
                run.sync.slug
            ),
        );
    }
    let names = |d: &Definition| {
        let mut names: Vec<String> = d.keys.iter().map(|k| k.name.clone()).collect();
        names.sort();
        names
    };
    if names(was) != names(is) {
        return refuse(
            ErrorCode::KeyChanged,
            format!(
                "the primary key of model `{}` was {} and is now {}",
                run.sync.model.slug,
                names(was).join(", "),
                names(is).join(", ")
            ),
        );
    }
    if was.meaning != is.meaning {
        return refuse(
            ErrorCode::ModeChanged,
            format!(
                "sync `{}` changed to mode `{}`, whose snapshot stands for something else",
                run.sync.slug,
                run.sync.mode.name()
            ),
        );
    }
    compare(was, is)
}

/// The statements that bring snapshot, doubts and rejections into a new shape.
pub fn reshape_statements<'a>(
    scope: SyncScope<'a>,
    change: &'a super::definition::Reshape,
    keys: usize,
) -> Vec<Statement<'a>> {
    let mut statements = vec![
        Statement::Reshape {
            scope,
            part: SnapshotPart::Snapshot,
            columns: &change.columns,
            due: &change.due,
        },
        Statement::Reshape { scope, part: SnapshotPart::Doubts, columns: &change.columns, due: &[] },
    ];
    if change.reasons.iter().any(|r| r.starts_with("key_type:")) {
        statements.push(Statement::Reshape {
            scope,
            part: SnapshotPart::Rejections,
            columns: &change.columns[..keys],
            due: &[],
        });
    }
    statements
}

/// Whether the keys of a reshaped table are still as many as before.
pub fn keys_stayed_one_to_one(run: &Run<'_>, effect: &connectors::warehouse::Effect) -> Result<(), Error> {
    for step in effect.steps.iter().filter(|s| s.name == "keys stay one to one") {
        let row = only_row(&step.batches, "the count of keys")?;
        if row.count("found")? != row.count("kept")? {
            return Err(not_one_to_one(run));
        }
    }
    Ok(())
}

/// The keys of the snapshot cannot become keys of the new type.
pub fn not_one_to_one(run: &Run<'_>) -> Error {
    Error::new(
        ErrorCode::KeyTypeNotOneToOne,
        format!(
            "the primary key of model `{}` has another type, and not every key that sync `{}` knows is a different key of that type",
            run.sync.model.slug, run.sync.slug
        ),
    )
}

/// Tables that earlier runs of this sync left behind.
pub async fn leftovers(
    session: &mut dyn Session,
    run: &Run<'_>,
    keep: &[String],
) -> Result<Vec<sql_templates::TableRef>, Error> {
    let prefix = format!("{}_s{}", project_prefix(&run.project.uuid.to_string()), run.sync.id);
    let list = script(
        run.dialect(),
        Atomicity::Transaction,
        &[Statement::ManagedTables { schema: run.tables.planner_schema(), prefix: &prefix }],
    )?;
    let effect = session.execute(&list).await?;
    let mut tables = Vec::new();
    for row in result_rows(effect.result("list the managed tables")) {
        let Some(name) = row.text("table_name")? else { continue };
        if run.tables.is_leftover(&name) && !keep.contains(&name) {
            tables.push(
                run.tables.recorded(&name).map_err(|e| Error::new(ErrorCode::Internal, e.to_string()))?,
            );
        }
    }
    Ok(tables)
}

/// Whether the mode compares the model with a snapshot.
pub fn keeps_snapshot(mode: Mode) -> bool {
    Meaning::of(mode) != Meaning::Nothing
}

/// The managed tables of a sync.
pub fn tables_of(
    source: &crate::project::SourceSpec,
    project: &str,
    sync_id: i64,
) -> Result<SyncTables, Error> {
    SyncTables::new(&source.planner_schema, &source.audit_schema, project, sync_id)
        .map_err(|e| Error::new(ErrorCode::ProjectInvalid, format!("source `{}`: {e}", source.slug)))
}
