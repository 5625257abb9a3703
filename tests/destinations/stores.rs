//! `files` in object stores: what is particular to them. The rest is in the conformance of destinations.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use connectors::catalogue::{BuildContext, DESTINATIONS};
use connectors::change::{ChangeBatch, Mode, OnRemoved, Operation};
use connectors::destination::{DeliverySpec, Destination, RunFacts};
use connectors::outcome::{DeliveryError, RowOutcome};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use tests::receiver::{Receiver, Reply};
use tests::stores::{AZURE_ACCOUNT, AZURE_KEY, StoreDouble};

fn build(config: Value) -> Arc<dyn Destination> {
    let connector = DESTINATIONS.iter().find(|d| d.name == "files").unwrap();
    let context =
        BuildContext { slug: "out".into(), project: PathBuf::from("/nowhere"), secrets: Vec::new() };
    (connector.build)(config, &context).unwrap()
}

fn schema() -> Arc<Schema> {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("text", DataType::Utf8, true),
    ]))
}

fn spec(mode: Mode, object: &str) -> DeliverySpec {
    DeliverySpec {
        sync: "export".into(),
        sync_id: 1,
        model: "people".into(),
        object: Some(object.into()),
        mode,
        on_removed: OnRemoved::Nothing,
        options: Value::Null,
        identity: Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)])),
        fields: schema(),
    }
}

fn facts(generation: i64) -> RunFacts {
    RunFacts { run_id: generation, generation, started_at: chrono::Utc::now(), planned: BTreeMap::new() }
}

/// Rows of `bytes` random letters each, which no compression makes smaller than half.
fn rows(ids: std::ops::Range<i64>, bytes: usize) -> ChangeBatch {
    let mut random = fastrand::Rng::with_seed(ids.start.unsigned_abs());
    let texts =
        ids.clone().map(|_| std::iter::repeat_with(|| random.alphanumeric()).take(bytes).collect::<String>());
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
    let count = usize::try_from(ids.end - ids.start).unwrap();
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(ids));
    let identity = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)]));
    let names = || StringArray::from_iter_values((0..count).map(|n| n.to_string()));
    ChangeBatch {
        operation: Operation::Added,
        sequences: Int64Array::from_iter_values(1..=count as i64),
        keys: names(),
        versions: names(),
        changed: vec![Arc::from([]); count],
        identity: RecordBatch::try_new(identity, vec![ids.clone()]).unwrap(),
        fields: RecordBatch::try_new(schema(), vec![ids, texts]).unwrap(),
    }
}

fn s3(bucket: &str) -> (Value, impl ObjectStore) {
    let double = StoreDouble::s3();
    double.make_bucket(bucket);
    let store = double.bucket(bucket);
    let config = json!({
        "path": format!("s3://{bucket}/exports"), "region": "eu-central-1", "endpoint_url": double.url(),
        "aws_access_key_id": "key", "aws_secret_access_key": "s3cret", "allow_private_networks": true,
    });
    (config, store)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_goes_in_parts_and_appears_at_the_end() {
    let (config, store) = s3("large");
    let out = build(config);
    let place = Path::from("exports/large-1.parquet");
    let spec = spec(Mode::Diff, "large-{{ generation }}.parquet");
    let delivery = out.open(&spec, &facts(1)).await.unwrap();
    // 48 MB: six parts, three row groups. None of it is held until the end.
    for batch in 0..12 {
        let delivered = delivery.deliver(&rows(batch * 1_000..(batch + 1) * 1_000, 4_000)).await;
        assert!(delivered.outcomes.iter().all(|o| *o == RowOutcome::Deferred), "{:?}", delivered.error);
    }
    assert!(store.head(&place).await.is_err(), "nothing is seen of what was uploaded");
    assert_eq!(delivery.close(true).await.unwrap(), Some(RowOutcome::Accepted));
    let bytes = store.get(&place).await.unwrap().bytes().await.unwrap();
    assert!(bytes.len() > 24 << 20, "{}", bytes.len());
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
    assert!(reader.metadata().num_row_groups() >= 2, "row groups are written out as they fill");
    let read: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
    assert_eq!(read.iter().map(RecordBatch::num_rows).sum::<usize>(), 12_000);
    let first = read[0].project(&[1, 2]).unwrap().slice(0, 1);
    assert_eq!(first.columns(), rows(0..1, 4_000).fields.columns(), "what comes out is what went in");

    // The same name again: what is there stays. A large file looks before it ends, a small one asks for it.
    for (generation, size) in [(1, 4_000), (1, 1)] {
        let delivery = out.open(&spec, &facts(generation)).await.unwrap();
        for batch in 0..6 {
            delivery.deliver(&rows(batch * 1_000..(batch + 1) * 1_000, size)).await;
        }
        let Err(DeliveryError::Unauthorized { message, hint }) = delivery.close(true).await else {
            panic!("it was overwritten");
        };
        assert!(message.contains("exists already") && hint.contains("generation"), "{message}");
        assert!(store.head(&place).await.unwrap().size > 24 << 20);
    }
    // One that stands for the latest content gives way, and a run that does not end changes nothing.
    let spec = self::spec(Mode::Snapshot, "latest.jsonl");
    let latest = Path::from("exports/latest.jsonl");
    for (generation, complete, expected) in [(1, true, 1), (2, false, 1), (3, true, 2)] {
        let delivery = out.open(&spec, &facts(generation)).await.unwrap();
        delivery.deliver(&rows(0..if generation == 1 { 1 } else { 2 }, 4)).await;
        delivery.close(complete).await.unwrap();
        let text = store.get(&latest).await.unwrap().bytes().await.unwrap();
        assert_eq!(text.split(|b| *b == b'\n').count() - 1, expected, "generation {generation}");
    }
    // Parts of runs that did not end are not left to be paid for.
    let delivery = out.open(&self::spec(Mode::Diff, "{{ generation }}.jsonl"), &facts(9)).await.unwrap();
    for batch in 0..3 {
        delivery.deliver(&rows(batch * 1_000..(batch + 1) * 1_000, 4_000)).await;
    }
    assert_eq!(uploads_under_way("large").await, 1);
    assert_eq!(delivery.close(false).await.unwrap(), Some(RowOutcome::NotSent));
    assert_eq!(uploads_under_way("large").await, 0);
}

/// Multipart uploads of a bucket that were neither completed nor aborted.
async fn uploads_under_way(bucket: &str) -> usize {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(StoreDouble::s3().address()).await.unwrap();
    let request = format!("GET /{bucket}?uploads HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer.matches("<UploadId>").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_nobody_waits_for_ends_the_file_and_no_row_comes_twice() {
    let (config, store) = s3("abandoned");
    let out = build(config);
    let delivery = out.open(&spec(Mode::Diff, "{{ generation }}.parquet"), &facts(1)).await.unwrap();
    delivery.deliver(&rows(0..10, 10)).await;
    let first = rows(10..50_000, 200);
    {
        let mut abandoned = std::pin::pin!(delivery.deliver(&first));
        assert!(futures::poll!(&mut abandoned).is_pending());
    }
    let delivered = delivery.deliver(&first).await;
    assert!(delivered.outcomes.iter().all(|o| *o == RowOutcome::NotSent), "{:?}", delivered.error);
    assert!(matches!(delivered.error, Some(DeliveryError::Unavailable { .. })));
    assert!(delivery.close(true).await.is_err());
    assert!(store.head(&Path::from("exports/1.parquet")).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn private_addresses_need_to_be_allowed() {
    let s3 = json!({"path": "s3://b/x", "region": "eu-central-1", "endpoint_url": StoreDouble::s3().url(),
        "aws_access_key_id": "key", "aws_secret_access_key": "s3cret"});
    let azure = json!({"path": "az://c/x", "endpoint_url": format!("{}/{AZURE_ACCOUNT}", StoreDouble::azure().url()),
        "account_name": AZURE_ACCOUNT, "account_key": AZURE_KEY});
    // A name that leads there is no way around it.
    let by_name = json!({"path": "s3://b/x", "region": "eu-central-1",
        "endpoint_url": format!("http://localhost:{}", StoreDouble::s3().address().port()),
        "aws_access_key_id": "key", "aws_secret_access_key": "s3cret"});
    for config in [s3, azure, by_name] {
        let out = build(config);
        let Err(DeliveryError::Unauthorized { message, hint }) = out.check(None).await else {
            panic!("reached")
        };
        assert!(hint.contains("allow_private_networks"), "{message} {hint}");
        let delivery = out.open(&spec(Mode::Diff, "{{ run_id }}.jsonl"), &facts(1)).await.unwrap();
        delivery.deliver(&rows(0..1, 1)).await;
        assert!(matches!(delivery.close(true).await, Err(DeliveryError::Unauthorized { .. })));
    }
}

/// There is no honest double of Google's store to be had: this proves the form of the requests and what is made
/// of the answers, for files of one request.
#[tokio::test(flavor = "multi_thread")]
async fn requests_to_google_have_the_form_that_is_documented() {
    let receiver = Receiver::start();
    let key = json!({
        "type": "service_account", "client_email": "a@example.com", "private_key_id": "1", "private_key": "-",
        "disable_oauth": true,
    });
    let config = json!({"path": "gs://bucket/exports", "endpoint_url": receiver.url(), "service_account": key.to_string(),
        "allow_private_networks": true});
    let out = build(config);
    let one = |generation: i64| {
        let out = out.clone();
        async move {
            let spec = spec(Mode::Diff, "a b-{{ generation }}.jsonl");
            let delivery = out.open(&spec, &facts(generation)).await.unwrap();
            delivery.deliver(&rows(0..2, 3)).await;
            delivery.close(true).await
        }
    };
    receiver.behave(|_| Reply::accept().header("etag", "\"1\""));
    assert_eq!(one(1).await.unwrap(), Some(RowOutcome::Accepted));
    let request = receiver.requests().pop().unwrap();
    assert_eq!(
        (request.method.as_str(), request.path.as_str()),
        ("PUT", "/bucket/exports%2Fa%20b%2D1%2Ejsonl")
    );
    assert_eq!(request.headers["x-goog-if-generation-match"], "0", "it takes nobody's place");
    assert_eq!(request.text.lines().count(), 2);
    receiver.behave(|_| Reply::status(412));
    let Err(DeliveryError::Unauthorized { message, .. }) = one(2).await else { panic!("it was overwritten") };
    assert!(message.contains("exists already"), "{message}");
    receiver.behave(|_| Reply::status(403).saying("<Code>AccessDenied</Code>"));
    assert!(matches!(one(3).await, Err(DeliveryError::Unauthorized { .. })));
    assert!(!out.target(&spec(Mode::Diff, "x")).contains("private_key"));
}

#[test]
fn no_secret_is_shown_and_none_is_repeated_twice_over() {
    let out =
        build(json!({"path": "s3://b/x", "aws_access_key_id": "key", "aws_secret_access_key": "s3cret"}));
    assert!(!format!("{out:?} {}", out.target(&spec(Mode::Diff, "x"))).contains("s3cret"));
    assert_eq!(out.retries(), 0, "an upload's requests are repeated where they are made");
}
