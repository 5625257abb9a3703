//! `levin preview`: a model's rows and column types.

use std::process::ExitCode;

use clap_complete::engine::ArgValueCompleter;

use connectors::json::{JsonOptions, RowEncoder};
use connectors::warehouse::Tag;
use sql_templates::{Atomicity, Shape, Statement, script};

use super::{Context, completion};
use crate::error::{Error, ErrorCode, Exit};
use crate::report::Table;
use crate::run::{describe_model, model_sql, model_trouble};

/// Show a model's rows and the types of its columns
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  levin preview customers
  levin preview customers --limit 5")]
pub struct Args {
    /// The model
    #[arg(add = ArgValueCompleter::new(completion::models))]
    model: String,
    /// At most so many rows
    #[arg(long, default_value_t = 20)]
    limit: u64,
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<ExitCode, Error> {
    let project = context.project()?;
    let spec = project.model(&args.model)?;
    let dialect = spec.source.warehouse.dialect();
    let model = model_sql(spec, dialect)?;
    let tag = Tag { sync: format!("preview {}", spec.slug), run: None, stage: "preview" };
    let mut session = spec.source.session(&tag).await?;
    let columns = describe_model(session.as_mut(), spec, &model, dialect).await?;
    let shape = Shape { keys: Vec::new(), columns, matching: Vec::new() };
    let look = script(
        dialect,
        Atomicity::Rehearsal,
        &[Statement::Preview { shape: &shape, model: &model, limit: args.limit }],
    )?;
    let effect = session.execute(&look).await.map_err(|e| model_trouble(spec, e))?;
    let headings: Vec<String> =
        shape.columns.iter().map(|c| format!("{} ({})", c.name, c.engine_type)).collect();
    let mut table = Table::new(&headings.iter().map(String::as_str).collect::<Vec<_>>());
    for batch in effect.result("preview") {
        let fields: Vec<_> = batch
            .schema()
            .fields()
            .iter()
            .zip(&shape.columns)
            .map(|(field, column)| {
                connectors::change::with_logical_type(field.as_ref().clone(), column.logical)
            })
            .collect();
        let unreadable = |what: String| Error::new(ErrorCode::ColumnTypeUnsupported, what);
        let typed = arrow::array::RecordBatch::try_new(
            std::sync::Arc::new(arrow::datatypes::Schema::new(fields)),
            batch.columns().to_vec(),
        )
        .map_err(|e| unreadable(e.to_string()))?;
        let encoder = RowEncoder::new(&typed.schema(), JsonOptions::for_people())
            .map_err(|e| unreadable(format!("column `{}` arrives as {}", e.name, e.arrow)))?;
        let bound = encoder.bind(&typed).map_err(|e| unreadable(e.arrow))?;
        for row in 0..typed.num_rows() {
            table.row((0..typed.num_columns()).map(|column| {
                let mut out = Vec::new();
                match encoder.encode_text(&bound, column, row, &mut out) {
                    Ok(true) => String::from_utf8_lossy(&out).into_owned(),
                    Ok(false) => "null".to_owned(),
                    Err(why) => format!("({})", why.reason),
                }
            }));
        }
    }
    context.report.table(&table);
    Ok(Exit::Done.into())
}
