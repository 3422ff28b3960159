use std::path::PathBuf;

use clap::Args;

use crate::app::App;
use crate::failure::hinted;
use crate::input::environment;
use crate::names::{self, GuestPath, look_hint, parse_guest_path};
use crate::output::human;
use crate::output::sanitize::sanitize_path;

/// Bring a file or a directory out of a snapshot
///
/// Nothing in the snapshot can make it write elsewhere: links are brought as links and never
/// followed out, device nodes are left out, and set-user-id bits are cleared. Files belong to you.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  hmvm snapshot cp 3f2a81:/src/target/release/app ./app
  hmvm snapshot cp 3f2a81:/src/reports .")]
pub(super) struct Cp {
    /// What to bring out
    #[arg(value_name = "SNAPSHOT:/PATH", value_parser = parse_guest_path)]
    from: GuestPath,
    /// Where to: into it when it is a directory, else under this name
    #[arg(value_name = "HOST")]
    to: PathBuf,
}

impl Cp {
    pub(super) fn run(&self, app: &App) -> anyhow::Result<()> {
        let store = app.store()?;
        let id = names::snapshot(&store, &self.from.snapshot)?;
        let target = environment::absolute(&self.to)?;
        let report = store
            .copy_out(&id, self.from.path.as_ref(), &target)
            .map_err(|error| hinted(error, look_hint(&self.from)))?;
        for left_out in &report.skipped {
            app.ui
                .notice(&format!("left out: {}", sanitize_path(left_out)));
        }
        let entries = report.files + report.directories + report.symlinks;
        app.ui.say(format_args!(
            "hmvm: {}, {} to {}",
            human::plural(entries, "entry|entries"),
            human::size(report.bytes),
            sanitize_path(&target)
        ));
        Ok(())
    }
}
