//! Every statement with values that show what it does.

use sql_templates::{
    AuditFacts, Column, CommitFacts, DeliverFacts, Dialect, DiffFacts, DiffShape, EndedRange, EngineType,
    Ident, LogicalType, ModelSql, PlainTable, RejectionFacts, ReshapedColumn, Shape, SnapshotPart, Statement,
    Step, SyncScope, SyncTables, TestRowFacts,
};

fn column(name: &str, engine_type: &str, logical: LogicalType) -> Column {
    Column { name: name.to_owned(), engine_type: engine_type.to_owned(), logical }
}

fn ended(operation: &'static str, first: i64, last: i64) -> EndedRange {
    EndedRange { operation, first, last }
}

fn integer_type(dialect: Dialect) -> &'static str {
    match dialect.name() {
        "bigquery" => "int64",
        _ => "bigint",
    }
}

fn text_type(dialect: Dialect) -> &'static str {
    match dialect.name() {
        "bigquery" => "string",
        "redshift" => "character varying(200)",
        _ => "text",
    }
}

fn json_type(dialect: Dialect) -> &'static str {
    match dialect.name() {
        "duckdb" => "JSON",
        "redshift" => "super",
        "snowflake" => "VARIANT",
        _ => "json",
    }
}

fn decimal_type(dialect: Dialect) -> &'static str {
    match dialect.name() {
        "duckdb" => "DECIMAL(18,2)",
        "snowflake" => "NUMBER(18,2)",
        _ => "numeric(18,2)",
    }
}

/// A statement for each golden: name of the case, and its steps.
pub fn cases(dialect: Dialect) -> Vec<(&'static str, Vec<Step>)> {
    let tables =
        SyncTables::new("levin_planner", "levin_audit", "6f0c2a9e-0000-4000-8000-000000000000", 1).unwrap();
    let shape = Shape {
        keys: vec![column("id", integer_type(dialect), LogicalType::Integer)],
        columns: vec![
            column("email", text_type(dialect), LogicalType::Text),
            column("O\"Brien's ltv", decimal_type(dialect), LogicalType::Decimal),
            column("profile", json_type(dialect), LogicalType::Json),
        ],
        matching: Vec::new(),
    };
    let matched = Shape { matching: vec![shape.columns[0].clone()], ..shape.clone() };
    let composite = Shape {
        keys: vec![
            column("tenant", text_type(dialect), LogicalType::Text),
            column("id", integer_type(dialect), LogicalType::Integer),
        ],
        columns: vec![column("email", text_type(dialect), LogicalType::Text)],
        matching: Vec::new(),
    };
    let model = ModelSql::query("select * from customers -- all of them;", dialect).unwrap();
    let scope = SyncScope { tables: &tables, shape: &shape, model: &model };
    let matched_scope = SyncScope { tables: &tables, shape: &matched, model: &model };
    let composite_scope = SyncScope { tables: &tables, shape: &composite, model: &model };
    let plain = DiffFacts {
        of: "7",
        generation: 7,
        stage: false,
        set_aside: false,
        compared: true,
        in_doubt: false,
        due_before: None,
        resync: false,
        sorted: false,
        halves: false,
        by_hash: false,
        counted: None,
        taken: &[],
        parked: None,
    };
    let taking = DiffFacts { taken: &shape.columns[..2], stage: true, set_aside: true, ..plain.clone() };
    let parking = DiffFacts { parked: Some("4f2a"), ..plain.clone() };
    let staged = DiffFacts { stage: true, set_aside: true, ..plain.clone() };
    let doubtful = DiffFacts { in_doubt: true, due_before: Some(7), resync: true, ..staged.clone() };
    let by_hash = DiffFacts { by_hash: dialect.facts().hashes_first, ..plain.clone() };
    let halves = DiffFacts { sorted: true, halves: true, counted: Some(3_000_000), ..plain.clone() };
    let keys_only = DiffFacts { compared: false, sorted: true, counted: Some(990), ..plain.clone() };
    let removed = ["added", "changed", "removed"];
    let commit = CommitFacts {
        last: true,
        complete: true,
        ranges: &[ended("removed", 1, 7), ended("changed", 8, 353)],
        sent: &removed,
        keeps_snapshot: true,
        ..CommitFacts::new(tables.diff("7"), DiffShape::Full, 7, 12)
    };
    let upsert = ["added", "changed"];
    let under_way = CommitFacts { outcomes: Some(tables.outcomes("7_0")), ..commit.clone() };
    let exceptional = CommitFacts {
        outcomes: Some(tables.outcomes("7_0")),
        set_aside: Some(tables.set_aside("7")),
        sent: &upsert,
        had_rejections: true,
        had_doubts: true,
        ranges: &[ended("changed", 1, 100), ended("added", 201, 353)],
        ..commit.clone()
    };
    let parks = CommitFacts {
        definition: Some("4f2a"),
        answers: &["REFUSED", "NOT_FOUND"],
        max_attempts: Some(3),
        set_aside: None,
        ..exceptional.clone()
    };
    let checkpoint = CommitFacts {
        last: false,
        complete: false,
        checkpoint: 3,
        had_rejections: true,
        lease_seconds: Some(60),
        ..commit.clone()
    };
    let adopted = CommitFacts {
        diff_shape: DiffShape::First,
        adopt: true,
        outcomes: Some(tables.outcomes("7_0")),
        ..commit.clone()
    };
    let reset = CommitFacts {
        diff_shape: DiffShape::First,
        adopt: true,
        keep_set_aside: true,
        reset: true,
        set_aside: Some(tables.set_aside("7")),
        ..commit.clone()
    };
    let audit = AuditFacts {
        sync_id: 1,
        run: 12,
        primary_key: "id",
        destination: "postgres",
        model_name: "customers",
        error: None,
        status: "succeeded",
        started_at: "2026-11-21T09:00:00Z",
        finished_at: "2026-11-21T09:00:05Z",
        numbers: [1, 2, 3, 1, 2, 3, 1, 2, 2, 0, 0, 1],
    };
    let deliver = DeliverFacts {
        diff: tables.diff("7"),
        diff_shape: DiffShape::Full,
        operation: "changed",
        previous: &shape.columns[..1],
        after: None,
        through: None,
        limit: None,
        waits: None,
    };
    let waiting = DeliverFacts { waits: Some(&tables), ..deliver.clone() };
    let removals = DeliverFacts {
        operation: "removed",
        previous: &[],
        after: Some(50_000),
        through: Some(100_000),
        limit: None,
        ..deliver.clone()
    };
    let first =
        DeliverFacts { operation: "added", previous: &[], diff_shape: DiffShape::First, ..deliver.clone() };
    let reshaped = [
        ReshapedColumn {
            column: column("id", integer_type(dialect), LogicalType::Integer),
            kept: true,
            cast: Some(EngineType::from_engine("bigint").unwrap()),
        },
        ReshapedColumn {
            column: column("email", text_type(dialect), LogicalType::Text),
            kept: true,
            cast: None,
        },
        ReshapedColumn {
            column: column("city", text_type(dialect), LogicalType::Text),
            kept: false,
            cast: None,
        },
    ];
    let due = [column("city", "integer", LogicalType::Integer)];
    let drop = [tables.diff("7"), tables.outcomes("7_0")];
    let diff_table = tables.diff("7");
    let role = Ident::new("levin").unwrap();
    let database = Ident::new("analytics").unwrap();

    let key = ["acme".to_owned(), "42".to_owned()];
    let sets = [("email".to_owned(), "it's@example.com".to_owned())];
    let test_row = TestRowFacts {
        key: &key[1..],
        sets: &sets,
        previous: &shape.columns[..1],
        version: "test.4f2a",
        known: true,
        from_snapshot: false,
    };
    let removed_row = TestRowFacts { known: false, from_snapshot: true, sets: &[], ..test_row.clone() };
    let customers = PlainTable { schema: Some("public".into()), name: "customers".into() };
    let managed = |relation| Statement::ManagedTables {
        schema: tables.planner_schema(),
        prefix: "p6f0c2a9e",
        relation,
    };
    let newest = RejectionFacts::newest(100);
    let one = RejectionFacts { key: &[Some("acme"), None], ..newest };
    let mut statements = vec![
        ("model_rows", Statement::Model { model: &model }),
        ("create_schemas", Statement::CreateSchemas { tables: &tables }),
        (
            "create_state",
            Statement::CreateState {
                tables: &tables,
                project: "6f0c2a9e",
                sync_id: 1,
                slug: "customers-to-crm",
                generation: 0,
            },
        ),
        ("read_state", Statement::ReadState { tables: &tables }),
        (
            "take_lease",
            Statement::TakeLease {
                tables: &tables,
                slug: "customers-to-crm",
                generation: 7,
                holder: "{\"pid\":1}",
                lease_seconds: 60,
                replace_holder: false,
            },
        ),
        (
            "take_lease.from_a_dead_holder",
            Statement::TakeLease {
                tables: &tables,
                slug: "it's",
                generation: 7,
                holder: "{\"pid\":1}",
                lease_seconds: 60,
                replace_holder: true,
            },
        ),
        ("renew_lease", Statement::RenewLease { tables: &tables, generation: 7, lease_seconds: 60 }),
        (
            "release_lease",
            Statement::ReleaseLease {
                tables: &tables,
                generation: 7,
                queried: Some(1000),
                counted: Some(990),
                ran: true,
            },
        ),
        ("relation_kind", Statement::RelationKind { schema: Some("public"), name: "customers" }),
        ("create_tables", Statement::CreateTables { scope }),
        (
            "reshape.snapshot",
            Statement::Reshape {
                scope,
                of: "7",
                part: SnapshotPart::Snapshot,
                columns: &reshaped,
                due: &due,
            },
        ),
        (
            "reshape.doubts",
            Statement::Reshape {
                scope,
                of: "7",
                part: SnapshotPart::Doubts,
                columns: &reshaped[1..],
                due: &[],
            },
        ),
        ("put_in_place", Statement::PutInPlace { tables: &tables, of: "7", part: SnapshotPart::Snapshot }),
        (
            "define",
            Statement::Define {
                tables: &tables,
                generation: 7,
                definition: Some("{}"),
                target: Some("here"),
                due_before: 0,
            },
        ),
        ("forget_delivery", Statement::ForgetDelivery { tables: &tables, generation: 7 }),
        ("renew_versions", Statement::RenewVersions { tables: &tables, generation: 7 }),
        ("diff_first", Statement::DiffFirst { scope, facts: &plain }),
        ("diff_first.staged", Statement::DiffFirst { scope: composite_scope, facts: &staged }),
        ("diff_full", Statement::Diff { scope, facts: &plain }),
        ("diff_full.by_hash", Statement::Diff { scope: composite_scope, facts: &by_hash }),
        ("diff_full.staged", Statement::Diff { scope: composite_scope, facts: &staged }),
        ("diff_full.in_doubt", Statement::Diff { scope, facts: &doubtful }),
        ("diff_first.matching", Statement::DiffFirst { scope: matched_scope, facts: &plain }),
        ("diff_full.matching", Statement::Diff { scope: matched_scope, facts: &plain }),
        ("diff_full.matching_in_doubt", Statement::Diff { scope: matched_scope, facts: &doubtful }),
        ("diff_full.taken", Statement::Diff { scope, facts: &taking }),
        ("diff_full.parked", Statement::Diff { scope, facts: &parking }),
        ("diff_full.matching_parked", Statement::Diff { scope: matched_scope, facts: &parking }),
        ("diff_full.halves", Statement::Diff { scope, facts: &halves }),
        ("diff_full.keys_only", Statement::Diff { scope, facts: &keys_only }),
        ("changed_columns", Statement::ChangedColumns { shape: &shape, diff: tables.diff("7") }),
        ("claims", Statement::Claims { diff: tables.diff("7"), diff_shape: DiffShape::Full }),
        ("claims.first", Statement::Claims { diff: tables.diff("7"), diff_shape: DiffShape::First }),
        (
            "keep_plans",
            Statement::KeepPlans { tables: &tables, generation: 7, plans: Some("[{\"id\":\"plan_1_\"}]") },
        ),
        ("samples", Statement::Samples { shape: &shape, facts: &removals }),
        (
            "set_aside_samples",
            Statement::SetAsideSamples { shape: &composite, set_aside: tables.set_aside("7"), limit: 5 },
        ),
        ("preview", Statement::Preview { shape: &shape, model: &model, limit: 20 }),
        (
            "begin_delivery",
            Statement::BeginDelivery {
                tables: &tables,
                generation: 7,
                diff: &diff_table,
                diff_shape: DiffShape::Full,
                sent: &["removed", "added"],
                store: "9a",
                run: 12,
                due_before: 0,
            },
        ),
        ("forget_accepted", Statement::ForgetAccepted { tables: &tables, generation: 7 }),
        ("deliver.changed", Statement::Deliver { shape: &shape, facts: &deliver }),
        ("deliver.matching", Statement::Deliver { shape: &matched, facts: &waiting }),
        ("deliver.removed_page", Statement::Deliver { shape: &shape, facts: &removals }),
        ("deliver.first", Statement::Deliver { shape: &shape, facts: &first }),
        ("test_row", Statement::TestRow { scope, facts: &test_row }),
        ("test_row.removed", Statement::TestRow { scope: matched_scope, facts: &removed_row }),
        ("create_outcomes", Statement::CreateOutcomes { outcomes: tables.outcomes("7_0") }),
        (
            "doubt",
            Statement::Doubt { scope: composite_scope, facts: &exceptional, among: Some(exceptional.ranges) },
        ),
        ("doubt.everything", Statement::Doubt { scope: composite_scope, facts: &exceptional, among: None }),
        ("commit", Statement::Commit { scope, facts: &commit }),
        ("commit.with_exceptions", Statement::Commit { scope: composite_scope, facts: &exceptional }),
        ("commit.checkpoint", Statement::Commit { scope, facts: &checkpoint }),
        ("commit.adopted", Statement::Commit { scope, facts: &adopted }),
        ("commit.matching", Statement::Commit { scope: matched_scope, facts: &exceptional }),
        ("commit.matching_adopted", Statement::Commit { scope: matched_scope, facts: &adopted }),
        ("doubt.matching", Statement::Doubt { scope: matched_scope, facts: &exceptional, among: None }),
        (
            "doubt.matching_under_way",
            Statement::Doubt { scope: matched_scope, facts: &under_way, among: Some(under_way.ranges) },
        ),
        ("commit.reset", Statement::Commit { scope: composite_scope, facts: &reset }),
        ("commit.parks", Statement::Commit { scope, facts: &parks }),
        (
            "mark_parked",
            Statement::MarkParked {
                tables: &tables,
                keys: &composite.keys,
                generation: 7,
                park: true,
                key: &key,
            },
        ),
        (
            "mark_parked.retried",
            Statement::MarkParked {
                tables: &tables,
                keys: &composite.keys,
                generation: 7,
                park: false,
                key: &[],
            },
        ),
        ("open_rejections", Statement::Rejections { tables: &tables, keys: &composite.keys, facts: &newest }),
        (
            "open_rejections.page_of_run",
            Statement::Rejections {
                tables: &tables,
                keys: &composite.keys,
                facts: &RejectionFacts { run: Some(7), key: &[], offset: 12_000, limit: 101 },
            },
        ),
        (
            "open_rejections.one",
            Statement::Rejections { tables: &tables, keys: &composite.keys, facts: &one },
        ),
        (
            "open_rejections.one_of_run",
            Statement::Rejections {
                tables: &tables,
                keys: &composite.keys,
                facts: &RejectionFacts {
                    run: Some(7),
                    key: &[Some("acme"), Some("42")],
                    offset: 0,
                    limit: 2,
                },
            },
        ),
        ("prune", Statement::Prune { drop: &drop }),
        ("managed_tables", managed(None)),
        ("managed_tables.and_relation", managed(Some(&customers))),
        ("create_audit", Statement::CreateAudit { tables: &tables }),
        ("audit_run", Statement::AuditRun { tables: &tables, facts: &audit }),
    ];
    let schema = Ident::new("shop").unwrap();
    for (name, creates) in [("grants", false), ("grants.creating", true)] {
        let grants = Statement::Grants {
            planner: tables.planner_schema(),
            audit: tables.audit_schema(),
            role: &role,
            database: &database,
            schemas: std::slice::from_ref(&schema),
            default_schema: false,
            creates,
        };
        if !grants.steps(dialect).unwrap().is_empty() {
            statements.push((name, grants));
        }
    }
    statements.into_iter().map(|(name, statement)| (name, statement.steps(dialect).unwrap())).collect()
}
