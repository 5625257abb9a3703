//! The truth table of Snowflake's types, as far as its double has them.

use sql_templates::LogicalType as L;

use super::{Truth, truth};
use crate::warehouse::waivers::Waiver;

/// Types that the double does not have, and why.
pub const WAIVED: &[Waiver] = &[
    ("varchar(5) collate 'en-ci'", "DuckDB's collations are no part of a type, and fakesnow leaves them out"),
    ("geography", "fakesnow knows no geography"),
    ("vector(float, 3)", "fakesnow knows no vectors"),
];

/// What is true of Snowflake's types. The double's whole numbers have 64 bits, and its objects keep the order of their
/// keys: what lies beyond has its truth in the driver's own tests.
pub const TRUTHS: &[Truth] = &[
    truth("boolean", L::Boolean, &[("true", "false", true, "true"), ("null", "false", true, "∅")]),
    truth(
        "number(38,0)",
        L::Integer,
        &[
            ("1", "2", true, "1"),
            ("null", "0", true, "∅"),
            ("7", "7", false, "7"),
            ("9223372036854775807", "-9223372036854775807", true, "9223372036854775807"),
        ],
    ),
    truth(
        "number(18,3)",
        L::Decimal,
        &[
            ("1.0", "1.000", false, "1.000"),
            ("1.001", "1.002", true, "1.001"),
            ("-0.125", "0.125", true, "-0.125"),
            ("null", "0", true, "∅"),
        ],
    ),
    truth(
        "number(38,10)",
        L::Decimal,
        &[(
            "'1234567890123456789012345678.0123456789'",
            "'1234567890123456789012345678.0123456788'",
            true,
            "1234567890123456789012345678.0123456789",
        )],
    ),
    truth(
        "float",
        L::Float,
        &[
            ("'NaN'", "'NaN'", false, "NaN"),
            ("'NaN'", "null", true, "NaN"),
            ("'-0.0'", "'0.0'", false, "-0.0"),
            ("'inf'", "'-inf'", true, "inf"),
            ("0.1", "0.30000000000000004 - 0.2", true, "0.1"),
        ],
    ),
    truth(
        "varchar",
        L::Text,
        &[
            ("null", "''", true, "∅"),
            ("'a'", "'A'", true, "a"),
            ("'a'", "'a '", true, "a"),
            ("'it''s'", "'its'", true, "it's"),
            (r"'\\'", r"'\\\\'", true, r"\"),
            (r"'it\'s'", "'it''s'", false, "it's"),
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
        "time",
        L::Time,
        &[("'12:34:56.5'", "'12:34:56'", true, "12:34:56.5"), ("'00:00:00'", "null", true, "00:00:00")],
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
        "timestamp_tz",
        L::TimestampTz,
        &[
            ("'2026-11-20 12:00:00+01:00'", "'2026-11-20 11:00:00+00:00'", false, "2026-11-20T11:00:00Z"),
            ("'2026-11-20 12:00:00+01:00'", "'2026-11-20 12:00:00+00:00'", true, "2026-11-20T11:00:00Z"),
        ],
    ),
    truth("binary", L::Binary, &[("to_binary('00ff', 'HEX')", "to_binary('00fe', 'HEX')", true, "00ff")]),
    truth(
        "variant",
        L::Json,
        &[
            ("parse_json('{\"a\":1}')", "parse_json('{\"a\": 1}')", false, "{\"a\":1}"),
            ("parse_json('{\"a\":1}')", "parse_json('{\"a\":2}')", true, "{\"a\":1}"),
            ("parse_json('[1,null,\"x\"]')", "parse_json('[1,null]')", true, "[1,null,\"x\"]"),
            ("null", "parse_json('0')", true, "∅"),
        ],
    ),
];
