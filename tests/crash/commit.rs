//! A connection that breaks around a COMMIT: the server has committed and its answer is lost, or the
//! COMMIT never reached it. The one who asked cannot tell which of the two it was.

use std::fmt;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tests::postgres::PostgresServer;

use crate::cases::all_of;
use crate::cut::{edited, goes_on, says};
use crate::oracle;
use crate::scene::{Engine, Scene, Target, query};

/// What happens to a COMMIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It does not reach the server.
    NeverSent,
    /// The server has done it, and its answer does not come back.
    AnswerLost,
}

/// One COMMIT of a run.
struct Case {
    which: usize,
    fate: Fate,
    is_the_runs: bool,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.is_the_runs { ", the run's own" } else { "" };
        write!(f, "COMMIT {}{what}, {:?}", self.which, self.fate)
    }
}

/// `commit` as a simple query: type, length, text.
const COMMIT: &[u8] = b"Q\0\0\0\x0bcommit\0";

/// A way to a server that notes every COMMIT, and breaks the connection around one of them.
struct Way {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    /// The COMMITs in their order, and whether each was the one that writes the snapshot.
    commits: Vec<bool>,
    /// Which of them is to break, counted from zero, and how; taken when it came.
    broken: Option<(usize, Fate)>,
}

impl Way {
    /// Its threads end with the test process.
    fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = seen.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, shared) = (client.expect("a connection"), shared.clone());
                let server = TcpStream::connect(server).expect("the server answers");
                let muted = Arc::new(AtomicBool::new(false));
                let down = (server.try_clone().expect("a socket"), client.try_clone().expect("a socket"));
                let mute = muted.clone();
                std::thread::spawn(move || pass_down(down.0, down.1, &mute));
                std::thread::spawn(move || pass_up(client, server, &muted, &shared));
            }
        });
        Self { address, seen }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on COMMITs are counted afresh.
    fn watch(&self, broken: Option<(usize, Fate)>) {
        *self.seen() = Seen { commits: Vec::new(), broken };
    }
}

fn part(one: &TcpStream, other: &TcpStream) {
    // Whichever is closed already is as it should be.
    let _ = one.shutdown(Shutdown::Both);
    let _ = other.shutdown(Shutdown::Both);
}

fn pass_up(mut client: TcpStream, mut server: TcpStream, muted: &AtomicBool, seen: &Mutex<Seen>) {
    let mut bytes = vec![0; 1 << 16];
    let mut is_the_runs = false;
    while let Ok(length @ 1..) = client.read(&mut bytes) {
        let said = &bytes[..length];
        let says = |words: &[u8]| said.windows(words.len()).any(|window| window == words);
        is_the_runs |= says(b"set checkpoint = checkpoint + 1");
        if says(COMMIT) {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            let this = seen.commits.len();
            seen.commits.push(std::mem::take(&mut is_the_runs));
            match seen.broken.take_if(|(which, _)| *which == this) {
                Some((_, Fate::NeverSent)) => break,
                Some((_, Fate::AnswerLost)) => muted.store(true, Ordering::SeqCst),
                None => {}
            }
        }
        if server.write_all(said).is_err() {
            break;
        }
    }
    if !muted.load(Ordering::SeqCst) {
        part(&client, &server);
    }
}

fn pass_down(mut server: TcpStream, mut client: TcpStream, muted: &AtomicBool) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(length @ 1..) = server.read(&mut bytes) {
        // The answer is here, so it is committed.
        if muted.load(Ordering::SeqCst) || client.write_all(&bytes[..length]).is_err() {
            break;
        }
    }
    part(&server, &client);
}

/// A scene whose source is reached by such a way, with a diff of seven changed, three removed and six
/// added rows.
fn scene() -> (Scene, Way) {
    let database = PostgresServer::start().fresh_database();
    let (head, rest) = database.split_once('@').expect("a user");
    let (place, name) = rest.split_once('/').expect("a database");
    let way = Way::to(place.parse().expect("an address in digits"));
    let mut scene = Scene::on(Some(database.clone()), Target::Http, "60s", "");
    scene.write("sources/wh.yml", &format!("type: postgres\nurl: {head}@{}/{name}\n", way.address));
    edited(&mut scene);
    (scene, way)
}

/// Since that request every row of the diff was sent once.
fn sent_once(scene: &Scene, first: usize) {
    let requests = scene.receiver.requests();
    let mut keys: Vec<i64> =
        requests[first..].iter().flat_map(|r| r.rows.iter().map(|row| row.key)).collect();
    keys.sort_unstable();
    let expected: Vec<i64> = (1..=10).chain(21..=26).collect();
    assert_eq!(keys, expected, "a row was lost or came twice");
}

/// Which of a run's COMMITs are the one that moves accepted rows into the snapshot.
fn commits_of_a_run() -> Vec<bool> {
    let (scene, way) = scene();
    way.watch(None);
    oracle::succeeded(&scene.run());
    let commits = way.seen().commits.clone();
    assert_eq!(commits.iter().filter(|is_the_runs| **is_the_runs).count(), 1, "{commits:?}");
    commits
}

fn broken_around(which: usize, fate: Fate, is_the_runs: bool) {
    let (scene, way) = scene();
    let first = scene.receiver.requests().len();
    way.watch(Some((which, fate)));
    let ran = scene.run();
    assert!(way.seen().broken.is_none(), "it never came: {ran:?}");
    if is_the_runs {
        let report = oracle::succeeded(&ran);
        assert_eq!(oracle::planned(&report), 16, "{report}");
        // Looked at, and done again only when it had not been done.
        let again = way.seen().commits[which + 1..].iter().filter(|is_the_runs| **is_the_runs).count();
        assert_eq!(again, usize::from(fate == Fate::NeverSent), "{ran:?}");
    } else {
        says(&ran, &["SOURCE_CONNECTION_LOST"]);
    }
    way.watch(None);
    goes_on(&scene);
    sent_once(&scene, first);
    let snapshot = scene.managed_tables().into_iter().find(|name| name.ends_with("_snapshot")).expect("one");
    let kept = query(
        scene.warehouse_url(),
        &format!("select count(*), count(distinct id) from levin_planner.{snapshot}"),
    );
    let rows = Some(scene.model.len().to_string());
    assert_eq!(kept, [[rows.clone(), rows]], "the snapshot holds what the model holds");
}

#[test]
fn a_connection_lost_around_any_commit_sends_nothing_twice_and_loses_nothing() {
    let commits = commits_of_a_run();
    let cases: Vec<Case> = commits
        .iter()
        .enumerate()
        .flat_map(|(which, &is_the_runs)| {
            [Fate::NeverSent, Fate::AnswerLost].map(|fate| Case { which, fate, is_the_runs })
        })
        .collect();
    all_of(&cases, |case| broken_around(case.which, case.fate, case.is_the_runs));
}

/// The same on the other side: whether a batch was applied is not known, so it comes again, and
/// applying it again changes nothing.
fn broken_at_the_destination(which: usize, fate: Fate) {
    let mut scene = Scene::new(Engine::DuckDb, Target::Postgres);
    let file = scene.path("destinations/to.yml");
    let written = std::fs::read_to_string(&file).expect("the destination");
    let (head, rest) = written.split_once('@').expect("a user");
    let (place, rest) = rest.split_once('/').expect("a database");
    let way = Way::to(place.parse().expect("an address in digits"));
    scene.write("destinations/to.yml", &format!("{head}@{}/{rest}", way.address));
    edited(&mut scene);
    way.watch(Some((which, fate)));
    let ran = scene.run();
    assert!(way.seen().broken.is_none(), "it never came: {ran:?}");
    let report = ran.report();
    oracle::counts_add_up(&report);
    assert!((1..=3).contains(&report["inDoubtCount"].as_u64().expect("a count")), "one batch: {report}");
    assert_ne!(ran.code, Some(0), "{report}");
    way.watch(None);
    let report = oracle::succeeded(&scene.run());
    assert!(oracle::planned(&report) >= 1, "what is in doubt comes again: {report}");
    goes_on(&scene);
}

#[test]
fn a_destinations_connection_lost_around_a_commit_leaves_its_batch_in_doubt() {
    // Removals, changes and additions have batches of their own.
    let cases: Vec<Case> = [0, 1, 4]
        .into_iter()
        .flat_map(|which| {
            [Fate::NeverSent, Fate::AnswerLost].map(|fate| Case { which, fate, is_the_runs: false })
        })
        .collect();
    all_of(&cases, |case| broken_at_the_destination(case.which, case.fate));
}
