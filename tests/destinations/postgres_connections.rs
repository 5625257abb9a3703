//! Connections that are cut, dropped, slow and reused.

use super::*;
use crate::cut::{Cut, Way};

fn server_address(url: &str) -> SocketAddr {
    url.split_once('@').unwrap().1.split_once('/').unwrap().0.parse().unwrap()
}

#[tokio::test]
async fn a_connection_lost_before_the_commit_was_sent_is_certain_and_repeated() {
    let url = PostgresServer::start().fresh_database();
    execute(&url, CUSTOMERS);
    let way = Way::to(server_address(&url), Cut::BeforeApplying).await;
    let destination = destination(&through(&url, way.address));
    let rows = customers(Operation::Added, &[(1, Some("a")), (2, Some("b"))]);
    let sync = spec(Mode::Insert, "customers", &rows);
    let delivery = destination.open(&sync, &facts()).await.unwrap();
    way.arm();
    let delivered = delivery.deliver(&rows).await;
    assert_eq!(words(&delivered.outcomes), ["not sent"; 2]);
    assert!(
        matches!(delivered.error, Some(DeliveryError::Unavailable { answered: false, .. })),
        "{delivered:?}"
    );
    assert!(rows_of(&url, "select * from customers").await.is_empty());
    way.arm();
    let settled = settle(destination.as_ref(), delivery.as_ref(), &rows).await;
    assert_eq!((words(&settled.outcomes), settled.retries), (vec!["accepted"; 2], 1));
    assert_eq!(rows_of(&url, "select id from customers order by id").await, ["1", "2"]);
}

#[tokio::test]
async fn a_connection_lost_while_the_commit_is_awaited_leaves_rows_in_doubt() {
    let url = PostgresServer::start().fresh_database();
    execute(&url, CUSTOMERS);
    let way = Way::to(server_address(&url), Cut::AfterCommit).await;
    let destination = destination(&through(&url, way.address));
    let rows = customers(Operation::Added, &[(1, Some("a")), (2, Some("b"))]);
    let sync = spec(Mode::Insert, "customers", &rows);
    let delivery = destination.open(&sync, &facts()).await.unwrap();
    way.arm();
    let delivered = delivery.deliver(&rows).await;
    assert_eq!(words(&delivered.outcomes), ["in doubt"; 2]);
    assert!(
        matches!(delivered.error, Some(DeliveryError::Unavailable { answered: false, .. })),
        "{delivered:?}"
    );
    assert_eq!(rows_of(&url, "select id from customers order by id").await, ["1", "2"], "it was committed");

    // An upsert repeats it and comes to the same; a plain insert says so.
    way.arm();
    let upsert = spec(Mode::Upsert, "customers", &rows);
    let settled = deliver(destination.as_ref(), &upsert, &rows).await;
    assert_eq!(words(&settled.outcomes), ["accepted"; 2]);
    execute(&url, "truncate customers");
    way.arm();
    let settled = settle(destination.as_ref(), delivery.as_ref(), &rows).await;
    assert!(
        settled.outcomes.iter().all(|o| matches!(o, RowOutcome::Rejected(r) if r.in_doubt)),
        "{settled:?}"
    );
}

#[tokio::test]
async fn an_attempt_that_nobody_waits_for_applies_nothing_and_frees_the_table() {
    let url = PostgresServer::start().fresh_database();
    execute(&url, CUSTOMERS);
    let destination = destination(&url);
    let rows = customers(Operation::Added, &[(1, Some("a"))]);
    let delivery = destination.open(&spec(Mode::Upsert, "customers", &rows), &facts()).await.unwrap();
    let (mut blocker, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let lock = blocker.transaction().await.unwrap();
    lock.batch_execute("lock table customers in exclusive mode").await.unwrap();
    tokio::select! {
        delivered = delivery.deliver(&rows) => panic!("the table is locked: {delivered:?}"),
        () = async {
            while lock.query("select from pg_locks where not granted", &[]).await.unwrap().is_empty() {}
        } => {}
    }
    // The waiting statement is cancelled, so it does not go on once the lock is free.
    while !lock.query("select from pg_locks where not granted", &[]).await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    lock.rollback().await.unwrap();
    assert!(rows_of(&url, "select * from customers").await.is_empty());
    assert_eq!(words(&delivery.deliver(&rows).await.outcomes), ["accepted"]);
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_given_up_in_time() {
    let url = PostgresServer::start().fresh_database();
    execute(&url, CUSTOMERS);
    let destination =
        destination_with(json!({"url": url, "statement_timeout": "200ms", "connect_timeout": "5s"}));
    assert_eq!(destination.timeout(), Duration::from_millis(10_200));
    let rows = customers(Operation::Added, &[(1, Some("a"))]);
    let delivery = destination.open(&spec(Mode::Upsert, "customers", &rows), &facts()).await.unwrap();
    let (mut blocker, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let lock = blocker.transaction().await.unwrap();
    lock.batch_execute("lock table customers in exclusive mode").await.unwrap();
    let delivered = delivery.deliver(&rows).await;
    assert_eq!(words(&delivered.outcomes), ["not sent"]);
    assert!(
        matches!(delivered.error, Some(DeliveryError::Unavailable { answered: true, .. })),
        "{delivered:?}"
    );
    lock.rollback().await.unwrap();
    assert_eq!(words(&delivery.deliver(&rows).await.outcomes), ["accepted"]);
}

#[tokio::test]
async fn connections_are_named_reused_and_replaced() {
    let url = PostgresServer::start().fresh_database();
    execute(&url, CUSTOMERS);
    let destination = destination(&url);
    let sample = customers(Operation::Added, &[(1, None)]);
    let sync = spec(Mode::Upsert, "customers", &sample);
    let delivery = destination.open(&sync, &facts()).await.unwrap();
    let sessions = "select application_name from pg_stat_activity where application_name like 'levin/%' and datname = current_database()";
    for id in 0..4 {
        let rows = customers(Operation::Added, &[(id, Some("x"))]);
        assert_eq!(words(&delivery.deliver(&rows).await.outcomes), ["accepted"]);
        assert_eq!(rows_of(&url, sessions).await, ["levin/customers-to-crm/deliver"]);
    }
    execute(
        &url,
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'levin/%' and datname = current_database()",
    );
    let settled = settle(destination.as_ref(), delivery.as_ref(), &sample).await;
    assert_eq!(words(&settled.outcomes), ["accepted"]);
    assert_eq!(rows_of(&url, "select count(*) from customers").await, ["4"]);
}
