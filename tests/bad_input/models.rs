//! Models that are no models, and models that change between two runs.

use serde_json::json;
use tests::on_both_warehouses;
use tests::project::Engine;

use super::{Case, SYNC, failed};

on_both_warehouses!(
    a_model_that_is_not_one_select_is_refused_without_a_connection,
    what_a_model_returns_must_have_keys_and_names_of_its_own,
    check_finds_what_runs_would_fail_on_all_at_once,
    a_model_whose_table_is_dropped_between_two_runs_keeps_what_was_accepted,
    a_model_without_rows_is_a_success_at_first_and_a_guard_later,
    a_mapped_column_that_the_model_no_longer_returns_stops_before_anything_is_sent,
    a_template_that_fails_rejects_its_row_and_no_other
);

fn a_model_that_is_not_one_select_is_refused_without_a_connection(engine: Engine) {
    let case = Case::small(engine);
    case.sends([3, 0, 0]);
    let mut refused = vec![
        ("insert into t values (9, 'z')", "begins with INSERT"),
        ("update t set name = 'z'", "begins with UPDATE"),
        ("delete from t", "begins with DELETE"),
        ("drop table t", "begins with DROP"),
        ("create table u as select * from t", "begins with CREATE"),
        ("select * from t; drop table t", "more than one statement"),
        ("select * from t; select * from t;", "more than one statement"),
        ("select * from t) as m; drop table t; select * from (select 1", "closes nothing"),
        ("select * from t) as m where (1 = 1", "closes nothing"),
        ("select * from (select * from t", "never closed"),
        ("select 'open from t", "cannot be read"),
        (";", "empty"),
        ("-- only a comment", "empty"),
        ("/* select */ ;;", "empty"),
        ("with gone as (delete from t returning *) select * from gone", "delete"),
        ("with new as (insert into t values (9, 'z') returning *) select * from new", "insert"),
        ("with up as (update t set name = 'z' returning *) select * from up", "update"),
    ];
    if engine == Engine::Postgres {
        refused.extend([
            ("select * into u from t", "select into"),
            ("select * from t for update", "for update"),
            ("select * from (select * from t for share) as x", "for update"),
        ]);
    }
    let commands = [&["check"][..], &["run", SYNC], &["plan", SYNC], &["preview", "rows"]];
    for (number, (sql, word)) in refused.into_iter().enumerate() {
        case.model("id", sql);
        // Every model by the way that needs no connection, and by one of the others.
        for arguments in [&["check", "--offline"][..], commands[number % commands.len()]] {
            let ended = case.project.levin(arguments);
            failed(&case.project, &ended, 64, "MODEL_NOT_ONE_SELECT", &["models/rows.yml:1:", word]);
        }
    }
    case.model("id", "select * from t;  -- fine\n");
    case.quiet();
    assert_eq!(case.project.texts("select cast(count(*) as text) from t"), [Some("3".to_owned())]);
}

fn what_a_model_returns_must_have_keys_and_names_of_its_own(engine: Engine) {
    let case = Case::small(engine);
    case.sends([3, 0, 0]);
    let mut refused = vec![
        ("idd", "select * from t", "MODEL_KEY_MISSING", vec!["`idd`", "did you mean `id`?"]),
        ("id", "select name from t", "MODEL_KEY_MISSING", vec!["primary key `id`", "`name`"]),
        (
            "id",
            "select id, name as _levin_generation from t",
            "MODEL_RESERVED_COLUMN",
            vec!["`_levin_generation`"],
        ),
        ("id", "select id, name as \"_levin_\" from t", "MODEL_RESERVED_COLUMN", vec!["`_levin_`"]),
        ("id", "select id, nam from t", "MODEL_FAILED", vec!["nam"]),
        ("id", "select * from gone", "MODEL_FAILED", vec!["gone"]),
        ("id", "select id, no_such_function(name) as x from t", "MODEL_FAILED", vec!["no_such_function"]),
        ("id", "select id, name + from t", "MODEL_FAILED", vec!["model `rows`"]),
        ("id", "selekt * from t", "MODEL_FAILED", vec!["model `rows`"]),
        (
            "id",
            "select id, cast(cast(name as integer) as text) as name from t",
            "MODEL_FAILED",
            vec!["model `rows`"],
        ),
    ];
    match engine {
        Engine::DuckDb => refused.extend([
            ("id", "select id, name as \"_LEVIN_x\" from t", "MODEL_RESERVED_COLUMN", vec!["`_LEVIN_x`"]),
            // In a subquery that reads this column, `f.id` is 99 and not the id of the row `f` outside.
            ("id", "select id, {'id': 99} as f from t", "MODEL_RESERVED_COLUMN", vec!["nested column `f`"]),
        ]),
        _ => refused.extend([
            ("id", "select id, name, name from t", "MODEL_DUPLICATE_COLUMN", vec!["`name` more than once"]),
            ("id", "select id, 1 + 1 from t", "MODEL_DUPLICATE_COLUMN", vec!["without a name"]),
            (
                "id",
                "select id, cast(1 / (id - 1) as text) as name from t",
                "MODEL_FAILED",
                vec!["division by zero"],
            ),
        ]),
    }
    for (key, sql, code, words) in refused {
        case.model(key, sql);
        case.fails(code, &words);
    }
    case.model("id", "select * from t");
    case.quiet();
}

fn check_finds_what_runs_would_fail_on_all_at_once(engine: Engine) {
    let case = Case::small(engine);
    case.model("idd", "select * from t");
    case.project.write("models/gone.yml", "source: wh\nprimary_key: id\nsql: select * from gone\n");
    case.project.write("models/good.yml", "source: wh\nprimary_key: id\nsql: select * from t\n");
    let sync = |mapping: &str| {
        format!("model: good\ndestination: crm\neach: {{method: POST, path: /x}}\nmappings:\n  - {mapping}\n")
    };
    case.project.write("syncs/unmapped.yml", &sync("{from: nam, to: name}"));
    let ended = case.project.levin(&["check"]);
    assert_eq!(ended.code, 2, "{ended:#?}");
    let order = [
        "model gone:",
        "error[MODEL_FAILED]",
        "model rows:",
        "error[MODEL_KEY_MISSING]",
        "sync unmapped:",
        "error[QUERY_COLUMN_MISSING]",
    ];
    let places: Vec<Option<usize>> = order.iter().map(|w| ended.stderr.find(w)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{order:?} {places:?} {ended:#?}");

    case.project.remove("models/gone.yml");
    case.project.remove("syncs/unmapped.yml");
    case.project.remove("models/good.yml");
    case.model("id", "select * from t");
    case.check_passes();
    // Looking leaves nothing behind.
    let schemas =
        "select cast(schema_name as text) from information_schema.schemata where schema_name like 'levin%'";
    assert_eq!(case.project.texts(schemas), []);
    case.sends([3, 0, 0]);
    case.check_passes();
    case.quiet();
}

fn a_model_whose_table_is_dropped_between_two_runs_keeps_what_was_accepted(engine: Engine) {
    let case = Case::small(engine);
    case.sends([3, 0, 0]);
    case.project.sql("alter table t rename to u");
    case.fails("MODEL_FAILED", &["model `rows`"]);
    case.project
        .sql("delete from u where id = 2; update u set name = 'new' where id = 1; alter table u rename to t");
    case.sends([0, 1, 1]);
    case.quiet();
    assert_eq!(case.receiver.field("1", "name"), "new");
}

fn a_model_without_rows_is_a_success_at_first_and_a_guard_later(engine: Engine) {
    let case = Case::new(engine, "create table t (id integer, name text)");
    case.check_passes();
    case.sends([0, 0, 0]);
    case.quiet();
    case.project.sql("insert into t values (1, 'a')");
    case.sends([1, 0, 0]);
    case.project.sql("delete from t");
    let run = case.run();
    assert_eq!((run.code, run.error()), (3, "GUARD_TRIPPED"), "{run:#?}");
    super::explained(&case.project, "GUARD_TRIPPED");
    assert_eq!(case.receiver.keys(), ["1"]);
    case.sync("mode: mirror\nguards: {allow_empty: true}");
    case.sends([0, 0, 1]);
    assert_eq!(case.receiver.rows(), std::collections::BTreeMap::new());
}

fn a_mapped_column_that_the_model_no_longer_returns_stops_before_anything_is_sent(engine: Engine) {
    let case = Case::small(engine);
    case.sync(
        "mode: mirror\nmappings:\n  - {from: name, to: name}\n  - {template: \"{{ row.id }}\", to: label}",
    );
    case.sends([3, 0, 0]);
    case.model("id", "select id, name as title from t");
    case.fails("QUERY_COLUMN_MISSING", &["`name`"]);
    case.check_finds("QUERY_COLUMN_MISSING", 2, &["sync rows-to-crm:"]);
    case.model("id", "select id, name from t");
    case.quiet();
}

fn a_template_that_fails_rejects_its_row_and_no_other(engine: Engine) {
    let case = Case::small(engine);
    case.sync("mode: mirror\nmappings:\n  - {template: \"{{ 6 // (row.id - 2) }}\", to: label}");
    let run = case.run();
    assert_eq!((run.code, run.status(), run.successful()), (1, "warning", [2, 0, 0]), "{run:#?}");
    let rejected = case.project.rejected(SYNC);
    assert_eq!(rejected.len(), 1, "{rejected:#?}");
    assert_eq!((&rejected[0]["key"], &rejected[0]["code"]), (&json!("2"), &json!("TEMPLATE_FAILED")));
    case.sync("mode: mirror\nmappings:\n  - {template: \"{{ row.id }}\", to: label}");
    case.sends([1, 0, 0]);
    assert!(case.project.rejected(SYNC).is_empty());
    case.quiet();
}
