use std::time::SystemTime;

use clap::Args;
use hm_vm::SnapshotId;
use hm_vm::docker::DockerBackend;

use crate::app::App;
use crate::backend::{BackendArgs, Keeper};
use crate::failure::Problem;
use crate::names;
use crate::output::sanitize::sanitize;
use crate::output::{human, json};

/// Tell all that is known of a snapshot
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  hmvm snapshot inspect 3f2a81")]
pub(super) struct Inspect {
    /// Its id, or the beginning of it
    #[arg(value_name = "SNAPSHOT")]
    id: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    backend: BackendArgs,
}

impl Inspect {
    pub(super) fn run(&self, app: &App) -> anyhow::Result<()> {
        let keeper = self.backend.look(app)?.keeper;
        let id = names::snapshot(app, &keeper, &self.id)?;
        let store = match &keeper {
            Keeper::Store(store) => store,
            Keeper::Daemon(daemon) => return self.of_daemon(app, daemon, &id),
        };
        super::measured(store)?;
        let info = store
            .snapshot(&id)?
            .ok_or_else(|| Problem::new(format!("snapshot {id} was removed just now")))?;
        if self.json {
            return json::document(&super::to_json(&info));
        }
        let now = SystemTime::now();
        let unknown = || "not measured yet".to_owned();
        let fields = [
            ("id", info.id.to_string()),
            ("from", super::origin(&info)),
            (
                "key",
                info.label
                    .as_deref()
                    .map_or_else(|| "none".into(), |key| sanitize(key).into_owned()),
            ),
            (
                "created",
                format!(
                    "{} ({})",
                    human::timestamp(info.created),
                    human::ago(now, info.created)
                ),
            ),
            (
                "last used",
                format!(
                    "{} ({})",
                    human::timestamp(info.last_used),
                    human::ago(now, info.last_used)
                ),
            ),
            ("depth", info.depth.to_string()),
            ("layers", info.layers.to_string()),
            ("size", info.own_bytes.map_or_else(unknown, human::size)),
            (
                "freed by removal",
                info.exclusive_bytes.map_or_else(unknown, human::size),
            ),
            (
                "on disk for good",
                if info.durable { "yes" } else { "in a moment" }.to_owned(),
            ),
        ];
        print(app, &fields)
    }

    fn of_daemon(&self, app: &App, daemon: &DockerBackend, id: &SnapshotId) -> anyhow::Result<()> {
        let mut all = daemon.snapshots()?.into_iter();
        let facts = all
            .find(|facts| facts.id == *id)
            .ok_or_else(|| Problem::new(format!("snapshot {id} was removed just now")))?;
        if self.json {
            return json::document(&super::facts_json(&facts));
        }
        let text = |value: &Option<String>, absent: &str| {
            let value = value.as_deref().unwrap_or(absent);
            sanitize(value).into_owned()
        };
        let created = human::timestamp(facts.created);
        let ago = human::ago(SystemTime::now(), facts.created);
        print(
            app,
            &[
                ("id", facts.id.to_string()),
                ("from", text(&facts.parent, "-")),
                ("key", text(&facts.key, "none")),
                ("created", format!("{created} ({ago})")),
                ("size", human::size(facts.own_bytes)),
                ("with all below it", human::size(facts.bytes)),
                (
                    "kept by",
                    sanitize(&daemon.engine().to_string()).into_owned(),
                ),
            ],
        )
    }
}

fn print(app: &App, fields: &[(&str, String)]) -> anyhow::Result<()> {
    let style = app.ui.out_style();
    fields.iter().try_for_each(|(name, value)| {
        app.ui.data(format_args!(
            "{} {value}",
            style.bold(&format!("{name:<17}"))
        ))
    })
}
