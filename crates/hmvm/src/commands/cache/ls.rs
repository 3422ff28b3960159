use std::time::SystemTime;

use clap::Args;
use hm_vm::registry::Entry;
use serde_json::{Value, json};

use crate::app::App;
use crate::backend::BackendArgs;
use crate::names;
use crate::output::{Table, human, json};

/// List what is remembered, most recently used first
#[derive(Args, Debug)]
#[command(
    visible_alias = "list",
    after_help = "Example:\n  hmvm cache ls --json | jq -r '.[].key'"
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
        let mut entries = self.backend.look(app)?.registry(app)?.entries()?;
        // The registry's order is the true one: times may be equal, or a clock set back.
        entries.reverse();
        if self.json {
            let list: Vec<Value> = entries.iter().map(to_json).collect();
            return json::document(&list);
        }
        if entries.is_empty() {
            app.ui.say("hmvm: the cache is empty");
            return Ok(());
        }
        let now = SystemTime::now();
        let titles = ["KEY", "SNAPSHOT", ">HITS", "PINNED", "USED", "CREATED"];
        let mut table = Table::new(&titles, app.ui.out_style());
        for entry in &entries {
            table.row(vec![
                names::short_key(&entry.key),
                names::short(&entry.snapshot).to_owned(),
                entry.hits.to_string(),
                if entry.pinned { "yes" } else { "-" }.to_owned(),
                human::ago(now, entry.last_used),
                human::ago(now, entry.created),
            ]);
        }
        app.ui.print(table)
    }
}

fn to_json(entry: &Entry) -> Value {
    json!({
        "key": entry.key,
        "snapshot": &*entry.snapshot,
        "created": json::time(entry.created),
        "last_used": json::time(entry.last_used),
        "hits": entry.hits,
        "pinned": entry.pinned,
        "output_bytes": entry.output_bytes,
    })
}
