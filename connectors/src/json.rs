//! Values on the wire: from Arrow columns, in the forms that `change.rs` lists, to JSON bytes and
//! to bare text.
//!
//! Decided here:
//! * `-0.0` is written `0.0`: the diff takes both for the same value, so both must look the same.
//! * `numbers: string` quotes integers and decimals. Floats stay numbers: a consumer that reads
//!   them as doubles loses nothing.
//! * JSON columns are written as they came, once they are known to be one JSON value; only line
//!   breaks between their tokens become spaces, so that a row is always one line. The options for
//!   numbers and nulls do not reach inside them.
//! * Years outside 0000–9999, and the infinite dates and timestamps of some engines, have no form
//!   in RFC 3339 and are rejected.
//! * Text that came as bytes, because not all of it is valid UTF-8, is written where it is valid and
//!   rejected where it is not. Nothing is replaced.

use std::fmt::Write as _;

use arrow::array::{
    Array, AsArray, BinaryArray, BooleanArray, Date32Array, Float32Array, Float64Array, Int16Array,
    Int32Array, Int64Array, RecordBatch, StringArray, UInt64Array,
};
use arrow::datatypes::{
    DataType, Schema, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, Timelike};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sql_templates::LogicalType;

use crate::change::logical_type;
use crate::outcome::Rejection;

/// How integers and decimals are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Numbers {
    /// As JSON numbers with all their digits.
    #[default]
    Json,
    /// As JSON strings, for consumers that would read a number as a double and lose digits.
    String,
}

/// What happens to NaN and the infinities, which JSON does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NonFinite {
    /// The row is rejected with `UNREPRESENTABLE_VALUE`.
    #[default]
    Reject,
    /// They are written as null.
    Null,
    /// They are written as the strings `NaN`, `Infinity` and `-Infinity`.
    String,
}

/// What happens to null columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Nulls {
    /// They are written as `null`.
    #[default]
    Keep,
    /// Their field is left out of the object.
    Omit,
}

/// What happens to text that is not valid UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InvalidText {
    /// The row is rejected with `UNREPRESENTABLE_VALUE`.
    #[default]
    Reject,
    /// For people to look at, never for a destination: every wrong byte is shown as `\xff`.
    Show,
}

/// The choices that a sync has about its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JsonOptions {
    /// How integers and decimals are written.
    pub numbers: Numbers,
    /// What happens to NaN and the infinities.
    pub non_finite: NonFinite,
    /// What happens to null columns.
    pub nulls: Nulls,
    /// What happens to text that is not valid UTF-8.
    pub invalid_text: InvalidText,
}

impl JsonOptions {
    /// For a person's eyes: whatever can be shown is shown, though no destination may be able to
    /// take it.
    pub fn for_people() -> Self {
        Self { non_finite: NonFinite::String, invalid_text: InvalidText::Show, ..Self::default() }
    }
}

/// A column whose Arrow type is none of those that `change.rs` lists.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {name:?} arrives as {arrow}, which has no form on the wire")]
pub struct UnsupportedColumn {
    /// The field's name.
    pub name: String,
    /// The Arrow type that was found, or what else is wrong with it.
    pub arrow: String,
}

/// Writes rows of one schema. Prepared once per sync; [`RowEncoder::bind`] once per batch.
#[derive(Debug, Clone)]
pub struct RowEncoder {
    options: JsonOptions,
    fields: Vec<FieldPlan>,
}

#[derive(Debug, Clone)]
struct FieldPlan {
    name: String,
    /// The name as a JSON string, with its colon.
    key: Vec<u8>,
    logical: LogicalType,
}

/// The columns of one batch, downcast once.
#[derive(Debug)]
pub struct BoundRows<'a> {
    columns: Vec<Bound<'a>>,
    rows: usize,
}

impl BoundRows<'_> {
    /// How many rows the batch holds.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether the batch holds no row.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }
}

#[derive(Debug)]
enum Bound<'a> {
    Boolean(&'a BooleanArray),
    Int16(&'a Int16Array),
    Int32(&'a Int32Array),
    Int64(&'a Int64Array),
    UInt64(&'a UInt64Array),
    Float32(&'a Float32Array),
    Float64(&'a Float64Array),
    Date(&'a Date32Array),
    /// Values counted in units of which so many make a second; whether the zone is known.
    Timestamp(&'a [i64], Option<&'a arrow::buffer::NullBuffer>, i64, bool),
    Binary(&'a BinaryArray),
    Text(&'a StringArray),
    /// Text in a batch where some of it is not valid UTF-8.
    RawText(&'a BinaryArray),
    /// Digits of an integer or decimal.
    Digits(&'a StringArray),
    Json(&'a StringArray),
}

/// One value, ready to be written in whichever form: JSON, bare text, a template's value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cell<'a> {
    Null,
    Boolean(bool),
    Signed(i64),
    Unsigned(u64),
    Float32(f32),
    Float64(f64),
    /// A JSON number, digit by digit.
    Digits(&'a str),
    /// `NaN`, `Infinity` or `-Infinity`, where the options write them as strings.
    NonFinite(&'static str),
    Date(NaiveDate),
    /// With whether it ends in `Z`.
    Timestamp(NaiveDateTime, bool),
    Text(&'a str),
    /// Text that is not valid UTF-8, where the options show it.
    InvalidText(&'a [u8]),
    Binary(&'a [u8]),
    /// One valid JSON value.
    Json(&'a str),
}

impl RowEncoder {
    /// Prepares the writing of rows of this schema. Fields are written in its order, under their
    /// names as they are: a dot in a name is part of the name.
    pub fn new(schema: &Schema, options: JsonOptions) -> Result<Self, UnsupportedColumn> {
        let fields = schema
            .fields()
            .iter()
            .map(|field| {
                let logical = logical_type(field);
                use DataType as D;
                let supported = matches!(
                    field.data_type(),
                    D::Boolean
                        | D::Int16
                        | D::Int32
                        | D::Int64
                        | D::UInt64
                        | D::Float32
                        | D::Float64
                        | D::Date32
                        | D::Timestamp(..)
                        | D::Binary
                        | D::Utf8
                );
                if !supported {
                    return Err(UnsupportedColumn {
                        name: field.name().clone(),
                        arrow: field.data_type().to_string(),
                    });
                }
                let mut key = Vec::with_capacity(field.name().len() + 3);
                write_string(field.name(), &mut key);
                key.push(b':');
                Ok(FieldPlan { name: field.name().clone(), key, logical })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { options, fields })
    }

    /// The choices with which the encoder was made.
    pub fn options(&self) -> JsonOptions {
        self.options
    }

    /// The names of the fields, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|f| f.name.as_str())
    }

    /// Downcasts the columns of a batch, in any form of Arrow that carries the logical types of the
    /// schema for which the encoder was made; an error when they come in another.
    pub fn bind<'a>(&self, batch: &'a RecordBatch) -> Result<BoundRows<'a>, UnsupportedColumn> {
        if batch.num_columns() != self.fields.len() {
            return Err(UnsupportedColumn {
                name: "*".to_owned(),
                arrow: format!("{} columns instead of {}", batch.num_columns(), self.fields.len()),
            });
        }
        let columns = self.fields.iter().zip(batch.columns()).map(|(plan, array)| bind(plan, array.as_ref()));
        Ok(BoundRows { columns: columns.collect::<Result<_, _>>()?, rows: batch.num_rows() })
    }

    /// Appends one row as a JSON object. On a rejection, which names the field and never the
    /// value, `out` is as it was before.
    pub fn encode_row(&self, rows: &BoundRows<'_>, row: usize, out: &mut Vec<u8>) -> Result<(), Rejection> {
        let start = out.len();
        out.push(b'{');
        let mut first = true;
        for (plan, column) in self.fields.iter().zip(&rows.columns) {
            let before = out.len();
            if !first {
                out.push(b',');
            }
            out.extend_from_slice(&plan.key);
            match self.cell(plan, column, row) {
                Ok(Cell::Null) if self.options.nulls == Nulls::Omit => out.truncate(before),
                Ok(cell) => {
                    cell.write_json(self.options.numbers, out);
                    first = false;
                }
                Err(rejection) => {
                    out.truncate(start);
                    return Err(rejection);
                }
            }
        }
        out.push(b'}');
        Ok(())
    }

    /// Appends one value as JSON; a null is `null`, whatever the option for nulls says.
    pub fn encode_value(
        &self,
        rows: &BoundRows<'_>,
        column: usize,
        row: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Rejection> {
        self.cell_at(rows, column, row)?.write_json(self.options.numbers, out);
        Ok(())
    }

    /// Appends one value as bare text, the form in which it stands in CSV: as in JSON, without
    /// quotes and escapes. Returns whether there was a value; a null writes nothing.
    pub fn encode_text(
        &self,
        rows: &BoundRows<'_>,
        column: usize,
        row: usize,
        out: &mut Vec<u8>,
    ) -> Result<bool, Rejection> {
        Ok(self.cell_at(rows, column, row)?.write_text(out))
    }

    pub(crate) fn cell_at<'a>(
        &self,
        rows: &BoundRows<'a>,
        column: usize,
        row: usize,
    ) -> Result<Cell<'a>, Rejection> {
        self.cell(&self.fields[column], &rows.columns[column], row)
    }

    fn cell<'a>(&self, plan: &FieldPlan, column: &Bound<'a>, row: usize) -> Result<Cell<'a>, Rejection> {
        macro_rules! value {
            ($array:expr, $form:expr) => {
                if $array.is_null(row) { Cell::Null } else { $form($array.value(row)) }
            };
        }
        Ok(match column {
            Bound::Boolean(a) => value!(a, Cell::Boolean),
            Bound::Int16(a) => value!(a, |v| Cell::Signed(i64::from(v))),
            Bound::Int32(a) => value!(a, |v| Cell::Signed(i64::from(v))),
            Bound::Int64(a) => value!(a, Cell::Signed),
            Bound::UInt64(a) => value!(a, Cell::Unsigned),
            Bound::Text(a) => value!(a, Cell::Text),
            Bound::Binary(a) => value!(a, Cell::Binary),
            Bound::RawText(a) if !a.is_null(row) => {
                let bytes = a.value(row);
                match (std::str::from_utf8(bytes), self.options.invalid_text) {
                    (Ok(text), _) if plan.logical == LogicalType::Json => json_cell(plan, text)?,
                    (Ok(text), _) => Cell::Text(text),
                    (Err(_), InvalidText::Show) => Cell::InvalidText(bytes),
                    (Err(_), InvalidText::Reject) => return Err(invalid_text(&plan.name)),
                }
            }
            Bound::Float32(a) if !a.is_null(row) => {
                let v = a.value(row);
                // Adding zero turns -0.0 into 0.0 and changes nothing else.
                if v.is_finite() { Cell::Float32(v + 0.0) } else { self.non_finite(plan, f64::from(v))? }
            }
            Bound::Float64(a) if !a.is_null(row) => {
                let v = a.value(row);
                if v.is_finite() { Cell::Float64(v + 0.0) } else { self.non_finite(plan, v)? }
            }
            Bound::Date(a) if !a.is_null(row) => {
                let date =
                    DateTime::from_timestamp(i64::from(a.value(row)) * 86_400, 0).map(|t| t.date_naive());
                let date = date.filter(|d| has_form(d.year()));
                Cell::Date(
                    date.ok_or_else(|| unrepresentable(plan, "a date outside the years 0000 to 9999"))?,
                )
            }
            Bound::Timestamp(values, nulls, per_second, zoned) if nulls.is_none_or(|n| n.is_valid(row)) => {
                let (value, nanos) = (values[row], 1_000_000_000 / per_second);
                // Below one billion, because the remainder is below `per_second`.
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "see above")]
                let fraction = (value.rem_euclid(*per_second) * nanos) as u32;
                let time = DateTime::from_timestamp(value.div_euclid(*per_second), fraction);
                let time = time.map(|t| t.naive_utc()).filter(|t| has_form(t.year()));
                Cell::Timestamp(
                    time.ok_or_else(|| unrepresentable(plan, "a timestamp outside the years 0000 to 9999"))?,
                    *zoned,
                )
            }
            Bound::Digits(a) if !a.is_null(row) => {
                let text = a.value(row);
                if is_json_number(text, plan.logical == LogicalType::Integer) {
                    Cell::Digits(text)
                } else {
                    match text.to_ascii_lowercase().as_str() {
                        "nan" => self.non_finite(plan, f64::NAN)?,
                        "inf" | "infinity" | "+infinity" => self.non_finite(plan, f64::INFINITY)?,
                        "-inf" | "-infinity" => self.non_finite(plan, f64::NEG_INFINITY)?,
                        _ => return Err(unrepresentable(plan, "a text that is not a number in digits")),
                    }
                }
            }
            Bound::Json(a) if !a.is_null(row) => json_cell(plan, a.value(row))?,
            Bound::Float32(_)
            | Bound::Float64(_)
            | Bound::Date(_)
            | Bound::Timestamp(..)
            | Bound::Digits(_)
            | Bound::Json(_)
            | Bound::RawText(_) => Cell::Null,
        })
    }

    fn non_finite(&self, plan: &FieldPlan, value: f64) -> Result<Cell<'static>, Rejection> {
        match self.options.non_finite {
            NonFinite::Null => Ok(Cell::Null),
            NonFinite::Reject => Err(unrepresentable(
                plan,
                "NaN or an infinity; set `non_finite: null` or `non_finite: string` to send it",
            )),
            NonFinite::String if value.is_nan() => Ok(Cell::NonFinite("NaN")),
            NonFinite::String if value > 0.0 => Ok(Cell::NonFinite("Infinity")),
            NonFinite::String => Ok(Cell::NonFinite("-Infinity")),
        }
    }
}

impl Cell<'_> {
    pub(crate) fn write_json(&self, numbers: Numbers, out: &mut Vec<u8>) {
        let quoted = match self {
            Cell::Signed(_) | Cell::Unsigned(_) | Cell::Digits(_) => numbers == Numbers::String,
            Cell::Date(_) | Cell::Timestamp(..) | Cell::Binary(_) | Cell::NonFinite(_) => true,
            Cell::Text(text) => return write_string(text, out),
            Cell::InvalidText(bytes) => return write_string(&shown(bytes), out),
            Cell::Null => return out.extend_from_slice(b"null"),
            Cell::Boolean(_) | Cell::Float32(_) | Cell::Float64(_) | Cell::Json(_) => false,
        };
        if quoted {
            out.push(b'"');
        }
        self.write_text(out);
        if quoted {
            out.push(b'"');
        }
    }

    /// Whether there was a value.
    pub(crate) fn write_text(&self, out: &mut Vec<u8>) -> bool {
        match *self {
            Cell::Null => return false,
            Cell::Boolean(true) => out.extend_from_slice(b"true"),
            Cell::Boolean(false) => out.extend_from_slice(b"false"),
            Cell::Signed(v) => out.extend_from_slice(itoa::Buffer::new().format(v).as_bytes()),
            Cell::Unsigned(v) => out.extend_from_slice(itoa::Buffer::new().format(v).as_bytes()),
            // Writing to a vector cannot fail, and a finite float always has a form.
            Cell::Float32(v) => serde_json::to_writer(out, &v).unwrap_or_default(),
            Cell::Float64(v) => serde_json::to_writer(out, &v).unwrap_or_default(),
            Cell::Digits(text) | Cell::Text(text) => out.extend_from_slice(text.as_bytes()),
            Cell::InvalidText(bytes) => out.extend_from_slice(shown(bytes).as_bytes()),
            Cell::NonFinite(word) => out.extend_from_slice(word.as_bytes()),
            Cell::Date(date) => write_date(date, out),
            Cell::Timestamp(time, zoned) => {
                write_date(time.date(), out);
                write_time(time, out);
                if zoned {
                    out.push(b'Z');
                }
            }
            Cell::Binary(bytes) => {
                let start = out.len();
                out.resize(start + base64::encoded_len(bytes.len(), true).unwrap_or(0), 0);
                // The slice has exactly the length that the encoding needs.
                let _ = BASE64.encode_slice(bytes, &mut out[start..]);
            }
            Cell::Json(raw) => {
                // A line break in valid JSON can only stand between tokens.
                let start = out.len();
                out.extend_from_slice(raw.as_bytes());
                out[start..].iter_mut().filter(|b| matches!(b, b'\n' | b'\r')).for_each(|b| *b = b' ');
            }
        }
        true
    }
}

/// Whether values of this logical type come in this form of Arrow: see [`ChangeBatch`].
///
/// [`ChangeBatch`]: crate::change::ChangeBatch
fn carries(arrow: &DataType, logical: LogicalType) -> bool {
    use DataType as D;
    match logical {
        LogicalType::Boolean => matches!(arrow, D::Boolean),
        LogicalType::Integer => matches!(arrow, D::Int16 | D::Int32 | D::Int64 | D::UInt64 | D::Utf8),
        LogicalType::Float => matches!(arrow, D::Float32 | D::Float64),
        LogicalType::Date => matches!(arrow, D::Date32),
        LogicalType::Timestamp => matches!(arrow, D::Timestamp(_, None)),
        LogicalType::TimestampTz => matches!(arrow, D::Timestamp(_, Some(_))),
        LogicalType::Binary => matches!(arrow, D::Binary),
        // Bytes where not all of it is valid UTF-8.
        LogicalType::Text | LogicalType::Json => matches!(arrow, D::Utf8 | D::Binary),
        _ => matches!(arrow, D::Utf8),
    }
}

fn bind<'a>(plan: &FieldPlan, array: &'a dyn Array) -> Result<Bound<'a>, UnsupportedColumn> {
    let unsupported = || UnsupportedColumn { name: plan.name.clone(), arrow: array.data_type().to_string() };
    if !carries(array.data_type(), plan.logical) {
        return Err(unsupported());
    }
    macro_rules! timestamps {
        ($unit:ty, $per_second:expr, $zone:expr) => {{
            let typed = array.as_primitive::<$unit>();
            Bound::Timestamp(typed.values(), typed.nulls(), $per_second, $zone.is_some())
        }};
    }
    use DataType as D;
    Ok(match array.data_type() {
        D::Boolean => Bound::Boolean(array.as_boolean()),
        D::Int16 => Bound::Int16(array.as_primitive()),
        D::Int32 => Bound::Int32(array.as_primitive()),
        D::Int64 => Bound::Int64(array.as_primitive()),
        D::UInt64 => Bound::UInt64(array.as_primitive()),
        D::Float32 => Bound::Float32(array.as_primitive()),
        D::Float64 => Bound::Float64(array.as_primitive()),
        D::Date32 => Bound::Date(array.as_primitive()),
        D::Timestamp(TimeUnit::Second, zone) => timestamps!(TimestampSecondType, 1, zone),
        D::Timestamp(TimeUnit::Millisecond, zone) => timestamps!(TimestampMillisecondType, 1_000, zone),
        D::Timestamp(TimeUnit::Microsecond, zone) => timestamps!(TimestampMicrosecondType, 1_000_000, zone),
        D::Timestamp(TimeUnit::Nanosecond, zone) => timestamps!(TimestampNanosecondType, 1_000_000_000, zone),
        D::Binary if plan.logical == LogicalType::Binary => Bound::Binary(array.as_binary()),
        D::Binary => Bound::RawText(array.as_binary()),
        D::Utf8 => match plan.logical {
            LogicalType::Integer | LogicalType::Decimal => Bound::Digits(array.as_string()),
            LogicalType::Json => Bound::Json(array.as_string()),
            _ => Bound::Text(array.as_string()),
        },
        _ => return Err(unsupported()),
    })
}

fn json_cell<'a>(plan: &FieldPlan, text: &'a str) -> Result<Cell<'a>, Rejection> {
    let raw: &RawValue =
        serde_json::from_str(text).map_err(|_| unrepresentable(plan, "a text that is not one JSON value"))?;
    Ok(Cell::Json(raw.get()))
}

/// The rejection of a row whose field holds text that is not valid UTF-8.
pub fn invalid_text(name: &str) -> Rejection {
    Rejection::new(
        Rejection::UNREPRESENTABLE_VALUE,
        format!("field {name:?} holds text that is not valid UTF-8"),
    )
}

/// Text that is not valid UTF-8, with every wrong byte as `\xff`.
fn shown(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 8);
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing into a String cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

fn unrepresentable(plan: &FieldPlan, what: &str) -> Rejection {
    Rejection::new(Rejection::UNREPRESENTABLE_VALUE, format!("field {:?} holds {what}", plan.name))
}

/// RFC 3339 writes years with four digits.
fn has_form(year: i32) -> bool {
    (0..=9999).contains(&year)
}

pub(crate) fn write_string(text: &str, out: &mut Vec<u8>) {
    // Writing a string to a vector cannot fail.
    serde_json::to_writer(out, text).unwrap_or_default();
}

fn write_digits(value: u32, width: usize, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + width, b'0');
    let mut rest = value;
    for digit in out[start..].iter_mut().rev() {
        // A digit is below ten.
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

fn write_date(date: NaiveDate, out: &mut Vec<u8>) {
    write_digits(date.year().unsigned_abs(), 4, out);
    out.push(b'-');
    write_digits(date.month(), 2, out);
    out.push(b'-');
    write_digits(date.day(), 2, out);
}

/// `T09:30:00`, with 3, 6 or 9 digits of the second's fraction, as few as hold it, none when it is zero.
fn write_time(time: NaiveDateTime, out: &mut Vec<u8>) {
    for (mark, value) in [(b'T', time.hour()), (b':', time.minute()), (b':', time.second())] {
        out.push(mark);
        write_digits(value, 2, out);
    }
    let nanos = time.nanosecond();
    if nanos == 0 {
        return;
    }
    out.push(b'.');
    if nanos.is_multiple_of(1_000_000) {
        write_digits(nanos / 1_000_000, 3, out);
    } else if nanos.is_multiple_of(1_000) {
        write_digits(nanos / 1_000, 6, out);
    } else {
        write_digits(nanos, 9, out);
    }
}

/// Whether the text is a JSON number; an integer has neither fraction nor exponent.
fn is_json_number(text: &str, integer: bool) -> bool {
    fn digits(bytes: &[u8]) -> usize {
        bytes.iter().take_while(|b| b.is_ascii_digit()).count()
    }
    let mut rest = text.as_bytes();
    rest = rest.strip_prefix(b"-").unwrap_or(rest);
    let whole = digits(rest);
    if whole == 0 || (whole > 1 && rest[0] == b'0') {
        return false;
    }
    rest = &rest[whole..];
    if integer || rest.is_empty() {
        return rest.is_empty();
    }
    if let Some(fraction) = rest.strip_prefix(b".") {
        let length = digits(fraction);
        if length == 0 {
            return false;
        }
        rest = &fraction[length..];
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = match exponent {
            [b'+' | b'-', unsigned @ ..] => unsigned,
            unsigned => unsigned,
        };
        return !exponent.is_empty() && digits(exponent) == exponent.len();
    }
    rest.is_empty()
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
