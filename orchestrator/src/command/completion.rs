//! `levin completion`: what a shell needs to complete commands, options and the slugs of a project.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap_complete::engine::CompletionCandidate;
use clap_complete::env::Shells;

use super::Context;
use crate::error::{Error, ErrorCode, Exit};

/// The variable by which a shell asks for what may come next.
pub const VARIABLE: &str = "LEVIN_COMPLETE";

/// Print what a shell needs to complete commands, options and the slugs of your project
///
/// The shell asks `levin` itself what may come next, so the script stays right when levin is updated.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  levin completion bash >> ~/.bashrc
  levin completion zsh > \"${fpath[1]}/_levin\"
  levin completion fish > ~/.config/fish/completions/levin.fish")]
pub struct Args {
    /// The shell
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

/// A shell that can ask.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Shell {
    /// Bash
    Bash,
    /// Z shell
    Zsh,
    /// Fish
    Fish,
    /// Elvish
    Elvish,
    /// `PowerShell`
    Powershell,
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<ExitCode, Error> {
    let name = match args.shell {
        Shell::Bash => "bash",
        Shell::Zsh => "zsh",
        Shell::Fish => "fish",
        Shell::Elvish => "elvish",
        Shell::Powershell => "powershell",
    };
    let mut script = Vec::new();
    let shells = Shells::builtins();
    let written = shells
        .completer(name)
        .ok_or_else(|| std::io::ErrorKind::Unsupported.into())
        .and_then(|shell| shell.write_registration(VARIABLE, "levin", "levin", "levin", &mut script));
    written.map_err(|e| Error::new(ErrorCode::Internal, format!("no script for {name}: {e}")))?;
    context.report.data(&String::from_utf8_lossy(&script));
    Ok(Exit::Done.into())
}

/// The syncs of the project that the words so far name.
pub fn syncs(typed: &OsStr) -> Vec<CompletionCandidate> {
    candidates("syncs", typed)
}

/// Its models.
pub fn models(typed: &OsStr) -> Vec<CompletionCandidate> {
    candidates("models", typed)
}

/// Its sources.
pub fn sources(typed: &OsStr) -> Vec<CompletionCandidate> {
    candidates("sources", typed)
}

fn candidates(kind: &str, typed: &OsStr) -> Vec<CompletionCandidate> {
    let words: Vec<OsString> = std::env::args_os().collect();
    let typed = typed.to_string_lossy();
    let mut slugs = slugs(&project_of(&words).join(kind));
    slugs.retain(|slug| slug.starts_with(typed.as_ref()));
    slugs.into_iter().map(CompletionCandidate::new).collect()
}

/// The folder that `--project` names among these words.
fn project_of(words: &[OsString]) -> PathBuf {
    let next = |at: usize| words.get(at + 1).map(PathBuf::from);
    let named = words.iter().enumerate().find_map(|(at, word)| {
        let word = word.to_str()?;
        if word == "--project" { next(at) } else { word.strip_prefix("--project=").map(PathBuf::from) }
    });
    named.unwrap_or_else(|| PathBuf::from("."))
}

/// The slugs of a folder's files. Files with mistakes count too: whoever completes does not check.
fn slugs(folder: &Path) -> Vec<String> {
    let mut slugs: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let is_yaml = path.extension().is_some_and(|e| e == "yml" || e == "yaml");
            let text = std::fs::read_to_string(&path).ok().filter(|_| is_yaml)?;
            let written = text.lines().find_map(|line| line.strip_prefix("slug:"));
            let written = written.map(|slug| slug.split('#').next().unwrap_or_default().trim());
            let slug = written.map(|slug| slug.trim_matches(['"', '\'']).to_owned());
            slug.or_else(|| Some(path.file_stem()?.to_string_lossy().into_owned()))
        })
        .collect();
    slugs.sort();
    slugs
}
