//! Paths and bodies that users write as templates.
//!
//! * In a **path** every value is percent-encoded, so it stays inside its segment; a value that is
//!   null or empty fails the row, because the address would be another one.
//! * In a **JSON body** (the content type says so) a value is written as JSON, with all its digits:
//!   `{{ row.fields.name }}` and `{{ row.fields | tojson }}` need no quotes around them. Inside a
//!   JSON string, `"Dear {{ row.fields.name }}"`, it becomes the content of that string. So no value
//!   can break out of its place. What comes out must be one valid JSON value.
//! * In **any other body** values are written as bare text; `urlencode` and `tojson` are there.
//!
//! Decimals, and integers beyond 64 bits, are digits: `row.fields.ltv | float` makes a number of
//! them with which a template can compute and compare.

use std::fmt;
use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectRepr, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::value::RawValue;

use crate::json::{Cell, Numbers, write_string};
use crate::template;

/// Everything but RFC 3986's unreserved characters.
const ENCODED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Marks the beginning and end of a value in a rendered JSON body; JSON itself holds no such
/// characters, and a template that does is refused.
const BEGIN: char = '\u{1}';
const END: char = '\u{2}';
/// The most steps that one rendering takes: a body over ten thousand rows of fifty fields takes some millions.
const STEPS: u64 = 20_000_000;
/// Nested JSON beyond this depth stays text.
const MAX_DEPTH: usize = 64;

/// What a template's output becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Path,
    Json,
    Text,
}

/// A compiled template.
#[derive(Debug)]
pub(super) struct Template {
    environment: Environment<'static>,
    form: Form,
    uses_row: bool,
}

impl Template {
    /// Compiles a template that may use these variables. The text of an error says what is wrong.
    pub(super) fn compile(source: &str, form: Form, variables: &[&str]) -> Result<Self, String> {
        if source.contains([BEGIN, END]) {
            return Err("holds a control character".to_owned());
        }
        let mut environment = Environment::new();
        // Its messages would quote the values at hand.
        environment.set_debug(false);
        environment.set_fuel(Some(STEPS));
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        match form {
            Form::Path => {
                environment.set_auto_escape_callback(|_| AutoEscape::Custom("path".into()));
                environment.set_formatter(|out, _, value| {
                    let text = text_of(value)?;
                    if text.is_empty() {
                        return Err(invalid("a value in the path is null or empty"));
                    }
                    write(out, if value.is_safe() { text } else { encode(&text) })
                });
                environment.remove_filter("safe");
            }
            Form::Json => {
                environment.set_auto_escape_callback(|_| AutoEscape::Custom("json".into()));
                environment.set_formatter(|out, _, value| {
                    // Captured blocks are safe: what they hold is marked already.
                    let safe = if value.is_safe() { value.as_str() } else { None };
                    write(out, safe.map_or_else(|| marked(value), |text| Ok(text.to_owned()))?)
                });
            }
            Form::Text => {
                environment.set_auto_escape_callback(|_| AutoEscape::None);
                environment.set_formatter(|out, _, value| write(out, text_of(value)?));
            }
        }
        environment.add_filter("urlencode", |value: &Value| -> Result<Value, Error> {
            Ok(Value::from_safe_string(encode(&text_of(value)?)))
        });
        environment.add_filter("tojson", move |value: &Value| -> Result<Value, Error> {
            Ok(Value::from_safe_string(if form == Form::Json { marked(value)? } else { json_of(value)? }))
        });
        environment.add_filter("float", |value: &Value| -> Result<f64, Error> {
            let number = value.to_string().trim().parse::<f64>();
            number.ok().filter(|n| n.is_finite()).ok_or_else(|| invalid("a value is no number"))
        });
        template::read(&environment, source).map_err(|e| e.to_string())?;
        environment.add_template_owned("template", source.to_owned()).map_err(|e| e.to_string())?;
        let used =
            environment.get_template("template").map_err(|e| e.to_string())?.undeclared_variables(false);
        let globals: Vec<String> = environment.globals().map(|(name, _)| name.to_owned()).collect();
        let mut unknown: Vec<_> =
            used.iter().filter(|u| !variables.contains(&u.as_str()) && !globals.contains(u)).collect();
        unknown.sort();
        if let Some(unknown) = unknown.first() {
            let row = if *unknown == "row" { "; `row` is there with a `batch_size` of 1" } else { "" };
            return Err(format!("uses `{unknown}`, but there is only {}{row}", variables.join(", ")));
        }
        let uses_row = used.contains("row");
        Ok(Self { environment, form, uses_row })
    }

    /// Whether its output depends on the one row of its request.
    pub(super) fn uses_row(&self) -> bool {
        self.uses_row
    }

    /// The output for these variables.
    pub(super) fn render(&self, context: &Value) -> Result<String, String> {
        let rendered =
            self.environment.get_template("template").and_then(|t| template::render(&t, context)).map_err(
                |e| match e.kind() {
                    ErrorKind::OutOfFuel => "takes too many steps; shorten its loops".to_owned(),
                    _ => e.to_string(),
                },
            )?;
        if self.form != Form::Json {
            return Ok(rendered);
        }
        let body = unmark(&rendered);
        if !body.trim().is_empty() && serde_json::from_str::<&RawValue>(&body).is_err() {
            return Err("the body is not valid JSON; values need no quotes around them".to_owned());
        }
        Ok(body)
    }
}

/// Puts each marked value into its place: as JSON, or inside a string as its content.
fn unmark(rendered: &str) -> String {
    let mut out = String::with_capacity(rendered.len());
    let (mut in_string, mut escaped) = (false, false);
    let mut rest = rendered;
    while let Some(at) = rest.find([BEGIN, '"', '\\']) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        escaped &= before.is_empty();
        // All three marks are one byte long.
        let (mark, after) = from.split_at(1);
        rest = after;
        match mark {
            "\"" => {
                in_string ^= !escaped;
                escaped = false;
                out.push('"');
            }
            "\\" => {
                escaped = in_string && !escaped;
                out.push('\\');
            }
            _ => {
                let (json, after) = rest.split_once(END).unwrap_or((rest, ""));
                rest = after;
                escaped = false;
                if in_string { out.push_str(&string_content(json)) } else { out.push_str(json) }
            }
        }
    }
    out.push_str(rest);
    out
}

fn string_content(json: &str) -> String {
    match json.strip_prefix('"').and_then(|j| j.strip_suffix('"')) {
        Some(content) => content.to_owned(),
        None if json == "null" => String::new(),
        None => {
            let quoted = serde_json::Value::from(json).to_string();
            quoted[1..quoted.len() - 1].to_owned()
        }
    }
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

fn write(out: &mut minijinja::Output<'_>, text: String) -> Result<(), Error> {
    out.write_str(&text).map_err(Error::from)
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, &ENCODED).to_string()
}

fn text_of(value: &Value) -> Result<String, Error> {
    match value.kind() {
        ValueKind::Undefined => Err(Error::from(ErrorKind::UndefinedError)),
        ValueKind::None => Ok(String::new()),
        ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => json_of(value),
        _ => Ok(value.to_string()),
    }
}

fn marked(value: &Value) -> Result<String, Error> {
    Ok(format!("{BEGIN}{}{END}", json_of(value)?))
}

fn json_of(value: &Value) -> Result<String, Error> {
    // What `tojson` made stays what it is.
    let marked = value.as_str().filter(|_| value.is_safe());
    let inner = marked.and_then(|json| json.strip_prefix(BEGIN)?.strip_suffix(END));
    if let Some(inner) = inner.filter(|inner| !inner.contains(BEGIN)) {
        return Ok(inner.to_owned());
    }
    let mut out = Vec::new();
    write_json(value, &mut out)?;
    String::from_utf8(out).map_err(|_| invalid("a value is not UTF-8"))
}

fn write_json(value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
    if let Some(Digits(digits)) = value.downcast_object_ref() {
        out.extend_from_slice(digits.as_bytes());
        return Ok(());
    }
    match value.kind() {
        ValueKind::Undefined => return Err(Error::from(ErrorKind::UndefinedError)),
        ValueKind::None => out.extend_from_slice(b"null"),
        ValueKind::Bool => out.extend_from_slice(if value.is_true() { b"true" } else { b"false" }),
        ValueKind::Number if value.is_integer() => out.extend_from_slice(value.to_string().as_bytes()),
        ValueKind::Number => {
            let number = f64::try_from(value.clone())?;
            if !number.is_finite() {
                return Err(invalid("NaN and the infinities are not JSON"));
            }
            // Writing to a vector cannot fail.
            serde_json::to_writer(out, &(number + 0.0)).unwrap_or_default();
        }
        ValueKind::Seq | ValueKind::Iterable => {
            out.push(b'[');
            for (i, item) in value.try_iter()?.enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_json(&item, out)?;
            }
            out.push(b']');
        }
        ValueKind::Map => {
            out.push(b'{');
            for (i, key) in value.try_iter()?.enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_string(&key.to_string(), out);
                out.push(b':');
                write_json(&value.get_item(&key)?, out)?;
            }
            out.push(b'}');
        }
        _ => write_string(&value.to_string(), out),
    }
    Ok(())
}

/// A number that keeps all its digits.
#[derive(Debug)]
struct Digits(String);

impl Object for Digits {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A map that keeps the order of its names.
#[derive(Debug)]
pub(super) struct Ordered {
    names: Arc<[String]>,
    values: Vec<Value>,
}

impl Ordered {
    /// As many values as names, in their order.
    pub(super) fn value(names: Arc<[String]>, values: Vec<Value>) -> Value {
        Value::from_object(Self { names, values })
    }
}

impl Object for Ordered {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let key = key.as_str()?;
        self.names.iter().position(|n| n == key).and_then(|at| self.values.get(at).cloned())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.names.iter().map(|n| Value::from(n.as_str())).collect())
    }
}

/// A column's value as templates see it.
pub(super) fn value_of(cell: &Cell<'_>, numbers: Numbers) -> Value {
    let as_text = |cell: &Cell<'_>| {
        let mut out = Vec::new();
        cell.write_text(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    };
    match *cell {
        Cell::Null => Value::from(()),
        Cell::Boolean(v) => Value::from(v),
        Cell::Signed(_) | Cell::Unsigned(_) | Cell::Digits(_) if numbers == Numbers::String => {
            Value::from(as_text(cell))
        }
        Cell::Signed(v) => Value::from(v),
        Cell::Unsigned(v) => Value::from(v),
        // Through its shortest text: 0.1 stays 0.1.
        Cell::Float32(v) => Value::from(v.to_string().parse::<f64>().unwrap_or(f64::from(v))),
        Cell::Float64(v) => Value::from(v),
        Cell::Digits(digits) => Value::from_object(Digits(digits.to_owned())),
        Cell::Json(json) => nested(json, 0),
        _ => Value::from(as_text(cell)),
    }
}

/// Valid JSON as a value, numbers with all their digits.
fn nested(json: &str, depth: usize) -> Value {
    let json = json.trim();
    let entries = match json.as_bytes().first() {
        Some(b'{') if depth < MAX_DEPTH => serde_json::from_str::<Entries<'_>>(json).ok(),
        _ => None,
    };
    if let Some(Entries(entries)) = entries {
        let (names, values): (Vec<String>, Vec<Value>) =
            entries.into_iter().map(|(name, raw)| (name, nested(raw.get(), depth + 1))).unzip();
        return Ordered::value(names.into(), values);
    }
    match json.as_bytes().first() {
        Some(b'[') if depth < MAX_DEPTH => {
            let items: Vec<&RawValue> = serde_json::from_str(json).unwrap_or_default();
            items.into_iter().map(|raw| nested(raw.get(), depth + 1)).collect()
        }
        Some(b'"') => Value::from(serde_json::from_str::<String>(json).unwrap_or_else(|_| json.to_owned())),
        Some(b't' | b'f') => Value::from(json == "true"),
        Some(b'n') => Value::from(()),
        _ => match json.parse::<i64>() {
            Ok(integer) => Value::from(integer),
            Err(_) => Value::from_object(Digits(json.to_owned())),
        },
    }
}

/// The entries of a JSON object in their order.
struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl<'de> serde::Deserialize<'de> for Entries<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str) -> Value {
        let digits = value_of(&Cell::Digits("12345678901234567890.10"), Numbers::Json);
        let nested = value_of(&Cell::Json("{\"b\":[1,2.50,\"x\"],\"a\":null}"), Numbers::Json);
        let names: Arc<[String]> = ["name", "ltv", "extra", "none"].map(String::from).into();
        let fields = Ordered::value(names, vec![Value::from(name), digits, nested, Value::from(())]);
        let row =
            Ordered::value(["key".to_owned(), "fields".to_owned()].into(), vec![Value::from(name), fields]);
        Ordered::value(["row".to_owned()].into(), vec![row])
    }

    fn render(source: &str, form: Form, name: &str) -> Result<String, String> {
        Template::compile(source, form, &["row"])?.render(&row(name))
    }

    #[test]
    fn json_bodies_keep_digits_and_no_value_breaks_out() {
        let evil = "a\", \"admin\": true, \"x\": \"\\";
        let body =
            render(r#"{"n": {{ row.fields.name }}, "s": "Dear {{ row.fields.name }}!"}"#, Form::Json, evil);
        let body: serde_json::Value = serde_json::from_str(&body.unwrap()).unwrap();
        assert_eq!(body, serde_json::json!({"n": evil, "s": format!("Dear {evil}!")}));

        let body = render(
            r#"{"ltv": {{ row.fields.ltv }}, "t": "{{ row.fields.ltv }}\"{{ row.fields.none }}", "f": {{ row.fields | tojson }}, "e": "{{ row.fields.extra }}"}"#,
            Form::Json,
            "x",
        );
        assert_eq!(
            body.unwrap(),
            r#"{"ltv": 12345678901234567890.10, "t": "12345678901234567890.10\"", "f": {"name":"x","ltv":12345678901234567890.10,"extra":{"b":[1,2.50,"x"],"a":null},"none":null}, "e": "{\"b\":[1,2.50,\"x\"],\"a\":null}"}"#
        );
        assert_eq!(render("{{ row.fields.extra.b[1] }}", Form::Json, "x").unwrap(), "2.50");
        let captured = "{% set x %}{\"k\": {{ row.key }}}{% endset %}[{{ x }}]";
        assert_eq!(render(captured, Form::Json, "q\"").unwrap(), r#"[{"k": "q\""}]"#);
        assert!(render("{\"a\": }", Form::Json, "x").unwrap_err().contains("not valid JSON"));
    }

    #[test]
    fn paths_encode_values_and_refuse_empty_ones() {
        assert_eq!(
            render("/c/{{ row.key }}", Form::Path, "a/../b?c#d é").unwrap(),
            "/c/a%2F..%2Fb%3Fc%23d%20%C3%A9"
        );
        assert_eq!(render("/c/{{ row.key | urlencode }}", Form::Path, "a b").unwrap(), "/c/a%20b");
        assert!(render("/c/{{ row.key }}", Form::Path, "").unwrap_err().contains("null or empty"));
        assert!(render("/c/{{ row.fields.none }}", Form::Path, "x").is_err());
        assert!(
            render("/c/{{ row.key | safe }}", Form::Path, "x").is_err(),
            "nothing gets around the encoding"
        );
    }

    #[test]
    fn text_bodies_and_mistakes() {
        let text = "k={{ row.key | urlencode }}&v={{ row.fields.ltv }}{{ row.fields.none }}&j={{ row.fields.extra | tojson }}";
        assert_eq!(
            render(text, Form::Text, "a&b").unwrap(),
            "k=a%26b&v=12345678901234567890.10&j={\"b\":[1,2.50,\"x\"],\"a\":null}"
        );
        let compared = "{% if row.fields.ltv | float > 1e19 %}big{% endif %}";
        assert_eq!(render(compared, Form::Text, "x").unwrap(), "big");
        assert!(render("{{ row.fields.nmae }}", Form::Text, "x").unwrap_err().contains("undefined"));
        let error = Template::compile("{{ rows }}{{ row }}", Form::Json, &["rows"]).unwrap_err();
        assert!(error.contains("`row`") && error.contains("batch_size"), "{error}");
        assert!(Template::compile("{{ row", Form::Json, &["row"]).is_err());
        assert!(Template::compile("{% for i in range(3) %}{{ i }}{% endfor %}", Form::Text, &[]).is_ok());
        assert!(Template::compile("/{{ row.key }}", Form::Path, &["row"]).unwrap().uses_row());
    }

    #[test]
    fn what_would_not_end_is_stopped() {
        let loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
        let calls = "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(1) }}";
        let again = "{% for a in [row] recursive %}{{ loop([row]) }}{% endfor %}";
        for form in [Form::Json, Form::Text, Form::Path] {
            assert!(render(loops, form, "x").unwrap_err().contains("too many steps"));
            for source in [calls, again] {
                assert!(render(source, form, "x").unwrap_err().contains("recursion"), "{source}");
            }
        }
    }
}
