//! The dashboards: Grafana can load them, and they ask only for what a service tells.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::checked::{check, path_of, read, root, written};
use super::metrics::table;

/// What Grafana itself puts into an expression.
const BUILT_IN: [(&str, &str); 2] = [("__rate_interval", "5m"), ("__range", "6h")];

fn dashboards() -> Vec<(String, Value)> {
    let folder = std::fs::read_dir(root().join("deploy/dashboards")).expect("dashboards");
    let mut names: Vec<String> =
        folder.map(|file| file.expect("a file").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    let parsed = |name: String| {
        let text = read(&format!("deploy/dashboards/{name}"));
        let value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        (name, value)
    };
    names.into_iter().map(parsed).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// The variables in a text: `$name` and `${name}`.
fn variables(text: &str) -> BTreeSet<String> {
    text.split('$')
        .skip(1)
        .map(|rest| {
            let rest = rest.trim_start_matches('{');
            rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
        })
        .collect()
}

/// An expression as Prometheus gets it, whatever is chosen.
fn resolved(expression: &str) -> String {
    let mut text = expression.to_owned();
    for (name, value) in BUILT_IN {
        text = text.replace(&format!("${name}"), value);
    }
    for name in variables(&text) {
        text = text.replace(&format!("${name}"), "chosen");
    }
    text
}

/// A family of the table, by a name that stands in an expression.
fn family(name: &str) -> Option<String> {
    let table = table();
    if table.get(name).is_some_and(|(kind, ..)| kind != "histogram") {
        return Some(name.to_owned());
    }
    let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end))?;
    table.get(histogram).is_some_and(|(kind, ..)| kind == "histogram").then(|| histogram.to_owned())
}

#[test]
fn grafana_can_load_them() {
    let dashboards = dashboards();
    let names: Vec<&str> = dashboards.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["overview.json", "sync.json"]);
    let mut uids = BTreeSet::new();
    for (name, dashboard) in &dashboards {
        assert!(dashboard["schemaVersion"].as_u64().is_some_and(|version| version >= 39), "{name}");
        assert!(dashboard["id"].is_null(), "{name}: Grafana gives numbers itself");
        assert!(uids.insert(text(&dashboard["uid"])), "{name} has the uid of another");
        assert!(!text(&dashboard["title"]).is_empty());
        let mut ids = BTreeSet::new();
        let mut places: Vec<[u64; 4]> = Vec::new();
        for panel in list(&dashboard["panels"]) {
            let title = text(&panel["title"]);
            assert!(ids.insert(panel["id"].as_u64().expect("a number")), "{name}: {title} has another's id");
            let place = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().expect("a number"));
            assert!(place[0] + place[2] <= 24, "{name}: {title} is too wide");
            let apart = |other: &[u64; 4]| {
                (0..2).any(|i| place[i] + place[i + 2] <= other[i] || other[i] + other[i + 2] <= place[i])
            };
            assert!(places.iter().all(apart), "{name}: {title} lies on another panel");
            places.push(place);
            if panel["type"] == "row" {
                continue;
            }
            assert!(["stat", "table", "timeseries"].contains(&text(&panel["type"])), "{name}: {title}");
            assert!(text(&panel["description"]).len() > 5, "{name}: {title} says not what it shows");
            assert!(!list(&panel["targets"]).is_empty(), "{name}: {title} shows nothing");
            let letters: BTreeSet<&str> = list(&panel["targets"]).iter().map(|t| text(&t["refId"])).collect();
            assert_eq!(letters.len(), list(&panel["targets"]).len(), "{name}: {title}");
        }
        assert!(places.len() > 10, "{name}");
    }
}

#[test]
fn every_variable_is_defined_and_used() {
    for (name, dashboard) in dashboards() {
        let defined: BTreeSet<String> =
            list(&dashboard["templating"]["list"]).iter().map(|v| text(&v["name"]).to_owned()).collect();
        let mut used = variables(&dashboard["panels"].to_string());
        for variable in list(&dashboard["templating"]["list"]) {
            let before: BTreeSet<String> = variables(&variable["query"].to_string());
            assert!(!before.contains(text(&variable["name"])), "{name}: a variable of itself");
            used.extend(before);
            used.extend(variables(&variable["datasource"].to_string()));
            if variable["type"] == "query" {
                let query = text(&variable["query"]["query"]);
                let (metric, label) = query
                    .strip_prefix("label_values(")
                    .and_then(|q| q.strip_suffix(')')?.rsplit_once(", "))
                    .expect("label_values");
                let metric = metric.split('{').next().expect("a name");
                let table = table();
                let (_, labels, _) =
                    table.get(metric).unwrap_or_else(|| panic!("{name}: nobody tells {metric}"));
                assert!(labels.contains(label), "{name}: {metric} has no {label}");
            }
        }
        used.retain(|name| !BUILT_IN.iter().any(|(built_in, _)| built_in == name));
        assert_eq!(used, defined, "{name}");
    }
}

#[test]
fn every_expression_is_promql_and_asks_for_what_is_told() {
    let dashboards = dashboards();
    let mut expressions: Vec<(String, String)> = Vec::new();
    for (name, dashboard) in &dashboards {
        for panel in list(&dashboard["panels"]) {
            for target in list(&panel["targets"]) {
                let place = format!("{name}: {}", text(&panel["title"]));
                expressions.push((place, resolved(text(&target["expr"]))));
            }
        }
    }
    assert!(expressions.len() > 40, "{}", expressions.len());
    let texts: Vec<&str> = expressions.iter().map(|(_, text)| text.as_str()).collect();
    let parsed = check(&["promql", path_of(&written(&json!(texts)))]);
    let mut shown = BTreeSet::new();
    for (place, expression) in &expressions {
        let names = list(&parsed[expression]);
        assert!(!names.is_empty(), "{place}: {expression} reads nothing");
        for name in names {
            let family = family(text(name)).unwrap_or_else(|| panic!("{place}: nobody tells {name}"));
            shown.insert(family);
        }
    }
    // What is worth counting is worth seeing.
    let told: BTreeSet<String> = table().into_keys().collect();
    let unseen: Vec<&String> = told.difference(&shown).collect();
    assert_eq!(unseen, ["process_open_fds"], "no panel shows these");
}

#[test]
fn labels_that_an_expression_names_are_there() {
    let known: BTreeSet<String> = table().into_values().flat_map(|(_, labels, _)| labels).collect();
    for (name, dashboard) in dashboards() {
        for panel in list(&dashboard["panels"]) {
            for target in list(&panel["targets"]) {
                let legend = target["legendFormat"].as_str().unwrap_or_default();
                let labels = legend.split("{{").skip(1).filter_map(|rest| rest.split("}}").next());
                let by =
                    text(&target["expr"]).split("by (").skip(1).filter_map(|rest| rest.split(')').next());
                for label in labels.chain(by.flat_map(|list| list.split(", "))) {
                    // Prometheus itself gives every figure an instance, and a bucket its end.
                    let given = ["instance", "le"].contains(&label);
                    assert!(
                        given || known.contains(label),
                        "{name}: {}: nothing has {label:?}",
                        panel["title"]
                    );
                }
            }
        }
    }
}
