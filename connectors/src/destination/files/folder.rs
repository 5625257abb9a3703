//! The folder that receives files: nothing outside it is ever written, and a file in it appears
//! complete or not at all.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The end of the name of a file that is being written.
const PARTIAL: &str = ".partial";

/// The most bytes of a file's own name that its partial file repeats: names end at 255 bytes.
const MAX_REPEATED_BYTES: usize = 150;

/// An open folder. Everything happens relative to its descriptor, so that nobody can move the
/// writing elsewhere by replacing a part of the path.
#[derive(Debug)]
pub(super) struct Folder {
    descriptor: OwnedFd,
    path: PathBuf,
}

/// A file's place below a [`Folder`]: sub-folders and a name, none of which leads out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    parts: Vec<String>,
}

/// A file that is being written and that no reader takes for a file of its own. Dropping it
/// removes it.
#[derive(Debug)]
pub(super) struct Partial {
    folder: Arc<Folder>,
    name: String,
    file: File,
    published: bool,
}

/// Why a finished file did not appear, or is not known to last.
#[derive(Debug)]
pub(super) enum PublishError {
    /// Nothing appeared.
    Failed(io::Error),
    /// A file of that name is there already, and stays.
    Exists,
    /// The file stands under its name, and a power cut may still undo that.
    NotDurable(io::Error),
}

impl Place {
    /// Takes a relative path of plain names separated by `/`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<String> = text.split('/').map(str::to_owned).collect();
        for part in &parts {
            let problem = match part.as_str() {
                "" if text.starts_with('/') => "is absolute; it must be relative to the destination's folder",
                "" => "has an empty part",
                "." | ".." => "leads out of the folder with a `.` or `..` part",
                p if p.chars().any(char::is_control) => "holds a control character",
                p if p.len() > 255 => "has a part longer than 255 bytes",
                _ => continue,
            };
            return Err(format!("the file name {text:?} {problem}"));
        }
        // Hidden names belong to files that are being written.
        if parts.last().is_none_or(|name| name.starts_with('.')) {
            return Err(format!("the file name {text:?} begins with a dot"));
        }
        Ok(Self { parts })
    }

    /// The path, relative to where files go.
    pub(super) fn path(&self) -> String {
        self.parts.join("/")
    }

    fn name(&self) -> &str {
        self.parts.last().map_or("", String::as_str)
    }
}

impl Folder {
    /// Opens the folder, making it first where it is missing.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        let path = path.canonicalize()?;
        let descriptor = rustix::fs::open(&path, DIRECTORY, Mode::empty())?;
        Ok(Self { descriptor, path })
    }

    /// Removes what runs of this sync that died left behind. A file that a living process still
    /// writes is locked by it and stays.
    pub(super) fn remove_leftovers(&self, sync_id: i64) -> io::Result<()> {
        for entry in rustix::fs::Dir::read_from(&self.descriptor)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if !name.to_str().is_some_and(|n| is_partial_of(n, sync_id)) {
                continue;
            }
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let Ok(leftover) = rustix::fs::openat(&self.descriptor, name, flags, Mode::empty()) else {
                continue;
            };
            if rustix::fs::flock(&leftover, FlockOperation::NonBlockingLockExclusive).is_ok() {
                tracing::info!(folder = %self.path.display(), file = ?name, "removing what a dead run left");
                rustix::fs::unlinkat(&self.descriptor, name, AtFlags::empty())?;
            }
        }
        Ok(())
    }

    /// Begins a file for a run. It stands, hidden, in the folder itself, so that leftovers are
    /// found there whatever sub-folders the finished files go to.
    pub(super) fn begin(
        self: &Arc<Self>,
        place: &Place,
        sync_id: i64,
        run_id: i64,
        generation: i64,
    ) -> io::Result<Partial> {
        let mut end = place.name().len().min(MAX_REPEATED_BYTES);
        while !place.name().is_char_boundary(end) {
            end -= 1;
        }
        let name = format!(".{}.s{sync_id}.{run_id}-{generation}{PARTIAL}", &place.name()[..end]);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.descriptor, &name, flags, Mode::from_raw_mode(0o666))?;
        // Held until the file is closed, however the process ends. Where a file system knows no
        // locks there is nothing to hold, and nothing lost but a leftover that stays.
        let _ = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
        Ok(Partial { folder: self.clone(), name, file: File::from(file), published: false })
    }

    /// The sub-folder in which a file goes, made where it is missing. Symbolic links are not followed.
    fn parent_of(&self, place: &Place) -> io::Result<OwnedFd> {
        let mut parent = self.descriptor.try_clone()?;
        for part in &place.parts[..place.parts.len() - 1] {
            match rustix::fs::mkdirat(&parent, part.as_str(), Mode::from_raw_mode(0o777)) {
                Ok(()) => rustix::fs::fsync(&parent)?,
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            parent = rustix::fs::openat(&parent, part.as_str(), DIRECTORY, Mode::empty()).map_err(|error| {
                match error {
                    Errno::LOOP | Errno::NOTDIR => io::Error::new(
                        io::ErrorKind::NotADirectory,
                        format!("{part} is a symbolic link or no folder; links below the destination's folder are not followed"),
                    ),
                    error => error.into(),
                }
            })?;
        }
        Ok(parent)
    }
}

impl Partial {
    /// Writes `bytes` at `offset`, over whatever an attempt that nobody waited for may have written there.
    pub(super) fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    /// Makes the first `length` bytes appear under their name, lastingly. With `replace` a file of
    /// that name gives way at once, else it stays and nothing appears.
    pub(super) fn publish(mut self, place: &Place, length: u64, replace: bool) -> Result<(), PublishError> {
        let parent = (|| {
            self.file.set_len(length)?;
            self.file.sync_all()?;
            self.folder.parent_of(place)
        })()
        .map_err(PublishError::Failed)?;
        let (from, to) = (self.folder.descriptor.as_fd(), parent.as_fd());
        let renamed = if replace {
            rustix::fs::renameat(from, &self.name, to, place.name())
        } else {
            rename_without_replacing(from, &self.name, to, place.name())
        };
        renamed.map_err(|error| match error {
            Errno::EXIST => PublishError::Exists,
            error => PublishError::Failed(error.into()),
        })?;
        self.published = true;
        rustix::fs::fsync(&parent)
            .and_then(|()| rustix::fs::fsync(&self.folder.descriptor))
            .map_err(|error| PublishError::NotDurable(error.into()))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.published
            && let Err(error) =
                rustix::fs::unlinkat(&self.folder.descriptor, self.name.as_str(), AtFlags::empty())
        {
            tracing::warn!(folder = %self.folder.path.display(), file = self.name, %error,
                "an unfinished file could not be removed; the next run of its sync tries again");
        }
    }
}

/// Renames, or says `EXIST`. File systems that cannot do both in one step get a hard link instead.
fn rename_without_replacing<A: AsFd, B: AsFd>(from: A, old: &str, to: B, new: &str) -> Result<(), Errno> {
    match rustix::fs::renameat_with(&from, old, &to, new, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            rustix::fs::linkat(&from, old, &to, new, AtFlags::empty())?;
            rustix::fs::unlinkat(&from, old, AtFlags::empty())
        }
        result => result,
    }
}

fn is_partial_of(name: &str, sync_id: i64) -> bool {
    let Some(rest) = name.strip_prefix('.').and_then(|n| n.strip_suffix(PARTIAL)) else { return false };
    let mut parts = rest.rsplitn(3, '.');
    let numbers = parts.next().and_then(|run| run.split_once('-'));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let own = parts.next().is_some_and(|sync| sync == format!("s{sync_id}"));
    own && parts.next().is_some()
        && numbers.is_some_and(|(run, generation)| digits(run) && digits(generation))
}

/// The absolute path of a folder that may not exist yet, links resolved as far as they exist.
pub(super) fn canonical(path: &Path) -> PathBuf {
    let mut missing = Vec::new();
    let mut existing = path;
    loop {
        if let Ok(mut resolved) = existing.canonicalize() {
            for part in missing.iter().rev() {
                match part {
                    Component::ParentDir => _ = resolved.pop(),
                    Component::Normal(name) => resolved.push(name),
                    _ => {}
                }
            }
            return resolved;
        }
        let Some(last) = existing.components().next_back() else { return path.to_owned() };
        missing.push(last);
        existing = existing.parent().unwrap_or(Path::new(""));
        if existing.as_os_str().is_empty() {
            existing = Path::new(".");
        }
    }
}

/// Whether files can be made in the folder, or the folder itself where it is missing. Changes nothing.
pub(super) fn writable(path: &Path) -> io::Result<()> {
    let mut existing = path;
    loop {
        match existing.metadata() {
            Ok(found) if !found.is_dir() => {
                return Err(io::Error::new(
                    io::ErrorKind::NotADirectory,
                    format!("{} is no folder", existing.display()),
                ));
            }
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                existing = match existing.parent() {
                    Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
                    Some(parent) => parent,
                    None => return Err(error),
                };
            }
            Err(error) => return Err(error),
        }
    }
    let wanted = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    rustix::fs::accessat(rustix::fs::CWD, existing, wanted, AtFlags::EACCESS)?;
    Ok(())
}
