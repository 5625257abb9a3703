//! What MariaDB alone does.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tests::mariadb::{MariadbServer, run, texts};

use super::*;

/// The server gives up a client that takes nothing for `net_write_timeout`, a minute unless it was set.
#[tokio::test]
async fn a_result_waits_for_a_reader_who_takes_his_time() {
    let server = MariadbServer::start();
    let url = server.url(&server.fresh_database());
    let source = source("mariadb", json!({"url": url}), Path::new("/")).unwrap();
    let before = texts(&url, "select @@global.net_write_timeout").remove(0).expect("a number");
    run(&url, "set global net_write_timeout = 1");
    let mut session = open(&*source).await;
    run(&url, &format!("set global net_write_timeout = {before}"));
    // Far more than the buffers on the way hold.
    let select = sql("select seq, repeat('x', 1000) as v from seq_1_to_60000");
    let mut stream = session.query(&select).await.unwrap();
    let mut read = stream.try_next().await.unwrap().expect("a batch").num_rows();
    tokio::time::sleep(Duration::from_secs(3)).await;
    while let Some(batch) = stream.try_next().await.unwrap() {
        read += batch.num_rows();
    }
    assert_eq!(read, 60_000);
}
