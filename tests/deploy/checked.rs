//! The programs that read `deploy/`, in a Python environment of their own, and the files themselves.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tests::stores::installed;

/// The environment that `./test` makes; its name is a checksum of what `.ci/stores` lists.
fn environment() -> PathBuf {
    let listed = read(".ci/stores");
    let with = listed.lines().find_map(|line| line.strip_prefix("DEPLOY_WITH=\"")?.strip_suffix('"'));
    let with = with.expect(".ci/stores lists what is installed");
    let sum =
        Command::new("sh").args(["-c", "printf '%s' \"$1\" | cksum", "sh", with]).output().expect("cksum");
    let sum = String::from_utf8(sum.stdout).expect("a number");
    installed("LEVIN_DEPLOY", &format!("deploy-{}", sum.split(' ').next().expect("a number")))
}

/// The top of the tree.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the tree")
}

/// A file of the tree.
pub fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// A program of the environment, and what it said, when it ended well.
pub fn program(name: &str, arguments: &[&str]) -> Result<String, String> {
    let ended = Command::new(environment().join("bin").join(name))
        .args(arguments)
        .current_dir(root())
        .output()
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    if ended.status.success() { Ok(said) } else { Err(said + &String::from_utf8_lossy(&ended.stderr)) }
}

/// What `check.py` answers.
pub fn check(arguments: &[&str]) -> Value {
    let said = program("python", &[&["tests/deploy/check.py"], arguments].concat());
    serde_json::from_str(&said.unwrap_or_else(|e| panic!("{arguments:?}: {e}"))).expect("JSON")
}

/// A value in a file, for `check.py`.
pub fn written(value: &Value) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), value.to_string()).expect("write it");
    file
}

/// The path of a file, as text.
pub fn path_of(file: &tempfile::NamedTempFile) -> &str {
    file.path().to_str().expect("UTF-8")
}
