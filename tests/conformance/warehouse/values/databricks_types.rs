//! The truth table of Databricks' types, as far as its double has them; `doubles/databricks_spark.py` asks Spark the same.

use sql_templates::LogicalType as L;

use super::{Truth, truth};
use crate::warehouse::waivers::Waiver;

/// Types that the double does not have, and why.
pub const WAIVED: &[Waiver] = &[(
    "string collate utf8_lcase",
    "DuckDB's collations are no part of a type; Spark shows that a comparison without one tells texts apart",
)];

/// What is true of Databricks' types.
pub const TRUTHS: &[Truth] = &[
    truth("boolean", L::Boolean, &[("true", "false", true, "true"), ("null", "false", true, "∅")]),
    truth("int", L::Integer, &[("1", "2", true, "1"), ("null", "0", true, "∅"), ("7", "7", false, "7")]),
    truth("tinyint", L::Integer, &[("-128", "127", true, "-128")]),
    truth("smallint", L::Integer, &[("-32768", "0", true, "-32768")]),
    truth(
        "bigint",
        L::Integer,
        &[("9223372036854775807", "-9223372036854775807", true, "9223372036854775807")],
    ),
    truth(
        "decimal(18,3)",
        L::Decimal,
        &[
            ("1.0", "1.000", false, "1.000"),
            ("1.001", "1.002", true, "1.001"),
            ("-0.125", "0.125", true, "-0.125"),
            ("null", "0", true, "∅"),
        ],
    ),
    truth(
        "decimal(38,10)",
        L::Decimal,
        &[(
            "'1234567890123456789012345678.0123456789'",
            "'1234567890123456789012345678.0123456788'",
            true,
            "1234567890123456789012345678.0123456789",
        )],
    ),
    truth(
        "double",
        L::Float,
        &[
            ("'NaN'", "'NaN'", false, "NaN"),
            ("'NaN'", "null", true, "NaN"),
            ("'-0.0'", "'0.0'", false, "-0.0"),
            ("'Infinity'", "'-Infinity'", true, "inf"),
            ("0.1", "0.30000000000000004 - 0.2", true, "0.1"),
        ],
    ),
    truth("float", L::Float, &[("0.5", "0.25", true, "0.5")]),
    truth(
        "string",
        L::Text,
        &[
            ("null", "''", true, "∅"),
            ("'a'", "'A'", true, "a"),
            ("'a'", "'a '", true, "a"),
            ("'it''s'", "'its'", true, "it's"),
            (r"'\'", r"'\\'", true, r"\"),
            ("'👩‍👩‍👧'", "'👩‍👩‍👧'", false, "👩‍👩‍👧"),
            ("'null'", "null", true, "null"),
        ],
    ),
    truth(
        "date",
        L::Date,
        &[("'2026-11-20'", "'2026-11-21'", true, "2026-11-20"), ("null", "'1969-12-31'", true, "∅")],
    ),
    truth(
        "timestamp_ntz",
        L::Timestamp,
        &[
            ("'2026-11-20 12:00:00.000001'", "'2026-11-20 12:00:00'", true, "2026-11-20T12:00:00.000001"),
            ("'1969-12-31 23:59:59.5'", "null", true, "1969-12-31T23:59:59.500"),
        ],
    ),
    truth(
        "timestamp",
        L::TimestampTz,
        &[
            ("'2026-11-20 12:00:00+01:00'", "'2026-11-20 11:00:00+00:00'", false, "2026-11-20T11:00:00Z"),
            ("'2026-11-20 12:00:00+01:00'", "'2026-11-20 12:00:00+00:00'", true, "2026-11-20T11:00:00Z"),
        ],
    ),
    truth("binary", L::Binary, &[("x'00ff'", "x'00fe'", true, "00ff")]),
    truth(
        "array<int>",
        L::Json,
        &[
            ("array(1, null)", "array(1)", true, "[1,null]"),
            ("array(1, 2)", "array(2, 1)", true, "[1,2]"),
            ("array(1, 2)", "array(1, 2)", false, "[1,2]"),
            ("null", "array()", true, "∅"),
        ],
    ),
    truth(
        "variant",
        L::Json,
        &[
            ("parse_json('{\"a\":1}')", "parse_json('{\"a\":2}')", true, "{\"a\":1}"),
            ("parse_json('[1,null,\"x\"]')", "parse_json('[1,null]')", true, "[1,null,\"x\"]"),
            ("null", "parse_json('0')", true, "∅"),
        ],
    ),
];
