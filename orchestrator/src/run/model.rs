//! The model as the warehouse sees it, and what levin needs of it.

use std::sync::Arc;

use connectors::change::Mode;
use connectors::warehouse::{ErrorKind, Session, WarehouseError};
use sql_templates::{
    Atomicity, Column, Dialect, LogicalType, ModelSql, NotOneSelect, PlainTable, Statement, SyncTables,
    script,
};

use super::Run;
use super::definition::{Definition, Meaning};
use super::rows::only_row;
use crate::error::{Error, ErrorCode};
use crate::grants::missing_for_reading;
use crate::mapping::{Needed, needed};
use crate::project::{ModelQuery, ModelSpec, SourceSpec, SyncSpec};

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
        ModelQuery::Relation(name) => {
            ModelSql::relation(name, dialect).map_err(|e: NotOneSelect| invalid(e.to_string()))
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
    let matching = matching(sync, dialect, returned)?;
    let tracked = returned.keys.len() + needed.tracked.len();
    if let Some(most) = dialect.facts().max_columns
        && tracked + MANAGED_COLUMNS + matching.len() > most
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
        matching,
        clearing: None,
        put: None,
    };
    Ok((definition, needed))
}

/// The columns by which the destination knows a record, when that is not the key: their values must be
/// kept apart. Where a run's rows stand beside those of other runs (files), nothing is overwritten; and
/// taking one record off a list twice, or archiving it twice, is the same as once.
fn matching(sync: &SyncSpec, dialect: Dialect, returned: &Returned) -> Result<Vec<String>, Error> {
    let names: Vec<String> = sync.matching.iter().map(|m| m.from.clone()).collect();
    let is_key = names.len() == returned.keys.len() && returned.keys.iter().all(|k| names.contains(&k.name));
    let overwrites = !sync.destination.connector.deferred
        && !matches!(sync.mode, Mode::Remove | Mode::Archive | Mode::Diff | Mode::Snapshot);
    if names.is_empty() || is_key || !overwrites {
        return Ok(Vec::new());
    }
    for column in returned.columns.iter().filter(|c| names.contains(&c.name)) {
        if !dialect.type_fact(&column.engine_type).is_some_and(|fact| fact.key) {
            return Err(Error::new(
                ErrorCode::KeyTypeUnsupported,
                format!(
                    "sync `{}` matches by `{}`, which is of type {}; {} cannot compare that reliably",
                    sync.slug,
                    column.name,
                    column.engine_type,
                    dialect.name()
                ),
            )
            .at(sync.file.clone(), 1));
        }
    }
    Ok(names)
}

/// The relation of which the model only picks rows and columns, where it does no more than that; under the schema in
/// which the warehouse looks it up, where the model names none.
pub fn plain_relation(run: &Run<'_>, model: &ModelSql) -> Option<PlainTable> {
    model.plain_table().map(|table| PlainTable {
        schema: table.schema.clone().or_else(|| run.warehouse().default_schema()),
        name: table.name.clone(),
    })
}

/// Looks at the model of a run. `plain` says whether it reads one plain table, where that is known already.
pub async fn describe(
    session: &mut dyn Session,
    run: &Run<'_>,
    plain: Option<bool>,
) -> Result<Described, Error> {
    let dialect = run.dialect();
    let returned = look_at_model(session, &run.sync.model, dialect).await?;
    let (definition, needed) = define(&run.sync, dialect, &returned)?;
    let plain = match (plain, plain_relation(run, &returned.model)) {
        (Some(plain), _) => plain,
        (None, None) => false,
        (None, Some(table)) => {
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
const MANAGED_COLUMNS: usize = 6;

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

/// The bytes that one reading of the model scans, as the warehouse estimates without doing it; `None` where it cannot.
pub async fn estimate(
    session: &mut dyn Session,
    run: &Run<'_>,
    described: &Described,
) -> Result<Option<u64>, Error> {
    let select = Statement::Model { model: &described.model }.sql(run.dialect())?;
    session.estimate(&select).await.map_err(|e| model_trouble(&run.sync.model, e))
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

/// What statements call rows of which a subquery speaks that has other rows of its own.
const ROWS: [&str; 13] = ["a", "d", "f", "g", "h", "k", "m", "n", "o", "p", "s", "t", "w"];

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
        let named_as_a_row = ROWS.iter().any(|row| column.name.eq_ignore_ascii_case(row));
        if dialect.facts().fields_first && named_as_a_row && column.logical == LogicalType::Json {
            return Err(Error::new(
                ErrorCode::ModelReservedColumn,
                format!(
                    "model `{}` returns the nested column `{}`; levin's statements name rows by one letter, and {} would \
                     take a field of the column for a column of such a row",
                    model.slug,
                    column.name,
                    dialect.name()
                ),
            )
            .at(model.file.clone(), 1));
        }
        let own = match dialect.facts().folds_to {
            sql_templates::Folding::Lower => column.name.clone(),
            _ => column.name.to_lowercase(),
        };
        if own.starts_with("_levin_") {
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

/// The managed tables of a sync.
pub fn tables_of(source: &SourceSpec, project: &str, sync_id: i64) -> Result<SyncTables, Error> {
    SyncTables::new(&source.planner_schema, &source.audit_schema, project, sync_id)
        .map_err(|e| Error::new(ErrorCode::ProjectInvalid, format!("source `{}`: {e}", source.slug)))
}
