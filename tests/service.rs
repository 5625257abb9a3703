//! The real `levin serve` on real projects, asked over real HTTP. Every test is named after what could go wrong.

#[path = "service/alerts.rs"]
mod alerts;
#[path = "service/changes.rs"]
mod changes;
#[path = "service/hooks.rs"]
mod hooks;
#[path = "service/keys.rs"]
mod keys;
#[path = "service/objects.rs"]
mod objects;
#[path = "service/readme.rs"]
mod readme;
#[path = "service/runs.rs"]
mod runs;
#[path = "service/trigger.rs"]
mod trigger;
#[path = "service/unattended.rs"]
mod unattended;

use serde_json::Value;
use tests::project::{Engine, Project};
use tests::receiver::Receiver;
use tests::service::{Answer, Served};

/// The sync of most tests.
const SYNC: &str = "customers-to-crm";

/// A project with a table `customers` of some rows, a sync to a receiver, the service and a key that may do everything.
struct Scene {
    project: Project,
    receiver: Receiver,
    served: Served,
    key: String,
}

impl Scene {
    /// On PostgreSQL: tests may write to the warehouse while the service runs.
    fn new(rows: u32, sync: &str) -> Self {
        let (project, receiver) = project(rows, sync);
        Self::of(project, receiver)
    }

    fn of(project: Project, receiver: Receiver) -> Self {
        let key = project.key("boss", "admin");
        let served = Served::start(&project);
        Self { project, receiver, served, key }
    }

    fn get(&self, path: &str) -> Answer {
        self.served.get(&self.key, &format!("/api/v1{path}"))
    }

    fn post(&self, path: &str, body: &Value) -> Answer {
        self.served.post(&self.key, &format!("/api/v1{path}"), body)
    }

    /// Asks for a run of the sync and waits for its end.
    fn run(&self, body: &Value) -> Value {
        let asked = self.post("/syncs/1/trigger", body);
        assert_eq!(asked.status, 200, "{asked:?}");
        self.ended(asked.json["id"].as_str().expect("a number as text"))
    }

    fn ended(&self, run: &str) -> Value {
        self.served.ended_run(&self.key, 1, run)
    }
}

/// A project with rows 1 to `rows`; `sync` is appended to the sync's file.
fn project(rows: u32, sync: &str) -> (Project, Receiver) {
    let receiver = Receiver::start();
    let project = Project::new(Engine::Postgres).with_variable("CRM_URL", &receiver.url());
    project.sql("create table customers (id integer, name text, email text)");
    project.sql(&format!(
        "insert into customers select i, 'name ' || i, i || '@example.com' from generate_series(1, {rows}) i"
    ));
    project.write(
        "destinations/crm.yml",
        "type: http_request\nbase_url: ${CRM_URL}\nallow_private_networks: true\nconcurrency: 1\nretries: 0\n",
    );
    project.write(
        "models/customers.yml",
        "source: wh\nprimary_key: id\nsql: select id, name, email from customers\n",
    );
    project.write(
        &format!("syncs/{SYNC}.yml"),
        &format!("model: customers\ndestination: crm\neach: {{method: POST, path: /rows, batch_size: 10}}\n{sync}\n"),
    );
    (project, receiver)
}
