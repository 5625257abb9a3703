//! The table that receives rows: its name, what the catalog says of it, how it is created.

use arrow::datatypes::{DataType, Field};
use sql_templates::LogicalType;
use tokio_postgres::{Client, Error};

use crate::change::logical_type;
use crate::destination::DeliverySpec;

/// Quotes a name: the only way in which names get into statements here.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A list of quoted names.
pub(super) fn quoted_list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(quoted).collect::<Vec<_>>().join(", ")
}

/// Schema and name of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableName {
    pub(super) schema: String,
    pub(super) table: String,
}

impl TableName {
    /// Reads `table`, `schema.table` or the same with names in double quotes. As in SQL, a name
    /// without quotes stands for its lower-case form; the schema is `public` when it is not named.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut names = Vec::new();
        let mut rest = text.trim();
        loop {
            let (name, after) = match rest.strip_prefix('"') {
                Some(inside) => quoted_name(inside).ok_or("has a quote that is not closed")?,
                None => {
                    let end = rest.find('.').unwrap_or(rest.len());
                    (rest[..end].trim().to_lowercase(), &rest[end..])
                }
            };
            if name.is_empty() || name.contains('\0') {
                return Err("has an empty name".into());
            }
            names.push(name);
            match after.trim_start().strip_prefix('.') {
                Some(next) => rest = next.trim_start(),
                None if after.trim().is_empty() => break,
                None => return Err("has text after a quoted name".into()),
            }
        }
        match <[String; 2]>::try_from(names) {
            Ok([schema, table]) => Ok(Self { schema, table }),
            Err(mut one) if one.len() == 1 => Ok(Self { schema: "public".into(), table: one.remove(0) }),
            Err(_) => {
                Err("names more than schema and table; the database stands in the destination's `url`".into())
            }
        }
    }

    pub(super) fn quoted(&self) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(&self.table))
    }
}

/// What stands before the closing quote, and what comes after it.
fn quoted_name(inside: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut characters = inside.char_indices().peekable();
    while let Some((at, c)) = characters.next() {
        if c != '"' {
            name.push(c);
        } else if characters.next_if(|(_, next)| *next == '"').is_some() {
            name.push('"');
        } else {
            return Some((name, &inside[at + 1..]));
        }
    }
    None
}

/// A table as the catalog describes it.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) name: TableName,
    pub(super) oid: u32,
    pub(super) columns: Vec<TableColumn>,
    /// A trigger may fill columns before they are looked at.
    pub(super) fills_columns: bool,
}

/// A column as the catalog describes it.
#[derive(Debug, Clone)]
pub(super) struct TableColumn {
    pub(super) name: String,
    /// The type, or what a domain is made of.
    pub(super) base_oid: u32,
    /// The name of that type, without length or precision.
    pub(super) base_type: String,
    /// The server's spelling of the type, for people.
    pub(super) type_name: String,
    /// The spelling to which texts are cast: without length or precision, because a cast to
    /// `varchar(5)` cuts silently, while storing into such a column refuses.
    pub(super) cast: String,
    pub(super) is_array: bool,
    /// Neither null nor a default can stand in for a missing value.
    pub(super) required: bool,
    /// The server computes it; nothing can be written.
    pub(super) generated: bool,
    /// `generated always as identity`: nothing can be inserted.
    pub(super) always_identity: bool,
}

impl Table {
    /// Reads the catalog; `None` when there is no such table.
    pub(super) async fn load(client: &Client, name: &TableName) -> Result<Option<Self>, Error> {
        let found = client
            .query_opt(
                "select c.oid, exists(select from pg_catalog.pg_trigger g
                     where g.tgrelid = c.oid and not g.tgisinternal and g.tgtype & 7 = 7)
                 from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                 where n.nspname = $1 and c.relname = $2 and c.relkind in ('r', 'p', 'v', 'f')",
                &[&name.schema, &name.table],
            )
            .await?;
        let Some(found) = found else { return Ok(None) };
        let oid: u32 = found.get(0);
        let rows = client
            .query(
                "select a.attname::text, b.oid, pg_catalog.format_type(b.oid, -1),
                     pg_catalog.format_type(a.atttypid, a.atttypmod), pg_catalog.format_type(a.atttypid, -1),
                     b.typcategory = 'A' and b.typelem <> 0,
                     a.attnotnull and not a.atthasdef and a.attidentity = '', a.attgenerated <> '',
                     a.attidentity = 'a'
                 from pg_catalog.pg_attribute a
                     join pg_catalog.pg_type t on t.oid = a.atttypid
                     join pg_catalog.pg_type b on b.oid = case t.typtype when 'd' then t.typbasetype else t.oid end
                 where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped order by a.attnum",
                &[&oid],
            )
            .await?;
        let column = |row: &tokio_postgres::Row| TableColumn {
            name: row.get(0),
            base_oid: row.get(1),
            base_type: row.get(2),
            type_name: row.get(3),
            cast: row.get(4),
            is_array: row.get(5),
            required: row.get(6),
            generated: row.get(7),
            always_identity: row.get(8),
        };
        let columns = rows.iter().map(column).collect();
        Ok(Some(Self { name: name.clone(), oid, columns, fills_columns: found.get(1) }))
    }

    /// Whether a unique index on exactly these columns exists, such as `on conflict` needs.
    pub(super) async fn is_unique(&self, client: &Client, columns: &[String]) -> Result<bool, Error> {
        let row = client
            .query_one(
                "select exists(select from pg_catalog.pg_index i
                     cross join lateral (select array_agg(a.attname::text) as names
                         from unnest(i.indkey::int2[]) with ordinality k(attnum, n)
                         join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
                         where k.n <= i.indnkeyatts) x
                     where i.indrelid = $1 and i.indisunique and i.indisvalid and i.indimmediate
                         and i.indpred is null and i.indexprs is null
                         and x.names @> $2::text[] and x.names <@ $2::text[])",
                &[&self.oid, &columns],
            )
            .await?;
        Ok(row.get(0))
    }

    pub(super) fn column(&self, name: &str) -> Option<&TableColumn> {
        self.columns.iter().find(|c| c.name == name)
    }
}

/// The name of a table that differs from the wanted one in case only, for a hint.
pub(super) async fn differently_cased(client: &Client, name: &TableName) -> Result<Option<TableName>, Error> {
    let row = client
        .query_opt(
            "select n.nspname::text, c.relname::text
             from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
             where lower(n.nspname) = lower($1) and lower(c.relname) = lower($2)
                 and c.relkind in ('r', 'p', 'v', 'f') limit 1",
            &[&name.schema, &name.table],
        )
        .await?;
    Ok(row.map(|r| TableName { schema: r.get(0), table: r.get(1) }))
}

/// The statement that makes the table for a sync: a column per mapped field, the identity as the
/// primary key.
pub(super) fn create_statement(name: &TableName, sync: &DeliverySpec) -> String {
    let mut columns: Vec<String> = super::written_fields(sync)
        .map(|field| format!("{} {}", quoted(field.name()), created_type(field)))
        .collect();
    let identity: Vec<&str> = sync.identity.fields().iter().map(|f| f.name().as_str()).collect();
    if !identity.is_empty() {
        columns.push(format!("primary key ({})", quoted_list(identity)));
    }
    format!("create table if not exists {} ({})", name.quoted(), columns.join(", "))
}

/// The type of a column that levin creates.
pub(super) fn created_type(field: &Field) -> &'static str {
    match logical_type(field) {
        LogicalType::Boolean => "boolean",
        // Digits and unsigned values reach beyond 64 bits with a sign.
        LogicalType::Integer if matches!(field.data_type(), DataType::Utf8 | DataType::UInt64) => "numeric",
        LogicalType::Integer => "bigint",
        LogicalType::Decimal => "numeric",
        LogicalType::Float => "double precision",
        LogicalType::Text => "text",
        LogicalType::Date => "date",
        LogicalType::Time => "time",
        LogicalType::Timestamp => "timestamp",
        LogicalType::TimestampTz => "timestamptz",
        LogicalType::Interval => "interval",
        LogicalType::Uuid => "uuid",
        LogicalType::Binary => "bytea",
        LogicalType::Json => "jsonb",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_in_sql() {
        let name = |schema: &str, table: &str| TableName { schema: schema.into(), table: table.into() };
        for (text, expected) in [
            ("customers", name("public", "customers")),
            ("Sales.Customers", name("sales", "customers")),
            ("sales . \"Customers\"", name("sales", "Customers")),
            ("\"My Schema\".\"a.b\"", name("My Schema", "a.b")),
            ("\"say \"\"hi\"\"\"", name("public", "say \"hi\"")),
        ] {
            assert_eq!(TableName::parse(text), Ok(expected), "{text}");
        }
        for wrong in ["", ".", "a.", ".b", "a.b.c", "\"a", "\"\"", "\"a\"b", "a..b"] {
            assert!(TableName::parse(wrong).is_err(), "{wrong}");
        }
        let odd = name("a\"; drop", "b");
        assert_eq!(odd.quoted(), "\"a\"\"; drop\".\"b\"");
        assert_eq!(TableName::parse(&odd.quoted()), Ok(odd));
    }
}
