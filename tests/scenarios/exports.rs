//! Files as others read them: Parquet in a folder, and files in an object store.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use serde_json::Value;
use tests::project::{Engine, Project};
use tests::stores::StoreDouble;

use super::modes::Export;
use super::on_both_warehouses;

on_both_warehouses!(
    a_typed_file_loses_types_or_digits,
    a_value_that_does_not_fit_destroys_a_file,
    a_killed_upload_is_seen_half_done,
    credentials_of_a_store_leak,
);

/// What an independent reader finds in a Parquet file: the statement's first column as text.
fn read(export: &Export, file: &str, select: &str) -> Vec<String> {
    let path = export.0.path().join("out").join(file);
    let connection = duckdb::Connection::open_in_memory().unwrap();
    let sql = select.replace("FILE", &format!("read_parquet('{}')", path.display()));
    let mut statement = connection.prepare(&sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
    let rows = statement.query_map([], |row| row.get::<_, Option<String>>(0)).unwrap();
    rows.map(|row| row.unwrap().unwrap_or_else(|| "∅".to_owned())).collect()
}

fn a_typed_file_loses_types_or_digits(engine: Engine) {
    let export = Export::new(engine, 0, "mode: all\nobject: all.parquet");
    let (float, blob, uuid) = match engine {
        Engine::DuckDb => ("double", "blob", "uuid"),
        _ => ("double precision", "bytea", "uuid"),
    };
    export.0.sql(&format!(
        "create table typed (id bigint, price decimal(38,10), qty decimal(9,2), big decimal(12,0), made timestamp, seen timestamptz, \
         day date, ok boolean, x {float}, bytes {blob}, u {uuid}, note text, j json)"
    ));
    let blob = match engine {
        Engine::DuckDb => "'\\x00\\xFF'::blob",
        _ => "'\\x00ff'::bytea",
    };
    export.0.sql(&format!(
        "insert into typed values (1, 1234567890123456789012345678.0123456789, -0.05, 123456789012, timestamp '2026-11-21 10:20:30.123456', \
         timestamptz '2026-11-21 10:20:30.5+02', date '0001-02-03', true, 0.1, {blob}, '6f0c2a9e-0000-4000-8000-000000000001', \
         'a \"b\", ü', '{{\"a\": 1}}'), (2, null, null, null, null, null, null, null, 'NaN', null, null, null, null)"
    ));
    export.0.write("models/customers.yml", "source: wh\nprimary_key: id\ntable: typed\n");
    let (run, files) = export.run();
    assert_eq!((run.code, run.successful()), (0, [2, 0, 0]), "{run:#?}");
    assert_eq!(files, ["all.parquet"]);
    let types = read(
        &export,
        "all.parquet",
        "select column_name || ' ' || column_type from (describe select * from FILE)",
    );
    assert_eq!(
        types,
        [
            "id BIGINT",
            "price DECIMAL(38,10)",
            "qty DECIMAL(9,2)",
            "big DECIMAL(12,0)",
            "made TIMESTAMP",
            "seen TIMESTAMP WITH TIME ZONE",
            "day DATE",
            "ok BOOLEAN",
            "x DOUBLE",
            "bytes BLOB",
            "u VARCHAR",
            "note VARCHAR",
            "j VARCHAR"
        ]
    );
    let one = |expression: &str, id: i64| {
        read(
            &export,
            "all.parquet",
            &format!("select cast({expression} as varchar) from FILE where id = {id}"),
        )
        .remove(0)
    };
    for (expression, value) in [
        ("price", "1234567890123456789012345678.0123456789"),
        ("qty", "-0.05"),
        ("big", "123456789012"),
        ("made", "2026-11-21 10:20:30.123456"),
        ("epoch_us(seen)", "1795249230500000"),
        ("day", "0001-02-03"),
        ("ok", "true"),
        ("x", "0.1"),
        ("hex(bytes)", "00FF"),
        ("u", "6f0c2a9e-0000-4000-8000-000000000001"),
        ("note", "a \"b\", ü"),
        ("json_extract(j, '$.a')", "1"),
    ] {
        assert_eq!(one(expression, 1), value, "{expression}");
    }
    assert_eq!(one("x", 2), "nan", "not a number has a form here");
    assert_eq!(
        one(
            "price is null and qty is null and made is null and seen is null and ok is null and note is null",
            2
        ),
        "true"
    );
    // A result without rows is a file without rows, with the same columns.
    export.0.sql("delete from typed");
    export.0.write(
        "syncs/export.yml",
        "model: customers\ndestination: out\nmode: all\nobject: all.parquet\nguards: {allow_empty: true}\n",
    );
    let (run, _) = export.run();
    assert_eq!(run.code, 0, "{run:#?}");
    assert_eq!(read(&export, "all.parquet", "select cast(count(*) as varchar) from FILE"), ["0"]);
    assert_eq!(
        read(&export, "all.parquet", "select column_type from (describe select price from FILE)"),
        ["DECIMAL(38,10)"]
    );
}

fn a_value_that_does_not_fit_destroys_a_file(engine: Engine) {
    let export = Export::new(engine, 3, "mode: diff\nobject: 'changes-{{ generation }}.parquet'");
    // Numbers of any number of digits are no number of 64 bits, and a decimal without digits is text.
    let (any, big) = match engine {
        Engine::DuckDb => ("decimal(30,0)", "hugeint"),
        _ => ("numeric", "numeric(30,0)"),
    };
    export.0.sql(&format!("create table odd (id bigint, x {any}, y {big}); insert into odd values (1, 1, 1), (2, 2, 99999999999999999999999)"));
    export.0.write("models/customers.yml", "source: wh\nprimary_key: id\nsql: select id, x, y from odd\n");
    let (run, files) = export.run();
    let rejected = export.0.rejected("export");
    match engine {
        Engine::DuckDb => {
            assert_eq!((run.code, run.successful(), run.failed()), (1, [1, 0, 0], [1, 0, 0]), "{run:#?}");
            assert!(rejected[0]["reason"].as_str().unwrap().contains("`y`"), "{rejected:#?}");
        }
        _ => {
            assert_eq!((run.code, run.successful()), (0, [2, 0, 0]), "{run:#?}");
            let types = read(&export, &files[0], "select column_type from (describe select x, y from FILE)");
            assert_eq!(types, ["VARCHAR", "DECIMAL(30,0)"]);
        }
    }
    assert_eq!(read(&export, &files[0], "select _operation || id from FILE where id = 1"), ["added1"]);
    export.0.sql("update odd set y = 5 where id = 2; delete from odd where id = 1");
    let (run, files) = export.run();
    assert_eq!(run.code, 0, "{run:#?}");
    let operations = read(&export, &files[0], "select _operation || id from FILE order by id");
    let second = if engine == Engine::DuckDb { "added2" } else { "changed2" };
    assert_eq!(operations, ["removed1", second]);
}

const SECRET: &str = "s3cret-of-the-store";

/// A project whose sync `export` writes into a bucket of its own. What is known of the store comes from the
/// environment, as its own tools take it.
fn in_bucket(engine: Engine, bucket: &str, rows: u32, sync: &str) -> Export {
    let double = StoreDouble::s3();
    double.make_bucket(bucket);
    let mut export = Export::new(engine, rows, sync);
    export.0.write(
        "destinations/out.yml",
        &format!("type: files\npath: s3://{bucket}/exports\nallow_private_networks: true\n"),
    );
    for (name, value) in [
        ("AWS_ENDPOINT_URL", double.url().as_str()),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
    ] {
        export.0.set_variable(name, value);
    }
    export
}

/// The objects of a bucket with what is in them.
fn objects(bucket: &str) -> BTreeMap<String, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = StoreDouble::s3().bucket(bucket);
        let mut found = BTreeMap::new();
        let listed: Vec<_> = object_store::ObjectStore::list(&store, None).try_collect().await.unwrap();
        for object in listed {
            let bytes = store.get(&object.location).await.unwrap().bytes().await.unwrap();
            found.insert(object.location.to_string(), String::from_utf8(bytes.to_vec()).unwrap());
        }
        found
    })
}

fn a_killed_upload_is_seen_half_done(engine: Engine) {
    let bucket = format!("killed-{engine:?}").to_lowercase();
    // So many rows that some parts are uploaded long before the end.
    let export = in_bucket(engine, &bucket, 0, "mode: diff\nobject: 'changes-{{ generation }}.jsonl'");
    let series = match engine {
        Engine::DuckDb => "range(1, 60001) as t(i)",
        _ => "generate_series(1, 60000) as t(i)",
    };
    export.0.sql(&format!("insert into customers select i, repeat('x', 1000) from {series}"));
    let running = export.0.spawn("export", &[]);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while uploads_under_way(&bucket) == 0 {
        assert!(std::time::Instant::now() < deadline, "no upload began");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    running.kill();
    assert!(objects(&bucket).is_empty(), "half a file is seen");
    let run = export.0.run("export");
    assert_eq!((run.code, run.successful()), (0, [60_000, 0, 0]), "{run:#?}");
    let found = objects(&bucket);
    assert_eq!(found.len(), 1);
    assert_eq!(found.values().next().unwrap().lines().count(), 60_000);
    let (run, before) = (export.0.run("export"), found.len());
    assert_eq!((run.code, run.planned(), objects(&bucket).len()), (0, [0, 0, 0], before), "{run:#?}");
}

/// Multipart uploads that were neither completed nor aborted.
fn uploads_under_way(bucket: &str) -> usize {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(StoreDouble::s3().address()).unwrap();
    let request = format!("GET /{bucket}?uploads HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.matches("<UploadId>").count()
}

fn credentials_of_a_store_leak(engine: Engine) {
    let bucket = format!("leaks-{engine:?}").to_lowercase();
    let export = in_bucket(engine, &bucket, 3, "mode: snapshot\nobject: all.csv");
    let said = |project: &Project, arguments: &[&str]| {
        let ended = project.levin(arguments);
        (ended.code, format!("{}{}", ended.stdout, ended.stderr))
    };
    let (code, text) = said(&export.0, &["run", "export", "-vvv"]);
    assert_eq!(code, 0, "{text}");
    assert!(!text.contains(SECRET), "{text}");
    assert_eq!(objects(&bucket)["exports/all.csv"].lines().next(), Some("id,name"));
    // A bucket that is not there, and keys in the project's own files.
    export.0.write(
        "destinations/out.yml",
        "type: files\npath: s3://not-there/x\nallow_private_networks: true\naws_access_key_id: key\naws_secret_access_key: ${AWS_SECRET_ACCESS_KEY}\n",
    );
    for arguments in
        [&["check"][..], &["run", "export", "--full-resync", "-vvv"], &["run", "export", "--json"]]
    {
        let (code, text) = said(&export.0, arguments);
        assert!(code != 0 && !text.contains(SECRET), "{text}");
    }
    let report: Value = serde_json::from_str(
        said(&export.0, &["run", "export", "--full-resync", "--json"]).1.lines().next().unwrap(),
    )
    .unwrap();
    assert_eq!(report["error"]["code"], "DESTINATION_UNUSABLE", "{report:#}");
    assert!(report["error"]["hint"].as_str().unwrap().contains("bucket"), "{report:#}");
}
