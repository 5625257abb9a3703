//! What a look at the project's files found: mistakes, and things worth a warning.

use std::path::Path;

use crate::error::{Error, ErrorCode, Place};
use crate::redact::Redactor;

/// One thing that is wrong, or looks wrong, in a project file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub place: Place,
    /// Whether the project can be used in spite of it.
    pub severity: Severity,
    /// What kind of trouble it is.
    pub code: ErrorCode,
    /// What is wrong, without a trailing period.
    pub message: String,
    /// What would be right.
    pub hint: Option<String>,
}

/// Whether a project can be used in spite of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// It cannot.
    Mistake,
    /// It can.
    Warning,
}

/// The findings of one load, gathered file by file.
#[derive(Debug, Default)]
pub(crate) struct Findings(pub(crate) Vec<Finding>);

impl Findings {
    pub(crate) fn mistake(&mut self, file: &Path, line: usize, message: impl Into<String>) -> &mut Finding {
        self.push(Severity::Mistake, file, line, message.into())
    }

    pub(crate) fn warning(&mut self, file: &Path, line: usize, message: impl Into<String>) -> &mut Finding {
        self.push(Severity::Warning, file, line, message.into())
    }

    fn push(&mut self, severity: Severity, file: &Path, line: usize, message: String) -> &mut Finding {
        let place = Place { file: file.to_owned(), line };
        self.0.push(Finding { place, severity, code: ErrorCode::ProjectInvalid, message, hint: None });
        let last = self.0.len() - 1;
        &mut self.0[last]
    }

    pub(crate) fn has_mistakes(&self) -> bool {
        self.0.iter().any(|finding| finding.severity == Severity::Mistake)
    }

    /// In the order in which a reader walks through the files, each said once.
    pub(crate) fn sorted(mut self) -> Vec<Finding> {
        self.0.sort_by(|a, b| (&a.place, &a.message).cmp(&(&b.place, &b.message)));
        self.0.dedup();
        self.0
    }
}

/// The most characters of a message: a value that is quoted in it may be a whole file.
const MOST_CHARACTERS: usize = 2_000;

impl Finding {
    /// Takes secrets out of what it says, and whatever is longer than anybody reads. In this order: of half a
    /// secret nobody knows that it is one.
    pub(crate) fn make_readable(&mut self, redactor: &Redactor) {
        for text in std::iter::once(&mut self.message).chain(&mut self.hint) {
            *text = redactor.redact(text);
            if let Some((at, _)) = text.char_indices().nth(MOST_CHARACTERS) {
                text.truncate(at);
                text.push('…');
            }
        }
    }

    pub(crate) fn hint(&mut self, hint: impl Into<String>) -> &mut Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn code(&mut self, code: ErrorCode) -> &mut Self {
        self.code = code;
        self
    }
}

/// The one error that stands for all mistakes among the findings; `None` when there is no mistake.
pub fn verdict(findings: &[Finding]) -> Option<Error> {
    let mistakes: Vec<&Finding> = findings.iter().filter(|f| f.severity == Severity::Mistake).collect();
    let first = mistakes.first()?;
    let alike = mistakes.iter().all(|finding| finding.code == first.code);
    let code = if alike { first.code } else { ErrorCode::ProjectInvalid };
    let mut files: Vec<_> = mistakes.iter().map(|finding| &finding.place.file).collect();
    files.sort();
    files.dedup();
    let count = |n: usize, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
    let message = format!("{} in {}", count(mistakes.len(), "mistake"), count(files.len(), "file"));
    Some(Error::new(code, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_short_and_holds_no_part_of_a_secret() {
        let redactor = Redactor::default();
        let secret = "s3cr3t-".repeat(300);
        redactor.add(&secret);
        let mut findings = Findings::default();
        findings.mistake(Path::new("a.yml"), 1, format!("there is no type `{secret}`"));
        findings
            .mistake(Path::new("b.yml"), 1, format!("there is no type `{}`", "é".repeat(9_000)))
            .hint("x");
        let mut findings = findings.sorted();
        for finding in &mut findings {
            finding.make_readable(&redactor);
        }
        assert_eq!(findings[0].message, "there is no type `•••`");
        assert_eq!(findings[1].message.chars().count(), MOST_CHARACTERS + 1);
    }
}
