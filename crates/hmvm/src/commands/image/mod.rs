//! `hmvm image`: one file a sub-command.

pub(crate) mod import;
mod inspect;
mod ls;
mod pull;
mod rm;

use clap::{Args, Subcommand};
use hm_vm::store::ImageInfo;
use serde_json::{Value, json};

use crate::app::App;
use crate::output::json;

/// Pull, import, list and remove images of the sandbox
///
/// A daemon has images of its own: docker pull, docker image ls and their like are for those, and podman's.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  hmvm image pull debian:bookworm
  hmvm image import rootfs.tar.zst debian
  hmvm exec --image debian -- cat /etc/os-release")]
pub(crate) struct Image {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Pull(pull::Pull),
    Import(import::Import),
    Ls(ls::Ls),
    Inspect(inspect::Inspect),
    Rm(rm::Rm),
}

impl Image {
    pub(crate) fn run(&self, app: &App) -> anyhow::Result<()> {
        match &self.command {
            Command::Pull(pull) => pull.run(app),
            Command::Import(import) => import.run(app),
            Command::Ls(ls) => ls.run(app),
            Command::Inspect(inspect) => inspect.run(app),
            Command::Rm(rm) => rm.run(app),
        }
    }
}

fn not_found(name: &str) -> anyhow::Error {
    hm_vm::Error::ImageNotFound {
        image: name.to_owned(),
    }
    .into()
}

fn to_json(info: &ImageInfo) -> Value {
    json!({
        "name": info.name,
        "digest": info.digest,
        "reference": info.reference,
        "manifest": info.manifest.map(|digest| digest.to_string()),
        "platform": info.platform.as_ref().map(ToString::to_string),
        "created": json::time(info.created),
        "checked": info.checked.map(json::time),
        "bytes": info.bytes,
        "entries": info.entries,
        "env": info.defaults.env.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
        "user": info.defaults.user,
        "working_dir": info.defaults.working_dir,
        "notices": info.notices,
    })
}
