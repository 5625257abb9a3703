//! `levin keys`: who may use the API.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use super::Context;
use crate::config::duration;
use crate::error::{Error, ErrorCode, Exit};
use crate::report::Table;
use crate::server::new_key;
use crate::store::{Key, Scope, Store, text_of_now};

/// Make, list and end keys of the API
///
/// A key is shown once, when it is made: only its digest is kept. A running server knows new keys at once, and
/// refuses revoked ones within five seconds.
#[derive(Debug, clap::Args)]
#[command(
    arg_required_else_help = true,
    subcommand_required = true,
    after_help = "\
Examples:
  levin keys create airflow --scope run
  levin keys create ci --scope read --expires 90d --json | jq -r .key
  levin keys list
  levin keys revoke airflow"
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a key and print it: this once
    #[command(after_help = "\
Examples:
  levin keys create airflow --scope run
  levin keys create ci --scope read --expires 90d --json | jq -r .key")]
    Create {
        /// What the key is called, in lists and in the history of runs
        #[arg(value_parser = name)]
        name: String,
        /// What it may do; each may also do what comes before it
        #[arg(long, value_enum)]
        scope: Scope,
        /// For how long it works: `12h`, `90d`. Default: until it is revoked
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        expires: Option<Duration>,
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the keys, never their secrets
    #[command(after_help = "Examples:\n  levin keys list\n  levin keys list --json")]
    List {
        /// Print one line of JSON per key
        #[arg(long)]
        json: bool,
    },
    /// End a key
    #[command(after_help = "Examples:\n  levin keys revoke airflow")]
    Revoke {
        /// Its name
        name: String,
    },
}

fn name(text: &str) -> Result<String, String> {
    let fits = (1..=64).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    if fits { Ok(text.to_owned()) } else { Err("up to 64 letters, digits, `-`, `_` and `.`".to_owned()) }
}

/// When a key ends that is made now. Moments are compared as texts, which have four digits for a year.
fn end_of(life: Duration) -> Result<String, Error> {
    let end =
        chrono::TimeDelta::from_std(life).ok().and_then(|life| chrono::Utc::now().checked_add_signed(life));
    let end = end.filter(|end| chrono::Datelike::year(end) <= 9_999);
    let end = end.ok_or_else(|| {
        Error::new(ErrorCode::Usage, "the key would work beyond the year 9999")
            .hint("leave `--expires` out: the key then works until it is revoked")
    })?;
    Ok(end.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<ExitCode, Error> {
    let project = context.project()?;
    let store = Store::of(&project).await?;
    let report = &context.report;
    match args.command {
        Command::Create { name, scope, expires, json } => {
            let expires = expires.map(end_of).transpose()?;
            let (id, text, hash) = new_key()?;
            let key = Key {
                name,
                id,
                hash,
                scope,
                created_at: text_of_now(),
                expires_at: expires,
                revoked_at: None,
                used_at: None,
            };
            if !store.create_key(&key).await? {
                return Err(Error::new(ErrorCode::Usage, format!("there is a key `{}`", key.name)).hint(
                    format!("choose another name, or end that one: `levin keys revoke {}`", key.name),
                ));
            }
            if json {
                let line = json!({
                    "name": key.name, "key": text, "scope": scope.name(), "expiresAt": key.expires_at,
                });
                // Not through the redactor: the secret is what was asked for.
                report.data(&line.to_string());
            } else {
                report.data(&text);
                report.note("keep it: it is shown only this once");
            }
        }
        Command::List { json } => {
            let keys = store.keys().await?;
            let now = text_of_now();
            let mut table = Table::new(&["name", "scope", "status", "created", "expires", "last used"]);
            for key in &keys {
                let state = state(key, &now);
                if json {
                    report.json_line(&json!({
                        "name": key.name, "id": key.id, "scope": key.scope.name(), "status": state,
                        "createdAt": key.created_at, "expiresAt": key.expires_at,
                        "revokedAt": key.revoked_at, "lastUsedAt": key.used_at,
                    }));
                    continue;
                }
                table.row([
                    key.name.clone(),
                    key.scope.name().to_owned(),
                    state.to_owned(),
                    key.created_at.clone(),
                    key.expires_at.clone().unwrap_or_else(|| "never".to_owned()),
                    key.used_at.clone().unwrap_or_else(|| "never".to_owned()),
                ]);
            }
            if !json && keys.is_empty() {
                report.note("no key yet: `levin keys create NAME --scope run`");
            } else if !json {
                report.table(&table);
            }
        }
        Command::Revoke { name } => {
            if !store.revoke_key(&name, &text_of_now()).await? {
                return Err(Error::new(
                    ErrorCode::Usage,
                    format!("there is no key `{name}` that still works"),
                )
                .hint("`levin keys list` shows them all"));
            }
            report.done(&format!(
                "`{name}` is refused from now on; a running server hears of it within 5 seconds"
            ));
        }
    }
    Ok(Exit::Done.into())
}

fn state(key: &Key, now: &str) -> &'static str {
    if key.revoked_at.is_some() {
        "revoked"
    } else if key.expires_at.as_deref().is_some_and(|end| end <= now) {
        "expired"
    } else {
        "works"
    }
}
