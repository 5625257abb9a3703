//! Project files as a program writes them.

use std::path::Path;

use saphyr::{LoadableYamlNode, Yaml, YamlEmitter};
use serde_json::Value;

use super::{bounds, yaml};
use crate::error::{Error, ErrorCode};

/// What a project file says, `${…}` as they stand there.
///
/// # Errors
/// `PROJECT_INVALID` for what is no YAML.
pub fn read_as_written(path: &Path) -> Result<Value, Error> {
    let invalid = |message: String| Error::new(ErrorCode::ProjectInvalid, message);
    let text = bounds::read(path).map_err(|error| invalid(format!("the file cannot be read: {error}")))?;
    yaml::parse(&text).map(|node| node.json()).map_err(|error| invalid(error.message))
}

/// The text of a project file that says this.
pub fn as_yaml(value: &Value) -> String {
    // What cannot be said otherwise is said in JSON, which is YAML too.
    let json = || serde_json::to_string_pretty(value).unwrap_or_default() + "\n";
    let Ok(documents) = Yaml::load_from_str(&value.to_string()) else { return json() };
    let Some(document) = documents.first() else { return json() };
    let mut text = String::new();
    let mut emitter = YamlEmitter::new(&mut text);
    emitter.multiline(true);
    if emitter.dump(document).is_err() {
        return json();
    }
    let text = text.strip_prefix("---\n").unwrap_or(&text).trim_end().to_owned() + "\n";
    if yaml::parse(&text).is_ok_and(|node| node.json() == *value) { text } else { json() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_reads_back_the_same() {
        for text in [
            "${X}",
            "no",
            "007",
            "1e3",
            "a: b",
            "# x",
            "",
            " x ",
            "a\nb\n",
            "'\"",
            "€",
            "null",
            "- x",
            "{{ row.x }}",
        ] {
            let value =
                json!({"key": text, "list": [text, {"deep": text}], "number": 7, "half": 0.5, "yes": true});
            assert_eq!(yaml::parse(&as_yaml(&value)).unwrap().json(), value, "{text:?}");
        }
        assert_eq!(as_yaml(&json!({"type": "duckdb", "list": [1]})), "type: duckdb\nlist:\n  - 1\n");
    }
}
