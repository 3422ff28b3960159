//! Telling what a file or a directory of the user's is.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hm_vm_core::Cancellation;

use super::docker::{self, DockerSource};
use super::{Members, unpacked};
use crate::layout::{Directory, INDEX, LayoutSource, MARKER};
use crate::{OciError, Source};

/// How an image on this machine is opened.
#[derive(Clone, Debug)]
pub struct LocalOptions {
    /// Which image, where there are several.
    pub name: Option<String>,
    /// Directory for the content of an archive that is compressed as a whole, in a file without a name. None: the
    /// directory of the archive.
    pub scratch: Option<PathBuf>,
    /// How many bytes such an archive may have, unpacked.
    pub unpacked_limit: u64,
    /// Ends the unpacking.
    pub cancel: Cancellation,
}

/// The only image, at most 64 GiB of it.
impl Default for LocalOptions {
    fn default() -> Self {
        Self {
            name: None,
            scratch: None,
            unpacked_limit: 64 << 30,
            cancel: Cancellation::new(),
        }
    }
}

/// Opens an image that lies on this machine: a directory in the OCI's layout, an archive of one, or what `docker save`
/// and `podman save` write, also compressed with gzip or zstd. Content tells which one it is, not the path's name.
///
/// Where there are several images, `name` tells which: as it is written there, or another name of the same
/// (`alpine` for `docker.io/library/alpine:latest`), or its id.
///
/// # Errors
///
/// [`OciError::NoImage`] when it is a directory or an archive of something else, perhaps of a root file system;
/// [`OciError::NotFound`] when there is no image of that name; [`OciError::Invalid`] when it must be named, or is
/// damaged; [`OciError::Io`].
pub fn open_local(path: &Path, name: Option<&str>) -> Result<Arc<dyn Source>, OciError> {
    open_local_with(
        path,
        &LocalOptions {
            name: name.map(str::to_owned),
            ..LocalOptions::default()
        },
    )
}

/// [`open_local`] with everything that can be said.
///
/// # Errors
///
/// As [`open_local`]; [`OciError::Cancelled`].
pub fn open_local_with(path: &Path, options: &LocalOptions) -> Result<Arc<dyn Source>, OciError> {
    let failed = |error| OciError::of_io("opening", path.display(), error);
    let name = options.name.as_deref();
    let kind = fs::metadata(path).map_err(failed)?;
    if kind.is_dir() {
        let directory = Directory::open(path)?;
        if directory.file(INDEX).is_err() || directory.file(MARKER).is_err() {
            return Err(no_image(path));
        }
        return Ok(Arc::new(LayoutSource::new(directory, name)?));
    }
    if !kind.is_file() {
        let reason = "it is neither a file nor a directory";
        return Err(OciError::invalid(path.display().to_string(), reason));
    }
    let file = File::open(path).map_err(failed)?;
    let mut start = [0; 6];
    let count = file.read_at(&mut start, 0).map_err(failed)?;
    let file = match &start[..count] {
        [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            unpacked::unpack(file, path, options)?.ok_or_else(|| no_image(path))?
        }
        // xz and bzip2: nobody saves images so.
        [0xfd, b'7', b'z', b'X', b'Z', 0] | [b'B', b'Z', b'h', ..] => return Err(no_image(path)),
        _ => file,
    };
    open_archive(file, path, name)
}

/// Opens an archive whose content is in `file`; `path` is for messages.
pub(crate) fn open_archive(
    file: File,
    path: &Path,
    name: Option<&str>,
) -> Result<Arc<dyn Source>, OciError> {
    let members = Members::scan(file, path)?;
    let is_layout = members.contains(MARKER) && members.contains(INDEX);
    let entries = if is_layout {
        None
    } else {
        docker::entries(&members)?
    };
    if !is_layout && entries.is_none() {
        return Err(no_image(path));
    }
    if members.is_cut_off() {
        let reason = format!("it has more than {} members", members.count() - 1);
        return Err(OciError::invalid(path.display().to_string(), reason));
    }
    Ok(match entries {
        Some(entries) => Arc::new(DockerSource::new(members, entries, name)?),
        None => Arc::new(LayoutSource::new(members, name)?),
    })
}

fn no_image(path: &Path) -> OciError {
    OciError::NoImage {
        path: path.display().to_string(),
    }
}
