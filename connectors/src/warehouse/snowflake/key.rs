//! A key pair, and the token that it signs.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use pkcs8::der::SecretDocument;
use pkcs8::{EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef};
use ring::rand::SystemRandom;
use ring::signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use sha2::{Digest, Sha256};

/// How long a token holds. It is needed once, to log in.
const LIFE_SECONDS: i64 = 300;
/// How much of its life lies before the moment it is made, for a server whose clock is a little behind.
const BACKDATED_SECONDS: i64 = 30;

/// A user's private key.
pub(super) struct Key {
    pair: RsaKeyPair,
    fingerprint: String,
}

impl Key {
    /// Reads a PEM in PKCS#8, encrypted when there is a passphrase. The text of an error says what is wrong
    /// with it and repeats nothing of it.
    pub(super) fn from_pem(pem: &str, passphrase: Option<&str>) -> Result<Self, String> {
        let unreadable = || "cannot be read as a private key in PKCS#8".to_owned();
        let label = pem.split_once("-----BEGIN ").and_then(|(_, rest)| rest.split_once("-----"));
        let (label, _) = label.ok_or_else(|| {
            "is no PEM; give the whole text, from -----BEGIN PRIVATE KEY----- to its end".to_owned()
        })?;
        let document = || SecretDocument::from_pem(pem.trim()).map_err(|_| unreadable());
        let decrypted = match (label, passphrase) {
            ("PRIVATE KEY", _) => document()?.1,
            ("ENCRYPTED PRIVATE KEY", None) => {
                return Err("is encrypted; give `private_key_passphrase` too".to_owned());
            }
            ("ENCRYPTED PRIVATE KEY", Some(passphrase)) => {
                let (_, document) = document()?;
                let encrypted = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes());
                encrypted.map_err(|_| unreadable())?.decrypt(passphrase).map_err(|_| {
                    "cannot be decrypted: `private_key_passphrase` is wrong, or its cipher is too old to be used"
                        .to_owned()
                })?
            }
            ("RSA PRIVATE KEY", _) => {
                return Err(
                    "is in PKCS#1; `openssl pkcs8 -topk8 -nocrypt -in key.pem` gives it in PKCS#8".to_owned()
                );
            }
            _ => return Err("is a PEM of something else than a private key in PKCS#8".to_owned()),
        };
        PrivateKeyInfoRef::try_from(decrypted.as_bytes()).map_err(|_| unreadable())?;
        let pair = RsaKeyPair::from_pkcs8(decrypted.as_bytes())
            .map_err(|e| format!("is no RSA key of at least 2,048 bits ({e})"))?;
        let fingerprint = STANDARD.encode(Sha256::digest(public_key_info(pair.public_key().as_ref())));
        Ok(Self { pair, fingerprint })
    }

    /// The token with which a user of an account logs in, made at so many seconds since 1970.
    pub(super) fn token(&self, account: &str, user: &str, now: i64) -> Result<String, String> {
        let subject = format!("{}.{}", account_locator(account), user.to_uppercase());
        let claims = serde_json::json!({
            "iss": format!("{subject}.SHA256:{}", self.fingerprint),
            "sub": subject,
            "iat": now - BACKDATED_SECONDS,
            "exp": now + LIFE_SECONDS,
        });
        let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","typ":"JWT"}"#);
        let mut token = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let mut signature = vec![0; self.pair.public().modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), token.as_bytes(), &mut signature)
            .map_err(|_| "the private key cannot sign".to_owned())?;
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(signature));
        Ok(token)
    }
}

/// The account as tokens name it: without region and cloud, in upper case.
pub(super) fn account_locator(account: &str) -> String {
    let end = if account.contains(".global") { '-' } else { '.' };
    account.split(end).next().unwrap_or(account).to_uppercase()
}

/// An RSA public key as a `SubjectPublicKeyInfo` (RFC 5280) holds it, which is what Snowflake's fingerprints are of.
fn public_key_info(rsa_public_key: &[u8]) -> Vec<u8> {
    /// The algorithm rsaEncryption, with no parameters.
    const ALGORITHM: [u8; 15] =
        [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
    let bits = [&[0], rsa_public_key].concat();
    let content = [&ALGORITHM[..], &tagged(0x03, &bits)].concat();
    tagged(0x30, &content)
}

/// A value of DER: its tag, its length, itself.
fn tagged(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = value.len().to_be_bytes();
    let significant = &length[length.iter().take_while(|b| **b == 0).count()..];
    let mut whole = vec![tag];
    if value.len() < 0x80 {
        whole.extend(significant.iter().copied().chain(significant.is_empty().then_some(0)));
    } else {
        // A length of a machine's word has at most eight bytes.
        whole.push(0x80 | u8::try_from(significant.len()).unwrap_or(8));
        whole.extend_from_slice(significant);
    }
    whole.extend_from_slice(value);
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_key_is_refused_without_being_repeated() {
        for (pem, part) in [
            ("hunter2", "is no PEM"),
            ("-----BEGIN RSA PRIVATE KEY-----\naHVudGVyMg==\n-----END RSA PRIVATE KEY-----", "PKCS#1"),
            ("-----BEGIN CERTIFICATE-----\naHVudGVyMg==\n-----END CERTIFICATE-----", "something else"),
            ("-----BEGIN PRIVATE KEY-----\naHVudGVyMg==\n-----END PRIVATE KEY-----", "PKCS#8"),
            (
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\naHVudGVyMg==\n-----END ENCRYPTED PRIVATE KEY-----",
                "passphrase",
            ),
        ] {
            let message = Key::from_pem(pem, None).err().unwrap();
            assert!(message.contains(part), "{message}");
            assert!(!message.contains("hunter2") && !message.contains("aHVudGVy"), "{message}");
        }
    }

    #[test]
    fn accounts_lose_their_region() {
        for (account, locator) in [
            ("xy12345.eu-central-1", "XY12345"),
            ("xy12345.west-europe.azure", "XY12345"),
            ("myorg-account", "MYORG-ACCOUNT"),
            ("xy12345-abc.global", "XY12345"),
        ] {
            assert_eq!(account_locator(account), locator);
        }
    }

    #[test]
    fn lengths_are_those_of_der() {
        assert_eq!(tagged(4, &[]), [4, 0]);
        assert_eq!(tagged(4, &[7; 127])[..3], [4, 127, 7]);
        assert_eq!(tagged(4, &[7; 128])[..4], [4, 0x81, 128, 7]);
        assert_eq!(tagged(4, &[7; 300])[..5], [4, 0x82, 1, 44, 7]);
    }
}
