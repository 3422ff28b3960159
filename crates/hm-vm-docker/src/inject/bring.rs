//! One inject.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use hm_vm_core::{InjectSource, Progress, ProgressUnit};
use hm_vm_store::inject::Tree;

use super::manifests;
use super::place::Place;
use super::record::Injects;
use super::scan::scan;
use super::upload::Upload;
use crate::backend::Machine;

/// Removes files in a VM that is at rest. A container is started for that where it has to be.
#[async_trait]
pub(crate) trait RemovePaths: Send {
    /// Removes files, and directories that are empty by then, in this order. `paths` are relative to the directory `base`; no
    /// symbolic link is followed below it, and what is not there is no error.
    async fn remove_paths(&mut self, base: &str, paths: Vec<Vec<u8>>) -> Result<()>;
}

/// What to bring where.
pub(crate) struct Inject<'a> {
    pub(crate) machine: &'a Machine,
    /// Id of the VM's container, in which nothing runs.
    pub(crate) container: &'a str,
    /// The directory that the image names for commands.
    pub(crate) working_dir: Option<&'a str>,
    pub(crate) source: &'a InjectSource,
    /// An absolute directory. Empty for the one that the image names, or `/` where it names none.
    pub(crate) guest_path: &'a str,
    /// Where files and links are counted.
    pub(crate) progress: &'a Progress,
}

impl Inject<'_> {
    /// Brings it. Returns the digest of what was brought. When the future of this is dropped, or it fails, a part may have been
    /// brought: `injects` says so, and the next inject to that place repairs it.
    pub(crate) async fn bring(
        &self,
        injects: &mut Injects,
        remover: &mut dyn RemovePaths,
    ) -> Result<String> {
        self.progress.begin(ProgressUnit::Files, None);
        let place = self.place().await?;
        let path = place.path();
        let tree = Arc::new(scan(self.machine, self.source).await?);
        for notice in tree.notices() {
            tracing::info!(directory = %self.source.directory.display(), "{notice}");
        }
        let digest = tree.digest().to_owned();
        if injects.is_there(&path, &digest) {
            self.progress.begin(ProgressUnit::Files, Some(0));
            return Ok(digest);
        }
        let gone = self.keep_and_compare(&tree, injects.at(&path)).await?;
        injects.begins(&path, &digest);
        if !gone.is_empty() && place.missing.is_empty() {
            remover
                .remove_paths(&path, gone)
                .await
                .context("removing what an earlier inject brought")?;
        }
        self.progress
            .begin(ProgressUnit::Files, Some(tree.file_count()));
        if !tree.is_empty() || !place.missing.is_empty() {
            let upload = Upload {
                container: self.container.to_owned(),
                directory: place.existing,
                prefix: place.missing,
                tree,
                source: self.source.directory.clone(),
                progress: self.progress.clone(),
            };
            upload.send(self.machine).await?;
        }
        injects.is_done(&path, &digest);
        Ok(digest)
    }

    async fn place(&self) -> Result<Place> {
        let guest = match (self.guest_path, self.working_dir) {
            ("", Some(named)) => named.to_owned(),
            ("", None) => "/".to_owned(),
            (asked, _) => asked.to_owned(),
        };
        let docker = self.machine.engine.docker().clone();
        let container = self.container.to_owned();
        let found = self
            .machine
            .engine
            .run(async move { Place::find(&docker, &container, &guest).await });
        found.await
    }

    /// Keeps the tree, and tells what earlier ones have and it has not.
    async fn keep_and_compare(&self, tree: &Arc<Tree>, earlier: &[String]) -> Result<Vec<Vec<u8>>> {
        let (tree, earlier) = (Arc::clone(tree), earlier.to_vec());
        let state = self.machine.session.directory().to_owned();
        let compared = self.machine.engine.run(async move {
            tokio::task::spawn_blocking(move || {
                manifests::keep(&state, &tree)?;
                Ok(gone(&state, &tree, &earlier))
            })
            .await
            .context("reading an earlier inject")?
        });
        compared.await
    }
}

/// Paths of earlier trees that the new one does not have; what is in a directory comes before it.
fn gone(state: &Path, tree: &Tree, earlier: &[String]) -> Vec<Vec<u8>> {
    let mut gone = Vec::new();
    for digest in earlier.iter().filter(|digest| *digest != tree.digest()) {
        let Some(old) = manifests::find(state, digest) else {
            continue;
        };
        let mut new = tree.entries().peekable();
        for entry in old.entries() {
            while new.next_if(|new| new.path < entry.path).is_some() {}
            if new.peek().is_none_or(|new| new.path != entry.path) {
                gone.push(entry.path.to_vec());
            }
        }
    }
    gone.sort_unstable_by(|a, b| b.cmp(a));
    gone.dedup();
    gone
}
