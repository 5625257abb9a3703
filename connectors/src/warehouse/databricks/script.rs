//! Several statements as one block, `begin atomic … end`, whose last word is how many rows each of them wrote.
//!
//! A block's own result is that of its last select. So the block keeps what its statements wrote in variables and
//! returns them in one row: nothing else has to be asked for, and there is no moment at which what was done is
//! committed and not known. A statement that was to write one row and did not raises an error, which undoes the block.

use std::fmt::Write as _;

use sql_templates::{Atomicity, Expect, Script};

use super::api::Ended;
use crate::warehouse::{Effect, ErrorKind, StepEffect, WarehouseError};

/// The text of a block's own error, with the step's number behind it. It must be a literal: no number of rows fits in.
const FENCED: &str = "levin-fenced ";

/// A block's text, and where in it each step begins.
pub(super) struct Written {
    pub text: String,
    /// The first line of each step, from 1.
    lines: Vec<usize>,
}

/// Writes the block. What returns rows, or is to be undone, has no place in one: a block returns a single result, and
/// is undone only by an error, which returns none.
pub(super) fn write(script: &Script) -> Result<Written, WarehouseError> {
    let unsupported = |message: &str| Err(WarehouseError::new(ErrorKind::Unsupported, message));
    if script.steps.iter().any(|step| step.expect == Expect::Rows) {
        return unsupported(
            "in Databricks, steps that return rows cannot stand in one block with steps that write",
        );
    }
    if script.atomicity == Atomicity::Rehearsal {
        return unsupported("in Databricks, what a block wrote cannot be undone and told");
    }
    let mut text = String::from("begin atomic\n");
    for i in 0..script.steps.len() {
        let _ = writeln!(text, "declare levin_count_{i} bigint;");
    }
    let mut lines = Vec::with_capacity(script.steps.len());
    for (i, step) in script.steps.iter().enumerate() {
        // A line stands before the block: the comment of the statement.
        lines.push(text.matches('\n').count() + 2);
        // The line break ends a comment with which the statement may close.
        let _ = writeln!(text, "{}\n;\nget diagnostics levin_count_{i} = row_count;", step.sql.text());
        if step.expect == Expect::OneRow {
            let _ = writeln!(
                text,
                "if levin_count_{i} is distinct from 1 then\nsignal sqlstate '45000' set message_text = '{FENCED}{i}';\nend if;"
            );
        }
    }
    let outputs: Vec<String> = (0..script.steps.len()).map(|i| format!("levin_count_{i} as r{i}")).collect();
    let _ = write!(text, "select {};\nend", outputs.join(", "));
    Ok(Written { text, lines })
}

/// What the steps did, from the row that the block ended with; its time is that of its last step.
pub(super) fn effect(script: &Script, ended: &Ended, seconds: f64) -> Result<Effect, WarehouseError> {
    let rows = ended.inline_rows()?;
    let [row] = rows else {
        let message = format!("what the block did cannot be read: {} rows came back", rows.len());
        return Err(WarehouseError::new(ErrorKind::Other, message));
    };
    let last = script.steps.len().saturating_sub(1);
    let step = |(i, step): (usize, &sql_templates::Step)| StepEffect {
        name: step.name.clone(),
        rows: row.get(i).and_then(|count| count.as_deref()?.parse().ok()),
        batches: Vec::new(),
        seconds: if i == last { seconds } else { 0.0 },
    };
    Ok(Effect { steps: script.steps.iter().enumerate().map(step).collect() })
}

/// The line of which an error speaks: `(line 12, pos 4)`, `== SQL (line 12, position 4) ==`.
fn line(message: &str) -> Option<usize> {
    let (_, rest) = message.split_once("(line ")?;
    rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
}

impl Written {
    /// The error of a block as that of the step in which it happened.
    pub(super) fn blame(&self, script: &Script, mut error: WarehouseError) -> WarehouseError {
        let fenced = error.message.split_once(FENCED).map(|(_, rest)| {
            rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<usize>().ok()
        });
        let at = match fenced {
            Some(at) => {
                error.kind = ErrorKind::Fenced;
                let said =
                    "wrote none or several rows where exactly one was expected: another run has taken over";
                said.clone_into(&mut error.message);
                at
            }
            None => line(&error.message).and_then(|line| self.lines.iter().rposition(|first| *first <= line)),
        };
        match at.and_then(|at| script.steps.get(at)) {
            Some(step) => error.in_step(&step.name),
            None => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use sql_templates::{Dialect, Statement, SyncTables, script};

    use super::*;

    fn lease() -> Script {
        let tables = SyncTables::new("planner", "audit", "6f0c2a9e-0000", 1).unwrap();
        let renew = Statement::RenewLease { tables: &tables, generation: 1, lease_seconds: 60 };
        let forget = Statement::ForgetAccepted { tables: &tables, generation: 1 };
        script(Dialect::Databricks, Atomicity::Transaction, &[renew, forget]).unwrap()
    }

    #[test]
    fn a_script_is_one_block_that_says_what_it_did() {
        let written = write(&lease()).unwrap();
        let lines: Vec<&str> = written.text.lines().collect();
        assert_eq!(lines[..2], ["begin atomic", "declare levin_count_0 bigint;"]);
        assert_eq!(lines[5], lines[written.lines[0] - 2]);
        assert!(lines[5].starts_with("update "), "{}", written.text);
        assert!(lines[written.lines[1] - 2].starts_with("delete from "), "{}", written.text);
        assert!(written.text.contains(
            "\n;\nget diagnostics levin_count_0 = row_count;\nif levin_count_0 is distinct from 1 then\n\
             signal sqlstate '45000' set message_text = 'levin-fenced 0';\nend if;\n"
        ));
        assert!(!written.text.contains("levin-fenced 1") && written.text.contains("levin-fenced 3"));
        assert!(written.text.ends_with(
            "\nselect levin_count_0 as r0, levin_count_1 as r1, levin_count_2 as r2, levin_count_3 as r3;\nend"
        ));
    }

    #[test]
    fn what_has_no_place_in_a_block_is_refused() {
        let tables = SyncTables::new("planner", "audit", "6f0c2a9e-0000", 1).unwrap();
        let read =
            script(Dialect::Databricks, Atomicity::Transaction, &[Statement::ReadState { tables: &tables }]);
        let refused = |script: &Script| write(script).map(|w| w.text).unwrap_err().kind;
        assert_eq!(refused(&read.unwrap()), ErrorKind::Unsupported);
        assert_eq!(refused(&Script { atomicity: Atomicity::Rehearsal, ..lease() }), ErrorKind::Unsupported);
    }

    #[test]
    fn errors_belong_to_the_step_that_they_happened_in() {
        let script = lease();
        let written = write(&script).unwrap();
        let blame = |message: &str| written.blame(&script, WarehouseError::new(ErrorKind::Other, message));
        let fenced = blame("[USER_RAISED_EXCEPTION] levin-fenced 3 SQLSTATE: 45000");
        assert_eq!((fenced.kind, fenced.step.as_deref()), (ErrorKind::Fenced, Some("nothing is in doubt")));
        let second = format!("no such table (line {}, pos 9)", written.lines[1]);
        assert_eq!(blame(&second).step.as_deref(), Some("forget what was accepted"));
        assert_eq!(blame("no place").step, None);
        assert_eq!(blame("too early (line 1, pos 1)").step, None);
    }
}
