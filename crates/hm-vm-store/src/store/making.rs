//! Layers that the store itself makes, as opposed to those that a VM wrote.

use std::fs;
use std::path::{Path, PathBuf};

use crate::db::stack::{self, LayerKind};
use crate::error::{Context, StoreError};
use crate::store::Core;
use crate::tree::remove::remove_tree;

/// A tree being made in `tmp`. Removed when dropped.
#[derive(Debug)]
pub(crate) struct NewTree<'a> {
    core: &'a Core,
    directory: PathBuf,
    tree: PathBuf,
}

/// A layer that is in place under a reserved number, but not visible yet. Removed when dropped,
/// unless it was published.
#[derive(Debug)]
pub(crate) struct PendingLayer<'a> {
    core: &'a Core,
    layer: i64,
    published: bool,
}

impl Core {
    /// An empty directory to make a layer's tree in.
    pub(crate) fn new_tree(&self) -> Result<NewTree<'_>, StoreError> {
        let directory = self.layout.new_tmp(self.session.id);
        let tree = directory.join("tree");
        fs::create_dir(&directory).context("creating", &directory)?;
        let made = NewTree {
            core: self,
            directory,
            tree,
        };
        fs::create_dir(&made.tree).context("creating", &made.tree)?;
        Ok(made)
    }

    /// Moves a finished tree to its place as a layer. It becomes visible when a transaction
    /// publishes its number.
    pub(crate) fn adopt(
        &self,
        tree: NewTree<'_>,
        kind: LayerKind,
    ) -> Result<PendingLayer<'_>, StoreError> {
        let layer = self.db.write("reserving a layer", |tx| {
            Ok(stack::reserve_layer(tx, self.session.id, kind, &self.boot)?)
        })?;
        let pending = PendingLayer {
            core: self,
            layer,
            published: false,
        };
        self.rename(&tree.directory, &self.layout.layer(layer))?;
        Ok(pending)
    }

    /// Removes a directory of the store now, as far as possible; the rest is left in `trash`.
    fn remove_now(&self, path: &Path) {
        let removed = self.discard(path).and_then(|trash| match trash {
            Some(trash) => {
                let never = std::sync::atomic::AtomicBool::new(false);
                self.files
                    .run(|| remove_tree(&trash, &never))?
                    .context("removing", &trash)
                    .map(|_| ())
            }
            None => Ok(()),
        });
        if let Err(error) = removed {
            tracing::warn!(error = &error as &dyn std::error::Error, "left in trash");
        }
    }
}

impl NewTree<'_> {
    /// The directory to fill.
    pub(crate) fn path(&self) -> &Path {
        &self.tree
    }
}

impl Drop for NewTree<'_> {
    fn drop(&mut self) {
        self.core.remove_now(&self.directory);
    }
}

impl PendingLayer<'_> {
    /// Its number.
    pub(crate) fn layer(&self) -> i64 {
        self.layer
    }

    /// To be called when a transaction has made it visible.
    pub(crate) fn published(mut self) {
        self.published = true;
    }
}

impl Drop for PendingLayer<'_> {
    fn drop(&mut self) {
        if self.published {
            return;
        }
        self.core.remove_now(&self.core.layout.layer(self.layer));
        let deleted = self.core.db.write("giving a layer's number back", |tx| {
            tx.prepare_cached("DELETE FROM layers WHERE id = ?1 AND state = 0")?
                .execute([self.layer])?;
            Ok(())
        });
        if let Err(error) = deleted {
            tracing::warn!(error = &error as &dyn std::error::Error, "a row is left");
        }
    }
}
