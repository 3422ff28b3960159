use std::time::SystemTime;

use clap::Args;

use crate::app::App;
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
}

impl Inspect {
    pub(super) fn run(&self, app: &App) -> anyhow::Result<()> {
        let store = app.store()?;
        let id = names::snapshot(&store, &self.id)?;
        super::measured(&store)?;
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
        let style = app.ui.out_style();
        fields.iter().try_for_each(|(name, value)| {
            app.ui.data(format_args!(
                "{} {value}",
                style.bold(&format!("{name:<17}"))
            ))
        })
    }
}
