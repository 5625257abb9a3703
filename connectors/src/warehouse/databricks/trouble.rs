//! What Databricks says when something is wrong, and what that means here.

use serde::Deserialize;
use serde_json::Value;

use crate::http::Redactor;
use crate::warehouse::{ErrorKind, WarehouseError};

/// The error of a statement, or of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// One word for a program: `BAD_REQUEST`, `PERMISSION_DENIED` …
    pub code: String,
    /// A sentence for a person; a statement's begins with its error condition in brackets.
    pub message: String,
    /// The SQLSTATE, when it was the statement that failed.
    pub sql_state: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Body {
    error_code: Value,
    message: String,
    error: Value,
    error_description: String,
}

impl Said {
    /// Reads the body of an answer with this status; whatever it is, something is said of it.
    pub(super) fn read(status: u16, body: &[u8]) -> Self {
        let word = |value: &Value| match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => String::new(),
        };
        let read: Body = serde_json::from_slice(body).unwrap_or_default();
        let (code, message) = match word(&read.error_code) {
            code if code.is_empty() => (word(&read.error), read.error_description),
            code => (code, read.message),
        };
        if code.is_empty() && message.is_empty() {
            let text = String::from_utf8_lossy(&body[..body.len().min(300)]);
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            return Self { message: format!("HTTP {status}: {text}"), ..Self::default() };
        }
        Self { code, message, sql_state: None }
    }

    /// The condition's name: `TABLE_OR_VIEW_NOT_FOUND`.
    fn condition(&self) -> &str {
        let name = self.message.trim_start().strip_prefix('[').and_then(|rest| rest.split_once(']'));
        name.map_or("", |(name, _)| name)
    }

    fn state(&self) -> &str {
        self.sql_state.as_deref().unwrap_or_default()
    }

    /// A statement that another one's write undid, or that trouble on Databricks' side did: it may be run again.
    pub(super) fn passes(&self) -> bool {
        let undone = self.condition().starts_with("DELTA_CONCURRENT_")
            || self.condition().contains("TRANSACTION_CONFLICT")
            || matches!(self.state(), "2D521" | "40000" | "40001");
        undone || self.is_down()
    }

    /// Trouble on Databricks' side.
    pub(super) fn is_down(&self) -> bool {
        matches!(
            self.code.as_str(),
            "TEMPORARILY_UNAVAILABLE" | "WORKSPACE_TEMPORARILY_UNAVAILABLE" | "SERVICE_UNDER_MAINTENANCE"
        )
    }

    /// Somebody proved to be nobody, or to have a token that holds no longer.
    pub(super) fn is_unknown(&self, status: u16) -> bool {
        // A token that is none is answered with 403.
        status == 401 || status == 403 && self.message.to_lowercase().contains("invalid access token")
    }

    fn kind(&self) -> ErrorKind {
        let by_state = match self.state() {
            "42501" => Some(ErrorKind::Permission),
            "42P01" | "42703" | "42704" => Some(ErrorKind::NotFound),
            "42P06" | "42P07" | "42710" => Some(ErrorKind::AlreadyExists),
            "23505" => Some(ErrorKind::UniqueViolation),
            "2D521" | "40000" | "40001" => Some(ErrorKind::Busy),
            "57014" => Some(ErrorKind::Cancelled),
            "HYT00" => Some(ErrorKind::TookTooLong),
            state => match state.get(..2) {
                Some("0A") => Some(ErrorKind::Unsupported),
                Some("21" | "22" | "23") => Some(ErrorKind::Data),
                Some("42") => Some(ErrorKind::Invalid),
                Some("53" | "54") => Some(ErrorKind::OutOfSpace),
                _ => None,
            },
        };
        let denied = self.code == "PERMISSION_DENIED" || self.message.contains("PERMISSION_DENIED");
        match by_state {
            _ if denied => ErrorKind::Permission,
            Some(kind) => kind,
            None if self.condition().starts_with("DELTA_CONCURRENT_") => ErrorKind::Busy,
            None => match self.code.as_str() {
                "UNAUTHENTICATED" => ErrorKind::Authentication,
                "NOT_FOUND" | "RESOURCE_DOES_NOT_EXIST" => ErrorKind::NotFound,
                "ALREADY_EXISTS" => ErrorKind::AlreadyExists,
                "RESOURCE_EXHAUSTED" => ErrorKind::OutOfSpace,
                "DEADLINE_EXCEEDED" => ErrorKind::TookTooLong,
                "CANCELLED" => ErrorKind::Cancelled,
                _ if self.is_down() => ErrorKind::Busy,
                "BAD_REQUEST" | "INVALID_PARAMETER_VALUE" | "MALFORMED_REQUEST" => ErrorKind::Invalid,
                _ => ErrorKind::Other,
            },
        }
    }

    /// A statement's error.
    pub(super) fn error(&self, redactor: &Redactor) -> WarehouseError {
        self.error_as(self.kind(), redactor)
    }

    /// The error of a request with this status.
    pub(super) fn refusal(&self, status: u16, redactor: &Redactor) -> WarehouseError {
        let kind = match status {
            _ if self.is_unknown(status) => ErrorKind::Authentication,
            403 => ErrorKind::Permission,
            429 => ErrorKind::Busy,
            _ => self.kind(),
        };
        let mut error = self.error_as(kind, redactor);
        let about_warehouse = self.message.to_lowercase();
        if ["warehouse", "endpoint"].iter().any(|word| about_warehouse.contains(word)) {
            error.message.push_str(" (check `warehouse_id`, and that CAN USE of it was granted)");
        }
        error
    }

    fn error_as(&self, kind: ErrorKind, redactor: &Redactor) -> WarehouseError {
        let message = self.message.trim();
        let message = if message.is_empty() { self.code.as_str() } else { message };
        let code = self.sql_state.clone().or_else(|| (!self.code.is_empty()).then(|| self.code.clone()));
        WarehouseError { code, ..WarehouseError::new(kind, redactor.redact(message)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(code: &str, message: &str, state: &str) -> Said {
        let sql_state = (!state.is_empty()).then(|| state.to_owned());
        Said { code: code.into(), message: message.into(), sql_state }
    }

    #[test]
    fn what_is_said_of_a_statement_has_a_kind() {
        for (code, message, state, kind) in [
            ("BAD_REQUEST", "[TABLE_OR_VIEW_NOT_FOUND] no", "42P01", ErrorKind::NotFound),
            ("BAD_REQUEST", "[SCHEMA_NOT_FOUND] no", "42704", ErrorKind::NotFound),
            ("BAD_REQUEST", "[UNRESOLVED_COLUMN] no", "42703", ErrorKind::NotFound),
            ("BAD_REQUEST", "[TABLE_OR_VIEW_ALREADY_EXISTS] x", "42P07", ErrorKind::AlreadyExists),
            ("BAD_REQUEST", "[PARSE_SYNTAX_ERROR] x", "42601", ErrorKind::Invalid),
            ("BAD_REQUEST", "[CAST_INVALID_INPUT] x", "22018", ErrorKind::Data),
            ("BAD_REQUEST", "[INSUFFICIENT_PERMISSIONS] x", "42501", ErrorKind::Permission),
            ("BAD_REQUEST", "PERMISSION_DENIED: User does not have USE SCHEMA", "", ErrorKind::Permission),
            ("BAD_REQUEST", "[DELTA_CONCURRENT_APPEND] x", "2D521", ErrorKind::Busy),
            ("DEADLINE_EXCEEDED", "x", "", ErrorKind::TookTooLong),
            ("RESOURCE_EXHAUSTED", "x", "", ErrorKind::OutOfSpace),
            ("SERVICE_UNDER_MAINTENANCE", "x", "", ErrorKind::Busy),
            ("BAD_REQUEST", "[UNSUPPORTED_FEATURE] x", "0A000", ErrorKind::Unsupported),
            ("UNKNOWN", "x", "", ErrorKind::Other),
        ] {
            let error = statement(code, message, state).error(&Redactor::default());
            assert_eq!(error.kind, kind, "{message}");
            assert_eq!(error.code.as_deref(), Some(if state.is_empty() { code } else { state }));
        }
        assert!(statement("BAD_REQUEST", "[DELTA_CONCURRENT_DELETE_READ] x", "").passes());
        assert!(statement("TEMPORARILY_UNAVAILABLE", "x", "").passes());
        assert!(!statement("BAD_REQUEST", "[CAST_INVALID_INPUT] x", "22018").passes());
    }

    #[test]
    fn what_is_said_of_a_request_has_a_kind() {
        let refused = |status: u16, body: &str| {
            Said::read(status, body.as_bytes()).refusal(status, &Redactor::default())
        };
        let error = refused(403, r#"{"error_code":403,"message":"Invalid access token."}"#);
        assert_eq!((error.kind, error.code.as_deref()), (ErrorKind::Authentication, Some("403")));
        assert_eq!(refused(401, "").kind, ErrorKind::Authentication);
        let error = refused(403, r#"{"error_code":"PERMISSION_DENIED","message":"no use of warehouse x"}"#);
        assert_eq!(error.kind, ErrorKind::Permission);
        assert!(error.message.contains("`warehouse_id`"), "{error}");
        let error = refused(404, r#"{"error_code":"RESOURCE_DOES_NOT_EXIST","message":"Endpoint x"}"#);
        assert_eq!(error.kind, ErrorKind::NotFound);
        let error = refused(401, r#"{"error":"invalid_client","error_description":"Client failed"}"#);
        assert_eq!(
            (error.message.as_str(), error.code.as_deref()),
            ("Client failed", Some("invalid_client"))
        );
        assert_eq!(refused(500, "<html> down </html>").message, "HTTP 500: <html> down </html>");
    }
}
