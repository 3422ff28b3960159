//! What callers may know of an image.

use anyhow::Result;

use crate::backend::DockerBackend;
use crate::image;

impl DockerBackend {
    /// The directory that an image names for its commands. `None` where it names none, or the daemon does not have it.
    ///
    /// # Errors
    ///
    /// A failure of the daemon.
    pub async fn image_working_dir(&self, image: &str) -> Result<Option<String>> {
        let (engine, name) = (self.machine.engine.clone(), image.to_owned());
        let found = self
            .machine
            .engine
            .run(async move { image::inspect(&engine, &name).await });
        Ok(found.await?.and_then(|image| image.defaults.working_dir))
    }
}
