//! The managed tables of one sync.

use crate::facts::SnapshotPart;
use crate::sql::{Ident, InvalidText, TableRef};

/// Names of everything that levin keeps in a warehouse for one sync. They are made of the project's
/// and the sync's numbers, never of slugs: a renamed or very long slug changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncTables {
    planner: Ident,
    audit: Ident,
    prefix: String,
    /// The word under which another snapshot, doubts and rejections stand.
    aside: Option<String>,
}

impl SyncTables {
    /// `project` is the project's uuid, of which the first eight hexadecimal digits enter the names.
    pub fn new(
        planner_schema: &str,
        audit_schema: &str,
        project: &str,
        sync_id: i64,
    ) -> Result<Self, InvalidText> {
        Ok(Self {
            planner: Ident::new(planner_schema)?,
            audit: Ident::new(audit_schema)?,
            prefix: format!("{}_s{sync_id}", project_prefix(project)),
            aside: None,
        })
    }

    /// The same tables, with a snapshot, doubts and rejections that stand aside: in another shape until they are put
    /// in place, or for a rehearsal.
    #[must_use]
    pub fn aside(&self, of: &str) -> Self {
        Self { aside: Some(of.to_owned()), ..self.clone() }
    }

    /// The schema of the planner's tables.
    pub fn planner_schema(&self) -> &Ident {
        &self.planner
    }

    /// The schema of the audit tables.
    pub fn audit_schema(&self) -> &Ident {
        &self.audit
    }

    fn table(&self, suffix: &str) -> TableRef {
        TableRef { schema: self.planner.clone(), name: Ident(format!("{}_{suffix}", self.prefix)) }
    }

    fn known(&self, suffix: &str) -> TableRef {
        match &self.aside {
            Some(of) => self.table(&format!("{suffix}_{of}")),
            None => self.table(suffix),
        }
    }

    /// One row: lease, generation, the delivery in flight, what the snapshot stands for.
    pub fn state(&self) -> TableRef {
        self.table("state")
    }

    /// What the destination accepted.
    pub fn snapshot(&self) -> TableRef {
        self.known("snapshot")
    }

    /// Keys that were sent and never answered for.
    pub fn doubts(&self) -> TableRef {
        self.known("doubts")
    }

    /// Rows that were refused, by the destination or before sending.
    pub fn rejections(&self) -> TableRef {
        self.known("rejections")
    }

    /// The differing rows of one run. `of` is the generation, or a word for a rehearsal.
    pub fn diff(&self, of: &str) -> TableRef {
        self.table(&format!("diff_{of}"))
    }

    /// A run's copy of a model that must be read only once.
    pub fn stage(&self, of: &str) -> TableRef {
        self.table(&format!("model_{of}"))
    }

    /// A run's keys that are null or not unique.
    pub fn set_aside(&self, of: &str) -> TableRef {
        self.table(&format!("set_aside_{of}"))
    }

    /// How rows of one commit ended that were not accepted.
    pub fn outcomes(&self, of: &str) -> TableRef {
        self.table(&format!("outcomes_{of}"))
    }

    /// One of the tables in which a sync remembers its rows.
    pub fn part(&self, part: SnapshotPart) -> TableRef {
        match part {
            SnapshotPart::Snapshot => self.snapshot(),
            SnapshotPart::Doubts => self.doubts(),
            SnapshotPart::Rejections => self.rejections(),
        }
    }

    /// The managed table with a name that the state recorded.
    pub fn recorded(&self, name: &str) -> Result<TableRef, InvalidText> {
        Ok(TableRef { schema: self.planner.clone(), name: Ident::new(name)? })
    }

    /// One row per run of every sync, for dashboards.
    pub fn sync_runs(&self) -> TableRef {
        TableRef { schema: self.audit.clone(), name: Ident("sync_runs".to_owned()) }
    }

    /// The word under which a table of this sync was made, if it is one that each run or rehearsal makes anew.
    pub fn word_of<'a>(&self, name: &'a str) -> Option<&'a str> {
        let rest = name.strip_prefix(&self.prefix)?.strip_prefix('_')?;
        MADE_ANEW.iter().find_map(|p| rest.strip_prefix(p))
    }
}

/// How the names of tables go on that each run makes anew.
const MADE_ANEW: &[&str] =
    &["diff_", "model_", "set_aside_", "outcomes_", "snapshot_", "doubts_", "rejections_"];

/// The beginning of every managed table's name of one project.
pub fn project_prefix(project: &str) -> String {
    let digits: String = project.chars().filter(char::is_ascii_hexdigit).take(8).collect();
    format!("p{digits}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROJECT: &str = "6f0c2a9e-0000-4000-8000-000000000000";

    #[test]
    fn names_are_made_of_numbers_and_stay_short() {
        let tables = SyncTables::new("levin_planner", "levin_audit", PROJECT, 12).unwrap();
        assert_eq!(tables.snapshot().to_string(), "levin_planner.p6f0c2a9e_s12_snapshot");
        assert_eq!(tables.diff("7").to_string(), "levin_planner.p6f0c2a9e_s12_diff_7");
        assert_eq!(tables.sync_runs().to_string(), "levin_audit.sync_runs");
        let reshaped = tables.aside("7").snapshot();
        assert_eq!(reshaped.to_string(), "levin_planner.p6f0c2a9e_s12_snapshot_7");
        let largest = SyncTables::new("s", "a", PROJECT, i64::MAX).unwrap();
        let names =
            [largest.outcomes(&format!("{}_99999", u32::MAX)), largest.set_aside(&u32::MAX.to_string())];
        assert!(names.iter().all(|t| t.name.name().len() <= 63), "{names:?}");
        assert!(SyncTables::new("", "a", PROJECT, 1).is_err());
        assert!(SyncTables::new("s", "a\0", PROJECT, 1).is_err());
    }

    #[test]
    fn no_two_tables_of_a_sync_have_one_name() {
        let tables = SyncTables::new("s", "a", PROJECT, 1).unwrap();
        let of = |word: &str| {
            [tables.diff(word), tables.stage(word), tables.set_aside(word), tables.outcomes(word)]
        };
        let mut all = vec![tables.state(), tables.snapshot(), tables.doubts(), tables.rejections()];
        let aside = tables.aside("7");
        all.extend([aside.snapshot(), aside.doubts(), aside.rejections()]);
        all.extend(of("7").into_iter().chain(of("7_0")));
        let names: std::collections::BTreeSet<_> = all.iter().map(|t| t.name.name()).collect();
        assert_eq!(names.len(), all.len());
    }

    #[test]
    fn only_what_a_run_makes_anew_is_left_over() {
        let tables = SyncTables::new("s", "a", PROJECT, 1).unwrap();
        for made in [tables.diff("7"), tables.stage("7"), tables.set_aside("7"), tables.outcomes("7_0")] {
            assert!(tables.word_of(made.name.name()).is_some_and(|word| word.starts_with('7')), "{made}");
        }
        assert_eq!(tables.word_of(tables.aside("7").snapshot().name.name()), Some("7"));
        for kept in [tables.state(), tables.snapshot(), tables.doubts(), tables.rejections()] {
            assert_eq!(tables.word_of(kept.name.name()), None, "{kept}");
        }
        let tenth = SyncTables::new("s", "a", PROJECT, 10).unwrap();
        assert_eq!(tables.word_of(tenth.diff("7").name.name()), None, "another sync's");
        let other = SyncTables::new("s", "a", "7f0c2a9e", 1).unwrap();
        assert_eq!(tables.word_of(other.diff("7").name.name()), None, "another project's");
        assert!(tables.word_of("p6f0c2a9e_s1diff_7").or(tables.word_of("orders")).is_none());
    }

    #[test]
    fn a_recorded_name_is_found_in_the_planner_schema() {
        let tables = SyncTables::new("s", "a", PROJECT, 1).unwrap();
        let diff = tables.diff("7");
        assert_eq!(tables.recorded(diff.name.name()), Ok(diff));
        assert!(tables.recorded("").is_err());
        assert_eq!(project_prefix("ABCDEFab-cd"), "pABCDEFab");
        assert_eq!(project_prefix("x-1; drop--2"), "p1d2");
    }
}
