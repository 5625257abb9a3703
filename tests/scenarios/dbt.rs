//! Models that dbt knows: their SELECT and their key come from its manifest.

use serde_json::{Value, json};
use tests::project::Engine;

use super::{Crm, SYNC, on_both_warehouses};

on_both_warehouses!(a_model_of_dbt_has_to_be_written_twice, a_manifest_is_trusted_although_it_does_not_fit,);

/// A manifest as dbt 1.10 writes it, of the parts that matter.
fn manifest(database: &str) -> Value {
    let schema = if database == "warehouse" { "main" } else { "public" };
    let relation = |name: &str| format!("\"{database}\".\"{schema}\".\"{name}\"");
    let model = |name: &str, materialized: &str, compiled: &str| {
        json!({
            "resource_type": "model", "name": name, "package_name": "shop", "version": null,
            "database": database, "schema": schema, "relation_name": relation(name),
            "compiled": true, "compiled_code": compiled, "constraints": [], "columns": {},
            "config": {"materialized": materialized, "unique_key": null},
            "depends_on": {"macros": [], "nodes": []},
        })
    };
    let test = |name: &str| {
        json!({
            "resource_type": "test", "name": format!("{name}_customers_id"), "package_name": "shop",
            "attached_node": "model.shop.active", "column_name": "id", "relation_name": null,
            "test_metadata": {"name": name, "kwargs": {"column_name": "id", "model": "{{ … }}"}, "namespace": null},
            "config": {"materialized": "test"}, "depends_on": {"nodes": ["model.shop.active"]},
        })
    };
    let active = format!(
        "\n\n-- who has an address; the rest is of no use\nselect id, name, email from {} where email is not null",
        relation("customers")
    );
    let grown = format!("select * from {0} where id > (select max(id) from {0})", relation("customers"));
    let mut customers = model("customers", "incremental", &grown);
    customers["config"]["unique_key"] = json!("id");
    json!({
        "metadata": {"dbt_schema_version": "https://schemas.getdbt.com/dbt/manifest/v12.json", "dbt_version": "1.10.0"},
        "nodes": {
            "model.shop.active": model("active", "view", &active),
            "model.shop.customers": customers,
            "model.shop.nameless": model("nameless", "table", "select 1 as one"),
            "test.shop.unique": test("unique"), "test.shop.not_null": test("not_null"),
        },
        "sources": {}, "macros": {}, "exposures": {}, "disabled": {},
    })
}

fn with_manifest(engine: Engine) -> Crm {
    let crm = Crm::new(engine, 12, "mode: mirror");
    let database = match engine {
        Engine::DuckDb => "warehouse".to_owned(),
        _ => crm.project.texts("select current_database()::text")[0].clone().unwrap(),
    };
    crm.project.write("dbt/target/manifest.json", &manifest(&database).to_string());
    crm
}

fn a_model_of_dbt_has_to_be_written_twice(engine: Engine) {
    let crm = with_manifest(engine);
    crm.sql("update customers set email = null where id = 3");
    crm.project.write(
        "models/customers.yml",
        "source: wh\ndbt: {manifest: dbt/target/manifest.json, model: active}\n",
    );
    assert_eq!(crm.project.levin(&["check"]).code, 0);
    crm.run_sends([11, 0, 0]);
    assert!(!crm.receiver.keys().contains(&"3".to_owned()), "the compiled SELECT says which rows");
    crm.assert_quiet();
    // What dbt builds bit by bit is read where it stands, not by the SELECT that finds what is new.
    crm.project.write(
        "models/customers.yml",
        "source: wh\ndbt: {manifest: dbt/target/manifest.json, model: shop.customers}\n",
    );
    crm.run_sends([1, 0, 0]);
    crm.assert_same();
    crm.assert_quiet();
    // The file may know better what tells rows apart.
    crm.project.write(
        "models/customers.yml",
        "source: wh\nprimary_key: name\ndbt: {manifest: dbt/target/manifest.json, model: customers}\n",
    );
    assert_eq!(crm.run().error(), "KEY_CHANGED");
}

fn a_manifest_is_trusted_although_it_does_not_fit(engine: Engine) {
    let crm = with_manifest(engine);
    let wrong = |model: &str, why: &[&str]| {
        crm.project.write("models/customers.yml", &format!("source: wh\n{model}\n"));
        let ended = crm.project.levin(&["check", "--offline"]);
        assert_eq!(ended.code, 64, "{ended:?}");
        for why in why {
            assert!(ended.stderr.contains(why), "{why}: {ended:?}");
        }
    };
    let of = |manifest: &str, model: &str| format!("dbt: {{manifest: {manifest}, model: {model}}}");
    let there = "dbt/target/manifest.json";
    wrong(&of(there, "activ"), &["models/customers.yml:2", "has no model `activ`", "did you mean `active`?"]);
    wrong(&of("target/manifest.json", "active"), &["cannot be read: it does not exist", "dbt compile"]);
    wrong(&of(there, "nameless"), &["the key `primary_key` is missing", "unique_key"]);
    wrong(&format!("{}\nsql: select 1 as id", of(there, "active")), &["more than one of `dbt`, `sql`"]);
    wrong("sql: select 1 as id", &["the key `primary_key` is missing"]);
    wrong(&of(there, "active").replace("model:", "modle:"), &["did you mean `model`?"]);
    let old = json!({"metadata": {"dbt_schema_version": "https://schemas.getdbt.com/dbt/manifest/v2.json"}, "nodes": {}});
    crm.project.write("dbt/target/manifest.json", &old.to_string());
    wrong(&of(there, "active"), &["is too old", "dbt compile"]);
    crm.project.write("dbt/target/manifest.json", "not json");
    wrong(&of(there, "active"), &["is no manifest of dbt"]);
    assert_eq!((crm.receiver.count(), SYNC), (0, "customers-to-crm"));
}
