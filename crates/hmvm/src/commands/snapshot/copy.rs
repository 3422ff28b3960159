use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use hm_vm::docker::DockerBackend;
use hm_vm::oci::{ArchiveWriter, Compression, LocalOptions, open_local_with};
use hm_vm::store::{Base, ExportOptions, Store};
use hm_vm::{Cancellation, Error, Progress, ProgressUnit, SnapshotId};
use serde_json::json;

use crate::app::App;
use crate::backend::{BackendArgs, BackendChoice, Keeper, Looked, daemon};
use crate::failure::{Problem, contract, hinted};
use crate::images::pull;
use crate::output::sanitize::sanitize;
use crate::output::{bar, json, transfers};
use crate::{names, signals};

/// Copy a snapshot to another backend, and print its id there
///
/// It has the same files there, and the same environment, user and working directory; keys do not go with it. What a
/// step made in the sandbox can be forked in Docker or Podman, and back.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  hmvm snapshot copy 3f2a81 --to docker
  hmvm snapshot copy 9c01de --backend docker --to sandbox")]
pub(super) struct Copy {
    /// The snapshot: its id or its key, or the beginning of one
    #[arg(value_name = "SNAPSHOT")]
    snapshot: String,
    /// Where to
    #[arg(long, value_enum, value_name = "BACKEND")]
    to: Destination,
    #[command(flatten)]
    backend: BackendArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Value of `--to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Destination {
    /// The store of the sandbox
    Sandbox,
    /// The daemon of Docker
    Docker,
    /// The service of Podman
    Podman,
}

impl Destination {
    fn backend(self) -> BackendChoice {
        match self {
            Self::Sandbox => BackendChoice::Sandbox,
            Self::Docker => BackendChoice::Docker,
            Self::Podman => BackendChoice::Podman,
        }
    }
}

impl Copy {
    pub(super) fn run(&self, app: &App) -> anyhow::Result<()> {
        let cancel = Cancellation::new();
        signals::watch_transfer(&cancel, &app.ui).context("cannot wait for signals")?;
        let Looked { store, keeper } = self.backend.look(app)?;
        let (from, snapshot) = self.find(app, keeper)?;
        let to = self.to.backend().open(app, &store)?;
        if to.is_same(&from) {
            let message = format!(
                "snapshot {} is kept by {} already",
                names::short(&snapshot),
                to.name()
            );
            return Err(Problem::new(message)
                .hint("--to takes another backend")
                .into());
        }
        let copying = Copying {
            app,
            store: &store,
            snapshot: &snapshot,
            cancel: &cancel,
            archive: Archive(store.temporary_file()),
        };
        let copied = copying.copy(&from, &to)?;
        cancel.check()?;
        to.flush()?;
        if self.json {
            return json::document(&json!({
                "snapshot": snapshot.as_ref() as &str,
                "from": from.name(),
                "to": to.name(),
                "copy": copied.as_ref() as &str,
            }));
        }
        app.ui.data(&copied)?;
        app.ui.say(format_args!(
            "hmvm: snapshot {} is {} in {to}; hmvm exec --backend {to} --from {} goes on from there",
            names::short(&snapshot),
            names::short(&copied),
            names::short(&copied),
            to = to.name(),
        ));
        Ok(())
    }

    /// Who keeps the snapshot: the chosen backend; without a choice, any.
    fn find(&self, app: &App, keeper: Keeper) -> anyhow::Result<(Keeper, SnapshotId)> {
        let error = match names::snapshot_or_key(app, &keeper, &self.snapshot) {
            Ok(found) => return Ok((keeper, found)),
            Err(error) => error,
        };
        let is_unknown = matches!(contract(&error), Some(Error::SnapshotNotFound { .. }));
        if self.backend.is_chosen() || !is_unknown {
            return Err(error);
        }
        let Some(other) = daemon::other_keeper(app, &keeper, &self.snapshot) else {
            return Err(error);
        };
        let found = other.resolve(&self.snapshot)?;
        Ok((other, found))
    }
}

/// One copy on its way.
struct Copying<'a> {
    app: &'a App,
    store: &'a Store,
    snapshot: &'a SnapshotId,
    cancel: &'a Cancellation,
    archive: Archive,
}

/// A file that goes with this value; with the program's next start, should it be killed.
struct Archive(PathBuf);

impl Drop for Archive {
    fn drop(&mut self) {
        let _gone = fs::remove_file(&self.0);
    }
}

impl Copying<'_> {
    fn copy(&self, from: &Keeper, to: &Keeper) -> anyhow::Result<SnapshotId> {
        match from {
            Keeper::Store(_) => self.out_of_store()?,
            Keeper::Daemon(daemon) => self.out_of_daemon(daemon)?,
        }
        self.cancel.check()?;
        match to {
            Keeper::Store(_) => self.to_store(from.name()),
            Keeper::Daemon(daemon) => self.to_daemon(daemon),
        }
    }

    fn path(&self) -> &Path {
        &self.archive.0
    }

    fn out_of_store(&self) -> anyhow::Result<()> {
        // A name would stay the copy's in the daemon.
        let destination = ArchiveWriter::new(self.path(), None)?;
        let report = transfers::during(&self.app.ui, |transfers| {
            let options = ExportOptions {
                // The archive is gone in a moment: what is quick counts. Older daemons do not read zstd.
                compression: Compression::Gzip,
                cancel: self.cancel.clone(),
                watch: transfers.watch(names::short(self.snapshot)),
                ..ExportOptions::default()
            };
            self.store
                .export_snapshot(self.snapshot, &destination, &options)
        });
        let report = report.map_err(|error| {
            hinted(
                error,
                "a snapshot on another image can be copied: hmvm exec --image IMAGE",
            )
        })?;
        for notice in &report.notices {
            self.app.ui.notice(&sanitize(notice));
        }
        Ok(())
    }

    fn out_of_daemon(&self, daemon: &DockerBackend) -> anyhow::Result<()> {
        let making = || format!("making {}", self.path().display());
        let file = File::create_new(self.path()).with_context(making)?;
        let mut counted = Counted::new(file, None, self.cancel);
        let progress = counted.progress.clone();
        bar::during(&self.app.ui, &progress, || {
            daemon.save_archive(self.snapshot, &mut counted)
        })
    }

    fn to_daemon(&self, daemon: &DockerBackend) -> anyhow::Result<SnapshotId> {
        let reading = || format!("reading {}", self.path().display());
        let file = File::open(self.path()).with_context(reading)?;
        let bytes = file.metadata().with_context(reading)?.len();
        let counted = Counted::new(file, Some(bytes), self.cancel);
        let progress = counted.progress.clone();
        let loaded = bar::during(&self.app.ui, &progress, || daemon.load_archive(counted));
        // What the daemon says of an archive that ended early is not why.
        self.cancel.check()?;
        loaded
    }

    /// A snapshot is made of a VM: of one that nothing runs in, on an image that goes when that is done.
    fn to_store(&self, from: &str) -> anyhow::Result<SnapshotId> {
        let options = LocalOptions {
            scratch: Some(self.store.root().to_owned()),
            cancel: self.cancel.clone(),
            ..LocalOptions::default()
        };
        let source = open_local_with(self.path(), &options)?;
        let short = names::short(self.snapshot);
        // Nobody else has the session's number: two copies at once do not share a name.
        let name = format!("{from}-{short}-{}", self.store.session());
        transfers::during(&self.app.ui, |transfers| {
            let watch = transfers.watch(short);
            pull::bring(self.store, source.as_ref(), &name, None, watch, self.cancel)
        })?;
        let made = self.store.new_vm(Base::Image(&name));
        let kept = made.and_then(|vm| vm.commit(None));
        let removed = self.store.remove_image(&name);
        let kept = kept?;
        removed?;
        Ok(kept)
    }
}

/// A file whose bytes are counted, and which fails when the user wants the end.
struct Counted {
    file: File,
    progress: Progress,
    cancel: Cancellation,
}

impl Counted {
    fn new(file: File, bytes: Option<u64>, cancel: &Cancellation) -> Self {
        let progress = Progress::new();
        progress.begin(ProgressUnit::Bytes, bytes);
        Self {
            file,
            progress,
            cancel: cancel.clone(),
        }
    }

    fn count(&self, bytes: usize) -> usize {
        self.progress.add(bytes as u64);
        bytes
    }
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.cancel.check().map_err(io::Error::other)?;
        self.file.read(buffer).map(|bytes| self.count(bytes))
    }
}

impl Write for Counted {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.cancel.check().map_err(io::Error::other)?;
        self.file.write(buffer).map(|bytes| self.count(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
