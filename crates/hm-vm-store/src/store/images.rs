//! Images: where lineages begin.

use std::fs;
use std::path::Path;

use hm_vm_core::{Progress, SnapshotId};
use hm_vm_oci::ImageConfig;
use rusqlite::OptionalExtension;

use crate::background::Job;
use crate::db::stack::{self, LayerKind};
use crate::error::{Context, StoreError};
use crate::host::{self, HostMaskOptions};
use crate::import::{self, ImportOptions};
use crate::store::Store;
use crate::store::image_defaults::{config_of_stack, parse_stored};
use crate::store::image_rows::{self, HOST, ImageInfo, NewImage, check_name, not_found};

impl Store {
    /// Makes an image of a directory, or of a tar archive, plain or compressed with gzip, zstd or
    /// xz. An image of that name is replaced; what was made from it stays whole.
    ///
    /// # Errors
    ///
    /// [`StoreError::InvalidInput`] for a name or source that cannot be used,
    /// [`StoreError::Import`] for one that is damaged or hostile, or a failure of the system;
    /// nothing is changed then.
    pub fn import_image(&self, source: &Path, name: &str) -> Result<ImageInfo, StoreError> {
        self.import_image_watched(source, name, &Progress::new())
    }

    /// As [`import_image`](Self::import_image); counts in `progress` what is read: bytes of an
    /// archive as it lies there, entries of a directory, of which nobody knows how many there are.
    ///
    /// # Errors
    ///
    /// As [`import_image`](Self::import_image).
    pub fn import_image_watched(
        &self,
        source: &Path,
        name: &str,
        progress: &Progress,
    ) -> Result<ImageInfo, StoreError> {
        check_name(name)?;
        let source = std::path::absolute(source).context("finding", source)?;
        let found = fs::metadata(&source).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                StoreError::invalid(source.display().to_string(), "no such file or directory")
            }
            _ => StoreError::Io {
                doing: "examining",
                path: source.clone(),
                source: error,
            },
        })?;
        let is_root = rustix::process::geteuid().is_root();
        let options = ImportOptions {
            devices: is_root,
            unknown_owner_is_root: !is_root,
            exclude: vec![self.root().to_owned()],
            progress: progress.clone(),
            ..ImportOptions::default()
        };
        let tree = self.core().new_tree()?;
        let report = self.core().files.run(|| {
            if found.is_dir() {
                import::copy_directory(&source, tree.path(), &options)
            } else {
                import::unpack_tar(&source, tree.path(), &options)
            }
        })??;
        let layer = self.core().adopt(tree, LayerKind::Image)?;
        self.put_image(
            layer.layer(),
            &NewImage {
                name,
                digest: &report.digest,
                bytes: report.bytes,
                entries: report.entries,
                notices: &report.notices,
                pulled: None,
            },
            false,
        )?;
        layer.published();
        self.image(name)?.ok_or_else(|| not_found(name))
    }

    /// All images, by name. `host` is among them once it was used.
    ///
    /// # Errors
    ///
    /// A failure of the database.
    pub fn images(&self) -> Result<Vec<ImageInfo>, StoreError> {
        self.core().db.read("listing images", |connection| {
            Ok(image_rows::list(connection)?)
        })
    }

    /// One image, if it exists: by its exact name, or by any form of its reference. `host` always exists.
    ///
    /// # Errors
    ///
    /// A failure of the system.
    pub fn image(&self, name: &str) -> Result<Option<ImageInfo>, StoreError> {
        self.prepare_image(name)?;
        self.core()
            .db
            .read_state("reading an image", |connection| match image_rows::resolve(
                connection, name,
            )? {
                Some(name) => Ok(image_rows::find(connection, &name)?),
                None => Ok(None),
            })
    }

    /// The configuration that an image came with. `None` when there is no such image, or it came without one.
    ///
    /// # Errors
    ///
    /// A failure of the database.
    pub fn image_config(&self, name: &str) -> Result<Option<ImageConfig>, StoreError> {
        let text = self
            .core()
            .db
            .read_state("reading an image", |connection| {
                match image_rows::stack(connection, name)? {
                    Some((_, stack)) => Ok(config_of_stack(connection, stack)?),
                    None => Ok(None),
                }
            })?;
        parse_stored(text)
    }

    /// The configuration of the image that a snapshot's lineage began with, if it came with one.
    ///
    /// # Errors
    ///
    /// [`StoreError::SnapshotNotFound`], or a failure of the database.
    pub fn snapshot_image_config(
        &self,
        snapshot: &SnapshotId,
    ) -> Result<Option<ImageConfig>, StoreError> {
        let text = self
            .core()
            .db
            .read_state("reading a snapshot", |connection| {
                let stack: Option<i64> = connection
                    .prepare_cached("SELECT stack FROM snapshots WHERE name = ?1")?
                    .query_row([snapshot.as_ref()], |row| row.get(0))
                    .optional()?;
                let missing = || StoreError::SnapshotNotFound {
                    snapshot: snapshot.clone(),
                };
                Ok(config_of_stack(connection, stack.ok_or_else(missing)?)?)
            })?;
        parse_stored(text)
    }

    /// Removes an image, by its exact name or by any form of its reference. Snapshots and VMs made from it
    /// stay whole. Returns whether it was there.
    ///
    /// # Errors
    ///
    /// [`StoreError::InvalidInput`] for `host`, or a failure of the database.
    pub fn remove_image(&self, name: &str) -> Result<bool, StoreError> {
        if name == HOST {
            return Err(StoreError::invalid(
                "image host",
                "it is this machine itself and cannot be removed",
            ));
        }
        let core = self.core();
        let doomed = core.db.write("removing an image", |tx| {
            let Some((name, stack)) = image_rows::stack(tx, name)? else {
                return Ok(None);
            };
            tx.prepare_cached("DELETE FROM images WHERE name = ?1")?
                .execute([name])?;
            Ok(Some(stack::release(tx, stack, core.session.id)?))
        })?;
        if doomed == Some(true) {
            self.add_job(Job::Doomed);
        }
        Ok(doomed.is_some())
    }

    /// Digest of an image's content, if the image exists. That of `host` stands for the software
    /// installed on this machine now.
    ///
    /// # Errors
    ///
    /// A failure of the system.
    pub fn image_digest(&self, name: &str) -> Result<Option<String>, StoreError> {
        if name == HOST {
            let digest = host::fingerprint()?;
            self.prepare_host(&digest)?;
            return Ok(Some(digest));
        }
        self.stored_digest(name)
    }

    /// Makes sure that an image that always exists does.
    pub(crate) fn prepare_image(&self, name: &str) -> Result<(), StoreError> {
        if name != HOST || self.core().host_prepared.get().is_some() {
            return Ok(());
        }
        self.prepare_host(&host::fingerprint()?)
    }

    /// Makes the layer that hides what is private on this machine, unless it was made for the same
    /// state of the machine.
    fn prepare_host(&self, digest: &str) -> Result<(), StoreError> {
        if self.stored_digest(HOST)?.as_deref() != Some(digest) {
            let tree = self.core().new_tree()?;
            let options = HostMaskOptions {
                store_root: self.root().to_owned(),
                ..HostMaskOptions::default()
            };
            self.core()
                .files
                .run(|| host::mask_layer(tree.path(), &options))??;
            let layer = self.core().adopt(tree, LayerKind::Image)?;
            self.put_image(
                layer.layer(),
                &NewImage {
                    name: HOST,
                    digest,
                    bytes: 0,
                    entries: 0,
                    notices: &[],
                    pulled: None,
                },
                true,
            )?;
            layer.published();
        }
        let _ = self.core().host_prepared.set(());
        Ok(())
    }

    fn stored_digest(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.core().db.read_state("reading an image", |connection| {
            Ok(image_rows::digest(connection, name)?)
        })
    }

    fn put_image(&self, layer: i64, image: &NewImage<'_>, host: bool) -> Result<(), StoreError> {
        let core = self.core();
        let doomed = core.db.write("adding an image", |tx| {
            stack::publish_layer(tx, layer, LayerKind::Image)?;
            let stack = stack::create(tx, vec![layer], host, 1, None)?;
            stack::set_version(tx, stack.id, image.digest, None, None)?;
            match image_rows::replace(tx, image, stack.id, &core.boot)? {
                Some(old) => Ok(stack::release(tx, old, core.session.id)?),
                None => Ok(false),
            }
        })?;
        self.add_job(Job::Settle);
        if doomed {
            self.add_job(Job::Doomed);
        }
        Ok(())
    }
}
