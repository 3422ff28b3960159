use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use clap::Args;
use hm_vm::registry::Entry;
use hm_vm::store::SnapshotInfo;
use serde_json::json;

use crate::app::App;
use crate::input::parse_duration;
use crate::names;
use crate::output::{human, json};

/// Free the space of what nothing refers to, and of what was not used for long
///
/// Without options, only what nothing can reach any more is removed. Pinned keys, and snapshots
/// of running VMs, always stay whole.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  hmvm cache gc --unused-for 30d --keep 1000")]
pub(super) struct Gc {
    /// Forget keys, and remove snapshots without a key, that were not used for this time
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    unused_for: Option<Duration>,
    /// Forget the least recently used keys beyond this number
    #[arg(long, value_name = "N")]
    keep: Option<usize>,
    /// Only tell what would be removed
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Gc {
    pub(super) fn run(&self, app: &App) -> anyhow::Result<()> {
        let store = app.store()?;
        let registry = app.registry(&store)?;
        let entries = registry.entries()?;
        let now = SystemTime::now();
        let forgotten = self.entries_to_forget(&entries, now);
        let held: BTreeSet<&str> = entries.iter().map(|entry| &*entry.snapshot).collect();
        let snapshots = store.snapshots()?;
        let loose: Vec<&SnapshotInfo> = snapshots
            .iter()
            .filter(|info| !held.contains(&*info.id) && self.is_old(info.last_used, now))
            .collect();
        let mut freed = 0;
        if !self.dry_run {
            for entry in &forgotten {
                super::forget(&store, &registry, entry)?;
            }
            for info in &loose {
                store.remove_snapshot(&info.id)?;
            }
            freed = store.collect_unused()?.bytes;
            // The files go in the background: the space is free when this returns.
            store.flush()?;
        }
        if self.json {
            return json::document(&json!({
                "dry_run": self.dry_run,
                "keys": forgotten.iter().map(|entry| &entry.key).collect::<Vec<_>>(),
                "snapshots": loose.iter().map(|info| &*info.id).collect::<Vec<_>>(),
                "freed_bytes": freed,
            }));
        }
        self.tell(app, &forgotten, &loose, freed)
    }

    /// Entries come least recently used first.
    fn entries_to_forget<'a>(&self, entries: &'a [Entry], now: SystemTime) -> Vec<&'a Entry> {
        let beyond = self
            .keep
            .map_or(0, |keep| entries.len().saturating_sub(keep));
        let mut surplus = beyond;
        let mut forgotten = Vec::new();
        for entry in entries.iter().filter(|entry| !entry.pinned) {
            if surplus > 0 || self.is_old(entry.last_used, now) {
                surplus = surplus.saturating_sub(1);
                forgotten.push(entry);
            }
        }
        forgotten
    }

    fn is_old(&self, last_used: SystemTime, now: SystemTime) -> bool {
        let age = now.duration_since(last_used).unwrap_or_default();
        self.unused_for.is_some_and(|limit| age >= limit)
    }

    fn tell(
        &self,
        app: &App,
        forgotten: &[&Entry],
        loose: &[&SnapshotInfo],
        freed: u64,
    ) -> anyhow::Result<()> {
        for entry in forgotten {
            app.ui
                .data(format_args!("key {}", names::short_key(&entry.key)))?;
        }
        for info in loose {
            app.ui
                .data(format_args!("snapshot {}", names::short(&info.id)))?;
        }
        let keys = human::plural(forgotten.len() as u64, "key");
        let snapshots = human::plural(loose.len() as u64, "snapshot");
        if self.dry_run {
            app.ui.say(format_args!(
                "hmvm: {keys} and {snapshots} without a key would go"
            ));
        } else {
            let freed = human::size(freed);
            app.ui.say(format_args!(
                "hmvm: {keys} and {snapshots} without a key are gone, {freed} freed"
            ));
        }
        Ok(())
    }
}
