//! Images of very many layers.
//!
//! overlayfs gets slower with every layer, and the kernel takes one page of mount options: images that Docker can
//! hold just so have 127 layers. The lowest [`KEPT`] layers of a long image stay as they are: these are what images
//! have in common. Those above are merged, several neighbours into one, so that no more than [`MOST`] are left. The
//! merged ones are not found by their diff ids any more, once nobody else uses them: the next image with one
//! of them fetches it again.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use hm_vm_core::Cancellation;

use super::layers::Brought;
use crate::db::stack::LayerKind;
use crate::error::{Context, StoreError};
use crate::store::{Core, PendingLayer};
use crate::tree::merge::merge;

/// Most layers that an image has here.
const MOST: usize = 40;

/// As many of a long image, from the bottom, are not merged.
const KEPT: usize = 20;

/// A layer of the image as it will be.
pub(super) enum Final<'a> {
    /// One that is visible.
    Shared(i64),
    /// One that this image alone has.
    Own(PendingLayer<'a>),
}

impl Final<'_> {
    pub(super) fn layer(&self) -> i64 {
        match self {
            Self::Shared(layer) => *layer,
            Self::Own(pending) => pending.layer(),
        }
    }
}

/// Makes the links into lower layers, from the bottom up, and merges what is too much.
pub(super) fn finish<'a>(
    core: &'a Core,
    layers: Vec<Brought<'a>>,
    cancel: &Cancellation,
) -> Result<Vec<Final<'a>>, StoreError> {
    let trees: Vec<PathBuf> = layers
        .iter()
        .map(|layer| core.layout.layer_tree(layer.layer()))
        .collect();
    let mut linked = Vec::new();
    for (place, layer) in layers.into_iter().enumerate() {
        linked.push(match layer {
            Brought::Shared(layer) => Final::Shared(layer),
            Brought::Unlinked(pending, links) => {
                let lower: Vec<&Path> = trees[..place].iter().rev().map(PathBuf::as_path).collect();
                core.resolve_links(pending.layer(), &links, &lower)?;
                Final::Own(pending)
            }
        });
    }
    if linked.is_empty() {
        // Every VM has a layer below it, which its root directory's attributes come from.
        linked.push(Final::Own(empty(core)?));
    }
    shorten(core, linked, cancel)
}

fn empty(core: &Core) -> Result<PendingLayer<'_>, StoreError> {
    let tree = core.new_tree()?;
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(tree.path(), mode).context("setting the mode of", tree.path())?;
    core.adopt(tree, LayerKind::Image)
}

fn shorten<'a>(
    core: &'a Core,
    layers: Vec<Final<'a>>,
    cancel: &Cancellation,
) -> Result<Vec<Final<'a>>, StoreError> {
    let mut layers = layers.into_iter();
    let mut short = Vec::new();
    for run in runs(layers.len()) {
        cancel.check().map_err(StoreError::Cancelled)?;
        let mut run: Vec<Final<'a>> = layers.by_ref().take(run).collect();
        match run.len() {
            1 => short.append(&mut run),
            _ => short.push(Final::Own(merged(core, &run)?)),
        }
    }
    Ok(short)
}

/// How many neighbours each become one, bottom first.
fn runs(count: usize) -> Vec<usize> {
    if count <= MOST {
        return vec![1; count];
    }
    let (above, room) = (count - KEPT, MOST - KEPT);
    let mut runs = vec![1; KEPT];
    runs.extend((0..room).map(|run| above * (run + 1) / room - above * run / room));
    runs
}

fn merged<'a>(core: &'a Core, layers: &[Final<'a>]) -> Result<PendingLayer<'a>, StoreError> {
    let tree = core.new_tree()?;
    let paths: Vec<PathBuf> = layers
        .iter()
        .rev()
        .map(|layer| core.layout.layer_tree(layer.layer()))
        .collect();
    let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
    let never = AtomicBool::new(false);
    core.files
        .run(|| merge(&paths, tree.path(), &never))?
        .context("merging layers into", tree.path())?;
    core.adopt(tree, LayerKind::Image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_images_become_short_and_keep_every_layer() {
        for count in 0..600 {
            let runs = runs(count);
            assert!(runs.len() <= MOST);
            assert_eq!(runs.iter().sum::<usize>(), count);
            assert!(runs.iter().all(|run| *run > 0));
            assert!(runs.iter().take(KEPT).all(|run| *run == 1));
        }
    }
}
