//! Who may ask.

use serde_json::json;
use tests::service::until;

use crate::{Scene, project};

#[test]
fn somebody_without_a_key_is_told_something() {
    let scene = Scene::new(1, "");
    for path in ["/api/v1/syncs", "/api/v1/syncs/1", "/api/v1/nothing", "/api/v1", "/api/v2/x"] {
        for method in ["GET", "POST", "DELETE"] {
            let answer = scene.served.ask(method, path).send();
            assert_eq!(answer.status, 401, "{method} {path}: {answer:?}");
            assert_eq!(
                answer.json,
                json!({"message": "Authentication error", "details": "No authorization header found"})
            );
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
    }
    let wrong = [
        "Bearer nonsense".to_owned(),
        format!("Basic {}", scene.key),
        format!("Bearer {}0", scene.key),
        format!("Bearer {}", scene.key.to_uppercase()),
        "Bearer levin_0123456789abcdef_00".to_owned(),
        "Bearer".to_owned(),
    ];
    for header in wrong {
        let answer = scene.served.ask("GET", "/api/v1/syncs").header("authorization", &header).send();
        assert_eq!(answer.status, 401, "{header}: {answer:?}");
        assert_eq!(answer.json["message"], "Authentication error");
    }
    assert_eq!(scene.get("/syncs").status, 200);
}

#[test]
fn a_key_does_more_than_its_scope_allows() {
    let scene = Scene::new(1, "");
    let (read, run) = (scene.project.key("looker", "read"), scene.project.key("runner", "run"));
    for (key, path, expected) in [
        (&read, "/api/v1/syncs/1/trigger", 403),
        (&read, "/api/v1/syncs/trigger", 403),
        (&read, "/api/v1/syncs/1/runs/1/cancel", 403),
        (&run, "/api/v1/syncs/1/trigger", 200),
    ] {
        let answer = scene.served.post(key, path, &json!({}));
        assert_eq!(answer.status, expected, "{path}: {answer:?}");
    }
    assert_eq!(scene.served.get(&read, "/api/v1/syncs").status, 200);
    let refused = scene.served.post(&read, "/api/v1/syncs/1/trigger", &json!({"fullResync": 7}));
    assert_eq!(refused.status, 403, "what is wrong with the rest is none of their business");
    assert!(refused.json["details"].as_str().unwrap().contains("`run`"), "{refused:?}");
}

#[test]
fn a_key_outlives_its_end() {
    let scene = Scene::new(1, "");
    let made = scene.project.levin(&["keys", "create", "brief", "--scope", "read", "--expires", "1s"]);
    assert_eq!(made.code, 0, "{made:?}");
    let brief = made.stdout.trim();
    let path = "/api/v1/syncs";
    let expired = until("the key expires", || {
        let answer = scene.served.get(brief, path);
        (answer.status == 401).then_some(answer)
    });
    assert_eq!(expired.json["details"], "The API key has expired");
    assert_eq!(scene.project.key("brief", "read").len(), brief.len(), "an expired name can be used again");

    let far = scene.project.levin(&["keys", "create", "far", "--scope", "read", "--expires", "3000000d"]);
    assert_eq!(far.code, 64, "beyond the year 9999: {far:?}");
    let near = scene.project.levin(&["keys", "create", "near", "--scope", "read", "--expires", "2000000d"]);
    assert_eq!(scene.served.get(near.stdout.trim(), path).status, 200, "{near:?}");

    let lasting = scene.project.key("lasting", "read");
    assert_eq!(scene.served.get(&lasting, path).status, 200);
    assert_eq!(scene.project.levin(&["keys", "create", "lasting", "--scope", "read"]).code, 64);
    assert_eq!(scene.project.levin(&["keys", "revoke", "lasting"]).code, 0);
    until("the key is refused", || (scene.served.get(&lasting, path).status == 401).then_some(()));
    assert_eq!(scene.project.levin(&["keys", "revoke", "lasting"]).code, 64);

    let list = scene.project.levin(&["keys", "list", "--json"]);
    let lines: Vec<serde_json::Value> =
        list.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let states: Vec<(&str, &str)> =
        lines.iter().map(|key| (key["name"].as_str().unwrap(), key["status"].as_str().unwrap())).collect();
    assert_eq!(states, [("boss", "works"), ("brief", "works"), ("lasting", "revoked"), ("near", "works")]);
    assert!(lines[2]["lastUsedAt"].is_string(), "{list:?}");
    for key in [&scene.key, &lasting] {
        assert!(!list.stdout.contains(key.rsplit('_').next().unwrap()), "a list shows a secret");
    }
}

#[test]
fn a_key_asks_without_end() {
    let (project, receiver) = project(1, "");
    project.write("levin.yml", "name: scenario\nserve: {requests_per_second: 1}\n");
    let other = project.key("other", "read");
    let scene = Scene::of(project, receiver);
    let first = scene.get("/syncs");
    assert_eq!((first.status, first.header("ratelimit-limit")), (200, "10"), "{first:?}");
    assert_eq!(first.header("ratelimit-remaining"), "9");
    let refused = until("the limit is reached", || {
        let answer = scene.get("/syncs");
        (answer.status == 429).then_some(answer)
    });
    assert_eq!((refused.header("retry-after"), refused.header("ratelimit-remaining")), ("1", "0"));
    assert_eq!(refused.json["message"], "Too many requests");
    assert_eq!(scene.served.get(&other, "/api/v1/syncs").status, 200, "another key has a share of its own");
}
