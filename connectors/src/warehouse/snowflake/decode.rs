//! Snowflake's own forms of values, turned into those that `change.rs` lists.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanBuilder, Date32Builder, Float64Builder, Int64Array,
    Int64Builder, PrimitiveArray, RecordBatch, RecordBatchOptions, StringArray, StringBuilder, StructArray,
    TimestampMicrosecondArray, TimestampNanosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Field, Int32Type, Int64Type, Schema};

use super::super::{ErrorKind, WarehouseError};
use super::link::RowType;

/// What a column is, as far as its values' form goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Integer,
    Decimal(u32),
    Float,
    Boolean,
    Text,
    Binary,
    Date,
    Time(u32),
    Timestamp { scale: u32, zoned: bool },
}

/// A column of a result.
#[derive(Debug, Clone)]
pub(super) struct ResultColumn {
    name: String,
    form: Form,
}

const NANOS: i64 = 1_000_000_000;

impl ResultColumn {
    /// Refuses a type without a form by name.
    pub(super) fn of(column: &RowType) -> Result<Self, WarehouseError> {
        let scale = u32::try_from(column.scale.unwrap_or(0)).ok().filter(|s| *s <= 38).unwrap_or(0);
        let part = scale.min(9);
        let form = match column.kind.to_ascii_lowercase().as_str() {
            "fixed" if scale == 0 => Form::Integer,
            "fixed" => Form::Decimal(scale),
            "real" => Form::Float,
            "boolean" => Form::Boolean,
            "text" | "variant" | "object" | "array" | "map" | "geography" | "geometry" => Form::Text,
            "binary" => Form::Binary,
            "date" => Form::Date,
            "time" => Form::Time(part),
            "timestamp_ntz" => Form::Timestamp { scale: part, zoned: false },
            "timestamp_ltz" | "timestamp_tz" => Form::Timestamp { scale: part, zoned: true },
            other => {
                let message = format!(
                    "column {:?} is of type {}, which levin cannot carry; cast it to varchar",
                    column.name,
                    other.to_uppercase()
                );
                return Err(WarehouseError::new(ErrorKind::Unsupported, message));
            }
        };
        // Templates name their columns in lower case and unquoted, and Snowflake folds that to upper case.
        let folded = !column.name.chars().any(char::is_lowercase);
        let name = if folded { column.name.to_lowercase() } else { column.name.clone() };
        Ok(Self { name, form })
    }

    fn broken(&self, what: &str) -> WarehouseError {
        let message = format!("column {:?}: Snowflake's Arrow cannot be read: {what}", self.name);
        WarehouseError::new(ErrorKind::Other, message)
    }

    /// The column of one batch in Snowflake's Arrow.
    fn carried(&self, array: &ArrayRef) -> Result<ArrayRef, WarehouseError> {
        let to = |data_type: &DataType| cast(array, data_type).map_err(|e| self.broken(&e.to_string()));
        match self.form {
            Form::Integer => self.integers(array),
            Form::Decimal(scale) => {
                let text = self.each_scaled(array)?.map(|v| v.map(|v| decimal(v, scale)));
                Ok(Arc::new(text.collect::<StringArray>()))
            }
            Form::Float => to(&DataType::Float64),
            Form::Boolean => to(&DataType::Boolean),
            Form::Text => to(&DataType::Utf8),
            Form::Binary => to(&DataType::Binary),
            Form::Date => to(&DataType::Date32),
            Form::Time(scale) => {
                let values = to(&DataType::Int64)?;
                let values = values.as_primitive::<Int64Type>();
                let text = values.iter().map(|v| v.map(|v| time(v * power(9 - scale))));
                Ok(Arc::new(text.collect::<StringArray>()))
            }
            Form::Timestamp { scale, zoned } => {
                let instants = match array.data_type() {
                    DataType::Struct(_) => self.of_struct(array.as_struct(), scale)?,
                    _ => {
                        let values = to(&DataType::Int64)?;
                        let values = values.as_primitive::<Int64Type>();
                        values.iter().map(|v| v.map(|v| split(v, scale))).collect()
                    }
                };
                self.timestamps(&instants, zoned)
            }
        }
    }

    fn integers(&self, array: &ArrayRef) -> Result<ArrayRef, WarehouseError> {
        if !matches!(array.data_type(), DataType::Decimal128(..)) {
            return cast(array, &DataType::Int64).map_err(|e| self.broken(&e.to_string()));
        }
        let values = array.as_primitive::<Decimal128Type>();
        let narrow: Option<Vec<Option<i64>>> =
            values.iter().map(|v| v.map(i64::try_from).transpose().ok()).collect();
        Ok(match narrow {
            Some(narrow) => Arc::new(Int64Array::from(narrow)),
            // Beyond 64 bits, as digits.
            None => Arc::new(values.iter().map(|v| v.map(|v| v.to_string())).collect::<StringArray>()),
        })
    }

    /// The numbers of a decimal column without their points.
    fn each_scaled<'a>(
        &self,
        array: &'a ArrayRef,
    ) -> Result<Box<dyn Iterator<Item = Option<i128>> + 'a>, WarehouseError> {
        if let DataType::Decimal128(..) = array.data_type() {
            return Ok(Box::new(array.as_primitive::<Decimal128Type>().iter()));
        }
        let values = cast(array, &DataType::Int64).map_err(|e| self.broken(&e.to_string()))?;
        let values: PrimitiveArray<Int64Type> = values.as_primitive::<Int64Type>().clone();
        Ok(Box::new((0..values.len()).map(move |i| values.is_valid(i).then(|| i128::from(values.value(i))))))
    }

    /// Seconds and nanoseconds of a struct of an epoch, then a fraction or an offset or both. Offsets only say how
    /// an instant was written.
    fn of_struct(&self, values: &StructArray, scale: u32) -> Result<Vec<Option<(i64, i64)>>, WarehouseError> {
        let missing = || self.broken("a timestamp without an epoch");
        let epoch =
            values.column_by_name("epoch").or_else(|| values.columns().first()).ok_or_else(missing)?;
        let epoch = epoch.as_primitive_opt::<Int64Type>().ok_or_else(missing)?;
        let fraction = match values.column_by_name("fraction") {
            Some(fraction) => Some(
                fraction.as_primitive_opt::<Int32Type>().ok_or_else(|| self.broken("a fraction's type"))?,
            ),
            None => None,
        };
        Ok((0..values.len())
            .map(|i| {
                (values.is_valid(i) && epoch.is_valid(i)).then(|| match fraction {
                    Some(fraction) => (epoch.value(i), i64::from(fraction.value(i))),
                    None => split(epoch.value(i), scale),
                })
            })
            .collect())
    }

    /// Microseconds reach all years, nanoseconds from 1677 to 2262: a batch has the finer ones only where it needs them.
    fn timestamps(&self, instants: &[Option<(i64, i64)>], zoned: bool) -> Result<ArrayRef, WarehouseError> {
        let far = || {
            let message = format!(
                "column {:?} holds a timestamp with nanoseconds outside the years 1678 to 2262, or one out of reach; \
                 cast it to a type of at most 6 digits",
                self.name
            );
            WarehouseError::new(ErrorKind::Data, message)
        };
        let zone: Option<Arc<str>> = zoned.then(|| "UTC".into());
        let fine = instants.iter().flatten().any(|(_, nanos)| nanos % 1_000 != 0);
        let (per_second, per_unit) = if fine { (NANOS, 1) } else { (1_000_000, 1_000) };
        let units = instants.iter().map(|instant| {
            instant.map(|(seconds, nanos)| {
                // Wide, so that what lies just within reach is not lost on the way.
                let wide = i128::from(seconds) * i128::from(per_second) + i128::from(nanos / per_unit);
                i64::try_from(wide).map_err(|_| far())
            })
        });
        let units = units.map(Option::transpose).collect::<Result<Vec<_>, _>>()?;
        Ok(if fine {
            Arc::new(TimestampNanosecondArray::from(units).with_timezone_opt(zone))
        } else {
            Arc::new(TimestampMicrosecondArray::from(units).with_timezone_opt(zone))
        })
    }

    /// The column of some rows in Snowflake's JSON.
    fn parsed(&self, rows: &[Vec<Option<String>>], at: usize) -> Result<ArrayRef, WarehouseError> {
        let broken = |text: &str| {
            let message = format!("column {:?}: {text:?} is not how Snowflake writes this type", self.name);
            WarehouseError::new(ErrorKind::Other, message)
        };
        let values = || rows.iter().map(|row| row.get(at).and_then(Option::as_deref));
        macro_rules! built {
            ($builder:expr, $read:expr) => {{
                let mut builder = $builder;
                for value in values() {
                    builder.append_option(value.map(|v| $read(v).ok_or_else(|| broken(v))).transpose()?);
                }
                Arc::new(builder.finish()) as ArrayRef
            }};
        }
        Ok(match self.form {
            Form::Integer if values().flatten().all(|v| v.parse::<i64>().is_ok()) => {
                built!(Int64Builder::new(), |v: &str| v.parse::<i64>().ok())
            }
            Form::Integer | Form::Decimal(_) | Form::Text => {
                built!(StringBuilder::new(), |v: &str| Some(v.to_owned()))
            }
            Form::Float => built!(Float64Builder::new(), |v: &str| match v.to_lowercase().as_str() {
                "inf" => Some(f64::INFINITY),
                "-inf" => Some(f64::NEG_INFINITY),
                v => v.parse::<f64>().ok(),
            }),
            Form::Boolean => built!(BooleanBuilder::new(), |v: &str| match v {
                "1" | "true" | "TRUE" => Some(true),
                "0" | "false" | "FALSE" => Some(false),
                _ => None,
            }),
            Form::Date => built!(Date32Builder::new(), |v: &str| v.parse::<i32>().ok()),
            Form::Binary => {
                let bytes = values().map(|v| v.map(|v| unhex(v).ok_or_else(|| broken(v))).transpose());
                let bytes = bytes.collect::<Result<Vec<_>, _>>()?;
                Arc::new(bytes.iter().map(Option::as_deref).collect::<BinaryArray>())
            }
            Form::Time(_) => built!(StringBuilder::new(), |v: &str| {
                let (seconds, nanos) = seconds_and_nanos(v)?;
                Some(time(seconds * NANOS + nanos))
            }),
            Form::Timestamp { zoned, .. } => {
                let instants = values()
                    .map(|v| v.map(|v| seconds_and_nanos(v).ok_or_else(|| broken(v))).transpose())
                    .collect::<Result<Vec<_>, _>>()?;
                self.timestamps(&instants, zoned)?
            }
        })
    }
}

/// A batch of Snowflake's Arrow in the forms that travel.
pub(super) fn carried(columns: &[ResultColumn], batch: &RecordBatch) -> Result<RecordBatch, WarehouseError> {
    if batch.num_columns() != columns.len() {
        let message = "Snowflake's Arrow has another number of columns than it described";
        return Err(WarehouseError::new(ErrorKind::Other, message));
    }
    let arrays = columns.iter().zip(batch.columns()).map(|(column, array)| column.carried(array));
    assemble(columns, arrays.collect::<Result<_, _>>()?, batch.num_rows())
}

/// Rows of Snowflake's JSON in the forms that travel.
pub(super) fn parsed(
    columns: &[ResultColumn],
    rows: &[Vec<Option<String>>],
) -> Result<RecordBatch, WarehouseError> {
    let arrays = columns.iter().enumerate().map(|(at, column)| column.parsed(rows, at));
    assemble(columns, arrays.collect::<Result<_, _>>()?, rows.len())
}

fn assemble(
    columns: &[ResultColumn],
    arrays: Vec<ArrayRef>,
    rows: usize,
) -> Result<RecordBatch, WarehouseError> {
    let fields = columns.iter().zip(&arrays).map(|(c, a)| Field::new(&c.name, a.data_type().clone(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema, arrays, &options)
        .map_err(|e| WarehouseError::new(ErrorKind::Other, e.to_string()))
}

fn power(exponent: u32) -> i64 {
    10_i64.pow(exponent.min(18))
}

/// Seconds and nanoseconds of a number that has `scale` digits after its point.
fn split(value: i64, scale: u32) -> (i64, i64) {
    let unit = power(scale);
    (value.div_euclid(unit), value.rem_euclid(unit) * power(9 - scale))
}

/// A number that had `scale` digits after its point, in digits.
fn decimal(value: i128, scale: u32) -> String {
    let scale = scale as usize;
    let digits = format!("{:0width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, part) = digits.split_at(digits.len() - scale);
    format!("{}{whole}.{part}", if value < 0 { "-" } else { "" })
}

/// A time of day, from nanoseconds since midnight.
fn time(nanos: i64) -> String {
    let (seconds, part) = (nanos.div_euclid(NANOS), nanos.rem_euclid(NANOS));
    let mut text = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if part != 0 {
        let _ = write!(text, ".{part:09}");
        text.truncate(text.trim_end_matches('0').len());
    }
    text
}

/// `1234.500000000`, and the offset of a timestamp that has one behind it, which is left out.
fn seconds_and_nanos(text: &str) -> Option<(i64, i64)> {
    let number = text.split(' ').next()?;
    let (seconds, part) = number.split_once('.').unwrap_or((number, ""));
    let negative = seconds.starts_with('-');
    let seconds: i64 = seconds.parse().ok()?;
    let nanos: i64 = if part.is_empty() { 0 } else { format!("{part:0<9}").get(..9)?.parse().ok()? };
    // The part belongs to the number as a whole: -1.25 lies before -1.
    Some(if negative && nanos > 0 { (seconds - 1, NANOS - nanos) } else { (seconds, nanos) })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> =
        text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect::<Option<_>>()?;
    if digits.len() % 2 == 1 {
        return None;
    }
    Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
