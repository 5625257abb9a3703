//! Files as their readers find them: whole or not there.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde_json::json;
use sql_templates::LogicalType;

use super::*;
use crate::change::{ChangeBatch, with_logical_type};
use crate::outcome::{Rejection, RowOutcome};

fn fields() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("score", DataType::Float64, true),
        with_logical_type(Field::new("tags", DataType::Utf8, true), LogicalType::Json),
    ]))
}

fn spec(mode: Mode, object: &str, options: Value) -> DeliverySpec {
    DeliverySpec {
        sync: "customers-to-files".into(),
        sync_id: 3,
        model: "customers".into(),
        object: Some(object.into()),
        mode,
        on_removed: crate::change::OnRemoved::Nothing,
        options,
        identity: Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)])),
        fields: fields(),
    }
}

fn run(run_id: i64) -> RunFacts {
    RunFacts {
        run_id,
        generation: run_id + 100,
        started_at: "2026-11-20T09:30:00Z".parse().unwrap(),
        planned: BTreeMap::new(),
    }
}

fn files(path: &Path) -> Files {
    let context = BuildContext { slug: "out".into(), project: path.to_owned(), secrets: Vec::new() };
    Files::build(json!({"path": "out"}), &context).unwrap()
}

fn batch(operation: Operation, rows: &[(i64, Option<&str>, f64, Option<&str>)]) -> ChangeBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0)));
    let columns: Vec<ArrayRef> = vec![
        ids.clone(),
        Arc::new(StringArray::from_iter(rows.iter().map(|r| r.1))),
        Arc::new(Float64Array::from_iter_values(rows.iter().map(|r| r.2))),
        Arc::new(StringArray::from_iter(rows.iter().map(|r| r.3))),
    ];
    let identity = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)]));
    ChangeBatch {
        operation,
        sequences: Int64Array::from_iter_values(1..=rows.len() as i64),
        keys: StringArray::from_iter_values(rows.iter().map(|r| r.0.to_string())),
        versions: StringArray::from_iter_values(rows.iter().map(|r| format!("v{}", r.0))),
        changed: vec![Arc::from([]); rows.len()],
        identity: RecordBatch::try_new(identity, vec![ids]).unwrap(),
        fields: RecordBatch::try_new(fields(), columns).unwrap(),
    }
}

/// Every file below a folder with its content, hidden ones too.
fn tree(root: &Path) -> BTreeMap<String, String> {
    fn walk(root: &Path, at: &Path, found: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() {
                walk(root, &path, found);
            } else {
                let name = path.strip_prefix(root).unwrap().display().to_string();
                found.insert(name, fs::read_to_string(&path).unwrap_or_default());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(root, root, &mut found);
    found
}

#[tokio::test]
async fn a_diff_appears_whole_when_the_run_ends() {
    let project = tempfile::tempdir().unwrap();
    let out = project.path().join("out");
    let files = files(project.path());
    let sync = spec(Mode::Diff, "{{ date }}/{{ sync_slug }}-{{ run_id }}.jsonl", Value::Null);
    files.validate(&sync).unwrap();
    let delivery = files.open(&sync, &run(7)).await.unwrap();
    assert!(tree(&out).is_empty(), "nothing appears before the first row");

    let removed = batch(Operation::Removed, &[(1, Some("Ann"), 1.5, None)]);
    let added = batch(Operation::Added, &[(2, None, 2.0, Some("[1, 2]")), (3, Some("x"), f64::NAN, None)]);
    assert_eq!(delivery.deliver(&removed).await.outcomes, [RowOutcome::Deferred]);
    let delivered = delivery.deliver(&added).await;
    assert_eq!(delivered.outcomes[0], RowOutcome::Deferred);
    assert!(
        matches!(&delivered.outcomes[1], RowOutcome::Rejected(r) if r.code == Rejection::UNREPRESENTABLE_VALUE)
    );
    assert_eq!(tree(&out).keys().collect::<Vec<_>>(), [".customers-to-files-7.jsonl.s3.7-107.partial"]);

    assert_eq!(delivery.close(true).await.unwrap(), Some(RowOutcome::Accepted));
    let found = tree(&out);
    let text = &found["2026-11-20/customers-to-files-7.jsonl"];
    assert_eq!(found.len(), 1);
    assert_eq!(
        text,
        "{\"_operation\":\"removed\",\"id\":1,\"name\":\"Ann\",\"score\":1.5,\"tags\":null}\n\
         {\"_operation\":\"added\",\"id\":2,\"name\":null,\"score\":2.0,\"tags\":[1, 2]}\n"
    );
}

#[tokio::test]
async fn csv_tells_null_from_empty_and_quotes_what_it_must() {
    let project = tempfile::tempdir().unwrap();
    let files = files(project.path());
    let sync = spec(Mode::Insert, "x-{{ generation }}.csv", json!({"non_finite": "string"}));
    files.validate(&sync).unwrap();
    let delivery = files.open(&sync, &run(1)).await.unwrap();
    let rows = [
        (1, None, 1.0, None),
        (2, Some(""), f64::NAN, None),
        (3, Some("a,b"), 0.1, Some("{\"a\": 1}")),
        (4, Some("say \"hi\""), -0.0, Some("[]")),
        (5, Some("two\nlines"), 1.0, None),
        (6, Some("one\rreturn"), 1.0, None),
        (7, Some(" spaces "), 1.0, None),
        (8, Some("ünïcode;"), 1.0, Some("\"a\"")),
    ];
    let delivered = delivery.deliver(&batch(Operation::Added, &rows)).await;
    assert_eq!(delivered.outcomes, vec![RowOutcome::Deferred; 8]);
    delivery.close(true).await.unwrap();
    let text = &tree(&project.path().join("out"))["x-101.csv"];
    assert_eq!(
        text,
        "id,name,score,tags\r\n1,,1.0,\r\n2,\"\",NaN,\r\n3,\"a,b\",0.1,\"{\"\"a\"\": 1}\"\r\n\
         4,\"say \"\"hi\"\"\",0.0,[]\r\n5,\"two\nlines\",1.0,\r\n6,\"one\rreturn\",1.0,\r\n\
         7, spaces ,1.0,\r\n8,ünïcode;,1.0,\"\"\"a\"\"\"\r\n"
    );
}

#[tokio::test]
async fn a_csv_diff_carries_the_operation_first_and_a_lone_null_is_rejected() {
    let project = tempfile::tempdir().unwrap();
    let files = files(project.path());
    let mut sync = spec(Mode::Diff, "{{ run_id }}.csv", Value::Null);
    let delivery = files.open(&sync, &run(1)).await.unwrap();
    delivery.deliver(&batch(Operation::Changed, &[(1, None, 1.0, None)])).await;
    delivery.close(true).await.unwrap();
    let out = project.path().join("out");
    assert_eq!(tree(&out)["1.csv"], "_operation,id,name,score,tags\r\nchanged,1,,1.0,\r\n");

    let name = Arc::new(Schema::new(vec![Field::new("na,me", DataType::Utf8, true)]));
    sync.fields = name.clone();
    sync.mode = Mode::All;
    let delivery = files.open(&sync, &run(2)).await.unwrap();
    let mut rows = batch(Operation::Added, &[(1, None, 1.0, None), (2, None, 1.0, None)]);
    let names: ArrayRef = Arc::new(StringArray::from(vec![None, Some("")]));
    rows.fields = RecordBatch::try_new(name, vec![names]).unwrap();
    let outcomes = delivery.deliver(&rows).await.outcomes;
    assert!(matches!(&outcomes[0], RowOutcome::Rejected(r) if r.code == Rejection::UNREPRESENTABLE_VALUE));
    assert_eq!(outcomes[1], RowOutcome::Deferred);
    delivery.close(true).await.unwrap();
    assert_eq!(tree(&out)["2.csv"], "\"na,me\"\r\n\"\"\r\n");
}

#[tokio::test]
async fn a_run_that_does_not_end_leaves_nothing() {
    let project = tempfile::tempdir().unwrap();
    let out = project.path().join("out");
    let files = files(project.path());
    let sync = spec(Mode::Diff, "sub/{{ run_id }}.jsonl", Value::Null);
    let rows = batch(Operation::Added, &[(1, None, 1.0, None)]);

    let delivery = files.open(&sync, &run(1)).await.unwrap();
    delivery.deliver(&rows).await;
    assert_eq!(delivery.close(false).await.unwrap(), Some(RowOutcome::NotSent));
    assert!(tree(&out).is_empty());

    let delivery = files.open(&sync, &run(2)).await.unwrap();
    delivery.deliver(&rows).await;
    drop(delivery);
    assert!(tree(&out).is_empty());
    assert!(!out.join("sub").exists());
}

#[tokio::test]
async fn leftovers_of_dead_runs_go_and_nothing_else() {
    let project = tempfile::tempdir().unwrap();
    let out = project.path().join("out");
    fs::create_dir_all(&out).unwrap();
    let files = files(project.path());
    let sync = spec(Mode::Diff, "{{ run_id }}.jsonl", Value::Null);
    let alive = files.open(&sync, &run(1)).await.unwrap();
    alive.deliver(&batch(Operation::Added, &[(1, None, 1.0, None)])).await;
    let kept = [".a.s33.1-2.partial", ".s3.1-2.partial", ".a.s3.x-2.partial", "a.s3.1-2.partial", "a.jsonl"];
    for name in kept.iter().chain(&[".a.b.s3.6-7.partial", ".0.jsonl.s3.0-100.partial"]) {
        fs::write(out.join(name), "x").unwrap();
    }
    files.open(&sync, &run(2)).await.unwrap();
    let mut expected: Vec<&str> = kept.to_vec();
    expected.push(".1.jsonl.s3.1-101.partial");
    expected.sort_unstable();
    assert_eq!(tree(&out).keys().collect::<Vec<_>>(), expected, "a locked file belongs to a living run");
    assert_eq!(alive.close(true).await.unwrap(), Some(RowOutcome::Accepted));
    assert!(out.join("1.jsonl").exists());
}

#[tokio::test]
async fn a_file_of_the_same_name_is_replaced_only_where_the_name_stands_for_the_latest() {
    let project = tempfile::tempdir().unwrap();
    let out = project.path().join("out");
    let files = files(project.path());
    let sync = spec(Mode::Snapshot, "customers.jsonl", Value::Null);
    for (run_id, id) in [(1, 10), (2, 20)] {
        let delivery = files.open(&sync, &run(run_id)).await.unwrap();
        delivery.deliver(&batch(Operation::Added, &[(id, None, 1.0, None)])).await;
        assert_eq!(delivery.close(true).await.unwrap(), Some(RowOutcome::Accepted));
    }
    assert!(tree(&out)["customers.jsonl"].starts_with("{\"id\":20,"));

    fs::write(out.join("9.jsonl"), "old").unwrap();
    for mode in [Mode::Diff, Mode::Insert, Mode::Snapshot] {
        let sync = spec(mode, "{{ run_id }}.jsonl", Value::Null);
        let delivery = files.open(&sync, &run(9)).await.unwrap();
        delivery.deliver(&batch(Operation::Added, &[(1, None, 1.0, None)])).await;
        let error = delivery.close(true).await.unwrap_err();
        assert!(error.to_string().contains("exists already"), "{error}");
        assert_eq!(tree(&out)["9.jsonl"], "old");
        assert_eq!(tree(&out).len(), 2, "the unfinished file is gone");
    }
}

#[tokio::test]
async fn a_run_without_rows_makes_a_file_only_where_it_is_the_result() {
    let project = tempfile::tempdir().unwrap();
    let out = project.path().join("out");
    let files = files(project.path());
    for (mode, object) in [
        (Mode::Diff, "d{{ run_id }}.csv"),
        (Mode::Insert, "i{{ run_id }}.csv"),
        (Mode::Snapshot, "s.csv"),
        (Mode::All, "a.jsonl"),
    ] {
        let sync = spec(mode, object, Value::Null);
        files.open(&sync, &run(1)).await.unwrap().close(true).await.unwrap();
    }
    let found = tree(&out);
    assert_eq!(found.keys().collect::<Vec<_>>(), ["a.jsonl", "s.csv"]);
    assert_eq!((found["a.jsonl"].as_str(), found["s.csv"].as_str()), ("", "id,name,score,tags\r\n"));
}

#[tokio::test]
async fn no_name_leads_out_of_the_folder() {
    let project = tempfile::tempdir().unwrap();
    let files = files(project.path());
    for object in [
        "../{{ run_id }}",
        "a/../../{{ run_id }}",
        "/tmp/{{ run_id }}",
        "{{ run_id }}/",
        "a//{{ run_id }}",
        "./{{ run_id }}",
        ".{{ run_id }}",
        "a\u{0}{{ run_id }}",
        "a\n{{ run_id }}",
        "{{ '..' }}/{{ run_id }}",
        "{{ run_id",
        "{{ run }}",
        "{{ run_id.x.y }}",
        "",
    ] {
        let error = files.validate(&spec(Mode::Diff, object, Value::Null)).unwrap_err();
        assert_eq!(error.path, "object", "{object}: {error}");
    }
    let mut sync = spec(Mode::Diff, "{{ sync_slug }}-{{ run_id }}", Value::Null);
    sync.sync = "../../etc".into();
    assert!(files.open(&sync, &run(1)).await.is_err());

    // Links below the folder, put there by someone else.
    let elsewhere = project.path().join("elsewhere");
    fs::create_dir_all(&elsewhere).unwrap();
    fs::create_dir_all(project.path().join("out")).unwrap();
    std::os::unix::fs::symlink(&elsewhere, project.path().join("out/sub")).unwrap();
    fs::write(elsewhere.join("victim"), "kept").unwrap();
    std::os::unix::fs::symlink(elsewhere.join("victim"), project.path().join("out/all.jsonl")).unwrap();
    let delivery = files.open(&spec(Mode::Diff, "sub/{{ run_id }}", Value::Null), &run(1)).await.unwrap();
    delivery.deliver(&batch(Operation::Added, &[(1, None, 1.0, None)])).await;
    let error = delivery.close(true).await.unwrap_err();
    assert!(error.to_string().contains("symbolic link"), "{error}");
    let delivery = files.open(&spec(Mode::All, "all.jsonl", Value::Null), &run(1)).await.unwrap();
    delivery.close(true).await.unwrap();
    assert_eq!(fs::read_to_string(elsewhere.join("victim")).unwrap(), "kept");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 1);
    assert!(!project.path().join("out/all.jsonl").is_symlink());
}

#[test]
fn what_cannot_be_is_refused_with_its_place() {
    let project = tempfile::tempdir().unwrap();
    let files = files(project.path());
    for (sync, path) in [
        (spec(Mode::Diff, "same.jsonl", Value::Null), "object"),
        (spec(Mode::Insert, "{{ date }}.jsonl", Value::Null), "object"),
        (spec(Mode::Upsert, "{{ run_id }}.jsonl", Value::Null), "mode"),
        (spec(Mode::All, "x.csv", json!({"nulls": "omit"})), "nulls"),
        (spec(Mode::All, "x.csv", json!({"numbers": "string"})), "numbers"),
        (spec(Mode::All, "x.parquet", json!({"nulls": "omit"})), "nulls"),
        (spec(Mode::All, "x", json!({"format": "parquet", "numbers": "string"})), "numbers"),
        (spec(Mode::All, "x.parquet", json!({"non_finite": "string"})), "non_finite"),
        (spec(Mode::All, "x", json!({"format": "orc"})), ""),
        (spec(Mode::All, "x", json!({"formats": "csv"})), ""),
    ] {
        assert_eq!(files.validate(&sync).unwrap_err().path, path);
    }
    let mut sync = spec(Mode::Diff, "{{ run_id }}", Value::Null);
    sync.fields = Arc::new(Schema::new(vec![Field::new("_operation", DataType::Utf8, true)]));
    assert_eq!(files.validate(&sync).unwrap_err().path, "mappings");
    let context = BuildContext { slug: "out".into(), project: "/p".into(), secrets: Vec::new() };
    for path in ["", "ftp://a/b", "s3://", "s3:///x", "s3://bucket/x?y", "s3://user@bucket/x"] {
        assert_eq!(Files::build(json!({"path": path}), &context).unwrap_err().path, "path", "{path}");
    }
    // A key of another store, or of any, is a slip that would go unnoticed.
    for (path, key) in [("out", "region"), ("s3://bucket", "account_key"), ("gs://bucket", "region")] {
        let error = Files::build(json!({"path": path, key: "x"}), &context).unwrap_err();
        assert!(error.path == key && error.message.contains("begins with"), "{error}");
    }
}

#[tokio::test]
async fn an_attempt_that_nobody_waits_for_leaves_no_rows_behind() {
    let project = tempfile::tempdir().unwrap();
    let files = files(project.path());
    let delivery = files.open(&spec(Mode::Diff, "{{ run_id }}.jsonl", Value::Null), &run(1)).await.unwrap();
    // So many rows that they cannot be written before the attempt is given up.
    let rows: Vec<_> = (0..100_000).map(|_| (1, Some("a longer row than the next"), 1.0, None)).collect();
    let first = batch(Operation::Added, &rows);
    {
        let mut abandoned = std::pin::pin!(delivery.deliver(&first));
        assert!(futures::poll!(&mut abandoned).is_pending());
    }
    delivery.deliver(&batch(Operation::Added, &[(2, None, 1.0, None)])).await;
    delivery.close(true).await.unwrap();
    let text = &tree(&project.path().join("out"))["1.jsonl"];
    assert_eq!(text, "{\"_operation\":\"added\",\"id\":2,\"name\":null,\"score\":1.0,\"tags\":null}\n");
}

#[tokio::test]
async fn a_full_disk_stops_the_run_and_nothing_appears() {
    let project = tempfile::tempdir().unwrap();
    let out = project.path().join("out");
    fs::create_dir_all(&out).unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
        .arg(&out)
        .status()
        .is_ok_and(|s| s.success());
    let files = files(project.path());
    let sync = spec(Mode::Diff, "{{ run_id }}.jsonl", Value::Null);
    if !mounted {
        // Only root can mount a small file system. Anybody else meets a folder that takes nothing.
        assert!(std::env::var_os("CI").is_none(), "run the tests as root, in a container if need be");
        fs::set_permissions(&out, fs::Permissions::from_mode(0o555)).unwrap();
        let error = match files.open(&sync, &run(1)).await {
            Err(error) => error,
            Ok(delivery) => {
                let delivered = delivery.deliver(&batch(Operation::Added, &[(1, None, 1.0, None)])).await;
                assert_eq!(delivered.outcomes, [RowOutcome::NotSent]);
                assert!(delivery.close(true).await.is_err());
                delivered.error.expect("it says why")
            }
        };
        assert!(matches!(error, DeliveryError::Unauthorized { .. }), "{error:?}");
        fs::set_permissions(&out, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(tree(&out).is_empty());
        return;
    }
    let delivery = files.open(&sync, &run(1)).await.unwrap();
    assert!(delivery.deliver(&batch(Operation::Added, &[(1, None, 1.0, None)])).await.error.is_none());
    let large = "x".repeat(600_000);
    let delivered = delivery.deliver(&batch(Operation::Added, &[(2, Some(&large), 1.0, None)])).await;
    let again = delivery.deliver(&batch(Operation::Added, &[(3, None, 1.0, None)])).await;
    let closed = delivery.close(true).await;
    let left = tree(&out);
    assert!(std::process::Command::new("umount").arg(&out).status().unwrap().success());
    assert_eq!(delivered.outcomes, [RowOutcome::NotSent]);
    assert!(
        matches!(&delivered.error, Some(DeliveryError::Unauthorized { hint, .. }) if hint.contains("space")),
        "{delivered:?}"
    );
    assert_eq!(again.outcomes, [RowOutcome::NotSent]);
    assert!(closed.is_err());
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn checking_changes_nothing_and_names_what_is_wrong() {
    let project = tempfile::tempdir().unwrap();
    let destination = files(project.path());
    let sync = spec(Mode::All, "a.jsonl", Value::Null);
    destination.check(Some(&sync)).await.unwrap();
    assert!(tree(project.path()).is_empty());
    let before = destination.target(&sync);
    fs::create_dir_all(project.path().join("real")).unwrap();
    destination.open(&sync, &run(1)).await.unwrap().close(true).await.unwrap();
    assert_eq!(destination.target(&sync), before, "the target does not depend on what exists");
    assert!(before.ends_with("/out/a.jsonl"), "{before}");

    let blocked = tempfile::tempdir().unwrap();
    fs::write(blocked.path().join("out"), "a file").unwrap();
    let error = files(blocked.path()).check(Some(&sync)).await.unwrap_err();
    assert!(error.to_string().contains("out"), "{error}");
    assert!(files(blocked.path()).open(&sync, &run(1)).await.is_err());
}
