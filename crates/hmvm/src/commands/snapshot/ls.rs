use std::time::SystemTime;

use clap::Args;
use hm_vm::docker::SnapshotFacts;
use serde_json::Value;

use crate::app::App;
use crate::backend::{BackendArgs, Keeper};
use crate::names;
use crate::output::sanitize::sanitize;
use crate::output::{Table, human, json};

/// List the snapshots, newest first
#[derive(Args, Debug)]
#[command(
    visible_alias = "list",
    after_help = "Example:\n  hmvm snapshot ls --json | jq -r '.[].id'"
)]
pub(super) struct Ls {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    backend: BackendArgs,
}

impl Ls {
    pub(super) fn run(&self, app: &App) -> anyhow::Result<()> {
        let looked = self.backend.look(app)?;
        let store = match &looked.keeper {
            Keeper::Store(store) => store,
            Keeper::Daemon(daemon) => return self.of_daemon(app, daemon.snapshots()?),
        };
        let mut snapshots = super::measured(store)?;
        snapshots.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        if self.json {
            let list: Vec<Value> = snapshots.iter().map(super::to_json).collect();
            return json::document(&list);
        }
        if snapshots.is_empty() {
            app.ui.say("hmvm: no snapshots");
            return Ok(());
        }
        let now = SystemTime::now();
        let titles = ["ID", "FROM", "KEY", ">SIZE", ">DEPTH", "CREATED"];
        let mut table = Table::new(&titles, app.ui.out_style());
        for info in &snapshots {
            table.row(vec![
                names::short(&info.id).to_owned(),
                super::origin(info),
                info.label
                    .as_deref()
                    .map_or_else(|| "-".into(), names::short_key),
                info.own_bytes.map_or_else(|| "-".into(), human::size),
                info.depth.to_string(),
                human::ago(now, info.created),
            ]);
        }
        app.ui.print(table)
    }

    fn of_daemon(&self, app: &App, mut snapshots: Vec<SnapshotFacts>) -> anyhow::Result<()> {
        snapshots.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        if self.json {
            let list: Vec<Value> = snapshots.iter().map(super::facts_json).collect();
            return json::document(&list);
        }
        if snapshots.is_empty() {
            app.ui.say("hmvm: no snapshots");
            return Ok(());
        }
        let now = SystemTime::now();
        let titles = ["ID", "FROM", "KEY", ">SIZE", "CREATED"];
        let mut table = Table::new(&titles, app.ui.out_style());
        for facts in &snapshots {
            let parent = facts.parent.as_deref().map_or("-", names::short);
            table.row(vec![
                names::short(&facts.id).to_owned(),
                sanitize(parent).into_owned(),
                facts
                    .key
                    .as_deref()
                    .map_or_else(|| "-".into(), names::short_key),
                human::size(facts.own_bytes),
                human::ago(now, facts.created),
            ]);
        }
        app.ui.print(table)
    }
}
