//! Questions that make a warehouse work: how many go on at once, and plans that several ask for.

use std::any::Any;
use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::StatusCode;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::fault::Fault;
use crate::error::{Error, ErrorCode};
use crate::run::Start;

/// The most questions to one source that go on at once.
const AT_ONCE: usize = 4;
/// Seconds after which to ask again when there are so many.
const AGAIN: u64 = 2;

type Planned = Shared<BoxFuture<'static, Result<Value, Error>>>;

/// A sync as it was when somebody asked, and from where its run would start.
type Asked = (usize, Start);

/// The questions that go on.
#[derive(Debug, Default)]
pub(super) struct Questions {
    places: Mutex<HashMap<i64, Arc<Semaphore>>>,
    plans: Arc<Mutex<HashMap<Asked, Planned>>>,
}

impl Questions {
    fn place(&self, source: i64) -> Result<OwnedSemaphorePermit, Fault> {
        let places = {
            let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            places.entry(source).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE))).clone()
        };
        places.try_acquire_owned().map_err(|_| {
            let details = format!("{AT_ONCE} questions to this source go on, and no more at once");
            Fault::new(StatusCode::TOO_MANY_REQUESTS, "Too many requests", details).after(AGAIN)
        })
    }

    /// Asks a source, in a task of its own: who asks may leave, and what was begun in the warehouse is
    /// undone all the same.
    ///
    /// # Errors
    /// 429 while too many questions to the source go on.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        source: i64,
        question: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<Result<T, Error>, Fault> {
        let place = self.place(source)?;
        let asked = tokio::spawn(async move {
            let _place = place;
            question.await
        });
        Ok(asked.await.unwrap_or_else(|error| Err(Error::new(ErrorCode::Internal, error.to_string()))))
    }

    /// The same for a plan: whoever asks for one that is being made gets that one.
    ///
    /// # Errors
    /// 429 while too many questions to the source go on.
    pub(super) async fn plan<S, F>(
        &self,
        source: i64,
        sync: &Arc<S>,
        start: Start,
        plan: impl FnOnce() -> F,
    ) -> Result<Result<Value, Error>, Fault>
    where
        S: Send + Sync + 'static,
        F: Future<Output = Result<Value, Error>> + Send + 'static,
    {
        let planned = {
            let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
            let asked = (Arc::as_ptr(sync).addr(), start);
            match plans.get(&asked) {
                Some(planned) => planned.clone(),
                None => {
                    let place = self.place(source)?;
                    let entry = Entry { plans: self.plans.clone(), asked, _sync: sync.clone() };
                    let plan = plan();
                    let made = tokio::spawn(async move {
                        let (_place, _entry) = (place, entry);
                        plan.await
                    });
                    let planned: Planned = made
                        .map(|made| {
                            made.unwrap_or_else(|error| {
                                Err(Error::new(ErrorCode::Internal, error.to_string()))
                            })
                        })
                        .boxed()
                        .shared();
                    plans.insert(asked, planned.clone());
                    planned
                }
            }
        };
        Ok(planned.await)
    }
}

/// A plan that is being made. Gone with it, also when making it breaks.
struct Entry {
    plans: Arc<Mutex<HashMap<Asked, Planned>>>,
    asked: Asked,
    /// As long as it is here nothing else has its address.
    _sync: Arc<dyn Any + Send + Sync>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.asked);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::http::header::RETRY_AFTER;
    use axum::response::IntoResponse;
    use futures::future::join_all;
    use serde_json::json;
    use tokio::sync::Notify;

    use super::*;

    /// Plans that wait, and are counted.
    #[derive(Default)]
    struct Slow {
        begun: AtomicUsize,
        go_on: Notify,
    }

    impl Slow {
        async fn plan(self: Arc<Self>) -> Result<Value, Error> {
            let number = self.begun.fetch_add(1, Ordering::SeqCst);
            self.go_on.notified().await;
            Ok(json!(number))
        }
    }

    #[tokio::test]
    async fn a_plan_that_is_being_made_is_made_once() {
        let (questions, slow, sync) = (Questions::default(), Arc::new(Slow::default()), Arc::new("sync"));
        let ask = || questions.plan(1, &sync, Start::Incremental, || slow.clone().plan());
        let all = join_all((0..50).map(|_| ask()));
        let (answers, ()) = tokio::join!(all, async { slow.go_on.notify_one() });
        assert!(answers.into_iter().all(|answer| answer.unwrap() == Ok(json!(0))));
        assert_eq!(slow.begun.load(Ordering::SeqCst), 1);
        slow.go_on.notify_one();
        assert_eq!(ask().await.unwrap(), Ok(json!(1)), "what was made is not kept");
        let broken = questions.plan(1, &sync, Start::Incremental, || async { panic!("it breaks") });
        assert_eq!(broken.await.unwrap().unwrap_err().code, ErrorCode::Internal);
        slow.go_on.notify_one();
        assert_eq!(ask().await.unwrap(), Ok(json!(2)), "what broke is not kept either");
    }

    #[tokio::test]
    async fn no_more_questions_than_there_are_places_go_on() {
        let (questions, slow) = (Questions::default(), Arc::new(Slow::default()));
        let syncs: Vec<Arc<usize>> = (0..50).map(Arc::new).collect();
        let ask = |source, sync| questions.plan(source, sync, Start::Incremental, || slow.clone().plan());
        let all = join_all(syncs.iter().map(|sync| ask(1, sync)));
        let (answers, ()) = tokio::join!(all, async {
            let refused = questions.ask(1, async { Ok(()) }).await.unwrap_err().into_response();
            assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
            assert_eq!(questions.ask(2, async { Ok(7) }).await.unwrap(), Ok(7), "another source has places");
            while slow.begun.load(Ordering::SeqCst) < AT_ONCE {
                tokio::task::yield_now().await;
            }
            slow.go_on.notify_waiters();
        });
        let made = answers.iter().filter(|answer| answer.is_ok()).count();
        assert_eq!((made, slow.begun.load(Ordering::SeqCst)), (AT_ONCE, AT_ONCE));
        let refused = answers.into_iter().find_map(Result::err).unwrap();
        let redactor = crate::redact::Redactor::default();
        let refused = super::super::fault::finished(refused.into_response(), &redactor);
        assert!(refused.headers().contains_key(RETRY_AFTER));
        assert_eq!(questions.ask(1, async { Ok(7) }).await.unwrap(), Ok(7), "places are given back");
    }
}
