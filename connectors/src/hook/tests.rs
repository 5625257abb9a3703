//! Messages as the services send them, right and wrong.

use std::path::PathBuf;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;

use super::*;
use crate::catalogue::{BuildContext, HOOKS};
use crate::signature;

const SECRET: &str = "a-secret-of-some-length";
const WHSEC: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn build(kind: &str, config: Value) -> Result<Arc<dyn Hook>, ConfigError> {
    let connector = HOOKS.iter().find(|connector| connector.name == kind).unwrap();
    let context = BuildContext { slug: kind.to_owned(), project: PathBuf::new(), secrets: Vec::new() };
    (connector.build)(config, &context)
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap())).collect()
}

fn hex(secret: &str, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn now() -> DateTime<Utc> {
    "2026-11-22T01:02:03Z".parse().unwrap()
}

#[test]
fn a_job_of_dbt_cloud_counts_only_when_it_succeeded() {
    let hook = build("dbt_cloud", json!({"secret": SECRET, "other_secret": "another-long-secret"})).unwrap();
    let receive = |body: &Value, secret: &str| {
        let body = body.to_string();
        hook.receive(&headers(&[("authorization", &hex(secret, &body))]), body.as_bytes(), now())
    };
    let message = |event: &str, status: &str, code: i64| {
        json!({
            "accountId": 1, "eventId": "wev_2L6ZDoilyiWzKkSA59Gmc2d7FDD", "timestamp": "2026-11-22T01:02:00Z",
            "eventType": event, "webhookName": "test",
            "data": {"jobId": "123", "jobName": "Daily", "runId": "12345", "runStatus": status, "runStatusCode": code},
        })
    };
    let right = message("job.run.completed", "Success", 10);
    let received = receive(&right, SECRET).unwrap();
    assert_eq!(received.id, "wev_2L6ZDoilyiWzKkSA59Gmc2d7FDD");
    assert_eq!(received.said, Said::DbtCloudJob { job: "123".to_owned(), account: "1".to_owned() });
    assert!(receive(&right, "another-long-secret").is_ok());
    assert_eq!(receive(&right, "a-secret-of-some-lengtH"), Err(NotReceived::Unsigned));
    for (event, status, code) in [
        ("job.run.completed", "Errored", 20),
        ("job.run.completed", "Cancelled", 30),
        ("job.run.errored", "Errored", 20),
        ("job.run.started", "Running", 3),
    ] {
        let said = receive(&message(event, status, code), SECRET).unwrap().said;
        assert!(matches!(said, Said::Nothing(_)), "{event} {status}: {said:?}");
    }
    let mut without_code = message("job.run.completed", "Errored", 0);
    without_code["data"].as_object_mut().unwrap().remove("runStatusCode");
    assert!(matches!(receive(&without_code, SECRET).unwrap().said, Said::Nothing(_)));
    without_code["data"]["runStatus"] = json!("Success");
    assert!(matches!(receive(&without_code, SECRET).unwrap().said, Said::DbtCloudJob { .. }));
    without_code["data"]["jobId"] = Value::Null;
    assert!(matches!(receive(&without_code, SECRET), Err(NotReceived::Unreadable(_))));
    // The signature is looked at first, whatever the body is.
    assert_eq!(hook.receive(&HeaderMap::new(), b"{", now()), Err(NotReceived::Unsigned));
    let signed = hex(SECRET, "{");
    assert!(matches!(
        hook.receive(&headers(&[("authorization", &signed)]), b"{", now()),
        Err(NotReceived::Unreadable(_))
    ));
}

#[test]
fn a_connector_of_fivetran_counts_only_when_it_synced() {
    let hook = build("fivetran", json!({"secret": SECRET})).unwrap();
    let receive = |body: &Value, secret: &str| {
        let body = body.to_string();
        let signature = hex(secret, &body).to_uppercase();
        hook.receive(&headers(&[("x-fivetran-signature-256", &signature)]), body.as_bytes(), now())
    };
    let message = |event: &str, status: &str| {
        json!({
            "event": event, "created": "2026-11-22T01:02:00.000Z", "connector_type": "pg",
            "connector_id": "mystified_presenting", "sync_id": "deleted", "data": {"status": status},
        })
    };
    let right = message("sync_end", "SUCCESSFUL");
    let received = receive(&right, SECRET).unwrap();
    assert_eq!(received.said, Said::FivetranConnector { connector: "mystified_presenting".to_owned() });
    assert_eq!(receive(&right, SECRET).unwrap().id, received.id, "the same message has the same name");
    assert_ne!(receive(&message("sync_start", ""), SECRET).unwrap().id, received.id);
    assert_eq!(receive(&right, "not-the-secret-at-all"), Err(NotReceived::Unsigned));
    for (event, status) in
        [("sync_end", "FAILURE"), ("sync_end", "FAILURE_WITH_TASK"), ("sync_start", "SUCCESSFUL")]
    {
        let said = receive(&message(event, status), SECRET).unwrap().said;
        assert!(matches!(said, Said::Nothing(_)), "{event} {status}: {said:?}");
    }
}

#[test]
fn what_is_signed_as_standard_webhooks_says_what_is_to_run_and_must_be_fresh() {
    let other = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let hook = build("signed", json!({"secret": WHSEC, "other_secret": other})).unwrap();
    let receive = |id: &str, secret: &str, sent: i64, body: &str| {
        let time = sent.to_string();
        let signature = signature::sign(&signature::key_of(secret).unwrap(), id, &time, body.as_bytes());
        let headers =
            headers(&[("webhook-id", id), ("webhook-timestamp", &time), ("webhook-signature", &signature)]);
        hook.receive(&headers, body.as_bytes(), now())
    };
    let at = now().timestamp();
    for secret in [WHSEC, other] {
        let received = receive("msg_1", secret, at - 299, r#"{"sync": "orders"}"#).unwrap();
        assert_eq!(received, Received { id: "msg_1".to_owned(), said: Said::Sync("orders".to_owned()) });
    }
    let said = receive("msg_2", WHSEC, at + 299, r#"{"sequence": "nightly"}"#).unwrap().said;
    assert_eq!(said, Said::Sequence("nightly".to_owned()));
    let stranger = "whsec_BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB";
    for (id, secret, sent) in
        [("msg_3", stranger, at), ("msg_3", WHSEC, at - 301), ("msg_3", WHSEC, at + 301), ("", WHSEC, at)]
    {
        assert_eq!(
            receive(id, secret, sent, r#"{"sync": "orders"}"#),
            Err(NotReceived::Unsigned),
            "{id} {sent}"
        );
    }
    for body in ["", "[]", "{}", r#"{"sync": 1}"#, r#"{"sync": "a", "sequence": "b"}"#] {
        assert!(matches!(receive("msg_4", WHSEC, at, body), Err(NotReceived::Unreadable(_))), "{body}");
    }
}

#[test]
fn a_strangers_message_is_not_read_when_it_is_refused_anyway() {
    let other = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let hook = build("signed", json!({"secret": WHSEC, "other_secret": other})).unwrap();
    let many = vec![signature::sign(b"stranger", "", "", b""); 8_000].join(" ");
    let read = |id: &str, time: i64, signatures: &str| {
        let (time, before) = (time.to_string(), signature::KEYED.get());
        let headers =
            headers(&[("webhook-id", id), ("webhook-timestamp", &time), ("webhook-signature", signatures)]);
        assert_eq!(hook.receive(&headers, b"{}", now()), Err(NotReceived::Unsigned));
        signature::KEYED.get() - before
    };
    let at = now().timestamp();
    assert_eq!(read("msg_1", at, &many), 2, "once for each key");
    for (id, time, signatures) in [
        ("", at, &*many),
        (&"x".repeat(257), at, &many),
        ("msg_1", at - 301, &many),
        ("msg_1", at, "v1, v1,"),
    ] {
        assert_eq!(read(id, time, signatures), 0, "{id} {time}");
    }
}

#[test]
fn an_old_message_is_taken_and_starts_nothing() {
    let dbt = build("dbt_cloud", json!({"secret": SECRET})).unwrap();
    let fivetran = build("fivetran", json!({"secret": SECRET})).unwrap();
    let both = |sent: Value| {
        let job = json!({
            "accountId": 1, "eventId": "wev_1", "timestamp": sent, "eventType": "job.run.completed",
            "data": {"jobId": "123", "runStatusCode": 10},
        });
        let sync = json!({
            "event": "sync_end", "created": sent, "connector_id": "lake", "data": {"status": "SUCCESSFUL"},
        });
        [(&dbt, "authorization", job), (&fivetran, "x-fivetran-signature-256", sync)].map(
            |(hook, header, body)| {
                let body = body.to_string();
                let headers = headers(&[(header, &hex(SECRET, &body))]);
                hook.receive(&headers, body.as_bytes(), now()).map(|received| received.said)
            },
        )
    };
    for minutes in [0, 23 * 60, -60] {
        let sent = (now() - TimeDelta::minutes(minutes)).to_rfc3339();
        for said in both(json!(sent)) {
            assert!(
                matches!(said, Ok(Said::DbtCloudJob { .. } | Said::FivetranConnector { .. })),
                "{said:?}"
            );
        }
    }
    for minutes in [23 * 60 + 1, 10 * 24 * 60, -61] {
        let sent = (now() - TimeDelta::minutes(minutes)).to_rfc3339();
        for said in both(json!(sent)) {
            assert!(matches!(said, Ok(Said::Nothing(_))), "{minutes}: {said:?}");
        }
    }
    for wrong in [Value::Null, json!(""), json!("yesterday"), json!(1_700_000_000)] {
        for said in both(wrong.clone()) {
            assert!(matches!(said, Err(NotReceived::Unreadable(_))), "{wrong}: {said:?}");
        }
    }
    // What Fivetran sends when the webhook is made says no time, and is to be taken.
    let body =
        json!({"event": "test_event", "created": "timestamp", "connector_id": "_connector_1"}).to_string();
    let signed = headers(&[("x-fivetran-signature-256", &hex(SECRET, &body))]);
    let received = fivetran.receive(&signed, body.as_bytes(), now());
    assert!(matches!(received, Ok(Received { said: Said::Nothing(_), .. })), "{received:?}");
}

#[test]
fn secrets_that_can_be_guessed_are_refused() {
    assert_eq!(build("dbt_cloud", json!({"secret": "short"})).unwrap_err().path, "secret");
    assert_eq!(
        build("fivetran", json!({"secret": SECRET, "other_secret": ""})).unwrap_err().path,
        "other_secret"
    );
    assert_eq!(build("signed", json!({"secret": SECRET})).unwrap_err().path, "secret");
    for connector in HOOKS {
        let schema = (connector.config_schema)();
        for key in ["secret", "other_secret"] {
            assert_eq!(schema.as_value()["properties"][key]["x-secret"], true, "{}: {key}", connector.name);
        }
    }
}
