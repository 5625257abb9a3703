//! Where quotes and comments begin and end, by the rules of PostgreSQL's lexer, which DuckDB shares, and by what a
//! dialect's facts say where it differs.
//!
//! `sqlparser` differs from it in corners (`E'\''` in DuckDB, `+--`), and what one takes for text and
//! the other for SQL is a way out of the parentheses around a model.

use crate::dialect::Lexing;

/// The first byte of everything that is neither white space nor comment, with its offset. A quoted
/// text is one such thing. Fails on what is never closed.
pub(crate) fn meaningful(text: &str, lexing: Lexing) -> Result<Vec<(usize, u8)>, &'static str> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let rest = &bytes[at..];
        let start = at;
        at = match byte {
            b'#' if lexing.hash_comments => {
                at += rest.iter().position(|b| matches!(b, b'\n' | b'\r')).unwrap_or(rest.len());
                continue;
            }
            b'-' | b'/' if begins_comment(rest, lexing) => {
                let length = rest.iter().position(|b| matches!(b, b'\n' | b'\r')).unwrap_or(rest.len());
                if lexing.spark && rest[..length].ends_with(b"\\") {
                    return Err("a `--` comment ends with a backslash, which lets it go on; take that out");
                }
                at += length;
                continue;
            }
            b'/' if rest.starts_with(b"/*") => {
                if lexing.versioned_comments && matches!(&rest[2..], [b'!', ..] | [b'M', b'!', ..]) {
                    return Err(
                        "it holds a `/*! … */`, which the server executes; write it out or take it out",
                    );
                }
                at += block_comment(rest)?;
                continue;
            }
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => {
                at += 1;
                continue;
            }
            b'\'' | b'"' if lexing.spark && is_prefix(&bytes[..at], b'r') => {
                let end = at + quoted(rest, byte, false).ok_or("a text is never closed")?;
                if bytes[at..end].contains(&b'\\') {
                    return Err(
                        "an `r'…'` literal holds a backslash; write it without the r, with two backslashes",
                    );
                }
                end
            }
            b'\'' => {
                let prefixed = is_prefix(&bytes[..at], b'e');
                let escapes = lexing.backslashes || prefixed;
                let end = at + quoted(rest, b'\'', escapes).ok_or("a `'` is never closed")?;
                // A literal may go on after a line end, and then its backslashes are escapes too.
                if prefixed && text[end..].trim_start().starts_with('\'') {
                    return Err("an `E'…'` literal goes on in another one; write them as one");
                }
                end
            }
            // Beside backticks they quote texts.
            b'"' => {
                at + quoted(rest, b'"', lexing.backslashes && lexing.backticks)
                    .ok_or("a `\"` is never closed")?
            }
            b'`' if lexing.backticks => at + quoted(rest, b'`', false).ok_or("a backtick is never closed")?,
            b'$' if lexing.dollar_quotes && !ends_in_name(&bytes[..at]) => {
                match dollar_tag(rest, lexing.dollar_names) {
                    Some(tag) => {
                        let body = at + tag.len();
                        let end = bytes[body..].windows(tag.len()).position(|w| w == tag);
                        body + end.ok_or("a `$…$` is never closed")? + tag.len()
                    }
                    None => at + 1,
                }
            }
            _ => at + 1,
        };
        found.push((start, byte));
    }
    Ok(found)
}

fn begins_comment(text: &[u8], lexing: Lexing) -> bool {
    match text {
        [b'-', b'-', after, ..] if lexing.spaced_dashes => after.is_ascii_whitespace() || *after < b' ',
        [b'-', b'-', ..] => true,
        [b'/', b'/', ..] => lexing.slash_comments,
        _ => false,
    }
}

/// The length of a quoted text, both quotes included.
fn quoted(text: &[u8], quote: u8, escapes: bool) -> Option<usize> {
    let mut at = 1;
    loop {
        match (*text.get(at)?, text.get(at + 1)) {
            (b'\\', _) if escapes => at += 2,
            (byte, Some(&next)) if byte == quote && next == quote => at += 2,
            (byte, _) if byte == quote => return Some(at + 1),
            _ => at += 1,
        }
    }
}

/// The length of a comment. Engines differ on whether a `/*` inside begins another one.
fn block_comment(text: &[u8]) -> Result<usize, &'static str> {
    let body = &text[2..];
    let end = body.windows(2).position(|w| w == b"*/").ok_or("a `/*` is never closed")?;
    if body[..end].windows(2).any(|w| w == b"/*") {
        return Err("a comment holds another `/*`; take it out");
    }
    Ok(end + 4)
}

/// `$$` or `$tag$`; `$$` alone where a name behind a dollar is a variable.
fn dollar_tag(text: &[u8], names: bool) -> Option<&[u8]> {
    let end = 1 + text[1..].iter().position(|b| *b == b'$')?;
    if names && end > 1 {
        return None;
    }
    let tag = &text[1..end];
    let is_tag =
        tag.iter().all(|b| is_name(*b) && *b != b'$') && !tag.first().is_some_and(u8::is_ascii_digit);
    is_tag.then_some(&text[..=end])
}

fn is_prefix(before: &[u8], letter: u8) -> bool {
    matches!(before, [name @ .., last] if last.eq_ignore_ascii_case(&letter) && !ends_in_name(name))
}

fn ends_in_name(text: &[u8]) -> bool {
    text.last().is_some_and(|b| is_name(*b))
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}
