//! Rows in the binary form of COPY, straight from Arrow columns.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Date32Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
    UInt64Type,
};
use sql_templates::LogicalType as L;
use uuid::Uuid;

use super::table::TableColumn;
use crate::json::{JsonOptions, NonFinite, RowEncoder, UnsupportedColumn};
use crate::outcome::Rejection;

/// Days and microseconds from 1970, where Arrow begins, to 2000, where Postgres begins.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_MICROS: i64 = EPOCH_DAYS as i64 * 86_400_000_000;

/// The form in which the values of a column are staged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    Bool,
    /// A whole number of 2, 4 or 8 bytes.
    Int(u8),
    Float4,
    Float8,
    Numeric,
    /// UTF-8 as it is: text and json.
    Text,
    Jsonb,
    Date,
    Timestamp,
    Bytea,
    Uuid,
    /// The text that stands in CSV files, for the server to cast.
    Rendered,
}

/// How one column is staged and read back.
#[derive(Debug, Clone)]
pub(super) struct Staging {
    pub(super) wire: Wire,
    /// The type of the staging column.
    pub(super) stage_type: String,
    /// Turns the staged column (`s.c0`) into the value for the table.
    read: Read,
}

#[derive(Debug, Clone)]
enum Read {
    AsIs,
    Cast(String),
    /// A JSON list into an array.
    Array(String),
}

impl Staging {
    /// The destination's own type where a binary form exists, else text with a cast.
    pub(super) fn of(logical: L, column: &TableColumn) -> Self {
        let wire = match (logical, column.base_oid) {
            (L::Boolean, 16) => Wire::Bool,
            (L::Integer, 21) => Wire::Int(2),
            (L::Integer, 23) => Wire::Int(4),
            (L::Integer, 20) => Wire::Int(8),
            (L::Integer | L::Decimal, 1700) => Wire::Numeric,
            (L::Float, 700) => Wire::Float4,
            (L::Float, 701) => Wire::Float8,
            (L::Text, 25 | 1043 | 1042) | (L::Text | L::Json, 114) => Wire::Text,
            (L::Text | L::Json, 3802) => Wire::Jsonb,
            (L::Date, 1082) => Wire::Date,
            (L::Timestamp | L::TimestampTz, 1114 | 1184) => Wire::Timestamp,
            (L::Binary, 17) => Wire::Bytea,
            (L::Uuid | L::Text, 2950) => Wire::Uuid,
            _ => Wire::Rendered,
        };
        let is_text = matches!(column.base_oid, 25 | 1043);
        let read = match wire {
            Wire::Text if column.base_oid == 1042 => Read::Cast("bpchar".into()),
            Wire::Rendered if column.is_array && logical == L::Json => Read::Array(column.cast.clone()),
            Wire::Rendered if !is_text => Read::Cast(column.cast.clone()),
            _ => Read::AsIs,
        };
        let stage_type = match wire {
            Wire::Text if column.base_oid == 114 => "json".into(),
            Wire::Text | Wire::Rendered => "text".into(),
            _ => column.base_type.clone(),
        };
        Self { wire, stage_type, read }
    }

    /// The expression that reads the staged column.
    pub(super) fn expression(&self, staged: &str) -> String {
        match &self.read {
            Read::AsIs => staged.to_owned(),
            Read::Cast(to) => format!("{staged}::{to}"),
            Read::Array(to) => format!(
                "case when {staged} is not null then array(select x.v \
                 from pg_catalog.jsonb_array_elements_text({staged}::jsonb) with ordinality x(v, n) order by x.n)::{to} end"
            ),
        }
    }
}

/// Where the values of a staged column come from: the identity or the mapped fields.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    pub(super) identity: bool,
    pub(super) index: usize,
    pub(super) wire: Wire,
}

/// Writes a row's value, length first; or says why it cannot be.
type Write<'a> = Box<dyn Fn(usize, &mut Vec<u8>) -> Result<(), Rejection> + Send + 'a>;

/// The rows of a batch as COPY takes them: a row number, then the columns. Rows without a form
/// are left out; they have their rejection in the second part, at their place.
pub(super) fn encode(
    columns: &[Origin],
    identity: &RecordBatch,
    fields: &RecordBatch,
) -> Result<(Vec<u8>, Vec<Option<Rejection>>), UnsupportedColumn> {
    let rows = fields.num_rows().max(identity.num_rows());
    let source = |origin: &Origin| if origin.identity { identity } else { fields };
    let options = JsonOptions { non_finite: NonFinite::String, ..JsonOptions::default() };
    // Only what is rendered goes through the encoder of texts.
    let texts = columns
        .iter()
        .filter(|origin| origin.wire == Wire::Rendered)
        .map(|origin| source(origin).project(&[origin.index]))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| UnsupportedColumn { name: "*".into(), arrow: e.to_string() })?;
    let encoders =
        texts.iter().map(|t| RowEncoder::new(&t.schema(), options)).collect::<Result<Vec<_>, _>>()?;
    let mut rendered = encoders.iter().zip(&texts);
    let mut writes: Vec<Write<'_>> = Vec::with_capacity(columns.len());
    for origin in columns {
        let batch = source(origin);
        let (name, array) = (batch.schema_ref().field(origin.index).name(), batch.column(origin.index));
        writes.push(match rendered_or(origin.wire, &mut rendered) {
            Some((encoder, text)) => {
                let bound = encoder.bind(text)?;
                Box::new(move |row, out| {
                    let start = length_mark(out);
                    if encoder.encode_text(&bound, 0, row, out)? {
                        no_nul(&out[start..], name)?;
                        return set_length(start, out, name);
                    }
                    out.truncate(start - 4);
                    out.extend_from_slice(&NULL);
                    Ok(())
                })
            }
            None => bind(origin.wire, name, array.as_ref())?,
        });
    }
    let mut out = Vec::with_capacity(rows * columns.len() * 12 + 32);
    out.extend_from_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
    // A table has at most 1,600 columns.
    #[expect(clippy::cast_possible_truncation, reason = "see above")]
    let width = (columns.len() as i16 + 1).to_be_bytes();
    let mut rejections = Vec::with_capacity(rows);
    for row in 0..rows {
        let start = out.len();
        out.extend_from_slice(&width);
        // Batches hold far fewer rows than an int4 counts.
        #[expect(clippy::cast_possible_truncation, reason = "see above")]
        fixed(&(row as i32).to_be_bytes(), &mut out);
        let written = writes.iter().try_for_each(|write| write(row, &mut out));
        if written.is_err() {
            out.truncate(start);
        }
        rejections.push(written.err());
    }
    out.extend_from_slice(&(-1_i16).to_be_bytes());
    Ok((out, rejections))
}

fn rendered_or<T>(wire: Wire, rendered: &mut impl Iterator<Item = T>) -> Option<T> {
    (wire == Wire::Rendered).then(|| rendered.next()).flatten()
}

const NULL: [u8; 4] = (-1_i32).to_be_bytes();

/// A value of fixed length.
fn fixed(bytes: &[u8], out: &mut Vec<u8>) {
    #[expect(clippy::cast_possible_truncation, reason = "some bytes, a value of fixed length")]
    out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Leaves room for a length; gives where the value begins.
fn length_mark(out: &mut Vec<u8>) -> usize {
    out.extend_from_slice(&NULL);
    out.len()
}

fn set_length(start: usize, out: &mut [u8], name: &str) -> Result<(), Rejection> {
    let length = i32::try_from(out.len() - start).map_err(|_| unfit(name, "a value beyond 2 GB"))?;
    out[start - 4..start].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

fn no_nul(bytes: &[u8], name: &str) -> Result<(), Rejection> {
    if bytes.contains(&0) {
        return Err(unrepresentable(name, "a text with a NUL character, which Postgres cannot store"));
    }
    Ok(())
}

fn unrepresentable(name: &str, what: &str) -> Rejection {
    Rejection::new(Rejection::UNREPRESENTABLE_VALUE, format!("field {name:?} holds {what}"))
}

/// The value has a form, but not one that this column takes.
fn unfit(name: &str, what: &str) -> Rejection {
    Rejection::new(Rejection::REFUSED, format!("field {name:?} holds {what}"))
}

fn bind<'a>(wire: Wire, name: &'a str, array: &'a dyn Array) -> Result<Write<'a>, UnsupportedColumn> {
    let unsupported = || UnsupportedColumn { name: name.to_owned(), arrow: array.data_type().to_string() };
    /// Nulls, then the value of a typed array.
    macro_rules! values {
        ($typed:expr, |$value:ident, $out:ident| $write:expr) => {{
            let typed = $typed;
            Box::new(move |row, $out: &mut Vec<u8>| {
                if typed.is_null(row) {
                    $out.extend_from_slice(&NULL);
                    return Ok(());
                }
                let $value = typed.value(row);
                $write
            }) as Write<'a>
        }};
    }
    macro_rules! integers {
        ($typed:expr, $bytes:expr) => {
            values!($typed, |v, out| write_int(v.try_into().ok(), $bytes, name, out))
        };
    }
    macro_rules! timestamps {
        ($unit:ty, $to_micros:expr) => {
            values!(array.as_primitive::<$unit>(), |v, out| {
                let micros: Option<i64> = $to_micros(v);
                let micros = micros.and_then(|m| m.checked_sub(EPOCH_MICROS)).filter(|m| is_timestamp(*m));
                let micros = micros.ok_or_else(|| unfit(name, "a timestamp that Postgres does not know"))?;
                fixed(&micros.to_be_bytes(), out);
                Ok(())
            })
        };
    }
    use DataType as D;
    Ok(match (wire, array.data_type()) {
        (Wire::Bool, D::Boolean) => values!(array.as_boolean(), |v, out| {
            fixed(&[u8::from(v)], out);
            Ok(())
        }),
        (Wire::Int(bytes), D::Int16) => integers!(array.as_primitive::<Int16Type>(), bytes),
        (Wire::Int(bytes), D::Int32) => integers!(array.as_primitive::<Int32Type>(), bytes),
        (Wire::Int(bytes), D::Int64) => integers!(array.as_primitive::<Int64Type>(), bytes),
        (Wire::Int(bytes), D::UInt64) => integers!(array.as_primitive::<UInt64Type>(), bytes),
        (Wire::Int(bytes), D::Utf8) => {
            values!(array.as_string::<i32>(), |v, out| write_int(v.parse().ok(), bytes, name, out))
        }
        (Wire::Numeric, D::Int16) => {
            values!(array.as_primitive::<Int16Type>(), |v, out| write_numeric(&v.to_string(), name, out))
        }
        (Wire::Numeric, D::Int32) => {
            values!(array.as_primitive::<Int32Type>(), |v, out| write_numeric(&v.to_string(), name, out))
        }
        (Wire::Numeric, D::Int64) => {
            values!(array.as_primitive::<Int64Type>(), |v, out| write_numeric(&v.to_string(), name, out))
        }
        (Wire::Numeric, D::UInt64) => {
            values!(array.as_primitive::<UInt64Type>(), |v, out| write_numeric(&v.to_string(), name, out))
        }
        (Wire::Numeric, D::Utf8) => {
            values!(array.as_string::<i32>(), |v, out| write_numeric(v, name, out))
        }
        (Wire::Float4, D::Float32) => values!(array.as_primitive::<Float32Type>(), |v, out| {
            fixed(&v.to_be_bytes(), out);
            Ok(())
        }),
        (Wire::Float4, D::Float64) => values!(array.as_primitive::<Float64Type>(), |v, out| {
            #[expect(clippy::cast_possible_truncation, reason = "what is lost is looked at below")]
            let narrow = v as f32;
            if (narrow.is_infinite() && v.is_finite()) || (narrow == 0.0 && v != 0.0) {
                return Err(unfit(name, "a number out of the range of type real"));
            }
            fixed(&narrow.to_be_bytes(), out);
            Ok(())
        }),
        (Wire::Float8, D::Float32) => values!(array.as_primitive::<Float32Type>(), |v, out| {
            fixed(&f64::from(v).to_be_bytes(), out);
            Ok(())
        }),
        (Wire::Float8, D::Float64) => values!(array.as_primitive::<Float64Type>(), |v, out| {
            fixed(&v.to_be_bytes(), out);
            Ok(())
        }),
        (Wire::Text, D::Utf8) => values!(array.as_string::<i32>(), |v, out| {
            no_nul(v.as_bytes(), name)?;
            let start = length_mark(out);
            out.extend_from_slice(v.as_bytes());
            set_length(start, out, name)
        }),
        (Wire::Jsonb, D::Utf8) => values!(array.as_string::<i32>(), |v, out| {
            no_nul(v.as_bytes(), name)?;
            let start = length_mark(out);
            // The version of jsonb's binary form.
            out.push(1);
            out.extend_from_slice(v.as_bytes());
            set_length(start, out, name)
        }),
        (Wire::Date, D::Date32) => values!(array.as_primitive::<Date32Type>(), |v, out| {
            // 4713 BC to 5874897 AD.
            let days = v.checked_sub(EPOCH_DAYS).filter(|d| (-2_451_545..2_145_031_949).contains(d));
            let days = days.ok_or_else(|| unfit(name, "a date that Postgres does not know"))?;
            fixed(&days.to_be_bytes(), out);
            Ok(())
        }),
        (Wire::Timestamp, D::Timestamp(TimeUnit::Second, _)) => {
            timestamps!(TimestampSecondType, |v: i64| v.checked_mul(1_000_000))
        }
        (Wire::Timestamp, D::Timestamp(TimeUnit::Millisecond, _)) => {
            timestamps!(TimestampMillisecondType, |v: i64| v.checked_mul(1_000))
        }
        (Wire::Timestamp, D::Timestamp(TimeUnit::Microsecond, _)) => {
            timestamps!(TimestampMicrosecondType, Some)
        }
        // Rounded as Postgres rounds texts.
        (Wire::Timestamp, D::Timestamp(TimeUnit::Nanosecond, _)) => {
            timestamps!(TimestampNanosecondType, |v: i64| v.checked_add(500).map(|v| v.div_euclid(1_000)))
        }
        (Wire::Bytea, D::Binary) => values!(array.as_binary::<i32>(), |v, out| {
            let start = length_mark(out);
            out.extend_from_slice(v);
            set_length(start, out, name)
        }),
        (Wire::Uuid, D::Utf8) => values!(array.as_string::<i32>(), |v, out| {
            let uuid = Uuid::parse_str(v.trim()).map_err(|_| unfit(name, "a text that is no UUID"))?;
            fixed(uuid.as_bytes(), out);
            Ok(())
        }),
        _ => return Err(unsupported()),
    })
}

fn write_int(value: Option<i64>, bytes: u8, name: &str, out: &mut Vec<u8>) -> Result<(), Rejection> {
    let type_name = match bytes {
        2 => "smallint",
        4 => "integer",
        _ => "bigint",
    };
    let outside = || unfit(name, &format!("a number out of the range of type {type_name}"));
    let value = value.ok_or_else(outside)?;
    match bytes {
        2 => fixed(&i16::try_from(value).map_err(|_| outside())?.to_be_bytes(), out),
        4 => fixed(&i32::try_from(value).map_err(|_| outside())?.to_be_bytes(), out),
        _ => fixed(&value.to_be_bytes(), out),
    }
    Ok(())
}

/// 4713 BC to 294276 AD.
fn is_timestamp(micros_since_2000: i64) -> bool {
    (-211_813_488_000_000_000..9_223_371_331_200_000_000).contains(&micros_since_2000)
}

/// Digits in groups of four, as Postgres keeps exact numbers.
fn write_numeric(text: &str, name: &str, out: &mut Vec<u8>) -> Result<(), Rejection> {
    let start = length_mark(out);
    match text.to_ascii_lowercase().as_str() {
        "nan" => out.extend_from_slice(&[0, 0, 0, 0, 0xC0, 0, 0, 0]),
        "infinity" | "+infinity" | "inf" | "+inf" => out.extend_from_slice(&[0, 0, 0, 0, 0xD0, 0, 0, 0]),
        "-infinity" | "-inf" => out.extend_from_slice(&[0, 0, 0, 0, 0xF0, 0, 0, 0]),
        digits => {
            write_finite(digits, out)
                .ok_or_else(|| unfit(name, "what is no number that type numeric holds"))?;
        }
    }
    set_length(start, out, name)
}

fn write_finite(text: &str, out: &mut Vec<u8>) -> Option<()> {
    let (mantissa, exponent) = match text.split_once('e') {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (negative, unsigned) = match mantissa.as_bytes() {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let point = unsigned.iter().position(|&b| b == b'.').unwrap_or(unsigned.len());
    let fraction = unsigned.get(point + 1..).unwrap_or_default();
    let digits: Vec<u8> = unsigned[..point].iter().chain(fraction).copied().collect();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let exponent = i64::from(exponent);
    let scale = (fraction.len() as i64 - exponent).max(0);
    // Where the point stands, counted in digits; groups begin at multiples of four from it.
    let point = point as i64 + exponent;
    #[expect(clippy::cast_possible_truncation, reason = "between 0 and 3")]
    let padding = (-point).rem_euclid(4) as usize;
    let mut weight = (point + padding as i64) / 4 - 1;
    let padded: Vec<u8> = std::iter::repeat_n(b'0', padding).chain(digits).collect();
    let group = |chunk: &[u8]| {
        (0..4).fold(0_i16, |sum, i| sum * 10 + i16::from(chunk.get(i).map_or(0, |b| b - b'0')))
    };
    let mut groups: Vec<i16> = padded.chunks(4).map(group).collect();
    let leading = groups.iter().take_while(|g| **g == 0).count();
    groups.drain(..leading);
    weight -= leading as i64;
    while groups.last() == Some(&0) {
        groups.pop();
    }
    if groups.is_empty() {
        weight = 0;
    }
    let sign: u16 = if negative && !groups.is_empty() { 0x4000 } else { 0 };
    // What the type itself can hold: 131,072 digits before the point, 16,383 behind it.
    if weight >= 32_768 || scale > 16_383 {
        return None;
    }
    out.extend_from_slice(&i16::try_from(groups.len()).ok()?.to_be_bytes());
    out.extend_from_slice(&i16::try_from(weight).ok()?.to_be_bytes());
    out.extend_from_slice(&sign.to_be_bytes());
    out.extend_from_slice(&i16::try_from(scale).ok()?.to_be_bytes());
    for group in groups {
        out.extend_from_slice(&group.to_be_bytes());
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numeric(text: &str) -> Option<Vec<i16>> {
        let mut out = Vec::new();
        write_numeric(text, "n", &mut out).ok()?;
        assert_eq!(out.len() - 4, u32::from_be_bytes(out[..4].try_into().unwrap()) as usize);
        Some(out[4..].chunks(2).map(|c| i16::from_be_bytes([c[0], c[1]])).collect())
    }

    #[test]
    fn numerics_are_groups_of_four_digits() {
        // Number of groups, weight, sign, scale, groups.
        for (text, expected) in [
            ("0", vec![0, 0, 0, 0]),
            ("-0.00", vec![0, 0, 0, 2]),
            ("1", vec![1, 0, 0, 0, 1]),
            ("-12345.678", vec![3, 1, 0x4000, 3, 1, 2345, 6780]),
            ("10000", vec![1, 1, 0, 0, 1]),
            ("0.0001", vec![1, -1, 0, 4, 1]),
            ("0.00001", vec![1, -2, 0, 5, 1000]),
            (".5", vec![1, -1, 0, 1, 5000]),
            ("1e5", vec![1, 1, 0, 0, 10]),
            ("1.5E-3", vec![1, -1, 0, 4, 15]),
        ] {
            assert_eq!(numeric(text), Some(expected), "{text}");
        }
        for wrong in ["", "-", ".", "1.2.3", "0x1", "1e", "1 ", "1e200000", "1e-20000"] {
            assert_eq!(numeric(wrong), None, "{wrong}");
        }
    }
}
