//! Whole projects, loaded with connectors of the tests' own.

mod alerts;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use connectors::catalogue::{
    BuildContext, CHANNELS, ConfigError, DestinationConnector, HOOKS, SourceConnector,
};
use connectors::change::{ChangeBatch, Mode, OnRemoved, Operation};
use connectors::destination::{
    BatchLimits, Delivery, DeliverySpec, Destination, DestinationField, RunFacts, Trial,
};
use connectors::outcome::DeliveryError;
use connectors::warehouse::{ErrorKind, Session, Tag, Warehouse, WarehouseError};
use schemars::Schema;
use serde_json::{Value, json};
use sql_templates::Dialect;

use super::*;
use crate::catalogue::Catalogue;
use crate::error::{Error, ErrorCode};
use crate::project::{
    Engine, Guards, Limit, Mapping, MappingValue, Mappings, MatchField, ModelQuery, Schedule, Variable,
};
use crate::redact::Redactor;

static LAKE: SourceConnector = SourceConnector {
    name: "lake",
    title: "Lake",
    summary: "A warehouse that is never opened.",
    dialect: Dialect::Duckdb,
    config_schema: || {
        schema(json!({
            "type": "object",
            "properties": {"url": {"type": "string", "x-secret": true}, "pool": {"type": "integer"}},
            "required": ["url"],
            "additionalProperties": false,
        }))
    },
    build: |config, context| {
        if config["pool"] == 0 {
            return Err(ConfigError { path: "pool".to_owned(), message: "needs at least 1".to_owned() });
        }
        Ok(Arc::new(Lake(config, context.clone())))
    },
};

static CRM: DestinationConnector = DestinationConnector {
    name: "crm",
    title: "CRM",
    summary: "A destination that is never opened.",
    modes: &[Mode::Insert, Mode::Update, Mode::Upsert, Mode::Mirror],
    on_removed: &[OnRemoved::Delete],
    needs_object: true,
    whole_rows: false,
    deferred: false,
    config_schema: || {
        schema(json!({
            "type": "object",
            "properties": {"token": {"$ref": "#/$defs/Token"}},
            "$defs": {"Token": {"type": "string", "x-secret": true}},
        }))
    },
    options_schema: || {
        schema(json!({"type": "object", "properties": {"batch": {"type": "integer", "minimum": 1}}}))
    },
    build: |config, _| Ok(Arc::new(Sink(config))),
};

static FILES: DestinationConnector = DestinationConnector {
    name: "folder",
    title: "Folder",
    summary: "Another destination that is never opened.",
    modes: &[Mode::Diff, Mode::Snapshot],
    on_removed: &[],
    needs_object: false,
    whole_rows: true,
    deferred: true,
    config_schema: || schema(json!({"type": "object", "properties": {}})),
    options_schema: || {
        schema(json!({
            "type": "object",
            "properties": {"format": {"enum": ["jsonl", "csv"]}},
            "required": ["format"],
        }))
    },
    build: |config, _| Ok(Arc::new(Sink(config))),
};

static SOURCES: &[&SourceConnector] = &[&LAKE];
static DESTINATIONS: &[&DestinationConnector] = &[&CRM, &FILES];

fn catalogue() -> Catalogue {
    Catalogue { sources: SOURCES, destinations: DESTINATIONS, channels: CHANNELS, hooks: HOOKS }
}

fn schema(value: Value) -> Schema {
    Schema::try_from(value).unwrap()
}

#[derive(Debug)]
struct Lake(Value, BuildContext);

#[async_trait]
impl Warehouse for Lake {
    fn dialect(&self) -> Dialect {
        Dialect::Duckdb
    }

    fn identity(&self) -> String {
        format!("{} for {}", self.0, self.1.slug)
    }

    async fn session(&self, _: &Tag) -> Result<Box<dyn Session>, WarehouseError> {
        Err(WarehouseError::new(ErrorKind::Unreachable, "never opened"))
    }

    async fn terminate(&self, _: &str) -> Result<(), WarehouseError> {
        Ok(())
    }
}

#[derive(Debug)]
struct Sink(Value);

#[async_trait]
impl Destination for Sink {
    fn target(&self, _: &DeliverySpec) -> String {
        self.0.to_string()
    }

    fn validate(&self, _: &DeliverySpec) -> Result<(), ConfigError> {
        Ok(())
    }

    async fn check(&self, _: Option<&DeliverySpec>) -> Result<(), DeliveryError> {
        Err(DeliveryError::Unauthorized { message: "never opened".to_owned(), hint: "open it".to_owned() })
    }

    async fn fields(&self, _: &str) -> Result<Option<Vec<DestinationField>>, DeliveryError> {
        Ok(None)
    }

    async fn open(&self, _: &DeliverySpec, _: &RunFacts) -> Result<Box<dyn Delivery>, DeliveryError> {
        Err(DeliveryError::Unavailable { answered: false, after: None, message: "never opened".to_owned() })
    }

    async fn try_row(
        &self,
        _: &DeliverySpec,
        _: &RunFacts,
        _: &ChangeBatch,
        _: bool,
    ) -> Result<Trial, DeliveryError> {
        Err(DeliveryError::Unavailable { answered: false, after: None, message: "never opened".to_owned() })
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn batch_limits(&self, _: &DeliverySpec, _: Operation) -> BatchLimits {
        BatchLimits { rows: 1, bytes: 1 }
    }
}

/// A project in a folder of its own.
struct Folder(tempfile::TempDir);

impl Folder {
    /// A project without mistakes.
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder
            .with("levin.yml", "name: demo\n")
            .with("sources/wh.yml", "type: lake\nurl: ${WAREHOUSE_URL}\n")
            .with("models/customers.yml", "source: wh\nprimary_key: id\nsql: select 1 as id\n")
            .with("destinations/crm.yml", "type: crm\ntoken: ${TOKEN}\n")
            .with("destinations/out.yml", "type: folder\n")
            .with("syncs/to-crm.yml", "model: customers\ndestination: crm\nobject: contacts\n");
        folder
    }

    fn with(&self, path: &str, text: &str) -> &Self {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    fn without(&self, path: &str) -> &Self {
        std::fs::remove_file(self.0.path().join(path)).unwrap();
        self
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.0.path().join(path)).unwrap()
    }

    fn load_with(&self, offline: bool, environment: Environment<'_>) -> (Result<Loaded, Error>, Redactor) {
        let redactor = Redactor::default();
        let options = LoadOptions { offline, environment };
        (load(self.0.path(), &catalogue(), &redactor, options), redactor)
    }

    fn load(&self) -> Loaded {
        let environment = |name: &str| match name {
            "WAREHOUSE_URL" => Some("lake://me:warehouse-password@host/db".to_owned()),
            "TOKEN" => Some("crm-token".to_owned()),
            _ => None,
        };
        self.load_with(false, &environment).0.unwrap()
    }

    /// The project; fails the test when anything at all was found.
    fn project(&self) -> Project {
        let loaded = self.load();
        assert_eq!(lines(&loaded), [] as [&str; 0]);
        loaded.project.unwrap()
    }
}

/// Every finding as `file:line: message (hint)`, warnings marked with `~`.
fn lines(loaded: &Loaded) -> Vec<String> {
    let line = |f: &Finding| {
        let mark = if f.severity == Severity::Warning { "~" } else { "" };
        let hint = f.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
        format!("{mark}{}: {}{hint}", f.place, f.message)
    };
    loaded.findings.iter().map(line).collect()
}

#[test]
fn a_project_becomes_specs_that_hold_each_other() {
    let folder = Folder::new();
    folder
        .with("levin.yml", "name: demo\nlease: 2m\nstore: sqlite://x.db\n")
        .with("sql/orders.sql", "select 2 as a, 3 as b\n")
        .with(
            "models/orders.yml",
            "source: wh\nprimary_key: [a, b]\nsql_file: sql/orders.sql\nslug: all-orders\n",
        )
        .with("models/plain.yaml", "source: wh\nprimary_key: id\ntable: shop.plain\n")
        .with(
            "syncs/full.yml",
            "model: all-orders
destination: crm
mode: mirror
object: orders
match: [{from: a, to: A}, {from: b, to: B}]
mappings:
  - {from: email, to: email}
  - {template: '{{ row.first_name | upper }}', to: first}
  - {value: null, to: gone}
  - {value: {a: [1, 2.5]}, to: made}
  - {variable: run_id, to: run}
  - {to: address, object: [{from: city, to: city}, {to: tags, array: [{from: t}, {value: x}]}]}
guards: {max_removed: {percent: 5, rows: 100}, min_rows: 1}
schedule: {after: [to-crm]}
on_duplicate_key: fail
not_found: skip
batch: 7
",
        );
    let project = folder.project();
    assert_eq!((project.name.as_str(), project.lease), ("demo", Duration::from_secs(120)));
    assert_eq!(project.store_url, "sqlite://x.db");

    let sync = project.sync("full").unwrap();
    assert!(Arc::ptr_eq(&sync.model.source, project.source("wh").unwrap()));
    assert!(Arc::ptr_eq(&sync.destination, &project.sync("to-crm").unwrap().destination));
    assert_eq!((sync.mode, sync.on_removed), (Mode::Mirror, OnRemoved::Delete));
    assert_eq!(sync.object.as_deref(), Some("orders"));
    assert_eq!(sync.model.primary_key, ["a", "b"]);
    assert_eq!(sync.model.query, ModelQuery::Sql("select 2 as a, 3 as b\n".to_owned()));
    assert_eq!(project.model("plain").unwrap().query, ModelQuery::Table("shop.plain".to_owned()));
    let field = |from: &str, to: &str| MatchField { from: from.to_owned(), to: to.to_owned() };
    assert_eq!(sync.matching, [field("a", "A"), field("b", "B")]);
    let mapping = |to: &str, value: MappingValue| Mapping { to: to.to_owned(), value };
    let column = |name: &str| MappingValue::Column(name.to_owned());
    assert_eq!(
        sync.mappings,
        Mappings::Fields(vec![
            mapping("email", column("email")),
            mapping("first", MappingValue::Template("{{ row.first_name | upper }}".to_owned())),
            mapping("gone", MappingValue::Constant(Value::Null)),
            mapping("made", MappingValue::Constant(json!({"a": [1, 2.5]}))),
            mapping("run", MappingValue::Variable(Variable::RunId)),
            mapping(
                "address",
                MappingValue::Object(vec![
                    mapping("city", column("city")),
                    mapping(
                        "tags",
                        MappingValue::Array(vec![column("t"), MappingValue::Constant(json!("x"))])
                    ),
                ])
            ),
        ])
    );
    assert_eq!(sync.guards.max_removed, Limit { percent: Some(5.0), rows: Some(100) });
    assert_eq!(sync.guards.max_set_aside, Guards::default().max_set_aside);
    assert_eq!(sync.schedule, Some(Schedule::After(vec!["to-crm".to_owned()])));
    assert_eq!(sync.options, json!({"batch": 7}));

    let plain = project.sync("to-crm").unwrap();
    assert_eq!((plain.mode, plain.on_removed), (Mode::Upsert, OnRemoved::Nothing));
    assert_eq!((plain.mappings.clone(), plain.guards.clone()), (Mappings::AllColumns, Guards::default()));
    let source = project.source("wh").unwrap();
    assert_eq!(source.engine, Engine::Lightning);
    assert_eq!(
        (source.planner_schema.as_str(), source.audit_schema.as_str()),
        ("levin_planner", "levin_audit")
    );
    assert_eq!(
        source.warehouse.identity(),
        r#"{"url":"lake://me:warehouse-password@host/db"} for wh"#,
        "connectors get their own keys, resolved"
    );
    let missing = project.sync("to-crn").unwrap_err();
    assert_eq!(missing.code, ErrorCode::Usage);
    assert_eq!(missing.advice(), "did you mean `to-crm`?");
}

#[test]
fn all_mistakes_of_all_files_come_at_once_each_with_its_line() {
    let folder = Folder::new();
    folder
        .with("levin.yml", "name: ''\nstroe: x\nlease: soon\n")
        .with("sources/wh.yml", "type: lake\nurl: ${WAREHOUSE_URL}\npool: 0\n")
        .with("sources/lake2.yml", "type: laek\nanything: goes\n")
        .with("sources/lake3.yml", "type: lake\nurl: ${WAREHOUSE_URL}\nengine: basic\n")
        .with("models/customers.yml", "source: hw\nprimary_key: [id, id]\nsql: select 1\ntable: t\n")
        .with("models/none.yml", "source: wh\nprimary_key: id\n")
        .with("models/file.yml", "source: wh\nprimary_key: id\nsql_file: nowhere.sql\n")
        .with("models/again.yml", "source: wh\nprimary_key: id\ntable: t\nslug: customers\n")
        .with("models/bad name.yml", "source: wh\nprimary_key: id\ntable: t\n")
        .with("destinations/out.yml", "type: folder\ntoken: x\n")
        .with("models/broken.yml", "source: wh\nsource: wh\n")
        .with("models/empty.yml", "")
        .with(
            "syncs/to-crm.yml",
            "model: customer
destination: crm
mode: all
on_removed: clear
btach: 5
mappings:
  - {from: a, template: b, to: x}
  - {to: y}
  - {from: b}
  - {from: c, to: z}
  - {template: '{{ oh', to: z}
  - {to: o, object: [{from: a, to: k}, {from: b, to: k}]}
  - {to: l, array: [{from: a, to: k}]}
schedule: {every: 15x}
",
        )
        .with(
            "syncs/mirror.yml",
            "model: customers\ndestination: crm\nmode: mirror\non_removed: nothing\nobject: c\n",
        )
        .with("syncs/clear.yml", "model: none\ndestination: crm\non_removed: clear\nobject: c\n")
        .with("syncs/a.yml", "model: none\ndestination: out\nformat: jsonl\n")
        .with("syncs/b.yml", "model: none\ndestination: out\nmode: diff\non_removed: delete\nformat: xml\n")
        .with(
            "syncs/c.yml",
            "model: none\ndestination: nope\nformat: jsonl\nschedule: {after: [d]}\nmode: diff\n",
        )
        .with(
            "syncs/d.yml",
            "model: none\ndestination: out\nmode: diff\nformat: csv\nschedule: {after: [c, zz]}\n",
        )
        .with("sequences/s.yml", "syncs: [a, aa]\nschedule: {cron: '* * * *'}\n");
    let loaded = folder.load();
    assert!(loaded.project.is_none());
    let found = lines(&loaded);
    let expected = [
        "destinations/out.yml:2: unknown key `token` (other keys: `runs_at_once`, `slug`, `renamed_from`, `alerts`)",
        "levin.yml:1: `name` is empty",
        "levin.yml:2: unknown key `stroe` (did you mean `store`?)",
        "levin.yml:3: `lease`: `soon` is not a duration such as `30s`, `15m`, `2h` or `1h30m`",
        "models/bad name.yml:1: the file's name `bad name` cannot be a slug \
         (rename the file to letters, digits, `-`, `_` and `.`, or give it a `slug:`)",
        "models/broken.yml:2: the key stands here twice (keep one of the two)",
        "models/customers.yml:1: there is no source `hw` (did you mean `wh`?)",
        "models/customers.yml:1: two models have the slug `customers`: `models/again.yml` is the other \
         (give one of them another `slug:`)",
        "models/customers.yml:2: `primary_key` names `id` twice",
        "models/customers.yml:4: the model has more than one of `sql`, `table` (keep one of them)",
        "models/empty.yml:1: the file is empty (`levin schema` lists the keys; delete the file if it is not needed)",
        "models/file.yml:3: the file `nowhere.sql` cannot be read: it does not exist \
         (the path starts at the project's folder)",
        "models/none.yml:1: the model has none of `sql`, `sql_file`, `table`, `dbt` \
         (write `sql: select …`, or `table: schema.table`)",
        "sequences/s.yml:1: there is no sync `aa` (did you mean `a`?)",
        "sequences/s.yml:2: `* * * *` is no cron expression",
        "sources/lake2.yml:1: there is no source of type `laek` (did you mean `lake`?)",
        "sources/lake3.yml:3: `engine: basic` is not built yet: levin computes differences inside the warehouse \
         (leave `engine` out, and let levin write its two managed schemas: `levin grants SOURCE` prints how)",
        "sources/wh.yml:3: `pool`: needs at least 1",
        "syncs/a.yml:1: `mode` is missing, and `folder` has no mode `upsert` (modes of `folder`: `diff`, `snapshot`)",
        "syncs/b.yml:4: mode `diff` writes removed rows with their operation: `on_removed` has no meaning with it \
         (leave `on_removed` out)",
        "syncs/b.yml:5: `format` must be one of `jsonl`, `csv`, not the text `xml`",
        "syncs/c.yml:2: there is no destination `nope` (destinations: `crm`, `out`)",
        "syncs/c.yml:4: the sync waits for itself: c after d after c (give one of them another schedule)",
        "syncs/clear.yml:3: `crm` cannot `clear` removed rows (`on_removed` of `crm`: `nothing`, `delete`)",
        "syncs/d.yml:5: there is no sync `zz` (syncs: `a`, `b`, `c`, `clear`, `d`, `mirror`, `to-crm`)",
        "syncs/mirror.yml:4: mode `mirror` always deletes removed rows (leave `on_removed` out, or use mode `upsert`)",
        "syncs/to-crm.yml:1: the key `object` is missing: `crm` needs one \
         (`object` is what the destination calls its table, list, topic or path)",
        "syncs/to-crm.yml:1: there is no model `customer` (did you mean `customers`?)",
        "syncs/to-crm.yml:3: `crm` has no mode `all` (modes of `crm`: `insert`, `update`, `upsert`, `mirror`)",
        "syncs/to-crm.yml:4: mode `all` sends every row and has no removed ones: `on_removed` has no meaning with it \
         (leave `on_removed` out)",
        "syncs/to-crm.yml:5: unknown key `btach` (did you mean `batch`?)",
        "syncs/to-crm.yml:7: the mapping has more than one of `from`, `template` (give exactly one)",
        "syncs/to-crm.yml:8: the mapping has none of `from`, `template`, `value`, `variable`, `object`, `array` \
         (give exactly one)",
        "syncs/to-crm.yml:9: the mapping has no `to` (`to` names the destination's field)",
        "syncs/to-crm.yml:11: the template cannot be read",
        "syncs/to-crm.yml:11: two mappings go to `z`: the other is on line 10 (keep one of the two)",
        "syncs/to-crm.yml:12: two mappings go to `k`: the other is on line 12 (keep one of the two)",
        "syncs/to-crm.yml:13: a value in a list has no `to` (leave it out)",
        "syncs/to-crm.yml:14: `15x` is not a duration such as `30s`, `15m`, `2h` or `1h30m`",
    ];
    for line in expected {
        assert!(found.iter().any(|f| f.starts_with(line)), "missing: {line}\nfound:\n{}", found.join("\n"));
    }
    assert_eq!(found.len(), expected.len(), "{}", found.join("\n"));
    let error = verdict(&loaded.findings).unwrap();
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::ProjectInvalid, "39 mistakes in 19 files"));
    assert!(!folder.0.path().join("levin.lock.yml").exists(), "a project with mistakes gets no numbers");
}

#[test]
fn numbers_are_kept_across_loads_and_renamings() {
    let folder = Folder::new();
    let first = folder.project();
    let lock = folder.read("levin.lock.yml");
    let id = first.sync("to-crm").unwrap().id;
    let again = folder.project();
    assert_eq!((again.uuid, again.sync("to-crm").unwrap().id), (first.uuid, id));
    assert_eq!(folder.read("levin.lock.yml"), lock);

    folder.without("syncs/to-crm.yml").with(
        "syncs/renamed.yml",
        "model: customers\ndestination: crm\nobject: contacts\nrenamed_from: to-crm\n",
    );
    assert_eq!(folder.project().sync("renamed").unwrap().id, id);
    assert_eq!(folder.project().sync("renamed").unwrap().id, id, "a second load changes nothing");

    folder.with("syncs/to-crm.yml", "model: customers\ndestination: crm\nobject: contacts\n");
    let project = folder.project();
    assert_eq!(project.sync("renamed").unwrap().id, id);
    assert_eq!(project.sync("to-crm").unwrap().id, id + 1, "another sync under the old name is another sync");

    folder.with("syncs/third.yml", "model: customers\ndestination: crm\nobject: c\nrenamed_from: to-crm\n");
    assert_eq!(
        lines(&folder.load()),
        ["syncs/third.yml:4: the sync `to-crm` is still there \
          (delete the file of `to-crm`, or take `renamed_from` out of this one)"]
    );
    folder.with("syncs/third.yml", "model: customers\ndestination: crm\nobject: c\nrenamed_from: ghost\n");
    let loaded = folder.load();
    assert!(loaded.project.is_some());
    assert!(lines(&loaded)[0].starts_with("~syncs/third.yml:4: no sync `ghost` ever had an id"));
}

#[test]
fn a_lock_file_that_contradicts_itself_stops_everything() {
    let folder = Folder::new();
    folder.project();
    let lock = folder.read("levin.lock.yml");
    folder.with("levin.lock.yml", &lock.replace("  crm: 1", "  crm: 2"));
    let loaded = folder.load();
    assert!(loaded.project.is_none());
    let error = verdict(&loaded.findings).unwrap();
    assert_eq!(error.code, ErrorCode::LockFileInvalid);
    let line = lock.lines().position(|line| line == "  out: 2").unwrap() + 1;
    assert!(lines(&loaded)[0].starts_with(&format!("levin.lock.yml:{line}: ")), "{:?}", lines(&loaded));
    assert!(lines(&loaded)[0].contains("both have the id 2"));
    let broken = folder.read("levin.lock.yml");
    assert!(broken.contains("  crm: 2"), "a broken lock file is left as it is");
}

#[test]
fn two_loads_at_once_agree_on_the_numbers() {
    let folder = Folder::new();
    for number in 0..20 {
        let text = "model: customers\ndestination: crm\nobject: contacts\n";
        folder.with(&format!("syncs/s{number}.yml"), text);
    }
    let uuids: Vec<_> = std::thread::scope(|scope| {
        let loads: Vec<_> = (0..4).map(|_| scope.spawn(|| folder.project().uuid)).collect();
        loads.into_iter().map(|load| load.join().unwrap()).collect()
    });
    assert!(uuids.iter().all(|uuid| *uuid == uuids[0]), "{uuids:?}");
}

#[test]
fn missing_secrets_stop_a_run_and_only_warn_offline() {
    let folder = Folder::new();
    let nothing = |_: &str| None;
    let loaded = folder.load_with(false, &nothing).0.unwrap();
    assert!(loaded.project.is_none());
    assert_eq!(
        lines(&loaded),
        [
            "destinations/crm.yml:2: the environment has no variable `TOKEN` (export TOKEN=…)",
            "sources/wh.yml:2: the environment has no variable `WAREHOUSE_URL` (export WAREHOUSE_URL=…)",
        ]
    );
    assert_eq!(verdict(&loaded.findings).unwrap().code, ErrorCode::SecretMissing);

    folder.with("syncs/typo.yml", "model: customers\ndestination: crm\nobject: o\nmod: insert\n");
    let loaded = folder.load_with(true, &nothing).0.unwrap();
    let found = lines(&loaded);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].starts_with("~destinations/crm.yml:2") && found[1].starts_with("~sources/wh.yml:2"));
    assert!(found[2].starts_with("syncs/typo.yml:4: unknown key `mod` (did you mean `mode`?)"));
    folder.without("syncs/typo.yml");
    let loaded = folder.load_with(true, &nothing).0.unwrap();
    assert_eq!(verdict(&loaded.findings), None);
    assert!(loaded.project.is_none(), "without its secrets there is no project to run");
}

#[test]
fn secrets_are_known_to_the_redactor_and_in_clear_draw_a_warning() {
    let folder = Folder::new();
    folder.with("destinations/crm.yml", "type: crm\ntoken: token-in-clear\n");
    let environment = |_: &str| Some("lake://me:warehouse-password@host/db".to_owned());
    let (loaded, redactor) = folder.load_with(false, &environment);
    let loaded = loaded.unwrap();
    assert_eq!(
        lines(&loaded),
        ["~destinations/crm.yml:2: the secret `token` stands here in clear \
          (read it from the environment with `${NAME}` or from a file with `${file:path}`)"]
    );
    assert!(loaded.project.is_some());
    assert_eq!(redactor.redact("warehouse-password token-in-clear"), "••• •••");

    // A value that is wrong is shown as written, never as read.
    folder.with("syncs/to-crm.yml", "model: customers\ndestination: crm\nobject: x\nmode: ${MODE}\n");
    let (loaded, _) = folder.load_with(false, &environment);
    let text = lines(&loaded.unwrap()).join("\n");
    assert!(text.contains("not the text `${MODE}`") && !text.contains("warehouse-password"), "{text}");
}

#[test]
fn a_folder_without_levin_yml_is_no_project() {
    let folder = tempfile::tempdir().unwrap();
    let options = LoadOptions { offline: true, environment: &|_| None };
    let error = load(folder.path(), &catalogue(), &Redactor::default(), options).unwrap_err();
    assert_eq!(error.code, ErrorCode::ProjectNotFound);
    assert!(error.message.contains("levin.yml"));
}

#[tokio::test]
async fn looking_online_names_every_source_and_destination_in_trouble() {
    let project = Folder::new().project();
    let troubles = crate::check::online(&project).await;
    let subjects: Vec<&str> = troubles.iter().map(|trouble| trouble.subject.as_str()).collect();
    assert_eq!(subjects, ["source wh", "destination crm", "destination out"]);
    assert_eq!(troubles[0].error.code, ErrorCode::SourceUnreachable);
    assert_eq!(troubles[1].error.code, ErrorCode::DestinationUnusable);
    assert_eq!(troubles[1].error.advice(), "open it");
}

#[test]
fn published_schemas_know_the_keys_of_every_connector() {
    let catalogue = catalogue();
    let valid = |kind: Kind, value: Value| {
        jsonschema::validator_for(&published(&catalogue, kind)).unwrap().is_valid(&value)
    };
    assert!(valid(Kind::Source, json!({"type": "lake", "url": "x", "engine": "basic"})));
    assert!(!valid(Kind::Source, json!({"type": "lake"})), "a connector's key is required");
    assert!(!valid(Kind::Source, json!({"type": "lake", "url": "x", "ulr": "y"})));
    assert!(!valid(Kind::Destination, json!({"type": "lake"})));
    assert!(valid(Kind::Sync, json!({"model": "m", "destination": "d", "batch": 1})));
    assert!(valid(Kind::Sync, json!({"model": "m", "destination": "d", "format": "csv"})));
    assert!(!valid(Kind::Sync, json!({"model": "m", "destination": "d", "fromat": "csv"})));

    let together = published_together(&catalogue);
    let part = json!({"$ref": "levin:sync", "$defs": together["$defs"]});
    let validator = jsonschema::validator_for(&part).unwrap();
    assert!(validator.is_valid(&json!({"model": "m", "destination": "d", "batch": 1})));
    assert!(!validator.is_valid(&json!({"model": "m"})));
}

#[test]
fn relative_secrets_and_models_start_at_the_project() {
    let folder = Folder::new();
    folder
        .with("key.txt", "secret-from-file\n")
        .with("destinations/crm.yml", "type: crm\ntoken: ${file:key.txt}\n");
    let project = folder.project();
    let spec = &project.destination("crm").unwrap().destination;
    assert!(format!("{spec:?}").contains("secret-from-file"));
    assert_eq!(project.root, Path::new(folder.0.path()));
}
