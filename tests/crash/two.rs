//! Two orchestrators on one sync (I5): one runs, and whoever lost its lease sends and commits nothing.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tests::postgres::PostgresServer;
use tests::project::Project;

use crate::oracle;
use crate::receiver::Answer;
use crate::scene::{
    BATCH, CONCURRENCY, Engine, Person, Ran, Scene, Started, Target, Trouble, query, start_in,
};

/// A sync whose lease is as short as its requests allow, with one run behind it and much to send.
fn with_a_short_lease() -> Scene {
    let mut scene = Scene::with(Engine::Postgres, Target::Http, "2s", "timeout: 1s\n");
    scene.edit(|people| people.extend((1..=20).map(|id| (id, Person::new(format!("{id}@first"), id)))));
    oracle::succeeded(&scene.run());
    scene.edit(|people| {
        for id in 1..=12 {
            people.insert(id, Person::new(format!("{id}@second"), id));
        }
        people.remove(&20);
        people.extend((21..=26).map(|id| (id, Person::new(format!("{id}@second"), id))));
    });
    scene
}

/// Moves the model on, so that a late word of the first holder would be a wrong one.
fn move_on(scene: &mut Scene) {
    scene.edit(|people| {
        people.insert(1, Person::new("1@first", 1));
        people.insert(2, Person::new("2@third", 2));
        people.insert(20, Person::new("20@first", 20));
        people.remove(&21);
    });
}

fn lost_its_lease(ran: &Ran) {
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert_eq!(ran.error_code().as_deref(), Some("LEASE_LOST"), "{ran:?}");
    oracle::counts_add_up(&ran.report());
}

fn ends_well(scene: &Scene, folder: &Project) {
    let again = start_in(folder, &[]).wait();
    assert_eq!(oracle::planned(&oracle::succeeded(&again)), 0, "{again:?}");
    assert_eq!(scene.content(), oracle::expected(scene, &scene.content(), &scene.model));
    oracle::no_table_is_left_over(scene);
    let told = oracle::requests_are_honest(&scene.receiver.requests(), |_, _| true);
    assert!(told.empty_removals <= BATCH * CONCURRENCY, "{told:?}");
}

#[test]
fn a_holder_suspended_in_the_middle_of_sending_sends_and_commits_nothing_more() {
    let mut scene = with_a_short_lease();
    let other = scene.elsewhere();
    scene.receiver.behave(|request| if request.generation == 2 { Answer::Hold } else { Answer::Accept });
    // A removal goes out first and alone; the second request is held too, but comes after it.
    let mut first = scene.start_run(&Trouble::default(), &[]);
    scene.receiver.wait_for_held(1);
    first.signal(Signal::STOP);
    move_on(&mut scene);

    let began = Instant::now();
    let second = start_in(&other, &["--wait", "60s"]).wait();
    let report = oracle::succeeded(&second);
    assert_eq!(report["settled"]["notesLost"], true, "the first one's notes are in its own store: {report}");
    assert!(began.elapsed() > Duration::from_secs(2), "a lease that may still hold is waited for");
    assert!(first.is_running(), "the first is suspended, not gone");
    assert_eq!(scene.content(), oracle::expected(&scene, &scene.content(), &scene.model));

    let before = scene.receiver.requests().len();
    scene.receiver.release();
    first.signal(Signal::CONT);
    lost_its_lease(&first.wait());
    assert_eq!(scene.receiver.requests().len(), before, "the first holder sent again");
    ends_well(&scene, &other);
}

#[test]
fn a_holder_suspended_before_its_commit_commits_nothing() {
    let mut scene = with_a_short_lease();
    let other = scene.elsewhere();
    let sleeping = Trouble { kill_at: None, points: Some("commit.before=sleep(3000)") };
    let before = scene.receiver.requests().len();
    let mut first = scene.start_run(&sleeping, &[]);
    // One removal, twelve changes and six additions.
    let batches = before + 1 + 12 / BATCH + 6 / BATCH;
    until("every batch was answered", || scene.receiver.requests().len() == batches);
    first.signal(Signal::STOP);
    move_on(&mut scene);

    let second = start_in(&other, &["--wait", "60s"]).wait();
    oracle::succeeded(&second);
    assert!(first.is_running());
    let sent = scene.receiver.requests().len();
    first.signal(Signal::CONT);
    lost_its_lease(&first.wait());
    assert_eq!(scene.receiver.requests().len(), sent, "the first holder sent again");
    ends_well(&scene, &other);
}

#[test]
fn a_second_one_is_told_that_the_sync_is_busy_or_waits() {
    for engine in [Engine::Postgres, Engine::DuckDb] {
        let mut scene = Scene::new(engine, Target::Http);
        scene.edit(|people| people.extend((1..=20).map(|id| (id, Person::new(format!("{id}@first"), id)))));
        oracle::succeeded(&scene.run());
        scene.edit(|people| drop(people.insert(1, Person::new("1@second", 1))));
        let other = scene.elsewhere();
        scene.receiver.behave(|_| Answer::Hold);
        let first = scene.start_run(&Trouble::default(), &[]);
        scene.receiver.wait_for_held(1);

        let second = start_in(&other, &[]).wait();
        assert_eq!(second.code, Some(2), "{second:?}");
        assert_eq!(second.error_code().as_deref(), Some("SYNC_BUSY"), "{second:?}");
        let message = second.report()["error"]["message"].as_str().expect("a message").to_owned();
        let pid = first.pid().as_raw_nonzero().to_string();
        assert!(message.contains(&pid), "it names the holder {pid}: {message}");

        let waiting = start_in(&other, &["--wait", "60s"]);
        scene.receiver.release();
        oracle::succeeded(&first.wait());
        assert_eq!(oracle::planned(&oracle::succeeded(&waiting.wait())), 0);
        assert_eq!(scene.receiver.requests().len(), 20_usize.div_ceil(BATCH) + 1);
        oracle::nothing_is_left_over(&scene);
    }
}

/// Several first runs at once make schemas, state, snapshot and store without standing in each other's way.
fn many_at_once(scene: &mut Scene) {
    scene.edit(|people| people.extend((1..=20).map(|id| (id, Person::new(format!("{id}@first"), id)))));
    // The ids of the project are assigned once, before it is copied to other machines.
    assert_eq!(scene.levin(&["check", "--offline"]).code, Some(0));
    let folders: Vec<Project> = (0..4).map(|_| scene.elsewhere()).collect();
    let started: Vec<Started> = folders
        .iter()
        .enumerate()
        .map(|(i, folder)| start_in(folder, if i % 2 == 0 { &["--wait", "60s"] } else { &[] }))
        .collect();
    let mut done = 0;
    for (i, ran) in started.into_iter().map(Started::wait).enumerate() {
        if ran.code == Some(0) {
            oracle::succeeded(&ran);
            done += 1;
        } else {
            assert_eq!(i % 2, 1, "who waits is served: {ran:?}");
            let code = ran.error_code();
            assert!(matches!(code.as_deref(), Some("SYNC_BUSY" | "SOURCE_BUSY")), "{ran:?}");
        }
    }
    assert!(done >= 2);
    let requests = scene.receiver.requests();
    let keys: BTreeSet<i64> = requests.iter().flat_map(|r| &r.rows).map(|row| row.key).collect();
    assert_eq!(requests.iter().map(|r| r.rows.len()).sum::<usize>(), 20, "each row is sent once");
    assert_eq!(keys.len(), 20);
    assert_eq!(scene.content(), oracle::expected(scene, &scene.content(), &scene.model));
    oracle::no_table_is_left_over(scene);
}

#[test]
fn many_at_once_are_serialised_or_told_that_it_is_busy() {
    many_at_once(&mut Scene::new(Engine::Postgres, Target::Http));
    many_at_once(&mut Scene::new(Engine::DuckDb, Target::Http));
}

#[test]
fn many_at_once_may_share_a_store() {
    for engine in [Engine::Postgres, Engine::DuckDb] {
        let mut scene = Scene::new(engine, Target::Http);
        scene.keep_store_at(&PostgresServer::start().fresh_database());
        many_at_once(&mut scene);
        let runs = scene.runs();
        assert_eq!(runs.len(), 4, "{runs:?}");
        assert!(
            runs.iter().all(|run| run["status"] != "running" && run["status"] != "interrupted"),
            "{runs:?}"
        );
    }
}

#[test]
fn the_statement_of_a_holder_that_died_is_stopped_by_the_next_one() {
    let mut scene = Scene::new(Engine::Postgres, Target::Http);
    scene.edit(|people| people.extend((1..=5).map(|id| (id, Person::new(format!("{id}@first"), id)))));
    let model = "source: wh\nprimary_key: id\nsql: select id, email, score from people";
    scene.write("models/people.yml", &format!("{model} where (select true from pg_sleep(600))\n"));
    let dead = scene.start_run(&Trouble::default(), &[]);
    let sleeping = "select pid from pg_stat_activity where datname = current_database() and state = 'active'
                    and application_name like 'levin%' and query like '%pg_sleep%'";
    let url = scene.warehouse_url().to_owned();
    until("the model is being read", || !query(&url, sleeping).is_empty());
    dead.signal(Signal::KILL);
    assert!(dead.wait().is_killed());
    assert!(!query(&url, sleeping).is_empty(), "the server goes on with the statement of a client that died");

    scene.write("models/people.yml", &format!("{model}\n"));
    oracle::succeeded(&scene.run());
    assert_eq!(scene.content(), oracle::expected(&scene, &scene.content(), &scene.model));
    until("the orphan is gone", || query(&url, sleeping).is_empty());
    oracle::sends_nothing(&scene);
    oracle::nothing_is_left_over(&scene);
}

/// Looks until something is so; a test that waits for what never comes fails.
pub fn until(what: &str, mut is: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(120);
    while !is() {
        assert!(Instant::now() < patience, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
