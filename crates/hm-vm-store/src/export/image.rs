//! Snapshots and images as OCI images.

use std::time::SystemTime;

use hm_vm_core::{Progress, SnapshotId};
use hm_vm_oci::{Compression, Descriptor, Destination, Digest, Manifest, media};
use rusqlite::OptionalExtension;

use super::config::{NewConfig, Snapshot};
use super::held::HeldStack;
use super::options::{ExportOptions, ExportReport, ImageFormat};
use super::sending::{Sender, Sent, pieces};
use crate::error::StoreError;
use crate::layers::OWN_LAYER;
use crate::pull::ImageLayer;
use crate::store::Store;

/// Longest lineage that is told.
const MAX_LINEAGE: usize = 1000;

impl Store {
    /// Writes a snapshot as an OCI image: all layers of its stack, and the image's configuration with what `options` say.
    /// Only layers that the destination lacks are packed and sent, several at once. The entry point, the command, the
    /// user and all else that the image's configuration says stay as they are.
    ///
    /// # Errors
    ///
    /// [`StoreError::SnapshotNotFound`]; [`StoreError::InvalidInput`] for one that stands on the image `host`, or has files
    /// that an OCI layer cannot hold (`.wh.…`); [`StoreError::Oci`] when the destination fails;
    /// [`StoreError::Cancelled`]; or a failure of the system. The destination may have some of the layers then,
    /// but no image.
    pub fn export_snapshot(
        &self,
        snapshot: &SnapshotId,
        destination: &dyn Destination,
        options: &ExportOptions,
    ) -> Result<ExportReport, StoreError> {
        check(options)?;
        let missing = || StoreError::SnapshotNotFound {
            snapshot: snapshot.clone(),
        };
        let sql = "SELECT stack FROM snapshots WHERE name = ?1";
        let held = HeldStack::find(self, sql, snapshot.as_ref())?.ok_or_else(missing)?;
        let info = self.snapshot(snapshot)?.ok_or_else(missing)?;
        if held.stack.host {
            return Err(StoreError::invalid(
                format!("snapshot {snapshot}"),
                "it stands on the image host, which is this machine itself and no part of it; only \
                 snapshots of other images can be exported",
            ));
        }
        let exported = Exported {
            created: info.created,
            snapshot: Some(Snapshot {
                id: snapshot.to_string(),
                label: info.label,
                lineage: self.lineage(snapshot)?,
            }),
        };
        self.export(&held, exported, destination, options)
    }

    /// Writes an image as an OCI image, as [`export_snapshot`](Self::export_snapshot) does. One that was pulled keeps its
    /// configuration, and its digest where the destination has its layers.
    ///
    /// # Errors
    ///
    /// [`StoreError::ImageNotFound`]; [`StoreError::InvalidInput`] for `host`; otherwise as `export_snapshot`.
    pub fn export_image(
        &self,
        name: &str,
        destination: &dyn Destination,
        options: &ExportOptions,
    ) -> Result<ExportReport, StoreError> {
        check(options)?;
        if name == "host" {
            return Err(StoreError::invalid(
                "image host",
                "it is this machine itself and cannot be exported",
            ));
        }
        let missing = || StoreError::ImageNotFound {
            image: name.to_owned(),
        };
        let info = self.image(name)?.ok_or_else(missing)?;
        let sql = "SELECT stack FROM images WHERE name = ?1";
        let held = HeldStack::find(self, sql, &info.name)?.ok_or_else(missing)?;
        let exported = Exported {
            created: info.created,
            snapshot: None,
        };
        self.export(&held, exported, destination, options)
    }

    fn export(
        &self,
        held: &HeldStack,
        exported: Exported,
        destination: &dyn Destination,
        options: &ExportOptions,
    ) -> Result<ExportReport, StoreError> {
        let sender = Sender {
            store: self,
            destination,
            options,
        };
        let (stack, version) = (&held.stack, held.version.as_ref());
        let originals = match version.and_then(|version| version.layers.as_deref()) {
            Some(layers) => sender.originals(layers)?,
            None => None,
        };
        let (mut sent, base_layers, rest) = match originals {
            // There must be room for what comes on top.
            Some(originals) if originals.len() < options.max_layers => {
                let count = originals.len();
                (originals, count, &stack.layers[stack.base..])
            }
            _ => (Vec::new(), stack.base, &stack.layers[..]),
        };
        let most = options.max_layers.saturating_sub(sent.len());
        let mut packed = sender.send_all(&pieces(rest, most))?;
        let others: Vec<ImageLayer> = version
            .and_then(|version| serde_json::from_str(version.layers.as_deref()?).ok())
            .unwrap_or_default();
        for layer in &mut packed {
            if others.iter().all(|other| other.diff_id != layer.diff_id) {
                let mark = (OWN_LAYER.to_owned(), "1".to_owned());
                layer.blob.annotations.extend([mark]);
            }
        }
        sent.extend(packed);
        let diff_ids: Vec<Digest> = sent.iter().map(|sent| sent.diff_id).collect();
        let config = NewConfig {
            base: version.and_then(|version| version.config.as_deref()),
            base_layers,
            diff_ids: &diff_ids,
            snapshot: exported.snapshot,
            created: exported.created,
        };
        let config = config.bytes(options)?;
        put_image(destination, options, &config, sent)
    }

    /// The snapshot, its parent and so on, as far as they are here.
    fn lineage(&self, snapshot: &SnapshotId) -> Result<Vec<String>, StoreError> {
        let db = &self.core().db;
        db.read_state("reading a lineage", |connection| {
            let mut parent =
                connection.prepare_cached("SELECT parent FROM snapshots WHERE name = ?1")?;
            let mut lineage = vec![snapshot.to_string()];
            while lineage.len() < MAX_LINEAGE {
                let above: Option<Option<String>> = parent
                    .query_row([lineage.last()], |row| row.get(0))
                    .optional()?;
                let Some(above) = above.flatten() else { break };
                lineage.push(above);
            }
            Ok(lineage)
        })
    }
}

/// What is exported, besides its layers.
struct Exported {
    created: SystemTime,
    snapshot: Option<Snapshot>,
}

fn check(options: &ExportOptions) -> Result<(), StoreError> {
    if options.format == ImageFormat::Docker && options.compression == Compression::Zstd {
        return Err(StoreError::invalid(
            "compression zstd",
            "images in Docker's format have gzip",
        ));
    }
    if let Some(directory) = &options.working_dir
        && !directory.starts_with('/')
    {
        let reason = "it is not an absolute path";
        return Err(StoreError::invalid(
            format!("working directory {directory:?}"),
            reason,
        ));
    }
    if let Some(name) = options
        .env
        .keys()
        .find(|name| name.is_empty() || name.contains(['=', '\0']))
    {
        let reason = "no variable has such a name";
        return Err(StoreError::invalid(format!("variable {name:?}"), reason));
    }
    Ok(())
}

/// Writes configuration and manifest over layers that are there.
fn put_image(
    destination: &dyn Destination,
    options: &ExportOptions,
    config: &[u8],
    sent: Vec<Sent>,
) -> Result<ExportReport, StoreError> {
    let (manifest_type, config_type) = match options.format {
        ImageFormat::Oci => (media::MANIFEST, media::CONFIG),
        ImageFormat::Docker => (media::DOCKER_MANIFEST, media::DOCKER_CONFIG),
    };
    let descriptor = Descriptor::of(config_type, config);
    let mut sent_bytes: u64 = sent
        .iter()
        .filter(|sent| sent.travelled)
        .map(|sent| sent.blob.size)
        .sum();
    options.cancel.check().map_err(StoreError::Cancelled)?;
    if !destination.has(&descriptor)? {
        let open = || Ok(Box::new(std::io::Cursor::new(config.to_vec())) as _);
        destination.put_blob(&descriptor, &open, &Progress::new())?;
        sent_bytes += descriptor.size;
    }
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(manifest_type.to_owned()),
        artifact_type: None,
        config: descriptor.clone(),
        layers: sent.iter().map(|sent| sent.blob.clone()).collect(),
        annotations: Default::default(),
    };
    let total = manifest.total_size().unwrap_or(u64::MAX);
    let raw = manifest.to_raw();
    destination.put_manifest(&raw)?;
    destination.finish()?;
    let manifest_bytes = raw.bytes.len() as u64;
    Ok(ExportReport {
        manifest: raw.digest,
        config: descriptor.digest,
        layers: manifest.layers.len(),
        sent_bytes: sent_bytes + manifest_bytes,
        total_bytes: total.saturating_add(manifest_bytes),
        notices: sent.into_iter().flat_map(|sent| sent.notices).collect(),
    })
}
