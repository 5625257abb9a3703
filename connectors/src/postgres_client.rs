//! How levin connects to PostgreSQL, as a warehouse and as a destination alike: addresses with
//! libpq's meaning of `sslmode`, one way to cancel, and server errors turned into kinds.

mod link;
mod tls;

use std::fmt::{self, Debug, Formatter};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, SslMode as WireSslMode, SslNegotiation};
use tokio_postgres::{CancelToken, Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::Instrument;

pub(crate) use self::link::{Link, Opener};
use self::tls::{Authorities, LibpqVerifier};
use crate::warehouse::{ErrorKind, WarehouseError};

/// The longest name a server keeps of a connection.
const MAX_APPLICATION_NAME_BYTES: usize = 63;

/// How long connecting may take when nobody says otherwise.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a PostgreSQL server is and how to be let in: a `postgres://` address with libpq's parameters.
///
/// Its `Debug` form shows no secret.
#[derive(Clone)]
pub(crate) struct PostgresUrl {
    config: Config,
    ssl_mode: SslMode,
    roots: Roots,
    secrets: Vec<String>,
    tls: Arc<OnceLock<MakeRustlsConnect>>,
}

/// What libpq's `sslmode` promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// Which certificate authorities are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Roots {
    /// No `sslrootcert`: those of the operating system, for the modes that verify at all.
    Unnamed,
    /// `sslrootcert=system`.
    System,
    /// `sslrootcert=<file>`, PEM.
    File(PathBuf),
}

/// An open connection. Dropping it closes the socket; a statement that still runs is *not*
/// cancelled on the server by that: see [`PostgresConnection::abandon`].
pub(crate) struct PostgresConnection {
    /// Sends statements.
    pub(crate) client: Client,
    canceller: PostgresCanceller,
    driver: JoinHandle<()>,
}

/// Asks the server to stop what one connection runs.
#[derive(Clone)]
pub(crate) struct PostgresCanceller {
    token: CancelToken,
    tls: MakeRustlsConnect,
    timeout: Duration,
}

impl PostgresUrl {
    /// Reads an address. A relative `sslrootcert` starts at `project`. The message of an error holds
    /// neither the address nor a part of it that could be secret.
    pub(crate) fn parse(url: &str, project: &Path) -> Result<Self, String> {
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err("must be an address such as postgres://user:password@host:5432/database".into());
        }
        let (address, query) = url.split_once('?').unwrap_or((url, ""));
        let mut ssl_mode = SslMode::Prefer;
        let mut roots = Roots::Unnamed;
        let mut secrets = Vec::new();
        let mut kept = Vec::new();
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            let (key, raw) = pair.split_once('=').unwrap_or((pair, ""));
            match key {
                "sslmode" => ssl_mode = SslMode::parse(raw)?,
                "sslrootcert" => {
                    let path = percent_decoded(raw).ok_or("sslrootcert is not UTF-8 once decoded")?;
                    roots = match path.as_str() {
                        "system" => Roots::System,
                        path => Roots::File(project.join(path)),
                    };
                }
                _ => {
                    if key == "password" {
                        secrets.push(raw.to_owned());
                    }
                    kept.push(pair);
                }
            }
        }
        let stripped =
            if kept.is_empty() { address.to_owned() } else { format!("{address}?{}", kept.join("&")) };
        let mut config = Config::from_str(&stripped).map_err(|e| described(&e))?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err("names no host".into());
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(DEFAULT_CONNECT_TIMEOUT);
        }
        if let Some(password) = config.get_password().filter(|p| !p.is_empty()) {
            secrets.push(String::from_utf8_lossy(password).into_owned());
            secrets.push(url.to_owned());
            // The form in the address differs from the password where characters are escaped.
            let credentials = address.split_once("://").and_then(|(_, rest)| rest.split_once('@'));
            if let Some((_, raw)) = credentials.and_then(|(credentials, _)| credentials.split_once(':')) {
                secrets.push(raw.to_owned());
            }
        }
        secrets.retain(|s| !s.is_empty());
        secrets.sort();
        secrets.dedup();
        if config.get_hosts().iter().all(|h| matches!(h, Host::Unix(_))) && config.get_hostaddrs().is_empty()
        {
            // As libpq: a socket of this machine is never encrypted.
            ssl_mode = SslMode::Disable;
        }
        Ok(Self { config, ssl_mode, roots, secrets, tls: Arc::new(OnceLock::new()) })
    }

    /// The same server, with another limit on the time that connecting may take.
    #[must_use]
    pub(crate) fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.config.connect_timeout(timeout);
        self
    }

    /// Host, port and database in a canonical text without secrets: `postgres://host:5432/database`.
    pub(crate) fn identity(&self) -> String {
        let ports = self.config.get_ports();
        let port = |i: usize| ports.get(i).or(ports.first()).copied().unwrap_or(5432);
        let named = self.config.get_hosts().iter().map(|host| match host {
            Host::Tcp(name) if name.contains(':') => format!("[{name}]"),
            Host::Tcp(name) => name.to_lowercase(),
            Host::Unix(path) => path.display().to_string(),
        });
        let mut hosts: Vec<String> = named.collect();
        if hosts.is_empty() {
            hosts = self.config.get_hostaddrs().iter().map(ToString::to_string).collect();
        }
        let places: Vec<String> =
            hosts.iter().enumerate().map(|(i, host)| format!("{host}:{}", port(i))).collect();
        format!("postgres://{}/{}", places.join(","), self.database().unwrap_or_default())
    }

    /// The role to log in as.
    pub(crate) fn role(&self) -> Option<&str> {
        self.config.get_user()
    }

    /// The database to connect to: the one of the role's name, unless named.
    pub(crate) fn database(&self) -> Option<&str> {
        self.config.get_dbname().or(self.config.get_user())
    }

    /// Texts that may appear in no message: the password as written and as meant, the whole address.
    pub(crate) fn secrets(&self) -> &[String] {
        &self.secrets
    }

    /// Connects, under a name that the server shows in `pg_stat_activity` (cut to 63 bytes).
    ///
    /// Ends within the connect timeout per attempt. Errors are of kind [`ErrorKind::Unreachable`]
    /// (nothing answers, or TLS cannot be agreed on), [`ErrorKind::Authentication`],
    /// [`ErrorKind::NotFound`] (no such database) or [`ErrorKind::Busy`] (too many connections).
    pub(crate) async fn connect(&self, application_name: &str) -> Result<PostgresConnection, WarehouseError> {
        let tls = self.tls()?;
        let attempts: &[WireSslMode] = match self.ssl_mode {
            SslMode::Disable => &[WireSslMode::Disable],
            SslMode::Allow => &[WireSslMode::Disable, WireSslMode::Require],
            SslMode::Prefer => &[WireSslMode::Prefer, WireSslMode::Disable],
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => &[WireSslMode::Require],
        };
        let mut result = self.attempt(application_name, attempts[0], &tls).await;
        for mode in &attempts[1..] {
            // Only what the other way of talking could mend: the handshake, or a rule of
            // pg_hba.conf for connections with or without encryption.
            let other_way_may_help = match &result {
                Ok(_) => false,
                Err(error) => error.message.contains("TLS") || error.code.as_deref() == Some("28000"),
            };
            if other_way_may_help && let Ok(connection) = self.attempt(application_name, *mode, &tls).await {
                result = Ok(connection);
            }
        }
        result.map_err(|mut error| {
            if error.kind == ErrorKind::ConnectionLost {
                error.kind = ErrorKind::Unreachable;
            }
            if error.kind == ErrorKind::Unreachable {
                error.message = format!("{}: {}", self.identity(), error.message);
            }
            error
        })
    }

    async fn attempt(
        &self,
        application_name: &str,
        mode: WireSslMode,
        tls: &MakeRustlsConnect,
    ) -> Result<PostgresConnection, WarehouseError> {
        let mut config = self.config.clone();
        config.ssl_mode(mode).application_name(cut(application_name, MAX_APPLICATION_NAME_BYTES));
        let timeout = config.get_connect_timeout().copied().unwrap_or(DEFAULT_CONNECT_TIMEOUT);
        // tokio-postgres bounds only the opening of each socket: a server that accepts and then
        // says nothing would hold us for ever.
        let hosts = config.get_hosts().len().max(config.get_hostaddrs().len());
        let whole = timeout.saturating_mul(u32::try_from(hosts).unwrap_or(1).max(1));
        let (client, connection) = tokio::time::timeout(whole, config.connect(tls.clone()))
            .await
            .map_err(|_| {
                let message = format!("no answer within {} seconds", whole.as_secs_f32());
                WarehouseError::new(ErrorKind::Unreachable, message)
            })?
            .map_err(|e| WarehouseError::from(&e))?;
        let driven = async move {
            // What ends a connection reaches the statements that wait on it.
            if let Err(error) = connection.await {
                tracing::debug!(error = %described(&error), "a postgres connection ended");
            }
        };
        let driver = tokio::spawn(driven.in_current_span());
        let canceller = PostgresCanceller { token: client.cancel_token(), tls: tls.clone(), timeout };
        Ok(PostgresConnection { client, canceller, driver })
    }

    fn tls(&self) -> Result<MakeRustlsConnect, WarehouseError> {
        if let Some(tls) = self.tls.get() {
            return Ok(tls.clone());
        }
        let tls = MakeRustlsConnect::new(self.client_config()?);
        Ok(self.tls.get_or_init(|| tls).clone())
    }

    fn client_config(&self) -> Result<ClientConfig, WarehouseError> {
        let unusable = |message: String| WarehouseError::new(ErrorKind::Unreachable, message);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let believed = match (&self.roots, self.ssl_mode) {
            (_, SslMode::Disable) => None,
            (Roots::File(path), _) => {
                let read =
                    CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
                let certificates = read
                    .map_err(|e| unusable(format!("sslrootcert {} cannot be read: {e}", path.display())))?;
                if certificates.is_empty() {
                    return Err(unusable(format!("sslrootcert {} holds no certificate", path.display())));
                }
                Some(certificates)
            }
            (Roots::System, _) | (Roots::Unnamed, SslMode::VerifyCa | SslMode::VerifyFull) => {
                Some(rustls_native_certs::load_native_certs().certs)
            }
            (Roots::Unnamed, _) => None,
        };
        let authorities = match believed {
            None => None,
            Some(certificates) => {
                let mut store = RootCertStore::empty();
                store.add_parsable_certificates(certificates.iter().cloned());
                let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone())
                    .build()
                    .map_err(|e| {
                        unusable(format!(
                            "no usable certificate authority for TLS: {e}; name one with sslrootcert"
                        ))
                    })?;
                let pinned = if matches!(self.roots, Roots::File(_)) { certificates } else { Vec::new() };
                Some(Authorities { verifier, pinned })
            }
        };
        let verifier = LibpqVerifier {
            provider: provider.clone(),
            authorities,
            check_host: self.ssl_mode == SslMode::VerifyFull || self.roots == Roots::System,
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| unusable(format!("TLS cannot be set up: {e}")))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        if self.config.get_ssl_negotiation() == SslNegotiation::Direct {
            config.alpn_protocols = vec![b"postgresql".to_vec()];
        }
        Ok(config)
    }
}

impl Debug for PostgresUrl {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresUrl")
            .field("identity", &self.identity())
            .field("ssl_mode", &self.ssl_mode)
            .field("roots", &self.roots)
            .finish_non_exhaustive()
    }
}

impl PostgresConnection {
    /// What stops a statement of this connection.
    pub(crate) fn canceller(&self) -> PostgresCanceller {
        self.canceller.clone()
    }

    /// Closes the connection after asking the server to stop what it runs, in the background: for a
    /// connection whose statement nobody waits for any more.
    pub(crate) fn abandon(self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let cancelled = async move {
            if let Err(error) = self.canceller.cancel().await {
                tracing::debug!(%error, "an abandoned statement could not be cancelled");
            }
            drop(self);
        };
        runtime.spawn(cancelled.in_current_span());
    }
}

impl Drop for PostgresConnection {
    fn drop(&mut self) {
        // In the middle of a statement the driver would go on reading until the statement ends.
        self.driver.abort();
    }
}

impl PostgresCanceller {
    /// Sends the request. Returns once it is sent, not once the statement has stopped.
    pub(crate) async fn cancel(&self) -> Result<(), WarehouseError> {
        match tokio::time::timeout(self.timeout, self.token.cancel_query(self.tls.clone())).await {
            Ok(sent) => sent.map_err(|e| WarehouseError::from(&e)),
            Err(_) => Err(WarehouseError::new(
                ErrorKind::Unreachable,
                "the server did not take the request to cancel in time",
            )),
        }
    }
}

impl SslMode {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(match text {
            "disable" => Self::Disable,
            "allow" => Self::Allow,
            "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => {
                return Err(
                    "sslmode must be one of disable, allow, prefer, require, verify-ca, verify-full".into()
                );
            }
        })
    }
}

impl From<tokio_postgres::Error> for WarehouseError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::from(&error)
    }
}

impl From<&tokio_postgres::Error> for WarehouseError {
    fn from(error: &tokio_postgres::Error) -> Self {
        let message = described(error);
        let Some(server) = error.as_db_error() else {
            return Self::new(client_side_kind(error), message);
        };
        let code = server.code().code();
        // One SQLSTATE serves whoever cancels and the clock; a server that speaks another language is taken for the former.
        let kind = match server_kind(code) {
            ErrorKind::Cancelled if server.message().contains("statement timeout") => ErrorKind::TookTooLong,
            kind => kind,
        };
        Self { kind, message, code: Some(code.to_owned()), step: None }
    }
}

/// What a SQLSTATE asks of the caller.
fn server_kind(code: &str) -> ErrorKind {
    match code {
        "28P01" | "28000" => ErrorKind::Authentication,
        "42501" => ErrorKind::Permission,
        "42P01" | "3F000" | "42703" | "3D000" => ErrorKind::NotFound,
        "42P07" | "42P06" => ErrorKind::AlreadyExists,
        "23505" => ErrorKind::UniqueViolation,
        "54011" | "54001" | "54000" | "54023" | "0A000" => ErrorKind::Unsupported,
        "53300" | "40001" | "40P01" | "55P03" | "55006" => ErrorKind::Busy,
        "57014" => ErrorKind::Cancelled,
        "57P03" => ErrorKind::Unreachable,
        "57P01" | "57P02" | "57P05" => ErrorKind::ConnectionLost,
        // Concurrent CREATE … IF NOT EXISTS can end here although "if not exists" was asked for.
        "42710" | "42723" => ErrorKind::AlreadyExists,
        _ => match code.get(..2) {
            Some("08") => ErrorKind::ConnectionLost,
            Some("22" | "23") => ErrorKind::Data,
            Some("28") => ErrorKind::Authentication,
            Some("42") => ErrorKind::Invalid,
            Some("53") => ErrorKind::OutOfSpace,
            _ => ErrorKind::Other,
        },
    }
}

/// The kind of an error that the server did not send. The client library keeps its own kinds to
/// itself; its fixed texts are what tells them apart.
fn client_side_kind(error: &tokio_postgres::Error) -> ErrorKind {
    if error.is_closed() {
        return ErrorKind::ConnectionLost;
    }
    match error.to_string().as_str() {
        "error connecting to server" | "timeout waiting for server" | "error performing TLS handshake" => {
            ErrorKind::Unreachable
        }
        "error communicating with the server" => ErrorKind::ConnectionLost,
        "authentication error" | "invalid configuration" => ErrorKind::Authentication,
        _ => ErrorKind::Other,
    }
}

/// The error with what caused it. Of a server's error the message and the hint; its detail only
/// where it speaks of objects and not of rows, whose values belong in no log.
fn described(error: &tokio_postgres::Error) -> String {
    let Some(server) = error.as_db_error() else {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(inner) = cause {
            text = format!("{text}: {inner}");
            cause = inner.source();
        }
        return text;
    };
    let mut text = server.message().to_owned();
    let speaks_of_rows = matches!(server.code().code().get(..2), Some("22" | "23" | "P0") | None);
    if let Some(detail) = server.detail().filter(|_| !speaks_of_rows) {
        text = format!("{text} ({detail})");
    }
    if let Some(hint) = server.hint() {
        text = format!("{text}; {hint}");
    }
    text
}

/// The longest beginning of `text` that is no longer than `bytes` and ends between characters.
fn cut(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |b: Option<u8>| char::from(b?).to_digit(16);
        let value = digit(rest.next())? * 16 + digit(rest.next())?;
        bytes.push(u8::try_from(value).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<PostgresUrl, String> {
        PostgresUrl::parse(url, Path::new("/project"))
    }

    #[test]
    fn an_address_gives_an_identity_without_secrets() {
        let url = parse("postgres://me:p%40ss@DB.example.com:5433/shop?sslmode=disable&application_name=x")
            .unwrap();
        assert_eq!(url.identity(), "postgres://db.example.com:5433/shop");
        assert!(url.secrets().iter().any(|s| s == "p@ss") && url.secrets().iter().any(|s| s == "p%40ss"));
        let shown = format!("{url:?}");
        assert!(!shown.contains("p@ss") && !shown.contains("p%40ss"), "{shown}");

        assert_eq!(parse("postgresql://me@h").unwrap().identity(), "postgres://h:5432/me");
        assert_eq!(parse("postgres://me@a:1,b:2/d").unwrap().identity(), "postgres://a:1,b:2/d");
        assert_eq!(parse("postgres://me@[::1]:7/d").unwrap().identity(), "postgres://[::1]:7/d");
        assert_eq!(parse("postgres://me@%2Ftmp/d").unwrap().ssl_mode, SslMode::Disable);
        assert!(parse("postgres://me@h/d").unwrap().secrets().is_empty());
    }

    #[test]
    fn a_password_among_the_parameters_is_a_secret_too() {
        let url = parse("postgres://me@h/d?password=a%20b&sslmode=prefer").unwrap();
        assert!(url.secrets().iter().any(|s| s == "a b") && url.secrets().iter().any(|s| s == "a%20b"));
    }

    #[test]
    fn every_sslmode_of_libpq_is_understood() {
        for (word, mode) in [
            ("disable", SslMode::Disable),
            ("allow", SslMode::Allow),
            ("prefer", SslMode::Prefer),
            ("require", SslMode::Require),
            ("verify-ca", SslMode::VerifyCa),
            ("verify-full", SslMode::VerifyFull),
        ] {
            assert_eq!(parse(&format!("postgres://u@h/d?sslmode={word}")).unwrap().ssl_mode, mode);
        }
        let url = parse("postgres://u@h/d?sslmode=verify-full&sslrootcert=certs%2Fca.pem").unwrap();
        assert_eq!(url.roots, Roots::File(PathBuf::from("/project/certs/ca.pem")));
        assert_eq!(parse("postgres://u@h/d?sslrootcert=system").unwrap().roots, Roots::System);
        assert_eq!(parse("postgres://u@h/d").unwrap().ssl_mode, SslMode::Prefer);
    }

    #[test]
    fn what_cannot_be_understood_is_refused_without_being_repeated() {
        for url in [
            "host=h user=u password=hunter2",
            "postgres://u:hunter2@h/d?sslmode=maybe",
            "postgres://u:hunter2@h/d?nonsense=1",
            "postgres://u:hunter2@h:port/d",
            "postgres://u:hunter2@/d",
            "postgres://u:hunter2@h/d?sslrootcert=%zz",
        ] {
            let message = parse(url).unwrap_err();
            assert!(!message.contains("hunter2"), "{message}");
            assert!(!message.is_empty());
        }
    }

    #[test]
    fn states_become_kinds() {
        for (code, kind) in [
            ("28P01", ErrorKind::Authentication),
            ("42501", ErrorKind::Permission),
            ("42P01", ErrorKind::NotFound),
            ("42P07", ErrorKind::AlreadyExists),
            ("23505", ErrorKind::UniqueViolation),
            ("23502", ErrorKind::Data),
            ("22P02", ErrorKind::Data),
            ("53100", ErrorKind::OutOfSpace),
            ("53300", ErrorKind::Busy),
            ("40001", ErrorKind::Busy),
            ("57014", ErrorKind::Cancelled),
            ("57P01", ErrorKind::ConnectionLost),
            ("08006", ErrorKind::ConnectionLost),
            ("42601", ErrorKind::Invalid),
            ("54011", ErrorKind::Unsupported),
            ("XX000", ErrorKind::Other),
        ] {
            assert_eq!(server_kind(code), kind, "{code}");
        }
    }

    #[test]
    fn names_are_cut_between_characters() {
        assert_eq!(cut("levin/ä", 7), "levin/");
        assert_eq!(cut("levin/ä", 8), "levin/ä");
        assert_eq!(cut("", 63), "");
    }
}
