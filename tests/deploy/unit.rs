//! The unit of systemd.

use std::process::Command;

use super::checked::{read, root};
use tests::project::levin_binary;

const UNIT: &str = "deploy/systemd/levin.service";

fn value(name: &str) -> String {
    let unit = read(UNIT);
    let found = unit.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=').map(str::to_owned));
    found.unwrap_or_else(|| panic!("{name} is missing"))
}

#[test]
fn the_unit_gives_runs_their_time_and_lets_levin_write_only_its_store() {
    let seconds: u64 = value("TimeoutStopSec").parse().expect("seconds");
    assert!(seconds > 60, "levin gives runs under way 60 s");
    assert_eq!(value("KillSignal"), "SIGTERM");
    assert!(value("ExecReload").contains("-HUP"), "levin reads the project again on SIGHUP");
    for (name, is) in [
        ("DynamicUser", "yes"),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("NoNewPrivileges", "yes"),
        ("CapabilityBoundingSet", ""),
        ("StateDirectory", "levin"),
    ] {
        assert_eq!(value(name), is, "{name}");
    }
    assert!(!read(UNIT).contains("\nReadWritePaths"), "nothing else is written");
    // `levin` looks there whether who holds a lease still lives: hidden, everybody would seem gone.
    assert!(!read(UNIT).contains("\nProtectProc=") && !read(UNIT).contains("\nProcSubset="));
}

/// Where systemd is not installed (in containers, on macOS) nothing can judge.
#[test]
fn systemd_understands_the_unit_and_calls_it_safe() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        eprintln!("systemd-analyze is not installed: the unit was only read");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("levin.service");
    // It looks whether the programs are there.
    let unit = read(UNIT).replace("/usr/local/lib/levin/levin", &levin_binary().to_string_lossy());
    std::fs::write(&path, &unit).expect("write it");
    let judged = Command::new("systemd-analyze").arg("verify").arg(&path).output().expect("it runs");
    let said = String::from_utf8_lossy(&judged.stderr).into_owned();
    let of_ours: Vec<&str> = said.lines().filter(|line| line.contains("levin.service")).collect();
    assert!(judged.status.success() && of_ours.is_empty(), "{said}");

    let safe = |path: &std::path::Path| {
        let mut command = Command::new("systemd-analyze");
        command.args(["security", "--offline=true", "--threshold=20", "--no-pager"]).arg(path);
        command.output().expect("it runs")
    };
    let judged = safe(&root().join(UNIT));
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stdout));
    // The threshold means something.
    std::fs::write(&path, unit.replace("SystemCallFilter", "#").replace("PrivateUsers", "#"))
        .expect("write it");
    assert!(!safe(&path).status.success(), "a unit that may call everything passes");
}
