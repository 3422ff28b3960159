//! Reading a snapshot or an image.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use hm_vm_core::SnapshotId;
use rusqlite::{OptionalExtension, params};

use crate::background::Job;
use crate::db::stack::{self, Stack};
use crate::error::{Context, StoreError};
use crate::store::{Core, Store};
use crate::view::entries::{DirEntry, Metadata, WalkEntry};
use crate::view::merged::{Merged, Node};
use crate::view::resolve::{Resolved, resolve};

const BUFFER: usize = 128 << 10;

/// The files of a snapshot or an image, for reading. They stay as long as the view does, whatever
/// is removed. Paths are the guest's; symbolic links are followed inside the tree only.
#[derive(Debug)]
pub struct View {
    store: Store,
    lease: i64,
    stack: i64,
    pub(crate) tree: Merged,
}

impl Store {
    /// The files of a snapshot.
    ///
    /// # Errors
    ///
    /// [`StoreError::SnapshotNotFound`], or a failure of the system.
    pub fn view(&self, snapshot: &SnapshotId) -> Result<View, StoreError> {
        let sql = "SELECT stack FROM snapshots WHERE name = ?1";
        let missing = || StoreError::SnapshotNotFound {
            snapshot: snapshot.clone(),
        };
        View::open(self, sql, snapshot.as_ref())?.ok_or_else(missing)
    }

    /// The files of an image.
    ///
    /// # Errors
    ///
    /// [`StoreError::ImageNotFound`], or a failure of the system.
    pub fn image_view(&self, name: &str) -> Result<View, StoreError> {
        self.prepare_image(name)?;
        let sql = "SELECT stack FROM images WHERE name = ?1";
        let missing = || StoreError::ImageNotFound {
            image: name.to_owned(),
        };
        View::open(self, sql, name)?.ok_or_else(missing)
    }
}

impl View {
    fn open(store: &Store, find: &str, name: &str) -> Result<Option<Self>, StoreError> {
        let core = store.core();
        let leased = core.db.write("leasing layers", |tx| {
            let found: Option<i64> = tx
                .prepare_cached(find)?
                .query_row([name], |row| row.get(0))
                .optional()?;
            let Some(id) = found else { return Ok(None) };
            tx.prepare_cached("INSERT INTO leases (session, stack) VALUES (?1, ?2)")?
                .execute(params![core.session.id, id])?;
            let lease = tx.last_insert_rowid();
            Ok(stack::load(tx, id)?.map(|stack| (stack, lease)))
        })?;
        let Some((stack, lease)) = leased else {
            return Ok(None);
        };
        // Made at once, so that a failure to open gives the lease back.
        let mut view = Self {
            store: store.clone(),
            lease,
            stack: stack.id,
            tree: Merged::open([]).context("opening", store.root())?,
        };
        view.tree = open_stack(core, &stack)?;
        Ok(Some(view))
    }

    /// Attributes of what is at `path`, symbolic links followed.
    ///
    /// # Errors
    ///
    /// [`StoreError::InvalidInput`] when there is nothing, or a failure to read.
    pub fn metadata(&self, path: &Path) -> Result<Metadata, StoreError> {
        self.attributes(path, true)
    }

    /// As [`metadata`](Self::metadata), of a symbolic link itself.
    ///
    /// # Errors
    ///
    /// As `metadata`.
    pub fn symlink_metadata(&self, path: &Path) -> Result<Metadata, StoreError> {
        self.attributes(path, false)
    }

    fn attributes(&self, path: &Path, follow: bool) -> Result<Metadata, StoreError> {
        self.at(path, follow, |tree, node| {
            Ok(Metadata::of(&tree.stat(&node)?))
        })
    }

    /// Entries of the directory at `path`, sorted by name.
    ///
    /// # Errors
    ///
    /// [`StoreError::InvalidInput`] when there is no directory, or a failure to read.
    pub fn read_dir(&self, path: &Path) -> Result<Vec<DirEntry>, StoreError> {
        self.at(path, true, |tree, node| {
            let Node::Directory(directory) = node else {
                return Err(io::ErrorKind::NotADirectory.into());
            };
            let mut found = Vec::new();
            for (name, node) in tree.open_directory(&directory)?.entries()? {
                found.push(DirEntry {
                    name: OsString::from_vec(name.into_bytes()),
                    metadata: Metadata::of(&tree.stat(&node)?),
                });
            }
            Ok(found)
        })
    }

    /// Target of the symbolic link at `path`.
    ///
    /// # Errors
    ///
    /// [`StoreError::InvalidInput`] when there is no symbolic link, or a failure to read.
    pub fn read_link(&self, path: &Path) -> Result<PathBuf, StoreError> {
        self.at(path, false, |tree, node| match node {
            Node::Leaf(leaf) => Ok(OsString::from_vec(tree.read_link(&leaf)?).into()),
            Node::Directory(_) => Err(io::ErrorKind::InvalidInput.into()),
        })
    }

    /// Writes the content of the regular file at `path`. Returns its length in bytes.
    ///
    /// # Errors
    ///
    /// [`StoreError::InvalidInput`] when there is no regular file, or a failure to read or write.
    pub fn copy_file_to(&self, path: &Path, to: &mut dyn Write) -> Result<u64, StoreError> {
        let file = self.at(path, true, |tree, node| match node {
            Node::Leaf(leaf) => tree.open_file(&leaf),
            Node::Directory(_) => Err(io::ErrorKind::IsADirectory.into()),
        })?;
        let (mut file, mut buffer) = (File::from(file), vec![0; BUFFER]);
        let mut length = 0;
        loop {
            let read = file.read(&mut buffer).context("reading", path)?;
            if read == 0 {
                return Ok(length);
            }
            to.write_all(&buffer[..read])
                .context("writing the content of", path)?;
            length += read as u64;
        }
    }

    /// All entries of the tree below the root, parents first, sorted by name in each directory.
    ///
    /// # Errors
    ///
    /// A failure to read.
    pub fn walk(&self) -> Result<Vec<WalkEntry>, StoreError> {
        let work = || -> io::Result<Vec<WalkEntry>> {
            let mut found = Vec::new();
            let mut todo = vec![self.tree.root()];
            while let Some(directory) = todo.pop() {
                let mut below = Vec::new();
                for (name, node) in self.tree.open_directory(&directory)?.entries()? {
                    let metadata = Metadata::of(&self.tree.stat(&node)?);
                    found.push(WalkEntry {
                        path: absolute(&directory.path, name.to_bytes()),
                        metadata,
                    });
                    if let Node::Directory(directory) = node {
                        below.push(directory);
                    }
                }
                todo.extend(below.into_iter().rev());
            }
            Ok(found)
        };
        self.store
            .core()
            .files
            .run(work)?
            .context("walking", Path::new("/"))
    }

    /// Resolves a path and works on what is there.
    fn at<T: Send>(
        &self,
        path: &Path,
        follow: bool,
        work: impl FnOnce(&Merged, Node) -> io::Result<T> + Send,
    ) -> Result<T, StoreError> {
        let found = self.store.core().files.run(|| {
            let Resolved { node, .. } = resolve(&self.tree, path.as_os_str().as_bytes(), follow)?;
            work(&self.tree, node.ok_or(io::ErrorKind::NotFound)?)
        })?;
        found.map_err(|source| guest_error(path, source))
    }
}

impl Drop for View {
    fn drop(&mut self) {
        release_lease(&self.store, self.lease, self.stack);
    }
}

/// Ends the holding of a stack.
pub(crate) fn release_lease(store: &Store, lease: i64, stack: i64) {
    let core = store.core();
    let released = core.db.write("giving layers back", |tx| {
        tx.prepare_cached("DELETE FROM leases WHERE id = ?1")?
            .execute([lease])?;
        Ok(stack::release(tx, stack, core.session.id)?)
    });
    match released {
        Ok(true) => store.add_job(Job::Doomed),
        Ok(false) => {}
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "a lease is left");
        }
    }
}

/// Opens the layers of a stack that somebody holds.
pub(crate) fn open_stack(core: &Core, stack: &Stack) -> Result<Merged, StoreError> {
    let paths = layer_paths(core, stack);
    let open = || Merged::open(paths.iter().map(|(id, path)| (*id, path.as_path())));
    match open() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => core.files.run(open)?,
        other => other,
    }
    .context("opening a layer in", core.layout.layers())
}

/// The layers of a stack with their numbers, topmost first.
pub(crate) fn layer_paths(core: &Core, stack: &Stack) -> Vec<(i64, PathBuf)> {
    stack
        .layers
        .iter()
        .rev()
        .map(|&layer| (layer, core.layout.layer_tree(layer)))
        .chain(stack.host.then(|| (0, PathBuf::from("/"))))
        .collect()
}

/// What the caller can do something about becomes invalid input.
pub(crate) fn guest_error(path: &Path, error: io::Error) -> StoreError {
    let reason = match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory",
        io::ErrorKind::NotADirectory => "not a directory",
        io::ErrorKind::IsADirectory => "it is a directory",
        io::ErrorKind::InvalidInput => "it is not of the type that is needed here",
        _ if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            "too many symbolic links"
        }
        _ => {
            return StoreError::Io {
                doing: "reading",
                path: path.to_owned(),
                source: error,
            };
        }
    };
    StoreError::invalid(path.display().to_string(), reason)
}

/// `/directory/name`.
pub(crate) fn absolute(directory: &[u8], name: &[u8]) -> PathBuf {
    let mut path = vec![b'/'];
    path.extend_from_slice(directory);
    if !directory.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    OsString::from_vec(path).into()
}
