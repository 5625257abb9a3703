//! Channels, hooks, and what is told of a sync's runs: as project files write it, and checked.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::file::LimitConfig;
use super::load::ProjectFile;
use super::resolve::Resolver;
use super::schedule;
use super::schema::Kind;
use super::yaml::{Step, Tree};
use crate::alert::{Alerts, Drift, Recipient, Times};
use crate::project::{ChannelSpec, HookSpec, Limit, Schedule};
use crate::suggestion;

/// `channels/*.yml`: where messages about runs go.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChannelConfig {
    /// Which kind of channel: `levin connectors` lists them.
    pub(crate) r#type: String,
    /// The name by which `alerts` refers to it. Default: the file's name.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"))]
    #[expect(dead_code, reason = "read from the tree, before the rest of the file is known to be right")]
    pub(crate) slug: Option<String>,
}

/// `hooks/*.yml`: messages of another service that start runs. It posts them to `/hooks/` and the slug.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HookConfig {
    /// Which kind of service: `levin connectors` lists them.
    pub(crate) r#type: String,
    /// The name in its address. Default: the file's name.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"))]
    #[expect(dead_code, reason = "read from the tree, before the rest of the file is known to be right")]
    pub(crate) slug: Option<String>,
}

/// What is told of runs, and to whom. A run that a guard stops is always an alert. A sync's own rule stands in place of
/// the project's; one without any key is off.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AlertsConfig {
    /// Who hears of alerts: slugs of channels. A sync's list stands in place of its destination's, and that in place of
    /// the project's.
    pub(crate) channels: Option<Vec<RecipientConfig>>,
    /// Runs that fail, critical. Default: from the first one on.
    pub(crate) run_failed: Option<FailuresConfig>,
    /// Rows that a run's destination rejected, or that are in doubt. Default: a warning from 1 row on, critical from 10
    /// percent on.
    pub(crate) rejected_rows: Option<ShareConfig>,
    /// How long a run takes, also while it goes on. Default: off.
    pub(crate) too_slow: Option<TimesConfig>,
    /// How long ago the last run began. Default: off.
    pub(crate) not_run_for: Option<TimesConfig>,
    /// How many rows the model returns, measured by the mean of runs before that went through: at least 3. Default: off.
    pub(crate) rows_queried: Option<DriftConfig>,
}

/// Who hears of alerts.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RecipientsConfig {
    /// Slugs of channels, in place of the project's.
    pub(crate) channels: Option<Vec<RecipientConfig>>,
}

/// A channel that hears of alerts.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum RecipientConfig {
    /// The slug of a channel, which hears of everything.
    Slug(#[schemars(length(min = 1))] String),
    /// A channel, and what it hears of.
    Rules(RecipientRules),
}

/// A channel, and what it hears of.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecipientRules {
    /// The slug of the channel.
    #[schemars(length(min = 1))]
    pub(crate) channel: String,
    /// Only what is critical, and its end.
    pub(crate) only: Option<OnlyConfig>,
}

/// What a channel hears of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnlyConfig {
    /// What is critical, and its end.
    Critical,
}

/// How many runs must fail.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FailuresConfig {
    /// So many in a row.
    #[schemars(range(min = 1, max = 100))]
    #[serde(default = "one")]
    pub(crate) consecutive: u32,
}

fn one() -> u32 {
    1
}

/// From how many rows on.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ShareConfig {
    /// From so many on it is a warning: rows, or a share of those that the model returned.
    pub(crate) warning: Option<LimitConfig>,
    /// From so many on it is critical.
    pub(crate) critical: Option<LimitConfig>,
}

/// From how long on.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TimesConfig {
    /// From then on it is a warning.
    #[schemars(extend("format" = "duration"))]
    pub(crate) warning: Option<String>,
    /// From then on it is critical.
    #[schemars(extend("format" = "duration"))]
    pub(crate) critical: Option<String>,
}

/// How far from the mean.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DriftConfig {
    /// At least so much fewer.
    pub(crate) dropped: Option<PercentConfig>,
    /// At least so much more.
    pub(crate) jumped: Option<PercentConfig>,
    /// The mean of so many runs before. A new level is the usual one after as many.
    #[schemars(range(min = 3, max = 100))]
    pub(crate) runs: u32,
    /// What it is then.
    pub(crate) severity: SeverityConfig,
}

impl Default for DriftConfig {
    fn default() -> Self {
        Self { dropped: None, jumped: None, runs: 10, severity: SeverityConfig::Warning }
    }
}

/// A share.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PercentConfig {
    /// Percent.
    #[schemars(range(min = 0.1))]
    pub(crate) percent: f64,
}

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SeverityConfig {
    /// Somebody should look at it.
    Warning,
    /// Somebody should look at it now.
    Critical,
}

/// A job of dbt Cloud.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DbtCloudConfig {
    /// Its number.
    pub(crate) job: IdConfig,
    /// The number of its account. Default: any.
    pub(crate) account: Option<IdConfig>,
    /// The slug of the hook that hears of it. Default: any of this type.
    #[schemars(length(min = 1))]
    pub(crate) hook: Option<String>,
}

/// A connector of Fivetran.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FivetranConfig {
    /// Its id, as Fivetran's address shows it.
    #[schemars(length(min = 1))]
    pub(crate) connector: String,
    /// The slug of the hook that hears of it. Default: any of this type.
    #[schemars(length(min = 1))]
    pub(crate) hook: Option<String>,
}

/// A number or a text.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum IdConfig {
    /// A number.
    Number(u64),
    /// A text.
    Text(#[schemars(length(min = 1))] String),
}

impl IdConfig {
    pub(crate) fn into_text(self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text,
        }
    }
}

fn key(name: &str) -> Step {
    Step::Key(name.to_owned())
}

impl Resolver<'_> {
    pub(super) fn channel(&mut self, file: &ProjectFile) -> Option<ChannelSpec> {
        let written: ChannelConfig = file.written(self.findings)?;
        let connector = self.catalogue.channel(&written.r#type)?;
        if !file.usable() {
            return None;
        }
        let channel = (connector.build)(file.own_keys(), &self.context(file))
            .map_err(|error| self.refused(file, &error))
            .ok()?;
        Some(ChannelSpec { slug: file.slug.clone(), file: file.path.clone(), connector, channel })
    }

    pub(super) fn hook(&mut self, file: &ProjectFile) -> Option<HookSpec> {
        let written: HookConfig = file.written(self.findings)?;
        let connector = self.catalogue.hook(&written.r#type)?;
        if !file.usable() {
            return None;
        }
        let hook = (connector.build)(file.own_keys(), &self.context(file))
            .map_err(|error| self.refused(file, &error))
            .ok()?;
        Some(HookSpec { slug: file.slug.clone(), file: file.path.clone(), connector, hook })
    }

    /// What is told of a sync's runs: by its own file, its destination's, and the project's.
    pub(super) fn alerts(
        &mut self,
        project: Option<&ProjectFile>,
        file: &ProjectFile,
        written: Option<&AlertsConfig>,
        destination: &str,
    ) -> Alerts {
        let files = self.files;
        let general = project.and_then(said::<AlertsConfig>).unwrap_or_default();
        let between = files
            .iter()
            .find(|other| other.kind == Kind::Destination && other.slug == destination)
            .and_then(said::<RecipientsConfig>)
            .and_then(|alerts| alerts.channels);
        let own = written.cloned().unwrap_or_default();
        let recipients = own.channels.or(between).or(general.channels).unwrap_or_default();
        let rejected = own.rejected_rows.or(general.rejected_rows);
        let defaults = Alerts::default();
        let limit = |limit: &Option<LimitConfig>| {
            limit.as_ref().map(|limit| Limit { percent: limit.percent, rows: limit.rows }).unwrap_or_default()
        };
        let mut times = |name: &str, own: Option<TimesConfig>, general: Option<TimesConfig>| {
            let at = if own.is_some() { Some(file) } else { project };
            match (own.or(general), at) {
                (Some(written), Some(at)) => self.times(at, name, &written),
                _ => Times::default(),
            }
        };
        Alerts {
            too_slow: times("too_slow", own.too_slow, general.too_slow),
            not_run_for: times("not_run_for", own.not_run_for, general.not_run_for),
            recipients: recipients
                .into_iter()
                .map(|recipient| match recipient {
                    RecipientConfig::Slug(channel) => Recipient { channel, only_critical: false },
                    RecipientConfig::Rules(rules) => {
                        Recipient { channel: rules.channel, only_critical: rules.only.is_some() }
                    }
                })
                .collect(),
            consecutive: own
                .run_failed
                .or(general.run_failed)
                .map_or(defaults.consecutive, |f| f.consecutive),
            rejected_warning: rejected.as_ref().map_or(defaults.rejected_warning, |r| limit(&r.warning)),
            rejected_critical: rejected.as_ref().map_or(defaults.rejected_critical, |r| limit(&r.critical)),
            drift: own.rows_queried.or(general.rows_queried).map(|drift| Drift {
                dropped: drift.dropped.map(|share| share.percent),
                jumped: drift.jumped.map(|share| share.percent),
                runs: drift.runs,
                critical: drift.severity == SeverityConfig::Critical,
            }),
        }
    }

    fn times(&mut self, file: &ProjectFile, name: &str, written: &TimesConfig) -> Times {
        let mut read = |word: &str, text: &Option<String>| {
            let path = [key("alerts"), key(name), key(word)];
            let read = schedule::duration(text.as_ref()?);
            read.map_err(|message| {
                let line = file.node.line_at(&path);
                let message = format!("`alerts.{name}.{word}`: {message}");
                // The project's file is read for each sync.
                if !self
                    .findings
                    .0
                    .iter()
                    .any(|known| known.message == message && known.place.file == file.path)
                {
                    self.findings.mistake(&file.path, line, message);
                }
            })
            .ok()
        };
        Times { warning: read("warning", &written.warning), critical: read("critical", &written.critical) }
    }

    /// Every channel and hook that a file names is there.
    pub(super) fn check_channels(&mut self, project: Option<&ProjectFile>) {
        let files = self.files;
        let of = |kind: Kind| files.iter().filter(move |file| file.kind == kind);
        let channels: Vec<&str> = of(Kind::Channel).map(|file| file.slug.as_str()).collect();
        for file in project.into_iter().chain(of(Kind::Destination)).chain(of(Kind::Sync)) {
            let list = [key("alerts"), key("channels")];
            let Some(Tree::List(items)) = file.node.at(&list).map(|node| &node.tree) else { continue };
            for (index, item) in items.iter().enumerate() {
                let slug = match &item.tree {
                    Tree::Text(text) => Some(text.resolved.as_str()),
                    _ => item.text("channel"),
                };
                let Some(slug) = slug.filter(|slug| !channels.contains(slug)) else { continue };
                let path = [key("alerts"), key("channels"), Step::Index(index)];
                self.findings
                    .mistake(&file.path, file.node.line_at(&path), format!("there is no channel `{slug}`"))
                    .hint(suggestion::hint(slug, &channels, "channels"));
            }
        }
        for file in of(Kind::Sync).chain(of(Kind::Sequence)) {
            for kind in self.catalogue.hooks.iter().map(|connector| connector.name) {
                let path = [key("schedule"), key(kind)];
                let Some(node) = file.node.at(&path) else { continue };
                let hooks: Vec<&str> = of(Kind::Hook)
                    .filter(|hook| hook.node.text("type") == Some(kind))
                    .map(|hook| hook.slug.as_str())
                    .collect();
                let line = file.node.line_at(&path);
                match node.text("hook") {
                    Some(slug) if !hooks.contains(&slug) => {
                        self.findings
                            .mistake(&file.path, line, format!("there is no hook `{slug}` of type `{kind}`"))
                            .hint(suggestion::hint(slug, &hooks, "hooks"));
                    }
                    None if hooks.is_empty() => {
                        self.findings
                            .warning(&file.path, line, format!("no hook of type `{kind}` ever starts this"))
                            .hint(format!("make one: `hooks/NAME.yml` with `type: {kind}` and its secret"));
                    }
                    _ => {}
                }
            }
        }
    }
}

/// What a file says under `alerts`; `None` also when it cannot be read, which the check of its shape tells.
fn said<T: for<'de> Deserialize<'de>>(file: &ProjectFile) -> Option<T> {
    if !file.sound("alerts") {
        return None;
    }
    T::deserialize(file.node.entry("alerts")?.value.json()).ok()
}

/// The schedule of something that waits for another service.
pub(super) fn waiting(
    dbt_cloud: Option<&DbtCloudConfig>,
    fivetran: Option<&FivetranConfig>,
) -> Option<Schedule> {
    if let Some(DbtCloudConfig { job, account, hook }) = dbt_cloud.cloned() {
        let (job, account) = (job.into_text(), account.map(IdConfig::into_text));
        return Some(Schedule::DbtCloud { job, account, hook });
    }
    let FivetranConfig { connector, hook } = fivetran.cloned()?;
    Some(Schedule::Fivetran { connector, hook })
}

/// Channels and hooks by slug.
pub(super) fn collected<T>(all: impl IntoIterator<Item = Option<T>>) -> Vec<Arc<T>> {
    all.into_iter().flatten().map(Arc::new).collect()
}
