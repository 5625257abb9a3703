//! `${NAME}` and `${file:path}` in the texts of project files, and secrets that stand in clear.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::finding::Findings;
use super::yaml::{Node, Text, Tree};
use crate::error::ErrorCode;
use crate::redact::{Redactor, url_password};

/// Reads the value of an environment variable.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Where `${…}` are read from, and who is told what was read.
pub(super) struct Interpolation<'a> {
    pub(super) root: &'a Path,
    pub(super) environment: Environment<'a>,
    pub(super) redactor: &'a Redactor,
    /// Whether what is missing is worth only a warning.
    pub(super) lenient: bool,
}

/// One piece of a text.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    Plain(&'a str),
    /// A `$${`, which stands for `${`.
    Escape,
    Variable(&'a str),
    File(&'a str),
}

impl Interpolation<'_> {
    /// Replaces every `${…}` below a node. Returns whether all of them could be read.
    pub(super) fn resolve(&self, file: &Path, node: &mut Node, findings: &mut Findings) -> bool {
        // Every one is tried, so that all that is missing is found at once.
        let mut complete = true;
        match &mut node.tree {
            Tree::Text(text) => complete = self.resolve_text(file, node.line, text, findings),
            Tree::List(items) => {
                for item in items {
                    complete &= self.resolve(file, item, findings);
                }
            }
            Tree::Map(entries) => {
                for entry in entries {
                    complete &= self.resolve(file, &mut entry.value, findings);
                }
            }
            _ => {}
        }
        complete
    }

    fn resolve_text(&self, file: &Path, line: usize, text: &mut Text, findings: &mut Findings) -> bool {
        if !text.written.contains("${") {
            return true;
        }
        let pieces = match pieces(&text.written) {
            Ok(pieces) => pieces,
            Err(message) => {
                findings.mistake(file, line, message).hint("write `$${` for a literal `${`");
                return false;
            }
        };
        let mut resolved = String::new();
        let mut complete = true;
        let mut read_any = false;
        for piece in pieces {
            let value = match piece {
                Piece::Plain(plain) => {
                    resolved.push_str(plain);
                    continue;
                }
                Piece::Escape => {
                    resolved.push_str("${");
                    continue;
                }
                Piece::Variable(name) => (self.environment)(name).ok_or_else(|| {
                    (format!("the environment has no variable `{name}`"), format!("export {name}=…"))
                }),
                Piece::File(path) => self.read(path),
            };
            match value {
                Ok(value) => {
                    self.redactor.add(&value);
                    resolved.push_str(&value);
                    read_any = true;
                }
                Err((message, hint)) => {
                    complete = false;
                    let finding = if self.lenient {
                        findings.warning(file, line, message)
                    } else {
                        findings.mistake(file, line, message)
                    };
                    finding.code(ErrorCode::SecretMissing).hint(hint);
                }
            }
        }
        if complete {
            if read_any && let Some(password) = url_password(&resolved) {
                self.redactor.add(password);
                // The URL as a whole brings the decoded form of its password along.
                self.redactor.add(&resolved);
            }
            text.resolved = resolved;
        }
        complete
    }

    /// The content of a file, without the line end that editors leave.
    fn read(&self, path: &str) -> Result<String, (String, String)> {
        let full: PathBuf = self.root.join(path);
        match super::bounds::read(&full) {
            Ok(content) => Ok(content.trim_end_matches(['\n', '\r']).to_owned()),
            Err(error) => Err((
                format!("the file `{path}` cannot be read: {}", reason(&error)),
                "create it, or correct the path (relative paths start at the project's folder)".to_owned(),
            )),
        }
    }
}

/// Why a file cannot be read, in few words.
pub(super) fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "it does not exist".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        std::io::ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
        _ => error.to_string(),
    }
}

fn pieces(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            pieces.push(Piece::Plain(&rest[..at - 1]));
            pieces.push(Piece::Escape);
            rest = &rest[at + 2..];
            continue;
        }
        pieces.push(Piece::Plain(&rest[..at]));
        let inside = &rest[at + 2..];
        let Some(end) = inside.find('}') else {
            return Err("`${` is not closed by `}`".to_owned());
        };
        let name = inside[..end].trim();
        match name.strip_prefix("file:") {
            Some(path) if !path.trim().is_empty() => pieces.push(Piece::File(path.trim())),
            None if is_variable(name) => pieces.push(Piece::Variable(name)),
            _ => return Err(format!("`${{{name}}}` is neither a variable's name nor `${{file:path}}`")),
        }
        rest = &inside[end + 1..];
    }
    pieces.push(Piece::Plain(rest));
    Ok(pieces)
}

/// Whether a text still holds a `${…}` that was to be read.
pub(super) fn is_unread(text: &str) -> bool {
    pieces(text).is_ok_and(|pieces| pieces.iter().any(|p| matches!(p, Piece::Variable(_) | Piece::File(_))))
}

fn is_variable(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Warns about every secret that stands in clear in a file, and hides it from all output. What is
/// a secret the schema tells with `"x-secret": true`.
pub(super) fn warn_of_clear_secrets(
    file: &Path,
    node: &Node,
    schema: &Value,
    redactor: &Redactor,
    findings: &mut Findings,
) {
    walk(schema, schema, "", node, 0, &mut |key, line, text: &Text| {
        // An address without a password is no secret, whatever its key may hold at other times.
        let harmless = text.written.contains("://") && url_password(&text.written).is_none();
        if text.written.contains("${") || text.written.is_empty() || harmless {
            return;
        }
        redactor.add(&text.written);
        findings
            .warning(file, line, format!("the secret `{key}` stands here in clear"))
            .hint("read it from the environment with `${NAME}` or from a file with `${file:path}`");
    });
}

/// A file's value as it is written, for other eyes: without what stands there in clear and is secret. A reference
/// (`${NAME}`) is shown, for it tells nothing; so is an address that holds no password.
pub(super) fn shown(node: &Node, schema: &Value) -> Value {
    let mut hidden: HashSet<*const Text> = HashSet::new();
    walk(schema, schema, "", node, 0, &mut |_, _, text: &Text| {
        if !is_open(&text.written) {
            hidden.insert(std::ptr::from_ref(text));
        }
    });
    without(node, &hidden).unwrap_or_default()
}

/// Whether what stands at the place of a secret may be seen.
fn is_open(written: &str) -> bool {
    let reference = |text: &str| {
        text.strip_prefix("${")
            .and_then(|rest| rest.strip_suffix('}'))
            .is_some_and(|name| !name.contains('}'))
    };
    let address = written.contains("://") && !written.contains('?');
    written.is_empty() || reference(written) || (address && url_password(written).is_none_or(reference))
}

fn without(node: &Node, hidden: &HashSet<*const Text>) -> Option<Value> {
    Some(match &node.tree {
        Tree::Text(text) if hidden.contains(&std::ptr::from_ref(text)) => return None,
        Tree::Text(text) => Value::String(text.written.clone()),
        Tree::List(items) => items.iter().filter_map(|item| without(item, hidden)).collect(),
        Tree::Map(entries) => entries
            .iter()
            .filter_map(|entry| Some((entry.key.clone(), without(&entry.value, hidden)?)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        _ => node.json(),
    })
}

/// Visits every text that a schema marks as a secret.
fn walk(
    root: &Value,
    schema: &Value,
    key: &str,
    node: &Node,
    depth: usize,
    visit: &mut impl FnMut(&str, usize, &Text),
) {
    // Schemas may refer to themselves; files are never this deep.
    if depth > 64 {
        return;
    }
    let schema = super::schema::dereferenced(root, schema);
    if schema["x-secret"] == Value::Bool(true) {
        every_text(key, node, visit);
        return;
    }
    for word in ["allOf", "anyOf", "oneOf"] {
        for branch in schema[word].as_array().into_iter().flatten() {
            walk(root, branch, key, node, depth + 1, visit);
        }
    }
    match &node.tree {
        Tree::Map(entries) => {
            for entry in entries {
                let part = schema["properties"].get(&entry.key).unwrap_or(&schema["additionalProperties"]);
                walk(root, part, &entry.key, &entry.value, depth + 1, visit);
            }
        }
        Tree::List(items) => {
            for item in items {
                walk(root, &schema["items"], key, item, depth + 1, visit);
            }
        }
        _ => {}
    }
}

fn every_text(key: &str, node: &Node, visit: &mut impl FnMut(&str, usize, &Text)) {
    match &node.tree {
        Tree::Text(text) => visit(key, node.line, text),
        Tree::List(items) => items.iter().for_each(|item| every_text(key, item, visit)),
        Tree::Map(entries) => entries.iter().for_each(|entry| every_text(&entry.key, &entry.value, visit)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::finding::Severity;
    use crate::config::yaml::parse;

    fn environment(name: &str) -> Option<String> {
        match name {
            "TOKEN" => Some("s3cr3t-token".to_owned()),
            "DB" => Some("postgres://u:pa%24%24word@h/db".to_owned()),
            "PASS" => Some("partpassword".to_owned()),
            _ => None,
        }
    }

    fn resolve(text: &str, lenient: bool) -> (Value, bool, Findings, Redactor) {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("key.pem"), "line-of-the-key\n").unwrap();
        let redactor = Redactor::default();
        let mut findings = Findings::default();
        let mut node = parse(text).unwrap();
        let interpolation =
            Interpolation { root: root.path(), environment: &environment, redactor: &redactor, lenient };
        let complete = interpolation.resolve(Path::new("f.yml"), &mut node, &mut findings);
        (node.json(), complete, findings, redactor)
    }

    #[test]
    fn replaces_whole_and_part_and_leaves_escapes() {
        let (json, complete, findings, redactor) = resolve(
            "a: ${TOKEN}\nb: [\"Bearer ${TOKEN}\", {c: \"${file:key.pem}\"}]\nd: $${TOKEN} $ {x} $5\n",
            false,
        );
        assert!(complete && findings.0.is_empty());
        assert_eq!(
            json,
            json!({"a": "s3cr3t-token", "b": ["Bearer s3cr3t-token", {"c": "line-of-the-key"}],
                   "d": "${TOKEN} $ {x} $5"})
        );
        assert_eq!(redactor.redact("s3cr3t-token and line-of-the-key"), "••• and •••");
    }

    #[test]
    fn hides_passwords_of_urls_that_were_read_or_put_together() {
        let (_, _, _, redactor) = resolve("a: ${DB}\nb: postgres://u:${PASS}x@h/db\n", false);
        assert_eq!(redactor.redact("pa$$word pa%24%24word partpasswordx"), "••• ••• •••");
    }

    #[test]
    fn missing_ones_are_found_all_with_their_lines() {
        let text = "a: ${NOPE}\nb:\n  c: x${file:none.txt}y${ALSO_NOT}\n";
        let (json, complete, findings, _) = resolve(text, false);
        assert!(!complete);
        let found: Vec<_> =
            findings.0.iter().map(|f| (f.place.line, f.code, f.severity, f.message.as_str())).collect();
        let missing = |line, message| (line, ErrorCode::SecretMissing, Severity::Mistake, message);
        assert_eq!(
            found,
            [
                missing(1, "the environment has no variable `NOPE`"),
                missing(3, "the file `none.txt` cannot be read: it does not exist"),
                missing(3, "the environment has no variable `ALSO_NOT`"),
            ]
        );
        assert_eq!(json["a"], "${NOPE}");
        let (_, _, findings, _) = resolve(text, true);
        assert!(findings.0.iter().all(|finding| finding.severity == Severity::Warning));
    }

    #[test]
    fn malformed_ones_are_mistakes() {
        for text in ["a: ${", "a: ${}", "a: ${1X}", "a: ${file:}", "a: ${A B}"] {
            let (_, complete, findings, _) = resolve(&format!("\"{}\": \"{}\"", "a", &text[3..]), true);
            assert!(!complete, "{text}");
            assert!(findings.has_mistakes(), "{text}");
        }
    }

    #[test]
    fn what_is_shown_of_a_file_holds_no_secret() {
        let schema = json!({"properties": {
            "url": {"x-secret": true},
            "token": {"x-secret": true},
            "list": {"items": {"properties": {"password": {"x-secret": true}}}},
        }});
        let look = |text: &str| shown(&parse(text).unwrap(), &schema);
        assert_eq!(look("token: clear\nname: ${NAME}\n"), json!({"name": "${NAME}"}));
        assert_eq!(look("token: ${TOKEN}\n"), json!({"token": "${TOKEN}"}));
        assert_eq!(look("token: clear-${TOKEN}-${X}\nn: 1\n"), json!({"n": 1}));
        assert_eq!(look("url: postgres://u:pass@h/db\nn: 1\n"), json!({"n": 1}));
        assert_eq!(look("url: postgres://u:pass@${HOST}/db\nn: 1\n"), json!({"n": 1}));
        assert_eq!(look("url: postgres://h/db?password=x\nn: 1\n"), json!({"n": 1}));
        assert_eq!(look("url: postgres://u:${P}@h/db\n"), json!({"url": "postgres://u:${P}@h/db"}));
        assert_eq!(look("list: [{user: u, password: p}]\n"), json!({"list": [{"user": "u"}]}));
    }

    #[test]
    fn secrets_in_clear_draw_warnings_and_are_hidden() {
        let schema = json!({
            "properties": {
                "url": {"type": "string", "x-secret": true},
                "auth": {"$ref": "#/$defs/Auth"},
                "headers": {"additionalProperties": {"type": "string"}},
            },
            "$defs": {"Auth": {"oneOf": [
                {"properties": {"bearer": {"type": "string", "x-secret": true}}},
                {"properties": {"basic": {"properties": {"user": {}, "password": {"x-secret": true}}}}},
            ]}},
        });
        let look = |text: &str| {
            let redactor = Redactor::default();
            let mut findings = Findings::default();
            let node = parse(text).unwrap();
            warn_of_clear_secrets(Path::new("f.yml"), &node, &schema, &redactor, &mut findings);
            (findings.0.iter().map(|f| f.place.line).collect::<Vec<_>>(), redactor)
        };
        let (lines, redactor) =
            look("headers: {x: open}\nauth:\n  basic:\n    user: me\n    password: in-clear\n");
        assert_eq!(lines, [5]);
        assert_eq!(redactor.redact("me in-clear open"), "me ••• open");
        assert_eq!(look("auth: {bearer: \"${TOKEN}\"}\nurl: postgres://localhost/db\n").0, [] as [usize; 0]);
        assert_eq!(look("auth: {bearer: abcd}\nurl: postgres://u:pass@localhost/db\n").0, [1, 2]);
    }
}
