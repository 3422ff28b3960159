//! Where in a container files are to be brought.

use anyhow::Result;
use bollard::Docker;
use bollard::query_parameters::ContainerArchiveInfoOptionsBuilder;
use hm_vm_core::Error;

use crate::error::{DockerError, Doing as _};

/// As many symbolic links as the kernel follows in one path.
const LINKS: u32 = 40;

/// Bits of a mode, as the daemons write them.
const IS_DIRECTORY: u32 = 1 << 31;
const IS_LINK: u32 = 1 << 27;

/// A directory of a container, that may not exist yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The part of it that exists. Links in it are followed by the daemon, inside of the container.
    pub(crate) existing: String,
    /// The directories below that, from the outermost, that do not exist.
    pub(crate) missing: Vec<String>,
}

/// What there is at a path of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Directory,
    /// And where it leads in the container.
    Link(String),
    Other,
    Nothing,
}

impl Place {
    /// Its path.
    pub(crate) fn path(&self) -> String {
        let mut path = self.existing.trim_end_matches('/').to_owned();
        for name in &self.missing {
            path.push('/');
            path.push_str(name);
        }
        if path.is_empty() { "/".into() } else { path }
    }

    /// Looks for the directory `guest` of a container.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] when it is not an absolute path, or a part of it exists and is no directory.
    pub(crate) async fn find(docker: &Docker, container: &str, guest: &str) -> Result<Self> {
        let invalid = |reason: &str| Error::InvalidInput {
            what: format!("guest directory {guest:?}"),
            reason: reason.into(),
        };
        if !guest.starts_with('/') || guest.contains('\0') {
            return Err(invalid("it is not an absolute path").into());
        }
        let mut names = names(guest);
        let mut missing = Vec::new();
        let mut links = 0;
        let mut failure = None;
        while !names.is_empty() {
            match look(docker, container, &absolute(&names)).await {
                Ok(Found::Directory) => break,
                Ok(Found::Link(target)) => {
                    links += 1;
                    if links > LINKS {
                        return Err(invalid("too many symbolic links").into());
                    }
                    names = self::names(&target);
                }
                Ok(Found::Other) if missing.is_empty() => {
                    return Err(invalid("it is not a directory").into());
                }
                Ok(Found::Other) => {
                    return Err(invalid("a part of it is not a directory").into());
                }
                other => {
                    // Below a file there is not nothing, but a failure.
                    failure = failure.or(other.err());
                    missing.extend(names.pop());
                }
            }
        }
        if let Some(failure) = failure {
            return Err(failure.contract());
        }
        missing.reverse();
        Ok(Self {
            existing: absolute(&names),
            missing,
        })
    }
}

/// Looks at what is at a path of a container. A link at its end is not followed.
pub(crate) async fn look(
    docker: &Docker,
    container: &str,
    path: &str,
) -> Result<Found, DockerError> {
    let options = ContainerArchiveInfoOptionsBuilder::default()
        .path(path)
        .build();
    let found = docker
        .get_container_archive_info(container, Some(options))
        .await
        .doing(format!("looking at {path} in a container"));
    match found {
        Ok(found) if found.file_mode & IS_DIRECTORY != 0 => Ok(Found::Directory),
        Ok(found) if found.file_mode & IS_LINK != 0 => Ok(Found::Link(found.link_target)),
        Ok(_) => Ok(Found::Other),
        Err(error) if error.is_not_found() => Ok(Found::Nothing),
        Err(error) => Err(error),
    }
}

/// The names in a path. `..` takes away the one before it.
fn names(path: &str) -> Vec<String> {
    let mut names = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name.to_owned()),
        }
    }
    names
}

fn absolute(names: &[String]) -> String {
    format!("/{}", names.join("/"))
}
