//! Public Python clients, unmodified, against the real `levin serve`: each in an environment of its own, which `./test` makes.
//! What each does and asserts stands in its script in [clients](clients/stage.py).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tests::project::{Ended, Engine, Project, Running};
use tests::receiver::{Hold, Receiver, Reply};
use tests::service::Served;

/// The syncs, and the path at which each one's destination listens.
const SYNCS: [&str; 7] = ["closed", "good", "never", "picky", "quiet", "resting", "slow"];

/// A project with a sync for each way in which a run can end, and the service.
struct Stage {
    receiver: Receiver,
    /// Keeps the requests of `slow` back.
    hold: Hold,
    served: Served,
    folder: tempfile::TempDir,
    environment: BTreeMap<&'static str, String>,
    /// Last: the service has ended before its files go.
    _project: Project,
}

impl Stage {
    fn new() -> Self {
        Self::with("")
    }

    /// With more in the project's own file.
    fn with(more: &str) -> Self {
        let receiver = Receiver::start();
        let hold = Hold::default();
        let held = hold.clone();
        receiver.behave(move |request| {
            let reply = match request.path.as_str() {
                "/picky" if request.has("3") => Reply::reject(&["3"], "no such customer"),
                "/closed" => Reply::status(401),
                "/slow" => Reply::accept().held(&held),
                _ => Reply::accept(),
            };
            if request.path == "/release" {
                held.release();
            }
            reply
        });
        let project = Project::new(Engine::Postgres).with_variable("CRM_URL", &receiver.url());
        project.write("levin.yml", &format!("name: clients\n{more}"));
        project.sql("create table customers (id integer, name text, email text)");
        project.sql(
            "insert into customers select i, 'name ' || i, i || '@example.com' from generate_series(1, 5) i",
        );
        project.write(
            "destinations/crm.yml",
            "type: http_request\nbase_url: ${CRM_URL}\nallow_private_networks: true\nretries: 0\n",
        );
        project.write(
            "models/customers.yml",
            "source: wh\nprimary_key: id\nsql: select id, name, email from customers\n",
        );
        for sync in SYNCS {
            let mut text = format!(
                "model: customers\ndestination: crm\neach: {{method: POST, path: /{sync}, batch_size: 10}}\n"
            );
            if sync == "resting" {
                text.push_str("disabled: true\n");
            }
            project.write(&format!("syncs/{sync}.yml"), &text);
        }
        let quiet = project.run("quiet");
        assert_eq!((quiet.code, quiet.successful()), (0, [5, 0, 0]), "{quiet:#?}");
        let key = project.key("client", "admin");
        let served = Served::start(&project);
        let listed = served.get(&key, "/api/v1/syncs");
        let listed = listed.json["data"].as_array().unwrap_or_else(|| panic!("{listed:?}"));
        let numbers: BTreeMap<&str, &Value> =
            listed.iter().filter_map(|sync| Some((sync["slug"].as_str()?, &sync["id"]))).collect();
        assert_eq!(numbers.keys().copied().collect::<Vec<_>>(), SYNCS);
        let environment = BTreeMap::from([
            ("LEVIN_URL", served.url.clone()),
            ("LEVIN_KEY", key),
            ("LEVIN_READ_KEY", project.key("reader", "read")),
            ("LEVIN_SYNCS", json!(numbers).to_string()),
            ("RECEIVER_URL", receiver.url()),
        ]);
        let folder = tempfile::Builder::new().prefix("levin-client-").tempdir().expect("a folder");
        Self { receiver, hold, served, folder, environment, _project: project }
    }

    /// A program of a client's environment, which finds there only what this stage tells it.
    fn program(&self, client: &str, name: &str) -> Command {
        let mut command = Command::new(installed(client).join(name));
        for (variable, _) in std::env::vars_os() {
            let text = variable.to_string_lossy();
            if ["AIRFLOW", "DAGSTER", "PREFECT", "PYTHON", "HYPOTHESIS"].iter().any(|of| text.starts_with(of))
            {
                command.env_remove(&variable);
            }
        }
        command.envs(&self.environment).env("PYTHONDONTWRITEBYTECODE", "1").current_dir(self.folder.path());
        for (variable, name) in [
            ("HOME", "home"),
            ("AIRFLOW_HOME", "airflow"),
            ("DAGSTER_HOME", "dagster"),
            ("PREFECT_HOME", "prefect"),
        ] {
            let place = self.folder.path().join(name);
            std::fs::create_dir_all(&place).expect("a folder");
            command.env(variable, place);
        }
        command
    }

    /// Runs a script with a client's own Python; it must find everything as it asserts.
    fn play(&self, client: &str, script: &str) {
        let mut command = self.program(client, "bin/python");
        command.arg(scripts().join(script));
        let ended = Running::start(command).ended();
        self.assert_well(&ended);
    }

    fn assert_well(&self, ended: &Ended) {
        assert_eq!(
            ended.code,
            0,
            "{}\n{}\n--- levin said:\n{}",
            ended.stdout,
            ended.stderr,
            self.served.said()
        );
    }

    /// How many rows arrived at a sync's path, whatever was answered.
    fn arrived(&self, sync: &str) -> usize {
        let path = format!("/{sync}");
        self.receiver.requests().iter().filter(|r| r.path == path).map(|r| r.rows().len()).sum()
    }
}

/// The folder of a client's environment.
fn installed(client: &str) -> PathBuf {
    let folder = std::env::var_os("LEVIN_CLIENTS");
    let folder = folder.expect("LEVIN_CLIENTS is not set; `./test` installs the clients and sets it");
    Path::new(&folder).join(client)
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

#[test]
fn airflow_triggers_and_waits() {
    let stage = Stage::new();
    stage.play("airflow", "in_airflow.py");
    assert_eq!((stage.arrived("good"), stage.arrived("slow"), stage.arrived("resting")), (5, 5, 0));
}

#[test]
fn dagster_triggers_and_waits() {
    let stage = Stage::new();
    stage.play("dagster", "in_dagster.py");
    assert_eq!(stage.arrived("good"), 5);
}

#[test]
fn prefect_triggers_and_waits() {
    let stage = Stage::new();
    stage.play("prefect", "in_prefect.py");
    assert_eq!(stage.arrived("good"), 10, "one run, and one that sends everything again");
}

#[test]
fn the_sdk_reads_writes_and_triggers() {
    let stage = Stage::new();
    stage.play("sdk", "with_sdk.py");
}

/// Random requests, right and wrong ones, to every operation, alone and in chains: nothing is answered that the API's own
/// document does not say, and nothing breaks.
#[test]
fn schemathesis_finds_nothing() {
    let stage = Stage::with("serve: {requests_per_second: 10000}\n");
    stage.hold.release();
    let long =
        std::env::var("LEVIN_LONG_MINUTES").ok().map(|minutes| minutes.parse::<u64>().expect("minutes"));
    let long = long.or(std::env::var_os("LEVIN_LONG").map(|_| 30));
    let seed = if long.is_some() { fastrand::u32(..) } else { 1 };
    println!("seed {seed}");
    let mut command = stage.program("schemathesis", "bin/schemathesis");
    command.args(["run", &format!("{}/openapi.json", stage.served.url)]);
    command.args(["--header", &format!("Authorization: Bearer {}", stage.environment["LEVIN_KEY"])]);
    command.args(["--checks", "all", "--mode", "all", "--no-color", "--seed", &seed.to_string()]);
    command.args(["--request-timeout", "20", "--suppress-health-check", "all"]);
    match long {
        Some(minutes) => {
            command.args(["--max-examples", "500", "--max-time", &(minutes * 60).to_string()]);
            assert_eq!(command.status().expect("schemathesis").code(), Some(0));
        }
        None => {
            command.args(["--max-examples", "10"]);
            stage.assert_well(&Running::start(command).ended());
        }
    }
}

/// Code that people copy is code that ran.
#[test]
fn the_page_on_clients_shows_what_ran() {
    let page = scripts().join("../../deploy/clients.md");
    let page = std::fs::read_to_string(&page).expect("the page");
    let scripts: Vec<String> = ["dags/levin.py", "in_dagster.py", "in_prefect.py", "with_sdk.py"]
        .map(|script| std::fs::read_to_string(scripts().join(script)).expect("a script"))
        .into();
    let blocks: Vec<&str> =
        page.split("```python\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 4, "{blocks:#?}");
    for block in blocks {
        assert!(scripts.iter().any(|script| script.contains(block)), "no script runs this:\n{block}");
    }
}
