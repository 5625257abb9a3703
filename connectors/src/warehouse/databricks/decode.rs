//! Databricks' own forms of values, turned into those that `change.rs` lists.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Field, Schema, TimeUnit};
use sql_templates::{Column, Dialect};

use crate::warehouse::{ErrorKind, WarehouseError};

/// The names by which levin's statements speak of a row from inside a subquery. Spark looks for a column of that name in
/// the subquery first, and for a field in it.
const SPOKEN_OF: [&str; 5] = ["d", "f", "m", "s", "t"];

/// A column as a select was described.
pub(super) fn column(name: String, engine_type: String) -> Result<Column, WarehouseError> {
    if SPOKEN_OF.iter().any(|taken| name.eq_ignore_ascii_case(taken)) {
        let message =
            format!("a column must not be called {name:?} in Databricks; give it another name with `as`");
        return Err(WarehouseError::new(ErrorKind::Unsupported, message));
    }
    let Some(fact) = Dialect::Databricks.type_fact(&engine_type) else {
        let message =
            format!("column {name:?} is of type {engine_type}, which levin cannot carry; cast it to string");
        return Err(WarehouseError::new(ErrorKind::Unsupported, message));
    };
    Ok(Column { name, engine_type, logical: fact.logical })
}

/// A batch in the forms that travel.
pub(super) fn carried(batch: &RecordBatch) -> Result<RecordBatch, WarehouseError> {
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns());
    let arrays = columns.map(|(field, array)| one(field, array)).collect::<Result<Vec<_>, _>>()?;
    let fields = schema.fields().iter().zip(&arrays);
    let fields = fields.map(|(f, a)| Field::new(f.name(), a.data_type().clone(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema, arrays, &options)
        .map_err(|e| WarehouseError::new(ErrorKind::Other, e.to_string()))
}

fn one(field: &Field, array: &ArrayRef) -> Result<ArrayRef, WarehouseError> {
    let to = |data_type: &DataType| {
        cast(array, data_type).map_err(|e| {
            let message = format!("column {:?}: Databricks' Arrow cannot be read: {e}", field.name());
            WarehouseError::new(ErrorKind::Other, message)
        })
    };
    match array.data_type() {
        DataType::Boolean
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Utf8
        | DataType::Binary
        | DataType::Date32 => Ok(array.clone()),
        DataType::Int8 => to(&DataType::Int16),
        DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => to(&DataType::Utf8),
        DataType::LargeBinary | DataType::BinaryView => to(&DataType::Binary),
        DataType::Decimal128(_, scale) => {
            let scale = usize::try_from(*scale).unwrap_or(0);
            let values = array.as_primitive::<Decimal128Type>().iter();
            Ok(Arc::new(values.map(|v| v.map(|v| decimal(v, scale))).collect::<StringArray>()))
        }
        DataType::Timestamp(_, zone) => {
            // An instant is the same in every zone.
            let zone = zone.as_ref().map(|_| "UTC".into());
            to(&DataType::Timestamp(TimeUnit::Microsecond, zone))
        }
        other => {
            let message = format!(
                "column {:?} comes as {other}, which levin cannot carry; cast it to string",
                field.name()
            );
            Err(WarehouseError::new(ErrorKind::Unsupported, message))
        }
    }
}

/// A number that has `scale` digits after its point, in digits.
fn decimal(value: i128, scale: usize) -> String {
    if scale == 0 {
        return value.to_string();
    }
    let digits = format!("{:0width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, part) = digits.split_at(digits.len() - scale);
    format!("{}{whole}.{part}", if value < 0 { "-" } else { "" })
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        Decimal128Array, DurationSecondArray, Int8Array, LargeStringArray, NullArray,
        TimestampMillisecondArray,
    };
    use arrow::datatypes::{Int16Type, TimestampMicrosecondType};
    use sql_templates::LogicalType;

    use super::*;

    fn turned(array: impl Array + 'static) -> Result<ArrayRef, WarehouseError> {
        let array: ArrayRef = Arc::new(array);
        let batch = RecordBatch::try_from_iter_with_nullable([("c", array, true)]).unwrap();
        carried(&batch).map(|batch| batch.column(0).clone())
    }

    #[test]
    fn values_come_in_the_forms_that_travel() {
        let small = turned(Int8Array::from(vec![Some(-1), None])).unwrap();
        assert_eq!(small.as_primitive::<Int16Type>().iter().collect::<Vec<_>>(), [Some(-1), None]);
        for (values, scale, texts) in [
            (vec![Some(150), Some(-5), None], 2, [Some("1.50"), Some("-0.05"), None]),
            (
                vec![Some(0), Some(10_i128.pow(37)), Some(-7)],
                0,
                [Some("0"), Some("10000000000000000000000000000000000000"), Some("-7")],
            ),
        ] {
            let array = Decimal128Array::from(values).with_precision_and_scale(38, scale).unwrap();
            assert_eq!(turned(array).unwrap().as_string::<i32>().iter().collect::<Vec<_>>(), texts);
        }
        let instants = TimestampMillisecondArray::from(vec![Some(-1), None]).with_timezone("Europe/Berlin");
        let instants = turned(instants).unwrap();
        assert_eq!(instants.as_primitive::<TimestampMicrosecondType>().value(0), -1_000);
        assert_eq!(instants.data_type(), &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())));
        let text = turned(LargeStringArray::from(vec!["x"])).unwrap();
        assert_eq!(text.as_string::<i32>().value(0), "x");
        assert!(turned(NullArray::new(2)).unwrap().is_null(1));
        let refused = turned(DurationSecondArray::from(vec![1])).unwrap_err();
        assert!(refused.message.contains("cast it"), "{refused}");
        let none = RecordBatch::try_new_with_options(
            Arc::new(Schema::empty()),
            Vec::new(),
            &RecordBatchOptions::new().with_row_count(Some(3)),
        );
        assert_eq!(carried(&none.unwrap()).unwrap().num_rows(), 3);
    }

    #[test]
    fn columns_have_the_types_of_their_description() {
        let described = |kind: &str| column("c".into(), kind.into());
        for (kind, logical) in [
            ("decimal(10,2)", LogicalType::Decimal),
            ("timestamp", LogicalType::TimestampTz),
            ("timestamp_ntz", LogicalType::Timestamp),
            ("struct<a:decimal(10,2),b:array<int>>", LogicalType::Json),
            ("map<string,int>", LogicalType::Json),
            ("string collate UTF8_LCASE", LogicalType::Text),
        ] {
            assert_eq!(described(kind).unwrap().logical, logical, "{kind}");
        }
        for taken in ["d", "T"] {
            let refused = column(taken.into(), "int".into()).unwrap_err();
            assert!(refused.kind == ErrorKind::Unsupported && refused.message.contains("`as`"), "{refused}");
        }
        for kind in ["interval day to second", "void", "geometry(4326)"] {
            assert_eq!(described(kind).unwrap_err().kind, ErrorKind::Unsupported, "{kind}");
        }
    }
}
