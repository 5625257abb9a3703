//! Whole syncs: the real `levin` on real projects, on both warehouses, into real destinations. Every
//! test is named after what could go wrong.

#[path = "scenarios/bigquery.rs"]
mod bigquery;
#[path = "scenarios/changes.rs"]
mod changes;
#[path = "scenarios/clearing.rs"]
mod clearing;
#[path = "scenarios/commands.rs"]
mod commands;
#[path = "scenarios/databricks.rs"]
mod databricks;
#[path = "scenarios/dbt.rs"]
mod dbt;
#[path = "scenarios/defects.rs"]
mod defects;
#[path = "scenarios/doubt.rs"]
mod doubt;
#[path = "scenarios/exports.rs"]
mod exports;
#[path = "scenarios/guards.rs"]
mod guards;
#[path = "scenarios/interruption.rs"]
mod interruption;
#[path = "scenarios/keys.rs"]
mod keys;
#[path = "scenarios/lease.rs"]
mod lease;
#[path = "scenarios/lists.rs"]
mod lists;
#[path = "scenarios/mapping.rs"]
mod mapping;
#[path = "scenarios/matching.rs"]
mod matching;
#[path = "scenarios/memory.rs"]
mod memory;
#[path = "scenarios/modes.rs"]
mod modes;
#[path = "scenarios/parked.rs"]
mod parked;
#[path = "scenarios/plans.rs"]
mod plans;
#[path = "scenarios/redshift.rs"]
mod redshift;
#[path = "scenarios/rejections.rs"]
mod rejections;
#[path = "scenarios/requests.rs"]
mod requests;
#[path = "scenarios/secrets.rs"]
mod secrets;
#[path = "scenarios/shape.rs"]
mod shape;
#[path = "scenarios/snowflake.rs"]
mod snowflake;
#[path = "scenarios/start_over.rs"]
mod start_over;
#[path = "scenarios/statements.rs"]
mod statements;
#[path = "scenarios/tangles.rs"]
mod tangles;
#[path = "scenarios/terminal.rs"]
mod terminal;
#[path = "scenarios/test_row.rs"]
mod test_row;
#[path = "scenarios/tokens.rs"]
mod tokens;
#[path = "scenarios/values.rs"]
mod values;
#[path = "scenarios/volatile.rs"]
mod volatile;

use serde_json::{Value, json};
use tests::on_both_warehouses;
use tests::project::{Engine, Project, Run};
use tests::receiver::{Receiver, Request};

/// The sync of most scenarios.
const SYNC: &str = "customers-to-crm";

/// A project with a table `customers (id, name, email)` of `rows` rows and a sync to a receiver.
struct Crm {
    project: Project,
    receiver: Receiver,
}

impl Crm {
    /// Rows 1 to `rows`; `sync` is appended to the sync's file.
    fn new(engine: Engine, rows: u32, sync: &str) -> Self {
        Self::on(Project::new(engine), rows, sync)
    }

    /// The same on a warehouse that is there.
    fn on(project: Project, rows: u32, sync: &str) -> Self {
        let receiver = Receiver::start();
        let project = project.with_variable("CRM_URL", &receiver.url());
        project.sql("create table customers (id integer, name text, email text)");
        let crm = Self { project, receiver };
        crm.insert(1..=rows);
        crm.destination("");
        crm.model("id", "select id, name, email from customers");
        crm.sync(sync);
        crm
    }

    /// Adds rows: `name 7`, `7@example.com`.
    fn insert(&self, ids: std::ops::RangeInclusive<u32>) {
        let values: Vec<String> = ids.map(|i| format!("({i}, 'name {i}', '{i}@example.com')")).collect();
        if !values.is_empty() {
            self.project.sql(&format!("insert into customers values {}", values.join(", ")));
        }
    }

    /// Writes the destination's file; without a word on retries there are none.
    fn destination(&self, more: &str) {
        let retries = if more.contains("retries") { "" } else { "retries: 0\n" };
        self.project.write(
            "destinations/crm.yml",
            &format!(
                "type: http_request\nbase_url: ${{CRM_URL}}\nallow_private_networks: true\nconcurrency: 1\n{retries}{more}"
            ),
        );
    }

    /// Writes the model's file.
    fn model(&self, key: &str, sql: &str) {
        let sql = self.project.spelled(sql);
        self.project
            .write("models/customers.yml", &format!("source: wh\nprimary_key: {key}\nsql: |\n  {sql}\n"));
    }

    /// Writes the sync's file: 10 rows per request unless it says otherwise.
    fn sync(&self, more: &str) {
        let each = if more.contains("each:") || more.contains("\nadded:") || more.contains("\narchive:") {
            ""
        } else {
            "each: {method: POST, path: /rows, batch_size: 10}\n"
        };
        self.project.write(
            "syncs/customers-to-crm.yml",
            &format!("model: customers\ndestination: crm\n{each}{more}\n"),
        );
    }

    /// Runs the sync. What its report says was accepted must be what the receiver accepted.
    fn run(&self) -> Run {
        self.run_with(&[])
    }

    fn run_with(&self, arguments: &[&str]) -> Run {
        let before = self.receiver.count();
        let run = self.project.run_with(SYNC, arguments);
        let accepted: usize = self.receiver.since(before).iter().map(|r| r.accepted.len()).sum();
        assert_eq!(run.successful().iter().sum::<u64>(), accepted as u64, "{run:#?}");
        run
    }

    /// Runs the sync, which must succeed with these counts.
    fn run_sends(&self, counts: [u64; 3]) -> Run {
        let run = self.run();
        assert_eq!((run.code, run.status()), (0, "success"), "{run:#?}");
        assert_eq!((run.planned(), run.successful()), (counts, counts), "{run:#?}");
        run
    }

    /// A run that has nothing to do does nothing.
    fn assert_quiet(&self) {
        self.project.assert_quiet(SYNC, &self.receiver);
    }

    fn sql(&self, statements: &str) {
        self.project.sql(statements);
    }

    /// The destination holds what the model returns.
    fn assert_same(&self) {
        let model = self.project.texts(
            "select concat(cast(id as text), ' ', coalesce(name, '-'), ' ', coalesce(email, '-')) from customers order by 1",
        );
        let mut there: Vec<Option<String>> = self
            .receiver
            .rows()
            .iter()
            .map(|(key, fields)| {
                let text = |field: &str| fields[field].as_str().unwrap_or("-").to_owned();
                Some(format!("{key} {} {}", text("name"), text("email")))
            })
            .collect();
        there.sort();
        let mut model = model;
        model.sort();
        assert_eq!(there, model, "destination and model differ");
    }
}

/// Operation and keys of each request; keys in the order of text.
fn sent(requests: &[Request]) -> Vec<(String, Vec<String>)> {
    let sorted = |mut keys: Vec<String>| {
        keys.sort();
        keys
    };
    requests.iter().map(|r| (r.operation().to_owned(), sorted(r.keys()))).collect()
}

/// One request, as [`sent`] tells it.
fn request(operation: &str, keys: &[&str]) -> (String, Vec<String>) {
    (operation.to_owned(), keys.iter().map(|k| (*k).to_owned()).collect())
}

/// The row of a request that has this key.
fn row(request: &Request, key: &str) -> Value {
    request.rows().iter().find(|r| r["key"] == key).cloned().unwrap_or_else(|| json!(null))
}
