//! The truth table of PostgreSQL's types.

use sql_templates::LogicalType as L;

use super::{Truth, truth};

/// Types that the tables below use.
pub const SETUP: &[&str] = &[
    "create schema \"my schema\"",
    "create type \"my schema\".\"My Enum\" as enum ('a', 'b''c')",
    "create type pair as (a int, b text)",
    "create domain positive as int check (value > 0)",
    "create collation blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
    "create domain blind_text as text collate blind",
];

/// What is true of PostgreSQL's types.
pub const TRUTHS: &[Truth] = &[
    truth("boolean", L::Boolean, &[("true", "false", true, "true"), ("null", "false", true, "∅")]),
    truth("smallint", L::Integer, &[("1", "2", true, "1")]),
    truth("integer", L::Integer, &[("1", "2", true, "1"), ("null", "0", true, "∅"), ("7", "7", false, "7")]),
    truth(
        "bigint",
        L::Integer,
        &[("9223372036854775807", "9223372036854775806", true, "9223372036854775807")],
    ),
    truth("positive", L::Integer, &[("1", "2", true, "1")]),
    truth("oid", L::Integer, &[("4294967295", "1", true, "4294967295")]),
    truth("xid8", L::Integer, &[("'18446744073709551615'", "'1'", true, "18446744073709551615")]),
    truth(
        "numeric",
        L::Decimal,
        &[
            ("1.0", "1.00", false, "1.0"),
            ("'NaN'", "'NaN'", false, "NaN"),
            ("'Infinity'", "'-Infinity'", true, "Infinity"),
            (
                "123456789012345678901234567890.123456789012345678901",
                "123456789012345678901234567890.123456789012345678902",
                true,
                "123456789012345678901234567890.123456789012345678901",
            ),
            ("null", "0", true, "∅"),
        ],
    ),
    truth("numeric(18,2)", L::Decimal, &[("1", "1.00", false, "1.00"), ("1.01", "1.02", true, "1.01")]),
    truth(
        "double precision",
        L::Float,
        &[
            ("'NaN'", "'NaN'", false, "NaN"),
            ("'NaN'", "null", true, "NaN"),
            ("'-0.0'", "'0.0'", false, "-0.0"),
            ("'Infinity'", "'-Infinity'", true, "inf"),
            ("0.3", "0.1::float8 + 0.2::float8", true, "0.3"),
        ],
    ),
    truth(
        "real",
        L::Float,
        &[("'NaN'", "'NaN'", false, "NaN"), ("'-0.0'", "'0.0'", false, "-0.0"), ("1.5", "1.25", true, "1.5")],
    ),
    truth(
        "text",
        L::Text,
        &[
            ("null", "''", true, "∅"),
            ("'a'", "'A'", true, "a"),
            ("'a'", "'a '", true, "a"),
            ("'it''s'", "'its'", true, "it's"),
            ("'\\'", "'\\\\'", true, "\\"),
            ("U&'\\00e9'", "U&'e\\0301'", true, "é"),
            ("'👩‍👩‍👧'", "'👩‍👩‍👧'", false, "👩‍👩‍👧"),
            ("'null'", "null", true, "null"),
        ],
    ),
    truth("blind_text", L::Text, &[("'a'", "'A'", true, "a")]),
    truth("character varying(20)", L::Text, &[("'a'", "'a '", true, "a")]),
    truth("character(5)", L::Text, &[("'a'", "'a  '", false, "a"), ("'a'", "'b'", true, "a")]),
    truth("name", L::Text, &[("'a'", "'A'", true, "a")]),
    truth("\"char\"", L::Text, &[("'a'", "'b'", true, "a")]),
    truth(
        "inet",
        L::Text,
        &[
            ("'10.0.0.1'", "'10.0.0.1/32'", false, "10.0.0.1/32"),
            ("'10.0.0.1'", "'10.0.0.1/8'", true, "10.0.0.1/32"),
        ],
    ),
    truth("cidr", L::Text, &[("'10.0.0.0/8'", "'10.0.0.0/9'", true, "10.0.0.0/8")]),
    truth("macaddr", L::Text, &[("'08:00:2b:01:02:03'", "'08-00-2b-01-02-04'", true, "08:00:2b:01:02:03")]),
    truth("money", L::Text, &[("'1.00'", "'1.01'", true, "$1.00")]),
    truth(
        "date",
        L::Date,
        &[("'2026-11-20'", "'2026-11-21'", true, "2026-11-20"), ("null", "'2026-11-21'", true, "∅")],
    ),
    truth(
        "timestamp without time zone",
        L::Timestamp,
        &[("'2026-11-20 12:00:00.000001'", "'2026-11-20 12:00:00'", true, "2026-11-20T12:00:00.000001")],
    ),
    truth(
        "timestamp(3) without time zone",
        L::Timestamp,
        &[
            ("'2026-11-20 12:00:00.0001'", "'2026-11-20 12:00:00'", false, "2026-11-20T12:00:00"),
            ("'2026-11-20 12:00:00.001'", "'2026-11-20 12:00:00'", true, "2026-11-20T12:00:00.001"),
        ],
    ),
    truth(
        "timestamp with time zone",
        L::TimestampTz,
        &[
            ("'2026-11-20 12:00:00+01'", "'2026-11-20 11:00:00+00'", false, "2026-11-20T11:00:00Z"),
            ("'2026-11-20 12:00:00+01'", "'2026-11-20 12:00:00+00'", true, "2026-11-20T11:00:00Z"),
        ],
    ),
    truth(
        "timestamp(3) with time zone",
        L::TimestampTz,
        &[("'2026-11-20 12:00:00.5+01'", "'2026-11-20 12:00:00+01'", true, "2026-11-20T11:00:00.500Z")],
    ),
    truth("time without time zone", L::Time, &[("'12:00:00.5'", "'12:00:00'", true, "12:00:00.5")]),
    truth("time(3) without time zone", L::Time, &[("'12:00:00.5'", "'12:00:00'", true, "12:00:00.5")]),
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
    truth("interval day to second(3)", L::Interval, &[("'1 day'", "'24 hours'", true, "P1D")]),
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
    truth("bytea", L::Binary, &[("'\\xAA00'", "'\\xAA'", true, "aa00"), ("null", "''", true, "∅")]),
    truth(
        "jsonb",
        L::Json,
        &[
            ("'{\"a\":1,\"b\":2}'", "'{\"b\":2,\"a\":1}'", false, "{\"a\": 1, \"b\": 2}"),
            ("'null'", "null", true, "null"),
            ("'9007199254740993'", "'9007199254740992'", true, "9007199254740993"),
        ],
    ),
    truth(
        "json",
        L::Json,
        &[
            (
                "'{\"a\":1,\"b\":{\"c\":[1,2],\"d\":null}}'",
                "'{ \"b\":{\"d\":null,\"c\":[1,2]}, \"a\":1 }'",
                false,
                "{\"a\":1,\"b\":{\"c\":[1,2],\"d\":null}}",
            ),
            ("'{\"a\":1}'", "'{\"a\":\"1\"}'", true, "{\"a\":1}"),
            ("'[1,2]'", "'[2,1]'", true, "[1,2]"),
            ("'null'", "null", true, "null"),
            ("'true'", "'1'", true, "true"),
        ],
    ),
    truth(
        "integer[]",
        L::Json,
        &[
            ("'{1,2}'", "'{2,1}'", true, "[1, 2]"),
            ("'{}'", "null", true, "[]"),
            ("'{null}'", "'{}'", true, "[null]"),
            ("'{{1},{2}}'", "'{1,2}'", true, "[[1], [2]]"),
        ],
    ),
    truth("text[]", L::Json, &[("'{\"null\"}'", "'{null}'", true, "[\"null\"]")]),
    truth(
        "numeric(18,2)[]",
        L::Json,
        &[("'{1}'", "'{1.00}'", false, "[1.00]"), ("'{1}'", "'{1.01}'", true, "[1.00]")],
    ),
    truth(
        "json[]",
        L::Json,
        &[
            ("array['{\"a\":1,\"b\":2}']", "array['{\"b\":2,\"a\":1}']", false, "[{\"a\": 1, \"b\": 2}]"),
            ("array['1']", "array['2']", true, "[1]"),
        ],
    ),
    truth("interval[]", L::Json, &[("array['1 month']", "array['30 days']", true, "[\"P1M\"]")]),
    truth("bit(3)", L::Text, &[("'101'", "'100'", true, "101")]),
    truth(
        "int4range",
        L::Text,
        &[("'[1,3)'", "'[1,2]'", false, "[1,3)"), ("'[1,3)'", "'[1,4)'", true, "[1,3)")],
    ),
    truth("point", L::Text, &[("'(1,2)'", "'(1,3)'", true, "(1,2)"), ("null", "'(1,3)'", true, "∅")]),
    truth("xml", L::Text, &[("'<a/>'", "'<b/>'", true, "<a/>")]),
    truth("\"my schema\".\"My Enum\"", L::Text, &[("'b''c'", "'a'", true, "b'c")]),
    truth("pair", L::Text, &[("row(1, null)", "row(1, '')", true, "(1,)")]),
];
