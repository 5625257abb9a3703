//! `levin init`: writes the files of a new project.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use connectors::warehouse::sample;

use super::Context;
use crate::error::{Error, ErrorCode, Exit};
use crate::report::counted;

/// Write the files of a new project; nothing that is there is overwritten
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  levin init demo --example    a warehouse with sample data and a sync that runs at once
  levin init                   starter files in this folder, with comments")]
pub struct Args {
    /// The folder of the new project; made when it is not there. Default: the one of `--project`
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Add an embedded warehouse with 1,000 sample rows, and a sync from it to files
    #[arg(long)]
    example: bool,
}

/// A file to write: its path in the project and its content.
type Template = (&'static str, &'static str);

const STARTER: &[Template] = &[
    ("levin.yml", include_str!("../../starter/levin.yml")),
    ("sources/warehouse.yml", include_str!("../../starter/sources/warehouse.yml")),
    ("models/customers.yml", include_str!("../../starter/models/customers.yml")),
    ("destinations/crm.yml", include_str!("../../starter/destinations/crm.yml")),
    ("syncs/customers-to-crm.yml", include_str!("../../starter/syncs/customers-to-crm.yml")),
    (".gitignore", include_str!("../../starter/gitignore")),
];

const EXAMPLE: &[Template] = &[
    ("levin.yml", include_str!("../../example/levin.yml")),
    ("sources/warehouse.yml", include_str!("../../example/sources/warehouse.yml")),
    ("models/customers.yml", include_str!("../../example/models/customers.yml")),
    ("destinations/out.yml", include_str!("../../example/destinations/out.yml")),
    ("syncs/customers-to-files.yml", include_str!("../../example/syncs/customers-to-files.yml")),
    (".gitignore", include_str!("../../example/gitignore")),
];

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<ExitCode, Error> {
    let root = args.dir.clone().unwrap_or_else(|| context.root.clone());
    let templates = if args.example { EXAMPLE } else { STARTER };
    let mut wanted: Vec<&str> = templates.iter().map(|(path, _)| *path).collect();
    if args.example {
        wanted.push(sample::FILE);
    }
    // A link that points nowhere is there all the same.
    let present: Vec<&str> =
        wanted.iter().copied().filter(|path| root.join(path).symlink_metadata().is_ok()).collect();
    if !present.is_empty() {
        let files =
            present.iter().map(|path| format!("\n  {}", root.join(path).display())).collect::<String>();
        return Err(Error::new(ErrorCode::Usage, format!("these files are already there:{files}"))
            .hint("nothing was written; name another folder: `levin init DIR`"));
    }

    for (path, content) in templates {
        write(&root.join(path), content)?;
    }
    if args.example {
        let file = root.join(sample::FILE);
        let rows = tokio::task::spawn_blocking(move || sample::create_sample(&file))
            .await
            .map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))??;
        context.report.note(&format!("{} in `{}`", counted(rows, "sample row"), sample::FILE));
    }

    let folder = root.display();
    context.report.done(&format!("{} in `{folder}`", counted(templates.len() as u64, "file")));
    let steps = if args.example {
        format!(
            "\nnext:\n  levin --project {folder} check\n  levin --project {folder} plan customers-to-files\n  \
             levin --project {folder} run customers-to-files"
        )
    } else {
        format!(
            "\nnext:\n  edit the files: their comments say how; `levin connectors` lists what there is\n  \
             levin --project {folder} check --offline"
        )
    };
    context.report.note(&steps);
    Ok(Exit::Done.into())
}

/// Writes a new file, and the folders above it.
fn write(path: &Path, content: &str) -> Result<(), Error> {
    let failed = |error: std::io::Error| {
        Error::new(ErrorCode::Usage, format!("`{}` cannot be written: {error}", path.display()))
            .hint("choose a folder that you may write: `levin init DIR`")
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut file = std::fs::File::create_new(path).map_err(failed)?;
    std::io::Write::write_all(&mut file, content.as_bytes()).map_err(failed)
}
