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
