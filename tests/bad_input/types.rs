//! Keys of every type, and values of types that no field of a CRM has.

use serde_json::{Value, json};
use tests::on_both_warehouses;
use tests::project::{Engine, Run};
use tests::receiver::Request;

use super::{Case, SYNC};

on_both_warehouses!(
    a_key_of_every_type_finds_its_rows_again,
    a_key_that_cannot_be_compared_is_refused,
    odd_types_travel_stay_quiet_and_are_compared,
    values_beyond_the_wires_calendar_are_rejected_alone
);

/// A type that can be a key, and three different values of it.
type KeyType = (&'static str, [&'static str; 3]);

fn key_types(engine: Engine) -> Vec<KeyType> {
    let mut types = vec![
        ("boolean", ["true", "false", "null"]),
        ("smallint", ["-32768", "0", "32767"]),
        ("integer", ["-2147483648", "0", "2147483647"]),
        ("bigint", ["-9223372036854775808", "0", "9223372036854775807"]),
        ("decimal(38,10)", ["-0.0000000001", "0", "9999999999999999999999999999.9999999999"]),
        ("real", ["-1.5", "0.1", "3.4e38"]),
        ("double precision", ["0.1", "-0.25", "1e300"]),
        ("text", ["''", "' a '", "'日本''\"\\{}☃'"]),
        ("varchar(20)", ["'x'", "'X'", "'null'"]),
        ("date", ["'0001-01-01'", "'1999-12-31'", "'9999-12-31'"]),
        ("timestamp", ["'0001-01-01 00:00:00'", "'2026-03-29 02:30:00.123456'", "'9999-12-31 23:59:59'"]),
        ("timestamptz", ["'0001-01-01 00:00:00+00'", "'2026-03-29 02:30:00+01'", "'9999-12-31 23:59:59+00'"]),
        ("time", ["'00:00:00'", "'12:34:56.789'", "'23:59:59.999999'"]),
        (
            "uuid",
            [
                "'00000000-0000-0000-0000-000000000000'",
                "'6F0C2A9E-1111-2222-3333-444455556666'",
                "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
            ],
        ),
    ];
    match engine {
        Engine::DuckDb => types.extend([
            ("tinyint", ["-128", "0", "127"]),
            ("utinyint", ["0", "1", "255"]),
            ("usmallint", ["0", "1", "65535"]),
            ("uinteger", ["0", "1", "4294967295"]),
            ("ubigint", ["0", "1", "18446744073709551615"]),
            (
                "hugeint",
                ["-170141183460469231731687303715884105727", "0", "170141183460469231731687303715884105727"],
            ),
            ("uhugeint", ["0", "1", "340282366920938463463374607431768211455"]),
            ("blob", ["''", "'\\x00\\xFF'", "'abc'"]),
            ("bit", ["'0'", "'00'", "'101'"]),
            ("enum('sad', 'it''s', 'ok)')", ["'sad'", "'it''s'", "'ok)'"]),
            ("timestamp_s", ["'1970-01-01 00:00:01'", "'2000-01-01 00:00:00'", "'2100-01-01 00:00:00'"]),
            ("timestamp_ms", ["'1970-01-01 00:00:01.001'", "'2000-01-01 00:00:00'", "'2100-01-01 00:00:00'"]),
            (
                "timestamp_ns",
                ["'1970-01-01 00:00:01.000000001'", "'2000-01-01 00:00:00'", "'2100-01-01 00:00:00'"],
            ),
            ("timetz", ["'00:00:00+00'", "'12:00:00+02'", "'12:00:00+03'"]),
        ]),
        _ => types.extend([
            ("numeric", ["1", "1e-30", "1e40"]),
            ("oid", ["0", "1", "4294967295"]),
            ("name", ["'a'", "'A'", "'é'"]),
            ("char(5)", ["'a'", "'b'", "'abcde'"]),
            ("\"char\"", ["'a'", "'b'", "'c'"]),
            ("inet", ["'10.0.0.1'", "'10.0.0.1/24'", "'::1'"]),
            ("cidr", ["'10.0.0.0/8'", "'10.0.0.0/9'", "'2001:db8::/32'"]),
            ("macaddr", ["'08:00:2b:01:02:03'", "'08:00:2b:01:02:04'", "'08:00:2b:01:02:05'"]),
            ("money", ["1.5", "0", "-3.25"]),
            ("timetz", ["'00:00:00+00'", "'12:00:00+02'", "'12:00:00+03'"]),
            ("bytea", ["''", "'\\x00ff'", "'abc'"]),
        ]),
    }
    types
}

fn a_key_of_every_type_finds_its_rows_again(engine: Engine) {
    let case = Case::new(engine, "");
    for file in ["models/rows.yml".to_owned(), format!("syncs/{SYNC}.yml")] {
        case.project.remove(&file);
    }
    let types = key_types(engine);
    // A table, a model and a sync of its own for each type; all of them run at once.
    let mut tables = String::new();
    for (number, (name, values)) in types.iter().enumerate() {
        let rows: Vec<String> = (0..3)
            .map(|i| {
                let minus = values[i].starts_with('-') && *name != "money";
                let value = if minus { format!("'{}'", values[i]) } else { values[i].to_owned() };
                format!("(({value})::{name}, 'v{i}')")
            })
            .collect();
        tables.push_str(&format!(
            "create table t{number} (id {name}, v text); \
             insert into t{number} select * from (values {}) as x(id, v);",
            rows.join(", ")
        ));
        case.project.write(
            &format!("models/m{number}.yml"),
            &format!("source: wh\nprimary_key: id\nsql: select * from t{number}\n"),
        );
        case.project.write(
            &format!("syncs/s{number}.yml"),
            &format!(
                "model: m{number}\ndestination: crm\nmode: mirror\neach: {{method: POST, path: /{number}}}\n\
                 guards: {{max_set_aside: {{percent: 100}}}}\n"
            ),
        );
    }
    case.project.sql(&tables);
    let nulls = |values: &[&str; 3]| u64::from(values.contains(&"null"));
    let each = |check: &dyn Fn(usize, &str, u64, &Run)| {
        let runs = case.project.run_all();
        assert_eq!(runs.len(), types.len(), "{:?}", runs.keys());
        for (number, (name, values)) in types.iter().enumerate() {
            check(number, name, nulls(values), &runs[&format!("s{number}")]);
        }
    };
    each(&|_, name, nulls, run| {
        let counts = (run.number("nullKeyCount"), run.successful());
        assert_eq!(counts, (nulls, [3 - nulls, 0, 0]), "{name}: {run:#?}");
    });
    each(&|_, name, nulls, run| {
        let counts = (run.planned(), run.number("unchangedCount"));
        assert_eq!(counts, ([0, 0, 0], 3 - nulls), "{name}: {run:#?}");
    });
    let changes: String = (0..types.len())
        .map(|n| format!("update t{n} set v = 'new' where v = 'v1'; delete from t{n} where v = 'v0';"))
        .collect();
    case.project.sql(&changes);
    each(&|number, name, _, run| {
        assert_eq!(run.successful(), [0, 1, 1], "{name}: {run:#?}");
        let keys = |operation: &str| -> Vec<String> {
            let requests = case.receiver.requests();
            let path = format!("/{number}");
            let of_this = requests.iter().filter(|r| r.path == path && r.operation() == operation);
            of_this.flat_map(Request::keys).collect()
        };
        let (added, removed) = (keys("added"), keys("removed"));
        assert_eq!(removed.len(), 1, "{name}: {removed:?}");
        assert!(added.contains(&removed[0]), "{name}: {removed:?} is none of {added:?}");
    });
}

fn a_key_that_cannot_be_compared_is_refused(engine: Engine) {
    let refused = match engine {
        Engine::DuckDb => vec![
            "json",
            "integer[]",
            "integer[3]",
            "struct(a integer)",
            "map(integer, text)",
            "interval",
            "union(a integer)",
        ],
        _ => {
            vec!["json", "jsonb", "point", "xml", "tsvector", "int4range", "integer[]", "interval", "polygon"]
        }
    };
    let case = Case::small(engine);
    case.sends([3, 0, 0]);
    for name in refused {
        case.model("id", &format!("select cast(null as {name}) as id, name from t"));
        case.fails("KEY_TYPE_UNSUPPORTED", &["`id`", "of type", "cast the key in the model"]);
        case.check_finds("KEY_TYPE_UNSUPPORTED", 2, &["model rows:"]);
    }
    case.model("id", "select * from t");
    case.quiet();
}

/// Values of types that have no form of their own on the wire, and the form that they get.
fn odd_values(engine: Engine) -> Vec<(&'static str, Value)> {
    match engine {
        Engine::DuckDb => vec![
            ("'it''s'::enum('it''s', 'b')", json!("it's")),
            ("[1, null, 3]", json!([1, null, 3])),
            ("[['a'], []]", json!([["a"], []])),
            ("{'a': 1, 'b c': 'x'}", json!({"a": 1, "b c": "x"})),
            ("map(['k'], [1])", json!({"k": 1})),
            ("array_value(1, 2, 3)", json!([1, 2, 3])),
            ("'101'::bit", json!("101")),
            ("'\\xDE\\xAD'::blob", json!("3q0=")),
            ("'{\"b\": 1}'::json", json!({"b": 1})),
            ("0.10::decimal(4,2)", json!(0.1)),
            ("uuid '6F0C2A9E-1111-2222-3333-444455556666'", json!("6f0c2a9e-1111-2222-3333-444455556666")),
            ("null::integer[]", json!(null)),
        ],
        _ => vec![
            ("int4range(1, 5)", json!("[1,5)")),
            ("'{[1,2),[5,7)}'::int4multirange", json!("{[1,2),[5,7)}")),
            ("'it''s'::mood", json!("it's")),
            ("array[1, null, 3]", json!([1, null, 3])),
            ("array[['a', 'b'], ['c', 'd']]", json!([["a", "b"], ["c", "d"]])),
            ("'{}'::text[]", json!([])),
            ("row(1, 'x y')::pair", json!("(1,\"x y\")")),
            ("interval '1 year 2 months 3 days 4 hours 5 minutes 6.5 seconds'", json!("P1Y2M3DT4H5M6.5S")),
            ("b'1010'::bit(4)", json!("1010")),
            ("b'1'::bit varying", json!("1")),
            ("point '(1,2)'", json!("(1,2)")),
            ("'a fat cat'::tsvector", json!("'a' 'cat' 'fat'")),
            ("xml '<a b=\"1\"/>'", json!("<a b=\"1\"/>")),
            ("'$.a'::jsonpath", json!("$.\"a\"")),
            ("'{\"b\": 1, \"a\": [1.50, null]}'::json", json!({"b": 1, "a": [1.5, null]})),
            ("'{\"b\": 1, \"a\": 2}'::jsonb", json!({"a": 2, "b": 1})),
            ("5::positive", json!(5)),
            ("'1e500'::numeric * 0 + 0.10", json!(0.1)),
            ("'\\xdeadbeef'::bytea", json!("3q2+7w==")),
            ("'24:00:00'::time", json!("24:00:00")),
            ("'pg_class'::regclass", json!("pg_class")),
            ("null::int4range", json!(null)),
        ],
    }
}

fn odd_types_travel_stay_quiet_and_are_compared(engine: Engine) {
    let setup = match engine {
        Engine::DuckDb => "create table t (id integer); insert into t values (1), (2)",
        _ => {
            "create type mood as enum ('it''s', 'b'); create type pair as (n integer, t text); \
                 create domain positive as integer check (value > 0); create table t (id integer); insert into t values (1), (2)"
        }
    };
    let case = Case::new(engine, setup);
    let values = odd_values(engine);
    let columns: Vec<String> =
        values.iter().enumerate().map(|(i, (sql, _))| format!("{sql} as c{i}")).collect();
    case.model("id", &format!("select id, {} from t", columns.join(", ")));
    case.sends([2, 0, 0]);
    for (i, (sql, expected)) in values.iter().enumerate() {
        assert_eq!(&case.receiver.field("1", &format!("c{i}")), expected, "{sql}");
    }
    case.quiet();
    // Each is compared, by itself: a set of columns that are null in row 2 is a change of just that set,
    // and no two columns stand in the same sets.
    for bit in 0..=values.len().ilog2() {
        let is_null = |i: usize| (i + 1) >> bit & 1 == 1 && !values[i].0.starts_with("array_value");
        let columns: Vec<String> = values
            .iter()
            .enumerate()
            .map(|(i, (sql, _))| {
                // DuckDB has no `case` over arrays of fixed length.
                if is_null(i) {
                    format!("case when id = 1 then {sql} end as c{i}")
                } else {
                    format!("{sql} as c{i}")
                }
            })
            .collect();
        case.model("id", &format!("select id, {} from t", columns.join(", ")));
        let (_, plan) = case.project.plan(SYNC, &[]);
        let expected: serde_json::Map<String, Value> = (0..values.len())
            .filter(|&i| is_null(i) && !values[i].1.is_null())
            .map(|i| (format!("c{i}"), json!(1)))
            .collect();
        assert_eq!(plan["changedColumns"], Value::Object(expected), "{plan:#}");
    }
    let preview = case.project.levin(&["preview", "rows"]);
    assert_eq!(preview.code, 0, "{preview:#?}");
}

fn values_beyond_the_wires_calendar_are_rejected_alone(engine: Engine) {
    let mut values = vec![
        ("timestamp 'infinity'", false),
        ("date '-infinity'", false),
        ("timestamp '2026-01-01 00:00:00'", true),
    ];
    match engine {
        Engine::DuckDb => values.extend([("'NaN'::double", false), ("'infinity'::float", false)]),
        _ => values.extend([
            ("timestamp '294276-12-31 23:59:59'", true),
            ("timestamptz 'infinity'", false),
            ("date '0044-03-15 BC'", true),
        ]),
    }
    let case = Case::new(engine, "create table t (id integer); insert into t values (1), (2), (3)");
    for (sql, _) in values {
        let typed = sql.split_whitespace().next().filter(|_| !sql.contains("::"));
        let other = typed.map_or("0".to_owned(), |t| format!("{t} '2020-02-02'"));
        case.model("id", &format!("select id, case when id = 2 then {sql} else {other} end as v from t"));
        let run = case.project.run_with(SYNC, &["--full-resync"]);
        // Never a failed run, never a wrong value: the row is there, or it is rejected with a reason.
        assert!(run.code < 2, "{sql}: {run:#?}");
        let rejected = case.project.rejected(SYNC);
        if run.code == 1 {
            assert_eq!(rejected.len(), 1, "{sql}: {rejected:#?}");
            assert_eq!(
                (&rejected[0]["key"], &rejected[0]["code"]),
                (&json!("2"), &json!("UNREPRESENTABLE_VALUE")),
                "{sql}"
            );
            assert_eq!(run.successful(), [2, 0, 0], "{sql}");
        } else {
            assert_eq!((run.successful(), rejected.len()), ([3, 0, 0], 0), "{sql}: {run:#?}");
            println!("{engine:?} {sql} → {}", case.receiver.field("2", "v"));
        }
    }
}
