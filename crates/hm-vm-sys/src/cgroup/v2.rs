//! Finding a place for groups in the v2 hierarchy, and making its controllers available.

use std::path::{Path, PathBuf};

use super::files;
use super::limits::Controller;
use super::machine::Hierarchy;
use crate::error::SysError;

/// A group below which ours can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) dir: PathBuf,
    /// Controllers that are, or can be made, available to groups below it.
    pub(super) controllers: Vec<String>,
}

impl Place {
    pub(super) fn has(&self, controller: Controller) -> bool {
        self.controllers
            .iter()
            .any(|name| name == controller.name())
    }
}

/// The nearest place, from our own group up to the mount point, with as many of `wanted` as any
/// has. Changes nothing.
///
/// A process can only be moved by somebody who may write `cgroup.procs` of the common ancestor of
/// its old and its new group; as all candidates are ancestors of our own, that is the candidate.
pub(super) fn find_place(hierarchy: &Hierarchy, wanted: &[&str]) -> Option<Place> {
    let mut best: Option<Place> = None;
    let mut dir: Option<&Path> = Some(&hierarchy.own);
    while let Some(candidate) = dir {
        if let Some(place) = inspect(candidate, wanted)
            && best
                .as_ref()
                .is_none_or(|best| place.controllers.len() > best.controllers.len())
        {
            best = Some(place);
        }
        if candidate == hierarchy.mount_point {
            break;
        }
        dir = candidate.parent();
    }
    best.filter(|place| !place.controllers.is_empty())
}

/// What `candidate` offers, if we may make groups there that get controllers.
fn inspect(candidate: &Path, wanted: &[&str]) -> Option<Place> {
    let control = candidate.join("cgroup.subtree_control");
    let may_write = files::writable(candidate) && files::writable(&candidate.join("cgroup.procs"));
    // Only the root of the whole hierarchy has no type; it alone may hold processes and children
    // with controllers at once.
    let kind = files::words(&candidate.join("cgroup.type")).concat();
    let is_root = kind.is_empty();
    let suits = is_root || (kind == "domain" && !files::has_processes(candidate));
    if !may_write || !suits {
        return None;
    }
    let enabled = files::words(&control);
    let available = files::words(&candidate.join("cgroup.controllers"));
    let can_enable = files::writable(&control);
    Some(Place {
        dir: candidate.to_path_buf(),
        controllers: wanted
            .iter()
            .map(|name| (*name).to_owned())
            .filter(|name| enabled.contains(name) || (can_enable && available.contains(name)))
            .collect(),
    })
}

/// Makes the controllers available to the groups below `dir`.
pub(super) fn enable(dir: &Path, controllers: &[String]) -> Result<(), SysError> {
    let control = dir.join("cgroup.subtree_control");
    let enabled = files::words(&control);
    for controller in controllers.iter().filter(|name| !enabled.contains(name)) {
        files::write(&control, &format!("+{controller}"))?;
    }
    Ok(())
}

/// Makes `place/hm-vm`, ready for groups with all controllers of the place. That its own children
/// have controllers also keeps systemd from taking them away again.
pub(super) fn prepare_parent(place: &Place) -> Result<PathBuf, SysError> {
    let parent = place.dir.join(super::manager::PARENT);
    files::make_dir(&parent)?;
    enable(&place.dir, &place.controllers)?;
    enable(&parent, &place.controllers)?;
    Ok(parent)
}
