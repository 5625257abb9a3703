//! Messages to real servers on loopback.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::catalogue::CHANNELS;
use crate::http::tests::{Received, Reply, Server};
use crate::signature;

fn build(kind: &str, config: Value) -> Result<Arc<dyn Channel>, ConfigError> {
    let connector = CHANNELS.iter().find(|connector| connector.name == kind).unwrap();
    let context = BuildContext { slug: kind.to_owned(), project: PathBuf::new(), secrets: Vec::new() };
    (connector.build)(config, &context)
}

fn notice(severity: Severity) -> Notice {
    Notice {
        id: "msg_1".to_owned(),
        event: if severity == Severity::Ok { Event::AlertResolved } else { Event::AlertRaised },
        at: "2026-11-22T01:02:03Z".parse().unwrap(),
        severity,
        thread: "levin/p/7/run_failed".to_owned(),
        title: "shop · sync <orders>: run 12 failed".to_owned(),
        facts: vec![("Project".to_owned(), "shop".to_owned()), ("Run".to_owned(), "12".to_owned())],
        steps: vec!["`levin runs orders` & more".to_owned()],
        data: json!({"sync": {"id": 7, "slug": "orders"}, "project": "shop", "rule": "run_failed"}),
    }
}

#[tokio::test]
async fn webhooks_are_signed_with_every_secret_and_keep_their_id() {
    let server = Server::start([Reply::status(500)], |_| Reply::status(204)).await;
    let secrets = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"];
    let config = json!({
        "url": server.url("/in?k=1"), "signing_secret": secrets[0], "other_signing_secret": secrets[1],
        "events": ["run.failed"], "headers": {"x-team": "data"}, "allow_private_networks": true,
    });
    let channel = build("webhook", config).unwrap();
    assert!(channel.takes(Event::RunFailed) && !channel.takes(Event::RunSucceeded));
    assert!(channel.send(&notice(Severity::Critical)).await.unwrap_err().message.contains("HTTP 500"));
    channel.send(&notice(Severity::Critical)).await.unwrap();
    let received = server.received();
    assert_eq!(received.len(), 2);
    for request in received {
        assert_eq!(request.line, "POST /in?k=1 HTTP/1.1");
        assert_eq!(
            (request.headers["webhook-id"].as_str(), request.headers["x-team"].as_str()),
            ("msg_1", "data")
        );
        assert_eq!(
            request.json(),
            json!({"type": "alert.raised", "timestamp": "2026-11-22T01:02:03Z", "data": notice(Severity::Ok).data})
        );
        let (time, signatures) =
            (&request.headers["webhook-timestamp"], &request.headers["webhook-signature"]);
        assert!((Utc::now().timestamp() - time.parse::<i64>().unwrap()).abs() < 300);
        for secret in secrets {
            let key = signature::key_of(secret).unwrap();
            assert!(signature::is_signed(&key, "msg_1", time, &request.body, signatures), "{signatures}");
        }
    }
}

#[tokio::test]
async fn private_addresses_and_weak_secrets_are_refused_before_anything_is_sent() {
    let path = |kind: &str, config: Value| build(kind, config).unwrap_err().path;
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    assert_eq!(path("webhook", json!({"url": "http://127.0.0.1/x", "signing_secret": secret})), "url");
    assert_eq!(path("webhook", json!({"url": "ftp://example.com", "signing_secret": secret})), "url");
    let short = json!({"url": "https://example.com", "signing_secret": "whsec_c2hvcnQ="});
    assert_eq!(path("webhook", short), "signing_secret");
    let own = json!({"url": "https://example.com", "signing_secret": secret, "headers": {"Webhook-Id": "x"}});
    assert_eq!(path("webhook", own), "headers.Webhook-Id");
    assert_eq!(path("slack", json!({"url": "https://169.254.169.254/x"})), "url");
    assert_eq!(path("slack", json!({"token": "xoxb-1"})), "token");
    assert_eq!(
        path("slack", json!({"url": "https://hooks.slack.com/x", "token": "xoxb-1", "channel": "c"})),
        "url"
    );
    assert_eq!(path("slack", json!({})), "");
    assert_eq!(path("pagerduty", json!({"routing_key": " "})), "routing_key");
    assert_eq!(
        path("email", json!({"host": "mail.example.com", "tls": "plain", "from": "a@b.c", "to": ["d@e.f"]})),
        "tls"
    );
    assert_eq!(path("email", json!({"host": "h", "from": "nobody", "to": ["d@e.f"]})), "from");
    assert_eq!(path("email", json!({"host": "h", "from": "a@b.c", "to": ["d@e.f", "x"]})), "to[1]");
    assert_eq!(
        path("email", json!({"host": "h", "from": "a@b.c", "to": ["d@e.f"], "username": "u"})),
        "username"
    );
    // A name that leads to this machine is found out when it is looked up.
    let channel = build("webhook", json!({"url": "http://localhost:9/x", "signing_secret": secret})).unwrap();
    let error = channel.send(&notice(Severity::Ok)).await.unwrap_err();
    assert!(error.message.contains("allow_private_networks"), "{error}");
}

#[tokio::test]
async fn slack_is_posted_to_as_a_webhook_and_as_an_app() {
    let server =
        Server::start([Reply::Answer(200, vec![], "ok".to_owned())], |_| Reply::json(200, r#"{"ok":true}"#))
            .await;
    let channel =
        build("slack", json!({"url": server.url("/services/s3cret"), "allow_private_networks": true}));
    channel.unwrap().send(&notice(Severity::Warning)).await.unwrap();
    let app = json!({
        "token": "xoxb-1", "channel": "#data", "endpoint": server.url("/api/"), "allow_private_networks": true,
    });
    build("slack", app).unwrap().send(&notice(Severity::Ok)).await.unwrap();
    let [webhook, app] = server.received().try_into().unwrap();
    assert_eq!(webhook.line, "POST /services/s3cret HTTP/1.1");
    let text = webhook.json()["blocks"][0]["text"]["text"].as_str().unwrap().to_owned();
    assert_eq!(text, ":warning: *shop · sync &lt;orders&gt;: run 12 failed*");
    let facts = webhook.json()["blocks"][1]["text"]["text"].as_str().unwrap().to_owned();
    assert_eq!(facts, "Project: shop\nRun: 12\n\nWhat to do next:\n- `levin runs orders` &amp; more");
    assert_eq!(app.line, "POST /api/chat.postMessage HTTP/1.1");
    assert_eq!(
        (app.headers["authorization"].as_str(), app.json()["channel"].clone()),
        ("Bearer xoxb-1", json!("#data"))
    );
}

#[tokio::test]
async fn slack_says_no_with_200_and_asks_to_wait_with_429_and_its_address_is_told_nobody() {
    let refused = Reply::json(200, r#"{"ok":false,"error":"channel_not_found"}"#);
    let wait = Reply::Answer(429, vec![("retry-after", "30".to_owned())], "slow /services/s3cret".to_owned());
    let server = Server::start([refused, wait], |_| Reply::status(302)).await;
    let app = json!({"token": "xoxb-1", "channel": "c", "endpoint": server.url(""), "allow_private_networks": true});
    let error = build("slack", app).unwrap().send(&notice(Severity::Ok)).await.unwrap_err();
    assert!(error.message.contains("channel_not_found"), "{error}");
    let url = server.url("/services/s3cret");
    let channel = build("slack", json!({"url": url, "allow_private_networks": true})).unwrap();
    let error = channel.send(&notice(Severity::Ok)).await.unwrap_err();
    assert_eq!(error.after, Some(Duration::from_secs(30)));
    let error = channel.send(&notice(Severity::Ok)).await.unwrap_err();
    assert!(!error.message.contains("s3cret"), "{error}");
}

#[tokio::test]
async fn pagerduty_opens_one_incident_per_alert_and_resolves_it() {
    let server = Server::start([], |_| Reply::json(202, r#"{"status":"success"}"#)).await;
    let config = json!({"routing_key": "R0UT1NG", "endpoint": server.url("/v2/enqueue"), "allow_private_networks": true});
    let channel = build("pagerduty", config).unwrap();
    for severity in [Severity::Warning, Severity::Critical, Severity::Ok] {
        channel.send(&notice(severity)).await.unwrap();
    }
    assert!(!channel.takes(Event::RunFailed));
    let bodies: Vec<Value> = server.received().iter().map(Received::json).collect();
    let [warning, critical, over] = bodies.try_into().unwrap();
    let incident = "levin/p/7/run_failed";
    for (body, severity) in [(&warning, "warning"), (&critical, "critical")] {
        assert_eq!((&body["routing_key"], &body["event_action"]), (&json!("R0UT1NG"), &json!("trigger")));
        let payload = &body["payload"];
        assert_eq!((&body["dedup_key"], &payload["severity"]), (&json!(incident), &json!(severity)));
        assert_eq!((&payload["component"], &payload["group"]), (&json!("orders"), &json!("shop")));
        assert_eq!(payload["custom_details"]["facts"]["Run"], "12");
    }
    assert_eq!(over, json!({"routing_key": "R0UT1NG", "event_action": "resolve", "dedup_key": incident}));
}

/// A mail server: what it was told, line by line. It offers a login without TLS, as on loopback.
async fn mail_server(starttls: bool) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let shared = heard.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let heard = shared.clone();
            // A client may go at any time.
            tokio::spawn(async move { drop(speak(stream, starttls, heard).await) });
        }
    });
    (port, heard)
}

async fn speak(stream: TcpStream, starttls: bool, heard: Arc<Mutex<Vec<String>>>) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    write.write_all(b"220 mail.test ESMTP\r\n").await?;
    let mut in_data = false;
    while let Some(line) = lines.next_line().await? {
        heard.lock().unwrap().push(line.clone());
        let verb = line.split_whitespace().next().unwrap_or_default().to_uppercase();
        let answer = match verb.as_str() {
            "." if in_data => {
                in_data = false;
                "250 queued\r\n"
            }
            _ if in_data => continue,
            "EHLO" if starttls => "250-mail.test\r\n250 STARTTLS\r\n",
            "EHLO" => "250-mail.test\r\n250 AUTH PLAIN LOGIN\r\n",
            "AUTH" if line.ends_with("AHUAczNjcmV0LXBhc3M=") => "235 welcome\r\n",
            "AUTH" => "535 wrong password\r\n",
            "STARTTLS" => "454 no certificate today\r\n",
            "DATA" => {
                in_data = true;
                "354 go on\r\n"
            }
            "QUIT" => "221 bye\r\n",
            "RCPT" if line.contains("nobody@") => "550 no such user\r\n",
            _ => "250 fine\r\n",
        };
        write.write_all(answer.as_bytes()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn mail_arrives_with_a_login_and_forms_a_thread() {
    let (port, heard) = mail_server(false).await;
    let config = json!({
        "host": "127.0.0.1", "port": port, "tls": "plain", "username": "u", "password": "s3cret-pass",
        "from": "Levin <levin@example.com>", "to": ["ops@example.com", "Data <data@example.com>"],
    });
    build("email", config).unwrap().send(&notice(Severity::Critical)).await.unwrap();
    let heard = heard.lock().unwrap().join("\n");
    for line in [
        "MAIL FROM:<levin@example.com>",
        "RCPT TO:<ops@example.com>",
        "RCPT TO:<data@example.com>",
        "Message-ID: <msg_1@example.com>",
        "References: <levin-p-7-run_failed@example.com>",
        "Date: Sun, 22 Nov 2026 01:02:03 +0000",
        "What to do next:",
        "- `levin runs orders` & more",
    ] {
        assert!(heard.contains(line), "{line}: {heard}");
    }
    let subject = "Subject: CRITICAL: shop =?utf-8?b?wrc=?= sync <orders>: run 12 failed";
    assert!(heard.contains(subject), "{heard}");
}

#[tokio::test]
async fn a_title_begins_no_header_of_its_own() {
    let (port, heard) = mail_server(false).await;
    let config = json!({
        "host": "localhost", "port": port, "tls": "plain", "from": "levin@example.com", "to": ["ops@example.com"],
    });
    let title = "shop\r\nBcc: eve@example.com\r\n\r\nhello".to_owned();
    let notice = Notice { title, facts: Vec::new(), steps: Vec::new(), ..notice(Severity::Ok) };
    build("email", config).unwrap().send(&notice).await.unwrap();
    let heard = heard.lock().unwrap().clone();
    let head: Vec<&String> = heard.iter().take_while(|line| !line.is_empty()).collect();
    assert!(head.iter().any(|line| line.starts_with("Subject: ")), "{head:?}");
    assert!(head.iter().all(|line| !line.starts_with("Bcc")), "{head:?}");
}

#[tokio::test]
async fn mail_that_is_refused_says_why_and_never_goes_in_the_open() {
    let (port, heard) = mail_server(false).await;
    let mut config = json!({
        "host": "127.0.0.1", "port": port, "tls": "plain", "from": "levin@example.com", "to": ["nobody@example.com"],
    });
    let error = build("email", config.clone()).unwrap().send(&notice(Severity::Ok)).await.unwrap_err();
    assert!(error.message.contains("no such user"), "{error}");
    config["username"] = json!("u");
    config["password"] = json!("wrong-password");
    let error = build("email", config.clone()).unwrap().send(&notice(Severity::Ok)).await.unwrap_err();
    assert!(error.message.contains("535") || error.message.contains("wrong password"), "{error}");
    assert!(!error.message.contains("wrong-password"), "{error}");
    // The server has no TLS, or offers it and then fails: nothing is said to it.
    config["tls"] = json!("starttls");
    let before = heard.lock().unwrap().len();
    assert!(build("email", config.clone()).unwrap().send(&notice(Severity::Ok)).await.is_err());
    let said = heard.lock().unwrap()[before..].join("\n");
    assert!(!said.contains("AUTH") && !said.contains("MAIL"), "{said}");
    let (port, heard) = mail_server(true).await;
    config["port"] = json!(port);
    assert!(build("email", config).unwrap().send(&notice(Severity::Ok)).await.is_err());
    let said = heard.lock().unwrap().join("\n");
    assert!(said.contains("STARTTLS") && !said.contains("AUTH") && !said.contains("MAIL"), "{said}");
}

#[test]
fn secrets_are_marked_and_texts_are_cut_between_characters() {
    for (kind, keys) in [
        ("webhook", vec!["signing_secret", "other_signing_secret"]),
        ("slack", vec!["url", "token"]),
        ("pagerduty", vec!["routing_key"]),
        ("email", vec!["password"]),
    ] {
        let connector = CHANNELS.iter().find(|connector| connector.name == kind).unwrap();
        let schema = (connector.config_schema)();
        for key in keys {
            assert_eq!(schema.as_value()["properties"][key]["x-secret"], true, "{kind}: {key}");
        }
    }
    assert_eq!(cut("grüße", 5), "grüße");
    assert_eq!(cut("grüße", 4), "grü…");
    let event: Event = serde_json::from_value(json!("run.interrupted")).unwrap();
    assert_eq!(event.name(), "run.interrupted");
    for event in [
        "run.started",
        "run.succeeded",
        "run.warning",
        "run.failed",
        "run.cancelled",
        "alert.raised",
        "alert.resolved",
    ] {
        let read: Event = serde_json::from_value(json!(event)).unwrap();
        assert_eq!(read.name(), event);
    }
}
