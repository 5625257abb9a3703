//! Signatures of messages between services: HMAC-SHA256, as Standard Webhooks writes them and in hexadecimal.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// How many bytes a key of Standard Webhooks has.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// The key in a secret of Standard Webhooks, or what is wrong with it.
pub(crate) fn key_of(secret: &str) -> Result<Vec<u8>, &'static str> {
    match secret.strip_prefix("whsec_").and_then(|key| BASE64.decode(key).ok()) {
        Some(key) if KEY_BYTES.contains(&key.len()) => Ok(key),
        _ => Err("must be `whsec_` followed by a key of 24 to 64 bytes in base64: \
                  `echo whsec_$(openssl rand -base64 32)` makes one"),
    }
}

/// The signature of Standard Webhooks over `id.timestamp.body`.
pub(crate) fn sign(key: &[u8], id: &str, timestamp: &str, body: &[u8]) -> String {
    let signature = standard(key, id, timestamp, body).map(|mac| mac.finalize().into_bytes());
    format!("v1,{}", BASE64.encode(signature.unwrap_or_default()))
}

/// How many signatures of a header are looked at. Who signs sends one for each key, and more only while a key is replaced.
const MOST: usize = 16;
/// How long one is: 32 bytes in base64.
const LETTERS: usize = 44;

/// Whether one of the first [`MOST`] signatures of a header is that of this key. What is signed is read once at most,
/// however many there are, and not at all when there is none. Takes as long for a wrong one as for a right one.
pub(crate) fn is_signed(key: &[u8], id: &str, timestamp: &str, body: &[u8], header: &str) -> bool {
    let signatures = signatures(header);
    if signatures.is_empty() {
        return false;
    }
    let Some(mac) = standard(key, id, timestamp, body) else { return false };
    // A copy of the state knows the body already: to compare costs the same for any body.
    signatures.iter().filter(|signature| mac.clone().verify_slice(signature).is_ok()).count() > 0
}

/// What a header holds that may be a signature.
fn signatures(header: &str) -> Vec<Vec<u8>> {
    let signatures = header.split(' ').filter_map(|signature| signature.strip_prefix("v1,"));
    let signatures = signatures.filter(|text| text.len() == LETTERS).take(MOST);
    signatures.filter_map(|text| BASE64.decode(text).ok()).collect()
}

/// Whether a text is the signature of a body in hexadecimal, in capitals or not. The body is not read for a text that is
/// none.
pub(crate) fn is_signed_in_hex(key: &[u8], body: &[u8], header: &str) -> bool {
    let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let bytes = header.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    });
    let signature = if header.len() == 64 { bytes.collect::<Option<Vec<u8>>>() } else { None };
    signature
        .is_some_and(|signature| keyed(key, &[body]).is_some_and(|mac| mac.verify_slice(&signature).is_ok()))
}

fn standard(key: &[u8], id: &str, timestamp: &str, body: &[u8]) -> Option<Hmac<Sha256>> {
    keyed(key, &[id.as_bytes(), b".", timestamp.as_bytes(), b".", body])
}

/// HMAC takes keys of any length, so there always is one.
fn keyed(key: &[u8], parts: &[&[u8]]) -> Option<Hmac<Sha256>> {
    #[cfg(test)]
    KEYED.set(KEYED.get() + 1);
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    for part in parts {
        mac.update(part);
    }
    Some(mac)
}

#[cfg(test)]
thread_local! {
    /// How often a message was read to be signed.
    pub(crate) static KEYED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_known_among_others_and_nothing_else_is() {
        let key = key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let other = key_of("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").unwrap();
        let (id, time, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", br#"{"test": 2432232314}"#);
        // The example of the specification.
        let right = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(sign(&key, id, time, body), right);
        let several = format!("v1a,abc= {} {right}", sign(&other, id, time, body));
        for header in [right, several.as_str()] {
            assert!(is_signed(&key, id, time, body, header), "{header}");
        }
        for wrong in ["", "v1,", "v1", &right[3..], &sign(&other, id, time, body), "v1,g0hM9SsE"] {
            assert!(!is_signed(&key, id, time, body, wrong), "{wrong}");
        }
        assert!(!is_signed(&key, "msg_other", time, body, right));
        assert!(!is_signed(&key, id, "1614265331", body, right));
        assert!(!is_signed(&key, id, time, b"{}", right));
    }

    #[test]
    fn many_signatures_cost_one_reading_of_the_message_and_none_costs_nothing() {
        let key = key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let read = |header: &str| {
            let before = KEYED.get();
            let signed = is_signed(&key, "msg_1", "1614265330", b"{}", header);
            (signed, KEYED.get() - before)
        };
        let (right, wrong) = (sign(&key, "msg_1", "1614265330", b"{}"), sign(b"other", "", "", b""));
        let many = |count: usize| vec![wrong.as_str(); count].join(" ");
        assert_eq!(read(&many(10_000)), (false, 1));
        assert_eq!(signatures(&many(10_000)).len(), MOST);
        assert_eq!(read(&format!("{} {right}", many(MOST - 1))), (true, 1));
        assert_eq!(read(&format!("{} {right}", many(MOST))), (false, 1), "no further");
        for none in ["", " ", "v1,", "v1, v1, v1,", "v1a,abc=", &"v1,AAAA ".repeat(10_000)] {
            assert_eq!(read(none), (false, 0), "{none}");
        }
        let before = KEYED.get();
        for none in ["", "5b", "zz", &"5".repeat(65), &"z".repeat(64), &"5".repeat(400_000)] {
            assert!(!is_signed_in_hex(b"Jefe", b"{}", none));
        }
        assert_eq!(KEYED.get(), before);
    }

    #[test]
    fn signatures_in_hexadecimal_may_be_in_capitals() {
        // RFC 4231, test case 2.
        let right = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        let body = b"what do ya want for nothing?";
        assert!(is_signed_in_hex(b"Jefe", body, right));
        assert!(is_signed_in_hex(b"Jefe", body, &right.to_uppercase()));
        for wrong in ["", "5b", &right[1..], &right.replace('5', "6"), "zz", "é"] {
            assert!(!is_signed_in_hex(b"Jefe", body, wrong), "{wrong}");
        }
        assert!(!is_signed_in_hex(b"jefe", body, right));
    }

    #[test]
    fn a_key_that_is_too_short_is_refused() {
        for wrong in ["", "whsec_", "whsec_c2hvcnQ=", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_%%%%"] {
            assert!(key_of(wrong).unwrap_err().contains("whsec_"), "{wrong}");
        }
    }
}
