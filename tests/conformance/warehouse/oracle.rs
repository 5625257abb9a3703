//! A second implementation of the rules, in memory: what a diff must hold, and what is known after a run.

use std::collections::{BTreeMap, BTreeSet};

use super::trial::{Counts, DiffRow, EVERY, Exception, Text, UPSERTS};

pub type Key = Vec<Text>;
pub type Values = Vec<Text>;

/// What was sent last of a key, and not answered.
#[derive(Debug, Clone)]
pub struct Doubt {
    pub values: Values,
    pub operation: &'static str,
    pub version: String,
}

/// What a sync knows, after the rules.
#[derive(Debug, Default)]
pub struct Oracle {
    /// Accepted values, and the generation of their delivery.
    pub snapshot: BTreeMap<Key, (Values, i64)>,
    pub doubts: BTreeMap<Key, Doubt>,
    pub rejected: BTreeSet<Key>,
    pub due_before: i64,
}

/// A row that the rules want in a diff: its values, its mark per column, its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub operation: &'static str,
    pub values: Values,
    pub changed: Text,
    pub version: Text,
}

/// What the rules want of a diff.
#[derive(Debug, Default)]
pub struct Wants {
    pub counts: Counts,
    pub rows: BTreeMap<Key, Wanted>,
    pub set_aside: BTreeSet<Key>,
}

/// What is true of a whole run.
#[derive(Debug, Clone, Copy)]
pub struct End {
    pub sends_removed: bool,
    /// Nothing kept it from going through its whole diff.
    pub complete: bool,
    pub resync: bool,
}

impl Oracle {
    /// The diff of a model of these rows.
    pub fn diff(&self, rows: &[(Key, Values)], resync: bool) -> Wants {
        let mut wants = Wants::default();
        wants.counts.queried = rows.len() as i64;
        let mut by_key: BTreeMap<Key, Vec<Values>> = BTreeMap::new();
        for (key, values) in rows {
            by_key.entry(key.clone()).or_default().push(values.clone());
        }
        let mut model = BTreeMap::new();
        for (key, mut values) in by_key {
            if key.iter().any(Option::is_none) {
                wants.counts.null_keys += values.len() as i64;
                wants.set_aside.insert(key);
            } else if values.len() > 1 {
                wants.counts.duplicate_key_rows += values.len() as i64;
                wants.set_aside.insert(key);
            } else {
                model.insert(key, values.remove(0));
            }
        }
        let keys: BTreeSet<&Key> =
            model.keys().chain(self.snapshot.keys()).chain(self.doubts.keys()).collect();
        for key in keys {
            if wants.set_aside.contains(key) {
                continue;
            }
            let (known, doubt) = (self.snapshot.get(key), self.doubts.get(key));
            let repeat = |operation: &str, values: Option<&Values>| {
                let same = |d: &&Doubt| d.operation == operation && values.is_none_or(|v| *v == d.values);
                doubt.filter(same).map(|d| d.version.clone())
            };
            let every = |values: &Values| Some("1".repeat(values.len()));
            let wanted = match (model.get(key), known) {
                (None, _) => Wanted {
                    operation: "removed",
                    values: known.map(|k| &k.0).or(doubt.map(|d| &d.values)).unwrap().clone(),
                    changed: None,
                    version: repeat("removed", None),
                },
                (Some(now), known) => {
                    let due = known.is_some_and(|(_, generation)| *generation < self.due_before);
                    // What a lost removal or addition left there nobody knows.
                    let unknown = known.is_none() || doubt.is_some_and(|d| d.operation != "changed");
                    let operation = if unknown || (resync && due) { "added" } else { "changed" };
                    let changed = match known {
                        None => doubt.and_then(|_| every(now)),
                        _ if doubt.is_some() || due => every(now),
                        Some((before, _)) if before == now => continue,
                        Some((before, _)) => Some(
                            now.iter().zip(before).map(|(a, b)| if a == b { '0' } else { '1' }).collect(),
                        ),
                    };
                    Wanted { operation, values: now.clone(), changed, version: repeat(operation, Some(now)) }
                }
            };
            match wanted.operation {
                "added" => wants.counts.added += 1,
                "changed" => wants.counts.changed += 1,
                _ => wants.counts.removed += 1,
            }
            wants.rows.insert(key.clone(), wanted);
        }
        wants
    }

    /// The run's end: how each row of the diff ended, if it was sent.
    pub fn commit(
        &mut self,
        end: End,
        generation: i64,
        wants: &Wants,
        rows: &[(DiffRow, Option<Exception>)],
    ) {
        let sent = if end.sends_removed { EVERY } else { UPSERTS };
        let forgets = end.complete && !end.sends_removed && !end.resync;
        // A rejection closes when its row is no longer in the diff.
        self.rejected.retain(|key| wants.rows.contains_key(key));
        self.rejected.extend(wants.set_aside.iter().cloned());
        for (row, exception) in rows {
            let key = &row.key;
            if !sent.contains(&row.operation) {
                if forgets {
                    self.snapshot.remove(key);
                    self.doubts.remove(key);
                }
                continue;
            }
            if matches!(exception, Some(Exception::Rejected | Exception::RejectedInDoubt)) {
                self.rejected.insert(key.clone());
            }
            match exception {
                None => {
                    self.rejected.remove(key);
                    self.doubts.remove(key);
                    if row.operation == "removed" {
                        self.snapshot.remove(key);
                    } else {
                        self.snapshot.insert(key.clone(), (row.values.clone(), generation));
                    }
                }
                Some(Exception::InDoubt | Exception::RejectedInDoubt) => {
                    let version = row.version.clone().unwrap_or(format!("{generation}.{}", row.sequence));
                    let (values, operation) = (row.values.clone(), row.operation);
                    self.doubts.insert(key.clone(), Doubt { values, operation, version });
                }
                Some(Exception::Rejected | Exception::NotSent) => {}
            }
        }
    }
}
