//! The options that `exec` and `shell` share: what the VM starts from, and what it may do.

use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use hm_vm::{ImageSource, NetworkPolicy, Protection, VmConfig};

use crate::app::App;
use crate::backend::{BackendArgs, Keeper, Opened};
use crate::failure::Problem;
use crate::input::environment;
use crate::input::values::{self, EnvArgument};
use crate::names;
use crate::output::sanitize::sanitize_path;

/// What the VM starts from.
#[derive(Args, Clone, Debug)]
pub(crate) struct SourceArgs {
    /// Start from this image, which is pulled when it is not here: `host`, which the sandbox alone has, is this
    /// machine's own root file system, read-only, without home directories [default: host]
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// Fork from this snapshot; its id may be abbreviated
    #[arg(long, value_name = "SNAPSHOT", conflicts_with = "image")]
    from: Option<String>,
}

impl SourceArgs {
    /// The source with its whole id.
    pub(crate) fn resolve(&self, app: &App, keeper: &Keeper) -> anyhow::Result<ImageSource> {
        if let Some(prefix) = &self.from {
            return names::snapshot(app, keeper, prefix).map(ImageSource::Snapshot);
        }
        let image = self.image.as_deref().unwrap_or("host");
        Ok(ImageSource::Image(image.to_owned()))
    }
}

/// What goes into the VM.
#[derive(Args, Clone, Debug)]
pub(crate) struct ContentArgs {
    /// Copy the contents of this directory into the working directory first; .gitignore and
    /// .hmvmignore are honoured
    #[arg(long, value_name = "DIR")]
    inject: Option<PathBuf>,
    /// Directory of the VM in which the command runs [default: /src with --inject, else the image's]
    #[arg(long, value_name = "PATH", value_parser = values::parse_guest_path)]
    workdir: Option<String>,
    /// Set a variable for the command; without a value, take over the one it has here
    #[arg(short, long = "env", value_name = "NAME[=VALUE]", value_parser = values::parse_env)]
    env: Vec<EnvArgument>,
}

impl ContentArgs {
    /// The working directory; empty for the image's own.
    pub(crate) fn working_dir(&self) -> String {
        let usual = if self.inject.is_some() { "/src" } else { "" };
        self.workdir.clone().unwrap_or_else(|| usual.to_owned())
    }

    /// The working directory that the user gave.
    pub(crate) fn given_working_dir(&self) -> Option<&str> {
        self.workdir.as_deref()
    }

    /// The declared environment.
    pub(crate) fn env(&self) -> Result<Vec<(String, String)>, Problem> {
        environment::declared(&self.env)
    }

    /// The directory to inject, absolute.
    pub(crate) fn inject(&self) -> Result<Option<PathBuf>, Problem> {
        self.inject.as_deref().map(host_directory).transpose()
    }
}

fn host_directory(path: &Path) -> Result<PathBuf, Problem> {
    let problem = |what: &str| Problem::new(format!("--inject {}: {what}", sanitize_path(path)));
    let absolute = environment::absolute(path)?;
    match std::fs::metadata(&absolute) {
        Ok(found) if found.is_dir() => Ok(absolute),
        Ok(_) => Err(problem("not a directory")
            .hint("give the directory whose contents the command needs: --inject .")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(problem("no such directory")
                .hint("give the directory whose contents the command needs: --inject ."))
        }
        Err(error) => Err(problem(&error.to_string()).hint("its content must be readable by you")),
    }
}

/// What the VM may use and reach.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Limits and protections")]
pub(crate) struct LimitArgs {
    /// Whole processors that it may keep busy
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = values::parse_count)]
    cpus: Option<u32>,
    /// Memory of all its processes together, such as 512MiB or 2GiB
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = values::parse_mebibytes)]
    memory: Option<u64>,
    /// What it may write to its disk, in whole GiB, such as 1GiB
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = values::parse_gibibytes)]
    disk: Option<u64>,
    /// Processes and threads that may be alive at once
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = values::parse_count)]
    pids: Option<u32>,
    /// What it may reach: nothing, the outside through address translation, or all that this
    /// machine reaches
    #[arg(long, value_name = "POLICY", default_value = "none", value_parser = network_parser())]
    network: NetworkPolicy,
    /// Go on where this machine cannot give a protection; may be given several times
    #[arg(long, value_name = "PROTECTION", value_parser = protection_parser())]
    allow_weaker: Vec<Protection>,
    #[command(flatten)]
    backend: BackendArgs,
}

fn network_parser() -> impl clap::builder::TypedValueParser<Value = NetworkPolicy> {
    PossibleValuesParser::new(NetworkPolicy::ALL.map(NetworkPolicy::name))
        .try_map(|name| name.parse::<NetworkPolicy>())
}

fn protection_parser() -> impl clap::builder::TypedValueParser<Value = Protection> {
    PossibleValuesParser::new(Protection::ALL.map(Protection::name))
        .try_map(|name| name.parse::<Protection>())
}

impl LimitArgs {
    /// As the engine takes it.
    pub(crate) fn config(&self) -> VmConfig {
        VmConfig {
            cpus: self.cpus,
            memory_mib: self.memory,
            disk_size_gb: self.disk,
            pids: self.pids,
            network: self.network,
            allow_weaker: self.allow_weaker.clone(),
        }
    }

    /// Opens the chosen backend, for such VMs.
    pub(crate) fn open(&self, app: &App) -> anyhow::Result<Opened> {
        self.backend.open(app, None, self.config())
    }
}
