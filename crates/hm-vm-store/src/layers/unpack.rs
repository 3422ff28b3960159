//! An OCI archive becomes a layer of the store.

use std::io::Read;
use std::path::Path;
use std::thread;

use hm_vm_oci::{Digest, OciError};

use super::decoder::Decoder;
use super::inflow::flow;
use super::outcome::{LayerRequest, UnpackedLayer};
use crate::error::StoreError;
use crate::import::{ImportError, LayerOptions, LayerReport, unpack_layer_from};
use crate::store::Core;

/// Headers take a block at least, and long names more.
const HEADER_BYTES: u64 = 2048;

impl Core {
    /// Unpacks a layer. `input` is its bytes as they lie at the source: size and digest are checked while they pass.
    /// The compression is told by the bytes themselves: none, gzip, zstd or xz.
    ///
    /// May be called for several layers at once; each takes about 16 MiB of memory. One that asks for more, because
    /// it was compressed with a large window, waits until no other one does.
    ///
    /// # Errors
    ///
    /// [`StoreError::Oci`] when the bytes cannot be had, or are not those of the descriptor and the diff id;
    /// [`StoreError::Import`] when the archive is damaged, hostile or too large, or the disk is full;
    /// [`StoreError::Cancelled`]; or a failure of the system. Nothing is left then.
    pub(crate) fn unpack_layer(
        &self,
        input: Box<dyn Read + Send>,
        request: &LayerRequest,
    ) -> Result<UnpackedLayer<'_>, StoreError> {
        let tree = self.new_tree()?;
        let (report, diff_id) = self.fill_layer(input, request, tree.path())?;
        if let Some(expected) = request.diff_id
            && expected != diff_id
        {
            let what = format!("layer {} without compression", request.blob.digest);
            let reason = format!("its digest is {diff_id}, the image names {expected}");
            return Err(OciError::Mismatch { what, reason }.into());
        }
        Ok(UnpackedLayer {
            pending: self.adopt(tree, request.kind)?,
            needs_lower: report.needs_lower,
            bytes: report.bytes,
            entries: report.entries,
            notices: report.notices,
        })
    }

    fn fill_layer(
        &self,
        input: Box<dyn Read + Send>,
        request: &LayerRequest,
        dest: &Path,
    ) -> Result<(LayerReport, Digest), StoreError> {
        let blob = &request.blob;
        let options = LayerOptions {
            limits: request.limits,
            devices: rustix::process::geteuid().is_root(),
            root_entry: request.root_entry,
        };
        let headers = options.limits.entries.saturating_mul(HEADER_BYTES);
        let limit = options.limits.bytes.saturating_add(headers);
        let (outlet, mut inflow) = flow(limit, blob.size, request.cancel.clone());
        let name = format!("layer {}", blob.digest);
        let (poured, written) = thread::scope(|scope| {
            // Beforehand: nothing may start a thread in the work on files.
            let pouring = scope.spawn(|| {
                Decoder::new(input, blob, request.progress.clone())
                    .and_then(|decoder| outlet.pour(decoder))
            });
            let written = self.files.run(move || {
                match unpack_layer_from(&mut inflow, Path::new(&name), dest, &options) {
                    Ok(report) => Ok((report, inflow.digest())),
                    Err(error) => {
                        if matches!(error, ImportError::InvalidInput { .. }) {
                            inflow.doubt();
                        }
                        Err(error)
                    }
                }
            });
            (pouring.join(), written)
        });
        request.cancel.check().map_err(StoreError::Cancelled)?;
        match poured {
            // What the other one found is that the bytes ended.
            Ok(poured) => poured?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        Ok(written??)
    }
}
