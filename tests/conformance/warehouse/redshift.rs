//! Redshift's statements on two engines: on its double, which is PostgreSQL, and, turned by sqlglot, on DuckDB. Both take
//! the golden files through lives of a sync, and must answer alike.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tests::postgres;
use tests::redshift::RedshiftDouble;

/// A golden file by its name, or a statement of the test's own, behind an exclamation mark.
type Step = &'static str;

const STATE: &str = "!select generation, checkpoint, basis, doubts, rejections, refused, parked, due_before, delivering from levin_planner.p6f0c2a9e_s1_state";
const SNAPSHOT: &str = "!select * from levin_planner.p6f0c2a9e_s1_snapshot";
const DOUBTS: &str = "!select * from levin_planner.p6f0c2a9e_s1_doubts";
const REJECTIONS: &str = "!select id, _levin_generation, _levin_checkpoint, _levin_operation, _levin_code, _levin_reason, _levin_attempts, \
     _levin_rows, _levin_run, _levin_sequence, _levin_fingerprint, _levin_parked from levin_planner.p6f0c2a9e_s1_rejections";
const DIFF: &str = "!select * from levin_planner.p6f0c2a9e_s1_diff_7";
const OUTCOMES: &str = "!select * from levin_planner.p6f0c2a9e_s1_outcomes_7_0";
/// Engines number the rows of a diff as they find them.
const NUMBER: &str = "!update levin_planner.p6f0c2a9e_s1_diff_7 set _levin_sequence = case when _levin_operation = 'removed' then id else 10 + id end";
const NUMBER_FIRST: &str = "!update levin_planner.p6f0c2a9e_s1_diff_7 set _levin_sequence = id";
const DROP: &str = "!drop table levin_planner.p6f0c2a9e_s1_diff_7";
const SET_ASIDE: &str = "!create table levin_planner.p6f0c2a9e_s1_set_aside_7 as select id, cast(2 as bigint) as _levin_rows, \
     cast('DUPLICATE_PRIMARY_KEY' as varchar(40)) as _levin_code from customers where id = 5 group by id";
const DROP_SET_ASIDE: &str = "!drop table levin_planner.p6f0c2a9e_s1_set_aside_7";
const NO_CHECKPOINT: &str = "!update levin_planner.p6f0c2a9e_s1_state set checkpoint = 0, generation = 7";

const BEGINNING: &[Step] = &[
    "!create schema levin_planner",
    "!create schema levin_audit",
    "!create table customers (tenant varchar(20), id bigint, email varchar(200), \"O\"\"Brien's ltv\" numeric(18,2), \
     profile super, city varchar(20))",
    "!insert into customers (tenant, id, email, \"O\"\"Brien's ltv\", profile) select 'x', 1, 'a', 1.5, json_parse('{\"a\":1}')",
    "!insert into customers (tenant, id, email, \"O\"\"Brien's ltv\", profile) select 'x', 2, 'b', null, null",
    "!insert into customers (tenant, id, email, \"O\"\"Brien's ltv\", profile) select 'y', 3, null, 3, json_parse('[1]')",
    "create_schemas",
    "create_state",
    "!update levin_planner.p6f0c2a9e_s1_state set generation = 6",
    "take_lease",
    "create_tables",
];

/// A first run of which one row is refused, and edits.
const FIRST_RUN: &[Step] = &[
    "diff_first",
    NUMBER_FIRST,
    "create_outcomes",
    "!insert into levin_planner.p6f0c2a9e_s1_outcomes_7_0 values (2, 'rejected', true, 'REFUSED', 'no')",
    "commit.adopted",
    SNAPSHOT,
    DOUBTS,
    REJECTIONS,
    STATE,
    NO_CHECKPOINT,
    "!update customers set email = 'z', profile = json_parse('{\"a\":2}') where id = 1",
    "!update customers set \"O\"\"Brien's ltv\" = null where id = 3",
    // Longer than a text may be.
    "!update customers set profile = json_parse('[\"' || repeat('x', 70000) || '\"]') where id = 3",
    "!insert into customers (tenant, id, email) select 'y', 4, 'd'",
    "!insert into customers (tenant, id, email) select 'y', 5, 'twice'",
    "!insert into customers (tenant, id, email) select 'y', 5, 'twice'",
    "!insert into customers (tenant, id, email) select 'y', null, 'none'",
    "!insert into levin_planner.p6f0c2a9e_s1_snapshot select 7, 'gone', 1.25, null, 5",
    "!insert into levin_planner.p6f0c2a9e_s1_snapshot select 5, 'set aside', 1.25, null, 5",
];

const LIVES: &[&[Step]] = &[
    &[
        "create_audit",
        "audit_run",
        "!select sync_id, sync_run_id, error, status, num_planned_add from levin_audit.sync_runs",
        "diff_full.in_doubt",
        NUMBER,
        DIFF,
        DROP,
        DROP_SET_ASIDE,
        "diff_full",
        NUMBER,
        DIFF,
        "deliver.changed",
        "deliver.removed_page",
        "changed_columns",
        "samples",
        "doubt",
        OUTCOMES,
        "commit.parks",
        SNAPSHOT,
        DOUBTS,
        "renew_versions",
        DOUBTS,
        REJECTIONS,
        STATE,
        "!update levin_planner.p6f0c2a9e_s1_state set checkpoint = 3",
        "commit.checkpoint",
        SNAPSHOT,
        STATE,
        NO_CHECKPOINT,
        "commit",
        SNAPSHOT,
        DROP,
        "diff_full.parked",
        NUMBER,
        DIFF,
        DROP,
    ],
    &[
        "diff_full.halves",
        DROP,
        "diff_full.keys_only",
        NUMBER,
        DIFF,
        DROP,
        "diff_full.taken",
        SNAPSHOT,
        "begin_delivery",
        "!select delivering, delivering_table, delivering_sent from levin_planner.p6f0c2a9e_s1_state",
        "forget_delivery",
        "!select delivering, delivering_table, delivering_sent from levin_planner.p6f0c2a9e_s1_state",
        "define",
        "keep_plans",
        "!update levin_planner.p6f0c2a9e_s1_rejections set _levin_parked = true",
        "mark_parked.retried",
        REJECTIONS,
        STATE,
        "renew_lease",
        "release_lease",
        "!select holder, target, definition, queried, counted, counted_basis, plans from levin_planner.p6f0c2a9e_s1_state",
        "forget_accepted",
        SNAPSHOT,
        STATE,
        "prune",
    ],
    &[
        "diff_full.matching",
        NUMBER,
        DIFF,
        "deliver.matching",
        "claims",
        "doubt.matching",
        OUTCOMES,
        SET_ASIDE,
        "commit.matching",
        SNAPSHOT,
        DOUBTS,
        REJECTIONS,
        STATE,
        DROP,
        DROP_SET_ASIDE,
        "diff_full.matching_in_doubt",
        NUMBER,
        DIFF,
        DROP,
        DROP_SET_ASIDE,
        "diff_full.matching_parked",
        NUMBER,
        DIFF,
        "!delete from levin_planner.p6f0c2a9e_s1_outcomes_7_0",
        "doubt.matching_under_way",
        OUTCOMES,
        DROP,
        "diff_first.matching",
        NUMBER_FIRST,
        DIFF,
        "claims.first",
        SET_ASIDE,
        NO_CHECKPOINT,
        "commit.matching_adopted",
        SNAPSHOT,
        DOUBTS,
        REJECTIONS,
        STATE,
    ],
    &[
        "!alter table levin_planner.p6f0c2a9e_s1_snapshot add column city varchar(20)",
        "reshape.snapshot",
        "put_in_place",
        "!select * from levin_planner.p6f0c2a9e_s1_snapshot",
        "reshape.doubts",
        "!select * from levin_planner.p6f0c2a9e_s1_doubts_7",
    ],
    // Keys of two columns.
    &[
        "!drop table levin_planner.p6f0c2a9e_s1_snapshot",
        "!drop table levin_planner.p6f0c2a9e_s1_doubts",
        "!drop table levin_planner.p6f0c2a9e_s1_rejections",
        "!drop table levin_planner.p6f0c2a9e_s1_outcomes_7_0",
        "!create table levin_planner.p6f0c2a9e_s1_snapshot as select tenant, id, email, cast(5 as bigint) as _levin_generation \
         from customers where id <= 3",
        "!create table levin_planner.p6f0c2a9e_s1_doubts as select tenant, id, email, cast(5 as bigint) as _levin_generation, \
         cast('changed' as varchar(20)) as _levin_operation, cast('5.1' as varchar(20)) as _levin_version from customers where id = 3",
        "!create table levin_planner.p6f0c2a9e_s1_rejections (tenant varchar(20), id bigint, _levin_generation bigint, \
         _levin_checkpoint bigint, _levin_operation varchar(20), _levin_code varchar(40), _levin_reason varchar(200), \
         _levin_attempts bigint, _levin_rows bigint, _levin_run bigint, _levin_sequence bigint, _levin_fingerprint varchar(80), \
         _levin_parked boolean, _levin_first_at timestamp with time zone, _levin_last_at timestamp with time zone)",
        "!insert into levin_planner.p6f0c2a9e_s1_rejections (tenant, id, _levin_generation, _levin_checkpoint, _levin_attempts, \
         _levin_fingerprint, _levin_parked) values ('x', 1, 5, 1, 2, '', false), ('y', 4, 5, 1, 2, '', false)",
        "diff_first.staged",
        "!update levin_planner.p6f0c2a9e_s1_diff_7 set _levin_sequence = id",
        DIFF,
        DROP,
        "!create table levin_planner.p6f0c2a9e_s1_diff_7 as select cast(case when id = 2 then 'removed' when id < 4 then 'changed' \
         else 'added' end as varchar(20)) as _levin_operation, tenant, id, email, tenant as _levin_previous0, id as _levin_previous1, \
         email as _levin_previous2, cast(null as varchar(20)) as _levin_version, case when id < 4 then id else 200 + id end as _levin_sequence \
         from customers where id < 5",
        "create_outcomes",
        "!insert into levin_planner.p6f0c2a9e_s1_outcomes_7_0 values (204, 'rejected', false, 'REFUSED', 'no')",
        "doubt.everything",
        OUTCOMES,
        "!delete from levin_planner.p6f0c2a9e_s1_outcomes_7_0 where sequence = 204 and outcome = 'in_doubt'",
        "commit.with_exceptions",
        SNAPSHOT,
        DOUBTS,
        REJECTIONS,
        STATE,
        NO_CHECKPOINT,
        DROP,
        "diff_full.by_hash",
        "!update levin_planner.p6f0c2a9e_s1_diff_7 set _levin_sequence = id",
        DIFF,
        DROP,
        DROP_SET_ASIDE,
        "diff_full.staged",
        "!update levin_planner.p6f0c2a9e_s1_diff_7 set _levin_sequence = id",
        DIFF,
        "set_aside_samples",
        "mark_parked",
        REJECTIONS,
        DROP,
        DROP_SET_ASIDE,
        "diff_first.staged",
        "!update levin_planner.p6f0c2a9e_s1_diff_7 set _levin_sequence = id",
        "commit.reset",
        SNAPSHOT,
        DOUBTS,
        REJECTIONS,
        STATE,
    ],
];

/// Statements that no second engine is asked about, and why.
const ALONE: &[(&str, &str)] = &[
    ("deliver.first", "the first diff's rows are compared as they stand in their table"),
    ("grants", "DuckDB has neither roles nor rights"),
    ("grants.creating", "DuckDB has neither roles nor rights"),
    ("managed_tables", "each engine's catalogue is its own"),
    ("managed_tables.and_relation", "each engine's catalogue is its own"),
    ("model_rows", "the model as it stands; what engines make of models is not at question"),
    ("open_rejections", "it tells times, which are not the same twice"),
    ("open_rejections.one", "it tells times, which are not the same twice"),
    ("open_rejections.one_of_run", "it tells times, which are not the same twice"),
    ("open_rejections.page_of_run", "it tells times, which are not the same twice"),
    ("preview", "a limit without an order"),
    ("read_state", "it tells times, which are not the same twice"),
    ("relation_kind", "each engine's catalogue is its own"),
    ("take_lease.from_a_dead_holder", "the same as `take_lease` but for the clock"),
    ("test_row", "a limit without an order"),
    ("test_row.removed", "a limit without an order"),
];

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sql-templates/tests/golden/redshift")
}

/// The statements of a step.
fn statements(step: Step) -> Vec<String> {
    if let Some(own) = step.strip_prefix('!') {
        return vec![own.to_owned()];
    }
    let text = std::fs::read_to_string(golden().join(format!("{step}.sql")))
        .unwrap_or_else(|e| panic!("{step}: {e}"));
    let parts = text.split(";\n\n").filter(|part| !part.trim().is_empty());
    // Each begins with a line that names it.
    parts
        .map(|part| part.trim_start().split_once('\n').expect("a statement behind its name").1.to_owned())
        .collect()
}

/// The rows of a statement that returns rows.
type Answer = Option<Vec<Vec<Option<String>>>>;

/// The answers of DuckDB, to which sqlglot speaks; or what was said of a statement that Redshift refuses.
fn in_duckdb(statements: &[String]) -> Result<Vec<Answer>, String> {
    let python = tests::stores::installed("LEVIN_FAKESNOW", "fakesnow-0.12.1").join("bin/python");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("doubles/redshift_agrees.py");
    let mut child = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("Python starts");
    let asked = serde_json::to_vec(statements).expect("texts");
    child.stdin.take().expect("its input").write_all(&asked).expect("write to it");
    let ended = child.wait_with_output().expect("it ends");
    if !ended.status.success() {
        return Err(String::from_utf8_lossy(&ended.stderr).into_owned());
    }
    Ok(serde_json::from_slice(&ended.stdout).expect("its answers"))
}

#[test]
fn every_statement_does_the_same_in_duckdb() {
    for (number, life) in LIVES.iter().enumerate() {
        let all: Vec<String> =
            BEGINNING.iter().chain(FIRST_RUN).chain(*life).flat_map(|step| statements(step)).collect();
        let database = RedshiftDouble::start().fresh_database();
        let wire = database.url.replacen("redshift://", "postgres://", 1);
        let there = in_duckdb(&all).unwrap_or_else(|e| panic!("life {number}: {e}"));
        assert_eq!(there.len(), all.len());
        let asked: Vec<&str> = all.iter().map(String::as_str).collect();
        for ((statement, mut here), there) in all.iter().zip(postgres::queries(&wire, &asked)).zip(there) {
            let Some(there) = there else { continue };
            here.sort_by_key(|row| format!("{row:?}"));
            let mut there = there;
            there.sort_by_key(|row| format!("{row:?}"));
            assert_eq!(here, there, "life {number}: {statement}");
        }
    }
}

/// The examples of Redshift's own documentation, on "Correlated subqueries".
#[test]
fn subqueries_that_redshift_cannot_take_apart_are_refused() {
    for (statement, why) in [
        (
            "select event.eventname from event where not exists (select * from listing where not exists \
             (select * from sales where event.eventid = sales.eventid))",
            "skips a query",
        ),
        (
            "select * from category left join event on category.catid = event.catid \
             and eventid = (select max(eventid) from sales where sales.eventid = event.eventid)",
            "ON of a join",
        ),
        (
            "select listid, qtysold from sales s where qtysold not in \
             (select sum(numtickets) over () from listing l where s.listid = l.listid)",
            "window function",
        ),
    ] {
        let said = in_duckdb(&[statement.to_owned()]).expect_err(statement);
        assert!(said.contains(why), "{said}");
    }
}

#[test]
fn every_golden_statement_is_compared_or_excused() {
    let compared: BTreeSet<&str> =
        BEGINNING.iter().chain(FIRST_RUN).chain(LIVES.iter().copied().flatten()).copied().collect();
    let excused: BTreeSet<&str> = ALONE.iter().map(|(name, _)| *name).collect();
    let mut missing = Vec::new();
    for entry in std::fs::read_dir(golden()).expect("the golden files") {
        let path = entry.expect("a file").path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        match (compared.contains(name.as_str()), excused.contains(name.as_str())) {
            (true, false) | (false, true) => {}
            (true, true) => missing.push(format!("{name}: needs no excuse")),
            (false, false) => missing.push(format!("{name}: neither compared nor excused")),
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}
