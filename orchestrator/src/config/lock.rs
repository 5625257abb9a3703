//! `levin.lock.yml`: the project's uuid and the number of every object, given once and kept.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use uuid::Uuid;

use super::schema::Kind;
use super::yaml::{self, Node, Tree};
use crate::error::{Error, ErrorCode};

/// The file's name.
pub const FILE: &str = "levin.lock.yml";

const HEAD: &str = "\
# Written by levin; commit it with the project. It binds every object to its number, and with the
# number to its snapshot. To rename an object write `renamed_from:` into its file, never edit here.
";

/// The numbers of a project's objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lock {
    pub(super) project: Uuid,
    /// The number that the next object of each kind gets; numbers are never used again.
    next: BTreeMap<Kind, i64>,
    ids: BTreeMap<Kind, BTreeMap<String, i64>>,
}

/// What became of a `renamed_from`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Renaming {
    /// The number moved, or had moved before, or there was nothing to rename.
    Settled,
    /// No object of the old slug ever had a number.
    Unknown,
    /// A file has the old slug: two objects cannot share one number.
    InUse,
    /// Both slugs have a number and no file has the old slug: which one is meant cannot be known.
    Ambiguous,
}

impl Lock {
    /// The lock of a project that has none yet.
    pub(super) fn new() -> Self {
        Self { project: Uuid::new_v4(), next: BTreeMap::new(), ids: BTreeMap::new() }
    }

    /// Reads the file; `None` when there is none.
    pub(super) fn read(root: &Path) -> Result<Option<Self>, Error> {
        match super::bounds::read(&root.join(FILE)) {
            Ok(text) => Self::parse(&text).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(invalid(1, format!("`{FILE}` cannot be read: {error}"))),
        }
    }

    fn parse(text: &str) -> Result<Self, Error> {
        let node = yaml::parse(text).map_err(|error| {
            let refused = invalid(error.line, error.message);
            match error.hint {
                Some(hint) => refused.hint(hint),
                None => refused,
            }
        })?;
        let known = |key: &str| key == "project" || key == "next" || kind_of(key).is_some();
        if let Some(entry) = node.entries().iter().find(|entry| !known(&entry.key)) {
            return Err(invalid(entry.key_line, format!("unknown key `{}`", entry.key)));
        }
        let line = node.line_of("project");
        let project = node
            .text("project")
            .and_then(|text| Uuid::parse_str(text).ok())
            .ok_or_else(|| invalid(line, "`project` is no uuid".to_owned()))?;
        let mut lock = Self { project, next: BTreeMap::new(), ids: BTreeMap::new() };
        if let Some(entry) = node.entry("next") {
            for (kind, line, number) in numbers(&entry.value, "next")? {
                let kind = kind_of(&kind).ok_or_else(|| invalid(line, format!("unknown kind `{kind}`")))?;
                lock.next.insert(kind, number);
            }
        }
        for kind in Kind::OBJECTS.into_iter().filter(|kind| kind.is_numbered()) {
            let Some(entry) = node.entry(kind.folder()) else { continue };
            let mut holders: BTreeMap<i64, String> = BTreeMap::new();
            let next = lock.next.get(&kind).copied().unwrap_or(1);
            for (slug, line, id) in numbers(&entry.value, kind.folder())? {
                if let Some(other) = holders.get(&id) {
                    return Err(invalid(
                        line,
                        format!("the {}s `{other}` and `{slug}` both have the id {id}", kind.name()),
                    ));
                }
                if id >= next {
                    return Err(invalid(
                        line,
                        format!(
                            "the {} `{slug}` has the id {id}, which was never given out (next is {next})",
                            kind.name()
                        ),
                    ));
                }
                holders.insert(id, slug.clone());
                lock.ids.entry(kind).or_default().insert(slug, id);
            }
        }
        Ok(lock)
    }

    /// The number of an object; a new one when it has none.
    pub(super) fn id(&mut self, kind: Kind, slug: &str) -> i64 {
        let ids = self.ids.entry(kind).or_default();
        if let Some(id) = ids.get(slug) {
            return *id;
        }
        let next = self.next.entry(kind).or_insert(1);
        let id = *next;
        *next += 1;
        ids.insert(slug.to_owned(), id);
        id
    }

    /// Moves the number of an object to its new slug. `old_in_use` tells whether a file of the
    /// project has the old slug now.
    pub(super) fn rename(&mut self, kind: Kind, old: &str, new: &str, old_in_use: bool) -> Renaming {
        let ids = self.ids.entry(kind).or_default();
        match (ids.get(old).copied(), ids.contains_key(new)) {
            (_, true) if old_in_use => Renaming::Settled,
            (Some(_), true) => Renaming::Ambiguous,
            (None, true) => Renaming::Settled,
            (None, false) => Renaming::Unknown,
            (Some(_), false) if old_in_use => Renaming::InUse,
            (Some(id), false) => {
                ids.remove(old);
                ids.insert(new.to_owned(), id);
                Renaming::Settled
            }
        }
    }

    /// The file's text: sorted, so that two machines write the same.
    fn text(&self) -> String {
        let mut text = format!("{HEAD}project: {}\nnext:\n", self.project);
        // Writing into a String cannot fail.
        for (kind, next) in &self.next {
            let _ = writeln!(text, "  {}: {next}", kind.folder());
        }
        if self.next.is_empty() {
            text.truncate(text.len() - "next:\n".len());
        }
        for (kind, ids) in &self.ids {
            if ids.is_empty() {
                continue;
            }
            let _ = writeln!(text, "{}:", kind.folder());
            for (slug, id) in ids {
                let _ = writeln!(text, "  {}: {id}", key(slug));
            }
        }
        text
    }

    /// Writes the file beside the old one and moves it into place, so that a reader never sees half of it.
    pub(super) fn write(&self, root: &Path) -> Result<(), Error> {
        let path = root.join(FILE);
        let beside = root.join(format!(".{FILE}.{}", std::process::id()));
        let written = std::fs::File::create(&beside)
            .and_then(|mut file| file.write_all(self.text().as_bytes()).and_then(|()| file.sync_all()))
            .and_then(|()| std::fs::rename(&beside, &path));
        written.map_err(|error| {
            // Leaving the half-written neighbour would only puzzle; the error to report is the first.
            let _ = std::fs::remove_file(&beside);
            Error::new(ErrorCode::LockFileInvalid, format!("`{FILE}` cannot be written: {error}"))
                .hint("run `levin check` where the folder is writable and commit the file")
        })
    }
}

fn invalid(line: usize, message: String) -> Error {
    Error::new(ErrorCode::LockFileInvalid, message).at(FILE, line)
}

fn kind_of(folder: &str) -> Option<Kind> {
    Kind::OBJECTS.into_iter().find(|kind| kind.is_numbered() && kind.folder() == folder)
}

/// The entries of a mapping of numbers, with their lines.
fn numbers(node: &Node, name: &str) -> Result<Vec<(String, usize, i64)>, Error> {
    if !matches!(node.tree, Tree::Map(_)) {
        return Err(invalid(node.line, format!("`{name}` is no mapping of numbers")));
    }
    node.entries()
        .iter()
        .map(|entry| match entry.value.tree {
            Tree::Integer(number) if number >= 1 => Ok((entry.key.clone(), entry.key_line, number)),
            _ => Err(invalid(entry.key_line, format!("`{name}.{}` is no positive number", entry.key))),
        })
        .collect()
}

/// A slug as a key that reads back as the same text.
fn key(slug: &str) -> String {
    let plain =
        yaml::parse(slug).is_ok_and(|node| matches!(node.tree, Tree::Text(text) if text.written == slug));
    if plain { slug.to_owned() } else { format!("\"{slug}\"") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_given_once_kept_and_never_used_again() {
        let mut lock = Lock::new();
        assert_eq!(lock.id(Kind::Sync, "b"), 1);
        assert_eq!(lock.id(Kind::Sync, "a"), 2);
        assert_eq!(lock.id(Kind::Model, "a"), 1);
        assert_eq!(lock.id(Kind::Sync, "b"), 1);
        assert_eq!(lock.rename(Kind::Sync, "a", "c", false), Renaming::Settled);
        assert_eq!(lock.id(Kind::Sync, "c"), 2);
        assert_eq!(lock.id(Kind::Sync, "a"), 3, "a new object under the old name is another object");
    }

    #[test]
    fn a_renaming_that_stays_in_the_file_does_no_harm() {
        let mut lock = Lock::new();
        lock.id(Kind::Sync, "old");
        assert_eq!(lock.rename(Kind::Sync, "old", "new", false), Renaming::Settled);
        let moved = lock.clone();
        assert_eq!(lock.rename(Kind::Sync, "old", "new", false), Renaming::Settled);
        assert_eq!(lock, moved);
        assert_eq!(lock.rename(Kind::Sync, "nobody", "other", false), Renaming::Unknown);
        lock.id(Kind::Sync, "old");
        assert_eq!(lock.rename(Kind::Sync, "old", "new", true), Renaming::Settled);
        assert_eq!(lock.rename(Kind::Sync, "old", "third", true), Renaming::InUse);
        assert_eq!(lock.rename(Kind::Sync, "old", "new", false), Renaming::Ambiguous);
    }

    #[test]
    fn what_is_written_reads_back_the_same_even_for_odd_slugs() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Lock::read(folder.path()).unwrap(), None);
        let mut lock = Lock::new();
        for slug in ["z", "007", "1e3", "true", "True", "null", "no", "a.b", "0x1F", "1.0"] {
            lock.id(Kind::Sync, slug);
        }
        lock.id(Kind::Source, "wh");
        lock.write(folder.path()).unwrap();
        assert_eq!(Lock::read(folder.path()).unwrap(), Some(lock.clone()));
        let first = std::fs::read_to_string(folder.path().join(FILE)).unwrap();
        lock.write(folder.path()).unwrap();
        assert_eq!(std::fs::read_to_string(folder.path().join(FILE)).unwrap(), first);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside the file");
        Lock::new().write(folder.path()).unwrap();
        assert!(Lock::read(folder.path()).unwrap().is_some());
    }

    #[test]
    fn contradictions_are_refused_with_their_line() {
        let head = "project: 6f2d7b9e-3f43-4f0e-9a3a-0d3d0c1b2a11\nnext: {syncs: 3}\n";
        for (text, line, words) in [
            (format!("{head}syncs:\n  a: 1\n  b: 1\n"), 5, "both have the id 1"),
            (format!("{head}syncs:\n  a: 1\n  b: 3\n"), 5, "never given out"),
            (format!("{head}models:\n  a: 1\n"), 4, "never given out"),
            (format!("{head}syncs:\n  a: 1\n  a: 2\n"), 5, "twice"),
            (format!("{head}syncs:\n  a: x\n"), 4, "no positive number"),
            (format!("{head}syncs: [a]\n"), 3, "no mapping"),
            (format!("{head}sinks:\n  a: 1\n"), 3, "unknown key `sinks`"),
            (
                format!("{head}syncs:\n<<<<<<< HEAD\n  a: 1\n=======\n  b: 1\n>>>>>>> x\n"),
                4,
                "merge conflict",
            ),
            ("project: nonsense\n".to_owned(), 1, "no uuid"),
            (String::new(), 1, "empty"),
        ] {
            let error = Lock::parse(&text).unwrap_err();
            assert_eq!(error.code, ErrorCode::LockFileInvalid);
            assert!(error.message.contains(words), "{text}: {error}");
            assert_eq!(error.place.unwrap().line, line, "{text}");
        }
    }
}
