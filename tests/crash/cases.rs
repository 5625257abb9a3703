//! One crash and what follows it.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tests::postgres::PostgresServer;

use crate::oracle;
use crate::receiver::{BAD, Request};
use crate::scene::{BATCH, CONCURRENCY, Engine, Person, Scene, Target, Trouble};

/// Which run is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Killed {
    /// The sync's first one.
    First,
    /// One over added, changed, removed and refused rows.
    Incremental,
    /// The same, after a column was added.
    Reshape,
    /// A full resync over the same.
    Resync,
    /// A full resync that also removes.
    ResyncWithRemovals,
}

/// One crash.
#[derive(Debug, Clone)]
pub struct Case {
    pub engine: Engine,
    pub target: Target,
    pub killed: Killed,
    /// Where, as `LEVIN_KILL_AT` takes it.
    pub at: String,
    /// Where the run that would settle it is killed too.
    pub again: Option<String>,
    /// The model moves on before the next run: changes go back, added rows leave, removed ones return.
    pub moves: bool,
    /// Every batch is followed by a checkpoint.
    pub checkpoints: bool,
    /// The store is gone after the crash.
    pub store_lost: bool,
    /// The store is a PostgreSQL database.
    pub server_store: bool,
}

impl Case {
    pub fn new(engine: Engine, target: Target, killed: Killed, at: impl Into<String>) -> Self {
        Self {
            engine,
            target,
            killed,
            at: at.into(),
            again: None,
            moves: false,
            checkpoints: false,
            store_lost: false,
            server_store: false,
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} to {:?}, {:?} killed at {}", self.engine, self.target, self.killed, self.at)?;
        if let Some(again) = &self.again {
            write!(f, " and at {again}")?;
        }
        for (is, what) in [
            (self.moves, "model moves"),
            (self.checkpoints, "checkpoints"),
            (self.store_lost, "store lost"),
            (self.server_store, "store on a server"),
        ] {
            if is {
                write!(f, ", {what}")?;
            }
        }
        Ok(())
    }
}

/// Runs all cases and tells of every one that failed.
pub fn all_hold(cases: &[Case]) {
    all_of(cases, holds);
}

/// The same of anything.
pub fn all_of<T: fmt::Display>(cases: &[T], holds: impl Fn(&T)) {
    assert!(!cases.is_empty());
    let mut failed = Vec::new();
    for case in cases {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| holds(case))) {
            let why = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
                .unwrap_or_default();
            failed.push(format!("{case}: {why}"));
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {} cases failed:\n\n{}",
        failed.len(),
        cases.len(),
        failed.join("\n\n")
    );
}

/// What a crash may have left under way.
const IN_FLIGHT: usize = BATCH * CONCURRENCY;

fn holds(case: &Case) {
    let mut scene = Scene::new(case.engine, case.target);
    if case.server_store {
        scene.keep_store_at(&PostgresServer::start().fresh_database());
    }
    scene.edit(|people| {
        people.extend((1..=20).map(|id| (id, Person::new(format!("{id}@first"), id))));
    });
    let mut runs = 0;
    if case.killed != Killed::First {
        oracle::succeeded(&scene.run());
        runs += 1;
    }
    let before = scene.model.clone();
    let accepted = scene.content();
    if case.killed == Killed::Reshape {
        scene.add_note();
    }
    scene.edit(|people| {
        for id in 1..=7 {
            people.insert(id, Person::new(format!("{id}@second"), id));
        }
        for id in 8..=12 {
            people.remove(&id);
        }
        for id in 21..=29 {
            people.insert(id, Person::new(format!("{id}@second"), id));
        }
        for id in [3, 28] {
            people.insert(id, Person::new(format!("{BAD}{id}"), id));
        }
    });
    if case.killed == Killed::Reshape {
        scene.edit(|people| {
            for id in [13, 14, 21] {
                people.get_mut(&id).expect("a person").note = Some("new".to_owned());
            }
        });
    }

    let more: &[&str] = match case.killed {
        Killed::Resync => &["--full-resync"],
        Killed::ResyncWithRemovals => &["--full-resync", "--keep-removals"],
        _ => &[],
    };
    let points = case.checkpoints.then_some("deliver.checkpoint_interval=return(0)");
    let killed = scene.run_with(&Trouble { kill_at: Some(&case.at), points }, more);
    assert!(killed.is_killed(), "the point was not passed: {killed:?}");
    runs += 1;
    let mut kills = 1;
    if case.store_lost {
        scene.lose_store();
    }
    if let Some(again) = &case.again {
        let killed = scene.run_with(&Trouble { kill_at: Some(again), points: None }, &[]);
        assert!(killed.is_killed(), "the second point was not passed: {killed:?}");
        runs += 1;
        kills += 1;
    }
    let crashed_at = scene.receiver.requests().len();

    if case.moves {
        scene.edit(|people| {
            // Changes go back, one to a third value; some added rows leave; some removed ones return.
            for id in [1, 2, 4, 8, 9] {
                people.insert(id, before[&id].clone());
            }
            people.insert(5, Person::new("5@third", 5));
            for id in [21, 22, 25] {
                people.remove(&id);
            }
            people.insert(26, Person::new("26@third", 26));
        });
    }
    // What `plan` foretells between a crash and the next run is what that run plans.
    let plan = scene.levin(&["plan", "people", "--json"]);
    assert_eq!(plan.code, Some(0), "{plan:?}");
    let plan = plan.report();

    let next = scene.run();
    runs += 1;
    let report = next.report();
    oracle::counts_add_up(&report);
    assert!(report["error"].is_null(), "{report}");
    let refuses = case.target != Target::Files;
    assert_eq!(next.code, Some(i32::from(refuses)), "bad rows are refused again: {next:?}");
    assert_eq!(report["plannedRows"], plan["plannedRows"], "the plan said {plan}, the run says {report}");
    assert_eq!(report["unchangedCount"], plan["unchangedCount"]);

    assert_eq!(scene.content(), oracle::expected(&scene, &accepted, &scene.model), "after the next run");

    // The bad rows are mended: they and nothing else are sent.
    scene.edit(|people| {
        for id in [3, 28] {
            people.insert(id, Person::new(format!("{id}@mended"), id));
        }
    });
    let mended = oracle::succeeded(&scene.run());
    runs += 1;
    assert_eq!(oracle::planned(&mended), 2, "{mended}");
    assert_eq!(scene.content(), oracle::expected(&scene, &accepted, &scene.model), "after mending");

    oracle::sends_nothing(&scene);
    runs += 1;
    oracle::nothing_is_left_over(&scene);
    if !case.store_lost {
        let listed = scene.runs();
        let interrupted = listed.iter().filter(|run| run["status"] == "interrupted").count();
        let begun = if case.at.starts_with("store.begin_run") { kills - 1 } else { kills };
        assert_eq!(interrupted, begun, "{listed:?}");
        assert_eq!(listed.len(), runs - (kills - begun), "{listed:?}");
    }
    if case.target == Target::Http {
        requests_are_few(case, &scene.receiver.requests(), crashed_at, kills);
    }
}

/// I4 and I11, as the receiver sees them.
fn requests_are_few(case: &Case, requests: &[Request], crashed_at: usize, kills: usize) {
    // What the first run delivered in peace is in nobody's doubt: if it comes again, another delivery of
    // the key was noted between the two and never left, or a resync sends it.
    let resync = matches!(case.killed, Killed::Resync | Killed::ResyncWithRemovals);
    let first_in_doubt = if case.killed == Killed::First { 1 } else { 2 };
    let told = oracle::requests_are_honest(requests, |before, _| before >= first_in_doubt);
    let sent_before = requests[..crashed_at].iter().map(|request| request.rows.len()).sum::<usize>();
    // With the store, its notes are gone: everything since the last checkpoint is in doubt.
    let in_doubt = match (case.store_lost, case.checkpoints) {
        (false, _) => IN_FLIGHT * kills,
        (true, true) => IN_FLIGHT + BATCH,
        (true, false) => sent_before.max(40),
    };
    // A full resync repeats on purpose.
    if !resync {
        assert!(
            told.rows <= in_doubt,
            "{} rows were repeated, {in_doubt} were in doubt: {told:?}",
            told.rows
        );
    }
    assert!(told.empty_removals <= in_doubt, "{told:?}");
}
