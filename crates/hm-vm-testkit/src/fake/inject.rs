//! Reading of a host directory for the fake's `inject`.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use hm_vm_core::Error;
use ignore::WalkBuilder;

use super::tree::Node;

/// Everything below a host directory that ignore files let through, parents first, by relative
/// path. Names that are not UTF-8 are refused: the fake has none.
pub(super) fn read(host_path: &Path) -> Result<Vec<(String, Node)>> {
    if !host_path.is_dir() {
        return Err(Error::InvalidInput {
            what: host_path.display().to_string(),
            reason: "not a directory".into(),
        }
        .into());
    }
    let mut walk = WalkBuilder::new(host_path);
    walk.hidden(false)
        .parents(false)
        .git_global(false)
        .git_exclude(false)
        .require_git(false)
        .follow_links(false)
        .add_custom_ignore_filename(".hmvmignore")
        .sort_by_file_name(Ord::cmp);
    let mut found = Vec::new();
    for entry in walk.build() {
        let entry = entry.with_context(|| format!("walking {}", host_path.display()))?;
        let relative = entry.path().strip_prefix(host_path)?;
        let Some(name) = relative.to_str().filter(|name| !name.is_empty()) else {
            anyhow::ensure!(relative.as_os_str().is_empty(), "{relative:?} is not UTF-8");
            continue;
        };
        if let Some(node) = node(entry.path())? {
            found.push((name.to_owned(), node));
        }
    }
    Ok(found)
}

fn node(path: &Path) -> Result<Option<Node>> {
    let metadata = path
        .symlink_metadata()
        .with_context(|| format!("reading {}", path.display()))?;
    let mode = metadata.permissions().mode() & 0o7777;
    Ok(if metadata.is_dir() {
        Some(Node::Directory { mode })
    } else if metadata.is_symlink() {
        let target = std::fs::read_link(path)
            .with_context(|| format!("reading the link {}", path.display()))?;
        Some(Node::Link {
            target: target.to_string_lossy().into_owned(),
        })
    } else if metadata.is_file() {
        let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        Some(Node::File { bytes, mode })
    } else {
        None
    })
}

/// A digest of what [`read`] finds.
pub(super) fn digest(host_path: &Path) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    for (name, node) in read(host_path)? {
        name.hash(&mut hasher);
        format!("{node:?}").hash(&mut hasher);
    }
    Ok(format!("fake:{:016x}", hasher.finish()))
}
