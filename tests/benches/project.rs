//! A project in a folder of its own, run by the binary under test.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::Value;

/// What levin knows of its destination goes.
pub const FORGET: &str =
    "drop schema if exists levin_planner cascade; drop schema if exists levin_audit cascade";

pub struct Project {
    folder: tempfile::TempDir,
    levin: PathBuf,
    /// The core on which levin runs; none where it may use all.
    core: Option<usize>,
}

/// This thread, and whatever it begins from now on, runs on one core.
pub fn stay_on(core: usize) {
    let mut only = CpuSet::new();
    only.set(core);
    sched_setaffinity(None, &only).expect("choose a core");
}

/// What one call of the binary came to.
pub struct Outcome {
    /// The report, `null` for what prints none.
    pub report: Value,
    /// From start to end.
    pub seconds: f64,
    /// The most memory that the process held at once, in megabytes.
    pub peak: f64,
}

impl Outcome {
    pub fn stage(&self, name: &str) -> f64 {
        self.report["stages"][name].as_f64().unwrap_or(0.0)
    }

    /// Everything but the delivery.
    pub fn without_delivery(&self) -> f64 {
        ["prepare", "diff", "plan", "commit", "prune"].iter().map(|s| self.stage(s)).sum()
    }

    pub fn sent(&self) -> u64 {
        ["addedCount", "changedCount", "removedCount"]
            .iter()
            .filter_map(|c| self.report["successfulRows"][c].as_u64())
            .sum()
    }
}

impl Project {
    pub fn new(levin: &Path, source: &str, model: &str) -> Self {
        let project = Self { folder: tempfile::tempdir().unwrap(), levin: levin.to_owned(), core: None };
        project.write("levin.yml", "name: bench\n");
        project.write("sources/wh.yml", source);
        project.write("models/model.yml", model);
        project
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// A destination and a sync that sends the model to it.
    pub fn sync(&self, destination: &str, sync: &str) {
        self.write("destinations/out.yml", destination);
        self.write("syncs/bench.yml", &format!("model: model\ndestination: out\n{sync}"));
    }

    /// From now on levin runs on this core alone.
    pub fn stays_on(&mut self, core: usize) {
        self.core = Some(core);
    }

    /// Files of changed rows.
    pub fn to_files(&self) {
        self.sync("type: files\npath: out\n", "mode: diff\nobject: run-{{ run_id }}.jsonl\nformat: jsonl\n");
    }

    /// Forgets the history of runs, and which project it was.
    pub fn forget(&self) {
        let _ = std::fs::remove_dir_all(self.folder.path().join(".levin"));
        let _ = std::fs::remove_file(self.folder.path().join("levin.lock.yml"));
    }

    pub fn run(&self) -> Outcome {
        let outcome = self.call(&["run", "bench", "--json"]);
        let _ = std::fs::remove_dir_all(self.folder.path().join("out"));
        outcome
    }

    pub fn call(&self, arguments: &[&str]) -> Outcome {
        let everywhere = sched_getaffinity(None).expect("the cores");
        if let Some(core) = self.core {
            stay_on(core);
        }
        let began = Instant::now();
        let mut child = Command::new(&self.levin)
            .arg("--project")
            .arg(self.folder.path())
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        sched_setaffinity(None, &everywhere).expect("all cores again");
        let mut stdout = child.stdout.take().unwrap();
        let output = std::thread::spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).map(|_| text)
        });
        let mut stderr = child.stderr.take().unwrap();
        let said = std::thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).map(|_| text)
        });
        let mut peak = 0.0_f64;
        let status = loop {
            peak = peak.max(high_water(child.id()));
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let seconds = began.elapsed().as_secs_f64();
        let (output, said) = (output.join().unwrap().unwrap(), said.join().unwrap().unwrap());
        assert!(status.success(), "{output}{said}");
        Outcome { report: serde_json::from_str(&output).unwrap_or_default(), seconds, peak }
    }
}

/// The most memory that a process has held so far, in megabytes; 0 once it is gone.
fn high_water(process: u32) -> f64 {
    std::fs::read_to_string(format!("/proc/{process}/status"))
        .ok()
        .and_then(|status| {
            let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
            line.trim().strip_suffix(" kB")?.parse::<f64>().ok()
        })
        .map_or(0.0, |kilobytes| kilobytes / 1024.0)
}
