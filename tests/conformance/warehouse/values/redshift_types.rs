//! What is true of Redshift's types.

use sql_templates::LogicalType::{
    Binary, Boolean, Date, Decimal, Float, Integer, Json, Text, Time, Timestamp, TimestampTz,
};

use super::{Truth, truth};

pub const TRUTHS: &[Truth] = &[
    truth(
        "boolean",
        Boolean,
        &[("true", "false", true, "true"), ("null", "false", true, "∅"), ("true", "true", false, "true")],
    ),
    truth("smallint", Integer, &[("1", "2", true, "1"), ("null", "0", true, "∅")]),
    truth(
        "bigint",
        Integer,
        &[
            ("9223372036854775807", "9223372036854775806", true, "9223372036854775807"),
            ("-9223372036854775808", "0", true, "-9223372036854775808"),
            ("null", "null", false, "∅"),
        ],
    ),
    truth(
        "numeric(38,10)",
        Decimal,
        &[
            ("1.5", "1.50", false, "1.5000000000"),
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
        "real",
        Float,
        &[
            ("0.5", "0.25", true, "0.5"),
            ("'NaN'", "'NaN'", false, "NaN"),
            ("'-0.0'", "'0.0'", false, "-0.0"),
            ("16777216", "16777218", true, "16777216.0"),
        ],
    ),
    truth(
        "double precision",
        Float,
        &[
            ("0.1", "0.2", true, "0.1"),
            ("0.3", "cast(0.1 as double precision) + cast(0.2 as double precision)", true, "0.3"),
            ("'NaN'", "'NaN'", false, "NaN"),
            ("'NaN'", "null", true, "NaN"),
            ("'-0.0'", "'0.0'", false, "-0.0"),
            ("1.7976931348623157e308", "1e308", true, "1.7976931348623157e308"),
        ],
    ),
    truth(
        "character varying(40)",
        Text,
        &[
            ("'a'", "'A'", true, "a"),
            // No difference to the engine, whose comparisons do not see spaces at the end; one to a destination.
            ("'a'", "'a '", true, "a"),
            ("'it''s'", "'its'", true, "it's"),
            ("'back\\\\slash'", "'backslash'", true, "back\\slash"),
            ("'é'", "'e'", true, "é"),
            ("''", "null", true, ""),
            ("'👍'", "'👎'", true, "👍"),
        ],
    ),
    truth("character(5)", Text, &[("'a'", "'b'", true, "a"), ("'a'", "'a  '", false, "a")]),
    truth(
        "date",
        Date,
        &[("'2026-11-20'", "'2026-11-21'", true, "2026-11-20"), ("null", "'2026-11-21'", true, "∅")],
    ),
    truth(
        "timestamp without time zone",
        Timestamp,
        &[
            ("'2026-11-20 12:00:00.000001'", "'2026-11-20 12:00:00'", true, "2026-11-20T12:00:00.000001"),
            ("'2026-11-20 12:00:00'", "'2026-11-20 12:00:00.0'", false, "2026-11-20T12:00:00"),
            ("'0044-03-15 12:00:00 BC'", "'0044-03-15 12:00:00'", true, "-0043-03-15T12:00:00"),
        ],
    ),
    truth(
        "timestamp with time zone",
        TimestampTz,
        &[
            ("'2026-11-20 12:00:00+01'", "'2026-11-20 11:00:00+00'", false, "2026-11-20T11:00:00Z"),
            ("'2026-11-20 12:00:00.5+01'", "'2026-11-20 12:00:00+00'", true, "2026-11-20T11:00:00.500Z"),
        ],
    ),
    truth(
        "time without time zone",
        Time,
        &[
            ("'10:00:00'", "'10:00:01'", true, "10:00:00"),
            ("'10:00:00.5'", "'10:00:00.50'", false, "10:00:00.5"),
        ],
    ),
    truth(
        "varbyte",
        Binary,
        &[
            ("to_varbyte('6162', 'hex')", "to_varbyte('6163', 'hex')", true, "6162"),
            ("to_varbyte('00ff', 'hex')", "to_varbyte('00ff', 'hex')", false, "00ff"),
            ("to_varbyte('', 'hex')", "null", true, ""),
        ],
    ),
    // The bytes of its text.
    truth(
        "super",
        Json,
        &[
            ("json_parse('{\"a\":1}')", "json_parse('{\"a\":2}')", true, "7b2261223a317d"),
            ("json_parse('[1,\"b\"]')", "json_parse('[1,\"b\"]')", false, "5b312c2262225d"),
            ("null", "json_parse('0')", true, "∅"),
            ("null", "json_parse('null')", true, "∅"),
            ("json_parse('null')", "null", true, "6e756c6c"),
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
