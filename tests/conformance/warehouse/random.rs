//! Random lives of a sync, against a second implementation of the rules in memory.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use tests::seeds;

use super::oracle::{End, Key, Oracle, Values, Wanted};
use super::trial::{DiffRow, EVERY, Ending, Exception, Question, Text, Trial, UPSERTS};
use super::{Bench, on_every_warehouse};

on_every_warehouse!(duckdb_in_memory: every_life_obeys_the_rules);

const CASES: u32 = 16;
/// As many on a double, whose statements take some hundredths of a second each.
const FEW: u32 = 3;
/// So many when the lives are to be long (`LEVIN_LONG=1`).
const MANY: u32 = 400;

/// A row of the model, what it holds, and how its delivery ends if there is one.
#[derive(Debug, Clone)]
struct ModelRow {
    tenant: Text,
    number: Option<i64>,
    email: Text,
    n: Option<i64>,
}

impl ModelRow {
    fn parts(&self) -> (Key, Values) {
        let text = |n: Option<i64>| n.map(|n| n.to_string());
        (vec![self.tenant.clone(), text(self.number)], vec![self.email.clone(), text(self.n)])
    }
}

#[derive(Debug, Clone)]
struct RunPlan {
    rows: Vec<ModelRow>,
    ends: Vec<Option<Exception>>,
    sends_removed: bool,
    complete: bool,
    resync: bool,
    plain: bool,
}

fn model_row() -> impl Strategy<Value = ModelRow> {
    let tenant = prop_oneof![
        1 => Just(None),
        20 => prop::sample::select(vec!["a", "it's", ""]).prop_map(|t| Some(t.to_owned())),
    ];
    let number = prop_oneof![1 => Just(None), 20 => (1..4_i64).prop_map(Some)];
    let email = prop::sample::select(vec![None, Some(""), Some("x"), Some("o'x")]);
    (tenant, number, email, prop::option::of(0..2_i64)).prop_map(|(tenant, number, email, n)| ModelRow {
        tenant,
        number,
        email: email.map(str::to_owned),
        n,
    })
}

fn run_plan() -> impl Strategy<Value = RunPlan> {
    let end = prop_oneof![
        4 => Just(None),
        3 => prop::sample::select(vec![
            Exception::Rejected,
            Exception::RejectedInDoubt,
            Exception::InDoubt,
            Exception::NotSent
        ])
        .prop_map(Some),
    ];
    (
        prop::collection::vec(model_row(), 0..7),
        prop::collection::vec(end, 1..7),
        any::<bool>(),
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.15),
        any::<bool>(),
    )
        .prop_map(|(rows, ends, sends_removed, complete, resync, plain)| RunPlan {
            rows,
            ends,
            sends_removed,
            complete,
            resync,
            plain,
        })
}

async fn live(bench: Bench, sync: i64, plans: &[RunPlan]) -> Result<(), TestCaseError> {
    bench.setup(&[&format!("create table t{sync} (tenant text, no bigint, email text, n int)")]).await;
    let model = format!("select * from t{sync}");
    let mut trial = Trial::begin(bench, sync, &model, &["tenant", "no"]).await;
    let mut oracle = Oracle::default();
    for plan in plans {
        let quoted =
            |t: &Text| t.as_ref().map_or("null".to_owned(), |t| format!("'{}'", t.replace('\'', "''")));
        let number = |n: Option<i64>| n.map_or("null".to_owned(), |n| n.to_string());
        let mut setup = vec![format!("delete from t{sync}")];
        setup.extend(plan.rows.iter().map(|r| {
            let (tenant, email) = (quoted(&r.tenant), quoted(&r.email));
            format!("insert into t{sync} values ({tenant}, {}, {email}, {})", number(r.number), number(r.n))
        }));
        trial.bench.setup(&setup.iter().map(String::as_str).collect::<Vec<_>>()).await;
        if plan.resync {
            oracle.due_before = trial.generation;
        }
        let due_before = (oracle.due_before > 0).then_some(oracle.due_before);
        let question = Question { plain: plan.plain, due_before, resync: plan.resync, ..Question::default() };
        let found = trial.diff(question).await;
        let rows: Vec<(Key, Values)> = plan.rows.iter().map(ModelRow::parts).collect();
        let wants = oracle.diff(&rows, plan.resync);
        prop_assert_eq!(found.counts, wants.counts);
        let rows: BTreeMap<Key, Wanted> = found
            .rows
            .iter()
            .map(|r| {
                let (values, changed, version) = (r.values.clone(), r.changed.clone(), r.version.clone());
                (r.key.clone(), Wanted { operation: r.operation, values, changed, version })
            })
            .collect();
        prop_assert_eq!(rows.len(), found.rows.len());
        prop_assert_eq!(&rows, &wants.rows);
        let sequences: BTreeSet<i64> = found.rows.iter().map(|r| r.sequence).collect();
        prop_assert_eq!(sequences.len(), found.rows.len());

        let sent = if plan.sends_removed { EVERY } else { UPSERTS };
        let ends: Vec<(DiffRow, Option<Exception>)> =
            found.rows.iter().cloned().zip(plan.ends.iter().copied().cycle()).collect();
        let exceptions = ends
            .iter()
            .filter(|(row, _)| sent.contains(&row.operation))
            .filter_map(|(row, end)| Some((row.sequence, (*end)?)))
            .collect();
        let ending = Ending {
            sent,
            exceptions,
            complete: plan.complete,
            keep_removals: plan.resync,
            ..Ending::default()
        };
        trial.commit(&found, ending).await.map_err(|e| TestCaseError::fail(e.to_string()))?;
        let end = End { sends_removed: plan.sends_removed, complete: plan.complete, resync: plan.resync };
        oracle.commit(end, trial.generation, &wants, &ends);
        let snapshot: BTreeMap<Key, Values> =
            oracle.snapshot.iter().map(|(key, (values, _))| (key.clone(), values.clone())).collect();
        prop_assert_eq!(trial.snapshot().await, snapshot);
        let doubts = trial.table(&trial.tables.doubts(), &["tenant", "no", "_levin_version"]).await;
        let mut expected: Vec<_> =
            oracle.doubts.iter().map(|(key, d)| [&key[..], &[Some(d.version.clone())]].concat()).collect();
        expected.sort();
        prop_assert_eq!(doubts, expected);
        let rejected = trial.table(&trial.tables.rejections(), &["tenant", "no"]).await;
        prop_assert_eq!(rejected, oracle.rejected.iter().cloned().collect::<Vec<_>>());
        let state = trial.state().await;
        prop_assert_eq!(state.doubts, oracle.doubts.len() as i64);
        prop_assert_eq!(state.rejections, oracle.rejected.len() as i64);
        trial.take_lease().await;
    }
    // Whatever went before: once everything is accepted the snapshot is the model, and nothing is left to send.
    let due_before = (oracle.due_before > 0).then_some(oracle.due_before);
    let question = Question { due_before, ..Question::default() };
    trial.accept_all(question).await;
    let left = trial.diff(question).await;
    prop_assert!(left.rows.is_empty(), "{:?}", left.rows);
    Ok(())
}

async fn every_life_obeys_the_rules(bench: Bench) {
    let seed = seeds::given().unwrap_or_else(seeds::of_this_moment);
    println!("LEVIN_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = ProptestConfig {
        cases: if seeds::is_long() {
            MANY
        } else if matches!(bench.engine(), "bigquery" | "databricks") {
            FEW
        } else {
            CASES
        },
        failure_persistence: None,
        max_shrink_iters: 60,
        ..Default::default()
    };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let sync = std::cell::Cell::new(0);
        runner
            .run(&prop::collection::vec(run_plan(), 1..6), |plans| {
                sync.set(sync.get() + 1);
                runtime.block_on(live(bench.clone(), sync.get(), &plans))
            })
            .unwrap_or_else(|e| panic!("LEVIN_SEED={seed} lives this life again: {e}"));
    })
    .await
    .expect("the lives are lived");
}
