//! Who asks: keys, and what each may do.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ring::rand::SecureRandom;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Api;
use super::fault::Fault;
use crate::error::{Error, ErrorCode};
use crate::store::{Key, Scope, Store, text_of_now};

/// What every key begins with, so that people and programs that look for secrets know it.
const PREFIX: &str = "levin_";
/// For how long keys are taken as they were read: so long a revoked one may still work.
const FRESH: Duration = Duration::from_secs(2);
/// How soon the store may be asked again because of a key that is not known.
const SOON: Duration = Duration::from_millis(100);
/// How often the use of a key is noted.
const NOTED: Duration = Duration::from_secs(60);

/// A new key: the part by which it is found, its text, and the digest that is kept.
///
/// # Errors
/// `INTERNAL` when the system has no random numbers.
pub fn new_key() -> Result<(String, String, String), Error> {
    let mut random = [0u8; 40];
    ring::rand::SystemRandom::new()
        .fill(&mut random)
        .map_err(|_| Error::new(ErrorCode::Internal, "the system has no random numbers"))?;
    let id = hexadecimal(&random[..8]);
    let text = format!("{PREFIX}{id}_{}", hexadecimal(&random[8..]));
    let hash = digest(&text);
    Ok((id, text, hash))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn digest(text: &str) -> String {
    hexadecimal(&Sha256::digest(text.as_bytes()))
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    /// The key's name.
    pub(super) name: String,
    scope: Scope,
}

/// The keys of the store, as they were a moment ago.
#[derive(Debug, Default)]
pub(super) struct Keys {
    known: Mutex<Known>,
    /// Held by whoever reads them anew: the others wait for what it finds.
    reading: tokio::sync::Mutex<()>,
    noted: Mutex<HashMap<String, Instant>>,
}

#[derive(Debug, Default)]
struct Known {
    keys: Arc<HashMap<String, Key>>,
    read_at: Option<Instant>,
}

impl Keys {
    /// Who asks, by the headers of the request.
    pub(super) async fn caller(&self, store: &Store, headers: &HeaderMap) -> Result<Caller, Fault> {
        let header = headers
            .get(AUTHORIZATION)
            .ok_or_else(|| Fault::unauthorized("No authorization header found"))?
            .to_str()
            .unwrap_or_default();
        let text = match header.split_once(' ') {
            Some((scheme, text)) if scheme.eq_ignore_ascii_case("bearer") => text.trim(),
            _ => return Err(Fault::unauthorized("The authorization header must be `Bearer KEY`")),
        };
        let unknown = || Fault::unauthorized("Invalid API key");
        let (id, _) = text.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_')).ok_or_else(unknown)?;
        let key = self.find(store, id).await?.ok_or_else(unknown)?;
        if !bool::from(digest(text).as_bytes().ct_eq(key.hash.as_bytes())) || key.revoked_at.is_some() {
            return Err(unknown());
        }
        let now = text_of_now();
        if key.expires_at.as_ref().is_some_and(|end| *end <= now) {
            return Err(Fault::unauthorized("The API key has expired"));
        }
        self.note(store, &key.id, now);
        Ok(Caller { name: key.name, scope: key.scope })
    }

    async fn find(&self, store: &Store, id: &str) -> Result<Option<Key>, Error> {
        let asked_at = Instant::now();
        if let Some(found) = self.look(id, FRESH) {
            return Ok(Some(found));
        }
        let _reading = self.reading.lock().await;
        let read_at = self.known.lock().unwrap_or_else(PoisonError::into_inner).read_at;
        // Whoever read them meanwhile read them for everybody who waited.
        if read_at.is_some_and(|at| at >= asked_at) {
            return Ok(self.look(id, FRESH));
        }
        // A new key works at once; guesses do not make the store work.
        if let Some(early) = read_at.and_then(|at| SOON.checked_sub(at.elapsed())) {
            tokio::time::sleep(early).await;
        }
        let read_at = Instant::now();
        let keys = store.keys().await?.into_iter().map(|key| (key.id.clone(), key)).collect();
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) =
            Known { keys: Arc::new(keys), read_at: Some(read_at) };
        Ok(self.look(id, FRESH))
    }

    fn look(&self, id: &str, fresh: Duration) -> Option<Key> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.read_at.is_none_or(|at| at.elapsed() > fresh) {
            return None;
        }
        known.keys.get(id).cloned()
    }

    fn note(&self, store: &Store, id: &str, now: String) {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.get(id).is_some_and(|at| at.elapsed() < NOTED) {
            return;
        }
        noted.insert(id.to_owned(), Instant::now());
        let (store, id) = (store.clone(), id.to_owned());
        tokio::spawn(async move {
            if let Err(error) = store.key_was_used(&id, &now).await {
                tracing::warn!(error = %error, "the use of a key was not noted");
            }
        });
    }
}

/// Lets in who has a key and has not asked too often.
pub(super) async fn admit(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let caller = match api.keys.caller(api.service.store(), request.headers()).await {
        Ok(caller) => caller,
        Err(fault) => return fault.into_response(),
    };
    let room = api.limits.take(&caller.name, api.service.project().serve.requests_per_second);
    let mut response = match room.wait {
        Some(seconds) => Fault::new(
            StatusCode::TOO_MANY_REQUESTS,
            "Too many requests",
            format!("this key may ask {} times in ten seconds", room.limit),
        )
        .after(seconds)
        .into_response(),
        None => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
    };
    room.write(response.headers_mut());
    response
}

impl Caller {
    /// Whether they may see rows, and texts that quote them.
    pub(super) fn sees_rows(&self) -> bool {
        self.scope >= Scope::Run
    }

    fn of(parts: &Parts, needed: Scope) -> Result<Self, Fault> {
        let caller = parts.extensions.get::<Self>().cloned();
        let caller = caller.ok_or_else(|| Fault::unauthorized("No authorization header found"))?;
        if caller.scope >= needed {
            return Ok(caller);
        }
        Err(Fault::new(
            StatusCode::FORBIDDEN,
            "Forbidden",
            format!(
                "this takes a key of scope `{}`, and `{}` has `{}`",
                needed.name(),
                caller.name,
                caller.scope.name()
            ),
        ))
    }
}

macro_rules! needs {
    ($($(#[$doc:meta])* $name:ident $scope:ident)*) => {
        $($(#[$doc])*
        #[derive(Debug)]
        pub(super) struct $name(
            #[allow(dead_code, reason = "only some handlers ask who it is")] pub(super) Caller,
        );

        impl<S: Send + Sync> FromRequestParts<S> for $name {
            type Rejection = Fault;

            async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Fault> {
                Caller::of(parts, Scope::$scope).map(Self)
            }
        })*
    };
}

needs! {
    /// Who may look.
    Reader Read
    /// Who may start runs.
    Runner Run
    /// Who may change the project.
    Admin Admin
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_its_id_and_told_by_its_digest() {
        let (id, text, hash) = new_key().unwrap();
        assert_eq!((id.len(), text.len(), hash.len()), (16, PREFIX.len() + 16 + 1 + 64, 64));
        assert!(text.starts_with(&format!("{PREFIX}{id}_")));
        assert_eq!(digest(&text), hash);
        assert_ne!(new_key().unwrap().1, text);
    }
}
