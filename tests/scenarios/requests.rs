//! The requests of `http_request`: addresses, bodies and answers of other people's making.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tests::project::Engine;
use tests::receiver::Reply;

use super::{Crm, SYNC, on_both_warehouses};

on_both_warehouses!(
    a_key_leads_the_request_elsewhere,
    a_removal_of_what_is_gone_fails_for_ever,
    a_body_of_ones_own_loses_values,
    an_address_inside_the_network_is_called,
    an_answer_that_cannot_be_read_is_taken_for_a_yes,
    nulls_and_numbers_are_not_as_the_receiver_wants_them,
);

fn a_key_leads_the_request_elsewhere(engine: Engine) {
    let crm = Crm::new(
        engine,
        0,
        "mode: mirror\nadded: {method: PUT, path: '/contacts/{{ row.key }}', batch_size: 1}\n\
         changed: {method: PATCH, path: '/contacts/{{ row.key }}', batch_size: 1}\n\
         removed: {method: DELETE, path: '/contacts/{{ row.key }}', batch_size: 1}\neach: {path: /never}",
    );
    let keys = ["a/b", "ä ö", "?x=1#y", "%2F", "plain", "a..b"];
    crm.sql("create table t (k text, v integer)");
    for key in keys {
        crm.sql(&format!("insert into t values ('{key}', 1)"));
    }
    crm.model("k", "select k, v from t");
    crm.run_sends([6, 0, 0]);
    let paths: BTreeSet<String> = crm.receiver.requests().iter().map(|r| r.path.clone()).collect();
    assert_eq!(paths.len(), keys.len(), "{paths:?}");
    assert!(paths.contains("/contacts/a%2Fb") && paths.contains("/contacts/%252F"), "{paths:?}");
    assert!(paths.iter().all(|p| p.starts_with("/contacts/") && !p.contains(['?', '#'])), "{paths:?}");
    assert!(crm.receiver.requests().iter().all(|r| r.method == "PUT" && r.rows().len() == 1));
    crm.sql("update t set v = 2 where k = 'plain'; delete from t where k = 'a/b'");
    let before = crm.receiver.count();
    crm.run_sends([0, 1, 1]);
    let mut told: Vec<String> =
        crm.receiver.since(before).iter().map(|r| format!("{} {}", r.method, r.path)).collect();
    told.sort();
    assert_eq!(told, ["DELETE /contacts/a%2Fb", "PATCH /contacts/plain"]);
    crm.assert_quiet();
    // A key that is a step upwards reaches nothing above.
    crm.sql("insert into t values ('..', 1), ('fine', 1)");
    let before = crm.receiver.count();
    let run = crm.run();
    let paths: Vec<String> = crm.receiver.since(before).iter().map(|r| r.path.clone()).collect();
    assert!(paths.contains(&"/contacts/fine".to_owned()), "{run:#?}");
    assert!(paths.iter().all(|p| p.starts_with("/contacts/") && p != "/contacts/.."), "{paths:?}");
}

fn a_removal_of_what_is_gone_fails_for_ever(engine: Engine) {
    let sync = |accepts: &str| {
        format!(
            "mode: mirror\neach: {{method: PUT, path: '/contacts/{{{{ row.key }}}}', batch_size: 1}}\n\
             removed: {{method: DELETE, path: '/contacts/{{{{ row.key }}}}', batch_size: 1{accepts}}}"
        )
    };
    let crm = Crm::new(engine, 6, &sync(""));
    crm.run_sends([6, 0, 0]);
    crm.sql("delete from customers where id in (2, 3); update customers set name = 'x' where id = 4");
    crm.receiver.behave(|r| if r.path == "/contacts/2" { Reply::status(404) } else { Reply::accept() });
    let run = crm.run();
    assert_eq!((run.code, run.successful(), run.failed()), (1, [0, 1, 1], [0, 0, 1]), "{run:#?}");
    let rejected = crm.project.rejected(SYNC);
    assert_eq!((&rejected[0]["code"], &rejected[0]["operation"]), (&json!("NOT_FOUND"), &json!("removed")));
    crm.sync(&sync(", accepts: [404, 410]"));
    let run = crm.project.run(SYNC);
    assert_eq!((run.code, run.successful()), (0, [0, 0, 1]), "{run:#?}");
    assert!(crm.project.rejected(SYNC).is_empty());
    crm.assert_quiet();
}

fn a_body_of_ones_own_loses_values(engine: Engine) {
    let crm = Crm::new(
        engine,
        3,
        "mode: upsert\neach:\n  method: POST\n  path: /bulk\n  batch_size: 2\n  headers: {X-Kind: '1'}\n  \
         body: |\n    {\"op\": \"{{ operation }}\", \"people\": [{% for row in rows %}{\"ref\": \"p-{{ row.key }}\", \"who\": {{ row.fields.name }}, \"n\": {{ row.fields.n }}}{% if not loop.last %},{% endif %}{% endfor %}]}",
    );
    crm.model("id", "select id, name, cast('12345678901234567890.5' as decimal(30, 1)) as n from customers");
    crm.sql("update customers set name = 'a \"quoted\" \\ name' where id = 2");
    let run = crm.project.run(SYNC);
    assert_eq!((run.code, run.successful()), (0, [3, 0, 0]), "{run:#?}");
    let requests = crm.receiver.requests();
    assert_eq!((requests.len(), requests[0].headers["x-kind"].as_str()), (2, "1"));
    let people: Vec<Value> =
        requests.iter().flat_map(|r| r.body["people"].as_array().unwrap().clone()).collect();
    let two = people.iter().find(|p| p["ref"] == "p-2").unwrap();
    assert_eq!(two["who"], "a \"quoted\" \\ name");
    assert!(requests.iter().all(|r| r.body["op"] == "added" && r.text.contains("12345678901234567890.5")));
    crm.assert_quiet();
}

fn an_address_inside_the_network_is_called(engine: Engine) {
    let mut crm = Crm::new(engine, 3, "mode: upsert");
    let open = "type: http_request\nbase_url: ${CRM_URL}\nretries: 0\n";
    crm.project.write("destinations/crm.yml", open);
    for address in [crm.receiver.url(), crm.receiver.url().replace("127.0.0.1", "localhost")] {
        crm.project.set_variable("CRM_URL", &address);
        let run = crm.run_with(&["--full-resync"]);
        assert_eq!((run.code, run.number("inDoubtCount")), (2, 0), "{run:#?}");
        assert_eq!(run.aborted(), [3, 0, 0], "{run:#?}");
        assert_eq!(crm.receiver.count(), 0, "no request leaves");
    }
    // A redirect leads to no other place either.
    crm.destination("");
    crm.project.set_variable("CRM_URL", &crm.receiver.url());
    let elsewhere = tests::receiver::Receiver::start();
    let target = format!("{}/rows", elsewhere.url());
    crm.receiver.behave(move |_| Reply::status(302).header("location", &target));
    let run = crm.run_with(&["--full-resync"]);
    assert_ne!(run.code, 0, "{run:#?}");
    assert_eq!(run.successful(), [0, 0, 0], "a redirect of a POST accepts nothing: {run:#?}");
    crm.receiver.accept();
    let run = crm.run();
    assert_eq!((run.code, run.successful()[0]), (0, 3), "{run:#?}");
    crm.assert_same();
}

fn an_answer_that_cannot_be_read_is_taken_for_a_yes(engine: Engine) {
    let crm = Crm::new(engine, 4, "mode: upsert");
    crm.receiver.behave(|_| {
        Reply::accept().header("content-type", "application/json").saying("{\"rejected\": [{\"key\": ")
    });
    let run = crm.project.run(SYNC);
    assert_ne!(run.code, 0, "{run:#?}");
    assert_eq!((run.successful(), run.number("inDoubtCount")), ([0, 0, 0], 4), "{run:#?}");
    // Another form of the same, where the sync says where it stands.
    crm.sync("mode: upsert\nrejected: {list: result.errors, key: id, reason: why}");
    crm.receiver.behave(|_| {
        Reply::reject(&["2"], "")
            .saying("{\"result\": {\"errors\": [{\"id\": 2, \"why\": \"too old\"}, {\"id\": 99}]}}")
    });
    let run = crm.run();
    assert_eq!((run.code, run.failed().iter().sum::<u64>()), (1, 1), "{run:#?}");
    let rejected = crm.project.rejected(SYNC);
    assert_eq!((&rejected[0]["key"], &rejected[0]["reason"]), (&json!("2"), &json!("too old")));
    crm.receiver.accept();
    let run = crm.run();
    assert_eq!((run.code, run.status()), (0, "success"), "{run:#?}");
    crm.assert_same();
    crm.assert_quiet();
}

fn nulls_and_numbers_are_not_as_the_receiver_wants_them(engine: Engine) {
    let crm = Crm::new(engine, 2, "mode: upsert\nnulls: omit\nnumbers: string");
    crm.sql("update customers set email = null where id = 2");
    crm.run_sends([2, 0, 0]);
    assert_eq!(crm.receiver.rows()["2"], json!({"id": "2", "name": "name 2"}));
    assert_eq!(crm.receiver.rows()["1"]["id"], json!("1"));
    // Another way to write is no change of rows.
    crm.sync("mode: upsert\nnulls: keep\nnumbers: json");
    crm.assert_quiet();
    crm.sql("update customers set name = 'x' where id = 2");
    crm.run_sends([0, 1, 0]);
    assert_eq!(crm.receiver.rows()["2"], json!({"id": 2, "name": "x", "email": null}));
    crm.assert_quiet();
}
