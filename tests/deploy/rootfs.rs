//! The image's content: a folder that `deploy/container/rootfs` fills, as the whole file system of a levin that is
//! nobody's root and may write its project, its state and `/tmp`, and nothing else.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use super::checked::root;
use tests::process::{Ended, Running, levin_binary};

/// Makes a folder the root of the file system, read-only but for /tmp and what is mounted; then levin, as the user
/// that the image names, without a right that its files do not give.
const INSIDE: &str = r#"
set -e
root=$1 project=$2 state=$3 may=$4
shift 4
mount --bind "$root" "$root"
mount -t tmpfs -o size=64m,mode=1777 tmp "$root/tmp"
mount --rbind /proc "$root/proc"
mount --bind "$state" "$root/state"
mount --bind "$project" "$root/project"
mount -o "remount,bind,$may" "$root/project"
mount -o remount,bind,ro "$root"
exec unshare --user --map-user=10001 --map-group=10001 --root="$root" --wd=/project -- \
    /usr/local/lib/levin/levin "$@"
"#;

struct Image {
    root: tempfile::TempDir,
    project: tempfile::TempDir,
    state: tempfile::TempDir,
    /// How the project is mounted.
    may: &'static str,
}

impl Image {
    fn new() -> Self {
        let levin = levin_binary();
        let beside = levin.parent().expect("a folder");
        let library = beside.join("libduckdb.so");
        assert!(library.exists(), "{} is what levin is linked with", library.display());
        // Where the binary lies programs may run; in /dev/shm they often may not.
        let folder = tempfile::Builder::new().prefix("rootfs-").tempdir_in(beside).expect("a folder");
        let filled = Command::new(root().join("deploy/container/rootfs"))
            .args([&levin, &library, &folder.path().to_path_buf()])
            .output()
            .expect("a shell");
        assert!(filled.status.success(), "{}", String::from_utf8_lossy(&filled.stderr));
        // What a container's runtime adds.
        for place in ["proc", "state"] {
            fs::create_dir(folder.path().join(place)).expect("a place to mount");
        }
        let temporary = || tempfile::tempdir().expect("a folder");
        Self { root: folder, project: temporary(), state: temporary(), may: "rw" }
    }

    fn start(&self, arguments: &[&str]) -> Running {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", INSIDE, "sh"]);
        command
            .args([self.root.path(), self.project.path(), self.state.path()])
            .arg(self.may)
            .args(arguments);
        // As in an image: no variable of whoever tests.
        command.env_clear().env("PATH", "/usr/local/lib/levin:/usr/sbin:/usr/bin:/sbin:/bin");
        Running::start(command)
    }

    fn levin(&self, arguments: &[&str]) -> Ended {
        self.start(arguments).ended()
    }

    fn runs(&self, arguments: &[&str]) -> String {
        let ended = self.levin(arguments);
        assert_eq!(ended.code, 0, "{arguments:?}: {ended:#?}");
        ended.stdout + &ended.stderr
    }
}

fn files_below(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.map(|path| if path.is_dir() && !path.is_symlink() { files_below(&path) } else { 1 }).sum()
}

#[test]
fn levin_runs_in_an_otherwise_empty_image() {
    let image = Image::new();
    // A binary, a library, the linker and few libraries of the system, certificates and three files of names.
    let files = files_below(image.root.path());
    assert!((8..=20).contains(&files), "{files} files");
    assert!(!image.root.path().join("bin").exists(), "there is a shell");

    let empty = image.levin(&["check"]);
    assert!(empty.stderr.contains("PROJECT_NOT_FOUND"), "{empty:#?}");
    image.runs(&["init", ".", "--example"]);
    image.runs(&["check"]);
    let ran = image.runs(&["run", "customers-to-files"]);
    assert!(ran.contains("1,000 rows accepted"), "{ran}");
    let ran = image.runs(&["run", "customers-to-files"]);
    assert!(ran.contains("0 rows accepted"), "{ran}");

    // Everything else cannot be written, and so is not.
    let refused = image.levin(&["init", "/elsewhere"]);
    assert!(refused.code != 0 && refused.stderr.contains("Read-only"), "{refused:#?}");
    assert_eq!(files_below(image.root.path()), files);

    let mut service = image.start(&["serve", "--listen", "127.0.0.1:0"]);
    service.hears(" of them scheduled");
    let address = service.heard().split("http://").nth(1).and_then(|rest| rest.split(' ').next());
    let address = address.unwrap_or_else(|| panic!("no address: {}", service.heard())).to_owned();
    let mut stream = TcpStream::connect(&address).expect("it listens");
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: levin\r\nconnection: close\r\n\r\n")
        .expect("it listens");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\nok"), "{answer}");
    // The image's own health check, from within.
    assert!(image.runs(&["health", &address]).contains("ready"));
    assert!(image.runs(&["health", &address, "--alive"]).contains("ok"));
    service.terminate();
    let ended = service.ended();
    assert_eq!(ended.code, 0, "{ended:#?}");
    let gone = image.levin(&["health", &address]);
    assert!(gone.code == 2 && gone.stderr.contains("SERVICE_UNWELL"), "{gone:#?}");
}

#[test]
fn a_project_that_kubernetes_mounts_is_only_read() {
    let mut image = Image::new();
    image.runs(&["init", ".", "--example"]);
    let project = image.project.path().to_owned();
    // What is written stands elsewhere.
    fs::rename(project.join("warehouse.duckdb"), image.state.path().join("warehouse.duckdb"))
        .expect("move it");
    for (file, text) in [
        ("levin.yml", "name: example\nstore: ${LEVIN_STORE_ADDRESS}\n"),
        ("sources/warehouse.yml", "type: duckdb\npath: /state/warehouse.duckdb\n"),
        ("destinations/out.yml", "type: files\npath: /state/out\n"),
    ] {
        fs::write(project.join(file), text.replace("${LEVIN_STORE_ADDRESS}", "sqlite:///state/store.db"))
            .expect("write");
    }
    // Numbers are given where a person works.
    image.runs(&["check"]);
    // A ConfigMap's files are links into a folder that changes its name with every version.
    let version = project.join("..2026_11_21");
    fs::create_dir(&version).expect("a folder");
    symlink("..2026_11_21", project.join("..data")).expect("a link");
    for name in ["levin.yml", "levin.lock.yml", "sources", "models", "destinations", "syncs"] {
        fs::rename(project.join(name), version.join(name)).expect("move it");
        symlink(format!("..data/{name}"), project.join(name)).expect("a link");
    }
    image.may = "ro";
    let before = files_below(&project);
    image.runs(&["check"]);
    let ran = image.runs(&["run", "customers-to-files"]);
    assert!(ran.contains("1,000 rows accepted"), "{ran}");
    assert_eq!(files_below(&project), before, "something was written into the project");
    let lock = version.join("levin.lock.yml");
    let numbers = fs::read_to_string(&lock).expect("numbers").replace("customers-to-files", "another-sync");
    fs::write(&lock, numbers).expect("write it");
    let refused = image.levin(&["check"]);
    assert!(refused.code != 0 && refused.stderr.contains("levin.lock.yml"), "{refused:#?}");
}
