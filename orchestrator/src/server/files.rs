//! Changes of the project: a file is written, the whole project is checked with it, and when anything is wrong the file
//! is put back.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::Api;
use super::fault::Fault;
use super::request::Body;
use crate::command::Context;
use crate::config::{Kind, Severity, as_yaml, read_as_written};
use crate::error::{Error, ErrorCode};
use crate::project::Project;

/// Keys of a source's or destination's file that are none of its connector's.
pub(super) const OF_CONNECTED: [&str; 3] = ["type", "slug", "renamed_from"];

/// The keys of an object's file.
pub(super) type Keys = Map<String, Value>;

impl Api {
    /// Writes the file of a new object, and takes the project with it.
    pub(super) async fn create(&self, kind: Kind, slug: &str, keys: Keys) -> Result<(), Fault> {
        let _alone = self.changing.lock().await;
        if exists(self, kind, slug) {
            let message = format!("there is a {} `{slug}`", kind.name());
            return Err(Fault::new(StatusCode::CONFLICT, message, "choose another slug"));
        }
        let path = PathBuf::from(kind.folder()).join(format!("{slug}.yml"));
        if self.service.context().root.join(&path).exists() {
            let message = format!("there is a file `{}`, whose object has another slug", path.display());
            return Err(Fault::new(StatusCode::CONFLICT, message, "choose another slug"));
        }
        self.change(path, keys, None).await
    }

    /// Changes the file of an object. `edit` gets its keys as they are written.
    pub(super) async fn update(&self, file: &Path, edit: impl FnOnce(&mut Keys)) -> Result<(), Fault> {
        let _alone = self.changing.lock().await;
        let path = self.service.context().root.join(file);
        let before = std::fs::read(&path).map_err(|error| unwritable(file, &error))?;
        let Value::Object(mut keys) = read_as_written(&path)? else {
            return Err(Error::new(ErrorCode::Internal, "a project file that is no mapping was taken").into());
        };
        let was = keys.clone();
        edit(&mut keys);
        // What says the same keeps its form and its comments.
        if keys == was {
            return Ok(());
        }
        self.change(file.to_owned(), keys, Some(before)).await
    }

    /// Creates an object whose keys are those of its connector: a source, or a destination. Returns its slug.
    pub(super) async fn create_connected(&self, kind: Kind, body: &mut Body) -> Result<String, Fault> {
        body.only(&["name", "slug", "type", "configuration"]);
        body.required(&["type", "configuration"]);
        let (slug, connector) = (slug_of(body), body.text("type"));
        let keys = configuration(body, &OF_CONNECTED, &Keys::new());
        body.checked()?;
        let mut file = Keys::new();
        file.insert("type".to_owned(), connector.unwrap_or_default().into());
        merge(&mut file, keys);
        self.create(kind, &slug, file).await?;
        Ok(slug)
    }

    /// Changes the keys of one.
    pub(super) async fn update_connected(
        &self,
        (kind, id): (Kind, i64),
        file: &Path,
        slug: &str,
        body: &mut Body,
    ) -> Result<(), Fault> {
        body.only(&["name", "configuration"]);
        let keys = configuration(body, &OF_CONNECTED, &self.written(kind, id, &OF_CONNECTED));
        same_name(body, slug)?;
        self.update(file, |file| merge(file, keys)).await
    }

    /// Writes a file and takes the project with it; else everything is as before.
    async fn change(&self, file: PathBuf, keys: Keys, before: Option<Vec<u8>>) -> Result<(), Fault> {
        let context = self.service.context().clone();
        let text = as_yaml(&Value::Object(keys));
        let checked = tokio::task::spawn_blocking({
            let (file, before) = (file.clone(), before.clone());
            move || {
                write(&context.root, &file, text.as_bytes())?;
                check(&context).inspect_err(|_| put_back(&context.root, &file, before.as_deref()))
            }
        });
        let project = checked.await.map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))??;
        if let Err(error) = self.service.take(project).await {
            put_back(&self.service.context().root, &file, before.as_deref());
            return Err(error.into());
        }
        Ok(())
    }
}

fn exists(api: &Api, kind: Kind, slug: &str) -> bool {
    let project = api.service.project();
    match kind {
        Kind::Source => project.sources.iter().any(|object| object.slug == slug),
        Kind::Model => project.models.iter().any(|object| object.slug == slug),
        Kind::Destination => project.destinations.iter().any(|object| object.slug == slug),
        Kind::Sync => project.syncs.iter().any(|object| object.slug == slug),
        Kind::Sequence => project.sequences.iter().any(|object| object.slug == slug),
        Kind::Channel => project.channels.iter().any(|object| object.slug == slug),
        Kind::Hook => project.hooks.iter().any(|object| object.slug == slug),
        Kind::Project => false,
    }
}

/// Writes a file beside the old one and moves it into place, so that nobody reads half of it.
fn write(root: &Path, file: &Path, bytes: &[u8]) -> Result<(), Fault> {
    let path = root.join(file);
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let written = path
        .parent()
        .map_or(Ok(()), std::fs::create_dir_all)
        .and_then(|()| std::fs::File::create(&beside))
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&beside, &path));
    written.map_err(|error| {
        // The error to report is the first.
        let _ = std::fs::remove_file(&beside);
        unwritable(file, &error)
    })
}

fn put_back(root: &Path, file: &Path, before: Option<&[u8]>) {
    let put = match before {
        Some(bytes) => write(root, file, bytes).is_ok(),
        None => std::fs::remove_file(root.join(file)).is_ok(),
    };
    if !put {
        tracing::error!(file = %file.display(), "the file could not be put back as it was");
    }
}

fn unwritable(file: &Path, error: &std::io::Error) -> Fault {
    let readonly = matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem);
    let message = format!("`{}` cannot be written: {error}", file.display());
    let advice = if readonly {
        "the project's folder is read-only here: change the files where they come from (git), and levin reads them"
    } else {
        "see to the project's folder, and ask again"
    };
    Fault::new(StatusCode::CONFLICT, message, advice)
}

/// Reads the whole project as it lies there now.
fn check(context: &Context) -> Result<Project, Fault> {
    let loaded = context.look(false).map_err(|error| {
        let message = error.message.clone();
        Fault::new(StatusCode::CONFLICT, message, error.advice())
    })?;
    let mistakes: Vec<Value> = loaded
        .findings
        .iter()
        .filter(|finding| finding.severity == Severity::Mistake)
        .map(|finding| {
            json!({
                "file": finding.place.file.to_string_lossy(), "line": finding.place.line, "code": finding.code.name(),
                "message": finding.message, "hint": finding.hint,
            })
        })
        .collect();
    if let (true, Some(project)) = (mistakes.is_empty(), loaded.project) {
        return Ok(project);
    }
    let details = json!({"findings": mistakes});
    Err(Fault::new(StatusCode::UNPROCESSABLE_ENTITY, "Validation failed", details))
}

/// The slug of a new object, from `slug` or `name`.
pub(super) fn slug_of(body: &mut Body) -> String {
    let (slug, name) = (body.text_or_null("slug"), body.text_or_null("name"));
    let from_name = |name: String| {
        let word = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let words: String = name.chars().map(word).collect();
        words.split('-').filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-")
    };
    let slug = slug.or_else(|| name.map(from_name)).unwrap_or_default();
    let fits = slug.len() <= 100
        && slug.starts_with(|c: char| c.is_ascii_alphanumeric())
        && slug.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    if !fits {
        body.say(
            "slug",
            "must be up to 100 letters, digits, `-`, `_` and `.`, and begin with a letter or digit",
        );
    }
    slug
}

/// The keys of `configuration`, without those that are said elsewhere, and those that say what is shown; keys that are
/// null come too.
pub(super) fn configuration(body: &mut Body, elsewhere: &[&str], shown: &Keys) -> Keys {
    let mut keys = match body.value("configuration") {
        None => return Keys::new(),
        Some(Value::Object(keys)) => keys.clone(),
        Some(_) => {
            body.say("configuration", "must be an object");
            return Keys::new();
        }
    };
    for key in elsewhere.iter().filter(|key| keys.contains_key(**key)) {
        body.say(&format!("configuration.{key}"), "is said beside `configuration`, not in it");
    }
    // What is shown is not all that the file says: what is secret is left out, and some of it is put in other words.
    keys.retain(|key, value| !shown.get(key).is_some_and(|shown| same(shown, value)));
    keys
}

/// Whether two values say the same: clients that know only one kind of number write 7 as `7.0`.
pub(super) fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one == other || one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(key, one)| other.get(key).is_some_and(|other| same(one, other)))
        }
        _ => one == other,
    }
}

/// Takes other values in: null takes a key out.
pub(super) fn merge(keys: &mut Keys, more: Keys) {
    for (key, value) in more {
        if value.is_null() {
            keys.remove(&key);
        } else {
            keys.insert(key, value);
        }
    }
}

/// An object's name is its slug. Asked last: then everything else in the body is right.
pub(super) fn same_name(body: &mut Body, slug: &str) -> Result<(), Fault> {
    let name = body.text_or_null("name");
    body.checked()?;
    if name.is_none_or(|name| name == slug) {
        return Ok(());
    }
    let advice = "rename it in its file, with `renamed_from`";
    Err(Fault::new(StatusCode::CONFLICT, "an object's name is its slug, which cannot change here", advice))
}
