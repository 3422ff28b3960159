use clap::Args;

use super::outside::print_of_daemon;
use crate::app::App;
use crate::backend::{BackendArgs, Keeper};
use crate::failure::hinted;
use crate::names::{self, GuestPath, look_hint, parse_guest_path};
use crate::output::ui::write_out;

/// Print a file of a snapshot
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  hmvm snapshot cat 3f2a81:/etc/os-release")]
pub(super) struct Cat {
    /// The file
    #[arg(value_name = "SNAPSHOT:/PATH", value_parser = parse_guest_path)]
    file: GuestPath,
    #[command(flatten)]
    backend: BackendArgs,
}

impl Cat {
    pub(super) fn run(&self, app: &App) -> anyhow::Result<()> {
        let looked = self.backend.look(app)?;
        let id = names::snapshot(app, &looked.keeper, &self.file.snapshot)?;
        let store = match &looked.keeper {
            Keeper::Store(store) => store,
            Keeper::Daemon(daemon) => {
                return print_of_daemon((daemon, &looked.store), &id, &self.file);
            }
        };
        let view = store.view(&id)?;
        // The store's error is the one to tell; a reader who went away is told apart from it.
        let mut copied = Ok(());
        write_out(|out| {
            let mut noted = Noted { out, error: None };
            copied = view
                .copy_file_to(self.file.path.as_ref(), &mut noted)
                .map(|_bytes| ());
            noted.error.map_or(Ok(()), Err)
        })?;
        copied.map_err(|error| hinted(error, look_hint(&self.file)))
    }
}

/// A writer that keeps its own failure.
struct Noted<'a> {
    out: &'a mut dyn std::io::Write,
    error: Option<std::io::Error>,
}

impl std::io::Write for Noted<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.out.write(bytes).inspect_err(|error| {
            let copy = error
                .raw_os_error()
                .map_or_else(|| error.kind().into(), std::io::Error::from_raw_os_error);
            self.error = Some(copy);
        })
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}
