//! The truth table of DuckDB's types.

use sql_templates::LogicalType as L;

use super::{Truth, truth};

/// What is true of DuckDB's types.
pub const TRUTHS: &[Truth] = &[
    truth("boolean", L::Boolean, &[("true", "false", true, "true"), ("null", "false", true, "∅")]),
    truth("tinyint", L::Integer, &[("-128", "127", true, "-128")]),
    truth("smallint", L::Integer, &[("1", "2", true, "1")]),
    truth("integer", L::Integer, &[("1", "2", true, "1"), ("null", "0", true, "∅"), ("7", "7", false, "7")]),
    truth(
        "bigint",
        L::Integer,
        &[("9223372036854775807", "9223372036854775806", true, "9223372036854775807")],
    ),
    truth(
        "ubigint",
        L::Integer,
        &[("18446744073709551615", "18446744073709551614", true, "18446744073709551615")],
    ),
    truth(
        "hugeint",
        L::Integer,
        &[
            (
                "170141183460469231731687303715884105727",
                "170141183460469231731687303715884105726",
                true,
                "170141183460469231731687303715884105727",
            ),
            ("-1", "null", true, "-1"),
        ],
    ),
    truth(
        "uhugeint",
        L::Integer,
        &[(
            "340282366920938463463374607431768211455",
            "340282366920938463463374607431768211454",
            true,
            "340282366920938463463374607431768211455",
        )],
    ),
    truth(
        "bignum",
        L::Integer,
        &[(
            "'1234567890123456789012345678901234567890123'",
            "'1234567890123456789012345678901234567890124'",
            true,
            "1234567890123456789012345678901234567890123",
        )],
    ),
    truth(
        "decimal(18,3)",
        L::Decimal,
        &[("1.0", "1.000", false, "1.000"), ("1.001", "1.002", true, "1.001"), ("null", "0", true, "∅")],
    ),
    truth(
        "decimal(3,3)",
        L::Decimal,
        &[
            ("0.125", "0.126", true, "0.125"),
            ("-0.125", "0.125", true, "-0.125"),
            ("0", "-0.5", true, "0.000"),
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
            ("'nan'", "'nan'", false, "NaN"),
            ("'nan'", "null", true, "NaN"),
            ("'-0.0'", "'0.0'", false, "-0.0"),
            ("'inf'", "'-inf'", true, "inf"),
            ("0.1", "0.30000000000000004 - 0.2", true, "0.1"),
        ],
    ),
    truth(
        "float",
        L::Float,
        &[("'nan'", "'nan'", false, "NaN"), ("'-0.0'", "'0.0'", false, "-0.0"), ("1.5", "1.25", true, "1.5")],
    ),
    truth(
        "varchar",
        L::Text,
        &[
            ("null", "''", true, "∅"),
            ("'a'", "'A'", true, "a"),
            ("'a'", "'a '", true, "a"),
            ("'it''s'", "'its'", true, "it's"),
            ("'\\'", "'\\\\'", true, "\\"),
            ("'é'", "'e' || chr(769)", true, "é"),
            ("'👩‍👩‍👧'", "'👩‍👩‍👧'", false, "👩‍👩‍👧"),
            ("'null'", "null", true, "null"),
        ],
    ),
    truth("enum('a', 'b''c')", L::Text, &[("'b''c'", "'a'", true, "b'c"), ("null", "'a'", true, "∅")]),
    truth("date", L::Date, &[("'2026-11-20'", "'2026-11-21'", true, "2026-11-20")]),
    truth(
        "timestamp",
        L::Timestamp,
        &[("'2026-11-20 12:00:00.000001'", "'2026-11-20 12:00:00'", true, "2026-11-20T12:00:00.000001")],
    ),
    truth(
        "timestamp_ns",
        L::Timestamp,
        &[(
            "'2026-11-20 12:00:00.000000001'",
            "'2026-11-20 12:00:00'",
            true,
            "2026-11-20T12:00:00.000000001",
        )],
    ),
    truth(
        "timestamp_s",
        L::Timestamp,
        &[("'2026-11-20 12:00:01'", "'2026-11-20 12:00:00'", true, "2026-11-20T12:00:01")],
    ),
    truth(
        "timestamp with time zone",
        L::TimestampTz,
        &[
            ("'2026-11-20 12:00:00+01'", "'2026-11-20 11:00:00+00'", false, "2026-11-20T11:00:00Z"),
            ("'2026-11-20 12:00:00+01'", "'2026-11-20 12:00:00+00'", true, "2026-11-20T11:00:00Z"),
        ],
    ),
    truth("time", L::Time, &[("'12:00:00.5'", "'12:00:00'", true, "12:00:00.5")]),
    truth("time with time zone", L::Time, &[("'12:00:00+02'", "'10:00:00+00'", true, "12:00:00+02")]),
    truth(
        "interval",
        L::Interval,
        &[
            ("'1 month'", "'30 days'", true, "P1M"),
            ("'24 hours'", "'1 day'", true, "PT24H"),
            ("'1 year'", "'12 months'", false, "P1Y"),
            ("'14 months 3 days 4 hours 5 minutes 6.5 seconds'", "'0 days'", true, "P1Y2M3DT4H5M6.5S"),
            ("'-1 day'", "null", true, "P-1D"),
            ("'-100.000001 seconds'", "'100 seconds'", true, "PT-1M-40.000001S"),
            ("'-0.5 seconds'", "'0 seconds'", true, "PT-0.5S"),
            ("'0 seconds'", "null", true, "PT0S"),
            ("'-1 year 1 month 2 days -3 hours'", "'0 seconds'", true, "P-11M2DT-3H"),
        ],
    ),
    truth(
        "uuid",
        L::Uuid,
        &[
            (
                "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'",
                "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
                false,
                "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            ),
            (
                "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
                "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12'",
                true,
                "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            ),
        ],
    ),
    truth("blob", L::Binary, &[("'\\xAA\\x00'", "'\\xAA'", true, "aa00"), ("null", "''", true, "∅")]),
    truth("bit", L::Text, &[("'0101'", "'101'", true, "0101")]),
    truth(
        "json",
        L::Json,
        &[
            // JSON is text here: the order of keys counts, white space and escapes do not.
            ("'{\"a\":1,\"b\":\"é\"}'", "'{ \"a\" : 1, \"b\":\"\\u00e9\"}'", false, "{\"a\":1,\"b\":\"é\"}"),
            ("'{\"a\":1,\"b\":2}'", "'{\"b\":2,\"a\":1}'", true, "{\"a\":1,\"b\":2}"),
            (
                "'123456789012345678901234567890'",
                "'123456789012345678901234567891'",
                true,
                "123456789012345678901234567890",
            ),
            (
                "'{\"a\":1,\"b\":{\"c\":[1,2],\"d\":null}}'",
                "'{\"a\":1,\"b\":{\"c\":[1,2],\"d\":null}}'",
                false,
                "{\"a\":1,\"b\":{\"c\":[1,2],\"d\":null}}",
            ),
            ("'{\"a\":1}'", "'{\"a\":\"1\"}'", true, "{\"a\":1}"),
            ("'[1,2]'", "'[2,1]'", true, "[1,2]"),
            ("'null'", "null", true, "null"),
            ("'{}'", "'{\"a\":null}'", true, "{}"),
            ("'\"1\"'", "'1'", true, "\"1\""),
            ("'true'", "'1'", true, "true"),
            ("'{\"a\":1}'", "'{\"a\":2}'", true, "{\"a\":1}"),
            ("'9007199254740993'", "'9007199254740992'", true, "9007199254740993"),
            ("'{\"a\":\"2026-01-01\"}'", "'{\"a\":\"2026-01-02\"}'", true, "{\"a\":\"2026-01-01\"}"),
        ],
    ),
    truth(
        "integer[]",
        L::Json,
        &[
            ("[1,2]", "[2,1]", true, "[1,2]"),
            ("[]", "null", true, "[]"),
            ("[null]", "[]", true, "[null]"),
            ("[1]", "[1]", false, "[1]"),
        ],
    ),
    truth(
        "varchar[]",
        L::Json,
        &[("['null']", "[null]", true, "[\"null\"]"), ("['a\"b']", "['a']", true, "[\"a\\\"b\"]")],
    ),
    truth("interval[]", L::Json, &[("[interval '1 month']", "[interval '30 days']", true, "[\"1 month\"]")]),
    truth(
        "double[]",
        L::Json,
        &[
            ("['-0.0']", "['0.0']", true, "[-0.0]"),
            ("['nan', 'inf']", "['nan', 'inf']", false, "[NaN,Infinity]"),
        ],
    ),
    truth("integer[2]", L::Json, &[("[1,2]", "[1,3]", true, "[1,2]")]),
    truth(
        "struct(a integer, b varchar)",
        L::Json,
        &[
            ("{'a': 1, 'b': null}", "null", true, "{\"a\":1,\"b\":null}"),
            ("{'a': 1, 'b': 'x'}", "{'a': 1, 'b': 'y'}", true, "{\"a\":1,\"b\":\"x\"}"),
        ],
    ),
    truth("map(varchar, integer)", L::Json, &[("map {'x': 1}", "map {'x': 2}", true, "{\"x\":1}")]),
    truth(
        "union(n integer, s varchar)",
        L::Json,
        &[("union_value(n := 1)", "union_value(s := '1')", true, "{\"n\":1}")],
    ),
];
