//! The driver of deliveries against destinations that fail in every way.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arrow::array::{Int64Array, RecordBatch, RecordBatchOptions, StringArray};
use arrow::datatypes::Schema;
use proptest::prelude::*;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::*;
use crate::change::Operation;

fn batch(rows: usize) -> ChangeBatch {
    let empty = RecordBatch::try_new_with_options(
        Arc::new(Schema::empty()),
        vec![],
        &RecordBatchOptions::new().with_row_count(Some(rows)),
    )
    .unwrap();
    let texts = StringArray::from_iter_values((0..rows).map(|i| i.to_string()));
    ChangeBatch {
        operation: Operation::Added,
        sequences: Int64Array::from_iter_values(0..rows as i64),
        keys: texts.clone(),
        versions: texts,
        changed: vec![Arc::from([]); rows],
        identity: empty.clone(),
        fields: empty,
    }
}

type Answer = Box<dyn Fn(&[i64]) -> Delivered + Send + Sync>;

/// A destination that answers as its function says, after the scripted answers are used up, and
/// keeps what it was asked.
struct Fake {
    script: Mutex<VecDeque<Answer>>,
    then: Answer,
    asked: Mutex<Vec<Vec<i64>>>,
}

impl Fake {
    fn new(then: impl Fn(&[i64]) -> Delivered + Send + Sync + 'static) -> Self {
        Self { script: Mutex::default(), then: Box::new(then), asked: Mutex::default() }
    }

    fn first(self, answer: impl Fn(&[i64]) -> Delivered + Send + Sync + 'static) -> Self {
        self.script.lock().unwrap().push_back(Box::new(answer));
        self
    }

    fn asked(&self) -> Vec<Vec<i64>> {
        self.asked.lock().unwrap().clone()
    }
}

#[async_trait]
impl Delivery for Fake {
    async fn deliver(&self, batch: &ChangeBatch) -> Delivered {
        let rows = batch.sequences.values().to_vec();
        self.asked.lock().unwrap().push(rows.clone());
        let scripted = self.script.lock().unwrap().pop_front();
        scripted.as_ref().unwrap_or(&self.then)(&rows)
    }

    async fn close(self: Box<Self>, _: bool) -> Result<Option<RowOutcome>, DeliveryError> {
        Ok(None)
    }
}

/// Admits so many attempts, then stops.
struct Admits {
    left: AtomicUsize,
    stopped: Notify,
    is_stopped: AtomicBool,
}

impl Admits {
    fn new(attempts: usize) -> Self {
        Self { left: AtomicUsize::new(attempts), stopped: Notify::new(), is_stopped: AtomicBool::new(false) }
    }
}

#[async_trait]
impl Gate for Admits {
    async fn admit(&self, _: Duration) -> Result<(), Stopped> {
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if self.is_stopped.load(Ordering::SeqCst) {
            Err(Stopped)
        } else {
            left.map(|_| ()).map_err(|_| Stopped)
        }
    }

    async fn stopped(&self) {
        self.stopped.notified().await;
        self.is_stopped.store(true, Ordering::SeqCst);
    }
}

fn accepted(rows: &[i64]) -> Delivered {
    Delivered::all(RowOutcome::Accepted, rows.len())
}

fn throttled(after: Option<Duration>) -> impl Fn(&[i64]) -> Delivered + Send + Sync {
    move |rows| {
        let error = DeliveryError::Throttled { after, message: "429".into() };
        Delivered::failed(error, RowOutcome::NotSent, rows.len())
    }
}

fn silent(rows: &[i64]) -> Delivered {
    let error = DeliveryError::Unavailable { answered: false, after: None, message: "cut".into() };
    Delivered::failed(error, RowOutcome::InDoubt, rows.len())
}

fn unreachable(rows: &[i64]) -> Delivered {
    let error = DeliveryError::Unavailable { answered: false, after: None, message: "nobody there".into() };
    Delivered::failed(error, RowOutcome::NotSent, rows.len())
}

fn broken(rows: &[i64]) -> Delivered {
    let error = DeliveryError::Unavailable { answered: true, after: None, message: "500".into() };
    let exchange = Exchange { request: format!("{rows:?}"), response: "500".into() };
    Delivered { exchange: Some(exchange), ..Delivered::failed(error, RowOutcome::InDoubt, rows.len()) }
}

fn refused(rows: &[i64]) -> Delivered {
    let error = DeliveryError::Refused { message: "bad row".into() };
    let exchange = Exchange { request: format!("{rows:?}"), response: "400".into() };
    Delivered { exchange: Some(exchange), ..Delivered::failed(error, RowOutcome::NotSent, rows.len()) }
}

fn rejection(outcome: &RowOutcome) -> &Rejection {
    match outcome {
        RowOutcome::Rejected(rejection) => rejection,
        other => panic!("{other:?} is no rejection"),
    }
}

const TIMEOUT: Duration = Duration::from_secs(60);

async fn settle(fake: &Fake, rows: usize, retries: u32) -> Settled {
    deliver_batch(fake, &batch(rows), &RetryPolicy::new(retries), TIMEOUT, &Admits::new(100_000)).await
}

#[tokio::test(start_paused = true)]
async fn a_trouble_that_passes_is_repeated_after_the_asked_time() {
    let began = Instant::now();
    let fake =
        Fake::new(accepted).first(throttled(Some(Duration::from_secs(100)))).first(unreachable).first(silent);
    let settled = settle(&fake, 3, 5).await;
    assert_eq!(settled.outcomes, vec![RowOutcome::Accepted; 3]);
    assert_eq!((settled.calls, settled.retries), (4, 3));
    assert_eq!(settled.stop, None);
    assert!(settled.exchanges.is_empty());
    let waited = began.elapsed();
    assert!(waited >= Duration::from_secs(100), "the asked time is honoured: {waited:?}");
    assert!(waited <= Duration::from_millis(100_000 + 500 + 1000 + 2000 + 10), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn waits_grow_to_the_cap_and_are_jittered() {
    let policy = RetryPolicy { retries: 9, base: Duration::from_secs(1), cap: Duration::from_secs(8) };
    for (repeat, ceiling) in [(0, 1), (1, 2), (3, 8), (4, 8), (31, 8), (4_000_000_000, 8)] {
        let waits: Vec<_> = (0..200).map(|_| policy.wait(repeat, None)).collect();
        assert!(waits.iter().all(|w| *w <= Duration::from_secs(ceiling)));
        assert!(waits.iter().any(|w| *w > Duration::from_secs(ceiling) / 2));
        assert!(waits.iter().any(|w| *w < Duration::from_secs(ceiling) / 2));
    }
    assert!(policy.wait(0, Some(Duration::from_secs(600))) >= Duration::from_secs(600));
}

#[tokio::test(start_paused = true)]
async fn silence_ends_the_batch_and_tells_what_left() {
    let fake = Fake::new(silent);
    let settled = settle(&fake, 4, 2).await;
    assert_eq!(settled.outcomes, vec![RowOutcome::InDoubt; 4]);
    assert_eq!(settled.calls, 3);
    assert_eq!(settled.stop, Some(StopReason::Unavailable { message: "cut".into() }));

    let settled = settle(&Fake::new(unreachable), 4, 2).await;
    assert_eq!(settled.outcomes, vec![RowOutcome::NotSent; 4]);

    let settled = settle(&Fake::new(unreachable).first(silent), 2, 2).await;
    assert_eq!(settled.outcomes, vec![RowOutcome::InDoubt; 2], "an earlier attempt may have been applied");

    let settled = settle(&Fake::new(throttled(None)), 2, 1).await;
    assert_eq!(settled.outcomes, vec![RowOutcome::NotSent; 2]);
    assert_eq!(settled.calls, 2);
}

#[tokio::test(start_paused = true)]
async fn a_refused_batch_is_halved_until_the_bad_rows_stand_alone() {
    let fake = Fake::new(|rows| if rows.contains(&5) { refused(rows) } else { accepted(rows) });
    let settled = settle(&fake, 8, 5).await;
    for (row, outcome) in settled.outcomes.iter().enumerate() {
        if row == 5 {
            let r = rejection(outcome);
            assert_eq!((r.code, r.reason.as_str(), r.in_doubt), (Rejection::REFUSED, "bad row", false));
        } else {
            assert_eq!(outcome, &RowOutcome::Accepted);
        }
    }
    assert_eq!(settled.calls, 7);
    assert_eq!(settled.retries, 0);
    assert_eq!(settled.exchanges.len(), 1);
    assert_eq!(settled.exchanges[0].0, 5..6);
    assert_eq!(settled.exchanges[0].1.request, "[5]");
}

#[tokio::test(start_paused = true)]
async fn ambiguity_sticks_to_a_later_rejection() {
    let settled = settle(&Fake::new(refused).first(silent), 1, 5).await;
    let r = rejection(&settled.outcomes[0]);
    assert_eq!(r.code, Rejection::REFUSED);
    assert!(r.in_doubt, "the first attempt may have been applied");

    let by_name = |rows: &[i64]| {
        Delivered::all(RowOutcome::Rejected(Rejection::new(Rejection::NOT_FOUND, "gone")), rows.len())
    };
    let settled = settle(&Fake::new(by_name).first(broken), 2, 5).await;
    assert!(settled.outcomes.iter().all(|o| rejection(o).in_doubt));
    let settled = settle(&Fake::new(by_name).first(unreachable), 2, 5).await;
    assert!(settled.outcomes.iter().all(|o| !rejection(o).in_doubt));
}

#[tokio::test(start_paused = true)]
async fn an_answered_error_is_halved_once_retries_are_spent() {
    let fake = Fake::new(|rows| if rows.contains(&2) { broken(rows) } else { accepted(rows) });
    let settled = settle(&fake, 4, 3).await;
    let r = rejection(&settled.outcomes[2]);
    assert_eq!((r.code, r.in_doubt), (Rejection::DESTINATION_ERROR, true));
    for row in [0, 1, 3] {
        assert_eq!(settled.outcomes[row], RowOutcome::Accepted);
    }
    assert_eq!(settled.stop, None);
    assert_eq!(settled.retries, 3);

    for n in [1_usize, 2, 7, 64] {
        let dead = Fake::new(broken);
        let settled = settle(&dead, n, 3).await;
        assert!(settled.outcomes.iter().all(|o| rejection(o).in_doubt));
        assert_eq!(settled.calls, 3 + 2 * n as u64 - 1, "a dead destination costs no more for {n} rows");
    }
}

#[tokio::test(start_paused = true)]
async fn what_no_repeat_can_cure_stops_at_once() {
    let fake = Fake::new(|rows| {
        let error = DeliveryError::Unauthorized { message: "401".into(), hint: "look at auth".into() };
        Delivered::failed(error, RowOutcome::NotSent, rows.len())
    })
    .first(refused);
    let settled = settle(&fake, 4, 5).await;
    assert_eq!(settled.outcomes, vec![RowOutcome::NotSent; 4]);
    assert_eq!(
        settled.stop,
        Some(StopReason::Unauthorized { message: "401".into(), hint: "look at auth".into() })
    );
    assert_eq!(fake.asked(), vec![vec![0, 1, 2, 3], vec![0, 1]]);
}

#[tokio::test(start_paused = true)]
async fn only_rows_without_an_end_are_sent_again() {
    let fake = Fake::new(accepted).first(|_| Delivered {
        outcomes: vec![
            RowOutcome::Accepted,
            RowOutcome::InDoubt,
            RowOutcome::Rejected(Rejection::new(Rejection::REFUSED, "no")),
            RowOutcome::NotSent,
        ],
        error: Some(DeliveryError::Throttled { after: None, message: "slow".into() }),
        calls: 1,
        exchange: Some(Exchange { request: "q".into(), response: "a".into() }),
    });
    let settled = settle(&fake, 4, 5).await;
    assert_eq!(fake.asked(), vec![vec![0, 1, 2, 3], vec![1, 3]]);
    assert_eq!(settled.outcomes[0], RowOutcome::Accepted);
    assert_eq!(settled.outcomes[1], RowOutcome::Accepted);
    assert_eq!(settled.outcomes[3], RowOutcome::Accepted);
    assert_eq!(rejection(&settled.outcomes[2]).reason, "no");
    assert_eq!(settled.exchanges.len(), 1);
    assert_eq!(settled.exchanges[0].0, 2..3);
}

#[tokio::test(start_paused = true)]
async fn the_gate_is_asked_before_every_attempt() {
    let fake = Fake::new(|rows| if rows.len() > 1 { refused(rows) } else { accepted(rows) });
    let settled = deliver_batch(&fake, &batch(4), &RetryPolicy::new(5), TIMEOUT, &Admits::new(3)).await;
    assert_eq!(settled.stop, Some(StopReason::Stopped));
    assert_eq!(fake.asked().len(), 3);
    assert_eq!(
        settled.outcomes,
        [RowOutcome::Accepted, RowOutcome::NotSent, RowOutcome::NotSent, RowOutcome::NotSent]
    );

    let settled =
        deliver_batch(&Fake::new(silent), &batch(2), &RetryPolicy::new(5), TIMEOUT, &Admits::new(1)).await;
    assert_eq!(settled.outcomes, vec![RowOutcome::InDoubt; 2]);
    assert_eq!(settled.stop, Some(StopReason::Stopped));
}

#[tokio::test(start_paused = true)]
async fn cancelling_cuts_a_wait_short() {
    let began = Instant::now();
    let fake = Fake::new(throttled(Some(Duration::from_secs(3600))));
    let gate = Admits::new(100);
    let rows = batch(2);
    let policy = RetryPolicy::new(5);
    let (settled, ()) = tokio::join!(deliver_batch(&fake, &rows, &policy, TIMEOUT, &gate), async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        gate.stopped.notify_one();
    });
    assert_eq!(settled.stop, Some(StopReason::Stopped));
    assert_eq!(settled.outcomes, vec![RowOutcome::NotSent; 2]);
    assert_eq!(fake.asked().len(), 1);
    assert_eq!(began.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_never_ends_is_dropped_in_doubt() {
    struct Hangs;
    #[async_trait]
    impl Delivery for Hangs {
        async fn deliver(&self, _: &ChangeBatch) -> Delivered {
            std::future::pending().await
        }
        async fn close(self: Box<Self>, _: bool) -> Result<Option<RowOutcome>, DeliveryError> {
            Ok(None)
        }
    }
    let settled = deliver_batch(&Hangs, &batch(2), &RetryPolicy::new(1), TIMEOUT, &Admits::new(9)).await;
    assert_eq!(settled.outcomes, vec![RowOutcome::InDoubt; 2]);
    assert!(matches!(settled.stop, Some(StopReason::Unavailable { .. })));
}

#[tokio::test(start_paused = true)]
async fn waiting_for_the_budget_spends_no_retry() {
    let budget = |rows: &[i64]| Delivered {
        calls: 0,
        ..Delivered::failed(
            DeliveryError::Throttled { after: None, message: "budget".into() },
            RowOutcome::NotSent,
            rows.len(),
        )
    };
    let mut fake = Fake::new(accepted);
    for _ in 0..20 {
        fake = fake.first(budget);
    }
    let settled = settle(&fake, 2, 1).await;
    assert_eq!(settled.outcomes, vec![RowOutcome::Accepted; 2]);
    assert_eq!((settled.calls, settled.retries), (1, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// Whatever rows are bad and whatever passing troubles come in between: good rows are accepted,
    /// bad ones rejected, each once, in order, within the bound of requests.
    #[test]
    fn halving_finds_exactly_the_bad_rows(
        rows in 1_usize..60,
        bad in proptest::collection::btree_set(0_i64..60, 0..12),
        troubles in proptest::collection::vec(0_u8..4, 0..6),
        answered in any::<bool>(),
    ) {
        let bad: BTreeSet<i64> = bad.into_iter().filter(|b| *b < rows as i64).collect();
        let verdict = bad.clone();
        let mut fake = Fake::new(move |rows| {
            if !rows.iter().any(|r| verdict.contains(r)) {
                accepted(rows)
            } else if answered {
                broken(rows)
            } else {
                refused(rows)
            }
        });
        let extra = troubles.len();
        for trouble in troubles {
            fake = match trouble {
                0 => fake.first(throttled(None)),
                1 => fake.first(unreachable),
                2 => fake.first(silent),
                _ => fake.first(throttled(Some(Duration::from_secs(3)))),
            };
        }
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let settled = runtime.block_on(settle(&fake, rows, 7));
        prop_assert_eq!(settled.stop, None);
        prop_assert_eq!(settled.outcomes.len(), rows);
        for (row, outcome) in settled.outcomes.iter().enumerate() {
            if bad.contains(&(row as i64)) {
                prop_assert!(matches!(outcome, RowOutcome::Rejected(_)), "{} {:?}", row, outcome);
            } else {
                prop_assert_eq!(outcome, &RowOutcome::Accepted);
            }
        }
        prop_assert!(settled.calls < (extra + 7 + 2 * rows) as u64);
        let with_exchange: Vec<i64> =
            settled.exchanges.iter().flat_map(|(r, _)| r.clone()).map(|r| r as i64).collect();
        prop_assert_eq!(with_exchange, bad.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn stop_rules() {
    let reject = |code| RowOutcome::Rejected(Rejection::new(code, "no thanks"));
    let bad = vec![reject(Rejection::REFUSED); 3];

    let mut rules = StopRules::new(3);
    let stop = rules.observe(0, &bad);
    assert!(matches!(stop, Some(StopReason::Refused { message }) if message.contains("no thanks")));

    let mut rules = StopRules::new(3);
    let broken = vec![reject(Rejection::DESTINATION_ERROR); 3];
    assert!(matches!(rules.observe(0, &broken), Some(StopReason::Unavailable { .. })), "no refusal");

    let mut rules = StopRules::new(3);
    assert_eq!((rules.observe(1, &bad), rules.observe(2, &bad)), (None, None));
    assert!(
        matches!(rules.observe(3, &bad), Some(StopReason::Refused { message }) if message.contains("3 batches"))
    );

    let mut rules = StopRules::new(3);
    assert_eq!(rules.observe(0, &bad[..1]), None, "one row may be to blame itself");

    let mut rules = StopRules::new(3);
    let own = vec![reject(Rejection::UNREPRESENTABLE_VALUE), reject(Rejection::TEMPLATE_FAILED)];
    assert_eq!(rules.observe(0, &own), None, "the destination was not asked");
    assert_eq!(rules.observe(0, &[RowOutcome::InDoubt, reject(Rejection::REFUSED)]), None);

    let mut rules = StopRules::new(3);
    assert_eq!(rules.observe(0, &[RowOutcome::Accepted, reject(Rejection::REFUSED)]), None);
    assert_eq!(rules.observe(1, &bad), None);
    assert_eq!(rules.observe(2, &[RowOutcome::InDoubt]), None);
    assert_eq!(rules.observe(3, &[RowOutcome::Deferred]), None, "a success starts the count anew");
    assert_eq!(rules.observe(4, &bad), None);
    assert_eq!(rules.observe(5, &[]), None);
    assert_eq!(rules.observe(6, &own), None);
    assert_eq!(rules.observe(7, &[RowOutcome::NotSent]), None);
    let stop = rules.observe(8, &bad);
    assert!(matches!(stop, Some(StopReason::Unavailable { message }) if message.contains("3 batches")));

    let mut rules = StopRules::new(3);
    assert_eq!(rules.observe(1, &[RowOutcome::Accepted]), None);
    assert_eq!(rules.observe(0, &bad), None, "another batch was accepted meanwhile");
}

/// A destination of which only the emptying is asked.
#[derive(Debug)]
struct Emptied {
    answers: Mutex<VecDeque<DeliveryError>>,
}

#[async_trait]
impl Destination for Emptied {
    fn target(&self, _: &DeliverySpec) -> String {
        String::new()
    }

    fn validate(&self, _: &DeliverySpec) -> Result<(), crate::catalogue::ConfigError> {
        Ok(())
    }

    async fn check(&self, _: Option<&DeliverySpec>) -> Result<(), DeliveryError> {
        Ok(())
    }

    async fn fields(
        &self,
        _: &str,
    ) -> Result<Option<Vec<crate::destination::DestinationField>>, DeliveryError> {
        Ok(None)
    }

    async fn open(&self, _: &DeliverySpec, _: &RunFacts) -> Result<Box<dyn Delivery>, DeliveryError> {
        Ok(Box::new(Fake::new(accepted)))
    }

    async fn try_row(
        &self,
        _: &DeliverySpec,
        _: &RunFacts,
        _: &ChangeBatch,
        _: bool,
    ) -> Result<crate::destination::Trial, DeliveryError> {
        Err(DeliveryError::Refused { message: "only the emptying is asked".to_owned() })
    }

    async fn clear(&self, _: &DeliverySpec, _: &RunFacts) -> Result<(), DeliveryError> {
        self.answers.lock().unwrap().pop_front().map_or(Ok(()), Err)
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(30)
    }

    fn batch_limits(&self, _: &DeliverySpec, _: Operation) -> crate::destination::BatchLimits {
        crate::destination::BatchLimits { rows: 1, bytes: 1 }
    }
}

async fn emptied(answers: Vec<DeliveryError>, attempts: usize) -> Cleared {
    let destination = Emptied { answers: Mutex::new(answers.into()) };
    let sync = DeliverySpec {
        sync: "list".into(),
        sync_id: 1,
        model: "people".into(),
        object: None,
        mode: crate::change::Mode::Upsert,
        on_removed: crate::change::OnRemoved::Nothing,
        options: serde_json::Value::Null,
        identity: Arc::new(Schema::empty()),
        fields: Arc::new(Schema::empty()),
    };
    let run = RunFacts {
        run_id: 1,
        generation: 1,
        started_at: chrono::Utc::now(),
        planned: std::collections::BTreeMap::new(),
    };
    let policy = RetryPolicy { retries: 2, base: Duration::from_millis(1), cap: Duration::from_millis(2) };
    clear(&destination, &sync, &run, &policy, &Admits::new(attempts)).await
}

#[tokio::test(start_paused = true)]
async fn an_emptying_is_repeated_and_says_whether_it_is_in_doubt() {
    let silent = || DeliveryError::Unavailable { answered: false, after: None, message: "cut".into() };
    let slow = || DeliveryError::Throttled { after: Some(Duration::from_secs(7)), message: "429".into() };
    let no = || DeliveryError::Refused { message: "422".into() };
    let ended = |cleared: &Cleared| {
        let trouble = cleared.trouble.as_ref();
        (cleared.calls, cleared.retries, trouble.map(|t| (t.error.is_some(), t.in_doubt)))
    };
    assert_eq!(ended(&emptied(vec![], 9).await), (1, 0, None));
    let before = Instant::now();
    assert_eq!(ended(&emptied(vec![slow(), silent()], 9).await), (3, 2, None));
    assert!(before.elapsed() >= Duration::from_secs(7), "it waits as long as was asked");
    // A definite no ends it; whether an attempt before it went through nobody knows.
    assert_eq!(ended(&emptied(vec![no()], 9).await), (1, 0, Some((true, false))));
    assert_eq!(ended(&emptied(vec![slow(), no()], 9).await), (2, 1, Some((true, false))));
    assert_eq!(ended(&emptied(vec![silent(), no()], 9).await), (2, 1, Some((true, true))));
    // Retries are spent, and the gate is asked before every attempt.
    assert_eq!(ended(&emptied(vec![silent(), silent(), silent()], 9).await), (3, 2, Some((true, true))));
    assert_eq!(ended(&emptied(vec![slow(), slow(), slow()], 9).await), (3, 2, Some((true, false))));
    assert_eq!(ended(&emptied(vec![], 0).await), (0, 0, Some((false, false))));
    assert_eq!(ended(&emptied(vec![silent()], 1).await), (1, 0, Some((false, true))));
}
