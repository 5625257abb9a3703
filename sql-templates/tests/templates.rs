//! The folders of templates: nothing in them that is not needed, nothing needed that is missing.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use sql_templates::Dialect;

/// A macro: its parameters and its body, with white space and comments evened out.
type Macros = BTreeMap<String, (String, String)>;

fn folder(name: &str) -> Macros {
    let mut macros = Macros::new();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "sql") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for part in text.split("{% macro ").skip(1) {
            let (head, rest) = part.split_once("%}").unwrap();
            let (body, _) = rest.split_once("{% endmacro %}").unwrap();
            let (name, parameters) = head.split_once('(').unwrap();
            let even = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            let before = macros.insert(name.to_owned(), (even(parameters), even(body)));
            assert!(before.is_none(), "{} defines {name} twice in one folder", path.display());
        }
    }
    macros
}

/// The parent's macros, the parents' of the parent among them.
fn inherited(dialect: Dialect) -> Macros {
    let parent = dialect.facts().extends.as_str();
    let mut macros = Dialect::ALL.into_iter().find(|d| d.name() == parent).map(inherited).unwrap_or_default();
    macros.extend(folder(parent));
    macros
}

#[test]
fn an_override_says_something_else_than_what_it_overrides() {
    for dialect in Dialect::ALL {
        let parent = inherited(dialect);
        for (name, (parameters, body)) in folder(dialect.name()) {
            let Some((parents_parameters, parents_body)) = parent.get(&name) else { continue };
            assert_eq!(&parameters, parents_parameters, "{}: {name} takes other values", dialect.name());
            assert_ne!(
                &body,
                parents_body,
                "{}: {name} says what its parent says: delete it",
                dialect.name()
            );
        }
    }
}

#[test]
fn every_macro_is_called_by_something() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/statement.rs");
    let statements: BTreeSet<String> = std::fs::read_to_string(source)
        .unwrap()
        .lines()
        .filter_map(|line| {
            Some(line.trim().strip_prefix("Self::")?.split_once("=> \"")?.1.split_once('"')?.0.to_owned())
        })
        .collect();
    assert!(statements.contains("diff_full") && statements.len() > 20, "{statements:?}");
    for dialect in Dialect::ALL {
        let mut all = inherited(dialect);
        let own = folder(dialect.name());
        all.extend(own.clone());
        let named: BTreeSet<&String> = dialect
            .facts()
            .types
            .iter()
            .flat_map(|f| f.wire.iter().chain(&f.comparable).chain(&f.one_text).chain(&f.as_text))
            .collect();
        for name in &named {
            assert!(all.contains_key(*name), "{}: no macro {name} for its types", dialect.name());
        }
        let called = |name: &String| {
            let call = format!("d.{name}(");
            statements.contains(name)
                || named.contains(name)
                || all.values().any(|(_, body)| body.contains(&call))
        };
        for name in own.keys() {
            assert!(called(name), "{}: nothing calls {name}", dialect.name());
        }
    }
    // What the base offers is called by some dialect.
    for name in folder("base").keys() {
        let call = format!("d.{name}(");
        let used = statements.contains(name)
            || Dialect::ALL.into_iter().any(|d| {
                let types = &d.facts().types;
                let of_types = types
                    .iter()
                    .flat_map(|f| f.wire.iter().chain(&f.comparable).chain(&f.one_text).chain(&f.as_text))
                    .any(|n| n == name);
                let mut all = inherited(d);
                all.extend(folder(d.name()));
                of_types || all.values().any(|(_, body)| body.contains(&call))
            });
        assert!(used, "base: nothing calls {name}");
    }
}

#[test]
fn every_called_macro_is_defined_in_every_chain() {
    for dialect in Dialect::ALL {
        let mut all = inherited(dialect);
        all.extend(folder(dialect.name()));
        for (name, (_, body)) in &all {
            for call in body.split("d.").skip(1) {
                let word: String = call.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                let is_call = call[word.len()..].starts_with('(');
                if is_call && word != "apply" {
                    assert!(all.contains_key(&word), "{}: {name} calls {word}", dialect.name());
                }
            }
        }
    }
}
