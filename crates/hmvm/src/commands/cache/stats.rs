use clap::Args;
use serde_json::json;

use crate::app::App;
use crate::output::{human, json};

/// Tell how much is remembered, and what uses the space
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  hmvm cache stats")]
pub(super) struct Stats {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Stats {
    pub(super) fn run(&self, app: &App) -> anyhow::Result<()> {
        let store = app.store()?;
        let entries = app.registry(&store)?.entries()?;
        let mut stats = store.stats()?;
        if stats.unmeasured_layers > 0 {
            store.flush()?;
            stats = store.stats()?;
        }
        let hits: u64 = entries.iter().map(|entry| entry.hits).sum();
        let output: u64 = entries.iter().map(|entry| entry.output_bytes).sum();
        let pinned = entries.iter().filter(|entry| entry.pinned).count();
        if self.json {
            return json::document(&json!({
                "store": store.root().to_string_lossy(),
                "keys": entries.len(),
                "pinned": pinned,
                "hits": hits,
                "output_bytes": output,
                "snapshots": stats.snapshots,
                "images": stats.images,
                "layers": stats.layers,
                "unused_layers": stats.unused_layers,
                "bytes": stats.bytes,
                "shared_bytes": stats.shared_bytes,
                "unused_bytes": stats.unused_bytes,
                "directories": stats.caches,
                "directory_bytes": stats.cache_bytes,
            }));
        }
        let fields = [
            ("store", store.root().display().to_string()),
            ("keys", format!("{}, {pinned} pinned", entries.len())),
            ("hits", hits.to_string()),
            (
                "output",
                format!("{} of the commands, stored compressed", human::size(output)),
            ),
            ("snapshots", stats.snapshots.to_string()),
            ("images", stats.images.to_string()),
            (
                "layers",
                format!(
                    "{}, {} ({} of it shared)",
                    stats.layers,
                    human::size(stats.bytes),
                    human::size(stats.shared_bytes)
                ),
            ),
            (
                "unused",
                format!(
                    "{}, {} (hmvm cache gc frees it)",
                    human::plural(stats.unused_layers, "layer"),
                    human::size(stats.unused_bytes)
                ),
            ),
            (
                "kept",
                format!(
                    "{}, {} (hmvm cache dir ls)",
                    human::plural(stats.caches, "directory|directories"),
                    human::size(stats.cache_bytes)
                ),
            ),
        ];
        let style = app.ui.out_style();
        fields.iter().try_for_each(|(name, value)| {
            app.ui.data(format_args!(
                "{} {value}",
                style.bold(&format!("{name:<10}"))
            ))
        })
    }
}
