//! Truth tables: for every type when two values differ, and in what form a value leaves.

mod bigquery_types;
mod databricks_types;
mod duckdb_types;
mod mariadb_types;
mod postgres_types;
mod redshift_types;
mod snowflake_types;

use std::collections::{BTreeMap, BTreeSet};

use sql_templates::{Dialect, LogicalType, RejectionFacts, Statement};

use super::trial::{DiffRow, Ending, Exception, Question, Text, Trial};
use super::{Bench, on_every_warehouse};

on_every_warehouse!(
    duckdb_in_memory:
    values_differ_as_the_truth_table_says,
    values_of_key_types_are_keys,
    keys_that_are_equal_have_one_text,
    every_type_of_the_dialect_has_a_truth_table,
);

/// What is true of one type. Values are SQL expressions that are cast to it.
pub struct Truth {
    /// As the engine spells it.
    pub engine_type: &'static str,
    pub logical: LogicalType,
    /// Two values, whether going from one to the other is a change, and the first one's form in
    /// Arrow, printed; null is `∅`.
    pub pairs: &'static [(&'static str, &'static str, bool, &'static str)],
}

const fn truth(
    engine_type: &'static str,
    logical: LogicalType,
    pairs: &'static [(&'static str, &'static str, bool, &'static str)],
) -> Truth {
    Truth { engine_type, logical, pairs }
}

fn truths(bench: &Bench) -> Vec<&'static Truth> {
    match bench.engine() {
        "bigquery" => bigquery_types::TRUTHS.iter().collect(),
        "databricks" => databricks_types::TRUTHS.iter().collect(),
        "duckdb" => duckdb_types::TRUTHS.iter().collect(),
        "mariadb" => mariadb_types::TRUTHS.iter().collect(),
        "redshift" => redshift_types::TRUTHS.iter().collect(),
        "snowflake" => snowflake_types::TRUTHS.iter().collect(),
        _ => postgres_types::TRUTHS.iter().collect(),
    }
}

/// Those of whose types the engine under test has values.
fn testable(bench: &Bench) -> Vec<&'static Truth> {
    let double = bench.engine() == "bigquery";
    truths(bench).into_iter().filter(|t| !double || super::bigquery::has_values(t.engine_type)).collect()
}

/// What a column that is declared so is called when it is described.
fn described(bench: &Bench, declared: &'static str) -> &'static str {
    let names = if bench.engine() == "mariadb" { mariadb_types::DESCRIBED } else { &[] };
    names.iter().find(|(name, _)| *name == declared).map_or(declared, |(_, described)| described)
}

async fn prepared(bench: &Bench) {
    if bench.engine() == "postgres" {
        bench.setup(postgres_types::SETUP).await;
    }
}

async fn values_differ_as_the_truth_table_says(bench: Bench) {
    prepared(&bench).await;
    let mut wrong = Vec::new();
    for (sync, truth) in (1..).zip(testable(&bench)) {
        let Truth { engine_type, logical, pairs } = truth;
        let insert = |number: usize, value: &str| {
            format!("insert into t{sync} values ({number}, {})", bench.of_type(value, engine_type))
        };
        // Each pair in both directions.
        let both = || pairs.iter().flat_map(|p| [(p.0, p.1), (p.1, p.0)]).enumerate();
        let mut before = vec![format!("create table t{sync} (id int, v {engine_type})")];
        before.extend(both().map(|(i, (old, _))| insert(i, old)));
        bench.setup(&before.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let model = format!("select id, v from t{sync}");
        let mut trial = Trial::begin(bench.clone(), sync, &model, &["id"]).await;
        if trial.shape.columns[0].logical != *logical {
            wrong.push(format!("{engine_type} is described as {:?}", trial.shape.columns[0]));
            continue;
        }
        let first = trial.accept_all(Question::FIRST).await;
        let wire: BTreeMap<usize, Text> = first
            .rows
            .iter()
            .map(|r| (r.key[0].as_ref().unwrap().parse().unwrap(), r.values[0].clone()))
            .collect();
        for (i, (old, _, _, expected)) in pairs.iter().enumerate() {
            let got = wire[&(i * 2)].as_deref().unwrap_or("∅");
            if got != *expected {
                wrong.push(format!("{engine_type} {old} leaves as {got:?}, not as {expected:?}"));
            }
        }
        assert!(trial.diff(Question::default()).await.rows.is_empty(), "{engine_type}");
        trial.take_lease().await;

        let mut after = vec![format!("delete from t{sync}")];
        after.extend(both().map(|(i, (_, new))| insert(i, new)));
        bench.setup(&after.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let found = trial.diff(Question::default()).await;
        let changed: Vec<usize> =
            found.rows.iter().map(|r| r.key[0].as_ref().unwrap().parse().unwrap()).collect();
        for (i, (old, new)) in both() {
            let differs = pairs[i / 2].2;
            if changed.contains(&i) != differs {
                wrong.push(format!("{engine_type}: {old} to {new}: differs should be {differs}"));
            }
        }
        // What is in doubt is compared in the same way.
        let exceptions = found.rows.iter().map(|r| (r.sequence, Exception::InDoubt)).collect();
        trial.commit(&found, Ending { exceptions, ..Ending::default() }).await.unwrap();
        trial.take_lease().await;
        let again = trial.diff(Question::default()).await;
        if again.rows.len() != found.rows.len() || again.rows.iter().any(|r| r.version.is_none()) {
            wrong.push(format!("{engine_type}: a repeat is not known again"));
        }
        trial.accept_all_of(again).await;
        assert!(trial.diff(Question::default()).await.rows.is_empty(), "{engine_type}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

async fn values_of_key_types_are_keys(bench: Bench) {
    prepared(&bench).await;
    let mut wrong = Vec::new();
    for (sync, truth) in (1..).zip(testable(&bench)) {
        let Truth { engine_type, pairs, .. } = truth;
        if !bench.warehouse.dialect().type_fact(described(&bench, engine_type)).is_some_and(|f| f.key) {
            continue;
        }
        let (one, other, ..) = pairs
            .iter()
            .find(|p| p.2 && p.0 != "null" && p.1 != "null")
            .unwrap_or_else(|| panic!("{engine_type} has no two values that differ"));
        let equal: Vec<_> = pairs.iter().filter(|p| !p.2 && p.0 != "null").collect();
        let insert = |value: &str, part: i32| {
            format!("insert into t{sync} values ({}, {part}, 'x')", bench.of_type(value, engine_type))
        };
        let mut setup = vec![
            format!("create table t{sync} (k {engine_type}, part int, v text)"),
            insert(one, 1),
            insert(other, 1),
            insert(one, 2),
        ];
        // Values that are equal are one key.
        for (i, (a, b, ..)) in (10..).zip(&equal) {
            setup.extend([insert(a, i), insert(b, i)]);
        }
        bench.setup(&setup.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let model = format!("select * from t{sync}");
        let mut trial = Trial::begin(bench.clone(), sync, &model, &["k", "part"]).await;
        let first = trial.accept_all(Question::FIRST).await;
        if first.rows.len() != 3 || first.counts.duplicate_key_rows != 2 * equal.len() as i64 {
            wrong.push(format!("{engine_type}: {first:#?}"));
            continue;
        }
        assert!(trial.diff(Question::default()).await.rows.is_empty(), "{engine_type}");
        trial.take_lease().await;
        bench
            .setup(&[&format!("delete from t{sync} where part = 2"), &format!("update t{sync} set v = 'y'")])
            .await;
        let found = trial.diff(Question::default()).await;
        assert_eq!((found.counts.changed, found.counts.removed), (2, 1), "{engine_type}");
        let exceptions = found.rows.iter().map(|r| (r.sequence, Exception::RejectedInDoubt)).collect();
        trial.commit(&found, Ending { exceptions, ..Ending::default() }).await.unwrap();
        let state = trial.state().await;
        assert_eq!((state.doubts, state.rejections), (3, 3 + equal.len() as i64), "{engine_type}");
        let (tables, keys) = (trial.tables.clone(), trial.shape.keys.clone());
        trial
            .run(&[Statement::Rejections { tables: &tables, keys: &keys, facts: &RejectionFacts::newest(9) }])
            .await
            .unwrap();
        trial.take_lease().await;
        bench.setup(&[&format!("delete from t{sync} where part >= 10")]).await;
        let again = trial.accept_all(Question::default()).await;
        assert_eq!(again.rows.len(), 3, "{engine_type}");
        let state = trial.state().await;
        assert_eq!((state.doubts, state.rejections), (0, 0), "{engine_type}");
        assert_eq!(trial.snapshot().await.len(), 2, "{engine_type}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Two spellings of one key are one record, and one rejection.
async fn keys_that_are_equal_have_one_text(bench: Bench) {
    prepared(&bench).await;
    let mut wrong = Vec::new();
    for (sync, truth) in (1..).zip(testable(&bench)) {
        let Truth { engine_type, pairs, .. } = truth;
        let equal: Vec<_> = pairs.iter().filter(|p| !p.2 && p.0 != "null").collect();
        if equal.is_empty()
            || !bench.warehouse.dialect().type_fact(described(&bench, engine_type)).is_some_and(|f| f.key)
        {
            continue;
        }
        let write = async |second: bool, v: &str| {
            let mut statements = vec![format!("delete from t{sync}")];
            statements.extend((0..).zip(&equal).map(|(i, p)| {
                let key = if second { p.1 } else { p.0 };
                format!("insert into t{sync} values ({}, {i}, '{v}')", bench.of_type(key, engine_type))
            }));
            bench.setup(&statements.iter().map(String::as_str).collect::<Vec<_>>()).await;
        };
        bench.setup(&[&format!("create table t{sync} (k {engine_type}, part int, v text)")]).await;
        write(false, "x").await;
        let model = format!("select * from t{sync}");
        let mut trial = Trial::begin(bench.clone(), sync, &model, &["k", "part"]).await;
        let keys = |rows: &[DiffRow]| rows.iter().map(|r| r.key.clone()).collect::<BTreeSet<_>>();
        let first = keys(&trial.accept_all(Question::FIRST).await.rows);
        write(true, "y").await;
        let found = trial.diff(Question::default()).await;
        if keys(&found.rows) != first {
            wrong.push(format!("{engine_type}: {:?} and {first:?}", keys(&found.rows)));
        }
        trial.take_lease().await;
        for (second, exception) in [(true, Exception::Rejected), (false, Exception::NotSent)] {
            write(second, "y").await;
            let found = trial.diff(Question { plain: true, ..Question::default() }).await;
            let exceptions = found.rows.iter().map(|r| (r.sequence, exception)).collect();
            trial.commit(&found, Ending { exceptions, ..Ending::default() }).await.unwrap();
            if trial.state().await.rejections != equal.len() as i64 {
                wrong.push(format!("{engine_type}: {exception:?} rows have other rejections"));
            }
            trial.take_lease().await;
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

async fn every_type_of_the_dialect_has_a_truth_table(bench: Bench) {
    let dialect: Dialect = bench.warehouse.dialect();
    let facts: Vec<_> =
        truths(&bench).iter().map(|t| dialect.type_fact(described(&bench, t.engine_type)).unwrap()).collect();
    let waived = match bench.engine() {
        "databricks" => databricks_types::WAIVED,
        "snowflake" => snowflake_types::WAIVED,
        _ => &[],
    };
    for fact in &dialect.facts().types {
        let waiver = waived.iter().find(|(engine_type, _)| dialect.type_fact(engine_type) == Some(fact));
        assert!(
            facts.contains(&fact) != waiver.is_some(),
            "no truth about {:?}, or a needless waiver",
            fact.engine
        );
    }
}
