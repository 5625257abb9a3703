//! From a batch to one request.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use minijinja::Value;
use reqwest::Url;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest, Sha256};

use super::answer::is_json;
use super::config::{ClearOptions, RequestOptions, error, header_map};
use super::template::{Form, Ordered, Template, value_of};
use crate::catalogue::ConfigError;
use crate::change::{ChangeBatch, Operation};
use crate::destination::{DeliverySpec, RunFacts};
use crate::http::HttpRequest;
use crate::json::{BoundRows, RowEncoder, write_string};
use crate::outcome::Rejection;
use crate::signature::sign;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const FACTS: [&str; 4] = ["sync", "run", "generation", "operation"];
/// A first guess of the bytes of a row, so that buffers seldom grow.
const TYPICAL_ROW: usize = 128;
/// The word for the operation of a request that empties a list.
const CLEARED: &str = "cleared";

/// One kind of request, checked.
#[derive(Debug)]
pub(super) struct Prepared {
    pub method: reqwest::Method,
    pub batch_size: usize,
    pub accepts: Vec<u16>,
    /// The address belongs to the one row of the request.
    pub per_row: bool,
    path: Template,
    body: Option<Template>,
    headers: HeaderMap,
}

/// What every request of a destination has. Not `Debug`: it holds secrets.
#[derive(Clone)]
pub(super) struct Base {
    pub url: Url,
    pub headers: HeaderMap,
    pub auth: HeaderMap,
    pub signing_key: Option<Vec<u8>>,
}

impl Prepared {
    /// `name` is the key under which the options stand in the sync's file.
    pub(super) fn new(name: &str, options: &RequestOptions, base: &Base) -> Result<Self, ConfigError> {
        let mut in_path: Vec<&str> = FACTS.to_vec();
        let mut in_body = [&FACTS[..], &["rows"]].concat();
        if options.batch_size == 1 {
            in_path.push("row");
            in_body.push("row");
        }
        Self::with_names(name, options, base, &in_path, &in_body)
    }

    /// The request that empties a list.
    pub(super) fn clearing(options: &ClearOptions, base: &Base) -> Result<Self, ConfigError> {
        let ClearOptions { method, path, headers, body, accepts } = options.clone();
        let options = RequestOptions { method, path, batch_size: 1, headers, body, accepts };
        Self::with_names("clear", &options, base, &FACTS, &FACTS)
    }

    fn with_names(
        name: &str,
        options: &RequestOptions,
        base: &Base,
        in_path: &[&str],
        in_body: &[&str],
    ) -> Result<Self, ConfigError> {
        let at = |key: &str| format!("{name}.{key}");
        let path = Template::compile(&options.path, Form::Path, in_path).map_err(|e| error(at("path"), e))?;
        if !options.path.contains("{{") && !options.path.contains("{%") {
            join(&base.url, &options.path).map_err(|e| error(at("path"), e))?;
        }
        let headers = header_map(&options.headers, &at("headers"))?;
        let content_type = headers.get(CONTENT_TYPE).or_else(|| base.headers.get(CONTENT_TYPE));
        let json = content_type.is_none_or(|t| is_json(t.to_str().unwrap_or_default()));
        let form = if json { Form::Json } else { Form::Text };
        let body = match &options.body {
            Some(body) => Some(Template::compile(body, form, in_body).map_err(|e| error(at("body"), e))?),
            None if form == Form::Json => None,
            None => {
                return Err(error(
                    at("body"),
                    "is missing: without it the body is JSON, but the content type is not",
                ));
            }
        };
        if let Some(status) = options.accepts.iter().find(|s| !(400..600).contains(*s)) {
            return Err(error(at("accepts"), format!("holds {status}, which is no status from 400 to 599")));
        }
        Ok(Self {
            method: options.method.into(),
            batch_size: options.batch_size,
            accepts: options.accepts.clone(),
            per_row: path.uses_row(),
            path,
            body,
            headers,
        })
    }
}

impl Prepared {
    /// The request with every header that it carries, `id` being the same for each of its repeats.
    fn with_headers(
        &self,
        base: &Base,
        id: String,
        url: Url,
        body: Vec<u8>,
        now: DateTime<Utc>,
    ) -> Result<HttpRequest, String> {
        let mut headers = HeaderMap::new();
        if !body.is_empty() {
            headers.insert(CONTENT_TYPE, JSON);
        }
        for more in [&base.headers, &self.headers, &base.auth] {
            for (name, value) in more {
                headers.insert(name, value.clone());
            }
        }
        // Hex digits and base64 are always valid in a header.
        let header = |text: &str| HeaderValue::from_str(text).map_err(|e| e.to_string());
        headers.insert(IDEMPOTENCY_KEY, header(&id)?);
        if let Some(key) = &base.signing_key {
            let timestamp = now.timestamp().to_string();
            let signature = sign(key, &id, &timestamp, &body);
            headers.insert("webhook-id", header(&id)?);
            headers.insert("webhook-timestamp", header(&timestamp)?);
            headers.insert("webhook-signature", header(&signature)?);
        }
        Ok(HttpRequest { method: self.method.clone(), url, headers, body: Bytes::from(body) })
    }
}

/// A batch on its way to become a request: its rows written, those without a form set aside.
pub(super) struct Rows<'a> {
    batch: &'a ChangeBatch,
    encoder: &'a RowEncoder,
    bound: BoundRows<'a>,
    /// The rows' fields as JSON, one behind the other, and where each ends.
    encoded: Vec<u8>,
    ends: Vec<usize>,
    /// The positions of the rows that travel.
    pub sent: Vec<usize>,
    /// The rows that do not, and why.
    pub rejected: Vec<(usize, Rejection)>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(batch: &'a ChangeBatch, encoder: &'a RowEncoder) -> Result<Self, String> {
        let bound = encoder.bind(&batch.fields).map_err(|e| e.to_string())?;
        let mut rows = Self {
            batch,
            encoder,
            bound,
            encoded: Vec::with_capacity(batch.len() * TYPICAL_ROW),
            ends: Vec::with_capacity(batch.len()),
            sent: Vec::new(),
            rejected: Vec::new(),
        };
        for row in 0..batch.len() {
            let begin = rows.encoded.len();
            match encoder.encode_row(&rows.bound, row, &mut rows.encoded) {
                Ok(()) => rows.sent.push(row),
                Err(rejection) => {
                    rows.encoded.truncate(begin);
                    rows.rejected.push((row, rejection));
                }
            }
            rows.ends.push(rows.encoded.len());
        }
        Ok(rows)
    }

    fn fields(&self, row: usize) -> &[u8] {
        let begin = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.encoded[begin..self.ends[row]]
    }

    fn changed(&self, row: usize) -> Option<&[String]> {
        (self.batch.operation == Operation::Changed).then(|| &*self.batch.changed[row])
    }

    fn envelope(&self, sync: &DeliverySpec, run: &RunFacts) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.encoded.len() + (self.sent.len() + 1) * TYPICAL_ROW);
        out.extend_from_slice(b"{\"sync\":");
        write_string(&sync.sync, &mut out);
        let operation = sync.mode.word(self.batch.operation);
        out.extend_from_slice(
            format!(
                ",\"run\":{},\"generation\":{},\"operation\":\"{operation}\",\"rows\":[",
                run.run_id, run.generation
            )
            .as_bytes(),
        );
        for (i, &row) in self.sent.iter().enumerate() {
            out.extend_from_slice(if i == 0 { b"{\"key\":" } else { b",{\"key\":" });
            write_string(self.batch.keys.value(row), &mut out);
            out.extend_from_slice(b",\"version\":");
            write_string(self.batch.versions.value(row), &mut out);
            out.extend_from_slice(b",\"fields\":");
            out.extend_from_slice(self.fields(row));
            for (j, name) in self.changed(row).unwrap_or_default().iter().enumerate() {
                out.extend_from_slice(if j == 0 { b",\"changed\":[" } else { b"," });
                write_string(name, &mut out);
            }
            match self.changed(row) {
                Some([]) => out.extend_from_slice(b",\"changed\":[]}"),
                Some(_) => out.extend_from_slice(b"]}"),
                None => out.push(b'}'),
            }
        }
        out.extend_from_slice(b"]}");
        out
    }

    /// What templates see; rows only where one of them may ask for rows.
    fn context(&self, prepared: &Prepared, sync: &DeliverySpec, run: &RunFacts) -> Result<Value, Rejection> {
        let names: Arc<[String]> = self.encoder.names().map(str::to_owned).collect();
        let row_names: Arc<[String]> = ["key", "version", "fields", "changed"].map(String::from).into();
        let numbers = self.encoder.options().numbers;
        let asked = prepared.per_row || prepared.body.is_some();
        let seen = if asked { &self.sent[..] } else { &[] };
        let rows = seen
            .iter()
            .map(|&row| {
                let fields = (0..names.len())
                    .map(|column| Ok(value_of(&self.encoder.cell_at(&self.bound, column, row)?, numbers)))
                    .collect::<Result<Vec<_>, Rejection>>()?;
                let changed: Value =
                    self.changed(row).unwrap_or_default().iter().map(String::as_str).collect();
                let values = vec![
                    Value::from(self.batch.keys.value(row)),
                    Value::from(self.batch.versions.value(row)),
                    Ordered::value(names.clone(), fields),
                    changed,
                ];
                Ok(Ordered::value(row_names.clone(), values))
            })
            .collect::<Result<Vec<_>, Rejection>>()?;
        let mut context = vec![
            ("sync", Value::from(sync.sync.as_str())),
            ("run", Value::from(run.run_id)),
            ("generation", Value::from(run.generation)),
            ("operation", Value::from(sync.mode.word(self.batch.operation))),
        ];
        if let [row] = &rows[..] {
            context.push(("row", row.clone()));
        }
        context.push(("rows", Value::from(rows)));
        let (names, values): (Vec<String>, Vec<Value>) =
            context.into_iter().map(|(name, value)| (name.to_owned(), value)).unzip();
        Ok(Ordered::value(names.into(), values))
    }

    /// The request for the rows that travel. An error is about these rows, as far as levin can tell.
    pub(super) fn request(
        &self,
        prepared: &Prepared,
        base: &Base,
        sync: &DeliverySpec,
        run: &RunFacts,
        now: DateTime<Utc>,
    ) -> Result<HttpRequest, Rejection> {
        let failed = |message: String| Rejection::new(Rejection::TEMPLATE_FAILED, message);
        let context = self.context(prepared, sync, run)?;
        let path = prepared.path.render(&context).map_err(|e| failed(format!("path: {e}")))?;
        let url = join(&base.url, &path).map_err(|e| failed(format!("path: {e}")))?;
        let body = match &prepared.body {
            None => self.envelope(sync, run),
            Some(template) => {
                template.render(&context).map_err(|e| failed(format!("body: {e}")))?.into_bytes()
            }
        };
        prepared.with_headers(base, self.idempotency_key(), url, body, now).map_err(failed)
    }

    /// The same for every attempt with the same operation and the same versions of rows.
    fn idempotency_key(&self) -> String {
        let mut digest = Sha256::new();
        digest.update(self.batch.operation.name());
        for &row in &self.sent {
            digest.update(b"\n");
            digest.update(self.batch.versions.value(row));
        }
        hex(&digest.finalize())
    }
}

/// The request that empties a list; the same for every repeat within a run.
pub(super) fn clearing(
    prepared: &Prepared,
    base: &Base,
    sync: &DeliverySpec,
    run: &RunFacts,
    now: DateTime<Utc>,
) -> Result<HttpRequest, String> {
    let context = minijinja::context! {
        sync => sync.sync.as_str(),
        run => run.run_id,
        generation => run.generation,
        operation => CLEARED,
    };
    let path = prepared.path.render(&context).map_err(|e| format!("path: {e}"))?;
    let url = join(&base.url, &path).map_err(|e| format!("path: {e}"))?;
    let body = match &prepared.body {
        Some(template) => template.render(&context).map_err(|e| format!("body: {e}"))?.into_bytes(),
        None => {
            let facts = serde_json::json!({
                "sync": sync.sync, "run": run.run_id, "generation": run.generation, "operation": CLEARED,
            });
            facts.to_string().into_bytes()
        }
    };
    let digest = Sha256::digest(format!("{CLEARED} {} {}", sync.sync_id, run.generation));
    prepared.with_headers(base, hex(&digest), url, body, now)
}

/// Half of a digest in hexadecimal.
fn hex(digest: &[u8]) -> String {
    digest.iter().take(16).fold(String::with_capacity(32), |mut hex, byte| {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Appends a path, with a query if it has one, to the base. It can lead nowhere but below the base.
pub(super) fn join(base: &Url, path: &str) -> Result<Url, String> {
    if path.contains(['#', '\\']) || path.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err("holds `#`, `\\`, white space or a control character".to_owned());
    }
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let relative = path.strip_prefix('/').unwrap_or(path);
    if relative.split('/').next().is_some_and(|first| first.contains(':')) && !path.starts_with('/') {
        return Err("is an address of its own; it must be a path below `base_url`".to_owned());
    }
    let segments: Vec<&str> = relative.split('/').collect();
    for (i, segment) in segments.iter().enumerate() {
        let decoded = percent_encoding::percent_decode_str(segment).decode_utf8_lossy();
        if decoded == "." || decoded == ".." {
            return Err("holds `.` or `..` as a segment".to_owned());
        }
        if segment.is_empty() && i + 1 < segments.len() {
            return Err("holds `//`".to_owned());
        }
    }
    let mut url = base.clone();
    if !path.is_empty() {
        url.set_path(&format!("{}/{relative}", base.path().trim_end_matches('/')));
    }
    let query = match (base.query(), query) {
        (Some(first), Some(second)) => Some(format!("{first}&{second}")),
        (first, second) => first.or(second).map(str::to_owned),
    };
    url.set_query(query.as_deref());
    Ok(url)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD as BASE64;

    use super::*;

    #[test]
    fn paths_stay_below_the_base() {
        let base: Url = "https://api.example.com/v1".parse().unwrap();
        let joined = |path: &str| join(&base, path).map(String::from);
        assert_eq!(joined("").unwrap(), "https://api.example.com/v1");
        assert_eq!(joined("/rows").unwrap(), "https://api.example.com/v1/rows");
        assert_eq!(joined("rows/").unwrap(), "https://api.example.com/v1/rows/");
        assert_eq!(joined("/a%2F..%2Fb?x=1&y=2").unwrap(), "https://api.example.com/v1/a%2F..%2Fb?x=1&y=2");
        assert_eq!(joined("/at:noon").unwrap(), "https://api.example.com/v1/at:noon");
        assert_eq!(joined("/@evil.example").unwrap(), "https://api.example.com/v1/@evil.example");
        for wrong in [
            "//evil.example/x",
            "https://evil.example/",
            "HTTP://evil.example",
            "javascript:x",
            "/../admin",
            "/a/../../b",
            "/%2e%2E/x",
            "/.",
            "/a/./b",
            "/a//b",
            "/\\evil.example",
            "/a#b",
            "/a b",
            "/a\nb",
            "/a\tb",
        ] {
            assert!(joined(wrong).is_err(), "{wrong}");
        }
        let with_query: Url = "https://hooks.example.com/in?sig=1".parse().unwrap();
        assert_eq!(join(&with_query, "/x?y=2").unwrap().as_str(), "https://hooks.example.com/in/x?sig=1&y=2");
        assert_eq!(join(&with_query, "").unwrap().as_str(), "https://hooks.example.com/in?sig=1");
        let bare: Url = "http://localhost:8080".parse().unwrap();
        assert_eq!(join(&bare, "/rows").unwrap().as_str(), "http://localhost:8080/rows");
        assert_eq!(join(&bare, "?a=1").unwrap().as_str(), "http://localhost:8080/?a=1");
    }

    #[test]
    fn signatures_are_those_of_standard_webhooks() {
        // The example of the specification's reference libraries.
        let key = BASE64.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = sign(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
