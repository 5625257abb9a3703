//! Every way to log in, with credentials that the double checks.

use super::*;

async fn refused(warehouse: &Arc<dyn Warehouse>) -> WarehouseError {
    let tag = connectors::warehouse::Tag { sync: "s".into(), run: None, stage: "check" };
    warehouse.session(&tag).await.err().expect("nobody gets in")
}

#[tokio::test]
async fn a_password_is_told_apart() {
    let user = user();
    assert_eq!(number(&mut *open(&*at(&user)).await, "select 7").await, 7);
    let failed = refused(&with(&user, &json!({"auth": {"password": "wr0ng-horse"}}))).await;
    assert_eq!(failed.kind, ErrorKind::Authentication, "{failed}");
    assert!(failed.message.contains("auth") && !failed.message.contains("wr0ng-horse"), "{failed}");
    let failed = refused(&with(&user, &json!({"user": "NOBODY"}))).await;
    assert_eq!(failed.kind, ErrorKind::Authentication, "{failed}");
}

#[tokio::test]
async fn a_key_pair_signs_a_token_that_holds() {
    let double = SnowflakeDouble::start();
    let user = user();
    for encrypted in [None, Some(("aes-256-cbc", "open sesame")), Some(("des3", "open sesame"))] {
        let (private, public) = double.key_pair(encrypted);
        user.set(&json!({"public_key": public}));
        let mut auth = json!({"private_key": private});
        if let Some((cipher, passphrase)) = encrypted {
            auth["private_key_passphrase"] = json!("wr0ng");
            let mut config = user.source();
            config.as_object_mut().unwrap().remove("type");
            config["auth"] = auth.clone();
            let wrong = source("snowflake", config, Path::new("/")).unwrap_err();
            assert_eq!(wrong.path, "auth.private_key", "{cipher}");
            assert!(
                wrong.message.contains("private_key_passphrase") && !wrong.message.contains("wr0ng"),
                "{wrong}"
            );
            auth["private_key_passphrase"] = json!(passphrase);
        }
        let mut session = open(&*with(&user, &json!({"auth": auth}))).await;
        assert_eq!(number(&mut *session, "select 7").await, 7);
    }
    assert!(user.told()["logins"].as_array().unwrap().iter().all(|login| login["how"] == "SNOWFLAKE_JWT"));

    // Somebody else's key, another user, another account's name: the claims are looked at.
    let (other, _) = double.key_pair(None);
    let failed = refused(&with(&user, &json!({"auth": {"private_key": other}}))).await;
    assert_eq!(
        (failed.kind, failed.code.as_deref()),
        (ErrorKind::Authentication, Some("390144")),
        "{failed}"
    );
    assert!(failed.message.contains("RSA_PUBLIC_KEY"), "{failed}");
}

#[tokio::test]
async fn a_clock_that_is_wrong_does_not_keep_a_key_pair_out() {
    let user = user();
    let (private, public) = SnowflakeDouble::start().key_pair(None);
    user.set(&json!({"public_key": public}));
    let warehouse = with(&user, &json!({"auth": {"private_key": private}}));
    // The service is ahead, so that a token of this machine's has expired; or behind, so that it is not valid yet.
    for ahead in [3_600, -3_600] {
        user.set(&json!({"clock_ahead": ahead}));
        let before = user.told()["requests"]["connect"].as_u64().unwrap_or(0);
        assert_eq!(number(&mut *open(&*warehouse).await, "select 7").await, 7, "{ahead} s");
        assert_eq!(user.told()["requests"]["connect"].as_u64().unwrap(), before + 2, "{ahead} s");
    }
    // It is refused although the clocks agree.
    user.set(&json!({"clock_ahead": 0, "troubles": [
        {"at": "login", "times": 9, "code": "394302", "message": "JWT token is not yet valid."}
    ]}));
    let failed = refused(&warehouse).await;
    assert_eq!(failed.kind, ErrorKind::Authentication);
    assert!(failed.message.contains("clock"), "{failed}");
}

#[tokio::test]
async fn a_programmatic_access_token_is_enough() {
    let user = user();
    user.set(&json!({"token": "pat-0123456789"}));
    let mut session = open(&*with(&user, &json!({"auth": {"token": "pat-0123456789"}}))).await;
    assert_eq!(number(&mut *session, "select 7").await, 7);
    assert_eq!(user.told()["logins"][0]["how"], "PROGRAMMATIC_ACCESS_TOKEN");
    let failed = refused(&with(&user, &json!({"auth": {"token": "pat-expired"}}))).await;
    assert_eq!(failed.kind, ErrorKind::Authentication);
    assert!(failed.message.contains("auth.token") && !failed.message.contains("pat-expired"), "{failed}");
}

#[tokio::test]
async fn oauth_takes_a_token_or_gets_one() {
    let user = user();
    user.set(&json!({"oauth": "given"}));
    let mut session = open(&*with(&user, &json!({"auth": {"oauth": {"token": "given"}}}))).await;
    assert_eq!(number(&mut *session, "select 7").await, 7);
    let failed = refused(&with(&user, &json!({"auth": {"oauth": {"token": "stolen-0"}}}))).await;
    assert_eq!(failed.kind, ErrorKind::Authentication);
    assert!(failed.message.contains("auth.oauth") && !failed.message.contains("stolen-0"), "{failed}");

    let client = |secret: &str| {
        json!({"auth": {"oauth": {
            "token_url": format!("{}/double/oauth/token", SnowflakeDouble::start().url()),
            "client_id": user.name, "client_secret": secret, "scope": "session:role:LEVIN"
        }}})
    };
    let warehouse = with(&user, &client(tests::snowflake::PASSWORD));
    for _ in 0..3 {
        assert_eq!(number(&mut *open(&*warehouse).await, "select 7").await, 7);
    }
    assert_eq!(user.told()["requests"]["oauth"], 1, "one token serves all sessions");
    // The token is not taken any more: another one is asked for, once.
    user.set(&json!({"oauth": "another"}));
    assert_eq!(number(&mut *open(&*warehouse).await, "select 7").await, 7);
    assert_eq!(user.told()["requests"]["oauth"], 2);
    let failed = refused(&with(&user, &client("wr0ng-secret"))).await;
    assert_eq!(failed.kind, ErrorKind::Authentication);
    assert!(failed.message.contains("token server") && !failed.message.contains("wr0ng-secret"), "{failed}");
}

#[tokio::test]
async fn an_account_or_host_that_is_not_there_is_named() {
    let user = user();
    let failed = refused(&with(&user, &json!({"account": "nobody.eu-central-1"}))).await;
    assert_eq!(failed.kind, ErrorKind::Unreachable);
    assert!(
        failed.message.contains("nobody.eu-central-1") && failed.message.contains("`account`"),
        "{failed}"
    );

    let failed = refused(&with(&user, &json!({"host": "http://127.0.0.1:1"}))).await;
    assert_eq!(failed.kind, ErrorKind::Unreachable);
    assert!(failed.message.contains("127.0.0.1:1"), "{failed}");

    // Somebody else answers there.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            use std::io::{Read, Write};
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 65_536]);
            let _ =
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello");
        }
    });
    let failed = refused(&with(&user, &json!({"host": host}))).await;
    assert_eq!(failed.kind, ErrorKind::Unreachable);
    assert!(failed.message.contains("not how Snowflake answers"), "{failed}");

    // A host that says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = format!("http://{}", silent.local_addr().unwrap());
    let failed = refused(&with(&user, &json!({"host": host, "connect_timeout": "200ms"}))).await;
    assert_eq!(failed.kind, ErrorKind::Unreachable);
    assert!(failed.message.contains("no answer"), "{failed}");
}

#[tokio::test]
async fn what_a_session_cannot_have_is_told_at_once() {
    let user = user();
    user.set(&json!({"roles": ["LEVIN"], "warehouses": ["SMALL"]}));
    let failed = refused(&with(&user, &json!({"role": "BOSS"}))).await;
    assert_eq!((failed.kind, failed.code.as_deref()), (ErrorKind::Permission, Some("390189")), "{failed}");
    assert!(failed.message.contains("BOSS"), "{failed}");
    let failed = refused(&with(&user, &json!({"role": "LEVIN"}))).await;
    assert_eq!(failed.kind, ErrorKind::Permission);
    assert!(failed.message.contains("grant usage on warehouse LEVIN_WH to role LEVIN"), "{failed}");
    let failed = refused(&with(&user, &json!({"warehouse": "SMALL", "database": "NO_SUCH"}))).await;
    assert_eq!(failed.kind, ErrorKind::Permission);
    assert!(failed.message.contains("database `NO_SUCH`"), "{failed}");

    // No warehouse is asked for, and the user has none: only statements that need one fail.
    let mut session = open(&*with(&user, &json!({"warehouse": null}))).await;
    let failed = super::failed(&mut *session, "select 1").await;
    assert_eq!((failed.kind, failed.code.as_deref()), (ErrorKind::Unreachable, Some("000606")), "{failed}");
    assert!(failed.message.contains("set `warehouse`"), "{failed}");
}
