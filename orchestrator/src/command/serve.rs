//! `levin serve`: schedules, the API, and whatever else works without anybody watching.

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use super::Context;
use crate::error::{Error, ErrorCode, Exit};
use crate::report::counted;
use crate::serve::{self, Service};
use crate::server;
use crate::store::Store;

/// Run schedules and the API until stopped
///
/// Runs every sync and sequence as its schedule says, answers the REST API under /api/v1, and reads the project again
/// when its files change. Several replicas may share a store on Postgres: each due run starts on one of them, and
/// another takes over when that one is gone. SIGTERM ends it gracefully: requests under way are finished and committed,
/// and runs that are not done go back to the queue. SIGHUP reads the project again at once.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  levin serve
  levin serve --listen 0.0.0.0:8484    let other machines in; every request needs a key
  levin keys create airflow --scope run    a key for whoever asks
  curl -H \"Authorization: Bearer $KEY\" http://127.0.0.1:8484/api/v1/syncs")]
pub struct Args {
    /// The address and port to listen on. Default: `serve: {listen: …}` of levin.yml, else 127.0.0.1:8484
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<ExitCode, Error> {
    // From here on a hang-up ends nobody, also before somebody listens for it.
    let _heard = signal(SignalKind::hangup()).ok();
    let files = serve::files(&context.root);
    let project = context.project()?;
    let store = Store::of(&project).await?;
    let address = args.listen.unwrap_or_else(|| project.serve.listen.clone());
    let listener = tokio::net::TcpListener::bind(&address).await.map_err(|error| {
        Error::new(ErrorCode::ListenFailed, format!("cannot listen on {address}: {error}"))
    })?;
    let local = listener
        .local_addr()
        .map_err(|error| Error::new(ErrorCode::ListenFailed, format!("{address}: {error}")))?;
    let scheduled = project.syncs.iter().filter(|sync| sync.schedule.is_some()).count();
    let syncs = counted(project.syncs.len() as u64, "sync");
    let service = Service::new(context.clone(), project, store, files).await?;
    context.report.note(&format!("listening on http://{local} · {syncs}, {scheduled} of them scheduled"));
    tokio::spawn(stop_on_signal(service.clone(), context.clone()));
    let work = tokio::spawn({
        let service = service.clone();
        async move { service.work().await }
    });
    server::answer(listener, service.clone()).await;
    work.await.map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))?;
    Ok(Exit::Done.into())
}

/// The first signal asks for a graceful end, the second ends at once.
async fn stop_on_signal(service: std::sync::Arc<Service>, context: Context) {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
    let Ok(mut interrupt) = signal(SignalKind::interrupt()) else { return };
    for asked in 1.. {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if asked > 1 {
            context.report.note("stopped at once; whoever comes next takes over what was under way");
            #[expect(clippy::disallowed_methods, reason = "someone asked twice to end now")]
            std::process::exit(Exit::Failed as i32);
        }
        context
            .report
            .note("stopping: requests under way are finished and committed (again to stop at once)");
        service.stop();
    }
}
