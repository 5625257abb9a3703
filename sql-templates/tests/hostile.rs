//! Unquoted text cannot reach SQL: whatever stands in a name or a value, it comes out as one quoted
//! token that means exactly that, or the statement is refused.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use sql_templates::{
    AuditFacts, Column, CommitFacts, DeliverFacts, Dialect, DiffFacts, DiffShape, EndedRange, Ident,
    LogicalType, ModelSql, PlainTable, RejectionFacts, ReshapedColumn, Shape, SnapshotPart, Statement, Step,
    SyncScope, SyncTables, TableRef, TestRowFacts,
};
use sqlparser::dialect::{
    BigQueryDialect, DatabricksDialect, DuckDbDialect, MySqlDialect, PostgreSqlDialect, RedshiftSqlDialect,
    SnowflakeDialect,
};
use sqlparser::tokenizer::{Token, Tokenizer};

/// What stands where a harmless rendering has a mark.
const MARK: &str = "markmark";

/// Every statement, with one text in every place that takes text.
fn every_statement(text: &str, dialect: Dialect) -> Result<Vec<Step>, String> {
    let refused = |e: &dyn std::fmt::Display| e.to_string();
    let ident = |text: &str| Ident::new(text).map_err(|e| refused(&e));
    let tables =
        SyncTables::new(text, text, "6f0c2a9e-0000-4000-8000-000000000000", 1).map_err(|e| refused(&e))?;
    let table = TableRef::new(text, text).map_err(|e| refused(&e))?;
    let column = |name: String, engine_type: &str, logical| Column {
        name,
        engine_type: engine_type.to_owned(),
        logical,
    };
    // A type's name is never printed, it only chooses macros: `]` alone would choose those of lists.
    let alike = dialect.type_fact(text) == dialect.type_fact(MARK);
    let engine_type = if alike { text } else { MARK };
    let shape = Shape {
        keys: vec![
            column(text.to_owned(), "bigint", LogicalType::Integer),
            column("key".to_owned(), engine_type, LogicalType::Text),
        ],
        columns: vec![
            column(format!("{text}{text}"), "interval", LogicalType::Interval),
            column("json".to_owned(), "json", LogicalType::Json),
            column("list".to_owned(), "integer[]", LogicalType::Json),
        ],
        matching: vec![column(text.to_owned(), "bigint", LogicalType::Integer)],
    };
    let model = ModelSql::table(Some(ident(text)?), ident(text)?);
    let scope = SyncScope { tables: &tables, shape: &shape, model: &model };
    let role = ident(text)?;
    let diff_facts = DiffFacts {
        of: text,
        generation: 7,
        stage: true,
        set_aside: true,
        compared: true,
        in_doubt: true,
        due_before: Some(3),
        resync: true,
        sorted: true,
        halves: true,
        by_hash: true,
        counted: None,
        taken: &shape.columns,
        parked: Some(text),
    };
    let sent = [text, text];
    let commit = CommitFacts {
        last: true,
        complete: true,
        ranges: &[EndedRange { operation: "added", first: 1, last: 2 }],
        outcomes: Some(table.clone()),
        set_aside: Some(table.clone()),
        sent: &sent,
        had_rejections: true,
        had_doubts: true,
        keeps_snapshot: true,
        definition: Some(text),
        answers: &sent,
        max_attempts: Some(3),
        due_before: Some(1),
        ..CommitFacts::new(table.clone(), DiffShape::Full, 7, 1)
    };
    let adopted = CommitFacts {
        diff_shape: DiffShape::First,
        adopt: true,
        keep_set_aside: true,
        reset: true,
        ..commit.clone()
    };
    let deliver = |operation| DeliverFacts {
        diff: table.clone(),
        diff_shape: DiffShape::Full,
        operation,
        previous: &shape.columns,
        after: Some(1),
        through: Some(2),
        limit: Some(2),
        waits: Some(&tables),
    };
    let (changed, removed, odd) = (deliver("changed"), deliver("removed"), deliver(text));
    let audit = AuditFacts {
        sync_id: 1,
        run: 1,
        primary_key: text,
        destination: text,
        model_name: text,
        error: Some(text),
        status: text,
        started_at: text,
        finished_at: text,
        numbers: [0; 12],
    };
    let reshaped: Vec<ReshapedColumn> = shape
        .keys
        .iter()
        .chain(&shape.columns)
        .map(|c| ReshapedColumn { column: c.clone(), kept: c.name != "json", cast: None })
        .collect();
    let drop = [table.clone()];
    let key = [text.to_owned()];
    let rejected = RejectionFacts { run: Some(1), key: &[Some(text)], offset: 1, limit: 5 };
    let sets = [("json".to_owned(), text.to_owned())];
    let keyed_shape = Shape { keys: shape.keys[..1].to_vec(), ..shape.clone() };
    let keyed = SyncScope { shape: &keyed_shape, ..scope };
    let test_row = TestRowFacts {
        key: &key,
        sets: &sets,
        previous: &[],
        version: text,
        known: true,
        from_snapshot: false,
    };
    let left = TestRowFacts { from_snapshot: true, known: false, previous: &shape.columns, ..test_row };
    let relations = [PlainTable { schema: Some(text.to_owned()), name: text.to_owned() }];
    let reshape = |part| Statement::Reshape { scope, of: "1", part, columns: &reshaped, due: &shape.columns };
    let statements = [
        Statement::Model { model: &model },
        Statement::FindSchemas { tables: &tables },
        Statement::CreateSchemas { tables: &tables },
        Statement::CreateState { tables: &tables, project: text, sync_id: 1, slug: text, generation: 0 },
        Statement::ReadState { tables: &tables },
        Statement::Snapshot { tables: &tables },
        Statement::TakeLease {
            tables: &tables,
            slug: text,
            generation: 2,
            holder: text,
            lease_seconds: 60,
            replace_holder: false,
        },
        Statement::RenewLease { tables: &tables, generation: 2, lease_seconds: 60 },
        Statement::ReleaseLease { tables: &tables, generation: 2, queried: None, counted: None, ran: true },
        Statement::RelationKind { schema: Some(text), name: text },
        Statement::CreateTables { scope },
        reshape(SnapshotPart::Snapshot),
        reshape(SnapshotPart::Doubts),
        reshape(SnapshotPart::Rejections),
        Statement::PutInPlace { tables: &tables, of: "1", part: SnapshotPart::Snapshot },
        Statement::Define {
            tables: &tables,
            generation: 1,
            definition: Some(text),
            target: Some(text),
            due_before: 0,
        },
        Statement::ForgetDelivery { tables: &tables, generation: 1 },
        Statement::RenewVersions { tables: &tables, generation: 1 },
        Statement::DiffFirst { scope, facts: &diff_facts },
        Statement::Diff { scope, facts: &diff_facts },
        Statement::ChangedColumns { shape: &shape, diff: table.clone() },
        Statement::Claims { diff: table.clone(), diff_shape: DiffShape::Full },
        Statement::KeepPlans { tables: &tables, generation: 2, plans: Some(text) },
        Statement::SetAsideSamples { shape: &shape, set_aside: table.clone(), limit: 5 },
        Statement::Preview { shape: &shape, model: &model, limit: 5 },
        Statement::BeginDelivery {
            tables: &tables,
            generation: 1,
            diff: &table,
            diff_shape: DiffShape::Full,
            sent: &["removed", "added"],
            store: text,
            run: 1,
            due_before: 0,
        },
        Statement::ForgetAccepted { tables: &tables, generation: 1 },
        Statement::Deliver { shape: &shape, facts: &changed },
        Statement::Deliver { shape: &shape, facts: &removed },
        Statement::Samples { shape: &shape, facts: &changed },
        Statement::TestRow { scope: keyed, facts: &test_row },
        Statement::TestRow { scope: keyed, facts: &left },
        Statement::CreateOutcomes { outcomes: table.clone() },
        Statement::Doubt { scope, facts: &commit, among: Some(commit.ranges) },
        Statement::Doubt { scope, facts: &commit, among: None },
        Statement::Commit { scope, facts: &commit },
        Statement::Commit { scope, facts: &adopted },
        Statement::MarkParked {
            tables: &tables,
            keys: &shape.keys[..1],
            generation: 2,
            park: true,
            key: &key,
        },
        Statement::MarkParked { tables: &tables, keys: &shape.keys, generation: 2, park: false, key: &[] },
        Statement::Rejections { tables: &tables, keys: &shape.keys[..1], facts: &rejected },
        Statement::Prune { drop: &drop },
        Statement::ManagedTables { schema: &role, prefix: text, relation: relations.first() },
        Statement::CreateAudit { tables: &tables },
        Statement::AuditRun { tables: &tables, facts: &audit },
        Statement::Grants {
            planner: &role,
            audit: &role,
            role: &role,
            database: &role,
            schemas: std::slice::from_ref(&role),
            default_schema: true,
            creates: false,
        },
        Statement::Grants {
            planner: &role,
            audit: &role,
            role: &role,
            database: &role,
            schemas: std::slice::from_ref(&role),
            default_schema: true,
            creates: true,
        },
        Statement::GrantRead { role: &role, relations: &relations },
    ];
    let mut steps = Vec::new();
    for statement in &statements {
        steps.extend(statement.steps(dialect).map_err(|e| refused(&e))?);
    }
    // An operation is a word in a step's name: another text is refused there.
    let named = Statement::Samples { shape: &shape, facts: &odd }.steps(dialect);
    if text != MARK && named.is_ok() && !text.chars().all(|c| c.is_ascii_lowercase() || c == ' ') {
        return Err("a step is named by a text from outside".to_owned());
    }
    Ok(steps)
}

fn tokens(dialect: Dialect, sql: &str) -> Vec<Token> {
    let grammar: Box<dyn sqlparser::dialect::Dialect> = match dialect {
        Dialect::Bigquery => Box::new(BigQueryDialect {}),
        Dialect::Databricks => Box::new(DatabricksDialect {}),
        Dialect::Duckdb => Box::new(DuckDbDialect {}),
        Dialect::Mariadb => Box::new(MySqlDialect {}),
        Dialect::Postgres => Box::new(PostgreSqlDialect {}),
        Dialect::Redshift => Box::new(RedshiftSqlDialect {}),
        Dialect::Snowflake => Box::new(SnowflakeDialect {}),
    };
    let tokens = Tokenizer::new(grammar.as_ref(), sql).tokenize();
    let tokens = tokens.unwrap_or_else(|e| panic!("{e}\n{sql}"));
    let meaningful = tokens.into_iter().filter(|t| !matches!(t, Token::Whitespace(_)));
    meaningful.map(|token| if dialect.facts().lexing.googlesql { unescaped(token) } else { token }).collect()
}

/// A name without the escapes that sqlparser does not know in names: characters by their numbers.
fn unescaped(token: Token) -> Token {
    let Token::Word(mut word) = token else { return token };
    if word.quote_style.is_some() {
        let mut parts = word.value.split("\\u");
        let mut value = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let number =
                u32::from_str_radix(&part[..4], 16).expect("a backslash begins an escape and nothing else");
            value.push(char::from_u32(number).expect("a character"));
            value.push_str(&part[4..]);
        }
        assert!(!word.value.replace("\\u", "").contains('\\'), "{} holds a bare backslash", word.value);
        word.value = value;
    }
    Token::Word(word)
}

/// The harmless token with the hostile text in place of the mark, where it is quoted.
fn replaced(token: Token, text: &str) -> Token {
    match token {
        Token::Word(mut word) if word.quote_style.is_some() => {
            word.value = word.value.replace(MARK, text);
            Token::Word(word)
        }
        Token::SingleQuotedString(value) => Token::SingleQuotedString(value.replace(MARK, text)),
        other => {
            assert!(!other.to_string().contains(MARK), "{other} is not quoted");
            other
        }
    }
}

/// What quoted tokens say; the rest as it stands. The pattern of `like` is escaped once more.
fn said(token: &Token, text: &str) -> String {
    let like = text.replace('\\', "\\\\").replace('_', "\\_").replace('%', "\\%");
    match token {
        Token::Word(word) if word.quote_style.is_some() => format!("name {}", word.value),
        Token::SingleQuotedString(value) if *value == format!("{like}\\_%") => format!("text {text}\\_%"),
        Token::SingleQuotedString(value) => format!("text {value}"),
        other => other.to_string(),
    }
}

fn check(text: &str) -> Result<(), TestCaseError> {
    for dialect in Dialect::ALL {
        let harmless = every_statement(MARK, dialect).expect("the mark is harmless");
        let Ok(hostile) = every_statement(text, dialect) else {
            prop_assert!(
                text.is_empty() || text.contains(['\0', '\u{1}']),
                "{:?} is refused: {:?}",
                text,
                every_statement(text, dialect)
            );
            continue;
        };
        prop_assert_eq!(harmless.len(), hostile.len());
        for (expected, got) in harmless.iter().zip(&hostile) {
            prop_assert_eq!(&expected.name, &got.name);
            prop_assert_eq!(expected.expect, got.expect);
            let expected: Vec<String> = tokens(dialect, expected.sql.text())
                .into_iter()
                .map(|t| said(&replaced(t, text), text))
                .collect();
            let got: Vec<String> = tokens(dialect, got.sql.text()).iter().map(|t| said(t, text)).collect();
            prop_assert_eq!(got, expected);
        }
    }
    Ok(())
}

/// A statement that is added later must be put to the same test.
#[test]
fn no_statement_is_left_out() {
    let (_, variants) = include_str!("../src/statement.rs").split_once("pub enum Statement<'a> {").unwrap();
    let (variants, _) = variants.split_once("\n}").unwrap();
    let names = variants.lines().filter_map(|line| line.strip_prefix("    ")?.split_once(" {"));
    let names: Vec<&str> = names.map(|(name, _)| name).filter(|name| !name.starts_with([' ', '/'])).collect();
    assert!(names.len() > 30, "{names:?}");
    let (_, tested) = include_str!("hostile.rs").split_once("let statements = [").unwrap();
    let (tested, _) = tested.split_once("let mut steps").unwrap();
    for name in names {
        assert!(
            tested.contains(&format!("Statement::{name} {{")) || name == "Reshape",
            "{name} is not tested"
        );
    }
}

#[test]
fn well_known_tricks_stay_inside_their_quotes() {
    let long = "x\"'".repeat(5_000);
    for text in [
        "'",
        "''",
        "\"",
        "\"\"",
        "\\",
        "\\'",
        "\\\"",
        "'; drop table users; --",
        "\"; drop table users; --",
        "/*",
        "*/",
        "--",
        "\n",
        "\r\n",
        "\t",
        "$$",
        "$tag$",
        "{{ 7 * 7 }}",
        "{% raw %}",
        "{# x #}",
        "é",
        "e\u{301}",
        "\u{202e}",
        "\u{2019}",
        "\u{ff07}",
        "\u{0}",
        "\u{1}",
        "a\u{1}b",
        "\u{7f}",
        "",
        " ",
        "null",
        "select",
        "%s",
        ":name",
        "?",
        "@x",
        "${HOME}",
        "|one row",
        "]",
        "text",
        &long,
    ] {
        check(text).unwrap_or_else(|e| panic!("{text:?}: {e}"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_text_leaves_its_quotes(
        text in "['\"\\\\;$%_\n\r\t{}#*/() a-zA-Z0-9.-]{1,16}|(''|\"\"|\\\\'|--|/\\*|\\*/|;|\\{\\{|\\}\\}|'|\"|\\$\\$| ){1,8}|\\PC{1,12}|[\u{0}-\u{1f}é]{1,4}"
    ) {
        check(&text)?;
    }
}
