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
        let stats = store.stats()?;
        let hits: u64 = entries.iter().map(|entry| entry.hits).sum();
        let pinned = entries.iter().filter(|entry| entry.pinned).count();
        if self.json {
            return json::document(&json!({
                "store": store.root().to_string_lossy(),
                "keys": entries.len(),
                "pinned": pinned,
                "hits": hits,
                "snapshots": stats.snapshots,
                "images": stats.images,
                "layers": stats.layers,
                "layer_bytes": stats.layer_bytes,
            }));
        }
        let fields = [
            ("store", store.root().display().to_string()),
            ("keys", format!("{}, {pinned} pinned", entries.len())),
            ("hits", hits.to_string()),
            ("snapshots", stats.snapshots.to_string()),
            ("images", stats.images.to_string()),
            (
                "layers",
                format!("{}, {}", stats.layers, human::size(stats.layer_bytes)),
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
