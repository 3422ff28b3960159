use std::time::SystemTime;

use clap::Args;
use hm_vm::store::ImageInfo;
use serde_json::Value;

use super::to_json;
use crate::app::App;
use crate::names;
use crate::output::sanitize::sanitize;
use crate::output::{Table, human, json};

/// List the images
#[derive(Args, Debug)]
#[command(visible_alias = "list", after_help = "Example:\n  hmvm image ls")]
pub(super) struct Ls {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Ls {
    pub(super) fn run(&self, app: &App) -> anyhow::Result<()> {
        let store = app.store()?;
        // This machine's own image comes to be when it is first asked for.
        store.image("host")?;
        let mut images = store.images()?;
        images.sort_by(|a, b| a.name.cmp(&b.name));
        if self.json {
            let list: Vec<Value> = images.iter().map(to_json).collect();
            return json::document(&list);
        }
        let now = SystemTime::now();
        let titles = [
            "NAME", "DIGEST", "PLATFORM", ">SIZE", ">ENTRIES", "CREATED", "ASKED",
        ];
        let mut table = Table::new(&titles, app.ui.out_style());
        for info in &images {
            table.row(vec![
                sanitize(&info.name).into_owned(),
                names::short_digest(&info.digest).to_owned(),
                platform(info),
                human::size(info.bytes),
                info.entries.to_string(),
                human::ago(now, info.created),
                info.checked
                    .map_or_else(|| "-".into(), |checked| human::ago(now, checked)),
            ]);
        }
        app.ui.print(table)
    }
}

fn platform(info: &ImageInfo) -> String {
    let platform = info.platform.as_ref().map(ToString::to_string);
    platform.map_or_else(|| "-".into(), |text| sanitize(&text).into_owned())
}
