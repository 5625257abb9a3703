//! What is refused at the moment, read from the warehouse.

use std::sync::Arc;

use arrow::array::RecordBatch;
use connectors::change::with_logical_type;
use connectors::json::{JsonOptions, RowEncoder};
use connectors::warehouse::{Effect, ErrorKind, WarehouseError};
use sql_templates::{Atomicity, Column, LogicalType, RejectionFacts, Statement, script};

use super::checkpoints::Commits;
use super::lease::Cancel;
use super::prune::{self, Noted};
use super::rows::result_rows;
use super::state::read_state;
use super::{Request, Run, Silent, prepare, settle};
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
    /// It is a dead letter: not sent again as long as it, its operation and the sync are as they were.
    pub parked: bool,
    /// When it was first refused, RFC 3339.
    pub first_at: String,
    /// When it was last refused.
    pub last_at: String,
}

/// Which rows are looked at.
#[derive(Debug, Clone, Default)]
pub struct WhichRejections {
    /// Only those that this run met last.
    pub run: Option<i64>,
    /// Only that with this key, in its canonical text.
    pub key: Option<String>,
    /// How many are passed over.
    pub offset: u64,
    /// The most that are looked at.
    pub limit: u64,
}

/// Rows that are refused at the moment, the newest first. No row has a key that is none.
pub async fn open_rejections(
    project: &Project,
    sync: &Arc<SyncSpec>,
    store: &Store,
    which: &WhichRejections,
) -> Result<Vec<OpenRejection>, Error> {
    let silent = Silent;
    let run = Run::new(project, sync, store, Request::default(), &silent, Cancel::default())?;
    let mut session = run.session("rejected").await?;
    let Some(definition) = read_state(session.as_mut(), &run).await?.and_then(|s| s.definition) else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for key in wanted(which.key.as_deref(), &definition.keys) {
        let key: Vec<Option<&str>> = key.iter().map(Option::as_deref).collect();
        let facts = RejectionFacts { run: which.run, key: &key, offset: which.offset, limit: which.limit };
        let select = Statement::Rejections { tables: &run.tables, keys: &definition.keys, facts: &facts };
        match session.execute(&script(run.dialect(), Atomicity::Transaction, &[select])?).await {
            Ok(effect) => read_rejections(&effect, &definition.keys, &mut found)?,
            Err(error) if !key.is_empty() && no_key(&error, &definition.keys).is_some() => {}
            Err(error) => return Err(error.into()),
        }
    }
    // An engine may take more texts for a value than the one that is shown.
    found.retain(|row| which.key.as_ref().is_none_or(|key| row.key == *key));
    Ok(found)
}

fn read_rejections(effect: &Effect, keys: &[Column], found: &mut Vec<OpenRejection>) -> Result<(), Error> {
    for batch in effect.result("open rejections") {
        let mut logical: Vec<LogicalType> = keys.iter().map(|k| k.logical).collect();
        logical.resize(batch.num_columns(), LogicalType::Text);
        let texts = Texts::new(batch, &logical)?;
        for (row, result) in result_rows(std::slice::from_ref(batch)).enumerate() {
            found.push(OpenRejection {
                key: texts.key(row, keys.len()),
                operation: result.text("_levin_operation")?.unwrap_or_default(),
                code: result.text("_levin_code")?.unwrap_or_default(),
                reason: result.text("_levin_reason")?.unwrap_or_default(),
                attempts: result.count("_levin_attempts")?,
                rows: result.count("_levin_rows")?,
                run: result.count("_levin_run")?,
                parked: result.truth("_levin_parked")?,
                first_at: texts.of("_levin_first_at", row),
                last_at: texts.of("_levin_last_at", row),
            });
        }
    }
    Ok(())
}

/// The keys that are shown like this, each by its parts: none for what is no key; for all of them one without parts.
fn wanted(text: Option<&str>, keys: &[Column]) -> Vec<Vec<Option<String>>> {
    let Some(text) = text else { return vec![Vec::new()] };
    let mut wanted = Vec::new();
    // A key of one column that is null is shown as a text would be that says so.
    if keys.len() == 1 && text == "null" {
        wanted.push(vec![None]);
    }
    wanted.extend(parts_of(text, keys));
    wanted
}

/// Parks rows that are refused at the moment, or lets the next run try parked ones again: that with this
/// key, or all of them. Returns how many were marked.
///
/// # Errors
/// `SYNC_BUSY` while another run holds the sync; `USAGE` for a text that is no key.
pub async fn mark_parked(
    project: &Project,
    sync: &Arc<SyncSpec>,
    store: &Store,
    request: Request,
    park: bool,
    key: Option<&str>,
) -> Result<u64, Error> {
    let run = Run::new(project, sync, store, request, &Silent, Cancel::default())?;
    let mut session = run.session("rejected").await?;
    if read_state(session.as_mut(), &run).await?.is_none_or(|s| s.definition.is_none()) {
        return Ok(0);
    }
    let (lease, mut state) = prepare::take_lease(session.as_mut(), &run).await?;
    let marked = async {
        let mut commits = Commits::new(&lease);
        settle::clear_away(&run, &mut session, &mut state, &mut commits, None).await?;
        let Some(definition) = &state.definition else { return Ok(0) };
        if !state.has_snapshot() {
            return Err(prepare::snapshot_missing(&run, &state.missing));
        }
        let key = match key {
            Some(text) => key_parts(text, &definition.keys)?,
            None => Vec::new(),
        };
        let mark = Statement::MarkParked {
            tables: &run.tables,
            keys: &definition.keys,
            generation: lease.generation(),
            park,
            key: &key,
        };
        let effect = session.execute(&script(run.dialect(), Atomicity::Transaction, &[mark])?).await;
        let effect = effect.map_err(|e| no_key(&e, &definition.keys).unwrap_or_else(|| e.into()))?;
        Ok(effect.rows("mark rejections").unwrap_or_default())
    }
    .await;
    lease.stop_renewing();
    if let Err(error) = prune::release(session.as_mut(), &run, lease.generation(), Noted::default()).await {
        tracing::warn!(error = %error, "the lease was not given up; it runs out by itself");
    }
    marked
}

/// The texts of a key's columns, from the canonical text of the key: the bare text of a single column, a
/// JSON array of several.
///
/// # Errors
/// `USAGE` for a text that cannot be the key's.
pub fn key_parts(text: &str, keys: &[Column]) -> Result<Vec<String>, Error> {
    let parts = parts_of(text, keys)?;
    Ok(parts.into_iter().map(|part| part.unwrap_or_else(|| "null".to_owned())).collect())
}

/// The same; nothing for a part that is null.
fn parts_of(text: &str, keys: &[Column]) -> Result<Vec<Option<String>>, Error> {
    let names: Vec<&str> = keys.iter().map(|key| key.name.as_str()).collect();
    let wrong = || {
        let message = format!("`{text}` is no key of {}", names.join(", "));
        Error::new(ErrorCode::Usage, message)
            .hint("write a key of several columns as `levin rejected` shows it: [\"acme\",42]")
    };
    // No statement can hold these two.
    if text.contains(['\0', '\u{1}']) {
        return Err(wrong());
    }
    if keys.len() == 1 {
        return Ok(vec![Some(text.to_owned())]);
    }
    let parts: Vec<&serde_json::value::RawValue> = serde_json::from_str(text).map_err(|_| wrong())?;
    if parts.len() != keys.len() {
        return Err(wrong());
    }
    let texts = parts.into_iter().map(|part| match serde_json::from_str::<String>(part.get()) {
        Ok(text) => Some(text),
        // A number keeps all its digits.
        Err(_) => Some(part.get().to_owned()).filter(|text| text != "null"),
    });
    Ok(texts.collect())
}

/// What to say when a text could not be made a value of the key's type.
pub fn no_key(error: &WarehouseError, keys: &[Column]) -> Option<Error> {
    let types: Vec<String> = keys.iter().map(|key| format!("{} ({})", key.name, key.engine_type)).collect();
    matches!(error.kind, ErrorKind::Data | ErrorKind::Invalid).then(|| {
        Error::new(ErrorCode::Usage, format!("this is no key of {}: {}", types.join(", "), error.message))
            .hint("`levin rejected` and `levin plan` show keys as they are written")
    })
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
