//! Killed where the warehouse undoes nothing that makes, changes or drops tables: what a run did of that stays, and
//! the next one goes on from there. MariaDB stands for all of them.

use orchestrator::failpoints::NAMES;
use tests::project::{Engine, Project, Run, Running, levin_with_failpoints};
use tests::receiver::{Receiver, Reply};

use crate::clearing;

/// The points between the steps by which a changed shape is put in place.
pub const POINTS: &[&str] = &["diff.before_put"];
/// How often each of them is passed.
const TIMES: u32 = 3;

const SYNC: &str = "people";

/// The steps by which the tables of a snapshot are made.
const BETWEEN: &[&str] =
    &["deliver.before_establish", "deliver.before_establish:2", "deliver.before_establish:3"];

struct People {
    project: Project,
    receiver: Receiver,
}

impl People {
    fn new() -> Self {
        let receiver = Receiver::start();
        let project = Project::new(Engine::MariaDb).with_variable("TO", &receiver.url());
        project.sql("create table people (id integer, name varchar(20), city varchar(20))");
        project.sql(
            "insert into people values (1, 'ann', 'x'), (2, 'bob', null), (3, 'cid', 'y'), (4, 'dan', 'z')",
        );
        project.write(
            "destinations/out.yml",
            "type: http_request\nbase_url: ${TO}\nallow_private_networks: true\nconcurrency: 1\nretries: 0\n",
        );
        let people = Self { project, receiver };
        people.model("select id, name from people");
        people.sync("mode: mirror");
        people
    }

    fn sync(&self, mode: &str) {
        self.sync_to("/rows", mode);
    }

    fn sync_to(&self, path: &str, mode: &str) {
        self.project.write(
            "syncs/people.yml",
            &format!(
                "model: people\ndestination: out\n{mode}\nguards: {{max_removed: {{percent: 90}}}}\n\
                 each: {{method: POST, path: {path}, batch_size: 1}}\nclear: {{path: /clear}}\n"
            ),
        );
    }

    fn model(&self, sql: &str) {
        self.project.write("models/people.yml", &format!("source: wh\nprimary_key: id\nsql: {sql}\n"));
    }

    /// Three rows that differ, and columns that came and went.
    fn change(&self) {
        self.project.sql("update people set name = 'eve' where id = 1");
        self.project.sql("delete from people where id = 4");
        self.project.sql("insert into people values (5, 'fay', 'x')");
        self.model("select id, city, name from people");
    }

    fn killed_at(&self, point: &str, more: &[&str]) {
        let arguments = [&["run", SYNC, "--json"], more].concat();
        let mut command = self.project.command_of(levin_with_failpoints(), &[], &arguments);
        command.env("LEVIN_KILL_AT", point);
        let killed = Running::start(command).ended();
        assert_eq!(killed.code, -9, "{point}: {killed:?}");
    }

    fn run(&self) -> Run {
        let run = self.project.run(SYNC);
        assert_eq!((run.code, run.status()), (0, "success"), "{run:#?}");
        run
    }

    /// The destination holds what the model returns, and nothing is left over.
    fn assert_all_is_well(&self, point: &str) {
        let there: Vec<String> = self
            .receiver
            .rows()
            .iter()
            .map(|(key, fields)| format!("{key} {} {}", fields["name"], fields["city"]))
            .collect();
        assert_eq!(
            there,
            ["1 \"eve\" \"x\"", "2 \"bob\" null", "3 \"cid\" \"y\"", "5 \"fay\" \"x\""],
            "{point}"
        );
        self.project.assert_quiet(SYNC, &self.receiver);
        for word in ["diff", "model", "set\\_aside", "outcomes", "snapshot", "doubts", "rejections"] {
            let left = self.project.managed(&format!("%\\_{word}\\_%"));
            assert!(left.is_empty(), "{point}: {left:?}");
        }
    }
}

#[test]
fn at_every_point_of_a_changed_shape() {
    let first = ["deliver.before_establish", "deliver.after_establish"];
    let refused = ["commit.before_outcomes", "commit.after_outcomes"];
    let mut points: Vec<String> = NAMES
        .iter()
        .filter(|n| {
            !clearing::POINTS.contains(n) && !first.contains(n) && !refused.contains(n) && !POINTS.contains(n)
        })
        .map(|name| format!("{name}:1"))
        .collect();
    points.extend(POINTS.iter().flat_map(|name| (1..=TIMES).map(move |time| format!("{name}:{time}"))));
    for point in points {
        let people = People::new();
        people.run();
        people.change();
        people.killed_at(&point, &[]);
        let before = people.receiver.count();
        let plan = people.project.levin(&["plan", SYNC, "--json"]);
        let goes_on = plan.code == 0 || plan.stderr.contains("INTERRUPTED");
        assert!(goes_on && people.receiver.count() == before, "{point}: {plan:?}");
        people.run();
        people.assert_all_is_well(&point);
    }
}

#[test]
fn between_the_tables_of_a_first_run() {
    for point in [BETWEEN, &["deliver.after_establish", "deliver.after_begin", "commit.after"]].concat() {
        let people = People::new();
        people.change();
        people.killed_at(point, &[]);
        people.run();
        people.assert_all_is_well(point);
    }
}

#[test]
fn while_the_destination_is_emptied_for_another_mode() {
    for point in [clearing::ANEW, BETWEEN].concat() {
        if point == "deliver.before_clear_note" {
            continue;
        }
        let people = People::new();
        people.run();
        people.change();
        people.sync("mode: insert\non_removed: delete");
        people.killed_at(point, &["--clear-and-fill"]);
        people.run();
        people.assert_all_is_well(point);
    }
}

#[test]
fn while_tables_are_made_for_another_destination() {
    for point in BETWEEN {
        let people = People::new();
        people.run();
        people.change();
        people.sync_to("/elsewhere", "mode: mirror");
        people.killed_at(point, &["--full-resync"]);
        // Who refuses to be emptied changes nothing of that.
        people.sync_to("/third", "mode: mirror");
        people.receiver.behave(|_| Reply::status(422));
        let refused = people.project.run_with(SYNC, &["--clear-and-fill"]);
        assert_eq!(refused.error(), "DESTINATION_REFUSED", "{point}: {refused:#?}");
        people.receiver.accept();
        assert_eq!(people.project.run(SYNC).error(), "TARGET_CHANGED", "{point}");
        // Where the file is put back, nobody knows any more what was accepted there.
        people.sync("mode: mirror");
        let before = people.receiver.count();
        let run = people.project.run(SYNC);
        if *point == BETWEEN[0] {
            assert_eq!(run.code, 0, "{point}: {run:#?}");
        } else {
            assert_eq!(
                (run.error(), people.receiver.count()),
                ("TARGET_CHANGED", before),
                "{point}: {run:#?}"
            );
            people.sync_to("/elsewhere", "mode: mirror");
            people.run();
        }
    }
}
