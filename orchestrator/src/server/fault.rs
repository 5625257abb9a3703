//! What is answered when something is wrong: a status and `{"message", "details"}`.

use std::collections::BTreeMap;

use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::error::{Error, ErrorCode};
use crate::redact::Redactor;

/// What is wrong.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Error)]
pub(super) struct Fault {
    /// What happened, in a sentence.
    message: String,
    /// More of it: a sentence, or what is wrong with each field.
    #[schema(value_type = Value)]
    details: Value,
    #[serde(skip)]
    status: StatusCode,
    /// Seconds after which it may be asked again.
    #[serde(skip)]
    retry_after: Option<u64>,
}

/// What clients expect to be told of a request that is wrong, or does not fit what is there.
const INVALID: &str = "Validation failed";

impl Fault {
    pub(super) fn new(status: StatusCode, message: impl Into<String>, details: impl Into<Value>) -> Self {
        let (mut message, mut details) = (message.into(), details.into());
        // Clients read these two statuses as one kind of object, and know one message of it.
        if matches!(status, StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY) && message != INVALID {
            let reason = Value::String(std::mem::replace(&mut message, INVALID.to_owned()));
            details = match details {
                Value::Object(mut fields) => {
                    fields.insert("reason".to_owned(), reason);
                    fields.into()
                }
                hint => json!({"reason": reason, "hint": hint}),
            };
        }
        Self { message, details, status, retry_after: None }
    }

    pub(super) fn after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    pub(super) fn unauthorized(details: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Authentication error", details)
    }

    pub(super) fn not_found(what: &str, wanted: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "Not found", format!("there is no {what} {wanted}"))
    }

    /// One field is wrong.
    pub(super) fn field(name: &str, why: impl Into<String>) -> Self {
        let mut wrong = Wrong::default();
        wrong.say(name, why);
        wrong.fault()
    }

    /// The response, without what is secret.
    fn written(&self, redactor: &Redactor) -> Response {
        let mut body = json!({"message": self.message, "details": self.details});
        redact(&mut body, redactor);
        let mut response = (self.status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, JSON);
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// `application/json`.
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        // Its text may hold what must not be shown: `finished` writes it, which knows what that is.
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let status = match error.code {
            ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            ErrorCode::StoreFailed => StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::Usage | ErrorCode::ProjectInvalid | ErrorCode::SecretMissing => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            ErrorCode::SourceUnreachable
            | ErrorCode::SourceAuthentication
            | ErrorCode::SourceBusy
            | ErrorCode::SourceFailed
            | ErrorCode::SourceOutOfSpace
            | ErrorCode::SourceConnectionLost
            | ErrorCode::GrantMissing => StatusCode::BAD_GATEWAY,
            _ => StatusCode::CONFLICT,
        };
        let details = json!({"code": error.code.name(), "hint": error.advice()});
        let fault = Self::new(status, error.message, details);
        if status == StatusCode::SERVICE_UNAVAILABLE { fault.after(5) } else { fault }
    }
}

/// What is wrong with a request, field by field.
#[derive(Debug, Default)]
pub(super) struct Wrong(BTreeMap<String, String>);

impl Wrong {
    pub(super) fn say(&mut self, field: &str, why: impl Into<String>) {
        self.0.entry(field.to_owned()).or_insert_with(|| why.into());
    }

    pub(super) fn fault(self) -> Fault {
        Fault::new(StatusCode::UNPROCESSABLE_ENTITY, INVALID, json!(self.0))
    }

    /// An error when anything is wrong.
    pub(super) fn checked(self) -> Result<(), Fault> {
        if self.0.is_empty() { Ok(()) } else { Err(self.fault()) }
    }
}

/// Takes what is secret out of every text; keys are ours.
pub(super) fn redact(value: &mut Value, redactor: &Redactor) {
    match value {
        Value::String(text) => *text = redactor.redact(text),
        Value::Array(items) => items.iter_mut().for_each(|item| redact(item, redactor)),
        Value::Object(fields) => fields.values_mut().for_each(|field| redact(field, redactor)),
        _ => {}
    }
}

/// Writes what is wrong as JSON, whoever found it.
pub(super) fn finished(mut response: Response, redactor: &Redactor) -> Response {
    let status = response.status();
    if status == StatusCode::INTERNAL_SERVER_ERROR {
        if let Some(fault) = response.extensions().get::<Fault>() {
            tracing::error!(error = %redactor.redact(&fault.message), "a request could not be answered");
        }
        return broken();
    }
    let fault = response.extensions_mut().remove::<Fault>().or_else(|| {
        (status == StatusCode::METHOD_NOT_ALLOWED).then(|| {
            let allowed =
                response.headers().get(ALLOW).and_then(|value| value.to_str().ok()).unwrap_or("none");
            Fault::new(status, "Method not allowed", format!("this path takes {allowed}"))
        })
    });
    let Some(fault) = fault else { return response };
    let mut written = fault.written(redactor);
    for (name, value) in response.headers() {
        let of_old_body = matches!(name.as_str(), "content-type" | "content-length");
        if !of_old_body && !written.headers().contains_key(name) {
            written.headers_mut().insert(name, value.clone());
        }
    }
    written
}

/// A fault of levin: nothing of it is told.
pub(super) fn broken() -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, [(CONTENT_TYPE, JSON)], "\"Internal Server Error\"").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn said(response: Response) -> (u16, Value) {
        let status = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap())
    }

    #[tokio::test]
    async fn nothing_secret_leaves_with_an_error_and_nothing_at_all_with_a_fault_of_levin() {
        let redactor = Redactor::default();
        redactor.add("s3cr3t");
        let error = Error::new(ErrorCode::SourceFailed, "the password s3cr3t is wrong").hint("not s3cr3t");
        let (status, body) = said(finished(Fault::from(error).into_response(), &redactor)).await;
        assert_eq!((status, &body["message"]), (502, &json!("the password ••• is wrong")));
        assert_eq!(body["details"], json!({"code": "SOURCE_FAILED", "hint": "not •••"}));
        let broke = Fault::from(Error::new(ErrorCode::Internal, "a pointer to nowhere"));
        let (status, body) = said(finished(broke.into_response(), &redactor)).await;
        assert_eq!((status, body), (500, json!("Internal Server Error")));
        let store = Fault::from(Error::new(ErrorCode::StoreFailed, "the store failed"));
        let response = finished(store.into_response(), &redactor);
        assert_eq!(response.status().as_u16(), 503);
        assert_eq!(response.headers()[RETRY_AFTER], "5");
    }
}
