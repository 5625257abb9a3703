//! What BigQuery says when something is wrong, and what that means here.

use serde::Deserialize;

use crate::warehouse::{ErrorKind, WarehouseError};

/// One error in Google's form, as it stands in answers and in the state of jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Said {
    /// One word for a program.
    #[serde(default)]
    pub reason: String,
    /// A sentence for a person.
    #[serde(default)]
    pub message: String,
}

#[derive(Deserialize)]
struct Answer {
    error: Inner,
}

#[derive(Deserialize)]
struct Inner {
    #[serde(default)]
    message: String,
    #[serde(default)]
    errors: Vec<Said>,
    #[serde(default)]
    status: String,
}

impl Said {
    /// Reads the body of an answer with this status; whatever it is, something is said of it.
    pub(super) fn read(status: u16, body: &[u8]) -> Self {
        if let Ok(Answer { error }) = serde_json::from_slice(body) {
            let first = error.errors.into_iter().next().unwrap_or_default();
            let reason = if first.reason.is_empty() { error.status } else { first.reason };
            let message = if error.message.is_empty() { first.message } else { error.message };
            return Self { reason, message };
        }
        let text = String::from_utf8_lossy(&body[..body.len().min(300)]);
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        Self { reason: String::new(), message: format!("HTTP {status}: {text}") }
    }

    /// A trouble of Google's side, or of too many requests at once, that may be over in a moment. What failed with it
    /// had no effect.
    pub(super) fn passes(&self) -> bool {
        matches!(
            self.reason.as_str(),
            "backendError"
                | "internalError"
                | "jobBackendError"
                | "jobInternalError"
                | "rateLimitExceeded"
                | "jobRateLimitExceeded"
                | "tableUnavailable"
        )
    }

    /// Another statement changed the same table, and this one was undone.
    pub(super) fn conflicts(&self) -> bool {
        self.message.contains("due to concurrent update")
    }

    /// Whether a script had kept what it wrote when this happened, or may have: the line is that of its commit.
    pub(super) fn comes_after(&self, line: usize) -> bool {
        self.line().is_some_and(|at| at > line || at == line && self.passes())
    }

    /// Another job has this id already: ours, whose answer was lost.
    pub(super) fn is_known_job(&self) -> bool {
        self.reason == "duplicate" && self.message.starts_with("Already Exists: Job ")
    }

    /// BigQuery does not tell those who may not know whether a table is there.
    pub(super) fn hides_existence(&self) -> Option<(&str, &str, &str)> {
        if self.reason != "accessDenied" || !self.message.contains("perhaps it does not exist") {
            return None;
        }
        let (_, rest) = self.message.split_once("Access Denied: Table ")?;
        let name = rest.split(' ').next()?.trim_end_matches(':');
        // A project may belong to a domain, `example.com:project`; a dataset's name has no colon.
        name.match_indices(':').find_map(|(at, _)| {
            let (dataset, table) = name[at + 1..].split_once('.')?;
            (!dataset.contains(':')).then_some((&name[..at], dataset, table))
        })
    }

    /// The line of the script at which it happened.
    pub(super) fn line(&self) -> Option<usize> {
        let (_, at) = self.message.rsplit_once("at [")?;
        at.split(':').next()?.parse().ok()
    }

    /// What kind of trouble it is.
    pub(super) fn kind(&self, status: Option<u16>) -> ErrorKind {
        match self.reason.as_str() {
            "accessDenied" | "billingNotEnabled" | "blocked" | "userProjectMissing" => ErrorKind::Permission,
            "authError" | "UNAUTHENTICATED" => ErrorKind::Authentication,
            "notFound" => ErrorKind::NotFound,
            "duplicate" => ErrorKind::AlreadyExists,
            "stopped" => ErrorKind::Cancelled,
            "timeout" => ErrorKind::TookTooLong,
            "notImplemented" | "responseTooLarge" => ErrorKind::Unsupported,
            "resourceInUse" | "rateLimitExceeded" | "jobRateLimitExceeded" | "tableUnavailable" => {
                ErrorKind::Busy
            }
            "quotaExceeded"
            | "resourcesExceeded"
            | "bytesBilledLimitExceeded"
            | "billingTierLimitExceeded" => ErrorKind::OutOfSpace,
            "invalid" | "invalidQuery" | "outOfRange" => self.kind_of_query(),
            _ => match status {
                Some(401) => ErrorKind::Authentication,
                Some(403) => ErrorKind::Permission,
                Some(404) => ErrorKind::NotFound,
                Some(429) => ErrorKind::Busy,
                _ => ErrorKind::Other,
            },
        }
    }

    /// BigQuery has one word for everything that can be wrong with a query.
    fn kind_of_query(&self) -> ErrorKind {
        const DATA: &[&str] = &[
            "division by zero",
            "bad int64 value",
            "bad double value",
            "bad numeric value",
            "bad bool value",
            "invalid date",
            "invalid datetime",
            "invalid timestamp",
            "invalid time",
            "invalid numeric value",
            "invalid bignumeric value",
            "could not cast",
            "could not convert",
            "overflow",
            "out of range",
            "invalid json",
            "required field",
            "cannot be null",
            "error while reading data",
            "input string was not valid",
            "scalar subquery produced more than one element",
            "must match at most one source row",
        ];
        let said = self.message.to_lowercase();
        if self.conflicts() {
            return ErrorKind::Busy;
        }
        if said.contains("job timed out") || said.contains("exceeded the time limit") {
            return ErrorKind::TookTooLong;
        }
        if said.starts_with("not found: ") || said.starts_with("query error: not found: ") {
            return ErrorKind::NotFound;
        }
        if said.contains("already exists") {
            return ErrorKind::AlreadyExists;
        }
        if DATA.iter().any(|words| said.contains(words)) { ErrorKind::Data } else { ErrorKind::Invalid }
    }

    /// As the rest of levin knows errors; `message` says what is to be shown of it.
    pub(super) fn error(&self, status: Option<u16>, message: String) -> WarehouseError {
        let code =
            if self.reason.is_empty() { status.map(|s| s.to_string()) } else { Some(self.reason.clone()) };
        WarehouseError { kind: self.kind(status), message, code, step: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(reason: &str, message: &str) -> Said {
        Said { reason: reason.to_owned(), message: message.to_owned() }
    }

    #[test]
    fn answers_are_read_whatever_they_are() {
        let body = br#"{"error":{"code":403,"message":"Access Denied: Project p","errors":[{"message":"x","domain":"global","reason":"accessDenied"}],"status":"PERMISSION_DENIED"}}"#;
        assert_eq!(Said::read(403, body), said("accessDenied", "Access Denied: Project p"));
        let body = br#"{"error":{"code":401,"message":"no","status":"UNAUTHENTICATED"}}"#;
        assert_eq!(Said::read(401, body).kind(Some(401)), ErrorKind::Authentication);
        let page = Said::read(502, b"<html>\n <b>Bad  Gateway</b>");
        assert_eq!(page.message, "HTTP 502: <html> <b>Bad Gateway</b>");
        assert_eq!(page.kind(Some(502)), ErrorKind::Other);
        assert_eq!(Said::read(404, b"").kind(Some(404)), ErrorKind::NotFound);
    }

    #[test]
    fn reasons_become_kinds() {
        for (reason, message, kind) in [
            ("accessDenied", "Access Denied", ErrorKind::Permission),
            ("notFound", "Not found: Table p:d.t was not found in location EU", ErrorKind::NotFound),
            ("duplicate", "Already Exists: Table p:d.t", ErrorKind::AlreadyExists),
            ("stopped", "Job execution was cancelled: User requested cancellation", ErrorKind::Cancelled),
            ("quotaExceeded", "Quota exceeded: …", ErrorKind::OutOfSpace),
            ("bytesBilledLimitExceeded", "Query exceeded limit for bytes billed", ErrorKind::OutOfSpace),
            ("resourcesExceeded", "Resources exceeded during query execution", ErrorKind::OutOfSpace),
            ("rateLimitExceeded", "Exceeded rate limits", ErrorKind::Busy),
            ("invalidQuery", "Syntax error: Unexpected identifier \"selec\" at [1:1]", ErrorKind::Invalid),
            ("invalidQuery", "division by zero: 1 / 0", ErrorKind::Data),
            ("invalidQuery", "Bad int64 value: x", ErrorKind::Data),
            ("invalidQuery", "Schema with name \"d\" already exists!", ErrorKind::AlreadyExists),
            ("invalidQuery", "Could not cast literal \"x\" to type DATE at [1:13]", ErrorKind::Data),
            (
                "invalidQuery",
                "Transaction is aborted due to concurrent update against table p:d.t.",
                ErrorKind::Busy,
            ),
            ("invalid", "Job timed out after 1 sec", ErrorKind::TookTooLong),
            ("timeout", "The job encountered an error", ErrorKind::TookTooLong),
            ("notImplemented", "Not implemented", ErrorKind::Unsupported),
            ("somethingNew", "…", ErrorKind::Other),
        ] {
            assert_eq!(said(reason, message).kind(None), kind, "{reason}: {message}");
        }
    }

    #[test]
    fn only_what_had_no_effect_passes() {
        assert!(said("backendError", "").passes() && said("jobRateLimitExceeded", "").passes());
        for reason in ["invalidQuery", "quotaExceeded", "accessDenied", "stopped", "timeout", ""] {
            assert!(!said(reason, "").passes(), "{reason}");
        }
        assert!(said("duplicate", "Already Exists: Job p:EU.levin_1").is_known_job());
        assert!(!said("duplicate", "Already Exists: Table p:d.t").is_known_job());
    }

    #[test]
    fn what_may_not_be_there_is_named() {
        let hidden = said(
            "accessDenied",
            "Access Denied: Table p-1:d.t: User does not have permission to query table p-1:d.t, or perhaps it does not exist.",
        );
        assert_eq!(hidden.hides_existence(), Some(("p-1", "d", "t")));
        let of_domain =
            said("accessDenied", "Access Denied: Table example.com:p:d.t: … or perhaps it does not exist.");
        assert_eq!(of_domain.hides_existence(), Some(("example.com:p", "d", "t")));
        assert_eq!(said("accessDenied", "Access Denied: Project p: no").hides_existence(), None);
        assert_eq!(said("", "Query error: no at [12:3]").line(), Some(12));
        assert_eq!(said("", "no").line(), None);
    }

    #[test]
    fn a_script_that_failed_after_its_commit_is_told_apart() {
        for (reason, message, after) in [
            ("backendError", "Error at [8:1]", true),
            ("invalidQuery", "Query error: x at [8:1]", true),
            ("backendError", "Error at [7:1]", true),
            ("invalidQuery", "Transaction is aborted due to concurrent update against t at [7:1]", false),
            ("backendError", "Error at [6:1]", false),
            ("backendError", "Error encountered during execution", false),
        ] {
            assert_eq!(said(reason, message).comes_after(7), after, "{message}");
        }
    }
}
