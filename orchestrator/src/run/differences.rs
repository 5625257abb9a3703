//! What a diff found: its table, and how many rows of each kind.

use connectors::change::Operation;
use connectors::warehouse::Effect;
use serde::{Deserialize, Serialize};
use sql_templates::{DiffShape, TableRef};

use super::report::OperationCounts;
use super::rows::only_row;
use crate::error::{Error, ErrorCode};

/// A diff that stands in its table.
#[derive(Debug, Clone)]
pub struct Diff {
    /// The table.
    pub table: TableRef,
    /// Its form.
    pub shape: DiffShape,
    /// The table of keys that were set aside, if there are any.
    pub set_aside: Option<TableRef>,
    /// How many rows of each kind.
    pub counts: Counts,
    /// In how many rows of the snapshot a new column was taken as accepted; `None` when there is none.
    pub taken: Option<u64>,
}

/// How many rows the model has, and what they are. They add up:
/// queried = unchanged + added + changed + duplicate-key + null-key rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Rows of the model.
    pub queried: u64,
    /// Rows as the destination last accepted them.
    pub unchanged: u64,
    /// Rows that are new.
    pub added: u64,
    /// Rows with other values.
    pub changed: u64,
    /// Rows that are gone.
    pub removed: u64,
    /// Rows whose key occurs more than once.
    pub duplicate_keys: u64,
    /// Rows whose key holds a null.
    pub null_keys: u64,
    /// Keys in the snapshot, and in doubt beside it.
    pub known: u64,
    /// Dead letters among the added, changed and removed ones.
    #[serde(default)]
    pub parked: OperationCounts,
}

impl Counts {
    /// Rows of the diff.
    pub fn differing(&self) -> u64 {
        self.added + self.changed + self.removed
    }
}

/// The counts, or `None` when they say that some key is null or comes twice and nothing was set
/// aside. The snapshot holds every key once, so a model with unique keys has as many rows as are
/// known, less those removed, and those that are new.
pub fn read_counts(effect: &Effect) -> Result<Option<Counts>, Error> {
    let row = only_row(effect.result("count"), "the count")?;
    let queried = row.count("queried")?;
    let null_keys = row.count("null_keys")?;
    let duplicate_keys = row.count("duplicate_key_rows")?;
    let (added, changed, removed) = (row.count("added")?, row.count("changed")?, row.count("removed")?);
    let known = row.count("known")?;
    let careful = effect.steps.iter().any(|s| s.name == "set keys aside");
    let unique = null_keys == 0 && row.count("own_duplicates")? == 0 && row.count("expected")? == queried;
    if !careful && !unique {
        return Ok(None);
    }
    let unchanged = queried - null_keys - duplicate_keys - added - changed;
    let count = |n: i64, what: &str| {
        u64::try_from(n)
            .map_err(|_| Error::new(ErrorCode::Internal, format!("the count of {what} rows is {n}")))
    };
    let mut parked = OperationCounts::default();
    for operation in Operation::ALL {
        let column = format!("parked_{}", operation.name());
        if row.has(&column) {
            *parked.of_mut(operation) = count(row.count(&column)?, "parked")?;
        }
    }
    Ok(Some(Counts {
        parked,
        queried: count(queried, "queried")?,
        unchanged: count(unchanged, "unchanged")?,
        added: count(added, "added")?,
        changed: count(changed, "changed")?,
        removed: count(removed, "removed")?,
        duplicate_keys: count(duplicate_keys, "duplicate-key")?,
        null_keys: count(null_keys, "null-key")?,
        known: count(known, "known")?,
    }))
}
