use clap::Args;

use crate::app::App;
use crate::backend::BackendArgs;
use crate::names;

/// Keep keys, whatever is cleaned up
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  hmvm cache pin hm1-3f2a81")]
pub(super) struct Pin {
    /// The keys, or the snapshots stored under them; may be abbreviated
    #[arg(value_name = "KEY", required = true)]
    keys: Vec<String>,
    #[command(flatten)]
    backend: BackendArgs,
}

/// No longer keep keys that were pinned
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  hmvm cache unpin hm1-3f2a81")]
pub(super) struct Unpin {
    /// The keys, or the snapshots stored under them; may be abbreviated
    #[arg(value_name = "KEY", required = true)]
    keys: Vec<String>,
    #[command(flatten)]
    backend: BackendArgs,
}

impl Pin {
    pub(super) fn run(&self, app: &App) -> anyhow::Result<()> {
        set(app, &self.backend, &self.keys, true)
    }
}

impl Unpin {
    pub(super) fn run(&self, app: &App) -> anyhow::Result<()> {
        set(app, &self.backend, &self.keys, false)
    }
}

fn set(app: &App, backend: &BackendArgs, keys: &[String], pinned: bool) -> anyhow::Result<()> {
    let registry = backend.look(app)?.registry(app)?;
    let entries = keys
        .iter()
        .map(|key| names::entry(&registry, key))
        .collect::<anyhow::Result<Vec<_>>>()?;
    for entry in &entries {
        if pinned {
            registry.pin(&entry.key)?;
        } else {
            registry.unpin(&entry.key)?;
        }
        let word = if pinned { "pinned" } else { "unpinned" };
        app.ui.say(format_args!(
            "hmvm: {word} {}",
            names::short_key(&entry.key)
        ));
    }
    Ok(())
}
