//! What goes wrong on the way, and at the service.

use super::*;

#[tokio::test]
async fn a_running_statement_can_be_cancelled() {
    let user = user();
    let warehouse = at(&user);
    for statement in [WAIT, ENDLESS] {
        let mut session = open(&*warehouse).await;
        let canceller = session.canceller();
        let running = tokio::spawn(async move {
            let result = rows(&mut *session, statement).await;
            (result, session)
        });
        until(|| ran(&user, statement).contains(&"running".to_owned())).await;
        canceller.cancel().await.unwrap();
        let (result, mut session) = running.await.unwrap();
        assert_eq!(result.unwrap_err().kind, ErrorKind::Cancelled);
        // The answer may be here before the server's own history says so.
        until(|| ran(&user, statement) == ["aborted"]).await;
        // The session goes on, and a late request to cancel hits nothing.
        canceller.cancel().await.unwrap();
        assert_eq!(number(&mut *session, "select 7").await, 7);
    }
    // A stream that is cancelled ends.
    user.set(&json!({"chunk_rows": 1000}));
    let mut session = open(&*warehouse).await;
    let canceller = session.canceller();
    let mut stream = session.query(&sql(MILLION)).await.unwrap();
    stream.try_next().await.unwrap().unwrap();
    canceller.cancel().await.unwrap();
    let cancelled = loop {
        match stream.try_next().await {
            Ok(rows) => assert!(rows.is_some(), "the stream ended as if it was whole"),
            Err(error) => break error,
        }
    };
    assert_eq!(cancelled.kind, ErrorKind::Cancelled);
    drop(stream);
    let script = script(Atomicity::Transaction, &[("select 1", Expect::Any), (WAIT, Expect::Any)]);
    let running = tokio::spawn(async move { session.execute(&script).await });
    until(|| ran(&user, WAIT).contains(&"running".to_owned())).await;
    canceller.cancel().await.unwrap();
    let failed = running.await.unwrap().unwrap_err();
    assert_eq!((failed.kind, failed.step.as_deref()), (ErrorKind::Cancelled, Some("step 2")));
    until(|| user.told()["sessions"].as_array().unwrap().is_empty()).await;
}

#[tokio::test]
async fn a_script_whose_caller_went_away_is_undone() {
    let user = user();
    let warehouse = at(&user);
    let mut session = open(&*warehouse).await;
    run(&mut *session, &["create table t (n bigint)"]).await;
    let before = session.id().unwrap();
    let endless =
        script(Atomicity::Transaction, &[("insert into t values (1)", Expect::Any), (WAIT, Expect::Any)]);
    tokio::select! {
        result = session.execute(&endless) => panic!("ended: {result:?}"),
        () = until(|| ran(&user, WAIT).contains(&"running".to_owned())) => {}
    }
    // The session goes on as another one; the old one ends, its statement and its row with it.
    assert_eq!(number(&mut *session, "select count(*) from t").await, 0);
    assert_ne!(session.id().unwrap(), before);
    until(|| ran(&user, WAIT) == ["aborted"]).await;
    until(|| !user.told()["sessions"].as_array().unwrap().contains(&json!(before))).await;
    assert_eq!(number(&mut *session, "select count(*) from t").await, 0);
    // A session that nobody needs any more leaves nothing behind either.
    drop(session);
    until(|| user.told()["sessions"].as_array().unwrap().is_empty()).await;
}

#[tokio::test]
async fn a_statement_runs_once_however_often_it_is_sent() {
    let user = user();
    let warehouse = at(&user);
    let mut session = open(&*warehouse).await;
    run(&mut *session, &["create table t (n bigint)"]).await;
    for (number_of, troubles) in [
        (1, json!([{"at": "query", "times": 2, "status": 503}])),
        (2, json!([{"at": "query", "times": 1, "status": 429, "retry_after": "0"}])),
        (3, json!([{"at": "query", "times": 2, "cut": "before"}])),
        (4, json!([{"at": "query", "times": 2, "cut": "after"}])),
        (5, json!([{"at": "query", "times": 1, "status": 500, "body": "<html>sorry</html>"}])),
    ] {
        user.set(&json!({"troubles": troubles}));
        let effect = session
            .execute(&script(Atomicity::Separate, &[("insert into t values (1)", Expect::OneRow)]))
            .await
            .unwrap_or_else(|e| panic!("{troubles}: {e}"));
        assert_eq!(effect.rows("step 1"), Some(1));
        assert_eq!(number(&mut *session, "select count(*) from t").await, number_of, "{troubles}");
    }
    // A whole transaction, whose commit is answered too late.
    user.set(&json!({"troubles": [{"at": "query", "times": 3, "skip": 1, "cut": "after"}]}));
    let steps = [("insert into t values (1)", Expect::OneRow), ("insert into t values (2)", Expect::OneRow)];
    session.execute(&script(Atomicity::Transaction, &steps)).await.unwrap();
    assert_eq!(number(&mut *session, "select count(*) from t").await, 7);
    // The answer comes later, and the way there is bad too.
    user.set(&json!({"patience": 0.05, "troubles": [
        {"at": "result", "times": 1, "status": 502}, {"at": "result", "times": 1, "cut": "before"},
        {"at": "result", "times": 1, "status": 429, "retry_after": "0"},
    ]}));
    run(&mut *session, &["select system$wait(1)"]).await;
    assert_eq!(ran(&user, "select system$wait"), ["done"]);
}

#[tokio::test]
async fn who_does_not_answer_at_all_is_given_up() {
    let user = user();
    let warehouse = with(&user, &json!({"network_timeout": "3s"}));
    let mut session = open(&*warehouse).await;
    user.set(&json!({"troubles": [{"at": "query", "times": 1000, "status": 503}]}));
    let failed = failed(&mut *session, "select 1").await;
    assert_eq!(failed.kind, ErrorKind::ConnectionLost);
    assert!(failed.message.contains("503"), "{failed}");
    user.set(&json!({"troubles": []}));
    // And so it stays: nobody knows what ran.
    assert_eq!(error(&mut *session, "select 1").await.kind, ErrorKind::ConnectionLost);
    assert_eq!(number(&mut *open(&*at(&user)).await, "select 7").await, 7);
}

#[tokio::test]
async fn logging_in_waits_for_a_service_that_is_busy() {
    let user = user();
    user.set(&json!({"troubles": [{"at": "connect", "times": 2, "status": 503},
        {"at": "connect", "times": 1, "status": 429, "retry_after": "0"}]}));
    assert_eq!(number(&mut *open(&*at(&user)).await, "select 7").await, 7);
    user.set(&json!({"troubles": [{"at": "connect", "times": 1000, "status": 503}]}));
    let warehouse = with(&user, &json!({"connect_timeout": "3s"}));
    let tag = connectors::warehouse::Tag { sync: "s".into(), run: None, stage: "check" };
    let failed = warehouse.session(&tag).await.err().unwrap();
    assert_eq!(failed.kind, ErrorKind::Unreachable);
    assert!(failed.message.contains("503"), "{failed}");
}

#[tokio::test]
async fn a_session_outlives_its_tokens() {
    let user = user();
    let warehouse = at(&user);
    let mut session = open(&*warehouse).await;
    run(&mut *session, &["create table t (n bigint)"]).await;
    let id = session.id();
    user.set(&json!({"expire": "session"}));
    assert_eq!(number(&mut *session, "select 7").await, 7);
    assert_eq!((session.id(), user.told()["requests"]["renew"].as_u64()), (id.clone(), Some(1)));
    // In the middle of a statement that takes its time.
    user.set(&json!({"patience": 0.05}));
    let expire = user.clone();
    let (done, ()) = tokio::join!(rows(&mut *session, "select system$wait(1)"), async {
        until(|| ran(&expire, "select system$wait").contains(&"running".to_owned())).await;
        expire.set(&json!({"expire": "session"}));
    });
    done.unwrap();
    assert_eq!(ran(&user, "select system$wait"), ["done"]);
    // In the middle of a transaction.
    let steps = [("insert into t values (1)", Expect::Any), ("select system$wait(1)", Expect::Any)];
    let script = script(Atomicity::Transaction, &steps);
    let (done, ()) = tokio::join!(session.execute(&script), async {
        until(|| ran(&expire, "select system$wait").contains(&"running".to_owned())).await;
        expire.set(&json!({"expire": "session"}));
    });
    done.unwrap();
    assert_eq!(number(&mut *session, "select count(*) from t").await, 1);
    assert_eq!(session.id(), id);
}

#[tokio::test]
async fn a_session_that_ran_out_is_replaced_unless_something_is_lost_with_it() {
    let user = user();
    let warehouse = at(&user);
    let mut session = open(&*warehouse).await;
    run(&mut *session, &["create table t (n bigint)"]).await;
    let id = session.id();
    user.set(&json!({"expire": "master"}));
    assert_eq!(number(&mut *session, "select 7").await, 7);
    assert_ne!(session.id(), id);

    user.set(&json!({"patience": 0.05}));
    let steps = [("insert into t values (1)", Expect::Any), ("select system$wait(1)", Expect::Any)];
    let script = script(Atomicity::Transaction, &steps);
    let (lost, ()) = tokio::join!(session.execute(&script), async {
        until(|| ran(&user, "select system$wait").contains(&"running".to_owned())).await;
        user.set(&json!({"expire": "master"}));
    });
    assert_eq!(lost.unwrap_err().kind, ErrorKind::ConnectionLost);
    assert_eq!(number(&mut *open(&*warehouse).await, "select count(*) from t").await, 0);
}

#[tokio::test]
async fn terminate_ends_exactly_the_session_it_is_given() {
    let user = user();
    let warehouse = at(&user);
    let (mut victim, mut other) = (open(&*warehouse).await, open(&*warehouse).await);
    run(&mut *other, &["create table t (n bigint)"]).await;
    let id = victim.id().unwrap();
    for nonsense in ["", "nonsense", "1; drop table t"] {
        assert_eq!(warehouse.terminate(nonsense).await.unwrap_err().kind, ErrorKind::Invalid);
    }
    warehouse.terminate("1").await.unwrap();
    let waits =
        script(Atomicity::Transaction, &[("insert into t values (1)", Expect::Any), (WAIT, Expect::Any)]);
    let running = tokio::spawn(async move { (victim.execute(&waits).await, victim) });
    until(|| ran(&user, WAIT).contains(&"running".to_owned())).await;
    warehouse.terminate(&id).await.unwrap();
    let (result, mut victim) = running.await.unwrap();
    assert!(result.is_err());
    assert_eq!(number(&mut *other, "select count(*) from t").await, 0);
    // And so it stays: what the session stood for may have been taken over.
    assert_eq!(error(&mut *victim, "insert into t values (2)").await.kind, ErrorKind::ConnectionLost);
    warehouse.terminate(&id).await.unwrap();
    assert_eq!(number(&mut *other, "select count(*) from t").await, 0);
}

#[tokio::test]
async fn what_the_service_stops_is_told_apart() {
    let user = user();
    let warehouse = at(&user);
    let mut session = open(&*warehouse).await;
    for (code, state, message, kind, next) in [
        ("000604", "57014", "SQL execution canceled", ErrorKind::Cancelled, ""),
        (
            "000630",
            "57014",
            "Statement reached its statement or warehouse timeout of 10 second(s) and was canceled.",
            ErrorKind::TookTooLong,
            "",
        ),
        (
            "090073",
            "22000",
            "Warehouse 'LEVIN_WH' cannot be resumed because resource monitor 'M' has exceeded its quota.",
            ErrorKind::OutOfSpace,
            "quota",
        ),
        (
            "003001",
            "42501",
            "SQL access control error:\nInsufficient privileges to operate on table 'T'",
            ErrorKind::Permission,
            "table 'T'",
        ),
        (
            "000625",
            "57014",
            "Statement '01b' has locked table 'T' in transaction 7",
            ErrorKind::Busy,
            "holds",
        ),
        ("000603", "XX000", "SQL execution internal error", ErrorKind::Other, ""),
    ] {
        user.set(
            &json!({"troubles": [{"at": "statement", "code": code, "sql_state": state, "message": message}]}),
        );
        let failed = failed(&mut *session, "select 1").await;
        assert_eq!((failed.kind, failed.code.as_deref()), (kind, Some(code)), "{failed}");
        assert!(failed.message.contains(next) && !failed.message.contains('\n'), "{failed}");
        assert_eq!(number(&mut *session, "select 7").await, 7, "the session goes on");
    }
}

#[tokio::test]
async fn chunks_that_do_not_come_are_asked_for_again() {
    let user = user();
    user.set(&json!({"inline_rows": 100, "chunk_rows": 1000}));
    let warehouse = at(&user);
    let select = "select seq4() as n from table(generator(rowcount => 5000))";
    for troubles in [
        json!([{"at": "chunk", "times": 1, "skip": 1, "status": 503}]),
        json!([{"at": "chunk", "times": 1, "skip": 1, "cut": "before"}]),
        json!([{"at": "chunk", "times": 1, "skip": 1, "cut": "after"}]),
        // Its address has expired, and the service gives out another.
        json!([{"at": "chunk", "times": 1, "skip": 1, "status": 403, "body": "<Code>AccessDenied</Code>"}]),
    ] {
        let mut session = open(&*warehouse).await;
        user.set(&json!({"troubles": troubles}));
        let all = rows(&mut *session, select).await.unwrap_or_else(|e| panic!("{troubles}: {e}"));
        let numbers: Vec<i64> =
            all.iter().flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec()).collect();
        assert_eq!(numbers, (0..5000).collect::<Vec<i64>>(), "{troubles}");
    }
    for (troubles, said) in [
        (json!([{"at": "chunk", "times": 1000, "skip": 1, "status": 503}]), "503"),
        (json!([{"at": "chunk", "times": 1000, "skip": 1, "status": 403}]), "403"),
    ] {
        let mut session = open(&*with(&user, &json!({"network_timeout": "5s"}))).await;
        user.set(&json!({"troubles": troubles}));
        let failed = failed(&mut *session, select).await;
        assert_eq!(failed.kind, ErrorKind::ConnectionLost, "{failed}");
        assert!(failed.message.contains(said) && !failed.message.contains("s3cr3t"), "{failed}");
    }
}

#[tokio::test]
async fn a_result_with_fewer_rows_than_were_counted_is_no_result() {
    let user = user();
    user.set(&json!({"inline_rows": 100, "chunk_rows": 1000, "loses": 1}));
    for json in [false, true] {
        user.set(&json!({"json_results": json}));
        let mut session = open(&*at(&user)).await;
        let failed =
            failed(&mut *session, "select seq4() as n from table(generator(rowcount => 5000))").await;
        assert_eq!(failed.kind, ErrorKind::Other, "{failed}");
        assert!(failed.message.contains("rows"), "{failed}");
    }
}
