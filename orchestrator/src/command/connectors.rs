//! `levin connectors`: what levin can talk to, and every option of it.

use std::process::ExitCode;

use connectors::catalogue::{ChannelConnector, DestinationConnector, HookConnector, SourceConnector};
use schemars::Schema;
use serde_json::{Value, json};

use super::Context;
use crate::config::dereferenced;
use crate::error::{Error, ErrorCode, Exit};
use crate::report::{Meaning, Table};
use crate::suggestion;

/// List sources, destinations, channels and hooks; with NAME, every option of one
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  levin connectors
  levin connectors postgres
  levin connectors --json")]
pub struct Args {
    /// The `type:` of a source, destination, channel or hook
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Print JSON, with the schemas of all options
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<ExitCode, Error> {
    let catalogue = context.catalogue;
    let wanted = |name: &str| args.name.as_deref().is_none_or(|wanted| wanted == name);
    let sources: Vec<_> = catalogue.sources.iter().copied().filter(|c| wanted(c.name)).collect();
    let destinations: Vec<_> = catalogue.destinations.iter().copied().filter(|c| wanted(c.name)).collect();
    let others: Vec<_> = Other::all(context).into_iter().filter(|other| wanted(other.name)).collect();
    if let Some(name) = &args.name
        && sources.is_empty()
        && destinations.is_empty()
        && others.is_empty()
    {
        let mut names: Vec<&str> = catalogue.sources.iter().map(|c| c.name).collect();
        names.extend(catalogue.destinations.iter().map(|c| c.name));
        names.extend(Other::all(context).iter().map(|other| other.name));
        names.sort_unstable();
        names.dedup();
        return Err(Error::new(ErrorCode::Usage, format!("there is no connector `{name}`"))
            .hint(suggestion::hint(name, &names, "connectors")));
    }
    let report = &context.report;
    if args.json {
        let sources = sources.iter().map(|connector| source_json(connector));
        let destinations = destinations.iter().map(|connector| destination_json(connector));
        let others = others.iter().map(Other::json);
        report.json(&sources.chain(destinations).chain(others).collect());
    } else if args.name.is_none() {
        let mut table = Table::new(&["NAME", "KIND", "MODES", "REMOVED ROWS", "TITLE"]);
        for connector in sources {
            let dash = || "–".to_owned();
            table.row([
                connector.name.to_owned(),
                "source".to_owned(),
                dash(),
                dash(),
                connector.title.to_owned(),
            ]);
        }
        for connector in destinations {
            let modes = words(connector.modes).join(", ");
            let removed = words(connector.on_removed).join(", ");
            let removed = if removed.is_empty() { "–".to_owned() } else { removed };
            let title = connector.title.to_owned();
            table.row([connector.name.to_owned(), "destination".to_owned(), modes, removed, title]);
        }
        for other in others {
            let dash = || "–".to_owned();
            table.row([other.name.to_owned(), other.kind.to_owned(), dash(), dash(), other.title.to_owned()]);
        }
        report.table(&table);
    } else {
        for connector in sources {
            report.data(&format!("{}\n{}\n", heading(context, connector.name, "source"), connector.summary));
            options(context, "Keys of its file in sources/", (connector.config_schema)().as_value());
        }
        for connector in destinations {
            let modes = words(connector.modes).join(", ");
            let mut removed = words(connector.on_removed);
            removed.retain(|word| word != "nothing");
            removed.insert(0, "nothing".to_owned());
            report.data(&format!(
                "{}\n{}\n\nmode:       {modes}\non_removed: {}\nobject:     {}\n",
                heading(context, connector.name, "destination"),
                connector.summary,
                removed.join(", "),
                if connector.needs_object { "required" } else { "not needed" },
            ));
            options(context, "Keys of its file in destinations/", (connector.config_schema)().as_value());
            options(context, "Keys it adds to files in syncs/", (connector.options_schema)().as_value());
        }
        for other in others {
            report.data(&format!("{}\n{}\n", heading(context, other.name, other.kind), other.summary));
            let title = format!("Keys of its file in {}s/", other.kind);
            options(context, &title, (other.config_schema)().as_value());
        }
    }
    Ok(Exit::Done.into())
}

/// A connector that no row passes through.
struct Other {
    kind: &'static str,
    name: &'static str,
    title: &'static str,
    summary: &'static str,
    config_schema: fn() -> Schema,
}

impl Other {
    fn all(context: &Context) -> Vec<Self> {
        let channel = |connector: &&ChannelConnector| {
            let ChannelConnector { name, title, summary, config_schema, .. } = **connector;
            Self { kind: "channel", name, title, summary, config_schema }
        };
        let hook = |connector: &&HookConnector| {
            let HookConnector { name, title, summary, config_schema, .. } = **connector;
            Self { kind: "hook", name, title, summary, config_schema }
        };
        let catalogue = context.catalogue;
        catalogue.channels.iter().map(channel).chain(catalogue.hooks.iter().map(hook)).collect()
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "kind": self.kind,
            "title": self.title,
            "summary": self.summary,
            "config": (self.config_schema)(),
        })
    }
}

fn heading(context: &Context, name: &str, kind: &str) -> String {
    context.report.paint(Meaning::Heading, &format!("{name} ({kind})"))
}

/// The words of an enum as project files write them.
fn words<T: serde::Serialize>(values: &[T]) -> Vec<String> {
    values.iter().filter_map(|value| Some(serde_json::to_value(value).ok()?.as_str()?.to_owned())).collect()
}

fn source_json(connector: &SourceConnector) -> Value {
    json!({
        "name": connector.name,
        "kind": "source",
        "title": connector.title,
        "summary": connector.summary,
        "config": (connector.config_schema)(),
    })
}

fn destination_json(connector: &DestinationConnector) -> Value {
    json!({
        "name": connector.name,
        "kind": "destination",
        "title": connector.title,
        "summary": connector.summary,
        "modes": connector.modes,
        "onRemoved": connector.on_removed,
        "needsObject": connector.needs_object,
        "wholeRows": connector.whole_rows,
        "config": (connector.config_schema)(),
        "options": (connector.options_schema)(),
    })
}

/// A table of all keys of a schema, nested ones by their path.
fn options(context: &Context, title: &str, schema: &Value) {
    let mut table = Table::new(&["KEY", "TYPE", "DEFAULT", "MEANING"]);
    list(schema, schema, "", 0, &mut table);
    context.report.data(&context.report.paint(Meaning::Heading, title));
    if table.is_empty() {
        context.report.data("  none\n");
    } else {
        context.report.table(&table);
        context.report.data("");
    }
}

fn list(root: &Value, schema: &Value, prefix: &str, depth: usize, table: &mut Table) {
    // A schema may refer to itself: what is nested deeper is described by its parent.
    if depth > 4 {
        return;
    }
    let schema = dereferenced(root, schema);
    for word in ["allOf", "anyOf", "oneOf"] {
        for branch in schema[word].as_array().into_iter().flatten() {
            list(root, branch, prefix, depth + 1, table);
        }
    }
    if schema["type"] == "array" {
        list(root, &schema["items"], &format!("{}[]", prefix.trim_end_matches('.')), depth + 1, table);
    }
    let Some(properties) = schema["properties"].as_object() else { return };
    let required = schema["required"].as_array().map_or(&[][..], Vec::as_slice);
    for (key, written) in properties {
        let target = dereferenced(root, written);
        let path = if prefix.ends_with("[]") { format!("{prefix}.{key}") } else { format!("{prefix}{key}") };
        let default = match written.get("default").or_else(|| target.get("default")) {
            Some(Value::Null) | None if required.iter().any(|name| name == key) => "required".to_owned(),
            Some(Value::Null) | None => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
        };
        let description = written["description"].as_str().or_else(|| target["description"].as_str());
        let mut meaning = description.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        if written["x-secret"] == true || target["x-secret"] == true {
            meaning = format!("(secret) {meaning}");
        }
        table.row([path.clone(), kind(root, written, 0), default, meaning]);
        list(root, written, &format!("{path}."), depth + 1, table);
    }
}

/// What may stand under a key: a type's name, or the words to choose from.
fn kind(root: &Value, schema: &Value, depth: usize) -> String {
    let schema = dereferenced(root, schema);
    if let Some(value) = schema.get("const") {
        return value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    }
    let branches = ["oneOf", "anyOf"].iter().find_map(|word| schema[*word].as_array());
    let mut names: Vec<String> = match (branches, schema["enum"].as_array(), &schema["type"]) {
        (Some(branches), ..) if depth < 4 => branches.iter().map(|b| kind(root, b, depth + 1)).collect(),
        (_, Some(words), _) => {
            words.iter().map(|word| word.as_str().map_or_else(|| word.to_string(), str::to_owned)).collect()
        }
        (.., Value::Array(types)) => types.iter().filter_map(Value::as_str).map(type_name).collect(),
        (.., Value::String(name)) => vec![type_name(name)],
        _ => vec!["any".to_owned()],
    };
    names.retain(|name| name != "null");
    names.dedup();
    names.join(" | ")
}

fn type_name(name: &str) -> String {
    match name {
        "string" => "text",
        "object" => "mapping",
        "array" => "list",
        other => other,
    }
    .to_owned()
}
