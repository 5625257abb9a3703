//! A result on its way: one chunk at a time, from where Databricks has put it for a few minutes.

use std::io::Cursor;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use bytes::Bytes;

use super::api::{Api, Ended, Fetched, Link, Part, State};
use super::decode;
use super::work::{Work, cancelled};
use crate::warehouse::{ErrorKind, WarehouseError};

/// A batch is handed on with at most so many rows.
const BATCH_ROWS: usize = 8_192;
/// How often an address is asked for anew that does not hold.
const MOST_ADDRESSES: u32 = 3;

/// The chunks of a result. Databricks keeps them for an hour, and dropping this leaves nothing running.
pub(super) struct Rows {
    api: Arc<Api>,
    work: Arc<Work>,
    id: String,
    next: Option<Next>,
    current: Option<Chunk>,
    /// What is left of a batch that was too large.
    rest: Option<RecordBatch>,
    total: Option<u64>,
    seen: u64,
}

/// The chunk behind the current one.
enum Next {
    Known(Link),
    /// By the path at which its address is told.
    At(String),
}

/// A chunk that is here, not yet decoded to its end.
struct Chunk {
    reader: StreamReader<Cursor<Bytes>>,
    /// The rows that are to come of it.
    left: Option<u64>,
}

impl Rows {
    /// The rows of a statement that has ended.
    pub(super) fn new(api: &Arc<Api>, ended: Ended, work: Arc<Work>) -> Result<Self, WarehouseError> {
        let answer = ended.answer;
        if answer.manifest.truncated {
            return Err(broken("it has more rows than Databricks hands out, 100 GB of them"));
        }
        let next = answer.result.external_links.into_iter().next().map(Next::Known);
        let total = answer.manifest.rows;
        Ok(Self { api: api.clone(), work, id: ended.id, next, current: None, rest: None, total, seen: 0 })
    }

    /// The next batch; none when all rows that Databricks counted were handed on.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>, WarehouseError> {
        loop {
            self.work.check()?;
            if let Some(batch) = self.rest.take() {
                return Ok(Some(self.cut(batch)));
            }
            if let Some(chunk) = &mut self.current {
                match chunk.decode()? {
                    Some(batch) if batch.num_rows() > 0 => self.rest = Some(batch),
                    Some(_) => {}
                    None => self.current = None,
                }
                continue;
            }
            let Some(next) = self.next.take() else {
                return match self.total {
                    Some(total) if total != self.seen => {
                        Err(broken(&format!("{} rows came of {total}", self.seen)))
                    }
                    _ => Ok(None),
                };
            };
            let work = self.work.clone();
            let (bytes, link) = tokio::select! {
                came = self.fetched(next) => came?,
                () = work.until_asked() => return Err(cancelled()),
            };
            let reader =
                StreamReader::try_new(Cursor::new(bytes), None).map_err(|e| broken(&e.to_string()))?;
            self.current = Some(Chunk { reader, left: link.row_count });
            self.next = link.next_chunk_internal_link.map(Next::At);
        }
    }

    fn cut(&mut self, batch: RecordBatch) -> RecordBatch {
        let batch = if batch.num_rows() > BATCH_ROWS {
            self.rest = Some(batch.slice(BATCH_ROWS, batch.num_rows() - BATCH_ROWS));
            batch.slice(0, BATCH_ROWS)
        } else {
            batch
        };
        self.seen += batch.num_rows() as u64;
        batch
    }

    async fn fetched(&self, next: Next) -> Result<(Bytes, Link), WarehouseError> {
        let mut link = match next {
            Next::Known(link) => link,
            Next::At(path) => first(self.kept(self.api.part(&path).await).await?.external_links)?,
        };
        for _ in 0..MOST_ADDRESSES {
            match self.api.fetch(&link).await? {
                Fetched::Bytes(bytes) => return Ok((bytes, link)),
                Fetched::Expired => {
                    tracing::debug!(
                        chunk = link.chunk_index,
                        "a chunk's address no longer holds; another is asked for"
                    );
                    let part = self.api.chunk(&self.id, link.chunk_index).await;
                    link = first(self.kept(part).await?.external_links)?;
                }
            }
        }
        let message = "a part of the result does not come: none of its addresses holds";
        Err(WarehouseError::new(ErrorKind::ConnectionLost, message))
    }

    /// The same answer; where it refuses a chunk, the statement tells whether that is because its result is gone.
    async fn kept(&self, answer: Result<Part, WarehouseError>) -> Result<Part, WarehouseError> {
        let refused = match answer {
            Err(e) if matches!(e.kind, ErrorKind::NotFound | ErrorKind::Invalid | ErrorKind::Other) => e,
            other => return other,
        };
        let gone = match self.api.state(&self.id).await {
            Ok(answer) => answer.status.state == State::Closed,
            Err(error) => error.kind == ErrorKind::NotFound,
        };
        if gone {
            let message = "Databricks keeps a result for an hour, and this one was not read to its end";
            return Err(WarehouseError::new(ErrorKind::ResultGone, message));
        }
        Err(refused)
    }
}

fn first(links: Vec<Link>) -> Result<Link, WarehouseError> {
    links.into_iter().next().ok_or_else(|| broken("a chunk has no address"))
}

impl Chunk {
    fn decode(&mut self) -> Result<Option<RecordBatch>, WarehouseError> {
        match self.reader.next().transpose() {
            Ok(Some(batch)) => {
                if let Some(left) = &mut self.left {
                    *left = left
                        .checked_sub(batch.num_rows() as u64)
                        .ok_or_else(|| broken("a chunk holds more rows than Databricks said"))?;
                }
                decode::carried(&batch).map(Some)
            }
            Ok(None) if self.left.is_some_and(|left| left > 0) => {
                Err(broken("a chunk holds fewer rows than Databricks said"))
            }
            Ok(None) => Ok(None),
            Err(error) => Err(broken(&error.to_string())),
        }
    }
}

fn broken(what: &str) -> WarehouseError {
    WarehouseError::new(ErrorKind::Other, format!("Databricks' result cannot be read: {what}"))
}
