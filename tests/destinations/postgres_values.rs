//! Every kind of value, into columns of its own type and of others.

use super::*;

/// One row of every logical type.
fn every_type() -> Vec<(Field, ArrayRef)> {
    use LogicalType as L;
    let micros = 1_763_631_000_123_456_i64;
    vec![
        ids(&[1]),
        column("a_boolean", BooleanArray::from(vec![true]), L::Boolean),
        column("an_integer", Int32Array::from(vec![-7]), L::Integer),
        column("a_huge", StringArray::from(vec!["340282366920938463463374607431768211455"]), L::Integer),
        column("a_decimal", StringArray::from(vec!["-12345.678900"]), L::Decimal),
        column("a_float", Float64Array::from(vec![0.1]), L::Float),
        column("a_text", StringArray::from(vec!["ünï 'q' \\ \t"]), L::Text),
        column("a_date", Date32Array::from(vec![-1]), L::Date),
        column("a_time", StringArray::from(vec!["09:30:00.5"]), L::Time),
        column("a_timestamp", TimestampMicrosecondArray::from(vec![micros]), L::Timestamp),
        column(
            "an_instant",
            TimestampNanosecondArray::from(vec![micros * 1000 + 500]).with_timezone("UTC"),
            L::TimestampTz,
        ),
        column("an_interval", StringArray::from(vec!["P1DT2H"]), L::Interval),
        column("a_uuid", StringArray::from(vec!["0f0e0d0c-0b0a-0908-0706-050403020100"]), L::Uuid),
        column("a_binary", BinaryArray::from(vec![&b"\x00\xff"[..]]), L::Binary),
        column("a_json", StringArray::from(vec!["{\"b\": [1, null], \"a\": \"x\"}"]), L::Json),
    ]
}

const AS_TEXT: &str = "select a_boolean::text, an_integer::text, a_huge::text, a_decimal::text, a_float::text, a_text::text, \
    a_date::text, a_time::text, a_timestamp::text, an_instant::text, an_interval::text, a_uuid::text, a_binary::text, \
    a_json::text from t";

#[tokio::test]
async fn a_table_is_created_and_holds_every_type_exactly() {
    let url = PostgresServer::start().fresh_database();
    let destination = destination(&url);
    let columns = every_type();
    let rows = batch(Operation::Added, &columns);
    let mut sync = spec(Mode::Upsert, "t", &rows);
    assert!(
        matches!(destination.open(&sync, &facts()).await, Err(DeliveryError::Unauthorized { hint, .. }) if hint.contains("create: true"))
    );
    sync.options = json!({"create": true});
    destination.check(Some(&sync)).await.unwrap();
    let delivery = destination.open(&sync, &facts()).await.unwrap();
    assert!(
        rows_of(&url, "select from pg_class where relname = 't'").await.is_empty(),
        "nothing before the first row"
    );
    // Two at once: only one of them creates.
    let (one, two) = tokio::join!(delivery.deliver(&rows), delivery.deliver(&rows));
    assert_eq!((words(&one.outcomes), words(&two.outcomes)), (vec!["accepted"], vec!["accepted"]));
    let found = rows_of(&format!("{url}?options=-c%20TimeZone%3DUTC"), AS_TEXT).await;
    assert_eq!(
        found,
        [
            "true|-7|340282366920938463463374607431768211455|-12345.678900|0.1|ünï 'q' \\ \t|1969-12-31|09:30:00.5|\
          2025-11-20 09:30:00.123456|2025-11-20 09:30:00.123457+00|1 day 02:00:00|0f0e0d0c-0b0a-0908-0706-050403020100|\
          \\x00ff|{\"a\": \"x\", \"b\": [1, null]}"
        ]
    );
    let types = rows_of(&url, "select format_type(atttypid, atttypmod) from pg_attribute where attrelid = 't'::regclass and attnum > 0 order by attnum").await;
    assert_eq!(
        types,
        [
            "bigint",
            "boolean",
            "bigint",
            "numeric",
            "numeric",
            "double precision",
            "text",
            "date",
            "time without time zone",
            "timestamp without time zone",
            "timestamp with time zone",
            "interval",
            "uuid",
            "bytea",
            "jsonb"
        ]
    );
    assert_eq!(
        rows_of(&url, "select pg_get_constraintdef(oid) from pg_constraint where conrelid = 't'::regclass")
            .await,
        ["PRIMARY KEY (id)"]
    );

    // Every type goes into text, and nulls stay nulls.
    let text_columns: Vec<String> = columns[1..].iter().map(|c| format!("{} text", c.0.name())).collect();
    execute(&url, &format!("drop table t; create table t (id int primary key, {})", text_columns.join(",")));
    deliver(destination.as_ref(), &sync, &rows).await;
    assert_eq!(
        rows_of(&url, AS_TEXT).await,
        [
            "true|-7|340282366920938463463374607431768211455|-12345.678900|0.1|ünï 'q' \\ \t|1969-12-31|09:30:00.5|\
          2025-11-20T09:30:00.123456|2025-11-20T09:30:00.123456500Z|P1DT2H|0f0e0d0c-0b0a-0908-0706-050403020100|\
          AP8=|{\"b\": [1, null], \"a\": \"x\"}"
        ]
    );
    let nulls: Vec<(Field, ArrayRef)> =
        columns[1..].iter().map(|c| (c.0.clone(), new_null_array(c.0.data_type(), 1))).collect();
    let nulls = batch(Operation::Changed, &[&[ids(&[1])], &nulls[..]].concat());
    for drop_first in [false, true] {
        if drop_first {
            execute(&url, "drop table t");
        }
        assert_eq!(words(&deliver(destination.as_ref(), &sync, &nulls).await.outcomes), ["accepted"]);
        assert_eq!(rows_of(&url, AS_TEXT).await, [["∅"; 14].join("|")]);
    }
}

#[tokio::test]
async fn values_fit_into_columns_of_other_types_or_their_row_is_refused() {
    let url = PostgresServer::start().fresh_database();
    execute(
        &url,
        "create type mood as enum ('sad', 'happy'); create domain short as varchar(3);
         create table t (id int primary key, small smallint, m mood, tags int[], fixed char(3), n numeric(4,1),
                         d short, bits bit(3), u uuid, js json, jb jsonb, r real, ip inet, at timestamptz, day date)",
    );
    let destination = destination(&url);
    use LogicalType as L;
    let good: Vec<(Field, ArrayRef)> = vec![
        column("small", StringArray::from(vec!["12"]), L::Text),
        texts("m", &[Some("happy")]),
        column("tags", StringArray::from(vec!["[3, 1, null]"]), L::Json),
        texts("fixed", &[Some("ab")]),
        column("n", StringArray::from(vec!["1.25"]), L::Decimal),
        texts("d", &[Some("abc")]),
        texts("bits", &[Some("101")]),
        texts("u", &[Some("{0F0E0D0C-0B0A-0908-0706-050403020100}")]),
        texts("js", &[Some("{\"b\":1, \"a\":2}")]),
        texts("jb", &[Some("[1]")]),
        column("r", Float64Array::from(vec![1.5]), L::Float),
        texts("ip", &[Some("10.0.0.1")]),
        column("at", TimestampMillisecondArray::from(vec![0]), L::Timestamp),
        column("day", TimestampSecondArray::from(vec![86_400]), L::Timestamp),
    ];
    let rows = batch(Operation::Added, &[&[ids(&[1])], &good[..]].concat());
    let settled = deliver(destination.as_ref(), &spec(Mode::Upsert, "t", &rows), &rows).await;
    assert_eq!(words(&settled.outcomes), ["accepted"]);
    assert_eq!(
        rows_of(&url, "set timezone to 'UTC'; select *, length(fixed) from t").await,
        [
            "1|12|happy|{3,1,NULL}|ab |1.3|abc|101|0f0e0d0c-0b0a-0908-0706-050403020100|{\"b\":1, \"a\":2}|[1]|1.5|10.0.0.1|1970-01-01 00:00:00+00|1970-01-02|2"
        ]
    );

    let bad: Vec<(Field, ArrayRef)> = vec![
        column("small", Int64Array::from(vec![40_000]), L::Integer),
        texts("small", &[Some("hidden words")]),
        texts("m", &[Some("angry")]),
        column("tags", StringArray::from(vec!["{\"no\": 1}"]), L::Json),
        texts("fixed", &[Some("abcd")]),
        column("n", StringArray::from(vec!["12345"]), L::Decimal),
        texts("d", &[Some("abcd")]),
        texts("bits", &[Some("1010")]),
        texts("u", &[Some("no uuid")]),
        texts("js", &[Some("{")]),
        texts("jb", &[Some("\"\\u0000\"")]),
        column("r", Float64Array::from(vec![1e300]), L::Float),
        texts("ip", &[Some("no address")]),
        column("at", TimestampSecondArray::from(vec![i64::MAX / 2]), L::Timestamp),
        texts("day", &[Some("2026-02-30")]),
    ];
    for value in bad {
        let name = value.0.name().clone();
        // A good row beside it, which must pass.
        let null = new_null_array(value.0.data_type(), 1);
        let both = arrow::compute::concat(&[&null, &value.1]).unwrap();
        let rows = batch(Operation::Added, &[ids(&[10, 11]), (value.0, both)]);
        let settled = deliver(destination.as_ref(), &spec(Mode::Upsert, "t", &rows), &rows).await;
        assert_eq!(words(&settled.outcomes), ["accepted", Rejection::REFUSED], "{name}");
        let reason = reason(&settled.outcomes[1]);
        assert!(!reason.contains("hidden") && !reason.contains("angry"), "{reason}");
    }
    assert_eq!(rows_of(&url, "select id from t order by id").await, ["1", "10"]);
}

#[tokio::test]
async fn what_the_server_cannot_store_is_rejected_alone_and_not_sent() {
    let url = PostgresServer::start().fresh_database();
    execute(&url, CUSTOMERS);
    let destination = destination(&url);
    let rows = customers(
        Operation::Added,
        &[(1, Some("a")), (2, Some("b\0")), (3_000_000_000, None), (4, Some("d"))],
    );
    let settled = deliver(destination.as_ref(), &spec(Mode::Upsert, "customers", &rows), &rows).await;
    assert_eq!(
        words(&settled.outcomes),
        ["accepted", Rejection::UNREPRESENTABLE_VALUE, Rejection::REFUSED, "accepted"]
    );
    assert!(reason(&settled.outcomes[1]).contains("\"name\""));
    assert_eq!(settled.calls, 1, "nothing is halved for them");
    let rows = customers(Operation::Added, &[(2, Some("\0"))]);
    let settled = deliver(destination.as_ref(), &spec(Mode::Upsert, "customers", &rows), &rows).await;
    assert_eq!((words(&settled.outcomes), settled.calls), (vec![Rejection::UNREPRESENTABLE_VALUE], 0));
    assert_eq!(rows_of(&url, "select id from customers order by id").await, ["1", "4"]);
}
