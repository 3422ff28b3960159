//! Caches and secrets of a command.
//!
//! Caches are volumes, and part of the container's shape. They begin empty, also where the image has files at their place. Secrets go to
//! the helper with the request, which writes them to files that the container has mounted. What is missing of a cache's place is
//! made by the daemon's runtime, and stays behind in the VM's files as an empty directory, as in the sandbox.

use std::collections::BTreeMap;

use anyhow::Result;
use futures_util::future::try_join_all;
use hm_vm_core::{Error, Mount, Secret};

use crate::backend::Machine;
use crate::caches;
use crate::container::Shape;
use crate::engine::EngineKind;
use crate::error::DockerError;
use crate::secrets::{Bind, SecretFiles};

/// Bytes of all secrets of one command.
const MOST_SECRET_BYTES: usize = 16 << 20;

/// Longest target: paths of the kernel end at 4096.
const LONGEST_TARGET: usize = 4000;

/// What a command sees in its tree beside the VM's files: looked at, and in order: outer places before those that lie inside of
/// them.
#[derive(Debug, Default)]
pub(crate) struct Mounts {
    /// Volumes of the caches, and their targets.
    pub(crate) volumes: Vec<(String, String)>,
    /// Targets of secrets, and their content.
    pub(crate) secrets: Vec<(String, Secret)>,
    /// Where the secrets will be, for as long as this lives.
    files: Option<SecretFiles>,
}

impl Mounts {
    /// Checks what is asked for, and makes caches that are not there yet.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] for a target or a cache's name that cannot be, for a target that is there twice, and for too many
    /// bytes of secrets; otherwise a failure of the daemon.
    pub(crate) async fn new(machine: &Machine, asked: &[Mount]) -> Result<Self> {
        let Checked { caches, secrets } = Checked::new(asked, machine.engine.info().kind)?;
        let targets: Vec<&str> = secrets.iter().map(|(target, _)| target.as_str()).collect();
        let identity = machine.session.identity();
        let files = match &targets[..] {
            [] => None,
            targets => Some(SecretFiles::make(&machine.engine, identity, targets)?),
        };
        if caches.is_empty() {
            return Ok(Self {
                volumes: Vec::new(),
                secrets,
                files,
            });
        }
        let docker = machine.engine.docker().clone();
        let identity = machine.session.identity().clone();
        let ensured = async move {
            let ensure = caches.into_iter().map(|(target, name)| {
                let (docker, identity) = (&docker, &identity);
                async move { anyhow::Ok((caches::ensure(docker, identity, &name).await?, target)) }
            });
            try_join_all(ensure).await
        };
        Ok(Self {
            volumes: machine.engine.run(ensured).await?,
            secrets,
            files,
        })
    }

    /// What a container mounts for the secrets.
    pub(crate) fn binds(&self) -> &[Bind] {
        self.files.as_ref().map_or(&[], SecretFiles::binds)
    }
}

/// What is asked for, without anything made.
#[derive(Debug)]
struct Checked {
    /// Target and name.
    caches: Vec<(String, String)>,
    secrets: Vec<(String, Secret)>,
}

impl Checked {
    fn new(asked: &[Mount], kind: EngineKind) -> Result<Self, Error> {
        let mut places = BTreeMap::new();
        for mount in asked {
            let target = match mount {
                Mount::Cache { target, .. } => checked_volume_target(target, kind)?,
                Mount::Secret { target, .. } => checked_target(target)?,
                _ => {
                    return Err(Error::Unsupported {
                        what: "this kind of mount".into(),
                    });
                }
            };
            if places.insert(target, mount).is_some() {
                let target = mount_target(mount);
                return Err(refuse(target, "there are two mounts at this place"));
            }
        }
        let (mut caches, mut secrets) = (Vec::new(), Vec::new());
        for (target, mount) in places {
            match mount {
                Mount::Cache { name, .. } => caches.push((target, name.clone())),
                Mount::Secret { content, .. } => secrets.push((target, content.clone())),
                _ => {}
            }
        }
        let secret_bytes: usize = secrets.iter().map(|(_, one)| one.expose().len()).sum();
        if secret_bytes > MOST_SECRET_BYTES {
            return Err(Error::InvalidInput {
                what: "the secrets".into(),
                reason: format!("together they have more than {MOST_SECRET_BYTES} bytes"),
            });
        }
        Ok(Self { caches, secrets })
    }
}

fn mount_target(mount: &Mount) -> &str {
    match mount {
        Mount::Cache { target, .. } | Mount::Secret { target, .. } => target,
        _ => "",
    }
}

fn refuse(target: &str, reason: &str) -> Error {
    Error::InvalidInput {
        what: format!("mount target {target:?}"),
        reason: reason.into(),
    }
}

/// The target without repeated slashes.
fn checked_target(target: &str) -> Result<String, Error> {
    let reason = if !target.starts_with('/') {
        "must be an absolute path"
    } else if target.contains('\0') {
        "must not contain a zero byte"
    } else if target.split('/').any(|part| part == "..") {
        "must not contain \"..\""
    } else if target.len() > LONGEST_TARGET {
        "is too long"
    } else {
        let parts = target
            .split('/')
            .filter(|part| !part.is_empty() && *part != ".");
        let path: String = parts.clone().flat_map(|part| ["/", part]).collect();
        match parts.clone().next() {
            None | Some("proc" | "dev" | "sys") => "is a place of the VM's own",
            Some(_) => return Ok(path),
        }
    };
    Err(refuse(target, reason))
}

/// A target that may be that of a volume too.
fn checked_volume_target(target: &str, kind: EngineKind) -> Result<String, Error> {
    let path = checked_target(target)?;
    // Podman is told of volumes as text, and reads what follows a colon or a comma as options.
    if kind == EngineKind::Podman && path.contains([':', ',', '"', '\n', '\r']) {
        return Err(refuse(
            target,
            "must not contain colons, commas, quotes or line ends on Podman",
        ));
    }
    Ok(path)
}

/// The contract's error where a container could not be created or started because of a target, otherwise the
/// failure itself. That something on the way to a target is not a directory, only the runtime finds.
pub(crate) fn explain(error: anyhow::Error, shape: &Shape) -> anyhow::Error {
    let Some(DockerError::Refused { message: words, .. }) = error.downcast_ref() else {
        return error;
    };
    let lower = words.to_ascii_lowercase();
    let is_about_places = [
        "not a directory",
        "file exists",
        "too many levels of symbolic",
    ]
    .iter()
    .any(|reason| lower.contains(reason));
    if !is_about_places {
        return error;
    }
    // The longest one that is named: outer ones are the beginning of inner ones.
    let named = (shape.volumes.iter().map(|(_, target)| target.as_str()))
        .chain(shape.binds.iter().map(|bind| bind.target.as_str()))
        .filter(|target| words.contains(target.trim_start_matches('/')))
        .max_by_key(|target| target.len());
    match named {
        Some(target) => refuse(
            target,
            "something that is not a directory is there, or on the way there",
        )
        .into(),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(target: &str) -> Mount {
        Mount::Cache {
            name: "c".into(),
            target: target.into(),
        }
    }

    fn secret(target: &str, bytes: usize) -> Mount {
        Mount::Secret {
            target: target.into(),
            content: Secret::new(vec![b'x'; bytes]),
        }
    }

    fn check(asked: &[Mount]) -> Result<Checked, Error> {
        Checked::new(asked, EngineKind::Docker)
    }

    #[test]
    fn targets_that_cannot_be_are_refused() {
        let long = format!("/{}", "x".repeat(LONGEST_TARGET));
        for target in [
            "",
            "relative",
            "/",
            "//./",
            "/proc",
            "/proc/x",
            "//dev/shm",
            "/./sys/fs",
            "/data/../x",
            "/..",
            "/a\0b",
            &long,
        ] {
            for mount in [cache(target), secret(target, 1)] {
                let refused = check(&[mount]);
                assert!(
                    matches!(refused, Err(Error::InvalidInput { .. })),
                    "{target:?}: {refused:?}"
                );
            }
        }
    }

    #[test]
    fn one_place_has_one_mount_however_it_is_written() {
        for other in ["/data", "//data", "/data/", "/./data/."] {
            assert!(check(&[cache("/data"), secret(other, 1)]).is_err());
            assert!(check(&[cache("/data"), cache(other)]).is_err());
        }
    }

    #[test]
    fn outer_places_come_first() {
        let checked = check(&[cache("/a/b"), cache("/a-b"), cache("/a"), cache("/devices")]);
        let caches = checked.unwrap().caches;
        let targets: Vec<&str> = caches.iter().map(|(target, _)| target.as_str()).collect();
        assert_eq!(targets, ["/a", "/a-b", "/a/b", "/devices"]);
    }

    #[test]
    fn secrets_are_bounded_together() {
        let half = MOST_SECRET_BYTES / 2;
        assert!(check(&[secret("/a", half), secret("/b", half)]).is_ok());
        assert!(check(&[secret("/a", half), secret("/b", half + 1)]).is_err());
    }

    #[test]
    fn a_target_cannot_bring_options_for_podman() {
        for target in ["/a,readonly", "/a:/b:ro", "/a\",x", "/a\nb"] {
            assert!(Checked::new(&[cache(target)], EngineKind::Podman).is_err());
            assert!(Checked::new(&[cache(target)], EngineKind::Docker).is_ok());
            assert!(Checked::new(&[secret(target, 1)], EngineKind::Podman).is_ok());
        }
    }

    #[test]
    fn a_file_on_the_way_is_the_callers_mistake() {
        let failure = |message: &str| {
            anyhow::Error::from(DockerError::Refused {
                doing: "starting a container".into(),
                status: 500,
                message: message.into(),
            })
        };
        let volumes = Shape {
            volumes: vec![
                ("v".to_owned(), "/data".to_owned()),
                ("w".to_owned(), "/data/file/below".to_owned()),
            ],
            ..Shape::default()
        };
        let runc = "error mounting \"/var/lib/docker/volumes/v/_data\" to rootfs at \"/data/file/below\": open o_path procfd: \
                    open /var/lib/docker/overlay2/5277/merged/data/file/below: not a directory: unknown";
        let explained = explain(failure(runc), &volumes);
        let Some(Error::InvalidInput { what, .. }) = explained.downcast_ref() else {
            panic!("{explained:#}");
        };
        assert!(what.contains("/data/file/below"), "{what}");
        for other in [
            "exec: \"/x\": not a directory",
            "mounting /data/file/below: no memory",
        ] {
            let explained = explain(failure(other), &volumes);
            assert!(explained.downcast_ref::<DockerError>().is_some(), "{other}");
        }
    }
}
