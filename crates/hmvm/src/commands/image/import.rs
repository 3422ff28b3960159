use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use hm_vm::oci::{
    DaemonOptions, LocalOptions, OciError, Platform, Source, open_daemon, open_local_with,
};
use hm_vm::store::{ImageInfo, Store};
use hm_vm::{Cancellation, Progress};

use super::to_json;
use crate::app::App;
use crate::failure::{Problem, hinted};
use crate::images::place::Place;
use crate::images::pull;
use crate::input::environment;
use crate::output::sanitize::{sanitize, sanitize_path};
use crate::output::{bar, human, json, transfers};
use crate::signals;

const SOURCE_HINT: &str = "hmvm image import takes a directory with a root file system, a tar archive of one, an OCI layout, or what docker save writes";

/// Make an image of what lies on this machine: a root file system, an OCI layout, or an image of Docker or Podman
///
/// What PATH is, its content tells: a directory or tar archive (.gz, .zst, .xz) of a root file system, a directory or
/// archive in the OCI's layout, or an archive that docker save or podman save wrote.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  debootstrap bookworm ./root && hmvm image import ./root debian
  hmvm image import rootfs.tar.xz alpine
  docker save -o app.tar app:1 && hmvm image import app.tar app
  hmvm image import docker-daemon:app:1 app
  hmvm image import oci:./layout:v1 app")]
pub(super) struct Import {
    /// A path; or oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:NAME], docker-daemon:NAME
    #[arg(value_name = "SOURCE", value_parser = Place::parse)]
    source: Place,
    /// Name of the image; one that has this name already is replaced
    #[arg(value_name = "NAME")]
    name: String,
    /// The platform, of images for several [default: this machine's]
    #[arg(long, value_name = "OS/ARCH", value_parser = super::pull::parse_platform)]
    platform: Option<Platform>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Import {
    pub(super) fn run(&self, app: &App) -> anyhow::Result<()> {
        let cancel = Cancellation::new();
        signals::watch_transfer(&cancel, &app.ui).context("cannot wait for signals")?;
        if let Place::Path(path) = &self.source
            && let Err(error) = std::fs::metadata(environment::absolute(path)?)
        {
            let message = format!("{}: {error}", sanitize_path(path));
            return Err(Problem::new(message).hint(SOURCE_HINT).into());
        }
        let store = app.store()?;
        let info = match &self.source {
            Place::Path(path) => self.path(app, &store, path, &cancel)?,
            Place::Layout { path, name }
            | Place::Archive { path, name }
            | Place::DockerArchive { path, name } => {
                let source = open(path, name.as_deref(), &store, &cancel)?;
                self.image(app, &store, source.as_ref(), &cancel)?
            }
            Place::DockerDaemon(name) => {
                let source = daemon(app, name, &store, &cancel)?;
                self.image(app, &store, source.as_ref(), &cancel)?
            }
        };
        for notice in &info.notices {
            app.ui.notice(&sanitize(notice));
        }
        if self.json {
            return json::document(&to_json(&info));
        }
        app.ui.say(format_args!(
            "hmvm: image {} has {} in {}",
            sanitize(&info.name),
            human::size(info.bytes),
            human::plural(info.entries, "entry|entries"),
        ));
        Ok(())
    }

    /// An image, or else a root file system.
    fn path(
        &self,
        app: &App,
        store: &Store,
        path: &Path,
        cancel: &Cancellation,
    ) -> anyhow::Result<ImageInfo> {
        let path = environment::absolute(path)?;
        match open_local(&path, None, store, cancel) {
            Ok(source) => self.image(app, store, source.as_ref(), cancel),
            Err(OciError::NoImage { .. }) => {
                if self.platform.is_some() {
                    return Err(
                        Problem::new("--platform is for images of several platforms")
                            .hint("leave it out: this is a root file system")
                            .into(),
                    );
                }
                let counted = Progress::new();
                let import = || store.import_image_watched(&path, &self.name, &counted);
                bar::during(&app.ui, &counted, import).map_err(|error| hinted(error, SOURCE_HINT))
            }
            Err(error) => Err(hinted(error, SOURCE_HINT)),
        }
    }

    fn image(
        &self,
        app: &App,
        store: &Store,
        source: &dyn Source,
        cancel: &Cancellation,
    ) -> anyhow::Result<ImageInfo> {
        transfers::during(&app.ui, |transfers| {
            let watch = transfers.watch(&self.name);
            let platform = self.platform.clone();
            pull::bring(store, source, &self.name, platform, watch, cancel)
        })
    }
}

/// Opens an image that lies on this machine.
pub(crate) fn open(
    path: &Path,
    name: Option<&str>,
    store: &Store,
    cancel: &Cancellation,
) -> anyhow::Result<Arc<dyn Source>> {
    let path = environment::absolute(path)?;
    open_local(&path, name, store, cancel).map_err(|error| hinted(error, SOURCE_HINT))
}

fn open_local(
    path: &Path,
    name: Option<&str>,
    store: &Store,
    cancel: &Cancellation,
) -> Result<Arc<dyn Source>, OciError> {
    open_local_with(
        path,
        &LocalOptions {
            name: name.map(str::to_owned),
            scratch: Some(store.root().to_owned()),
            cancel: cancel.clone(),
            ..LocalOptions::default()
        },
    )
}

/// An image that a Docker on this machine has.
fn daemon(
    app: &App,
    name: &str,
    store: &Store,
    cancel: &Cancellation,
) -> anyhow::Result<Arc<dyn Source>> {
    let progress = Progress::new();
    let mut options = DaemonOptions {
        scratch: store.root().to_owned(),
        progress: progress.clone(),
        cancel: cancel.clone(),
        ..DaemonOptions::default()
    };
    if let Some(host) = &app.environment.docker_host {
        options.socket = match host.strip_prefix("unix://") {
            Some(path) => path.into(),
            None => {
                return Err(Problem::new(format!(
                    "DOCKER_HOST={host}: it is no socket of this machine"
                ))
                .hint("docker save -o image.tar NAME writes what hmvm image import reads")
                .into());
            }
        };
    }
    let socket = sanitize_path(&options.socket).to_string();
    bar::during(&app.ui, &progress, || open_daemon(name, &options)).map_err(|error| {
        match &error {
            OciError::NotFound { .. } => hinted(error, "docker image ls lists those that it has"),
            OciError::Unreachable { .. } => {
                hinted(error, format!("is there a Docker that you may use at {socket}? DOCKER_HOST=unix://PATH names another one"))
            }
            _ => error.into(),
        }
    })
}
