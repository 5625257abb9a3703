//! Whether a file has the shape that its schema asks for, said in words for people.

use std::collections::BTreeSet;
use std::path::Path;

use jsonschema::paths::LocationSegment;
use jsonschema::{ValidationError, Validator, error::ValidationErrorKind};
use serde_json::Value;

use super::finding::{Finding, Findings};
use super::schema::dereferenced;
use super::yaml::{Node, Step, Tree, path_text};
use crate::suggestion;

/// A schema, ready to check files of one kind and connector.
pub(super) struct Shape {
    pub(super) schema: Value,
    validator: Validator,
}

impl Shape {
    /// # Panics
    /// When the schema itself is not valid, which a test over the whole catalogue rules out.
    pub(super) fn new(schema: Value) -> Self {
        let validator = jsonschema::validator_for(&schema)
            .unwrap_or_else(|error| panic!("a connector's schema is not valid: {error}"));
        Self { schema, validator }
    }

    /// Checks a file. Returns the top-level keys below which something is wrong; an empty text
    /// among them stands for a key that is missing.
    pub(super) fn check(&self, file: &Path, node: &Node, findings: &mut Findings) -> BTreeSet<String> {
        let mut check = Check { file, root: node, schema: &self.schema, findings, wrong: BTreeSet::new() };
        let instance = node.json();
        for error in self.validator.iter_errors(&instance) {
            check.explain(&error);
        }
        check.wrong
    }
}

struct Check<'a> {
    file: &'a Path,
    root: &'a Node,
    schema: &'a Value,
    findings: &'a mut Findings,
    wrong: BTreeSet<String>,
}

impl Check<'_> {
    fn mistake(&mut self, path: &[Step], message: impl Into<String>) -> &mut Finding {
        let wrong = match path.first() {
            Some(Step::Key(key)) => key.clone(),
            _ => String::new(),
        };
        self.wrong.insert(wrong);
        self.findings.mistake(self.file, self.root.line_at(path), message)
    }

    fn explain(&mut self, error: &ValidationError<'_>) {
        let path: Vec<Step> = error.instance_path().segments().map(step).collect();
        let node = self.root.at(&path);
        // Nothing can be said about a text whose `${…}` could not be read; that was reported.
        if let Some(Node { tree: Tree::Text(text), .. }) = node
            && text.written == text.resolved
            && super::secrets::is_unread(&text.written)
            && !matches!(error.kind(), ValidationErrorKind::Type { .. })
        {
            return;
        }
        let here = subject(&path);
        match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected } => {
                let holder = parent(self.schema, error.schema_path().as_str());
                let known: Vec<&str> = holder["properties"]
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(key, _)| key.as_str())
                    .collect();
                for key in unexpected {
                    let mut at = path.clone();
                    at.push(Step::Key(key.clone()));
                    self.unknown_key(&at, key, &known);
                }
            }
            ValidationErrorKind::Required { property } => {
                let key = property.as_str().unwrap_or_default();
                let inside = if path.is_empty() { String::new() } else { format!(" in {here}") };
                self.wrong.insert(String::new());
                self.mistake(&path, format!("the key `{key}` is missing{inside}"));
            }
            ValidationErrorKind::Type { .. } => {
                let expected = &parent(self.schema, error.schema_path().as_str())["type"];
                let expected: Vec<&str> = match expected {
                    Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
                    other => other.as_str().into_iter().collect(),
                };
                let holder = parent(self.schema, error.schema_path().as_str()).clone();
                self.wrong_type(&path, &expected, &holder);
            }
            ValidationErrorKind::Enum { options } => {
                let words: Vec<String> = options.as_array().into_iter().flatten().map(word).collect();
                self.wrong_word(&path, &words);
            }
            ValidationErrorKind::Constant { expected_value } => {
                self.wrong_word(&path, &[word(expected_value)]);
            }
            ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => {
                self.no_form_fits(&path, error.schema_path().as_str(), context);
            }
            ValidationErrorKind::OneOfMultipleValid { .. } => {
                let (keys, _) = forms(self.schema, error.schema_path().as_str());
                let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
                self.mistake(&path, format!("{here} may hold only one of {}", suggestion::listed(&keys)));
            }
            ValidationErrorKind::MinLength { .. } if described(node) == "an empty text" => {
                self.mistake(&path, format!("{here} is empty"));
            }
            ValidationErrorKind::MinItems { limit } => {
                let what = if *limit == 1 {
                    "at least one entry".to_owned()
                } else {
                    format!("at least {limit} entries")
                };
                self.mistake(&path, format!("{here} needs {what}"));
            }
            ValidationErrorKind::MinProperties { limit } => {
                let what = if *limit == 1 {
                    "at least one key".to_owned()
                } else {
                    format!("at least {limit} keys")
                };
                let holder = parent(self.schema, error.schema_path().as_str());
                let known: Vec<&str> = holder["properties"]
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(key, _)| key.as_str())
                    .collect();
                let hint = format!("keys: {}", suggestion::listed(&known));
                self.mistake(&path, format!("{here} needs {what}")).hint(hint);
            }
            ValidationErrorKind::Minimum { limit } => {
                self.mistake(&path, format!("{here} must not be less than {}", plain(limit)));
            }
            ValidationErrorKind::Maximum { limit } => {
                self.mistake(&path, format!("{here} must not be more than {}", plain(limit)));
            }
            ValidationErrorKind::ExclusiveMinimum { limit } => {
                self.mistake(&path, format!("{here} must be more than {}", plain(limit)));
            }
            ValidationErrorKind::ExclusiveMaximum { limit } => {
                self.mistake(&path, format!("{here} must be less than {}", plain(limit)));
            }
            ValidationErrorKind::UniqueItems => {
                self.mistake(&path, format!("{here} holds an entry twice"));
            }
            ValidationErrorKind::Pattern { pattern } => {
                let hint = match path.last() {
                    Some(Step::Key(key)) if key == "slug" => {
                        "letters, digits, `-`, `_` and `.`, beginning with a letter or digit".to_owned()
                    }
                    Some(Step::Key(key)) if key == "store" => {
                        "write `sqlite://` and a path, or `postgres://…`".to_owned()
                    }
                    Some(Step::Key(key)) if key == "time" => {
                        "write hours and minutes, such as `\"09:00\"`".to_owned()
                    }
                    _ => format!("it must match `{pattern}`"),
                };
                self.mistake(&path, format!("{here} has the wrong form: {}", described(node))).hint(hint);
            }
            // Rare kinds keep the validator's words; the value itself is masked, it may be a secret.
            _ => {
                let message = error.masked_with("the value").to_string();
                self.mistake(&path, format!("{here}: {message}"));
            }
        }
    }

    fn unknown_key(&mut self, path: &[Step], key: &str, known: &[&str]) {
        let inside = match path.split_last() {
            Some((_, holder)) if !holder.is_empty() => format!(" in {}", subject(holder)),
            _ => String::new(),
        };
        // A key that is there already was not meant by another one.
        let holder = path.split_last().and_then(|(_, holder)| self.root.at(holder));
        let free: Vec<&str> = known
            .iter()
            .copied()
            .filter(|key| holder.is_none_or(|holder| holder.entry(key).is_none()))
            .collect();
        self.mistake(path, format!("unknown key `{key}`{inside}")).hint(suggestion::hint(
            key,
            &free,
            "other keys",
        ));
    }

    fn wrong_type(&mut self, path: &[Step], expected: &[&str], schema: &Value) {
        let node = self.root.at(path);
        let actual = described(node);
        let line_value = node.map(|node| &node.tree);
        let mut names: Vec<&str> = expected.iter().map(|name| type_name(name)).collect();
        names.dedup();
        let hint = match line_value {
            Some(Tree::Null) => None,
            Some(Tree::Integer(number)) if schema["format"] == "duration" => {
                Some(format!("write a unit, such as `{number}s` or `{number}m`"))
            }
            Some(Tree::Integer(_) | Tree::Float(_) | Tree::Boolean(_)) if expected.contains(&"string") => {
                node.map(|node| format!("write it in quotes: \"{}\"", node.json()))
            }
            Some(Tree::Text(text))
                if expected.iter().any(|name| ["integer", "number", "boolean"].contains(name))
                    && text.resolved == text.written
                    && text.resolved.parse::<f64>().is_ok()
                        | ["true", "false"].contains(&text.resolved.as_str()) =>
            {
                Some("write it without quotes".to_owned())
            }
            Some(Tree::Text(_)) if expected == ["array"] => Some("write it as a list: `[…]`".to_owned()),
            _ => None,
        };
        let here = subject(path);
        let message = if line_value == Some(&Tree::Null) {
            format!("{here} has no value; it must be {}", names.join(" or "))
        } else {
            format!("{here} must be {}, not {actual}", names.join(" or "))
        };
        let finding = self.mistake(path, message);
        finding.hint = hint;
    }

    fn wrong_word(&mut self, path: &[Step], words: &[String]) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let node = self.root.at(path);
        let nearest = match node.map(|node| &node.tree) {
            Some(Tree::Text(text)) => suggestion::nearest(&text.written, words.iter().copied()),
            _ => None,
        };
        let hint = match node.map(|node| &node.tree) {
            // YAML reads the word as no value at all.
            Some(Tree::Null) if words.contains(&"null") => Some("write it in quotes: \"null\"".to_owned()),
            _ => nearest.map(|meant| format!("did you mean `{meant}`?")),
        };
        let one_of = if words.len() == 1 { "" } else { "one of " };
        let (here, words) = (subject(path), suggestion::listed(&words));
        let message = match node.map(|node| &node.tree) {
            Some(Tree::Null) => format!("{here} has no value; it must be {one_of}{words}"),
            _ => format!("{here} must be {one_of}{words}, not {}", described(node)),
        };
        self.mistake(path, message).hint = hint;
    }

    /// Explains why none of several forms fits: by the one that was most likely meant.
    fn no_form_fits(&mut self, path: &[Step], schema_path: &str, context: &[Vec<ValidationError<'static>>]) {
        let node = self.root.at(path);
        let branches = branches(self.schema, schema_path);
        let (keys, words) = forms(self.schema, schema_path);
        let key_names: Vec<&str> = keys.iter().map(String::as_str).collect();
        let here = subject(path);
        match node.map(|node| &node.tree) {
            Some(Tree::Map(entries)) if !keys.is_empty() => {
                let mine: Vec<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
                let likeness = |index: usize| {
                    let properties = branches.get(index).map(|branch| &branch["properties"]);
                    mine.iter().filter(|key| properties.is_some_and(|p| p.get(**key).is_some())).count()
                };
                let best = (0..context.len()).max_by_key(|index| (likeness(*index), usize::MAX - index));
                match best.filter(|index| likeness(*index) > 0) {
                    Some(index) => context[index].iter().for_each(|error| self.explain(error)),
                    None => match mine.first() {
                        Some(first) => {
                            let mut at = path.to_vec();
                            at.push(Step::Key((*first).to_owned()));
                            self.unknown_key(&at, first, &key_names);
                        }
                        None => {
                            self.mistake(
                                path,
                                format!("{here} needs one of {}", suggestion::listed(&key_names)),
                            );
                        }
                    },
                }
            }
            Some(Tree::Text(_) | Tree::Integer(_) | Tree::Float(_) | Tree::Boolean(_) | Tree::Null)
                if !words.is_empty() =>
            {
                self.wrong_word(path, &words);
            }
            _ => {
                // A form of the right type has only mistakes further inside.
                let depth = path.len();
                let inner = context.iter().find(|errors| {
                    !errors.is_empty()
                        && errors.iter().all(|error| {
                            error.instance_path().segments().count() > depth
                                || !matches!(error.kind(), ValidationErrorKind::Type { .. })
                        })
                });
                if let Some(errors) = inner {
                    for error in errors {
                        self.explain(error);
                    }
                    return;
                }
                let mut types: Vec<&str> = branches.iter().flat_map(|branch| types_of(branch)).collect();
                if !words.is_empty() && types.is_empty() {
                    self.wrong_word(path, &words);
                    return;
                }
                types.dedup();
                self.wrong_type(path, &types, &Value::Null);
            }
        }
    }
}

fn step(segment: LocationSegment<'_>) -> Step {
    match segment {
        LocationSegment::Property(key) => Step::Key(key.into_owned()),
        LocationSegment::Index(index) => Step::Index(index),
    }
}

/// What a sentence begins with: the path, or the file as a whole.
fn subject(path: &[Step]) -> String {
    if path.is_empty() { "the file".to_owned() } else { format!("`{}`", path_text(path)) }
}

fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The schema that holds the keyword at a path.
fn parent<'a>(schema: &'a Value, keyword: &str) -> &'a Value {
    let holder = keyword.rsplit_once('/').map_or("", |(holder, _)| holder);
    schema.pointer(holder).unwrap_or(&Value::Null)
}

/// The schemas under an `anyOf` or `oneOf`.
fn branches<'a>(schema: &'a Value, path: &str) -> Vec<&'a Value> {
    let list = schema.pointer(path).and_then(Value::as_array);
    list.into_iter().flatten().map(|branch| dereferenced(schema, branch)).collect()
}

/// The keys and the words that the branches of an `anyOf` or `oneOf` allow.
fn forms(schema: &Value, path: &str) -> (Vec<String>, Vec<String>) {
    let (mut keys, mut words) = (Vec::new(), Vec::new());
    for branch in branches(schema, path) {
        keys.extend(branch["properties"].as_object().into_iter().flatten().map(|(key, _)| key.clone()));
        words.extend(branch.get("const").map(word));
        words.extend(branch["enum"].as_array().into_iter().flatten().map(word));
    }
    keys.dedup();
    (keys, words)
}

fn types_of(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        other => other.as_str().into_iter().collect(),
    }
}

fn type_name(name: &str) -> &'static str {
    match name {
        "string" => "a text",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "`true` or `false`",
        "array" => "a list",
        "object" => "a mapping",
        _ => "nothing",
    }
}

/// A limit without the `.0` that schemas give whole numbers.
fn plain(limit: &Value) -> String {
    limit.to_string().trim_end_matches(".0").to_owned()
}

/// What a person wrote, without revealing what a `${…}` stands for.
fn described(node: Option<&Node>) -> String {
    const SHOWN: usize = 60;
    match node.map(|node| &node.tree) {
        None | Some(Tree::Null) => "nothing".to_owned(),
        Some(Tree::Boolean(value)) => format!("`{value}`"),
        Some(Tree::Integer(value)) => format!("the number {value}"),
        Some(Tree::Float(value)) => format!("the number {value}"),
        Some(Tree::Text(text)) if text.written.is_empty() => "an empty text".to_owned(),
        Some(Tree::Text(text)) if text.written.chars().count() > SHOWN => {
            format!("the text `{}…`", text.written.chars().take(SHOWN).collect::<String>())
        }
        Some(Tree::Text(text)) => format!("the text `{}`", text.written),
        Some(Tree::List(_)) => "a list".to_owned(),
        Some(Tree::Map(_)) => "a mapping".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::schema::{Kind, base};
    use crate::config::yaml::parse;

    /// Every mistake as `line: message (hint)`.
    fn look(schema: &Value, text: &str) -> Vec<String> {
        let mut findings = Findings::default();
        Shape::new(schema.clone()).check(Path::new("f.yml"), &parse(text).unwrap(), &mut findings);
        findings
            .sorted()
            .iter()
            .map(|f| {
                let hint = f.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
                format!("{}: {}{hint}", f.place.line, f.message)
            })
            .collect()
    }

    #[test]
    fn a_sync_with_every_kind_of_slip() {
        let text = "modle: customers
destination: 12
mode: upsrt
on_removed:
match: {from: id, too: id}
mappings:
  - {from: [a], to: x}
  - {variable: runid, to: ''}
guards:
  max_removed: {percent: 110}
  max_added: {}
  min_rows: -1
  allow_empty: 'true'
schedule: {every: 15, at: [{days: [monday], time: '9:00'}]}
";
        assert_eq!(
            look(&base(Kind::Sync), text),
            [
                "1: the key `model` is missing",
                "1: unknown key `modle` (did you mean `model`?)",
                "2: `destination` must be a text, not the number 12 (write it in quotes: \"12\")",
                "3: `mode` must be one of `insert`, `update`, `upsert`, `mirror`, `segment`, `add`, `remove`, `all`, `archive`, `diff`, `snapshot`, \
                 not the text `upsrt` (did you mean `upsert`?)",
                "4: `on_removed` has no value; it must be one of `nothing`, `clear`, `delete`",
                "5: the key `to` is missing in `match`",
                "5: unknown key `too` in `match` (did you mean `to`?)",
                "7: `mappings[0].from` must be a text, not a list",
                "8: `mappings[1].to` is empty",
                "8: `mappings[1].variable` must be one of `run_id`, `sync_id`, `sync_slug`, `model_slug`, \
                 `operation`, `row_version`, `generation`, `run_started_at`, not the text `runid` (did you mean `run_id`?)",
                "10: `guards.max_removed.percent` must not be more than 100",
                "11: `guards.max_added` needs at least one key (keys: `percent`, `rows`)",
                "12: `guards.min_rows` must not be less than 0",
                "13: `guards.allow_empty` must be `true` or `false`, not the text `true` (write it without quotes)",
                "14: `schedule.at[0].days[0]` must be one of `mon`, `tue`, `wed`, `thu`, `fri`, `sat`, `sun`, \
                 not the text `monday`",
                "14: `schedule.at[0].time` has the wrong form: the text `9:00` \
                 (write hours and minutes, such as `\"09:00\"`)",
                "14: `schedule.every` must be a text, not the number 15 (write a unit, such as `15s` or `15m`)",
            ]
        );
    }

    #[test]
    fn models_and_their_keys() {
        let schema = base(Kind::Model);
        assert_eq!(
            look(&schema, "source: wh\nprimary_key: 5\nsql: ''\nslug: 123\n"),
            [
                "2: `primary_key` must be a text or a list, not the number 5 (write it in quotes: \"5\")",
                "3: `sql` is empty",
                "4: `slug` must be a text, not the number 123 (write it in quotes: \"123\")",
            ]
        );
        assert_eq!(look(&schema, "source: wh\nprimary_key: []\nslug: a b\n").len(), 2);
        assert_eq!(
            look(&schema, "source: wh\nprimary_key: [id, 7]\n"),
            ["2: `primary_key[1]` must be a text, not the number 7 (write it in quotes: \"7\")"]
        );
        assert_eq!(look(&schema, "- a\n- b\n"), ["1: the file must be a mapping, not a list"]);
        assert_eq!(look(&schema, "source: wh\nprimary_key: [a, b]\ntable: x\n"), [] as [&str; 0]);
    }

    #[test]
    fn alternatives_are_explained_by_the_one_that_was_meant() {
        let schema = json!({
            "type": "object",
            "properties": {"auth": {"oneOf": [
                {"type": "object", "properties": {"bearer": {"type": "string"}}, "required": ["bearer"],
                 "additionalProperties": false},
                {"type": "object", "properties": {"basic": {"$ref": "#/$defs/Basic"}}, "required": ["basic"],
                 "additionalProperties": false},
                {"const": "none"},
            ]}},
            "$defs": {"Basic": {"type": "object", "properties": {"user": {"type": "string"},
                "password": {"type": "string"}}, "required": ["user", "password"], "additionalProperties": false}},
        });
        assert_eq!(
            look(&schema, "auth: {baerer: x}\n"),
            ["1: unknown key `baerer` in `auth` (did you mean `bearer`?)"]
        );
        assert_eq!(
            look(&schema, "auth:\n  basic:\n    user: u\n    pasword: p\n"),
            [
                "3: the key `password` is missing in `auth.basic`",
                "4: unknown key `pasword` in `auth.basic` (did you mean `password`?)",
            ]
            .map(|line| line.replace("3: the key", "2: the key"))
        );
        assert_eq!(
            look(&schema, "auth: nome\n"),
            ["1: `auth` must be `none`, not the text `nome` (did you mean `none`?)"]
        );
        assert_eq!(look(&schema, "auth: {}\n"), ["1: `auth` needs one of `bearer`, `basic`"]);
        assert_eq!(look(&schema, "auth: none\n"), [] as [&str; 0]);
        let words = json!({"properties": {"non_finite": {"enum": ["null", "string"]}}});
        assert_eq!(
            look(&words, "non_finite: null\n"),
            [
                "1: `non_finite` has no value; it must be one of `null`, `string` (write it in quotes: \"null\")"
            ]
        );
    }
}
