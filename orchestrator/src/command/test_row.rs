//! `levin test-row`: the exact request for one row.

use std::process::ExitCode;

use clap_complete::engine::ArgValueCompleter;

use connectors::change::Operation;
use connectors::outcome::{Delivered, DeliveryError, Rejection, RowOutcome};
use serde_json::json;

use super::{Context, completion};
use crate::error::{Error, Exit};
use crate::run::{TestRow, test_row};
use crate::store::Store;

/// Show the exact request for one row, and with --send send it
///
/// The row is taken from the model as it is now (a removed one as the destination last accepted it), mapped
/// as the sync says, and shown as it would leave: method, address, headers and body; statements and values;
/// the line of a file. Secrets are hidden. Neither the snapshot nor the notes of runs are touched, whatever
/// the destination answers: the next run knows nothing of it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  levin test-row customers-to-crm --key 42 --as added
  levin test-row customers-to-crm --key 42 --as changed --set email=a@example.com
  levin test-row orders-to-crm --key acme --key 7 --as removed    a key of two columns
  levin test-row customers-to-crm --key 42 --as added --send      send it, and show the answer

Exit codes: 0 shown, or sent and accepted; 1 the row is rejected; 2 it could not be sent.")]
pub struct Args {
    /// The sync
    #[arg(value_name = "SYNC", add = ArgValueCompleter::new(completion::syncs))]
    sync: String,
    /// The row's key as `levin plan` shows it; for a key of several columns once per column, or `["acme",7]`
    #[arg(long, value_name = "KEY", required = true)]
    key: Vec<String>,
    /// As what the row is sent
    #[arg(long = "as", value_name = "OPERATION", value_enum)]
    operation: Word,
    /// Another value for a column; may be repeated
    #[arg(long, value_name = "COLUMN=VALUE", value_parser = assignment)]
    set: Vec<(String, String)>,
    /// Send it, once, and show what came back
    #[arg(long)]
    send: bool,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// An operation as the command line names it.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Word {
    /// In the model, not yet at the destination
    Added,
    /// In both, with other values
    Changed,
    /// No longer in the model
    Removed,
}

fn assignment(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("`{text}` is no COLUMN=VALUE"))
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<ExitCode, Error> {
    let project = context.project()?;
    let sync = project.sync(&args.sync)?;
    let store = Store::of(&project).await?;
    let operation = match args.operation {
        Word::Added => Operation::Added,
        Word::Changed => Operation::Changed,
        Word::Removed => Operation::Removed,
    };
    let asked = TestRow { key: args.key, operation, sets: args.set, send: args.send };
    let trial = test_row(&project, sync, &store, &asked).await?;
    let outcome = trial.delivered.as_ref().map(Ended::of);
    let sent = trial.delivered.as_ref().is_some_and(|delivered| delivered.calls > 0);
    let response = trial.delivered.as_ref().and_then(|d| Some(d.exchange.as_ref()?.response.clone()));
    if args.json {
        context.report.json_line(&json!({
            "syncId": sync.id, "syncSlug": sync.slug, "key": asked.key, "operation": operation.name(),
            "request": trial.request, "sent": sent, "response": response,
            "outcome": outcome.as_ref().map(|ended| ended.word),
            "code": outcome.as_ref().and_then(|ended| ended.code),
            "reason": outcome.as_ref().and_then(|ended| ended.reason.clone()),
        }));
    } else {
        if !trial.request.is_empty() {
            context.report.data(&format!("{}\n", trial.request.trim_end()));
        }
        if let Some(response) = &response {
            context.report.data(&format!("\n{}\n", response.trim_end()));
        }
        match &outcome {
            None => context.report.note("nothing was sent; `--send` sends it"),
            Some(ended) => {
                let text = [Some(ended.word), ended.code, ended.reason.as_deref()];
                let text = text.into_iter().flatten().collect::<Vec<_>>().join(": ");
                match ended.exit {
                    Exit::Done => context.report.done(&text),
                    _ => context.report.warning(&text),
                }
                context
                    .report
                    .note("the snapshot knows nothing of it: the next run sends what differs as before");
            }
        }
    }
    Ok(outcome.map_or(Exit::Done, |ended| ended.exit).into())
}

/// How the row ended, in words.
struct Ended {
    word: &'static str,
    code: Option<&'static str>,
    reason: Option<String>,
    exit: Exit,
}

impl Ended {
    fn of(delivered: &Delivered) -> Self {
        let trouble = delivered.error.as_ref().map(ToString::to_string);
        let ended = |word, code, reason, exit| Self { word, code, reason, exit };
        // One row alone is the whole batch.
        if let Some(DeliveryError::Refused { message }) = &delivered.error {
            return ended("rejected", Some(Rejection::REFUSED), Some(message.clone()), Exit::Rejected);
        }
        match delivered.outcomes.first() {
            Some(RowOutcome::Accepted) => ended("accepted", None, None, Exit::Done),
            Some(RowOutcome::Rejected(why)) => {
                ended("rejected", Some(why.code), Some(why.reason.clone()), Exit::Rejected)
            }
            Some(RowOutcome::InDoubt) => ended("in doubt", None, trouble, Exit::Failed),
            Some(RowOutcome::NotSent | RowOutcome::Deferred) | None => {
                ended("not taken", None, trouble, Exit::Failed)
            }
        }
    }
}
