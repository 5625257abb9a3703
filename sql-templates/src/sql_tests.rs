//! What may stand in a statement, and what never gets there.

use proptest::prelude::*;
use sqlparser::dialect::{Dialect, DuckDbDialect, PostgreSqlDialect};
use sqlparser::tokenizer::{Token, Tokenizer, Whitespace};

use super::*;

#[test]
fn types_are_taken_as_engines_print_them() {
    for text in [
        "bigint",
        "timestamp(3) with time zone",
        "interval day to second(3)",
        "numeric(18,2)[]",
        "\"my schema\".\"My Type\"",
        "public.\"it\"\"s\"",
        "STRUCT(a INTEGER, \"b)\" VARCHAR)[]",
        "MAP(VARCHAR, INTEGER)",
        "INTEGER[3]",
        "ENUM('a''b', 'c')",
        "ENUM('a)', ';', '--', '/*', '\"')",
        "größe",
    ] {
        assert_eq!(EngineType::from_engine(text).map(|t| t.0), Ok(text.to_owned()));
    }
}

#[test]
fn nothing_that_could_leave_a_cast_is_a_type() {
    for text in [
        "",
        " ",
        "int)",
        "int) from secrets --",
        "int; drop table x",
        "int -- x",
        "int /* x",
        "(int",
        "int, 1",
        "ENUM('a",
        "ENUM(\"a)",
        "ENUM('a\\')",
        "ENUM(E'a')",
        "ENUM(U&'a')",
        "ENUM($$a$$)",
        "int\n",
        "int\0",
        "ENUM('\u{1}')",
        "int::text",
        "'a'), (x as text",
    ] {
        assert!(EngineType::from_engine(text).is_err(), "{text:?}");
    }
}

/// Whether the tokens are exactly one `cast(x as …)`, with no comment in it.
fn is_one_cast(dialect: &dyn Dialect, text: &str) -> bool {
    let Ok(tokens) = Tokenizer::new(dialect, text).tokenize() else { return false };
    let mut depth = 0_i32;
    for (i, token) in tokens.iter().enumerate() {
        match token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            Token::SemiColon
            | Token::Whitespace(Whitespace::SingleLineComment { .. } | Whitespace::MultiLineComment(_)) => {
                return false;
            }
            _ => {}
        }
        if i > 0 && depth == 0 && i + 1 != tokens.len() {
            return false;
        }
    }
    depth == 0
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_type_never_leaves_its_cast(
        text in "[a-z \\[\\]().,'\"\\\\;$&%\n*/-]{0,24}|(ENUM|int|E|U&|\\(|\\)|'|\"|''|\\\\|, |--|/\\*|\\$\\$| ){0,10}|\\PC{0,24}"
    ) {
        if let Ok(engine_type) = EngineType::from_engine(&text) {
            let cast = format!("cast(x as {})", engine_type.0);
            for dialect in [&DuckDbDialect {} as &dyn Dialect, &PostgreSqlDialect {}] {
                prop_assert!(is_one_cast(dialect, &cast), "{cast}");
            }
        }
    }

    #[test]
    fn enums_with_any_labels_but_backslashes_are_types(labels in proptest::collection::vec("[^\\\\\0\u{1}]{0,12}", 1..4)) {
        let labels: Vec<String> = labels.iter().map(|l| format!("'{}'", l.replace('\'', "''"))).collect();
        let text = format!("ENUM({})", labels.join(", "));
        prop_assert!(EngineType::from_engine(&text).is_ok(), "{}", text);
    }
}
