//! What a look at the project's files found: mistakes, and things worth a warning.

use std::path::Path;

use crate::error::{Error, ErrorCode, Place};

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

impl Finding {
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
