//! Keeps secrets out of everything that is printed.

use std::sync::{Arc, PoisonError, RwLock};

/// What stands where a secret stood.
pub const REDACTED: &str = "•••";

/// The shortest text that counts as a secret: shorter ones would blacken ordinary words.
const SHORTEST: usize = 4;

/// The shortest line of a secret of several lines that is looked for by itself.
const SHORTEST_LINE: usize = 16;

/// Every secret text known to the process. Clones share what they know, so that a secret found
/// while a project is loaded is hidden from a log that was opened before.
#[derive(Clone, Default)]
pub struct Redactor {
    /// Longest first, so that a secret inside another does not leave the rest of it readable.
    texts: Arc<RwLock<Vec<String>>>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redactor").finish_non_exhaustive()
    }
}

impl Redactor {
    /// Remembers a secret: its text, the password in it when it is a URL, its lines when it has
    /// several, and the forms it takes inside JSON. Texts under four characters are ignored.
    pub fn add(&self, secret: &str) {
        let secret = secret.trim();
        let mut found: Vec<String> = vec![secret.to_owned()];
        if let Some(password) = url_password(secret) {
            found.push(percent_decoded(password));
            found.push(password.to_owned());
        }
        if secret.contains('\n') {
            let lines = secret.lines().map(str::trim);
            found.extend(lines.filter(|line| line.len() >= SHORTEST_LINE).map(str::to_owned));
        }
        let escaped: Vec<String> = found
            .iter()
            .map(|text| {
                let json = serde_json::Value::from(text.as_str()).to_string();
                json[1..json.len() - 1].to_owned()
            })
            .collect();
        found.extend(escaped);

        let mut texts = self.texts.write().unwrap_or_else(PoisonError::into_inner);
        for text in found {
            if text.chars().count() >= SHORTEST && !texts.contains(&text) {
                texts.push(text);
            }
        }
        texts.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    }

    /// The text with every secret replaced by [`REDACTED`].
    pub fn redact(&self, text: &str) -> String {
        let texts = self.texts.read().unwrap_or_else(PoisonError::into_inner);
        let mut clean = text.to_owned();
        for secret in texts.iter() {
            if clean.contains(secret.as_str()) {
                clean = clean.replace(secret.as_str(), REDACTED);
            }
        }
        clean
    }

    /// Every secret text, for connectors that redact what they keep of an exchange.
    pub fn texts(&self) -> Vec<String> {
        self.texts.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The password between user and host of a URL, as written.
pub fn url_password(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    // A password may hold an unescaped `/` or `?`: then the last `@` of the whole text ends it.
    let userinfo = match authority.rsplit_once('@') {
        Some((userinfo, _)) => userinfo,
        None => rest.rsplit_once('@')?.0,
    };
    let (_, password) = userinfo.split_once(':')?;
    (!password.is_empty()).then_some(password)
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code = (first == b'%').then(|| tail.get(..2)).flatten();
        let decoded =
            code.and_then(|c| std::str::from_utf8(c).ok()).and_then(|c| u8::from_str_radix(c, 16).ok());
        match decoded {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hides_every_occurrence_and_the_longer_secret_first() {
        let redactor = Redactor::default();
        redactor.add("hunter2");
        redactor.add("hunter2-and-more");
        assert_eq!(redactor.redact("hunter2-and-more, hunter2; hunter"), "•••, •••; hunter");
    }

    #[test]
    fn hides_the_password_of_a_url_in_both_forms() {
        let redactor = Redactor::default();
        redactor.add("postgres://levin:p%40ss%2Fword@db.example.com:5432/app");
        let text =
            redactor.redact("cannot log in to db.example.com as levin with p@ss/word or p%40ss%2Fword");
        assert_eq!(text, "cannot log in to db.example.com as levin with ••• or •••");
    }

    #[test]
    fn finds_passwords_only_where_there_are_some() {
        assert_eq!(url_password("postgres://u:secret@h/db"), Some("secret"));
        assert_eq!(url_password("postgres://u:a/b?c@h/db"), Some("a/b?c"));
        assert_eq!(url_password("postgres://u@h/db"), None);
        assert_eq!(url_password("postgres://h:5432/db"), None);
        assert_eq!(url_password("postgres://u:@h/db"), None);
        assert_eq!(url_password("plain:text@host"), None);
    }

    #[test]
    fn hides_lines_of_keys_and_forms_inside_json() {
        let redactor = Redactor::default();
        redactor.add("-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0\nshort\n");
        assert_eq!(redactor.redact("bad line MIIEvQIBADANBgkqhkiG9w0 in key"), "bad line ••• in key");
        redactor.add("quo\"ted");
        assert_eq!(redactor.redact(r#"{"token":"quo\"ted"}"#), r#"{"token":"•••"}"#);
    }

    #[test]
    fn leaves_short_texts_alone_and_shares_what_it_knows() {
        let redactor = Redactor::default();
        let clone = redactor.clone();
        redactor.add("abc");
        assert_eq!(clone.redact("abcdef"), "abcdef");
        redactor.add("abcd");
        assert_eq!(clone.redact("abcdef"), "•••ef");
        assert!(!format!("{redactor:?}").contains("abcd"));
    }
}
