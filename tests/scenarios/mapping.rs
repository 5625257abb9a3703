//! From columns to fields: constants, variables, templates, nested values, and names of every kind.

use serde_json::{Value, json};
use tests::project::Engine;
use tests::receiver::Reply;

use super::{Crm, SYNC, on_both_warehouses, row};

on_both_warehouses!(
    a_mapped_value_loses_its_type,
    a_null_becomes_the_word_none,
    nested_values_lose_their_form,
    previous_values_are_those_of_another_row,
    a_failing_template_takes_other_rows_with_it,
    names_break_the_statements,
    texts_break_the_statements,
);

const MAPPINGS: &str = "mode: upsert
mappings:
  - {from: id, to: id}
";

fn mapped(more: &str) -> String {
    format!("{MAPPINGS}{more}")
}

fn a_mapped_value_loses_its_type(engine: Engine) {
    let crm = Crm::new(
        engine,
        3,
        &mapped(
            "  - {value: levin, to: text}
  - {value: 42, to: number}
  - {value: null, to: nothing}
  - {value: [1, {a: true}], to: nested}
  - {variable: run_id, to: run}
  - {variable: sync_id, to: sync_no}
  - {variable: sync_slug, to: sync}
  - {variable: model_slug, to: model}
  - {variable: operation, to: operation}
  - {variable: generation, to: generation}
  - {variable: row_version, to: version}
  - {variable: run_started_at, to: started}
  - {template: '{{ row.id + 1 }}', to: next}
  - {template: '{{ row.id > 2 }}', to: large}
  - {template: '{{ row.name | upper }}', to: upper}
  - {template: 'no. {{ row.id }} of {{ sync_slug }}', to: phrase}
  - {template: '{{ operation }} in {{ run_id }}', to: told}
",
        ),
    );
    let run = crm.run_sends([3, 0, 0]);
    let one = row(&crm.receiver.requests()[0], "1");
    let fields = &one["fields"];
    let expected = json!({
        "id": 1, "text": "levin", "number": 42, "nothing": null, "nested": [1, {"a": true}],
        "run": run.report["id"], "sync_no": run.report["syncId"], "sync": SYNC, "model": "customers", "operation": "added",
        "generation": crm.receiver.requests()[0].generation(), "version": one["version"],
        "started": run.report["startedAt"], "next": 2, "large": false, "upper": "NAME 1",
        "phrase": format!("no. 1 of {SYNC}"), "told": format!("added in {}", run.report["id"]),
    });
    assert_eq!(fields, &expected);
    assert_eq!(crm.receiver.field("3", "large"), json!(true));
    // Neither another run nor another generation is a change.
    crm.assert_quiet();
    crm.sql("update customers set name = 'x' where id = 2");
    crm.run_sends([0, 1, 0]);
    let changed = row(&crm.receiver.requests()[1], "2");
    assert_eq!(
        (&changed["fields"]["upper"], &changed["fields"]["operation"]),
        (&json!("X"), &json!("changed"))
    );
    assert!(changed["changed"].as_array().unwrap().contains(&json!("upper")), "{changed:#}");
    assert!(!changed["changed"].as_array().unwrap().contains(&json!("next")), "{changed:#}");
}

fn a_null_becomes_the_word_none(engine: Engine) {
    let crm = Crm::new(
        engine,
        2,
        &mapped(
            "  - {template: '{{ row.name }}', to: plain}
  - {template: '{{ row.name | upper }}', to: upper}
  - {template: '{{ row.name | default(\"nobody\", true) }}', to: default}
  - {template: '<{{ row.name }}>', to: phrase}
",
        ),
    );
    crm.sql("update customers set name = null where id = 2");
    crm.run_sends([2, 0, 0]);
    let fields = &crm.receiver.rows()["2"];
    assert_eq!((&fields["plain"], &fields["upper"]), (&json!(null), &json!(null)), "{fields:#}");
    assert_eq!(fields["default"], json!("nobody"));
    assert!(!fields["phrase"].to_string().to_lowercase().contains("none"), "{fields:#}");
    crm.assert_quiet();
}

fn nested_values_lose_their_form(engine: Engine) {
    let crm = Crm::new(
        engine,
        2,
        &mapped(
            "  - to: person
    object:
      - {from: name, to: full \"name\"}
      - to: contact
        object:
          - {from: email, to: e-mail}
          - {value: [], to: phones}
  - to: tags
    array:
      - {value: fixed}
      - {from: id}
      - {template: '{{ row.name | lower }}'}
      - {object: [{from: email, to: mail}]}
",
        ),
    );
    crm.sql("update customers set email = null where id = 2");
    crm.run_sends([2, 0, 0]);
    assert_eq!(
        crm.receiver.rows()["1"],
        json!({
            "id": 1,
            "person": {"full \"name\"": "name 1", "contact": {"e-mail": "1@example.com", "phones": []}},
            "tags": ["fixed", 1, "name 1", {"mail": "1@example.com"}],
        })
    );
    assert_eq!(crm.receiver.field("2", "person")["contact"]["e-mail"], json!(null));
    crm.sql("update customers set email = 'x' where id = 2");
    crm.run_sends([0, 1, 0]);
    assert_eq!(row(&crm.receiver.requests()[1], "2")["changed"], json!(["person", "tags"]));
    crm.assert_quiet();
}

fn previous_values_are_those_of_another_row(engine: Engine) {
    let crm = Crm::new(
        engine,
        30,
        &mapped(
            "  - {from: name, to: name}
  - {template: '{{ previous.name | default(\"-\", true) if operation == \"changed\" else \"-\" }}', to: before}
  - {template: '{{ changed | join(\"+\") }}', to: why}
",
        ),
    );
    let run = crm.run();
    assert_eq!(run.code, 0, "{run:#?}");
    assert_eq!(crm.receiver.field("9", "before"), json!("-"));
    crm.sql("update customers set name = 'new ' || cast(id as text) where id > 5");
    crm.sql("update customers set email = 'other' where id = 6");
    crm.run_sends([0, 25, 0]);
    for id in 6..=30 {
        let key = id.to_string();
        assert_eq!(crm.receiver.field(&key, "before"), json!(format!("name {id}")));
        assert_eq!(crm.receiver.field(&key, "name"), json!(format!("new {id}")));
    }
    assert_eq!(crm.receiver.field("6", "why"), json!("name+email"));
    assert_eq!(crm.receiver.field("7", "why"), json!("name"));
    crm.assert_quiet();
}

fn a_failing_template_takes_other_rows_with_it(engine: Engine) {
    let crm = Crm::new(engine, 12, &mapped("  - {template: '{{ 10 // (row.id - 5) }}', to: share}\n"));
    let run = crm.run();
    assert_eq!((run.code, run.successful(), run.failed()), (1, [11, 0, 0], [1, 0, 0]), "{run:#?}");
    assert_eq!(run.number("inDoubtCount"), 0);
    let rejected = crm.project.rejected(SYNC);
    assert_eq!((&rejected[0]["key"], &rejected[0]["code"]), (&json!("5"), &json!("TEMPLATE_FAILED")));
    assert!(!crm.receiver.keys().contains(&"5".to_owned()));
    // It comes again, and stays the only one.
    let before = crm.receiver.count();
    let run = crm.run();
    assert_eq!((run.code, run.planned(), run.failed()), (1, [1, 0, 0], [1, 0, 0]), "{run:#?}");
    assert_eq!(crm.receiver.count(), before, "a row that cannot be mapped makes no request");
    crm.sync(&mapped("  - {template: '{{ 10 // (row.id - 50) }}', to: share}\n"));
    crm.run_sends([1, 0, 0]);
    assert!(crm.project.rejected(SYNC).is_empty());
    crm.assert_quiet();
}

fn names_break_the_statements(engine: Engine) {
    let crm = Crm::new(engine, 0, "mode: mirror");
    let long = "a_very_long_name_of_a_column_that_goes_on_and_on_and_on_to_62b";
    let names = [
        "order",
        "select",
        "Größe",
        "with space",
        "quo\"te",
        "semi;colon",
        "dot.ted",
        "日本語",
        "CamelCase",
        "_x",
        long,
    ];
    let quoted: Vec<String> = names.iter().map(|n| format!("\"{}\"", n.replace('"', "\"\""))).collect();
    let columns: Vec<String> = quoted.iter().map(|n| format!("{n} text")).collect();
    crm.sql(&format!("create table odd (\"primary\" integer, {})", columns.join(", ")));
    let insert = |id: u32, value: &str| {
        crm.sql(&format!(
            "insert into odd values ({id}, {})",
            vec![format!("'{value}'"); names.len()].join(", ")
        ));
    };
    (1..=4).for_each(|id| insert(id, &format!("v{id}")));
    crm.model("primary", "select * from odd");
    crm.run_sends([4, 0, 0]);
    let fields = crm.receiver.rows()["2"].clone();
    assert_eq!(fields.as_object().unwrap().len(), names.len() + 1);
    for name in names {
        assert_eq!(fields[name], json!("v2"), "{name}");
    }
    // Each in a row of its own.
    let of_its_own = (101..).zip(names.iter().zip(&quoted));
    let rows = u32::try_from(names.len()).unwrap();
    (101..=100 + rows).for_each(|id| insert(id, "same"));
    crm.run_sends([rows.into(), 0, 0]);
    for (id, (_, column)) in of_its_own.clone() {
        crm.sql(&format!("update odd set {column} = 'changed' where \"primary\" = {id}"));
    }
    let before = crm.receiver.count();
    crm.run_sends([0, rows.into(), 0]);
    let sent = crm.receiver.since(before);
    for (id, (name, _)) in of_its_own {
        let request = sent.iter().find(|request| request.has(&id.to_string())).unwrap();
        assert_eq!(row(request, &id.to_string())["changed"], json!([name]));
    }
    crm.sql("delete from odd where \"primary\" = 1");
    crm.run_sends([0, 0, 1]);
    insert(1, "again");
    insert(2, "twice");
    crm.sync("mode: mirror\nguards: {max_set_aside: {percent: 90}}");
    let run = crm.run();
    assert_eq!((run.code, run.successful(), run.number("duplicateKeyCount")), (1, [1, 0, 0], 2), "{run:#?}");
    // The key may have an odd name, too.
    let crm_of_key = Crm::new(engine, 0, "mode: mirror");
    crm_of_key
        .sql("create table odd (\"Or\"\"der\" text, v integer); insert into odd values ('a', 1), ('b', 2)");
    crm_of_key
        .project
        .write("models/customers.yml", "source: wh\nprimary_key: 'Or\"der'\nsql: select * from odd\n");
    crm_of_key.run_sends([2, 0, 0]);
    crm_of_key.sql("delete from odd where v = 1; update odd set v = 3 where v = 2");
    crm_of_key.run_sends([0, 1, 1]);
    assert_eq!(crm_of_key.receiver.rows()["b"], json!({"Or\"der": "b", "v": 3}));
    crm_of_key.assert_quiet();
}

fn texts_break_the_statements(engine: Engine) {
    let crm = Crm::new(engine, 0, "mode: mirror\neach: {method: POST, path: /rows, batch_size: 100}");
    let texts = [
        "it's",
        "\"quoted\"",
        "back\\slash",
        "new\nline",
        "tab\t",
        "emoji 🦆",
        "e\u{301}",
        "é",
        "{{ row.id }}",
        "$1 %s ?",
        "'; drop table customers; --",
        "\u{1}\u{7f}",
        "  spaces  ",
        "NULL",
        "null",
        "🇩🇪 مرحبا",
        "\u{202e}rtl",
    ];
    crm.sql("create table t (k text, v text)");
    for text in texts {
        let escaped = text.replace('\'', "''");
        crm.sql(&format!("insert into t values ('{escaped}', '{escaped}')"));
    }
    crm.model("k", "select k, v from t");
    crm.run_sends([texts.len() as u64, 0, 0]);
    for text in texts {
        assert_eq!(crm.receiver.field(text, "v"), Value::from(text));
    }
    crm.assert_quiet();
    // Rejections tell the same key.
    crm.sql("update t set v = v || ' '");
    crm.receiver.behave(|request| {
        let keys = request.keys();
        Reply::reject(&keys.iter().map(String::as_str).collect::<Vec<_>>(), "no")
    });
    crm.run();
    let mut rejected: Vec<String> =
        crm.project.rejected(SYNC).iter().map(|r| r["key"].as_str().unwrap().to_owned()).collect();
    rejected.sort();
    let mut expected: Vec<&str> = texts.to_vec();
    expected.sort_unstable();
    assert_eq!(rejected, expected);
    crm.receiver.accept();
    crm.sql("delete from t where k like '%drop%'");
    crm.run_sends([0, texts.len() as u64 - 1, 1]);
    assert_eq!(crm.receiver.keys().len(), texts.len() - 1);
    crm.assert_quiet();
}
