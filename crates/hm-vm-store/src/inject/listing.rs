//! A tree as others compare it.

use hm_vm_core::InjectEntry;

use super::{Entry, EntryKind, Tree};

/// The files and links of a tree, sorted by path.
pub fn listed(tree: &Tree) -> Vec<InjectEntry> {
    let mut found: Vec<InjectEntry> = tree.entries().filter_map(|e| inject_entry(&e)).collect();
    // Paths that are not UTF-8 may have come out of order.
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// `None` for a directory.
fn inject_entry(entry: &Entry<'_>) -> Option<InjectEntry> {
    let (kind, hash) = match entry.kind {
        EntryKind::Directory => return None,
        EntryKind::File { hash, .. } => ('f', blake3::Hash::from_bytes(hash)),
        EntryKind::Symlink { target } => ('l', blake3::hash(target)),
    };
    Some(InjectEntry {
        path: String::from_utf8_lossy(entry.path).into_owned(),
        digest: format!("{kind}{:o}:{}", entry.mode, hash.to_hex()),
    })
}
