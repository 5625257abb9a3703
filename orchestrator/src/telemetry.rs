//! Logs: to standard error, as text or JSON, without secrets and without row values.

use std::io::{self, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::redact::Redactor;

/// The environment variable that overrules `-v`: directives such as `orchestrator=debug,warn`.
pub const LOG_VARIABLE: &str = "LEVIN_LOG";

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts logging for the process. A second call changes nothing.
pub fn init(format: LogFormat, verbosity: u8, colour: bool, redactor: Redactor) {
    let filter = match std::env::var(LOG_VARIABLE) {
        Ok(directives) if !directives.trim().is_empty() => EnvFilter::new(directives),
        _ => EnvFilter::new(directives(verbosity)),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(RedactingStderr(redactor));
    // A subscriber that is already there (a test's) stays.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(colour).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_ansi(false).try_init(),
    };
}

/// What `-v`, `-vv` and `-vvv` show: more of levin first, then of the libraries.
fn directives(verbosity: u8) -> &'static str {
    match verbosity {
        0 => "warn",
        1 => "warn,orchestrator=info,connectors=info",
        2 => "info,orchestrator=debug,connectors=debug",
        _ => "debug,orchestrator=trace,connectors=trace",
    }
}

/// Standard error, with secrets replaced. The formatter writes a line at a time, so no secret is
/// cut in two.
#[derive(Clone)]
struct RedactingStderr(Redactor);

impl<'a> MakeWriter<'a> for RedactingStderr {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for RedactingStderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let clean = self.0.redact(&String::from_utf8_lossy(line));
        io::stderr().lock().write_all(clean.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}
