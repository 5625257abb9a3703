//! Files in an object store: `s3://bucket/…`, `gs://bucket/…`, `az://container/…`.
//!
//! * An object appears when its upload is completed, and not before: what is small goes in one request on
//!   closing, the rest in parts that nobody sees. A run that dies leaves parts that no listing shows; a
//!   lifecycle rule of the bucket takes them away.
//! * Every request goes through levin's own client, with its checks of addresses.
//! * Requests of an upload are repeated here: a part belongs to its upload, and no other attempt of a
//!   delivery could send it again. What that cannot cure ends the run, and the next one writes the file whole.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::{
    HttpClient as StoreClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpService,
};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, Error, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    PutPayload, RetryConfig,
};
use reqwest::Url;

use super::FilesConfig;
use crate::catalogue::ConfigError;
use crate::http::{HttpClient, HttpSettings, Redactor};
use crate::outcome::{DeliveryError, RowOutcome};

/// What is uploaded at once; S3 takes no less than 5 MiB but for the last part, and 10,000 parts at most.
const PART: usize = 8 << 20;
/// The longest that one request may take.
const REQUEST: Duration = Duration::from_secs(60);
/// How long a request is repeated that meets a trouble which may pass.
const PATIENCE: Duration = Duration::from_secs(60);
/// What an attempt to deliver may take: a part, with its repeats.
pub(super) const TIMEOUT: Duration = Duration::from_secs(150);

/// A part of an object store.
pub(super) struct Store {
    objects: Arc<dyn ObjectStore>,
    prefix: Path,
    /// Which place this is, for people and for telling places apart.
    identity: String,
    redactor: Redactor,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// The schemes that a path may begin with, and the keys that belong to each.
const SCHEMES: [(&str, &[&str]); 3] = [
    ("s3", &["region", "endpoint_url", "aws_access_key_id", "aws_secret_access_key", "aws_session_token"]),
    ("gs", &["endpoint_url", "service_account"]),
    (
        "az",
        &[
            "endpoint_url",
            "account_name",
            "account_key",
            "sas_token",
            "tenant_id",
            "client_id",
            "client_secret",
        ],
    ),
];

fn refused(path: &str, message: impl Into<String>) -> ConfigError {
    ConfigError { path: path.to_owned(), message: message.into() }
}

/// Says which keys have no meaning for a path.
pub(super) fn check_keys(config: &FilesConfig, scheme: Option<&str>) -> Result<(), ConfigError> {
    let allowed = SCHEMES.iter().find(|(name, _)| Some(*name) == scheme).map_or(&[][..], |(_, keys)| *keys);
    match config.given().into_iter().find(|key| !allowed.contains(key)) {
        None => Ok(()),
        Some(key) => {
            let whose: Vec<String> = SCHEMES
                .iter()
                .filter(|(_, keys)| keys.contains(&key))
                .map(|(name, _)| format!("{name}://"))
                .collect();
            Err(refused(key, format!("belongs to a `path` that begins with {}", whose.join(" or "))))
        }
    }
}

impl Store {
    /// The store that a path names; `None` for a folder of this machine.
    pub(super) fn build(config: &FilesConfig, secrets: &[String]) -> Result<Option<Self>, ConfigError> {
        let Some((scheme, _)) = config.path.split_once("://") else {
            check_keys(config, None)?;
            return Ok(None);
        };
        if !SCHEMES.iter().any(|(name, _)| *name == scheme) {
            return Err(refused("path", "must be a folder, or begin with s3://, gs:// or az://"));
        }
        check_keys(config, Some(scheme))?;
        let url: Url = config.path.parse().map_err(|e| refused("path", format!("is no address: {e}")))?;
        let Some(bucket) = url.host_str().filter(|host| !host.is_empty()) else {
            return Err(refused("path", format!("names no bucket; write it as {scheme}://bucket/folder")));
        };
        if url.query().is_some()
            || url.fragment().is_some()
            || !url.username().is_empty()
            || url.port().is_some()
        {
            return Err(refused("path", format!("holds more than {scheme}://bucket/folder")));
        }
        let prefix = Path::from_url_path(url.path().trim_matches('/'))
            .map_err(|e| refused("path", format!("cannot name objects: {e}")))?;
        let redactor = Redactor::new(&config.secrets().chain(secrets.iter().cloned()).collect::<Vec<_>>());
        let settings = HttpSettings {
            timeout: REQUEST,
            allow_private_networks: config.allow_private_networks,
            redactor: redactor.clone(),
        };
        let client = HttpClient::new(settings).map_err(|e| refused("path", e))?;
        let wrong = |e: Error| refused("path", redactor.redact(&chain(&e)));
        let (store, at) = connect(scheme, bucket, config, Guarded(client)).map_err(wrong)?;
        let identity = format!("{scheme}://{bucket}/{prefix}").trim_end_matches('/').to_owned() + &at;
        Ok(Some(Self { objects: store, prefix, identity, redactor }))
    }

    /// Which place this is, without secrets.
    pub(super) fn identity(&self) -> &str {
        &self.identity
    }

    fn path(&self, name: &str) -> Path {
        name.split('/').fold(self.prefix.clone(), Path::join)
    }

    /// Whether files can be written, as far as can be told without one that is seen: an object is asked for
    /// that is not there, and what the store says to that is looked at.
    pub(super) async fn check(&self) -> Result<(), DeliveryError> {
        let Err(error) = self.objects.get(&self.path(".levin-check")).await else { return Ok(()) };
        let says = |words: &[&str]| words.iter().any(|word| chain(&error).contains(word));
        match error {
            Error::NotFound { .. }
                if !says(&["NoSuchBucket", "ContainerNotFound", "bucket does not exist"]) =>
            {
                Ok(())
            }
            // Whoever may only write is told so; the store did look at the credentials.
            Error::PermissionDenied { .. } if says(&["AccessDenied", "AuthorizationPermissionMismatch"]) => {
                Ok(())
            }
            _ => Err(self.trouble(&error)),
        }
    }

    /// An upload that has not begun: nothing is asked of the store before the first part.
    pub(super) fn upload(self: &Arc<Self>, name: &str, replace: bool) -> Upload {
        Upload {
            store: self.clone(),
            path: self.path(name),
            replace,
            rest: BytesMut::new(),
            parts: None,
            sent: 0,
        }
    }

    /// How an object that should have appeared stands, after an error said that it did not.
    async fn judge(
        &self,
        path: &Path,
        replace: bool,
        error: &Error,
        length: u64,
    ) -> Result<RowOutcome, Unpublished> {
        if matches!(
            error,
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } | Error::NotFound { .. }
        ) {
            return Err(Unpublished::Failed(self.trouble(error)));
        }
        if crate::http::forbidden_in(error).is_some() {
            return Err(Unpublished::Failed(self.trouble(error)));
        }
        let exists = matches!(error, Error::AlreadyExists { .. } | Error::Precondition { .. });
        // Only the first answer says surely that somebody else's object is in the way: after a repeat it may
        // be our own.
        let repeated = chain(error).contains("retries");
        if exists && !repeated {
            return Err(Unpublished::Exists);
        }
        match self.objects.head(path).await {
            Ok(found) if !replace && found.size == length => Ok(RowOutcome::Accepted),
            Ok(_) if exists => Err(Unpublished::Exists),
            _ => {
                tracing::error!(object = %path, error = chain(error), "whether the file appeared is not known");
                Ok(RowOutcome::InDoubt)
            }
        }
    }

    /// What an error of the store asks of the caller.
    fn trouble(&self, error: &Error) -> DeliveryError {
        let message = format!("{}: {}", self.identity, self.redactor.excerpt(&chain(error), 600));
        let stop =
            |hint: &str| DeliveryError::Unauthorized { message: message.clone(), hint: hint.to_owned() };
        if let Some(refused) = crate::http::forbidden_in(error) {
            return refused;
        }
        match error {
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
                stop("check the credentials of the destination, and that they may write there")
            }
            Error::NotFound { .. } => stop("create the bucket, or correct the destination's `path`"),
            Error::Generic { .. } | Error::JoinError { .. } => {
                DeliveryError::Unavailable { answered: false, after: None, message }
            }
            _ => stop("correct the destination's `path` and options"),
        }
    }
}

/// Options of the project's files win over the environment, which the stores' own tools read as well.
fn connect(
    scheme: &str,
    bucket: &str,
    config: &FilesConfig,
    guarded: Guarded,
) -> Result<(Arc<dyn ObjectStore>, String), Error> {
    let retry = RetryConfig { backoff: BackoffConfig::default(), max_retries: 4, retry_timeout: PATIENCE };
    let http = |endpoint: Option<&String>| endpoint.is_some_and(|e| e.starts_with("http://"));
    Ok(match scheme {
        "s3" => {
            let given = [
                (AmazonS3ConfigKey::Region, &config.region),
                (AmazonS3ConfigKey::Endpoint, &config.endpoint_url),
                (AmazonS3ConfigKey::AccessKeyId, &config.aws_access_key_id),
                (AmazonS3ConfigKey::SecretAccessKey, &config.aws_secret_access_key),
                (AmazonS3ConfigKey::Token, &config.aws_session_token),
            ];
            let mut builder = AmazonS3Builder::from_env();
            for (key, value) in given {
                if let Some(value) = value {
                    builder = builder.with_config(key, value);
                }
            }
            let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
            let store = builder
                .with_bucket_name(bucket)
                .with_allow_http(http(endpoint.as_ref()))
                .with_retry(retry)
                .with_http_connector(guarded)
                .build()?;
            (Arc::new(store), at(endpoint.as_deref()))
        }
        "gs" => {
            let given = [
                (GoogleConfigKey::BaseUrl, &config.endpoint_url),
                (GoogleConfigKey::ServiceAccountKey, &config.service_account),
            ];
            let mut builder = GoogleCloudStorageBuilder::from_env();
            for (key, value) in given {
                if let Some(value) = value {
                    builder = builder.with_config(key, value);
                }
            }
            let endpoint = builder.get_config_value(&GoogleConfigKey::BaseUrl);
            let options = ClientOptions::new().with_allow_http(http(endpoint.as_ref()));
            let store = builder
                .with_bucket_name(bucket)
                .with_client_options(options)
                .with_retry(retry)
                .with_http_connector(guarded)
                .build()?;
            (Arc::new(store), at(endpoint.as_deref()))
        }
        _ => {
            let given = [
                (AzureConfigKey::Endpoint, &config.endpoint_url),
                (AzureConfigKey::AccountName, &config.account_name),
                (AzureConfigKey::AccessKey, &config.account_key),
                (AzureConfigKey::SasKey, &config.sas_token),
                (AzureConfigKey::AuthorityId, &config.tenant_id),
                (AzureConfigKey::ClientId, &config.client_id),
                (AzureConfigKey::ClientSecret, &config.client_secret),
            ];
            let mut builder = MicrosoftAzureBuilder::from_env();
            for (key, value) in given {
                if let Some(value) = value {
                    builder = builder.with_config(key, value);
                }
            }
            let endpoint = builder.get_config_value(&AzureConfigKey::Endpoint);
            let account = builder.get_config_value(&AzureConfigKey::AccountName).unwrap_or_default();
            let store = builder
                .with_container_name(bucket)
                .with_allow_http(http(endpoint.as_ref()))
                .with_retry(retry)
                .with_http_connector(guarded)
                .build()?;
            let place = at(endpoint.as_deref());
            (Arc::new(store), format!(" of {account}{place}"))
        }
    })
}

/// Where a store is that is not at its maker's.
fn at(endpoint: Option<&str>) -> String {
    let Some(endpoint) = endpoint else { return String::new() };
    let place = endpoint.parse::<Url>().ok().map(|url| {
        let path = url.path().trim_end_matches('/').to_owned();
        format!("{}{path}", url.origin().ascii_serialization())
    });
    format!(" at {}", place.unwrap_or_else(|| endpoint.to_owned()))
}

/// An object on its way. Dropping it leaves parts that nobody sees.
pub(super) struct Upload {
    store: Arc<Store>,
    path: Path,
    replace: bool,
    /// What is not yet a part.
    rest: BytesMut,
    parts: Option<Box<dyn MultipartUpload>>,
    sent: u64,
}

impl Upload {
    /// Takes more bytes; sends those that make whole parts. An error leaves the upload useless.
    pub(super) async fn append(&mut self, bytes: &[u8]) -> Result<(), DeliveryError> {
        self.rest.extend_from_slice(bytes);
        while self.rest.len() >= PART {
            let part = self.rest.split_to(PART).freeze();
            self.send(part).await?;
        }
        Ok(())
    }

    async fn send(&mut self, part: Bytes) -> Result<(), DeliveryError> {
        if self.parts.is_none() {
            let begun = self.store.objects.put_multipart(&self.path).await;
            self.parts = Some(begun.map_err(|e| self.store.trouble(&e))?);
        }
        let Some(parts) = &mut self.parts else { return Ok(()) };
        self.sent += part.len() as u64;
        parts.put_part(PutPayload::from(part)).await.map_err(|e| self.store.trouble(&e))
    }

    /// Gives the object its name. An error says that it did not appear.
    pub(super) async fn publish(mut self) -> Result<RowOutcome, Unpublished> {
        let rest = self.rest.split().freeze();
        let (store, path, replace) = (self.store.clone(), self.path.clone(), self.replace);
        if self.parts.is_none() {
            let mode = if self.replace { PutMode::Overwrite } else { PutMode::Create };
            let length = rest.len() as u64;
            let options = PutOptions::from(mode);
            let put = self.store.objects.put_opts(&self.path, PutPayload::from(rest), options).await;
            return match put {
                Ok(_) => Ok(RowOutcome::Accepted),
                // A repeat of a request that was lost on its way back finds its own object.
                Err(error) => store.judge(&path, replace, &error, length).await,
            };
        }
        // A multipart upload knows no condition in any of the stores' interfaces: look first.
        if !self.replace {
            match self.store.objects.head(&self.path).await {
                Err(Error::NotFound { .. }) => {}
                Ok(_) => {
                    self.abort().await;
                    return Err(Unpublished::Exists);
                }
                Err(error) => {
                    let trouble = self.store.trouble(&error);
                    self.abort().await;
                    return Err(Unpublished::Failed(trouble));
                }
            }
        }
        if !rest.is_empty()
            && let Err(trouble) = self.send(rest).await
        {
            self.abort().await;
            return Err(Unpublished::Failed(trouble));
        }
        let length = self.sent;
        let Some(parts) = &mut self.parts else { return Ok(RowOutcome::Accepted) };
        match parts.complete().await {
            Ok(_) => Ok(RowOutcome::Accepted),
            Err(error) => store.judge(&path, replace, &error, length).await,
        }
    }

    /// Takes back what was uploaded, as far as that can be done.
    pub(super) async fn abort(&mut self) {
        if let Some(mut parts) = self.parts.take()
            && let Err(error) = parts.abort().await
        {
            tracing::warn!(object = %self.path, error = chain(&error),
                "parts of a file that did not appear are left; a lifecycle rule of the bucket takes them away");
        }
    }
}

/// Why a finished object did not appear.
pub(super) enum Unpublished {
    /// An object of that name is there already, and stays.
    Exists,
    /// The store could not be used.
    Failed(DeliveryError),
}

/// Sends the store's requests through levin's own client.
#[derive(Debug, Clone)]
struct Guarded(HttpClient);

impl HttpConnector for Guarded {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<StoreClient> {
        Ok(StoreClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Guarded {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let url = request.uri().to_string().parse::<Url>();
        let url = url.map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        self.0.admits(&url).map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        match tokio::time::timeout(REQUEST, self.0.raw().call(request)).await {
            Ok(answered) => answered,
            Err(late) => Err(HttpError::new(HttpErrorKind::Timeout, late)),
        }
    }
}

/// The error and what caused it, on one line, nothing twice.
fn chain(error: &(dyn StdError + 'static)) -> String {
    crate::http::chain(error)
}
