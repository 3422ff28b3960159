//! Images: where lineages begin.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use hm_vm_core::Progress;
use rusqlite::{OptionalExtension, Row, Transaction, params};

use crate::background::Job;
use crate::db::Failure;
use crate::db::stack::{self, LayerKind};
use crate::error::{Context, StoreError};
use crate::host::{self, HostMaskOptions};
use crate::import::{self, ImportOptions};
use crate::store::{Store, now_micros, snapshots};

/// Name of the image that is this machine's own root file system.
const HOST: &str = "host";

/// An image, as its row says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageInfo {
    /// Its name.
    pub name: String,
    /// Digest of its content.
    pub digest: String,
    /// When it was imported.
    pub created: SystemTime,
    /// Bytes of all its files together; 0 for `host`.
    pub bytes: u64,
    /// Number of its files, directories and links; 0 for `host`.
    pub entries: u64,
    /// What the user should know of its import.
    pub notices: Vec<String>,
}

const COLUMNS: &str = "SELECT name, digest, created, bytes, entries, notices FROM images";

/// A new image's row, but for its stack.
struct NewImage<'a> {
    name: &'a str,
    digest: &'a str,
    bytes: u64,
    entries: u64,
    notices: &'a [String],
    host: bool,
}

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
                host: false,
            },
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
            Ok(connection
                .prepare_cached(&format!("{COLUMNS} ORDER BY name"))?
                .query_map([], read_info)?
                .collect::<rusqlite::Result<_>>()?)
        })
    }

    /// One image, if it exists. `host` always does.
    ///
    /// # Errors
    ///
    /// A failure of the system.
    pub fn image(&self, name: &str) -> Result<Option<ImageInfo>, StoreError> {
        self.prepare_image(name)?;
        self.core().db.read("reading an image", |connection| {
            Ok(connection
                .prepare_cached(&format!("{COLUMNS} WHERE name = ?1"))?
                .query_row([name], read_info)
                .optional()?)
        })
    }

    /// Removes an image. Snapshots and VMs made from it stay whole. Returns whether it was there.
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
            let stack: Option<i64> = tx
                .prepare_cached("DELETE FROM images WHERE name = ?1 RETURNING stack")?
                .query_row([name], |row| row.get(0))
                .optional()?;
            let Some(stack) = stack else { return Ok(None) };
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
                    host: true,
                },
            )?;
            layer.published();
        }
        let _ = self.core().host_prepared.set(());
        Ok(())
    }

    fn stored_digest(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.core().db.read("reading an image", |connection| {
            Ok(connection
                .prepare_cached("SELECT digest FROM images WHERE name = ?1")?
                .query_row([name], |row| row.get(0))
                .optional()?)
        })
    }

    fn put_image(&self, layer: i64, image: &NewImage<'_>) -> Result<(), StoreError> {
        let core = self.core();
        let notices = serde_json::to_string(image.notices).unwrap_or_default();
        let doomed = core.db.write("adding an image", |tx| {
            stack::publish_layer(tx, layer, LayerKind::Image)?;
            let stack = stack::create(tx, vec![layer], image.host, 1, None)?;
            stack::set_version(tx, stack.id, image.digest, None, None)?;
            let old: Option<i64> = tx
                .prepare_cached("DELETE FROM images WHERE name = ?1 RETURNING stack")?
                .query_row([image.name], |row| row.get(0))
                .optional()?;
            insert(tx, image, stack.id, &notices, &core.boot)?;
            match old {
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

fn insert(
    tx: &Transaction<'_>,
    image: &NewImage<'_>,
    stack: i64,
    notices: &str,
    boot: &str,
) -> Result<(), Failure> {
    tx.prepare_cached(
        "INSERT INTO images (name, digest, created, stack, bytes, entries, notices, durable, boot)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, ?8)",
    )?
    .execute(params![
        image.name,
        image.digest,
        now_micros(),
        stack,
        image.bytes,
        image.entries,
        notices,
        boot
    ])?;
    Ok(())
}

fn read_info(row: &Row<'_>) -> rusqlite::Result<ImageInfo> {
    let notices: String = row.get(5)?;
    Ok(ImageInfo {
        name: row.get(0)?,
        digest: row.get(1)?,
        created: snapshots::time(row.get(2)?),
        bytes: row.get(3)?,
        entries: row.get(4)?,
        notices: serde_json::from_str(&notices).unwrap_or_default(),
    })
}

fn check_name(name: &str) -> Result<(), StoreError> {
    let reason = if name.is_empty() {
        "it is empty"
    } else if name == HOST {
        "the name stands for this machine itself"
    } else if name.len() > 255 {
        "it is longer than 255 bytes"
    } else if name.starts_with('-') {
        "it begins with a dash"
    } else if name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        "it contains white space or control characters"
    } else {
        return Ok(());
    };
    Err(StoreError::invalid(format!("image name {name:?}"), reason))
}

fn not_found(name: &str) -> StoreError {
    StoreError::ImageNotFound {
        image: name.to_owned(),
    }
}
