//! `levin sql`: what a run would execute now, without executing it.

use std::sync::Arc;

use connectors::change::Operation;
use sql_templates::{
    Atomicity, CommitFacts, DeliverFacts, DiffShape, EndedRange, Statement, SyncScope, script,
};

use super::batches::BEFORE_THE_FIRST;
use super::checkpoints::answers;
use super::definition::Meaning;
use super::deliver::waits;
use super::diff::{DiffQuestion, alike, diff_script};
use super::lease::Cancel;
use super::model::describe;
use super::stages::Stage;
use super::state::read_state;
use super::{Request, Run, Silent, Start, due_before, honours_parked, plan, plans, prepare};
use crate::error::Error;
use crate::project::{Project, SyncSpec};
use crate::store::Store;

/// The statements that a run would execute now, stage by stage, ready to paste.
pub async fn statements_of(
    project: &Project,
    sync: &Arc<SyncSpec>,
    store: &Store,
    only: Option<Stage>,
) -> Result<Vec<(Stage, sql_templates::Script)>, Error> {
    let silent = Silent;
    let run = Run::new(project, sync, store, Request::default(), &silent, Cancel::default())?;
    let mut session = run.session("sql").await?;
    let state = read_state(session.as_mut(), &run).await?;
    let described = describe(session.as_mut(), &run, None).await?;
    let shape = described.definition.shape();
    let scope = SyncScope { tables: &run.tables, shape: &shape, model: &described.model };
    let generation = state.as_ref().map_or(0, |s| s.generation) + 1;
    let of = generation.to_string();
    let sent = plan::sent_operations(sync.mode, sync.on_removed, Start::Incremental);
    let first =
        state.as_ref().is_none_or(|s| s.definition.is_none()) || !Meaning::of(sync.mode).keeps_snapshot();
    let digest = plans::digest_of(sync, &described.definition);
    let answers = answers(&run);
    let question = DiffQuestion {
        of: &of,
        generation,
        first,
        plain: described.plain,
        compared: described.definition.meaning == Meaning::Values,
        in_doubt: state.as_ref().is_some_and(|s| s.doubts > 0) && !first,
        due_before: state.as_ref().and_then(|s| due_before(&run, s, generation)),
        resync: state.as_ref().is_some_and(|s| s.due_before > 1),
        counted: state.as_ref().and_then(|s| s.counted),
        taken: &[],
        parked: state.as_ref().filter(|s| !first && honours_parked(&run, s)).map(|_| digest.as_str()),
        alike: !first && alike(session.as_mut(), &run, &described.definition).await?,
    };
    let diff = run.tables.diff(&of);
    let diff_shape = if first { DiffShape::First } else { DiffShape::Full };
    let words: Vec<&str> = sent.iter().map(|o| o.name()).collect();
    // Which rows end, and how, only the run itself learns: here all of them are accepted.
    let ranges: Vec<EndedRange> =
        sent.iter().map(|o| EndedRange { operation: o.name(), first: 0, last: i64::MAX }).collect();
    let keeps_snapshot = Meaning::of(sync.mode).keeps_snapshot();
    let commit = CommitFacts {
        last: true,
        complete: true,
        ranges: &ranges,
        sent: &words,
        had_rejections: state.as_ref().is_some_and(|s| s.rejections > 0),
        had_doubts: question.in_doubt,
        keeps_snapshot,
        adopt: first && keeps_snapshot,
        definition: Some(&digest),
        answers: &answers,
        max_attempts: sync.max_attempts,
        ..CommitFacts::new(diff.clone(), diff_shape, generation, 0)
    };
    let one = |statements: &[Statement<'_>]| {
        Ok::<_, Error>(script(run.dialect(), Atomicity::Transaction, statements)?)
    };
    let project_id = project.uuid.to_string();
    let mut stages = Vec::new();
    for stage in Stage::ALL.into_iter().filter(|s| only.is_none_or(|o| o == *s)) {
        let script = match stage {
            Stage::Prepare => {
                let mut statements = Vec::new();
                if state.is_none() {
                    statements.extend(prepare::create_schemas(session.as_mut(), &run).await?);
                    statements.push(Statement::CreateState {
                        tables: &run.tables,
                        project: &project_id,
                        sync_id: sync.id,
                        slug: &sync.slug,
                        generation: 0,
                    });
                }
                statements.extend([
                    Statement::ReadState { tables: &run.tables },
                    Statement::TakeLease {
                        tables: &run.tables,
                        slug: &sync.slug,
                        generation,
                        holder: "{}",
                        lease_seconds: super::lease::seconds(run.lease_length()),
                        replace_holder: false,
                    },
                ]);
                if state.as_ref().is_none_or(|s| s.definition.is_none()) {
                    statements.push(Statement::CreateTables { scope });
                }
                one(&statements)?
            }
            Stage::Diff => diff_script(&run, scope, &question, false, Atomicity::Snapshot, &[])?,
            Stage::Plan if first || shape.columns.is_empty() => continue,
            Stage::Plan => one(&[Statement::ChangedColumns { shape: &shape, diff: diff.clone() }])?,
            Stage::Deliver => {
                let page = run.warehouse().page_rows();
                let facts: Vec<DeliverFacts<'_>> = sent
                    .iter()
                    .filter(|o| !first || **o == Operation::Added)
                    .map(|operation| DeliverFacts {
                        diff: diff.clone(),
                        diff_shape,
                        operation: operation.name(),
                        previous: if *operation == Operation::Changed {
                            &described.needed.previous
                        } else {
                            &[]
                        },
                        after: page.map(|_| BEFORE_THE_FIRST),
                        through: page.map(|rows| BEFORE_THE_FIRST.saturating_add_unsigned(rows)),
                        limit: None,
                        waits: waits(&run, &shape, diff_shape, *operation),
                    })
                    .collect();
                let mut statements = vec![Statement::BeginDelivery {
                    tables: &run.tables,
                    generation,
                    diff: &diff,
                    diff_shape,
                    sent: &words,
                    store: store.id(),
                    run: 0,
                    due_before: 0,
                }];
                statements.extend(facts.iter().map(|facts| Statement::Deliver { shape: &shape, facts }));
                one(&statements)?
            }
            Stage::Commit => one(&[Statement::Commit { scope, facts: &commit }])?,
            Stage::Prune => one(&[
                Statement::Prune { drop: std::slice::from_ref(&diff) },
                Statement::ReleaseLease {
                    tables: &run.tables,
                    generation,
                    queried: None,
                    counted: None,
                    ran: true,
                },
            ])?,
        };
        stages.push((stage, script));
    }
    Ok(stages)
}
