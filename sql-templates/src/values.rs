//! The values that macros may print, made of what statements are asked with.

use minijinja::value::Value;

use crate::column::{Column, LogicalType};
use crate::dialect::Dialect;
use crate::dispatch::{Printable, map};
use crate::facts::{CommitFacts, DiffFacts, DiffShape, EndedRange, Shape, SyncScope, TestRowFacts};
use crate::model::ModelSql;
use crate::sql::{EngineType, Ident, InvalidText, Literal, STEP_MARK, TableRef};

pub(crate) fn diff_values(
    scope: &SyncScope<'_>,
    facts: &DiffFacts<'_>,
    dialect: Dialect,
) -> Result<Vec<(&'static str, Value)>, InvalidText> {
    let tables = scope.tables;
    let marks = scope.shape.columns.len();
    let divides = facts.halves && scope.shape.matching.is_empty() && !facts.by_hash;
    let key = scope.shape.keys.first().and_then(|key| dialect.type_fact(&key.engine_type));
    let middle = key.filter(|_| divides).and_then(|fact| fact.middle.as_deref());
    // Where the model is counted in the statement that compares it, one that judges claims has no room for that.
    let apart = !dialect.facts().undoes_ddl;
    let stage = facts.stage || (apart && !scope.shape.matching.is_empty());
    let mut values = scope_values(scope, dialect);
    values.extend([
        ("middle", middle.map_or(Value::from(()), Value::from)),
        ("model", model_value(scope.model)),
        ("diff", table(&tables.diff(facts.of))),
        ("reads_once", Value::from(apart && !stage)),
        ("stage", if stage { table(&tables.stage(facts.of)) } else { Value::from(()) }),
        ("set_aside", if facts.set_aside { table(&tables.set_aside(facts.of)) } else { Value::from(()) }),
        ("generation", Value::from(facts.generation)),
        ("compared", Value::from(facts.compared && marks > 0)),
        ("in_doubt", Value::from(facts.in_doubt)),
        ("due_before", Value::from(facts.due_before)),
        ("resync", Value::from(facts.resync)),
        ("sorted", Value::from(facts.sorted)),
        ("by_hash", Value::from(facts.by_hash)),
        ("counted", Value::from(facts.counted.filter(|_| !facts.in_doubt && !facts.set_aside))),
        ("shape", Value::from(DiffShape::Full.name())),
        ("taken", columns_value(facts.taken, dialect)),
        ("parked", Value::from(facts.parked.is_some())),
        ("definition", facts.parked.map(text).transpose()?.unwrap_or_else(null)),
        ("every_mark", text(&"1".repeat(marks))?),
        ("no_mark", text(&"0".repeat(marks))?),
    ]);
    Ok(values)
}

pub(crate) fn commit_values(
    scope: &SyncScope<'_>,
    facts: &CommitFacts<'_>,
    dialect: Dialect,
) -> Result<Vec<(&'static str, Value)>, InvalidText> {
    let sent = facts.sent.iter().map(|o| text(o)).collect::<Result<Value, _>>()?;
    let forgets_removed = facts.complete
        && facts.diff_shape == DiffShape::Full
        && !facts.sent.contains(&"removed")
        && !facts.keep_removals;
    let one_holder =
        !scope.shape.matching.is_empty() && facts.keeps_snapshot && facts.diff_shape == DiffShape::Full;
    let hands_over = one_holder && (!facts.ranges.is_empty() || facts.outcomes.is_some());
    // Removals are sent, or kept for the next run.
    let supersedes = one_holder && (facts.sent.contains(&"removed") || facts.keep_removals);
    // Where one record has two rows of a diff, only taking both out first leaves no key twice.
    let in_place = dialect.facts().updates_in_place
        && scope.shape.matching.is_empty()
        && facts.diff_shape == DiffShape::Full
        && !facts.ranges.is_empty();
    let optional = |t: &Option<TableRef>| t.as_ref().map_or(Value::from(()), table);
    let mut values = scope_values(scope, dialect);
    values.extend([
        ("state", table(&scope.tables.state())),
        ("diff", table(&facts.diff)),
        ("diff_name", text(facts.diff.name.name())?),
        ("planner_literal", text(scope.tables.planner_schema().name())?),
        ("renumbered", Value::from(facts.renumbered)),
        ("in_place", Value::from(in_place)),
        ("shape", Value::from(facts.diff_shape.name())),
        ("diff_generation", Value::from(facts.diff_generation)),
        ("run", Value::from(facts.run)),
        ("generation", Value::from(facts.generation)),
        ("checkpoint", Value::from(facts.checkpoint)),
        ("last", Value::from(facts.last)),
        ("ranges", ranges_value(facts.ranges)?),
        ("exceptions", Value::from(facts.outcomes.is_some())),
        ("outcomes", optional(&facts.outcomes)),
        ("set_aside", optional(&facts.set_aside)),
        ("sent", sent),
        ("forgets_removed", Value::from(forgets_removed)),
        ("hands_over", Value::from(hands_over)),
        ("supersedes", Value::from(supersedes)),
        ("had_rejections", Value::from(facts.had_rejections)),
        ("had_doubts", Value::from(facts.had_doubts)),
        ("keeps_snapshot", Value::from(facts.keeps_snapshot)),
        ("adopt", Value::from(facts.adopt)),
        ("adoptable", Value::from(adoptable(scope.shape, dialect))),
        ("keep_set_aside", Value::from(facts.keep_set_aside && facts.set_aside.is_some())),
        ("reset", Value::from(facts.reset)),
        ("definition", facts.definition.map(text).transpose()?.unwrap_or_else(|| Value::from(()))),
        ("answers", facts.answers.iter().map(|code| text(code)).collect::<Result<Value, _>>()?),
        ("max_attempts", Value::from(facts.max_attempts)),
        ("due_before", Value::from(facts.due_before)),
        ("lease_seconds", Value::from(facts.lease_seconds)),
        ("rehearsed", Value::from(facts.rehearsed)),
    ]);
    Ok(values)
}

pub(crate) fn test_row_values(
    scope: &SyncScope<'_>,
    facts: &TestRowFacts<'_>,
    dialect: Dialect,
) -> Result<Vec<(&'static str, Value)>, InvalidText> {
    let marks = scope.shape.columns.len();
    let all = scope.shape.keys.iter().chain(&scope.shape.columns);
    let sets = all.map(|c| match facts.sets.iter().find(|(name, _)| *name == c.name) {
        Some((_, value)) => text(value),
        None => Ok(Value::from(())),
    });
    let mut values = scope_values(scope, dialect);
    values.extend([
        ("model", model_value(scope.model)),
        ("previous", columns_value(facts.previous, dialect)),
        ("key_values", facts.key.iter().map(|value| text(value)).collect::<Result<Value, _>>()?),
        ("sets", sets.collect::<Result<Value, _>>()?),
        ("version", text(facts.version)?),
        ("known", Value::from(facts.known)),
        ("from_snapshot", Value::from(facts.from_snapshot)),
        ("every_mark", text(&"1".repeat(marks))?),
        ("no_mark", text(&"0".repeat(marks))?),
    ]);
    Ok(values)
}

pub(crate) fn ranges_value(ranges: &[EndedRange]) -> Result<Value, InvalidText> {
    ranges
        .iter()
        .map(|r| {
            Ok(map([
                ("operation", text(r.operation)?),
                ("first", Value::from(r.first)),
                ("last", Value::from(r.last)),
            ]))
        })
        .collect()
}

pub(crate) fn scope_values(scope: &SyncScope<'_>, dialect: Dialect) -> Vec<(&'static str, Value)> {
    vec![
        ("snapshot", table(&scope.tables.snapshot())),
        ("doubts", table(&scope.tables.doubts())),
        ("rejections", table(&scope.tables.rejections())),
        ("all", all_columns(scope.shape, dialect)),
    ]
    .into_iter()
    .chain(shape_values(scope.shape, dialect))
    .collect()
}

/// The columns of a shape, each with its place among all of them.
pub(crate) fn shape_values(shape: &Shape, dialect: Dialect) -> Vec<(&'static str, Value)> {
    vec![
        ("keys", placed_columns(&shape.keys, shape, dialect)),
        ("columns", placed_columns(&shape.columns, shape, dialect)),
        ("matching", placed_columns(&shape.matching, shape, dialect)),
        ("row_ids", row_ids(shape, dialect)),
        ("packs_rows", Value::from(dialect.facts().packs_rows)),
    ]
}

/// Whether the table of a first diff can become the snapshot within the commit: it has no claims, and no sequences or
/// an engine that drops a column beside other changes of the table.
fn adoptable(shape: &Shape, dialect: Dialect) -> bool {
    let hidden = dialect.facts().row_ids.is_some() && row_ids(shape, dialect).is_none();
    shape.matching.is_empty() && !hidden && dialect.facts().undoes_ddl
}

/// The engine's numbers of a table's rows, unless a column of the model hides them.
pub(crate) fn row_ids(shape: &Shape, dialect: Dialect) -> Value {
    let name = dialect.facts().row_ids.as_ref();
    let hidden =
        |name: &String| shape.keys.iter().chain(&shape.columns).any(|c| c.name.eq_ignore_ascii_case(name));
    name.filter(|name| !hidden(name)).map_or(Value::from(()), |name| ident(&Ident(name.clone())))
}

pub(crate) fn ident(ident: &Ident) -> Value {
    Printable::Ident(ident.clone()).value()
}

pub(crate) fn table(table: &TableRef) -> Value {
    Printable::Table(table.clone()).value()
}

pub(crate) fn model_value(model: &ModelSql) -> Value {
    Printable::Model(model.clone()).value()
}

pub(crate) fn text(text: &str) -> Result<Value, InvalidText> {
    if text.contains(['\0', STEP_MARK]) {
        return Err(InvalidText { text: text.to_owned() });
    }
    Ok(Printable::Literal(Literal::Text(text.to_owned())).value())
}

/// A role as those name it who know several kinds of accounts: one without its kind is a service's.
pub(crate) fn principal(role: &Ident) -> String {
    const KINDS: [&str; 6] = ["user:", "group:", "domain:", "serviceAccount:", "principal:", "principalSet:"];
    let named = KINDS.iter().any(|kind| role.0.starts_with(kind));
    if named { role.0.clone() } else { format!("serviceAccount:{}", role.0) }
}

/// A text that `like … escape '\'` takes as it is.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('_', "\\_").replace('%', "\\%")
}

pub(crate) fn null() -> Value {
    Printable::Literal(Literal::Null).value()
}

pub(crate) fn column_value(column: &Column, dialect: Dialect) -> Vec<(&'static str, Value)> {
    let fact = dialect.type_fact(&column.engine_type);
    let scaled = column.logical == LogicalType::Decimal && column.engine_type.contains('(');
    let named = |name: Option<&String>| name.map_or(Value::from(()), |n| Value::from(n.as_str()));
    vec![
        ("name", ident(&Ident(column.name.clone()))),
        ("wire", named(fact.and_then(|f| f.wire.as_ref()))),
        ("as_text", named(fact.and_then(|f| f.as_text.as_ref()))),
        ("comparable", named(fact.and_then(|f| f.comparable.as_ref()))),
        ("one_text", named(fact.filter(|_| !scaled).and_then(|f| f.one_text.as_ref()))),
        ("binary", Value::from(column.logical == LogicalType::Binary)),
        (
            "type",
            EngineType::from_engine(&column.engine_type)
                .map_or(Value::from(()), |engine_type| Printable::Type(engine_type).value()),
        ),
        ("unbounded", Value::from(matches!(column.logical, LogicalType::Text | LogicalType::Binary))),
    ]
}

pub(crate) fn columns_value(columns: &[Column], dialect: Dialect) -> Value {
    columns.iter().map(|c| map(column_value(c, dialect))).collect()
}

/// Some columns of a shape, each with its place among all of them.
pub(crate) fn placed_columns(columns: &[Column], shape: &Shape, dialect: Dialect) -> Value {
    let place = |column: &Column| shape.keys.iter().chain(&shape.columns).position(|c| c.name == column.name);
    let placed = |column: &Column| {
        let mut value = column_value(column, dialect);
        value.push(("place", Value::from(place(column))));
        map(value)
    };
    columns.iter().map(placed).collect()
}

pub(crate) fn all_columns(shape: &Shape, dialect: Dialect) -> Value {
    let all: Vec<Column> = shape.keys.iter().chain(&shape.columns).cloned().collect();
    placed_columns(&all, shape, dialect)
}
