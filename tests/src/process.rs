//! The real `levin` as a process: where it lies, how it runs, how it ends.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// The longest that one command may take; far beyond what any takes.
const PATIENCE: Duration = Duration::from_secs(300);

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; the negative number of the signal that ended it, when one did.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// A `levin` that is still running; killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Option<Child>,
    /// Standard error, as far as it was read.
    heard: String,
}

/// The `levin` under test.
///
/// # Panics
/// When there is none.
pub fn levin_binary() -> PathBuf {
    binary("LEVIN_BIN", "levin", "cargo build --workspace --bins")
}

/// The `levin` that has fail points.
///
/// # Panics
/// When there is none.
pub fn levin_with_failpoints() -> PathBuf {
    binary(
        "LEVIN_FAILPOINTS_BIN",
        "failpoints/debug/levin",
        "cargo build --workspace --bins --features orchestrator/failpoints --target-dir TARGET/failpoints",
    )
}

/// The binary that a variable names, else the one beside this test's own folder.
fn binary(variable: &str, fallback: &str, build: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let test = std::env::current_exe().expect("the test's own path");
    // target/debug/deps/scenarios-0123 → target/debug/levin, target/failpoints/debug/levin
    let found =
        test.ancestors().skip(1).take(4).map(|folder| folder.join(fallback)).find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!("{variable} is not set and there is no {fallback}; `./test` builds it, or: {build}")
    })
}

impl Running {
    /// Starts a command that prints into our hands.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap_or_else(|e| panic!("{}: {e}", command.get_program().display()));
        Self { child: Some(child), heard: String::new() }
    }

    fn child(&self) -> &Child {
        self.child.as_ref().expect("it is taken by who waits for its end")
    }

    /// Its number.
    pub fn pid(&self) -> Pid {
        Pid::from_child(self.child())
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it has ended.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it still runs");
    }

    /// Asks it to stop.
    ///
    /// # Panics
    /// When it has ended.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Whether it has not ended.
    ///
    /// # Panics
    /// When that cannot be known.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().expect("its state").is_none())
    }

    /// Waits until standard error says this.
    ///
    /// # Panics
    /// When it ends without.
    pub fn hears(&mut self, words: &str) {
        let stderr = self.child.as_mut().and_then(|child| child.stderr.as_mut());
        let stderr = stderr.expect("standard error is read from here only");
        while !self.heard.contains(words) {
            let mut bytes = [0; 1024];
            let read = stderr.read(&mut bytes).expect("read standard error");
            assert!(read > 0, "it ended without a word of {words:?}: {}", self.heard);
            self.heard.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
    }

    /// Standard error, as far as it was read.
    pub fn heard(&self) -> &str {
        &self.heard
    }

    /// Ends it as a crash would.
    ///
    /// # Panics
    /// When it has ended.
    pub fn kill(self) {
        self.signal(Signal::KILL);
        self.ended();
    }

    /// Waits for its end, whatever it is.
    ///
    /// # Panics
    /// When it does not end, or cannot be waited for.
    pub fn ended(mut self) -> Ended {
        let (pid, mut child) = (self.pid(), self.child.take().expect("it is taken here only"));
        let stdout = reader(child.stdout.take().expect("standard output is piped"));
        let stderr = reader(child.stderr.take().expect("standard error is piped"));
        let (end, ended) = mpsc::channel();
        std::thread::spawn(move || end.send(child.wait()));
        let Ok(status) = ended.recv_timeout(PATIENCE) else {
            let _ = kill_process(pid, Signal::KILL);
            panic!("levin did not end within {PATIENCE:?}: {:?}", stderr.join());
        };
        let stdout = stdout.join().expect("standard output");
        let stderr = std::mem::take(&mut self.heard) + &stderr.join().expect("standard error");
        Ended { code: code(status.expect("wait for levin")), stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn reader(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).expect("its output");
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn code(status: ExitStatus) -> i32 {
    status.code().or(status.signal().map(|signal| -signal)).expect("a process ends by itself or by a signal")
}
