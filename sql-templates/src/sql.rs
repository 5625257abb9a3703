//! Text that may become SQL, and nothing else may: each type here knows how it is quoted.

use std::fmt;

/// A statement that was rendered from a template. There is no public constructor: whoever holds
/// one knows that every identifier and value in it was quoted by the renderer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sql(pub(crate) String);

impl Sql {
    /// The statement's text, without a closing semicolon.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Any text as a statement, for tests of drivers.
    #[cfg(feature = "test-sql")]
    #[doc(hidden)]
    pub fn for_tests(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for Sql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Several statements that take effect together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// The statements in order.
    pub steps: Vec<Step>,
    /// How they belong together.
    pub atomicity: Atomicity,
}

/// One statement of a [`Script`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What the step does, a word or two, as it stands in the template.
    pub name: String,
    /// The statement.
    pub sql: Sql,
    /// What must be true of its effect.
    pub expect: Expect,
}

/// What a step must do for its script to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Any number of rows written.
    Any,
    /// The step returns rows; they are handed back in [`Script`] order.
    Rows,
    /// Exactly one row written, else the whole script is undone and the caller is *fenced*.
    OneRow,
}

/// How the steps of a [`Script`] belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Atomicity {
    /// All or nothing, and every step reads the same state of the database.
    Snapshot,
    /// All or nothing; a step sees what others committed before it.
    Transaction,
    /// As `Snapshot`, and undone at the end whatever happened: for looking, not for doing.
    Rehearsal,
    /// One after the other, each on its own; the first that fails is the last. For statements whose engine
    /// would not undo them.
    Separate,
}

/// A name that is quoted wherever it is printed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ident(pub(crate) String);

impl Ident {
    /// Takes any text but one with a NUL or a control mark of the renderer.
    pub fn new(name: impl Into<String>) -> Result<Self, InvalidText> {
        checked(name.into()).map(Self)
    }

    /// The name, unquoted, for messages.
    pub fn name(&self) -> &str {
        &self.0
    }
}

/// A table inside a schema.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TableRef {
    /// The schema.
    pub schema: Ident,
    /// The table.
    pub name: Ident,
}

impl TableRef {
    /// A table from two plain names.
    pub fn new(schema: &str, name: &str) -> Result<Self, InvalidText> {
        Ok(Self { schema: Ident::new(schema)?, name: Ident::new(name)? })
    }
}

impl fmt::Display for TableRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema.0, self.name.0)
    }
}

/// A value that is quoted wherever it is printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Literal {
    /// SQL's `null`.
    Null,
    /// A text literal.
    Text(String),
    /// An integer literal.
    Integer(i64),
}

/// The type of a column as its engine spells it. Only text that an engine printed of itself gets
/// here; it is printed unquoted, so it may hold nothing that could end a `cast( … as … )`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineType(pub(crate) String);

impl EngineType {
    /// Takes names, numbers, quoted names and quoted labels, with balanced parentheses; commas only
    /// between parentheses; no backslash in a label, because engines differ on what it means there.
    pub fn from_engine(text: &str) -> Result<Self, InvalidText> {
        let refused = || InvalidText { text: text.to_owned() };
        let mut depth = 0_u32;
        let mut quote = None;
        let mut before = ' ';
        for c in text.chars() {
            match (quote, c) {
                // A doubled quote closes and opens again, which comes to the same.
                (Some(open), _) if open == c => quote = None,
                (Some('\''), '\\') => return Err(refused()),
                (Some(_), _) => {}
                // A letter before a quote changes what stands inside it: `E'…'`.
                (None, '\'' | '"') if before.is_alphanumeric() || before == '_' => return Err(refused()),
                (None, '\'' | '"') => quote = Some(c),
                (None, '(') => depth += 1,
                (None, ')') => depth = depth.checked_sub(1).ok_or_else(refused)?,
                (None, ',') if depth > 0 => {}
                (None, c) if c.is_alphanumeric() || " _.[]".contains(c) => {}
                (None, _) => return Err(refused()),
            }
            before = c;
        }
        if quote.is_some() || depth != 0 || text.trim().is_empty() {
            return Err(refused());
        }
        checked(text.to_owned()).map(Self)
    }
}

/// Text that can stand in no statement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} cannot stand in a statement: it is empty, or holds a NUL or a control mark")]
pub struct InvalidText {
    /// The refused text.
    pub text: String,
}

/// Marks the beginning and end of a step's heading inside rendered text; no input may hold it.
pub(crate) const STEP_MARK: char = '\u{1}';

fn checked(text: String) -> Result<String, InvalidText> {
    if text.is_empty() || text.contains(['\0', STEP_MARK]) { Err(InvalidText { text }) } else { Ok(text) }
}

#[cfg(test)]
#[path = "sql_tests.rs"]
mod tests;
