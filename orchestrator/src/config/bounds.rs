//! How much a file may ask for. A few lines can stand for more values than any memory holds, or for values
//! nested deeper than any stack: both are mistakes, told before anything is made of them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Error, ErrorKind, Read};
use std::path::Path;

use saphyr_parser::{Event, Parser};

/// The longest project file, and the longest file that one names, in bytes.
const LONGEST: u64 = 4 * 1024 * 1024;
/// The longest manifest of dbt: large projects write hundreds of megabytes.
pub(super) const LONGEST_MANIFEST: u64 = 2 * 1024 * 1024 * 1024;
/// How deep lists and mappings may stand in each other.
const DEEPEST: usize = 64;
/// What a file may become once its aliases are in place: bytes of text, and so many more for each value.
const LARGEST: usize = 8 * 1024 * 1024;
const PER_VALUE: usize = 64;

/// The text of a file that a project consists of.
///
/// # Errors
/// As those of reading; one that is longer than any project file is not read to its end.
pub(super) fn read(path: &Path) -> Result<String, Error> {
    read_up_to(path, LONGEST)
}

/// The text of a file of at most so many bytes.
pub(super) fn read_up_to(path: &Path, longest: u64) -> Result<String, Error> {
    let mut text = String::new();
    // The length that a file tells is not believed: a device tells none and never ends.
    File::open(path)?.take(longest + 1).read_to_string(&mut text)?;
    if text.len() as u64 > longest {
        let megabytes = longest / 1024 / 1024;
        return Err(Error::new(ErrorKind::FileTooLarge, format!("it is longer than {megabytes} MB")));
    }
    Ok(text)
}

/// Whether a text nests and grows no more than it may; else the line and what is wrong. What is no YAML passes:
/// the loader tells that better.
pub(super) fn check(text: &str) -> Result<(), (usize, String)> {
    let mut weight = 0_usize;
    let mut open: Vec<(usize, usize)> = Vec::new();
    let mut anchors: HashMap<usize, usize> = HashMap::new();
    for event in Parser::new_from_str(text) {
        let Ok((event, span)) = event else { return Ok(()) };
        let before = weight;
        match event {
            Event::Scalar(value, _, anchor, _) => {
                weight += PER_VALUE + value.len();
                anchors.insert(anchor, weight - before);
            }
            // An alias inside its own anchor stands for nothing.
            Event::Alias(anchor) => weight += PER_VALUE + anchors.get(&anchor).copied().unwrap_or_default(),
            Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _) => {
                open.push((anchor, weight));
                weight += PER_VALUE;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some((anchor, before)) = open.pop() {
                    anchors.insert(anchor, weight - before);
                }
            }
            _ => {}
        }
        let line = span.start.line();
        if open.len() > DEEPEST {
            return Err((line, format!("lists and mappings stand more than {DEEPEST} deep in each other")));
        }
        if weight > LARGEST {
            let megabytes = LARGEST / 1024 / 1024;
            return Err((
                line,
                format!("with its aliases in place the file would be larger than {megabytes} MB"),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    fn refused(text: &str) -> String {
        check(text).expect_err("it asks for too much").1
    }

    #[test]
    fn depth_ends_in_every_way_of_writing_it() {
        let deep = |before: &str, times: usize| format!("a:\n {}x\n", before.repeat(times));
        check(&deep("- ", 60)).unwrap();
        for text in [deep("- ", 100_000), deep("? ", 100_000), deep("[", 200), deep("{a: ", 200)] {
            assert!(refused(&text).contains("deep"));
        }
        let lines: String = (0..5_000).map(|n| format!("{}k:\n", " ".repeat(n))).collect();
        assert!(refused(&lines).contains("deep"));
    }

    /// Whether what an alias stands for is a value, a key, or one long text.
    #[test]
    fn aliases_are_weighed_with_what_they_stand_for() {
        let mut values = "a0: &a0 [x]\n".to_owned();
        let mut keys = "a0: &a0 {k: x}\n".to_owned();
        for level in 1..40 {
            let both = format!("*a{}, *a{}", level - 1, level - 1);
            writeln!(values, "a{level}: &a{level} [{both}]").unwrap();
            writeln!(keys, "a{level}: &a{level} {{? [{both}] : 1}}").unwrap();
        }
        let text = format!("a: &a {}\nb: [{}]\n", "x".repeat(1024 * 1024), "*a, ".repeat(1000));
        for text in [values, keys, text] {
            assert!(refused(&text).contains("aliases"));
        }
        check("a: &a [x, y]\nb: [*a, *a, {<<: {z: 1}}]\nc: &c [*c]\n").unwrap();
        check("not: [yaml\n").unwrap();
    }

    #[test]
    fn what_does_not_end_is_not_read_to_its_end() {
        let error = read(Path::new("/dev/zero")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FileTooLarge);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.yml");
        std::fs::write(&path, "a: 1\n").unwrap();
        assert_eq!(read(&path).unwrap(), "a: 1\n");
        assert_eq!(read_up_to(&path, 4).unwrap_err().kind(), ErrorKind::FileTooLarge);
    }
}
