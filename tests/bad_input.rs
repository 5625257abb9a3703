//! What people get wrong, and what the world does to them: a clear code, the right exit code, a page,
//! nothing sent and nothing lost, and a next run that goes on. The real `levin` on real warehouses.

#[path = "bad_input/access.rs"]
mod access;
#[path = "bad_input/encoding.rs"]
mod encoding;
#[path = "bad_input/files.rs"]
mod files;
#[path = "bad_input/grants.rs"]
mod grants;
#[path = "bad_input/models.rs"]
mod models;
#[path = "bad_input/names.rs"]
mod names;
#[path = "bad_input/sizes.rs"]
mod sizes;
#[path = "bad_input/types.rs"]
mod types;

use std::collections::BTreeSet;
use std::sync::Mutex;

use tests::project::{Ended, Engine, Project, Run};
use tests::receiver::Receiver;

/// The sync of every case.
const SYNC: &str = "rows-to-crm";

/// A project with one model and one sync to a receiver.
struct Case {
    project: Project,
    receiver: Receiver,
}

impl Case {
    /// Runs `setup` in a new warehouse. The model's key is `id` and its rows are those of the table `t`.
    fn new(engine: Engine, setup: &str) -> Self {
        Self::of(Project::new(engine), setup)
    }

    /// The same, in this project.
    fn of(project: Project, setup: &str) -> Self {
        let receiver = Receiver::start();
        let project = project.with_variable("CRM_URL", &receiver.url());
        if !setup.is_empty() {
            project.sql(setup);
        }
        project.write(
            "destinations/crm.yml",
            "type: http_request\nbase_url: ${CRM_URL}\nallow_private_networks: true\nconcurrency: 1\nretries: 0\n",
        );
        let case = Self { project, receiver };
        case.model("id", "select * from t");
        case.sync("mode: mirror");
        case
    }

    /// Three rows of `id` and `name`.
    fn small(engine: Engine) -> Self {
        Self::new(
            engine,
            "create table t (id integer, name text); insert into t values (1, 'a'), (2, 'b'), (3, 'c')",
        )
    }

    fn model(&self, key: &str, sql: &str) {
        // As JSON, which is YAML too: no quoting to get wrong.
        let model = serde_json::json!({ "source": "wh", "primary_key": key, "sql": sql });
        self.project.write("models/rows.yml", &model.to_string());
    }

    fn sync(&self, more: &str) {
        let each = "each: {method: POST, path: /rows, batch_size: 100}";
        self.project
            .write(&format!("syncs/{SYNC}.yml"), &format!("model: rows\ndestination: crm\n{each}\n{more}\n"));
    }

    fn run(&self) -> Run {
        self.project.run(SYNC)
    }

    /// Runs the sync, which must succeed with these counts of added, changed and removed rows.
    fn sends(&self, counts: [u64; 3]) -> Run {
        let run = self.run();
        assert_eq!((run.code, run.status()), (0, "success"), "{run:#?}");
        assert_eq!((run.planned(), run.successful()), (counts, counts), "{run:#?}");
        run
    }

    fn quiet(&self) {
        self.project.assert_quiet(SYNC, &self.receiver);
    }

    /// Runs the sync, which must fail with this code, exit code 2 and these words, and send nothing.
    fn fails(&self, code: &str, words: &[&str]) -> Run {
        let before = self.receiver.count();
        let run = self.run();
        assert_eq!((run.code, run.status(), run.error()), (2, "failed", code), "{run:#?}");
        assert_eq!(self.receiver.count(), before, "something was sent: {run:#?}");
        let hint = run.report["error"]["hint"].as_str().unwrap_or_default();
        let said = format!("{} {hint}", run.message());
        says(&said, words);
        explained(&self.project, code);
        run
    }

    /// `check` finds this too.
    fn check_finds(&self, code: &str, exit: i32, words: &[&str]) {
        let ended = self.project.levin(&["check"]);
        assert_eq!(ended.code, exit, "{ended:#?}");
        says(&ended.stderr, &[&[format!("error[{code}]").as_str()], words].concat());
    }

    /// `check` finds nothing wrong, and leaves nothing behind.
    fn check_passes(&self) {
        let ended = self.project.levin(&["check"]);
        assert_eq!(ended.code, 0, "{ended:#?}");
        says(&ended.stderr, &["ok: 1 source, 1 model, 1 destination, 1 sync"]);
    }
}

/// Every word stands in the text.
fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
}

/// A command failed like this; its words are on standard error, nothing is on standard output.
fn failed(project: &Project, ended: &Ended, exit: i32, code: &str, words: &[&str]) {
    assert_eq!((ended.code, ended.stdout.as_str()), (exit, ""), "{ended:#?}");
    says(&ended.stderr, &[&[format!("error[{code}]").as_str(), "hint: "], words].concat());
    assert!(!ended.stderr.contains("INTERNAL") && !ended.stderr.contains("panicked"), "{ended:#?}");
    explained(project, code);
}

/// `levin explain` has the page of a code.
fn explained(project: &Project, code: &str) {
    static SEEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if !SEEN.lock().expect("no panic while it is held").insert(code.to_owned()) {
        return;
    }
    let page = project.levin(&["explain", code]);
    assert_eq!(page.code, 0, "{page:#?}");
    says(&page.stdout, &[&format!("# {code}"), "## What to do", "## What is safe"]);
}

/// The address with another role, and a password where one is given.
fn as_role(url: &str, role: &str, password: Option<&str>) -> String {
    let (scheme, rest) = url.split_once("://").expect("an address");
    let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
    let password = password.map(|p| format!(":{p}")).unwrap_or_default();
    format!("{scheme}://{role}{password}@{place}")
}
