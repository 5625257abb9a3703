//! Open rejections, as they are found again: of a run, of a key, page by page.

use std::collections::BTreeSet;

use sql_templates::{RejectionFacts, Statement};

use super::trial::{DiffRow, Ending, Exception, Question, Text, Trial, texts};
use super::{Bench, on_every_warehouse};

on_every_warehouse!(rejections_are_found_by_run_and_key_page_by_page);

/// Keys and runs of open rejections, as they are found.
async fn open(trial: &mut Trial, facts: RejectionFacts<'_>) -> Vec<(Vec<Text>, Text)> {
    let (tables, keys) = (trial.tables.clone(), trial.shape.keys.clone());
    let effect =
        trial.run(&[Statement::Rejections { tables: &tables, keys: &keys, facts: &facts }]).await.unwrap();
    let found = effect.result("open rejections");
    let Some(first) = found.first() else { return Vec::new() };
    let run = texts(found, first.schema().index_of("_levin_run").unwrap());
    let parts: Vec<Vec<Text>> = (0..keys.len()).map(|part| texts(found, part)).collect();
    let key = |at: usize| parts.iter().map(|part| part[at].clone()).collect();
    run.into_iter().enumerate().map(|(at, run)| (key(at), run)).collect()
}

async fn rejections_are_found_by_run_and_key_page_by_page(bench: Bench) {
    bench
        .setup(&[
            "create table orders (tenant text, no int, v text)",
            "insert into orders values ('a', 1, 'x'), ('a', 2, 'x'), ('b', 1, 'x'), ('it''s', 3, 'x'), \
             ('a', null, 'x'), (null, null, 'x'), (null, 4, 'x'), ('c', 5, 'x'), ('c', 5, 'x')",
        ])
        .await;
    let mut trial = Trial::begin(bench, 1, "select v, no, tenant from orders", &["tenant", "no"]).await;
    let found = trial.diff(Question::FIRST).await;
    let exceptions = found.rows.iter().map(|r| (r.sequence, Exception::Rejected)).collect();
    trial.commit(&found, Ending { exceptions, ..Ending::default() }).await.unwrap();
    trial.take_lease().await;
    // Another run meets two of them again.
    let found = trial.diff(Question::default()).await;
    let end = |r: &DiffRow| match r.key[0].as_deref() {
        Some("a") => Exception::Rejected,
        _ => Exception::NotSent,
    };
    let exceptions = found.rows.iter().map(|r| (r.sequence, end(r))).collect();
    trial.commit(&found, Ending { exceptions, ..Ending::default() }).await.unwrap();

    let all = open(&mut trial, RejectionFacts::newest(100)).await;
    assert_eq!(all.len(), 8, "{all:?}");
    let mut pages = Vec::new();
    for offset in [0, 3, 6, 9] {
        pages.extend(open(&mut trial, RejectionFacts { offset, ..RejectionFacts::newest(3) }).await);
    }
    assert_eq!(pages, all, "pages are one list");
    let runs: BTreeSet<&Text> = all.iter().map(|(_, run)| run).collect();
    assert_eq!(runs.len(), 2, "{all:?}");
    for run in &runs {
        let number = run.as_deref().and_then(|run| run.parse().ok());
        let of_run: Vec<_> = all.iter().filter(|(_, of)| of == *run).cloned().collect();
        let facts = RejectionFacts { run: number, ..RejectionFacts::newest(100) };
        assert_eq!(open(&mut trial, facts).await, of_run);
    }
    for (key, run) in &all {
        let parts: Vec<Option<&str>> = key.iter().map(Option::as_deref).collect();
        let one = vec![(key.clone(), run.clone())];
        assert_eq!(open(&mut trial, RejectionFacts { key: &parts, ..RejectionFacts::newest(2) }).await, one);
        let number = run.as_deref().and_then(|run| run.parse().ok());
        let facts = RejectionFacts { run: number, key: &parts, offset: 0, limit: 2 };
        assert_eq!(open(&mut trial, facts).await, one);
        let other = RejectionFacts { run: Some(99), ..facts };
        assert!(open(&mut trial, other).await.is_empty());
    }
}
