//! Pulling what a command needs and the backend does not have.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use hm_vm::docker::{DockerBackend, PulledImage};
use hm_vm::oci::{OciError, Reference};
use hm_vm::store::{ImageInfo, Store};
use hm_vm::{Cancellation, Error, VmBackend as _};

use super::client::client;
use super::daemon;
use super::pull::{Puller, Wanted};
use crate::app::App;
use crate::backend::Keeper;
use crate::failure::{Report, contract, explained, hinted, of_image};
use crate::input::parse_duration;
use crate::names;
use crate::output::sanitize::sanitize;
use crate::output::{human, transfers};

/// When images are pulled.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Images")]
pub(crate) struct PullArgs {
    /// Pull images that are not here (missing), none (never), or ask the registry of each one whether it has moved
    /// (refresh)
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = PullPolicy::Missing)]
    pull: PullPolicy,
    /// Ask the registry of an image again that was asked longer ago than this, such as 7d
    /// [default: the configuration's, else never]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    image_max_age: Option<Duration>,
}

/// Value of `--pull`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum PullPolicy {
    /// What is not here
    #[default]
    Missing,
    /// Nothing
    Never,
    /// What is not here, and what has moved
    Refresh,
}

/// Why an image is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// It is not here.
    Missing,
    /// The user wants to know.
    Asked,
    /// What is known of it is this old.
    Old(Duration),
}

impl PullArgs {
    /// Pulls those of `names` that the backend does not have, or that have to be asked for again, all at the same time.
    ///
    /// # Errors
    ///
    /// An image that is not here cannot be had.
    pub(crate) async fn ensure(
        &self,
        app: &App,
        keeper: &Keeper,
        names: BTreeSet<String>,
        cancel: &Cancellation,
    ) -> anyhow::Result<()> {
        let max_age = match self.image_max_age {
            Some(age) => Some(age),
            None => app.configuration()?.image_max_age,
        };
        match keeper {
            Keeper::Store(store) => self.in_store(app, store, names, max_age, cancel).await,
            Keeper::Daemon(daemon) => self.in_daemon(app, daemon, names, max_age, cancel).await,
        }
    }

    async fn in_daemon(
        &self,
        app: &App,
        backend: &DockerBackend,
        names: BTreeSet<String>,
        max_age: Option<Duration>,
        cancel: &Cancellation,
    ) -> anyhow::Result<()> {
        let (mut wanted, mut reasons) = (Vec::new(), Vec::new());
        for name in names {
            let found = daemon::image(backend, &name).await?;
            let reason = match &found {
                None if self.pull == PullPolicy::Never => return Err(never(&name, backend.name())),
                None => Some(Reason::Missing),
                Some(_) => self.reason_in_daemon(backend, &name, max_age),
            };
            if let Some(reason) = reason {
                wanted.push(name);
                reasons.push((reason, found));
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let pulled = daemon::pull(app, backend, &wanted, cancel).await?;
        for ((name, pulled), (reason, before)) in pulled.into_iter().zip(reasons) {
            tell_of_daemon(app, &name, reason, before.as_deref(), pulled)?;
        }
        Ok(())
    }

    fn reason_in_daemon(
        &self,
        backend: &DockerBackend,
        name: &str,
        max_age: Option<Duration>,
    ) -> Option<Reason> {
        if self.pull == PullPolicy::Never || !daemon::can_move(name) {
            return None;
        }
        if self.pull == PullPolicy::Refresh {
            return Some(Reason::Asked);
        }
        // The daemon does not tell when it asked. What somebody else has put there is left alone.
        let age = daemon::age(backend, name)?;
        (age > max_age?).then_some(Reason::Old(age))
    }

    async fn in_store(
        &self,
        app: &App,
        store: &Store,
        names: BTreeSet<String>,
        max_age: Option<Duration>,
        cancel: &Cancellation,
    ) -> anyhow::Result<()> {
        let mut wanted = Vec::new();
        for name in names {
            let found = store.image(&name)?;
            if let Some(reason) = self.reason(found.as_ref(), max_age) {
                wanted.push((self.wanted(store, &name, found.as_ref())?, reason, found));
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let client = client(app, cancel)?;
        let images: Vec<Wanted> = wanted.iter().map(|(wanted, ..)| wanted.clone()).collect();
        let (ui, work_store, work_cancel) = (app.ui.clone(), store.clone(), cancel.clone());
        let pulled = tokio::task::spawn_blocking(move || {
            transfers::during(&ui, |transfers| {
                let puller = Puller {
                    store: &work_store,
                    client: &client,
                    cancel: &work_cancel,
                    transfers,
                };
                puller.all(&images)
            })
        });
        let pulled = pulled.await.context("pulling images")?;
        for ((wanted, reason, before), pulled) in wanted.iter().zip(pulled) {
            tell(app, &wanted.name, *reason, before.as_ref(), pulled)?;
        }
        Ok(())
    }

    fn reason(&self, found: Option<&ImageInfo>, max_age: Option<Duration>) -> Option<Reason> {
        let Some(info) = found else {
            return Some(Reason::Missing);
        };
        // What was imported, and what a digest names, does not move.
        if self.pull == PullPolicy::Never || !can_move(info) {
            return None;
        }
        if self.pull == PullPolicy::Refresh {
            return Some(Reason::Asked);
        }
        let age = SystemTime::now().duration_since(info.checked?);
        // A clock that went back makes nothing old.
        let age = age.unwrap_or_default();
        (age > max_age?).then_some(Reason::Old(age))
    }

    fn wanted(
        &self,
        store: &Store,
        name: &str,
        found: Option<&ImageInfo>,
    ) -> anyhow::Result<Wanted> {
        if let Some(info) = found {
            let reference = info.reference.as_deref().unwrap_or(name);
            return Ok(Wanted {
                name: name.to_owned(),
                platform: info.platform.clone(),
                ..Wanted::parse(reference)?
            });
        }
        let not_found = Error::ImageNotFound {
            image: name.to_owned(),
        };
        if self.pull == PullPolicy::Never {
            let hint = format!("--pull never is set; hmvm image pull {name} gets it");
            return Err(explained(not_found, hint));
        }
        match Wanted::parse(name) {
            Ok(wanted) => Ok(wanted),
            Err(problem) => {
                let known = store.images()?;
                let known = known.iter().map(|info| info.name.as_str()).chain(["host"]);
                Err(match names::similar(name, known) {
                    Some(similar) => explained(not_found, format!("did you mean {similar:?}?")),
                    None => explained(not_found, problem.hint_text()),
                })
            }
        }
    }
}

/// Whether the name of an image may come to stand for another one.
pub(crate) fn can_move(info: &ImageInfo) -> bool {
    let reference = info
        .reference
        .as_deref()
        .and_then(|text| text.parse::<Reference>().ok());
    reference.is_some_and(|reference| reference.digest().is_none())
}

/// Tells what came of an image.
fn tell(
    app: &App,
    name: &str,
    reason: Reason,
    before: Option<&ImageInfo>,
    pulled: anyhow::Result<ImageInfo>,
) -> anyhow::Result<()> {
    let shown = sanitize(name);
    match (pulled, reason) {
        (Ok(info), _) => {
            let is_same = before.is_some_and(|before| before.digest == info.digest);
            for notice in info.notices.iter().filter(|_| !is_same) {
                app.ui.notice(&sanitize(notice));
            }
            match before {
                Some(_) if is_same => {}
                Some(_) => app.ui.notice(&format!(
                    "image {shown} has moved, and is {} now",
                    names::short_digest(&info.digest)
                )),
                None => app.ui.say(format_args!(
                    "hmvm: pulled image {shown}, {}",
                    human::size(info.bytes)
                )),
            }
            Ok(())
        }
        (Err(error), Reason::Old(age)) if is_temporary(&error) => {
            let told = Report::of(&error).message.unwrap_or_default();
            app.ui.notice(&format!(
                "image {shown} is used as it was {} ago: {told}",
                human::duration(age)
            ));
            Ok(())
        }
        (Err(error), Reason::Asked) if is_temporary(&error) => {
            Err(hinted(error, "--pull missing uses what is here"))
        }
        (Err(error), _) => Err(error),
    }
}

/// As [`tell`], of an image in a daemon, which had the image `before` under that name.
fn tell_of_daemon(
    app: &App,
    name: &str,
    reason: Reason,
    before: Option<&str>,
    pulled: anyhow::Result<PulledImage>,
) -> anyhow::Result<()> {
    let shown = sanitize(name);
    match (pulled, reason) {
        (Ok(image), _) => match before {
            Some(before) if before == image.id => {}
            Some(_) => app.ui.notice(&format!(
                "image {shown} has moved, and is {} now",
                names::short_digest(&image.id)
            )),
            None => app.ui.say(format_args!(
                "hmvm: pulled image {shown}, {}",
                human::size(image.bytes)
            )),
        },
        // Why the daemon could not ask is told in its words alone: any reason but the user's counts as a temporary one.
        (Err(error), Reason::Old(age)) if !is_cancelled(&error) => {
            let told = Report::of(&error).message.unwrap_or_default();
            app.ui.notice(&format!(
                "image {shown} is used as it was {} ago: {told}",
                human::duration(age)
            ));
        }
        (Err(error), Reason::Asked) if !is_cancelled(&error) => {
            return Err(hinted(error, "--pull missing uses what is here"));
        }
        (Err(error), _) => return Err(error),
    }
    Ok(())
}

fn is_cancelled(error: &anyhow::Error) -> bool {
    matches!(contract(error), Some(Error::Cancelled { .. }))
}

/// That an image is not here, and may not be pulled.
fn never(name: &str, daemon: &str) -> anyhow::Error {
    let image = name.to_owned();
    let hint = format!("--pull never is set; {daemon} pull {name} gets it");
    explained(Error::ImageNotFound { image }, hint)
}

fn is_temporary(error: &anyhow::Error) -> bool {
    of_image(error).is_some_and(OciError::is_temporary)
}
