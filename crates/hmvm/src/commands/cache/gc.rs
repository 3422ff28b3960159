use std::time::Duration;

use clap::Args;
use hm_vm::gc::{self, GcPolicy, GcReport, Removed};
use serde_json::{Value, json};

use crate::app::App;
use crate::backend::{BackendArgs, daemon};
use crate::input::parse_duration;
use crate::input::values::{parse_count, parse_size};
use crate::names;
use crate::output::{Table, human, json};

/// Free space: remove snapshots that are not worth theirs, and what nothing refers to
///
/// Of what may go, snapshots that nothing was forked from go first, the least recently used of
/// them before the others. Without options, only what no key holds and was not used for a day goes.
/// Pinned keys always stay with all that they were forked from, and so does what running VMs use.
///
/// In the daemons of Docker and Podman that were used with this store, what programs left that were killed is removed
/// as well, if they answer.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  hmvm cache gc --max-size 10GiB --keep 20
  hmvm cache gc --unused-for 30d --dry-run")]
pub(super) struct Gc {
    /// Bytes that all snapshots together may take, such as 10GiB
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = parse_size)]
    max_size: Option<u64>,
    /// Snapshots under a key that there may be
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = parse_count)]
    max_entries: Option<u32>,
    /// Remove what was not used for this time, such as 30d
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = parse_duration)]
    unused_for: Option<Duration>,
    /// Keep this number of snapshots under a key in any case, whatever the limits say
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = parse_count)]
    keep: Option<u32>,
    /// Keep what was used within this time: a run under way may be about to fork from it
    #[arg(long, value_name = "TIME", default_value = "10m", allow_hyphen_values = true, value_parser = parse_duration)]
    spare: Duration,
    /// Only tell what would be removed
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    backend: BackendArgs,
}

impl Gc {
    pub(super) fn run(&self, app: &App) -> anyhow::Result<()> {
        let looked = self.backend.look(app)?;
        let registry = looked.registry(app)?;
        let report = gc::collect(&registry, looked.keeper.collected(), &self.policy())?;
        let mut leftovers = 0;
        if !self.dry_run {
            // The files go in the background: the space is free when this returns.
            looked.keeper.flush()?;
            leftovers = daemon::collect_leftovers(app, &looked)?;
        }
        if self.json {
            return json::document(&self.to_json(&report, leftovers));
        }
        self.tell(app, &report)?;
        if leftovers > 0 {
            let things = human::plural(leftovers, "thing");
            app.ui
                .say(format_args!("hmvm: {things} left over in daemons are gone"));
        }
        Ok(())
    }

    fn policy(&self) -> GcPolicy {
        let usual = GcPolicy::default();
        // Who asks for a short time means it.
        let at_most = |time: Duration| self.unused_for.map_or(time, |limit| limit.min(time));
        GcPolicy {
            max_bytes: self.max_size,
            max_entries: self.max_entries.map(u64::from),
            max_age: self.unused_for,
            floor_entries: self.keep.map_or(usual.floor_entries, u64::from),
            unowned_age: at_most(usual.unowned_age),
            spare_recent: at_most(self.spare),
            dry_run: self.dry_run,
            ..usual
        }
    }

    fn tell(&self, app: &App, report: &GcReport) -> anyhow::Result<()> {
        if !report.removed.is_empty() {
            let titles = ["SNAPSHOT", ">SIZE", "KEY", "WHY"];
            let mut table = Table::new(&titles, app.ui.out_style());
            for removed in &report.removed {
                let keys: Vec<String> = removed
                    .keys
                    .iter()
                    .map(|key| names::short_key(key))
                    .collect();
                table.row(vec![
                    names::short(&removed.snapshot).to_owned(),
                    human::size(removed.bytes),
                    if keys.is_empty() {
                        "-".to_owned()
                    } else {
                        keys.join(", ")
                    },
                    removed.reason.describe().to_owned(),
                ]);
            }
            app.ui.print(table)?;
        }
        let (gone, freed) = if self.dry_run {
            ("would go", "would be free")
        } else {
            ("are gone", "are free")
        };
        app.ui.say(format_args!(
            "hmvm: {} and {} that nothing used {gone}, {} {freed}; {} with {} stay",
            human::plural(report.removed.len() as u64, "snapshot"),
            human::plural(report.unused_layers, "layer"),
            human::size(report.freed_bytes),
            human::plural(report.kept, "snapshot"),
            human::size(report.kept_bytes),
        ));
        Ok(())
    }

    fn to_json(&self, report: &GcReport, leftovers: u64) -> Value {
        let removed = |removed: &Removed| {
            json!({
                "snapshot": &*removed.snapshot,
                "keys": removed.keys,
                "bytes": removed.bytes,
                "reason": removed.reason.name(),
            })
        };
        json!({
            "dry_run": self.dry_run,
            "leftovers": leftovers,
            "removed": report.removed.iter().map(removed).collect::<Vec<_>>(),
            "unused_layers": report.unused_layers,
            "freed_bytes": report.freed_bytes,
            "kept": report.kept,
            "kept_bytes": report.kept_bytes,
        })
    }
}
