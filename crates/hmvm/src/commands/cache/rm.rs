use clap::Args;

use crate::app::App;
use crate::backend::BackendArgs;
use crate::failure::Problem;
use crate::names;
use crate::output::human;

/// Forget keys, and remove their snapshots: the commands run again the next time
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  hmvm cache rm hm1-3f2a81")]
pub(super) struct Rm {
    /// The keys, or the snapshots stored under them; may be abbreviated
    #[arg(value_name = "KEY", required = true)]
    keys: Vec<String>,
    #[command(flatten)]
    backend: BackendArgs,
}

impl Rm {
    pub(super) fn run(&self, app: &App) -> anyhow::Result<()> {
        let looked = self.backend.look(app)?;
        let registry = looked.registry(app)?;
        // All names are looked up before anything is removed.
        let entries = self
            .keys
            .iter()
            .map(|key| names::entry(&registry, key))
            .collect::<anyhow::Result<Vec<_>>>()?;
        if let Some(pinned) = entries.iter().find(|entry| entry.pinned) {
            let key = names::short_key(&pinned.key);
            return Err(Problem::new(format!("key {key} is pinned"))
                .hint(format!("hmvm cache unpin {key}"))
                .into());
        }
        for entry in &entries {
            super::forget(&looked.keeper, &registry, entry)?;
        }
        let count = human::plural(entries.len() as u64, "key");
        app.ui.say(format_args!("hmvm: forgot {count}"));
        Ok(())
    }
}
