//! What is refused at the moment, read from the warehouse.

use std::sync::Arc;

use arrow::array::RecordBatch;
use connectors::change::with_logical_type;
use connectors::json::{JsonOptions, RowEncoder};
use sql_templates::{Atomicity, LogicalType, Statement, script};

use super::lease::Cancel;
use super::rows::result_rows;
use super::state::read_state;
use super::{Request, Run, Silent};
use crate::error::{Error, ErrorCode};
use crate::project::{Project, SyncSpec};
use crate::store::Store;

/// A row that is refused at the moment, or a key that is set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenRejection {
    /// The row's key in its canonical text.
    pub key: String,
    /// What was to be done with it.
    pub operation: String,
    /// Why not, as a code that `levin explain` knows.
    pub code: String,
    /// Why not, in the destination's words.
    pub reason: String,
    /// How often a destination refused it.
    pub attempts: i64,
    /// How many rows have the key; more than one only for keys that are set aside.
    pub rows: i64,
    /// The last run that met it.
    pub run: i64,
    /// When it was first refused, RFC 3339.
    pub first_at: String,
    /// When it was last refused.
    pub last_at: String,
}

/// Rows that are refused at the moment, the newest first.
pub async fn open_rejections(
    project: &Project,
    sync: &Arc<SyncSpec>,
    store: &Store,
    limit: u64,
) -> Result<Vec<OpenRejection>, Error> {
    let silent = Silent;
    let run = Run::new(project, sync, store, Request::default(), &silent, Cancel::default())?;
    let mut session = run.session("rejected").await?;
    let Some(definition) = read_state(session.as_mut(), &run).await?.and_then(|s| s.definition) else {
        return Ok(Vec::new());
    };
    let select = Statement::Rejections { tables: &run.tables, keys: &definition.keys, limit };
    let effect = session.execute(&script(run.dialect(), Atomicity::Transaction, &[select])?).await?;
    let mut found = Vec::new();
    for batch in effect.result("open rejections") {
        let mut logical: Vec<LogicalType> = definition.keys.iter().map(|k| k.logical).collect();
        logical.resize(batch.num_columns(), LogicalType::Text);
        let texts = Texts::new(batch, &logical)?;
        for (row, result) in result_rows(std::slice::from_ref(batch)).enumerate() {
            found.push(OpenRejection {
                key: texts.key(row, definition.keys.len()),
                operation: result.text("_levin_operation")?.unwrap_or_default(),
                code: result.text("_levin_code")?.unwrap_or_default(),
                reason: result.text("_levin_reason")?.unwrap_or_default(),
                attempts: result.count("_levin_attempts")?,
                rows: result.count("_levin_rows")?,
                run: result.count("_levin_run")?,
                first_at: texts.of("_levin_first_at", row),
                last_at: texts.of("_levin_last_at", row),
            });
        }
    }
    Ok(found)
}

/// The wire text of a result's values.
struct Texts {
    batch: RecordBatch,
    encoder: RowEncoder,
}

impl Texts {
    fn new(batch: &RecordBatch, logical: &[LogicalType]) -> Result<Self, Error> {
        let fields: Vec<_> = batch
            .schema()
            .fields()
            .iter()
            .zip(logical)
            .map(|(field, logical)| match field.data_type() {
                arrow::datatypes::DataType::Utf8 | arrow::datatypes::DataType::Binary => {
                    with_logical_type(field.as_ref().clone(), *logical)
                }
                _ => field.as_ref().clone(),
            })
            .collect();
        let internal =
            |what: String| Error::new(ErrorCode::Internal, format!("rejections cannot be read: {what}"));
        let batch =
            RecordBatch::try_new(Arc::new(arrow::datatypes::Schema::new(fields)), batch.columns().to_vec())
                .map_err(|e| internal(e.to_string()))?;
        let encoder = RowEncoder::new(&batch.schema(), JsonOptions::for_people())
            .map_err(|e| internal(format!("{} arrives as {}", e.name, e.arrow)))?;
        Ok(Self { batch, encoder })
    }

    fn key(&self, row: usize, keys: usize) -> String {
        let Ok(bound) = self.encoder.bind(&self.batch) else { return String::new() };
        let mut out = Vec::new();
        if keys == 1 {
            // A key without a form on the wire was never sent; what can be shown of it is shown.
            if !matches!(self.encoder.encode_text(&bound, 0, row, &mut out), Ok(true)) {
                return "null".to_owned();
            }
            return String::from_utf8_lossy(&out).into_owned();
        }
        for at in 0..keys {
            out.push(if at == 0 { b'[' } else { b',' });
            if self.encoder.encode_value(&bound, at, row, &mut out).is_err() {
                out.extend_from_slice(b"null");
            }
        }
        out.push(b']');
        String::from_utf8_lossy(&out).into_owned()
    }

    fn of(&self, name: &str, row: usize) -> String {
        let Ok(bound) = self.encoder.bind(&self.batch) else { return String::new() };
        let Ok(column) = self.batch.schema().index_of(name) else { return String::new() };
        let mut out = Vec::new();
        let _ = self.encoder.encode_text(&bound, column, row, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }
}
