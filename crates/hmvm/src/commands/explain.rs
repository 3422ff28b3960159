use clap::Args;
use hm_vm::{ImageRegistry, KeyComponents};
use serde_json::json;

use crate::app::App;
use crate::exit_codes;
use crate::failure::Problem;
use crate::names;
use crate::output::json;
use crate::output::sanitize::sanitize;

/// Tell in what two cached commands differ: why the second one was not skipped
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  hmvm explain 3f2a81 9c01de
  cmd     make → make test
  env.CI  1 → absent")]
pub(crate) struct Explain {
    /// The first key, or the snapshot stored under it; may be abbreviated
    #[arg(value_name = "KEY1")]
    old: String,
    /// The second one
    #[arg(value_name = "KEY2")]
    new: String,
    /// Exit with code 1 when they differ
    #[arg(long)]
    exit_code: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Explain {
    pub(crate) fn run(&self, app: &App) -> anyhow::Result<u8> {
        let store = app.store()?;
        let registry = app.registry(&store)?;
        let (old_key, old) = components(&registry, &self.old)?;
        let (new_key, new) = components(&registry, &self.new)?;
        let changes = old.diff(&new);
        if self.json {
            let document = json!({ "old": old_key, "new": new_key, "changes": changes });
            json::document(&document)?;
        } else if changes.is_empty() {
            app.ui.say("hmvm: no difference");
        } else {
            let style = app.ui.out_style();
            let width = changes
                .iter()
                .map(|change| change.component.chars().count())
                .max();
            for change in &changes {
                let name = sanitize(&change.component);
                let width = width.unwrap_or_default();
                let text = |value: &Option<String>| {
                    value
                        .as_deref()
                        .map_or_else(|| style.dim("absent"), |value| sanitize(value).into_owned())
                };
                app.ui.data(format_args!(
                    "{}{:pad$}  {} → {}",
                    style.bold(&name),
                    "",
                    text(&change.old),
                    text(&change.new),
                    pad = width.saturating_sub(name.chars().count()),
                ))?;
            }
        }
        let negative = self.exit_code && !changes.is_empty();
        Ok(if negative {
            exit_codes::NEGATIVE
        } else {
            exit_codes::SUCCESS
        })
    }
}

fn components(registry: &ImageRegistry, text: &str) -> anyhow::Result<(String, KeyComponents)> {
    let entry = names::entry(registry, text)?;
    let components = registry.components(&entry.key)?.ok_or_else(|| {
        Problem::new(format!(
            "nothing is known of what key {} was made from",
            names::short_key(&entry.key)
        ))
        .hint("only keys of --cache auto derive from parts that can be compared")
    })?;
    Ok((entry.key, components))
}
