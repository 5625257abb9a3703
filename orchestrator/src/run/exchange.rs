//! Exchanges with warehouse and destination as a test can make them fail: the n-th of a run, before it took
//! place or with its answer lost. In a build without the feature `failpoints` nothing stands in between.

#[cfg(not(feature = "failpoints"))]
use connectors::{destination::Delivery, warehouse::Session};

/// A session whose exchanges can fail.
#[cfg(not(feature = "failpoints"))]
pub fn session(session: Box<dyn Session>) -> Box<dyn Session> {
    session
}

/// A delivery whose exchanges can fail.
#[cfg(not(feature = "failpoints"))]
pub fn delivery(delivery: Box<dyn Delivery>) -> Box<dyn Delivery> {
    delivery
}

#[cfg(feature = "failpoints")]
pub use failing::{delivery, session};

#[cfg(feature = "failpoints")]
mod failing {
    use std::sync::Arc;

    use arrow::array::RecordBatch;
    use async_trait::async_trait;
    use connectors::change::ChangeBatch;
    use connectors::destination::Delivery;
    use connectors::outcome::{Delivered, DeliveryError, RowOutcome};
    use connectors::warehouse::{BatchStream, Canceller, Cost, Effect, ErrorKind, Session, WarehouseError};
    use futures::StreamExt;
    use sql_templates::{Column, Script, Sql, TableRef};

    use crate::failpoints::{Failure, fails};

    pub fn session(inner: Box<dyn Session>) -> Box<dyn Session> {
        Box::new(FailingSession { inner, lost: false })
    }

    pub fn delivery(inner: Box<dyn Delivery>) -> Box<dyn Delivery> {
        Box::new(FailingDelivery(inner))
    }

    struct FailingSession {
        inner: Box<dyn Session>,
        /// A connection that was lost stays so.
        lost: bool,
    }

    fn connection_lost() -> WarehouseError {
        WarehouseError::new(ErrorKind::ConnectionLost, "a test cut the connection")
    }

    impl FailingSession {
        /// Whether the answer will be lost; an error when the exchange does not take place.
        fn begin(&mut self) -> Result<bool, WarehouseError> {
            let failure = if self.lost { Some(Failure::Before) } else { fails() };
            self.lost |= failure.is_some();
            match failure {
                Some(Failure::Before) => Err(connection_lost()),
                Some(Failure::After) => Ok(true),
                None => Ok(false),
            }
        }
    }

    fn answered<T>(lost: bool, answer: Result<T, WarehouseError>) -> Result<T, WarehouseError> {
        answer.and_then(|answer| if lost { Err(connection_lost()) } else { Ok(answer) })
    }

    #[async_trait]
    impl Session for FailingSession {
        fn id(&self) -> Option<String> {
            self.inner.id()
        }

        async fn describe(&mut self, select: &Sql) -> Result<Vec<Column>, WarehouseError> {
            let lost = self.begin()?;
            answered(lost, self.inner.describe(select).await)
        }

        async fn estimate(&mut self, select: &Sql) -> Result<Option<u64>, WarehouseError> {
            let lost = self.begin()?;
            answered(lost, self.inner.estimate(select).await)
        }

        fn cost(&mut self) -> Cost {
            self.inner.cost()
        }

        async fn rest(&mut self) {
            self.inner.rest().await;
        }

        async fn execute(&mut self, script: &Script) -> Result<Effect, WarehouseError> {
            let lost = self.begin()?;
            answered(lost, self.inner.execute(script).await)
        }

        async fn query(&mut self, select: &Sql) -> Result<BatchStream<'_>, WarehouseError> {
            let lost = self.begin()?;
            let rows = self.inner.query(select).await?;
            // Lost in the middle: what came first is there.
            Ok(if lost {
                rows.take(1).chain(futures::stream::once(async { Err(connection_lost()) })).boxed()
            } else {
                rows
            })
        }

        async fn load(&mut self, table: &TableRef, batches: Vec<RecordBatch>) -> Result<u64, WarehouseError> {
            let lost = self.begin()?;
            answered(lost, self.inner.load(table, batches).await)
        }

        fn canceller(&self) -> Arc<dyn Canceller> {
            self.inner.canceller()
        }
    }

    struct FailingDelivery(Box<dyn Delivery>);

    fn unavailable() -> DeliveryError {
        DeliveryError::Unavailable {
            message: "a test cut the connection".to_owned(),
            after: None,
            answered: false,
        }
    }

    #[async_trait]
    impl Delivery for FailingDelivery {
        async fn deliver(&self, batch: &ChangeBatch) -> Delivered {
            match fails() {
                Some(Failure::Before) => Delivered::failed(unavailable(), RowOutcome::NotSent, batch.len()),
                Some(Failure::After) => {
                    self.0.deliver(batch).await;
                    Delivered::failed(unavailable(), RowOutcome::InDoubt, batch.len())
                }
                None => self.0.deliver(batch).await,
            }
        }

        async fn close(self: Box<Self>, complete: bool) -> Result<Option<RowOutcome>, DeliveryError> {
            match fails() {
                Some(Failure::Before) => {
                    self.0.close(false).await?;
                    Err(unavailable())
                }
                Some(Failure::After) => {
                    let outcome = self.0.close(complete).await?;
                    Ok(outcome.map(|_| RowOutcome::InDoubt))
                }
                None => self.0.close(complete).await,
            }
        }
    }
}
