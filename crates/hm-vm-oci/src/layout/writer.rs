//! Writing images into a layout directory.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hm_vm_core::Progress;
use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};
use tempfile::{Builder, NamedTempFile};

use super::{BLOBS, Directory, INDEX, MARKER, MARKER_CONTENT, blob_path};
use crate::{Descriptor, Destination, MAX_MANIFEST_BYTES, OciError, RawManifest, Verified, media};

/// The annotation with the name of an image, as the OCI has it.
pub(crate) const NAME_OCI: &str = "org.opencontainers.image.ref.name";
/// The annotation with the name of an image in full, as containerd and Docker have it.
pub(crate) const NAME_CONTAINERD: &str = "io.containerd.image.name";

/// How long the index of a layout may be held by another writer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Writes images into a layout directory, a new one or beside those that are there.
///
/// Every file is complete before it gets its name, and what the index names lies on disk before it does. Several
/// writers may work at once, in several processes as well.
#[derive(Debug)]
pub struct LayoutWriter {
    path: PathBuf,
    name: Option<String>,
    directory: Directory,
}

impl LayoutWriter {
    /// Writes into this directory, which is made if it is not there. The image gets this name, and takes it from one that
    /// has it; an image without a name stands beside others.
    ///
    /// # Errors
    ///
    /// [`OciError::Io`]; [`OciError::Invalid`] when the directory is not empty and no layout.
    pub fn new(path: &Path, name: Option<&str>) -> Result<Self, OciError> {
        let failed = |error| OciError::of_io("making", path.display(), error);
        if !path.join(MARKER).exists() {
            fs::create_dir_all(path).map_err(failed)?;
            let mut entries = fs::read_dir(path).map_err(failed)?;
            if entries.next().is_some() && !path.join(BLOBS).exists() {
                let reason = "it is neither empty nor an OCI layout";
                return Err(OciError::invalid(path.display().to_string(), reason));
            }
        }
        fs::create_dir_all(path.join(BLOBS)).map_err(failed)?;
        let writer = Self {
            path: path.to_owned(),
            name: name.map(str::to_owned),
            directory: Directory::open(path)?,
        };
        if !path.join(MARKER).exists() {
            writer.write_file(MARKER, MARKER_CONTENT)?;
        }
        Ok(writer)
    }

    /// A file that has no name yet, beside the one that it becomes.
    fn draft(&self, path: &str) -> Result<NamedTempFile, OciError> {
        let target = self.path.join(path);
        Builder::new()
            .prefix(".hm-vm-")
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(target.parent().unwrap_or(&self.path))
            .map_err(|error| OciError::of_io("making a file beside", target.display(), error))
    }

    /// Gives it its name, once its content is on disk.
    fn publish(&self, draft: NamedTempFile, path: &str) -> Result<(), OciError> {
        let target = self.path.join(path);
        let failed = |error| OciError::of_io("writing", target.display(), error);
        draft.as_file().sync_data().map_err(failed)?;
        draft
            .persist(&target)
            .map_err(|error| failed(error.error))?;
        Ok(())
    }

    fn write_file(&self, path: &str, bytes: &[u8]) -> Result<(), OciError> {
        let mut draft = self.draft(path)?;
        let target = self.path.join(path);
        (draft.write_all(bytes))
            .map_err(|error| OciError::of_io("writing", target.display(), error))?;
        self.publish(draft, path)
    }

    /// Keeps other writers from the index until it is dropped.
    fn lock(&self) -> Result<File, OciError> {
        let failed = |error| OciError::of_io("locking", self.path.display(), error);
        let directory = File::open(&self.path).map_err(failed)?;
        let begun = Instant::now();
        loop {
            match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(directory),
                Err(error) if error != rustix::io::Errno::WOULDBLOCK => {
                    return Err(failed(error.into()));
                }
                Err(_) if begun.elapsed() > PATIENCE => {
                    let reason = format!(
                        "another writer has held its index for {} s",
                        PATIENCE.as_secs()
                    );
                    return Err(OciError::invalid(self.path.display().to_string(), reason));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// The index that is there, as it is: what others say of their images stays.
    fn index(&self) -> Result<Value, OciError> {
        let (file, size) = match self.directory.file(INDEX) {
            Err(OciError::NotFound { .. }) => {
                return Ok(json!({"schemaVersion": 2, "mediaType": media::INDEX, "manifests": []}));
            }
            found => found?,
        };
        let path = self.path.join(INDEX);
        let bad = |reason: String| OciError::invalid(path.display().to_string(), reason);
        if size > MAX_MANIFEST_BYTES {
            return Err(bad(format!(
                "it has {size} bytes, more than {MAX_MANIFEST_BYTES}"
            )));
        }
        let mut bytes = Vec::new();
        file.take(MAX_MANIFEST_BYTES)
            .read_to_end(&mut bytes)
            .map_err(|error| OciError::of_io("reading", path.display(), error))?;
        serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))
    }
}

impl Destination for LayoutWriter {
    fn describe(&self) -> String {
        self.path.display().to_string()
    }

    fn has(&self, blob: &Descriptor) -> Result<bool, OciError> {
        match self.directory.file(&blob_path(&blob.digest)) {
            Ok((_, size)) => Ok(size == blob.size),
            Err(OciError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn put_blob(
        &self,
        blob: &Descriptor,
        open: &dyn Fn() -> io::Result<Box<dyn Read + Send>>,
        progress: &Progress,
    ) -> Result<(), OciError> {
        if self.has(blob)? {
            return Ok(());
        }
        let path = blob_path(&blob.digest);
        let mut draft = self.draft(&path)?;
        copy_blob(blob, open, progress, |piece| draft.write_all(piece))
            .map_err(|error| OciError::of_io("writing", self.path.join(&path).display(), error))?;
        self.publish(draft, &path)
    }

    fn put_manifest(&self, manifest: &RawManifest) -> Result<(), OciError> {
        self.write_file(&blob_path(&manifest.digest), &manifest.bytes)?;
        let _lock = self.lock()?;
        let mut index = self.index()?;
        let Some(entries) = index.get_mut("manifests").and_then(Value::as_array_mut) else {
            let path = self.path.join(INDEX).display().to_string();
            return Err(OciError::invalid(path, "it is no index"));
        };
        let name = self.name.as_deref();
        let digest = manifest.digest.to_string();
        entries.retain(|entry| {
            let has = entry["annotations"][NAME_OCI].as_str();
            has != name || (name.is_none() && entry["digest"] != digest.as_str())
        });
        let entry = named(manifest, name);
        entries.push(serde_json::to_value(&entry).unwrap_or_default());
        self.write_file(INDEX, &crate::manifest::json(&index))
    }
}

/// The entry of an index for this image.
pub(crate) fn named(manifest: &RawManifest, name: Option<&str>) -> Descriptor {
    let size = manifest.bytes.len() as u64;
    let mut entry = Descriptor::new(&manifest.media_type, manifest.digest, size);
    if let Some(name) = name {
        entry
            .annotations
            .insert(NAME_OCI.to_owned(), name.to_owned());
    }
    entry
}

/// Copies a blob piece by piece, verified.
pub(crate) fn copy_blob(
    blob: &Descriptor,
    open: &dyn Fn() -> io::Result<Box<dyn Read + Send>>,
    progress: &Progress,
    mut write: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut input = Verified::new(open()?, blob);
    let mut piece = vec![0; 128 * 1024];
    loop {
        let count = match input.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        write(&piece[..count])?;
        progress.add(count as u64);
    }
}
