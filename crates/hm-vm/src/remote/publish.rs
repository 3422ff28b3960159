//! Giving a result to a shared cache: its parts first, the manifest that names them last.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use hm_vm_core::Progress;
use hm_vm_oci::{Descriptor, Digest, Hasher, Manifest, RawManifest, media};
use hm_vm_store::{SnapshotChain, StoreError};

use super::cache::Shared;
use super::health::Failure;
use super::port::{Published, RemoteEntry};
use super::record::{ARTIFACT, LOG, MAX_RECORD_BYTES, RECORD, Record, tag};

/// Opens a part, from its beginning.
type Open<'a> = &'a dyn Fn() -> io::Result<Box<dyn Read + Send>>;

/// Publishes a result. Returns how many bytes were sent; `None` when the snapshot is gone. `there` are parts known to
/// be there.
pub(super) fn publish(
    shared: &Shared,
    result: &Published,
    there: &mut BTreeSet<Digest>,
) -> Result<Option<u64>, Failure> {
    let mut upload = Upload {
        shared,
        there,
        sent: 0,
    };
    if is_there(shared, result)? {
        return Ok(Some(0));
    }
    let (store, id) = (&shared.store, &result.entry.snapshot);
    let Some(mut chain) = unless_gone(store.snapshot_chain(id))? else {
        return Ok(None);
    };
    let mut parts = match upload.layers(&chain)? {
        Some(parts) => parts,
        None => {
            let Some(merged) = unless_gone(store.merged_chain(id))? else {
                return Ok(None);
            };
            chain = merged;
            let parts = upload.layers(&chain)?;
            parts.ok_or(Failure::Nothing("its layers are not here any more"))?
        }
    };
    for (place, inject) in chain.adoption.injects.iter().enumerate() {
        upload.bytes(&inject.manifest, chain.inject_manifest(place))?;
        parts.push(inject.manifest.clone());
    }
    if let Some(log) = &result.log {
        parts.push(upload.log(log)?);
    }
    let entry = RemoteEntry {
        created: chain.adoption.created,
        ..result.entry.clone()
    };
    let record = Record::new(
        &result.key,
        &chain.adoption,
        &entry,
        result.components.clone(),
        if result.log.is_some() {
            result.output_bytes
        } else {
            0
        },
    );
    upload.manifest(&result.key, &record, parts)?;
    shared.forget(&result.key);
    Ok(Some(upload.sent))
}

fn unless_gone(chain: Result<SnapshotChain, StoreError>) -> Result<Option<SnapshotChain>, Failure> {
    match chain {
        Ok(chain) => Ok(Some(chain)),
        Err(StoreError::SnapshotNotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether the key has this result there already, or a newer one. One that makes no sense is replaced.
fn is_there(shared: &Shared, result: &Published) -> Result<bool, Failure> {
    match shared.look_up(&result.key) {
        Ok(None) => Ok(false),
        Ok(Some(found)) => Ok(found.entry.snapshot == result.entry.snapshot
            || found.entry.created > result.entry.created),
        Err(Failure::Lie { .. }) => Ok(false),
        Err(Failure::Oci(
            hm_vm_oci::OciError::Mismatch { .. } | hm_vm_oci::OciError::NotFound { .. },
        )) => Ok(false),
        Err(failure) => Err(failure),
    }
}

struct Upload<'a> {
    shared: &'a Shared,
    there: &'a mut BTreeSet<Digest>,
    sent: u64,
}

impl Upload<'_> {
    /// The snapshot's layers, bottom first. Only those that are not there are packed. `None` when one is neither
    /// there nor here: it was merged with others.
    fn layers(&mut self, chain: &SnapshotChain) -> Result<Option<Vec<Descriptor>>, Failure> {
        let mut parts = Vec::new();
        for (place, layer) in chain.adoption.layers.iter().enumerate() {
            if self.has(&layer.blob)? {
                parts.push(layer.blob.clone());
                continue;
            }
            let Some(packed) = chain.pack(place)? else {
                return Ok(None);
            };
            self.put(&packed.blob, &|| Ok(packed.open()))?;
            parts.push(packed.blob);
        }
        Ok(Some(parts))
    }

    fn bytes(&mut self, blob: &Descriptor, bytes: &[u8]) -> Result<(), Failure> {
        if self.has(blob)? {
            return Ok(());
        }
        let bytes: Arc<[u8]> = bytes.into();
        self.put(blob, &|| {
            Ok(Box::new(io::Cursor::new(Arc::clone(&bytes))) as Box<dyn Read + Send>)
        })
    }

    fn log(&mut self, file: &Arc<File>) -> Result<Descriptor, Failure> {
        let open = || Whole {
            file: Arc::clone(file),
            place: 0,
        };
        let mut hasher = Hasher::default();
        let (mut input, mut buffer, mut size) = (open(), vec![0; 64 << 10], 0);
        loop {
            let count = input.read(&mut buffer).map_err(|source| Failure::Io {
                doing: "reading the stored output",
                source,
            })?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            size += count as u64;
        }
        let blob = Descriptor::new(LOG, hasher.finish(), size);
        if !self.has(&blob)? {
            self.put(&blob, &|| Ok(Box::new(open()) as Box<dyn Read + Send>))?;
        }
        Ok(blob)
    }

    /// Writes the record, and then the manifest.
    fn manifest(
        &mut self,
        key: &str,
        record: &Record,
        layers: Vec<Descriptor>,
    ) -> Result<(), Failure> {
        let wrong = |error: serde_json::Error| Failure::lie("the record", error.to_string());
        let record = serde_json::to_vec(record).map_err(wrong)?;
        if record.len() as u64 > MAX_RECORD_BYTES {
            return Err(Failure::Nothing(
                "what its key was derived from is too long",
            ));
        }
        let config = Descriptor::of(RECORD, &record);
        self.bytes(&config, &record)?;
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media::MANIFEST.to_owned()),
            artifact_type: Some(ARTIFACT.to_owned()),
            config,
            layers,
            annotations: BTreeMap::new(),
        };
        let bytes = serde_json::to_vec(&manifest).map_err(wrong)?;
        let raw = RawManifest {
            media_type: media::MANIFEST.to_owned(),
            digest: Digest::of(&bytes),
            bytes,
        };
        Ok(self.shared.repository.put_manifest(&tag(key), &raw)?)
    }

    fn has(&mut self, blob: &Descriptor) -> Result<bool, Failure> {
        if self.there.contains(&blob.digest) {
            return Ok(true);
        }
        let has = self.shared.repository.destination().has(blob)?;
        if has {
            self.there.insert(blob.digest);
        }
        Ok(has)
    }

    fn put(&mut self, blob: &Descriptor, open: Open<'_>) -> Result<(), Failure> {
        let destination = self.shared.repository.destination();
        destination.put_blob(blob, open, &Progress::new())?;
        self.there.insert(blob.digest);
        self.sent += blob.size;
        Ok(())
    }
}

/// A file from its beginning, whatever its position.
struct Whole {
    file: Arc<File>,
    place: u64,
}

impl Read for Whole {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.place)?;
        self.place += count as u64;
        Ok(count)
    }
}
