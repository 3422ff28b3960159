//! Named cache directories as artifacts of their own.
//!
//! ```text
//! manifest    artifactType application/vnd.hm-vm.cache-directory.v1
//!   config    {}
//!   layers    one: a tar archive of the directory, with zstd
//! ```

use std::fmt;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use hm_vm_core::{Cancellation, Progress, ProgressUnit};
use hm_vm_oci::{
    Compression, Descriptor, Destination, Manifest, OciError, Parsed, Source, Verified, media,
};

use super::options::ExportReport;
use super::packing::pack;
use super::tree::Form;
use crate::error::StoreError;
use crate::import::{ImportOptions, ImportReport, unpack_tar_from};
use crate::store::Store;
use crate::transfer::{TransferPart, TransferWatch, Unwatched};

/// What such an artifact is.
const ARTIFACT: &str = "application/vnd.hm-vm.cache-directory.v1";

/// The configuration of what has none.
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
const EMPTY: &[u8] = b"{}";

/// How a cache directory travels.
#[derive(Clone, Debug)]
pub struct CacheOptions {
    /// Who is told of it.
    pub watch: Arc<dyn TransferWatch>,
    /// Ends it. The other side has its own.
    pub cancel: Cancellation,
}

impl Default for CacheOptions {
    /// Nobody watches.
    fn default() -> Self {
        Self {
            watch: Arc::new(Unwatched),
            cancel: Cancellation::new(),
        }
    }
}

/// A cache directory that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheImport {
    /// Bytes of all its files together.
    pub bytes: u64,
    /// Number of its files, directories and links.
    pub entries: u64,
    /// What the user should know.
    pub notices: Vec<String>,
}

impl Store {
    /// Writes a cache directory as an artifact. It is held alone meanwhile, as by
    /// [`try_lock_cache`](Self::try_lock_cache).
    ///
    /// # Errors
    ///
    /// [`StoreError::InvalidInput`] when there is none of this name, or while somebody uses it; [`StoreError::Oci`] when
    /// the destination fails; [`StoreError::Cancelled`]; or a failure of the system.
    pub fn export_cache(
        &self,
        name: &str,
        destination: &dyn Destination,
        options: &CacheOptions,
    ) -> Result<ExportReport, StoreError> {
        let (held, tree) = self.hold_cache_to_read(name)?;
        let progress = begin(options, None);
        let cancel = &options.cancel;
        let packed = pack(self.core(), &tree, Form::Plain, Compression::Zstd, cancel)?;
        drop(held);
        let layer = Descriptor::new(media::LAYER_ZSTD, packed.digest, packed.size);
        let config = Descriptor::of(EMPTY_TYPE, EMPTY);
        progress.begin(ProgressUnit::Bytes, Some(layer.size));
        let mut sent_bytes = 0;
        for blob in [&layer, &config] {
            cancel.check().map_err(StoreError::Cancelled)?;
            if destination.has(blob)? {
                continue;
            }
            let is_layer = blob == &layer;
            let open = || match is_layer {
                true => Ok(packed.file.open()),
                false => Ok(Box::new(EMPTY) as Box<dyn Read + Send>),
            };
            let counted = if is_layer {
                progress.clone()
            } else {
                Progress::new()
            };
            destination.put_blob(blob, &open, &counted)?;
            sent_bytes += blob.size;
        }
        progress.complete();
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media::MANIFEST.to_owned()),
            artifact_type: Some(ARTIFACT.to_owned()),
            config,
            layers: vec![layer],
            annotations: [("dev.hm-vm.cache".to_owned(), name.to_owned())].into(),
        };
        let raw = manifest.to_raw();
        destination.put_manifest(&raw)?;
        destination.finish()?;
        let manifest_bytes = raw.bytes.len() as u64;
        Ok(ExportReport {
            manifest: raw.digest,
            config: manifest.config.digest,
            layers: 1,
            sent_bytes: sent_bytes + manifest_bytes,
            total_bytes: manifest.total_size().unwrap_or(u64::MAX) + manifest_bytes,
            notices: packed.notices,
        })
    }

    /// Makes the files of such an artifact those of the cache `name`, instead of all that it holds; made when it is
    /// missing. Nothing is trusted: what a layer may not have, this may not have either.
    ///
    /// # Errors
    ///
    /// [`StoreError::InvalidInput`] while somebody uses the cache; [`StoreError::Oci`] when the source fails, lies, or has
    /// something else; [`StoreError::Import`] for an archive that is damaged or hostile; [`StoreError::Cancelled`]; or
    /// a failure of the system. The cache stays as it was then.
    pub fn import_cache(
        &self,
        name: &str,
        source: &dyn Source,
        options: &CacheOptions,
    ) -> Result<CacheImport, StoreError> {
        let layer = find_layer(source)?;
        self.replace_cache(name, |tree| {
            let progress = begin(options, Some(&layer));
            progress.begin(ProgressUnit::Bytes, Some(layer.size));
            let report = self.unpack_cache(source, &layer, tree, options, progress)?;
            Ok(CacheImport {
                bytes: report.bytes,
                entries: report.entries,
                notices: report.notices,
            })
        })
    }

    fn unpack_cache(
        &self,
        source: &dyn Source,
        layer: &Descriptor,
        tree: &Path,
        options: &CacheOptions,
        progress: Progress,
    ) -> Result<ImportReport, StoreError> {
        let import = ImportOptions {
            devices: rustix::process::geteuid().is_root(),
            progress,
            ..ImportOptions::default()
        };
        let mut input = Input {
            input: Verified::new(source.open(layer)?, layer),
            cancel: &options.cancel,
            failure: None,
        };
        let label = source.describe();
        let unpacked = self.core().files.run(|| {
            let report = unpack_tar_from(&mut input, Path::new(&label), tree, &import)?;
            // What comes after the end of the archive is checked as well.
            let rest = io::copy(&mut input, &mut io::sink());
            Ok((report, rest))
        })?;
        options.cancel.check().map_err(StoreError::Cancelled)?;
        let failed = |error| StoreError::Oci(OciError::of_io("reading", &label, error));
        if let Some(error) = input.failure {
            return Err(failed(error));
        }
        let (report, rest) = unpacked.map_err(StoreError::Import)?;
        rest.map_err(failed)?;
        Ok(report)
    }
}

/// Passes bytes on, and keeps the failure of the source apart from those of the archive.
struct Input<'a, R> {
    input: R,
    cancel: &'a Cancellation,
    failure: Option<io::Error>,
}

impl<R: Read> Read for Input<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.check().is_err() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        match self.input.read(buffer) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                self.failure.get_or_insert(error);
                Err(io::ErrorKind::BrokenPipe.into())
            }
            other => other,
        }
    }
}

impl<R> fmt::Debug for Input<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input").finish_non_exhaustive()
    }
}

/// The one layer of the artifact.
fn find_layer(source: &dyn Source) -> Result<Descriptor, StoreError> {
    let bad = |reason: String| StoreError::Oci(OciError::invalid(source.describe(), reason));
    let Parsed::Manifest(manifest) = source.root()?.parse()? else {
        return Err(bad(
            "it is an image for several platforms, no cache directory".to_owned(),
        ));
    };
    match manifest.artifact_type.as_deref() {
        Some(ARTIFACT) => {}
        Some(other) => return Err(bad(format!("it is no cache directory, but {other}"))),
        None => return Err(bad("it is no cache directory, but an image".to_owned())),
    }
    match <[Descriptor; 1]>::try_from(manifest.layers) {
        Ok([layer]) => Ok(layer),
        Err(layers) => Err(bad(format!(
            "a cache directory has one layer, this has {}",
            layers.len()
        ))),
    }
}

fn begin(options: &CacheOptions, blob: Option<&Descriptor>) -> Progress {
    options.watch.part(&TransferPart {
        label: "cache directory".to_owned(),
        digest: blob.map(|blob| blob.digest),
        bytes: blob.map(|blob| blob.size),
        present: false,
    })
}
