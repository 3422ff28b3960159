use clap::Args;

use crate::app::App;
use crate::backend::BackendArgs;
use crate::failure::Problem;
use crate::names;
use crate::output::human;

/// Remove snapshots; what was forked from them stays whole
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  hmvm snapshot rm 3f2a81 9c01de")]
pub(super) struct Rm {
    /// Their ids, or beginnings of them
    #[arg(value_name = "SNAPSHOT", required = true)]
    ids: Vec<String>,
    #[command(flatten)]
    backend: BackendArgs,
}

impl Rm {
    pub(super) fn run(&self, app: &App) -> anyhow::Result<()> {
        let looked = self.backend.look(app)?;
        let (keeper, registry) = (&looked.keeper, looked.registry(app)?);
        // All names are looked up before anything is removed.
        let snapshots = self
            .ids
            .iter()
            .map(|id| names::snapshot(app, keeper, id))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let mut keys = Vec::new();
        for entry in registry.entries()? {
            if !snapshots.contains(&entry.snapshot) {
                continue;
            }
            if entry.pinned {
                let key = names::short_key(&entry.key);
                let id = names::short(&entry.snapshot);
                return Err(
                    Problem::new(format!("snapshot {id} is pinned by key {key}"))
                        .hint(format!("hmvm cache unpin {key}"))
                        .into(),
                );
            }
            keys.push(entry.key);
        }
        // The cache first: a key never points to a snapshot that is gone.
        for key in &keys {
            registry.try_invalidate(key)?;
        }
        for snapshot in &snapshots {
            keeper.remove(snapshot)?;
        }
        let count = human::plural(snapshots.len() as u64, "snapshot");
        app.ui.say(format_args!("hmvm: removed {count}"));
        Ok(())
    }
}
