use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use hm_vm::oci::{ArchiveWriter, Compression, Destination, LayoutWriter, Reference};
use hm_vm::store::{ExportOptions, ExportReport, Store};
use hm_vm::{Cancellation, SnapshotId};
use serde_json::json;

use crate::app::App;
use crate::backend::BackendArgs;
use crate::failure::Problem;
use crate::images::client::client;
use crate::images::place::Place;
use crate::input::environment;
use crate::output::sanitize::sanitize;
use crate::output::{human, json, transfers};
use crate::{names, signals};

/// Write a snapshot as an OCI image: into a layout directory or an archive
///
/// docker load, podman load and skopeo read the archive. The same snapshot gives the same bytes. Environment and
/// working directory are those of its image, and those of the command that made it.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  hmvm snapshot export 3f2a81 oci-archive:app.tar:app:1
  hmvm snapshot export 3f2a81 oci:./layout:v1 --compression zstd")]
pub(super) struct Export {
    /// The snapshot: its id or its key, or the beginning of one
    #[arg(value_name = "SNAPSHOT")]
    snapshot: String,
    /// oci:DIR[:TAG] or oci-archive:FILE[:TAG]
    #[arg(value_name = "DEST", value_parser = Place::parse)]
    destination: Place,
    #[command(flatten)]
    options: ImageArgs,
}

/// Put a snapshot into a registry, as an image
///
/// Only the layers travel that the registry lacks. docker run and podman run take the image.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  hmvm push 3f2a81 registry.example/team/app:1
  hmvm push hm1-8d727d99223e localhost:5000/app")]
pub(crate) struct Push {
    /// The snapshot: its id or its key, or the beginning of one
    #[arg(value_name = "SNAPSHOT")]
    snapshot: String,
    /// Name of the image: as for docker push
    #[arg(value_name = "REF", value_parser = parse_reference)]
    reference: Reference,
    #[command(flatten)]
    options: ImageArgs,
}

/// What `export` and `push` share.
#[derive(Args, Clone, Debug)]
struct ImageArgs {
    /// How layers are compressed; Docker before version 23 does not read zstd
    #[arg(long, value_enum, value_name = "FORM", default_value_t = CompressionChoice::Gzip)]
    compression: CompressionChoice,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    backend: BackendArgs,
}

/// Value of `--compression`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompressionChoice {
    /// Read by everything
    Gzip,
    /// Smaller, and much faster
    Zstd,
}

impl CompressionChoice {
    /// As the store takes it.
    pub(crate) fn compression(self) -> Compression {
        match self {
            Self::Gzip => Compression::Gzip,
            Self::Zstd => Compression::Zstd,
        }
    }
}

/// Reads the name of an image that is to be written.
pub(crate) fn parse_reference(text: &str) -> Result<Reference, String> {
    const HINT: &str = "write it as for docker push: registry.example/team/image:tag";
    let reference = text
        .parse::<Reference>()
        .map_err(|error| format!("{error}\nhint: {HINT}"))?;
    if reference.digest().is_some() {
        return Err(format!("a digest cannot be chosen\nhint: {HINT}"));
    }
    Ok(reference)
}

impl Export {
    pub(super) fn run(&self, app: &App) -> anyhow::Result<()> {
        let cancel = Cancellation::new();
        signals::watch_transfer(&cancel, &app.ui).context("cannot wait for signals")?;
        let keeper = self.options.backend.look(app)?.keeper;
        let store = keeper.store("hmvm snapshot export")?;
        let snapshot = names::snapshot_or_key(app, &keeper, &self.snapshot)?;
        let destination = writer(&self.destination)?;
        self.options
            .write(app, store, &snapshot, destination.as_ref(), &cancel)
    }
}

/// What writes to a layout or an archive.
pub(crate) fn writer(place: &Place) -> anyhow::Result<Arc<dyn Destination>> {
    Ok(match place {
        Place::Layout { path, name } => {
            let path = environment::absolute(path)?;
            Arc::new(LayoutWriter::new(&path, name.as_deref())?)
        }
        Place::Archive { path, name } => {
            let path = environment::absolute(path)?;
            Arc::new(ArchiveWriter::new(&path, name.as_deref())?)
        }
        Place::DockerArchive { .. } => {
            return Err(Problem::new("docker-archive: is for reading")
                .hint("docker load reads oci-archive:FILE as well")
                .into());
        }
        Place::DockerDaemon(_) => {
            return Err(Problem::new("docker-daemon: is for reading")
                .hint("write an archive, and let docker load read it")
                .into());
        }
        Place::Path(path) => {
            let shown = path.display().to_string();
            return Err(Problem::new(format!(
                "{:?} does not say what is to be written",
                sanitize(&shown)
            ))
            .hint(format!(
                "write oci:{shown} for a directory, oci-archive:{shown} for an archive; hmvm push is for registries"
            ))
            .into());
        }
    })
}

impl Push {
    pub(crate) fn run(&self, app: &App) -> anyhow::Result<()> {
        let cancel = Cancellation::new();
        signals::watch_transfer(&cancel, &app.ui).context("cannot wait for signals")?;
        let keeper = self.options.backend.look(app)?.keeper;
        let store = keeper.store("hmvm push")?;
        let snapshot = names::snapshot_or_key(app, &keeper, &self.snapshot)?;
        let client = client(app, &cancel)?;
        let destination = client.destination(&self.reference);
        self.options
            .write(app, store, &snapshot, destination.as_ref(), &cancel)
    }
}

impl ImageArgs {
    fn write(
        &self,
        app: &App,
        store: &Store,
        snapshot: &SnapshotId,
        destination: &dyn Destination,
        cancel: &Cancellation,
    ) -> anyhow::Result<()> {
        let registry = app.registry(store.root())?;
        let key = registry.key_of(snapshot)?;
        let components = match &key {
            Some(key) => registry.components(key)?,
            None => None,
        };
        let working_dir = components.as_ref().map(|it| it.working_dir.clone());
        let options = ExportOptions {
            compression: self.compression.compression(),
            key,
            env: components.map(|it| it.env).unwrap_or_default(),
            working_dir: working_dir.filter(|path| !path.is_empty()),
            cancel: cancel.clone(),
            ..ExportOptions::default()
        };
        let report = transfers::during(&app.ui, |transfers| {
            let options = ExportOptions {
                watch: transfers.watch(names::short(snapshot)),
                ..options
            };
            store.export_snapshot(snapshot, destination, &options)
        })?;
        for notice in &report.notices {
            app.ui.notice(&sanitize(notice));
        }
        self.tell(app, snapshot, destination, &report)
    }

    fn tell(
        &self,
        app: &App,
        snapshot: &SnapshotId,
        destination: &dyn Destination,
        report: &ExportReport,
    ) -> anyhow::Result<()> {
        if self.json {
            return json::document(&json!({
                "snapshot": snapshot.as_ref() as &str,
                "destination": destination.describe(),
                "manifest": report.manifest.to_string(),
                "config": report.config.to_string(),
                "layers": report.layers,
                "sent_bytes": report.sent_bytes,
                "total_bytes": report.total_bytes,
            }));
        }
        app.ui.data(report.manifest)?;
        app.ui.say(format_args!(
            "hmvm: snapshot {} is at {}: {}, {} of {} sent",
            names::short(snapshot),
            sanitize(&destination.describe()),
            human::plural(u64::try_from(report.layers).unwrap_or(u64::MAX), "layer"),
            human::size(report.sent_bytes),
            human::size(report.total_bytes),
        ));
        Ok(())
    }
}
