//! What is a model, what is none, and which models may be read twice.

use super::*;

fn both(text: &str) -> [Result<ModelSql, NotOneSelect>; 2] {
    [Dialect::Duckdb, Dialect::Postgres].map(|d| ModelSql::query(text, d))
}

#[test]
fn a_model_is_one_select_that_only_reads() {
    for text in [
        "",
        "  \n\t ",
        "-- nothing",
        "/* nothing */ ;",
        ";",
        "select 1; select 2",
        "select 1; drop table users",
        "select 1 /* ; */ ; select 2",
        "select ';' ; -- x\n delete from t",
        "insert into t values (1)",
        "insert into t select 1 returning *",
        "update t set a = 1",
        "delete from t",
        "drop table t",
        "create table t as select 1",
        "truncate t",
        "with x as (delete from t returning *) select * from x",
        "with x as (insert into t values (1) returning *) select * from x",
        "with x as (update t set a = 1 returning *) select * from x",
        "select * from (with y as (delete from t returning *) select * from y) as z",
        "select * into t from s",
        "select * from t for update",
        "select * from t for share",
        "select * from (select * from t for update) as x",
        "select 1) as m; drop table t; --",
        "select (1",
        "select 1)",
        "select 1) from t where (1 = 1",
        "pivot t on x) as m, secrets where (a = b",
        "select 'unterminated",
        "select \"unterminated",
        "select 1 /* unterminated",
        "select 1 \0",
        "select '\u{1}'",
        "select 1 -- x\r) as m; drop table t; --",
        "select E'\\'' ) as m; drop table t; --'",
        "select e'\\'' ) as m; drop table t; --'",
        "select 1 +-- '\n ) as m; drop table t; --'",
        "select 1 +/* ' */ ) as m; drop table t; --'",
        "select 1 */* ' */ ) as m; drop table t; --'",
        "select E'a'\n'\\'' ) as m; drop table t; --'",
        "select '\\' ) as m; drop table t; --'",
        "select U&'\\' ) as m; drop table t; --'",
        "select /* /* */ 1 ) as m; drop table t; --*/",
        "select $$a$$ ) as m; drop table t; --$$",
        "select $a$ $b$ $a$ ) as m; drop table t; --$b$",
        "select x$$ ) as m; drop table t; --$$",
        "copy t to '/tmp/x'",
        "set role postgres",
        "call f()",
    ] {
        for refused in both(text) {
            assert!(refused.is_err(), "{text:?} became {refused:?}");
        }
    }
}

#[test]
fn a_dialect_may_have_other_quotes_and_comments() {
    for text in [
        r"select '\'' ) as m; drop table t; --'",
        r"select '\\' ) as m; drop table t; --'",
        "select 1 // '\n ) as m; drop table t; --'",
        "select $a$ ) as m; drop table t; -- $a$",
        "select $$ $a$ $$ ) as m; drop table t; --$a$",
        "select /* // */ 1 ) as m; drop table t; --",
    ] {
        let refused = ModelSql::query(text, Dialect::Snowflake);
        assert!(refused.is_err(), "{text:?} became {refused:?}");
    }
    for text in [
        r"select 'it\'s ) ;' as x",
        r"select 'a\\' as x, 'b' as y",
        "select $$ ; ) ' $$ as x",
        "select $variable, t.$1 as first from t",
        "select 1 as x // all of them )",
        "select object:name::varchar as name from t, lateral flatten(input => t.items)",
    ] {
        let model = ModelSql::query(text, Dialect::Snowflake).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(model.text, ModelText::Query(text.to_owned()));
    }
    let table = ModelSql::query("select id from sales.Customers", Dialect::Snowflake).unwrap();
    let plain = PlainTable { schema: Some("SALES".to_owned()), name: "CUSTOMERS".to_owned() };
    assert_eq!(table.plain_table(), Some(&plain));
}

#[test]
fn the_refusal_says_why() {
    let why = |text| ModelSql::query(text, Dialect::Postgres).unwrap_err();
    assert_eq!(why(" -- x"), NotOneSelect::Empty);
    assert_eq!(why("select 1; select 2"), NotOneSelect::SeveralStatements);
    assert_eq!(why("DELETE from t"), NotOneSelect::NoQuery("DELETE".to_owned()));
    assert_eq!(why("select * from t for update"), NotOneSelect::Writes("for update"));
    assert_eq!(why("select * into a from t"), NotOneSelect::Writes("select into"));
    let unclosed = why("select (1");
    assert!(matches!(&unclosed, NotOneSelect::Unreadable(m) if m.contains("never closed")), "{unclosed}");
}

#[test]
fn what_engines_read_is_taken_as_it_is() {
    for text in [
        "select 1",
        "select a, -- x\r\n b from t",
        "select * from customers -- all of them",
        "select ';' as semicolon, ')' as p, '--' as c from t",
        "with x as (select 1 as a) select * from x union all select 2",
        "values (1, 'a'), (2, 'b')",
        "select $tag$ ; ) $tag$ as x",
        "select \"a)\" from \"t;u\"",
        "select * from größe where ñame = '👩‍👩‍👧'",
        "select count(*) over (partition by a) from t",
    ] {
        let model = ModelSql::query(text, Dialect::Postgres).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(model.text, ModelText::Query(text.to_owned()));
    }
    // `sqlparser` knows not all of these; the engine judges them.
    for text in [
        "pivot cities on year using sum(population)",
        "from t select a",
        "select * from t asof join u using (at)",
        "select * from t using sample 10%",
        "select * exclude (a) from t",
        "select columns('a.*') from t",
        "summarize t",
    ] {
        assert!(ModelSql::query(text, Dialect::Duckdb).is_ok(), "{text}");
    }
}

#[test]
fn closing_semicolons_and_what_follows_them_go() {
    for (text, kept) in [
        ("select 1;", "select 1"),
        ("select 1 ; ; \n;", "select 1"),
        ("select 'ä;ö' as ü ; -- done;", "select 'ä;ö' as ü"),
        ("select 1 -- a ; b\n;\n", "select 1 -- a ; b"),
        ("\n  select 1 /* ; */;/* ( */", "select 1 /* ; */"),
    ] {
        for model in both(text) {
            assert_eq!(model.unwrap().text, ModelText::Query(kept.to_owned()), "{text:?}");
        }
    }
}

#[test]
fn a_plain_table_can_be_read_twice() {
    let plain = |text: &str| {
        let model = ModelSql::query(text, Dialect::Postgres).unwrap_or_else(|e| panic!("{text}: {e}"));
        model.plain_table().map(|t| (t.schema.clone(), t.name.clone()))
    };
    let named = |schema: Option<&str>, name: &str| Some((schema.map(str::to_owned), name.to_owned()));
    for (text, expected) in [
        ("select * from customers", named(None, "customers")),
        ("select * from Sales.Customers as c", named(Some("sales"), "customers")),
        ("select c.* from \"Sales\".\"Customers\" c", named(Some("Sales"), "Customers")),
        ("select id, lower(email) as email, a + 1, cast(b as text) from t where a > 1", named(None, "t")),
        ("select id, case when a then coalesce(b, 'x') end from t where b in ('x', 'y')", named(None, "t")),
    ] {
        assert_eq!(plain(text), expected, "{text}");
    }
    for text in [
        "select * from a join b on a.id = b.id",
        "select * from a, b",
        "select * from t limit 10",
        "select * from t order by a limit 10",
        "select * from t offset 3",
        "select * from t fetch first 3 rows only",
        "select random() as r from t",
        "select now() from t",
        "select current_timestamp from t",
        "select current_date from t",
        "select current_user from t",
        "select localtimestamp from t",
        "select session_user from t",
        "select nextval('s') from t",
        "select gen_random_uuid() from t",
        "select my_function(a) from t",
        "select pg_catalog.lower(a) from t",
        "select * from t where a > now()",
        "select * from t where random() < 0.5",
        "select * from t where a in (select b from u)",
        "select (select max(b) from u) from t",
        "select * from t where exists (select 1 from u)",
        "select * from (select * from t) as x",
        "select row_number() over () from t",
        "select sum(a) over (order by b) from t",
        "select count(*) from t",
        "select a from t group by a",
        "select a from t group by a having count(*) > 1",
        "select distinct a from t",
        "select distinct on (a) a, b from t order by a, b",
        "select * from t tablesample bernoulli (10)",
        "select * from generate_series(1, 10)",
        "select * from t union all select * from t",
        "with x as (select 1) select * from t",
        "values (1)",
        "select 1",
        "select * from other_database.s.t",
        "select * from lateral (select 1) as x",
    ] {
        assert_eq!(plain(text), None, "{text}");
    }
    let sample = ModelSql::query("select * from t using sample 10%", Dialect::Duckdb).unwrap();
    assert_eq!(sample.plain_table(), None);
    let unfolded = ModelSql::query("select * from Customers", Dialect::Duckdb).unwrap();
    assert_eq!(unfolded.plain_table().map(|t| t.name.as_str()), Some("Customers"));
}

#[test]
fn a_relation_is_named_as_the_engine_names_it() {
    for dialect in Dialect::ALL {
        assert!(ModelSql::relation(r#""shop"."main"."order lines""#, dialect).is_ok());
        for trick in ["a; drop table b", "a where (1 = 1", "a -- b\r", "a) union (select 1"] {
            assert!(ModelSql::relation(trick, dialect).is_err(), "{trick}");
        }
    }
}

#[test]
fn sparks_raw_texts_and_comments_that_go_on_are_no_way_out() {
    for text in [
        r"select r'\' ) as m; drop table t; --'",
        r"select R'\\' as x",
        "select 1 -- \\\n ) as m",
        r"select '\'' ) as m; drop table t; --'",
        r#"select "\"" ) as m; drop table t; --""#,
        "select `a` ) as m; drop table t; -- `",
    ] {
        let refused = ModelSql::query(text, Dialect::Databricks);
        assert!(refused.is_err(), "{text:?} became {refused:?}");
    }
    for text in [
        r"select 'it\'s ) ;' as x",
        r"select r'a) ;' as x",
        r"select owner'x' from t",
        "select `a``) ;` from t -- all of it )\n",
        "select parts:name::string as name from main.shop.orders",
    ] {
        assert!(ModelSql::query(text, Dialect::Databricks).is_ok(), "{text}");
    }
    let table = ModelSql::query("select id from shop.Customers", Dialect::Databricks).unwrap();
    assert_eq!(table.plain_table().map(|t| t.name.as_str()), Some("Customers"));
}
