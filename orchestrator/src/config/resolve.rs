//! From files as written to checked specs: the one place where they meet.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use connectors::catalogue::{BuildContext, ConfigError};
use connectors::change::{Mode, OnRemoved};
use serde::Deserialize;

use super::alerts::collected;
use super::dbt::{DbtModel, Manifests};
use super::file::{
    DbtConfig, DestinationConfig, GuardsConfig, LimitConfig, Matches, MemberConfig, ModelConfig,
    ProjectConfig, ScheduleConfig, SequenceConfig, ServeConfig, SourceConfig, SyncConfig, Words,
};
use super::finding::Findings;
use super::load::ProjectFile;
use super::lock::{Lock, Renaming};
use super::schedule;
use super::schema::Kind;
use super::secrets::reason;
use super::yaml::Step;
use crate::catalogue::Catalogue;
use crate::project::{
    DestinationSpec, Engine, Guards, Limit, MatchField, MemberSpec, ModelQuery, ModelSpec, OnFailure,
    Project, Schedule, SequenceSpec, ServeSpec, SourceSpec, SyncSpec,
};
use crate::redact::Redactor;
use crate::run::{Meaning, model_sql};
use crate::suggestion;

/// All files of a project, and what is needed to check them together.
pub(super) struct Resolver<'a> {
    pub(super) root: &'a Path,
    pub(super) catalogue: &'a Catalogue,
    pub(super) redactor: &'a Redactor,
    pub(super) files: &'a [ProjectFile],
    pub(super) findings: &'a mut Findings,
    pub(super) lock: &'a mut Lock,
    pub(super) manifests: Manifests,
}

type BySlug<T> = BTreeMap<String, Arc<T>>;

impl Resolver<'_> {
    /// Checks everything; `None` when the project as such cannot be used. Objects that cannot be
    /// used are left out, each with a finding.
    pub(super) fn resolve(mut self, project_file: Option<&ProjectFile>) -> Option<Project> {
        self.check_references();
        self.check_channels(project_file);
        self.check_renamings();
        let files = self.files;
        let ids: HashMap<(Kind, &str), i64> = files
            .iter()
            .filter(|file| file.kind.is_numbered())
            .map(|file| ((file.kind, file.slug.as_str()), self.lock.id(file.kind, &file.slug)))
            .collect();
        let id = |file: &ProjectFile| ids.get(&(file.kind, file.slug.as_str())).copied().unwrap_or_default();

        let mut sources = BySlug::new();
        let mut models = BySlug::new();
        let mut destinations = BySlug::new();
        let mut syncs = BySlug::new();
        let mut sequences = BySlug::new();
        for file in files {
            match file.kind {
                Kind::Project | Kind::Channel | Kind::Hook => {}
                Kind::Source => insert(&mut sources, file, self.source(file, id(file))),
                Kind::Model => insert(&mut models, file, self.model(file, id(file), &sources)),
                Kind::Destination => insert(&mut destinations, file, self.destination(file, id(file))),
                Kind::Sync => {
                    let sync = self.sync(project_file, file, id(file), &models, &destinations);
                    insert(&mut syncs, file, sync);
                }
                Kind::Sequence => insert(&mut sequences, file, self.sequence(file, id(file))),
            }
        }
        let of = |kind: Kind| files.iter().filter(move |file| file.kind == kind);
        let channels = collected(of(Kind::Channel).map(|file| self.channel(file)));
        let hooks = collected(of(Kind::Hook).map(|file| self.hook(file)));
        self.check_cycles();

        let file = project_file?;
        // Looked at by itself first: another mistake in the file must not hide this one.
        let lease = file.node.text("lease").map(|text| self.duration(file, "lease", text));
        let written: ProjectConfig = file.written(self.findings)?;
        let lease = match lease {
            Some(lease) => lease?,
            None => self.duration(file, "lease", &written.lease)?,
        };
        let serve = self.serve(file, written.serve)?;
        Some(Project {
            root: self.root.to_owned(),
            name: written.name,
            uuid: self.lock.project,
            store_url: written.store,
            lease,
            serve,
            sources: sources.into_values().collect(),
            models: models.into_values().collect(),
            destinations: destinations.into_values().collect(),
            syncs: syncs.into_values().collect(),
            sequences: sequences.into_values().collect(),
            channels,
            hooks,
            written: Arc::default(),
            digest: super::load::digest_of(project_file, self.files),
        })
    }

    fn slugs(&self, kind: Kind) -> Vec<&str> {
        self.files.iter().filter(|file| file.kind == kind).map(|file| file.slug.as_str()).collect()
    }

    /// Every slug that a file names is that of another file.
    fn check_references(&mut self) {
        let mut unknown = Vec::new();
        let known: HashSet<(Kind, &str)> =
            self.files.iter().map(|file| (file.kind, file.slug.as_str())).collect();
        for file in self.files {
            let mut references: Vec<(Kind, Vec<Step>)> = Vec::new();
            let key = |name: &str| Step::Key(name.to_owned());
            let list = |path: Vec<Step>| {
                let length = match file.node.at(&path).map(|node| &node.tree) {
                    Some(super::yaml::Tree::List(items)) => items.len(),
                    _ => 0,
                };
                (0..length).map(move |index| {
                    let mut item = path.clone();
                    item.push(Step::Index(index));
                    (Kind::Sync, item)
                })
            };
            match file.kind {
                Kind::Model => references.push((Kind::Source, vec![key("source")])),
                Kind::Sync => {
                    references.push((Kind::Model, vec![key("model")]));
                    references.push((Kind::Destination, vec![key("destination")]));
                    references.extend(list(vec![key("schedule"), key("after")]));
                }
                Kind::Sequence => {
                    references.extend(list(vec![key("syncs")]));
                    references.extend(list(vec![key("syncs")]).map(|(kind, mut path)| {
                        path.push(key("sync"));
                        (kind, path)
                    }));
                    references.extend(list(vec![key("schedule"), key("after")]));
                }
                Kind::Project | Kind::Source | Kind::Destination | Kind::Channel | Kind::Hook => {}
            }
            for (kind, path) in references {
                let Some(super::yaml::Tree::Text(text)) = file.node.at(&path).map(|node| &node.tree) else {
                    continue;
                };
                if !known.contains(&(kind, text.resolved.as_str())) {
                    let slugs = self.slugs(kind);
                    let hint = suggestion::hint(&text.written, &slugs, &format!("{}s", kind.name()));
                    unknown.push((
                        file,
                        path,
                        format!("there is no {} `{}`", kind.name(), text.written),
                        hint,
                    ));
                }
            }
        }
        for (file, path, message, hint) in unknown {
            self.findings.mistake(&file.path, file.node.line_at(&path), message).hint(hint);
        }
    }

    fn check_renamings(&mut self) {
        for file in self.files.iter().filter(|file| file.kind.is_numbered()) {
            let Some(old) = file.node.text("renamed_from") else { continue };
            let (kind, new) = (file.kind.name(), &file.slug);
            let line = file.node.line_of("renamed_from");
            let in_use = self.slugs(file.kind).contains(&old);
            if old == new {
                self.findings.mistake(&file.path, line, format!("`renamed_from` is the {kind}'s own slug"));
                continue;
            }
            match self.lock.rename(file.kind, old, new, in_use) {
                Renaming::Settled => {}
                Renaming::InUse => {
                    self.findings
                        .mistake(&file.path, line, format!("the {kind} `{old}` is still there"))
                        .hint(format!("delete the file of `{old}`, or take `renamed_from` out of this one"));
                }
                Renaming::Unknown => {
                    self.findings
                        .warning(
                            &file.path,
                            line,
                            format!("no {kind} `{old}` ever had an id in `levin.lock.yml`"),
                        )
                        .hint("was the lock file committed? without the old id everything is sent anew");
                }
                Renaming::Ambiguous => {
                    self.findings
                        .mistake(&file.path, line, format!("`{new}` and `{old}` both have an id in `levin.lock.yml`"))
                        .hint(format!(
                            "delete the line of `{new}` there to take over the id of `{old}`, or delete `renamed_from`"
                        ));
                }
            }
        }
    }

    fn duration(&mut self, file: &ProjectFile, key: &str, text: &str) -> Option<std::time::Duration> {
        schedule::duration(text)
            .map_err(|message| {
                self.findings.mistake(&file.path, file.node.line_of(key), format!("`{key}`: {message}"));
            })
            .ok()
    }

    pub(super) fn context(&self, file: &ProjectFile) -> BuildContext {
        BuildContext {
            slug: file.slug.clone(),
            project: self.root.to_owned(),
            secrets: self.redactor.texts(),
        }
    }

    /// A connector refused its keys.
    pub(super) fn refused(&mut self, file: &ProjectFile, error: &ConfigError) {
        let path = steps(&error.path);
        let subject = if error.path.is_empty() { String::new() } else { format!("`{}`: ", error.path) };
        self.findings.mistake(&file.path, file.node.line_at(&path), format!("{subject}{}", error.message));
    }

    fn source(&mut self, file: &ProjectFile, id: i64) -> Option<SourceSpec> {
        let written: SourceConfig = file.written(self.findings)?;
        let snapshot_retention = match &written.snapshot_retention {
            Some(text) => Some(self.duration(file, "snapshot_retention", text)?),
            None => None,
        };
        if written.engine == Engine::Basic {
            let message = "`engine: basic` is not built yet: levin computes differences inside the warehouse";
            self.findings.mistake(&file.path, file.node.line_of("engine"), message).hint(
                "leave `engine` out, and let levin write its two managed schemas: `levin grants SOURCE` prints how",
            );
        }
        if written.planner_schema == written.audit_schema {
            let line = file.node.line_of(if file.node.entry("audit_schema").is_some() {
                "audit_schema"
            } else {
                "planner_schema"
            });
            self.findings.mistake(
                &file.path,
                line,
                "`planner_schema` and `audit_schema` must be two schemas",
            );
        }
        let connector = self.catalogue.source(&written.r#type)?;
        if !file.usable() {
            return None;
        }
        let warehouse = (connector.build)(file.own_keys(), &self.context(file))
            .map_err(|error| self.refused(file, &error))
            .ok()?;
        Some(SourceSpec {
            id,
            slug: file.slug.clone(),
            file: file.path.clone(),
            connector,
            engine: written.engine,
            planner_schema: written.planner_schema,
            audit_schema: written.audit_schema,
            snapshot_retention,
            runs_at_once: written.runs_at_once.map(|most| most as usize),
            warehouse,
        })
    }

    fn model(&mut self, file: &ProjectFile, id: i64, sources: &BySlug<SourceSpec>) -> Option<ModelSpec> {
        // Which of the four is there can be told even when other keys are wrong.
        let keys = file.node.entries().iter().map(|entry| entry.key.as_str());
        let given: Vec<&str> = keys.filter(|key| ["sql", "sql_file", "table", "dbt"].contains(key)).collect();
        match given.as_slice() {
            [] => {
                self.findings
                    .mistake(
                        &file.path,
                        file.node.line,
                        "the model has none of `sql`, `sql_file`, `table`, `dbt`",
                    )
                    .hint("write `sql: select …`, or `table: schema.table`");
            }
            [_] => {}
            [_, second, ..] => {
                let message = format!("the model has more than one of {}", suggestion::listed(&given));
                self.findings
                    .mistake(&file.path, file.node.line_of(second), message)
                    .hint("keep one of them");
            }
        }
        let written: ModelConfig = file.written(self.findings)?;
        let dbt = match &written.dbt {
            None => None,
            Some(dbt) => Some(self.dbt_model(file, dbt)?),
        };
        let known = dbt.as_ref().map(|model| model.primary_key.clone()).unwrap_or_default();
        let primary_key = written.primary_key.map_or(known, Words::into_vec);
        if primary_key.is_empty() && !file.sound("primary_key") {
            return None;
        }
        if primary_key.is_empty() {
            let message = "the key `primary_key` is missing";
            match &written.dbt {
                None => {
                    self.findings.mistake(&file.path, file.node.line, message);
                }
                Some(dbt) => {
                    let message = format!(
                        "{message}, and the manifest does not say what tells rows of `{}` apart",
                        dbt.model
                    );
                    self.findings.mistake(&file.path, file.node.line, message).hint(
                        "write it here; or give the dbt model a `unique_key`, a primary-key constraint, or the tests `unique` and `not_null` on one column",
                    );
                }
            }
            return None;
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = primary_key.iter().find(|column| !seen.insert(column.as_str())) {
            let line = file.node.line_of("primary_key");
            self.findings.mistake(&file.path, line, format!("`primary_key` names `{twice}` twice"));
        }
        let query = match (written.sql, written.sql_file, written.table, dbt) {
            (Some(sql), None, None, None) => ModelQuery::Sql(sql),
            (None, None, Some(table), None) => ModelQuery::Table(table),
            (None, None, None, Some(dbt)) => dbt.query,
            (None, Some(path), None, None) => match super::bounds::read(&self.root.join(&path)) {
                Ok(sql) if sql.trim().is_empty() => {
                    let line = file.node.line_of("sql_file");
                    self.findings.mistake(&file.path, line, format!("the file `{path}` is empty"));
                    return None;
                }
                Ok(sql) => ModelQuery::Sql(sql),
                Err(error) => {
                    self.findings
                        .mistake(
                            &file.path,
                            file.node.line_of("sql_file"),
                            format!("the file `{path}` cannot be read: {}", reason(&error)),
                        )
                        .hint("the path starts at the project's folder");
                    return None;
                }
            },
            _ => return None,
        };
        let source = sources.get(&written.source)?.clone();
        let dialect = source.warehouse.dialect();
        let spec =
            ModelSpec { id, slug: file.slug.clone(), file: file.path.clone(), source, primary_key, query };
        if let Err(error) = model_sql(&spec, dialect) {
            let line = given.first().map_or(file.node.line, |key| file.node.line_of(key));
            let hint = error.advice().to_owned();
            self.findings.mistake(&file.path, line, error.message).code(error.code).hint(hint);
            return None;
        }
        Some(spec)
    }

    fn dbt_model(&mut self, file: &ProjectFile, dbt: &DbtConfig) -> Option<DbtModel> {
        match self.manifests.model(self.root, &dbt.manifest, &dbt.model) {
            Ok(model) => Some(model),
            Err(trouble) => {
                let line = file.node.line_of("dbt");
                self.findings.mistake(&file.path, line, trouble.message).hint(trouble.hint);
                None
            }
        }
    }

    fn destination(&mut self, file: &ProjectFile, id: i64) -> Option<DestinationSpec> {
        let written: DestinationConfig = file.written(self.findings)?;
        let connector = self.catalogue.destination(&written.r#type)?;
        if !file.usable() {
            return None;
        }
        let destination = (connector.build)(file.own_keys(), &self.context(file))
            .map_err(|error| self.refused(file, &error))
            .ok()?;
        Some(DestinationSpec {
            id,
            slug: file.slug.clone(),
            file: file.path.clone(),
            connector,
            runs_at_once: written.runs_at_once.map(|most| most as usize),
            destination,
        })
    }

    fn sync(
        &mut self,
        project: Option<&ProjectFile>,
        file: &ProjectFile,
        id: i64,
        models: &BySlug<ModelSpec>,
        destinations: &BySlug<DestinationSpec>,
    ) -> Option<SyncSpec> {
        let written: SyncConfig = file.written(self.findings)?;
        let on_removed = self.behaviour(file, &written);
        let mappings = self.mappings(file, written.mappings.as_deref());
        let matching = match written.r#match {
            None => Vec::new(),
            Some(Matches::One(one)) => vec![MatchField { from: one.from, to: one.to }],
            Some(Matches::Several(several)) => {
                several.into_iter().map(|one| MatchField { from: one.from, to: one.to }).collect()
            }
        };
        let mut fields = BTreeSet::new();
        if let Some(twice) = matching.iter().find(|one| !fields.insert(one.to.as_str())) {
            let line = file.node.line_of("match");
            self.findings.mistake(&file.path, line, format!("`match` names the field `{}` twice", twice.to));
        }
        let schedule = written.schedule.as_ref().and_then(|schedule| self.schedule(file, schedule));
        let alerts = self.alerts(project, file, written.alerts.as_ref(), &written.destination);
        Some(SyncSpec {
            id,
            slug: file.slug.clone(),
            file: file.path.clone(),
            model: models.get(&written.model)?.clone(),
            destination: destinations.get(&written.destination)?.clone(),
            mode: written.mode,
            on_removed,
            object: written.object,
            matching,
            mappings,
            guards: guards(&written.guards),
            on_duplicate_key: written.on_duplicate_key,
            on_new_column: written.on_new_column,
            not_found: written.not_found,
            max_attempts: written.max_attempts,
            schedule,
            jitter: self.jitter(file, written.schedule.as_ref())?,
            disabled: written.disabled,
            alerts,
            options: file.own_keys(),
        })
    }

    /// Checks mode, `on_removed` and `object` against each other and the destination. Returns what
    /// happens to removed rows.
    fn behaviour(&mut self, file: &ProjectFile, written: &SyncConfig) -> OnRemoved {
        let mode = written.mode;
        let line = |key: &str| file.node.line_of(key);
        let asked = written.on_removed.unwrap_or_default();
        let fixed = match mode {
            Mode::Mirror => Some(("mode `mirror` always deletes removed rows", "upsert")),
            Mode::Segment => Some(("mode `segment` always takes removed rows off the list", "add")),
            _ => None,
        };
        if let Some((message, other)) = fixed.filter(|_| file.sound("mode"))
            && asked != OnRemoved::Delete
            && written.on_removed.is_some()
        {
            self.findings
                .mistake(&file.path, line("on_removed"), message)
                .hint(format!("leave `on_removed` out, or use mode `{other}`"));
        }
        let meaningless = match mode {
            Mode::Diff => Some("writes removed rows with their operation"),
            Mode::All | Mode::Archive | Mode::Snapshot => Some("sends every row and has no removed ones"),
            Mode::Add => Some("only lets rows join"),
            Mode::Remove => Some("takes the model's own rows off the list"),
            Mode::Insert | Mode::Update | Mode::Upsert | Mode::Mirror | Mode::Segment => None,
        }
        .filter(|_| file.sound("mode") && asked != OnRemoved::Nothing);
        if let Some(why) = meaningless {
            let message = format!("mode `{}` {why}: `on_removed` has no meaning with it", mode.name());
            self.findings.mistake(&file.path, line("on_removed"), message).hint("leave `on_removed` out");
        }
        if written.max_attempts.is_some() && !Meaning::of(mode).keeps_snapshot() && file.sound("mode") {
            let message = format!(
                "mode `{}` sends every row in every run: `max_attempts` has no meaning with it",
                mode.name()
            );
            self.findings.mistake(&file.path, line("max_attempts"), message).hint("leave `max_attempts` out");
        }
        let connector = self
            .files
            .iter()
            .find(|other| other.kind == Kind::Destination && other.slug == written.destination)
            .and_then(|other| self.catalogue.destination(other.node.text("type")?));
        if let Some(connector) = connector {
            let title = connector.name;
            if file.sound("mode") && !connector.modes.contains(&mode) {
                let offered: Vec<&str> = connector.modes.iter().map(|mode| mode.name()).collect();
                let (line, what) = match file.node.entry("mode") {
                    Some(entry) => (entry.key_line, format!("`{title}` has no mode `{}`", mode.name())),
                    None => (
                        file.node.line,
                        format!("`mode` is missing, and `{title}` has no mode `{}`", mode.name()),
                    ),
                };
                let hint = format!("modes of `{title}`: {}", suggestion::listed(&offered));
                self.findings.mistake(&file.path, line, what).hint(hint);
            }
            let possible = asked == OnRemoved::Nothing || connector.on_removed.contains(&asked);
            if meaningless.is_none() && !possible {
                let mut offered = vec!["nothing"];
                offered.extend(
                    connector
                        .on_removed
                        .iter()
                        .filter(|o| **o != OnRemoved::Nothing)
                        .map(|o| on_removed_name(*o)),
                );
                let message = format!("`{title}` cannot `{}` removed rows", on_removed_name(asked));
                let hint = format!("`on_removed` of `{title}`: {}", suggestion::listed(&offered));
                self.findings.mistake(&file.path, line("on_removed"), message).hint(hint);
            }
            if connector.needs_object && written.object.is_none() && file.sound("object") {
                self.findings
                    .mistake(
                        &file.path,
                        file.node.line,
                        format!("the key `object` is missing: `{title}` needs one"),
                    )
                    .hint("`object` is what the destination calls its table, list, topic or path");
            }
        }
        mode.fixed_removal().unwrap_or(asked)
    }

    fn schedule(&mut self, file: &ProjectFile, written: &ScheduleConfig) -> Option<Schedule> {
        schedule::checked(written)
            .map_err(|(key, message)| {
                let mut path = vec![Step::Key("schedule".to_owned())];
                path.extend(key.map(|key| Step::Key(key.to_owned())));
                self.findings.mistake(&file.path, file.node.line_at(&path), message);
            })
            .ok()
    }

    fn jitter(
        &mut self,
        file: &ProjectFile,
        written: Option<&ScheduleConfig>,
    ) -> Option<std::time::Duration> {
        let Some(text) = written.and_then(|schedule| schedule.jitter.as_deref()) else {
            return Some(std::time::Duration::ZERO);
        };
        let path = [Step::Key("schedule".to_owned()), Step::Key("jitter".to_owned())];
        schedule::duration(text)
            .map_err(|message| {
                self.findings.mistake(&file.path, file.node.line_at(&path), format!("`jitter`: {message}"));
            })
            .ok()
    }

    fn serve(&mut self, file: &ProjectFile, written: ServeConfig) -> Option<ServeSpec> {
        let path = [Step::Key("serve".to_owned()), Step::Key("history".to_owned())];
        let history = schedule::duration(&written.history)
            .map_err(|message| {
                self.findings.mistake(&file.path, file.node.line_at(&path), format!("`history`: {message}"));
            })
            .ok()?;
        Some(ServeSpec {
            listen: written.listen,
            runs_at_once: written.runs_at_once as usize,
            requests_per_second: written.requests_per_second,
            history,
        })
    }

    fn sequence(&mut self, file: &ProjectFile, id: i64) -> Option<SequenceSpec> {
        let written: SequenceConfig = file.written(self.findings)?;
        let schedule = written.schedule.as_ref().and_then(|schedule| self.schedule(file, schedule));
        let members = written.syncs.into_iter().map(|member| match member {
            MemberConfig::Slug(sync) => {
                MemberSpec { sync, on_failure: OnFailure::Stop, max_rejected: Limit::default() }
            }
            MemberConfig::Rules(rules) => MemberSpec {
                sync: rules.sync,
                on_failure: rules.on_failure,
                max_rejected: limit(rules.max_rejected.as_ref()).unwrap_or_default(),
            },
        });
        let members: Vec<MemberSpec> = members.collect();
        if let Some(Schedule::After(parents)) = &schedule
            && let Some(own) = members.iter().find(|member| parents.contains(&member.sync))
        {
            let line = file.node.line_at(&[Step::Key("schedule".to_owned()), Step::Key("after".to_owned())]);
            let message = format!("the sequence waits for `{}`, which it runs itself", own.sync);
            self.findings
                .mistake(&file.path, line, message)
                .hint("name syncs that are no members, or give it another schedule");
        }
        Some(SequenceSpec {
            id,
            slug: file.slug.clone(),
            file: file.path.clone(),
            members,
            schedule,
            jitter: self.jitter(file, written.schedule.as_ref())?,
        })
    }

    /// No sync waits for itself by way of `after`.
    fn check_cycles(&mut self) {
        let after: BTreeMap<&str, Vec<String>> = self
            .files
            .iter()
            .filter(|file| file.kind == Kind::Sync)
            .map(|file| {
                let list = file.node.entry("schedule").and_then(|entry| entry.value.entry("after"));
                let list = list.and_then(|entry| Vec::<String>::deserialize(entry.value.json()).ok());
                (file.slug.as_str(), list.unwrap_or_default())
            })
            .collect();
        let mut reported: BTreeSet<String> = BTreeSet::new();
        let mut cycles = Vec::new();
        for start in after.keys() {
            if reported.contains(*start) {
                continue;
            }
            if let Some(cycle) = cycle_from(start, &after) {
                reported.extend(cycle.iter().cloned());
                cycles.push(cycle);
            }
        }
        for cycle in cycles {
            let Some(file) = self.files.iter().find(|f| f.kind == Kind::Sync && f.slug == cycle[0]) else {
                continue;
            };
            let line = file.node.line_at(&[Step::Key("schedule".to_owned()), Step::Key("after".to_owned())]);
            let mut way: Vec<&str> = cycle.iter().map(String::as_str).collect();
            way.push(&cycle[0]);
            let message = format!("the sync waits for itself: {}", way.join(" after "));
            self.findings.mistake(&file.path, line, message).hint("give one of them another schedule");
        }
    }
}

/// The shortest way from a sync back to itself along `after`.
fn cycle_from(start: &str, after: &BTreeMap<&str, Vec<String>>) -> Option<Vec<String>> {
    let mut ways: std::collections::VecDeque<Vec<String>> = [vec![start.to_owned()]].into();
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        let last = way.last()?;
        for next in after.get(last.as_str()).into_iter().flatten() {
            if next == start {
                return Some(way);
            }
            if seen.insert(next.clone()) {
                let mut longer = way.clone();
                longer.push(next.clone());
                ways.push_back(longer);
            }
        }
    }
    None
}

fn insert<T>(all: &mut BySlug<T>, file: &ProjectFile, spec: Option<T>) {
    if let Some(spec) = spec {
        all.entry(file.slug.clone()).or_insert_with(|| Arc::new(spec));
    }
}

fn on_removed_name(on_removed: OnRemoved) -> &'static str {
    match on_removed {
        OnRemoved::Nothing => "nothing",
        OnRemoved::Clear => "clear",
        OnRemoved::Delete => "delete",
    }
}

fn limit(written: Option<&LimitConfig>) -> Option<Limit> {
    written.map(|limit| Limit { percent: limit.percent, rows: limit.rows })
}

fn guards(written: &GuardsConfig) -> Guards {
    Guards {
        max_removed: limit(written.max_removed.as_ref()).unwrap_or_default(),
        max_changed: limit(written.max_changed.as_ref()).unwrap_or_default(),
        max_added: limit(written.max_added.as_ref()).unwrap_or_default(),
        min_rows: written.min_rows,
        max_set_aside: limit(written.max_set_aside.as_ref()).unwrap_or(Guards::default().max_set_aside),
        allow_empty: written.allow_empty,
    }
}

/// `auth.bearer`, `each.headers[2]` as steps.
fn steps(path: &str) -> Vec<Step> {
    path.split(['.', '[', ']'])
        .filter(|part| !part.is_empty())
        .map(|part| part.parse().map_or_else(|_| Step::Key(part.to_owned()), Step::Index))
        .collect()
}
