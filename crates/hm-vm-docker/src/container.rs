//! Containers: what they are made of, and their removal.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bollard::Docker;
use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountType,
    MountVolumeOptions, RestartPolicy, RestartPolicyNameEnum,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, RemoveContainerOptions, RemoveContainerOptionsBuilder,
};
use hm_vm_core::VmConfig;

use crate::backend::Machine;
use crate::engine::EngineKind;
use crate::error::{DockerError, Doing as _};
use crate::image::BaseImage;
use crate::private_network::Holder;
use crate::secrets::Bind;
use crate::{limits, protections};

/// Where the helper's volume is. Below `/dev`, a file system in memory: the mount point is in no snapshot.
pub(crate) const HELPER_DIRECTORY: &str = "/dev/hm-vm";

/// The helper's program.
pub(crate) const HELPER_PROGRAM: &str = "/dev/hm-vm/helper";

/// Between attempts to remove a container that is ending.
const REMOVAL_PAUSES: [Duration; 7] = [
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(5),
];

/// Name of every VM. Not unique: it must not make two runs of one command differ.
const HOST_NAME: &str = "hm-vm";

/// What of a container is decided when it is made, and differs between commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// As the daemon names it: `none`, `host`, a network, `container:ID`.
    pub(crate) network: String,
    /// `NAME:ADDRESS` each.
    pub(crate) extra_hosts: Vec<String>,
    /// Volumes, and where they are.
    pub(crate) volumes: Vec<(String, String)>,
    /// Files of this machine.
    pub(crate) binds: Vec<Bind>,
    /// Whose network it is, where that is another container's.
    pub(crate) holder: Option<Arc<Holder>>,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            network: "none".into(),
            extra_hosts: Vec::new(),
            volumes: Vec::new(),
            binds: Vec::new(),
            holder: None,
        }
    }
}

/// A container. Dropping it leaves its removal to the engine.
#[derive(Debug)]
pub(crate) struct Container {
    machine: Arc<Machine>,
    id: String,
    name: String,
    /// Id of what it was made from.
    image: String,
    shape: Shape,
    removed: bool,
}

impl Container {
    /// The daemon's id of it.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// What it was made as.
    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if self.removed {
            return;
        }
        let engine = &self.machine.engine;
        let docker = engine.docker().clone();
        // By its name: that is known also when the answer to its creation never came.
        let name = std::mem::take(&mut self.name);
        let image = std::mem::take(&mut self.image);
        let removals = self.machine.presence.removals();
        let identity = self.machine.session.identity().clone();
        // Of removals by other processes Podman tells nothing.
        let hears_nothing = engine.info().kind == EngineKind::Podman;
        engine.later(format!("removing container {name}"), async move {
            remove(&docker, &name).await?;
            // A snapshot that was removed meanwhile stayed for the container's sake.
            if removals.has(&image) || hears_nothing {
                crate::snapshot::release(&docker, &identity, &image).await?;
            }
            Ok(())
        });
    }
}

/// Removes a container with its anonymous volumes, whatever it does. That it is gone, or going, is no failure.
pub(crate) async fn remove(docker: &Docker, name: &str) -> Result<()> {
    let options = RemoveContainerOptionsBuilder::new()
        .force(true)
        .v(true)
        .build();
    for pause in REMOVAL_PAUSES {
        match remove_once(docker, name, options.clone()).await {
            Err(error) if is_ending(&error) => tokio::time::sleep(pause).await,
            removed => return Ok(removed?),
        }
    }
    Ok(remove_once(docker, name, options).await?)
}

async fn remove_once(
    docker: &Docker,
    name: &str,
    options: RemoveContainerOptions,
) -> Result<(), DockerError> {
    let removed = docker
        .remove_container(name, Some(options))
        .await
        .doing(format!("removing container {name}"));
    match removed {
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        removed => removed,
    }
}

/// Whether a container could not be removed because it ends at this moment: Podman kills it first, cannot kill what has ended and
/// is not cleaned up, and says so as a failure of its own.
fn is_ending(error: &DockerError) -> bool {
    error.status() == Some(500) && error.to_string().contains("container state improper")
}

/// Makes a container. It is not started. Runs to its end also when the future is dropped; then the container is removed.
///
/// # Errors
///
/// [`hm_vm_core::Error::LimitNotEnforceable`], [`hm_vm_core::Error::NoSpace`], or a failure of the daemon: one with status 404
/// when the image is gone.
pub(crate) async fn create(
    machine: &Arc<Machine>,
    base: &BaseImage,
    kind: &str,
    shape: &Shape,
    config: &VmConfig,
) -> Result<Container> {
    let identity = machine.session.identity();
    let mut body = body(machine, base, shape, config)?;
    body.labels = Some(identity.labels(kind));
    let name = identity.container_name();
    let container = Container {
        machine: Arc::clone(machine),
        id: String::new(),
        name,
        image: base.id.clone(),
        shape: shape.clone(),
        removed: true,
    };
    let (base, config) = (base.clone(), config.clone());
    machine
        .engine
        .run(async move { send(container, base, body, config).await })
        .await
}

/// Makes it in the daemon, and it is one that is removed on drop.
async fn send(
    mut container: Container,
    base: BaseImage,
    mut body: ContainerCreateBody,
    config: VmConfig,
) -> Result<Container> {
    let machine = Arc::clone(&container.machine);
    let helper = crate::helper::volume(&machine).await?;
    if let Some(host) = &mut body.host_config {
        host.mounts.get_or_insert_default().push(Mount {
            read_only: Some(true),
            ..volume(&helper, HELPER_DIRECTORY)
        });
    }
    let platform = base.platform.as_ref().map(ToString::to_string);
    let options = CreateContainerOptionsBuilder::new()
        .name(&container.name)
        .platform(platform.as_deref().unwrap_or_default())
        .build();
    let docker = machine.engine.docker();
    // Before the request: what becomes of it is not known when the connection breaks.
    container.removed = false;
    let created = docker
        .create_container(Some(options), body)
        .await
        .doing(format!("creating a container of {}", base.id));
    match created {
        Ok(created) => {
            container.id = created.id;
            Ok(container)
        }
        Err(error) => {
            container.removed = error.status().is_some_and(|status| status < 500);
            Err(limits::refused(error, &config))
        }
    }
}

fn body(
    machine: &Machine,
    base: &BaseImage,
    shape: &Shape,
    config: &VmConfig,
) -> Result<ContainerCreateBody> {
    let info = machine.engine.info();
    let mut host = host_config(shape, info.kind);
    protections::apply(info, config, &mut host)?;
    limits::apply(info, base, config, &mut host)?;
    let joins = shape.network.starts_with("container:");
    Ok(ContainerCreateBody {
        image: Some(base.id.clone()),
        // The name of who else is on a network is that container's affair.
        hostname: (!joins).then(|| HOST_NAME.into()),
        // Podman asks first, and waits for ten seconds: the helper, as a first process, does not hear it.
        stop_signal: Some("SIGKILL".into()),
        entrypoint: Some(vec![HELPER_PROGRAM.into()]),
        cmd: Some(Vec::new()),
        user: Some("0:0".into()),
        working_dir: Some("/".into()),
        tty: Some(false),
        open_stdin: Some(true),
        // When nobody is attached any more, the helper's input ends.
        stdin_once: Some(true),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        healthcheck: no_health_check(info.kind, base),
        // The same as the network `none` of the daemon, without the time that making it takes; the helper sees to `/etc/hosts`. The
        // daemon alone writes further names there, and not for such a container.
        network_disabled: Some(shape.network == "none" && shape.extra_hosts.is_empty())
            .filter(|is_disabled| *is_disabled),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    })
}

/// Takes an image's check of its service away: that would be a command of nobody's. Podman takes even this for one, and asks systemd
/// for a timer.
fn no_health_check(kind: EngineKind, base: &BaseImage) -> Option<HealthConfig> {
    let is_needed = kind == EngineKind::Docker || base.config.healthcheck.is_some();
    is_needed.then(|| HealthConfig {
        test: Some(vec!["NONE".into()]),
        ..HealthConfig::default()
    })
}

fn host_config(shape: &Shape, kind: EngineKind) -> HostConfig {
    let volumes = shape.volumes.iter();
    let (mut mounts, binds) = match kind {
        EngineKind::Docker => (
            volumes
                .map(|(name, target)| volume(name, target))
                .collect::<Vec<_>>(),
            None,
        ),
        // There a mount gets the image's files whatever it says of that; `mounts` has seen to the targets.
        EngineKind::Podman => {
            let binds = volumes.map(|(name, target)| format!("{name}:{target}:nocopy"));
            (Vec::new(), Some(binds.collect()))
        }
    };
    mounts.extend(shape.binds.iter().map(|bind| Mount {
        typ: Some(MountType::BIND),
        source: Some(bind.source.clone()),
        target: Some(bind.target.clone()),
        read_only: Some(bind.read_only),
        ..Mount::default()
    }));
    HostConfig {
        network_mode: Some(shape.network.clone()),
        extra_hosts: Some(shape.extra_hosts.clone()).filter(|hosts| !hosts.is_empty()),
        mounts: Some(mounts),
        binds,
        log_config: Some(HostConfigLogConfig {
            typ: Some("none".into()),
            config: None,
        }),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        // Whatever the daemon's own configuration says: the helper must be the first process.
        init: Some(false),
        ..HostConfig::default()
    }
}

/// A mount of a volume. What the image has at that place does not come into it.
fn volume(name: &str, target: &str) -> Mount {
    Mount {
        typ: Some(MountType::VOLUME),
        source: Some(name.into()),
        target: Some(target.into()),
        volume_options: Some(MountVolumeOptions {
            no_copy: Some(true),
            ..MountVolumeOptions::default()
        }),
        ..Mount::default()
    }
}
