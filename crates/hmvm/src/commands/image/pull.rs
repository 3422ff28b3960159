use std::time::SystemTime;

use anyhow::Context as _;
use clap::Args;
use hm_vm::Cancellation;
use hm_vm::oci::Platform;
use hm_vm::store::{ImageInfo, Store};
use serde_json::Value;

use super::to_json;
use crate::app::{App, fail};
use crate::images::client::client;
use crate::images::needed::can_move;
use crate::images::pull::{Puller, Wanted};
use crate::output::sanitize::sanitize;
use crate::output::{human, json, transfers};
use crate::{names, signals};

/// Bring images from registries
///
/// Names are those that Docker's users write: debian, debian:bookworm, registry.example/team/image:tag,
/// localhost:5000/image, image@sha256:…. Commands pull by themselves what they need and is not here.
///
/// An image that is here already is not asked for again: --refresh asks its registry whether the name stands for
/// another one now.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  hmvm image pull debian:bookworm alpine
  hmvm image pull --refresh debian:bookworm
  hmvm image pull --platform linux/arm64 debian")]
pub(super) struct Pull {
    /// Their names
    #[arg(value_name = "REF", required = true)]
    names: Vec<String>,
    /// The platform, of images for several [default: this machine's]
    #[arg(long, value_name = "OS/ARCH", value_parser = parse_platform)]
    platform: Option<Platform>,
    /// Ask the registry also for images that are here
    #[arg(long)]
    refresh: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn parse_platform(text: &str) -> Result<Platform, String> {
    text.parse::<Platform>()
        .map_err(|error| format!("{error}\nhint: write linux/amd64, linux/arm64 or linux/arm/v7"))
}

impl Pull {
    pub(super) fn run(&self, app: &App) -> anyhow::Result<()> {
        let wanted = self.wanted()?;
        let store = app.store()?;
        let images = wanted
            .iter()
            .map(|one| store.image(&one.reference.to_string()));
        let mut images: Vec<Option<ImageInfo>> = images.collect::<Result<_, _>>()?;
        let mut asked = Vec::new();
        for (place, (one, found)) in wanted.iter().zip(&images).enumerate() {
            match found {
                Some(info) if self.is_settled(info) => tell_present(app, one, info),
                _ => asked.push(place),
            }
        }
        let chosen: Vec<Wanted> = asked.iter().map(|place| wanted[*place].clone()).collect();
        let pulled = self.pull(app, &store, &chosen)?;
        let mut failed = None;
        for (place, pulled) in asked.into_iter().zip(pulled) {
            match pulled {
                Ok(info) => {
                    tell_pulled(app, &wanted[place], images[place].as_ref(), &info);
                    images[place] = Some(info);
                }
                Err(error) => {
                    // All are told; the last one is the program's.
                    if let Some(earlier) = failed.replace(error) {
                        fail(&app.ui, &earlier);
                    }
                }
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        if self.json {
            let list: Vec<Value> = images.iter().flatten().map(to_json).collect();
            return json::document(&list);
        }
        Ok(())
    }

    fn wanted(&self) -> anyhow::Result<Vec<Wanted>> {
        let wanted = self.names.iter().map(|name| {
            Ok(Wanted {
                platform: self.platform.clone(),
                ..Wanted::parse(name)?
            })
        });
        wanted.collect()
    }

    /// Whether its registry need not be asked for an image that is here.
    fn is_settled(&self, info: &ImageInfo) -> bool {
        let platform = self.platform.clone().unwrap_or_else(Platform::here);
        let is_right = info.platform.as_ref().is_none_or(|its| platform.runs(its));
        is_right && !(self.refresh && can_move(info))
    }

    fn pull(
        &self,
        app: &App,
        store: &Store,
        wanted: &[Wanted],
    ) -> anyhow::Result<Vec<anyhow::Result<ImageInfo>>> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let cancel = Cancellation::new();
        signals::watch_transfer(&cancel, &app.ui).context("cannot wait for signals")?;
        let client = client(app, &cancel)?;
        Ok(transfers::during(&app.ui, |transfers| {
            let puller = Puller {
                store,
                client: &client,
                cancel: &cancel,
                transfers,
            };
            puller.all(wanted)
        }))
    }
}

fn tell_present(app: &App, wanted: &Wanted, info: &ImageInfo) {
    let asked = match info.checked {
        Some(checked) if can_move(info) => format!(
            " (asked {}; --refresh asks again)",
            human::ago(SystemTime::now(), checked)
        ),
        _ => String::new(),
    };
    app.ui.say(format_args!(
        "hmvm: image {} is here already{asked}",
        sanitize(&wanted.name)
    ));
}

fn tell_pulled(app: &App, wanted: &Wanted, before: Option<&ImageInfo>, info: &ImageInfo) {
    let is_same = before.is_some_and(|before| before.digest == info.digest);
    for notice in info.notices.iter().filter(|_| !is_same) {
        app.ui.notice(&sanitize(notice));
    }
    let name = sanitize(&wanted.name);
    let digest = names::short_digest(&info.digest);
    let size = human::size(info.bytes);
    app.ui.say(match before {
        Some(_) if is_same => {
            format!("hmvm: image {name} has not moved: {digest}")
        }
        Some(_) => format!("hmvm: image {name} has moved: {digest}, {size}"),
        None => format!("hmvm: image {name} is here: {digest}, {size}"),
    });
}
