//! What is true of MariaDB's types. Columns are declared with the names that `cast` takes where there is such a name.

use sql_templates::LogicalType::{Binary, Date, Decimal, Float, Integer, Text, Time, Timestamp, TimestampTz};

use super::{Truth, truth};

/// Declared types and what a result's column of such a type is called.
pub const DESCRIBED: &[(&str, &str)] = &[
    ("bigint", "signed"),
    ("bigint unsigned", "unsigned"),
    ("text", "char"),
    ("json", "char"),
    ("varchar(20)", "char"),
    ("tinyint(1)", "signed"),
    ("varchar(20) character set latin1", "char"),
    ("enum('x','y')", "char"),
    ("varbinary(20)", "binary"),
];

pub const TRUTHS: &[Truth] = &[
    truth(
        "bigint",
        Integer,
        &[
            ("1", "1", false, "1"),
            ("1", "2", true, "1"),
            ("1", "null", true, "1"),
            ("null", "0", true, "∅"),
            ("null", "null", false, "∅"),
            ("-9223372036854775808", "9223372036854775807", true, "-9223372036854775808"),
        ],
    ),
    truth(
        "bigint unsigned",
        Integer,
        &[
            ("18446744073709551615", "18446744073709551614", true, "18446744073709551615"),
            ("0", "0", false, "0"),
        ],
    ),
    truth("tinyint(1)", Integer, &[("true", "false", true, "1"), ("5", "5", false, "5")]),
    truth("year", Integer, &[("2026", "2025", true, "2026"), ("2026", "2026", false, "2026")]),
    truth("bit(8)", Integer, &[("b'101'", "b'100'", true, "5"), ("b'101'", "5", false, "5")]),
    truth(
        "decimal(38,10)",
        Decimal,
        &[
            ("1.5", "1.50", false, "1.5000000000"),
            ("1.5", "1.6", true, "1.5000000000"),
            (
                "1234567890123456789012345678.0000000001",
                "1234567890123456789012345678",
                true,
                "1234567890123456789012345678.0000000001",
            ),
            ("0", "null", true, "0.0000000000"),
        ],
    ),
    truth(
        "double",
        Float,
        &[
            ("0.1", "0.1", false, "0.1"),
            ("0.1", "0.2", true, "0.1"),
            ("0", "-0.0", false, "0.0"),
            ("1.7976931348623157e308", "1e308", true, "1.7976931348623157e308"),
        ],
    ),
    truth(
        "float",
        Float,
        &[
            ("0.5", "0.25", true, "0.5"),
            ("0.5", "0.5", false, "0.5"),
            ("16777217", "16777218", true, "16777216.0"),
        ],
    ),
    truth(
        "text",
        Text,
        &[
            ("'a'", "'a'", false, "a"),
            ("'a'", "'A'", true, "a"),
            ("'a'", "'a '", true, "a"),
            ("'é'", "'e'", true, "é"),
            ("''", "null", true, ""),
            ("'👍'", "'👎'", true, "👍"),
        ],
    ),
    truth("varchar(20)", Text, &[("'a'", "'a '", true, "a"), ("'ß'", "'ss'", true, "ß")]),
    truth("varchar(20) character set latin1", Text, &[("'é'", "'e'", true, "é"), ("'a'", "'A'", true, "a")]),
    truth("enum('x','y')", Text, &[("'x'", "'y'", true, "x"), ("'x'", "'x'", false, "x")]),
    truth("json", Text, &[("'{\"a\": 1}'", "'{\"a\": 2}'", true, "{\"a\": 1}")]),
    truth(
        "date",
        Date,
        &[
            ("'2026-11-20'", "'2026-11-21'", true, "2026-11-20"),
            ("'2026-11-20'", "'2026-11-20'", false, "2026-11-20"),
        ],
    ),
    truth(
        "datetime(6)",
        Timestamp,
        &[
            (
                "'2026-11-20 10:00:00.000001'",
                "'2026-11-20 10:00:00.000002'",
                true,
                "2026-11-20T10:00:00.000001",
            ),
            ("'2026-11-20 10:00:00'", "'2026-11-20 10:00:00.0'", false, "2026-11-20T10:00:00"),
        ],
    ),
    truth(
        "timestamp(6)",
        TimestampTz,
        &[
            ("'2026-11-20 10:00:00.5'", "'2026-11-20 10:00:00'", true, "2026-11-20T10:00:00.500Z"),
            ("'2026-11-20 10:00:00'", "'2026-11-20 10:00:00'", false, "2026-11-20T10:00:00Z"),
        ],
    ),
    truth(
        "time(6)",
        Time,
        &[
            ("'10:00:00'", "'10:00:01'", true, "10:00:00.000000"),
            ("'10:00:00'", "'10:00:00.0'", false, "10:00:00.000000"),
        ],
    ),
    truth(
        "varbinary(20)",
        Binary,
        &[
            ("x'6162'", "x'6163'", true, "6162"),
            ("x'00ff'", "x'00fe'", true, "00ff"),
            ("x''", "null", true, ""),
        ],
    ),
    truth(
        "geometry",
        Text,
        &[
            ("st_geomfromtext('POINT(1 2)')", "st_geomfromtext('POINT(1 3)')", true, "POINT(1 2)"),
            ("st_geomfromtext('POINT(1 2)')", "st_geomfromtext('POINT(1 2)')", false, "POINT(1 2)"),
        ],
    ),
];
