use std::path::{Path, PathBuf};

use clap::Args;
use hm_vm::SnapshotId;
use hm_vm::docker::DockerBackend;
use hm_vm::store::Store;

use super::outside::out_of_daemon;
use crate::app::App;
use crate::backend::{BackendArgs, Keeper, Looked};
use crate::failure::hinted;
use crate::input::environment;
use crate::names::{self, GuestPath, look_hint, parse_guest_path};
use crate::output::human;
use crate::output::sanitize::sanitize_path;

/// Bring a file or a directory out of a snapshot
///
/// Nothing in the snapshot can make it write elsewhere: links are brought as links and never
/// followed out, device nodes are left out, and set-user-id bits are cleared. Files belong to you.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  hmvm snapshot cp 3f2a81:/src/target/release/app ./app
  hmvm snapshot cp 3f2a81:/src/reports .")]
pub(super) struct Cp {
    /// What to bring out
    #[arg(value_name = "SNAPSHOT:/PATH", value_parser = parse_guest_path)]
    from: GuestPath,
    /// Where to: into it when it is a directory, else under this name
    #[arg(value_name = "HOST")]
    to: PathBuf,
    #[command(flatten)]
    backend: BackendArgs,
}

impl Cp {
    pub(super) fn run(&self, app: &App) -> anyhow::Result<()> {
        let Looked { keeper, store } = self.backend.look(app)?;
        let id = names::snapshot(app, &keeper, &self.from.snapshot)?;
        let target = environment::absolute(&self.to)?;
        let store = match &keeper {
            Keeper::Store(store) => store,
            Keeper::Daemon(daemon) => return self.of_daemon(app, (daemon, &store), &id, &target),
        };
        let report = store
            .copy_out(&id, self.from.path.as_ref(), &target)
            .map_err(|error| hinted(error, look_hint(&self.from)))?;
        for left_out in &report.skipped {
            app.ui
                .notice(&format!("left out: {}", sanitize_path(left_out)));
        }
        let entries = report.files + report.directories + report.symlinks;
        app.ui.say(format_args!(
            "hmvm: {}, {} to {}",
            human::plural(entries, "entry|entries"),
            human::size(report.bytes),
            sanitize_path(&target)
        ));
        Ok(())
    }

    fn of_daemon(
        &self,
        app: &App,
        daemon: (&DockerBackend, &Store),
        id: &SnapshotId,
        target: &Path,
    ) -> anyhow::Result<()> {
        let brought = out_of_daemon(daemon, id, &self.from, target)?;
        for left_out in &brought.skipped {
            app.ui
                .notice(&format!("left out: {}", sanitize_path(left_out)));
        }
        app.ui.say(format_args!(
            "hmvm: {} to {}",
            human::plural(brought.files + brought.unchanged, "file"),
            sanitize_path(target)
        ));
        Ok(())
    }
}
