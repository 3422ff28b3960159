use clap::Args;

use super::not_found;
use crate::app::App;
use crate::failure::Problem;
use crate::output::human;

/// Remove images; snapshots that began with them stay whole
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  hmvm image rm debian")]
pub(super) struct Rm {
    /// Their names
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

impl Rm {
    pub(super) fn run(&self, app: &App) -> anyhow::Result<()> {
        let store = app.store()?;
        for name in &self.names {
            if name == "host" {
                return Err(Problem::new("image \"host\" cannot be removed")
                    .hint("it is this machine's own root file system, and takes no space")
                    .into());
            }
            if store.image(name)?.is_none() {
                return Err(not_found(name));
            }
        }
        for name in &self.names {
            store.remove_image(name)?;
        }
        let count = human::plural(self.names.len() as u64, "image");
        app.ui.say(format_args!("hmvm: removed {count}"));
        Ok(())
    }
}
