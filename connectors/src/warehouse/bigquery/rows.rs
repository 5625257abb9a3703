//! A result on its way: one page at a time.

use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use futures::StreamExt;
use serde_json::value::RawValue;

use super::api::{Job, Page, read};
use super::decode::Decoder;
use super::{PAGE_ROWS, Shared};
use crate::warehouse::{BatchStream, ErrorKind, WarehouseError};

/// The pages of a job's result. BigQuery keeps them for a day, and dropping this leaves nothing running.
pub(super) struct Pages {
    shared: Arc<Shared>,
    job: Job,
    /// A page that was not decoded yet.
    body: Option<Bytes>,
    /// The name of the page behind it.
    next: Option<String>,
    decoder: Option<Decoder>,
    ready: std::vec::IntoIter<RecordBatch>,
}

impl Pages {
    /// Begins with a page that came with the job's end.
    pub(super) fn new(shared: Arc<Shared>, job: Job, first: Option<Bytes>) -> Self {
        Self { shared, job, body: first, next: None, decoder: None, ready: Vec::new().into_iter() }
    }

    /// The next batch, of at most some thousand rows.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>, WarehouseError> {
        loop {
            if let Some(batch) = self.ready.next() {
                return Ok(Some(batch));
            }
            let body = match (self.body.take(), self.next.take()) {
                (Some(body), _) => body,
                (None, Some(token)) => {
                    let results = self.shared.api.results(&self.job, PAGE_ROWS, Some(&token)).await;
                    results.map_err(|failure| failure.error)?
                }
                (None, None) => return Ok(None),
            };
            let decoder = self.decoder.take();
            // A page is a tenth of a second's work, in which nothing else should wait.
            let decoded = tokio::task::spawn_blocking(move || decode(decoder, &body)).await;
            let (decoder, batches, next) = decoded.map_err(|e| {
                WarehouseError::new(ErrorKind::Other, format!("the BigQuery driver failed: {e}"))
            })??;
            self.decoder = Some(decoder);
            self.ready = batches.into_iter();
            self.next = next;
        }
    }

    /// The same as a stream.
    pub(super) fn into_stream<'a>(self) -> BatchStream<'a> {
        futures::stream::try_unfold(self, |mut pages| async move {
            Ok(pages.next().await?.map(|batch| (batch, pages)))
        })
        .boxed()
    }
}

type Decoded = (Decoder, Vec<RecordBatch>, Option<String>);

fn decode(decoder: Option<Decoder>, body: &[u8]) -> Result<Decoded, WarehouseError> {
    let page: Page<'_> = read(body)?;
    let mut decoder = match decoder {
        Some(decoder) => decoder,
        None => Decoder::new(&page.schema.unwrap_or_default().fields)?,
    };
    let batches = decoder.page(page.rows.map_or("[]", RawValue::get))?;
    Ok((decoder, batches, page.page_token.filter(|token| !token.is_empty())))
}
