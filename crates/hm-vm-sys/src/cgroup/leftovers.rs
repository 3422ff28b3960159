//! Groups of sessions that died.

use std::fs;
use std::path::{Path, PathBuf};

use super::group::{child_dirs, kill_all, remove_tree};
use super::limits::Controller;
use super::manager::{CgroupManager, PARENT};
use crate::error::SysError;

/// Deeper than systemd or any container manager nests.
const MAX_DEPTH: usize = 16;

/// A group that a dead session of our store left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftoverCgroup {
    /// The session, as in the name of the group.
    pub session: String,
    /// The directory of the group.
    pub path: PathBuf,
}

impl CgroupManager {
    /// Finds groups of this store's sessions that are not alive. Our own session is. Sessions are
    /// named as in group names: see [`detect`](Self::detect).
    ///
    /// Walks all hierarchies in use, as another session may have lived elsewhere in them: some
    /// milliseconds on a machine with many services. Meant for recovery.
    pub fn leftovers(&self, is_alive: impl Fn(&str) -> bool) -> Vec<LeftoverCgroup> {
        let mut found = Vec::new();
        for parent in self.parents() {
            for path in child_dirs(&parent) {
                let session = path
                    .file_name()
                    .and_then(|name| session_of(name.to_str()?, &self.owner));
                if let Some(session) = session
                    && session != self.session
                    && !is_alive(session)
                {
                    found.push(LeftoverCgroup {
                        session: session.to_owned(),
                        path: path.clone(),
                    });
                }
            }
        }
        found
    }

    /// Ends and removes what [`leftovers`](Self::leftovers) finds, and `hm-vm` directories that
    /// are empty. Returns how many groups went.
    ///
    /// # Errors
    ///
    /// The first failure; all others are removed nevertheless.
    pub fn remove_leftovers(&self, is_alive: impl Fn(&str) -> bool) -> Result<usize, SysError> {
        let mut removed = 0;
        let mut failure = None;
        for leftover in self.leftovers(is_alive) {
            match kill_all(&leftover.path).and_then(|()| remove_tree(&leftover.path)) {
                Ok(()) => removed += 1,
                Err(e) => failure = failure.or(Some(e)),
            }
        }
        for parent in self.parents() {
            // Refused while another store or session has groups there.
            drop(fs::remove_dir(parent));
        }
        failure.map_or(Ok(removed), Err)
    }

    /// All directories `hm-vm` in the hierarchies that we use.
    fn parents(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for hierarchy in &self.machine.hierarchies {
            let used = hierarchy.controllers.is_empty()
                || Controller::ALL
                    .iter()
                    .any(|c| hierarchy.controllers.iter().any(|name| name == c.name()));
            if used {
                find_parents(&hierarchy.mount_point, MAX_DEPTH, &mut found);
            }
        }
        found
    }
}

fn find_parents(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    for child in child_dirs(dir) {
        if child.file_name().is_some_and(|name| name == PARENT) {
            found.push(child);
        } else if depth > 0 {
            find_parents(&child, depth - 1, found);
        }
    }
}

/// The session in a group's name `hm-vm-OWNER-SESSION-N`, if it is of this owner.
pub(super) fn session_of<'a>(name: &'a str, owner: &str) -> Option<&'a str> {
    let rest = name.strip_prefix(PARENT)?.strip_prefix('-')?;
    let rest = rest.strip_prefix(owner)?.strip_prefix('-')?;
    let (session, number) = rest.split_once('-')?;
    (!number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())).then_some(session)
}
