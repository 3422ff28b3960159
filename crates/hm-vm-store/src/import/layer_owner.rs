//! Owners and attributes of a layer's entries.

use rustix::fs::{Gid, Uid};

use super::root_writer::Attributes;

/// Whom an entry belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    pub(super) uid: Uid,
    pub(super) gid: Gid,
}

impl Owner {
    pub(super) fn of(attributes: &Attributes) -> Self {
        Self {
            uid: Uid::from_raw(attributes.uid),
            gid: Gid::from_raw(attributes.gid),
        }
    }

    /// Whether that is whom new files belong to anyway.
    pub(super) fn is_root(self) -> bool {
        self.uid.is_root() && self.gid.is_root()
    }
}

/// Whether an extended attribute is kept in a layer: the user's, capabilities and access control lists. Not
/// `user.overlay.*`, with which overlayfs would be told things; not `trusted.*`, which no guest sees; and
/// no labels of another machine's security modules.
pub(super) fn may_keep(name: &[u8]) -> bool {
    super::xattrs::is_kept(name)
        || matches!(
            name,
            b"system.posix_acl_access" | b"system.posix_acl_default"
        )
}

/// The process's mask of permissions. Where it cannot be told, all of them: modes are then set in any case.
pub(super) fn umask() -> u32 {
    let found = std::fs::read_to_string("/proc/self/status").ok();
    let found = found.as_deref().and_then(|status| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("Umask:"))?;
        u32::from_str_radix(line.trim(), 8).ok()
    });
    found.unwrap_or(0o777)
}
