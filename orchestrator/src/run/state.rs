//! The state's row of one sync: lease, generation, the delivery in flight, what the snapshot stands for.

use connectors::change::Operation;
use connectors::warehouse::{ErrorKind, Session};
use sql_templates::{Atomicity, DiffShape, Statement, script};

use super::Run;
use super::definition::{Definition, Identity};
use super::lease::Holder;
use super::plans::KeptPlan;
use super::rows::result_rows;
use crate::error::{Error, ErrorCode};
use crate::grants::missing_for_writing;

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
    /// Open rejections, with the keys set aside.
    pub rejections: i64,
    /// Rows among them that were sent and refused.
    pub refused: i64,
    /// Seconds since the model was last compared with the snapshot.
    pub idle_seconds: Option<f64>,
    /// The generation under which that changed last against which a model is compared.
    pub basis: i64,
    /// Rows of the snapshot, when they were counted since it changed last.
    pub counted: Option<i64>,
    /// Open rejections of rows that are not to be sent as they are.
    pub parked: i64,
    /// Tables that the state speaks of and somebody dropped.
    pub missing: Vec<String>,
    /// Plans that can be applied, as long as the basis is theirs.
    pub(super) plans: Vec<KeptPlan>,
}

impl State {
    /// Whether somebody runs the sync at this moment: the lease is held, and not by a process that is gone.
    pub fn is_under_way(&self) -> bool {
        self.lease_seconds.is_some_and(|s| s > 0.0) && !self.holder.as_ref().is_some_and(Holder::is_gone)
    }

    /// Whether there is a snapshot.
    pub fn has_snapshot(&self) -> bool {
        self.definition.is_some() && self.missing.is_empty()
    }

    /// What the sync was when an earlier run was to empty its destination and never knew that it did.
    pub fn clearing(&self) -> Option<&Identity> {
        self.definition.as_ref()?.clearing.as_ref()
    }
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
    /// The operations that it sends.
    pub sent: Vec<Operation>,
    /// It leaves removals to the next run, and rows that need one of them wait.
    pub waits: bool,
    /// The store that holds its notes.
    pub store: String,
    /// Its run.
    pub run: i64,
    /// Its diff's rows have other numbers than when it began: what was noted of them says nothing.
    pub renumbered: bool,
}

/// Stands among the operations of a delivery that leaves removals to the next run while others wait for them.
pub const WAITS: &str = "waits";

fn words(sent: &str) -> impl Iterator<Item = &str> {
    sent.split(',')
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
    let sent = row.text("delivering_sent")?.unwrap_or_default();
    let delivering = match row.integer("delivering")? {
        None => None,
        Some(generation) => Some(Delivering {
            generation,
            table: row.text("delivering_table")?.unwrap_or_default(),
            shape: row.text("delivering_shape")?.and_then(|s| DiffShape::from_name(&s)).ok_or_else(|| {
                Error::new(ErrorCode::Internal, "the state names a delivery of an unknown form")
            })?,
            sent: words(&sent)
                .filter_map(|word| Operation::ALL.into_iter().find(|o| o.name() == word))
                .collect(),
            waits: words(&sent).any(|word| word == WAITS),
            store: row.text("delivering_store")?.unwrap_or_default(),
            run: row.integer("delivering_run")?.unwrap_or_default(),
            renumbered: row.truth("delivering_renumbered")?,
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
        refused: row.count("refused")?,
        idle_seconds: row.float("idle_seconds")?,
        basis: row.count("basis")?,
        counted: row.integer("counted")?,
        parked: row.count("parked")?,
        missing: Vec::new(),
        // What another version of levin wrote is no plan of this one.
        plans: row.text("plans")?.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default(),
    }))
}
