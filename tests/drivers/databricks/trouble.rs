//! What goes wrong between levin and Databricks.

use std::time::Duration;

use tokio::time::timeout;

use super::*;

/// Longer than any test waits for.
const LONG: Duration = Duration::from_secs(60);

async fn refused(workspace: &DatabricksWorkspace, change: &Value) -> WarehouseError {
    let warehouse = with(workspace, change);
    let mut session = open(&*warehouse).await;
    failed(&mut *session, "select 1 as one").await
}

#[tokio::test]
async fn what_is_wrong_with_the_source_is_told_apart() {
    let workspace = workspace();
    let error = refused(&workspace, &json!({"auth": {"token": "dapi-wrong"}})).await;
    assert_eq!(error.kind, ErrorKind::Authentication, "{error}");
    assert!(!error.message.contains("dapi-wrong"), "{error}");
    let error = refused(&workspace, &json!({"warehouse_id": "nosuch"})).await;
    assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
    assert!(error.message.contains("`warehouse_id`"), "{error}");
    let error = refused(&workspace, &json!({"catalog": "nosuch"})).await;
    assert!(error.kind == ErrorKind::NotFound && error.message.contains("nosuch"), "{error}");
    let error = refused(&workspace, &json!({"schema": "nosuch"})).await;
    assert!(error.kind == ErrorKind::NotFound && error.message.contains("nosuch"), "{error}");
    let error = refused(&workspace, &json!({"host": "http://127.0.0.1:1", "retry_for": "500ms"})).await;
    assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
    let error = refused(&workspace, &json!({"auth": {"client_id": "nobody", "client_secret": "hush"}})).await;
    assert_eq!(error.kind, ErrorKind::Authentication, "{error}");
    assert!(error.message.contains("client_secret") && !error.message.contains("hush"), "{error}");
}

#[tokio::test]
async fn a_service_principals_tokens_are_renewed() {
    let workspace = workspace();
    workspace.set(&json!({"client_id": "app-1", "client_secret": "hush", "token": "nobody-has-it"}));
    let warehouse = with(&workspace, &json!({"auth": {"client_id": "app-1", "client_secret": "hush"}}));
    assert_eq!(warehouse.role().as_deref(), Some("app-1"));
    let mut session = open(&*warehouse).await;
    assert_eq!(number(&mut *session, "select 1").await, 1);
    assert_eq!(number(&mut *session, "select 2").await, 2);
    assert_eq!(workspace.told()["granted"], 1, "a token is asked for once");
    // One that Databricks no longer believes is replaced within the request.
    workspace.set(&json!({"expire_tokens": true}));
    assert_eq!(number(&mut *session, "select 3").await, 3);
    assert_eq!(workspace.told()["granted"], 2);
    // And one that ends soon before it does.
    workspace.set(&json!({"expires_in": 0, "expire_tokens": true}));
    let renewed = failed(&mut *session, "select 4").await;
    assert_eq!(renewed.kind, ErrorKind::Authentication, "a token that never holds: {renewed}");
    workspace.set(&json!({"expires_in": 3600}));
    assert_eq!(number(&mut *session, "select 5").await, 5);
    // The token server is in trouble for a moment.
    workspace.set(
        &json!({"expire_tokens": true, "troubles": [{"at": "/oidc/v1/token", "status": 503, "times": 2}]}),
    );
    assert_eq!(number(&mut *session, "select 6").await, 6);
}

#[tokio::test]
async fn a_warehouse_that_sleeps_is_waited_for() {
    let workspace = workspace();
    let warehouse = at(&workspace);
    let mut session = open(&*warehouse).await;
    workspace.set(&json!({"starts": 1.0}));
    assert_eq!(number(&mut *session, "select 42").await, 42);
    assert!(asked(&workspace, "GET /api/2.0/sql/statements/") > 3, "it was asked for more than once");
    let hasty = with(&workspace, &json!({"statement_timeout": "200ms"}));
    let mut session = open(&*hasty).await;
    workspace.set(&json!({"starts": 60.0}));
    let late = failed(&mut *session, "select 'late'").await;
    assert_eq!(late.kind, ErrorKind::TookTooLong, "{late}");
    until(|| states(&workspace, "'late'") == ["CANCELED"]).await;
}

#[tokio::test]
async fn throttling_and_passing_troubles_are_waited_out() {
    let workspace = workspace();
    let warehouse = at(&workspace);
    let mut session = open(&*warehouse).await;
    table(&mut *session).await;
    for trouble in [
        json!({"at": "POST /api/2.0/sql/statements", "status": 429, "retry_after": 0, "times": 2}),
        json!({"at": "POST /api/2.0/sql/statements", "status": 503, "retry_after": 0, "times": 2}),
        json!({"at": "POST /api/2.0/sql/statements", "status": 503, "code": "TEMPORARILY_UNAVAILABLE"}),
        json!({"at": "GET /api/2.0/sql/statements/", "status": 500, "times": 2}),
        json!({"at": "GET /api/2.0/sql/statements/", "cut": "before", "times": 2}),
    ] {
        workspace.set(&json!({"troubles": [trouble]}));
        run(&mut *session, &["insert into t values (1, 'a')"]).await;
    }
    assert_eq!(number(&mut *session, "select count(*) from t").await, 5, "each came once");
}

#[tokio::test]
async fn a_statement_that_writes_is_not_sent_twice_by_chance() {
    let workspace = workspace();
    let warehouse = at(&workspace);
    let mut session = open(&*warehouse).await;
    table(&mut *session).await;
    for trouble in [
        json!({"at": "POST /api/2.0/sql/statements$", "cut": "after"}),
        json!({"at": "POST /api/2.0/sql/statements$", "status": 502}),
    ] {
        workspace.set(&json!({"troubles": [trouble]}));
        let steps = [("insert into t values (1, 'a')", Expect::Any)];
        let lost = session.execute(&script(Atomicity::Transaction, &steps)).await.unwrap_err();
        assert_eq!(lost.kind, ErrorKind::ConnectionLost, "{lost}");
    }
    // The first arrived, the second did not. Nothing runs any more: who looks now sees how it ended.
    let ended = states(&workspace, "insert into t");
    assert_eq!(ended.len(), 1, "{ended:?}");
    assert!(["SUCCEEDED", "CANCELED"].contains(&ended[0].as_str()), "{ended:?}");
    let rows = i64::from(ended[0] == "SUCCEEDED");
    assert_eq!(number(&mut *session, "select count(*) from t").await, rows);
    workspace
        .set(&json!({"slow": 3600, "troubles": [{"at": "POST /api/2.0/sql/statements$", "cut": "after"}]}));
    let steps = [("insert into t values (2, 'slow')", Expect::Any)];
    let lost = session.execute(&script(Atomicity::Transaction, &steps)).await.unwrap_err();
    assert_eq!(lost.kind, ErrorKind::ConnectionLost, "{lost}");
    assert_eq!(states(&workspace, "'slow'"), ["CANCELED"]);
    workspace.set(&json!({"slow": 0}));
    // What only reads is asked again.
    workspace
        .set(&json!({"troubles": [{"at": "POST /api/2.0/sql/statements$", "cut": "after", "times": 2}]}));
    assert_eq!(number(&mut *session, "select count(*) from t").await, rows);
}

#[tokio::test]
async fn addresses_that_have_expired_are_asked_for_anew() {
    let workspace = workspace();
    workspace.set(&json!({"chunk_rows": 30_000, "link_seconds": -1}));
    let warehouse = at(&workspace);
    let mut session = open(&*warehouse).await;
    let lost = failed(&mut *session, HUNDRED_THOUSAND).await;
    assert_eq!(lost.kind, ErrorKind::ConnectionLost, "{lost}");
    assert!(!lost.message.contains("sig="), "{lost}");
    workspace.set(&json!({"link_seconds": 900, "troubles": [
        {"at": "/links", "status": 403, "times": 2}, {"at": "/links", "status": 503, "times": 1},
        {"at": "/links", "cut": "before", "times": 1},
    ]}));
    let read = rows(&mut *session, HUNDRED_THOUSAND).await.unwrap();
    assert_eq!(read.iter().map(RecordBatch::num_rows).sum::<usize>(), 100_000);
    assert!(asked(&workspace, "/result/chunks/0") >= 2);
}

#[tokio::test]
async fn a_result_that_is_kept_no_longer_is_told_as_gone() {
    let workspace = workspace();
    workspace.set(&json!({"chunk_rows": 30_000, "chunks_kept": 2}));
    let warehouse = at(&workspace);
    let mut session = open(&*warehouse).await;
    let mut stream = session.query(&sql(HUNDRED_THOUSAND)).await.unwrap();
    let mut read = 0;
    let gone = loop {
        match stream.try_next().await {
            Ok(batch) => read += batch.expect("more rows").num_rows(),
            Err(gone) => break gone,
        }
    };
    assert_eq!((gone.kind, read), (ErrorKind::ResultGone, 60_000), "{gone}");
}

#[tokio::test]
async fn nobody_knows_what_a_statement_did_that_is_forgotten() {
    let workspace = workspace();
    let warehouse = at(&workspace);
    let mut session = open(&*warehouse).await;
    table(&mut *session).await;
    workspace.set(&json!({"forgets_at": "insert into t"}));
    let steps = [("insert into t values (1, 'a')", Expect::Any), ("delete from t where id = 2", Expect::Any)];
    let lost = session.execute(&script(Atomicity::Transaction, &steps)).await.unwrap_err();
    assert_eq!(lost.kind, ErrorKind::ConnectionLost, "{lost}");
    assert_eq!(number(&mut *session, "select count(*) from t").await, 1, "it took effect, once");
}

#[tokio::test]
async fn a_block_is_undone_by_a_write_beside_it() {
    let workspace = workspace();
    let warehouse = at(&workspace);
    let (mut session, mut other) = (open(&*warehouse).await, open(&*warehouse).await);
    table(&mut *session).await;
    run(&mut *session, &["insert into t values (1, 'a')"]).await;
    workspace.set(&json!({"slow_at": "'slow'", "slow_for": 1}));
    let block = |value: &str| {
        let update = format!("update t set v = '{value}' where id = 1");
        script(Atomicity::Transaction, &[(update.as_str(), Expect::OneRow)])
    };
    let (slow, fast) = (block("slow"), block("fast"));
    let running = tokio::spawn(async move { session.execute(&slow).await });
    until(|| states(&workspace, "'slow'") == ["RUNNING"]).await;
    other.execute(&fast).await.unwrap();
    running.await.unwrap().unwrap();
    assert_eq!(states(&workspace, "'slow'"), ["FAILED", "SUCCEEDED"]);
}

#[tokio::test]
async fn cancelling_stops_the_statement_at_databricks() {
    let workspace = workspace();
    let warehouse = at(&workspace);
    let mut session = open(&*warehouse).await;
    table(&mut *session).await;
    workspace.set(&json!({"slow": 3600}));
    let canceller = session.canceller();
    let steps = [("insert into t values (1, 'slow')", Expect::Any), ("select 'never'", Expect::Rows)];
    let work = script(Atomicity::Separate, &steps);
    let running = tokio::spawn(async move { (session.execute(&work).await, session) });
    until(|| states(&workspace, "'slow'") == ["RUNNING"]).await;
    canceller.cancel().await.unwrap();
    let (ended, mut session) = timeout(LONG, running).await.expect("it ends").unwrap();
    assert_eq!(ended.unwrap_err().kind, ErrorKind::Cancelled);
    assert_eq!(states(&workspace, "'slow'"), ["CANCELED"]);
    assert!(states(&workspace, "'never'").is_empty());
    // Somebody else stops it, in the workspace.
    let running = tokio::spawn(async move { (failed(&mut *session, "select 'killed'").await, session) });
    until(|| states(&workspace, "'killed'") == ["RUNNING"]).await;
    workspace.set(&json!({"kill": true}));
    let (killed, mut session) = timeout(LONG, running).await.expect("it ends").unwrap();
    assert_eq!(killed.kind, ErrorKind::Cancelled, "{killed}");
    // A session goes on afterwards.
    workspace.set(&json!({"slow": 0}));
    assert_eq!(number(&mut *session, "select count(*) from t").await, 0);
    // A result that is being read.
    let canceller = session.canceller();
    let mut stream = session.query(&sql(HUNDRED_THOUSAND)).await.unwrap();
    stream.try_next().await.unwrap().expect("a batch");
    canceller.cancel().await.unwrap();
    assert_eq!(stream.try_next().await.unwrap_err().kind, ErrorKind::Cancelled);
}

#[tokio::test]
async fn what_nobody_waits_for_is_stopped() {
    let workspace = workspace();
    let warehouse = at(&workspace);
    let mut session = open(&*warehouse).await;
    workspace.set(&json!({"slow": 3600}));
    let running = tokio::spawn(async move { failed(&mut *session, "select 'dropped'").await });
    until(|| states(&workspace, "'dropped'") == ["RUNNING"]).await;
    running.abort();
    until(|| states(&workspace, "'dropped'") == ["CANCELED"]).await;
}

#[tokio::test]
async fn statements_of_a_dead_process_are_found_and_stopped() {
    let workspace = workspace();
    let warehouse = at(&workspace);
    let (mut one, mut other) = (open(&*warehouse).await, open(&*warehouse).await);
    let dead = one.id().unwrap();
    workspace.set(&json!({"slow": 3600}));
    let left = tokio::spawn(async move { failed(&mut *one, "select 'left'").await });
    let alive = tokio::spawn(async move { rows(&mut *other, "select 'alive'").await });
    until(|| states(&workspace, "'left'") == ["RUNNING"] && states(&workspace, "'alive'") == ["RUNNING"])
        .await;
    timeout(LONG, warehouse.terminate(&dead)).await.expect("it returns").unwrap();
    assert_eq!(states(&workspace, "'left'"), ["CANCELED"]);
    assert_eq!(states(&workspace, "'alive'"), ["RUNNING"]);
    assert_eq!(left.await.unwrap().kind, ErrorKind::Cancelled);
    alive.abort();
    warehouse.terminate(&dead).await.unwrap();
    let none = warehouse.terminate("levin_%").await.unwrap_err();
    assert_eq!(none.kind, ErrorKind::Invalid);
}

#[tokio::test]
async fn rights_and_tables_that_are_missing_are_told() {
    let workspace = workspace();
    let warehouse = at(&workspace);
    let mut session = open(&*warehouse).await;
    table(&mut *session).await;
    workspace.set(&json!({"may_create": false}));
    let steps = [("create table other as select * from t", Expect::Any)];
    let denied = session.execute(&script(Atomicity::Separate, &steps)).await.unwrap_err();
    assert_eq!(denied.kind, ErrorKind::Permission, "{denied}");
    assert!(denied.message.contains("other"), "{denied}");
    assert_eq!(number(&mut *session, "select count(*) from t").await, 0, "reading is another right");
    workspace.set(&json!({"may_create": true, "sql": "drop table t"}));
    let gone = failed(&mut *session, "select * from t").await;
    assert_eq!((gone.kind, gone.code.as_deref()), (ErrorKind::NotFound, Some("42P01")), "{gone}");
}

#[tokio::test]
async fn a_statement_that_another_write_undid_is_run_again() {
    let workspace = workspace();
    let warehouse = at(&workspace);
    let mut session = open(&*warehouse).await;
    table(&mut *session).await;
    run(&mut *session, &["insert into t values (1, 'a')"]).await;
    workspace.set(&json!({"conflicts": 2}));
    let steps = [("update t set v = 'b' where id = 1", Expect::OneRow)];
    session.execute(&script(Atomicity::Transaction, &steps)).await.unwrap();
    assert_eq!(states(&workspace, "set v = 'b'"), ["FAILED", "FAILED", "SUCCEEDED"]);
    workspace.set(&json!({"conflicts": 100}));
    let busy = session.execute(&script(Atomicity::Transaction, &steps)).await.unwrap_err();
    assert_eq!(busy.kind, ErrorKind::Busy, "{busy}");
}
