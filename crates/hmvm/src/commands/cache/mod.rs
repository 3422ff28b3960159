//! `hmvm cache`: one file a sub-command.

mod dir;
mod gc;
mod ls;
mod pin;
mod rm;
mod stats;
mod transfer;

use clap::{Args, Subcommand};
use hm_vm::registry::Entry;
use hm_vm::{ImageRegistry, SnapshotId};

use crate::app::App;
use crate::backend::Keeper;

/// See and change what is remembered, and free space
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  hmvm cache ls\n  hmvm cache gc --unused-for 30d")]
pub(crate) struct Cache {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Ls(ls::Ls),
    Stats(stats::Stats),
    Rm(rm::Rm),
    Pin(pin::Pin),
    Unpin(pin::Unpin),
    Gc(gc::Gc),
    Dir(dir::Dir),
    Export(transfer::Export),
    Import(transfer::Import),
}

impl Cache {
    pub(crate) fn run(&self, app: &App) -> anyhow::Result<()> {
        match &self.command {
            Command::Ls(ls) => ls.run(app),
            Command::Stats(stats) => stats.run(app),
            Command::Rm(rm) => rm.run(app),
            Command::Pin(pin) => pin.run(app),
            Command::Unpin(unpin) => unpin.run(app),
            Command::Gc(gc) => gc.run(app),
            Command::Dir(dir) => dir.run(app),
            Command::Export(export) => export.run(app),
            Command::Import(import) => import.run(app),
        }
    }
}

/// Forgets a key, and removes its snapshot when no other key holds it.
fn forget(keeper: &Keeper, registry: &ImageRegistry, entry: &Entry) -> anyhow::Result<()> {
    // The key first: it must never point to a snapshot that is gone.
    registry.try_forget(&entry.key, &entry.snapshot)?;
    if !is_held(registry, &entry.snapshot)? {
        keeper.remove(&entry.snapshot)?;
    }
    Ok(())
}

fn is_held(registry: &ImageRegistry, snapshot: &SnapshotId) -> anyhow::Result<bool> {
    Ok(registry.key_of(snapshot)?.is_some())
}
