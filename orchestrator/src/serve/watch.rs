//! The project's files: read again when they change, and only taken when nothing is wrong with them.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use tokio::signal::unix::{SignalKind, signal};

use super::Service;
use crate::config::{self, Kind, PROJECT_FOLDERS};
use crate::error::{Error, ErrorCode};
use crate::project::Project;
use crate::store::{Seen, Store, Times};

/// How often the files are looked at. Looking works on every file system, also where nobody tells of changes: network
/// folders, and folders that a container gets from outside.
const LOOK: Duration = Duration::from_secs(5);

/// For how long they stand still before they are read.
const SETTLED: Duration = Duration::from_millis(300);

/// Watches until the service ends.
pub(super) async fn work(service: Arc<Service>) {
    let root = service.context.root.clone();
    let mut beside = read_beside(&service.project());
    let mut known = (service.files, look_at(&root, &beside));
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
    loop {
        tokio::select! {
            () = service.stopped() => return,
            _ = hangup.recv() => {}
            () = tokio::time::sleep(LOOK) => {
                let seen = (files(&root), look_at(&root, &beside));
                if seen == known {
                    continue;
                }
                // Somebody may still be writing: what is read is what stands still.
                tokio::time::sleep(SETTLED).await;
                if (files(&root), look_at(&root, &beside)) != seen {
                    continue;
                }
            }
        }
        // From before they are read: what changes meanwhile is another change.
        let seen = (files(&root), look_at(&root, &beside));
        match reload(&service).await {
            // The files are right, as far as anybody knows: they are read again.
            Err(error) if error.code == ErrorCode::StoreFailed => {
                tracing::warn!(error = %error, "the project could not be taken; it is again in a moment");
            }
            Err(error) => {
                tracing::error!(error = %error, "the project is wrong now; the one read before stays");
                known = seen;
            }
            Ok(()) => {
                known = seen;
                let named = read_beside(&service.project());
                if named != beside {
                    known.1 = look_at(&root, &named);
                    beside = named;
                }
            }
        }
    }
}

/// The files that models name, which may lie anywhere: SQL, and what dbt writes.
fn read_beside(project: &Project) -> BTreeSet<PathBuf> {
    let models = project.written.iter().filter(|((kind, _), _)| *kind == Kind::Model);
    let named = models.filter(|(_, written)| {
        written.text.contains("\"sql_file\"") || written.text.contains("\"manifest\"")
    });
    let paths = named.flat_map(|(_, written)| {
        let keys = written.keys();
        [keys.get("sql_file").cloned(), keys.get("dbt").map(|dbt| dbt["manifest"].clone())]
    });
    paths.flatten().filter_map(|path| path.as_str().map(PathBuf::from)).collect()
}

/// What a look at these comes to.
fn look_at(root: &Path, paths: &BTreeSet<PathBuf>) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for path in paths {
        look(&mut hasher, &root.join(path));
    }
    hasher.finalize()
}

fn look(hasher: &mut blake3::Hasher, path: &Path) {
    let Ok(metadata) = std::fs::metadata(path) else { return };
    let changed =
        metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    hasher.update(path.as_os_str().as_encoded_bytes());
    hasher.update(&changed.as_nanos().to_le_bytes());
    hasher.update(&metadata.len().to_le_bytes());
}

pub(super) async fn reload(service: &Service) -> Result<(), Error> {
    let context = service.context.clone();
    let loaded = tokio::task::spawn_blocking(move || context.project()).await;
    take(service, loaded.map_err(|e| Error::new(ErrorCode::Internal, e.to_string()))??).await
}

/// Goes on with a project as it was read just now.
pub(super) async fn take(service: &Service, project: Project) -> Result<(), Error> {
    let before = service.project();
    if project.uuid != before.uuid || project.store_url != before.store_url {
        let message = "the files are those of another project, or name another store";
        return Err(Error::new(ErrorCode::ProjectInvalid, message).hint("start `levin serve` again"));
    }
    let times = times(&service.store, &project).await?;
    *service.times.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(times);
    let count = project.syncs.len();
    crate::telemetry::metrics::at_zero(&project);
    service.project.send_replace(Arc::new(project));
    tracing::info!(syncs = count, "the project was read again");
    Ok(())
}

/// Notes which objects the project has.
pub(super) async fn times(store: &Store, project: &Project) -> Result<HashMap<(String, i64), Times>, Error> {
    let mut seen: Vec<Seen> = project
        .written
        .iter()
        .map(|((kind, id), written)| Seen {
            kind: kind.name(),
            id: *id,
            digest: written.digest.to_hex().to_string(),
        })
        .collect();
    seen.sort_by_key(|object| (object.kind, object.id));
    store.note_objects(&seen).await
}

/// What a look at the files of a project comes to: other when one of them changed.
pub fn files(root: &Path) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for file in [config::PROJECT_FILE, config::LOCK_FILE] {
        look(&mut hasher, &root.join(file));
    }
    for folder in PROJECT_FOLDERS {
        let Ok(entries) = std::fs::read_dir(root.join(folder)) else { continue };
        let mut paths: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
        paths.sort();
        for path in &paths {
            look(&mut hasher, path);
        }
    }
    hasher.finalize()
}
