//! One pull.

use std::time::Duration;

use anyhow::{Context as _, Result};
use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::StreamExt as _;
use hm_vm_core::Cancellation;
use hm_vm_oci::{Platform, Reference};

use super::failure::Pulling;
use super::login::Login;
use super::names;
use super::progress::PullProgress;
use crate::backend::Machine;
use crate::environment;
use crate::error::DockerError;

/// How long a daemon may say nothing while it pulls. Large layers are unpacked in that time.
const SILENCE: Duration = Duration::from_secs(600);

/// What to pull.
pub(super) struct Request<'a> {
    /// As the user wrote it.
    pub(super) name: &'a str,
    pub(super) reference: &'a Reference,
    /// `None` lets the daemon choose.
    pub(super) platform: Option<&'a Platform>,
    pub(super) cancel: &'a Cancellation,
    pub(super) watch: &'a (dyn Fn(PullProgress) + Send + Sync),
}

impl Request<'_> {
    /// Pulls. What the daemon does for others goes on when this ends early.
    pub(super) async fn pull(&self, machine: &Machine) -> Result<()> {
        let doing = || format!("pulling {}", self.reference);
        tokio::select! {
            biased;
            cause = self.cancel.cancelled() => {
                Err(hm_vm_core::Error::from(cause)).with_context(doing)
            }
            pulled = self.transfer(machine) => pulled,
        }
    }

    async fn transfer(&self, machine: &Machine) -> Result<()> {
        let files = machine.options.credentials.clone();
        let files = files.unwrap_or_else(environment::credential_files);
        let login = Login::find(files, self.reference.clone()).await?;
        let pulling = Pulling {
            name: self.name,
            reference: self.reference,
            platform: self.platform,
            with_login: login.is_some(),
            troubles: &login.troubles,
        };
        let mut options = CreateImageOptionsBuilder::new()
            .from_image(&names::repository(self.reference))
            .tag(&names::tag(self.reference));
        if let Some(platform) = self.platform {
            options = options.platform(&platform.to_string());
        }
        let docker = login.bring(machine.engine.docker()).with_timeout(SILENCE);
        let mut lines = docker.create_image(Some(options.build()), None, None);
        let silent = || DockerError::Failed {
            doing: format!("pulling {}", self.reference),
            message: format!("nothing, for {} s", SILENCE.as_secs()),
        };
        loop {
            let line = tokio::time::timeout(SILENCE, lines.next()).await;
            match line.map_err(|_| silent())? {
                None => return Ok(()),
                Some(line) => self.tell(&line.map_err(|error| pulling.of_client(error))?),
            }
        }
    }

    fn tell(&self, line: &CreateImageInfo) {
        if let Some(progress) = PullProgress::of_line(line) {
            (self.watch)(progress);
        }
    }
}
