//! Whole runs on Snowflake's double: what the engine does there, as Snowflake sees it.

use connectors::catalogue::{BuildContext, SOURCES};
use connectors::warehouse::{Tag, Warehouse};
use serde_json::{Value, json};
use sql_templates::{Atomicity, Expect, Script, Sql, Step};
use std::sync::Arc;
use tests::project::{Engine, Project};
use tests::receiver::{Receiver, Reply};

use super::statements::{QUIET_STATEMENTS, assert_golden, statements};
use tests::snowflake::{PASSWORD, SnowflakeDouble, SnowflakeUser};

struct Shop {
    user: SnowflakeUser,
    warehouse: Arc<dyn Warehouse>,
    project: Project,
    receiver: Receiver,
}

impl Shop {
    fn new(rows: u32) -> Self {
        let user = SnowflakeDouble::start().fresh_user();
        let mut config = user.source();
        config.as_object_mut().expect("keys").remove("type");
        let kind = SOURCES.iter().find(|s| s.name == "snowflake").expect("the catalogue knows it");
        let context = BuildContext { slug: "wh".into(), project: "/".into(), secrets: Vec::new() };
        let warehouse = (kind.build)(config, &context).expect("a source");
        let receiver = Receiver::start();
        let project = Project::new(Engine::DuckDb)
            .with_variable("CRM_URL", &receiver.url())
            .with_variable("SNOWFLAKE_PASSWORD", PASSWORD);
        let mut file = user.source();
        file["auth"] = json!({"password": "${SNOWFLAKE_PASSWORD}"});
        project.write("sources/wh.yml", &file.to_string());
        project.write(
            "models/customers.yml",
            "source: wh\nprimary_key: ID\nsql: select id, name, email from customers\n",
        );
        project.write(
            "destinations/crm.yml",
            "type: http_request\nbase_url: ${CRM_URL}\nallow_private_networks: true\nretries: 0\n",
        );
        let shop = Self { user, warehouse, project, receiver };
        shop.sync("mode: upsert\non_removed: delete");
        shop.sql("create table customers (id integer, name text, email text)");
        let values: Vec<String> =
            (1..=rows).map(|i| format!("({i}, 'name {i}', '{i}@example.com')")).collect();
        shop.sql(&format!("insert into customers values {}", values.join(", ")));
        shop
    }

    fn sync(&self, more: &str) {
        let each = "each: {method: POST, path: /rows, batch_size: 10}";
        self.project.write("syncs/s.yml", &format!("model: customers\ndestination: crm\n{each}\n{more}\n"));
    }

    fn sql(&self, text: &str) {
        let step = Step { name: "edit".into(), sql: Sql::for_tests(text), expect: Expect::Any };
        let script = Script { steps: vec![step], atomicity: Atomicity::Separate };
        let tag = Tag { sync: "test".into(), run: None, stage: "edit" };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut session = self.warehouse.session(&tag).await.expect("a session");
            session.execute(&script).await.unwrap_or_else(|e| panic!("{text}: {e}"));
        });
    }

    fn run_sends(&self, counts: [u64; 3]) {
        let run = self.project.run("s");
        assert_eq!((run.code, run.status()), (0, "success"), "{run:#?}");
        assert_eq!((run.planned(), run.successful()), (counts, counts), "{run:#?}");
    }

    fn statements(&self) -> Vec<Value> {
        self.user.told()["statements"].as_array().expect("a list").clone()
    }
}

#[test]
fn a_sync_lives_in_snowflake() {
    let shop = Shop::new(25);
    let check = shop.project.levin(&["check"]);
    assert_eq!(check.code, 0, "{check:?}");
    let (code, plan) = shop.project.plan("s", &[]);
    assert_eq!((code, &plan["plannedRows"]["addedCount"]), (0, &json!(25)), "{plan}");
    shop.run_sends([25, 0, 0]);
    assert_eq!(shop.receiver.field("7", "NAME"), json!("name 7"));

    // Nothing changed: few statements, no row leaves, and none is written.
    let before = shop.statements().len();
    shop.run_sends([0, 0, 0]);
    let quiet: Vec<Value> = shop.statements().split_off(before);
    let asked = statements(&shop.project, "s");
    assert_golden("snowflake", &[("nothing changed", &asked)]);
    assert!(asked.len() <= QUIET_STATEMENTS, "{asked:#?}");
    for statement in &quiet {
        let tag: Value = serde_json::from_str(statement["tag"].as_str().expect("a tag")).expect("in JSON");
        assert_eq!((&tag["app"], &tag["sync"]), (&json!("levin"), &json!("s")), "{statement}");
        assert!(tag["stage"].is_string(), "{statement}");
    }

    shop.sql("update customers set name = 'it''s \\\\ new' where id = 3");
    shop.sql("delete from customers where id = 4");
    shop.sql("insert into customers values (26, null, 'x')");
    let (_, plan) = shop.project.plan("s", &[]);
    assert_eq!(plan["plannedRows"], json!({"addedCount": 1, "changedCount": 1, "removedCount": 1}), "{plan}");
    shop.run_sends([1, 1, 1]);
    assert_eq!(shop.receiver.field("3", "NAME"), json!("it's \\ new"));
    assert_eq!(shop.receiver.rows().len(), 25);
    shop.run_sends([0, 0, 0]);

    // Refused rows and lost answers come back.
    shop.sql("update customers set name = 'again' where id in (5, 6)");
    shop.receiver.behave(|_| Reply::reject(&["5"], "no"));
    let run = shop.project.run("s");
    assert_eq!((run.status(), run.successful(), run.failed()), ("warning", [0, 1, 0], [0, 1, 0]), "{run:#?}");
    shop.receiver.behave(|_| Reply::applied_but_cut());
    assert_eq!(shop.project.run("s").number("inDoubtCount"), 1);
    shop.receiver.accept();
    shop.run_sends([0, 1, 0]);
    shop.run_sends([0, 0, 0]);

    // A column comes, and another goes.
    shop.project.write(
        "models/customers.yml",
        "source: wh\nprimary_key: ID\nsql: select id, name, length(name) as size from customers\n",
    );
    let run = shop.project.run("s");
    assert_eq!((run.code, run.planned()), (0, [0, 24, 0]), "{run:#?}");
    shop.run_sends([0, 0, 0]);

    // The password stands nowhere.
    let told = shop.user.told();
    let sql = shop.project.levin(&["sql", "s"]);
    assert_eq!(sql.code, 0, "{sql:?}");
    for said in [sql.stdout, sql.stderr, check.stdout, check.stderr, told["statements"].to_string()] {
        assert!(!said.contains(PASSWORD), "{said}");
    }
}

#[test]
fn what_is_wrong_with_the_source_is_said_with_what_to_do() {
    let shop = Shop::new(1);
    let says = |words: &[&str]| {
        let run = shop.project.levin(&["check"]);
        assert_eq!(run.code, 2, "{run:?}");
        let said = run.stdout + &run.stderr;
        assert!(words.iter().all(|word| said.contains(word)), "{words:?} are not all in: {said}");
        assert!(!said.contains(PASSWORD), "{said}");
    };
    shop.user.set(&json!({"warehouses": ["OTHER"]}));
    says(&["LEVIN_WH", "grant usage on warehouse"]);
    shop.user.set(&json!({"warehouses": null, "password": "another"}));
    says(&["SOURCE_AUTHENTICATION", "`auth`"]);
    shop.user.set(&json!({"password": PASSWORD, "account": "ELSEWHERE"}));
    says(&["SOURCE_AUTHENTICATION"]);
    shop.user.set(&json!({"account": "TESTS"}));
    assert_eq!(shop.project.levin(&["check"]).code, 0);
}

#[test]
fn a_token_that_expires_in_the_middle_of_a_run_changes_nothing() {
    let shop = Shop::new(30);
    shop.run_sends([30, 0, 0]);
    shop.sql("update customers set name = 'x'");
    let user = shop.user.clone();
    shop.receiver.behave(move |_| {
        user.set(&json!({"expire": "session"}));
        Reply::accept()
    });
    shop.run_sends([0, 30, 0]);
    let user = shop.user.clone();
    shop.receiver.behave(move |_| {
        user.set(&json!({"expire": "master"}));
        Reply::accept()
    });
    shop.sql("update customers set name = 'y'");
    shop.run_sends([0, 30, 0]);
    shop.receiver.accept();
    shop.run_sends([0, 0, 0]);
}
