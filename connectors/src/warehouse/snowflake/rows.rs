//! A result on its way: the first rows come with the answer, the others in chunks that lie in an object store.

use std::collections::VecDeque;
use std::io::{Cursor, Read};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use tokio::task::JoinHandle;
use tracing::Instrument;

use super::super::{ErrorKind, WarehouseError};
use super::decode::{ResultColumn, carried, parsed};
use super::link::{Asked, ChunkAddress, Link, QueryData, Running};
use super::service::may_be_asked;
use super::wire::{self, Patience, Request};

/// A batch is handed on with at most so many rows.
const BATCH_ROWS: usize = 8_192;
/// One attempt at a chunk.
const CHUNK_ATTEMPT: Duration = Duration::from_secs(300);

/// A result, read one chunk at a time; while one is decoded the next is on its way.
pub(super) struct Rows {
    link: Arc<Link>,
    running: Option<Arc<Running>>,
    query: Option<String>,
    columns: Vec<ResultColumn>,
    headers: HeaderMap,
    json: bool,
    chunks: VecDeque<(usize, ChunkAddress)>,
    next: Option<Coming>,
    current: Option<Part>,
    /// What is left of a batch that was too large.
    rest: Option<RecordBatch>,
    total: Option<u64>,
    seen: u64,
}

/// A chunk that is on its way. Dropped, it comes no further.
struct Coming {
    address: ChunkAddress,
    number: usize,
    download: JoinHandle<Result<Bytes, Lost>>,
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.download.abort();
    }
}

/// A chunk that did not come.
enum Lost {
    /// Its address no longer holds.
    Refused(String),
    Failed(String),
}

/// Rows that are here, not yet decoded.
enum Part {
    Arrow { reader: Box<StreamReader<Box<dyn Read + Send + Sync>>>, left: Option<u64> },
    Json(Vec<Vec<Option<String>>>),
}

impl Rows {
    /// Runs a select and waits for its first rows.
    pub(super) async fn open(link: &Arc<Link>, text: &str) -> Result<Self, WarehouseError> {
        let data = link.statement(text, Asked::default()).await?;
        Self::of(link, data)
    }

    /// The rows of a statement that is done.
    pub(super) fn of(link: &Arc<Link>, data: QueryData) -> Result<Self, WarehouseError> {
        let columns = data.rowtype.iter().map(ResultColumn::of).collect::<Result<Vec<_>, _>>()?;
        let headers = chunk_headers(&data)?;
        let json = data.query_result_format.as_deref() == Some("json");
        let current = match (data.rowset, data.rowset_base64) {
            (Some(rows), _) if json => Some(Part::Json(rows)),
            (_, Some(text)) if !text.is_empty() => {
                let bytes = BASE64.decode(text).map_err(|e| broken(&format!("its base64: {e}")))?;
                Some(Part::arrow(Bytes::from(bytes), None)?)
            }
            _ => None,
        };
        let running = link.running();
        if let Some(running) = &running {
            running.set_read(true);
        }
        let mut rows = Self {
            running,
            link: link.clone(),
            query: data.query_id,
            columns,
            headers,
            json,
            chunks: data.chunks.into_iter().enumerate().collect(),
            next: None,
            current,
            rest: None,
            total: data.total,
            seen: 0,
        };
        rows.send_for_next();
        Ok(rows)
    }

    /// The next batch; none when all rows that the service counted were handed on.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>, WarehouseError> {
        loop {
            if self.running.as_ref().is_some_and(|r| r.is_cancelled()) {
                return Err(WarehouseError::new(ErrorKind::Cancelled, "the statement was cancelled"));
            }
            if let Some(batch) = self.rest.take() {
                return Ok(Some(self.cut(batch)));
            }
            if let Some(part) = &mut self.current {
                match part.decode(&self.columns)? {
                    Some(batch) if batch.num_rows() > 0 => self.rest = Some(batch),
                    Some(_) => {}
                    None => self.current = None,
                }
                continue;
            }
            let Some(coming) = self.next.take() else {
                return match self.total {
                    Some(total) if total != self.seen => {
                        Err(broken(&format!("{} rows came of {total}", self.seen)))
                    }
                    _ => Ok(None),
                };
            };
            let running = self.running.clone();
            let cancelled = async {
                match &running {
                    Some(running) => running.until_cancelled().await,
                    None => std::future::pending().await,
                }
            };
            let (bytes, rows) = tokio::select! {
                arrived = self.arrived(coming) => arrived?,
                () = cancelled => continue,
            };
            self.send_for_next();
            self.current =
                Some(if self.json { Part::json(&bytes)? } else { Part::arrow(bytes, Some(rows))? });
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

    fn send_for_next(&mut self) {
        if self.next.is_none() {
            let coming = self.chunks.pop_front();
            self.next = coming.map(|(number, address)| self.send_for(number, address));
        }
    }

    fn send_for(&self, number: usize, address: ChunkAddress) -> Coming {
        let (link, headers, url) = (self.link.clone(), self.headers.clone(), address.url.clone());
        let download = tokio::spawn(async move { download(&link, headers, &url).await }.in_current_span());
        Coming { address, number, download }
    }

    async fn arrived(&self, mut coming: Coming) -> Result<(Bytes, u64), WarehouseError> {
        let rows = coming.address.rows;
        match joined(&mut coming).await {
            Ok(bytes) => return Ok((bytes, rows)),
            Err(Lost::Failed(said)) => return Err(lost(&said)),
            Err(Lost::Refused(said)) => {
                tracing::debug!(said, "a chunk's address no longer holds; another is asked for");
            }
        }
        let Some(query) = &self.query else { return Err(lost("its address no longer holds")) };
        let mut again = self.link.result_again(query).await?;
        if coming.number >= again.chunks.len() || again.chunks[coming.number].rows != rows {
            return Err(lost("its address no longer holds, and Snowflake has cut the result in another way"));
        }
        let mut coming = self.send_for(coming.number, again.chunks.swap_remove(coming.number));
        match joined(&mut coming).await {
            Ok(bytes) => Ok((bytes, rows)),
            Err(Lost::Failed(said) | Lost::Refused(said)) => Err(lost(&said)),
        }
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.set_read(false);
        }
    }
}

async fn joined(coming: &mut Coming) -> Result<Bytes, Lost> {
    match (&mut coming.download).await {
        Ok(result) => result,
        Err(error) => Err(Lost::Failed(error.to_string())),
    }
}

async fn download(link: &Link, headers: HeaderMap, url: &str) -> Result<Bytes, Lost> {
    let url: Url = url.parse().map_err(|_| Lost::Failed("its address cannot be read".to_owned()))?;
    if !may_be_asked(&url) {
        return Err(Lost::Failed("its address is not encrypted".to_owned()));
    }
    let service = link.service();
    let patience = Patience { total: service.network_timeout, attempt: CHUNK_ATTEMPT, only_listening: false };
    let make = |_, _| Request {
        method: Method::GET,
        url: url.clone(),
        headers: headers.clone(),
        body: Bytes::new(),
    };
    let answer =
        wire::ask(&service.http, patience, make).await.map_err(|silence| Lost::Failed(silence.said()))?;
    match answer.status {
        StatusCode::OK => Ok(answer.body),
        StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST => {
            Err(Lost::Refused(wire::shown(&service.http, &url, &answer)))
        }
        _ => Err(Lost::Failed(wire::shown(&service.http, &url, &answer))),
    }
}

/// The key under which chunks lie encrypted, as their store wants to be told.
fn chunk_headers(data: &QueryData) -> Result<HeaderMap, WarehouseError> {
    let mut headers = HeaderMap::new();
    let mut add = |name: &str, value: &str| -> Result<(), WarehouseError> {
        let name = HeaderName::try_from(name).map_err(|_| broken("a header of its chunks"))?;
        let mut value = HeaderValue::try_from(value).map_err(|_| broken("a header of its chunks"))?;
        value.set_sensitive(true);
        headers.insert(name, value);
        Ok(())
    };
    match (&data.chunk_headers, &data.qrmk) {
        (Some(given), _) if !given.is_empty() => {
            for (name, value) in given {
                add(name, value)?;
            }
        }
        (_, Some(key)) => {
            add("x-amz-server-side-encryption-customer-algorithm", "AES256")?;
            add("x-amz-server-side-encryption-customer-key", key)?;
        }
        _ => {}
    }
    Ok(headers)
}

/// The bytes as they were before somebody compressed them.
fn plain(bytes: Bytes) -> Box<dyn Read + Send + Sync> {
    if bytes.starts_with(&[0x1f, 0x8b]) {
        Box::new(MultiGzDecoder::new(Cursor::new(bytes)))
    } else {
        Box::new(Cursor::new(bytes))
    }
}

impl Part {
    fn arrow(bytes: Bytes, rows: Option<u64>) -> Result<Self, WarehouseError> {
        let reader = StreamReader::try_new(plain(bytes), None).map_err(|e| broken(&e.to_string()))?;
        Ok(Self::Arrow { reader: Box::new(reader), left: rows })
    }

    fn json(bytes: &Bytes) -> Result<Self, WarehouseError> {
        let mut text = vec![b'['];
        plain(bytes.clone()).read_to_end(&mut text).map_err(|e| broken(&e.to_string()))?;
        text.push(b']');
        serde_json::from_slice(&text).map(Self::Json).map_err(|e| broken(&e.to_string()))
    }

    fn decode(&mut self, columns: &[ResultColumn]) -> Result<Option<RecordBatch>, WarehouseError> {
        match self {
            Self::Arrow { reader, left } => match reader.next().transpose() {
                Ok(Some(batch)) => {
                    if let Some(left) = left {
                        *left = left
                            .checked_sub(batch.num_rows() as u64)
                            .ok_or_else(|| broken("a chunk holds more rows than Snowflake said"))?;
                    }
                    carried(columns, &batch).map(Some)
                }
                Ok(None) if left.is_some_and(|left| left > 0) => {
                    Err(broken("a chunk holds fewer rows than Snowflake said"))
                }
                Ok(None) => Ok(None),
                Err(error) => Err(broken(&error.to_string())),
            },
            Self::Json(rows) if rows.is_empty() => Ok(None),
            Self::Json(rows) => {
                let some = rows.drain(..rows.len().min(BATCH_ROWS)).collect::<Vec<_>>();
                parsed(columns, &some).map(Some)
            }
        }
    }
}

fn broken(what: &str) -> WarehouseError {
    WarehouseError::new(ErrorKind::Other, format!("Snowflake's result cannot be read: {what}"))
}

fn lost(said: &str) -> WarehouseError {
    let message = format!("a part of the result does not come: {said}");
    WarehouseError::new(ErrorKind::ConnectionLost, message)
}
