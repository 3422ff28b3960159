//! What an earlier inject brought and the new tree no longer has.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{DirectoryAttributes, EntryKind, GuestEntry, GuestView, InjectError, Tree};
use crate::beneath::{as_path, join, split};

/// What must be removed from the guest.
#[derive(Debug, Default)]
pub(super) struct Removals {
    /// Paths that get a whiteout.
    pub(super) whiteouts: Vec<Vec<u8>>,
    /// Directories that stay for what the guest made in them, parents first.
    pub(super) kept: Vec<(Vec<u8>, DirectoryAttributes)>,
}

impl Removals {
    /// Compares the trees, and looks at what of the difference is still in the guest.
    pub(super) fn plan(
        tree: &Tree,
        replaced: &Tree,
        guest: &dyn GuestView,
        guest_dir: &Path,
    ) -> Result<Self, InjectError> {
        let planner = Planner {
            tree,
            replaced,
            guest,
            guest_dir,
        };
        let mut removals = Self::default();
        let mut new = tree.entries().peekable();
        for old in replaced.entries() {
            while new.next_if(|entry| entry.path < old.path).is_some() {}
            let stays = new.peek().is_some_and(|entry| entry.path == old.path);
            if !stays && planner.parent_stays(old.path) {
                let start = removals.whiteouts.len();
                if planner.remove(old.path, &mut removals)? == Outcome::Removable {
                    removals.whiteouts.truncate(start);
                    removals.whiteouts.push(old.path.to_owned());
                }
            }
        }
        Ok(removals)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Can go as a whole: nothing of the guest is in it.
    Removable,
    /// The guest made it, or something in it. What can go of it is planned.
    Stays,
    /// It is gone already.
    Absent,
}

struct Planner<'a> {
    tree: &'a Tree,
    replaced: &'a Tree,
    guest: &'a dyn GuestView,
    guest_dir: &'a Path,
}

impl Planner<'_> {
    /// Whether the new layer has the directory that `path` lay in. Where it has a file instead,
    /// all below is hidden; where it has nothing, the directory's own removal sees to it.
    fn parent_stays(&self, path: &[u8]) -> bool {
        let (parent, _) = split(path);
        parent.is_empty()
            || self
                .tree
                .find(parent)
                .is_some_and(|entry| entry.kind == EntryKind::Directory)
    }

    fn guest_path(&self, path: &[u8]) -> PathBuf {
        self.guest_dir.join(as_path(path))
    }

    fn failure(&self, path: &[u8], error: io::Error) -> InjectError {
        InjectError::file("looking at the guest's", &self.guest_path(path), error)
    }

    /// Plans the removal of an entry of the replaced tree. When it can go as a whole, the caller
    /// replaces by one whiteout what was planned for its content.
    fn remove(&self, path: &[u8], removals: &mut Removals) -> Result<Outcome, InjectError> {
        let Some(old) = self.replaced.find(path) else {
            return Ok(Outcome::Stays);
        };
        let now = self
            .guest
            .entry(&self.guest_path(path))
            .map_err(|error| self.failure(path, error))?;
        match (now, old.kind) {
            (None, _) => Ok(Outcome::Absent),
            (Some(GuestEntry::Directory(attributes)), EntryKind::Directory) => {
                self.remove_directory(path, attributes, removals)
            }
            (Some(GuestEntry::Other), EntryKind::File { .. })
            | (Some(GuestEntry::Symlink), EntryKind::Symlink { .. }) => Ok(Outcome::Removable),
            // The guest has put something of its own there.
            _ => Ok(Outcome::Stays),
        }
    }

    fn remove_directory(
        &self,
        path: &[u8],
        attributes: DirectoryAttributes,
        removals: &mut Removals,
    ) -> Result<Outcome, InjectError> {
        let names = self
            .guest
            .names(&self.guest_path(path))
            .map_err(|error| self.failure(path, error))?;
        let kept_at = removals.kept.len();
        removals.kept.push((path.to_owned(), attributes));
        let mut foreign = false;
        for name in names {
            let child = join(path, name.as_bytes());
            let start = removals.whiteouts.len();
            match self.remove(&child, removals)? {
                Outcome::Removable => {
                    removals.whiteouts.truncate(start);
                    removals.whiteouts.push(child);
                }
                Outcome::Stays => foreign = true,
                Outcome::Absent => {}
            }
        }
        if foreign {
            return Ok(Outcome::Stays);
        }
        removals.kept.truncate(kept_at);
        Ok(Outcome::Removable)
    }
}
