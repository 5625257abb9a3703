//! Plans that are kept: a diff that stands in its table until somebody approves it, or a day is over.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use connectors::warehouse::Session;
use serde::{Deserialize, Serialize};
use sql_templates::{Atomicity, DiffShape, Statement, TableRef, script};

use super::definition::Definition;
use super::differences::{Counts, Diff};
use super::state::{State, read_state};
use super::{Run, Start, prepare, prune};
use crate::error::{Error, ErrorCode};
use crate::project::SyncSpec;

/// How long a plan can be applied.
pub const PLAN_LIFE: Duration = Duration::from_secs(24 * 3600);

/// The most plans of a sync that are kept; the oldest gives way. Each is a table of rows that differ.
const MOST_PLANS: usize = 8;

/// Names a plan: its sync, and a digest of what it would send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PlanId {
    sync: i64,
    digest: u64,
}

impl PlanId {
    /// The name of the plan of a run: the same differences, found under the same generation, give the
    /// same name.
    pub(super) fn of(
        run: &Run<'_>,
        generation: i64,
        definition: &str,
        target: &str,
        counts: &Counts,
    ) -> Self {
        let mut digest = blake3::Hasher::new();
        digest.update(run.project.uuid.as_bytes());
        digest.update(&generation.to_le_bytes());
        digest.update(definition.as_bytes());
        digest.update(target.as_bytes());
        digest.update(format!("{counts:?}{:?}", run.start()).as_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&digest.finalize().as_bytes()[..8]);
        Self { sync: run.sync.id, digest: u64::from_be_bytes(first) }
    }

    /// The number of the sync whose plan it is.
    pub fn sync(self) -> i64 {
        self.sync
    }
}

impl fmt::Display for PlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plan_{}_{:016x}", self.sync, self.digest)
    }
}

impl FromStr for PlanId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.strip_prefix("plan_").and_then(|rest| rest.split_once('_'));
        parts
            .filter(|(_, digest)| digest.len() == 16)
            .and_then(|(sync, digest)| {
                Some(Self { sync: sync.parse().ok()?, digest: u64::from_str_radix(digest, 16).ok()? })
            })
            .ok_or_else(|| format!("`{text}` is no plan: they look like `plan_1_0123456789abcdef`"))
    }
}

impl TryFrom<String> for PlanId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<PlanId> for String {
    fn from(id: PlanId) -> Self {
        id.to_string()
    }
}

/// A plan whose diff stands in its table, as the state's row lists it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct KeptPlan {
    pub(super) id: PlanId,
    /// The table of the diff, and that of the keys set aside.
    table: String,
    set_aside: Option<String>,
    /// Every row is added, into a snapshot that is not there yet.
    first: bool,
    pub(super) fresh: bool,
    pub(super) start: Start,
    pub(super) counts: Counts,
    /// The generation of the run that kept it.
    pub(super) generation: i64,
    /// What it was computed against: the basis then, the sync's definition, the target.
    basis: i64,
    definition: String,
    target: String,
    expires_at: DateTime<Utc>,
}

impl KeptPlan {
    fn tables(&self, run: &Run<'_>) -> Result<Vec<TableRef>, Error> {
        let names = std::iter::once(&self.table).chain(&self.set_aside);
        names
            .map(|name| run.tables.recorded(name).map_err(|e| Error::new(ErrorCode::Internal, e.to_string())))
            .collect()
    }

    /// The diff, as the run that kept it found it.
    pub(super) fn diff(&self, run: &Run<'_>) -> Result<Diff, Error> {
        let mut tables = self.tables(run)?.into_iter();
        let table = tables.next().ok_or_else(|| Error::new(ErrorCode::Internal, "a plan without a table"))?;
        Ok(Diff {
            table,
            shape: if self.first { DiffShape::First } else { DiffShape::Full },
            set_aside: tables.next(),
            counts: self.counts,
            taken: None,
        })
    }

    /// Whether it still says what a run would send.
    fn is_alive(&self, basis: i64) -> bool {
        self.basis == basis && Utc::now() < self.expires_at
    }

    /// When it can no longer be applied, RFC 3339.
    pub(super) fn expires_at(&self) -> String {
        self.expires_at.to_rfc3339_opts(SecondsFormat::Secs, true)
    }
}

/// What a run would have to find unchanged: everything in the sync's and its model's file that decides
/// which rows leave and in what form, with the columns as the warehouse has them.
pub(super) fn digest_of(sync: &SyncSpec, definition: &Definition) -> String {
    let mut digest = blake3::Hasher::new();
    digest.update(definition.text().as_bytes());
    digest.update(
        format!(
            "{:?}{:?}{:?}{:?}{:?}{:?}{}",
            sync.mode,
            sync.on_removed,
            sync.object,
            sync.matching,
            sync.mappings,
            sync.model.query,
            sync.options
        )
        .as_bytes(),
    );
    digest.finalize().to_hex()[..32].to_owned()
}

/// The names of tables that plans still need.
pub(super) fn tables_of_plans(state: &State) -> impl Iterator<Item = String> + '_ {
    state.plans.iter().flat_map(|plan| std::iter::once(plan.table.clone()).chain(plan.set_aside.clone()))
}

/// Keeps the diff of a run as a plan.
pub(super) async fn keep(
    session: &mut dyn Session,
    run: &Run<'_>,
    generation: i64,
    diff: &Diff,
    fresh: bool,
    definition: &str,
    target: &str,
) -> Result<KeptPlan, Error> {
    // A change of shape that came with the diff has moved the basis.
    let state = read_state(session, run).await?;
    let state = state.ok_or_else(|| Error::new(ErrorCode::Internal, "the sync's state is gone"))?;
    let life = chrono::Duration::from_std(PLAN_LIFE).unwrap_or_default();
    let plan = KeptPlan {
        id: PlanId::of(run, generation, definition, target, &diff.counts),
        table: diff.table.name.name().to_owned(),
        set_aside: diff.set_aside.as_ref().map(|table| table.name.name().to_owned()),
        first: diff.shape == DiffShape::First,
        fresh,
        start: run.start(),
        counts: diff.counts,
        generation,
        basis: state.basis,
        definition: definition.to_owned(),
        target: target.to_owned(),
        expires_at: Utc::now() + life,
    };
    let mut plans = state.plans;
    plans.push(plan.clone());
    let oldest: Vec<KeptPlan> = plans.drain(..plans.len().saturating_sub(MOST_PLANS)).collect();
    write(session, run, generation, &plans).await?;
    drop_tables(session, run, &oldest).await?;
    Ok(plan)
}

/// Drops plans that can no longer be applied.
pub(super) async fn retire(
    session: &mut dyn Session,
    run: &Run<'_>,
    generation: i64,
    state: &mut State,
) -> Result<(), Error> {
    let (alive, over): (Vec<_>, Vec<_>) = state.plans.drain(..).partition(|plan| plan.is_alive(state.basis));
    state.plans = alive;
    if over.is_empty() {
        return Ok(());
    }
    drop_tables(session, run, &over).await?;
    write(session, run, generation, &state.plans).await
}

/// The tables of these plans.
pub(super) fn tables(run: &Run<'_>, plans: &[KeptPlan]) -> Result<Vec<TableRef>, Error> {
    let mut tables = Vec::new();
    for plan in plans {
        tables.extend(plan.tables(run)?);
    }
    Ok(tables)
}

async fn drop_tables(session: &mut dyn Session, run: &Run<'_>, plans: &[KeptPlan]) -> Result<(), Error> {
    prune::prune(session, run, &tables(run, plans)?).await.map(drop)
}

async fn write(
    session: &mut dyn Session,
    run: &Run<'_>,
    generation: i64,
    plans: &[KeptPlan],
) -> Result<(), Error> {
    let text = serde_json::to_string(plans)
        .map_err(|e| Error::new(ErrorCode::Internal, format!("cannot write the plans: {e}")))?;
    let plans = (!plans.is_empty()).then_some(text.as_str());
    let keep = Statement::KeepPlans { tables: &run.tables, generation, plans };
    session.execute(&script(run.dialect(), Atomicity::Transaction, &[keep])?).await?;
    Ok(())
}

/// From where the run of a kept plan starts.
///
/// # Errors
/// `PLAN_STALE` when the sync keeps no such plan.
pub(super) async fn start_of(run: &Run<'_>, id: PlanId) -> Result<Start, Error> {
    let mut session = run.session("plan").await?;
    let state = read_state(session.as_mut(), run).await?;
    let plans = state.map(|state| state.plans).unwrap_or_default();
    plans.iter().find(|plan| plan.id == id).map(|plan| plan.start).ok_or_else(|| unknown(run, id))
}

fn unknown(run: &Run<'_>, id: PlanId) -> Error {
    let message = format!(
        "sync `{}` keeps no plan {id}: it was applied, made stale by another run, more than a day old, or never kept",
        run.sync.slug
    );
    Error::new(ErrorCode::PlanStale, message).hint(hint(run))
}

fn hint(run: &Run<'_>) -> String {
    let slug = &run.sync.slug;
    format!("`levin plan {slug} --save FILE` makes a new one that can be applied")
}

/// The plan that a run was asked to apply, if it still fits.
///
/// # Errors
/// `PLAN_STALE` when the snapshot, the sync's definition or its target has changed since, or the plan
/// is more than a day old.
pub(super) async fn approved(
    session: &mut dyn Session,
    run: &Run<'_>,
    state: &State,
    id: PlanId,
    definition: &str,
    target: &str,
) -> Result<KeptPlan, Error> {
    let stale = |why: &str| {
        let message = format!("plan {id} of sync `{}` is stale: {why}", run.sync.slug);
        Err(Error::new(ErrorCode::PlanStale, message).hint(hint(run)))
    };
    let Some(plan) = state.plans.iter().find(|plan| plan.id == id) else { return Err(unknown(run, id)) };
    if Utc::now() >= plan.expires_at {
        return stale(&format!("it could be applied until {}", plan.expires_at()));
    }
    if plan.target != target {
        return stale(&format!("the sync now points to {target}, the plan was made for {}", plan.target));
    }
    if plan.definition != definition {
        return stale("the sync or its model was edited since");
    }
    let there = prepare::tables_there(session, run).await?;
    let missing = plan.tables(run)?.iter().any(|table| !there.iter().any(|t| t == table.name.name()));
    if plan.basis != state.basis || missing || !(plan.fresh || state.has_snapshot()) {
        return stale("another run has changed what is known of the destination since");
    }
    Ok(plan.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_plans_are_read_as_they_are_written() {
        let id = PlanId { sync: 12, digest: 0xab };
        assert_eq!(id.to_string(), "plan_12_00000000000000ab");
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in
            ["plan.json", "plan_12", "plan_12_ab", "plan_x_00000000000000ab", "", "plan_1_0000000000000zzz"]
        {
            assert!(wrong.parse::<PlanId>().is_err(), "{wrong}");
        }
    }
}
