//! Names and labels of all that the backend makes in a daemon.
//!
//! | object | name |
//! |---|---|
//! | container | `hm-vm-OWNER-SESSION-NONCE` |
//! | snapshot | image `hm-vm-OWNER:s-NONCE`; it exists while it has that tag |
//! | an image made of another one, so that it can be used here | image `hm-vm-OWNER:p-DIGEST` |
//! | state of a VM between two of its containers | image `hm-vm-OWNER:w-SESSION-NONCE` |
//! | what was a snapshot, and containers use still | image `hm-vm-OWNER:g-NONCE` |
//! | named cache directory | volume `hm-vm-OWNER-cache-HASH` |
//! | the helper | volume `hm-vm-helper-HASH`, shared by all owners: its name is its content |
//! | outbound network | network `hm-vm-outbound`, shared by all owners |

use std::collections::HashMap;

use crate::engine::EngineKind;

/// Label of everything that belongs to an owner: the owner.
pub(crate) const OWNER: &str = "io.hm-vm.owner";
/// Label of what ends with a session: the session.
pub(crate) const SESSION: &str = "io.hm-vm.session";
/// Label of containers and images: what it is for (`vm`, `holder`, `reader`, `snapshot`, `prepared`, `working`, `helper`).
pub(crate) const KIND: &str = "io.hm-vm.kind";
/// Label of a snapshot under a cache key: the key, or its first kilobyte.
pub(crate) const KEY: &str = "io.hm-vm.key";
/// Label of a snapshot: the id of the image that it was made from.
pub(crate) const PARENT: &str = "io.hm-vm.parent";
/// Label of a snapshot: makes two snapshots of one state two images.
pub(crate) const NONCE: &str = "io.hm-vm.nonce";
/// Label of a named cache directory: its name.
pub(crate) const CACHE: &str = "io.hm-vm.cache";
/// Label of a snapshot: what injects brought to it, see `inject`.
pub(crate) const INJECTS: &str = "io.hm-vm.injects";

/// Label of a snapshot where the daemon's `commit` cannot say what its image said: that, as JSON.
pub(crate) const CONFIG: &str = "io.hm-vm.config";

/// Who makes objects: an owner, and one session of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// 16 hexadecimal digits.
    pub(crate) owner: String,
    /// 16 hexadecimal digits.
    pub(crate) session: String,
}

impl Identity {
    /// Labels of something that ends with the session.
    pub(crate) fn labels(&self, kind: &str) -> HashMap<String, String> {
        let mut labels = self.lasting_labels(kind);
        labels.insert(SESSION.into(), self.session.clone());
        labels
    }

    /// Labels of something that outlives the session.
    pub(crate) fn lasting_labels(&self, kind: &str) -> HashMap<String, String> {
        HashMap::from([
            (OWNER.into(), self.owner.clone()),
            (KIND.into(), kind.into()),
        ])
    }

    /// A new name for a container.
    pub(crate) fn container_name(&self) -> String {
        format!("hm-vm-{}-{}-{}", self.owner, self.session, nonce())
    }

    /// What the names of all containers of this owner begin with.
    pub(crate) fn container_prefix(&self) -> String {
        format!("hm-vm-{}-", self.owner)
    }

    /// The repository of this owner's images.
    pub(crate) fn repository(&self) -> String {
        format!("hm-vm-{}", self.owner)
    }

    /// That, as a daemon of this kind is told it: Podman takes a short name for one of Docker's registry.
    pub(crate) fn repository_in(&self, kind: EngineKind) -> String {
        match kind {
            EngineKind::Docker => self.repository(),
            EngineKind::Podman => format!("localhost/{}", self.repository()),
        }
    }

    /// Whether `name` (`repository:tag`, with `localhost/` before it on Podman) is that of a snapshot of this owner.
    pub(crate) fn is_snapshot_tag(&self, name: &str) -> bool {
        self.tag_of(name).is_some_and(|tag| tag.starts_with("s-"))
    }

    /// The tag of `name`, if its repository is this owner's.
    pub(crate) fn tag_of<'a>(&self, name: &'a str) -> Option<&'a str> {
        let name = name.strip_prefix("localhost/").unwrap_or(name);
        name.strip_prefix(&self.repository())?.strip_prefix(':')
    }
}

/// 32 random hexadecimal digits.
pub(crate) fn nonce() -> String {
    let mut random = [0u8; 16];
    // Nothing but an interruption before the kernel has entropy can fail here; it is asked again.
    while rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).is_err() {}
    format!("{:032x}", u128::from_ne_bytes(random))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_of_others_are_no_ones_own() {
        let identity = Identity {
            owner: "00aa".into(),
            session: "1".into(),
        };
        assert!(identity.is_snapshot_tag("hm-vm-00aa:s-1"));
        assert!(identity.is_snapshot_tag("localhost/hm-vm-00aa:s-1"));
        for other in [
            "hm-vm-00aa:w-1",
            "hm-vm-00ab:s-1",
            "hm-vm-00aab:s-1",
            "x/hm-vm-00aa:s-1",
        ] {
            assert!(!identity.is_snapshot_tag(other), "{other}");
        }
    }

    #[test]
    fn names_differ() {
        assert_ne!(nonce(), nonce());
        assert_eq!(nonce().len(), 32);
    }
}
