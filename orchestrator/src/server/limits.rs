//! How often each key may ask.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::HeaderMap;
use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};

/// Seconds over which requests are counted.
const WINDOW: u32 = 10;

/// The largest body that is read, in bytes.
pub(super) const LARGEST_BODY: usize = 1024 * 1024;

type PerKey = RateLimiter<String, DashMapStateStore<String>, DefaultClock, StateInformationMiddleware>;

/// How often each key has asked.
#[derive(Debug, Default)]
pub(super) struct Limits {
    /// With the rate for which it was made.
    current: Mutex<Option<(u32, Arc<PerKey>)>>,
}

/// How much room a key has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// Requests in a window.
    pub(super) limit: u32,
    remaining: u32,
    /// Seconds after which there is room again, when there is none.
    pub(super) wait: Option<u64>,
}

impl Limits {
    /// Takes one request of a key's share.
    pub(super) fn take(&self, key: &str, per_second: u32) -> Room {
        let rate = NonZeroU32::new(per_second).unwrap_or(NonZeroU32::MIN);
        let limit = rate.saturating_mul(NonZeroU32::MIN.saturating_add(WINDOW - 1));
        let limiter = {
            let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
            match current.as_ref() {
                Some((made_for, limiter)) if *made_for == per_second => limiter.clone(),
                _ => {
                    let quota = Quota::per_second(rate).allow_burst(limit);
                    let limiter = Arc::new(RateLimiter::dashmap(quota).with_middleware());
                    *current = Some((per_second, limiter.clone()));
                    limiter
                }
            }
        };
        match limiter.check_key(&key.to_owned()) {
            Ok(state) => Room { limit: limit.get(), remaining: state.remaining_burst_capacity(), wait: None },
            Err(not_yet) => {
                let wait = not_yet.wait_time_from(DefaultClock::default().now());
                Room { limit: limit.get(), remaining: 0, wait: Some(seconds(wait)) }
            }
        }
    }
}

fn seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

impl Room {
    /// Says it in the headers of a response.
    pub(super) fn write(self, headers: &mut HeaderMap) {
        let used = self.limit - self.remaining;
        let reset = (u64::from(used) * u64::from(WINDOW)).div_ceil(u64::from(self.limit));
        headers.insert("ratelimit-limit", self.limit.into());
        headers.insert("ratelimit-remaining", self.remaining.into());
        headers.insert("ratelimit-reset", reset.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_a_share_of_its_own() {
        let limits = Limits::default();
        let first = limits.take("a", 1);
        assert_eq!((first.limit, first.wait), (10, None));
        let refused = (0..10).map(|_| limits.take("a", 1)).last().unwrap();
        assert_eq!((refused.remaining, refused.wait), (0, Some(1)));
        assert_eq!(limits.take("b", 1).wait, None);
        assert_eq!(limits.take("a", 2).wait, None, "another rate begins anew");
    }
}
