//! Which rows a successful answer does not take.

use std::collections::HashMap;

use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;
use serde_json::value::RawValue;

use super::config::RejectedPaths;
use crate::http::{Answer, BodyEnd};

/// A row that the answer lists as not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Listed {
    /// The row's key as text; numbers with all their digits.
    pub key: String,
    pub reason: Option<String>,
}

/// The rows that a successful answer lists as rejected; none when it is empty or not JSON.
///
/// An error when the answer claims to be JSON and is not, or is cut off, or lists rows in a form
/// that cannot be read: then nobody knows which rows were taken. A 207 says that they fared differently, so
/// one without a list is such an answer too.
pub(super) fn rejected(answer: &Answer, paths: &RejectedPaths) -> Result<Vec<Listed>, String> {
    if let BodyEnd::Broken(why) = &answer.end {
        return Err(format!("HTTP {}, but the answer was cut off: {why}", answer.status));
    }
    let content_type = answer.headers.get(CONTENT_TYPE).and_then(|t| t.to_str().ok()).unwrap_or_default();
    let claims_json = is_json(content_type);
    let unreadable = |what: &str| {
        format!(
            "HTTP {}, but {what} in the answer; set `rejected: {{list, key, reason}}` to where they stand",
            answer.status
        )
    };
    let fared_differently = answer.status == StatusCode::MULTI_STATUS;
    if answer.body.is_empty() && !fared_differently {
        return Ok(Vec::new());
    }
    let body = match (serde_json::from_slice::<&RawValue>(&answer.body), &answer.end) {
        (Ok(body), BodyEnd::Complete) => body,
        _ if !claims_json && fared_differently => {
            return Err(unreadable("there is no list of rejected rows"));
        }
        _ if !claims_json => return Ok(Vec::new()),
        (_, BodyEnd::TooLong) => {
            return Err(format!("HTTP {}, but the answer is too long to read", answer.status));
        }
        (Err(error), _) => {
            return Err(format!("HTTP {}, but the answer is not valid JSON: {error}", answer.status));
        }
        (Ok(_), _) => return Err(format!("HTTP {}, but the answer is incomplete", answer.status)),
    };
    let Some(list) = at(body, &paths.list) else {
        return if fared_differently {
            Err(unreadable("there is no list of rejected rows"))
        } else {
            Ok(Vec::new())
        };
    };
    if matches!(list.get(), "null" | "0" | "false" | "{}" | "\"\"") {
        return Ok(Vec::new());
    }
    let entries: Vec<&RawValue> = serde_json::from_str(list.get())
        .map_err(|_| unreadable(&format!("`{}` is no list of rejected rows", paths.list)))?;
    entries
        .into_iter()
        .map(|entry| {
            // A list of bare keys is a list of rejected rows too.
            let bare = !entry.get().starts_with(['{', '[']);
            let key = if bare { Some(entry) } else { at(entry, &paths.key) };
            let key = key
                .and_then(text)
                .ok_or_else(|| unreadable(&format!("a rejected row has no key at `{}`", paths.key)))?;
            let reason = if bare { None } else { at(entry, &paths.reason).and_then(text) };
            Ok(Listed { key, reason })
        })
        .collect()
}

/// Whether a content type is JSON: `application/json`, `application/problem+json; charset=utf-8` …
pub(super) fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence == "text/json" || essence.ends_with("+json")
}

/// What stands at a dotted path of objects.
fn at<'a>(value: &'a RawValue, path: &str) -> Option<&'a RawValue> {
    path.split('.').filter(|p| !p.is_empty()).try_fold(value, |value, name| {
        serde_json::from_str::<HashMap<String, &RawValue>>(value.get()).ok()?.remove(name)
    })
}

/// A string's content, and any other value as it is written; nothing for null.
fn text(value: &RawValue) -> Option<String> {
    match value.get() {
        "null" => None,
        string if string.starts_with('"') => serde_json::from_str(string).ok(),
        other => Some(other.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use reqwest::StatusCode;
    use reqwest::header::HeaderMap;

    use super::*;

    fn answer(content_type: &str, body: &str, end: BodyEnd) -> Answer {
        let mut headers = HeaderMap::new();
        if !content_type.is_empty() {
            headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
        }
        Answer { status: StatusCode::OK, headers, body: Bytes::from(body.to_owned()), end, calls: 1 }
    }

    fn read(content_type: &str, body: &str) -> Result<Vec<(String, Option<String>)>, String> {
        let found = rejected(&answer(content_type, body, BodyEnd::Complete), &RejectedPaths::default())?;
        Ok(found.into_iter().map(|l| (l.key, l.reason)).collect())
    }

    #[test]
    fn listed_rows_are_found() {
        let body = r#" {"rejected": [{"key": "42", "reason": "bad \"email\""}, {"key": 12345678901234567890123, "reason": null}, "7", {"key":["a",1]}]} "#;
        let expected = vec![
            ("42".to_owned(), Some("bad \"email\"".to_owned())),
            ("12345678901234567890123".to_owned(), None),
            ("7".to_owned(), None),
            ("[\"a\",1]".to_owned(), None),
        ];
        for content_type in ["application/json", "application/vnd.api+json; charset=utf-8", "", "text/plain"]
        {
            assert_eq!(read(content_type, body).unwrap(), expected, "{content_type}");
        }
        let paths =
            RejectedPaths { list: "result.errors".into(), key: "row.id".into(), reason: "why".into() };
        let nested = answer("", r#"{"result":{"errors":[{"row":{"id":1},"why":"no"}]}}"#, BodyEnd::Complete);
        assert_eq!(
            rejected(&nested, &paths).unwrap(),
            [Listed { key: "1".into(), reason: Some("no".into()) }]
        );
    }

    #[test]
    fn answers_without_a_list_take_every_row() {
        for (content_type, body) in [
            ("application/json", ""),
            ("application/json", "{}"),
            ("application/json", "[1]"),
            ("application/json", r#"{"rejected":null}"#),
            ("application/json", r#"{"rejected":0}"#),
            ("application/json", r#"{"rejected":[]}"#),
            ("text/html", "<p>{rejected"),
            ("", "OK"),
        ] {
            assert_eq!(read(content_type, body), Ok(vec![]), "{content_type} {body}");
        }
    }

    #[test]
    fn answers_that_cannot_be_read_are_errors() {
        assert!(read("application/json", "{\"rejected\":[").unwrap_err().contains("not valid JSON"));
        assert!(read("application/json", r#"{"rejected":3}"#).unwrap_err().contains("no list"));
        assert!(read("", r#"{"rejected":[{"id":1}]}"#).unwrap_err().contains("no key at `key`"));
        let cut = answer("text/plain", "O", BodyEnd::Broken("cut".into()));
        assert!(rejected(&cut, &RejectedPaths::default()).is_err());
        for content_type in ["application/json", ""] {
            let mut several = answer(content_type, "", BodyEnd::Complete);
            several.status = StatusCode::MULTI_STATUS;
            assert!(
                rejected(&several, &RejectedPaths::default()).is_err(),
                "nobody knows which rows were taken"
            );
        }
        let long = answer("application/json", "{}", BodyEnd::TooLong);
        assert!(rejected(&long, &RejectedPaths::default()).is_err());
        let long = answer("text/plain", "{}", BodyEnd::TooLong);
        assert_eq!(rejected(&long, &RejectedPaths::default()).unwrap(), []);
    }
}
