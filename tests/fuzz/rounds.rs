//! Rounds: a seed each, a few of them in every ./test, as many as there is time for when that is asked.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// After so long a round counts as one that does not end; none takes a hundredth of it.
const HANGS: Duration = Duration::from_secs(120);
/// What a process may hold that goes through rounds, in kilobytes.
const MEMORY: u64 = 1024 * 1024;
/// What a round may add to that unnoticed.
const MUCH: u64 = 64 * 1024;
const IDLE: u64 = u64::MAX;

/// Goes through rounds of a name: so many, or the one or the minutes that the environment asks for.
///
/// # Panics
/// When a round does, naming its seed. A round that does not end, or that the process does not survive, leaves
/// its seed in a file that is named at the start.
pub fn rounds(name: &'static str, few: u64, mut round: impl FnMut(&mut fastrand::Rng)) {
    let started = Instant::now();
    let minutes = number("LEVIN_LONG_MINUTES").map(|minutes| Duration::from_secs(60 * minutes));
    let seeds: Box<dyn Iterator<Item = u64>> = match (number("LEVIN_SEED"), minutes) {
        (Some(seed), _) => Box::new(std::iter::once(seed)),
        (None, Some(minutes)) => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
            Box::new((now * 1_000_000..).take_while(move |_| started.elapsed() < minutes))
        }
        (None, None) => Box::new(0..few),
    };
    let under_way = underway(name);
    let current = watchdog(name);
    let (mut done, mut failed, mut before) = (0, Vec::new(), peak());
    for seed in seeds {
        std::fs::write(&under_way, seed.to_string()).expect("note the seed");
        current.store(seed, Ordering::SeqCst);
        if catch_unwind(AssertUnwindSafe(|| round(&mut fastrand::Rng::with_seed(seed)))).is_err() {
            println!("{name}: LEVIN_SEED={seed}");
            failed.push(seed);
            assert!(failed.len() < 20, "{name}: these rounds failed and there may be more: {failed:?}");
        }
        current.store(IDLE, Ordering::SeqCst);
        done += 1;
        let held = peak();
        if held > before + MUCH {
            println!("{name}: {} kB more were held at once; LEVIN_SEED={seed}", held - before);
        }
        before = held;
        assert!(held < MEMORY, "{name}: {held} kB are held; LEVIN_SEED={seed}");
    }
    let _ = std::fs::remove_file(&under_way);
    println!("{name}: {done} rounds in {:.1} s", started.elapsed().as_secs_f64());
    assert!(failed.is_empty(), "{name}: these rounds failed; replay one with LEVIN_SEED: {failed:?}");
}

/// Where the seed of the round under way stands, for whoever looks after a process that died of it.
fn underway(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("levin-fuzz-{name}-{}.seed", std::process::id()))
}

/// Ends the process when one seed stays for too long.
fn watchdog(name: &'static str) -> Arc<AtomicU64> {
    let current = Arc::new(AtomicU64::new(IDLE));
    let watched = Arc::downgrade(&current);
    std::thread::spawn(move || {
        let (mut seen, mut since) = (IDLE, Instant::now());
        while let Some(current) = watched.upgrade() {
            let now = current.load(Ordering::SeqCst);
            drop(current);
            if now != seen {
                (seen, since) = (now, Instant::now());
            } else if now != IDLE && since.elapsed() > HANGS {
                eprintln!("{name}: a round does not end; LEVIN_SEED={now}");
                std::process::abort();
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    });
    current
}

/// The most memory that this process held so far, in kilobytes; 0 where nobody tells.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let held = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).map(str::trim);
    held.and_then(|held| held.trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .filter(|v| !v.is_empty())
        .map(|v| v.parse().unwrap_or_else(|e| panic!("{variable}: {e}")))
}
