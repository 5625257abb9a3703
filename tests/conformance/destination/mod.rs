//! What every destination keeps, whatever it speaks: the contract of `connectors::destination`, against a real
//! one of each kind. A new destination is another [`subject::Kind`].

mod subject;
mod way;

use std::collections::BTreeMap;

use connectors::change::{Mode, Operation};
use connectors::outcome::{DeliveryError, Rejection, RowOutcome};
use tests::outcomes::words;

use subject::{Kind, Odd, Subject, facts};
use way::Cut;

macro_rules! on_every_destination {
    ($($test:ident),* $(,)?) => {
        $(mod $test {
            use super::subject::Kind;

            #[tokio::test(flavor = "multi_thread")]
            async fn http_request() {
                super::$test(Kind::HttpRequest).await;
            }
            #[tokio::test(flavor = "multi_thread")]
            async fn postgres() {
                super::$test(Kind::Postgres).await;
            }
            #[tokio::test(flavor = "multi_thread")]
            async fn lines_in_a_folder() {
                super::$test(Kind::Lines).await;
            }
            #[tokio::test(flavor = "multi_thread")]
            async fn parquet_in_a_folder() {
                super::$test(Kind::Parquet).await;
            }
            #[tokio::test(flavor = "multi_thread")]
            async fn s3() {
                super::$test(Kind::S3).await;
            }
            #[tokio::test(flavor = "multi_thread")]
            async fn azure() {
                super::$test(Kind::Azure).await;
            }
        })*
    };
}

on_every_destination!(
    every_row_has_one_outcome_and_bad_ones_are_refused_alone,
    nothing_is_seen_before_it_may_be,
    a_delivery_that_is_not_complete_leaves_what_was_accepted_and_no_more,
    a_connection_that_is_cut_is_never_a_yes,
    an_answer_that_is_lost_once_costs_nothing,
    nobody_there_is_certain,
    equal_places_have_equal_targets,
    a_check_says_what_is_missing,
    modes_are_those_of_the_catalogue,
    what_cannot_be_emptied_says_so_and_what_can_is_empty,
);

fn content(rows: &[(i64, &str)]) -> BTreeMap<i64, String> {
    rows.iter().map(|(id, name)| (*id, (*name).to_owned())).collect()
}

/// What a row that was taken is called before the delivery is closed.
fn taken(kind: Kind) -> &'static str {
    if kind.connector().deferred { "deferred" } else { "accepted" }
}

/// Delivers rows in a run of their own, to its end.
async fn deliver(subject: &Subject, generation: i64, rows: &[(i64, &str, Odd)]) -> Vec<RowOutcome> {
    let delivery = subject.destination.open(&subject.kind.spec(), &facts(generation)).await.unwrap();
    let delivered = delivery.deliver(&subject.kind.rows(Operation::Added, rows)).await;
    assert!(delivered.error.is_none(), "{delivered:?}");
    let closed = delivery.close(true).await.unwrap();
    let deferred = subject.kind.connector().deferred;
    assert_eq!(closed, deferred.then_some(RowOutcome::Accepted), "{:?}", subject.kind);
    delivered.outcomes
}

async fn every_row_has_one_outcome_and_bad_ones_are_refused_alone(kind: Kind) {
    let subject = kind.subject().await;
    subject.destination.validate(&kind.spec()).unwrap();
    subject.destination.check(Some(&kind.spec())).await.unwrap();
    let rows = [
        (1, "a", Odd::Fine),
        (2, "b", Odd::Unrepresentable),
        (3, "c", Odd::Fine),
        (4, "d", Odd::Unrepresentable),
    ];
    let outcomes = deliver(&subject, 1, &rows).await;
    let bad = Rejection::UNREPRESENTABLE_VALUE;
    assert_eq!(words(&outcomes), [taken(kind), bad, taken(kind), bad]);
    assert!(outcomes.iter().filter_map(RowOutcome::rejection).all(|r| !r.in_doubt && !r.reason.is_empty()));
    assert_eq!(subject.content().await, content(&[(1, "a"), (3, "c")]));
    // Nothing but bad rows is no failure, and nothing arrives.
    let outcomes = deliver_only_bad(&subject).await;
    assert_eq!(words(&outcomes), [bad, bad]);
    assert_eq!(subject.content().await, content(&[(1, "a"), (3, "c")]));
}

async fn deliver_only_bad(subject: &Subject) -> Vec<RowOutcome> {
    let delivery = subject.destination.open(&subject.kind.spec(), &facts(2)).await.unwrap();
    let rows = [(5, "e", Odd::Unrepresentable), (6, "f", Odd::Unrepresentable)];
    let delivered = delivery.deliver(&subject.kind.rows(Operation::Added, &rows)).await;
    assert!(delivered.error.is_none(), "{delivered:?}");
    assert_eq!(delivery.close(true).await.unwrap(), None);
    delivered.outcomes
}

async fn nothing_is_seen_before_it_may_be(kind: Kind) {
    let subject = kind.subject().await;
    let delivery = subject.destination.open(&kind.spec(), &facts(1)).await.unwrap();
    assert!(subject.content().await.is_empty(), "opening shows nothing");
    let mut expected = BTreeMap::new();
    for (id, name) in [(1, "a"), (2, "b"), (3, "c")] {
        let delivered = delivery.deliver(&kind.rows(Operation::Added, &[(id, name, Odd::Fine)])).await;
        assert_eq!(words(&delivered.outcomes), [taken(kind)]);
        expected.insert(id, name.to_owned());
        // A yes means that it is there; what is deferred is nowhere yet.
        let seen = if kind.connector().deferred { BTreeMap::new() } else { expected.clone() };
        assert_eq!(subject.content().await, seen);
    }
    delivery.close(true).await.unwrap();
    assert_eq!(subject.content().await, expected);
}

async fn a_delivery_that_is_not_complete_leaves_what_was_accepted_and_no_more(kind: Kind) {
    let subject = kind.subject().await;
    let delivery = subject.destination.open(&kind.spec(), &facts(1)).await.unwrap();
    let delivered = delivery.deliver(&kind.rows(Operation::Added, &[(1, "a", Odd::Fine)])).await;
    assert_eq!(words(&delivered.outcomes), [taken(kind)]);
    let closed = delivery.close(false).await.unwrap();
    let deferred = kind.connector().deferred;
    assert_eq!(closed, deferred.then_some(RowOutcome::NotSent));
    assert_eq!(subject.content().await, if deferred { BTreeMap::new() } else { content(&[(1, "a")]) });
    // The next run writes it.
    deliver(&subject, 2, &[(1, "a", Odd::Fine), (2, "b", Odd::Fine)]).await;
    assert_eq!(subject.content().await, content(&[(1, "a"), (2, "b")]));
}

async fn a_connection_that_is_cut_is_never_a_yes(kind: Kind) {
    for cut in [Cut::Saying, Cut::Answer] {
        let subject = kind.subject().await;
        // A folder has no connection; its full disk has tests of its own.
        let Some(way) = &subject.way else { return };
        let delivery = subject.destination.open(&kind.spec(), &facts(1)).await.unwrap();
        let rows = kind.rows(Operation::Added, &[(1, "a", Odd::Fine), (2, "b", Odd::Fine)]);
        let (outcomes, closed) = if kind.connector().deferred {
            let delivered = delivery.deliver(&rows).await;
            assert_eq!(words(&delivered.outcomes), ["deferred"; 2], "it fits into what is not sent yet");
            way.cut(cut);
            (vec![RowOutcome::NotSent; 2], Some(delivery.close(true).await))
        } else {
            way.cut(cut);
            let delivered = delivery.deliver(&rows).await;
            assert!(
                matches!(delivered.error, Some(DeliveryError::Unavailable { answered: false, .. })),
                "{cut:?}: {delivered:?}"
            );
            assert_eq!(delivered.outcomes.len(), 2);
            (delivered.outcomes, None)
        };
        way.cut(Cut::Never);
        let there = subject.content().await;
        for outcome in &outcomes {
            assert!(matches!(outcome, RowOutcome::NotSent | RowOutcome::InDoubt), "{cut:?}: {outcome:?}");
        }
        let certain = match &closed {
            None => outcomes.contains(&RowOutcome::NotSent),
            Some(Err(_)) => true,
            Some(Ok(outcome)) => {
                assert_eq!(*outcome, Some(RowOutcome::InDoubt), "{cut:?}");
                false
            }
        };
        if certain || cut == Cut::Saying {
            assert!(there.is_empty(), "{cut:?}: what is said not to have left has arrived: {there:?}");
        }
        // The same again, in the next run, ends well.
        deliver(&subject, 2, &[(1, "a", Odd::Fine), (2, "b", Odd::Fine)]).await;
        assert_eq!(subject.content().await, content(&[(1, "a"), (2, "b")]), "{cut:?}");
    }
}

/// Whoever repeats by itself, in the middle of what cannot be repeated from outside, ends well.
async fn an_answer_that_is_lost_once_costs_nothing(kind: Kind) {
    let subject = kind.subject().await;
    let Some(way) = subject.way.as_ref().filter(|_| kind.connector().deferred) else { return };
    let delivery = subject.destination.open(&kind.spec(), &facts(1)).await.unwrap();
    delivery.deliver(&kind.rows(Operation::Added, &[(1, "a", Odd::Fine)])).await;
    way.cut(Cut::AnswerOnce);
    assert_eq!(delivery.close(true).await.unwrap(), Some(RowOutcome::Accepted));
    assert_eq!(subject.content().await, content(&[(1, "a")]));
    // The same to a byte under the same name is another run's all the same.
    let delivery = subject.destination.open(&kind.spec(), &facts(1)).await.unwrap();
    delivery.deliver(&kind.rows(Operation::Added, &[(1, "a", Odd::Fine)])).await;
    let Err(DeliveryError::Unauthorized { message, .. }) = delivery.close(true).await else {
        panic!("{kind:?} takes another's file for its own");
    };
    assert!(message.contains("exists already"), "{message}");
}

async fn nobody_there_is_certain(kind: Kind) {
    let subject = kind.subject().await;
    let nowhere = match kind {
        Kind::HttpRequest => subject.configured("base_url", "http://127.0.0.1:9"),
        Kind::Postgres => subject.configured("url", "postgres://postgres@127.0.0.1:9/nowhere"),
        Kind::S3 | Kind::Azure => subject.configured("endpoint_url", "http://127.0.0.1:9/account"),
        Kind::Lines | Kind::Parquet => return,
    };
    assert!(nowhere.check(None).await.is_err());
    match nowhere.open(&kind.spec(), &facts(1)).await {
        Err(error) => assert!(matches!(error, DeliveryError::Unavailable { .. }), "{error:?}"),
        Ok(delivery) => {
            let delivered = delivery.deliver(&kind.rows(Operation::Added, &[(1, "a", Odd::Fine)])).await;
            if kind.connector().deferred {
                assert_eq!(words(&delivered.outcomes), ["deferred"]);
                assert!(!matches!(delivery.close(true).await, Ok(None | Some(RowOutcome::Accepted))));
            } else {
                assert_eq!(words(&delivered.outcomes), ["not sent"], "nothing can have left");
                assert!(matches!(delivered.error, Some(DeliveryError::Unavailable { answered: false, .. })));
            }
        }
    }
}

async fn equal_places_have_equal_targets(kind: Kind) {
    let subject = kind.subject().await;
    let spec = kind.spec();
    let target = subject.destination.target(&spec);
    let with_object = |object: &str| {
        let mut spec = kind.spec();
        spec.object = Some(object.to_owned());
        subject.destination.target(&spec)
    };
    let (same, other) = match kind {
        Kind::HttpRequest => {
            let base = subject.config("base_url");
            (
                vec![subject.configured("base_url", format!("{base}/")).target(&spec)],
                vec![subject.configured("base_url", format!("{base}/v2")).target(&spec)],
            )
        }
        Kind::Postgres => (
            vec![with_object("people"), with_object("\"public\".\"people\"")],
            vec![with_object("others"), with_object("private.people")],
        ),
        Kind::Lines | Kind::Parquet => {
            let path = subject.config("path");
            (
                vec![subject.configured("path", format!("{path}/./x/..")).target(&spec)],
                vec![
                    subject.configured("path", format!("{path}/x")).target(&spec),
                    with_object("y-{{ run_id }}"),
                ],
            )
        }
        Kind::S3 | Kind::Azure => {
            let (path, endpoint) = (subject.config("path"), subject.config("endpoint_url"));
            (
                vec![
                    subject.configured("path", format!("{path}/")).target(&spec),
                    subject.configured("endpoint_url", format!("{endpoint}/")).target(&spec),
                ],
                vec![
                    subject.configured("path", format!("{path}/x")).target(&spec),
                    subject.configured("endpoint_url", "https://elsewhere.example").target(&spec),
                    with_object("y-{{ run_id }}"),
                ],
            )
        }
    };
    for same in same {
        assert_eq!(same, target);
    }
    for other in other {
        assert_ne!(other, target);
    }
    assert!(!target.contains("secret") && !target.contains(tests::stores::AZURE_KEY), "{target}");
}

async fn a_check_says_what_is_missing(kind: Kind) {
    let subject = kind.subject().await;
    subject.destination.check(Some(&kind.spec())).await.unwrap();
    let mut spec = kind.spec();
    let (broken, named) = match kind {
        Kind::HttpRequest => {
            subject.receiver().unwrap().behave(|_| tests::receiver::Reply::status(401));
            (subject.destination.clone(), "401".to_owned())
        }
        Kind::Postgres => {
            spec.object = Some("public.nobody".into());
            (subject.destination.clone(), "nobody".to_owned())
        }
        Kind::Lines | Kind::Parquet => {
            let path = format!("{}/a-file", subject.config("path"));
            std::fs::write(&path, "in the way").unwrap();
            (subject.configured("path", path.clone()), path)
        }
        Kind::S3 => (subject.configured("path", "s3://no-such-bucket/x"), "no-such-bucket".to_owned()),
        Kind::Azure => (subject.configured("account_key", "d3Jvbmc="), "account".to_owned()),
    };
    let Err(DeliveryError::Unauthorized { message, hint }) = broken.check(Some(&spec)).await else {
        panic!("{kind:?} finds nothing missing");
    };
    assert!(message.contains(&named) && !hint.is_empty(), "{message} ({hint})");
    assert!(subject.content().await.is_empty(), "a check changes nothing");
}

async fn modes_are_those_of_the_catalogue(kind: Kind) {
    let subject = kind.subject().await;
    let all = [
        Mode::Insert,
        Mode::Update,
        Mode::Upsert,
        Mode::Mirror,
        Mode::Segment,
        Mode::Add,
        Mode::Remove,
        Mode::All,
        Mode::Archive,
        Mode::Diff,
        Mode::Snapshot,
    ];
    for mode in all {
        let declared = kind.connector().modes.contains(&mode);
        let spec = kind.spec_in(mode);
        let validated = subject.destination.validate(&spec);
        assert_eq!(validated.is_ok(), declared, "{kind:?} {mode:?}: {validated:?}");
        if declared {
            assert!(subject.destination.batch_limits(&spec, mode.at_destination(Operation::Added)).rows > 0);
        } else {
            assert_eq!(validated.unwrap_err().path, "mode", "{kind:?} {mode:?}");
        }
    }
}

async fn what_cannot_be_emptied_says_so_and_what_can_is_empty(kind: Kind) {
    let subject = kind.subject().await;
    let spec = kind.spec();
    deliver(&subject, 1, &[(1, "a", Odd::Fine)]).await;
    match subject.destination.can_clear(&spec) {
        Err(refused) => {
            assert!(!refused.message.is_empty());
            let cleared = subject.destination.clear(&spec, &facts(2)).await;
            assert!(matches!(cleared, Err(DeliveryError::Refused { .. })), "{cleared:?}");
            assert_eq!(subject.content().await, content(&[(1, "a")]));
        }
        Ok(()) => {
            for _ in 0..2 {
                subject.destination.clear(&spec, &facts(2)).await.unwrap();
                assert!(subject.content().await.is_empty());
            }
            deliver(&subject, 2, &[(2, "b", Odd::Fine)]).await;
            subject.way.as_ref().unwrap().cut(Cut::Answer);
            let cut = subject.destination.clear(&spec, &facts(3)).await;
            assert!(matches!(cut, Err(DeliveryError::Unavailable { .. })), "{cut:?}");
        }
    }
}
