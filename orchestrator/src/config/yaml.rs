//! YAML as a tree of values that know their lines, so that every mistake can be shown where it is.

use std::fmt::Write as _;

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};
use serde_json::{Map, Number, Value};

use super::bounds;

/// A value and the line on which it begins, counted from 1.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) line: usize,
    pub(crate) tree: Tree,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Tree {
    Null,
    Boolean(bool),
    Integer(i64),
    Float(f64),
    Text(Text),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A text, before and after its `${…}` were read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Text {
    /// As it stands in the file.
    pub(crate) written: String,
    /// With every `${…}` replaced; as written while one of them could not be read.
    pub(crate) resolved: String,
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_line: usize,
    pub(crate) value: Node,
}

/// Why a text is not usable YAML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unreadable {
    pub(crate) line: usize,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Unreadable {
    fn new(line: usize, message: impl Into<String>) -> Self {
        Self { line, message: message.into(), hint: None }
    }
}

/// A step from a value to a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

/// `guards.max_removed.percent`, `mappings[2].to`.
pub(crate) fn path_text(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => {
                text.push('.');
                text.push_str(key);
            }
            Step::Index(index) => {
                // Writing into a String cannot fail.
                let _ = write!(text, "[{index}]");
            }
        }
    }
    text
}

/// Reads a file that holds exactly one YAML document.
pub(crate) fn parse(text: &str) -> Result<Node, Unreadable> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some(line) = conflict_line(text) {
        let mut error = Unreadable::new(line, "a merge conflict is not resolved here");
        error.hint = Some("keep one side, or both, and delete the marker lines".to_owned());
        return Err(error);
    }
    bounds::check(text).map_err(|(line, message)| Unreadable::new(line, message))?;
    let documents = MarkedYaml::load_from_str(text).map_err(|error| {
        let line = error.marker().line();
        let mut unreadable = Unreadable::new(line, format!("not valid YAML: {}", error.info()));
        let indented_by_tab = |line: &str| line.trim_start_matches(' ').starts_with('\t');
        if error.info().contains("duplicated key") {
            "the key stands here twice".clone_into(&mut unreadable.message);
            unreadable.hint = Some("keep one of the two".to_owned());
        } else if let Some(tab) = text.lines().take(line + 1).position(indented_by_tab) {
            unreadable = Unreadable::new(tab + 1, "not valid YAML: a line is indented with a tab");
            unreadable.hint = Some("indent with spaces".to_owned());
        }
        unreadable
    })?;
    let document = match documents.as_slice() {
        [] => return Err(empty()),
        [document] => document,
        [_, second, ..] => {
            let mut error = Unreadable::new(second.span.start.line(), "a second document begins here");
            error.hint =
                Some("one file holds one object: move the part after `---` to a file of its own".to_owned());
            return Err(error);
        }
    };
    let node = convert(document)?;
    if node.tree == Tree::Null { Err(empty()) } else { Ok(node) }
}

fn empty() -> Unreadable {
    let mut error = Unreadable::new(1, "the file is empty");
    error.hint = Some("`levin schema` lists the keys; delete the file if it is not needed".to_owned());
    error
}

/// The line of the first marker that an unresolved merge leaves behind.
fn conflict_line(text: &str) -> Option<usize> {
    let marks = ["<<<<<<< ", ">>>>>>> "];
    text.lines().position(|line| marks.iter().any(|mark| line.starts_with(mark))).map(|index| index + 1)
}

fn convert(yaml: &MarkedYaml<'_>) -> Result<Node, Unreadable> {
    let line = yaml.span.start.line();
    let tree = match &yaml.data {
        YamlData::Value(scalar) => match scalar {
            Scalar::Null => Tree::Null,
            Scalar::Boolean(value) => Tree::Boolean(*value),
            Scalar::Integer(value) => Tree::Integer(*value),
            Scalar::FloatingPoint(value) if value.is_finite() => Tree::Float(value.into_inner()),
            Scalar::FloatingPoint(_) => {
                return Err(Unreadable::new(line, "NaN and infinities have no place in a project file"));
            }
            Scalar::String(value) => Tree::text(value),
        },
        YamlData::Sequence(items) => Tree::List(items.iter().map(convert).collect::<Result<_, _>>()?),
        YamlData::Mapping(map) => {
            let mut entries = Vec::with_capacity(map.len());
            let mut merged = Vec::new();
            for (key, value) in map {
                let key_line = key.span.start.line();
                let key = key_text(key)?;
                let value = convert(value)?;
                if key == "<<" {
                    merged.push(value);
                } else {
                    entries.push(Entry { key, key_line, value });
                }
            }
            for value in merged {
                merge(&mut entries, value)?;
            }
            Tree::Map(entries)
        }
        YamlData::Tagged(tag, inner) => {
            // `!!str 1` is a plain value by now; any other tag means something to another program only.
            if !tag.is_yaml_core_schema() {
                return Err(Unreadable::new(line, format!("the tag `{tag}` means nothing here")));
            }
            return convert(inner);
        }
        YamlData::BadValue => Tree::Null,
        YamlData::Representation(text, ..) => Tree::text(text),
        YamlData::Alias(_) => return Err(Unreadable::new(line, "the alias names no anchor of this file")),
    };
    Ok(Node { line, tree })
}

fn key_text(key: &MarkedYaml<'_>) -> Result<String, Unreadable> {
    let line = key.span.start.line();
    match convert(key)?.tree {
        Tree::Text(text) => Ok(text.written),
        Tree::Integer(number) => Ok(number.to_string()),
        Tree::Float(number) => Ok(number.to_string()),
        Tree::Boolean(value) => Ok(value.to_string()),
        Tree::Null => Ok("null".to_owned()),
        Tree::List(_) | Tree::Map(_) => {
            Err(Unreadable::new(line, "a key must be a word, not a list or mapping"))
        }
    }
}

/// `<<: *defaults`: takes the keys that are not there yet.
fn merge(entries: &mut Vec<Entry>, value: Node) -> Result<(), Unreadable> {
    let maps = match value.tree {
        Tree::List(items) => items,
        tree => vec![Node { line: value.line, tree }],
    };
    for map in maps {
        let Tree::Map(more) = map.tree else {
            return Err(Unreadable::new(map.line, "`<<` takes a mapping or a list of mappings"));
        };
        for entry in more {
            if !entries.iter().any(|present| present.key == entry.key) {
                entries.push(entry);
            }
        }
    }
    Ok(())
}

impl Tree {
    fn text(text: &str) -> Self {
        Self::Text(Text { written: text.to_owned(), resolved: text.to_owned() })
    }
}

impl Node {
    /// The value as JSON, `${…}` replaced.
    pub(crate) fn json(&self) -> Value {
        match &self.tree {
            Tree::Null => Value::Null,
            Tree::Boolean(value) => Value::Bool(*value),
            Tree::Integer(value) => Value::from(*value),
            Tree::Float(value) => Number::from_f64(*value).map_or(Value::Null, Value::Number),
            Tree::Text(text) => Value::String(text.resolved.clone()),
            Tree::List(items) => items.iter().map(Self::json).collect(),
            Tree::Map(entries) => {
                Value::Object(entries.iter().map(|e| (e.key.clone(), e.value.json())).collect::<Map<_, _>>())
            }
        }
    }

    /// The entries of a mapping; none for anything else.
    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.tree {
            Tree::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The entry of a mapping.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// The text under a key of a mapping.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        match &self.entry(key)?.value.tree {
            Tree::Text(text) => Some(&text.resolved),
            _ => None,
        }
    }

    /// The value at a path.
    pub(crate) fn at(&self, path: &[Step]) -> Option<&Self> {
        let Some((step, rest)) = path.split_first() else { return Some(self) };
        let part = match (step, &self.tree) {
            (Step::Key(key), Tree::Map(_)) => &self.entry(key)?.value,
            (Step::Index(index), Tree::List(items)) => items.get(*index)?,
            _ => return None,
        };
        part.at(rest)
    }

    /// The line on which a person looks for the value at a path: that of its key where it has
    /// one; of the nearest part around it when there is no such value.
    pub(crate) fn line_at(&self, path: &[Step]) -> usize {
        let mut node = self;
        let mut line = self.line;
        for step in path {
            match (step, &node.tree) {
                (Step::Key(key), Tree::Map(_)) => match node.entry(key) {
                    Some(entry) => {
                        line = entry.key_line;
                        node = &entry.value;
                    }
                    None => return line,
                },
                (Step::Index(index), Tree::List(items)) => match items.get(*index) {
                    Some(item) => {
                        line = item.line;
                        node = item;
                    }
                    None => return line,
                },
                _ => return line,
            }
        }
        line
    }

    /// The line of a top-level key; of the file's first value when the key is not there.
    pub(crate) fn line_of(&self, key: &str) -> usize {
        self.entry(key).map_or(self.line, |entry| entry.key_line)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(name: &str) -> Step {
        Step::Key(name.to_owned())
    }

    #[test]
    fn values_know_their_lines() {
        let node = parse("# head\nname: demo\nlist:\n  - a: 1\n    b: [x, y]\n  - c: {d: 2.5}\n").unwrap();
        assert_eq!(
            node.json(),
            json!({"name": "demo", "list": [{"a": 1, "b": ["x", "y"]}, {"c": {"d": 2.5}}]})
        );
        assert_eq!(node.line, 2);
        assert_eq!(node.line_of("list"), 3);
        assert_eq!(node.line_at(&[key("list"), Step::Index(0)]), 4);
        assert_eq!(node.line_at(&[key("list"), Step::Index(0), key("b"), Step::Index(1)]), 5);
        assert_eq!(node.line_at(&[key("list"), Step::Index(1), key("c"), key("nothing")]), 6);
        assert_eq!(path_text(&[key("list"), Step::Index(1), key("c"), key("d")]), "list[1].c.d");
    }

    #[test]
    fn words_that_older_yaml_took_for_booleans_are_texts() {
        let node = parse("on: yes\noff: no\nslug: 0123\ncountry: NO\nflag: true\nquoted: '1'\n").unwrap();
        assert_eq!(
            node.json(),
            json!({"on": "yes", "off": "no", "slug": 123, "country": "NO", "flag": true, "quoted": "1"})
        );
    }

    #[test]
    fn anchors_and_merge_keys_work_and_own_keys_win() {
        let node =
            parse("a: &base {x: 1, y: 2}\nb:\n  <<: *base\n  y: 3\nc: {<<: [*base, {z: 4}]}\n").unwrap();
        assert_eq!(node.json()["b"], json!({"y": 3, "x": 1}));
        assert_eq!(node.json()["c"], json!({"x": 1, "y": 2, "z": 4}));
        assert!(parse("b: {<<: 3}\n").unwrap_err().message.contains("`<<`"));
    }

    #[test]
    fn what_cannot_be_read_says_where_and_why() {
        let cases: [(&str, usize, &str); 8] = [
            ("", 1, "empty"),
            ("# only a comment\n", 1, "empty"),
            ("a: 1\nb: 2\na: 3\n", 3, "twice"),
            ("a: 1\n---\nb: 2\n", 3, "second document"),
            ("a:\n\tb: 1\n", 2, "tab"),
            ("a: [1, 2\nb: 3\n", 2, "not valid YAML"),
            ("a: 1\n<<<<<<< HEAD\nb: 2\n=======\nb: 3\n>>>>>>> other\n", 2, "merge conflict"),
            ("a: .nan\n", 1, "NaN"),
        ];
        for (text, line, words) in cases {
            let error = parse(text).unwrap_err();
            assert!(error.message.contains(words), "{text:?}: {error:?}");
            assert_eq!(error.line, line, "{text:?}: {error:?}");
        }
    }

    #[test]
    fn a_crowd_of_aliases_is_refused_rather_than_expanded() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..10 {
            let refs = vec![format!("*a{}", level - 1); 10].join(", ");
            writeln!(text, "a{level}: &a{level} [{refs}]").unwrap();
        }
        assert!(parse(&text).is_err());
    }
}
