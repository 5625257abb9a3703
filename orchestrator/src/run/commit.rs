//! Stage 5: what was accepted enters the snapshot, in one fenced step.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use connectors::warehouse::{Effect, ErrorKind, Session};
use sql_templates::{Atomicity, CommitFacts, EndedRange, Script, Statement, SyncScope, TableRef, script};

use super::Run;
use super::checkpoints::Commits;
use super::state::read_state;
use crate::error::{Error, ErrorCode};
use crate::store::{NotedException, NotedOutcome};

/// The most ranges of one commit; what lies between them commits later.
pub const MOST_RANGES: usize = 500;

/// Makes the table of outcomes and fills it: read by the commit that follows and by nobody else.
pub async fn write_outcomes(
    session: &mut dyn Session,
    run: &Run<'_>,
    outcomes: &TableRef,
    exceptions: &[NotedException],
) -> Result<(), Error> {
    fail::fail_point!("commit.before_outcomes");
    let create = script(
        run.dialect(),
        Atomicity::Transaction,
        &[
            Statement::Prune { drop: std::slice::from_ref(outcomes) },
            Statement::CreateOutcomes { outcomes: outcomes.clone() },
        ],
    )?;
    session.execute(&create).await?;
    if !exceptions.is_empty() {
        session.load(outcomes, vec![outcomes_batch(exceptions)?]).await?;
    }
    fail::fail_point!("commit.after_outcomes");
    Ok(())
}

fn outcomes_batch(exceptions: &[NotedException]) -> Result<RecordBatch, Error> {
    let word = |e: &NotedException| match e.outcome {
        NotedOutcome::Rejected => "rejected",
        NotedOutcome::InDoubt => "in_doubt",
        NotedOutcome::NotSent => "not_sent",
    };
    let schema = Schema::new(vec![
        Field::new("sequence", DataType::Int64, false),
        Field::new("outcome", DataType::Utf8, false),
        Field::new("in_doubt", DataType::Boolean, false),
        Field::new("code", DataType::Utf8, true),
        Field::new("reason", DataType::Utf8, true),
    ]);
    let columns: Vec<arrow::array::ArrayRef> = vec![
        Arc::new(exceptions.iter().map(|e| e.sequence).collect::<Int64Array>()),
        Arc::new(exceptions.iter().map(|e| Some(word(e))).collect::<StringArray>()),
        Arc::new(
            exceptions
                .iter()
                .map(|e| Some(e.in_doubt || e.outcome == NotedOutcome::InDoubt))
                .collect::<BooleanArray>(),
        ),
        Arc::new(exceptions.iter().map(|e| Some(e.code.as_str())).collect::<StringArray>()),
        // Postgres has no text with a NUL; the reason is for people.
        Arc::new(
            exceptions.iter().map(|e| Some(e.reason.replace('\0', "\u{fffd}"))).collect::<StringArray>(),
        ),
    ];
    RecordBatch::try_new(Arc::new(schema), columns)
        .map_err(|e| Error::new(ErrorCode::Internal, format!("outcomes do not fit together: {e}")))
}

/// The commit's script.
pub fn commit_script(run: &Run<'_>, scope: SyncScope<'_>, facts: &CommitFacts<'_>) -> Result<Script, Error> {
    Ok(script(run.dialect(), Atomicity::Transaction, &[Statement::Commit { scope, facts }])?)
}

/// Commits, and tells what was written if that is known. A lost answer is resolved by reading what the state then says; a lock conflict or a lost
/// connection before the commit took effect is tried again.
pub async fn commit(
    session: &mut Box<dyn Session>,
    run: &Run<'_>,
    script: &Script,
    commits: Commits<'_>,
) -> Result<Option<Effect>, Error> {
    let (generation, checkpoint) = (commits.generation(), commits.checkpoint);
    let mut attempt = 0_u32;
    loop {
        fail::fail_point!("commit.before");
        let error = match commits.lease.commit(session.as_mut(), script).await {
            Ok(effect) => {
                fail::fail_point!("commit.after");
                return Ok(Some(effect));
            }
            Err(error) => error,
        };
        let passing =
            matches!(error.kind, ErrorKind::ConnectionLost | ErrorKind::Busy | ErrorKind::Unreachable);
        if error.kind == ErrorKind::Fenced
            && let Ok(Some(state)) = read_state(session.as_mut(), run).await
            && state.generation == generation
        {
            // A driver ran it twice: the first time it took effect and something else went wrong.
            if state.checkpoint > checkpoint {
                return Ok(None);
            }
            if let Some(delivering) = state.delivering.filter(|d| d.renumbered) {
                return Err(renumbered(&delivering.table));
            }
        }
        if !passing || attempt >= 5 {
            return Err(error.into());
        }
        tracing::warn!(error = %error, "the commit's answer is lost; looking at what the state says");
        attempt += 1;
        tokio::time::sleep(Duration::from_millis(200 * 2_u64.pow(attempt))).await;
        match run.session("commit").await {
            Ok(fresh) => *session = fresh,
            Err(_) if attempt < 5 => continue,
            Err(e) => return Err(e),
        }
        match read_state(session.as_mut(), run).await {
            Ok(Some(state)) if state.generation == generation && state.checkpoint > checkpoint => {
                return Ok(None);
            }
            Ok(Some(state)) if state.generation != generation => {
                return Err(Error::new(ErrorCode::LeaseLost, "another run took over before the commit"));
            }
            Ok(_) => {}
            Err(e) if attempt >= 5 => return Err(e),
            Err(_) => {}
        }
    }
}

fn renumbered(diff: &str) -> Error {
    Error::new(
        ErrorCode::SourceFailed,
        format!(
            "table `{diff}` was written anew while its rows were on their way, so nobody knows any more which \
             of them were accepted"
        ),
    )
    .hint(
        "nothing is lost: the next run sends them again. Keep `vacuum full`, `cluster` and their like away from levin's schema",
    )
}

/// Adds doubts about rows that were under way to the outcomes.
pub async fn doubt(
    session: &mut dyn Session,
    run: &Run<'_>,
    scope: SyncScope<'_>,
    facts: &CommitFacts<'_>,
    among: Option<&[EndedRange]>,
) -> Result<(), Error> {
    let doubt = script(run.dialect(), Atomicity::Transaction, &[Statement::Doubt { scope, facts, among }])?;
    session.execute(&doubt).await?;
    Ok(())
}
