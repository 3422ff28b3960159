use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use hm_vm::store::SnapshotInfo;
use serde_json::{Value, json};

use crate::app::App;
use crate::backend::BackendArgs;
use crate::names;
use crate::output::sanitize::sanitize;
use crate::output::{human, json};

/// Show which snapshot was forked from which
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  hmvm snapshot tree 3f2a81")]
pub(super) struct Tree {
    /// Only this one and what was forked from it
    #[arg(value_name = "SNAPSHOT")]
    id: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    backend: BackendArgs,
}

/// Children by parent, in order of creation.
type Children<'a> = BTreeMap<&'a str, Vec<&'a SnapshotInfo>>;

impl Tree {
    pub(super) fn run(&self, app: &App) -> anyhow::Result<()> {
        let keeper = self.backend.look(app)?.keeper;
        let mut snapshots = super::measured(keeper.store("hmvm snapshot tree")?)?;
        snapshots.sort_by(|a, b| a.created.cmp(&b.created).then_with(|| a.id.cmp(&b.id)));
        let known: BTreeSet<&str> = snapshots.iter().map(|info| &*info.id).collect();
        let mut children = Children::new();
        let mut roots = Vec::new();
        for info in &snapshots {
            // A parent that was removed leaves its children at the top.
            match info
                .parent
                .as_deref()
                .filter(|parent| known.contains(parent))
            {
                Some(parent) => children.entry(parent).or_default().push(info),
                None => roots.push(info),
            }
        }
        if let Some(prefix) = &self.id {
            let id = names::snapshot(app, &keeper, prefix)?;
            roots = snapshots.iter().filter(|info| info.id == id).collect();
        }
        if self.json {
            return json::document(&json_forest(&roots, &children));
        }
        if roots.is_empty() {
            app.ui.say("hmvm: no snapshots");
        }
        app.ui.print(text_forest(&roots, &children))
    }
}

/// A chain may be a thousand deep: neither form recurses, and a chain without forks is not
/// indented further.
fn text_forest(roots: &[&SnapshotInfo], children: &Children<'_>) -> String {
    let mut text = String::new();
    let mut stack: Vec<(&SnapshotInfo, String, String)> = roots
        .iter()
        .rev()
        .map(|root| (*root, String::new(), String::new()))
        .collect();
    while let Some((info, head, indent)) = stack.pop() {
        text.push_str(&format!("{head}{}\n", describe(info)));
        let forks = children.get(&*info.id).map_or(&[][..], Vec::as_slice);
        let last = forks.len().saturating_sub(1);
        for (index, fork) in forks.iter().enumerate().rev() {
            let (branch, below) = match (index == last, forks.len()) {
                (_, 1) => ("↳ ", ""),
                (true, _) => ("└─ ", "   "),
                (false, _) => ("├─ ", "│  "),
            };
            stack.push((
                *fork,
                format!("{indent}{branch}"),
                format!("{indent}{below}"),
            ));
        }
    }
    text
}

fn describe(info: &SnapshotInfo) -> String {
    let size = info
        .own_bytes
        .map_or_else(String::new, |bytes| format!("  {}", human::size(bytes)));
    let key = info
        .label
        .as_deref()
        .map_or_else(String::new, |key| format!("  {}", names::short_key(key)));
    let image = match (&info.parent, &info.image) {
        (None, Some(image)) => format!("  from {}", sanitize(image)),
        _ => String::new(),
    };
    format!("{}{key}{size}{image}", names::short(&info.id))
}

fn json_forest(roots: &[&SnapshotInfo], children: &Children<'_>) -> Value {
    let mut list = Vec::new();
    let mut stack: Vec<&SnapshotInfo> = roots.iter().rev().copied().collect();
    while let Some(info) = stack.pop() {
        let forks = children.get(&*info.id).map_or(&[][..], Vec::as_slice);
        let ids: Vec<&str> = forks.iter().map(|fork| &*fork.id).collect();
        list.push(json!({
            "id": &*info.id,
            "parent": info.parent.as_deref(),
            "image": info.image,
            "key": info.label,
            "children": ids,
        }));
        stack.extend(forks.iter().rev());
    }
    Value::Array(list)
}
