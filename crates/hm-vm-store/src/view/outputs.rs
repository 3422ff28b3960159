//! Bringing the results of a command to the host.

use std::ffi::CString;
use std::fs;
use std::io;
use std::path::Path;

use hm_vm_core::{OutputReport, OutputRequest, SnapshotId};

use crate::beneath::split;
use crate::error::{Context, StoreError};
use crate::store::Store;
use crate::view::View;
use crate::view::copier::{Copied, Copier, Manner};
use crate::view::merged::Node;
use crate::view::patterns::{Match, Pattern};
use crate::view::reader::guest_error;
use crate::view::resolve::resolve;

impl Store {
    /// Copies what patterns name in a snapshot to a host directory; see [`OutputRequest`]. What is there
    /// already with the same content and mode is left alone. Symbolic links are copied as links; one
    /// that stands in the place of a file is replaced, never followed. Set-id and sticky bits are
    /// dropped, and everything belongs to the caller.
    ///
    /// # Errors
    ///
    /// [`StoreError::SnapshotNotFound`]; [`StoreError::InvalidInput`] for a pattern that makes no sense, a
    /// destination where something else stands in the way, or two files that would be written to one
    /// place; or a failure to read or write. What was copied before stays.
    pub fn copy_outputs(
        &self,
        snapshot: &SnapshotId,
        request: &OutputRequest,
    ) -> Result<OutputReport, StoreError> {
        let patterns = check(request)?;
        let view = self.view(snapshot)?;
        let to = std::path::absolute(&request.to).context("finding", &request.to)?;
        make_destination(&to)?;
        self.core()
            .files
            .run(|| copy(&view, request, &patterns, &to))?
    }
}

/// The patterns of a request that makes sense.
pub(super) fn check(request: &OutputRequest) -> Result<Vec<Pattern>, StoreError> {
    let patterns = request
        .patterns
        .iter()
        .map(|pattern| Pattern::new(pattern))
        .collect::<Result<_, _>>()?;
    if !request.base.starts_with('/') || request.base.contains('\0') {
        return Err(StoreError::invalid(
            format!("guest directory {:?}", request.base),
            "it is not an absolute path",
        ));
    }
    Ok(patterns)
}

pub(super) fn make_destination(to: &Path) -> Result<(), StoreError> {
    match fs::create_dir_all(to) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory
            ) =>
        {
            Err(StoreError::invalid(
                to.display().to_string(),
                "it, or a part of it, is not a directory",
            ))
        }
        other => other.context("creating", to),
    }
}

fn copy(
    view: &View,
    request: &OutputRequest,
    patterns: &[Pattern],
    to: &Path,
) -> Result<OutputReport, StoreError> {
    let read_error = |error| guest_error(Path::new(&request.base), error);
    let base = resolve(&view.tree, request.base.as_bytes(), true).map_err(read_error)?;
    let manner = Manner {
        special_bits: false,
        leave_equal: true,
    };
    let mut copier = Copier::new(&view.tree, to, manner)?;
    let mut unmatched = Vec::new();
    for (pattern, text) in patterns.iter().zip(&request.patterns) {
        let found = pattern.find(&view.tree, &base.path).map_err(read_error)?;
        if found.is_empty() {
            unmatched.push(text.clone());
        }
        for found in found {
            place(&mut copier, pattern, found)?;
        }
    }
    Ok(report(copier.finish()?, unmatched))
}

pub(super) fn report(copied: Copied, unmatched: Vec<String>) -> OutputReport {
    let Copied {
        mut report,
        unchanged,
    } = copied;
    report.skipped.sort();
    OutputReport {
        files: report.files + report.symlinks,
        unchanged,
        bytes: report.bytes,
        unmatched,
        skipped: report.skipped,
    }
}

/// Copies what was found: to its path, or, for an absolute pattern, to its last component.
pub(super) fn place(
    copier: &mut Copier<'_>,
    pattern: &Pattern,
    found: Match,
) -> Result<(), StoreError> {
    let target = if pattern.is_absolute {
        split(&found.path).1.to_vec()
    } else {
        found.path
    };
    let (above, name) = split(&target);
    copier.make_way(above)?;
    match found.node {
        Node::Directory(directory) => copier.tree_at(directory, target),
        Node::Leaf(leaf) => {
            let name = CString::new(name).unwrap_or_default();
            copier.leaf(&leaf, above, &name)
        }
    }
}
