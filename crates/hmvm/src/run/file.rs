//! Finding and reading the pipeline file.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use hm_pipeline::Pipeline;
use hm_pipeline::parse::{self, Format};

use crate::app::App;
use crate::failure::Problem;
use crate::input::environment;
use crate::output::human::plural;
use crate::output::sanitize::sanitize_path;

/// Names that are looked for, from the working directory upwards.
const NAMES: [&str; 2] = ["hmvm.toml", "hmvm.json"];

/// Longer files are refused.
const MAX_BYTES: u64 = 4 << 20;

/// Which pipeline.
#[derive(Args, Clone, Debug)]
pub(crate) struct FileArgs {
    /// The pipeline file [default: hmvm.toml or hmvm.json, here or in the nearest directory above]
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// What is in the file
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = FormatChoice::Auto)]
    format: FormatChoice,
}

/// Value of `--format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatChoice {
    /// As the file's name says: JSON for .json, else TOML
    Auto,
    /// A pipeline in TOML
    Toml,
    /// A pipeline in JSON
    Json,
    /// The graph that the hm program writes, version "0"
    HmIr,
}

/// A pipeline and the file that it is from.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The pipeline.
    pub(crate) pipeline: Pipeline,
    /// Absolute path of the file.
    pub(crate) path: PathBuf,
}

impl FileArgs {
    /// Reads the pipeline. Tells every problem of a wrong file.
    pub(crate) fn load(&self, app: &App) -> anyhow::Result<Loaded> {
        let path = match &self.file {
            Some(path) => environment::absolute(path)?,
            None => find()?,
        };
        let text = read(&path)?;
        let format = self.format_of(&path);
        let directory = match format {
            // A graph is written by a program, wherever that likes: the workspace is where the user is.
            Format::HmIr => environment::absolute(Path::new("."))?,
            _ => path.parent().unwrap_or(Path::new("/")).to_owned(),
        };
        match parse::read(&text, format, &directory) {
            Ok(pipeline) => Ok(Loaded { pipeline, path }),
            Err(problems) => {
                let name = sanitize_path(&path);
                app.ui.complain(&problems.render(&name, &text));
                let count = u64::try_from(problems.problems.len()).unwrap_or(u64::MAX);
                Err(Problem::new(format!("{name} has {}", plural(count, "problem"))).into())
            }
        }
    }

    fn format_of(&self, path: &Path) -> Format {
        match self.format {
            FormatChoice::Toml => Format::Toml,
            FormatChoice::Json => Format::Json,
            FormatChoice::HmIr => Format::HmIr,
            FormatChoice::Auto if path.extension().is_some_and(|it| it == "json") => Format::Json,
            FormatChoice::Auto => Format::Toml,
        }
    }
}

fn find() -> Result<PathBuf, Problem> {
    let here = environment::absolute(Path::new("."))?;
    here.ancestors()
        .flat_map(|directory| NAMES.map(|name| directory.join(name)))
        .find(|path| path.is_file())
        .ok_or_else(|| {
            Problem::new(format!(
                "no {} in {} or above it",
                NAMES[0],
                sanitize_path(&here)
            ))
            .hint("hmvm init writes one to start from; --file FILE names another")
        })
}

fn read(path: &Path) -> Result<String, Problem> {
    let shown = sanitize_path(path);
    let problem = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => Problem::new(format!("{shown}: there is no such file"))
            .hint("hmvm init writes one to start from"),
        ErrorKind::InvalidData => Problem::new(format!("{shown} is not UTF-8 text")),
        _ => Problem::new(format!("cannot read {shown}: {error}")),
    };
    let mut text = String::new();
    let file = File::open(path).map_err(problem)?;
    file.take(MAX_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(problem)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > MAX_BYTES {
        return Err(Problem::new(format!("{shown} is larger than 4 MiB"))
            .hint("a pipeline file describes steps; files are brought in by inject"));
    }
    Ok(text)
}
