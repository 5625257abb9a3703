//! The user's own SELECT, proved to be one before it is embedded.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, FunctionArguments, GroupByExpr, ObjectName, Query, SelectItem, SetExpr, Statement as Parsed,
    TableFactor, Visit, Visitor,
};
use sqlparser::dialect::{
    BigQueryDialect, DatabricksDialect, DuckDbDialect, MySqlDialect, PostgreSqlDialect, RedshiftSqlDialect,
    SnowflakeDialect,
};
use sqlparser::parser::Parser;

use crate::dialect::{Dialect, Folding};
use crate::sql::{Ident, STEP_MARK, TableRef};
use crate::{googlesql, lexer};

/// A model's SELECT, ready to stand between parentheses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSql {
    pub(crate) text: ModelText,
    plain: Option<PlainTable>,
    relations: Vec<PlainTable>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ModelText {
    Query(String),
    Table { schema: Option<Ident>, name: Ident },
}

/// A relation that a model reads, as the model names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlainTable {
    /// The schema, when the model names one.
    pub schema: Option<String>,
    /// The relation, folded as the engine folds it.
    pub name: String,
}

/// Why a text is not a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotOneSelect {
    /// There is nothing but white space and comments.
    #[error("the model is empty")]
    Empty,
    /// More than one statement.
    #[error("the model holds more than one statement: it must be one SELECT, without `;` inside")]
    SeveralStatements,
    /// A statement that is no query.
    #[error("the model is no SELECT: it begins with {0}")]
    NoQuery(String),
    /// A query that writes or locks.
    #[error("the model writes or locks ({0}): it must only read")]
    Writes(&'static str),
    /// Text that could not stand between parentheses.
    #[error("the model cannot be read: {0}")]
    Unreadable(String),
}

impl ModelSql {
    /// Takes one SELECT. What `sqlparser` cannot parse is taken too, when its parentheses are
    /// balanced and it holds no separator: the engine judges it.
    pub fn query(text: &str, dialect: Dialect) -> Result<Self, NotOneSelect> {
        if text.contains(['\0', STEP_MARK]) {
            return Err(NotOneSelect::Unreadable("it holds a NUL or control mark".to_owned()));
        }
        // Engines end a `--` comment at a carriage return, `sqlparser` does not everywhere.
        if text.replace("\r\n", "\n").contains('\r') {
            return Err(NotOneSelect::Unreadable(
                "it holds a carriage return without a line feed; save it with \\n or \\r\\n line ends"
                    .to_owned(),
            ));
        }
        let parser_dialect: Box<dyn sqlparser::dialect::Dialect> = match dialect {
            Dialect::Bigquery => Box::new(BigQueryDialect {}),
            Dialect::Databricks => Box::new(DatabricksDialect {}),
            Dialect::Duckdb => Box::new(DuckDbDialect {}),
            Dialect::Mariadb => Box::new(MySqlDialect {}),
            Dialect::Postgres => Box::new(PostgreSqlDialect {}),
            Dialect::Redshift => Box::new(RedshiftSqlDialect {}),
            Dialect::Snowflake => Box::new(SnowflakeDialect {}),
        };
        let text = contained(text, dialect)?;
        let (plain, relations) = match Parser::parse_sql(parser_dialect.as_ref(), &text) {
            Ok(statements) => judge(&statements, dialect)?,
            Err(_) => (None, Vec::new()),
        };
        Ok(Self { text: ModelText::Query(text), plain, relations })
    }

    /// Every row and column of one table; `schema.table` or `table`, exactly as the engine spells it.
    pub fn table(schema: Option<Ident>, name: Ident) -> Self {
        let plain =
            PlainTable { schema: schema.as_ref().map(|s| s.name().to_owned()), name: name.name().to_owned() };
        Self { text: ModelText::Table { schema, name }, relations: vec![plain.clone()], plain: Some(plain) }
    }

    /// Every row and column of a relation that somebody names as the engine does, quotes and database and all.
    pub fn relation(name: &str, dialect: Dialect) -> Result<Self, NotOneSelect> {
        Self::query(&format!("select * from {name}"), dialect)
    }

    /// The same for a managed table.
    pub fn managed(table: &TableRef) -> Self {
        Self::table(Some(table.schema.clone()), table.name.clone())
    }

    /// Set when the model only picks columns and rows of one relation with functions that give the
    /// same answer every time. If that relation is a table, reading it twice in one transaction
    /// gives the same rows twice; every other model is read once.
    pub fn plain_table(&self) -> Option<&PlainTable> {
        self.plain.as_ref()
    }

    /// The relations that the model names, each once, without its own CTEs; none when `sqlparser`
    /// cannot read it. For grants and messages, never for what is computed.
    pub fn relations(&self) -> &[PlainTable] {
        &self.relations
    }
}

/// Refuses text that could leave its parentheses; gives it back without closing semicolons.
fn contained(text: &str, dialect: Dialect) -> Result<String, NotOneSelect> {
    let mut depth = 0_u32;
    let mut closing = None;
    let mut empty = true;
    let lexing = dialect.facts().lexing;
    let tokens = if lexing.googlesql { googlesql::meaningful(text) } else { lexer::meaningful(text, lexing) };
    for (at, token) in tokens.map_err(|m| NotOneSelect::Unreadable(m.to_owned()))? {
        if token == b';' {
            closing.get_or_insert(at);
            continue;
        }
        if closing.is_some() {
            return Err(if empty { NotOneSelect::Empty } else { NotOneSelect::SeveralStatements });
        }
        empty = false;
        match token {
            b'(' => depth += 1,
            b')' => {
                depth = depth
                    .checked_sub(1)
                    .ok_or_else(|| NotOneSelect::Unreadable("a `)` closes nothing".to_owned()))?;
            }
            _ => {}
        }
    }
    if empty {
        return Err(NotOneSelect::Empty);
    }
    if depth != 0 {
        return Err(NotOneSelect::Unreadable("a `(` is never closed".to_owned()));
    }
    Ok(text[..closing.unwrap_or(text.len())].trim().to_owned())
}

fn judge(
    statements: &[Parsed],
    dialect: Dialect,
) -> Result<(Option<PlainTable>, Vec<PlainTable>), NotOneSelect> {
    let [statement] = statements else { return Err(NotOneSelect::SeveralStatements) };
    let Parsed::Query(query) = statement else {
        let word = statement.to_string();
        return Err(NotOneSelect::NoQuery(word.split_whitespace().next().unwrap_or_default().to_owned()));
    };
    if let ControlFlow::Break(what) = query.visit(&mut Writing) {
        return Err(NotOneSelect::Writes(what));
    }
    let mut named = Named { dialect, relations: BTreeSet::new(), own: BTreeSet::new() };
    let _ = query.visit(&mut named);
    let relations =
        named.relations.into_iter().filter(|r| r.schema.is_some() || !named.own.contains(&r.name));
    Ok((plain_table(query, dialect), relations.collect()))
}

/// Gathers the relations that a query names, and the names that it makes itself.
struct Named {
    dialect: Dialect,
    relations: BTreeSet<PlainTable>,
    own: BTreeSet<String>,
}

impl Visitor for Named {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let ctes = query.with.iter().flat_map(|with| &with.cte_tables);
        self.own.extend(ctes.map(|cte| folded(&cte.alias.name, self.dialect)));
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, args: None, .. } = factor {
            self.relations.extend(relation(name, self.dialect));
        }
        ControlFlow::Continue(())
    }
}

/// `table` or `schema.table`, as the engine folds them.
fn relation(name: &ObjectName, dialect: Dialect) -> Option<PlainTable> {
    let parts: Option<Vec<String>> =
        name.0.iter().map(|part| Some(folded(part.as_ident()?, dialect))).collect();
    match parts?.as_slice() {
        [name] => Some(PlainTable { schema: None, name: name.clone() }),
        [schema, name] => Some(PlainTable { schema: Some(schema.clone()), name: name.clone() }),
        _ => None,
    }
}

fn folded(ident: &sqlparser::ast::Ident, dialect: Dialect) -> String {
    match (ident.quote_style, dialect.facts().folds_to) {
        (None, Folding::Lower) => ident.value.to_lowercase(),
        (None, Folding::Upper) => ident.value.to_uppercase(),
        _ => ident.value.clone(),
    }
}

/// Finds the parts of a query that write or lock, at any depth.
struct Writing;

impl Visitor for Writing {
    type Break = &'static str;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Self::Break> {
        if !query.locks.is_empty() {
            return ControlFlow::Break("for update");
        }
        match query.body.as_ref() {
            SetExpr::Insert(_) => ControlFlow::Break("insert"),
            SetExpr::Update(_) => ControlFlow::Break("update"),
            SetExpr::Delete(_) => ControlFlow::Break("delete"),
            SetExpr::Merge(_) => ControlFlow::Break("merge"),
            SetExpr::Select(select) if select.into.is_some() => ControlFlow::Break("select into"),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// Functions that give the same answer to the same arguments on every engine.
const STEADY: &[&str] = &[
    "abs",
    "btrim",
    "cast",
    "ceil",
    "ceiling",
    "coalesce",
    "concat",
    "concat_ws",
    "date_part",
    "date_trunc",
    "floor",
    "greatest",
    "ifnull",
    "initcap",
    "least",
    "left",
    "length",
    "lower",
    "lpad",
    "ltrim",
    "md5",
    "mod",
    "nullif",
    "replace",
    "reverse",
    "right",
    "round",
    "rpad",
    "rtrim",
    "sha256",
    "sign",
    "split_part",
    "strpos",
    "substr",
    "substring",
    "trim",
    "trunc",
    "upper",
];

fn plain_table(query: &Query, dialect: Dialect) -> Option<PlainTable> {
    let Query { with: None, body, limit_clause: None, fetch: None, for_clause: None, .. } = query else {
        return None;
    };
    let SetExpr::Select(select) = body.as_ref() else { return None };
    let grouped = !matches!(&select.group_by, GroupByExpr::Expressions(by, modifiers) if by.is_empty() && modifiers.is_empty());
    if grouped
        || select.distinct.is_some()
        || select.top.is_some()
        || select.having.is_some()
        || select.qualify.is_some()
        || !select.lateral_views.is_empty()
        || !select.connect_by.is_empty()
        || select.from.len() != 1
    {
        return None;
    }
    let steady_items = select.projection.iter().all(|item| match item {
        SelectItem::UnnamedExpr(e) | SelectItem::ExprWithAlias { expr: e, .. } => steady(e),
        SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..) => true,
        SelectItem::ExprWithAliases { .. } => false,
    });
    if !steady_items || !select.selection.iter().all(steady) || !select.from[0].joins.is_empty() {
        return None;
    }
    let TableFactor::Table { name, args: None, sample: None, version: None, .. } = &select.from[0].relation
    else {
        return None;
    };
    relation(name, dialect)
}

/// Whether an expression gives the same answer every time for the same row.
fn steady(expr: &Expr) -> bool {
    struct Steady;
    impl Visitor for Steady {
        type Break = ();
        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            ControlFlow::Break(())
        }
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Function(f) => {
                    let name = f.name.to_string().to_lowercase();
                    let list = matches!(f.args, FunctionArguments::List(_));
                    if f.over.is_none() && list && STEADY.contains(&name.as_str()) {
                        ControlFlow::Continue(())
                    } else {
                        ControlFlow::Break(())
                    }
                }
                _ => ControlFlow::Continue(()),
            }
        }
    }
    expr.visit(&mut Steady).is_continue()
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
