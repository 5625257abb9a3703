//! The tree as the rules see it: which files there are, and what in a Rust file is code, what text.

use std::fs;
use std::path::{Path, PathBuf};

/// The root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_owned()
}

/// Every file below a folder of the workspace whose name ends so, as paths from the workspace's root
/// with `/`, in order. What tools leave behind is passed over.
pub fn files(folder: &str, ending: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.expect("the folder can be read").path();
            let name = path.file_name().expect("it has a name").to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if name.ends_with(ending) {
                let path =
                    path.strip_prefix(root()).expect("lies below the root").to_string_lossy().into_owned();
                found.push(path.replace('\\', "/"));
            }
        }
    }
    found.sort();
    found
}

/// A file's text.
pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Whether the whole file is there for tests only.
pub fn is_test_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    path.starts_with("tests/")
        || path.contains("/tests/")
        || name == "tests.rs"
        || name.ends_with("_tests.rs")
}

/// A Rust file, taken apart.
pub struct Source {
    /// The text with comments and the insides of literals blanked; every line keeps its number.
    pub code: String,
    /// String literals: the line where each begins, and what it says.
    pub strings: Vec<(usize, String)>,
}

impl Source {
    /// Takes a file apart. With `shipped`, what follows an inline `#[cfg(test)] mod` is left out: it
    /// stands at the end of a file here.
    pub fn of(path: &str, shipped: bool) -> Self {
        let text = read(path);
        let source = Self::parse(&text);
        let end = source.code.lines().collect::<Vec<_>>().windows(2).position(|pair| {
            pair[0].trim() == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{')
        });
        match end {
            Some(end) if shipped => Self {
                code: source.code.lines().take(end).collect::<Vec<_>>().join("\n"),
                strings: source.strings.into_iter().filter(|(line, _)| *line <= end).collect(),
            },
            _ => source,
        }
    }

    /// The lines of code that satisfy a question, numbered from 1.
    pub fn lines_where(&self, asked: impl Fn(&str) -> bool) -> Vec<usize> {
        self.code.lines().enumerate().filter(|(_, line)| asked(line)).map(|(n, _)| n + 1).collect()
    }

    fn parse(text: &str) -> Self {
        let chars: Vec<char> = text.chars().collect();
        let (mut code, mut strings) = (String::with_capacity(text.len()), Vec::new());
        let (mut at, mut line) = (0, 1);
        let starts =
            |at: usize, word: &str| word.chars().enumerate().all(|(i, c)| chars.get(at + i) == Some(&c));
        let in_word = |at: usize| at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
        while at < chars.len() {
            let from = at;
            if starts(at, "//") {
                while at < chars.len() && chars[at] != '\n' {
                    at += 1;
                }
            } else if starts(at, "/*") {
                let mut depth = 0;
                loop {
                    if starts(at, "/*") {
                        (depth, at) = (depth + 1, at + 2);
                    } else if starts(at, "*/") {
                        (depth, at) = (depth - 1, at + 2);
                    } else {
                        at += 1;
                    }
                    if depth == 0 || at >= chars.len() {
                        break;
                    }
                }
            } else if let Some(hashes) = raw_string(&chars, at).filter(|_| !in_word(at)) {
                at += chars[at..].iter().position(|c| *c == '"').expect("was seen") + 1;
                let begin = at;
                let close: String = format!("\"{}", "#".repeat(hashes));
                while at < chars.len() && !starts(at, &close) {
                    at += 1;
                }
                strings.push((line, chars[begin..at].iter().collect()));
                at += close.len();
            } else if chars[at] == '"' {
                at += 1;
                let begin = at;
                while at < chars.len() && chars[at] != '"' {
                    at += if chars[at] == '\\' { 2 } else { 1 };
                }
                strings.push((line, chars[begin..at.min(chars.len())].iter().collect()));
                at += 1;
            } else if chars[at] == '\''
                && (chars.get(at + 1) == Some(&'\\') || chars.get(at + 2) == Some(&'\''))
            {
                // A character; a lifetime has no closing mark.
                at += if chars[at + 1] == '\\' { 3 } else { 2 };
                while at < chars.len() && chars[at] != '\'' {
                    at += 1;
                }
                at += 1;
            } else {
                code.push(chars[at]);
                line += usize::from(chars[at] == '\n');
                at += 1;
                continue;
            }
            for c in &chars[from..at.min(chars.len())] {
                code.push(if *c == '\n' { '\n' } else { ' ' });
                line += usize::from(*c == '\n');
            }
        }
        Self { code, strings }
    }
}

/// The number of `#` of the raw string that begins here, if one does.
fn raw_string(chars: &[char], at: usize) -> Option<usize> {
    let at = if chars[at] == 'b' { at + 1 } else { at };
    if chars.get(at) != Some(&'r') {
        return None;
    }
    let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
    (chars.get(at + 1 + hashes) == Some(&'"')).then_some(hashes)
}

#[test]
fn code_and_text_are_told_apart() {
    let source = Source::parse(
        "fn a<'x>(c: char) { // \"no\"\n let s = \"one \\\" // two\"; /* \"no\" /* \n */ */ let q = '\"';\n \
         let r = r#\"a \"quoted\" b\"#; let t = b\"x\"; let u = '\\''; call(\"end\") }",
    );
    let strings: Vec<_> = source.strings.iter().map(|(line, text)| (*line, text.as_str())).collect();
    assert_eq!(strings, [(2, "one \\\" // two"), (4, "a \"quoted\" b"), (4, "x"), (4, "end")]);
    assert!(source.code.contains("fn a<'x>(c: char)") && source.code.contains("call("));
    assert!(!source.code.contains("no") && !source.code.contains("quoted"));
    assert_eq!(source.code.lines().count(), 4);
}
