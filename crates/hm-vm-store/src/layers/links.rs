//! Hard links of a layer to files of the layers below.

use std::path::Path;

use crate::error::StoreError;
use crate::import::{LayerOptions, LowerLink, link_from_lower};
use crate::store::Core;

impl Core {
    /// Makes the hard links of a layer that lead into layers below: each file is copied up, as overlayfs does when
    /// one is written to, and linked. `lower` are the trees of the layers below, topmost first.
    ///
    /// # Errors
    ///
    /// [`StoreError::Import`] when there is nothing to link to.
    pub(crate) fn resolve_links(
        &self,
        layer: i64,
        links: &[LowerLink],
        lower: &[&Path],
    ) -> Result<(), StoreError> {
        if links.is_empty() {
            return Ok(());
        }
        let tree = self.layout.layer_tree(layer);
        let options = LayerOptions {
            devices: rustix::process::geteuid().is_root(),
            ..LayerOptions::default()
        };
        Ok(self
            .files
            .run(|| link_from_lower(&tree, links, lower, &options))??)
    }
}
