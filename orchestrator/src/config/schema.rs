//! JSON Schemas of project files: what every file of a kind has, joined with the keys of its connector.

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::alerts::{ChannelConfig, HookConfig};
use super::file::{DestinationConfig, ModelConfig, ProjectConfig, SequenceConfig, SourceConfig, SyncConfig};
use crate::catalogue::Catalogue;

/// A kind of project file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `levin.yml`.
    Project,
    /// `sources/*.yml`.
    Source,
    /// `models/*.yml`.
    Model,
    /// `destinations/*.yml`.
    Destination,
    /// `syncs/*.yml`.
    Sync,
    /// `sequences/*.yml`.
    Sequence,
    /// `channels/*.yml`.
    Channel,
    /// `hooks/*.yml`.
    Hook,
}

impl Kind {
    /// Every kind, in the order in which files refer to each other.
    pub const ALL: [Self; 8] = [
        Self::Project,
        Self::Source,
        Self::Model,
        Self::Destination,
        Self::Sync,
        Self::Sequence,
        Self::Channel,
        Self::Hook,
    ];

    /// The kinds of which a project has many, each with slugs of its own.
    pub(crate) const OBJECTS: [Self; 7] =
        [Self::Source, Self::Model, Self::Destination, Self::Sync, Self::Sequence, Self::Channel, Self::Hook];

    /// Whether its objects have numbers in `levin.lock.yml`. Nothing is remembered of the others but by their slug.
    pub(crate) fn is_numbered(self) -> bool {
        !matches!(self, Self::Project | Self::Channel | Self::Hook)
    }

    /// The word for one of them.
    pub fn name(self) -> &'static str {
        match self {
            Self::Project => "project",
            Self::Source => "source",
            Self::Model => "model",
            Self::Destination => "destination",
            Self::Sync => "sync",
            Self::Sequence => "sequence",
            Self::Channel => "channel",
            Self::Hook => "hook",
        }
    }

    /// The folder, which is also the word for several and the key in `levin.lock.yml`.
    pub(crate) fn folder(self) -> &'static str {
        match self {
            Self::Project => "",
            Self::Source => "sources",
            Self::Model => "models",
            Self::Destination => "destinations",
            Self::Sync => "syncs",
            Self::Sequence => "sequences",
            Self::Channel => "channels",
            Self::Hook => "hooks",
        }
    }
}

/// The schema of the keys that every file of a kind may have.
pub(crate) fn base(kind: Kind) -> Value {
    match kind {
        Kind::Project => generated::<ProjectConfig>(),
        Kind::Source => generated::<SourceConfig>(),
        Kind::Model => generated::<ModelConfig>(),
        Kind::Destination => generated::<DestinationConfig>(),
        Kind::Sync => generated::<SyncConfig>(),
        Kind::Sequence => generated::<SequenceConfig>(),
        Kind::Channel => generated::<ChannelConfig>(),
        Kind::Hook => generated::<HookConfig>(),
    }
}

fn generated<T: JsonSchema>() -> Value {
    let generator = SchemaGenerator::new(SchemaSettings::draft2020_12());
    let mut schema = Value::from(generator.into_root_schema_for::<T>());
    without_null(&mut schema);
    schema
}

/// An optional key may be left out; written without a value it is a slip, not a wish.
fn without_null(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::Array(types)) = map.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    map.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(branches)) = map.get_mut("anyOf") {
                branches.retain(|branch| branch["type"] != "null");
                if let [only] = branches.as_mut_slice() {
                    let only = only.take();
                    map.remove("anyOf");
                    if let Value::Object(only) = only {
                        map.extend(only.into_iter().filter(|(key, _)| key != "description"));
                    }
                }
            }
            // `default: null` says no more than that the key may be left out.
            if map.get("default") == Some(&Value::Null) {
                map.remove("default");
            }
            map.values_mut().for_each(without_null);
        }
        Value::Array(items) => items.iter_mut().for_each(without_null),
        _ => {}
    }
}

/// The schema of a file whose connector adds keys of its own. A connector cannot redefine a key
/// that all files of the kind have.
pub(crate) fn joined(mut base: Value, connector: &str, own: &schemars::Schema) -> Value {
    let mut own = own.as_value().clone();
    rename_definitions(&mut own, connector);
    let Value::Object(own) = own else { return base };
    let Some(map) = base.as_object_mut() else { return base };
    for (word, value) in own {
        match (word.as_str(), value) {
            ("properties" | "$defs", Value::Object(more)) => {
                let present = map.entry(word).or_insert_with(|| json!({}));
                if let Some(present) = present.as_object_mut() {
                    for (key, value) in more {
                        present.entry(key).or_insert(value);
                    }
                }
            }
            ("required", Value::Array(more)) => {
                let present = map.entry(word).or_insert_with(|| json!([]));
                if let Some(present) = present.as_array_mut() {
                    present.extend(more);
                }
            }
            // Title, description and the ban of other keys are said by the base.
            (
                "$schema"
                | "title"
                | "description"
                | "type"
                | "additionalProperties"
                | "unevaluatedProperties",
                _,
            ) => {}
            (_, value) => {
                map.insert(word, value);
            }
        }
    }
    base
}

/// A schema that lets any other key stand as well.
pub(crate) fn open(mut schema: Value) -> Value {
    if let Some(map) = schema.as_object_mut() {
        map.remove("additionalProperties");
    }
    schema
}

/// Two connectors may both define an `Auth`: each gets the connector's name in front.
fn rename_definitions(schema: &mut Value, connector: &str) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get_mut("$ref")
                && let Some(name) = reference.strip_prefix("#/$defs/")
            {
                *reference = format!("#/$defs/{connector}.{name}");
            }
            if let Some(Value::Object(definitions)) = map.get_mut("$defs") {
                *definitions = std::mem::take(definitions)
                    .into_iter()
                    .map(|(name, schema)| (format!("{connector}.{name}"), schema))
                    .collect();
            }
            map.values_mut().for_each(|value| rename_definitions(value, connector));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| rename_definitions(value, connector)),
        _ => {}
    }
}

/// The schema that a `$ref` inside a document points to, followed to its end; else the schema itself.
pub(crate) fn dereferenced<'a>(root: &'a Value, mut schema: &'a Value) -> &'a Value {
    // A reference that points to itself is no schema; no file is worth more steps than this.
    for _ in 0..16 {
        let target = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
        match target.and_then(|pointer| root.pointer(pointer)) {
            Some(found) => schema = found,
            None => break,
        }
    }
    schema
}

/// The schema that editors use for all files of a kind, every connector's keys included.
pub fn published(catalogue: &Catalogue, kind: Kind) -> Value {
    let mut schema = base(kind);
    match kind {
        Kind::Source => {
            let connectors = catalogue.sources.iter();
            by_type(&mut schema, connectors.map(|c| (c.name, c.summary, (c.config_schema)())).collect());
        }
        Kind::Destination => {
            let connectors = catalogue.destinations.iter();
            by_type(&mut schema, connectors.map(|c| (c.name, c.summary, (c.config_schema)())).collect());
        }
        Kind::Channel => {
            let connectors = catalogue.channels.iter();
            by_type(&mut schema, connectors.map(|c| (c.name, c.summary, (c.config_schema)())).collect());
        }
        Kind::Hook => {
            let connectors = catalogue.hooks.iter();
            by_type(&mut schema, connectors.map(|c| (c.name, c.summary, (c.config_schema)())).collect());
        }
        Kind::Sync => {
            // A sync file does not say of which type its destination is, so any connector's keys may stand.
            for connector in catalogue.destinations {
                schema = either(schema, connector.name, &(connector.options_schema)());
            }
        }
        Kind::Project | Kind::Model | Kind::Sequence => {}
    }
    schema
}

/// The schemas of all kinds of files in one document, each under `$defs`.
pub fn published_together(catalogue: &Catalogue) -> Value {
    let mut definitions = Map::new();
    for kind in Kind::ALL {
        let mut schema = published(catalogue, kind);
        if let Some(map) = schema.as_object_mut() {
            map.remove("$schema");
            // An `$id` makes the references inside relative to this part of the document.
            map.insert("$id".to_owned(), json!(format!("levin:{}", kind.name())));
        }
        definitions.insert(kind.name().to_owned(), schema);
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The project files of levin",
        "description": "One definition per kind of file: `levin schema KIND` prints it alone.",
        "$defs": definitions,
    })
}

/// One branch per connector, chosen by `type`.
fn by_type(schema: &mut Value, connectors: Vec<(&str, &str, schemars::Schema)>) {
    let names: Vec<&str> = connectors.iter().map(|(name, ..)| *name).collect();
    if names.is_empty() {
        return;
    }
    let mut definitions = Map::new();
    let mut branches = Vec::new();
    for (name, summary, own) in connectors {
        let mut whole = joined(schema.clone(), name, &own);
        let Some(map) = whole.as_object_mut() else { continue };
        map.remove("$schema");
        map.insert("title".to_owned(), json!(name));
        map.insert("description".to_owned(), json!(summary));
        if let Some(Value::Object(inner)) = map.remove("$defs") {
            definitions.extend(inner);
        }
        definitions.insert(name.to_owned(), whole);
        branches.push(json!({
            "if": {"properties": {"type": {"const": name}}, "required": ["type"]},
            "then": {"$ref": format!("#/$defs/{name}")},
        }));
    }
    let Some(map) = schema.as_object_mut() else { return };
    map.remove("additionalProperties");
    if let Some(kind) = map.get_mut("properties").and_then(|properties| properties.get_mut("type")) {
        kind["enum"] = json!(names);
    }
    let present = map.entry("$defs").or_insert_with(|| json!({}));
    if let Some(present) = present.as_object_mut() {
        present.extend(definitions);
    }
    map.insert("allOf".to_owned(), Value::Array(branches));
}

/// Adds a connector's keys as allowed; a key that another one has too may take either form.
fn either(mut schema: Value, connector: &str, own: &schemars::Schema) -> Value {
    let mut own = own.as_value().clone();
    rename_definitions(&mut own, connector);
    let of = |own: &Value, word: &str| own[word].as_object().cloned().unwrap_or_default();
    let (more, definitions) = (of(&own, "properties"), of(&own, "$defs"));
    let Some(map) = schema.as_object_mut() else { return schema };
    let base = base(Kind::Sync);
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        for (key, value) in more {
            match properties.get_mut(&key) {
                None => {
                    properties.insert(key, value);
                }
                Some(_) if base["properties"].get(&key).is_some() => {}
                Some(present) if *present == value => {}
                Some(present) => match present.get_mut("anyOf").and_then(Value::as_array_mut) {
                    Some(forms) => forms.push(value),
                    None => *present = json!({"anyOf": [present.take(), value]}),
                },
            }
        }
    }
    let present = map.entry("$defs").or_insert_with(|| json!({}));
    if let Some(present) = present.as_object_mut() {
        present.extend(definitions);
    }
    schema
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_golden_schema_is_what_the_catalogue_gives() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/project.schema.json");
        let schema = published_together(&Catalogue::levin());
        let current = format!("{}\n", serde_json::to_string_pretty(&schema).unwrap());
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &current).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            golden == current,
            "schema/project.schema.json is stale: run the tests once with UPDATE_GOLDEN=1"
        );
    }

    #[test]
    fn every_schema_of_the_catalogue_is_valid() {
        let catalogue = Catalogue::levin();
        let mut schemas: Vec<Value> = Kind::ALL.iter().map(|kind| published(&catalogue, *kind)).collect();
        schemas.push(published_together(&catalogue));
        for source in catalogue.sources {
            schemas.push(joined(base(Kind::Source), source.name, &(source.config_schema)()));
        }
        for destination in catalogue.destinations {
            let (name, config, options) =
                (destination.name, (destination.config_schema)(), (destination.options_schema)());
            schemas.push(joined(base(Kind::Destination), name, &config));
            schemas.push(joined(base(Kind::Sync), name, &options));
        }
        for channel in catalogue.channels {
            schemas.push(joined(base(Kind::Channel), channel.name, &(channel.config_schema)()));
        }
        for hook in catalogue.hooks {
            schemas.push(joined(base(Kind::Hook), hook.name, &(hook.config_schema)()));
        }
        for schema in schemas {
            jsonschema::validator_for(&schema).unwrap_or_else(|error| panic!("{error}: {schema:#}"));
        }
    }

    #[test]
    fn no_connector_redefines_a_key_that_all_files_of_its_kind_have() {
        let catalogue = Catalogue::levin();
        let keys = |schema: &Value| -> Vec<String> {
            schema["properties"].as_object().map(|p| p.keys().cloned().collect()).unwrap_or_default()
        };
        let clash = |kind: Kind, name: &str, own: schemars::Schema| {
            let shared = base(kind);
            let both: Vec<String> = keys(own.as_value())
                .into_iter()
                .filter(|key| shared["properties"].get(key).is_some())
                .collect();
            assert!(both.is_empty(), "{name} redefines {both:?} of {}", kind.folder());
        };
        for source in catalogue.sources {
            clash(Kind::Source, source.name, (source.config_schema)());
        }
        for channel in catalogue.channels {
            clash(Kind::Channel, channel.name, (channel.config_schema)());
        }
        for hook in catalogue.hooks {
            clash(Kind::Hook, hook.name, (hook.config_schema)());
        }
        for destination in catalogue.destinations {
            clash(Kind::Destination, destination.name, (destination.config_schema)());
            clash(Kind::Sync, destination.name, (destination.options_schema)());
        }
    }

    #[test]
    fn every_key_is_described_and_none_takes_null() {
        for kind in Kind::ALL {
            let schema = base(kind);
            for (key, value) in schema["properties"].as_object().unwrap() {
                assert!(value["description"].is_string(), "{} `{key}` has no description", kind.name());
            }
            let text = schema.to_string();
            assert!(!text.contains("\"null\""), "{}: {text}", kind.name());
            assert_eq!(schema["additionalProperties"], false, "{}", kind.name());
        }
    }

    #[test]
    fn definitions_of_two_connectors_stay_apart() {
        let own = |word: &str| {
            schemars::Schema::try_from(json!({
                "properties": {"auth": {"$ref": "#/$defs/Auth"}},
                "required": ["auth"],
                "$defs": {"Auth": {"type": "object", "properties": {word: {"$ref": "#/$defs/Auth"}}}},
            }))
            .unwrap()
        };
        let schema = joined(base(Kind::Destination), "a", &own("x"));
        let schema = joined(schema, "b", &own("y"));
        assert_eq!(schema["properties"]["auth"]["$ref"], "#/$defs/a.Auth");
        assert_eq!(schema["$defs"]["a.Auth"]["properties"]["x"]["$ref"], "#/$defs/a.Auth");
        assert_eq!(schema["$defs"]["b.Auth"]["properties"]["y"]["$ref"], "#/$defs/b.Auth");
        assert!(schema["required"].as_array().unwrap().contains(&json!("auth")));
        assert_eq!(schema["additionalProperties"], false);
    }
}
