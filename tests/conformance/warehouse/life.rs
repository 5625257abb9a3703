//! The life of a sync: what is sent, what is remembered, and what comes back.

use sql_templates::{EndedRange, RejectionFacts, Statement, SyncScope};

use super::trial::{
    Counts, DiffRow, EVERY, Ending, Exception, Found, Question, Text, Trial, UPSERTS, all_of, facts, row,
};
use super::{Bench, on_every_warehouse};

on_every_warehouse!(
    what_was_accepted_is_not_sent_again,
    what_was_not_accepted_comes_back,
    a_first_run_leaves_out_what_was_refused,
    checkpoints_commit_a_part,
    a_key_in_doubt_stands_in_every_diff,
    a_doubt_of_a_key_that_left_is_a_removal,
    a_version_is_used_again_only_by_the_same_delivery,
    lost_notes_put_what_may_have_been_sent_in_doubt,
    keys_that_are_null_or_come_twice_are_set_aside,
    composite_keys_are_set_aside_as_a_whole,
    removals_that_are_not_sent_leave_the_snapshot,
    a_full_resync_sends_every_row_and_keeps_removals,
    a_full_resync_keeps_the_doubt_of_a_key_that_left,
    a_reset_takes_the_model_as_accepted,
    a_reset_keeps_what_was_known_of_keys_set_aside,
    a_mode_that_compares_keys_only_sees_no_change,
    a_key_alone_makes_a_sync,
);

/// A sync over `people (id, email, n)` with rows 1 to 4, all of them accepted; generation 2 holds
/// the lease.
async fn started(bench: Bench) -> Trial {
    bench
        .setup(&[
            "create table people (id bigint, email text, n int)",
            "insert into people values (1, 'a', 1), (2, 'b', 2), (3, 'c', 3), (4, 'd', null)",
        ])
        .await;
    let mut trial = Trial::begin(bench, 1, "select id, email, n from people", &["id"]).await;
    trial.accept_all(Question::FIRST).await;
    trial
}

fn find<'a>(found: &'a Found, key: &str) -> &'a DiffRow {
    let mut of_key = found.rows.iter().filter(|r| r.key == row(&[key]));
    let only = of_key.next().unwrap_or_else(|| panic!("{key} is not in {found:#?}"));
    assert!(of_key.next().is_none());
    only
}

fn operations(found: &Found) -> Vec<(&str, &'static str)> {
    let mut all: Vec<_> =
        found.rows.iter().map(|r| (r.key[0].as_deref().unwrap_or_default(), r.operation)).collect();
    all.sort_unstable();
    all
}

async fn rejected(trial: &mut Trial) -> Vec<Vec<Text>> {
    let table = trial.tables.rejections();
    let keys: Vec<String> = trial.shape.keys.iter().map(|k| k.name.clone()).collect();
    let mut columns: Vec<&str> = keys.iter().map(String::as_str).collect();
    columns.extend(["_levin_operation", "_levin_code", "_levin_attempts", "_levin_rows"]);
    trial.table(&table, &columns).await
}

async fn what_was_accepted_is_not_sent_again(bench: Bench) {
    let mut trial = started(bench).await;
    let snapshot = trial.snapshot().await;
    assert_eq!(snapshot.len(), 4);
    assert_eq!(snapshot[&row(&["4"])], row(&["d", "∅"]));

    for plain in [false, true] {
        let nothing = trial.diff(Question { plain, ..Question::default() }).await;
        assert_eq!(nothing.counts, Counts { queried: 4, ..Counts::default() });
        assert!(nothing.rows.is_empty());
        trial.commit(&nothing, Ending::default()).await.unwrap();
        trial.take_lease().await;
        assert_eq!(trial.snapshot().await, snapshot);
    }

    let update = [
        "insert into people values (5, '', 5)",
        "update people set email = null where id = 2",
        "update people set email = 'C', n = 33 where id = 3",
        "delete from people where id = 1",
    ];
    trial.bench.setup(&update).await;
    for plain in [true, false] {
        let found = trial.diff(Question { plain, ..Question::default() }).await;
        assert_eq!(
            found.counts,
            Counts { queried: 4, added: 1, changed: 2, removed: 1, ..Counts::default() }
        );
        let gone = find(&found, "1");
        assert_eq!((gone.operation, &gone.values), ("removed", &row(&["a", "1"])));
        let nulled = find(&found, "2");
        assert_eq!((nulled.operation, nulled.changed.as_deref()), ("changed", Some("10")));
        assert_eq!((&nulled.values, &nulled.previous), (&row(&["∅", "2"]), &row(&["b", "2"])));
        assert_eq!(find(&found, "3").changed.as_deref(), Some("11"));
        let new = find(&found, "5");
        assert_eq!((new.operation, &new.values), ("added", &row(&["", "5"])));
        assert_eq!((&new.changed, &new.version), (&None, &None));
        if plain {
            trial.run(&[Statement::Prune { drop: std::slice::from_ref(&found.table) }]).await.unwrap();
            continue;
        }
        trial.commit(&found, Ending::default()).await.unwrap();
    }
    let snapshot = trial.snapshot().await;
    let expected = [(["2"], ["∅", "2"]), (["3"], ["C", "33"]), (["4"], ["d", "∅"]), (["5"], ["", "5"])];
    assert_eq!(snapshot, expected.map(|(k, v)| (row(&k), row(&v))).into());
}

async fn a_first_run_leaves_out_what_was_refused(bench: Bench) {
    bench
        .setup(&[
            "create table people (id bigint, email text)",
            "insert into people values (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd')",
        ])
        .await;
    let mut trial = Trial::begin(bench, 1, "select id, email from people", &["id"]).await;
    let found = trial.diff(Question::FIRST).await;
    let exceptions =
        ["1", "3"].map(|key| (find(&found, key).sequence, Exception::Rejected)).into_iter().collect();
    trial.commit(&found, Ending { exceptions, adopt: true, ..Ending::default() }).await.unwrap();
    let known: Vec<_> = trial.snapshot().await.into_keys().collect();
    assert_eq!(known, [row(&["2"]), row(&["4"])]);
    trial.take_lease().await;
    let again = trial.diff(Question::default()).await;
    assert_eq!(operations(&again), [("1", "added"), ("3", "added")]);
}

async fn what_was_not_accepted_comes_back(bench: Bench) {
    let mut trial = started(bench).await;
    trial
        .bench
        .setup(&[
            "insert into people values (5, 'e', 5), (6, 'f', 6)",
            "update people set n = 22 where id in (2, 3)",
            "delete from people where id = 1",
        ])
        .await;
    let found = trial.diff(Question::default()).await;
    let exceptions = [("1", Exception::Rejected), ("2", Exception::Rejected), ("5", Exception::NotSent)]
        .map(|(key, end)| (find(&found, key).sequence, end))
        .to_vec();
    trial.commit(&found, Ending { exceptions, ..Ending::default() }).await.unwrap();
    let state = trial.state().await;
    assert_eq!((state.rejections, state.doubts), (2, 0));
    assert_eq!(
        rejected(&mut trial).await,
        [row(&["1", "removed", "REFUSED", "1", "1"]), row(&["2", "changed", "REFUSED", "1", "1"])]
    );
    let snapshot = trial.snapshot().await;
    assert_eq!(snapshot[&row(&["1"])], row(&["a", "1"]), "a rejected removal leaves the row");
    assert_eq!(snapshot[&row(&["2"])], row(&["b", "2"]), "a rejected change leaves the old values");
    assert_eq!(snapshot[&row(&["3"])], row(&["c", "22"]));
    assert!(!snapshot.contains_key(&row(&["5"])) && snapshot.contains_key(&row(&["6"])));

    // They come back with the operation that then holds; what is refused again counts on.
    trial.take_lease().await;
    trial.bench.setup(&["insert into people values (1, 'a', 1)"]).await;
    let again = trial.diff(Question::default()).await;
    assert_eq!(operations(&again), [("2", "changed"), ("5", "added")]);
    let exceptions = vec![(find(&again, "2").sequence, Exception::Rejected)];
    trial.commit(&again, Ending { exceptions, ..Ending::default() }).await.unwrap();
    assert_eq!(rejected(&mut trial).await, [row(&["2", "changed", "REFUSED", "2", "1"])]);
    let tables = trial.tables.clone();
    let keys = trial.shape.keys.clone();
    let effect = trial
        .run(&[Statement::Rejections { tables: &tables, keys: &keys, facts: &RejectionFacts::newest(100) }])
        .await
        .unwrap();
    let open = effect.result("open rejections");
    assert_eq!(super::trial::texts(open, 0), row(&["2"]));
    let reason = open[0].schema().index_of("_levin_reason").unwrap();
    assert_eq!(super::trial::texts(open, reason), row(&["it's; not --fine"]));

    // Accepted at last, it closes.
    trial.take_lease().await;
    trial.accept_all(Question::default()).await;
    assert_eq!(trial.state().await.rejections, 0);
}

async fn checkpoints_commit_a_part(bench: Bench) {
    bench
        .setup(&[
            "create table people (id bigint, email text)",
            "insert into people values (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd'), (5, 'e'), (6, 'f')",
        ])
        .await;
    let mut trial = Trial::begin(bench, 1, "select id, email from people", &["id"]).await;
    let found = trial.diff(Question::FIRST).await;
    // Where sequences begin is the engine's own affair.
    let start = found.rows.iter().map(|r| r.sequence).min().unwrap();
    let part = |first, last| {
        Some(vec![EndedRange { operation: "added", first: start + first - 1, last: start + last - 1 }])
    };
    let second = start + 1;
    let refused = found.rows.iter().find(|r| r.sequence == second).unwrap().key.clone();
    let open =
        |ranges, exceptions| Ending { ranges, exceptions, last: false, complete: false, ..Ending::default() };
    trial.commit(&found, open(part(1, 3), vec![(second, Exception::Rejected)])).await.unwrap();
    assert_eq!(trial.snapshot().await.len(), 2);
    assert_eq!(rejected(&mut trial).await.len(), 1);
    trial.commit(&found, open(part(4, 5), vec![])).await.unwrap();
    assert_eq!(trial.snapshot().await.len(), 4);
    assert_eq!(rejected(&mut trial).await.len(), 1, "a rejection of this run stays open");
    let exceptions = vec![(second, Exception::Rejected)];
    trial.commit(&found, Ending { ranges: part(6, 6), exceptions, ..Ending::default() }).await.unwrap();
    let told = rejected(&mut trial).await;
    assert_eq!(told[0][3].as_deref(), Some("1"), "said twice, it is one attempt: {told:?}");
    let state = trial.state().await;
    assert_eq!((state.checkpoint, state.rejections), (3, 1));
    assert_eq!(trial.snapshot().await.len(), 5);

    trial.take_lease().await;
    let rest = trial.diff(Question::default()).await;
    assert_eq!(rest.rows.len(), 1);
    assert_eq!((rest.rows[0].operation, &rest.rows[0].key), ("added", &refused));
}

async fn a_key_in_doubt_stands_in_every_diff(bench: Bench) {
    let mut trial = started(bench).await;
    // A accepted, B sent and not answered for.
    trial.bench.setup(&["update people set email = 'B' where id = 1"]).await;
    let found = trial.diff(Question::default()).await;
    let sequence = find(&found, "1").sequence;
    let exceptions = vec![(sequence, Exception::InDoubt)];
    trial.commit(&found, Ending { exceptions, ..Ending::default() }).await.unwrap();
    assert_eq!(trial.state().await.doubts, 1);
    assert_eq!(trial.snapshot().await[&row(&["1"])], row(&["a", "1"]));

    // The model is back to A: that is a change all the same, and not the delivery in doubt.
    trial.take_lease().await;
    trial.bench.setup(&["update people set email = 'a' where id = 1"]).await;
    let back = trial.diff(Question::default()).await;
    assert_eq!(back.counts, Counts { queried: 4, changed: 1, ..Counts::default() });
    let sent = find(&back, "1");
    assert_eq!((sent.operation, sent.changed.as_deref(), &sent.version), ("changed", Some("11"), &None));

    // A definite no does not end the doubt; a yes does.
    let no = vec![(sent.sequence, Exception::Rejected)];
    trial.commit(&back, Ending { exceptions: no, ..Ending::default() }).await.unwrap();
    let state = trial.state().await;
    assert_eq!((state.doubts, state.rejections), (1, 1));
    trial.take_lease().await;
    let again = trial.diff(Question::default()).await;
    assert_eq!(operations(&again), [("1", "changed")]);
    trial.commit(&again, Ending::default()).await.unwrap();
    let state = trial.state().await;
    assert_eq!((state.doubts, state.rejections), (0, 0));
    trial.take_lease().await;
    assert!(trial.diff(Question::default()).await.rows.is_empty());
}

async fn a_doubt_of_a_key_that_left_is_a_removal(bench: Bench) {
    let mut trial = started(bench).await;
    trial.bench.setup(&["insert into people values (5, 'e', 5)"]).await;
    let found = trial.diff(Question::default()).await;
    let exceptions = vec![(find(&found, "5").sequence, Exception::InDoubt)];
    trial.commit(&found, Ending { exceptions, ..Ending::default() }).await.unwrap();
    trial.take_lease().await;

    // Still there, it is added once more, as the same delivery.
    let still = trial.diff(Question::default()).await;
    let sent = find(&still, "5");
    assert_eq!(sent.operation, "added");
    assert_eq!(sent.version, Some(format!("2.{}", find(&found, "5").sequence)));
    trial.run(&[Statement::Prune { drop: std::slice::from_ref(&still.table) }]).await.unwrap();

    // Gone, it is removed, with what was last sent of it.
    trial.bench.setup(&["delete from people where id = 5"]).await;
    let gone = trial.diff(Question::default()).await;
    assert_eq!(gone.counts, Counts { queried: 4, removed: 1, ..Counts::default() });
    let removal = find(&gone, "5");
    assert_eq!((removal.operation, &removal.values), ("removed", &row(&["e", "5"])));
    assert_eq!(removal.version, None, "a removal is another delivery than an addition");

    // The removal is in doubt too: the next one is its repeat, until one is accepted.
    let exceptions = vec![(removal.sequence, Exception::RejectedInDoubt)];
    trial.commit(&gone, Ending { exceptions, ..Ending::default() }).await.unwrap();
    let state = trial.state().await;
    assert_eq!((state.doubts, state.rejections), (1, 1));
    trial.take_lease().await;
    let repeat = trial.diff(Question::default()).await;
    assert_eq!(find(&repeat, "5").version, Some(format!("3.{}", removal.sequence)));
    assert_eq!(find(&repeat, "5").values, row(&["e", "5"]));
    trial.commit(&repeat, Ending::default()).await.unwrap();
    trial.take_lease().await;
    assert!(trial.diff(Question::default()).await.rows.is_empty());
    assert_eq!(trial.state().await.doubts, 0);
}

async fn a_version_is_used_again_only_by_the_same_delivery(bench: Bench) {
    let mut trial = started(bench).await;
    let in_doubt = |found: &Found, key: &str| Ending {
        exceptions: vec![(find(found, key).sequence, Exception::InDoubt)],
        ..Ending::default()
    };
    trial.bench.setup(&["update people set email = null, n = 11 where id = 1"]).await;
    let first = trial.diff(Question::default()).await;
    let version = Some(format!("2.{}", find(&first, "1").sequence));
    trial.commit(&first, in_doubt(&first, "1")).await.unwrap();
    trial.take_lease().await;

    // The same values, nulls among them: a repeat, and it stays one over several runs.
    for _ in 0..2 {
        let repeat = trial.diff(Question::default()).await;
        assert_eq!(find(&repeat, "1").version, version);
        trial.commit(&repeat, in_doubt(&repeat, "1")).await.unwrap();
        trial.take_lease().await;
    }
    // Other values: another delivery, whose version the doubt now holds.
    trial.bench.setup(&["update people set email = 'z' where id = 1"]).await;
    let other = trial.diff(Question::default()).await;
    assert_eq!(find(&other, "1").version, None);
    let version = Some(format!("5.{}", find(&other, "1").sequence));
    trial.commit(&other, in_doubt(&other, "1")).await.unwrap();
    trial.take_lease().await;
    let repeat = trial.diff(Question::default()).await;
    assert_eq!(find(&repeat, "1").version, version);
    // Back to the values of the first delivery: not that delivery again.
    trial.run(&[Statement::Prune { drop: std::slice::from_ref(&repeat.table) }]).await.unwrap();
    trial.bench.setup(&["update people set email = null where id = 1"]).await;
    let back = trial.diff(Question::default()).await;
    assert_eq!(find(&back, "1").version, None);
}

async fn lost_notes_put_what_may_have_been_sent_in_doubt(bench: Bench) {
    let mut trial = started(bench).await;
    trial
        .bench
        .setup(&[
            "insert into people values (5, 'e', 5), (6, 'f', 6)",
            "update people set n = 9 where id in (2, 3)",
            "delete from people where id = 1",
        ])
        .await;
    let found = trial.diff(Question::default()).await;
    let five = find(&found, "5").sequence;
    let committed = vec![EndedRange { operation: "added", first: five, last: five }];
    let part = Ending { ranges: Some(committed), last: false, complete: false, ..Ending::default() };
    trial.commit(&found, part).await.unwrap();

    // The notes tell of one batch under way, or are lost altogether.
    let three = find(&found, "3").sequence;
    let under_way = [EndedRange { operation: "changed", first: three, last: three }];
    for (among, sent, doubted) in [
        (Some(&under_way[..]), EVERY, vec!["3"]),
        (None, EVERY, vec!["1", "2", "3", "6"]),
        (None, UPSERTS, vec!["2", "3", "6"]),
    ] {
        let outcomes = trial.tables.outcomes("lost");
        let (tables, shape, model) = (trial.tables.clone(), trial.shape.clone(), trial.model.clone());
        let scope = SyncScope { tables: &tables, shape: &shape, model: &model };
        let ending = Ending { sent, ..Ending::default() };
        let state = trial.state().await;
        let facts = facts(&trial, &found, &ending, &[], Some(outcomes.clone()), &state);
        trial
            .run(&[
                Statement::Prune { drop: std::slice::from_ref(&outcomes) },
                Statement::CreateOutcomes { outcomes: outcomes.clone() },
                Statement::Doubt { scope, facts: &facts, among },
            ])
            .await
            .unwrap();
        let written = trial.table(&outcomes, &["sequence", "outcome", "in_doubt", "code"]).await;
        let mut keys: Vec<Text> = written
            .iter()
            .map(|w| {
                assert_eq!((w[1].as_deref(), w[3].as_deref()), (Some("in_doubt"), Some("INTERRUPTED")));
                let of = found.rows.iter().find(|r| Some(r.sequence.to_string()) == w[0]).unwrap();
                of.key[0].clone()
            })
            .collect();
        keys.sort();
        assert_eq!(keys, row(&doubted), "{among:?}");
    }
    // Settled, each of them stands in the next diff.
    let outcomes = trial.tables.outcomes("lost");
    let (tables, shape, model) = (trial.tables.clone(), trial.shape.clone(), trial.model.clone());
    let scope = SyncScope { tables: &tables, shape: &shape, model: &model };
    let state = trial.state().await;
    let ending = Ending { complete: false, ..Ending::default() };
    let facts = facts(&trial, &found, &ending, &[], Some(outcomes), &state);
    trial.run(&[Statement::Commit { scope, facts: &facts }]).await.unwrap();
    assert_eq!(trial.state().await.doubts, 3);
    trial.take_lease().await;
    let next = trial.diff(Question::default()).await;
    assert_eq!(operations(&next), [("1", "removed"), ("2", "changed"), ("3", "changed"), ("6", "added")]);
    assert!(find(&next, "6").version.is_some() && find(&next, "1").version.is_none());
}

async fn keys_that_are_null_or_come_twice_are_set_aside(bench: Bench) {
    let mut trial = started(bench).await;
    // Duplicates that equal the snapshot are duplicates all the same.
    trial
        .bench
        .setup(&[
            "insert into people values (1, 'a', 1), (2, 'x', 2), (2, 'y', 2), (null, 'n', 0), (null, 'n', 0), (7, 'g', 7), (7, 'g', 7), (8, 'h', 8)",
        ])
        .await;
    let found = trial.diff(Question::default()).await;
    assert_eq!(
        found.counts,
        Counts { queried: 12, null_keys: 2, duplicate_key_rows: 7, added: 1, ..Counts::default() }
    );
    assert_eq!(operations(&found), [("8", "added")]);
    trial.commit(&found, Ending::default()).await.unwrap();
    assert_eq!(
        rejected(&mut trial).await,
        [
            row(&["∅", "added", "NULL_PRIMARY_KEY", "0", "2"]),
            row(&["1", "added", "DUPLICATE_PRIMARY_KEY", "0", "2"]),
            row(&["2", "added", "DUPLICATE_PRIMARY_KEY", "0", "3"]),
            row(&["7", "added", "DUPLICATE_PRIMARY_KEY", "0", "2"]),
        ]
    );
    let snapshot = trial.snapshot().await;
    assert_eq!(snapshot.len(), 5, "a key that is set aside keeps its row: {snapshot:?}");
    assert_eq!(snapshot[&row(&["2"])], row(&["b", "2"]));

    // Seen again, they are recorded once; gone, they close, and what was known still holds.
    trial.take_lease().await;
    let found = trial.diff(Question::default()).await;
    assert!(found.rows.is_empty());
    trial.commit(&found, Ending::default()).await.unwrap();
    assert_eq!(rejected(&mut trial).await.len(), 4);
    trial.take_lease().await;
    trial
        .bench
        .setup(&[
            "delete from people where id is null or id in (1, 2, 7)",
            "insert into people values (1, 'a', 1)",
        ])
        .await;
    let found = trial.diff(Question::default()).await;
    assert_eq!(operations(&found), [("2", "removed")]);
    assert!(found.set_aside.is_none());
    trial.commit(&found, Ending::default()).await.unwrap();
    assert_eq!(trial.state().await.rejections, 0);
}

async fn composite_keys_are_set_aside_as_a_whole(bench: Bench) {
    bench
        .setup(&[
            "create table orders (tenant text, no int, v text)",
            "insert into orders values ('a', 1, 'x'), ('a', 2, 'x'), ('b', 1, 'x'), ('a', null, 'x'), \
             ('a', null, 'y'), (null, null, 'x'), ('', 1, 'x'), ('c', 5, 'x'), ('c', 5, 'x')",
        ])
        .await;
    let mut trial = Trial::begin(bench, 1, "select v, no, tenant from orders", &["tenant", "no"]).await;
    let found = trial.diff(Question::FIRST).await;
    assert_eq!(
        found.counts,
        Counts { queried: 9, null_keys: 3, duplicate_key_rows: 2, added: 4, ..Counts::default() }
    );
    trial.commit(&found, Ending { adopt: true, ..Ending::default() }).await.unwrap();
    let snapshot = trial.snapshot().await;
    let keys: Vec<_> = snapshot.into_keys().collect();
    assert_eq!(keys, [row(&["", "1"]), row(&["a", "1"]), row(&["a", "2"]), row(&["b", "1"])]);
    assert_eq!(
        rejected(&mut trial).await,
        [
            row(&["∅", "∅", "added", "NULL_PRIMARY_KEY", "0", "1"]),
            row(&["a", "∅", "added", "NULL_PRIMARY_KEY", "0", "2"]),
            row(&["c", "5", "added", "DUPLICATE_PRIMARY_KEY", "0", "2"]),
        ]
    );
    trial.take_lease().await;
    trial
        .bench
        .setup(&["delete from orders where tenant = 'b'", "update orders set v = 'z' where no = 2"])
        .await;
    let found = trial.diff(Question::default()).await;
    let mut rows: Vec<_> = found.rows.iter().map(|r| (r.operation, r.key.clone())).collect();
    rows.sort();
    assert_eq!(rows, [("changed", row(&["a", "2"])), ("removed", row(&["b", "1"]))]);
}

async fn removals_that_are_not_sent_leave_the_snapshot(bench: Bench) {
    let mut trial = started(bench).await;
    trial
        .bench
        .setup(&["delete from people where id in (1, 2)", "insert into people values (9, 'i', 9)"])
        .await;
    let found = trial.diff(Question::default()).await;
    assert_eq!(found.counts.removed, 2);
    // A run that was cut short forgets nothing.
    let short = Ending { sent: UPSERTS, complete: false, ranges: Some(vec![]), ..Ending::default() };
    trial.commit(&found, short).await.unwrap();
    assert_eq!(trial.snapshot().await.len(), 4);
    trial.take_lease().await;
    let found = trial.diff(Question::default()).await;
    trial.commit(&found, Ending { sent: UPSERTS, ..Ending::default() }).await.unwrap();
    let keys: Vec<_> = trial.snapshot().await.into_keys().collect();
    assert_eq!(keys, [row(&["3"]), row(&["4"]), row(&["9"])]);
    trial.take_lease().await;
    let next = trial.diff(Question::default()).await;
    assert_eq!(next.counts, Counts { queried: 3, ..Counts::default() }, "counted once");
}

async fn a_full_resync_sends_every_row_and_keeps_removals(bench: Bench) {
    let mut trial = started(bench).await;
    trial.bench.setup(&["delete from people where id = 1"]).await;
    let generation = trial.generation;
    let resync = Question { due_before: Some(generation), resync: true, ..Question::default() };
    let found = trial.diff(resync).await;
    assert_eq!(found.counts, Counts { queried: 3, added: 3, removed: 1, ..Counts::default() });
    // It breaks off after two rows.
    let ranges = Some(vec![EndedRange { operation: "added", first: 0, last: 4 }]);
    let two: Vec<i64> = found.rows.iter().filter(|r| r.operation == "added").map(|r| r.sequence).collect();
    let ending = Ending {
        sent: UPSERTS,
        ranges,
        exceptions: vec![(two[2], Exception::NotSent)],
        complete: false,
        keep_removals: true,
        due_before: Some(generation),
        ..Ending::default()
    };
    trial.commit(&found, ending).await.unwrap();
    assert_eq!(trial.state().await.due_before, generation);
    assert_eq!(trial.snapshot().await.len(), 4);
    trial.take_lease().await;

    // The next run, resync or not, sends the rest.
    let rest = trial.diff(Question { resync: false, ..resync }).await;
    assert_eq!(rest.counts, Counts { queried: 3, changed: 1, removed: 1, ..Counts::default() });
    assert_eq!(rest.rows.iter().find(|r| r.operation == "changed").unwrap().changed.as_deref(), Some("11"));
    trial.run(&[Statement::Prune { drop: std::slice::from_ref(&rest.table) }]).await.unwrap();
    let rest = trial.diff(resync).await;
    assert_eq!(rest.counts, Counts { queried: 3, added: 1, removed: 1, ..Counts::default() });
    let kept = Ending { sent: UPSERTS, keep_removals: true, ..Ending::default() };
    trial.commit(&rest, kept).await.unwrap();
    assert!(
        trial.snapshot().await.contains_key(&row(&["1"])),
        "a removal that was kept back is not forgotten"
    );
    trial.take_lease().await;
    let next = trial.diff(Question { resync: false, ..resync }).await;
    assert_eq!(operations(&next), [("1", "removed")]);
}

async fn a_full_resync_keeps_the_doubt_of_a_key_that_left(bench: Bench) {
    let mut trial = started(bench).await;
    trial.bench.setup(&["insert into people values (5, 'e', 5)"]).await;
    let found = trial.diff(Question::default()).await;
    let exceptions = vec![(find(&found, "5").sequence, Exception::InDoubt)];
    trial.commit(&found, Ending { exceptions, ..Ending::default() }).await.unwrap();
    trial.take_lease().await;
    trial.bench.setup(&["delete from people where id = 5"]).await;
    let resync = Question { due_before: Some(trial.generation), resync: true, ..Question::default() };
    let found = trial.diff(resync).await;
    assert_eq!(found.counts, Counts { queried: 4, added: 4, removed: 1, ..Counts::default() });
    trial.commit(&found, Ending { sent: UPSERTS, keep_removals: true, ..Ending::default() }).await.unwrap();
    assert_eq!(trial.state().await.doubts, 1);
    trial.take_lease().await;
    let next = trial.diff(Question::default()).await;
    assert_eq!(operations(&next), [("5", "removed")], "it may be at the destination and must be taken off");
}

async fn a_reset_takes_the_model_as_accepted(bench: Bench) {
    let mut trial = started(bench).await;
    trial
        .bench
        .setup(&[
            "update people set n = 0",
            "insert into people values (5, 'e', 5), (6, 'f', 6)",
            "delete from people where id = 4",
        ])
        .await;
    let found = trial.diff(Question::default()).await;
    let exceptions = vec![
        (find(&found, "5").sequence, Exception::InDoubt),
        (find(&found, "6").sequence, Exception::Rejected),
    ];
    trial.commit(&found, Ending { exceptions, ..Ending::default() }).await.unwrap();
    let state = trial.state().await;
    assert_eq!((state.doubts, state.rejections), (1, 1));
    trial.take_lease().await;
    trial.bench.setup(&["update people set n = 7"]).await;
    let all = trial.diff(Question::FIRST).await;
    trial.commit(&all, Ending { adopt: true, reset: true, ..Ending::default() }).await.unwrap();
    let state = trial.state().await;
    assert_eq!((state.doubts, state.rejections), (0, 0));
    let snapshot = trial.snapshot().await;
    assert_eq!(snapshot.len(), 5);
    assert!(snapshot.values().all(|v| v[1].as_deref() == Some("7")));
    trial.take_lease().await;
    assert!(trial.diff(Question::default()).await.rows.is_empty());
}

async fn a_reset_keeps_what_was_known_of_keys_set_aside(bench: Bench) {
    let mut trial = started(bench).await;
    trial.bench.setup(&["insert into people values (1, 'twice', 1), (9, 'i', 9), (9, 'j', 9)"]).await;
    let all = trial.diff(Question::FIRST).await;
    assert_eq!(all.counts.duplicate_key_rows, 4);
    let ending = Ending { adopt: true, reset: true, keep_set_aside: true, ..Ending::default() };
    trial.commit(&all, ending).await.unwrap();
    let snapshot = trial.snapshot().await;
    assert_eq!(snapshot.len(), 4);
    assert_eq!(snapshot[&row(&["1"])], row(&["a", "1"]));
    assert_eq!(trial.state().await.rejections, 2, "what is set aside now is recorded");
    trial.take_lease().await;
    trial.bench.setup(&["delete from people where email = 'twice' or id = 9"]).await;
    assert!(trial.diff(Question::default()).await.rows.is_empty());
}

async fn a_mode_that_compares_keys_only_sees_no_change(bench: Bench) {
    let mut trial = started(bench).await;
    trial
        .bench
        .setup(&[
            "update people set n = 99",
            "delete from people where id = 1",
            "insert into people values (5, 'e', 5)",
        ])
        .await;
    for plain in [true, false] {
        let found = trial.diff(Question { compared: false, plain, ..Question::default() }).await;
        assert_eq!(operations(&found), [("1", "removed"), ("5", "added")]);
        assert_eq!(found.counts.changed, 0);
        trial.run(&[Statement::Prune { drop: std::slice::from_ref(&found.table) }]).await.unwrap();
    }
}

async fn a_key_alone_makes_a_sync(bench: Bench) {
    bench.setup(&["create table ids (\"The ID\" text)", "insert into ids values ('a'), ('b')"]).await;
    let mut trial = Trial::begin(bench, 1, "select * from ids", &["The ID"]).await;
    let found = trial.accept_all(Question::FIRST).await;
    let ended = all_of(&found, EVERY);
    assert_eq!(ended.iter().map(|r| (r.operation, r.last - r.first)).collect::<Vec<_>>(), [("added", 1)]);
    trial.bench.setup(&["insert into ids values ('c')", "delete from ids where \"The ID\" = 'a'"]).await;
    let found = trial.accept_all(Question::default()).await;
    assert_eq!(operations(&found), [("a", "removed"), ("c", "added")]);
    let (shape, diff) = (trial.shape.clone(), found.table);
    trial.run(&[Statement::ChangedColumns { shape: &shape, diff }]).await.unwrap();
    assert_eq!(trial.snapshot().await.len(), 2);
}
