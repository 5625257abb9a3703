//! Values on their way from a warehouse to the wire: every digit, every kind, every form.

use serde_json::json;
use tests::project::Engine;

use super::{Crm, SYNC, on_both_warehouses, row};

on_both_warehouses!(
    a_value_loses_digits_or_its_form,
    values_that_are_equal_are_sent_again,
    a_value_without_a_form_in_json_breaks_the_batch,
    not_a_number_is_rejected_although_it_may_be_text,
    binary_keys_and_other_keys_are_confused,
);

/// Expression in the engine's own SQL, and the text on the wire.
fn forms(engine: Engine) -> Vec<(&'static str, &'static str)> {
    let mut forms = vec![
        ("cast(9223372036854775807 as bigint)", "9223372036854775807"),
        ("cast(-32768 as smallint)", "-32768"),
        ("cast('12345678901234567890.123456789' as decimal(38, 9))", "12345678901234567890.123456789"),
        ("cast('1.50' as decimal(10, 2))", "1.50"),
        ("cast(0.1 as double precision)", "0.1"),
        ("cast('-0.0' as double precision)", "0.0"),
        ("cast(1e300 as double precision)", "1e+300"),
        ("cast(0.1 as real)", "0.1"),
        ("true", "true"),
        ("cast('ä\"\\' as text)", r#""ä\"\\""#),
        ("date '2026-11-20'", "\"2026-11-20\""),
        ("timestamp '2026-11-20 01:02:03'", "\"2026-11-20T01:02:03\""),
        ("timestamp '2026-11-20 01:02:03.25'", "\"2026-11-20T01:02:03.250\""),
        ("cast('2026-11-20 01:02:03+02' as timestamp with time zone)", "\"2026-11-19T23:02:03Z\""),
        ("time '01:02:03'", "\"01:02:03\""),
        ("cast('0123ABCD-0123-4567-89ab-0123456789ab' as uuid)", "\"0123abcd-0123-4567-89ab-0123456789ab\""),
        ("cast(null as integer)", "null"),
    ];
    forms.extend(match engine {
        Engine::DuckDb => vec![
            (
                "cast('170141183460469231731687303715884105727' as hugeint)",
                "170141183460469231731687303715884105727",
            ),
            (
                "cast('340282366920938463463374607431768211455' as uhugeint)",
                "340282366920938463463374607431768211455",
            ),
            ("interval '1 day 2 hours'", "\"P1DT2H\""),
            ("cast(18446744073709551615 as ubigint)", "18446744073709551615"),
            ("'\\xAA\\x00\\xFF'::blob", "\"qgD/\""),
            ("json('{\"a\": [1, null, \"x\"]}')", r#"{"a":[1,null,"x"]}"#),
            ("[1, 2, null]", "[1,2,null]"),
            ("{'a': 1, 'b': {'c': 'x'}}", r#"{"a":1,"b":{"c":"x"}}"#),
        ],
        _ => vec![
            ("cast('123456789012345678901234567890.5' as numeric)", "123456789012345678901234567890.5"),
            ("interval '1 day 2 hours'", "\"P1DT2H\""),
            ("'\\xaa00ff'::bytea", "\"qgD/\""),
            ("'{\"a\": [1, null, \"x\"]}'::jsonb", r#"{"a":[1,null,"x"]}"#),
            ("array[1, 2, null]", "[1,2,null]"),
        ],
    });
    forms
}

/// The body without the spaces that an engine puts into JSON.
fn compact(text: &str) -> String {
    text.replace(": ", ":").replace(", ", ",")
}

fn a_value_loses_digits_or_its_form(engine: Engine) {
    let crm = Crm::new(engine, 0, "mode: upsert");
    let forms = forms(engine);
    let columns: Vec<String> =
        forms.iter().enumerate().map(|(i, (expression, _))| format!("{expression} as c{i}")).collect();
    crm.sql(&format!("create table vals as select 1 as id, {}", columns.join(", ")));
    crm.model("id", "select * from vals");
    crm.run_sends([1, 0, 0]);
    let body = compact(&crm.receiver.requests()[0].text);
    for (i, (expression, wire)) in forms.iter().enumerate() {
        let end = if i + 1 < forms.len() { "," } else { "}" };
        let expected = format!("\"c{i}\":{wire}{end}");
        assert!(body.contains(&expected), "{expression}: {wire} is not in {body}");
    }
    crm.assert_quiet();
    // The same through a full diff, where every value travels by the work table.
    crm.sql("insert into vals select * from vals; update vals set id = 2");
    crm.sql("create table twice as select * from vals; delete from vals where id > 0");
    crm.sql("insert into vals select distinct on (id) * from twice");
    crm.model("id", "select v.*, 'x' as extra from vals v");
    crm.run_sends([1, 0, 0]);
    let body = compact(&crm.receiver.requests()[1].text);
    for (i, (expression, wire)) in forms.iter().enumerate() {
        assert!(body.contains(&format!("\"c{i}\":{wire},")), "{expression}: {wire} is not in {body}");
    }
    crm.assert_quiet();
}

fn values_that_are_equal_are_sent_again(engine: Engine) {
    let crm = Crm::new(engine, 0, "mode: upsert");
    let json_type = if engine == Engine::Postgres { "jsonb" } else { "json" };
    crm.sql(&format!(
        "create table vals (id integer, f double precision, d decimal(10, 2), seen timestamp with time zone, j {json_type}, t text);
         insert into vals values (1, cast('-0.0' as double precision), 1.5, '2026-11-20 12:00:00+00', '{{\"a\": 1, \"b\": 2}}', 'x')"
    ));
    crm.model("id", "select * from vals");
    crm.run_sends([1, 0, 0]);
    crm.sql("update vals set f = 0.0, d = 1.50, seen = '2026-11-20 14:00:00+02'");
    crm.assert_quiet();
    if engine == Engine::Postgres {
        crm.sql("update vals set j = '{\"b\": 2,   \"a\": 1}'");
        crm.assert_quiet();
    }
    // Each change in a row of its own.
    let changes = [
        ("f = 0.0000001", "f"),
        ("d = 1.51", "d"),
        ("seen = '2026-11-20 14:00:00.001+02'", "seen"),
        ("j = '{\"a\": 1, \"b\": 3}'", "j"),
        ("t = 'X'", "t"),
        ("t = 'x '", "t"),
        ("t = 'é'", "t"),
    ];
    crm.sql("insert into vals select i, f, d, seen, j, t from vals, generate_series(2, 8) as s(i)");
    crm.run_sends([changes.len() as u64, 0, 0]);
    for (id, (change, _)) in (2..).zip(changes) {
        crm.sql(&format!("update vals set {change} where id = {id}"));
    }
    let before = crm.receiver.count();
    crm.run_sends([0, changes.len() as u64, 0]);
    let sent = crm.receiver.since(before);
    for (id, (change, column)) in (2..).zip(changes) {
        let of_row = sent.iter().map(|request| row(request, &id.to_string())).find(|row| !row.is_null());
        assert_eq!(of_row.unwrap()["changed"], json!([column]), "{change}");
    }
    // Canonically equivalent texts are different ones, and so are those with a space at the end.
    crm.sql("update vals set t = 'X ' where id = 6; update vals set t = 'e' || chr(769) where id = 8");
    let before = crm.receiver.count();
    crm.run_sends([0, 2, 0]);
    assert!(crm.receiver.requests()[before].rows().iter().all(|row| row["changed"] == json!(["t"])));
    crm.assert_quiet();
}

const FLOATS: &str = "create table vals (id integer, f double precision);
    insert into vals values (1, 1.5), (2, cast('NaN' as double precision)), (3, cast('Infinity' as double precision)), (4, null), \
    (5, cast('-Infinity' as double precision))";

fn a_value_without_a_form_in_json_breaks_the_batch(engine: Engine) {
    let crm = Crm::new(engine, 0, "mode: upsert");
    crm.sql(FLOATS);
    crm.model("id", "select * from vals");
    let run = crm.run();
    assert_eq!((run.code, run.successful(), run.failed()), (1, [2, 0, 0], [3, 0, 0]), "{run:#?}");
    assert_eq!(run.number("inDoubtCount"), 0);
    let rejected = crm.project.rejected(SYNC);
    assert!(rejected.iter().all(|r| r["code"] == "UNREPRESENTABLE_VALUE"), "{rejected:#?}");
    assert_eq!(crm.receiver.keys(), ["1", "4"]);
    // It comes again, alone, and makes no request.
    let before = crm.receiver.count();
    let run = crm.run();
    assert_eq!(
        (run.planned(), run.failed(), crm.receiver.count()),
        ([3, 0, 0], [3, 0, 0], before),
        "{run:#?}"
    );
    crm.sql("update vals set f = 2.5 where id in (2, 3, 5)");
    crm.run_sends([3, 0, 0]);
    assert!(crm.project.rejected(SYNC).is_empty());
    crm.assert_quiet();
}

fn not_a_number_is_rejected_although_it_may_be_text(engine: Engine) {
    for (option, nan, infinite) in
        [("null", json!(null), json!(null)), ("string", json!("NaN"), json!("Infinity"))]
    {
        let crm = Crm::new(engine, 0, &format!("mode: upsert\nnon_finite: '{option}'"));
        crm.sql(FLOATS);
        crm.model("id", "select * from vals");
        crm.run_sends([5, 0, 0]);
        assert_eq!((crm.receiver.field("2", "f"), crm.receiver.field("3", "f")), (nan, infinite));
        // NaN equals NaN.
        crm.assert_quiet();
        crm.sql("update vals set f = cast('Infinity' as double precision) where id = 2");
        crm.run_sends([0, 1, 0]);
        crm.assert_quiet();
    }
}

fn binary_keys_and_other_keys_are_confused(engine: Engine) {
    let types = [
        ("uuid", "0123ABCD-0123-4567-89AB-0123456789AB", "0123abcd-0123-4567-89ab-0123456789ab"),
        ("date", "2026-11-20", "2026-11-20"),
        ("timestamp with time zone", "2026-11-20 01:02:03+02", "2026-11-19T23:02:03Z"),
        ("decimal(20, 5)", "1.5", "1.50000"),
        ("bigint", "9007199254740993", "9007199254740993"),
        ("boolean", "true", "true"),
        ("text", "a\u{301}", "a\u{301}"),
    ];
    for (key_type, value, text) in types {
        let crm = Crm::new(engine, 0, "mode: mirror");
        crm.sql(&format!(
            "create table vals (k {key_type}, v integer); insert into vals values (cast('{value}' as {key_type}), 1)"
        ));
        crm.model("k", "select * from vals");
        crm.run_sends([1, 0, 0]);
        assert_eq!(crm.receiver.keys(), [text], "{key_type}");
        crm.sql("update vals set v = 2");
        crm.run_sends([0, 1, 0]);
        assert_eq!(crm.receiver.keys(), [text], "{key_type}");
        crm.assert_quiet();
    }
}
