//! A pseudo-terminal, for what only shows on one.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// Runs a command whose standard output and standard error are a terminal of 100 columns, and returns
/// its exit code (-1 when a signal ended it) with everything that the terminal was sent.
///
/// # Panics
/// When there is no terminal or no such command.
pub fn run(mut command: Command) -> (i32, String) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
    grantpt(&ours).expect("access to the terminal");
    unlockpt(&ours).expect("unlock the terminal");
    let name = ptsname(&ours, Vec::new()).expect("the terminal's name");
    let name = Path::new(std::ffi::OsStr::from_bytes(name.as_bytes()));
    let theirs = OpenOptions::new().read(true).write(true).open(name).expect("open the terminal");
    tcsetwinsize(&theirs, Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 }).expect("a size");
    command.stdout(Stdio::from(theirs.try_clone().expect("its output"))).stderr(Stdio::from(theirs));
    let mut child = command.spawn().expect("start the command");
    // With the command goes our side's copy of its end; the terminal then ends with the process.
    drop(command);
    let mut ours = File::from(ours);
    let (mut screen, mut bytes) = (Vec::new(), [0; 4096]);
    // Linux reports the end of a terminal as an error.
    while let Ok(length @ 1..) = ours.read(&mut bytes) {
        screen.extend_from_slice(&bytes[..length]);
    }
    let status = child.wait().expect("its end");
    (status.code().unwrap_or(-1), String::from_utf8_lossy(&screen).into_owned())
}
