use std::os::unix::ffi::OsStrExt as _;

use clap::Args;
use hm_vm::store::{Change, ChangeKind};
use serde_json::{Value, json};

use crate::app::App;
use crate::backend::BackendArgs;
use crate::exit_codes;
use crate::names;
use crate::output::sanitize::sanitize_path;
use crate::output::{Style, json};

/// List the paths that were added (A), changed (C) or deleted (D) from one snapshot to another
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  hmvm snapshot diff 3f2a81 9c01de
  C /src/main.c
  A /src/main.o")]
pub(super) struct Diff {
    /// The snapshot to compare from
    #[arg(value_name = "A")]
    old: String,
    /// The snapshot to compare to
    #[arg(value_name = "B")]
    new: String,
    /// Exit with code 1 when they differ
    #[arg(long)]
    exit_code: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    backend: BackendArgs,
}

impl Diff {
    pub(super) fn run(&self, app: &App) -> anyhow::Result<u8> {
        let keeper = self.backend.look(app)?.keeper;
        let store = keeper.store("hmvm snapshot diff")?;
        let old = names::snapshot(app, &keeper, &self.old)?;
        let new = names::snapshot(app, &keeper, &self.new)?;
        let mut changes = store.diff(&old, &new)?;
        changes.sort_by(|a, b| a.path.cmp(&b.path));
        if self.json {
            let list: Vec<Value> = changes.iter().map(to_json).collect();
            json::document(&list)?;
        } else {
            let style = app.ui.out_style();
            let mut text = String::new();
            for change in &changes {
                let path = sanitize_path(&change.path);
                text.push_str(&format!("{} {path}\n", letter(change.kind, style)));
            }
            app.ui.print(text)?;
        }
        Ok(if self.exit_code && !changes.is_empty() {
            exit_codes::NEGATIVE
        } else {
            exit_codes::SUCCESS
        })
    }
}

fn letter(kind: ChangeKind, style: Style) -> String {
    let mark = mark(kind);
    match kind {
        ChangeKind::Added => style.green(mark),
        ChangeKind::Changed => style.yellow(mark),
        ChangeKind::Deleted => style.red(mark),
    }
}

/// The letter that stands for a kind of change.
pub(crate) fn mark(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Added => "A",
        ChangeKind::Changed => "C",
        ChangeKind::Deleted => "D",
    }
}

/// A path that is not UTF-8 is given a second time, in hexadecimal bytes.
fn to_json(change: &Change) -> Value {
    let kind = match change.kind {
        ChangeKind::Added => "added",
        ChangeKind::Changed => "changed",
        ChangeKind::Deleted => "deleted",
    };
    let mut value = json!({ "kind": kind, "path": change.path.to_string_lossy() });
    if change.path.to_str().is_none() {
        let bytes = change.path.as_os_str().as_bytes();
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        value["path_hex"] = digits.into();
    }
    value
}
