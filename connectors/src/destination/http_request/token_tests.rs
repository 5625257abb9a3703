//! Tokens from a real server on loopback, and what becomes of requests that carry them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::super::tests::{batch, codes, deliver_to, destination, each, sync};
use crate::change::{Mode, Operation};
use crate::destination::Destination as _;
use crate::http::tests::{Received, Reply, Server};
use crate::outcome::DeliveryError;
use crate::retry::StopReason;

const SECRET: &str = "cl1ent+s3cret";

fn auth(server: &Server, more: Value) -> Value {
    let mut settings = json!({
        "token_url": server.url("/token"), "client_id": "levin", "client_secret": SECRET,
    });
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "auth": { "oauth2_client_credentials": settings } })
}

fn is_token(received: &Received) -> bool {
    received.line.starts_with("POST /token")
}

/// Gives out `token-1`, `token-2` …, each alive for so many seconds, and takes requests that carry one of `valid`.
async fn server(life: Value, valid: impl Fn(&str) -> bool + Send + Sync + 'static) -> Server {
    let given = AtomicU64::new(0);
    Server::start([], move |received| {
        if is_token(received) {
            let number = given.fetch_add(1, Ordering::SeqCst) + 1;
            let token = json!({"access_token": format!("token-{number}"), "token_type": "bearer", "expires_in": life});
            return Reply::json(200, token.to_string());
        }
        let token = received.headers.get("authorization").and_then(|a| a.strip_prefix("Bearer "));
        match token {
            Some(token) if valid(token) => Reply::status(200),
            _ => Reply::json(401, format!("{{\"error\":\"no good: {token:?}\"}}")),
        }
    })
    .await
}

fn tokens_fetched(server: &Server) -> usize {
    server.received().iter().filter(|r| is_token(r)).count()
}

#[tokio::test]
async fn one_token_serves_every_request_and_every_sync() {
    let server = server(json!(3600), |token| token == "token-1").await;
    let more = json!({"scope": "rows:write lists", "audience": "crm", "parameters": {"resource": "a b"}});
    let out = Arc::new(destination(&server.url("/v1"), auth(&server, more)).unwrap());
    out.check(None).await.unwrap();
    let syncs = ["1", "2", "3", "4"].map(|key| {
        let out = out.clone();
        tokio::spawn(async move { deliver_to(&out, each(), &batch(Operation::Added, &[key])).await })
    });
    for settled in syncs {
        assert_eq!(codes(&settled.await.unwrap()), ["accepted"]);
    }
    assert_eq!(tokens_fetched(&server), 1);
    let received = server.received();
    let form: Vec<_> = url::form_urlencoded::parse(&received[0].body).into_owned().collect();
    let expected = [
        ("grant_type", "client_credentials"),
        ("scope", "rows:write lists"),
        ("audience", "crm"),
        ("resource", "a b"),
    ];
    assert_eq!(form, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    // `levin:cl1ent%2Bs3cret` in base64.
    assert_eq!(received[0].headers["authorization"], "Basic bGV2aW46Y2wxZW50JTJCczNjcmV0");
    assert_eq!(received[0].headers["content-type"], "application/x-www-form-urlencoded");

    // The other way to prove who asks.
    let more = json!({"client_authentication": "body"});
    let out = destination(&server.url("/v1"), auth(&server, more)).unwrap();
    let _ = out.check(None).await;
    let last = server.received().into_iter().rfind(is_token).unwrap();
    assert!(!last.headers.contains_key("authorization"));
    let form: Vec<_> = url::form_urlencoded::parse(&last.body).into_owned().collect();
    assert!(form.contains(&("client_secret".to_owned(), SECRET.to_owned())), "{form:?}");
}

#[tokio::test]
async fn a_token_is_renewed_before_it_expires() {
    // No life at all: each request needs a token of its own; with a long one, written as text, none does.
    for (life, fetched) in [(json!(0), 3), (json!("3600"), 1), (Value::Null, 1)] {
        let server = server(life.clone(), |_| true).await;
        let out = destination(&server.url("/v1"), auth(&server, json!({}))).unwrap();
        for key in ["1", "2", "3"] {
            let settled = deliver_to(&out, each(), &batch(Operation::Added, &[key])).await;
            assert_eq!(codes(&settled), ["accepted"]);
        }
        assert_eq!(tokens_fetched(&server), fetched, "{life}");
    }
}

#[tokio::test]
async fn a_401_in_mid_run_renews_the_token_once() {
    // The first token is revoked after the first request; later the second is.
    let requests = Arc::new(AtomicU64::new(0));
    let counted = requests.clone();
    let server = server(json!(3600), move |token| match counted.fetch_add(1, Ordering::SeqCst) {
        0 => token == "token-1",
        1..4 => token == "token-2",
        _ => token == "token-3",
    })
    .await;
    let out = destination(&server.url("/v1"), auth(&server, json!({}))).unwrap();
    for key in ["1", "2", "3", "4"] {
        let settled = deliver_to(&out, each(), &batch(Operation::Added, &[key])).await;
        assert_eq!((codes(&settled), settled.retries), (vec!["accepted"], 0), "{settled:?}");
    }
    assert_eq!(tokens_fetched(&server), 3);
    let ids: Vec<String> = server
        .received()
        .iter()
        .filter(|r| !is_token(r) && r.json()["rows"][0]["key"] == "2")
        .map(|r| r.headers["idempotency-key"].clone())
        .collect();
    assert_eq!((ids.len(), &ids[0]), (2, &ids[1]), "it is the same request");
}

#[tokio::test]
async fn a_401_to_a_new_token_stops_and_hides_it() {
    let server = server(json!(3600), |_| false).await;
    let out = destination(&server.url("/v1"), auth(&server, json!({}))).unwrap();
    for (requests, tokens) in [(2, 2), (3, 2), (4, 3)] {
        let settled = deliver_to(&out, each(), &batch(Operation::Added, &["1"])).await;
        assert_eq!(codes(&settled), ["not sent"]);
        let Some(StopReason::Unauthorized { message, .. }) = &settled.stop else { panic!("{settled:?}") };
        assert!(message.contains("401") && message.contains("***"), "{message}");
        assert!(!format!("{settled:?}").contains("token-"), "{settled:?}");
        assert_eq!(tokens_fetched(&server), tokens);
        assert_eq!(server.received().len() - tokens, requests);
    }
}

#[tokio::test]
async fn a_wrong_secret_is_said_and_not_shown() {
    let answers = [
        Reply::json(401, r#"{"error":"invalid_client","error_description":"who is cl1ent+s3cret?"}"#),
        Reply::json(400, r#"{"error":"invalid_scope"}"#),
        Reply::json(200, r#"{"token":"x"}"#),
        Reply::json(200, r#"{"access_token":"x","token_type":"mac"}"#),
        Reply::json(200, r#"{"access_token":" ","token_type":"Bearer"}"#),
        Reply::Answer(307, vec![("location", "/elsewhere".into())], String::new()),
    ];
    for (answer, said) in answers.into_iter().zip([
        "invalid_client (who is ***?)",
        "invalid_scope",
        "no `access_token`",
        "another type than Bearer",
        "an empty `access_token`",
        "not followed",
    ]) {
        let server = Server::start([], move |_| answer.clone()).await;
        let out = destination(&server.url("/v1"), auth(&server, json!({}))).unwrap();
        let settled = deliver_to(&out, each(), &batch(Operation::Added, &["1"])).await;
        assert_eq!(codes(&settled), ["not sent"]);
        let Some(StopReason::Unauthorized { message, hint }) = &settled.stop else { panic!("{settled:?}") };
        assert!(message.contains(said) && !message.contains(SECRET), "{message}");
        assert!(hint.contains("client_secret") || hint.contains("redirects end"), "{hint}");
        assert!(server.received().iter().all(is_token), "nothing was sent without a token");
        assert_eq!(server.received().len(), 1, "a refusal is not repeated");
        assert!(matches!(out.check(None).await, Err(DeliveryError::Unauthorized { .. })));
    }
}

#[tokio::test]
async fn a_token_server_in_trouble_is_asked_again() {
    let queue = [Reply::status(503), Reply::ResetAfterReading];
    let server = Server::start(queue, |r| {
        if is_token(r) { Reply::json(200, r#"{"access_token":"t"}"#) } else { Reply::status(200) }
    })
    .await;
    let out = destination(&server.url("/v1"), auth(&server, json!({}))).unwrap();
    let settled = deliver_to(&out, each(), &batch(Operation::Added, &["1"])).await;
    assert_eq!((codes(&settled), settled.retries), (vec!["accepted"], 2));
    // It is bounded, and nothing is in doubt that never left.
    let server = Server::start([], |_| Reply::status(503)).await;
    let out = destination(&server.url("/v1"), auth(&server, json!({}))).unwrap();
    let settled = deliver_to(&out, each(), &batch(Operation::Added, &["1"])).await;
    assert_eq!(codes(&settled), ["not sent"], "{settled:?}");
    assert!(
        matches!(&settled.stop, Some(StopReason::Unavailable { message }) if message.contains("token server"))
    );
    assert_eq!(server.received().len(), 4);
}

#[tokio::test]
async fn the_token_server_may_be_no_more_private_than_the_destination() {
    let server = server(json!(3600), |_| true).await;
    let mut config = auth(&server, json!({}));
    config["allow_private_networks"] = json!(false);
    let out = destination("https://api.example.com/v1", config).unwrap();
    let Err(DeliveryError::Unauthorized { hint, .. }) = out.check(None).await else {
        panic!("it was reached")
    };
    assert!(hint.contains("allow_private_networks"), "{hint}");
    assert_eq!(server.connections(), 0);
    for (key, value) in
        [("token_url", "ftp://a.example"), ("token_url", "https://u:p@a.example/"), ("token_url", "x")]
    {
        let config = auth(&server, json!({ key: value }));
        assert_eq!(
            destination("https://a.example", config).unwrap_err().path,
            format!("auth.oauth2_client_credentials.{key}")
        );
    }
    // What is sent does not depend on how its sender proves who it is.
    let spec = sync(Mode::Upsert, each());
    let plain = destination("https://a.example", json!({})).unwrap();
    let with = destination("https://a.example", auth(&server, json!({}))).unwrap();
    assert_eq!(plain.target(&spec), with.target(&spec));
    assert_eq!(with.timeout(), plain.timeout() + std::time::Duration::from_secs(5));
}
