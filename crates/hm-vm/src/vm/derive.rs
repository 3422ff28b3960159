//! Deriving a key from what an action depends on.

use std::collections::BTreeMap;

use anyhow::Result;
use hm_vm_core::{Action, ImageSource, KeyBase, KeyComponents};

use super::HmVm;

impl HmVm {
    /// What a cache key for `action` derives from: [`KeyComponents::key`] makes the key. `None` when
    /// the backend cannot tell the digest of the image or of the injected directory.
    ///
    /// A snapshot stands in the key with the key that it is stored under; one that has none with
    /// its id, so that nothing is shared. Limits and the timeout are no part of it.
    ///
    /// # Errors
    ///
    /// [`Error::ImageNotFound`](hm_vm_core::Error::ImageNotFound),
    /// [`Error::InvalidInput`](hm_vm_core::Error::InvalidInput) when `inject` is not a directory, or a
    /// failure of the backend or the registry.
    pub async fn derive_key(&self, action: &Action) -> Result<Option<KeyComponents>> {
        let base = match &action.source {
            ImageSource::Image(image) => match self.backend.image_digest(image).await? {
                Some(digest) => KeyBase::ImageDigest(digest),
                None => return Ok(None),
            },
            ImageSource::Snapshot(snapshot) => match self.registry.key_of(snapshot)? {
                Some(key) => KeyBase::ParentKey(key),
                None => KeyBase::Snapshot(snapshot.to_string()),
            },
        };
        let inject = match &action.inject {
            None => None,
            Some(directory) => match self.backend.inject_digest(directory).await? {
                Some(digest) => Some(digest),
                None => return Ok(None),
            },
        };
        Ok(Some(KeyComponents {
            base,
            cmd: action.cmd.clone(),
            env: action.env.iter().cloned().collect(),
            working_dir: action.working_dir.clone(),
            inject,
            user: None,
            network: self.config.network,
            platform: format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
            extra: BTreeMap::from([("backend".to_owned(), self.backend.name().to_owned())]),
        }))
    }
}
