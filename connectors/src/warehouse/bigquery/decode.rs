//! From the rows of a page, as BigQuery writes them in JSON, to Arrow, without a stop in between.
//!
//! A row is `{"f": [{"v": "1"}, {"v": null}]}`: every value is a text or null. Each goes from the page's bytes
//! straight into its column's builder.

use std::fmt::{self, Formatter};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Float64Builder, Int64Builder, RecordBatch,
    RecordBatchOptions, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Field as ArrowField, Schema, SchemaRef, TimeUnit};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{Datelike, NaiveDate, NaiveDateTime};
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::schema::Field;
use crate::warehouse::{ErrorKind, WarehouseError};

/// A batch is handed on once it holds this many rows …
const BATCH_ROWS: usize = 8_192;
/// … or this many bytes of values.
const BATCH_BYTES: usize = 4 << 20;

/// The number of 1970-01-01, when the first of January of the year 1 is day one.
const EPOCH_DAY: i32 = 719_163;

/// Turns pages of rows into batches.
pub(super) struct Decoder {
    schema: SchemaRef,
    columns: Vec<Builder>,
    /// The bytes that a value is written as before it is what it stands for.
    scratch: Vec<u8>,
    rows: usize,
    bytes: usize,
}

enum Builder {
    Boolean(BooleanBuilder),
    Int64(Int64Builder),
    Float64(Float64Builder),
    Text(StringBuilder),
    /// Digits, without zeros that say nothing.
    Decimal(StringBuilder),
    Time(StringBuilder),
    Interval(StringBuilder),
    Binary(BinaryBuilder),
    Date(Date32Builder),
    /// Without a zone, written as a date and a time.
    Datetime(TimestampMicrosecondBuilder),
    /// An instant, written in microseconds.
    Timestamp(TimestampMicrosecondBuilder),
}

impl Decoder {
    /// Prepares for rows of these columns; a type without an Arrow form is refused by name.
    pub(super) fn new(columns: &[Field]) -> Result<Self, WarehouseError> {
        let mut fields = Vec::with_capacity(columns.len());
        let mut builders = Vec::with_capacity(columns.len());
        for column in columns {
            let (data_type, builder) = Builder::of(column)?;
            fields.push(ArrowField::new(&column.name, data_type, true));
            builders.push(builder);
        }
        let schema = Arc::new(Schema::new(fields));
        Ok(Self { schema, columns: builders, scratch: Vec::new(), rows: 0, bytes: 0 })
    }

    /// Every row of a page, given as the text of its JSON list.
    pub(super) fn page(&mut self, rows: &str) -> Result<Vec<RecordBatch>, WarehouseError> {
        let mut full = Vec::new();
        let mut json = serde_json::Deserializer::from_str(rows);
        RowsSeed { decoder: self, full: &mut full }
            .deserialize(&mut json)
            .and_then(|()| json.end())
            .map_err(|e| {
                WarehouseError::new(ErrorKind::Other, format!("BigQuery's rows cannot be read: {e}"))
            })?;
        if self.rows > 0 {
            full.push(self.batch()?);
        }
        Ok(full)
    }

    fn batch(&mut self) -> Result<RecordBatch, WarehouseError> {
        let arrays: Vec<ArrayRef> = self.columns.iter_mut().map(Builder::finish).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        self.rows = 0;
        self.bytes = 0;
        RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)
            .map_err(|e| WarehouseError::new(ErrorKind::Other, e.to_string()))
    }
}

impl Builder {
    fn of(column: &Field) -> Result<(DataType, Self), WarehouseError> {
        let microseconds =
            |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
        let unsupported = || {
            let message = format!(
                "column {:?} is of type {}, which has no Arrow form; wrap it in to_json_string()",
                column.name,
                column.engine_type()
            );
            WarehouseError::new(ErrorKind::Unsupported, message)
        };
        if column.is_list() {
            return Err(unsupported());
        }
        Ok(match column.kind.as_str() {
            "BOOLEAN" | "BOOL" => (DataType::Boolean, Self::Boolean(BooleanBuilder::new())),
            "INTEGER" | "INT64" => (DataType::Int64, Self::Int64(Int64Builder::new())),
            "FLOAT" | "FLOAT64" => (DataType::Float64, Self::Float64(Float64Builder::new())),
            "STRING" | "JSON" | "GEOGRAPHY" | "RANGE" => (DataType::Utf8, Self::Text(StringBuilder::new())),
            "NUMERIC" | "BIGNUMERIC" => (DataType::Utf8, Self::Decimal(StringBuilder::new())),
            "TIME" => (DataType::Utf8, Self::Time(StringBuilder::new())),
            "INTERVAL" => (DataType::Utf8, Self::Interval(StringBuilder::new())),
            "BYTES" => (DataType::Binary, Self::Binary(BinaryBuilder::new())),
            "DATE" => (DataType::Date32, Self::Date(Date32Builder::new())),
            "DATETIME" => (microseconds(None), Self::Datetime(TimestampMicrosecondBuilder::new())),
            "TIMESTAMP" => (
                microseconds(Some("UTC")),
                Self::Timestamp(TimestampMicrosecondBuilder::new().with_timezone("UTC")),
            ),
            _ => return Err(unsupported()),
        })
    }

    fn append(&mut self, value: &str, scratch: &mut Vec<u8>) -> Result<(), String> {
        let wrong = |what: &str| format!("{value:?} is no {what}");
        match self {
            Self::Text(b) => b.append_value(value),
            Self::Decimal(b) | Self::Time(b) => b.append_value(without_zeros(value)),
            Self::Interval(b) => b.append_value(interval(value).ok_or_else(|| wrong("interval"))?),
            Self::Int64(b) => b.append_value(value.parse().map_err(|_| wrong("whole number"))?),
            Self::Float64(b) => b.append_value(value.parse().map_err(|_| wrong("number"))?),
            Self::Boolean(b) => b.append_value(match value {
                "true" | "TRUE" | "True" => true,
                "false" | "FALSE" | "False" => false,
                _ => return Err(wrong("truth value")),
            }),
            Self::Binary(b) => {
                scratch.clear();
                BASE64.decode_vec(value, scratch).map_err(|_| wrong("base64"))?;
                b.append_value(&scratch);
            }
            Self::Date(b) => b.append_value(days(value).ok_or_else(|| wrong("date"))?),
            Self::Datetime(b) => b.append_value(datetime(value).ok_or_else(|| wrong("datetime"))?),
            Self::Timestamp(b) => {
                b.append_value(value.parse().map_err(|_| wrong("instant in microseconds"))?);
            }
        }
        Ok(())
    }

    fn append_null(&mut self) {
        match self {
            Self::Boolean(b) => b.append_null(),
            Self::Int64(b) => b.append_null(),
            Self::Float64(b) => b.append_null(),
            Self::Text(b) | Self::Decimal(b) | Self::Time(b) | Self::Interval(b) => b.append_null(),
            Self::Binary(b) => b.append_null(),
            Self::Date(b) => b.append_null(),
            Self::Datetime(b) | Self::Timestamp(b) => b.append_null(),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Boolean(b) => Arc::new(b.finish()),
            Self::Int64(b) => Arc::new(b.finish()),
            Self::Float64(b) => Arc::new(b.finish()),
            Self::Text(b) | Self::Decimal(b) | Self::Time(b) | Self::Interval(b) => Arc::new(b.finish()),
            Self::Binary(b) => Arc::new(b.finish()),
            Self::Date(b) => Arc::new(b.finish()),
            Self::Datetime(b) | Self::Timestamp(b) => Arc::new(b.finish()),
        }
    }
}

/// `1.500` as `1.5`, `12:00:00.500000` as `12:00:00.5`.
fn without_zeros(value: &str) -> &str {
    if value.contains('.') { value.trim_end_matches('0').trim_end_matches('.') } else { value }
}

/// `years-months days hours:minutes:seconds`, the sign of each of the three before it, in ISO 8601.
fn interval(value: &str) -> Option<String> {
    fn signed(text: &str) -> (&str, &str) {
        text.strip_prefix('-').map_or(("", text), |rest| ("-", rest))
    }
    let mut words = value.split(' ');
    let (months, days, time) = (words.next()?, words.next()?, words.next()?);
    let mut iso = String::from("P");
    let part = |iso: &mut String, sign: &str, number: &str, unit: char| {
        let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let shown = without_zeros(number).trim_start_matches('0');
        match shown {
            "" => {}
            fraction if fraction.starts_with('.') => iso.push_str(&format!("{sign}0{fraction}{unit}")),
            number => iso.push_str(&format!("{sign}{number}{unit}")),
        }
        digits.then_some(())
    };
    let (sign, rest) = signed(months);
    let (years, months) = rest.split_once('-')?;
    part(&mut iso, sign, years, 'Y')?;
    part(&mut iso, sign, months, 'M')?;
    let (sign, days) = signed(days);
    part(&mut iso, sign, days, 'D')?;
    let (sign, rest) = signed(time);
    let (hours, rest) = rest.split_once(':')?;
    let (minutes, seconds) = rest.split_once(':')?;
    let before = iso.len();
    iso.push('T');
    part(&mut iso, sign, hours, 'H')?;
    part(&mut iso, sign, minutes, 'M')?;
    part(&mut iso, sign, seconds, 'S')?;
    if iso.len() == before + 1 {
        iso.pop();
    }
    if iso == "P" {
        iso.push_str("T0S");
    }
    words.next().is_none().then_some(iso)
}

/// `2026-11-20`, years 1 to 9999.
fn days(value: &str) -> Option<i32> {
    Some(date(value.as_bytes())?.num_days_from_ce() - EPOCH_DAY)
}

fn date(text: &[u8]) -> Option<NaiveDate> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text else { return None };
    let year = number(&[*y1, *y2, *y3, *y4])?;
    NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, number(&[*m1, *m2])?, number(&[*d1, *d2])?)
}

fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |n, d| d.is_ascii_digit().then(|| n * 10 + u32::from(d - b'0')))
}

/// `2026-11-20T12:00:00.123456` in microseconds.
fn datetime(value: &str) -> Option<i64> {
    let bytes = value.as_bytes();
    let (day, time) = (bytes.get(..10)?, bytes.get(11..)?);
    let [h1, h2, b':', m1, m2, b':', s1, s2, fraction @ ..] = time else { return None };
    let micros = match fraction {
        [] => 0,
        [b'.', digits @ ..] if (1..=6).contains(&digits.len()) => {
            number(digits)? * 10_u32.pow(6 - u32::try_from(digits.len()).ok()?)
        }
        _ => return None,
    };
    let at: NaiveDateTime = date(day)?.and_hms_micro_opt(
        number(&[*h1, *h2])?,
        number(&[*m1, *m2])?,
        number(&[*s1, *s2])?,
        micros,
    )?;
    Some(at.and_utc().timestamp_micros())
}

/// A list of rows.
struct RowsSeed<'a> {
    decoder: &'a mut Decoder,
    full: &'a mut Vec<RecordBatch>,
}

impl<'de> DeserializeSeed<'de> for RowsSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for RowsSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("a list of rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<(), A::Error> {
        while rows.next_element_seed(RowSeed(self.decoder))?.is_some() {
            self.decoder.rows += 1;
            if self.decoder.rows >= BATCH_ROWS || self.decoder.bytes >= BATCH_BYTES {
                self.full.push(self.decoder.batch().map_err(A::Error::custom)?);
            }
        }
        Ok(())
    }
}

/// The one letter that a part of a row is called by.
enum Key {
    Fields,
    Value,
    Other,
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Letter;
        impl Visitor<'_> for Letter {
            type Value = Key;

            fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_str<E>(self, key: &str) -> Result<Key, E> {
                Ok(match key {
                    "f" => Key::Fields,
                    "v" => Key::Value,
                    _ => Key::Other,
                })
            }
        }
        deserializer.deserialize_identifier(Letter)
    }
}

/// `{"f": […]}`; in a list, `{"v": {"f": […]}}`.
struct RowSeed<'a>(&'a mut Decoder);

impl<'de> DeserializeSeed<'de> for RowSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RowSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("a row")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut row: A) -> Result<(), A::Error> {
        let mut seen = false;
        while let Some(key) = row.next_key()? {
            match key {
                Key::Fields => row.next_value_seed(CellsSeed(&mut *self.0))?,
                Key::Value => row.next_value_seed(RowSeed(&mut *self.0))?,
                Key::Other => {
                    row.next_value::<IgnoredAny>()?;
                    continue;
                }
            }
            seen = true;
        }
        if seen { Ok(()) } else { Err(A::Error::custom("a row without values")) }
    }
}

struct CellsSeed<'a>(&'a mut Decoder);

impl<'de> DeserializeSeed<'de> for CellsSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for CellsSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("the values of a row")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut cells: A) -> Result<(), A::Error> {
        let Decoder { schema, columns, scratch, bytes, .. } = self.0;
        for (i, builder) in columns.iter_mut().enumerate() {
            let cell = CellSeed { builder, scratch, bytes, name: schema.field(i).name() };
            if cells.next_element_seed(cell)?.is_none() {
                return Err(A::Error::custom("a row has fewer values than columns"));
            }
        }
        match cells.next_element::<IgnoredAny>()? {
            None => Ok(()),
            Some(_) => Err(A::Error::custom("a row has more values than columns")),
        }
    }
}

/// `{"v": …}` as a map, then its value.
struct CellSeed<'a> {
    builder: &'a mut Builder,
    scratch: &'a mut Vec<u8>,
    bytes: &'a mut usize,
    name: &'a str,
}

impl<'de> DeserializeSeed<'de> for CellSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for CellSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut cell: A) -> Result<(), A::Error> {
        let mut value = Some(ValueSeed(self));
        while let Some(key) = cell.next_key()? {
            match (key, value.take()) {
                (Key::Value, Some(seed)) => cell.next_value_seed(seed)?,
                (_, unused) => {
                    value = unused;
                    cell.next_value::<IgnoredAny>()?;
                }
            }
        }
        if let Some(ValueSeed(cell)) = value {
            cell.builder.append_null();
        }
        Ok(())
    }
}

struct ValueSeed<'a>(CellSeed<'a>);

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for ValueSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "a text or null in column {:?}", self.0.name)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        let CellSeed { builder, scratch, bytes, name } = self.0;
        *bytes += text.len();
        builder.append(text, scratch).map_err(|e| E::custom(format!("column {name:?}: {e}")))
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.builder.append_null();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{Date32Type, Float64Type, Int64Type, TimestampMicrosecondType};

    use super::*;

    fn decoder(columns: &[(&str, &str)]) -> Decoder {
        let fields: Vec<Field> = columns.iter().map(|(name, kind)| Field::simple(name, kind)).collect();
        Decoder::new(&fields).unwrap()
    }

    #[test]
    fn every_type_has_its_form() {
        let mut decoder = decoder(&[
            ("b", "BOOLEAN"),
            ("i", "INTEGER"),
            ("f", "FLOAT"),
            ("s", "STRING"),
            ("n", "BIGNUMERIC"),
            ("y", "BYTES"),
            ("d", "DATE"),
            ("dt", "DATETIME"),
            ("ts", "TIMESTAMP"),
        ]);
        let rows = r#"[
            {"f":[{"v":"true"},{"v":"-9223372036854775808"},{"v":"NaN"},{"v":"it's \"ä\"\n"},{"v":"1.50"},{"v":"AP8="},
                  {"v":"0001-01-01"},{"v":"1969-12-31T23:59:59.5"},{"v":"-1"}]},
            {"f":[{"v":null},{"v":null},{"v":null},{"v":null},{"v":null},{"v":null},{"v":null},{"v":null},{"v":null}]},
            {"f":[{"v":"false"},{"v":"7"},{"v":"-inf"},{"v":""},{"v":"0"},{"v":""},
                  {"v":"9999-12-31"},{"v":"9999-12-31T23:59:59.999999"},{"v":"253402300799999999"}]}
        ]"#;
        let batch = decoder.page(rows).unwrap().remove(0);
        assert_eq!(batch.num_rows(), 3);
        assert!(batch.column(0).as_boolean().value(0) && !batch.column(0).as_boolean().value(2));
        assert_eq!(batch.column(1).as_primitive::<Int64Type>().value(0), i64::MIN);
        assert!(batch.column(2).as_primitive::<Float64Type>().value(0).is_nan());
        let least = batch.column(2).as_primitive::<Float64Type>().value(2);
        assert!(least.is_infinite() && least.is_sign_negative());
        assert_eq!(batch.column(3).as_string::<i32>().value(0), "it's \"ä\"\n");
        assert_eq!(batch.column(4).as_string::<i32>().value(0), "1.5");
        assert_eq!(batch.column(5).as_binary::<i32>().value(0), b"\x00\xff");
        let days = batch.column(6).as_primitive::<Date32Type>();
        assert_eq!((days.value(0), days.value(2)), (-719_162, 2_932_896));
        let at = batch.column(7).as_primitive::<TimestampMicrosecondType>();
        assert_eq!((at.value(0), at.value(2)), (-500_000, 253_402_300_799_999_999));
        let instants = batch.column(8).as_primitive::<TimestampMicrosecondType>();
        assert_eq!((instants.value(0), instants.value(2)), (-1, 253_402_300_799_999_999));
        assert!((0..9).all(|i| batch.column(i).is_null(1)));
        assert!(decoder.page("[]").unwrap().is_empty(), "the decoder holds nothing back");
    }

    #[test]
    fn times_decimals_and_intervals_have_one_form() {
        for (value, expected) in [
            ("0-1 0 0:0:0", "P1M"),
            ("1-2 3 4:5:6.7", "P1Y2M3DT4H5M6.7S"),
            ("0-0 1 0:0:0", "P1D"),
            ("0-0 0 24:0:0", "PT24H"),
            ("-0-11 2 -3:0:0", "P-11M2DT-3H"),
            ("0-0 -1 0:0:0", "P-1D"),
            ("0-0 0 -0:0:0.500000", "PT-0.5S"),
            ("0-0 0 -0:1:40.000001", "PT-1M-40.000001S"),
            ("0-0 0 0:0:10", "PT10S"),
            ("0-0 0 0:0:0", "PT0S"),
            ("10000-0 3660000 87840000:0:0", "P10000Y3660000DT87840000H"),
        ] {
            assert_eq!(interval(value).as_deref(), Some(expected), "{value}");
        }
        for wrong in ["", "1 month", "0-0 1", "0-0 x 0:0:0", "0-0 1 0:0", "0-0 1 0:0:0 x", "0-0 1 0:0:"] {
            assert_eq!(interval(wrong), None, "{wrong}");
        }
        for (value, expected) in [
            ("1.500", "1.5"),
            ("10", "10"),
            ("0.0", "0"),
            ("100.0", "100"),
            ("12:00:00.500000", "12:00:00.5"),
        ] {
            assert_eq!(without_zeros(value), expected);
        }
    }

    #[test]
    fn batches_are_cut_by_rows_and_by_bytes() {
        let row = r#"{"f":[{"v":"1"},{"v":"x"}]}"#;
        let rows = format!("[{}]", vec![row; BATCH_ROWS + 5].join(","));
        let sizes: Vec<usize> = decoder(&[("i", "INTEGER"), ("s", "STRING")])
            .page(&rows)
            .unwrap()
            .iter()
            .map(RecordBatch::num_rows)
            .collect();
        assert_eq!(sizes, [BATCH_ROWS, 5]);
        let large = format!(r#"{{"f":[{{"v":"1"}},{{"v":"{}"}}]}}"#, "x".repeat(BATCH_BYTES / 2));
        let rows = format!("[{}]", vec![large; 3].join(","));
        let batches = decoder(&[("i", "INTEGER"), ("s", "STRING")]).page(&rows).unwrap();
        assert_eq!(batches.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn rows_of_a_list_are_rows() {
        let batches =
            decoder(&[("i", "INTEGER")]).page(r#"[{"v":{"f":[{"v":"4"}]}},{"v":{"f":[{}]}}]"#).unwrap();
        let numbers = batches[0].column(0).as_primitive::<Int64Type>();
        assert_eq!((numbers.value(0), numbers.is_null(1)), (4, true));
    }

    #[test]
    fn what_is_no_page_is_an_error_and_no_panic() {
        for (rows, words) in [
            ("", "EOF"),
            ("[", "EOF"),
            ("[]x", "trailing"),
            ("[1]", "a row"),
            ("[{}]", "without values"),
            (r#"[{"f":[]}]"#, "fewer"),
            (r#"[{"f":[{"v":"1"},{"v":"2"}]}]"#, "more"),
            (r#"[{"f":[{"v":"x"}]}]"#, "\\\"x\\\" is no whole number"),
            (r#"[{"f":[{"v":"99999999999999999999"}]}]"#, "whole number"),
            (r#"[{"f":[{"v":[{"v":"1"}]}]}]"#, "column \\\"i\\\""),
            (r#"[{"f":[{"v":"1"}"#, "EOF"),
        ] {
            let failed = decoder(&[("i", "INTEGER")]).page(rows).unwrap_err();
            assert!(failed.message.contains(&words.replace("\\\"", "\"")), "{rows}: {failed}");
        }
        for wrong in
            ["2026-11-20", "2026-13-01T00:00:00", "2026-11-20T12:00", "2026-11-20T12:00:00.1234567", "é"]
        {
            assert_eq!(datetime(wrong), None, "{wrong}");
        }
        for wrong in ["", "2026-11-2", "2026-02-30", "+026-01-01", "12026-01-01"] {
            assert_eq!(days(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_type_without_a_form_is_refused_by_name() {
        let list: Field =
            serde_json::from_value(serde_json::json!({"name": "l", "type": "STRING", "mode": "REPEATED"}))
                .unwrap();
        for field in [list, Field::simple("r", "RECORD"), Field::simple("x", "HOLOGRAM")] {
            let refused = Decoder::new(std::slice::from_ref(&field)).err().unwrap();
            assert_eq!(refused.kind, ErrorKind::Unsupported);
            assert!(refused.message.contains(&format!("{:?}", field.name)), "{refused}");
        }
    }
}
