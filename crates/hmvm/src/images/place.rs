//! Where images lie outside of the store and of registries: `oci:DIR[:TAG]` and its kin.

use std::path::{Path, PathBuf};

/// A place of images, as the user writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// `oci:DIR[:TAG]`: a layout directory.
    Layout {
        /// The directory.
        path: PathBuf,
        /// Which image, or what it shall be called.
        name: Option<String>,
    },
    /// `oci-archive:FILE[:TAG]`: an archive of one.
    Archive {
        /// The file.
        path: PathBuf,
        /// Which image, or what it shall be called.
        name: Option<String>,
    },
    /// `docker-archive:FILE[:NAME]`: what `docker save` and `podman save` write.
    DockerArchive {
        /// The file.
        path: PathBuf,
        /// Which image.
        name: Option<String>,
    },
    /// `docker-daemon:NAME`: an image that a Docker on this machine has.
    DockerDaemon(String),
    /// Anything else.
    Path(PathBuf),
}

impl Place {
    /// Reads a place.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let Some((kind, rest)) = text.split_once(':') else {
            return Ok(Self::Path(text.into()));
        };
        let kinds = ["oci", "oci-archive", "docker-archive", "docker-daemon"];
        if !kinds.contains(&kind) {
            return Ok(Self::Path(text.into()));
        }
        if rest.is_empty() {
            return Err(format!("nothing stands behind {kind}:\nhint: {HINT}"));
        }
        if kind == "docker-daemon" {
            return Ok(Self::DockerDaemon(rest.to_owned()));
        }
        let (path, name) = path_and_name(rest);
        if path.as_os_str().is_empty() || name.as_deref() == Some("") {
            return Err(format!("{text:?} is no place of an image\nhint: {HINT}"));
        }
        Ok(match kind {
            "oci" => Self::Layout { path, name },
            "oci-archive" => Self::Archive { path, name },
            _ => Self::DockerArchive { path, name },
        })
    }
}

/// What the user can write.
pub(crate) const HINT: &str =
    "write oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:NAME] or docker-daemon:NAME";

/// A path may have a colon itself, if it is there.
fn path_and_name(text: &str) -> (PathBuf, Option<String>) {
    if Path::new(text).exists() {
        return (text.into(), None);
    }
    match text.split_once(':') {
        Some((path, name)) => (path.into(), Some(name.to_owned())),
        None => (text.into(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_by_what_stands_before_the_colon() {
        let place = |text| Place::parse(text).expect("a place");
        assert_eq!(
            place("oci:out:1.0"),
            Place::Layout {
                path: "out".into(),
                name: Some("1.0".into())
            }
        );
        assert_eq!(
            place("oci-archive:/tmp/x.tar"),
            Place::Archive {
                path: "/tmp/x.tar".into(),
                name: None
            }
        );
        assert_eq!(
            place("docker-archive:x.tar:localhost:5000/a:1"),
            Place::DockerArchive {
                path: "x.tar".into(),
                name: Some("localhost:5000/a:1".into())
            }
        );
        let daemon = place("docker-daemon:alpine:3");
        assert_eq!(daemon, Place::DockerDaemon("alpine:3".into()));
        for path in ["rootfs.tar", "./oci:x", "a:b"] {
            assert_eq!(place(path), Place::Path(path.into()));
        }
        for wrong in ["oci:", "docker-daemon:", "oci::tag", "oci-archive:x:"] {
            let told = Place::parse(wrong).expect_err(wrong);
            assert!(told.contains("\nhint: "), "{told}");
        }
    }
}
