//! Lists of what was injected, after the snapshots that needed them are gone.

use std::collections::HashSet;

use anyhow::Result;

use super::manifests;
use super::record::Injects;
use crate::backend::DockerBackend;
use crate::objects::OWNER;

impl DockerBackend {
    /// Removes lists of what was injected that no snapshot needs any more and that are a day old. Blocks. Returns how many, and their
    /// bytes on this machine's disk.
    ///
    /// # Errors
    ///
    /// A failure of the daemon, or to read the state directory.
    pub fn collect_inject_lists(&self) -> Result<(u64, u64)> {
        let docker = self.machine.engine.docker().clone();
        let owner = &self.machine.session.identity().owner;
        let filters = [("label".to_owned(), vec![format!("{OWNER}={owner}")])];
        let filters = filters.into_iter().collect();
        let listed = async move { crate::lists::images_with(&docker, &filters).await };
        let images = self.machine.engine.run_blocking(listed)?;
        let named: HashSet<String> = images
            .iter()
            .map(|image| Injects::from_labels(&image.labels))
            .flat_map(|injects| injects.trees().map(str::to_owned).collect::<Vec<_>>())
            .collect();
        manifests::collect(self.state_directory(), &|tree| named.contains(tree))
    }
}
