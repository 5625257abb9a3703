//! The queue on SQLite; `tests/service` asks the same of Postgres, with replicas.

use std::sync::LazyLock;

use super::*;
use crate::project::{Limit, OnFailure};
use crate::run::Holder;
use crate::store::{DeliveryId, MemberWish, Note, NotedRows, SequenceWish, text_of_now};

/// Whoever asks executes nothing that the store does not know of.
static NONE: LazyLock<HashSet<i64>> = LazyLock::new(HashSet::new);

async fn store() -> (Store, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (Store::open("sqlite://store.db", folder.path()).await.unwrap(), folder)
}

fn wish(sync_id: i64, cause: Cause) -> Wish {
    Wish {
        sync_id,
        sync: format!("sync-{sync_id}"),
        source_id: 1,
        destination_id: sync_id % 2,
        asked: Asked::because(cause),
        ready_at: 0,
    }
}

fn api() -> Cause {
    Cause::Api { key: "me".to_owned() }
}

fn tick(sync_id: i64, tick: i64) -> Due {
    let what = What::Sync(wish(sync_id, Cause::Schedule { tick }));
    Due { object: format!("sync:{sync_id}"), schedule: "every".to_owned(), tick, first: false, what }
}

fn ending<'a>(run: i64, replica: &'a str, status: &'a str) -> Ending<'a> {
    Ending { run, replica, status, finished_at: "2026-01-01T00:00:00.000Z", report: "{}", followers: &[] }
}

async fn claim(store: &Store, replica: &str) -> Vec<i64> {
    let claimed = store.claim(replica, 100, &Limits::default(), &[], &NONE).await.unwrap();
    claimed.into_iter().map(|claimed| claimed.run).collect()
}

#[tokio::test]
async fn a_trigger_during_a_run_queues_exactly_one_follow_up() {
    let (store, _folder) = store().await;
    let first = store.ask(&wish(1, api())).await.unwrap();
    assert_eq!(claim(&store, "a").await, [first.run]);
    let second = store.ask(&wish(1, api())).await.unwrap();
    let third = store.ask(&wish(1, Cause::Schedule { tick: 7 })).await.unwrap();
    assert_eq!((second.joined, third), (false, Placed { run: second.run, joined: true }));
    assert!(claim(&store, "b").await.is_empty(), "one run of a sync at a time");
    assert_eq!(store.finish(&ending(first.run, "a", "success")).await.unwrap(), Some(vec![]));
    let claimed = store.claim("b", 9, &Limits::default(), &[], &NONE).await.unwrap();
    assert_eq!(claimed[0].asked.causes, [api(), Cause::Schedule { tick: 7 }]);
}

#[tokio::test]
async fn what_waits_takes_in_what_it_can_do_too_and_refuses_the_rest() {
    let (store, _folder) = store().await;
    let asking = |start| {
        let mut wish = wish(1, api());
        wish.asked.start = start;
        wish
    };
    let run = store.ask(&asking(Start::Incremental)).await.unwrap().run;
    let full = Start::FullResync { keep_removals: false };
    assert_eq!(store.ask(&asking(full)).await.unwrap(), Placed { run, joined: true });
    assert_eq!(store.ask(&asking(Start::Incremental)).await.unwrap().run, run);
    let refused = store.ask(&asking(Start::ResetCdc)).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::SyncBusy);
    assert_eq!(store.underway().await.unwrap()[0].asked.start, full);
}

#[tokio::test]
async fn to_send_what_differs_is_not_served_by_a_run_that_does_not() {
    for declares_first in [true, false] {
        let (store, _folder) = store().await;
        let plain = wish(1, api());
        let mut declares = wish(1, Cause::Api { key: "other".to_owned() });
        declares.asked.start = Start::ResetCdc;
        let mut sends_a_plan = declares.clone();
        sends_a_plan.asked = Asked {
            start: Start::Incremental,
            approve: Some("plan_1_0123456789abcdef".parse().unwrap()),
            ..declares.asked.clone()
        };
        for special in [declares, sends_a_plan] {
            let (first, second) = if declares_first { (&special, &plain) } else { (&plain, &special) };
            let first = store.ask(first).await.unwrap();
            let second = store.ask(second).await.unwrap();
            assert!(!first.joined && !second.joined && first.run < second.run);
            assert_eq!(
                store.ask(&plain).await.unwrap().run,
                if declares_first { second.run } else { first.run }
            );
            for run in [first.run, second.run] {
                assert_eq!(claim(&store, "a").await, [run], "one after the other");
                store.finish(&ending(run, "a", "success")).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_tick_becomes_a_run_once_whoever_brings_it() {
    let (store, _folder) = store().await;
    let first = store.fire(&[tick(1, 100), tick(2, 100)]).await.unwrap();
    let Fired::Placed(Placed { run, joined: false }) = first[0] else { panic!("{first:?}") };
    assert!(matches!(first[1], Fired::Placed(_)));
    let lost = Fired::Lost { last: 100 };
    assert_eq!(store.fire(&[tick(1, 100), tick(2, 99)]).await.unwrap(), [lost, lost]);
    let again = store.fire(&[tick(1, 200)]).await.unwrap();
    assert_eq!(again, [Fired::Placed(Placed { run, joined: true })], "a missed tick joins");
    assert_eq!(store.ticks().await.unwrap()["sync:1"], ("every".to_owned(), 200));
}

#[tokio::test]
async fn replicas_that_begin_an_interval_at_once_count_from_one_tick() {
    let (store, _folder) = store().await;
    let first = |at| Due { first: true, ..tick(1, at) };
    assert!(matches!(store.fire(&[first(1_000)]).await.unwrap()[0], Fired::Placed(_)));
    assert_eq!(store.fire(&[first(1_050)]).await.unwrap(), [Fired::Lost { last: 1_000 }]);
}

#[tokio::test]
async fn a_tick_of_a_wrong_clock_stops_no_schedule() {
    let (store, _folder) = store().await;
    let year = 365 * 86_400_000;
    assert!(matches!(store.fire(&[tick(1, now() + year)]).await.unwrap()[0], Fired::Placed(_)));
    let true_one = now();
    assert!(matches!(store.fire(&[tick(1, true_one)]).await.unwrap()[0], Fired::Placed(_)));
    assert_eq!(store.ticks().await.unwrap()["sync:1"].1, true_one);
}

#[tokio::test]
async fn limits_hold_for_all_replicas_together() {
    let (store, _folder) = store().await;
    for sync in 1..=6 {
        store.ask(&wish(sync, api())).await.unwrap();
    }
    let limits = Limits { syncs: None, sources: [(1, 4)].into(), destinations: [(0, 1)].into() };
    let first = store.claim("a", 2, &limits, &[], &NONE).await.unwrap();
    let second = store.claim("b", 9, &limits, &[], &NONE).await.unwrap();
    let syncs = |claimed: &[Claimed]| claimed.iter().map(|c| c.sync_id).collect::<Vec<_>>();
    // 2, 4 and 6 share a destination that takes one; the source takes four.
    assert_eq!((syncs(&first), syncs(&second)), (vec![1, 2], vec![3, 5]));
    store.finish(&ending(first[1].run, "a", "success")).await.unwrap();
    assert_eq!(syncs(&store.claim("c", 9, &limits, &[], &NONE).await.unwrap()), [4]);
}

#[tokio::test]
async fn a_run_that_was_put_off_waits() {
    let (store, _folder) = store().await;
    let later = Wish { ready_at: now() + 60_000, ..wish(1, api()) };
    let run = store.ask(&later).await.unwrap().run;
    assert!(claim(&store, "a").await.is_empty());
    assert_eq!(store.ask(&wish(1, api())).await.unwrap().run, run, "asked again, now");
    assert_eq!(claim(&store, "a").await, [run]);
}

#[tokio::test]
async fn a_run_is_taken_over_once_and_who_lost_it_writes_nothing() {
    let (store, _folder) = store().await;
    let run = store.ask(&wish(1, api())).await.unwrap().run;
    assert_eq!(claim(&store, "a").await, [run]);
    let gone = ["a".to_owned()];
    let taken = store.claim("b", 9, &Limits::default(), &gone, &NONE).await.unwrap();
    assert!(taken.len() == 1 && taken[0].taken_over);
    assert!(store.claim("c", 9, &Limits::default(), &gone, &NONE).await.unwrap().is_empty());
    assert_eq!(store.finish(&ending(run, "a", "success")).await.unwrap(), None);
    assert!(store.finish(&ending(run, "b", "success")).await.unwrap().is_some());
    assert_eq!(store.runs(None, 9).await.unwrap()[0].status, "success");
}

#[tokio::test]
async fn a_run_that_is_handed_back_goes_on_elsewhere() {
    let (store, _folder) = store().await;
    let run = store.ask(&wish(1, api())).await.unwrap().run;
    claim(&store, "a").await;
    store.hand_back(run, "a", "{\"retries\":3}").await.unwrap();
    assert_eq!(store.runs(None, 9).await.unwrap()[0].status, "queued");
    let claimed = store.claim("b", 9, &Limits::default(), &[], &NONE).await.unwrap();
    assert_eq!((claimed[0].run, &claimed[0].earlier), (run, &Some(serde_json::json!({"retries": 3}))));
    // Another one waits meanwhile: it comes after it.
    let next = store.ask(&wish(1, api())).await.unwrap().run;
    store.hand_back(run, "b", "{}").await.unwrap();
    for run in [run, next] {
        assert_eq!(claim(&store, "c").await, [run]);
        store.finish(&ending(run, "c", "success")).await.unwrap();
    }
}

#[tokio::test]
async fn who_goes_on_with_a_run_does_not_start_over_twice() {
    let (store, _folder) = store().await;
    let full = Start::FullResync { keep_removals: false };
    let mut resync = wish(1, api());
    resync.asked.start = full;
    let start = async |replica| {
        let claimed = store.claim(replica, 9, &Limits::default(), &[], &NONE).await.unwrap();
        claimed[0].asked.start
    };
    let run = store.ask(&resync).await.unwrap().run;
    assert_eq!(start("a").await, full);
    store.hand_back(run, "a", "{}").await.unwrap();
    assert_eq!(start("b").await, full, "nothing had begun");
    store.begun(run).await.unwrap();
    store.hand_back(run, "b", "{}").await.unwrap();
    assert_eq!(start("c").await, Start::Incremental);
    store.hand_back(run, "c", "{}").await.unwrap();
    assert_eq!(store.ask(&resync).await.unwrap(), Placed { run, joined: true });
    assert_eq!(start("d").await, full, "somebody asked for another one");
}

#[tokio::test]
async fn a_claim_whose_answer_was_lost_is_answered_again() {
    let (store, _folder) = store().await;
    let run = store.ask(&wish(1, api())).await.unwrap().run;
    assert_eq!(claim(&store, "a").await, [run]);
    let executing = HashSet::from([run]);
    assert!(store.claim("a", 9, &Limits::default(), &[], &executing).await.unwrap().is_empty());
    assert!(store.claim("b", 9, &Limits::default(), &[], &NONE).await.unwrap().is_empty());
    assert_eq!(claim(&store, "a").await, [run], "nobody executes it");
}

#[tokio::test]
async fn runs_of_syncs_that_a_replica_does_not_know_are_left_to_others() {
    let (store, _folder) = store().await;
    for sync in [1, 2] {
        store.ask(&wish(sync, api())).await.unwrap();
    }
    let knows = Limits { syncs: Some(HashSet::from([2])), ..Limits::default() };
    assert_eq!(store.claim("a", 9, &knows, &[], &NONE).await.unwrap()[0].sync_id, 2);
    assert_eq!(store.claim("b", 9, &Limits::default(), &[], &NONE).await.unwrap()[0].sync_id, 1);
}

#[tokio::test]
async fn what_a_replica_writes_that_lost_its_run_touches_nobody_elses_notes() {
    let (store, _folder) = store().await;
    let rows = NotedRows { operation: 0, start: 0, end: 1, first: 1, last: 1 };
    let run = store.ask(&wish(1, api())).await.unwrap().run;
    let (lost, taken) = (DeliveryId { run, generation: 7 }, DeliveryId { run, generation: 8 });
    claim(&store, "a").await;
    store.begin_notes(lost, "diff_7").await.unwrap();
    store.start(Note { of: lost, batch: 1, rows, end: None }).await.unwrap();
    let gone = ["a".to_owned()];
    store.claim("b", 9, &Limits::default(), &gone, &NONE).await.unwrap();
    store.forget_before(1, taken).await.unwrap();
    store.begin_notes(taken, "diff_8").await.unwrap();
    store.start(Note { of: taken, batch: 1, rows, end: None }).await.unwrap();
    // It wakes up.
    store.start(Note { of: lost, batch: 2, rows, end: None }).await.unwrap();
    store.end(lost, 1, &[]).await.unwrap();
    store.forget(lost, None).await.unwrap();
    store.forget_before(1, lost).await.unwrap();
    assert!(store.holds_notes(taken, "diff_8").await.unwrap());
    assert_eq!(store.notes(taken).await.unwrap(), [Note { of: taken, batch: 1, rows, end: None }]);
    let late = store.adopt_run(run, "a", &text_of_now(), &Holder::this(None)).await.unwrap_err();
    assert_eq!(late.code, ErrorCode::LeaseLost);
    store.adopt_run(run, "b", &text_of_now(), &Holder::this(None)).await.unwrap();
}

#[tokio::test]
async fn a_run_that_waits_for_its_lease_is_not_interrupted() {
    let (store, _folder) = store().await;
    let holder = Holder::this(None);
    let run = store.ask(&wish(1, api())).await.unwrap().run;
    claim(&store, "a").await;
    store.adopt_run(run, "a", "2026-01-01T00:00:00.000Z", &holder).await.unwrap();
    let command = store.begin_run(1, "sync-1", &text_of_now(), &holder).await.unwrap();
    store.mark_interrupted(1, command, &text_of_now()).await.unwrap();
    store.forget_before(1, DeliveryId { run: command, generation: 3 }).await.unwrap();
    let waits = store.runs(None, 9).await.unwrap().remove(1);
    assert_eq!((waits.id, waits.status.as_str(), waits.holder.is_some()), (run, "running", true));
    // However often it is handed back, it began when it first began.
    store.hand_back(run, "a", "{}").await.unwrap();
    claim(&store, "b").await;
    store.adopt_run(run, "b", &text_of_now(), &holder).await.unwrap();
    assert_eq!(store.runs(None, 9).await.unwrap()[1].started_at, "2026-01-01T00:00:00.000Z");
}

#[tokio::test]
async fn a_waiting_run_is_cancelled_at_once_and_a_running_one_is_asked() {
    let (store, _folder) = store().await;
    let waiting = store.ask(&wish(1, api())).await.unwrap().run;
    assert!(store.cancel_run(waiting, &text_of_now()).await.unwrap());
    assert_eq!(store.runs(None, 9).await.unwrap()[0].status, "cancelled");
    let running = store.ask(&wish(1, api())).await.unwrap().run;
    claim(&store, "a").await;
    assert!(store.cancel_run(running, &text_of_now()).await.unwrap());
    assert_eq!(store.asked_to_cancel("a").await.unwrap(), [running]);
    store.finish(&ending(running, "a", "cancelled")).await.unwrap();
    assert!(!store.cancel_run(running, &text_of_now()).await.unwrap(), "it is over");
}

#[tokio::test]
async fn a_sync_follows_once_all_that_it_follows_have_run() {
    let (store, _folder) = store().await;
    let run = async |sync: i64| {
        store.ask(&wish(sync, api())).await.unwrap();
        let run = claim(&store, "a").await[0];
        let cause = Cause::After { sync: format!("sync-{sync}"), run };
        let followers = [(What::Sync(wish(3, cause)), vec![1, 2])];
        let ending = Ending { followers: &followers, ..ending(run, "a", "success") };
        store.finish(&ending).await.unwrap().unwrap()
    };
    assert!(run(1).await.is_empty());
    assert!(run(1).await.is_empty(), "the same one twice is not both");
    assert_eq!(run(2).await.len(), 1);
    let follower = claim(&store, "a").await[0];
    store.finish(&ending(follower, "a", "success")).await.unwrap();
    assert!(run(2).await.is_empty(), "both count anew");
    assert_eq!(run(1).await.len(), 1);
}

#[tokio::test]
async fn an_idempotency_key_is_answered_with_the_same_run() {
    let (store, _folder) = store().await;
    let first = store.ask_once(&wish(1, api()), "key", "body").await.unwrap();
    claim(&store, "a").await;
    assert_eq!(store.ask_once(&wish(1, api()), "key", "body").await.unwrap().run, first.run);
    assert_eq!(store.ask_once(&wish(1, api()), "key", "other").await.unwrap_err().code, ErrorCode::Usage);
    assert_ne!(store.ask_once(&wish(1, api()), "new", "body").await.unwrap().run, first.run);
}

#[tokio::test]
async fn a_sequence_runs_its_members_in_order_and_never_beside_itself() {
    let (store, _folder) = store().await;
    let member = |sync_id| MemberWish {
        sync_id,
        sync: format!("sync-{sync_id}"),
        source_id: 1,
        destination_id: 1,
        on_failure: OnFailure::Stop,
        max_rejected: Limit::default(),
        rests: sync_id == 9,
    };
    let wish = SequenceWish {
        sequence_id: 1,
        sequence: "nightly".to_owned(),
        members: vec![member(9), member(1), member(8), member(2), member(3)],
        cause: api(),
        ready_at: 0,
    };
    // One rests because its file says so, one because somebody does: both are passed over.
    store.set_disabled(8, Some(&text_of_now())).await.unwrap();
    let id = store.ask_sequence(&wish).await.unwrap();
    assert_eq!(store.ask_sequence(&wish).await.unwrap(), id);
    for (sync, status) in [(1, "success"), (2, "failed")] {
        let claimed = store.claim("a", 9, &Limits::default(), &[], &NONE).await.unwrap();
        assert_eq!(claimed.iter().map(|c| c.sync_id).collect::<Vec<_>>(), [sync]);
        assert!(!store.advance_sequences().await.unwrap(), "nothing has ended");
        store.finish(&ending(claimed[0].run, "a", status)).await.unwrap();
        assert_eq!(store.advance_sequences().await.unwrap(), status == "success");
    }
    let run = store.sequence_run(&id).await.unwrap().unwrap();
    assert_eq!((run.status.as_str(), run.runs.len(), run.finished_at.is_some()), ("failed", 2, true));
    assert_ne!(store.ask_sequence(&wish).await.unwrap(), id, "it may run again");
    let resting = SequenceWish { sequence_id: 2, members: vec![member(9), member(8)], ..wish };
    let id = store.ask_sequence(&resting).await.unwrap();
    assert_eq!(store.sequence_run(&id).await.unwrap().unwrap().status, "done", "all of them rest");
}

#[tokio::test]
async fn history_keeps_the_last_run_of_each_sync() {
    let (store, _folder) = store().await;
    for sync in [1, 1, 2] {
        let run = store.ask(&wish(sync, api())).await.unwrap().run;
        claim(&store, "a").await;
        store.finish(&ending(run, "a", "success")).await.unwrap();
    }
    store.forget_history(std::time::Duration::from_secs(3_600)).await.unwrap();
    let left: Vec<i64> = store.runs(None, 9).await.unwrap().iter().map(|run| run.id).collect();
    assert_eq!(left, [3, 2]);
}

#[tokio::test]
async fn an_older_store_gets_the_newer_tables() {
    let folder = tempfile::tempdir().unwrap();
    drop(Store::open("sqlite://store.db", folder.path()).await.unwrap());
    let again = Store::open("sqlite://store.db", folder.path()).await.unwrap();
    sqlx::query("update levin_store set value = '99' where name = 'schema'")
        .execute(&again.pool)
        .await
        .unwrap();
    let newer = Store::open("sqlite://store.db", folder.path()).await.unwrap_err();
    assert!(newer.message.contains("version 99"), "{newer}");
}
