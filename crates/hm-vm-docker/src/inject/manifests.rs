//! The trees that were brought to VMs, as files named by their digests.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use hm_vm_store::inject::Tree;

use super::record::is_digest;
use crate::objects::nonce;

const DIRECTORY: &str = "injects";

/// How long a tree that no snapshot names is kept: its VM may not have been kept yet.
const GRACE: Duration = Duration::from_secs(24 * 60 * 60);

fn path(state: &Path, digest: &str) -> PathBuf {
    state.join(DIRECTORY).join(digest)
}

/// Keeps a tree. One that is kept already counts as new again.
pub(super) fn keep(state: &Path, tree: &Tree) -> Result<()> {
    let path = path(state, tree.digest());
    if touch(&path).is_ok() {
        return Ok(());
    }
    write(&path, &tree.encode()).with_context(|| format!("writing {}", path.display()))
}

fn touch(path: &Path) -> io::Result<()> {
    fs::File::options()
        .append(true)
        .open(path)?
        .set_modified(SystemTime::now())
}

/// Others see all of it or nothing.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(path);
    fs::create_dir_all(directory)?;
    let temporary = directory.join(format!("new-{}", nonce()));
    let mut file = fs::File::create_new(&temporary)?;
    let written = file
        .write_all(bytes)
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// A tree that was kept. `None`, and a warning, when it is not here: the snapshot is another machine's.
pub(super) fn find(state: &Path, digest: &str) -> Option<Tree> {
    let path = path(state, digest);
    let found = fs::read(&path)
        .map_err(anyhow::Error::from)
        .and_then(|bytes| Ok(Tree::decode(&bytes)?))
        .and_then(|tree| {
            anyhow::ensure!(tree.digest() == digest, "it is another tree");
            Ok(tree)
        });
    match found {
        Ok(tree) => Some(tree),
        Err(error) => {
            tracing::warn!(
                tree = digest,
                error = %format!("{error:#}"),
                "it is not known what an earlier inject brought: what is gone from the host's directory stays in the VM"
            );
            None
        }
    }
}

/// Removes trees that no snapshot names and that are a day old. Returns how many, and their bytes.
pub(crate) fn collect(state: &Path, is_named: &dyn Fn(&str) -> bool) -> Result<(u64, u64)> {
    let directory = state.join(DIRECTORY);
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((0, 0)),
        entries => entries.with_context(|| format!("reading {}", directory.display()))?,
    };
    let mut removed = (0, 0);
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let ours = is_digest(&name) || name.starts_with("new-");
        let Ok(found) = entry.metadata() else {
            continue;
        };
        let age = found.modified().ok().and_then(|time| time.elapsed().ok());
        let is_old = age.is_some_and(|age| age > GRACE);
        if ours && is_old && !is_named(&name) && fs::remove_file(entry.path()).is_ok() {
            removed = (removed.0 + 1, removed.1 + found.len());
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use hm_vm_store::inject::{StatCache, scan};

    use super::*;

    fn tree(text: &str) -> Tree {
        let source = tempfile::tempdir().unwrap();
        fs::write(source.path().join("file"), text).unwrap();
        scan(source.path(), &StatCache::disabled()).unwrap()
    }

    #[test]
    fn a_tree_is_found_again() {
        let state = tempfile::tempdir().unwrap();
        let tree = tree("1");
        assert!(find(state.path(), tree.digest()).is_none());
        keep(state.path(), &tree).unwrap();
        keep(state.path(), &tree).unwrap();
        assert_eq!(find(state.path(), tree.digest()), Some(tree.clone()));
        let path = path(state.path(), tree.digest());
        fs::write(&path, b"HMVMTREE").unwrap();
        assert!(find(state.path(), tree.digest()).is_none());
    }

    #[test]
    fn what_nobody_names_is_collected_after_a_day() {
        let state = tempfile::tempdir().unwrap();
        let (named, old, new) = (tree("1"), tree("2"), tree("3"));
        for tree in [&named, &old, &new] {
            keep(state.path(), tree).unwrap();
        }
        for tree in [&named, &old] {
            let file = fs::File::options()
                .append(true)
                .open(path(state.path(), tree.digest()));
            let time = SystemTime::now() - 2 * GRACE;
            file.unwrap().set_modified(time).unwrap();
        }
        let removed = collect(state.path(), &|digest| digest == named.digest()).unwrap();
        assert_eq!(removed.0, 1);
        assert!(find(state.path(), old.digest()).is_none());
        assert!(find(state.path(), named.digest()).is_some());
        assert!(find(state.path(), new.digest()).is_some());
    }
}
