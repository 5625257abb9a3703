//! A destination that wants a token: whole runs with OAuth 2 client credentials.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tests::project::Engine;
use tests::receiver::Reply;

use super::{Crm, SYNC, on_both_warehouses};

on_both_warehouses!(a_token_that_expires_in_mid_run_ends_it, a_wrong_client_secret_is_taken_for_an_outage);

const SECRET: &str = "the-secret-of-the-client";

fn crm(engine: Engine) -> Crm {
    let mut crm = Crm::new(engine, 60, "mode: mirror");
    crm.project.set_variable("CRM_SECRET", SECRET);
    crm.destination(
        "auth:\n  oauth2_client_credentials:\n    token_url: ${CRM_URL}/token\n    client_id: levin\n    client_secret: ${CRM_SECRET}\n",
    );
    crm
}

fn a_token_that_expires_in_mid_run_ends_it(engine: Engine) {
    let crm = crm(engine);
    let given = AtomicUsize::new(0);
    let mut taken = 0;
    crm.receiver.behave(move |request| {
        if request.path == "/token" {
            let number = given.fetch_add(1, Ordering::SeqCst) + 1;
            let token = json!({"access_token": format!("opaque-token-{number}"), "token_type": "Bearer", "expires_in": 600});
            return Reply::accept().header("content-type", "application/json").saying(&token.to_string());
        }
        // Every token is good for two requests.
        let current = format!("Bearer opaque-token-{}", given.load(Ordering::SeqCst));
        taken += 1;
        if request.headers.get("authorization") == Some(&current) && taken % 3 != 0 {
            Reply::accept()
        } else {
            Reply::status(401).saying(&format!("{:?} has expired", request.headers.get("authorization")))
        }
    });
    let ended = crm.project.levin(&["-vv", "run", SYNC, "--json"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    crm.assert_same();
    let tokens = crm.receiver.requests().iter().filter(|r| r.path == "/token").count();
    assert_eq!(tokens, 3, "six batches, two for each token");
    for secret in [SECRET, "opaque-token"] {
        assert!(!format!("{ended:?}").contains(secret), "{ended:?}");
    }
}

fn a_wrong_client_secret_is_taken_for_an_outage(engine: Engine) {
    let crm = crm(engine);
    crm.receiver.behave(|_| {
        Reply::status(401)
            .header("content-type", "application/json")
            .saying(&format!("{{\"error\":\"invalid_client\",\"error_description\":\"{SECRET} is wrong\"}}"))
    });
    let run = crm.project.run(SYNC);
    assert_eq!((run.code, run.error(), run.aborted()), (2, "DESTINATION_UNUSABLE", [60, 0, 0]), "{run:#?}");
    assert!(run.message().contains("invalid_client"), "{run:#?}");
    assert!(run.report["error"]["hint"].as_str().unwrap().contains("client_secret"), "{run:#?}");
    assert!(!format!("{run:?}").contains(SECRET), "{run:#?}");
    assert!(crm.receiver.requests().iter().all(|r| r.path == "/token"), "no row left");
    let check = crm.project.levin(&["check"]);
    assert!(check.code != 0 && !format!("{check:?}").contains(SECRET), "{check:?}");
    assert!(check.stderr.contains("invalid_client") || check.stdout.contains("invalid_client"), "{check:?}");
}
