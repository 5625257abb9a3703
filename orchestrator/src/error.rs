//! Errors as a person meets them: a stable code, what happened, where, and what to do next.
//!
//! Every code has one row in the table below and one page in `errors/`, shown by `levin explain`.

use std::fmt;
use std::path::PathBuf;

use connectors::catalogue::ConfigError;
use connectors::outcome::DeliveryError;
use connectors::warehouse::{ErrorKind, WarehouseError};

/// An error that ends a command or a run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What kind of trouble, and with it the exit code and the page.
    pub code: ErrorCode,
    /// What happened, in one sentence without a trailing period. May still hold secrets: whatever
    /// prints it sends it through [`crate::redact::Redactor`].
    pub message: String,
    /// The line of a project file that is to blame, when there is one.
    pub place: Option<Place>,
    /// What to do next, when it is more particular than the code's own hint.
    pub hint: Option<String>,
}

/// A line of a project file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The file, relative to the project's folder.
    pub file: PathBuf,
    /// The line, counted from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

impl Error {
    /// An error of a kind, with what happened.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), place: None, hint: None }
    }

    /// The same error, naming the line that is to blame.
    #[must_use]
    pub fn at(mut self, file: impl Into<PathBuf>, line: usize) -> Self {
        self.place = Some(Place { file: file.into(), line });
        self
    }

    /// The same error, saying what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What to do next: the error's own hint, else that of its code.
    pub fn advice(&self) -> &str {
        self.hint.as_deref().unwrap_or_else(|| self.code.hint())
    }
}

impl From<WarehouseError> for Error {
    fn from(error: WarehouseError) -> Self {
        let code = match error.kind {
            ErrorKind::Unreachable => ErrorCode::SourceUnreachable,
            ErrorKind::Authentication => ErrorCode::SourceAuthentication,
            ErrorKind::Permission => ErrorCode::GrantMissing,
            ErrorKind::Busy => ErrorCode::SourceBusy,
            ErrorKind::Fenced => ErrorCode::LeaseLost,
            ErrorKind::Cancelled => ErrorCode::Cancelled,
            ErrorKind::ConnectionLost => ErrorCode::SourceConnectionLost,
            ErrorKind::OutOfSpace => ErrorCode::SourceOutOfSpace,
            ErrorKind::Unsupported => ErrorCode::ColumnTypeUnsupported,
            ErrorKind::NotFound
            | ErrorKind::AlreadyExists
            | ErrorKind::Invalid
            | ErrorKind::Data
            | ErrorKind::UniqueViolation
            | ErrorKind::TookTooLong
            | ErrorKind::ResultGone
            | ErrorKind::Other => ErrorCode::SourceFailed,
        };
        let step = error.step.map(|step| format!("in step `{step}`: ")).unwrap_or_default();
        let engine = error.code.map(|code| format!(" ({code})")).unwrap_or_default();
        let said = Self::new(code, format!("{step}{}{engine}", error.message));
        match error.kind {
            ErrorKind::TookTooLong => {
                said.hint("raise `statement_timeout` in the source's file, or that of its role or database")
            }
            _ => said,
        }
    }
}

impl From<DeliveryError> for Error {
    fn from(error: DeliveryError) -> Self {
        let message = error.to_string();
        match error {
            DeliveryError::Throttled { .. } | DeliveryError::Unavailable { .. } => {
                Self::new(ErrorCode::DestinationUnavailable, message)
            }
            DeliveryError::Refused { .. } => Self::new(ErrorCode::DestinationRefused, message),
            DeliveryError::Unauthorized { hint, .. } => {
                Self::new(ErrorCode::DestinationUnusable, message).hint(hint)
            }
        }
    }
}

impl From<sql_templates::RenderError> for Error {
    fn from(error: sql_templates::RenderError) -> Self {
        Self::new(ErrorCode::Internal, error.to_string())
    }
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Self::new(ErrorCode::ProjectInvalid, error.to_string())
    }
}

/// How a command ends, as its exit code tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Done, and some rows were rejected or set aside.
    Rejected = 1,
    /// A run failed.
    Failed = 2,
    /// A guard tripped.
    Guard = 3,
    /// Wrong usage, or an invalid project.
    Usage = 64,
}

impl Exit {
    /// The exit code of a command that did several things: a failure tells more than a guard, a
    /// guard more than rejected rows.
    #[must_use]
    pub fn worse(self, other: Self) -> Self {
        let rank = |exit| match exit {
            Self::Done => 0,
            Self::Rejected => 1,
            Self::Guard => 2,
            Self::Failed => 3,
            Self::Usage => 4,
        };
        if rank(other) > rank(self) { other } else { self }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

macro_rules! error_codes {
    ($($variant:ident $name:literal $exit:ident $hint:literal)*) => {
        /// The stable word for a kind of trouble: scripts and people may rely on it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ErrorCode {
            $(#[doc = concat!("`", $name, "`: see `errors/", $name, ".md`.")] $variant,)*
        }

        impl ErrorCode {
            /// Every code, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Name, exit code, default hint and page of a code.
            const fn row(self) -> Row {
                match self {
                    $(Self::$variant => Row {
                        name: $name,
                        exit: Exit::$exit,
                        hint: $hint,
                        page: include_str!(concat!("../errors/", $name, ".md")),
                    },)*
                }
            }
        }
    };
}

error_codes! {
    Usage                 "USAGE"                     Usage    "see `levin --help`"
    ProjectInvalid        "PROJECT_INVALID"           Usage    "correct the lines named above, then run `levin check`"
    ProjectNotFound       "PROJECT_NOT_FOUND"         Usage    "go to the folder that holds `levin.yml`, name it with `--project DIR`, or make one with `levin init`"
    LockFileInvalid       "LOCK_FILE_INVALID"         Usage    "take `levin.lock.yml` back from version control; never write ids by hand"
    SecretMissing         "SECRET_MISSING"            Usage    "set the environment variable or create the file; `levin check --offline` does without"
    SourceUnreachable     "SOURCE_UNREACHABLE"        Failed   "check the address or path in `sources/`, the network, and that the warehouse is running"
    SourceAuthentication  "SOURCE_AUTHENTICATION"     Failed   "check user, password, key or token of the source"
    SourceBusy            "SOURCE_BUSY"               Failed   "wait until the other process is done, or run again with `--wait 5m`"
    SourceFailed          "SOURCE_FAILED"             Failed   "read the warehouse's message; `levin sql SYNC` shows the statement"
    SourceOutOfSpace      "SOURCE_OUT_OF_SPACE"       Failed   "make room in the warehouse (disk, quota, memory), then run again"
    SourceConnectionLost  "SOURCE_CONNECTION_LOST"    Failed   "run again; what was accepted is settled first"
    GrantMissing          "GRANT_MISSING"             Failed   "`levin grants SOURCE` prints the script that an owner can run"
    ModelNotOneSelect     "MODEL_NOT_ONE_SELECT"      Usage    "make the model a single SELECT"
    ModelFailed           "MODEL_FAILED"              Failed   "try the model with `levin preview MODEL`"
    ModelKeyMissing       "MODEL_KEY_MISSING"         Failed   "return the column from the model, or correct `primary_key`"
    ModelDuplicateColumn  "MODEL_DUPLICATE_COLUMN"    Failed   "give every column of the model a name of its own with `as`"
    ModelReservedColumn   "MODEL_RESERVED_COLUMN"     Failed   "rename the column in the model with `as`"
    KeyTypeUnsupported    "KEY_TYPE_UNSUPPORTED"      Failed   "cast the key in the model to text or to an integer"
    KeyTooLong            "KEY_TOO_LONG"              Failed   "use a shorter key: for example `md5(key)` beside the long one in the model"
    KeyChanged            "KEY_CHANGED"               Failed   "`levin run SYNC --full-resync` sends every row again; `--reset-cdc` takes today's rows as accepted"
    KeyTypeNotOneToOne    "KEY_TYPE_NOT_ONE_TO_ONE"   Failed   "cast the key back to its former type, or use `--full-resync` or `--reset-cdc`"
    ColumnTypeUnsupported "COLUMN_TYPE_UNSUPPORTED"   Failed   "cast the column in the model, or leave it out"
    TooManyColumns        "TOO_MANY_COLUMNS"          Failed   "select fewer columns in the model, or map fewer"
    QueryColumnMissing    "QUERY_COLUMN_MISSING"      Failed   "return the column from the model, or take it out of the mappings"
    TargetChanged         "TARGET_CHANGED"            Failed   "`--full-resync` fills the new target; `--reset-cdc` declares that it already holds the rows"
    ModeChanged           "MODE_CHANGED"              Failed   "`levin run SYNC --full-resync`, or `--reset-cdc` when the destination is right as it is"
    ClearUnsupported      "CLEAR_UNSUPPORTED"         Usage    "for `http_request` add `clear: {method, path}` to the sync; `--full-resync` sends every row without emptying anything"
    GuardTripped          "GUARD_TRIPPED"             Guard    "look at `levin plan SYNC`; when it is meant, `levin run SYNC --approve PLAN`"
    SyncBusy              "SYNC_BUSY"                 Failed   "wait for the other run, or run again with `--wait 5m`"
    SyncDisabled          "SYNC_DISABLED"             Usage    "enable it again, through the API or in its file; `levin run SYNC` runs it all the same"
    LeaseLost             "LEASE_LOST"                Failed   "nothing to do: the run that took over, or the next one, settles this one"
    PlanStale             "PLAN_STALE"                Failed   "make a new plan with `levin plan SYNC`"
    DestinationUnavailable "DESTINATION_UNAVAILABLE"  Failed   "run again once the destination is well; rows not accepted come again"
    DestinationRefused    "DESTINATION_REFUSED"       Failed   "read the destination's answer in `levin rejected SYNC`, and try one row with `levin test-row`"
    DestinationUnusable   "DESTINATION_UNUSABLE"      Failed   "check credentials, address and permissions of the destination, then `levin check`"
    DestinationFieldMissing "DESTINATION_FIELD_MISSING" Failed "create the field at the destination, or take it out of the mappings"
    DuplicatePrimaryKey   "DUPLICATE_PRIMARY_KEY"     Rejected "make the model return each key once"
    NullPrimaryKey        "NULL_PRIMARY_KEY"          Rejected "make the model return no row without a key"
    NullMatchValue        "NULL_MATCH_VALUE"          Rejected "make the model return no row whose matching field is null"
    DuplicateMatchValue   "DUPLICATE_MATCH_VALUE"     Rejected "make the matching field unique in the model, or match by the primary key"
    MatchValueHeld        "MATCH_VALUE_HELD"          Rejected "see why the removal was refused; the row comes again in the next run"
    NotFound              "NOT_FOUND"                 Rejected "create the record at the destination, or use mode `upsert`"
    UnrepresentableValue  "UNREPRESENTABLE_VALUE"     Rejected "change the value in the model"
    Refused               "REFUSED"                   Rejected "read the reason in `levin rejected SYNC` and correct the row in the model"
    DestinationError      "DESTINATION_ERROR"         Rejected "nothing at first: the row comes again in the next run"
    TemplateFailed        "TEMPLATE_FAILED"           Rejected "make the template cope with the value, for example with `default`"
    StoreFailed           "STORE_FAILED"              Failed   "check `store:` in `levin.yml`: is the place there, writable, and not full"
    Cancelled             "CANCELLED"                 Failed   "run again to go on; rows not sent are still differences"
    Interrupted           "INTERRUPTED"               Failed   "run again; the unfinished run is settled first"
    SnapshotExpired       "SNAPSHOT_EXPIRED"          Failed   "`--full-resync` sends every row again; `--reset-cdc` takes today's rows as accepted"
    SnapshotMissing       "SNAPSHOT_MISSING"          Failed   "restore the tables from a backup; or `--full-resync` sends every row again, and `--reset-cdc` takes today's rows as accepted"
    ListenFailed          "LISTEN_FAILED"             Failed   "name another address with `--listen`, or end what listens there"
    ServiceUnwell         "SERVICE_UNWELL"            Failed   "look at the service's log, then ask again"
    Internal              "INTERNAL"                  Failed   "this is a fault of levin: report it with the output of the same command with `-vv`"
}

struct Row {
    name: &'static str,
    exit: Exit,
    hint: &'static str,
    page: &'static str,
}

impl ErrorCode {
    /// The word that is printed, stored and documented.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The code of that name; case and `-` for `_` do not matter.
    pub fn from_name(name: &str) -> Option<Self> {
        let wanted = name.trim().to_uppercase().replace('-', "_");
        Self::ALL.iter().copied().find(|code| code.name() == wanted)
    }

    /// How a command ends that met this and nothing worse.
    pub fn exit(self) -> Exit {
        self.row().exit
    }

    /// What to do next, when nothing more particular is known.
    pub fn hint(self) -> &'static str {
        self.row().hint
    }

    /// The page that `levin explain` shows, in Markdown.
    pub fn page(self) -> &'static str {
        self.row().page
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use connectors::outcome::Rejection;

    use super::*;

    #[test]
    fn every_code_has_a_page_and_every_page_a_code() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("errors");
        let pages: BTreeSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let codes: BTreeSet<String> = ErrorCode::ALL.iter().map(|code| format!("{code}.md")).collect();
        assert_eq!(pages, codes);
        assert_eq!(codes.len(), ErrorCode::ALL.len(), "two codes share a name");
    }

    #[test]
    fn every_page_is_titled_and_says_what_to_do_and_what_is_safe() {
        for code in ErrorCode::ALL {
            let page = code.page();
            assert_eq!(page.lines().next(), Some(format!("# {code}").as_str()));
            for heading in ["## What happened", "## What to do", "## What is safe"] {
                assert!(page.contains(heading), "{code}.md has no `{heading}`");
            }
            let lines = page.lines().count();
            assert!((8..=30).contains(&lines), "{code}.md has {lines} lines");
            assert!(!code.hint().ends_with('.'), "{code}: hints are one sentence without a period");
        }
    }

    #[test]
    fn the_words_of_connectors_for_rejected_rows_are_codes() {
        for word in [
            Rejection::REFUSED,
            Rejection::NOT_FOUND,
            Rejection::NULL_MATCH_VALUE,
            Rejection::DUPLICATE_MATCH_VALUE,
            Rejection::MATCH_VALUE_HELD,
            Rejection::UNREPRESENTABLE_VALUE,
            Rejection::DESTINATION_ERROR,
            Rejection::TEMPLATE_FAILED,
        ] {
            let code = ErrorCode::from_name(word).unwrap_or_else(|| panic!("{word} has no code"));
            assert_eq!(code.exit(), Exit::Rejected, "{word} is about a row, not about a run");
        }
    }

    #[test]
    fn codes_are_found_however_they_are_typed() {
        assert_eq!(ErrorCode::from_name("guard-tripped"), Some(ErrorCode::GuardTripped));
        assert_eq!(ErrorCode::from_name(" PLAN_STALE "), Some(ErrorCode::PlanStale));
        assert_eq!(ErrorCode::from_name("PLAN"), None);
    }

    #[test]
    fn troubles_of_connectors_become_codes_with_their_words() {
        let lost = WarehouseError {
            kind: ErrorKind::Fenced,
            message: "0 rows".to_owned(),
            code: Some("40001".to_owned()),
            step: Some("fence".to_owned()),
        };
        let error = Error::from(lost);
        assert_eq!(error.code, ErrorCode::LeaseLost);
        assert_eq!(error.message, "in step `fence`: 0 rows (40001)");

        let refused = Error::from(DeliveryError::Unauthorized {
            message: "401".to_owned(),
            hint: "renew the token".to_owned(),
        });
        assert_eq!(refused.code, ErrorCode::DestinationUnusable);
        assert_eq!(refused.advice(), "renew the token");
        assert_eq!(Error::new(ErrorCode::SyncBusy, "busy").advice(), ErrorCode::SyncBusy.hint());
    }
}
