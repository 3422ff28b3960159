use std::time::SystemTime;

use clap::{Args, Subcommand};
use hm_vm::docker::DockerBackend;
use serde_json::{Value, json};

use crate::app::App;
use crate::backend::{BackendArgs, Keeper, wait};
use crate::failure::Problem;
use crate::output::sanitize::sanitize;
use crate::output::table::Table;
use crate::output::{human, json};

/// See and remove the directories that steps keep under a name (`caches` of a pipeline)
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  hmvm cache dir ls\n  hmvm cache dir rm cargo-registry")]
pub(super) struct Dir {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Ls(Ls),
    Rm(Rm),
}

/// List them with their sizes
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  hmvm cache dir ls")]
struct Ls {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    backend: BackendArgs,
}

/// Remove them, with all that is in them
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  hmvm cache dir rm cargo-registry")]
struct Rm {
    /// Their names
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    #[command(flatten)]
    backend: BackendArgs,
}

impl Dir {
    pub(super) fn run(&self, app: &App) -> anyhow::Result<()> {
        match &self.command {
            Command::Ls(ls) => ls.run(app),
            Command::Rm(rm) => rm.run(app),
        }
    }
}

impl Ls {
    fn run(&self, app: &App) -> anyhow::Result<()> {
        let looked = self.backend.look(app)?;
        let store = match &looked.keeper {
            Keeper::Store(store) => store,
            Keeper::Daemon(daemon) => return self.of_daemon(app, daemon),
        };
        let caches = store.caches()?;
        if self.json {
            let list: Vec<Value> = caches
                .iter()
                .map(|cache| {
                    json!({
                        "name": cache.name,
                        "bytes": cache.bytes,
                        "last_used": json::time(cache.last_used),
                        "in_use": cache.in_use,
                    })
                })
                .collect();
            return json::document(&list);
        }
        if caches.is_empty() {
            app.ui.say("hmvm: no step has kept a directory");
            return Ok(());
        }
        let now = SystemTime::now();
        let mut table = Table::new(&["NAME", ">SIZE", "USED"], app.ui.out_style());
        for cache in &caches {
            let used = if cache.in_use {
                "now".to_owned()
            } else {
                human::ago(now, cache.last_used)
            };
            table.row(vec![
                sanitize(&cache.name).into_owned(),
                human::size(cache.bytes),
                used,
            ]);
        }
        app.ui.print(table)
    }

    fn of_daemon(&self, app: &App, daemon: &DockerBackend) -> anyhow::Result<()> {
        let volumes = wait(daemon.caches())??;
        if self.json {
            let list: Vec<Value> = volumes
                .iter()
                .map(|volume| {
                    json!({
                        "name": volume.name,
                        "volume": volume.volume,
                        "bytes": volume.bytes,
                    })
                })
                .collect();
            return json::document(&list);
        }
        if volumes.is_empty() {
            app.ui.say("hmvm: no step has kept a directory");
            return Ok(());
        }
        let mut table = Table::new(&["NAME", ">SIZE", "VOLUME"], app.ui.out_style());
        for volume in &volumes {
            table.row(vec![
                sanitize(volume.name.as_deref().unwrap_or("?")).into_owned(),
                volume.bytes.map_or_else(|| "-".into(), human::size),
                sanitize(&volume.volume).into_owned(),
            ]);
        }
        app.ui.print(table)
    }
}

impl Rm {
    fn run(&self, app: &App) -> anyhow::Result<()> {
        let looked = self.backend.look(app)?;
        let known: Vec<String> = match &looked.keeper {
            Keeper::Store(store) => store.caches()?.into_iter().map(|it| it.name).collect(),
            Keeper::Daemon(daemon) => {
                let volumes = wait(daemon.caches())??;
                volumes.into_iter().filter_map(|it| it.name).collect()
            }
        };
        // All names are looked up before anything is removed.
        for name in &self.names {
            if !known.contains(name) {
                return Err(
                    Problem::new(format!("no step has kept a directory {name:?}"))
                        .hint("hmvm cache dir ls lists them")
                        .into(),
                );
            }
        }
        for name in &self.names {
            match &looked.keeper {
                Keeper::Store(store) => store.remove_cache(name)?,
                Keeper::Daemon(daemon) => wait(daemon.remove_cache(name))??,
            };
        }
        let count = u64::try_from(self.names.len()).unwrap_or(u64::MAX);
        app.ui.say(format_args!(
            "hmvm: removed {}",
            human::plural(count, "directory|directories")
        ));
        Ok(())
    }
}
