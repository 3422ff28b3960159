//! Directories of steps, to other machines and from them.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use hm_vm::Cancellation;
use hm_vm::oci::{Destination, Reference, Source};
use hm_vm::store::CacheOptions;
use serde_json::json;

use crate::app::App;
use crate::commands::image::import::open;
use crate::commands::snapshot::export::{parse_reference, writer};
use crate::failure::Problem;
use crate::images::client::client;
use crate::images::place::Place;
use crate::output::sanitize::sanitize;
use crate::output::{human, json, transfers};
use crate::signals;

/// Write a directory that steps keep under a name, for other machines
///
/// Into a layout directory, an archive, or a registry. No step may be using it meanwhile.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  hmvm cache export cargo-registry registry.example/team/caches:cargo
  hmvm cache export cargo-registry oci-archive:cargo.tar")]
pub(super) struct Export {
    /// Its name
    #[arg(value_name = "NAME")]
    name: String,
    /// oci:DIR[:TAG], oci-archive:FILE[:TAG], or a name in a registry
    #[arg(value_name = "DEST", value_parser = Place::parse)]
    destination: Place,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Take a directory over that steps keep under a name on another machine
///
/// What is here under that name is replaced. No step may be using it meanwhile.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  hmvm cache import cargo-registry registry.example/team/caches:cargo
  hmvm cache import cargo-registry cargo.tar")]
pub(super) struct Import {
    /// Its name here
    #[arg(value_name = "NAME")]
    name: String,
    /// A path, oci:DIR[:TAG], oci-archive:FILE[:TAG], or a name in a registry
    #[arg(value_name = "SOURCE", value_parser = Place::parse)]
    source: Place,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Export {
    pub(super) fn run(&self, app: &App) -> anyhow::Result<()> {
        let cancel = Cancellation::new();
        signals::watch_transfer(&cancel, &app.ui).context("cannot wait for signals")?;
        let destination: Arc<dyn Destination> = match in_registry(&self.destination) {
            Some(text) => client(app, &cancel)?.destination(&reference(text)?),
            None => writer(&self.destination)?,
        };
        let store = app.store()?;
        let report = transfers::during(&app.ui, |transfers| {
            let options = CacheOptions {
                watch: transfers.watch(&self.name),
                cancel: cancel.clone(),
            };
            store.export_cache(&self.name, destination.as_ref(), &options)
        })?;
        for notice in &report.notices {
            app.ui.notice(&sanitize(notice));
        }
        if self.json {
            return json::document(&json!({
                "name": self.name,
                "destination": destination.describe(),
                "manifest": report.manifest.to_string(),
                "sent_bytes": report.sent_bytes,
                "total_bytes": report.total_bytes,
            }));
        }
        app.ui.data(report.manifest)?;
        app.ui.say(format_args!(
            "hmvm: directory {} is at {}: {} of {} sent",
            sanitize(&self.name),
            sanitize(&destination.describe()),
            human::size(report.sent_bytes),
            human::size(report.total_bytes),
        ));
        Ok(())
    }
}

impl Import {
    pub(super) fn run(&self, app: &App) -> anyhow::Result<()> {
        let cancel = Cancellation::new();
        signals::watch_transfer(&cancel, &app.ui).context("cannot wait for signals")?;
        let store = app.store()?;
        let source: Arc<dyn Source> = match (&self.source, in_registry(&self.source)) {
            (Place::Path(path), _) if path.exists() => open(path, None, &store, &cancel)?,
            (_, Some(text)) => client(app, &cancel)?.source(&reference(text)?),
            (
                Place::Layout { path, name }
                | Place::Archive { path, name }
                | Place::DockerArchive { path, name },
                None,
            ) => open(path, name.as_deref(), &store, &cancel)?,
            (Place::Path(path), None) => open(path, None, &store, &cancel)?,
            (Place::DockerDaemon(_), None) => {
                return Err(Problem::new("a Docker has no directories of steps").into());
            }
        };
        let report = transfers::during(&app.ui, |transfers| {
            let options = CacheOptions {
                watch: transfers.watch(&self.name),
                cancel: cancel.clone(),
            };
            store.import_cache(&self.name, source.as_ref(), &options)
        })?;
        for notice in &report.notices {
            app.ui.notice(&sanitize(notice));
        }
        if self.json {
            return json::document(&json!({
                "name": self.name,
                "source": source.describe(),
                "bytes": report.bytes,
                "entries": report.entries,
            }));
        }
        app.ui.say(format_args!(
            "hmvm: directory {} has {} in {}",
            sanitize(&self.name),
            human::size(report.bytes),
            human::plural(report.entries, "entry|entries"),
        ));
        Ok(())
    }
}

/// The text of a place that names a registry: a host, as a path has none, stands before the first slash.
fn in_registry(place: &Place) -> Option<&str> {
    let Place::Path(path) = place else {
        return None;
    };
    let text = Path::new(path).to_str()?;
    let (host, _) = text.split_once('/')?;
    let is_host = host == "localhost" || (host.contains(['.', ':']) && !host.starts_with('.'));
    is_host.then_some(text)
}

fn reference(text: &str) -> Result<Reference, Problem> {
    parse_reference(text).map_err(|told| match told.split_once("\nhint: ") {
        Some((message, hint)) => Problem::new(message).hint(hint),
        None => Problem::new(told),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_has_a_host() {
        let is_registry = |text: &str| in_registry(&Place::Path(text.into())).is_some();
        for text in [
            "r.example/a",
            "localhost/a",
            "localhost:5000/a:1",
            "[::1]:5/a",
        ] {
            assert!(is_registry(text), "{text}");
        }
        for text in ["a", "a/b", "./r.example/a", "../a", "/r.example/a", "a.tar"] {
            assert!(!is_registry(text), "{text}");
        }
        assert!(in_registry(&Place::DockerDaemon("r.example/a".into())).is_none());
    }
}
