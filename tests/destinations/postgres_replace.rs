//! `replace: true`: the content changes at once, or not at all.

use super::*;

#[tokio::test]
async fn replacing_shows_the_old_content_until_the_end_and_then_the_new() {
    let url = PostgresServer::start().fresh_database();
    execute(&url, &format!("{CUSTOMERS}; insert into customers values (1, 'old'), (9, 'old')"));
    let destination = destination(&url);
    let rows = customers(
        Operation::Added,
        &[(1, Some("a")), (2, Some("far too long")), (1, Some("twice")), (3, None)],
    );
    let sync = DeliverySpec { options: json!({"replace": true}), ..spec(Mode::All, "customers", &rows) };
    destination.check(Some(&sync)).await.unwrap();
    let shown = "select id, name from customers order by id";

    let delivery = destination.open(&sync, &facts()).await.unwrap();
    let settled = settle(destination.as_ref(), delivery.as_ref(), &rows).await;
    assert_eq!(words(&settled.outcomes), ["deferred", Rejection::REFUSED, Rejection::REFUSED, "deferred"]);
    let more = customers(Operation::Added, &[(4, Some("d"))]);
    assert_eq!(words(&delivery.deliver(&more).await.outcomes), ["deferred"]);
    assert_eq!(rows_of(&url, shown).await, ["1|old", "9|old"], "readers see nothing of it");
    assert_eq!(delivery.close(true).await.unwrap(), Some(RowOutcome::Accepted));
    assert_eq!(rows_of(&url, shown).await, ["1|a", "3|∅", "4|d"]);

    // Given up, by being told or by being dropped: the content stays.
    for told in [true, false] {
        let delivery = destination.open(&sync, &facts()).await.unwrap();
        delivery.deliver(&customers(Operation::Added, &[(7, None)])).await;
        if told {
            assert_eq!(delivery.close(false).await.unwrap(), Some(RowOutcome::NotSent));
        } else {
            drop(delivery);
        }
        assert_eq!(rows_of(&url, shown).await, ["1|a", "3|∅", "4|d"]);
    }

    // No rows are a content too.
    let delivery = destination.open(&sync, &facts()).await.unwrap();
    assert_eq!(delivery.close(true).await.unwrap(), Some(RowOutcome::Accepted));
    assert!(rows_of(&url, shown).await.is_empty());
    assert_eq!(
        destination.validate(&DeliverySpec { mode: Mode::Upsert, ..sync.clone() }).unwrap_err().path,
        "replace"
    );
}

#[tokio::test]
async fn a_replacement_whose_connection_is_lost_stops_and_changes_nothing() {
    let url = PostgresServer::start().fresh_database();
    execute(&url, &format!("{CUSTOMERS}; insert into customers values (1, 'old')"));
    let destination = destination(&url);
    let rows = customers(Operation::Added, &[(2, Some("a"))]);
    let sync = DeliverySpec { options: json!({"replace": true}), ..spec(Mode::All, "customers", &rows) };
    let delivery = destination.open(&sync, &facts()).await.unwrap();
    assert_eq!(words(&delivery.deliver(&rows).await.outcomes), ["deferred"]);
    execute(
        &url,
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'levin/%' and datname = current_database()",
    );
    // What was collected is gone: going on would leave it out.
    for _ in 0..2 {
        let delivered = delivery.deliver(&customers(Operation::Added, &[(3, None)])).await;
        assert_eq!(words(&delivered.outcomes), ["not sent"]);
        assert!(matches!(delivered.error, Some(DeliveryError::Unauthorized { .. })), "{delivered:?}");
    }
    assert!(delivery.close(true).await.is_err());
    assert_eq!(rows_of(&url, "select id, name from customers").await, ["1|old"]);

    // A foreign key is looked at when the content is exchanged.
    execute(&url, "create table orders (customer int references customers); insert into orders values (1)");
    let delivery = destination.open(&sync, &facts()).await.unwrap();
    delivery.deliver(&rows).await;
    let error = delivery.close(true).await.unwrap_err().to_string();
    assert!(error.contains("orders_customer_fkey"), "{error}");
    assert_eq!(rows_of(&url, "select id, name from customers").await, ["1|old"]);
}
