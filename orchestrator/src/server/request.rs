//! What a request says: its path, its query and its body, each read so that everything wrong is found at once.

use std::str::FromStr;

use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use chrono::{DateTime, NaiveDateTime, SecondsFormat, Utc};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::connections::body_of;
use super::fault::{Fault, Wrong};

/// The largest number that every client holds exactly.
pub(super) const LARGEST_NUMBER: i64 = 9_007_199_254_740_991;
/// The most that one page shows.
pub(super) const LONGEST_PAGE: usize = 1_000;
/// What it shows when nobody says.
const PAGE: usize = 100;

/// The numbers in the path.
#[derive(Debug)]
pub(super) struct Path(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Path {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        let params = RawPathParams::from_request_parts(parts, state).await;
        let params = params.map_err(|error| Fault::field("path", error.to_string()))?;
        Ok(Self(params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()))
    }
}

impl Path {
    /// A part as it stands there.
    pub(super) fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// A number of an object.
    pub(super) fn id(&self, name: &str) -> Result<i64, Fault> {
        id(self.text(name)).ok_or_else(|| Fault::field(name, "must be a whole number from 1"))
    }
}

/// The digits of a whole number: clients that know only one kind of number write 7 as `7.0`.
fn digits(text: &str) -> &str {
    match text.split_once('.') {
        Some((whole, rest)) if !rest.is_empty() && rest.bytes().all(|byte| byte == b'0') => whole,
        _ => text,
    }
}

fn id(text: &str) -> Option<i64> {
    let text = digits(text);
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|id| digits && (1..=LARGEST_NUMBER).contains(id))
}

/// The query: parameters that nobody knows are passed over.
#[derive(Debug)]
pub(super) struct Query {
    pairs: Vec<(String, String)>,
    wrong: Wrong,
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Fault> {
        let pairs = pairs(parts.uri.query().unwrap_or_default());
        let pairs = pairs.ok_or_else(|| Fault::field("query", "is not UTF-8 text"))?;
        Ok(Self { pairs, wrong: Wrong::default() })
    }
}

/// The pairs of a query or a form; `None` when they are no text.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let decoded = |part: &str| {
        let spaced = part.replace('+', " ");
        percent_decode_str(&spaced).decode_utf8().ok().map(std::borrow::Cow::into_owned)
    };
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decoded(name)?, decoded(value)?))
        })
        .collect()
}

/// Which part of a list is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Page {
    /// How many are passed over.
    pub(super) offset: usize,
    /// The most that are shown.
    pub(super) limit: usize,
}

impl Page {
    /// This part of a list, and whether there is more.
    pub(super) fn of<T>(self, mut all: Vec<T>) -> (Vec<T>, bool) {
        let more = all.len() > self.offset.saturating_add(self.limit);
        all.drain(..self.offset.min(all.len()));
        all.truncate(self.limit);
        (all, more)
    }
}

impl Query {
    /// The value of a parameter, the last one when it is there twice.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.pairs.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A whole number between two.
    pub(super) fn number<T: FromStr + PartialOrd + std::fmt::Display>(
        &mut self,
        name: &str,
        from: T,
        to: T,
    ) -> Option<T> {
        let text = digits(self.text(name)?);
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|number| digits && *number >= from && *number <= to);
        if number.is_none() {
            self.wrong.say(name, format!("must be a whole number from {from} to {to}"));
        }
        number
    }

    /// A moment, as the store writes it.
    pub(super) fn moment(&mut self, name: &str) -> Option<String> {
        let text = self.text(name)?;
        let moment = moment(text);
        if moment.is_none() {
            self.wrong.say(name, "must be a moment such as 2026-11-21T09:00:00Z");
        }
        moment.map(written)
    }

    /// One of some words.
    pub(super) fn word(&mut self, name: &str, words: &[&'static str]) -> Option<&'static str> {
        let text = self.text(name)?;
        let word = words.iter().find(|word| **word == text).copied();
        if word.is_none() {
            self.wrong.say(name, format!("must be one of {}", words.join(", ")));
        }
        word
    }

    /// `offset` and `limit`.
    pub(super) fn page(&mut self) -> Page {
        let furthest = usize::try_from(LARGEST_NUMBER).unwrap_or(usize::MAX);
        let offset = self.number("offset", 0, furthest).unwrap_or(0);
        Page { offset, limit: self.number("limit", 1, LONGEST_PAGE).unwrap_or(PAGE) }
    }

    /// An error when anything was wrong.
    pub(super) fn checked(self) -> Result<(), Fault> {
        self.wrong.checked()
    }
}

/// Reads a moment; without a zone it is UTC.
fn moment(text: &str) -> Option<DateTime<Utc>> {
    // A `+` that nobody encoded arrives as a space.
    let text = text.trim().replace(' ', "+");
    let moment = DateTime::parse_from_rfc3339(&text).map(|moment| moment.to_utc());
    moment.ok().or_else(|| Some(text.parse::<NaiveDateTime>().ok()?.and_utc()))
}

/// A moment as the store writes it.
pub(super) fn written(moment: DateTime<Utc>) -> String {
    moment.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// The body: an object, or nothing.
#[derive(Debug, Default)]
pub(super) struct Body {
    /// Its fields; those that are null are not there.
    fields: Map<String, Value>,
    /// From a form, where everything is text.
    form: bool,
    wrong: Wrong,
}

/// A body that may also be a form, or nothing at all.
#[derive(Debug)]
pub(super) struct AnyBody(pub(super) Body);

/// A body that is a JSON object.
#[derive(Debug)]
pub(super) struct JsonBody(pub(super) Body);

impl<S: Send + Sync> FromRequest<S> for AnyBody {
    type Rejection = Fault;

    async fn from_request(request: Request, _: &S) -> Result<Self, Fault> {
        Body::read(request, true).await.map(Self)
    }
}

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = Fault;

    async fn from_request(request: Request, _: &S) -> Result<Self, Fault> {
        Body::read(request, false).await.map(Self)
    }
}

impl Body {
    async fn read(request: Request, any: bool) -> Result<Self, Fault> {
        let kind = media_type(request.headers());
        let bytes = body_of(request.into_body()).await?;
        let unreadable = |why: String| Fault::field("body", why);
        let json = kind.is_empty() || kind == "application/json" || kind.ends_with("+json");
        if bytes.is_empty() && any {
            return Ok(Self::default());
        }
        if any && kind == "application/x-www-form-urlencoded" {
            let pairs = std::str::from_utf8(&bytes).ok().and_then(pairs);
            let pairs = pairs.ok_or_else(|| unreadable("is not UTF-8 text".to_owned()))?;
            let fields = pairs.into_iter().map(|(name, value)| (name, Value::String(value))).collect();
            return Ok(Self { fields, form: true, wrong: Wrong::default() });
        }
        if !json {
            let takes = if any {
                "application/json or application/x-www-form-urlencoded"
            } else {
                "application/json"
            };
            let details = format!("the body must be {takes}");
            return Err(Fault::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Unsupported media type", details));
        }
        let value: Value =
            serde_json::from_slice(&bytes).map_err(|error| unreadable(format!("is not JSON: {error}")))?;
        match value {
            Value::Object(mut fields) => {
                fields.retain(|_, value| !any || !value.is_null());
                Ok(Self { fields, form: false, wrong: Wrong::default() })
            }
            Value::Null if any => Ok(Self::default()),
            _ => Err(unreadable("must be an object".to_owned())),
        }
    }

    /// Whether a field is there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    /// Says what is wrong with a field.
    pub(super) fn say(&mut self, name: &str, why: impl Into<String>) {
        self.wrong.say(name, why);
    }

    /// A truth value; `false` when it is not there.
    pub(super) fn flag(&mut self, name: &str) -> bool {
        self.truth(name).unwrap_or_default()
    }

    /// A truth value.
    pub(super) fn truth(&mut self, name: &str) -> Option<bool> {
        match self.fields.get(name)? {
            Value::Bool(value) => return Some(*value),
            Value::String(text) if self.form => match text.as_str() {
                "true" | "True" => return Some(true),
                "false" | "False" => return Some(false),
                _ => {}
            },
            _ => {}
        }
        self.wrong.say(name, "must be true or false");
        None
    }

    /// A text that is not empty; null is as good as none.
    pub(super) fn text_or_null(&mut self, name: &str) -> Option<String> {
        if self.fields.get(name)?.is_null() { None } else { self.text(name) }
    }

    /// A text that is not empty.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        match self.fields.get(name)? {
            Value::String(text) if !text.is_empty() => return Some(text.clone()),
            _ => {}
        }
        self.wrong.say(name, "must be a text that is not empty");
        None
    }

    /// A number of an object: a number, or its digits.
    pub(super) fn id(&mut self, name: &str) -> Option<i64> {
        let found = match self.fields.get(name)? {
            // `1.0` is a whole number too.
            Value::Number(number) => number.as_f64().and_then(|number| id(&number.to_string())),
            Value::String(text) => id(text),
            _ => None,
        };
        if found.is_none() {
            self.wrong.say(name, "must be a whole number from 1, or its digits");
        }
        found
    }

    /// Any value.
    pub(super) fn value(&self, name: &str) -> Option<&Value> {
        self.fields.get(name)
    }

    /// Fields that nobody knows are wrong.
    pub(super) fn only(&mut self, known: &[&str]) {
        let unknown: Vec<String> =
            self.fields.keys().filter(|name| !known.contains(&name.as_str())).cloned().collect();
        for name in unknown {
            let hint = crate::suggestion::hint(&name, known, "fields");
            self.wrong.say(&name, format!("is not known here: {hint}"));
        }
    }

    /// These fields must be there.
    pub(super) fn required(&mut self, names: &[&str]) {
        for name in names {
            if !self.fields.contains_key(*name) {
                self.wrong.say(name, "is required");
            }
        }
    }

    /// An error when anything was wrong.
    pub(super) fn checked(&mut self) -> Result<(), Fault> {
        std::mem::take(&mut self.wrong).checked()
    }
}

/// The media type without its parameters, in lower case; empty when the header is not there.
fn media_type(headers: &HeaderMap) -> String {
    let header = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    header.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_come_in_several_spellings() {
        let read = |text| moment(text).map(written);
        let nine = Some("2026-11-21T09:00:00.000Z".to_owned());
        assert_eq!(read("2026-11-21T09:00:00Z"), nine);
        assert_eq!(read("2026-11-21T10:00:00+01:00"), nine);
        assert_eq!(read("2026-11-21T10:00:00 01:00"), nine, "a plus that nobody encoded");
        assert_eq!(read("2026-11-21T09:00:00"), nine);
        assert_eq!(read("yesterday"), None);
    }

    #[test]
    fn whole_numbers_come_as_floats_too() {
        assert_eq!([id("7"), id("7.0"), id("7.00")], [Some(7); 3]);
        assert_eq!([id("7.5"), id("7."), id(".0"), id("0.0"), id("-7.0"), id("7.0.0")], [None; 6]);
    }

    #[test]
    fn pages_end_where_the_list_ends() {
        let page = |offset, limit| Page { offset, limit }.of(vec![1, 2, 3]);
        assert_eq!(page(0, 2), (vec![1, 2], true));
        assert_eq!(page(1, 2), (vec![2, 3], false));
        assert_eq!(page(usize::MAX, 2), (vec![], false));
    }
}
