//! Seeds of random tests: which are lived, and for how long.
//!
//! `LEVIN_SEED=N` lives one again. `LEVIN_LONG=1` lives many, `LEVIN_LONG_MINUTES=N` goes on for so long, with seeds
//! that nobody lived before. Without any of them the few are the same every time.

use std::time::{Duration, Instant, UNIX_EPOCH};

/// The seed that is to be lived again, where one was given.
///
/// # Panics
/// When it is no number.
pub fn given() -> Option<u64> {
    number("LEVIN_SEED")
}

/// A seed that is another one every time.
///
/// # Panics
/// Before 1970.
pub fn of_this_moment() -> u64 {
    UNIX_EPOCH.elapsed().expect("after 1970").as_nanos() as u64
}

/// Whether the long form was asked for.
pub fn is_long() -> bool {
    std::env::var_os("LEVIN_LONG").is_some_and(|value| !value.is_empty() && value != "0")
        || minutes().is_some()
}

/// For how long somebody wants the long form to go on.
pub fn minutes() -> Option<Duration> {
    number("LEVIN_LONG_MINUTES").map(|minutes| Duration::from_secs(minutes * 60))
}

/// The seeds to live, one after the other: the one that was given, as many as the minutes allow, or from `first` on
/// `many` or `few`.
pub fn seeds(first: u64, few: u64, many: u64) -> Box<dyn Iterator<Item = u64> + Send> {
    let started = Instant::now();
    match (given(), minutes()) {
        (Some(seed), _) => Box::new(std::iter::once(seed)),
        (None, Some(minutes)) => {
            // Short enough to be typed.
            let newest = of_this_moment() % 1_000_000_000 * 1_000;
            Box::new((newest..).take_while(move |_| started.elapsed() < minutes))
        }
        (None, None) if is_long() => Box::new(first..first + many),
        (None, None) => Box::new(first..first + few),
    }
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok().filter(|value| !value.is_empty())?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} is a number: {value}")))
}
