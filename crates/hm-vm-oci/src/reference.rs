//! Names of images as Docker's users write them.

use std::fmt;

use crate::Digest;

/// A name of an image: `alpine`, `alpine:3`, `localhost:5000/x`, `registry.example/o/r:tag@sha256:…`.
///
/// Without a registry it is Docker Hub's (`docker.io`), there without a user `library`'s; without tag and digest
/// the tag is `latest`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    pub(crate) registry: String,
    pub(crate) repository: String,
    pub(crate) tag: Option<String>,
    pub(crate) digest: Option<Digest>,
}

impl Reference {
    /// Host of the registry, with its port if it has one: `docker.io`, `localhost:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Path of the repository there: `library/alpine`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; a reference with a digest may have none.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest; when there is one, the tag is only for people.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }
}

/// In full: `docker.io/library/alpine:latest`.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}
