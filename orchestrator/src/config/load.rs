//! Reads the files of a project and checks each by itself; `resolve` then checks them together.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::bounds;
use super::dbt::Manifests;
use super::finding::{Finding, Findings, Severity};
use super::lock::Lock;
use super::resolve::Resolver;
use super::schema::{self, Kind};
use super::secrets::{self, Interpolation};
use super::shape::Shape;
use super::yaml::{self, Node, Tree};
use super::{LoadOptions, Loaded};
use crate::catalogue::Catalogue;
use crate::error::{Error, ErrorCode, Place};
use crate::project::Written;
use crate::redact::Redactor;
use crate::suggestion;

/// The file that makes a folder a project.
pub const PROJECT_FILE: &str = "levin.yml";

/// A project file, read.
#[derive(Debug)]
pub(super) struct ProjectFile {
    pub(super) kind: Kind,
    /// Relative to the project.
    pub(super) path: PathBuf,
    pub(super) slug: String,
    pub(super) node: Node,
    /// Whether every `${…}` could be read.
    pub(super) complete: bool,
    /// A digest of its text.
    digest: blake3::Hash,
    /// What may be shown of it.
    shown: Box<str>,
    /// The top-level keys below which the shape is wrong.
    wrong: BTreeSet<String>,
}

impl ProjectFile {
    /// Whether nothing is wrong with the shape of a key, so that its meaning is worth checking.
    pub(super) fn sound(&self, key: &str) -> bool {
        !self.wrong.contains(key)
    }

    /// Whether nothing at all is wrong with the file's shape and secrets.
    pub(super) fn usable(&self) -> bool {
        self.complete && self.wrong.is_empty()
    }

    /// The keys that all files of the kind have, in their written form, without those whose shape
    /// is wrong; `None` when it takes those.
    pub(super) fn written<T: DeserializeOwned>(&self, findings: &mut Findings) -> Option<T> {
        let shared = schema::base(self.kind);
        let mut json = self.node.json();
        if let Value::Object(map) = &mut json {
            map.retain(|key, _| shared["properties"].get(key).is_some() && self.sound(key));
        }
        match serde_json::from_value(json) {
            Ok(written) => Some(written),
            Err(_) if !self.wrong.is_empty() => None,
            Err(error) => {
                findings.mistake(&self.path, self.node.line, format!("the file cannot be used: {error}"));
                None
            }
        }
    }

    /// The connector's own keys.
    pub(super) fn own_keys(&self) -> Value {
        let shared = schema::base(self.kind);
        let mut json = self.node.json();
        if let Value::Object(map) = &mut json {
            map.retain(|key, _| shared["properties"].get(key).is_none());
        }
        json
    }
}

/// Loads the project in a folder: reads every file, checks all of them and, when nothing is
/// wrong, gives numbers to new objects in `levin.lock.yml`.
///
/// Everything wrong in the files is a finding. Errors are `PROJECT_NOT_FOUND`, and a
/// `LOCK_FILE_INVALID` that is about writing.
pub fn load(
    root: &Path,
    catalogue: &Catalogue,
    redactor: &Redactor,
    options: LoadOptions<'_>,
) -> Result<Loaded, Error> {
    if !root.join(PROJECT_FILE).is_file() {
        let folder = root.display();
        return Err(Error::new(
            ErrorCode::ProjectNotFound,
            format!("there is no `{PROJECT_FILE}` in `{folder}`"),
        ));
    }
    let mut loader =
        Loader { root, catalogue, redactor, options, findings: Findings::default(), shapes: HashMap::new() };
    let mut project_file = loader.read(Kind::Project, PathBuf::from(PROJECT_FILE));
    let mut files: Vec<ProjectFile> = Vec::new();
    for kind in Kind::OBJECTS {
        for path in loader.paths(kind) {
            files.extend(loader.read(kind, path));
        }
    }
    loader.check_slugs(&files);

    let types: HashMap<String, String> = files
        .iter()
        .filter(|file| file.kind == Kind::Destination)
        .filter_map(|file| Some((file.slug.clone(), file.node.text("type")?.to_owned())))
        .collect();
    for file in project_file.iter_mut().chain(&mut files) {
        (file.wrong, file.shown) = loader.check_shape(file, &types);
    }

    // Two commands that meet a new object at the same moment must give it the same number.
    let _exclusive = hold(root);
    let existing = match Lock::read(root) {
        Ok(existing) => existing,
        Err(error) => {
            let place =
                error.place.clone().unwrap_or(Place { file: PathBuf::from(super::lock::FILE), line: 1 });
            loader.findings.0.push(Finding {
                place,
                severity: Severity::Mistake,
                code: error.code,
                message: error.message.clone(),
                hint: Some(error.advice().to_owned()),
            });
            None
        }
    };
    let mut lock = existing.clone().unwrap_or_else(Lock::new);
    let complete = project_file.iter().chain(&files).all(|file| file.complete);
    let resolver = Resolver {
        root,
        catalogue,
        redactor,
        files: &files,
        findings: &mut loader.findings,
        lock: &mut lock,
        manifests: Manifests::default(),
    };
    let mut project = resolver.resolve(project_file.as_ref());
    if let Some(project) = &mut project {
        let numbered = files.into_iter().filter(|file| file.kind.is_numbered());
        let written = numbered.map(|file| {
            let id = lock.id(file.kind, &file.slug);
            ((file.kind, id), Written { digest: file.digest, text: file.shown })
        });
        project.written = Arc::new(written.collect());
    }
    let sound = !loader.findings.has_mistakes();
    if sound && complete && existing.as_ref() != Some(&lock) {
        lock.write(root)?;
    }
    let mut findings = loader.findings.sorted();
    for finding in &mut findings {
        finding.make_readable(redactor);
    }
    Ok(Loaded { findings, project: project.filter(|_| sound && complete) })
}

/// A digest of all that the files say.
pub(super) fn digest_of(project_file: Option<&ProjectFile>, files: &[ProjectFile]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for file in project_file.into_iter().chain(files) {
        hasher.update(file.path.as_os_str().as_encoded_bytes()).update(file.digest.as_bytes());
    }
    hasher.finalize()
}

/// Keeps other processes from giving out numbers in this project until it is dropped. Where the
/// file system cannot lock a folder, the atomic renaming of the file has to do.
fn hold(root: &Path) -> Option<std::fs::File> {
    let folder = std::fs::File::open(root).ok()?;
    rustix::fs::flock(&folder, rustix::fs::FlockOperation::LockExclusive).ok()?;
    Some(folder)
}

struct Loader<'a> {
    root: &'a Path,
    catalogue: &'a Catalogue,
    redactor: &'a Redactor,
    options: LoadOptions<'a>,
    findings: Findings,
    /// Schemas by kind, connector and whether its type is unknown, each made once.
    shapes: HashMap<(Kind, String, bool), Shape>,
}

impl Loader<'_> {
    /// The files of a kind, sorted by name.
    fn paths(&mut self, kind: Kind) -> Vec<PathBuf> {
        let folder = PathBuf::from(kind.folder());
        let entries = match std::fs::read_dir(self.root.join(&folder)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => {
                self.findings.mistake(&folder, 1, format!("the folder cannot be read: {error}"));
                return Vec::new();
            }
        };
        let mut paths: Vec<PathBuf> = entries
            .filter_map(Result::ok)
            .map(|entry| folder.join(entry.file_name()))
            .filter(|path| {
                let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
                !hidden && path.extension().is_some_and(|extension| extension == "yml" || extension == "yaml")
            })
            .collect();
        paths.sort();
        paths
    }

    /// Reads a file and its `${…}`; `None`, with a finding, when it is no YAML.
    fn read(&mut self, kind: Kind, path: PathBuf) -> Option<ProjectFile> {
        let text = match bounds::read(&self.root.join(&path)) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                self.findings.mistake(&path, 1, "the file is not UTF-8 text");
                return None;
            }
            Err(error) => {
                self.findings.mistake(&path, 1, format!("the file cannot be read: {error}"));
                return None;
            }
        };
        let mut node = match yaml::parse(&text) {
            Ok(node) => node,
            Err(error) => {
                self.findings.mistake(&path, error.line, error.message).hint = error.hint;
                return None;
            }
        };
        let interpolation = Interpolation {
            root: self.root,
            environment: self.options.environment,
            redactor: self.redactor,
            lenient: self.options.offline,
        };
        let complete = interpolation.resolve(&path, &mut node, &mut self.findings);
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let slug = match node.entry("slug").map(|entry| &entry.value.tree) {
            Some(Tree::Text(text)) if !text.resolved.is_empty() => text.resolved.clone(),
            // Not a text: a mistake of its own, but references to it are not to be blamed.
            Some(Tree::Integer(number)) => number.to_string(),
            _ => stem,
        };
        let digest = blake3::hash(text.as_bytes());
        let shown = Box::default();
        Some(ProjectFile { kind, path, slug, node, complete, digest, shown, wrong: BTreeSet::new() })
    }

    /// Every slug once per kind, and file names that can be slugs.
    fn check_slugs(&mut self, files: &[ProjectFile]) {
        let mut first: HashMap<(Kind, &str), &ProjectFile> = HashMap::new();
        for file in files {
            let kind = file.kind.name();
            if let Some(other) = first.get(&(file.kind, file.slug.as_str())) {
                let message = format!(
                    "two {kind}s have the slug `{}`: `{}` is the other",
                    file.slug,
                    other.path.display()
                );
                let line = file.node.line_of("slug");
                self.findings.mistake(&file.path, line, message).hint("give one of them another `slug:`");
            } else {
                first.insert((file.kind, &file.slug), file);
            }
            if file.node.entry("slug").is_none() && !is_slug(&file.slug) {
                let message = format!("the file's name `{}` cannot be a slug", file.slug);
                self.findings
                    .mistake(&file.path, 1, message)
                    .hint("rename the file to letters, digits, `-`, `_` and `.`, or give it a `slug:`");
            }
        }
    }

    /// Checks a file's shape against its kind and connector, and looks for secrets in clear.
    fn check_shape(
        &mut self,
        file: &ProjectFile,
        types: &HashMap<String, String>,
    ) -> (BTreeSet<String>, Box<str>) {
        let written_type = file.node.text("type");
        let connector = match file.kind {
            Kind::Source | Kind::Destination | Kind::Channel | Kind::Hook => written_type.map(str::to_owned),
            Kind::Sync => file.node.text("destination").and_then(|slug| types.get(slug)).cloned(),
            Kind::Project | Kind::Model | Kind::Sequence => None,
        };
        let catalogue = self.catalogue;
        let (own, names): (_, Vec<&str>) = match (file.kind, connector.as_deref()) {
            (Kind::Source, Some(name)) => (
                catalogue.source(name).map(|connector| (connector.config_schema)()),
                catalogue.sources.iter().map(|connector| connector.name).collect(),
            ),
            (Kind::Destination, Some(name)) => (
                catalogue.destination(name).map(|connector| (connector.config_schema)()),
                catalogue.destinations.iter().map(|connector| connector.name).collect(),
            ),
            (Kind::Channel, Some(name)) => (
                catalogue.channel(name).map(|connector| (connector.config_schema)()),
                catalogue.channels.iter().map(|connector| connector.name).collect(),
            ),
            (Kind::Hook, Some(name)) => (
                catalogue.hook(name).map(|connector| (connector.config_schema)()),
                catalogue.hooks.iter().map(|connector| connector.name).collect(),
            ),
            (Kind::Sync, Some(name)) => {
                (catalogue.destination(name).map(|connector| (connector.options_schema)()), Vec::new())
            }
            _ => (None, Vec::new()),
        };
        let typed = matches!(file.kind, Kind::Source | Kind::Destination | Kind::Channel | Kind::Hook);
        if let (true, Some(name), None) = (typed, &connector, &own) {
            let message = format!("there is no {} of type `{name}`", file.kind.name());
            self.findings
                .mistake(&file.path, file.node.line_of("type"), message)
                .hint(suggestion::hint(name, &names, "types"));
        }
        let unknown_type = own.is_none() && connector.is_some();
        let name = if own.is_some() { connector.unwrap_or_default() } else { String::new() };
        let shape = self.shapes.entry((file.kind, name.clone(), unknown_type)).or_insert_with(|| {
            Shape::new(match (&own, file.kind) {
                (Some(own), kind) => schema::joined(schema::base(kind), &name, own),
                // Without a destination the keys that any connector has may stand; beside an unknown type, all.
                (None, Kind::Sync) if !unknown_type => schema::published(catalogue, Kind::Sync),
                (None, kind) if typed || kind == Kind::Sync => schema::open(schema::base(kind)),
                (None, kind) => schema::base(kind),
            })
        });
        secrets::warn_of_clear_secrets(
            &file.path,
            &file.node,
            &shape.schema,
            self.redactor,
            &mut self.findings,
        );
        let shown = secrets::shown(&file.node, &shape.schema).to_string().into();
        (shape.check(&file.path, &file.node, &mut self.findings), shown)
    }
}

/// Whether a text can be a slug.
fn is_slug(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}
