//! Where quotes and comments begin and end, by the rules of GoogleSQL, BigQuery's language.
//!
//! They differ from PostgreSQL's (lexer.rs) in that both kinds of quotes hold text, three of them hold several lines, a
//! backslash takes the next character with it in every text and name, raw ones included, and `#` begins a comment.

/// The first byte of everything that is neither white space nor comment, with its offset. A quoted text or name is one
/// such thing. Fails on what is never closed.
pub(crate) fn meaningful(text: &str) -> Result<Vec<(usize, u8)>, &'static str> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let rest = &bytes[at..];
        let start = at;
        at = match byte {
            b'#' => {
                at += line(rest);
                continue;
            }
            b'-' if rest.starts_with(b"--") => {
                at += line(rest);
                continue;
            }
            b'/' if rest.starts_with(b"/*") => {
                let body = &rest[2..];
                let end = body.windows(2).position(|w| w == b"*/").ok_or("a `/*` is never closed")?;
                if body[..end].windows(2).any(|w| w == b"/*") {
                    return Err("a comment holds another `/*`; take it out");
                }
                at += end + 4;
                continue;
            }
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => {
                at += 1;
                continue;
            }
            b'\'' | b'"' if rest.starts_with(&[byte; 3]) => {
                at + quoted(rest, &[byte; 3], true).ok_or("a text in three quotes is never closed")?
            }
            b'\'' => at + quoted(rest, b"'", false).ok_or("a `'` is never closed")?,
            b'"' => at + quoted(rest, b"\"", false).ok_or("a `\"` is never closed")?,
            b'`' => at + quoted(rest, b"`", false).ok_or("a backtick is never closed")?,
            _ => at + 1,
        };
        found.push((start, byte));
    }
    Ok(found)
}

fn line(text: &[u8]) -> usize {
    text.iter().position(|b| matches!(b, b'\n' | b'\r')).unwrap_or(text.len())
}

/// The length of a quoted text or name, its quotes included; one of several lines only in three quotes.
fn quoted(text: &[u8], quote: &[u8], lines: bool) -> Option<usize> {
    let mut at = quote.len();
    loop {
        match *text.get(at)? {
            b'\\' => at += 2,
            b'\n' | b'\r' if !lines => return None,
            _ if text[at..].starts_with(quote) => return Some(at + quote.len()),
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Result<String, &'static str> {
        meaningful(text).map(|found| found.iter().map(|(_, byte)| char::from(*byte)).collect())
    }

    #[test]
    fn texts_names_and_comments_hide_what_is_in_them() {
        for (text, expected) in [
            ("a ';' b", "a'b"),
            ("a \";\" `;` b", "a\"`b"),
            (r"'it\'s ;' x", "'x"),
            (r"r'\' ;' x", "r'x"),
            (r"'\\' ;", "';"),
            ("''';' ''\n;''' x", "'x"),
            ("\"\"\"; \" \"\" \"\"\" x", "\"x"),
            ("'' ; ''", "';'"),
            ("a # ; '\nb", "ab"),
            ("a -- ; '\nb", "ab"),
            ("a /* ; ' */ b", "ab"),
            (r"`a\`;` b", "`b"),
            ("$$;$$", "$$;$$"),
        ] {
            assert_eq!(tokens(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_never_closed_is_refused() {
        for text in [
            "'",
            "\"",
            "`",
            "'''",
            "''''",
            "'\\'",
            "r'\\'",
            "/*",
            "/* /* */",
            "'a\nb'",
            "`a\n`",
            "\"\"\"\"\"",
            "'''\\'''",
        ] {
            assert!(tokens(text).is_err(), "{text}");
        }
    }
}
