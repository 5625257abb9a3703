//! `sslmode` as libpq means it, against a server with certificates.

use std::path::Path;

use connectors::warehouse::{ErrorKind, Tag, WarehouseError};
use serde_json::json;
use tests::postgres::{Certificates, PostgresServer};

use super::{number, open, source};

async fn connect(url: &str) -> Result<(), WarehouseError> {
    let tag = Tag { sync: "s".into(), run: None, stage: "check" };
    source("postgres", json!({"url": url}), Path::new("/")).unwrap().session(&tag).await.map(drop)
}

#[tokio::test]
async fn every_sslmode_verifies_what_it_says() {
    let certificates = Certificates::new();
    let server = PostgresServer::launch(Some(&certificates));
    let (right, wrong) = (certificates.authority(), certificates.other_authority());
    let by_name = server.url("postgres").replace("127.0.0.1", "localhost");
    let by_number = server.url("postgres");
    let with = |url: &str, mode: &str, root: Option<&Path>| {
        let root = root.map(|r| format!("&sslrootcert={}", r.display())).unwrap_or_default();
        format!("{url}?sslmode={mode}{root}")
    };
    for url in [
        with(&by_name, "disable", None),
        with(&by_name, "allow", None),
        with(&by_name, "prefer", None),
        with(&by_name, "require", None),
        with(&by_number, "require", Some(&right)),
        with(&by_number, "verify-ca", Some(&right)),
        with(&by_name, "verify-full", Some(&right)),
        // libpq: prefer falls back to a connection without encryption.
        with(&by_name, "prefer", Some(&wrong)),
    ] {
        connect(&url).await.unwrap_or_else(|e| panic!("{url}: {e}"));
    }
    for url in [
        with(&by_number, "verify-full", Some(&right)),
        with(&by_name, "verify-full", Some(&wrong)),
        with(&by_name, "verify-ca", Some(&wrong)),
        with(&by_name, "require", Some(&wrong)),
        with(&by_name, "verify-full", None),
        with(&by_name, "verify-full", Some(Path::new("/no/such/file.pem"))),
    ] {
        let error = connect(&url).await.expect_err(&url);
        assert_eq!(error.kind, ErrorKind::Unreachable, "{url}: {error}");
        assert!(error.message.contains("TLS") || error.message.contains("sslrootcert"), "{error}");
    }
    let encrypted = "select count(*) from pg_stat_ssl where pid = pg_backend_pid() and ssl";
    for (mode, expected) in [("disable", 0), ("allow", 0), ("prefer", 1), ("require", 1)] {
        let source = source("postgres", json!({"url": with(&by_name, mode, None)}), Path::new("/")).unwrap();
        assert_eq!(number(&mut *open(&*source).await, encrypted).await, expected, "{mode}");
    }
    // The request to cancel travels encrypted as well.
    let url = with(&by_name, "verify-full", Some(&right));
    let source = source("postgres", json!({"url": url}), Path::new("/")).unwrap();
    super::postgres::can_be_cancelled(&*source).await;
}

#[tokio::test]
async fn a_server_without_tls_is_refused_by_require() {
    let url = PostgresServer::start().url("postgres");
    assert_eq!(connect(&format!("{url}?sslmode=require")).await.unwrap_err().kind, ErrorKind::Unreachable);
    connect(&format!("{url}?sslmode=prefer")).await.unwrap();
}
