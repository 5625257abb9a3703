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
        project.write("sequences/night.yml", "syncs: [{sync: picky, on_failure: continue}, good]\n");
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

    /// The number of a sync.
    fn sync(&self, slug: &str) -> String {
        let numbers: Value = serde_json::from_str(&self.environment["LEVIN_SYNCS"]).expect("numbers");
        numbers[slug].to_string()
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
    let begun =
        stage.served.post(&stage.environment["LEVIN_KEY"], "/api/v1/sync-sequences/1/trigger", &json!({}));
    let sequence_run = begun.json["id"].as_str().unwrap_or_else(|| panic!("{begun:?}"));
    let settings = std::fs::read_to_string(scripts().join("schemathesis.toml")).expect("the settings");
    let settings = settings.replace("SEQUENCE_RUN", sequence_run);
    std::fs::write(stage.folder.path().join("schemathesis.toml"), settings).expect("write the settings");
    let long =
        std::env::var("LEVIN_LONG_MINUTES").ok().map(|minutes| minutes.parse::<u64>().expect("minutes"));
    let long = long.or(std::env::var_os("LEVIN_LONG").map(|_| 30));
    let told = std::env::var("LEVIN_SEED").ok().map(|seed| seed.parse().expect("a seed"));
    let seed: u32 = told.unwrap_or_else(|| if long.is_some() { fastrand::u32(..) } else { 1 });
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

/// DataHub's source is in no released package; what it reads stands in the document with the types that it parses.
#[test]
fn datahub_finds_what_it_reads() {
    let stage = Stage::new();
    let key = &stage.environment["LEVIN_KEY"];
    let document = stage.served.ask("GET", "/openapi.json").send().json;
    let object = ["id:integer", "slug:string", "workspaceId:integer", "createdAt:moment", "updatedAt:moment"];
    let named = ["name:string"];
    let connected = ["type:string", "configuration:object"];
    let model = [
        "sourceId:integer",
        "queryType:string",
        "primaryKey:string",
        "description:string?",
        "isSchema:boolean",
        "tags:object",
    ];
    let sync = [
        "modelId:integer",
        "destinationId:integer",
        "configuration:object",
        "schedule:object?",
        "disabled:boolean",
        "primaryKey:string",
    ];
    let run = [
        "id:integer",
        "status:string",
        "createdAt:moment",
        "startedAt:moment?",
        "finishedAt:moment?",
        "error:string?",
        "completionRatio:number",
        "plannedRows:object",
        "successfulRows:object",
        "failedRows:object",
        "querySize:integer?",
    ];
    for (list, one, fields) in [
        ("/sources", Some("/sources/{sourceId}"), [&object[..], &named, &connected].concat()),
        ("/models", Some("/models/{modelId}"), [&object[..], &named, &model].concat()),
        ("/destinations", Some("/destinations/{destinationId}"), [&object[..], &named, &connected].concat()),
        ("/syncs", Some("/syncs/{syncId}"), [&object[..], &sync].concat()),
        ("/syncs/{syncId}/runs", None, run.to_vec()),
    ] {
        let answered = |path: &str| {
            let schema = format!(
                "/paths/~1api~1v1{}/get/responses/200/content/application~1json/schema",
                path.replace('/', "~1")
            );
            document.pointer(&schema).unwrap_or_else(|| panic!("{path} answers nothing")).clone()
        };
        let page = resolved(&document, &answered(list));
        assert!(page["required"].as_array().is_some_and(|names| names.contains(&json!("data"))), "{page}");
        let listed = resolved(&document, &page["properties"]["data"]["items"]);
        if let Some(one) = one {
            assert_eq!(resolved(&document, &answered(one)), listed, "{one}");
        }
        // What it gets is what the document says.
        let path = list.replace("{syncId}", &stage.sync("quiet"));
        let shown = stage.served.get(key, &format!("/api/v1{path}?limit=10")).json["data"][0].clone();
        for field in fields {
            let (name, kind) = field.split_once(':').expect("a name and a kind");
            assert!(
                listed["required"].as_array().is_some_and(|names| names.contains(&json!(name))),
                "{list}: {name}"
            );
            assert_eq!(kind_of(&document, &listed["properties"][name]), kind, "{list}: {name}");
            let right = match &shown[name] {
                Value::Null => kind.ends_with('?'),
                Value::Bool(_) => kind == "boolean",
                Value::Number(number) => kind == "number" || (kind.starts_with("integer") && number.is_u64()),
                Value::String(text) if kind.starts_with("moment") => {
                    chrono::DateTime::parse_from_rfc3339(text).is_ok()
                }
                Value::String(_) => kind.starts_with("string"),
                Value::Object(_) => kind.starts_with("object"),
                Value::Array(_) => false,
            };
            assert!(right, "{list}: {name} is {}", shown[name]);
        }
    }
}

/// A schema, with what it refers to in its place.
fn resolved(document: &Value, schema: &Value) -> Value {
    let Some(place) = schema["$ref"].as_str() else { return schema.clone() };
    document.pointer(place.trim_start_matches('#')).unwrap_or_else(|| panic!("nothing at {place}")).clone()
}

/// The kind of values of a schema, with `?` when null is one of them.
fn kind_of(document: &Value, schema: &Value) -> String {
    let schema = resolved(document, schema);
    let branches = ["oneOf", "anyOf"].iter().find_map(|of| schema[of].as_array()).cloned();
    let branches = branches.unwrap_or_else(|| vec![schema.clone()]);
    let (mut kinds, mut nullable) = (Vec::new(), false);
    for branch in &branches {
        let branch = resolved(document, branch);
        let types = branch["type"].as_array().cloned().unwrap_or_else(|| vec![branch["type"].clone()]);
        for kind in types.iter().filter_map(Value::as_str) {
            match kind {
                "null" => nullable = true,
                "string" if branch["format"] == "date-time" => kinds.push("moment".to_owned()),
                kind => kinds.push(kind.to_owned()),
            }
        }
    }
    kinds.dedup();
    format!("{}{}", kinds.join("|"), if nullable { "?" } else { "" })
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
