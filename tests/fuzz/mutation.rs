//! Valid texts, spoiled.

/// Spoils a text in one place; for what is said of the rest see [`spoiled`].
pub fn nicked(random: &mut fastrand::Rng, text: &[u8], words: &[&str], others: &[&[u8]]) -> Vec<u8> {
    let mut bytes = text.to_vec();
    once(random, &mut bytes, words, others);
    bytes
}

/// Spoils a text in one to four places. `words` are put in where they hurt most; `others` lend their pieces.
pub fn spoiled(random: &mut fastrand::Rng, text: &[u8], words: &[&str], others: &[&[u8]]) -> Vec<u8> {
    let mut bytes = text.to_vec();
    for _ in 0..random.usize(1..=4) {
        once(random, &mut bytes, words, others);
    }
    bytes
}

fn once(random: &mut fastrand::Rng, bytes: &mut Vec<u8>, words: &[&str], others: &[&[u8]]) {
    let at = random.usize(..=bytes.len());
    let end = (at + random.usize(..=12)).min(bytes.len());
    match random.u8(..12) {
        0 => drop(bytes.drain(at..end)),
        1 => bytes.insert(at, random.u8(..)),
        2 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
        3 => {
            let piece = bytes[at..end].repeat(random.usize(1..=40));
            drop(bytes.splice(at..at, piece));
        }
        4 => bytes.truncate(at),
        5 => {
            let other = others[random.usize(..others.len())];
            let from = random.usize(..=other.len());
            let to = (from + random.usize(..=60)).min(other.len());
            drop(bytes.splice(at..end, other[from..to].iter().copied()));
        }
        6 | 7 => lines(random, bytes),
        // A word in place of a value: behind a colon, to the end of its line.
        8 | 9 => {
            let word = words[random.usize(..words.len())];
            let colons: Vec<usize> = (0..bytes.len().saturating_sub(1))
                .filter(|&i| bytes[i] == b':' && bytes[i + 1] == b' ')
                .collect();
            let Some(&colon) = random.choice(&colons) else { return };
            let line_end = bytes[colon..].iter().position(|&b| b == b'\n').map_or(bytes.len(), |n| colon + n);
            drop(bytes.splice(colon + 2..line_end, word.bytes()));
        }
        _ => {
            let word = words[random.usize(..words.len())];
            let until = if random.bool() { at } else { end };
            drop(bytes.splice(at..until, word.bytes()));
        }
    }
}

/// Doubles, drops, moves or indents a line.
fn lines(random: &mut fastrand::Rng, bytes: &mut Vec<u8>) {
    let mut lines: Vec<Vec<u8>> = bytes.split(|&b| b == b'\n').map(<[u8]>::to_vec).collect();
    let (at, to) = (random.usize(..lines.len()), random.usize(..lines.len()));
    match random.u8(..4) {
        0 => {
            let line = lines[at].clone();
            lines.insert(to, line);
        }
        1 => drop(lines.remove(at)),
        2 => lines.swap(at, to),
        _ => drop(lines[at].splice(..0, vec![b' '; random.usize(1..=6)])),
    }
    *bytes = lines.join(&b'\n');
}

/// A text of characters that are awkward somewhere.
pub fn awkward(random: &mut fastrand::Rng) -> String {
    const PIECES: &[&str] = &[
        "'",
        "\"",
        "\\",
        "\\\"",
        "\n",
        "\r",
        "\t",
        "{",
        "}",
        "{{",
        "}}",
        "{%",
        "%}",
        "{#",
        "[",
        "]",
        ",",
        ":",
        "/",
        "..",
        ".",
        "?",
        "#",
        "&",
        "=",
        "%",
        "%2e",
        "%2F",
        "+",
        "@",
        ";",
        "--",
        "$",
        "${X}",
        "<",
        ">",
        "null",
        "true",
        "1e999",
        "-0",
        "é",
        "\u{202e}",
        "\u{feff}",
        "\u{2028}",
        "\u{0}",
        "\u{1}",
        "\u{2}",
        "\u{7f}",
        "\u{1b}[31m",
        "\u{10ffff}",
        "a",
        "Z",
        "7",
        " ",
        "\",\"operation\":\"removed",
        "\u{2}\u{1}",
        "\"}]}",
        "{{ row }}",
    ];
    (0..random.usize(1..=6)).map(|_| PIECES[random.usize(..PIECES.len())]).collect()
}
