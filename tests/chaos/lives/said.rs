//! What the files of a project say, and how that changes.

use serde_json::{Value, json};
use tests::project::Project;

/// A mode with what it does about rows that left, whether it removes them, and whether it compares values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    text: &'static str,
    pub removes: bool,
    pub values: bool,
}

/// The modes that a life may go through.
pub const MODES: &[Mode] = &[
    Mode { text: "mode: mirror", removes: true, values: true },
    Mode { text: "mode: upsert\non_removed: delete", removes: true, values: true },
    Mode { text: "mode: upsert", removes: false, values: true },
    Mode { text: "mode: insert", removes: false, values: false },
    Mode { text: "mode: insert\non_removed: delete", removes: true, values: false },
    Mode { text: "mode: segment", removes: true, values: false },
];

/// What the project's files say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    pub mode: Mode,
    /// Columns of the model beside the key, in order, and whether each is cast to text.
    pub columns: Vec<(&'static str, bool)>,
    /// The name is sent in capitals.
    pub upper: bool,
    /// `on_new_column: keep`, else `backfill`.
    pub keeps: bool,
    pub max_attempts: Option<u8>,
    pub max_removed: Option<u8>,
}

impl Said {
    /// Whether a column is selected, and then whether it is cast to text.
    pub fn column(&self, name: &str) -> Option<bool> {
        self.columns.iter().find(|(n, _)| *n == name).map(|(_, text)| *text)
    }

    /// The field that a value of a column becomes.
    pub fn field(&self, column: &str, value: &Value) -> Value {
        match value {
            Value::String(text) if column == "name" && self.upper => json!(text.to_uppercase()),
            Value::Number(n) if self.column(column) == Some(true) => json!(n.to_string()),
            other => other.clone(),
        }
    }

    /// Writes the model's file and the sync's.
    pub fn write(&self, project: &Project) {
        let columns: Vec<String> = self
            .columns
            .iter()
            .map(
                |(name, text)| {
                    if *text { format!("cast({name} as text) as {name}") } else { (*name).to_owned() }
                },
            )
            .collect();
        project.write(
            "models/people.yml",
            &format!("source: wh\nprimary_key: id\nsql: select id, {} from people\n", columns.join(", ")),
        );
        let fields: Vec<String> = self
            .columns
            .iter()
            .map(|(name, _)| match *name {
                "name" if self.upper => "  - {template: '{{ row.name | upper }}', to: name}\n".to_owned(),
                name => format!("  - {{from: {name}, to: {name}}}\n"),
            })
            .collect();
        let option =
            |name: &str, value: Option<u8>| value.map(|n| format!("{name}: {n}\n")).unwrap_or_default();
        let guard = self.max_removed.map(|n| format!(", max_removed: {{rows: {n}}}")).unwrap_or_default();
        project.write(
            "syncs/people.yml",
            &format!(
                "model: people\ndestination: to\n{}\n{}on_new_column: {}\nguards: {{allow_empty: true, max_set_aside: {{percent: 100}}{guard}}}\n\
                 each: {{path: /rows, batch_size: 3}}\nclear: {{path: /clear}}\nmappings:\n{}",
                self.mode.text,
                option("max_attempts", self.max_attempts),
                if self.keeps { "keep" } else { "backfill" },
                fields.concat(),
            ),
        );
    }
}
