//! Connections that are cut, a server that restarts, disks that are full: a clear error, nothing
//! lost, and the next run goes on.

use std::path::{Path, PathBuf};
use std::process::Command;

use tests::postgres::PostgresServer;

use crate::cases::all_of;
use crate::oracle;
use crate::receiver::Answer;
use crate::scene::{Engine, Person, Ran, Scene, Target, Trouble, is_long, query};
use crate::two::until;

/// Levin's sessions that have had nothing to do for so long that their run must be at its pause.
const IDLE: &str = "select pid, pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and application_name like 'levin%'
      and state <> 'active' and state_change < clock_timestamp() - interval '400 milliseconds'";

pub fn edited(scene: &mut Scene) {
    scene.edit(|people| people.extend((1..=20).map(|id| (id, Person::new(format!("{id}@first"), id)))));
    oracle::succeeded(&scene.run());
    scene.edit(|people| {
        for id in 1..=7 {
            people.insert(id, Person::new(format!("{id}@second"), id));
        }
        for id in 8..=10 {
            people.remove(&id);
        }
        people.extend((21..=26).map(|id| (id, Person::new(format!("{id}@second"), id))));
    });
}

/// Either the run got over it, or it says what happened.
pub fn says(ran: &Ran, codes: &[&str]) {
    let report = ran.report();
    oracle::counts_add_up(&report);
    if ran.code == Some(0) {
        assert!(report["error"].is_null(), "{report}");
        return;
    }
    assert_eq!(ran.code, Some(2), "{ran:?}");
    let code = ran.error_code().expect("a code");
    assert!(codes.contains(&code.as_str()), "{report}");
}

pub fn goes_on(scene: &Scene) {
    oracle::succeeded(&scene.run());
    assert_eq!(scene.content(), oracle::expected(scene, &scene.content(), &scene.model));
    let told = oracle::requests_are_honest(&scene.receiver.requests(), |_, _| true);
    assert_eq!(told.empty_removals, 0, "{told:?}");
    oracle::sends_nothing(scene);
    oracle::nothing_is_left_over(scene);
}

fn cut_at(point: &str) {
    let mut scene = Scene::new(Engine::Postgres, Target::Http);
    edited(&mut scene);
    let points = format!("{point}=1*sleep(1500)");
    let mut run = scene.start_run(&Trouble { kill_at: None, points: Some(&points) }, &[]);
    let url = scene.warehouse_url().to_owned();
    let mut cut = 0;
    until("its sessions are idle", || {
        cut += query(&url, IDLE).len();
        cut > 0 || !run.is_running()
    });
    assert!(cut > 0, "the run ended without a pause");
    let ran = run.wait();
    says(&ran, &["SOURCE_CONNECTION_LOST"]);
    goes_on(&scene);
}

#[test]
fn a_connection_cut_in_any_stage_costs_a_run_at_most() {
    let points = [
        "prepare.after_lease",
        "prepare.after_settling",
        "diff.before",
        "diff.after",
        "deliver.before_begin",
        "deliver.after_begin",
        "deliver.before_start_note",
        "deliver.after_start_note",
        "deliver.after_answer",
        "deliver.after_end_note",
        "commit.before",
        "commit.after",
        "store.forget",
        "prune.before",
        "prune.before_release",
    ];
    all_of(&points, |point| cut_at(point));
}

#[test]
fn a_server_that_restarts_in_the_middle_of_a_run_costs_a_run_at_most() {
    // Its own server: one backend killed makes all others end and the server recover.
    let server = PostgresServer::launch(None);
    let rounds: &[usize] = if is_long() { &[1, 2, 3, 4, 5, 6] } else { &[2, 5] };
    for &held in rounds {
        let mut scene = Scene::on(Some(server.fresh_database()), Target::Http, "60s", "");
        edited(&mut scene);
        let mut left = held;
        let first = scene.receiver.requests().len();
        scene.receiver.behave(move |_| {
            left = left.saturating_sub(1);
            if left == 0 { Answer::Hold } else { Answer::Accept }
        });
        let run = scene.start_run(&Trouble::default(), &[]);
        scene.receiver.wait_for_held(1);
        let url = scene.warehouse_url().to_owned();
        let backends = "select pid from pg_stat_activity where datname = current_database()
                        and application_name like 'levin%' limit 1";
        let backend: i32 =
            query(&url, backends)[0][0].as_deref().and_then(|pid| pid.parse().ok()).expect("a pid");
        let backend = rustix::process::Pid::from_raw(backend).expect("a pid");
        rustix::process::kill_process(backend, rustix::process::Signal::KILL).expect("kill a backend");
        scene.receiver.release();
        says(&run.wait(), &["SOURCE_CONNECTION_LOST", "SOURCE_UNREACHABLE"]);
        assert!(scene.receiver.requests().len() > first);
        until("the server is back", || std::panic::catch_unwind(|| query(&url, "select 1")).is_ok());
        scene.receiver.behave(|_| Answer::Accept);
        goes_on(&scene);
    }
}

/// A commit that the warehouse refuses leaves everything from which the next run settles.
#[test]
fn a_commit_that_fails_is_made_good_by_the_next_run() {
    let mut scene = Scene::new(Engine::Postgres, Target::Http);
    edited(&mut scene);
    let snapshot = scene.managed_tables().into_iter().find(|name| name.ends_with("_snapshot")).expect("one");
    scene.sql(&format!(
        "alter table levin_planner.{snapshot} add constraint refuses check (email not like '%second') not valid"
    ));
    let ran = scene.run();
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert_eq!(ran.error_code().as_deref(), Some("SOURCE_FAILED"), "{ran:?}");
    // Again, and it is still not lost.
    let again = scene.run();
    assert_eq!(again.code, Some(2), "{again:?}");
    assert_eq!(again.error_code().as_deref(), Some("SOURCE_FAILED"), "{again:?}");
    assert_eq!(scene.content(), oracle::expected(&scene, &scene.content(), &scene.model));
    let sent = scene.receiver.requests().len();
    scene.sql(&format!("alter table levin_planner.{snapshot} drop constraint refuses"));
    let report = oracle::succeeded(&scene.run());
    assert_eq!(oracle::planned(&report), 0, "the notes prove that all was accepted: {report}");
    assert_eq!(scene.receiver.requests().len(), sent);
    goes_on(&scene);
}

/// A small file system at a folder, gone when dropped.
struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    fn mount(at: PathBuf, kilobytes: u32) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "disks can only be filled by root: run the tests as root, in a container if need be"
        );
        std::fs::create_dir_all(&at).expect("make the folder");
        let options = format!("size={kilobytes}k");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&at).output();
        let mounted = mounted.expect("run mount");
        assert!(
            mounted.status.success(),
            "a small file system is needed to fill it, and cannot be mounted here: {}",
            String::from_utf8_lossy(&mounted.stderr)
        );
        Self { at }
    }

    fn filler(&self) -> PathBuf {
        self.at.join("filler")
    }

    /// Fills it, but for so much.
    fn fill(&self, but_kilobytes: u64) {
        let stat = rustix::fs::statvfs(&self.at).expect("its size");
        let free = stat.f_bavail * stat.f_frsize;
        let size = free.saturating_sub(but_kilobytes * 1024);
        std::fs::write(self.filler(), vec![1; usize::try_from(size).expect("small")]).expect("fill the disk");
    }

    fn make_room(&self) {
        std::fs::remove_file(self.filler()).expect("remove the filler");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).status();
    }
}

fn much(scene: &mut Scene) {
    scene.edit(|people| people.extend((30..=300).map(|id| (id, Person::new(format!("{id}@second"), id)))));
}

#[test]
fn a_full_disk_under_the_store_stops_the_run_and_loses_nothing() {
    for (engine, room) in
        [(Engine::DuckDb, 0), (Engine::Postgres, 0), (Engine::DuckDb, 64), (Engine::Postgres, 200)]
    {
        let mut scene = Scene::new(engine, Target::Http);
        let disk = SmallDisk::mount(scene.path(".levin"), 8 * 1024);
        edited(&mut scene);
        much(&mut scene);
        disk.fill(room);
        let ran = scene.start_run(&Trouble::default(), &[]).wait();
        assert_eq!(ran.code, Some(2), "{ran:?}");
        // Where there is no room at all there is no run to report of.
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(said.contains("STORE_FAILED"), "with {room} KB: {ran:?}");
        disk.make_room();
        goes_on(&scene);
    }
}

#[test]
fn a_full_disk_under_the_store_is_no_file_that_counts() {
    let mut scene = Scene::new(Engine::DuckDb, Target::Files);
    let disk = SmallDisk::mount(scene.path(".levin"), 8 * 1024);
    edited(&mut scene);
    // The run is begun and its file is written; then there is no room for the word that it is shown.
    let points = Trouble { kill_at: None, points: Some("deliver.before_start_note=1*sleep(2000)") };
    let partial = |scene: &Scene| {
        let entries = std::fs::read_dir(scene.path("out")).expect("the folder");
        entries.flatten().any(|e| e.file_name().to_string_lossy().ends_with(".partial"))
    };
    let run = scene.start_run(&points, &[]);
    until("the file is being written", || partial(&scene));
    disk.fill(0);
    let ran = run.wait();
    disk.make_room();
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert_eq!(ran.error_code().as_deref(), Some("STORE_FAILED"), "{ran:?}");
    oracle::counts_add_up(&ran.report());
    assert_eq!(ran.report()["successfulRows"]["addedCount"], 0, "no row was shown: {ran:?}");
    assert!(!partial(&scene));
    oracle::succeeded(&scene.run());
    assert_eq!(scene.content(), oracle::expected(&scene, &scene.content(), &scene.model));
    oracle::sends_nothing(&scene);
    oracle::nothing_is_left_over(&scene);
}

#[test]
fn a_full_disk_under_the_files_shows_no_half_file() {
    let mut scene = Scene::new(Engine::DuckDb, Target::Files);
    let disk = SmallDisk::mount(scene.path("out"), 1024);
    edited(&mut scene);
    much(&mut scene);
    disk.fill(4);
    let names = |path: &Path| {
        let entries = std::fs::read_dir(path).expect("the folder");
        let mut names: Vec<_> = entries.map(|e| e.expect("an entry").file_name()).collect();
        names.sort();
        names
    };
    let before = names(&scene.path("out"));
    let ran = scene.run();
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert_eq!(ran.error_code().as_deref(), Some("DESTINATION_UNUSABLE"), "{ran:?}");
    oracle::counts_add_up(&ran.report());
    assert_eq!(ran.report()["inDoubtCount"], 0, "nothing appeared, and that is certain: {ran:?}");
    assert_eq!(names(&scene.path("out")), before, "something was left");
    disk.make_room();
    oracle::succeeded(&scene.run());
    assert_eq!(scene.content(), oracle::expected(&scene, &scene.content(), &scene.model));
    oracle::sends_nothing(&scene);
    oracle::nothing_is_left_over(&scene);
}

#[test]
fn a_full_disk_under_the_warehouse_stops_the_run_and_loses_nothing() {
    let mut scene = Scene::new(Engine::DuckDb, Target::Http);
    let disk = SmallDisk::mount(scene.path("disk"), 16 * 1024);
    let moved = scene.path("disk/warehouse.duckdb");
    std::fs::copy(scene.path("warehouse.duckdb"), &moved).expect("move the warehouse");
    scene.move_warehouse(&moved);
    edited(&mut scene);
    much(&mut scene);
    disk.fill(0);
    let ran = scene.start_run(&Trouble::default(), &[]).wait();
    assert_eq!(ran.code, Some(2), "{ran:?}");
    let code = ran.error_code();
    assert_eq!(code.as_deref(), Some("SOURCE_OUT_OF_SPACE"), "{ran:?}");
    disk.make_room();
    goes_on(&scene);
}
