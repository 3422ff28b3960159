//! Writing a scanned tree as a layer.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use hm_vm_core::{Progress, ProgressUnit};
use rustix::fs::{FileType, Gid, Mode, Uid};
use rustix::io::Errno;

use super::copying::{Copying, Links};
use super::place::{Place, layer_path};
use super::removal::Removals;
use super::scan::thread_count;
use super::{DirectoryAttributes, EntryKind, GuestView, InjectError, Tree};
use crate::beneath::{DIRECTORY, Parents, as_path, join, open_beneath, open_root, timestamps};
use crate::content::Reflink;

/// An earlier inject layer whose files may be shared by hard links.
#[derive(Clone, Copy, Debug)]
pub struct LinkSource<'a> {
    /// What was written there.
    pub tree: &'a Tree,
    /// The layer's tree, on the same file system as the new one.
    pub layer: &'a Path,
    /// The guest directory that it was written for.
    pub guest_dir: &'a Path,
}

/// What to write where.
#[derive(Clone, Copy)]
pub struct LayerRequest<'a> {
    /// The directory that the tree was scanned from.
    pub host_dir: &'a Path,
    /// The new layer's tree: an existing, empty directory.
    pub dest: &'a Path,
    /// Absolute guest directory, without `.`, `..` and symbolic links (the caller resolves them).
    /// Missing components are made with mode 0755.
    pub guest_dir: &'a Path,
    /// The guest's files below the new layer. Tells attributes of directories that exist, and
    /// what of `replaces` is still there.
    pub guest: &'a dyn GuestView,
    /// What the last inject into the same guest directory of this VM's lineage brought: what of
    /// it is not in the new tree is removed by whiteouts.
    pub replaces: Option<&'a Tree>,
    /// An earlier layer, of any lineage, to link files from.
    pub link_from: Option<LinkSource<'a>>,
}

impl fmt::Debug for LayerRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayerRequest")
            .field("host_dir", &self.host_dir)
            .field("dest", &self.dest)
            .field("guest_dir", &self.guest_dir)
            .finish_non_exhaustive()
    }
}

/// What a layer was made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerReport {
    /// Files whose content was copied or cloned.
    pub files_copied: u64,
    /// Files that are hard links into the earlier layer.
    pub files_linked: u64,
    /// Bytes of the copied files.
    pub bytes_copied: u64,
    /// Directories of the tree.
    pub directories: u64,
    /// Symbolic links of the tree.
    pub symlinks: u64,
    /// Entries of the replaced tree that were removed.
    pub whiteouts: u64,
    /// Directories of the guest, by their paths below `dest`, that the calling user may not give
    /// their owners. [`set_owners`] does it, inside the user's namespace. Always empty for root.
    pub owners_missing: Vec<(PathBuf, DirectoryAttributes)>,
}

/// Digest of the layer that [`write_layer`] would make: of the tree, the place, the attributes of
/// the directories on the way, and what is removed. Two requests with one identity make the same
/// layer (but for modification times), so that the first one's can be used again. `host_dir`,
/// `dest` and `link_from` do not matter.
///
/// # Errors
///
/// As [`write_layer`], as far as the request itself and the guest are concerned.
pub fn layer_identity(tree: &Tree, request: &LayerRequest<'_>) -> Result<String, InjectError> {
    let place = Place::find(request.guest_dir, request.guest)?;
    let removals = request.removals(tree)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"hm-vm inject layer 1\n");
    hasher.update(tree.digest().as_bytes());
    let mut put = |path: &[u8]| {
        hasher.update(&(path.len() as u64).to_le_bytes());
        hasher.update(path);
    };
    for (path, attributes) in place.directories.iter().chain(&removals.kept) {
        put(path);
        put(&attributes.mode.to_le_bytes());
        put(&attributes.uid.to_le_bytes());
        put(&attributes.gid.to_le_bytes());
    }
    put(b"removed");
    removals.whiteouts.iter().for_each(|path| put(path));
    Ok(hasher.finalize().to_hex().to_string())
}

/// Writes `tree` as a layer below `dest`, by reading the host directory once more.
///
/// Owners are what the calling user's new files get; modification times those of the host's
/// files, but a linked file keeps the earlier layer's. What an earlier inject brought and the
/// tree no longer has is removed, as far as it is still what that inject brought; a directory
/// that is gone goes with it when the guest made nothing in it, and otherwise stays with what the
/// guest made.
///
/// # Errors
///
/// [`InjectError::ChangedWhileReading`] when a file is not what the scan saw;
/// [`InjectError::InvalidInput`] for a guest directory that cannot be one;
/// [`InjectError::NoSpace`]; or a failure to read or write. `dest` is left half-written then: the
/// caller removes it.
pub fn write_layer(tree: &Tree, request: &LayerRequest<'_>) -> Result<LayerReport, InjectError> {
    write_layer_watched(tree, request, &Progress::new())
}

/// As [`write_layer`]; counts files and links in `progress`.
pub(crate) fn write_layer_watched(
    tree: &Tree,
    request: &LayerRequest<'_>,
    progress: &Progress,
) -> Result<LayerReport, InjectError> {
    progress.begin(ProgressUnit::Files, Some(tree.file_count()));
    let place = Place::find(request.guest_dir, request.guest)?;
    let removals = request.removals(tree)?;
    let host = open_root(request.host_dir)?;
    let dest = open_root(request.dest)?;
    let links = request.link_from.map(OpenLinks::open).transpose()?;
    let writer = Writer {
        tree,
        dest: dest.as_fd(),
        place: &place,
        removals: &removals,
    };
    writer.make_directories()?;
    let copying = Copying {
        tree,
        host: host.as_fd(),
        host_dir: request.host_dir,
        dest: dest.as_fd(),
        place: &place.path,
        links: links.as_ref().map(|links| links.compared(tree)),
        reflink: Reflink::new(),
        progress,
    };
    let mut report = copying.run(thread_count())?;
    writer.make_whiteouts()?;
    report.owners_missing = writer.finish_directories()?;
    report.whiteouts = removals.whiteouts.len() as u64;
    report.directories = writer.directories().count() as u64;
    Ok(report)
}

/// Gives directories their owners. For [`LayerReport::owners_missing`], inside
/// `UserNamespace::run`, where ids are the guest's. A second call does the same again.
///
/// # Errors
///
/// [`InjectError::File`] for the first one that cannot be done.
pub fn set_owners(
    dest: &Path,
    owners: &[(PathBuf, DirectoryAttributes)],
) -> Result<(), InjectError> {
    let root = open_root(dest)?;
    for (path, attributes) in owners {
        let bytes = path.as_os_str().as_encoded_bytes();
        open_beneath(&root, bytes, DIRECTORY)
            .and_then(|directory| {
                change_owner(&directory, attributes)?;
                // The change of the owner takes the set-id bits away.
                rustix::fs::fchmod(&directory, Mode::from_raw_mode(attributes.mode))
            })
            .map_err(|errno| InjectError::file("changing the owner of", path, errno))?;
    }
    Ok(())
}

impl LayerRequest<'_> {
    fn removals(&self, tree: &Tree) -> Result<Removals, InjectError> {
        match self.replaces {
            Some(replaced) => Removals::plan(tree, replaced, self.guest, self.guest_dir),
            None => Ok(Removals::default()),
        }
    }
}

/// A [`LinkSource`] that is open.
struct OpenLinks<'a> {
    tree: &'a Tree,
    layer: OwnedFd,
    place: Vec<u8>,
}

impl<'a> OpenLinks<'a> {
    fn open(source: LinkSource<'a>) -> Result<Self, InjectError> {
        Ok(Self {
            tree: source.tree,
            layer: open_root(source.layer)?,
            place: layer_path(source.guest_dir)?,
        })
    }

    fn compared(&self, tree: &Tree) -> Links<'_> {
        Links {
            layer: self.layer.as_fd(),
            place: self.place.clone(),
            same: Links::compare(tree, self.tree),
        }
    }
}

/// Makes everything in a layer but its files.
struct Writer<'a> {
    tree: &'a Tree,
    dest: BorrowedFd<'a>,
    place: &'a Place,
    removals: &'a Removals,
}

impl Writer<'_> {
    /// Paths, modes and times of the tree's directories.
    fn directories(&self) -> impl DoubleEndedIterator<Item = (Vec<u8>, u32, i64)> {
        self.tree
            .entries()
            .filter(|entry| entry.kind == EntryKind::Directory)
            .map(|entry| {
                let path = join(&self.place.path, entry.path);
                (path, entry.mode, entry.mtime_ns)
            })
    }

    /// Directories that exist in the guest, or lie on the way.
    fn guest_directories(
        &self,
    ) -> impl DoubleEndedIterator<Item = (Vec<u8>, &DirectoryAttributes)> {
        let on_the_way = self.place.directories.iter();
        let kept = self.removals.kept.iter();
        on_the_way
            .map(|(path, attributes)| (path.clone(), attributes))
            .chain(kept.map(|(path, attributes)| (join(&self.place.path, path), attributes)))
    }

    /// Makes all directories, for the owner's use alone until they are full.
    fn make_directories(&self) -> Result<(), InjectError> {
        let mut parents = Parents::new(self.dest);
        let on_the_way = self.place.directories[1..].iter();
        let on_the_way = on_the_way.map(|(path, _)| path.clone());
        let of_tree = self.directories().map(|(path, ..)| path);
        let kept = self.removals.kept.iter();
        let kept = kept.map(|(path, _)| join(&self.place.path, path));
        for path in on_the_way.chain(of_tree).chain(kept) {
            parents
                .of(&path)
                .and_then(|(parent, name)| rustix::fs::mkdirat(parent, name, Mode::RWXU))
                .map_err(|errno| failure(&path, errno))?;
        }
        Ok(())
    }

    fn make_whiteouts(&self) -> Result<(), InjectError> {
        let mut parents = Parents::new(self.dest);
        for path in &self.removals.whiteouts {
            let path = join(&self.place.path, path);
            parents
                .of(&path)
                .and_then(|(parent, name)| {
                    let kind = FileType::CharacterDevice;
                    rustix::fs::mknodat(parent, name, kind, Mode::empty(), 0)
                })
                .map_err(|errno| failure(&path, errno))?;
        }
        Ok(())
    }

    /// Gives the directories their attributes, those within others first. Returns those that
    /// could not be given their owners.
    fn finish_directories(&self) -> Result<Vec<(PathBuf, DirectoryAttributes)>, InjectError> {
        for (path, mode, mtime_ns) in self.directories().rev() {
            open_beneath(self.dest, &path, DIRECTORY)
                .and_then(|directory| {
                    rustix::fs::fchmod(&directory, Mode::from_raw_mode(mode))?;
                    rustix::fs::futimens(&directory, &timestamps(mtime_ns))
                })
                .map_err(|errno| failure(&path, errno))?;
        }
        let mut owners_missing = Vec::new();
        for (path, attributes) in self.guest_directories().rev() {
            let finished = open_beneath(self.dest, &path, DIRECTORY).and_then(|directory| {
                let owner = change_owner(&directory, attributes);
                rustix::fs::fchmod(&directory, Mode::from_raw_mode(attributes.mode))?;
                owner
            });
            match finished {
                Err(Errno::PERM) => owners_missing.push((as_path(&path).to_owned(), *attributes)),
                result => result.map_err(|errno| failure(&path, errno))?,
            }
        }
        Ok(owners_missing)
    }
}

/// Gives a directory its owner. The guest's root is whom new files belong to anyway.
fn change_owner(directory: &OwnedFd, attributes: &DirectoryAttributes) -> Result<(), Errno> {
    let (uid, gid) = (attributes.uid, attributes.gid);
    if (uid, gid) == (0, 0) && !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::fs::fchown(directory, Some(uid), Some(gid))
}

fn failure(path: &[u8], errno: Errno) -> InjectError {
    InjectError::file("making the layer's", as_path(path), errno)
}
