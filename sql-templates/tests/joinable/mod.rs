//! Whether an engine can join what a statement puts beside each other: an outer join, and a subquery that speaks of the row
//! outside, by an equality of both.

use std::collections::HashSet;
use std::ops::ControlFlow;

use sqlparser::ast::{
    BinaryOperator, Expr, JoinConstraint, JoinOperator, Query, Select, SetExpr, Statement, TableFactor,
    TableWithJoins, Visit, Visitor, visit_expressions,
};

/// What was found.
#[derive(Default)]
pub struct Found {
    /// Conditions that join.
    pub seen: usize,
    /// Those among them without an equality.
    pub wrong: Vec<String>,
    /// Whether joins are looked at.
    joins: bool,
}

/// Looks at every subquery's condition in these statements, and at those of outer joins.
pub fn look(statements: &[Statement], joins: bool) -> Found {
    let mut found = Found { joins, ..Found::default() };
    for statement in statements {
        let ControlFlow::Continue(()) = statement.visit(&mut found);
    }
    found
}

impl Visitor for Found {
    type Break = std::convert::Infallible;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Self::Break> {
        if self.joins {
            self.selects(&query.body);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Self::Break> {
        if let Expr::Exists { subquery, .. } = expr
            && let SetExpr::Select(select) = subquery.body.as_ref()
            && let Some(condition) = &select.selection
        {
            let inside = names(&select.from);
            if rows_of(condition).iter().any(|row| !inside.contains(row)) {
                self.judge(condition, |row| inside.contains(row));
            }
        }
        ControlFlow::Continue(())
    }
}

impl Found {
    fn selects(&mut self, body: &SetExpr) {
        match body {
            SetExpr::Select(select) => self.joins(select),
            SetExpr::SetOperation { left, right, .. } => {
                self.selects(left);
                self.selects(right);
            }
            _ => {}
        }
    }

    fn joins(&mut self, select: &Select) {
        for join in select.from.iter().flat_map(|from| &from.joins) {
            let on = match &join.join_operator {
                JoinOperator::Left(on)
                | JoinOperator::LeftOuter(on)
                | JoinOperator::Right(on)
                | JoinOperator::RightOuter(on)
                | JoinOperator::FullOuter(on) => on,
                _ => continue,
            };
            let JoinConstraint::On(condition) = on else { continue };
            let joined = name(&join.relation);
            self.judge(condition, |row| joined.as_deref() == Some(row));
        }
    }

    /// One of the conditions that must all hold compares a value of one side with one of the other.
    fn judge(&mut self, condition: &Expr, is_inside: impl Fn(&str) -> bool) {
        self.seen += 1;
        let joins = conjuncts(condition).into_iter().any(|part| {
            let Expr::BinaryOp { left, op: BinaryOperator::Eq, right } = part else { return false };
            let (left, right) = (rows_of(left), rows_of(right));
            let one = |rows: &HashSet<String>, inside: bool| {
                !rows.is_empty() && rows.iter().all(|row| is_inside(row) == inside)
            };
            one(&left, true) && one(&right, false) || one(&left, false) && one(&right, true)
        });
        if !joins {
            self.wrong.push(condition.to_string());
        }
    }
}

fn conjuncts(condition: &Expr) -> Vec<&Expr> {
    match condition {
        Expr::Nested(inner) => conjuncts(inner),
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            [conjuncts(left), conjuncts(right)].concat()
        }
        other => vec![other],
    }
}

/// What rows are called of which an expression reads a column.
fn rows_of(expr: &Expr) -> HashSet<String> {
    let mut rows = HashSet::new();
    let _ = visit_expressions(expr, |part| {
        if let Expr::CompoundIdentifier(parts) = part {
            rows.insert(parts[0].value.clone());
        }
        ControlFlow::<()>::Continue(())
    });
    rows
}

fn names(from: &[TableWithJoins]) -> HashSet<String> {
    let relations =
        from.iter().flat_map(|f| std::iter::once(&f.relation).chain(f.joins.iter().map(|j| &j.relation)));
    relations.filter_map(name).collect()
}

fn name(relation: &TableFactor) -> Option<String> {
    match relation {
        TableFactor::Table { alias: Some(alias), .. } | TableFactor::Derived { alias: Some(alias), .. } => {
            Some(alias.name.value.clone())
        }
        TableFactor::Table { name, .. } => Some(name.0.last()?.as_ident()?.value.clone()),
        _ => None,
    }
}
