//! How one file comes about: rows become bytes, bytes go to where the file will be, and in the end it appears.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::folder::{Folder, Partial, Place, PublishError};
use super::parquet::{Columns, ParquetFile};
use super::rows::RowWriter;
use super::store::{Store, Unpublished, Upload};
use crate::change::ChangeBatch;
use crate::destination::Delivery;
use crate::outcome::{Delivered, DeliveryError, RowOutcome};

/// Where a file will be.
pub(super) enum Opened {
    Folder(Arc<Folder>),
    Store(Arc<Store>),
}

/// The file of one run, as it will be.
pub(super) struct NewFile {
    pub root: Opened,
    pub place: Place,
    /// Its path with the template, for messages.
    pub shown: String,
    pub replace: bool,
    pub even_when_empty: bool,
    pub rows: RowWriter,
    pub columns: Option<Columns>,
    pub sync_id: i64,
    pub run_id: i64,
    pub generation: i64,
}

/// How far the writing has come.
#[derive(Default)]
struct State {
    begun: Option<Begun>,
    /// Rows that are not bytes yet.
    parquet: Option<ParquetFile>,
    /// Bytes that count. What stands behind them in a folder was written by an attempt that nobody waited
    /// for, and the next attempt writes over it.
    length: u64,
    /// An attempt has begun and not ended.
    under_way: bool,
    /// Some row was taken.
    any: bool,
    /// Why nothing more can be written.
    broken: Option<DeliveryError>,
}

/// A file that nobody sees yet.
enum Begun {
    Partial(Partial),
    Upload(Upload),
}

type Held = OwnedMutexGuard<State>;

pub(super) struct FilesDelivery {
    file: Arc<NewFile>,
    state: Arc<Mutex<State>>,
}

impl FilesDelivery {
    pub(super) fn new(file: NewFile) -> Self {
        Self { file: Arc::new(file), state: Arc::default() }
    }
}

impl NewFile {
    /// Whether an attempt can write over what one before it left: lines in a folder, at their place.
    fn can_write_over(&self) -> bool {
        matches!(self.root, Opened::Folder(_)) && self.columns.is_none()
    }

    fn unwritable(&self, error: &io::Error) -> DeliveryError {
        let hint = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "free some space there; the file did not appear, and the next run writes it whole"
            }
            io::ErrorKind::CrossesDevices => {
                "its sub-folder lies on another file system: make that file system the destination's `path`"
            }
            _ => "the file did not appear; mend the folder, and the next run writes it whole",
        };
        DeliveryError::Unauthorized {
            message: format!("{} cannot be written: {error}", self.shown),
            hint: hint.into(),
        }
    }

    fn unencodable(&self, message: String) -> DeliveryError {
        self.unwritable(&io::Error::new(io::ErrorKind::InvalidData, message))
    }

    fn exists(&self) -> DeliveryError {
        DeliveryError::Unauthorized {
            message: format!("{} of run {} exists already and is not overwritten", self.shown, self.run_id),
            hint: "move that file away, or put {{ generation }} into the sync's `object`".into(),
        }
    }

    /// Rows as the bytes that follow what was written, and how each of them ended.
    fn encode(
        &self,
        state: &mut State,
        batch: &ChangeBatch,
    ) -> Result<(Vec<RowOutcome>, Vec<u8>), DeliveryError> {
        if let Some(columns) = &self.columns {
            let begun = match state.parquet.take() {
                Some(file) => Ok(file),
                None => columns.begin(Some(&batch.fields)),
            };
            let file = state.parquet.insert(begun.map_err(|e| self.unencodable(e))?);
            let outcomes = columns.write(batch, file).map_err(|e| self.unencodable(e))?;
            return Ok((outcomes, file.take()));
        }
        let mut bytes = Vec::new();
        if state.length == 0 {
            self.rows.write_head(&mut bytes);
        }
        let head = bytes.len();
        let outcomes = self.rows.write(batch, &mut bytes).map_err(|e| self.unencodable(e))?;
        if bytes.len() == head {
            bytes.clear();
        }
        Ok((outcomes, bytes))
    }

    /// What is left to write when the run has come to its end.
    fn encode_end(&self, state: &mut State) -> Result<Vec<u8>, DeliveryError> {
        if let Some(columns) = &self.columns {
            let begun = match state.parquet.take() {
                Some(file) => Ok(file),
                None => columns.begin(None),
            };
            let mut file = begun.map_err(|e| self.unencodable(e))?;
            file.finish().map_err(|e| self.unencodable(e))?;
            return Ok(file.take());
        }
        let mut head = Vec::new();
        if state.length == 0 {
            self.rows.write_head(&mut head);
        }
        Ok(head)
    }

    /// Writes bytes behind those that count, beginning the file if it has not begun.
    async fn append(self: &Arc<Self>, mut state: Held, bytes: Vec<u8>) -> (Held, Result<(), DeliveryError>) {
        match &self.root {
            Opened::Store(store) => {
                let begun = state
                    .begun
                    .get_or_insert_with(|| Begun::Upload(store.upload(&self.place.path(), self.replace)));
                let written = match begun {
                    Begun::Upload(upload) => upload.append(&bytes).await,
                    Begun::Partial(_) => Ok(()),
                };
                if written.is_ok() {
                    state.length += bytes.len() as u64;
                }
                (state, written)
            }
            Opened::Folder(folder) => {
                let (file, folder) = (self.clone(), folder.clone());
                let (state, written) = blocking(move || {
                    let mut state = state;
                    let written = (|| {
                        if state.begun.is_none() {
                            let partial =
                                folder.begin(&file.place, file.sync_id, file.run_id, file.generation)?;
                            state.begun = Some(Begun::Partial(partial));
                        }
                        match &state.begun {
                            Some(Begun::Partial(partial)) => partial.write(&bytes, state.length),
                            _ => Ok(()),
                        }
                    })();
                    (state, written.map(|()| bytes.len() as u64))
                })
                .await;
                let mut state = state;
                let written = written.map(|length| state.length += length).map_err(|e| self.unwritable(&e));
                (state, written)
            }
        }
    }

    /// Makes the file appear.
    async fn publish(self: Arc<Self>, mut state: Held) -> Result<Option<RowOutcome>, DeliveryError> {
        if let Some(error) = state.broken.take() {
            return Err(error);
        }
        if !state.any && !self.even_when_empty {
            return Ok(None);
        }
        let end = self.encode_end(&mut state)?;
        let (mut state, written) = self.append(state, end).await;
        written?;
        let length = state.length;
        match state.begun.take() {
            None => Ok(None),
            Some(Begun::Upload(upload)) => match upload.publish().await {
                Ok(outcome) => Ok(Some(outcome)),
                Err(Unpublished::Exists) => Err(self.exists()),
                Err(Unpublished::Failed(error)) => Err(error),
            },
            Some(Begun::Partial(partial)) => {
                blocking(move || match partial.publish(&self.place, length, self.replace) {
                    Ok(()) => Ok(Some(RowOutcome::Accepted)),
                    Err(PublishError::NotDurable(error)) => {
                        tracing::error!(file = self.shown, %error, "the file appeared, and may not outlast a power cut");
                        Ok(Some(RowOutcome::InDoubt))
                    }
                    Err(PublishError::Exists) => Err(self.exists()),
                    Err(PublishError::Failed(error)) => Err(self.unwritable(&error)),
                })
                .await
            }
        }
    }

    /// Gives the file up; what was written of it goes, as far as it can.
    async fn give_up(state: &mut State) {
        match state.begun.take() {
            Some(Begun::Upload(mut upload)) => upload.abort().await,
            Some(Begun::Partial(partial)) => blocking(move || drop(partial)).await,
            None => {}
        }
    }

    /// An attempt that nobody waited for left rows in the middle of the file.
    fn cut_short(&self, state: &mut State) {
        if state.under_way && !self.can_write_over() && state.broken.is_none() {
            state.broken = Some(DeliveryError::Unavailable {
                answered: false,
                after: None,
                message: format!(
                    "{}: writing took too long and was cut short; the file did not appear, and the next run writes it whole",
                    self.shown
                ),
            });
        }
    }
}

#[async_trait]
impl Delivery for FilesDelivery {
    async fn deliver(&self, batch: &ChangeBatch) -> Delivered {
        // The lock goes into the blocking tasks: an attempt that nobody waits for any more still ends before
        // the next one begins.
        let mut state = self.state.clone().lock_owned().await;
        self.file.cut_short(&mut state);
        if let Some(error) = &state.broken {
            return Delivered::failed(error.clone(), RowOutcome::NotSent, batch.len());
        }
        state.under_way = true;
        let (file, rows) = (self.file.clone(), batch.clone());
        let (mut state, encoded) = blocking(move || {
            let mut state = state;
            let encoded = file.encode(&mut state, &rows);
            (state, encoded)
        })
        .await;
        let written = match encoded {
            Ok((outcomes, bytes)) => {
                let taken = outcomes.contains(&RowOutcome::Deferred);
                let mut written = Ok(());
                if !bytes.is_empty() {
                    (state, written) = self.file.append(state, bytes).await;
                }
                state.any |= taken && written.is_ok();
                written.map(|()| outcomes)
            }
            Err(error) => Err(error),
        };
        state.under_way = false;
        match written {
            Ok(outcomes) => Delivered { outcomes, error: None, calls: 1, exchange: None },
            Err(error) => {
                state.broken = Some(error.clone());
                NewFile::give_up(&mut state).await;
                Delivered::failed(error, RowOutcome::NotSent, batch.len())
            }
        }
    }

    /// An error says that no file appeared.
    async fn close(self: Box<Self>, complete: bool) -> Result<Option<RowOutcome>, DeliveryError> {
        let mut state = self.state.clone().lock_owned().await;
        self.file.cut_short(&mut state);
        if complete && state.broken.is_none() {
            return self.file.clone().publish(state).await;
        }
        NewFile::give_up(&mut state).await;
        match state.broken.take().filter(|_| complete) {
            Some(error) => Err(error),
            None => Ok(Some(RowOutcome::NotSent)),
        }
    }
}

/// File systems have no asynchronous calls.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        // Blocking tasks are not cancelled; a panic goes on where it would have gone.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
