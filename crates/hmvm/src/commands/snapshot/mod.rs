//! `hmvm snapshot`: one file a sub-command.

mod cat;
mod copy;
mod cp;
pub(crate) mod diff;
pub(crate) mod export;
mod inspect;
mod ls;
mod outside;
mod rm;
mod tree;

use clap::{Args, Subcommand};
use hm_vm::docker::SnapshotFacts;
use hm_vm::store::{SnapshotInfo, Store};
use serde_json::{Value, json};

use crate::app::App;
use crate::exit_codes;
use crate::output::json;

/// List, compare, read, export and remove snapshots
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  hmvm snapshot ls\n  hmvm snapshot cp 3f2a81:/src/target/app .")]
pub(crate) struct Snapshot {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Ls(ls::Ls),
    Inspect(inspect::Inspect),
    Tree(tree::Tree),
    Diff(diff::Diff),
    Cat(cat::Cat),
    Cp(cp::Cp),
    Copy(copy::Copy),
    Export(export::Export),
    Push(export::Push),
    Rm(rm::Rm),
}

impl Snapshot {
    pub(crate) fn run(&self, app: &App) -> anyhow::Result<u8> {
        match &self.command {
            Command::Ls(ls) => ls.run(app)?,
            Command::Inspect(inspect) => inspect.run(app)?,
            Command::Tree(tree) => tree.run(app)?,
            Command::Diff(diff) => return diff.run(app),
            Command::Cat(cat) => cat.run(app)?,
            Command::Cp(cp) => cp.run(app)?,
            Command::Copy(copy) => copy.run(app)?,
            Command::Export(export) => export.run(app)?,
            Command::Push(push) => push.run(app)?,
            Command::Rm(rm) => rm.run(app)?,
        }
        Ok(exit_codes::SUCCESS)
    }
}

/// All snapshots, with their sizes: those are found out in the background, which the short life of
/// a program may leave no time for.
fn measured(store: &Store) -> anyhow::Result<Vec<SnapshotInfo>> {
    let snapshots = store.snapshots()?;
    if snapshots.iter().all(|info| info.own_bytes.is_some()) {
        return Ok(snapshots);
    }
    store.flush()?;
    Ok(store.snapshots()?)
}

fn to_json(info: &SnapshotInfo) -> Value {
    json!({
        "id": info.id.as_ref() as &str,
        "label": info.label,
        "parent": info.parent.as_deref(),
        "image": info.image,
        "created": json::time(info.created),
        "last_used": json::time(info.last_used),
        "depth": info.depth,
        "layers": info.layers,
        "own_bytes": info.own_bytes,
        "exclusive_bytes": info.exclusive_bytes,
        "durable": info.durable,
    })
}

fn facts_json(facts: &SnapshotFacts) -> Value {
    json!({
        "id": facts.id.as_ref() as &str,
        "label": facts.key,
        "parent": facts.parent,
        "created": json::time(facts.created),
        "own_bytes": facts.own_bytes,
        "bytes": facts.bytes,
    })
}

/// What a snapshot was forked or booted from, for reading.
fn origin(info: &SnapshotInfo) -> String {
    match (&info.parent, &info.image) {
        (Some(parent), _) => crate::names::short(parent).to_owned(),
        (None, Some(image)) => crate::output::sanitize::sanitize(image).into_owned(),
        (None, None) => "-".to_owned(),
    }
}
