//! E-mail, through a server that speaks SMTP.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use lettre::message::header::ContentType;
use lettre::message::{Mailbox, Mailboxes, MessageBuilder};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use schemars::{JsonSchema, schema_for};
use serde::Deserialize;
use serde_json::Value;

use super::{Channel, Notice, Severity, TIMEOUT, Unsent};
use crate::catalogue::{BuildContext, ChannelConnector, ConfigError};
use crate::http::{Redactor, chain};

/// The catalogue's line.
pub static EMAIL: ChannelConnector = ChannelConnector {
    name: "email",
    title: "E-mail",
    summary: "Sends mail through an SMTP server. Messages of one alert form a thread.",
    config_schema: || schema_for!(Config),
    build,
};

/// The channel's file. Not `Debug`: it holds secrets.
#[derive(Clone, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Config {
    /// The name of the SMTP server.
    #[schemars(length(min = 1))]
    host: String,
    /// Its port. Default: 587 with `starttls`, 465 with `tls`, 25 with `plain`.
    #[serde(default)]
    #[schemars(range(min = 1))]
    port: Option<u16>,
    /// How the connection is kept secret.
    #[serde(default)]
    tls: Secrecy,
    /// The user, where the server asks for one.
    #[serde(default)]
    username: Option<String>,
    /// The password.
    #[serde(default)]
    #[schemars(extend("x-secret" = true))]
    password: Option<String>,
    /// Who it comes from: `levin@example.com`, or `Levin <levin@example.com>`.
    #[schemars(length(min = 1))]
    from: String,
    /// Who gets it: one address or several.
    #[schemars(length(min = 1))]
    to: Vec<String>,
}

/// How a connection is kept secret.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Secrecy {
    /// It begins in the open and becomes secret before anything is said; never without.
    #[default]
    Starttls,
    /// It is secret from its first byte.
    Tls,
    /// It stays in the open. Only to this machine.
    Plain,
}

struct Email {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    to: Mailboxes,
    redactor: Redactor,
}

impl std::fmt::Debug for Email {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Email").field("from", &self.from).finish_non_exhaustive()
    }
}

fn build(config: Value, context: &BuildContext) -> Result<Arc<dyn Channel>, ConfigError> {
    let wrong = |path: &str, message: String| ConfigError { path: path.to_owned(), message };
    let config: Config = serde_json::from_value(config).map_err(|error| wrong("", error.to_string()))?;
    let mailbox = |path: String, text: &str| -> Result<Mailbox, ConfigError> {
        text.parse().map_err(|error| wrong(&path, format!("`{text}` is no address of e-mail: {error}")))
    };
    let from = mailbox("from".to_owned(), &config.from)?;
    let mut to = Mailboxes::new();
    for (index, address) in config.to.iter().enumerate() {
        to.push(mailbox(format!("to[{index}]"), address)?);
    }
    let host = config.host.as_str();
    let (tls, port) = match config.tls {
        Secrecy::Plain if !is_this_machine(host) => {
            return Err(wrong(
                "tls",
                "`plain` is only for this machine (localhost): use `starttls` or `tls`".to_owned(),
            ));
        }
        Secrecy::Plain => (Tls::None, 25),
        Secrecy::Starttls | Secrecy::Tls => {
            let parameters = TlsParameters::new(host.to_owned())
                .map_err(|error| wrong("host", format!("TLS cannot be set up: {}", chain(&error))))?;
            match config.tls {
                Secrecy::Tls => (Tls::Wrapper(parameters), 465),
                _ => (Tls::Required(parameters), 587),
            }
        }
    };
    let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)
        .port(config.port.unwrap_or(port))
        .tls(tls)
        .timeout(Some(TIMEOUT / 2));
    let mut secrets = context.secrets.clone();
    match (config.username, config.password) {
        (Some(username), Some(password)) => {
            secrets.push(password.clone());
            transport = transport.credentials(Credentials::new(username, password));
        }
        (None, None) => {}
        (Some(_), None) => return Err(wrong("username", "needs `password` beside it".to_owned())),
        (None, Some(_)) => return Err(wrong("password", "needs `username` beside it".to_owned())),
    }
    Ok(Arc::new(Email { transport: transport.build(), from, to, redactor: Redactor::new(&secrets) }))
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl Email {
    fn message(&self, notice: &Notice) -> Result<Message, lettre::error::Error> {
        let word = match notice.severity {
            Severity::Ok => "OK",
            Severity::Warning => "WARNING",
            Severity::Critical => "CRITICAL",
        };
        let domain = self.from.email.domain();
        let plain = |text: &str| -> String {
            text.chars()
                .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' })
                .collect()
        };
        let mut builder: MessageBuilder = Message::builder()
            .from(self.from.clone())
            .subject(format!("{word}: {}", notice.title))
            .date(notice.at.into())
            .message_id(Some(format!("<{}@{domain}>", plain(&notice.id))))
            .references(format!("<{}@{domain}>", plain(&notice.thread)))
            .header(ContentType::TEXT_PLAIN);
        for mailbox in self.to.iter() {
            builder = builder.to(mailbox.clone());
        }
        builder.body(format!("{}\n\n{}\n", notice.title, notice.text()))
    }
}

#[async_trait]
impl Channel for Email {
    async fn send(&self, notice: &Notice) -> Result<(), Unsent> {
        let unsent = |text: String| Unsent::new(self.redactor.redact(&text));
        let message = self.message(notice).map_err(|error| unsent(chain(&error)))?;
        match tokio::time::timeout(TIMEOUT, self.transport.send(message)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(unsent(chain(&error))),
            Err(_) => Err(unsent(format!(
                "the mail server did not take the message within {} s",
                TIMEOUT.as_secs()
            ))),
        }
    }
}
