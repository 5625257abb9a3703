//! What an operator may see of a request and its answer: no secrets, bounded length.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode, Url};

/// What stands in place of a secret.
pub const REDACTED: &str = "***";

/// How much of a body is kept, in bytes.
const KEPT_BODY: usize = 2048;
/// How much of one header's value is kept, in bytes.
const KEPT_HEADER: usize = 512;

/// Replaces secrets in texts, however they were encoded on their way.
#[derive(Clone, Default)]
pub struct Redactor {
    /// Shared by all clones.
    known: Arc<RwLock<Known>>,
    headers: Vec<String>,
}

/// What must be hidden.
#[derive(Default)]
struct Known {
    fixed: Vec<String>,
    learned: VecDeque<Vec<String>>,
    /// All of it, the longest first, so that a secret inside another leaves nothing of the longer one.
    texts: Arc<Vec<String>>,
}

impl Known {
    fn gather(&mut self) {
        let mut texts: Vec<String> =
            self.fixed.iter().chain(self.learned.iter().flatten()).cloned().collect();
        texts.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        texts.dedup();
        self.texts = Arc::new(texts);
    }
}

/// How many tokens that were given out are remembered.
const MOST_LEARNED: usize = 16;

/// A secret in the forms in which it may turn up; nothing for an empty one.
fn forms(secret: &str) -> Vec<String> {
    if secret.is_empty() {
        return Vec::new();
    }
    let json = serde_json::Value::String(secret.to_owned()).to_string();
    vec![
        secret.to_owned(),
        utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string(),
        url::form_urlencoded::byte_serialize(secret.as_bytes()).collect(),
        secret.escape_default().to_string(),
        json[1..json.len() - 1].to_owned(),
        // Padding is left off: the text before it is the same with and without.
        STANDARD_NO_PAD.encode(secret),
        URL_SAFE_NO_PAD.encode(secret),
    ]
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redactor").finish_non_exhaustive()
    }
}

impl Redactor {
    /// Knows these texts and their percent-encoded, JSON-escaped and base64 forms.
    pub fn new(secrets: &[String]) -> Self {
        let known = Self::default();
        known.add(secrets.iter().flat_map(|secret| forms(secret)));
        known
    }

    /// Knows another text from now on, as do all clones: a token that was given out meanwhile. The oldest
    /// of them gives way.
    pub(crate) fn learn(&self, token: &str) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.learned.push_back(forms(token));
        if known.learned.len() > MOST_LEARNED {
            known.learned.pop_front();
        }
        known.gather();
    }

    fn add(&self, forms: impl IntoIterator<Item = String>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.fixed.extend(forms);
        known.gather();
    }

    fn texts(&self) -> Arc<Vec<String>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).texts.clone()
    }

    /// The same, which also hides the values of a header that carries a key.
    #[must_use]
    pub fn with_header(mut self, name: &str) -> Self {
        self.headers.push(name.to_ascii_lowercase());
        self
    }

    /// The same, hiding user and password in the form of `Authorization: Basic` wherever it turns up.
    #[must_use]
    pub fn with_basic(self, username: &str, password: &str) -> Self {
        self.add([STANDARD.encode(format!("{username}:{password}"))]);
        self
    }

    /// The text without secrets.
    pub fn redact(&self, text: &str) -> String {
        let mut redacted = text.to_owned();
        for secret in self.texts().iter() {
            if redacted.contains(secret.as_str()) {
                redacted = redacted.replace(secret.as_str(), REDACTED);
            }
        }
        redacted
    }

    /// The beginning of a text, at most so many bytes, without secrets: a secret that the cut would
    /// split is gone as well.
    pub fn excerpt(&self, text: &str, bytes: usize) -> String {
        if text.len() <= bytes {
            return self.redact(text);
        }
        let mut kept = floor(text, bytes);
        let texts = self.texts();
        // A secret that begins before the cut ends the excerpt where it begins.
        while let Some(begun) = texts.iter().find_map(|secret| {
            let cuts = (1..secret.len()).rev().filter(|at| secret.is_char_boundary(*at));
            cuts.map(|at| &secret[..at]).find(|begun| {
                kept.ends_with(begun) && text[kept.len() - begun.len()..].starts_with(secret.as_str())
            })
        }) {
            kept = &kept[..kept.len() - begun.len()];
        }
        format!("{}…", self.redact(kept))
    }

    /// Whether the value of a header (its name in lower case) is a secret.
    pub(super) fn hides(&self, header: &str) -> bool {
        const PARTS: [&str; 9] = [
            "authorization",
            "authenticate",
            "cookie",
            "api-key",
            "apikey",
            "token",
            "secret",
            "signature",
            "password",
        ];
        PARTS.iter().any(|part| header.contains(part)) || self.headers.iter().any(|h| h == header)
    }

    fn headers(&self, headers: &HeaderMap, out: &mut String) {
        for (name, value) in headers {
            let value = if self.hides(name.as_str()) {
                REDACTED.to_owned()
            } else {
                self.excerpt(&String::from_utf8_lossy(value.as_bytes()), KEPT_HEADER)
            };
            out.push_str(&format!("{name}: {value}\n"));
        }
    }

    fn body(&self, body: &[u8], out: &mut String) {
        // Enough to see whether a secret begins before the cut and ends behind it.
        let longest = self.texts().iter().map(String::len).max().unwrap_or(0);
        let start = &body[..body.len().min(KEPT_BODY + longest + 4)];
        let excerpt = self.excerpt(&String::from_utf8_lossy(start), KEPT_BODY);
        out.push('\n');
        out.push_str(&excerpt);
    }

    /// Request line, headers and the beginning of the body.
    pub fn request(&self, method: &Method, url: &Url, headers: &HeaderMap, body: &[u8]) -> String {
        let mut out = format!("{method} {}\n", self.redact(url.as_str()));
        self.headers(headers, &mut out);
        self.body(body, &mut out);
        out
    }

    /// The same with the whole body.
    pub fn whole_request(&self, method: &Method, url: &Url, headers: &HeaderMap, body: &[u8]) -> String {
        let mut out = format!("{method} {}\n", self.redact(url.as_str()));
        self.headers(headers, &mut out);
        out.push('\n');
        out.push_str(&self.redact(&String::from_utf8_lossy(body)));
        out
    }

    /// Status, headers and the beginning of the body.
    pub fn response(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> String {
        let mut out = format!("{status}\n");
        self.headers(headers, &mut out);
        self.body(body, &mut out);
        out
    }
}

/// The longest beginning of at most so many bytes that ends between characters.
fn floor(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_in_every_form() {
        let secret = "s3cr\"et/+ü key";
        let redactor =
            Redactor::new(&[secret.to_owned(), "s3cr".to_owned(), String::new()]).with_header("X-Team-Pass");
        let json = serde_json::json!({ "echo": secret }).to_string();
        for text in [
            format!("plain {secret} end"),
            json,
            format!("?k={}", utf8_percent_encode(secret, NON_ALPHANUMERIC)),
            STANDARD.encode(secret),
            format!("{secret:?}"),
        ] {
            let redacted = redactor.redact(&text);
            assert!(redacted.contains(REDACTED), "{redacted}");
            assert!(!redacted.contains("s3cr") && !redacted.contains("key"), "{redacted}");
        }

        let mut headers = HeaderMap::new();
        for name in ["authorization", "cookie", "x-api-key", "webhook-signature", "x-team-pass", "set-cookie"]
        {
            headers.insert(reqwest::header::HeaderName::from_static(name), "hidden-value".parse().unwrap());
        }
        headers.insert("x-team", "data".parse().unwrap());
        let url = Url::parse("https://example.com/rows?k=s3cr").unwrap();
        let text = redactor.request(&Method::POST, &url, &headers, b"{}");
        assert!(!text.contains("hidden-value") && !text.contains("s3cr"), "{text}");
        assert!(text.starts_with("POST https://example.com/rows?k=***\n"));
        assert!(text.contains("x-team: data\n"));
        assert!(text.ends_with("\n\n{}"));
        assert!(!format!("{redactor:?}").contains("s3cr"));
    }

    #[test]
    fn bodies_are_cut_and_a_cut_splits_no_secret() {
        let redactor = Redactor::new(&["tops3cret".to_owned()]);
        for padding in 2030..2060 {
            let body = format!("{}tops3cret{}", "é".repeat(padding / 2), "x".repeat(5000));
            let text = redactor.response(StatusCode::OK, &HeaderMap::new(), body.as_bytes());
            assert!(text.len() < 2100, "{}", text.len());
            assert!(!text.contains("tops"), "{padding}");
        }
    }
}
