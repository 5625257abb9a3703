//! Whole runs on Databricks' double: scenarios of the other warehouses, and what the engine does there, as Databricks sees it.

use serde_json::{Value, json};
use tests::project::Engine;

use super::{Crm, SYNC};

/// Makes a test of each named scenario.
macro_rules! on_databricks {
    ($($module:ident: $($test:ident),*;)*) => {
        $($(#[test]
        fn $test() {
            super::$module::$test(Engine::Databricks);
        })*)*
    };
}

on_databricks!(
    changes: unchanged_rows_are_sent_again, a_removal_is_not_sent_or_sent_twice;
    commands: a_plan_changes_something;
    doubt: a_lost_answer_leaves_the_old_value_behind;
    interruption: a_crash_in_the_first_run_forgets_what_was_accepted;
    keys: a_duplicate_key_overwrites_or_removes_a_row;
    matching: two_rows_that_swap_their_addresses_lose_them;
    rejections: a_rejected_row_is_never_tried_again;
    shape: a_new_column_sends_everything_again;
);

#[test]
fn a_sync_lives_in_databricks() {
    let crm = Crm::new(Engine::Databricks, 25, "mode: mirror");
    let workspace = crm.project.workspace().clone();
    // The warehouse sleeps, and the token server of nobody is asked.
    workspace.set(&json!({"starts": 0.5, "chunk_rows": 10}));
    let check = crm.project.levin(&["check"]);
    assert_eq!(check.code, 0, "{check:?}");
    let (code, plan) = crm.project.plan(SYNC, &[]);
    assert_eq!((code, &plan["plannedRows"]["addedCount"]), (0, &json!(25)), "{plan}");
    let run = crm.project.run(SYNC);
    assert_eq!((run.code, run.successful()), (0, [25, 0, 0]), "{run:#?}");

    let before = workspace.told()["statements"].as_array().map_or(0, Vec::len);
    assert_eq!(crm.project.run(SYNC).planned(), [0, 0, 0]);
    let told = workspace.told();
    for statement in &told["statements"].as_array().expect("a list")[before..] {
        let text = statement["sql"].as_str().expect("a text");
        assert!(text.starts_with("/* levin sync=") && text.contains(" session=levin_"), "{text}");
        let tags: Vec<&Value> =
            statement["tags"].as_array().expect("tags").iter().map(|t| &t["key"]).collect();
        assert!(tags.contains(&&json!("levin_sync")) && tags.contains(&&json!("levin_stage")), "{statement}");
    }

    crm.sql("update customers set name = 'it''s \\ new' where id = 3");
    crm.sql("delete from customers where id = 4");
    let run = crm.project.run(SYNC);
    assert_eq!((run.code, run.successful()), (0, [0, 1, 1]), "{run:#?}");
    crm.project.assert_counted();

    // Trouble on the way, in the middle of a run: it is waited out, and nothing comes twice.
    crm.sql("update customers set name = 'x'");
    workspace.set(&json!({"conflicts": 2, "troubles": [
        {"at": "POST /api/2.0/sql/statements$", "status": 429, "retry_after": 0, "times": 3},
        {"at": "/links", "status": 403, "times": 2},
        {"at": "GET /api/2.0/sql/statements/", "cut": "before", "times": 3},
    ]}));
    let run = crm.project.run(SYNC);
    assert_eq!((run.code, run.successful()), (0, [0, 24, 0]), "{run:#?}");

    // The token stands nowhere.
    let sql = crm.project.levin(&["sql", SYNC]);
    assert_eq!(sql.code, 0, "{sql:?}");
    for said in
        [sql.stdout, sql.stderr, check.stdout, check.stderr, workspace.told()["statements"].to_string()]
    {
        assert!(!said.contains(&workspace.token), "{said}");
    }

    // One that holds no longer ends the run before anything is sent.
    crm.sql("update customers set name = 'y'");
    workspace.set(&json!({"token": "another"}));
    let run = crm.project.run(SYNC);
    assert_eq!(
        (run.code, run.report["error"]["code"].as_str()),
        (2, Some("SOURCE_AUTHENTICATION")),
        "{run:#?}"
    );
    workspace.set(&json!({"token": workspace.token}));
    assert_eq!(crm.project.run(SYNC).successful(), [0, 24, 0]);
}

#[test]
fn a_role_that_may_only_read_is_told_what_it_lacks() {
    let crm = Crm::new(Engine::Databricks, 3, "mode: mirror");
    crm.project.workspace().set(&json!({"may_create": false}));
    let check = crm.project.levin(&["check"]);
    assert_eq!(check.code, 2, "{check:?}");
    let said = check.stdout + &check.stderr;
    assert!(said.contains("grant") && said.contains("levin_planner"), "{said}");
    crm.project.workspace().set(&json!({"may_create": true}));
    assert_eq!(crm.project.run(SYNC).successful(), [3, 0, 0]);
}

/// The fence, as the text of a commit holds it, and as a pattern.
const FENCE: &str = r"checkpoint = checkpoint \+ 1";

/// How the commits ended, in order.
fn commits(crm: &Crm) -> Vec<String> {
    let told = crm.project.workspace().told();
    let statements = told["statements"].as_array().expect("a list");
    let commits = statements
        .iter()
        .filter(|s| s["sql"].as_str().is_some_and(|t| t.contains("checkpoint = checkpoint + 1")));
    commits.map(|s| s["state"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Nobody waits for another one's end there: a lease of four seconds that is renewed during a commit of six undoes it.
#[test]
fn a_renewal_undoes_the_commit() {
    let crm = Crm::new(Engine::Databricks, 4, "mode: mirror");
    crm.project.write("levin.yml", "name: scenario\nlease: 3s\n");
    crm.destination("timeout: 1s");
    crm.project.workspace().set(&json!({"slow_at": FENCE, "slow_for": 6}));
    crm.run_sends([4, 0, 0]);
    assert_eq!(commits(&crm), ["SUCCEEDED"]);
    let renewals =
        crm.project.workspace().told()["statements"].to_string().matches("holder is not null").count();
    assert!(renewals > 0, "the lease is made to last, and renewed behind the commit");
    crm.assert_quiet();
}

/// A result is kept for an hour; a destination may take longer.
#[test]
fn a_delivery_longer_than_its_result_is_kept_breaks_off() {
    let crm = Crm::new(Engine::Databricks, 95, "mode: mirror");
    crm.project.workspace().set(&json!({"chunk_rows": 10, "chunks_kept": 3}));
    crm.run_sends([95, 0, 0]);
    assert_eq!(crm.receiver.requests().iter().map(|r| r.rows().len()).sum::<usize>(), 95, "each came once");
    let told = crm.project.workspace().told();
    let asked = told["statements"].as_array().expect("a list").iter();
    let asked = asked
        .filter(|s| {
            s["sql"].as_str().is_some_and(|t| t.contains("as _levin_sequence") && t.contains("order by"))
        })
        .count();
    assert_eq!(asked, 4, "30 rows of each of them");
    crm.sql("update customers set name = 'new'");
    crm.run_sends([0, 95, 0]);
    crm.assert_same();
}

/// A commit that took effect is none that failed, whatever is said of it.
#[test]
fn a_commit_that_took_effect_is_told_as_failed() {
    let crm = Crm::new(Engine::Databricks, 4, "mode: mirror");
    crm.project.workspace().set(&json!({"forgets_at": FENCE}));
    crm.run_sends([4, 0, 0]);
    crm.project.workspace().set(&json!({"forgets_at": null, "denies_at": FENCE}));
    crm.insert(5..=6);
    crm.run_sends([2, 0, 0]);
    let ended = commits(&crm);
    assert_eq!(ended, ["CLOSED", "FAILED", "FAILED"], "the last one found that its checkpoint was made");
    crm.assert_quiet();
}
