//! The truth table of BigQuery's types.

use sql_templates::LogicalType as L;

use super::{Truth, truth};

/// What is true of BigQuery's types. Values are written as the tests write them: a quote stands twice in a text.
pub const TRUTHS: &[Truth] = &[
    truth("bool", L::Boolean, &[("true", "false", true, "true"), ("null", "false", true, "∅")]),
    truth(
        "int64",
        L::Integer,
        &[
            ("9223372036854775807", "9223372036854775806", true, "9223372036854775807"),
            ("null", "0", true, "∅"),
            ("7", "7", false, "7"),
        ],
    ),
    truth(
        "numeric",
        L::Decimal,
        &[
            ("1.0", "1.000", false, "1"),
            ("1.001", "1.002", true, "1.001"),
            ("-0.125", "0.125", true, "-0.125"),
            ("null", "0", true, "∅"),
            // The double has no more than 18 digits for what is cast, three of them behind the point.
            ("'123456789012345.678'", "'123456789012345.677'", true, "123456789012345.678"),
        ],
    ),
    truth("bignumeric", L::Decimal, &[("1.5", "1.25", true, "1.5"), ("'1.0'", "'1.000'", false, "1")]),
    truth(
        "float64",
        L::Float,
        &[
            ("'nan'", "'nan'", false, "NaN"),
            ("'nan'", "null", true, "NaN"),
            ("'-0.0'", "'0.0'", false, "-0.0"),
            ("'inf'", "'-inf'", true, "inf"),
            ("0.1", "0.30000000000000004 - 0.2", true, "0.1"),
        ],
    ),
    truth(
        "string",
        L::Text,
        &[
            ("null", "''", true, "∅"),
            ("'a'", "'A'", true, "a"),
            ("'a'", "'a '", true, "a"),
            ("'it''s'", "'its'", true, "it's"),
            ("'\\'", "'\\\\'", true, "\\"),
            ("'é'", "'e\u{301}'", true, "é"),
            ("'👩‍👩‍👧'", "'👩‍👩‍👧'", false, "👩‍👩‍👧"),
            ("'null'", "null", true, "null"),
            ("'\"null\"'", "'null'", true, "\"null\""),
        ],
    ),
    truth("date", L::Date, &[("'2026-11-20'", "'2026-11-21'", true, "2026-11-20")]),
    truth(
        "datetime",
        L::Timestamp,
        &[("'2026-11-20 12:00:00.000001'", "'2026-11-20 12:00:00'", true, "2026-11-20T12:00:00.000001")],
    ),
    truth(
        "timestamp",
        L::TimestampTz,
        &[
            ("'2026-11-20 12:00:00+01'", "'2026-11-20 11:00:00+00'", false, "2026-11-20T11:00:00Z"),
            ("'2026-11-20 12:00:00+01'", "'2026-11-20 12:00:00+00'", true, "2026-11-20T11:00:00Z"),
        ],
    ),
    truth("time", L::Time, &[("'12:00:00.5'", "'12:00:00'", true, "12:00:00.5")]),
    truth(
        "interval",
        L::Interval,
        &[
            ("interval 1 month", "interval 30 day", true, "P1M"),
            ("interval 24 hour", "interval 1 day", true, "PT24H"),
            ("interval 1 year", "interval 12 month", false, "P1Y"),
            ("interval 1 day", "null", true, "P1D"),
            ("interval 0 second", "null", true, "PT0S"),
        ],
    ),
    truth(
        "bytes",
        L::Binary,
        &[("from_base64('qgA=')", "from_base64('qg==')", true, "aa00"), ("null", "b''", true, "∅")],
    ),
    truth(
        "json",
        L::Json,
        &[
            ("json '{\"a\":1}'", "json '{\"a\":2}'", true, "{\"a\":1}"),
            ("json '{\"a\":1}'", "json '{ \"a\" : 1 }'", false, "{\"a\":1}"),
            ("json '{\"a\":1}'", "json '{\"a\":\"1\"}'", true, "{\"a\":1}"),
            ("json '[1,2]'", "json '[2,1]'", true, "[1,2]"),
            ("json 'null'", "null", true, "null"),
            ("json '{}'", "json '{\"a\":null}'", true, "{}"),
        ],
    ),
    truth(
        "array<int64>",
        L::Json,
        &[
            ("[1,2]", "[2,1]", true, "[1,2]"),
            // A table holds no null list.
            ("[]", "null", false, "[]"),
            ("[1]", "[1]", false, "[1]"),
        ],
    ),
    truth("array<string>", L::Json, &[("['a\"b']", "['a']", true, "[\"a\\\"b\"]")]),
    truth(
        "struct<a int64, b string>",
        L::Json,
        &[
            ("struct(1 as a, 'x' as b)", "struct(1 as a, 'y' as b)", true, "{\"a\":1,\"b\":\"x\"}"),
            ("struct(1 as a, cast(null as string) as b)", "null", true, "{\"a\":1,\"b\":null}"),
        ],
    ),
    truth("geography", L::Text, &[("st_geogpoint(1, 2)", "st_geogpoint(2, 1)", true, "POINT(1 2)")]),
    truth(
        "range<date>",
        L::Text,
        &[(
            "range<date> '[2026-01-01, 2026-01-02)'",
            "range<date> '[2026-01-01, UNBOUNDED)'",
            true,
            "[2026-01-01, 2026-01-02)",
        )],
    ),
];
