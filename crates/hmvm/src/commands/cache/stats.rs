use clap::Args;
use hm_vm::docker::DockerBackend;
use hm_vm::registry::Entry;
use hm_vm::store::Store;
use serde_json::json;

use crate::app::App;
use crate::backend::{BackendArgs, Keeper};
use crate::output::sanitize::sanitize;
use crate::output::{human, json};

/// Tell how much is remembered, and what uses the space
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  hmvm cache stats")]
pub(super) struct Stats {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    backend: BackendArgs,
}

impl Stats {
    pub(super) fn run(&self, app: &App) -> anyhow::Result<()> {
        let looked = self.backend.look(app)?;
        let entries = looked.registry(app)?.entries()?;
        match &looked.keeper {
            Keeper::Store(store) => self.of_store(app, store, &entries),
            Keeper::Daemon(daemon) => self.of_daemon(app, daemon, &entries),
        }
    }

    fn of_daemon(
        &self,
        app: &App,
        daemon: &DockerBackend,
        entries: &[Entry],
    ) -> anyhow::Result<()> {
        let snapshots = daemon.snapshots()?;
        let hits: u64 = entries.iter().map(|entry| entry.hits).sum();
        let output: u64 = entries.iter().map(|entry| entry.output_bytes).sum();
        let pinned = entries.iter().filter(|entry| entry.pinned).count();
        let bytes: u64 = snapshots.iter().map(|facts| facts.own_bytes).sum();
        if self.json {
            return json::document(&json!({
                "daemon": daemon.engine().to_string(),
                "keys": entries.len(),
                "pinned": pinned,
                "hits": hits,
                "output_bytes": output,
                "snapshots": snapshots.len(),
                "bytes": bytes,
            }));
        }
        print(
            app,
            &[
                (
                    "daemon",
                    sanitize(&daemon.engine().to_string()).into_owned(),
                ),
                ("keys", format!("{}, {pinned} pinned", entries.len())),
                ("hits", hits.to_string()),
                ("output", stored_output(output)),
                (
                    "snapshots",
                    format!("{}, {}", snapshots.len(), human::size(bytes)),
                ),
            ],
        )
    }

    fn of_store(&self, app: &App, store: &Store, entries: &[Entry]) -> anyhow::Result<()> {
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
            ("output", stored_output(output)),
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
        print(app, &fields)
    }
}

fn stored_output(bytes: u64) -> String {
    format!("{} of the commands, stored compressed", human::size(bytes))
}

fn print(app: &App, fields: &[(&str, String)]) -> anyhow::Result<()> {
    let style = app.ui.out_style();
    fields.iter().try_for_each(|(name, value)| {
        app.ui.data(format_args!(
            "{} {value}",
            style.bold(&format!("{name:<10}"))
        ))
    })
}
