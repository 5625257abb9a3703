//! Templates of paths and bodies, sensible and not, over rows that try to break out of them.

use serde_json::{Value, json};

use connectors::outcome::RowOutcome;

use crate::http::{Came, Socket, batch, destination, run, runtime, spec};
use crate::mutation::{awkward, spoiled};
use crate::rounds::rounds;

/// Where a value may stand, and what stands beside it.
const HOLES: &[&str] = &[
    "{{ row.fields.name }}",
    "\"{{ row.fields.name }}\"",
    "\"Dear {{ row.fields.name }}, \\\"{{ row.key }}\\\"\"",
    "{{ row.fields.name | tojson }}",
    "{{ row.fields.name | upper }}",
    "{{ row.fields.name ~ '-' ~ row.key }}",
    "{% set x = row.fields.name %}{{ x }}",
    "{% set x %}{{ row.fields.name }}{% endset %}{{ x }}",
    "\"{% if row.fields.name %}{{ row.fields.name | trim }}{% endif %}\"",
    "{{ [row.fields.name, row.key] }}",
    "{{ {'a': row.fields.name} }}",
    "{{ row.fields.ltv }}",
    "{{ row.fields.extra }}",
    "\"{{ row.fields.extra }}\"",
    "{{ row }}",
    "{{ rows }}",
    "[{% for r in rows %}{\"k\": {{ r.key }}, \"n\": {{ r.fields.name }}}{% if not loop.last %},{% endif %}{% endfor %}]",
    "{\"{{ row.fields.name }}\": 1}",
    "{{ row.fields.name | replace('a', 'b') | default('x') }}",
];

fn body(random: &mut fastrand::Rng, depth: u8) -> String {
    match random.u8(..if depth > 2 { 6 } else { 9 }) {
        0 => "null".to_owned(),
        1 => "[1, \"x \\\\ \\\" y\", {}]".to_owned(),
        2..6 => HOLES[random.usize(..HOLES.len())].to_owned(),
        6 => format!("[{}, {}]", body(random, depth + 1), body(random, depth + 1)),
        _ => format!("{{\"a\": {}, \"b\": {}}}", body(random, depth + 1), body(random, depth + 1)),
    }
}

/// A value without its texts and numbers: what a row must not be able to change.
fn skeleton(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(skeleton).collect(),
        Value::Object(map) => map.values().map(|value| json!([skeleton(value)])).collect(),
        _ => Value::Null,
    }
}

struct World {
    socket: Socket,
    runtime: tokio::runtime::Runtime,
}

impl World {
    fn start() -> Self {
        Self { socket: Socket::start(), runtime: runtime() }
    }

    /// Sends one row; what came of it, and what arrived.
    fn send(&self, options: &Value, row: &(String, String, String)) -> Option<(RowOutcome, Option<Came>)> {
        let to = destination(&self.socket.url(), json!({"timeout": "60s"})).expect("it is right");
        let spec = spec(options.clone());
        to.validate(&spec).ok()?;
        self.socket.answer(|_| crate::http::ok(""));
        let batch = batch(std::slice::from_ref(row));
        let delivered = self.runtime.block_on(async {
            let delivery = to.open(&spec, &run()).await.expect("it opens");
            delivery.deliver(&batch).await
        });
        assert_eq!(delivered.outcomes.len(), 1);
        Some((delivered.outcomes[0].clone(), self.socket.came().pop()))
    }
}

fn json_of(came: &Came) -> Value {
    serde_json::from_slice(&came.body)
        .unwrap_or_else(|e| panic!("the body is not JSON: {e}: {}", String::from_utf8_lossy(&came.body)))
}

#[test]
fn no_value_changes_the_structure_of_a_body() {
    let world = World::start();
    rounds("bodies", 120, |random| {
        let template = body(random, 0);
        let options = json!({"each": {"path": "/rows", "batch_size": 1, "body": template}});
        let extra = [r#"{"x":[1,2.50],"y":null}"#, "\"a\\\"b\"", "[]", "17"][random.usize(..4)].to_owned();
        let hostile = (awkward(random), awkward(random), extra.clone());
        let plain = ("7".to_owned(), "Ann".to_owned(), extra);
        let Some((outcome, Some(came))) = world.send(&options, &plain) else {
            panic!("{template} is refused")
        };
        assert_eq!(outcome, RowOutcome::Accepted, "{template}");
        let (outcome, there) = world.send(&options, &hostile).expect("the template is known to be right");
        assert_eq!(outcome, RowOutcome::Accepted, "{template} with {hostile:?}");
        let (plain, there) = (json_of(&came), json_of(&there.expect("a request")));
        assert_eq!(skeleton(&plain), skeleton(&there), "{template} with {hostile:?}: {there}");
        if template == "{{ row.fields.name }}" || template == "\"{{ row.fields.name }}\"" {
            assert_eq!(there, json!(hostile.1), "{template}");
        }
    });
}

#[test]
fn no_value_leaves_its_place_in_a_path() {
    let world = World::start();
    rounds("paths", 120, |random| {
        let path = "/people/{{ row.key }}/of?name={{ row.fields.name }}&all=1";
        let options = json!({"each": {"path": path, "batch_size": 1}});
        let row = (awkward(random), awkward(random), "null".to_owned());
        let (outcome, came) = world.send(&options, &row).expect("the template is right");
        let Some(came) = came else {
            assert!(matches!(outcome, RowOutcome::Rejected(_)), "{row:?}: {outcome:?}");
            assert!([".", "..", ""].contains(&row.0.as_str()) || row.1.is_empty(), "{row:?} is refused");
            return;
        };
        let words: Vec<&str> = came.line.split(' ').collect();
        let [_, target, "HTTP/1.1"] = words[..] else { panic!("{row:?}: {}", came.line) };
        let (path, query) = target.split_once('?').unwrap_or_else(|| panic!("{row:?}: {target}"));
        let segments: Vec<&str> = path.split('/').collect();
        assert_eq!(
            (segments.len(), segments[1], segments[2], segments[4]),
            (5, "v1", "people", "of"),
            "{row:?}: {target}"
        );
        let name = query.strip_prefix("name=").and_then(|q| q.strip_suffix("&all=1"));
        let name = name.unwrap_or_else(|| panic!("{row:?}: {target}"));
        for (text, meant) in [(segments[3], &row.0), (name, &row.1)] {
            assert!(
                text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%".contains(&b)),
                "{row:?}: {target}"
            );
            assert_eq!(&decoded(text), meant, "{target}");
        }
    });
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'%' {
            bytes.push(
                u8::from_str_radix(std::str::from_utf8(&tail[..2]).expect("digits"), 16).expect("digits"),
            );
            rest = &tail[2..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).expect("a text")
}

const WORDS: &[&str] = &[
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    "#}",
    "{%-",
    "-%}",
    "{% raw %}",
    "{% endraw %}",
    "{% for x in range(99999) %}",
    "{% for x in rows %}",
    "{% endfor %}",
    "{% if row %}",
    "{% else %}",
    "{% endif %}",
    "{% set x = x %}",
    "{% macro f(x) %}",
    "{% endmacro %}",
    "{{ f(1) }}",
    "{% include 'template' %}",
    "{% import 'template' as t %}",
    "{% extends 'template' %}",
    "{% block a %}",
    "{% endblock %}",
    "{% filter upper %}",
    "{% endfilter %}",
    "{% autoescape false %}",
    "{% autoescape 'html' %}",
    "{% endautoescape %}",
    "{% call f() %}",
    "{{ row.fields | safe }}",
    " | safe",
    " | tojson",
    " | tojson | tojson",
    " | float",
    " | list",
    " | batch(0)",
    " | slice(0)",
    " | join",
    " | round(400)",
    " | int(base=99)",
    " | format",
    " | indent(9999)",
    " ** 99999",
    " // 0",
    " % 0",
    " / 0",
    "[::0]",
    "[99999999999999999999]",
    "range(99999) | list",
    "'x' * 999999",
    "namespace()",
    "dict(a=1)",
    "debug()",
    "loop",
    "self",
    "caller()",
    "\u{1}",
    "\u{2}",
    "\\u0001",
    "\"",
    "\\",
    "1e999",
    "0x",
    "lipsum()",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% for k in range(99999) %}{% endfor %}{% endfor %}{% endfor %}",
    "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(1) }}",
    "{% for r in rows recursive %}{{ loop(rows) }}{% endfor %}",
];

#[test]
fn no_template_panics_or_goes_on_for_ever() {
    let world = World::start();
    let mut sent = 0;
    rounds("templates", 80, |random| {
        let valid = body(random, 0);
        let template = spoiled(random, valid.as_bytes(), WORDS, &[valid.as_bytes()]);
        let template = String::from_utf8_lossy(&template).into_owned();
        let row = (awkward(random), awkward(random), r#"{"x":[1,2.50],"y":null}"#.to_owned());
        let json_body = random.u8(..4) > 0;
        let mut each = json!({"path": "/rows", "batch_size": 1, "body": template});
        if !json_body {
            each["headers"] = json!({"content-type": "text/plain"});
        }
        if random.u8(..4) == 0 {
            each = json!({"path": format!("/x/{template}"), "batch_size": 1});
        }
        let Some((_, Some(came))) = world.send(&json!({"each": each}), &row) else { return };
        sent += 1;
        assert_eq!(came.line.split(' ').count(), 3, "{template}: {}", came.line);
        assert!(came.line.starts_with("POST /v1"), "{template}: {}", came.line);
        if json_body && !String::from_utf8_lossy(&came.body).trim().is_empty() {
            // JSON knows no largest number.
            let raw: Result<&serde_json::value::RawValue, _> = serde_json::from_slice(&came.body);
            raw.unwrap_or_else(|e| {
                panic!("the body is not JSON: {e}: {}", String::from_utf8_lossy(&came.body))
            });
        }
    });
    println!("templates: {sent} were sent");
}
