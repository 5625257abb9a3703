//! What Redshift's errors ask of the caller. Most of what its compute nodes say comes under one SQLSTATE, `XX000`, with a
//! number of their own in the message or its detail.

use crate::warehouse::{ErrorKind, WarehouseError};

/// The error with the kind that Redshift's own words give it.
pub(super) fn trouble(error: tokio_postgres::Error) -> WarehouseError {
    let mut told = WarehouseError::from(&error);
    let Some(server) = error.as_db_error() else { return told };
    let detail = server.detail().unwrap_or_default();
    if let Some(kind) = kind(server.code().code(), server.message(), detail) {
        told.kind = kind;
    }
    // A bare number says nothing to a person, and the detail of this one speaks of tables and transactions only.
    if server.message().trim() == "1023" {
        told.message =
            format!("1023: serializable isolation violation: {}", detail.lines().next().unwrap_or_default());
    }
    told
}

/// A transaction was undone because another one had written what it read: it may be run again as it is.
pub(super) fn is_conflict(error: &WarehouseError) -> bool {
    error.kind == ErrorKind::Busy && matches!(error.code.as_deref(), Some("XX000" | "40001" | "40P01"))
}

fn kind(code: &str, message: &str, detail: &str) -> Option<ErrorKind> {
    let said = |words: &[&str]| words.iter().any(|word| message.contains(word) || detail.contains(word));
    match code {
        // Whoever cancels is the user; the clock and the rules of a queue are the system.
        "57014" => said(&["system's request", "statement timeout", "monitoring rule", "WLM"])
            .then_some(ErrorKind::TookTooLong),
        "XX000" if message.trim() == "1023" => Some(ErrorKind::Busy),
        "XX000" if said(&["Serializable isolation violation", "conflict with concurrent transaction"]) => {
            Some(ErrorKind::Busy)
        }
        "XX000" if said(&["Disk Full"]) => Some(ErrorKind::OutOfSpace),
        "XX000"
            if said(&[
                "Numeric data overflow",
                "Invalid digit",
                "too long for type",
                "String length exceeds",
            ]) =>
        {
            Some(ErrorKind::Data)
        }
        "XX000" if said(&["correlated subquery pattern is not supported", "not supported on Redshift"]) => {
            Some(ErrorKind::Unsupported)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_behind_one_code_is_told_apart() {
        for (code, message, detail, expected) in [
            ("XX000", "1023", "Serializable isolation violation on table - 7", Some(ErrorKind::Busy)),
            (
                "XX000",
                "could not complete because of conflict with concurrent transaction",
                "",
                Some(ErrorKind::Busy),
            ),
            ("XX000", "Disk Full", "code: 1016", Some(ErrorKind::OutOfSpace)),
            ("XX000", "Numeric data overflow (result precision)", "", Some(ErrorKind::Data)),
            ("XX000", "Assert", "code: 1000", None),
            ("57014", "Query (7) cancelled on user's request", "", None),
            ("57014", "Query (7) cancelled on system's request", "", Some(ErrorKind::TookTooLong)),
            ("42P01", "relation \"1023\" does not exist", "", None),
        ] {
            assert_eq!(kind(code, message, detail), expected, "{code} {message}");
        }
    }
}
