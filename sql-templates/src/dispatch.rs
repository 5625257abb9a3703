//! How a template's text becomes SQL: macros found along the chain of dialects, and a printer that
//! refuses every plain string.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, OnceLock};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Enumerator, Object, ObjectRepr, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior};

use crate::dialect::Dialect;
use crate::model::{ModelSql, ModelText};
use crate::sql::{EngineType, Expect, Ident, Literal, STEP_MARK, TableRef};

/// A value that a template may print, and how.
#[derive(Debug, Clone)]
pub(crate) enum Printable {
    Ident(Ident),
    Table(TableRef),
    Literal(Literal),
    Model(ModelSql),
    Type(EngineType),
}

impl Printable {
    pub(crate) fn value(self) -> Value {
        Value::from_object(self)
    }

    fn print(&self, dialect: Dialect, out: &mut dyn fmt::Write) -> fmt::Result {
        match self {
            Self::Ident(ident) => print_ident(dialect, ident, out),
            Self::Table(table) => {
                print_ident(dialect, &table.schema, out)?;
                out.write_char('.')?;
                print_ident(dialect, &table.name, out)
            }
            Self::Literal(Literal::Null) => out.write_str("null"),
            Self::Literal(Literal::Integer(n)) => write!(out, "{n}"),
            Self::Literal(Literal::Text(text)) if dialect.facts().lexing.backslashes => {
                let escaped = text.replace('\\', "\\\\").replace('\'', "\\'");
                write!(out, "'{}'", escaped.replace('\n', "\\n").replace('\r', "\\r"))
            }
            Self::Literal(Literal::Text(text)) => write!(out, "'{}'", text.replace('\'', "''")),
            Self::Type(engine_type) => out.write_str(&engine_type.0),
            Self::Model(model) => match &model.text {
                ModelText::Query(text) => out.write_str(text),
                ModelText::Table { schema, name } => {
                    out.write_str("select * from ")?;
                    if let Some(schema) = schema {
                        print_ident(dialect, schema, out)?;
                        out.write_char('.')?;
                    }
                    print_ident(dialect, name, out)
                }
            },
        }
    }
}

impl Object for Printable {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match (self.as_ref(), key.as_str()?) {
            (Self::Table(table), "name") => Some(Self::Ident(table.name.clone()).value()),
            _ => None,
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::NonEnumerable
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result
    where
        Self: Sized + 'static,
    {
        f.write_str("(only the printer knows how to quote this)")
    }
}

fn print_ident(dialect: Dialect, ident: &Ident, out: &mut dyn fmt::Write) -> fmt::Result {
    let facts = dialect.facts();
    let quote = facts.identifier_quote;
    out.write_char(quote)?;
    for c in ident.0.chars() {
        match c {
            // By its number: no other reader of SQL takes that for the name's end.
            '\\' | '\n' | '\r' if facts.lexing.googlesql => write!(out, "\\u{:04x}", u32::from(c))?,
            c if c == quote && facts.lexing.googlesql => write!(out, "\\u{:04x}", u32::from(c))?,
            c => {
                if c == quote {
                    out.write_char(quote)?;
                }
                out.write_char(c)?;
            }
        }
    }
    out.write_char(quote)
}

/// `d`: finds a macro in the first folder of the chain that defines it, and runs it with the
/// statement's values, so that macros see each other as the dialect has them.
#[derive(Debug)]
struct Dispatch {
    dialect: Dialect,
    /// Holds `d` itself, so it is set once `d` exists.
    context: OnceLock<Value>,
}

impl Object for Dispatch {
    fn call_method(
        self: &Arc<Self>,
        state: &mut State<'_, '_>,
        method: &str,
        args: &[Value],
    ) -> Result<Value, Error> {
        let context = self.context.get().cloned().unwrap_or_default();
        let (name, args) = match (method, args) {
            ("apply", [name, rest @ ..]) => {
                (name.as_str().ok_or_else(|| refuse("d.apply takes a macro's name"))?, rest)
            }
            _ => (method, args),
        };
        let sql = call(self.dialect, state.env(), name, context, args)?;
        Ok(Value::from_safe_string(sql.trim().to_owned()))
    }
}

fn call(
    dialect: Dialect,
    environment: &Environment<'_>,
    name: &str,
    context: Value,
    args: &[Value],
) -> Result<String, Error> {
    let file = library(dialect).macros.get(name).ok_or_else(|| {
        Error::new(ErrorKind::UnknownMethod, format!("no dialect in the chain defines the macro {name}"))
    })?;
    let mut rendered = environment.get_template(file)?.render_captured(context)?;
    rendered.with_state_mut(|state| state.call_macro(name, args))
}

/// Renders one macro of the dialect with the values of a statement.
pub(crate) fn render(
    dialect: Dialect,
    name: &str,
    values: impl IntoIterator<Item = (&'static str, Value)>,
) -> Result<String, Error> {
    let dispatch = Arc::new(Dispatch { dialect, context: OnceLock::new() });
    let d = Value::from_dyn_object(dispatch.clone());
    let context = map(values.into_iter().chain([("d", d)]));
    dispatch.context.get_or_init(|| context.clone());
    call(dialect, &library(dialect).environment, name, context, &[])
}

/// A map as templates see it.
pub(crate) fn map(entries: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    Value::from(entries.into_iter().collect::<BTreeMap<_, _>>())
}

/// The templates of one dialect and its parents.
struct Library {
    environment: Environment<'static>,
    /// The file, in the nearest folder of the chain, that defines each macro.
    macros: HashMap<String, String>,
}

macro_rules! folder {
    ($name:literal: $($file:literal),* $(,)?) => {
        ($name, &[$(($file, include_str!(concat!("../", $name, "/", $file, ".sql")))),*] as &[(&str, &str)])
    };
}

/// Every folder with its files. A dialect's folder holds only what differs from its parent.
pub(crate) const FOLDERS: &[(&str, &[(&str, &str)])] = &[
    folder!("base": "exprs", "prepare", "diff", "matching", "plan", "deliver", "commit", "prune", "audit"),
    folder!("bigquery": "exprs", "prepare", "deliver", "prune"),
    folder!("databricks": "exprs", "prepare", "diff", "commit"),
    folder!("duckdb": "exprs", "prepare", "diff"),
    folder!("mariadb": "exprs", "prepare", "diff"),
    folder!("postgres": "exprs", "prepare", "diff"),
    folder!("redshift": "exprs", "prepare", "commit", "audit"),
    folder!("snowflake": "exprs", "prepare"),
];

fn files(folder: &str) -> &'static [(&'static str, &'static str)] {
    FOLDERS.iter().find(|(name, _)| *name == folder).map_or(&[], |(_, files)| files)
}

/// The folders from which a dialect takes its macros, nearest first.
pub(crate) fn chain(dialect: Dialect) -> Vec<&'static str> {
    let mut folders = vec![dialect.name()];
    let mut parent = dialect.facts().extends.as_str();
    loop {
        folders.push(parent);
        match Dialect::ALL.into_iter().find(|d| d.name() == parent) {
            Some(next) => parent = next.facts().extends.as_str(),
            None => return folders,
        }
    }
}

/// The macros that a file defines, in order.
pub(crate) fn macro_names(text: &str) -> impl Iterator<Item = &str> {
    text.split("{% macro ").skip(1).filter_map(|rest| rest.split('(').next())
}

fn library(dialect: Dialect) -> &'static Library {
    static LIBRARIES: OnceLock<HashMap<&'static str, Library>> = OnceLock::new();
    let libraries =
        LIBRARIES.get_or_init(|| Dialect::ALL.into_iter().map(|d| (d.name(), build(d))).collect());
    &libraries[dialect.name()]
}

/// Block tags may stand on lines of their own without leaving empty lines behind.
fn syntax() -> SyntaxConfig {
    SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()
        .unwrap_or_else(|e| panic!("jinja's own delimiters: {e}"))
}

fn build(dialect: Dialect) -> Library {
    let mut environment = Environment::new();
    environment.set_syntax(syntax());
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::Custom("sql".into()));
    environment.set_formatter(move |out, _state, value| print(dialect, out, value));
    environment.add_function("col", move |alias: Value, name: Value| column(dialect, &alias, &name));
    environment.add_function("step", step);
    environment.add_filter("sql", |text: &str| plain_name(text).map(Value::from_safe_string));
    let mut macros = HashMap::new();
    for folder in chain(dialect) {
        for (file, text) in files(folder) {
            let path = format!("{folder}/{file}.sql");
            for name in macro_names(text) {
                macros.entry(name.to_owned()).or_insert_with(|| path.clone());
            }
            if let Err(e) = environment.add_template_owned(path.clone(), (*text).to_owned()) {
                panic!("{path}: {e}");
            }
        }
    }
    Library { environment, macros }
}

/// The only way from a value to SQL.
fn print(dialect: Dialect, out: &mut Output<'_>, value: &Value) -> Result<(), Error> {
    if let Some(printable) = value.downcast_object_ref::<Printable>() {
        return printable.print(dialect, out).map_err(|_| Error::from(ErrorKind::WriteFailure));
    }
    if value.is_safe() {
        return out.write_str(value.as_str().unwrap_or_default()).map_err(Error::from);
    }
    match value.kind() {
        ValueKind::Number if value.is_integer() => write!(out, "{value}").map_err(Error::from),
        ValueKind::Undefined => {
            Err(Error::new(ErrorKind::UndefinedError, "a value that the statement does not set"))
        }
        kind => Err(refuse(&format!("a plain {kind} cannot stand in a statement"))),
    }
}

fn refuse(why: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, why.to_owned())
}

/// `alias.column`, for names that a template wrote itself or that are identifiers; an alias may be what a macro printed.
fn column(dialect: Dialect, alias: &Value, name: &Value) -> Result<Value, Error> {
    let own = alias.as_str().ok_or_else(|| refuse("col() takes an alias"))?;
    let mut text = if alias.is_safe() { own.to_owned() } else { plain_name(own)? };
    text.push('.');
    match (name.downcast_object_ref::<Printable>(), name.as_str()) {
        (Some(Printable::Ident(ident)), _) => {
            print_ident(dialect, ident, &mut text).map_err(|_| Error::from(ErrorKind::WriteFailure))?;
        }
        (None, Some(own)) if own.starts_with("_levin_") => text.push_str(&plain_name(own)?),
        _ => return Err(refuse("col() takes a name")),
    }
    Ok(Value::from_safe_string(text))
}

/// Text of a template's own making: letters, `_`, `.`.
fn plain_name(text: &str) -> Result<String, Error> {
    if text.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c == '.') {
        Ok(text.to_owned())
    } else {
        Err(refuse("only a template's own words may be printed as they are"))
    }
}

fn step(name: &str, expect: Option<&str>) -> Result<Value, Error> {
    if !name.chars().all(|c| c.is_ascii_lowercase() || c == ' ') {
        return Err(refuse("a step's name is lower-case words"));
    }
    let expect = expect.unwrap_or("any");
    parse_expect(expect).ok_or_else(|| refuse("a step expects any, rows or one row"))?;
    Ok(Value::from_safe_string(format!("{STEP_MARK}{name}|{expect}{STEP_MARK}")))
}

/// The words of `step(…, expect)`.
pub(crate) fn parse_expect(word: &str) -> Option<Expect> {
    match word {
        "any" => Some(Expect::Any),
        "rows" => Some(Expect::Rows),
        "one row" => Some(Expect::OneRow),
        _ => None,
    }
}
