//! What the service does while nobody watches: schedules, follow-ups, sequences, new files, ends and new beginnings.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tests::process::{Running, levin_binary, levin_with_failpoints};
use tests::project::{Engine, Project};
use tests::receiver::{Hold, Receiver, Reply};
use tests::service::Served;

/// A project with a receiver behind it, whose syncs the tests write.
struct Unattended {
    project: Project,
    receiver: Receiver,
}

impl Unattended {
    fn new(engine: Engine) -> Self {
        let receiver = Receiver::start();
        let project = Project::new(engine).with_variable("TO", &receiver.url());
        project.sql("create table people (id bigint, name text)");
        project.sql("insert into people values (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd')");
        project.write("levin.yml", "name: unattended\nlease: 10s\n");
        project.write("models/people.yml", "source: wh\nprimary_key: id\ntable: people\n");
        project.write(
            "destinations/to.yml",
            "type: http_request\nbase_url: ${TO}\nallow_private_networks: true\ntimeout: 4s\nretries: 0\nconcurrency: 1\n",
        );
        Self { project, receiver }
    }

    fn sync(&self, name: &str, more: &str) {
        self.project.write(
            &format!("syncs/{name}.yml"),
            &format!("model: people\ndestination: to\nmode: mirror\neach: {{path: /{name}, batch_size: 1}}\n{more}\n"),
        );
    }

    fn serve(&self) -> Running {
        let mut serving = Running::start(self.project.command_of(
            levin_binary(),
            &[],
            &["serve", "--listen", "127.0.0.1:0"],
        ));
        serving.hears("listening on");
        serving
    }

    /// The runs of a sync, the oldest first.
    fn runs(&self, sync: &str) -> Vec<Value> {
        let mut runs = self.project.history();
        runs.retain(|run| run["syncSlug"] == sync);
        runs.reverse();
        runs
    }

    fn ended(&self, sync: &str) -> usize {
        self.runs(sync).iter().filter(|run| !run["finishedAt"].is_null()).count()
    }

    fn statuses(&self, sync: &str) -> Vec<String> {
        self.runs(sync).iter().map(|run| run["status"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    tests::service::until(what, || holds().then_some(()));
}

#[test]
fn an_interval_runs_again_and_again_and_missed_ticks_are_one_run() {
    let world = Unattended::new(Engine::DuckDb);
    world.sync("often", "schedule: {every: 1s}");
    let serving = world.serve();
    until("three runs", || world.ended("often") >= 3);
    serving.terminate();
    assert_eq!(serving.ended().code, 0);
    let before = world.runs("often").len();
    // Several ticks pass while nobody is there.
    std::thread::sleep(Duration::from_millis(3_500));
    world.sync("often", "schedule: {every: 1h}");
    let serving = world.serve();
    std::thread::sleep(Duration::from_secs(2));
    serving.terminate();
    serving.ended();
    let caught_up = world.runs("often").len() - before;
    assert!(caught_up <= 1, "{caught_up} runs for ticks that were missed");
    assert!(
        world.statuses("often").iter().all(|status| status == "success"),
        "{:?}",
        world.statuses("often")
    );
}

#[test]
fn what_is_asked_to_end_in_mid_run_goes_on_as_the_same_run() {
    let world = Unattended::new(Engine::Postgres);
    world.sync("slow", "schedule: {every: 1h}");
    let hold = Hold::default();
    let held = hold.clone();
    world.receiver.behave(move |r| if r.number == 1 { Reply::accept().held(&held) } else { Reply::accept() });
    let serving = Served::start(&world.project);
    world.receiver.wait_for(2);
    serving.signal(Signal::TERM);
    serving.hears("asked to end");
    hold.release();
    assert_eq!(serving.ended(), 0);
    let runs = world.runs("slow");
    assert_eq!((runs.len(), &runs[0]["status"]), (1, &Value::from("queued")), "{runs:#?}");
    let sent = world.receiver.count();
    assert!(sent < 4, "it should have stopped before the last row");
    let serving = world.serve();
    until("the run ends", || world.ended("slow") == 1);
    serving.terminate();
    serving.ended();
    let runs = world.runs("slow");
    assert_eq!((runs.len(), &runs[0]["status"]), (1, &Value::from("success")), "{runs:#?}");
    assert_eq!(runs[0]["successfulRows"]["addedCount"], 4, "both parts count: {runs:#?}");
    assert_eq!(world.receiver.count(), 4, "nothing is sent twice");
}

#[test]
fn a_resync_that_is_asked_to_end_in_its_middle_begins_again() {
    let world = Unattended::new(Engine::Postgres);
    world.sync("slow", "");
    let key = world.project.key("boss", "admin");
    let serving = Served::start(&world.project);
    let ask = |serving: &Served, body: Value| {
        let asked = serving.post(&key, "/api/v1/syncs/1/trigger", &body);
        assert_eq!(asked.status, 200, "{asked:?}");
    };
    ask(&serving, json!({}));
    until("the first run ends", || world.ended("slow") == 1);
    let hold = Hold::default();
    let held = hold.clone();
    world.receiver.behave(move |r| if r.number == 5 { Reply::accept().held(&held) } else { Reply::accept() });
    ask(&serving, json!({"fullResync": true}));
    world.receiver.wait_for(6);
    ask(&serving, json!({}));
    serving.signal(Signal::TERM);
    serving.hears("asked to end");
    hold.release();
    assert_eq!(serving.ended(), 0);
    assert!(world.receiver.count() < 8, "it should have stopped before the last row");
    let serving = Served::start(&world.project);
    until("the resync and the run that waited end", || world.ended("slow") == 3);
    assert_eq!(serving.stop(), 0);
    assert_eq!(world.statuses("slow"), ["success", "success", "success"]);
    assert_eq!(world.receiver.count(), 8, "each row twice: once added, once by the resync");
}

#[test]
fn what_is_killed_in_mid_run_is_taken_over_as_the_same_run() {
    let world = Unattended::new(Engine::Postgres);
    world.sync("slow", "schedule: {every: 1h}");
    let hold = Hold::default();
    let held = hold.clone();
    world.receiver.behave(move |r| if r.number == 2 { Reply::accept().held(&held) } else { Reply::accept() });
    let serving = world.serve();
    world.receiver.wait_for(3);
    serving.kill();
    hold.release();
    world.receiver.accept();
    let serving = world.serve();
    until("the run ends", || world.ended("slow") == 1);
    serving.terminate();
    serving.ended();
    assert_eq!(world.statuses("slow"), ["success"]);
    assert_eq!(world.receiver.keys(), ["1", "2", "3", "4"]);
    assert!(world.receiver.count() <= 5, "only what was under way may be sent twice");
}

#[test]
fn what_dies_before_its_end_is_written_ends_all_the_same_and_sends_nothing_again() {
    let world = Unattended::new(Engine::Postgres);
    world.sync("done", "schedule: {every: 1h}");
    world.sync("next", "schedule: {after: [done]}");
    let mut command =
        world.project.command_of(levin_with_failpoints(), &[], &["serve", "--listen", "127.0.0.1:0"]);
    let serving = Running::start({
        command.env("LEVIN_KILL_AT", "store.finish");
        command
    });
    assert_eq!(serving.ended().code, -9);
    assert_eq!(world.receiver.count(), 4);
    let serving = world.serve();
    until("what follows has run", || world.ended("next") == 1);
    serving.terminate();
    serving.ended();
    assert_eq!(world.statuses("done"), ["success"], "one run, which ended");
    let again = world.receiver.requests().iter().filter(|request| request.path == "/done").count();
    assert_eq!(again, 4, "what was committed is not sent again");
}

#[test]
fn a_sync_follows_all_its_parents_and_a_sequence_stops_where_it_says() {
    let world = Unattended::new(Engine::DuckDb);
    world.sync("a", "schedule: {every: 1h}");
    world.sync("b", "schedule: {every: 1h}");
    world.sync("after-both", "schedule: {after: [a, b]}");
    world.sync("bad", "guards: {max_added: {rows: 1}}");
    world.sync("last", "");
    world.sync("evening", "");
    world.project.write("sequences/evening.yml", "syncs: [evening]\nschedule: {after: [a, b]}\n");
    world.project.write(
        "sequences/goes-on.yml",
        "syncs:\n  - {sync: bad, on_failure: continue}\n  - last\nschedule: {every: 1h}\n",
    );
    let serving = world.serve();
    let all = ["after-both", "last", "evening"];
    until("the followers and the last member", || all.iter().all(|name| world.ended(name) == 1));
    world.project.write("sequences/stops.yml", "syncs: [bad, a]\nschedule: {every: 1h}\n");
    serving.signal(Signal::HUP);
    until("the member that fails", || world.ended("bad") == 2);
    std::thread::sleep(Duration::from_secs(2));
    serving.terminate();
    serving.ended();
    assert_eq!(world.statuses("bad"), ["failed", "failed"]);
    assert_eq!(world.statuses("a"), ["success"], "the sequence stopped before it");
    assert_eq!(world.statuses("after-both"), ["success"]);
}

#[test]
fn a_project_that_goes_wrong_keeps_the_one_before_and_says_so() {
    let world = Unattended::new(Engine::Postgres);
    world.sync("steady", "schedule: {every: 1s}");
    let mut serving = world.serve();
    until("a run", || world.receiver.keys().len() == 4);
    world.project.write("syncs/broken.yml", "model: nobody\n");
    serving.signal(Signal::HUP);
    serving.hears("the one read before stays");
    world.project.sql("insert into people values (5, 'e')");
    until("more runs", || world.receiver.keys().len() == 5);
    // Right again, and changed: nobody has to send a signal. Its SELECT lies where no project file does.
    world.project.remove("syncs/broken.yml");
    world.project.write("sql/people.sql", "select * from people where id < 6");
    world.project.write("models/people.yml", "source: wh\nprimary_key: id\nsql_file: sql/people.sql\n");
    world.sync("new", "schedule: {every: 1h}");
    until("the new sync runs", || world.ended("new") == 1);
    world.project.sql("insert into people values (6, 'f')");
    world.project.write("sql/people.sql", "select * from people");
    until("the other SELECT is read", || world.receiver.keys().len() == 6);
    serving.terminate();
    serving.ended();
}

#[test]
fn a_disabled_sync_rests_and_limits_are_kept() {
    let world = Unattended::new(Engine::Postgres);
    world.project.write(
        "destinations/to.yml",
        "type: http_request\nbase_url: ${TO}\nallow_private_networks: true\nruns_at_once: 1\nconcurrency: 1\n",
    );
    for name in ["one", "two", "three"] {
        world.sync(name, "schedule: {every: 1h}");
    }
    world.sync("resting", "schedule: {every: 1s}\ndisabled: true");
    let serving = world.serve();
    let all = ["one", "two", "three"];
    until("all have run", || all.iter().all(|name| world.ended(name) == 1));
    serving.terminate();
    serving.ended();
    assert!(world.runs("resting").is_empty());
    let mut paths: Vec<String> =
        world.receiver.requests().iter().map(|request| request.path.clone()).collect();
    paths.dedup();
    assert_eq!(paths.len(), 3, "one run at a time sends to it: {paths:?}");
}
