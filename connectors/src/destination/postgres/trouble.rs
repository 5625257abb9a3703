//! What an error of the server asks of the caller.

use tokio_postgres::Error;
use tokio_postgres::error::DbError;

use super::table::TableName;
use crate::catalogue::ConfigError;
use crate::outcome::DeliveryError;
use crate::postgres_client::PostgresUrl;
use crate::warehouse::{ErrorKind, WarehouseError};

/// The most characters of a message; functions of the database can say anything at any length.
const MAX_MESSAGE: usize = 500;

/// Turns errors into directives, without secrets and without values of rows.
#[derive(Debug)]
pub(super) struct Troubles {
    secrets: Vec<String>,
}

impl Troubles {
    pub(super) fn new(mut secrets: Vec<String>) -> Self {
        secrets.retain(|s| !s.is_empty());
        // A secret that is part of another would leave its rest standing.
        secrets.sort_by_key(|s| std::cmp::Reverse(s.len()));
        Self { secrets }
    }

    fn redacted(&self, text: String) -> String {
        let text = self.secrets.iter().fold(text, |text, secret| text.replace(secret, "…"));
        cut(text, MAX_MESSAGE)
    }

    /// No connection came about.
    pub(super) fn connecting(&self, error: WarehouseError, url: &PostgresUrl) -> DeliveryError {
        let message = self.redacted(error.message);
        let hint = match error.kind {
            ErrorKind::Authentication => "check user and password in the destination's `url`",
            ErrorKind::NotFound => "check the database in the destination's `url`",
            ErrorKind::Permission => "grant the role CONNECT on the database",
            _ => return unavailable(message),
        };
        DeliveryError::Unauthorized { message: format!("{}: {message}", url.identity()), hint: hint.into() }
    }

    /// A statement failed, and its transaction with it.
    pub(super) fn of(&self, error: &Error, table: Option<&TableName>) -> DeliveryError {
        let Some(server) = error.as_db_error() else {
            let WarehouseError { kind, message, .. } = WarehouseError::from(error);
            let message = self.redacted(message);
            return match kind {
                ErrorKind::ConnectionLost | ErrorKind::Unreachable => unavailable(message),
                _ => DeliveryError::Unauthorized {
                    message,
                    hint: "this server does not answer as PostgreSQL does".into(),
                },
            };
        };
        let message = self.redacted(spoken(server));
        let code = server.code().code();
        let place = table.map_or_else(String::new, |t| format!(" on {}", t.quoted()));
        let stop = |hint: String| DeliveryError::Unauthorized { message: message.clone(), hint };
        match code {
            // A policy of row-level security refuses this row, not the table.
            "42501" if server.routine() == Some("ExecWithCheckOptions") => DeliveryError::Refused { message },
            // Two rows of the batch are one row of the table, or a value is too long for an index:
            // what is left without that row passes.
            "21000" | "54000" => DeliveryError::Refused { message },
            "40001" | "40P01" | "55P03" | "55006" | "57P01" | "57P02" | "57P03" | "57P05" | "53300" => {
                unavailable(message)
            }
            // It answered, and a smaller batch may fit into the time or the memory.
            "57014" | "53200" => DeliveryError::Unavailable { answered: true, after: None, message },
            "42501" => {
                stop(format!("grant the role what it lacks{place}; `levin check` prints the statement"))
            }
            "42P01" | "3F000" => stop("create it, or correct the sync's `object`".into()),
            "42703" => stop("correct the sync's mappings, or add the column".into()),
            "25006" => stop("this server only reads: name the primary in the destination's `url`".into()),
            "53100" => stop("free some space on the server".into()),
            _ => match code.get(..2) {
                Some("22" | "23" | "44" | "P0") => DeliveryError::Refused { message },
                Some("08" | "40" | "57" | "58" | "XX" | "53") => unavailable(message),
                Some("28") => stop("check user and password in the destination's `url`".into()),
                _ => stop(format!("the table and the sync's mappings do not fit together{place}")),
            },
        }
    }
}

/// The text's beginning, with a mark where something is missing.
pub(super) fn cut(mut text: String, characters: usize) -> String {
    if let Some((end, _)) = text.char_indices().nth(characters) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Whether a failed COMMIT certainly left nothing behind.
pub(super) fn commit_certainly_failed(error: &Error) -> bool {
    error.as_db_error().is_some_and(|server| {
        let code = server.code().code();
        matches!(code.get(..2), Some("22" | "23" | "44" | "P0"))
            || matches!(code, "40001" | "40P01" | "40002")
    })
}

pub(super) fn misconfigured(error: ConfigError) -> DeliveryError {
    DeliveryError::Unauthorized { message: error.to_string(), hint: "correct the sync file".into() }
}

pub(super) fn unavailable(message: String) -> DeliveryError {
    DeliveryError::Unavailable { answered: false, after: None, message }
}

/// The server's words without the row's values.
fn spoken(server: &DbError) -> String {
    let message = match server.code().code().get(..2) {
        Some("22") => without_quotes(server.message()),
        _ => server.message().to_owned(),
    };
    match server.detail().and_then(key_of) {
        Some(detail) => format!("{message}: {detail}"),
        None => message,
    }
}

/// `invalid input syntax for type integer: "abc"` without what the value was.
fn without_quotes(message: &str) -> String {
    match (message.find('"'), message.rfind('"')) {
        (Some(first), Some(last)) if last > first => {
            format!("{}\"…\"{}", &message[..first], &message[last + 1..])
        }
        _ => message.to_owned(),
    }
}

/// `Key (a, b)=(1, 2) already exists.` without the values; nothing of details that look otherwise.
fn key_of(detail: &str) -> Option<String> {
    let (columns, rest) = detail.split_once(")=(")?;
    let columns = columns.strip_prefix("Key (")?;
    let (_, rest) = rest.rsplit_once(") ")?;
    Some(format!("Key ({columns}) {}", rest.trim_end_matches('.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_do_not_get_into_messages() {
        assert_eq!(
            without_quotes("invalid input syntax for type integer: \"a\"b\""),
            "invalid input syntax for type integer: \"…\""
        );
        assert_eq!(
            without_quotes("value \"9\" is out of range for type integer"),
            "value \"…\" is out of range for type integer"
        );
        assert_eq!(without_quotes("division by zero"), "division by zero");
        assert_eq!(key_of("Key (a, b)=(1, x) y) already exists."), Some("Key (a, b) already exists".into()));
        assert_eq!(
            key_of("Key (c)=(5) is not present in table \"o\"."),
            Some("Key (c) is not present in table \"o\"".into())
        );
        assert_eq!(key_of("Failing row contains (1, secret)."), None);
    }

    #[test]
    fn secrets_do_not_get_into_messages() {
        let troubles = Troubles::new(vec!["pa".into(), String::new(), "password".into()]);
        assert_eq!(troubles.redacted("the password, pa".into()), "the …, …");
        assert_eq!(troubles.redacted("ü".repeat(600)), "ü".repeat(500) + "…");
    }
}
