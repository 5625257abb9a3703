//! In what the destination may differ from the model although all was accepted: exactly what the rules say, and no more.

use std::collections::BTreeMap;

use serde_json::Value;
use tests::receiver::Request;

/// A row of the model: column and value.
pub type Row = BTreeMap<String, Value>;

/// When something was excused: how many requests had come.
type Moment = usize;

/// What was declared, and by what a row may stay although it left.
#[derive(Debug, Default)]
pub struct Excuses {
    /// Keys that left a model whose mode removes nothing, or before somebody declared the result accepted.
    strays: BTreeMap<i64, Moment>,
    /// Rows that somebody declared accepted (`--reset-cdc`).
    rows: BTreeMap<i64, Moment>,
    /// Values that somebody declared accepted: those rows', and of new columns (`on_new_column: keep`).
    values: BTreeMap<(i64, String), Vec<(Moment, Value)>>,
}

impl Excuses {
    pub fn stray(&mut self, key: i64, now: Moment) {
        self.strays.insert(key, now);
    }

    pub fn row(&mut self, key: i64, row: &Row, now: Moment) {
        self.rows.insert(key, now);
        for (column, value) in row {
            self.value(key, column, value, now);
        }
    }

    pub fn value(&mut self, key: i64, column: &str, value: &Value, now: Moment) {
        self.values.entry((key, column.to_owned())).or_default().push((now, value.clone()));
    }

    /// Whether a key that is not in the model may be there.
    pub fn may_stay(&self, key: i64, last: Option<Moment>) -> bool {
        self.strays.get(&key).is_some_and(|at| is_later(*at, last))
    }

    /// Whether a key of the model may be missing.
    pub fn may_miss(&self, key: i64, last: Option<Moment>) -> bool {
        self.rows.get(&key).is_some_and(|at| is_later(*at, last))
    }

    /// Whether this value was declared accepted since the row was last sent.
    pub fn may_differ(&self, key: i64, column: &str, value: &Value, last: Option<Moment>) -> bool {
        self.values
            .get(&(key, column.to_owned()))
            .is_some_and(|all| all.iter().any(|(at, declared)| is_later(*at, last) && declared == value))
    }
}

/// What was excused holds until the row is next sent.
fn is_later(excused: Moment, last: Option<Moment>) -> bool {
    last.is_none_or(|last| excused > last)
}

/// The number of the last request that applied this key, other than to remove it.
pub fn last_applied(requests: &[Request], key: i64) -> Option<Moment> {
    let key = key.to_string();
    requests.iter().rev().find(|r| r.operation() != "removed" && r.applied.contains(&key)).map(|r| r.number)
}
