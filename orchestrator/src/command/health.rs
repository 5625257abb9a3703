//! `levin health`: whether a service answers; for containers, whose images have no other program to ask with.

use std::process::ExitCode;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Context;
use crate::error::{Error, ErrorCode, Exit};

/// How long an answer may take, in all.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest answer that is read: those of both pages are a line.
const ENOUGH: u64 = 4_096;

/// Ask a running service whether it is well
///
/// Asks `/readyz` of a `levin serve`: whether it answers and reaches its store. Reads no project and needs no key, so
/// that a container can ask itself.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  levin health
  levin health 10.0.0.7:8484
  levin health --alive           only whether the process answers, whatever its store does

Exit codes: 0 it is well, 2 it is not.")]
pub struct Args {
    /// Where the service listens
    #[arg(value_name = "HOST:PORT", default_value = "127.0.0.1:8484")]
    address: String,
    /// Ask `/healthz` instead: whether the process answers
    #[arg(long)]
    alive: bool,
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<ExitCode, Error> {
    let path = if args.alive { "/healthz" } else { "/readyz" };
    let unwell =
        |what: String| Error::new(ErrorCode::ServiceUnwell, format!("http://{}{path}: {what}", args.address));
    let answer = tokio::time::timeout(PATIENCE, ask(&args.address, path))
        .await
        .map_err(|_| unwell(format!("no answer within {} s", PATIENCE.as_secs())))?
        .map_err(|error| unwell(error.to_string()))?;
    let (head, said) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split_whitespace().nth(1) {
        Some("200") => {
            context.report.data(said.trim());
            Ok(Exit::Done.into())
        }
        Some(status) => Err(unwell(format!("{status} {}", said.trim()))),
        None => Err(unwell("what answers there does not speak HTTP".to_owned())),
    }
}

async fn ask(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ENOUGH).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
