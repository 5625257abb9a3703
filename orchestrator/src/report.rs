//! Everything that a person reads: data on standard output, all else on standard error. The only
//! module that prints.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::config::{Finding, Severity};
use crate::error::Error;
use crate::redact::Redactor;
use crate::run::{Progress, ReportedError, Stage};

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum ColourChoice {
    /// On a terminal that is not dumb, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What a colour means. Nothing is said by colour alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Went well; rows added.
    Good,
    /// Worth a look; rows changed.
    Warning,
    /// Went wrong; rows removed.
    Bad,
    /// Advice.
    Hint,
    /// A heading.
    Heading,
    /// Of lesser weight.
    Faint,
}

impl Meaning {
    fn code(self) -> &'static str {
        match self {
            Self::Good => "32",
            Self::Warning => "33",
            Self::Bad => "31;1",
            Self::Hint => "36",
            Self::Heading => "1",
            Self::Faint => "2",
        }
    }
}

/// Prints for people and programs. Everything on standard error goes through the [`Redactor`].
#[derive(Debug, Clone)]
pub struct Report {
    redactor: Redactor,
    out: bool,
    err: bool,
}

impl Report {
    /// A report that colours as asked.
    pub fn new(choice: ColourChoice, redactor: Redactor) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let coloured = |terminal: bool| match choice {
            ColourChoice::Always => true,
            ColourChoice::Never => false,
            ColourChoice::Auto => terminal && !no_color && !is_dumb(),
        };
        Self {
            redactor,
            out: coloured(io::stdout().is_terminal()),
            err: coloured(io::stderr().is_terminal()),
        }
    }

    /// Whether standard error is coloured.
    pub fn colours_stderr(&self) -> bool {
        self.err
    }

    /// A text for standard output, coloured when that is.
    pub fn paint(&self, meaning: Meaning, text: &str) -> String {
        paint(self.out, meaning, text)
    }

    /// Prints data: a line, or several, to standard output.
    pub fn data(&self, text: &str) {
        // A reader that has seen enough (`| head`) closed the pipe: that is no error of ours.
        let _ = writeln!(io::stdout().lock(), "{}", text.trim_end_matches('\n'));
    }

    /// Prints a value as JSON, indented, to standard output.
    pub fn json(&self, value: &serde_json::Value) {
        self.data(&format!("{value:#}"));
    }

    /// Prints a value as one line of JSON to standard output.
    pub fn json_line(&self, value: &serde_json::Value) {
        self.data(&self.redactor.redact(&value.to_string()));
    }

    /// Prints the error that a run's report carries.
    pub fn reported(&self, error: &ReportedError) {
        let head = paint(self.err, Meaning::Bad, &format!("error[{}]:", error.code));
        let hint = paint(self.err, Meaning::Hint, "hint:");
        self.print_err(&format!("{head} {}\n\n{hint} {}", error.message, error.hint));
    }

    /// Prints a table as data.
    pub fn table(&self, table: &Table) {
        self.data(&table.render(|text| self.paint(Meaning::Heading, text)));
    }

    /// Prints a line to standard error.
    pub fn note(&self, text: &str) {
        self.print_err(text);
    }

    /// Prints to standard error that something went well.
    pub fn done(&self, text: &str) {
        self.print_err(&format!("{} {text}", paint(self.err, Meaning::Good, "ok:")));
    }

    /// Prints a warning to standard error.
    pub fn warning(&self, text: &str) {
        self.print_err(&format!("{} {text}", paint(self.err, Meaning::Warning, "warning:")));
    }

    /// Prints what was found in a project file: `file:line: message`, and below it what would be right.
    pub fn finding(&self, finding: &Finding) {
        let place = paint(self.err, Meaning::Heading, &format!("{}:", finding.place));
        let severity = match finding.severity {
            Severity::Mistake => String::new(),
            Severity::Warning => format!("{} ", paint(self.err, Meaning::Warning, "warning:")),
        };
        let mut text = format!("{place} {severity}{}", finding.message);
        if let Some(hint) = &finding.hint {
            // Writing into a String cannot fail.
            let _ = write!(text, "\n  {} {hint}", paint(self.err, Meaning::Hint, "hint:"));
        }
        self.print_err(&text);
    }

    /// Prints why a command or run ended, and what to do next.
    pub fn error(&self, error: &Error) {
        let head = paint(self.err, Meaning::Bad, &format!("error[{}]:", error.code));
        let place = error.place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default();
        let hint = paint(self.err, Meaning::Hint, "hint:");
        self.print_err(&format!("{head} {place}{}\n\n{hint} {}", error.message, error.advice()));
    }

    fn print_err(&self, text: &str) {
        // There is nowhere left to say that standard error is gone.
        let _ = writeln!(io::stderr().lock(), "{}", self.redactor.redact(text));
    }
}

fn paint(coloured: bool, meaning: Meaning, text: &str) -> String {
    if coloured { format!("\u{1b}[{}m{text}\u{1b}[0m", meaning.code()) } else { text.to_owned() }
}

/// A number with separators between its thousands: `10,402,118`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 row`, `2,000 rows`.
pub fn counted(number: u64, one: &str) -> String {
    format!("{} {one}{}", thousands(number), if number == 1 { "" } else { "s" })
}

/// A number of bytes in the largest decimal unit that leaves something before the point: `1.2 GB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["bytes", "kB", "MB", "GB", "TB", "PB"];
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    let (mut size, mut unit) = (bytes as f64, 0);
    // What would be rounded to a thousand is one of the next unit.
    while size >= 999.95 && unit + 1 < UNITS.len() {
        size /= 1000.0;
        unit += 1;
    }
    if unit == 0 { counted(bytes, "byte") } else { format!("{size:.1} {}", UNITS[unit]) }
}

/// Rows under headings, columns as wide as their widest cell.
#[derive(Debug, Clone, Default)]
pub struct Table {
    headings: Vec<String>,
    rows: Vec<Vec<String>>,
    /// Columns of numbers, which stand flush right.
    right: Vec<usize>,
}

impl Table {
    /// A table with these headings and no rows.
    pub fn new(headings: &[&str]) -> Self {
        Self { headings: headings.iter().map(|h| (*h).to_owned()).collect(), ..Self::default() }
    }

    /// The same table, with numbers in these columns.
    #[must_use]
    pub fn numbers_in(mut self, columns: &[usize]) -> Self {
        self.right = columns.to_vec();
        self
    }

    /// Adds a row; cells that are missing stay empty.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as text; `heading` colours the first line.
    pub fn render(&self, heading: impl Fn(&str) -> String) -> String {
        let cell = |row: &[String], column: usize| row.get(column).cloned().unwrap_or_default();
        let widths: Vec<usize> = (0..self.headings.len())
            .map(|column| {
                let cells = self.rows.iter().map(|row| cell(row, column).chars().count());
                cells.chain([self.headings[column].chars().count()]).max().unwrap_or(0)
            })
            .collect();
        let line = |row: &[String]| {
            let cells: Vec<String> = widths
                .iter()
                .enumerate()
                .map(|(column, &width)| {
                    let text = cell(row, column);
                    if self.right.contains(&column) {
                        format!("{text:>width$}")
                    } else {
                        format!("{text:<width$}")
                    }
                })
                .collect();
            cells.join("  ").trim_end().to_owned()
        };
        let mut lines = vec![heading(&line(&self.headings))];
        lines.extend(self.rows.iter().map(|row| line(row)));
        lines.join("\n")
    }
}

/// Shows how runs go on: one line per stage, and on a terminal a bar for each delivery under way.
pub struct RunProgress {
    report: Report,
    /// Several syncs run, so each line names its own.
    several: bool,
    quiet: bool,
    bars: Option<Bars>,
}

/// The bars at the foot of a terminal.
struct Bars {
    screen: MultiProgress,
    /// By the sync's slug.
    of: Mutex<HashMap<String, ProgressBar>>,
}

/// Whether standard error is a terminal on which a line can be drawn again.
fn can_draw() -> bool {
    io::stderr().is_terminal() && !is_dumb()
}

/// A terminal that says of itself that it knows no control characters.
fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

impl RunProgress {
    /// For a command that runs one sync or several.
    pub fn new(report: &Report, several: bool, quiet: bool) -> Self {
        let bars = (!quiet && can_draw()).then(|| Bars {
            screen: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()),
            of: Mutex::default(),
        });
        Self { report: report.clone(), several, quiet, bars }
    }

    /// Takes a sync's bar off the screen.
    pub fn finish(&self, sync: &str) {
        let Some(bars) = &self.bars else { return };
        if let Some(bar) = bars.lock().remove(sync) {
            bar.finish_and_clear();
            bars.screen.remove(&bar);
        }
    }

    /// Prints while no bar is in the way.
    pub fn print(&self, print: impl FnOnce()) {
        match &self.bars {
            Some(bars) => bars.screen.suspend(print),
            None => print(),
        }
    }

    fn prefix(&self, sync: &str) -> String {
        if self.several { format!("{sync}: ") } else { String::new() }
    }
}

impl Bars {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, ProgressBar>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        // Of a run that broke off; a screen that is gone needs no clearing.
        let _ = self.screen.clear();
    }
}

/// How a bar looks; it has no colours.
fn bar_style() -> ProgressStyle {
    let template =
        "{prefix}deliver  {wide_bar} {human_pos}/{human_len} rows · {rows_per_second} rows/s · {eta} left";
    // The template is ours; if it could not be read the bar would only look plainer.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.with_key("rows_per_second", |state: &ProgressState, text: &mut dyn fmt::Write| {
        // A rate that is not negative, and far from the end of the numbers.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "see above")]
        let rate = state.per_sec().round() as u64;
        // Writing into a text cannot fail.
        let _ = text.write_str(&thousands(rate));
    })
}

impl Progress for RunProgress {
    fn stage(&self, sync: &str, stage: Stage, summary: &str, seconds: f64) {
        if self.quiet || summary.is_empty() {
            return;
        }
        if stage == Stage::Deliver {
            self.finish(sync);
        }
        let line = format!("{}{:8} {summary} ({seconds:.2} s)", self.prefix(sync), stage.name());
        self.print(|| self.report.note(&line));
    }

    fn delivered(&self, sync: &str, done: u64, total: u64) {
        let Some(bars) = &self.bars else { return };
        let mut shown = bars.lock();
        let bar = shown.entry(sync.to_owned()).or_insert_with(|| {
            let bar = bars.screen.add(ProgressBar::new(total).with_style(bar_style()));
            bar.set_prefix(self.prefix(sync));
            bar
        });
        bar.set_position(done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_separators() {
        let shown: Vec<String> =
            [0, 7, 999, 1_000, 10_402_118, u64::MAX].into_iter().map(thousands).collect();
        assert_eq!(shown, ["0", "7", "999", "1,000", "10,402,118", "18,446,744,073,709,551,615"]);
        assert_eq!((counted(1, "row"), counted(1_000, "row")), ("1 row".to_owned(), "1,000 rows".to_owned()));
    }

    #[test]
    fn tables_line_up() {
        let mut table = Table::new(&["sync", "rows"]).numbers_in(&[1]);
        assert!(table.is_empty());
        table.row(["kundenübersicht".to_owned(), "1,000".to_owned()]);
        table.row(["a".to_owned()]);
        table.row(["bc".to_owned(), "7".to_owned()]);
        let text = table.render(str::to_uppercase);
        assert_eq!(text, "SYNC              ROWS\nkundenübersicht  1,000\na\nbc                   7");
    }
}
