//! Several statements as one script of BigQuery: a transaction whose last word is what each step did.
//!
//! A script's own result is that of its last select. So the script keeps what its steps did in variables, and
//! returns all of it in one row when the transaction is over: nothing else has to be asked for, and there is no moment
//! at which the transaction is committed and what it did is not known.

use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::value::RawValue;
use sql_templates::{Expect, Script};

use super::decode::Decoder;
use super::schema::{Field, quoted};
use super::trouble::Said;
use crate::warehouse::{Effect, ErrorKind, StepEffect, WarehouseError};

/// How a step's own error begins that ends a script because another holder took over.
const FENCED: &str = "levin-fenced ";

/// A script's text, and where in it each step begins.
pub(super) struct Written {
    pub text: String,
    /// The first line of each step, from 1.
    lines: Vec<usize>,
    /// The line of the commit; none where everything is undone.
    pub kept_at: Option<usize>,
}

/// Writes the script; `shapes` has the columns of each step that returns rows.
pub(super) fn write(script: &Script, shapes: &[Option<Vec<Field>>], keep: bool) -> Written {
    let mut text = String::new();
    for (i, shape) in shapes.iter().enumerate() {
        let _ = match shape {
            None => writeln!(text, "declare levin_count_{i} int64;"),
            Some(fields) => {
                let parts: Vec<String> =
                    fields.iter().map(|f| format!("{} {}", quoted(&f.name), f.engine_type())).collect();
                writeln!(text, "declare levin_rows_{i} array<struct<{}>>;", parts.join(", "))
            }
        };
    }
    text.push_str("begin transaction;\n");
    let mut lines = Vec::with_capacity(script.steps.len());
    for (i, (step, shape)) in script.steps.iter().zip(shapes).enumerate() {
        lines.push(text.matches('\n').count() + 1);
        // The line break ends a comment with which the statement may close.
        let _ = match shape {
            None => writeln!(text, "{}\n;\nset levin_count_{i} = @@row_count;", step.sql.text()),
            Some(fields) => {
                let names: Vec<String> = fields.iter().map(|f| format!("s.{}", quoted(&f.name))).collect();
                let names = names.join(", ");
                writeln!(
                    text,
                    "set levin_rows_{i} = array(select as struct {names} from (\n{}\n) as s);",
                    step.sql.text()
                )
            }
        };
        if step.expect == Expect::OneRow {
            let _ = writeln!(
                text,
                "if levin_count_{i} is distinct from 1 then raise using message = \
                 concat('{FENCED}{i} ', coalesce(cast(levin_count_{i} as string), 'null')); end if;"
            );
        }
    }
    let kept_at = keep.then(|| text.matches('\n').count() + 1);
    text.push_str(if keep { "commit transaction;\n" } else { "rollback transaction;\n" });
    let outputs: Vec<String> = shapes
        .iter()
        .enumerate()
        .map(|(i, shape)| format!("levin_{}_{i} as r{i}", if shape.is_some() { "rows" } else { "count" }))
        .collect();
    let _ = write!(text, "select {}", outputs.join(", "));
    Written { text, lines, kept_at }
}

#[derive(Deserialize)]
struct Row<'a> {
    #[serde(borrow)]
    f: Vec<Cell<'a>>,
}

#[derive(Deserialize)]
struct Cell<'a> {
    #[serde(borrow, default)]
    v: Option<&'a RawValue>,
}

/// What the steps did, from the row that the script ended with; its time is that of its last step.
pub(super) fn effect(
    script: &Script,
    shapes: &[Option<Vec<Field>>],
    rows: Option<&RawValue>,
    seconds: f64,
) -> Result<Effect, WarehouseError> {
    let unreadable = |why: String| {
        WarehouseError::new(ErrorKind::Other, format!("what the script did cannot be read: {why}"))
    };
    let text = rows.map_or("[]", RawValue::get);
    let rows: Vec<Row<'_>> = serde_json::from_str(text).map_err(|e| unreadable(e.to_string()))?;
    let Some(row) = rows.first().filter(|row| row.f.len() == shapes.len()) else {
        return Err(unreadable(format!("{} rows came back", rows.len())));
    };
    let last = script.steps.len().saturating_sub(1);
    let mut effect = Effect::default();
    for (i, ((step, shape), cell)) in script.steps.iter().zip(shapes).zip(&row.f).enumerate() {
        let value = cell.v.map_or("null", RawValue::get);
        let (rows, batches) = match shape {
            None => {
                let count: Option<String> =
                    serde_json::from_str(value).map_err(|e| unreadable(e.to_string()))?;
                (count.and_then(|c| c.parse().ok()), Vec::new())
            }
            Some(fields) => {
                let list = if value == "null" { "[]" } else { value };
                let batches = Decoder::new(fields)?.page(list)?;
                (Some(batches.iter().map(|b| b.num_rows() as u64).sum()), batches)
            }
        };
        let seconds = if i == last { seconds } else { 0.0 };
        effect.steps.push(StepEffect { name: step.name.clone(), rows, batches, seconds });
    }
    Ok(effect)
}

impl Written {
    /// The error of a script as that of the step in which it happened.
    pub(super) fn blame(
        &self,
        script: &Script,
        said: Option<&Said>,
        mut error: WarehouseError,
    ) -> WarehouseError {
        let Some(said) = said else { return error };
        let fenced = said.message.split_once(FENCED).and_then(|(_, rest)| {
            let mut words = rest.split_whitespace();
            Some((words.next()?.parse::<usize>().ok()?, words.next()?))
        });
        let at = match fenced {
            Some((at, rows)) => {
                error.kind = ErrorKind::Fenced;
                error.message =
                    format!("wrote {rows} rows where exactly one was expected: another run has taken over");
                Some(at)
            }
            None => said.line().and_then(|line| self.lines.iter().rposition(|first| *first <= line)),
        };
        match at.and_then(|at| script.steps.get(at)) {
            Some(step) => error.in_step(&step.name),
            None => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use sql_templates::{Atomicity, Dialect, Statement, SyncTables, script};

    use super::*;

    fn lease() -> Script {
        let tables = SyncTables::new("planner", "audit", "6f0c2a9e-0000", 1).unwrap();
        let renew = Statement::RenewLease { tables: &tables, generation: 1, lease_seconds: 60 };
        let read = Statement::ReadState { tables: &tables };
        script(Dialect::Bigquery, Atomicity::Transaction, &[renew, read]).unwrap()
    }

    #[test]
    fn a_script_is_one_transaction_that_says_what_it_did() {
        let script = lease();
        let shapes =
            [None, Some(vec![Field::simple("generation", "INTEGER"), Field::simple("holder", "STRING")])];
        let written = write(&script, &shapes, true);
        let lines: Vec<&str> = written.text.lines().collect();
        assert_eq!(lines[0], "declare levin_count_0 int64;");
        assert_eq!(lines[1], "declare levin_rows_1 array<struct<`generation` int64, `holder` string>>;");
        assert_eq!(lines[2], "begin transaction;");
        assert_eq!(written.lines[0], 4);
        assert!(lines[3].starts_with("update "), "{}", written.text);
        assert!(
            lines[written.lines[1] - 1]
                .starts_with("set levin_rows_1 = array(select as struct s.`generation`")
        );
        assert!(
            written.text.ends_with("commit transaction;\nselect levin_count_0 as r0, levin_rows_1 as r1")
        );
        assert_eq!(lines[written.kept_at.unwrap() - 1], "commit transaction;");
        assert!(write(&script, &shapes, false).kept_at.is_none());
        assert!(write(&script, &shapes, false).text.contains("\nrollback transaction;\nselect"));
    }

    #[test]
    fn what_it_did_is_read_from_its_last_row() {
        let script = lease();
        let shapes =
            [None, Some(vec![Field::simple("generation", "INTEGER"), Field::simple("holder", "STRING")])];
        let rows = RawValue::from_string(
            r#"[{"f":[{"v":"1"},{"v":[{"v":{"f":[{"v":"7"},{"v":null}]}},{"v":{"f":[{"v":"8"},{"v":"x"}]}}]}]}]"#
                .to_owned(),
        )
        .unwrap();
        let effect = effect(&script, &shapes, Some(&rows), 1.5).unwrap();
        assert_eq!((effect.steps[0].rows, effect.steps[1].rows), (Some(1), Some(2)));
        assert_eq!(effect.steps[1].batches[0].column(1).as_string::<i32>().value(1), "x");
        assert!((effect.steps[1].seconds - 1.5).abs() < f64::EPSILON);
        for wrong in ["[]", r#"[{"f":[{"v":"1"}]}]"#, r#"[{"f":[{"v":[]},{"v":[]}]}]"#] {
            let rows = RawValue::from_string(wrong.to_owned()).unwrap();
            assert!(super::effect(&script, &shapes, Some(&rows), 0.0).is_err(), "{wrong}");
        }
        assert!(super::effect(&script, &shapes, None, 0.0).is_err());
    }

    #[test]
    fn errors_belong_to_the_step_that_they_happened_in() {
        let script = lease();
        let shapes = [None, Some(vec![Field::simple("generation", "INTEGER")])];
        let written = write(&script, &shapes, true);
        let blame = |message: &str| {
            let said = Said { reason: "invalidQuery".into(), message: message.into() };
            let error = said.error(None, message.to_owned());
            written.blame(&script, Some(&said), error)
        };
        let fenced = blame("levin-fenced 0 2 at [8:1]");
        assert_eq!((fenced.kind, fenced.step.as_deref()), (ErrorKind::Fenced, Some("renew the lease")));
        assert!(fenced.message.contains("wrote 2 rows"), "{fenced}");
        let second = format!("Query error: no such column at [{}:9]", written.lines[1] + 2);
        assert_eq!(blame(&second).step.as_deref(), Some("read the state"));
        assert_eq!(blame("no place").step, None);
        assert_eq!(blame("too early at [1:1]").step, None);
    }
}
