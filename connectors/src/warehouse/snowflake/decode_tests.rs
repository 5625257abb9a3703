//! Every form in which Snowflake sends a value.

use arrow::array::{Decimal128Array, Int8Array, Int16Array, Int32Array};
use arrow::datatypes::{Fields, TimestampMicrosecondType, TimestampNanosecondType};

use super::*;

fn column(kind: &str, scale: i64) -> ResultColumn {
    ResultColumn::of(&RowType {
        name: "C0".into(),
        kind: kind.into(),
        precision: Some(38),
        scale: Some(scale),
        length: None,
        collation: None,
    })
    .unwrap()
}

fn texts(array: &ArrayRef) -> Vec<Option<&str>> {
    array.as_string::<i32>().iter().collect()
}

fn timestamp(fields: Vec<(&str, ArrayRef)>) -> ArrayRef {
    let types: Fields = fields.iter().map(|(n, a)| Field::new(*n, a.data_type().clone(), true)).collect();
    Arc::new(StructArray::new(types, fields.into_iter().map(|(_, a)| a).collect(), None))
}

#[test]
fn numbers_come_as_narrow_as_their_chunk_allows() {
    let whole = column("fixed", 0);
    for array in [
        Arc::new(Int8Array::from(vec![Some(-5), None])) as ArrayRef,
        Arc::new(Int16Array::from(vec![Some(-5), None])),
        Arc::new(Int32Array::from(vec![Some(-5), None])),
        Arc::new(Int64Array::from(vec![Some(-5), None])),
        Arc::new(Decimal128Array::from(vec![Some(-5), None]).with_precision_and_scale(38, 0).unwrap()),
    ] {
        let read = whole.carried(&array).unwrap();
        assert_eq!(read.as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [Some(-5), None]);
    }
    let large = Decimal128Array::from(vec![Some(i128::from(i64::MAX) + 1), Some(7), None]);
    let read = whole.carried(&(Arc::new(large) as ArrayRef)).unwrap();
    assert_eq!(texts(&read), [Some("9223372036854775808"), Some("7"), None]);

    let money = column("fixed", 2);
    let small: ArrayRef = Arc::new(Int16Array::from(vec![Some(150), Some(-5), Some(0), None]));
    assert_eq!(texts(&money.carried(&small).unwrap()), [Some("1.50"), Some("-0.05"), Some("0.00"), None]);
    let wide: ArrayRef = Arc::new(Decimal128Array::from(vec![Some(10_i128.pow(37)), None]));
    let read = money.carried(&wide).unwrap();
    assert_eq!(texts(&read)[0].unwrap(), format!("1{}.00", "0".repeat(35)));
}

#[test]
fn times_of_day_lose_zeros_that_say_nothing() {
    let seconds: ArrayRef = Arc::new(Int32Array::from(vec![Some(45_296), Some(0), None]));
    assert_eq!(
        texts(&column("time", 0).carried(&seconds).unwrap()),
        [Some("12:34:56"), Some("00:00:00"), None]
    );
    let nanos: ArrayRef = Arc::new(Int64Array::from(vec![Some(45_296_500_000_000), Some(1)]));
    assert_eq!(
        texts(&column("time", 9).carried(&nanos).unwrap()),
        [Some("12:34:56.5"), Some("00:00:00.000000001")]
    );
}

#[test]
fn timestamps_come_as_numbers_and_as_structs() {
    let micros = |array: &ArrayRef| {
        array.as_primitive::<TimestampMicrosecondType>().iter().collect::<Vec<Option<i64>>>()
    };
    let plain: ArrayRef = Arc::new(Int64Array::from(vec![Some(-1_500), Some(1_795_165_200_123), None]));
    let read = column("timestamp_ntz", 3).carried(&plain).unwrap();
    assert_eq!(micros(&read), [Some(-1_500_000), Some(1_795_165_200_123_000), None]);
    assert!(matches!(read.data_type(), DataType::Timestamp(_, None)));

    let epoch = || Arc::new(Int64Array::from(vec![Some(-2), Some(253_402_300_799)])) as ArrayRef;
    let fraction = || Arc::new(Int32Array::from(vec![Some(500_000_000), Some(999_999_000)])) as ArrayRef;
    let offset = || Arc::new(Int32Array::from(vec![Some(1_440 + 120), Some(1_440)])) as ArrayRef;
    for (kind, fields) in [
        ("timestamp_ntz", vec![("epoch", epoch()), ("fraction", fraction())]),
        ("timestamp_ltz", vec![("epoch", epoch()), ("fraction", fraction())]),
        ("timestamp_tz", vec![("epoch", epoch()), ("fraction", fraction()), ("timezone", offset())]),
    ] {
        let read = column(kind, 9).carried(&timestamp(fields)).unwrap();
        assert_eq!(micros(&read), [Some(-1_500_000), Some(253_402_300_799_999_999)], "{kind}");
        assert_eq!(matches!(read.data_type(), DataType::Timestamp(_, Some(_))), kind != "timestamp_ntz");
    }
    // With few digits the epoch holds them all, and the offset stands beside it.
    let fields = vec![
        ("epoch", Arc::new(Int64Array::from(vec![1_500])) as ArrayRef),
        ("timezone", Arc::new(Int32Array::from(vec![0]))),
    ];
    assert_eq!(micros(&column("timestamp_tz", 3).carried(&timestamp(fields)).unwrap()), [Some(1_500_000)]);
}

#[test]
fn nanoseconds_are_kept_or_refused() {
    let column = column("timestamp_ntz", 9);
    let with = |epoch: i64, nanos: i32| {
        let fields = vec![
            ("epoch", Arc::new(Int64Array::from(vec![epoch])) as ArrayRef),
            ("fraction", Arc::new(Int32Array::from(vec![nanos])) as ArrayRef),
        ];
        column.carried(&timestamp(fields))
    };
    let read = with(1, 1).unwrap();
    assert_eq!(read.as_primitive::<TimestampNanosecondType>().value(0), 1_000_000_001);
    let refused = with(253_402_300_799, 1).unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Data);
    assert!(refused.message.contains("c0"), "{refused}");
}

#[test]
fn json_says_the_same_as_arrow() {
    let columns = [
        column("fixed", 0),
        column("fixed", 2),
        column("real", 0),
        column("boolean", 0),
        column("text", 0),
        column("binary", 0),
        column("date", 0),
        column("time", 9),
        column("timestamp_ntz", 9),
        column("timestamp_tz", 9),
    ];
    let row = |values: [&str; 10]| {
        values.iter().map(|v| (*v != "null").then(|| (*v).to_owned())).collect::<Vec<_>>()
    };
    let rows = [
        row([
            "7",
            "1.50",
            "inf",
            "1",
            "ä",
            "00ff",
            "-1",
            "45296.500000000",
            "-1.250000000",
            "1.500000000 1560",
        ]),
        row(["null"; 10]),
    ];
    let batch = parsed(&columns, &rows).unwrap();
    assert_eq!(batch.num_rows(), 2);
    assert!(batch.columns().iter().all(|c| c.is_null(1) && c.is_valid(0)));
    assert_eq!(batch.column(0).as_primitive::<Int64Type>().value(0), 7);
    assert_eq!(texts(batch.column(1))[0], Some("1.50"));
    assert!(batch.column(2).as_primitive::<arrow::datatypes::Float64Type>().value(0).is_infinite());
    assert!(batch.column(3).as_boolean().value(0));
    assert_eq!(batch.column(5).as_binary::<i32>().value(0), [0, 255]);
    assert_eq!(batch.column(6).as_primitive::<arrow::datatypes::Date32Type>().value(0), -1);
    assert_eq!(texts(batch.column(7))[0], Some("12:34:56.5"));
    assert_eq!(batch.column(8).as_primitive::<TimestampMicrosecondType>().value(0), -1_250_000);
    assert_eq!(batch.column(9).as_primitive::<TimestampMicrosecondType>().value(0), 1_500_000);
    assert!(
        parsed(&columns[..1], &[vec![Some("x".to_owned())]]).is_ok(),
        "digits are text where they must be"
    );
    assert!(parsed(&columns[3..4], &[vec![Some("maybe".to_owned())]]).is_err());
}

#[test]
fn a_type_without_a_form_is_named() {
    let vector = RowType {
        name: "V".into(),
        kind: "vector".into(),
        precision: None,
        scale: None,
        length: None,
        collation: None,
    };
    let refused = ResultColumn::of(&vector).unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Unsupported);
    assert!(refused.message.contains("\"V\"") && refused.message.contains("VECTOR"), "{refused}");
}
