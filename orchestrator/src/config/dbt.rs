//! Models of dbt: their SELECT and what tells their rows apart, read from the manifest that dbt writes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::Deserialize;
use serde_json::Value;

use super::bounds::{LONGEST_MANIFEST, read_up_to};
use super::secrets::reason;
use crate::project::ModelQuery;
use crate::suggestion;

/// The oldest manifest that is read: that of dbt 1.0.
const OLDEST: u32 = 4;

/// The manifests of a project, each read once.
#[derive(Debug, Default)]
pub(super) struct Manifests(BTreeMap<PathBuf, Rc<Result<Manifest, Trouble>>>);

/// What is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) message: String,
    pub(super) hint: String,
}

/// A model of dbt, as levin reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DbtModel {
    pub(super) query: ModelQuery,
    /// The columns that tell its rows apart, as far as dbt knows; else none.
    pub(super) primary_key: Vec<String>,
}

/// What levin reads of a manifest; everything else in it is passed over.
#[derive(Debug, Deserialize)]
pub(super) struct Manifest {
    nodes: BTreeMap<String, Node>,
}

/// The beginning of every manifest, whatever its version.
#[derive(Debug, Deserialize)]
struct Head {
    metadata: Metadata,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    dbt_schema_version: String,
}

#[derive(Debug, Deserialize)]
struct Node {
    resource_type: String,
    name: String,
    package_name: String,
    /// The version of a model that has several.
    version: Option<Value>,
    relation_name: Option<String>,
    compiled_code: Option<String>,
    /// What `compiled_code` was called before dbt 1.3.
    compiled_sql: Option<String>,
    #[serde(default)]
    config: Config,
    #[serde(default)]
    constraints: Vec<Constraint>,
    #[serde(default)]
    columns: BTreeMap<String, Column>,
    /// Of a test: the node that it is about. Before dbt 1.5 only `depends_on` tells.
    #[serde(rename = "attached_node")]
    attached_to: Option<String>,
    #[serde(default)]
    depends_on: DependsOn,
    column_name: Option<String>,
    test_metadata: Option<TestMetadata>,
}

#[derive(Debug, Default, Deserialize)]
struct Config {
    materialized: Option<String>,
    unique_key: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Constraint {
    r#type: String,
    #[serde(default)]
    columns: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Column {
    name: String,
    #[serde(default)]
    constraints: Vec<Constraint>,
}

#[derive(Debug, Default, Deserialize)]
struct DependsOn {
    #[serde(default)]
    nodes: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct TestMetadata {
    name: String,
    #[serde(default)]
    kwargs: BTreeMap<String, Value>,
}

impl Manifests {
    /// The model that the manifest at this path holds; `written` is the path as the file says it.
    pub(super) fn model(&mut self, root: &Path, written: &str, model: &str) -> Result<DbtModel, Trouble> {
        let path = root.join(written);
        let manifest =
            self.0.entry(path.clone()).or_insert_with(|| Rc::new(Manifest::read(&path, written))).clone();
        match manifest.as_ref() {
            Ok(manifest) => manifest.model(model, written),
            Err(trouble) => Err(trouble.clone()),
        }
    }
}

impl Manifest {
    fn read(path: &Path, written: &str) -> Result<Self, Trouble> {
        let text = read_up_to(path, LONGEST_MANIFEST).map_err(|e| Trouble {
            message: format!("the manifest `{written}` cannot be read: {}", reason(&e)),
            hint: "`dbt compile` writes it; the path starts at the project's folder".to_owned(),
        })?;
        let no_manifest = |why: String| Trouble {
            message: format!("`{written}` is no manifest of dbt: {why}"),
            hint: "name the file `target/manifest.json` of the dbt project".to_owned(),
        };
        // Older manifests have other forms, so the version is looked at before the rest.
        let head: Head = serde_json::from_str(&text).map_err(|e| no_manifest(e.to_string()))?;
        let version = head
            .metadata
            .dbt_schema_version
            .rsplit_once("/v")
            .and_then(|(_, version)| version.trim_end_matches(".json").parse::<u32>().ok())
            .ok_or_else(|| no_manifest("it does not say which version it is of".to_owned()))?;
        if version < OLDEST {
            return Err(Trouble {
                message: format!(
                    "the manifest `{written}` is too old: its version is v{version}, levin reads v{OLDEST} (dbt 1.0) and later"
                ),
                hint: "`dbt compile` with a newer dbt writes a new one".to_owned(),
            });
        }
        serde_json::from_str(&text).map_err(|e| no_manifest(e.to_string()))
    }

    /// What may be a model of levin: whatever has rows in the warehouse, or a SELECT.
    fn models(&self) -> impl Iterator<Item = (&String, &Node)> {
        self.nodes
            .iter()
            .filter(|(_, node)| matches!(node.resource_type.as_str(), "model" | "snapshot" | "seed"))
    }

    fn model(&self, wanted: &str, written: &str) -> Result<DbtModel, Trouble> {
        let found: Vec<(&String, &Node)> = self.models().filter(|(_, node)| node.is_called(wanted)).collect();
        let (id, node) = match found.as_slice() {
            [one] => *one,
            [] => {
                let names: BTreeSet<&str> = self.models().map(|(_, node)| node.name.as_str()).collect();
                let names: Vec<&str> = names.into_iter().collect();
                return Err(Trouble {
                    message: format!("the manifest `{written}` has no model `{wanted}`"),
                    hint: suggestion::hint(wanted, &names, "models"),
                });
            }
            several => {
                let names: Vec<String> = several.iter().map(|(_, node)| node.full_name()).collect();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                return Err(Trouble {
                    message: format!("the manifest `{written}` has more than one model `{wanted}`"),
                    hint: format!("write which: {}", suggestion::listed(&names)),
                });
            }
        };
        let query = node.query().ok_or_else(|| Trouble {
            message: format!("the model `{wanted}` in `{written}` is neither compiled nor in the warehouse"),
            hint: "run `dbt compile`".to_owned(),
        })?;
        Ok(DbtModel { query, primary_key: self.primary_key(id, node) })
    }

    /// What dbt says tells rows apart, the surest word first.
    fn primary_key(&self, id: &str, node: &Node) -> Vec<String> {
        let configured = match &node.config.unique_key {
            Some(Value::String(column)) => vec![column.clone()],
            Some(Value::Array(columns)) => {
                columns.iter().filter_map(|c| c.as_str().map(str::to_owned)).collect()
            }
            _ => Vec::new(),
        };
        // An expression is no column.
        let is_column = |text: &String| text.chars().all(|c| c.is_alphanumeric() || c == '_');
        if !configured.is_empty() && configured.iter().all(is_column) {
            return configured;
        }
        let is_key = |constraint: &&Constraint| constraint.r#type == "primary_key";
        if let Some(constraint) = node.constraints.iter().find(is_key).filter(|c| !c.columns.is_empty()) {
            return constraint.columns.clone();
        }
        let column = node.columns.values().find(|column| column.constraints.iter().any(|c| is_key(&c)));
        if let Some(column) = column {
            return vec![column.name.clone()];
        }
        let tested = |name: &str| -> BTreeSet<String> {
            self.tests_of(id)
                .filter(|(_, test)| test.name == name)
                .filter_map(|(node, test)| {
                    let column = test.kwargs.get("column_name").and_then(Value::as_str);
                    node.column_name.clone().or_else(|| column.map(str::to_owned))
                })
                .collect()
        };
        let whole = tested("not_null");
        if let Some(column) = tested("unique").intersection(&whole).next() {
            return vec![column.clone()];
        }
        let combined = self.tests_of(id).find_map(|(_, test)| {
            let columns = test.kwargs.get("combination_of_columns")?.as_array()?;
            columns.iter().map(|column| column.as_str().map(str::to_owned)).collect::<Option<Vec<String>>>()
        });
        combined.filter(|columns| columns.iter().all(|c| whole.contains(c))).unwrap_or_default()
    }

    fn tests_of<'a>(&'a self, id: &'a str) -> impl Iterator<Item = (&'a Node, &'a TestMetadata)> {
        self.nodes.values().filter(|node| node.resource_type == "test").filter_map(move |node| {
            let about = match &node.attached_to {
                Some(attached) => attached == id,
                None => matches!(node.depends_on.nodes.as_slice(), [one] if one == id),
            };
            node.test_metadata.as_ref().filter(|_| about).map(|test| (node, test))
        })
    }
}

impl Node {
    /// `customers`, `shop.customers`, `customers.v2` or `shop.customers.v2`.
    fn is_called(&self, wanted: &str) -> bool {
        let versioned = self.versioned();
        [self.name.as_str(), versioned.as_str()].contains(&wanted)
            || wanted
                .strip_prefix(&self.package_name)
                .and_then(|rest| rest.strip_prefix('.'))
                .is_some_and(|rest| [self.name.as_str(), versioned.as_str()].contains(&rest))
    }

    fn versioned(&self) -> String {
        match &self.version {
            Some(Value::String(version)) => format!("{}.v{version}", self.name),
            Some(Value::Number(version)) => format!("{}.v{version}", self.name),
            _ => self.name.clone(),
        }
    }

    fn full_name(&self) -> String {
        format!("{}.{}", self.package_name, self.versioned())
    }

    /// The compiled SELECT, else the relation. What dbt builds bit by bit is read where it stands: its
    /// SELECT, compiled once the table is there, gives only the rows that are new.
    fn query(&self) -> Option<ModelQuery> {
        let whole = matches!(self.config.materialized.as_deref(), Some("table" | "view" | "ephemeral"));
        let compiled = self.compiled_code.as_ref().or(self.compiled_sql.as_ref());
        let compiled = compiled.filter(|sql| whole && !sql.trim().is_empty());
        let relation = || self.relation_name.clone().map(ModelQuery::Relation);
        compiled.cloned().map(ModelQuery::Sql).or_else(relation)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, more: Value) -> Value {
        let mut node = json!({
            "resource_type": "model", "name": name, "package_name": "shop",
            "relation_name": format!("\"db\".\"main\".\"{name}\""), "compiled_code": format!("select 1 as {name}"),
            "config": {"materialized": "table"}, "depends_on": {"nodes": []},
        });
        for (key, value) in more.as_object().unwrap() {
            node[key] = value.clone();
        }
        node
    }

    fn test(of: &str, name: &str, kwargs: Value) -> Value {
        json!({
            "resource_type": "test", "name": name, "package_name": "shop", "attached_node": of,
            "test_metadata": {"name": name, "kwargs": kwargs}, "config": {"materialized": "test"},
        })
    }

    fn manifest(nodes: Value) -> Manifest {
        let head = json!({"dbt_schema_version": "https://schemas.getdbt.com/dbt/manifest/v12.json"});
        serde_json::from_value(json!({"metadata": head, "nodes": nodes, "sources": {}})).unwrap()
    }

    fn key(nodes: Value) -> Vec<String> {
        manifest(nodes).model("a", "m").unwrap().primary_key
    }

    #[test]
    fn what_tells_rows_apart_is_found_where_dbt_says_it() {
        let a = "model.shop.a";
        assert_eq!(key(json!({a: node("a", json!({}))})), [] as [&str; 0]);
        let unique_key = |key: Value| json!({"config": {"materialized": "table", "unique_key": key}});
        assert_eq!(key(json!({a: node("a", unique_key(json!("id")))})), ["id"]);
        assert_eq!(key(json!({a: node("a", unique_key(json!(["b", "a"])))})), ["b", "a"]);
        assert_eq!(key(json!({a: node("a", unique_key(json!("x || y")))})), [] as [&str; 0]);
        let of_model =
            json!({"constraints": [{"type": "check"}, {"type": "primary_key", "columns": ["x", "y"]}]});
        assert_eq!(key(json!({a: node("a", of_model)})), ["x", "y"]);
        let of_column = json!({"columns": {"no": {"name": "no", "constraints": [{"type": "primary_key"}]}}});
        assert_eq!(key(json!({a: node("a", of_column)})), ["no"]);
        let unique = test(a, "unique", json!({"column_name": "id"}));
        assert_eq!(
            key(json!({a: node("a", json!({})), "t1": unique.clone()})),
            [] as [&str; 0],
            "it may be null"
        );
        let whole = test(a, "not_null", json!({"column_name": "id"}));
        assert_eq!(key(json!({a: node("a", json!({})), "t1": unique.clone(), "t2": whole})), ["id"]);
        // Tests of another model, and manifests that tell only by what a test depends on.
        let other = test("model.shop.b", "not_null", json!({"column_name": "id"}));
        assert_eq!(key(json!({a: node("a", json!({})), "t1": unique.clone(), "t2": other})), [] as [&str; 0]);
        let mut old = test(a, "not_null", json!({"column_name": "id"}));
        old["attached_node"] = Value::Null;
        old["depends_on"] = json!({"nodes": [a]});
        assert_eq!(key(json!({a: node("a", json!({})), "t1": unique, "t2": old})), ["id"]);
        let both = test(a, "unique_combination_of_columns", json!({"combination_of_columns": ["x", "y"]}));
        let x = test(a, "not_null", json!({"column_name": "x"}));
        let y = test(a, "not_null", json!({"column_name": "y"}));
        assert_eq!(key(json!({a: node("a", json!({})), "t": both, "x": x, "y": y})), ["x", "y"]);
    }

    #[test]
    fn the_select_is_the_compiled_one_unless_it_gives_only_what_is_new() {
        let query =
            |more: Value| manifest(json!({"model.shop.a": node("a", more)})).model("a", "m").map(|m| m.query);
        let sql = |text: &str| Ok(ModelQuery::Sql(text.to_owned()));
        assert_eq!(query(json!({})), sql("select 1 as a"));
        let table = || Ok(ModelQuery::Relation("\"db\".\"main\".\"a\"".to_owned()));
        assert_eq!(query(json!({"compiled_code": null})), table());
        assert_eq!(query(json!({"compiled_code": null, "compiled_sql": "select 2"})), sql("select 2"));
        for grown in ["incremental", "snapshot", "materialized_view"] {
            assert_eq!(query(json!({"config": {"materialized": grown}})), table(), "{grown}");
        }
        let ephemeral =
            json!({"config": {"materialized": "ephemeral"}, "relation_name": null, "compiled_code": null});
        let trouble = query(ephemeral).unwrap_err();
        assert!(
            trouble.message.contains("neither compiled") && trouble.hint.contains("dbt compile"),
            "{trouble:?}"
        );
    }

    #[test]
    fn a_model_is_found_by_its_name_and_told_from_others() {
        let nodes = json!({
            "model.shop.a": node("a", json!({})),
            "model.other.a": node("a", json!({"package_name": "other"})),
            "model.shop.b.v1": node("b", json!({"version": 1})),
            "model.shop.b.v2": node("b", json!({"version": "2"})),
            "test.shop.c": test("model.shop.a", "c", json!({})),
        });
        let manifest = manifest(nodes);
        for there in ["shop.a", "other.a", "b.v1", "shop.b.v2"] {
            assert!(manifest.model(there, "m").is_ok(), "{there}");
        }
        let trouble = |name: &str| manifest.model(name, "m.json").unwrap_err();
        assert_eq!(trouble("a").hint, "write which: `other.a`, `shop.a`");
        assert_eq!(trouble("b").hint, "write which: `shop.b.v1`, `shop.b.v2`");
        assert_eq!(trouble("c").hint, "models: `a`, `b`", "a test is no model");
        assert!(trouble("x.a").message.contains("`m.json` has no model `x.a`"));
    }

    #[test]
    fn what_is_no_manifest_or_too_old_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let read = |text: &str| {
            std::fs::write(folder.path().join("m.json"), text).unwrap();
            Manifests::default().model(folder.path(), "m.json", "a").unwrap_err()
        };
        assert!(read("{").message.contains("is no manifest of dbt"));
        assert!(read("{}").message.contains("is no manifest of dbt"));
        assert!(read(r#"{"metadata": {"dbt_schema_version": "x"}}"#).message.contains("which version"));
        let old = read(
            r#"{"metadata": {"dbt_schema_version": "https://schemas.getdbt.com/dbt/manifest/v3.json"}}"#,
        );
        assert!(old.message.contains("too old") && old.hint.contains("dbt compile"), "{old:?}");
        let missing = Manifests::default().model(folder.path(), "target/none.json", "a").unwrap_err();
        assert!(missing.message.contains("`target/none.json` cannot be read"), "{missing:?}");
        assert!(missing.hint.contains("dbt compile"), "{missing:?}");
    }
}
