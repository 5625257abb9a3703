//! Jobs that take time, fail, are stopped, and whose answers are lost: what the double never does, a front plays.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use connectors::warehouse::{Cost, Tag, WarehouseError};
use sql_templates::Sql;
use tests::front::Asked;

use super::*;

/// What Google says in an error.
fn refusal(status: u16, reason: &str, message: &str) -> Answer {
    Answer::json(
        status,
        &json!({"error": {"code": status, "message": message, "status": "X",
            "errors": [{"reason": reason, "domain": "global", "message": message}]}}),
    )
}

/// A job as it stands; the id is that of the request.
fn job(asked: &Asked, status: &Value) -> Answer {
    let reference = asked.json()["jobReference"].clone();
    let id = if reference.is_null() { json!({"jobId": asked.path.rsplit('/').next()}) } else { reference };
    Answer::json(200, &json!({"jobReference": id, "status": status, "statistics": {"query": {}}}))
}

fn failed_job(asked: &Asked, reason: &str, message: &str) -> Answer {
    job(asked, &json!({"state": "DONE", "errorResult": {"reason": reason, "message": message}}))
}

fn is_insert(asked: &Asked) -> bool {
    asked.method == "POST" && asked.path.ends_with("/jobs") && asked.json()["configuration"]["dryRun"] != true
}

fn id_of(asked: &Asked) -> String {
    asked.json()["jobReference"]["jobId"].as_str().unwrap_or_default().to_owned()
}

/// A front that does this with the n-th job that is asked for, and passes everything else on.
fn front(with_insert: impl Fn(usize, &Asked) -> Answer + Send + Sync + 'static) -> Front {
    let inserts = AtomicUsize::new(0);
    Front::before(Some(BigqueryDouble::start().address()), move |asked| {
        if is_insert(asked) {
            with_insert(inserts.fetch_add(1, Ordering::SeqCst), asked)
        } else {
            Answer::Pass
        }
    })
}

async fn fails(front: &Front, more: Value) -> WarehouseError {
    let warehouse = at(&front.url(), more).await;
    rows(&mut *open(&*warehouse).await, "select 1 as one").await.unwrap_err()
}

#[tokio::test]
async fn jobs_carry_names_labels_and_limits() {
    let front = front(|_, _| Answer::Pass);
    let more = json!({"location": "EU", "maximum_bytes_billed": "100GB", "statement_timeout": "10m"});
    let warehouse = at(&front.url(), more).await;
    let tag = Tag { sync: "Customers → CRM".into(), run: Some(7), stage: "diff" };
    let mut session = warehouse.session(&tag).await.unwrap();
    assert_eq!(number(&mut *session, "select 1").await, 1);
    assert_eq!(number(&mut *session, "select 2").await, 2);
    let inserts: Vec<Value> = front.asked().iter().filter(|a| is_insert(a)).map(Asked::json).collect();
    let id = session.id().unwrap();
    for (i, insert) in inserts.iter().enumerate() {
        assert_eq!(insert["jobReference"]["jobId"], json!(format!("{id}_{}", i + 1)));
        assert_eq!(insert["jobReference"]["location"], "EU");
        let configuration = &insert["configuration"];
        assert_eq!(
            configuration["labels"],
            json!({"levin_sync": "customers---crm", "levin_run": "7", "levin_stage": "diff"})
        );
        assert_eq!(configuration["jobTimeoutMs"], "600000");
        assert_eq!(configuration["query"]["maximumBytesBilled"], "100000000000");
        assert_eq!(configuration["query"]["useLegacySql"], false);
        assert_eq!(configuration["query"]["defaultDataset"]["datasetId"], "d");
    }
    assert_eq!(inserts.len(), 2);
    // Whoever asks for rows asks where the job runs, and for instants without rounding.
    let results = front.asked().into_iter().find(|a| a.path.contains("/queries/")).unwrap();
    assert!(
        results.query.contains("location=US")
            && results.query.contains("formatOptions.useInt64Timestamp=true")
    );
    assert!(!front.asked().iter().any(|a| a.headers.contains_key("authorization")));
}

#[tokio::test]
async fn jobs_tell_what_they_cost_and_what_they_would() {
    fn with_statistics(answer: &str) -> String {
        let mut answer: Value = serde_json::from_str(answer).unwrap();
        answer["statistics"]["totalBytesProcessed"] = json!("5000000000");
        answer["statistics"]["totalSlotMs"] = json!("2500");
        answer.to_string()
    }
    // The double runs jobs at once; the second one says that it is still running.
    let inserts = AtomicUsize::new(0);
    let front = Front::before(Some(BigqueryDouble::start().address()), move |asked| {
        if is_insert(asked) && inserts.fetch_add(1, Ordering::SeqCst) == 1 {
            return Answer::Alter(|answer| answer.replace("\"DONE\"", "\"RUNNING\""));
        }
        if asked.path.ends_with("/jobs") || asked.path.contains("/jobs/") {
            return Answer::Alter(with_statistics);
        }
        Answer::Pass
    });
    let warehouse = at(&front.url(), json!({})).await;
    let mut session = open(&*warehouse).await;
    assert_eq!(session.cost(), Cost::default(), "nothing ran yet");
    let estimated = session.estimate(&Sql::for_tests("select 1 as one")).await.unwrap();
    assert_eq!(estimated, Some(5_000_000_000));
    assert_eq!(session.cost(), Cost::default(), "an estimate costs nothing");
    assert_eq!(number(&mut *session, "select 1").await, 1);
    let once = Cost { bytes_scanned: Some(5_000_000_000), slot_seconds: Some(2.5), credits: None };
    assert_eq!(session.cost(), once);
    assert_eq!(number(&mut *session, "select 2").await, 2);
    assert_eq!(session.cost(), once, "the job is asked when it has ended");
    assert_eq!(session.cost(), Cost::default(), "what was told is not told again");
}

#[tokio::test]
async fn a_job_that_takes_time_is_waited_for() {
    let polls = AtomicUsize::new(0);
    let front = Front::before(Some(BigqueryDouble::start().address()), move |asked| {
        if is_insert(asked) {
            // The double runs it at once, and the front says otherwise.
            return Answer::Pass;
        }
        if asked.path.contains("/queries/") && polls.fetch_add(1, Ordering::SeqCst) < 3 {
            return Answer::json(200, &json!({"jobComplete": false}));
        }
        Answer::Pass
    });
    let warehouse = at(&front.url(), json!({})).await;
    assert_eq!(number(&mut *open(&*warehouse).await, "select 42").await, 42);
    assert_eq!(front.asked().iter().filter(|a| a.path.contains("/queries/")).count(), 4);
}

#[tokio::test]
async fn a_lost_answer_runs_nothing_twice() {
    // The job ran, and nobody said so. The second request finds it there.
    let known: Mutex<BTreeMap<String, usize>> = Mutex::default();
    let front = front(move |_, asked| {
        let mut known = known.lock().unwrap();
        let times = known.entry(id_of(asked)).or_default();
        *times += 1;
        match *times {
            1 => Answer::LoseAnswer,
            _ => refusal(409, "duplicate", &format!("Already Exists: Job p:EU.{}", id_of(asked))),
        }
    });
    let warehouse = at(&front.url(), json!({})).await;
    let mut session = open(&*warehouse).await;
    run(&mut *session, &["create table d.t (id int64)", "insert into t values (1)"]).await;
    let steps =
        [("insert into t values (2)", Expect::OneRow), ("select id from t order by id", Expect::Rows)];
    let effect = session.execute(&script(Atomicity::Transaction, &steps)).await.unwrap();
    assert_eq!((effect.rows("step 1"), effect.rows("step 2")), (Some(1), Some(2)));
    assert_eq!(number(&mut *session, "select count(*) from d.t").await, 2);
}

#[tokio::test]
async fn a_request_that_never_arrived_is_repeated_under_its_name() {
    let front = front(|n, _| if n < 2 { Answer::Lose } else { Answer::Pass });
    let warehouse = at(&front.url(), json!({})).await;
    assert_eq!(number(&mut *open(&*warehouse).await, "select 42").await, 42);
    let ids: Vec<String> = front.asked().iter().filter(|a| is_insert(a)).map(id_of).collect();
    assert!(ids.len() == 3 && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[tokio::test]
async fn what_passes_is_waited_out_under_the_same_name() {
    for (status, reason) in
        [(403, "rateLimitExceeded"), (500, "internalError"), (503, "backendError"), (429, "x"), (502, "")]
    {
        let front = front(move |n, _| match n {
            0 if reason.is_empty() => Answer::Say(status, "<html>Bad Gateway".to_owned()),
            0 => refusal(status, reason, "not now"),
            _ => Answer::Pass,
        });
        let warehouse = at(&front.url(), json!({})).await;
        assert_eq!(number(&mut *open(&*warehouse).await, "select 42").await, 42, "{status} {reason}");
        let ids: Vec<String> = front.asked().iter().filter(|a| is_insert(a)).map(id_of).collect();
        assert!(ids.len() == 2 && ids[0] == ids[1], "{status} {reason}: {ids:?}");
    }
}

#[tokio::test]
async fn a_job_that_failed_without_being_at_fault_runs_again_under_another_name() {
    for (reason, message) in [
        ("backendError", "Error encountered during execution. Retrying may solve the problem."),
        ("jobRateLimitExceeded", "Exceeded rate limits: too many table update operations for this table."),
        ("invalidQuery", "Transaction is aborted due to concurrent update against table p:d.t."),
        ("invalidQuery", "Could not serialize access to table p:d.t due to concurrent update"),
    ] {
        let front =
            front(move |n, asked| if n < 2 { failed_job(asked, reason, message) } else { Answer::Pass });
        let warehouse = at(&front.url(), json!({})).await;
        assert_eq!(number(&mut *open(&*warehouse).await, "select 42").await, 42, "{message}");
        let mut ids: Vec<String> = front.asked().iter().filter(|a| is_insert(a)).map(id_of).collect();
        ids.dedup();
        assert_eq!(ids.len(), 3, "{message}");
    }
    let never = front(|_, asked| {
        failed_job(asked, "invalidQuery", "Transaction is aborted due to concurrent update")
    });
    let warehouse = at(&never.url(), json!({})).await;
    let failed = rows(&mut *open(&*warehouse).await, "select 1 as one").await.unwrap_err();
    assert_eq!(failed.kind, ErrorKind::Busy, "{failed}");
    assert!(never.count("POST", "/jobs") < 12, "it ends");
}

/// The line at which a script's text has this one.
fn line_of(asked: &Asked, line: &str) -> usize {
    let text = asked.json()["configuration"]["query"]["query"].as_str().unwrap_or_default().to_owned();
    1 + text.lines().position(|l| l.starts_with(line)).expect("such a line")
}

#[tokio::test]
async fn a_script_that_fails_behind_its_commit_is_not_run_again() {
    let steps =
        [("insert into d.t values (9, 'z')", Expect::Any), ("delete from d.t where id = 0", Expect::Any)];
    let work = script(Atomicity::Transaction, &steps);
    for (reason, place, kind, attempts) in [
        ("backendError", "select levin_count_0", ErrorKind::ConnectionLost, 1),
        ("invalidQuery", "select levin_count_0", ErrorKind::ConnectionLost, 1),
        ("backendError", "commit transaction", ErrorKind::ConnectionLost, 1),
        ("backendError", "delete from", ErrorKind::Other, 6),
    ] {
        let front = front(move |_, asked| {
            failed_job(asked, reason, &format!("Query error: trouble at [{}:1]", line_of(asked, place)))
        });
        let warehouse = at(&front.url(), json!({})).await;
        let failed = open(&*warehouse).await.execute(&work).await.unwrap_err();
        assert_eq!(failed.kind, kind, "{place}: {failed}");
        let mut ids: Vec<String> = front.asked().iter().filter(|a| is_insert(a)).map(id_of).collect();
        ids.dedup();
        assert_eq!(ids.len(), attempts, "{place}");
    }
}

#[tokio::test]
async fn no_dataset_is_made_where_nobody_says() {
    let front = front(|_, _| Answer::Pass);
    let warehouse = at(&front.url(), json!({"location": null})).await;
    let making = script(Atomicity::Separate, &[("create schema if not exists e", Expect::Any)]);
    let refused = open(&*warehouse).await.execute(&making).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Invalid, "{refused}");
    assert!(refused.message.contains("`location`"), "{refused}");
    assert_eq!(front.asked().iter().filter(|a| is_insert(a)).count(), 0, "nothing is asked of BigQuery");
}

#[tokio::test]
async fn what_does_not_pass_is_told_at_once() {
    for (reason, message, kind) in [
        (
            "quotaExceeded",
            "Quota exceeded: Your project exceeded quota for free query bytes scanned.",
            ErrorKind::OutOfSpace,
        ),
        (
            "bytesBilledLimitExceeded",
            "Query exceeded limit for bytes billed: 1. 10485760 or higher required.",
            ErrorKind::OutOfSpace,
        ),
        ("resourcesExceeded", "Resources exceeded during query execution", ErrorKind::OutOfSpace),
        ("stopped", "Job execution was cancelled: User requested cancellation", ErrorKind::Cancelled),
        ("timeout", "Job timed out after 1 sec", ErrorKind::TookTooLong),
        (
            "accessDenied",
            "Access Denied: Table p:d.t: User does not have bigquery.tables.getData",
            ErrorKind::Permission,
        ),
        ("invalidQuery", "Bad int64 value: x", ErrorKind::Data),
    ] {
        let as_job = front(move |_, asked| failed_job(asked, reason, message));
        let failed = fails(&as_job, json!({})).await;
        assert_eq!((failed.kind, failed.code.as_deref()), (kind, Some(reason)), "{failed}");
        assert_eq!(as_job.asked().iter().filter(|a| is_insert(a)).count(), 1, "{reason} is not tried again");
        let as_answer =
            front(move |_, _| refusal(if reason == "accessDenied" { 403 } else { 400 }, reason, message));
        assert_eq!(fails(&as_answer, json!({})).await.kind, kind, "{reason}");
    }
}

/// The error may come with the result, as it does when the job had begun.
#[tokio::test]
async fn a_job_that_is_killed_while_it_runs_ends_as_cancelled() {
    let front = Front::before(Some(BigqueryDouble::start().address()), |asked| {
        if is_insert(asked) {
            return job(asked, &json!({"state": "RUNNING"}));
        }
        let stopped = "Job execution was cancelled: User requested cancellation";
        match (asked.path.contains("/queries/"), asked.path.contains("/jobs/")) {
            (true, _) => refusal(499, "stopped", stopped),
            (_, true) => failed_job(asked, "stopped", stopped),
            _ => Answer::Pass,
        }
    });
    let failed = fails(&front, json!({})).await;
    assert_eq!(failed.kind, ErrorKind::Cancelled, "{failed}");
    assert_eq!(front.count("POST", "/cancel"), 0, "it is over already");
}

/// A job that runs until it is cancelled.
fn endless() -> Front {
    let cancelled = AtomicBool::new(false);
    Front::before(Some(BigqueryDouble::start().address()), move |asked| {
        let over = json!({"state": "DONE", "errorResult": {"reason": "stopped", "message": "Job execution was cancelled"}});
        if is_insert(asked)
            && asked.json()["configuration"]["query"]["query"].as_str() == Some("select 'endless'")
        {
            return job(asked, &json!({"state": "RUNNING"}));
        }
        if asked.path.ends_with("/cancel") {
            cancelled.store(true, Ordering::SeqCst);
            return Answer::json(200, &json!({"kind": "bigquery#jobCancelResponse"}));
        }
        let ended = cancelled.load(Ordering::SeqCst);
        if asked.path.contains("/queries/levin_") && !ended {
            std::thread::sleep(std::time::Duration::from_millis(10));
            return Answer::json(200, &json!({"jobComplete": false}));
        }
        if asked.path.contains("/queries/levin_") {
            return refusal(400, "stopped", "Job execution was cancelled");
        }
        if asked.path.contains("/jobs/levin_") {
            return job(asked, &if ended { over } else { json!({"state": "RUNNING"}) });
        }
        if asked.method == "GET" && asked.path.ends_with("/jobs") {
            let running = json!({"jobReference": {"jobId": "levin_00000000000000000000000000000001_5"}, "status": {"state": "RUNNING"}});
            let other = json!({"jobReference": {"jobId": "levin_00000000000000000000000000000002_1"}, "status": {"state": "RUNNING"}});
            return Answer::json(
                200,
                &json!({"jobs": if ended { vec![other] } else { vec![other, running] }}),
            );
        }
        Answer::Pass
    })
}

#[tokio::test]
async fn a_running_job_can_be_cancelled_and_the_session_goes_on() {
    let front = endless();
    let warehouse = at(&front.url(), json!({})).await;
    let mut session = open(&*warehouse).await;
    let canceller = session.canceller();
    canceller.cancel().await.unwrap();
    assert_eq!(front.count("POST", "/cancel"), 0, "nothing runs");
    let work = tokio::spawn(async move {
        let steps = [("select 'endless'", Expect::Rows), ("insert into d.t values (1)", Expect::Any)];
        let result = session.execute(&script(Atomicity::Separate, &steps)).await;
        (session, result)
    });
    while !work.is_finished() {
        canceller.cancel().await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let (_session, result) = work.await.unwrap();
    let failed = result.unwrap_err();
    assert_eq!((failed.kind, failed.step.as_deref()), (ErrorKind::Cancelled, Some("step 1")), "{failed}");
    assert!(front.count("POST", "/cancel") > 0);
    assert_eq!(front.asked().iter().filter(|a| is_insert(a)).count(), 1, "the second step never began");
}

#[tokio::test]
async fn a_job_that_nobody_waits_for_is_stopped() {
    let front = endless();
    let warehouse = at(&front.url(), json!({})).await;
    let mut session = open(&*warehouse).await;
    let waiting = async {
        while !front.asked().iter().any(|a| a.path.contains("/queries/")) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let endless = sql("select 'endless'");
    tokio::select! {
        result = session.query(&endless) => panic!("ended: {:?}", result.map(|_| ())),
        () = waiting => {}
    }
    while front.count("POST", "/cancel") == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let id = session.id().unwrap();
    assert!(front.asked().iter().any(|a| a.path.ends_with(&format!("/{id}_1/cancel"))));
}

#[tokio::test]
async fn terminate_stops_the_jobs_of_exactly_that_session() {
    let front = endless();
    let warehouse = at(&front.url(), json!({})).await;
    warehouse.terminate("levin_00000000000000000000000000000001").await.unwrap();
    let cancelled: Vec<String> =
        front.asked().into_iter().filter(|a| a.path.ends_with("/cancel")).map(|a| a.path).collect();
    assert_eq!(cancelled.len(), 1, "{cancelled:?}");
    assert!(cancelled[0].ends_with("/jobs/levin_00000000000000000000000000000001_5/cancel"), "{cancelled:?}");
}

#[tokio::test]
async fn an_outage_ends_with_what_is_known_of_the_statement() {
    // Nobody is there.
    let nobody = configured("http://127.0.0.1:1", "p", json!({"retry_for": "1s"}));
    let tag = Tag { sync: "s".into(), run: None, stage: "check" };
    let failed = nobody.session(&tag).await.err().unwrap();
    assert_eq!(failed.kind, ErrorKind::Unreachable, "{failed}");
    assert!(failed.message.contains("127.0.0.1"), "{failed}");
    // Somebody was there, and may have done what was asked.
    let front = front(|_, _| Answer::Lose);
    let failed = fails(&front, json!({"retry_for": "700ms"})).await;
    assert_eq!(failed.kind, ErrorKind::ConnectionLost, "{failed}");
    let unavailable = super::jobs::front(|_, _| refusal(503, "backendError", "Service unavailable"));
    let failed = fails(&unavailable, json!({"retry_for": "700ms"})).await;
    assert_eq!(failed.kind, ErrorKind::ConnectionLost, "{failed}");
    assert!(failed.message.contains("Service unavailable") && failed.message.contains("times"), "{failed}");
}

#[tokio::test]
async fn a_wrong_project_place_or_address_is_told_apart() {
    let wrong = |status, reason: &'static str, message: &'static str| {
        Front::before(None, move |_| refusal(status, reason, message))
    };
    let tag = Tag { sync: "s".into(), run: None, stage: "check" };
    for (status, reason, message, kind) in [
        (404, "notFound", "Not found: Project nowhere", ErrorKind::NotFound),
        (
            403,
            "accessDenied",
            "Access Denied: Project p: User does not have bigquery.jobs.create permission",
            ErrorKind::Permission,
        ),
        (403, "billingNotEnabled", "The project p has not enabled billing.", ErrorKind::Permission),
        (400, "invalid", "Cannot parse  as CloudRegion.", ErrorKind::Invalid),
    ] {
        let failed = configured(&wrong(status, reason, message).url(), "p", json!({}))
            .session(&tag)
            .await
            .err()
            .unwrap();
        assert_eq!(failed.kind, kind, "{failed}");
        assert!(failed.message.contains(message.trim()), "{failed}");
    }
    // Another server than BigQuery's.
    let other = Front::before(None, |_| Answer::Say(404, "<html>\n  no such page".to_owned()));
    let failed = configured(&other.url(), "p", json!({})).session(&tag).await.err().unwrap();
    assert_eq!(failed.kind, ErrorKind::NotFound);
    assert!(failed.message.contains("HTTP 404: <html> no such page"), "{failed}");
    let odd = Front::before(None, |_| Answer::Say(200, "welcome".to_owned()));
    assert!(
        configured(&odd.url(), "p", json!({}))
            .session(&tag)
            .await
            .err()
            .unwrap()
            .message
            .contains("cannot be read")
    );
    // A dataset that is somewhere else.
    let elsewhere = front(|_, asked| {
        failed_job(asked, "notFound", "Not found: Dataset p:d was not found in location US")
    });
    let failed = fails(&elsewhere, json!({"location": "US"})).await;
    assert_eq!(failed.kind, ErrorKind::NotFound);
    assert!(failed.message.ends_with("(the source's `location` is US)"), "{failed}");
}

#[tokio::test]
async fn what_may_not_be_there_is_asked_for() {
    let hidden = "Access Denied: Table p:d.t: User does not have permission to query table p:d.t, or perhaps it does not exist.";
    for (status, kind) in
        [(404, ErrorKind::NotFound), (403, ErrorKind::Permission), (200, ErrorKind::Permission)]
    {
        let front = Front::before(Some(BigqueryDouble::start().address()), move |asked| {
            if is_insert(asked) {
                return failed_job(asked, "accessDenied", hidden);
            }
            if asked.path.ends_with("/projects/p/datasets/d/tables/t") {
                return refusal(status, if status == 404 { "notFound" } else { "accessDenied" }, "…");
            }
            Answer::Pass
        });
        assert_eq!(fails(&front, json!({})).await.kind, kind, "{status}");
    }
}
