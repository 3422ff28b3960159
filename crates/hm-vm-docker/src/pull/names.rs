//! What a name stands for in a daemon.

use anyhow::{Context as _, Result};
use hm_vm_core::Error;
use hm_vm_oci::Reference;

use crate::engine::EngineKind;

/// Stands for this machine's own programs in the sandbox; no daemon has it.
const HOST: &str = "host";

/// What users write for an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// `sha256:…`
    Id(String),
    /// A name in full, and as it was written.
    Reference { full: Reference, written: String },
}

impl Name {
    /// # Errors
    ///
    /// [`Error::ImageNotFound`] with the reason for what can be no image's name.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let not_found = || Error::ImageNotFound { image: text.into() };
        if text == HOST {
            return Err(not_found()).context("`host` is an image of the sandbox alone");
        }
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let is_lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if digits.len() == 64 && digits.bytes().all(is_lower_hex) {
            return Ok(Self::Id(format!("sha256:{digits}")));
        }
        let full = text.parse().map_err(|error: hm_vm_oci::OciError| {
            anyhow::Error::new(not_found()).context(error.to_string())
        })?;
        let written = text.to_owned();
        Ok(Self::Reference { full, written })
    }

    /// Names under which a daemon may have the image, the best first.
    ///
    /// What was built with Podman is `localhost/NAME` there, and comes before what another one may have put on Docker Hub under
    /// the same name.
    pub(super) fn in_daemon(&self, kind: EngineKind) -> Vec<String> {
        let (full, written) = match self {
            Self::Id(id) => return vec![id.clone()],
            Self::Reference { full, written } => (full, written),
        };
        let mut names = Vec::new();
        if kind == EngineKind::Podman && !names_registry(full, written) {
            let local = format!("localhost/{written}").parse::<Reference>();
            names.extend(local.ok().map(|local| exact(&local)));
        }
        names.push(exact(full));
        names
    }
}

/// Whether a registry was written, and not only meant.
fn names_registry(full: &Reference, written: &str) -> bool {
    full.registry() != "docker.io"
        || ["docker.io/", "index.docker.io/"]
            .iter()
            .any(|registry| written.starts_with(registry))
}

/// In full, and without the tag where a digest says it all.
fn exact(reference: &Reference) -> String {
    let place = repository(reference);
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => format!("{place}@{digest}"),
        (None, tag) => format!("{place}:{}", tag.unwrap_or("latest")),
    }
}

/// `docker.io/library/alpine`.
pub(super) fn repository(reference: &Reference) -> String {
    format!("{}/{}", reference.registry(), reference.repository())
}

/// Tag or digest, as a pull is told it. Never empty: that would be all tags.
pub(super) fn tag(reference: &Reference) -> String {
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or("latest").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str, kind: EngineKind) -> Vec<String> {
        Name::parse(text).unwrap().in_daemon(kind)
    }

    #[test]
    fn names_are_complete() {
        use EngineKind::{Docker, Podman};

        let id = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(names("alpine", Docker), ["docker.io/library/alpine:latest"]);
        assert_eq!(names("h:5/x:1", Docker), ["h:5/x:1"]);
        assert_eq!(
            names(&format!("alpine:3@{id}"), Docker),
            [format!("docker.io/library/alpine@{id}")]
        );
        assert_eq!(names(&id, Podman), [id.as_str()]);
        assert_eq!(names(&id[7..], Docker), [id.as_str()]);
        // The beginning of an id is a name like any other.
        assert_eq!(names("0a0a0a", Docker), ["docker.io/library/0a0a0a:latest"]);
        assert_eq!(
            names("alpine", Podman),
            ["localhost/alpine:latest", "docker.io/library/alpine:latest"]
        );
        assert_eq!(
            names("o/x:1", Podman),
            ["localhost/o/x:1", "docker.io/o/x:1"]
        );
        assert_eq!(
            names("docker.io/alpine", Podman),
            ["docker.io/library/alpine:latest"]
        );
    }

    #[test]
    fn what_can_be_no_name_is_not_found() {
        for text in ["host", "", "Alpine", "x:", "a b", "../x", "x@sha256:1"] {
            let error = Name::parse(text).unwrap_err();
            let is_missing = matches!(
                error.downcast_ref::<Error>(),
                Some(Error::ImageNotFound { image }) if image == text
            );
            assert!(is_missing, "{text}: {error:?}");
        }
    }

    #[test]
    fn a_pull_always_has_a_tag() {
        let of = |text: &str| tag(&text.parse().unwrap());
        let digest = format!("sha256:{}", "0".repeat(64));
        assert_eq!(of("x"), "latest");
        assert_eq!(of("x:1"), "1");
        assert_eq!(of(&format!("x:1@{digest}")), digest);
        assert_eq!(of(&format!("x@{digest}")), digest);
    }
}
