//! From the texts in which Redshift sends its values to Arrow.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Float32Builder, Float64Builder, Int16Builder,
    Int32Builder, Int64Builder, RecordBatch, RecordBatchOptions, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use sql_templates::{Column, Dialect};
use tokio_postgres::{SimpleQueryRow, Statement};

use crate::warehouse::{ErrorKind, WarehouseError};

/// A batch is handed on once it holds this many rows …
const BATCH_ROWS: usize = 8_192;
/// … or this many bytes of values.
const BATCH_BYTES: usize = 4 << 20;

/// Types by their numbers, which are PostgreSQL's or, from 3000 on and for bytes, Redshift's own.
const BOOLEAN: u32 = 16;
const BYTEA: u32 = 17;
const NAME: u32 = 19;
const BIGINT: u32 = 20;
const SMALLINT: u32 = 21;
const INTEGER: u32 = 23;
const TEXT: u32 = 25;
const REAL: u32 = 700;
const DOUBLE: u32 = 701;
const UNKNOWN: u32 = 705;
const CHAR: u32 = 1042;
const VARCHAR: u32 = 1043;
const DATE: u32 = 1082;
const TIME: u32 = 1083;
const TIMESTAMP: u32 = 1114;
const TIMESTAMPTZ: u32 = 1184;
const TIMETZ: u32 = 1266;
const NUMERIC: u32 = 1700;
const GEOMETRY: u32 = 3000;
const GEOGRAPHY: u32 = 3001;
const SUPER: u32 = 4000;
pub(super) const VARBYTE: u32 = 6551;

/// The longest text.
const MOST_TEXT: i32 = 65_535;

/// A column of a result, as the server describes it.
pub(super) struct WireColumn {
    name: String,
    pub(super) oid: u32,
    modifier: i32,
    /// What the client library calls the type.
    type_name: String,
}

impl WireColumn {
    pub(super) fn all(statement: &Statement) -> Vec<Self> {
        let column = |c: &tokio_postgres::Column| Self {
            name: c.name().to_owned(),
            oid: c.type_().oid(),
            modifier: c.type_modifier(),
            type_name: c.type_().name().to_owned(),
        };
        statement.columns().iter().map(column).collect()
    }

    /// The type as `cast` takes it.
    fn engine_type(&self) -> Option<String> {
        // A length counts the four bytes of its own.
        let length = |most: i32| if self.modifier > 4 { self.modifier - 4 } else { most };
        Some(match self.oid {
            BOOLEAN => "boolean".to_owned(),
            SMALLINT => "smallint".to_owned(),
            INTEGER => "integer".to_owned(),
            BIGINT => "bigint".to_owned(),
            REAL => "real".to_owned(),
            DOUBLE => "double precision".to_owned(),
            NUMERIC if self.modifier > 4 => {
                let packed = self.modifier - 4;
                format!("numeric({},{})", packed >> 16, packed & 0xffff)
            }
            NUMERIC => "numeric(38,10)".to_owned(),
            VARCHAR => format!("character varying({})", length(MOST_TEXT)),
            TEXT | NAME | UNKNOWN => format!("character varying({MOST_TEXT})"),
            CHAR => format!("character({})", length(4_096)),
            DATE => "date".to_owned(),
            TIME => "time without time zone".to_owned(),
            TIMETZ => "time with time zone".to_owned(),
            TIMESTAMP => "timestamp without time zone".to_owned(),
            TIMESTAMPTZ => "timestamp with time zone".to_owned(),
            GEOMETRY => "geometry".to_owned(),
            GEOGRAPHY => "geography".to_owned(),
            SUPER => "super".to_owned(),
            VARBYTE | BYTEA => "varbyte".to_owned(),
            _ => return None,
        })
    }
}

/// The columns with their types' names; one that levin cannot carry is refused by name.
pub(super) fn described(columns: &[WireColumn]) -> Result<Vec<Column>, WarehouseError> {
    let described = columns.iter().map(|column| {
        let known = column.engine_type().and_then(|name| Some((Dialect::Redshift.type_fact(&name)?, name)));
        let (fact, engine_type) = known.ok_or_else(|| {
            let message = format!(
                "column {:?} is of type {}, which levin cannot carry; cast it in the model",
                column.name, column.type_name
            );
            WarehouseError::new(ErrorKind::Unsupported, message)
        })?;
        Ok(Column { name: column.name.clone(), engine_type, logical: fact.logical })
    });
    described.collect()
}

/// Turns rows into batches.
pub(super) struct Decoder {
    schema: SchemaRef,
    columns: Vec<Builder>,
    rows: usize,
    bytes: usize,
}

enum Builder {
    Boolean(BooleanBuilder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Text(StringBuilder),
    Binary(BinaryBuilder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
}

impl Decoder {
    /// Prepares for rows of these columns; a type without an Arrow form is refused by name.
    pub(super) fn new(columns: &[WireColumn]) -> Result<Self, WarehouseError> {
        let mut fields = Vec::with_capacity(columns.len());
        let mut builders = Vec::with_capacity(columns.len());
        for column in columns {
            let (data_type, builder) = Builder::of(column)?;
            fields.push(Field::new(&column.name, data_type, true));
            builders.push(builder);
        }
        Ok(Self { schema: Arc::new(Schema::new(fields)), columns: builders, rows: 0, bytes: 0 })
    }

    /// Takes a row, and hands back the batch that it filled.
    pub(super) fn push(&mut self, row: &SimpleQueryRow) -> Result<Option<RecordBatch>, WarehouseError> {
        if row.len() != self.columns.len() {
            let message = "a row has another number of columns than its statement";
            return Err(WarehouseError::new(ErrorKind::Other, message));
        }
        for (i, column) in self.columns.iter_mut().enumerate() {
            let refuse = |why: String| {
                let message = format!("column {:?}: {why}", self.schema.field(i).name());
                WarehouseError::new(ErrorKind::Data, message)
            };
            let value = row.try_get(i).map_err(|_| refuse("a text is not UTF-8".to_owned()))?;
            self.bytes += value.map_or(0, str::len);
            if !column.append(value) {
                return Err(refuse("a value has a form that levin does not know".to_owned()));
            }
        }
        self.rows += 1;
        if self.rows >= BATCH_ROWS || self.bytes >= BATCH_BYTES { self.batch().map(Some) } else { Ok(None) }
    }

    /// The last rows, when there are any.
    pub(super) fn finish(&mut self) -> Result<Option<RecordBatch>, WarehouseError> {
        if self.rows == 0 { Ok(None) } else { self.batch().map(Some) }
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
    fn of(column: &WireColumn) -> Result<(DataType, Self), WarehouseError> {
        let microseconds =
            |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
        Ok(match column.oid {
            BOOLEAN => (DataType::Boolean, Self::Boolean(BooleanBuilder::new())),
            SMALLINT => (DataType::Int16, Self::Int16(Int16Builder::new())),
            INTEGER => (DataType::Int32, Self::Int32(Int32Builder::new())),
            BIGINT => (DataType::Int64, Self::Int64(Int64Builder::new())),
            REAL => (DataType::Float32, Self::Float32(Float32Builder::new())),
            DOUBLE => (DataType::Float64, Self::Float64(Float64Builder::new())),
            VARCHAR | TEXT | NAME | UNKNOWN | CHAR | NUMERIC | TIME | TIMETZ => {
                (DataType::Utf8, Self::Text(StringBuilder::new()))
            }
            VARBYTE | BYTEA => (DataType::Binary, Self::Binary(BinaryBuilder::new())),
            DATE => (DataType::Date32, Self::Date(Date32Builder::new())),
            TIMESTAMP => (microseconds(None), Self::Timestamp(TimestampMicrosecondBuilder::new())),
            TIMESTAMPTZ => (
                microseconds(Some("UTC")),
                Self::Timestamp(TimestampMicrosecondBuilder::new().with_timezone("UTC")),
            ),
            _ => {
                let message = format!(
                    "column {:?} is of type {}, which cannot be read as it is",
                    column.name, column.type_name
                );
                return Err(WarehouseError::new(ErrorKind::Unsupported, message));
            }
        })
    }

    /// Whether the value has the form that its type has.
    fn append(&mut self, value: Option<&str>) -> bool {
        macro_rules! append {
            ($builder:ident, $parse:expr) => {
                match value {
                    None => $builder.append_null(),
                    Some(text) => match $parse(text) {
                        Some(value) => $builder.append_value(value),
                        None => return false,
                    },
                }
            };
        }
        match self {
            Self::Boolean(b) => append!(b, |text| match text {
                "t" | "true" | "1" => Some(true),
                "f" | "false" | "0" => Some(false),
                _ => None,
            }),
            Self::Int16(b) => append!(b, |text: &str| text.parse().ok()),
            Self::Int32(b) => append!(b, |text: &str| text.parse().ok()),
            Self::Int64(b) => append!(b, |text: &str| text.parse().ok()),
            Self::Float32(b) => append!(b, |text: &str| text.parse().ok()),
            Self::Float64(b) => append!(b, |text: &str| text.parse().ok()),
            Self::Text(b) => b.append_option(value),
            Self::Binary(b) => append!(b, bytes),
            Self::Date(b) => append!(b, day),
            Self::Timestamp(b) => append!(b, instant),
        }
        true
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Boolean(b) => Arc::new(b.finish()),
            Self::Int16(b) => Arc::new(b.finish()),
            Self::Int32(b) => Arc::new(b.finish()),
            Self::Int64(b) => Arc::new(b.finish()),
            Self::Float32(b) => Arc::new(b.finish()),
            Self::Float64(b) => Arc::new(b.finish()),
            Self::Text(b) => Arc::new(b.finish()),
            Self::Binary(b) => Arc::new(b.finish()),
            Self::Date(b) => Arc::new(b.finish()),
            Self::Timestamp(b) => Arc::new(b.finish()),
        }
    }
}

/// Bytes from their hexadecimal digits.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("\\x").unwrap_or(text).as_bytes();
    let (pairs, rest) = digits.as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

/// Days since 1970-01-01 of `2026-11-20`, or of `0044-03-15 BC`.
fn day(text: &str) -> Option<i32> {
    match text.strip_suffix(" BC") {
        Some(before) => days(before, true),
        None => days(text, false),
    }
}

fn days(text: &str, before_christ: bool) -> Option<i32> {
    let mut parts = text.split('-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // There is no year zero: the first year before Christ stands in its place. Years begin in March, so that a day that
    // is there every four years is the last one.
    let year = if before_christ { 1 - year } else { year } - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    i32::try_from(days).ok()
}

/// Microseconds since 1970 of `2026-11-20 10:00:00.5`, with or without `+00` behind it. What Arrow cannot reach, after
/// the year 294247, is the last instant that it can.
fn instant(text: &str) -> Option<i64> {
    let (text, before_christ) = match text.strip_suffix(" BC") {
        Some(text) => (text, true),
        None => (text, false),
    };
    let (date, time) = text.split_once(' ')?;
    // Sessions are in UTC.
    let time = time.strip_suffix("+00").unwrap_or(time);
    let (whole, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut parts = whole.split(':').map(|part| part.parse::<i64>().ok());
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() || fraction.len() > 6 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let fraction: i64 = format!("{fraction:0<6}").parse().ok()?;
    let seconds = i64::from(days(date, before_christ)?) * 86_400 + hours * 3_600 + minutes * 60 + seconds;
    Some(seconds.checked_mul(1_000_000).and_then(|n| n.checked_add(fraction)).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_instants_are_counted_from_1970() {
        for (text, expected) in [
            ("1970-01-01", Some(0)),
            ("1969-12-31", Some(-1)),
            ("2000-02-29", Some(11_016)),
            ("2000-03-01", Some(11_017)),
            ("2026-11-20", Some(20_777)),
            ("0001-01-01", Some(-719_162)),
            ("0001-12-31 BC", Some(-719_163)),
            ("10000-01-01", Some(2_932_897)),
            ("2026-13-01", None),
            ("infinity", None),
        ] {
            assert_eq!(day(text), expected, "{text}");
        }
        for (text, expected) in [
            ("1970-01-01 00:00:00", Some(0)),
            ("1969-12-31 23:59:59.999999", Some(-1)),
            ("2026-11-20 10:00:00.5", Some(1_795_168_800_500_000)),
            ("2026-11-20 10:00:00.5+00", Some(1_795_168_800_500_000)),
            ("294276-12-31 00:00:00", Some(i64::MAX)),
            ("2026-11-20 10:00:00+05:30", None),
            ("2026-11-20", None),
        ] {
            assert_eq!(instant(text), expected, "{text}");
        }
    }

    #[test]
    fn bytes_come_as_digits() {
        assert_eq!(bytes("00ff"), Some(vec![0, 255]));
        assert_eq!(bytes("\\x00FF"), Some(vec![0, 255]));
        assert_eq!(bytes(""), Some(Vec::new()));
        assert_eq!((bytes("0"), bytes("zz")), (None, None));
    }
}
