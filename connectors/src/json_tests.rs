//! Every value in the form that the wire promises.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray,
    TimestampSecondArray,
};
use arrow::datatypes::Field;

use super::*;
use crate::change::with_logical_type;

fn field(name: &str, array: &ArrayRef, logical: LogicalType) -> Field {
    with_logical_type(Field::new(name, array.data_type().clone(), true), logical)
}

/// One column `v`, each row encoded alone.
fn rows(array: ArrayRef, logical: LogicalType, options: JsonOptions) -> Vec<Result<String, Rejection>> {
    let schema = Arc::new(Schema::new(vec![field("v", &array, logical)]));
    let batch = RecordBatch::try_new(schema.clone(), vec![array]).unwrap();
    let encoder = RowEncoder::new(&schema, options).unwrap();
    let bound = encoder.bind(&batch).unwrap();
    (0..batch.num_rows())
        .map(|row| {
            let mut out = b"before".to_vec();
            let result = encoder.encode_row(&bound, row, &mut out);
            if result.is_err() {
                assert_eq!(out, b"before", "a rejected row leaves nothing behind");
            } else {
                serde_json::from_slice::<serde_json::Value>(&out[6..]).expect("every row is valid JSON");
            }
            result.map(|()| String::from_utf8(out[6..].to_vec()).unwrap())
        })
        .collect()
}

fn values(array: ArrayRef, logical: LogicalType) -> Vec<String> {
    rows(array, logical, JsonOptions::default())
        .into_iter()
        .map(|r| match r {
            Ok(text) => text.strip_prefix("{\"v\":").unwrap().strip_suffix('}').unwrap().to_owned(),
            Err(rejection) => {
                assert_eq!(rejection.code, Rejection::UNREPRESENTABLE_VALUE);
                assert!(rejection.reason.contains("\"v\""), "{}", rejection.reason);
                assert!(!rejection.in_doubt);
                "rejected".to_owned()
            }
        })
        .collect()
}

fn text(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

#[test]
fn text_that_is_not_utf8_is_rejected_or_shown_and_never_replaced() {
    let bytes =
        |values: &[&[u8]]| -> ArrayRef { Arc::new(BinaryArray::from_iter_values(values.iter().copied())) };
    let (valid, broken): (&[u8], &[u8]) = ("ä".as_bytes(), b"a\xffb\xe2\x82");
    assert_eq!(values(bytes(&[valid, broken]), LogicalType::Text), ["\"ä\"", "rejected"]);
    assert_eq!(
        values(bytes(&[b"{\"a\": 1}", b"\"\xff\"", b"x"]), LogicalType::Json),
        ["{\"a\": 1}", "rejected", "rejected"]
    );
    let seen = rows(bytes(&[valid, broken]), LogicalType::Text, JsonOptions::for_people());
    assert_eq!(seen, [Ok(r#"{"v":"ä"}"#.to_owned()), Ok(r#"{"v":"a\\xffb\\xe2\\x82"}"#.to_owned())]);
    // Of other types bytes are no form.
    let schema = Schema::new(vec![field("v", &bytes(&[]), LogicalType::Decimal)]);
    let batch = RecordBatch::try_new(Arc::new(schema.clone()), vec![bytes(&[valid])]).unwrap();
    assert!(RowEncoder::new(&schema, JsonOptions::default()).unwrap().bind(&batch).is_err());
}

#[test]
fn integers_keep_all_digits() {
    use LogicalType::Integer;
    assert_eq!(values(Arc::new(Int16Array::from(vec![i16::MIN, 7])), Integer), ["-32768", "7"]);
    assert_eq!(values(Arc::new(Int32Array::from(vec![i32::MIN])), Integer), ["-2147483648"]);
    assert_eq!(
        values(Arc::new(Int64Array::from(vec![Some(i64::MIN), Some(i64::MAX), None])), Integer),
        ["-9223372036854775808", "9223372036854775807", "null"]
    );
    assert_eq!(values(Arc::new(UInt64Array::from(vec![u64::MAX])), Integer), ["18446744073709551615"]);
    assert_eq!(
        values(text(&["340282366920938463463374607431768211455", "1.5", "1e3", "", "007", "-"]), Integer),
        [
            "340282366920938463463374607431768211455",
            "rejected",
            "rejected",
            "rejected",
            "rejected",
            "rejected"
        ]
    );
}

#[test]
fn decimals_are_json_numbers_or_rejected() {
    let given = [
        "12345678901234567890.123456789",
        "-0.10",
        "0",
        "1E+3",
        "2e-7",
        ".5",
        "1.",
        "+1",
        "01",
        "NaN",
        "1 ",
        "1e",
        "-Infinity",
    ];
    let expected = [
        "12345678901234567890.123456789",
        "-0.10",
        "0",
        "1E+3",
        "2e-7",
        "rejected",
        "rejected",
        "rejected",
        "rejected",
        "rejected",
        "rejected",
        "rejected",
        "rejected",
    ];
    assert_eq!(values(text(&given), LogicalType::Decimal), expected);
}

#[test]
fn floats_are_shortest_and_negative_zero_is_zero() {
    let floats = vec![0.1, -0.0, 1.0, 1e300, 5e-324, f64::NAN, f64::INFINITY, -2.5];
    let written = values(Arc::new(Float64Array::from(floats.clone())), LogicalType::Float);
    assert_eq!(written[0], "0.1");
    assert_eq!(written[1], "0.0");
    assert_eq!(written[2], "1.0");
    assert_eq!(&written[5..], ["rejected", "rejected", "-2.5"]);
    for i in [0, 2, 3, 4, 7] {
        assert_eq!(written[i].parse::<f64>().unwrap().to_bits(), floats[i].to_bits());
    }
    assert_eq!(
        values(Arc::new(Float32Array::from(vec![0.1_f32, 16_777_216.0, f32::NAN])), LogicalType::Float),
        ["0.1", "16777216.0", "rejected"]
    );
}

#[test]
fn options_decide_about_numbers_non_finite_values_and_nulls() {
    let float: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN, f64::NEG_INFINITY, 1.5]));
    let null = JsonOptions { non_finite: NonFinite::Null, ..JsonOptions::default() };
    let all = |array: &ArrayRef, logical, options| -> Vec<String> {
        rows(array.clone(), logical, options).into_iter().map(Result::unwrap).collect()
    };
    assert_eq!(all(&float, LogicalType::Float, null), [r#"{"v":null}"#, r#"{"v":null}"#, r#"{"v":1.5}"#]);
    assert_eq!(
        all(&float, LogicalType::Float, JsonOptions { nulls: Nulls::Omit, ..null }),
        ["{}", "{}", r#"{"v":1.5}"#]
    );
    let string =
        JsonOptions { non_finite: NonFinite::String, numbers: Numbers::String, ..JsonOptions::default() };
    assert_eq!(
        all(&float, LogicalType::Float, string),
        [r#"{"v":"NaN"}"#, r#"{"v":"-Infinity"}"#, r#"{"v":1.5}"#]
    );
    assert_eq!(
        all(&text(&["0.10", "NaN", "Infinity"]), LogicalType::Decimal, string),
        [r#"{"v":"0.10"}"#, r#"{"v":"NaN"}"#, r#"{"v":"Infinity"}"#]
    );
    let ints: ArrayRef = Arc::new(Int64Array::from(vec![9_007_199_254_740_993]));
    assert_eq!(all(&ints, LogicalType::Integer, string), [r#"{"v":"9007199254740993"}"#]);
}

#[test]
fn dates_and_timestamps_are_rfc_3339() {
    assert_eq!(
        values(
            Arc::new(Date32Array::from(vec![0, 20_777, -719_528, 2_932_896, 2_932_897, i32::MAX, -719_529])),
            LogicalType::Date
        ),
        [
            "\"1970-01-01\"",
            "\"2026-11-20\"",
            "\"0000-01-01\"",
            "\"9999-12-31\"",
            "rejected",
            "rejected",
            "rejected"
        ]
    );
    let plain = LogicalType::Timestamp;
    let zoned = LogicalType::TimestampTz;
    assert_eq!(
        values(Arc::new(TimestampSecondArray::from(vec![-1, i64::MAX])), plain),
        ["\"1969-12-31T23:59:59\"", "rejected"]
    );
    assert_eq!(
        values(Arc::new(TimestampMillisecondArray::from(vec![1, 1_500, 2_000]).with_timezone("UTC")), zoned),
        ["\"1970-01-01T00:00:00.001Z\"", "\"1970-01-01T00:00:01.500Z\"", "\"1970-01-01T00:00:02Z\""]
    );
    assert_eq!(
        values(
            Arc::new(
                TimestampMicrosecondArray::from(vec![-1, 1_000, i64::MAX, i64::MIN]).with_timezone("UTC")
            ),
            zoned
        ),
        ["\"1969-12-31T23:59:59.999999Z\"", "\"1970-01-01T00:00:00.001Z\"", "rejected", "rejected"]
    );
    assert_eq!(
        values(Arc::new(TimestampNanosecondArray::from(vec![1, i64::MIN])), plain),
        ["\"1970-01-01T00:00:00.000000001\"", "\"1677-09-21T00:12:43.145224192\""]
    );
}

#[test]
fn text_json_and_binary() {
    assert_eq!(
        values(text(&["", "a\"b\\c\nd\u{1}", "zoë 🦀"]), LogicalType::Text),
        [r#""""#, r#""a\"b\\c\nd\u0001""#, "\"zoë 🦀\""]
    );
    let given = [
        " {\"a\": 12345678901234567890123.50, \"b\":\n[1, null]} ",
        "\"x\"",
        "{\"a\":1}{}",
        "nope",
        "",
        "NaN",
    ];
    assert_eq!(
        values(text(&given), LogicalType::Json),
        [
            "{\"a\": 12345678901234567890123.50, \"b\": [1, null]}",
            "\"x\"",
            "rejected",
            "rejected",
            "rejected",
            "rejected"
        ]
    );
    assert_eq!(
        values(Arc::new(BinaryArray::from_vec(vec![b"", b"\0\xff~", b"ab"])), LogicalType::Binary),
        [r#""""#, r#""AP9+""#, r#""YWI=""#]
    );
    assert_eq!(
        values(Arc::new(BooleanArray::from(vec![Some(true), Some(false), None])), LogicalType::Boolean),
        ["true", "false", "null"]
    );
    assert_eq!(values(text(&["P1DT2H"]), LogicalType::Interval), ["\"P1DT2H\""]);
}

#[test]
fn names_are_plain_and_bare_text_has_no_quotes() {
    let int: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
    let date: ArrayRef = Arc::new(Date32Array::from(vec![0, 1]));
    let schema = Arc::new(Schema::new(vec![
        field("a.b", &int, LogicalType::Integer),
        field("say \"hi\"", &date, LogicalType::Date),
    ]));
    let batch = RecordBatch::try_new(schema.clone(), vec![int, date]).unwrap();
    let encoder = RowEncoder::new(&schema, JsonOptions { nulls: Nulls::Omit, ..Default::default() }).unwrap();
    let bound = encoder.bind(&batch).unwrap();
    let mut out = Vec::new();
    encoder.encode_row(&bound, 0, &mut out).unwrap();
    encoder.encode_row(&bound, 1, &mut out).unwrap();
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "{\"a.b\":1,\"say \\\"hi\\\"\":\"1970-01-01\"}{\"say \\\"hi\\\"\":\"1970-01-02\"}"
    );

    let mut out = Vec::new();
    assert!(encoder.encode_text(&bound, 1, 1, &mut out).unwrap());
    assert!(!encoder.encode_text(&bound, 0, 1, &mut out).unwrap());
    assert_eq!(out, b"1970-01-02");
    encoder.encode_value(&bound, 0, 1, &mut out).unwrap();
    assert_eq!(out, b"1970-01-02null");
}

#[test]
fn sliced_batches_and_foreign_schemas() {
    let times: ArrayRef = Arc::new(TimestampSecondArray::from(vec![Some(0), None, Some(60)]));
    let schema = Arc::new(Schema::new(vec![field("t", &times, LogicalType::Timestamp)]));
    let encoder = RowEncoder::new(&schema, JsonOptions::default()).unwrap();
    let batch = RecordBatch::try_new(schema, vec![times]).unwrap().slice(1, 2);
    let bound = encoder.bind(&batch).unwrap();
    let mut out = Vec::new();
    encoder.encode_row(&bound, 0, &mut out).unwrap();
    encoder.encode_row(&bound, 1, &mut out).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), r#"{"t":null}{"t":"1970-01-01T00:01:00"}"#);

    // What a sync is told of its fields is their logical type; rows come in any form that carries it.
    let wide =
        Schema::new(vec![with_logical_type(Field::new("t", DataType::Int64, true), LogicalType::Integer)]);
    let encoder_of_wide = RowEncoder::new(&wide, JsonOptions::default()).unwrap();
    let narrow: ArrayRef = Arc::new(Int32Array::from(vec![7]));
    let narrow = RecordBatch::try_from_iter([("t", narrow)]).unwrap();
    let mut out = Vec::new();
    encoder_of_wide.encode_row(&encoder_of_wide.bind(&narrow).unwrap(), 0, &mut out).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), r#"{"t":7}"#);

    let other: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let foreign = RecordBatch::try_from_iter([("t", other)]).unwrap();
    assert!(encoder.bind(&foreign).unwrap_err().to_string().contains("\"t\""));
    let lists = Schema::new(vec![Field::new("l", DataType::Null, true)]);
    assert_eq!(RowEncoder::new(&lists, JsonOptions::default()).unwrap_err().name, "l");
}
