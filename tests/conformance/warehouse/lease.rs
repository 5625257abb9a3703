//! State and lease: who may write, and what is remembered.

use connectors::warehouse::ErrorKind;
use sql_templates::{DiffShape, Statement};

use super::trial::{Ending, PROJECT, Question, Trial};
use super::{Bench, on_every_warehouse};

on_every_warehouse!(
    a_lease_belongs_to_one_generation,
    the_state_remembers_what_it_is_told,
    a_fenced_holder_commits_nothing,
);

async fn trial(bench: Bench) -> Trial {
    bench.setup(&["create table people (id bigint, email text)", "insert into people values (1, 'a')"]).await;
    Trial::begin(bench, 1, "select id, email from people", &["id"]).await
}

async fn a_lease_belongs_to_one_generation(bench: Bench) {
    let mut trial = trial(bench).await;
    let tables = trial.tables.clone();
    let take = |generation, lease_seconds, replace_holder| Statement::TakeLease {
        tables: &tables,
        slug: "renamed",
        generation,
        holder: "{\"pid\":2,\"host\":\"it's\"}",
        lease_seconds,
        replace_holder,
    };
    let renew = |generation| Statement::RenewLease { tables: &tables, generation, lease_seconds: 60 };
    let release = |generation| Statement::ReleaseLease {
        tables: &tables,
        generation,
        queried: Some(7),
        counted: Some(5),
        ran: true,
    };

    // Generation 1 is held.
    assert_eq!(trial.run(&[take(2, 60, false)]).await.unwrap_err().kind, ErrorKind::Fenced);
    trial.run(&[renew(1)]).await.unwrap();
    let left = trial.state().await.texts["lease_seconds"].clone().unwrap().parse::<f64>().unwrap();
    assert!(left > 0.0 && left <= 60.0, "{left}");

    // Its holder is known to be gone.
    trial.run(&[take(2, 60, true)]).await.unwrap();
    for late in [renew(1), release(1), take(2, 60, true), take(1, 60, true)] {
        assert_eq!(trial.run(std::slice::from_ref(&late)).await.unwrap_err().kind, ErrorKind::Fenced);
    }
    let state = trial.state().await;
    assert_eq!((state.generation, state.checkpoint), (2, 0));
    assert_eq!(state.texts["sync_slug"].as_deref(), Some("renamed"));
    assert_eq!(state.texts["holder"].as_deref(), Some("{\"pid\":2,\"host\":\"it's\"}"));

    // Given up, it can be taken by whoever comes.
    trial.run(&[release(2)]).await.unwrap();
    assert_eq!(trial.run(&[renew(2)]).await.unwrap_err().kind, ErrorKind::Fenced, "a late heartbeat");
    let state = trial.state().await;
    assert_eq!((&state.texts["holder"], &state.texts["lease_seconds"]), (&None, &None));
    assert_eq!(state.texts["queried"].as_deref(), Some("7"));
    // A lease that has run out can be taken too.
    trial.run(&[take(3, -1, false)]).await.unwrap();
    trial.run(&[take(4, 60, false)]).await.unwrap();
    assert_eq!(trial.run(&[take(5, 60, false)]).await.unwrap_err().kind, ErrorKind::Fenced);
}

async fn the_state_remembers_what_it_is_told(bench: Bench) {
    let mut trial = trial(bench).await;
    let tables = trial.tables.clone();
    let diff = tables.diff("1");
    trial
        .run(&[
            Statement::Define {
                tables: &tables,
                generation: 1,
                definition: Some("{\"it's\":\"\\\\ a definition\"}"),
                target: Some("postgres://h/db; drop table x --"),
                due_before: 3,
            },
            Statement::BeginDelivery {
                tables: &tables,
                generation: 1,
                diff: &diff,
                diff_shape: DiffShape::Full,
                sent: &["removed", "added"],
                store: "9a",
                run: 12,
                due_before: 4,
            },
        ])
        .await
        .unwrap();
    let state = trial.state().await;
    let text = |name: &str| state.texts[name].as_deref();
    assert_eq!((state.due_before, state.delivering), (4, Some(1)));
    assert_eq!(text("definition"), Some("{\"it's\":\"\\\\ a definition\"}"));
    assert_eq!(text("target"), Some("postgres://h/db; drop table x --"));
    assert_eq!(text("delivering_table"), Some(diff.name.name()));
    assert_eq!(text("delivering_shape"), Some("full"));
    assert_eq!((text("delivering_store"), text("delivering_run")), (Some("9a"), Some("12")));
    assert_eq!((text("project"), text("sync_id")), (Some(PROJECT), Some("1")));

    // Making it again changes nothing, whether that is said or not.
    let again = trial
        .run(&[
            Statement::CreateSchemas { tables: &tables },
            Statement::CreateState {
                tables: &tables,
                project: "another",
                sync_id: 9,
                slug: "x",
                generation: 0,
            },
            Statement::CreateAudit { tables: &tables },
        ])
        .await;
    assert!(matches!(again.map_err(|e| e.kind), Ok(_) | Err(ErrorKind::AlreadyExists)));
    assert_eq!(trial.state().await.texts["project"].as_deref(), Some(PROJECT));

    // The last commit ends the delivery.
    let found = trial.diff(Question::FIRST).await;
    trial.commit(&found, Ending { adopt: true, due_before: Some(0), ..Ending::default() }).await.unwrap();
    let state = trial.state().await;
    assert_eq!((state.checkpoint, state.due_before, state.delivering), (1, 0, None));
    assert_eq!(state.texts["delivering_table"], None);
}

async fn a_fenced_holder_commits_nothing(bench: Bench) {
    let mut trial = trial(bench).await;
    let found = trial.diff(Question::FIRST).await;
    let tables = trial.tables.clone();
    trial
        .run(&[Statement::TakeLease {
            tables: &tables,
            slug: "s",
            generation: 2,
            holder: "{}",
            lease_seconds: 60,
            replace_holder: true,
        }])
        .await
        .unwrap();
    let ending = Ending { adopt: true, ..Ending::default() };
    let refused = trial.commit(&found, ending.clone()).await.unwrap_err();
    assert_eq!((refused.kind, refused.step.as_deref()), (ErrorKind::Fenced, Some("fence")));
    assert!(trial.snapshot().await.is_empty());
    assert_eq!(trial.table(&found.table, &["id"]).await.len(), 1, "the diff stands as it was");

    // The next holder settles it. The same commit twice is one too many.
    trial.generation = 2;
    trial.commit(&found, ending.clone()).await.unwrap();
    assert_eq!(trial.snapshot().await.len(), 1);
    trial.checkpoint = 0;
    assert_eq!(trial.commit(&found, Ending::default()).await.unwrap_err().kind, ErrorKind::Fenced);
    assert_eq!(trial.state().await.checkpoint, 1);
}

#[tokio::test]
async fn a_database_that_reads_backslashes_as_escapes_is_told_not_to() {
    let bench = Bench::postgres();
    bench
        .setup(&["do $$ begin execute format('alter database %I set standard_conforming_strings = off', \
                  current_database()); end $$"])
        .await;
    let mut trial = trial(bench).await;
    let tables = trial.tables.clone();
    let definition = "\\' where 1 = 1; --";
    let define = Statement::Define {
        tables: &tables,
        generation: 1,
        definition: Some(definition),
        target: Some("\\"),
        due_before: 0,
    };
    trial.run(&[define]).await.unwrap();
    let state = trial.state().await;
    assert_eq!(state.texts["definition"].as_deref(), Some(definition));
    assert_eq!(state.texts["target"].as_deref(), Some("\\"));
}
