//! What a snapshot stands for, and what has to happen when a sync stands for something else.

use connectors::change::Mode;
use serde::{Deserialize, Serialize};
use sql_templates::{Column, EngineType, LogicalType, ReshapedColumn, Shape};

use crate::error::{Error, ErrorCode};

/// What the rows of a snapshot stand for. Written in the state's row, in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// What is known of a key that is in the snapshot.
    pub meaning: Meaning,
    /// The key's columns.
    pub keys: Vec<Column>,
    /// The tracked columns.
    pub columns: Vec<Column>,
    /// Names of the columns by which the destination knows a record; empty when that is the key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matching: Vec<String>,
    /// What the sync was when its destination was to be emptied, as long as whether that happened is not known. It may
    /// be another than the one that the snapshot stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clearing: Option<Identity>,
    /// The word under which tables stand aside that are to be put in place of the known ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub put: Option<String>,
}

/// What a snapshot cannot change and go on: with another of these it begins anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The destination.
    pub target: String,
    /// What is known of a key.
    pub meaning: Meaning,
    /// Names of the key's columns, sorted.
    pub keys: Vec<String>,
}

/// What is known of a key that is in a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Meaning {
    /// The destination accepted these values.
    Values,
    /// The destination accepted the key, with whatever values it then had.
    Keys,
    /// The destination took the key off its list.
    TakenOff,
    /// Nothing: every run sends every row.
    Nothing,
}

impl Meaning {
    /// What a mode's snapshot stands for.
    pub fn of(mode: Mode) -> Self {
        match mode {
            Mode::Insert | Mode::Segment | Mode::Add => Self::Keys,
            Mode::Remove => Self::TakenOff,
            Mode::Update | Mode::Upsert | Mode::Mirror | Mode::Diff => Self::Values,
            Mode::All | Mode::Archive | Mode::Snapshot => Self::Nothing,
        }
    }
}

impl Meaning {
    /// Whether the mode compares the model with what was accepted.
    pub fn keeps_snapshot(self) -> bool {
        self != Self::Nothing
    }

    /// Whether a key in the snapshot is one that the destination has.
    pub fn holds_records(self) -> bool {
        matches!(self, Self::Values | Self::Keys)
    }
}

impl Definition {
    /// What it cannot change and go on, for this destination.
    pub fn identity(&self, target: &str) -> Identity {
        let mut keys: Vec<String> = self.keys.iter().map(|key| key.name.clone()).collect();
        keys.sort();
        Identity { target: target.to_owned(), meaning: self.meaning, keys }
    }

    /// The columns of the snapshot.
    pub fn shape(&self) -> Shape {
        let matching = self
            .matching
            .iter()
            .filter_map(|name| self.keys.iter().chain(&self.columns).find(|c| &c.name == name).cloned())
            .collect();
        Shape { keys: self.keys.clone(), columns: self.columns.clone(), matching }
    }

    /// The text that the state holds.
    pub fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads the text that the state holds.
    pub fn parse(text: &str) -> Result<Self, Error> {
        serde_json::from_str(text).map_err(|e| {
            Error::new(ErrorCode::Internal, format!("the definition in the sync's state cannot be read: {e}"))
        })
    }
}

/// How a snapshot comes to stand for what the sync now says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It does already.
    None,
    /// There is no snapshot, or nothing of it can be kept: begin with an empty one.
    Fresh,
    /// Columns came, went or changed their type.
    Reshape(Reshape),
}

/// Columns that came, went or changed their type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reshape {
    /// Every column as it will be.
    pub columns: Vec<ReshapedColumn>,
    /// Columns that the snapshot did not have.
    pub new: Vec<Column>,
    /// Columns of the old snapshot whose values have another form on the wire from now on.
    pub due: Vec<Column>,
    /// What happened, for people: `new_column:city` …
    pub reasons: Vec<String>,
}

/// Compares what the snapshot stands for with what the sync says. The two agree on key names;
/// whoever calls has dealt with those, and with another meaning.
pub fn compare(was: &Definition, is: &Definition) -> Result<Change, Error> {
    let mut columns = Vec::new();
    let mut new = Vec::new();
    let mut due = Vec::new();
    let mut reasons = Vec::new();
    for key in &is.keys {
        let before = was.keys.iter().find(|k| k.name == key.name);
        let retyped = before.is_some_and(|b| b.engine_type != key.engine_type);
        let recast = before.is_some_and(|b| b.logical != key.logical);
        if retyped {
            reasons.push(format!("key_type:{}", key.name));
        }
        let cast = if recast {
            let engine_type = EngineType::from_engine(&key.engine_type).map_err(|e| {
                Error::new(
                    ErrorCode::KeyTypeUnsupported,
                    format!("the key `{}` cannot be cast: {e}", key.name),
                )
            })?;
            Some(engine_type)
        } else {
            None
        };
        columns.push(ReshapedColumn { column: key.clone(), kept: true, cast });
    }
    for column in &is.columns {
        let before = was.columns.iter().find(|c| c.name == column.name);
        let kept = before.is_some_and(|b| b.logical == column.logical);
        match before {
            None => {
                new.push(column.clone());
                reasons.push(format!("new_column:{}", column.name));
            }
            Some(before) if !kept => {
                // Where only keys are compared, no value is owed.
                due.extend((is.meaning == Meaning::Values).then(|| before.clone()));
                reasons.push(format!("column_type:{}", column.name));
            }
            Some(before) if before.engine_type != column.engine_type => {
                reasons.push(format!("wider_column:{}", column.name));
            }
            Some(_) => {}
        }
        let cast = before.filter(|_| kept).and_then(|before| text_cast(before, column));
        columns.push(ReshapedColumn { column: column.clone(), kept, cast });
    }
    for gone in was.columns.iter().filter(|c| !is.columns.iter().any(|i| i.name == c.name)) {
        reasons.push(format!("dropped_column:{}", gone.name));
    }
    let same_order = was.keys.iter().map(|k| &k.name).eq(is.keys.iter().map(|k| &k.name))
        && was.columns.iter().map(|c| &c.name).eq(is.columns.iter().map(|c| &c.name));
    if reasons.is_empty() && same_order {
        return Ok(Change::None);
    }
    Ok(Change::Reshape(Reshape { columns, new, due, reasons }))
}

/// Numbers and times of two types have a wider one in common; text and JSON of two types may have
/// none (`json` and `jsonb`), and are cast. Without its length, so that nothing is cut.
fn text_cast(before: &Column, now: &Column) -> Option<EngineType> {
    let retyped = before.engine_type != now.engine_type;
    if !retyped || !matches!(now.logical, LogicalType::Text | LogicalType::Json) {
        return None;
    }
    let unbounded = match now.engine_type.split_once('(') {
        Some((base, length)) if length.trim_end_matches(')').chars().all(|c| c.is_ascii_digit()) => base,
        _ => now.engine_type.as_str(),
    };
    EngineType::from_engine(unbounded).ok()
}

impl Reshape {
    /// The same change for values that the new type cannot hold: they are forgotten, and their rows
    /// fall due.
    #[must_use]
    pub fn without_casts(&self, was: &Definition, keys: usize) -> Self {
        let mut changed = self.clone();
        for column in changed.columns.iter_mut().skip(keys).filter(|c| c.cast.is_some()) {
            column.cast = None;
            column.kept = false;
            let before = was.columns.iter().find(|c| c.name == column.column.name);
            changed.due.extend(before.filter(|_| was.meaning == Meaning::Values).cloned());
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, engine_type: &str, logical: LogicalType) -> Column {
        Column { name: name.to_owned(), engine_type: engine_type.to_owned(), logical }
    }

    fn definition(columns: Vec<Column>) -> Definition {
        Definition {
            meaning: Meaning::Values,
            keys: vec![column("id", "integer", LogicalType::Integer)],
            columns,
            matching: Vec::new(),
            clearing: None,
            put: None,
        }
    }

    #[test]
    fn a_snapshot_is_reshaped_by_what_changed_and_no_more() {
        let was = definition(vec![
            column("a", "integer", LogicalType::Integer),
            column("b", "text", LogicalType::Text),
            column("c", "text", LogicalType::Text),
        ]);
        assert_eq!(compare(&was, &was).unwrap(), Change::None);
        let is = definition(vec![
            column("a", "bigint", LogicalType::Integer),
            column("b", "integer", LogicalType::Integer),
            column("d", "text", LogicalType::Text),
        ]);
        let Change::Reshape(reshape) = compare(&was, &is).unwrap() else { panic!("nothing to do?") };
        assert_eq!(reshape.reasons, ["wider_column:a", "column_type:b", "new_column:d", "dropped_column:c"]);
        assert_eq!(reshape.due, [column("b", "text", LogicalType::Text)]);
        assert_eq!(reshape.new, [column("d", "text", LogicalType::Text)]);
        let kept: Vec<bool> = reshape.columns.iter().map(|c| c.kept).collect();
        assert_eq!(kept, [true, true, false, false]);
    }

    #[test]
    fn where_only_keys_are_compared_no_value_falls_due() {
        let keys = |columns| Definition { meaning: Meaning::Keys, ..definition(columns) };
        let was =
            keys(vec![column("a", "integer", LogicalType::Integer), column("b", "json", LogicalType::Json)]);
        let is = keys(vec![column("a", "text", LogicalType::Text), column("b", "jsonb", LogicalType::Json)]);
        let Change::Reshape(reshape) = compare(&was, &is).unwrap() else { panic!("nothing to do?") };
        assert!(reshape.due.is_empty() && reshape.without_casts(&was, 1).due.is_empty(), "{reshape:?}");
    }

    #[test]
    fn text_of_another_type_is_cast_and_loses_nothing() {
        let was = definition(vec![
            column("a", "json", LogicalType::Json),
            column("b", "text", LogicalType::Text),
            column("c", "text", LogicalType::Text),
        ]);
        let is = definition(vec![
            column("a", "jsonb", LogicalType::Json),
            column("b", "character varying(3)", LogicalType::Text),
            column("c", "text", LogicalType::Text),
        ]);
        let Change::Reshape(reshape) = compare(&was, &is).unwrap() else { panic!("nothing to do?") };
        let casts: Vec<_> = reshape.columns.iter().map(|c| c.cast.clone()).collect();
        let cast = |t| Some(EngineType::from_engine(t).unwrap());
        assert_eq!(casts, [None, cast("jsonb"), cast("character varying"), None]);
        assert!(reshape.due.is_empty());
        let forgetful = reshape.without_casts(&was, 1);
        assert!(forgetful.columns[1..].iter().all(|c| c.cast.is_none()));
        assert_eq!(forgetful.due.len(), 2);
    }

    #[test]
    fn only_a_key_with_another_form_is_cast() {
        let was = definition(vec![]);
        let mut is = was.clone();
        is.keys[0].engine_type = "bigint".to_owned();
        let Change::Reshape(wider) = compare(&was, &is).unwrap() else { panic!("nothing to do?") };
        assert_eq!(wider.columns[0].cast, None);
        is.keys[0] = column("id", "text", LogicalType::Text);
        let Change::Reshape(other) = compare(&was, &is).unwrap() else { panic!("nothing to do?") };
        assert!(other.columns[0].cast.is_some());
    }
}
