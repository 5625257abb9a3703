//! Rows to a real server on loopback, through the driver that repeats and halves.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Field, Schema as ArrowSchema, SchemaRef};
use base64::Engine as _;
use serde_json::json;
use sql_templates::LogicalType;

use super::*;
use crate::change::with_logical_type;
use crate::http::tests::{Received, Reply, Server};
use crate::retry::{Gate, RetryPolicy, Settled, StopReason, Stopped, deliver_batch};

struct Open;

#[async_trait]
impl Gate for Open {
    async fn admit(&self, _: Duration) -> Result<(), Stopped> {
        Ok(())
    }
    async fn stopped(&self) {
        std::future::pending::<()>().await;
    }
}

fn schema() -> SchemaRef {
    use arrow::datatypes::DataType as D;
    Arc::new(ArrowSchema::new(vec![
        with_logical_type(Field::new("email", D::Utf8, true), LogicalType::Text),
        with_logical_type(Field::new("ltv", D::Utf8, true), LogicalType::Decimal),
        with_logical_type(Field::new("score", D::Float64, true), LogicalType::Float),
    ]))
}

pub(super) fn batch(operation: Operation, keys: &[&str]) -> ChangeBatch {
    let rows = keys.len();
    let emails: ArrayRef =
        Arc::new(StringArray::from_iter_values(keys.iter().map(|k| format!("{k}@example.com"))));
    let ltv: ArrayRef = Arc::new(StringArray::from(vec![Some("12345678901234567890.10"); rows]));
    let score: ArrayRef = Arc::new(Float64Array::from_iter(
        keys.iter().map(|k| if *k == "nan" { Some(f64::NAN) } else { None }),
    ));
    let identity =
        RecordBatch::try_from_iter([("id", Arc::new(StringArray::from(keys.to_vec())) as ArrayRef)]);
    ChangeBatch {
        operation,
        sequences: Int64Array::from_iter_values(0..rows as i64),
        keys: StringArray::from(keys.to_vec()),
        versions: StringArray::from_iter_values(keys.iter().map(|k| format!("v-{k}"))),
        changed: vec![Arc::from(["email".to_owned(), "ltv".to_owned()]); rows],
        identity: identity.unwrap(),
        fields: RecordBatch::try_new(schema(), vec![emails, ltv, score]).unwrap(),
    }
}

pub(super) fn sync(mode: Mode, options: Value) -> DeliverySpec {
    DeliverySpec {
        sync: "customers-to-crm".into(),
        sync_id: 1,
        model: "customers".into(),
        object: None,
        mode,
        on_removed: OnRemoved::Nothing,
        options,
        identity: Arc::new(ArrowSchema::empty()),
        fields: schema(),
    }
}

fn run() -> RunFacts {
    RunFacts { run_id: 12, generation: 7, started_at: Utc::now(), planned: BTreeMap::new() }
}

pub(super) fn destination(base_url: &str, more: Value) -> Result<HttpDestination, ConfigError> {
    let mut config = json!({ "base_url": base_url, "allow_private_networks": true, "timeout": "5s" });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let context =
        BuildContext { slug: "out".into(), project: PathBuf::new(), secrets: vec!["tops3cret".into()] };
    HttpDestination::new(config, &context)
}

pub(super) async fn deliver_to(
    destination: &HttpDestination,
    options: Value,
    batch: &ChangeBatch,
) -> Settled {
    let spec = sync(Mode::Mirror, options);
    destination.validate(&spec).unwrap();
    let delivery = destination.open(&spec, &run()).await.unwrap();
    let policy = RetryPolicy { retries: 3, base: Duration::from_millis(1), cap: Duration::from_millis(2) };
    deliver_batch(delivery.as_ref(), batch, &policy, destination.timeout(), &Open).await
}

async fn deliver(server: &Server, options: Value, batch: &ChangeBatch) -> Settled {
    deliver_to(&destination(&server.url("/v1"), json!({})).unwrap(), options, batch).await
}

pub(super) fn each() -> Value {
    json!({ "each": { "path": "/rows" } })
}

fn ok(_: &Received) -> Reply {
    Reply::status(200)
}

pub(super) fn codes(settled: &Settled) -> Vec<&str> {
    let code = |o: &RowOutcome| match o {
        RowOutcome::Accepted => "accepted",
        RowOutcome::Rejected(r) => r.code,
        RowOutcome::NotSent => "not sent",
        RowOutcome::InDoubt => "in doubt",
        RowOutcome::Deferred => "deferred",
    };
    settled.outcomes.iter().map(code).collect()
}

#[tokio::test]
async fn the_envelope_is_the_documented_one() {
    let server = Server::start([], ok).await;
    let settled = deliver(&server, each(), &batch(Operation::Added, &["1", "2"])).await;
    assert_eq!(codes(&settled), ["accepted", "accepted"]);
    deliver(&server, each(), &batch(Operation::Changed, &["1"])).await;
    deliver(
        &server,
        json!({"each": {"path": "/rows"}, "nulls": "omit", "numbers": "string"}),
        &batch(Operation::Removed, &["1"]),
    )
    .await;
    let received = server.received();
    assert_eq!(received[0].line, "POST /v1/rows HTTP/1.1");
    assert_eq!(received[0].headers["content-type"], "application/json");
    assert_eq!(
        String::from_utf8(received[0].body.clone()).unwrap(),
        concat!(
            r#"{"sync":"customers-to-crm","run":12,"generation":7,"operation":"added","rows":["#,
            r#"{"key":"1","version":"v-1","fields":{"email":"1@example.com","ltv":12345678901234567890.10,"score":null}},"#,
            r#"{"key":"2","version":"v-2","fields":{"email":"2@example.com","ltv":12345678901234567890.10,"score":null}}]}"#
        )
    );
    assert_eq!(received[1].json()["rows"][0]["changed"], json!(["email", "ltv"]));
    assert!(
        String::from_utf8_lossy(&received[1].body).ends_with(r#""score":null},"changed":["email","ltv"]}]}"#)
    );
    let removed = String::from_utf8(received[2].body.clone()).unwrap();
    assert!(
        removed.contains(r#""operation":"removed""#)
            && !removed.contains("changed")
            && !removed.contains("score")
    );
    assert!(removed.contains(r#""ltv":"12345678901234567890.10""#));
    let ids: BTreeSet<_> = received.iter().map(|r| r.headers["idempotency-key"].clone()).collect();
    assert_eq!(ids.len(), 3, "operation and versions make the key");
    assert!(ids.iter().all(|id| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())));
}

#[tokio::test]
async fn troubles_pass_and_the_idempotency_key_stays() {
    let now = Utc::now().format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let server = Server::start(
        [
            Reply::Answer(429, vec![("retry-after", "0".into())], "slow".into()),
            Reply::Answer(429, vec![("retry-after", now)], "slow".into()),
            Reply::status(503),
        ],
        ok,
    )
    .await;
    let settled = deliver(&server, each(), &batch(Operation::Added, &["1", "2"])).await;
    assert_eq!(codes(&settled), ["accepted", "accepted"]);
    assert_eq!((settled.calls, settled.retries), (4, 3));
    let received = server.received();
    assert!(received.iter().all(|r| r.headers["idempotency-key"] == received[0].headers["idempotency-key"]));
    assert!(received.iter().all(|r| r.body == received[0].body));
}

#[tokio::test]
async fn silence_leaves_doubt_and_a_later_no_keeps_it() {
    let server = Server::start([], |_| Reply::ResetAfterReading).await;
    let settled = deliver(&server, each(), &batch(Operation::Added, &["1"])).await;
    assert_eq!(codes(&settled), ["in doubt"]);
    assert!(matches!(settled.stop, Some(StopReason::Unavailable { .. })));
    assert_eq!(server.received().len(), 4);

    let server = Server::start([Reply::ResetAtOnce], |_| Reply::json(422, "{\"error\":\"no email\"}")).await;
    let settled = deliver(&server, each(), &batch(Operation::Added, &["1"])).await;
    let RowOutcome::Rejected(rejection) = &settled.outcomes[0] else { panic!("{settled:?}") };
    assert!(rejection.in_doubt && rejection.reason.contains("no email"), "{rejection:?}");

    // Nobody knows what a cut answer would have listed.
    for reply in [
        Reply::Truncated(200, "application/json", "{\"rejected\":[".into()),
        Reply::json(200, "{\"rejected\":["),
        Reply::json(200, "<html>"),
    ] {
        let server =
            Server::start([reply], |_| Reply::json(200, r#"{"rejected":[{"key":"2","reason":"bad"}]}"#))
                .await;
        let settled = deliver(&server, each(), &batch(Operation::Added, &["1", "2"])).await;
        assert_eq!(codes(&settled), ["accepted", "REFUSED"]);
        assert!(matches!(&settled.outcomes[1], RowOutcome::Rejected(r) if r.in_doubt));
        assert_eq!(settled.calls, 2);
    }
}

#[tokio::test]
async fn listed_rows_are_rejected_and_the_rest_accepted() {
    let answer =
        r#"{"rejected":[{"key":"2","reason":"tops3cret is no email"},{"key":"77","reason":"unknown"}]}"#;
    let server = Server::start([], move |_| Reply::json(202, answer)).await;
    let settled = deliver(&server, each(), &batch(Operation::Added, &["1", "2", "3"])).await;
    assert_eq!(codes(&settled), ["accepted", "REFUSED", "accepted"]);
    let RowOutcome::Rejected(rejection) = &settled.outcomes[1] else { unreachable!() };
    assert_eq!((rejection.reason.as_str(), rejection.in_doubt), ("*** is no email", false));
    assert_eq!(settled.exchanges.len(), 1);
    let (rows, exchange) = &settled.exchanges[0];
    assert_eq!(*rows, 1..2);
    assert!(exchange.request.starts_with("POST http://127.0.0.1"));
    assert!(exchange.response.starts_with("202") && exchange.response.contains("\"key\":\"77\""));

    let nested = r#"{"data":{"failed":[{"row":{"id":3},"why":"no"}]}}"#;
    let server = Server::start([], move |_| Reply::json(200, nested)).await;
    let options = json!({ "each": {"path": "/r"}, "rejected": {"list": "data.failed", "key": "row.id", "reason": "why"} });
    let settled = deliver(&server, options, &batch(Operation::Added, &["1", "2", "3"])).await;
    assert_eq!(codes(&settled), ["accepted", "accepted", "REFUSED"]);
}

#[tokio::test]
async fn a_row_without_a_form_is_rejected_alone() {
    let server = Server::start([], ok).await;
    let settled = deliver(&server, each(), &batch(Operation::Added, &["1", "nan", "3"])).await;
    assert_eq!(codes(&settled), ["accepted", "UNREPRESENTABLE_VALUE", "accepted"]);
    assert_eq!(server.received().len(), 1);
    assert_eq!(server.received()[0].json()["rows"].as_array().unwrap().len(), 2);
    assert!(settled.exchanges.is_empty(), "the row met no request");

    let settled = deliver(&server, each(), &batch(Operation::Added, &["nan"])).await;
    assert_eq!(codes(&settled), ["UNREPRESENTABLE_VALUE"]);
    assert_eq!(settled.calls, 0);
    let as_null = json!({ "each": {"path": "/rows"}, "non_finite": "null" });
    assert_eq!(codes(&deliver(&server, as_null, &batch(Operation::Added, &["nan"])).await), ["accepted"]);
}

#[tokio::test]
async fn bad_rows_are_found_by_halving() {
    for status in [400, 409, 413, 422, 500] {
        let server = Server::start([], move |r| {
            let rows = r.json()["rows"].as_array().unwrap().clone();
            Reply::status(if rows.iter().any(|r| r["key"] == "5") { status } else { 200 })
        })
        .await;
        let keys: Vec<String> = (0..8).map(|i| i.to_string()).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let settled = deliver(&server, each(), &batch(Operation::Added, &keys)).await;
        let code = if status == 500 { Rejection::DESTINATION_ERROR } else { Rejection::REFUSED };
        for (row, found) in codes(&settled).into_iter().enumerate() {
            assert_eq!(found, if row == 5 { code } else { "accepted" }, "{status}, row {row}");
        }
        assert!(matches!(&settled.outcomes[5], RowOutcome::Rejected(r) if r.in_doubt == (status == 500)));
    }
}

#[tokio::test]
async fn wrong_addresses_and_credentials_stop_the_run() {
    for (status, word) in [(401, "auth"), (403, "right"), (404, "path"), (405, "method"), (301, "new one")] {
        let server = Server::start([], move |_| {
            Reply::Answer(status, vec![("location", "https://new.example/".into())], String::new())
        })
        .await;
        let settled = deliver(&server, each(), &batch(Operation::Added, &["1", "2"])).await;
        assert_eq!(codes(&settled), ["not sent", "not sent"]);
        let Some(StopReason::Unauthorized { message, hint }) = &settled.stop else { panic!("{settled:?}") };
        assert!(message.contains(&status.to_string()) && hint.contains(word), "{message} {hint}");
        assert_eq!(server.received().len(), 1);
    }
}

#[tokio::test]
async fn templates_per_row_address_each_record() {
    let server = Server::start([], |r| Reply::status(if r.line.contains("gone") { 404 } else { 204 })).await;
    let options = json!({
        "added": { "path": "/bulk", "batch_size": 10, "body": "[{% for r in rows %}{\"id\": \"{{ r.key }}\", \"ltv\": {{ r.fields.ltv }}}{% if not loop.last %},{% endif %}{% endfor %}]" },
        "changed": { "method": "PATCH", "path": "/contacts/{{ row.key | urlencode }}", "batch_size": 1, "headers": {"X-Op": "c"}, "body": "{{ row.fields }}" },
        "removed": { "method": "DELETE", "path": "/contacts/{{ row.key }}", "batch_size": 1, "body": "", "accepts": [404] },
    });
    let added = batch(Operation::Added, &["a\"b", "2"]);
    let settled = deliver(&server, options.clone(), &added).await;
    assert_eq!(codes(&settled), ["accepted", "accepted"], "{settled:?}");
    // The driver cuts a batch that is larger than the request allows.
    let changed = batch(Operation::Changed, &["a/../../x?y", "..", "gone"]);
    let settled = deliver(&server, options.clone(), &changed).await;
    assert_eq!(codes(&settled), ["accepted", "TEMPLATE_FAILED", "NOT_FOUND"]);
    let removed = batch(Operation::Removed, &["gone"]);
    assert_eq!(codes(&deliver(&server, options, &removed).await), ["accepted"]);

    let received = server.received();
    assert_eq!(
        received[0].body,
        br#"[{"id": "a\"b", "ltv": 12345678901234567890.10},{"id": "2", "ltv": 12345678901234567890.10}]"#
    );
    assert_eq!(received[1].line, "PATCH /v1/contacts/a%2F..%2F..%2Fx%3Fy HTTP/1.1");
    assert_eq!(
        received[1].body,
        br#"{"email":"a/../../x?y@example.com","ltv":12345678901234567890.10,"score":null}"#
    );
    assert_eq!(received[1].headers["x-op"], "c");
    assert_eq!(received[3].line, "DELETE /v1/contacts/gone HTTP/1.1");
    assert!(received[3].body.is_empty() && !received[3].headers.contains_key("content-type"));
    assert_eq!(received.len(), 4);
}

#[tokio::test]
async fn requests_are_signed_and_secrets_leave_no_trace() {
    let server =
        Server::start([Reply::status(503)], |r| Reply::json(422, r.headers["authorization"].clone())).await;
    let config = json!({
        "auth": { "bearer": "tops3cret" },
        "headers": { "X-Team": "data", "X-Echo": "tops3cret" },
        "signing_secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    });
    let out = destination(&server.url("/v1"), config).unwrap();
    let options = json!({ "each": { "path": "/rows?k=tops3cret", "body": "{\"secret\": \"tops3cret\"}" } });
    let settled = deliver_to(&out, options.clone(), &batch(Operation::Added, &["1"])).await;

    let received = server.received();
    assert_eq!(received[0].headers["authorization"], "Bearer tops3cret");
    assert_eq!(received[0].headers["x-team"], "data");
    assert_eq!(received[0].headers["webhook-id"], received[1].headers["webhook-id"]);
    for r in &received {
        assert_eq!(r.headers["webhook-id"], r.headers["idempotency-key"]);
        let signed = [
            r.headers["webhook-id"].as_bytes(),
            b".",
            r.headers["webhook-timestamp"].as_bytes(),
            b".",
            &r.body,
        ]
        .concat();
        let key =
            base64::engine::general_purpose::STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        assert_eq!(r.headers["webhook-signature"], format!("v1,{}", hmac_sha256(&key, &signed)));
    }
    assert_eq!(codes(&settled), ["REFUSED"]);
    assert_eq!(settled.exchanges.len(), 1);
    let seen = format!("{settled:?} {out:?} {}", out.target(&sync(Mode::Upsert, options)));
    assert!(seen.contains("***") && !seen.contains("tops3cret") && !seen.contains("MfKQ9r8G"), "{seen}");
    assert!(!seen.contains(&received[1].headers["webhook-signature"]));
}

/// RFC 2104, written out: independent of what signs the requests.
fn hmac_sha256(key: &[u8], message: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    let mut block = [0_u8; 64];
    block[..key.len()].copy_from_slice(key);
    let pad = |byte: u8| block.map(|b| b ^ byte);
    let inner = Sha256::digest([&pad(0x36)[..], message].concat());
    base64::engine::general_purpose::STANDARD.encode(Sha256::digest([&pad(0x5c)[..], &inner[..]].concat()))
}

#[tokio::test]
async fn ways_to_authenticate() {
    let server = Server::start([], ok).await;
    for (auth, header, value) in [
        (json!({"basic": {"username": "u", "password": "pä"}}), "authorization", "Basic dTpww6Q="),
        (json!({"api_key": {"header": "X-Api-Pass", "value": "k"}}), "x-api-pass", "k"),
    ] {
        let out = destination(&server.url(""), json!({ "auth": auth })).unwrap();
        out.check(None).await.unwrap();
        assert_eq!(server.received().last().unwrap().headers[header], value);
        assert!(server.received().last().unwrap().line.starts_with("HEAD / "));
    }
}

#[tokio::test]
async fn private_addresses_need_to_be_allowed() {
    let server = Server::start([], ok).await;
    let out = destination(&server.url(""), json!({ "allow_private_networks": false })).unwrap();
    let settled = deliver_to(&out, each(), &batch(Operation::Added, &["1"])).await;
    assert_eq!(codes(&settled), ["not sent"]);
    assert!(
        matches!(&settled.stop, Some(StopReason::Unauthorized { hint, .. }) if hint.contains("allow_private_networks"))
    );
    assert!(matches!(out.check(None).await, Err(DeliveryError::Unauthorized { .. })));
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn check_looks_and_changes_nothing() {
    for (status, passes) in [
        (200, true),
        (404, true),
        (405, true),
        (301, true),
        (401, false),
        (403, false),
        (500, false),
        (501, true),
        (503, false),
    ] {
        let server = Server::start([], move |_| {
            Reply::Answer(status, vec![("location", "/v1/".into())], String::new())
        })
        .await;
        let out = destination(&server.url("/v1"), json!({})).unwrap();
        assert_eq!(out.check(Some(&sync(Mode::Upsert, each()))).await.is_ok(), passes, "{status}");
        assert!(server.received().iter().all(|r| r.line == "HEAD /v1 HTTP/1.1"));
        assert!(out.check(Some(&sync(Mode::Upsert, json!({})))).await.is_err());
    }
}

#[tokio::test]
async fn one_budget_for_all_syncs() {
    let server = Server::start([], ok).await;
    let out = destination(&server.url(""), json!({ "requests_per_second": 0.001 })).unwrap();
    assert_eq!(out.timeout(), Duration::from_secs(5) + BUDGET_WAIT + GRACE);
    let settled = deliver_to(&out, each(), &batch(Operation::Added, &["1"])).await;
    assert_eq!(codes(&settled), ["accepted"]);
    let budget = out.budget.as_ref().unwrap();
    assert!(budget.check().is_err(), "the request of one sync spent what all have");
    for wrong in [0.0, -1.0, 1e9] {
        assert!(destination("https://a.example", json!({ "requests_per_second": wrong })).is_err());
    }
}

#[test]
fn mistakes_are_told_with_their_place() {
    let path = |base: &str, more: Value| destination(base, more).unwrap_err().path;
    assert_eq!(path("nonsense", json!({})), "base_url");
    assert_eq!(path("ftp://a.example", json!({})), "base_url");
    assert_eq!(path("https://u:p@a.example", json!({})), "base_url");
    assert_eq!(path("https://a.example/#x", json!({})), "base_url");
    assert_eq!(path("https://a.example", json!({ "signing_secret": "plain" })), "signing_secret");
    assert_eq!(path("https://a.example", json!({ "headers": {"Host": "b"} })), "headers.Host");
    assert_eq!(path("https://a.example", json!({ "headers": {"A": "b\nc"} })), "headers.A");
    assert_eq!(path("https://a.example", json!({ "auth": {"bearer": "a\nb"} })), "auth.bearer");

    let out = destination("https://a.example/v1", json!({})).unwrap();
    let refused = |mode, options: Value| out.validate(&sync(mode, options)).unwrap_err();
    assert_eq!(refused(Mode::Diff, each()).path, "mode");
    let added = json!({ "added": {"path": "/rows"} });
    assert!(out.validate(&sync(Mode::Insert, added.clone())).is_ok());
    assert!(out.validate(&sync(Mode::All, added.clone())).is_ok());
    let missing = refused(Mode::Upsert, added);
    assert_eq!(missing.path, "changed");
    assert!(missing.message.contains("no request"), "{}", missing.message);
    let both = json!({ "added": {}, "changed": {} });
    assert!(out.validate(&sync(Mode::Upsert, both.clone())).is_ok());
    assert_eq!(refused(Mode::Mirror, both.clone()).path, "removed");
    let removing = DeliverySpec { on_removed: OnRemoved::Delete, ..sync(Mode::Upsert, both) };
    assert_eq!(out.validate(&removing).unwrap_err().path, "removed");
    let clearing = DeliverySpec { on_removed: OnRemoved::Clear, ..sync(Mode::Upsert, each()) };
    assert_eq!(out.validate(&clearing).unwrap_err().path, "on_removed");
    for (request, path) in [
        (json!({ "path": "//evil.example" }), "each.path"),
        (json!({ "path": "/../x" }), "each.path"),
        (json!({ "path": "/{{ row.key }}" }), "each.path"),
        (json!({ "body": "{{ nope }}" }), "each.body"),
        (json!({ "body": "{{ rows" }), "each.body"),
        (json!({ "batch_size": 0 }), "each.batch_size"),
        (json!({ "accepts": [200] }), "each.accepts"),
        (json!({ "headers": {"Content-Type": "text/csv"} }), "each.body"),
    ] {
        assert_eq!(refused(Mode::Upsert, json!({ "each": request })).path, path);
    }
    assert!(refused(Mode::Upsert, json!({ "each": {"pth": "/"} })).message.contains("pth"));
}

#[test]
fn targets_are_canonical() {
    let target = |base: &str, options: Value| {
        destination(base, json!({})).unwrap().target(&sync(Mode::Upsert, options))
    };
    let one = target("https://API.example.com:443/v1/", each());
    assert_eq!(one, "https://api.example.com/v1 added=POST /rows changed=POST /rows");
    assert_eq!(
        one,
        target(
            "https://api.example.com/v1?sig=abc",
            json!({ "added": {"path": "/rows"}, "changed": {"path": "/rows", "batch_size": 7} })
        )
    );
    // An address that is a secret as a whole still tells one target from another.
    let hidden = |base: &str| {
        let secrets = vec![base.to_owned()];
        let context = BuildContext { slug: "out".into(), project: "/tmp".into(), secrets };
        let out = HttpDestination::new(json!({ "base_url": base }), &context).unwrap();
        out.target(&sync(Mode::Upsert, each()))
    };
    let production = hidden("https://api.example.com/v1");
    assert!(!production.contains("example.com"), "{production}");
    assert_eq!(production, hidden("https://api.example.com/v1"));
    assert_ne!(production, hidden("https://staging.example.com/v1"));
    assert_ne!(one, target("https://staging.example.com/v1", each()));
    assert_ne!(one, target("https://api.example.com/v1", json!({ "each": {"path": "/other"} })));
    let out = destination("https://api.example.com", json!({})).unwrap();
    let limits = out.batch_limits(&sync(Mode::Upsert, each()), Operation::Added);
    assert_eq!((limits.rows, limits.bytes), (100, 4 * 1024 * 1024));
    assert_eq!((out.retries(), out.concurrency()), (5, 4));
}

#[test]
fn schemas_mark_secrets_and_know_every_key() {
    let config = serde_json::to_value((HTTP_REQUEST.config_schema)()).unwrap();
    assert_eq!(config["properties"]["signing_secret"]["x-secret"], true);
    assert_eq!(config["additionalProperties"], false);
    for key in [
        "base_url",
        "headers",
        "auth",
        "timeout",
        "retries",
        "requests_per_second",
        "concurrency",
        "allow_private_networks",
    ] {
        assert!(config["properties"][key].is_object(), "{key}");
    }
    let auth = config["$defs"]["Auth"].to_string();
    assert_eq!(auth.matches("x-secret").count(), 3, "{auth}");
    assert_eq!(config["$defs"]["Oauth2"]["properties"]["client_secret"]["x-secret"], true);
    let options = serde_json::to_value((HTTP_REQUEST.options_schema)()).unwrap();
    for key in [
        "each",
        "added",
        "changed",
        "removed",
        "archive",
        "clear",
        "rejected",
        "numbers",
        "non_finite",
        "nulls",
    ] {
        assert!(options["properties"][key].is_object(), "{key}");
    }
    assert!(crate::catalogue::DESTINATIONS.iter().any(|d| d.name == "http_request"));
}
