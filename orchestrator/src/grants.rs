//! Grants that an owner of a warehouse gives: the whole script, and the part of it that is missing.

use std::collections::BTreeSet;

use sql_templates::{Ident, PlainTable, Statement, Step};

use crate::error::{Error, ErrorCode};
use crate::project::{ModelSpec, Project, SourceSpec};
use crate::run::model_sql;

/// Who gets the grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grantee {
    /// The role that levin connects as.
    pub role: String,
    /// The database that holds the models.
    pub database: String,
}

impl Grantee {
    /// As the source's address says, and the usual names where it says nothing.
    pub fn of(source: &SourceSpec) -> Self {
        Self {
            role: source.warehouse.role().unwrap_or_else(|| "levin".to_owned()),
            database: source.warehouse.database().unwrap_or_else(|| "analytics".to_owned()),
        }
    }
}

/// The statements with which an owner lets a role do all that a source's models and runs need; none
/// where a warehouse knows no grants. They make the managed schemas, or let the role do that (`creates`).
pub fn whole(
    project: &Project,
    source: &SourceSpec,
    grantee: &Grantee,
    creates: bool,
) -> Result<Vec<Step>, Error> {
    let dialect = source.warehouse.dialect();
    let mut schemas = BTreeSet::new();
    let mut default_schema = false;
    for model in project.models.iter().filter(|m| m.source.slug == source.slug) {
        // A model that cannot be read is another command's trouble.
        let Ok(sql) = model_sql(model, dialect) else { continue };
        for relation in sql.relations() {
            match &relation.schema {
                Some(schema) => drop(schemas.insert(schema.clone())),
                None => default_schema = true,
            }
        }
    }
    default_schema |= schemas.is_empty();
    let schemas = schemas.iter().map(|s| ident(s)).collect::<Result<Vec<_>, _>>()?;
    let statement = Statement::Grants {
        planner: &ident(&source.planner_schema)?,
        audit: &ident(&source.audit_schema)?,
        role: &ident(&grantee.role)?,
        database: &ident(&grantee.database)?,
        schemas: &schemas,
        default_schema,
        creates,
    };
    Ok(statement.steps(dialect)?)
}

/// A role may not write the managed schemas: what the warehouse said, and the statements that allow it.
pub fn missing_for_writing(source: &SourceSpec, said: &str) -> Error {
    let error = Error::new(
        ErrorCode::GrantMissing,
        format!("source `{}`: cannot write the managed schemas: {said}", source.slug),
    );
    let grantee = Grantee::of(source);
    let steps = || {
        let statement = Statement::Grants {
            planner: &ident(&source.planner_schema)?,
            audit: &ident(&source.audit_schema)?,
            role: &ident(&grantee.role)?,
            database: &ident(&grantee.database)?,
            schemas: &[],
            default_schema: false,
            creates: false,
        };
        Ok::<_, Error>(statement.steps(source.warehouse.dialect())?)
    };
    match steps() {
        Ok(steps) if !steps.is_empty() => error.hint(owner_runs(&steps)),
        _ => error.hint(format!(
            "let the user that runs levin write {} and the folder that it is in",
            source.warehouse.identity()
        )),
    }
}

/// A role may not read what a model reads: what the warehouse said, and the statements that allow it.
pub fn missing_for_reading(model: &ModelSpec, said: &str) -> Error {
    let error = Error::new(ErrorCode::GrantMissing, format!("model `{}` failed: {said}", model.slug))
        .at(model.file.clone(), 1);
    let dialect = model.source.warehouse.dialect();
    let steps = || {
        let sql = model_sql(model, dialect)?;
        let relations = blamed(sql.relations(), said);
        let role = ident(&Grantee::of(&model.source).role)?;
        Ok::<_, Error>(Statement::GrantRead { role: &role, relations: &relations }.steps(dialect)?)
    };
    match steps() {
        Ok(steps) if !steps.is_empty() => error.hint(owner_runs(&steps)),
        _ => error,
    }
}

/// The relations that the warehouse's words name; all, when they name none.
fn blamed(relations: &[PlainTable], said: &str) -> Vec<PlainTable> {
    let words: BTreeSet<&str> = said.split(|c: char| c.is_whitespace() || "\"`'.,:;()".contains(c)).collect();
    let named = |r: &&PlainTable| {
        words.contains(r.name.as_str()) || r.schema.as_ref().is_some_and(|s| words.contains(s.as_str()))
    };
    let blamed: Vec<PlainTable> = relations.iter().filter(named).cloned().collect();
    if blamed.is_empty() { relations.to_vec() } else { blamed }
}

fn owner_runs(steps: &[Step]) -> String {
    let lines: String = steps.iter().map(|step| format!("\n  {};", step.sql)).collect();
    format!("let an owner run:{lines}")
}

fn ident(text: &str) -> Result<Ident, Error> {
    Ident::new(text).map_err(|e| Error::new(ErrorCode::Usage, e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_relations_that_are_named_are_blamed() {
        let table = |schema: Option<&str>, name: &str| PlainTable {
            schema: schema.map(str::to_owned),
            name: name.to_owned(),
        };
        let all = [table(None, "orders"), table(Some("sales"), "orders"), table(Some("crm"), "people")];
        assert_eq!(blamed(&all, "permission denied for table people"), all[2..]);
        assert_eq!(blamed(&all, "permission denied for schema \"sales\""), all[1..2]);
        assert_eq!(blamed(&all, "permission denied for table orders (42501)"), all[..2]);
        assert_eq!(blamed(&all, "permission denied for table base"), all);
    }
}
